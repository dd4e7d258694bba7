//! Manifests as they came, and what they name.
//!
//! The bytes are kept as sent and never written anew: they are what the digest is of. What is read out of them is
//! the media type, by rules that let no document be taken for two things (CVE-2021-41190), and the digests of what
//! it names. Whether those are stored, or may be seen, is not known here.

use bytes::Bytes;
use serde::{Deserialize, de::IgnoredAny};

use crate::{
    Algorithm, DOCKER_MANIFEST, Descriptor, Digest, DigestError, MediaType, OCI_ARTIFACT, OCI_MANIFEST,
    excerpt::excerpt, media_type, schema1,
};

/// The largest manifest that is taken, in bytes; the spec's advice, and the limit of containerd.
pub const MANIFEST_BYTES_MAX: u64 = 4 << 20;

/// The config of Docker's images, which tells theirs from OCI's where a manifest does not.
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// The most descriptors that one manifest may hold.
pub const DESCRIPTORS_MAX: usize = 4096;

/// A manifest or index: the bytes as sent, and what they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The media type, the digest and the size of `bytes`.
    pub descriptor: Descriptor,
    /// The document as sent.
    pub bytes: Bytes,
}

/// What a manifest names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// The manifests of an index.
    pub manifests: Vec<Descriptor>,
    /// Config and layers, in the document's order. Layers to be had from elsewhere (`urls` and a foreign or
    /// nondistributable type) are left out. Blobs of Docker's schema 1 have size 0, since it names none.
    pub blobs: Vec<Descriptor>,
    /// The digest of the config, which stands first among the blobs; Docker's schema 1 has none.
    pub config: Option<Digest>,
    /// The layers that are to be had from elsewhere, which a registry may have all the same.
    pub foreign: Vec<Descriptor>,
    /// The manifest that this one refers to.
    pub subject: Option<Descriptor>,
    /// The artifact type as a list of referrers has it: `artifactType`, else the config's media type.
    pub artifact_type: Option<String>,
}

impl Manifest {
    /// Returns the manifest in the answer of a registry: hashes `bytes` and finds out the media type.
    ///
    /// The content type and the document's own `mediaType` must agree. A content type that says nothing (none,
    /// `application/json`, `application/octet-stream`, `text/plain`) gives way to the `mediaType`, and that, where
    /// missing, to the document's shape.
    ///
    /// The digest of a signed manifest of Docker's schema 1 is that of what was signed, without the signatures.
    pub fn from_answer(
        content_type: Option<&str>,
        bytes: Bytes,
        algorithm: Algorithm,
    ) -> Result<Self, ManifestError> {
        let size = bytes.len() as u64;
        if size > MANIFEST_BYTES_MAX {
            return Err(ManifestError::TooLarge { size });
        }
        // Serde would take an array for a struct as well.
        if bytes.trim_ascii_start().first() != Some(&b'{') {
            return Err(ManifestError::NotAnObject {
                shown: excerpt(&String::from_utf8_lossy(head(&bytes))),
            });
        }
        let shape: Shape = serde_json::from_slice(&bytes).map_err(malformed)?;
        let media_type = shape.media_type(declared(content_type))?;
        shape.check(&media_type)?;
        let signed = if media_type.is_signed() { schema1::payload(&bytes) } else { None };
        let digest = Digest::of(algorithm, signed.as_deref().unwrap_or(&bytes));
        Ok(Self { descriptor: Descriptor { media_type, digest, size }, bytes })
    }

    /// Returns whether the document tells its media type itself, so that it needs nobody to remember it.
    pub fn says_its_type(&self) -> bool {
        #[derive(Deserialize)]
        struct Says {
            #[serde(rename = "mediaType")]
            media_type: Option<String>,
        }
        serde_json::from_slice::<Says>(&self.bytes)
            .is_ok_and(|says| says.media_type.is_some_and(|text| !text.is_empty()))
    }

    /// Returns what the manifest names.
    ///
    /// A document of an unknown media type that is not built like a manifest names nothing.
    pub fn contents(&self) -> Result<Contents, ManifestError> {
        let media_type = &self.descriptor.media_type;
        match serde_json::from_slice::<Document<'_>>(&self.bytes) {
            Ok(document) => document.contents(),
            Err(_) if !is_known(media_type) => Ok(Contents::default()),
            Err(error) => Err(malformed(error)),
        }
    }
}

/// Returns the beginning of a document, enough to tell an error page by.
fn head(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(100)]
}

