//! registry:2's and registry:3's `config.yml` and variables: what becomes of each key.

use super::super::registry::rows;
use super::*;

fn from_yaml(text: &str, variables: &[(&str, &str)]) -> Result<Loaded, Mistakes> {
    let variables = variables.iter().map(|(name, value)| (String::from(*name), String::from(*value)));
    read(Some(("config.yml", text)), variables)
}

/// The file of registry:2's image, made a cache's.
const REGISTRY_2: &str = "\
version: 0.1
log:
  fields:
    service: registry
storage:
  cache:
    blobdescriptor: inmemory
  filesystem:
    rootdirectory: /srv/registry
http:
  addr: :5000
  headers:
    X-Content-Type-Options: [nosniff]
health:
  storagedriver:
    enabled: true
    interval: 10s
    threshold: 3
proxy:
  remoteurl: https://registry-1.docker.io
";

/// The file of registry:3's image.
const REGISTRY_3: &str = "\
version: 0.1
log:
  level: debug
  fields:
    service: registry
    environment: development
storage:
  delete:
    enabled: true
  cache:
    blobdescriptor: inmemory
  filesystem:
    rootdirectory: /var/lib/registry
  tag:
    concurrencylimit: 5
http:
  addr: :5000
  debug:
    addr: :5001
    prometheus:
      enabled: true
      path: /metrics
  headers:
    X-Content-Type-Options: [nosniff]
health:
  storagedriver:
    enabled: true
    interval: 10s
    threshold: 3
";

