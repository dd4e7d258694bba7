//! Manifests: what they look like, what they cost, what is refused.

use futures_util::future::join_all;
use hubsim::{
    Fault, Hub, Kind, Options, Target, Times,
    images::{self, Format, Image},
};
use oci::{DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};

use crate::support::{Mirror, MirrorOptions, get, hub_and_mirror, manifest_path, until};

const REPOSITORY: &str = "library/busybox";

fn latest() -> String {
    manifest_path(REPOSITORY, "latest")
}

fn pushed(hub: &Hub) -> Image {
    images::busybox(hub, REPOSITORY, "latest", Format::OciIndex)
}

/// Statement 17.
#[tokio::test]
async fn a_head_of_a_tag_says_type_length_and_digest_and_sends_nothing() {
    let (hub, mirror) = hub_and_mirror().await;
    for (format, media_type) in [
        (Format::OciIndex, OCI_INDEX),
        (Format::OciSingle, OCI_MANIFEST),
        (Format::DockerList, DOCKER_LIST),
        (Format::DockerSingle, DOCKER_MANIFEST),
    ] {
        let tag = format!("{format:?}");
        let image = images::busybox(&hub, REPOSITORY, &tag, format);
        let path = manifest_path(REPOSITORY, &tag);
        let cold = mirror.head(&path).await;
        let length = mirror.get(&path).await.body.len() as u64;
        let by_digest = manifest_path(REPOSITORY, image.manifest);
        for (time, head) in
            [("cold", cold), ("warm", mirror.head(&path).await), ("by digest", mirror.head(&by_digest).await)]
        {
            assert_eq!((head.status, head.body.len()), (200, 0), "{time} {tag}");
            assert_eq!(head.header("content-type"), media_type, "{time}");
            assert_eq!(head.header("docker-content-digest"), image.manifest.to_string(), "{time} {tag}");
            assert_eq!(head.content_length(), length, "{time} {tag}");
        }
    }
}

/// Statement 18.
#[tokio::test]
async fn a_manifest_is_the_registrys_byte_for_byte() {
    let (hub, mirror) = hub_and_mirror().await;
    // Spaces, an unknown field and a line's end that nobody would write again in this way.
    let odd = format!(
        "{{ \"schemaVersion\": 2,\r\n\t\"mediaType\":\"{OCI_INDEX}\", \"x\":1e0, \"manifests\": [ ] }}\n"
    );
    let digest = hub.push_manifest(REPOSITORY, OCI_INDEX, odd.as_bytes(), &["odd"]);
    for reference in ["odd".to_owned(), digest.to_string(), "odd".to_owned()] {
        let reply = mirror.get(&manifest_path(REPOSITORY, reference)).await;
        assert_eq!((reply.status, reply.text()), (200, odd.clone()));
        assert_eq!(reply.header("docker-content-digest"), digest.to_string());
        assert_eq!(reply.digest(), digest);
    }
    let cold = mirror.restart().await.get(&manifest_path(REPOSITORY, digest)).await;
    assert_eq!(cold.text(), odd, "what is on disk is as it came");
}

/// Statement 19.
#[tokio::test]
async fn what_a_head_named_can_be_pulled_after_the_tag_has_moved() {
    let (hub, mirror) = hub_and_mirror().await;
    let old = images::busybox(&hub, REPOSITORY, "latest", Format::OciSingle);
    let named = mirror.head(&latest()).await.header("docker-content-digest").to_owned();
    assert_eq!(named, old.manifest.to_string());
    let new = images::busybox(&hub, REPOSITORY, "next", Format::OciSingle);
    hub.tag(REPOSITORY, "latest", &new.manifest);
    let reply = mirror.get(&manifest_path(REPOSITORY, named)).await;
    assert_eq!((reply.status, reply.digest()), (200, old.manifest));
}

