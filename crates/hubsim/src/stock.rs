//! The stock of a Hub: how tests fill it, and say who may read what and how often.

use oci::{Algorithm, Digest, Hasher};

use crate::{Hub, blob::Blob};

impl Hub {
    /// Takes a blob; returns its digest. No repository has it before [`Hub::link_blob`] or a manifest that names it.
    pub fn push_blob(&self, blob: impl Into<Blob>) -> Digest {
        self.push_blob_by(Algorithm::Sha256, blob)
    }

    /// Takes a blob under the digest of an algorithm.
    pub fn push_blob_by(&self, algorithm: Algorithm, blob: impl Into<Blob>) -> Digest {
        let blob = blob.into();
        let mut hasher = Hasher::new(algorithm);
        for piece in blob.pieces() {
            hasher.update(&piece);
        }
        let digest = hasher.finish();
        self.push_blob_as(&digest, blob);
        digest
    }

    /// Takes a blob under a digest that is not checked: a lie, or one that is known already.
    pub fn push_blob_as(&self, digest: &Digest, blob: impl Into<Blob>) {
        self.state.content_mut().push_blob(digest, blob.into());
    }

    /// Makes a blob one of a repository's.
    pub fn link_blob(&self, repository: &str, digest: &Digest) {
        self.state.content_mut().link_blob(repository, digest);
    }

    /// Takes a manifest and tags it; the repository also gets what it names and the Hub has. A `subject` makes it a
    /// referrer. Returns its digest.
    pub fn push_manifest(
        &self,
        repository: &str,
        media_type: &str,
        bytes: impl AsRef<[u8]>,
        tags: &[&str],
    ) -> Digest {
        self.push_manifest_by(Algorithm::Sha256, repository, media_type, bytes, tags)
    }

    /// Takes a manifest under the digest of an algorithm.
    pub fn push_manifest_by(
        &self,
        algorithm: Algorithm,
        repository: &str,
        media_type: &str,
        bytes: impl AsRef<[u8]>,
        tags: &[&str],
    ) -> Digest {
        let digest = Digest::of(algorithm, bytes.as_ref());
        self.push_manifest_as(&digest, repository, media_type, bytes, tags);
        digest
    }

    /// Takes a manifest under a digest that is not checked: a lie, or one of Docker's first schema, whose digest is not
    /// of all its bytes.
    pub fn push_manifest_as(
        &self,
        digest: &Digest,
        repository: &str,
        media_type: &str,
        bytes: impl AsRef<[u8]>,
        tags: &[&str],
    ) {
        self.state.content_mut().push_manifest(repository, digest, media_type, bytes.as_ref(), tags);
    }

    /// Moves a tag, or makes it.
    pub fn tag(&self, repository: &str, tag: &str, digest: &Digest) {
        self.state.content_mut().tag(repository, tag, digest);
    }

    /// Removes a tag; what it named stays, by digest.
    pub fn untag(&self, repository: &str, tag: &str) {
        self.state.content_mut().untag(repository, tag);
    }

    /// Returns the digest that a tag names.
    pub fn tagged(&self, repository: &str, tag: &str) -> Option<Digest> {
        let manifest = self.state.content().manifest(repository, tag)?;
        manifest.digest.parse().ok()
    }

    /// Removes a repository.
    pub fn remove_repository(&self, repository: &str) {
        self.state.content_mut().remove_repository(repository);
    }

    /// Removes a manifest from a repository, and the tags that name it.
    pub fn remove_manifest(&self, repository: &str, digest: &Digest) {
        self.state.content_mut().remove_manifest(repository, digest);
    }

    /// Removes a blob from the whole Hub.
    pub fn remove_blob(&self, digest: &Digest) {
        self.state.content_mut().remove_blob(digest);
    }

    /// Makes an account, or changes its password.
    pub fn add_account(&self, user: &str, password: &str) {
        self.state.content_mut().add_account(user, password);
    }

    /// Gives an account a token that stands for its password where tokens are granted (OAuth 2's `refresh_token`).
    pub fn add_identity_token(&self, user: &str, token: &str) {
        self.state.content_mut().add_identity_token(user, token);
    }

    /// Makes a repository private: every account may read it, and nobody else.
    pub fn make_private(&self, repository: &str) {
        self.state.content_mut().make_private(repository);
    }

    /// Makes a repository private to an account, and to others for which this was called.
    pub fn make_private_to(&self, repository: &str, user: &str) {
        self.state.content_mut().make_private_to(repository, user);
    }

    /// Makes a repository readable by everyone.
    pub fn make_public(&self, repository: &str) {
        self.state.content_mut().make_public(repository);
    }

    /// Sets how many manifest GETs each account, and each address without one, has.
    pub fn set_quota(&self, limit: impl Into<Option<u32>>) {
        let limit = limit.into();
        self.configure(|options| options.quota = limit);
    }

    /// Begins a new window for one account or address.
    pub fn reset_quota_of(&self, account_or_address: &str) {
        self.state.quota().reset_one(account_or_address);
    }

    /// Sets the `Retry-After` that one account or address is told when its quota is spent, in seconds.
    pub fn set_retry_after(&self, account_or_address: &str, seconds: u64) {
        self.state.quota().set_retry_after(account_or_address, seconds);
    }

    /// Sets an account's own quota; `None` is unlimited, as for who pays.
    pub fn set_account_quota(&self, user: &str, limit: Option<u32>) {
        self.state.quota().set_limit(user, limit);
    }

    /// Begins a new window: nobody has used anything.
    pub fn reset_quota(&self) {
        self.state.quota().reset();
    }

    /// Returns the GETs counted for an account, or for an address such as `127.0.0.1`.
    pub fn quota_used(&self, account_or_address: &str) -> u32 {
        self.state.quota().used(account_or_address)
    }
}
