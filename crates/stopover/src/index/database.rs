//! The SQLite file: one connection that writes, on a thread of its own and in batches, and one that reads.
//!
//! What is noted here is never the only copy of a truth, so nothing waits for a write, writes that find the queue full
//! are dropped, and a file that SQLite calls broken is moved aside and made anew.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use oci::{Descriptor, Digest, MediaType, RepositoryName, Tag};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::{FileState, Membership, TagRecord};
use crate::clock::Wall;

/// Writes that wait; more are dropped, which costs requests later.
const QUEUE_MAX: usize = 16_384;
/// Writes in one transaction.
const BATCH_MAX: usize = 4_096;
/// How long a write may wait for company.
const BATCH_WAIT: Duration = Duration::from_millis(200);
/// The version of the tables; a file of another version is made anew.
const VERSION: i64 = 1;

const TABLES: &str = "
CREATE TABLE content (
  digest     TEXT PRIMARY KEY,
  state      BLOB,    -- the file's state when it was last hashed and found right
  media_type TEXT,    -- of a manifest
  used       INTEGER  -- last use, in seconds since 1970
) WITHOUT ROWID;
CREATE TABLE tag (
  repository TEXT, tag TEXT, digest TEXT, media_type TEXT, size INTEGER,
  checked    INTEGER, -- when the registry last said so, in seconds since 1970
  PRIMARY KEY (repository, tag)
) WITHOUT ROWID;
CREATE TABLE named ( -- what the manifests of a repository name
  repository TEXT, digest TEXT, size INTEGER, manifest INTEGER,
  PRIMARY KEY (repository, digest)
) WITHOUT ROWID;
CREATE TABLE progress ( rebuilt INTEGER );
";

/// Something to note.
pub(super) enum Write {
    Tag { repository: RepositoryName, tag: Tag, record: TagRecord },
    RemoveTag { repository: RepositoryName, tag: Tag },
    Manifest { digest: Digest, media_type: MediaType },
    Names { repository: RepositoryName, names: Vec<(Digest, u64, Membership)> },
    FileState { digest: Digest, state: FileState, used: Wall },
    Used { digest: Digest, at: Wall },
    FirstSeen { digest: Digest, at: Wall },
    Forget { digest: Digest },
    Rebuilt,
    Flush(SyncSender<()>),
}

pub(super) struct Database {
    read: Mutex<Connection>,
    queue: Option<SyncSender<Write>>,
    writer: Option<JoinHandle<()>>,
    made_anew: bool,
}

