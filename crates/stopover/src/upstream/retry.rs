//! Whether to try again, and when: pure.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    time::{Duration, SystemTime},
};

/// The wait before the first retry; it doubles with each.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// What must be left of the time allowed after a wait, or trying again is of no use.
const TRY_MIN: Duration = Duration::from_secs(1);
/// Bounds of what a registry may ask us to wait.
const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);
/// A registry that is down is asked again after this at the latest, whatever it says.
pub(super) const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);
/// A quota that is spent is not asked for before it resets: Docker Hub's window is six hours.
pub(super) const RETRY_AFTER_QUOTA_MAX: Duration = Duration::from_secs(6 * 3_600);

/// Returns how long to wait before the `retry`th retry (from 1), or `None` where the time left does not allow it.
///
/// `asked` is what the registry asked for in `Retry-After`; `chance`, from 0 to 1, spreads those that failed together.
pub(super) fn wait_before(
    retry: u32,
    asked: Option<Duration>,
    left: Duration,
    chance: f64,
) -> Option<Duration> {
    let whole = FIRST_WAIT * 2_u32.saturating_pow(retry.saturating_sub(1).min(10));
    let spread = whole / 2 + (whole / 2).mul_f64(chance.clamp(0.0, 1.0));
    let wait = asked.map_or(spread, |asked| asked.max(spread));
    (wait + TRY_MIN <= left).then_some(wait)
}

/// Reads `Retry-After`: seconds or a date (RFC 9110, section 10.2.3), held to 1 s to `longest`.
pub(super) fn retry_after(header: &str, now: SystemTime, longest: Duration) -> Option<Duration> {
    let header = header.trim();
    let asked = if !header.is_empty() && header.bytes().all(|byte| byte.is_ascii_digit()) {
        Duration::from_secs(header.parse().unwrap_or(u64::MAX))
    } else {
        let date = httpdate::parse_http_date(header).ok()?;
        date.duration_since(now).unwrap_or_default()
    };
    Some(asked.clamp(RETRY_AFTER_MIN, longest))
}

/// Returns a random number from 0 to 1, good enough to spread retries.
pub(super) fn chance() -> f64 {
    let random = RandomState::new().build_hasher().finish();
    f64::from(u32::try_from(random >> 32).expect("32 bits are left")) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn waits_grow_and_spread() {
        let left = Duration::from_secs(20);
        for (retry, chance, millis) in
            [(1, 0.0, 100), (1, 1.0, 200), (2, 0.0, 200), (2, 1.0, 400), (3, 0.5, 600)]
        {
            assert_eq!(wait_before(retry, None, left, chance), Some(Duration::from_millis(millis)));
        }
        for _ in 0..1000 {
            assert!((0.0..=1.0).contains(&chance()));
        }
    }

    #[test]
    fn what_the_registry_asks_for_is_honoured_where_time_allows() {
        let seconds = Duration::from_secs;
        assert_eq!(wait_before(1, Some(seconds(5)), seconds(20), 0.0), Some(seconds(5)));
        assert_eq!(wait_before(1, Some(seconds(19)), seconds(20), 0.0), Some(seconds(19)));
        assert_eq!(wait_before(1, Some(seconds(20)), seconds(20), 0.0), None);
        assert_eq!(wait_before(1, None, Duration::from_millis(900), 0.0), None);
    }

    #[test]
    fn retry_after_is_read_and_bounded() {
        let now = UNIX_EPOCH + Duration::from_secs(784_111_767);
        for (header, seconds) in [
            ("0", Some(1)),
            ("5", Some(5)),
            (" 7 ", Some(7)),
            ("86400", Some(300)),
            ("99999999999999999999999999", Some(300)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(10)),
            ("Sun, 06 Nov 1994 08:49:27 GMT", Some(1)),
            ("Sat, 05 Nov 1994 08:49:37 GMT", Some(1)),
            ("Fri, 31 Dec 1999 23:59:59 GMT", Some(300)),
            ("", None),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
        ] {
            assert_eq!(
                retry_after(header, now, RETRY_AFTER_MAX),
                seconds.map(Duration::from_secs),
                "{header:?}"
            );
        }
    }
}
