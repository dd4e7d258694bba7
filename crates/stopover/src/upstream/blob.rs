//! Blobs: opened at any offset, and measured.

use std::sync::Arc;

use futures_util::StreamExt;
use http::{
    HeaderValue, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_RANGE},
};
use oci::{ContentRange, Digest, RepositoryName};
use tokio::time::Instant;

use super::{
    ANSWER_MAX, Upstream,
    failure::Failure,
    number,
    request::{Ask, Reply, What},
};
use crate::{
    egress::Steady,
    source::{BlobStream, SourceError, SourceErrorKind, Told},
};

impl Upstream {
    pub(super) async fn open_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        start: u64,
        end: Option<u64>,
        deadline: Instant,
    ) -> Result<BlobStream, SourceError> {
        let ask = blob_ask(What::BlobGet, repository, digest, range_of(start, end));
        let reply = self.ask(&ask, deadline).await?;
        let headers = reply.response.headers();
        let length = number(headers, CONTENT_LENGTH);
        let (start, size) = match reply.response.status() {
            StatusCode::OK => (0, length),
            StatusCode::PARTIAL_CONTENT => {
                let range = headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
                let range = range.and_then(ContentRange::parse).filter(|range| {
                    let length_fits = length.is_none_or(|length| length == range.end - range.start);
                    range.start == start && end.is_none_or(|end| range.end <= end) && length_fits
                });
                let range = range.ok_or_else(|| self.bad_answer(&ask, "has another range than asked for"))?;
                (range.start, range.size)
            }
            _ => return Err(self.error_of(&ask, reply, deadline).await),
        };
        let registry = Arc::clone(&self.registry);
        let Reply { response, lane, load, .. } = reply;
        let body = Steady::new(response.into_body(), self.stall_timeout);
        let body = load.shape(&digest.to_string(), self.bandwidth.as_ref(), body);
        let body = body.map(move |chunk| chunk.map_err(|error| Failure::of_way(&registry, error).error));
        Ok(BlobStream { start, size, lane, body: body.boxed() })
    }

    pub(super) async fn measure_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Told<Option<u64>>, SourceError> {
        let deadline = Instant::now() + ANSWER_MAX;
        let ask = blob_ask(What::BlobHead, repository, digest, None);
        let reply = self.ask(&ask, deadline).await?;
        if reply.response.status() == StatusCode::OK {
            let size = number(reply.response.headers(), CONTENT_LENGTH);
            return Ok(Told { content: size, lane: reply.lane });
        }
        let refuses_heads = reply.redirected && reply.response.status().is_client_error();
        let error = self.error_of(&ask, reply, deadline).await;
        if error.kind != SourceErrorKind::Unsupported && !refuses_heads {
            return Err(error);
        }
        // URLs are signed for GET, so storage often refuses HEAD. One byte tells the size as well.
        match self.open_blob(repository, digest, 0, Some(1), deadline).await {
            Ok(blob) => Ok(Told { content: blob.size, lane: blob.lane }),
            Err(error) if error.kind == SourceErrorKind::BadAnswer => Ok(Told { content: None, lane: None }),
            Err(error) => Err(error),
        }
    }
}

fn blob_ask<'a>(
    what: What,
    repository: &'a RepositoryName,
    digest: &Digest,
    range: Option<HeaderValue>,
) -> Ask<'a> {
    Ask { what, repository, path: format!("blobs/{digest}"), accept: "*/*", range }
}

/// Returns the `Range` for the bytes from `start` to `end` (exclusive); none for the whole. Always a single range:
/// some storage refuses several with a 400.
fn range_of(start: u64, end: Option<u64>) -> Option<HeaderValue> {
    let text = match end.map(|end| end.saturating_sub(1).max(start)) {
        None if start == 0 => return None,
        None => format!("bytes={start}-"),
        Some(last) => format!("bytes={start}-{last}"),
    };
    Some(HeaderValue::from_str(&text).expect("digits are ASCII"))
}
