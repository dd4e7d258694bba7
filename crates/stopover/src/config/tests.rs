//! Every key by file and by environment, and what else a configuration promises.

mod mistakes;
mod registry;
mod tables;
mod upstreams;

use std::{collections::BTreeSet, time::Duration};

use super::*;

fn from_file(text: &str) -> Result<Loaded, Mistakes> {
    read(Some(("stopover.toml", text)), [])
}

fn from_environment(variables: &[(&str, &str)]) -> Result<Loaded, Mistakes> {
    read(None, variables.iter().map(|(name, value)| (String::from(*name), String::from(*value))))
}

fn mistakes(read: Result<Loaded, Mistakes>) -> Vec<String> {
    read.expect_err("it should be a mistake").0.iter().map(Mistake::to_string).collect()
}

/// A key, a value in TOML, the same in the environment, and whether a configuration has it.
type Row = (&'static str, &'static str, &'static str, Has);
type Has = fn(&Config) -> bool;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Every key once, with a value that is not its default.
const ROWS: &[Row] = &[
    ("http.addr", r#"["127.0.0.1:80", "[::1]:80"]"#, "127.0.0.1:80, [::1]:80", |c| {
        c.http.addr == ["127.0.0.1:80".parse().unwrap(), "[::1]:80".parse().unwrap()]
    }),
    ("http.prefix", r#""/mirrors/oci/""#, "mirrors/oci", |c| c.http.prefix.as_deref() == Some("mirrors/oci")),
    ("http.workers", "3", "3", |c| c.http.workers == 3),
    ("http.connections_max", "77", "77", |c| c.http.connections_max == 77),
    ("http.header_timeout", r#""1s""#, "1s", |c| c.http.header_timeout == seconds(1)),
    ("http.stall_timeout", r#""3s""#, "3s", |c| c.http.stall_timeout == seconds(3)),
    ("http.drain_timeout", "0", "0", |c| c.http.drain_timeout == seconds(0)),
    ("http.sendfile", "false", "false", |c| !c.http.sendfile),
    ("http.http2", "false", "false", |c| !c.http.http2),
    ("http.headers", r#"{ X-A = "b", X-C = ["d"] }"#, "X-A=b,X-C=d", |c| {
        let shown: Vec<String> =
            c.http.headers.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        shown == ["x-a=\"b\"", "x-c=\"d\""]
    }),
    ("http.socket_mode", r#""0600""#, "600", |c| c.http.socket_mode == 0o600),
    ("tls.certificate", r#""/etc/c""#, "/etc/c", |c| {
        c.tls.certificate.as_deref() == Some(Path::new("/etc/c"))
    }),
    ("tls.key", r#""/etc/k""#, "/etc/k", |c| c.tls.key.as_deref() == Some(Path::new("/etc/k"))),
    ("tls.client_ca", r#"["/a", "/b"]"#, "/a, /b", |c| c.tls.client_ca == [Path::new("/a"), Path::new("/b")]),
    ("tls.client_auth", r#""optional""#, "verify-client-cert-if-given", |c| {
        c.tls.client_auth == ClientAuth::Optional
    }),
    ("tls.minimum", r#""tls1.3""#, "tls1.3", |c| c.tls.minimum == TlsVersion::Tls13),
    ("tls.addr", r#""unix:/run/s""#, "unix:/run/s", |c| c.tls.addr == [Address::Unix("/run/s".into())]),
    ("access.htpasswd", r#""/etc/users""#, "/etc/users", |c| {
        c.access.htpasswd.as_deref() == Some(Path::new("/etc/users"))
    }),
    ("access.realm", r#""Lab""#, "Lab", |c| c.access.realm.as_deref() == Some("Lab")),
    ("admin.metrics_path", r#""/prometheus/m""#, "/prometheus/m", |c| {
        c.admin.metrics_path == "/prometheus/m"
    }),
    ("admin.addr", r#""off""#, "off", |c| c.admin.addr.is_none()),
    ("storage.root", r#""/srv/x""#, "/srv/x", |c| c.storage.root == Path::new("/srv/x")),
    ("storage.ttl", r#""7d""#, "7d", |c| c.storage.ttl == Some(seconds(604_800))),
    ("cache.tag_ttl", r#""1h30m""#, "1h30m", |c| c.cache.tag_ttl == seconds(5_400)),
    ("cache.stale_if_error", r#""365d""#, "365d", |c| c.cache.stale_if_error == seconds(31_536_000)),
    ("cache.stale_if_denied", "0", "0", |c| c.cache.stale_if_denied == seconds(0)),
    ("cache.check_deadline", r#""10ms""#, "10ms", |c| c.cache.check_deadline == Duration::from_millis(10)),
    ("cache.absent_ttl", r#""4s""#, "4s", |c| c.cache.absent_ttl == seconds(4)),
    ("cache.memory_bytes", r#""64MiB""#, "64MiB", |c| c.cache.memory_bytes == 64 << 20),
    ("cache.prefetch", "0", "0", |c| c.cache.prefetch == 0),
    ("log.level", r#""debug""#, "debug", |c| c.log.level == Level::Debug),
    ("log.format", r#""json""#, "json", |c| c.log.format == Format::Json),
    ("log.access", "false", "false", |c| !c.log.access),
    ("log.combined", "true", "true", |c| c.log.combined),
    ("log.fields", r#"{ service = "mirror", n = 1 }"#, "service=mirror,n=1", |c| {
        c.log.fields == [("n".to_owned(), "1".to_owned()), ("service".to_owned(), "mirror".to_owned())]
    }),
    ("route.well_known", "false", "false", |c| !c.route.well_known),
    ("route.open", "true", "true", |c| c.route.open),
    ("upstream.registry", r#""ghcr.io""#, "ghcr.io", |c| c.upstream.registry == "ghcr.io"),
    ("upstream.url", r#""http://h:7000/""#, "http://h:7000/", |c| c.upstream.url == "http://h:7000"),
    ("upstream.aliases", r#"["hub", "a.b"]"#, "hub,a.b", |c| c.upstream.aliases == ["hub", "a.b"]),
    ("upstream.hosts", r#"["Hub.example"]"#, "hub.example", |c| c.upstream.hosts == ["hub.example"]),
    ("upstream.username", r#""ann""#, "ann", |c| c.upstream.username.as_deref() == Some("ann")),
    ("upstream.password", r#""s3cret""#, "s3cret", |c| {
        c.upstream.password.as_ref().is_some_and(|password| password.expose() == "s3cret")
    }),
    ("upstream.credential_helper", r#""ecr-login""#, "ecr-login", |c| {
        c.upstream.credential_helper.as_deref() == Some("ecr-login")
    }),
    ("upstream.credential_lifetime", "0", "0", |c| c.upstream.credential_lifetime == Some(seconds(0))),
    ("upstream.realms", r#"["a.example", "b.example:8443"]"#, "a.example,b.example:8443", |c| {
        c.upstream.realms == ["a.example", "b.example:8443"]
    }),
    ("upstream.repository_prefix", r#""hub/proxy""#, "hub/proxy", |c| {
        c.upstream.repository_prefix.as_ref().is_some_and(|prefix| prefix.as_str() == "hub/proxy")
    }),
    ("upstream.ca", r#""/etc/ca.pem""#, "/etc/ca.pem", |c| {
        c.upstream.ca.as_deref() == Some(Path::new("/etc/ca.pem"))
    }),
    ("upstream.client_certificate", r#""/c.pem""#, "/c.pem", |c| {
        c.upstream.client_certificate.as_deref() == Some(Path::new("/c.pem"))
    }),
    ("upstream.client_key", r#""/k.pem""#, "/k.pem", |c| {
        c.upstream.client_key.as_deref() == Some(Path::new("/k.pem"))
    }),
    ("upstream.anonymous", "false", "false", |c| !c.upstream.anonymous),
    ("upstream.egresses", r#"["192.0.2.7", "default"]"#, "192.0.2.7,default", |c| {
        c.upstream.egresses.iter().map(|egress| &*egress.name).eq(["192.0.2.7", "default"])
    }),
    ("upstream.quota_reserve", r#""25%""#, "25%", |c| c.upstream.quota_reserve == Share::Percent(25)),
    ("upstream.bandwidth", r#""10MB""#, "10MB", |c| c.upstream.bandwidth == Some(10_000_000)),
    ("upstream.streams_max", "1", "1", |c| c.upstream.streams_max == 1),
    ("upstream.requests_max", "5", "5", |c| c.upstream.pace.requests_max == 5),
    ("upstream.requests_per_second", "6", "6", |c| c.upstream.pace.requests_per_second == 6),
    ("upstream.pulls_per_second", "7", "7", |c| c.upstream.pace.pulls_per_second == 7),
    ("upstream.connect_timeout", r#""5s""#, "5s", |c| c.upstream.connect_timeout == seconds(5)),
    ("upstream.answer_timeout", r#""6s""#, "6s", |c| c.upstream.answer_timeout == seconds(6)),
    ("upstream.stall_timeout", r#""7s""#, "7s", |c| c.upstream.stall_timeout == seconds(7)),
];

/// Returns what a key needs beside it, such as the other half of an account, which may not be set alone.
fn needs(path: &str) -> &'static [&'static str] {
    match path {
        "upstream.username" => &["password"],
        "upstream.password" => &["username"],
        "upstream.credential_lifetime" => &["credential_helper"],
        "upstream.anonymous" => &["username", "password"],
        "upstream.client_certificate" => &["client_key"],
        "upstream.client_key" => &["client_certificate"],
        "tls.certificate" => &["key"],
        "tls.key" => &["certificate"],
        "tls.client_auth" => &["certificate", "key", "client_ca"],
        "tls.client_ca" | "tls.minimum" | "tls.addr" => &["certificate", "key"],
        _ => &[],
    }
}

#[test]
fn the_table_of_this_test_has_every_key() {
    let here: BTreeSet<String> = ROWS.iter().map(|row| row.0.to_owned()).collect();
    let keys: BTreeSet<String> = keys::all().map(keys::Key::path).collect();
    assert_eq!(here, keys);
    assert_eq!(keys.len(), keys::all().count(), "a key stands twice in the table");
}

#[test]
fn every_key_is_set_by_file_and_by_environment() {
    for &(path, toml, text, has) in ROWS {
        assert!(!has(&Config::default()), "{path}: the value is the default");
        let (section, name) = path.split_once('.').unwrap();
        let more = needs(path);
        let extra: String = more.iter().map(|name| format!("{name} = \"x\"\n")).collect();
        let file = format!("[{section}]\n{name} = {toml}\n{extra}");
        let loaded = from_file(&file).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        assert!(has(&loaded.config), "{path} by file: {:?}", loaded.config);

        let variable = |name: &str| format!("STOPOVER_{section}__{name}").to_uppercase();
        let mut variables = vec![(variable(name), text.to_owned())];
        variables.extend(more.iter().map(|name| (variable(name), "x".to_owned())));
        let loaded = read(None, variables).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        assert!(has(&loaded.config), "{path} by environment: {:?}", loaded.config);
    }
}

#[test]
fn nothing_set_is_a_mirror_of_docker_hub() {
    let loaded = read(None, []).unwrap();
    assert_eq!(loaded, Loaded { config: Config::default(), warnings: Vec::new(), file: None });
    assert!(loaded.config.upstream.library());
    assert_eq!(loaded.config.upstream.url, "https://registry-1.docker.io");
    assert_eq!(loaded.config.http.addr, ["[::]:5000".parse().unwrap()]);
}

#[test]
fn the_environment_wins_over_the_file_and_ours_over_registrys() {
    let file = "[upstream]\nurl = \"http://file\"\n[log]\nlevel = \"error\"\n[storage]\nroot = \"/file\"\n";
    let variables = [
        ("REGISTRY_PROXY_REMOTEURL", "http://registrys"),
        ("STOPOVER_UPSTREAM__URL", "http://ours"),
        ("REGISTRY_LOG_LEVEL", "debug"),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let config = read(Some(("stopover.toml", file)), variables).unwrap().config;
    assert_eq!(config.upstream.url, "http://ours");
    assert_eq!(config.log.level, Level::Debug);
    assert_eq!(config.storage.root, Path::new("/file"));
}

#[test]
fn registry_2s_variables_work_as_they_do_there() {
    let table: [(&str, &str, Has); 17] = [
        ("REGISTRY_PROXY_REMOTEURL", "http://127.0.0.1:7000", |c| {
            c.upstream.url == "http://127.0.0.1:7000" && c.upstream.library()
        }),
        ("REGISTRY_PROXY_REMOTEURL", "\"https://registry-1.docker.io/\"", |c| {
            c.upstream.url == "https://registry-1.docker.io"
        }),
        ("REGISTRY_PROXY_TTL", "168h", |c| c.storage.ttl == Some(seconds(604_800))),
        ("REGISTRY_PROXY_TTL", "1h30m", |c| c.storage.ttl == Some(seconds(5_400))),
        ("REGISTRY_PROXY_TTL", "1000000000", |c| c.storage.ttl == Some(seconds(1))),
        ("REGISTRY_PROXY_TTL", "0", |c| c.storage.ttl.is_none()),
        ("REGISTRY_PROXY_TTL", "-1", |c| c.storage.ttl.is_none()),
        ("REGISTRY_PROXY_TTL", "-1h", |c| c.storage.ttl.is_none()),
        ("REGISTRY_HTTP_ADDR", ":5005", |c| c.http.addr == ["[::]:5005".parse().unwrap()]),
        ("REGISTRY_HTTP_ADDR", "127.0.0.1:80", |c| c.http.addr == ["127.0.0.1:80".parse().unwrap()]),
        ("REGISTRY_HTTP_ADDR", "localhost:5000", |c| c.http.addr == ["127.0.0.1:5000".parse().unwrap()]),
        ("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY", "/data", |c| c.storage.root == Path::new("/data")),
        ("REGISTRY_LOG_LEVEL", "Warn", |c| c.log.level == Level::Warn),
        ("REGISTRY_LOG_FORMATTER", "text", |c| c.log.format == Format::Text),
        ("REGISTRY_LOG_FORMATTER", "logstash", |c| c.log.format == Format::Json),
        ("REGISTRY_STORAGE", "filesystem", |c| *c == Config::default()),
        ("REGISTRY_PROXY_USERNAME", "", |c| *c == Config::default()),
    ];
    for (name, value, has) in table {
        let loaded = from_environment(&[(name, value)]).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        assert!(has(&loaded.config), "{name}={value}: {:?}", loaded.config);
        assert_eq!(loaded.warnings, [""; 0], "{name}={value}");
    }
    let account = [("REGISTRY_PROXY_USERNAME", "ann"), ("REGISTRY_PROXY_PASSWORD", "'p\"w'")];
    let upstream = from_environment(&account).unwrap().config.upstream;
    assert_eq!(upstream.username.as_deref(), Some("ann"));
    assert_eq!(upstream.password.unwrap().expose(), "p\"w");
}

#[test]
fn access_and_the_debug_port_are_set_as_for_registry_2() {
    let variables = [
        ("REGISTRY_AUTH", "htpasswd"),
        ("REGISTRY_AUTH_HTPASSWD_REALM", "Registry Realm"),
        ("REGISTRY_AUTH_HTPASSWD_PATH", "/auth/htpasswd"),
        ("REGISTRY_HTTP_DEBUG_ADDR", "localhost:5001"),
        ("REGISTRY_HTTP_DEBUG_PROMETHEUS_ENABLED", "true"),
        ("REGISTRY_HTTP_DEBUG_PROMETHEUS_PATH", "/m"),
        ("REGISTRY_PROXY_EXEC_COMMAND", "docker-credential-ecr-login"),
        ("REGISTRY_PROXY_EXEC_LIFETIME", "43200000000000"),
        // Kubernetes' own, for a service called registry-auth-token.
        ("REGISTRY_AUTH_TOKEN_SERVICE_HOST", "10.0.0.1"),
    ];
    let Loaded { config, warnings, .. } = from_environment(&variables).unwrap();
    assert_eq!(config.access.htpasswd.as_deref(), Some(Path::new("/auth/htpasswd")));
    assert_eq!(config.access.realm.as_deref(), Some("Registry Realm"));
    assert_eq!(config.admin.addr, Some("127.0.0.1:5001".parse().unwrap()));
    assert_eq!(config.admin.metrics_path, "/m");
    assert_eq!(config.upstream.credential_helper.as_deref(), Some("docker-credential-ecr-login"));
    assert_eq!(config.upstream.credential_lifetime, Some(seconds(43_200)));
    assert_eq!(warnings, [""; 0]);

    let both = [("REGISTRY_AUTH", "none"), ("REGISTRY_AUTH_HTPASSWD_PATH", "/auth/htpasswd")];
    let want = "REGISTRY_AUTH_HTPASSWD_PATH: auth: expected one kind, found none and htpasswd";
    assert_eq!(mistakes(from_environment(&both)), [want]);
}

#[test]
fn what_is_not_ours_warns_and_goes_on() {
    let variables = [
        ("REGISTRY_HTTP_ADR", ":5001"),
        ("REGISTRY_VERSION", "2"),
        ("REGISTRY_PORT_5000_TCP_ADDR", "10.0.0.1"),
        ("REGISTRY_PORT", "tcp://10.0.0.1:5000"),
        ("STOPOVER_PORT_5000_TCP_ADDR", "10.0.0.1"),
        ("STOPOVER_SERVICE_HOST", "10.0.0.1"),
        ("STOPOVER_CONFIG", "read by load"),
        ("PATH", "/bin"),
    ];
    let warnings = [
        "REGISTRY_HTTP_ADR: unknown, ignored; did you mean REGISTRY_HTTP_ADDR?",
        "STOPOVER_PORT_5000_TCP_ADDR: ignored, since it looks like Kubernetes' own for a service",
        "STOPOVER_SERVICE_HOST: ignored, since it looks like Kubernetes' own for a service",
    ];
    assert_eq!(from_environment(&variables).unwrap().warnings, warnings);
}

#[test]
fn a_password_over_plain_http_warns_unless_it_stays_on_the_machine() {
    let with = |url| {
        let variables = [
            ("STOPOVER_UPSTREAM__REGISTRY", "docker.io"),
            ("STOPOVER_UPSTREAM__USERNAME", "ann"),
            ("STOPOVER_UPSTREAM__PASSWORD", "s3cret"),
            ("STOPOVER_UPSTREAM__URL", url),
        ];
        from_environment(&variables).unwrap().warnings
    };
    let warning = "STOPOVER_UPSTREAM__URL: the account's password goes to http://hub.example unencrypted";
    assert_eq!(with("http://hub.example"), [warning]);
    assert_eq!(with("http://127.0.0.1:7000"), [""; 0]);
    assert_eq!(with("https://hub.example"), [""; 0]);
}

#[test]
fn what_is_in_force_is_a_file_that_sets_the_same() {
    let default = Config::default().effective();
    assert_eq!(from_file(&default).unwrap().config, Config::default());
    for (path, toml, _, has) in ROWS.iter().filter(|row| needs(row.0).is_empty()) {
        let config = from_file(&format!("{path} = {toml}")).unwrap().config;
        assert!(has(&from_file(&config.effective()).unwrap().config), "{path}");
    }
    let account = from_file("upstream = { username = \"ann\", password = \"hunter2\" }").unwrap().config;
    assert!(account.effective().contains("username = \"ann\"\npassword = \"***\"\n"));
}

#[test]
fn a_named_file_must_be_there_and_readable() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("missing.toml");
    let want = format!("{}: cannot be read: No such file or directory (os error 2)", path.display());
    assert_eq!(mistakes(load(Some(&path), RunAs::Stopover)), [want]);
    std::fs::write(&path, vec![b'#'; 1 + (1 << 20)]).unwrap();
    assert_eq!(
        mistakes(load(Some(&path), RunAs::Stopover)),
        [format!("{}: cannot be read: longer than 1 MiB", path.display())]
    );
    std::fs::write(&path, "[cache]\ntag_ttl = \"5m\"\n").unwrap();
    let loaded = load(Some(&path), RunAs::Stopover).unwrap();
    assert_eq!((loaded.config.cache.tag_ttl, loaded.file), (seconds(300), Some(path)));
}

#[test]
fn the_reference_in_docs_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
    let there = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        there == reference(),
        "docs/configuration.md is not current: run `cargo run -- check --reference > docs/configuration.md`"
    );
}
