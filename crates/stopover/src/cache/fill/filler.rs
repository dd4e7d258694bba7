//! The task behind a fill: receives, writes, publishes, hashes, and resumes what breaks off.
//!
//! While one batch is written and hashed on the blocking pool the next one is received, and no third one is held: that
//! bounds a fill's memory to two batches.

mod begin;
mod end;

use std::{io, sync::Arc, time::Duration};

use oci::Hasher;
use tokio::task::{JoinError, JoinHandle};

use super::{
    Fill, SHARED_BLOB_BYTES_MIN,
    incoming::{Batch, Incoming},
    streams::{Asked, Large, Stream},
};
use crate::{
    cache::{Cache, Error, absent::Wanted, progress::End, retry::Retry},
    metrics::ContentType,
    source::{SourceError, SourceErrorKind},
    store::{Mismatch, Spool, Verified, hash_range},
};

/// Why a transfer stopped before its end.
enum Trouble {
    Source(SourceError),
    Disk(io::Error),
    Abandoned,
}

impl From<SourceError> for Trouble {
    fn from(error: SourceError) -> Self {
        Self::Source(error)
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

/// The write under way: gives the hasher back, and says whether the disk took the batch.
type Writing = JoinHandle<(Hasher, io::Result<()>)>;

pub(super) struct Filler {
    cache: Cache,
    fill: Arc<Fill>,
    /// The size that the repository's manifests give.
    expected_size: Option<u64>,
    size: Option<u64>,
    spool: Option<Spool>,
    hasher: Option<Hasher>,
    /// How many bytes were received, written or handed over to be written.
    position: u64,
    /// How many bytes the hasher has seen; behind `position` while a write is under way.
    hashed: u64,
    writing: Option<Writing>,
    /// What was asked for ahead of the end of what comes.
    next: Option<Asked>,
    retry: Retry,
    /// Held where the blob may be fetched in parts.
    large: Option<Large>,
}

impl Filler {
    pub(super) fn new(cache: Cache, fill: Arc<Fill>) -> Self {
        let hasher = Some(Hasher::new(fill.digest.algorithm()));
        Self {
            cache,
            fill,
            expected_size: None,
            size: None,
            spool: None,
            hasher,
            position: 0,
            hashed: 0,
            writing: None,
            next: None,
            retry: Retry::default(),
            large: None,
        }
    }

    pub(super) async fn run(mut self) {
        for attempt in 1.. {
            match self.attempt().await {
                Ok(None) => return,
                Ok(Some(verified)) => return self.commit(verified).await,
                Err(Stop::Mismatch(mismatch)) => {
                    if let Some(error) = self.refuse(*mismatch, attempt) {
                        return self.fill.end(End::Failed(error));
                    }
                    self.begin_anew();
                }
                Err(Stop::Failed(error)) => return self.stop(error).await,
                Err(Stop::Disk(error)) => return self.pass(&error).await,
            }
        }
    }

    /// Fetches the blob; `None` where it turned out to be stored already.
    async fn attempt(&mut self) -> Result<Option<Verified>, Stop> {
        if self.look_again().await? {
            return Ok(None);
        }
        self.make_spool().await?;
        self.fit_what_was_taken_up().await?;
        self.note_large();
        loop {
            self.skip_present().await?;
            if Some(self.position) == self.size {
                break;
            }
            match self.receive().await {
                Ok(()) => {}
                Err(Trouble::Source(error)) => self.wait_after(error).await?,
                Err(Trouble::Disk(error)) => return Err(Stop::Disk(error)),
                Err(Trouble::Abandoned) => return Err(Stop::Failed(Error::Abandoned)),
            }
        }
        let (Some(spool), Some(hasher)) = (self.spool.take(), self.hasher.take()) else {
            return Err(Stop::Failed(Error::Internal("a fill lost its file")));
        };
        spool.verify(hasher).map(Some).map_err(Stop::Mismatch)
    }

    /// Passes over what others have brought, waiting for those under way.
    async fn skip_present(&mut self) -> Result<(), Stop> {
        /// What is hashed at one time, so that it is seen soon what else is to be done.
        const STEP_BYTES: u64 = 4 << 20;
        let mut progress = self.fill.progress.subscribe();
        loop {
            let until = progress.borrow_and_update().present.present_until(self.position);
            if until > self.position {
                self.skip_to(until.min(self.position + STEP_BYTES)).await?;
            } else if !self.fill.lock_claims().hold(self.position) {
                return Ok(());
            } else if progress.changed().await.is_err() {
                return Err(Stop::Failed(Error::Internal("a fill was lost")));
            }
            if self.fill.abandon(self.position, self.size) {
                return Err(Stop::Failed(Error::Abandoned));
            }
            self.fill.share_out(&self.cache);
        }
    }

    async fn skip_to(&mut self, until: u64) -> Result<(), Stop> {
        self.settle().await.map_err(Stop::Disk)?;
        let (Some(spool), Some(mut hasher)) = (self.spool.clone(), self.hasher.take()) else {
            return Err(Stop::Failed(Error::Internal("a fill lost its file")));
        };
        let from = self.position;
        let hashed = self.cache.blocking(move |_| {
            let result = hash_range(spool.file(), from, until, &mut hasher);
            (hasher, result)
        });
        let (hasher, result) = hashed.await.ok_or(Stop::Failed(Error::Internal("hashing a spool")))?;
        self.hasher = Some(hasher);
        result.map_err(Stop::Disk)?;
        (self.position, self.hashed) = (until, until);
        self.retry.progressed();
        Ok(())
    }

    /// Receives from where the file ends until the stream does, or until a part that is another's to write.
    async fn receive(&mut self) -> Result<(), Trouble> {
        let fill = Arc::clone(&self.fill);
        let was_early = self.next.as_ref().is_some_and(|next| next.start == self.position);
        let asked = self.ask();
        let bound = asked.end;
        let opened = asked.opened(&fill).await;
        let (opened, mut stream) = opened.inspect_err(|error| {
            if was_early {
                fill.note_refusal(error);
            }
        })?;
        fill.comes_by(opened.lane);
        self.learn_size(opened.size)?;
        let Some(skip) = self.position.checked_sub(opened.start) else {
            return Err(self.wrong("the registry sent another range than was asked for").into());
        };
        let mut incoming = Incoming::new(opened.body, skip);
        let mut all_mine = true;
        while all_mine && let Some(batch) = self.gather(&mut incoming).await? {
            let before = self.position;
            all_mine = self.write(batch).await?;
            if fill.abandon(self.position, self.size) {
                self.settle().await?;
                return Err(Trouble::Abandoned);
            }
            self.look_ahead(&mut stream, self.position - before, bound);
        }
        self.settle().await?;
        self.check_end(!all_mine || bound.is_some_and(|bound| self.position >= bound))
    }

    /// Asks for what comes next: up to a part that is another's to write, or a piece that leaves others something to
    /// fetch at the same time, or all.
    fn ask(&mut self) -> Asked {
        if let Some(next) = self.next.take_if(|next| next.start <= self.position)
            && next.start == self.position
        {
            return next;
        }
        let mut claims = self.fill.lock_claims();
        let another = claims.bound_after(&self.fill.progress.borrow().present, self.position);
        let own = self.next.as_ref().map(|next| next.start);
        let bound = [another, own].into_iter().flatten().min();
        let end = bound.or_else(|| self.stretch(self.position));
        if own.is_none() {
            claims.ask(end);
        }
        drop(claims);
        Asked::new(&self.fill, self.position, end)
    }

    /// Returns where a request from `start` is to end; `None` is with the blob.
    fn stretch(&self, start: u64) -> Option<u64> {
        let size = self.size.or(self.expected_size).filter(|&size| size >= SHARED_BLOB_BYTES_MIN)?;
        let left = size.checked_sub(start)?;
        self.fill.line.with(|line, now| line.stretch(now, left)).map(|len| start + len)
    }

    /// After `len` bytes came of a request up to `bound`: sees to it that what comes after is asked for before that
    /// request ends, here or beside, and that there are as many streams as are wanted.
    fn look_ahead(&mut self, stream: &mut Stream, len: u64, bound: Option<u64>) {
        let bound = bound.filter(|&bound| self.size.is_some_and(|size| bound < size));
        let left = bound.map(|bound| bound.saturating_sub(self.position));
        let is_near_end = stream.received(len, left);
        if bound.is_some_and(|bound| self.position > bound) {
            self.fill.line.with(|line, _| line.ignores_ranges());
            self.next = None;
        } else if is_near_end && let Some(bound) = bound {
            let mut claims = self.fill.lock_claims();
            let is_free = {
                let present = &self.fill.progress.borrow().present;
                !claims.hold(bound) && present.present_until(bound) == bound
            };
            if is_free && claims.bound_after(&self.fill.progress.borrow().present, bound).is_none() {
                let end = self.stretch(bound);
                claims.ask(end);
                self.next = Some(Asked::new(&self.fill, bound, end));
            }
        }
        self.fill.share_out(&self.cache);
    }

    /// Returns what came: at least a byte, and on from there what comes within a moment or while the batch before is
    /// being written. Batches end where pages do, if the bound leaves a choice, so that the file has large ones.
    async fn gather(&mut self, incoming: &mut Incoming) -> Result<Option<Batch>, Trouble> {
        let bound = self.cache.parts.fills.batch_bytes();
        let most = bound - (self.position % bound as u64) as usize;
        // The first bytes of a blob go on at once: somebody waits for them.
        let is_start = self.position == 0;
        let mut batch = Batch::default();
        while batch.len < most {
            let Some(writing) = &mut self.writing else {
                if batch.len == 0 && !incoming.add_to(&mut batch, most).await? {
                    return Ok(None);
                }
                if !is_start {
                    incoming.add_what_follows(&mut batch, most).await;
                }
                return Ok(Some(batch));
            };
            let room = most - batch.len;
            tokio::select! {
                biased;
                added = incoming.add_to(&mut batch, room) => match added {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => {
                        self.settle().await?;
                        return Err(error.into());
                    }
                },
                written = writing => {
                    self.writing = None;
                    self.written(written)?;
                }
            }
        }
        Ok((batch.len > 0).then_some(batch))
    }

    /// Decides what it means that the stream ended here.
    fn check_end(&mut self, at_bound: bool) -> Result<(), Trouble> {
        match self.size {
            _ if at_bound => {}
            Some(size) if self.position == size => {}
            // Nobody said how long it is: this is the end, and the digest says whether that is so.
            None => self.set_size(self.position),
            Some(_) => {
                let message = format!("the transfer broke off after {} bytes", self.position);
                let registry = Arc::clone(&self.fill.origin.registry);
                return Err(SourceError::new(registry, SourceErrorKind::Unavailable, message).into());
            }
        }
        Ok(())
    }

    /// Hands a batch over to be written and hashed, once the one before is. Returns whether all of it was the filler's
    /// to write.
    async fn write(&mut self, mut batch: Batch) -> Result<bool, Trouble> {
        self.settle().await?;
        let received = batch.len as u64;
        let len = self.fill.claim(self.position, received);
        batch.truncate(len as usize);
        if self.size.is_some_and(|size| self.position + len > size) {
            return Err(self.wrong_length("the registry sent more bytes than it said").into());
        }
        let (Some(spool), Some(mut hasher)) = (self.spool.clone(), self.hasher.take()) else {
            return Err(Trouble::Disk(io::Error::other("a fill lost its file")));
        };
        let (fill, start) = (Arc::clone(&self.fill), self.position);
        self.cache.parts.metrics.pulled(ContentType::Blob, len);
        self.retry.progressed();
        self.position += len;
        self.writing = Some(tokio::task::spawn_blocking(move || {
            if let Err(error) = spool.write_all(&batch.parts, start) {
                return (hasher, Err(error));
            }
            fill.publish(start, start + batch.len as u64);
            for bytes in &batch.parts {
                hasher.update(bytes);
            }
            (hasher, Ok(()))
        }));
        Ok(len == received)
    }

    /// Waits for the write under way.
    async fn settle(&mut self) -> io::Result<()> {
        let Some(writing) = self.writing.take() else { return Ok(()) };
        let written = writing.await;
        self.written(written)
    }

    /// Takes the hasher back from a write, and notes how far it came.
    fn written(&mut self, written: Result<(Hasher, io::Result<()>), JoinError>) -> io::Result<()> {
        let (hasher, result) = written.map_err(io::Error::other)?;
        self.hasher = Some(hasher);
        match result {
            Ok(()) => self.hashed = self.position,
            Err(_) => self.position = self.hashed,
        }
        result
    }

    fn learn_size(&mut self, told: Option<u64>) -> Result<(), Trouble> {
        let known = self.size.or(self.expected_size);
        match (known, told) {
            (Some(known), Some(told)) if known != told => {
                let message = format!("the registry says {told} bytes, the manifest {known}");
                return Err(self.wrong_length(&message).into());
            }
            (Some(size), _) | (None, Some(size)) => self.set_size(size),
            (None, None) => {}
        }
        match self.size {
            Some(size) if self.position > size => {
                Err(self.wrong("more bytes are here than the blob has").into())
            }
            _ => Ok(()),
        }
    }

    fn set_size(&mut self, size: u64) {
        if self.size.replace(size) != Some(size) {
            self.note_large();
            self.fill.progress.send_modify(|progress| progress.size = Some(size));
        }
    }

    /// Tells the line where the blob is known to be large.
    fn note_large(&mut self) {
        let size = self.size.or(self.expected_size);
        if self.large.is_none() && size.is_some_and(|size| size >= SHARED_BLOB_BYTES_MIN) {
            self.large = Some(Large::new(&self.fill.line));
        }
    }

    async fn wait_after(&mut self, error: SourceError) -> Result<(), Stop> {
        let Some(wait) = self.retry.after(&error) else {
            let wanted = Wanted::Blob(self.fill.digest);
            let noted = self.cache.noted::<()>(&self.fill.origin, &wanted, Err(error));
            return Err(Stop::Failed(noted.err().unwrap_or(Error::Internal("a fill failed"))));
        };
        tracing::info!(%error, digest = %self.fill.digest, at = self.position, ?wait, "a transfer is taken up again");
        self.cache.parts.metrics.fill_resumes.inc();
        tokio::time::sleep(wait.max(Duration::from_millis(1))).await;
        Ok(())
    }

    fn begin_anew(&mut self) {
        self.hasher = Some(Hasher::new(self.fill.digest.algorithm()));
        (self.position, self.hashed) = (0, 0);
        self.next = None;
    }

    /// Returns the error for a length that cannot be right. Whoever sent it hears of it, so that it is asked for elsewhere.
    fn wrong_length(&self, message: &str) -> SourceError {
        let origin = &self.fill.origin;
        origin.source.was_wrong(&origin.repository, &self.fill.digest);
        self.wrong(message)
    }

    fn wrong(&self, message: &str) -> SourceError {
        let message = format!("blob {}: {message}", self.fill.digest);
        SourceError::new(Arc::clone(&self.fill.origin.registry), SourceErrorKind::BadAnswer, message)
    }
}

/// Why an attempt ended without the blob.
enum Stop {
    Failed(Error),
    Disk(io::Error),
    Mismatch(Box<Mismatch>),
}
