//! A registry together with other places that have its content: its mirrors.
//!
//! It promises that a mirror can only help. A mirror is asked by digest alone, for manifests and blobs; what a tag
//! names, what there is and who has it is the registry's to say, since a mirror may be old. Whatever a mirror says or
//! fails to say, the next is asked, and the error that comes of it all is the registry's. What an account is kept for
//! is never asked of a mirror, not even by name.
//!
//! [`turn_of`] decides when a mirror is asked; `mirror` is one of them, with what is held against it.

mod mirror;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use oci::{Descriptor, Digest, Manifest, Page, Reference, RepositoryName, Tag};
use tokio::time::Instant;

use self::mirror::{ANSWER_MAX as MIRROR_ANSWER_MAX, Mirror, STALL_MAX, Wanted};
use super::{OptionsError, Upstream};
use crate::{
    clock::Clock,
    config::{self, MirrorWhen, Pace, Share},
    egress::{Bandwidth, TlsError, WayOut},
    metrics::Metrics,
    source::{
        Answer, BlobStream, LaneReport, Purpose, Resolved, Source, SourceError, SourceErrorKind, TagPage,
        Thrift, Told,
    },
};

/// How long all mirrors together may take before the registry is asked, or after it was.
const MIRRORS_ANSWER_MAX: Duration = Duration::from_secs(5);
/// After this no mirror is asked any more: whoever waits for the head of a blob does so for 25 s (`SIZE_WAIT_MAX`).
const ALL_ANSWER_MAX: Duration = Duration::from_secs(24);

/// A registry and its mirrors.
struct Mirrors {
    registry: Arc<dyn Source>,
    /// In the order in which they are asked.
    mirrors: Vec<Arc<Mirror>>,
    /// What the names of repositories begin with that only certain accounts are for.
    private: Vec<RepositoryName>,
}

/// Returns the registry that the options describe, with its mirrors around it if it has any. `ways` makes the ways out to a
/// registry of these options, or to a mirror. Sends nothing.
pub fn source(
    options: &config::Upstream,
    ways: impl Fn(&config::Upstream) -> Result<Vec<WayOut>, TlsError>,
    metrics: &Arc<Metrics>,
    clock: &Clock,
) -> Result<Arc<dyn Source>, OptionsError> {
    // Its mirrors' content is its content, so it keeps to the same bandwidth.
    let bandwidth = options.bandwidth.map(Bandwidth::new);
    let made = |options: &config::Upstream| -> Result<Arc<dyn Source>, OptionsError> {
        let (metrics, clock) = (Arc::clone(metrics), clock.clone());
        Ok(Upstream::new(options, ways(options)?, bandwidth.clone(), metrics, clock)?)
    };
    let registry = made(options)?;
    if options.mirrors.is_empty() {
        return Ok(registry);
    }
    let mut mirrors = Vec::with_capacity(options.mirrors.len());
    let mut by_name: Vec<_> = options.mirrors.iter().collect();
    by_name.sort_by(|one, other| one.name.cmp(&other.name));
    for mirror in by_name {
        let there = options_of(options, mirror);
        let source = made(&config::Upstream { pace: UNPACED, ..there.clone() })?;
        mirrors.push(Mirror::new(&options.registry, mirror, there.pace, source, metrics, clock));
    }
    Ok(Arc::new(Mirrors::new(registry, mirrors, options)))
}

/// The pace of a mirror is kept before its patience begins, by [`Mirror`].
const UNPACED: Pace = Pace { requests_max: 0, requests_per_second: 0, pulls_per_second: 0 };

/// Returns the options of a mirror as the registry that it is: asked as anybody, by the registry's ways out, at its own
/// pace. No secret of the registry's is among them.
fn options_of(registry: &config::Upstream, mirror: &config::Mirror) -> config::Upstream {
    config::Upstream {
        url: mirror.url.clone(),
        repository_prefix: mirror.repository_prefix.clone(),
        ca: registry.ca.clone(),
        egresses: registry.egresses.clone(),
        quota_reserve: Share::Count(0),
        connect_timeout: registry.connect_timeout,
        answer_timeout: registry.answer_timeout.min(MIRROR_ANSWER_MAX),
        stall_timeout: registry.stall_timeout.min(STALL_MAX),
        ..config::Upstream::named(mirror.host())
    }
}

/// Where a mirror stands in the order in which all are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    BeforeTheRegistry,
    /// Only if the registry has no answer.
    AfterTheRegistry,
}

fn turn_of(when: MirrorWhen, thrift: Thrift) -> Turn {
    match (when, thrift) {
        (MirrorWhen::First, _) | (MirrorWhen::Low, Thrift::Low) => Turn::BeforeTheRegistry,
        (MirrorWhen::Low, Thrift::Plenty) => Turn::AfterTheRegistry,
    }
}

/// Returns whether a mirror may answer where the registry did so. What it says about rights, or that there is no such
/// thing, is the last word.
fn is_no_answer(kind: SourceErrorKind) -> bool {
    match kind {
        SourceErrorKind::TooManyRequests
        | SourceErrorKind::Unavailable
        | SourceErrorKind::Timeout
        | SourceErrorKind::BadAnswer
        | SourceErrorKind::WrongContent => true,
        SourceErrorKind::NotFound
        | SourceErrorKind::Unauthorized
        | SourceErrorKind::Denied
        | SourceErrorKind::Unsupported
        | SourceErrorKind::Refused => false,
    }
}

