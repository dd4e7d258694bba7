//! How many streams a registry's blobs are fetched by at once, and how long a piece each one asks for: decided by what
//! was measured. Pure: it is told the time and the bytes.
//!
//! What all streams of the registry bring together is measured over windows. If more streams are wanted, more are
//! tried, and kept where each of those added brings about what each brought before: then it is the connection that is
//! slow. Where they take from the others, it is the line: then they go, and are not tried again for a while. What was
//! found out holds for the blobs that follow. Every fill has one stream whatever is decided here; this is about those
//! beside it.

use std::time::{Duration, Instant};

/// Over how long what came is measured.
const WINDOW: Duration = Duration::from_millis(300);
/// A window in which fewer bytes came says nothing yet, until it has lasted for `WINDOW_MAX`.
const WINDOW_BYTES_MIN: u64 = 256 << 10;
const WINDOW_MAX: Duration = Duration::from_secs(2);
/// How long a new connection is given to come up to its speed before it is measured: as long as it took to be opened,
/// which is some round trips, within these bounds; none on a line so near that it matters to nobody.
const SETTLE_MIN: Duration = Duration::from_millis(10);
const SETTLE_MAX: Duration = Duration::from_millis(250);
/// What a stream that was added must bring, beside what each brought before.
const KEPT_SHARE: f64 = 0.6;
/// How many windows must show less than that before it is believed: lines are noisy, and blobs soon over.
const DOUBTS_MAX: u32 = 3;
/// Windows in which a trial must have come to an end.
const TRIAL_WINDOWS_MAX: u32 = 12;
/// How long no more streams are tried after some brought nothing, at first and at most.
const REST_FIRST: Duration = Duration::from_secs(10);
const REST_LAST: Duration = Duration::from_secs(300);
/// The same after the registry refused one, or would not have ranges served.
const REFUSED_REST: Duration = Duration::from_secs(600);
/// How long what was learned is believed while nothing comes.
const LEARNED_TTL: Duration = Duration::from_secs(600);
/// At so many bytes a second nothing is to be gained: that is about what is hashed and written.
const FAST: f64 = (200 << 20) as f64;
/// How long a piece takes that one stream asks for, so that a request costs little beside it.
const PIECE_SECONDS: f64 = 2.0;
/// The same while it is tried whether more streams bring more. If they do not, whoever reads in order gets no more of a
/// piece that comes beside than its share of the line until the piece before it is there, and then all of it at once: more than
/// a hundred readers can be given in the time that is left.
const TRIED_PIECE_SECONDS: f64 = 0.1;
/// The length of such a piece in bytes, at least and at most.
const PIECE_BYTES_MIN: u64 = 4 << 20;
const PIECE_BYTES_MAX: u64 = 64 << 20;
/// The same before anything was measured for long: some storage sends the first megabytes faster than the rest.
const PIECE_BYTES_EARLY_MAX: u64 = 16 << 20;
/// The least that is shared out near the end of a blob, so that all streams end at about the same time: what one brings
/// in so many seconds, and so many bytes.
const SHARED_SECONDS: f64 = 0.5;
const SHARED_BYTES_MIN: u64 = 2 << 20;
/// What a lone stream asks for at once: so much, or what comes in this time, so that more can be tried again later.
const STRETCH_BYTES_MIN: u64 = 64 << 20;
const STRETCH_SECONDS: f64 = 10.0;
/// Blobs below this come by one request.
pub(super) const SHARED_BLOB_BYTES_MIN: u64 = 8 << 20;
/// How early the next piece is asked for: this many times as long as opening a stream took of late, and so many seconds.
const LEAD_OPENINGS: f64 = 1.2;
const LEAD_SECONDS: f64 = 0.02;
/// What is asked for ahead of its time at most, in bytes.
const LEAD_BYTES_MAX: f64 = (16 << 20) as f64;

