//! What is not there: said truly, remembered for seconds, and of nothing else (statement 73).

use futures_util::future::join_all;
use hubsim::{Hub, Options, images};
use oci::{Algorithm, Digest};

use crate::{
    rig::{assert_error, eventually},
    support::{Mirror, MirrorOptions, blob_path, manifest_path, push_blob},
};

const REPOSITORY: &str = "library/alpine";

async fn hub_that_says_404() -> Hub {
    let hub = Hub::start(Options { unknown_is_404: true, ..Options::default() }).await;
    images::busybox(&hub, REPOSITORY, "there", images::Format::OciSingle);
    hub
}

/// Statement 73: a storm of requests for what is not there is one to the registry.
#[tokio::test]
async fn what_is_not_there_is_asked_for_once() {
    let hub = hub_that_says_404().await;
    let mirror = Mirror::start(&hub).await;
    let absent = Digest::of(Algorithm::Sha256, b"absent");
    for (path, code) in [
        (manifest_path(REPOSITORY, "none"), "MANIFEST_UNKNOWN"),
        (manifest_path(REPOSITORY, absent), "MANIFEST_UNKNOWN"),
        (blob_path(REPOSITORY, absent), "BLOB_UNKNOWN"),
    ] {
        // The first learns how the registry wants to be asked.
        assert_error(&path, &mirror.get(&path).await, 404, code);
        let asked = hub.counters().total();
        for reply in join_all((0..100).map(|_| mirror.get(&path))).await {
            assert_error(&path, &reply, 404, code);
        }
        assert_eq!(mirror.head(&path).await.status, 404, "{path}");
        assert_eq!(hub.counters().total(), asked, "{path}");
    }
}

/// Statement 73: a hundred that ask at once wait for one answer.
#[tokio::test]
async fn a_hundred_at_once_for_what_is_not_there_are_one_question() {
    let hub = hub_that_says_404().await;
    let mirror = Mirror::start(&hub).await;
    assert_eq!(mirror.get(&manifest_path(REPOSITORY, "there")).await.status, 200);
    hub.reset_counters();
    let path = manifest_path(REPOSITORY, "none");
    for reply in join_all((0..100).map(|_| mirror.get(&path))).await {
        assert_error(&path, &reply, 404, "MANIFEST_UNKNOWN");
    }
    let counters = hub.counters();
    assert_eq!((counters.manifest_head, counters.total()), (1, 1), "{counters:#?}");
}

/// Statement 73: keyed by repository and tag.
#[tokio::test]
async fn one_absence_says_nothing_of_another_tag_or_repository() {
    let hub = hub_that_says_404().await;
    let other = images::busybox(&hub, "library/other", "none", images::Format::OciSingle);
    let mirror = Mirror::start(&hub).await;
    assert_eq!(mirror.get(&manifest_path(REPOSITORY, "none")).await.status, 404);
    assert_eq!(mirror.get(&manifest_path("library/other", "none")).await.digest(), other.manifest);
    assert_eq!(mirror.get(&manifest_path(REPOSITORY, "there")).await.status, 200);
    let blob = push_blob(&hub, "library/other", b"a blob of the other");
    assert_error("blob", &mirror.get(&blob_path(REPOSITORY, blob)).await, 404, "BLOB_UNKNOWN");
    assert_eq!(mirror.get(&blob_path("library/other", blob)).await.digest(), blob);
}

/// Clients that know a digest alone, such as oras, ask for a manifest first and then for a blob, or the other way.
#[tokio::test]
async fn a_digest_that_is_no_manifest_may_be_a_blob_and_the_other_way_round() {
    let hub = hub_that_says_404().await;
    let blob = push_blob(&hub, REPOSITORY, b"no manifest");
    let manifest = hub.tagged(REPOSITORY, "there").unwrap();
    for asks_head in [true, false] {
        let mirror = Mirror::start(&hub).await;
        for (wrong, right, digest) in [
            (manifest_path(REPOSITORY, blob), blob_path(REPOSITORY, blob), blob),
            (blob_path(REPOSITORY, manifest), manifest_path(REPOSITORY, manifest), manifest),
        ] {
            let reply = if asks_head { mirror.head(&wrong).await } else { mirror.get(&wrong).await };
            assert_eq!(reply.status, 404, "{wrong}");
            assert_eq!(mirror.head(&right).await.status, 200, "{right}");
            assert_eq!(mirror.get(&right).await.digest(), digest, "{right}");
        }
    }
}

/// Statement 73: what was not there is found soon after it is pushed, and at once where nothing is to be remembered.
#[tokio::test]
async fn what_is_pushed_after_all_is_found() {
    for (absent_ttl, at_once) in [("0", true), ("1s", false)] {
        let hub = hub_that_says_404().await;
        let options = MirrorOptions::default().env("STOPOVER_CACHE__ABSENT_TTL", absent_ttl);
        let mirror = Mirror::start_with(&hub, options).await;
        let path = manifest_path(REPOSITORY, "new");
        assert_eq!(mirror.get(&path).await.status, 404);
        let image = images::busybox(&hub, REPOSITORY, "new", images::Format::OciIndex);
        if at_once {
            assert_eq!(mirror.get(&path).await.digest(), image.manifest);
            continue;
        }
        let reply = eventually("the absence is forgotten", async || {
            let reply = mirror.get(&path).await;
            (reply.status == 200).then_some(reply)
        });
        assert_eq!(reply.await.digest(), image.manifest);
    }
}

/// Hub says 401 of a repository that does not exist, and so does the mirror, without believing it for long.
#[tokio::test]
async fn a_repository_that_the_registry_does_not_know_is_what_the_registry_says() {
    let hub = hub_that_says_404().await;
    let mirror = Mirror::start(&hub).await;
    assert_error("404", &mirror.get(&manifest_path("library/nothing", "1")).await, 404, "MANIFEST_UNKNOWN");
    hub.configure(|options| options.unknown_is_404 = false);
    assert_error("401", &mirror.get(&manifest_path("library/void", "1")).await, 401, "UNAUTHORIZED");
}
