//! What is prefetched, in what order, how much at once, and when it stops: by a source whose bytes the test lets go.

use std::{collections::HashMap, future, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use oci::{Algorithm, Descriptor, OCI_MANIFEST, Page, Reference, Tag};
use serde_json::json;
use tokio::sync::Semaphore;

use super::{image::Asked, *};
use crate::{
    clock::Clock,
    index::Index,
    metrics::Metrics,
    source::{
        Answer, BlobStream, Freshness, Purpose, Resolved, Source, SourceError, SourceErrorKind, TagPage, Told,
    },
    store::FsStore,
};

const AT_ONCE: usize = 3;
/// How a blob comes: the first chunk at once, each other one when the test lets it.
const CHUNK_BYTES: usize = 100_000;
const BLOB_BYTES: usize = 4 * CHUNK_BYTES;

/// A registry that hands out what the test lets go.
struct Gated {
    blobs: Mutex<HashMap<Digest, Bytes>>,
    /// What was asked for, in order, and from which byte on.
    opened: Mutex<Vec<(Digest, u64)>>,
    under_way: Arc<Mutex<UnderWay>>,
    chunks: Arc<Semaphore>,
}

#[derive(Default)]
struct UnderWay {
    now: usize,
    most: usize,
}

/// A stream that is under way until it is dropped.
struct Open(Arc<Mutex<UnderWay>>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.lock().unwrap().now -= 1;
    }
}

impl Gated {
    fn open(&self, digest: &Digest, start: u64) -> Result<BlobStream, SourceError> {
        let Some(blob) = self.blobs.lock().unwrap().get(digest).cloned() else {
            return Err(SourceError::new(Arc::from("test"), SourceErrorKind::NotFound, "no such blob"));
        };
        self.opened.lock().unwrap().push((*digest, start));
        let open = Open(Arc::clone(&self.under_way));
        {
            let mut under_way = self.under_way.lock().unwrap();
            under_way.now += 1;
            under_way.most = under_way.most.max(under_way.now);
        }
        let rest = blob.slice(start as usize..);
        let chunks: Vec<Bytes> = rest.chunks(CHUNK_BYTES).map(Bytes::copy_from_slice).collect();
        let gate = Arc::clone(&self.chunks);
        let body = stream::iter(chunks.into_iter().enumerate()).then(move |(at, chunk)| {
            let (gate, _open) = (Arc::clone(&gate), &open);
            async move {
                if at > 0 {
                    gate.acquire().await.expect("nobody closes it").forget();
                }
                Ok(chunk)
            }
        });
        let size = Some(blob.len() as u64);
        Ok(BlobStream { start, size, lane: None, body: Box::pin(body) })
    }
}

fn unused<T: Send + 'static>() -> Answer<'static, T> {
    let error = SourceError::new(Arc::from("test"), SourceErrorKind::Unsupported, "nobody asks");
    Box::pin(future::ready(Err(error)))
}

impl Source for Gated {
    fn registry(&self) -> &str {
        "test"
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
        Box::pin(future::ready(Ok(Told { content: Some(BLOB_BYTES as u64), lane: None })))
    }

    fn blob<'a>(
        &'a self,
        _: &'a RepositoryName,
        digest: &'a Digest,
        start: u64,
        _: Option<u64>,
    ) -> Answer<'a, BlobStream> {
        Box::pin(future::ready(self.open(digest, start)))
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
    cache: Cache,
    clock: Clock,
    source: Arc<Gated>,
    origin: Origin,
}

