//! Blobs that are on their way before a client asks for them, and those that are not.

use hubsim::{Hub, Options, images};
use oci::{Digest, OCI_INDEX, OCI_MANIFEST};
use serde_json::{Value, json};

use crate::support::{Mirror, MirrorOptions, blob_path, hub_and_mirror, manifest_path, noise, until};

const REPOSITORY: &str = "library/prefetched";

async fn hub_and_prefetching_mirror() -> (Hub, Mirror) {
    let hub = Hub::start(Options::default()).await;
    let mirror = Mirror::start_with(&hub, MirrorOptions::default().prefetching()).await;
    (hub, mirror)
}

/// The image of one platform in an index.
struct Platform {
    manifest: Digest,
    config: Digest,
    layer: Digest,
}

/// Pushes an index of one small image for each platform.
fn push_index(hub: &Hub, tag: &str, architectures: &[&str]) -> Vec<Platform> {
    let mut entries: Vec<Value> = Vec::new();
    let platforms = architectures.iter().map(|architecture| {
        let layer_bytes = noise(tag.len() as u64, 200_000 + entries.len());
        let (size, layer) = (layer_bytes.len(), hub.push_blob(layer_bytes));
        let config_bytes = json!({ "os": "linux", "architecture": architecture, "tag": tag }).to_string();
        let (config_size, config) = (config_bytes.len(), hub.push_blob(config_bytes));
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": config_size },
            "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": layer, "size": size }],
        });
        let manifest = manifest.to_string();
        let manifest_size = manifest.len();
        let manifest = hub.push_manifest(REPOSITORY, OCI_MANIFEST, manifest, &[]);
        entries.push(json!({
            "mediaType": OCI_MANIFEST, "digest": manifest, "size": manifest_size,
            "platform": { "os": "linux", "architecture": architecture },
        }));
        Platform { manifest, config, layer }
    });
    let platforms: Vec<Platform> = platforms.collect();
    let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries });
    hub.push_manifest(REPOSITORY, OCI_INDEX, index.to_string(), &[tag]);
    platforms
}

async fn get_manifest(mirror: &Mirror, reference: impl std::fmt::Display) {
    let reply = mirror.get(&manifest_path(REPOSITORY, reference)).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
}

async fn get_blob(mirror: &Mirror, digest: &Digest) {
    let reply = mirror.get(&blob_path(REPOSITORY, digest)).await;
    assert_eq!((reply.status, reply.is_whole, reply.digest()), (200, true, *digest));
}

/// Asserts which of the blobs the Hub was asked for, once each.
fn assert_fetched(hub: &Hub, fetched: &[&Digest], others: &[&Digest]) {
    let counters = hub.counters();
    for digest in fetched {
        let seen = counters.of(digest);
        assert_eq!((seen.blob_gets, seen.cdn_gets), (1, 1), "{digest}");
    }
    for digest in others {
        assert_eq!(counters.of(digest).blob_gets, 0, "{digest}");
    }
}

/// Issue 4, item 4. The client asks for the first layer only, and every byte comes once.
#[tokio::test]
async fn the_blobs_of_a_manifest_are_fetched_before_they_are_asked_for() {
    let (hub, mirror) = hub_and_prefetching_mirror().await;
    let image = images::image_of_blobs(&hub, REPOSITORY, "1", 12, 1 << 20);
    get_manifest(&mirror, "1").await;
    get_blob(&mirror, &image.layers[0]).await;
    for blob in image.blobs() {
        mirror.until_stored(blob).await;
    }
    assert_fetched(&hub, &image.blobs().collect::<Vec<_>>(), &[]);
    for blob in image.blobs() {
        get_blob(&mirror, blob).await;
    }
    let counters = hub.counters();
    let bytes: u64 = image.layers.iter().map(|layer| counters.bytes(layer)).sum();
    assert_eq!(bytes, image.layer_bytes);
    assert_eq!((counters.manifest_get, counters.token, counters.blob_get), (1, 1, 13), "{counters:#?}");
    let metric = "stopover_prefetch_total";
    let started = mirror.metric(metric, &["started"]).await;
    assert!(
        (12.0..=13.0).contains(&started),
        "{started}: all but perhaps the one that the client took first"
    );
    assert!((started - mirror.metric(metric, &["wanted"]).await).abs() < f64::EPSILON);
}

