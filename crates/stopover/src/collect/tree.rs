//! The folders of registry:2, read without changing anything. A symbolic link is neither followed nor passed over: what
//! is behind it may be in use.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use oci::{Algorithm, Digest};

use crate::{index::try_read_link, store::entries};

/// How deep repositories are looked for: a name has at most 255 bytes, so at most 128 components.
const DEPTH_MAX: usize = 128;
const ALGORITHMS: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Sha512];

/// What a repository's folder holds.
pub(super) struct Repository {
    pub(super) name: String,
    pub(super) manifests: Vec<Link>,
    pub(super) layers: Vec<Link>,
    pub(super) tags: Vec<Link>,
}

/// A link to content.
pub(super) struct Link {
    /// The tag, or the digest as its folder has it.
    pub(super) name: String,
    /// The folder that goes with it.
    pub(super) folder: PathBuf,
    /// What it names; `None` where it is empty, torn or not there.
    pub(super) digest: Option<Digest>,
}

/// Content.
pub(super) struct Blob {
    pub(super) digest: Digest,
    pub(super) folder: PathBuf,
    pub(super) size: u64,
}

/// Returns where content of this digest stands, or would.
pub(super) fn blob_folder(root: &Path, digest: &Digest) -> PathBuf {
    let hex = digest.hex();
    root.join("docker/registry/v2/blobs").join(digest.algorithm().as_str()).join(&hex[..2]).join(hex)
}

/// Returns every repository, in the order of their names.
pub(super) fn repositories(root: &Path) -> io::Result<Vec<Repository>> {
    let mut found = Vec::new();
    let mut folders = vec![(root.join("docker/registry/v2/repositories"), String::new(), 0)];
    while let Some((folder, name, depth)) = folders.pop() {
        let mut is_repository = false;
        for child in subfolders(&folder)? {
            if child.starts_with('_') {
                is_repository = true;
            } else if depth < DEPTH_MAX {
                let below = if name.is_empty() { child.clone() } else { format!("{name}/{child}") };
                folders.push((folder.join(child), below, depth + 1));
            }
        }
        if is_repository {
            let manifests = links(&folder.join("_manifests/revisions"))?;
            found.push(Repository {
                name,
                manifests,
                layers: links(&folder.join("_layers"))?,
                tags: tags(&folder)?,
            });
        }
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}

fn links(folder: &Path) -> io::Result<Vec<Link>> {
    let mut found = Vec::new();
    for algorithm in ALGORITHMS {
        let folder = folder.join(algorithm.as_str());
        for hex in subfolders(&folder)? {
            let (name, folder) = (format!("{algorithm}:{hex}"), folder.join(hex));
            let digest = try_read_link(&folder.join("link"))?.filter(|digest| digest.to_string() == name);
            found.push(Link { name, folder, digest });
        }
    }
    Ok(found)
}

fn tags(repository: &Path) -> io::Result<Vec<Link>> {
    let folder = repository.join("_manifests/tags");
    let each = subfolders(&folder)?.into_iter().map(|name| {
        let folder = folder.join(&name);
        Ok(Link { digest: try_read_link(&folder.join("current/link"))?, name, folder })
    });
    each.collect()
}

/// Returns all content, in the order of its digests.
pub(super) fn blobs(root: &Path) -> io::Result<Vec<Blob>> {
    let mut found = Vec::new();
    for algorithm in ALGORITHMS {
        let above = root.join("docker/registry/v2/blobs").join(algorithm.as_str());
        for prefix in subfolders(&above)? {
            for hex in subfolders(&above.join(&prefix))? {
                let folder = above.join(&prefix).join(&hex);
                let size = fs::symlink_metadata(folder.join("data")).map(|metadata| metadata.len());
                if let (Ok(digest), Ok(size)) = (format!("{algorithm}:{hex}").parse(), size) {
                    found.push(Blob { digest, folder, size });
                }
            }
        }
    }
    found.sort_by_key(|blob| blob.digest);
    Ok(found)
}

/// Returns what uploads and writes that were broken off have left: `_uploads` and `*.tmp`.
pub(super) fn litter(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![(root.join("docker/registry/v2"), 0)];
    while let Some((folder, depth)) = folders.pop() {
        for entry in entries(&folder)? {
            let entry = entry?;
            let (name, is_folder) = (entry.file_name(), entry.file_type()?.is_dir());
            if (is_folder && name == "_uploads") || (!is_folder && name.to_string_lossy().ends_with(".tmp")) {
                found.push(entry.path());
            } else if is_folder && depth < DEPTH_MAX {
                folders.push((entry.path(), depth + 1));
            }
        }
    }
    found.sort();
    Ok(found)
}

fn subfolders(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in entries(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_symlink() {
            let shown = entry.path().display().to_string();
            return Err(io::Error::other(format!("found the symbolic link {shown}, expected a folder")));
        }
        if kind.is_dir()
            && let Ok(name) = entry.file_name().into_string()
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}
