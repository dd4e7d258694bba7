# shellcheck shell=bash
# podman, with the registries.conf that `stopover client podman` writes.

podman_tests() {
  begin podman
  check podman_pulls_what_the_mirror_has
  check podman_runs_the_image
  check podman_pulls_a_new_image_at_the_cost_of_one_pull
  check podman_pulls_from_another_registry_through_the_mirror
}

podman_pulls_what_the_mirror_has() {
  hub_reset
  local started=$EPOCHREALTIME
  p pull "docker.io/$IMAGE"
  note "podman pull: $(seconds_since "$started") s"
  hub_saw_no_get
  equal "image id" "$(right image_id)" "sha256:$(p image inspect --format '{{.Id}}' "docker.io/$IMAGE")"
}

# Root's podman asks for more files and processes than a machine in a sandbox may have, so it is told how many.
podman_runs_the_image() {
  equal "its output" "$IMAGE_PRINTS" \
    "$(p run --rm --network none --ulimit nofile=1024:1024 --ulimit nproc=1024:1024 "docker.io/$IMAGE")"
}

# podman asks for a tag by GET, without the HEAD that others send first.
podman_pulls_a_new_image_at_the_cost_of_one_pull() {
  hub_reset
  p pull "docker.io/$SMALL-podman"
  hub_saw_at_most_one_pull 1
}

podman_pulls_from_another_registry_through_the_mirror() {
  hub_reset
  p pull "$REGISTRY/$SECOND"
  hub_saw_at_most_one_pull 2
}

p() {
  CONTAINERS_REGISTRIES_CONF=$(registries_conf) podman --root "$work/podman/root" --runroot "$work/podman/run" \
    --tmpdir "$work/podman/tmp" --storage-driver overlay --cgroup-manager cgroupfs --events-backend none "$@"
}

# Writes the file that podman, skopeo and buildah share, as `stopover client podman` does; prints where it is.
registries_conf() {
  settings podman >/dev/null
  echo "$work/podman.root/etc/containers/registries.conf.d/50-stopover.conf"
}
