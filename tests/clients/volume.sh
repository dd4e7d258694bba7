# shellcheck shell=bash
# A volume that changes hands: Debian's docker-registry (registry:2) fills it as a proxy, Stopover takes it over where it
# stands, gives it back, and takes it over again. Every image is compared with the hub's each time.

# What is in it, as "repository reference digest" lines; a file, since checks run in subshells.
readonly VOLUME_IMAGES=volume.images

volume_tests() {
  # These hide the addresses of the other tests, so that their helpers ask this hub.
  local hub_address stopover_address registry2_address volume="$work/volume"
  choose_addresses
  registry2_address=127.0.0.1:$(free_port)

  begin volume
  check a_hub_for_the_volume_starts
  check registry2_fills_the_volume
  check stopover_takes_it_over_where_it_stands
  check stopover_serves_all_of_it_while_the_hub_is_down
  check stopover_repairs_what_a_crash_has_left
  check stopover_pulls_into_it_and_lets_some_of_it_expire
  check registry2_serves_what_is_in_it_without_a_hub
  check registry2_finds_no_garbage_that_is_in_use
  check registry2_goes_on_as_a_proxy
  check stopover_takes_it_over_again
  check the_volumes_hub_stops
}

a_hub_for_the_volume_starts() {
  start volume-hub "$HUBSIM_BIN" serve --addr "$hub_address" --cdn-addr 127.0.0.1:0 \
    --image library/index:1=oci-index --image library/list:1=docker-list --image library/single:1=docker \
    --image library/oci:1=oci --image library/moved:latest=docker --image library/moved:next=oci-index \
    --image library/moved:third=docker-list \
    --image library/untagged:x=docker-list --image library/new:1=oci-index --image org/layers:1=many-layers
  await volume-hub read_manifest "docker://$hub_address/org/layers:1" # the last of them
}

registry2_fills_the_volume() {
  registry2_starts proxy
  local name
  for name in index list single oci; do
    volume_image "library/$name" 1
  done
  volume_image org/layers 1
  # A tag that moves, so that there are two revisions; and an image that is pulled by its digest alone.
  copy_all "$registry2_address" library/moved latest
  volume_image library/moved "$(volume_digest library/moved latest)"
  move_tag library/moved latest "$(volume_digest library/moved next)"
  volume_image library/moved latest
  volume_image library/untagged "$(volume_digest library/untagged x)"
  volume_is_right "$registry2_address"
  await_all_stored
  # It writes this every five seconds.
  await registry2 test -s "$volume/scheduler-state.json"
  stop registry2
  cp "$volume/scheduler-state.json" "$work/volume.scheduler"
}

stopover_takes_it_over_where_it_stands() {
  volume_files >"$work/volume.files"
  hub_reset
  volume_stopover_starts
  volume_is_right "$stopover_address"
  hub_saw_no_get_of_many
  equal "the files of the volume" "$(<"$work/volume.files")" "$(volume_files)"
  cmp "$work/volume.scheduler" "$volume/scheduler-state.json"
}

stopover_serves_all_of_it_while_the_hub_is_down() {
  stop volume-stopover
  stop volume-hub
  rm -rf "$volume/stopover"
  volume_stopover_starts STOPOVER_CACHE__TAG_TTL=0s
  volume_is_right "$stopover_address"
  equal "the files of the volume" "$(<"$work/volume.files")" "$(volume_files)"
  stop volume-stopover
}