/// Statement 20.
#[tokio::test]
async fn what_a_client_accepts_changes_nothing() {
    let hub = Hub::start(Options { strict_accept: true, ..Options::default() }).await;
    let mirror = Mirror::start(&hub).await;
    let image = pushed(&hub);
    let list = [OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX].join(", ");
    let apart = |types: [&'static str; 4]| types.map(|one| ("accept", one)).to_vec();
    let accepts = [
        vec![],
        vec![("accept", "*/*")],
        vec![("accept", list.as_str())],
        apart([OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST]),
        apart([DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST]),
        vec![("accept", "application/vnd.docker.distribution.manifest.v1+json")],
        vec![("accept", "text/html;q=0.1")],
    ];
    for (count, accept) in accepts.iter().enumerate() {
        let reply = mirror.get_with(&latest(), accept).await;
        assert_eq!((reply.status, reply.digest()), (200, image.manifest), "{accept:?}");
        assert_eq!(reply.header("content-type"), OCI_INDEX, "{accept:?}");
        // Each of them first on a mirror that has nothing, too.
        let cold = Mirror::start(&hub).await;
        let reply = cold.get_with(&latest(), accept).await;
        assert_eq!((reply.status, reply.digest()), (200, image.manifest), "cold {accept:?}");
        assert_eq!(hub.counters().manifest_get, 2 + count as u64);
    }
}

/// Statement 21.
#[tokio::test]
async fn the_registry_is_always_told_that_every_type_is_accepted() {
    let (hub, mirror) = hub_and_mirror().await;
    let image = pushed(&hub);
    let accept = [("accept", "application/json")];
    mirror.get_with(&latest(), &accept).await;
    mirror.get_with(&manifest_path(REPOSITORY, image.platform), &accept).await;
    let seen = hub.counters().requests;
    let asked: Vec<_> = seen.iter().filter(|seen| seen.path.contains("/manifests/")).collect();
    assert!(asked.len() >= 3, "{asked:#?}");
    for seen in asked {
        let accepted = seen.accept.as_deref().unwrap_or_default();
        for media_type in [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST] {
            assert!(accepted.contains(media_type), "{} {} accepts {accepted:?}", seen.method, seen.path);
        }
    }
}

/// Statement 22.
#[tokio::test]
async fn a_cached_manifest_is_asked_for_no_more() {
    let (hub, mirror) = hub_and_mirror().await;
    let image = pushed(&hub);
    let path = manifest_path(REPOSITORY, image.manifest);
    assert_eq!(mirror.get(&path).await.status, 200);
    hub.reset_counters();
    for _ in 0..3 {
        assert_eq!(mirror.get(&path).await.digest(), image.manifest);
        assert_eq!(mirror.head(&path).await.status, 200);
    }
    let mirror = mirror.restart().await;
    assert_eq!(mirror.get(&path).await.digest(), image.manifest, "from the disk");
    assert_eq!(hub.counters().total(), 0);
}

/// Statement 23.
#[tokio::test]
async fn pulls_of_an_unchanged_tag_cost_heads_alone() {
    let hub = Hub::start(Options::default()).await;
    let options = MirrorOptions::default().tags_never_fresh().env("STOPOVER_CACHE__CHECK_DEADLINE", "30s");
    let mirror = Mirror::start_with(&hub, options).await;
    let image = pushed(&hub);
    assert_eq!(mirror.get(&latest()).await.status, 200);
    hub.reset_counters();
    for _ in 0..10 {
        assert_eq!(mirror.get(&latest()).await.digest(), image.manifest);
    }
    assert_eq!((hub.counters().manifest_head, hub.counters().manifest_get), (10, 0));
    let moved = images::busybox(&hub, REPOSITORY, "latest", Format::DockerList);
    for _ in 0..10 {
        assert_eq!(mirror.get(&latest()).await.digest(), moved.manifest);
    }
    let counters = hub.counters();
    assert_eq!((counters.manifest_head, counters.manifest_get), (20, 1), "one GET when the digest changed");
    hub.tag(REPOSITORY, "latest", &image.manifest);
    assert_eq!(mirror.get(&latest()).await.digest(), image.manifest);
    assert_eq!(hub.counters().manifest_get, 1, "what it moved back to is here");
}

/// Statement 23.
#[tokio::test]
async fn a_tag_within_its_freshness_costs_nothing() {
    let (hub, mirror) = hub_and_mirror().await;
    let image = pushed(&hub);
    mirror.get(&latest()).await;
    hub.reset_counters();
    for _ in 0..100 {
        assert_eq!(mirror.get(&latest()).await.digest(), image.manifest);
    }
    assert_eq!(hub.counters().total(), 0);
}

/// Pulls the manifests by tag, or as docker and containerd do: the tag by HEAD, then all by digest.
async fn pull_manifests(mirror: &Mirror, image: &Image, head_first: bool) {
    let mut reference = "latest".to_owned();
    if head_first {
        reference = mirror.head(&latest()).await.header("docker-content-digest").to_owned();
    }
    for (reference, digest) in [(reference, image.manifest), (image.platform.to_string(), image.platform)] {
        let reply = mirror.get(&manifest_path(REPOSITORY, reference)).await;
        assert_eq!((reply.status, reply.digest()), (200, digest));
    }
}

/// Statement 24.
#[tokio::test]
async fn a_cold_pull_of_many_platforms_costs_two_manifests_for_one_client_and_for_a_hundred() {
    for (clients, head_first) in [(1, [false, false]), (1, [true, true]), (100, [false, true])] {
        let (hub, mirror) = hub_and_mirror().await;
        let image = pushed(&hub);
        join_all((0..clients).map(|number| pull_manifests(&mirror, &image, head_first[number % 2]))).await;
        let counters = hub.counters();
        assert_eq!(counters.manifest_get, 2, "{clients} clients");
        assert_eq!(counters.of(&image.manifest).manifest_gets, 1);
        assert_eq!(counters.of(&image.platform).manifest_gets, 1);
        assert_eq!(counters.manifest_head, 1, "{clients} clients");
    }
}

/// Statement 25.
#[tokio::test]
async fn a_hundred_who_want_one_cold_tag_ask_once() {
    let hub = Hub::start(Options::default()).await;
    let patient = MirrorOptions::default().env("STOPOVER_UPSTREAM__ANSWER_TIMEOUT", "60s");
    let mirror = Mirror::start_with(&hub, patient).await;
    let image = pushed(&hub);
    hub.fault_on(Fault::Hang, Times::Once, Target::kind(Kind::Manifests));
    let url = format!("{}{}", mirror.url(), latest());
    let clients: Vec<_> = (0..100)
        .map(|_| {
            let url = url.clone();
            tokio::spawn(async move { get(&url, &[]).await })
        })
        .collect();
    hub.until(|counters| counters.manifest_head == 1).await;
    mirror.until_metric("stopover_connections", |open| open >= 100.0).await;
    hub.release();
    for client in clients {
        let reply = client.await.expect("a client does not panic");
        assert_eq!((reply.status, reply.digest()), (200, image.manifest));
    }
    assert_eq!((hub.counters().manifest_head, hub.counters().manifest_get), (1, 1));
}

/// Statement 26.
#[tokio::test]
async fn a_registry_that_does_not_tell_by_head_is_asked_by_one_get() {
    for fault in [Fault::HeadRefused, Fault::HeadNoDigest] {
        let (hub, mirror) = hub_and_mirror().await;
        let image = pushed(&hub);
        hub.fault(fault.clone(), Times::Always);
        let reply = mirror.get(&latest()).await;
        assert_eq!((reply.status, reply.digest()), (200, image.manifest), "{fault}");
        assert_eq!(reply.header("docker-content-digest"), image.manifest.to_string(), "{fault}");
        assert_eq!(hub.counters().manifest_get, 1, "{fault}");
        let head = mirror.head(&latest()).await;
        assert_eq!(head.header("docker-content-digest"), image.manifest.to_string(), "{fault}");
        assert_eq!(hub.counters().manifest_get, 1, "{fault}: what is known is not asked again");
    }
}

/// Statement 26.
#[tokio::test]
async fn a_clients_head_is_answered_also_where_the_registry_refuses_heads() {
    let (hub, mirror) = hub_and_mirror().await;
    let image = pushed(&hub);
    hub.fault(Fault::HeadRefused, Times::Always);
    let head = mirror.head(&latest()).await;
    assert_eq!((head.status, head.header("content-type"), head.body.len()), (200, OCI_INDEX, 0));
    assert_eq!(head.header("docker-content-digest"), image.manifest.to_string());
    assert_eq!(mirror.get(&latest()).await.digest(), image.manifest);
    assert_eq!(hub.counters().manifest_get, 1, "the GET that answered the HEAD is used");
}

/// Statement 35.
#[tokio::test]
async fn a_client_that_has_the_manifest_is_told_so() {
    let (hub, mirror) = hub_and_mirror().await;
    let image = pushed(&hub);
    let quoted = format!("\"{}\"", image.manifest);
    for time in ["cold", "warm"] {
        let reply = mirror.get(&latest()).await;
        assert_eq!(reply.header("etag"), quoted, "{time}");
        let same = mirror.get_with(&latest(), &[("if-none-match", &quoted)]).await;
        assert_eq!((same.status, same.body.len(), same.header("etag")), (304, 0, quoted.as_str()), "{time}");
        let other = mirror.get_with(&latest(), &[("if-none-match", "\"sha256:other\"")]).await;
        assert_eq!((other.status, other.digest()), (200, image.manifest));
    }
    until("the manifest is stored", || mirror.blob_file(&image.manifest).exists().then_some(())).await;
}
