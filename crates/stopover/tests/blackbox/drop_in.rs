//! In the place of registry:2 and registry:3: their files, their words and their names, on the real binary.

use std::{fs, os::unix::fs::symlink, path::PathBuf};

use hubsim::{Hub, Options, images};
use tempfile::TempDir;

use crate::{
    rig::program::{Serving, run},
    support::{get, manifest_path},
};

const REPOSITORY: &str = "library/alpine";

/// The file of registry:2's image, with another place and port, and a registry to mirror.
fn registry_2(root: &str, url: &str) -> String {
    format!(
        "version: 0.1
log:
  fields:
    service: registry
storage:
  cache:
    blobdescriptor: inmemory
  filesystem:
    rootdirectory: {root}
http:
  addr: 127.0.0.1:0
  headers:
    X-Content-Type-Options: [nosniff]
health:
  storagedriver:
    enabled: true
    interval: 10s
    threshold: 3
proxy:
  remoteurl: {url}
"
    )
}

/// The file of registry:3's image, which mirrors nothing until the environment says so.
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
    addr: 127.0.0.1:0
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

/// Returns a folder with the binary in it under the name `registry`, and that.
fn folder_with_registry() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("registry");
    symlink(env!("CARGO_BIN_EXE_stopover"), &program).unwrap();
    (folder, program)
}

/// Returns where it listens, from the line that says so.
async fn address(serving: &Serving, message: &str) -> String {
    let line = serving.until_said(&format!("msg={message} ")).await;
    line.split("address=").nth(1).and_then(|rest| rest.split(' ').next()).unwrap().to_owned()
}

#[tokio::test]
async fn the_file_of_registry_2_runs_the_mirror_as_it_ran_registry_2() {
    let hub = Hub::start(Options::default()).await;
    let image = images::busybox(&hub, REPOSITORY, "3.20", images::Format::OciSingle);
    let (folder, program) = folder_with_registry();
    let root = folder.path().join("volume");
    let file = folder.path().join("config.yml");
    fs::write(&file, registry_2(root.to_str().unwrap(), &hub.registry_url())).unwrap();

    let serving = Serving::start_as(&program, &["serve", file.to_str().unwrap()], folder.path(), &[]);
    let address = address(&serving, "listening").await;
    let url = |path: &str| format!("http://{address}{path}");
    let reply = get(&url(&manifest_path(REPOSITORY, "3.20")), &[("user-agent", "docker/28.0")]).await;
    assert_eq!((reply.status, reply.digest()), (200, image.manifest));
    assert_eq!(reply.headers.get_all("x-content-type-options").iter().count(), 1);
    assert!(root.join("docker/registry/v2/repositories/library/alpine/_manifests/tags/3.20").exists());

    let line = serving.until_out("/v2/library/alpine/manifests/3.20").await;
    assert!(line.starts_with("127.0.0.1 - - ["), "{line}");
    let sent = format!("\"GET /v2/library/alpine/manifests/3.20 HTTP/1.1\" 200 {} ", reply.body.len());
    assert!(line.contains(&sent) && line.ends_with("\"docker/28.0\""), "{line}");
    serving.until_said("msg=\"response completed\" service=registry method=GET").await;
    let said = serving.said();
    assert!(!said.contains("level=warn") && !said.contains("operator"), "{said}");
    assert!(said.contains(&format!("file={}", file.display())), "{said}");
}

#[tokio::test]
async fn the_file_of_registry_3_and_a_composes_environment_run_it_too() {
    let hub = Hub::start(Options::default()).await;
    images::busybox(&hub, REPOSITORY, "3.20", images::Format::OciSingle);
    let (folder, program) = folder_with_registry();
    let (root, url) = (folder.path().join("volume"), hub.registry_url());
    fs::write(folder.path().join("config.yml"), REGISTRY_3).unwrap();
    let env = [
        ("REGISTRY_PROXY_REMOTEURL", url.as_str()),
        ("REGISTRY_PROXY_TTL", "168h"),
        ("REGISTRY_HTTP_ADDR", "127.0.0.1:0"),
        ("REGISTRY_HTTP_HEADERS_X-Frame-Options", "[DENY]"),
        ("REGISTRY_HTTP_HEADERS_Access-Control-Allow-Origin", "['*']"),
        ("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY", root.to_str().unwrap()),
        ("REGISTRY_STORAGE_DELETE_ENABLED", "true"),
        ("REGISTRY_LOG_ACCESSLOG_DISABLED", "true"),
        ("REGISTRY_LOG_FIELDS_SERVICE", "mirror"),
        ("REGISTRY_HTTP_SECRET", "x"),
        ("OTEL_TRACES_EXPORTER", "none"),
    ];
    // The image's script lets the file stand alone.
    let serving = Serving::start_as(&program, &["config.yml"], folder.path(), &env);
    let address = address(&serving, "listening").await;
    for (path, status) in [("/v2/", 200), ("/v2/library/none/manifests/x", 401), ("/nothing", 404)] {
        let reply = get(&format!("http://{address}{path}"), &[]).await;
        assert_eq!(reply.status, status, "{path}");
        assert_eq!(
            (reply.header("x-frame-options"), reply.header("access-control-allow-origin")),
            ("DENY", "*")
        );
    }
    serving.until_said("environment=development service=mirror").await;
    let operator = serving.until_said("operator's port listens").await;
    let operator = operator.split("address=").nth(1).unwrap().split(' ').next().unwrap();
    assert_eq!(get(&format!("http://{operator}/metrics"), &[]).await.status, 200);
    assert!(!serving.said().contains("level=warn"), "{}", serving.said());
}

