//! Tag lists and referrers: answers that grow old, kept in memory for as long as a tag is fresh, and shown again, with
//! a warning, when the registry fails.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use oci::{Descriptor, Digest, MANIFEST_BYTES_MAX, Manifest, OCI_INDEX, Page, RepositoryName};
use quick_cache::{Weighter, sync::Cache as Memory};

use super::{Cache, Error, Outcome, Parts, Served, freshness::serve_stale, key, manifest::report};
use crate::{
    clock::Wall,
    flight::Flights,
    index::TagRecord,
    source::{Origin, SourceError, SourceErrorKind, TagPage},
};

/// What the lists in memory may weigh together.
const MEMORY_BYTES_MAX: u64 = 4 << 20;
const ANSWERS_TYPICAL: usize = 1_000;
/// What an index of stored manifests has besides them, at most, in bytes.
const FRAME_BYTES: usize = 256;

/// What was asked about a repository.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Question {
    Tags(String),
    Referrers(Digest),
    StoredReferrers(Digest),
}

/// What the registry said, and when.
#[derive(Clone)]
struct Known {
    answer: Answer,
    at: Instant,
    at_wall: Wall,
}

#[derive(Clone)]
enum Answer {
    Tags(Arc<TagPage>),
    Referrers(Bytes),
}

type Key = (RepositoryName, Question);

pub(super) struct Discovery {
    known: Memory<Key, Known, ByBytes>,
    flights: Arc<Flights<Key, Result<Answer, Error>>>,
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<Key, Known> for ByBytes {
    fn weight(&self, _: &Key, known: &Known) -> u64 {
        let bytes = match &known.answer {
            Answer::Tags(page) => page.tags.iter().map(|tag| tag.len() + 24).sum(),
            Answer::Referrers(index) => index.len(),
        };
        bytes as u64 + 256
    }
}

impl Discovery {
    pub(super) fn new() -> Self {
        Self {
            known: Memory::with_weighter(ANSWERS_TYPICAL, MEMORY_BYTES_MAX, ByBytes),
            flights: Flights::new(),
        }
    }
}

/// Everything that refers to a digest, as an image index.
#[derive(Clone, Debug)]
pub struct Referrers {
    /// The index document.
    pub index: Bytes,
    /// Whether only those of the artifact type asked for are in it.
    pub filtered: bool,
}

impl Cache {
    /// Returns one page of the repository's tags: as the registry has them, or, where it fails, those of its last
    /// answer or of the tree.
    pub async fn tags(&self, origin: &Origin, page: &Page) -> Result<Served<Arc<TagPage>>, Error> {
        if page.n == Some(0) {
            return Ok(Served::new(Arc::new(TagPage { tags: Vec::new(), next: None }), Outcome::Hit));
        }
        let (from, wanted) = (origin.clone(), page.clone());
        let served = self.discover(origin, Question::Tags(page.to_query()), async move {
            let page = from.source.tags(&from.repository, &wanted).await?;
            Ok(Answer::Tags(Arc::new(page)))
        });
        match served.await {
            Ok(Served { content: Answer::Tags(page), outcome, lane, warning }) => {
                Ok(Served { content: page, outcome, lane, warning })
            }
            Ok(_) => Err(Error::Internal("a tag list was mixed up")),
            Err(Error::Source(error)) => self.tags_of_tree(origin, page, error).await,
            Err(error) => Err(error),
        }
    }

