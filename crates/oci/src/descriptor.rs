//! Descriptors: what content is, by type, digest and size.

use crate::{Digest, MediaType};

/// A description of content (image-spec, descriptor.md), reduced to what a cache needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// What the content is.
    pub media_type: MediaType,
    /// What the content hashes to.
    pub digest: Digest,
    /// The size in bytes, as given; 0 also where the document does not say (Docker's schema 1).
    pub size: u64,
}
