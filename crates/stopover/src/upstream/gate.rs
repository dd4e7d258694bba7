//! The one gate for credentials: whether an account of a registry may be shown to a place on the network.
//!
//! The default is no. Yes is only for the registry itself and for the token services that are listed for it, each
//! compared whole: scheme, host and port. Nothing is derived from how names look, since "the same domain" has been
//! too weak before (CVE-2026-33540, CVE-2026-48978).

use std::{fmt, net::IpAddr};

use http::Uri;

use crate::egress::{Reach, is_public};

/// A place on the network: scheme, host and port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Site {
    pub(super) https: bool,
    host: String,
    port: u16,
}

impl Site {
    /// Returns where a URL leads, or `None` for anything but plain `http(s)://host[:port]/...`: another scheme, a
    /// user in it, a host with odd characters, a port that is none.
    pub(super) fn of(url: &Uri) -> Option<Self> {
        let https = match url.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let authority = url.authority()?;
        let host = authority.host();
        let port = match authority.as_str().strip_prefix(host)? {
            "" if https => 443,
            "" => 80,
            rest => rest
                .strip_prefix(':')
                .filter(|digits| is_number(digits))?
                .parse()
                .ok()
                .filter(|port| *port > 0)?,
        };
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let is_plain = match bare {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => {
                !host.is_empty()
                    && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
            }
        };
        is_plain.then(|| Self { https, host: host.to_ascii_lowercase(), port })
    }

    fn address(&self) -> Option<IpAddr> {
        self.host.trim_start_matches('[').trim_end_matches(']').parse().ok()
    }
}

/// As a URL: without a path, a query or a user, so that it may stand in a log.
impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, usual) = if self.https { ("https", 443) } else { ("http", 80) };
        write!(f, "{scheme}://{}", self.host)?;
        if self.port == usual { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The places where the accounts of one registry are at home.
#[derive(Clone, Debug)]
pub(super) struct Home {
    pub(super) site: Site,
    realms: Vec<Realm>,
}

/// A token service that the operator, or the table of well-known registries, trusts.
#[derive(Clone, Debug)]
struct Realm {
    site: Site,
    /// The only path allowed; any where the list names none.
    path: Option<String>,
}

impl Home {
    /// Returns the home of a registry's accounts: its own site and its realms. Fails with the realm that is none.
    ///
    /// A realm is a URL, or a host with an optional port: encrypted, or as the registry is.
    pub(super) fn new<'a>(site: Site, named: impl Iterator<Item = &'a str>) -> Result<Self, String> {
        let mut realms = Vec::new();
        for text in named {
            if text.contains("://") {
                realms.push(Realm::of(text).ok_or_else(|| text.to_owned())?);
                continue;
            }
            realms.push(Realm::of(&format!("https://{text}")).ok_or_else(|| text.to_owned())?);
            if !site.https {
                realms.extend(Realm::of(&format!("http://{text}")));
            }
        }
        Ok(Self { site, realms })
    }

    /// Returns whether the operator named this place, as the registry or one of its realms.
    pub(super) fn names(&self, url: &Uri) -> bool {
        let Some(site) = Site::of(url) else { return false };
        site == self.site || self.realms.iter().any(|realm| realm.allows(&site, url))
    }
}

impl Realm {
    fn of(url: &str) -> Option<Self> {
        let url = url.parse::<Uri>().ok()?;
        let path = Some(url.path().to_owned()).filter(|path| path != "/");
        Some(Self { site: Site::of(&url)?, path })
    }

    fn allows(&self, site: &Site, url: &Uri) -> bool {
        self.site == *site && self.path.as_deref().is_none_or(|path| path == url.path())
    }
}

/// Decides whether the account may be sent with a request to `target`.
///
/// Unencrypted only where the registry itself is so: then its account crosses the line in the clear anyway.
pub(super) fn may_send(home: &Home, target: &Uri) -> bool {
    let Some(site) = Site::of(target) else { return false };
    let encrypted_enough = site.https || !home.site.https;
    encrypted_enough && home.names(target)
}

/// Decides whether a token that was sent to `from` may be sent on to where that redirects: within the same place alone,
/// whatever the operator names.
pub(super) fn may_keep(from: &Uri, to: &Uri) -> bool {
    Site::of(from).is_some_and(|site| Site::of(to) == Some(site))
}

/// Decides how far a request may reach whose URL came from data, or `None` where it may not be sent at all.
///
/// What the operator named may be anywhere. Else it must be public and encrypted, unless the registry itself stands
/// inside: by its address, or since its answer came straight from there (`from_inside`), or by having no encryption
/// (the registry of a laboratory).
pub(super) fn reach(home: &Home, target: &Uri, from_inside: bool) -> Option<Reach> {
    let site = Site::of(target)?;
    if site == home.site {
        return Some(Reach::Home);
    }
    let is_inside =
        from_inside || !home.site.https || home.site.address().is_some_and(|address| !is_public(address));
    if is_inside || home.names(target) { Some(Reach::Named) } else { site.https.then_some(Reach::Public) }
}

#[cfg(test)]
mod tests;