#[tokio::test]
async fn a_file_that_would_be_half_honoured_starts_nothing_and_is_explained_whole() {
    let (folder, _) = folder_with_registry();
    let text = "version: 0.1\nstorage:\n  s3:\n    bucket: images\nhttp:\n  addr: 127.0.0.1:0\n  draintimeout: soon\nauth:\n  \
                token:\n    realm: https://auth.example/token\n";
    fs::write(folder.path().join("config.yml"), text).unwrap();
    for arguments in [&["serve", "config.yml"][..], &["check", "config.yml"], &["config.yml"]] {
        let ended = run(folder.path(), arguments, &[]).await;
        assert_eq!((ended.code, ended.out.as_str()), (Some(1), ""), "{arguments:?}");
        for expected in [
            "config.yml: proxy.remoteurl: not set; Stopover is a pull-through cache and takes no pushes",
            "config.yml:4:5: storage.s3: not supported",
            "config.yml:7:17: http.draintimeout: found \"soon\", expected a duration",
            "config.yml:10:5: auth.token: not supported",
            "stopover: 4 mistakes in the configuration",
        ] {
            assert!(ended.err.contains(expected), "{arguments:?}: {expected}: {}", ended.err);
        }
    }
    assert!(!folder.path().join("docker").exists(), "nothing is started");
}

#[tokio::test]
async fn one_file_is_read_and_the_others_are_named() {
    let (folder, _) = folder_with_registry();
    let yaml = |level: &str| {
        format!("version: 0.1\nlog: {{level: {level}}}\nproxy: {{remoteurl: 'https://ghcr.io'}}\n")
    };
    fs::write(folder.path().join("config.yml"), yaml("warn")).unwrap();
    fs::write(folder.path().join("other.yml"), yaml("error")).unwrap();
    fs::write(folder.path().join("stopover.toml"), "log.level = \"debug\"\n").unwrap();
    let (ours, registrys) = (("STOPOVER_CONFIG", "other.yml"), ("REGISTRY_CONFIGURATION_PATH", "config.yml"));
    type Row<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], &'a str, &'a str, &'a [&'a str]);
    let table: [Row<'_>; 5] = [
        (&["check"], &[], "stopover.toml", "debug", &[]),
        (&["check"], &[registrys], "config.yml", "warn", &[]),
        (&["check"], &[ours, registrys], "other.yml", "error", &["config.yml: not read, since other.yml is"]),
        (
            &["check", "config.yml"],
            &[ours],
            "config.yml",
            "warn",
            &["other.yml: not read, since config.yml is"],
        ),
        (&["check", "--config", "config.yml"], &[], "config.yml", "warn", &[]),
    ];
    for (arguments, env, file, level, warnings) in table {
        let ended = run(folder.path(), arguments, env).await;
        assert!(
            ended.out.starts_with(&format!("ok: read {file} and the environment\n")),
            "{file}: {}",
            ended.out
        );
        assert!(ended.out.contains(&format!("level = \"{level}\"")), "{file}: {}", ended.out);
        let found: Vec<&str> = ended.out.lines().filter_map(|line| line.strip_prefix("warning: ")).collect();
        assert_eq!(found.len(), warnings.len(), "{found:?}");
        assert!(found.iter().zip(warnings).all(|(found, want)| found.starts_with(want)), "{found:?}");
    }
}

#[tokio::test]
async fn the_words_of_registry_are_known() {
    let (folder, program) = folder_with_registry();
    let said = |arguments: &'static [&'static str]| {
        let output =
            std::process::Command::new(&program).args(arguments).current_dir(folder.path()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    for version in [&["--version"][..], &["-v"]] {
        assert_eq!(
            said(version),
            (Some(0), concat!("registry stopover ", env!("CARGO_PKG_VERSION"), "\n").to_owned())
        );
    }
    for help in [&["help"][..], &["--help"], &["help", "serve"]] {
        let (code, text) = said(help);
        assert!(code == Some(0) && text.contains("serve"), "{help:?}: {text}");
    }
}
