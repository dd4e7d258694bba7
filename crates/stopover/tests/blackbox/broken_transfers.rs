//! Transfers that break, lie, or cannot be taken up again.

use hubsim::{Fault, Hub, Kind, Options, Target, Times, images};
use oci::Digest;

use crate::support::{
    Http2, Mirror, MirrorOptions, blob_path, hub_and_mirror, manifest_path, noise, push_blob,
};

const REPOSITORY: &str = "library/broken";
const MIB: usize = 1 << 20;
/// More than the end of a blob that is held back until all of it is right.
const SIZE: usize = 700_001;

fn pushed(hub: &Hub, seed: u64) -> (Digest, Vec<u8>) {
    let bytes = noise(seed, SIZE);
    (push_blob(hub, REPOSITORY, &bytes), bytes)
}

async fn pulls(mirror: &Mirror, digest: &Digest, bytes: &[u8]) {
    let reply = mirror.get(&blob_path(REPOSITORY, digest)).await;
    assert_eq!((reply.status, reply.is_whole, reply.body.len()), (200, true, bytes.len()));
    assert!(reply.body == bytes, "the bytes are others");
}

/// Statement 52.
#[tokio::test]
async fn a_transfer_that_breaks_is_taken_up_where_it_broke() {
    let (hub, mirror) = hub_and_mirror().await;
    for (seed, cut) in [0, 1, 65_536, 262_144, SIZE / 2, SIZE - 65_536, SIZE - 1].into_iter().enumerate() {
        let (digest, bytes) = pushed(&hub, seed as u64);
        hub.reset_counters();
        hub.fault(Fault::CutAfter(cut as u64), Times::Once);
        pulls(&mirror, &digest, &bytes).await;
        let seen = hub.counters().requests;
        let ranges: Vec<_> =
            seen.iter().filter(|seen| seen.port == "cdn").map(|seen| seen.range.clone()).collect();
        let resumed = (cut > 0).then(|| format!("bytes={cut}-"));
        assert_eq!(ranges, [None, resumed], "a cut after {cut} bytes");
    }
    assert!(mirror.metric("stopover_fill_resumes_total", &[]).await >= 6.0);
}

/// Statement 52.
#[tokio::test]
async fn a_line_that_breaks_again_and_again_brings_the_blob_all_the_same() {
    let (hub, mirror) = hub_and_mirror().await;
    let (digest, bytes) = pushed(&hub, 520);
    hub.fault(Fault::CutAfter(100_000), Times::Always);
    pulls(&mirror, &digest, &bytes).await;
    assert_eq!(hub.counters().cdn_get, 8);
}

/// Statement 52.
#[tokio::test]
async fn a_transfer_is_taken_up_also_where_the_registry_serves_no_ranges() {
    let (hub, mirror) = hub_and_mirror().await;
    let (digest, bytes) = pushed(&hub, 521);
    hub.fault(Fault::CutAfter(300_000), Times::Once);
    hub.fault(Fault::NoRange, Times::Always);
    pulls(&mirror, &digest, &bytes).await;
}

/// Statement 52.
#[tokio::test]
async fn an_answer_that_has_another_range_than_it_was_asked_for_is_not_used() {
    let (hub, mirror) = hub_and_mirror().await;
    let (digest, bytes) = pushed(&hub, 522);
    hub.fault(Fault::CutAfter(300_000), Times::Once);
    hub.fault(Fault::BadContentRange, Times::Once);
    pulls(&mirror, &digest, &bytes).await;
}

/// Statement 52.
#[tokio::test]
async fn a_transfer_that_stands_still_is_broken_off_and_taken_up() {
    let hub = Hub::start(Options::default()).await;
    let impatient = MirrorOptions::default().env("STOPOVER_UPSTREAM__STALL_TIMEOUT", "300ms");
    let mirror = Mirror::start_with(&hub, impatient).await;
    let (digest, bytes) = pushed(&hub, 523);
    hub.fault(Fault::StallAfter(300_000), Times::Once);
    pulls(&mirror, &digest, &bytes).await;
    assert!(hub.counters().cdn_get >= 2);
}

/// Statement 52.
#[tokio::test]
async fn a_registry_that_is_ill_when_a_transfer_broke_is_asked_again() {
    let (hub, mirror) = hub_and_mirror().await;
    let (digest, bytes) = pushed(&hub, 524);
    hub.fault(Fault::CutAfter(300_000), Times::Once);
    let mut answer = mirror.open(&blob_path(REPOSITORY, digest), &[]).await;
    assert!(answer.read(1000).await.expect("the first bytes come") == bytes[..1000]);
    hub.fault_on(Fault::Status(503, None), Times::N(2), Target::kind(Kind::Cdn));
    let rest = answer.rest().await;
    assert!(rest.is_whole && rest.body == bytes[1000..]);
}

