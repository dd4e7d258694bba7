//! Edits to a JSON file that leave every other byte of it as it is: daemon.json, in its user's own order and layout.
//!
//! It promises that what it returns is JSON again and holds all that was there. The scanner trusts that serde_json has
//! read the text before it, and so checks nothing itself.

use std::ops::Range;

use serde_json::{Map, Value};

/// Returns `text` with the string `item` as the first of the list `key`, which is made where it is not there.
pub(super) fn with_first(text: &str, key: &str, item: &str) -> Result<String, String> {
    let quoted = Value::from(item).to_string();
    if text.trim().is_empty() {
        return Ok(format!("{{\n  \"{key}\": [{quoted}]\n}}\n"));
    }
    let object = read(text)?;
    let members = members(text);
    let mut ours = members.iter().filter(|member| member.key == key);
    let Some(member) = ours.next() else {
        return Ok(with_member(text, &members, &format!("\"{key}\": [{quoted}]")));
    };
    let line = line_of(text, member.value.start);
    if let Some(again) = ours.next() {
        let second = line_of(text, again.value.start);
        return Err(format!("{second}: {key:?} is there twice, first on line {line}; expected it once"));
    }
    let Some(Value::Array(list)) = object.get(key) else {
        let found = &text[member.value.clone()];
        return Err(format!("{line}: {key:?}: found {found}, expected a list of strings"));
    };
    if let Some(other) = list.iter().find(|entry| !entry.is_string()) {
        return Err(format!("{line}: {key:?}: found {other} in the list, expected strings"));
    }
    if list.iter().any(|entry| is_same(entry, item)) {
        return Ok(text.to_owned());
    }
    let inner = member.value.start + 1..member.value.end - 1;
    if list.is_empty() {
        return Ok(replaced(text, inner, &quoted));
    }
    let first = inner.start + (text[inner.clone()].len() - text[inner.clone()].trim_start().len());
    let space = &text[inner.start..first];
    let space = if space.contains('\n') { space } else { " " };
    Ok(replaced(text, first..first, &format!("{quoted},{space}")))
}

/// Returns `current` without what `written` had beyond `original`, or `None` where nothing is left of a file that was
/// not there.
pub(super) fn without(
    original: Option<&str>,
    written: &str,
    current: &str,
) -> Result<Option<String>, String> {
    let blank = |text: &&str| !text.trim().is_empty();
    let before = original.filter(blank).map_or_else(|| Ok(Map::new()), read)?;
    let mut text = current.to_owned();
    for (key, value) in read(written)? {
        let Value::Array(items) = value else { continue };
        let had = before.get(&key).and_then(Value::as_array);
        for item in items.iter().filter(|item| !had.is_some_and(|had| had.contains(item))) {
            text = without_item(&text, &key, item)?;
        }
        let is_empty = |text: &str| -> Result<bool, String> {
            Ok(read(text)?.get(&key).and_then(Value::as_array).is_some_and(Vec::is_empty))
        };
        if had.is_none() && !before.contains_key(&key) && is_empty(&text)? {
            text = without_member(&text, &key);
        }
    }
    let nothing_left = original.is_none() && read(&text)?.is_empty();
    Ok((!nothing_left).then_some(text))
}

fn read(text: &str) -> Result<Map<String, Value>, String> {
    let text = text.trim_start_matches('\u{feff}');
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err("1: expected an object, { ... }".to_owned()),
        Err(error) => {
            let what = error.to_string();
            let what = what.split(" at line ").next().unwrap_or_default();
            Err(format!("{}:{}: not JSON: {what}", error.line().max(1), error.column()))
        }
    }
}

/// dockerd takes `http://m:5000` and `http://m:5000/` for one.
fn is_same(entry: &Value, item: &str) -> bool {
    entry.as_str().is_some_and(|entry| entry.trim_end_matches('/') == item.trim_end_matches('/'))
}

struct Member {
    key: String,
    whole: Range<usize>,
    value: Range<usize>,
}

/// Adds a member behind the last, in the manner of the others.
fn with_member(text: &str, members: &[Member], member: &str) -> String {
    let Some(last) = members.last() else {
        let open = text.find('{').expect("an object has been read");
        let close = text.rfind('}').expect("an object has been read");
        return replaced(text, open + 1..close, &format!("\n  {member}\n"));
    };
    let before = text[..last.whole.start].rfind([',', '{']).expect("a member stands behind one of them") + 1;
    let space = &text[before..last.whole.start];
    let space = if space.is_empty() && members.len() == 1 { " " } else { space };
    replaced(text, last.whole.end..last.whole.end, &format!(",{space}{member}"))
}

