//! One of each kind of content, as it comes through the mirror: the same bytes and the same type, cold, warm, from the
//! disk, and after the index was lost, which alone knows the types of manifests that do not say theirs.

use hubsim::{Fault, Hub, Kind, Options, Target, Times, kinds};
use oci::{Algorithm, Digest, MANIFEST_BYTES_MAX, OCI_MANIFEST};
use serde_json::json;

use crate::{
    rig::{assert_error, assert_pulls, assert_stale, volume},
    support::{Mirror, MirrorOptions, blob_path, hub_and_mirror, manifest_path, noise, push_blob},
};

const REPOSITORY: &str = "library/kinds";
/// What its registry has to say each time: its digest is not of its bytes, so it is not stored.
const NEVER_STORED: &str = "schema1";
/// What only the index and the registry know the type of.
const TYPE_UNTOLD: &str = "unknown-manifest-type";

async fn stop(mirror: &mut Mirror) {
    mirror.sigterm();
    mirror.wait_exit().await;
}

#[tokio::test]
async fn each_kind_is_the_same_cold_warm_from_disk_and_without_the_index() {
    let hub = Hub::start(Options::default()).await;
    let contents = kinds::push_all(&hub, REPOSITORY);
    let mut mirror = Mirror::start(&hub).await;
    for when in ["cold", "warm", "from disk", "index lost"] {
        hub.reset_counters();
        for content in &contents {
            assert_pulls(when, &mirror, REPOSITORY, content).await;
        }
        let counters = hub.counters();
        let expected = match when {
            "cold" => counters.manifest_get,
            "warm" => 0,
            _ => 1,
        };
        assert_eq!(counters.manifest_get, expected, "{when}: only what is never stored is fetched again");
        if when != "cold" {
            assert_eq!(counters.blob_get, 0, "{when}");
        }
        if when != "cold" {
            stop(&mut mirror).await;
            if when == "from disk" {
                volume::remove_index(mirror.root());
            }
            mirror = mirror.restart().await;
        }
    }
    // And at last without the registry, too.
    stop(&mut mirror).await;
    volume::remove_index(mirror.root());
    hub.stop_listening().await;
    let mirror = mirror.restart().await;
    for content in contents.iter().filter(|one| ![NEVER_STORED, TYPE_UNTOLD].contains(&one.name)) {
        assert_pulls("index lost, registry down", &mirror, REPOSITORY, content).await;
        let by_tag = mirror.get(&manifest_path(REPOSITORY, &content.tag)).await;
        assert!(by_tag.header("warning").starts_with("299 - "), "{}: {:?}", content.name, by_tag.headers);
    }
}

/// A manifest that does not say its type has that of its shape where nobody can be asked: the registry is, if it can.
#[tokio::test]
async fn a_type_that_only_the_registry_knows_is_asked_for_and_kept() {
    let hub = Hub::start(Options::default()).await;
    let contents = kinds::push_all(&hub, REPOSITORY);
    let content = contents.iter().find(|content| content.name == TYPE_UNTOLD).unwrap();
    let mut mirror = Mirror::start(&hub).await;
    assert_pulls("cold", &mirror, REPOSITORY, content).await;
    stop(&mut mirror).await;
    volume::remove_index(mirror.root());
    let mut mirror = mirror.restart().await;
    mirror.until_line("the tree was read", |line| line["msg"] == "the index was rebuilt from the tree").await;
    hub.reset_counters();
    assert_pulls("index lost", &mirror, REPOSITORY, content).await;
    assert_eq!((hub.counters().manifest_get, hub.counters().blob_get), (0, 0));
    stop(&mut mirror).await;
    hub.stop_listening().await;
    let mirror = mirror.restart().await;
    assert_pulls("known again, registry down", &mirror, REPOSITORY, content).await;
}

