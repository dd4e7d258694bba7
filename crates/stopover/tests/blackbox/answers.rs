//! What a client is told while the registry fails: the answer table of the project's study of reliability (3.2), row by
//! row, for what is cached and for what is not; statements 72 to 76.
//!
//! Each row has a Hub and a mirror of its own, since a mirror remembers that its registry is ill.

use futures_util::future::join_all;
use hubsim::{Fault, Hub, Kind, Options, Target, Times, images};

use crate::{
    rig::{assert_error, assert_retry_after, assert_stale, eventually, volume::remove_index},
    support::{Mirror, MirrorOptions, blob_path, manifest_path},
};

const REPOSITORY: &str = "library/alpine";
/// The most that a client is told to stay away from a registry that is down.
const RETRY_AFTER_MAX: u64 = 30;
/// The most that it is told to wait for a quota.
const QUOTA_AFTER_MAX: u64 = 15 * 60;

/// A way to fail, and what an uncached tag is answered; a cached one is served stale in every row.
struct Row {
    fault: Fault,
    kind: Kind,
    status: u16,
    code: &'static str,
    retry_after_max: Option<u64>,
}

const fn row(fault: Fault, kind: Kind, status: u16, code: &'static str, retry_after_max: Option<u64>) -> Row {
    Row { fault, kind, status, code, retry_after_max }
}

/// A mirror that asks each time and waits less for its registry than the usual one, so that rows of silence are short.
fn impatient() -> MirrorOptions {
    let options = MirrorOptions::default().tags_never_fresh();
    options.env("STOPOVER_CACHE__CHECK_DEADLINE", "500ms").env("STOPOVER_UPSTREAM__ANSWER_TIMEOUT", "700ms")
}

async fn check(row: Row) {
    let what = format!("{} of {}", row.fault, row.kind);
    let hub = Hub::start(Options::default()).await;
    let cached = images::busybox(&hub, REPOSITORY, "cached", images::Format::OciSingle);
    images::busybox(&hub, REPOSITORY, "other", images::Format::DockerSingle);
    let mirror = Mirror::start_with(&hub, impatient()).await;
    assert_eq!(mirror.get(&manifest_path(REPOSITORY, "cached")).await.status, 200, "{what}");
    assert_eq!(mirror.get(&blob_path(REPOSITORY, cached.config)).await.status, 200, "{what}");

    if row.kind == Kind::Token {
        hub.expire_tokens();
    }
    hub.fault_on(row.fault, Times::Always, Target::kind(row.kind));
    let missing = mirror.get(&manifest_path(REPOSITORY, "other")).await;
    assert_error(&what, &missing, row.status, row.code);
    match row.retry_after_max {
        Some(seconds_max) => assert_retry_after(&what, &missing, seconds_max),
        None => assert_eq!(missing.header("retry-after"), "", "{what}"),
    }
    assert_eq!(mirror.head(&manifest_path(REPOSITORY, "other")).await.status, row.status, "{what}: HEAD");

    let stale = mirror.get(&manifest_path(REPOSITORY, "cached")).await;
    assert_stale(&what, &stale, &cached.manifest);
    let head = mirror.head(&manifest_path(REPOSITORY, "cached")).await;
    assert_eq!(
        (head.status, head.header("docker-content-digest")),
        (200, &*cached.manifest.to_string()),
        "{what}"
    );
    let asked = hub.counters().total();
    let by_digest = mirror.get(&manifest_path(REPOSITORY, cached.manifest)).await;
    assert_eq!((by_digest.status, by_digest.header("warning")), (200, ""), "{what}: a digest is never stale");
    assert_eq!(mirror.get(&blob_path(REPOSITORY, cached.config)).await.digest(), cached.config, "{what}");
    assert_eq!(hub.counters().total(), asked, "{what}: a cached digest asks nobody");
}

/// Rows "5xx", "refused", "timeout" of the table; statements 72 and 75.
#[tokio::test]
async fn a_registry_that_is_ill_is_a_503_or_a_504_and_a_stale_tag() {
    let soon = Some(RETRY_AFTER_MAX);
    let rows = [
        row(Fault::Status(500, None), Kind::Manifests, 503, "UNAVAILABLE", soon),
        row(Fault::Status(502, None), Kind::Manifests, 503, "UNAVAILABLE", soon),
        row(Fault::Status(503, Some(3600)), Kind::Manifests, 503, "UNAVAILABLE", soon),
        row(Fault::Status(504, None), Kind::All, 503, "UNAVAILABLE", soon),
        row(Fault::Close, Kind::Manifests, 503, "UNAVAILABLE", soon),
        row(Fault::Hang, Kind::Manifests, 504, "UNAVAILABLE", soon),
        row(Fault::TokenDown, Kind::Token, 503, "UNAVAILABLE", soon),
        row(Fault::Hang, Kind::Token, 504, "UNAVAILABLE", soon),
    ];
    join_all(rows.map(check)).await;
}