stopover_repairs_what_a_crash_has_left() {
  hub_is_as_before
  local blobs="$volume/docker/registry/v2/blobs/sha256" repositories="$volume/docker/registry/v2/repositories" cut gone
  # The largest and the smallest of them: a layer, and a config or a manifest.
  cut=$(volume_files | sort -k 2,2n | tail -n 1 | cut -d ' ' -f 3)
  gone=$(volume_files | sort -k 2,2n | head -n 1 | cut -d ' ' -f 3)
  truncate --size=1000 "$blobs/$cut"
  rm "$blobs/$gone"
  find "$repositories/library/list" "$repositories/library/index/_layers" -name link -exec truncate --size=0 {} +
  mkdir -p "$repositories/library/oci/_uploads/1f0e/hashstates/sha256" "$repositories/library/oci/_manifests/tags/half/index"
  touch "$repositories/library/oci/_uploads/1f0e/"{data,startedat,hashstates/sha256/0} \
    "$repositories/library/oci/_manifests/tags/1/current/link.1f0e.tmp" "$blobs/$cut.1f0e.tmp"
  echo '{"library/index@sha256:' >"$volume/scheduler-state.json"
  volume_stopover_starts
  volume_is_right "$stopover_address"
  await_all_stored
  local file digest
  while read -r _ _ file; do
    digest=${file%/data}
    equal "content of $file" "sha256:${digest#*/}" "$(digest_of "$blobs/$file")"
  done < <(volume_files)
  stop volume-stopover
  # registry:2 would end with a panic; who hands a volume back to it mends what a crash has left of this.
  cp "$work/volume.scheduler" "$volume/scheduler-state.json"
}

stopover_pulls_into_it_and_lets_some_of_it_expire() {
  local single
  single=$(volume_digest library/single 1)
  volume_stopover_starts REGISTRY_PROXY_TTL=3s
  await volume-stopover test ! -e "$(volume_data "$single")"
  await volume-stopover no_revision_is_without_its_manifest
  stop volume-stopover
  # What is not pulled again is not there any more, and nobody may stumble over that.
  sed -i '/^library\/single /d' "$work/$VOLUME_IMAGES"
  volume_stopover_starts STOPOVER_CACHE__TAG_TTL=0s
  move_tag library/moved latest "$(volume_digest library/moved third)"
  sed -i '/^library\/moved latest /d' "$work/$VOLUME_IMAGES"
  volume_image library/moved latest
  volume_image library/new 1
  volume_is_right "$stopover_address"
  await_all_stored
  stop volume-stopover
}

# Without a proxy it serves the tree and nothing else.
registry2_serves_what_is_in_it_without_a_hub() {
  stop volume-hub
  registry2_starts plain
  local expired
  volume_is_right "$registry2_address"
  expired=$(curl -sS -o /dev/null -w '%{http_code}' "http://$registry2_address/v2/library/single/manifests/1")
  equal "the status of what has expired" 404 "$expired"
  stop registry2
}

registry2_finds_no_garbage_that_is_in_use() {
  docker-registry garbage-collect --dry-run "$work/registry2.plain.yml" >"$work/volume.garbage"
  grep -q 'eligible for deletion' "$work/volume.garbage"
  local digest
  while read -r digest; do
    ! grep -q "blob eligible for deletion: $digest" "$work/volume.garbage" || fail "$digest is in use and called garbage"
  done < <(sort -u "$work/volume.digests")
}

registry2_goes_on_as_a_proxy() {
  hub_is_as_before
  hub_reset
  registry2_starts proxy
  volume_is_right "$registry2_address"
  hub_saw_no_get_of_many
  # What had expired is fetched again.
  volume_image library/single 1
  volume_is_right "$registry2_address"
  await_all_stored
  stop registry2
}

stopover_takes_it_over_again() {
  hub_reset
  volume_stopover_starts
  volume_is_right "$stopover_address"
  hub_saw_no_get_of_many
  stop volume-stopover
}

the_volumes_hub_stops() {
  stop volume-hub
}

# --- who serves it ----------------------------------------------------------------------------------------------------

# registry2_starts proxy|plain
registry2_starts() {
  local config="$work/registry2.$1.yml"
  cat >"$config" <<YAML
version: 0.1
log: {level: warn, accesslog: {disabled: true}}
http: {addr: $registry2_address}
storage: {filesystem: {rootdirectory: $volume}, delete: {enabled: true}}
YAML
  [[ $1 != proxy ]] || echo "proxy: {remoteurl: http://$hub_address}" >>"$config"
  start registry2 docker-registry serve "$config"
  await registry2 curl -fsS "http://$registry2_address/v2/"
}

