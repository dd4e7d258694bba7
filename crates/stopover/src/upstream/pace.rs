//! How much a registry is asked: so many requests at once, so many a second. What is too much waits here for its turn,
//! so that a burst of clients is none at the registry, which would answer it with 429s.
//!
//! The buckets are told the time; waiting is [`Pace::turn`]'s.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{sleep, timeout_at},
};

use super::{quota::Cost, token::locked};
use crate::{clock::Clock, config};

/// How many seconds' worth may go at once after a pause.
const BURST_SECONDS: u32 = 2;
/// What must be left of the time allowed after a wait, or its turn is of no use to a request.
const LEFT_MIN: Duration = Duration::from_secs(1);

/// The turns at one registry.
pub(super) struct Pace {
    slots: Option<Semaphore>,
    requests: Option<Mutex<Bucket>>,
    pulls: Option<Mutex<Bucket>>,
    clock: Clock,
}

/// A request's turn. The next one's comes when it is dropped.
pub(super) struct Turn<'a> {
    _slot: Option<SemaphorePermit<'a>>,
}

/// Why a request gets no turn.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoTurn {
    /// Too many are before it; it makes sense to ask again after this.
    TooMany(Duration),
    /// None of those before it has come to an end.
    Late,
}

impl Pace {
    pub(super) fn new(options: config::Pace, clock: Clock) -> Self {
        let bucket = |per_second| Bucket::new(per_second).map(Mutex::new);
        let slots = options.requests_max.min(Semaphore::MAX_PERMITS);
        Self {
            slots: (slots > 0).then(|| Semaphore::new(slots)),
            requests: bucket(options.requests_per_second),
            pulls: bucket(options.pulls_per_second),
            clock,
        }
    }

    /// Waits until the request may be sent.
    pub(super) async fn turn(&self, cost: Cost, deadline: tokio::time::Instant) -> Result<Turn<'_>, NoTurn> {
        let pulls = self.pulls.as_ref().filter(|_| cost == Cost::Counted);
        for bucket in pulls.into_iter().chain(&self.requests) {
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            let wait = locked(bucket).take(self.clock.now(), left.saturating_sub(LEFT_MIN));
            let wait = wait.map_err(NoTurn::TooMany)?;
            if !wait.is_zero() {
                tracing::debug!(wait_ms = wait.as_millis(), "a request waits for its turn");
                sleep(wait).await;
            }
        }
        let Some(slots) = &self.slots else { return Ok(Turn { _slot: None }) };
        let slot = timeout_at(deadline, slots.acquire()).await.map_err(|_| NoTurn::Late)?;
        Ok(Turn { _slot: Some(slot.expect("nobody closes it")) })
    }
}

/// So many a second, with a burst after a pause: the generic cell rate algorithm.
#[derive(Debug)]
struct Bucket {
    every: Duration,
    burst: Duration,
    /// When all that was taken so far is paid for.
    paid_at: Option<Instant>,
}

impl Bucket {
    fn new(per_second: usize) -> Option<Self> {
        let per_second = u32::try_from(per_second).unwrap_or(u32::MAX);
        let every = Duration::from_secs(1).checked_div(per_second)?;
        Some(Self { every, burst: every * (per_second.saturating_mul(BURST_SECONDS) - 1), paid_at: None })
    }

    /// Takes one and returns how long to wait before it is used; takes none where that is longer than `wait_max`.
    fn take(&mut self, now: Instant, wait_max: Duration) -> Result<Duration, Duration> {
        let paid_at = self.paid_at.map_or(now, |paid_at| paid_at.max(now));
        let wait = paid_at.saturating_duration_since(now).saturating_sub(self.burst);
        if wait > wait_max {
            return Err(wait);
        }
        self.paid_at = Some(paid_at + self.every);
        Ok(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_pull_a_second_is_two_at_once_and_then_one_a_second() {
        let start = Instant::now();
        let mut bucket = Bucket::new(1).expect("one is a limit");
        let waits: Vec<_> = (0..5).map(|_| bucket.take(start, 10 * SECOND)).collect();
        assert_eq!(waits, [0, 0, 1, 2, 3].map(|seconds| Ok(SECOND * seconds)));
        assert_eq!(bucket.take(start + 3 * SECOND, 10 * SECOND), Ok(SECOND));
        assert_eq!(bucket.take(start + 60 * SECOND, SECOND), Ok(Duration::ZERO), "a pause fills it");
        assert_eq!(bucket.take(start + 60 * SECOND, SECOND), Ok(Duration::ZERO));
        assert_eq!(bucket.take(start + 60 * SECOND, SECOND), Ok(SECOND));
    }

    #[test]
    fn who_cannot_wait_so_long_takes_nothing_from_others() {
        let start = Instant::now();
        let mut bucket = Bucket::new(10).expect("ten is a limit");
        for _ in 0..20 {
            assert_eq!(bucket.take(start, Duration::ZERO), Ok(Duration::ZERO));
        }
        for _ in 0..100 {
            assert_eq!(bucket.take(start, Duration::from_millis(50)), Err(Duration::from_millis(100)));
        }
        assert_eq!(bucket.take(start, SECOND), Ok(Duration::from_millis(100)));
    }

    #[test]
    fn zero_is_no_limit() {
        assert!(Bucket::new(0).is_none());
    }

    #[tokio::test]
    async fn a_turn_begins_when_another_ends() {
        let options = config::Pace { requests_max: 1, ..config::Pace::default() };
        let pace = Pace::new(options, Clock::default());
        let far = tokio::time::Instant::now() + 60 * SECOND;
        let first = pace.turn(Cost::Other, far).await;
        let late = pace.turn(Cost::Other, tokio::time::Instant::now()).await;
        assert!(matches!(late, Err(NoTurn::Late)));
        drop(first);
        assert!(pace.turn(Cost::Free, far).await.is_ok());
    }
}
