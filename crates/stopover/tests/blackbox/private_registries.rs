//! Registries of one's own: over TLS with a company's authority, behind a path, with a project before every name.

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use hubsim::{Auth, Hub, Options, Redirect, images};

use crate::{
    rig::{
        program,
        tls::{Clients, TlsFront},
    },
    support::{Canned, Mirror, MirrorOptions, blob_path, manifest_path},
};

const REPOSITORY: &str = "library/alpine";

/// Returns a Hub, open to all and without storage of its own, so that everything goes over the one line.
async fn hub_and_image() -> (Hub, images::Image) {
    let options = Options { auth: Auth::Open, redirect: Redirect::None, ..Options::default() };
    let hub = Hub::start(options).await;
    let image = images::busybox(&hub, REPOSITORY, "1", images::Format::OciSingle);
    (hub, image)
}

#[tokio::test]
async fn a_registry_with_a_certificate_of_a_companys_own_is_trusted_by_the_file_of_its_authority() {
    let (hub, image) = hub_and_image().await;
    let front = TlsFront::before(&hub.authority(), Clients::Any).await;
    let options =
        MirrorOptions::default().upstream(&front.url()).env("STOPOVER_UPSTREAM__CA", front.file("ca.pem"));
    let mirror = Mirror::start_with(&hub, options).await;
    assert_eq!(mirror.get(&manifest_path(REPOSITORY, "1")).await.digest(), image.manifest);
    for blob in image.blobs() {
        assert_eq!(mirror.get(&blob_path(REPOSITORY, blob)).await.digest(), *blob);
    }
}

/// The account goes over an encrypted line to a token service on the same host, as GitLab's and Harbor's have it.
#[tokio::test]
async fn a_private_repository_is_pulled_over_tls_with_an_account() {
    let (hub, image) = hub_and_image().await;
    hub.add_account("ann", "secret");
    hub.make_private(REPOSITORY);
    let front = TlsFront::before(&hub.authority(), Clients::Any).await;
    let realm = format!("{}/token", front.url());
    hub.configure(|options| {
        options.auth = Auth::Bearer;
        options.redirect = Redirect::Relative;
        options.challenge.realm = Some(realm);
    });
    let options = MirrorOptions::default()
        .upstream(&front.url())
        .account("ann", "secret")
        .env("STOPOVER_UPSTREAM__CA", front.file("ca.pem"));
    let mirror = Mirror::start_with(&hub, options).await;
    assert_eq!(mirror.get(&manifest_path(REPOSITORY, "1")).await.digest(), image.manifest);
    assert_eq!(mirror.get(&blob_path(REPOSITORY, image.config)).await.digest(), image.config);
    assert_eq!(hub.counters().token_basic, 1);
}

#[tokio::test]
async fn a_certificate_of_nobody_known_is_refused_and_the_way_out_is_named() {
    let (hub, _) = hub_and_image().await;
    let front = TlsFront::before(&hub.authority(), Clients::Any).await;
    let other = TlsFront::before(&hub.authority(), Clients::Any).await;
    let trusting_none = MirrorOptions::default().upstream(&front.url()).account("a", "b");
    let trusting_another = trusting_none.clone().env("STOPOVER_UPSTREAM__CA", other.file("ca.pem"));
    for options in [trusting_none, trusting_another] {
        let mirror = Mirror::start_with(&hub, options).await;
        let reply = mirror.get(&manifest_path(REPOSITORY, "1")).await;
        assert_eq!((reply.status, reply.error_code().as_str()), (503, "UNAVAILABLE"), "{}", reply.text());
        assert!(reply.text().contains("upstream.ca"), "{}", reply.text());
    }
    assert_eq!(hub.counters().total(), 0, "nothing was said to whoever it is");
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let (hub, _) = hub_and_image().await;
    let front = TlsFront::before(&hub.authority(), Clients::Any).await;
    let options = MirrorOptions::default()
        .upstream(&front.url_by_address())
        .env("STOPOVER_UPSTREAM__CA", front.file("ca.pem"));
    let mirror = Mirror::start_with(&hub, options).await;
    let reply = mirror.get(&manifest_path(REPOSITORY, "1")).await;
    assert_eq!(reply.status, 503, "{}", reply.text());
    assert!(reply.text().contains("not valid for name"), "{}", reply.text());
    assert_eq!(hub.counters().total(), 0);
}

#[tokio::test]
async fn a_registry_that_wants_a_certificate_sees_ours_and_nobody_gets_in_without() {
    let (hub, image) = hub_and_image().await;
    let front = TlsFront::before(&hub.authority(), Clients::WithCertificate).await;
    let without =
        MirrorOptions::default().upstream(&front.url()).env("STOPOVER_UPSTREAM__CA", front.file("ca.pem"));
    let with = without
        .clone()
        .env("STOPOVER_UPSTREAM__CLIENT_CERTIFICATE", front.file("client.pem"))
        .env("STOPOVER_UPSTREAM__CLIENT_KEY", front.file("client.key"));
    let mirror = Mirror::start_with(&hub, without).await;
    assert_eq!(mirror.get(&manifest_path(REPOSITORY, "1")).await.status, 503);
    let mirror = Mirror::start_with(&hub, with).await;
    assert_eq!(mirror.get(&manifest_path(REPOSITORY, "1")).await.digest(), image.manifest);
    assert_eq!(mirror.get(&blob_path(REPOSITORY, image.config)).await.digest(), image.config);
}

