//! Parts of blobs, warm, cold, and ahead of the fill.

use futures_util::future::join_all;
use hubsim::{Fault, Hub, Options, Target, Times};
use oci::Digest;

use crate::support::{
    Http2, Mirror, MirrorOptions, Reply, blob_path, hub_and_mirror, noise, push_blob, soon,
};

const REPOSITORY: &str = "library/ranges";
const MIB: usize = 1 << 20;
/// Not a round number, so that what is off by a block shows.
const SIZE: usize = 300_007;

/// Asks for a range of a blob of `SIZE` bytes twice: while it is cold, each of another blob, and while it is warm.
async fn cold_and_warm(hub: &Hub, mirror: &Mirror, range: &str) -> (Vec<u8>, [Reply; 2]) {
    // The range's own bytes make the blob another one.
    let seed = range.bytes().fold(7, |sum: u64, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    let bytes = noise(seed, SIZE);
    let digest = push_blob(hub, REPOSITORY, &bytes);
    let path = blob_path(REPOSITORY, digest);
    let cold = mirror.get_with(&path, &[("range", range)]).await;
    mirror.until_stored(&digest).await;
    let warm = mirror.get_with(&path, &[("range", range)]).await;
    assert_eq!(hub.counters().of(&digest).cdn_gets, 1, "{range} costs one download");
    for reply in [&cold, &warm] {
        assert!(reply.is_whole, "{range}");
        if reply.status < 400 {
            assert_eq!(reply.header("accept-ranges"), "bytes", "{range}");
            assert_eq!(reply.header("docker-content-digest"), digest.to_string(), "{range}");
        }
    }
    (bytes, [cold, warm])
}

/// Statement 39.
#[tokio::test]
async fn every_answer_with_a_blob_says_that_ranges_are_served() {
    let (hub, mirror) = hub_and_mirror().await;
    for (range, status) in [("bytes=0-9", 206), ("bytes=0-1,5-6", 206), ("bytes=5-6,0-1", 200), ("x", 200)] {
        let (_, replies) = cold_and_warm(&hub, &mirror, range).await;
        assert!(replies.iter().all(|reply| reply.status == status), "{range}");
    }
}

/// Statements 40, 41, 42 and 44, and 47.
#[tokio::test]
async fn a_range_is_answered_with_its_bytes_and_where_they_stand() {
    let (hub, mirror) = hub_and_mirror().await;
    for (range, start, end) in [
        ("bytes=500-1499", 500, 1500),
        ("bytes=0-0", 0, 1),
        ("bytes=500-", 500, SIZE),
        ("bytes=-500", SIZE - 500, SIZE),
        ("bytes=-9999999", 0, SIZE),
        ("bytes=2000-300007", 2000, SIZE),
        ("bytes=2000-99999999999999999999", 2000, SIZE),
        ("bytes=0-", 0, SIZE),
        ("bytes=0-300006", 0, SIZE),
        ("bytes=300006-", SIZE - 1, SIZE),
    ] {
        let (bytes, replies) = cold_and_warm(&hub, &mirror, range).await;
        for reply in replies {
            assert_eq!((reply.status, reply.content_length()), (206, (end - start) as u64), "{range}");
            assert_eq!(reply.header("content-range"), format!("bytes {start}-{}/{SIZE}", end - 1), "{range}");
            assert!(reply.body == bytes[start..end], "{range}: the bytes are others");
        }
    }
}

/// Statements 40 and 45.
#[tokio::test]
async fn without_sendfile_and_over_http2_ranges_have_the_same_bytes() {
    let hub = Hub::start(Options::default()).await;
    let mirror =
        Mirror::start_with(&hub, MirrorOptions::default().env("STOPOVER_HTTP__SENDFILE", "false")).await;
    let bytes = noise(400, 3 * MIB);
    let digest = push_blob(&hub, REPOSITORY, &bytes);
    let path = blob_path(REPOSITORY, digest);
    for time in ["cold", "warm"] {
        let http2 = Http2::connect(mirror.address()).await;
        for (start, end) in [(0, bytes.len()), (100_000, MIB + 1), (5, 6)] {
            let headers = [("range", &*format!("bytes={start}-{}", end - 1))];
            let over_http1 = mirror.get_with(&path, &headers).await;
            let over_http2 = http2.open("GET", &path, &headers).await.rest().await;
            for reply in [over_http1, over_http2] {
                assert_eq!((reply.status, reply.is_whole), (206, true), "{time} {headers:?}");
                assert!(reply.body == bytes[start..end], "{time} {headers:?}: the bytes are others");
            }
        }
        mirror.until_stored(&digest).await;
    }
}

/// Statement 43, and 47.
#[tokio::test]
async fn a_range_outside_of_the_blob_cannot_be_satisfied() {
    let (hub, mirror) = hub_and_mirror().await;
    for range in ["bytes=300007-", "bytes=300007-300008", "bytes=400000-", "bytes=500-0", "bytes=-0"] {
        let (_, replies) = cold_and_warm(&hub, &mirror, range).await;
        for reply in replies {
            assert_eq!(reply.status, 416, "{range}");
            assert_eq!(reply.header("content-range"), format!("bytes */{SIZE}"), "{range}");
            reply.error_code();
        }
    }
}

/// Reads a multipart body: what each part says it is, and its bytes.
fn parts_of(reply: &Reply) -> Vec<(String, Vec<u8>)> {
    let content_type = reply.header("content-type");
    let boundary = content_type.strip_prefix("multipart/byteranges; boundary=").expect("it is multipart");
    let (delimiter, end) = (format!("\r\n--{boundary}\r\n"), format!("\r\n--{boundary}--\r\n"));
    let mut rest = &reply.body[..];
    let mut parts = Vec::new();
    while rest != end.as_bytes() {
        rest = rest.strip_prefix(delimiter.as_bytes()).expect("a part begins with the boundary");
        let head_end = rest.windows(4).position(|four| four == b"\r\n\r\n").expect("a part has a head");
        let head = std::str::from_utf8(&rest[..head_end]).expect("a part's head is text");
        assert!(head.contains("Content-Type: application/octet-stream"), "{head}");
        let range = head.split("Content-Range: ").nth(1).expect("a part says its range");
        let range = range.lines().next().expect("there is a line").to_owned();
        rest = &rest[head_end + 4..];
        let after = |bytes: &[u8]| rest.windows(bytes.len()).position(|window| window == bytes);
        let len = after(&delimiter.as_bytes()[..boundary.len() + 4]).expect("a part ends with the boundary");
        parts.push((range, rest[..len].to_vec()));
        rest = &rest[len..];
    }
    parts
}

/// Statement 45, and 47.
#[tokio::test]
async fn several_ranges_are_answered_part_by_part_in_their_order() {
    let (hub, mirror) = hub_and_mirror().await;
    let sixteen: Vec<(usize, usize)> = (0..16).map(|at| (at * 10_000, at * 10_000 + 100 + at)).collect();
    let tables = [
        vec![(0, 1), (2, 3)],
        vec![(0, 100), (1000, 1001), (250_000, SIZE)],
        vec![(0, 100_000), (100_000, 200_000)],
        sixteen,
    ];
    for spans in tables {
        let ranges: Vec<String> = spans.iter().map(|(start, end)| format!("{start}-{}", end - 1)).collect();
        let range = format!("bytes={}", ranges.join(","));
        let (bytes, replies) = cold_and_warm(&hub, &mirror, &range).await;
        for reply in replies {
            assert_eq!((reply.status, reply.content_length()), (206, reply.body.len() as u64), "{range}");
            let parts = parts_of(&reply);
            assert_eq!(parts.len(), spans.len(), "{range}");
            for ((said, part), (start, end)) in parts.iter().zip(&spans) {
                assert_eq!(*said, format!("bytes {start}-{}/{SIZE}", end - 1));
                assert!(*part == bytes[*start..*end], "{range}: {said} has other bytes");
            }
        }
    }
}

/// Statements 45 and 46.
#[tokio::test]
async fn ranges_that_nobody_needs_are_answered_with_the_whole() {
    let (hub, mirror) = hub_and_mirror().await;
    let many: Vec<String> = (0..2000).map(|at| format!("{}-{}", at * 10, at * 10 + 1)).collect();
    let nested = vec!["0-".to_owned(); 1000].join(",");
    for ranges in [
        many[..17].join(","),
        many.join(","),
        nested,
        "0-99,50-149".to_owned(),
        "500-599,0-99".to_owned(),
        "0-1,400000-400001".to_owned(),
    ] {
        let (bytes, replies) = cold_and_warm(&hub, &mirror, &format!("bytes={ranges}")).await;
        for reply in replies {
            assert_eq!(reply.status, 200, "{}", &ranges[..ranges.len().min(40)]);
            assert!(reply.body == bytes);
        }
    }
}

/// Statement 47.
#[tokio::test]
async fn a_range_far_ahead_of_the_fill_is_fetched_by_itself() {
    let (hub, mirror) = hub_and_mirror().await;
    let bytes = noise(47, 8 * MIB);
    let digest = push_blob(&hub, REPOSITORY, &bytes);
    let path = blob_path(REPOSITORY, digest);
    hub.fault_on(Fault::StallAfter(MIB as u64), Times::Once, Target::reference(digest));
    let mut whole = mirror.open(&path, &[]).await;
    assert!(whole.read(MIB).await.expect("the beginning comes") == bytes[..MIB]);
    for start in [6 * MIB, 4 * MIB + 1] {
        let range = format!("bytes={start}-{}", start + 999);
        let reply = mirror.get_with(&path, &[("range", &range)]).await;
        assert_eq!((reply.status, reply.is_whole), (206, true));
        assert!(reply.body == bytes[start..start + 1000], "{range}: the bytes are others");
    }
    // The fill stands still all the while.
    let near = mirror.open(&path, &[("range", "bytes=1048576-1048585")]).await;
    assert_eq!(near.status, 206);
    hub.release();
    let (near, whole) = (near.rest().await, whole.rest().await);
    assert!(near.is_whole && near.body == bytes[MIB..MIB + 10]);
    assert!(whole.is_whole && whole.body == bytes[MIB..]);
    mirror.until_stored(&digest).await;
    assert!(
        std::fs::read(mirror.blob_file(&digest)).expect("it is stored") == bytes,
        "the stored bytes are right"
    );
}

/// Statement 47.
#[tokio::test]
async fn ranges_all_over_a_cold_blob_are_right_and_cost_about_one_download() {
    const PIECE: usize = 100_000;
    let hub = Hub::start(Options { line_rate: Some(64 << 20), ..Options::default() }).await;
    let mirror = Mirror::start(&hub).await;
    let bytes = noise(470, 12 * MIB);
    let digest = push_blob(&hub, REPOSITORY, &bytes);
    let path = blob_path(REPOSITORY, digest);
    // From the end to the beginning, so that most are far ahead of the fill.
    let clients = bytes.chunks(PIECE).enumerate().rev().map(async |(at, piece)| {
        let range = format!("bytes={}-{}", at * PIECE, at * PIECE + piece.len() - 1);
        let reply = mirror.get_with(&path, &[("range", &range)]).await;
        assert!(reply.status == 206 && reply.is_whole && reply.body == piece, "{range}: {}", reply.status);
    });
    soon("all ranges come", join_all(clients)).await;
    mirror.until_stored(&digest).await;
    assert!(std::fs::read(mirror.blob_file(&digest)).expect("it is stored") == bytes);
    let received = hub.counters().bytes(&digest);
    assert!(received < 3 * bytes.len() as u64 / 2, "{received} bytes came of {}", bytes.len());
}

/// Statement 47.
#[tokio::test]
async fn a_range_far_ahead_is_waited_for_where_the_registry_serves_none() {
    let (hub, mirror) = hub_and_mirror().await;
    let bytes = noise(471, 8 * MIB);
    let digest = push_blob(&hub, REPOSITORY, &bytes);
    hub.fault(Fault::NoRange, Times::Always);
    let reply = mirror.get_with(&blob_path(REPOSITORY, digest), &[("range", "bytes=7000000-7000999")]).await;
    assert!(reply.status == 206 && reply.is_whole && reply.body == bytes[7_000_000..7_001_000]);
    mirror.until_stored(&digest).await;
    assert!(std::fs::read(mirror.blob_file(&digest)).expect("it is stored") == bytes);
}

/// Reads a piece of an open-ended range and leaves, as containerd's parallel fetch does.
async fn read_and_leave(mirror: &Mirror, digest: &Digest, start: usize, bytes: &[u8], size: usize) {
    let range = format!("bytes={start}-");
    let mut answer = mirror.open(&blob_path(REPOSITORY, digest), &[("range", &range)]).await;
    assert_eq!(answer.status, 206);
    assert_eq!(answer.header("content-range"), format!("bytes {start}-{}/{size}", size - 1));
    let piece = answer.read(bytes.len()).await.expect("the piece comes");
    assert!(piece == bytes, "{range}: the bytes are others");
}

/// Statement 48.
#[tokio::test]
async fn many_clients_that_each_read_a_piece_and_leave_make_one_download() {
    const PIECE: usize = 256 << 10;
    const PIECES: usize = 128;
    let (hub, mirror) = hub_and_mirror().await;
    let bytes = noise(48, PIECE * PIECES);
    let digest = push_blob(&hub, REPOSITORY, &bytes);
    let pieces = bytes.chunks(PIECE).enumerate();
    let clients = pieces.map(|(at, piece)| read_and_leave(&mirror, &digest, at * PIECE, piece, bytes.len()));
    soon("all pieces come", join_all(clients)).await;
    mirror.until_stored(&digest).await;
    let counters = hub.counters();
    assert_eq!((counters.blob_get, counters.cdn_get), (1, 1));
    assert_eq!(counters.bytes(&digest), bytes.len() as u64);
    hub.reset_counters();
    let warm = mirror.get(&blob_path(REPOSITORY, digest)).await;
    assert!(warm.is_whole && warm.body == bytes);
    assert_eq!(hub.counters().total(), 0);
}
