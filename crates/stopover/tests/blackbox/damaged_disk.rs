//! Stored content that is not what it was: seen, put aside, fetched again.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
};

use hubsim::{
    Hub,
    images::{self, Format},
};
use oci::Digest;

use crate::support::{Mirror, blob_path, hub_and_mirror, manifest_path, noise, push_blob, until};

const REPOSITORY: &str = "library/damaged";
const SIZE: usize = 300_001;
const QUARANTINE: &str = "stopover/quarantine";

/// What happens to a file.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Damage {
    BitFlipped,
    /// The same, by someone who sets the time of the last write back.
    BitFlippedInSecret,
    CutInHalf,
    Emptied,
    Extended,
    Removed,
}

const ALL: [Damage; 6] = [
    Damage::BitFlipped,
    Damage::BitFlippedInSecret,
    Damage::CutInHalf,
    Damage::Emptied,
    Damage::Extended,
    Damage::Removed,
];

async fn inflict(damage: Damage, path: &Path) {
    until_the_clock_of_files_has_moved(path).await;
    let file = OpenOptions::new().read(true).write(true).open(path).expect("it is stored");
    let modified = file.metadata().and_then(|metadata| metadata.modified()).expect("there is a time");
    let len = file.metadata().expect("it is stored").len();
    match damage {
        Damage::BitFlipped | Damage::BitFlippedInSecret => {
            let mut byte = [0];
            file.read_exact_at(&mut byte, len / 2).expect("it can be read");
            file.write_all_at(&[byte[0] ^ 1], len / 2).expect("it can be written");
        }
        Damage::CutInHalf => file.set_len(len / 2).expect("it can be cut"),
        Damage::Emptied => file.set_len(0).expect("it can be emptied"),
        Damage::Extended => file.set_len(len + 1).expect("it can be extended"),
        Damage::Removed => std::fs::remove_file(path).expect("it can be removed"),
    }
    if damage == Damage::BitFlippedInSecret {
        file.set_modified(modified).expect("the time can be set");
    }
}

/// Files' times move in steps of some milliseconds; real damage does not come within the step of the store.
async fn until_the_clock_of_files_has_moved(path: &Path) {
    let changed = |path: &Path| {
        let metadata = path.metadata().expect("the file is there");
        (metadata.ctime(), metadata.ctime_nsec())
    };
    let folder = tempfile::tempdir_in(path.parent().expect("it stands in a folder")).expect("it can be made");
    let stored = changed(path);
    until("the clock of files moves", || {
        let probe = folder.path().join("probe");
        File::create(&probe).expect("it can be made");
        (changed(&probe) > stored).then_some(())
    })
    .await;
}

async fn pulls(mirror: &Mirror, path: &str, digest: &Digest) {
    let reply = mirror.get(path).await;
    assert_eq!((reply.status, reply.is_whole), (200, true));
    assert_eq!(reply.digest(), *digest);
}

/// Damages stored content, pulls it, and checks what came of it.
async fn is_repaired(
    hub: &Hub,
    mirror: Mirror,
    damage: Damage,
    path: &str,
    digest: &Digest,
    restart: bool,
) -> Mirror {
    pulls(&mirror, path, digest).await;
    mirror.until_stored(digest).await;
    pulls(&mirror, path, digest).await;
    let file = mirror.blob_file(digest);
    let quarantined = mirror.files_below(QUARANTINE).len();
    inflict(damage, &file).await;
    let mirror = if restart { mirror.restart().await } else { mirror };
    hub.reset_counters();
    pulls(&mirror, path, digest).await;
    let counters = hub.counters();
    assert_eq!(counters.cdn_get + counters.manifest_get, 1, "it is fetched again");
    until("the right content is stored again", || {
        let stored = std::fs::read(&file).ok()?;
        (Digest::of(digest.algorithm(), &stored) == *digest).then_some(())
    })
    .await;
    let put_aside = mirror.files_below(QUARANTINE).len() - quarantined;
    assert_eq!(put_aside, usize::from(damage != Damage::Removed), "what was wrong is kept to look at");
    hub.reset_counters();
    pulls(&mirror, path, digest).await;
    assert_eq!(hub.counters().total(), 0, "once");
    mirror
}

