//! The product: manifests and blobs, from the store where it has them, else from a source, once for all who ask.
//!
//! It promises: nothing leaves complete that is not what its digest says (P1); nothing unverified is stored (P2); one
//! fetch for all who wait (P3), each at its own pace (P4); what is cached is served while the registry fails (P5); a
//! disk that fails costs caching, not pulls (P11). It knows no HTTP, no configuration, and of the registry only what
//! [`Source`](crate::source::Source) says.

use std::{sync::Arc, time::Duration};

use oci::{Digest, Manifest, RepositoryName, Tag};
use quick_cache::{Weighter, sync::Cache as Memory};
use tokio_util::task::TaskTracker;

use crate::{
    clock::Clock,
    flight::{Flights, Landed},
    index::Index,
    metrics::Metrics,
    source::{LaneName, Origin, SourceError},
    store::Store,
};

mod absent;
mod blob;
mod discovery;
mod error;
mod fill;
mod freshness;
mod housekeeping;
mod kept;
mod manifest;
mod pass;
mod prefetch;
mod progress;
mod retry;

pub use blob::{Blob, BlobReader, Segment};
pub use discovery::Referrers;
pub use error::Error;

use absent::Absent;
use fill::Fills;
use prefetch::Prefetch;

/// How a request was answered: the log's word, the metric's label, and what `Cache-Status` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// From the cache; nobody was asked.
    Hit,
    /// From the cache, after the registry said that the tag still names it.
    Revalidated,
    /// From the cache, although the tag should have been checked: the registry failed.
    Stale,
    /// From a fetch that another request had begun.
    Joined,
    /// From the registry, and cached.
    Filled,
    /// From the registry, and not cached.
    Passed,
}

impl Outcome {
    /// Returns the word for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Revalidated => "revalidated",
            Self::Stale => "stale",
            Self::Joined => "joined",
            Self::Filled => "filled",
            Self::Passed => "passed",
        }
    }

    /// Returns whether the content came from the cache.
    pub fn from_cache(self) -> bool {
        matches!(self, Self::Hit | Self::Revalidated | Self::Stale)
    }
}

/// An answer and how it came about.
#[derive(Clone, Debug)]
pub struct Served<T> {
    /// What was asked for.
    pub content: T,
    /// Where it came from.
    pub outcome: Outcome,
    /// The lane that the registry answered by, where it was asked and there are lanes.
    pub lane: Option<LaneName>,
    /// What the client should be told besides, such as that this is stale and why.
    pub warning: Option<Arc<str>>,
}

impl<T> Served<T> {
    fn new(content: T, outcome: Outcome) -> Self {
        Self { content, outcome, lane: None, warning: None }
    }

    fn by(self, lane: Option<LaneName>) -> Self {
        Self { lane, ..self }
    }

    /// Returns the answer with its content replaced.
    pub fn map<U>(self, with: impl FnOnce(T) -> U) -> Served<U> {
        let Self { content, outcome, lane, warning } = self;
        Served { content: with(content), outcome, lane, warning }
    }
}

/// The cache. Cloning it is cheap and gives another handle to the same one.
#[derive(Clone)]
pub struct Cache {
    parts: Arc<Parts>,
}

struct Parts {
    store: Arc<dyn Store>,
    index: Arc<Index>,
    metrics: Arc<Metrics>,
    clock: Clock,
    manifests: Memory<(RepositoryName, Digest), Manifest, ByBytes>,
    tag_flights: Arc<Flights<(RepositoryName, Tag), Result<manifest::Resolution, Error>>>,
    manifest_flights: Arc<Flights<(RepositoryName, Digest), Result<manifest::Found, Error>>>,
    check_flights: Arc<Flights<Digest, bool>>,
    discovery: discovery::Discovery,
    fills: Arc<Fills>,
    prefetch: Prefetch,
    absent: Absent,
    failed_checks: Memory<(RepositoryName, Tag), (std::time::Instant, Arc<SourceError>)>,
    tasks: TaskTracker,
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<(RepositoryName, Digest), Manifest> for ByBytes {
    fn weight(&self, _: &(RepositoryName, Digest), manifest: &Manifest) -> u64 {
        /// What a manifest costs beside its bytes, about.
        const ENTRY_BYTES: u64 = 512;
        manifest.bytes.len() as u64 + ENTRY_BYTES
    }
}

/// Tags whose failed check is remembered.
const FAILED_CHECKS_MAX: usize = 10_000;
/// How long a tag whose check failed is not checked again, so that a registry that hangs does not slow each pull;
/// at most the tag's freshness.
const FAILED_CHECK_TTL_MAX: Duration = Duration::from_secs(5);
/// A manifest's size, used to guess how many of them fit in memory.
const MANIFEST_BYTES_TYPICAL: u64 = 4_096;

impl Cache {
    /// Returns a cache over a store and an index that keeps at most `memory_bytes` of manifests in memory, and fetches at
    /// most `prefetches_max` blobs at once from a registry before a client asks for them.
    pub fn new(
        store: Arc<dyn Store>,
        index: Arc<Index>,
        metrics: Arc<Metrics>,
        clock: Clock,
        memory_bytes: u64,
        prefetches_max: usize,
    ) -> Self {
        let items = usize::try_from(memory_bytes / MANIFEST_BYTES_TYPICAL).unwrap_or(usize::MAX).max(16);
        let parts = Parts {
            store,
            index,
            metrics,
            manifests: Memory::with_weighter(items, memory_bytes, ByBytes),
            tag_flights: Flights::new(),
            manifest_flights: Flights::new(),
            check_flights: Flights::new(),
            discovery: discovery::Discovery::new(),
            fills: Fills::new(),
            prefetch: Prefetch::new(prefetches_max),
            absent: Absent::new(clock.clone()),
            failed_checks: Memory::new(FAILED_CHECKS_MAX),
            tasks: TaskTracker::new(),
            clock,
        };
        Self { parts: Arc::new(parts) }
    }

    /// Returns the tasks that work for the cache; whoever shuts down closes and awaits them.
    pub fn tasks(&self) -> &TaskTracker {
        &self.parts.tasks
    }

    /// Has all fills end soon, whoever follows them, and keep what they have: the process is about to end, and a file
    /// with holes would be of no use to the next.
    pub fn stop_fills(&self) {
        self.parts.fills.stop();
    }

    /// Runs file work where it may block. `None` where it panicked, or the process is ending.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Parts) -> T + Send + 'static,
    ) -> Option<T> {
        let parts = Arc::clone(&self.parts);
        tokio::task::spawn_blocking(move || work(&parts)).await.ok()
    }
}

impl<V> Landed<V> {
    /// Returns `outcome`, or that it was joined where the fetch was somebody else's.
    fn outcome(&self, outcome: Outcome) -> Outcome {
        if self.joined && outcome == Outcome::Filled { Outcome::Joined } else { outcome }
    }
}

/// Returns the key under which a repository's facts stand.
fn key<T>(origin: &Origin, what: T) -> (RepositoryName, T) {
    (origin.tree_name.clone(), what)
}
