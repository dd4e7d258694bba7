//! What the Hub has seen, so that a test can say "exactly one".
//!
//! A request that is answered with the 401 of a challenge counts as `challenged` and not under its kind: it is how a
//! client finds the token service, and costs no quota. Every other one counts under its kind when it arrives, also if
//! a fault then strikes it.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use serde::Serialize;

/// How many requests are remembered in order; the oldest are forgotten.
pub const REQUESTS_KEPT_MAX: usize = 20_000;

/// A snapshot of everything counted since the start or the last reset.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Counters {
    /// TCP connections accepted, on all ports.
    pub connections: u64,
    /// Requests answered with a challenge.
    pub challenged: u64,
    /// `/v2/`.
    pub ping: u64,
    /// Tokens asked for, anonymous or not.
    pub token: u64,
    /// Those of them that came with a user and a password.
    pub token_basic: u64,
    /// HEAD of manifests.
    pub manifest_head: u64,
    /// GET of manifests.
    pub manifest_get: u64,
    /// HEAD of blobs.
    pub blob_head: u64,
    /// GET of blobs, at the registry.
    pub blob_get: u64,
    /// Requests to the CDN (or to the registry's own signed paths), but for those refused and redirected.
    pub cdn_get: u64,
    /// Requests that the CDN refused since they carried an `Authorization`.
    pub refused_cdn_auth: u64,
    /// Requests that the CDN refused since their signature was wrong or too old.
    pub refused_cdn_signature: u64,
    /// Lists of tags.
    pub tags: u64,
    /// Lists of referrers.
    pub referrers: u64,
    /// Everything else.
    pub other: u64,
    /// Requests answered 429.
    pub throttled: u64,
    /// The most requests at once that waited for an answer of the registry.
    pub at_once_max: u64,
    /// By digest: what was asked and what was sent.
    pub digests: BTreeMap<String, DigestCounters>,
    /// The requests in order of arrival, the last [`REQUESTS_KEPT_MAX`] of them.
    pub requests: Vec<Seen>,
}

/// What was asked of one digest, and what was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DigestCounters {
    /// GETs of it as a manifest, by digest or by a tag.
    pub manifest_gets: u64,
    /// HEADs of it as a manifest, by digest or by a tag.
    pub manifest_heads: u64,
    /// GETs of it as a blob, at the registry.
    pub blob_gets: u64,
    /// HEADs of it as a blob, at the registry.
    pub blob_heads: u64,
    /// GETs of it as a blob, at the CDN.
    pub cdn_gets: u64,
    /// Body bytes handed to connections: what a connection that breaks did not take is counted up to 256 KiB too high.
    pub bytes: u64,
}

/// One request.
#[derive(Clone, Debug, Serialize)]
pub struct Seen {
    /// The address that it came from.
    pub peer: IpAddr,
    /// Which part was asked: `registry`, `cdn` or `token` (also where the token service has no port of its own).
    pub port: &'static str,
    /// The method.
    pub method: String,
    /// The path and query, as sent.
    pub path: String,
    /// The `Host` header.
    pub host: String,
    /// The first word of the `Authorization` header: `Basic`, `Bearer`, or nothing without one.
    pub authorization: Option<String>,
    /// The `Range` header.
    pub range: Option<String>,
    /// The `User-Agent` header.
    pub user_agent: Option<String>,
    /// The `Accept` headers, joined by commas.
    pub accept: Option<String>,
    /// The `Accept-Encoding` header.
    pub accept_encoding: Option<String>,
    /// The `Cookie` header.
    pub cookie: Option<String>,
    /// The status answered; 0 until then.
    pub status: u16,
}

impl Counters {
    /// Returns the body bytes sent of a digest.
    pub fn bytes(&self, digest: &impl ToString) -> u64 {
        self.of(digest).bytes
    }

    /// Returns what was counted of a digest.
    pub fn of(&self, digest: &impl ToString) -> DigestCounters {
        self.digests.get(&digest.to_string()).copied().unwrap_or_default()
    }

