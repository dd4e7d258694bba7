//! Byte ranges (RFC 9110, section 14): what part of a blob a request selects, and what part an answer holds.
//!
//! The work and the answer are bounded: many, unsorted or overlapping ranges select the whole, as section 14.2
//! advises.

use std::fmt;

/// The most ranges that are answered one by one.
pub const RANGES_MAX: usize = 16;

/// A part of a blob; `start` is below `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    /// The offset of the first byte.
    pub start: u64,
    /// The offset after the last byte.
    pub end: u64,
    /// Whether the client wants everything to the end, as it does where it resumes a transfer (`500-`, or an end past
    /// the last byte); it may still stop reading anywhere, as containerd's parallel fetch does.
    pub open_ended: bool,
}

/// What a `Range` header selects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Everything: there is no range, or none that must be heeded.
    Whole,
    /// One part.
    Single(Span),
    /// Two or more parts, ascending and apart.
    Multiple(Vec<Span>),
    /// Nothing that exists: 416.
    Unsatisfiable,
}

/// Returns what `header` selects of a blob of `size` bytes.
///
/// A header of another unit or with broken syntax selects the whole. `500-0`, whose end is before its start, is by
/// the RFC no range at all; it is unsatisfiable here because the conformance suite wants a 416 for it. Where
/// only some of several ranges can be satisfied, the whole is selected.
pub fn select(header: Option<&str>, size: u64) -> Selection {
    let Some(ranges) = header.and_then(ranges_of) else {
        return Selection::Whole;
    };
    let mut spans: Vec<Span> = Vec::new();
    let mut unsatisfiable = 0;
    for range in ranges.split(',').map(|range| range.trim_matches([' ', '\t'])) {
        if range.is_empty() {
            continue; // RFC 9110, section 5.6.1: empty list elements count for nothing.
        }
        let Some((first, last)) = parse_range(range) else {
            return Selection::Whole;
        };
        let Some(span) = resolve(first, last, size) else {
            unsatisfiable += 1;
            continue;
        };
        if spans.len() == RANGES_MAX || spans.last().is_some_and(|before| span.start < before.end) {
            return Selection::Whole;
        }
        spans.push(span);
    }
    match spans.as_slice() {
        [] if unsatisfiable > 0 => Selection::Unsatisfiable,
        // A 206 with fewer parts than were asked for breaks podman's partial pulls.
        _ if unsatisfiable > 0 => Selection::Whole,
        [] => Selection::Whole,
        [span] => Selection::Single(*span),
        _ => Selection::Multiple(spans),
    }
}

fn ranges_of(header: &str) -> Option<&str> {
    let (unit, ranges) = header.split_once('=')?;
    unit.trim().eq_ignore_ascii_case("bytes").then_some(ranges)
}

/// Reads `first-last`, `first-` or `-suffix`.
fn parse_range(range: &str) -> Option<(Option<u64>, Option<u64>)> {
    let (first, last) = range.split_once('-')?;
    match (first, last) {
        ("", "") => None,
        ("", suffix) => Some((None, Some(saturating_number(suffix)?))),
        (first, "") => Some((Some(saturating_number(first)?), None)),
        (first, last) => Some((Some(saturating_number(first)?), Some(saturating_number(last)?))),
    }
}

/// Returns a decimal number, `u64::MAX` where it is larger, or `None` where it is none.
fn saturating_number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // Only a number too large for the type can fail here.
    Some(text.parse().unwrap_or(u64::MAX))
}

fn resolve(first: Option<u64>, last: Option<u64>, size: u64) -> Option<Span> {
    let (start, end, open_ended) = match (first, last) {
        // regclient resumes with an end one past the last byte: it means everything to the end.
        (Some(first), Some(last)) => (first, last.saturating_add(1).min(size), last >= size),
        (Some(first), None) => (first, size, true),
        (None, suffix) => (size.saturating_sub(suffix.unwrap_or_default()), size, false),
    };
    (start < end).then_some(Span { start, end, open_ended })
}

