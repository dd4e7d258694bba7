//! Media types of manifests, and the `Accept` list that asks for every one of them.
//!
//! A [`MediaType`] holds no parameters and only visible ASCII, so it may stand in a header as it is.

use std::{fmt, str::FromStr, sync::Arc};

use crate::excerpt::excerpt;

/// An index of the OCI image spec.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// An image manifest of the OCI image spec.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The artifact manifest that was in release candidates of OCI 1.1.
pub const OCI_ARTIFACT: &str = "application/vnd.oci.artifact.manifest.v1+json";
/// Docker's manifest list, the ancestor of the index.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker's image manifest, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's image manifest, schema 1, signed.
pub const DOCKER_SCHEMA1_SIGNED: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";
/// Docker's image manifest, schema 1, unsigned.
pub const DOCKER_SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+json";
/// Bytes of which nothing is said.
pub const OCTET_STREAM: &str = "application/octet-stream";

/// The value of `Accept` for manifests: all types there are, whatever the client asked for, since one answer is
/// kept for all clients.
pub const ACCEPT_MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.docker.distribution.manifest.v1+prettyjws, \
     application/vnd.docker.distribution.manifest.v1+json, \
     application/vnd.oci.artifact.manifest.v1+json, */*";

/// The longest media type, in bytes (RFC 6838 allows 127 + 1 + 127).
const MEDIA_TYPE_BYTES_MAX: usize = 255;

const KNOWN: [&str; 8] = [
    OCI_INDEX,
    OCI_MANIFEST,
    OCI_ARTIFACT,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    DOCKER_SCHEMA1_SIGNED,
    DOCKER_SCHEMA1,
    OCTET_STREAM,
];

/// A media type without parameters.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct MediaType(Text);

/// The text is `Known` whenever it is one of [`KNOWN`], so derived equality is equality of the text.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Text {
    Known(&'static str),
    Other(Arc<str>),
}

impl MediaType {
    /// Returns [`OCI_INDEX`].
    pub fn oci_index() -> Self {
        Self(Text::Known(OCI_INDEX))
    }

    /// Returns [`OCI_MANIFEST`].
    pub fn oci_manifest() -> Self {
        Self(Text::Known(OCI_MANIFEST))
    }

    /// Returns [`DOCKER_LIST`].
    pub fn docker_list() -> Self {
        Self(Text::Known(DOCKER_LIST))
    }

    /// Returns [`DOCKER_MANIFEST`].
    pub fn docker_manifest() -> Self {
        Self(Text::Known(DOCKER_MANIFEST))
    }

    /// Returns [`DOCKER_SCHEMA1`], or [`DOCKER_SCHEMA1_SIGNED`] where `signed`.
    pub(crate) fn docker_schema1(signed: bool) -> Self {
        Self(Text::Known(if signed { DOCKER_SCHEMA1_SIGNED } else { DOCKER_SCHEMA1 }))
    }

    /// Returns [`OCTET_STREAM`].
    pub fn octet_stream() -> Self {
        Self(Text::Known(OCTET_STREAM))
    }

    /// Returns the media type as text.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Text::Known(text) => text,
            Text::Other(text) => text,
        }
    }

    /// Tells whether this says nothing of what the bytes are, as registries send it that do not know themselves.
    pub fn is_vague(&self) -> bool {
        let vague = ["application/json", OCTET_STREAM, "binary/octet-stream", "text/plain"];
        vague.iter().any(|vague| self.as_str().eq_ignore_ascii_case(vague))
    }

    /// Tells whether this is a signed manifest of Docker's schema 1, whose digest is not that of its bytes.
    pub fn is_signed(&self) -> bool {
        self.as_str() == DOCKER_SCHEMA1_SIGNED
    }

    /// Tells whether this is a list of manifests, one for each platform: OCI's or Docker's.
    pub fn is_index(&self) -> bool {
        matches!(self.as_str(), OCI_INDEX | DOCKER_LIST)
    }

    /// Tells whether this is a layer that registries need not have, since it may not be handed on: Windows' bases.
    pub fn is_foreign(&self) -> bool {
        is_foreign(self.as_str())
    }
}

pub(crate) fn is_foreign(media_type: &str) -> bool {
    media_type.contains(".foreign.") || media_type.contains(".nondistributable.")
}

impl FromStr for MediaType {
    type Err = MediaTypeError;

    /// Reads the value of a `Content-Type` header or of a `mediaType` field; parameters are dropped.
    fn from_str(text: &str) -> Result<Self, MediaTypeError> {
        let essence = text.split(';').next().unwrap_or_default().trim();
        if let Some(known) = KNOWN.iter().find(|known| **known == essence) {
            return Ok(Self(Text::Known(known)));
        }
        if essence.is_empty() {
            return Err(MediaTypeError::Empty);
        }
        if essence.len() > MEDIA_TYPE_BYTES_MAX {
            return Err(MediaTypeError::TooLong { shown: excerpt(essence), bytes: essence.len() });
        }
        if !essence.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(MediaTypeError::Character { shown: excerpt(essence) });
        }
        Ok(Self(Text::Other(essence.into())))
    }
}

impl TryFrom<&str> for MediaType {
    type Error = MediaTypeError;

    fn try_from(text: &str) -> Result<Self, MediaTypeError> {
        text.parse()
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Text that is not a media type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MediaTypeError {
    /// There is nothing.
    #[error("media type is empty")]
    Empty,
    /// It is longer than 255 bytes.
    #[error("media type \"{shown}\" has {bytes} bytes: expected at most {MEDIA_TYPE_BYTES_MAX}")]
    TooLong {
        /// The beginning of the text.
        shown: String,
        /// Its length in bytes.
        bytes: usize,
    },
    /// It holds spaces, control characters or anything beyond ASCII.
    #[error("media type \"{shown}\" holds characters other than visible ASCII")]
    Character {
        /// The beginning of the text.
        shown: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_and_spaces_are_dropped() {
        for text in [OCI_INDEX, " application/vnd.oci.image.index.v1+json ; charset=utf-8"] {
            let media_type: MediaType = text.parse().expect("valid");
            assert_eq!(media_type, MediaType::oci_index());
            assert_eq!(media_type.to_string(), OCI_INDEX);
        }
    }

    #[test]
    fn what_cannot_stand_in_a_header_is_refused() {
        assert_eq!("".parse::<MediaType>(), Err(MediaTypeError::Empty));
        assert_eq!(" ;charset=utf-8".parse::<MediaType>(), Err(MediaTypeError::Empty));
        for text in ["a/b\r\nSet-Cookie: x", "a b/c", "a/\u{e9}", "a/\0"] {
            assert!(matches!(text.parse::<MediaType>(), Err(MediaTypeError::Character { .. })), "{text:?}");
        }
        let long = format!("a/{}", "x".repeat(253));
        assert!(long.parse::<MediaType>().is_ok());
        assert!(matches!(format!("{long}x").parse::<MediaType>(), Err(MediaTypeError::TooLong { .. })));
    }

    #[test]
    fn only_lists_of_manifests_are_indexes() {
        for known in KNOWN {
            let media_type: MediaType = known.parse().expect("valid");
            assert_eq!(media_type.is_index(), [OCI_INDEX, DOCKER_LIST].contains(&known), "{known}");
        }
    }

    #[test]
    fn the_accept_list_names_every_manifest_type_once() {
        let mut listed: Vec<_> = ACCEPT_MANIFESTS.split(", ").collect();
        assert_eq!(listed.pop(), Some("*/*"));
        let mut wanted: Vec<_> = KNOWN.into_iter().filter(|known| *known != OCTET_STREAM).collect();
        listed.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(listed, wanted);
    }
}
