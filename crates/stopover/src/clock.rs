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

/// Returns a duration as people say it, in the two largest units that it has: `5h 12m`. It is rounded up, from a minute on
/// to minutes.
pub fn in_words(duration: Duration) -> String {
    let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    let minutes = seconds.div_ceil(60);
    let (days, hours) = (minutes / (24 * 60), minutes / 60 % 24);
    let parts = match (seconds, minutes) {
        (0..60, _) => return format!("{seconds}s"),
        (_, 0..60) => return format!("{minutes}m"),
        (_, 60..1_440) => [(hours, 'h'), (minutes % 60, 'm')],
        _ => [(days, 'd'), (hours, 'h')],
    };
    let parts = parts.iter().filter(|(count, _)| *count > 0).map(|(count, unit)| format!("{count}{unit}"));
    parts.collect::<Vec<_>>().join(" ")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_said_in_two_units_and_rounded_up() {
        for (millis, want) in [
            (0, "0s"),
            (58_001, "59s"),
            (60_000, "1m"),
            (60_001, "2m"),
            (3_541_000, "1h"),
            (3_600_000, "1h"),
            (18_720_000, "5h 12m"),
            (86_400_000, "1d"),
            (90_000_000, "1d 1h"),
            (u64::MAX, "213503982334d 14h"),
        ] {
            assert_eq!(in_words(Duration::from_millis(millis)), want, "{millis}");
        }
    }
}