/// Our certificate says who we are, so no redirect may ask for it.
#[tokio::test]
async fn our_certificate_is_shown_to_the_registry_alone() {
    let (hub, _) = hub_and_image().await;
    let front = TlsFront::before(&hub.authority(), Clients::Any).await;
    let elsewhere = TlsFront::before(&hub.authority(), Clients::WithCertificate).await;
    // The other front trusts its own authority alone, so the mirror's certificate is of that one.
    let both = std::fs::read_to_string(front.file("ca.pem")).expect("it was written")
        + &std::fs::read_to_string(elsewhere.file("ca.pem")).expect("it was written");
    std::fs::write(front.file("both.pem"), both).expect("the folder can be written to");
    hub.configure(|options| options.hand_off = Some(format!("{}/v2", elsewhere.url())));
    let options = MirrorOptions::default()
        .upstream(&front.url())
        .env("STOPOVER_UPSTREAM__CA", front.file("both.pem"))
        .env("STOPOVER_UPSTREAM__CLIENT_CERTIFICATE", elsewhere.file("client.pem"))
        .env("STOPOVER_UPSTREAM__CLIENT_KEY", elsewhere.file("client.key"));
    let mirror = Mirror::start_with(&hub, options).await;
    let reply = mirror.get(&manifest_path(REPOSITORY, "1")).await;
    assert_eq!(reply.status, 503, "where the redirect leads wants a certificate: {}", reply.text());
    let counters = hub.counters();
    assert!(counters.requests.iter().all(|seen| seen.status == 307), "{counters:#?}");
}

#[tokio::test]
async fn a_file_that_cannot_be_used_starts_nothing_and_is_named_with_its_key() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let root = folder.path().to_str().expect("our paths are text");
    let env = [
        ("STOPOVER_UPSTREAM__CA", "/nowhere/ca.pem"),
        ("STOPOVER_STORAGE__ROOT", root),
        ("STOPOVER_HTTP__ADDR", "127.0.0.1:0"),
        ("STOPOVER_ADMIN__ADDR", "off"),
    ];
    for word in ["serve", "check"] {
        let ended = program::run(folder.path(), &[word], &env).await;
        assert_eq!(ended.code, Some(1), "{word}: {}", ended.out);
        assert!(ended.err.contains("upstream.ca: /nowhere/ca.pem: "), "{word}: {}", ended.err);
    }
}

/// Harbor has a project before every name, ECR the prefix of its pull-through rule.
#[tokio::test]
async fn a_prefix_stands_before_every_name_there_and_before_none_here() {
    let hub = Hub::start(Options::default()).await;
    let there = "hub-proxy/library/alpine";
    let image = images::busybox(&hub, there, "1", images::Format::OciSingle);
    let options = MirrorOptions::default().env("STOPOVER_UPSTREAM__REPOSITORY_PREFIX", "hub-proxy");
    let mirror = Mirror::start_with(&hub, options).await;
    for name in ["alpine", "library/alpine"] {
        assert_eq!(mirror.get(&manifest_path(name, "1")).await.digest(), image.manifest, "{name}");
        let tags = mirror.get(&format!("/v2/{name}/tags/list")).await;
        assert_eq!(tags.json()["tags"][0], "1", "{name}");
    }
    for blob in image.blobs() {
        assert_eq!(mirror.get(&blob_path("library/alpine", blob)).await.digest(), *blob);
    }
    let counters = hub.counters();
    let token = counters.requests.iter().find(|seen| seen.port == "token").expect("a token was asked for");
    assert!(token.path.contains("scope=repository:hub-proxy/library/alpine:pull"), "{}", token.path);
    let repositories = mirror.root().join("docker/registry/v2/repositories");
    assert!(repositories.join("library/alpine/_manifests").is_dir(), "the tree has the name as used here");
}

/// Artifactory and Nexus serve each repository below a path.
#[tokio::test]
async fn a_path_of_the_url_stands_before_v2() {
    let registry = Canned::start(|request| {
        let path = "/artifactory/api/docker/Hub/v2/library/alpine/tags/list";
        let (status, body) = match request.uri().path() == path {
            true => (200, r#"{"name":"library/alpine","tags":["1"]}"#),
            false => (404, "{}"),
        };
        let body = Full::new(Bytes::from_static(body.as_bytes()));
        Response::builder().status(status).body(body).expect("it is a response")
    })
    .await;
    let (hub, _) = hub_and_image().await;
    let url = format!("{}/artifactory/api/docker/Hub/", registry.url());
    let mirror = Mirror::start_with(&hub, MirrorOptions::default().upstream(&url)).await;
    let tags = mirror.get("/v2/alpine/tags/list").await;
    assert_eq!((tags.status, &tags.json()["tags"][0]), (200, &"1".into()), "{}", tags.text());
}
