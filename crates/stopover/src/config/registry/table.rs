//! What becomes of each key of registry:2 and registry:3: one table for their `config.yml` and their variables.
//!
//! A row is a key or a whole section. Its variable is `REGISTRY_` and its names in capitals with `_` between them, but
//! where Go calls a field otherwise than YAML does. The table in `docs/configuration.md` is made from this one.

use crate::config::keys;

use Becomes::{
    Access, Address, Formatter, Http2, Ignored, Key, LetsEncrypt, Level, Network, Refused, Warned,
};

/// What begins the name of each of registry:2's variables.
pub(in crate::config) const REGISTRYS: &str = "REGISTRY_";

/// What becomes of a key.
#[derive(Clone, Copy)]
pub(super) enum Becomes {
    /// It sets the key of ours that has its variable.
    Key,
    /// It sets `http.addr`, as a path where `http.net` says so.
    Address,
    /// It says how `http.addr` is meant.
    Network,
    /// It sets `log.level` where nothing else does.
    Level,
    /// It sets `log.format`, where `logstash` is a kind of JSON.
    Formatter,
    /// It sets `log.combined`, which says the opposite.
    Access,
    /// It sets `http.http2`, which says the opposite.
    Http2,
    /// It is refused, unless there is a certificate.
    LetsEncrypt,
    /// Nothing is lost by not having it: why.
    Ignored(&'static str),
    /// It is not had, and the operator is told: why, and what to do instead.
    Warned(&'static str),
    /// Without it the mirror would be unsafe or another one: what to do instead.
    Refused(&'static str),
}

/// One key or section.
pub(super) struct Row {
    /// Its path in `config.yml`.
    pub(super) path: &'static str,
    /// Its variable, where that is not its path in capitals.
    named: Option<&'static str>,
    becomes: Becomes,
}

impl Row {
    /// Returns what becomes of it: where there is a key of ours for it, that is set.
    pub(super) fn becomes(&self) -> Becomes {
        let plain = matches!(self.becomes, Ignored(_) | Warned(_) | Refused(_));
        let is_key = || keys::all().any(|key| key.registry == Some(&*self.variable()));
        if plain && is_key() { Key } else { self.becomes }
    }

    /// Returns its variable.
    pub(super) fn variable(&self) -> String {
        match self.named {
            Some(variable) => variable.to_owned(),
            None => format!("{REGISTRYS}{}", self.path.replace('.', "_").to_uppercase()),
        }
    }

    const fn named(mut self, variable: &'static str) -> Self {
        self.named = Some(variable);
        self
    }
}

const fn row(path: &'static str, becomes: Becomes) -> Row {
    Row { path, named: None, becomes }
}

const LOCAL_DISK: &str = "Stopover keeps content on a local disk; use storage.filesystem";
const NO_PUSHES: &str = "nothing is pushed to a mirror";
const OWN_HEALTH: &str = "ask /livez and /readyz at the operator's port instead";

/// Every key, section by section.
pub(super) static ROWS: &[Row] = &[
    row("version", Ignored("0.1 is expected, as there")),
    row("proxy.remoteurl", Key),
    row("proxy.username", Key),
    row("proxy.password", Key),
    row("proxy.ttl", Key),
    row("proxy.exec.command", Key),
    row("proxy.exec.lifetime", Key),
    row(
        "proxy.cachewritetimeout",
        Ignored("what is fetched is written as it comes, however long that takes"),
    ),
    row("http.addr", Address),
    row("http.net", Network),
    row("http.host", Ignored("no answer holds an absolute URL of the mirror")),
    row("http.prefix", Key),
    row("http.secret", Ignored("there are no uploads, which it signs")),
    row("http.relativeurls", Ignored("no answer holds an absolute URL of the mirror")),
    row("http.draintimeout", Key),
    row("http.headers", Key),
    row("http.debug.addr", Key),
    row("http.debug.prometheus.enabled", Ignored("the operator's port always serves metrics")),
    row("http.debug.prometheus.path", Key),
    row("http.http2.disabled", Http2),
    row("http.h2c.enabled", Ignored("whoever begins with HTTP/2 is answered in it, also without TLS")),
    row("http.tls.certificate", Refused("end TLS in front of it")),
    row("http.tls.key", Refused("end TLS in front of it")),
    row("http.tls.clientcas", Refused("end TLS in front of it")),
    row("http.tls.clientauth", Refused("end TLS in front of it")),
    row("http.tls.minimumtls", Ignored("1.2 or later, as there")),
    row("http.tls.ciphersuites", Warned("rustls takes none but safe ones, and chooses")),
    row("http.tls.letsencrypt", LetsEncrypt),
    row("log.level", Key),
    row("log.formatter", Formatter),
    row("log.fields", Key),
    row("log.accesslog.disabled", Access),
    row("log.reportcaller", Warned("lines name no place in the code")),
    row("log.hooks", Warned("nothing is mailed; have the log or the metrics watched")),
    row("loglevel", Level),
    row("storage.filesystem.rootdirectory", Key),
    row("storage.filesystem.maxthreads", Ignored("threads for files have a bound of their own")),
    row("storage.inmemory", Refused(LOCAL_DISK)),
    row("storage.s3", Refused(LOCAL_DISK)),
    row("storage.s3aws", Refused(LOCAL_DISK)),
    row("storage.gcs", Refused(LOCAL_DISK)),
    row("storage.azure", Refused(LOCAL_DISK)),
    row("storage.oss", Refused(LOCAL_DISK)),
    row("storage.swift", Refused(LOCAL_DISK)),
    row(
        "storage.delete.enabled",
        Ignored("storage.ttl removes what nobody uses, whatever this says; clients delete nothing"),
    ),
    row("storage.redirect.disable", Ignored("blobs always come from the mirror itself")),
    row("storage.cache", Ignored("what is asked often is always kept in memory, within a bound")),
    row("storage.tag.concurrencylimit", Ignored("no lookup goes through all tags")),
    row(
        "storage.maintenance.uploadpurging",
        Ignored("what a broken transfer leaves is taken up or removed by itself"),
    ),
    row(
        "storage.maintenance.readonly.enabled",
        Ignored("nothing is pushed to a mirror; it goes on filling, as there"),
    ),
    row("auth.htpasswd.realm", Key),
    row("auth.htpasswd.path", Key),
    row("auth.token", Refused("use auth.htpasswd, or check tokens in front of it")),
    row("auth.silly", Refused("use auth.htpasswd")),
    row("auth.none", Ignored("nobody is asked who they are")),
    row("redis", Warned("there is nothing to keep in it: descriptors are in memory and in SQLite")),
    row("health.storagedriver", Ignored("a disk that fails does not end pulls: they pass through")),
    row("health.file", Warned(OWN_HEALTH)).named("REGISTRY_HEALTH_FILECHECKERS"),
    row("health.http", Warned(OWN_HEALTH)).named("REGISTRY_HEALTH_HTTPCHECKERS"),
    row("health.tcp", Warned(OWN_HEALTH)).named("REGISTRY_HEALTH_TCPCHECKERS"),
    row("notifications.events", Ignored("nobody is notified of pulls"))
        .named("REGISTRY_NOTIFICATIONS_EVENTCONFIG"),
    row("notifications.endpoints", Warned("nobody is notified of pulls; have the log's lines watched")),
    row("middleware", Warned("blobs always come from the mirror itself")),
    row("catalog.maxentries", Ignored("there is no catalog")),
    row("tags.maxtags", Ignored("lists of tags come from the registry, page by page")),
    row("validation", Ignored(NO_PUSHES)),
    row("policy", Ignored(NO_PUSHES)),
    row("compatibility", Warned("manifests of schema 1 are passed on as they are")),
    row("reporting", Warned("nothing is reported to services; have the log or the metrics watched")),
];

/// Returns the row of that path.
pub(super) fn find(path: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.path == path)
}

/// Returns whether a section of that path has rows.
pub(super) fn is_section(path: &str) -> bool {
    ROWS.iter().any(|row| row.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

/// Returns the path in `config.yml` that a variable names, name by name, where one does.
///
/// Names of fields are in capitals; those that the operator chooses, such as a header's, are written as they like, and
/// become small letters, as there.
pub(super) fn path_of(variable: &str) -> Option<Vec<String>> {
    let split = |path: &str| path.split('.').map(str::to_owned).collect::<Vec<_>>();
    let within = |row: &Row| {
        let rest = variable.strip_prefix(&row.variable())?;
        let more = match rest.strip_prefix('_') {
            Some(more) => more.split('_').map(str::to_lowercase).collect(),
            None if rest.is_empty() => Vec::new(),
            None => return None,
        };
        Some([split(row.path), more].concat())
    };
    ROWS.iter().find_map(within).or_else(|| {
        let whole =
            |row: &&Row| row.variable().strip_prefix(variable).is_some_and(|rest| rest.starts_with('_'));
        let names = variable.strip_prefix(REGISTRYS)?.split('_').count();
        ROWS.iter().find(whole).map(|row| split(row.path).into_iter().take(names).collect())
    })
}
