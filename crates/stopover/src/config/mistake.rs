//! What is wrong with a configuration: where, what was found, what was expected.
//!
//! A message holds no secret: whoever makes one passes what may be shown.

use std::fmt;

use super::{
    keys::{self, Key, SECTIONS},
    tables,
    written::{EGRESSES, OTHERS, Setting},
};

/// How far a name may be from a known one to be taken for it: a third of its length, at least this.
const DISTANCE_MIN: usize = 2;

/// Where something is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A file as a whole.
    File(String),
    /// A place in a file; both count from 1, columns in characters.
    Line { file: String, line: usize, column: usize },
    /// A variable of the environment.
    Variable(String),
}

impl Place {
    /// Returns the place of the byte `at` of `text`, the content of `file`.
    pub(super) fn within(file: &str, text: &str, at: usize) -> Self {
        let before = text.get(..at).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
        Self::Line { file: file.to_owned(), line, column }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => f.write_str(file),
            Self::Line { file, line, column } => write!(f, "{file}:{line}:{column}"),
            Self::Variable(name) => f.write_str(name),
        }
    }
}

/// One mistake, with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    place: Place,
    what: String,
}

impl Mistake {
    pub(super) fn new(place: Place, what: impl Into<String>) -> Self {
        Self { place, what: what.into() }
    }

    /// Returns what mistakes are sorted by: those in the file from top to bottom, then those in the environment.
    pub(super) fn order(&self) -> (bool, usize, usize) {
        match self.place {
            Place::File(_) => (false, 0, 0),
            Place::Line { line, column, .. } => (false, line, column),
            Place::Variable(_) => (true, 0, 0),
        }
    }

    /// A value that its key does not take.
    pub(super) fn value(setting: &Setting, found: &str) -> Self {
        let Setting { key, called, place, .. } = setting;
        let name = match place {
            // The variable's name stands before it.
            Place::Variable(_) => key.path(),
            _ => called.map_or_else(|| key.path(), str::to_owned),
        };
        Self {
            place: place.clone(),
            what: format!("{name}: found {found}, expected {}", key.field.expected()),
        }
    }

    /// A key that does not exist; `section` is empty where it stands in none.
    pub(super) fn unknown_key(place: Place, section: &str, name: &str) -> Self {
        let path = if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") };
        let table = nearest(name, tables::KINDS.into_iter()).filter(|_| section == "upstream");
        let hint = match nearest_key(section, name) {
            Some(key) => format!("did you mean {}?", key.path()),
            None if table.is_some() => format!("did you mean [upstream.{}]?", table.unwrap_or_default()),
            None if section.is_empty() => "expected a section such as [cache]".to_owned(),
            None => format!("[{section}] has {}", names_in(section)),
        };
        Self { place, what: format!("unknown key {}; {hint}", shown(&path)) }
    }

    /// A section that does not exist.
    pub(super) fn unknown_section(place: Place, section: &str) -> Self {
        let names = || SECTIONS.iter().map(|(name, _)| *name).chain([EGRESSES, OTHERS]);
        let hint = match nearest(section, names()) {
            _ if tables::KINDS.contains(&section) => format!("did you mean [upstream.{section}]?"),
            Some(name) => format!("did you mean [{name}]?"),
            None => format!("the sections are {}", names().collect::<Vec<_>>().join(", ")),
        };
        Self { place, what: format!("unknown section [{}]; {hint}", shown(section)) }
    }

    /// A variable of ours that names no key.
    pub(super) fn unknown_variable(variable: &str) -> Self {
        let known: Vec<String> = keys::all().map(Key::variable).chain(tables::variables()).collect();
        let hint = match nearest(variable, known.iter().map(String::as_str)) {
            Some(known) => format!("did you mean {known}?"),
            None => "expected STOPOVER_<SECTION>__<KEY>, such as STOPOVER_CACHE__TAG_TTL".to_owned(),
        };
        Self { place: Place::Variable(shown(variable)), what: format!("unknown variable; {hint}") }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// Everything that is wrong, one mistake a line; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes(pub Vec<Mistake>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(Mistake::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Mistakes {}

/// Returns a name that somebody wrote, fit for a terminal.
pub(super) fn shown(name: &str) -> String {
    const CHARS_MAX: usize = 80;
    name.chars().take(CHARS_MAX).map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// Returns the key that was probably meant: one of nearly that name, in the same section if there are two.
fn nearest_key(section: &str, name: &str) -> Option<&'static Key> {
    let far = |key: &&Key| distance(key.name, name) + usize::from(key.section != section);
    keys::all().min_by_key(far).filter(|key| far(key) <= allowed(name))
}

/// Returns the one of `known` that was probably meant by `written`.
pub(super) fn nearest<'a>(written: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .min_by_key(|known| distance(known, written))
        .filter(|known| distance(known, written) <= allowed(written))
}

fn names_in(section: &str) -> String {
    let names: Vec<&str> = keys::all().filter(|key| key.section == section).map(|key| key.name).collect();
    names.join(", ")
}

pub(super) fn allowed(name: &str) -> usize {
    (name.len() / 3).max(DISTANCE_MIN)
}

/// Returns how many characters must be put in, taken out or changed to make `a` of `b` (Levenshtein).
pub(super) fn distance(a: &str, b: &str) -> usize {
    const CHARS_MAX: usize = 100;
    let b: Vec<char> = b.chars().take(CHARS_MAX).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let changed = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_levenshteins() {
        for (a, b, want) in
            [("", "", 0), ("abc", "", 3), ("", "ab", 2), ("kitten", "sitting", 3), ("ttl", "tll", 1)]
        {
            assert_eq!(distance(a, b), want, "{a} {b}");
        }
    }

    #[test]
    fn a_place_counts_lines_and_characters_from_one() {
        for (text, at, line, column) in
            [("", 0, 1, 1), ("ab", 1, 1, 2), ("a\nb", 2, 2, 1), ("é = 1\n", 3, 1, 3)]
        {
            let want = Place::Line { file: "f".to_owned(), line, column };
            assert_eq!(Place::within("f", text, at), want, "{text:?} {at}");
        }
    }
}
