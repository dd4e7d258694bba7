//! The images are what they say: digests, sizes and diff_ids are right, and the same each time.

use std::{io::Read, process::Command};

#[allow(dead_code, reason = "each file of tests uses its part of the client")]
mod client;

use client::{bearer, get, get_blob};
use flate2::read::GzDecoder;
use hubsim::{
    Hub, Options,
    images::{self, Format, Image},
};
use oci::{Algorithm, Digest};
use serde_json::Value;

async fn document(hub: &Hub, repository: &str, reference: impl std::fmt::Display) -> Value {
    let bearer = bearer(hub, repository, &[]).await;
    let url = format!("{}/v2/{repository}/manifests/{reference}", hub.registry_url());
    get(&url, &[("authorization", &bearer)]).await.json()
}

/// Pulls linux/amd64 whole and checks every digest, size and diff_id on the way; returns the layers' archives.
async fn check(hub: &Hub, repository: &str, tag: &str, image: &Image) -> Vec<Vec<u8>> {
    let top = document(hub, repository, tag).await;
    if image.manifest != image.platform {
        assert_eq!(top["manifests"][0]["digest"], image.platform.to_string());
        assert_eq!(top["manifests"][1]["platform"]["architecture"], "arm64");
    }
    let manifest = document(hub, repository, image.platform).await;
    assert_eq!(manifest["config"]["digest"], image.config.to_string());
    let config: Value = serde_json::from_slice(&get_blob(hub, repository, &image.config, None).await.body)
        .expect("config is JSON");
    assert_eq!((&config["architecture"], &config["os"]), (&"amd64".into(), &"linux".into()));
    let mut archives = Vec::new();
    for (at, digest) in image.layers.iter().enumerate() {
        let blob = get_blob(hub, repository, digest, None).await.body;
        assert_eq!(Digest::of(Algorithm::Sha256, &blob), *digest);
        assert_eq!(manifest["layers"][at]["digest"], digest.to_string());
        assert_eq!(manifest["layers"][at]["size"], blob.len());
        let mut archive = Vec::new();
        if manifest["layers"][at]["mediaType"].as_str().is_some_and(|media_type| media_type.ends_with("gzip"))
        {
            GzDecoder::new(&blob[..]).read_to_end(&mut archive).expect("the layer is gzip");
        } else {
            archive = blob;
        }
        let diff_id = Digest::of(Algorithm::Sha256, &archive).to_string();
        assert_eq!(config["rootfs"]["diff_ids"][at], diff_id);
        archives.push(archive);
    }
    assert_eq!(config["rootfs"]["diff_ids"].as_array().map(Vec::len), Some(archives.len()));
    archives
}

#[tokio::test]
async fn every_image_is_what_its_manifests_say() {
    let hub = Hub::start(Options::default()).await;
    for (tag, format) in [
        ("docker", Format::DockerSingle),
        ("oci", Format::OciSingle),
        ("oci-index", Format::OciIndex),
        ("docker-list", Format::DockerList),
    ] {
        let image = images::busybox(&hub, "library/busybox", tag, format);
        let archives = check(&hub, "library/busybox", tag, &image).await;
        let mut files = tar::Archive::new(&archives[1][..]);
        let mut file =
            files.entries().expect("it is an archive").next().expect("it has a file").expect("whole");
        let mut text = String::new();
        file.read_to_string(&mut text).expect("the file is text");
        assert_eq!(text, format!("library/busybox:{tag}\n"));
    }
    let image = images::large(&hub, "library/large", "latest", 3_000_001);
    let archives = check(&hub, "library/large", "latest", &image).await;
    let mut files = tar::Archive::new(&archives[1][..]);
    let file = files.entries().expect("it is an archive").next().expect("it has a file").expect("whole");
    assert_eq!(file.size(), 3_000_001);
}

#[tokio::test]
async fn the_image_of_many_layers_is_as_prometheus() {
    let hub = Hub::start(Options::default()).await;
    let image = images::many_layers(&hub, "prom/prometheus", "latest");
    assert_eq!(image.layers.len(), 12);
    assert!((65_000_000..75_000_000).contains(&image.layer_bytes), "{}", image.layer_bytes);
    check(&hub, "prom/prometheus", "latest", &image).await;
    let other = Hub::start(Options::default()).await;
    let again = images::many_layers(&other, "prom/prometheus", "latest");
    assert_eq!((again.manifest, again.layers), (image.manifest, image.layers));
}

#[tokio::test]
async fn the_busybox_of_the_layer_runs() {
    let hub = Hub::start(Options::default()).await;
    let image = images::busybox(&hub, "library/busybox", "latest", Format::OciSingle);
    let archive = check(&hub, "library/busybox", "latest", &image).await.remove(0);
    let root = std::env::temp_dir().join(format!("hubsim-images-{}", std::process::id()));
    tar::Archive::new(&archive[..]).unpack(&root).expect("the layer unpacks");
    let ran = Command::new(root.join("bin/busybox")).args(["echo", "it", "runs"]).output();
    std::fs::remove_dir_all(&root).expect("the folder can be removed");
    assert_eq!(ran.expect("the program starts").stdout, b"it runs\n");
}

#[tokio::test]
async fn blobs_that_share_their_memory_are_different_ones() {
    let hub = Hub::start(Options::default()).await;
    let digests = images::blobs(&hub, "library/blobs", 3, 2_500_000);
    for digest in &digests {
        let blob = get_blob(&hub, "library/blobs", digest, None).await.body;
        assert_eq!((blob.len(), Digest::of(Algorithm::Sha256, &blob)), (2_500_000, *digest));
    }
    assert_ne!(digests[0], digests[1]);
}
