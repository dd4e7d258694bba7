//! Values as people write them: durations, sizes, addresses, hosts and URLs, from text and back.
//!
//! Pure functions; each returns `None` where the text is not such a value. Only [`listen`] may ask the resolver, for a
//! host name to listen on.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs},
    str::FromStr,
    time::Duration,
};

use http::uri::Authority;
use oci::RepositoryName;

use super::used::Address;

const NANOS_PER_SECOND: u128 = 1_000_000_000;
const SECONDS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
const SIZES: [(u32, &str); 5] = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB"), (0, "B")];
/// Units of a line's speed, in bytes a second.
const THOUSANDS: [(u128, &str); 4] = [(1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB"), (1_000, "KB")];
/// Whole seconds below this are shown as such: `75s` reads better than `1m15s`.
const SHOWN_IN_SECONDS_BELOW: u64 = 120;
/// The longest path of a registry's URL, in bytes.
const URL_PATH_BYTES_MAX: usize = 256;

/// Returns the duration that `text` names in Go's way, such as `1h30m`, `1.5s` or `0`, with `d` for days besides.
pub(super) fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut nanos = 0u128;
    while !rest.is_empty() {
        let number_len = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(number_len);
        let unit_len = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_len);
        nanos = nanos.checked_add(scaled(number, nanos_of(unit)?)?)?;
        rest = after;
    }
    let seconds = u64::try_from(nanos / NANOS_PER_SECOND).ok()?;
    let nanos = u32::try_from(nanos % NANOS_PER_SECOND).ok()?;
    (!text.is_empty()).then(|| Duration::new(seconds, nanos))
}

fn nanos_of(unit: &str) -> Option<u128> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => NANOS_PER_SECOND,
        "m" => 60 * NANOS_PER_SECOND,
        "h" => 3_600 * NANOS_PER_SECOND,
        "d" => 86_400 * NANOS_PER_SECOND,
        _ => return None,
    })
}

/// Returns `number`, which may have a fraction, times `unit`; what is less than one is cut off.
fn scaled(number: &str, unit: u128) -> Option<u128> {
    const FRACTION_DIGITS_MAX: usize = 18;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.len() > FRACTION_DIGITS_MAX {
        return None;
    }
    let digits = |text: &str| {
        if text.is_empty() { Some(0) } else { text.parse::<u64>().ok().map(u128::from) }
    };
    let tenths = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    digits(whole)?.checked_mul(unit)?.checked_add(digits(fraction)?.checked_mul(unit)? / tenths)
}

/// Returns `duration` as [`duration()`] reads it.
pub(super) fn show_duration(duration: Duration) -> String {
    let whole = duration.as_secs();
    if duration.subsec_nanos() > 0 {
        let millis = duration.as_millis();
        return if duration.subsec_nanos().is_multiple_of(1_000_000) {
            format!("{millis}ms")
        } else {
            format!("{}ns", duration.as_nanos())
        };
    }
    if whole == 0 {
        return "0".to_owned();
    }
    if whole < SHOWN_IN_SECONDS_BELOW {
        return format!("{whole}s");
    }
    let mut rest = whole;
    let mut text = String::new();
    for (seconds, unit) in SECONDS {
        if rest >= seconds {
            text += &format!("{}{unit}", rest / seconds);
            rest %= seconds;
        }
    }
    text
}

/// Returns the bytes that `text` names, such as `64MiB`.
pub(super) fn size(text: &str) -> Option<u64> {
    let (shift, unit) = SIZES.into_iter().find(|(_, unit)| text.ends_with(unit))?;
    let number = text.strip_suffix(unit)?.trim_end();
    let all_digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    number.parse::<u64>().ok().filter(|_| all_digits)?.checked_mul(1 << shift)
}

