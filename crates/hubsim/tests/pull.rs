//! The way of a pull through the Hub: challenge, token, manifest, redirect, blob; and what it counts.

#[allow(dead_code, reason = "each file of tests uses its part of the client")]
mod client;

use client::{bearer, get, get_blob, head};
use hubsim::{
    Auth, Hub, Options, Redirect, TokenNames,
    images::{self, Format},
};
use oci::{Algorithm, Digest};

const REPOSITORY: &str = "library/busybox";

async fn hub() -> (Hub, images::Image) {
    let hub = Hub::start(Options::default()).await;
    let image = images::busybox(&hub, REPOSITORY, "latest", Format::OciIndex);
    (hub, image)
}

fn manifest_url(hub: &Hub, repository: &str, reference: impl std::fmt::Display) -> String {
    format!("{}/v2/{repository}/manifests/{reference}", hub.registry_url())
}

#[tokio::test]
async fn a_pull_is_counted_to_the_byte() {
    let (hub, image) = hub().await;
    let bearer = bearer(&hub, REPOSITORY, &[]).await;
    for reference in ["latest".to_owned(), image.platform.to_string()] {
        let reply = get(&manifest_url(&hub, REPOSITORY, reference), &[("authorization", &bearer)]).await;
        assert_eq!(reply.status, 200);
        let digest = Digest::of(Algorithm::Sha256, &reply.body).to_string();
        assert_eq!(reply.header("docker-content-digest"), digest);
        assert_eq!(reply.header("etag"), format!("\"{digest}\""));
        assert_eq!(reply.header("docker-distribution-api-version"), "registry/2.0");
    }
    let mut bytes = 0;
    for digest in image.blobs() {
        let reply = get_blob(&hub, REPOSITORY, digest, None).await;
        assert_eq!(Digest::of(Algorithm::Sha256, &reply.body), *digest);
        bytes += reply.body.len() as u64;
    }
    let counters = hub.counters();
    assert_eq!((counters.manifest_get, counters.manifest_head, counters.challenged), (2, 0, 0));
    assert_eq!((counters.blob_get, counters.cdn_get, counters.token), (3, 3, 4));
    assert_eq!(image.blobs().map(|digest| counters.bytes(digest)).sum::<u64>(), bytes);
    assert_eq!(counters.of(&image.manifest).manifest_gets, 1);
    assert_eq!(counters.authorized_at("cdn").count(), 0);
    assert_eq!(counters.requests.len() as u64, counters.total());
    assert!(counters.requests.iter().all(|seen| matches!(seen.status, 200 | 307)));
    hub.reset_counters();
    assert_eq!(hub.counters().total(), 0);
}

#[tokio::test]
async fn a_challenge_is_hubs_own() {
    let (hub, _) = hub().await;
    let ping = get(&format!("{}/v2/", hub.registry_url()), &[]).await;
    let expected = format!("Bearer realm=\"{}\",service=\"registry.docker.io\"", hub.token_url());
    assert_eq!((ping.status, ping.header("www-authenticate")), (401, expected.as_str()));
    let url = manifest_url(&hub, REPOSITORY, "latest");
    let reply = get(&url, &[]).await;
    let expected = format!("{expected},scope=\"repository:{REPOSITORY}:pull\"");
    assert_eq!((reply.status, reply.header("www-authenticate")), (401, expected.as_str()));
    assert_eq!(reply.json()["errors"][0]["code"], "UNAUTHORIZED");
    assert_eq!(reply.json()["errors"][0]["detail"][0]["Name"], REPOSITORY);
    let reply = get(&url, &[("authorization", "Bearer nonsense")]).await;
    assert!(reply.header("www-authenticate").ends_with(",error=\"invalid_token\""));
    let other = bearer(&hub, "library/other", &[]).await;
    let reply = get(&url, &[("authorization", &other)]).await;
    assert!(reply.header("www-authenticate").ends_with(",error=\"insufficient_scope\""));
    let right = bearer(&hub, REPOSITORY, &[]).await;
    assert_eq!(get(&url, &[("authorization", &right)]).await.status, 200);
    hub.expire_tokens();
    assert_eq!(get(&url, &[("authorization", &right)]).await.status, 401);
    assert_eq!(hub.counters().challenged, 5);
}

