//! The mirror as a client names it: scheme, host, port, and maybe a path.
//!
//! It promises that what it holds can stand in any client's configuration: no account, no query, no character that
//! would need quoting there. It knows nothing of clients.

use std::net::IpAddr;

/// A mirror's URL, in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mirror {
    pub(super) scheme: Scheme,
    /// A host's name or address; an IPv6 one in its brackets.
    host: String,
    port: Option<u16>,
    /// Empty, or `/a/b`.
    path: String,
}

/// Whether the line to the mirror is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Http,
    Https,
}

impl Mirror {
    /// Returns the mirror at `text`, such as `http://mirror.example:5000`, or what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            format!(
                "--mirror: found {text:?}, expected a URL such as http://mirror.example:5000 or \
                 https://mirror.example: {why}"
            )
        };
        let (scheme, rest) = match text.split_once("://") {
            Some(("http", rest)) => (Scheme::Http, rest),
            Some(("https", rest)) => (Scheme::Https, rest),
            Some((other, _)) => return Err(wrong(&format!("{other:?} is neither http nor https"))),
            None => return Err(wrong("the scheme says whether the line is encrypted, and none is named")),
        };
        if rest.contains('@') {
            return Err(wrong("no account may stand in it"));
        }
        if rest.contains(['?', '#']) {
            return Err(wrong("nothing may follow the path"));
        }
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let (host, port) = split_port(authority).ok_or_else(|| wrong("the port is a number up to 65535"))?;
        if !is_host(host) {
            return Err(wrong(&format!("{host:?} is no host")));
        }
        let path = path.trim_end_matches('/').trim_end_matches("/v2");
        if !path.is_empty() && !path[1..].split('/').all(is_path_part) {
            return Err(wrong(
                "a path is made of lower-case letters, digits and ._-, for podman and BuildKit",
            ));
        }
        Ok(Self { scheme, host: host.to_owned(), port, path: path.to_owned() })
    }

    /// Returns the mirror of this machine, as its own configuration has it.
    pub(super) fn of_this_machine(scheme: Scheme, host: &str, port: u16) -> Self {
        let usual = matches!((scheme, port), (Scheme::Http, 80) | (Scheme::Https, 443));
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        Self { scheme, host, port: (!usual).then_some(port), path: String::new() }
    }

    /// Returns the URL, without a slash at its end.
    pub(super) fn url(&self) -> String {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        format!("{scheme}://{}{}", self.authority(), self.path)
    }

    /// Returns `host:port`, or `host` where no port is named.
    pub(super) fn authority(&self) -> String {
        self.port.map_or_else(|| self.host.clone(), |port| format!("{}:{port}", self.host))
    }

    /// Returns where `registry` is, for clients that know no `ns`: `host:port/registry`.
    pub(super) fn location(&self, registry: &str) -> String {
        format!("{}{}/{registry}", self.authority(), self.path)
    }

    /// Returns whether there is more to the URL than the host.
    pub(super) fn has_path(&self) -> bool {
        !self.path.is_empty()
    }

    /// Returns the URL of the whole API, for clients that take a path for that.
    pub(super) fn api(&self) -> String {
        if self.path.is_empty() { self.url() } else { format!("{}/v2", self.url()) }
    }

    /// Returns the host, an IPv6 address without its brackets.
    pub(super) fn host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    /// Returns the port that is connected to.
    pub(super) fn port(&self) -> u16 {
        self.port.unwrap_or(match self.scheme {
            Scheme::Http => 80,
            Scheme::Https => 443,
        })
    }

    /// Returns whether the mirror is on the machine that asks, as far as its name says.
    pub(super) fn is_loopback(&self) -> bool {
        self.host() == "localhost" || self.host().parse().is_ok_and(|address: IpAddr| address.is_loopback())
    }

    /// Returns whether the line to it is not encrypted.
    pub(super) fn is_plain(&self) -> bool {
        self.scheme == Scheme::Http
    }
}

/// Returns whether `name` can be a registry's: a host, maybe with a port.
pub(super) fn is_registry(name: &str) -> bool {
    let looks_like_a_host = name.contains(['.', ':']) || name == "localhost";
    looks_like_a_host && split_port(name).is_some_and(|(host, _)| is_host(host) && !host.starts_with('['))
}

fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let after = authority.rfind(']').map_or(0, |at| at + 1);
    match authority[after..].find(':') {
        None => Some((authority, None)),
        Some(at) => {
            let (host, port) = authority.split_at(after + at);
            let port = port[1..].parse().ok().filter(|&port: &u16| port != 0)?;
            Some((host, Some(port)))
        }
    }
}

fn is_host(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[') {
        let address = address.strip_suffix(']').unwrap_or_default();
        return address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    host.len() <= 253 && host.split('.').all(is_label)
}

fn is_path_part(part: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    part.bytes().all(|byte| is_word(byte) || matches!(byte, b'.' | b'_' | b'-'))
        && part.bytes().next().is_some_and(is_word)
        && part.bytes().last().is_some_and(is_word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart_and_put_together_as_each_client_wants_it() {
        for (text, url, authority, location, api) in [
            ("http://m:5000", "http://m:5000", "m:5000", "m:5000/ghcr.io", "http://m:5000"),
            (
                "https://m.example/",
                "https://m.example",
                "m.example",
                "m.example/ghcr.io",
                "https://m.example",
            ),
            ("https://m/a/b/", "https://m/a/b", "m", "m/a/b/ghcr.io", "https://m/a/b/v2"),
            ("https://m/v2/", "https://m", "m", "m/ghcr.io", "https://m"),
            (
                "http://[::1]:5000",
                "http://[::1]:5000",
                "[::1]:5000",
                "[::1]:5000/ghcr.io",
                "http://[::1]:5000",
            ),
        ] {
            let mirror = Mirror::parse(text).expect(text);
            assert_eq!(
                [mirror.url(), mirror.authority(), mirror.location("ghcr.io"), mirror.api()],
                [url, authority, location, api].map(str::to_owned)
            );
        }
    }

    #[test]
    fn what_cannot_stand_in_a_configuration_is_refused_with_the_reason() {
        for (text, why) in [
            ("mirror.example:5000", "scheme"),
            ("ftp://m", "neither http nor https"),
            ("http://ann:secret@m", "account"),
            ("http://m?x=1", "follow"),
            ("http://m#x", "follow"),
            ("http://m:0", "port"),
            ("http://m:70000", "port"),
            ("http://", "no host"),
            ("http://m m", "no host"),
            ("http://m\"", "no host"),
            ("http://[::g]", "no host"),
            ("http://m/A", "lower-case"),
            ("http://m//a", "lower-case"),
        ] {
            let error = Mirror::parse(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn loopback_is_known_by_name_and_by_address() {
        for (text, loopback) in [
            ("http://localhost:5000", true),
            ("http://127.1.2.3", true),
            ("http://[::1]:5000", true),
            ("http://mirror.example", false),
            ("http://10.0.0.1", false),
        ] {
            assert_eq!(Mirror::parse(text).expect(text).is_loopback(), loopback, "{text}");
        }
    }

    #[test]
    fn a_registry_is_a_host() {
        for name in ["docker.io", "registry.example:5000", "localhost", "localhost:5000"] {
            assert!(is_registry(name), "{name}");
        }
        for name in ["docker", "*", "a/b", "https://ghcr.io", "ghcr.io:x", "a b.c", "", "../x.y"] {
            assert!(!is_registry(name), "{name}");
        }
    }
}