impl Scene {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let (store, clock) = (Arc::new(FsStore::open(root.path()).unwrap()), Clock::default());
        let index = Arc::new(Index::open(root.path(), clock.clone()).unwrap());
        let cache = Cache::new(store, index, Metrics::new(), clock.clone(), 1 << 20, AT_ONCE);
        let source = Arc::new(Gated {
            blobs: Mutex::default(),
            opened: Mutex::default(),
            under_way: Arc::default(),
            chunks: Arc::new(Semaphore::new(0)),
        });
        let repository: RepositoryName = "a/b".parse().unwrap();
        let origin = Origin {
            registry: Arc::from("test"),
            repository: repository.clone(),
            tree_name: repository,
            source: Arc::clone(&source) as Arc<dyn Source>,
            freshness: Freshness {
                tag_ttl: Duration::ZERO,
                stale_if_error: Duration::ZERO,
                stale_if_denied: Duration::ZERO,
                check_deadline: Duration::ZERO,
                absent_ttl: Duration::from_secs(10),
            },
        };
        Self { _root: root, cache, clock, source, origin }
    }

    /// Makes an image of so many blobs, none of them another's.
    fn image(&self, number: usize, blobs: usize) -> (Served<Manifest>, Vec<Digest>) {
        let digests = (0..blobs).map(|at| {
            let mut bytes = vec![at as u8; BLOB_BYTES];
            bytes[..8].copy_from_slice(&number.to_le_bytes());
            let digest = Digest::of(Algorithm::Sha256, &bytes);
            self.source.blobs.lock().unwrap().insert(digest, bytes.into());
            digest
        });
        let digests: Vec<Digest> = digests.collect();
        let entries: Vec<_> =
            digests.iter().map(|digest| json!({ "digest": digest, "size": BLOB_BYTES })).collect();
        let document = json!({ "schemaVersion": 2, "config": entries[0], "layers": entries[1..] });
        let bytes = document.to_string().into();
        let manifest = Manifest::from_answer(Some(OCI_MANIFEST), bytes, Algorithm::Sha256).unwrap();
        (Served::new(manifest, Outcome::Filled), digests)
    }

    fn hand_out(&self, manifest: &Served<Manifest>) {
        self.cache.handed_out(&self.origin, manifest);
    }

    /// Asks for all of a blob, as a client does; returns how it came.
    async fn ask(&self, digest: &Digest) -> Served<super::super::Blob> {
        self.cache.asked_for(&self.origin, digest);
        self.cache.blob(&self.origin, digest).await.unwrap()
    }

    fn opened(&self) -> Vec<Digest> {
        self.source.opened.lock().unwrap().iter().map(|(digest, _)| *digest).collect()
    }

    async fn until_opened(&self, count: usize) {
        until(|| self.opened().len() >= count).await;
        assert_eq!(self.opened().len(), count);
    }

    /// Waits until all that was begun is through, and nothing follows.
    async fn until_quiet(&self) {
        until(|| self.cache.tasks().is_empty()).await;
    }

    /// Lets so many chunks go, for all blobs together.
    fn let_go(&self, chunks: usize) {
        self.source.chunks.add_permits(chunks);
    }

    fn counted(&self, result: &str) -> u64 {
        let line = format!("stopover_prefetch_total{{result=\"{result}\"}} ");
        let text = self.cache.parts.metrics.encode();
        text.lines().find_map(|found| found.strip_prefix(&line)).map_or(0, |count| count.parse().unwrap())
    }
}

async fn until(holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("it comes to that");
}

#[tokio::test]
async fn blobs_come_in_the_order_of_the_manifest_so_many_at_once() {
    let scene = Scene::new();
    let (manifest, blobs) = scene.image(0, 7);
    scene.hand_out(&manifest);
    scene.until_opened(AT_ONCE).await;
    scene.hand_out(&manifest);
    scene.let_go(1_000);
    scene.until_quiet().await;
    // Those that begin together may overtake each other.
    assert!(scene.opened()[..AT_ONCE].iter().all(|digest| blobs[..AT_ONCE].contains(digest)));
    assert_eq!((scene.opened().len(), scene.source.under_way.lock().unwrap().most), (7, AT_ONCE));
    assert!(blobs.iter().all(|blob| scene.cache.parts.store.open(blob).unwrap().is_some()));
}

