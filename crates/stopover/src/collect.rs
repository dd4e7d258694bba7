//! `stopover garbage-collect`: mark what manifests name, sweep the rest, as `registry garbage-collect` does.
//!
//! It promises to work only while nobody serves from the folder, to change nothing in a dry run, and to leave at each
//! step what a server can serve: first the names go, then the links, then the bytes. What is swept by mistake costs a
//! request to the registry, never a wrong answer.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use oci::{Digest, MANIFEST_BYTES_MAX, Manifest, RepositoryName, Tag};

use crate::{
    clock::Clock,
    index::Index,
    store::{self, FsStore, OpenError},
};

mod tree;

use tree::{Link, Repository};

/// How many facts are handed to the index before it is waited for.
const FACTS_AT_ONCE: usize = 1_000;

/// Which manifests are garbage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// None that is whole.
    EveryManifest,
    /// Those that no tag names, neither by itself nor by an index or as the subject of a referrer.
    TaggedManifests,
}

/// Whether it is only said or also done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// Nothing is changed.
    Dry,
    /// What is garbage is removed.
    Wet,
}

/// Why nothing, or not all, was collected.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// A server has the folder, or it cannot be opened.
    #[error("storage.root: {0}; garbage is collected only while nobody serves from there")]
    Open(#[from] OpenError),
    /// There is no registry's folder.
    #[error("storage.root: {} holds no docker/registry/v2, so there is nothing to collect", .0.display())]
    Nothing(PathBuf),
    /// The disk failed.
    #[error("{}: {error}", path.display())]
    Io {
        /// What was read or removed.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// What stands where a manifest should.
enum Found {
    /// There is none.
    Nothing,
    /// What it names is not known.
    Unparsable,
    /// One that names this.
    Manifest(Names),
}

/// What a manifest names, for marking.
struct Names {
    manifests: Vec<Digest>,
    blobs: Vec<Digest>,
    subject: Option<Digest>,
}

/// What is to be removed, in the order in which it is.
#[derive(Default)]
struct Garbage {
    tags: Vec<(String, String, PathBuf)>,
    links: Vec<PathBuf>,
    blobs: Vec<(Digest, PathBuf)>,
    litter: Vec<PathBuf>,
}

/// Collects the garbage below `root`; says what it finds, line by line, in the words of registry:2.
pub fn collect(root: &Path, keep: Keep, run: Run, say: &mut dyn FnMut(&str)) -> Result<(), CollectError> {
    if !root.join("docker/registry/v2").is_dir() {
        return Err(CollectError::Nothing(root.to_owned()));
    }
    // Held to the end. A dry run makes nothing, not even the lock.
    let _claim = match run {
        Run::Dry => (store::claim(root)?, None),
        Run::Wet => (None, Some(FsStore::open(root)?)),
    };
    let repositories = tree::repositories(root).map_err(in_folder(root))?;
    let mut marking = Marking { root, keep, found: HashMap::new(), marked: HashSet::new() };
    let mut garbage = Garbage::default();
    let mut manifests = 0;
    let mut kept = Vec::new();
    for repository in &repositories {
        say(&repository.name);
        kept.push(marking.mark(repository, say)?);
    }
    for (repository, kept) in repositories.iter().zip(&kept) {
        manifests += garbage.add(repository, kept, &marking, say);
    }
    let blobs = tree::blobs(root).map_err(in_folder(root))?;
    let mut bytes = 0;
    let sweep: Vec<_> = blobs.into_iter().filter(|blob| !marking.marked.contains(&blob.digest)).collect();
    say(&format!(
        "\n{} blobs marked, {} blobs and {manifests} manifests eligible for deletion",
        marking.marked.len(),
        sweep.len()
    ));
    for blob in sweep {
        say(&format!("blob eligible for deletion: {}", blob.digest));
        bytes += blob.size;
        garbage.blobs.push((blob.digest, blob.folder));
    }
    garbage.litter.extend(tree::litter(root).map_err(in_folder(root))?);
    for path in &garbage.litter {
        say(&format!(
            "left over, eligible for deletion: {}",
            path.strip_prefix(root).unwrap_or(path).display()
        ));
    }
    if run == Run::Dry {
        say(&format!("{bytes} bytes would be freed; nothing was changed"));
        return Ok(());
    }
    garbage.sweep()?;
    garbage.forget(root)?;
    say(&format!("{bytes} bytes freed"));
    Ok(())
}

/// What was marked so far.
struct Marking<'a> {
    root: &'a Path,
    keep: Keep,
    /// What was found of each manifest, read once.
    found: HashMap<Digest, Arc<Found>>,
    marked: HashSet<Digest>,
}

impl Marking<'_> {
    /// Marks what the repository needs; returns the manifests among it.
    fn mark(
        &mut self,
        repository: &Repository,
        say: &mut dyn FnMut(&str),
    ) -> Result<HashSet<Digest>, CollectError> {
        let of = |links: &[Link]| links.iter().filter_map(|link| link.digest).collect::<Vec<_>>();
        let linked = of(&repository.manifests);
        let mut next = of(&repository.tags);
        if self.keep == Keep::EveryManifest {
            next.extend(&linked);
        }
        let mut kept = HashSet::new();
        loop {
            while let Some(digest) = next.pop() {
                let found = self.find(&digest)?;
                if matches!(*found, Found::Nothing) || !kept.insert(digest) {
                    continue;
                }
                if self.marked.insert(digest) {
                    say(&format!("{}: marking manifest {digest}", repository.name));
                }
                let blobs = match &*found {
                    Found::Manifest(names) => {
                        next.extend(names.manifests.iter().chain(&names.subject));
                        &names.blobs
                    }
                    _ => {
                        say(&format!("{}: keeping all, since {digest} cannot be parsed", repository.name));
                        next.extend(&linked);
                        &of(&repository.layers)
                    }
                };
                for blob in blobs {
                    if self.marked.insert(*blob) {
                        say(&format!("{}: marking blob {blob}", repository.name));
                    }
                }
            }
            // What refers to a kept manifest, such as its signature, is kept with it.
            for digest in linked.iter().filter(|digest| !kept.contains(*digest)) {
                if let Found::Manifest(names) = &*self.find(digest)?
                    && names.subject.is_some_and(|subject| kept.contains(&subject))
                {
                    next.push(*digest);
                }
            }
            if next.is_empty() {
                return Ok(kept);
            }
        }
    }

    /// Returns whether the manifest was looked for and is there.
    fn is_there(&self, digest: &Digest) -> bool {
        self.found.get(digest).is_some_and(|found| !matches!(**found, Found::Nothing))
    }

    fn find(&mut self, digest: &Digest) -> Result<Arc<Found>, CollectError> {
        if let Some(found) = self.found.get(digest) {
            return Ok(Arc::clone(found));
        }
        let data = tree::blob_folder(self.root, digest).join("data");
        let found = Arc::new(find(&data, digest).map_err(in_folder(&data))?);
        self.found.insert(*digest, Arc::clone(&found));
        Ok(found)
    }
}

