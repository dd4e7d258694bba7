//! A volume as registry:2 leaves it, laid out by hand (research of registry:2, 4.1): nothing but blobs and links.

use std::{
    fs,
    path::{Path, PathBuf},
};

use hubsim::kinds;
use oci::{Algorithm, Digest};

/// The folder that registry:2 calls its root directory.
pub(crate) struct Volume<'a> {
    root: &'a Path,
}

impl<'a> Volume<'a> {
    pub(crate) fn new(root: &'a Path) -> Self {
        Self { root }
    }

    /// Lays down content; returns its digest.
    pub(crate) fn blob(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::of(Algorithm::Sha256, bytes);
        self.data(&digest, bytes);
        digest
    }

    fn data(&self, digest: &Digest, bytes: &[u8]) {
        write(&data_path(self.root, digest), bytes);
    }

    /// Lays out something that a Hub has, as if it had been pulled whole.
    pub(crate) fn content(&self, repository: &str, content: &kinds::Content) {
        for (digest, bytes) in &content.blobs {
            self.data(digest, bytes);
            self.layer_link(repository, digest);
        }
        for manifest in &content.manifests {
            self.data(&manifest.digest, &manifest.bytes);
            self.revision_link(repository, &manifest.digest);
        }
        self.tag(repository, &content.tag, &content.top().digest);
    }

    /// Links content into a repository as a layer or a configuration.
    pub(crate) fn layer_link(&self, repository: &str, digest: &Digest) {
        let link = format!("_layers/{}/{}/link", digest.algorithm(), digest.hex());
        write(&self.repository(repository).join(link), digest.to_string().as_bytes());
    }

    /// Links content into a repository as a manifest.
    pub(crate) fn revision_link(&self, repository: &str, digest: &Digest) {
        let link = format!("_manifests/revisions/{}/{}/link", digest.algorithm(), digest.hex());
        write(&self.repository(repository).join(link), digest.to_string().as_bytes());
    }

    /// Lets a tag name a manifest.
    pub(crate) fn tag(&self, repository: &str, tag: &str, digest: &Digest) {
        let folder = self.repository(repository).join("_manifests/tags").join(tag);
        write(&folder.join("current/link"), digest.to_string().as_bytes());
        let index = format!("index/{}/{}/link", digest.algorithm(), digest.hex());
        write(&folder.join(index), digest.to_string().as_bytes());
    }

    /// Leaves what a registry:2 that was killed leaves: an upload, an empty link, a state file.
    pub(crate) fn litter(&self, repository: &str) {
        write(&self.repository(repository).join("_uploads/1f0e/data"), b"half of somethin");
        write(&self.repository(repository).join("_manifests/tags/torn/current/link"), b"");
        write(&self.repository(repository).join("_layers/sha256/00/link"), b"sha256:");
        write(&self.root.join("scheduler-state.json"), b"{\"library/alpine@sha256:");
    }

    fn repository(&self, repository: &str) -> PathBuf {
        self.root.join("docker/registry/v2/repositories").join(repository)
    }
}

/// Returns where content stands below a root directory.
pub(crate) fn data_path(root: &Path, digest: &Digest) -> PathBuf {
    let hex = digest.hex();
    root.join("docker/registry/v2/blobs")
        .join(digest.algorithm().as_str())
        .join(&hex[..2])
        .join(hex)
        .join("data")
}

/// Returns all content below a root directory, each file with the digest that its place claims.
pub(crate) fn contents(root: &Path) -> Vec<(Digest, PathBuf)> {
    let mut found = Vec::new();
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let folder = root.join("docker/registry/v2/blobs").join(algorithm.as_str());
        for prefix in folders(&folder) {
            for folder in folders(&prefix) {
                let hex = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
                if folder.join("data").exists() {
                    let digest = format!("{algorithm}:{hex}").parse().expect("a folder is named by a digest");
                    found.push((digest, folder.join("data")));
                }
            }
        }
    }
    found
}

/// Asserts that all content below a root directory is what its place claims.
pub(crate) fn assert_only_right_bytes(root: &Path) {
    for (digest, path) in contents(root) {
        let bytes = fs::read(&path).expect("content is readable");
        assert_eq!(Digest::of(digest.algorithm(), &bytes), digest, "{} holds something else", path.display());
    }
}

/// Removes the index, as an operator may at any time while nobody serves from there.
pub(crate) fn remove_index(root: &Path) {
    for name in ["index.sqlite", "index.sqlite-wal", "index.sqlite-shm"] {
        // The files beside the first are there only while it is open.
        let _absent = fs::remove_file(root.join("stopover").join(name));
    }
}

fn folders(folder: &Path) -> Vec<PathBuf> {
    let read = fs::read_dir(folder).into_iter().flatten();
    read.flatten().map(|entry| entry.path()).collect()
}

fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().expect("the path has a folder")).expect("the folder is writable");
    fs::write(path, bytes).expect("the folder is writable");
}