#[tokio::test]
async fn challenges_and_tokens_come_in_the_forms_of_other_registries() {
    let (hub, _) = hub().await;
    let url = manifest_url(&hub, REPOSITORY, "latest");
    hub.configure(|options| {
        options.challenge.omit_service = true;
        options.challenge.omit_scope = true;
        options.challenge.realm_switch = true;
        options.token.names = TokenNames::AccessToken;
        options.token.omit_expires_in = true;
        options.token.issued_at_shift = None;
    });
    let plain = format!("Bearer realm=\"{}\"", hub.token_url());
    assert_eq!(get(&url, &[]).await.header("www-authenticate"), plain);
    let switched = get(&url, &[("authorization", "Bearer old")]).await;
    let realm = format!("{}/authn/token", hub.registry_url());
    assert!(switched.header("www-authenticate").starts_with(&format!("Bearer realm=\"{realm}\"")));
    assert_eq!(get(&realm, &[]).await.status, 401);
    let token = get(&hub.token_url(), &[]).await.json();
    let names: Vec<&String> = token.as_object().expect("the token comes in an object").keys().collect();
    assert_eq!(names, ["access_token"]);
    hub.configure(|options| options.token.refuses_with = Some(403));
    let refused = get(&format!("{}?scope=repository:no/such:pull", hub.token_url()), &[]).await;
    assert_eq!((refused.status, refused.json()["errors"][0]["code"].as_str()), (403, Some("DENIED")));
    hub.configure(|options| options.auth = Auth::Open);
    assert_eq!(get(&url, &[]).await.status, 200);
}

#[tokio::test]
async fn a_private_repository_is_for_its_accounts() {
    let (hub, _) = hub().await;
    hub.add_account("ann", "secret");
    hub.add_account("bob", "hidden");
    hub.make_private_to(REPOSITORY, "ann");
    let url = manifest_url(&hub, REPOSITORY, "latest");
    // ann:secret, bob:hidden and ann:wrong.
    for (basic, status) in [(Some("YW5uOnNlY3JldA=="), 200), (Some("Ym9iOmhpZGRlbg=="), 401), (None, 401)] {
        let basic = basic.map(|basic| format!("Basic {basic}"));
        let headers: Vec<_> = basic.iter().map(|basic| ("authorization", basic.as_str())).collect();
        let bearer = bearer(&hub, REPOSITORY, &headers).await;
        assert_eq!(get(&url, &[("authorization", &bearer)]).await.status, status);
    }
    let wrong = get(&hub.token_url(), &[("authorization", "Basic YW5uOndyb25n")]).await;
    assert_eq!(
        (wrong.status, wrong.json()["details"].as_str()),
        (401, Some("incorrect username or password"))
    );
    assert_eq!((hub.counters().token, hub.counters().token_basic), (4, 3));
    assert_eq!(hub.counters().authorized_at("registry").count(), 3);
    assert_eq!(hub.counters().authorized_at("token").count(), 3);
}

