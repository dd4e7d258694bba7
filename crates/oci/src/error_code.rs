//! Error codes and error bodies of the distribution spec ("Error Codes"), written and read.
//!
//! Which status goes with which code is HTTP's affair and not known here.

use serde::Serialize;

/// The most errors that are read from one body.
pub const REPORTED_ERRORS_MAX: usize = 16;

/// How many characters of a reported message are kept.
const MESSAGE_CHARS_MAX: usize = 512;

/// How many characters of a reported code are kept.
const CODE_CHARS_MAX: usize = 64;

/// The longest error body that is read, in bytes.
const ERROR_BYTES_MAX: usize = 256 << 10;

/// A code of the spec, or of those that registries use beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The repository has no such blob.
    BlobUnknown,
    /// An upload failed.
    BlobUploadInvalid,
    /// There is no such upload.
    BlobUploadUnknown,
    /// A digest is malformed, or does not match the content.
    DigestInvalid,
    /// A manifest names a manifest or blob that is not there.
    ManifestBlobUnknown,
    /// A manifest is malformed.
    ManifestInvalid,
    /// The repository has no such manifest.
    ManifestUnknown,
    /// The name of a repository is malformed.
    NameInvalid,
    /// There is no such repository.
    NameUnknown,
    /// A length does not match the content.
    SizeInvalid,
    /// Credentials are wanted.
    Unauthorized,
    /// These credentials do not suffice.
    Denied,
    /// The operation is not offered.
    Unsupported,
    /// Too many requests.
    TooManyRequests,
    /// Anything else.
    Unknown,
    /// Not at the moment.
    Unavailable,
    /// `n` is not a number.
    PaginationNumberInvalid,
    /// The range cannot be satisfied.
    RangeInvalid,
    /// A tag is malformed.
    TagInvalid,
}

impl ErrorCode {
    const ALL: [Self; 19] = [
        Self::BlobUnknown,
        Self::BlobUploadInvalid,
        Self::BlobUploadUnknown,
        Self::DigestInvalid,
        Self::ManifestBlobUnknown,
        Self::ManifestInvalid,
        Self::ManifestUnknown,
        Self::NameInvalid,
        Self::NameUnknown,
        Self::SizeInvalid,
        Self::Unauthorized,
        Self::Denied,
        Self::Unsupported,
        Self::TooManyRequests,
        Self::Unknown,
        Self::Unavailable,
        Self::PaginationNumberInvalid,
        Self::RangeInvalid,
        Self::TagInvalid,
    ];

    /// Returns the code as it stands in a body.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BlobUnknown => "BLOB_UNKNOWN",
            Self::BlobUploadInvalid => "BLOB_UPLOAD_INVALID",
            Self::BlobUploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            Self::DigestInvalid => "DIGEST_INVALID",
            Self::ManifestBlobUnknown => "MANIFEST_BLOB_UNKNOWN",
            Self::ManifestInvalid => "MANIFEST_INVALID",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::NameInvalid => "NAME_INVALID",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::SizeInvalid => "SIZE_INVALID",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Denied => "DENIED",
            Self::Unsupported => "UNSUPPORTED",
            Self::TooManyRequests => "TOOMANYREQUESTS",
            Self::Unknown => "UNKNOWN",
            Self::Unavailable => "UNAVAILABLE",
            Self::PaginationNumberInvalid => "PAGINATION_NUMBER_INVALID",
            Self::RangeInvalid => "RANGE_INVALID",
            Self::TagInvalid => "TAG_INVALID",
        }
    }

    /// Returns the code that `text` spells, or `None` where it is none of these.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == text)
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Serialize)]
struct Body<'a> {
    errors: [Entry<'a>; 1],
}

#[derive(Serialize)]
struct Entry<'a> {
    code: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
}

/// Returns the body that reports one error: the spec's JSON and a newline.
pub fn error_body(code: ErrorCode, message: &str, detail: Option<&str>) -> String {
    let body = Body { errors: [Entry { code: code.as_str(), message, detail }] };
    let mut json = serde_json::to_string(&body).expect("strings always serialise");
    json.push('\n');
    json
}

