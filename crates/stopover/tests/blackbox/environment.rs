//! The drop-in environment: what was set for registry:2 goes on to mean the same, and what is wrong is said.

use std::fs;

use hubsim::{Hub, Options, images};

use crate::{
    rig::program::{Serving, run},
    support::{get, manifest_path},
};

const REPOSITORY: &str = "library/alpine";

/// Each of registry:2's variables, and the line of the effective configuration that it makes.
#[tokio::test]
async fn each_variable_of_registry2_sets_what_it_set_there() {
    let table: [(&[(&str, &str)], &str); 20] = [
        (&[("REGISTRY_PROXY_REMOTEURL", "http://127.0.0.1:7000")], "url = \"http://127.0.0.1:7000\""),
        (
            &[("REGISTRY_PROXY_REMOTEURL", "https://registry-1.docker.io/")],
            "url = \"https://registry-1.docker.io\"",
        ),
        (&[("REGISTRY_PROXY_REMOTEURL", "\"https://mirror.gcr.io\"")], "url = \"https://mirror.gcr.io\""),
        (&[("REGISTRY_PROXY_USERNAME", "ann"), ("REGISTRY_PROXY_PASSWORD", "pw")], "username = \"ann\""),
        (&[("REGISTRY_PROXY_TTL", "168h")], "ttl = \"7d\""),
        (&[("REGISTRY_PROXY_TTL", "1h30m")], "ttl = \"1h30m\""),
        (&[("REGISTRY_PROXY_TTL", "3600000000000")], "ttl = \"1h\""),
        (&[("REGISTRY_PROXY_TTL", "0")], "ttl = \"0\""),
        (&[("REGISTRY_PROXY_TTL", "-1s")], "ttl = \"0\""),
        (&[("REGISTRY_HTTP_ADDR", "127.0.0.1:5010")], "addr = \"127.0.0.1:5010\""),
        (&[("REGISTRY_HTTP_ADDR", ":5010")], "addr = \"[::]:5010\""),
        (&[("REGISTRY_HTTP_ADDR", "0.0.0.0:5010")], "addr = \"0.0.0.0:5010\""),
        (&[("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY", "/srv/registry")], "root = \"/srv/registry\""),
        (&[("REGISTRY_LOG_LEVEL", "warn")], "level = \"warn\""),
        (&[("REGISTRY_LOG_LEVEL", "debug")], "level = \"debug\""),
        (&[("REGISTRY_LOG_LEVEL", "'error'")], "level = \"error\""),
        (&[("REGISTRY_LOG_FORMATTER", "json")], "format = \"json\""),
        (&[("REGISTRY_LOG_FORMATTER", "text")], "format = \"text\""),
        (&[("REGISTRY_LOG_FORMATTER", "logstash")], "format = \"json\""),
        (&[("REGISTRY_STORAGE", "filesystem")], "root = \"/var/lib/registry\""),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (variables, line) in table {
        let ended = run(folder.path(), &["check"], variables).await;
        assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{variables:?}");
        assert!(
            ended.out.starts_with("ok: read no file and the environment\n"),
            "{variables:?}: {}",
            ended.out
        );
        assert!(
            ended.out.lines().any(|one| one.trim_start_matches("# ") == line),
            "{variables:?}: {line}: {}",
            ended.out
        );
        assert!(
            !ended.out.contains("\"pw\"") && !ended.out.contains("warning"),
            "{variables:?}: {}",
            ended.out
        );
    }
}

/// The command of the issue, as registry:2's users have it in a unit file or a compose file.
#[tokio::test]
async fn the_environment_of_registry2_runs_the_mirror() {
    let hub = Hub::start(Options::default()).await;
    hub.add_account("ann", "s3cr3t-Pa55word");
    let image = images::busybox(&hub, REPOSITORY, "3.20", images::Format::OciSingle);
    hub.make_private_to(REPOSITORY, "ann");
    let folder = tempfile::tempdir().unwrap();
    let (root, url) = (folder.path().join("volume"), hub.registry_url());
    let env = [
        ("REGISTRY_PROXY_REMOTEURL", url.as_str()),
        ("REGISTRY_PROXY_USERNAME", "ann"),
        ("REGISTRY_PROXY_PASSWORD", "s3cr3t-Pa55word"),
        ("REGISTRY_PROXY_TTL", "168h"),
        ("REGISTRY_HTTP_ADDR", "127.0.0.1:0"),
        ("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY", root.to_str().unwrap()),
        ("REGISTRY_LOG_LEVEL", "info"),
        ("REGISTRY_LOG_FORMATTER", "text"),
        ("REGISTRY_STORAGE_DELETE_ENABLED", "true"),
        ("REGISTRY_PORT", "tcp://10.0.0.1:5000"),
        ("REGISTRY_HTTP_ADRESS", "x"),
        ("STOPOVER_ADMIN__ADDR", "127.0.0.1:0"),
    ];
    let serving = Serving::start(folder.path(), &env);
    let line = serving.until_said("msg=listening").await;
    let address = line.split("address=").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    let reply = get(&format!("http://{address}{}", manifest_path("alpine", "3.20")), &[]).await;
    assert_eq!((reply.status, reply.digest()), (200, image.manifest));
    assert!(
        root.join("docker/registry/v2/repositories/library/alpine/_manifests/tags/3.20/current/link")
            .exists()
    );
    serving.until_said("msg=\"response completed\"").await;
    let said = serving.said();
    for (name, times) in
        [("REGISTRY_STORAGE_DELETE_ENABLED", 0), ("REGISTRY_PORT", 0), ("REGISTRY_HTTP_ADRESS", 1)]
    {
        let warned = said.lines().filter(|line| line.contains("level=warn") && line.contains(name)).count();
        assert_eq!(warned, times, "{name}: {said}");
    }
    assert!(!said.contains("s3cr3t"), "{said}");
}

/// A level leaves out what is less important, and the lines of requests are such.
#[tokio::test]
async fn the_log_level_of_registry2_is_kept() {
    let hub = Hub::start(Options::default()).await;
    let folder = tempfile::tempdir().unwrap();
    let (root, url) = (folder.path().join("volume"), hub.registry_url());
    // The port must be known, since a mirror that only warns does not say where it listens.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let env = [
        ("REGISTRY_PROXY_REMOTEURL", url.as_str()),
        ("REGISTRY_HTTP_ADDR", address.as_str()),
        ("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY", root.to_str().unwrap()),
        ("REGISTRY_LOG_LEVEL", "warn"),
        ("REGISTRY_LOG_FORMATTER", "json"),
        ("REGISTRY_UNKNOWN", "x"),
        ("STOPOVER_ADMIN__ADDR", "off"),
    ];
    let serving = Serving::start(folder.path(), &env);
    let line = serving.until_said("REGISTRY_UNKNOWN").await;
    assert_eq!(serde_json::from_str::<serde_json::Value>(&line).unwrap()["level"], "warn");
    crate::rig::eventually("it listens", async || {
        crate::support::send("GET", &format!("http://{address}/v2/"), &[]).await.ok()
    })
    .await;
    assert!(!serving.said().contains("response completed"), "{}", serving.said());
}

