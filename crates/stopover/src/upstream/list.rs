//! Lists: of a repository's tags, and of what refers to a manifest.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, LINK};
use oci::{Digest, MediaType, OCI_INDEX, Page, RepositoryName, next_page};
use serde::{Deserialize, de::IgnoredAny};
use tokio::time::Instant;

use super::{
    ANSWER_MAX, Upstream,
    request::{Ask, What},
};
use crate::source::{SourceError, SourceErrorKind, TagPage};

/// The largest list that is read, in bytes.
const LIST_BYTES_MAX: usize = 8 << 20;

impl Upstream {
    pub(super) async fn list_tags(
        &self,
        repository: &RepositoryName,
        page: &Page,
    ) -> Result<TagPage, SourceError> {
        #[derive(Deserialize)]
        struct Sent {
            tags: Option<Vec<String>>,
        }
        let query = page.to_query();
        let path = if query.is_empty() { "tags/list".to_owned() } else { format!("tags/list?{query}") };
        let ask = Ask { what: What::Tags, repository, path, accept: "application/json", range: None };
        let (headers, bytes) = self.read(&ask, LIST_BYTES_MAX, Instant::now() + ANSWER_MAX).await?;
        let sent: Result<Sent, _> = serde_json::from_slice(&bytes);
        let sent = sent.map_err(|error| self.bad_answer(&ask, &format!("is no list of tags: {error}")))?;
        let next = headers.get(LINK).and_then(|value| value.to_str().ok()).and_then(next_page);
        Ok(TagPage { tags: sent.tags.unwrap_or_default(), next })
    }

    pub(super) async fn list_referrers(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Bytes, SourceError> {
        #[derive(Deserialize)]
        struct Sent {
            #[serde(rename = "manifests")]
            _manifests: Vec<IgnoredAny>,
        }
        let path = format!("referrers/{digest}");
        let ask = Ask { what: What::Referrers, repository, path, accept: OCI_INDEX, range: None };
        let unsupported = |why: &str| {
            let message = format!("the answer to {} {why}", ask.name());
            SourceError::new(Arc::clone(&self.registry), SourceErrorKind::Unsupported, message)
        };
        let (headers, bytes) = match self.read(&ask, LIST_BYTES_MAX, Instant::now() + ANSWER_MAX).await {
            Ok(read) => read,
            // Whoever does not know this endpoint says so in one of these ways.
            Err(error) if matches!(error.kind, SourceErrorKind::NotFound | SourceErrorKind::BadAnswer) => {
                return Err(SourceError { kind: SourceErrorKind::Unsupported, ..error });
            }
            Err(error) => return Err(error),
        };
        let media_type =
            headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()?.parse::<MediaType>().ok());
        if media_type != Some(MediaType::oci_index()) {
            return Err(unsupported("is no OCI index"));
        }
        match serde_json::from_slice::<Sent>(&bytes) {
            Ok(_) => Ok(bytes),
            Err(error) => Err(self.bad_answer(&ask, &format!("is no list of referrers: {error}"))),
        }
    }
}
