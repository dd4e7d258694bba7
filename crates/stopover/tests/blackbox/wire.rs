//! The wire: keep-alive and HTTP/2, clients that leave in the middle, and requests that are none.

use futures_util::{StreamExt, stream};
use hubsim::{Fault, Hub, Options, Times, images};

use crate::{
    rig::{eventually, volume},
    support::{Http2, Mirror, MirrorOptions, blob_path, exchange, manifest_path, noise, push_blob},
};

const REPOSITORY: &str = "library/alpine";
/// Clients that leave in mid-body; enough that a file, a task or a lock left behind by each shows.
const ABORTS: usize = 2_000;
/// Files and threads that may be open besides, such as connections kept for reuse.
const SLACK: usize = 40;

/// Statement 90.
#[tokio::test]
async fn one_connection_serves_request_after_request() {
    let hub = Hub::start(Options::default()).await;
    let image = images::busybox(&hub, REPOSITORY, "1", images::Format::OciSingle);
    let mirror = Mirror::start(&hub).await;
    let host = mirror.address();
    let mut requests = String::new();
    for path in [manifest_path(REPOSITORY, "1"), blob_path(REPOSITORY, image.config), "/v2/x/y".to_owned()] {
        requests += &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    }
    requests += &format!("GET /v2/ HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let answers = String::from_utf8(exchange(host, requests).await).unwrap();
    let statuses: Vec<&str> = answers.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
    assert_eq!(statuses, ["200", "200", "404", "200"], "{answers}");
}

/// A slot is nobody's who asks for nothing: not before it is known which HTTP is spoken, and not after.
#[tokio::test]
async fn a_client_that_connects_and_asks_for_nothing_is_dropped() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    // An empty frame of settings, the first that HTTP/2 wants.
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let hub = Hub::start(Options::default()).await;
    for http2 in ["true", "false"] {
        let options = MirrorOptions::default()
            .env("STOPOVER_HTTP__HEADER_TIMEOUT", "1s")
            .env("STOPOVER_HTTP__HTTP2", http2);
        let mirror = Mirror::start_with(&hub, options).await;
        // Each of them ends by itself.
        for sent in [b"".to_vec(), b"P".to_vec(), PREFACE[..20].to_vec(), [PREFACE, &settings].concat()] {
            let answer = exchange(mirror.address(), sent.clone()).await;
            assert!(!answer.starts_with(b"HTTP/1.1 200"), "{http2} {sent:?}: {answer:?}");
        }
        assert_eq!(mirror.get("/v2/").await.status, 200);
    }
}

/// Statement 90.
#[tokio::test]
async fn http2_is_spoken_to_whoever_begins_with_it() {
    let hub = Hub::start(Options::default()).await;
    let image = images::busybox(&hub, REPOSITORY, "1", images::Format::OciSingle);
    let large = push_blob(&hub, REPOSITORY, &noise(1, 3 << 20));
    let mirror = Mirror::start(&hub).await;
    let http2 = Http2::connect(mirror.address()).await;
    for _ in 0..2 {
        let reply = http2.open("GET", &manifest_path(REPOSITORY, "1"), &[]).await.rest().await;
        assert_eq!((reply.status, reply.digest()), (200, image.manifest));
        let reply = http2.open("GET", &blob_path(REPOSITORY, large), &[]).await.rest().await;
        assert_eq!((reply.status, reply.digest()), (200, large));
    }
    let path = blob_path(REPOSITORY, large);
    let at_once =
        (0..20).map(|_| async { http2.open("GET", &path, &[("range", "bytes=5-9")]).await.rest().await });
    for reply in futures_util::future::join_all(at_once).await {
        assert_eq!((reply.status, &reply.body[..]), (206, &noise(1, 10)[5..]));
    }
    let reply = http2.open("GET", "/v2/x/y", &[]).await.rest().await;
    assert_eq!((reply.status, reply.error_code().as_str()), (404, "UNSUPPORTED"));
}

fn threads(mirror: &Mirror) -> usize {
    std::fs::read_dir(format!("/proc/{}/task", mirror.pid())).unwrap().count()
}

