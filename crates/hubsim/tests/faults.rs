//! Each fault does what its name says, as a client sees it.

#[allow(dead_code, reason = "each file of tests uses its part of the client")]
mod client;

use client::{Reply, bearer, get, get_blob, head, send};
use http::Method;
use hubsim::{
    Fault, Hub, Kind, Options, Target, Times,
    images::{self, Format, Image},
};
use oci::{Algorithm, Digest};

const REPOSITORY: &str = "library/busybox";

async fn hub() -> (Hub, Image) {
    let hub = Hub::start(Options::default()).await;
    let image = images::busybox(&hub, REPOSITORY, "latest", Format::DockerSingle);
    (hub, image)
}

async fn manifest(hub: &Hub, method: Method) -> Result<Reply, String> {
    let bearer = bearer(hub, REPOSITORY, &[]).await;
    let url = format!("{}/v2/{REPOSITORY}/manifests/latest", hub.registry_url());
    send(method, &url, &[("authorization", &bearer)]).await
}

fn fault(name: &str) -> Fault {
    name.parse().expect("the fault has a name")
}

#[tokio::test]
async fn faults_of_a_body_strike_once_and_no_more() {
    let (hub, image) = hub().await;
    let layer = &image.layers[0];
    let right = get_blob(&hub, REPOSITORY, layer, None).await;
    let size = right.body.len();
    assert!(size > 500_000, "{size}");
    type Check = fn(&Reply, &[u8]) -> bool;
    let table: [(&str, Option<&str>, Check); 13] = [
        ("cut-after:0", None, |got, _| !got.is_whole && got.status == 200 && got.body.is_empty()),
        ("cut-after:300000", None, |got, right| !got.is_whole && got.body == right[..300_000]),
        ("cut-after:1000", Some("bytes=500-"), |got, right| !got.is_whole && got.body == right[500..1500]),
        ("cut-after:999999999", None, |got, right| got.is_whole && got.body == right),
        ("wrong-length:-5", None, |got, right| got.is_whole && got.body == right[..right.len() - 5]),
        ("wrong-length:5", None, |got, right| !got.is_whole && got.body == right),
        ("no-content-length", None, |got, right| {
            got.header("content-length").is_empty() && got.body == right
        }),
        ("flip-byte:400000", None, |got, right| {
            let different: Vec<usize> = (0..right.len()).filter(|at| got.body[*at] != right[*at]).collect();
            got.is_whole && different == [400_000]
        }),
        ("flip-byte:0", Some("bytes=1-"), |got, right| got.body == right[1..]),
        ("no-range", Some("bytes=500-"), |got, right| got.status == 200 && got.body == right),
        ("bad-content-range", Some("bytes=500-"), |got, _| {
            got.header("content-range").starts_with("bytes 501-")
        }),
        ("content-encoding-gzip", None, |got, _| got.header("content-encoding") == "gzip"),
        ("cdn-403", None, |got, _| got.status == 403),
    ];
    for (name, range, check) in table {
        hub.fault(fault(name), Times::Once);
        let got = get_blob(&hub, REPOSITORY, layer, range).await;
        assert!(check(&got, &right.body), "{name}: {} {:?} {}", got.status, got.headers, got.body.len());
        let again = get_blob(&hub, REPOSITORY, layer, None).await;
        assert!(again.is_whole && again.body == right.body, "{name} strikes once");
    }
}

#[tokio::test]
async fn a_stalled_body_goes_on_when_it_is_released() {
    let (hub, image) = hub().await;
    let layer = image.layers[0];
    hub.fault(Fault::StallAfter(1000), Times::Once);
    let pull = async { get_blob(&hub, REPOSITORY, &layer, None).await };
    let release = async {
        hub.until(|counters| counters.bytes(&layer) == 1000).await;
        hub.release();
    };
    let (got, ()) = tokio::join!(pull, release);
    assert_eq!(Digest::of(Algorithm::Sha256, &got.body), layer);
}

#[tokio::test]
async fn what_hangs_is_answered_when_it_is_released() {
    let (hub, _) = hub().await;
    for kind in [Kind::Manifests, Kind::Token] {
        hub.reset_counters();
        hub.fault_on(Fault::Hang, Times::Once, Target::kind(kind));
        let release = async {
            hub.until(
                |counters| {
                    if kind == Kind::Token { counters.token == 1 } else { counters.manifest_get == 1 }
                },
            )
            .await;
            hub.release();
        };
        let (got, ()) = tokio::join!(manifest(&hub, Method::GET), release);
        assert_eq!(got.expect("the answer comes").status, 200);
    }
}

