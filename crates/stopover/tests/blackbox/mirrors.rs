//! A registry with mirrors of its own: two stand-ins, of which one has what the other has, or lies about it.

use hubsim::{
    Fault, Hub, Kind, Options, Target, Times,
    images::{self, Image},
};
use oci::Digest;

use crate::{
    rig::assert_error,
    support::{Mirror, MirrorOptions, blob_path, manifest_path, noise, push_blob},
};

const REPOSITORY: &str = "library/alpine";
/// More than the end of a blob that is held back until all of it is right.
const LARGE: usize = 700_001;
const SMALL: usize = 50_000;

/// A registry and a place that has the same image, and what pulls from both.
struct Pair {
    hub: Hub,
    other: Hub,
    image: Image,
    mirror: Mirror,
}

impl Pair {
    async fn first() -> Self {
        Self::with(Options::default(), asked("first")).await
    }

    async fn with(of_registry: Options, options: MirrorOptions) -> Self {
        let (hub, other) = (Hub::start(of_registry).await, Hub::start(Options::default()).await);
        let image = images::busybox(&hub, REPOSITORY, "3.20", images::Format::OciIndex);
        images::busybox(&other, REPOSITORY, "3.20", images::Format::OciIndex);
        let options = options.env("STOPOVER_UPSTREAM__MIRRORS__GCR__URL", other.registry_url());
        let mirror = Mirror::start_with(&hub, options).await;
        Self { hub, other, image, mirror }
    }

    /// Puts a blob of noise at both.
    fn push(&self, seed: u64, size: usize) -> (Digest, Vec<u8>) {
        let bytes = noise(seed, size);
        push_blob(&self.other, REPOSITORY, &bytes);
        (push_blob(&self.hub, REPOSITORY, &bytes), bytes)
    }

    /// Pulls the image as docker does: the tag, the platform's manifest, its blobs; asserts that all is right.
    async fn pull(&self, when: &str) {
        let index = self.mirror.get(&manifest_path(REPOSITORY, "3.20")).await;
        assert_eq!((index.status, index.digest()), (200, self.image.manifest), "{when}: {}", index.text());
        let platform = self.mirror.get(&manifest_path(REPOSITORY, self.image.platform)).await;
        assert_eq!((platform.status, platform.digest()), (200, self.image.platform), "{when}");
        for blob in self.image.blobs() {
            let reply = self.mirror.get(&blob_path(REPOSITORY, blob)).await;
            assert_eq!((reply.status, reply.is_whole, reply.digest()), (200, true, *blob), "{when}");
        }
    }

    async fn counted(&self, result: &str) -> f64 {
        let labels = ["registry=\"docker.io\"", "mirror=\"gcr\"", &*format!("result=\"{result}\"")];
        self.mirror.metric("stopover_mirror_requests_total", &labels).await
    }
}

fn asked(when: &str) -> MirrorOptions {
    MirrorOptions::default().env("STOPOVER_UPSTREAM__MIRRORS__GCR__WHEN", when)
}

#[tokio::test]
async fn a_cold_pull_costs_the_registry_one_head_where_a_mirror_comes_first() {
    let pair = Pair::first().await;
    pair.pull("cold").await;
    let at_registry = pair.hub.counters();
    assert_eq!((at_registry.manifest_get, at_registry.manifest_head), (0, 1), "{at_registry:#?}");
    assert_eq!(at_registry.blob_get + at_registry.blob_head, 0, "{at_registry:#?}");
    assert_eq!(pair.counted("ok").await, 2.0 + pair.image.blobs().count() as f64);
    let at_mirror = pair.other.counters();
    assert_eq!((at_mirror.manifest_head, at_mirror.manifest_get), (0, 2), "{at_mirror:#?}");
    let lines = pair.mirror.log_lines().into_iter().filter(|line| line["outcome"] == "filled");
    assert!(lines.clone().count() >= 2, "each says who answered");
    lines.for_each(|line| assert_eq!(line["lane"], "mirror gcr", "{line}"));
}

#[tokio::test]
async fn a_mirror_for_bad_times_is_left_alone_in_good_ones() {
    let pair = Pair::with(Options::default(), MirrorOptions::default()).await;
    pair.pull("in good times").await;
    assert_eq!(pair.other.counters().connections, 0);
}