    /// Returns how many requests there were at all, challenged or not.
    pub fn total(&self) -> u64 {
        self.challenged
            + self.ping
            + self.token
            + self.manifest_head
            + self.manifest_get
            + self.blob_head
            + self.blob_get
            + self.cdn_get
            + self.refused_cdn_auth
            + self.refused_cdn_signature
            + self.tags
            + self.referrers
            + self.other
    }

    /// Returns how many of the remembered requests came from an address to a part: `registry`, `cdn` or `token`.
    pub fn from(&self, peer: &str, port: &str) -> usize {
        self.requests.iter().filter(|seen| seen.peer.to_string() == peer && seen.port == port).count()
    }

    /// Returns the requests that carried an `Authorization` to a part: `registry`, `cdn` or `token`.
    pub fn authorized_at<'a>(&'a self, port: &'a str) -> impl Iterator<Item = &'a Seen> + 'a {
        self.requests.iter().filter(move |seen| seen.port == port && seen.authorization.is_some())
    }
}

/// Counts.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    counters: Counters,
    requests: VecDeque<Seen>,
    /// The number of the first request in `requests`.
    first: u64,
    /// Requests that wait for an answer of the registry at this moment.
    waiting: u64,
    sent: HashMap<String, Arc<AtomicU64>>,
}

impl Recorder {
    /// Notes a request; returns its number.
    pub(crate) fn saw(&self, seen: Seen) -> u64 {
        let mut inner = self.inner();
        if inner.requests.len() == REQUESTS_KEPT_MAX {
            inner.requests.pop_front();
            inner.first += 1;
        }
        inner.requests.push_back(seen);
        inner.first + inner.requests.len() as u64 - 1
    }

    /// Notes what request `number` was answered.
    pub(crate) fn answered(&self, number: u64, status: u16) {
        let mut inner = self.inner();
        if status == 429 {
            inner.counters.throttled += 1;
        }
        let Some(at) = number.checked_sub(inner.first) else {
            return;
        };
        if let Some(seen) = inner.requests.get_mut(at as usize) {
            seen.status = status;
        }
    }

    /// Notes that a request to the registry waits for its answer, until the value is dropped.
    pub(crate) fn waits(&self) -> Waits<'_> {
        let mut inner = self.inner();
        inner.waiting += 1;
        inner.counters.at_once_max = inner.counters.at_once_max.max(inner.waiting);
        Waits { recorder: self }
    }

    /// Counts under a kind.
    pub(crate) fn count(&self, which: impl FnOnce(&mut Counters) -> &mut u64) {
        *which(&mut self.inner().counters) += 1;
    }

    /// Counts under a digest.
    pub(crate) fn count_digest(&self, digest: &str, which: impl FnOnce(&mut DigestCounters) -> &mut u64) {
        let mut inner = self.inner();
        if !inner.counters.digests.contains_key(digest) {
            inner.counters.digests.insert(digest.to_owned(), DigestCounters::default());
        }
        if let Some(counters) = inner.counters.digests.get_mut(digest) {
            *which(counters) += 1;
        }
    }

    /// Returns the meter of the body bytes sent of a digest.
    pub(crate) fn meter(&self, digest: &str) -> Arc<AtomicU64> {
        let mut inner = self.inner();
        if let Some(meter) = inner.sent.get(digest) {
            return meter.clone();
        }
        inner.sent.entry(digest.to_owned()).or_default().clone()
    }

    /// Returns everything counted.
    pub(crate) fn snapshot(&self, with_requests: bool) -> Counters {
        let inner = self.inner();
        let mut counters = inner.counters.clone();
        for (digest, sent) in &inner.sent {
            counters.digests.entry(digest.clone()).or_default().bytes = sent.load(Ordering::Relaxed);
        }
        if with_requests {
            counters.requests = inner.requests.iter().cloned().collect();
        }
        counters
    }

    /// Forgets everything; bodies on their way count no more.
    pub(crate) fn reset(&self) {
        let mut inner = self.inner();
        // The numbers of requests go on, so that answers on their way are not noted at other requests.
        let first = inner.first + inner.requests.len() as u64;
        *inner = Inner { first, waiting: inner.waiting, ..Inner::default() };
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that waits for its answer.
pub(crate) struct Waits<'a> {
    recorder: &'a Recorder,
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.recorder.inner().waiting -= 1;
    }
}
