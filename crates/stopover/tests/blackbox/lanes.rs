//! Several accounts and several ways out: each lane's quota is spent evenly and to its end, and what is cached needs none.

use futures_util::{StreamExt, stream};
use hubsim::{Fault, Hub, Options, Target, Times};
use oci::{Digest, OCI_MANIFEST};
use serde_json::{Value, json};

use crate::{
    rig::{assert_error, assert_stale, eventually},
    support::{Mirror, MirrorOptions, Reply, manifest_path},
};

/// Two addresses of loopback, which the Hub counts apart.
const EGRESSES: [(&str, &str); 2] = [("ONE", "127.0.0.2"), ("TWO", "127.0.0.3")];
const CLIENTS: usize = 16;

fn options(accounts: &[&str], egresses: &[(&str, &str)]) -> MirrorOptions {
    let mut options = MirrorOptions::default().tags_never_fresh();
    for name in accounts {
        let key = |key: &str| format!("STOPOVER_UPSTREAM__ACCOUNTS__{}__{key}", name.to_uppercase());
        options = options.env(&key("USERNAME"), name).env(&key("PASSWORD"), format!("{name}'s"));
    }
    for (name, address) in egresses {
        options = options.env(&format!("STOPOVER_EGRESSES__{name}__ADDRESS"), address);
    }
    options
}

async fn hub(accounts: &[&str], quota: u32) -> Hub {
    let hub = Hub::start(Options { quota: Some(quota), ..Options::default() }).await;
    accounts.iter().for_each(|name| hub.add_account(name, &format!("{name}'s")));
    hub
}

/// Gives the Hub an image that is one small manifest.
fn push(hub: &Hub, repository: &str, seed: usize) -> Digest {
    let config = hub.push_blob(b"{}".to_vec());
    hub.link_blob(repository, &config);
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": { "mediaType": "application/vnd.oci.empty.v1+json", "digest": config, "size": 2 },
        "layers": [],
        "annotations": { "seed": seed.to_string() },
    });
    hub.push_manifest(repository, OCI_MANIFEST, manifest.to_string(), &["1"])
}

fn push_many(hub: &Hub, from: usize, to: usize) -> Vec<String> {
    let repository = |n: usize| format!("library/image-{n}");
    (from..to)
        .map(|n| {
            push(hub, &repository(n), n);
            manifest_path(&repository(n), "1")
        })
        .collect()
}

/// Pulls all of them, by many clients at once.
async fn pull(mirror: &Mirror, paths: &[String]) -> Vec<Reply> {
    stream::iter(paths).map(|path| mirror.get(path)).buffer_unordered(CLIENTS).collect().await
}

fn assert_all_are_there(what: &str, replies: &[Reply]) {
    let failed = replies.iter().find(|reply| reply.status != 200);
    assert!(failed.is_none(), "{what}: {failed:?}");
}

/// The issue's own figures: three accounts and two ways out with a hundred each are five hundred images.
#[tokio::test]
async fn five_lanes_of_a_hundred_give_five_hundred_cold_images_and_are_spent_alike() {
    const ACCOUNTS: [&str; 3] = ["ann", "bob", "cid"];
    let hub = hub(&ACCOUNTS, 100).await;
    let mirror = Mirror::start_with(&hub, options(&ACCOUNTS, &EGRESSES)).await;
    let counts = |hub: &Hub| ["ann", "bob", "cid", "127.0.0.2", "127.0.0.3"].map(|lane| hub.quota_used(lane));
    for (from, to) in [(0, 250), (250, 500)] {
        let paths = push_many(&hub, from, to);
        assert_all_are_there("a cold image", &pull(&mirror, &paths).await);
        let counts = counts(&hub);
        let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
        assert_eq!(counts.iter().sum::<u32>() as usize, to, "{counts:?}");
        assert!(f64::from(*most) <= f64::from(*least) * 1.1, "{counts:?}");
    }
    assert_eq!(counts(&hub), [100; 5]);
    let counters = hub.counters();
    assert_eq!(counters.manifest_get - counters.throttled, 500);
    assert!(counters.throttled <= 5, "hardly any GET is sent in vain: {}", counters.throttled);
    assert!(counters.token < 500 * 2, "a HEAD and its GET go by the same token, mostly: {}", counters.token);

    let extra = push_many(&hub, 500, 501);
    assert_error("one more", &mirror.get(&extra[0]).await, 429, "TOOMANYREQUESTS");
}