/// Statement 90: neither a warm nor a cold body leaves anything behind when its client goes.
#[tokio::test]
async fn two_thousand_clients_that_leave_in_the_middle_leave_nothing_behind() {
    let hub = Hub::start(Options::default()).await;
    let warm = push_blob(&hub, REPOSITORY, &noise(1, 4 << 20));
    let cold: Vec<_> = (2..18).map(|seed| push_blob(&hub, REPOSITORY, &noise(seed, 256 << 10))).collect();
    let mirror = Mirror::start(&hub).await;
    assert_eq!(mirror.get(&blob_path(REPOSITORY, warm)).await.digest(), warm);
    // The pool of threads for files comes to be with the first requests, and is no leak.
    let (files, tasks) = (mirror.open_files(), 80);
    let paths: Vec<String> = [warm].iter().chain(&cold).map(|blob| blob_path(REPOSITORY, blob)).collect();
    let aborts = stream::iter(0..ABORTS).map(|n| {
        let (mirror, path) = (&mirror, &paths[n % paths.len()]);
        async move {
            let mut answer = mirror.open(path, &[]).await;
            assert_eq!(answer.status, 200);
            answer.read(1 + n % 5_000).await.expect("the body begins");
        }
    });
    aborts.buffer_unordered(16).collect::<()>().await;

    eventually("the files and connections are closed", async || {
        let (open, running) = (mirror.open_files(), threads(&mirror));
        (open <= files + SLACK && running <= tasks).then_some(())
    })
    .await;
    eventually("nothing is under way", async || {
        let text = mirror.metrics().await;
        let idle = |name: &str| text.lines().any(|line| line == format!("{name} 0"));
        ["stopover_fills", "stopover_followers", "stopover_connections{listener=\"tcp\"}"]
            .iter()
            .all(|name| idle(name))
            .then_some(())
    })
    .await;
    for blob in [warm].iter().chain(&cold) {
        let reply = mirror.get(&blob_path(REPOSITORY, blob)).await;
        assert_eq!((reply.status, reply.digest()), (200, *blob));
        assert_eq!(hub.counters().of(blob).blob_gets, 1, "however many have left, it was fetched once");
    }
}

/// Statement 90: over HTTP/2 many leave on one connection, and while nothing comes.
#[tokio::test]
async fn streams_that_are_reset_in_mid_body_leave_nothing_behind() {
    let hub = Hub::start(Options::default()).await;
    let content = noise(1, 2 << 20);
    let blob = push_blob(&hub, REPOSITORY, &content);
    let mirror = Mirror::start(&hub).await;
    hub.fault(Fault::StallAfter(1 << 20), Times::Once);
    let http2 = Http2::connect(mirror.address()).await;
    for n in 0..50 {
        let mut answer = http2.open("GET", &blob_path(REPOSITORY, blob), &[]).await;
        assert_eq!(answer.read(1 + n).await.expect("the body begins"), content[..=n]);
    }
    hub.release();
    let reply = http2.open("GET", &blob_path(REPOSITORY, blob), &[]).await.rest().await;
    assert_eq!((reply.is_whole, reply.digest()), (true, blob));
    mirror.until_metric("stopover_followers", |followers| followers == 0.0).await;
    assert_eq!(hub.counters().of(&blob).cdn_gets, 1);
}

/// Requests that are malformed, or could be read in two ways, each whole; `HOST` is the mirror's.
fn malformed() -> Vec<(&'static str, Vec<u8>)> {
    let line = |target: &str| {
        format!("GET {target} HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n").into_bytes()
    };
    let head = |headers: &str| {
        let path = "/v2/library/alpine/manifests/1";
        format!("GET {path} HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n{headers}\r\n").into_bytes()
    };
    vec![
        ("length and encoding", head("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n")),
        ("two lengths", head("Content-Length: 3\r\nContent-Length: 4\r\n")),
        ("two lengths of nothing", head("Content-Length: 0\r\nContent-Length: 5\r\n")),
        ("a length that is no number", head("Content-Length: 0x0\r\n")),
        ("a negative length", head("Content-Length: -1\r\n")),
        ("an encoding that is none", head("Transfer-Encoding: chunked, identity\r\n")),
        ("a body", head("Content-Length: 3\r\n")),
        ("a header without a name", head(": x\r\n")),
        ("a header with a space in its name", head("Content-Length : 0\r\n")),
        ("a folded header", head("X: a\r\n b\r\n")),
        ("NUL in a header", head("X: a\0b\r\n")),
        ("absolute form", line("http://HOST/v2/library/alpine/manifests/1")),
        ("absolute form of another host", line("http://example.org/v2/library/alpine/manifests/1")),
        ("escaped dots", line("/v2/library/%2e%2e/manifests/1")),
        ("half escaped dots", line("/v2/library/.%2E/alpine/manifests/1")),
        ("dots", line("/v2/library/../alpine/manifests/1")),
        ("dots at the end", line("/v2/library/alpine/manifests/..")),
        ("an escaped slash", line("/v2/library%2falpine/manifests/1")),
        ("an escaped slash in a tag", line("/v2/library/alpine/manifests/..%2F..%2Fetc")),
        ("an empty segment", line("/v2//library/alpine/manifests/1")),
        ("an empty segment inside", line("/v2/library//alpine/manifests/1")),
        ("an escaped NUL", line("/v2/library/alpine/manifests/1%00")),
        (
            "NUL",
            b"GET /v2/library/alpine/manifests/1\0 HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n"
                .to_vec(),
        ),
        ("a backslash", line("/v2/library\\alpine/manifests/1")),
        ("an escape of an escape", line("/v2/library/%252e%252e/manifests/1")),
        (
            "a byte above ASCII",
            b"GET /v2/library/\xff/manifests/1 HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n".to_vec(),
        ),
        ("no HTTP", b"HELO mirror\r\n\r\n".to_vec()),
        ("an unknown version", b"GET /v2/ HTTP/7.1\r\nHost: HOST\r\n\r\n".to_vec()),
    ]
}

