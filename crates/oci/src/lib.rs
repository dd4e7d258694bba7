//! The vocabulary of the OCI distribution and image specifications, with Docker's older words where they are still
//! spoken.
//!
//! What comes over the wire is parsed here, once, into types that cannot hold anything else; past here a digest is
//! a digest. Every parser takes any input without panicking, in time linear in its length, and answers in words
//! that say what was wrong. Nothing here does IO, knows the time, or knows who asks.

mod challenge;
mod descriptor;
mod digest;
mod endpoint;
mod error_code;
mod excerpt;
mod link;
mod manifest;
mod media_type;
mod name;
mod page;
mod platform;
mod query;
mod range;
mod reference;
mod schema1;

pub use challenge::{CHALLENGES_MAX, Challenge, Scheme, parse_challenges};
pub use descriptor::Descriptor;
pub use digest::{Algorithm, Digest, DigestError, Hasher};
pub use endpoint::{Endpoint, EndpointError, PATH_BYTES_MAX, Target};
pub use error_code::{ErrorCode, REPORTED_ERRORS_MAX, ReportedError, error_body, parse_errors};
pub use link::{next_page, next_query};
pub use manifest::{Contents, DESCRIPTORS_MAX, MANIFEST_BYTES_MAX, Manifest, ManifestError};
pub use media_type::{
    ACCEPT_MANIFESTS, DOCKER_LIST, DOCKER_MANIFEST, DOCKER_SCHEMA1, DOCKER_SCHEMA1_SIGNED, MediaType,
    MediaTypeError, OCI_ARTIFACT, OCI_INDEX, OCI_MANIFEST, OCTET_STREAM,
};
pub use name::{NAME_BYTES_MAX, NameError, RepositoryName, TAG_BYTES_MAX, Tag, TagError};
pub use page::{N_MAX, Page};
pub use platform::Platform;
pub use query::QUERY_BYTES_MAX;
pub use range::{ContentRange, RANGES_MAX, Selection, Span, select};
pub use reference::{Reference, ReferenceError};