/// The message is shortened since it may repeat a value of the document, of any length.
fn malformed(error: serde_json::Error) -> ManifestError {
    let (line, column) = (error.line(), error.column());
    ManifestError::Malformed { shown: excerpt(&error.to_string()), line, column }
}

/// Returns the media type that a content type declares, if it says anything.
fn declared(content_type: Option<&str>) -> Option<MediaType> {
    let media_type: MediaType = content_type?.parse().ok()?;
    (!media_type.is_vague()).then_some(media_type)
}

fn is_image(media_type: &MediaType) -> bool {
    matches!(media_type.as_str(), OCI_MANIFEST | DOCKER_MANIFEST)
}

fn is_known(media_type: &MediaType) -> bool {
    let schema1 = [MediaType::docker_schema1(true), MediaType::docker_schema1(false)];
    media_type.is_index()
        || is_image(media_type)
        || schema1.contains(media_type)
        || media_type.as_str() == OCI_ARTIFACT
}

/// Which of the telling fields a document has. A field given twice is an error, so that no other reader can see
/// another document than this one; a `null` counts as missing.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    schema_version: Option<serde_json::Value>,
    media_type: Option<String>,
    manifests: Option<IgnoredAny>,
    config: Option<Config>,
    layers: Option<IgnoredAny>,
    fs_layers: Option<IgnoredAny>,
    signatures: Option<IgnoredAny>,
}

/// The type of a manifest's config, if the document has it where it should: whatever else stands there is for
/// [`Document`] to judge.
#[derive(Deserialize)]
#[serde(from = "serde_json::Value")]
struct Config {
    media_type: Option<String>,
}

impl From<serde_json::Value> for Config {
    fn from(config: serde_json::Value) -> Self {
        Self { media_type: config.get("mediaType").and_then(|text| text.as_str()).map(str::to_owned) }
    }
}

impl Shape {
    fn media_type(&self, declared: Option<MediaType>) -> Result<MediaType, ManifestError> {
        let own = match self.media_type.as_deref() {
            None | Some("") => None,
            Some(text) => Some(text.parse::<MediaType>()?),
        };
        match (declared, own) {
            (Some(declared), Some(own)) if declared != own => {
                Err(ManifestError::MediaTypes { declared, own })
            }
            (Some(media_type), _) | (None, Some(media_type)) => Ok(media_type),
            (None, None) => self.sniff().ok_or(ManifestError::UnknownShape),
        }
    }

    fn sniff(&self) -> Option<MediaType> {
        let version = self.schema_version.as_ref().and_then(|version| version.as_u64());
        if version == Some(1) {
            Some(MediaType::docker_schema1(self.signatures.is_some()))
        } else if self.manifests.is_some() {
            Some(MediaType::oci_index())
        } else if let (Some(config), Some(_)) = (&self.config, &self.layers) {
            let is_docker = config.media_type.as_deref() == Some(DOCKER_CONFIG);
            Some(if is_docker { MediaType::docker_manifest() } else { MediaType::oci_manifest() })
        } else {
            None
        }
    }

    /// Refuses a document that one reader takes for an index and another for an image.
    fn check(&self, media_type: &MediaType) -> Result<(), ManifestError> {
        let index = self.manifests.is_some();
        let image = self.config.is_some() || self.layers.is_some() || self.fs_layers.is_some();
        if index && image {
            return Err(ManifestError::Ambiguous);
        }
        if (index && is_image(media_type)) || (image && media_type.is_index()) {
            return Err(ManifestError::Shape { media_type: media_type.clone() });
        }
        Ok(())
    }
}

/// The fields of all kinds of manifests that name something.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    artifact_type: Option<String>,
    #[serde(borrow)]
    manifests: Option<Vec<Child<'a>>>,
    config: Option<Child<'a>>,
    layers: Option<Vec<Child<'a>>>,
    /// Of the OCI artifact manifest.
    blobs: Option<Vec<Child<'a>>>,
    subject: Option<Child<'a>>,
    /// Of Docker's schema 1.
    fs_layers: Option<Vec<FsLayer<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Child<'a> {
    media_type: Option<String>,
    #[serde(borrow)]
    digest: std::borrow::Cow<'a, str>,
    size: Option<u64>,
    urls: Option<Vec<IgnoredAny>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FsLayer<'a> {
    #[serde(borrow)]
    blob_sum: std::borrow::Cow<'a, str>,
}

