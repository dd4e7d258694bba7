//! Every key, in one table: where it is written, what it sets, what it is for.
//!
//! Reading, checking, showing and the reference in `docs/configuration.md` all go by this table, so a key is added
//! here, in [`Config`](super::Config) with its default, and nowhere else.

mod upstream;

use std::time::Duration;

use super::{field::Field, used::Config};

const MILLISECOND: Duration = Duration::from_millis(1);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const WORKERS_MAX: usize = 1_024;
const CONNECTIONS_MAX: usize = 1_000_000;
const PREFETCH_MAX: usize = 64;
const MEMORY_BYTES_MAX: u64 = 64 << 30;

/// One thing that can be set.
pub(super) struct Key<C: 'static = Config> {
    /// The table in the file that it stands in.
    pub(super) section: &'static str,
    /// Its name there.
    pub(super) name: &'static str,
    /// What it sets.
    pub(super) field: Field<C>,
    /// registry:2's variable for it.
    pub(super) registry: Option<&'static str>,
    /// What it is for: whole sentences.
    pub(super) doc: &'static str,
}

impl Key {
    const fn registry(mut self, variable: &'static str) -> Self {
        self.registry = Some(variable);
        self
    }

    /// Returns `section.name`.
    pub(super) fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// Returns our own variable for it.
    pub(super) fn variable(&self) -> String {
        format!("STOPOVER_{}__{}", self.section.to_uppercase(), self.name.to_uppercase())
    }
}

/// What each section is for, in the order of the reference.
pub(super) static SECTIONS: [(&str, &str); 9] = [
    ("http", "The port that clients pull from."),
    (
        "access",
        "Who may pull. As it comes, everybody who reaches the port. A password that travels unencrypted can be read on the \
         way, so give the port a certificate where there is one.",
    ),
    (
        "tls",
        "TLS on the port that clients pull from. docs/tls.md shows how, and how to have a certificate made. The files are read \
         again when they change, and on SIGHUP; connections that are open stay.",
    ),
    (
        "admin",
        "The operator's port: metrics and health. It has no password, so keep it where only the operator can reach it.",
    ),
    ("storage", "The disk."),
    ("cache", "What is believed, and for how long. A digest is believed for ever; these are about tags."),
    ("log", "The log goes to standard error."),
    (
        "route",
        "Which registries a client may name, by `?ns=ghcr.io` or by `/v2/ghcr.io/org/app/...`, besides those that are \
         configured. A host that is neither is refused without a connection. docs/request-handling.md has every way to name one.",
    ),
    ("upstream", "The registry that is mirrored for clients that name none."),
];

/// Returns every key, section by section.
pub(super) fn all() -> impl Iterator<Item = &'static Key> + Clone {
    KEYS.iter().chain(upstream::KEYS)
}

