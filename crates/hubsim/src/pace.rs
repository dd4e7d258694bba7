//! The speed of the line: a bucket for each connection and one for all of them.
//!
//! A bucket hands out times rather than bytes: who wants to send reserves, and is told when its bytes would have
//! arrived over a line of that rate. Waking late costs nothing, since the next reservation starts where the last ended.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

/// How far a reservation may start in the past, to make up for timers that wake late.
const CATCH_UP: Duration = Duration::from_millis(5);
/// How much time one slice takes on the line: short enough to look smooth.
const SLICE: Duration = Duration::from_millis(10);
/// The largest slice handed to a connection at once.
pub(crate) const SLICE_BYTES_MAX: usize = 256 << 10;
const SLICE_BYTES_MIN: u64 = 256;

/// A rate in bytes a second that may change while it is in use; 0 is one without limit.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rate(Arc<AtomicU64>);

impl Rate {
    pub(crate) fn set(&self, rate: Option<u64>) {
        self.0.store(rate.unwrap_or(0), Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A line of some rate.
#[derive(Debug)]
pub(crate) struct Bucket {
    rate: Rate,
    next: Mutex<Option<Instant>>,
}

impl Bucket {
    pub(crate) fn new(rate: Rate) -> Self {
        Self { rate, next: Mutex::new(None) }
    }

    /// Returns how many bytes make a smooth slice.
    pub(crate) fn slice_bytes(&self) -> usize {
        match self.rate.now() {
            0 => SLICE_BYTES_MAX,
            rate => {
                let smooth = (rate / (1000 / SLICE.as_millis() as u64)).max(SLICE_BYTES_MIN);
                smooth.min(SLICE_BYTES_MAX as u64) as usize
            }
        }
    }

    /// Returns when `bytes` that are sent now have arrived; `None` is at once.
    pub(crate) fn reserve(&self, bytes: usize) -> Option<Instant> {
        let rate = self.rate.now();
        if rate == 0 {
            return None;
        }
        let now = Instant::now();
        let earliest = now.checked_sub(CATCH_UP).unwrap_or(now);
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let start = next.map_or(now, |next| next.max(earliest));
        let end = start + Duration::from_secs_f64(bytes as f64 / rate as f64);
        *next = Some(end);
        (end > now).then_some(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_of_slices_takes_a_second() {
        let rate = Rate::default();
        rate.set(Some(4_000_000));
        let bucket = Bucket::new(rate);
        let start = Instant::now();
        let mut sent = 0;
        let mut end = start;
        while sent < 4_000_000 {
            sent += bucket.slice_bytes();
            end = bucket.reserve(bucket.slice_bytes()).unwrap_or(end);
        }
        let took = (end - start).as_secs_f64();
        assert!((0.99..1.1).contains(&took), "{took}");
    }

    #[test]
    fn a_line_without_limit_never_waits() {
        let bucket = Bucket::new(Rate::default());
        assert_eq!(bucket.reserve(1 << 30), None);
        assert_eq!(bucket.slice_bytes(), SLICE_BYTES_MAX);
    }
}
