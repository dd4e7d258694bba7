//! How far a fill has come: which parts of the file are there, and how it ended. Pure.

use std::{fs::File, sync::Arc};

use oci::Hasher;

use super::Error;
use crate::{source::LaneName, store::Spool};

/// What the readers of a fill see.
#[derive(Default)]
pub(super) struct Progress {
    /// The blob's size in bytes, once a source said it.
    pub(super) size: Option<u64>,
    /// The lane that its first bytes came by.
    pub(super) lane: Option<LaneName>,
    /// The file to read from, once there is one.
    pub(super) file: Option<Arc<File>>,
    /// The same file, to write to, while it fills up.
    pub(super) spool: Option<Spool>,
    /// Which bytes of it are there.
    pub(super) present: Ranges,
    /// Whether the fill is being given up: nobody may begin to follow it.
    pub(super) closing: bool,
    /// How the fill ended, if it has.
    pub(super) end: Option<End>,
}

/// How a fill ended.
#[derive(Clone)]
pub(super) enum End {
    /// All of it is there, and is what its digest says.
    Verified,
    /// The content was in the store after all, verified before.
    Found,
    /// It will not be completed.
    Failed(Error),
    /// The disk takes no more: whoever reads goes on without it from `from` (in bytes), with the hash of all before.
    Passing { from: u64, hasher: Box<Hasher> },
}

impl End {
    /// Returns whether the whole content is there and right.
    pub(super) fn is_right(&self) -> bool {
        matches!(self, Self::Verified | Self::Found)
    }
}

/// A set of byte ranges, ordered, apart from each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// Returns the set of the bytes below `end`.
    pub(super) fn prefix_of(end: u64) -> Self {
        Self(if end == 0 { Vec::new() } else { vec![(0, end)] })
    }

    /// Adds the bytes from `start` to `end` (exclusive).
    pub(super) fn add(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        if let [.., last] = self.0.as_mut_slice()
            && last.0 <= start
            && start <= last.1
        {
            last.1 = last.1.max(end);
            return;
        }
        let (mut start, mut end) = (start, end);
        self.0.retain(|&(from, to)| {
            let apart = to < start || end < from;
            if !apart {
                start = start.min(from);
                end = end.max(to);
            }
            apart
        });
        let at = self.0.partition_point(|&(from, _)| from < start);
        self.0.insert(at, (start, end));
    }

    /// Returns the end of the run of present bytes that begins at `position`; `position` itself if that byte is absent.
    pub(super) fn present_until(&self, position: u64) -> u64 {
        let covering = self.0.iter().find(|&&(from, to)| from <= position && position < to);
        covering.map_or(position, |&(_, to)| to)
    }

    /// Returns the length of the run of present bytes at the start.
    pub(super) fn prefix(&self) -> u64 {
        self.present_until(0)
    }

    /// Returns where the first range that begins after `position` does.
    pub(super) fn next_after(&self, position: u64) -> Option<u64> {
        self.0.iter().map(|&(from, _)| from).find(|&from| from > position)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_that_touch_become_one() {
        let mut ranges = Ranges::default();
        for (start, end) in [(10, 20), (30, 40), (0, 5), (20, 30), (7, 7)] {
            ranges.add(start, end);
        }
        assert_eq!(ranges, Ranges(vec![(0, 5), (10, 40)]));
        assert_eq!(ranges.prefix(), 5);
        assert_eq!(
            (ranges.present_until(5), ranges.present_until(10), ranges.present_until(39)),
            (5, 40, 40)
        );
        assert_eq!((ranges.next_after(5), ranges.next_after(10)), (Some(10), None));
    }

    proptest! {
        #[test]
        fn a_set_of_ranges_holds_the_bytes_added_and_no_other(
            added in prop::collection::vec((0u64..60, 0u64..20), 0..30),
        ) {
            let mut ranges = Ranges::default();
            let mut model = [false; 100];
            for (start, len) in added {
                ranges.add(start, start + len);
                model[start as usize..(start + len) as usize].fill(true);
            }
            for (at, present) in model.iter().enumerate() {
                prop_assert_eq!(ranges.present_until(at as u64) > at as u64, *present);
            }
            prop_assert!(ranges.0.windows(2).all(|pair| pair[0].1 < pair[1].0));
        }
    }
}
