//! Which login of a file is for a registry, as tables; and what a broken file says.

use std::{fs, os::unix::fs::PermissionsExt};

use super::*;
use crate::upstream::account::basic;

fn encoded(pair: &str) -> String {
    STANDARD.encode(pair)
}

fn name(text: &str) -> RepositoryName {
    text.parse().expect("a name")
}

/// Returns in a word what a file has for a repository of `quay.io`, or of Docker Hub where it has two parts of names.
fn found(file: &str, server: &Server, repository: &str) -> String {
    let logins = Logins::parse(file.as_bytes()).expect(file);
    match logins.of(server, Some(&name(repository))) {
        Login::Program(name) => format!("program {name}"),
        Login::None => "none".to_owned(),
        Login::Entry(entry) => match entry.proof() {
            Ok(Some(Proof::Basic(header))) => {
                let header = header.to_str().expect("it is text").trim_start_matches("Basic ").to_owned();
                String::from_utf8(STANDARD.decode(header).expect("base64")).expect("text")
            }
            Ok(Some(Proof::IdentityToken(token))) => format!("identity {}", token.expose()),
            Ok(None) => {
                let header = entry.registry_token().expect("the entry has one");
                format!("registry {}", header.to_str().expect("it is text"))
            }
            Err(error) => error,
        },
    }
}

fn server(key: &str, hosts: &[&str]) -> Server {
    Server { key: key.to_owned(), hosts: hosts.iter().map(|host| (*host).to_owned()).collect() }
}

fn entries(keys: &[&str]) -> String {
    let entry = |key: &&str| format!("{key:?}:{{\"auth\":\"{}\"}}", encoded(&format!("ann:{key}")));
    format!("{{\"auths\":{{{}}}}}", keys.iter().map(entry).collect::<Vec<_>>().join(","))
}

#[test]
fn a_login_is_found_by_every_form_of_its_key() {
    let quay = server("quay.io", &["quay.io"]);
    let local = server("registry.lan:5000", &["registry.lan:5000", "registry.lan"]);
    let hub =
        server("https://index.docker.io/v1/", &["index.docker.io", "docker.io", "registry-1.docker.io"]);
    for (server, keys, repository, key) in [
        (&quay, &["quay.io"][..], "acme/app", "quay.io"),
        (&quay, &["https://quay.io"], "acme/app", "https://quay.io"),
        (&quay, &["https://quay.io/v1/"], "acme/app", "https://quay.io/v1/"),
        (&quay, &["https://quay.io/v2/"], "acme/app", "https://quay.io/v2/"),
        (&quay, &["quay.io/v1/"], "acme/app", "quay.io/v1/"),
        (&quay, &["https://quay.io", "quay.io"], "acme/app", "quay.io"),
        (&quay, &["quay.io", "quay.io/acme"], "acme/app", "quay.io/acme"),
        (&quay, &["quay.io", "quay.io/acme", "quay.io/acme/app"], "acme/app", "quay.io/acme/app"),
        (&quay, &["quay.io", "quay.io/acme/app"], "acme/apps", "quay.io"),
        (&quay, &["quay.io/acme"], "acmes/app", ""),
        (&quay, &["quay.io/acme"], "other/app", ""),
        (
            &quay,
            &["quay.io:443", "xquay.io", "quay.io.evil.example", "https://quay.io@evil.example"],
            "a",
            "",
        ),
        (&quay, &["https://index.docker.io/v1/", "docker.io"], "acme/app", ""),
        (&local, &["registry.lan:5000"], "a", "registry.lan:5000"),
        (&local, &["http://registry.lan:5000"], "a", "http://registry.lan:5000"),
        (&local, &["registry.lan"], "a", "registry.lan"),
        (&local, &["registry.lan:5001"], "a", ""),
        (&hub, &["https://index.docker.io/v1/"], "library/alpine", "https://index.docker.io/v1/"),
        (&hub, &["docker.io"], "library/alpine", "docker.io"),
        (&hub, &["docker.io", "https://index.docker.io/v1/"], "a/b", "https://index.docker.io/v1/"),
        (&hub, &["index.docker.io", "docker.io/acme"], "acme/app", "docker.io/acme"),
        (&hub, &["quay.io"], "acme/app", ""),
    ] {
        let want = if key.is_empty() { "none".to_owned() } else { format!("ann:{key}") };
        assert_eq!(found(&entries(keys), server, repository), want, "{keys:?} for {repository} of {server}");
    }
}

