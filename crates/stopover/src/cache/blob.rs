//! Blobs by digest: all branches of such a pull, and the reading of them.

use std::{fs::File, sync::Arc};

use bytes::Bytes;
use oci::{Digest, RepositoryName, Span};
use tokio::sync::watch;

use super::{
    Cache, Error, Outcome, Parts, Served,
    absent::Wanted,
    fill::{AHEAD_BYTES_MIN, Fill, Follower, TAIL_BYTES},
    kept::logged,
    key,
    pass::Pass,
    progress::{End, Progress},
};
use crate::{
    index::{FileState, Membership},
    metrics::Under,
    source::{LaneName, Origin, Told},
    store::{Stamp, Stored},
};

/// A blob to read from: whole or in part, as often as needed.
#[derive(Clone)]
pub struct Blob {
    size: u64,
    cache: Cache,
    from: From,
}

#[derive(Clone)]
enum From {
    Store(Stored),
    Fill(Follower),
}

/// A piece of a blob, in order.
#[derive(Debug)]
pub enum Segment {
    /// `len` bytes from `offset` of a file, all there.
    File {
        /// The file.
        file: Arc<File>,
        /// Where the piece begins, in bytes.
        offset: u64,
        /// How long it is, in bytes.
        len: u64,
    },
    /// Bytes that are in no file.
    Bytes(Bytes),
}

