//! SIGKILL at several moments of a fill: what is served after the next start is right, and what was fetched is not
//! fetched again (statement 93, promise P12).

use std::{fs, path::PathBuf};

use futures_util::future::join_all;
use hubsim::{Fault, Hub, Options, Times, images};

use crate::{
    rig::volume,
    support::{Mirror, blob_path, manifest_path, noise, push_blob, until},
};

const REPOSITORY: &str = "library/alpine";
const SIZE: usize = 6 << 20;

/// Returns the files of fills that are half done.
fn spools(mirror: &Mirror) -> Vec<PathBuf> {
    let boots = fs::read_dir(mirror.root().join("stopover/spool")).into_iter().flatten().flatten();
    boots
        .flat_map(|boot| fs::read_dir(boot.path()).into_iter().flatten().flatten())
        .map(|file| file.path())
        .collect()
}

async fn until_spooled(mirror: &Mirror, bytes: u64) {
    until("what was received is in the file", || {
        let lens: Vec<u64> =
            spools(mirror).iter().filter_map(|path| Some(path.metadata().ok()?.len())).collect();
        (lens == [bytes]).then_some(())
    })
    .await;
}

/// Statement 93: at each moment the next start takes up what is there, to the byte.
#[tokio::test]
async fn a_fill_that_was_killed_is_taken_up_where_it_stood() {
    for received in [1, 70_000, (1 << 20) + 7, 5 << 20, SIZE as u64 - 1] {
        let hub = Hub::start(Options::default()).await;
        let content = noise(received, SIZE);
        let blob = push_blob(&hub, REPOSITORY, &content);
        let mut mirror = Mirror::start(&hub).await;
        hub.fault(Fault::StallAfter(received), Times::Once);
        let path = blob_path(REPOSITORY, blob);
        let mut client = mirror.open(&path, &[]).await;
        until_spooled(&mirror, received).await;
        mirror.kill9();
        let got = client.read(SIZE).await.expect_err("the mirror is gone");
        assert_eq!(got, content[..got.len()], "what the client has is right");
        assert!(!mirror.blob_file(&blob).exists(), "half a blob is not in the store");

        let mirror = mirror.restart().await;
        hub.release();
        hub.reset_counters();
        let reply = mirror.get(&path).await;
        assert_eq!((reply.status, reply.is_whole, reply.digest()), (200, true, blob), "{received}");
        let counters = hub.counters();
        let ranges: Vec<_> =
            counters.requests.iter().filter(|seen| seen.port == "cdn").map(|seen| &seen.range).collect();
        assert_eq!(ranges, [&Some(format!("bytes={received}-"))], "only the rest is asked for");
        assert_eq!(counters.bytes(&blob), SIZE as u64 - received);
        mirror.until_stored(&blob).await;
        volume::assert_only_right_bytes(mirror.root());
        assert_eq!(spools(&mirror), Vec::<PathBuf>::new());
    }
}

/// Statement 93: a file with holes, made by a range that was fetched ahead, is not taken for the beginning of a blob.
#[tokio::test]
async fn a_fill_that_was_killed_with_holes_in_its_file_begins_anew() {
    let hub = Hub::start(Options::default()).await;
    let content = noise(3, SIZE);
    let blob = push_blob(&hub, REPOSITORY, &content);
    let mut mirror = Mirror::start(&hub).await;
    hub.fault(Fault::StallAfter(100_000), Times::Once);
    let path = blob_path(REPOSITORY, blob);
    let _client = mirror.open(&path, &[]).await;
    until_spooled(&mirror, 100_000).await;
    let ahead = mirror.get_with(&path, &[("range", "bytes=5000000-5000099")]).await;
    assert_eq!((ahead.status, &ahead.body[..]), (206, &content[5_000_000..5_000_100]));
    mirror.kill9();
    let mirror = mirror.restart().await;
    hub.release();
    let reply = mirror.get(&path).await;
    assert_eq!((reply.is_whole, reply.digest()), (true, blob));
    mirror.until_stored(&blob).await;
    volume::assert_only_right_bytes(mirror.root());
}

/// Statement 93: many fills and manifests at once, killed again and again wherever they happen to be.
#[tokio::test]
async fn a_mirror_that_is_killed_again_and_again_never_has_wrong_bytes() {
    let hub = Hub::start(Options { line_rate: Some(24 << 20), ..Options::default() }).await;
    let image = images::busybox(&hub, REPOSITORY, "1", images::Format::DockerList);
    let mut blobs: Vec<_> = (0..6).map(|seed| push_blob(&hub, REPOSITORY, &noise(seed, 1 << 20))).collect();
    blobs.extend(image.blobs());
    let mut paths: Vec<_> = blobs.iter().map(|blob| (blob_path(REPOSITORY, blob), *blob)).collect();
    paths.push((manifest_path(REPOSITORY, image.manifest), image.manifest));
    paths.push((manifest_path(REPOSITORY, image.platform), image.platform));
    let mut mirror = Mirror::start(&hub).await;
    for round in 1..=6 {
        let pulls = join_all(paths.iter().map(|(path, digest)| {
            let url = format!("{}{path}", mirror.url());
            async move {
                // The mirror is killed meanwhile: no answer, or half of one.
                if let Ok(reply) = crate::support::send("GET", &url, &[]).await
                    && reply.is_whole
                    && reply.status == 200
                {
                    assert_eq!(reply.digest(), *digest);
                }
            }
        }));
        let moment = hub.until(|counters| {
            let bytes: u64 = blobs.iter().map(|blob| counters.bytes(blob)).sum();
            bytes >= round * 600_000 || blobs.iter().all(|blob| counters.bytes(blob) > 0)
        });
        tokio::select! {
            _ = pulls => {}
            _ = moment => {}
        }
        mirror.kill9();
        volume::assert_only_right_bytes(mirror.root());
        mirror = mirror.restart().await;
    }
    for (path, digest) in &paths {
        let reply = mirror.get(path).await;
        assert_eq!((reply.status, reply.is_whole, reply.digest()), (200, true, *digest), "{path}");
    }
    volume::assert_only_right_bytes(mirror.root());
}
