//! Every question of the distribution specification about content discovery: lists of tags, and referrers.

use std::collections::BTreeSet;

use hubsim::{Hub, Options, kinds};
use oci::{Algorithm, Digest, OCI_INDEX};
use serde_json::{Value, json};

use crate::{
    conformance::{REPOSITORY, stocked},
    rig::assert_error,
    support::{Mirror, MirrorOptions, manifest_path},
};

fn tags_of(json: &Value) -> Vec<String> {
    let tags = json["tags"].as_array().expect("there is a list");
    tags.iter().map(|tag| tag.as_str().expect("tags are text").to_owned()).collect()
}

/// Asks for a list of tags; returns it and where the next page is.
async fn list(mirror: &Mirror, path: &str) -> (Vec<String>, Option<String>) {
    let reply = mirror.get(path).await;
    assert_eq!((reply.status, reply.header("content-type")), (200, "application/json"), "{path}");
    assert_eq!(reply.json()["name"], REPOSITORY, "{path}");
    let link = reply.header("link");
    let next = link.strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=\"next\""));
    assert_eq!(next.is_none(), link.is_empty(), "{path}: {link}");
    (tags_of(&reply.json()), next.map(str::to_owned))
}

/// spec.md, "Listing Tags": run.go's TestList with `last`, and all that the text says of `n`, order and `Link`.
#[tokio::test]
async fn tags_are_listed_in_order_page_by_page_and_after_the_last_one_seen() {
    let (hub, contents) = stocked().await;
    // In the order of ASCII capitals come first, and a dash before a dot.
    ["Zebra", "a.b", "a-b", "_x", "0"]
        .iter()
        .for_each(|tag| hub.tag(REPOSITORY, tag, &contents[0].top().digest));
    let mut all: Vec<String> = contents.iter().map(|content| content.tag.clone()).collect();
    all.extend(["Zebra", "a.b", "a-b", "_x", "0"].map(str::to_owned));
    all.sort();
    let mirror = Mirror::start(&hub).await;
    let path = format!("/v2/{REPOSITORY}/tags/list");
    for when in ["cold", "warm", "down"] {
        if when == "down" {
            hub.stop_listening().await;
        }
        assert_eq!(list(&mirror, &path).await, (all.clone(), None), "{when}");
        let middle = all.len() / 2;
        let after = format!("{path}?last={}", all[middle - 1]);
        assert_eq!(list(&mirror, &after).await, (all[middle..].to_vec(), None), "{when}");
        assert_eq!(list(&mirror, &format!("{path}?n=0")).await, (vec![], None), "{when}: no Link either");
        assert_eq!(list(&mirror, &format!("{path}?n={}", all.len())).await, (all.clone(), None), "{when}");
        assert_eq!(list(&mirror, &format!("{path}?n=900")).await, (all.clone(), None), "{when}");
        let (mut seen, mut next) = (Vec::new(), Some(format!("{path}?n=7")));
        while let Some(page) = next {
            let (tags, link) = list(&mirror, &page).await;
            assert!(tags.len() == 7 || link.is_none(), "{when}: a page is short only at the end");
            seen.extend(tags);
            next = link;
        }
        assert_eq!(seen, all, "{when}: each of them once");
        let absent = mirror.get(&format!("{path}?last=b-tag-that-is-not-there")).await;
        assert!(
            tags_of(&absent.json()).iter().all(|tag| tag.as_str() > "b-tag"),
            "{when}: last need not be one"
        );
    }
    hub.resume_listening().await;
    let unknown = mirror.get("/v2/conformance/unknown/tags/list").await;
    assert_error("an unknown repository", &unknown, 404, "NAME_UNKNOWN");
}

/// spec.md, "Listing Tags", by a mirror that has just started and whose registry is down: of what it has.
#[tokio::test]
async fn the_tags_that_are_stored_are_listed_by_the_same_rules() {
    let (hub, contents) = stocked().await;
    let mirror = Mirror::start(&hub).await;
    let mut stored: Vec<String> = contents[..7].iter().map(|content| content.tag.clone()).collect();
    stored.sort();
    for tag in &stored {
        assert_eq!(mirror.get(&manifest_path(REPOSITORY, tag)).await.status, 200);
    }
    hub.stop_listening().await;
    let mirror = mirror.restart().await;
    let path = format!("/v2/{REPOSITORY}/tags/list");
    assert_eq!(list(&mirror, &path).await, (stored.clone(), None));
    let (first, next) = list(&mirror, &format!("{path}?n=3")).await;
    assert_eq!(first, stored[..3]);
    let (second, _) = list(&mirror, &next.expect("there is more")).await;
    assert_eq!(second, stored[3..6]);
    assert_eq!(list(&mirror, &format!("{path}?n=0")).await, (vec![], None));
}

