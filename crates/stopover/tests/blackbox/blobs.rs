//! Blobs: streamed as they come, once for all, each client at its own pace.

use futures_util::future::join_all;
use hubsim::{Fault, Hub, Options, Target, Times, images};
use oci::{Algorithm, Digest};

use crate::support::{Mirror, blob_path, hub_and_mirror, manifest_path, noise, push_blob};

const REPOSITORY: &str = "library/blobs";
const MIB: usize = 1 << 20;

async fn pulls(mirror: &Mirror, digest: &Digest, bytes: &[u8]) {
    let reply = mirror.get(&blob_path(REPOSITORY, digest)).await;
    assert_eq!((reply.status, reply.is_whole), (200, true));
    assert!(reply.body == bytes, "the bytes are others");
}

/// Statement 36.
#[tokio::test]
async fn a_cold_blob_is_sent_on_as_it_comes() {
    let (hub, mirror) = hub_and_mirror().await;
    let bytes = noise(36, 4 * MIB);
    let digest = push_blob(&hub, REPOSITORY, &bytes);
    // At the last of these the client gets what has come, but for what the mirror holds back of a blob's end.
    for came in [1, 100_000, MIB] {
        hub.fault_on(Fault::StallAfter(came as u64), Times::Once, Target::reference(digest));
        let mirror = Mirror::start(&hub).await;
        let mut answer = mirror.open(&blob_path(REPOSITORY, digest), &[]).await;
        assert_eq!((answer.status, answer.header("content-length")), (200, "4194304"));
        let first = answer.read(came).await.expect("what has come is sent");
        assert!(first == bytes[..came], "{came}");
        hub.release();
        let rest = answer.rest().await;
        assert!(rest.is_whole && rest.body == bytes[came..], "{came}");
    }
    pulls(&mirror, &digest, &bytes).await;
}

/// Statement 37.
#[tokio::test]
async fn a_blob_says_its_length_and_comes_in_one_piece() {
    let (hub, mirror) = hub_and_mirror().await;
    let bytes = noise(37, 300_001);
    let digest = push_blob(&hub, REPOSITORY, &bytes);
    for time in ["cold", "warm"] {
        let reply = mirror.get(&blob_path(REPOSITORY, digest)).await;
        assert_eq!((reply.status, reply.content_length()), (200, 300_001), "{time}");
        assert_eq!(reply.header("transfer-encoding"), "", "{time}");
        assert_eq!(reply.header("docker-content-digest"), digest.to_string());
        assert!(reply.is_whole && reply.body == bytes, "{time}");
        mirror.until_stored(&digest).await;
    }
}

/// Statement 37.
#[tokio::test]
async fn a_blob_says_its_length_also_where_the_registry_does_not() {
    let (hub, mirror) = hub_and_mirror().await;
    let image = images::image_of_blobs(&hub, REPOSITORY, "latest", 1, 300_000);
    mirror.get(&manifest_path(REPOSITORY, "latest")).await;
    hub.fault(Fault::NoContentLength, Times::Always);
    let reply = mirror.get(&blob_path(REPOSITORY, image.layers[0])).await;
    assert_eq!((reply.status, reply.content_length(), reply.is_whole), (200, 300_000, true));
    assert_eq!(reply.digest(), image.layers[0]);
}

/// Statement 38.
#[tokio::test]
async fn a_head_of_a_blob_says_all_about_it_and_downloads_nothing() {
    let (hub, mirror) = hub_and_mirror().await;
    let bytes = noise(38, 200_000);
    let digest = push_blob(&hub, REPOSITORY, &bytes);
    let path = blob_path(REPOSITORY, digest);
    for time in ["cold", "warm"] {
        let head = mirror.head(&path).await;
        assert_eq!((head.status, head.content_length(), head.body.len()), (200, 200_000, 0), "{time}");
        assert_eq!(head.header("docker-content-digest"), digest.to_string(), "{time}");
        assert_eq!(head.header("accept-ranges"), "bytes", "{time}");
        assert_eq!(head.header("content-type"), "application/octet-stream", "{time}");
        if time == "cold" {
            let counters = hub.counters();
            assert_eq!((counters.blob_get, counters.cdn_get, counters.bytes(&digest)), (0, 0, 0));
            assert!(!mirror.blob_file(&digest).exists());
            pulls(&mirror, &digest, &bytes).await;
            mirror.until_stored(&digest).await;
            hub.reset_counters();
        }
    }
    assert_eq!(hub.counters().total(), 0, "a stored blob's head is here");
}

