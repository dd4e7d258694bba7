//! Manifests that are not there, not manifests, too large, or not what they are said to be; and rare but right ones.

use hubsim::{
    Fault, Hub, Kind, Target, Times,
    images::{self, Format, Image},
};
use oci::{Algorithm, DOCKER_MANIFEST, Digest, OCI_INDEX, OCI_MANIFEST};
use serde_json::json;

use crate::support::{Mirror, blob_path, hub_and_mirror, manifest_path, noise, push_blob};

const REPOSITORY: &str = "library/busybox";
const BLOBS: &str = "docker/registry/v2/blobs";
/// Far more than a mirror needs that keeps nothing of what it refuses, and a fraction of that.
const MEMORY_BYTES_MAX: u64 = 128 << 20;

fn pushed(hub: &Hub) -> Image {
    images::busybox(hub, REPOSITORY, "latest", Format::OciIndex)
}

/// Statement 27.
#[tokio::test]
async fn a_manifest_that_is_not_there_is_unknown() {
    let (hub, mirror) = hub_and_mirror().await;
    pushed(&hub);
    let nowhere = Digest::of(Algorithm::Sha256, b"nowhere");
    for reference in [nowhere.to_string(), "no-such-tag".to_owned()] {
        let path = manifest_path(REPOSITORY, reference);
        for _ in 0..2 {
            let reply = mirror.get(&path).await;
            assert_eq!((reply.status, reply.error_code().as_str()), (404, "MANIFEST_UNKNOWN"), "{path}");
            let head = mirror.head(&path).await;
            assert_eq!((head.status, head.body.len()), (404, 0), "{path}");
        }
    }
}

/// Statement 28.
#[tokio::test]
async fn a_digest_that_is_none_goes_nowhere() {
    let (hub, mirror) = hub_and_mirror().await;
    let hex = "a".repeat(64);
    for reference in [
        "sha256:baddigeststring".to_owned(),
        format!("sha256:{}", &hex[1..]),
        format!("sha256:{hex}0"),
        format!("sha256:{}", hex.to_uppercase()),
        format!("sha512:{hex}"),
        format!("md5:{}", &hex[..32]),
        format!("sha256:{hex}:{hex}"),
        "sha256:".to_owned(),
    ] {
        for path in [manifest_path(REPOSITORY, &reference), blob_path(REPOSITORY, &reference)] {
            let reply = mirror.get(&path).await;
            assert_eq!((reply.status, reply.error_code().as_str()), (400, "DIGEST_INVALID"), "{path}");
        }
    }
    assert_eq!(hub.counters().total(), 0);
}

/// Statement 29.
#[tokio::test]
async fn a_manifest_is_never_served_as_a_blob() {
    let (hub, mirror) = hub_and_mirror().await;
    let image = pushed(&hub);
    let index = mirror.get(&manifest_path(REPOSITORY, "latest")).await;
    let other = index.json()["manifests"][1]["digest"].as_str().expect("there are two platforms").to_owned();
    let platform = mirror.get(&manifest_path(REPOSITORY, image.platform)).await;
    // Hub itself does serve them as blobs.
    push_blob(&hub, REPOSITORY, &index.body);
    push_blob(&hub, REPOSITORY, &platform.body);
    let mirror = a_manifest_is_no_blob(mirror, &image, &other).await;
    a_manifest_is_no_blob(mirror.restart().await, &image, &other).await;
}

async fn a_manifest_is_no_blob(mirror: Mirror, image: &Image, other: &str) -> Mirror {
    for digest in [image.manifest.to_string(), image.platform.to_string(), other.to_owned()] {
        let path = blob_path(REPOSITORY, digest);
        let reply = mirror.get(&path).await;
        assert_eq!((reply.status, reply.error_code().as_str()), (404, "BLOB_UNKNOWN"));
        assert_eq!(mirror.head(&path).await.status, 404);
    }
    mirror
}

/// Statement 29.
#[tokio::test]
async fn a_blob_is_never_served_as_a_manifest() {
    let (hub, mirror) = hub_and_mirror().await;
    let image = pushed(&hub);
    mirror.get(&manifest_path(REPOSITORY, image.platform)).await;
    for digest in image.blobs() {
        assert!(mirror.get(&blob_path(REPOSITORY, digest)).await.is_whole);
        let path = manifest_path(REPOSITORY, digest);
        let reply = mirror.get(&path).await;
        assert_eq!((reply.status, reply.error_code().as_str()), (404, "MANIFEST_UNKNOWN"));
        assert_eq!(mirror.head(&path).await.status, 404);
    }
}

/// Statement 30.
#[tokio::test]
async fn a_huge_manifest_is_refused_and_not_kept_in_memory() {
    const HUGE_BYTES: u64 = 256 << 20;
    for without_length in [false, true] {
        let (hub, mirror) = hub_and_mirror().await;
        let image = pushed(&hub);
        hub.fault(Fault::HugeManifest(HUGE_BYTES), Times::Always);
        if without_length {
            hub.fault_on(Fault::NoContentLength, Times::Always, Target::kind(Kind::Manifests));
        }
        for reference in ["latest".to_owned(), image.manifest.to_string()].iter().cycle().take(20) {
            let reply = mirror.get(&manifest_path(REPOSITORY, reference)).await;
            assert_eq!(reply.status, 502, "without a length: {without_length}; {}", reply.text());
            reply.error_code();
        }
        assert!(mirror.memory_bytes() < MEMORY_BYTES_MAX, "it keeps {} bytes", mirror.memory_bytes());
        let counters = hub.counters();
        let sent = counters.bytes(&image.manifest);
        assert!(sent < counters.manifest_get * HUGE_BYTES / 2, "it read {sent} bytes of what it refuses");
        assert_eq!(mirror.files_below(BLOBS).len(), 0);
    }
}

