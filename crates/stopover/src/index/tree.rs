//! The tree of links that registry:2 keeps, read and written as it does:
//!
//! ```text
//! docker/registry/v2/repositories/<name>/_layers/<algorithm>/<hex>/link
//!                                       /_manifests/revisions/<algorithm>/<hex>/link
//!                                       /_manifests/tags/<tag>/current/link
//!                                       /_manifests/tags/<tag>/index/<algorithm>/<hex>/link
//! ```
//!
//! A link holds a digest as text. It is written beside its place and renamed into it, so that a reader sees the old or
//! the new one. It is not synced: a power cut may leave it empty or lose it, both read as "no link" and cost a request.

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use oci::{Algorithm, Digest, RepositoryName, Tag};

/// A link is a digest; anything longer is not one.
const LINK_BYTES_MAX: u64 = 256;
/// How deep repositories are looked for: a name has at most 255 bytes, so at most 128 components.
const DEPTH_MAX: usize = 128;

/// As what a repository has a content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Membership {
    /// As a layer or a configuration.
    Blob,
    /// As a manifest or an index.
    Manifest,
}

pub(super) struct Tree {
    repositories: PathBuf,
}

impl Tree {
    pub(super) fn new(root: &Path) -> Self {
        Self { repositories: root.join("docker/registry/v2/repositories") }
    }

    pub(super) fn tag(&self, repository: &RepositoryName, tag: &Tag) -> Option<Digest> {
        read_link(&self.tag_folder(repository, tag).join("current/link"))
    }

    pub(super) fn set_tag(&self, repository: &RepositoryName, tag: &Tag, digest: &Digest) -> io::Result<()> {
        let folder = self.tag_folder(repository, tag);
        write_link(&below(folder.join("index"), digest), digest)?;
        write_link(&folder.join("current"), digest)
    }

    pub(super) fn remove_tag(&self, repository: &RepositoryName, tag: &Tag) -> io::Result<()> {
        allow_missing(fs::remove_dir_all(self.tag_folder(repository, tag)))
    }

    pub(super) fn tags(&self, repository: &RepositoryName) -> io::Result<Vec<String>> {
        let mut tags = Vec::new();
        for name in names_in(&self.repository(repository).join("_manifests/tags"))? {
            if let Ok(tag) = Tag::try_from(name.as_str())
                && self.tag(repository, &tag).is_some()
            {
                tags.push(name);
            }
        }
        tags.sort();
        Ok(tags)
    }

    pub(super) fn membership(&self, repository: &RepositoryName, digest: &Digest) -> Option<Membership> {
        [Membership::Manifest, Membership::Blob]
            .into_iter()
            .find(|as_what| self.is_linked(repository, digest, *as_what))
    }

    pub(super) fn is_linked(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        as_what: Membership,
    ) -> bool {
        read_link(&self.folder(repository, digest, as_what).join("link")).as_ref() == Some(digest)
    }

    pub(super) fn link(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        as_what: Membership,
    ) -> io::Result<()> {
        write_link(&self.folder(repository, digest, as_what), digest)
    }

    pub(super) fn unlink(&self, repository: &RepositoryName, digest: &Digest) -> io::Result<()> {
        allow_missing(fs::remove_dir_all(self.folder(repository, digest, Membership::Manifest)))?;
        allow_missing(fs::remove_dir_all(self.folder(repository, digest, Membership::Blob)))
    }

    pub(super) fn linked_manifests(&self, each: &mut dyn FnMut(RepositoryName, Digest)) -> io::Result<()> {
        let mut folders = vec![(self.repositories.clone(), String::new(), 0)];
        while let Some((folder, name, depth)) = folders.pop() {
            for child in names_in(&folder)? {
                if child == "_manifests" {
                    if let Ok(repository) = RepositoryName::try_from(name.as_str()) {
                        self.linked_manifests_of(&repository, &mut |digest| {
                            each(repository.clone(), digest)
                        })?;
                    }
                } else if !child.starts_with('_') && depth < DEPTH_MAX {
                    let child_name = if name.is_empty() { child.clone() } else { format!("{name}/{child}") };
                    folders.push((folder.join(child), child_name, depth + 1));
                }
            }
        }
        Ok(())
    }

    /// Calls `each` with every manifest that the repository's revisions or tags link. Tags alone do so where registry:2
    /// let a manifest expire: it removes the revision's link, and neither the tag nor the manifest.
    pub(super) fn linked_manifests_of(
        &self,
        repository: &RepositoryName,
        each: &mut dyn FnMut(Digest),
    ) -> io::Result<()> {
        let mut seen = HashSet::new();
        let manifests = self.repository(repository).join("_manifests");
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let folder = manifests.join("revisions").join(algorithm.as_str());
            for hex in names_in(&folder)? {
                seen.extend(read_link(&folder.join(hex).join("link")));
            }
        }
        for tag in names_in(&manifests.join("tags"))? {
            seen.extend(read_link(&manifests.join("tags").join(tag).join("current/link")));
        }
        seen.into_iter().for_each(each);
        Ok(())
    }

    fn repository(&self, repository: &RepositoryName) -> PathBuf {
        self.repositories.join(repository.as_str())
    }

    fn tag_folder(&self, repository: &RepositoryName, tag: &Tag) -> PathBuf {
        self.repository(repository).join("_manifests/tags").join(tag.as_str())
    }

    fn folder(&self, repository: &RepositoryName, digest: &Digest, as_what: Membership) -> PathBuf {
        let kind = match as_what {
            Membership::Blob => "_layers",
            Membership::Manifest => "_manifests/revisions",
        };
        below(self.repository(repository).join(kind), digest)
    }
}

fn below(folder: PathBuf, digest: &Digest) -> PathBuf {
    folder.join(digest.algorithm().as_str()).join(digest.hex())
}

/// Returns the digest in a link; `None` where there is no link, or an empty or torn one.
fn read_link(path: &Path) -> Option<Digest> {
    try_read_link(path).ok().flatten()
}

/// Does what [`read_link`] does; fails where the disk does.
pub(crate) fn try_read_link(path: &Path) -> io::Result<Option<Digest>> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        metadata => metadata?,
    };
    if !metadata.is_file() || metadata.len() > LINK_BYTES_MAX {
        return Ok(None);
    }
    let text = String::from_utf8(fs::read(path)?).ok();
    Ok(text.and_then(|text| text.trim_end().parse().ok()))
}

fn write_link(folder: &Path, digest: &Digest) -> io::Result<()> {
    static WRITTEN: AtomicU64 = AtomicU64::new(0);
    let link = folder.join("link");
    if read_link(&link).as_ref() == Some(digest) {
        return Ok(());
    }
    fs::create_dir_all(folder)?;
    let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
    let beside = folder.join(format!("link.{}-{number}.tmp", std::process::id()));
    fs::write(&beside, digest.to_string())?;
    fs::rename(&beside, &link).inspect_err(|_| {
        let _ = fs::remove_file(&beside);
    })
}

fn names_in(folder: &Path) -> io::Result<Vec<String>> {
    let read = match fs::read_dir(folder) {
        Ok(read) => read,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error),
    };
    Ok(read.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

fn allow_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
