//! Each kind of mistake, with its exact words, and what they must never hold.

use super::{super::read, from_environment, from_file, mistakes};

/// A file and the one mistake in it.
const IN_FILE: &[(&str, &str)] = &[
    (
        "[cache]\ntag_ttl = \"60 sec\"",
        "stopover.toml:2:11: cache.tag_ttl: found \"60 sec\", expected a duration up to 3650d, such as \"60s\", \"1h30m\" or \"7d\"",
    ),
    (
        "[cache]\ntag_ttl = 60",
        "stopover.toml:2:11: cache.tag_ttl: found 60, expected a duration up to 3650d, such as \"60s\", \"1h30m\" or \"7d\"",
    ),
    (
        "[http]\nheader_timeout = 0",
        "stopover.toml:2:18: http.header_timeout: found 0, expected a duration from 1ms to 1d, such as \"30s\" or \"1h30m\"",
    ),
    (
        "[storage]\nttl = \"never\"",
        "stopover.toml:2:7: storage.ttl: found \"never\", expected a duration such as \"12h\" or \"7d\", or \"0\" for never",
    ),
    ("[storage]\nroot = \"\"", "stopover.toml:2:8: storage.root: found \"\", expected the path of a folder"),
    (
        "[cache]\nmemory_bytes = \"16MB\"",
        "stopover.toml:2:16: cache.memory_bytes: found \"16MB\", expected a size up to 64GiB, such as \"64MiB\" or \"1GiB\"",
    ),
    (
        "[http]\nconnections_max = -1",
        "stopover.toml:2:19: http.connections_max: found -1, expected a whole number from 1 to 1000000",
    ),
    (
        "[http]\nworkers = \"4\"",
        "stopover.toml:2:11: http.workers: found \"4\", expected a whole number from 0 to 1024",
    ),
    (
        "[http]\nworkers = 1.5",
        "stopover.toml:2:11: http.workers: found a number with a fraction, expected a whole number from 0 to 1024",
    ),
    (
        "[http]\nsendfile = \"yes\"",
        "stopover.toml:2:12: http.sendfile: found \"yes\", expected true or false",
    ),
    (
        "http.addr = []",
        "stopover.toml:1:13: http.addr: found a list, expected an address such as \"127.0.0.1:5000\", \"[::1]:5000\", \":5000\" or \"unix:/run/x.sock\", or a list of them",
    ),
    (
        "http.socket_mode = \"0888\"",
        "stopover.toml:1:20: http.socket_mode: found \"0888\", expected an octal mode in quotes, such as \"0660\"",
    ),
    (
        "tls.certificate = \"/c\"",
        "stopover.toml:1:19: tls.certificate is set and tls.key is not; expected both",
    ),
    ("tls.key = \"/k\"", "stopover.toml:1:11: tls.key is set and tls.certificate is not; expected both"),
    ("tls.addr = \":1\"", "stopover.toml:1:12: tls.addr is set and tls.certificate is not; expected both"),
    (
        "tls = { certificate = \"/c\", key = \"/k\", minimum = \"tls1.1\" }",
        "stopover.toml:1:51: tls.minimum: found \"tls1.1\", expected tls1.2 or tls1.3",
    ),
    (
        "tls = { certificate = \"/c\", key = \"/k\", client_auth = \"optional\" }",
        "stopover.toml:1:55: tls.client_auth is set and tls.client_ca is not; expected both",
    ),
    (
        "admin.addr = \"5001\"",
        "stopover.toml:1:14: admin.addr: found \"5001\", expected an address such as \"127.0.0.1:5001\", or \"off\"",
    ),
    (
        "log = { level = \"loud\" }",
        "stopover.toml:1:17: log.level: found \"loud\", expected \"error\", \"warn\", \"info\" or \"debug\"",
    ),
    (
        "log.format = \"xml\"",
        "stopover.toml:1:14: log.format: found \"xml\", expected \"auto\", \"text\" or \"json\"",
    ),
    (
        "upstream.registry = \"https://docker.io\"",
        "stopover.toml:1:21: upstream.registry: found \"https://docker.io\", expected a host such as \"docker.io\" or \"registry.example:5000\"",
    ),
    (
        "upstream.url = \"docker.io\"",
        "stopover.toml:1:16: upstream.url: found \"docker.io\", expected a scheme, a host and maybe a port and a path without \"/v2\", such as \"https://registry-1.docker.io\"",
    ),
    (
        "upstream.realms = [1]",
        "stopover.toml:1:19: upstream.realms: found a list, expected a list of hosts such as [\"auth.example\", \"auth.example:8443\"]",
    ),
    (
        "upstream.username = \"a\\nb\"",
        "stopover.toml:1:21: upstream.username: found \"a\\nb\", expected a text without control characters",
    ),
    (
        "upstream.quota_reserve = \"101%\"",
        "stopover.toml:1:26: upstream.quota_reserve: found \"101%\", expected a number, or up to \"100%\", such as \"10%\"",
    ),
    (
        "upstream.quota_reserve = -1",
        "stopover.toml:1:26: upstream.quota_reserve: found -1, expected a number, or up to \"100%\", such as \"10%\"",
    ),
    (
        "upstream.bandwidth = 10",
        "stopover.toml:1:22: upstream.bandwidth: found 10, expected bytes a second, at least 16KiB, such as \"10MB\" or \"512KiB\", or 0 for no limit",
    ),
    (
        "upstream.bandwidth = \"80Mbit\"",
        "stopover.toml:1:22: upstream.bandwidth: found \"80Mbit\", expected bytes a second, at least 16KiB, such as \"10MB\" or \"512KiB\", or 0 for no limit",
    ),
    (
        "upstream.streams_max = 0",
        "stopover.toml:1:24: upstream.streams_max: found 0, expected a whole number from 1 to 64",
    ),
    (
        "upstream.anonymous = false",
        "stopover.toml:1:22: upstream.anonymous: found false and no account, expected an account, such as upstream.username and upstream.password",
    ),
    ("[cache]\ntagttl = \"1s\"", "stopover.toml:2:1: unknown key cache.tagttl; did you mean cache.tag_ttl?"),
    ("[http]\ntag_ttl = \"1s\"", "stopover.toml:2:1: unknown key http.tag_ttl; did you mean cache.tag_ttl?"),
    ("tag_ttl = \"1s\"", "stopover.toml:1:1: unknown key tag_ttl; did you mean cache.tag_ttl?"),
    ("zzzzzz = 1", "stopover.toml:1:1: unknown key zzzzzz; expected a section such as [cache]"),
    (
        "[log]\nzzzzzzzz = 1",
        "stopover.toml:2:1: unknown key log.zzzzzzzz; [log] has level, format, access, combined, fields",
    ),
    ("[cahce]\ntag_ttl = \"1s\"", "stopover.toml:1:2: unknown section [cahce]; did you mean [cache]?"),
    (
        "[prometheus]",
        "stopover.toml:1:2: unknown section [prometheus]; the sections are http, access, tls, admin, storage, cache, log, route, upstream, egresses, upstreams",
    ),
    ("cache = 5", "stopover.toml:1:1: cache: expected a section, [cache]"),
    ("[[cache]]", "stopover.toml:1:3: cache: expected a section, [cache]"),
    (
        "upstream.username = \"ann\"",
        "stopover.toml:1:21: upstream.username is set and upstream.password is not; expected both or neither",
    ),
    (
        "upstream = { username = \"ann\", password = \"s3cret\", credential_helper = \"ecr-login\" }",
        "stopover.toml:1:73: upstream.credential_helper: found beside upstream.username, expected one of them: an account or a program that gives it",
    ),
    (
        "upstream.password = \"s3cret\"",
        "stopover.toml:1:21: upstream.password is set and upstream.username is not; expected both or neither",
    ),
];