/// The streams of one registry, and what is known of the way there.
#[derive(Debug)]
pub(super) struct Line {
    /// The most streams that the operator allows.
    streams_max: usize,
    /// So many were found to be worth it.
    proven: usize,
    trial: Option<Trial>,
    /// More streams than this were found to be of no use: not to be tried until then.
    barrier: Option<(usize, Instant)>,
    rest: Duration,
    fills: usize,
    /// Those of them whose blob is large enough to be fetched in parts.
    large: usize,
    /// Streams that fetch or are about to, but for those near their end that have somebody to follow them.
    taken: usize,
    /// Streams that bytes come by.
    flowing: usize,
    window: Option<Window>,
    /// Since when there are streams, and what they brought: what is known before the first window ends.
    begun: Option<(Instant, u64)>,
    /// What the last window showed.
    pace: Option<Pace>,
    learned_at: Option<Instant>,
    /// How long it took to open a stream.
    opening: Duration,
    ignores_ranges: bool,
}

/// What came since when. It may begin in the future, when new streams have settled.
#[derive(Clone, Copy, Debug)]
struct Window {
    since: Instant,
    /// Until when `stream_seconds` are counted.
    counted_to: Instant,
    bytes: u64,
    stream_seconds: f64,
}

/// What all streams bring together.
#[derive(Clone, Copy, Debug)]
struct Pace {
    bytes_per_second: f64,
    /// How many there were, on average.
    streams: f64,
}

/// More streams, until it is known what they bring.
#[derive(Clone, Copy, Debug)]
struct Trial {
    before: Pace,
    /// The most streams that bytes came by at once since it began, and before.
    flowing_most: usize,
    streams: usize,
    doubts: u32,
    windows_left: u32,
}

impl Line {
    pub(super) fn new(streams_max: usize) -> Self {
        Self {
            streams_max,
            proven: 1,
            trial: None,
            barrier: None,
            rest: REST_FIRST,
            fills: 0,
            large: 0,
            taken: 0,
            flowing: 0,
            window: None,
            begun: None,
            pace: None,
            learned_at: None,
            opening: Duration::ZERO,
            ignores_ranges: false,
        }
    }

    /// Returns whether it is of no use any more: nobody fetches by it.
    pub(super) fn is_idle(&self) -> bool {
        self.fills == 0
    }

    pub(super) fn begin_fill(&mut self, now: Instant) {
        let is_old = self.learned_at.is_some_and(|at| now.saturating_duration_since(at) > LEARNED_TTL);
        if self.fills == 0 && is_old {
            let opening = self.opening;
            *self = Self { opening, ignores_ranges: self.ignores_ranges, ..Self::new(self.streams_max) };
        }
        self.fills += 1;
    }

    pub(super) fn end_fill(&mut self) {
        self.fills -= 1;
    }

    /// A fill turns out to be of a blob that may be fetched in parts. Small ones are soon over, and do not count where it is
    /// asked how many streams each may have.
    pub(super) fn begin_large(&mut self) {
        self.large += 1;
    }

    /// Such a fill has ended.
    pub(super) fn end_large(&mut self) {
        self.large -= 1;
    }

    /// A stream is about to be opened.
    pub(super) fn take(&mut self) {
        self.taken += 1;
    }

    /// It will end soon, and another may take its place.
    pub(super) fn leave(&mut self) {
        self.taken -= 1;
    }

    /// Bytes come by a stream from now on, after it took this long to be opened.
    pub(super) fn opened(&mut self, now: Instant, took: Duration) {
        self.count(now);
        self.opening = if self.opening.is_zero() { took } else { (self.opening + took) / 2 };
        let begins = self.flowing == 0;
        if begins {
            self.begun = Some((now, 0));
        }
        self.flowing += 1;
        // Of the streams that are tried, those that take the place of others change nothing that is measured.
        let is_tried = self.trial.as_mut().is_some_and(|trial| {
            let is_further = self.flowing > trial.flowing_most;
            trial.flowing_most = trial.flowing_most.max(self.flowing);
            is_further
        });
        if begins || is_tried {
            // The first are measured at once: if they come up to their speed only later, more of them are tried too soon, and
            // what is tried is measured in its turn.
            let settle = if begins { Duration::ZERO } else { self.opening.min(SETTLE_MAX) };
            let since = if settle < SETTLE_MIN { now } else { now + settle };
            self.window = Some(Window { since, counted_to: since, bytes: 0, stream_seconds: 0.0 });
        }
    }

    /// No more bytes come by a stream.
    pub(super) fn closed(&mut self, now: Instant) {
        self.count(now);
        self.flowing -= 1;
        if self.flowing == 0 {
            self.window = None;
        }
    }

