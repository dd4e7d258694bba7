//! A fill: a file that fills up, and whoever wants the blob follows it.
//!
//! One detached task per digest owns the file and publishes which parts of it are there; followers read those at their
//! own pace. The disk is the meeting place, never a channel of chunks, so a slow client costs no memory and a late one
//! starts at the first byte. The task takes up a broken transfer where it stands, verifies the whole, and only then
//! hands the file to the store. When all followers have left it goes on if that is cheap, else it stops and keeps its
//! part for the next.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use oci::Digest;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    Cache, Error,
    progress::{End, Progress, Ranges},
};
use crate::{
    metrics::Under,
    source::{LaneName, Origin, SourceError, SourceErrorKind},
    store::Spool,
};

mod ahead;
mod claims;
mod filler;
mod incoming;
mod line;
mod streams;

pub(super) use ahead::AHEAD_BYTES_MIN;
use filler::Filler;
use line::SHARED_BLOB_BYTES_MIN;
use streams::{Lines, OnLine};

/// The last bytes of a blob, which followers get only when the whole was found right.
pub(super) const TAIL_BYTES: u64 = 64 << 10;
/// How long a fill goes on for a follower to come back.
const ABANDONED_GRACE: Duration = Duration::from_secs(30);
/// A fill with less than this left goes on without followers.
const LITTLE_LEFT_BYTES: u64 = 64 << 20;
/// How long a follower waits to learn a blob's size; containerd gives up after 30 s without a response's head.
const SIZE_WAIT_MAX: Duration = Duration::from_secs(25);

/// The fills under way, by digest.
pub(super) struct Fills {
    running: Mutex<HashMap<Digest, Arc<Fill>>>,
    lines: Lines,
    /// Counts the streams beside the fills' own by the copies that there are of it.
    streams: Arc<()>,
}

/// A blob on its way into the store.
pub(super) struct Fill {
    pub(super) digest: Digest,
    /// On whose behalf the bytes are asked for.
    pub(super) origin: Origin,
    pub(super) progress: watch::Sender<Progress>,
    followers: Mutex<Followers>,
    claims: Mutex<claims::Claims>,
    line: Arc<OnLine>,
    /// Ends what is fetched beside the filler, and then the filler.
    stopping: CancellationToken,
}

struct Followers {
    count: usize,
    last_left: Instant,
    /// Whether the last one to leave was the only one and wants nobody to wait for another.
    let_go: bool,
}

/// What a follower that came too late has to wait for: the end of a fill that is being given up.
fn size_or_end(progress: &Progress) -> bool {
    progress.end.is_some() || (progress.size.is_some() && !progress.closing)
}

impl Fills {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { running: Mutex::default(), lines: Lines::default(), streams: Arc::default() })
    }

    /// Returns the fill of this digest, begun now if there was none, with the caller as a follower; and whether it was
    /// there.
    pub(super) fn follow(
        self: &Arc<Self>,
        cache: &Cache,
        origin: &Origin,
        digest: &Digest,
    ) -> (Follower, bool) {
        let mut running = self.lock();
        if let Some(fill) = running.get(digest).filter(|fill| !fill.has_failed()) {
            return (Follower::of(fill), true);
        }
        let line = self.lines.join(origin, cache.parts.clock.clone());
        let fill = Arc::new(Fill::new(origin.clone(), *digest, line));
        running.insert(*digest, Arc::clone(&fill));
        let follower = Follower::of(&fill);
        drop(running);
        let ending = Ending { fills: Arc::clone(self), fill: Arc::clone(&fill) };
        let (cache, under_way) = (cache.clone(), Under::way(&cache.parts.metrics.fills));
        let tasks = cache.parts.tasks.clone();
        tasks.spawn(async move {
            let _under_way = under_way;
            let ending = ending;
            Filler::new(cache, Arc::clone(&ending.fill)).run().await;
        });
        (follower, false)
    }

    /// Has every fill end soon and keep its part.
    pub(super) fn stop(&self) {
        for fill in self.lock().values() {
            fill.stopping.cancel();
            // Its filler may wait for others, who come no further.
            fill.progress.send_modify(|_| {});
        }
    }

    /// Counts a stream beside the fills' own, as long as what this returns lives.
    fn count_stream(&self) -> Arc<()> {
        Arc::clone(&self.streams)
    }

    /// Returns how much a stream may hold in memory before it writes, so that all together stay within a bound.
    fn batch_bytes(&self) -> usize {
        const ALL_BYTES_MAX: usize = 4 << 20;
        const BATCH_BYTES_MIN: usize = 16 << 10;
        let beside = Arc::strong_count(&self.streams) - 1;
        let each = ALL_BYTES_MAX / (self.lock().len() + beside).max(1);
        // A power of two, so that batches end where pages do.
        1 << each.clamp(BATCH_BYTES_MIN, incoming::BATCH_BYTES_MAX).ilog2()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Arc<Fill>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes the fill off the list when its task ends, however it ends, and lets nobody wait for it after.
struct Ending {
    fills: Arc<Fills>,
    fill: Arc<Fill>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        let mut running = self.fills.lock();
        if running.get(&self.fill.digest).is_some_and(|fill| Arc::ptr_eq(fill, &self.fill)) {
            running.remove(&self.fill.digest);
        }
        drop(running);
        self.fill.stopping.cancel();
        self.fill.line.with(|line, _| line.end_fill());
        self.fill.progress.send_if_modified(|progress| {
            let lost = progress.end.is_none();
            if lost {
                progress.end = Some(End::Failed(Error::Internal("a fill was stopped")));
            }
            lost
        });
    }
}

