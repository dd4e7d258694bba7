//! Every question of the distribution specification about pulling, as its conformance suite asks them where a registry
//! is only read (`OCI_RO_DATA_*`), of a mirror that has nothing, one that has all, and one whose registry is down.
//!
//! The questions about lists are in `conformance_discovery`; what the suite does not ask about is elsewhere by its
//! subject. docs/conformance.md says which test asks what.

use hubsim::{Hub, Options, kinds};
use oci::{Algorithm, Digest};

use crate::{
    rig::assert_error,
    support::{Mirror, MirrorOptions, Reply, blob_path, manifest_path, noise, send},
};

/// The repository that the suite is told to read.
pub(crate) const REPOSITORY: &str = "conformance/repo1";
/// The suite accepts no more than this, as two headers.
const ACCEPT: [(&str, &str); 2] = [("accept", oci::OCI_INDEX), ("accept", oci::OCI_MANIFEST)];

/// A Hub that answers 404 where it knows nothing, as the suite's registry, with one of each kind of content.
pub(crate) async fn stocked() -> (Hub, Vec<kinds::Content>) {
    let hub = Hub::start(Options { unknown_is_404: true, ..Options::default() }).await;
    let contents = kinds::push_all(&hub, REPOSITORY);
    (hub, contents)
}

/// Asks for a manifest as the suite does: by HEAD and by GET, of which the head must say the same.
async fn asks_for_manifest(when: &str, mirror: &Mirror, reference: &str, right: &kinds::Pushed) {
    let url = format!("{}{}", mirror.url(), manifest_path(REPOSITORY, reference));
    for method in ["HEAD", "GET"] {
        let what = format!("{when}: {method} {reference}");
        let reply = send(method, &url, &ACCEPT).await.unwrap();
        assert_eq!(reply.status, 200, "{what}: {}", reply.text());
        assert_eq!(reply.header("content-type"), right.media_type, "{what}");
        assert_eq!(reply.header("docker-content-digest"), right.digest.to_string(), "{what}");
        assert_eq!(reply.content_length(), right.bytes.len() as u64, "{what}");
        let body: &[u8] = if method == "GET" { &right.bytes } else { b"" };
        assert!(reply.body == body, "{what}: other bytes");
    }
}

async fn asks_for_blob(when: &str, mirror: &Mirror, digest: &Digest, right: &[u8]) {
    let url = format!("{}{}", mirror.url(), blob_path(REPOSITORY, digest));
    for method in ["HEAD", "GET"] {
        let what = format!("{when}: {method} {digest}");
        let reply = send(method, &url, &[]).await.unwrap();
        assert_eq!(reply.status, 200, "{what}: {}", reply.text());
        assert_eq!(reply.header("docker-content-digest"), digest.to_string(), "{what}");
        assert_eq!(reply.content_length(), right.len() as u64, "{what}");
        let body = if method == "GET" { right } else { b"" };
        assert!(reply.body == body, "{what}: other bytes");
    }
}

/// spec.md, "Pulling manifests", "Pulling blobs", "Checking if content exists in the registry": run.go's TestHead and
/// TestPull, for one of each kind of content there is, sha512 and empty blobs among them.
#[tokio::test]
async fn all_that_the_registry_has_is_pulled_and_checked_for_cold_warm_and_while_it_is_down() {
    let (hub, contents) = stocked().await;
    let mirror = Mirror::start_with(&hub, MirrorOptions::default().tags_never_fresh()).await;
    for when in ["cold", "warm", "down"] {
        if when == "down" {
            hub.stop_listening().await;
        }
        hub.reset_counters();
        for content in &contents {
            let when = format!("{when}: {}", content.name);
            asks_for_manifest(&when, &mirror, &content.tag, content.top()).await;
            for manifest in &content.manifests {
                asks_for_manifest(&when, &mirror, &manifest.digest.to_string(), manifest).await;
            }
            for (digest, bytes) in &content.blobs {
                asks_for_blob(&when, &mirror, digest, bytes).await;
            }
        }
        let counters = hub.counters();
        if when == "warm" {
            assert_eq!((counters.manifest_get, counters.blob_get), (0, 0), "{when}: {counters:#?}");
        }
    }
}

