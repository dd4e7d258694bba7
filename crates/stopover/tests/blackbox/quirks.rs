//! Each well-known registry with its oddities, one stand-in of its shape for each. docs/registries says the same in words.

use futures_util::future::join_all;
use hubsim::{
    Auth, ChallengeOptions, Fault, Hub, Kind, Options, Redirect, Target, Times, TokenOptions, images,
};
use oci::{DOCKER_MANIFEST, OCI_MANIFEST};
use serde_json::json;
use tempfile::TempDir;

use crate::{
    rig::{assert_error, honey::Honey},
    support::{Mirror, MirrorOptions, noise, push_blob},
};

const MIB: usize = 1 << 20;

/// A registry of some shape and a mirror of it, under the registry's own name and so with its profile.
struct Shaped {
    hub: Hub,
    mirror: Mirror,
    registry: &'static str,
    _file: TempDir,
}

impl Shaped {
    async fn new(registry: &'static str, options: Options) -> Self {
        Self::with(registry, options, "").await
    }

    /// The same with more keys in the registry's table.
    async fn with(registry: &'static str, options: Options, keys: &str) -> Self {
        let hub = Hub::start(options).await;
        let file = TempDir::new().expect("a temporary folder can be made");
        let path = file.path().join("stopover.toml");
        let text = format!("[upstreams.\"{registry}\"]\nurl = \"{}\"\n{keys}\n", hub.registry_url());
        std::fs::write(&path, text).expect("the folder can be written to");
        // The default registry is one that is never asked.
        let options = MirrorOptions::default()
            .upstream("http://127.0.0.1:1")
            .tags_never_fresh()
            .env("STOPOVER_CONFIG", path.to_str().expect("our paths are text"));
        let mirror = Mirror::start_with(&hub, options).await;
        Self { hub, mirror, registry, _file: file }
    }

    fn manifest(&self, repository: &str, reference: impl std::fmt::Display) -> String {
        format!("/v2/{}/{repository}/manifests/{reference}", self.registry)
    }

    fn blob(&self, repository: &str, digest: &oci::Digest) -> String {
        format!("/v2/{}/{repository}/blobs/{digest}", self.registry)
    }

    fn tags(&self, repository: &str, query: &str) -> String {
        format!("/v2/{}/{repository}/tags/list{query}", self.registry)
    }

    async fn assert_pulls(&self, repository: &str, tag: &str, image: &images::Image) {
        let reply = self.mirror.get(&self.manifest(repository, tag)).await;
        assert_eq!((reply.status, reply.digest()), (200, image.manifest), "{}", self.registry);
        for blob in image.blobs() {
            let reply = self.mirror.get(&self.blob(repository, blob)).await;
            assert_eq!((reply.status, reply.digest()), (200, *blob), "{}", self.registry);
        }
    }
}

/// ghcr.io: the token service itself refuses (statement 67), a poor Accept is a 404 (statement 21), 307 to storage.
#[tokio::test]
async fn ghcr_refuses_in_its_token_service_and_wants_the_whole_accept_list() {
    let token = TokenOptions { refuses_with: Some(403), ..TokenOptions::default() };
    let ghcr = Shaped::new("ghcr.io", Options { token, strict_accept: true, ..Options::default() }).await;
    let image = images::busybox(&ghcr.hub, "org/app", "1", images::Format::OciIndex);
    let poor = [("accept", "application/vnd.docker.distribution.manifest.v2+json")];
    let reply = ghcr.mirror.get_with(&ghcr.manifest("org/app", "1"), &poor).await;
    assert_eq!((reply.status, reply.digest()), (200, image.manifest), "{}", reply.text());
    ghcr.assert_pulls("org/app", "1", &image).await;

    ghcr.hub.reset_counters();
    for _ in 0..10 {
        let reply = ghcr.mirror.get(&ghcr.manifest("org/private", "1")).await;
        assert_error("private or not there", &reply, 403, "DENIED");
    }
    assert!(ghcr.hub.counters().total() <= 2, "{:#?}", ghcr.hub.counters());
}

