//! One mirror: what it is asked, how long it is waited for, and what is held against it.
//!
//! What is held against it has three reaches. Of one digest: it has it not, or broke off in the middle of it; that is
//! believed for minutes. Of the mirror: it did not answer several times in a row; it rests for a time that grows. And: it
//! sent what is not what its digest says; it is left out for long. All of it is forgotten with the process.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::stream::{BoxStream, Stream, StreamExt};
use oci::{Digest, RepositoryName};
use quick_cache::sync::Cache as Memory;
use tokio::time::timeout_at;

use crate::{
    clock::Clock,
    config::{self, MirrorWhen, Pace},
    metrics::Metrics,
    source::{Answer, BlobStream, LaneName, LaneReport, LaneState, Source, SourceError, SourceErrorKind},
    upstream::{breaker::Throttle, pace, quota::Cost, token::locked},
};

/// How long one mirror may take to the head of an answer: the registry or the next one waits behind it.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(3);
/// How long one may pause in the middle of a body.
pub(super) const STALL_MAX: Duration = Duration::from_secs(5);
/// After so many requests in a row without an answer it rests.
const FAILURES_MAX: u32 = 3;
/// How long it is believed that it has something not. One that is itself a cache may have it later.
const LACKING: Duration = Duration::from_secs(5 * 60);
/// How long it is not asked for what it broke off in the middle of.
const BROKEN: Duration = Duration::from_secs(60);
/// How long it is left out after it sent what is not what its digest says.
const DISTRUST: Duration = Duration::from_secs(10 * 60);
/// How many digests are remembered that it has not, and how many blobs that it has sent.
const REMEMBERED_MAX: usize = 4_096;

/// What is asked for. A manifest's digest is asked for as a blob too, by clients that know no better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Wanted {
    Manifest(Digest),
    Blob(Digest),
}

impl Wanted {
    fn cost(self) -> Cost {
        match self {
            Self::Manifest(_) => Cost::Counted,
            Self::Blob(_) => Cost::Other,
        }
    }
}

/// One mirror of a registry.
pub(super) struct Mirror {
    registry: Arc<str>,
    name: String,
    lane: LaneName,
    repositories: Vec<RepositoryName>,
    when: MirrorWhen,
    source: Arc<dyn Source>,
    pace: pace::Pace,
    rest: Mutex<Rest>,
    /// Until when it is not asked for something again.
    lacking: Memory<(RepositoryName, Wanted), Instant>,
    /// Blobs of which it has sent something.
    sent: Memory<Digest, ()>,
    metrics: Arc<Metrics>,
    clock: Clock,
}

impl Mirror {
    /// Returns the mirror of `registry` that `options` describe, asked through `source` no faster than `pace`.
    pub(super) fn new(
        registry: &str,
        options: &config::Mirror,
        pace: Pace,
        source: Arc<dyn Source>,
        metrics: &Arc<Metrics>,
        clock: &Clock,
    ) -> Arc<Self> {
        Arc::new(Self {
            registry: registry.into(),
            name: options.name.clone(),
            lane: format!("mirror {}", options.name).into(),
            repositories: options.repositories.clone(),
            when: options.when,
            source,
            pace: pace::Pace::new(pace, clock.clone()),
            rest: Mutex::default(),
            lacking: Memory::new(REMEMBERED_MAX),
            sent: Memory::new(REMEMBERED_MAX),
            metrics: Arc::clone(metrics),
            clock: clock.clone(),
        })
    }

    pub(super) fn when(&self) -> MirrorWhen {
        self.when
    }

    /// Returns its name as a lane.
    pub(super) fn lane(&self) -> LaneName {
        Arc::clone(&self.lane)
    }

    /// Returns whether it makes sense to ask it for this now.
    pub(super) fn may_have(&self, repository: &RepositoryName, wanted: Wanted) -> bool {
        let now = self.clock.now();
        let is_for = self.repositories.is_empty()
            || self.repositories.iter().any(|prefix| repository.is_within(prefix));
        is_for
            && locked(&self.rest).left(now).is_none()
            && self.lacking.get(&(repository.clone(), wanted)).is_none_or(|until| until <= now)
    }