impl Mirrors {
    fn new(registry: Arc<dyn Source>, mirrors: Vec<Arc<Mirror>>, options: &config::Upstream) -> Self {
        let private =
            options.accounts.iter().flat_map(|account| account.repositories.iter().cloned()).collect();
        Self { registry, mirrors, private }
    }

    /// Asks the mirrors and the registry in their order, until one has it; also returns the mirror whose answer it is.
    async fn first_answer<'a, T>(
        &'a self,
        repository: &'a RepositoryName,
        wanted: Wanted,
        ask: impl Fn(&'a dyn Source) -> Answer<'a, T> + Send + Sync,
    ) -> Result<(T, Option<&'a Arc<Mirror>>), SourceError> {
        let begun = Instant::now();
        let thrift = self.registry.thrift(repository);
        let is_private = self.private.iter().any(|prefix| repository.is_within(prefix));
        let ask_all = async |turn: Turn, deadline: Instant| {
            for mirror in
                self.mirrors.iter().filter(|mirror| !is_private && turn_of(mirror.when(), thrift) == turn)
            {
                if mirror.may_have(repository, wanted)
                    && let Some(answer) = mirror.answer(repository, wanted, &ask, deadline).await
                {
                    return Some((answer, Some(mirror)));
                }
            }
            None
        };
        if let Some(answered) = ask_all(Turn::BeforeTheRegistry, begun + MIRRORS_ANSWER_MAX).await {
            return Ok(answered);
        }
        let error = match ask(&*self.registry).await {
            Ok(answer) => return Ok((answer, None)),
            Err(error) => error,
        };
        if !is_no_answer(error.kind) {
            return Err(error);
        }
        let deadline = (Instant::now() + MIRRORS_ANSWER_MAX).min(begun + ALL_ANSWER_MAX);
        ask_all(Turn::AfterTheRegistry, deadline).await.ok_or(error)
    }
}

impl Source for Mirrors {
    fn registry(&self) -> &str {
        self.registry.registry()
    }

    fn streams_max(&self) -> usize {
        self.registry.streams_max()
    }

    fn lanes(&self) -> Vec<LaneReport> {
        let mut lanes = self.registry.lanes();
        lanes.extend(self.mirrors.iter().flat_map(|mirror| mirror.lanes()));
        lanes
    }

    fn thrift(&self, repository: &RepositoryName) -> Thrift {
        self.registry.thrift(repository)
    }

    fn was_wrong(&self, repository: &RepositoryName, digest: &Digest) {
        self.registry.was_wrong(repository, digest);
        for mirror in &self.mirrors {
            mirror.was_wrong(repository, digest);
        }
    }

    fn resolve<'a>(&'a self, repository: &'a RepositoryName, tag: &'a Tag) -> Answer<'a, Told<Resolved>> {
        self.registry.resolve(repository, tag)
    }

    fn manifest<'a>(
        &'a self,
        repository: &'a RepositoryName,
        reference: &'a Reference,
        purpose: Purpose,
    ) -> Answer<'a, Told<Manifest>> {
        let Reference::Digest(digest) = reference else {
            return self.registry.manifest(repository, reference, purpose);
        };
        Box::pin(async move {
            let ask = |source: &'a dyn Source| source.manifest(repository, reference, purpose);
            let (told, mirror) = self.first_answer(repository, Wanted::Manifest(*digest), ask).await?;
            let lane = mirror.map_or(told.lane, |mirror| Some(mirror.lane()));
            Ok(Told { content: told.content, lane })
        })
    }

    fn has_manifest<'a>(
        &'a self,
        repository: &'a RepositoryName,
        digest: &'a Digest,
    ) -> Answer<'a, Told<Descriptor>> {
        self.registry.has_manifest(repository, digest)
    }

    fn blob_size<'a>(
        &'a self,
        repository: &'a RepositoryName,
        digest: &'a Digest,
    ) -> Answer<'a, Told<Option<u64>>> {
        self.registry.blob_size(repository, digest)
    }

    fn blob<'a>(
        &'a self,
        repository: &'a RepositoryName,
        digest: &'a Digest,
        start: u64,
        end: Option<u64>,
    ) -> Answer<'a, BlobStream> {
        Box::pin(async move {
            let ask = |source: &'a dyn Source| source.blob(repository, digest, start, end);
            let (stream, mirror) = self.first_answer(repository, Wanted::Blob(*digest), ask).await?;
            Ok(match mirror {
                Some(mirror) => mirror.watched(repository, digest, stream, end),
                None => stream,
            })
        })
    }

    fn tags<'a>(&'a self, repository: &'a RepositoryName, page: &'a Page) -> Answer<'a, TagPage> {
        self.registry.tags(repository, page)
    }

    fn referrers<'a>(&'a self, repository: &'a RepositoryName, digest: &'a Digest) -> Answer<'a, Bytes> {
        self.registry.referrers(repository, digest)
    }
}
