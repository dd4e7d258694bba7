//! Manifests as they are kept: in memory, in the store by their digest, in the index by what they name.
//!
//! It promises that what is read is what its digest says, and that a type which nobody told is not passed for one that
//! somebody did.

use std::os::unix::fs::FileExt;

use oci::{Descriptor, Digest, Hasher, MANIFEST_BYTES_MAX, Manifest, RepositoryName};

use super::{Cache, Error, Parts, absent::Wanted, key};
use crate::{index::Membership, metrics::ContentType, source::Origin};

/// Who told the media type of a manifest that was read from the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    /// The index: it is as the registry had it.
    Noted,
    /// The document itself.
    Said,
    /// Nobody: it is what the document looks like.
    Guessed,
}

/// A manifest in the store, and what is known of it.
struct Found {
    manifest: Manifest,
    told: Type,
    membership: Option<Membership>,
    /// Whether the index has what it names.
    noted: bool,
}

impl Cache {
    /// Returns the manifest if it is stored and the repository has it.
    pub(super) async fn stored_manifest(
        &self,
        origin: &Origin,
        digest: &Digest,
    ) -> Result<Option<Manifest>, Error> {
        if let Some(manifest) = self.parts.manifests.get(&key(origin, *digest)) {
            return Ok(Some(manifest));
        }
        let (name, wanted) = key(origin, *digest);
        let read = self.blocking(move |parts| parts.find_manifest(&name, &wanted));
        let Some(mut found) = read.await.flatten() else { return Ok(None) };
        let mut confirmed = None;
        if found.membership != Some(Membership::Manifest) {
            // Stored by another repository: the bytes are here, the right to them is asked for.
            let answer = origin.source.has_manifest(&origin.repository, digest).await;
            confirmed = Some(self.noted(origin, &Wanted::Manifest(*digest), answer)?.content);
        }
        if found.told == Type::Guessed {
            found = self.with_type_of_registry(origin, found, confirmed).await;
        }
        Ok(Some(self.keep(origin, found).await))
    }

    /// Asks the registry for the type that only the lost index knew, for no longer than a check may take.
    async fn with_type_of_registry(
        &self,
        origin: &Origin,
        found: Found,
        confirmed: Option<Descriptor>,
    ) -> Found {
        let digest = found.manifest.descriptor.digest;
        let described = match confirmed {
            Some(descriptor) => Some(descriptor),
            None => {
                let asked = origin.source.has_manifest(&origin.repository, &digest);
                let told = tokio::time::timeout(origin.freshness.check_deadline, asked).await;
                told.ok().and_then(Result::ok).map(|told| told.content)
            }
        };
        // What answers with another size describes something else: a proxy's page, say.
        let size = found.manifest.descriptor.size;
        let Some(descriptor) = described.filter(|described| described.size == size) else { return found };
        let content_type = Some(descriptor.media_type.as_str());
        match Manifest::from_answer(content_type, found.manifest.bytes.clone(), digest.algorithm()) {
            Ok(manifest) if manifest.descriptor.digest == digest => {
                Found { manifest, told: Type::Said, noted: false, ..found }
            }
            _ => {
                tracing::warn!(%digest, %descriptor.media_type, "the registry gives a stored manifest a type that it cannot have");
                found
            }
        }
    }

    /// Stores a manifest from the registry, if the disk takes it, and keeps it in memory.
    pub(super) async fn admit(&self, origin: &Origin, manifest: Manifest) -> Manifest {
        let (descriptor, bytes) = (manifest.descriptor.clone(), manifest.bytes.clone());
        self.parts.metrics.pulled(ContentType::Manifest, bytes.len() as u64);
        // In the store everything is what its name says to whoever hashes it; such a manifest is not.
        let may_be_stored = !descriptor.media_type.is_signed();
        let stored = may_be_stored
            && self
                .blocking(move |parts| parts.write_manifest(&descriptor.digest, &bytes))
                .await
                .unwrap_or(false);
        if !stored {
            return self.remember(origin, manifest);
        }
        let found = Found { manifest, told: Type::Said, membership: None, noted: false };
        self.keep(origin, found).await
    }

    /// Notes that the repository has the manifest and what it names, and keeps it in memory.
    async fn keep(&self, origin: &Origin, found: Found) -> Manifest {
        let (name, manifest) = (origin.tree_name.clone(), found.manifest.clone());
        // Whoever comes next asks again for a type that is guessed.
        if found.told != Type::Guessed {
            self.remember(origin, manifest.clone());
        }
        self.blocking(move |parts| {
            let digest = found.manifest.descriptor.digest;
            if !found.noted {
                parts.note(&name, &found.manifest, found.told);
            }
            parts.index.used(&digest);
            let linked = parts.index.link(&name, &digest, Membership::Manifest);
            logged("a manifest was not linked", linked);
        })
        .await;
        manifest
    }

    fn remember(&self, origin: &Origin, manifest: Manifest) -> Manifest {
        let digest = manifest.descriptor.digest;
        self.parts.manifests.insert(key(origin, digest), manifest.clone());
        manifest
    }
}

