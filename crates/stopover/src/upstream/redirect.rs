//! Where a redirect leads: pure.
//!
//! `Location` may be absolute, or relative in any of RFC 3986's ways (gcr.io sends `/artifacts-downloads/...`). A step
//! from encrypted to unencrypted is refused, and so is everything that is not a plain http(s) URL.

use http::{StatusCode, Uri, uri::PathAndQuery};

use super::gate::Site;

/// How many redirects of one request are followed; a registry uses one, registry.k8s.io two.
pub(super) const HOPS_MAX: u32 = 5;
/// The longest `Location`, in bytes; signed URLs take about two thousand.
const LOCATION_BYTES_MAX: usize = 8 << 10;

/// Why a redirect is not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RedirectError {
    #[error("redirects without saying where to")]
    Missing,
    #[error("redirects to what is no http(s) URL")]
    Malformed,
    #[error("redirects from https to http")]
    Downgrade,
}

/// Returns whether a status sends us elsewhere.
pub(super) fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Returns the URL that a `Location`, received from `from`, stands for.
pub(super) fn target(from: &Uri, location: Option<&str>) -> Result<Uri, RedirectError> {
    let location = location.map(str::trim).filter(|text| !text.is_empty()).ok_or(RedirectError::Missing)?;
    if location.len() > LOCATION_BYTES_MAX {
        return Err(RedirectError::Malformed);
    }
    let url = resolve(from, location).parse::<Uri>().map_err(|_| RedirectError::Malformed)?;
    let to = Site::of(&url).ok_or(RedirectError::Malformed)?;
    if !to.https && from.scheme_str() == Some("https") {
        return Err(RedirectError::Downgrade);
    }
    Ok(url)
}

/// Returns the URL with this query where it has none of its own: registry.k8s.io redirects lists of tags and drops the
/// `n` and `last` of the page.
pub(super) fn with_query(url: Uri, query: Option<&str>) -> Uri {
    let Some(query) = query.filter(|_| url.query().is_none()) else { return url };
    format!("{url}?{query}").parse().unwrap_or(url)
}

/// Resolves a reference (RFC 3986, section 5.2), leaving an absolute path as sent: it may be signed.
fn resolve(from: &Uri, location: &str) -> String {
    let location = location.split('#').next().unwrap_or_default();
    let scheme = from.scheme_str().unwrap_or_default();
    let authority = from.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    let path = from.path();
    if has_scheme(location) {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else if location.starts_with('?') {
        format!("{scheme}://{authority}{path}{location}")
    } else if location.is_empty() {
        let whole = from.path_and_query().map(PathAndQuery::as_str).unwrap_or_default();
        format!("{scheme}://{authority}{whole}")
    } else {
        let folder = path.rsplit_once('/').map(|(folder, _)| folder).unwrap_or_default();
        let (relative, query) = match location.split_once('?') {
            Some((relative, query)) => (relative, format!("?{query}")),
            None => (location, String::new()),
        };
        format!("{scheme}://{authority}{}{query}", without_dots(&format!("{folder}/{relative}")))
    }
}

fn has_scheme(location: &str) -> bool {
    let Some((scheme, _)) = location.split_once(':') else { return false };
    scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

/// Removes `.` and `..` from an absolute path.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." => {}
            ".." => _ = kept.pop(),
            other => {
                kept.push(other);
                continue;
            }
        }
        if is_last {
            kept.push("");
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: &str = "https://registry.example/v2/library/alpine/blobs/sha256:aa?ns=x";

    fn to(location: &str) -> Result<String, RedirectError> {
        target(&FROM.parse().expect("a URL"), Some(location)).map(|url| url.to_string())
    }

    #[test]
    fn every_form_of_location_is_followed() {
        for (location, url) in [
            ("https://cdn.example/a?sig=1%2B2&x=%2F..%2F", "https://cdn.example/a?sig=1%2B2&x=%2F..%2F"),
            ("https://cdn.example:8443/a", "https://cdn.example:8443/a"),
            ("HTTPS://cdn.example/a#part", "https://cdn.example/a"),
            ("//cdn.example/a", "https://cdn.example/a"),
            ("/artifacts-downloads/x?y=z", "https://registry.example/artifacts-downloads/x?y=z"),
            ("/a/../b", "https://registry.example/a/../b"),
            ("?page=2", "https://registry.example/v2/library/alpine/blobs/sha256:aa?page=2"),
            ("other", "https://registry.example/v2/library/alpine/blobs/other"),
            ("./other?x=../y", "https://registry.example/v2/library/alpine/blobs/other?x=../y"),
            ("../uploads/1", "https://registry.example/v2/library/alpine/uploads/1"),
            ("../../../../../../x", "https://registry.example/x"),
            ("..", "https://registry.example/v2/library/alpine/"),
            ("#here", FROM),
        ] {
            assert_eq!(to(location).as_deref(), Ok(url), "{location}");
        }
    }

    #[test]
    fn a_query_that_a_redirect_drops_is_kept_and_none_is_put_over_another() {
        for (url, query, kept) in [
            ("https://r.example/v2/a/tags/list", Some("n=2"), "https://r.example/v2/a/tags/list?n=2"),
            ("https://r.example/v2/a/tags/list?n=1", Some("n=2"), "https://r.example/v2/a/tags/list?n=1"),
            ("https://r.example/v2/a/tags/list", None, "https://r.example/v2/a/tags/list"),
        ] {
            assert_eq!(with_query(url.parse().expect("a URL"), query), kept, "{url}");
        }
    }

    #[test]
    fn what_leads_astray_is_refused() {
        let long = format!("/{}", "x".repeat(LOCATION_BYTES_MAX));
        for (location, error) in [
            ("", RedirectError::Missing),
            ("  ", RedirectError::Missing),
            ("http://cdn.example/a", RedirectError::Downgrade),
            ("http://registry.example/a", RedirectError::Downgrade),
            ("ftp://cdn.example/a", RedirectError::Malformed),
            ("file:///etc/passwd", RedirectError::Malformed),
            ("javascript:alert(1)", RedirectError::Malformed),
            ("https://user:password@cdn.example/a", RedirectError::Malformed),
            ("https://user@cdn.example/a", RedirectError::Malformed),
            ("//user@cdn.example/a", RedirectError::Malformed),
            ("https://", RedirectError::Malformed),
            ("https:///a", RedirectError::Malformed),
            ("https://cdn.example:99999/a", RedirectError::Malformed),
            ("https://cdn example/a", RedirectError::Malformed),
            (&long, RedirectError::Malformed),
        ] {
            assert_eq!(to(location), Err(error), "{location}");
        }
        assert_eq!(target(&FROM.parse().expect("a URL"), None), Err(RedirectError::Missing));
    }

    #[test]
    fn an_unencrypted_registry_may_redirect_anywhere() {
        let from = "http://127.0.0.1:7000/v2/x".parse().expect("a URL");
        for location in ["http://127.0.0.1:7001/cdn/x", "https://cdn.example/x", "/x"] {
            assert!(target(&from, Some(location)).is_ok(), "{location}");
        }
    }
}