#[tokio::test]
async fn heads_are_free_and_gets_count() {
    let (hub, _) = hub().await;
    hub.set_quota(2);
    let bearer = bearer(&hub, REPOSITORY, &[]).await;
    let url = manifest_url(&hub, REPOSITORY, "latest");
    let authorized = [("authorization", bearer.as_str())];
    for remaining in ["2;w=21600", "2;w=21600"] {
        let reply = head(&url, &authorized).await;
        assert_eq!((reply.status, reply.header("ratelimit-remaining")), (200, remaining));
        assert_eq!(reply.header("ratelimit-limit"), "2;w=21600");
        assert_eq!(reply.header("docker-ratelimit-source"), "127.0.0.1");
        assert_ne!(reply.header("content-length"), "");
    }
    for (status, remaining) in [(200, "1;w=21600"), (200, "0;w=21600"), (429, "0;w=21600")] {
        let reply = get(&url, &authorized).await;
        assert_eq!((reply.status, reply.header("ratelimit-remaining")), (status, remaining));
    }
    let spent = get(&url, &authorized).await.json();
    assert_eq!(spent["errors"][0]["code"], "TOOMANYREQUESTS");
    assert_eq!(head(&url, &authorized).await.status, 200, "a HEAD is free when nothing is left");
    assert_eq!((hub.quota_used("127.0.0.1"), hub.counters().throttled), (2, 2));
    hub.reset_quota();
    assert_eq!(get(&url, &authorized).await.status, 200);
}

#[tokio::test]
async fn the_cdn_takes_its_own_signature_and_nothing_else() {
    let (hub, image) = hub().await;
    let bearer = bearer(&hub, REPOSITORY, &[]).await;
    let url = format!("{}/v2/{REPOSITORY}/blobs/{}", hub.registry_url(), image.layers[1]);
    let reply = get(&url, &[("authorization", &bearer)]).await;
    assert_eq!(reply.status, 307);
    let signed = reply.header("location").to_owned();
    assert!(signed.starts_with(&hub.cdn_url()));
    assert_eq!(get(&signed, &[]).await.status, 200);
    let refused = get(&signed, &[("authorization", &bearer)]).await;
    assert_eq!(refused.status, 400);
    assert!(String::from_utf8_lossy(&refused.body).contains("Only one auth mechanism allowed"));
    assert_eq!(get(&signed.replace("Signature=", "Signature=0"), &[]).await.status, 403);
    hub.expire_urls();
    assert_eq!(get(&signed, &[]).await.status, 403);
    let counters = hub.counters();
    assert_eq!((counters.cdn_get, counters.refused_cdn_auth, counters.refused_cdn_signature), (1, 1, 2));
    assert_eq!(head(&url, &[("authorization", &bearer)]).await.status, 200, "a HEAD is not redirected");
}

#[tokio::test]
async fn redirects_are_absolute_relative_nested_or_none() {
    let (hub, image) = hub().await;
    let layer = &image.layers[1];
    let url = format!("{}/v2/{REPOSITORY}/blobs/{layer}", hub.registry_url());
    let bearer = bearer(&hub, REPOSITORY, &[]).await;
    for (how, redirects) in
        [(Redirect::Absolute, 1), (Redirect::Relative, 1), (Redirect::Nested, 2), (Redirect::None, 0)]
    {
        hub.configure(|options| options.redirect = how);
        let mut reply = get(&url, &[("authorization", &bearer)]).await;
        let mut followed = 0;
        while (300..400).contains(&reply.status) {
            let location = reply.header("location");
            let base = if location.starts_with('/') { hub.registry_url() } else { String::new() };
            assert_eq!(base.is_empty(), how != Redirect::Relative);
            reply = get(&format!("{base}{location}"), &[]).await;
            followed += 1;
        }
        assert_eq!((reply.status, followed), (200, redirects), "{how:?}");
        assert_eq!(Digest::of(Algorithm::Sha256, &reply.body), *layer);
    }
}

