//! From what went wrong to status, code and words: the one place that knows both.

use std::time::Duration;

use http::{HeaderValue, StatusCode};
use oci::{EndpointError, ErrorCode};

use crate::{
    access::Denied,
    cache,
    route::RouteError,
    source::{SourceError, SourceErrorKind},
};

/// When to come back where nobody said: soon, since clients give up after a few attempts.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// When to come back to a spent quota where the registry did not say.
const RETRY_AFTER_QUOTA: Duration = Duration::from_secs(60);
/// The longest a client is told to stay away from a registry that is down.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);

/// An answer that is an error.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) code: ErrorCode,
    pub(super) message: String,
    pub(super) retry_after: Option<Duration>,
    /// The size in bytes of the blob of which a range was asked for that it does not have.
    pub(super) size: Option<u64>,
    /// How the client can say who it is.
    pub(super) challenge: Option<HeaderValue>,
    /// The request's body was not read, so the connection cannot be used again.
    pub(super) close: bool,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            retry_after: None,
            size: None,
            challenge: None,
            close: false,
        }
    }

    /// A range that lies outside of a blob of `size` bytes.
    pub(super) fn range(size: u64) -> Self {
        let message = format!("the range lies outside of the blob, which has {size} bytes");
        let status = StatusCode::RANGE_NOT_SATISFIABLE;
        Self { size: Some(size), ..Self::new(status, ErrorCode::RangeInvalid, message) }
    }

    /// The cache did not answer in time.
    pub(super) fn late() -> Self {
        let message = "the registry did not answer in time";
        let retry_after = Some(RETRY_AFTER);
        Self { retry_after, ..Self::new(StatusCode::GATEWAY_TIMEOUT, ErrorCode::Unavailable, message) }
    }

    /// The operator has taken the mirror out of service.
    pub(super) fn down() -> Self {
        let message = "health check failed: please see /debug/health";
        let retry_after = Some(RETRY_AFTER);
        // The request's body, if it has one, was not looked for.
        Self {
            retry_after,
            close: true,
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unavailable, message)
        }
    }

    /// A request that has, or may have, a body: none of ours does, and it is not read.
    pub(super) fn body() -> Self {
        let message = "a pull has no body: content-length must be 0 and transfer-encoding absent";
        Self { close: true, ..Self::new(StatusCode::BAD_REQUEST, ErrorCode::Unsupported, message) }
    }

    /// Somebody who may not pull, and is told by `challenge` how to say who it is.
    pub(super) fn denied(denied: &Denied, challenge: Option<&HeaderValue>) -> Self {
        let message = denied.to_string();
        match denied {
            Denied::Busy { retry_after } => Self {
                retry_after: Some(*retry_after),
                ..Self::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unavailable, message)
            },
            Denied::Anonymous | Denied::Wrong => Self {
                challenge: challenge.cloned(),
                ..Self::new(StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized, message)
            },
        }
    }
}

impl From<EndpointError> for Refusal {
    fn from(error: EndpointError) -> Self {
        let status = match &error {
            EndpointError::Method { .. } => StatusCode::METHOD_NOT_ALLOWED,
            // The conformance suite asks for a tag that cannot be, and expects what it gets for one that is not there.
            EndpointError::NotFound | EndpointError::Tag(_) => StatusCode::NOT_FOUND,
            _ => StatusCode::BAD_REQUEST,
        };
        let close = matches!(error, EndpointError::Method { .. });
        Self { close, ..Self::new(status, error.code(), error.to_string()) }
    }
}

impl From<RouteError> for Refusal {
    fn from(error: RouteError) -> Self {
        Self::new(StatusCode::NOT_FOUND, ErrorCode::NameUnknown, error.to_string())
    }
}

/// What a request was about decides what "there is no such thing" is called.
#[derive(Clone, Copy)]
pub(super) enum About {
    Manifest,
    Blob,
    Repository,
    Referrers,
}

impl About {
    fn unknown(self) -> ErrorCode {
        match self {
            Self::Manifest | Self::Referrers => ErrorCode::ManifestUnknown,
            Self::Blob => ErrorCode::BlobUnknown,
            Self::Repository => ErrorCode::NameUnknown,
        }
    }
}

/// Turns the cache's failure into an answer.
pub(super) fn refusal(about: About, error: &cache::Error) -> Refusal {
    match error {
        cache::Error::Source(error) => of_source(about, error),
        cache::Error::Unknown(message) => Refusal::new(StatusCode::NOT_FOUND, about.unknown(), &**message),
        cache::Error::Abandoned | cache::Error::Internal(_) => {
            Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::Unknown, error.to_string())
        }
    }
}

fn of_source(about: About, error: &SourceError) -> Refusal {
    let soon = Some(error.retry_after.unwrap_or(RETRY_AFTER).min(RETRY_AFTER_MAX));
    let (status, code, retry_after) = match error.kind {
        SourceErrorKind::NotFound => (StatusCode::NOT_FOUND, about.unknown(), None),
        // 404 without NAME_UNKNOWN makes clients look for the tag that stands in for the endpoint.
        SourceErrorKind::Unsupported => (StatusCode::NOT_FOUND, ErrorCode::Unsupported, None),
        SourceErrorKind::Unauthorized => (StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized, None),
        SourceErrorKind::Denied => (StatusCode::FORBIDDEN, ErrorCode::Denied, None),
        SourceErrorKind::TooManyRequests => {
            let then = error.retry_after.unwrap_or(RETRY_AFTER_QUOTA);
            (StatusCode::TOO_MANY_REQUESTS, ErrorCode::TooManyRequests, Some(then))
        }
        // containerd tries 503 and 504 again where this mirror is its only host, and never 502.
        SourceErrorKind::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unavailable, soon),
        SourceErrorKind::Timeout => (StatusCode::GATEWAY_TIMEOUT, ErrorCode::Unavailable, soon),
        SourceErrorKind::BadAnswer | SourceErrorKind::WrongContent | SourceErrorKind::Refused => {
            (StatusCode::BAD_GATEWAY, ErrorCode::Unavailable, None)
        }
    };
    Refusal { retry_after, ..Refusal::new(status, code, error.to_string()) }
}
