//! The configuration as used: checked values, plain types, every default in one place.
//!
//! Whoever takes a part of it need not check again. It promises that no password leaves it by accident: a [`Secret`]
//! shows itself only where asked to. It knows nothing of files, of the environment or of how a value was written.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use super::{Account, Egress, Mirror, Pace, Share};
use http::{HeaderName, HeaderValue};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A TCP port. `[::]` stands for IPv4 too.
    Tcp(SocketAddr),
    /// A socket in the file system, by its path from the root.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Everything that can be set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The pull port.
    pub http: Http,
    /// Who may pull.
    pub access: Access,
    /// Its certificates.
    pub tls: Tls,
    /// The operator's port.
    pub admin: Admin,
    /// The disk.
    pub storage: Storage,
    /// What is believed, and for how long.
    pub cache: Cache,
    /// The log.
    pub log: Log,
    /// The registry that is mirrored where a client names none.
    pub upstream: Upstream,
    /// Further registries.
    pub upstreams: Vec<Upstream>,
    /// The ways out that have a name, in the order written.
    pub egresses: Vec<Egress>,
    /// Which registries are mirrored besides.
    pub route: Route,
}

/// Which registries a client may name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Whether the well-known registries are mirrored too, as they are to anybody.
    pub well_known: bool,
    /// Whether any other public host that a client names is mirrored.
    pub open: bool,
}

/// The pull port and its connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// Where clients are listened for; at least one.
    pub addr: Vec<Address>,
    /// A path that clients may ask below, besides the top: `mirrors/oci`, without slashes at its ends.
    pub prefix: Option<String>,
    /// Who may connect to a unix socket: the bits of its file's mode.
    pub socket_mode: u32,
    /// Threads that serve; 0 is one for each core.
    pub workers: usize,
    /// Connections open at once; the server lowers it to fit the limit on open files.
    pub connections_max: usize,
    /// How long a client may take to send the head of a request, and how long a connection may wait for the next one.
    pub header_timeout: Duration,
    /// How long a client may read nothing of an answer.
    pub stall_timeout: Duration,
    /// How long running transfers may go on after SIGTERM.
    pub drain_timeout: Duration,
    /// Whether blobs go from file to socket within the kernel.
    pub sendfile: bool,
    /// Whether clients may speak HTTP/2.
    pub http2: bool,
    /// What every answer says besides.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// Who may pull.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// The file with users and the hashes of their passwords; `None` lets everybody in.
    pub htpasswd: Option<PathBuf>,
    /// What clients are told that the password is for.
    pub realm: Option<String>,
}

/// TLS on the pull port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// The file with the certificate, and those between it and its authority's. Set exactly when `key` is; nothing else
    /// here is set without it.
    pub certificate: Option<PathBuf>,
    /// The file with its key.
    pub key: Option<PathBuf>,
    /// Files with authorities: one of them must have signed a client's certificate. None: clients need none.
    pub client_ca: Vec<PathBuf>,
    /// Whether a client must show a certificate, or may.
    pub client_auth: ClientAuth,
    /// The oldest version that is spoken.
    pub minimum: TlsVersion,
    /// Where TLS is listened for, beside `http.addr`; none: there.
    pub addr: Vec<Address>,
}

/// Whether a client must show a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// It must.
    #[default]
    Required,
    /// It may; one that is shown must be right.
    Optional,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsVersion {
    /// 1.2.
    #[default]
    Tls12,
    /// 1.3.
    Tls13,
}

impl ClientAuth {
    /// Returns the word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::Optional => "optional",
        }
    }
}

impl TlsVersion {
    /// Returns the word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tls12 => "tls1.2",
            Self::Tls13 => "tls1.3",
        }
    }
}

/// The operator's port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Where the operator is listened for; `None` is nowhere.
    pub addr: Option<Address>,
    /// A path for the metrics besides `/metrics`.
    pub metrics_path: String,
}

/// The disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    /// The folder that holds `docker/registry/v2`.
    pub root: PathBuf,
    /// How long content is kept that nobody uses; `None` is for ever.
    pub ttl: Option<Duration>,
}

/// What is believed, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    /// How long a tag is served without asking the registry.
    pub tag_ttl: Duration,
    /// How long a tag is served on while the registry fails.
    pub stale_if_error: Duration,
    /// How long a tag is served on while the registry says 401 or 403.
    pub stale_if_denied: Duration,
    /// How long a check of a tag may take before the cached one is served.
    pub check_deadline: Duration,
    /// How long "there is no such thing" is believed.
    pub absent_ttl: Duration,
    /// Bytes of manifests kept in memory.
    pub memory_bytes: u64,
    /// Blobs fetched at once before a client asks for them; 0 is none.
    pub prefetch: usize,
}

/// The log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// The least important lines that are written.
    pub level: Level,
    /// What a line looks like.
    pub format: Format,
    /// Whether each request writes a line.
    pub access: bool,
    /// Whether each request writes a line to standard output as well, in Apache's combined format.
    pub combined: bool,
    /// What every line says besides.
    pub fields: Vec<(String, String)>,
}

/// How important a log line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Something is lost or broken.
    Error,
    /// Something should be looked at.
    Warn,
    /// What happened.
    Info,
    /// How it happened.
    Debug,
}

/// What a log line looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// One line of `key=value`.
    Text,
    /// One JSON object a line.
    Json,
}

