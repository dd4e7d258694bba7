//! What the tests stand on: a mirror as a process, clients, content, and waiting for what will be so.
//!
//! Nothing here knows what a right answer is, and nothing sleeps for a length of time that matters.

mod canned;
mod client;
mod content;
mod mirror;
mod raw;

use std::time::{Duration, Instant};

use hubsim::{Hub, Options};

pub(crate) use canned::Canned;
pub(crate) use client::{Answer, Http2, Reply, get, head, send};
pub(crate) use content::{blob_path, manifest_path, noise, push_blob};
pub(crate) use mirror::{Mirror, MirrorOptions, refused};
pub(crate) use raw::exchange;

/// How long a test waits for what must come; a machine under load is slow, and nothing is asserted about time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
const EVERY: Duration = Duration::from_millis(2);

/// Starts a Hub as Docker Hub is, and a mirror of it that has nothing.
pub(crate) async fn hub_and_mirror() -> (Hub, Mirror) {
    let hub = Hub::start(Options::default()).await;
    let mirror = Mirror::start(&hub).await;
    (hub, mirror)
}

/// Waits until `look` sees it, and returns that.
pub(crate) async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(begun.elapsed() < PATIENCE, "it never came to be: {what}");
        tokio::time::sleep(EVERY).await;
    }
}

/// Waits for a future that must come to an end.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("it never came to be: {what}"),
    }
}