/// spec.md, "Pulling manifests", "Pulling blobs": what is not there is a 404 with a body that says so (run.go's
/// TestManifestErrors and the blobs' get-missing), also where a manifest names it.
#[tokio::test]
async fn what_is_not_there_is_a_404() {
    let (hub, contents) = stocked().await;
    let mirror = Mirror::start(&hub).await;
    let nowhere = Digest::of(Algorithm::Sha256, b"nowhere");
    let nowhere_by_512 = Digest::of(Algorithm::Sha512, b"nowhere");
    let mut manifests = vec![nowhere.to_string(), nowhere_by_512.to_string(), "missing-tag".to_owned()];
    let mut blobs = vec![nowhere, nowhere_by_512];
    for content in &contents {
        asks_for_manifest("warming", &mirror, &content.tag, content.top()).await;
        manifests.extend(content.absent.iter().map(Digest::to_string));
        blobs.extend(&content.absent);
    }
    assert!(manifests.len() > 5, "some kinds name what is not there");
    for repository in [REPOSITORY, "conformance/unknown"] {
        for reference in &manifests {
            let path = manifest_path(repository, reference);
            assert_error(&path, &mirror.get_with(&path, &ACCEPT).await, 404, "MANIFEST_UNKNOWN");
            assert_eq!(mirror.head(&path).await.status, 404, "{path}");
        }
        for digest in &blobs {
            let path = blob_path(repository, digest);
            assert_error(&path, &mirror.get(&path).await, 404, "BLOB_UNKNOWN");
            assert_eq!(mirror.head(&path).await.status, 404, "{path}");
        }
    }
}

/// spec.md, "Pulling manifests": a reference is a digest or a tag. A digest by an algorithm that the mirror does not
/// know (blake3 is registered in the image specification) cannot be checked, so it is refused and not passed on.
#[tokio::test]
async fn a_digest_that_is_none_or_of_an_unknown_algorithm_is_a_400_that_says_what_would_be_right() {
    let (hub, _) = stocked().await;
    let mirror = Mirror::start(&hub).await;
    let hex = "a".repeat(64);
    for digest in ["sha256:baddigeststring".to_owned(), format!("blake3:{hex}"), format!("sha384:{hex}")] {
        for path in [
            manifest_path(REPOSITORY, &digest),
            blob_path(REPOSITORY, &digest),
            format!("/v2/{REPOSITORY}/referrers/{digest}"),
        ] {
            let reply = mirror.get(&path).await;
            assert_error(&path, &reply, 400, "DIGEST_INVALID");
            assert!(reply.text().contains(": expected sha256"), "{path}: {}", reply.text());
            assert_eq!(mirror.head(&path).await.status, 400, "{path}");
        }
    }
    assert_eq!(hub.counters().total(), 0);
}

/// What the suite asks for of a blob of 2048 bytes, and what it has to get: the bytes, or 416.
const RANGES: [(&str, Option<std::ops::Range<usize>>); 6] = [
    ("bytes=500-1499", Some(500..1500)),
    ("bytes=500-", Some(500..2048)),
    ("bytes=-500", Some(1548..2048)),
    ("bytes=2000-5000", Some(2000..2048)),
    ("bytes=500-0", None),
    ("bytes=5000-10000", None),
];

fn assert_range(what: &str, reply: &Reply, whole: &[u8], right: Option<&std::ops::Range<usize>>) {
    let Some(right) = right else {
        assert_error(what, reply, 416, "RANGE_INVALID");
        assert_eq!(reply.header("content-range"), "bytes */2048", "{what}");
        return;
    };
    assert_eq!(reply.status, 206, "{what}: {}", reply.body.len());
    let range = format!("bytes {}-{}/2048", right.start, right.end - 1);
    assert_eq!(reply.header("content-range"), range, "{what}");
    assert_eq!(reply.content_length(), right.len() as u64, "{what}");
    assert!(reply.body == whole[right.clone()], "{what}: other bytes");
}