#[tokio::test]
async fn faults_of_manifests_are_told_apart_by_method() {
    let (hub, image) = hub().await;
    let right = manifest(&hub, Method::GET).await.expect("the Hub answers");
    type Check = fn(&Reply, &Reply) -> bool;
    let table: [(&str, Method, Check); 9] = [
        ("head-refused", Method::HEAD, |got, _| got.status == 405),
        ("head-unauthorized", Method::HEAD, |got, _| got.status == 401),
        ("head-no-digest", Method::HEAD, |got, right| {
            got.status == 200
                && got.header("docker-content-digest").is_empty()
                && got.header("content-length") == right.body.len().to_string()
        }),
        ("manifest-not-its-digest", Method::GET, |got, right| {
            got.is_whole
                && got.body != right.body
                && got.body.len() == right.body.len()
                && got.header("docker-content-digest") == right.header("docker-content-digest")
                && serde_json::from_slice::<serde_json::Value>(&got.body).is_ok()
        }),
        ("huge-manifest:5000000", Method::GET, |got, _| {
            got.body.len() == 5_000_000 && serde_json::from_slice::<serde_json::Value>(&got.body).is_ok()
        }),
        ("too-many-requests:60", Method::GET, |got, _| {
            got.status == 429
                && got.header("retry-after") == "60"
                && got.json()["errors"][0]["code"] == "TOOMANYREQUESTS"
        }),
        ("abuse-429", Method::GET, |got, _| {
            got.status == 429 && got.body.starts_with(b"Too Many Requests (HAP429)")
        }),
        ("html-200", Method::GET, |got, _| got.status == 200 && got.header("content-type").contains("html")),
        ("status:503:30", Method::GET, |got, _| got.status == 503 && got.header("retry-after") == "30"),
    ];
    for (name, method, check) in table {
        for reference in ["latest".to_owned(), image.manifest.to_string()] {
            let target =
                Target { kind: Some(Kind::Manifests), reference: Some(reference), ..Target::default() };
            hub.fault_on(fault(name), Times::Once, target);
            let got = manifest(&hub, method.clone()).await.expect("the Hub answers");
            assert!(check(&got, &right), "{name}: {} {:?}", got.status, got.headers);
            let again = manifest(&hub, Method::GET).await.expect("the Hub answers");
            assert_eq!(again.body, right.body, "{name} strikes once");
        }
        // Of another kind, or another manifest: not struck.
        hub.fault_on(fault(name), Times::Always, Target::kind(Kind::Tags));
        hub.fault_on(fault(name), Times::Always, Target::reference("other"));
        let got = manifest(&hub, method).await.expect("the Hub answers");
        assert_eq!(got.status, 200, "{name}");
        hub.clear_faults();
    }
}

#[tokio::test]
async fn faults_of_tokens_and_challenges_strike_there() {
    let (hub, _) = hub().await;
    let url = format!("{}?scope=repository:{REPOSITORY}:pull", hub.token_url());
    hub.fault(Fault::TokenDown, Times::N(2));
    assert_eq!(get(&url, &[]).await.status, 503);
    assert_eq!(get(&url, &[]).await.status, 503);
    hub.fault(Fault::TokenGarbage, Times::Once);
    let garbage = get(&url, &[]).await;
    assert!(garbage.status == 200 && serde_json::from_slice::<serde_json::Value>(&garbage.body).is_err());
    assert_eq!(get(&url, &[]).await.status, 200);
    hub.fault(Fault::NoWwwAuthenticate, Times::Once);
    let ping = format!("{}/v2/", hub.registry_url());
    for challenge in [false, true] {
        let reply = get(&ping, &[]).await;
        assert_eq!((reply.status, reply.headers.contains_key("www-authenticate")), (401, challenge));
    }
    hub.fault_on(Fault::Close, Times::Once, Target::kind(Kind::Manifests));
    manifest(&hub, Method::GET).await.expect_err("the connection closes");
    assert_eq!(hub.counters().token, 5);
}

#[tokio::test]
async fn redirects_can_be_hostile() {
    let (hub, image) = hub().await;
    let bearer = bearer(&hub, REPOSITORY, &[]).await;
    let url = format!("{}/v2/{REPOSITORY}/blobs/{}", hub.registry_url(), image.config);
    hub.fault(fault("redirect-to:http://192.0.2.1/x"), Times::Once);
    let reply = get(&url, &[("authorization", &bearer)]).await;
    assert_eq!((reply.status, reply.header("location")), (307, "http://192.0.2.1/x"));
    hub.fault(Fault::RedirectLoop, Times::Once);
    let reply = get(&url, &[("authorization", &bearer)]).await;
    let again = get(reply.header("location"), &[]).await;
    assert_eq!((again.status, again.header("location")), (307, reply.header("location")));
    hub.fault(Fault::NoReferrers, Times::Once);
    let url = format!("{}/v2/{REPOSITORY}/referrers/{}", hub.registry_url(), image.manifest);
    for status in [404, 200] {
        assert_eq!(get(&url, &[("authorization", &bearer)]).await.status, status);
    }
    assert_eq!(head(&url, &[("authorization", &bearer)]).await.status, 200);
}

#[tokio::test]
async fn a_hub_steered_by_its_control_api_does_as_told() {
    let (hub, _) = hub().await;
    let control = |command: &str| format!("{}/_hubsim/{command}", hub.registry_url());
    let post = |command: &'static str| send(Method::POST, Box::leak(control(command).into_boxed_str()), &[]);
    let table = [
        ("fault?name=status:500&times=1&kind=manifests&reference=latest", 200),
        ("fault?name=nonsense", 400),
        ("image?spec=library/extra:1=oci", 200),
        ("private?repo=library/extra", 200),
        ("set?latency=1ms&rate=none&quota=5", 200),
        ("set?nonsense=1", 400),
        ("nonsense", 400),
    ];
    for (command, status) in table {
        let reply = post(command).await.expect("the Hub answers");
        assert_eq!(reply.status, status, "{command}: {}", String::from_utf8_lossy(&reply.body));
    }
    for status in [500, 200] {
        assert_eq!(manifest(&hub, Method::GET).await.expect("the Hub answers").status, status);
    }
    assert!(hub.tagged("library/extra", "1").is_some());
    let shown = get(&control("counters?requests=1"), &[]).await.json();
    assert_eq!(
        (shown["manifest_get"].as_u64(), shown["requests"].as_array().map(Vec::len)),
        (Some(2), Some(4))
    );
    assert_eq!(post("reset").await.expect("the Hub answers").status, 200);
    assert_eq!(hub.counters().total(), 0);
}
