//! Tokens: one for all who want the same, and every way in which token services differ.

use std::time::Duration;

use futures_util::future::join_all;
use hubsim::{Fault, Hub, Kind, Options, Target, Times, TokenNames, images};

use crate::support::{Mirror, MirrorOptions, blob_path, manifest_path};

const REPOSITORY: &str = "library/alpine";

/// Statement 61.
#[tokio::test]
async fn a_hundred_cold_pulls_of_one_repository_are_one_token() {
    let hub = Hub::start(Options::default()).await;
    let image = images::busybox(&hub, REPOSITORY, "0", images::Format::OciSingle);
    let tags: Vec<String> = (1..=100).map(|tag| format!("1.{tag}")).collect();
    tags.iter().for_each(|tag| hub.tag(REPOSITORY, tag, &image.manifest));
    let mirror = Mirror::start(&hub).await;
    let paths: Vec<String> = tags.iter().map(|tag| manifest_path(REPOSITORY, tag)).collect();
    for reply in join_all(paths.iter().map(|path| mirror.get(path))).await {
        assert_eq!((reply.status, reply.digest()), (200, image.manifest));
    }
    assert_eq!(hub.counters().token, 1);
}

/// Statement 62.
#[tokio::test]
async fn a_token_is_taken_in_every_form_in_which_services_send_it() {
    type Change = fn(&mut hubsim::TokenOptions);
    let table: [(&str, Change); 7] = [
        ("without-an-end", |token| token.omit_expires_in = true),
        ("as-token", |token| token.names = TokenNames::Token),
        ("as-access-token", |token| token.names = TokenNames::AccessToken),
        ("issued-a-year-ago", |token| token.issued_at_shift = Some(-365 * 86_400)),
        ("issued-tomorrow", |token| token.issued_at_shift = Some(86_400)),
        ("issued-never", |token| token.issued_at_shift = None),
        ("of-eight-kilobytes", |token| token.padding_bytes = 8 << 10),
    ];
    let hub = Hub::start(Options::default()).await;
    let mirror = Mirror::start(&hub).await;
    for (name, change) in table {
        hub.configure(|options| {
            options.token = hubsim::TokenOptions::default();
            change(&mut options.token);
        });
        let repository = format!("library/{name}");
        let image = images::busybox(&hub, &repository, "1", images::Format::OciSingle);
        hub.reset_counters();
        let reply = mirror.get(&manifest_path(&repository, "1")).await;
        assert_eq!((reply.status, reply.digest()), (200, image.manifest), "{name}");
        assert_eq!(mirror.get(&blob_path(&repository, image.config)).await.digest(), image.config, "{name}");
        assert_eq!(hub.counters().token, 1, "{name}: one token does for both");
    }
}

/// Statement 63: nvcr.io names no service, others no scope.
#[tokio::test]
async fn a_challenge_may_leave_out_the_service_or_the_scope() {
    for (omit_service, omit_scope) in [(true, false), (false, true), (true, true)] {
        let hub = Hub::start(Options::default()).await;
        hub.configure(|options| {
            options.challenge.omit_service = omit_service;
            options.challenge.omit_scope = omit_scope;
        });
        let image = images::busybox(&hub, REPOSITORY, "3.20", images::Format::OciSingle);
        let mirror = Mirror::start(&hub).await;
        let reply = mirror.get(&manifest_path(REPOSITORY, "3.20")).await;
        assert_eq!((reply.status, reply.digest()), (200, image.manifest));
        let counters = hub.counters();
        let asked =
            counters.requests.iter().find(|seen| seen.port == "token").expect("a token was asked for");
        assert!(asked.path.contains("scope=repository:library/alpine:pull"), "{}", asked.path);
        assert_eq!(asked.path.contains("service="), !omit_service, "{}", asked.path);
    }
}

/// Statement 64: the realm in the answer to a bad token refuses everybody, as nvcr.io's does.
#[tokio::test]
async fn a_token_that_is_refused_is_replaced_by_way_of_the_original_challenge() {
    let hub = Hub::start(Options::default()).await;
    hub.configure(|options| options.challenge.realm_switch = true);
    let image = images::busybox(&hub, REPOSITORY, "3.20", images::Format::OciSingle);
    let mirror = Mirror::start_with(&hub, MirrorOptions::default().tags_never_fresh()).await;
    assert_eq!(mirror.get(&manifest_path(REPOSITORY, "3.20")).await.status, 200);
    hub.expire_tokens();
    hub.reset_counters();
    let reply = mirror.get(&manifest_path(REPOSITORY, "3.20")).await;
    assert_eq!((reply.status, reply.digest(), reply.header("warning")), (200, image.manifest, ""));
    let counters = hub.counters();
    assert_eq!((counters.token, counters.manifest_head), (1, 1), "{counters:#?}");
    let refused = counters.requests.iter().filter(|seen| seen.port == "token" && seen.status != 200).count();
    assert_eq!(refused, 0, "the realm that refuses everybody is not asked");
}

/// Statement 64: a registry that refuses every token is not asked for ever.
#[tokio::test]
async fn a_registry_that_refuses_a_fresh_token_too_has_refused() {
    let hub = Hub::start(Options::default()).await;
    images::busybox(&hub, REPOSITORY, "3.20", images::Format::OciSingle);
    hub.fault(Fault::HeadUnauthorized, Times::Always);
    hub.fault_on(Fault::Status(401, None), Times::Always, Target::kind(Kind::Manifests));
    let mirror = Mirror::start(&hub).await;
    let reply = mirror.get(&manifest_path(REPOSITORY, "3.20")).await;
    assert_eq!((reply.status, reply.error_code().as_str()), (401, "UNAUTHORIZED"));
    let asked = hub.counters().total();
    assert!(asked <= 10, "{asked} requests for one refusal");
}

/// Statement 61: tokens live shorter than the mirror does.
#[tokio::test]
async fn a_token_that_has_ended_is_renewed_once_for_all() {
    let hub = Hub::start(Options::default()).await;
    let image = images::busybox(&hub, REPOSITORY, "3.20", images::Format::OciIndex);
    let mirror = Mirror::start(&hub).await;
    assert_eq!(mirror.get(&manifest_path(REPOSITORY, "3.20")).await.digest(), image.manifest);
    hub.expire_tokens();
    hub.reset_counters();
    let paths: Vec<String> = image.blobs().map(|blob| blob_path(REPOSITORY, blob)).collect();
    for (reply, blob) in join_all(paths.iter().map(|path| mirror.get(path))).await.iter().zip(image.blobs()) {
        assert_eq!((reply.status, reply.digest()), (200, *blob));
    }
    let counters = hub.counters();
    assert_eq!(counters.token, 1, "{counters:#?}");
    assert_eq!(counters.refused_cdn_auth, 0);
}

/// Statement 62: a token of a minute is not asked for again by the next request.
#[tokio::test]
async fn a_token_is_used_until_shortly_before_its_end() {
    let hub = Hub::start(Options::default()).await;
    hub.configure(|options| options.token.lifetime = Duration::from_secs(60));
    let image = images::busybox(&hub, REPOSITORY, "3.20", images::Format::OciSingle);
    let mirror = Mirror::start_with(&hub, MirrorOptions::default().tags_never_fresh()).await;
    for _ in 0..20 {
        assert_eq!(mirror.get(&manifest_path(REPOSITORY, "3.20")).await.digest(), image.manifest);
    }
    assert_eq!(hub.counters().token, 1);
}
