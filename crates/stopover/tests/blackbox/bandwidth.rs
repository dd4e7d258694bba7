//! Limits to the bandwidth of a registry and of a way out: kept, shared fairly, and no matter to what is cached.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use futures_util::future::join;
use hubsim::{Hub, Options, images};

use crate::support::{Mirror, MirrorOptions, blob_path, until};

const REPOSITORY: &str = "library/alpine";
const MIB: usize = 1 << 20;

/// Returns options with a limit to the registry's bandwidth, or to that of its way out.
fn limits(bytes_per_second: usize) -> [MirrorOptions; 2] {
    let bytes_per_second = format!("{}KiB", bytes_per_second >> 10);
    let of_registry = MirrorOptions::default().env("STOPOVER_UPSTREAM__BANDWIDTH", &bytes_per_second);
    let of_way = MirrorOptions::default()
        .env("STOPOVER_EGRESSES__OFFICE__ADDRESS", "127.0.0.2")
        .env("STOPOVER_EGRESSES__OFFICE__BANDWIDTH", &bytes_per_second)
        .env("STOPOVER_UPSTREAM__EGRESSES", "office");
    [of_registry, of_way]
}

/// Pulls a blob beside what else goes on; returns how many bytes have come, as it grows.
async fn pulling(mirror: &Mirror, path: &str) -> Arc<AtomicUsize> {
    let come = Arc::new(AtomicUsize::new(0));
    let (counted, mut answer) = (Arc::clone(&come), mirror.open(path, &[]).await);
    assert_eq!(answer.status, 200);
    tokio::spawn(async move {
        while let Ok(bytes) = answer.read(16 << 10).await {
            counted.fetch_add(bytes.len(), Ordering::Relaxed);
        }
    });
    come
}

fn come(of: &AtomicUsize) -> usize {
    of.load(Ordering::Relaxed)
}

/// Asserts that two blobs of 6 MiB or more, pulled at once, come evenly and together at no more than `rate` bytes a
/// second and a burst.
async fn assert_shared(what: &str, mirror: &Mirror, paths: [String; 2], rate: usize) {
    let begun = Instant::now();
    let pulls = join(pulling(mirror, &paths[0]), pulling(mirror, &paths[1])).await;
    let both = || [come(&pulls.0), come(&pulls.1)];
    let before = until("both come", || Some(both()).filter(|both| both.iter().all(|come| *come > 0))).await;
    let wanted = before[0] + before[1] + 3 * MIB;
    let after = until("much of it has come", || Some(both()).filter(|[a, b]| a + b >= wanted)).await;
    let most = rate as f64 * (begun.elapsed().as_secs_f64() + 0.1);
    assert!((after[0] + after[1]) as f64 <= most, "{what}: {after:?} bytes in {:?}", begun.elapsed());
    let [one, other] = [after[0] - before[0], after[1] - before[1]];
    assert!(
        one.min(other) * 2 >= one.max(other),
        "{what}: {one} and {other} bytes: one has the line for itself"
    );
}

#[tokio::test]
async fn a_limit_is_kept_and_shared_evenly() {
    const RATE: usize = 5 * MIB;
    for (what, options) in ["of the registry", "of the way out"].into_iter().zip(limits(RATE)) {
        let hub = Hub::start(Options::default()).await;
        let blobs = images::blobs(&hub, REPOSITORY, 2, 6 * MIB as u64);
        let mirror = Mirror::start_with(&hub, options).await;
        let paths = [blob_path(REPOSITORY, blobs[0]), blob_path(REPOSITORY, blobs[1])];
        assert_shared(what, &mirror, paths, RATE).await;
    }
}

#[tokio::test]
async fn registries_that_share_a_way_out_share_its_limit() {
    const RATE: usize = 5 * MIB;
    let [_, of_way] = limits(RATE);
    let (hub, other) = (Hub::start(Options::default()).await, Hub::start(Options::default()).await);
    let options = of_way.env("STOPOVER_UPSTREAMS__GHCR_IO__URL", other.registry_url());
    let here = images::blobs(&hub, REPOSITORY, 1, 6 * MIB as u64)[0];
    let there = images::blobs(&other, "org/app", 1, (6 * MIB + 1) as u64)[0];
    let mirror = Mirror::start_with(&hub, options).await;
    let paths = [blob_path(REPOSITORY, here), blob_path("ghcr.io/org/app", there)];
    assert_shared("of two registries", &mirror, paths, RATE).await;
    assert!(other.counters().from("127.0.0.2", "cdn") > 0, "a table is for all registries");
}

/// What comes by a mirror of the registry is the registry's content.
#[tokio::test]
async fn a_registry_and_its_mirror_share_a_limit() {
    const RATE: usize = 5 * MIB;
    let [of_registry, _] = limits(RATE);
    let (hub, second) = (Hub::start(Options::default()).await, Hub::start(Options::default()).await);
    let options = of_registry
        .env("STOPOVER_UPSTREAM__MIRRORS__SECOND__URL", second.registry_url())
        .env("STOPOVER_UPSTREAM__MIRRORS__SECOND__WHEN", "first");
    let here = images::blobs(&hub, REPOSITORY, 1, 6 * MIB as u64)[0];
    let there = images::blobs(&hub, REPOSITORY, 1, (6 * MIB + 1) as u64)[0];
    images::blobs(&second, REPOSITORY, 1, (6 * MIB + 1) as u64);
    let mirror = Mirror::start_with(&hub, options).await;
    let paths = [blob_path(REPOSITORY, here), blob_path(REPOSITORY, there)];
    assert_shared("of a registry and its mirror", &mirror, paths, RATE).await;
    assert!(hub.counters().bytes(&here) > 0 && second.counters().bytes(&there) > 0);
}

#[tokio::test]
async fn a_limit_is_no_matter_to_what_is_cached() {
    let hub = Hub::start(Options::default()).await;
    let small = images::blobs(&hub, REPOSITORY, 1, 32 << 10)[0];
    let large = images::blobs(&hub, REPOSITORY, 1, 66 * MIB as u64)[0];
    for options in limits(200 << 10) {
        let mirror = Mirror::start_with(&hub, options).await;
        assert_eq!(mirror.get(&blob_path(REPOSITORY, small)).await.digest(), small);
        let slow = pulling(&mirror, &blob_path(REPOSITORY, large)).await;
        until("the limit is reached", || (come(&slow) > 128 << 10).then_some(())).await;
        for _ in 0..20 {
            assert_eq!(mirror.get(&blob_path(REPOSITORY, small)).await.digest(), small);
        }
        assert!(come(&slow) < 32 * MIB, "{} bytes have come of what takes minutes", come(&slow));
    }
}