/// What becomes of a key.
enum Outcome {
    /// What is in force has this line.
    Sets(&'static str),
    /// Nothing is changed and nothing said.
    Nothing,
    /// A warning that begins so, after the place.
    Warns(&'static str),
    /// A mistake that begins so, after the place.
    Refused(&'static str),
}
use Outcome::{Nothing, Refused, Sets, Warns};

/// Every key there is, with a value, and what becomes of it.
const KEYS_AND_OUTCOMES: &[(&str, &str, Outcome)] = &[
    ("proxy.remoteurl", "https://quay.io", Sets("url = \"https://quay.io\"")),
    ("proxy.username", "''", Nothing),
    ("proxy.password", "''", Nothing),
    ("proxy.ttl", "168h", Sets("ttl = \"7d\"")),
    ("proxy.ttl", "3600000000000", Sets("ttl = \"1h\"")),
    ("proxy.ttl", "-1s", Sets("ttl = \"0\"")),
    ("proxy.exec.command", "docker-credential-x", Sets("credential_helper = \"docker-credential-x\"")),
    (
        "proxy.exec.lifetime",
        "1h",
        Refused("upstream.credential_lifetime: expected upstream.credential_helper"),
    ),
    ("proxy.cachewritetimeout", "5m", Nothing),
    ("http.addr", "localhost:5005", Sets("addr = \"127.0.0.1:5005\"")),
    ("http.net", "tcp", Nothing),
    ("http.net", "udp", Refused("http.net: expected tcp or unix")),
    ("http.host", "https://registry.example", Nothing),
    ("http.secret", "hush", Nothing),
    ("http.relativeurls", "true", Nothing),
    ("http.draintimeout", "90s", Sets("drain_timeout = \"90s\"")),
    ("http.headers", "{X-Frame-Options: [DENY]}", Sets("headers = { \"x-frame-options\" = [\"DENY\"] }")),
    ("http.headers", "{Content-Length: ['5']}", Refused("http.headers: found a table")),
    ("http.debug.addr", ":5002", Sets("addr = \"[::]:5002\"")),
    ("http.debug.prometheus.enabled", "true", Nothing),
    ("http.debug.prometheus.path", "/prom", Sets("metrics_path = \"/prom\"")),
    ("http.http2.disabled", "true", Sets("http2 = false")),
    ("http.http2.disabled", "false", Sets("http2 = true")),
    ("http.h2c.enabled", "true", Nothing),
    ("http.tls.ciphersuites", "[TLS_AES_128_GCM_SHA256]", Warns("ignored: rustls takes none but safe ones")),
    ("http.tls.ciphersuites", "[]", Nothing),
    ("http.tls.letsencrypt.hosts", "[registry.example]", Refused("http.tls.letsencrypt: not supported")),
    ("http.tls.letsencrypt.email", "''", Nothing),
    ("log.level", "warn", Sets("level = \"warn\"")),
    ("loglevel", "error", Sets("level = \"error\"")),
    ("log.formatter", "logstash", Sets("format = \"json\"")),
    ("log.formatter", "text", Sets("format = \"text\"")),
    ("log.fields", "{service: mirror, n: 2}", Sets("fields = { \"n\" = \"2\", \"service\" = \"mirror\" }")),
    ("log.accesslog.disabled", "true", Sets("combined = false")),
    ("log.accesslog.disabled", "false", Sets("combined = true")),
    ("log.reportcaller", "true", Warns("ignored: lines name no place")),
    ("log.hooks", "[{type: mail, levels: [panic]}]", Warns("ignored: nothing is mailed")),
    ("log.hooks", "[{type: mail, disabled: true}]", Nothing),
    ("storage.filesystem.rootdirectory", "/data", Sets("root = \"/data\"")),
    ("storage.filesystem.maxthreads", "100", Nothing),
    ("storage", "filesystem", Nothing),
    ("storage", "s3", Refused("storage.s3: not supported")),
    ("storage.inmemory", "{}", Refused("storage.inmemory: not supported")),
    ("storage.s3.bucket", "b", Refused("storage.s3: not supported")),
    ("storage.s3aws.bucket", "b", Refused("storage.s3aws: not supported")),
    ("storage.gcs.bucket", "b", Refused("storage.gcs: not supported")),
    ("storage.azure.container", "c", Refused("storage.azure: not supported")),
    ("storage.oss.bucket", "b", Refused("storage.oss: not supported")),
    ("storage.swift.container", "c", Refused("storage.swift: not supported")),
    ("storage.delete.enabled", "true", Nothing),
    ("storage.redirect.disable", "true", Nothing),
    ("storage.cache.blobdescriptor", "redis", Nothing),
    ("storage.cache.layerinfo", "inmemory", Nothing),
    ("storage.cache.blobdescriptorsize", "10000", Nothing),
    ("storage.tag.concurrencylimit", "8", Nothing),
    ("storage.maintenance.uploadpurging.enabled", "true", Nothing),
    ("storage.maintenance.uploadpurging.age", "168h", Nothing),
    ("storage.maintenance.uploadpurging.interval", "24h", Nothing),
    ("storage.maintenance.uploadpurging.dryrun", "false", Nothing),
    ("storage.maintenance.readonly.enabled", "true", Nothing),
    ("auth.htpasswd.path", "/etc/users", Sets("htpasswd = \"/etc/users\"")),
    ("auth.htpasswd.realm", "Lab", Refused("auth.htpasswd: path is not set")),
    ("auth", "htpasswd", Refused("auth.htpasswd: path is not set")),
    ("auth", "none", Nothing),
    ("auth.none", "{}", Nothing),
    ("auth.token.realm", "https://auth.example", Refused("auth.token: not supported")),
    ("auth.token.service", "x", Refused("auth.token: not supported")),
    ("auth.token.issuer", "x", Refused("auth.token: not supported")),
    ("auth.token.rootcertbundle", "/x", Refused("auth.token: not supported")),
    ("auth.token.jwks", "/x", Refused("auth.token: not supported")),
    ("auth.token.signingalgorithms", "[ES256]", Refused("auth.token: not supported")),
    ("auth.token.autoredirect", "true", Refused("auth.token: not supported")),
    ("auth.token.autoredirectpath", "/x", Refused("auth.token: not supported")),
    ("auth.silly.realm", "x", Refused("auth.silly: not supported")),
    ("redis.addr", "redis:6379", Warns("ignored: there is nothing to keep in it")),
    ("redis.addrs", "[redis:6379]", Warns("ignored: there is nothing to keep in it")),
    ("redis.password", "x", Warns("ignored: there is nothing to keep in it")),
    ("redis.db", "0", Warns("ignored: there is nothing to keep in it")),
    ("redis.pool.maxidle", "16", Warns("ignored: there is nothing to keep in it")),
    ("redis.tls.certificate", "/x", Warns("ignored: there is nothing to keep in it")),
    ("health.storagedriver.enabled", "true", Nothing),
    ("health.storagedriver.interval", "10s", Nothing),
    ("health.storagedriver.threshold", "3", Nothing),
    ("health.file", "[{file: /down, interval: 10s}]", Warns("ignored: ask /livez")),
    ("health.http", "[{uri: 'http://x/'}]", Warns("ignored: ask /livez")),
    ("health.tcp", "[{addr: 'x:1'}]", Warns("ignored: ask /livez")),
    ("notifications.events.includereferences", "true", Nothing),
    ("notifications.endpoints", "[{name: a, url: 'http://x/'}]", Warns("ignored: nobody is notified")),
    ("notifications.endpoints", "[{name: a, disabled: true}]", Nothing),
    ("middleware.storage", "[{name: cloudfront}]", Warns("ignored: blobs always come")),
    ("middleware.registry", "[]", Nothing),
    ("middleware.repository", "[]", Nothing),
    ("catalog.maxentries", "1000", Nothing),
    ("tags.maxtags", "1000", Nothing),
    ("validation.disabled", "true", Nothing),
    ("validation.enabled", "true", Nothing),
    ("validation.manifests.urls.allow", "[^https]", Nothing),
    ("validation.manifests.indexes.platforms", "all", Nothing),
    ("policy.repository.classes", "[plugin]", Nothing),
    ("compatibility.schema1.enabled", "true", Warns("ignored: manifests of schema 1")),
    ("compatibility.schema1.signingkeyfile", "/x", Warns("ignored: manifests of schema 1")),
    ("reporting.bugsnag.apikey", "x", Warns("ignored: nothing is reported")),
    ("reporting.newrelic.licensekey", "x", Warns("ignored: nothing is reported")),
];

/// Returns a `config.yml` that sets one key.
fn yaml_with(path: &str, value: &str) -> String {
    let mut text = "version: 0.1\n".to_owned();
    let names: Vec<&str> = path.split('.').collect();
    for (depth, name) in names.iter().enumerate() {
        let value = if depth + 1 == names.len() { format!(" {value}") } else { String::new() };
        text += &format!("{}{name}:{value}\n", "  ".repeat(depth));
    }
    text
}

fn variable_of(path: &str) -> String {
    let fields = path
        .replace("health.file", "health.filecheckers")
        .replace("health.http", "health.httpcheckers")
        .replace("health.tcp", "health.tcpcheckers")
        .replace("notifications.events", "notifications.eventconfig");
    format!("REGISTRY_{}", fields.replace('.', "_").to_uppercase())
}

fn assert_outcome(what: &str, loaded: Result<Loaded, Mistakes>, before: &Config, outcome: &Outcome) {
    let text_of =
        |loaded: Result<Loaded, Mistakes>| loaded.unwrap_or_else(|mistakes| panic!("{what}: {mistakes}"));
    match outcome {
        Sets(line) => {
            let Loaded { config, warnings, .. } = text_of(loaded);
            assert!(
                config.effective().lines().any(|one| one == *line),
                "{what}: {line}: {}",
                config.effective()
            );
            assert_eq!(warnings, [""; 0], "{what}");
        }
        Nothing => {
            let Loaded { config, warnings, .. } = text_of(loaded);
            assert_eq!((&config, warnings), (before, Vec::new()), "{what}");
        }
        Warns(want) => {
            let Loaded { config, warnings, .. } = text_of(loaded);
            assert_eq!((&config, warnings.len()), (before, 1), "{what}: {warnings:?}");
            assert!(warnings[0].contains(want), "{what}: {warnings:?}");
        }
        Refused(want) => {
            let all = mistakes(loaded);
            assert!(all.len() == 1 && all[0].contains(want), "{what}: {all:?}");
        }
    }
}

#[test]
fn each_key_has_its_outcome_in_the_file_and_in_the_environment() {
    let remote = ("REGISTRY_PROXY_REMOTEURL", "https://registry-1.docker.io");
    let empty = from_yaml("version: 0.1\n", &[remote]).unwrap().config;
    for (path, value, outcome) in KEYS_AND_OUTCOMES {
        let remote = if *path == "proxy.remoteurl" { vec![] } else { vec![remote] };
        let what = format!("{path}: {value}");
        assert_outcome(&what, from_yaml(&yaml_with(path, value), &remote), &empty, outcome);
        let variable = variable_of(path);
        let both = [&remote[..], &[(&*variable, *value)]].concat();
        let by_variable = from_environment(&both);
        assert_outcome(&format!("{variable}={value}"), by_variable, &Config::default(), outcome);
    }
}

#[test]
fn the_table_of_this_test_has_every_row() {
    // Those that change when the keys for them are there, and what is in every file.
    for row in rows() {
        let here = KEYS_AND_OUTCOMES.iter().any(|(path, ..)| {
            *path == row || path.strip_prefix(row).is_some_and(|rest| rest.starts_with('.'))
        });
        let apart = row == "version" || row == "http.prefix" || row.starts_with("http.tls.");
        assert!(here || apart, "{row}");
    }
}

#[test]
fn the_files_of_both_images_load_without_a_word() {
    let Loaded { config, warnings, .. } = from_yaml(REGISTRY_2, &[]).unwrap();
    assert_eq!(warnings, [""; 0]);
    assert_eq!(config.storage.root, Path::new("/srv/registry"));
    assert_eq!(config.http.addr, ["[::]:5000".parse().unwrap()]);
    assert_eq!(config.admin.addr, None);
    assert_eq!((config.log.format, config.log.combined), (Format::Text, true));
    assert_eq!(config.log.fields, [("service".to_owned(), "registry".to_owned())]);

    let remote = ("REGISTRY_PROXY_REMOTEURL", "https://registry-1.docker.io");
    let Loaded { config, warnings, .. } = from_yaml(REGISTRY_3, &[remote]).unwrap();
    assert_eq!(warnings, [""; 0]);
    assert_eq!(config.admin.addr, Some("[::]:5001".parse().unwrap()));
    assert_eq!(config.log.level, Level::Debug);
}

#[test]
fn variables_win_over_the_file_as_there() {
    let variables = [
        ("REGISTRY_HTTP_ADDR", "127.0.0.1:80"),
        ("REGISTRY_LOG_FIELDS_ENVIRONMENT", "test"),
        ("REGISTRY_HTTP_HEADERS_X-Frame-Options", "[DENY]"),
        ("REGISTRY_STORAGE", "filesystem"),
        ("REGISTRY_PROXY", "{remoteurl: 'https://ghcr.io', ttl: 24h}"),
        ("REGISTRY_HEALTH_STORAGEDRIVER_ENABLED", "false"),
        ("REGISTRY_LOG_LEVEL", ""),
        ("REGISTRY_REDIS_ADDRS_0", "redis:6379"),
        ("STOPOVER_CACHE__TAG_TTL", "5m"),
    ];
    let Loaded { config, warnings, .. } = from_yaml(REGISTRY_2, &variables).unwrap();
    assert_eq!(config.http.addr, ["127.0.0.1:80".parse().unwrap()]);
    assert_eq!(config.log.fields.len(), 2);
    assert_eq!(config.http.headers.len(), 2);
    assert_eq!(
        config.storage.root,
        Path::new("/var/lib/registry"),
        "REGISTRY_STORAGE takes the whole section's place"
    );
    assert_eq!(
        (config.upstream.url.as_str(), config.upstream.registry.as_str()),
        ("https://ghcr.io", "ghcr.io")
    );
    assert_eq!((config.storage.ttl, config.cache.tag_ttl), (Some(seconds(86_400)), seconds(300)));
    assert_eq!(warnings.len(), 1, "{warnings:?}");
}

#[test]
fn a_socket_is_an_address_with_the_net_that_says_so() {
    let text = "version: 0.1\nhttp:\n  net: unix\n  addr: 5000\nproxy: {remoteurl: 'https://ghcr.io'}\n";
    let all = from_yaml(text, &[]);
    // Whoever listens decides what a path is.
    if let Err(Mistakes(mistakes)) = all {
        assert!(
            mistakes[0].to_string().starts_with("config.yml:4:9: http.addr: found \"unix:5000\""),
            "{mistakes:?}"
        );
    }
}

#[test]
fn every_mistake_of_a_file_is_named_at_once_with_its_place() {
    let text = "version: 0.1\nproxy:\n  remoteurl: hub.example\n  username: ann\nstorage:\n  s3: {bucket: b}\nhttp:\n  \
                addr: [x]\nauth:\n  token: {realm: x}\nlog:\n  level: trace\n";
    let want = [
        "config.yml:3:14: proxy.remoteurl: found \"hub.example\", expected a scheme",
        "config.yml:6:7: storage.s3: not supported; Stopover keeps content on a local disk",
        "config.yml:8:9: http.addr: found a list, expected an address",
        "config.yml:10:10: auth.token: not supported",
        "config.yml:12:10: log.level: found \"trace\", expected",
    ];
    let all = mistakes(from_yaml(text, &[]));
    assert_eq!(all.len(), want.len(), "{all:?}");
    for (found, want) in all.iter().zip(want) {
        assert!(found.starts_with(want), "{want}: {found}");
    }
}

#[test]
fn what_is_no_caches_file_is_explained() {
    for (text, want) in [
        (
            "version: 0.1\n",
            "config.yml: proxy.remoteurl: not set; Stopover is a pull-through cache and takes no pushes",
        ),
        ("version: 0.2\n", "config.yml:1:10: version: found \"0.2\", expected \"version: 0.1\""),
        ("proxy: {}\n", "config.yml: version: not set, expected \"version: 0.1\""),
        ("", "config.yml: version: not set"),
        ("just text\n", "config.yml:1:1: found no section"),
        ("version: 0.1\nhttp: :5000\n", "config.yml:2:7: http: found a value, expected a section"),
        ("a: b: c\n", "config.yml:1:5: not YAML: "),
    ] {
        let all = mistakes(from_yaml(text, &[]));
        assert!(all.iter().any(|found| found.starts_with(want)), "{want}: {all:?}");
    }
}

#[test]
fn what_a_registry_does_not_know_is_named_and_ignored() {
    let text = "version: 0.1\nproxy: {remoteurl: 'https://ghcr.io', remoteurll: x}\nhttp:\n  adr: :1\nzzz: 1\nlog:\n  level: \
                info\n  level: warn\n";
    let Loaded { config, warnings, .. } = from_yaml(text, &[("REGISTRY_LOG_LVL", "x")]).unwrap();
    assert_eq!(config.log.level, Level::Warn);
    let want = [
        "REGISTRY_LOG_LVL: unknown, ignored; did you mean REGISTRY_LOG_LEVEL?",
        "config.yml:2:39: proxy.remoteurll: unknown, ignored; did you mean proxy.remoteurl?",
        "config.yml:4:3: http.adr: unknown, ignored; did you mean http.addr?",
        "config.yml:5:1: zzz: unknown, ignored, as registry:2 does",
        "config.yml:7:3: log.level stands here twice; the later counts",
    ];
    assert_eq!(warnings, want);
}

#[test]
fn a_file_is_yaml_by_its_ending_or_else_by_what_it_holds() {
    let yaml = "version: 0.1\nproxy: {remoteurl: 'https://ghcr.io'}\n";
    for (name, text, url) in [
        ("c.yml", yaml, "https://ghcr.io"),
        ("c.YAML", yaml, "https://ghcr.io"),
        ("/etc/config", yaml, "https://ghcr.io"),
        ("/etc/config", "[upstream]\nurl = \"https://quay.io\"\n", "https://quay.io"),
        ("/dev/null", "", "https://registry-1.docker.io"),
    ] {
        assert_eq!(read(Some((name, text)), []).unwrap().config.upstream.url, url, "{name}");
    }
    assert!(read(Some(("c.toml", yaml)), []).is_err());
}

#[test]
fn no_message_about_a_registrys_file_shows_a_secret() {
    for text in [
        "version: 0.1\nproxy: {remoteurl: 'https://ann:hunter2@hub.example'}\n",
        "version: 0.1\nproxy: {password: [hunter2]}\n",
        "version: 0.1\nproxy: {password: 'hunter2}\n",
        "version: 0.1\nproxy: {password: \"hunter2\\u0007\", remoteurl: 'https://x'}\n",
        "version: 0.1\nauth: {token: {realm: hunter2}}\n",
    ] {
        let all = mistakes(from_yaml(text, &[])).join("\n");
        assert!(!all.contains("hunter2"), "{text}\n{all}");
    }
}
