//! What differs between two texts: shown to people, and taken back out of a third.
//!
//! It promises that a change is taken back only where all that it put in is still there as it was.

use std::ops::Range;

/// Lines shown around a change.
const CONTEXT: usize = 3;
/// Cells of the table that finds what two texts have in common; beyond it they count as having nothing in common.
const CELLS_MAX: usize = 16 << 20;

/// A stretch of `old` that is another one in `new`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Change {
    old: Range<usize>,
    new: Range<usize>,
}

/// Returns the difference as `diff -u` shows it; empty where there is none.
pub(super) fn unified(name: &str, old: Option<&str>, new: Option<&str>) -> String {
    let (before, after) = (lines(old.unwrap_or_default()), lines(new.unwrap_or_default()));
    let changes = changes(&before, &after);
    if changes.is_empty() {
        return String::new();
    }
    let side = |text: Option<&str>| text.map_or("/dev/null", |_| name);
    let mut out = format!("--- {}\n+++ {}\n", side(old), side(new));
    let mut rest = &changes[..];
    while let Some(first) = rest.first() {
        let mut count = 1;
        while count < rest.len() && rest[count].old.start - rest[count - 1].old.end <= 2 * CONTEXT {
            count += 1;
        }
        let (group, behind) = rest.split_at(count);
        let last = &group[count - 1];
        let lead = CONTEXT.min(first.old.start);
        let trail = CONTEXT.min(before.len() - last.old.end);
        let (from, to) =
            (first.old.start - lead..last.old.end + trail, first.new.start - lead..last.new.end + trail);
        out.push_str(&format!("@@ -{} +{} @@\n", shown(&from), shown(&to)));
        let mut at = from.start;
        for change in group {
            put(&mut out, ' ', &before[at..change.old.start]);
            put(&mut out, '-', &before[change.old.clone()]);
            put(&mut out, '+', &after[change.new.clone()]);
            at = change.old.end;
        }
        put(&mut out, ' ', &before[at..from.end]);
        rest = behind;
    }
    out
}

/// Returns `current` without the change from `original` to `written`, or the lines of it that are not there any more as
/// they were written.
pub(super) fn taken_back(original: &str, written: &str, current: &str) -> Result<String, String> {
    let by_line = [original, written, current].map(lines);
    reversed(&by_line).or_else(|lost| reversed(&[original, written, current].map(tokens)).map_err(|_| lost))
}

fn reversed([original, written, current]: &[Vec<&str>; 3]) -> Result<String, String> {
    let mut place = vec![None; written.len()];
    let mut at = (0, 0);
    let kept = changes(written, current);
    for change in kept.iter().chain([&Change { old: written.len()..written.len(), new: 0..0 }]) {
        while at.0 < change.old.start {
            place[at.0] = Some(at.1);
            at = (at.0 + 1, at.1 + 1);
        }
        at = (change.old.end, change.new.end);
    }
    let mut out: Vec<&str> = current.clone();
    for change in changes(original, written).iter().rev() {
        let mine = &written[change.new.clone()];
        let places: Option<Vec<usize>> = place[change.new.clone()].iter().copied().collect();
        let back = &original[change.old.clone()];
        let Some(places) = places.filter(|places| back.is_empty() || is_one_stretch(places)) else {
            return Err(mine.concat());
        };
        let Some(&first) = places.first() else {
            // Nothing was put in here, only taken out; what stood before it says where.
            let before = change.new.start.checked_sub(1).map_or(Some(0), |line| place[line].map(|at| at + 1));
            let Some(at) = before else { return Err(back.concat()) };
            out.splice(at..at, back.iter().copied());
            continue;
        };
        for &at in places.iter().rev() {
            out.remove(at);
        }
        out.splice(first..first, back.iter().copied());
    }
    Ok(out.concat())
}

fn is_one_stretch(places: &[usize]) -> bool {
    places.windows(2).all(|two| two[1] == two[0] + 1)
}

