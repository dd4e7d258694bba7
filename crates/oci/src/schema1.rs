//! What was signed of a signed manifest of Docker's schema 1, which is what its digest is of.
//!
//! The signatures stand in the document itself, as libtrust's "pretty" JSON Web Signature: each says, in its protected
//! header, at which length the payload was cut to put them in, and what was cut off.

use std::borrow::Cow;

use serde::{Deserialize, de::IgnoredAny};

/// The longest protected header that is read, in bytes; it holds a number, a few characters and a time.
const PROTECTED_BYTES_MAX: usize = 1024;

/// Returns the payload of a signed manifest; `None` where the document has no signatures of this form. Whether they are
/// right is not looked at: the digest is what content is known by.
pub(crate) fn payload(bytes: &[u8]) -> Option<Vec<u8>> {
    let signed: Signed<'_> = serde_json::from_slice(bytes).ok()?;
    let first = signed.signatures.first()?.cut()?;
    // All of them were put into the same payload at the same place.
    if !signed.signatures.iter().all(|signature| signature.cut().as_ref() == Some(&first)) {
        return None;
    }
    // Nothing else may stand behind the cut: nobody signed it, and it would go by the digest of what was.
    if first.tail.trim_ascii() != b"}" || !holds_signatures_only(bytes.get(first.length..)?) {
        return None;
    }
    let mut payload = bytes.get(..first.length)?.to_vec();
    payload.extend_from_slice(&first.tail);
    Some(payload)
}

/// Returns whether what stands behind the cut, in a document that is JSON, is the signatures and the end.
fn holds_signatures_only(behind: &[u8]) -> bool {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Behind {
        #[serde(rename = "signatures")]
        _signatures: IgnoredAny,
    }
    let Some(fields) = behind.trim_ascii_start().strip_prefix(b",") else { return false };
    serde_json::from_slice::<Behind>(&[b"{", fields].concat()).is_ok()
}

#[derive(Deserialize)]
struct Signed<'a> {
    #[serde(borrow)]
    signatures: Vec<Signature<'a>>,
}

#[derive(Deserialize)]
struct Signature<'a> {
    #[serde(borrow)]
    protected: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Protected {
    format_length: usize,
    format_tail: String,
}

/// Where the payload was cut, and what was cut off.
#[derive(PartialEq, Eq)]
struct Cut {
    length: usize,
    tail: Vec<u8>,
}

impl Signature<'_> {
    fn cut(&self) -> Option<Cut> {
        let protected: Protected = serde_json::from_slice(&base64url(&self.protected)?).ok()?;
        Some(Cut { length: protected.format_length, tail: base64url(&protected.format_tail)? })
    }
}

/// Reads the alphabet for URLs, without padding (RFC 4648, 5).
fn base64url(text: &str) -> Option<Vec<u8>> {
    if text.len() > PROTECTED_BYTES_MAX || text.len() % 4 == 1 {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    for group in text.as_bytes().chunks(4) {
        let mut word = 0_u32;
        for digit in group {
            word = word << 6 | u32::from(sextet(*digit)?);
        }
        word <<= 6 * (4 - group.len());
        bytes.extend_from_slice(&word.to_be_bytes()[1..group.len()]);
    }
    Some(bytes)
}

fn sextet(digit: u8) -> Option<u8> {
    match digit {
        b'A'..=b'Z' => Some(digit - b'A'),
        b'a'..=b'z' => Some(digit - b'a' + 26),
        b'0'..=b'9' => Some(digit - b'0' + 52),
        b'-' => Some(62),
        b'_' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_payload_is_what_stood_there_before_the_signatures() {
        // {"formatLength":9,"formatTail":"Cn0"}
        let protected = "eyJmb3JtYXRMZW5ndGgiOjksImZvcm1hdFRhaWwiOiJDbjAifQ";
        let signature = format!("{{\"signature\":\"x\",\"protected\":\"{protected}\"}}");
        let signed = format!("{{\n  \"a\":1,\"signatures\":[{signature},{signature}]}}");
        assert_eq!(payload(signed.as_bytes()).as_deref(), Some(&b"{\n  \"a\":1\n}"[..]));
    }

    #[test]
    fn a_document_without_such_signatures_has_no_payload() {
        let beyond = "eyJmb3JtYXRMZW5ndGgiOjk5OTk5LCJmb3JtYXRUYWlsIjoiQ24wIn0";
        let nine = "eyJmb3JtYXRMZW5ndGgiOjksImZvcm1hdFRhaWwiOiJDbjAifQ";
        for text in [
            "{}".to_owned(),
            "{\"signatures\":[]}".to_owned(),
            "{\"signatures\":[{\"protected\":\"!\"}]}".to_owned(),
            "{\"signatures\":[{\"protected\":\"e30\"}]}".to_owned(),
            format!("{{\"signatures\":[{{\"protected\":\"{beyond}\"}}]}}"),
            format!("{{\"signatures\":[{{\"protected\":\"{nine}\"}},{{\"protected\":\"{beyond}\"}}]}}"),
        ] {
            assert_eq!(payload(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn what_nobody_signed_does_not_go_by_the_digest_of_what_was() {
        let protected = "eyJmb3JtYXRMZW5ndGgiOjksImZvcm1hdFRhaWwiOiJDbjAifQ";
        let signatures = format!("\"signatures\":[{{\"protected\":\"{protected}\"}}]");
        // {"formatLength":9,"formatTail":"LCJiIjoyfQ"}, which is ,"b":2}
        let longer = "eyJmb3JtYXRMZW5ndGgiOjksImZvcm1hdFRhaWwiOiJMQ0ppSWpveWZRIn0";
        for text in [
            format!("{{\n  \"a\":1,\"b\":2,{signatures}}}"),
            format!("{{\n  \"a\":1,{signatures},\"b\":2}}"),
            format!("{{\n  \"a\":12,{signatures}}}"),
            format!("{{\n  \"a\":1,\"signatures\":[{{\"protected\":\"{longer}\"}}]}}"),
        ] {
            assert!(serde_json::from_str::<IgnoredAny>(&text).is_ok(), "{text}");
            assert_eq!(payload(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_document_is_read_without_panic(bytes in any::<Vec<u8>>(), protected in "[A-Za-z0-9_-]{0,80}") {
            let signed = format!("{{\"signatures\":[{{\"protected\":\"{protected}\"}}]}}");
            let _ = (payload(&bytes), payload(signed.as_bytes()));
        }
    }
}
