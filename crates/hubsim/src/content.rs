//! What the Hub holds: blobs, manifests, and the repositories and accounts that may reach them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use oci::Digest;
use serde_json::{Value, json};

use crate::blob::Blob;

/// Everything the Hub holds. Digests are kept as text, since what a client asks for may be none.
#[derive(Debug, Default)]
pub(crate) struct Content {
    blobs: HashMap<String, Arc<Blob>>,
    manifests: HashMap<String, Arc<StoredManifest>>,
    repositories: BTreeMap<String, Repository>,
    accounts: HashMap<String, String>,
    /// Whose each identity token is.
    identity_tokens: HashMap<String, String>,
}

/// A manifest as it was pushed.
#[derive(Debug)]
pub(crate) struct StoredManifest {
    pub(crate) digest: String,
    pub(crate) media_type: String,
    pub(crate) body: Arc<Blob>,
    /// How a list of referrers names it, and of which subject it is one.
    referrer: Option<(String, Value)>,
}

#[derive(Debug, Default)]
struct Repository {
    tags: BTreeMap<String, String>,
    manifests: BTreeSet<String>,
    blobs: HashSet<String>,
    access: Access,
}

/// Who may read a repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Access {
    #[default]
    Everyone,
    AnyAccount,
    Accounts(BTreeSet<String>),
}

impl Content {
    /// Takes a blob under a digest that is not checked.
    pub(crate) fn push_blob(&mut self, digest: &Digest, blob: Blob) {
        self.blobs.entry(digest.to_string()).or_insert_with(|| Arc::new(blob));
    }

    pub(crate) fn link_blob(&mut self, repository: &str, digest: &Digest) {
        self.repository(repository).blobs.insert(digest.to_string());
    }

    /// Takes a manifest under a digest that is not checked; the repository gets its tags, and the blobs and manifests that it names and the Hub has.
    pub(crate) fn push_manifest(
        &mut self,
        repository: &str,
        digest: &Digest,
        media_type: &str,
        bytes: &[u8],
        tags: &[&str],
    ) {
        let text = digest.to_string();
        let document: Value = serde_json::from_slice(bytes).unwrap_or(Value::Null);
        let named = named_digests(&document);
        let stored = StoredManifest {
            digest: text.clone(),
            media_type: media_type.to_owned(),
            body: Arc::new(Blob::from(bytes.to_vec())),
            referrer: referrer(&document, media_type, &text, bytes.len()),
        };
        self.manifests.insert(text.clone(), Arc::new(stored));
        let (blobs, manifests): (Vec<String>, Vec<String>) =
            named.into_iter().partition(|digest| self.blobs.contains_key(digest));
        let held =
            manifests.into_iter().filter(|digest| self.manifests.contains_key(digest)).collect::<Vec<_>>();
        let repository = self.repository(repository);
        repository.blobs.extend(blobs);
        repository.manifests.extend(held);
        repository.manifests.insert(text.clone());
        repository.tags.extend(tags.iter().map(|tag| ((*tag).to_owned(), text.clone())));
    }

    pub(crate) fn tag(&mut self, repository: &str, tag: &str, digest: &Digest) {
        let repository = self.repository(repository);
        repository.tags.insert(tag.to_owned(), digest.to_string());
        repository.manifests.insert(digest.to_string());
    }

    pub(crate) fn untag(&mut self, repository: &str, tag: &str) {
        self.repository(repository).tags.remove(tag);
    }

    pub(crate) fn remove_repository(&mut self, repository: &str) {
        self.repositories.remove(repository);
    }

    /// Forgets a manifest in a repository, and the tags that name it.
    pub(crate) fn remove_manifest(&mut self, repository: &str, digest: &Digest) {
        let text = digest.to_string();
        let repository = self.repository(repository);
        repository.manifests.remove(&text);
        repository.tags.retain(|_, named| *named != text);
    }

    pub(crate) fn remove_blob(&mut self, digest: &Digest) {
        self.blobs.remove(&digest.to_string());
    }

    pub(crate) fn add_account(&mut self, user: &str, password: &str) {
        self.accounts.insert(user.to_owned(), password.to_owned());
    }

    pub(crate) fn add_identity_token(&mut self, user: &str, token: &str) {
        self.identity_tokens.insert(token.to_owned(), user.to_owned());
    }

    /// Returns whose identity token it is.
    pub(crate) fn user_of(&self, identity_token: &str) -> Option<String> {
        self.identity_tokens.get(identity_token).cloned()
    }

