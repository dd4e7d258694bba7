//! A disk that is full costs caching, not pulls (statement 94, promise P11). The disks here are mounted by the tests,
//! which takes root.

use futures_util::future::join_all;
use hubsim::{Hub, Options, images};

use crate::{
    rig::{disk::SmallDisk, eventually, volume},
    support::{Mirror, MirrorOptions, blob_path, manifest_path, noise, push_blob},
};

const REPOSITORY: &str = "library/alpine";
const DISK_BYTES: u64 = 16 << 20;
const BLOB_BYTES: usize = 5 << 20;

async fn mirror_on(hub: &Hub, disk: &SmallDisk) -> Mirror {
    Mirror::start_with(hub, MirrorOptions::default().root(disk.path())).await
}

/// Statement 94: full before the first byte, in the middle, and just before the end of a blob.
#[tokio::test]
async fn a_blob_passes_through_a_disk_that_is_full_or_fills_up() {
    for left in [0, 4 << 10, 1 << 20, (BLOB_BYTES - 4096) as u64] {
        let disk = SmallDisk::mount(DISK_BYTES);
        let hub = Hub::start(Options::default()).await;
        let blob = push_blob(&hub, REPOSITORY, &noise(left, BLOB_BYTES));
        let mirror = mirror_on(&hub, &disk).await;
        disk.fill_up(left);
        for _ in 0..2 {
            let reply = mirror.get(&blob_path(REPOSITORY, blob)).await;
            assert_eq!(
                (reply.status, reply.is_whole, reply.digest()),
                (200, true, blob),
                "{left} bytes left"
            );
            assert_eq!(reply.content_length(), BLOB_BYTES as u64);
            assert!(!mirror.blob_file(&blob).exists(), "nothing partial becomes visible");
        }
        assert_eq!(mirror.metric("stopover_passed_total", &[]).await, 2.0, "{left} bytes left");
        let warned = mirror.log_lines().iter().filter(|line| line["level"] == "warn").count();
        assert!(warned >= 1, "the operator is told");
    }
}

/// Statement 94: many clients of one blob, some late, none of them loses a byte.
#[tokio::test]
async fn every_client_of_a_blob_that_fills_the_disk_gets_the_whole() {
    let disk = SmallDisk::mount(DISK_BYTES);
    let hub = Hub::start(Options::default()).await;
    let blob = push_blob(&hub, REPOSITORY, &noise(1, BLOB_BYTES));
    let mirror = mirror_on(&hub, &disk).await;
    disk.fill_up(2 << 20);
    let path = blob_path(REPOSITORY, blob);
    for reply in join_all((0..8).map(|_| mirror.get(&path))).await {
        assert_eq!((reply.status, reply.is_whole, reply.digest()), (200, true, blob));
    }
    let part = mirror.get_with(&path, &[("range", "bytes=3000000-3000009")]).await;
    assert_eq!((part.status, &part.body[..]), (206, &noise(1, BLOB_BYTES)[3_000_000..3_000_010]));
}

/// Statement 94: so does one that is fetched by several streams, of which some are ahead when the disk is full.
#[tokio::test]
async fn a_blob_of_several_streams_passes_through_a_disk_that_fills_up() {
    let disk = SmallDisk::mount(DISK_BYTES);
    let hub = Hub::start(Options { rate: Some(6_000_000), ..Options::default() }).await;
    let image = images::image_of_blobs(&hub, REPOSITORY, "1", 1, 24 << 20);
    let mirror = mirror_on(&hub, &disk).await;
    assert_eq!(mirror.get(&manifest_path(REPOSITORY, "1")).await.digest(), image.manifest);
    disk.fill_up(9 << 20);
    for _ in 0..2 {
        let reply = mirror.get(&blob_path(REPOSITORY, image.layers[0])).await;
        assert_eq!((reply.status, reply.is_whole, reply.digest()), (200, true, image.layers[0]));
    }
}

/// Statement 94: so do manifests, by tag and by digest.
#[tokio::test]
async fn a_whole_image_is_pulled_past_a_full_disk() {
    let disk = SmallDisk::mount(DISK_BYTES);
    let hub = Hub::start(Options::default()).await;
    let image = images::busybox(&hub, REPOSITORY, "1", images::Format::OciIndex);
    let mirror = mirror_on(&hub, &disk).await;
    disk.fill_up(0);
    for _ in 0..2 {
        assert_eq!(mirror.get(&manifest_path(REPOSITORY, "1")).await.digest(), image.manifest);
        assert_eq!(mirror.get(&manifest_path(REPOSITORY, image.platform)).await.digest(), image.platform);
        for blob in image.blobs() {
            let reply = mirror.get(&blob_path(REPOSITORY, blob)).await;
            assert_eq!((reply.status, reply.is_whole, reply.digest()), (200, true, *blob));
        }
    }
    assert!(volume::contents(disk.path()).is_empty());
}

/// P11: what was stored before is served, and caching begins again when there is room.
#[tokio::test]
async fn a_disk_that_has_room_again_is_used_again() {
    let disk = SmallDisk::mount(DISK_BYTES);
    let hub = Hub::start(Options::default()).await;
    let (before, during) =
        (push_blob(&hub, REPOSITORY, &noise(1, 1 << 20)), push_blob(&hub, REPOSITORY, &noise(2, BLOB_BYTES)));
    let mirror = mirror_on(&hub, &disk).await;
    assert_eq!(mirror.get(&blob_path(REPOSITORY, before)).await.status, 200);
    mirror.until_stored(&before).await;
    disk.fill_up(1 << 20);
    assert_eq!(mirror.get(&blob_path(REPOSITORY, during)).await.digest(), during);
    let hit = mirror.get(&blob_path(REPOSITORY, before)).await;
    assert_eq!((hit.digest(), hit.header("cache-status")), (before, "Stopover; hit; detail=hit"));

    disk.make_room();
    eventually("the blob is stored", async || {
        assert_eq!(mirror.get(&blob_path(REPOSITORY, during)).await.digest(), during);
        mirror.blob_file(&during).exists().then_some(())
    })
    .await;
    hub.reset_counters();
    assert_eq!(mirror.get(&blob_path(REPOSITORY, during)).await.digest(), during);
    assert_eq!(hub.counters().total(), 0);
    volume::assert_only_right_bytes(disk.path());
}

/// P11: a full disk is no reason not to start; what is there is served.
#[tokio::test]
async fn a_mirror_starts_on_a_full_disk() {
    let disk = SmallDisk::mount(DISK_BYTES);
    let hub = Hub::start(Options::default()).await;
    let (stored, other) =
        (push_blob(&hub, REPOSITORY, &noise(1, 1 << 20)), push_blob(&hub, REPOSITORY, &noise(2, 1 << 20)));
    let mut mirror = mirror_on(&hub, &disk).await;
    assert_eq!(mirror.get(&blob_path(REPOSITORY, stored)).await.status, 200);
    mirror.until_stored(&stored).await;
    mirror.sigterm();
    mirror.wait_exit().await;
    disk.fill_up(0);
    let mirror = mirror.restart().await;
    hub.reset_counters();
    assert_eq!(mirror.get(&blob_path(REPOSITORY, stored)).await.digest(), stored);
    assert_eq!(hub.counters().total(), 0);
    assert_eq!(mirror.get(&blob_path(REPOSITORY, other)).await.digest(), other);
}
