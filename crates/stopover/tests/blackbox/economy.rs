//! What a pull costs the registry, in requests: the targets for cold and warm pulls. Blobs that are fetched before
//! they are asked for cost the same.

use futures_util::future::join_all;
use hubsim::{Hub, Options, images};
use oci::Digest;

use crate::support::{Mirror, MirrorOptions, blob_path, manifest_path};

const REPOSITORY: &str = "prom/prometheus";

/// Pulls as dockerd does: the tag by GET, then what it names, then blobs side by side.
async fn pull_as_dockerd(mirror: &Mirror, image: &images::Image) {
    let reply = mirror.get(&manifest_path(REPOSITORY, "3")).await;
    assert_eq!((reply.status, reply.digest()), (200, image.manifest));
    pull_named(mirror, image, image.platform != image.manifest).await;
}

/// Pulls as containerd does: the tag by HEAD, then everything by digest.
async fn pull_as_containerd(mirror: &Mirror, image: &images::Image) {
    let reply = mirror.head(&manifest_path(REPOSITORY, "3")).await;
    assert_eq!((reply.status, reply.header("docker-content-digest")), (200, &*image.manifest.to_string()));
    let reply = mirror.get(&manifest_path(REPOSITORY, image.manifest)).await;
    assert_eq!((reply.status, reply.digest()), (200, image.manifest));
    pull_named(mirror, image, image.platform != image.manifest).await;
}

async fn pull_named(mirror: &Mirror, image: &images::Image, is_index: bool) {
    if is_index {
        let reply = mirror.get(&manifest_path(REPOSITORY, image.platform)).await;
        assert_eq!((reply.status, reply.digest()), (200, image.platform));
    }
    let blobs: Vec<(Digest, String)> =
        image.blobs().map(|blob| (*blob, blob_path(REPOSITORY, blob))).collect();
    for (reply, (blob, _)) in
        join_all(blobs.iter().map(|(_, path)| mirror.get(path))).await.iter().zip(&blobs)
    {
        assert_eq!((reply.status, reply.is_whole, reply.digest()), (200, true, *blob));
    }
}

/// "One cold pull: one manifest GET for a single-arch image, two for multi-arch; each blob once; at most two tokens."
#[tokio::test]
async fn a_cold_pull_is_one_or_two_manifests_each_blob_once_and_at_most_two_tokens() {
    use images::Format::{DockerList, DockerSingle, OciIndex, OciSingle};
    for (format, manifests) in [(DockerSingle, 1), (OciSingle, 1), (OciIndex, 2), (DockerList, 2)] {
        for as_containerd in [false, true] {
            let hub = Hub::start(Options { token_port_apart: as_containerd, ..Options::default() }).await;
            let image = images::busybox(&hub, REPOSITORY, "3", format);
            let mirror = Mirror::start_with(&hub, MirrorOptions::default().prefetching()).await;
            if as_containerd {
                pull_as_containerd(&mirror, &image).await;
            } else {
                pull_as_dockerd(&mirror, &image).await;
            }
            let counters = hub.counters();
            assert_eq!(counters.manifest_get, manifests, "{format:?}: {counters:#?}");
            assert!(counters.manifest_head <= 1 && counters.token <= 2, "{format:?}: {counters:#?}");
            assert_eq!(counters.blob_head, 0, "{format:?}");
            for blob in image.blobs() {
                let seen = counters.of(blob);
                assert_eq!((seen.blob_gets, seen.cdn_gets), (1, 1), "{format:?}");
            }
        }
    }
}

/// The same for an image of as many layers as is usual.
#[tokio::test]
async fn a_cold_pull_of_many_layers_fetches_each_byte_once() {
    let hub = Hub::start(Options::default()).await;
    let image = images::image_of_blobs(&hub, REPOSITORY, "3", 12, 1 << 20);
    let mirror = Mirror::start_with(&hub, MirrorOptions::default().prefetching()).await;
    pull_as_dockerd(&mirror, &image).await;
    let counters = hub.counters();
    assert_eq!((counters.manifest_get, counters.token), (1, 1));
    let bytes: u64 = image.layers.iter().map(|layer| counters.bytes(layer)).sum();
    assert_eq!(bytes, image.layer_bytes);
    assert_eq!(counters.blob_get, image.layers.len() as u64 + 1);
}

/// "100 warm pulls of a tag within its freshness: nothing asked of upstream."
#[tokio::test]
async fn a_hundred_warm_pulls_within_freshness_ask_for_nothing() {
    let hub = Hub::start(Options::default()).await;
    let image = images::busybox(&hub, REPOSITORY, "3", images::Format::OciIndex);
    let mirror = Mirror::start_with(&hub, MirrorOptions::default().prefetching()).await;
    pull_as_dockerd(&mirror, &image).await;
    for blob in image.blobs() {
        mirror.until_stored(blob).await;
    }
    hub.reset_counters();
    for _ in 0..4 {
        tokio::join!(pull_as_dockerd(&mirror, &image), pull_as_containerd(&mirror, &image));
    }
    for _ in 0..92 {
        assert_eq!(mirror.get(&manifest_path(REPOSITORY, "3")).await.digest(), image.manifest);
        assert_eq!(mirror.get(&manifest_path(REPOSITORY, image.platform)).await.digest(), image.platform);
    }
    let counters = hub.counters();
    assert_eq!((counters.total(), counters.connections), (0, 0), "{counters:#?}");
}

/// Decision 4: a warm pull of a tag that is no longer fresh is one HEAD.
#[tokio::test]
async fn a_warm_pull_past_freshness_is_one_head() {
    let hub = Hub::start(Options::default()).await;
    let image = images::busybox(&hub, REPOSITORY, "3", images::Format::OciIndex);
    let mirror = Mirror::start_with(&hub, MirrorOptions::default().prefetching().tags_never_fresh()).await;
    pull_as_dockerd(&mirror, &image).await;
    for blob in image.blobs() {
        mirror.until_stored(blob).await;
    }
    hub.reset_counters();
    pull_as_dockerd(&mirror, &image).await;
    let counters = hub.counters();
    assert_eq!((counters.manifest_head, counters.total()), (1, 1), "{counters:#?}");
}
