//! Ranges far ahead of a fill, fetched into the same file, for clients that read a blob here and there.
//!
//! Each byte of the file has one writer: the filler writes what it claimed, a ranged fetch what that one claimed, and
//! nobody writes where another did. So what was hashed is what stands in the file.

use std::sync::{Arc, MutexGuard, PoisonError};

use super::{
    Fill,
    incoming::{BATCH_BYTES_MAX, Incoming},
};
use crate::{
    cache::Cache,
    metrics::ContentType,
    source::{SourceError, SourceErrorKind},
    store::Spool,
};

/// Ranged fetches at one time for one fill.
const FETCHES_MAX: usize = 4;
/// A range that begins less than this beyond what is there is waited for: the fill is there soon.
pub(in crate::cache) const AHEAD_BYTES_MIN: u64 = 2 << 20;
/// Ranged fetches that may fail; after that the fill brings all: the registry may not serve ranges at all.
const FAILURES_MAX: u32 = 3;
/// What is fetched at least, since the neighbours of a range are wanted soon and each request costs a round trip.
const FETCH_BYTES_MIN: u64 = 1 << 20;

/// Who writes where.
#[derive(Default)]
pub(super) struct Claims {
    /// Where the filler's claim ends: it has all before, but for what ranged fetches brought.
    filler_end: u64,
    /// The ranges being fetched.
    fetched: Vec<(u64, u64)>,
    /// How many ranged fetches failed.
    failed: u32,
}

impl Claims {
    pub(super) fn begin(&mut self, prefix: u64) {
        self.filler_end = prefix;
        self.fetched.clear();
    }

    fn start_after(&self, position: u64) -> Option<u64> {
        self.fetched.iter().map(|&(start, _)| start).filter(|&start| start > position).min()
    }

    fn hold(&self, position: u64) -> bool {
        self.fetched.iter().any(|&(start, end)| start <= position && position < end)
    }
}

impl Fill {
    /// Claims up to `len` bytes at `position` for the filler; returns how many it may write.
    pub(super) fn claim(&self, position: u64, len: u64) -> u64 {
        let mut claims = self.lock_claims();
        let bound = self.bound(&claims, position).unwrap_or(u64::MAX);
        let end = (position + len).min(bound);
        claims.filler_end = claims.filler_end.max(end);
        end - position
    }

    /// Returns where the next part begins that is not the filler's to write.
    pub(super) fn bound_after(&self, position: u64) -> Option<u64> {
        self.bound(&self.lock_claims(), position)
    }

    /// What a ranged fetch brings is published before its claim is given up, so that looking at both under the lock of
    /// the claims overlooks nothing.
    fn bound(&self, claims: &Claims, position: u64) -> Option<u64> {
        let present = self.progress.borrow().present.next_after(position);
        [claims.start_after(position), present].into_iter().flatten().min()
    }

    /// Returns whether a ranged fetch is about to bring the byte at `position`.
    pub(super) fn is_fetched_ahead(&self, position: u64) -> bool {
        self.lock_claims().hold(position)
    }

    /// Returns whether any ranged fetch is under way.
    pub(super) fn is_any_fetched_ahead(&self) -> bool {
        !self.lock_claims().fetched.is_empty()
    }

    /// Begins to fetch the bytes from `start` to `end` (exclusive), unless that is under way or too many such fetches
    /// are. Whoever wants them waits for the fill's progress as for any other bytes.
    pub(in crate::cache) fn fetch_ahead(self: &Arc<Self>, cache: &Cache, start: u64, end: u64) {
        let mut claims = self.lock_claims();
        let (size, spool) = {
            let progress = self.progress.borrow();
            let (Some(size), Some(spool)) = (progress.size, progress.spool.clone()) else { return };
            if progress.present.present_until(start) > start {
                return;
            }
            (size, spool)
        };
        if claims.fetched.len() >= FETCHES_MAX || claims.failed >= FAILURES_MAX {
            return;
        }
        if claims.hold(start) || start < claims.filler_end {
            return;
        }
        let bound = self.bound(&claims, start).unwrap_or(size).min(size);
        let end = end.max(start + FETCH_BYTES_MIN).min(bound);
        claims.fetched.push((start, end));
        drop(claims);
        let (fill, cache) = (Arc::clone(self), cache.clone());
        let tasks = cache.parts.tasks.clone();
        tasks.spawn(async move {
            let _claim = Claim { fill: Arc::clone(&fill), start };
            if let Err(error) = fill.receive_ahead(&cache, spool, start, end).await {
                fill.lock_claims().failed += 1;
                tracing::info!(%error, digest = %fill.digest, start, end, "a range was not fetched ahead of the fill");
            }
        });
    }

    async fn receive_ahead(
        &self,
        cache: &Cache,
        spool: Spool,
        start: u64,
        end: u64,
    ) -> Result<(), SourceError> {
        let broken = |error: &dyn std::fmt::Display| {
            SourceError::new(
                Arc::clone(&self.origin.registry),
                SourceErrorKind::Unavailable,
                error.to_string(),
            )
        };
        let marking = spool.clone();
        let marked = cache.blocking(move |_| marking.mark_sparse()).await;
        marked.unwrap_or(Ok(())).map_err(|error| broken(&error))?;
        let opened = self.origin.source.blob(&self.origin.repository, &self.digest, start, Some(end)).await?;
        if opened.start != start {
            return Err(broken(&"the registry does not serve ranges"));
        }
        let (mut incoming, mut at) = (Incoming::new(opened.body, 0), start);
        while let Some(batch) = incoming.batch(BATCH_BYTES_MAX).await? {
            let len = batch.len as u64;
            if at + len > end {
                return Err(broken(&"the registry sent more than the range asked for"));
            }
            cache.parts.metrics.pulled(ContentType::Blob, len);
            let (spool, from) = (spool.clone(), at);
            let written = cache.blocking(move |_| spool.write_all(&batch.parts, from));
            written.await.unwrap_or(Ok(())).map_err(|error| broken(&error))?;
            at += len;
            self.publish(from, at);
        }
        Ok(())
    }

    pub(super) fn lock_claims(&self) -> MutexGuard<'_, Claims> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives a ranged fetch's claim back when it ends, however it ends.
struct Claim {
    fill: Arc<Fill>,
    start: u64,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.fill.lock_claims().fetched.retain(|&(start, _)| start != self.start);
        // Nothing new is there, but whoever waited for this range has to look elsewhere.
        self.fill.progress.send_modify(|_| {});
    }
}