/// Statement 35.
#[tokio::test]
async fn a_client_that_has_the_blob_is_told_so() {
    let (hub, mirror) = hub_and_mirror().await;
    let digest = push_blob(&hub, REPOSITORY, b"a blob");
    let path = blob_path(REPOSITORY, digest);
    let quoted = format!("\"{digest}\"");
    assert_eq!(mirror.get(&path).await.header("etag"), quoted);
    let same = mirror.get_with(&path, &[("if-none-match", &quoted)]).await;
    assert_eq!((same.status, same.body.len(), same.header("etag")), (304, 0, quoted.as_str()));
}

/// Statement 38.
#[tokio::test]
async fn a_blob_that_is_not_there_is_unknown() {
    let (hub, mirror) = hub_and_mirror().await;
    push_blob(&hub, REPOSITORY, b"another");
    let path = blob_path(REPOSITORY, Digest::of(Algorithm::Sha256, b"nowhere"));
    for headers in [&[][..], &[("range", "bytes=0-9")]] {
        let reply = mirror.get_with(&path, headers).await;
        assert_eq!((reply.status, reply.error_code().as_str()), (404, "BLOB_UNKNOWN"));
        let head = mirror.head(&path).await;
        assert_eq!((head.status, head.body.len()), (404, 0));
    }
}

/// Statement 49.
#[tokio::test]
async fn a_client_that_leaves_does_not_end_the_fill_and_another_joins_it() {
    let (hub, mirror) = hub_and_mirror().await;
    let bytes = noise(49, 3 * MIB);
    let digest = push_blob(&hub, REPOSITORY, &bytes);
    hub.fault(Fault::StallAfter(MIB as u64), Times::Once);
    let path = blob_path(REPOSITORY, digest);
    let mut leaving = mirror.open(&path, &[]).await;
    assert!(leaving.read(1000).await.expect("the first bytes come") == bytes[..1000]);
    drop(leaving);
    mirror.until_metric("stopover_connections", |open| open == 0.0).await;
    let mut joining = mirror.open(&path, &[]).await;
    assert!(joining.header("cache-status").contains("joined"), "{}", joining.header("cache-status"));
    assert!(joining.read(MIB).await.expect("what is there already comes") == bytes[..MIB]);
    hub.release();
    let rest = joining.rest().await;
    assert!(rest.is_whole && rest.body == bytes[MIB..]);
    mirror.until_stored(&digest).await;
    assert_eq!((hub.counters().cdn_get, hub.counters().bytes(&digest)), (1, bytes.len() as u64));
}

/// Statement 49.
#[tokio::test]
async fn a_fill_that_all_have_left_goes_on_where_little_is_left() {
    let (hub, mirror) = hub_and_mirror().await;
    let bytes = noise(490, 2 * MIB);
    let digest = push_blob(&hub, REPOSITORY, &bytes);
    hub.fault(Fault::StallAfter(MIB as u64), Times::Once);
    let mut leaving = mirror.open(&blob_path(REPOSITORY, digest), &[]).await;
    leaving.read(1).await.expect("the first byte comes");
    drop(leaving);
    mirror.until_metric("stopover_connections", |open| open == 0.0).await;
    hub.release();
    mirror.until_stored(&digest).await;
    pulls(&mirror, &digest, &bytes).await;
    assert_eq!(hub.counters().cdn_get, 1);
}

/// Statement 50.
#[tokio::test]
async fn fifty_clients_of_one_cold_blob_make_one_download() {
    let (hub, mirror) = hub_and_mirror().await;
    let bytes = noise(50, MIB);
    let digest = push_blob(&hub, REPOSITORY, &bytes);
    join_all((0..50).map(|_| pulls(&mirror, &digest, &bytes))).await;
    let counters = hub.counters();
    assert_eq!((counters.blob_get, counters.cdn_get, counters.bytes(&digest)), (1, 1, bytes.len() as u64));
    assert!(counters.token <= 1, "{} tokens", counters.token);
}

