//! The bytes of a blob as they come from a source, gathered into batches.
//!
//! On a slow line a batch is what came, and goes on at once. On a fast one it is what came while the batch before was
//! written, up to a bound, since each hand-over to the blocking pool costs as much as writing some ten thousand bytes.

use bytes::Bytes;
use futures_util::{
    FutureExt, StreamExt,
    stream::{BoxStream, Fuse},
};

use crate::source::SourceError;

/// A batch of this length is written without waiting for more.
pub(super) const BATCH_BYTES_MAX: usize = 256 << 10;

/// A body on its way.
pub(super) struct Incoming {
    body: Fuse<BoxStream<'static, Result<Bytes, SourceError>>>,
    /// Bytes at the start that nobody asked for.
    skip: u64,
    /// What ended the body, to be told after what came before it.
    failed: Option<SourceError>,
}

/// Bytes that came together.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) parts: Vec<Bytes>,
    pub(super) len: usize,
}

impl Incoming {
    /// Returns the body without its first `skip` bytes.
    pub(super) fn new(body: BoxStream<'static, Result<Bytes, SourceError>>, skip: u64) -> Self {
        Self { body: body.fuse(), skip, failed: None }
    }

    /// Waits for the next bytes and puts them in the batch; returns whether there were any. An error after bytes of
    /// the same batch is told with the next one.
    pub(super) async fn add_to(&mut self, batch: &mut Batch) -> Result<bool, SourceError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        loop {
            let Some(next) = self.body.next().await else { return Ok(false) };
            let mut bytes = match next {
                Ok(bytes) => bytes,
                Err(error) if batch.len == 0 => return Err(error),
                Err(error) => {
                    self.failed = Some(error);
                    return Ok(false);
                }
            };
            let dropped = self.skip.min(bytes.len() as u64);
            self.skip -= dropped;
            let bytes = bytes.split_off(dropped as usize);
            if !bytes.is_empty() {
                batch.len += bytes.len();
                batch.parts.push(bytes);
                return Ok(true);
            }
        }
    }

    /// Returns the next bytes and all that are there already, up to `most`; `None` at the end.
    pub(super) async fn batch(&mut self, most: usize) -> Result<Option<Batch>, SourceError> {
        let mut batch = Batch::default();
        if !self.add_to(&mut batch).await? {
            return Ok(None);
        }
        while batch.len < most
            && self.add_to(&mut batch).now_or_never().is_some_and(|added| added == Ok(true))
        {}
        Ok(Some(batch))
    }
}

impl Batch {
    /// Keeps the first `len` bytes.
    pub(super) fn truncate(&mut self, len: usize) {
        let mut left = len;
        self.parts.retain_mut(|bytes| {
            bytes.truncate(left);
            left -= bytes.len();
            !bytes.is_empty()
        });
        self.len -= self.len.saturating_sub(len);
    }
}