/// What part of a whole an answer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ContentRange {
    /// The offset of the first byte.
    pub start: u64,
    /// The offset after the last byte.
    pub end: u64,
    /// The size of the whole in bytes, where it is known.
    pub size: Option<u64>,
}

impl ContentRange {
    /// Reads the value of a `Content-Range` header of a 206; `None` where it makes no sense.
    pub fn parse(header: &str) -> Option<Self> {
        let (unit, range) = header.trim().split_once(' ')?;
        if !unit.eq_ignore_ascii_case("bytes") {
            return None;
        }
        let (range, size) = range.trim().split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let size = match size {
            "*" => None,
            size => Some(number(size)?),
        };
        let (start, end) = (number(first)?, number(last)?.checked_add(1)?);
        let fits = start < end && size.is_none_or(|size| end <= size);
        fits.then_some(Self { start, end, size })
    }
}

/// Returns a decimal number that fits the type, or `None`.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

impl fmt::Display for ContentRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bytes {}-{}/", self.start, self.end.saturating_sub(1))?;
        match self.size {
            Some(size) => write!(f, "{size}"),
            None => f.write_str("*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WHOLE: Selection = Selection::Whole;
    const NOTHING: Selection = Selection::Unsatisfiable;

    fn span(start: u64, end: u64) -> Span {
        Span { start, end, open_ended: false }
    }

    fn one(start: u64, end: u64) -> Selection {
        Selection::Single(span(start, end))
    }

    fn open(start: u64, end: u64) -> Selection {
        Selection::Single(Span { start, end, open_ended: true })
    }

    #[test]
    fn one_range_selects_what_there_is_of_it() {
        let table = [
            ("bytes=500-1499", one(500, 1500)),
            ("bytes=500-", open(500, 2000)),
            ("bytes=-500", one(1500, 2000)),
            ("bytes=-5000", one(0, 2000)),
            ("bytes=0-", open(0, 2000)),
            ("bytes=0-0", one(0, 1)),
            ("bytes=1999-", open(1999, 2000)),
            ("bytes=1000-2000", open(1000, 2000)), // regclient's last is one past the end
            ("bytes=1000-99999999999999999999999", open(1000, 2000)),
            ("bytes=0-18446744073709551615", open(0, 2000)),
            ("Bytes= 0-1 ", one(0, 2)),
            ("bytes=2000-", NOTHING),
            ("bytes=2001-3000", NOTHING),
            ("bytes=99999999999999999999999-", NOTHING),
            ("bytes=500-0", NOTHING),
            ("bytes=-0", NOTHING),
        ];
        for (header, wanted) in table {
            assert_eq!(select(Some(header), 2000), wanted, "{header}");
        }
    }

    #[test]
    fn what_is_not_a_byte_range_is_ignored() {
        assert_eq!(select(None, 2000), WHOLE);
        for header in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=,",
            "bytes=a-b",
            "bytes=1",
            "bytes=1-2-3",
            "bytes=+1-2",
            "bytes=0x1-2",
            "bytes=1 - 2",
            "bytes=--1",
            "bytes=0-1,x",
            "bytes=5000-,x",
            "bytes 0-1",
            "items=0-1",
            "=0-1",
            "bytes=\u{664}-\u{665}",
        ] {
            assert_eq!(select(Some(header), 2000), WHOLE, "{header}");
        }
    }

    #[test]
    fn several_ranges_come_in_order_or_not_at_all() {
        let several = |spans: &[(u64, u64)]| {
            Selection::Multiple(spans.iter().map(|&(start, end)| span(start, end)).collect())
        };
        let table = [
            ("bytes=0-1,4-5", several(&[(0, 2), (4, 6)])),
            ("bytes=0-1 ,\t2-3,, -1", several(&[(0, 2), (2, 4), (1999, 2000)])),
            ("bytes=0-1,4-5,5000-", WHOLE),
            ("bytes=0-1,5000-", WHOLE),
            ("bytes=3000-,5000-", NOTHING),
            ("bytes=4-5,0-1", WHOLE),
            ("bytes=0-5,5-9", WHOLE),
            ("bytes=0-,0-", WHOLE),
            ("bytes=0-,-1", WHOLE),
        ];
        for (header, wanted) in table {
            assert_eq!(select(Some(header), 2000), wanted, "{header}");
        }
    }

    #[test]
    fn more_ranges_than_the_limit_select_the_whole() {
        let header = |count: usize| {
            let ranges: Vec<_> = (0..count).map(|i| format!("{}-{}", i * 10, i * 10 + 4)).collect();
            format!("bytes={}", ranges.join(","))
        };
        assert!(matches!(
            select(Some(&header(RANGES_MAX)), 2000),
            Selection::Multiple(spans) if spans.len() == RANGES_MAX
        ));
        assert_eq!(select(Some(&header(RANGES_MAX + 1)), 2000), WHOLE);
    }

    #[test]
    fn nothing_can_be_selected_of_an_empty_blob() {
        assert_eq!(select(None, 0), WHOLE);
        assert_eq!(select(Some("nonsense"), 0), WHOLE);
        for header in ["bytes=0-", "bytes=0-0", "bytes=-1", "bytes=-0", "bytes=0-,5-"] {
            assert_eq!(select(Some(header), 0), NOTHING, "{header}");
        }
    }

    #[test]
    fn a_content_range_is_read_as_it_is_written() {
        for (text, start, end, size) in [
            ("bytes 500-1499/2000", 500, 1500, Some(2000)),
            ("bytes 0-0/1", 0, 1, Some(1)),
            ("bytes 5-9/*", 5, 10, None),
        ] {
            let range = ContentRange { start, end, size };
            assert_eq!(ContentRange::parse(text), Some(range));
            assert_eq!(range.to_string(), text);
        }
    }

    #[test]
    fn a_content_range_that_makes_no_sense_is_refused() {
        for text in [
            "",
            "bytes",
            "bytes 0-1",
            "bytes */2000",
            "bytes 5-4/10",
            "bytes 0-10/10",
            "items 0-1/2",
            "bytes 0-1/",
            "bytes -1/2",
            "bytes 0-/2",
            "bytes +0-1/2",
            "bytes 0-18446744073709551615/*",
            "bytes=0-1/2",
            "bytes 0-1/99999999999999999999999",
        ] {
            assert_eq!(ContentRange::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_header_selects_a_part_that_exists(
            header in prop_oneof!["\\PC*", "bytes=([0-9]{0,25}-[0-9]{0,25},){0,20}[0-9]{0,3}-"],
            size in prop_oneof![0..2000_u64, Just(u64::MAX)],
        ) {
            let spans = match select(Some(&header), size) {
                Selection::Whole | Selection::Unsatisfiable => Vec::new(),
                Selection::Single(span) => vec![span],
                Selection::Multiple(spans) => {
                    prop_assert!((2..=RANGES_MAX).contains(&spans.len()));
                    spans
                }
            };
            prop_assert!(spans.iter().all(|span| span.start < span.end && span.end <= size));
            prop_assert!(spans.is_sorted_by(|before, after| before.end <= after.start));
        }

        #[test]
        fn any_content_range_is_read_without_panic(text in "\\PC*") {
            let _ = ContentRange::parse(&text);
        }

        #[test]
        fn content_ranges_survive_being_written(start in 0..u64::MAX - 1, length in 1..1_u64 << 40, rest in 0..9_u64) {
            let end = start.saturating_add(length).min(u64::MAX - 1);
            let range = ContentRange { start, end, size: Some(end.saturating_add(rest)) };
            prop_assert_eq!(ContentRange::parse(&range.to_string()), Some(range));
        }
    }
}
