# shellcheck shell=bash
# skopeo, with the same file as podman.

skopeo_tests() {
  begin skopeo
  check skopeo_copies_what_the_mirror_has
  check every_file_is_what_its_digest_says
  check skopeo_copies_a_new_image_at_the_cost_of_one_pull
  check skopeo_copies_from_another_registry_through_the_mirror
}

# Into a "dir:", which keeps manifest and blobs as they were sent.
skopeo_copies_what_the_mirror_has() {
  hub_reset
  local started=$EPOCHREALTIME
  s copy "docker://docker.io/$IMAGE" "dir:$work/skopeo"
  note "skopeo copy: $(seconds_since "$started") s"
  hub_saw_no_get
  equal "manifest" "$(right manifest_digest)" "$(digest_of "$work/skopeo/manifest.json")"
}

every_file_is_what_its_digest_says() {
  local digest count=0
  for digest in $(jq -r '.config.digest, .layers[].digest' "$work/skopeo/manifest.json"); do
    equal "content of $digest" "$digest" "$(digest_of "$work/skopeo/${digest#*:}")"
    count=$((count + 1))
  done
  equal "blobs" "$((IMAGE_LAYERS + 1))" "$count"
}

skopeo_copies_a_new_image_at_the_cost_of_one_pull() {
  hub_reset
  s copy "docker://docker.io/$SMALL-skopeo" "oci:$work/skopeo-oci:latest"
  hub_saw_at_most_one_pull 1
}

skopeo_copies_from_another_registry_through_the_mirror() {
  hub_reset
  s copy "docker://$REGISTRY/$SECOND" "dir:$work/skopeo-second"
  hub_saw_at_most_one_pull 2
}

# skopeo does not read CONTAINERS_REGISTRIES_CONF.
s() {
  skopeo --insecure-policy --registries-conf "$(registries_conf)" "$@"
}
