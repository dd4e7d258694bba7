//! The store as files, in the layout of registry:2 (`docker/registry/v2/blobs/<algorithm>/<xx>/<hex>/data`), so that a
//! volume of registry:2 is taken over in place and can be handed back.
//!
//! Ours alone is the folder `stopover` beside it: `spool/<boot>/<algorithm>-<hex>.part` is content on its way,
//! `quarantine/` what was found to be wrong, `lock` the mark of the one process that owns the volume.
//!
//! A spool file named `.part` is a prefix: every byte up to its length was received. Once a range beyond the prefix is
//! written it is named `.sparse`. After a crash of the process the kernel still has what was written, so `.part` files
//! of this boot are taken up; those of an earlier boot may have lost bytes to a power cut and are removed, as are
//! `.sparse` ones.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use oci::{Algorithm, Digest};
use rustix::fs::{FlockOperation, OFlags};

use super::{Spool, Stamp, Store, Stored, Verified};

pub(super) const SPARSE: &str = "sparse";
const PART: &str = "part";
/// Half-done fills that are kept for later; the oldest beyond it are removed at the start.
const PARTS_KEPT_MAX: usize = 256;
/// Wrong contents that are kept to look at; the oldest beyond it are removed.
const QUARANTINED_MAX: usize = 64;

/// Content as files below one folder.
pub struct FsStore {
    blobs: PathBuf,
    spool: PathBuf,
    quarantine: PathBuf,
    /// Held as long as the store lives: the lock goes with the file.
    _lock: File,
}

/// Why a folder cannot be used as a store.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("{0}: another process serves from this folder; each process needs a folder of its own")]
    InUse(PathBuf),
    /// It cannot be made or written.
    #[error("{path}: {error}; the folder must exist or be creatable, and be writable by this user")]
    Io {
        /// What was being made.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

impl FsStore {
    /// Opens the store below `root`, making what is lacking, and sweeps what earlier processes left half done.
    /// Fails where another process has it open.
    pub fn open(root: &Path) -> Result<Self, OpenError> {
        let ours = root.join("stopover");
        let spools = ours.join("spool");
        let store = Self {
            blobs: root.join("docker/registry/v2/blobs"),
            spool: spools.join(boot_id()),
            quarantine: ours.join("quarantine"),
            _lock: lock(&ours)?,
        };
        for folder in [&store.blobs, &store.spool, &store.quarantine] {
            make_folders(folder).map_err(|error| OpenError::Io { path: folder.clone(), error })?;
        }
        sweep_spools(&spools, &store.spool);
        Ok(store)
    }

    fn folder(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.blobs.join(digest.algorithm().as_str()).join(&hex[..2]).join(hex)
    }
}

impl Store for FsStore {
    fn open(&self, digest: &Digest) -> io::Result<Option<Stored>> {
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed() | OFlags::NONBLOCK.bits().cast_signed())
            .open(self.folder(digest).join("data"));
        match opened {
            Ok(file) => Ok(stamp_of(&file)?.map(|stamp| Stored { file: Arc::new(file), stamp })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn spool(&self, digest: &Digest) -> io::Result<Spool> {
        let path = self.spool.join(format!("{}-{}.{PART}", digest.algorithm(), digest.hex()));
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o666).open(&path)?;
        let taken_up_bytes = file.metadata()?.len();
        Ok(Spool { digest: *digest, file: Arc::new(file), path, taken_up_bytes })
    }

    fn commit(&self, Verified(spool): Verified) -> io::Result<Stored> {
        let stamp = || stamp_of(&spool.file)?.ok_or_else(|| io::Error::other("a spool is not a plain file"));
        spool.file.sync_data()?;
        let verified = stamp()?;
        let folder = self.folder(&spool.digest);
        make_folders(&folder)?;
        let data = folder.join("data");
        let moved = fs::rename(&spool.path, &data);
        match moved {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::rename(spool.path.with_extension(SPARSE), &data)?;
            }
            moved => moved?,
        }
        // Renaming changes a file's ctime, so its stamp is taken after. Where somebody wrote to it since it was verified,
        // the stamp of then is given, which the file has no more, so that it is hashed before it is served.
        let renamed = stamp()?;
        File::open(&folder)?.sync_all()?;
        let as_verified = (renamed.size, renamed.modified_ns) == (verified.size, verified.modified_ns);
        let stamp = if as_verified { renamed } else { verified };
        Ok(Stored { file: spool.file, stamp })
    }

    fn quarantine(&self, digest: &Digest) -> io::Result<()> {
        let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        let aside = self.quarantine.join(format!("{nanos:020}-{}-{}", digest.algorithm(), digest.hex()));
        let folder = self.folder(digest);
        fs::rename(folder.join("data"), aside)?;
        keep_newest(&self.quarantine, QUARANTINED_MAX);
        File::open(&folder)?.sync_all()
    }

    fn remove(&self, digest: &Digest) -> io::Result<()> {
        let folder = self.folder(digest);
        match fs::remove_file(folder.join("data")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // The folder goes too, as with registry:2; someone else's file in it keeps it.
        let _ = fs::remove_dir(&folder);
        Ok(())
    }

    fn digests(&self, each: &mut dyn FnMut(Digest)) -> io::Result<()> {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            for prefix in entries(&self.blobs.join(algorithm.as_str()))? {
                for blob in entries(&prefix?.path())? {
                    let blob = blob?;
                    // A folder may hold what a crash left, or somebody else's file, and no content.
                    if let Ok(digest) = format!("{algorithm}:{}", blob.file_name().to_string_lossy()).parse()
                        && blob.path().join("data").exists()
                    {
                        each(digest);
                    }
                }
            }
        }
        Ok(())
    }
}

/// Returns the folder's entries; none where it is not there or is no folder.
pub(crate) fn entries(folder: &Path) -> io::Result<impl Iterator<Item = io::Result<fs::DirEntry>>> {
    let read = match fs::read_dir(folder) {
        Ok(read) => Some(read),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => None,
        Err(error) => return Err(error),
    };
    Ok(read.into_iter().flatten())
}

/// Makes a folder and those above it, each made durable in the one above.
fn make_folders(folder: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o777).create(folder) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let above = folder.parent().ok_or(error)?;
            make_folders(above)?;
            return make_folders(folder);
        }
        Err(error) => return Err(error),
    }
    match folder.parent() {
        Some(above) if !above.as_os_str().is_empty() => File::open(above)?.sync_all(),
        _ => Ok(()),
    }
}

