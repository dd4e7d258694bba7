//! What goes wrong with one try, said in the words of [`SourceError`], and whether another try may help.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::StatusCode;
use oci::{ErrorCode, ReportedError, parse_errors};

use crate::{
    egress::{EgressError, EgressErrorKind},
    source::{SourceError, SourceErrorKind},
};

/// How much of a registry's own message is repeated, in characters.
const MESSAGE_CHARS_MAX: usize = 200;

/// What a failed try says of the lane that it went by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// Nothing: by another it would fail as well.
    Request,
    /// The way out may be to blame.
    Way,
    /// The registry wants fewer requests this way.
    TooMany,
    /// Another account may be let in, or see more.
    Holder,
    /// The account itself was refused.
    Login,
    /// There is nothing now to prove the account by.
    Unproved,
}

/// A try that failed.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) error: SourceError,
    /// Whether the same request may succeed in a moment.
    pub(super) may_pass: bool,
    /// Whether the registry itself said that it is not well.
    pub(super) is_illness: bool,
    pub(super) cause: Cause,
}

impl Failure {
    /// A failure that another try will not cure.
    pub(super) fn lasting(registry: &Arc<str>, kind: SourceErrorKind, message: impl Into<String>) -> Self {
        Self {
            error: SourceError::new(Arc::clone(registry), kind, message),
            may_pass: false,
            is_illness: false,
            cause: Cause::Request,
        }
    }

    /// A failure on the way to whoever was asked.
    pub(super) fn of_way(registry: &Arc<str>, error: EgressError) -> Self {
        use EgressErrorKind as Way;
        let (kind, may_pass) = match error.kind {
            Way::Forbidden => (SourceErrorKind::Refused, false),
            Way::Connect | Way::Broken => (SourceErrorKind::Unavailable, true),
            Way::ConnectTimeout => (SourceErrorKind::Timeout, true),
            Way::Tls | Way::Untrusted => (SourceErrorKind::Unavailable, false),
            Way::Timeout => (SourceErrorKind::Timeout, false),
            Way::Malformed => (SourceErrorKind::BadAnswer, false),
        };
        let message = match error.kind {
            Way::Untrusted => format!(
                "{}; if it is right, name a file with the certificate of its authority in `upstream.ca`",
                error.message
            ),
            _ => error.message,
        };
        let cause = match error.kind {
            Way::Forbidden | Way::Malformed => Cause::Request,
            _ => Cause::Way,
        };
        Self { may_pass, cause, ..Self::lasting(registry, kind, message) }
    }

    /// A failure on the way to where the registry redirected: it may redirect elsewhere next time.
    pub(super) fn of_storage(registry: &Arc<str>, error: EgressError) -> Self {
        let is_of_there = matches!(
            error.kind,
            EgressErrorKind::Tls | EgressErrorKind::Untrusted | EgressErrorKind::Timeout
        );
        let failure = Self::of_way(registry, error);
        Self { may_pass: failure.may_pass || is_of_there, ..failure }
    }

    /// What an answer says that is final.
    pub(super) fn said(error: SourceError) -> Self {
        let cause = match error.kind {
            SourceErrorKind::Unauthorized | SourceErrorKind::Denied => Cause::Holder,
            SourceErrorKind::TooManyRequests => Cause::TooMany,
            _ => Cause::Request,
        };
        Self { error, may_pass: false, is_illness: false, cause }
    }

    /// Says when it makes sense to ask again.
    pub(super) fn after(mut self, wait: Option<Duration>) -> Self {
        self.error.retry_after = wait;
        self
    }
}

/// Returns the error that an answer of this status and body stands for; `what` completes "the answer to ...".
pub(super) fn of_status(registry: &Arc<str>, what: &str, status: StatusCode, body: &Bytes) -> SourceError {
    let reported = parse_errors(body);
    let unknown = |code| {
        use ErrorCode as Code;
        matches!(code, Code::NameUnknown | Code::ManifestUnknown | Code::BlobUnknown | Code::NameInvalid)
    };
    let names_unknown = reported.iter().filter_map(|error| ErrorCode::parse(&error.code)).any(unknown);
    let kind = match status.as_u16() {
        404 | 410 => SourceErrorKind::NotFound,
        400 if names_unknown => SourceErrorKind::NotFound,
        401 => SourceErrorKind::Unauthorized,
        403 | 451 => SourceErrorKind::Denied,
        405 | 501 => SourceErrorKind::Unsupported,
        408 => SourceErrorKind::Timeout,
        429 => SourceErrorKind::TooManyRequests,
        500..=599 => SourceErrorKind::Unavailable,
        _ => SourceErrorKind::BadAnswer,
    };
    let said = reported.first().map(said).unwrap_or_default();
    SourceError::new(Arc::clone(registry), kind, format!("the answer to {what} is {status}{said}"))
}

fn said(error: &ReportedError) -> String {
    let message: String = error.message.chars().take(MESSAGE_CHARS_MAX).collect();
    match (error.code.as_str(), message.as_str()) {
        ("", "") => String::new(),
        (code, "") => format!(" ({code})"),
        ("", message) => format!(" ({message})"),
        (code, message) => format!(" ({code}: {message})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_becomes_an_error_of_one_kind() {
        use SourceErrorKind as Kind;
        let name_invalid = r#"{"errors":[{"code":"NAME_INVALID","message":"no"}]}"#;
        for (status, body, kind) in [
            (404, "", Kind::NotFound),
            (404, "<html>", Kind::NotFound),
            (400, name_invalid, Kind::NotFound),
            (400, "", Kind::BadAnswer),
            (401, "", Kind::Unauthorized),
            (403, "", Kind::Denied),
            (451, "", Kind::Denied),
            (405, "", Kind::Unsupported),
            (416, "", Kind::BadAnswer),
            (429, "", Kind::TooManyRequests),
            (500, "", Kind::Unavailable),
            (503, "", Kind::Unavailable),
            (520, "", Kind::Unavailable),
            (204, "", Kind::BadAnswer),
            (302, "", Kind::BadAnswer),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            let error = of_status(&"docker.io".into(), "x", status, &Bytes::from(body));
            assert_eq!(error.kind, kind, "{status} {body}");
        }
    }

    #[test]
    fn a_message_says_who_and_what_and_repeats_the_registry() {
        let body = Bytes::from(r#"{"errors":[{"code":"DENIED","message":"requested access is denied"}]}"#);
        let what = "GET manifest 3.20 of library/alpine";
        let error = of_status(&"docker.io".into(), what, StatusCode::FORBIDDEN, &body);
        assert_eq!(
            error.to_string(),
            "docker.io: the answer to GET manifest 3.20 of library/alpine is 403 Forbidden \
             (DENIED: requested access is denied)"
        );
    }
}