#[tokio::test]
async fn blobs_belong_to_repositories_and_know_ranges() {
    let (hub, image) = hub().await;
    hub.configure(|options| options.unknown_is_404 = true);
    let layer = &image.layers[0];
    let elsewhere = get_blob(&hub, "library/other", layer, None).await;
    assert_eq!(
        (elsewhere.status, elsewhere.json()["errors"][0]["code"].as_str()),
        (404, Some("NAME_UNKNOWN"))
    );
    let other = hub.push_blob("other");
    hub.link_blob("library/other", &other);
    let elsewhere = get_blob(&hub, "library/other", layer, None).await;
    assert_eq!(
        (elsewhere.status, elsewhere.json()["errors"][0]["code"].as_str()),
        (404, Some("BLOB_UNKNOWN"))
    );
    let whole = get_blob(&hub, REPOSITORY, layer, None).await.body;
    let size = whole.len();
    for (range, expected) in
        [("bytes=0-", 0..size), ("bytes=500-1499", 500..1500), ("bytes=-7", size - 7..size)]
    {
        let part = get_blob(&hub, REPOSITORY, layer, Some(range)).await;
        assert_eq!((part.status, &part.body[..]), (206, &whole[expected.clone()]), "{range}");
        let said = format!("bytes {}-{}/{size}", expected.start, expected.end - 1);
        assert_eq!(part.header("content-range"), said);
    }
    let beyond = get_blob(&hub, REPOSITORY, layer, Some(&format!("bytes={size}-"))).await;
    assert_eq!((beyond.status, beyond.header("content-range")), (416, format!("bytes */{size}").as_str()));
}

#[tokio::test]
async fn tags_come_in_pages_and_referrers_in_an_index() {
    let (hub, image) = hub().await;
    let bearer = bearer(&hub, REPOSITORY, &[]).await;
    let authorized = [("authorization", bearer.as_str())];
    for tag in ["1.0", "2.0", "3.0"] {
        hub.tag(REPOSITORY, tag, &image.manifest);
    }
    hub.untag(REPOSITORY, "3.0");
    let url = format!("{}/v2/{REPOSITORY}/tags/list", hub.registry_url());
    let first = get(&format!("{url}?n=2"), &authorized).await;
    assert_eq!(first.json()["tags"], serde_json::json!(["1.0", "2.0"]));
    let next = format!("</v2/{REPOSITORY}/tags/list?last=2.0&n=2>; rel=\"next\"");
    assert_eq!(first.header("link"), next);
    let last = get(&format!("{url}?n=2&last=2.0"), &authorized).await;
    assert_eq!((last.json()["tags"].clone(), last.header("link")), (serde_json::json!(["latest"]), ""));
    let none = get(&format!("{url}?n=0"), &authorized).await;
    assert_eq!((none.json()["tags"].clone(), none.header("link")), (serde_json::json!([]), ""));

    let sbom = images::referrer(&hub, REPOSITORY, &image.manifest, "application/spdx+json");
    images::referrer(&hub, REPOSITORY, &image.manifest, "application/other");
    let url = format!("{}/v2/{REPOSITORY}/referrers/{}", hub.registry_url(), image.manifest);
    let all = get(&url, &authorized).await;
    assert_eq!(all.json()["manifests"].as_array().map(Vec::len), Some(2));
    let some = get(&format!("{url}?artifactType=application/spdx%2Bjson"), &authorized).await;
    assert_eq!(some.json()["manifests"][0]["digest"], sbom.to_string());
    assert_eq!(some.header("oci-filters-applied"), "artifactType");
    let unknown = format!("{}/v2/{REPOSITORY}/referrers/{}", hub.registry_url(), image.layers[0]);
    assert_eq!(get(&unknown, &authorized).await.json()["manifests"], serde_json::json!([]));
}

#[tokio::test]
async fn a_hub_that_is_down_refuses_and_comes_back_on_its_ports() {
    let (hub, image) = hub().await;
    let ping = format!("{}/v2/", hub.registry_url());
    assert_eq!(get(&ping, &[]).await.status, 401);
    hub.stop_listening().await;
    let refused = client::send(http::Method::GET, &ping, &[]).await.expect_err("nobody listens");
    assert!(refused.contains("refused"), "{refused}");
    hub.resume_listening().await;
    assert_eq!(get(&ping, &[]).await.status, 401);
    assert_eq!(get_blob(&hub, REPOSITORY, &image.config, None).await.status, 200);
}
