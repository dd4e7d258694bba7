//! The ping, what is no pull, and what never leaks.

use bytes::Bytes;
use http::{Response, header};
use http_body_util::Full;
use hubsim::{
    Hub, Options,
    images::{self, Format},
};
use oci::{Algorithm, Digest};
use serde_json::json;

use crate::support::{
    Canned, Mirror, MirrorOptions, Reply, blob_path, exchange, hub_and_mirror, manifest_path, push_blob, send,
};

/// Statement 1.
#[tokio::test]
async fn a_ping_needs_no_account_and_says_which_api_is_spoken() {
    let (_hub, mirror) = hub_and_mirror().await;
    let reply = mirror.get("/v2/").await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "{}"));
    assert_eq!(reply.header("content-type"), "application/json");
    assert_eq!(reply.header("docker-distribution-api-version"), "registry/2.0");
}

/// Statement 2.
#[tokio::test]
async fn a_ping_may_lack_its_slash_or_ask_for_the_head_alone() {
    let (hub, mirror) = hub_and_mirror().await;
    let without_slash = mirror.get("/v2").await;
    assert_eq!((without_slash.status, without_slash.text().as_str()), (200, "{}"));
    for path in ["/v2", "/v2/"] {
        let head = mirror.head(path).await;
        assert_eq!((head.status, head.content_length(), head.body.len()), (200, 2, 0), "{path}");
        assert_eq!(head.header("docker-distribution-api-version"), "registry/2.0");
    }
    assert_eq!(hub.counters().total(), 0, "a ping is nobody's business but the mirror's");
}

/// Statement 3.
#[tokio::test]
async fn a_ping_is_answered_while_the_registry_is_down() {
    let hub = Hub::start(Options::default()).await;
    hub.stop_listening().await;
    let mirror = Mirror::start(&hub).await;
    assert_eq!(mirror.get("/v2/").await.status, 200);
}

/// Statement 9.
#[tokio::test]
async fn a_name_of_one_component_means_the_official_image() {
    let (hub, mirror) = hub_and_mirror().await;
    let image = images::busybox(&hub, "library/nginx", "latest", Format::OciSingle);
    let short = mirror.get("/v2/nginx/manifests/latest").await;
    assert_eq!((short.status, short.header("location")), (200, ""));
    assert_eq!(short.digest(), image.manifest);
    let seen = hub.counters().requests;
    let asked = seen.iter().filter(|seen| seen.path.starts_with("/v2/"));
    assert!(
        asked.clone().count() > 0
            && asked.into_iter().all(|seen| seen.path.starts_with("/v2/library/nginx/"))
    );
    hub.reset_counters();
    assert_eq!(mirror.get("/v2/library/nginx/manifests/latest").await.body, short.body);
    assert_eq!(hub.counters().total(), 0, "both names are of one repository");
}

