//! The folder of the content: one process at a time, an index that may be lost, a volume of registry:2 that is taken
//! over, and content that nobody uses.

use std::{fs, path::Path};

use hubsim::{Hub, Options, images};
use oci::{DOCKER_MANIFEST, Digest};
use serde_json::json;

use crate::{
    rig::{assert_error, eventually, program::run, volume, volume::Volume},
    support::{Mirror, MirrorOptions, blob_path, manifest_path, noise, push_blob, until},
};

const REPOSITORY: &str = "library/alpine";

/// Two processes that wrote to one folder would undo each other's work.
#[tokio::test]
async fn a_second_process_on_one_folder_says_so_and_ends() {
    let hub = Hub::start(Options::default()).await;
    let mirror = Mirror::start(&hub).await;
    let root = mirror.root().to_str().unwrap();
    let env = [
        ("STOPOVER_STORAGE__ROOT", root),
        ("STOPOVER_HTTP__ADDR", "127.0.0.1:0"),
        ("STOPOVER_ADMIN__ADDR", "off"),
    ];
    let ended = run(mirror.root(), &["serve"], &env).await;
    assert_eq!(ended.code, Some(1), "{}", ended.err);
    assert!(ended.err.contains("another process serves from this folder"), "{}", ended.err);
    assert!(ended.err.contains("storage.root"), "the key is named: {}", ended.err);
    assert_eq!(mirror.get("/v2/").await.status, 200, "the first goes on");
}

/// A folder that cannot be used is said, with the key.
#[tokio::test]
async fn a_folder_that_cannot_be_used_is_named_and_nothing_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "x").unwrap();
    let env = [("STOPOVER_STORAGE__ROOT", file.to_str().unwrap()), ("STOPOVER_HTTP__ADDR", "127.0.0.1:0")];
    let ended = run(folder.path(), &["serve"], &[env[0], env[1], ("STOPOVER_ADMIN__ADDR", "off")]).await;
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.err.contains("storage.root") && ended.err.contains(file.to_str().unwrap()),
        "{}",
        ended.err
    );
}

type Break = fn(&Path);

/// Decision 3: the index can be deleted at any time. Nor does it matter how it is broken.
#[tokio::test]
async fn an_index_that_is_lost_or_broken_costs_no_content() {
    let breaks: [(&str, Break); 4] = [
        ("deleted", |index| volume::remove_index(index.parent().unwrap().parent().unwrap())),
        ("garbage", |index| fs::write(index, noise(1, 100_000)).unwrap()),
        ("truncated", |index| {
            fs::OpenOptions::new().write(true).open(index).unwrap().set_len(5_000).unwrap()
        }),
        ("empty", |index| fs::write(index, b"").unwrap()),
    ];
    for (what, breaks) in breaks {
        let hub = Hub::start(Options::default()).await;
        let image = images::busybox(&hub, REPOSITORY, "1", images::Format::OciIndex);
        let mut mirror = Mirror::start(&hub).await;
        assert_eq!(mirror.get(&manifest_path(REPOSITORY, "1")).await.status, 200);
        assert_eq!(mirror.get(&manifest_path(REPOSITORY, image.platform)).await.status, 200);
        for blob in image.blobs() {
            assert_eq!(mirror.get(&blob_path(REPOSITORY, blob)).await.status, 200);
            mirror.until_stored(blob).await;
        }
        mirror.sigterm();
        mirror.wait_exit().await;
        breaks(&mirror.root().join("stopover/index.sqlite"));
        let mirror = mirror.restart().await;
        hub.reset_counters();
        let reply = mirror.get(&manifest_path(REPOSITORY, "1")).await;
        assert_eq!((reply.status, reply.digest()), (200, image.manifest), "{what}");
        assert_eq!(reply.header("content-type"), oci::OCI_INDEX, "{what}");
        assert_eq!(
            mirror.get(&manifest_path(REPOSITORY, image.platform)).await.digest(),
            image.platform,
            "{what}"
        );
        for blob in image.blobs() {
            assert_eq!(mirror.get(&blob_path(REPOSITORY, blob)).await.digest(), *blob, "{what}");
        }
        let counters = hub.counters();
        assert_eq!((counters.manifest_get, counters.blob_get), (0, 0), "{what}: {counters:#?}");
        assert!(
            counters.manifest_head <= 1,
            "{what}: the tag is checked, since nobody knows when it was: {counters:#?}"
        );
    }
}

/// Lays out an image as registry:2 would, and returns its blobs and its manifest.
fn image_of_registry2(root: &Path, repository: &str, tag: &str) -> (Vec<Digest>, Digest) {
    let volume = Volume::new(root);
    let (config, layer) = (b"{\"architecture\":\"amd64\",\"os\":\"linux\"}".to_vec(), noise(7, 300_000));
    let blobs = vec![volume.blob(&config), volume.blob(&layer)];
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json", "digest": blobs[0], "size": config.len(),
        },
        "layers": [{
            "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "digest": blobs[1], "size": layer.len(),
        }],
    });
    let manifest = volume.blob(manifest.to_string().as_bytes());
    blobs.iter().for_each(|blob| volume.layer_link(repository, blob));
    volume.revision_link(repository, &manifest);
    volume.tag(repository, tag, &manifest);
    (blobs, manifest)
}

