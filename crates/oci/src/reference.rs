//! What stands after `/manifests/`: a tag or a digest.

use std::{fmt, str::FromStr};

use crate::{Digest, DigestError, Tag, TagError};

/// How a manifest is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reference {
    /// By a name that may move.
    Tag(Tag),
    /// By content.
    Digest(Digest),
}

impl FromStr for Reference {
    type Err = ReferenceError;

    /// Reads a digest where there is a colon, which no tag has, and a tag otherwise.
    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.contains(':') { Ok(Self::Digest(text.parse()?)) } else { Ok(Self::Tag(text.parse()?)) }
    }
}

impl TryFrom<&str> for Reference {
    type Error = ReferenceError;

    fn try_from(text: &str) -> Result<Self, ReferenceError> {
        text.parse()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => fmt::Display::fmt(tag, f),
            Self::Digest(digest) => fmt::Display::fmt(digest, f),
        }
    }
}

impl From<Tag> for Reference {
    fn from(tag: Tag) -> Self {
        Self::Tag(tag)
    }
}

impl From<Digest> for Reference {
    fn from(digest: Digest) -> Self {
        Self::Digest(digest)
    }
}

/// Text that is neither a tag nor a digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// It has no colon and is no tag.
    #[error(transparent)]
    Tag(#[from] TagError),
    /// It has a colon and is no digest.
    #[error(transparent)]
    Digest(#[from] DigestError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colon_decides_between_tag_and_digest() {
        let digest = Digest::of(crate::Algorithm::Sha256, b"");
        assert_eq!(digest.to_string().parse(), Ok(Reference::Digest(digest)));
        assert!(matches!("latest".parse(), Ok(Reference::Tag(tag)) if tag.as_str() == "latest"));
        assert!(matches!("sha256:bad".parse::<Reference>(), Err(ReferenceError::Digest(_))));
        assert!(matches!(".bad".parse::<Reference>(), Err(ReferenceError::Tag(_))));
        assert!(matches!("".parse::<Reference>(), Err(ReferenceError::Tag(TagError::Empty))));
    }

    #[test]
    fn a_reference_is_shown_as_it_was_written() {
        for text in ["3.20", "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"] {
            assert_eq!(text.parse::<Reference>().expect("valid").to_string(), text);
        }
    }
}
