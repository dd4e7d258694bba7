//! Large blobs fetched by several streams at once: what the registry is asked, and that nobody notices but by the time
//! it takes.

use hubsim::{Fault, Hub, Kind, Options, Target, Times, images};
use oci::Digest;

use crate::support::{Mirror, MirrorOptions, Reply, blob_path, manifest_path};

const REPOSITORY: &str = "library/large";
const MIB: usize = 1 << 20;
const SIZE: u64 = 40 << 20;

/// Pushes an image with so many large layers, and lets the mirror see its manifest.
async fn pushed(hub: &Hub, mirror: &Mirror, count: usize, size: u64) -> Vec<Digest> {
    let image = images::image_of_blobs(hub, REPOSITORY, "1", count, size);
    let manifest = mirror.get(&manifest_path(REPOSITORY, "1")).await;
    assert_eq!((manifest.status, manifest.digest()), (200, image.manifest));
    hub.reset_counters();
    image.layers
}

fn assert_whole(reply: &Reply, digest: &Digest) {
    assert_eq!((reply.status, reply.is_whole, reply.digest()), (200, true, *digest));
}

/// Returns what was asked of storage for a blob: its ranges, in the order they were asked for.
fn ranges_of(hub: &Hub, digest: &Digest) -> Vec<Option<String>> {
    let seen = hub.counters().requests;
    let of_blob = seen.iter().filter(|seen| seen.port == "cdn" && seen.path.contains(&digest.hex()[..16]));
    of_blob.map(|seen| seen.range.clone()).collect()
}

#[tokio::test]
async fn where_connections_are_slow_a_large_blob_comes_by_several_and_each_byte_once() {
    let hub = Hub::start(Options { rate: Some(6_000_000), ..Options::default() }).await;
    let mirror = Mirror::start(&hub).await;
    let blobs = pushed(&hub, &mirror, 2, SIZE).await;
    for digest in &blobs {
        let reply = mirror.get(&blob_path(REPOSITORY, digest)).await;
        assert_whole(&reply, digest);
        let seen = hub.counters().of(digest);
        assert!(seen.blob_gets > 1, "{seen:?}");
        assert_eq!(seen.bytes, SIZE);
        mirror.until_stored(digest).await;
    }
}

#[tokio::test]
async fn readers_get_what_stands_at_the_beginning_while_the_rest_is_on_its_way() {
    let hub = Hub::start(Options { rate: Some(6_000_000), ..Options::default() }).await;
    let mirror = Mirror::start(&hub).await;
    let digest = pushed(&hub, &mirror, 1, SIZE).await[0];
    hub.fault(Fault::StallAfter(3 * MIB as u64), Times::Once);
    let mut whole = mirror.open(&blob_path(REPOSITORY, digest), &[]).await;
    let mut begun = whole.read(3 * MIB - 1).await.expect("the beginning comes");
    let near_the_end = format!("bytes={}-{}", SIZE - 1000, SIZE - 1);
    let ahead = mirror.get_with(&blob_path(REPOSITORY, digest), &[("range", &near_the_end)]).await;
    assert_eq!((ahead.status, ahead.is_whole, ahead.body.len()), (206, true, 1000));
    assert!(!mirror.blob_file(&digest).exists(), "the first stream stands still");
    hub.release();
    let rest = whole.rest().await;
    begun.extend_from_slice(&rest.body);
    assert!(rest.is_whole && Digest::of(digest.algorithm(), &begun) == digest);
    assert!(begun.ends_with(&ahead.body));
}

#[tokio::test]
async fn one_line_for_all_streams_is_not_asked_much_more() {
    let hub = Hub::start(Options { line_rate: Some(30_000_000), ..Options::default() }).await;
    let mirror = Mirror::start(&hub).await;
    let digest = pushed(&hub, &mirror, 1, SIZE).await[0];
    assert_whole(&mirror.get(&blob_path(REPOSITORY, digest)).await, &digest);
    let seen = hub.counters().of(&digest);
    assert!(seen.blob_gets <= 10, "{seen:?}");
    assert_eq!(seen.bytes, SIZE);
}

#[tokio::test]
async fn a_blob_that_is_not_large_comes_by_one_request_as_ever() {
    let hub = Hub::start(Options { rate: Some(6_000_000), ..Options::default() }).await;
    let mirror = Mirror::start(&hub).await;
    let digest = pushed(&hub, &mirror, 1, 7 << 20).await[0];
    assert_whole(&mirror.get(&blob_path(REPOSITORY, digest)).await, &digest);
    assert_eq!(ranges_of(&hub, &digest), [None]);
}