/// Statement 53.
#[tokio::test]
async fn a_client_of_a_blob_that_cannot_be_completed_is_cut() {
    let (hub, mirror) = hub_and_mirror().await;
    let bytes = noise(53, 3 * MIB);
    let digest = push_blob(&hub, REPOSITORY, &bytes);
    hub.fault(Fault::StallAfter(MIB as u64), Times::Once);
    let mut answer = mirror.open(&blob_path(REPOSITORY, digest), &[]).await;
    assert!(answer.read(MIB).await.expect("the beginning comes") == bytes[..MIB]);
    hub.fault_on(Fault::Status(404, None), Times::Always, Target::kind(Kind::Blobs));
    hub.stop_listening().await;
    hub.resume_listening().await;
    let rest = answer.rest().await;
    assert!(!rest.is_whole && rest.body.len() < 2 * MIB, "{} more bytes came", rest.body.len());
    assert!(!mirror.blob_file(&digest).exists());
    hub.clear_faults();
}

/// Statements 32 and 53.
#[tokio::test]
async fn a_client_of_a_blob_that_turns_out_wrong_is_cut_before_its_end() {
    for (seed, at) in [0, SIZE / 2, SIZE - 1].into_iter().enumerate() {
        let (hub, mirror) = hub_and_mirror().await;
        let (digest, bytes) = pushed(&hub, 530 + seed as u64);
        hub.fault(Fault::FlipByte(at as u64), Times::Always);
        let path = blob_path(REPOSITORY, digest);
        let whole = mirror.get(&path).await;
        assert!(
            !whole.is_whole && whole.body.len() < SIZE,
            "a flip at {at}: {} bytes came",
            whole.body.len()
        );
        let open_ended = mirror.get_with(&path, &[("range", "bytes=1000-")]).await;
        assert!(!open_ended.is_whole && open_ended.body.len() < SIZE - 1000, "a flip at {at}");
        let http2 = Http2::connect(mirror.address()).await.open("GET", &path, &[]).await.rest().await;
        assert!(!http2.is_whole && http2.body.len() < SIZE, "a flip at {at} over HTTP/2");
        assert!(!mirror.blob_file(&digest).exists(), "what is wrong is not stored");
        hub.clear_faults();
        pulls(&mirror, &digest, &bytes).await;
        mirror.until_stored(&digest).await;
        let failures = mirror.metric("stopover_upstream_verification_failures_total", &[]).await;
        assert!(failures >= 1.0, "the operator is told");
    }
}

/// Statements 32 and 53.
#[tokio::test]
async fn of_a_small_wrong_blob_nobody_sees_a_byte() {
    let (hub, mirror) = hub_and_mirror().await;
    let bytes = noise(531, 1000);
    let digest = push_blob(&hub, REPOSITORY, &bytes);
    hub.fault(Fault::FlipByte(500), Times::Always);
    let path = blob_path(REPOSITORY, digest);
    for range in ["bytes=0-", "bytes=0-9", "bytes=990-", "x"] {
        let reply = mirror.open(&path, &[("range", range)]).await.rest().await;
        // Either no success at all, or one that breaks off before its first byte.
        assert!(
            reply.status >= 500 || (!reply.is_whole && reply.body.is_empty()),
            "{range}: {}",
            reply.status
        );
    }
    assert!(!mirror.blob_file(&digest).exists());
    hub.clear_faults();
    pulls(&mirror, &digest, &bytes).await;
}

/// Statement 53.
#[tokio::test]
async fn a_small_blob_that_came_wrong_once_is_fetched_again_unseen() {
    let (hub, mirror) = hub_and_mirror().await;
    let bytes = noise(532, 1000);
    let digest = push_blob(&hub, REPOSITORY, &bytes);
    hub.fault(Fault::FlipByte(500), Times::Once);
    pulls(&mirror, &digest, &bytes).await;
    assert_eq!(hub.counters().cdn_get, 2);
}

/// Statement 53.
#[tokio::test]
async fn a_length_that_is_not_the_blobs_makes_no_complete_answer() {
    for by in [-1, -300_000] {
        let (hub, mirror) = hub_and_mirror().await;
        let (digest, bytes) = pushed(&hub, 533);
        hub.fault(Fault::WrongLength(by), Times::Always);
        let reply = mirror.get(&blob_path(REPOSITORY, digest)).await;
        assert!(!reply.is_whole, "by {by}: {} bytes came", reply.body.len());
        assert!(!mirror.blob_file(&digest).exists());
        hub.clear_faults();
        pulls(&mirror, &digest, &bytes).await;
    }
}

/// Statement 53.
#[tokio::test]
async fn a_length_that_is_not_the_manifests_is_not_believed() {
    for by in [-1, 1] {
        let (hub, mirror) = hub_and_mirror().await;
        let image = images::image_of_blobs(&hub, REPOSITORY, "latest", 1, SIZE as u64);
        assert_eq!(mirror.get(&manifest_path(REPOSITORY, "latest")).await.status, 200);
        hub.fault(Fault::WrongLength(by), Times::Once);
        let reply = mirror.get(&blob_path(REPOSITORY, image.layers[0])).await;
        assert_eq!(
            (reply.status, reply.is_whole, reply.content_length()),
            (200, true, SIZE as u64),
            "by {by}"
        );
        assert_eq!(reply.digest(), image.layers[0]);
    }
}
