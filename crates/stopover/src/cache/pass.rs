//! A blob streamed past a disk that takes no more.
//!
//! Each follower goes on with a stream of its own from where the file ends. One that has all before, and so can hash
//! the whole, still gets the last bytes only when they are right. A broken stream is taken up again as in a fill.

use std::{collections::VecDeque, fs::File, os::unix::fs::FileExt, sync::Arc};

use bytes::Bytes;
use futures_util::{StreamExt, stream::BoxStream};
use oci::{Digest, Hasher};

use super::{Error, fill::TAIL_BYTES, retry::Retry};
use crate::source::{Origin, SourceError, SourceErrorKind};

pub(super) struct Pass {
    origin: Origin,
    digest: Digest,
    /// Where the next byte from the source stands.
    position: u64,
    end: u64,
    hasher: Option<Hasher>,
    /// What the file still has for this follower, before the stream.
    left_in_file: Option<(Arc<File>, u64, u64)>,
    /// Bytes received and hashed, and not yet given out.
    held: VecDeque<Bytes>,
    held_bytes: u64,
    stream: Option<BoxStream<'static, Result<Bytes, SourceError>>>,
    skip: u64,
    retry: Retry,
}

impl Pass {
    /// Returns a stream of the bytes from `position` to `end` (exclusive). `hashed` is where the file ends and the hash
    /// of all before, if the whole is to be verified.
    pub(super) fn new(
        origin: Origin,
        digest: Digest,
        position: u64,
        end: u64,
        hashed: Option<(u64, Hasher)>,
        file: Option<Arc<File>>,
    ) -> Self {
        let (streamed_from, hasher) = match hashed {
            Some((from, hasher)) => (from, Some(hasher)),
            None => (position, None),
        };
        let left_in_file =
            file.filter(|_| position < streamed_from).map(|file| (file, position, streamed_from.min(end)));
        Self {
            origin,
            digest,
            position: streamed_from,
            end,
            hasher,
            left_in_file,
            held: VecDeque::new(),
            held_bytes: 0,
            stream: None,
            skip: 0,
            retry: Retry::default(),
        }
    }

    /// Returns the next bytes; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        if let Some((file, from, to)) = self.left_in_file.take() {
            return self.read_file(&file, from, to).await.map(Some);
        }
        loop {
            let keep = if self.hasher.is_some() { TAIL_BYTES } else { 0 };
            if self.position >= self.end {
                self.verify()?;
                return Ok(self.held.pop_front());
            }
            if let Some(first) = self.held.front()
                && self.held_bytes - first.len() as u64 >= keep
            {
                self.held_bytes -= first.len() as u64;
                return Ok(self.held.pop_front());
            }
            match self.receive().await {
                Ok(()) => {}
                Err(error) => {
                    self.stream = None;
                    let Some(wait) = self.retry.after(&error) else { return Err(error.into()) };
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    /// Reads a step of what the file has; the hash has seen it already.
    async fn read_file(&mut self, file: &Arc<File>, from: u64, to: u64) -> Result<Bytes, Error> {
        const STEP_BYTES: u64 = 256 << 10;
        let until = to.min(from + STEP_BYTES);
        if until < to {
            self.left_in_file = Some((Arc::clone(file), until, to));
        }
        let file = Arc::clone(file);
        let read = tokio::task::spawn_blocking(move || {
            let mut bytes = vec![0; (until - from) as usize];
            file.read_exact_at(&mut bytes, from).map(|()| Bytes::from(bytes))
        });
        read.await.ok().and_then(Result::ok).ok_or(Error::Internal("reading a spool"))
    }

    async fn receive(&mut self) -> Result<(), SourceError> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                let end = self.hasher.is_none().then_some(self.end);
                let opened = self
                    .origin
                    .source
                    .blob(&self.origin.repository, &self.digest, self.position, end)
                    .await?;
                self.skip = self.position.checked_sub(opened.start).ok_or_else(|| {
                    wrong(&self.origin, "the registry sent another range than was asked for")
                })?;
                self.stream.insert(opened.body)
            }
        };
        let Some(bytes) = stream.next().await else {
            let message = format!("the transfer broke off after {} bytes", self.position);
            return Err(SourceError::new(
                Arc::clone(&self.origin.registry),
                SourceErrorKind::Unavailable,
                message,
            ));
        };
        let mut bytes = bytes?;
        let dropped = self.skip.min(bytes.len() as u64);
        self.skip -= dropped;
        let mut bytes = bytes.split_off(dropped as usize);
        bytes.truncate(usize::try_from(self.end - self.position).unwrap_or(usize::MAX));
        if bytes.is_empty() {
            return Ok(());
        }
        self.retry.progressed();
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&bytes);
        }
        self.position += bytes.len() as u64;
        self.held_bytes += bytes.len() as u64;
        self.held.push_back(bytes);
        Ok(())
    }

    fn verify(&mut self) -> Result<(), Error> {
        let Some(hasher) = self.hasher.take() else { return Ok(()) };
        if hasher.finish() == self.digest {
            return Ok(());
        }
        self.origin.source.was_wrong(&self.origin.repository, &self.digest);
        Err(wrong(&self.origin, "the content is not what its digest says").into())
    }
}

fn wrong(origin: &Origin, message: &str) -> SourceError {
    SourceError::new(Arc::clone(&origin.registry), SourceErrorKind::BadAnswer, message)
}
