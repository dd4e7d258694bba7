//! What a fill holds of its registry's line: the streams it has, and the requests that open them.
//!
//! Streams give back what they took when they are dropped, so that the line's count is right however a fill ends.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio_util::task::AbortOnDropHandle;

use super::{Fill, line::Line};
use crate::{
    clock::Clock,
    source::{BlobStream, Origin, SourceError, SourceErrorKind},
};

/// Registries of which it is remembered how they are best fetched from.
const LINES_MAX: usize = 512;

/// The lines to all registries.
#[derive(Default)]
pub(super) struct Lines {
    known: Mutex<HashMap<Arc<str>, Arc<Mutex<Line>>>>,
}

impl Lines {
    /// Returns a fill's hold on the line to its registry. When the fill has ended, whoever may still read from it, the line
    /// is told so ([`Line::end_fill`]).
    pub(super) fn join(&self, origin: &Origin, clock: Clock) -> Arc<OnLine> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= LINES_MAX && !known.contains_key(&origin.registry) {
            known.retain(|_, line| !locked(line).is_idle());
        }
        let streams_max = || Arc::new(Mutex::new(Line::new(origin.source.streams_max())));
        let line = Arc::clone(known.entry(Arc::clone(&origin.registry)).or_insert_with(streams_max));
        locked(&line).begin_fill(clock.now());
        Arc::new(OnLine { line, clock })
    }
}

fn locked(line: &Mutex<Line>) -> MutexGuard<'_, Line> {
    line.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A fill on a line.
pub(super) struct OnLine {
    line: Arc<Mutex<Line>>,
    clock: Clock,
}

impl OnLine {
    /// Asks the line, or tells it something, with the time of now.
    pub(super) fn with<T>(&self, what: impl FnOnce(&mut Line, Instant) -> T) -> T {
        let now = self.clock.now();
        what(&mut locked(&self.line), now)
    }
}

/// Says that a fill's blob may be fetched in parts, as long as it lives.
pub(super) struct Large(Arc<OnLine>);

impl Large {
    pub(super) fn new(on: &Arc<OnLine>) -> Self {
        on.with(|line, _| line.begin_large());
        Self(Arc::clone(on))
    }
}

impl Drop for Large {
    fn drop(&mut self) {
        self.0.with(|line, _| line.end_large());
    }
}

/// A stream, from when it is asked for to its end.
pub(super) struct Stream {
    on: Arc<OnLine>,
    flows: bool,
    /// Whether another may take its place already.
    pub(super) is_leaving: bool,
}

impl Stream {
    fn new(on: &Arc<OnLine>) -> Self {
        on.with(|line, _| line.take());
        Self { on: Arc::clone(on), flows: false, is_leaving: false }
    }

    /// Notes bytes. Returns whether so few are left of what the stream asked for that the next should be asked for:
    /// said once, and then the stream does not count any more.
    pub(super) fn received(&mut self, bytes: u64, left: Option<u64>) -> bool {
        let is_leaving = self.is_leaving;
        self.is_leaving |= self.on.with(|line, now| {
            line.received(now, bytes);
            let leaves = !is_leaving && left.is_some_and(|left| line.is_near_end(now, left));
            if leaves {
                line.leave();
            }
            leaves
        });
        self.is_leaving && !is_leaving
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.on.with(|line, now| {
            if self.flows {
                line.closed(now);
            }
            if !self.is_leaving {
                line.leave();
            }
        });
    }
}

/// A part of a blob that was asked for. It is given up when this is dropped.
pub(super) struct Asked {
    pub(super) start: u64,
    /// Where it ends; `None` is with the blob.
    pub(super) end: Option<u64>,
    stream: Stream,
    since: Instant,
    answer: AbortOnDropHandle<(Result<BlobStream, SourceError>, Instant)>,
}

impl Asked {
    /// Asks for the bytes from `start` to `end` (exclusive), or to the end of the blob.
    pub(super) fn new(fill: &Arc<Fill>, start: u64, end: Option<u64>) -> Self {
        let stream = Stream::new(&fill.line);
        let (fill, clock) = (Arc::clone(fill), fill.line.clock.clone());
        let since = clock.now();
        let answer = tokio::spawn(async move {
            let origin = &fill.origin;
            let answer = origin.source.blob(&origin.repository, &fill.digest, start, end).await;
            (answer, clock.now())
        });
        Self { start, end, stream, since, answer: AbortOnDropHandle::new(answer) }
    }

    /// Returns the bytes once they begin to come.
    pub(super) async fn opened(self, fill: &Fill) -> Result<(BlobStream, Stream), SourceError> {
        let Self { mut stream, since, answer, .. } = self;
        let Ok((answer, at)) = answer.await else {
            let registry = Arc::clone(&fill.origin.registry);
            return Err(SourceError::new(registry, SourceErrorKind::Unavailable, "a request was stopped"));
        };
        let opened = answer?;
        stream.flows = true;
        fill.line.with(|line, now| line.opened(now, at.saturating_duration_since(since)));
        Ok((opened, stream))
    }
}
