# shellcheck shell=bash
# The hub and the mirror: hubsim behind a slow line, Stopover before it, and what the hub has counted.

readonly LINE_RATE=4MB LINE_LATENCY=80ms
readonly TAG_TTL_SECONDS=60 # the default of [cache] tag_ttl

# Where hubsim and the mirror listen. Checks run in subshells, so this is settled before the first of them.
choose_addresses() {
  hub_address=127.0.0.1:$(free_port)
  stopover_address=127.0.0.1:$(free_port)
}

the_hub_and_the_mirror_start() {
  start hubsim "$HUBSIM_BIN" serve --addr "$hub_address" --cdn-addr 127.0.0.1:0 --rate "$LINE_RATE" --latency "$LINE_LATENCY" \
    --image "$IMAGE:latest=many-layers" --image "$SMALL-docker:latest=docker-list" \
    --image "$SMALL-containerd:latest=oci-index" --image "$SMALL-podman:latest=oci" \
    --image "$SMALL-skopeo:latest=docker" --image "$SMALL-buildah:latest=oci-index" --image "$SECOND:latest=docker-list"
  await hubsim read_manifest "docker://$hub_address/$SECOND:latest" # the last of them
  stopover_start
}

# stopover_start [VARIABLE=VALUE]...: as a user of registry:2 would, whose environment it takes over. The hub is a second
# registry as well, by another name.
stopover_start() {
  printf '[upstreams."%s"]\nurl = "http://%s"\n' "$REGISTRY" "$hub_address" >"$work/stopover.toml"
  start stopover env "$@" STOPOVER_CONFIG="$work/stopover.toml" REGISTRY_PROXY_REMOTEURL="http://$hub_address" REGISTRY_HTTP_ADDR="$stopover_address" \
    REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY="$work/registry" STOPOVER_ADMIN__ADDR=127.0.0.1:0 "$STOPOVER_BIN" serve
  await stopover curl -fsS "http://$stopover_address/v2/"
}

# settings CLIENT [ARGUMENT]...: writes what `stopover client` tells a user to write, into a root of the client's own.
settings() {
  mkdir -p "$work/$1.root"
  "$STOPOVER_BIN" client "$1" --mirror "http://$stopover_address" --registry docker.io,$REGISTRY \
    --config "$work/stopover.toml" --root "$work/$1.root" "${@:2}" --write
}

# What a right pull must give, read from the hub itself, manifest by manifest, into files that right() reads.
the_hub_says_what_is_right() {
  local direct="docker://$hub_address/$IMAGE"
  read_manifest "$direct:latest" >"$work/right.index"
  digest_of "$work/right.index" >"$work/right.index_digest"
  jq -er '.manifests[] | select(.platform.os == "linux" and .platform.architecture == "amd64") | .digest' \
    "$work/right.index" >"$work/right.manifest_digest"
  read_manifest "$direct@$(right manifest_digest)" >"$work/right.manifest"
  equal "platform manifest" "$(right manifest_digest)" "$(digest_of "$work/right.manifest")"
  jq -er .config.digest "$work/right.manifest" >"$work/right.image_id"
  equal "layers" "$IMAGE_LAYERS" "$(jq '.layers | length' "$work/right.manifest")"
}

right() {
  cat "$work/right.$1"
}

# For a run without docker, whose first pull fills the mirror: a plain copy that nobody looks at.
the_mirror_is_filled() {
  hub_reset
  skopeo --insecure-policy copy --src-tls-verify=false "docker://$stopover_address/$IMAGE" "dir:$work/filling"
  hub_saw_one_pull
}

read_manifest() {
  skopeo inspect --raw --tls-verify=false "$1"
}

digest_of() {
  echo "sha256:$(sha256sum <"$1" | cut -d ' ' -f 1)"
}

# --- what the hub has counted -----------------------------------------------------------------------------------------

# hub COMMAND: hubsim's control API.
hub() {
  curl -fsS "http://$hub_address/_hubsim/$1" "${@:2}"
}

hub_reset() {
  hub reset -X POST
}

# count FILTER: a number out of hubsim's counters.
count() {
  jq -er "$1" "$work/counters.json"
}

# Blobs of this many bytes or more may come in parts, each by a request of its own; all others come by one.
readonly PARTS_BYTES_MIN=$((8 << 20))

# One cold pull of a multi-arch image: index and manifest, each blob once and not a byte more, at most two tokens.
hub_saw_one_pull() {
  hub_counted
  equal "manifest GETs" 2 "$(count .manifest_get)"
  at_most "tokens" 2 "$(count .token)"
  local digest size
  while read -r digest size; do
    if ((size < PARTS_BYTES_MIN)); then
      equal "GETs of $digest" 1 "$(count ".digests[\"$digest\"].blob_gets // 0")"
      equal "downloads of $digest" 1 "$(count ".digests[\"$digest\"].cdn_gets // 0")"
    fi
    equal "bytes of $digest" "$size" "$(count ".digests[\"$digest\"].bytes")"
  done < <(jq -r '.config, .layers[] | "\(.digest) \(.size)"' "$work/right.manifest" | sort -u)
  equal "blobs in all" "$(jq '[.config, .layers[]] | unique_by(.digest) | length' "$work/right.manifest")" \
    "$(count '[.digests[] | select(.cdn_gets > 0)] | length')"
}

# One cold pull of a small image of which the mirror may know a layer: as many manifests as it has (1, or 2 with an index).
hub_saw_at_most_one_pull() {
  hub_counted
  at_most "manifest GETs" "$1" "$(count .manifest_get)"
  at_most "tokens" 2 "$(count .token)"
  at_most "downloads of one blob" 1 "$(count '[.digests[].cdn_gets] | max // 0')"
}

# A pull of what the mirror has, within the tag's freshness: not one request.
hub_saw_nothing() {
  hub_counted
  equal "requests" "" "$(count '[.requests[] | "\(.method) \(.path) "] | join("")')"
}

# A pull of what the mirror has, its tag fresh or not: at most one HEAD, and a token for it.
hub_saw_no_get() {
  hub_counted
  equal "manifest GETs" 0 "$(count .manifest_get)"
  equal "blob requests" 0 "$(count '.blob_get + .blob_head + .cdn_get')"
  at_most "manifest HEADs" 1 "$(count .manifest_head)"
  at_most "tokens" 1 "$(count .token)"
}

hub_counted() {
  hub 'counters?requests=1' >"$work/counters.json"
  jq -r '.requests[] | "hub saw: \(.method) \(.path | split("?")[0]) -> \(.status)"' "$work/counters.json"
}
