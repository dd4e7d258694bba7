//! Real images, made of Debian's static busybox: they pull, unpack and run, and are the same bytes each time.

use std::sync::OnceLock;

use bytes::Bytes;
use oci::{DOCKER_LIST, DOCKER_MANIFEST, Digest, OCI_INDEX, OCI_MANIFEST};
use serde_json::{Value, json};

pub use crate::image_spec::ImageSpec;
use crate::{
    Hub,
    layers::{self, Layer},
};

/// The shape of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One Docker v2 manifest.
    DockerSingle,
    /// One OCI manifest.
    OciSingle,
    /// An OCI index of linux/amd64 and linux/arm64.
    OciIndex,
    /// A Docker manifest list of linux/amd64 and linux/arm64.
    DockerList,
}

/// What was pushed.
#[derive(Clone, Debug)]
pub struct Image {
    /// What the tag names: the index, or the manifest where there is none.
    pub manifest: Digest,
    /// The manifest of linux/amd64: `manifest` itself, where there is no index.
    pub platform: Digest,
    /// The config of linux/amd64: the image id.
    pub config: Digest,
    /// The layers of linux/amd64, from the bottom.
    pub layers: Vec<Digest>,
    /// The bytes of those layers as they travel.
    pub layer_bytes: u64,
}

impl Image {
    /// Returns the manifests and blobs that a pull of linux/amd64 fetches: blobs only.
    pub fn blobs(&self) -> impl Iterator<Item = &Digest> {
        self.layers.iter().chain([&self.config])
    }
}

/// Sizes in KiB of the layers above busybox of [`many_layers`]: twelve layers of 70 MB with it, as prom/prometheus.
const MANY_LAYERS_KIB: [u64; 11] = [900, 24_000, 22_000, 12_000, 6_000, 2_048, 512, 64, 16, 4, 1];

/// Pushes a small image that prints its own name; the busybox layer is the same in all of them.
pub fn busybox(hub: &Hub, repository: &str, tag: &str, format: Format) -> Image {
    let name = format!("{repository}:{tag}\n");
    let layers = [layers::busybox().clone(), layers::of_file("etc/image", &name)];
    push(hub, repository, tag, format, &layers, &["/bin/busybox", "cat", "/etc/image"])
}

/// Pushes a Docker manifest list whose amd64 image has 12 layers of about 70 MB in all, as prom/prometheus has.
pub fn many_layers(hub: &Hub, repository: &str, tag: &str) -> Image {
    static LAYERS: OnceLock<Vec<Layer>> = OnceLock::new();
    let layers = LAYERS.get_or_init(|| {
        let above =
            (1..).zip(MANY_LAYERS_KIB).map(|(seed, kib)| layers::of_noise(seed, (kib * 1024) as usize));
        std::iter::once(layers::busybox().clone()).chain(above).collect()
    });
    let command = ["/bin/busybox", "sh", "-c", "echo $(ls /noise | wc -l) files of noise"];
    push(hub, repository, tag, Format::DockerList, layers, &command)
}

/// Pushes an OCI image with one large, uncompressed layer of this size in bytes; it takes a megabyte of memory.
pub fn large(hub: &Hub, repository: &str, tag: &str, size: u64) -> Image {
    let layers = [layers::busybox().clone(), layers::of_repeated_noise(size)];
    push(hub, repository, tag, Format::OciSingle, &layers, &["/bin/busybox", "wc", "-c", "/large"])
}

/// Pushes `count` blobs of `size` bytes that differ in their last bytes only and share a megabyte of memory, and makes
/// them the repository's.
pub fn blobs(hub: &Hub, repository: &str, count: usize, size: u64) -> Vec<Digest> {
    let pushed = layers::similar_blobs(count, size).into_iter().map(|(digest, blob)| {
        hub.push_blob_as(&digest, blob);
        hub.link_blob(repository, &digest);
        digest
    });
    pushed.collect()
}

/// Pushes an image of `count` such blobs as layers; it does not run, but names them, so that they can be asked for.
pub fn image_of_blobs(hub: &Hub, repository: &str, tag: &str, count: usize, size: u64) -> Image {
    let layers: Vec<Layer> = layers::similar_blobs(count, size)
        .into_iter()
        .map(|(digest, blob)| Layer { blob, digest, diff_id: digest, is_gzip: false, made_of: String::new() })
        .collect();
    push(hub, repository, tag, Format::OciSingle, &layers, &[])
}

