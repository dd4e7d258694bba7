//! Edits to a TOML file that leave every other byte of it as it is, comments and order included.
//!
//! It promises that what it returns is TOML again and says all that the file said before, but for values that it was
//! told to set. What it cannot write into the file as it is laid out, it refuses.

use std::ops::Range;

use toml::{
    Spanned, Table, Value,
    de::{DeTable, DeValue},
};

/// What a key is to be.
#[derive(Clone, Debug)]
pub(super) enum Want {
    /// Exactly this value, written as in TOML.
    Is(String),
    /// A list with this string in it; it goes to the front.
    Holds(String),
}

/// Where a table goes that is not there yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Behind everything.
    Last,
    /// Before the first table beside it: what is asked first is listed first.
    BeforeSiblings,
}

/// One table, and what its keys are to be.
#[derive(Clone, Debug)]
pub(super) struct Section {
    /// Its path, such as `registry` and `ghcr.io`.
    pub(super) path: Vec<String>,
    /// What is said above it, without `#`, where it is made.
    pub(super) comment: String,
    pub(super) place: Place,
    pub(super) keys: Vec<(&'static str, Want)>,
}

/// Returns `text` with the section in it, or why that cannot be: `line: what`.
pub(super) fn with_section(text: &str, section: &Section) -> Result<String, String> {
    let mut text = text.to_owned();
    let path: Vec<&str> = section.path.iter().map(String::as_str).collect();
    let document = parse(&text)?;
    if let Found::Nothing = find(&document, &text, &path)? {
        let added = with_table(&text, &document, section);
        return checked(&text, added, &path);
    }
    for (key, want) in &section.keys {
        let edited = with_key(&text, &path, key, want)?;
        text = checked(&text, edited, &path)?;
    }
    Ok(text)
}

/// Returns `text` as its parser has it, with places.
pub(super) fn parse(text: &str) -> Result<Spanned<DeTable<'_>>, String> {
    DeTable::parse(text).map_err(|error| {
        let line = line_of(text, error.span().map_or(0, |span| span.start));
        format!("{line}: not TOML: {}", error.message().lines().next().unwrap_or_default())
    })
}

/// Returns `text` as plain values.
pub(super) fn values(text: &str) -> Result<Table, String> {
    text.parse().map_err(|error: toml::de::Error| {
        let line = line_of(text, error.span().map_or(0, |span| span.start));
        format!("{line}: not TOML: {}", error.message().lines().next().unwrap_or_default())
    })
}

/// Returns `text` with `block`, whole lines, before the line at `at`.
pub(super) fn with_block(text: &str, at: usize, block: &str) -> String {
    let (before, after) = text.split_at(at);
    let open = if before.is_empty() || before.ends_with('\n') { "" } else { "\n" };
    format!("{before}{open}{block}{after}")
}

/// Returns where the headers of all tables begin, in order.
pub(super) fn headers(document: &Spanned<DeTable<'_>>, text: &str) -> Vec<usize> {
    let mut found = Vec::new();
    collect_headers(document.get_ref(), text, &mut found);
    found.sort_unstable();
    found.dedup();
    found
}

/// Returns where the part that begins with the header at `start` ends: behind its last line that says something.
pub(super) fn end_of_part(text: &str, headers: &[usize], start: usize) -> usize {
    let next =
        headers.iter().find(|&&header| header > start).map_or(text.len(), |&next| start_of_line(text, next));
    let mut end = next;
    for line in text[start..next].lines().rev() {
        let line = line.trim();
        if !line.is_empty() && !line.starts_with('#') {
            break;
        }
        end = start_of_line(text, end - 1);
    }
    end
}

/// Returns the number of the line that holds `at`, from 1.
pub(super) fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// Returns `text` as a TOML string.
pub(super) fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// Returns where the line begins that holds `at`.
pub(super) fn start_of_line(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |newline| newline + 1)
}