#[test]
fn each_mistake_in_a_file_is_named_with_its_place_and_what_was_expected() {
    for (text, want) in IN_FILE {
        assert_eq!(mistakes(from_file(text)), [*want], "{text}");
    }
}

/// A variable, its value and the mistake that it is.
const IN_ENVIRONMENT: &[(&str, &str, &str)] = &[
    (
        "STOPOVER_CACHE__TAG_TTL",
        "soon",
        "STOPOVER_CACHE__TAG_TTL: cache.tag_ttl: found \"soon\", expected a duration up to 3650d, such as \"60s\", \"1h30m\" or \"7d\"",
    ),
    (
        "STOPOVER_HTTP__SENDFILE",
        "1",
        "STOPOVER_HTTP__SENDFILE: http.sendfile: found \"1\", expected true or false",
    ),
    (
        "STOPOVER_HTTP__WORKERS",
        "many",
        "STOPOVER_HTTP__WORKERS: http.workers: found \"many\", expected a whole number from 0 to 1024",
    ),
    (
        "STOPOVER_CACHE__TAGTTL",
        "1s",
        "STOPOVER_CACHE__TAGTTL: unknown variable; did you mean STOPOVER_CACHE__TAG_TTL?",
    ),
    (
        "STOPOVER_CACHE_TAG_TTL",
        "1s",
        "STOPOVER_CACHE_TAG_TTL: unknown variable; did you mean STOPOVER_CACHE__TAG_TTL?",
    ),
    (
        "STOPOVER_X",
        "1",
        "STOPOVER_X: unknown variable; expected STOPOVER_<SECTION>__<KEY>, such as STOPOVER_CACHE__TAG_TTL",
    ),
    (
        "REGISTRY_PROXY_TTL",
        "a week",
        "REGISTRY_PROXY_TTL: storage.ttl: found \"a week\", expected a duration such as \"12h\" or \"7d\", or \"0\" for never",
    ),
    (
        "REGISTRY_PROXY_REMOTEURL",
        "https://hub.example/v2",
        "REGISTRY_PROXY_REMOTEURL: upstream.url: found \"https://hub.example/v2\", expected a scheme, a host and maybe a port and a path without \"/v2\", such as \"https://registry-1.docker.io\"",
    ),
    (
        "REGISTRY_LOG_LEVEL",
        "trace",
        "REGISTRY_LOG_LEVEL: log.level: found \"trace\", expected \"error\", \"warn\", \"info\" or \"debug\"",
    ),
    (
        "REGISTRY_STORAGE",
        "s3",
        "REGISTRY_STORAGE: storage.s3: not supported; Stopover keeps content on a local disk; use storage.filesystem",
    ),
    (
        "REGISTRY_AUTH",
        "token",
        "REGISTRY_AUTH: auth.token: not supported; use auth.htpasswd, or check tokens in front of it",
    ),
    (
        "REGISTRY_AUTH_TOKEN_REALM",
        "https://auth.example/token",
        "REGISTRY_AUTH_TOKEN_REALM: auth.token: not supported; use auth.htpasswd, or check tokens in front of it",
    ),
    (
        "REGISTRY_AUTH",
        "htpasswd",
        "REGISTRY_AUTH: auth.htpasswd: path is not set; expected the file with the users, as REGISTRY_AUTH_HTPASSWD_PATH for instance",
    ),
    (
        "STOPOVER_ACCESS__HTPASSWD",
        "",
        "STOPOVER_ACCESS__HTPASSWD: access.htpasswd: found \"\", expected the path of a file",
    ),
    (
        "REGISTRY_HTTP_DEBUG_PROMETHEUS_PATH",
        "metrics?x",
        "REGISTRY_HTTP_DEBUG_PROMETHEUS_PATH: admin.metrics_path: found \"metrics?x\", expected a path such as \"/metrics\", of letters, digits and -._/",
    ),
    (
        "REGISTRY_PROXY_EXEC_LIFETIME",
        "1h",
        "REGISTRY_PROXY_EXEC_LIFETIME: upstream.credential_lifetime: expected upstream.credential_helper to be set too",
    ),
    (
        "REGISTRY_PROXY_USERNAME",
        "ann",
        "REGISTRY_PROXY_USERNAME: upstream.username is set and upstream.password is not; expected both or neither",
    ),
];

