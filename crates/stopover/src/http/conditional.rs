//! Conditional requests (RFC 9110, section 13): a digest is the strongest of all entity tags.

use http::{HeaderMap, header};
use oci::Digest;

/// Returns whether the client says, by `If-None-Match`, that it has this content.
pub(super) fn already_has(headers: &HeaderMap, digest: &Digest) -> bool {
    if !headers.contains_key(header::IF_NONE_MATCH) {
        return false;
    }
    let wanted = digest.to_string();
    headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|tag| names(tag, &wanted) || tag.trim() == "*")
}

/// Returns whether ranges are to be heeded: `If-Range` is absent, or names this content.
pub(super) fn range_applies(headers: &HeaderMap, digest: &Digest) -> bool {
    let Some(condition) = headers.get(header::IF_RANGE) else { return true };
    condition.to_str().is_ok_and(|tag| !tag.trim().starts_with("W/") && names(tag, &digest.to_string()))
}

/// Returns whether an entity tag, quoted, weak, or bare as registry:2 clients send it, is this digest.
fn names(tag: &str, digest: &str) -> bool {
    let tag = tag.trim();
    let tag = tag.strip_prefix("W/").unwrap_or(tag);
    tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).unwrap_or(tag) == digest
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use oci::Algorithm;

    use super::*;

    #[test]
    fn a_client_that_has_the_content_is_told_so_in_every_form_of_the_tag() {
        let digest = Digest::of(Algorithm::Sha256, b"x");
        let table = [
            (format!("\"{digest}\""), true),
            (format!("W/\"{digest}\""), true),
            (digest.to_string(), true),
            (format!("\"other\", \"{digest}\""), true),
            ("*".to_owned(), true),
            ("\"other\"".to_owned(), false),
            (String::new(), false),
        ];
        for (value, has) in table {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_NONE_MATCH, HeaderValue::from_str(&value).expect("the table is ASCII"));
            assert_eq!(already_has(&headers, &digest), has, "{value}");
        }
        assert!(!already_has(&HeaderMap::new(), &digest));
    }

    #[test]
    fn a_range_of_another_content_is_not_heeded() {
        let digest = Digest::of(Algorithm::Sha256, b"x");
        let with = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_RANGE, HeaderValue::from_str(value).expect("the table is ASCII"));
            range_applies(&headers, &digest)
        };
        assert!(range_applies(&HeaderMap::new(), &digest));
        assert!(with(&format!("\"{digest}\"")));
        assert!(!with(&format!("W/\"{digest}\"")), "a weak tag does not do for ranges");
        assert!(!with("\"other\""));
        assert!(!with("Wed, 21 Oct 2015 07:28:00 GMT"), "there is no date to compare with");
    }
}
