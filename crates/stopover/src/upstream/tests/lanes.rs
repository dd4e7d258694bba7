//! Several accounts and ways out: who is asked as whom, and what happens where one of them fails.

use std::time::Duration;

use hubsim::{Fault, Options, Times};

use super::*;
use crate::{
    config::{Account, Credential, Share},
    source::LaneState,
};

fn account(name: &str, repositories: &[&str]) -> Account {
    let credential =
        Credential::Password { username: name.to_owned(), password: Secret::new(format!("{name}'s")) };
    let repositories = repositories.iter().map(|text| self::name(text)).collect();
    Account { name: name.to_owned(), credential, repositories }
}

async fn bench(accounts: &[(&str, &[&str])]) -> Bench {
    let with = |options: &mut config::Upstream| {
        options.accounts = accounts.iter().map(|(name, repositories)| account(name, repositories)).collect();
        options.quota_reserve = Share::Count(0);
    };
    let bench = Bench::with(Options::default(), with).await;
    accounts.iter().for_each(|(name, _)| bench.hub.add_account(name, &format!("{name}'s")));
    bench
}

impl Bench {
    async fn pull(&self, repository: &str) -> Result<crate::source::Told<oci::Manifest>, SourceError> {
        self.upstream.manifest(&name(repository), &tag("latest").into(), Purpose::Missing).await
    }

    async fn lane_of(&self, repository: &str) -> String {
        let told = self.pull(repository).await.unwrap_or_else(|error| panic!("{repository}: {error}"));
        told.lane.expect("there are several").to_string()
    }

    fn state_of(&self, account: &str) -> LaneState {
        let reports = self.upstream.lanes();
        reports.into_iter().find(|report| report.account == account).expect("it is configured").state
    }
}

#[tokio::test]
async fn a_spent_lane_hands_on_to_the_next_within_the_same_request() {
    let bench = bench(&[("ann", &[]), ("bob", &[])]).await;
    bench.hub.set_quota(1);
    bench.hub.set_account_quota("ann", Some(0));
    assert_eq!(bench.lane_of(REPOSITORY).await, "bob via default");
    assert_eq!(bench.state_of("ann"), LaneState::Spent);
    assert_eq!(bench.lane_of(REPOSITORY).await, "anonymous via default");
    let error = bench.pull(REPOSITORY).await.expect_err("nothing is left");
    assert_eq!(error.kind, SourceErrorKind::TooManyRequests);
    bench.hub.reset_counters();
    bench.pull(REPOSITORY).await.expect_err("nothing is left");
    assert_eq!(bench.hub.counters().total(), 0);
    read(bench.blob(0, None).await.expect("blobs cost nothing")).await.expect("whole");
}

#[tokio::test]
async fn the_first_lane_to_reset_says_when_to_come_back() {
    let bench = bench(&[("ann", &[]), ("bob", &[])]).await;
    bench.hub.set_quota(0);
    [("ann", 90), ("bob", 40), ("127.0.0.1", 70)]
        .iter()
        .for_each(|(who, seconds)| bench.hub.set_retry_after(who, *seconds));
    for _ in 0..2 {
        let error = bench.pull(REPOSITORY).await.expect_err("nothing is left");
        let wait = error.retry_after.expect("it is known").as_secs();
        assert!((38..=40).contains(&wait), "{wait}");
    }
    assert_eq!(bench.hub.counters().throttled, 3);
    bench.hub.set_quota(100);
    bench.clock.turn_on(Duration::from_secs(41));
    assert_eq!(bench.lane_of(REPOSITORY).await, "bob via default");
}

#[tokio::test]
async fn a_head_finds_out_that_there_is_more_and_gets_go_on() {
    let bench = bench(&[("ann", &[])]).await;
    bench.hub.set_quota(0);
    bench.hub.configure(|options| options.retry_after = Some(3_600));
    bench.pull(REPOSITORY).await.expect_err("nothing is left");
    bench.hub.set_quota(5);
    bench.resolve().await.expect("HEADs are free");
    bench.pull(REPOSITORY).await.expect("the HEAD said so");
}

#[tokio::test]
async fn when_a_lane_may_be_tried_again_one_finds_out_and_the_others_wait_for_it() {
    let bench = bench(&[("ann", &[])]).await;
    bench.hub.set_quota(0);
    bench.hub.configure(|options| options.retry_after = Some(30));
    bench.pull(REPOSITORY).await.expect_err("nothing is left");
    bench.hub.set_quota(100);
    bench.clock.turn_on(Duration::from_secs(31));
    bench.hub.configure(|options| options.latency = Duration::from_millis(50));
    let pulls = futures_util::future::join_all((0..20).map(|_| bench.pull(REPOSITORY))).await;
    assert!(pulls.iter().all(Result::is_ok));
}

