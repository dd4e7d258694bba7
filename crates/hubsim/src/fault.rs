//! Everything that can go wrong with a registry, by name.
//!
//! A [`Fault`] is written `name` or `name:argument`. It is installed with how often it strikes ([`Times`]) and where
//! ([`Target`]); without a target each strikes where it makes sense (a cut strikes blobs, `head-refused` manifests).

use std::{
    fmt,
    net::IpAddr,
    str::FromStr,
    sync::{Mutex, PoisonError},
};

use http::Method;

/// One thing that goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `cut-after:N`: the connection closes after N bytes of a body.
    CutAfter(u64),
    /// `stall-after:N`: nothing more is sent after N bytes of a body, until `Hub::release`; the connection stays open.
    StallAfter(u64),
    /// `flip-byte:N`: the byte at offset N of the content is another one.
    FlipByte(u64),
    /// `wrong-length:D`: `Content-Length` is D bytes more (or, negative, fewer) than the content has. Where it is more,
    /// the connection closes at the content's end.
    WrongLength(i64),
    /// `no-content-length`: the body is chunked.
    NoContentLength,
    /// `no-range`: a request with a range is answered 200 with everything.
    NoRange,
    /// `bad-content-range`: a 206 whose `Content-Range` says another offset than the one sent.
    BadContentRange,
    /// `content-encoding-gzip`: the body is said to be gzip on the way.
    ContentEncodingGzip,
    /// `hang`: accepted and not answered, until `Hub::release`.
    Hang,
    /// `close`: the connection closes instead of an answer.
    Close,
    /// `status:CODE` or `status:CODE:SECONDS`: this status, with this `Retry-After`.
    Status(u16, Option<u64>),
    /// `too-many-requests` or `too-many-requests:SECONDS`: Hub's answer to a spent quota.
    TooManyRequests(Option<u64>),
    /// `abuse-429`: the bare `Too Many Requests (HAP429)` of Hub's abuse limit.
    Abuse429,
    /// `html-200`: a captive portal's page.
    Html200,
    /// `redirect-to:URL`: a redirect to there.
    RedirectTo(String),
    /// `redirect-loop`: a redirect that redirects to itself.
    RedirectLoop,
    /// `token-down`: the token service says 503.
    TokenDown,
    /// `token-garbage`: the token service's answer is no JSON.
    TokenGarbage,
    /// `head-refused`: HEAD of a manifest is a 405.
    HeadRefused,
    /// `head-unauthorized`: HEAD of a manifest is a 401, GET is not.
    HeadUnauthorized,
    /// `head-no-digest`: HEAD of a manifest has no `Docker-Content-Digest`.
    HeadNoDigest,
    /// `manifest-not-its-digest`: one byte of the manifest is another one, its headers are right.
    ManifestNotItsDigest,
    /// `huge-manifest:N`: a manifest of N bytes.
    HugeManifest(u64),
    /// `no-referrers`: the registry has no referrers API.
    NoReferrers,
    /// `no-www-authenticate`: the 401 says not how to authenticate.
    NoWwwAuthenticate,
    /// `cdn-403`: the storage refuses a URL that is good.
    Cdn403,
}

impl Fault {
    /// Returns where the fault strikes unless it is told otherwise.
    pub fn usual_kind(&self) -> Kind {
        match self {
            Self::CutAfter(_) | Self::StallAfter(_) | Self::FlipByte(_) | Self::WrongLength(_) => Kind::Blobs,
            Self::NoContentLength | Self::NoRange | Self::BadContentRange => Kind::Blobs,
            Self::ContentEncodingGzip | Self::RedirectTo(_) | Self::RedirectLoop => Kind::Blobs,
            Self::HeadRefused | Self::HeadUnauthorized | Self::HeadNoDigest => Kind::Manifests,
            Self::ManifestNotItsDigest | Self::HugeManifest(_) | Self::TooManyRequests(_) => Kind::Manifests,
            Self::TokenDown | Self::TokenGarbage => Kind::Token,
            Self::NoReferrers => Kind::Referrers,
            Self::Cdn403 => Kind::Cdn,
            Self::Hang | Self::Close | Self::Status(..) | Self::Abuse429 | Self::Html200 => Kind::All,
            Self::NoWwwAuthenticate => Kind::All,
        }
    }

    /// Whether the fault replaces the whole answer, whatever was asked.
    pub(crate) fn is_answer(&self) -> bool {
        matches!(
            self,
            Self::Hang
                | Self::Close
                | Self::Status(..)
                | Self::TooManyRequests(_)
                | Self::Abuse429
                | Self::Html200
                | Self::RedirectTo(_)
                | Self::RedirectLoop
        )
    }

    /// Whether the fault is one of a body on its way, which the CDN sends for the blobs of the registry.
    fn is_of_body(&self) -> bool {
        matches!(
            self,
            Self::CutAfter(_)
                | Self::StallAfter(_)
                | Self::FlipByte(_)
                | Self::WrongLength(_)
                | Self::NoContentLength
                | Self::NoRange
                | Self::BadContentRange
                | Self::ContentEncodingGzip
        )
    }
}

