//! What Stopover must be, in one table: the first table of the design, row by row. The rows about quotas and about full
//! disks have files of their own.

use std::{fs, time::Instant};

use futures_util::future::join_all;
use hubsim::{Fault, Hub, Kind, Options, Target, Times, images};

use crate::{
    rig::{assert_stale, eventually, volume},
    support::{Mirror, MirrorOptions, blob_path, manifest_path, noise, push_blob},
};

const REPOSITORY: &str = "prom/prometheus";

/// Row 1: "16 nodes that pull one new image at once: 1 download, all 16 stream it as it arrives".
#[tokio::test]
async fn sixteen_nodes_that_pull_one_new_image_at_once_are_one_download() {
    let hub = Hub::start(Options::default()).await;
    let image = images::busybox(&hub, REPOSITORY, "3", images::Format::DockerList);
    let mirror = Mirror::start(&hub).await;
    let pulls = (0..16).map(|_| async {
        assert_eq!(mirror.get(&manifest_path(REPOSITORY, "3")).await.digest(), image.manifest);
        assert_eq!(mirror.get(&manifest_path(REPOSITORY, image.platform)).await.digest(), image.platform);
        let paths: Vec<String> = image.blobs().map(|blob| blob_path(REPOSITORY, blob)).collect();
        for (reply, blob) in
            join_all(paths.iter().map(|path| mirror.get(path))).await.iter().zip(image.blobs())
        {
            assert_eq!((reply.status, reply.digest()), (200, *blob));
        }
    });
    join_all(pulls).await;
    let counters = hub.counters();
    assert_eq!((counters.manifest_get, counters.token), (2, 1), "{counters:#?}");
    for blob in image.blobs() {
        let seen = counters.of(blob);
        assert_eq!((seen.blob_gets, seen.cdn_gets), (1, 1));
    }
}

/// Row 1, its second half: nobody waits for the whole.
#[tokio::test]
async fn sixteen_nodes_read_what_has_arrived_while_the_rest_is_on_its_way() {
    let hub = Hub::start(Options::default()).await;
    let content = noise(1, 4 << 20);
    let blob = push_blob(&hub, REPOSITORY, &content);
    let mirror = Mirror::start(&hub).await;
    hub.fault(Fault::StallAfter(2 << 20), Times::Once);
    let path = blob_path(REPOSITORY, blob);
    let mut clients = join_all((0..16).map(|_| mirror.open(&path, &[]))).await;
    for client in &mut clients {
        assert_eq!(client.read(2 << 20).await.expect("it has arrived"), content[..2 << 20]);
    }
    hub.release();
    for client in clients {
        let rest = client.rest().await;
        assert_eq!((rest.is_whole, &rest.body[..]), (true, &content[2 << 20..]));
    }
    assert_eq!(hub.counters().of(&blob).cdn_gets, 1);
}

/// Row 2: "100 pulls of an unchanged tag: at most a few HEADs, no GET, no token each time".
#[tokio::test]
async fn a_hundred_pulls_of_an_unchanged_tag_are_a_few_heads() {
    let hub = Hub::start(Options::default()).await;
    let image = images::busybox(&hub, REPOSITORY, "3", images::Format::OciSingle);
    let mirror =
        Mirror::start_with(&hub, MirrorOptions::default().env("STOPOVER_CACHE__TAG_TTL", "1s")).await;
    assert_eq!(mirror.get(&manifest_path(REPOSITORY, "3")).await.status, 200);
    hub.reset_counters();
    let begun = Instant::now();
    for _ in 0..100 {
        let reply = mirror.get(&manifest_path(REPOSITORY, "3")).await;
        assert_eq!((reply.status, reply.digest(), reply.header("warning")), (200, image.manifest, ""));
    }
    let seconds = begun.elapsed().as_secs() + 2;
    let counters = hub.counters();
    assert!(counters.manifest_head <= seconds, "{} HEADs in {seconds} s", counters.manifest_head);
    assert_eq!((counters.manifest_get, counters.token, counters.total()), (0, 0, counters.manifest_head));
}

/// Row 3: "the line breaks in mid-layer: resumed with Range; the client sees nothing".
#[tokio::test]
async fn a_line_that_breaks_in_mid_layer_is_taken_up_where_it_broke() {
    let hub = Hub::start(Options::default()).await;
    let content = noise(1, 4 << 20);
    let blob = push_blob(&hub, REPOSITORY, &content);
    let mirror = Mirror::start(&hub).await;
    hub.fault(Fault::CutAfter(1 << 20), Times::N(3));
    let reply = mirror.get(&blob_path(REPOSITORY, blob)).await;
    assert_eq!((reply.status, reply.is_whole, reply.digest()), (200, true, blob));
    let counters = hub.counters();
    assert!(counters.of(&blob).cdn_gets >= 2, "{counters:#?}");
    let ranges =
        counters.requests.iter().filter(|seen| seen.port == "cdn").filter_map(|seen| seen.range.as_deref());
    assert!(ranges.clone().count() >= 1 && ranges.clone().all(|range| range != "bytes=0-"), "{counters:#?}");
    // What a connection that breaks did not take is counted, too.
    assert!(counters.bytes(&blob) <= content.len() as u64 + 3 * (512 << 10), "{}", counters.bytes(&blob));
    assert!(mirror.metric("stopover_fill_resumes_total", &[]).await >= 1.0);
}