/// quay.io: a 302 that may be kept for a year leads to a URL that is good for minutes.
#[tokio::test]
async fn quay_redirects_each_request_anew() {
    let quay = Shaped::new("quay.io", Options { redirect_status: 302, ..Options::default() }).await;
    let bytes = noise(302, 3 * MIB);
    let digest = push_blob(&quay.hub, "org/app", &bytes);
    quay.hub.fault(Fault::CutAfter(MIB as u64), Times::Once);
    let reply = quay.mirror.get(&quay.blob("org/app", &digest)).await;
    assert!(reply.status == 200 && reply.is_whole && reply.body == bytes, "{}", reply.status);
    let asked = quay.hub.counters().of(&digest);
    assert_eq!((asked.blob_gets, asked.cdn_gets), (2, 2), "each part by a URL of its own");
}

/// quay.io: old manifests come as text/plain.
#[tokio::test]
async fn quay_sends_manifests_as_text_and_clients_get_what_they_are() {
    let quay = Shaped::new("quay.io", Options::default()).await;
    let digest = oci::Digest::of(oci::Algorithm::Sha256, b"{}");
    let manifest = json!({
        "schemaVersion": 2,
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json", "digest": digest, "size": 2,
        },
        "layers": [],
    });
    let pushed = quay.hub.push_manifest("org/old", "text/plain", manifest.to_string(), &["1"]);
    let head = quay.mirror.head(&quay.manifest("org/old", "1")).await;
    assert_eq!((head.status, head.header("content-type")), (200, DOCKER_MANIFEST));
    let reply = quay.mirror.get(&quay.manifest("org/old", "1")).await;
    assert_eq!((reply.digest(), reply.header("content-type")), (pushed, DOCKER_MANIFEST));
}

/// quay.io allows a few requests a second: a burst of clients is none there.
#[tokio::test]
async fn quay_is_asked_by_few_at_once_however_many_want_something() {
    let quay = Shaped::with("quay.io", Options::default(), "requests_max = 4\nrequests_per_second = 0").await;
    let image = images::busybox(&quay.hub, "org/app", "0", images::Format::OciSingle);
    quay.assert_pulls("org/app", "0", &image).await;
    let tags: Vec<String> = (1..=60).map(|tag| format!("1.{tag}")).collect();
    tags.iter().for_each(|tag| quay.hub.tag("org/app", tag, &image.manifest));
    quay.hub.reset_counters();
    quay.hub.configure(|options| options.latency = std::time::Duration::from_millis(10));
    let paths: Vec<String> = tags.iter().map(|tag| quay.manifest("org/app", tag)).collect();
    for reply in join_all(paths.iter().map(|path| quay.mirror.get(path))).await {
        assert_eq!((reply.status, reply.digest()), (200, image.manifest));
    }
    let counters = quay.hub.counters();
    assert_eq!((counters.manifest_head, counters.at_once_max), (60, 4));
}

/// gcr.io and *.pkg.dev: relative redirects, tokens by GET alone, one range at a time, 401s that say nothing.
#[tokio::test]
async fn google_redirects_to_a_path_and_takes_one_range_at_a_time() {
    let options = Options { redirect: Redirect::Relative, redirect_status: 302, ..Options::default() };
    let google = Shaped::new("europe-west1-docker.pkg.dev", options).await;
    let image = images::busybox(&google.hub, "project/repo/app", "1", images::Format::DockerList);
    google.assert_pulls("project/repo/app", "1", &image).await;
    let bytes = noise(206, 5 * MIB);
    let digest = push_blob(&google.hub, "project/repo/app", &bytes);
    let ranges = [("range", "bytes=4000000-4000099,10-19,5000000-5000009")];
    let reply = google.mirror.get_with(&google.blob("project/repo/app", &digest), &ranges).await;
    assert!(matches!(reply.status, 200 | 206), "{}", reply.status);
    let counters = google.hub.counters();
    assert!(
        counters.requests.iter().all(|seen| seen.range.as_deref().is_none_or(|range| !range.contains(','))),
        "{counters:#?}"
    );
    assert!(counters.requests.iter().all(|seen| matches!(seen.method.as_str(), "GET" | "HEAD")));
    assert_eq!(counters.ping, 0, "whether /v2/ is a 401 does not matter: nobody asks it");
}

