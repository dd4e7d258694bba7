//! The ways out that the configuration names: an address of this machine, a proxy of HTTP or SOCKS, several of them.

use std::time::Duration;

use futures_util::future::join_all;
use hubsim::{Hub, Options, images};

use crate::{
    rig::{assert_error, program::run, proxy::ForwardProxy, socks::SocksProxy},
    support::{Mirror, MirrorOptions, blob_path, manifest_path},
};

const REPOSITORY: &str = "library/alpine";
const EGRESSES: &str = "STOPOVER_UPSTREAM__EGRESSES";

/// Returns options that an explicit way out must make no difference to.
fn by(egresses: &str) -> MirrorOptions {
    let options = MirrorOptions::default().env(EGRESSES, egresses);
    options.env("ALL_PROXY", "http://127.0.0.1:1").env("NO_PROXY", "*")
}

async fn pull(mirror: &Mirror, image: &images::Image) {
    let reply = mirror.get(&manifest_path(REPOSITORY, "1")).await;
    assert_eq!((reply.status, reply.digest()), (200, image.manifest), "{}", reply.text());
    for blob in image.blobs() {
        assert_eq!(mirror.get(&blob_path(REPOSITORY, blob)).await.digest(), *blob);
    }
}

/// Registry, token service and CDN alike, whatever the environment says.
#[tokio::test]
async fn a_named_proxy_carries_everything() {
    let hub = Hub::start(Options::default()).await;
    let image = images::busybox(&hub, REPOSITORY, "1", images::Format::OciSingle);
    let proxy = ForwardProxy::start().await;
    let url = proxy.url().replace("http://", "http://clerk:pr0xy-w0rd@");
    let mirror = Mirror::start_with(&hub, by(&url)).await;
    pull(&mirror, &image).await;
    assert_eq!(proxy.heads().len() as u64, hub.counters().total(), "nothing goes past the proxy");
    assert!(!format!("{:?}{}", mirror.log_lines(), mirror.metrics().await).contains("pr0xy-w0rd"));
}

#[tokio::test]
async fn a_socks_proxy_carries_everything_and_resolves_names() {
    for scheme in ["socks5", "socks5h"] {
        let hub = Hub::start(Options::default()).await;
        let image = images::busybox(&hub, REPOSITORY, "1", images::Format::OciSingle);
        let proxy = SocksProxy::start("clerk:pr0xy-w0rd").await;
        let port = hub.authority().rsplit_once(':').expect("the Hub has a port").1.to_owned();
        let by_name = format!("http://hub.test:{port}");
        let mirror = Mirror::start_with(&hub, by(&proxy.url(scheme)).upstream(&by_name)).await;
        pull(&mirror, &image).await;
        let asked = proxy.asked();
        assert_eq!(hub.counters().connections, asked.len() as u64, "nothing goes past the proxy");
        assert!(asked.contains(&format!("hub.test:{port}")), "{asked:?}");
        assert!(asked.contains(&hub.cdn_url().replace("http://", "")), "{asked:?}");
        assert!(!format!("{:?}{}", mirror.log_lines(), mirror.metrics().await).contains("pr0xy-w0rd"));
    }
}

#[tokio::test]
async fn an_address_of_this_machine_is_where_everything_comes_from() {
    let hub = Hub::start(Options::default()).await;
    let image = images::busybox(&hub, REPOSITORY, "1", images::Format::OciSingle);
    let mirror = Mirror::start_with(&hub, by("127.0.0.2")).await;
    pull(&mirror, &image).await;
    let counters = hub.counters();
    let others = counters.requests.iter().filter(|seen| seen.peer.to_string() != "127.0.0.2");
    assert_eq!(others.count(), 0);
    for part in ["registry", "token", "cdn"] {
        assert!(counters.from("127.0.0.2", part) > 0, "{part}");
    }
    let received = mirror.metric("stopover_egress_received_bytes_total", &["egress=\"127.0.0.2\""]).await;
    assert!(received > image.layer_bytes as f64, "{received}");
}

#[tokio::test]
async fn an_address_of_ipv6_reaches_a_registry_of_ipv6() {
    let there = std::net::TcpListener::bind("[::1]:0");
    drop(there.expect("the tests need ::1: sysctl net.ipv6.conf.lo.disable_ipv6=0"));
    let address = "[::1]:0".parse().expect("an address");
    let hub = Hub::start(Options { addr: address, cdn_addr: address, ..Options::default() }).await;
    let image = images::busybox(&hub, REPOSITORY, "1", images::Format::OciSingle);
    let mirror = Mirror::start_with(&hub, by("::1")).await;
    pull(&mirror, &image).await;
    assert!(hub.counters().from("::1", "cdn") > 0);

    let mirror = Mirror::start_with(&hub, by("127.0.0.2")).await;
    let reply = mirror.get(&manifest_path(REPOSITORY, "1")).await;
    assert_error("of the wrong family", &reply, 503, "UNAVAILABLE");
    let wanted = "the egress 127.0.0.2 sends from 127.0.0.2, and [::1] has no IPv4 address";
    assert!(reply.text().contains(wanted), "{}", reply.text());
}