/// Nor does anybody wait long for a registry that hangs, to learn a type that the shape tells well enough.
#[tokio::test]
async fn a_registry_that_hangs_is_not_waited_for_to_learn_a_type() {
    let hub = Hub::start(Options::default()).await;
    let contents = kinds::push_all(&hub, REPOSITORY);
    let content = contents.iter().find(|content| content.name == "helm-chart").unwrap();
    let mut mirror =
        Mirror::start_with(&hub, MirrorOptions::default().env("STOPOVER_CACHE__CHECK_DEADLINE", "100ms"))
            .await;
    assert_pulls("cold", &mirror, REPOSITORY, content).await;
    stop(&mut mirror).await;
    volume::remove_index(mirror.root());
    hub.fault_on(Fault::Hang, Times::Always, Target::kind(Kind::Manifests));
    let mirror = mirror.restart().await;
    assert_pulls("index lost, registry hanging", &mirror, REPOSITORY, content).await;
    hub.clear_faults();
    hub.release();
    hub.reset_counters();
    assert_pulls("index lost, registry well", &mirror, REPOSITORY, content).await;
    assert_pulls("and known", &mirror, REPOSITORY, content).await;
    assert_eq!((hub.counters().manifest_get, hub.counters().blob_get), (0, 0));
}

/// Docker's first schema: the digest is of what was signed. It is checked so, passed, and never stored, since what
/// stands in the store is what its digest says to everybody.
#[tokio::test]
async fn a_manifest_of_schema_1_is_passed_and_checked_by_what_was_signed() {
    let hub = Hub::start(Options::default()).await;
    let contents = kinds::push_all(&hub, REPOSITORY);
    let content = contents.iter().find(|content| content.name == NEVER_STORED).unwrap();
    let mirror = Mirror::start(&hub).await;
    let reply = mirror.get(&manifest_path(REPOSITORY, &content.tag)).await;
    assert_eq!(reply.header("cache-status"), "Stopover; fwd=miss; detail=passed");
    assert_pulls("passed", &mirror, REPOSITORY, content).await;
    assert!(!mirror.blob_file(&content.top().digest).exists());
    // What was signed is another text now.
    let text = String::from_utf8(content.top().bytes.to_vec()).unwrap().replace("library/old", "library/new");
    let digest = Digest::of(Algorithm::Sha256, b"what was signed");
    hub.push_manifest_as(&digest, REPOSITORY, &content.top().media_type, text, &["forged"]);
    for reference in [digest.to_string(), "forged".to_owned()] {
        let reply = mirror.get(&manifest_path(REPOSITORY, reference)).await;
        assert_error("forged", &reply, 502, "UNAVAILABLE");
    }
}

/// A document that looks signed, and is known by the digest of all its bytes, does not go by another one when only its
/// looks are left to tell what it is.
#[tokio::test]
async fn a_stored_manifest_keeps_its_digest_whatever_it_looks_like() {
    let hub = Hub::start(Options::default()).await;
    let contents = kinds::push_all(&hub, REPOSITORY);
    let signed = contents.iter().find(|content| content.name == NEVER_STORED).unwrap().top();
    let media_type = "application/vnd.docker.distribution.manifest.v1+json";
    let digest = hub.push_manifest(REPOSITORY, media_type, signed.bytes.clone(), &["looks-signed"]);
    let path = manifest_path(REPOSITORY, digest);
    let mut mirror = Mirror::start(&hub).await;
    assert_eq!(mirror.get(&path).await.status, 200);
    assert!(mirror.blob_file(&digest).exists());
    stop(&mut mirror).await;
    volume::remove_index(mirror.root());
    let mirror = mirror.restart().await;
    let reply = mirror.get(&path).await;
    assert_eq!((reply.status, reply.header("docker-content-digest")), (200, digest.to_string().as_str()));
    assert_eq!(reply.header("content-type"), media_type);
}

