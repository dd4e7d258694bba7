//! How a stand-in Hub behaves when nothing is wrong: addresses, tokens, quota, redirects, speed.
//!
//! The defaults are Docker Hub's own. Everything may be changed while it runs (`Hub::configure`), but for the
//! addresses, which are read once.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

/// Everything that can be chosen about a stand-in Hub.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the registry listens; port 0 takes a free one.
    pub addr: SocketAddr,
    /// Where the CDN listens; port 0 takes a free one.
    pub cdn_addr: SocketAddr,
    /// Whether the token service has a port of its own, as Hub's has a host of its own.
    pub token_port_apart: bool,
    /// How the registry asks who is there.
    pub auth: Auth,
    /// What the token service answers.
    pub token: TokenOptions,
    /// What the 401 says.
    pub challenge: ChallengeOptions,
    /// Manifest GETs allowed for each account, and for each address without one; `None` sends no quota headers.
    pub quota: Option<u32>,
    /// The `Retry-After` of the answer to a spent quota, in seconds; Hub's sends none.
    pub retry_after: Option<u64>,
    /// How a blob GET reaches its bytes.
    pub redirect: Redirect,
    /// The status of that redirect: 307 as Hub's, 302 as Quay's.
    pub redirect_status: u16,
    /// How long a signed URL is good.
    pub url_lifetime: Duration,
    /// Waited before each response head.
    pub latency: Duration,
    /// Body bytes a second for each connection.
    pub rate: Option<u64>,
    /// Body bytes a second for all connections together: the line.
    pub line_rate: Option<u64>,
    /// Whether a manifest whose media type the `Accept` header does not name is a 404, as ghcr.io has it.
    pub strict_accept: bool,
    /// Whether the registry applies the `artifactType` filter of the referrers API.
    pub filter_referrers: bool,
    /// How many descriptors a page of referrers has; `None` sends all at once.
    pub referrers_page: Option<usize>,
    /// Where manifests, blobs and lists are to be had instead, such as `http://127.0.0.1:7002/v2/prefix`: each request for
    /// them is redirected there without its query, as registry.k8s.io does.
    pub hand_off: Option<String>,
    /// Whether an unknown repository is a 404 NAME_UNKNOWN; Hub's is a 401, as for a private one.
    pub unknown_is_404: bool,
}

impl Default for Options {
    fn default() -> Self {
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            addr: any_port,
            cdn_addr: any_port,
            token_port_apart: false,
            auth: Auth::Bearer,
            token: TokenOptions::default(),
            challenge: ChallengeOptions::default(),
            quota: None,
            retry_after: None,
            redirect: Redirect::Absolute,
            redirect_status: 307,
            url_lifetime: Duration::from_secs(300),
            latency: Duration::ZERO,
            rate: None,
            line_rate: None,
            strict_accept: false,
            filter_referrers: true,
            referrers_page: None,
            hand_off: None,
            unknown_is_404: false,
        }
    }
}

/// How the registry asks who is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// By tokens of the token service, as Hub does, also for public repositories.
    Bearer,
    /// By user name and password on each request, as private ECR does.
    Basic,
    /// Not at all, as mcr.microsoft.com; private repositories do not exist for anyone.
    Open,
}

/// How a blob GET reaches its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redirect {
    /// A signed, absolute URL of the CDN.
    Absolute,
    /// A signed path on the registry's own host, `/artifacts-downloads/...`, as gcr.io sends it.
    Relative,
    /// A signed, absolute URL of the CDN, which redirects once more.
    Nested,
    /// None: the registry sends the bytes itself.
    None,
}

/// What the token service answers.
#[derive(Clone, Debug)]
pub struct TokenOptions {
    /// How long a token is good; also its `expires_in`.
    pub lifetime: Duration,
    /// Whether `expires_in` is left out, which means 60 seconds to a client.
    pub omit_expires_in: bool,
    /// Under which names the token is sent.
    pub names: TokenNames,
    /// Seconds added to the `issued_at` sent; `None` leaves it out.
    pub issued_at_shift: Option<i64>,
    /// The status with which the token service itself refuses a repository that the caller may not read, as ghcr.io
    /// does (401 or 403); `None` sends a token that grants nothing, as Hub does.
    pub refuses_with: Option<u16>,
    /// Bytes of padding in each token: Hub's are JSON web tokens of 2 to 4 KB.
    pub padding_bytes: usize,
}

impl Default for TokenOptions {
    fn default() -> Self {
        Self {
            lifetime: Duration::from_secs(300),
            omit_expires_in: false,
            names: TokenNames::Both,
            issued_at_shift: Some(0),
            refuses_with: None,
            padding_bytes: 2048,
        }
    }
}

/// Under which names the token service sends its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenNames {
    /// `token` and `access_token`, as Hub.
    Both,
    /// `token` alone.
    Token,
    /// `access_token` alone.
    AccessToken,
}

/// What the 401 of the registry says.
#[derive(Clone, Debug)]
pub struct ChallengeOptions {
    /// The service's name.
    pub service: String,
    /// Leaves the service out, as nvcr.io does.
    pub omit_service: bool,
    /// Leaves the scope out.
    pub omit_scope: bool,
    /// A realm to name instead of the token service: a hostile one.
    pub realm: Option<String>,
    /// Whether the challenge to a bad token names another realm, one that refuses, as nvcr.io's does.
    pub realm_switch: bool,
}

impl Default for ChallengeOptions {
    fn default() -> Self {
        Self {
            service: "registry.docker.io".to_owned(),
            omit_service: false,
            omit_scope: false,
            realm: None,
            realm_switch: false,
        }
    }
}