/// The first pull of a platform: what the client does not ask for itself comes with its first layer.
#[tokio::test]
async fn the_first_layer_of_a_platform_brings_the_rest() {
    let (hub, mirror) = hub_and_prefetching_mirror().await;
    let image = images::busybox(&hub, REPOSITORY, "1", images::Format::OciIndex);
    get_manifest(&mirror, "1").await;
    get_manifest(&mirror, image.platform).await;
    assert_fetched(&hub, &[], &image.blobs().collect::<Vec<_>>());
    get_blob(&mirror, &image.layers[0]).await;
    for blob in image.blobs() {
        mirror.until_stored(blob).await;
    }
    assert_fetched(&hub, &image.blobs().collect::<Vec<_>>(), &[]);
}

/// What is fetched after something that must not fetch anything tells that it did not.
#[tokio::test]
async fn a_head_an_index_and_a_client_that_has_the_manifest_fetch_no_blobs() {
    let (hub, mirror) = hub_and_prefetching_mirror().await;
    let image = images::image_of_blobs(&hub, REPOSITORY, "1", 2, 70_000);
    let indexed = push_index(&hub, "index", &["amd64", "arm64"]);
    for reference in ["1".to_owned(), image.manifest.to_string(), "index".to_owned()] {
        assert_eq!(mirror.head(&manifest_path(REPOSITORY, reference)).await.status, 200);
    }
    let etag = format!("\"{}\"", image.manifest);
    let path = manifest_path(REPOSITORY, "1");
    assert_eq!(mirror.get_with(&path, &[("if-none-match", &etag)]).await.status, 304);
    get_manifest(&mirror, "index").await;
    let another = images::busybox(&hub, REPOSITORY, "2", images::Format::OciSingle);
    get_manifest(&mirror, "2").await;
    for blob in another.blobs() {
        mirror.until_stored(blob).await;
    }
    let indexed: Vec<&Digest> = indexed.iter().flat_map(|image| [&image.config, &image.layer]).collect();
    assert_fetched(&hub, &another.blobs().collect::<Vec<_>>(), &indexed);
    assert_fetched(&hub, &[], &image.blobs().collect::<Vec<_>>());
}

/// A scanner reads every manifest, the configuration and a few bytes of a layer, and gets that. What is pulled by one
/// client is what the next one's manifest brings at once.
#[tokio::test]
async fn only_platforms_that_were_pulled_are_prefetched() {
    let (hub, mirror) = hub_and_prefetching_mirror().await;
    let architectures = ["386", "amd64", "arm", "arm64", "mips64le", "ppc64le", "riscv64", "s390x"];
    let first = push_index(&hub, "1", &architectures);
    get_manifest(&mirror, "1").await;
    for image in &first {
        get_manifest(&mirror, image.manifest).await;
    }
    let [amd64, arm64, s390x] = [&first[1], &first[3], &first[7]];
    get_blob(&mirror, &arm64.config).await;
    let part = mirror.get_with(&blob_path(REPOSITORY, s390x.layer), &[("range", "bytes=0-9")]).await;
    assert_eq!(part.status, 206);
    get_blob(&mirror, &amd64.layer).await;
    mirror.until_stored(&amd64.config).await;

    let second = push_index(&hub, "the-second", &["arm64", "amd64"]);
    get_manifest(&mirror, "the-second").await;
    for image in &second {
        get_manifest(&mirror, image.manifest).await;
    }
    for blob in [&second[1].config, &second[1].layer] {
        mirror.until_stored(blob).await;
    }
    let fetched =
        [&amd64.config, &amd64.layer, &arm64.config, &s390x.layer, &second[1].config, &second[1].layer];
    let others: Vec<&Digest> =
        first.iter().chain(&second).flat_map(|image| [&image.config, &image.layer]).collect();
    let others: Vec<&Digest> = others.into_iter().filter(|digest| !fetched.contains(digest)).collect();
    assert_eq!(others.len(), 14);
    assert_fetched(&hub, &fetched, &others);
}

/// `cache.prefetch = 0`.
#[tokio::test]
async fn nothing_is_prefetched_where_that_is_off() {
    let (hub, mirror) = hub_and_mirror().await;
    let image = images::image_of_blobs(&hub, REPOSITORY, "1", 4, 70_000);
    get_manifest(&mirror, "1").await;
    for layer in &image.layers[..2] {
        get_blob(&mirror, layer).await;
    }
    let counters = until("what is asked for was sent", || {
        let counters = hub.counters();
        (counters.cdn_get >= 2).then_some(counters)
    });
    assert_eq!(counters.await.blob_get, 2);
    assert!(!mirror.metrics().await.contains("stopover_prefetch_total{"));
}