fn collect_headers(table: &DeTable<'_>, text: &str, found: &mut Vec<usize>) {
    for value in table.values() {
        match value.get_ref() {
            DeValue::Table(table) => {
                found.extend(header(text, value.span()));
                collect_headers(table, text, found);
            }
            DeValue::Array(items) => {
                for item in items.iter().filter(|item| text[item.span()].starts_with("[[")) {
                    if let DeValue::Table(table) = item.get_ref() {
                        found.extend(header(text, item.span()));
                        collect_headers(table, text, found);
                    }
                }
            }
            _ => {}
        }
    }
}

fn header(text: &str, span: Range<usize>) -> Option<usize> {
    text[span.clone()].starts_with('[').then_some(span.start)
}

/// A table, if it is there, by where it stands.
enum Found<'a, 'd> {
    Nothing,
    Table(&'a DeTable<'d>, Range<usize>),
}

fn find<'a, 'd>(
    document: &'a Spanned<DeTable<'d>>,
    text: &str,
    path: &[&str],
) -> Result<Found<'a, 'd>, String> {
    let mut found = (document.get_ref(), 0..0);
    for (depth, &part) in path.iter().enumerate() {
        let Some(value) = found.0.get(part) else { return Ok(Found::Nothing) };
        let DeValue::Table(table) = value.get_ref() else {
            let line = line_of(text, value.span().start);
            return Err(format!(
                "{line}: {}: found something else, expected a table",
                path[..=depth].join(".")
            ));
        };
        found = (table, value.span());
    }
    Ok(Found::Table(found.0, found.1))
}

fn with_table(text: &str, document: &Spanned<DeTable<'_>>, section: &Section) -> String {
    let mut block: String = section.comment.lines().map(|line| format!("# {line}\n")).collect();
    block.push_str(&format!(
        "[{}]\n",
        section.path.iter().map(|part| key(part)).collect::<Vec<_>>().join(".")
    ));
    for (name, want) in &section.keys {
        block.push_str(&format!("  {name} = {}\n", want.fresh()));
    }
    let sibling = match (section.place, section.path.first()) {
        (Place::BeforeSiblings, Some(first)) => first_below(document, text, first),
        _ => None,
    };
    match sibling {
        Some(at) => with_block(text, at, &format!("{block}\n")),
        None if text.is_empty() || text.ends_with("\n\n") => with_block(text, text.len(), &block),
        None => with_block(text, text.len(), &format!("\n{block}")),
    }
}

/// Returns where the first table below `[first.…]` begins, with the comment above it.
fn first_below(document: &Spanned<DeTable<'_>>, text: &str, first: &str) -> Option<usize> {
    let DeValue::Table(table) = document.get_ref().get(first)?.get_ref() else { return None };
    let starts = table.values().filter_map(|value| header(text, value.span()));
    let mut at = start_of_line(text, starts.min()?);
    while at > 0 {
        let above = start_of_line(text, at - 1);
        if !text[above..at].trim_start().starts_with('#') {
            break;
        }
        at = above;
    }
    Some(at)
}

fn with_key(text: &str, path: &[&str], name: &str, want: &Want) -> Result<String, String> {
    let document = parse(text)?;
    let Found::Table(table, span) = find(&document, text, path)? else {
        return Err(format!("1: [{}] is lost while it is edited", path.join(".")));
    };
    let Some(value) = table.get(name) else {
        return with_new_key(text, table, &span, path, &format!("{name} = {}", want.fresh()));
    };
    let range = value.span();
    let replaced = |with: &str| format!("{}{with}{}", &text[..range.start], &text[range.end..]);
    match want {
        Want::Is(literal) => {
            let now = literal_value(&text[range.clone()]);
            let is_so = now.is_some() && now == literal_value(literal);
            Ok(if is_so { text.to_owned() } else { replaced(literal) })
        }
        Want::Holds(item) => {
            let DeValue::Array(items) = value.get_ref() else {
                let (line, found) = (line_of(text, range.start), &text[range.clone()]);
                return Err(format!("{line}: {name}: found {found}, expected a list of strings"));
            };
            let is_it = |entry: &Spanned<DeValue<'_>>| matches!(entry.get_ref(), DeValue::String(found) if found.trim_end_matches('/') == item.as_str());
            if items.iter().any(is_it) {
                return Ok(text.to_owned());
            }
            let Some(first) = items.first() else { return Ok(replaced(&format!("[{}]", quoted(item)))) };
            let space = &text[range.start + 1..first.span().start];
            let space = if space.contains('\n') && !space.contains('#') { space } else { " " };
            let at = first.span().start;
            Ok(format!("{}{},{space}{}", &text[..at], quoted(item), &text[at..]))
        }
    }
}