/// Statement 54.
#[tokio::test]
async fn a_blob_damaged_on_disk_is_not_served_but_fetched_again() {
    let (hub, mut mirror) = hub_and_mirror().await;
    let digest = push_blob(&hub, REPOSITORY, &noise(54, SIZE));
    for damage in ALL {
        println!("{damage:?}");
        mirror = is_repaired(&hub, mirror, damage, &blob_path(REPOSITORY, digest), &digest, false).await;
    }
}

/// Statement 54.
#[tokio::test]
async fn a_blob_damaged_on_disk_is_not_served_after_a_restart() {
    let (hub, mut mirror) = hub_and_mirror().await;
    let digest = push_blob(&hub, REPOSITORY, &noise(540, SIZE));
    for damage in ALL {
        println!("{damage:?}");
        mirror = is_repaired(&hub, mirror, damage, &blob_path(REPOSITORY, digest), &digest, true).await;
    }
}

/// Statement 54.
#[tokio::test]
async fn a_manifest_damaged_on_disk_is_not_served_after_a_restart() {
    let (hub, mut mirror) = hub_and_mirror().await;
    let image = images::busybox(&hub, REPOSITORY, "latest", Format::OciSingle);
    for damage in ALL {
        println!("{damage:?}");
        let path = manifest_path(REPOSITORY, image.manifest);
        mirror = is_repaired(&hub, mirror, damage, &path, &image.manifest, true).await;
    }
}

/// Statement 54.
#[tokio::test]
async fn a_part_of_a_damaged_blob_is_right() {
    let (hub, mirror) = hub_and_mirror().await;
    let bytes = noise(541, SIZE);
    let digest = push_blob(&hub, REPOSITORY, &bytes);
    let path = blob_path(REPOSITORY, digest);
    pulls(&mirror, &path, &digest).await;
    mirror.until_stored(&digest).await;
    inflict(Damage::BitFlipped, &mirror.blob_file(&digest)).await;
    let middle = SIZE / 2;
    let range = format!("bytes={}-{}", middle - 10, middle + 9);
    let reply = mirror.get_with(&path, &[("range", &range)]).await;
    assert_eq!(reply.status, 206);
    assert!(reply.body == bytes[middle - 10..middle + 10]);
}

/// Statement 54.
#[tokio::test]
async fn a_file_of_a_fill_damaged_between_two_runs_never_becomes_a_blob() {
    let (hub, mirror) = hub_and_mirror().await;
    let bytes = noise(542, 2 << 20);
    let digest = push_blob(&hub, REPOSITORY, &bytes);
    let path = blob_path(REPOSITORY, digest);
    hub.fault(hubsim::Fault::StallAfter(1 << 20), hubsim::Times::Once);
    let mut answer = mirror.open(&path, &[]).await;
    answer.read(1 << 20).await.expect("half of it comes");
    let spool = mirror.files_below("stopover/spool").pop().expect("there is a file");
    inflict(Damage::BitFlipped, &spool).await;
    let mirror = mirror.restart().await;
    let reply = mirror.get(&path).await;
    assert!(!reply.is_whole || reply.body == bytes, "nobody gets the wrong bytes as a whole");
    pulls(&mirror, &path, &digest).await;
}

/// Statement 54.
#[tokio::test]
async fn a_blob_cut_on_disk_while_it_is_sent_makes_no_complete_answer() {
    /// More than the kernel keeps for one connection.
    const LARGE: u64 = 24 << 20;
    let (hub, mirror) = hub_and_mirror().await;
    let digest = images::blobs(&hub, REPOSITORY, 1, LARGE)[0];
    let path = blob_path(REPOSITORY, digest);
    pulls(&mirror, &path, &digest).await;
    mirror.until_stored(&digest).await;
    let mut answer = mirror.open(&path, &[]).await;
    answer.read(1000).await.expect("the first bytes come");
    inflict(Damage::CutInHalf, &mirror.blob_file(&digest)).await;
    let rest = answer.rest().await;
    assert!(!rest.is_whole && (rest.body.len() as u64) < LARGE - 1000, "{} bytes came", rest.body.len());
    pulls(&mirror, &path, &digest).await;
}