#[tokio::test]
async fn a_client_joins_what_is_on_its_way_and_does_not_wait_for_a_turn() {
    let scene = Scene::new();
    let (manifest, blobs) = scene.image(0, 7);
    scene.hand_out(&manifest);
    scene.until_opened(AT_ONCE).await;
    assert_eq!(scene.ask(&blobs[1]).await.outcome, Outcome::Joined);
    let last = scene.ask(&blobs[6]).await;
    assert_eq!(last.outcome, Outcome::Filled);
    scene.until_opened(AT_ONCE + 1).await;
    scene.let_go(1_000);
    scene.until_quiet().await;
    assert_eq!(scene.opened().len(), 7, "what the client took itself is not fetched again");
    assert_eq!((scene.counted("started"), scene.counted("wanted")), (6, 1));
}

#[tokio::test]
async fn a_guess_that_nobody_takes_up_is_stopped_and_its_parts_are_kept() {
    let scene = Scene::new();
    let (manifest, blobs) = scene.image(0, 7);
    scene.hand_out(&manifest);
    scene.until_opened(AT_ONCE).await;
    scene.clock.turn_on(image::GRACE);
    scene.let_go(AT_ONCE);
    until(|| scene.counted("cancelled") == AT_ONCE as u64).await;
    // A fill looks whether anybody is left when more bytes have come.
    scene.let_go(AT_ONCE);
    scene.until_quiet().await;
    assert_eq!(scene.opened().len(), AT_ONCE);
    scene.hand_out(&manifest);
    scene.until_quiet().await;
    assert_eq!(scene.opened().len(), AT_ONCE, "one wrong guess is enough");

    scene.ask(&blobs[1]).await;
    scene.let_go(1_000);
    scene.until_quiet().await;
    assert_eq!(scene.opened().len(), AT_ONCE + 7, "a layer that is asked for brings the rest");
    let opened = scene.source.opened.lock().unwrap();
    let resumed = opened.iter().filter(|(_, start)| *start > 0).map(|(digest, _)| digest);
    assert_eq!(resumed.count(), AT_ONCE);
}

#[tokio::test]
async fn a_layer_asked_for_ends_the_wait_and_a_configuration_stretches_it() {
    let scene = Scene::new();
    let (pulled, looked_at) = (scene.image(0, 2), scene.image(1, 2));
    scene.hand_out(&pulled.0);
    scene.until_opened(2).await;
    scene.ask(&pulled.1[1]).await;
    scene.clock.turn_on(RECENT);
    scene.let_go(1_000);
    scene.until_quiet().await;
    assert_eq!(scene.counted("cancelled"), 0);

    scene.source.chunks.forget_permits(usize::MAX);
    scene.hand_out(&looked_at.0);
    scene.until_opened(4).await;
    drop(scene.ask(&looked_at.1[0]).await);
    scene.clock.turn_on(image::GRACE);
    scene.let_go(1);
    until(|| scene.source.chunks.available_permits() == 0).await;
    assert_eq!((scene.counted("cancelled"), scene.counted("wanted")), (0, 2));
    scene.clock.turn_on(10 * image::GRACE);
    scene.let_go(2);
    until(|| scene.counted("cancelled") == 2).await;
    scene.let_go(2);
    scene.until_quiet().await;
}

#[tokio::test]
async fn a_hundred_manifests_are_few_fills() {
    let scene = Scene::new();
    let images: Vec<_> = (0..100).map(|number| scene.image(number, 3)).collect();
    images[..99].iter().for_each(|(manifest, _)| scene.hand_out(manifest));
    scene.until_opened(AT_ONCE).await;
    let (manifest, wanted) = &images[99];
    scene.hand_out(manifest);
    // A prefetch is a task, and so is its fill.
    until(|| scene.cache.tasks().len() == 2 * AT_ONCE).await;
    let asked = scene.ask(&wanted[1]).await;
    scene.until_opened(AT_ONCE + 1).await;
    until(|| scene.cache.parts.prefetch.queue().waits_for(&scene.origin.registry, &wanted[2])).await;
    scene.let_go(1_000);
    drop(asked);
    scene.until_quiet().await;
    let brought = (scene.opened().len(), scene.source.under_way.lock().unwrap().most);
    // The client's own is one more at once.
    assert_eq!(
        brought,
        (UNPROVEN_MAX as usize * 3 + 3, AT_ONCE + 1),
        "who reads manifests only brings little"
    );
}

