//! How many GETs went out by a lane in the last window, by our own count: in a few numbers, however many there were.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Into how many parts a window is cut.
const PARTS: u32 = 64;

/// The count.
#[derive(Debug)]
pub(super) struct Sent {
    window: Duration,
    /// When each part began, and how many went out in it.
    parts: VecDeque<(Instant, u64)>,
}

impl Sent {
    pub(super) fn new(window: Duration) -> Self {
        Self { window, parts: VecDeque::new() }
    }

    pub(super) fn window(&self) -> Duration {
        self.window
    }

    pub(super) fn set_window(&mut self, window: Duration) {
        self.window = window;
    }

    /// Counts one.
    pub(super) fn note(&mut self, now: Instant) {
        match self.parts.back_mut() {
            Some((since, count)) if now.saturating_duration_since(*since) < self.window / PARTS => {
                *count += 1
            }
            _ => {
                self.parts.push_back((now, 1));
                // A window that got shorter leaves parts that lie closer.
                if self.parts.len() > PARTS as usize + 1 {
                    self.parts.pop_front();
                }
            }
        }
    }

    /// Forgets those before the window; returns how many they were.
    pub(super) fn forget_old(&mut self, now: Instant) -> u64 {
        let mut old = 0;
        while let Some((since, count)) = self.parts.front()
            && now.saturating_duration_since(*since) >= self.window
        {
            old += count;
            self.parts.pop_front();
        }
        old
    }

    /// Returns how many went out in the window.
    pub(super) fn count(&self) -> u64 {
        self.parts.iter().map(|(_, count)| count).sum()
    }

    /// Returns when the first of them leaves the window.
    pub(super) fn first_leaves(&self, now: Instant) -> Option<Duration> {
        let (since, _) = self.parts.front()?;
        Some((*since + self.window).saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_went_out_leaves_the_window_and_takes_little_memory() {
        let start = Instant::now();
        let mut sent = Sent::new(SECOND * 6_400);
        for second in 0..6_400 {
            sent.note(start + SECOND * second);
        }
        assert_eq!((sent.count(), sent.parts.len()), (6_400, 64));
        assert_eq!(sent.first_leaves(start + SECOND * 6_399), Some(SECOND));
        assert_eq!(sent.forget_old(start + SECOND * 6_399), 0);
        assert_eq!(sent.forget_old(start + SECOND * 6_400), 100);
        assert_eq!(sent.first_leaves(start + SECOND * 6_400), Some(SECOND * 100));
        assert_eq!(sent.forget_old(start + SECOND * 20_000), 6_300);
        assert_eq!((sent.count(), sent.first_leaves(start)), (0, None));
    }
}