/// Returns `bytes` as [`size()`] reads it.
pub(super) fn show_size(bytes: u64) -> String {
    let whole = |shift: u32| bytes != 0 && bytes.trailing_zeros() >= shift;
    let (shift, unit) = SIZES.into_iter().find(|(shift, _)| whole(*shift)).unwrap_or((0, "B"));
    format!("{}{unit}", bytes >> shift)
}

/// Returns the bytes a second that `text` names, in sizes or in thousands, as those are counted who sell lines: `10MB`.
pub(super) fn rate(text: &str) -> Option<u64> {
    let text = text.strip_suffix("/s").unwrap_or(text);
    size(text).or_else(|| {
        let (unit, number) =
            THOUSANDS.into_iter().find_map(|(unit, name)| Some((unit, text.strip_suffix(name)?)))?;
        u64::try_from(scaled(number.trim_end(), unit)?).ok()
    })
}

/// Returns bytes a second as [`rate()`] reads them.
pub(super) fn show_rate(bytes: u64) -> String {
    let whole = |unit: &u128| bytes > 0 && u128::from(bytes).is_multiple_of(*unit);
    match THOUSANDS.into_iter().find(|(unit, _)| whole(unit)) {
        Some((unit, name)) => format!("{}{name}", u128::from(bytes) / unit),
        None => show_size(bytes),
    }
}

/// Returns where to listen: `127.0.0.1:5000`, `[::1]:5000`, `:5000` for every address of the machine, or `host:5000`.
///
/// A host name with several addresses gives the first IPv4 one, as it does in registry:2. `unix:/path` is a socket in the
/// file system.
pub(super) fn listen(text: &str) -> Option<Address> {
    if let Some(path) = text.strip_prefix("unix:") {
        // `unix:///path` is how URLs have it.
        let path = path.strip_prefix("//").unwrap_or(path);
        let right = path.starts_with('/') && !path.ends_with('/') && !path.contains('\0');
        return right.then(|| Address::Unix(path.into()));
    }
    listen_tcp(text).map(Address::Tcp)
}

/// A text that is no address to listen on.
#[derive(Debug, thiserror::Error)]
#[error("expected an address such as 127.0.0.1:5000, [::1]:5000, :5000 or unix:/run/x.sock")]
pub struct NoAddress;

impl FromStr for Address {
    type Err = NoAddress;

    fn from_str(text: &str) -> Result<Self, NoAddress> {
        listen(text).ok_or(NoAddress)
    }
}

fn listen_tcp(text: &str) -> Option<SocketAddr> {
    if let Ok(addr) = text.parse() {
        return Some(addr);
    }
    let (name, port) = text.rsplit_once(':')?;
    let port: u16 = port.parse().ok()?;
    match name {
        "" => Some(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port)),
        "localhost" => Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)),
        name => {
            host(name)?;
            let all: Vec<SocketAddr> = (name, port).to_socket_addrs().ok()?.collect();
            all.iter().find(|addr| addr.is_ipv4()).or(all.first()).copied()
        }
    }
}

/// Returns `text`, a host with an optional port, in lower case.
pub(super) fn host(text: &str) -> Option<String> {
    let authority: Authority = text.parse().ok()?;
    let host = authority.host();
    let port_right = match authority.as_str().strip_prefix(host)? {
        "" => true,
        port => port.strip_prefix(':')?.parse::<u16>().is_ok_and(|port| port > 0) && !port.contains('+'),
    };
    let host_right = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => {
            host.starts_with(|c: char| c.is_ascii_alphanumeric())
                && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        }
    };
    (port_right && host_right).then(|| text.to_ascii_lowercase())
}

/// Returns `text`, a host without a port, in lower case.
pub(super) fn host_name(text: &str) -> Option<String> {
    host(text).filter(|host| host.ends_with(']') || !host.contains(':'))
}

/// Returns `text`, a name that can be the first part of a repository's: neither the API's own nor Docker Hub's.
pub(super) fn path_part(text: &str) -> Option<String> {
    let is_free = !text.contains('/') && !["v2", "library"].contains(&text);
    (is_free && text.parse::<RepositoryName>().is_ok()).then(|| text.to_owned())
}

