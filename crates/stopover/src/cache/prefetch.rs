//! Blobs fetched before a client asks for them: those of an image whose manifest was just handed out.
//!
//! Only blobs, which cost no quota; a manifest is never fetched on a guess. An image's blobs are fetched once a client
//! got its manifest, if it stands in no index or clients have asked for layers of its platform before; of any other,
//! once a client asks for its first layer. It promises: so many at once for each registry, in the manifest's order, as
//! ordinary fills that clients join; nothing for a HEAD; a guess that nobody takes up is dropped and its fills stopped;
//! an error is no client's. All that it remembers is in memory and bounded, and learned again after a restart.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Instant,
};

use oci::{Digest, Manifest, Platform, RepositoryName};
use quick_cache::sync::Cache as Memory;

use super::{Cache, Outcome, Parts, Served, absent::Wanted, key, progress::End};
use crate::{metrics::Prefetched, source::Origin};

mod image;
mod queue;

use image::{Image, RECENT};
use queue::Queue;

/// Manifests that are remembered as handed out.
const MANIFESTS_MAX: usize = 1_000;
/// Blobs whose image is remembered.
const BLOBS_MAX: usize = 20_000;
/// Manifests whose platform is remembered, from the indexes that name them.
const PLATFORMS_MAX: usize = 20_000;
/// Platforms that clients have asked for; the oldest is forgotten.
const ASKED_MAX: usize = 32;
/// Guesses in a row that no client took up, after which none is made until a client asks for a layer: somebody reads
/// manifests only, one after another.
const UNPROVEN_MAX: u32 = 8;

/// What was handed out, what is asked for, what waits.
pub(super) struct Prefetch {
    is_on: bool,
    platforms: Memory<Digest, Platform>,
    seen: Memory<(RepositoryName, Digest), Seen>,
    /// The image handed out last of those that have a blob.
    images: Memory<(RepositoryName, Digest), Arc<Image>>,
    asked: Mutex<VecDeque<Platform>>,
    unproven: AtomicU32,
    queue: Mutex<Queue>,
}

/// A manifest that was handed out.
#[derive(Clone)]
enum Seen {
    /// It has blobs.
    Image(Arc<Image>),
    /// It has none to prefetch; what it says of platforms was noted then.
    Other(Instant),
}

impl Prefetch {
    /// `at_once_max` is how many prefetches may be under way for each registry; zero turns them off.
    pub(super) fn new(at_once_max: usize) -> Self {
        Self {
            is_on: at_once_max > 0,
            platforms: Memory::new(PLATFORMS_MAX),
            seen: Memory::new(MANIFESTS_MAX),
            images: Memory::new(BLOBS_MAX),
            asked: Mutex::default(),
            unproven: AtomicU32::new(0),
            queue: Mutex::new(Queue::new(at_once_max)),
        }
    }

    /// Hears that the disk takes no more.
    pub(super) fn disk_refused(&self, now: Instant) {
        self.queue().rest(now);
    }

    /// Returns the image of a manifest that was handed out, if it is one; reads the manifest where it is not known.
    fn image(&self, origin: &Origin, manifest: &Manifest, now: Instant) -> Option<Arc<Image>> {
        let key = key(origin, manifest.descriptor.digest);
        match self.seen.get(&key) {
            Some(Seen::Image(image)) => return Some(image),
            Some(Seen::Other(at)) if now.saturating_duration_since(at) < RECENT => return None,
            _ => {}
        }
        let image = self.read(origin, manifest, now).map(Arc::new);
        self.seen.insert(key, image.clone().map_or(Seen::Other(now), Seen::Image));
        image
    }

    fn read(&self, origin: &Origin, manifest: &Manifest, now: Instant) -> Option<Image> {
        if manifest.descriptor.media_type.is_index() {
            for (digest, platform) in manifest.platforms() {
                self.platforms.insert(digest, platform);
            }
            return None;
        }
        let platform = self.platforms.get(&manifest.descriptor.digest);
        if platform.as_ref().is_some_and(Platform::is_unknown) {
            return None;
        }
        let image = Image::new(origin.clone(), platform, manifest.contents().ok()?, now);
        (!image.blobs().is_empty()).then_some(image)
    }

    fn is_asked_for(&self, platform: &Platform) -> bool {
        self.asked().contains(platform)
    }

    /// Notes that a client asked for a layer of this platform.
    fn learn(&self, platform: &Platform) {
        let mut asked = self.asked();
        if !asked.contains(platform) {
            asked.push_back(platform.clone());
            if asked.len() > ASKED_MAX {
                asked.pop_front();
            }
        }
    }

