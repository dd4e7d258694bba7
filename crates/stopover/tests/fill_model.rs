//! The fill against a model: many clients with whole pulls and ranges of one blob, from a source that cuts, lies, and
//! ignores ranges as a seed says. Whatever happens, every byte given out is the blob's, a whole pull that completes is
//! the whole blob, and the store has it or nothing.

use std::{
    os::unix::fs::FileExt,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, future, stream};
use oci::{Algorithm, Descriptor, Digest, Manifest, Page, Reference, RepositoryName, Span, Tag};
use stopover::{
    cache::{Cache, Outcome, Segment},
    clock::Clock,
    index::{Index, Membership},
    metrics::Metrics,
    source::{
        Answer, BlobStream, Freshness, Origin, Purpose, Resolved, Source, SourceError, SourceErrorKind,
        TagPage, Told,
    },
    store::{FsStore, Store},
};

/// Chance that can be had again: a linear congruential generator (Knuth's MMIX).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound.max(1)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// How a source misbehaves.
#[derive(Clone, Copy, Debug)]
struct Manner {
    seed: u64,
    cuts: bool,
    ignores_ranges: bool,
    lies: bool,
    says_size: bool,
    /// Whether it refuses a stream while it sends another.
    sends_one: bool,
    /// By how many streams it may be asked.
    streams_max: usize,
}

/// What one connection brings in a second, by the clock that the source turns.
const BYTES_PER_SECOND: u64 = 4_000_000;

struct Unsteady {
    blob: Bytes,
    manner: Manner,
    clock: Clock,
    flowing: Arc<AtomicUsize>,
    flowed_most: AtomicUsize,
    opened: AtomicU64,
    sent_bytes: AtomicU64,
}

impl Unsteady {
    fn open(&self, start: u64, end: Option<u64>) -> BlobStream {
        let number = self.opened.fetch_add(1, Ordering::SeqCst);
        let mut chance = Chance(self.manner.seed ^ (number << 32) ^ start);
        let size = self.blob.len() as u64;
        let start = if self.manner.ignores_ranges { 0 } else { start };
        let end = if self.manner.ignores_ranges { size } else { end.unwrap_or(size).min(size) };
        let mut body = self.blob.slice(start as usize..end as usize);
        if self.manner.lies && !body.is_empty() {
            let mut wrong = body.to_vec();
            let at = chance.below(wrong.len() as u64) as usize;
            wrong[at] ^= 1;
            body = wrong.into();
        }
        // Each stream comes further than none, so that a transfer with cuts comes to an end.
        let cut = self.manner.cuts && chance.one_in(2);
        if cut {
            body.truncate(1 + chance.below(body.len() as u64) as usize);
        }
        let mut chunks = Vec::new();
        while !body.is_empty() {
            let len = (1 + chance.below(200_000) as usize).min(body.len());
            chunks.push(Ok(body.split_to(len)));
        }
        if cut && chance.one_in(2) {
            chunks.push(Err(error(SourceErrorKind::Unavailable)));
        }
        self.sent_bytes
            .fetch_add(chunks.iter().flatten().map(|chunk| chunk.len() as u64).sum(), Ordering::SeqCst);
        let flowing = Flowing::begin(&self.flowing);
        self.flowed_most.fetch_max(self.flowing.load(Ordering::SeqCst), Ordering::SeqCst);
        let clock = self.clock.clone();
        let slowly = stream::iter(chunks).then(move |chunk| {
            let streams = flowing.0.load(Ordering::SeqCst).max(1) as u64;
            let bytes = chunk.as_ref().map_or(0, |chunk: &Bytes| chunk.len() as u64);
            clock.turn_on(Duration::from_micros(bytes * 1_000_000 / BYTES_PER_SECOND / streams));
            async {
                tokio::task::yield_now().await;
                chunk
            }
        });
        BlobStream { start, size: self.manner.says_size.then_some(size), lane: None, body: slowly.boxed() }
    }
}

/// Counts a stream as long as it lives.
struct Flowing(Arc<AtomicUsize>);

