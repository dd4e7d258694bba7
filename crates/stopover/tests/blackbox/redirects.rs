//! The way to a registry's storage: redirects without credentials, and signed URLs that go bad.

use hubsim::{Fault, Hub, Kind, Options, Redirect, Target, Times};

use crate::support::{Mirror, MirrorOptions, blob_path, hub_and_mirror, noise, push_blob};

const REPOSITORY: &str = "library/redirected";
const MIB: usize = 1 << 20;

/// Statements 56 and 58.
#[tokio::test]
async fn every_kind_of_redirect_is_followed_and_credentials_stay_at_home() {
    for (redirect, status) in [
        (Redirect::Absolute, 307),
        (Redirect::Absolute, 302),
        (Redirect::Relative, 307),
        (Redirect::Nested, 302),
        (Redirect::None, 307),
    ] {
        let options = Options { redirect, redirect_status: status, ..Options::default() };
        let hub = Hub::start(options).await;
        hub.add_account("ann", "secret");
        hub.make_private(REPOSITORY);
        let mirror = Mirror::start_with(&hub, MirrorOptions::default().account("ann", "secret")).await;
        let bytes = noise(58, 200_000);
        let digest = push_blob(&hub, REPOSITORY, &bytes);
        for time in ["cold", "warm"] {
            let reply = mirror.get(&blob_path(REPOSITORY, digest)).await;
            assert_eq!((reply.status, reply.header("location")), (200, ""), "{time} {redirect:?}");
            assert!(reply.is_whole && reply.body == bytes, "{time} {redirect:?}");
            mirror.until_stored(&digest).await;
        }
        let counters = hub.counters();
        assert_eq!(counters.authorized_at("cdn").count(), 0, "{redirect:?}");
        assert_eq!((counters.refused_cdn_auth, counters.refused_cdn_signature), (0, 0), "{redirect:?}");
        assert_eq!(counters.bytes(&digest), bytes.len() as u64, "{redirect:?}");
        assert!(counters.authorized_at("registry").count() > 0, "the account is used where it belongs");
    }
}

/// Statement 58.
#[tokio::test]
async fn redirects_that_lead_nowhere_come_to_an_end() {
    let (hub, mirror) = hub_and_mirror().await;
    let digest = push_blob(&hub, REPOSITORY, &noise(580, 1000));
    for fault in [Fault::RedirectLoop, Fault::RedirectTo("ftp://127.0.0.1/x".to_owned())] {
        hub.clear_faults();
        hub.reset_counters();
        hub.fault(fault.clone(), Times::Always);
        let reply = mirror.get(&blob_path(REPOSITORY, digest)).await;
        assert_eq!(reply.status, 502, "{fault}: {}", reply.text());
        reply.error_code();
        assert!(hub.counters().total() < 50, "{fault}: {:?}", hub.counters().total());
    }
}

/// Statement 59.
#[tokio::test]
async fn storage_that_refuses_a_url_is_asked_again_by_a_new_one() {
    for fault in [Fault::Cdn403, Fault::Status(401, None)] {
        let (hub, mirror) = hub_and_mirror().await;
        let bytes = noise(59, 200_000);
        let digest = push_blob(&hub, REPOSITORY, &bytes);
        hub.fault_on(fault.clone(), Times::Once, Target::kind(Kind::Cdn));
        let reply = mirror.get(&blob_path(REPOSITORY, digest)).await;
        assert!(reply.status == 200 && reply.is_whole && reply.body == bytes, "{fault}: {}", reply.status);
        assert_eq!(hub.counters().of(&digest).blob_gets, 2, "{fault}: one more request for one more URL");
    }
}

/// Statement 59.
#[tokio::test]
async fn storage_that_refuses_every_url_is_not_asked_for_ever() {
    let (hub, mirror) = hub_and_mirror().await;
    let digest = push_blob(&hub, REPOSITORY, &noise(590, 1000));
    hub.fault(Fault::Cdn403, Times::Always);
    let reply = mirror.get(&blob_path(REPOSITORY, digest)).await;
    assert!((400..600).contains(&reply.status), "{}", reply.status);
    reply.error_code();
    let asked = hub.counters().of(&digest).blob_gets;
    assert!((2..=20).contains(&asked), "{asked} URLs were asked for");
}

/// Statement 59.
#[tokio::test]
async fn a_url_that_ends_while_the_blob_is_on_its_way_is_replaced() {
    let (hub, mirror) = hub_and_mirror().await;
    let bytes = noise(591, 3 * MIB);
    let digest = push_blob(&hub, REPOSITORY, &bytes);
    hub.fault(Fault::StallAfter(MIB as u64), Times::Once);
    let mut answer = mirror.open(&blob_path(REPOSITORY, digest), &[]).await;
    assert!(answer.read(MIB).await.expect("the beginning comes") == bytes[..MIB]);
    hub.expire_urls();
    hub.stop_listening().await;
    hub.resume_listening().await;
    let rest = answer.rest().await;
    assert!(rest.is_whole && rest.body == bytes[MIB..]);
    let counters = hub.counters();
    let resumed = counters.requests.iter().rfind(|seen| seen.port == "cdn").expect("the CDN was asked");
    assert_eq!(resumed.range.as_deref(), Some(format!("bytes={MIB}-").as_str()), "it goes on where it stood");
}
