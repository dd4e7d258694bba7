//! Which endpoint of the pull API a request is for (distribution spec, "Endpoints").
//!
//! What parsed here holds only checked names, digests and numbers: no `..`, no second round of decoding, nothing
//! that means something else to a filesystem or to an upstream. Which registry is meant, and what is stored, is
//! not known here.

use std::borrow::Cow;

use crate::{
    Digest, DigestError, ErrorCode, NameError, Page, Reference, ReferenceError, RepositoryName, TagError,
    excerpt::excerpt,
    query::{Query, decoded, parse_n},
};

/// The longest path that is read, in bytes.
pub const PATH_BYTES_MAX: usize = 2048;

/// What a request is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// The registry that the client means, as it said (`ns=docker.io`, sent by containerd and regclient to mirrors);
    /// visible ASCII, otherwise unchecked.
    pub ns: Option<String>,
}

/// An endpoint that can be asked by GET and HEAD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `/`, which is no part of the API.
    Root,
    /// `/v2/`, by which clients learn whether this is a registry.
    Version,
    /// `/v2/<name>/manifests/<reference>`
    Manifest {
        /// The repository.
        name: RepositoryName,
        /// The tag or digest.
        reference: Reference,
    },
    /// `/v2/<name>/blobs/<digest>`
    Blob {
        /// The repository.
        name: RepositoryName,
        /// The digest.
        digest: Digest,
    },
    /// `/v2/<name>/tags/list`
    Tags {
        /// The repository.
        name: RepositoryName,
        /// Which part of the list.
        page: Page,
    },
    /// `/v2/<name>/referrers/<digest>`
    Referrers {
        /// The repository.
        name: RepositoryName,
        /// What is referred to.
        digest: Digest,
        /// The only artifact type wanted.
        artifact_type: Option<String>,
    },
    /// `/v2/_catalog`
    Catalog,
}

impl Target {
    /// Reads a request's method, path and query, all as sent.
    pub fn parse(method: &str, path: &str, query: Option<&str>) -> Result<Self, EndpointError> {
        if !matches!(method, "GET" | "HEAD") {
            return Err(EndpointError::Method { method: excerpt(method) });
        }
        check_path(path)?;
        let query =
            Query::parse(query.unwrap_or_default()).map_err(|reason| EndpointError::Query { reason })?;
        let endpoint = match path {
            "/" => Endpoint::Root,
            "/v2" | "/v2/" => Endpoint::Version,
            "/v2/_catalog" => Endpoint::Catalog,
            _ => Endpoint::of_repository(path, &query)?,
        };
        let ns = decoded(query.ns).map_err(|reason| EndpointError::Query { reason })?;
        Ok(Self { endpoint, ns })
    }
}

impl Endpoint {
    /// Reads `/v2/<name>/<kind>/<last>`. A name may hold any of the kinds as a component (`a/blobs/b`), while
    /// nothing that follows a kind may hold a slash, so the path is read from its end.
    fn of_repository(path: &str, query: &Query<'_>) -> Result<Self, EndpointError> {
        let rest = path.strip_prefix("/v2/").ok_or(EndpointError::NotFound)?;
        let (rest, last) = rest.rsplit_once('/').ok_or(EndpointError::NotFound)?;
        let (name, kind) = rest.rsplit_once('/').ok_or(EndpointError::NotFound)?;
        let last = decode_colon(last);
        match (kind, last.as_ref()) {
            ("manifests", reference) => {
                Ok(Self::Manifest { name: name.parse()?, reference: reference.parse()? })
            }
            ("blobs", digest) => Ok(Self::Blob { name: name.parse()?, digest: digest.parse()? }),
            ("tags", "list") => Ok(Self::Tags { name: name.parse()?, page: page(query)? }),
            ("referrers", digest) => Ok(Self::Referrers {
                name: name.parse()?,
                digest: digest.parse()?,
                artifact_type: decoded(query.artifact_type())
                    .map_err(|reason| EndpointError::Query { reason })?,
            }),
            _ => Err(EndpointError::NotFound),
        }
    }
}

fn page(query: &Query<'_>) -> Result<Page, EndpointError> {
    let n = match query.n {
        None => None,
        Some(n) => Some(parse_n(n).ok_or_else(|| EndpointError::Pagination { shown: excerpt(n) })?),
    };
    let last = decoded(query.last).map_err(|reason| EndpointError::Query { reason })?;
    Ok(Page { n, last })
}

/// Refuses whatever could be read in two ways. The last segment may hold `%3A`, since some clients escape the colon
/// of a digest; no other escape is needed for any valid path.
fn check_path(path: &str) -> Result<(), EndpointError> {
    let refuse = |reason| Err(EndpointError::Path { reason });
    if path.len() > PATH_BYTES_MAX {
        return refuse("is longer than 2048 bytes");
    }
    let Some(segments) = path.strip_prefix('/') else {
        return refuse("does not start with \"/\"");
    };
    if !path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\') {
        return refuse("holds characters other than visible ASCII, or a backslash");
    }
    let mut segments = segments.split('/').peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "" if !is_last => return refuse("holds an empty segment"),
            "." | ".." => return refuse("holds a \".\" or \"..\" segment"),
            _ if holds_escape(segment, is_last) => {
                return refuse("holds an escape other than %3A in its last segment");
            }
            _ => {}
        }
    }
    Ok(())
}

fn holds_escape(segment: &str, colon_allowed: bool) -> bool {
    segment.contains('%')
        && !(colon_allowed
            && segment.split('%').skip(1).all(|part| part.starts_with("3A") || part.starts_with("3a")))
}

fn decode_colon(segment: &str) -> Cow<'_, str> {
    if segment.contains('%') {
        Cow::Owned(segment.replace("%3A", ":").replace("%3a", ":"))
    } else {
        Cow::Borrowed(segment)
    }
}

/// A request that is not one of the pull API's. All are the client's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// The method is neither GET nor HEAD.
    #[error("method \"{method}\" is not supported: this registry is read-only, expected GET or HEAD")]
    Method {
        /// The method, shortened.
        method: String,
    },
    /// The path could be read in two ways, or is too long.
    #[error("path {reason}")]
    Path {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The query cannot be read.
    #[error("query {reason}")]
    Query {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// `n` is not a number of entries.
    #[error("query has n=\"{shown}\": expected a non-negative number")]
    Pagination {
        /// The value, shortened.
        shown: String,
    },
    /// The name of the repository is malformed.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The tag is malformed.
    #[error(transparent)]
    Tag(TagError),
    /// The digest is malformed.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// There is no such endpoint.
    #[error(
        "no such endpoint: expected /v2/, or /v2/<name>/ followed by manifests/<reference>, blobs/<digest>, \
         tags/list or referrers/<digest>"
    )]
    NotFound,
}

impl EndpointError {
    /// Returns the code to report it by.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Method { .. } | Self::Query { .. } | Self::NotFound => ErrorCode::Unsupported,
            Self::Path { .. } | Self::Name(_) => ErrorCode::NameInvalid,
            Self::Pagination { .. } => ErrorCode::PaginationNumberInvalid,
            Self::Tag(_) => ErrorCode::TagInvalid,
            Self::Digest(_) => ErrorCode::DigestInvalid,
        }
    }
}

impl From<ReferenceError> for EndpointError {
    fn from(error: ReferenceError) -> Self {
        match error {
            ReferenceError::Tag(error) => Self::Tag(error),
            ReferenceError::Digest(error) => Self::Digest(error),
        }
    }
}

#[cfg(test)]
mod tests;
