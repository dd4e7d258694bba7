//! Lists: of a repository's tags, and of what refers to a manifest.

use hubsim::{Fault, Hub, Options, Times, images};
use oci::OCI_INDEX;
use serde_json::json;

use crate::{
    rig::assert_error,
    support::{Mirror, MirrorOptions, manifest_path},
};

const REPOSITORY: &str = "library/alpine";

async fn hub_with_tags(tags: &[&str]) -> Hub {
    let hub = Hub::start(Options::default()).await;
    let image = images::busybox(&hub, REPOSITORY, tags[0], images::Format::OciSingle);
    tags.iter().for_each(|tag| hub.tag(REPOSITORY, tag, &image.manifest));
    hub
}

/// Statement 78.
#[tokio::test]
async fn tags_are_listed_page_by_page_in_their_order() {
    let hub = hub_with_tags(&["1.0", "1.1", "2.0", "latest", "x"]).await;
    let mirror = Mirror::start(&hub).await;
    let table = [
        ("", vec!["1.0", "1.1", "2.0", "latest", "x"], ""),
        ("?n=2", vec!["1.0", "1.1"], "</v2/library/alpine/tags/list?n=2&last=1.1>; rel=\"next\""),
        (
            "?n=2&last=1.1",
            vec!["2.0", "latest"],
            "</v2/library/alpine/tags/list?n=2&last=latest>; rel=\"next\"",
        ),
        ("?n=2&last=latest", vec!["x"], ""),
        ("?n=5", vec!["1.0", "1.1", "2.0", "latest", "x"], ""),
        ("?last=zzz", vec![], ""),
        ("?n=0", vec![], ""),
    ];
    for (query, tags, link) in table {
        let reply = mirror.get(&format!("/v2/{REPOSITORY}/tags/list{query}")).await;
        assert_eq!((reply.status, reply.header("content-type")), (200, "application/json"), "{query}");
        assert_eq!(reply.json(), json!({ "name": REPOSITORY, "tags": tags }), "{query}");
        assert_eq!(sorted_query(reply.header("link")), sorted_query(link), "{query}");
    }
}

/// Returns a link with the pairs of its query in order, since their order means nothing.
fn sorted_query(link: &str) -> String {
    let Some((path, rest)) = link.split_once('?') else { return link.to_owned() };
    let (query, rest) = rest.split_once('>').unwrap_or((rest, ""));
    let mut pairs: Vec<&str> = query.split('&').collect();
    pairs.sort_unstable();
    format!("{path}?{}>{rest}", pairs.join("&"))
}

/// Statement 78: whoever follows the links sees each tag once, and stays on the mirror, under the names that it used.
#[tokio::test]
async fn the_link_to_the_next_page_keeps_the_name_and_the_namespace() {
    let tags = ["1", "2", "3", "4", "5"];
    let hub = hub_with_tags(&tags).await;
    let mirror = Mirror::start(&hub).await;
    let mut path = "/v2/alpine/tags/list?n=2&ns=docker.io".to_owned();
    let mut seen = Vec::new();
    loop {
        let reply = mirror.get(&path).await;
        assert_eq!((reply.status, reply.header("oci-namespace")), (200, "docker.io"), "{path}");
        let json = reply.json();
        assert_eq!(json["name"], "alpine");
        seen.extend(json["tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap().to_owned()));
        let Some(next) = reply.header("link").strip_prefix('<').and_then(|link| link.split_once('>')) else {
            break;
        };
        assert!(next.0.starts_with("/v2/alpine/tags/list?") && next.0.contains("ns=docker.io"), "{}", next.0);
        path = next.0.to_owned();
    }
    assert_eq!(seen, tags);
}

/// Statement 78: what is no number is no page.
#[tokio::test]
async fn a_page_of_no_number_is_refused_without_asking() {
    let hub = hub_with_tags(&["1"]).await;
    let mirror = Mirror::start(&hub).await;
    for n in ["-1", "x", "1.5", ""] {
        let reply = mirror.get(&format!("/v2/{REPOSITORY}/tags/list?n={n}")).await;
        assert_error(n, &reply, 400, "PAGINATION_NUMBER_INVALID");
    }
    assert_eq!(hub.counters().total(), 0);
}

/// Statement 79.
#[tokio::test]
async fn tags_of_an_unknown_repository_are_name_unknown_and_a_known_list_outlives_the_registry() {
    let hub = hub_with_tags(&["1", "2"]).await;
    hub.configure(|options| options.unknown_is_404 = true);
    let mirror = Mirror::start_with(&hub, MirrorOptions::default().tags_never_fresh()).await;
    assert_error("unknown", &mirror.get("/v2/library/nothing/tags/list").await, 404, "NAME_UNKNOWN");
    let path = format!("/v2/{REPOSITORY}/tags/list");
    let fresh = mirror.get(&path).await;
    assert_eq!((fresh.status, fresh.header("warning")), (200, ""));
    hub.stop_listening().await;
    let stale = mirror.get(&path).await;
    assert_eq!((stale.status, stale.json()), (200, fresh.json()));
    assert!(stale.header("warning").starts_with("299 - "), "{:?}", stale.headers);
    let unknown = mirror.get("/v2/library/other/tags/list").await;
    assert_error("never asked before", &unknown, 503, "UNAVAILABLE");
}

/// Statement 79: a mirror that has just been started lists what it has.
#[tokio::test]
async fn the_tags_that_are_stored_are_listed_while_the_registry_is_down() {
    let hub = hub_with_tags(&["1", "2", "3"]).await;
    let mirror = Mirror::start(&hub).await;
    for tag in ["3", "1"] {
        assert_eq!(mirror.get(&manifest_path(REPOSITORY, tag)).await.status, 200);
    }
    hub.stop_listening().await;
    let mirror = mirror.restart().await;
    let reply = mirror.get(&format!("/v2/{REPOSITORY}/tags/list")).await;
    assert_eq!((reply.status, &reply.json()["tags"]), (200, &json!(["1", "3"])));
    assert!(reply.header("warning").starts_with("299 - "), "{:?}", reply.headers);
}

/// A list is fresh as long as a tag is, and one request at a time does for all who want it.
#[tokio::test]
async fn a_list_that_is_fresh_is_not_asked_for_again() {
    let hub = hub_with_tags(&["1", "2"]).await;
    let mirror = Mirror::start(&hub).await;
    let path = format!("/v2/{REPOSITORY}/tags/list");
    for reply in futures_util::future::join_all((0..20).map(|_| mirror.get(&path))).await {
        assert_eq!((reply.status, &reply.json()["tags"]), (200, &json!(["1", "2"])));
    }
    assert_eq!(hub.counters().tags, 1);
}

/// Statement 80.
#[tokio::test]
async fn nothing_refers_to_an_unknown_digest_and_that_is_an_empty_index() {
    let hub = hub_with_tags(&["1"]).await;
    let mirror = Mirror::start(&hub).await;
    let unknown = oci::Digest::of(oci::Algorithm::Sha256, b"unknown");
    let reply = mirror.get(&format!("/v2/{REPOSITORY}/referrers/{unknown}")).await;
    assert_eq!((reply.status, reply.header("content-type")), (200, OCI_INDEX));
    assert_eq!(reply.json(), json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [] }));
    let reply = mirror.get(&format!("/v2/{REPOSITORY}/referrers/sha256:short")).await;
    assert_error("no digest", &reply, 400, "DIGEST_INVALID");
}