/// The issue's own figures: with nothing left, a thousand pulls of what is cached.
#[tokio::test]
async fn with_all_lanes_spent_what_is_cached_is_pulled_and_the_rest_goes_on_when_the_first_resets() {
    const ACCOUNTS: [&str; 2] = ["ann", "bob"];
    let hub = hub(&ACCOUNTS, 4).await;
    for (who, seconds) in [("ann", 3_000), ("bob", 6), ("127.0.0.2", 40), ("127.0.0.3", 3_600)] {
        hub.set_retry_after(who, seconds);
    }
    let reserve = options(&ACCOUNTS, &EGRESSES).env("STOPOVER_UPSTREAM__QUOTA_RESERVE", "0");
    let mirror = Mirror::start_with(&hub, reserve).await;
    let cached = push_many(&hub, 0, 16);
    assert_all_are_there("a cold image", &pull(&mirror, &cached).await);
    let new = push_many(&hub, 16, 18);
    let reply = mirror.get(&new[0]).await;
    assert_error("an image that is not cached", &reply, 429, "TOOMANYREQUESTS");
    let wait: u64 = reply.header("retry-after").parse().expect("a number of seconds");
    assert!((1..=6).contains(&wait), "bob's is the first to reset: {wait}");

    let before = hub.counters();
    let thousand: Vec<String> = cached.iter().cycle().take(1_000).cloned().collect();
    assert_all_are_there("a cached image", &pull(&mirror, &thousand).await);
    assert_eq!(hub.counters().manifest_get, before.manifest_get, "HEADs alone are asked");

    hub.fault(Fault::TooManyRequests(None), Times::Always);
    assert_all_are_there("a cached image, and no HEAD either", &pull(&mirror, &thousand).await);
    hub.clear_faults();

    // A tag that has moved is as it was, whether it is asked for by HEAD and digest, as docker does, or by GET.
    let old = mirror.get(&cached[0]).await.digest();
    push(&hub, "library/image-0", 1_000);
    assert_stale("a tag that has moved", &mirror.get(&cached[0]).await, &old);
    let head = mirror.head(&cached[0]).await;
    assert_eq!((head.status, head.header("docker-content-digest")), (200, &*old.to_string()));

    hub.reset_quota_of("bob");
    eventually("bob's quota is there again", async || {
        (mirror.get(&new[0]).await.status == 200).then_some(())
    })
    .await;
    assert_eq!(hub.quota_used("bob"), 1);
}