    pub(super) fn received(&mut self, now: Instant, bytes: u64) {
        self.count(now);
        if let Some((_, before)) = &mut self.begun {
            *before += bytes;
        }
        let Some(window) = &mut self.window else { return };
        if now < window.since {
            return;
        }
        window.bytes += bytes;
        let lasted = now - window.since;
        if lasted < WINDOW || (window.bytes < WINDOW_BYTES_MIN && lasted < WINDOW_MAX) {
            return;
        }
        if let Some(pace) = window.pace(now) {
            self.pace = Some(pace);
            self.judge(now, pace);
        }
        // `judge` may have begun a trial, whose streams begin another window.
        self.window = Some(Window { since: now, counted_to: now, bytes: 0, stream_seconds: 0.0 });
    }

    /// The registry refused a stream beside others, or broke it off before it began.
    pub(super) fn refused(&mut self, now: Instant) {
        self.trial = None;
        self.proven = 1;
        self.barrier = Some((1, now + REFUSED_REST));
        self.learned_at = Some(now);
    }

    /// The registry sends the whole where a part was asked for.
    pub(super) fn ignores_ranges(&mut self) {
        self.ignores_ranges = true;
        self.trial = None;
        self.proven = 1;
    }

    /// Returns whether there is room for a stream beside those that every fill has.
    pub(super) fn wants_more(&self) -> bool {
        self.may_share() && self.taken < self.wanted()
    }

    /// Returns whether a stream that comes to its end should go on with another piece.
    pub(super) fn wants_all(&self) -> bool {
        self.may_share() && self.taken <= self.wanted()
    }

    /// Returns whether one stream's piece is so near its end that the next should be asked for.
    pub(super) fn is_near_end(&self, now: Instant, left_bytes: u64) -> bool {
        let lead_seconds = self.opening.as_secs_f64() * LEAD_OPENINGS + LEAD_SECONDS;
        let lead_bytes = self.each(now).map_or(0.0, |each| (each * lead_seconds).min(LEAD_BYTES_MAX));
        (left_bytes as f64) <= lead_bytes
    }

    /// Returns how many of the `left` bytes of a blob the fill's first stream asks for; `None` is all.
    pub(super) fn stretch(&self, now: Instant, left: u64) -> Option<u64> {
        if !self.may_share() {
            return None;
        }
        let len = if self.is_alone(now) {
            let worth = self.each(now).unwrap_or(0.0) * STRETCH_SECONDS;
            STRETCH_BYTES_MIN.max(worth as u64)
        } else {
            self.piece(now, left)
        };
        (len < left).then_some(len)
    }

    /// Returns how many of the `left` bytes of a blob that nobody fetches yet a further stream asks for.
    pub(super) fn piece(&self, now: Instant, left: u64) -> u64 {
        let worth = |seconds| self.each(now).map_or(0, |each| (each * seconds) as u64);
        let beside = self.wanted().saturating_sub(self.large) as u64 + 1;
        let share = (left / beside).max(SHARED_BYTES_MIN).max(worth(SHARED_SECONDS));
        let longest = if self.pace.is_some() { PIECE_BYTES_MAX } else { PIECE_BYTES_EARLY_MAX };
        let seconds = if self.trial.is_some() { TRIED_PIECE_SECONDS } else { PIECE_SECONDS };
        let len = worth(seconds).clamp(PIECE_BYTES_MIN, longest).min(share);
        // No crumbs: each piece costs a request.
        if left < len + SHARED_BYTES_MIN { left } else { len }
    }

    fn may_share(&self) -> bool {
        self.streams_max > 1 && !self.ignores_ranges
    }

    fn wanted(&self) -> usize {
        self.trial.map_or(self.proven, |trial| trial.streams)
    }

    /// Returns whether no stream will be added to those that every fill has, for a while.
    fn is_alone(&self, now: Instant) -> bool {
        let is_fast = self.pace_now(now).is_some_and(|pace| pace.bytes_per_second >= FAST);
        let rests = self.barrier.is_some_and(|(streams, until)| now < until && streams <= self.large);
        self.large >= self.streams_max || is_fast || (rests && self.wanted() <= self.large)
    }

    /// Returns what one stream brings, in bytes a second.
    fn each(&self, now: Instant) -> Option<f64> {
        self.pace_now(now).map(|pace| pace.bytes_per_second / pace.streams)
    }