/// Some of Google's 401s do not say how to get in.
#[tokio::test]
async fn a_401_without_a_challenge_is_a_refusal_and_not_asked_about_again() {
    let google = Shaped::new("gcr.io", Options::default()).await;
    images::busybox(&google.hub, "project/app", "1", images::Format::OciSingle);
    google.hub.fault(Fault::NoWwwAuthenticate, Times::Always);
    let reply = google.mirror.get(&google.manifest("project/app", "1")).await;
    assert_error("no challenge", &reply, 401, "UNAUTHORIZED");
    assert!(google.hub.counters().total() <= 3, "{:#?}", google.hub.counters());
}

/// registry.k8s.io, statement 68: it asks nobody who they are and sends all to where one is asked.
#[tokio::test]
async fn kubernetes_hands_off_to_a_place_that_challenges_and_no_account_goes_there() {
    let account = "username = \"ann\"\npassword = \"s3cret\"";
    let options = Options { auth: Auth::Open, ..Options::default() };
    let front = Shaped::with("registry.k8s.io", options, account).await;
    let challenge = ChallengeOptions { omit_scope: true, ..ChallengeOptions::default() };
    let back = Hub::start(Options { challenge, ..Options::default() }).await;
    front.hub.configure(|options| options.hand_off = Some(format!("{}/v2/prod/images", back.registry_url())));
    let image = images::busybox(&back, "prod/images/pause", "3.9", images::Format::DockerList);
    front.assert_pulls("pause", "3.9", &image).await;
    assert_eq!(front.mirror.get(&front.manifest("pause", image.platform)).await.digest(), image.platform);
    let counters = back.counters();
    assert!(counters.token >= 1, "{counters:#?}");
    assert_eq!((counters.token_basic, front.hub.counters().token), (0, 0), "no account goes anywhere");
    let tokens = counters.requests.iter().filter(|seen| seen.port == "token");
    for seen in tokens {
        assert!(seen.path.contains("scope=repository:prod/images/pause:pull"), "{}", seen.path);
    }
    assert_eq!(front.hub.counters().authorized_at("registry").count(), 0);

    // It chooses by the client's address: where it sent us last is not remembered.
    let other = Hub::start(Options { auth: Auth::Open, ..Options::default() }).await;
    let moved = images::busybox(&other, "elsewhere/pause", "3.9", images::Format::OciSingle);
    front.hub.configure(|options| options.hand_off = Some(format!("{}/v2/elsewhere", other.registry_url())));
    front.assert_pulls("pause", "3.9", &moved).await;
}