#[tokio::test]
async fn what_a_spent_quota_does_not_bring_a_mirror_does() {
    let pair = Pair::with(Options { quota: Some(0), ..Options::default() }, asked("low")).await;
    pair.pull("with a spent quota").await;
    assert_eq!(pair.other.counters().manifest_get, 2);
    assert!(pair.hub.counters().manifest_get <= 1, "it is not asked again while it is known");
    let reply = pair.mirror.get(&manifest_path("library/unknown", pair.image.manifest)).await;
    assert_error("what neither has", &reply, 429, "TOOMANYREQUESTS");
}

#[tokio::test]
async fn a_quota_that_runs_low_is_spared_where_a_mirror_has_it() {
    let options = asked("low").env("STOPOVER_UPSTREAM__QUOTA_RESERVE", "50");
    let pair = Pair::with(Options { quota: Some(50), ..Options::default() }, options).await;
    pair.pull("with no more than the reserve").await;
    let at_registry = pair.hub.counters();
    assert_eq!((at_registry.manifest_head, at_registry.manifest_get), (1, 0), "{at_registry:#?}");
    assert_eq!(pair.other.counters().manifest_get, 2);
}

#[tokio::test]
async fn what_a_registry_that_is_down_does_not_bring_a_mirror_does() {
    let pair = Pair::with(Options::default(), asked("low")).await;
    pair.hub.stop_listening().await;
    let reply = pair.mirror.get(&manifest_path(REPOSITORY, pair.image.platform)).await;
    assert_eq!((reply.status, reply.digest()), (200, pair.image.platform));
    for blob in pair.image.blobs() {
        assert_eq!(pair.mirror.get(&blob_path(REPOSITORY, blob)).await.digest(), *blob);
    }
    let reply = pair.mirror.get(&manifest_path(REPOSITORY, "3.20")).await;
    assert_error("a tag is the registry's to tell", &reply, 503, "UNAVAILABLE");
    assert_eq!(pair.other.counters().manifest_head, 0);
}

#[tokio::test]
async fn whatever_a_mirror_says_the_client_gets_what_the_digest_says() {
    for (fault, result) in [
        (Fault::Status(404, None), "not_found"),
        (Fault::Status(401, None), "unauthorized"),
        (Fault::Status(403, None), "denied"),
        (Fault::Status(429, Some(60)), "too_many_requests"),
        (Fault::Status(503, None), "unavailable"),
        (Fault::Close, "unavailable"),
        (Fault::Html200, "bad_answer"),
        (Fault::TokenDown, "unavailable"),
        (Fault::ManifestNotItsDigest, "wrong_content"),
        (Fault::ContentEncodingGzip, "bad_answer"),
        (Fault::CutAfter(100), "broken"),
    ] {
        let (pair, what) = (Pair::first().await, fault.to_string());
        pair.other.fault(fault, Times::Always);
        pair.pull(&what).await;
        assert!(pair.counted(result).await >= 1.0, "{what}: {}", pair.mirror.metrics().await);
    }
}

#[tokio::test]
async fn a_mirror_that_is_down_or_hangs_delays_a_pull_and_no_more() {
    let pair = Pair::first().await;
    pair.other.fault(Fault::Hang, Times::Always);
    pair.pull("while it hangs").await;
    assert_eq!(pair.counted("timeout").await, 3.0, "after that it rests");
    pair.other.release();

    let pair = Pair::first().await;
    pair.other.stop_listening().await;
    pair.pull("while it is down").await;
    assert!(pair.counted("unavailable").await <= 3.0);
}

#[tokio::test]
async fn a_manifest_that_is_wrong_at_a_mirror_ends_the_trust_in_it() {
    let pair = Pair::first().await;
    pair.other.fault(Fault::ManifestNotItsDigest, Times::Once);
    pair.pull("after a wrong manifest").await;
    assert_eq!(pair.counted("wrong_content").await, 1.0);
    assert_eq!(pair.other.counters().manifest_get, 1, "it is left out after that");
    assert_eq!(pair.other.counters().blob_get, 0);
    let warned = |line: &serde_json::Value| line["level"] == "warn" && line["mirror"] == "gcr";
    assert_eq!(pair.mirror.log_lines().iter().filter(|line| warned(line)).count(), 1);
}