/// The limit of clients (containerd, docker) is the mirror's; one byte more is refused, with the reason.
#[tokio::test]
async fn a_manifest_of_more_than_4_mib_is_refused_with_the_reason() {
    let (hub, mirror) = hub_and_mirror().await;
    let padding = "x".repeat(MANIFEST_BYTES_MAX as usize);
    let manifest = json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "annotations": { "x": padding } });
    let digest = hub.push_manifest(REPOSITORY, OCI_MANIFEST, manifest.to_string(), &["huge"]);
    for reference in ["huge".to_owned(), digest.to_string()] {
        let reply = mirror.get(&manifest_path(REPOSITORY, reference)).await;
        assert_error("huge", &reply, 502, "UNAVAILABLE");
        assert!(reply.text().contains("4194304"), "{}", reply.text());
    }
}

/// Bytes are shared between repositories, the right to them is not: a config that two images have in common, and a
/// manifest that two indexes have in common with all that it names, each under its own repository.
#[tokio::test]
async fn what_repositories_share_is_stored_once_and_asked_for_under_each() {
    let hub = Hub::start(Options::default()).await;
    let (mine, theirs) = (kinds::push_all(&hub, "library/mine"), kinds::push_all(&hub, "org/theirs"));
    let of = |contents: &[kinds::Content]| {
        contents.iter().find(|content| content.name == "index-without-type").unwrap().clone()
    };
    let (mine, theirs) = (of(&mine), of(&theirs));
    let mirror = Mirror::start(&hub).await;
    let pull = async |repository: &str, content: &kinds::Content| {
        for manifest in content.manifests.iter().rev() {
            assert_eq!(mirror.get(&manifest_path(repository, manifest.digest)).await.status, 200);
        }
        for (digest, _) in &content.blobs {
            assert_eq!(mirror.get(&blob_path(repository, digest)).await.status, 200, "{digest}");
        }
    };
    pull("library/mine", &mine).await;
    for (digest, _) in &mine.blobs {
        mirror.until_stored(digest).await;
    }
    hub.reset_counters();
    pull("org/theirs", &theirs).await;
    let counters = hub.counters();
    assert_eq!((counters.manifest_get, counters.blob_get), (0, 0), "the bytes are here");
    assert_eq!(
        counters.manifest_head, 1,
        "the right to the index is asked for, and by it to all that it names"
    );
    assert_eq!(counters.blob_head, 0, "{counters:#?}");
    let private = push_blob(&hub, "org/private", &noise(1, 100));
    assert_eq!(mirror.get(&blob_path("org/private", private)).await.status, 200);
    let reply = mirror.get(&blob_path("library/mine", private)).await;
    assert_error("another's blob", &reply, 404, "BLOB_UNKNOWN");
}

/// What refers to an image is pulled whether the mirror has that image or not, and says nothing of it.
#[tokio::test]
async fn a_referrer_is_pulled_without_its_subject() {
    let hub = Hub::start(Options::default()).await;
    let contents = kinds::push_all(&hub, REPOSITORY);
    let content = contents.iter().find(|content| content.name == "artifact-with-subject").unwrap();
    let mirror = Mirror::start_with(&hub, MirrorOptions::default().tags_never_fresh()).await;
    assert_eq!(mirror.get(&manifest_path(REPOSITORY, &content.tag)).await.digest(), content.top().digest);
    let subject = content.top().bytes.clone();
    let subject: serde_json::Value = serde_json::from_slice(&subject).unwrap();
    let subject: Digest = subject["subject"]["digest"].as_str().unwrap().parse().unwrap();
    assert!(!mirror.blob_file(&subject).exists(), "nobody asked for it");
    hub.stop_listening().await;
    assert_stale("down", &mirror.get(&manifest_path(REPOSITORY, &content.tag)).await, &content.top().digest);
    let unasked = mirror.get(&manifest_path(REPOSITORY, subject)).await;
    assert_error("the image itself", &unasked, 503, "UNAVAILABLE");
}
