//! What stands around the product in a test: a trap for credentials, a proxy on the way out, a front that speaks TLS, a small disk, a volume of
//! registry:2; and the few checks that many tests make.

pub(crate) mod disk;
pub(crate) mod honey;
pub(crate) mod https;
pub(crate) mod program;
pub(crate) mod proxy;
pub(crate) mod socks;
pub(crate) mod tls;
pub(crate) mod volume;

use std::time::{Duration, Instant};

use hubsim::kinds;

use crate::support::{Mirror, PATIENCE, Reply, blob_path, manifest_path};

/// Asks again and again until there is an answer.
pub(crate) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(begun.elapsed() < PATIENCE, "it never came to be: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Asserts an error of the specification's shape (statement 75): JSON, a code, words, and the request's name.
pub(crate) fn assert_error(what: &str, reply: &Reply, status: u16, code: &str) {
    assert_eq!((reply.status, reply.error_code().as_str()), (status, code), "{what}: {}", reply.text());
    let json = reply.json();
    let errors = json["errors"].as_array().expect("errors are a list");
    assert!(!errors.is_empty() && errors.iter().all(|error| error["message"].is_string()), "{what}: {json}");
    assert_eq!(reply.content_length(), reply.body.len() as u64, "{what}");
    assert_eq!(reply.header("docker-distribution-api-version"), "registry/2.0", "{what}");
}

/// Asserts that a client is told to come back soon, within `seconds_max`.
pub(crate) fn assert_retry_after(what: &str, reply: &Reply, seconds_max: u64) {
    let seconds: u64 =
        reply.header("retry-after").parse().unwrap_or_else(|_| panic!("{what}: no Retry-After: {reply:?}"));
    assert!((1..=seconds_max).contains(&seconds), "{what}: Retry-After is {seconds}");
}

/// Asserts an answer from the cache that may be out of date, and says so.
pub(crate) fn assert_stale(what: &str, reply: &Reply, digest: &oci::Digest) {
    assert_eq!((reply.status, reply.digest()), (200, *digest), "{what}: {}", reply.text());
    assert!(reply.header("warning").starts_with("299 - \""), "{what}: {:?}", reply.headers);
    assert!(reply.header("cache-status").ends_with("detail=stale"), "{what}: {:?}", reply.headers);
}

/// Pulls something whole, by digest and by tag, and asserts every byte and type.
pub(crate) async fn assert_pulls(when: &str, mirror: &Mirror, repository: &str, content: &kinds::Content) {
    let when = format!("{when}: {}", content.name);
    let by_digest = content.manifests.iter().map(|manifest| (manifest.digest.to_string(), manifest));
    for (reference, right) in by_digest.chain([(content.tag.clone(), content.top())]) {
        let reply = mirror.get(&manifest_path(repository, &reference)).await;
        assert_eq!(reply.status, 200, "{when}, {reference}: {}", reply.text());
        assert!(reply.body == right.bytes, "{when}, {reference}: other bytes");
        assert_eq!(reply.header("content-type"), right.media_type, "{when}, {reference}");
        assert_eq!(reply.header("docker-content-digest"), right.digest.to_string(), "{when}, {reference}");
    }
    for (digest, bytes) in &content.blobs {
        let reply = mirror.get(&blob_path(repository, digest)).await;
        assert!(reply.status == 200 && reply.body == *bytes, "{when}, {digest}: {}", reply.status);
    }
}