#[test]
fn each_mistake_in_the_environment_is_named_with_its_variable() {
    for &(name, value, want) in IN_ENVIRONMENT {
        assert_eq!(mistakes(from_environment(&[(name, value)])), [want], "{name}={value}");
    }
}

#[test]
fn all_mistakes_are_named_at_once_in_the_order_of_the_file() {
    let file = "[cache]\ntag_ttl = \"x\"\nbogus_thing = 1\n\n[http]\nworkers = -1\n";
    let variables = [("STOPOVER_LOG__ACCESS".to_owned(), "maybe".to_owned())];
    let all = mistakes(read(Some(("stopover.toml", file)), variables));
    let places: Vec<&str> = all.iter().map(|mistake| mistake.split(": ").next().unwrap()).collect();
    assert_eq!(
        places,
        ["stopover.toml:2:11", "stopover.toml:3:1", "stopover.toml:6:11", "STOPOVER_LOG__ACCESS"]
    );
}

#[test]
fn what_is_no_toml_is_named_with_its_place() {
    let table = [
        ("[cache", "stopover.toml:1:7: not TOML: unclosed table, expected `]`"),
        ("[cache]\ntag_ttl 5", "stopover.toml:2:9: not TOML: key with no value, expected `=`"),
        (
            "[cache]\ntag_ttl = 60s",
            "stopover.toml:2:11: not TOML: string values must be quoted, expected literal string",
        ),
        ("[log]\naccess = true\naccess = true", "stopover.toml:3:1: not TOML: duplicate key"),
    ];
    for (text, want) in table {
        assert_eq!(mistakes(from_file(text)), [want], "{text}");
    }
}

