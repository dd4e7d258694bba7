//! Many registries behind one mirror, and the ways to name them.

use std::fs;

use hubsim::{Hub, Options, images};
use tempfile::TempDir;

use crate::support::{Mirror, MirrorOptions, blob_path, manifest_path};

/// Two registries with an image each, and a mirror of both: the first where nothing is said, the second by its name.
struct Two {
    hub: Hub,
    other: Hub,
    mirror: Mirror,
    _file: TempDir,
}

async fn two() -> Two {
    let (hub, other) = (Hub::start(Options::default()).await, Hub::start(Options::default()).await);
    let file = TempDir::new().unwrap();
    let path = file.path().join("stopover.toml");
    fs::write(&path, format!("[upstreams.\"other.example\"]\nurl = \"{}\"\n", other.registry_url())).unwrap();
    let options = MirrorOptions::default().env("STOPOVER_CONFIG", path.to_str().unwrap());
    let mirror = Mirror::start_with(&hub, options).await;
    Two { hub, other, mirror, _file: file }
}

/// Statements 5, 6 and 10.
#[tokio::test]
async fn a_registry_named_by_ns_or_by_path_is_one_fill_and_one_copy() {
    let Two { hub, other, mirror, .. } = two().await;
    let image = images::busybox(&other, "org/app", "latest", images::Format::OciSingle);
    let by_ns = format!("{}?ns=other.example", manifest_path("org/app", "latest"));
    let by_path = manifest_path("other.example/org/app", "latest");
    let first = mirror.get(&by_ns).await;
    assert_eq!((first.status, first.header("oci-namespace")), (200, "other.example"));
    let second = mirror.get(&by_path).await;
    assert_eq!((second.status, second.digest()), (200, image.manifest));
    assert_eq!(second.header("oci-namespace"), "");
    for layer in image.blobs() {
        let path = format!("{}?ns=other.example", blob_path("org/app", layer));
        assert_eq!(mirror.get(&path).await.digest(), *layer);
        assert_eq!(mirror.get(&blob_path("other.example/org/app", layer)).await.digest(), *layer);
        assert_eq!(other.counters().of(&layer).cdn_gets, 1);
    }
    assert_eq!(other.counters().manifest_get, 1);
    assert_eq!(hub.counters().total(), 0, "the default registry is not asked");
}

/// Statement 7.
#[tokio::test]
async fn the_same_name_at_two_registries_is_two_repositories() {
    let Two { hub, other, mirror, .. } = two().await;
    let ours = images::busybox(&hub, "org/app", "latest", images::Format::OciSingle);
    let theirs = images::busybox(&other, "org/app", "latest", images::Format::DockerSingle);
    assert_ne!(ours.manifest, theirs.manifest);
    let path = manifest_path("org/app", "latest");
    for _ in 0..2 {
        assert_eq!(mirror.get(&path).await.digest(), ours.manifest);
        assert_eq!(mirror.get(&format!("{path}?ns=docker.io")).await.digest(), ours.manifest);
        assert_eq!(mirror.get(&format!("{path}?ns=other.example")).await.digest(), theirs.manifest);
    }
}

/// A blob's bytes are shared between registries, the right to them is not.
#[tokio::test]
async fn a_blob_of_one_registry_is_not_to_be_had_under_another() {
    let Two { hub, other, mirror, .. } = two().await;
    let image = images::busybox(&other, "org/app", "latest", images::Format::OciSingle);
    images::busybox(&hub, "org/app", "latest", images::Format::DockerSingle);
    let secret = crate::support::push_blob(&other, "org/app", b"known to one registry alone");
    let path = blob_path("org/app", secret);
    assert_eq!(mirror.get(&format!("{path}?ns=other.example")).await.status, 200);
    let elsewhere = mirror.get(&path).await;
    assert_eq!((elsewhere.status, elsewhere.error_code()), (404, "BLOB_UNKNOWN".to_owned()));
    drop(image);
}

/// Statements 12 and 13.
#[tokio::test]
async fn a_registry_that_is_not_mirrored_is_refused_without_a_request() {
    let Two { hub, other, mirror, .. } = two().await;
    let address = other.authority();
    for ns in ["unknown.example", "127.0.0.1", "169.254.169.254", "%5B::1%5D", "localhost:2375", &address] {
        let reply = mirror.get(&format!("{}?ns={ns}", manifest_path("org/app", "latest"))).await;
        assert!(matches!(reply.status, 400 | 404), "{ns}: {}", reply.status);
    }
    assert_eq!((hub.counters().total(), other.counters().total()), (0, 0));
}

/// Statement 78: the link keeps the registry that the client named.
#[tokio::test]
async fn the_link_to_the_next_page_of_tags_names_the_registry_as_the_client_did() {
    let Two { other, mirror, .. } = two().await;
    let image = images::busybox(&other, "org/app", "a", images::Format::OciSingle);
    other.tag("org/app", "b", &image.manifest);
    let by_ns = mirror.get("/v2/org/app/tags/list?n=1&ns=other.example").await;
    assert_eq!(by_ns.header("link"), "</v2/org/app/tags/list?n=1&last=a&ns=other.example>; rel=\"next\"");
    let by_path = mirror.get("/v2/other.example/org/app/tags/list?n=1").await;
    assert_eq!(by_path.header("link"), "</v2/other.example/org/app/tags/list?n=1&last=a>; rel=\"next\"");
    assert_eq!(by_path.json()["name"], "other.example/org/app");
}

#[tokio::test]
async fn one_registry_that_is_down_takes_nothing_from_another() {
    let Two { hub, other, mirror, .. } = two().await;
    images::busybox(&hub, "org/app", "latest", images::Format::OciSingle);
    other.stop_listening().await;
    let path = manifest_path("org/app", "latest");
    for _ in 0..5 {
        assert_eq!(mirror.get(&format!("{path}?ns=other.example")).await.status, 503);
    }
    assert_eq!(mirror.get(&path).await.status, 200);
}