impl Database {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let (write, read, made_anew) = match open_file(path) {
            Ok(opened) => opened,
            Err(error) => {
                tracing::warn!(
                    %error, path = %path.display(),
                    "the disk does not take the index; it is kept in memory until the next start"
                );
                let (write, read) = open_in_memory().map_err(io::Error::other)?;
                (write, read, true)
            }
        };
        let unfinished = write.query_row("SELECT count(*) FROM progress", [], |row| row.get::<_, i64>(0));
        let made_anew = made_anew || unfinished.unwrap_or(0) == 0;
        let (queue, writes) = sync_channel(QUEUE_MAX);
        let writer = std::thread::Builder::new()
            .name("index".to_owned())
            .spawn(move || write_batches(write, &writes))?;
        Ok(Self { read: Mutex::new(read), queue: Some(queue), writer: Some(writer), made_anew })
    }

    pub(super) fn made_anew(&self) -> bool {
        self.made_anew
    }

    pub(super) fn write(&self, write: Write) {
        if let Some(queue) = &self.queue {
            // A full queue drops the write: the index is a memory aid, and a pull does not wait for it.
            let _ = queue.try_send(write);
        }
    }

    pub(super) fn flush(&self) {
        let (done, wait) = sync_channel(1);
        if let Some(queue) = &self.queue
            && queue.send(Write::Flush(done)).is_ok()
        {
            let _ = wait.recv();
        }
    }

    pub(super) fn tag(&self, repository: &RepositoryName, tag: &Tag) -> Option<TagRecord> {
        let row = self.ask(|read| {
            read.prepare_cached(
                "SELECT digest, media_type, size, checked FROM tag WHERE repository = ? AND tag = ?",
            )?
            .query_row(params![repository.as_str(), tag.as_str()], |row| {
                Ok((
                    row.get::<_, String>(0)?,
                    row.get::<_, String>(1)?,
                    row.get::<_, i64>(2)?,
                    row.get::<_, i64>(3)?,
                ))
            })
            .optional()
        })?;
        let (digest, media_type, size, checked) = row;
        let digest = digest.parse().ok()?;
        let descriptor =
            Descriptor { media_type: media_type.parse().ok()?, digest, size: size.cast_unsigned() };
        Some(TagRecord { digest, descriptor: Some(descriptor), checked: Wall(checked.cast_unsigned()) })
    }

    pub(super) fn named(&self, repository: &RepositoryName, digest: &Digest) -> Option<Membership> {
        let manifest: bool = self.ask(|read| {
            read.prepare_cached("SELECT manifest FROM named WHERE repository = ? AND digest = ?")?
                .query_row(params![repository.as_str(), digest.to_string()], |row| row.get(0))
                .optional()
        })?;
        Some(if manifest { Membership::Manifest } else { Membership::Blob })
    }

    pub(super) fn named_size(&self, repository: &RepositoryName, digest: &Digest) -> Option<u64> {
        let size: i64 = self.ask(|read| {
            read.prepare_cached("SELECT size FROM named WHERE repository = ? AND digest = ?")?
                .query_row(params![repository.as_str(), digest.to_string()], |row| row.get(0))
                .optional()
        })?;
        (size > 0).then_some(size.cast_unsigned())
    }

    pub(super) fn manifest_type(&self, digest: &Digest) -> Option<MediaType> {
        let media_type: Option<String> =
            self.content(digest, "SELECT media_type FROM content WHERE digest = ?")?;
        media_type?.parse().ok()
    }

    pub(super) fn file_state(&self, digest: &Digest) -> Option<FileState> {
        let state: Option<Vec<u8>> = self.content(digest, "SELECT state FROM content WHERE digest = ?")?;
        let words: Vec<u64> = state?
            .chunks_exact(8)
            .map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default()))
            .collect();
        words.try_into().ok()
    }

    pub(super) fn last_use(&self, digest: &Digest) -> Option<Wall> {
        let used: Option<i64> = self.content(digest, "SELECT used FROM content WHERE digest = ?")?;
        used.map(|seconds| Wall(seconds.cast_unsigned()))
    }

    fn content<T: rusqlite::types::FromSql>(&self, digest: &Digest, question: &str) -> Option<T> {
        self.ask(|read| {
            read.prepare_cached(question)?.query_row([digest.to_string()], |row| row.get(0)).optional()
        })
    }

    /// Asks; a failure reads as "not known", since everything here can be learned again.
    fn ask<T>(&self, question: impl FnOnce(&Connection) -> rusqlite::Result<Option<T>>) -> Option<T> {
        question(&self.lock_read()).unwrap_or_else(|error| {
            tracing::warn!(%error, "the index did not answer");
            None
        })
    }

    fn lock_read(&self) -> MutexGuard<'_, Connection> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

/// Opens the file for writing and for reading, and makes it anew where it is missing or broken; says whether it was.
/// Fails where the disk does.
fn open_file(path: &Path) -> io::Result<(Connection, Connection, bool)> {
    let (write, made_anew) = match open_existing(path) {
        Ok(Some(connection)) => (connection, false),
        Ok(None) => (create(path).map_err(io::Error::other)?, true),
        // What the disk refuses to show may be whole.
        Err(error) if is_of_disk(&error) => return Err(io::Error::other(error)),
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "the index is not usable; it is made anew from the tree");
            move_aside(path)?;
            (create(path).map_err(io::Error::other)?, true)
        }
    };
    let read = Connection::open(path).and_then(prepared).map_err(io::Error::other)?;
    Ok((write, read, made_anew))
}

fn is_of_disk(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{CannotOpen, DiskFull, PermissionDenied, ReadOnly, SystemIoFailure};
    let code = error.sqlite_error_code();
    code.is_some_and(|code| {
        matches!(code, CannotOpen | DiskFull | PermissionDenied | ReadOnly | SystemIoFailure)
    })
}

/// Opens two connections to one database in memory, of a name of its own.
fn open_in_memory() -> rusqlite::Result<(Connection, Connection)> {
    static OPENED: AtomicU64 = AtomicU64::new(0);
    let name = format!("file:index-{}?mode=memory&cache=shared", OPENED.fetch_add(1, Ordering::Relaxed));
    let write = create(Path::new(&name))?;
    let read = Connection::open(&name).and_then(prepared)?;
    // Connections to one memory lock whole tables, and a lookup does not wait for a batch.
    read.pragma_update(None, "read_uncommitted", true)?;
    Ok((write, read))
}

/// Opens a file that is there; `None` where there is none. Fails where it is not ours or does not hold together.
fn open_existing(path: &Path) -> rusqlite::Result<Option<Connection>> {
    if !path.exists() {
        return Ok(None);
    }
    let connection = Connection::open(path).and_then(prepared)?;
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version != VERSION {
        return Err(rusqlite::Error::InvalidParameterName(format!(
            "tables of version {version}, not {VERSION}"
        )));
    }
    for table in ["content", "tag", "named", "progress"] {
        connection
            .query_row(&format!("SELECT count(*) FROM (SELECT * FROM {table} LIMIT 1)"), [], |_| Ok(()))?;
    }
    Ok(Some(connection))
}