#[test]
fn what_clients_want_goes_before_guesses_and_the_oldest_guess_makes_room() {
    let scene = Scene::new();
    let (registry, now) = (&scene.origin.registry, scene.clock.now());
    let image = |number| {
        let (manifest, blobs) = scene.image(number, 2);
        let contents = manifest.content.contents().unwrap();
        let image = Arc::new(Image::new(scene.origin.clone(), None, contents, now));
        assert!(image.handed_out(now, true));
        (image, blobs)
    };
    let mut queue = Queue::new(AT_ONCE);
    let images: Vec<_> = (0..65).map(image).collect();
    let (wanted, blobs) = &images[1];
    assert_eq!(wanted.asked_for(&blobs[1], now), Asked { is_news: true, ..Asked::default() });
    for (image, blobs) in &images {
        queue.put(Arc::clone(image), blobs.clone(), now);
    }
    assert!(
        images[0].0.waits_for_a_layer() && images[1..].iter().all(|(image, _)| !image.waits_for_a_layer())
    );
    let mut next = || queue.next(registry, now).map(|(_, digest)| digest);
    let (guess, another) = (&images[2].1, &images[3].1);
    // The client takes the other one of the wanted image itself.
    assert_eq!([next(), next(), next()], [blobs[0], guess[0], guess[1]].map(Some));
    assert_eq!(next(), None);
    queue.ended(registry);
    assert_eq!(queue.next(registry, now).map(|(_, digest)| digest), Some(another[0]));
    queue.ended(registry);
    assert!(queue.next(registry, now + image::GRACE).is_none(), "the guesses were wrong");
}

#[tokio::test]
async fn a_blob_that_cannot_be_had_ends_the_guess() {
    let scene = Scene::new();
    let (manifest, blobs) = scene.image(0, 7);
    scene.source.blobs.lock().unwrap().remove(&blobs[1]);
    scene.hand_out(&manifest);
    until(|| scene.counted("failed") == 1).await;
    scene.let_go(1_000);
    scene.until_quiet().await;
    assert_eq!(scene.opened().len(), 2, "those that were on their way");
    let error = scene.cache.blob(&scene.origin, &blobs[1]).await.err();
    assert!(error.is_some_and(|error| error.is_not_found()));
}

#[tokio::test]
async fn nothing_is_fetched_for_nobody_while_the_disk_takes_no_more() {
    let scene = Scene::new();
    let (manifest, blobs) = scene.image(0, 3);
    scene.cache.parts.prefetch.disk_refused(scene.clock.now());
    scene.hand_out(&manifest);
    scene.until_quiet().await;
    assert_eq!(scene.opened().len(), 0);
    scene.clock.turn_on(Duration::from_secs(60));
    scene.hand_out(&manifest);
    scene.let_go(1_000);
    scene.until_quiet().await;
    assert_eq!(scene.opened().len(), blobs.len());
}

#[tokio::test]
async fn what_is_stored_and_what_was_stale_is_not_asked_for() {
    let scene = Scene::new();
    let (manifest, blobs) = scene.image(0, 3);
    scene.let_go(1_000);
    let stale = Served { outcome: Outcome::Stale, ..manifest.clone() };
    scene.hand_out(&stale);
    scene.until_quiet().await;
    assert_eq!(scene.opened().len(), 0);
    scene.hand_out(&manifest);
    scene.until_quiet().await;
    let (of_the_same, shared) = scene.image(0, 2);
    assert_eq!(shared, blobs[..2]);
    scene.hand_out(&of_the_same);
    scene.ask(&shared[1]).await;
    scene.until_quiet().await;
    assert_eq!((scene.opened().len(), scene.counted("started")), (3, 3));
}
