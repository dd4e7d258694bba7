//! Content of every kind that registries hold today: images, artifacts, and what was left over from earlier times.
//!
//! Nothing here is made to run. It is made to be carried: each kind has something that a registry or a cache may trip
//! over, and its name says what. [`push_all`] gives a repository all of them, one tag each.

use bytes::Bytes;
use oci::{
    Algorithm, DOCKER_LIST, DOCKER_MANIFEST, Digest, MANIFEST_BYTES_MAX, OCI_ARTIFACT, OCI_INDEX,
    OCI_MANIFEST,
};
use serde_json::{Value, json};

use crate::{
    Hub,
    images::{self, Format, Image},
    layers,
};

mod artifact;
mod image;
mod schema1;

/// The config and layer of an artifact that needs none.
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const OCI_TAR: &str = "application/vnd.oci.image.layer.v1.tar";
const OCI_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Something that was pushed, whole or with holes, under a tag.
#[derive(Clone, Debug)]
pub struct Content {
    /// What is special about it; also its tag, unless the kind is about the tag.
    pub name: &'static str,
    /// The tag.
    pub tag: String,
    /// Its manifests; the last is what the tag names.
    pub manifests: Vec<Pushed>,
    /// Its configs and layers.
    pub blobs: Vec<(Digest, Bytes)>,
    /// What its manifests name and the registry does not have.
    pub absent: Vec<Digest>,
}

/// A manifest as it was pushed.
#[derive(Clone, Debug)]
pub struct Pushed {
    /// What it is called.
    pub digest: Digest,
    /// The `Content-Type` that it was pushed with.
    pub media_type: String,
    /// Its bytes.
    pub bytes: Bytes,
}

impl Content {
    /// Returns what the tag names.
    ///
    /// # Panics
    ///
    /// Never: no kind is without a manifest.
    pub fn top(&self) -> &Pushed {
        self.manifests.last().expect("every kind has a manifest")
    }
}

/// Pushes one of each kind to a repository.
pub fn push_all(hub: &Hub, repository: &str) -> Vec<Content> {
    let kinds = image::KINDS.iter().chain(artifact::KINDS).chain(schema1::KINDS);
    kinds.map(|(name, make)| push_one(hub, repository, name, *make)).collect()
}

/// The same, beside a plain image under `tag`, which is returned.
pub(crate) fn push_all_with_image(hub: &Hub, repository: &str, tag: &str) -> Image {
    push_all(hub, repository);
    images::busybox(hub, repository, tag, Format::OciIndex)
}

/// How a kind is made: pushes what it is made of and returns the manifest that its tag is to name.
type Make = fn(&mut Pusher<'_>) -> Digest;

fn push_one(hub: &Hub, repository: &str, name: &'static str, make: Make) -> Content {
    let content =
        Content { name, tag: name.to_owned(), manifests: Vec::new(), blobs: Vec::new(), absent: Vec::new() };
    let mut pusher = Pusher { hub, repository, content };
    let top = make(&mut pusher);
    hub.tag(repository, &pusher.content.tag, &top);
    pusher.content
}

/// Pushes the parts of one kind, and keeps what they were.
struct Pusher<'a> {
    hub: &'a Hub,
    repository: &'a str,
    content: Content,
}

impl Pusher<'_> {
    /// Pushes a blob; returns its descriptor.
    fn blob(&mut self, media_type: &str, bytes: impl Into<Bytes>) -> Value {
        self.blob_by(Algorithm::Sha256, media_type, bytes)
    }

    fn blob_by(&mut self, algorithm: Algorithm, media_type: &str, bytes: impl Into<Bytes>) -> Value {
        let bytes = bytes.into();
        let digest = self.hub.push_blob_by(algorithm, bytes.clone());
        let size = bytes.len();
        if !self.content.blobs.iter().any(|(known, _)| *known == digest) {
            self.content.blobs.push((digest, bytes));
        }
        json!({ "mediaType": media_type, "digest": digest, "size": size })
    }

    /// Describes a blob that is not pushed.
    fn absent(&mut self, media_type: &str, made_of: &str) -> Value {
        let digest = Digest::of(Algorithm::Sha256, made_of.as_bytes());
        self.content.absent.push(digest);
        json!({ "mediaType": media_type, "digest": digest, "size": made_of.len() })
    }

    /// Pushes a manifest; returns its descriptor.
    fn manifest(&mut self, media_type: &str, document: &Value) -> Value {
        self.manifest_by(Algorithm::Sha256, media_type, document.to_string())
    }

    fn manifest_by(&mut self, algorithm: Algorithm, media_type: &str, bytes: impl Into<Bytes>) -> Value {
        let bytes = bytes.into();
        let digest = Digest::of(algorithm, &bytes);
        self.manifest_as(digest, media_type, bytes)
    }

    fn manifest_as(&mut self, digest: Digest, media_type: &str, bytes: Bytes) -> Value {
        self.hub.push_manifest_as(&digest, self.repository, media_type, &bytes, &[]);
        let size = bytes.len();
        self.content.manifests.push(Pushed { digest, media_type: media_type.to_owned(), bytes });
        json!({ "mediaType": media_type, "digest": digest, "size": size })
    }

    /// Pushes an OCI image for a platform; `made_of` makes it another one.
    fn image(&mut self, architecture: &str, made_of: &str) -> Value {
        let layer = self.gzip_layer(made_of);
        let config = self.config(architecture, made_of);
        let manifest = image_manifest(&config, &[layer]);
        let mut descriptor = self.manifest(OCI_MANIFEST, &manifest);
        descriptor["platform"] = json!({ "os": "linux", "architecture": architecture });
        descriptor
    }

    fn config(&mut self, architecture: &str, made_of: &str) -> Value {
        let config = json!({
            "os": "linux", "architecture": architecture, "author": made_of,
            "rootfs": { "type": "layers", "diff_ids": [] },
        });
        self.blob(OCI_CONFIG, config.to_string())
    }

    fn gzip_layer(&mut self, made_of: &str) -> Value {
        let layer = layers::of_file("etc/kind", made_of).blob;
        let bytes: Vec<u8> = layer.pieces().flatten().collect();
        self.blob(OCI_GZIP, bytes)
    }

    fn empty(&mut self) -> Value {
        self.blob(EMPTY, Bytes::from_static(b"{}"))
    }
}

fn image_manifest(config: &Value, layers: &[Value]) -> Value {
    json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers })
}

fn index_of(manifests: &[Value]) -> Value {
    json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests })
}

/// Returns the digest in a descriptor.
fn digest_of(descriptor: &Value) -> Digest {
    let text = descriptor["digest"].as_str().expect("a descriptor has a digest");
    text.parse().expect("it was made from one")
}