fn create(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path).and_then(prepared)?;
    connection.execute_batch(&format!("BEGIN; {TABLES} PRAGMA user_version = {VERSION}; COMMIT;"))?;
    Ok(connection)
}

fn prepared(connection: Connection) -> rusqlite::Result<Connection> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "cache_size", -2_048)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    Ok(connection)
}

fn move_aside(path: &Path) -> io::Result<()> {
    let beside = |ending: &str| PathBuf::from(format!("{}{ending}", path.display()));
    std::fs::rename(path, beside(".broken"))?;
    for ending in ["-wal", "-shm"] {
        match std::fs::remove_file(beside(ending)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn write_batches(mut connection: Connection, writes: &Receiver<Write>) {
    while let Ok(first) = writes.recv() {
        let mut batch = vec![first];
        let until = Instant::now() + BATCH_WAIT;
        let mut open = true;
        while batch.len() < BATCH_MAX && !matches!(batch.last(), Some(Write::Flush(_))) {
            match writes.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(write) => batch.push(write),
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => {
                    open = false;
                    break;
                }
            }
        }
        if let Err(error) = write_batch(&mut connection, &batch) {
            tracing::warn!(%error, writes = batch.len(), "the index was not written; what it lacks is asked again");
        }
        for write in batch {
            if let Write::Flush(done) = write {
                let _ = done.send(());
            }
        }
        if !open {
            return;
        }
    }
}

fn write_batch(connection: &mut Connection, batch: &[Write]) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    for write in batch {
        write_one(&transaction, write)?;
    }
    transaction.commit()
}

fn write_one(to: &Transaction<'_>, write: &Write) -> rusqlite::Result<()> {
    match write {
        Write::Tag { repository, tag, record } => {
            let Some(descriptor) = &record.descriptor else { return Ok(()) };
            to.prepare_cached("INSERT OR REPLACE INTO tag VALUES (?, ?, ?, ?, ?, ?)")?.execute(params![
                repository.as_str(),
                tag.as_str(),
                record.digest.to_string(),
                descriptor.media_type.as_str(),
                descriptor.size.cast_signed(),
                record.checked.0.cast_signed(),
            ])?;
        }
        Write::RemoveTag { repository, tag } => {
            to.prepare_cached("DELETE FROM tag WHERE repository = ? AND tag = ?")?
                .execute(params![repository.as_str(), tag.as_str()])?;
        }
        Write::Manifest { digest, media_type } => {
            to.prepare_cached(
                "INSERT INTO content (digest, media_type) VALUES (?1, ?2)
                 ON CONFLICT DO UPDATE SET media_type = ?2",
            )?
            .execute(params![digest.to_string(), media_type.as_str()])?;
        }
        Write::Names { repository, names } => {
            let mut insert = to.prepare_cached("INSERT OR REPLACE INTO named VALUES (?, ?, ?, ?)")?;
            for (digest, size, as_what) in names {
                let manifest = *as_what == Membership::Manifest;
                insert.execute(params![
                    repository.as_str(),
                    digest.to_string(),
                    size.cast_signed(),
                    manifest
                ])?;
            }
        }
        Write::FileState { digest, state, used } => {
            let bytes: Vec<u8> = state.iter().flat_map(|word| word.to_le_bytes()).collect();
            to.prepare_cached(
                "INSERT INTO content (digest, state, used) VALUES (?1, ?2, ?3)
                 ON CONFLICT DO UPDATE SET state = ?2, used = ?3",
            )?
            .execute(params![digest.to_string(), bytes, used.0.cast_signed()])?;
        }
        Write::Used { digest, at } => {
            to.prepare_cached("UPDATE content SET used = ?2 WHERE digest = ?1")?
                .execute(params![digest.to_string(), at.0.cast_signed()])?;
        }
        Write::FirstSeen { digest, at } => {
            to.prepare_cached(
                "INSERT INTO content (digest, used) VALUES (?1, ?2)
                 ON CONFLICT DO UPDATE SET used = coalesce(used, ?2)",
            )?
            .execute(params![digest.to_string(), at.0.cast_signed()])?;
        }
        Write::Forget { digest } => {
            to.prepare_cached("DELETE FROM content WHERE digest = ?")?.execute([digest.to_string()])?;
        }
        Write::Rebuilt => {
            to.execute("INSERT INTO progress VALUES (1)", [])?;
        }
        Write::Flush(_) => {}
    }
    Ok(())
}