    /// Asks it, until `deadline` at the latest; `None` is no answer, for whatever reason.
    pub(super) async fn answer<'a, T>(
        &'a self,
        repository: &RepositoryName,
        wanted: Wanted,
        ask: impl Fn(&'a dyn Source) -> Answer<'a, T>,
        deadline: tokio::time::Instant,
    ) -> Option<T> {
        let deadline = deadline.min(tokio::time::Instant::now() + ANSWER_MAX);
        let Ok(_turn) = self.pace.turn(wanted.cost(), deadline).await else {
            self.count(SourceErrorKind::TooManyRequests.as_str());
            return None;
        };
        let asked = self.clock.now();
        if !locked(&self.rest).admit(asked) {
            return None;
        }
        let error = match timeout_at(deadline, ask(&*self.source)).await {
            Ok(Ok(answer)) => {
                locked(&self.rest).answered();
                self.count("ok");
                return Some(answer);
            }
            Ok(Err(error)) => error,
            Err(_) => {
                let message = format!("no answer within {ANSWER_MAX:?}");
                SourceError::new(Arc::clone(&self.registry), SourceErrorKind::Timeout, message)
            }
        };
        self.count(error.kind.as_str());
        tracing::debug!(mirror = self.name, %error, "a mirror has no answer");
        self.hold_against(repository, wanted, &error, asked);
        None
    }

    fn hold_against(&self, repository: &RepositoryName, wanted: Wanted, error: &SourceError, asked: Instant) {
        match error.kind {
            SourceErrorKind::NotFound
            | SourceErrorKind::Unauthorized
            | SourceErrorKind::Denied
            | SourceErrorKind::Unsupported => {
                locked(&self.rest).answered();
                self.lacks(repository, wanted, LACKING);
            }
            // Its own restraint sees to it, of manifests and blobs apart.
            SourceErrorKind::TooManyRequests => {}
            SourceErrorKind::Unavailable
            | SourceErrorKind::Timeout
            | SourceErrorKind::BadAnswer
            | SourceErrorKind::Refused => {
                if let Some(wait) = locked(&self.rest).failed(asked, self.clock.now()) {
                    tracing::warn!(
                        mirror = self.name, registry = %self.registry, %error, wait_s = wait.as_secs(),
                        "a mirror does not answer; it is not asked for a while"
                    );
                }
            }
            SourceErrorKind::WrongContent => self.distrust(repository, wanted, &error.message),
        }
    }

    fn lacks(&self, repository: &RepositoryName, wanted: Wanted, how_long: Duration) {
        self.lacking.insert((repository.clone(), wanted), self.clock.now() + how_long);
    }

    fn distrust(&self, repository: &RepositoryName, wanted: Wanted, why: &str) {
        self.lacks(repository, wanted, DISTRUST);
        locked(&self.rest).lied(self.clock.now());
        tracing::warn!(
            mirror = self.name, registry = %self.registry, %repository, why, wait_s = DISTRUST.as_secs(),
            "a mirror sent what is not what its digest says; it was not used, and the mirror is left out for a while"
        );
    }

    /// Hears that a blob that was sent was wrong. It is not asked for it here again, and if any of it came from here,
    /// nothing is for a while.
    pub(super) fn was_wrong(&self, repository: &RepositoryName, digest: &Digest) {
        let wanted = Wanted::Blob(*digest);
        if self.sent.remove(digest).is_some() {
            self.count(SourceErrorKind::WrongContent.as_str());
            self.distrust(repository, wanted, "a blob");
        } else {
            self.lacks(repository, wanted, DISTRUST);
        }
    }