impl Document<'_> {
    fn contents(self) -> Result<Contents, ManifestError> {
        let lists = [&self.manifests, &self.layers, &self.blobs];
        let listed: usize = lists.into_iter().map(|list| list.as_ref().map_or(0, Vec::len)).sum();
        let count = listed
            + self.fs_layers.as_ref().map_or(0, Vec::len)
            + usize::from(self.config.is_some())
            + usize::from(self.subject.is_some());
        if count > DESCRIPTORS_MAX {
            return Err(ManifestError::TooMany { count });
        }
        let config_type = self.config.as_ref().and_then(|config| config.media_type.clone());
        let artifact_type =
            [self.artifact_type, config_type].into_iter().flatten().find(|text| !text.is_empty());

        let config = self.config.as_ref().and_then(|config| config.digest.parse().ok());
        let manifests = self.manifests.iter().flatten().map(Child::descriptor).collect::<Result<_, _>>()?;
        let blobs = self.config.iter();
        let blobs = blobs.chain(self.layers.iter().flatten()).chain(self.blobs.iter().flatten());
        let (foreign, blobs): (Vec<_>, Vec<_>) = blobs.partition(|child| child.is_foreign());
        let blobs = blobs.into_iter().map(Child::descriptor);
        let fs_layers = self.fs_layers.iter().flatten().map(FsLayer::descriptor);
        Ok(Contents {
            manifests,
            blobs: blobs.chain(fs_layers).collect::<Result<_, _>>()?,
            config,
            foreign: foreign.into_iter().filter_map(|child| child.descriptor().ok()).collect(),
            subject: self.subject.as_ref().map(Child::descriptor).transpose()?,
            artifact_type,
        })
    }
}

impl Child<'_> {
    /// Returns the descriptor; a media type that is missing or cannot be read becomes octet-stream, a missing size 0.
    fn descriptor(&self) -> Result<Descriptor, ManifestError> {
        let media_type = self.media_type.as_deref().and_then(|text| text.parse().ok());
        Ok(Descriptor {
            media_type: media_type.unwrap_or_else(MediaType::octet_stream),
            digest: self.digest.parse()?,
            size: self.size.unwrap_or_default(),
        })
    }

    /// Tells whether the content is to be had from `urls` rather than from the registry.
    fn is_foreign(&self) -> bool {
        let media_type = self.media_type.as_deref().unwrap_or_default();
        media_type::is_foreign(media_type) && self.urls.as_ref().is_some_and(|urls| !urls.is_empty())
    }
}

impl FsLayer<'_> {
    fn descriptor(&self) -> Result<Descriptor, ManifestError> {
        Ok(Descriptor { media_type: MediaType::octet_stream(), digest: self.blob_sum.parse()?, size: 0 })
    }
}

/// A document that cannot be taken for a manifest. All are the fault of the registry that sent it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// It is larger than [`MANIFEST_BYTES_MAX`].
    #[error("manifest has {size} bytes: expected at most {MANIFEST_BYTES_MAX}")]
    TooLarge {
        /// The size in bytes.
        size: u64,
    },
    /// It is something else than a JSON object, such as a login page.
    #[error("manifest is not a JSON object, it starts \"{shown}\"")]
    NotAnObject {
        /// How it starts.
        shown: String,
    },
    /// It is not JSON, holds a telling field twice, or a field that names something is not of the spec's form.
    #[error("manifest is malformed at line {line}, column {column}: {shown}")]
    Malformed {
        /// What the parser says, shortened.
        shown: String,
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
    },
    /// Its `mediaType` is not a media type.
    #[error("manifest has a bad mediaType: {0}")]
    MediaType(#[from] crate::MediaTypeError),
    /// Content type and `mediaType` do not agree.
    #[error("manifest came as {declared} but calls itself {own}")]
    MediaTypes {
        /// The content type.
        declared: MediaType,
        /// The document's `mediaType`.
        own: MediaType,
    },
    /// Nothing tells what it is.
    #[error("document has no media type and is not built like a manifest")]
    UnknownShape,
    /// It is an index and an image at once.
    #[error("manifest is ambiguous: it holds both manifests and layers or config")]
    Ambiguous,
    /// It is an index by type and an image by its fields, or the other way round.
    #[error("manifest came as {media_type} but holds the fields of another kind")]
    Shape {
        /// The media type.
        media_type: MediaType,
    },
    /// Something is named by a digest that is none.
    #[error("manifest names content by a bad digest: {0}")]
    Digest(#[from] DigestError),
    /// It names more than [`DESCRIPTORS_MAX`] things.
    #[error("manifest holds {count} descriptors: expected at most {DESCRIPTORS_MAX}")]
    TooMany {
        /// How many.
        count: usize,
    },
}

#[cfg(test)]
mod tests;
