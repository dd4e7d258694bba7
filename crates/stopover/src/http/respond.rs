//! The heads of answers.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use oci::Digest;

use super::{access::request_id_text, body::Body, connection::VERSION_HEADER, error::Refusal};
use crate::cache::Outcome;

/// What the specification allows of warnings in one response, in bytes.
const WARNING_BYTES_MAX: usize = 1_024;

const VERSION: HeaderName = HeaderName::from_static(VERSION_HEADER);
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(super) const NAMESPACE: HeaderName = HeaderName::from_static("oci-namespace");
pub(super) const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");
pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");
pub(super) const OCI_INDEX: HeaderValue = HeaderValue::from_static(oci::OCI_INDEX);

/// Returns an answer with the headers that all of ours have.
pub(super) fn head(status: StatusCode, content_type: HeaderValue, len: u64, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.reserve(12);
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(len));
    headers.insert(VERSION, HeaderValue::from_static("registry/2.0"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Returns an answer of these bytes; without them, but with their length, where `is_head`.
pub(super) fn bytes(content_type: HeaderValue, bytes: Bytes, is_head: bool) -> Response<Body> {
    let len = bytes.len() as u64;
    head(StatusCode::OK, content_type, len, Body::memory(if is_head { Bytes::new() } else { bytes }))
}

/// Returns the answer to a client that has the content already.
pub(super) fn not_modified(digest: &Digest) -> Response<Body> {
    let mut response = head(StatusCode::NOT_MODIFIED, JSON, 0, Body::memory(Bytes::new()));
    response.headers_mut().remove(header::CONTENT_TYPE);
    response.headers_mut().remove(header::CONTENT_LENGTH);
    name(response.headers_mut(), digest);
    response
}

/// Names the content by its digest, also as the entity's tag.
pub(super) fn name(headers: &mut HeaderMap, digest: &Digest) {
    let quoted = format!("\"{digest}\"");
    let bare = &quoted[1..quoted.len() - 1];
    headers.insert(CONTENT_DIGEST, value(bare));
    headers.insert(header::ETAG, value(&quoted));
}

/// Says how the answer came about (RFC 9211), and warns where it may be out of date.
pub(super) fn explain(headers: &mut HeaderMap, outcome: Outcome, warning: Option<&Arc<str>>) {
    let status = match outcome {
        Outcome::Hit => "Stopover; hit; detail=hit",
        Outcome::Revalidated => "Stopover; hit; detail=revalidated",
        Outcome::Stale => "Stopover; hit; detail=stale",
        Outcome::Joined => "Stopover; fwd=miss; collapsed; detail=joined",
        Outcome::Filled => "Stopover; fwd=miss; stored; detail=filled",
        Outcome::Passed => "Stopover; fwd=miss; detail=passed",
    };
    headers.insert(CACHE_STATUS, HeaderValue::from_static(status));
    if let Some(warning) = warning {
        let plain: String = warning
            .chars()
            .map(|c| if c == '"' || c == '\\' || c.is_control() || !c.is_ascii() { '\'' } else { c })
            .take(WARNING_BYTES_MAX)
            .collect();
        headers.insert(header::WARNING, value(&format!("299 - \"{plain}\"")));
    }
}

/// Adds what the operator wants every answer to say. It takes the place of what we say under the same name.
pub(super) fn add(headers: &mut HeaderMap, more: &[(HeaderName, HeaderValue)]) {
    for (at, (name, value)) in more.iter().enumerate() {
        if more[..at].iter().any(|(before, _)| before == name) {
            headers.append(name.clone(), value.clone());
        } else {
            headers.insert(name.clone(), value.clone());
        }
    }
}

/// Returns an error as the specification has it.
pub(super) fn error(refusal: &Refusal, request_id: u64, is_head: bool) -> Response<Body> {
    let id = request_id_text(request_id);
    let text = oci::error_body(refusal.code, &refusal.message, Some(&format!("request {id}")));
    let mut response = bytes(JSON, Bytes::from(text), is_head);
    *response.status_mut() = refusal.status;
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, value(&id));
    if let Some(retry_after) = refusal.retry_after {
        // Rounded up: whoever comes back at the second that is named must not be early.
        let seconds = retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0);
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    }
    if let Some(challenge) = &refusal.challenge {
        headers.insert(header::WWW_AUTHENTICATE, challenge.clone());
    }
    if let Some(size) = refusal.size {
        headers.insert(header::CONTENT_RANGE, value(&format!("bytes */{size}")));
    }
    if refusal.status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    if refusal.close {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Returns a header's value; what cannot be one becomes empty, which no text of ours does.
pub(super) fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}