/// The kinds of request that a fault can strike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `GET /v2/`.
    Ping,
    /// The token service.
    Token,
    /// Manifests, by tag and by digest.
    Manifests,
    /// Blobs as asked of the registry; faults of a body strike wherever that body is sent.
    Blobs,
    /// Blobs as asked of the CDN.
    Cdn,
    /// Lists of tags.
    Tags,
    /// Lists of referrers.
    Referrers,
    /// Requests to the registry that are answered with a challenge, whatever they ask for.
    Challenge,
    /// What the Hub does not know.
    Other,
    /// Everything.
    All,
}

impl Kind {
    const NAMES: [(Self, &'static str); 10] = [
        (Self::Ping, "ping"),
        (Self::Token, "token"),
        (Self::Manifests, "manifests"),
        (Self::Blobs, "blobs"),
        (Self::Cdn, "cdn"),
        (Self::Tags, "tags"),
        (Self::Referrers, "referrers"),
        (Self::Challenge, "challenge"),
        (Self::Other, "other"),
        (Self::All, "all"),
    ];
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::NAMES.iter().find(|(_, name)| *name == text);
        found.map(|(kind, _)| *kind).ok_or_else(|| format!("no such kind of request: {text:?}"))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = Self::NAMES.iter().find(|(kind, _)| kind == self);
        f.write_str(found.map_or("", |(_, name)| name))
    }
}

/// How often a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// The next time.
    Once,
    /// So many times.
    N(u64),
    /// Until it is cleared.
    Always,
}

/// Which requests a fault strikes; a field that is `None` does not matter.
#[derive(Clone, Debug, Default)]
pub struct Target {
    /// The kind of request; `None` is the fault's usual one.
    pub kind: Option<Kind>,
    /// The digest (or, of manifests, the tag) asked for.
    pub reference: Option<String>,
    /// The method.
    pub method: Option<Method>,
    /// The address that the request comes from.
    pub peer: Option<IpAddr>,
}

impl Target {
    /// Returns a target of all requests of the fault's usual kind from an address.
    pub fn peer(peer: IpAddr) -> Self {
        Self { peer: Some(peer), ..Self::default() }
    }

    /// Returns a target of all requests of a kind.
    pub fn kind(kind: Kind) -> Self {
        Self { kind: Some(kind), ..Self::default() }
    }

    /// Returns a target of all requests of the fault's usual kind for a digest (or, of manifests, a tag).
    pub fn reference(reference: impl fmt::Display) -> Self {
        Self { reference: Some(reference.to_string()), ..Self::default() }
    }
}

/// What is asked, as far as faults look at it.
pub(crate) struct Asked<'a> {
    pub(crate) kind: Kind,
    pub(crate) method: &'a Method,
    /// The digest or tag asked for.
    pub(crate) reference: Option<&'a str>,
    /// The digest that this names.
    pub(crate) digest: Option<&'a str>,
    pub(crate) peer: IpAddr,
}

/// The faults that are installed.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    rules: Mutex<Vec<Rule>>,
}

#[derive(Debug)]
struct Rule {
    fault: Fault,
    target: Target,
    /// Strikes left; `None` is no end.
    left: Option<u64>,
}

impl Faults {
    pub(crate) fn install(&self, fault: Fault, times: Times, target: Target) {
        let left = match times {
            Times::Once => Some(1),
            Times::N(n) => Some(n),
            Times::Always => None,
        };
        self.rules().push(Rule { fault, target, left });
    }

    pub(crate) fn clear(&self) {
        self.rules().clear();
    }

    /// Returns the first fault that is `wanted` and strikes what is asked, and counts the strike.
    pub(crate) fn strike(&self, asked: &Asked<'_>, wanted: impl Fn(&Fault) -> bool) -> Option<Fault> {
        let mut rules = self.rules();
        let at = rules.iter().position(|rule| wanted(&rule.fault) && rule.strikes(asked))?;
        let fault = rules[at].fault.clone();
        if let Some(left) = &mut rules[at].left {
            *left = left.saturating_sub(1);
            if *left == 0 {
                rules.remove(at);
            }
        }
        Some(fault)
    }

    fn rules(&self) -> std::sync::MutexGuard<'_, Vec<Rule>> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rule {
    fn strikes(&self, asked: &Asked<'_>) -> bool {
        let kind = self.target.kind.unwrap_or_else(|| self.fault.usual_kind());
        let kind_fits = kind == Kind::All
            || kind == asked.kind
            || (kind == Kind::Blobs && asked.kind == Kind::Cdn && self.fault.is_of_body());
        let reference = self.target.reference.as_deref();
        let reference_fits = reference.is_none() || reference == asked.reference || reference == asked.digest;
        let method_fits = self.target.method.is_none() || self.target.method.as_ref() == Some(asked.method);
        let peer_fits = self.target.peer.is_none_or(|peer| peer == asked.peer);
        kind_fits && reference_fits && method_fits && peer_fits && self.left != Some(0)
    }
}
