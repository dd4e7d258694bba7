//! The kinds of values that lanes to a registry are made of: shares, speeds, addresses, proxies, repositories.
//!
//! As for [`Field`](super::Field): a secret is checked and set like any other value and never shown.

use std::net::IpAddr;

use oci::RepositoryName;

use super::{
    super::{
        lane::{Egress, MirrorWhen, Share, Way},
        tables, units,
        used::{Config, Secret},
    },
    LIST_LEN_MAX, MASK, Of, Value, list, quoted,
};

/// The least bytes a second; less would be taken for a line that stalls.
const RATE_MIN: u64 = 16 << 10;
/// What a proxy's URL may begin with.
const PROXY_SCHEMES: [&str; 4] = ["http", "https", "socks5", "socks5h"];

/// A kind of value, with its place.
pub(in super::super) enum LaneField<C: 'static = Config> {
    /// Bytes a second; 0 is no limit.
    Rate(Of<C, Option<u64>>),
    /// A number, or so many hundredths.
    Share(Of<C, Share>),
    /// What names of repositories begin with.
    Repositories(Of<C, Vec<RepositoryName>>),
    /// An address of this machine.
    Address(Of<C, Option<IpAddr>>),
    /// A proxy's URL, of which user and password are never shown.
    Proxy(Of<C, Option<Secret>>),
    /// When a mirror is asked.
    When(Of<C, MirrorWhen>),
    /// Ways out: addresses, proxies, and names, which are the system's own way until they are looked up; the empty text is
    /// "not set".
    Ways(Of<C, Vec<Egress>>),
}

impl<C: 'static> LaneField<C> {
    /// Checks `value` and sets it in `config`.
    pub(super) fn set(&self, config: &mut C, value: &Value) -> Option<()> {
        match self {
            Self::Rate(of) => *of(config) = rate(value)?,
            Self::Share(of) => *of(config) = share(value)?,
            Self::Repositories(of) => *of(config) = value.each(|text| text.parse().ok())?,
            Self::Address(of) => *of(config) = if_set(value.text()?, address)?,
            Self::Proxy(of) => *of(config) = if_set(value.text()?, |text| proxy(text).map(Secret::new))?,
            Self::When(of) => {
                *of(config) = [MirrorWhen::Low, MirrorWhen::First]
                    .into_iter()
                    .find(|when| value.text() == Some(when.as_str()))?;
            }
            Self::Ways(of) => {
                *of(config) = match value.text() {
                    Some("") => Vec::new(),
                    _ => value.each(way).filter(|all| !all.is_empty())?,
                };
            }
        }
        Some(())
    }

    /// Returns what was found, without what may be a secret; of a list, what is wrong in it.
    pub(super) fn found(&self, value: &Value) -> String {
        let is_right = |text: &str| match self {
            Self::Repositories(_) => text.parse::<RepositoryName>().is_ok(),
            Self::Ways(_) => way(text).is_some(),
            _ => false,
        };
        let value = match value {
            Value::List(all) if all.len() <= LIST_LEN_MAX => {
                all.iter().find(|one| !one.text().is_some_and(is_right)).unwrap_or(value)
            }
            value => value,
        };
        match value.text() {
            // People write accounts into URLs.
            Some(text) if text.contains(['@', '?', '#']) => {
                "one with a user name, a password or a query in it (not shown)".to_owned()
            }
            _ => value.found(),
        }
    }

    /// Returns what the field takes, as a message and the reference name it.
    pub(super) fn expected(&self) -> String {
        match self {
            Self::Rate(_) => {
                let min = units::show_rate(RATE_MIN);
                format!("bytes a second, at least {min}, such as \"10MB\" or \"512KiB\", or 0 for no limit")
            }
            Self::Share(_) => "a number, or up to \"100%\", such as \"10%\"".to_owned(),
            Self::Repositories(_) => {
                "a list of names that repositories have or begin with, such as [\"acme\", \"library/alpine\"]".to_owned()
            }
            Self::Address(_) => "an IP address such as \"192.0.2.7\" or \"2001:db8::7\"".to_owned(),
            Self::Proxy(_) => {
                "a proxy's URL, such as \"http://proxy.example:3128\", \"https://...\" or \"socks5://user:password@...\", with what \
                 is no letter or digit in them percent-encoded"
                    .to_owned()
            }
            Self::When(_) => "\"low\" or \"first\"".to_owned(),
            Self::Ways(_) => "a list of names of [egresses.NAME], IP addresses, proxies' URLs or \"default\", such as [\"office\", \
                              \"192.0.2.7\", \"socks5://proxy.example:1080\"]"
                .to_owned(),
        }
    }

    /// Returns the value in `config` as it would stand in the file; `None` where it is not set.
    pub(super) fn show(&self, config: &mut C) -> Option<String> {
        Some(match self {
            Self::Rate(of) => quoted(&units::show_rate((*of(config))?)),
            Self::Share(of) => match of(config) {
                Share::Count(count) => count.to_string(),
                Share::Percent(percent) => quoted(&format!("{percent}%")),
            },
            Self::Repositories(of) if of(config).is_empty() => return None,
            Self::Repositories(of) => list(of(config).iter().map(|name| quoted(name.as_str())).collect()),
            Self::Address(of) => quoted(&(*of(config))?.to_string()),
            Self::Proxy(of) => quoted(&masked(of(config).as_ref()?.expose(), MASK)),
            Self::When(of) => quoted(of(config).as_str()),
            Self::Ways(of) => list(of(config).iter().map(|egress| quoted(&shown(egress))).collect()),
        })
    }

    /// Returns the value that `text` from the environment stands for.
    pub(super) fn read(&self, text: &str) -> Value {
        let written = || Value::Text(text.to_owned());
        match self {
            Self::Share(_) => text.parse().map_or_else(|_| written(), Value::Integer),
            Self::Repositories(_) if text.is_empty() => Value::List(Vec::new()),
            Self::Repositories(_) | Self::Ways(_) if text.contains(',') => Value::split(text),
            _ => written(),
        }
    }
}

