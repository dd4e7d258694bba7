//! The time, and a way for tests to turn it.
//!
//! Two clocks, since they answer different questions: [`Clock::now`] never jumps and measures waits;
//! [`Clock::wall`] is what the calendar says, survives a restart and may jump, so that whoever stores it must bear a
//! time in the future.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Seconds since 1970, as stored in the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wall(pub u64);

impl Wall {
    /// Returns the time since `earlier`; zero where `earlier` lies in the future, since the clock was set back.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_secs(self.0.saturating_sub(earlier.0))
    }
}

/// Tells the time.
#[derive(Clone, Default)]
pub struct Clock {
    turned_ms: Arc<AtomicU64>,
}

impl Clock {
    /// Returns an instant to measure from.
    pub fn now(&self) -> Instant {
        Instant::now() + Duration::from_millis(self.turned_ms.load(Ordering::Relaxed))
    }

    /// Returns the calendar's time.
    pub fn wall(&self) -> Wall {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Wall(since_1970.as_secs() + self.turned_ms.load(Ordering::Relaxed) / 1000)
    }

    /// Turns both clocks on; for tests of what happens much later.
    pub fn turn_on(&self, by: Duration) {
        self.turned_ms.fetch_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}
