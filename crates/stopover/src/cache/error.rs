//! Why the cache could not answer.

use std::sync::Arc;

use crate::source::{SourceError, SourceErrorKind};

/// Why the cache could not answer. Cheap to clone, since all who waited for one fetch get the same.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The source failed, and nothing cached may be served instead.
    #[error("{0}")]
    Source(Arc<SourceError>),
    /// There is no such content in the repository: so the registry said a moment ago, or the digest is one of another
    /// kind of content.
    #[error("{0}")]
    Unknown(Arc<str>),
    /// The fetch was given up since nobody waited for it.
    #[error("the fetch was given up, since nobody waited for it")]
    Abandoned,
    /// Something here broke that should not; the log says what.
    #[error("an internal task failed: {0}")]
    Internal(&'static str),
}

impl From<SourceError> for Error {
    fn from(error: SourceError) -> Self {
        Self::Source(Arc::new(error))
    }
}

impl Error {
    /// Returns whether the registry says that there is no such thing.
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::Source(error) if error.kind == SourceErrorKind::NotFound)
    }
}
