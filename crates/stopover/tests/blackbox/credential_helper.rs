//! An account that a program gives, by Docker's protocol for credential helpers, as with registry:3.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use hubsim::{Auth, Hub, Options, images};

use crate::{
    rig::{assert_error, program},
    support::{Mirror, MirrorOptions, blob_path, manifest_path},
};

const REPOSITORY: &str = "ann/private";

/// A program in a folder of its own that notes what it is asked and says what it is told to.
struct Program {
    folder: tempfile::TempDir,
}

impl Program {
    fn new(says: &str) -> Self {
        let program = Self { folder: tempfile::tempdir().unwrap() };
        program.says(says);
        program
    }

    fn account(user: &str, password: &str) -> String {
        format!(r#"echo '{{"ServerURL":"x","Username":"{user}","Secret":"{password}"}}'"#)
    }

    fn says(&self, says: &str) {
        let asked = self.folder.path().join("asked").display().to_string();
        let text = format!("#!/bin/sh\nread server\necho \"$* $server\" >> {asked}\n{says}\n");
        let (path, beside) = (self.path(), self.folder.path().join("beside"));
        fs::write(&beside, text).unwrap();
        fs::set_permissions(&beside, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(beside, path).unwrap();
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("docker-credential-lab")
    }

    fn asked(&self) -> Vec<String> {
        let asked = fs::read_to_string(self.folder.path().join("asked")).unwrap_or_default();
        asked.lines().map(str::to_owned).collect()
    }

    fn options(&self) -> MirrorOptions {
        MirrorOptions::default().tags_never_fresh().env("REGISTRY_PROXY_EXEC_COMMAND", self.path().display())
    }
}

async fn private_hub(auth: Auth) -> (Hub, images::Image) {
    let hub = Hub::start(Options { auth, ..Options::default() }).await;
    hub.add_account("ann", "hunter2");
    let image = images::busybox(&hub, REPOSITORY, "1", images::Format::DockerList);
    hub.make_private_to(REPOSITORY, "ann");
    (hub, image)
}

#[tokio::test]
async fn a_private_repository_is_pulled_with_the_account_that_the_program_gives() {
    for auth in [Auth::Bearer, Auth::Basic] {
        let (hub, image) = private_hub(auth).await;
        let program = Program::new(&Program::account("ann", "hunter2"));
        let mirror = Mirror::start_with(&hub, program.options()).await;
        assert_eq!(mirror.get(&manifest_path(REPOSITORY, "1")).await.digest(), image.manifest);
        for blob in image.blobs() {
            assert_eq!(mirror.get(&blob_path(REPOSITORY, blob)).await.digest(), *blob);
        }
        // `docker login` files the account for docker.io under this.
        assert_eq!(program.asked(), ["get https://index.docker.io/v1/"], "it is run once");
        let said = mirror.log_lines().iter().map(ToString::to_string).collect::<String>();
        assert!(!said.contains("hunter2"), "{said}");
        assert_eq!(hub.counters().authorized_at("cdn").count(), 0, "an account goes home only");
    }
}

#[tokio::test]
async fn the_program_is_found_by_its_short_name_and_asked_for_the_registrys_host() {
    let (hub, image) = private_hub(Auth::Basic).await;
    let program = Program::new(&Program::account("ann", "hunter2"));
    let path = format!("{}:{}", program.folder.path().display(), std::env::var("PATH").unwrap());
    let options = MirrorOptions::default()
        .env("PATH", path)
        .env("STOPOVER_UPSTREAM__REGISTRY", "lab.example")
        .env("STOPOVER_UPSTREAM__CREDENTIAL_HELPER", "lab")
        .env("STOPOVER_UPSTREAM__CREDENTIAL_LIFETIME", "0");
    let mirror = Mirror::start_with(&hub, options).await;
    assert_eq!(mirror.get(&manifest_path(REPOSITORY, "1")).await.digest(), image.manifest);
    let asked = program.asked();
    assert!(asked.len() > 1, "a lifetime of 0 runs it for each login: {asked:?}");
    assert!(asked.iter().all(|asked| *asked == format!("get {}", hub.authority())), "{asked:?}");
}

/// Azure's helpers say so, and `docker login` without a password.
#[tokio::test]
async fn an_identity_token_of_the_program_goes_to_the_token_service_alone() {
    let (hub, image) = private_hub(Auth::Bearer).await;
    hub.add_identity_token("ann", "long-token");
    let program = Program::new(&Program::account("<token>", "long-token"));
    let mirror = Mirror::start_with(&hub, program.options()).await;
    assert_eq!(mirror.get(&manifest_path(REPOSITORY, "1")).await.digest(), image.manifest);
    let counters = hub.counters();
    assert_eq!((counters.token, counters.token_basic), (1, 0));
    hub.configure(|options| options.auth = Auth::Basic);
    let mirror = mirror.restart().await;
    let refused = mirror.get(&manifest_path(REPOSITORY, "2")).await;
    assert_error("a registry that knows no tokens", &refused, 401, "UNAUTHORIZED");
    assert!(hub.counters().requests.iter().all(|seen| seen.authorization.as_deref() != Some("Basic")));
}

#[tokio::test]
async fn where_the_program_fails_the_pull_goes_on_anonymously() {
    let (hub, _) = private_hub(Auth::Bearer).await;
    let open = images::busybox(&hub, "library/open", "1", images::Format::OciIndex);
    for (says, why) in [
        ("echo no keychain; exit 1", "exit status: 1: no keychain"),
        ("echo hunter2", "it said something else than a JSON object with Username and Secret"),
        (r#"echo '{"Username":"ann","Secret":""}'"#, "it gave an empty user or password"),
    ] {
        let program = Program::new(says);
        let mirror = Mirror::start_with(&hub, program.options()).await;
        assert_eq!(mirror.get(&manifest_path("library/open", "1")).await.digest(), open.manifest, "{says}");
        let refused = mirror.get(&manifest_path(REPOSITORY, "1")).await;
        assert_error(says, &refused, 401, "UNAUTHORIZED");
        assert!(program.asked().len() <= 2, "a failure is believed for a while");
        let line = mirror.until_line("the failure is logged", |line| line["level"] == "error").await;
        assert_eq!((line["error"].as_str(), line["goes_on"].as_str()), (Some(why), Some("anonymously")));
        let said = mirror.log_lines().iter().map(ToString::to_string).collect::<String>();
        assert!(!said.contains("hunter2"), "{said}");
    }
}

async fn refused_at_the_start(env: &[(&str, &str)], want: &str) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().display().to_string();
    let mut all = vec![
        ("STOPOVER_STORAGE__ROOT", root.as_str()),
        ("STOPOVER_HTTP__ADDR", "127.0.0.1:0"),
        ("STOPOVER_ADMIN__ADDR", "off"),
    ];
    all.extend(env);
    let ended = program::run(Path::new(&root), &["serve"], &all).await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.err.contains(want), "{}", ended.err);
}

#[tokio::test]
async fn a_program_that_is_none_or_stands_beside_an_account_starts_nothing() {
    for name in ["no-such-program", "/dev/null", "echo --flag"] {
        let want = "upstream.credential_helper: found ";
        refused_at_the_start(&[("REGISTRY_PROXY_EXEC_COMMAND", name)], want).await;
    }
    let both = [
        ("REGISTRY_PROXY_EXEC_COMMAND", "sh"),
        ("REGISTRY_PROXY_USERNAME", "ann"),
        ("REGISTRY_PROXY_PASSWORD", "x"),
    ];
    refused_at_the_start(&both, "found beside upstream.username").await;
}
