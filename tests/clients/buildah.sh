# shellcheck shell=bash
# buildah, with the same file as podman.

buildah_tests() {
  begin buildah
  check buildah_builds_on_what_the_mirror_has
  check buildah_builds_on_a_new_image_at_the_cost_of_one_pull
}

buildah_builds_on_what_the_mirror_has() {
  hub_reset
  local container
  container=$(b from --quiet "docker.io/$IMAGE")
  hub_saw_no_get
  equal "image id" "$(right image_id)" "sha256:$(b inspect --type image --format '{{.FromImageID}}' "docker.io/$IMAGE")"
  equal "its output" "11" "$(b run --isolation chroot "$container" -- /bin/busybox sh -c 'ls /noise | wc -l')"
  b rm "$container"
}

buildah_builds_on_a_new_image_at_the_cost_of_one_pull() {
  hub_reset
  b from --quiet "docker.io/$SMALL-buildah"
  hub_saw_at_most_one_pull 2
}

b() {
  CONTAINERS_REGISTRIES_CONF=$(registries_conf) buildah --root "$work/buildah/root" --runroot "$work/buildah/run" \
    --storage-driver overlay "$@"
}
