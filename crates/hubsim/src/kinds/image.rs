//! Images, plain and odd.

use super::{
    Algorithm, Bytes, DOCKER_LIST, DOCKER_MANIFEST, Digest, MANIFEST_BYTES_MAX, Make, OCI_CONFIG, OCI_GZIP,
    OCI_INDEX, OCI_MANIFEST, OCI_TAR, Pusher, Value, digest_of, image_manifest, index_of, json, layers,
};

const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
/// How far the bytes of a manifest may come to the limit.
const NEARLY: usize = MANIFEST_BYTES_MAX as usize - 1;

pub(super) const KINDS: &[(&str, Make)] = &[
    ("image", |push| digest_of(&push.image("amd64", "image"))),
    ("docker-image", |push| docker_image(push, true)),
    ("docker-list", docker_list),
    ("empty-blob", |push| image_of_layer(push, OCI_TAR, Bytes::new())),
    ("one-byte-blob", |push| image_of_layer(push, OCI_TAR, Bytes::from_static(b"1"))),
    ("no-layers", no_layers),
    ("duplicate-layers", duplicate_layers),
    ("oci-without-type", |push| without_type(push, OCI_MANIFEST)),
    ("docker-without-type", |push| docker_image(push, false)),
    ("index-without-type", index_without_type),
    ("custom-fields", custom_fields),
    ("data-field", data_field),
    ("unicode-annotations", unicode_annotations),
    ("spaced-bytes", spaced_bytes),
    ("nearly-too-large", nearly_too_large),
    ("zstd-layers", zstd_layers),
    ("uncompressed-layer", |push| image_of_layer(push, OCI_TAR, tar())),
    ("encrypted-layer", encrypted_layer),
    ("foreign-layers", foreign_layers),
    ("nested-index", nested_index),
    ("hundred-platforms", hundred_platforms),
    ("empty-index", |push| digest_of(&push.manifest(OCI_INDEX, &index_of(&[])))),
    ("sparse-index", sparse_index),
    ("sha512-image", sha512_image),
    ("sha512-index", sha512_index),
    ("unknown-algorithm", unknown_algorithm),
];

/// Returns the bytes of an archive that holds one file, uncompressed.
fn tar() -> Bytes {
    layers::of_repeated_noise(1_000).blob.pieces().flatten().collect::<Vec<u8>>().into()
}

fn image_of_layer(push: &mut Pusher<'_>, media_type: &str, bytes: Bytes) -> Digest {
    let layer = push.blob(media_type, bytes);
    image_of(push, &[layer])
}

fn image_of(push: &mut Pusher<'_>, layers: &[Value]) -> Digest {
    let config = push.config("amd64", push.content.name);
    digest_of(&push.manifest(OCI_MANIFEST, &image_manifest(&config, layers)))
}

fn docker_image(push: &mut Pusher<'_>, says_its_type: bool) -> Digest {
    let layer = push.gzip_layer(push.content.name);
    let config = push.config("amd64", push.content.name);
    let mut manifest = json!({
        "schemaVersion": 2,
        "config": { "mediaType": DOCKER_CONFIG, "digest": config["digest"], "size": config["size"] },
        "layers": [{ "mediaType": DOCKER_GZIP, "digest": layer["digest"], "size": layer["size"] }],
    });
    if says_its_type {
        manifest["mediaType"] = json!(DOCKER_MANIFEST);
    }
    digest_of(&push.manifest(DOCKER_MANIFEST, &manifest))
}

fn docker_list(push: &mut Pusher<'_>) -> Digest {
    let manifest = docker_image(push, true);
    let size = push.content.top().bytes.len();
    let list = json!({
        "schemaVersion": 2,
        "mediaType": DOCKER_LIST,
        "manifests": [{
            "mediaType": DOCKER_MANIFEST, "digest": manifest, "size": size,
            "platform": { "os": "linux", "architecture": "amd64" },
        }],
    });
    digest_of(&push.manifest(DOCKER_LIST, &list))
}

