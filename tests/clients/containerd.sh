# shellcheck shell=bash
# containerd, with the hosts.toml files that `stopover client containerd` writes; ctr is its plain client.

containerd_tests() {
  begin containerd
  HOSTS_DIR=$work/containerd.root/etc/containerd/certs.d
  check containerd_starts
  check ctr_pulls_what_the_mirror_has
  check ctr_has_the_right_image
  check ctr_runs_the_image
  check ctr_pulls_a_new_image_at_the_cost_of_one_pull
  check ctr_pulls_from_another_registry_through_the_mirror
  check config_toml_tells_kubernetes_side_where_to_look
}

containerd_starts() {
  mkdir -p "$work/containerd"
  cat >"$work/containerd/config.toml" <<TOML
version = 2
root = "$work/containerd/root"
state = "$work/containerd/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "$work/containerd.sock"
[ttrpc]
  address = "$work/containerd.sock.ttrpc"
TOML
  settings containerd
  start containerd containerd --config "$work/containerd/config.toml"
  await containerd c version
}

ctr_pulls_what_the_mirror_has() {
  hub_reset
  local started=$EPOCHREALTIME
  c images pull --hosts-dir "$HOSTS_DIR" "docker.io/$IMAGE:latest" >"$work/ctr.out" 2>&1 ||
    fail "ctr: $(tail -n 5 "$work/ctr.out")"
  note "ctr images pull: $(seconds_since "$started") s"
  hub_saw_no_get
}

# containerd checks each blob against its digest as it comes in, so the name's digest vouches for the rest.
ctr_has_the_right_image() {
  equal "digest" "$(right index_digest)" "$(c images ls "name==docker.io/$IMAGE:latest" | awk 'NR == 2 { print $3 }')"
  c content ls -q | grep -xF "$(right image_id)" || fail "the image's configuration $(right image_id) is not there"
}

ctr_runs_the_image() {
  equal "its output" "$IMAGE_PRINTS" "$(c run --rm --runc-root "$work/containerd/runc" \
    --fifo-dir "$work/containerd/fifo" "docker.io/$IMAGE:latest" stopover-test)"
}

ctr_pulls_a_new_image_at_the_cost_of_one_pull() {
  hub_reset
  c images pull --hosts-dir "$HOSTS_DIR" "docker.io/$SMALL-containerd:latest" >"$work/ctr.out" 2>&1 ||
    fail "ctr: $(tail -n 5 "$work/ctr.out")"
  hub_saw_at_most_one_pull 2
}

ctr_pulls_from_another_registry_through_the_mirror() {
  hub_reset
  c images pull --hosts-dir "$HOSTS_DIR" "$REGISTRY/$SECOND:latest" >"$work/ctr.out" 2>&1 ||
    fail "ctr: $(tail -n 5 "$work/ctr.out")"
  hub_saw_at_most_one_pull 2
}

# containerd reads the file that was written, and the one that it makes itself with the line merged into it.
config_toml_tells_kubernetes_side_where_to_look() {
  local config="$work/containerd.root/etc/containerd/config.toml"
  containerd --config "$config" config dump | grep -F 'config_path = "/etc/containerd/certs.d"'
  containerd config default >"$config"
  settings containerd --registry "*"
  containerd --config "$config" config dump | grep -F 'config_path = "/etc/containerd/certs.d"'
}

c() {
  ctr --address "$work/containerd.sock" "$@"
}