/// Returns what identifies the file's state; `None` where it is not a plain file.
fn stamp_of(file: &File) -> io::Result<Option<Stamp>> {
    let metadata = file.metadata()?;
    Ok(metadata.is_file().then(|| Stamp {
        size: metadata.len(),
        inode: metadata.ino(),
        modified_ns: metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec(),
        changed_ns: metadata.ctime() * 1_000_000_000 + metadata.ctime_nsec(),
    }))
}

/// Claims the folder as a server does, but makes nothing: `None` where there is no lock, since nobody has served.
pub fn claim(root: &Path) -> Result<Option<File>, OpenError> {
    let ours = root.join("stopover");
    let path = ours.join("lock");
    match File::open(&path) {
        Ok(file) => claim_file(file, &ours).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(OpenError::Io { path, error }),
    }
}

fn lock(ours: &Path) -> Result<File, OpenError> {
    let path = ours.join("lock");
    let failed = |error| OpenError::Io { path: path.clone(), error };
    make_folders(ours).map_err(failed)?;
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    claim_file(file, ours)
}

fn claim_file(file: File, ours: &Path) -> Result<File, OpenError> {
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::InUse(ours.to_owned())),
        Err(errno) => Err(OpenError::Io { path: ours.join("lock"), error: errno.into() }),
    }
}

/// Returns what changes with each boot, or a constant where the system does not tell, which is a little less careful.
fn boot_id() -> String {
    let told = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let word: String = told.chars().filter(char::is_ascii_hexdigit).take(32).collect();
    if word.is_empty() { "unknown-boot".to_owned() } else { word }
}

fn sweep_spools(spools: &Path, current: &Path) {
    let Ok(boots) = entries(spools) else { return };
    for boot in boots.flatten() {
        if boot.path() != current {
            let _ = fs::remove_dir_all(boot.path());
        }
    }
    let Ok(files) = entries(current) else { return };
    for file in files.flatten() {
        if file.path().extension().is_none_or(|extension| extension != PART) {
            let _ = fs::remove_file(file.path());
        }
    }
    keep_newest(current, PARTS_KEPT_MAX);
}

fn keep_newest(folder: &Path, count: usize) {
    let Ok(files) = entries(folder) else { return };
    let mut files: Vec<_> = files
        .flatten()
        .map(|file| (file.metadata().and_then(|metadata| metadata.modified()).ok(), file.path()))
        .collect();
    files.sort();
    for (_, path) in files.iter().rev().skip(count) {
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Barrier, thread, time::Duration};

    use bytes::Bytes;
    use oci::Hasher;

    use super::*;

    /// As two repositories do whose manifest is the same.
    fn store_at_once(
        store: &FsStore,
        content: &Bytes,
        digest: &Digest,
        start: &Barrier,
        after: Duration,
    ) -> io::Result<()> {
        start.wait();
        thread::sleep(after);
        let spool = store.spool(digest)?;
        spool.write_all(std::slice::from_ref(content), 0)?;
        let mut hasher = Hasher::new(digest.algorithm());
        hasher.update(content);
        let verified = spool.verify(hasher).map_err(io::Error::other)?;
        match store.commit(verified) {
            // The other was first; then it is there.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                store.open(digest)?.map(drop).ok_or(error)
            }
            stored => stored.map(drop),
        }
    }

    #[test]
    fn two_that_store_the_same_content_at_once_both_have_it_stored() {
        let root = tempfile::tempdir().unwrap();
        let store = FsStore::open(root.path()).unwrap();
        for round in 0..400 {
            let content = Bytes::from(format!("manifest {round}"));
            let digest = Digest::of(Algorithm::Sha256, &content);
            let start = Barrier::new(2);
            let results = thread::scope(|scope| {
                // The second comes at another moment of the first in each round.
                let threads = [0, 25 * (round % 80)].map(|micros| {
                    let (store, content, digest, start) = (&store, &content, &digest, &start);
                    let after = Duration::from_micros(micros);
                    scope.spawn(move || store_at_once(store, content, digest, start, after))
                });
                threads.map(|thread| thread.join().unwrap())
            });
            assert!(results.iter().all(Result::is_ok), "round {round}: {results:?}");
        }
    }
}
