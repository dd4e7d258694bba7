//! Each answer begins within 30 seconds, or clients give up on the mirror (statement 76, containerd's
//! ResponseHeaderTimeout), and what a client is told when a blob cannot be had.

use futures_util::future::join_all;
use hubsim::{Fault, Hub, Kind, Options, Target, Times, images};

use crate::{
    rig::{assert_error, assert_retry_after},
    support::{Mirror, MirrorOptions, blob_path, manifest_path, push_blob},
};

const REPOSITORY: &str = "library/alpine";

/// Statement 76: wherever the registry falls silent, with the times as they come. The patience of these tests is 30 s.
#[tokio::test]
async fn an_answer_begins_before_clients_give_up_wherever_the_registry_falls_silent() {
    let kinds = [Kind::All, Kind::Challenge, Kind::Token, Kind::Manifests, Kind::Blobs, Kind::Cdn];
    join_all(kinds.map(|kind| async move {
        let hub = Hub::start(Options::default()).await;
        let blob = push_blob(&hub, REPOSITORY, b"a blob");
        images::busybox(&hub, REPOSITORY, "1", images::Format::OciIndex);
        hub.fault_on(Fault::Hang, Times::Always, Target::kind(kind));
        let mirror = Mirror::start(&hub).await;
        let paths = [
            manifest_path(REPOSITORY, "1"),
            manifest_path(REPOSITORY, blob),
            blob_path(REPOSITORY, blob),
            format!("/v2/{REPOSITORY}/tags/list"),
            format!("/v2/{REPOSITORY}/referrers/{blob}"),
        ];
        let (replies, head) =
            tokio::join!(join_all(paths.iter().map(|path| mirror.get(path))), mirror.head(&paths[2]),);
        for (path, reply) in paths.iter().zip(replies) {
            if reply.status >= 400 {
                reply.error_code();
            }
            let fell_silent = match kind {
                Kind::Manifests => path.contains("/manifests/"),
                Kind::Blobs | Kind::Cdn => path.contains("/blobs/"),
                _ => true,
            };
            if fell_silent {
                assert!((503..=504).contains(&reply.status), "{kind}: {path}: {}", reply.text());
                assert_retry_after(path, &reply, 30);
            }
        }
        assert!([200, 503, 504].contains(&head.status), "{kind}: {}", head.status);
    }))
    .await;
}

/// A way to fail with a blob, and what is said of it.
async fn check(fault: Fault, kind: Kind, statuses: &[u16]) {
    let what = format!("{fault} of {kind}");
    let hub = Hub::start(Options::default()).await;
    let image = images::busybox(&hub, REPOSITORY, "1", images::Format::OciSingle);
    let options = MirrorOptions::default().env("STOPOVER_UPSTREAM__ANSWER_TIMEOUT", "300ms");
    let mirror = Mirror::start_with(&hub, options).await;
    assert_eq!(mirror.get(&manifest_path(REPOSITORY, "1")).await.status, 200);
    hub.fault_on(fault, Times::Always, Target::kind(kind));
    let reply = mirror.get(&blob_path(REPOSITORY, image.config)).await;
    assert!(statuses.contains(&reply.status), "{what}: {} {}", reply.status, reply.text());
    let code = match reply.status {
        401 => "UNAUTHORIZED",
        403 => "DENIED",
        404 => "BLOB_UNKNOWN",
        429 => "TOOMANYREQUESTS",
        _ => "UNAVAILABLE",
    };
    assert_error(&what, &reply, statuses[0].max(reply.status), code);
    if [429, 503, 504].contains(&reply.status) {
        assert_retry_after(&what, &reply, if reply.status == 429 { 15 * 60 } else { 30 });
    }
    assert!(!mirror.blob_file(&image.config).exists(), "{what}");
    hub.clear_faults();
}

/// The answer table's column "not cached", for blobs.
#[tokio::test]
async fn a_blob_that_cannot_be_had_is_an_error_that_says_why() {
    let rows: [(Fault, Kind, &[u16]); 14] = [
        (Fault::Status(404, None), Kind::Blobs, &[404]),
        (Fault::Status(401, None), Kind::Blobs, &[401]),
        (Fault::Status(403, None), Kind::Blobs, &[403]),
        (Fault::Status(500, None), Kind::Blobs, &[503]),
        (Fault::Status(503, Some(1)), Kind::Blobs, &[503]),
        (Fault::Abuse429, Kind::Blobs, &[429]),
        (Fault::Close, Kind::Blobs, &[503]),
        (Fault::Close, Kind::Cdn, &[503]),
        (Fault::Hang, Kind::Cdn, &[504]),
        (Fault::Status(500, None), Kind::Cdn, &[503]),
        (Fault::RedirectLoop, Kind::Blobs, &[502]),
        (Fault::Html200, Kind::Cdn, &[502, 503]),
        (Fault::Cdn403, Kind::Cdn, &[403, 503]),
        (Fault::Status(404, None), Kind::Cdn, &[404]),
    ];
    join_all(rows.map(|(fault, kind, statuses)| check(fault, kind, statuses))).await;
}