    /// Returns the index of what refers to the digest, as the registry has it, or, where it fails, by its last answer or
    /// by what is stored; with what does not have `artifact_type` left out if that is asked for.
    pub async fn referrers(
        &self,
        origin: &Origin,
        digest: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Served<Referrers>, Error> {
        let (from, wanted) = (origin.clone(), *digest);
        let served = self.discover(origin, Question::Referrers(*digest), async move {
            let index = from.source.referrers(&from.repository, &wanted).await?;
            Ok(Answer::Referrers(index))
        });
        let served = match served.await {
            Err(Error::Source(error)) => self.referrers_of_tree(origin, digest, error).await,
            served => served,
        };
        let Served { content: Answer::Referrers(index), outcome, lane, warning } = served? else {
            return Err(Error::Internal("referrers were mixed up"));
        };
        let filtered = artifact_type.and_then(|wanted| filter(&index, wanted));
        let content = Referrers { filtered: filtered.is_some(), index: filtered.unwrap_or(index) };
        Ok(Served { content, outcome, lane, warning })
    }

    async fn discover(
        &self,
        origin: &Origin,
        question: Question,
        ask: impl Future<Output = Result<Answer, SourceError>> + Send + 'static,
    ) -> Result<Served<Answer>, Error> {
        let key = key(origin, question);
        let discovery = &self.parts.discovery;
        let known = discovery.known.get(&key);
        if let Some(known) = &known
            && self.parts.clock.now().saturating_duration_since(known.at) < origin.freshness.tag_ttl
        {
            return Ok(Served::new(known.answer.clone(), Outcome::Hit));
        }
        let (cache, noted_key) = (self.clone(), key.clone());
        let flight = discovery.flights.run(key, || async move {
            let answer = ask.await?;
            let (at, at_wall) = (cache.parts.clock.now(), cache.parts.clock.wall());
            let known = Known { answer: answer.clone(), at, at_wall };
            cache.parts.discovery.known.insert(noted_key, known);
            Ok(answer)
        });
        let landed = flight.await.ok_or(Error::Internal("asking for a list"))?;
        match (landed.value, known) {
            (Ok(answer), _) if landed.joined => Ok(Served::new(answer, Outcome::Joined)),
            (Ok(answer), _) => Ok(Served::new(answer, Outcome::Filled)),
            (Err(Error::Source(error)), Some(known))
                if self.may_serve_stale(origin, known.at_wall, &error) =>
            {
                report(origin, &error);
                Ok(self.stale(&error, known.answer))
            }
            (Err(error), _) => Err(error),
        }
    }

    fn may_serve_stale(&self, origin: &Origin, at: Wall, error: &SourceError) -> bool {
        let record =
            TagRecord { digest: Digest::of(oci::Algorithm::Sha256, b""), descriptor: None, checked: at };
        serve_stale(&record, self.parts.clock.wall(), &origin.freshness, error.kind)
    }

    /// Returns the tags in the tree, as registry:2 does when its upstream fails; the error where there are none.
    async fn tags_of_tree(
        &self,
        origin: &Origin,
        page: &Page,
        error: Arc<SourceError>,
    ) -> Result<Served<Arc<TagPage>>, Error> {
        if !is_failure(&error) && error.kind != SourceErrorKind::Unsupported {
            return Err(Error::Source(error));
        }
        let name = origin.tree_name.clone();
        let tags =
            self.blocking(move |parts| parts.index.tags(&name).unwrap_or_default()).await.unwrap_or_default();
        if tags.is_empty() {
            return Err(Error::Source(error));
        }
        report(origin, &error);
        Ok(self.stale(&error, Arc::new(paged(tags, page))))
    }

    /// Returns what is stored and refers to the digest, so that signatures are found while the registry is down; the
    /// error where there is nothing.
    async fn referrers_of_tree(
        &self,
        origin: &Origin,
        digest: &Digest,
        error: Arc<SourceError>,
    ) -> Result<Served<Answer>, Error> {
        if !is_failure(&error) {
            return Err(Error::Source(error));
        }
        let (cache, (name, subject), failed) = (self.clone(), key(origin, *digest), Arc::clone(&error));
        // All manifests of the repository are read for it: once for all who ask at the same time.
        let question = key(origin, Question::StoredReferrers(*digest));
        let flight = self.parts.discovery.flights.run(question, || async move {
            let listed = cache.blocking(move |parts| parts.stored_index(&name, &subject)).await.flatten();
            listed.map(Answer::Referrers).ok_or(Error::Source(failed))
        });
        let landed = flight.await.ok_or(Error::Internal("listing what is stored"))?;
        let answer = landed.value?;
        report(origin, &error);
        Ok(self.stale(&error, answer))
    }
}

impl Parts {
    /// Returns the index of what is stored and refers to the digest, if anything does; of no more than a client takes.
    fn stored_index(&self, repository: &RepositoryName, subject: &Digest) -> Option<Bytes> {
        let (mut entries, mut bytes_left) = (Vec::new(), MANIFEST_BYTES_MAX as usize - FRAME_BYTES);
        let mut is_whole = true;
        self.stored_referrers(repository, subject, &mut |manifest| {
            let entry = referrer(manifest).to_string();
            match bytes_left.checked_sub(entry.len() + 1) {
                Some(left) => {
                    bytes_left = left;
                    entries.push(entry);
                }
                None => is_whole = false,
            }
        });
        if !is_whole {
            tracing::warn!(%repository, %subject, "more refers to an image than a list can hold; the rest is left out");
        }
        let (manifests, media_type) = (entries.join(","), OCI_INDEX);
        let index = format!(r#"{{"schemaVersion":2,"mediaType":"{media_type}","manifests":[{manifests}]}}"#);
        (!entries.is_empty()).then(|| index.into())
    }
}

/// Tells whether the registry failed to answer, rather than answered that there is nothing, or nothing for us.
fn is_failure(error: &SourceError) -> bool {
    use SourceErrorKind::{Denied, NotFound, Unauthorized, Unsupported};
    !matches!(error.kind, NotFound | Unauthorized | Denied | Unsupported)
}

/// Returns how a list of referrers names a manifest (distribution spec, "Listing referrers").
fn referrer(manifest: &Manifest) -> serde_json::Value {
    #[derive(serde::Deserialize)]
    struct Annotated {
        annotations: Option<serde_json::Value>,
    }
    let Descriptor { media_type, digest, size } = &manifest.descriptor;
    let mut entry = serde_json::json!({ "mediaType": media_type.as_str(), "digest": digest, "size": size });
    if let Some(artifact_type) = manifest.contents().ok().and_then(|contents| contents.artifact_type) {
        entry["artifactType"] = artifact_type.into();
    }
    let annotated = serde_json::from_slice::<Annotated>(&manifest.bytes).ok();
    if let Some(annotations) = annotated.and_then(|annotated| annotated.annotations) {
        entry["annotations"] = annotations;
    }
    entry
}

/// Cuts one page out of a sorted list.
fn paged(tags: Vec<String>, page: &Page) -> TagPage {
    let after = |tag: &String| page.last.as_ref().is_none_or(|last| tag > last);
    let mut tags: Vec<String> = tags.into_iter().filter(after).collect();
    let Some(n) = page.n.map(|n| n as usize).filter(|&n| n < tags.len()) else {
        return TagPage { tags, next: None };
    };
    tags.truncate(n);
    let next = tags.last().map(|last| Page { n: page.n, last: Some(last.clone()) });
    TagPage { tags, next }
}

/// Returns the index with only the descriptors of this artifact type; `None` where it cannot be read.
fn filter(index: &Bytes, artifact_type: &str) -> Option<Bytes> {
    let mut document: serde_json::Value = serde_json::from_slice(index).ok()?;
    let manifests = document.get_mut("manifests")?.as_array_mut()?;
    manifests.retain(|manifest| {
        manifest.get("artifactType").and_then(|found| found.as_str()) == Some(artifact_type)
    });
    serde_json::to_vec(&document).ok().map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_cut_after_last_and_at_n_with_a_link_only_where_more_follows() {
        let tags: Vec<String> = ["1", "2", "3"].map(str::to_owned).to_vec();
        let page = |n: Option<u32>, last: Option<&str>| Page { n, last: last.map(str::to_owned) };
        let table = [
            (page(None, None), vec!["1", "2", "3"], None),
            (page(Some(2), None), vec!["1", "2"], Some(page(Some(2), Some("2")))),
            (page(Some(2), Some("2")), vec!["3"], None),
            (page(Some(3), None), vec!["1", "2", "3"], None),
            (page(None, Some("9")), vec![], None),
        ];
        for (asked, expected, next) in table {
            assert_eq!(
                paged(tags.clone(), &asked),
                TagPage { tags: expected.iter().map(|&t| t.into()).collect(), next }
            );
        }
    }

    #[test]
    fn referrers_are_filtered_by_artifact_type_and_otherwise_left_as_they_are() {
        let index = Bytes::from_static(
            br#"{"schemaVersion":2,"manifests":[{"artifactType":"a","x":1},{"artifactType":"b"},{}]}"#,
        );
        let filtered = filter(&index, "a").expect("the index is JSON");
        let document: serde_json::Value =
            serde_json::from_slice(&filtered).expect("so is what is left of it");
        assert_eq!(document["manifests"], serde_json::json!([{"artifactType": "a", "x": 1}]));
        assert_eq!(document["schemaVersion"], 2);
        assert!(filter(&Bytes::from_static(b"<html>"), "a").is_none());
    }
}