#[tokio::test]
async fn a_small_blob_that_is_wrong_at_a_mirror_is_right_for_the_client() {
    let pair = Pair::first().await;
    let (digest, bytes) = pair.push(1, SMALL);
    pair.other.fault(Fault::FlipByte(10), Times::Always);
    let reply = pair.mirror.get(&blob_path(REPOSITORY, digest)).await;
    assert_eq!((reply.status, reply.is_whole), (200, true));
    assert!(reply.body == bytes);
    assert_eq!(pair.counted("wrong_content").await, 1.0);
}

#[tokio::test]
async fn a_large_blob_that_is_wrong_at_a_mirror_is_cut_and_right_the_next_time() {
    let pair = Pair::first().await;
    let (digest, bytes) = pair.push(2, LARGE);
    pair.other.fault(Fault::FlipByte(LARGE as u64 / 2), Times::Always);
    let reply = pair.mirror.get(&blob_path(REPOSITORY, digest)).await;
    assert!(!reply.is_whole, "nobody gets the whole of what is wrong");
    let reply = pair.mirror.get(&blob_path(REPOSITORY, digest)).await;
    assert!(reply.is_whole && reply.body == bytes);
    assert_eq!((pair.other.counters().blob_get, pair.hub.counters().blob_get), (1, 1));
}

#[tokio::test]
async fn a_blob_of_another_length_at_a_mirror_is_the_registrys() {
    for fault in [Fault::WrongLength(5), Fault::WrongLength(-5)] {
        let (pair, what) = (Pair::first().await, fault.to_string());
        let at_blobs = Target::kind(Kind::Cdn);
        pair.other.fault_on(fault, Times::Always, at_blobs);
        pair.pull(&what).await;
        assert_eq!(pair.counted("wrong_content").await, 1.0, "{what}");
    }
}

#[tokio::test]
async fn a_blob_that_breaks_off_at_a_mirror_goes_on_at_the_registry() {
    let pair = Pair::first().await;
    let (digest, bytes) = pair.push(3, LARGE);
    pair.other.fault(Fault::CutAfter(300_000), Times::Always);
    let reply = pair.mirror.get(&blob_path(REPOSITORY, digest)).await;
    assert!(reply.is_whole && reply.body == bytes);
    let ranges: Vec<_> = pair.hub.counters().requests.into_iter().filter_map(|seen| seen.range).collect();
    assert!(ranges.iter().all(|range| range == "bytes=300000-") && !ranges.is_empty(), "{ranges:?}");
}

#[tokio::test]
async fn ranges_of_what_is_cold_come_from_a_mirror_too() {
    let pair = Pair::first().await;
    let (digest, bytes) = pair.push(4, 8 << 20);
    let (from, to) = (6 << 20, (6 << 20) + 999);
    let range = format!("bytes={from}-{to}");
    let reply = pair.mirror.get_with(&blob_path(REPOSITORY, digest), &[("range", &range)]).await;
    assert_eq!(reply.status, 206);
    assert!(reply.body == bytes[from..=to]);
    assert_eq!(pair.hub.counters().blob_get, 0);
}

#[tokio::test]
async fn tags_lists_and_heads_are_never_asked_of_a_mirror() {
    let pair = Pair::first().await;
    let (image, mirror) = (&pair.image, &pair.mirror);
    assert_eq!(mirror.head(&manifest_path(REPOSITORY, "3.20")).await.status, 200);
    assert_eq!(mirror.head(&manifest_path(REPOSITORY, image.platform)).await.status, 200);
    assert_eq!(mirror.head(&blob_path(REPOSITORY, image.config)).await.status, 200);
    assert_eq!(mirror.get(&format!("/v2/{REPOSITORY}/tags/list")).await.status, 200);
    assert_eq!(mirror.get(&format!("/v2/{REPOSITORY}/referrers/{}", image.manifest)).await.status, 200);
    assert_eq!(mirror.get(&manifest_path(REPOSITORY, "none")).await.status, 404);
    assert_eq!(pair.other.counters().connections, 0);
}