/// Adds a key to a table that is there, in whichever of TOML's ways it is written.
fn with_new_key(
    text: &str,
    table: &DeTable<'_>,
    span: &Range<usize>,
    path: &[&str],
    line: &str,
) -> Result<String, String> {
    if text[span.clone()].starts_with('{') {
        let close = span.end - 1;
        let comma = if table.is_empty() { " " } else { ", " };
        let before = text[..close].trim_end();
        return Ok(format!("{before}{comma}{line} {}", &text[close..]));
    }
    if text[span.clone()].starts_with('[') {
        let indent = text[start_of_line(text, span.start)..span.start].to_owned();
        let next = text[span.end..].find('\n').map_or(text.len(), |newline| span.end + newline + 1);
        let first = text[next..].lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        let is_key = !first.trim_start().starts_with(['[', '#']) && !first.is_empty();
        let indent = if is_key {
            first[..first.len() - first.trim_start().len()].to_owned()
        } else {
            format!("{indent}  ")
        };
        return Ok(with_block(text, next, &format!("{indent}{line}\n")));
    }
    // The table is there only as part of a longer name; its own header may still be written.
    let name = path.iter().map(|part| key(part)).collect::<Vec<_>>().join(".");
    Ok(with_block(text, text.len(), &format!("\n[{name}]\n  {line}\n")))
}

/// Returns `after` if it is TOML and still says what `before` said.
fn checked(before: &str, after: String, path: &[&str]) -> Result<String, String> {
    let refused = |_| {
        let line = before.lines().position(|line| line.contains(path[0])).map_or(1, |line| line + 1);
        format!(
            "{line}: [{}] cannot be added to the way in which {:?} is written here; write it as a table with a \
             header of its own",
            path.join("."),
            path[0]
        )
    };
    let new = values(&after).map_err(refused)?;
    if keeps(&Value::Table(new), &Value::Table(values(before)?)) { Ok(after) } else { refused_value(path) }
}

fn refused_value(path: &[&str]) -> Result<String, String> {
    Err(format!("1: [{}] cannot be added without changing the rest", path.join(".")))
}

/// Returns whether `new` has all that `old` has: every key, and every item of every list. Values may differ.
fn keeps(new: &Value, old: &Value) -> bool {
    match (new, old) {
        (Value::Table(new), Value::Table(old)) => {
            old.iter().all(|(key, old)| new.get(key).is_some_and(|new| keeps(new, old)))
        }
        (Value::Array(new), Value::Array(old)) => {
            let mut rest = new.iter();
            old.iter().all(|old| rest.any(|new| keeps(new, old)))
        }
        (new, old) => new.same_type(old),
    }
}

fn literal_value(literal: &str) -> Option<Value> {
    format!("x = {literal}").parse::<Table>().ok()?.remove("x")
}

/// Returns `name` as it stands in a header.
fn key(name: &str) -> String {
    let is_bare = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if !name.is_empty() && name.bytes().all(is_bare) { name.to_owned() } else { quoted(name) }
}

impl Want {
    /// Returns the value where there is none yet.
    fn fresh(&self) -> String {
        match self {
            Self::Is(literal) => literal.clone(),
            Self::Holds(item) => format!("[{}]", quoted(item)),
        }
    }
}

#[cfg(test)]
#[path = "toml/tests.rs"]
mod tests;