/// A HEAD is free, and says when there is more than the 429 promised.
#[tokio::test]
async fn a_check_of_a_tag_finds_out_that_a_lane_has_more() {
    let hub = hub(&["ann"], 1).await;
    hub.configure(|options| options.retry_after = Some(3_600));
    let mirror = Mirror::start_with(&hub, options(&["ann"], &[])).await;
    let cached = push_many(&hub, 0, 2);
    assert_all_are_there("a cold image", &pull(&mirror, &cached).await);
    let new = push_many(&hub, 2, 3);
    assert_eq!(mirror.get(&new[0]).await.status, 429);
    hub.reset_quota_of("ann");
    eventually("a HEAD says so", async || {
        assert_eq!(mirror.get(&cached[0]).await.status, 200);
        (mirror.get(&new[0]).await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_429_for_abuse_rests_the_address_and_the_accounts_go_on_by_the_other() {
    let hub = hub(&["ann"], 100).await;
    let one = EGRESSES[0].1.parse().expect("an address");
    hub.fault_on(Fault::Abuse429, Times::Always, Target::peer(one));
    let mirror = Mirror::start_with(&hub, options(&["ann"], &EGRESSES)).await;
    let paths = push_many(&hub, 0, 60);
    assert_all_are_there("a cold image", &pull(&mirror, &paths).await);
    assert!(hub.quota_used("ann") > 10 && hub.quota_used("127.0.0.3") > 10);
    assert_eq!(hub.quota_used("127.0.0.2"), 0);
    let counters = hub.counters();
    assert!(counters.throttled as usize <= 2 * CLIENTS, "{}", counters.throttled);
    let state = |state: &str| {
        let lane = ["registry=\"docker.io\"", "egress=\"one\""].map(str::to_owned);
        [vec![format!("state=\"{state}\"")], lane.to_vec()].concat()
    };
    for (word, value) in [("resting", 1.0), ("open", 0.0)] {
        let labels = state(word);
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        assert_eq!(mirror.metric("stopover_lane_state", &labels).await, value, "{word}");
    }
}

#[tokio::test]
async fn an_account_with_a_wrong_password_is_reported_once_and_left_out() {
    const ACCOUNTS: [&str; 3] = ["ann", "bob", "cid"];
    let hub = hub(&ACCOUNTS, 100).await;
    hub.add_account("cid", "another");
    let mirror = Mirror::start_with(&hub, options(&ACCOUNTS, &[])).await;
    let paths = push_many(&hub, 0, 60);
    assert_all_are_there("a cold image", &pull(&mirror, &paths).await);
    let logins = hub.counters();
    let refused = logins.requests.iter().filter(|seen| seen.port == "token" && seen.status == 401).count();
    assert!((1..=CLIENTS).contains(&refused), "those that were under way at once, and no more: {refused}");
    let said: Vec<Value> = mirror.log_lines();
    let said: Vec<&Value> = said.iter().filter(|line| line["msg"] == "the account does not get in").collect();
    assert_eq!(said.len(), 1, "{said:?}");
    assert_eq!((&said[0]["level"], &said[0]["account"]), (&json!("error"), &json!("cid")));
    assert!(!said[0].to_string().contains("cid's"), "no password is shown: {}", said[0]);
    let labels = ["account=\"cid\"", "state=\"logged_out\""];
    assert_eq!(mirror.metric("stopover_lane_state", &labels).await, 1.0);
    assert!(mirror.metric("stopover_lane_failures_total", &["account=\"cid\""]).await >= 1.0);

    assert_all_are_there("again", &pull(&mirror, &push_many(&hub, 60, 120)).await);
    let later = hub.counters();
    let again = later.requests.iter().filter(|seen| seen.port == "token" && seen.status == 401).count();
    assert_eq!(again, refused, "it is not tried with each pull");
}

#[tokio::test]
async fn an_account_for_some_repositories_is_used_for_those_and_nothing_else_is() {
    let hub = hub(&["acme", "ann"], 100).await;
    let scoped =
        options(&["acme", "ann"], &EGRESSES).env("STOPOVER_UPSTREAM__ACCOUNTS__ACME__REPOSITORIES", "acme");
    let mirror = Mirror::start_with(&hub, scoped).await;
    let repositories: Vec<String> = (0..20)
        .flat_map(|n| [format!("acme/app-{n}"), format!("acmes/app-{n}"), format!("library/app-{n}")])
        .collect();
    let paths: Vec<String> = repositories
        .iter()
        .enumerate()
        .map(|(seed, repository)| {
            push(&hub, repository, seed);
            manifest_path(repository, "1")
        })
        .collect();
    assert_all_are_there("a cold image", &pull(&mirror, &paths).await);
    let others = ["ann", "127.0.0.2", "127.0.0.3"].map(|lane| hub.quota_used(lane));
    assert_eq!((hub.quota_used("acme"), others.iter().sum::<u32>()), (20, 40), "{others:?}");
    let counters = hub.counters();
    let tokens = counters.requests.iter().filter(|seen| seen.port == "token");
    for seen in tokens.filter(|seen| seen.path.contains("repository:acme/")) {
        assert_eq!(seen.authorization.as_deref(), Some("Basic"), "{}", seen.path);
    }
}

#[tokio::test]
async fn the_reserve_is_for_what_is_not_cached() {
    let hub = hub(&[], 10).await;
    let mirror =
        Mirror::start_with(&hub, options(&[], &[]).env("STOPOVER_UPSTREAM__QUOTA_RESERVE", "50%")).await;
    let paths = push_many(&hub, 0, 4);
    assert_all_are_there("a cold image", &pull(&mirror, &paths).await);
    let old = mirror.get(&paths[0]).await.digest();
    let moved = push(&hub, "library/image-0", 1_000);
    assert_eq!(mirror.get(&paths[0]).await.digest(), moved, "six are left, and that is enough");
    push(&hub, "library/image-0", 1_001);
    assert_stale("five are left", &mirror.get(&paths[0]).await, &moved);
    let head = mirror.head(&paths[0]).await;
    assert_eq!(head.header("docker-content-digest"), moved.to_string());
    assert_ne!(moved, old);
    assert_eq!(hub.quota_used("127.0.0.1"), 5);
    assert_all_are_there("what is not cached may spend", &pull(&mirror, &push_many(&hub, 4, 9)).await);
    assert_eq!(hub.quota_used("127.0.0.1"), 10);
}
