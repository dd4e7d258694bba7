//! `stopover garbage-collect`, on a tree as registry:2 or Stopover leaves it.

use std::{collections::BTreeMap, fs, path::Path};

use hubsim::{Hub, Options, images};
use oci::Digest;

use crate::{
    rig::{
        program::{self, Ended},
        volume::{Volume, contents},
    },
    support::{Mirror, MirrorOptions, blob_path, manifest_path},
};

async fn collect(root: &Path, flags: &[&str]) -> Ended {
    let arguments = [&["garbage-collect"], flags].concat();
    let path = root.display().to_string();
    program::run(root, &arguments, &[("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY", &path)]).await
}

/// Returns every path below a folder, with the bytes of files.
fn tree(folder: &Path) -> BTreeMap<String, Option<Vec<u8>>> {
    let (mut folders, mut found) = (vec![folder.to_owned()], BTreeMap::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let bytes = if path.is_dir() { None } else { Some(fs::read(&path).unwrap()) };
            if bytes.is_none() {
                folders.push(path.clone());
            }
            found.insert(path.display().to_string(), bytes);
        }
    }
    found
}

fn manifest(volume: &Volume<'_>, repository: &str, layer: &Digest, more: &str) -> Digest {
    let config = volume.blob(format!("{{\"config of\":\"{layer}{more}\"}}").as_bytes());
    let one = |kind: &str, digest: &Digest| {
        format!(r#"{{"mediaType":"application/vnd.oci.image.{kind}","digest":"{digest}","size":1}}"#)
    };
    let text = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[{}]{more}}}"#,
        one("config.v1+json", &config),
        one("layer.v1.tar", layer)
    );
    let digest = volume.blob(text.as_bytes());
    volume.revision_link(repository, &digest);
    for blob in [&config, layer] {
        volume.layer_link(repository, blob);
    }
    digest
}

fn index(volume: &Volume<'_>, repository: &str, child: &Digest) -> Digest {
    let text = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{child}","size":1}}]}}"#
    );
    let digest = volume.blob(text.as_bytes());
    volume.revision_link(repository, &digest);
    digest
}

fn has(root: &Path, digest: &Digest) -> bool {
    contents(root).iter().any(|(found, _)| found == digest)
}

#[tokio::test]
async fn what_no_manifest_names_is_swept_and_a_dry_run_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (root, volume) = (folder.path(), Volume::new(folder.path()));
    let (layer, orphan) = (volume.blob(b"a layer"), volume.blob(b"an orphan"));
    let child = manifest(&volume, "library/a", &layer, "");
    let top = index(&volume, "library/a", &child);
    volume.tag("library/a", "1", &top);
    let untagged = manifest(&volume, "org/deep/b", &layer, ",\"annotations\":{\"a\":\"b\"}");
    volume.layer_link("library/a", &orphan);
    let gone = Digest::of(oci::Algorithm::Sha256, b"gone");
    volume.revision_link("library/a", &gone);
    volume.tag("library/a", "gone", &gone);
    volume.litter("library/a");
    fs::write(root.join("docker/registry/v2/x.5e.tmp"), b"torn").unwrap();

    let before = tree(root);
    let dry = collect(root, &["--dry-run"]).await;
    assert_eq!(dry.code, Some(0), "{}", dry.err);
    assert!(tree(root) == before, "a dry run changes nothing, not even the lock");
    for line in [
        "library/a\n",
        &format!("library/a: marking manifest {child}\n"),
        &format!("library/a: marking blob {layer}\n"),
        "org/deep/b\n",
        "\n6 blobs marked, 1 blobs and 0 manifests eligible for deletion\n",
        &format!("\nblob eligible for deletion: {orphan}\n"),
        &format!("\nlibrary/a: layer link eligible for deletion: {orphan}\n"),
        &format!("\nlibrary/a: dangling manifest link eligible for deletion: {gone}\n"),
        "\nlibrary/a: dangling tag eligible for deletion: gone\n",
        "\nlibrary/a: dangling tag eligible for deletion: torn\n",
        "_uploads\n",
        "9 bytes would be freed; nothing was changed\n",
    ] {
        assert!(dry.out.contains(line), "{line:?} is not in\n{}", dry.out);
    }

    let wet = collect(root, &["-q"]).await;
    assert_eq!((wet.code, wet.out.as_str()), (Some(0), ""), "{}", wet.err);
    for digest in [&layer, &child, &top, &untagged] {
        assert!(has(root, digest), "{digest}");
    }
    assert!(!has(root, &orphan));
    let left = tree(root).into_keys().collect::<Vec<_>>().join("\n");
    for swept in ["_uploads", "5e.tmp", "tags/gone", "tags/torn", &orphan.hex(), &gone.hex()] {
        assert!(!left.contains(swept), "{swept} is left: {left}");
    }
    let again = collect(root, &[]).await;
    assert!(again.out.contains(", 0 blobs and 0 manifests eligible"), "{}", again.out);
}

