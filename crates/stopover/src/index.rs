//! Facts by name and by digest: what a tag names and when that was checked, which repository has which content, what
//! type a manifest has, what state a file had when it was hashed, when content was last used.
//!
//! Three layers, each allowed to forget more than the one below: a bounded memory, which answers most questions; an
//! SQLite file, written behind in batches by one thread; and the tree of links that registry:2 also keeps, which is
//! the truth about tags and membership. Losing memory and file costs requests to the registry and a reading of files,
//! never a wrong answer.
//!
//! Methods named `..._in_memory` return at once; all others may read a file and belong on the blocking pool. The
//! index knows no bytes: whoever rebuilds it hands it what the manifests say.

use std::{
    io,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use oci::{Descriptor, Digest, MediaType, RepositoryName, Tag};
use quick_cache::sync::Cache;

use crate::clock::{Clock, Wall};

mod database;
mod tree;

use database::{Database, Write};
pub use tree::Membership;
use tree::Tree;
pub(crate) use tree::try_read_link;

/// How many tags, memberships and files' states are kept in memory, each.
const REMEMBERED_MAX: usize = 50_000;

/// How many manifests may be awaited by tags.
const AWAITING_MAX: usize = 5_000;
/// How often a content's use is noted, where it lives for long.
const USE_NOTED_EACH: Duration = Duration::from_secs(60);

/// What a tag named when it was last checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagRecord {
    /// What it names.
    pub digest: Digest,
    /// The manifest's media type and size in bytes; unknown where only the tree remembers the tag.
    pub descriptor: Option<Descriptor>,
    /// When the registry last said so; the beginning of time where only the tree remembers the tag.
    pub checked: Wall,
}

/// What identifies the state of a file that was hashed and found right: an opaque copy of the store's stamp.
pub type FileState = [u64; 4];

/// The tags that wait for a manifest to be linked, by that.
type Awaiting = quick_cache::unsync::Cache<(RepositoryName, Digest), Vec<Tag>>;

/// The facts.
pub struct Index {
    tree: Tree,
    database: Database,
    clock: Clock,
    tags: Cache<(RepositoryName, Tag), Arc<TagRecord>>,
    /// The tags that name a manifest which is not linked yet: a client asks what a tag names before it asks for that.
    awaiting: Mutex<Awaiting>,
    memberships: Cache<(RepositoryName, Digest), Membership>,
    /// Those of them that the tree has; of the others only a manifest says so.
    links: Cache<(RepositoryName, Digest), ()>,
    /// The sizes in bytes that manifests gave, since the database has them a moment later.
    named_sizes: Cache<(RepositoryName, Digest), u64>,
    file_states: Cache<Digest, FileState>,
    uses: Cache<Digest, Wall>,
    /// How long a use that was noted does for those after it, in seconds.
    use_noted_each: AtomicU64,
}

impl Index {
    /// Opens the index below the store's `root`. Where the SQLite file is missing, broken, or of another version it is
    /// made anew and [`Index::needs_rebuild`] says so.
    pub fn open(root: &Path, clock: Clock) -> io::Result<Self> {
        Ok(Self {
            tree: Tree::new(root),
            database: Database::open(&root.join("stopover/index.sqlite"))?,
            clock,
            tags: Cache::new(REMEMBERED_MAX),
            awaiting: Mutex::new(Awaiting::new(AWAITING_MAX)),
            memberships: Cache::new(REMEMBERED_MAX),
            links: Cache::new(REMEMBERED_MAX),
            named_sizes: Cache::new(REMEMBERED_MAX),
            file_states: Cache::new(REMEMBERED_MAX),
            uses: Cache::new(REMEMBERED_MAX),
            use_noted_each: AtomicU64::new(USE_NOTED_EACH.as_secs()),
        })
    }

    /// Returns whether the SQLite file was made anew, so that the tree has to be read for what it lacks.
    pub fn needs_rebuild(&self) -> bool {
        self.database.made_anew()
    }

    /// Notes that the tree was read to its end.
    pub fn rebuilt(&self) {
        self.database.write(Write::Rebuilt);
    }

    /// Returns the tag's record if it is in memory.
    pub fn tag_in_memory(&self, key: &(RepositoryName, Tag)) -> Option<Arc<TagRecord>> {
        self.tags.get(key)
    }

    /// Returns the tag's record.
    pub fn tag(&self, repository: &RepositoryName, tag: &Tag) -> Option<Arc<TagRecord>> {
        let key = (repository.clone(), tag.clone());
        if let Some(record) = self.tags.get(&key) {
            return Some(record);
        }
        let record = Arc::new(self.linked_record(repository, tag)?);
        self.tags.insert(key, Arc::clone(&record));
        Some(record)
    }

