//! How a fill ends: with the blob in the store, with an error, or handing its followers over to streams of their own.

use std::{io, sync::Arc};

use oci::Hasher;

use super::Filler;
use crate::{
    cache::{Error, blob::state_of, fill::TAIL_BYTES, kept::logged, progress::End},
    index::Membership,
    store::{Mismatch, Verified, hash_range},
};

/// Attempts at a blob too small for anybody to have seen a byte of a wrong one.
const ATTEMPTS_MAX: u32 = 3;

impl Filler {
    /// Throws away what is not what its digest says. Returns the error to end with, unless it may be tried again: while
    /// nobody can have seen a byte of it, and not too often.
    pub(super) fn refuse(&self, mismatch: Mismatch, attempt: u32) -> Option<Error> {
        self.cache.parts.metrics.upstream_verification_failures.inc();
        tracing::error!(
            digest = %mismatch.expected, found = %mismatch.found, registry = %self.fill.origin.registry,
            repository = %self.fill.origin.repository, attempt,
            "what came from the registry is not what its digest says; it is not cached"
        );
        mismatch.spool.discard();
        let origin = &self.fill.origin;
        origin.source.was_wrong(&origin.repository, &self.fill.digest);
        let seen = self.size.is_none_or(|size| size > TAIL_BYTES);
        (seen || attempt >= ATTEMPTS_MAX)
            .then(|| self.wrong("the content is not what its digest says").into())
    }

    /// Lets the followers have the tail, then makes the content durable and visible.
    pub(super) async fn commit(self, verified: Verified) {
        let fill = Arc::clone(&self.fill);
        fill.end(End::Verified);
        let (digest, name) = (fill.digest, fill.origin.tree_name.clone());
        let committed = self.cache.blocking(move |parts| {
            // Before the content is visible, so that nobody who sees it has to ask whether the repository has it.
            parts.index.expect(&name, &digest, Membership::Blob);
            let stored = parts.store.commit(verified)?;
            parts.index.set_file_state(&digest, state_of(&stored.stamp));
            parts.index.link(&name, &digest, Membership::Blob)
        });
        logged("a blob was not stored; it was served all the same", committed.await.unwrap_or(Ok(())));
    }

    /// Ends the fill; keeps what is there of the file for the next one.
    pub(super) async fn stop(mut self, error: Error) {
        let _ = self.settle().await;
        self.fill.stop_others().await;
        if let Some(spool) = self.spool.take() {
            // What others brought beyond the first hole goes.
            let prefix = self.fill.progress.borrow().present.prefix();
            self.cache.blocking(move |_| spool.keep_prefix(prefix)).await;
        }
        self.fill.end(End::Failed(error));
    }

    /// The disk takes no more: the followers go on without it.
    pub(super) async fn pass(mut self, error: &io::Error) {
        tracing::warn!(%error, digest = %self.fill.digest, at = self.hashed, "the disk takes no more; the blob is passed through");
        self.cache.parts.metrics.passed.inc();
        self.cache.parts.prefetch.disk_refused(self.cache.parts.clock.now());
        self.fill.stop_others().await;
        if let Some(spool) = self.spool.clone() {
            spool.discard();
        }
        self.hash_what_is_there().await;
        let hasher = self.hasher.take().unwrap_or_else(|| Hasher::new(self.fill.digest.algorithm()));
        let size = match self.ask_size().await {
            Ok(size) => size,
            Err(error) => return self.fill.end(End::Failed(error.into())),
        };
        let from = self.hashed;
        self.fill.progress.send_modify(|progress| {
            progress.size = size;
            progress.end = Some(End::Passing { from, hasher: Box::new(hasher) });
        });
    }

    /// Catches up with what others brought, since followers may have read it: those can be verified for then, too.
    async fn hash_what_is_there(&mut self) {
        let readable = self.size.unwrap_or(0).saturating_sub(TAIL_BYTES);
        let (from, until) = (self.hashed, self.fill.progress.borrow().present.prefix().min(readable));
        let (Some(spool), Some(hasher)) = (self.spool.take(), self.hasher.clone()) else { return };
        let hashed = self.cache.blocking(move |_| {
            let mut hasher = hasher;
            hash_range(spool.file(), from, until, &mut hasher).map(|()| hasher)
        });
        if let Some(Ok(hasher)) = hashed.await {
            (self.hasher, self.hashed) = (Some(hasher), from.max(until));
        }
    }
}