/// Statement 31.
#[tokio::test]
async fn a_manifest_that_does_not_say_its_type_keeps_the_registrys() {
    let (hub, mut mirror) = hub_and_mirror().await;
    let config = push_blob(&hub, REPOSITORY, b"{}");
    let plain = json!({ "schemaVersion": 2, "layers": [],
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2 } });
    let index = json!({ "schemaVersion": 2, "manifests": [] });
    let pushed = [
        (OCI_MANIFEST, plain.to_string()),
        (DOCKER_MANIFEST, format!("{plain} ")),
        (OCI_INDEX, index.to_string()),
    ]
    .map(|(media_type, text)| (media_type, hub.push_manifest(REPOSITORY, media_type, text, &[])));
    for time in ["cold", "warm", "from the disk"] {
        for (media_type, digest) in &pushed {
            let path = manifest_path(REPOSITORY, digest);
            let (head, reply) = (mirror.head(&path).await, mirror.get(&path).await);
            assert_eq!((reply.status, reply.header("content-type")), (200, *media_type), "{time}");
            assert_eq!(head.header("content-type"), *media_type, "{time}");
            assert_eq!(reply.digest(), *digest);
        }
        if time == "warm" {
            // The tree has no place for a type: the index, which is written in batches, is to be written out.
            mirror.sigterm();
            mirror.wait_exit().await;
            mirror = mirror.restart().await;
        }
    }
}

/// Statement 32.
#[tokio::test]
async fn a_manifest_that_is_not_its_digest_is_neither_stored_nor_sent() {
    let (hub, mirror) = hub_and_mirror().await;
    let image = pushed(&hub);
    hub.fault(Fault::ManifestNotItsDigest, Times::Always);
    for reference in [image.manifest.to_string(), "latest".to_owned()] {
        let reply = mirror.get(&manifest_path(REPOSITORY, reference)).await;
        assert_eq!((reply.status, reply.error_code().as_str()), (502, "UNAVAILABLE"));
    }
    assert_eq!(mirror.files_below(BLOBS).len(), 0);
    hub.clear_faults();
    for reference in [image.manifest.to_string(), "latest".to_owned()] {
        let reply = mirror.get(&manifest_path(REPOSITORY, reference)).await;
        assert_eq!((reply.status, reply.digest()), (200, image.manifest));
    }
}

/// Statement 33.
#[tokio::test]
async fn a_manifest_by_tag_that_is_not_the_digest_it_came_with_is_refused() {
    let (hub, mirror) = hub_and_mirror().await;
    let image = pushed(&hub);
    // So that the tag itself is asked by GET, and its digest is known from that answer alone.
    hub.fault(Fault::HeadRefused, Times::Always);
    hub.fault(Fault::ManifestNotItsDigest, Times::Always);
    let path = manifest_path(REPOSITORY, "latest");
    let reply = mirror.get(&path).await;
    assert_eq!((reply.status, reply.error_code().as_str()), (502, "UNAVAILABLE"));
    assert_eq!(mirror.head(&path).await.status, 502);
    assert_eq!(mirror.files_below(BLOBS).len(), 0);
    hub.clear_faults();
    assert_eq!(mirror.get(&path).await.digest(), image.manifest);
}

/// Statement 34.
#[tokio::test]
async fn content_named_by_sha512_is_as_good_as_any() {
    let (hub, mut mirror) = hub_and_mirror().await;
    let bytes = noise(34, 300_000);
    let blob = hub.push_blob_by(Algorithm::Sha512, bytes.clone());
    let config = hub.push_blob_by(Algorithm::Sha512, "{}");
    let text = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2 },
        "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": blob, "size": bytes.len() }],
    })
    .to_string();
    let manifest = hub.push_manifest_by(Algorithm::Sha512, REPOSITORY, OCI_MANIFEST, &text, &["latest"]);
    for time in ["cold", "warm", "from the disk"] {
        for reference in ["latest".to_owned(), manifest.to_string()] {
            let reply = mirror.get(&manifest_path(REPOSITORY, reference)).await;
            assert_eq!((reply.status, reply.text().as_str()), (200, text.as_str()), "{time}");
            assert_eq!(reply.header("docker-content-digest"), manifest.to_string(), "{time}");
        }
        for (digest, content) in [(&blob, &bytes[..]), (&config, b"{}")] {
            let path = blob_path(REPOSITORY, digest);
            let reply = mirror.get(&path).await;
            assert!(reply.status == 200 && reply.is_whole && reply.body == content, "{time}");
            assert_eq!(reply.header("docker-content-digest"), digest.to_string(), "{time}");
            assert_eq!(mirror.head(&path).await.content_length(), content.len() as u64, "{time}");
            mirror.until_stored(digest).await;
        }
        if time == "warm" {
            mirror = mirror.restart().await;
        }
    }
    let counters = hub.counters();
    assert_eq!(
        (counters.manifest_get, counters.of(&blob).cdn_gets, counters.of(&config).cdn_gets),
        (1, 1, 1)
    );
}