#[tokio::test]
async fn untagged_manifests_go_when_asked_for_but_not_those_that_a_tagged_one_needs() {
    let folder = tempfile::tempdir().unwrap();
    let (root, volume) = (folder.path(), Volume::new(folder.path()));
    let (shared, alone) = (volume.blob(b"shared"), volume.blob(b"alone"));
    let child = manifest(&volume, "a", &shared, "");
    let top = index(&volume, "a", &child);
    volume.tag("a", "1", &top);
    let signs = format!(
        r#","subject":{{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"{top}","size":1}}"#
    );
    let signature = manifest(&volume, "a", &volume.blob(b"signature"), &signs);
    let old = manifest(&volume, "a", &alone, "");
    let also_old = manifest(&volume, "a", &shared, ",\"annotations\":{}");

    let wet = collect(root, &["--delete-untagged"]).await;
    assert_eq!(wet.code, Some(0), "{}", wet.err);
    for digest in [&child, &top, &signature, &shared] {
        assert!(has(root, digest), "{digest}\n{}", wet.out);
    }
    for digest in [&old, &also_old] {
        assert!(wet.out.contains(&format!("manifest eligible for deletion: a@{digest}\n")), "{}", wet.out);
        assert!(!has(root, digest));
    }
    assert!(!has(root, &alone));
}

/// registry:2 takes the revision of a manifest that expired away, and leaves its tag, by which Stopover serves it.
#[tokio::test]
async fn a_manifest_that_only_a_tag_names_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (root, volume) = (folder.path(), Volume::new(folder.path()));
    let layer = volume.blob(b"a layer");
    let expired = manifest(&volume, "a", &layer, "");
    volume.tag("a", "1", &expired);
    let link = format!("docker/registry/v2/repositories/a/_manifests/revisions/sha256/{}", expired.hex());
    fs::remove_dir_all(root.join(link)).unwrap();
    for flags in [&[][..], &["-m"]] {
        let ended = collect(root, flags).await;
        assert!(ended.out.contains(", 0 blobs and 0 manifests eligible"), "{}{}", ended.out, ended.err);
        assert!(has(root, &expired) && has(root, &layer), "{}", ended.out);
        assert!(!ended.out.contains("dangling tag"), "{}", ended.out);
    }
}

#[tokio::test]
async fn what_a_manifest_that_cannot_be_parsed_may_name_and_foreign_layers_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (root, volume) = (folder.path(), Volume::new(folder.path()));
    let layers = ["a", "b", "of windows"].map(|text| volume.blob(text.as_bytes()));
    let whole = manifest(&volume, "a", &layers[0], "");
    let riddle = volume.blob(br#"{"things":[]}"#);
    volume.layer_link("a", &layers[1]);
    volume.tag("a", "1", &riddle);
    let windows = volume.blob(
        format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[{{"mediaType":"application/vnd.oci.image.layer.nondistributable.v1.tar","digest":"{}","size":10,"urls":["https://a.example/"]}}]}}"#,
            layers[2]
        )
        .as_bytes(),
    );
    volume.tag("windows", "1", &windows);
    volume.layer_link("windows", &layers[2]);
    let ended = collect(root, &["-m"]).await;
    assert!(
        ended.out.contains(&format!("a: keeping all, since {riddle} cannot be parsed\n")),
        "{}",
        ended.out
    );
    for digest in layers.iter().chain([&whole, &riddle, &windows]) {
        assert!(has(root, digest), "{digest}\n{}{}", ended.out, ended.err);
    }
}

/// What is behind such a link, and serves, would be taken for garbage.
#[tokio::test]
async fn a_symbolic_link_among_the_repositories_stops_it_before_anything_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let (root, volume) = (folder.path(), Volume::new(folder.path()));
    let kept = manifest(&volume, "org/a", &volume.blob(b"a layer"), "");
    let orphan = volume.blob(b"an orphan");
    let repositories = root.join("docker/registry/v2/repositories");
    fs::rename(repositories.join("org"), root.join("elsewhere")).unwrap();
    std::os::unix::fs::symlink(root.join("elsewhere"), repositories.join("org")).unwrap();
    let ended = collect(root, &[]).await;
    assert_eq!(ended.code, Some(1), "{}", ended.out);
    assert!(ended.err.contains("repositories/org, expected a folder"), "{}", ended.err);
    assert!(has(root, &kept) && has(root, &orphan));
}

#[tokio::test]
async fn it_refuses_while_somebody_serves_and_what_is_left_is_served_afterwards() {
    let hub = Hub::start(Options::default()).await;
    let image = images::busybox(&hub, "library/busybox", "1", images::Format::OciIndex);
    let mut mirror = Mirror::start_with(&hub, MirrorOptions::default()).await;
    for path in [manifest_path("library/busybox", "1"), manifest_path("library/busybox", image.platform)] {
        assert_eq!(mirror.get(&path).await.status, 200);
    }
    for blob in image.blobs() {
        assert_eq!(mirror.get(&blob_path("library/busybox", blob)).await.status, 200);
        mirror.until_stored(blob).await;
    }
    let root = mirror.root().to_owned();
    for flags in [&["--dry-run"][..], &[]] {
        let ended = collect(&root, flags).await;
        assert_eq!(ended.code, Some(1));
        assert!(ended.err.contains("only while nobody serves from there"), "{}", ended.err);
    }
    mirror.sigterm();
    mirror.wait_exit().await;
    let ended = collect(&root, &["-m"]).await;
    assert!(ended.out.contains(", 0 blobs and 0 manifests eligible"), "{}{}", ended.out, ended.err);

    let mirror = mirror.restart().await;
    hub.reset_counters();
    for blob in image.blobs() {
        assert_eq!(mirror.get(&blob_path("library/busybox", blob)).await.digest(), *blob);
    }
    assert_eq!(hub.counters().total(), 0, "nothing is asked for again");
}

#[tokio::test]
async fn a_folder_without_a_registry_is_a_mistake() {
    let folder = tempfile::tempdir().unwrap();
    let ended = collect(folder.path(), &[]).await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.err.contains("holds no docker/registry/v2"), "{}", ended.err);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "and nothing is made in it");
}