impl Flowing {
    fn begin(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Flowing {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn error(kind: SourceErrorKind) -> SourceError {
    SourceError::new(Arc::from("test"), kind, "as the test wants")
}

fn unused<T: Send + 'static>() -> Answer<'static, T> {
    Box::pin(future::ready(Err(error(SourceErrorKind::Unsupported))))
}

impl Source for Unsteady {
    fn registry(&self) -> &str {
        "test"
    }

    fn streams_max(&self) -> usize {
        self.manner.streams_max
    }

    fn resolve<'a>(&'a self, _: &'a RepositoryName, _: &'a Tag) -> Answer<'a, Told<Resolved>> {
        unused()
    }

    fn manifest<'a>(
        &'a self,
        _: &'a RepositoryName,
        _: &'a Reference,
        _: Purpose,
    ) -> Answer<'a, Told<Manifest>> {
        unused()
    }

    fn has_manifest<'a>(&'a self, _: &'a RepositoryName, _: &'a Digest) -> Answer<'a, Told<Descriptor>> {
        unused()
    }

    fn blob_size<'a>(&'a self, _: &'a RepositoryName, _: &'a Digest) -> Answer<'a, Told<Option<u64>>> {
        Box::pin(future::ready(Ok(Told { content: Some(self.blob.len() as u64), lane: None })))
    }

    fn blob<'a>(
        &'a self,
        _: &'a RepositoryName,
        _: &'a Digest,
        start: u64,
        end: Option<u64>,
    ) -> Answer<'a, BlobStream> {
        if self.manner.sends_one && self.flowing.load(Ordering::SeqCst) > 0 {
            return Box::pin(future::ready(Err(error(SourceErrorKind::TooManyRequests))));
        }
        Box::pin(future::ready(Ok(self.open(start, end))))
    }

    fn tags<'a>(&'a self, _: &'a RepositoryName, _: &'a Page) -> Answer<'a, TagPage> {
        unused()
    }

    fn referrers<'a>(&'a self, _: &'a RepositoryName, _: &'a Digest) -> Answer<'a, Bytes> {
        unused()
    }
}

struct Scene {
    _root: tempfile::TempDir,
    store: Arc<FsStore>,
    cache: Cache,
    source: Arc<Unsteady>,
    origin: Origin,
    digest: Digest,
}

impl Scene {
    fn new(size: u64, manner: Manner) -> Self {
        let mut chance = Chance(manner.seed);
        let blob: Bytes = (0..size).map(|_| chance.below(256) as u8).collect();
        let digest = Digest::of(Algorithm::Sha256, &blob);
        let root = tempfile::tempdir().expect("a folder can be made");
        let store = Arc::new(FsStore::open(root.path()).expect("a new folder can be used"));
        let clock = Clock::default();
        let index = Arc::new(Index::open(root.path(), clock.clone()).expect("a new index can be made"));
        let repository: RepositoryName = "a/b".parse().expect("the name is valid");
        if manner.streams_max > 1 {
            index.set_names(&repository, vec![(digest, size, Membership::Blob)]);
        }
        let store_of_cache = Arc::clone(&store) as Arc<dyn Store>;
        let cache = Cache::new(store_of_cache, index, Metrics::new(), clock.clone(), 1 << 20, 0);
        let source = Arc::new(Unsteady {
            blob,
            manner,
            clock,
            flowing: Arc::default(),
            flowed_most: AtomicUsize::new(0),
            opened: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
        });
        let origin = Origin {
            registry: Arc::from("test"),
            repository: repository.clone(),
            tree_name: repository,
            source: Arc::clone(&source) as Arc<dyn Source>,
            freshness: Freshness {
                tag_ttl: Duration::ZERO,
                stale_if_error: Duration::ZERO,
                stale_if_denied: Duration::ZERO,
                check_deadline: Duration::from_secs(1),
                absent_ttl: Duration::ZERO,
            },
        };
        Self { _root: root, store, cache, source, origin, digest }
    }

    /// Pulls as a client does; returns what it got and whether that was all it asked for. One in some clients leaves.
    async fn pull(&self, mut chance: Chance, wants: Wants) -> (Span, Vec<u8>, bool, Outcome) {
        let served = match self.cache.blob(&self.origin, &self.digest).await {
            Ok(served) => served,
            Err(_) => {
                return (Span { start: 0, end: 0, open_ended: true }, Vec::new(), false, Outcome::Passed);
            }
        };
        let size = served.content.size();
        let whole = wants == Wants::Whole;
        let start = if whole || chance.one_in(2) { 0 } else { chance.below(size.max(1)) };
        let open_ended = whole || size == 0 || chance.one_in(2);
        let end = if open_ended { size } else { start + 1 + chance.below(size - start) };
        let span = Span { start, end, open_ended };
        let leaves_after = if !whole && chance.one_in(5) { chance.below(end - start + 1) } else { u64::MAX };
        let mut reader = served.content.read(&span);
        let mut got = Vec::new();
        loop {
            match reader.next().await {
                Ok(None) => return (span, got, true, served.outcome),
                Ok(Some(Segment::Bytes(bytes))) => got.extend_from_slice(&bytes),
                Ok(Some(Segment::File { file, offset, len })) => {
                    let mut bytes = vec![0; len as usize];
                    file.read_exact_at(&mut bytes, offset).expect("what is said to be there is there");
                    got.extend_from_slice(&bytes);
                }
                Err(_) => return (span, got, false, served.outcome),
            }
            if got.len() as u64 >= leaves_after {
                return (span, got, false, served.outcome);
            }
        }
    }
}

/// What clients pull.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wants {
    Whole,
    Anything,
}

async fn play(size: u64, manner: Manner, clients: u64) -> Scene {
    play_with(size, manner, clients, Wants::Anything).await
}

