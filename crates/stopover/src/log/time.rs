//! The calendar's time as RFC 3339 with milliseconds, in UTC, without allocation.

use std::{
    cell::Cell,
    time::{SystemTime, UNIX_EPOCH},
};

/// `2026-11-24T02:40:00`: all of a time that is the same for a whole second.
type Second = [u8; 19];

thread_local! {
    /// The last second written by this thread, and its text.
    static LAST: Cell<(u64, Second)> = const { Cell::new((0, *b"1970-01-01T00:00:00")) };
}

/// Writes the time now, such as `2026-11-24T02:40:00.123Z`.
pub(super) fn write_now(out: &mut Vec<u8>) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    write(out, now.as_secs(), now.subsec_millis());
}

/// Writes the time now as Apache does, such as `24/Nov/2026:02:40:00 +0000`.
pub(super) fn write_day_and_time(out: &mut Vec<u8>) {
    const MONTHS: [&[u8; 3]; 12] =
        [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let text = second(now.as_secs());
    let month = usize::from((text[5] - b'0') * 10 + (text[6] - b'0'));
    out.extend_from_slice(&text[8..10]);
    out.push(b'/');
    out.extend_from_slice(MONTHS[(month + 11) % 12]);
    out.push(b'/');
    out.extend_from_slice(&text[..4]);
    out.push(b':');
    out.extend_from_slice(&text[11..]);
    out.extend_from_slice(b" +0000");
}

fn write(out: &mut Vec<u8>, unix_seconds: u64, millis: u32) {
    let (cached, mut text) = LAST.get();
    if cached != unix_seconds {
        text = second(unix_seconds);
        LAST.set((unix_seconds, text));
    }
    out.extend_from_slice(&text);
    out.extend_from_slice(&[b'.', digit(millis / 100), digit(millis / 10), digit(millis), b'Z']);
}

/// Returns the text of a second, counted from 1970; what lies beyond the year 9999 is shown as its end.
fn second(unix_seconds: u64) -> Second {
    const YEAR_9999_ENDS: u64 = 253_402_300_799;
    let unix_seconds = unix_seconds.min(YEAR_9999_ENDS);
    let (year, month, day) = civil(unix_seconds / 86_400);
    let (hour, minute, second) = (unix_seconds / 3_600 % 24, unix_seconds / 60 % 60, unix_seconds % 60);
    let mut text = *b"0000-00-00T00:00:00";
    for (at, value) in
        [(0, year / 100), (2, year % 100), (5, month), (8, day), (11, hour), (14, minute), (17, second)]
    {
        text[at] = digit64(value / 10);
        text[at + 1] = digit64(value);
    }
    text
}

/// Returns year, month and day of a day counted from 1970-01-01 (Howard Hinnant's `civil_from_days`): years begin in
/// March, so that the day a leap year adds is the last, and 400 years are always 146,097 days.
fn civil(days_since_1970: u64) -> (u64, u64, u64) {
    let days = days_since_1970 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

fn digit(value: u32) -> u8 {
    digit64(u64::from(value))
}

fn digit64(value: u64) -> u8 {
    b'0' + u8::try_from(value % 10).expect("what is left of a division by ten is below ten")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_since_1970_are_the_calendars() {
        let table = [
            (0, 0, "1970-01-01T00:00:00.000Z"),
            (86_399, 999, "1970-01-01T23:59:59.999Z"),
            (951_782_400, 5, "2000-02-29T00:00:00.005Z"),
            (951_868_800, 50, "2000-03-01T00:00:00.050Z"),
            (1_709_164_800, 0, "2024-02-29T00:00:00.000Z"),
            (1_735_689_599, 123, "2024-12-31T23:59:59.123Z"),
            (1_735_689_600, 0, "2025-01-01T00:00:00.000Z"),
            (4_107_542_400, 0, "2100-03-01T00:00:00.000Z"),
            (253_402_300_799, 0, "9999-12-31T23:59:59.000Z"),
            (u64::MAX, 0, "9999-12-31T23:59:59.000Z"),
        ];
        for (seconds, millis, want) in table {
            let mut out = Vec::new();
            write(&mut out, seconds, millis);
            assert_eq!(String::from_utf8(out).unwrap(), want, "{seconds}");
        }
    }

    #[test]
    fn every_day_follows_the_one_before_it() {
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0..100_000 {
            assert_eq!(civil(days), (year, month, day));
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = match month {
                2 => 28 + u64::from(leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            day += 1;
            if day > length {
                (day, month) = (1, month + 1);
            }
            if month > 12 {
                (month, year) = (1, year + 1);
            }
        }
    }
}