    fn pace_now(&self, now: Instant) -> Option<Pace> {
        self.pace.or_else(|| self.early_pace(now))
    }

    /// Returns what can be said before the first window ends, if that is more than the first burst of a connection.
    fn early_pace(&self, now: Instant) -> Option<Pace> {
        const LASTED_MIN: Duration = Duration::from_millis(20);
        const BYTES_MIN: u64 = 2 << 20;
        let (since, bytes) = self.begun?;
        let lasted = now.saturating_duration_since(since);
        if self.flowing == 0 || bytes == 0 || (lasted < LASTED_MIN && bytes < BYTES_MIN) {
            return None;
        }
        let seconds = lasted.as_secs_f64().max(0.001);
        Some(Pace { bytes_per_second: bytes as f64 / seconds, streams: self.flowing as f64 })
    }

    /// Counts the time that streams have flowed.
    fn count(&mut self, now: Instant) {
        if let Some(window) = &mut self.window {
            window.count(now, self.flowing);
        }
    }

    fn judge(&mut self, now: Instant, pace: Pace) {
        self.learned_at = Some(now);
        let Some(mut trial) = self.trial.take() else { return self.try_more(now, pace) };
        let added = pace.streams - trial.before.streams;
        if added < 0.6 * (trial.streams as f64 - trial.before.streams) {
            // They are not all there, for want of work or since they are still being opened.
            if added < 0.25 {
                trial.before = pace;
            }
            trial.windows_left -= 1;
            self.trial = (trial.windows_left > 0).then_some(trial);
            return;
        }
        let brought = (pace.bytes_per_second - trial.before.bytes_per_second) / added;
        if brought >= KEPT_SHARE * trial.before.each() {
            tracing::debug!(streams = trial.streams, ?pace, before = ?trial.before, "more streams bring more");
            self.proven = trial.streams;
            self.barrier = None;
            self.rest = REST_FIRST;
            return self.try_more(now, pace);
        }
        trial.doubts += 1;
        if trial.doubts < DOUBTS_MAX {
            self.trial = Some(trial);
            return;
        }
        // A part of them may have been worth it.
        let were = trial.before.streams.round() as usize;
        let worth = (pace.bytes_per_second / trial.before.each() + 0.2) as usize;
        let enough = worth.min(trial.streams - 1).max(were);
        tracing::debug!(enough, ?pace, before = ?trial.before, "more streams bring no more");
        if enough > were {
            self.proven = enough;
        }
        self.barrier = Some((enough, now + self.rest));
        self.rest = (self.rest * 2).min(REST_LAST);
    }

    /// Begins a trial, if all streams that are wanted are there and more are allowed. Their number may change while they are
    /// measured, as small blobs come and go: what counts is what each brings.
    fn try_more(&mut self, now: Instant, pace: Pace) {
        let streams = self.taken.max(pace.streams.round() as usize);
        if pace.bytes_per_second >= FAST || streams < self.wanted() || !self.may_share() {
            return;
        }
        // At first in great steps, since blobs are soon over; after a disappointment one by one.
        let step = if self.rest == REST_FIRST { streams.max(1) } else { 1 };
        let limit = self.barrier.filter(|&(_, until)| now < until).map_or(usize::MAX, |(streams, _)| streams);
        let tried = (streams + step).min(self.streams_max).min(limit);
        if tried > streams {
            let trial = Trial {
                before: pace,
                flowing_most: self.flowing,
                streams: tried,
                doubts: 0,
                windows_left: TRIAL_WINDOWS_MAX,
            };
            tracing::debug!(?trial, "more streams are tried");
            self.trial = Some(trial);
        }
    }
}

impl Window {
    fn count(&mut self, now: Instant, streams: usize) {
        let lasted = now.saturating_duration_since(self.counted_to);
        self.stream_seconds += streams as f64 * lasted.as_secs_f64();
        self.counted_to += lasted;
    }

    fn pace(&self, now: Instant) -> Option<Pace> {
        let seconds = now.saturating_duration_since(self.since).as_secs_f64();
        let streams = self.stream_seconds / seconds;
        // Also false where no time has passed.
        (streams > 0.0).then(|| Pace { bytes_per_second: self.bytes as f64 / seconds, streams })
    }
}

impl Pace {
    fn each(&self) -> f64 {
        self.bytes_per_second / self.streams
    }
}

#[cfg(test)]
mod tests;
