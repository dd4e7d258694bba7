//! What a registry counts, and how it says so.
//!
//! Docker Hub counts GETs of manifests and goes on answering HEADs when the quota is spent, so a 429 to such a GET
//! closes GETs only. The other 429 of Hub, for abuse, is no JSON and means everything from an address.

use std::time::Duration;

use http::HeaderMap;

/// The longest name of who is counted that is remembered, in bytes.
const SOURCE_BYTES_MAX: usize = 128;
/// Bounds of a window: what is said beyond them is no window.
const WINDOW_SECONDS: std::ops::RangeInclusive<u64> = 1..=31 * 86_400;

/// What a request costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cost {
    /// One of the quota: GET of a manifest.
    Counted,
    /// Nothing: HEAD of a manifest.
    Free,
    /// Nothing that is known: blobs, lists.
    Other,
}

/// Returns whether the body of a 429 is of the kind that means abuse: not an error of the registry's (`HAP429`).
pub(super) fn is_for_abuse(body: &[u8]) -> bool {
    oci::parse_errors(body).is_empty()
}

/// How many GETs of manifests there are in a window, and how many are left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Quota {
    pub(super) limit: u64,
    pub(super) remaining: u64,
    pub(super) window: Option<Duration>,
    /// Who they are counted for: an address or an account's identifier.
    pub(super) source: Option<String>,
}

impl Quota {
    /// Reads `ratelimit-limit` and `ratelimit-remaining`, such as `100;w=21600`, and `docker-ratelimit-source`. Without
    /// the first two nothing is counted.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let text = |name| headers.get(name)?.to_str().ok();
        let number = |name| text(name)?.split(';').next()?.trim().parse().ok();
        let window = || {
            let parameters = text("ratelimit-limit")?.split(';').skip(1);
            let seconds = parameters.filter_map(|one| one.trim().strip_prefix("w=")).next()?.parse().ok()?;
            WINDOW_SECONDS.contains(&seconds).then(|| Duration::from_secs(seconds))
        };
        let source = text("docker-ratelimit-source").map(str::trim);
        let source = source.filter(|source| !source.is_empty() && source.len() <= SOURCE_BYTES_MAX);
        Some(Self {
            limit: number("ratelimit-limit")?,
            remaining: number("ratelimit-remaining")?,
            window: window(),
            source: source.map(str::to_owned),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_forms_of_429_are_told_apart() {
        assert!(!is_for_abuse(br#"{"errors":[{"code":"TOOMANYREQUESTS","message":"x"}]}"#));
        for body in ["Too Many Requests (HAP429)", "", "{}", "<html>429</html>", r#"{"errors":[]}"#] {
            assert!(is_for_abuse(body.as_bytes()), "{body}");
        }
    }

    #[test]
    fn quota_headers_are_read() {
        for (limit, remaining, quota) in [
            ("100;w=21600", "76;w=21600", Some((100, 76, Some(21_600)))),
            ("200", "0", Some((200, 0, None))),
            (" 100 ; w=21600", "1;w=1", Some((100, 1, Some(21_600)))),
            ("100;x=1;w=60", "1", Some((100, 1, Some(60)))),
            ("100;w=0", "1", Some((100, 1, None))),
            ("100;w=99999999999", "1", Some((100, 1, None))),
            ("x", "76", None),
            ("-1", "76", None),
            ("100", "", None),
        ] {
            for (sent, source) in [("192.0.2.1", Some("192.0.2.1")), ("", None), (&*"x".repeat(129), None)] {
                let mut headers = HeaderMap::new();
                headers.insert("ratelimit-limit", limit.parse().expect("a value"));
                headers.insert("ratelimit-remaining", remaining.parse().expect("a value"));
                headers.insert("docker-ratelimit-source", sent.parse().expect("a value"));
                let quota = quota.map(|(limit, remaining, seconds)| Quota {
                    limit,
                    remaining,
                    window: seconds.map(Duration::from_secs),
                    source: source.map(str::to_owned),
                });
                assert_eq!(Quota::of(&headers), quota, "{limit} {remaining} {sent}");
            }
        }
        assert_eq!(Quota::of(&HeaderMap::new()), None);
    }
}
