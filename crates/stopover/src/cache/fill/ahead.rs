//! Parts of a blob fetched beside the filler, into the same file: where a client reads far ahead of it, and where
//! several streams bring more than one.
//!
//! The filler passes over what it finds there, hashing it from the file. Who fetches a part holds a claim to it, and
//! gives that back when nothing is being written there any more, however that came.

use std::sync::{Arc, MutexGuard, PoisonError};

use super::{
    Fill, SHARED_BLOB_BYTES_MIN,
    claims::{Claims, Errand},
    incoming::Incoming,
    streams::{Asked, Stream},
};
use crate::{
    cache::{Cache, progress::Progress},
    metrics::ContentType,
    source::{SourceError, SourceErrorKind},
    store::Spool,
};

/// A range that begins less than this beyond what is there is waited for: the fill is there soon.
pub(in crate::cache) const AHEAD_BYTES_MIN: u64 = 2 << 20;
/// What is fetched at least, since the neighbours of a range are wanted soon and each request costs a round trip.
const FETCH_BYTES_MIN: u64 = 1 << 20;

/// A part that is being fetched.
struct Part {
    claim: Claim,
    errand: Errand,
    asked: Asked,
    /// The whole blob's size in bytes.
    size: u64,
    spool: Spool,
}

/// How the fetching of a part ended.
enum Fetched {
    /// It is there, and perhaps another was begun.
    Whole(Option<Box<Part>>),
    /// The fill wants no more.
    Stopped,
}

impl Fill {
    /// Begins to fetch the bytes from `start` to `end` (exclusive), unless that is under way or too many such fetches
    /// are. Whoever wants them waits for the fill's progress as for any other bytes.
    pub(in crate::cache) fn fetch_ahead(self: &Arc<Self>, cache: &Cache, start: u64, end: u64) {
        let part = self.part(Errand::Range, |claims, progress, size| {
            let is_coming = claims.cover(start) || progress.present.present_until(start) > start;
            let bound = claims.bound_after(&progress.present, start).unwrap_or(size).min(size);
            (!is_coming).then(|| (start, end.max(start + FETCH_BYTES_MIN).min(bound)))
        });
        if let Some(part) = part {
            self.run(cache, part);
        }
    }

    /// Begins to fetch further parts as long as more streams are wanted and there is something left to fetch.
    pub(super) fn share_out(self: &Arc<Self>, cache: &Cache) {
        while self.line.with(|line, _| line.wants_more()) {
            let Some(part) = self.next_part() else { return };
            self.run(cache, part);
        }
    }

    /// Claims the next part that nobody has, and asks for it.
    fn next_part(self: &Arc<Self>) -> Option<Part> {
        self.part(Errand::Share, |claims, progress, size| {
            let (start, end) = claims.next_free(&progress.present, size)?;
            let len = self.line.with(|line, now| line.piece(now, end - start));
            (size >= SHARED_BLOB_BYTES_MIN).then_some((start, start + len))
        })
    }

    fn part(
        self: &Arc<Self>,
        errand: Errand,
        choose: impl FnOnce(&Claims, &Progress, u64) -> Option<(u64, u64)>,
    ) -> Option<Part> {
        let mut claims = self.lock_claims();
        let (start, end, size, spool) = {
            let progress = self.progress.borrow();
            let (Some(size), Some(spool)) = (progress.size, progress.spool.clone()) else { return None };
            let (start, end) = choose(&claims, &progress, size).filter(|_| claims.lets(errand))?;
            (start, end, size, spool)
        };
        claims.take(start, end, errand);
        drop(claims);
        let claim = Claim { fill: Arc::clone(self), start, end };
        Some(Part { claim, errand, asked: Asked::new(self, start, Some(end)), size, spool })
    }

    fn run(self: &Arc<Self>, cache: &Cache, part: Part) {
        let (fill, cache) = (Arc::clone(self), cache.clone());
        let tasks = cache.parts.tasks.clone();
        tasks.spawn(async move {
            let _beside = cache.parts.fills.count_stream();
            let mut next = Some(part);
            while let Some(part) = next.take() {
                let (start, end) = (part.claim.start, part.claim.end);
                match fill.fetch(&cache, part).await {
                    Ok(Fetched::Whole(part)) => {
                        fill.lock_claims().succeeded();
                        next = part.map(|part| *part);
                    }
                    Ok(Fetched::Stopped) => {}
                    Err(error) => {
                        fill.lock_claims().failed();
                        tracing::info!(%error, digest = %fill.digest, start, end, "a part was not fetched beside the fill");
                    }
                }
            }
        });
    }