fn rate(value: &Value) -> Option<Option<u64>> {
    let bytes = match value {
        Value::Integer(bytes) => u64::try_from(*bytes).ok()?,
        Value::Text(text) if matches!(&**text, "" | "0") => 0,
        value => units::rate(value.text()?)?,
    };
    if bytes == 0 { Some(None) } else { (bytes >= RATE_MIN).then_some(Some(bytes)) }
}

fn share(value: &Value) -> Option<Share> {
    if let Value::Integer(count) = value {
        return u64::try_from(*count).ok().map(Share::Count);
    }
    let percent = value.text()?.strip_suffix('%')?.trim_end();
    let digits = (1..=3).contains(&percent.len()) && percent.bytes().all(|byte| byte.is_ascii_digit());
    percent.parse().ok().filter(|percent| digits && *percent <= 100).map(Share::Percent)
}

/// Returns what `read` makes of a text; the empty one is `Some(None)`, "not set".
fn if_set<T>(text: &str, read: impl Fn(&str) -> Option<T>) -> Option<Option<T>> {
    if text.is_empty() { Some(None) } else { read(text).map(Some) }
}

/// Returns an address that something can be sent from.
fn address(text: &str) -> Option<IpAddr> {
    text.parse().ok().filter(|address: &IpAddr| !address.is_unspecified() && !address.is_multicast())
}

/// Returns the way out that a text is.
fn way(text: &str) -> Option<Egress> {
    let (name, way) = match (proxy(text), address(text)) {
        (Some(url), _) => (masked(&url, ""), Way::Proxy(Secret::new(url))),
        (_, Some(address)) => (address.to_string(), Way::From(address)),
        _ if tables::is_name(text) => (text.to_owned(), Way::System),
        _ => return None,
    };
    Some(Egress { name, way, bandwidth: None })
}

/// Returns how a way out stands in a list: by its name, or as what it is.
fn shown(egress: &Egress) -> String {
    match &egress.way {
        Way::Proxy(url) if egress.name.contains("://") => masked(url.expose(), MASK),
        _ => egress.name.clone(),
    }
}

/// Returns `text`, a proxy's URL, without a slash at its end and with scheme and host in lower case.
fn proxy(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (user, host) = rest.rsplit_once('@').map_or((None, rest), |(user, host)| (Some(user), host));
    let host = units::host(host)?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%:!$&'()*+,;=".contains(&byte);
    let is_escape = |rest: &str| rest.len() >= 2 && rest.bytes().take(2).all(|byte| byte.is_ascii_hexdigit());
    let user_right =
        |user: &str| !user.is_empty() && user.bytes().all(plain) && user.split('%').skip(1).all(is_escape);
    let is_right = PROXY_SCHEMES.contains(&&*scheme) && user.is_none_or(user_right);
    let user = user.map(|user| format!("{user}@")).unwrap_or_default();
    is_right.then(|| format!("{scheme}://{user}{host}"))
}

/// Returns a proxy's URL with `mask` in the place of user and password; with none at all where that is empty.
fn masked(url: &str, mask: &str) -> String {
    match url.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?.1))) {
        Some((scheme, host)) if mask.is_empty() => format!("{scheme}://{host}"),
        Some((scheme, host)) => format!("{scheme}://{mask}@{host}"),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_out_is_a_name_an_address_or_a_proxy() {
        for (text, want) in [
            ("office", Some("office")),
            ("default", Some("default")),
            ("a@b.c-d_e", Some("a@b.c-d_e")),
            ("192.0.2.7", Some("192.0.2.7")),
            ("2001:DB8::7", Some("2001:db8::7")),
            ("socks5://Ann:hunter2@Proxy.example:1080/", Some("socks5://***@proxy.example:1080")),
            ("HTTP://proxy", Some("http://proxy")),
            ("https://a%40b:%3A@[::1]:8443", Some("https://***@[::1]:8443")),
            ("0.0.0.0", Some("0.0.0.0")),
            ("", None),
            ("a b", None),
            ("ann:hunter2@proxy:1080", None),
            ("ftp://proxy", None),
            ("socks4://proxy", None),
            ("http://", None),
            ("http://proxy/path", None),
            ("http://a@b@proxy", None),
            ("http://@proxy", None),
            ("http://100%@proxy", None),
            ("http://a/b@proxy", None),
            ("::", None),
        ] {
            assert_eq!(way(text).map(|egress| shown(&egress)).as_deref(), want, "{text:?}");
        }
    }
}
