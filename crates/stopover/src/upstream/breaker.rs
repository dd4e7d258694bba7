//! When not to ask: two small state machines that are told the time.
//!
//! A [`Breaker`] is for a machine that does not answer: after three failures in a row it lets one request a second
//! through as a probe and refuses the others at once. A [`Throttle`] is for a machine that answers "not so much": it
//! is closed for as long as the answer said, or for a time that grows.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::clock::Clock;

/// How many failures in a row open a breaker.
const FAILURES_MAX: u32 = 3;
/// How often an open breaker lets a probe through.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// A request given up by its caller after waiting so long for an answer counts as failed.
const HANG: Duration = Duration::from_secs(2);
/// Bounds of how long a throttle stays closed where the answer does not say.
const THROTTLE_MIN: Duration = Duration::from_secs(60);
const THROTTLE_MAX: Duration = Duration::from_secs(15 * 60);
/// After that time one request may find out; others wait so long for what it finds.
const PROBATION: Duration = Duration::from_secs(5);

/// Counts failures in a row.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures: u32,
    next_probe: Option<Instant>,
}

impl Breaker {
    /// Lets a request through, or returns when the next will be.
    pub(super) fn admit(&mut self, now: Instant) -> Result<(), Duration> {
        match self.next_probe {
            Some(next) if now < next => Err(next - now),
            Some(_) => {
                self.next_probe = Some(now + PROBE_EVERY);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Returns when the next request will be let through, if none is now. Lets nothing through.
    pub(super) fn closed(&self, now: Instant) -> Option<Duration> {
        self.next_probe.filter(|next| now < *next).map(|next| next - now)
    }

    /// Notes that the machine answered.
    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// Notes that it did not; returns whether that opened the breaker.
    pub(super) fn failed(&mut self, now: Instant) -> bool {
        self.failures = self.failures.saturating_add(1);
        if self.failures < FAILURES_MAX {
            return false;
        }
        self.next_probe.replace(now + PROBE_EVERY).is_none()
    }
}

/// Closed for a time after a refusal.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    closed_until: Option<Instant>,
    refusals: u32,
    /// Whether one request is finding out.
    is_probed: bool,
}

impl Throttle {
    /// Lets a request through, or returns how long this is closed.
    pub(super) fn admit(&mut self, now: Instant) -> Result<(), Duration> {
        match self.closed_until {
            Some(until) if now < until => Err(until - now),
            Some(_) => {
                self.closed_until = Some(now + PROBATION);
                self.is_probed = true;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Returns how long this is closed, if it is now. Lets nothing through.
    pub(super) fn closed(&self, now: Instant) -> Option<Duration> {
        self.closed_until.filter(|until| now < *until).map(|until| until - now)
    }

    /// Returns whether requests are being refused.
    pub(super) fn is_closed(&self) -> bool {
        self.closed_until.is_some()
    }

    /// Notes a refusal as [`refused`](Self::refused) does, and where nothing was said closes for no longer than `at_most`.
    pub(super) fn refused_at_most(
        &mut self,
        now: Instant,
        retry_after: Option<Duration>,
        at_most: Option<Duration>,
    ) -> Duration {
        let wait = self.refused(now, retry_after);
        let wait = at_most.map_or(wait, |at_most| wait.min(at_most));
        self.closed_until = Some(now + wait);
        wait
    }

    /// Opens before the time; the next refusal counts as another in a row.
    pub(super) fn reopen(&mut self) {
        (self.closed_until, self.is_probed) = (None, false);
    }

    /// Returns how many refusals there were in a row.
    pub(super) fn refusals(&self) -> u32 {
        self.refusals
    }

    /// Notes a refusal, and for how long, if that was said. Returns for how long this is closed.
    pub(super) fn refused(&mut self, now: Instant, retry_after: Option<Duration>) -> Duration {
        let doubled = THROTTLE_MIN * 2_u32.saturating_pow(self.refusals.min(10));
        let wait = retry_after.unwrap_or(doubled.min(THROTTLE_MAX));
        self.refusals = self.refusals.saturating_add(1);
        self.closed_until = Some(now + wait);
        self.is_probed = false;
        wait
    }

    /// Returns whether it may open in a moment, since a request is finding out.
    pub(super) fn is_probed(&self) -> bool {
        self.is_probed
    }

    /// Notes that a request was not refused.
    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }
}

/// A breaker that many use at once.
pub(super) struct Fuse {
    state: Mutex<Breaker>,
    clock: Clock,
}

impl Fuse {
    pub(super) fn new(clock: Clock) -> Self {
        Self { state: Mutex::default(), clock }
    }

    /// Lets a request through, which shall then say how it went, or returns when the next may be tried.
    pub(super) fn admit(&self) -> Result<Trial<'_>, Duration> {
        let now = self.clock.now();
        self.state().admit(now)?;
        Ok(Trial { fuse: self, started: now, judged: false })
    }

    /// Returns whether requests are being refused.
    pub(super) fn is_open(&self) -> bool {
        self.state().next_probe.is_some()
    }

    /// Returns when the next may be tried, if none may now. Takes no request for the one that finds out.
    pub(super) fn closed(&self) -> Option<Duration> {
        self.state().closed(self.clock.now())
    }

    /// Notes a failure; returns whether it opened the breaker.
    pub(super) fn failed(&self) -> bool {
        self.state().failed(self.clock.now())
    }

    fn state(&self) -> MutexGuard<'_, Breaker> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request under way. Dropped without a verdict, after a wait that a caller gave up on, it counts as failed: else a
/// machine that hangs would never open the breaker, since callers give up before we do.
pub(super) struct Trial<'a> {
    fuse: &'a Fuse,
    started: Instant,
    judged: bool,
}

impl Trial<'_> {
    /// The machine answered.
    pub(super) fn succeeded(mut self) {
        self.judged = true;
        self.fuse.state().succeeded();
    }

    /// The machine did not answer; returns whether that opened the breaker.
    pub(super) fn failed(mut self) -> bool {
        self.judged = true;
        self.fuse.failed()
    }

    /// It cannot be said.
    pub(super) fn undecided(mut self) {
        self.judged = true;
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        if !self.judged && self.fuse.clock.now() - self.started >= HANG {
            self.fuse.failed();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn three_failures_in_a_row_open_a_breaker_and_one_answer_closes_it() {
        let start = Instant::now();
        let mut breaker = Breaker::default();
        assert!(!breaker.failed(start));
        assert!(!breaker.failed(start));
        breaker.succeeded();
        assert!(!breaker.failed(start));
        assert!(!breaker.failed(start));
        assert_eq!(breaker.admit(start), Ok(()));
        assert!(breaker.failed(start));
        assert_eq!(breaker.admit(start), Err(SECOND));
        assert_eq!(breaker.admit(start + SECOND / 4), Err(SECOND * 3 / 4));
        breaker.succeeded();
        assert_eq!(breaker.admit(start), Ok(()));
    }

    #[test]
    fn an_open_breaker_lets_one_probe_a_second_through() {
        let start = Instant::now();
        let mut breaker = Breaker::default();
        (0..3).for_each(|_| _ = breaker.failed(start));
        let admitted = (0..100).filter(|tenth| breaker.admit(start + SECOND * *tenth / 10).is_ok()).count();
        assert_eq!(admitted, 9);
        assert!(!breaker.failed(start + SECOND * 10), "it was open before");
    }

    #[test]
    fn a_throttle_is_closed_as_long_as_it_was_told() {
        let start = Instant::now();
        let mut throttle = Throttle::default();
        assert_eq!(throttle.admit(start), Ok(()));
        assert_eq!(throttle.refused(start, Some(SECOND * 30)), SECOND * 30);
        assert_eq!(throttle.admit(start + SECOND * 10), Err(SECOND * 20));
        assert_eq!(throttle.admit(start + SECOND * 30), Ok(()), "one finds out");
        assert_eq!(throttle.admit(start + SECOND * 30), Err(PROBATION), "the others wait");
        throttle.succeeded();
        assert_eq!(throttle.admit(start + SECOND * 30), Ok(()));
    }

    #[test]
    fn a_throttle_that_was_told_nothing_waits_longer_each_time() {
        let start = Instant::now();
        let mut throttle = Throttle::default();
        let waits: Vec<u64> = (0..7).map(|_| throttle.refused(start, None).as_secs()).collect();
        assert_eq!(waits, [60, 120, 240, 480, 900, 900, 900]);
        throttle.succeeded();
        assert_eq!(throttle.refused(start, None), THROTTLE_MIN);
    }

    #[test]
    fn a_request_given_up_after_a_long_wait_counts_as_failed() {
        let clock = Clock::default();
        let fuse = Fuse::new(clock.clone());
        for _ in 0..3 {
            let trial = fuse.admit().expect("closed");
            clock.turn_on(HANG);
            drop(trial);
        }
        assert!(fuse.admit().is_err());
        let fuse = Fuse::new(Clock::default());
        (0..10).for_each(|_| drop(fuse.admit()));
        assert!(fuse.admit().is_ok(), "a client that goes at once says nothing about the registry");
    }
}
