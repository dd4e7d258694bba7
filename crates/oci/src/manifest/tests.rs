//! Documents as registries send them, and documents as nobody should.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    DOCKER_LIST, DOCKER_SCHEMA1, DOCKER_SCHEMA1_SIGNED, OCI_INDEX, OCTET_STREAM,
    media_type::{ACCEPT_MANIFESTS, OCI_MANIFEST},
};

const UNKNOWN: &str = "application/vnd.example.future.v9+json";

fn digest(content: &str) -> String {
    Digest::of(Algorithm::Sha256, content.as_bytes()).to_string()
}

fn child(media_type: &str, content: &str) -> Value {
    json!({"mediaType": media_type, "digest": digest(content), "size": content.len()})
}

fn image(media_type: Option<&str>) -> Value {
    let mut document = json!({
        "schemaVersion": 2,
        "config": child("application/vnd.oci.image.config.v1+json", "config"),
        "layers": [child("application/vnd.oci.image.layer.v1.tar+gzip", "layer")],
    });
    if let Some(media_type) = media_type {
        document["mediaType"] = media_type.into();
    }
    document
}

fn index(media_type: Option<&str>) -> Value {
    let mut document = json!({"schemaVersion": 2, "manifests": [child(OCI_MANIFEST, "child")]});
    if let Some(media_type) = media_type {
        document["mediaType"] = media_type.into();
    }
    document
}

fn schema1(signatures: Value) -> Value {
    json!({"schemaVersion": 1, "fsLayers": [{"blobSum": digest("layer")}], "history": [], "signatures": signatures})
}

fn read(content_type: Option<&str>, document: &Value) -> Result<Manifest, ManifestError> {
    Manifest::from_answer(content_type, Bytes::from(document.to_string()), Algorithm::Sha256)
}

fn type_of(content_type: Option<&str>, document: &Value) -> String {
    read(content_type, document).expect("valid").descriptor.media_type.to_string()
}

fn contents(document: &Value) -> Result<Contents, ManifestError> {
    read(Some(UNKNOWN), document).expect("kept").contents()
}

#[test]
fn the_bytes_are_kept_and_described() {
    let text = "\n {\"schemaVersion\": 2,\n\"manifests\":[ ] }\n";
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let manifest = Manifest::from_answer(Some(OCI_INDEX), text.into(), algorithm).expect("valid");
        assert_eq!(manifest.bytes, text);
        assert_eq!(manifest.descriptor.digest, Digest::of(algorithm, text.as_bytes()));
        assert_eq!(manifest.descriptor.size, text.len() as u64);
    }
}

#[test]
fn the_content_type_and_the_document_agree_on_the_media_type() {
    for (content_type, document, wanted) in [
        (Some(OCI_INDEX), index(Some(OCI_INDEX)), OCI_INDEX),
        (Some(OCI_INDEX), index(None), OCI_INDEX),
        (Some("application/vnd.oci.image.index.v1+json; charset=utf-8"), index(None), OCI_INDEX),
        (Some(DOCKER_LIST), index(None), DOCKER_LIST),
        (Some(OCI_MANIFEST), image(Some("")), OCI_MANIFEST),
        (Some(DOCKER_MANIFEST), image(Some(DOCKER_MANIFEST)), DOCKER_MANIFEST),
        (Some(UNKNOWN), json!({"config": "of another kind"}), UNKNOWN),
    ] {
        assert_eq!(type_of(content_type, &document), wanted);
    }
    for (content_type, document) in [
        (OCI_INDEX, index(Some(DOCKER_LIST))),
        (OCI_MANIFEST, index(Some(OCI_INDEX))),
        ("text/html", image(Some(OCI_MANIFEST))),
        (UNKNOWN, image(Some(OCI_MANIFEST))),
    ] {
        assert!(matches!(read(Some(content_type), &document), Err(ManifestError::MediaTypes { .. })));
    }
}

#[test]
fn a_content_type_that_says_nothing_gives_way_to_the_document() {
    let vague =
        ["application/json", "Application/JSON; charset=utf-8", OCTET_STREAM, "text/plain", "", "not a type"];
    for content_type in vague.into_iter().map(Some).chain([None]) {
        for (document, wanted) in [
            (index(Some(DOCKER_LIST)), DOCKER_LIST),
            (image(Some(DOCKER_MANIFEST)), DOCKER_MANIFEST),
            (json!({"mediaType": UNKNOWN}), UNKNOWN),
            (index(None), OCI_INDEX),
            (image(None), OCI_MANIFEST),
            (schema1(json!([{}])), DOCKER_SCHEMA1_SIGNED),
            (schema1(Value::Null), DOCKER_SCHEMA1),
        ] {
            assert_eq!(type_of(content_type, &document), wanted, "{content_type:?}");
        }
        for document in [json!({}), json!({"errors": []}), json!({"layers": []}), json!({"config": {}})] {
            assert_eq!(read(content_type, &document), Err(ManifestError::UnknownShape), "{document}");
        }
    }
}

