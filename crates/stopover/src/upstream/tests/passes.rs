//! Tokens and accounts: who is asked for one, how often, and who never sees one.

use std::time::Duration;

use futures_util::future::join_all;
use hubsim::{Auth, ChallengeOptions, Fault, Options, Times, TokenNames, TokenOptions};

use super::*;

#[tokio::test]
async fn a_hundred_who_pull_a_cold_repository_share_one_token() {
    let bench = Bench::new().await;
    let answers = join_all((0..100).map(|_| bench.resolve())).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(bench.hub.counters().token, 1);
}

#[tokio::test]
async fn the_next_repository_needs_a_token_and_no_challenge() {
    let bench = Bench::new().await;
    images::busybox(&bench.hub, "library/other", "latest", images::Format::OciSingle);
    bench.manifest().await.expect("it is there");
    bench
        .upstream
        .manifest(&name("library/other"), &tag("latest").into(), Purpose::Missing)
        .await
        .expect("it is there");
    let counters = bench.hub.counters();
    assert_eq!((counters.challenged, counters.token), (1, 2));
}

#[tokio::test]
async fn a_token_is_renewed_before_it_ends_and_when_it_is_refused() {
    let bench = Bench::new().await;
    bench.manifest().await.expect("it is there");
    bench.clock.turn_on(Duration::from_secs(200));
    bench.manifest().await.expect("it is there");
    assert_eq!(bench.hub.counters().token, 1);
    bench.clock.turn_on(Duration::from_secs(60));
    bench.manifest().await.expect("it is there");
    assert_eq!(
        (bench.hub.counters().token, bench.hub.counters().challenged),
        (2, 1),
        "renewed with 40 s to go"
    );
    bench.hub.expire_tokens();
    bench.manifest().await.expect("it is there");
    let counters = bench.hub.counters();
    assert_eq!((counters.token, counters.challenged), (3, 3), "a 401 to the token, a 401 to none");
}

#[tokio::test]
async fn a_token_serves_to_its_end_where_its_service_is_down() {
    let bench = Bench::new().await;
    bench.manifest().await.expect("it is there");
    bench.hub.fault(Fault::TokenDown, Times::Always);
    bench.clock.turn_on(Duration::from_secs(270));
    bench.manifest().await.expect("the token holds for 30 s more");
    bench.clock.turn_on(Duration::from_secs(60));
    assert_eq!(kind_of(bench.manifest().await), Some(SourceErrorKind::Unavailable));
}

#[tokio::test]
async fn every_shape_of_token_and_challenge_works() {
    let token = TokenOptions::default;
    let challenge = ChallengeOptions::default;
    for (token, challenge) in [
        (TokenOptions { names: TokenNames::Token, ..token() }, challenge()),
        (TokenOptions { names: TokenNames::AccessToken, ..token() }, challenge()),
        (TokenOptions { omit_expires_in: true, issued_at_shift: None, ..token() }, challenge()),
        (TokenOptions { issued_at_shift: Some(-7200), ..token() }, challenge()),
        (TokenOptions { issued_at_shift: Some(7200), ..token() }, challenge()),
        (token(), ChallengeOptions { omit_service: true, ..challenge() }),
        (token(), ChallengeOptions { omit_scope: true, ..challenge() }),
    ] {
        let case = format!("{token:?} {challenge:?}");
        let bench = Bench::with(Options { token, challenge, ..Options::default() }, |_| {}).await;
        bench.manifest().await.expect(&case);
        bench.manifest().await.expect(&case);
        assert_eq!(bench.hub.counters().token, 1, "{case}");
    }
}

#[tokio::test]
async fn a_challenge_to_a_bad_token_is_not_believed() {
    let challenge = ChallengeOptions { realm_switch: true, ..ChallengeOptions::default() };
    let bench = Bench::with(Options { challenge, ..Options::default() }, |_| {}).await;
    bench.manifest().await.expect("it is there");
    bench.hub.expire_tokens();
    bench.manifest().await.expect("the way is asked for without a token");
}

#[tokio::test]
async fn a_token_that_is_never_accepted_is_not_asked_for_for_ever() {
    let bench = Bench::new().await;
    bench.hub.make_private(REPOSITORY);
    assert_eq!(kind_of(bench.manifest().await), Some(SourceErrorKind::Unauthorized));
    assert!(bench.hub.counters().token <= 2);
}

#[tokio::test]
async fn a_token_service_that_refuses_a_private_repository_is_asked_once_in_a_while() {
    for (status, kind) in [(401, SourceErrorKind::Unauthorized), (403, SourceErrorKind::Denied)] {
        let token = TokenOptions { refuses_with: Some(status), ..TokenOptions::default() };
        let bench = Bench::with(Options { token, ..Options::default() }, |_| {}).await;
        bench.hub.make_private(REPOSITORY);
        for _ in 0..5 {
            assert_eq!(kind_of(bench.manifest().await), Some(kind));
        }
        assert_eq!(bench.hub.counters().token, 1);
        bench.clock.turn_on(Duration::from_secs(6));
        bench.hub.make_public(REPOSITORY);
        bench.manifest().await.expect("a refusal is forgotten soon");
    }
}