#[tokio::test]
async fn a_429_of_the_storage_says_nothing_of_the_lanes() {
    let bench = bench(&[("ann", &[]), ("bob", &[])]).await;
    bench.hub.fault_on(Fault::Status(429, Some(90)), Times::Always, hubsim::Target::kind(hubsim::Kind::Cdn));
    assert_eq!(kind_of(bench.blob(0, None).await), Some(SourceErrorKind::TooManyRequests));
    assert_eq!(bench.hub.counters().blob_get, 1);
    assert_eq!(bench.state_of("ann"), LaneState::Open);
}

#[tokio::test]
async fn a_private_repository_is_found_by_whoever_sees_it_and_that_is_remembered() {
    let bench = bench(&[("ann", &[]), ("bob", &[]), ("cid", &[])]).await;
    images::busybox(&bench.hub, "bob/secret", "latest", images::Format::OciSingle);
    bench.hub.make_private_to("bob/secret", "bob");
    assert_eq!(bench.lane_of("bob/secret").await, "bob via default");
    bench.hub.reset_counters();
    assert_eq!(bench.lane_of("bob/secret").await, "bob via default");
    let counters = bench.hub.counters();
    assert_eq!((counters.manifest_get, counters.token, counters.challenged), (1, 0, 0), "{counters:#?}");
}

#[tokio::test]
async fn what_nobody_sees_is_refused_and_not_asked_for_by_all_each_time() {
    let bench = bench(&[("ann", &[]), ("bob", &[])]).await;
    assert_eq!(kind_of(bench.pull("no/such").await), Some(SourceErrorKind::Unauthorized));
    bench.hub.reset_counters();
    assert_eq!(kind_of(bench.pull("no/such").await), Some(SourceErrorKind::Unauthorized));
    let counters = bench.hub.counters();
    assert!(counters.total() <= 6, "one holder finds out: {counters:#?}");
    bench.lane_of(REPOSITORY).await;
    assert!(["ann", "bob"].iter().all(|name| bench.state_of(name) == LaneState::Open));
}

#[tokio::test]
async fn a_404_to_nobody_is_asked_about_again_with_an_account() {
    let bench = bench(&[("ann", &[])]).await;
    bench.hub.configure(|options| options.unknown_is_404 = true);
    bench.hub.set_account_quota("ann", Some(0));
    bench.pull(REPOSITORY).await.expect("by nobody");
    bench.hub.set_account_quota("ann", None);
    bench.clock.turn_on(Duration::from_secs(100));
    bench.hub.reset_counters();
    let missing = tag("missing").into();
    let answer = bench.upstream.manifest(&bench.repository(), &missing, Purpose::Missing).await;
    assert_eq!(kind_of(answer), Some(SourceErrorKind::NotFound));
    assert!(bench.hub.counters().manifest_get <= 2);
}

#[tokio::test]
async fn an_account_with_a_wrong_password_is_left_out_and_logs_in_once() {
    let bench = bench(&[("ann", &[]), ("bob", &[])]).await;
    bench.hub.set_quota(100);
    bench.hub.add_account("ann", "another");
    for n in 0..20 {
        let repository = format!("library/r{n}");
        images::busybox(&bench.hub, &repository, "latest", images::Format::OciSingle);
        let lane = bench.lane_of(&repository).await;
        assert!(!lane.starts_with("ann"), "{lane}");
    }
    assert_eq!(bench.state_of("ann"), LaneState::LoggedOut);
    let counters = bench.hub.counters();
    let refused = counters.requests.iter().filter(|seen| seen.port == "token" && seen.status == 401).count();
    assert_eq!(refused, 1);
    let text = bench.metrics.encode();
    let line = r#"stopover_lane_failures_total{registry="docker.io",account="ann",reason="login"} 1"#;
    assert!(text.contains(line), "{text}");

    bench.hub.add_account("ann", "ann's");
    bench.clock.turn_on(Duration::from_secs(61));
    assert_eq!(bench.lane_of(REPOSITORY).await, "ann via default", "200 are left, of the others less");
    assert_eq!(bench.state_of("ann"), LaneState::Open);
}

#[tokio::test]
async fn an_account_whose_password_is_mended_is_used_at_once() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let file = folder.path().join("password");
    std::fs::write(&file, "wrong").expect("the folder is writable");
    let credential = Credential::PasswordFile { username: "ann".to_owned(), file: file.clone() };
    let of_file = |options: &mut config::Upstream| {
        options.accounts = vec![Account { name: "ann".to_owned(), credential, repositories: Vec::new() }];
    };
    let bench = Bench::with(Options::default(), of_file).await;
    bench.hub.add_account("ann", "right");
    bench.hub.make_private_to(REPOSITORY, "ann");
    for _ in 0..3 {
        assert_eq!(kind_of(bench.pull(REPOSITORY).await), Some(SourceErrorKind::Unauthorized));
    }
    assert_eq!(bench.state_of("ann"), LaneState::LoggedOut);
    std::fs::write(&file, "right").expect("the folder is writable");
    assert_eq!(bench.lane_of(REPOSITORY).await, "ann via default");
    assert_eq!(bench.state_of("ann"), LaneState::Open);
}