/// Those of all sections but `upstream`.
static KEYS: &[Key] = &[
    key(
        "http",
        "addr",
        Field::Listen(|c| &mut c.http.addr),
        "Where to listen. `:5000` and `[::]:5000` mean every address of the machine, IPv4 and IPv6. Port 0 takes a free one. \
         `unix:/run/stopover/stopover.sock` is a socket in the file system. Sockets that systemd passes are taken instead.",
    )
    .registry("REGISTRY_HTTP_ADDR"),
    key(
        "http",
        "prefix",
        Field::Prefix(|c| &mut c.http.prefix),
        "A path that clients may put before `/v2/`, or behind it, as well as none: for a mirror behind a web server that passes \
         on one path of many. It says nothing of the registry.",
    )
    .registry("REGISTRY_HTTP_PREFIX"),
    key(
        "http",
        "socket_mode",
        Field::Mode(|c| &mut c.http.socket_mode),
        "Who may connect to the unix sockets of `http.addr` and `tls.addr`: owner, group, others.",
    ),
    key(
        "http",
        "workers",
        Field::Count { of: |c| &mut c.http.workers, min: 0, max: WORKERS_MAX },
        "Threads that serve. 0 is one for each core.",
    ),
    key(
        "http",
        "connections_max",
        Field::Count { of: |c| &mut c.http.connections_max, min: 1, max: CONNECTIONS_MAX },
        "Connections open at once; further ones wait. Lowered at the start to fit the limit on open files.",
    ),
    key(
        "http",
        "header_timeout",
        wait(|c| &mut c.http.header_timeout),
        "How long a client may take to send the head of a request, and how long a connection may wait for the next one.",
    ),
    key(
        "http",
        "stall_timeout",
        wait(|c| &mut c.http.stall_timeout),
        "A client that reads nothing of its answer for this long is cut off.",
    ),
    key(
        "http",
        "drain_timeout",
        Field::Duration { of: |c| &mut c.http.drain_timeout, min: Duration::ZERO, max: DAY },
        "How long running transfers may go on after SIGTERM. Give the process manager a longer patience than this.",
    )
    .registry("REGISTRY_HTTP_DRAINTIMEOUT"),
    key(
        "http",
        "sendfile",
        Field::Flag(|c| &mut c.http.sendfile),
        "Send blobs from file to socket within the kernel. Off is for finding faults.",
    ),
    key(
        "http",
        "http2",
        Field::Flag(|c| &mut c.http.http2),
        "Let clients speak HTTP/2, with TLS and without.",
    )
    .registry("REGISTRY_HTTP_HTTP2_DISABLED"),
    key(
        "http",
        "headers",
        Field::Headers(|c| &mut c.http.headers),
        "Headers that every answer has besides, such as `{ Strict-Transport-Security = \"max-age=3600\" }`. In the environment: \
         `Name=value,Name=value`.",
    )
    .registry("REGISTRY_HTTP_HEADERS"),
    key(
        "access",
        "htpasswd",
        Field::File(|c| &mut c.access.htpasswd),
        "A file of `user:hash` lines, as `htpasswd -B` writes it: who pulls must be one of them. Only bcrypt hashes count. It \
         is read again when it changes. Where there is none at the start it is made, with a user `docker` whose password \
         stands once in the log.",
    )
    .registry("REGISTRY_AUTH_HTPASSWD_PATH"),
    key(
        "access",
        "realm",
        Field::Text(|c| &mut c.access.realm),
        "What clients are told that the password is for.",
    )
    .registry("REGISTRY_AUTH_HTPASSWD_REALM"),
    key(
        "tls",
        "certificate",
        Field::File(|c| &mut c.tls.certificate),
        "The server's certificate in PEM, followed by those between it and its authority's. With it the TCP ports of \
         `http.addr` speak TLS, and only TLS, unless `tls.addr` is set.",
    )
    .registry("REGISTRY_HTTP_TLS_CERTIFICATE"),
    key(
        "tls",
        "key",
        Field::File(|c| &mut c.tls.key),
        "The certificate's private key in PEM: PKCS#8, PKCS#1 or SEC1, not encrypted.",
    )
    .registry("REGISTRY_HTTP_TLS_KEY"),
    key(
        "tls",
        "client_ca",
        Field::Files(|c| &mut c.tls.client_ca),
        "Files with authorities in PEM. If set, a client needs a certificate that one of them signed.",
    )
    .registry("REGISTRY_HTTP_TLS_CLIENTCAS"),
    key(
        "tls",
        "client_auth",
        Field::ClientAuth(|c| &mut c.tls.client_auth),
        "Whether that certificate is `required`, or `optional`: who shows none may pull, who shows a wrong one may not.",
    )
    .registry("REGISTRY_HTTP_TLS_CLIENTAUTH"),
    key(
        "tls",
        "minimum",
        Field::TlsVersion(|c| &mut c.tls.minimum),
        "The oldest version of TLS that is spoken.",
    )
    .registry("REGISTRY_HTTP_TLS_MINIMUMTLS"),
    key(
        "tls",
        "addr",
        Field::ListenIfSet(|c| &mut c.tls.addr),
        "Where to speak TLS, as in `http.addr`, which then stays plain: both at once, on two ports. Not set: on the TCP ports \
         of `http.addr`.",
    ),
    key(
        "admin",
        "addr",
        Field::ListenOrOff(|c| &mut c.admin.addr),
        "Where to listen for `/metrics`, `/livez`, `/readyz`, and what registry:2 has on its debug port: `/debug/health` and \
         `/debug/vars`.",
    )
    .registry("REGISTRY_HTTP_DEBUG_ADDR"),
    key(
        "admin",
        "metrics_path",
        Field::UrlPath(|c| &mut c.admin.metrics_path),
        "A further path for the metrics, for a scraper that asks there; `/metrics` answers whatever this is.",
    )
    .registry("REGISTRY_HTTP_DEBUG_PROMETHEUS_PATH"),
    key(
        "storage",
        "root",
        Field::Path(|c| &mut c.storage.root),
        "The folder that holds `docker/registry/v2`: a volume of registry:2 or an empty folder.",
    )
    .registry("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY"),
    key(
        "storage",
        "ttl",
        Field::DurationOrNever(|c| &mut c.storage.ttl),
        "Remove what nobody has used for this long. 0 keeps everything. registry:2 and registry:3 remove after seven days \
         even when their `proxy.ttl` is not set; Stopover removes only when told to, and counts from the last use.",
    )
    .registry("REGISTRY_PROXY_TTL"),
    key(
        "cache",
        "tag_ttl",
        span(|c| &mut c.cache.tag_ttl),
        "How long a tag is served without asking the registry whether it has moved. 0 asks each time.",
    ),
    key(
        "cache",
        "stale_if_error",
        span(|c| &mut c.cache.stale_if_error),
        "How long a tag is served on while the registry cannot be reached or fails, from its last good check.",
    ),
    key(
        "cache",
        "stale_if_denied",
        span(|c| &mut c.cache.stale_if_denied),
        "How long a tag is served on while the registry answers 401 or 403, from its last good check.",
    ),
    key(
        "cache",
        "check_deadline",
        Field::Duration { of: |c| &mut c.cache.check_deadline, min: MILLISECOND, max: Duration::from_secs(60) },
        "How long a pull waits for such a check before it is answered with the tag in the cache.",
    ),
    key(
        "cache",
        "absent_ttl",
        Field::Duration { of: |c| &mut c.cache.absent_ttl, min: Duration::ZERO, max: DAY },
        "How long the registry's \"there is no such thing\" is believed.",
    ),
    key(
        "cache",
        "memory_bytes",
        Field::Size { of: |c| &mut c.cache.memory_bytes, max: MEMORY_BYTES_MAX },
        "Memory for manifests, so that a warm one needs no disk.",
    ),
    key(
        "cache",
        "prefetch",
        Field::Count { of: |c| &mut c.cache.prefetch, min: 0, max: PREFETCH_MAX },
        "Blobs fetched at once before a client asks for them: with the manifest of an image come its configuration and layers, \
         for the platforms that have been pulled so far. 0 is off.",
    ),
    key("log", "level", Field::Level(|c| &mut c.log.level), "The least important lines that are written.")
        .registry("REGISTRY_LOG_LEVEL"),
    key(
        "log",
        "format",
        Field::Format(|c| &mut c.log.format),
        "`auto` is text on a terminal and JSON elsewhere.",
    )
    .registry("REGISTRY_LOG_FORMATTER"),
    key("log", "access", Field::Flag(|c| &mut c.log.access), "Whether each request writes a line."),
    key(
        "log",
        "combined",
        Field::Flag(|c| &mut c.log.combined),
        "Whether each request writes a line to standard output as well, in Apache's combined format, as registry:2 does. \
         Reading a `config.yml` turns it on.",
    )
    .registry("REGISTRY_LOG_ACCESSLOG_DISABLED"),
    key(
        "log",
        "fields",
        Field::Pairs(|c| &mut c.log.fields),
        "What every line says besides, such as `{ service = \"mirror\" }`. In the environment: `name=text,name=text`.",
    )
    .registry("REGISTRY_LOG_FIELDS"),
    key(
        "route",
        "well_known",
        Field::Flag(|c| &mut c.route.well_known),
        "Whether docker.io, ghcr.io, quay.io, gcr.io, *.gcr.io, *-docker.pkg.dev, registry.k8s.io, mcr.microsoft.com, \
         public.ecr.aws, nvcr.io, lscr.io and registry.gitlab.com are mirrored without being configured, anonymously.",
    ),
    key(
        "route",
        "open",
        Field::Flag(|c| &mut c.route.open),
        "Whether any other public host that a client names is mirrored too: by https, on port 443, anonymously, and never at an \
         address that is private, loopback or otherwise special. Whoever reaches the mirror then decides what fills its disk.",
    ),
];

const fn key(section: &'static str, name: &'static str, field: Field, doc: &'static str) -> Key {
    table_key(section, name, field, doc)
}

/// Returns a key of a table that has a name of its own.
pub(super) const fn table_key<C: 'static>(
    section: &'static str,
    name: &'static str,
    field: Field<C>,
    doc: &'static str,
) -> Key<C> {
    Key { section, name, field, registry: None, doc }
}

/// A wait for something that is under way; never zero, since that would forbid it.
const fn wait(of: fn(&mut Config) -> &mut Duration) -> Field {
    Field::Duration { of, min: MILLISECOND, max: DAY }
}

/// A span of time for which something holds.
const fn span(of: fn(&mut Config) -> &mut Duration) -> Field {
    Field::Duration { of, min: Duration::ZERO, max: Duration::from_secs(3_650 * 24 * 60 * 60) }
}

/// Returns the key of that name.
pub(super) fn find(section: &str, name: &str) -> Option<&'static Key> {
    all().find(|key| key.section == section && key.name == name)
}