/// Statement 81: a 404 without NAME_UNKNOWN makes clients look for the tag that stands in for the endpoint.
#[tokio::test]
async fn a_registry_without_referrers_is_a_404_that_clients_understand() {
    let hub = hub_with_tags(&["1"]).await;
    let digest = hub.tagged(REPOSITORY, "1").unwrap();
    hub.fault(Fault::NoReferrers, Times::Always);
    let mirror = Mirror::start(&hub).await;
    let reply = mirror.get(&format!("/v2/{REPOSITORY}/referrers/{digest}")).await;
    assert_error("no referrers", &reply, 404, "UNSUPPORTED");
    let fallback = manifest_path(REPOSITORY, format!("sha256-{}", digest.hex()));
    assert_error("nor the tag", &mirror.get(&fallback).await, 404, "MANIFEST_UNKNOWN");
}

/// Statement 82, with a registry that filters and with one that does not.
#[tokio::test]
async fn referrers_are_filtered_by_the_mirror_and_kept_unfiltered() {
    for filters in [true, false] {
        let hub = hub_with_tags(&["1"]).await;
        hub.configure(|options| options.filter_referrers = filters);
        let digest = hub.tagged(REPOSITORY, "1").unwrap();
        let sbom = images::referrer(&hub, REPOSITORY, &digest, "application/spdx+json");
        let signature = images::referrer(&hub, REPOSITORY, &digest, "application/vnd.example.sig");
        let mirror = Mirror::start(&hub).await;
        let path = format!("/v2/{REPOSITORY}/referrers/{digest}");
        let table = [
            ("?artifactType=application/spdx%2Bjson", vec![sbom], "artifactType"),
            ("?artifactType=application/spdx+json", vec![sbom], "artifactType"),
            ("?artifactType=application/vnd.example.sig", vec![signature], "artifactType"),
            ("?artifactType=application/nothing", vec![], "artifactType"),
            ("", vec![sbom, signature], ""),
        ];
        for (query, expected, applied) in table {
            let reply = mirror.get(&format!("{path}{query}")).await;
            assert_eq!((reply.status, reply.header("content-type")), (200, OCI_INDEX), "{query}");
            assert_eq!(reply.header("oci-filters-applied"), applied, "{query}");
            let json = reply.json();
            let mut found: Vec<_> =
                json["manifests"].as_array().unwrap().iter().map(|one| one["digest"].clone()).collect();
            let mut expected: Vec<_> = expected.iter().map(|digest| json!(digest.to_string())).collect();
            found.sort_by_key(ToString::to_string);
            expected.sort_by_key(ToString::to_string);
            assert_eq!(found, expected, "{query}");
        }
        assert_eq!(hub.counters().referrers, 1, "one list, asked for unfiltered, answers all");
    }
}

/// Statement 82: the signatures of an image are there while the registry is not.
#[tokio::test]
async fn referrers_outlive_the_registry() {
    let hub = hub_with_tags(&["1"]).await;
    let digest = hub.tagged(REPOSITORY, "1").unwrap();
    images::referrer(&hub, REPOSITORY, &digest, "application/spdx+json");
    let mirror = Mirror::start_with(&hub, MirrorOptions::default().tags_never_fresh()).await;
    let path = format!("/v2/{REPOSITORY}/referrers/{digest}");
    let fresh = mirror.get(&path).await;
    hub.stop_listening().await;
    let stale = mirror.get(&path).await;
    assert_eq!((stale.status, &stale.body), (200, &fresh.body));
    assert!(stale.header("warning").starts_with("299 - "), "{:?}", stale.headers);
}
