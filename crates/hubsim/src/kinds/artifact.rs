//! Artifacts: what is no image and lives in registries all the same.

use super::{
    Bytes, Digest, EMPTY, Make, OCI_ARTIFACT, OCI_INDEX, OCI_MANIFEST, Pusher, Value, digest_of,
    image_manifest, index_of, json,
};

pub(super) const KINDS: &[(&str, Make)] = &[
    ("artifact", |push| digest_of(&artifact(push, "application/vnd.example.sbom.v1+json", None))),
    ("artifact-without-layers", artifact_without_layers),
    ("artifact-with-subject", artifact_with_subject),
    ("artifact-with-missing-subject", artifact_with_missing_subject),
    ("index-with-subject", index_with_subject),
    ("oras-artifact", oras_artifact),
    ("helm-chart", helm_chart),
    ("wasm", wasm),
    ("attestations", attestations),
    ("cosign-signature", cosign_signature),
    ("docker-plugin", docker_plugin),
    ("unknown-manifest-type", unknown_manifest_type),
];

/// Pushes an artifact packed as an image manifest (image-spec, manifest.md, "Guidelines for Artifact Usage").
fn artifact(push: &mut Pusher<'_>, artifact_type: &str, subject: Option<&Value>) -> Value {
    let config = push.empty();
    let layer = push.blob("application/vnd.example.part", format!("a part of a {artifact_type}"));
    let mut manifest = image_manifest(&config, &[layer]);
    manifest["artifactType"] = json!(artifact_type);
    manifest["annotations"] = json!({ "org.opencontainers.image.created": "1970-01-01T00:00:00Z" });
    if let Some(subject) = subject {
        manifest["subject"] = subject.clone();
    }
    push.manifest(OCI_MANIFEST, &manifest)
}

fn artifact_without_layers(push: &mut Pusher<'_>) -> Digest {
    let empty = push.empty();
    let mut manifest = image_manifest(&empty, std::slice::from_ref(&empty));
    manifest["artifactType"] = json!("application/vnd.example.nothing");
    digest_of(&push.manifest(OCI_MANIFEST, &manifest))
}

fn artifact_with_subject(push: &mut Pusher<'_>) -> Digest {
    let subject = subject_of(&push.image("amd64", "subject"));
    // One that is what its config is, since it says no type itself.
    let config = push.blob("application/vnd.example.config", Bytes::from_static(b"{\"of\":\"a referrer\"}"));
    let mut untyped = image_manifest(&config, &[]);
    untyped["subject"] = subject.clone();
    push.manifest(OCI_MANIFEST, &untyped);
    artifact(push, "application/vnd.example.signature", Some(&subject));
    let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [], "subject": subject });
    push.manifest(OCI_INDEX, &index);
    digest_of(&artifact(push, "application/spdx+json", Some(&subject)))
}

fn artifact_with_missing_subject(push: &mut Pusher<'_>) -> Digest {
    let subject = subject_of(&push.absent(OCI_MANIFEST, "an image that was never pushed"));
    digest_of(&artifact(push, "application/spdx+json", Some(&subject)))
}

fn index_with_subject(push: &mut Pusher<'_>) -> Digest {
    let image = push.image("amd64", "subject of an index");
    let subject = subject_of(&push.manifest(OCI_INDEX, &index_of(&[image])));
    let part = artifact(push, "application/vnd.example.part", None);
    let mut index = index_of(&[part]);
    index["artifactType"] = json!("application/vnd.example.bundle");
    index["subject"] = subject;
    digest_of(&push.manifest(OCI_INDEX, &index))
}

fn subject_of(descriptor: &Value) -> Value {
    json!({ "mediaType": descriptor["mediaType"], "digest": descriptor["digest"], "size": descriptor["size"] })
}