/// Decision 3: the volume of registry:2 is adopted in place; what it has is served, also while the registry is down.
#[tokio::test]
async fn a_volume_of_registry2_is_taken_over_with_all_that_it_has() {
    let hub = Hub::start(Options::default()).await;
    let volume = tempfile::tempdir().unwrap();
    let (blobs, manifest) = image_of_registry2(volume.path(), REPOSITORY, "3.20");
    Volume::new(volume.path()).litter(REPOSITORY);
    hub.stop_listening().await;
    let mirror = Mirror::start_with(&hub, MirrorOptions::default().root(volume.path())).await;
    let reply = mirror.get(&manifest_path("alpine", "3.20")).await;
    assert_eq!(
        (reply.status, reply.digest(), reply.header("content-type")),
        (200, manifest, DOCKER_MANIFEST)
    );
    let by_digest = mirror.get(&manifest_path(REPOSITORY, manifest)).await;
    assert_eq!((by_digest.status, by_digest.header("warning")), (200, ""));
    for blob in &blobs {
        let reply = mirror.get(&blob_path(REPOSITORY, blob)).await;
        assert_eq!((reply.status, reply.digest(), reply.header("warning")), (200, *blob, ""));
        assert_error(
            "another repository",
            &mirror.get(&blob_path("library/x", blob)).await,
            503,
            "UNAVAILABLE",
        );
    }
    assert_error("a torn link", &mirror.get(&manifest_path(REPOSITORY, "torn")).await, 503, "UNAVAILABLE");
    assert_eq!(hub.counters().total(), 0);
}

/// Registry:2 does not check what it stores: what is wrong in its volume is not served, but fetched.
#[tokio::test]
async fn what_is_wrong_in_a_volume_of_registry2_is_fetched_anew() {
    let hub = Hub::start(Options::default()).await;
    let image = images::busybox(&hub, REPOSITORY, "1", images::Format::OciSingle);
    let volume = tempfile::tempdir().unwrap();
    for digest in [image.config, image.manifest] {
        let path = volume::data_path(volume.path(), &digest);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, b"half of it").unwrap();
    }
    let laid_out = Volume::new(volume.path());
    laid_out.layer_link(REPOSITORY, &image.config);
    laid_out.revision_link(REPOSITORY, &image.manifest);
    laid_out.tag(REPOSITORY, "1", &image.manifest);
    let mirror = Mirror::start_with(&hub, MirrorOptions::default().root(volume.path())).await;
    assert_eq!(mirror.get(&manifest_path(REPOSITORY, "1")).await.digest(), image.manifest);
    assert_eq!(mirror.get(&blob_path(REPOSITORY, image.config)).await.digest(), image.config);
    mirror.until_stored(&image.config).await;
    mirror.until_stored(&image.manifest).await;
    volume::assert_only_right_bytes(volume.path());
}

/// Decision 3: what is stored here can be handed back, so it stands where registry:2 looks for it.
#[tokio::test]
async fn what_is_pulled_is_laid_out_as_registry2_has_it() {
    let hub = Hub::start(Options::default()).await;
    let image = images::busybox(&hub, REPOSITORY, "1", images::Format::DockerSingle);
    let mirror = Mirror::start(&hub).await;
    assert_eq!(mirror.get(&manifest_path(REPOSITORY, "1")).await.status, 200);
    for blob in image.blobs() {
        assert_eq!(mirror.get(&blob_path(REPOSITORY, blob)).await.status, 200);
        mirror.until_stored(blob).await;
    }
    let repository = mirror.root().join("docker/registry/v2/repositories").join(REPOSITORY);
    let mut links: Vec<(String, Digest)> =
        image.blobs().map(|blob| (format!("_layers/sha256/{}/link", blob.hex()), *blob)).collect();
    let hex = image.manifest.hex();
    links.push((format!("_manifests/revisions/sha256/{hex}/link"), image.manifest));
    links.push(("_manifests/tags/1/current/link".to_owned(), image.manifest));
    links.push((format!("_manifests/tags/1/index/sha256/{hex}/link"), image.manifest));
    for (link, digest) in links {
        let path = repository.join(&link);
        let text = until(&link, || fs::read_to_string(&path).ok()).await;
        assert_eq!(text, digest.to_string(), "{link}: no newline, as registry:2 writes it");
    }
    let mut names: Vec<_> =
        fs::read_dir(mirror.root()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["docker", "stopover"], "ours is one folder beside");
}

/// `storage.ttl`, registry:2's `proxy.ttl`: what nobody uses goes, what is used stays.
#[tokio::test]
async fn what_nobody_uses_is_removed_and_what_is_used_stays() {
    let hub = Hub::start(Options::default()).await;
    let (used, unused) =
        (push_blob(&hub, REPOSITORY, &noise(1, 100)), push_blob(&hub, REPOSITORY, &noise(2, 100)));
    let mirror = Mirror::start_with(&hub, MirrorOptions::default().env("REGISTRY_PROXY_TTL", "4s")).await;
    for blob in [used, unused] {
        assert_eq!(mirror.get(&blob_path(REPOSITORY, blob)).await.status, 200);
        mirror.until_stored(&blob).await;
    }
    eventually("what nobody uses is removed", async || {
        assert_eq!(mirror.get(&blob_path(REPOSITORY, used)).await.digest(), used);
        (!mirror.blob_file(&unused).exists()).then_some(())
    })
    .await;
    assert!(mirror.blob_file(&used).exists());
    assert_eq!(hub.counters().of(&used).blob_gets, 1);
    // It is counted after the file is gone.
    eventually("it is counted", async || {
        (mirror.metric("stopover_expired_total", &[]).await >= 1.0).then_some(())
    })
    .await;
    let again = mirror.get(&blob_path(REPOSITORY, unused)).await;
    assert_eq!((again.status, again.digest()), (200, unused), "it is fetched again when it is wanted");
}
