//! Edits to a YAML file that leave every other byte of it as it is: k3s' registries.yaml.
//!
//! It reads no more of YAML than such files have: maps and lists by indentation, lists in brackets on one line. It
//! promises to refuse what it does not understand on the way to what it edits.

use std::ops::Range;

/// What stands at the end of a path of keys.
#[derive(Clone, Copy, Debug)]
pub(super) enum Leaf<'a> {
    /// A list with this string in it; it goes to the front.
    First(&'a str),
    /// This string.
    Value(&'a str),
}

/// Spaces by which a level is indented where the file does not show its own way.
const INDENT: usize = 2;

/// Returns `text` with the leaf at the end of `path`, or why that cannot be: `line: what`.
pub(super) fn with(text: &str, path: &[&str], leaf: Leaf<'_>) -> Result<String, String> {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    understood(&lines)?;
    let mut block = Block { body: 0..lines.len(), indent: None };
    for (depth, &key) in path.iter().enumerate() {
        let Some(entry) = entry(&lines, &block, key)? else {
            let indent =
                children_indent(&lines, &block).unwrap_or(block.indent.map_or(0, |above| above + INDENT));
            return Ok(inserted(&lines, last_line(&lines, &block), &rendered(&path[depth..], leaf, indent)));
        };
        let found = inline_value(lines[entry.line], entry.value_at);
        let is_leaf = depth + 1 == path.len();
        if is_leaf {
            return with_leaf(&lines, &entry, found, path, leaf);
        }
        if !found.is_empty() {
            let what = path[..=depth].join(".");
            return Err(format!(
                "{}: {what}: found {found}, expected a map on lines of its own",
                entry.line + 1
            ));
        }
        block = Block { body: entry.body, indent: Some(entry.indent) };
    }
    Ok(text.to_owned())
}

/// The lines below a key, and how far that key is indented; `None` for the whole file.
struct Block {
    body: Range<usize>,
    indent: Option<usize>,
}

struct Entry {
    line: usize,
    indent: usize,
    /// Where in the line its value begins.
    value_at: usize,
    body: Range<usize>,
}

fn understood(lines: &[&str]) -> Result<(), String> {
    let mut began = false;
    for (at, line) in lines.iter().enumerate() {
        let number = at + 1;
        if line.trim_start_matches(' ').starts_with('\t') {
            return Err(format!("{number}: indented by a tab, which YAML does not allow"));
        }
        if line.starts_with("...") || (line.starts_with("---") && began) {
            return Err(format!("{number}: found a second document, expected one"));
        }
        if line.starts_with(['{', '[', '&', '*', '!', '?', '%', '|', '>']) {
            return Err(format!(
                "{number}: found {:?}, expected keys on lines of their own",
                line.trim_end()
            ));
        }
        began |= says_something(line);
    }
    Ok(())
}

fn says_something(line: &str) -> bool {
    let line = line.trim();
    !line.is_empty() && !line.starts_with('#')
}

fn indent_of(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

fn children_indent(lines: &[&str], block: &Block) -> Option<usize> {
    let first =
        lines[block.body.clone()].iter().find(|line| says_something(line) && !line.starts_with("---"))?;
    Some(indent_of(first))
}

fn entry(lines: &[&str], block: &Block, key: &str) -> Result<Option<Entry>, String> {
    let Some(indent) = children_indent(lines, block) else { return Ok(None) };
    let mut found: Option<Entry> = None;
    for line in block.body.clone() {
        if !says_something(lines[line]) || indent_of(lines[line]) != indent || lines[line].starts_with("---")
        {
            continue;
        }
        let Some((name, value_at)) = key_of(lines[line]) else { continue };
        if name == "<<" {
            return Err(format!("{}: found a merge key, which cannot be edited here", line + 1));
        }
        if name != key {
            continue;
        }
        if let Some(first) = found {
            return Err(format!("{}: {key} is there twice, first on line {}", line + 1, first.line + 1));
        }
        let belongs = |other: &str| {
            !says_something(other)
                || indent_of(other) > indent
                || (indent_of(other) == indent && other.trim_start().starts_with("- "))
        };
        let count = lines[line + 1..block.body.end].iter().take_while(|other| belongs(other)).count();
        found = Some(Entry { line, indent, value_at, body: line + 1..line + 1 + count });
    }
    Ok(found)
}

/// Returns the key of a line, without its quotes, and where its value begins.
fn key_of(line: &str) -> Option<(&str, usize)> {
    let start = indent_of(line);
    let rest = &line[start..];
    let (name, behind) = match rest.chars().next()? {
        quote @ ('"' | '\'') => {
            let end = rest[1..].find(quote)? + 1;
            (&rest[1..end], start + end + 1)
        }
        _ => {
            let end = rest.find(": ").or_else(|| rest.trim_end().strip_suffix(':').map(str::len))?;
            (&rest[..end], start + end)
        }
    };
    let colon = behind + line[behind..].find(':')?;
    line[behind..colon].trim().is_empty().then_some((name, colon + 1))
}

/// Returns what stands behind the colon, without a comment.
fn inline_value(line: &str, value_at: usize) -> &str {
    let value = line[value_at..].trim();
    let comment = if value.starts_with('#') { Some(0) } else { value.find(" #") };
    comment.map_or(value, |at| &value[..at]).trim_end()
}

fn with_leaf(
    lines: &[&str],
    entry: &Entry,
    found: &str,
    path: &[&str],
    leaf: Leaf<'_>,
) -> Result<String, String> {
    let key = path.join(".");
    let number = entry.line + 1;
    let items: Vec<usize> =
        entry.body.clone().filter(|&line| lines[line].trim_start().starts_with("- ")).collect();
    let line = lines[entry.line];
    match leaf {
        Leaf::Value(value)
            if found.is_empty() && !lines[entry.body.clone()].iter().any(|line| says_something(line)) =>
        {
            let (before, after) = line.split_at(entry.value_at);
            Ok(with_line(lines, entry.line, &format!("{before} {}{after}", quoted(value))))
        }
        Leaf::Value(value) if unquoted(found) == value => Ok(lines.concat()),
        Leaf::Value(value) if found.is_empty() || found.starts_with(['{', '[', '|', '>', '&', '*']) => {
            Err(format!("{number}: {key}: found something else, expected {value:?}"))
        }
        Leaf::Value(value) => Ok(with_line(lines, entry.line, &line.replacen(found, &quoted(value), 1))),
        Leaf::First(item) if found.is_empty() && !items.is_empty() => {
            let is_it = |&line: &usize| {
                let item_text = lines[line].trim_start()[2..].trim();
                unquoted(inline_value(item_text, 0)).trim_end_matches('/') == item
            };
            if items.iter().any(is_it) {
                return Ok(lines.concat());
            }
            let indent = " ".repeat(indent_of(lines[items[0]]));
            Ok(inserted(lines, items[0], &format!("{indent}- {}\n", quoted(item))))
        }
        Leaf::First(item)
            if found.is_empty() && !lines[entry.body.clone()].iter().any(|line| says_something(line)) =>
        {
            let indent = " ".repeat(entry.indent + INDENT);
            Ok(inserted(lines, entry.line + 1, &format!("{indent}- {}\n", quoted(item))))
        }
        Leaf::First(item) if found.starts_with('[') && found.ends_with(']') => {
            let inner = &found[1..found.len() - 1];
            if inner.contains(['[', '{']) {
                return Err(format!("{number}: {key}: found {found}, expected a list of strings"));
            }
            let mut there = inner.split(',').map(|entry| unquoted(entry.trim()).trim_end_matches('/'));
            if there.any(|entry| entry == item) {
                return Ok(lines.concat());
            }
            let rest =
                if inner.trim().is_empty() { String::new() } else { format!(", {}", inner.trim_start()) };
            let list = format!("[{}{rest}]", quoted(item));
            Ok(with_line(lines, entry.line, &line.replacen(found, &list, 1)))
        }
        Leaf::First(_) => {
            let found = if found.is_empty() { "a map" } else { found };
            Err(format!("{number}: {key}: found {found}, expected a list of strings"))
        }
    }
}

/// Returns the lines that make `path` with its leaf, the first key indented by `indent`.
fn rendered(path: &[&str], leaf: Leaf<'_>, indent: usize) -> String {
    let mut out = String::new();
    for (depth, key) in path.iter().enumerate() {
        let space = " ".repeat(indent + depth * INDENT);
        let is_last = depth + 1 == path.len();
        let name =
            if key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')) {
                (*key).to_owned()
            } else {
                quoted(key)
            };
        match leaf {
            Leaf::Value(value) if is_last => out.push_str(&format!("{space}{name}: {}\n", quoted(value))),
            Leaf::First(item) if is_last => {
                out.push_str(&format!("{space}{name}:\n{space}  - {}\n", quoted(item)));
            }
            _ => out.push_str(&format!("{space}{name}:\n")),
        }
    }
    out
}

/// Returns the line behind the last of the block that says something.
fn last_line(lines: &[&str], block: &Block) -> usize {
    let last = block.body.clone().rev().find(|&line| says_something(lines[line]));
    match (last, block.indent) {
        (Some(last), _) => last + 1,
        (None, Some(_)) => block.body.start,
        (None, None) => block.body.end,
    }
}

fn inserted(lines: &[&str], at: usize, what: &str) -> String {
    let before = lines[..at].concat();
    let newline = if before.is_empty() || before.ends_with('\n') { "" } else { "\n" };
    format!("{before}{newline}{what}{}", lines[at..].concat())
}

fn with_line(lines: &[&str], at: usize, line: &str) -> String {
    format!("{}{line}{}", lines[..at].concat(), lines[at + 1..].concat())
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn unquoted(text: &str) -> &str {
    let within = |quote| text.strip_prefix(quote).and_then(|text: &str| text.strip_suffix(quote));
    within('"').or_else(|| within('\'')).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &[&str] = &["mirrors", "docker.io", "endpoint"];

    fn first(text: &str) -> String {
        let after = with(text, PATH, Leaf::First("http://m")).expect(text);
        assert_eq!(
            with(&after, PATH, Leaf::First("http://m")).as_deref(),
            Ok(after.as_str()),
            "a second time"
        );
        after
    }

    #[test]
    fn a_list_gets_its_item_however_it_is_written() {
        let fresh = "mirrors:\n  docker.io:\n    endpoint:\n      - \"http://m\"\n";
        for (before, after) in [
            ("", fresh.to_owned()),
            ("# why\n", format!("# why\n{fresh}")),
            ("---\n", format!("---\n{fresh}")),
            ("configs:\n  x:\n    auth: {}", format!("configs:\n  x:\n    auth: {{}}\n{fresh}")),
            ("mirrors:\n", fresh.to_owned()),
            (
                "mirrors:\n    ghcr.io: # ours\n        endpoint: []\n\nconfigs: {}\n",
                "mirrors:\n    ghcr.io: # ours\n        endpoint: []\n    docker.io:\n      endpoint:\n        - \"http://m\"\n\nconfigs: {}\n"
                    .to_owned(),
            ),
            (
                "mirrors:\n  \"docker.io\":\n    endpoint: # theirs\n    - 'http://x' # first\n",
                "mirrors:\n  \"docker.io\":\n    endpoint: # theirs\n    - \"http://m\"\n    - 'http://x' # first\n".to_owned(),
            ),
            (
                "mirrors:\n  docker.io:\n    endpoint: [ \"http://x\", y ] # two\n",
                "mirrors:\n  docker.io:\n    endpoint: [\"http://m\", \"http://x\", y ] # two\n".to_owned(),
            ),
            ("mirrors:\n  docker.io:\n    endpoint: []\n", "mirrors:\n  docker.io:\n    endpoint: [\"http://m\"]\n".to_owned()),
            (
                "mirrors:\n  docker.io:\n    rewrite:\n      \"^x/(.*)\": \"y/$1\"\n",
                "mirrors:\n  docker.io:\n    rewrite:\n      \"^x/(.*)\": \"y/$1\"\n    endpoint:\n      - \"http://m\"\n".to_owned(),
            ),
        ] {
            assert_eq!(first(before), after);
        }
    }

    #[test]
    fn a_value_is_set() {
        let path = &["configs", "m:5000", "tls", "ca_file"];
        let fresh = "configs:\n  \"m:5000\":\n    tls:\n      ca_file: \"/a\"\n";
        for (before, after) in [
            ("", fresh),
            ("configs:\n  \"m:5000\":\n    tls:\n      ca_file:\n", fresh),
            (
                "configs:\n  \"m:5000\":\n    tls:\n      ca_file: /b # old\n",
                "configs:\n  \"m:5000\":\n    tls:\n      ca_file: \"/a\" # old\n",
            ),
            (
                "configs:\n  'm:5000':\n    tls:\n      ca_file: /a\n",
                "configs:\n  'm:5000':\n    tls:\n      ca_file: /a\n",
            ),
        ] {
            assert_eq!(with(before, path, Leaf::Value("/a")).as_deref(), Ok(after), "{before}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused_with_its_line() {
        for (text, error) in [
            ("mirrors: {}\n", "1: mirrors: found {}, expected a map on lines of its own"),
            ("mirrors:\n\tdocker.io:\n", "2: indented by a tab"),
            ("{mirrors: {}}\n", "1: found \"{mirrors: {}}\", expected keys"),
            ("a: 1\n---\nb: 2\n", "2: found a second document"),
            ("mirrors:\n  <<: *x\n", "2: found a merge key"),
            ("mirrors:\n  docker.io: &hub\n    endpoint: []\n", "2: mirrors.docker.io: found &hub"),
            (
                "mirrors:\n  docker.io:\n    endpoint: http://x\n",
                "3: mirrors.docker.io.endpoint: found http://x, expected a list of strings",
            ),
            (
                "mirrors:\n  docker.io:\n    endpoint:\n      a: b\n",
                "3: mirrors.docker.io.endpoint: found a map",
            ),
            ("mirrors:\n  docker.io:\n  docker.io:\n", "3: docker.io is there twice, first on line 2"),
            (
                "mirrors:\n  docker.io:\n    endpoint: [\n      \"x\"]\n",
                "3: mirrors.docker.io.endpoint: found [",
            ),
        ] {
            let found = with(text, PATH, Leaf::First("http://m")).expect_err(text);
            assert!(found.starts_with(error), "{text:?}\nfound: {found}\nexpected: {error}");
        }
    }
}