/// Rows "429" and "401/403" of the table; statements 70 and 74.
#[tokio::test]
async fn a_registry_that_refuses_is_quoted_and_a_stale_tag() {
    let quota = Some(QUOTA_AFTER_MAX);
    let rows = [
        row(Fault::TooManyRequests(Some(60)), Kind::Manifests, 429, "TOOMANYREQUESTS", quota),
        row(Fault::TooManyRequests(None), Kind::Manifests, 429, "TOOMANYREQUESTS", quota),
        row(Fault::Abuse429, Kind::All, 429, "TOOMANYREQUESTS", quota),
        row(Fault::Status(401, None), Kind::Manifests, 401, "UNAUTHORIZED", None),
        row(Fault::Status(403, None), Kind::Manifests, 403, "DENIED", None),
    ];
    join_all(rows.map(check)).await;
}

/// Row "digest or length lie" and what else is no answer of a registry.
#[tokio::test]
async fn a_registry_that_answers_nonsense_is_a_bad_gateway_and_a_stale_tag() {
    let rows = [
        row(Fault::Html200, Kind::All, 502, "UNAVAILABLE", None),
        row(Fault::TokenGarbage, Kind::Token, 502, "UNAVAILABLE", None),
        row(Fault::Status(418, None), Kind::Manifests, 502, "UNAVAILABLE", None),
        row(Fault::RedirectLoop, Kind::Manifests, 502, "UNAVAILABLE", None),
    ];
    join_all(rows.map(check)).await;
}

/// Row "refused": nobody listens there any more; statement 3 besides.
#[tokio::test]
async fn a_registry_that_is_gone_is_a_503_and_a_stale_tag_and_the_ping_is_as_ever() {
    let hub = Hub::start(Options::default()).await;
    let image = images::busybox(&hub, REPOSITORY, "cached", images::Format::OciIndex);
    let mirror = Mirror::start_with(&hub, impatient()).await;
    assert_eq!(mirror.get(&manifest_path(REPOSITORY, "cached")).await.status, 200);
    hub.stop_listening().await;
    assert_stale("gone", &mirror.get(&manifest_path(REPOSITORY, "cached")).await, &image.manifest);
    let missing = mirror.get(&manifest_path(REPOSITORY, "other")).await;
    assert_error("gone", &missing, 503, "UNAVAILABLE");
    assert_retry_after("gone", &missing, RETRY_AFTER_MAX);
    let missing = mirror.get(&blob_path(REPOSITORY, image.config)).await;
    assert_error("gone", &missing, 503, "UNAVAILABLE");
    assert_retry_after("gone", &missing, RETRY_AFTER_MAX);
    assert_eq!(mirror.get("/v2/").await.status, 200);
}

/// Rows "DNS" and "TLS": the way to the registry fails before a byte is said.
#[tokio::test]
async fn a_name_that_is_unknown_or_a_handshake_that_fails_is_a_stale_tag_and_no_500() {
    let hub = Hub::start(Options::default()).await;
    let image = images::busybox(&hub, REPOSITORY, "cached", images::Format::OciSingle);
    let mut mirror = Mirror::start_with(&hub, impatient()).await;
    assert_eq!(mirror.get(&manifest_path(REPOSITORY, "cached")).await.status, 200);
    let no_tls = format!("https://{}", hub.authority());
    for url in [no_tls.as_str(), "https://registry.invalid", "http://[::1]:9"] {
        mirror = mirror.restart_with(|options| options.env("REGISTRY_PROXY_REMOTEURL", url)).await;
        assert_stale(url, &mirror.get(&manifest_path(REPOSITORY, "cached")).await, &image.manifest);
        let missing = mirror.get(&manifest_path(REPOSITORY, "other")).await;
        assert!((502..=504).contains(&missing.status), "{url}: {}", missing.text());
        assert_eq!(missing.error_code(), "UNAVAILABLE", "{url}");
    }
}