fn without_item(text: &str, key: &str, item: &Value) -> Result<String, String> {
    read(text)?;
    let Some(member) = members(text).into_iter().find(|member| member.key == key) else {
        return Ok(text.to_owned());
    };
    if !text[member.value.clone()].starts_with('[') {
        return Ok(text.to_owned());
    }
    let items = items(text, member.value.start);
    let is_it = |range: &Range<usize>| {
        serde_json::from_str::<Value>(&text[range.clone()]).ok().as_ref() == Some(item)
    };
    let Some(at) = items.iter().position(is_it) else { return Ok(text.to_owned()) };
    Ok(replaced(text, with_comma(&items, at), ""))
}

fn without_member(text: &str, key: &str) -> String {
    let members = members(text);
    let Some(at) = members.iter().position(|member| member.key == key) else { return text.to_owned() };
    if let [only] = &members[..] {
        let open = text[..only.whole.start].rfind('{').expect("a member stands in an object") + 1;
        let close = only.whole.end + text[only.whole.end..].find('}').expect("an object ends");
        return replaced(text, open..close, "");
    }
    let ranges: Vec<_> = members.into_iter().map(|member| member.whole).collect();
    replaced(text, with_comma(&ranges, at), "")
}

/// Returns the range of one of several, with the comma and space that part it from its neighbour.
fn with_comma(ranges: &[Range<usize>], at: usize) -> Range<usize> {
    let this = &ranges[at];
    match (at.checked_sub(1).map(|before| &ranges[before]), ranges.get(at + 1)) {
        (_, Some(next)) => this.start..next.start,
        (Some(before), None) => before.end..this.end,
        (None, None) => this.clone(),
    }
}

/// Returns the members of the outermost object.
fn members(text: &str) -> Vec<Member> {
    let mut found = Vec::new();
    let mut at = skip_space(text, text.find('{').expect("an object has been read") + 1);
    while text.as_bytes()[at] == b'"' {
        let key = at..skip_value(text, at);
        let value_at = skip_space(text, skip_space(text, key.end) + 1);
        let value = value_at..skip_value(text, value_at);
        let name = serde_json::from_str(&text[key.clone()]).expect("serde_json has read it");
        found.push(Member { key: name, whole: key.start..value.end, value: value.clone() });
        at = skip_comma(text, value.end);
    }
    found
}

/// Returns the items of the list that begins at `at`.
fn items(text: &str, at: usize) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut at = skip_space(text, at + 1);
    while text.as_bytes()[at] != b']' {
        let end = skip_value(text, at);
        found.push(at..end);
        at = skip_comma(text, end);
    }
    found
}

fn skip_comma(text: &str, at: usize) -> usize {
    let at = skip_space(text, at);
    if text.as_bytes()[at] == b',' { skip_space(text, at + 1) } else { at }
}

fn skip_space(text: &str, at: usize) -> usize {
    at + text.as_bytes()[at..].iter().take_while(|byte| byte.is_ascii_whitespace()).count()
}

/// Returns where the value that begins at `at` ends.
fn skip_value(text: &str, at: usize) -> usize {
    let bytes = text.as_bytes();
    let (mut end, mut depth, mut within) = (at, 0_usize, false);
    loop {
        match bytes[end] {
            b'\\' if within => end += 1,
            b'"' => within = !within,
            b'[' | b'{' if !within => depth += 1,
            b']' | b'}' if !within => depth -= 1,
            _ => {}
        }
        end += 1;
        let is_over = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b',' | b']' | b'}' | b':');
        let closed = matches!(bytes[end - 1], b'"' | b']' | b'}');
        if !within && depth == 0 && (closed || bytes.get(end).is_none_or(is_over)) {
            return end;
        }
    }
}