#[test]
fn no_message_shows_a_secret() {
    const SECRET: &str = "hunter2";
    let files = [
        "upstream.password = hunter2",
        "upstream.password = \"hunter2\nx",
        "upstream.password = 'hunter2\" # x",
        "[upstream]\npassword = \"hunter2\" \"x\"",
        "[upstream]\npassword == \"hunter2\"",
        "[upstream]\npassword \"hunter2\"",
        "[upstream]\npassword = [\"hunter2\"]",
        "[upstream]\npassword = { hunter2 = \"hunter2\" }",
        "[upstream]\npassword = \"hunter2\\u0007\"",
        "[upstream]\npasswort = \"hunter2\"",
        "[upstream]\nurl = \"https://ann:hunter2@hub.example\"",
        "[upstream]\nurl = \"https://hub.example?token=hunter2\"",
        "[upstream]\nregistry = \"ann:hunter2@hub.example\"",
        "[upstream]\nrealms = \"ann:hunter2@hub.example\"",
        "[upstream]\nrealms = [\"ann:hunter2@hub.example\"]",
    ];
    for text in files {
        let all = mistakes(from_file(text)).join("\n");
        assert!(!all.contains(SECRET), "{text}\n{all}");
    }
    let variables = [
        ("STOPOVER_UPSTREAM__PASSWORD", "hunter2\n"),
        ("STOPOVER_UPSTREAM__PASSWORT", "hunter2"),
        ("REGISTRY_PROXY_REMOTEURL", "https://ann:hunter2@hub.example"),
        ("REGISTRY_PROXY_PASSWORD", "hunter2"),
        ("STOPOVER_UPSTREAM__REALMS", "https://ann:hunter2@hub.example,x"),
    ];
    for (name, value) in variables {
        let all = mistakes(from_environment(&[(name, value)])).join("\n");
        assert!(!all.contains(SECRET), "{name}={value}\n{all}");
    }
    let loaded = from_file("upstream = { username = \"ann\", password = \"hunter2\" }").unwrap();
    assert!(!format!("{loaded:?}{}", loaded.config.effective()).contains(SECRET));
}
