//! Manifests by tag and by digest: all branches of such a pull. How they are kept is in `kept`.

use std::sync::Arc;

use oci::{Descriptor, Digest, Manifest, Reference, Tag};

use super::{
    Cache, Error, FAILED_CHECK_TTL_MAX, Outcome, Served,
    absent::Wanted,
    freshness::{Action, decide, serve_stale},
    kept::logged,
    key,
};
use crate::{
    index::TagRecord,
    source::{LaneName, Origin, Purpose, Resolved, SourceError, SourceErrorKind, Thrift, Told},
};

/// What the registry said of a tag.
#[derive(Clone, Debug)]
pub(super) struct Resolution {
    named: Descriptor,
    how: Outcome,
    lane: Option<LaneName>,
}

/// A manifest and whether a source was asked for it.
#[derive(Clone)]
pub(super) struct Found {
    manifest: Manifest,
    fetched: bool,
    lane: Option<LaneName>,
}

impl Cache {
    /// Returns the manifest, from memory if it is there, else from the store or the registry.
    pub async fn manifest(&self, origin: &Origin, reference: &Reference) -> Result<Served<Manifest>, Error> {
        if let Some(manifest) = self.manifest_in_memory(origin, reference) {
            return Ok(Served::new(manifest, Outcome::Hit));
        }
        match reference {
            Reference::Digest(digest) => self.manifest_by_digest(origin, digest, Purpose::Missing).await,
            Reference::Tag(tag) => self.manifest_by_tag(origin, tag).await,
        }
    }

    /// Returns a manifest's descriptor. Costs no quota: an unknown manifest is asked for by HEAD and not fetched.
    pub async fn manifest_descriptor(
        &self,
        origin: &Origin,
        reference: &Reference,
    ) -> Result<Served<Descriptor>, Error> {
        if let Some(manifest) = self.manifest_in_memory(origin, reference) {
            return Ok(Served::new(manifest.descriptor, Outcome::Hit));
        }
        match reference {
            Reference::Tag(tag) => self.descriptor_by_tag(origin, tag).await,
            Reference::Digest(digest) => {
                if let Some(manifest) = self.stored_manifest(origin, digest).await? {
                    return Ok(Served::new(manifest.descriptor.clone(), Outcome::Hit));
                }
                let wanted = Wanted::Manifest(*digest);
                if let Some(error) = self.parts.absent.find(origin, &wanted) {
                    return Err(Error::Source(error));
                }
                let told = origin.source.has_manifest(&origin.repository, digest).await;
                let Told { content, lane } = self.noted(origin, &wanted, told)?;
                Ok(Served::new(content, Outcome::Passed).by(lane))
            }
        }
    }

    /// Answers at once, or not at all: the way of nearly every pull.
    fn manifest_in_memory(&self, origin: &Origin, reference: &Reference) -> Option<Manifest> {
        let parts = &self.parts;
        let digest = match reference {
            Reference::Digest(digest) => *digest,
            Reference::Tag(tag) => {
                let record = parts.index.tag_in_memory(&key(origin, tag.clone()))?;
                if decide(Some(&record), parts.clock.wall(), &origin.freshness, || saving(origin))
                    != Action::Serve
                {
                    return None;
                }
                record.digest
            }
        };
        let found = parts.manifests.get(&key(origin, digest))?;
        parts.index.used(&digest);
        Some(found)
    }

    async fn manifest_by_tag(&self, origin: &Origin, tag: &Tag) -> Result<Served<Manifest>, Error> {
        let mut resolved = self.resolve(origin, tag).await?;
        let purpose = match saving(origin) {
            Thrift::Low if self.older(origin, tag, &resolved.content.digest).await.is_some() => {
                Purpose::Refresh
            }
            _ => Purpose::Missing,
        };
        let mut found = self.manifest_by_digest(origin, &resolved.content.digest, purpose).await;
        if resolved.outcome == Outcome::Hit && found.as_ref().is_err_and(Error::is_not_found) {
            // What the tag named a moment ago is gone, here and at the registry: it names something else by now.
            let known = self.parts.index.tag_in_memory(&key(origin, tag.clone()));
            resolved = self.ask(origin, tag, known.as_deref()).await?;
            found = self.manifest_by_digest(origin, &resolved.content.digest, purpose).await;
        }
        match found {
            Ok(found) => {
                let outcome = match (found.outcome, resolved.outcome) {
                    // The tag is new or moved; what it names was here already.
                    (Outcome::Hit, Outcome::Passed) => Outcome::Revalidated,
                    (Outcome::Hit, of_tag) => of_tag,
                    (of_manifest, _) => of_manifest,
                };
                let lane = found.lane.or(resolved.lane);
                Ok(Served { content: found.content, outcome, lane, warning: resolved.warning })
            }
            Err(Error::Source(error)) => self.manifest_by_old_tag(origin, tag, error).await,
            Err(error) => Err(error),
        }
    }