/// Row 4: "one flipped byte on the way: the transfer is cut before its last block, refetched, never cached".
#[tokio::test]
async fn one_flipped_byte_is_never_a_complete_answer_and_never_cached() {
    let content = noise(1, 2 << 20);
    for at in [0, 1_000_000, content.len() as u64 - 1] {
        let hub = Hub::start(Options::default()).await;
        let blob = push_blob(&hub, REPOSITORY, &content);
        let mirror = Mirror::start(&hub).await;
        hub.fault(Fault::FlipByte(at), Times::Once);
        let path = blob_path(REPOSITORY, blob);
        let wrong = mirror.get(&path).await;
        assert!(
            !wrong.is_whole && wrong.body.len() < content.len(),
            "byte {at}: {} bytes came",
            wrong.body.len()
        );
        assert!(!mirror.blob_file(&blob).exists(), "byte {at}");
        let right = mirror.get(&path).await;
        assert_eq!((right.is_whole, right.digest()), (true, blob), "byte {at}");
        assert_eq!(mirror.metric("stopover_upstream_verification_failures_total", &[]).await, 1.0);
        volume::assert_only_right_bytes(mirror.root());
    }
}

/// Row 5: "Hub down, cache restarted: starts, serves all it has".
#[tokio::test]
async fn a_mirror_starts_without_its_registry_and_serves_all_it_has() {
    let hub = Hub::start(Options::default()).await;
    let image = images::busybox(&hub, REPOSITORY, "3", images::Format::OciIndex);
    let mut mirror = Mirror::start_with(&hub, MirrorOptions::default().tags_never_fresh()).await;
    let mut paths = vec![(manifest_path(REPOSITORY, "3"), image.manifest)];
    paths.push((manifest_path(REPOSITORY, image.platform), image.platform));
    paths.extend(image.blobs().map(|blob| (blob_path(REPOSITORY, blob), *blob)));
    for (path, digest) in &paths {
        assert_eq!(mirror.get(path).await.digest(), *digest);
    }
    for blob in image.blobs() {
        mirror.until_stored(blob).await;
    }
    hub.stop_listening().await;
    for round in 0..2 {
        mirror = mirror.restart().await;
        for (path, digest) in &paths {
            let reply = mirror.get(path).await;
            assert_eq!((reply.status, reply.digest()), (200, *digest), "{round}: {path}");
        }
        assert_eq!(mirror.get("/v2/").await.status, 200);
    }
}

/// Row 6: "Hub hangs: answers from the cache in under 5 s", of which the check takes at most 3.
#[tokio::test]
async fn a_registry_that_hangs_is_answered_for_from_the_cache() {
    let hub = Hub::start(Options::default()).await;
    let image = images::busybox(&hub, REPOSITORY, "3", images::Format::OciSingle);
    let mirror = Mirror::start_with(&hub, MirrorOptions::default().tags_never_fresh()).await;
    assert_eq!(mirror.get(&manifest_path(REPOSITORY, "3")).await.status, 200);
    hub.fault_on(Fault::Hang, Times::Always, Target::kind(Kind::All));
    let reply = mirror.get(&manifest_path(REPOSITORY, "3")).await;
    assert_stale("hangs", &reply, &image.manifest);
    assert!(reply.header("warning").contains("no answer within 3s"), "{}", reply.header("warning"));
}

/// Row 9: "a cached file is cut in half: seen, quarantined, refetched", while it runs and before it starts.
#[tokio::test]
async fn a_cached_file_that_is_cut_in_half_is_seen_put_aside_and_fetched_again() {
    let hub = Hub::start(Options::default()).await;
    let image = images::busybox(&hub, REPOSITORY, "3", images::Format::OciSingle);
    let blob = push_blob(&hub, REPOSITORY, &noise(1, 1 << 20));
    let mut mirror = Mirror::start(&hub).await;
    let paths =
        [(blob_path(REPOSITORY, blob), blob), (manifest_path(REPOSITORY, image.manifest), image.manifest)];
    for (path, digest) in &paths {
        assert_eq!(mirror.get(path).await.digest(), *digest);
        mirror.until_stored(digest).await;
    }
    for round in 1..=2 {
        // A manifest is in memory, and right, until the next start.
        if round == 2 {
            mirror.kill9();
        }
        for (_, digest) in &paths[..round] {
            let path = mirror.blob_file(digest);
            let half = path.metadata().unwrap().len() / 2;
            fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(half).unwrap();
        }
        if round == 2 {
            mirror = mirror.restart().await;
        }
        hub.reset_counters();
        for (path, digest) in &paths {
            let reply = mirror.get(path).await;
            assert_eq!(
                (reply.status, reply.is_whole, reply.digest()),
                (200, true, *digest),
                "{round}: {path}"
            );
        }
        assert_eq!(hub.counters().of(&blob).cdn_gets, 1, "{round}");
        eventually("what was fetched again is stored", async || {
            mirror.get(&paths[0].0).await.header("cache-status").contains("hit").then_some(())
        })
        .await;
        let aside = fs::read_dir(mirror.root().join("stopover/quarantine")).unwrap().count();
        assert_eq!(aside, [1, 3][round - 1], "what was wrong is kept to look at");
        assert_eq!(mirror.metric("stopover_disk_verification_failures_total", &[]).await, round as f64);
        volume::assert_only_right_bytes(mirror.root());
    }
}