fn no_layers(push: &mut Pusher<'_>) -> Digest {
    image_of(push, &[])
}

fn duplicate_layers(push: &mut Pusher<'_>) -> Digest {
    let (one, other) = (push.gzip_layer("once"), push.gzip_layer("twice"));
    image_of(push, &[other.clone(), one, other.clone(), other])
}

fn without_type(push: &mut Pusher<'_>, media_type: &str) -> Digest {
    let layer = push.gzip_layer(push.content.name);
    let config = push.config("amd64", push.content.name);
    let manifest = json!({ "schemaVersion": 2, "config": config, "layers": [layer] });
    digest_of(&push.manifest(media_type, &manifest))
}

fn index_without_type(push: &mut Pusher<'_>) -> Digest {
    let manifests = [push.image("amd64", "index without type"), push.image("arm64", "index without type")];
    digest_of(&push.manifest(OCI_INDEX, &json!({ "schemaVersion": 2, "manifests": manifests })))
}

fn custom_fields(push: &mut Pusher<'_>) -> Digest {
    let config = push.config("amd64", "custom fields");
    let layer = push.gzip_layer("custom fields");
    let mut manifest = image_manifest(&config, &[layer]);
    manifest["org.example.unknown"] = json!({ "deep": [1, { "er": null }], "float": 1e-7 });
    digest_of(&push.manifest(OCI_MANIFEST, &manifest))
}

/// A descriptor may carry the bytes that it describes (image-spec, descriptor.md, "data").
fn data_field(push: &mut Pusher<'_>) -> Digest {
    let mut config = push.empty();
    config["data"] = json!("e30=");
    digest_of(&push.manifest(OCI_MANIFEST, &image_manifest(&config, &[])))
}

fn unicode_annotations(push: &mut Pusher<'_>) -> Digest {
    let config = push.config("amd64", "unicode");
    let mut manifest = image_manifest(&config, &[]);
    manifest["annotations"] =
        json!({ "org.opencontainers.image.title": "Grüße, 世界 🐋", "org.example.رسالة": "\u{200f}\u{0}" });
    digest_of(&push.manifest(OCI_MANIFEST, &manifest))
}

/// Bytes that nobody would write again in this way.
fn spaced_bytes(push: &mut Pusher<'_>) -> Digest {
    let text = format!(
        "\n{{ \"schemaVersion\":2,\r\n\t\"mediaType\" : \"{OCI_INDEX}\",\"x\":1e0, \"manifests\": [ ] }}\n"
    );
    digest_of(&push.manifest_by(Algorithm::Sha256, OCI_INDEX, text))
}

fn nearly_too_large(push: &mut Pusher<'_>) -> Digest {
    let config = push.config("amd64", "large");
    let mut manifest = image_manifest(&config, &[]);
    manifest["annotations"] = json!({ "x": "" });
    let padding = NEARLY - manifest.to_string().len();
    manifest["annotations"]["x"] = json!("x".repeat(padding));
    digest_of(&push.manifest(OCI_MANIFEST, &manifest))
}

/// Returns bytes as one frame of zstd with raw blocks (RFC 8878, 3.1.1).
fn zstd(bytes: &[u8]) -> Vec<u8> {
    const SINGLE_SEGMENT_WITH_SIZE_OF_4_BYTES: u8 = 0xa0;
    const LAST: u32 = 1;
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, SINGLE_SEGMENT_WITH_SIZE_OF_4_BYTES];
    let size = u32::try_from(bytes.len()).expect("a layer of a test is small");
    frame.extend_from_slice(&size.to_le_bytes());
    frame.extend_from_slice(&(size << 3 | LAST).to_le_bytes()[..3]);
    frame.extend_from_slice(bytes);
    frame
}

