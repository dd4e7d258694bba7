//! What stands around the product in a test: a trap for credentials, a proxy on the way out, a small disk, a volume of
//! registry:2; and the few checks that many tests make.

pub(crate) mod disk;
pub(crate) mod honey;
pub(crate) mod program;
pub(crate) mod proxy;
pub(crate) mod volume;

use std::time::{Duration, Instant};

use crate::support::{PATIENCE, Reply};

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
