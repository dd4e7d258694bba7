//! A volume that registry:2 or registry:3 has filled, taken over where it stands: what is whole is served without a
//! request for it, what is damaged is fetched again, and what is none of ours is left alone.
//!
//! tests/clients/volume.sh does the same with Debian's docker-registry, and hands the volume back to it.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use hubsim::{Hub, Options, kinds};
use serde_json::json;
use tempfile::TempDir;

use crate::{
    rig::{assert_error, assert_pulls, assert_stale, eventually, volume, volume::Volume},
    support::{Mirror, MirrorOptions, blob_path, manifest_path, until},
};

const REPOSITORY: &str = "library/kinds";
/// What registry:2 can have stored: it knows no other manifests than these, and no other algorithm.
const KINDS: [&str; 8] = [
    "image",
    "docker-image",
    "docker-list",
    "duplicate-layers",
    "empty-blob",
    "helm-chart",
    "attestations",
    "docker-without-type",
];

/// A Hub, and a volume that holds some of it, as a proxy that was registry:2 until now leaves it.
struct Adopted {
    hub: Hub,
    volume: TempDir,
    contents: Vec<kinds::Content>,
}

impl Adopted {
    async fn of(kinds: &[&str]) -> Self {
        let hub = Hub::start(Options::default()).await;
        let volume = tempfile::tempdir().unwrap();
        let all = kinds::push_all(&hub, REPOSITORY).into_iter();
        let contents: Vec<_> = all.filter(|content| kinds.contains(&content.name)).collect();
        assert_eq!(contents.len(), kinds.len(), "they are known");
        let laid_out = Volume::new(volume.path());
        contents.iter().for_each(|content| laid_out.content(REPOSITORY, content));
        Self { hub, volume, contents }
    }

    async fn one(kind: &str) -> Self {
        Self::of(&[kind]).await
    }

    fn content(&self) -> &kinds::Content {
        &self.contents[0]
    }

    fn root(&self) -> &Path {
        self.volume.path()
    }

    fn repository(&self) -> PathBuf {
        self.root().join("docker/registry/v2/repositories").join(REPOSITORY)
    }

    async fn start(&self) -> Mirror {
        self.start_with(MirrorOptions::default()).await
    }

    async fn start_with(&self, options: MirrorOptions) -> Mirror {
        Mirror::start_with(&self.hub, options.root(self.root())).await
    }
}

/// Returns the inode and length of each file of content.
fn files(root: &Path) -> BTreeMap<PathBuf, (u64, u64)> {
    let of = |path: PathBuf| {
        let metadata = path.metadata().unwrap();
        (path, (metadata.ino(), metadata.len()))
    };
    volume::contents(root).into_iter().map(|(_, path)| of(path)).collect()
}

async fn until_rebuilt(mirror: &Mirror) -> serde_json::Value {
    mirror.until_line("the tree was read", |line| line["msg"] == "the index was rebuilt from the tree").await
}

#[tokio::test]
async fn a_volume_is_served_where_it_stands_and_the_registry_asked_about_tags_alone() {
    let adopted = Adopted::of(&KINDS).await;
    let before = files(adopted.root());
    let mirror = adopted.start().await;
    until_rebuilt(&mirror).await;
    for content in &adopted.contents {
        assert_pulls("adopted", &mirror, REPOSITORY, content).await;
    }
    let counters = adopted.hub.counters();
    assert_eq!((counters.manifest_get, counters.blob_get, counters.blob_head), (0, 0, 0), "{counters:#?}");
    // One for each tag, and one for each manifest of which nobody but the registry knows the type.
    assert_eq!(counters.manifest_head, KINDS.len() as u64 + 2, "{counters:#?}");
    assert_eq!(files(adopted.root()), before, "nothing was copied, moved or added");
}

#[tokio::test]
async fn a_volume_is_served_whole_while_the_registry_is_down() {
    let adopted = Adopted::of(&KINDS).await;
    let before = files(adopted.root());
    adopted.hub.stop_listening().await;
    let mirror = adopted.start().await;
    for content in &adopted.contents {
        assert_pulls("adopted", &mirror, REPOSITORY, content).await;
        let by_tag = mirror.get(&manifest_path(REPOSITORY, &content.tag)).await;
        assert_stale(content.name, &by_tag, &content.top().digest);
    }
    let list = mirror.get(&format!("/v2/{REPOSITORY}/tags/list")).await;
    let mut tags = KINDS;
    tags.sort_unstable();
    assert_eq!(list.json()["tags"], json!(tags));
    assert_eq!(files(adopted.root()), before);
}