/// Returns `text`, the beginning of a path, without slashes at its ends; `Some(None)` where it is the top.
pub(super) fn path_prefix(text: &str) -> Option<Option<String>> {
    let inner = text.strip_prefix('/').unwrap_or(text);
    let inner = inner.strip_suffix('/').unwrap_or(inner);
    let is_right = inner.parse::<RepositoryName>().is_ok()
        && !inner.starts_with("library/")
        && inner != "library"
        && !inner.split('/').any(|part| part == "v2");
    if inner.is_empty() { Some(None) } else { is_right.then(|| Some(inner.to_owned())) }
}

/// Returns `text`, a registry's URL, without a slash at its end and with scheme and host in lower case.
///
/// A path is what stands before `/v2/` there, as in Artifactory's `https://host/artifactory/api/docker/hub`; `/v2` itself
/// is not to be written.
pub(super) fn url(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let (authority, path) = match rest.split_once('/') {
        None | Some((_, "")) => (rest.strip_suffix('/').unwrap_or(rest), String::new()),
        Some((authority, path)) => (authority, format!("/{}", path.strip_suffix('/').unwrap_or(path))),
    };
    let host = host(authority)?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let segment_right = |segment: &str| !matches!(segment, "" | "." | "..") && segment.bytes().all(plain);
    let path_right = path.len() <= URL_PATH_BYTES_MAX
        && path.split('/').skip(1).all(segment_right)
        && !path.ends_with("/v2");
    (matches!(scheme.as_str(), "http" | "https") && path_right).then(|| format!("{scheme}://{host}{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        let table = [
            ("0", Some(Duration::ZERO)),
            ("0s", Some(Duration::ZERO)),
            ("60s", Some(Duration::from_secs(60))),
            ("5m", Some(Duration::from_secs(300))),
            ("1h30m", Some(Duration::from_secs(5_400))),
            ("7d", Some(Duration::from_secs(604_800))),
            ("1.5h", Some(Duration::from_secs(5_400))),
            (".5s", Some(Duration::from_millis(500))),
            ("1.s", Some(Duration::from_secs(1))),
            ("250ms", Some(Duration::from_millis(250))),
            ("3us", Some(Duration::from_micros(3))),
            ("3µs", Some(Duration::from_micros(3))),
            ("42ns", Some(Duration::from_nanos(42))),
            ("1m30s500ms", Some(Duration::from_millis(90_500))),
            ("", None),
            ("60", None),
            ("s", None),
            (".s", None),
            ("1..5s", None),
            ("1.2.3s", None),
            ("60 s", None),
            ("-1s", None),
            ("+1s", None),
            ("1w", None),
            ("1H", None),
            ("99999999999999999999s", None),
            ("18446744073709551615d", None),
        ];
        for (text, want) in table {
            assert_eq!(duration(text), want, "{text:?}");
        }
    }

    #[test]
    fn what_is_shown_is_read_as_the_same() {
        for text in ["0", "1s", "75s", "2m", "1h30m", "7d", "1d1h1m1s", "250ms", "1500ms", "42ns"] {
            assert_eq!(show_duration(duration(text).unwrap()), text);
        }
        for text in ["0B", "1B", "1000B", "1KiB", "1536B", "16MiB", "3GiB", "2TiB"] {
            assert_eq!(show_size(size(text).unwrap()), text);
        }
    }

    #[test]
    fn sizes_need_a_unit() {
        let table = [
            ("64MiB", Some(64 << 20)),
            ("1 GiB", Some(1 << 30)),
            ("0B", Some(0)),
            ("64", None),
            ("MiB", None),
            ("-1B", None),
            ("+1B", None),
            ("1.5GiB", None),
            ("64MB", None),
            ("64mib", None),
            ("99999999TiB", None),
        ];
        for (text, want) in table {
            assert_eq!(size(text), want, "{text:?}");
        }
    }

    #[test]
    fn speeds_of_a_line_are_bytes_a_second_in_either_kind_of_unit() {
        let table = [
            ("10MB", Some(10_000_000)),
            ("1.5MB", Some(1_500_000)),
            ("500 kB/s", Some(500_000)),
            ("500KB", Some(500_000)),
            ("1GB", Some(1_000_000_000)),
            ("64KiB", Some(65_536)),
            ("65536B/s", Some(65_536)),
            ("10", None),
            ("MB", None),
            ("10Mbit", None),
            ("10Mb", None),
            ("-1MB", None),
            ("99999999999999GB", None),
        ];
        for (text, want) in table {
            assert_eq!(rate(text), want, "{text:?}");
        }
        for text in ["10MB", "1500kB", "2GB", "64KiB", "16385B"] {
            assert_eq!(show_rate(rate(text).unwrap()), text);
        }
    }

    #[test]
    fn addresses_to_listen_on_are_those_of_registry_2() {
        let table = [
            (":5000", Some("[::]:5000")),
            ("0.0.0.0:5000", Some("0.0.0.0:5000")),
            ("127.0.0.1:0", Some("127.0.0.1:0")),
            ("[::1]:80", Some("[::1]:80")),
            ("localhost:5000", Some("127.0.0.1:5000")),
            ("5000", None),
            ("localhost", None),
            ("localhost:", None),
            (":65536", None),
            ("::1:80x", None),
            ("a b:80", None),
            ("", None),
            ("unix:/run/stopover/s.sock", Some("unix:/run/stopover/s.sock")),
            ("unix:///run/s.sock", Some("unix:/run/s.sock")),
            ("unix:s.sock", None),
            ("unix:", None),
            ("unix:/run/", None),
        ];
        for (text, want) in table {
            assert_eq!(listen(text).map(|addr| addr.to_string()).as_deref(), want, "{text:?}");
        }
    }

    #[test]
    fn a_url_is_a_scheme_a_host_and_maybe_a_port_and_a_path() {
        let table = [
            ("https://registry-1.docker.io", Some("https://registry-1.docker.io")),
            ("https://registry-1.docker.io/", Some("https://registry-1.docker.io")),
            ("HTTP://Mirror.Example:7000", Some("http://mirror.example:7000")),
            ("http://127.0.0.1:7000", Some("http://127.0.0.1:7000")),
            ("http://[::1]:7000", Some("http://[::1]:7000")),
            ("registry-1.docker.io", None),
            ("ftp://registry-1.docker.io", None),
            ("https://", None),
            ("https:///", None),
            ("https://host/artifactory/api/docker/Hub/", Some("https://host/artifactory/api/docker/Hub")),
            ("https://HOST/Path", Some("https://host/Path")),
            ("https://host/v2", None),
            ("https://host/v2/", None),
            ("https://host/path/v2/", None),
            ("https://host/a/../b", None),
            ("https://host/a//b", None),
            ("https://host/%2e", None),
            ("https://host/a b", None),
            ("https://host/a?x", None),
            ("https://host/a#x", None),
            ("https://host//", None),
            ("https://host/hubv2", Some("https://host/hubv2")),
            ("https://host?x", None),
            ("https://host#x", None),
            ("https://user:pass@host", None),
            ("https://host:0", None),
            ("https://host:99999", None),
            ("https://host:", None),
            ("https://:80", None),
            ("https://host:+80", None),
            ("https://[host]", None),
            ("https://[::1", None),
            ("https://-host", None),
            ("https://h\u{f6}st", None),
            ("https://ho st", None),
            ("https://ho_st", Some("https://ho_st")),
        ];
        for (text, want) in table {
            assert_eq!(url(text).as_deref(), want, "{text:?}");
        }
    }
}