/// Fails where the disk does: what cannot be read may name anything.
fn find(data: &Path, digest: &Digest) -> io::Result<Found> {
    let metadata = match fs::symlink_metadata(data) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Found::Nothing);
        }
        metadata => metadata?,
    };
    if !metadata.is_file() {
        return Ok(Found::Nothing);
    }
    if metadata.len() > MANIFEST_BYTES_MAX {
        return Ok(Found::Unparsable);
    }
    let manifest = Manifest::from_answer(None, Bytes::from(fs::read(data)?), digest.algorithm());
    let Ok(contents) = manifest.and_then(|manifest| manifest.contents()) else {
        return Ok(Found::Unparsable);
    };
    let blobs = contents.blobs.iter().chain(&contents.foreign);
    Ok(Found::Manifest(Names {
        manifests: contents.manifests.iter().map(|child| child.digest).collect(),
        blobs: blobs.map(|blob| blob.digest).collect(),
        subject: contents.subject.map(|subject| subject.digest),
    }))
}

impl Garbage {
    /// Adds what is garbage in a repository; returns how many whole manifests are.
    fn add(
        &mut self,
        repository: &Repository,
        kept: &HashSet<Digest>,
        marking: &Marking<'_>,
        say: &mut dyn FnMut(&str),
    ) -> usize {
        let name = &repository.name;
        let mut manifests = 0;
        for tag in
            repository.tags.iter().filter(|tag| tag.digest.is_none_or(|digest| !kept.contains(&digest)))
        {
            say(&format!("{name}: dangling tag eligible for deletion: {}", tag.name));
            self.tags.push((name.clone(), tag.name.clone(), tag.folder.clone()));
        }
        for link in &repository.manifests {
            match link.digest {
                Some(digest) if kept.contains(&digest) => continue,
                Some(digest) if marking.is_there(&digest) => {
                    say(&format!("manifest eligible for deletion: {name}@{digest}"));
                    manifests += 1;
                }
                _ => say(&format!("{name}: dangling manifest link eligible for deletion: {}", link.name)),
            }
            self.links.push(link.folder.clone());
        }
        for link in &repository.layers {
            let is_there = |digest: &Digest| tree::blob_folder(marking.root, digest).join("data").is_file();
            if !link.digest.is_some_and(|digest| marking.marked.contains(&digest) && is_there(&digest)) {
                say(&format!("{name}: layer link eligible for deletion: {}", link.name));
                self.links.push(link.folder.clone());
            }
        }
        manifests
    }

    fn sweep(&self) -> Result<(), CollectError> {
        let tags = self.tags.iter().map(|(_, _, folder)| folder);
        let blobs = self.blobs.iter().map(|(_, folder)| folder);
        for path in tags.chain(&self.links).chain(blobs).chain(&self.litter) {
            let is_folder = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir());
            let removed = if is_folder { fs::remove_dir_all(path) } else { fs::remove_file(path) };
            match removed {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(in_folder(path)(error)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Has the index forget what is gone, where there is one.
    fn forget(&self, root: &Path) -> Result<(), CollectError> {
        if !root.join("stopover/index.sqlite").exists() {
            return Ok(());
        }
        let index = Index::open(root, Clock::default()).map_err(in_folder(root))?;
        for (at, (digest, _)) in self.blobs.iter().enumerate() {
            index.forget(digest);
            if at % FACTS_AT_ONCE == 0 {
                index.flush();
            }
        }
        for (repository, tag, folder) in &self.tags {
            if let (Ok(repository), Ok(tag)) =
                (RepositoryName::try_from(repository.as_str()), Tag::try_from(tag.as_str()))
            {
                index.remove_tag(&repository, &tag).map_err(in_folder(folder))?;
            }
        }
        index.flush();
        Ok(())
    }
}

fn in_folder(path: &Path) -> impl Fn(io::Error) -> CollectError {
    let path = path.to_owned();
    move |error| CollectError::Io { path: path.clone(), error }
}