/// registry:3 stores sha512 too.
#[tokio::test]
async fn content_by_sha512_is_adopted_as_well() {
    let adopted = Adopted::of(&["sha512-image", "sha512-index"]).await;
    adopted.hub.stop_listening().await;
    let mirror = adopted.start().await;
    for content in &adopted.contents {
        assert_pulls("adopted", &mirror, REPOSITORY, content).await;
    }
}

/// registry:2 removes a blob that has expired for all repositories, and its link in one.
#[tokio::test]
async fn a_link_to_a_blob_that_is_gone_costs_one_fetch_of_it() {
    let adopted = Adopted::one("image").await;
    let mirror = adopted.start().await;
    for (digest, _) in &adopted.content().blobs {
        fs::remove_file(volume::data_path(adopted.root(), digest)).unwrap();
    }
    assert_pulls("adopted", &mirror, REPOSITORY, adopted.content()).await;
    assert_pulls("adopted", &mirror, REPOSITORY, adopted.content()).await;
    for (digest, _) in &adopted.content().blobs {
        assert_eq!(adopted.hub.counters().of(digest).blob_gets, 1);
        mirror.until_stored(digest).await;
    }
    assert_eq!(adopted.hub.counters().manifest_get, 0);
    volume::assert_only_right_bytes(adopted.root());
}

#[tokio::test]
async fn a_link_to_a_manifest_that_is_gone_costs_one_fetch_of_it_and_is_no_answer_without_the_registry() {
    for down in [false, true] {
        let adopted = Adopted::one("image").await;
        let digest = adopted.content().top().digest;
        fs::remove_dir_all(volume::data_path(adopted.root(), &digest).parent().unwrap()).unwrap();
        if down {
            adopted.hub.stop_listening().await;
        }
        let mirror = adopted.start().await;
        for reference in [adopted.content().tag.clone(), digest.to_string()] {
            let reply = mirror.get(&manifest_path(REPOSITORY, reference)).await;
            if down {
                assert_error("gone", &reply, 503, "UNAVAILABLE");
            } else {
                assert_eq!((reply.status, reply.digest()), (200, digest));
            }
        }
        assert_eq!(adopted.hub.counters().manifest_get, u64::from(!down));
    }
}

/// registry:2 wrote links in place, so a crash could leave empty ones; a torn one names nothing either.
#[tokio::test]
async fn links_that_are_empty_or_torn_are_none_and_are_written_anew() {
    for text in ["", "sha256:", "sha256:00", "\0\0\0\0", "no digest at all\n"] {
        let adopted = Adopted::one("docker-list").await;
        let links = links_below(&adopted.repository());
        assert!(links.len() >= 6, "layers, revisions, and those of a tag: {links:?}");
        links.iter().for_each(|link| fs::write(link, text).unwrap());
        let mirror = adopted.start().await;
        assert_pulls("adopted", &mirror, REPOSITORY, adopted.content()).await;
        let counters = adopted.hub.counters();
        assert_eq!((counters.manifest_get, counters.blob_get), (0, 0), "{text:?}: the bytes are here");
        until("every link is right again", || {
            let right = |link: &PathBuf| fs::read_to_string(link).is_ok_and(|text| text.len() == 71);
            links.iter().all(right).then_some(())
        })
        .await;
    }
}

fn links_below(folder: &Path) -> Vec<PathBuf> {
    let (mut folders, mut links) = (vec![folder.to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { &mut folders } else { &mut links }.push(path);
        }
    }
    links
}

/// registry:2 does not check what it has: a power cut leaves files cut short, or of zeros.
#[tokio::test]
async fn content_that_is_cut_emptied_or_of_zeros_is_never_served_and_fetched_once() {
    type Damage = fn(&[u8]) -> Vec<u8>;
    let damages: [(&str, Damage); 4] = [
        ("cut", |bytes| bytes[..bytes.len() / 2].to_vec()),
        ("emptied", |_| Vec::new()),
        ("zeros", |bytes| vec![0; bytes.len()]),
        ("too long", |bytes| [bytes, b"\n"].concat()),
    ];
    for (what, damage) in damages {
        let adopted = Adopted::one("docker-list").await;
        let before = files(adopted.root());
        for path in before.keys() {
            fs::write(path, damage(&fs::read(path).unwrap())).unwrap();
        }
        let mirror = adopted.start().await;
        assert_pulls("adopted", &mirror, REPOSITORY, adopted.content()).await;
        assert_pulls("adopted", &mirror, REPOSITORY, adopted.content()).await;
        let counters = adopted.hub.counters();
        let (manifests, blobs) = (adopted.content().manifests.len(), adopted.content().blobs.len());
        assert_eq!((counters.manifest_get, counters.blob_get), (manifests as u64, blobs as u64), "{what}");
        for (digest, _) in &adopted.content().blobs {
            mirror.until_stored(digest).await;
        }
        volume::assert_only_right_bytes(adopted.root());
    }
}