const WARNING: &str = "the egress 192.0.2.7 sends from 192.0.2.7, which this machine does not have now";

/// It may come later, with DHCP or a tunnel.
#[tokio::test]
async fn an_address_that_is_not_there_is_told_at_the_start_and_at_use() {
    let hub = Hub::start(Options::default()).await;
    images::busybox(&hub, REPOSITORY, "1", images::Format::OciSingle);
    let mirror = Mirror::start_with(&hub, by("192.0.2.7")).await;
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let checked = run(folder.path(), &["check"], &[(EGRESSES, "192.0.2.7")]).await;
    assert!(
        checked.code == Some(0) && checked.out.contains(&format!("warning: {WARNING}")),
        "{}",
        checked.out
    );

    let says = |line: &serde_json::Value| line["msg"].as_str().is_some_and(|text| text.contains(WARNING));
    assert_eq!(mirror.until_line("it is warned of", says).await["level"], "warn");
    let reply = mirror.get(&manifest_path(REPOSITORY, "1")).await;
    assert_error("without the address", &reply, 503, "UNAVAILABLE");
    assert!(reply.text().contains("the egress 192.0.2.7 cannot send from 192.0.2.7"), "{}", reply.text());
    assert_eq!(hub.counters().total(), 0);
}

#[tokio::test]
async fn a_dead_proxy_is_named_without_its_password() {
    let hub = Hub::start(Options::default()).await;
    for scheme in ["http", "https", "socks5"] {
        let mirror = Mirror::start_with(&hub, by(&format!("{scheme}://clerk:pr0xy-w0rd@127.0.0.1:1"))).await;
        let reply = mirror.get(&manifest_path(REPOSITORY, "1")).await;
        assert_error(scheme, &reply, 503, "UNAVAILABLE");
        assert!(reply.text().contains("the proxy 127.0.0.1:1 gives no way"), "{}", reply.text());
        let all = format!("{}{:?}{}", reply.text(), mirror.log_lines(), mirror.metrics().await);
        assert!(!all.contains("pr0xy-w0rd"), "{all}");
    }
    assert_eq!(hub.counters().total(), 0, "a proxy is not gone around");
}

#[tokio::test]
async fn blobs_are_spread_over_two_addresses() {
    let hub = Hub::start(Options { latency: Duration::from_millis(20), ..Options::default() }).await;
    let blobs = images::blobs(&hub, REPOSITORY, 8, 1 << 20);
    let mirror = Mirror::start_with(&hub, by("127.0.0.2, 127.0.0.3")).await;
    let pull = async |blob| mirror.get(&blob_path(REPOSITORY, blob)).await.digest();
    let pulls = blobs.iter().map(pull);
    assert_eq!(join_all(pulls).await, blobs);
    let counters = hub.counters();
    let [one, other] = ["127.0.0.2", "127.0.0.3"].map(|address| counters.from(address, "cdn"));
    assert_eq!(one + other, 8, "by these alone");
    assert!(one >= 2 && other >= 2, "{one} by the one, {other} by the other");
}

#[tokio::test]
async fn of_two_ways_out_one_may_be_dead() {
    let proxy = ForwardProxy::start().await;
    let gone = proxy.port();
    drop(proxy);
    for dead in [
        format!("socks5://clerk:pr0xy-w0rd@127.0.0.1:{gone}"),
        format!("http://clerk:pr0xy-w0rd@127.0.0.1:{gone}"),
        "192.0.2.7".to_owned(),
    ] {
        let hub = Hub::start(Options::default()).await;
        let image = images::busybox(&hub, REPOSITORY, "1", images::Format::OciIndex);
        let blobs = images::blobs(&hub, REPOSITORY, 4, 1 << 10);
        let mirror = Mirror::start_with(&hub, by(&format!("{dead}, 127.0.0.3"))).await;
        pull(&mirror, &image).await;
        for blob in blobs {
            assert_eq!(mirror.get(&blob_path(REPOSITORY, blob)).await.digest(), blob, "{dead}");
        }
        assert!(!format!("{:?}{}", mirror.log_lines(), mirror.metrics().await).contains("pr0xy-w0rd"));
    }
}