/// Pushes a manifest that refers to another one: an artifact of this type with an empty config. Returns its digest.
pub fn referrer(hub: &Hub, repository: &str, subject: &Digest, artifact_type: &str) -> Digest {
    let empty = hub.push_blob(Bytes::from_static(b"{}"));
    let empty = json!({ "mediaType": "application/vnd.oci.empty.v1+json", "digest": empty, "size": 2 });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": artifact_type,
        "config": empty,
        "layers": [empty],
        "subject": { "mediaType": OCI_MANIFEST, "digest": subject, "size": 1 },
    });
    hub.push_manifest(repository, OCI_MANIFEST, manifest.to_string(), &[])
}

fn push(hub: &Hub, repository: &str, tag: &str, format: Format, layers: &[Layer], command: &[&str]) -> Image {
    let is_docker = matches!(format, Format::DockerSingle | Format::DockerList);
    let is_single = matches!(format, Format::DockerSingle | Format::OciSingle);
    let tags: &[&str] = if is_single { &[tag] } else { &[] };
    let amd64 = push_platform(hub, repository, tags, is_docker, "amd64", layers, command);
    let mut image = Image {
        manifest: amd64.manifest,
        platform: amd64.manifest,
        config: amd64.config,
        layers: layers.iter().map(|layer| layer.digest).collect(),
        layer_bytes: layers.iter().map(|layer| layer.blob.size()).sum(),
    };
    if is_single {
        return image;
    }
    let other = [layers::of_file("etc/image", "this layer is for arm64\n")];
    let arm64 = push_platform(hub, repository, &[], is_docker, "arm64", &other, command);
    let (index_type, manifest_type) =
        if is_docker { (DOCKER_LIST, DOCKER_MANIFEST) } else { (OCI_INDEX, OCI_MANIFEST) };
    let entry = |pushed: &Pushed, architecture: &str| {
        json!({
            "mediaType": manifest_type,
            "digest": pushed.manifest,
            "size": pushed.size,
            "platform": { "architecture": architecture, "os": "linux" },
        })
    };
    let index = json!({
        "schemaVersion": 2,
        "mediaType": index_type,
        "manifests": [entry(&amd64, "amd64"), entry(&arm64, "arm64")],
    });
    image.manifest = hub.push_manifest(repository, index_type, index.to_string(), &[tag]);
    image
}

struct Pushed {
    manifest: Digest,
    size: usize,
    config: Digest,
}

fn push_platform(
    hub: &Hub,
    repository: &str,
    tags: &[&str],
    is_docker: bool,
    architecture: &str,
    layers: &[Layer],
    command: &[&str],
) -> Pushed {
    for layer in layers {
        hub.push_blob_as(&layer.digest, layer.blob.clone());
    }
    let config = config(architecture, layers, command).to_string();
    let config_size = config.len();
    let config = hub.push_blob(config);
    let (manifest_type, config_type, layer_type) = if is_docker {
        let of_layer = "application/vnd.docker.image.rootfs.diff.tar.gzip";
        (DOCKER_MANIFEST, "application/vnd.docker.container.image.v1+json", of_layer)
    } else {
        let of_layer = "application/vnd.oci.image.layer.v1.tar+gzip";
        (OCI_MANIFEST, "application/vnd.oci.image.config.v1+json", of_layer)
    };
    let descriptors: Vec<Value> = layers
        .iter()
        .map(|layer| {
            let media_type =
                if layer.is_gzip { layer_type } else { "application/vnd.oci.image.layer.v1.tar" };
            json!({ "mediaType": media_type, "digest": layer.digest, "size": layer.blob.size() })
        })
        .collect();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": manifest_type,
        "config": { "mediaType": config_type, "digest": config, "size": config_size },
        "layers": descriptors,
    });
    let manifest = manifest.to_string();
    let size = manifest.len();
    Pushed { manifest: hub.push_manifest(repository, manifest_type, manifest, tags), size, config }
}

fn config(architecture: &str, layers: &[Layer], command: &[&str]) -> Value {
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| layer.diff_id).collect();
    let history: Vec<Value> = layers
        .iter()
        .map(|layer| json!({ "created": "1970-01-01T00:00:00Z", "created_by": layer.made_of }))
        .collect();
    json!({
        "architecture": architecture,
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": { "Env": ["PATH=/bin"], "Cmd": command, "WorkingDir": "/" },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
        "history": history,
    })
}