/// `stopover check` names each mistake with its place and what was expected, and so does `serve`, which starts nothing.
#[tokio::test]
async fn each_mistake_is_named_with_its_place_and_what_was_expected() {
    let folder = tempfile::tempdir().unwrap();
    let text =
        "[cache]\ntag_tll = \"5m\"\nabsent_ttl = 7\n\n[htp]\naddr = \":1\"\n\n[upstream]\npassword = 5\n";
    fs::write(folder.path().join("stopover.toml"), text).unwrap();
    let env = [("STOPOVER_HTTP__ADR", ":1"), ("STOPOVER_HTTP__DRAIN_TIMEOUT", "soon")];
    for arguments in [vec!["check"], vec!["serve"], vec!["check", "--config", "stopover.toml"]] {
        let ended = run(folder.path(), &arguments, &env).await;
        assert_eq!((ended.code, ended.out.as_str()), (Some(1), ""), "{arguments:?}");
        for expected in [
            "stopover.toml:2:1: unknown key cache.tag_tll; did you mean cache.tag_ttl?",
            "stopover.toml:3:14: cache.absent_ttl: found 7, expected a duration",
            "stopover.toml:5:2: unknown section [htp]; did you mean [http]?",
            "stopover.toml:9:12: upstream.password: found ",
            "STOPOVER_HTTP__ADR: unknown variable; did you mean STOPOVER_HTTP__ADDR?",
            "STOPOVER_HTTP__DRAIN_TIMEOUT: http.drain_timeout: found \"soon\", expected a duration",
            "stopover: 6 mistakes in the configuration",
        ] {
            assert!(ended.err.contains(expected), "{arguments:?}: {expected}: {}", ended.err);
        }
    }
    assert!(!folder.path().join("docker").exists(), "nothing is started");
}