/// What a list of referrers has to say of a manifest.
fn described(manifest: &kinds::Pushed) -> Option<(String, Value)> {
    let document: Value = serde_json::from_slice(&manifest.bytes).ok()?;
    let subject = document["subject"]["digest"].as_str()?.to_owned();
    let mut descriptor = json!({
        "mediaType": manifest.media_type, "digest": manifest.digest, "size": manifest.bytes.len(),
    });
    let of_config = document["config"]["mediaType"].as_str();
    if let Some(artifact_type) = document["artifactType"].as_str().or(of_config) {
        descriptor["artifactType"] = json!(artifact_type);
    }
    if document["annotations"].is_object() {
        descriptor["annotations"] = document["annotations"].clone();
    }
    Some((subject, descriptor))
}

/// Returns all subjects with what refers to them, each list in the order of its text.
fn referrers_of(contents: &[kinds::Content]) -> Vec<(String, Vec<Value>)> {
    let all: Vec<_> = contents.iter().flat_map(|content| &content.manifests).filter_map(described).collect();
    let subjects: BTreeSet<&String> = all.iter().map(|(subject, _)| subject).collect();
    let of = |wanted: &String| -> Vec<Value> {
        all.iter().filter(|(subject, _)| subject == wanted).map(|(_, one)| one.clone()).collect()
    };
    subjects.into_iter().map(|subject| (subject.clone(), sorted(of(subject)))).collect()
}

fn sorted(mut descriptors: Vec<Value>) -> Vec<Value> {
    descriptors.sort_by_key(Value::to_string);
    descriptors.dedup();
    descriptors
}

/// Asks for referrers; returns the descriptors and what filter was applied.
async fn referrers(when: &str, mirror: &Mirror, subject: &str, filter: &str) -> (Vec<Value>, String) {
    let path = format!("/v2/{REPOSITORY}/referrers/{subject}{filter}");
    let reply = mirror.get(&path).await;
    assert_eq!(reply.status, 200, "{when}: {path}: {}", reply.text());
    assert_eq!(reply.header("content-type"), OCI_INDEX, "{when}: exactly, without parameters");
    let json = reply.json();
    assert_eq!((&json["schemaVersion"], &json["mediaType"]), (&json!(2), &json!(OCI_INDEX)), "{when}");
    let manifests = json["manifests"].as_array().expect("there is a list").clone();
    assert_eq!(reply.header("link"), "", "{when}: all in one page");
    (sorted(manifests), reply.header("oci-filters-applied").to_owned())
}

async fn asks_for_all_referrers(when: &str, mirror: &Mirror, right: &[(String, Vec<Value>)]) {
    for (subject, right) in right {
        let (found, applied) = referrers(when, mirror, subject, "").await;
        assert_eq!((&found, applied.as_str()), (right, ""), "{when}: {subject}");
        let types: BTreeSet<&str> = right.iter().filter_map(|one| one["artifactType"].as_str()).collect();
        for wanted in types {
            let query = format!("?artifactType={}", wanted.replace('+', "%2B"));
            let (found, applied) = referrers(when, mirror, subject, &query).await;
            let of_type = right.iter().filter(|one| one["artifactType"] == wanted).cloned().collect();
            assert_eq!(
                (found, applied.as_str()),
                (sorted(of_type), "artifactType"),
                "{when}: {subject} {wanted}"
            );
        }
        let (found, applied) = referrers(when, mirror, subject, "?artifactType=application/unknown").await;
        assert_eq!((found, applied.as_str()), (vec![], "artifactType"), "{when}");
    }
}

