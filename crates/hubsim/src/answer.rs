//! The answers that all parts of the Hub give alike: JSON, errors, redirects, and content with ranges.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode, header};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{
    blob::Blob,
    body::{Body, Ending, Sending},
    fault::{Asked, Fault},
    state::Exchange,
};

/// A response of the Hub.
pub(crate) type Answer = Response<Body>;

/// Returns a response with a short body, sent at the line's pace.
pub(crate) fn whole(exchange: &Exchange, status: u16, content_type: &str, bytes: impl Into<Bytes>) -> Answer {
    let blob = Arc::new(Blob::from(bytes.into()));
    let body = Body::sending(sending(exchange, blob));
    let builder = Response::builder().status(status).header(header::CONTENT_TYPE, content_type);
    builder.body(body).expect("a status and a content type of ours make a response")
}

/// Returns a JSON document.
pub(crate) fn json(exchange: &Exchange, status: u16, document: &Value) -> Answer {
    whole(exchange, status, "application/json", document.to_string())
}

/// Returns an error in the shape of the distribution-spec.
pub(crate) fn error(exchange: &Exchange, status: u16, code: &str, message: &str, detail: Value) -> Answer {
    let mut error = json!({ "code": code, "message": message });
    if !detail.is_null() {
        error["detail"] = detail;
    }
    json(exchange, status, &json!({ "errors": [error] }))
}

/// Returns a redirect.
pub(crate) fn redirect(exchange: &Exchange, status: u16, location: &str) -> Answer {
    let mut answer = whole(exchange, status, "text/html; charset=utf-8", Bytes::new());
    put(&mut answer, "location", location);
    answer
}

/// Sets a header; a value that no header can have is left out.
pub(crate) fn put(answer: &mut Answer, name: &'static str, value: &str) {
    if let Ok(value) = value.parse() {
        answer.headers_mut().insert(name, value);
    }
}

/// Returns a header's value as text.
pub(crate) fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Returns content, whole or the range asked for, with what the faults of a body do to it.
pub(crate) fn content(
    exchange: &Exchange,
    asked: &Asked<'_>,
    headers: &HeaderMap,
    content_type: &str,
    blob: Arc<Blob>,
) -> Answer {
    let size = blob.size();
    let strike = |wanted: fn(&Fault) -> bool| exchange.state.faults.strike(asked, wanted);
    let range = match headers.get(header::RANGE) {
        Some(range) if strike(|fault| *fault == Fault::NoRange).is_none() => range.to_str().unwrap_or(""),
        _ => "",
    };
    let (status, start, end) = match Range::parse(range, size) {
        Range::Whole => (StatusCode::OK, 0, size),
        Range::Part(start, end) => (StatusCode::PARTIAL_CONTENT, start, end),
        Range::Unsatisfiable => return unsatisfiable(exchange, size),
        // As Google's storage answers it.
        Range::Several => {
            return error(exchange, 400, "UNSUPPORTED", "only one range at a time", Value::Null);
        }
    };
    let mut answer = Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, content_type)
        .header(header::ACCEPT_RANGES, "bytes")
        .body(Body::empty())
        .expect("headers of ours make a response");
    if status == StatusCode::PARTIAL_CONTENT {
        let wrong = u64::from(strike(|fault| *fault == Fault::BadContentRange).is_some());
        put(&mut answer, "content-range", &format!("bytes {}-{}/{size}", start + wrong, end - 1));
    }
    if *asked.method == Method::HEAD {
        put(&mut answer, "content-length", &(end - start).to_string());
        return answer;
    }
    if strike(|fault| *fault == Fault::ContentEncodingGzip).is_some() {
        put(&mut answer, "content-encoding", "gzip");
    }
    let mut sending = sending(exchange, blob);
    (sending.at, sending.stop, sending.declared) = (start, end, Some(end - start));
    sending.meter = asked.digest.map(|digest| exchange.state.recorder.meter(digest));
    strike_body(exchange, asked, &mut sending);
    *answer.body_mut() = Body::sending(sending);
    answer
}