    /// Whether the password is the account's.
    pub(crate) fn knows(&self, user: &str, password: &str) -> bool {
        self.accounts.get(user).is_some_and(|known| known == password)
    }

    pub(crate) fn make_private(&mut self, repository: &str) {
        self.repository(repository).access = Access::AnyAccount;
    }

    pub(crate) fn make_private_to(&mut self, repository: &str, user: &str) {
        let repository = self.repository(repository);
        match &mut repository.access {
            Access::Accounts(users) => {
                users.insert(user.to_owned());
            }
            access => *access = Access::Accounts(BTreeSet::from([user.to_owned()])),
        }
    }

    pub(crate) fn make_public(&mut self, repository: &str) {
        self.repository(repository).access = Access::Everyone;
    }

    pub(crate) fn has_repository(&self, repository: &str) -> bool {
        self.repositories.contains_key(repository)
    }

    /// Whether an account, or who has none, may read a repository; nobody may read one that is unknown.
    pub(crate) fn may_read(&self, repository: &str, account: Option<&str>) -> bool {
        self.repositories.get(repository).is_some_and(|repository| match &repository.access {
            Access::Everyone => true,
            Access::AnyAccount => account.is_some(),
            Access::Accounts(users) => account.is_some_and(|account| users.contains(account)),
        })
    }

    /// Returns the manifest that a tag or digest names in a repository.
    pub(crate) fn manifest(&self, repository: &str, reference: &str) -> Option<Arc<StoredManifest>> {
        let repository = self.repositories.get(repository)?;
        let digest = repository.tags.get(reference).map_or(reference, String::as_str);
        repository.manifests.get(digest).and_then(|digest| self.manifests.get(digest)).cloned()
    }

    /// Returns a blob that a repository has.
    pub(crate) fn blob(&self, repository: &str, digest: &str) -> Option<Arc<Blob>> {
        self.repositories.get(repository)?.blobs.get(digest).and_then(|digest| self.stored_blob(digest))
    }

    /// Returns a blob that the Hub has.
    pub(crate) fn stored_blob(&self, digest: &str) -> Option<Arc<Blob>> {
        self.blobs.get(digest).cloned()
    }

    /// Returns the tags of a repository in order.
    pub(crate) fn tags(&self, repository: &str) -> Vec<String> {
        self.repositories.get(repository).map(|r| r.tags.keys().cloned().collect()).unwrap_or_default()
    }

    /// Returns descriptors of the manifests of a repository whose subject is `digest`.
    pub(crate) fn referrers(&self, repository: &str, digest: &str) -> Vec<Value> {
        let Some(repository) = self.repositories.get(repository) else {
            return Vec::new();
        };
        let manifests = repository.manifests.iter().filter_map(|manifest| self.manifests.get(manifest));
        let referring = manifests.filter_map(|manifest| manifest.referrer.as_ref());
        referring.filter(|(subject, _)| subject == digest).map(|(_, descriptor)| descriptor.clone()).collect()
    }

    fn repository(&mut self, name: &str) -> &mut Repository {
        self.repositories.entry(name.to_owned()).or_default()
    }
}

/// Returns the digests of config, layers and manifests that a manifest names, of whatever schema.
fn named_digests(document: &Value) -> Vec<String> {
    let lists = ["layers", "manifests", "blobs", "fsLayers"];
    let listed = lists.iter().filter_map(|list| document[list].as_array()).flatten();
    let named = std::iter::once(&document["config"]).chain(listed);
    let digest =
        |named: &Value| named["digest"].as_str().or_else(|| named["blobSum"].as_str()).map(str::to_owned);
    named.filter_map(digest).collect()
}

/// Returns the subject of a manifest and how a list of referrers names it (distribution-spec, "Listing Referrers").
fn referrer(document: &Value, media_type: &str, digest: &str, size: usize) -> Option<(String, Value)> {
    let subject = document["subject"]["digest"].as_str()?;
    let artifact_type =
        document["artifactType"].as_str().or_else(|| document["config"]["mediaType"].as_str());
    let mut descriptor = json!({ "mediaType": media_type, "digest": digest, "size": size });
    if let Some(artifact_type) = artifact_type {
        descriptor["artifactType"] = json!(artifact_type);
    }
    if document["annotations"].is_object() {
        descriptor["annotations"] = document["annotations"].clone();
    }
    Some((subject.to_owned(), descriptor))
}