impl Cache {
    /// Returns the blob, from the store if it is there, else from a fill that this or an earlier request began.
    pub async fn blob(&self, origin: &Origin, digest: &Digest) -> Result<Served<Blob>, Error> {
        let looked = self.look_for_blob(origin, digest).await?;
        if let Some(stored) = looked.stored {
            let (outcome, lane) = self.entitle(origin, digest, looked.membership).await?;
            return Ok(Served::new(self.stored_blob(stored), outcome).by(lane));
        }
        if let Some(error) = self.parts.absent.find(origin, &Wanted::Blob(*digest)) {
            return Err(Error::Source(error));
        }
        loop {
            let (follower, joined) = self.parts.fills.follow(self, origin, digest);
            let anothers = follower.fill().origin.tree_name != origin.tree_name;
            if anothers {
                self.entitle(origin, digest, looked.membership).await?;
            }
            match follower.fill().size().await {
                Ok(size) => {
                    if follower.fill().was_found() {
                        // Another repository stored it since we looked.
                        self.entitle(origin, digest, looked.membership).await?;
                    }
                    let (outcome, lane) = (outcome_of(follower.fill(), joined), follower.fill().lane());
                    let blob = Blob { size, cache: self.clone(), from: From::Fill(follower) };
                    return Ok(Served::new(blob, outcome).by(lane));
                }
                // What the registry refuses to one repository it may well give to this one.
                Err(_) if anothers && follower.fill().has_failed() => {}
                // It was given up as this follower came.
                Err(Error::Abandoned) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Returns the blob's size in bytes without fetching it.
    pub async fn blob_size(&self, origin: &Origin, digest: &Digest) -> Result<Served<Option<u64>>, Error> {
        let looked = self.look_for_blob(origin, digest).await?;
        if let Some(stored) = looked.stored {
            let (outcome, lane) = self.entitle(origin, digest, looked.membership).await?;
            return Ok(Served::new(Some(stored.size()), outcome).by(lane));
        }
        let wanted = Wanted::Blob(*digest);
        if let Some(error) = self.parts.absent.find(origin, &wanted) {
            return Err(Error::Source(error));
        }
        let size = origin.source.blob_size(&origin.repository, digest).await;
        let Told { content: size, lane } = self.noted(origin, &wanted, size)?;
        Ok(Served::new(size.or(looked.named_size), Outcome::Passed).by(lane))
    }

    async fn look_for_blob(&self, origin: &Origin, digest: &Digest) -> Result<Looked, Error> {
        let (name, wanted) = key(origin, *digest);
        let known = self.parts.index.membership_in_memory(&(name.clone(), wanted));
        let looked = self.blocking(move |parts| {
            let membership = known.or_else(|| parts.index.membership(&name, &wanted));
            let is_manifest = membership == Some(Membership::Manifest)
                || (membership.is_none() && parts.index.manifest_type(&wanted).is_some());
            let opened = if is_manifest { None } else { parts.open(&wanted) };
            if membership.is_some() && opened.is_some() && !parts.index.is_linked_in_memory(&name, &wanted) {
                parts.link_blob(&name, &wanted);
            }
            let named_size = if opened.is_none() { parts.index.named_size(&name, &wanted) } else { None };
            (membership, opened, named_size, is_manifest)
        });
        let (membership, opened, named_size, is_manifest) =
            looked.await.ok_or(Error::Internal("looking for a blob"))?;
        if is_manifest {
            // containerd takes a manifest that is served as a blob for a blob, for ever (containerd#13007).
            return Err(Error::Unknown(Arc::from(format!("{digest} is a manifest, not a blob"))));
        }
        let stored = match opened {
            Some(Opened { stored, checked: false }) => self.check_once(digest, stored).await,
            opened => opened.map(|opened| opened.stored),
        };
        Ok(Looked { membership, stored, named_size })
    }

    /// Hashes stored content, once for all who want it now.
    async fn check_once(&self, digest: &Digest, stored: Stored) -> Option<Stored> {
        let (cache, digest, checked) = (self.clone(), *digest, stored.clone());
        let flight = self.parts.check_flights.run(digest, || async move {
            cache.blocking(move |parts| parts.check(&digest, &checked)).await.unwrap_or(false)
        });
        flight.await.is_some_and(|landed| landed.value).then_some(stored)
    }

    /// Makes sure that the repository has the blob: bytes are shared between repositories, the right to them is not.
    /// Returns whether that was known, or the registry had to say so, and by which lane it did.
    async fn entitle(
        &self,
        origin: &Origin,
        digest: &Digest,
        membership: Option<Membership>,
    ) -> Result<(Outcome, Option<LaneName>), Error> {
        self.parts.index.used(digest);
        // A fill may have ended since the caller looked.
        let known = || self.parts.index.membership_in_memory(&key(origin, *digest));
        if membership.or_else(known).is_some() {
            return Ok((Outcome::Hit, None));
        }
        let confirmed = origin.source.blob_size(&origin.repository, digest).await;
        let lane = self.noted(origin, &Wanted::Blob(*digest), confirmed)?.lane;
        let (name, digest) = key(origin, *digest);
        self.blocking(move |parts| parts.link_blob(&name, &digest)).await;
        Ok((Outcome::Revalidated, lane))
    }

    fn stored_blob(&self, stored: Stored) -> Blob {
        Blob { size: stored.size(), cache: self.clone(), from: From::Store(stored) }
    }
}

fn outcome_of(fill: &Fill, joined: bool) -> Outcome {
    if fill.was_found() {
        Outcome::Hit
    } else if fill.is_passing() {
        Outcome::Passed
    } else if joined {
        Outcome::Joined
    } else {
        Outcome::Filled
    }
}

/// What the store and the index know of a blob.
struct Looked {
    membership: Option<Membership>,
    stored: Option<Stored>,
    named_size: Option<u64>,
}

impl Parts {
    /// Opens stored content if it is what its digest says, hashing it if that is not known. May read the whole file.
    pub(super) fn open_checked(&self, digest: &Digest) -> Option<Stored> {
        let opened = self.open(digest)?;
        (opened.checked || self.check(digest, &opened.stored)).then_some(opened.stored)
    }

    /// Notes in the tree that the repository has the blob; until now perhaps only a manifest said so.
    fn link_blob(&self, repository: &RepositoryName, digest: &Digest) {
        logged("a blob was not linked", self.index.link(repository, digest, Membership::Blob));
    }

    fn open(&self, digest: &Digest) -> Option<Opened> {
        match self.store.open(digest) {
            Ok(stored) => {
                let stored = stored?;
                let checked = self.index.file_state(digest) == Some(state_of(&stored.stamp));
                Some(Opened { stored, checked })
            }
            Err(error) => {
                tracing::warn!(%error, %digest, "stored content cannot be opened; it is fetched again");
                None
            }
        }
    }

    /// Hashes stored content. What is wrong goes to quarantine.
    fn check(&self, digest: &Digest, stored: &Stored) -> bool {
        match stored.hash(digest.algorithm()) {
            Ok(found) if found == *digest => {
                self.index.set_file_state(digest, state_of(&stored.stamp));
                true
            }
            Ok(_) => {
                self.quarantine(digest);
                false
            }
            Err(error) => {
                tracing::warn!(%error, %digest, "stored content cannot be read; it is fetched again");
                false
            }
        }
    }
}

/// Stored content, and whether its file is as it was when it was last hashed and found right.
struct Opened {
    stored: Stored,
    checked: bool,
}

/// Returns the stamp as the index keeps it.
pub(super) fn state_of(stamp: &Stamp) -> FileState {
    [stamp.size, stamp.inode, stamp.modified_ns.cast_unsigned(), stamp.changed_ns.cast_unsigned()]
}

impl Blob {
    /// Returns the whole blob's size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns a reader of a part of the blob.
    pub fn read(&self, span: &Span) -> BlobReader {
        let from = match &self.from {
            From::Store(stored) => Reading::Stored(Arc::clone(&stored.file)),
            From::Fill(follower) => Reading::Following {
                progress: follower.fill().progress.subscribe(),
                // A client that wants everything to the end believes that it has the whole blob when it has the last
                // byte, so it gets that only when the whole is right. One that wants a few bytes knows better.
                held: span.open_ended
                    || (span.start == 0 && span.end == self.size)
                    || self.size <= TAIL_BYTES,
                follower: follower.clone(),
                _counted: Under::way(&self.cache.parts.metrics.followers),
            },
        };
        BlobReader {
            cache: self.cache.clone(),
            start: span.start,
            position: span.start,
            end: span.end,
            size: self.size,
            from,
        }
    }
}

/// Reads a part of a blob in order.
pub struct BlobReader {
    cache: Cache,
    start: u64,
    position: u64,
    end: u64,
    size: u64,
    from: Reading,
}

enum Reading {
    Stored(Arc<File>),
    Following { progress: watch::Receiver<Progress>, held: bool, follower: Follower, _counted: Under },
    Passing(Box<Pass>),
}

/// What a follower does next.
enum Step {
    Read { file: Arc<File>, until: u64 },
    Wait,
    Pass(Box<Pass>),
    Fail(Error),
}

impl BlobReader {
    /// Returns the next piece, as soon as there is one; `None` at the end. Fails where the rest will not come, or is
    /// not to be had as what its digest says: then what the client has must not look complete.
    pub async fn next(&mut self) -> Result<Option<Segment>, Error> {
        loop {
            if let Reading::Passing(pass) = &mut self.from {
                return Ok(pass.next().await?.map(Segment::Bytes));
            }
            if self.position >= self.end {
                return Ok(None);
            }
            match self.step() {
                Step::Read { file, until } => {
                    let (offset, len) = (self.position, until - self.position);
                    self.position = until;
                    return Ok(Some(Segment::File { file, offset, len }));
                }
                Step::Pass(pass) => self.from = Reading::Passing(pass),
                Step::Fail(error) => return Err(error),
                Step::Wait => {
                    let Reading::Following { progress, .. } = &mut self.from else { continue };
                    progress.changed().await.map_err(|_| Error::Internal("a fill was lost"))?;
                }
            }
        }
    }

    fn step(&mut self) -> Step {
        match &mut self.from {
            Reading::Stored(file) => Step::Read { file: Arc::clone(file), until: self.end },
            Reading::Following { progress, held, follower, .. } => {
                let now = progress.borrow_and_update();
                let right = now.end.as_ref().is_some_and(End::is_right);
                let limit = if *held && !right {
                    self.end.min(self.size.saturating_sub(TAIL_BYTES))
                } else {
                    self.end
                };
                let until = now.present.present_until(self.position).min(limit);
                if let Some(file) = &now.file
                    && until > self.position
                {
                    return Step::Read { file: Arc::clone(file), until };
                }
                match &now.end {
                    Some(End::Failed(error)) => Step::Fail(error.clone()),
                    // It has bytes of a ranged fetch beyond what was hashed: the whole cannot be verified for it any more.
                    Some(End::Passing { from, .. })
                        if *held && self.end == self.size && self.start <= *from && self.position > *from =>
                    {
                        Step::Fail(Error::Internal("the disk failed behind this reader"))
                    }
                    Some(End::Passing { from, hasher }) => {
                        let follows = *held && self.position <= *from && self.end == self.size;
                        let hashed = follows.then(|| (*from, (**hasher).clone()));
                        let file = now.file.clone();
                        let origin = follower.fill().origin.clone();
                        let digest = follower.fill().digest;
                        Step::Pass(Box::new(Pass::new(origin, digest, self.position, self.end, hashed, file)))
                    }
                    Some(End::Verified | End::Found) => {
                        Step::Fail(Error::Internal("a complete file has a hole"))
                    }
                    None => {
                        let prefix = now.present.prefix();
                        drop(now);
                        if !*held && self.position >= prefix + AHEAD_BYTES_MIN {
                            Fill::fetch_ahead(follower.fill(), &self.cache, self.position, self.end);
                        }
                        Step::Wait
                    }
                }
            }
            Reading::Passing(_) => Step::Wait,
        }
    }
}
