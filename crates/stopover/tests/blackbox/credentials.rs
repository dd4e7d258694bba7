//! Credentials go home only: a table of hostile registries against listeners that keep every byte they hear.

use base64::{Engine, engine::general_purpose::STANDARD};
use hubsim::{Fault, Hub, Kind, Options, Target, Times, images};

use crate::{
    rig::honey::Honey,
    support::{Mirror, MirrorOptions, blob_path, manifest_path},
};

const REPOSITORY: &str = "ann/private";
const USER: &str = "ann";
const PASSWORD: &str = "s3cr3t-Pa55word";
/// What every token of the Hub begins with.
const TOKEN_BEGIN: &str = "eyJhbGciOiJSUzI1NiJ9";

fn with_account() -> MirrorOptions {
    MirrorOptions::default().account(USER, PASSWORD).tags_never_fresh()
}

/// Starts a Hub with a private repository and an account that may read it.
async fn private_hub(options: Options) -> (Hub, images::Image) {
    let hub = Hub::start(options).await;
    hub.add_account(USER, PASSWORD);
    let image = images::busybox(&hub, REPOSITORY, "1", images::Format::OciSingle);
    hub.make_private(REPOSITORY);
    (hub, image)
}

/// What must be heard nowhere but at home, in lower case.
fn secrets() -> [String; 4] {
    let basic = STANDARD.encode(format!("{USER}:{PASSWORD}"));
    [
        PASSWORD.to_lowercase(),
        basic.to_lowercase(),
        TOKEN_BEGIN.to_lowercase(),
        "authorization: basic".to_owned(),
    ]
}

fn assert_heard_no_secret(honey: &Honey, what: &str) {
    let heard = honey.heard();
    for secret in secrets() {
        assert!(!heard.contains(&secret), "{what}: {secret:?} was told to a stranger: {heard}");
    }
}

/// Statement 65, P9: no realm but the registry's own gets the account, however it is written.
#[tokio::test]
async fn a_hostile_realm_hears_nothing() {
    let (hub, _) = private_hub(Options::default()).await;
    let honey = Honey::start().await;
    let mirror = Mirror::start_with(&hub, with_account()).await;
    let (home, trap) = (hub.authority(), honey.port());
    let realms = [
        format!("http://127.0.0.1:{trap}/token"),
        format!("HTTP://127.0.0.1:{trap}/token"),
        format!("https://127.0.0.1:{trap}/token"),
        format!("http://localhost:{trap}/token"),
        format!("http://127.0.0.1.:{trap}/token"),
        format!("http://0:{trap}/token"),
        format!("http://0.0.0.0:{trap}/token"),
        format!("http://127.1:{trap}/token"),
        format!("http://2130706433:{trap}/token"),
        format!("http://0x7f000001:{trap}/token"),
        format!("http://[::ffff:127.0.0.1]:{trap}/token"),
        format!("http://{home}@127.0.0.1:{trap}/token"),
        format!("http://{home}:x@127.0.0.1:{trap}/token"),
        format!("http://127.0.0.1:{trap}@{home}/token"),
        format!("http://127.0.0.1:{trap}#@{home}/token"),
        format!("http://127.0.0.1:{trap}?@{home}/token"),
        format!("http://127.0.0.1:{trap}/@{home}/token"),
        format!("http://127.0.0.1:{trap}\\@{home}/token"),
        format!("http://{home}.localhost:{trap}/token"),
        format!("//127.0.0.1:{trap}/token"),
        format!("127.0.0.1:{trap}/token"),
        format!("gopher://127.0.0.1:{trap}/token"),
        "file:///etc/passwd".to_owned(),
        "/token".to_owned(),
        "http://".to_owned(),
        String::new(),
    ];
    for (row, realm) in realms.iter().enumerate() {
        hub.configure(|options| options.challenge.realm = Some(realm.clone()));
        let reply = mirror.get(&manifest_path(REPOSITORY, format!("row-{row}"))).await;
        assert!((400..600).contains(&reply.status), "{realm}: {}", reply.status);
        assert_ne!(reply.status, 404, "{realm}: a refused challenge says nothing of the tag");
        reply.error_code();
        assert_heard_no_secret(&honey, realm);
    }
    assert_eq!(honey.connections(), 0, "a realm that gets no account is not asked at all: {}", honey.heard());
    assert_eq!(hub.counters().token_basic, 0);

    hub.configure(|options| options.challenge.realm = None);
    assert_eq!(
        mirror.get(&manifest_path(REPOSITORY, "1")).await.status,
        200,
        "the true realm is asked as ever"
    );
}

/// Statement 65: a challenge that asks for the account itself, over an encrypted or a plain line, from elsewhere.
#[tokio::test]
async fn whoever_a_redirect_leads_to_gets_no_credential_however_it_asks() {
    let (hub, image) = private_hub(Options::default()).await;
    let plain = Honey::start().await;
    let basic = Honey::challenging(|_| "Basic realm=\"hub\"".to_owned()).await;
    let bearer = Honey::challenging(|port| {
        format!("Bearer realm=\"http://127.0.0.1:{port}/token\",service=\"registry.docker.io\"")
    })
    .await;
    let home = format!("{}/token", hub.registry_url());
    let homeward =
        Honey::challenging(|_| format!("Bearer realm=\"{home}\",scope=\"repository:ann/private:pull\""))
            .await;
    let mirror = Mirror::start_with(&hub, with_account()).await;
    for (name, honey) in [("plain", &plain), ("basic", &basic), ("bearer", &bearer), ("homeward", &homeward)]
    {
        for kind in [Kind::Blobs, Kind::Manifests] {
            hub.clear_faults();
            let trap = format!("http://127.0.0.1:{}/v2/x", honey.port());
            hub.fault_on(Fault::RedirectTo(trap), Times::Always, Target::kind(kind));
            let path = match kind {
                Kind::Blobs => blob_path(REPOSITORY, image.config),
                _ => manifest_path(REPOSITORY, format!("{name}-elsewhere")),
            };
            let reply = mirror.get(&path).await;
            assert!(!(reply.status == 200 && reply.is_whole), "{name}: what a stranger sends is no content");
            assert!(honey.connections() > 0, "{name}: the redirect was followed");
            if name != "homeward" {
                assert_heard_no_secret(honey, name);
            }
            let heard = honey.heard();
            for secret in [PASSWORD.to_lowercase(), "authorization: basic".to_owned()] {
                assert!(!heard.contains(&secret), "{name}: {heard}");
            }
        }
    }
}

