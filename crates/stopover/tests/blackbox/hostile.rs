//! A registry that steers: by realm, redirect, Link and downgrade, against every kind of account, over plain and encrypted
//! lines. Strangers keep every byte that they hear; the registry does too, so that the test can fail.
//!
//! `credentials` has the odd spellings of hosts; here each way to steer is tried with each way to prove an account.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{Arc, OnceLock},
};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use futures_util::future::join_all;
use hubsim::Hub;

use crate::{
    rig::{
        honey::Honey,
        program,
        proxy::ForwardProxy,
        tls::{Clients, TlsFront},
    },
    support::{Mirror, MirrorOptions, blob_path, manifest_path, noise},
};

const USER: &str = "ann";
const PASSWORD: &str = "s3cr3t/Pa55+word=";
const IDENTITY_TOKEN: &str = "1dentity/T0ken+of=ann";
const OTHERS: &str = "0ther+Pa55/w0rd=";
/// What the registry grants to whoever proves an account, and to anybody.
const GRANTED: &str = "gr4nted-to-the-account";
const FOR_ANYBODY: &str = "gr4nted-to-anybody";
const CLERK: &str = "clerk:pr0xy-Pa55+w0rd";

/// What must be heard at home and nowhere else: each in every form that it may travel in, in lower case.
fn forms(secret: &str) -> Vec<String> {
    let escaped: String = secret
        .bytes()
        .map(|byte| match byte.is_ascii_alphanumeric() {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect();
    let slashed = escaped.replace("%2F", "/");
    let encoded = [STANDARD_NO_PAD.encode(secret), URL_SAFE_NO_PAD.encode(secret)];
    let all = [secret.to_owned(), escaped, slashed].into_iter().chain(encoded);
    all.map(|form| form.to_lowercase()).collect()
}

/// A way to prove an account to the mirror.
struct Proved {
    name: &'static str,
    options: MirrorOptions,
    /// Whatever proves it, as pairs of a user and a password where it is one.
    secrets: Vec<String>,
    /// The form in which the token service hears it.
    arrives: String,
}

fn pair(user: &str, password: &str) -> String {
    format!("{user}:{password}")
}

fn file(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Every kind of account. `host` is the registry's.
fn every_kind(folder: &Path, host: &str) -> Vec<Proved> {
    let key = |key: &str| format!("STOPOVER_UPSTREAM__ACCOUNTS__ANN__{key}");
    let options = || MirrorOptions::default().tags_never_fresh().env("STOPOVER_LOG__LEVEL", "debug");
    let by_password = |name, options| Proved {
        name,
        options,
        secrets: vec![PASSWORD.to_owned(), pair(USER, PASSWORD)],
        arrives: format!("basic {}", STANDARD.encode(pair(USER, PASSWORD))).to_lowercase(),
    };
    let by_token = |name, options| Proved {
        name,
        options,
        secrets: vec![IDENTITY_TOKEN.to_owned(), pair("<token>", IDENTITY_TOKEN)],
        arrives: forms(IDENTITY_TOKEN)[2].clone(),
    };
    let auths = |entry: String| format!(r#"{{"auths":{{"{host}":{{{entry}}}}}}}"#);
    let config = auths(format!(r#""auth":"{}""#, STANDARD.encode(pair(USER, PASSWORD))));
    let with_token = auths(format!(r#""identitytoken":"{IDENTITY_TOKEN}""#));
    let helper = file(
        folder,
        "docker-credential-lab",
        &format!("#!/bin/sh\necho '{{\"Username\":\"{USER}\",\"Secret\":\"{PASSWORD}\"}}'\n"),
    );
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    vec![
        by_password("a password", options().account(USER, PASSWORD)),
        by_password(
            "a file with the password",
            options()
                .env(&key("USERNAME"), USER)
                .env(&key("PASSWORD_FILE"), file(folder, "password", &format!("{PASSWORD}\n"))),
        ),
        by_token("an identity token", options().env(&key("IDENTITY_TOKEN"), IDENTITY_TOKEN)),
        by_password(
            "docker's config.json",
            options().env(&key("DOCKER_CONFIG"), file(folder, "config.json", &config)),
        ),
        by_token(
            "docker's config.json with an identity token",
            options().env(&key("DOCKER_CONFIG"), file(folder, "token.json", &with_token)),
        ),
        by_password("a program", options().env(&key("CREDENTIAL_HELPER"), helper)),
    ]
}

/// Where the registry steers to.
struct Steer {
    /// The registry's own URL.
    home: String,
    /// The ports of the strangers: of one that serves anybody, of one that wants Basic, of one that wants a token.
    plain: [u16; 3],
    /// Where the same speak TLS, as `localhost`.
    tls: [u16; 3],
}

impl Steer {
    fn authority(&self) -> &str {
        self.home.split_once("//").unwrap().1
    }

    /// Realms that are none of the registry's.
    fn realms(&self) -> Vec<String> {
        let (home, plain, tls) = (self.authority(), self.plain[0], self.tls[0]);
        let host = home.split(':').next().unwrap();
        vec![
            format!("http://127.0.0.1:{plain}/token"),
            format!("http://{host}:{plain}/token"),
            format!("https://localhost:{tls}/token"),
            format!("http://{home}@127.0.0.1:{plain}/token"),
            format!("https://{home}@localhost:{tls}/token"),
            format!("http://ann:pw@127.0.0.1:{plain}/token"),
            format!("http://{host}.localhost:{plain}/token"),
            format!("https://{host}.localhost:{tls}/token"),
            format!("http://127.0.0.1:{plain}\\@{home}/token"),
        ]
    }

    /// Where redirects and links lead.
    fn places(&self) -> Vec<String> {
        let (home, [plain, basic, bearer]) = (self.authority(), self.plain);
        let [tls, tls_basic, tls_bearer] = self.tls;
        vec![
            format!("http://127.0.0.1:{plain}/v2/x"),
            format!("http://localhost:{plain}/v2/x"),
            format!("http://127.0.0.1:{basic}/v2/x"),
            format!("http://127.0.0.1:{bearer}/v2/x"),
            format!("https://localhost:{tls}/v2/x"),
            format!("//localhost:{tls}/v2/x"),
            format!("https://localhost:{tls_basic}/v2/x"),
            format!("https://localhost:{tls_bearer}/v2/x"),
            format!("https://ann:pw@localhost:{tls}/v2/x"),
            format!("http://{home}@127.0.0.1:{plain}/v2/x"),
        ]
    }

    /// Answers as the registry: what it does stands in the name of the repository.
    fn answer(&self, request: &str) -> String {
        let line = request.lines().next().unwrap_or_default();
        let target = line.split(' ').nth(1).unwrap_or_default();
        let lower = request.to_lowercase();
        if target.starts_with("/token") {
            // In the query of a GET, or in the form of a POST.
            if target.contains("token-echo") || request.contains("token-echo") {
                return echo(request);
            }
            return match numbered(request, "token-elsewhere-") {
                Some(row) => moved(307, &self.places()[row]),
                None => token(if proves(&lower) { GRANTED } else { FOR_ANYBODY }),
            };
        }
        let basic = "401 Unauthorized\r\nwww-authenticate: Basic realm=\"home\"";
        if target.contains("/wants-basic/") {
            return if lower.contains("authorization: basic") { tags("") } else { said(basic, "") };
        }
        let challenge = |realm: &str| {
            let service = "service=\"home\"";
            said(&format!("401 Unauthorized\r\nwww-authenticate: Bearer realm=\"{realm}\",{service}"), "")
        };
        if let Some(row) = numbered(target, "realm-") {
            return challenge(&self.realms()[row]);
        }
        if !lower.contains(&format!("authorization: bearer {GRANTED}")) {
            return challenge(&format!("{}/token", self.home));
        }
        if target.contains("/echo/") {
            return echo(request);
        }
        if let Some(row) = numbered(target, "moved-") {
            let status = if target.contains("manifests") { 302 } else { 307 };
            return moved(status, &self.places()[row]);
        }
        // The next page is the last, wherever it is asked for.
        match numbered(target, "linked-").filter(|_| !target.contains("last=")) {
            Some(row) if target.contains("/referrers/") => referrers(&self.places()[row]),
            Some(row) => tags(&self.places()[row]),
            None if target.contains("/referrers/") => referrers(""),
            None => tags(""),
        }
    }
}

fn proves(request: &str) -> bool {
    request.contains("authorization: basic") || request.contains("grant_type=refresh_token")
}

/// Returns the number behind a word.
fn numbered(text: &str, word: &str) -> Option<usize> {
    let digits: String = text.split_once(word)?.1.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

fn said(head: &str, body: &str) -> String {
    // Closed after each answer, as the stand-in proxy needs it.
    format!("HTTP/1.1 {head}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn token(token: &str) -> String {
    said("200 OK\r\ncontent-type: application/json", &format!("{{\"token\":\"{token}\",\"expires_in\":300}}"))
}

fn moved(status: u16, to: &str) -> String {
    said(&format!("{status} Moved\r\nlocation: {to}"), "")
}

/// Refuses, and repeats all that should be repeated to nobody.
fn echo(request: &str) -> String {
    let head =
        request.lines().find(|line| line.to_lowercase().starts_with("authorization:")).unwrap_or_default();
    let form = request.split_once("refresh_token=").map_or("", |(_, token)| token);
    let body = format!(r#"{{"errors":[{{"code":"DENIED","message":"you sent {head} {form}"}}]}}"#);
    said("403 Forbidden\r\ncontent-type: application/json", &body)
}

fn linked(next: &str) -> String {
    if next.is_empty() { String::new() } else { format!("\r\nlink: <{next}?last=b&n=1>; rel=\"next\"") }
}

fn tags(next: &str) -> String {
    let head = format!("200 OK\r\ncontent-type: application/json{}", linked(next));
    said(&head, r#"{"name":"x","tags":["a"]}"#)
}

fn referrers(next: &str) -> String {
    let head = format!("200 OK\r\ncontent-type: application/vnd.oci.image.index.v1+json{}", linked(next));
    said(&head, r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#)
}

/// The registry and the strangers, each of which keeps what it hears.
struct Lab {
    home: Honey,
    strangers: [Honey; 3],
    url: String,
    fronts: Vec<TlsFront>,
    steer: Arc<OnceLock<Steer>>,
}

impl Lab {
    async fn start(encrypted: bool) -> Self {
        let steer: Arc<OnceLock<Steer>> = Arc::default();
        let answers = Arc::clone(&steer);
        let home = Honey::telling(move |request| answers.get().expect("it is set").answer(request)).await;
        let plain = Honey::start().await;
        let basic = Honey::challenging(|_| "Basic realm=\"home\"".to_owned()).await;
        let asks = Arc::clone(&steer);
        let bearer = Honey::telling(move |_| {
            let realm = asks.get().expect("it is set").realms()[if encrypted { 2 } else { 0 }].clone();
            said(&format!("401 Unauthorized\r\nwww-authenticate: Bearer realm=\"{realm}\""), "")
        })
        .await;
        let strangers = [plain, basic, bearer];
        let before = |honey: &Honey| {
            let behind = format!("127.0.0.1:{}", honey.port());
            async move { TlsFront::before(&behind, Clients::Any).await }
        };
        let mut fronts = join_all(strangers.iter().map(before)).await;
        let port = |front: &TlsFront| front.url().rsplit(':').next().and_then(|port| port.parse().ok());
        let tls = [0, 1, 2].map(|at| port(&fronts[at]).expect("a front has a port"));
        let mut url = format!("http://127.0.0.1:{}", home.port());
        if encrypted {
            let front = before(&home).await;
            url = front.url();
            fronts.push(front);
        }
        let plain = [0, 1, 2].map(|at: usize| strangers[at].port());
        assert!(steer.set(Steer { home: url.clone(), plain, tls }).is_ok());
        Self { home, strangers, url, fronts, steer }
    }

    /// Has the mirror trust the authorities of all that speak TLS.
    fn trusted(&self, options: MirrorOptions, folder: &Path) -> MirrorOptions {
        let authorities = self.fronts.iter().map(|front| fs::read_to_string(front.file("ca.pem")).unwrap());
        let ca = file(folder, "ca.pem", &authorities.collect::<String>());
        options.upstream(&self.url).env("STOPOVER_UPSTREAM__CA", ca)
    }

    /// Returns every path that the registry steers from.
    fn paths(&self) -> Vec<String> {
        let steer = self.steer.get().expect("it is set");
        let digest = oci::Digest::of(oci::Algorithm::Sha256, &noise(1, 10));
        let mut paths: Vec<String> =
            (0..steer.realms().len()).map(|row| manifest_path(&format!("ann/realm-{row}"), "1")).collect();
        paths.push(manifest_path("ann/echo/x", "1"));
        paths.push(manifest_path("ann/token-echo", "1"));
        for row in 0..steer.places().len() {
            paths.push(manifest_path(&format!("ann/moved-{row}"), "1"));
            paths.push(blob_path(&format!("ann/moved-{row}"), digest));
            paths.push(manifest_path(&format!("ann/token-elsewhere-{row}"), "1"));
            paths.push(format!("/v2/ann/linked-{row}/tags/list"));
            paths.push(format!("/v2/ann/linked-{row}/referrers/{digest}"));
        }
        paths
    }

    fn heard_by_strangers(&self) -> String {
        self.strangers.iter().map(Honey::heard).collect()
    }
}

/// Asserts that none of the secrets stands in a text, in any form.
fn assert_holds_none(what: &str, text: &str, secrets: &[String]) {
    let text = text.to_lowercase();
    for form in secrets.iter().flat_map(|secret| forms(secret)) {
        assert!(!text.contains(&form), "{what}: {form:?} stands in {text}");
    }
}

/// Steers a mirror by every path and looks everywhere for the secrets.
async fn steer(name: &str, lab: &Lab, mirror: &Mirror, secrets: &[String]) {
    let paths = lab.paths();
    let mut replies = join_all(paths.iter().map(|path| mirror.get(path))).await;
    // The last, since it is believed for all of the registry.
    replies.push(mirror.get("/v2/ann/wants-basic/tags/list").await);
    let told: String =
        replies.iter().map(|reply| format!("{:?} {}\n", reply.headers, reply.text())).collect();
    for (which, honey) in lab.strangers.iter().enumerate() {
        assert!(honey.connections() > 0, "{name}: no redirect to stranger {which} is followed: {told}");
        if lab.url.starts_with("https:") {
            let unencrypted = format!(":{}\r\n", honey.port());
            assert!(!honey.heard().contains(&unencrypted), "{name}: it was led to a plain line");
        }
    }
    assert_holds_none(&format!("{name}, strangers"), &lab.heard_by_strangers(), secrets);
    let strangers = lab.heard_by_strangers();
    assert!(!strangers.contains(GRANTED), "{name}: the account's token went to a stranger: {strangers}");
    assert!(!strangers.contains("authorization: basic"), "{name}: {strangers}");
    assert_holds_none(&format!("{name}, answers"), &told, secrets);
    let log: String = mirror.log_lines().iter().map(|line| format!("{line}\n")).collect();
    assert_holds_none(&format!("{name}, log"), &log, secrets);
    assert!(!log.contains(GRANTED) && !told.contains(GRANTED), "{name}: the token was told");
    assert_holds_none(&format!("{name}, metrics"), &mirror.metrics().await, secrets);
}

/// Promise P9, statements 65 and 66. Whatever a registry repeats of what it was sent is repeated to nobody else.
#[tokio::test]
async fn no_way_to_steer_gets_a_secret_of_any_kind_of_account() {
    for encrypted in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        // The last parts are docker's key for Docker Hub, by which the upstream goes that has no other name.
        for kind in every_kind(folder.path(), "https://index.docker.io/v1/") {
            let name = format!("{}, {}", kind.name, if encrypted { "encrypted" } else { "plain" });
            let lab = Lab::start(encrypted).await;
            let options = lab.trusted(kind.options, folder.path());
            let checked = check(&options, folder.path(), &lab.url).await;
            let mirror = mirror(options).await;
            assert_eq!(mirror.get("/v2/ann/plain/tags/list").await.status, 200, "{name}");
            assert!(
                lab.home.heard().contains(&kind.arrives),
                "{name}: at home it is heard: {}",
                lab.home.heard()
            );
            steer(&name, &lab, &mirror, &kind.secrets).await;
            assert_holds_none(&format!("{name}, check"), &checked, &kind.secrets);
            // Basic at home gets a password, and never an identity token.
            let is_token = kind.secrets[0] == IDENTITY_TOKEN;
            assert_eq!(lab.home.heard().contains("authorization: basic"), !is_token, "{name}");
        }
    }
}

/// A proxy's own password goes to the proxy, and neither past it nor into what is told.
#[tokio::test]
async fn no_way_to_steer_gets_the_password_of_a_proxy() {
    let folder = tempfile::tempdir().unwrap();
    let lab = Lab::start(false).await;
    let proxy = ForwardProxy::start().await;
    let url = proxy.url().replace("http://", &format!("http://{CLERK}@"));
    let options = MirrorOptions::default()
        .tags_never_fresh()
        .env("STOPOVER_LOG__LEVEL", "debug")
        .account(USER, PASSWORD)
        .env("HTTP_PROXY", &url)
        .env("HTTPS_PROXY", &url);
    let options = lab.trusted(options, folder.path());
    let secrets = [CLERK.to_owned(), "pr0xy-Pa55+w0rd".to_owned()];
    let checked = check(&options, folder.path(), &lab.url).await;
    let mirror = mirror(options).await;
    let reply = mirror.get("/v2/ann/plain/tags/list").await;
    assert_eq!(reply.status, 200, "{} {}", reply.text(), lab.home.heard());
    steer("a proxy", &lab, &mirror, &secrets).await;
    assert_holds_none("a proxy, the registry", &lab.home.heard(), &secrets);
    assert_holds_none("a proxy, check", &checked, &secrets);
    let heads = proxy.heads().concat().to_lowercase();
    let own = format!("proxy-authorization: basic {}", STANDARD.encode(CLERK)).to_lowercase();
    assert!(heads.contains(&own), "the proxy hears its own: {heads}");
}

/// Statement 74: an account is for its repositories, and what proves it goes out for no other.
#[tokio::test]
async fn an_account_for_some_repositories_is_shown_for_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let lab = Lab::start(true).await;
    let others = file(folder.path(), "others", OTHERS);
    let options = MirrorOptions::default()
        .tags_never_fresh()
        .env("STOPOVER_LOG__LEVEL", "debug")
        .account(USER, PASSWORD)
        .env("STOPOVER_UPSTREAM__ACCOUNTS__BOB__USERNAME", "bob")
        .env("STOPOVER_UPSTREAM__ACCOUNTS__BOB__PASSWORD_FILE", others)
        .env("STOPOVER_UPSTREAM__ACCOUNTS__BOB__REPOSITORIES", "bob");
    let options = lab.trusted(options, folder.path());
    let secrets: Vec<String> =
        [PASSWORD, &pair(USER, PASSWORD), OTHERS, &pair("bob", OTHERS)].map(str::to_owned).to_vec();
    let checked = check(&options, folder.path(), &lab.url).await;
    assert_holds_none("two accounts, check", &checked, &secrets);
    let mirror = mirror(options).await;
    for user in [USER, "bob"] {
        assert_eq!(mirror.get(&format!("/v2/{user}/plain/tags/list")).await.status, 200, "{user}");
    }
    for path in lab.paths() {
        // What comes of it is not asked here: it is steered the same for both.
        let _answer = mirror.get(&path.replace("/v2/ann/", "/v2/bob/")).await;
    }
    steer("two accounts", &lab, &mirror, &secrets).await;
    let heard = lab.home.heard();
    let basic = |user, password| format!("basic {}", STANDARD.encode(pair(user, password))).to_lowercase();
    for (user, own, other) in [
        (USER, basic(USER, PASSWORD), basic("bob", OTHERS)),
        ("bob", basic("bob", OTHERS), basic(USER, PASSWORD)),
    ] {
        let is_of = |request: &&str| {
            request.contains(&format!("scope=repository:{user}/"))
                || request.contains(&format!("/v2/{user}/"))
        };
        let of_user: Vec<&str> = heard.split("\r\n\r\n").filter(is_of).collect();
        assert!(of_user.iter().any(|request| request.contains(&own)), "{user}: {heard}");
        assert!(of_user.iter().all(|request| !request.contains(&other)), "{user}: {heard}");
    }
}

/// Starts a mirror of the lab; the Hub that every mirror is started beside is not asked.
async fn mirror(options: MirrorOptions) -> Mirror {
    let nobody_asks = Hub::start(hubsim::Options::default()).await;
    Mirror::start_with(&nobody_asks, options).await
}

/// Returns all that `stopover check` says of the same configuration.
async fn check(options: &MirrorOptions, folder: &Path, url: &str) -> String {
    let mut env = options.variables();
    env.push(("REGISTRY_PROXY_REMOTEURL", url));
    let ended = program::run(folder, &["check"], &env).await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert!(ended.out.len() + ended.err.len() > 20, "there is something to look at");
    ended.out + &ended.err
}
