//! Pulls of what not everybody may see: with an account, without, with a wrong one.

use futures_util::future::join_all;
use hubsim::{Auth, Hub, Options, images};

use crate::{
    rig::eventually,
    support::{Mirror, MirrorOptions, blob_path, manifest_path},
};

const REPOSITORY: &str = "ann/private";

async fn private_hub() -> (Hub, images::Image) {
    let hub = Hub::start(Options::default()).await;
    hub.add_account("ann", "pass word:%");
    let image = images::busybox(&hub, REPOSITORY, "1", images::Format::DockerList);
    hub.make_private_to(REPOSITORY, "ann");
    (hub, image)
}

/// P8, statement 84: the account's repositories are there with the account and nowhere without.
#[tokio::test]
async fn a_private_repository_is_pulled_with_the_account_and_refused_without() {
    let (hub, image) = private_hub().await;
    let path = manifest_path(REPOSITORY, "1");
    let mirror = Mirror::start_with(&hub, MirrorOptions::default().account("ann", "pass word:%")).await;
    for digest in [image.manifest, image.platform] {
        assert_eq!(mirror.get(&manifest_path(REPOSITORY, digest)).await.digest(), digest);
    }
    assert_eq!(mirror.get(&path).await.digest(), image.manifest);
    for blob in image.blobs() {
        assert_eq!(mirror.get(&blob_path(REPOSITORY, blob)).await.digest(), *blob);
    }

    let anonymous = Mirror::start(&hub).await;
    for path in [path, blob_path(REPOSITORY, image.config), format!("/v2/{REPOSITORY}/tags/list")] {
        let reply = anonymous.get(&path).await;
        assert_eq!((reply.status, reply.error_code().as_str()), (401, "UNAUTHORIZED"), "{path}");
        assert_eq!(
            reply.header("www-authenticate"),
            "",
            "statement 16: a client's login would go to the mirror"
        );
        assert_eq!(anonymous.head(&path).await.status, 401, "{path}");
    }
}

/// Statement 74: a wrong password is the registry's refusal, and a login is not tried with each request.
#[tokio::test]
async fn a_wrong_password_is_a_refusal_and_not_tried_again_with_each_request() {
    let (hub, _) = private_hub().await;
    let mirror = Mirror::start_with(&hub, MirrorOptions::default().account("ann", "wrong")).await;
    for tag in 0..10 {
        let reply = mirror.get(&manifest_path(REPOSITORY, format!("1.{tag}"))).await;
        assert_eq!((reply.status, reply.error_code().as_str()), (401, "UNAUTHORIZED"));
    }
    let tried = hub.counters().token;
    assert!(tried <= 3, "{tried} logins with a wrong password: Hub locks such an account");
}

/// Statements 67 and 74: ghcr.io's token service refuses by itself, and so for seconds only is believed.
#[tokio::test]
async fn a_token_service_that_refuses_is_a_refusal_that_is_soon_forgotten() {
    join_all([(401, "UNAUTHORIZED"), (403, "DENIED")].map(|(status, code)| async move {
        let (hub, image) = private_hub().await;
        hub.configure(|options| options.token.refuses_with = Some(status));
        let mirror = Mirror::start(&hub).await;
        let path = manifest_path(REPOSITORY, "1");
        for _ in 0..5 {
            let reply = mirror.get(&path).await;
            assert_eq!((reply.status, reply.error_code().as_str()), (status, code));
        }
        let asked = hub.counters().token;
        assert!(asked <= 2, "{asked} tokens asked for, and each refused");

        hub.make_public(REPOSITORY);
        let reply = eventually("the refusal is forgotten", async || {
            let reply = mirror.get(&path).await;
            (reply.status == 200).then_some(reply)
        });
        assert_eq!(reply.await.digest(), image.manifest);
    }))
    .await;
}

/// Private ECR and many others know no tokens.
#[tokio::test]
async fn a_registry_that_wants_the_account_itself_gets_it_and_its_cdn_does_not() {
    let (hub, image) = private_hub().await;
    hub.configure(|options| options.auth = Auth::Basic);
    let mirror = Mirror::start_with(&hub, MirrorOptions::default().account("ann", "pass word:%")).await;
    assert_eq!(mirror.get(&manifest_path(REPOSITORY, "1")).await.digest(), image.manifest);
    assert_eq!(mirror.get(&blob_path(REPOSITORY, image.config)).await.digest(), image.config);
    let counters = hub.counters();
    assert_eq!((counters.token, counters.refused_cdn_auth), (0, 0));
    assert_eq!(counters.authorized_at("cdn").count(), 0);

    let anonymous = Mirror::start(&hub).await;
    assert_eq!(anonymous.get(&manifest_path(REPOSITORY, "1")).await.status, 401);
}

/// mcr.microsoft.com asks nobody who they are.
#[tokio::test]
async fn a_registry_that_asks_nobody_is_told_nothing() {
    let (hub, _) = private_hub().await;
    hub.configure(|options| options.auth = Auth::Open);
    let image = images::busybox(&hub, "library/open", "1", images::Format::OciSingle);
    let mirror = Mirror::start_with(&hub, MirrorOptions::default().account("ann", "pass word:%")).await;
    assert_eq!(mirror.get(&manifest_path("library/open", "1")).await.digest(), image.manifest);
    let counters = hub.counters();
    assert!(counters.requests.iter().all(|seen| seen.authorization.is_none()), "{counters:#?}");
}