#[test]
fn a_document_that_is_two_things_is_refused() {
    for (key, value) in [("layers", json!([])), ("config", json!({})), ("fsLayers", json!([]))] {
        for media_type in [OCI_INDEX, OCI_MANIFEST, UNKNOWN] {
            let mut document = index(None);
            document[key] = value.clone();
            assert_eq!(read(Some(media_type), &document), Err(ManifestError::Ambiguous), "{key}");
            document[key] = Value::Null;
            let ambiguous = matches!(read(Some(media_type), &document), Err(ManifestError::Ambiguous));
            assert!(!ambiguous, "a null {key} is none");
        }
    }
    for (media_type, document) in
        [(OCI_INDEX, image(None)), (DOCKER_LIST, image(None)), (OCI_MANIFEST, index(None))]
    {
        assert!(
            matches!(read(Some(media_type), &document), Err(ManifestError::Shape { .. })),
            "{media_type}"
        );
    }
    let twice = format!("{{\"mediaType\":\"{OCI_INDEX}\",\"mediaType\":\"{OCI_MANIFEST}\"}}");
    let twice = Manifest::from_answer(Some(OCI_MANIFEST), twice.into(), Algorithm::Sha256);
    assert!(matches!(twice, Err(ManifestError::Malformed { .. })));
}

#[test]
fn what_is_not_a_json_object_is_refused() {
    let deep = format!("{{\"config\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    for text in [
        "",
        " ",
        "null",
        "7",
        "\"x\"",
        "[]",
        "[2,\"a/b\",[]]",
        "{",
        "{}x",
        "<!DOCTYPE html><html>",
        "\u{feff}{}",
    ] {
        let error =
            Manifest::from_answer(Some(OCI_MANIFEST), text.into(), Algorithm::Sha256).expect_err(text);
        let refused = matches!(error, ManifestError::NotAnObject { .. } | ManifestError::Malformed { .. });
        assert!(refused && error.to_string().len() < 400, "{text}: {error}");
    }
    // Refused or taken: it must only not overflow the stack.
    let deep = Manifest::from_answer(Some(OCI_MANIFEST), deep.into(), Algorithm::Sha256);
    let _ = deep.map(|manifest| manifest.contents());
}

#[test]
fn errors_do_not_repeat_the_document() {
    let document = json!({"schemaVersion": 2, "manifests": "x".repeat(100_000)});
    let error = read(Some(OCI_INDEX), &document).expect("kept").contents().expect_err("not a list");
    assert!(error.to_string().len() < 300);
}

#[test]
fn a_manifest_has_4_mib_at_most() {
    let size = usize::try_from(MANIFEST_BYTES_MAX).expect("fits");
    let document = |size: usize| Bytes::from(format!("{{}}{}", " ".repeat(size - 2)));
    assert!(Manifest::from_answer(Some(UNKNOWN), document(size), Algorithm::Sha256).is_ok());
    let error = Manifest::from_answer(Some(UNKNOWN), document(size + 1), Algorithm::Sha256);
    assert_eq!(error, Err(ManifestError::TooLarge { size: MANIFEST_BYTES_MAX + 1 }));
}

#[test]
fn an_image_names_its_config_and_layers() {
    let found = read(None, &image(None)).expect("valid").contents().expect("valid");
    let blobs: Vec<_> = found.blobs.iter().map(|blob| (blob.digest.to_string(), blob.size)).collect();
    assert_eq!(blobs, [(digest("config"), 6), (digest("layer"), 5)]);
    assert_eq!(found.blobs[1].media_type.as_str(), "application/vnd.oci.image.layer.v1.tar+gzip");
    assert_eq!(found.artifact_type.as_deref(), Some("application/vnd.oci.image.config.v1+json"));
    assert_eq!((found.manifests, found.subject), (Vec::new(), None));
}

#[test]
fn an_index_names_its_manifests() {
    let found = read(None, &index(None)).expect("valid").contents().expect("valid");
    assert_eq!(found.manifests.len(), 1);
    assert_eq!(found.manifests[0].media_type, MediaType::oci_manifest());
    assert_eq!(found.manifests[0].digest.to_string(), digest("child"));
    assert_eq!((found.blobs, found.artifact_type), (Vec::new(), None));
}

#[test]
fn an_artifact_names_its_subject_and_type() {
    let mut document = image(None);
    document["subject"] = child(OCI_MANIFEST, "subject");
    document["artifactType"] = "application/spdx+json".into();
    let found = read(None, &document).expect("valid").contents().expect("valid");
    assert_eq!(found.subject.map(|subject| subject.digest.to_string()), Some(digest("subject")));
    assert_eq!(found.artifact_type.as_deref(), Some("application/spdx+json"));
    let found =
        contents(&json!({"blobs": [child("a/b", "blob")], "subject": child(OCI_MANIFEST, "subject")}));
    assert_eq!(found.expect("valid").blobs.len(), 1);
}

