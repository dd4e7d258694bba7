//! Bytes by digest.
//!
//! A [`Store`] keeps verified content and nothing else: it knows no names, no HTTP, no time. Bytes enter it in one
//! way only, as a [`Spool`] whose content was hashed by [`Spool::verify`], so that nothing unverified is ever visible
//! (promise P2). All methods block and belong on the blocking pool.

use std::{
    fs::File,
    io::{self, IoSlice},
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::Arc,
};

use bytes::Bytes;
use oci::{Digest, Hasher};

mod fs;

pub(crate) use fs::entries;
pub use fs::{FsStore, OpenError, claim};

/// Where verified content is kept.
pub trait Store: Send + Sync {
    /// Opens the content of this digest; `None` where there is none. What it holds was right when it was stored;
    /// whether it still is, its [`Stamp`] tells.
    fn open(&self, digest: &Digest) -> io::Result<Option<Stored>>;

    /// Makes a spool for content on its way, or takes up the one that an earlier fill left half done.
    fn spool(&self, digest: &Digest) -> io::Result<Spool>;

    /// Makes a verified spool's content durable, then visible.
    fn commit(&self, verified: Verified) -> io::Result<Stored>;

    /// Takes content that is not what its digest says out of the way, and keeps it for whoever wants to know why.
    fn quarantine(&self, digest: &Digest) -> io::Result<()>;

    /// Removes content. Whoever reads it now reads on.
    fn remove(&self, digest: &Digest) -> io::Result<()>;

    /// Calls `each` with every digest of which there is content, in no order.
    fn digests(&self, each: &mut dyn FnMut(Digest)) -> io::Result<()>;
}

/// Content in the store, open for reading.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The file, to be read by position.
    pub file: Arc<File>,
    /// What identifies this very state of the file.
    pub stamp: Stamp,
}

impl Stored {
    /// Returns the content's length in bytes.
    pub fn size(&self) -> u64 {
        self.stamp.size
    }

    /// Reads the whole content and returns its digest.
    pub fn hash(&self, algorithm: oci::Algorithm) -> io::Result<Digest> {
        let mut hasher = Hasher::new(algorithm);
        hash_range(&self.file, 0, self.size(), &mut hasher)?;
        Ok(hasher.finish())
    }

    /// Reads the whole content, which must be at most `bytes_max` long.
    pub fn read(&self, bytes_max: u64) -> io::Result<Vec<u8>> {
        if self.size() > bytes_max {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("larger than {bytes_max} bytes")));
        }
        let mut bytes = vec![0; usize::try_from(self.size()).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }
}

/// The state of a file: any write to it, truncation or exchange changes the stamp.
///
/// A hit compares this with the stamp noted when the content was last hashed, so that a file that was cut, altered or
/// put there by someone else is hashed before it is served, while all others go out by sendfile unread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Length in bytes.
    pub size: u64,
    /// Inode number.
    pub inode: u64,
    /// Time of the last write, in nanoseconds since 1970.
    pub modified_ns: i64,
    /// Time of the last change of the inode, in nanoseconds since 1970; nobody can set it back.
    pub changed_ns: i64,
}

/// A file that fills up.
#[derive(Clone, Debug)]
pub struct Spool {
    digest: Digest,
    file: Arc<File>,
    path: PathBuf,
    taken_up_bytes: u64,
}

impl Spool {
    /// Returns the file, for writing and reading by position.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Writes all parts one after another, from `at` on, in as few calls as possible: what is written in one call gets
    /// large pages, which are sent with less work.
    pub fn write_all(&self, parts: &[Bytes], at: u64) -> io::Result<()> {
        let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|bytes| IoSlice::new(bytes)).collect();
        let (mut left, mut at) = (&mut slices[..], at);
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            let written = rustix::io::retry_on_intr(|| rustix::io::pwritev(&self.file, left, at))?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            at += written as u64;
            IoSlice::advance_slices(&mut left, written);
        }
        Ok(())
    }

    /// Returns how many bytes from the start an earlier fill left here.
    pub fn taken_up_bytes(&self) -> u64 {
        self.taken_up_bytes
    }

    /// Returns the spool as fit for the store if `hasher`, which has seen all of its bytes, comes to its digest.
    pub fn verify(self, hasher: Hasher) -> Result<Verified, Box<Mismatch>> {
        let found = hasher.finish();
        if found == self.digest {
            return Ok(Verified(self));
        }
        Err(Box::new(Mismatch { expected: self.digest, found, spool: self }))
    }

    /// Notes that from here on the file has holes, so that a later process does not take it for a prefix.
    pub fn mark_sparse(&self) -> io::Result<()> {
        match std::fs::rename(&self.path, self.path.with_extension(fs::SPARSE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Keeps the first `bytes` bytes for a later fill, without anything beyond; without any, removes the file.
    pub fn keep_prefix(&self, bytes: u64) {
        let sparse = self.path.with_extension(fs::SPARSE);
        let kept = || -> io::Result<()> {
            self.file.set_len(bytes)?;
            match std::fs::rename(&sparse, &self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            }
        };
        if bytes == 0 || kept().is_err() {
            self.discard();
        }
    }

    /// Removes the file. Whoever reads it now reads on.
    pub fn discard(&self) {
        for path in [self.path.clone(), self.path.with_extension(fs::SPARSE)] {
            if let Err(error) = std::fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(%error, digest = %self.digest, "a spool file could not be removed");
            }
        }
    }
}

/// A spool whose bytes were hashed and found to be what they should be.
#[derive(Debug)]
pub struct Verified(Spool);

/// A spool whose bytes are not what they should be.
#[derive(Debug, thiserror::Error)]
#[error("the content is {found}, not {expected}")]
pub struct Mismatch {
    /// The digest that was asked for.
    pub expected: Digest,
    /// The digest of what came.
    pub found: Digest,
    /// The spool, to be discarded.
    pub spool: Spool,
}

/// Feeds the bytes from `start` to `end` (exclusive) of `file` to `hasher`.
pub fn hash_range(file: &File, start: u64, end: u64, hasher: &mut Hasher) -> io::Result<()> {
    const STEP_BYTES: u64 = 256 << 10;
    let mut buffer = vec![0; STEP_BYTES.min(end.saturating_sub(start)) as usize];
    let mut at = start;
    while at < end {
        let step = (end - at).min(STEP_BYTES);
        let part = &mut buffer[..step as usize];
        file.read_exact_at(part, at)?;
        hasher.update(part);
        at += step;
    }
    Ok(())
}