    /// Returns the record of the stored manifest that the tree says the tag names, which may be older than what the
    /// registry said last.
    pub fn linked_record(&self, repository: &RepositoryName, tag: &Tag) -> Option<TagRecord> {
        let linked = self.tree.tag(repository, tag)?;
        // Who linked it there had it from the registry, as a manifest of this repository.
        self.expect(repository, &linked, Membership::Manifest);
        let noted = self.database.tag(repository, tag).filter(|record| record.digest == linked);
        Some(noted.unwrap_or(TagRecord { digest: linked, descriptor: None, checked: Wall(0) }))
    }

    /// Returns the stored manifest that the tree says the tag names, which may be older than what the record says.
    pub fn linked_tag(&self, repository: &RepositoryName, tag: &Tag) -> Option<Digest> {
        self.tree.tag(repository, tag)
    }

    /// Notes that the registry says now that the tag names this manifest. The tree learns it when the manifest is linked,
    /// which may have been or may come, so that the tree never promises what is not there.
    pub fn set_tag(&self, repository: &RepositoryName, tag: &Tag, named: &Descriptor) -> io::Result<()> {
        let record =
            TagRecord { digest: named.digest, descriptor: Some(named.clone()), checked: self.clock.wall() };
        self.tags.insert((repository.clone(), tag.clone()), Arc::new(record));
        // First wait, then look: whoever links the manifest links first and then looks for who waits.
        let awaited = (repository.clone(), named.digest);
        let mut awaiting = self.lock_awaiting();
        let mut tags = awaiting.get(&awaited).cloned().unwrap_or_default();
        if !tags.contains(tag) {
            tags.push(tag.clone());
            awaiting.insert(awaited, tags);
        }
        drop(awaiting);
        if self.tree.is_linked(repository, &named.digest, Membership::Manifest) {
            self.write_awaiting_tags(repository, &named.digest)?;
        }
        Ok(())
    }

    /// Writes the tags that waited for the manifest, if they still name it.
    fn write_awaiting_tags(&self, repository: &RepositoryName, digest: &Digest) -> io::Result<()> {
        let awaited = self.lock_awaiting().remove(&(repository.clone(), *digest));
        let Some((_, tags)) = awaited else { return Ok(()) };
        for tag in tags {
            let record = self.tags.get(&(repository.clone(), tag.clone()));
            if let Some(record) = record.filter(|record| record.digest == *digest) {
                self.write_tag(repository, &tag, (*record).clone())?;
            }
        }
        Ok(())
    }

    fn lock_awaiting(&self) -> MutexGuard<'_, Awaiting> {
        self.awaiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_tag(&self, repository: &RepositoryName, tag: &Tag, record: TagRecord) -> io::Result<()> {
        let digest = record.digest;
        self.database.write(Write::Tag { repository: repository.clone(), tag: tag.clone(), record });
        self.tree.set_tag(repository, tag, &digest)
    }

    /// Forgets a tag that the registry no longer has.
    pub fn remove_tag(&self, repository: &RepositoryName, tag: &Tag) -> io::Result<()> {
        self.tags.remove(&(repository.clone(), tag.clone()));
        self.database.write(Write::RemoveTag { repository: repository.clone(), tag: tag.clone() });
        self.tree.remove_tag(repository, tag)
    }

    /// Returns the repository's tags that the tree has, in the order of their bytes.
    pub fn tags(&self, repository: &RepositoryName) -> io::Result<Vec<String>> {
        self.tree.tags(repository)
    }

    /// Returns whether the repository is known to have this content, as what, if that is in memory.
    pub fn membership_in_memory(&self, key: &(RepositoryName, Digest)) -> Option<Membership> {
        self.memberships.get(key)
    }

    /// Returns whether the repository is known to have this content, and as what: it was served under it before, or a
    /// manifest of the repository names it.
    pub fn membership(&self, repository: &RepositoryName, digest: &Digest) -> Option<Membership> {
        let key = (repository.clone(), *digest);
        if let Some(membership) = self.memberships.get(&key) {
            return Some(membership);
        }
        let found =
            self.tree.membership(repository, digest).or_else(|| self.database.named(repository, digest))?;
        self.memberships.insert(key, found);
        Some(found)
    }

    /// Notes, in the tree, that the repository has this content, which is stored. Tags that waited for it are written.
    pub fn link(&self, repository: &RepositoryName, digest: &Digest, as_what: Membership) -> io::Result<()> {
        self.memberships.insert((repository.clone(), *digest), as_what);
        self.tree.link(repository, digest, as_what)?;
        self.links.insert((repository.clone(), *digest), ());
        if as_what == Membership::Manifest { self.write_awaiting_tags(repository, digest) } else { Ok(()) }
    }

    /// Notes, in memory alone, that the repository has this content, which is about to be stored.
    pub fn expect(&self, repository: &RepositoryName, digest: &Digest, as_what: Membership) {
        self.memberships.insert((repository.clone(), *digest), as_what);
    }