/// spec.md, "Pulling blobs": Range by RFC 9110 (run.go's "range requests", for each algorithm).
#[tokio::test]
async fn ranges_are_answered_as_the_suite_wants_cold_warm_and_while_the_registry_is_down() {
    let (hub, _) = stocked().await;
    let mirror = Mirror::start(&hub).await;
    let mut seed = 0;
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let mut known = Vec::new();
        for (range, right) in &RANGES {
            seed += 1;
            // Another one each time, so that each range is the first that is asked for.
            let bytes = noise(seed, 2048);
            let digest = hub.push_blob_by(algorithm, bytes.clone());
            hub.link_blob(REPOSITORY, &digest);
            let reply = mirror.get_with(&blob_path(REPOSITORY, digest), &[("range", range)]).await;
            assert_range(&format!("cold, {algorithm}, {range}"), &reply, &bytes, right.as_ref());
            asks_for_blob("warming", &mirror, &digest, &bytes).await;
            mirror.until_stored(&digest).await;
            known.push((digest, bytes));
        }
        for down in [false, true] {
            if down {
                hub.stop_listening().await;
            }
            for (digest, bytes) in &known {
                for (range, right) in &RANGES {
                    let what = format!("down: {down}, {digest}, {range}");
                    let reply = mirror.get_with(&blob_path(REPOSITORY, digest), &[("range", range)]).await;
                    assert_range(&what, &reply, bytes, right.as_ref());
                }
            }
        }
        hub.resume_listening().await;
    }
}

/// spec.md, "Determining Support": run.go's TestPing.
#[tokio::test]
async fn the_mirror_says_that_it_implements_the_specification() {
    let (hub, _) = stocked().await;
    let mirror = Mirror::start(&hub).await;
    for method in ["GET", "HEAD"] {
        let reply = send(method, &format!("{}/v2/", mirror.url()), &[]).await.unwrap();
        assert_eq!(reply.status, 200, "{method}");
    }
}

/// spec.md, "Endpoints": what would change something is not there, which is 405 (end-4 to end-7, end-9 to end-11,
/// end-13 and end-14), and nothing of it reaches the registry.
#[tokio::test]
async fn whatever_pushes_or_deletes_is_a_405() {
    let (hub, contents) = stocked().await;
    let mirror = Mirror::start(&hub).await;
    let (tag, digest) = (&contents[0].tag, contents[0].top().digest);
    let blob = contents[0].blobs[0].0;
    let at = |rest: String| format!("/v2/{REPOSITORY}/{rest}");
    let table = [
        ("POST", at("blobs/uploads/".to_owned())),
        ("POST", at(format!("blobs/uploads/?digest={blob}"))),
        ("POST", at("blobs/uploads/?digest-algorithm=sha512".to_owned())),
        ("POST", at(format!("blobs/uploads/?mount={blob}&from=conformance/repo2"))),
        ("PATCH", at("blobs/uploads/1234".to_owned())),
        ("PUT", at(format!("blobs/uploads/1234?digest={blob}"))),
        ("DELETE", at("blobs/uploads/1234".to_owned())),
        ("PUT", at(format!("manifests/{tag}"))),
        ("PUT", at(format!("manifests/{digest}"))),
        ("PUT", at(format!("manifests/{digest}?tag=1&tag=2"))),
        ("DELETE", at(format!("manifests/{tag}"))),
        ("DELETE", at(format!("manifests/{digest}"))),
        ("DELETE", at(format!("blobs/{blob}"))),
    ];
    for (method, path) in table {
        let reply = send(method, &format!("{}{path}", mirror.url()), &[]).await.unwrap();
        assert_error(&format!("{method} {path}"), &reply, 405, "UNSUPPORTED");
        assert_eq!(reply.header("allow"), "GET, HEAD", "{method} {path}");
    }
    let upload = mirror.get(&at("blobs/uploads/1234".to_owned())).await;
    assert!((400..500).contains(&upload.status), "an upload that cannot be: {}", upload.status);
    assert_eq!(hub.counters().total(), 0);
}
