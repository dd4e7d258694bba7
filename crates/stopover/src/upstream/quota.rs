//! What a registry lets us ask: how much is left, and what a 429 closes.
//!
//! Docker Hub counts GETs of manifests and goes on answering HEADs when the quota is spent, so a 429 to such a GET
//! closes GETs only. The other 429 of Hub, for abuse, is no JSON and means everything.

use std::time::{Duration, Instant};

use http::HeaderMap;

use super::breaker::Throttle;

/// How often a tag may be checked while the quota is spent.
const HEAD_EVERY: Duration = Duration::from_millis(100);

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

/// Closed and open ways to one registry.
#[derive(Debug, Default)]
pub(super) struct Gates {
    everything: Throttle,
    counted: Throttle,
    uncounted: Throttle,
    next_head: Option<Instant>,
}

impl Gates {
    /// Lets a request through, or returns how long there is no use in asking.
    pub(super) fn admit(&mut self, cost: Cost, now: Instant) -> Result<(), Duration> {
        self.everything.admit(now)?;
        match cost {
            Cost::Counted => self.counted.admit(now),
            Cost::Other => self.uncounted.admit(now),
            Cost::Free => {
                self.uncounted.admit(now)?;
                self.pace_head(now)
            }
        }
    }

    /// Returns how long there is no use in asking, if there is none now. Lets nothing through.
    pub(super) fn closed(&self, cost: Cost, now: Instant) -> Option<Duration> {
        let of_kind = match cost {
            Cost::Counted => &self.counted,
            Cost::Free | Cost::Other => &self.uncounted,
        };
        self.everything.closed(now).or_else(|| of_kind.closed(now))
    }

    fn pace_head(&mut self, now: Instant) -> Result<(), Duration> {
        if !self.counted.is_closed() {
            return Ok(());
        }
        match self.next_head {
            Some(next) if now < next => Err(next - now),
            _ => {
                self.next_head = Some(now + HEAD_EVERY);
                Ok(())
            }
        }
    }

    /// Notes a 429; returns how long the way is closed.
    pub(super) fn refused(
        &mut self,
        cost: Cost,
        for_abuse: bool,
        now: Instant,
        asked: Option<Duration>,
    ) -> Duration {
        let throttle = match cost {
            _ if for_abuse => &mut self.everything,
            Cost::Counted => &mut self.counted,
            Cost::Free | Cost::Other => &mut self.uncounted,
        };
        throttle.refused(now, asked)
    }

    /// Notes an answer that was no 429.
    pub(super) fn succeeded(&mut self, cost: Cost) {
        self.everything.succeeded();
        match cost {
            Cost::Counted => self.counted.succeeded(),
            Cost::Free | Cost::Other => self.uncounted.succeeded(),
        }
    }
}

/// Returns whether the body of a 429 is of the kind that means abuse: not an error of the registry's (`HAP429`).
pub(super) fn is_for_abuse(body: &[u8]) -> bool {
    oci::parse_errors(body).is_empty()
}

/// How many GETs of manifests there are in a window, and how many are left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quota {
    pub(super) limit: u64,
    pub(super) remaining: u64,
}

impl Quota {
    /// Reads `ratelimit-limit` and `ratelimit-remaining`, such as `100;w=21600`. Without them nothing is counted.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let number = |name| {
            let text = headers.get(name)?.to_str().ok()?;
            text.split(';').next()?.trim().parse().ok()
        };
        Some(Self { limit: number("ratelimit-limit")?, remaining: number("ratelimit-remaining")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_spent_quota_closes_gets_and_slows_heads_down() {
        let start = Instant::now();
        let mut gates = Gates::default();
        gates.refused(Cost::Counted, false, start, Some(SECOND * 30));
        assert_eq!(gates.admit(Cost::Counted, start), Err(SECOND * 30));
        assert_eq!(gates.admit(Cost::Other, start), Ok(()));
        assert_eq!(gates.admit(Cost::Free, start), Ok(()));
        assert_eq!(gates.admit(Cost::Free, start), Err(HEAD_EVERY));
        assert_eq!(gates.admit(Cost::Free, start + HEAD_EVERY), Ok(()));
        gates.succeeded(Cost::Free);
        assert!(
            gates.admit(Cost::Counted, start).is_err(),
            "a HEAD that is answered says nothing about GETs"
        );
        assert_eq!(gates.admit(Cost::Counted, start + SECOND * 30), Ok(()));
        gates.succeeded(Cost::Counted);
        assert_eq!(gates.admit(Cost::Free, start + SECOND * 30), Ok(()));
        assert_eq!(gates.admit(Cost::Free, start + SECOND * 30), Ok(()));
    }

    #[test]
    fn a_429_for_abuse_closes_everything() {
        let start = Instant::now();
        for cost in [Cost::Counted, Cost::Free, Cost::Other] {
            let mut gates = Gates::default();
            assert_eq!(gates.refused(cost, true, start, None), SECOND * 60);
            for other in [Cost::Counted, Cost::Free, Cost::Other] {
                assert_eq!(gates.admit(other, start), Err(SECOND * 60));
            }
        }
    }

    #[test]
    fn a_429_to_a_head_closes_no_gets() {
        let start = Instant::now();
        let mut gates = Gates::default();
        gates.refused(Cost::Free, false, start, None);
        assert!(gates.admit(Cost::Free, start).is_err());
        assert_eq!(gates.admit(Cost::Counted, start), Ok(()));
    }

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
            ("100;w=21600", "76;w=21600", Some((100, 76))),
            ("200", "0", Some((200, 0))),
            (" 100 ; w=21600", "1;w=1", Some((100, 1))),
            ("x", "76", None),
            ("-1", "76", None),
            ("100", "", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("ratelimit-limit", limit.parse().expect("a value"));
            headers.insert("ratelimit-remaining", remaining.parse().expect("a value"));
            let quota = quota.map(|(limit, remaining)| Quota { limit, remaining });
            assert_eq!(Quota::of(&headers), quota, "{limit} {remaining}");
        }
        assert_eq!(Quota::of(&HeaderMap::new()), None);
    }
}
