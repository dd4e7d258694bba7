//! The answers to requests of blobs: whole, in part, in several parts.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, Version, header};
use oci::{ContentRange, Digest, Selection, Span, select};

use super::{
    access::Line,
    body::{Body, Piece, Pieces},
    conditional::{already_has, range_applies},
    error::{About, Refusal, refusal},
    pull::Pull,
    respond,
};
use crate::{
    cache::{Blob, Cache},
    source::Origin,
};

const OCTET_STREAM: HeaderValue = HeaderValue::from_static(oci::OCTET_STREAM);
/// Content by digest never changes (registry:2 says the same of its blobs).
const FOR_EVER: HeaderValue = HeaderValue::from_static("max-age=31536000, immutable");

/// Answers a request of a blob. HEAD asks for its size and fetches nothing.
pub(super) async fn serve(
    cache: &Cache,
    pull: &Pull<'_>,
    origin: &Origin,
    digest: &Digest,
    line: &mut Line,
) -> Result<Response<Body>, Refusal> {
    let failed = |error| refusal(About::Blob, &error);
    let known = already_has(pull.headers, digest);
    let (mut response, outcome, warning) = if pull.is_head() || known {
        let served = cache.blob_size(origin, digest).await.map_err(failed)?;
        line.served(&served);
        let mut response = respond::head(
            StatusCode::OK,
            OCTET_STREAM,
            served.content.unwrap_or_default(),
            Body::memory(Bytes::new()),
        );
        if served.content.is_none() {
            response.headers_mut().remove(header::CONTENT_LENGTH);
        }
        if known {
            response = respond::not_modified(digest);
        }
        (response, served.outcome, served.warning)
    } else {
        if wants_the_rest(pull) {
            cache.asked_for(origin, digest);
        }
        let served = cache.blob(origin, digest).await.map_err(failed)?;
        line.digest = Some(*digest);
        line.served(&served);
        (selected(pull, digest, &served.content)?, served.outcome, served.warning)
    };
    line.digest = Some(*digest);
    let headers = response.headers_mut();
    respond::name(headers, digest);
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CACHE_CONTROL, FOR_EVER);
    respond::explain(headers, outcome, warning.as_ref());
    Ok(response)
}

/// Returns whether the client wants all of the blob, or all from some byte on, however long it is.
fn wants_the_rest(pull: &Pull<'_>) -> bool {
    let range = pull.headers.get(header::RANGE).and_then(|range| range.to_str().ok());
    match select(range, u64::MAX) {
        Selection::Whole => true,
        Selection::Single(span) => span.open_ended,
        Selection::Multiple(_) | Selection::Unsatisfiable => false,
    }
}

fn selected(pull: &Pull<'_>, digest: &Digest, blob: &Blob) -> Result<Response<Body>, Refusal> {
    let range = pull.headers.get(header::RANGE).and_then(|range| range.to_str().ok());
    let range = range.filter(|_| range_applies(pull.headers, digest));
    match select(range, blob.size()) {
        Selection::Whole => Ok(whole(pull, blob)),
        Selection::Single(span) => Ok(part(pull, blob, &span)),
        Selection::Multiple(spans) => Ok(parts(pull, digest, blob, &spans)),
        Selection::Unsatisfiable => Err(Refusal::range(blob.size())),
    }
}

fn whole(pull: &Pull<'_>, blob: &Blob) -> Response<Body> {
    let all = Span { start: 0, end: blob.size(), open_ended: true };
    let body = body(pull, vec![Piece::Blob(blob.read(&all))], blob.size());
    respond::head(StatusCode::OK, OCTET_STREAM, blob.size(), body)
}

fn part(pull: &Pull<'_>, blob: &Blob, span: &Span) -> Response<Body> {
    let len = span.end - span.start;
    let body = body(pull, vec![Piece::Blob(blob.read(span))], len);
    let mut response = respond::head(StatusCode::PARTIAL_CONTENT, OCTET_STREAM, len, body);
    response.headers_mut().insert(header::CONTENT_RANGE, content_range(span, blob.size()));
    response
}

/// One part for each range asked for, in their order: podman counts them.
fn parts(pull: &Pull<'_>, digest: &Digest, blob: &Blob, spans: &[Span]) -> Response<Body> {
    let boundary = &digest.hex()[..32];
    let mut pieces = Vec::with_capacity(2 * spans.len() + 1);
    let mut len = 0;
    for span in spans {
        let range = ContentRange { start: span.start, end: span.end, size: Some(blob.size()) };
        let head = format!(
            "\r\n--{boundary}\r\nContent-Type: {}\r\nContent-Range: {range}\r\n\r\n",
            oci::OCTET_STREAM
        );
        len += head.len() as u64 + span.end - span.start;
        pieces.push(Piece::Bytes(Bytes::from(head)));
        pieces.push(Piece::Blob(blob.read(span)));
    }
    let end = format!("\r\n--{boundary}--\r\n");
    len += end.len() as u64;
    pieces.push(Piece::Bytes(Bytes::from(end)));
    let content_type = respond::value(&format!("multipart/byteranges; boundary={boundary}"));
    respond::head(StatusCode::PARTIAL_CONTENT, content_type, len, body(pull, pieces, len))
}

/// Files are sent as such over plain HTTP/1 only: elsewhere somebody has to read what goes out.
fn body(pull: &Pull<'_>, pieces: Vec<Piece>, len: u64) -> Body {
    let plain = pull.caller.sendfile && pull.version < Version::HTTP_2;
    Body::pieces(Pieces::new(pieces, plain.then(|| Arc::clone(&pull.caller.connection))), len)
}

fn content_range(span: &Span, size: u64) -> HeaderValue {
    respond::value(&ContentRange { start: span.start, end: span.end, size: Some(size) }.to_string())
}