/// An error as an upstream reported it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportedError {
    /// The code as sent, shortened; [`ErrorCode::parse`] tells whether it is a known one. Empty where there is none.
    pub code: String,
    /// The message on one line, at most 512 characters; empty where there is none.
    pub message: String,
}

/// Returns the errors in the body of an upstream's answer; none where it is not in the spec's form.
pub fn parse_errors(body: &[u8]) -> Vec<ReportedError> {
    if body.len() > ERROR_BYTES_MAX {
        return Vec::new();
    }
    let Ok(body) = serde_json::from_slice::<serde_json::Value>(body) else {
        return Vec::new();
    };
    let Some(errors) = body.get("errors").and_then(|errors| errors.as_array()) else {
        return Vec::new();
    };
    let text = |error: &serde_json::Value, key: &str, chars_max: usize| {
        error
            .get(key)
            .and_then(|value| value.as_str())
            .map(|text| one_line(text, chars_max))
            .unwrap_or_default()
    };
    errors
        .iter()
        .filter(|error| error.is_object())
        .take(REPORTED_ERRORS_MAX)
        .map(|error| ReportedError {
            code: text(error, "code", CODE_CHARS_MAX),
            message: text(error, "message", MESSAGE_CHARS_MAX),
        })
        .collect()
}

fn one_line(text: &str, chars_max: usize) -> String {
    text.chars().take(chars_max).map(|char| if char.is_control() { ' ' } else { char }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_read_as_it_is_written() {
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::parse(code.as_str()), Some(code));
            assert_eq!(ErrorCode::parse(&code.as_str().to_lowercase()), None);
        }
        assert_eq!(ErrorCode::parse(""), None);
    }

    #[test]
    fn a_body_is_the_specs_json_on_one_line() {
        assert_eq!(
            error_body(ErrorCode::ManifestUnknown, "no \"x\"\n\u{1}", None),
            "{\"errors\":[{\"code\":\"MANIFEST_UNKNOWN\",\"message\":\"no \\\"x\\\"\\n\\u0001\"}]}\n"
        );
        assert_eq!(
            error_body(ErrorCode::TooManyRequests, "later", Some("docker.io")),
            "{\"errors\":[{\"code\":\"TOOMANYREQUESTS\",\"message\":\"later\",\"detail\":\"docker.io\"}]}\n"
        );
    }

    #[test]
    fn what_is_written_is_read() {
        let body = error_body(ErrorCode::Denied, "not you", Some("x"));
        let error = ReportedError { code: "DENIED".to_owned(), message: "not you".to_owned() };
        assert_eq!(parse_errors(body.as_bytes()), [error]);
    }

    #[test]
    fn odd_bodies_give_what_there_is_to_have() {
        for body in ["", "<html>", "null", "[]", "{}", "{\"errors\":{}}", "{\"errors\":[1,null,\"x\"]}"] {
            assert_eq!(parse_errors(body.as_bytes()), [], "{body}");
        }
        let odd = parse_errors(br#"{"errors":[{"code":7,"detail":{"a":[]}},{"message":"a\r\nb"}],"x":1}"#);
        let messages: Vec<_> =
            odd.iter().map(|error| (error.code.as_str(), error.message.as_str())).collect();
        assert_eq!(messages, [("", ""), ("", "a  b")]);
    }

    #[test]
    fn long_reports_are_cut() {
        let entry = format!("{{\"code\":\"{}\",\"message\":\"{}\"}}", "C".repeat(999), "\u{e9}".repeat(999));
        let body = format!("{{\"errors\":[{}]}}", vec![entry; 40].join(","));
        let errors = parse_errors(body.as_bytes());
        assert_eq!(errors.len(), REPORTED_ERRORS_MAX);
        assert_eq!(errors[0].code.chars().count(), CODE_CHARS_MAX);
        assert_eq!(errors[0].message.chars().count(), MESSAGE_CHARS_MAX);
    }
}