/// Rows "404": on a tag, and on a digest that is held; statement 73.
#[tokio::test]
async fn a_tag_that_is_deleted_is_gone_and_its_digest_stays() {
    let hub = Hub::start(Options::default()).await;
    let image = images::busybox(&hub, REPOSITORY, "cached", images::Format::OciSingle);
    let mirror = Mirror::start_with(&hub, MirrorOptions::default().tags_never_fresh()).await;
    assert_eq!(mirror.get(&manifest_path(REPOSITORY, "cached")).await.status, 200);
    hub.untag(REPOSITORY, "cached");
    for _ in 0..2 {
        let reply = mirror.get(&manifest_path(REPOSITORY, "cached")).await;
        assert_error("untagged", &reply, 404, "MANIFEST_UNKNOWN");
    }
    hub.remove_manifest(REPOSITORY, &image.manifest);
    assert_eq!(mirror.get(&manifest_path(REPOSITORY, image.manifest)).await.digest(), image.manifest);
    hub.stop_listening().await;
    let reply = mirror.get(&manifest_path(REPOSITORY, "cached")).await;
    assert_ne!(reply.status, 200, "a deleted tag does not come back when the registry fails");
}

/// Row "404" within the tag's freshness: what was true a moment ago is served without asking.
#[tokio::test]
async fn a_deleted_tag_is_served_until_it_is_no_longer_fresh() {
    let hub = Hub::start(Options::default()).await;
    let image = images::busybox(&hub, REPOSITORY, "cached", images::Format::OciSingle);
    let mirror = Mirror::start(&hub).await;
    assert_eq!(mirror.get(&manifest_path(REPOSITORY, "cached")).await.status, 200);
    hub.untag(REPOSITORY, "cached");
    let reply = mirror.get(&manifest_path(REPOSITORY, "cached")).await;
    assert_eq!((reply.digest(), reply.header("warning")), (image.manifest, ""));
}

/// Row "401/403": the grace for a repository that was public ends.
#[tokio::test]
async fn a_tag_that_is_denied_is_served_for_its_grace_and_then_denied() {
    let hub = Hub::start(Options::default()).await;
    let image = images::busybox(&hub, REPOSITORY, "cached", images::Format::OciSingle);
    let mirror = Mirror::start_with(&hub, MirrorOptions::default().tags_never_fresh()).await;
    let path = manifest_path(REPOSITORY, "cached");
    assert_eq!(mirror.get(&path).await.status, 200);
    hub.make_private_to(REPOSITORY, "ann");
    hub.expire_tokens();
    assert_stale("in its grace", &mirror.get(&path).await, &image.manifest);
    let mirror = mirror.restart_with(|options| options.env("STOPOVER_CACHE__STALE_IF_DENIED", "0")).await;
    eventually("the grace of no length ends", async || {
        let reply = mirror.get(&path).await;
        (reply.status == 401 && reply.error_code() == "UNAUTHORIZED").then_some(())
    })
    .await;
}

/// P8: where nobody knows when the tag was last allowed, there is no grace.
#[tokio::test]
async fn a_tag_that_is_denied_after_the_index_was_lost_is_denied_at_once() {
    let hub = Hub::start(Options::default()).await;
    let image = images::busybox(&hub, REPOSITORY, "cached", images::Format::OciSingle);
    let mut mirror = Mirror::start_with(&hub, MirrorOptions::default().tags_never_fresh()).await;
    let path = manifest_path(REPOSITORY, "cached");
    assert_eq!(mirror.get(&path).await.status, 200);
    mirror.kill9();
    remove_index(mirror.root());
    let mirror = mirror.restart().await;
    hub.make_private_to(REPOSITORY, "ann");
    assert_error("denied", &mirror.get(&path).await, 401, "UNAUTHORIZED");
    hub.stop_listening().await;
    let unreachable = mirror.get(&path).await;
    assert_stale("unreachable is not denied", &unreachable, &image.manifest);
}

/// Statement 72: the time that a stale tag may be served is bounded, too.
#[tokio::test]
async fn a_tag_is_not_served_stale_beyond_its_bound() {
    let hub = Hub::start(Options::default()).await;
    images::busybox(&hub, REPOSITORY, "cached", images::Format::OciSingle);
    let options = impatient().env("STOPOVER_CACHE__STALE_IF_ERROR", "0");
    let mirror = Mirror::start_with(&hub, options).await;
    let path = manifest_path(REPOSITORY, "cached");
    assert_eq!(mirror.get(&path).await.status, 200);
    hub.stop_listening().await;
    eventually("the bound of no length is reached", async || {
        let reply = mirror.get(&path).await;
        (reply.status == 503 && reply.error_code() == "UNAVAILABLE").then_some(())
    })
    .await;
}