async fn play_with(size: u64, manner: Manner, clients: u64, wants: Wants) -> Scene {
    let scene = Arc::new(Scene::new(size, manner));
    let pulls: Vec<_> = (0..clients)
        .map(|client| {
            let (scene, mut chance) = (Arc::clone(&scene), Chance(manner.seed ^ (client << 20)));
            tokio::spawn(async move {
                for _ in 0..chance.below(20) {
                    tokio::task::yield_now().await;
                }
                scene.pull(chance, wants).await
            })
        })
        .collect();
    for pull in pulls {
        let (span, got, complete, _) = pull.await.expect("no client panics");
        let wanted = &scene.source.blob[span.start as usize..span.end as usize];
        if complete {
            assert_eq!(got.len(), wanted.len(), "{manner:?} {span:?}: complete, but not all of it");
        }
        let whole = span.start == 0 && span.end == size;
        if !manner.lies || (complete && whole) {
            assert!(wanted.starts_with(&got), "{manner:?} {span:?}: a byte that is not the blob's");
        }
    }
    scene.cache.tasks().close();
    scene.cache.tasks().wait().await;
    let stored = scene.store.open(&scene.digest).expect("the store can be asked");
    if let Some(stored) = stored {
        assert_eq!(stored.hash(Algorithm::Sha256).expect("it can be read"), scene.digest, "{manner:?}");
    } else {
        assert!(manner.lies || manner.cuts, "{manner:?}: nothing was stored");
    }
    Arc::into_inner(scene).expect("every client is gone")
}

const STEADY: Manner = Manner {
    seed: 0,
    cuts: false,
    ignores_ranges: false,
    lies: false,
    says_size: true,
    sends_one: false,
    streams_max: 1,
};
/// By several streams, of which each brings little.
const SHARED: Manner = Manner { streams_max: 8, ..STEADY };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_staggered_clients_cost_one_download() {
    for seed in 0..40 {
        let scene = play(300_000, Manner { seed, ..STEADY }, 60).await;
        assert_eq!(scene.source.opened.load(Ordering::SeqCst), 1, "seed {seed}");
        assert_eq!(scene.source.sent_bytes.load(Ordering::SeqCst), 300_000, "seed {seed}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_that_breaks_gives_right_bytes_all_the_same() {
    for seed in 0..16 {
        let size = 1 + seed * 97_001 % 6_000_000;
        let says_size = seed % 4 != 0;
        play(size, Manner { seed, cuts: says_size, says_size, ..STEADY }, 12).await;
        play(size, Manner { seed, cuts: true, ignores_ranges: true, ..STEADY }, 6).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_lies_is_never_believed() {
    for seed in 0..16 {
        let size = 1 + seed * 41_003 % 900_000;
        play(size, Manner { seed, lies: true, ..STEADY }, 8).await;
        play(size, Manner { seed, lies: true, cuts: true, ..STEADY }, 8).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn empty_and_tiny_blobs_are_blobs() {
    for size in [0, 1, 65_535, 65_536, 65_537] {
        play(size, Manner { seed: size, ..STEADY }, 5).await;
    }
}

/// More than a blob needs to be fetched by several streams.
fn large(seed: u64) -> u64 {
    (16 << 20) + seed * 1_700_003
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_byte_is_asked_for_twice_by_several_streams() {
    let mut flowed_most = 0;
    for seed in 0..5 {
        let size = large(seed);
        let scene = play_with(size, Manner { seed, ..SHARED }, 4, Wants::Whole).await;
        assert_eq!(scene.source.sent_bytes.load(Ordering::SeqCst), size, "seed {seed}");
        flowed_most = scene.source.flowed_most.load(Ordering::SeqCst).max(flowed_most);
    }
    assert!(flowed_most > 2, "at most {flowed_most} streams");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_break_or_lie_give_right_bytes_or_none() {
    for seed in 0..3 {
        play(large(seed), Manner { seed, cuts: true, ..SHARED }, 8).await;
        play(large(seed), Manner { seed, lies: true, ..SHARED }, 8).await;
        play(large(seed), Manner { seed, lies: true, cuts: true, ..SHARED }, 8).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_does_not_bear_several_streams_is_asked_by_one() {
    for seed in 0..3 {
        let ignoring = Manner { seed, ignores_ranges: true, ..SHARED };
        play(large(seed), ignoring, 6).await;
        let scene = play_with(large(seed), ignoring, 3, Wants::Whole).await;
        assert!(scene.source.opened.load(Ordering::SeqCst) <= 3, "seed {seed}: it is found out at once");
        let scene = play_with(large(seed), Manner { seed, sends_one: true, ..SHARED }, 3, Wants::Whole).await;
        assert_eq!(scene.source.flowed_most.load(Ordering::SeqCst), 1, "seed {seed}");
        assert_eq!(scene.source.sent_bytes.load(Ordering::SeqCst), large(seed), "seed {seed}");
    }
}