impl Fill {
    fn new(origin: Origin, digest: Digest, line: Arc<OnLine>) -> Self {
        Self {
            digest,
            origin,
            progress: watch::Sender::new(Progress::default()),
            followers: Mutex::new(Followers { count: 0, last_left: Instant::now(), let_go: false }),
            claims: Mutex::default(),
            line,
            stopping: CancellationToken::new(),
        }
    }

    /// Returns the blob's size, once that is known; fails where the fill does.
    pub(super) async fn size(&self) -> Result<u64, Error> {
        let mut progress = self.progress.subscribe();
        let known = progress.wait_for(size_or_end);
        let Ok(known) = tokio::time::timeout(SIZE_WAIT_MAX, known).await else {
            return Err(Error::from(SourceError::new(
                Arc::clone(&self.origin.registry),
                SourceErrorKind::Timeout,
                format!("blob {}: no answer within {SIZE_WAIT_MAX:?}", self.digest),
            )));
        };
        let known = known.map_err(|_| Error::Internal("a fill was lost"))?;
        match (&known.end, known.size) {
            (Some(End::Failed(error)), _) => Err(error.clone()),
            (_, Some(size)) => Ok(size),
            (_, None) => Err(Error::from(SourceError::new(
                Arc::clone(&self.origin.registry),
                SourceErrorKind::BadAnswer,
                format!(
                    "blob {}: the registry does not say how long it is, and the disk does not take it",
                    self.digest
                ),
            ))),
        }
    }

    /// Returns the lane that the first bytes came by. It is known with the size, unless that was known before.
    pub(super) fn lane(&self) -> Option<LaneName> {
        self.progress.borrow().lane.clone()
    }

    /// Notes by which lane bytes come.
    fn comes_by(&self, lane: Option<LaneName>) {
        // Nobody waits for this alone.
        self.progress.send_if_modified(|progress| {
            progress.lane = progress.lane.take().or(lane);
            false
        });
    }

    /// Returns whether the content turned out to be in the store when the fill was to begin.
    pub(super) fn was_found(&self) -> bool {
        matches!(self.progress.borrow().end, Some(End::Found))
    }

    /// Returns whether the disk took no more.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self.progress.borrow().end, Some(End::Passing { .. }))
    }

    pub(super) fn has_failed(&self) -> bool {
        matches!(self.progress.borrow().end, Some(End::Failed(_)))
    }

    /// Claims up to `len` bytes at `position` for the filler; returns how many it may write.
    fn claim(&self, position: u64, len: u64) -> u64 {
        let mut claims = self.lock_claims();
        claims.claim(&self.progress.borrow().present, position, len)
    }

    fn publish(&self, start: u64, end: u64) {
        self.progress.send_modify(|progress| progress.present.add(start, end));
    }

    fn end(&self, end: End) {
        self.progress.send_modify(|progress| progress.end = Some(end));
    }

    /// Begins with a file that has its first `prefix` bytes already.
    fn begin(&self, spool: &Spool, prefix: u64) {
        self.lock_claims().begin(prefix);
        self.progress.send_modify(|progress| {
            progress.file = Some(Arc::clone(spool.file()));
            progress.spool = Some(spool.clone());
            progress.present = Ranges::prefix_of(prefix);
        });
    }

    /// Gives the fill up if it is to stop, or nobody follows, has not for a while, and going on would not be cheap. Whoever comes after
    /// waits for its end and begins another.
    fn abandon(&self, position: u64, size: Option<u64>) -> bool {
        if self.stopping.is_cancelled() {
            self.progress.send_modify(|progress| progress.closing = true);
            return true;
        }
        let followers = self.lock_followers();
        let is_early = !followers.let_go && followers.last_left.elapsed() < ABANDONED_GRACE;
        if followers.count > 0 || is_early {
            return false;
        }
        let dear = size.is_none_or(|size| match followers.let_go {
            true => position < size,
            false => position < size / 2 && size - position > LITTLE_LEFT_BYTES,
        });
        if dear {
            self.progress.send_modify(|progress| progress.closing = true);
        }
        dear
    }

    fn lock_followers(&self) -> MutexGuard<'_, Followers> {
        self.followers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps a fill wanted as long as it lives.
pub(super) struct Follower(Arc<Fill>);

impl Follower {
    fn of(fill: &Arc<Fill>) -> Self {
        let mut followers = fill.lock_followers();
        followers.count += 1;
        followers.let_go = false;
        drop(followers);
        Self(Arc::clone(fill))
    }

    /// Leaves; if nobody else follows, and nobody comes before its next bytes do, the fill stops.
    pub(super) fn let_go(self) {
        let mut followers = self.0.lock_followers();
        followers.let_go = followers.count == 1;
    }

    pub(super) fn fill(&self) -> &Arc<Fill> {
        &self.0
    }
}

impl Clone for Follower {
    fn clone(&self) -> Self {
        Self::of(&self.0)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut followers = self.0.lock_followers();
        followers.count -= 1;
        followers.last_left = Instant::now();
    }
}