/// Lets the faults that change a body's bytes and end strike.
fn strike_body(exchange: &Exchange, asked: &Asked<'_>, sending: &mut Sending) {
    let strike = |wanted: fn(&Fault) -> bool| exchange.state.faults.strike(asked, wanted);
    let (start, end) = (sending.at, sending.stop);
    if let Some(Fault::WrongLength(by)) = strike(|fault| matches!(fault, Fault::WrongLength(_))) {
        let declared = (end - start).saturating_add_signed(by);
        sending.declared = Some(declared);
        sending.stop = end.min(start + declared);
        if start + declared > end {
            sending.ending = Ending::Cut;
        }
    }
    if strike(|fault| *fault == Fault::NoContentLength).is_some() {
        sending.declared = None;
    }
    if let Some(Fault::FlipByte(at)) = strike(|fault| matches!(fault, Fault::FlipByte(_))) {
        sending.flip = Some(at);
    }
    match strike(|fault| matches!(fault, Fault::CutAfter(_) | Fault::StallAfter(_))) {
        Some(Fault::CutAfter(after)) if start + after < end => {
            sending.stop = start + after;
            sending.ending = Ending::Cut;
        }
        Some(Fault::StallAfter(after)) if start + after < end => {
            let go_on = sending.stop;
            sending.stop = start + after;
            sending.ending = Ending::Stall(Box::pin(released(exchange.state.releases())), go_on);
        }
        _ => {}
    }
}

async fn released(mut releases: watch::Receiver<()>) {
    // An error means that the Hub has gone; there is nothing left to wait for.
    drop(releases.changed().await);
}

fn unsatisfiable(exchange: &Exchange, size: u64) -> Answer {
    let mut answer = error(exchange, 416, "RANGE_INVALID", "no such range", Value::Null);
    put(&mut answer, "content-range", &format!("bytes */{size}"));
    answer
}

fn sending(exchange: &Exchange, blob: Arc<Blob>) -> Sending {
    Sending {
        at: 0,
        stop: blob.size(),
        declared: Some(blob.size()),
        blob,
        ending: Ending::Whole,
        flip: None,
        meter: None,
        connection: exchange.connection.clone(),
        line: exchange.state.line.clone(),
        waiting: None,
    }
}

/// What a `Range` header asks of content of some size (RFC 9110, section 14.1.2); ends are exclusive.
#[derive(Debug, PartialEq, Eq)]
enum Range {
    Whole,
    Part(u64, u64),
    Unsatisfiable,
    Several,
}

impl Range {
    fn parse(header: &str, size: u64) -> Self {
        let Some(set) = header.strip_prefix("bytes=") else {
            return Self::Whole;
        };
        if set.contains(',') {
            return Self::Several;
        }
        let Some((first, last)) = set.trim().split_once('-') else {
            return Self::Whole;
        };
        let (start, end) = match (first.parse::<u64>(), last.parse::<u64>()) {
            (Ok(first), Ok(last)) if first <= last => (first, last.saturating_add(1).min(size)),
            (Ok(first), Err(_)) if last.is_empty() => (first, size),
            (Err(_), Ok(suffix)) if first.is_empty() => (size.saturating_sub(suffix), size),
            (Ok(_), Ok(_)) => return Self::Unsatisfiable,
            _ => return Self::Whole,
        };
        if start < end { Self::Part(start, end) } else { Self::Unsatisfiable }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_rfc_9110_has_them() {
        for (header, range) in [
            ("", Range::Whole),
            ("bytes=0-", Range::Part(0, 1000)),
            ("bytes=500-599", Range::Part(500, 600)),
            ("bytes=500-9999", Range::Part(500, 1000)),
            ("bytes=-100", Range::Part(900, 1000)),
            ("bytes=-5000", Range::Part(0, 1000)),
            ("bytes=1000-", Range::Unsatisfiable),
            ("bytes=-0", Range::Unsatisfiable),
            ("bytes=500-0", Range::Unsatisfiable),
            ("bytes=0-1,5-6", Range::Several),
            ("bytes=x", Range::Whole),
            ("lines=1-2", Range::Whole),
        ] {
            assert_eq!(Range::parse(header, 1000), range, "{header}");
        }
    }
}
