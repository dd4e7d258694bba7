//! Every way to prove an account: what arrives where it should, and only there.

use std::fs;

use base64::{Engine, engine::general_purpose::STANDARD};
use hubsim::{Auth, Options};

use super::*;
use crate::{
    config::{Account, Credential},
    source::LaneState,
};

const TOKEN: &str = "identity-t0ken";

fn account(credential: Credential) -> Account {
    Account { name: "ann".to_owned(), credential, repositories: Vec::new() }
}

async fn private(auth: Auth, credential: Credential) -> Bench {
    let options = Options { auth, ..Options::default() };
    let alone = |options: &mut config::Upstream| {
        options.accounts.push(account(credential));
        options.anonymous = false;
    };
    let bench = Bench::with(options, alone).await;
    bench.hub.add_account("ann", "hunter2");
    bench.hub.add_identity_token("ann", TOKEN);
    bench.hub.make_private_to(REPOSITORY, "ann");
    bench
}

fn file(folder: &tempfile::TempDir, text: &str) -> std::path::PathBuf {
    let path = folder.path().join("secret");
    fs::write(&path, text).expect("the folder is writable");
    path
}

#[tokio::test]
async fn every_kind_of_account_opens_a_private_repository() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let entry = |entry: &str| {
        let folder = tempfile::tempdir().expect("a folder can be made");
        // Kept: the account reads it when it is needed.
        let path = folder.keep().join("config.json");
        let text = format!(r#"{{"auths":{{"https://index.docker.io/v1/":{{{entry}}}}}}}"#);
        fs::write(&path, text).expect("the folder is writable");
        Credential::DockerConfig(path)
    };
    let pair = format!(r#""auth":"{}""#, STANDARD.encode("ann:hunter2"));
    let name = "ann".to_owned();
    let of_pair = [
        Credential::Password { username: name.clone(), password: Secret::new("hunter2") },
        Credential::PasswordFile { username: name, file: file(&folder, "hunter2\n") },
        entry(&pair),
    ];
    let identity = format!(r#""auth":"{}","identitytoken":"{TOKEN}""#, STANDARD.encode("0000:"));
    for credential in of_pair {
        for (auth, basics) in [(Auth::Bearer, 1), (Auth::Basic, 0)] {
            let bench = private(auth, credential.clone()).await;
            bench.manifest().await.expect("ann may");
            assert_eq!(bench.hub.counters().token_basic, basics, "{credential:?}");
        }
    }
    for credential in [Credential::IdentityToken(Secret::new(TOKEN)), entry(&identity)] {
        let bench = private(Auth::Bearer, credential.clone()).await;
        bench.manifest().await.expect("ann may");
        let counters = bench.hub.counters();
        assert_eq!((counters.token, counters.token_basic), (1, 0), "{credential:?}");
        let asked = counters.requests.iter().find(|seen| seen.port == "token").expect("it was asked");
        assert_eq!((asked.method.as_str(), asked.path.contains(TOKEN)), ("POST", false), "{asked:?}");
    }
}

#[tokio::test]
async fn an_identity_token_is_no_password_for_a_registry_that_wants_one() {
    let bench = private(Auth::Basic, Credential::IdentityToken(Secret::new(TOKEN))).await;
    assert_eq!(kind_of(bench.manifest().await), Some(SourceErrorKind::Unauthorized));
    assert!(bench.hub.counters().requests.iter().all(|seen| seen.authorization.is_none()));
}

#[tokio::test]
async fn an_identity_token_goes_to_no_realm_but_the_registrys_own() {
    let hostile = Hub::start(Options { token_port_apart: true, ..Options::default() }).await;
    let bench = private(Auth::Bearer, Credential::IdentityToken(Secret::new(TOKEN))).await;
    bench.hub.configure(|options| options.challenge.realm = Some(hostile.token_url()));
    assert_eq!(kind_of(bench.manifest().await), Some(SourceErrorKind::Refused));
    assert_eq!(hostile.counters().total(), 0);
}

#[tokio::test]
async fn a_password_that_changes_in_its_file_is_used_from_then_on() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let path = file(&folder, "");
    let credential = Credential::PasswordFile { username: "ann".to_owned(), file: path.clone() };
    let bench = private(Auth::Basic, credential).await;
    assert_eq!(kind_of(bench.manifest().await), Some(SourceErrorKind::Unauthorized), "it is empty");
    for (text, is_right) in
        [("wrong", false), ("hunter2", true), ("hunter2\r\n", true), ("hunter2\n\n", false)]
    {
        fs::write(&path, text).expect("the folder is writable");
        assert_eq!(bench.manifest().await.is_ok(), is_right, "{text:?}");
    }
    fs::remove_file(&path).expect("it is there");
    assert!(bench.manifest().await.is_err(), "an account whose file is gone is not used on");
}

#[tokio::test]
async fn a_registry_token_is_shown_to_the_registry_alone_and_asks_for_none() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let bench = private(Auth::Bearer, Credential::DockerConfig(file(&folder, "{}"))).await;
    fs::write(folder.path().join("secret"), r#"{"auths":{"docker.io":{"registrytoken":"of-its-own"}}}"#)
        .expect("the folder is writable");
    assert_eq!(kind_of(bench.manifest().await), Some(SourceErrorKind::Unauthorized), "the Hub knows it not");
    let counters = bench.hub.counters();
    assert_eq!(counters.token, 0);
    assert!(counters.authorized_at("registry").count() > 0);
    assert_eq!(counters.authorized_at("cdn").count(), 0);
}

/// Two accounts, the first by a file: while there is none, the other is asked as, and nobody on its lane.
#[tokio::test]
async fn an_account_without_its_file_is_left_out_until_the_file_comes() {
    for auth in [Auth::Bearer, Auth::Basic] {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let path = folder.path().join("secret");
        let ann = Credential::PasswordFile { username: "ann".to_owned(), file: path.clone() };
        let bob = Credential::Password { username: "bob".to_owned(), password: Secret::new("b0b") };
        let bench = Bench::with(Options { auth, ..Options::default() }, |options| {
            options.anonymous = false;
            options.accounts = vec![account(ann), Account { name: "bob".to_owned(), ..account(bob) }];
        })
        .await;
        bench.hub.add_account("ann", "hunter2");
        bench.hub.add_account("bob", "b0b");
        bench.hub.make_private_to(REPOSITORY, "ann");
        bench.hub.make_private_to(REPOSITORY, "bob");
        let state = || {
            let report = bench.upstream.lanes().into_iter().find(|report| report.account == "ann");
            report.map(|report| report.state)
        };
        for _ in 0..3 {
            bench.manifest().await.expect("bob may");
        }
        assert_eq!(state(), Some(LaneState::LoggedOut), "{auth:?}");
        fs::write(&path, "hunter2\n").expect("the folder is writable");
        bench.hub.set_account_quota("bob", Some(0));
        bench.manifest().await.expect("ann may by now");
        assert_eq!(state(), Some(LaneState::Open), "{auth:?}");
        fs::remove_file(&path).expect("it is there");
        bench.hub.expire_tokens();
        assert!(
            bench.manifest().await.is_err(),
            "{auth:?}: bob's quota is spent, and nobody is not asked as"
        );
    }
}

#[tokio::test]
async fn a_registry_that_wanted_basic_may_want_tokens_later() {
    let credential = Credential::Password { username: "ann".to_owned(), password: Secret::new("hunter2") };
    let bench = private(Auth::Basic, credential).await;
    bench.manifest().await.expect("ann may");
    bench.hub.configure(|options| options.auth = Auth::Bearer);
    bench.manifest().await.expect("its new challenge is heard");
    bench.hub.configure(|options| options.auth = Auth::Basic);
    bench.manifest().await.expect("and its old one");
}