/// spec.md, "Listing Referrers": run.go's TestReferrers and TestEmptyReferrers, for images and indexes that are there
/// and one that is not, with artifact types from the manifest, from the config, and (an index) none.
#[tokio::test]
async fn referrers_are_listed_with_type_and_annotations_and_filtered() {
    let (hub, contents) = stocked().await;
    let right = referrers_of(&contents);
    assert!(right.len() >= 3 && right.iter().any(|(_, list)| list.len() >= 4), "{right:#?}");
    let mirror = Mirror::start(&hub).await;
    for when in ["cold", "warm"] {
        asks_for_all_referrers(when, &mirror, &right).await;
        for unknown in [Digest::of(Algorithm::Sha256, b"unknown"), Digest::of(Algorithm::Sha512, b"unknown")]
        {
            let nothing = referrers(when, &mirror, &unknown.to_string(), "").await;
            assert_eq!(nothing, (vec![], String::new()), "{when}: an empty index, not a 404");
        }
    }
    hub.stop_listening().await;
    asks_for_all_referrers("down", &mirror, &right).await;
    let unknown = format!("/v2/{REPOSITORY}/referrers/{}", Digest::of(Algorithm::Sha256, b"other"));
    assert_error("never asked before", &mirror.get(&unknown).await, 503, "UNAVAILABLE");
}

/// spec.md, "Listing Referrers": a registry may hand out the list in pages. The mirror gathers them, so that whoever
/// filters, and whoever reads but the first page, sees all.
#[tokio::test]
async fn a_list_of_referrers_in_pages_is_gathered_into_one() {
    let (hub, contents) = stocked().await;
    hub.configure(|options| options.referrers_page = Some(1));
    let mirror = Mirror::start(&hub).await;
    let right = referrers_of(&contents);
    asks_for_all_referrers("in pages", &mirror, &right).await;
    let pages: usize = right.iter().map(|(_, list)| list.len()).sum();
    assert_eq!(hub.counters().referrers, pages as u64, "each page once");
}

/// A mirror that has just started knows what refers to an image by what it has stored, so that signatures are found
/// while the registry is down.
#[tokio::test]
async fn referrers_that_are_stored_are_listed_while_the_registry_is_down() {
    let (hub, contents) = stocked().await;
    let mirror = Mirror::start_with(&hub, MirrorOptions::default()).await;
    for manifest in contents.iter().flat_map(|content| &content.manifests) {
        assert_eq!(mirror.get(&manifest_path(REPOSITORY, manifest.digest)).await.status, 200);
    }
    hub.stop_listening().await;
    let mirror = mirror.restart().await;
    asks_for_all_referrers("from the tree", &mirror, &referrers_of(&contents)).await;
    let (subject, _) = &referrers_of(&contents)[0];
    let reply = mirror.get(&format!("/v2/{REPOSITORY}/referrers/{subject}")).await;
    assert!(reply.header("warning").starts_with("299 - "), "{:?}", reply.headers);
    let unknown = format!("/v2/{REPOSITORY}/referrers/{}", Digest::of(Algorithm::Sha256, b"other"));
    assert_error("nothing stored refers to it", &mirror.get(&unknown).await, 503, "UNAVAILABLE");
}

/// Nor is the list of what is stored longer than a client reads, or than memory should hold.
#[tokio::test]
async fn stored_referrers_are_listed_up_to_the_size_that_clients_take() {
    let hub = Hub::start(Options::default()).await;
    let subject = hub.push_manifest(REPOSITORY, OCI_INDEX, r#"{"schemaVersion":2,"manifests":[]}"#, &["1"]);
    let mirror = Mirror::start_with(&hub, MirrorOptions::default()).await;
    for number in 0..5 {
        let referrer = json!({
            "schemaVersion": 2, "mediaType": OCI_INDEX, "artifactType": format!("test/{number}"), "manifests": [],
            "subject": { "mediaType": OCI_INDEX, "digest": subject, "size": 34 },
            "annotations": { "x": "x".repeat(1 << 20) },
        });
        let digest = hub.push_manifest(REPOSITORY, OCI_INDEX, referrer.to_string(), &[]);
        assert_eq!(mirror.get(&manifest_path(REPOSITORY, digest)).await.status, 200);
    }
    hub.stop_listening().await;
    let mirror = mirror.restart().await;
    let reply = mirror.get(&format!("/v2/{REPOSITORY}/referrers/{subject}")).await;
    assert_eq!(reply.status, 200);
    assert!(reply.body.len() <= oci::MANIFEST_BYTES_MAX as usize, "{}", reply.body.len());
    let index: Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 3);
}
