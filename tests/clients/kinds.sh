# shellcheck shell=bash
# One of each kind of content that registries hold (crates/hubsim/src/kinds.rs), copied by skopeo with all its platforms:
# from the hub, through Stopover, and through Stopover without the hub. What skopeo takes must be the same each time.

readonly KINDS_TAKEN_MIN=30

kinds_tests() {
  # These hide the addresses of the other tests, so that their helpers ask this hub.
  local hub_address stopover_address
  choose_addresses

  begin kinds
  check a_hub_with_one_of_each_kind_starts
  check what_skopeo_takes_from_the_hub_is_what_we_compare_with
  check every_kind_is_the_same_through_the_mirror
  check every_kind_is_the_same_again_and_nothing_is_fetched_twice
  check every_kind_is_the_same_while_the_hub_is_down
}

a_hub_with_one_of_each_kind_starts() {
  start kinds-hub "$HUBSIM_BIN" serve --addr "$hub_address" --cdn-addr 127.0.0.1:0 --image library/kinds:busybox=every-kind
  await kinds-hub read_manifest "docker://$hub_address/library/kinds:busybox"
  start kinds-stopover env REGISTRY_PROXY_REMOTEURL="http://$hub_address" REGISTRY_HTTP_ADDR="$stopover_address" \
    REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY="$work/kinds" STOPOVER_ADMIN__ADDR=off "$STOPOVER_BIN" serve
  await kinds-stopover curl -fsS "http://$stopover_address/v2/"
}

what_skopeo_takes_from_the_hub_is_what_we_compare_with() {
  local tag
  while read -r tag; do
    if copy_kind "$hub_address" "$tag" "$work/kinds.right/$tag"; then
      echo "$tag"
    else
      note "skopeo takes no $tag"
      rm -rf "$work/kinds.right/$tag"
    fi
  done < <(skopeo list-tags --tls-verify=false "docker://$hub_address/library/kinds" | jq -er '.Tags[]') >"$work/kinds.taken"
  at_most "kinds that skopeo takes have to be, at least" "$(wc -l <"$work/kinds.taken")" "$KINDS_TAKEN_MIN"
}

every_kind_is_the_same_through_the_mirror() {
  kinds_are_right
}

every_kind_is_the_same_again_and_nothing_is_fetched_twice() {
  hub_reset
  kinds_are_right
  hub_counted
  equal "manifest GETs" 0 "$(count .manifest_get)"
  equal "blob requests" 0 "$(count '.blob_get + .blob_head + .cdn_get')"
}

every_kind_is_the_same_while_the_hub_is_down() {
  stop kinds-hub
  kinds_are_right
  stop kinds-stopover
}

kinds_are_right() {
  local tag
  while read -r tag; do
    rm -rf "$work/kinds.copy"
    copy_kind "$stopover_address" "$tag" "$work/kinds.copy"
    diff -r "$work/kinds.right/$tag" "$work/kinds.copy"
  done <"$work/kinds.taken"
}

# copy_kind ADDRESS TAG FOLDER
copy_kind() {
  mkdir -p "${3%/*}"
  skopeo --insecure-policy copy --quiet --all --preserve-digests --src-tls-verify=false \
    "docker://$1/library/kinds:$2" "dir:$3"
}