    /// The tag names something that cannot be fetched now: what it named before is served, if that is here.
    async fn manifest_by_old_tag(
        &self,
        origin: &Origin,
        tag: &Tag,
        error: Arc<SourceError>,
    ) -> Result<Served<Manifest>, Error> {
        let Some(old) = self.linked_before(origin, tag, error.kind).await else {
            return Err(Error::Source(error));
        };
        match self.stored_manifest(origin, &old).await {
            Ok(Some(manifest)) => {
                report(origin, &error);
                Ok(self.stale(&error, manifest))
            }
            _ => Err(Error::Source(error)),
        }
    }

    /// Returns what the tag named when its manifest was last stored, where that may be served after such an error.
    async fn linked_before(&self, origin: &Origin, tag: &Tag, kind: SourceErrorKind) -> Option<Digest> {
        let (name, tag) = key(origin, tag.clone());
        let old = self.blocking(move |parts| parts.index.linked_record(&name, &tag)).await.flatten();
        let now = self.parts.clock.wall();
        Some(old.filter(|old| serve_stale(old, now, &origin.freshness, kind))?.digest)
    }

    /// Returns what can be served in the place of what a tag names now: what it named before, where that is stored and the
    /// new is not.
    async fn older(&self, origin: &Origin, tag: &Tag, named: &Digest) -> Option<Manifest> {
        let old = self.linked_before(origin, tag, SourceErrorKind::TooManyRequests).await;
        let old = old.filter(|old| old != named)?;
        if !matches!(self.stored_manifest(origin, named).await, Ok(None)) {
            return None;
        }
        self.stored_manifest(origin, &old).await.ok().flatten()
    }

    /// Tells what a tag names. A client asks for what it is told, so while a quota is saved it is told of what is here.
    async fn descriptor_by_tag(&self, origin: &Origin, tag: &Tag) -> Result<Served<Descriptor>, Error> {
        let resolved = self.resolve(origin, tag).await?;
        if saving(origin) == Thrift::Plenty {
            return Ok(resolved);
        }
        let Some(old) = self.older(origin, tag, &resolved.content.digest).await else { return Ok(resolved) };
        let message = "the tag names another manifest by now, and what is left of the quota is saved";
        let registry = Arc::clone(&origin.registry);
        let error = SourceError::new(registry, SourceErrorKind::TooManyRequests, message);
        Ok(self.stale(&error, old.descriptor))
    }

    /// Returns what the tag names, asking the registry where what is known is not fresh.
    async fn resolve(&self, origin: &Origin, tag: &Tag) -> Result<Served<Descriptor>, Error> {
        let (name, known_tag) = key(origin, tag.clone());
        let known = self.blocking(move |parts| parts.index.tag(&name, &known_tag)).await.flatten();
        let now = self.parts.clock.wall();
        match (decide(known.as_deref(), now, &origin.freshness, || saving(origin)), known) {
            (Action::Serve, Some(record)) => {
                let descriptor = self.described(origin, &record).await?;
                Ok(Served::new(descriptor, Outcome::Hit))
            }
            (Action::Check, Some(record)) => self.check(origin, tag, &record).await,
            (_, known) => self.ask(origin, tag, known.as_deref()).await,
        }
    }

    /// Asks the registry what the tag names, for no longer than what is known can wait.
    async fn check(
        &self,
        origin: &Origin,
        tag: &Tag,
        record: &TagRecord,
    ) -> Result<Served<Descriptor>, Error> {
        let error = match self.failed_a_moment_ago(origin, tag) {
            Some(error) => error,
            None => match self.ask_within_deadline(origin, tag, record).await {
                Err(Error::Source(error)) => {
                    let now = self.parts.clock.now();
                    self.parts.failed_checks.insert(key(origin, tag.clone()), (now, Arc::clone(&error)));
                    report(origin, &error);
                    error
                }
                answer => return answer,
            },
        };
        if !serve_stale(record, self.parts.clock.wall(), &origin.freshness, error.kind) {
            return Err(Error::Source(error));
        }
        let Ok(descriptor) = self.described(origin, record).await else { return Err(Error::Source(error)) };
        Ok(self.stale(&error, descriptor))
    }

