//! The end: SIGTERM loses no transfer, a second one does not wait, and the time is bounded.

use hubsim::{Fault, Hub, Options, Times};
use tokio::net::TcpStream;

use crate::support::{Answer, Mirror, MirrorOptions, blob_path, get, noise, push_blob, until};

const REPOSITORY: &str = "library/alpine";
const SIZE: usize = 4 << 20;

/// Starts a mirror with a client in the middle of a blob, of which the Hub sends no more until it is released.
async fn in_mid_blob(hub: &Hub, options: MirrorOptions) -> (Mirror, Answer, Vec<u8>) {
    let content = noise(1, SIZE);
    let blob = push_blob(hub, REPOSITORY, &content);
    let mirror = Mirror::start_with(hub, options).await;
    hub.fault(Fault::StallAfter(1 << 20), Times::Once);
    let mut client = mirror.open(&blob_path(REPOSITORY, blob), &[]).await;
    let begun = client.read(1 << 20).await.expect("it has arrived");
    assert_eq!(begun, content[..1 << 20]);
    (mirror, client, content)
}

async fn until_refused(mirror: &Mirror) {
    let address = mirror.address().to_owned();
    crate::rig::eventually("new connections are refused", async || TcpStream::connect(&address).await.err())
        .await;
}

/// "SIGTERM: running transfers end, new connections are refused, exit within the configured time."
#[tokio::test]
async fn a_transfer_under_way_ends_whole_and_then_the_process_does() {
    let hub = Hub::start(Options::default()).await;
    let (mut mirror, client, content) = in_mid_blob(&hub, MirrorOptions::default()).await;
    mirror.sigterm();
    until_refused(&mirror).await;
    assert!(mirror.is_running(), "a transfer is under way");
    assert_eq!(get(&format!("{}/livez", mirror.admin_url()), &[]).await.status, 200);
    assert_eq!(get(&format!("{}/readyz", mirror.admin_url()), &[]).await.status, 503);
    hub.release();
    let rest = client.rest().await;
    assert_eq!((rest.is_whole, &rest.body[..]), (true, &content[1 << 20..]));
    assert_eq!(mirror.wait_exit().await.code(), Some(0));
    let blob = oci::Digest::of(oci::Algorithm::Sha256, &content);
    assert!(mirror.blob_file(&blob).exists(), "what was fetched for it is kept");
}

/// The configured time is kept when a transfer does not end.
#[tokio::test]
async fn a_transfer_that_does_not_end_is_cut_when_the_time_is_up() {
    let hub = Hub::start(Options::default()).await;
    let options = MirrorOptions::default().env("STOPOVER_HTTP__DRAIN_TIMEOUT", "300ms");
    let (mut mirror, client, content) = in_mid_blob(&hub, options).await;
    mirror.sigterm();
    assert_eq!(mirror.wait_exit().await.code(), Some(0));
    assert!(!client.rest().await.is_whole, "what is cut does not look complete");
    let mirror = mirror.restart().await;
    hub.release();
    let blob = oci::Digest::of(oci::Algorithm::Sha256, &content);
    assert_eq!(mirror.get(&blob_path(REPOSITORY, blob)).await.digest(), blob);
}

/// A second signal ends it at once, whatever the time that is configured.
#[tokio::test]
async fn a_second_signal_does_not_wait() {
    let hub = Hub::start(Options::default()).await;
    let options = MirrorOptions::default().env("STOPOVER_HTTP__DRAIN_TIMEOUT", "1h");
    let (mut mirror, client, _) = in_mid_blob(&hub, options).await;
    mirror.sigterm();
    until_refused(&mirror).await;
    mirror.sigterm();
    assert_eq!(mirror.wait_exit().await.code(), Some(0));
    assert!(!client.rest().await.is_whole);
}

/// A connection that is kept alive, or has said nothing, is no transfer.
#[tokio::test]
async fn a_connection_without_a_request_does_not_hold_up_the_end() {
    let hub = Hub::start(Options::default()).await;
    let options = MirrorOptions::default().env("STOPOVER_HTTP__DRAIN_TIMEOUT", "1h");
    let mut mirror = Mirror::start_with(&hub, options).await;
    let silent = TcpStream::connect(mirror.address()).await.unwrap();
    let kept_alive = crate::support::Http2::connect(mirror.address()).await;
    assert_eq!(kept_alive.open("GET", "/v2/", &[]).await.rest().await.status, 200);
    let answer = mirror.open("/v2/", &[]).await;
    assert_eq!(answer.status, 200);
    mirror.sigterm();
    let status = mirror.wait_exit().await;
    assert_eq!(status.code(), Some(0));
    drop((silent, kept_alive, answer));
}

/// SIGINT, from a terminal, is the same.
#[tokio::test]
async fn an_interrupt_is_an_end_in_order_too() {
    let hub = Hub::start(Options::default()).await;
    let mut mirror = Mirror::start(&hub).await;
    let pid = rustix::process::Pid::from_raw(mirror.pid().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(mirror.wait_exit().await.code(), Some(0));
    let ending =
        until("it says why", || mirror.log_lines().into_iter().find(|line| line["signal"] == "SIGINT"));
    assert_eq!(ending.await["level"], "info");
}