volume_stopover_starts() {
  start volume-stopover env REGISTRY_PROXY_REMOTEURL="http://$hub_address" REGISTRY_HTTP_ADDR="$stopover_address" \
    REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY="$volume" STOPOVER_ADMIN__ADDR=off "$@" "$STOPOVER_BIN" serve
  await volume-stopover curl -fsS "http://$stopover_address/v2/"
}

# A hub that was stopped starts with what it had when it began.
hub_is_as_before() {
  a_hub_for_the_volume_starts
  local repository tag digest
  while read -r repository tag digest; do
    hub "tag?repo=$repository&tag=$tag&digest=$digest" -X POST
  done <"$work/volume.moves"
}

move_tag() {
  hub "tag?repo=$1&tag=$2&digest=$3" -X POST
  echo "$1 $2 $3" >>"$work/volume.moves"
}

# --- what is in it ----------------------------------------------------------------------------------------------------

# volume_image REPOSITORY REFERENCE: from now on the volume is to have it, as the hub has it now.
volume_image() {
  echo "$1 $2 $(volume_digest "$1" "$2")" >>"$work/$VOLUME_IMAGES"
}

# image_name REPOSITORY REFERENCE: as skopeo wants it.
image_name() {
  if [[ $2 == sha256:* ]]; then echo "$1@$2"; else echo "$1:$2"; fi
}

# volume_digest REPOSITORY REFERENCE: what the hub says of it.
volume_digest() {
  echo "sha256:$(read_manifest "docker://$hub_address/$(image_name "$1" "$2")" | sha256sum | cut -d ' ' -f 1)"
}

# copy_all ADDRESS REPOSITORY REFERENCE: pulls all platforms; skopeo hashes every blob.
copy_all() {
  rm -rf "$work/volume.copy"
  skopeo --insecure-policy copy --quiet --all --preserve-digests --src-tls-verify=false \
    "docker://$1/$(image_name "$2" "$3")" "dir:$work/volume.copy"
}

# volume_is_right ADDRESS: every image is the hub's, to the byte, all platforms of it.
volume_is_right() {
  local repository reference right file
  : >"$work/volume.digests"
  while read -r repository reference right; do
    copy_all "$1" "$repository" "$reference"
    equal "$repository $reference at $1" "$right" "$(digest_of "$work/volume.copy/manifest.json")"
    for file in "$work/volume.copy"/*; do
      [[ $file == */version ]] || digest_of "$file" >>"$work/volume.digests"
    done
  done <"$work/$VOLUME_IMAGES"
}

# Both write what they fetch behind the answer.
await_all_stored() {
  local digest
  while read -r digest; do
    await_file "$(volume_data "$digest")"
  done < <(sort -u "$work/volume.digests")
}

await_file() {
  local deadline=$((SECONDS + DAEMON_START_SECONDS))
  until [[ -e $1 ]]; do
    ((SECONDS < deadline)) || fail "$1 was not stored within $DAEMON_START_SECONDS s"
    sleep 0.1
  done
}

volume_data() {
  echo "$volume/docker/registry/v2/blobs/sha256/${1:7:2}/${1:7}/data"
}

# Prints "inode size file" of each content, by name.
volume_files() {
  find "$volume/docker/registry/v2/blobs/sha256" -name data -printf '%i %s %P\n' | sort -k 3
}

no_revision_is_without_its_manifest() {
  local link
  while read -r link; do
    [[ -e $(volume_data "$(<"$link")") ]] || return 1
  done < <(find "$volume/docker/registry/v2/repositories" -path '*/_manifests/revisions/*' -name link)
}

# No manifest was fetched and no blob asked for; of tags it may ask what they name.
hub_saw_no_get_of_many() {
  hub_counted
  equal "manifest GETs" 0 "$(count .manifest_get)"
  equal "blob requests" 0 "$(count '.blob_get + .blob_head + .cdn_get')"
}
