//! A registry that is down, slow, or wants to be left alone.

use std::time::Duration;

use hubsim::{Fault, Kind, Target, Times};

use super::*;
use crate::upstream::{ANSWER_MAX, quota::Cost};

#[tokio::test]
async fn a_passing_failure_is_tried_again() {
    for fault in [Fault::Status(500, None), Fault::Status(503, None), Fault::Close] {
        let bench = Bench::new().await;
        bench.manifest().await.expect("nothing is wrong yet");
        bench.hub.fault(fault.clone(), Times::N(2));
        bench.manifest().await.unwrap_or_else(|error| panic!("{fault}: {error}"));
    }
}

#[tokio::test]
async fn storage_that_fails_is_tried_again_with_a_fresh_url() {
    let bench = Bench::new().await;
    bench.hub.fault_on(Fault::Status(503, None), Times::Once, Target::kind(Kind::Cdn));
    read(bench.blob(0, None).await.expect("the second try works")).await.expect("whole");
    assert_eq!(bench.hub.counters().blob_get, 2);
}

#[tokio::test]
async fn a_registry_that_is_ill_is_asked_three_times_and_then_seldom() {
    let bench = Bench::new().await;
    bench.manifest().await.expect("nothing is wrong yet");
    bench.hub.reset_counters();
    bench.hub.fault(Fault::Status(503, None), Times::Always);
    for _ in 0..50 {
        assert_eq!(kind_of(bench.manifest().await), Some(SourceErrorKind::Unavailable));
    }
    let asked = bench.hub.counters().requests.len();
    assert!(asked <= 9 + 3, "three requests of three tries, then a probe a second: {asked}");
    bench.hub.clear_faults();
    bench.clock.turn_on(Duration::from_secs(2));
    bench.manifest().await.expect("the probe finds it well");
    bench.manifest().await.expect("so do all others");
}

#[tokio::test]
async fn a_registry_that_is_down_is_found_out_quickly_and_back_at_once() {
    let bench = Bench::new().await;
    bench.manifest().await.expect("nothing is wrong yet");
    bench.hub.stop_listening().await;
    let error = bench.resolve().await.expect_err("it is down");
    assert_eq!(error.kind, SourceErrorKind::Unavailable);
    assert!(error.to_string().starts_with("docker.io: "), "{error}");
    let error = bench.resolve().await.expect_err("it is down");
    assert!(error.retry_after.is_some_and(|wait| wait <= Duration::from_secs(1)), "{error:?}");
    bench.hub.resume_listening().await;
    bench.clock.turn_on(Duration::from_secs(2));
    bench.resolve().await.expect("it is back");
}

#[tokio::test]
async fn an_answer_that_does_not_come_times_out() {
    let short = |options: &mut config::Upstream| options.answer_timeout = Duration::from_millis(100);
    let bench = Bench::with(hubsim::Options::default(), short).await;
    bench.hub.fault(Fault::Hang, Times::Always);
    assert_eq!(kind_of(bench.resolve().await), Some(SourceErrorKind::Timeout));
    assert_eq!(bench.hub.counters().requests.len(), 1, "waiting again would take too long");
    bench.hub.release();
}

#[tokio::test]
async fn a_retry_after_beyond_our_patience_is_passed_on() {
    let bench = Bench::new().await;
    bench.manifest().await.expect("nothing is wrong yet");
    bench.hub.reset_counters();
    bench.hub.fault(Fault::Status(503, Some(120)), Times::Always);
    let error = bench.manifest().await.expect_err("it is ill");
    assert_eq!(error.retry_after, Some(Duration::from_secs(120)));
    assert_eq!(bench.hub.counters().requests.len(), 1);
}

#[tokio::test]
async fn a_spent_quota_is_not_asked_again_and_heads_go_on() {
    let bench = Bench::new().await;
    bench.hub.set_quota(1);
    bench.manifest().await.expect("one is left");
    let error = bench.manifest().await.expect_err("none is left");
    assert_eq!(error.kind, SourceErrorKind::TooManyRequests);
    assert!(error.message.contains("TOOMANYREQUESTS"), "{error}");
    bench.hub.reset_counters();
    for _ in 0..20 {
        let error = bench.manifest().await.expect_err("none is left");
        assert_eq!(error.kind, SourceErrorKind::TooManyRequests);
        assert!(error.retry_after.is_some_and(|wait| wait <= Duration::from_secs(60)));
    }
    assert_eq!(bench.hub.counters().total(), 0, "nothing is asked while it is known");
    bench.resolve().await.expect("HEADs cost nothing");
    assert_eq!(kind_of(bench.resolve().await), Some(SourceErrorKind::TooManyRequests), "but are slowed down");
    read(bench.blob(0, None).await.expect("blobs cost nothing")).await.expect("whole");

    bench.hub.reset_quota();
    bench.clock.turn_on(Duration::from_secs(61));
    bench.manifest().await.expect("the window has moved");
    bench.hub.set_quota(None);
    bench.manifest().await.expect("and all is well");
}

#[tokio::test]
async fn a_refused_head_is_no_way_around_a_spent_quota() {
    let bench = Bench::new().await;
    bench.hub.set_quota(1);
    bench.manifest().await.expect("one is left");
    bench.manifest().await.expect_err("none is left");
    bench.hub.reset_counters();
    bench.hub.fault(Fault::HeadRefused, Times::Always);
    assert_eq!(kind_of(bench.resolve().await), Some(SourceErrorKind::TooManyRequests));
    assert_eq!(bench.hub.counters().manifest_get, 0);
}

#[tokio::test]
async fn a_429_for_abuse_stops_everything() {
    let bench = Bench::new().await;
    bench.manifest().await.expect("nothing is wrong yet");
    bench.hub.fault(Fault::Abuse429, Times::Once);
    assert_eq!(kind_of(bench.manifest().await), Some(SourceErrorKind::TooManyRequests));
    bench.hub.reset_counters();
    assert_eq!(kind_of(bench.manifest().await), Some(SourceErrorKind::TooManyRequests));
    assert_eq!(kind_of(bench.resolve().await), Some(SourceErrorKind::TooManyRequests));
    assert_eq!(kind_of(bench.blob(0, None).await), Some(SourceErrorKind::TooManyRequests));
    assert_eq!(bench.hub.counters().total(), 0);
}

#[tokio::test]
async fn an_account_in_the_url_is_no_configuration() {
    let ways = vec![WayOut { name: "default".into(), egress: Egress::new(&EgressOptions::default()) }];
    for url in ["https://ann:hunter2@registry.example", "ftp://registry.example", "registry.example", ""] {
        let options = config::Upstream { url: url.to_owned(), ..config::Upstream::default() };
        let upstream = Upstream::new(&options, ways.clone(), None, Metrics::new(), Clock::default());
        assert!(upstream.is_err(), "{url}");
    }
}

#[tokio::test]
async fn nobody_waits_for_a_turn_at_a_registry_that_does_not_answer() {
    let bench = Bench::with(Options::default(), |options| options.pace.requests_max = 1).await;
    let far = tokio::time::Instant::now() + ANSWER_MAX;
    let _held = bench.upstream.pace.turn(Cost::Other, far).await.expect("the first turn");
    while !bench.upstream.exits[0].fuse.is_open() {
        bench.upstream.exits[0].fuse.failed();
    }
    assert_eq!(kind_of(bench.resolve().await), Some(SourceErrorKind::Unavailable));
    assert_eq!(bench.hub.counters().manifest_head, 0);
}
