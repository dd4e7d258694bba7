//! Who may pull where access is controlled by an htpasswd file, as with registry:2.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::future::join_all;
use hubsim::{Hub, Options, images};

use crate::{
    rig::{assert_error, assert_retry_after, eventually, program},
    support::{Http2, Mirror, MirrorOptions, blob_path, get, manifest_path, send},
};

/// The lowest cost there is, so that tests are quick.
const COST: u32 = 4;
const REPOSITORY: &str = "library/busybox";

fn hash_of(password: &str, cost: u32) -> String {
    bcrypt::hash(password, cost).unwrap()
}

/// A file of users with these passwords.
struct UserFile {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

impl UserFile {
    fn new(users: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = Self { path: folder.path().join("htpasswd"), _folder: folder };
        file.write(users);
        file
    }

    fn write(&self, users: &[(&str, &str)]) {
        let lines = users.iter().map(|(user, password)| format!("{user}:{}\n", hash_of(password, COST)));
        fs::write(&self.path, lines.collect::<String>()).unwrap();
    }

    fn options(&self) -> MirrorOptions {
        closed_by(&self.path)
    }
}

fn closed_by(path: &Path) -> MirrorOptions {
    MirrorOptions::default()
        .env("REGISTRY_AUTH", "htpasswd")
        .env("REGISTRY_AUTH_HTPASSWD_REALM", "Registry \"Realm\"")
        .env("REGISTRY_AUTH_HTPASSWD_PATH", path.display())
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

async fn hub() -> (Hub, images::Image) {
    let hub = Hub::start(Options::default()).await;
    let image = images::busybox(&hub, REPOSITORY, "1", images::Format::OciIndex);
    (hub, image)
}

async fn status(mirror: &Mirror, path: &str, user: &str, password: &str) -> u16 {
    mirror.get_with(path, &[("authorization", &basic(user, password))]).await.status
}

#[tokio::test]
async fn nothing_of_the_pull_api_is_answered_without_a_right_password() {
    let (hub, image) = hub().await;
    let file = UserFile::new(&[("ann", "pass word:%")]);
    let mirror = Mirror::start_with(&hub, file.options()).await;
    let manifest = manifest_path(REPOSITORY, "1");
    let right = basic("ann", "pass word:%");
    let paths = [
        "/v2/".to_owned(),
        "/v2".to_owned(),
        manifest.clone(),
        format!("{manifest}?ns=docker.io"),
        format!("/v2/docker.io/{REPOSITORY}/manifests/1"),
        manifest_path(REPOSITORY, image.manifest),
        blob_path(REPOSITORY, image.config),
        format!("/v2/{REPOSITORY}/tags/list"),
        format!("/v2/{REPOSITORY}/referrers/{}", image.manifest),
        "/v2/_catalog".to_owned(),
        "/v2/x/y".to_owned(),
        "/other".to_owned(),
    ];
    let wrong =
        ["", &basic("ann", "wrong"), &basic("bob", "pass word:%"), &basic("", ""), "Basic x", "Bearer x"];
    for path in &paths {
        for header in wrong {
            let headers = [("authorization", header)];
            let headers = if header.is_empty() { &headers[1..] } else { &headers[..] };
            let reply = mirror.get_with(path, headers).await;
            assert_error(&format!("{path} {header}"), &reply, 401, "UNAUTHORIZED");
            assert_eq!(reply.header("www-authenticate"), r#"Basic realm="Registry \"Realm\"""#, "{path}");
        }
        assert_eq!(mirror.head(path).await.status, 401, "{path}");
        assert_ne!(mirror.get_with(path, &[("authorization", &right)]).await.status, 401, "{path}");
    }
    assert_eq!(mirror.get("/").await.status, 200, "probes ask for it, as with registry:2");
    let http2 = Http2::connect(mirror.address()).await;
    assert_eq!(http2.open("GET", &manifest, &[]).await.status, 401);
    assert_eq!(http2.open("GET", &manifest, &[("authorization", &right)]).await.status, 200);
    assert_eq!(
        send("POST", &format!("{}/v2/x/blobs/uploads/", mirror.url()), &[]).await.unwrap().status,
        401
    );
    assert!(mirror.metric("stopover_access_refusals_total", &["reason=\"anonymous\""]).await >= 12.0);
    assert!(mirror.metric("stopover_access_refusals_total", &["reason=\"wrong\""]).await >= 60.0);
}

#[tokio::test]
async fn a_clients_password_is_neither_handed_on_nor_logged_and_its_user_is() {
    let (hub, image) = hub().await;
    let file = UserFile::new(&[("ann", "hunter2-right")]);
    let mirror = Mirror::start_with(&hub, file.options()).await;
    for path in [manifest_path(REPOSITORY, "1"), blob_path(REPOSITORY, image.layers[0])] {
        assert_eq!(status(&mirror, &path, "ann", "hunter2-right").await, 200, "{path}");
    }
    assert_eq!(status(&mirror, "/v2/", "hunter2-as-user", "hunter2-wrong").await, 401);
    mirror.until_line("the refusal is logged", |line| line["status"] == 401).await;
    let lines = mirror.log_lines();
    let served: Vec<_> = lines.iter().filter(|line| line["status"] == 200).collect();
    assert!(served.len() >= 2 && served.iter().all(|line| line["user"] == "ann"), "{lines:#?}");
    let said = lines.iter().map(ToString::to_string).collect::<String>();
    let encoded = basic("ann", "hunter2-right");
    assert!(!said.contains("hunter2") && !said.contains(&encoded[6..]), "{said}");
    let asked = hub.counters().requests;
    assert!(asked.iter().all(|seen| seen.authorization.as_deref() != Some("Basic")), "{asked:#?}");
}

#[tokio::test]
async fn a_change_of_the_file_is_noticed_and_what_was_remembered_goes_with_it() {
    let (hub, _) = hub().await;
    let file = UserFile::new(&[("ann", "one")]);
    let mirror = Mirror::start_with(&hub, file.options()).await;
    assert_eq!(status(&mirror, "/v2/", "ann", "one").await, 200);
    assert_eq!(status(&mirror, "/v2/", "bob", "two").await, 401);

    file.write(&[("bob", "two")]);
    eventually("the new user is let in", async || {
        (status(&mirror, "/v2/", "bob", "two").await == 200).then_some(())
    })
    .await;
    assert_eq!(status(&mirror, "/v2/", "ann", "one").await, 401);

    // Kubernetes puts another file in the place of the former.
    let beside = file.path.with_extension("new");
    fs::write(&beside, format!("ann:{}", hash_of("three", COST))).unwrap();
    fs::rename(&beside, &file.path).unwrap();
    eventually("the exchange is noticed", async || {
        (status(&mirror, "/v2/", "ann", "three").await == 200).then_some(())
    })
    .await;

    fs::write(&file.path, "no user").unwrap();
    mirror
        .until_line("the mistake is named", |line| {
            line["error"].as_str().is_some_and(|error| error.contains("htpasswd:1: "))
        })
        .await;
    assert_eq!(status(&mirror, "/v2/", "ann", "three").await, 200, "the users that it had last are let in");
    fs::remove_file(&file.path).unwrap();
    mirror
        .until_line("its absence is named", |line| {
            line["error"].as_str().is_some_and(|error| error.contains("No such file"))
        })
        .await;
}

#[tokio::test]
async fn a_missing_file_is_made_with_a_user_whose_password_is_logged_once() {
    let (hub, _) = hub().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("auth/htpasswd");
    let mirror = Mirror::start_with(&hub, closed_by(&path)).await;
    let line = mirror.until_line("the password is shown", |line| line["password"].is_string()).await;
    assert_eq!((line["level"].as_str(), line["user"].as_str()), (Some("warn"), Some("docker")));
    let password = line["password"].as_str().unwrap().to_owned();
    assert_eq!(password.len(), 43);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(status(&mirror, "/v2/", "docker", &password).await, 200);
    let mirror = mirror.restart().await;
    assert_eq!(status(&mirror, "/v2/", "docker", &password).await, 200);
    assert!(mirror.log_lines().iter().all(|line| line["password"].is_null()), "it is shown once");
}

#[tokio::test]
async fn hashes_of_other_kinds_are_named_and_let_nobody_in() {
    let (hub, _) = hub().await;
    let file = UserFile::new(&[("ann", "one")]);
    let more = "bob:$apr1$x$y\ncarl:{SHA}MIGK\ndora:plain\n";
    fs::write(&file.path, fs::read_to_string(&file.path).unwrap() + more).unwrap();
    let mirror = Mirror::start_with(&hub, file.options()).await;
    assert_eq!(status(&mirror, "/v2/", "ann", "one").await, 200);
    assert_eq!(status(&mirror, "/v2/", "dora", "plain").await, 401);
    for line in 2..=4 {
        let place = format!("htpasswd:{line}: this user cannot log in");
        mirror.until_line(&place, |line| line["msg"].as_str().is_some_and(|msg| msg.contains(&place))).await;
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_used_starts_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("htpasswd");
    fs::write(&path, "ann:x\nhunter2").unwrap();
    let path_text = path.display().to_string();
    let root = folder.path().display().to_string();
    for (value, want) in [
        (path_text.as_str(), "htpasswd:2: expected user:hash, as `htpasswd -B` writes it"),
        (root.as_str(), "Is a directory"),
        ("/dev/null/htpasswd", "Not a directory"),
    ] {
        let env = [
            ("REGISTRY_AUTH_HTPASSWD_PATH", value),
            ("STOPOVER_STORAGE__ROOT", root.as_str()),
            ("STOPOVER_HTTP__ADDR", "127.0.0.1:0"),
            ("STOPOVER_ADMIN__ADDR", "off"),
        ];
        let ended = program::run(folder.path(), &["serve"], &env).await;
        assert_eq!(ended.code, Some(1), "{value}");
        assert!(ended.err.contains("access.htpasswd: ") && ended.err.contains(want), "{}", ended.err);
        assert!(!ended.err.contains("hunter2"), "{}", ended.err);
    }
}

/// A hundred nodes with one account are one verification.
#[tokio::test]
async fn a_password_is_verified_once_for_all_who_bring_it() {
    let (hub, _) = hub().await;
    let file = UserFile::new(&[("ann", "one")]);
    let mirror = Mirror::start_with(&hub, file.options()).await;
    for (user, code) in [("ann", 200), ("nobody", 401)] {
        let all = (0..100).map(|_| status(&mirror, "/v2/", user, "one"));
        assert!(join_all(all).await.into_iter().all(|status| status == code), "{user}");
    }
    assert_eq!(mirror.metric("stopover_access_verifications_total", &[]).await, 2.0);
}

#[tokio::test]
async fn a_flood_of_wrong_passwords_does_not_slow_those_that_are_remembered() {
    let (hub, _) = hub().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("htpasswd");
    // Each wrong password takes as long as the dearest hash in the file.
    fs::write(
        &path,
        format!("ann:{}\nbob:{}\n", hash_of("one", COST), hash_of("x", 4).replace("$04$", "$13$")),
    )
    .unwrap();
    let mirror = Mirror::start_with(&hub, closed_by(&path)).await;
    assert_eq!(status(&mirror, "/v2/", "ann", "one").await, 200);

    let (url, mut flood) = (mirror.url(), tokio::task::JoinSet::new());
    for n in 0..100 {
        let url = format!("{url}/v2/");
        flood.spawn(async move { get(&url, &[("authorization", &basic("eve", &n.to_string()))]).await });
    }
    let mut busy = 0;
    while busy < 30 {
        let reply = flood.join_next().await.unwrap().unwrap();
        if reply.status == 503 {
            assert_error("a flood", &reply, 503, "UNAVAILABLE");
            assert_retry_after("a flood", &reply, 5);
            busy += 1;
        } else {
            assert_eq!(reply.status, 401);
        }
    }
    for _ in 0..100 {
        assert_eq!(status(&mirror, "/v2/", "ann", "one").await, 200);
    }
    assert!(flood.len() > 10, "the flood was over before it could do any harm: {}", flood.len());
}