/// registry.k8s.io drops the query of what it redirects.
#[tokio::test]
async fn kubernetes_loses_the_page_of_a_list_and_clients_get_it_all_the_same() {
    let front = Shaped::new("registry.k8s.io", Options { auth: Auth::Open, ..Options::default() }).await;
    let back = Hub::start(Options::default()).await;
    front.hub.configure(|options| options.hand_off = Some(format!("{}/v2/images", back.registry_url())));
    let image = images::busybox(&back, "images/pause", "1", images::Format::OciSingle);
    ["2", "3", "4", "5"].iter().for_each(|tag| back.tag("images/pause", tag, &image.manifest));
    let (mut path, mut seen) = (front.tags("pause", "?n=2"), Vec::new());
    loop {
        let reply = front.mirror.get(&path).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        let json = reply.json();
        seen.extend(json["tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap().to_owned()));
        let link = reply.header("link").strip_prefix('<').and_then(|link| link.split_once('>'));
        let Some((next, _)) = link else { break };
        next.clone_into(&mut path);
        assert!(seen.len() <= 5, "it comes to an end: {seen:?}");
    }
    assert_eq!(seen, ["1", "2", "3", "4", "5"]);
}

/// mcr.microsoft.com: some repositories have no list, and layers of Windows are to be had elsewhere.
#[tokio::test]
async fn microsoft_lacks_lists_and_foreign_layers_and_says_so_at_once() {
    let options = Options { auth: Auth::Open, ..Options::default() };
    let microsoft = Shaped::new("mcr.microsoft.com", options).await;
    let honey = Honey::start().await;
    let config = push_blob(&microsoft.hub, "windows/nanoserver", b"{}");
    let foreign = oci::Digest::of(oci::Algorithm::Sha256, b"only Microsoft may hand it out");
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json", "digest": config, "size": 2,
        },
        "layers": [{
            "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            "digest": foreign,
            "size": 1000,
            "urls": [format!("http://127.0.0.1:{}/layer", honey.port())],
        }],
    });
    let repository = "windows/nanoserver";
    microsoft.hub.push_manifest(repository, DOCKER_MANIFEST, manifest.to_string(), &["1"]);
    assert_eq!(microsoft.mirror.get(&microsoft.manifest(repository, "1")).await.status, 200);
    microsoft.hub.reset_counters();
    let reply = microsoft.mirror.get(&microsoft.blob(repository, &foreign)).await;
    assert_error("a foreign layer", &reply, 404, "BLOB_UNKNOWN");
    assert!(microsoft.hub.counters().total() <= 2, "{:#?}", microsoft.hub.counters());
    assert_eq!(honey.connections(), 0, "what `urls` name is the client's business");

    microsoft.hub.fault_on(Fault::Status(404, None), Times::Always, Target::kind(Kind::Tags));
    let reply = microsoft.mirror.get(&microsoft.tags(repository, "")).await;
    assert_error("no list", &reply, 404, "NAME_UNKNOWN");
}

/// public.ecr.aws: no list without an account, pages of a thousand, no filters, a pull a second.
#[tokio::test]
async fn amazon_gives_no_list_to_anybody_and_takes_no_filters() {
    let amazon = Shaped::new("public.ecr.aws", Options::default()).await;
    let image = images::busybox(&amazon.hub, "org/app", "1", images::Format::OciSingle);
    images::busybox(&amazon.hub, "org/other", "1", images::Format::OciSingle);
    assert_eq!(amazon.mirror.get(&amazon.tags("org/app", "?n=5000")).await.status, 200);
    amazon.hub.fault_on(Fault::Status(400, None), Times::Always, Target::kind(Kind::Tags));
    let reply = amazon.mirror.get(&amazon.tags("org/other", "")).await;
    assert_error("no list without an account", &reply, 404, "UNSUPPORTED");

    let sbom = images::referrer(&amazon.hub, "org/app", &image.manifest, "application/sbom");
    images::referrer(&amazon.hub, "org/app", &image.manifest, "application/signature");
    let referrers = format!("/v2/{}/org/app/referrers/{}", amazon.registry, image.manifest);
    let reply = amazon.mirror.get(&format!("{referrers}?artifactType=application/sbom")).await;
    assert_eq!(reply.json()["manifests"][0]["digest"], sbom.to_string());
    let reply =
        amazon.mirror.get(&format!("{referrers}?artifactType=application/sbom&artifactType=x/y")).await;
    assert_eq!(reply.json()["manifests"].as_array().map(Vec::len), Some(2), "unfiltered, and said to be so");
    let counters = amazon.hub.counters();
    assert!(counters.requests.iter().all(|seen| !seen.path.contains("artifactType")), "{counters:#?}");
    assert!(counters.requests.iter().any(|seen| seen.path.ends_with("n=1000")), "{counters:#?}");
}