    /// Returns whether another guess may be made.
    fn may_guess(&self) -> bool {
        let counted = self.unproven.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |unproven| {
            (unproven < UNPROVEN_MAX).then_some(unproven + 1)
        });
        counted.is_ok()
    }

    fn asked(&self) -> MutexGuard<'_, VecDeque<Platform>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cache {
    /// Hears that a client gets this manifest, and begins to fetch what it will ask for next.
    pub fn handed_out(&self, origin: &Origin, served: &Served<Manifest>) {
        let prefetch = &self.parts.prefetch;
        // A registry that fails has no blobs to give either.
        if !prefetch.is_on || served.outcome == Outcome::Stale {
            return;
        }
        let now = self.parts.clock.now();
        let Some(image) = prefetch.image(origin, &served.content, now) else { return };
        let is_likely = image.platform.as_ref().is_none_or(|platform| prefetch.is_asked_for(platform));
        let is_guessed = image.handed_out(now, is_likely);
        if is_guessed || image.waits_for_a_layer() {
            for blob in image.blobs() {
                prefetch.images.insert(key(origin, *blob), Arc::clone(&image));
            }
        }
        if is_guessed {
            self.fetch_rest(image);
        }
    }

    /// Hears that a client asks for all of a blob, or for all of it from some byte on. Those who read here and there are
    /// not heard of: they take what they need.
    pub fn asked_for(&self, origin: &Origin, digest: &Digest) {
        let prefetch = &self.parts.prefetch;
        if !prefetch.is_on {
            return;
        }
        let Some(image) = prefetch.images.get(&key(origin, *digest)) else { return };
        let asked = image.asked_for(digest, self.parts.clock.now());
        if asked.was_prefetched {
            self.parts.metrics.prefetch(Prefetched::Wanted);
        }
        if asked.is_news {
            prefetch.unproven.store(0, Ordering::Relaxed);
            if let Some(platform) = &image.platform {
                prefetch.learn(platform);
            }
        }
        if asked.fetch_rest {
            self.fetch_rest(image);
        }
    }

    /// Queues those blobs of the image that are not here and that nobody fetches.
    fn fetch_rest(&self, image: Arc<Image>) {
        let cache = self.clone();
        self.parts.tasks.spawn(async move {
            let looking = Arc::clone(&image);
            let lacking = cache.blocking(move |parts| parts.lacking(&looking)).await.unwrap_or_default();
            let (prefetch, now) = (&cache.parts.prefetch, cache.parts.clock.now());
            if lacking.is_empty() {
                return image.settle(now);
            }
            if image.is_guessed() && !prefetch.may_guess() {
                return image.put_off(now);
            }
            let registry = Arc::clone(&image.origin.registry);
            prefetch.queue().put(image, lacking, now);
            cache.start_prefetches(&registry);
        });
    }

    /// Starts as many prefetches from the registry as wait and may be under way.
    fn start_prefetches(&self, registry: &Arc<str>) {
        // Who shuts down waits for what is under way.
        while !self.parts.tasks.is_closed() {
            let next = self.parts.prefetch.queue().next(registry, self.parts.clock.now());
            let Some((image, digest)) = next else { return };
            let turn = Turn { cache: self.clone(), registry: Arc::clone(registry) };
            self.parts.tasks.spawn(async move {
                turn.cache.prefetch(&image, &digest).await;
                let (cache, registry) = (turn.cache.clone(), Arc::clone(&turn.registry));
                drop(turn);
                cache.start_prefetches(&registry);
            });
        }
    }

    /// Fetches a blob by a fill like any other, as long as it is worth while.
    async fn prefetch(&self, image: &Arc<Image>, digest: &Digest) {
        self.parts.metrics.prefetch(Prefetched::Started);
        let (follower, is_under_way) = self.parts.fills.follow(self, &image.origin, digest);
        if is_under_way {
            return;
        }
        let mut progress = follower.fill().progress.subscribe();
        loop {
            if let Some(end) = &progress.borrow_and_update().end {
                return self.prefetch_ended(image, digest, end);
            }
            let patience = image.patience(self.parts.clock.now());
            if patience.is_zero() {
                break;
            }
            // However it wakes, it looks again.
            let _ = tokio::time::timeout(patience, progress.changed()).await;
        }
        image.give_up(self.parts.clock.now());
        image.put_back(digest);
        follower.let_go();
        self.parts.metrics.prefetch(Prefetched::Cancelled);
    }

    fn prefetch_ended(&self, image: &Arc<Image>, digest: &Digest, end: &End) {
        let End::Failed(error) = end else { return };
        tracing::debug!(%error, %digest, repository = %image.origin.repository, "a blob was not prefetched");
        self.parts.metrics.prefetch(Prefetched::Failed);
        image.put_back(digest);
        // The others would fail as well; a client that asks for one of them will tell.
        self.parts.prefetch.queue().remove(image);
        image.put_off(self.parts.clock.now());
    }
}

impl Parts {
    /// Returns the blobs of the image that are not stored, of those that nobody fetches.
    fn lacking(&self, image: &Image) -> Vec<Digest> {
        let mut left = image.left();
        left.retain(|digest| {
            let is_absent = || self.absent.find(&image.origin, &Wanted::Blob(*digest)).is_some();
            // What cannot be opened is for a client's request to find out.
            matches!(self.store.open(digest), Ok(None)) && !is_absent()
        });
        left
    }
}

/// A prefetch's turn; the next one's comes when it is dropped.
struct Turn {
    cache: Cache,
    registry: Arc<str>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.cache.parts.prefetch.queue().ended(&self.registry);
    }
}

#[cfg(test)]
mod tests;