#[tokio::test]
async fn what_the_registry_has_not_is_not_had_and_remembered() {
    let pair = Pair::with(Options { unknown_is_404: true, ..Options::default() }, asked("first")).await;
    let lost = Digest::of(oci::Algorithm::Sha256, b"lost");
    for _ in 0..3 {
        let reply = pair.mirror.get(&manifest_path(REPOSITORY, lost)).await;
        assert_error("nobody has it", &reply, 404, "MANIFEST_UNKNOWN");
    }
    assert_eq!((pair.hub.counters().manifest_get, pair.other.counters().manifest_get), (1, 1));
}

#[tokio::test]
async fn a_mirror_that_has_it_gives_no_other_repository_a_right_to_it() {
    let pair = Pair::first().await;
    pair.pull("the public one").await;
    let (config, platform) = (pair.image.config, pair.image.platform);
    pair.other.link_blob("library/another", &config);
    for path in [blob_path("library/another", config), manifest_path("library/another", platform)] {
        let reply = pair.mirror.get(&path).await;
        assert_ne!(reply.status, 200, "the registry says no to {path}");
    }
    let at_mirror = pair.other.counters().requests;
    assert!(!at_mirror.iter().any(|seen| seen.method == "HEAD"), "{at_mirror:#?}");
}

#[tokio::test]
async fn what_an_account_is_kept_for_never_appears_at_a_mirror() {
    let options = asked("first")
        .env("STOPOVER_UPSTREAM__ACCOUNTS__ANN__USERNAME", "ann")
        .env("STOPOVER_UPSTREAM__ACCOUNTS__ANN__PASSWORD", "pw")
        .env("STOPOVER_UPSTREAM__ACCOUNTS__ANN__REPOSITORIES", "acme");
    let pair = Pair::with(Options::default(), options).await;
    pair.hub.add_account("ann", "pw");
    let private = images::busybox(&pair.hub, "acme/app", "1", images::Format::OciSingle);
    images::busybox(&pair.other, "acme/app", "1", images::Format::OciSingle);
    pair.hub.make_private("acme/app");
    let reply = pair.mirror.get(&manifest_path("acme/app", "1")).await;
    assert_eq!((reply.status, reply.digest()), (200, private.manifest), "{}", reply.text());
    for blob in private.blobs() {
        assert_eq!(pair.mirror.get(&blob_path("acme/app", blob)).await.digest(), *blob);
    }
    pair.hub.stop_listening().await;
    let lost = Digest::of(oci::Algorithm::Sha256, b"lost");
    assert_ne!(pair.mirror.get(&manifest_path("acme/app", lost)).await.status, 200);
    assert_eq!(pair.other.counters().connections, 0);
}

#[tokio::test]
async fn a_mirror_may_have_a_repository_below_a_name_of_its_own() {
    let (hub, ecr) = (Hub::start(Options::default()).await, Hub::start(Options::default()).await);
    let image = images::large(&hub, REPOSITORY, "3.20", 100_000);
    images::large(&ecr, &format!("docker/{REPOSITORY}"), "3.20", 100_000);
    let options = MirrorOptions::default()
        .env("STOPOVER_UPSTREAM__MIRRORS__ECR__URL", ecr.registry_url())
        .env("STOPOVER_UPSTREAM__MIRRORS__ECR__WHEN", "first")
        .env("STOPOVER_UPSTREAM__MIRRORS__ECR__REPOSITORY_PREFIX", "docker")
        .env("STOPOVER_UPSTREAM__MIRRORS__ECR__REPOSITORIES", "library");
    let mirror = Mirror::start_with(&hub, options).await;
    assert_eq!(mirror.get(&manifest_path(REPOSITORY, "3.20")).await.digest(), image.manifest);
    assert_eq!((hub.counters().manifest_get, ecr.counters().manifest_get), (0, 1));
    images::busybox(&hub, "grafana/grafana", "1", images::Format::OciIndex);
    assert_eq!(mirror.get(&manifest_path("grafana/grafana", "1")).await.status, 200);
    assert_eq!((hub.counters().manifest_get, ecr.counters().manifest_get), (1, 1));
}