    /// Returns whether the tree is remembered to say that the repository has this content.
    pub fn is_linked_in_memory(&self, repository: &RepositoryName, digest: &Digest) -> bool {
        self.links.get(&(repository.clone(), *digest)).is_some()
    }

    /// Returns whether the tree says that the repository has this content.
    pub fn is_linked(&self, repository: &RepositoryName, digest: &Digest, as_what: Membership) -> bool {
        self.tree.is_linked(repository, digest, as_what)
    }

    /// Takes the content out of the repository.
    pub fn unlink(&self, repository: &RepositoryName, digest: &Digest) -> io::Result<()> {
        let key = (repository.clone(), *digest);
        self.memberships.remove(&key);
        self.links.remove(&key);
        self.tree.unlink(repository, digest)
    }

    /// Notes what the manifests of the repository name.
    pub fn set_names(&self, repository: &RepositoryName, names: Vec<(Digest, u64, Membership)>) {
        // Clients ask for what a manifest names at once, before the database has it.
        for (digest, size, as_what) in &names {
            self.expect(repository, digest, *as_what);
            if *size > 0 {
                self.named_sizes.insert((repository.clone(), *digest), *size);
            }
        }
        self.database.write(Write::Names { repository: repository.clone(), names });
    }

    /// Notes the type of a manifest.
    pub fn set_manifest_type(&self, manifest: &Descriptor) {
        self.database
            .write(Write::Manifest { digest: manifest.digest, media_type: manifest.media_type.clone() });
    }

    /// Returns the media type of a manifest; `None` where the digest is not known as a manifest's.
    pub fn manifest_type(&self, digest: &Digest) -> Option<MediaType> {
        self.database.manifest_type(digest)
    }

    /// Returns the size in bytes that the repository's manifests give for this content.
    pub fn named_size(&self, repository: &RepositoryName, digest: &Digest) -> Option<u64> {
        let in_memory = self.named_sizes.get(&(repository.clone(), *digest));
        in_memory.or_else(|| self.database.named_size(repository, digest))
    }

    /// Returns the state the content's file had when it was last hashed and found right.
    pub fn file_state(&self, digest: &Digest) -> Option<FileState> {
        if let Some(state) = self.file_states.get(digest) {
            return Some(state);
        }
        let state = self.database.file_state(digest)?;
        self.file_states.insert(*digest, state);
        Some(state)
    }

    /// Notes the state of a file whose content was hashed and found right.
    pub fn set_file_state(&self, digest: &Digest, state: FileState) {
        self.file_states.insert(*digest, state);
        self.database.write(Write::FileState { digest: *digest, state, used: self.clock.wall() });
    }

    /// Says that content lives for `ttl` after its last use, so that uses have to be noted more often than that.
    pub fn set_ttl(&self, ttl: Duration) {
        let each = (ttl / 4).min(USE_NOTED_EACH).as_secs().max(1);
        self.use_noted_each.store(each, Ordering::Relaxed);
    }

    /// Notes that content was used now, to the minute or finer. Cheap; written in batches.
    pub fn used(&self, digest: &Digest) {
        let now = self.clock.wall();
        let each = Duration::from_secs(self.use_noted_each.load(Ordering::Relaxed));
        if self.uses.get(digest).is_some_and(|noted| noted <= now && now.since(noted) < each) {
            return;
        }
        self.uses.insert(*digest, now);
        self.database.write(Write::Used { digest: *digest, at: now });
    }

    /// Notes that content without a last use exists: it counts as used now.
    pub fn first_seen(&self, digest: &Digest) {
        self.database.write(Write::FirstSeen { digest: *digest, at: self.clock.wall() });
    }

    /// Returns when content was last used; `None` where that is not known.
    pub fn last_use(&self, digest: &Digest) -> Option<Wall> {
        self.database.last_use(digest)
    }

    /// Forgets what is known of content that is no longer there.
    pub fn forget(&self, digest: &Digest) {
        self.file_states.remove(digest);
        self.database.write(Write::Forget { digest: *digest });
    }

    /// Calls `each` with every manifest that is linked in the repository, by itself or by a tag.
    pub fn linked_manifests_of(
        &self,
        repository: &RepositoryName,
        each: &mut dyn FnMut(Digest),
    ) -> io::Result<()> {
        self.tree.linked_manifests_of(repository, each)
    }

    /// Calls `each` with every repository in the tree and every manifest linked in it, by itself or by a tag.
    pub fn linked_manifests(&self, each: &mut dyn FnMut(RepositoryName, Digest)) -> io::Result<()> {
        self.tree.linked_manifests(each)
    }

    /// Waits until all that was noted is in the SQLite file.
    pub fn flush(&self) {
        self.database.flush();
    }
}