#[tokio::test]
async fn trouble_of_the_token_service_is_told_apart() {
    for (fault, kind) in
        [(Fault::TokenDown, SourceErrorKind::Unavailable), (Fault::TokenGarbage, SourceErrorKind::BadAnswer)]
    {
        let bench = Bench::new().await;
        bench.hub.fault(fault.clone(), Times::Always);
        assert_eq!(kind_of(bench.manifest().await), Some(kind), "{fault}");
    }
    let bench = Bench::new().await;
    bench.hub.fault_on(
        Fault::TooManyRequests(Some(7)),
        Times::Always,
        hubsim::Target::kind(hubsim::Kind::Token),
    );
    for _ in 0..3 {
        let error = bench.manifest().await.expect_err("the token service throttles");
        assert_eq!(error.kind, SourceErrorKind::TooManyRequests);
        assert!(error.retry_after.is_some_and(|wait| wait <= Duration::from_secs(7)));
    }
    assert_eq!(bench.hub.counters().throttled, 1, "it is left alone as long as it said");
    bench.clock.turn_on(Duration::from_secs(8));
    bench.hub.clear_faults();
    bench.manifest().await.expect("the throttle has ended");
}

#[tokio::test]
async fn an_account_opens_private_repositories_and_goes_to_the_token_service_alone() {
    let bench = Bench::with(Options { token_port_apart: true, ..Options::default() }, |options| {
        with_account(options);
        options.realms = vec![];
    })
    .await;
    bench.hub.add_account("ann", "hunter2");
    bench.hub.make_private_to(REPOSITORY, "ann");
    let error = bench.manifest().await.expect_err("the token service is another site");
    assert_eq!(error.kind, SourceErrorKind::Refused);
    assert!(error.message.contains("`upstream.realms`") && !error.message.contains("hunter2"), "{error}");
    assert_eq!(bench.hub.counters().token, 0, "it was not even asked");

    let token_host = bench.hub.token_url().replace("http://", "").replace("/token", "");
    let upstream = client(&bench.hub, &bench.clock, &bench.metrics, |options| {
        with_account(options);
        options.realms = vec![token_host];
    });
    upstream.manifest(&bench.repository(), &tag("latest").into(), Purpose::Missing).await.expect("ann may");
    read(upstream.blob(&bench.repository(), bench.layer(), 0, None).await.expect("ann may"))
        .await
        .expect("whole");
    let counters = bench.hub.counters();
    assert_eq!((counters.token, counters.token_basic), (1, 1));
    assert_eq!(counters.authorized_at("cdn").count(), 0);
    let at_registry: Vec<_> =
        counters.authorized_at("registry").filter_map(|seen| seen.authorization.clone()).collect();
    assert!(
        !at_registry.is_empty() && at_registry.iter().all(|scheme| scheme == "Bearer"),
        "{at_registry:?}"
    );
}

#[tokio::test]
async fn a_hostile_realm_gets_no_account_and_anybody_gets_a_token_from_it() {
    let hostile = Hub::start(Options { token_port_apart: true, ..Options::default() }).await;
    let challenge = ChallengeOptions { realm: Some(hostile.token_url()), ..ChallengeOptions::default() };
    let bench = Bench::with(Options { challenge, ..Options::default() }, with_account).await;
    bench.hub.add_account("ann", "hunter2");
    assert_eq!(kind_of(bench.manifest().await), Some(SourceErrorKind::Refused));
    assert_eq!(hostile.counters().total(), 0);
    let anybody = client(&bench.hub, &bench.clock, &bench.metrics, |_| {});
    let answer = anybody.manifest(&bench.repository(), &tag("latest").into(), Purpose::Missing).await;
    assert_eq!(kind_of(answer), Some(SourceErrorKind::Unauthorized), "the registry takes no foreign token");
    assert_eq!((hostile.counters().token_basic, hostile.counters().token > 0), (0, true));
}

#[tokio::test]
async fn a_registry_that_wants_basic_gets_the_account_and_storage_does_not() {
    let bench = Bench::with(Options { auth: Auth::Basic, ..Options::default() }, with_account).await;
    bench.hub.add_account("ann", "hunter2");
    bench.hub.make_private_to(REPOSITORY, "ann");
    bench.manifest().await.expect("ann may");
    bench.manifest().await.expect("ann may");
    read(bench.blob(0, None).await.expect("ann may")).await.expect("whole");
    let counters = bench.hub.counters();
    assert_eq!((counters.challenged, counters.token), (1, 0));
    assert_eq!(counters.authorized_at("cdn").count(), 0);
    let anybody = client(&bench.hub, &bench.clock, &bench.metrics, |_| {});
    let answer = anybody.manifest(&bench.repository(), &tag("latest").into(), Purpose::Missing).await;
    assert_eq!(kind_of(answer), Some(SourceErrorKind::Unauthorized));
}

#[tokio::test]
async fn an_open_registry_is_asked_for_no_token() {
    let bench = Bench::with(Options { auth: Auth::Open, ..Options::default() }, with_account).await;
    bench.manifest().await.expect("it is there");
    assert_eq!(bench.hub.counters().authorized_at("registry").count(), 0);
}

#[tokio::test]
async fn a_401_that_says_not_how_is_final() {
    let bench = Bench::new().await;
    bench.hub.fault(Fault::NoWwwAuthenticate, Times::Always);
    assert_eq!(kind_of(bench.manifest().await), Some(SourceErrorKind::Unauthorized));
    assert!(bench.hub.counters().total() <= 2);
}
