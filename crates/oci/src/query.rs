//! Query strings: the few keys that the pull API knows, decoded once.
//!
//! `+` stays `+`, unlike in HTML forms: a literal plus in `artifactType=application/x+json` is what naive clients
//! send, and no value here may hold a space anyway.

use std::borrow::Cow;

use crate::N_MAX;

/// The longest query string that is read, in bytes.
pub const QUERY_BYTES_MAX: usize = 4096;

/// The known keys as they stand in the query, not yet decoded.
#[derive(Debug, Default)]
pub(crate) struct Query<'a> {
    pub(crate) ns: Option<&'a str>,
    pub(crate) n: Option<&'a str>,
    pub(crate) last: Option<&'a str>,
    artifact_types: [Option<&'a str>; 2],
}

/// Why a query cannot be read, in words that follow "query".
pub(crate) type Fault = &'static str;

impl<'a> Query<'a> {
    /// Finds the known keys; others are ignored.
    pub(crate) fn parse(text: &'a str) -> Result<Self, Fault> {
        let mut query = Self::default();
        if text.is_empty() {
            return Ok(query);
        }
        if text.len() > QUERY_BYTES_MAX {
            return Err("is longer than 4096 bytes");
        }
        for pair in text.split('&') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (slot, fault) = match decode(key)?.as_ref() {
                "ns" => (&mut query.ns, "holds \"ns\" twice"),
                "n" => (&mut query.n, "holds \"n\" twice"),
                "last" => (&mut query.last, "holds \"last\" twice"),
                "artifactType" => {
                    let second = query.artifact_types[0].is_some();
                    query.artifact_types[usize::from(second)] = Some(value);
                    continue;
                }
                _ => continue,
            };
            if slot.replace(value).is_some() {
                return Err(fault);
            }
        }
        Ok(query)
    }

    /// Returns the `artifactType` to filter by. Several at once are answered unfiltered, which the spec allows for
    /// any filter ("Listing Referrers").
    pub(crate) fn artifact_type(&self) -> Option<&'a str> {
        match self.artifact_types {
            [only, None] => only,
            _ => None,
        }
    }
}

/// Returns `value` decoded, or `None` where it is absent or empty.
pub(crate) fn decoded(value: Option<&str>) -> Result<Option<String>, Fault> {
    match value {
        None | Some("") => Ok(None),
        Some(value) => Ok(Some(decode(value)?.into_owned())),
    }
}

/// Returns the number in `value`, at most [`N_MAX`], or `None` where it is not a non-negative decimal number.
pub(crate) fn parse_n(value: &str) -> Option<u32> {
    if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // Only a number too large for the type can fail here.
    Some(value.parse().unwrap_or(N_MAX).min(N_MAX))
}

/// Decodes percent escapes once. The result holds visible ASCII only.
fn decode(text: &str) -> Result<Cow<'_, str>, Fault> {
    const FAULT: Fault = "holds characters other than visible ASCII, or a broken escape";
    let visible = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    if !visible(text) {
        return Err(FAULT);
    }
    if !text.contains('%') {
        return Ok(Cow::Borrowed(text));
    }
    let mut decoded = String::with_capacity(text.len());
    let mut parts = text.split('%');
    decoded.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let escape = part.as_bytes();
        let (Some(high), Some(low)) = (escape.first().and_then(hex), escape.get(1).and_then(hex)) else {
            return Err(FAULT);
        };
        decoded.push(char::from(high << 4 | low));
        decoded.push_str(&part[2..]);
    }
    if visible(&decoded) { Ok(Cow::Owned(decoded)) } else { Err(FAULT) }
}

fn hex(digit: &u8) -> Option<u8> {
    char::from(*digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// Appends `value` with everything but RFC 3986's unreserved characters escaped.
pub(crate) fn encode_into(query: &mut String, value: &str) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            query.push(char::from(byte));
        } else {
            query.push('%');
            query.push(char::from(DIGITS[usize::from(byte >> 4)]));
            query.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_are_decoded_once() {
        let query = Query::parse("last=a%252Fb&ns=reg.io%3A5000&%6e=5&other=%2e%2e&flag").expect("valid");
        assert_eq!(decoded(query.last), Ok(Some("a%2Fb".to_owned())));
        assert_eq!(decoded(query.ns), Ok(Some("reg.io:5000".to_owned())));
        assert_eq!(query.n, Some("5"));
    }

    #[test]
    fn a_plus_is_a_plus() {
        for text in ["artifactType=application/x+json", "artifactType=application%2Fx%2Bjson"] {
            let query = Query::parse(text).expect("valid");
            assert_eq!(decoded(query.artifact_type()), Ok(Some("application/x+json".to_owned())));
        }
    }

    #[test]
    fn several_filters_are_none() {
        assert_eq!(Query::parse("artifactType=a&artifactType=b").expect("valid").artifact_type(), None);
    }

    #[test]
    fn broken_escapes_and_invisible_characters_are_refused() {
        for value in [
            "%", "%4", "%zz", "%+1", "a%00", "%0a", "%20", "%ff", "%c3%a9", " ", "\u{e9}", "%\u{e9}",
            "%4\u{e9}",
        ] {
            assert!(decoded(Some(value)).is_err(), "{value:?}");
        }
    }

    #[test]
    fn numbers_are_decimal_and_clamped() {
        for (text, wanted) in [
            ("0", Some(0)),
            ("007", Some(7)),
            ("1000", Some(1000)),
            ("1001", Some(N_MAX)),
            ("99999999999999999999999", Some(N_MAX)),
            ("", None),
            ("-1", None),
            ("+1", None),
            ("1.5", None),
            ("0x10", None),
            ("ten", None),
            ("%31", None),
        ] {
            assert_eq!(parse_n(text), wanted, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_query_is_read_without_panic(text in prop_oneof!["\\PC*", "(n|ns|last|[=&%]|[0-9a-f]|é){0,40}"]) {
            if let Ok(query) = Query::parse(&text) {
                let _ = (decoded(query.ns), decoded(query.last), query.n.map(parse_n), query.artifact_type());
            }
        }

        #[test]
        fn what_is_encoded_is_decoded(value in "[!-~]{1,50}") {
            let mut query = "last=".to_owned();
            encode_into(&mut query, &value);
            prop_assert_eq!(decoded(Query::parse(&query).expect("valid").last), Ok(Some(value)));
        }
    }
}