/// The artifact manifest of OCI 1.1's release candidates, which ORAS pushed.
fn oras_artifact(push: &mut Pusher<'_>) -> Digest {
    let blob = push.blob("application/vnd.example.part", Bytes::from_static(b"by oras"));
    let manifest = json!({
        "mediaType": OCI_ARTIFACT, "artifactType": "application/vnd.example.sbom.v1+json", "blobs": [blob],
    });
    digest_of(&push.manifest(OCI_ARTIFACT, &manifest))
}

/// Helm pushed charts without a `mediaType` up to 3.7.
fn helm_chart(push: &mut Pusher<'_>) -> Digest {
    let config =
        push.blob("application/vnd.cncf.helm.config.v1+json", Bytes::from_static(b"{\"name\":\"chart\"}"));
    let chart = push.gzip_layer("chart");
    let chart = json!({
        "mediaType": "application/vnd.cncf.helm.chart.content.v1.tar+gzip",
        "digest": chart["digest"], "size": chart["size"],
    });
    let provenance =
        push.blob("application/vnd.cncf.helm.chart.provenance.v1.prov", Bytes::from_static(b"signed"));
    let manifest = json!({ "schemaVersion": 2, "config": config, "layers": [chart, provenance] });
    digest_of(&push.manifest(OCI_MANIFEST, &manifest))
}

fn wasm(push: &mut Pusher<'_>) -> Digest {
    let config = push.blob("application/vnd.wasm.config.v0+json", Bytes::from_static(b"{\"os\":\"wasip2\"}"));
    let module = push.blob("application/wasm", Bytes::from_static(b"\0asm\x01\0\0\0"));
    digest_of(&push.manifest(OCI_MANIFEST, &image_manifest(&config, &[module])))
}

/// BuildKit puts attestations beside the platforms of an index.
fn attestations(push: &mut Pusher<'_>) -> Digest {
    let image = push.image("amd64", "attested");
    let config = push.config("unknown", "attestation");
    let mut statement =
        push.blob("application/vnd.in-toto+json", Bytes::from_static(b"{\"predicateType\":\"x\"}"));
    statement["annotations"] = json!({ "in-toto.io/predicate-type": "https://slsa.dev/provenance/v0.2" });
    let mut attestation = push.manifest(OCI_MANIFEST, &image_manifest(&config, &[statement]));
    attestation["platform"] = json!({ "os": "unknown", "architecture": "unknown" });
    attestation["annotations"] = json!({
        "vnd.docker.reference.digest": image["digest"], "vnd.docker.reference.type": "attestation-manifest",
    });
    digest_of(&push.manifest(OCI_INDEX, &index_of(&[image, attestation])))
}

/// cosign finds a signature by a tag that is made of the image's digest.
fn cosign_signature(push: &mut Pusher<'_>) -> Digest {
    let image = digest_of(&push.image("amd64", "signed"));
    let config = push.config("", "signature");
    let mut layer = push
        .blob("application/vnd.dev.cosign.simplesigning.v1+json", Bytes::from_static(b"{\"critical\":{}}"));
    layer["annotations"] = json!({ "dev.cosignproject.cosign/signature": "MEUCIQ==" });
    push.content.tag = format!("sha256-{}.sig", image.hex());
    digest_of(&push.manifest(OCI_MANIFEST, &image_manifest(&config, &[layer])))
}

fn docker_plugin(push: &mut Pusher<'_>) -> Digest {
    let config =
        push.blob("application/vnd.docker.plugin.v1+json", Bytes::from_static(b"{\"entrypoint\":[]}"));
    let layer = push.gzip_layer("plugin");
    digest_of(&push.manifest(OCI_MANIFEST, &image_manifest(&config, &[layer])))
}

/// A manifest of a type that nobody knows, which does not say it itself, and looks like an image's.
fn unknown_manifest_type(push: &mut Pusher<'_>) -> Digest {
    let config = push.blob(EMPTY, Bytes::from_static(b"{}"));
    let manifest = json!({ "config": config, "layers": [], "about": "something to come" });
    digest_of(&push.manifest("application/vnd.example.manifest.v7+json", &manifest))
}