/// The registry that is mirrored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Its name for clients, logs and metrics: a host with an optional port.
    pub registry: String,
    /// Where it is reached: `http` or `https`, a host, an optional port, maybe a path before `/v2/`; no slash at the end.
    pub url: String,
    /// Other names for it, each one part of a path.
    pub aliases: Vec<String>,
    /// Names of the mirror, without a port, by which it is this registry alone.
    pub hosts: Vec<String>,
    /// What stands before each repository's name there, such as a project of Harbor's.
    pub repository_prefix: Option<oci::RepositoryName>,
    /// The account; `None` is anonymous. Set exactly when `password` is.
    pub username: Option<String>,
    /// The account's password or access token.
    pub password: Option<Secret>,
    /// The program that gives the account; never set together with `username`.
    pub credential_helper: Option<String>,
    /// How long what it gave is used: zero is once, `None` until it is refused.
    pub credential_lifetime: Option<Duration>,
    /// Further hosts, with an optional port, that may be given the account for a token.
    pub realms: Vec<String>,
    /// A file of certificates to trust besides the system's.
    pub ca: Option<PathBuf>,
    /// Files of the certificate to show to the registry, and of its key: both or neither.
    pub client_certificate: Option<PathBuf>,
    /// The key.
    pub client_key: Option<PathBuf>,
    /// Further accounts to pull with, besides that of `username` or `credential_helper`.
    pub accounts: Vec<Account>,
    /// Whether it is asked without an account too, where there are accounts.
    pub anonymous: bool,
    /// The ways out to it, in the order written; never empty once checked.
    pub egresses: Vec<Egress>,
    /// Other places that have its content by digest.
    pub mirrors: Vec<Mirror>,
    /// How much of the quota is kept for what is not cached.
    pub quota_reserve: Share,
    /// Bytes a second that its content may come at, all transfers together; `None` is no limit.
    pub bandwidth: Option<u64>,
    /// Connections at once that its blobs may be fetched by, for parts of blobs beside one another; 1 is one for each blob and none beside it.
    pub streams_max: usize,
    /// How much it may be asked.
    pub pace: Pace,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long the head of an answer may take.
    pub answer_timeout: Duration,
    /// How long a transfer may bring nothing.
    pub stall_timeout: Duration,
}

impl Upstream {
    /// Returns whether there is an account to pull with.
    pub fn has_account(&self) -> bool {
        self.username.is_some() || self.credential_helper.is_some() || !self.accounts.is_empty()
    }

    /// Returns the registry, reached by all ways out that have a name or, where there are none, by the system's own.
    pub fn reached_by(self, named: &[Egress]) -> Self {
        let egresses = if named.is_empty() { vec![Egress::default()] } else { named.to_vec() };
        Self { egresses, ..self }
    }

    /// Returns every other name of the registry.
    pub fn other_names(&self) -> Vec<String> {
        let mut names = self.well_known_aliases();
        names.extend(self.aliases.iter().cloned());
        names
    }
}

/// A password or token that shows itself only to [`Secret::expose`].
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(String);

impl Secret {
    /// Returns a secret that holds `value`.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// Returns the value: for the one header that carries it, never for a log, a message or a path.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Level {
    /// Returns the level's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

impl Format {
    /// Returns the format's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

impl Default for Http {
    fn default() -> Self {
        Self {
            addr: vec![Address::Tcp(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 5000))],
            socket_mode: 0o660,
            prefix: None,
            workers: 0,
            connections_max: 10_000,
            header_timeout: 30 * SECOND,
            stall_timeout: 120 * SECOND,
            drain_timeout: 60 * SECOND,
            sendfile: true,
            http2: true,
            headers: Vec::new(),
        }
    }
}

impl Default for Access {
    fn default() -> Self {
        Self { htpasswd: None, realm: Some("Stopover".to_owned()) }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            addr: Some(Address::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5001))),
            metrics_path: "/metrics".to_owned(),
        }
    }
}

impl Default for Storage {
    fn default() -> Self {
        Self { root: PathBuf::from("/var/lib/registry"), ttl: None }
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            tag_ttl: 60 * SECOND,
            stale_if_error: 7 * DAY,
            stale_if_denied: HOUR,
            check_deadline: 3 * SECOND,
            absent_ttl: 10 * SECOND,
            memory_bytes: 16 << 20,
            prefetch: 4,
        }
    }
}

impl Default for Route {
    fn default() -> Self {
        Self { well_known: true, open: false }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: Level::Info, format: Format::Auto, access: true, combined: false, fields: Vec::new() }
    }
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            registry: "docker.io".to_owned(),
            url: "https://registry-1.docker.io".to_owned(),
            aliases: Vec::new(),
            hosts: Vec::new(),
            username: None,
            password: None,
            credential_helper: None,
            credential_lifetime: None,
            realms: Vec::new(),
            repository_prefix: None,
            ca: None,
            client_certificate: None,
            client_key: None,
            accounts: Vec::new(),
            anonymous: true,
            egresses: vec![Egress::default()],
            mirrors: Vec::new(),
            quota_reserve: Share::Percent(10),
            bandwidth: None,
            streams_max: 16,
            pace: Pace::default(),
            connect_timeout: 3 * SECOND,
            answer_timeout: 10 * SECOND,
            stall_timeout: 15 * SECOND,
        }
    }
}