impl Parts {
    fn find_manifest(&self, repository: &RepositoryName, digest: &Digest) -> Option<Found> {
        let (manifest, told) = self.read_manifest(digest)?;
        let membership = self.index.membership(repository, digest);
        // An index may name it, or another repository have noted it: what it names itself is noted with its link.
        let linked = self.index.is_linked(repository, digest, Membership::Manifest);
        Some(Found { manifest, told, membership, noted: linked && told == Type::Noted })
    }

    /// Reads a manifest and checks it against its digest; what is wrong is put aside and reads as not there.
    fn read_manifest(&self, digest: &Digest) -> Option<(Manifest, Type)> {
        let stored = match self.store.open(digest) {
            Ok(stored) => stored?,
            Err(error) => {
                tracing::warn!(%error, %digest, "a stored manifest cannot be opened; it is fetched again");
                return None;
            }
        };
        let bytes = stored.read(MANIFEST_BYTES_MAX).ok()?;
        if Digest::of(digest.algorithm(), &bytes) != *digest {
            self.quarantine(digest);
            return None;
        }
        let noted = self.index.manifest_type(digest);
        let content_type = noted.as_ref().map(oci::MediaType::as_str);
        let manifest = Manifest::from_answer(content_type, bytes.into(), digest.algorithm()).ok()?;
        // One that looks signed would go by the digest of what was signed, which it is not stored under.
        if manifest.descriptor.digest != *digest {
            return None;
        }
        let told = match noted {
            Some(_) => Type::Noted,
            None if manifest.says_its_type() => Type::Said,
            None => Type::Guessed,
        };
        Some((manifest, told))
    }

    /// Notes what a stored manifest of the repository is and names, where the index lacks it. Returns whether there is
    /// such a manifest.
    pub(super) fn note_stored_manifest(&self, repository: &RepositoryName, digest: &Digest) -> bool {
        let found = self.read_manifest(digest);
        found.inspect(|(manifest, told)| self.note(repository, manifest, *told)).is_some()
    }

    fn note(&self, repository: &RepositoryName, manifest: &Manifest, told: Type) {
        if told != Type::Guessed {
            self.index.set_manifest_type(&manifest.descriptor);
        }
        self.index.set_names(repository, names(manifest));
    }

    /// Calls `each` with every manifest of the repository that is stored and refers to `subject`.
    pub(super) fn stored_referrers(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
        each: &mut dyn FnMut(&Manifest),
    ) {
        let read = self.index.linked_manifests_of(repository, &mut |digest| {
            let manifest = self.read_manifest(&digest).map(|(manifest, _)| manifest);
            if let Some(manifest) = manifest.filter(|manifest| refers_to(manifest, subject)) {
                each(&manifest);
            }
        });
        logged("the tree was not read to its end; what refers to an image may be lacking", read);
    }

    fn write_manifest(&self, digest: &Digest, bytes: &[u8]) -> bool {
        let write = || -> std::io::Result<()> {
            let spool = self.store.spool(digest)?;
            spool.file().set_len(bytes.len() as u64)?;
            spool.file().write_all_at(bytes, 0).inspect_err(|_| spool.discard())?;
            let mut hasher = Hasher::new(digest.algorithm());
            hasher.update(bytes);
            let verified = spool.verify(hasher).map_err(std::io::Error::other)?;
            match self.store.commit(verified) {
                // Another repository's request stored the same manifest at the same moment.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    self.store.open(digest)?.map(drop).ok_or(error)
                }
                committed => committed.map(drop),
            }
        };
        logged("a manifest was not stored; it is served all the same", write())
    }

    pub(super) fn quarantine(&self, digest: &Digest) {
        self.metrics.disk_verification_failures.inc();
        tracing::error!(%digest, "stored content is not what its digest says; it is quarantined and fetched again");
        logged("wrong content was not quarantined", self.store.quarantine(digest));
        self.index.forget(digest);
    }
}

fn refers_to(manifest: &Manifest, subject: &Digest) -> bool {
    manifest.contents().is_ok_and(|contents| contents.subject.is_some_and(|found| found.digest == *subject))
}

/// Returns what a manifest names, for the index. A manifest that cannot be read names nothing.
fn names(manifest: &Manifest) -> Vec<(Digest, u64, Membership)> {
    let Ok(contents) = manifest.contents() else { return Vec::new() };
    let blobs = contents.blobs.iter().map(|blob| (blob.digest, blob.size, Membership::Blob));
    let manifests = contents.manifests.iter().map(|child| (child.digest, child.size, Membership::Manifest));
    blobs.chain(manifests).collect()
}

/// Logs a failure of the disk that costs caching and no pull; returns whether there was none.
pub(super) fn logged(what: &str, result: std::io::Result<()>) -> bool {
    if let Err(error) = &result {
        tracing::warn!(%error, "{what}");
    }
    result.is_ok()
}