    async fn ask_within_deadline(
        &self,
        origin: &Origin,
        tag: &Tag,
        record: &TagRecord,
    ) -> Result<Served<Descriptor>, Error> {
        let deadline = origin.freshness.check_deadline;
        tokio::time::timeout(deadline, self.ask(origin, tag, Some(record))).await.unwrap_or_else(|_| {
            let message = format!("no answer within {deadline:?}");
            Err(SourceError::new(Arc::clone(&origin.registry), SourceErrorKind::Timeout, message).into())
        })
    }

    fn failed_a_moment_ago(&self, origin: &Origin, tag: &Tag) -> Option<Arc<SourceError>> {
        let (at, error) = self.parts.failed_checks.get(&key(origin, tag.clone()))?;
        let believed = origin.freshness.tag_ttl.min(FAILED_CHECK_TTL_MAX);
        let age = self.parts.clock.now().saturating_duration_since(at);
        (age < believed).then_some(error)
    }

    /// Asks the registry what the tag names, once for all who ask. `known` is what the caller found wanting.
    async fn ask(
        &self,
        origin: &Origin,
        tag: &Tag,
        known: Option<&TagRecord>,
    ) -> Result<Served<Descriptor>, Error> {
        let (cache, from, asked_tag, known) = (self.clone(), origin.clone(), tag.clone(), known.cloned());
        let flight = self.parts.tag_flights.run(key(origin, tag.clone()), || async move {
            if let Some(resolution) = cache.resolved_meanwhile(&from, &asked_tag, known.as_ref()) {
                return resolution;
            }
            let resolved = from.source.resolve(&from.repository, &asked_tag).await;
            cache.tag_was_resolved(&from, &asked_tag, resolved).await
        });
        let landed = flight.await.ok_or(Error::Internal("resolving a tag"))?;
        let Resolution { named, how, lane } = landed.value.clone()?;
        Ok(Served::new(named, landed.outcome(how)).by(lane))
    }

    /// Returns what another flight brought between the caller's look at what is known and the start of this one.
    fn resolved_meanwhile(
        &self,
        origin: &Origin,
        tag: &Tag,
        known: Option<&TagRecord>,
    ) -> Option<Result<Resolution, Error>> {
        if let Some(error) = self.parts.absent.find(origin, &Wanted::Tag(tag.clone())) {
            return Some(Err(Error::Source(error)));
        }
        let record = self.parts.index.tag_in_memory(&key(origin, tag.clone()))?;
        let is_news = known != Some(&*record)
            && decide(Some(&record), self.parts.clock.wall(), &origin.freshness, || saving(origin))
                == Action::Serve;
        let named = record.descriptor.clone().filter(|_| is_news)?;
        let unchanged = known.is_some_and(|known| known.digest == named.digest);
        let how = if unchanged { Outcome::Revalidated } else { Outcome::Passed };
        Some(Ok(Resolution { named, how, lane: None }))
    }

    async fn tag_was_resolved(
        &self,
        origin: &Origin,
        tag: &Tag,
        resolved: Result<Told<Resolved>, SourceError>,
    ) -> Result<Resolution, Error> {
        let (named, fetched, lane) = match self.noted(origin, &Wanted::Tag(tag.clone()), resolved) {
            Ok(Told { content: Resolved::Descriptor(named), lane }) => (named, false, lane),
            Ok(Told { content: Resolved::Manifest(manifest), lane }) => {
                (self.admit(origin, manifest).await.descriptor, true, lane)
            }
            Err(Error::Source(error)) if error.kind == SourceErrorKind::NotFound => {
                let (name, gone) = key(origin, tag.clone());
                self.blocking(move |parts| {
                    logged("a tag was not removed", parts.index.remove_tag(&name, &gone))
                })
                .await;
                return Err(Error::Source(error));
            }
            Err(error) => return Err(error),
        };
        self.parts.failed_checks.remove(&key(origin, tag.clone()));
        let (name, tag, descriptor) = (origin.tree_name.clone(), tag.clone(), named.clone());
        let unchanged = self.blocking(move |parts| {
            let unchanged = parts.index.linked_tag(&name, &tag) == Some(descriptor.digest);
            logged("a tag was not noted", parts.index.set_tag(&name, &tag, &descriptor));
            unchanged
        });
        let how = match unchanged.await {
            _ if fetched => Outcome::Filled,
            Some(true) => Outcome::Revalidated,
            _ => Outcome::Passed,
        };
        Ok(Resolution { named, how, lane })
    }