fn zstd_layers(push: &mut Pusher<'_>) -> Digest {
    const OCI_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    let plain = push.blob(OCI_ZSTD, zstd(&tar()));
    let mut chunked = zstd(&tar());
    // zstd:chunked ends with a frame that decoders skip.
    chunked.extend_from_slice(b"\x50\x2a\x4d\x18\x04\x00\x00\x00GnUl");
    let mut chunked = push.blob(OCI_ZSTD, chunked);
    chunked["annotations"] = json!({
        "io.github.containers.zstd-chunked.manifest-checksum": chunked["digest"],
        "io.github.containers.zstd-chunked.manifest-position": "9:1:1:1",
    });
    image_of(push, &[plain, chunked])
}

fn encrypted_layer(push: &mut Pusher<'_>) -> Digest {
    let mut layer =
        push.blob("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", Bytes::from_static(b"secret"));
    layer["annotations"] = json!({ "org.opencontainers.image.enc.keys.jwe": "e30", "org.opencontainers.image.enc.pubopts": "e30" });
    image_of(push, &[layer])
}

/// Windows images name layers that only their vendor's server has.
fn foreign_layers(push: &mut Pusher<'_>) -> Digest {
    let types = [
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    ];
    let foreign = types.map(|media_type| {
        let mut layer = push.absent(media_type, media_type);
        layer["urls"] = json!([format!("https://store.example.com/{}", layer["size"])]);
        layer
    });
    let own = push.gzip_layer("what the registry has of it");
    let layers: Vec<Value> = foreign.into_iter().chain([own]).collect();
    image_of(push, &layers)
}

fn nested_index(push: &mut Pusher<'_>) -> Digest {
    let mut inner = push.image("amd64", "nested");
    for depth in 0..3 {
        let beside = push.image("arm64", &format!("nested, {depth}"));
        inner = push.manifest(OCI_INDEX, &index_of(&[inner, beside]));
    }
    digest_of(&inner)
}

fn hundred_platforms(push: &mut Pusher<'_>) -> Digest {
    let manifests: Vec<Value> =
        (0..100).map(|number| push.image(&format!("cpu{number}"), &format!("platform {number}"))).collect();
    digest_of(&push.manifest(OCI_INDEX, &index_of(&manifests)))
}

/// An index of which the registry has but one platform.
fn sparse_index(push: &mut Pusher<'_>) -> Digest {
    let mut absent = push.absent(OCI_MANIFEST, "a platform that was not copied");
    absent["platform"] = json!({ "os": "linux", "architecture": "s390x" });
    let present = push.image("amd64", "sparse");
    digest_of(&push.manifest(OCI_INDEX, &index_of(&[absent, present])))
}

fn sha512_image(push: &mut Pusher<'_>) -> Digest {
    let layer = push.blob_by(Algorithm::Sha512, OCI_GZIP, Bytes::from_static(b"a layer by sha512"));
    let config = push.blob_by(Algorithm::Sha512, OCI_CONFIG, Bytes::from_static(b"{\"os\":\"linux\"}"));
    let manifest = image_manifest(&config, &[layer]).to_string();
    digest_of(&push.manifest_by(Algorithm::Sha512, OCI_MANIFEST, manifest))
}

/// A tag that names a sha256 index of a sha512 image, which is of sha256 blobs.
fn sha512_index(push: &mut Pusher<'_>) -> Digest {
    let layer = push.gzip_layer("of a sha512 manifest");
    let config = push.config("amd64", "of a sha512 manifest");
    let manifest = image_manifest(&config, &[layer]).to_string();
    let manifest = push.manifest_by(Algorithm::Sha512, OCI_MANIFEST, manifest);
    digest_of(&push.manifest(OCI_INDEX, &index_of(&[manifest])))
}

/// A layer by an algorithm that few know: the manifest is carried, the layer cannot be.
fn unknown_algorithm(push: &mut Pusher<'_>) -> Digest {
    let layer = json!({ "mediaType": OCI_TAR, "digest": format!("blake3:{}", "0".repeat(64)), "size": 1 });
    image_of(push, &[layer])
}