/// Accounts, ways out and mirrors have tables, which variables reach too, and passwords in them are nowhere shown.
#[tokio::test]
async fn the_tables_of_accounts_ways_out_and_mirrors_are_read_checked_and_shown() {
    let folder = tempfile::tempdir().unwrap();
    let text = "[egresses.office]\nproxy = \"http://ann:hunter2@127.0.0.1:9\"\n\
                [upstream.accounts.ann]\nusername = \"ann\"\nrepositories = [\"acme\"]\n";
    fs::write(folder.path().join("stopover.toml"), text).unwrap();
    let env = [
        ("STOPOVER_UPSTREAM__ACCOUNTS__ANN__PASSWORD", "hunter2"),
        ("STOPOVER_UPSTREAM__MIRRORS__GCR__URL", "https://mirror.gcr.io"),
        ("STOPOVER_UPSTREAMS__GHCR_IO__ACCOUNTS__BOT__IDENTITY_TOKEN", "hunter2"),
    ];
    let right = run(folder.path(), &["check"], &env).await;
    assert_eq!(right.code, Some(0), "{}", right.err);
    for there in [
        "\negresses = [\"office\"]\n",
        "\n[upstream.accounts.ann]\nusername = \"ann\"\npassword = \"***\"\nrepositories = [\"acme\"]\n",
        "\n[upstream.mirrors.gcr]\nurl = \"https://mirror.gcr.io\"\nwhen = \"low\"\n",
        "\n[egresses.office]\nproxy = \"http://***@127.0.0.1:9\"\n",
        "\n[upstreams.\"ghcr.io\".accounts.bot]\nidentity_token = \"***\"\n",
    ] {
        assert!(right.out.contains(there), "{there}: {}", right.out);
    }
    let wrong = run(folder.path(), &["serve"], &[("STOPOVER_UPSTREAM__EGRESSES", "offcie,default")]).await;
    assert_eq!(wrong.code, Some(1), "{}", wrong.err);
    let expected = "stopover.toml:4:12: upstream.accounts.ann.username: expected password or password_file to be set too";
    assert!(wrong.err.contains(expected), "{}", wrong.err);
    for said in [right.out, right.err, wrong.out, wrong.err] {
        assert!(!said.contains("hunter2"), "{said}");
    }
}

/// What else can be wrong: half an account, a file that is not there, a URL that is none.
#[tokio::test]
async fn what_makes_no_sense_together_is_a_mistake_too() {
    let folder = tempfile::tempdir().unwrap();
    type Row<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], &'a str);
    let table: [Row<'_>; 6] = [
        (
            &["check"],
            &[("REGISTRY_PROXY_USERNAME", "ann")],
            "REGISTRY_PROXY_USERNAME: upstream.username is set and",
        ),
        (
            &["check"],
            &[("REGISTRY_PROXY_PASSWORD", "x")],
            "REGISTRY_PROXY_PASSWORD: upstream.password is set and",
        ),
        (
            &["check"],
            &[("REGISTRY_PROXY_REMOTEURL", "ftp://x")],
            "REGISTRY_PROXY_REMOTEURL: upstream.url: found",
        ),
        (&["check"], &[("REGISTRY_STORAGE", "s3")], "REGISTRY_STORAGE: storage.s3: not supported"),
        (&["check", "--config", "none.toml"], &[], "none.toml: cannot be read"),
        (&["check"], &[("STOPOVER_CONFIG", "none.toml")], "none.toml: cannot be read"),
    ];
    for (arguments, env, expected) in table {
        let ended = run(folder.path(), arguments, env).await;
        assert_eq!(ended.code, Some(1), "{expected}");
        assert!(ended.err.contains(expected), "{expected}: {}", ended.err);
    }
    assert_eq!(
        run(folder.path(), &["sreve"], &[]).await.code,
        Some(2),
        "a wrong command line is another code"
    );
}

/// Later over earlier: the defaults, the file, registry:2's variables, ours.
#[tokio::test]
async fn a_variable_of_ours_wins_over_registry2s_and_that_over_the_file() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("stopover.toml"), "[log]\nlevel = \"error\"\n[storage]\nttl = \"1d\"\n")
        .unwrap();
    let all =
        [("STOPOVER_LOG__LEVEL", "debug"), ("REGISTRY_LOG_LEVEL", "warn"), ("REGISTRY_PROXY_TTL", "2h")];
    for (from, level, ttl) in [(0, "debug", "2h"), (1, "warn", "2h"), (2, "error", "2h"), (3, "error", "1d")]
    {
        let ended = run(folder.path(), &["check"], &all[from..]).await;
        assert_eq!(ended.code, Some(0), "{}", ended.err);
        assert!(ended.out.starts_with("ok: read stopover.toml and the environment"), "{}", ended.out);
        for line in [format!("level = \"{level}\""), format!("ttl = \"{ttl}\"")] {
            assert!(ended.out.lines().any(|one| one == line), "{from}: {line}: {}", ended.out);
        }
    }
}