/// Statement 91: refused in the specification's shape, by us or by the library beneath us, and nothing comes of it.
#[tokio::test]
async fn what_is_no_request_is_refused_in_the_registrys_shape_and_goes_nowhere() {
    let hub = Hub::start(Options::default()).await;
    images::busybox(&hub, REPOSITORY, "1", images::Format::OciSingle);
    let mirror = Mirror::start(&hub).await;
    for (what, request) in malformed() {
        let request = replace(&request, b"HOST", mirror.address().as_bytes());
        let answer = exchange(mirror.address(), request).await;
        let answer = String::from_utf8(answer).unwrap();
        let status: u16 = answer.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0);
        assert!((400..500).contains(&status), "{what}: {answer:?}");
        let (head, body) = answer.split_once("\r\n\r\n").expect("the head ends");
        let head = head.to_lowercase();
        assert!(head.contains("\r\ncontent-type: application/json\r\n"), "{what}: {answer:?}");
        assert!(
            head.contains(&format!("\r\ncontent-length: {}", body.len())),
            "{what}: one answer alone: {answer:?}"
        );
        let json: serde_json::Value =
            serde_json::from_str(body).unwrap_or_else(|_| panic!("{what}: {answer:?}"));
        assert!(json["errors"][0]["code"].is_string(), "{what}: {json}");
    }
    assert_eq!(hub.counters().total(), 0, "nothing reached the registry");
    assert!(volume::contents(mirror.root()).is_empty());
    assert!(!mirror.root().join("docker/registry/v2/repositories").exists(), "nothing reached the disk");
}

fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut replaced = Vec::new();
    let mut rest = bytes;
    while let Some(at) = rest.windows(from.len()).position(|window| window == from) {
        replaced.extend_from_slice(&rest[..at]);
        replaced.extend_from_slice(to);
        rest = &rest[at + from.len()..];
    }
    replaced.extend_from_slice(rest);
    replaced
}

/// Statement 92.
#[tokio::test]
async fn names_tags_and_paths_of_too_many_characters_are_refused_without_asking() {
    let hub = Hub::start(Options::default()).await;
    let mirror = Mirror::start(&hub).await;
    let (component, hex) = ("a".repeat(255), "0".repeat(64));
    let table = [
        (format!("/v2/{}/manifests/1", "a".repeat(256)), 400, "NAME_INVALID"),
        (format!("/v2/{}/a/manifests/1", component), 400, "NAME_INVALID"),
        (format!("/v2/{}manifests/1", "a/".repeat(200)), 400, "NAME_INVALID"),
        ("/v2/Library/Alpine/manifests/1".to_owned(), 400, "NAME_INVALID"),
        ("/v2/library/-alpine/manifests/1".to_owned(), 400, "NAME_INVALID"),
        ("/v2/library/a__b..c/blobs/sha256:".to_owned() + &hex, 400, "NAME_INVALID"),
        (format!("/v2/{REPOSITORY}/manifests/{}", "t".repeat(129)), 404, "TAG_INVALID"),
        (format!("/v2/{REPOSITORY}/manifests/.hidden"), 404, "TAG_INVALID"),
        (format!("/v2/{REPOSITORY}/blobs/sha256:{}", &hex[..63]), 400, "DIGEST_INVALID"),
        (format!("/v2/{REPOSITORY}/blobs/sha256:{hex}0"), 400, "DIGEST_INVALID"),
        (format!("/v2/{REPOSITORY}/blobs/sha256:{}", "A".repeat(64)), 400, "DIGEST_INVALID"),
        (format!("/v2/{REPOSITORY}/blobs/md5:{}", &hex[..32]), 400, "DIGEST_INVALID"),
        (format!("/v2/{REPOSITORY}/manifests/{}", "x/".repeat(2_000)), 400, "NAME_INVALID"),
        (format!("/v2/{REPOSITORY}/tags/list?last={}", "x".repeat(5_000)), 400, "UNSUPPORTED"),
    ];
    for (path, status, code) in table {
        let reply = mirror.get(&path).await;
        let shown = &path[..path.len().min(60)];
        assert_eq!((reply.status, reply.error_code().as_str()), (status, code), "{shown}");
    }
    let long_head = format!("GET /v2/ HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(100 << 10));
    let answer = exchange(mirror.address(), long_head).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 431 ") && answer.contains("\"errors\":["), "{answer}");
    assert_eq!(hub.counters().total(), 0);
    assert!(!mirror.root().join("docker/registry/v2/repositories").exists());
}

/// The longest that is allowed is served.
#[tokio::test]
async fn names_and_tags_of_just_as_many_characters_as_allowed_are_asked_for() {
    let hub = Hub::start(Options::default()).await;
    let (name, tag) = (format!("library/{}", "a".repeat(247)), "t".repeat(128));
    let image = images::busybox(&hub, &name, &tag, images::Format::OciSingle);
    let mirror = Mirror::start(&hub).await;
    assert_eq!(mirror.get(&manifest_path(&name, &tag)).await.digest(), image.manifest);
    mirror.restart().await;
}