/// Returns what must be exchanged to make `new` of `old`, in order.
fn changes(old: &[&str], new: &[&str]) -> Vec<Change> {
    let head = old.iter().zip(new).take_while(|(old, new)| old == new).count();
    let (old_rest, new_rest) = (&old[head..], &new[head..]);
    let tail = old_rest.iter().rev().zip(new_rest.iter().rev()).take_while(|(old, new)| old == new).count();
    let (old, new) = (&old_rest[..old_rest.len() - tail], &new_rest[..new_rest.len() - tail]);
    if old.is_empty() && new.is_empty() {
        return Vec::new();
    }
    let width = new.len() + 1;
    if width.saturating_mul(old.len() + 1) > CELLS_MAX {
        return vec![Change { old: head..head + old.len(), new: head..head + new.len() }];
    }
    // common[i][j]: how many lines old[i..] and new[j..] have in common.
    let mut common = vec![0_u32; width * (old.len() + 1)];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i * width + j] = if old[i] == new[j] {
                common[(i + 1) * width + j + 1] + 1
            } else {
                common[(i + 1) * width + j].max(common[i * width + j + 1])
            };
        }
    }
    let mut found: Vec<Change> = Vec::new();
    let (mut i, mut j) = (0, 0);
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            (i, j) = (i + 1, j + 1);
            continue;
        }
        let from_old =
            j == new.len() || (i < old.len() && common[(i + 1) * width + j] >= common[i * width + j + 1]);
        let (old_end, new_end) = if from_old { (i + 1, j) } else { (i, j + 1) };
        match found.last_mut() {
            Some(last) if last.old.end == head + i && last.new.end == head + j => {
                (last.old.end, last.new.end) = (head + old_end, head + new_end);
            }
            _ => found.push(Change { old: head + i..head + old_end, new: head + j..head + new_end }),
        }
        (i, j) = (old_end, new_end);
    }
    found
}

/// Returns the lines, each with its newline.
fn lines(text: &str) -> Vec<&str> {
    text.split_inclusive('\n').collect()
}

/// Returns the words, and each other character by itself.
fn tokens(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_alphanumeric() || matches!(c, '.' | ':' | '/' | '-' | '_' | '"');
        let end =
            if is_word(first) { rest.find(|c| !is_word(c)).unwrap_or(rest.len()) } else { first.len_utf8() };
        let (token, behind) = rest.split_at(end);
        found.push(token);
        rest = behind;
    }
    found
}

fn shown(range: &Range<usize>) -> String {
    match range.len() {
        0 => format!("{},0", range.start),
        1 => (range.start + 1).to_string(),
        count => format!("{},{count}", range.start + 1),
    }
}

fn put(out: &mut String, sign: char, lines: &[&str]) {
    for line in lines {
        out.push(sign);
        out.push_str(line);
        if !line.ends_with('\n') {
            out.push_str("\n\\ No newline at end of file\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_difference_is_shown_as_by_diff_u() {
        let old = "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n12\n13\n14\n";
        let new = "1\n2\n3\n4\nfive\n6\n7\n8\n9\n10\n11\n12\n13\n14\n15";
        assert_eq!(
            unified("f", Some(old), Some(new)),
            "--- f\n+++ f\n@@ -2,7 +2,7 @@\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8\n\
             @@ -12,3 +12,4 @@\n 12\n 13\n 14\n+15\n\\ No newline at end of file\n"
        );
        assert_eq!(unified("f", None, Some("a\n")), "--- /dev/null\n+++ f\n@@ -0,0 +1 @@\n+a\n");
        assert_eq!(unified("f", Some("a\n"), None), "--- f\n+++ /dev/null\n@@ -1 +0,0 @@\n-a\n");
        assert_eq!(unified("f", Some("a\n"), Some("a\n")), "");
    }

    #[test]
    fn a_change_is_taken_back_out_of_what_the_text_has_become() {
        for (original, written, current, after) in [
            ("a\nb\n", "a\nX\nb\n", "a\nX\nb\nc\n", "a\nb\nc\n"),
            ("a\n", "X\nY\na\n", "X\nmine\nY\na\n", "mine\na\n"),
            ("p = \"\"\n", "p = \"x\"\n", "q\np = \"x\"\n", "q\np = \"\"\n"),
            ("l = [\"t\"]\n", "l = [\"m\", \"t\"]\n", "l = [\"m\", \"t\", \"u\"]\n", "l = [\"t\", \"u\"]\n"),
            ("", "X\n", "X\nmine\n", "mine\n"),
            ("a\ndead\nb\n", "a\nb\n", "a\nb\nc\n", "a\ndead\nb\nc\n"),
        ] {
            assert_eq!(taken_back(original, written, current).as_deref(), Ok(after), "{current:?}");
        }
    }

    #[test]
    fn what_was_edited_since_is_not_taken_back_but_named() {
        assert_eq!(taken_back("a\n", "a\nX = 1\n", "a\nX = 2\n"), Err("X = 1\n".to_owned()));
    }

    proptest! {
        #[test]
        fn what_nobody_edited_is_as_it_was(original in "[ab\n ]{0,20}", written in "[ab\n ]{0,20}") {
            prop_assert_eq!(taken_back(&original, &written, &written), Ok(original));
        }

        #[test]
        fn what_others_added_below_stays(original in "([ab]\n){0,6}", ours in "([xy]\n){0,3}", theirs in "([cd]\n){0,3}") {
            let written = format!("{ours}{original}");
            let edited = format!("{written}{theirs}");
            prop_assert_eq!(taken_back(&original, &written, &edited), Ok(format!("{original}{theirs}")));
        }
    }
}