    /// Returns the stream as one of this mirror's, which is held against it if it breaks.
    pub(super) fn watched(
        self: &Arc<Self>,
        repository: &RepositoryName,
        digest: &Digest,
        stream: BlobStream,
        end: Option<u64>,
    ) -> BlobStream {
        self.sent.insert(*digest, ());
        let until = match (end, stream.size) {
            (Some(end), Some(size)) => Some(end.min(size)),
            (_, size) => size,
        };
        let watched = Watched {
            body: stream.body,
            left: until.map(|until| until.saturating_sub(stream.start)),
            mirror: Arc::clone(self),
            repository: repository.clone(),
            digest: *digest,
        };
        BlobStream { lane: Some(self.lane()), body: watched.boxed(), ..stream }
    }

    /// Returns how things stand with it, as with a lane.
    pub(super) fn lanes(&self) -> Vec<LaneReport> {
        let left = locked(&self.rest).left(self.clock.now());
        let reported = |mut lane: LaneReport| {
            lane.account = self.lane.to_string();
            if let Some((wait, why)) = left {
                (lane.state, lane.reason, lane.resets_in) =
                    (LaneState::Resting, Some(why.to_owned()), Some(wait));
            }
            lane
        };
        self.source.lanes().into_iter().map(reported).collect()
    }

    fn count(&self, result: &'static str) {
        self.metrics.mirror(&self.registry, &self.name, result);
    }
}

/// The bytes of a blob from a mirror.
struct Watched {
    body: BoxStream<'static, Result<Bytes, SourceError>>,
    /// How many are still to come, where that is known.
    left: Option<u64>,
    mirror: Arc<Mirror>,
    repository: RepositoryName,
    digest: Digest,
}

impl Stream for Watched {
    type Item = Result<Bytes, SourceError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = ready!(self.body.poll_next_unpin(cx));
        let broke = match &next {
            Some(Ok(bytes)) => {
                self.left = self.left.map(|left| left.saturating_sub(bytes.len() as u64));
                false
            }
            Some(Err(_)) => true,
            None => self.left.is_some_and(|left| left > 0),
        };
        if broke {
            self.mirror.lacks(&self.repository, Wanted::Blob(self.digest), BROKEN);
            self.mirror.count("broken");
        }
        Poll::Ready(next)
    }
}

/// Whether a mirror is asked at all: told the time.
#[derive(Debug, Default)]
pub(super) struct Rest {
    failures: u32,
    /// Closed after failures, for a time that grows.
    throttle: Throttle,
    /// When the last such time began.
    rests_since: Option<Instant>,
    distrusted_until: Option<Instant>,
}

impl Rest {
    /// Returns for how long it is not asked, and why, if it is not.
    pub(super) fn left(&self, now: Instant) -> Option<(Duration, &'static str)> {
        let distrusted = self.distrusted_until.filter(|until| now < *until).map(|until| until - now);
        match (distrusted, self.throttle.closed(now)) {
            (Some(left), _) => Some((left, "it sent what is not what its digest says")),
            (None, Some(left)) => Some((left, "it did not answer")),
            (None, None) => None,
        }
    }

    /// Lets a request through, if it is asked at all; after a rest, one that finds out.
    pub(super) fn admit(&mut self, now: Instant) -> bool {
        self.distrusted_until.is_none_or(|until| until <= now) && self.throttle.admit(now).is_ok()
    }

    /// Notes that it answered, whatever it said.
    pub(super) fn answered(&mut self) {
        self.failures = 0;
        self.rests_since = None;
        self.throttle.succeeded();
    }

    /// Notes that it did not answer what it was asked at `asked`. Returns how long it rests, if this is why.
    pub(super) fn failed(&mut self, asked: Instant, now: Instant) -> Option<Duration> {
        // Many may have waited for it when its rest began: they tell nothing new.
        if self.rests_since.is_some_and(|since| asked <= since) {
            return None;
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures < FAILURES_MAX {
            return None;
        }
        self.rests_since = Some(now);
        Some(self.throttle.refused(now, None))
    }

    /// Notes that it sent what is not what its digest says.
    pub(super) fn lied(&mut self, now: Instant) {
        self.distrusted_until = Some(now + DISTRUST);
    }
}