#[tokio::test]
async fn an_account_that_nothing_proves_now_is_left_out_and_nobody_asks_in_its_name() {
    for auth in [hubsim::Auth::Bearer, hubsim::Auth::Basic] {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let file = folder.path().join("password");
        let credential = Credential::PasswordFile { username: "acme".to_owned(), file: file.clone() };
        let of_file = |options: &mut config::Upstream| {
            let repositories = vec![name("acme")];
            options.accounts = vec![Account { name: "acme".to_owned(), credential, repositories }];
        };
        let bench = Bench::with(Options { auth, ..Options::default() }, of_file).await;
        bench.hub.add_account("acme", "right");
        images::busybox(&bench.hub, "acme/app", "latest", images::Format::OciIndex);
        for _ in 0..3 {
            assert_eq!(kind_of(bench.pull("acme/app").await), Some(SourceErrorKind::Unauthorized));
        }
        let counters = bench.hub.counters();
        assert_eq!((counters.token, counters.manifest_get), (0, 0), "{counters:#?}");
        assert_eq!(bench.state_of("acme"), LaneState::LoggedOut);
        std::fs::write(&file, "right").expect("the folder is writable");
        assert_eq!(bench.lane_of("acme/app").await, "acme via default");
    }
}

#[tokio::test]
async fn an_account_is_for_its_repositories_alone_and_they_for_it() {
    let bench = bench(&[("acme", &["acme"])]).await;
    for repository in ["acme/app", "acme/deep/app", "acmes/app", "library/x"] {
        images::busybox(&bench.hub, repository, "latest", images::Format::OciSingle);
        let want = if repository.starts_with("acme/") { "acme via default" } else { "anonymous via default" };
        assert_eq!(bench.lane_of(repository).await, want, "{repository}");
    }
    bench.hub.set_account_quota("acme", Some(0));
    assert_eq!(kind_of(bench.pull("acme/app").await), Some(SourceErrorKind::TooManyRequests));

    let bench = self::bench(&[("acme", &["acme"])]).await;
    images::busybox(&bench.hub, "acme/app", "latest", images::Format::OciSingle);
    bench.hub.add_account("acme", "another");
    bench.hub.reset_counters();
    for _ in 0..3 {
        assert_eq!(kind_of(bench.pull("acme/app").await), Some(SourceErrorKind::Unauthorized));
    }
    let nobodys = bench.hub.counters().requests;
    let nobodys = nobodys.iter().filter(|seen| seen.port == "token" && seen.authorization.is_none());
    assert_eq!(nobodys.count(), 0, "nobody is never asked for what is acme's");
}

#[tokio::test]
async fn a_way_out_that_leads_nowhere_costs_no_pull() {
    let hub = Hub::start(Options::default()).await;
    images::busybox(&hub, REPOSITORY, "latest", images::Format::OciIndex);
    let way = |name: &str, proxies| WayOut {
        name: name.into(),
        egress: Egress::new(&EgressOptions { proxies, ..EgressOptions::default() }),
    };
    // Nothing listens there.
    let dead = Proxies::Through("http://127.0.0.1:1".to_owned());
    let ways = vec![way("dead", dead), way("good", Proxies::Direct)];
    let options = config::Upstream { url: hub.registry_url(), ..config::Upstream::default() };
    let upstream =
        Upstream::new(&options, ways, None, Metrics::new(), Clock::default()).expect("the URL is right");
    for _ in 0..20 {
        let told = upstream.manifest(&name(REPOSITORY), &tag("latest").into(), Purpose::Missing).await;
        let told = told.expect("the other way works");
        assert_eq!(told.lane.as_deref(), Some("anonymous via good"));
    }
    assert_eq!(hub.counters().token, 1);
}

#[tokio::test]
async fn a_429_for_abuse_that_comes_by_every_way_is_told() {
    let bench = bench(&[("ann", &[])]).await;
    bench.hub.fault(Fault::Abuse429, Times::Always);
    let error = bench.pull(REPOSITORY).await.expect_err("too many");
    assert_eq!(error.kind, SourceErrorKind::TooManyRequests);
    assert_eq!(bench.state_of("ann"), LaneState::Resting);
    assert_eq!(bench.hub.counters().throttled, 1);
}

#[tokio::test]
async fn what_can_be_done_without_spends_nothing_of_the_reserve() {
    let bench = bench(&[]).await;
    bench.hub.set_quota(2);
    let with_reserve = |options: &mut config::Upstream| options.quota_reserve = Share::Percent(50);
    let upstream = client(&bench.hub, &bench.clock, &bench.metrics, with_reserve);
    let get = async |purpose| upstream.manifest(&name(REPOSITORY), &tag("latest").into(), purpose).await;
    get(Purpose::Refresh).await.expect("there is enough");
    assert_eq!(upstream.thrift(&name(REPOSITORY)), crate::source::Thrift::Low);
    assert_eq!(kind_of(get(Purpose::Refresh).await), Some(SourceErrorKind::TooManyRequests));
    get(Purpose::Missing).await.expect("for this it was kept");
    assert_eq!(bench.hub.counters().throttled, 0);
}
