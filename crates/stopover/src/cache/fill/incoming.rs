//! The bytes of a blob as they come from a source, gathered into batches.
//!
//! Each batch costs a hand-over to the blocking pool, a wake-up of every follower, and pages of the size of what is
//! written at once; so bytes that follow each other closely are put together, up to a bound. On a slow line a batch is
//! what came, and goes on at once.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{
    StreamExt,
    stream::{BoxStream, Fuse},
};

use crate::source::SourceError;

/// A batch of this length is written without waiting for more.
pub(super) const BATCH_BYTES_MAX: usize = 256 << 10;

/// How long the first bytes of a batch wait for others: a tenth of what anybody notices.
const MOMENT: Duration = Duration::from_millis(4);

/// A body on its way.
pub(super) struct Incoming {
    body: Fuse<BoxStream<'static, Result<Bytes, SourceError>>>,
    /// Bytes at the start that nobody asked for.
    skip: u64,
    /// What came and did not fit into the batch before.
    left: Bytes,
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
        Self { body: body.fuse(), skip, left: Bytes::new(), failed: None }
    }

    /// Waits for the next bytes and puts them in the batch, which has room for `room`; returns whether there were any.
    /// An error after bytes of the same batch is told with the next one.
    pub(super) async fn add_to(&mut self, batch: &mut Batch, room: usize) -> Result<bool, SourceError> {
        if !self.left.is_empty() {
            self.take_left(batch, room);
            return Ok(true);
        }
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
                self.left = bytes;
                self.take_left(batch, room);
                return Ok(true);
            }
        }
    }

    fn take_left(&mut self, batch: &mut Batch, room: usize) {
        let bytes = self.left.split_to(room.min(self.left.len()));
        batch.len += bytes.len();
        batch.parts.push(bytes);
    }

    /// Returns the next bytes and those that follow them closely, up to `most`; `None` at the end.
    pub(super) async fn batch(&mut self, most: usize) -> Result<Option<Batch>, SourceError> {
        let mut batch = Batch::default();
        if !self.add_to(&mut batch, most).await? {
            return Ok(None);
        }
        self.add_what_follows(&mut batch, most).await;
        Ok(Some(batch))
    }

    /// Adds what comes within a moment.
    pub(super) async fn add_what_follows(&mut self, batch: &mut Batch, most: usize) {
        let follow = async {
            // An end and an error are told with the next batch.
            while batch.len < most && self.add_to(batch, most - batch.len).await == Ok(true) {}
        };
        let _ = tokio::time::timeout(MOMENT, follow).await;
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