/// registry:3 writes beside the place and renames; what a crash leaves of that is no content, no link and no tag.
#[tokio::test]
async fn what_writers_left_half_done_is_passed_over_and_left_alone() {
    let adopted = Adopted::one("image").await;
    let uuid = "2c4b1a52-0b4b-4b34-9d43-7d1ee0d9dba7";
    let repository = adopted.repository();
    let layer = adopted.content().blobs[0].0;
    let left = [
        volume::data_path(adopted.root(), &layer).with_file_name(format!("data.{uuid}.tmp")),
        repository.join(format!("_manifests/tags/image/current/link.{uuid}.tmp")),
        repository.join(format!("_manifests/tags/{uuid}.tmp/current/link.{uuid}.tmp")),
        repository.join(format!("_layers/sha256/{}/link.{uuid}.tmp", layer.hex())),
        repository.join(format!("_uploads/{uuid}/data")),
        repository.join(format!("_uploads/{uuid}/startedat")),
        repository.join(format!("_uploads/{uuid}/hashstates/sha256/0")),
        // A tag that was made, and never became current.
        repository.join(format!("_manifests/tags/half/index/sha256/{}/link", layer.hex())),
        adopted.root().join(format!("scheduler-state.json.{uuid}.tmp")),
    ];
    for path in &left {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, b"half of somethin").unwrap();
    }
    let mirror = adopted.start().await;
    until_rebuilt(&mirror).await;
    assert_pulls("adopted", &mirror, REPOSITORY, adopted.content()).await;
    adopted.hub.stop_listening().await;
    let list = mirror.get(&format!("/v2/{REPOSITORY}/tags/list")).await;
    assert_eq!(list.json()["tags"], json!(["image"]), "and no others");
    for path in &left {
        assert_eq!(fs::read(path).unwrap(), b"half of somethin", "{}", path.display());
    }
}

/// registry:2 counts a content's time from when it was first fetched, and dies of a state that it cannot read. Here the
/// time begins anew, since what was pulled a minute ago may be long overdue there; the file stays as it is, for it.
#[tokio::test]
async fn the_state_of_the_other_ones_scheduler_decides_nothing_and_is_left_alone() {
    let overdue = |adopted: &Adopted| {
        let digests = adopted.content().blobs.iter().map(|(digest, _)| format!("{REPOSITORY}@{digest}"));
        let entry = |key: String| {
            (key.clone(), json!({ "Key": key, "ExpiryData": "2001-01-01T00:00:00Z", "EntryType": 0 }))
        };
        json!(digests.map(entry).collect::<serde_json::Map<_, _>>()).to_string()
    };
    let states: [fn(String) -> String; 4] = [
        |whole| whole,
        |_| String::new(),
        |whole| whole[..whole.len() / 2].to_owned(),
        |_| "null".to_owned(),
    ];
    for state in states {
        let adopted = Adopted::one("image").await;
        let (path, text) = (adopted.root().join("scheduler-state.json"), state(overdue(&adopted)));
        fs::write(&path, &text).unwrap();
        let mirror = adopted.start_with(MirrorOptions::default().env("REGISTRY_PROXY_TTL", "168h")).await;
        until_rebuilt(&mirror).await;
        assert_pulls("adopted", &mirror, REPOSITORY, adopted.content()).await;
        assert_eq!(adopted.hub.counters().blob_get, 0, "nothing was removed");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
}

/// registry:2 lets a manifest expire by removing the link of its revision, and leaves the tag and the manifest. What
/// the tag names is served by it, with all that it names, also while the registry is down.
#[tokio::test]
async fn a_tag_whose_revision_has_expired_there_is_served_whole() {
    for waits in [true, false] {
        let adopted = Adopted::of(&["attestations", "docker-list"]).await;
        fs::remove_dir_all(adopted.repository().join("_manifests/revisions")).unwrap();
        fs::remove_dir_all(adopted.repository().join("_layers")).unwrap();
        adopted.hub.stop_listening().await;
        let mirror = adopted.start().await;
        if waits {
            until_rebuilt(&mirror).await;
        }
        for content in &adopted.contents {
            // As a client does: what the tag names, then what that names.
            let by_tag = mirror.get(&manifest_path(REPOSITORY, &content.tag)).await;
            assert_stale(content.name, &by_tag, &content.top().digest);
            assert_pulls("adopted", &mirror, REPOSITORY, content).await;
        }
    }
}

/// Repositories of other registries stand beside, under their registry's name, and are none of the default one's.
#[tokio::test]
async fn repositories_of_other_registries_in_the_tree_disturb_nobody() {
    let adopted = Adopted::one("image").await;
    let laid_out = Volume::new(adopted.root());
    laid_out.content("ghcr.io/library/kinds", adopted.content());
    let others = laid_out.blob(b"another registry's");
    laid_out.layer_link("ghcr.io/library/kinds", &others);
    adopted.hub.stop_listening().await;
    let mirror = adopted.start().await;
    assert_eq!(until_rebuilt(&mirror).await["manifests"], 2);
    assert_pulls("adopted", &mirror, REPOSITORY, adopted.content()).await;
    let reply = mirror.get(&blob_path(REPOSITORY, others)).await;
    assert_error("another registry's blob", &reply, 503, "UNAVAILABLE");
    let reply = mirror.get(&blob_path("ghcr.io/library/kinds", others)).await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "another registry's"));
}

