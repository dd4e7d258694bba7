//! Names with values: the constant fields of log lines, and the headers of answers.
//!
//! It promises that their number and length are bounded, and that none takes the place of what the mirror says itself.

use http::{HeaderName, HeaderValue, header};

use super::field::Value;

/// How many there may be.
const PAIRS_MAX: usize = 32;
/// How long a field's name may be.
const NAME_BYTES_MAX: usize = 64;
/// How long a value may be.
const VALUE_BYTES_MAX: usize = 1 << 10;
/// What lines name by themselves.
const TAKEN_FIELDS: [&str; 19] = [
    "time",
    "level",
    "msg",
    "target",
    "method",
    "path",
    "repository",
    "reference",
    "digest",
    "status",
    "bytes",
    "outcome",
    "upstream",
    "error",
    "duration",
    "client",
    "user",
    "user_agent",
    "request_id",
];
/// What answers say by themselves, or must not say.
const TAKEN_HEADERS: [HeaderName; 17] = [
    header::CONNECTION,
    header::UPGRADE,
    header::TRANSFER_ENCODING,
    header::TRAILER,
    header::TE,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::CONTENT_RANGE,
    header::ACCEPT_RANGES,
    header::ETAG,
    header::DATE,
    header::LOCATION,
    header::RETRY_AFTER,
    header::WWW_AUTHENTICATE,
    HeaderName::from_static("docker-content-digest"),
    HeaderName::from_static("keep-alive"),
];

/// What [`read`] takes.
pub(super) const EXPECTED: &str =
    "at most 32 names that no line has by itself, with a text each, such as { service = \"mirror\" }";
/// What [`headers`] takes.
pub(super) const HEADERS_EXPECTED: &str = "at most 32 headers that no answer has by itself, with a text or a list of texts each, such as \
                                           { Strict-Transport-Security = \"max-age=3600\" }";

/// Returns fields: words with texts, by name.
pub(super) fn read(value: &Value) -> Option<Vec<(String, String)>> {
    let Value::Table(table) = value else { return None };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-@/".contains(&byte);
    let name_right = |name: &str| {
        (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(plain) && !TAKEN_FIELDS.contains(&name)
    };
    let each = table.iter().map(|(name, value)| {
        let text = match value {
            Value::Integer(number) => number.to_string(),
            Value::Flag(flag) => flag.to_string(),
            value => value.text()?.to_owned(),
        };
        (name_right(name) && text.len() <= VALUE_BYTES_MAX).then(|| (name.clone(), text))
    });
    let mut all = each.collect::<Option<Vec<_>>>().filter(|all| all.len() <= PAIRS_MAX)?;
    all.sort();
    Some(all)
}

/// Returns headers, in the order written; of one name there may be several.
pub(super) fn headers(value: &Value) -> Option<Vec<(HeaderName, HeaderValue)>> {
    let Value::Table(table) = value else { return None };
    let mut all = Vec::new();
    for (name, value) in table {
        let name: HeaderName = name.parse().ok().filter(|name| !TAKEN_HEADERS.contains(name))?;
        let values = match value {
            Value::List(list) => list.as_slice(),
            one => std::slice::from_ref(one),
        };
        for value in values {
            let text = value.text().filter(|text| text.len() <= VALUE_BYTES_MAX)?;
            all.push((name.clone(), text.parse().ok()?));
        }
    }
    (all.len() <= PAIRS_MAX).then_some(all)
}

/// Returns what `name=text,name=text` stands for; a name may come again.
pub(super) fn split(text: &str) -> Value {
    let mut table: Vec<(String, Value)> = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let Some((name, text)) = part.split_once('=') else { return Value::Text(text.to_owned()) };
        table.push((name.trim().to_owned(), Value::Text(text.trim().to_owned())));
    }
    Value::Table(table)
}

/// Returns the pairs as they would stand in the file.
pub(super) fn show<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let each: Vec<String> =
        pairs.map(|(name, text)| format!("{} = {}", quoted(name), quoted(text))).collect();
    if each.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", each.join(", ")) }
}

/// The same for headers, of which those of one name stand in a list.
pub(super) fn show_headers(headers: &[(HeaderName, HeaderValue)]) -> String {
    let quoted = |value: &HeaderValue| {
        toml::Value::String(String::from_utf8_lossy(value.as_bytes()).into_owned()).to_string()
    };
    let mut each: Vec<String> = Vec::new();
    for (at, (name, _)) in headers.iter().enumerate() {
        if headers[..at].iter().all(|(before, _)| before != name) {
            let of_name = headers.iter().filter(|(other, _)| other == name);
            let values: Vec<String> = of_name.map(|(_, value)| quoted(value)).collect();
            each.push(format!("\"{name}\" = [{}]", values.join(", ")));
        }
    }
    if each.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", each.join(", ")) }
}