fn replaced(text: &str, range: Range<usize>, with: &str) -> String {
    format!("{}{with}{}", &text[..range.start], &text[range.end..])
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "registry-mirrors";
    const OURS: &str = "http://m:5000";

    fn with(text: &str) -> String {
        with_first(text, KEY, OURS).expect(text)
    }

    #[test]
    fn an_item_goes_in_and_every_other_byte_stays() {
        for (before, after) in [
            ("", "{\n  \"registry-mirrors\": [\"http://m:5000\"]\n}\n"),
            ("{}", "{\n  \"registry-mirrors\": [\"http://m:5000\"]\n}"),
            ("{ }\n", "{\n  \"registry-mirrors\": [\"http://m:5000\"]\n}\n"),
            ("{\"z\":1,\"a\":2}", "{\"z\":1,\"a\":2,\"registry-mirrors\": [\"http://m:5000\"]}"),
            ("{\"z\":1}", "{\"z\":1, \"registry-mirrors\": [\"http://m:5000\"]}"),
            (
                "{\n\t\"z\": {\"a\": \"}\\\"]\"},\n\t\"y\": -1.5e3\n}\n",
                "{\n\t\"z\": {\"a\": \"}\\\"]\"},\n\t\"y\": -1.5e3,\n\t\"registry-mirrors\": [\"http://m:5000\"]\n}\n",
            ),
            ("{\"registry-mirrors\":[]}", "{\"registry-mirrors\":[\"http://m:5000\"]}"),
            ("{\"registry-mirrors\":[\"x\"]}", "{\"registry-mirrors\":[\"http://m:5000\", \"x\"]}"),
            (
                "{\"registry-mirrors\": [\n    \"x\",\n    \"y\"\n  ]}",
                "{\"registry-mirrors\": [\n    \"http://m:5000\",\n    \"x\",\n    \"y\"\n  ]}",
            ),
        ] {
            assert_eq!(with(before), after);
            assert_eq!(with(after), after, "a second time");
        }
        assert_eq!(
            with("{\"registry-mirrors\":[\"http://m:5000/\"]}"),
            "{\"registry-mirrors\":[\"http://m:5000/\"]}"
        );
    }

    #[test]
    fn what_is_not_as_expected_is_refused_with_its_line() {
        for (text, error) in [
            (
                "{\n \"registry-mirrors\": \"x\"\n}",
                "2: \"registry-mirrors\": found \"x\", expected a list of strings",
            ),
            ("{\"registry-mirrors\": [1]}", "1: \"registry-mirrors\": found 1 in the list, expected strings"),
            (
                "{\"registry-mirrors\": null}",
                "1: \"registry-mirrors\": found null, expected a list of strings",
            ),
            ("[]", "1: expected an object, { ... }"),
            ("{} x", "1:4: not JSON: trailing characters"),
            ("{\n  \"a\": 1,\n}", "3:1: not JSON: trailing comma"),
            ("{ // why\n}", "1:3: not JSON: key must be a string"),
            (
                "{\"registry-mirrors\": [],\n\"registry-mirrors\": []}",
                "2: \"registry-mirrors\" is there twice, first on line 1; expected it once",
            ),
        ] {
            assert_eq!(with_first(text, KEY, OURS).expect_err(text), error);
        }
    }

    #[test]
    fn what_was_added_is_taken_back_out_of_what_the_file_has_become() {
        let original = "{\"a\": 1}";
        let written = with(original);
        let without = |current: &str| without(Some(original), &written, current).expect(current);
        for (current, after) in [
            (written.as_str(), "{\"a\": 1}"),
            ("{\n  \"registry-mirrors\": [\n    \"http://m:5000\"\n  ],\n  \"b\": 2\n}", "{\n  \"b\": 2\n}"),
            (
                "{\"a\": 1, \"registry-mirrors\": [\"y\", \"http://m:5000\"]}",
                "{\"a\": 1, \"registry-mirrors\": [\"y\"]}",
            ),
            ("{\"registry-mirrors\": [\"http://m:5000\", \"y\"]}", "{\"registry-mirrors\": [\"y\"]}"),
            ("{\"registry-mirrors\": [\"http://m:5000\"]}", "{}"),
            ("{\"registry-mirrors\": \"z\"}", "{\"registry-mirrors\": \"z\"}"),
            ("{\"c\": []}", "{\"c\": []}"),
        ] {
            assert_eq!(without(current).as_deref(), Some(after), "{current}");
        }
    }

    #[test]
    fn what_was_there_before_us_stays() {
        let original = "{\"registry-mirrors\": [\"http://m:5000\"], \"insecure-registries\": []}";
        let written = with_first(original, "insecure-registries", "m:5000").expect("a list");
        let after = without(Some(original), &written, &written.replace("}", ", \"x\": 1}")).expect("a file");
        assert_eq!(
            after.as_deref(),
            Some("{\"registry-mirrors\": [\"http://m:5000\"], \"insecure-registries\": [], \"x\": 1}")
        );
        assert_eq!(without(None, &with(""), &with("")), Ok(None), "a file of our own goes");
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let text = "[a-c\"\\\\{}\\[\\],: é\n]{0,6}";
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            text.prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((text, inner), 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_object_keeps_all_that_it_says(
            members in prop::collection::vec(("[a-d\"{}:, ]{0,4}", any_value()), 0..5),
            mirrors in prop::option::of(prop::collection::vec("[a-c\"\\[\\],]{0,3}", 0..3)),
            is_pretty in any::<bool>(),
        ) {
            let mut object: Map<String, Value> = members.into_iter().collect();
            if let Some(mirrors) = &mirrors {
                object.insert(KEY.to_owned(), Value::from(mirrors.clone()));
            }
            let write = if is_pretty { serde_json::to_string_pretty } else { serde_json::to_string };
            let before = write(&object).expect("JSON");
            let after = with(&before);
            let mut wanted = object.clone();
            let list = [OURS.to_owned()].into_iter().chain(mirrors.unwrap_or_default());
            wanted.insert(KEY.to_owned(), list.map(Value::from).collect());
            prop_assert_eq!(read(&after), Ok(wanted));
            // Laid out anew by somebody, it is taken back by value.
            let edited = serde_json::to_string_pretty(&read(&after).expect("JSON")).expect("JSON");
            let back = without(Some(&before), &after, &edited).expect("JSON").expect("it was there");
            prop_assert_eq!(read(&back), Ok(object));
        }
    }
}
