//! Lists: of a repository's tags, and of what refers to a manifest.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, LINK};
use oci::{Digest, MediaType, OCI_INDEX, Page, RepositoryName, next_page, next_query};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::{
    ANSWER_MAX, Upstream,
    request::{Ask, What},
};
use crate::source::{SourceError, SourceErrorKind, TagPage};

/// The largest list that is read, in bytes.
const LIST_BYTES_MAX: usize = 8 << 20;
/// The most pages of a list of referrers that are gathered.
const REFERRER_PAGES_MAX: usize = 100;

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
        let read = self.read(&ask, LIST_BYTES_MAX, Instant::now() + ANSWER_MAX).await;
        let read = read.map_err(|error| match error.kind {
            // public.ecr.aws answers 400 to whoever has no account.
            SourceErrorKind::BadAnswer => SourceError { kind: SourceErrorKind::Unsupported, ..error },
            _ => error,
        })?;
        let (headers, bytes) = read.content;
        let sent: Result<Sent, _> = serde_json::from_slice(&bytes);
        let sent = sent.map_err(|error| self.bad_answer(&ask, &format!("is no list of tags: {error}")))?;
        let next = headers.get(LINK).and_then(|value| value.to_str().ok()).and_then(next_page);
        Ok(cut(sent.tags.unwrap_or_default(), next, page))
    }

    /// Returns all that refers to the digest as one index. A list that the registry sends whole is left as it is.
    pub(super) async fn list_referrers(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Bytes, SourceError> {
        let deadline = Instant::now() + ANSWER_MAX;
        let mut path = format!("referrers/{digest}");
        let (mut gathered, mut bytes_left) = (Vec::new(), LIST_BYTES_MAX);
        for pages in 1..=REFERRER_PAGES_MAX {
            let ask = Ask { what: What::Referrers, repository, path, accept: OCI_INDEX, range: None };
            let (bytes, next) = self.referrers_page(&ask, bytes_left, deadline).await?;
            let unreadable = |error| self.bad_answer(&ask, &format!("is no list of referrers: {error}"));
            let page: ReferrersPage = serde_json::from_slice(&bytes).map_err(unreadable)?;
            let Some(next) = next else {
                if pages == 1 {
                    return Ok(bytes);
                }
                gathered.extend(page.manifests);
                let whole = Referrers { schema_version: 2, media_type: OCI_INDEX, manifests: gathered };
                return Ok(serde_json::to_vec(&whole).map_err(unreadable)?.into());
            };
            gathered.extend(page.manifests);
            bytes_left = bytes_left.saturating_sub(bytes.len());
            path = format!("referrers/{digest}?{next}");
        }
        let message =
            format!("{}: a list of referrers has more than {REFERRER_PAGES_MAX} pages", self.registry);
        Err(SourceError::new(Arc::clone(&self.registry), SourceErrorKind::BadAnswer, message))
    }

    /// Returns one page of a list of referrers and the query of the next.
    async fn referrers_page(
        &self,
        ask: &Ask<'_>,
        bytes_max: usize,
        deadline: Instant,
    ) -> Result<(Bytes, Option<String>), SourceError> {
        let (headers, bytes) = match self.read(ask, bytes_max, deadline).await {
            Ok(read) => read.content,
            // Whoever does not know this endpoint says so in one of these ways.
            Err(error) if matches!(error.kind, SourceErrorKind::NotFound | SourceErrorKind::BadAnswer) => {
                return Err(SourceError { kind: SourceErrorKind::Unsupported, ..error });
            }
            Err(error) => return Err(error),
        };
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let media_type = text(CONTENT_TYPE).and_then(|text| text.parse::<MediaType>().ok());
        if media_type != Some(MediaType::oci_index()) {
            let message = format!("the answer to {} is no OCI index", ask.name());
            return Err(SourceError::new(Arc::clone(&self.registry), SourceErrorKind::Unsupported, message));
        }
        Ok((bytes, text(LINK).and_then(next_query).map(str::to_owned)))
    }
}

/// What matters of a page of referrers. Its descriptors are kept as they were sent: they take the memory that they took
/// on the line, whatever a registry puts into them.
#[derive(Deserialize)]
struct ReferrersPage {
    manifests: Vec<Box<RawValue>>,
}

/// The list that is made of several pages.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Referrers {
    schema_version: u32,
    media_type: &'static str,
    manifests: Vec<Box<RawValue>>,
}

/// Cuts the page asked for out of what was sent: some registries heed neither `n` nor `last`, and others lose them on
/// the way. The order is the registry's.
fn cut(mut tags: Vec<String>, next: Option<Page>, asked: &Page) -> TagPage {
    let last = asked.last.as_ref();
    if let Some(at) = last.and_then(|last| tags.iter().position(|tag| tag == last)) {
        tags.drain(..=at);
    }
    match asked.n.map(|n| n as usize).filter(|&n| n < tags.len()) {
        Some(n) => {
            tags.truncate(n);
            let next = tags.last().map(|last| Page { n: asked.n, last: Some(last.clone()) });
            TagPage { tags, next }
        }
        // A next page that begins where this one did would be asked for without end.
        None => TagPage { tags, next: next.filter(|next| next.last.as_ref() != last) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(n: Option<u32>, last: Option<&str>) -> Page {
        Page { n, last: last.map(str::to_owned) }
    }

    #[test]
    fn a_page_is_what_was_asked_for_whether_the_registry_heeds_it_or_not() {
        let all = ["b", "a", "d", "c"];
        let table = [
            (page(None, None), &all[..], None, &all[..], None),
            (page(Some(2), None), &all[..2], Some("a"), &all[..2], Some("a")),
            (page(Some(2), None), &all[..], None, &all[..2], Some("a")),
            (page(Some(2), Some("a")), &all[2..], None, &all[2..], None),
            (page(Some(2), Some("a")), &all[..], None, &all[2..], None),
            (page(Some(1), Some("b")), &all[..], None, &all[1..2], Some("a")),
            (page(None, Some("c")), &all[..], None, &all[4..], None),
            (page(None, Some("a")), &all[..2], Some("a"), &all[4..], None),
            (page(None, Some("x")), &all[..], None, &all[..], None),
        ];
        for (asked, sent, sent_next, tags, next) in table {
            let owned = |tags: &[&str]| tags.iter().map(|&tag| tag.to_owned()).collect::<Vec<_>>();
            let cut = cut(owned(sent), sent_next.map(|last| page(asked.n, Some(last))), &asked);
            let wanted = TagPage { tags: owned(tags), next: next.map(|last| page(asked.n, Some(last))) };
            assert_eq!(cut, wanted, "{asked:?} of {sent:?}");
        }
    }
}
