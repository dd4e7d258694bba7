//! Who writes where in a fill's file. Pure.
//!
//! Each byte of the file has one writer: the filler writes what it claimed, whoever fetches a part beside it what was
//! claimed for that, and nobody writes where another did. So what was hashed is what stands in the file.

use crate::cache::progress::Ranges;

/// Ranged fetches for clients at one time for one fill.
const RANGES_MAX: usize = 4;
/// Parts that may fail in a row; after that the filler brings all: the registry may not serve ranges at all.
const FAILURES_MAX: u32 = 3;

/// Why a part is fetched beside the filler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Errand {
    /// A client wants to read there.
    Range,
    /// Two streams bring more than one.
    Share,
}

/// Who writes where.
#[derive(Debug, Default)]
pub(super) struct Claims {
    /// Where the filler's claim ends: it has all before, but for what others brought.
    filler_end: u64,
    /// Up to where the filler has asked for bytes; the maximum where it asked for all.
    asked_end: u64,
    /// The parts that others fetch.
    held: Vec<(u64, u64, Errand)>,
    /// How many of those failed in a row.
    failed: u32,
}

impl Claims {
    pub(super) fn begin(&mut self, prefix: u64) {
        (self.filler_end, self.asked_end) = (prefix, prefix);
        self.held.clear();
    }

    /// Claims up to `len` bytes at `position` for the filler; returns how many it may write.
    pub(super) fn claim(&mut self, present: &Ranges, position: u64, len: u64) -> u64 {
        let bound = self.bound_after(present, position).unwrap_or(u64::MAX);
        let end = (position + len).min(bound);
        self.filler_end = self.filler_end.max(end);
        end - position
    }

    /// Returns where the next part begins that is not the filler's to write.
    pub(super) fn bound_after(&self, present: &Ranges, position: u64) -> Option<u64> {
        let held = self.held.iter().map(|&(start, ..)| start).filter(|&start| start > position).min();
        [held, present.next_after(position)].into_iter().flatten().min()
    }

    /// The filler asks for bytes up to `end`.
    pub(super) fn ask(&mut self, end: Option<u64>) {
        self.asked_end = end.unwrap_or(u64::MAX);
    }

    /// Returns the first part of a blob of `size` bytes that nobody has asked for.
    pub(super) fn next_free(&self, present: &Ranges, size: u64) -> Option<(u64, u64)> {
        let mut start = self.asked_end;
        loop {
            let here = start;
            start = present.present_until(start);
            if let Some(&(_, end, _)) = self.held.iter().find(|held| held.0 <= start && start < held.1) {
                start = end;
            }
            if start == here {
                break;
            }
        }
        let end = self.bound_after(present, start).unwrap_or(size).min(size);
        (start < end).then_some((start, end))
    }

    /// Returns whether a part may be fetched beside the filler.
    pub(super) fn lets(&self, errand: Errand) -> bool {
        let ranges = || self.held.iter().filter(|held| held.2 == Errand::Range).count();
        self.failed < FAILURES_MAX && (errand == Errand::Share || ranges() < RANGES_MAX)
    }

    /// Returns whether somebody else is about to bring the byte at `position`.
    pub(super) fn hold(&self, position: u64) -> bool {
        self.held.iter().any(|&(start, end, _)| start <= position && position < end)
    }

    /// Returns whether the byte at `position` is claimed.
    pub(super) fn cover(&self, position: u64) -> bool {
        position < self.filler_end || self.hold(position)
    }

    pub(super) fn is_any_held(&self) -> bool {
        !self.held.is_empty()
    }

    pub(super) fn take(&mut self, start: u64, end: u64, errand: Errand) {
        self.held.push((start, end, errand));
    }

    pub(super) fn give_back(&mut self, start: u64) {
        self.held.retain(|held| held.0 != start);
    }

    pub(super) fn failed(&mut self) {
        self.failed += 1;
    }

    pub(super) fn succeeded(&mut self) {
        self.failed = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_free_is_what_nobody_has_or_has_asked_for() {
        let mut claims = Claims::default();
        let mut present = Ranges::default();
        claims.begin(0);
        claims.ask(Some(10));
        assert_eq!(claims.next_free(&present, 100), Some((10, 100)));
        claims.take(10, 20, Errand::Share);
        claims.take(50, 60, Errand::Range);
        assert_eq!(claims.next_free(&present, 100), Some((20, 50)));
        present.add(20, 35);
        assert_eq!(claims.next_free(&present, 100), Some((35, 50)), "a part that broke off is taken up");
        claims.take(35, 50, Errand::Share);
        claims.take(60, 100, Errand::Share);
        assert_eq!(claims.next_free(&present, 100), None);
        claims.give_back(10);
        assert_eq!(claims.next_free(&present, 100), Some((10, 20)));
        claims.ask(None);
        assert_eq!(claims.next_free(&present, 100), None);
    }

    #[test]
    fn the_filler_writes_up_to_where_another_does() {
        let mut claims = Claims::default();
        let mut present = Ranges::default();
        claims.take(30, 40, Errand::Share);
        assert_eq!(claims.claim(&present, 0, 100), 30);
        present.add(20, 25);
        assert_eq!((claims.claim(&present, 10, 100), claims.claim(&present, 25, 3)), (10, 3));
        assert!(claims.cover(29) && claims.cover(39) && !claims.cover(40));
    }

    #[test]
    fn after_failures_in_a_row_nothing_more_is_fetched_beside_the_filler() {
        let mut claims = Claims::default();
        for _ in 0..2 {
            claims.failed();
        }
        assert!(claims.lets(Errand::Share));
        claims.succeeded();
        for _ in 0..3 {
            assert!(claims.lets(Errand::Range));
            claims.failed();
        }
        assert!(!claims.lets(Errand::Share) && !claims.lets(Errand::Range));
        let mut claims = Claims::default();
        for start in 0..4 {
            claims.take(start, start + 1, Errand::Range);
        }
        assert!(claims.lets(Errand::Share) && !claims.lets(Errand::Range));
    }
}