#[test]
fn schema1_names_its_layers_without_sizes() {
    let found = read(None, &schema1(json!([{}]))).expect("valid").contents().expect("valid");
    assert_eq!(found.blobs.len(), 1);
    assert_eq!((found.blobs[0].digest.to_string(), found.blobs[0].size), (digest("layer"), 0));
}

#[test]
fn layers_to_be_had_elsewhere_are_left_out() {
    let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    let nondistributable = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
    for (media_type, urls, named) in [
        (foreign, json!(["https://mcr.microsoft.com/x"]), false),
        (nondistributable, json!(["https://x"]), false),
        (foreign, json!([]), true),
        (foreign, Value::Null, true),
        ("application/vnd.oci.image.layer.v1.tar", json!(["https://x"]), true),
    ] {
        let mut layer = child(media_type, "layer");
        layer["urls"] = urls;
        let found = contents(&json!({"layers": [layer]})).expect("valid");
        assert_eq!((found.blobs.len(), found.foreign.len()), (named.into(), (!named).into()), "{media_type}");
    }
}

#[test]
fn a_child_needs_a_digest_and_nothing_else() {
    let found =
        contents(&json!({"layers": [{"digest": digest("x"), "mediaType": "not a type"}]})).expect("valid");
    assert_eq!((&found.blobs[0].media_type, found.blobs[0].size), (&MediaType::octet_stream(), 0));
    for bad in [json!("sha256:bad"), json!("md5:00"), json!("sha256:../../etc"), json!("")] {
        for field in ["layers", "manifests"] {
            let document = json!({field: [{"digest": bad, "size": 1}]});
            assert!(matches!(contents(&document), Err(ManifestError::Digest(_))), "{document}");
        }
    }
}

#[test]
fn a_known_manifest_must_be_well_formed_and_an_unknown_one_need_not() {
    let documents = [
        json!({"layers": "x"}),
        json!({"layers": [{"size": 1}]}),
        json!({"layers": [{"digest": digest("x"), "size": -1}]}),
        json!({"config": []}),
    ];
    for document in documents {
        let known = read(Some(OCI_MANIFEST), &document).expect("kept").contents();
        assert!(matches!(known, Err(ManifestError::Malformed { .. })), "{document}");
        assert_eq!(contents(&document), Ok(Contents::default()), "{document}");
    }
}

#[test]
fn a_manifest_names_4096_things_at_most() {
    let list = |count: usize| json!({"layers": vec![child("a/b", "x"); count]});
    assert_eq!(contents(&list(DESCRIPTORS_MAX)).expect("valid").blobs.len(), DESCRIPTORS_MAX);
    let error = contents(&list(DESCRIPTORS_MAX + 1));
    assert_eq!(error, Err(ManifestError::TooMany { count: DESCRIPTORS_MAX + 1 }));
}

#[test]
fn every_type_that_is_asked_for_is_a_known_manifest() {
    for text in ACCEPT_MANIFESTS.split(", ").filter(|text| *text != "*/*") {
        assert!(is_known(&text.parse().expect("valid")), "{text}");
    }
}

/// Any JSON of the fields that matter, with values that need not suit them.
fn documents() -> impl Strategy<Value = Value> {
    let value = prop_oneof![
        Just(Value::Null),
        Just(json!(1)),
        Just(json!([])),
        Just(json!({})),
        "[ -~]{0,9}".prop_map(Value::from),
        Just(json!([child(OCI_MANIFEST, "x")])),
        Just(child("a/b", "y")),
        Just(json!(OCI_INDEX)),
        Just(json!(OCI_MANIFEST)),
    ];
    let key = proptest::sample::select(vec![
        "schemaVersion",
        "mediaType",
        "manifests",
        "config",
        "layers",
        "blobs",
        "fsLayers",
        "subject",
        "signatures",
    ]);
    proptest::collection::btree_map(key, value, 0..6)
        .prop_map(|fields| Value::from_iter(fields.into_iter().map(|(key, value)| (key.to_owned(), value))))
}

proptest! {
    #[test]
    fn any_answer_is_read_without_panic(content_type in proptest::option::of("\\PC*"), bytes: Vec<u8>) {
        let _ = Manifest::from_answer(content_type.as_deref(), bytes.into(), Algorithm::Sha256);
    }

    #[test]
    fn no_document_is_both_index_and_image(
        document in documents(),
        content_type in proptest::sample::select(vec![OCI_INDEX, OCI_MANIFEST, UNKNOWN, "text/plain"]),
    ) {
        let Ok(manifest) = read(Some(content_type), &document) else {
            return Ok(());
        };
        prop_assert_eq!(&manifest.bytes, &document.to_string());
        let Ok(contents) = manifest.contents() else {
            return Ok(());
        };
        if manifest.descriptor.media_type.is_index() {
            prop_assert!(document.get("layers").is_none_or(Value::is_null));
        }
        let blobs_of_an_image = !contents.blobs.is_empty() && document.get("blobs").is_none_or(Value::is_null);
        prop_assert!(contents.manifests.is_empty() || !blobs_of_an_image);
    }
}
