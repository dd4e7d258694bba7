# shellcheck shell=bash
# dockerd, with Stopover as its registry mirror: the daemon.json that `stopover client docker` writes.
#
# dockerd keeps manifests for a while after their image is removed. So a pull that must come whole from elsewhere begins
# with a new daemon that has nothing; only the second pull is a user's "remove it and pull again".

docker_tests() {
  begin docker
  check a_new_daemon_starts
  check a_direct_pull_from_the_hub_is_what_we_compare_with
  check a_new_daemon_starts
  check the_first_pull_costs_the_hub_one_pull
  check the_image_is_the_one_pulled_directly
  check the_image_runs
  check the_second_pull_asks_the_hub_for_nothing
  check the_image_is_the_one_pulled_directly
  check the_image_runs
  check an_official_image_needs_no_library_before_its_name
  check an_image_of_another_registry_comes_by_its_path
  check what_is_taken_back_is_gone_after_a_restart
  check a_reload_is_enough_to_take_the_mirror
  note "docker pull $IMAGE: $(took direct) s from the hub, $(took first) s through Stopover, $(took second) s again"
  check a_new_daemon_starts
  check a_new_daemon_gets_it_without_a_get
  check the_image_is_the_one_pulled_directly
}

# These stop the hub, so they come when every other client is done.
docker_tests_without_hub() {
  begin "docker, hub down"
  check the_hub_stops
  check a_new_daemon_starts
  check the_mirror_still_serves_what_it_has
  check the_image_is_the_one_pulled_directly
  check the_mirror_starts_without_the_hub
  check a_new_daemon_starts
  check the_mirror_serves_a_tag_that_it_cannot_check
  check the_image_is_the_one_pulled_directly
  check the_image_runs
}

a_new_daemon_starts() {
  [[ ! -e $work/dockerd.pid ]] || stop dockerd
  rm -rf --one-file-system "$work/docker"
  mkdir -p "$work/docker"
  settings docker
  start_dockerd
}

start_dockerd() {
  start dockerd dockerd --config-file "$work/docker.root/etc/docker/daemon.json" \
    --data-root "$work/docker/data" --exec-root "$work/docker/exec" --pidfile "$work/docker/pid" \
    --host "unix://$work/docker.sock" --iptables=false --bridge=none --exec-opt native.cgroupdriver=cgroupfs
  await dockerd d info
  d version --format 'client {{.Client.Version}}, server {{.Server.Version}}'
}

a_direct_pull_from_the_hub_is_what_we_compare_with() {
  local started=$EPOCHREALTIME direct="$hub_address/$IMAGE"
  d pull "$direct"
  seconds_since "$started" >"$work/docker.direct.s"
  equal "image id" "$(right image_id)" "$(d image inspect --format '{{.Id}}' "$direct")"
}

the_first_pull_costs_the_hub_one_pull() {
  hub_reset
  local started=$EPOCHREALTIME
  echo "$SECONDS" >"$work/docker.first.at"
  d pull "$IMAGE"
  seconds_since "$started" >"$work/docker.first.s"
  hub_saw_one_pull
}

the_second_pull_asks_the_hub_for_nothing() {
  d rmi "$IMAGE"
  hub_reset
  local started=$EPOCHREALTIME
  d pull "$IMAGE"
  seconds_since "$started" >"$work/docker.second.s"
  # The line decides how long the first pull takes, and so whether the tag that it asked for is still fresh.
  if ((SECONDS - $(<"$work/docker.first.at") < TAG_TTL_SECONDS)); then hub_saw_nothing; else hub_saw_no_get; fi
}

a_new_daemon_gets_it_without_a_get() {
  hub_reset
  d pull "$IMAGE"
  hub_saw_no_get
}

the_image_is_the_one_pulled_directly() {
  equal "image id" "$(right image_id)" "$(d image inspect --format '{{.Id}}' "$IMAGE")"
  equal "repository digest" "$IMAGE@$(right index_digest)" "$(d image inspect --format '{{index .RepoDigests 0}}' "$IMAGE")"
}

the_image_runs() {
  equal "its output" "$IMAGE_PRINTS" "$(d run --rm --network none "$IMAGE")"
}

an_official_image_needs_no_library_before_its_name() {
  hub_reset
  d pull "${SMALL#library/}-docker"
  hub_saw_at_most_one_pull 2
  equal "its output" "$SMALL-docker:latest" "$(d run --rm --network none "${SMALL#library/}-docker")"
}

an_image_of_another_registry_comes_by_its_path() {
  hub_reset
  d pull "$stopover_address/$REGISTRY/$SECOND"
  hub_saw_at_most_one_pull 2
  equal "its output" "$SECOND:latest" "$(d run --rm --network none "$stopover_address/$REGISTRY/$SECOND")"
}

# What was taken back is gone at the next start: a reload keeps a list that the file no longer names.
what_is_taken_back_is_gone_after_a_restart() {
  "$STOPOVER_BIN" client docker --root "$work/docker.root" --undo
  mkdir -p "$work/docker.root/etc/docker"
  echo '{"debug": false}' >"$work/docker.root/etc/docker/daemon.json"
  stop dockerd
  start_dockerd
  mirrors_are "[]"
}

a_reload_is_enough_to_take_the_mirror() {
  settings docker
  kill -HUP "$(<"$work/dockerd.pid")"
  await dockerd mirrors_are "[\"http://$stopover_address/\"]"
}

# mirrors_are LIST: what dockerd says of its mirrors, as JSON.
mirrors_are() {
  [[ $(d info --format '{{json .RegistryConfig.Mirrors}}') == "$1" ]]
}

the_hub_stops() {
  stop hubsim
}

the_mirror_still_serves_what_it_has() {
  d pull "$IMAGE"
}

the_mirror_starts_without_the_hub() {
  stop stopover
  stopover_start STOPOVER_CACHE__TAG_TTL=0s
}

# With a tag_ttl of 0 each pull asks the hub first, so this one gets no answer and serves the tag stale.
the_mirror_serves_a_tag_that_it_cannot_check() {
  d pull "$IMAGE"
}

# took PULL: how long one of the pulls took, or a question mark for one that failed.
took() {
  cat "$work/docker.$1.s" 2>/dev/null || echo "?"
}

d() {
  "$DOCKER" --host "unix://$work/docker.sock" "$@"
}
