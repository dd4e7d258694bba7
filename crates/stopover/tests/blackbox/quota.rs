//! The pull limit: shown as metrics, spent without harm to what is cached, and not hammered on.

use futures_util::future::join_all;
use hubsim::{Fault, Hub, Options, Times, images};

use crate::{
    rig::{assert_error, assert_retry_after, assert_stale},
    support::{Mirror, MirrorOptions, blob_path, manifest_path},
};

const REPOSITORY: &str = "library/alpine";

fn never_fresh() -> MirrorOptions {
    MirrorOptions::default().tags_never_fresh()
}

/// Statement 69.
#[tokio::test]
async fn what_is_left_of_the_quota_is_a_metric_of_each_account() {
    let hub = Hub::start(Options { quota: Some(100), ..Options::default() }).await;
    hub.add_account("ann", "pw");
    hub.set_account_quota("ann", Some(200));
    images::busybox(&hub, REPOSITORY, "3.20", images::Format::OciSingle);
    for (options, account, limit) in
        [(never_fresh(), "anonymous", 100.0), (never_fresh().account("ann", "pw"), "ann", 200.0)]
    {
        let mirror = Mirror::start_with(&hub, options).await;
        let labels = [&*format!("account=\"{account}\""), "registry=\"docker.io\""];
        assert_eq!(mirror.get(&manifest_path(REPOSITORY, "3.20")).await.status, 200);
        assert_eq!(mirror.metric("stopover_quota_limit", &labels).await, limit);
        assert_eq!(mirror.metric("stopover_quota_remaining", &labels).await, limit - 1.0);
        assert_eq!(mirror.get(&manifest_path(REPOSITORY, "3.20")).await.status, 200);
        assert_eq!(mirror.metric("stopover_quota_remaining", &labels).await, limit - 1.0, "a check is free");
    }
}

/// Statement 16: the mirror's own quota is nobody's business.
#[tokio::test]
async fn a_client_hears_nothing_of_the_mirrors_own_quota() {
    let hub = Hub::start(Options { quota: Some(100), ..Options::default() }).await;
    images::busybox(&hub, REPOSITORY, "3.20", images::Format::OciSingle);
    let mirror = Mirror::start(&hub).await;
    let reply = mirror.get(&manifest_path(REPOSITORY, "3.20")).await;
    assert!(!reply.headers.keys().any(|name| name.as_str().contains("ratelimit")), "{:?}", reply.headers);
}

/// Statement 70: checks of tags go on, since a HEAD is free; what needs a GET and is not here is a 429.
#[tokio::test]
async fn a_spent_quota_leaves_what_is_cached_and_says_429_for_the_rest() {
    let hub = Hub::start(Options { quota: Some(1), retry_after: Some(17), ..Options::default() }).await;
    let cached = images::busybox(&hub, REPOSITORY, "3.20", images::Format::OciSingle);
    images::busybox(&hub, "library/other", "1", images::Format::OciSingle);
    let mirror = Mirror::start_with(&hub, never_fresh()).await;
    let path = manifest_path(REPOSITORY, "3.20");
    assert_eq!(mirror.get(&path).await.status, 200);

    let reply = mirror.get(&manifest_path("library/other", "1")).await;
    assert_error("a GET beyond the quota", &reply, 429, "TOOMANYREQUESTS");
    assert_eq!(reply.header("retry-after"), "17");
    let reply = mirror.get(&path).await;
    assert_eq!((reply.status, reply.digest(), reply.header("warning")), (200, cached.manifest, ""));
    for blob in cached.blobs() {
        assert_eq!(mirror.get(&blob_path(REPOSITORY, blob)).await.digest(), *blob, "blobs cost no quota");
    }

    let moved = images::busybox(&hub, REPOSITORY, "3.20", images::Format::OciIndex);
    assert_ne!(moved.manifest, cached.manifest);
    assert_stale("a tag that has moved", &mirror.get(&path).await, &cached.manifest);
    assert_eq!(hub.counters().manifest_get, 2, "one before, one that was refused");
}

/// Statement 70: where the registry does not say when, the mirror does.
#[tokio::test]
async fn a_429_has_a_retry_after_whoever_sent_it() {
    for fault in [Fault::TooManyRequests(None), Fault::TooManyRequests(Some(40)), Fault::Abuse429] {
        let hub = Hub::start(Options::default()).await;
        images::busybox(&hub, REPOSITORY, "3.20", images::Format::OciSingle);
        let what = fault.to_string();
        hub.fault(fault, Times::Always);
        let mirror = Mirror::start(&hub).await;
        let reply = mirror.get(&manifest_path(REPOSITORY, "3.20")).await;
        assert_error(&what, &reply, 429, "TOOMANYREQUESTS");
        assert_retry_after(&what, &reply, 15 * 60);
    }
}

/// Statement 71.
#[tokio::test]
async fn a_429_is_not_asked_for_again_by_the_next_fifty_pulls() {
    let hub = Hub::start(Options { quota: Some(0), ..Options::default() }).await;
    let image = images::busybox(&hub, REPOSITORY, "3.20", images::Format::OciSingle);
    let mirror = Mirror::start(&hub).await;
    let first = mirror.get(&manifest_path(REPOSITORY, image.manifest)).await;
    assert_error("the first", &first, 429, "TOOMANYREQUESTS");
    let paths: Vec<String> =
        (0..50).map(|n| manifest_path(&format!("library/r{n}"), image.manifest)).collect();
    for reply in join_all(paths.iter().map(|path| mirror.get(path))).await {
        assert_error("the next", &reply, 429, "TOOMANYREQUESTS");
        assert_retry_after("the next", &reply, 15 * 60);
    }
    let counters = hub.counters();
    assert_eq!((counters.throttled, counters.manifest_get), (1, 1), "{counters:#?}");
}

/// Statement 71: the quota of GETs says nothing of HEADs, so tags are still looked after.
#[tokio::test]
async fn a_spent_quota_does_not_end_the_checks_of_tags() {
    let hub = Hub::start(Options { quota: Some(1), ..Options::default() }).await;
    let image = images::busybox(&hub, REPOSITORY, "3.20", images::Format::OciSingle);
    images::busybox(&hub, "library/other", "1", images::Format::OciSingle);
    let mirror = Mirror::start_with(&hub, never_fresh()).await;
    let path = manifest_path(REPOSITORY, "3.20");
    assert_eq!(mirror.get(&path).await.status, 200);
    assert_eq!(mirror.get(&manifest_path("library/other", "1")).await.status, 429);
    hub.reset_counters();
    let reply = mirror.get(&path).await;
    assert_eq!((reply.status, reply.digest()), (200, image.manifest));
    let counters = hub.counters();
    assert!(counters.manifest_head <= 1 && counters.manifest_get == 0, "{counters:#?}");
    for _ in 0..20 {
        assert_eq!(mirror.get(&path).await.digest(), image.manifest);
    }
    assert_eq!(hub.counters().throttled, 0, "nothing is asked that would be refused");
}