/// Statement 51.
#[tokio::test]
async fn slow_clients_slow_nobody_and_cost_no_memory() {
    /// More than the kernel keeps for one connection, so that the mirror cannot be rid of it.
    const BLOB_BYTES: u64 = 24 << 20;
    const SLOW: usize = 12;
    /// A fraction of what these clients have not read yet.
    const MEMORY_BYTES_MAX: u64 = 64 << 20;
    let (hub, mirror) = hub_and_mirror().await;
    let digest = images::blobs(&hub, REPOSITORY, 1, BLOB_BYTES)[0];
    let path = blob_path(REPOSITORY, digest);
    let mut slow = Vec::new();
    for _ in 0..SLOW {
        let mut answer = mirror.open(&path, &[]).await;
        answer.read(1000).await.expect("the first bytes come");
        slow.push(answer);
    }
    let fast = mirror.get(&path).await;
    assert!(fast.is_whole && fast.digest() == digest, "a fast client has it all");
    assert!(mirror.memory_bytes() < MEMORY_BYTES_MAX, "it keeps {} bytes", mirror.memory_bytes());
    mirror.until_stored(&digest).await;
    let rest = slow.pop().expect("there are some").rest().await;
    assert!(rest.is_whole && rest.body == fast.body[1000..], "a slow client has it all, later");
    assert_eq!(hub.counters().cdn_get, 1);
}

/// Statement 55.
#[tokio::test]
async fn nothing_is_ever_compressed_on_the_way() {
    let (hub, mirror) = hub_and_mirror().await;
    let image = images::busybox(&hub, REPOSITORY, "latest", images::Format::OciSingle);
    let accept = [("accept-encoding", "zstd, gzip, br, deflate")];
    for path in [manifest_path(REPOSITORY, "latest"), blob_path(REPOSITORY, image.config)] {
        for time in ["cold", "warm"] {
            let reply = mirror.get_with(&path, &accept).await;
            assert_eq!((reply.status, reply.header("content-encoding")), (200, ""), "{time} {path}");
            assert!([image.manifest, image.config].contains(&reply.digest()), "{time} {path}");
        }
    }
    let seen = hub.counters().requests;
    let encodings = seen.iter().filter_map(|seen| seen.accept_encoding.as_deref());
    assert!(encodings.clone().all(|encoding| encoding == "identity"), "{:?}", encodings.collect::<Vec<_>>());
}

/// Statement 55.
#[tokio::test]
async fn what_a_registry_compresses_unasked_reaches_nobody_as_the_blob() {
    let (hub, mirror) = hub_and_mirror().await;
    let digest = push_blob(&hub, REPOSITORY, &noise(55, 1000));
    hub.fault(Fault::ContentEncodingGzip, Times::Always);
    let reply = mirror.get(&blob_path(REPOSITORY, digest)).await;
    assert_eq!(reply.header("content-encoding"), "");
    let right = reply.status == 200 && reply.digest() == digest;
    assert!(right || reply.status == 502, "{}", reply.status);
}

/// Statement 57.
#[tokio::test]
async fn a_blob_of_no_byte_and_one_of_a_single_byte_are_blobs() {
    let (hub, mut mirror) = hub_and_mirror().await;
    let blobs = [push_blob(&hub, REPOSITORY, b""), push_blob(&hub, REPOSITORY, b"x")];
    for time in ["cold", "warm", "from the disk"] {
        for (digest, bytes) in blobs.iter().zip([&b""[..], b"x"]) {
            let path = blob_path(REPOSITORY, digest);
            for reply in [mirror.head(&path).await, mirror.get(&path).await, mirror.head(&path).await] {
                assert_eq!((reply.status, reply.content_length()), (200, bytes.len() as u64), "{time}");
                assert!(reply.is_whole && (reply.body.is_empty() || reply.body == bytes), "{time}");
            }
            pulls(&mirror, digest, bytes).await;
            mirror.until_stored(digest).await;
        }
        if time == "warm" {
            mirror = mirror.restart().await;
        }
    }
    assert_eq!(hub.counters().cdn_get, 2);
}

/// Statement 57.
#[tokio::test]
async fn a_blob_of_no_byte_needs_no_length_from_the_registry() {
    let hub = Hub::start(Options { redirect: hubsim::Redirect::None, ..Options::default() }).await;
    let mirror = Mirror::start(&hub).await;
    let digest = push_blob(&hub, REPOSITORY, b"");
    hub.fault(Fault::NoContentLength, Times::Always);
    pulls(&mirror, &digest, b"").await;
}