/// Statement 14.
#[tokio::test]
async fn whatever_would_change_something_is_refused() {
    let (hub, mirror) = hub_and_mirror().await;
    let digest = Digest::of(Algorithm::Sha256, b"x");
    let paths = [
        "/v2/".to_owned(),
        manifest_path("library/nginx", "latest"),
        blob_path("library/nginx", digest),
        "/v2/library/nginx/blobs/uploads/".to_owned(),
        "/v2/library/nginx/tags/list".to_owned(),
        "/v2/_catalog".to_owned(),
    ];
    for path in &paths {
        for method in ["POST", "PUT", "PATCH", "DELETE"] {
            let reply = send(method, &format!("{}{path}", mirror.url()), &[]).await;
            let reply = reply.unwrap_or_else(|error| panic!("{method} {path} had no answer: {error}"));
            assert_eq!((reply.status, reply.error_code().as_str()), (405, "UNSUPPORTED"), "{method} {path}");
        }
    }
    let upload = "POST /v2/x/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n0123456789";
    let answer = exchange(mirror.address(), upload).await;
    assert!(answer.starts_with(b"HTTP/1.1 405 "), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(hub.counters().total(), 0);
}

/// Statement 15.
#[tokio::test]
async fn there_is_no_catalogue() {
    let (hub, mirror) = hub_and_mirror().await;
    for path in ["/v2/_catalog", "/v2/_catalog?n=100"] {
        let reply = mirror.get(path).await;
        assert_eq!((reply.status, reply.error_code().as_str()), (404, "UNSUPPORTED"));
    }
    assert_eq!(hub.counters().total(), 0);
}

/// What an upstream says for us, and nobody else.
const NOT_FOR_CLIENTS: [&str; 8] = [
    "set-cookie",
    "www-authenticate",
    "location",
    "x-registry-supports-signatures",
    "ratelimit-limit",
    "ratelimit-remaining",
    "docker-ratelimit-source",
    "x-of-the-upstream",
];

fn leaks_nothing(what: &str, reply: &Reply) {
    for name in NOT_FOR_CLIENTS {
        assert!(!reply.headers.contains_key(name), "{what} has {name}: {:?}", reply.headers);
    }
}

/// Statement 16.
#[tokio::test]
async fn no_header_of_the_registry_reaches_a_client() {
    const MANIFEST: &str = "{\"schemaVersion\":2}";
    const BLOB: &str = "a blob";
    let manifest = Digest::of(Algorithm::Sha256, MANIFEST.as_bytes());
    let blob = Digest::of(Algorithm::Sha256, BLOB.as_bytes());
    let talkative = Canned::start(move |request| {
        let path = request.uri().path();
        let (status, content_type, body) = match path {
            _ if path.contains("denied") => (403, "application/json", json!({ "errors": [] }).to_string()),
            _ if path.contains("limited") => (429, "application/json", json!({ "errors": [] }).to_string()),
            _ if path.contains("/manifests/") => (200, oci::OCI_MANIFEST, MANIFEST.to_owned()),
            _ if path.contains("/blobs/") => (200, oci::OCTET_STREAM, BLOB.to_owned()),
            _ if path.contains("/tags/") => (200, "application/json", json!({ "tags": ["a"] }).to_string()),
            _ => (404, "application/json", json!({ "errors": [] }).to_string()),
        };
        let mut response = Response::builder().status(status).header(header::CONTENT_TYPE, content_type);
        for name in NOT_FOR_CLIENTS {
            response = response.header(name, "10;w=60");
        }
        if path.contains("/manifests/") {
            response = response.header("docker-content-digest", manifest.to_string());
        }
        response.body(Full::new(Bytes::from(body))).expect("the headers are good")
    })
    .await;
    let hub = Hub::start(Options::default()).await;
    let mirror = Mirror::start_with(&hub, MirrorOptions::default().upstream(talkative.url())).await;
    let answers = [
        (manifest_path("a/b", "latest"), 200),
        (manifest_path("a/b", manifest), 200),
        (blob_path("a/b", blob), 200),
        ("/v2/a/b/tags/list".to_owned(), 200),
        (format!("/v2/a/b/referrers/{manifest}"), 404),
        (manifest_path("a/denied", "latest"), 403),
    ];
    // The last, since a registry that says 429 is left alone for a while.
    let limited = (manifest_path("a/limited", "latest"), 429);
    for (path, status) in answers.iter().chain(&answers).chain([&limited]) {
        let (head, reply) = (mirror.head(path).await, mirror.get(path).await);
        assert_eq!(reply.status, *status, "{path}: {}", reply.text());
        leaks_nothing(path, &head);
        leaks_nothing(path, &reply);
    }
}

/// Statement 16.
#[tokio::test]
async fn the_quota_of_the_mirrors_own_account_is_not_told() {
    let hub = Hub::start(Options { quota: Some(1), ..Options::default() }).await;
    let mirror = Mirror::start(&hub).await;
    let image = images::busybox(&hub, "library/a", "1", Format::OciSingle);
    images::busybox(&hub, "library/a", "2", Format::OciSingle);
    let blob = push_blob(&hub, "library/a", b"a blob");
    for (path, status) in [
        (manifest_path("library/a", "1"), 200),
        (manifest_path("library/a", image.manifest), 200),
        (manifest_path("library/private", "1"), 401),
        (manifest_path("library/a", "2"), 429),
        (blob_path("library/a", blob), 200),
    ] {
        let reply = mirror.get(&path).await;
        assert_eq!(reply.status, status, "{path}: {}", reply.text());
        leaks_nothing(&path, &reply);
    }
}
