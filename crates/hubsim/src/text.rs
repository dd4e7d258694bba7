//! Small text forms: sizes, durations, dates, queries, Base64, hexadecimal digests.
//!
//! Written by hand so that the stand-in shares no parser with the product that it tests.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Reads a size such as `65536`, `4MB`, `4MiB` or, as a rate, `4MB/s`; returns bytes.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("not a size such as 65536, 4MB or 64MiB: {text:?}");
    let body = text.trim().trim_end_matches("/s");
    let digits = body.len() - body.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
    let number: f64 = body[..digits].parse().map_err(|_| wrong())?;
    let unit: f64 = match body[digits..].trim() {
        "" | "B" => 1.0,
        "k" | "K" | "kB" | "KB" => 1e3,
        "M" | "MB" => 1e6,
        "G" | "GB" => 1e9,
        "KiB" => 1024.0,
        "MiB" => 1_048_576.0,
        "GiB" => 1_073_741_824.0,
        _ => return Err(wrong()),
    };
    let bytes = number * unit;
    if !bytes.is_finite() || bytes > 1e18 {
        return Err(wrong());
    }
    Ok(bytes as u64)
}

/// Reads a duration such as `80ms`, `300s`, `5m` or `300` (seconds).
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("not a duration such as 80ms, 300s or 5m: {text:?}");
    let body = text.trim();
    let digits = body.len() - body.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
    let number: f64 = body[..digits].parse().map_err(|_| wrong())?;
    let unit = match &body[digits..] {
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(wrong()),
    };
    Duration::try_from_secs_f64(number * unit).map_err(|_| wrong())
}

/// Returns seconds since 1970; 0 where the machine's clock is older than that.
pub(crate) fn now_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Writes seconds since 1970 as RFC 3339 in UTC, such as `2026-11-24T02:40:00Z`.
pub(crate) fn rfc3339(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Civil from days, counted in years that begin in March, so that the leap day is the last of its year.
    let z = days + 719_468;
    let era = z / 146_097;
    let day_of_era = z % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

/// Returns the pairs of a query or form, decoded.
pub(crate) fn pairs(query: &str) -> Vec<(String, String)> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (unescape(name), unescape(value))
        })
        .collect()
}

/// Returns the first value of `name` in pairs.
pub(crate) fn value<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = (bytes[at] == b'%')
            .then(|| bytes.get(at + 1..at + 3).and_then(|two| std::str::from_utf8(two).ok()))
            .flatten()
            .and_then(|two| u8::from_str_radix(two, 16).ok());
        match (bytes[at], hex) {
            (_, Some(byte)) => {
                decoded.push(byte);
                at += 2;
            }
            (b'+', _) => decoded.push(b' '),
            (byte, _) => decoded.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// Returns user and password of an `Authorization: Basic` header.
pub(crate) fn basic(header: &str) -> Option<(String, String)> {
    let encoded = header.strip_prefix("Basic ")?;
    let decoded = String::from_utf8(base64(encoded.trim())?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

fn base64(text: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::new();
    let (mut bits, mut count) = (0_u32, 0_u32);
    for byte in text.trim_end_matches('=').bytes() {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(six);
        count += 6;
        if count >= 8 {
            count -= 8;
            decoded.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_are_read_as_people_write_them() {
        for (text, bytes) in [("4MB/s", 4_000_000), ("64MiB", 67_108_864), ("1.5kB", 1500), ("7", 7)] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for (text, millis) in [("80ms", 80), ("300s", 300_000), ("5m", 300_000), ("2", 2000)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "MB", "4XB", "-1"] {
            assert!(parse_size(text).is_err(), "{text}");
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_488_061, "2026-11-24T02:41:01Z"),
        ] {
            assert_eq!(rfc3339(seconds), text);
        }
    }

    #[test]
    fn queries_and_basic_credentials_are_decoded() {
        let read = pairs("scope=repository%3Alibrary%2Fx%3Apull&service=a+b&flag");
        assert_eq!(value(&read, "scope"), Some("repository:library/x:pull"));
        assert_eq!(value(&read, "service"), Some("a b"));
        assert_eq!(value(&read, "flag"), Some(""));
        assert_eq!(basic("Basic dXNlcjpwYTpzcw=="), Some(("user".to_owned(), "pa:ss".to_owned())));
        assert_eq!(basic("Bearer x"), None);
    }
}