/// Statement 66, P9: the CDN of a private repository is asked without an account or a token.
#[tokio::test]
async fn the_account_and_its_tokens_stay_with_the_registry() {
    let (hub, image) = private_hub(Options { token_port_apart: false, ..Options::default() }).await;
    let mirror = Mirror::start_with(&hub, with_account()).await;
    assert_eq!(mirror.get(&manifest_path(REPOSITORY, "1")).await.digest(), image.manifest);
    for blob in image.blobs() {
        assert_eq!(mirror.get(&blob_path(REPOSITORY, blob)).await.digest(), *blob);
    }
    let counters = hub.counters();
    assert_eq!(counters.authorized_at("cdn").count(), 0);
    assert_eq!(counters.refused_cdn_auth, 0);
    let at_home: Vec<_> =
        counters.authorized_at("registry").filter_map(|seen| seen.authorization.clone()).collect();
    assert!(!at_home.is_empty() && at_home.iter().all(|scheme| scheme == "Bearer"), "{at_home:?}");
    let at_token: Vec<_> =
        counters.authorized_at("token").filter_map(|seen| seen.authorization.clone()).collect();
    assert_eq!(at_token, ["Basic"], "one token, asked for with the account");
}

/// Statement 65: a token service on another port is another place, unless the operator says that it is the registry's.
#[tokio::test]
async fn a_token_service_elsewhere_gets_the_account_only_where_the_operator_names_it() {
    let (hub, image) = private_hub(Options { token_port_apart: true, ..Options::default() }).await;
    let path = manifest_path(REPOSITORY, "1");
    let mirror = Mirror::start_with(&hub, with_account()).await;
    let reply = mirror.get(&path).await;
    assert_eq!((reply.status, reply.error_code().as_str()), (502, "UNAVAILABLE"));
    assert!(reply.text().contains("upstream.realms"), "the way out is named: {}", reply.text());
    assert_eq!(hub.counters().token, 0);

    let realm = hub.token_url().trim_start_matches("http://").trim_end_matches("/token").to_owned();
    let mirror = mirror.restart_with(|options| options.env("STOPOVER_UPSTREAM__REALMS", realm)).await;
    assert_eq!(mirror.get(&path).await.digest(), image.manifest);
    assert_eq!(hub.counters().token_basic, 1);
}

/// Promise P9: whatever happens, no secret stands in a line of the log, a metric or an answer.
#[tokio::test]
async fn no_secret_is_ever_logged_counted_or_told() {
    let (hub, image) = private_hub(Options::default()).await;
    let mirror = Mirror::start_with(&hub, with_account().env("STOPOVER_LOG__LEVEL", "debug")).await;
    let mut told = String::new();
    for blob in image.blobs() {
        assert_eq!(mirror.get(&blob_path(REPOSITORY, blob)).await.status, 200);
    }
    assert_eq!(mirror.get(&manifest_path(REPOSITORY, "1")).await.status, 200);
    let missing = images::busybox(&hub, REPOSITORY, "other", images::Format::DockerSingle);
    for (fault, of_blob) in [
        (Fault::Status(500, None), false),
        (Fault::Status(403, None), false),
        (Fault::Close, false),
        (Fault::Html200, false),
        (Fault::TokenDown, false),
        (Fault::TokenGarbage, false),
        (Fault::RedirectLoop, true),
        (Fault::RedirectTo("http://user:password-in-url@127.0.0.1:1/x?Signature=abc".to_owned()), true),
        (Fault::RedirectTo("http://127.0.0.1:1/x?Signature=abc".to_owned()), true),
        (Fault::Cdn403, true),
    ] {
        hub.expire_tokens();
        hub.fault(fault, Times::Always);
        let path =
            if of_blob { blob_path(REPOSITORY, missing.config) } else { manifest_path(REPOSITORY, "other") };
        told += &mirror.get(&path).await.text();
        told += mirror.get(&manifest_path(REPOSITORY, "1")).await.header("warning");
        hub.clear_faults();
    }
    let log: String = mirror.log_lines().iter().map(|line| format!("{line}\n")).collect();
    let metrics = mirror.metrics().await;
    assert!(log.len() > 1000 && metrics.len() > 1000 && told.len() > 100, "there is something to look at");
    let basic = STANDARD.encode(format!("{USER}:{PASSWORD}"));
    for secret in [PASSWORD, basic.as_str(), TOKEN_BEGIN, "Signature=", "password-in-url"] {
        assert!(!log.contains(secret), "{secret} stands in the log: {log}");
        assert!(!metrics.contains(secret), "{secret} stands in the metrics: {metrics}");
        assert!(!told.contains(secret), "{secret} was told to clients: {told}");
    }
}