#[test]
fn programs_come_before_logins_and_a_registrys_own_before_that_for_all() {
    let quay = server("quay.io", &["quay.io"]);
    let auths = format!(r#""auths":{{"quay.io":{{"auth":"{}"}}}}"#, encoded("ann:pw"));
    for (rest, want) in [
        ("", "ann:pw"),
        (r#","credsStore":"all""#, "program all"),
        (r#","credHelpers":{"quay.io":"own"}"#, "program own"),
        (r#","credHelpers":{"quay.io":"own"},"credsStore":"all""#, "program own"),
        (r#","credHelpers":{"quay.io":""},"credsStore":"all""#, "ann:pw"),
        (r#","credHelpers":{"gcr.io":"own"}"#, "ann:pw"),
        (r#","credHelpers":{"gcr.io":"own"},"credsStore":"""#, "ann:pw"),
        (r#","credHelpers":null,"credsStore":null,"HttpHeaders":{"X":"y"}"#, "ann:pw"),
    ] {
        assert_eq!(found(&format!("{{{auths}{rest}}}"), &quay, "acme/app"), want, "{rest}");
    }
    let emptied = r#"{"auths":{"quay.io":{},"quay.io/acme":{}},"credsStore":"all"}"#;
    assert_eq!(found(emptied, &quay, "acme/app"), "program all");
    for file in ["{}", r#"{"auths":null}"#, r#"{"auths":{}}"#, r#"{"auths":{"quay.io":{}}}"#] {
        assert_eq!(found(file, &quay, "acme/app"), "none", "{file}");
    }
}

#[test]
fn an_entry_proves_the_account_by_what_is_in_it() {
    let quay = server("quay.io", &["quay.io"]);
    let auth = |pair: &str| format!(r#""auth":"{}""#, encoded(pair));
    for (entry, want) in [
        (auth("ann:pass:word"), "ann:pass:word"),
        (auth("ann:pw\0\0"), "ann:pw"),
        (auth("<token>:t0ken"), "identity t0ken"),
        (r#""username":"ann","password":"pw""#.to_owned(), "ann:pw"),
        (format!(r#"{},"username":"bob","password":"other""#, auth("ann:pw")), "ann:pw"),
        (format!(r#"{},"identitytoken":"t0ken""#, auth("0000:")), "identity t0ken"),
        (r#""identitytoken":"t0ken""#.to_owned(), "identity t0ken"),
        (r#""registrytoken":"t0ken","identitytoken":"x""#.to_owned(), "registry Bearer t0ken"),
        (r#""registrytoken":"t0\nken""#.to_owned(), "has a `registrytoken` that fits into no header"),
        (auth("ann"), "has an `auth` that is no user:password in base64"),
        (r#""auth":"hunter2!""#.to_owned(), "has an `auth` that is no user:password in base64"),
        (auth("ann:"), "has an empty user or password"),
        (r#""username":"hunter2""#.to_owned(), "has an empty user or password"),
        (r#""username":"hun:ter2","password":"hunter2""#.to_owned(), "has a user with a colon in its name"),
    ] {
        let file = format!(r#"{{"auths":{{"quay.io":{{{entry}}}}}}}"#);
        assert_eq!(found(&file, &quay, "acme/app"), want, "{entry}");
    }
}

#[test]
fn a_broken_file_is_said_to_be_and_not_repeated() {
    for (file, line) in [
        (r#"{"auths":{"quay.io":"hunter2"}}"#, 1),
        ("{\"auths\":{\"quay.io\":\n{\"auth\":{\"hunter2\":1}}}}", 2),
        ("{\"auths\":{\"hunter2\":", 1),
        (r#""hunter2""#, 1),
        ("hunter2", 1),
        ("", 1),
        ("[auths]\nhunter2 = 1", 1),
    ] {
        let error = Logins::parse(file.as_bytes()).map(drop).expect_err(file);
        assert!(!error.contains("hunter2"), "{error}");
        assert!(
            error.starts_with("is not as docker writes its config.json: line ")
                && (error.contains(&format!("line {line},")) || file.is_empty()),
            "{file}: {error}"
        );
    }
}

#[tokio::test]
async fn only_a_program_with_dockers_prefix_is_run_and_for_dockers_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    let asked = folder.path().join("asked");
    let script = format!(
        "#!/bin/sh\nread server\necho \"$* $server\" >> {}\necho '{{\"Username\":\"ann\",\"Secret\":\"pw\"}}'\n",
        asked.display()
    );
    for program in ["evil", "docker-credential-x/evil"] {
        let path = folder.path().join(program);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let quay = server("quay.io", &["quay.io"]);
    let config = DockerConfig::new(&path, "ann".into(), quay, &Clock::default());
    let evil = folder.path().join("evil");
    for program in ["true", "evil", "x/evil", evil.to_str().unwrap(), "../../evil"] {
        fs::write(&path, format!(r#"{{"credsStore":{program:?}}}"#)).unwrap();
        assert_eq!(config.proof(None).await, None, "{program}");
    }
    assert!(!asked.exists(), "nothing was run");
}

#[tokio::test]
async fn the_file_is_read_again_when_somebody_logs_in() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    let quay = server("quay.io", &["quay.io"]);
    let config = DockerConfig::new(&path, "ann".into(), quay, &Clock::default());
    assert_eq!(config.proof(None).await, None, "there is no file yet");
    fs::write(&path, entries(&["quay.io"])).unwrap();
    assert_eq!(config.proof(None).await, Some(Proof::Basic(basic("ann", "quay.io"))));
    fs::write(&path, "{").unwrap();
    assert_eq!(config.proof(None).await, None, "what is broken is not guessed at");
    let bob = format!(r#"{{"auths":{{"quay.io":{{"auth":"{}"}}}}}}"#, encoded("bob:new"));
    fs::write(&path, bob).unwrap();
    assert_eq!(config.proof(None).await, Some(Proof::Basic(basic("bob", "new"))));
}