/// A large volume is served from the first moment; it is read behind that.
#[tokio::test]
async fn a_tree_of_ten_thousand_links_is_served_at_once_and_read_behind() {
    const IMAGES: usize = 2_000;
    let adopted = Adopted::one("image").await;
    let laid_out = Volume::new(adopted.root());
    let layer = laid_out.blob(b"the layer of all");
    let mut last = layer;
    for number in 0..IMAGES {
        let (repository, text) = (format!("org/app{}", number % 50), format!("{{\"number\":{number}}}"));
        let config = laid_out.blob(text.as_bytes());
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": oci::OCI_MANIFEST,
            "config": { "mediaType": "application/json", "digest": config, "size": text.len() },
            "layers": [{ "mediaType": "application/x", "digest": layer, "size": 16 }],
        });
        last = laid_out.blob(manifest.to_string().as_bytes());
        laid_out.revision_link(&repository, &last);
        laid_out.layer_link(&repository, &config);
        laid_out.layer_link(&repository, &layer);
        // Two links each, so that there are five an image.
        laid_out.tag(&repository, &format!("v{number}"), &last);
    }
    adopted.hub.stop_listening().await;
    let mirror = adopted.start().await;
    let repository = format!("org/app{}", (IMAGES - 1) % 50);
    let by_tag = mirror.get(&manifest_path(&repository, format!("v{}", IMAGES - 1))).await;
    assert_stale("the last of them", &by_tag, &last);
    assert_eq!(mirror.get(&blob_path(&repository, layer)).await.text(), "the layer of all");
    assert_pulls("adopted", &mirror, REPOSITORY, adopted.content()).await;
    let read = until_rebuilt(&mirror).await;
    assert_eq!(read["manifests"], IMAGES as u64 + 1);
}

/// What is removed here leaves nothing there that registry:2 would stumble over: no revision without its manifest.
#[tokio::test]
async fn what_has_expired_here_is_gone_for_registry2_too() {
    let adopted = Adopted::one("docker-list").await;
    // A writer of registry:3 that crashed there leaves a file beside the content, which is nobody's content.
    let layer = volume::data_path(adopted.root(), &adopted.content().blobs[0].0);
    fs::write(layer.with_file_name("data.1f0e.tmp"), b"half of it").unwrap();
    let files = files(adopted.root()).len() as f64;
    let mirror = adopted.start_with(MirrorOptions::default().env("REGISTRY_PROXY_TTL", "2s")).await;
    eventually("all of it is removed", async || volume::contents(adopted.root()).is_empty().then_some(()))
        .await;
    until("no revision is left", || {
        let links = links_below(&adopted.repository().join("_manifests/revisions"));
        links.is_empty().then_some(())
    })
    .await;
    let expired = mirror.metric("stopover_expired_total", &[]).await;
    assert!((expired - files).abs() < 0.5, "each of the {files} once: {expired}");
    assert_pulls("adopted", &mirror, REPOSITORY, adopted.content()).await;
    assert_eq!(adopted.hub.counters().manifest_get, adopted.content().manifests.len() as u64);
}