    async fn fetch(self: &Arc<Self>, cache: &Cache, part: Part) -> Result<Fetched, SourceError> {
        let Part { claim, errand, asked, size, spool } = part;
        let marking = spool.clone();
        let marked = cache.blocking(move |_| marking.mark_sparse()).await;
        marked.unwrap_or(Ok(())).map_err(|error| self.broken(&error))?;
        let Some(opened) = self.stopping.run_until_cancelled(asked.opened(self)).await else {
            return Ok(Fetched::Stopped);
        };
        let (opened, mut stream) = opened.inspect_err(|error| {
            if errand == Errand::Share {
                self.note_refusal(error);
            }
        })?;
        if opened.start != claim.start {
            self.line.with(|line, _| line.ignores_ranges());
            return Err(self.broken(&"the registry does not serve ranges"));
        }
        if opened.size.is_some_and(|told| told != size) {
            self.origin.source.was_wrong(&self.origin.repository, &self.digest);
            return Err(self.broken(&"the registry says another size than before"));
        }
        let (mut incoming, mut at, mut next) = (Incoming::new(opened.body, 0), claim.start, None);
        loop {
            let most = cache.parts.fills.batch_bytes();
            let Some(batch) = self.stopping.run_until_cancelled(incoming.batch(most)).await else {
                return Ok(Fetched::Stopped);
            };
            let Some(batch) = batch? else { break };
            let len = batch.len as u64;
            if at + len > claim.end {
                return Err(self.broken(&"the registry sent more than the range asked for"));
            }
            cache.parts.metrics.pulled(ContentType::Blob, len);
            let (spool, from) = (spool.clone(), at);
            // Not given up half way: nobody else may write here while this does.
            let written = cache.blocking(move |_| spool.write_all(&batch.parts, from));
            written.await.unwrap_or(Ok(())).map_err(|error| self.broken(&error))?;
            at += len;
            self.publish(from, at);
            next = next.or_else(|| self.follow_up(errand, &mut stream, len, claim.end - at));
        }
        if at < claim.end {
            return Err(self.broken(&format_args!("the transfer broke off after {at} bytes")));
        }
        Ok(Fetched::Whole(next.map(Box::new)))
    }

    /// Asks for the next part shortly before one ends, so that no time is lost between them.
    fn follow_up(self: &Arc<Self>, errand: Errand, stream: &mut Stream, len: u64, left: u64) -> Option<Part> {
        let goes_on = errand == Errand::Share && self.line.with(|line, _| line.wants_all());
        (stream.received(len, Some(left)) && goes_on).then(|| self.next_part()).flatten()
    }

    /// Takes it as a limit on streams where one was refused while another flows.
    pub(super) fn note_refusal(&self, error: &SourceError) {
        tracing::info!(
            %error, registry = %self.origin.registry,
            "a stream beside another was refused; blobs are fetched by one for a while"
        );
        self.line.with(|line, now| line.refused(now));
    }

    fn broken(&self, error: &dyn std::fmt::Display) -> SourceError {
        SourceError::new(Arc::clone(&self.origin.registry), SourceErrorKind::Unavailable, error.to_string())
    }

    /// Lets nobody fetch beside the filler any more, and waits until nobody does.
    pub(super) async fn stop_others(&self) {
        self.progress.send_modify(|progress| progress.spool = None);
        self.stopping.cancel();
        let mut progress = self.progress.subscribe();
        while self.lock_claims().is_any_held() {
            if progress.changed().await.is_err() {
                return;
            }
        }
    }

    pub(super) fn lock_claims(&self) -> MutexGuard<'_, Claims> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives a part's claim back when it is dropped.
struct Claim {
    fill: Arc<Fill>,
    start: u64,
    end: u64,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.fill.lock_claims().give_back(self.start);
        // Nothing new is there, but whoever waited for this part has to look elsewhere.
        self.fill.progress.send_modify(|_| {});
    }
}
