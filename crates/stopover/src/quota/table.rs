//! The document as people read it: a table, and a line on each thing that is amiss. Pure.

use std::{collections::BTreeSet, fmt::Write, time::Duration};

use super::{Document, Lane};
use crate::{clock, source::LaneState};

/// At or below this many hundredths of its limit a registry is said to be low.
const LOW_PERCENT: u64 = 10;
/// How much is shown of a text that came from elsewhere, in characters.
const TEXT_CHARS_MAX: usize = 160;
const HEADS: [&str; 8] = ["REGISTRY", "ACCOUNT", "EGRESS", "LIMIT", "REST", "USED", "RESET", "STATE"];
/// The columns of numbers, which stand to the right.
const NUMBERS: [bool; 8] = [false, false, false, true, true, true, false, false];
const WHAT_WOULD_HELP: &str =
    "more to spend: another account, another way out or a mirror; docs/quota.md says how";

/// Returns the table and what there is to say of it, line by line.
pub fn table(document: &Document) -> String {
    let rows: Vec<[String; 8]> =
        std::iter::once(HEADS.map(str::to_owned)).chain(document.lanes.iter().map(row)).collect();
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or_default();
    let widths: [usize; 8] = std::array::from_fn(width);
    let mut out = String::new();
    for row in &rows {
        let mut line = String::new();
        for (at, cell) in row.iter().enumerate() {
            let width = widths[at];
            let written =
                if NUMBERS[at] { write!(line, "{cell:>width$}  ") } else { write!(line, "{cell:<width$}  ") };
            written.expect("writing to a string cannot fail");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    let hints = hints(document);
    if !hints.is_empty() {
        out.push('\n');
    }
    for hint in hints {
        out.push_str(&hint);
        out.push('\n');
    }
    out
}

fn row(lane: &Lane) -> [String; 8] {
    let number = |number: Option<u64>| number.map_or("-".to_owned(), |number| number.to_string());
    let window = lane.window_seconds.map(|window| format!(" in {}", in_words(window)));
    let limit = lane.limit.map(|limit| format!("{limit}{}", window.unwrap_or_default()));
    let reset = lane.resets_in_seconds.map(|seconds| format!("in {}", in_words(seconds)));
    let state = lane.state.replace('_', " ");
    let state = lane.reason.as_ref().map_or(state.clone(), |reason| format!("{state} ({reason})"));
    [
        plain(&lane.registry),
        plain(&lane.account),
        plain(lane.egress.as_deref().unwrap_or("any")),
        limit.unwrap_or("-".to_owned()),
        number(lane.remaining),
        lane.used.to_string(),
        reset.unwrap_or("-".to_owned()),
        plain(&state),
    ]
}

/// Returns what is amiss with each registry, and at the end what would help.
fn hints(document: &Document) -> Vec<String> {
    let mut hints = Vec::new();
    let mut is_short = false;
    for lanes in document.lanes.chunk_by(|a, b| a.registry == b.registry) {
        let Some(registry) = lanes.first().map(|lane| plain(&lane.registry)) else { continue };
        let own: Vec<&Lane> = lanes.iter().filter(|lane| !lane.is_mirror()).collect();
        if let Some(short) = shortage(&own) {
            is_short = true;
            hints.push(format!("{registry}: {short}"));
        }
        for lane in lanes.iter().filter(|lane| lane.is(LaneState::LoggedOut)) {
            let account = plain(&lane.account);
            hints.push(format!(
                "{registry}: {account} does not get in and is left out: are its name, password and rights as they should be?"
            ));
        }
    }
    if is_short {
        hints.push(WHAT_WOULD_HELP.to_owned());
    }
    hints
}

/// Returns what is lacking at one registry, if anything is.
fn shortage(lanes: &[&Lane]) -> Option<String> {
    let resets =
        lanes.iter().filter(|lane| !lane.is(LaneState::Open)).filter_map(|lane| lane.resets_in_seconds);
    let first = resets
        .min()
        .map_or("at a time that nobody knows".to_owned(), |seconds| format!("in {}", in_words(seconds)));
    if lanes.iter().all(|lane| !lane.is(LaneState::Open)) {
        return Some(format!("nothing can be pulled now but what is cached; the first lane is back {first}"));
    }
    let spent = lanes.iter().filter(|lane| lane.is(LaneState::Spent)).count();
    let (left, limit) = left_of(lanes)?;
    if left * 100 <= limit * LOW_PERCENT {
        return Some(format!("{left} pulls are left of {limit}"));
    }
    (spent > 0).then(|| {
        let (are, count) = if spent == 1 { ("is", "one".to_owned()) } else { ("are", spent.to_string()) };
        format!(
            "{count} of {} lanes {are} spent, the first is back {first}; {left} pulls are left of {limit}",
            lanes.len()
        )
    })
}

/// Returns how many pulls are left by the lanes that can be used, and their limits together; what is counted for the
/// same account or address is counted once. `None` where a lane has none, or has not said.
fn left_of(lanes: &[&Lane]) -> Option<(u64, u64)> {
    let mut counted = BTreeSet::new();
    let (mut left, mut limit) = (0, 0);
    for lane in lanes.iter().filter(|lane| !lane.is(LaneState::LoggedOut)) {
        if lane.counted_for.as_ref().is_some_and(|who| !counted.insert(who)) {
            continue;
        }
        if lane.is(LaneState::Open) {
            left += lane.remaining?;
        }
        limit += lane.limit.or_else(|| (!lane.is(LaneState::Open)).then_some(0))?;
    }
    Some((left, limit))
}

fn in_words(seconds: u64) -> String {
    clock::in_words(Duration::from_secs(seconds))
}

/// Returns a text that cannot steer a terminal: it may come from whoever answers at the address.
fn plain(text: &str) -> String {
    let printed = |char: char| if char.is_control() { '?' } else { char };
    text.chars().map(printed).take(TEXT_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(account: &str, egress: Option<&str>) -> Lane {
        Lane {
            registry: "docker.io".to_owned(),
            account: account.to_owned(),
            egress: egress.map(str::to_owned),
            limit: Some(100),
            remaining: Some(60),
            window_seconds: Some(21_600),
            used: 40,
            resets_in_seconds: None,
            state: "open".to_owned(),
            reason: None,
            counted_for: None,
        }
    }

    fn spent(account: &str, egress: Option<&str>, seconds: u64) -> Lane {
        Lane {
            remaining: Some(0),
            resets_in_seconds: Some(seconds),
            state: "spent".to_owned(),
            reason: Some("429 from the registry".to_owned()),
            ..lane(account, egress)
        }
    }

    #[test]
    fn lanes_stand_in_columns() {
        let unknown = Lane {
            registry: "ghcr.io".to_owned(),
            limit: None,
            remaining: None,
            window_seconds: None,
            used: 0,
            ..lane("anonymous", Some("default"))
        };
        let lanes = vec![
            Lane { limit: Some(200), remaining: Some(153), ..lane("ann", None) },
            spent("anonymous", Some("office"), 18_720),
            unknown,
        ];
        let want = "\
REGISTRY   ACCOUNT    EGRESS       LIMIT  REST  USED  RESET      STATE
docker.io  ann        any      200 in 6h   153    40  -          open
docker.io  anonymous  office   100 in 6h     0    40  in 5h 12m  spent (429 from the registry)
ghcr.io    anonymous  default          -     -     0  -          open

docker.io: one of 2 lanes is spent, the first is back in 5h 12m; 153 pulls are left of 300
more to spend: another account, another way out or a mirror; docs/quota.md says how
";
        assert_eq!(table(&Document { lanes }), want);
    }

    #[test]
    fn what_is_amiss_is_said_and_nothing_where_nothing_is() {
        let low = |remaining| Lane { remaining: Some(remaining), ..lane("anonymous", Some("default")) };
        let shared = |lane: Lane| Lane { counted_for: Some("192.0.2.7".to_owned()), ..lane };
        let out = Lane { state: "logged_out".to_owned(), limit: None, remaining: None, ..lane("ann", None) };
        let unheard = Lane { limit: None, remaining: None, ..lane("bob", None) };
        let table = [
            (vec![low(60)], vec![]),
            (vec![low(11)], vec![]),
            (vec![low(10)], vec!["docker.io: 10 pulls are left of 100", WHAT_WOULD_HELP]),
            (vec![low(10), unheard], vec![]),
            (vec![shared(low(12)), shared(low(12))], vec![]),
            (
                vec![shared(low(9)), shared(low(9))],
                vec!["docker.io: 9 pulls are left of 100", WHAT_WOULD_HELP],
            ),
            (
                vec![spent("ann", None, 3_600), spent("bob", None, 61)],
                vec![
                    "docker.io: nothing can be pulled now but what is cached; the first lane is back in 2m",
                    WHAT_WOULD_HELP,
                ],
            ),
            (
                vec![out, low(60)],
                vec![
                    "docker.io: ann does not get in and is left out: are its name, password and rights as they should be?",
                ],
            ),
        ];
        for (lanes, want) in table {
            assert_eq!(hints(&Document { lanes: lanes.clone() }), want, "{lanes:#?}");
        }
    }

    #[test]
    fn no_text_from_elsewhere_steers_a_terminal_or_fills_it() {
        let lane =
            Lane { reason: Some(format!("\x1b[31m\n{}", "x".repeat(1_000))), ..spent("a\tb", None, 1) };
        let text = table(&Document { lanes: vec![lane] });
        assert!(!text.contains(['\x1b', '\t']) && text.contains("spent (?[31m?xxx"), "{text}");
        assert!(text.len() < 1_000, "{text}");
    }
}