    /// Returns the full descriptor of what a record names; the tree alone knows only the digest.
    async fn described(&self, origin: &Origin, record: &TagRecord) -> Result<Descriptor, Error> {
        if let Some(descriptor) = &record.descriptor {
            return Ok(descriptor.clone());
        }
        let found = self.manifest_by_digest(origin, &record.digest, Purpose::Missing).await?;
        Ok(found.content.descriptor)
    }

    async fn manifest_by_digest(
        &self,
        origin: &Origin,
        digest: &Digest,
        purpose: Purpose,
    ) -> Result<Served<Manifest>, Error> {
        let mut may_ask_anew = purpose == Purpose::Missing;
        loop {
            let (cache, from, wanted) = (self.clone(), origin.clone(), *digest);
            let find = || async move { cache.find_manifest(&from, &wanted, purpose).await };
            let landed = self.parts.manifest_flights.run(key(origin, *digest), find).await;
            let landed = landed.ok_or(Error::Internal("finding a manifest"))?;
            let found = match landed.value.clone() {
                // It was refused to somebody who can do without.
                Err(Error::Source(error))
                    if landed.joined && may_ask_anew && error.kind == SourceErrorKind::TooManyRequests =>
                {
                    may_ask_anew = false;
                    continue;
                }
                found => found?,
            };
            let outcome = match found.fetched {
                false => Outcome::Hit,
                true if found.manifest.descriptor.media_type.is_signed() => Outcome::Passed,
                true => landed.outcome(Outcome::Filled),
            };
            return Ok(Served::new(found.manifest, outcome).by(found.lane));
        }
    }

    async fn find_manifest(
        &self,
        origin: &Origin,
        digest: &Digest,
        purpose: Purpose,
    ) -> Result<Found, Error> {
        if let Some(manifest) = self.stored_manifest(origin, digest).await? {
            return Ok(Found { manifest, fetched: false, lane: None });
        }
        let wanted = Wanted::Manifest(*digest);
        if let Some(error) = self.parts.absent.find(origin, &wanted) {
            return Err(Error::Source(error));
        }
        let reference = Reference::Digest(*digest);
        let fetched = origin.source.manifest(&origin.repository, &reference, purpose).await;
        let Told { content, lane } = self.noted(origin, &wanted, fetched)?;
        Ok(Found { manifest: self.admit(origin, content).await, fetched: true, lane })
    }

    pub(super) fn stale<T>(&self, error: &SourceError, content: T) -> Served<T> {
        self.parts.metrics.stale_served.inc();
        let warning = Arc::from(format!("served from the cache, perhaps out of date: {error}"));
        Served { warning: Some(warning), ..Served::new(content, Outcome::Stale) }
    }

    /// Turns a source's answer into the cache's, remembering for a moment what is not there.
    pub(super) fn noted<T>(
        &self,
        origin: &Origin,
        what: &Wanted,
        answer: Result<T, SourceError>,
    ) -> Result<T, Error> {
        answer.map_err(|error| {
            let error = Arc::new(error);
            self.parts.absent.note(origin, what, &error);
            Error::Source(error)
        })
    }
}

/// Returns whether a quota is saved at the origin.
fn saving(origin: &Origin) -> Thrift {
    origin.source.thrift(&origin.repository)
}

/// Logs, once for each time that the registry was asked, that it failed and the cache answers instead.
pub(super) fn report(origin: &Origin, error: &SourceError) {
    if error.kind == SourceErrorKind::NotFound {
        return;
    }
    tracing::warn!(
        repository = %origin.repository,
        registry = %origin.registry,
        kind = error.kind.as_str(),
        %error,
        "the registry did not answer as it should; what it said before is used where that is allowed"
    );
}