#[tokio::test]
async fn a_registry_without_ranges_is_found_out_and_asked_for_the_whole_from_then_on() {
    let hub = Hub::start(Options { rate: Some(20_000_000), ..Options::default() }).await;
    hub.fault(Fault::NoRange, Times::Always);
    let mirror = Mirror::start(&hub).await;
    let blobs = pushed(&hub, &mirror, 2, 20 << 20).await;
    assert_whole(&mirror.get(&blob_path(REPOSITORY, blobs[0])).await, &blobs[0]);
    let first = ranges_of(&hub, &blobs[0]);
    assert!(first.len() <= 3, "{first:?}");
    assert_whole(&mirror.get(&blob_path(REPOSITORY, blobs[1])).await, &blobs[1]);
    assert_eq!(ranges_of(&hub, &blobs[1]), [None]);
}

#[tokio::test]
async fn storage_that_refuses_a_second_stream_is_asked_for_the_whole_from_then_on() {
    let hub = Hub::start(Options::default()).await;
    let mirror = Mirror::start(&hub).await;
    let blobs = pushed(&hub, &mirror, 2, SIZE).await;
    hub.fault(Fault::StallAfter(MIB as u64), Times::Once);
    let mut whole = mirror.open(&blob_path(REPOSITORY, blobs[0]), &[]).await;
    let begun = whole.read(MIB).await.expect("the beginning comes");
    hub.fault_on(Fault::Status(429, Some(1)), Times::Once, Target::kind(Kind::Cdn));
    hub.release();
    let rest = whole.rest().await;
    assert!(rest.is_whole && begun.len() + rest.body.len() == SIZE as usize);
    mirror.until_stored(&blobs[0]).await;
    assert_whole(&mirror.get(&blob_path(REPOSITORY, blobs[1])).await, &blobs[1]);
    assert_eq!(ranges_of(&hub, &blobs[1]), [None]);
}

#[tokio::test]
async fn what_a_fill_of_several_streams_brought_before_it_failed_is_kept() {
    let hub = Hub::start(Options::default()).await;
    let mirror = Mirror::start(&hub).await;
    let digest = pushed(&hub, &mirror, 1, SIZE).await[0];
    hub.fault(Fault::StallAfter(MIB as u64), Times::Once);
    let mut whole = mirror.open(&blob_path(REPOSITORY, digest), &[]).await;
    whole.read(MIB).await.expect("the beginning comes");
    hub.fault_on(Fault::Status(403, None), Times::Always, Target::kind(Kind::Cdn));
    hub.release();
    assert!(!whole.rest().await.is_whole);
    hub.clear_faults();
    hub.reset_counters();
    assert_whole(&mirror.get(&blob_path(REPOSITORY, digest)).await, &digest);
    let seen = hub.counters().of(&digest);
    assert!(seen.bytes <= SIZE - 4 * MIB as u64, "{seen:?}");
}

#[tokio::test]
async fn an_operator_who_allows_one_stream_gets_one_request_for_each_blob() {
    let hub = Hub::start(Options { rate: Some(20_000_000), ..Options::default() }).await;
    let one = MirrorOptions::default().env("STOPOVER_UPSTREAM__STREAMS_MAX", 1);
    let mirror = Mirror::start_with(&hub, one).await;
    let digest = pushed(&hub, &mirror, 1, SIZE).await[0];
    assert_whole(&mirror.get(&blob_path(REPOSITORY, digest)).await, &digest);
    assert_eq!(ranges_of(&hub, &digest), [None]);
}

#[tokio::test]
async fn what_several_streams_brought_is_kept_where_the_mirror_is_stopped() {
    let hub = Hub::start(Options { rate: Some(4_000_000), ..Options::default() }).await;
    let hasty = MirrorOptions::default().env("STOPOVER_HTTP__DRAIN_TIMEOUT", "10ms");
    let mut mirror = Mirror::start_with(&hub, hasty).await;
    let digest = pushed(&hub, &mirror, 1, SIZE).await[0];
    let mut whole = mirror.open(&blob_path(REPOSITORY, digest), &[]).await;
    whole.read(2 * MIB).await.expect("the beginning comes");
    hub.until(|counters| counters.of(&digest).blob_gets >= 3).await;
    mirror.sigterm();
    mirror.wait_exit().await;
    let mirror = mirror.restart().await;
    hub.configure(|options| options.rate = None);
    hub.reset_counters();
    assert_whole(&mirror.get(&blob_path(REPOSITORY, digest)).await, &digest);
    let seen = hub.counters().of(&digest);
    assert!(seen.bytes <= SIZE - 2 * MIB as u64, "{seen:?}");
}