/// public.ecr.aws: who comes in a burst waits, and is served.
#[tokio::test]
async fn amazon_is_pulled_from_once_a_second_and_nobody_is_turned_away() {
    let amazon = Shaped::new("public.ecr.aws", Options::default()).await;
    let names = ["org/a", "org/b", "org/c"];
    let pushed: Vec<images::Image> =
        names.iter().map(|name| images::busybox(&amazon.hub, name, "1", images::Format::OciSingle)).collect();
    let paths: Vec<String> = names.iter().map(|name| amazon.manifest(name, "1")).collect();
    let replies = join_all(paths.iter().map(|path| amazon.mirror.get(path))).await;
    for (reply, image) in replies.iter().zip(&pushed) {
        assert_eq!((reply.status, reply.digest()), (200, image.manifest));
    }
    assert_eq!(amazon.hub.counters().manifest_get, 3);
}

/// nvcr.io, statements 63 and 64: no service, and another realm for a token that it does not like.
#[tokio::test]
async fn nvidia_names_no_service_and_for_old_tokens_a_realm_that_refuses() {
    let challenge =
        ChallengeOptions { omit_service: true, realm_switch: true, ..ChallengeOptions::default() };
    let nvidia = Shaped::new("nvcr.io", Options { challenge, ..Options::default() }).await;
    let names = ["nvidia/cuda", "nvidia/tritonserver"];
    let pushed =
        names.map(|name| (name, images::busybox(&nvidia.hub, name, "1", images::Format::DockerList)));
    for (name, image) in &pushed {
        nvidia.assert_pulls(name, "1", image).await;
    }
    assert_eq!(nvidia.hub.counters().token, 2, "one for each repository");
    nvidia.hub.expire_tokens();
    for (name, image) in &pushed {
        nvidia.assert_pulls(name, "1", image).await;
    }
    let counters = nvidia.hub.counters();
    assert_eq!(counters.token, 4, "{counters:#?}");
    let tokens: Vec<_> = counters.requests.iter().filter(|seen| seen.port == "token").collect();
    assert!(tokens.iter().all(|seen| seen.status == 200 && !seen.path.contains("service=")), "{tokens:#?}");
}

/// lscr.io: its challenge names the token service of ghcr.io; registry.gitlab.com: that of gitlab.com.
#[tokio::test]
async fn a_token_service_on_another_host_is_asked_as_anybody() {
    for registry in ["lscr.io", "registry.gitlab.com"] {
        let options = Options { token_port_apart: true, ..Options::default() };
        let front = Shaped::new(registry, options).await;
        let image = images::busybox(&front.hub, "linuxserver/nginx", "1", images::Format::OciIndex);
        front.assert_pulls("linuxserver/nginx", "1", &image).await;
        let counters = front.hub.counters();
        assert_eq!((counters.token, counters.token_basic), (1, 0), "{registry}");
    }
}

/// Statement 64 elsewhere: the place that a registry hands off to forgets its tokens, too.
#[tokio::test]
async fn a_token_that_a_handed_off_place_does_not_know_any_more_is_replaced() {
    let front = Shaped::new("registry.k8s.io", Options { auth: Auth::Open, ..Options::default() }).await;
    let back = Hub::start(Options::default()).await;
    front.hub.configure(|options| options.hand_off = Some(format!("{}/v2", back.registry_url())));
    let image = images::busybox(&back, "pause", "1", images::Format::OciSingle);
    front.assert_pulls("pause", "1", &image).await;
    back.expire_tokens();
    let next = images::busybox(&back, "pause", "2", images::Format::OciSingle);
    front.assert_pulls("pause", "2", &next).await;
}

/// Docker's official images have no slash at docker.io and at no other registry.
#[tokio::test]
async fn a_name_without_a_slash_is_left_alone_elsewhere() {
    let quay = Shaped::new("quay.io", Options::default()).await;
    let bytes = json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": { "digest":
        push_blob(&quay.hub, "app", b"{}"), "size": 2, "mediaType": "application/vnd.oci.empty.v1+json" },
        "layers": [] });
    let digest = quay.hub.push_manifest("app", OCI_MANIFEST, bytes.to_string(), &["1"]);
    assert_eq!(quay.mirror.get(&quay.manifest("app", "1")).await.digest(), digest);
}
