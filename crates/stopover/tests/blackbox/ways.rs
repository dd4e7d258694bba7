//! Every shape of a request by which clients name a registry: one repository, one fill, one stored copy.

use std::fs;

use futures_util::future::join_all;
use hubsim::{Hub, Options, images};
use tempfile::TempDir;

use crate::support::{Http2, Mirror, MirrorOptions, Reply};

/// A mirror of two registries, the second with an alias and a host of its own, all of it below a prefix too.
struct Ways {
    hub: Hub,
    other: Hub,
    mirror: Mirror,
    _file: TempDir,
}

async fn ways() -> Ways {
    let (hub, other) = (Hub::start(Options::default()).await, Hub::start(Options::default()).await);
    let file = TempDir::new().unwrap();
    let path = file.path().join("stopover.toml");
    let config = format!(
        "[http]\nprefix = \"/mirrors/oci/\"\n[upstream]\naliases = [\"hub\"]\n[upstreams.\"other.example\"]\n\
         url = \"{}\"\naliases = [\"proj\"]\nhosts = [\"other.mirror.example\"]\n",
        other.registry_url()
    );
    fs::write(&path, config).unwrap();
    let options = MirrorOptions::default().env("STOPOVER_CONFIG", path.to_str().unwrap());
    let mirror = Mirror::start_with(&hub, options).await;
    Ways { hub, other, mirror, _file: file }
}

/// What stands before `/manifests/...` in each shape, what behind it, and which `Host` is asked.
const SHAPES: &[(&str, &str, &str)] = &[
    ("/v2/org/app", "?ns=other.example", ""),
    ("/v2/org/app", "?ns=proj", ""),
    ("/v2/org/app", "?ns=other.mirror.example:5000", ""),
    ("/v2/other.example/org/app", "", ""),
    ("/v2/other.example/org/app", "?ns=other.example", ""),
    ("/v2/proj/org/app", "", ""),
    ("/v2/proj/org/app", "?ns=other.example", ""),
    ("/other.example/v2/org/app", "", ""),
    ("/other.example/v2/org/app", "?ns=other.example", ""),
    ("/proj/v2/org/app", "", ""),
    ("/other.example/org/app", "", ""),
    ("/proj/org/app", "?ns=other.example", ""),
    ("/mirrors/oci/v2/org/app", "?ns=other.example", ""),
    ("/mirrors/oci/v2/proj/org/app", "", ""),
    ("/mirrors/oci/org/app", "?ns=other.example", ""),
    ("/mirrors/oci/proj/org/app", "", ""),
    ("/v2/mirrors/oci/org/app", "?ns=other.example", ""),
    ("/v2/mirrors/oci/other.example/org/app", "", ""),
    ("/v2/org/app", "", "other.mirror.example"),
    ("/v2/org/app", "", "Other.Mirror.Example:5000"),
    ("/v2/org/app", "?ns=other.example", "other.mirror.example"),
];

async fn ask(mirror: &Mirror, (before, query, host): (&str, &str, &str), endpoint: &str) -> Reply {
    // `Host` is there once: what a test names replaces what the client would say.
    let request = format!(
        "GET {before}/{endpoint}{query} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n",
        if host.is_empty() { mirror.address() } else { host }
    );
    if host.is_empty() {
        return mirror.get(&format!("{before}/{endpoint}{query}")).await;
    }
    let answer = crate::support::exchange(mirror.address(), request).await;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("there is a head");
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let mut headers = http::HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap();
        headers.insert(name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap());
    }
    Reply { status, headers, body: answer[end + 4..].to_vec(), is_whole: true }
}

/// Statements 5 to 8, and "It must reach" of the issue: all shapes at once, and nothing was there.
#[tokio::test]
async fn all_shapes_at_once_are_one_fill_and_one_copy() {
    let Ways { hub, other, mirror, .. } = ways().await;
    let image = images::busybox(&other, "org/app", "latest", images::Format::OciSingle);
    let replies = join_all(SHAPES.iter().map(|shape| ask(&mirror, *shape, "manifests/latest"))).await;
    for (reply, shape) in replies.iter().zip(SHAPES) {
        assert_eq!((reply.status, reply.digest()), (200, image.manifest), "{shape:?}");
    }
    for blob in image.blobs() {
        let endpoint = format!("blobs/{blob}");
        let replies = join_all(SHAPES.iter().map(|shape| ask(&mirror, *shape, &endpoint))).await;
        for (reply, shape) in replies.iter().zip(SHAPES) {
            assert_eq!((reply.status, reply.digest()), (200, *blob), "{shape:?}");
        }
        mirror.until_stored(blob).await;
        assert_eq!(other.counters().of(blob).cdn_gets, 1, "{blob}");
    }
    let seen = other.counters();
    assert_eq!((seen.manifest_get, seen.manifest_head), (1, 1), "{seen:?}");
    assert_eq!(hub.counters().total(), 0, "the default registry is not asked");
    assert_eq!(mirror.files_below("docker/registry/v2/blobs").len(), image.blobs().count() + 1);
    let repositories = mirror.root().join("docker/registry/v2/repositories");
    let folders: Vec<_> =
        fs::read_dir(repositories).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(folders, ["other.example"], "one repository has it all");
}

/// Statement 9, by whatever way: also for the images behind a proxy project of Harbor that was called `hub`.
#[tokio::test]
async fn a_name_of_one_component_is_an_official_image_in_every_shape() {
    let Ways { hub, mirror, .. } = ways().await;
    let image = images::busybox(&hub, "library/nginx", "1", images::Format::OciSingle);
    for path in [
        "/v2/nginx",
        "/v2/library/nginx",
        "/v2/hub/nginx",
        "/v2/hub/library/nginx",
        "/hub/v2/nginx",
        "/hub/nginx",
        "/v2/docker.io/nginx",
        "/docker.io/v2/library/nginx",
        "/docker.io/nginx",
        "/mirrors/oci/v2/nginx",
        "/mirrors/oci/nginx",
        "/v2/mirrors/oci/nginx",
        "/v2/mirrors/oci/hub/nginx",
    ] {
        for query in ["", "?ns=docker.io", "?ns=registry-1.docker.io", "?ns=index.docker.io"] {
            let reply = mirror.get(&format!("{path}/manifests/1{query}")).await;
            assert_eq!(
                (reply.status, reply.digest()),
                (200, image.manifest),
                "{path}{query}: {}",
                reply.text()
            );
        }
    }
    assert_eq!(hub.counters().manifest_get, 1);
}

/// Statement 10: what `ns` scoped says so, in success and in failure; what it did not does not.
#[tokio::test]
async fn the_answer_repeats_an_ns_that_was_heeded() {
    let Ways { other, mirror, .. } = ways().await;
    images::busybox(&other, "org/app", "1", images::Format::OciSingle);
    for ns in ["other.example", "OTHER.example", "proj", "other.mirror.example"] {
        for (path, status) in [
            ("/v2/org/app/manifests/1", 200),
            ("/v2/org/app/manifests/none", 404),
            ("/v2/org/app/tags/list", 200),
            ("/v2/", 200),
        ] {
            let reply = mirror.get(&format!("{path}?ns={ns}")).await;
            assert_eq!(
                (reply.status, reply.header("oci-namespace")),
                (status, ns),
                "{path}: {}",
                reply.text()
            );
        }
    }
    for (path, status) in [
        ("/v2/org/app/manifests/1?ns=unknown.example", 404),
        ("/v2/?ns=unknown.example", 200),
        ("/v2/other.example/org/app/manifests/1", 200),
        ("/proj/v2/org/app/manifests/1", 200),
    ] {
        let reply = mirror.get(path).await;
        assert_eq!((reply.status, reply.header("oci-namespace")), (status, ""), "{path}: {}", reply.text());
    }
}

/// Statement 78.
#[tokio::test]
async fn the_link_to_the_next_page_has_the_shape_of_the_request() {
    let Ways { other, mirror, .. } = ways().await;
    let image = images::busybox(&other, "org/app", "a", images::Format::OciSingle);
    other.tag("org/app", "b", &image.manifest);
    for (before, query, host) in SHAPES {
        let page = format!("?n=1{}", query.replace('?', "&"));
        let first = ask(&mirror, (before, &page, host), "tags/list").await;
        let namespace = query.replace('?', "&");
        let wanted = format!("<{before}/tags/list?n=1&last=a{namespace}>; rel=\"next\"");
        assert_eq!(first.header("link"), wanted, "{before} {query} {host}");
        let query = format!("?n=1&last=a{namespace}");
        let second = ask(&mirror, (before, &query, host), "tags/list").await;
        assert_eq!(second.json()["tags"], serde_json::json!(["b"]), "{before} {query} {host}");
    }
}

#[tokio::test]
async fn a_ping_is_answered_in_every_shape() {
    let Ways { hub, other, mirror, .. } = ways().await;
    for path in [
        "/v2/",
        "/v2",
        "/hub/v2/",
        "/hub/v2",
        "/hub/",
        "/hub",
        "/other.example/v2/",
        "/mirrors/oci/v2/",
        "/mirrors/oci/",
        "/mirrors/oci",
        "/mirrors/oci/proj/v2/",
        "/ghcr.io/v2/",
    ] {
        let reply = mirror.get(path).await;
        assert_eq!((reply.status, reply.text().as_str()), (200, "{}"), "{path}");
        assert_eq!(mirror.head(path).await.status, 200, "{path}");
    }
    for path in ["/none/v2/", "/none.example/v2/", "/mirrors/v2/", "/mirrors", "/v1/", "/OTHER.example/v2/"] {
        assert_eq!(mirror.get(path).await.error_code(), "UNSUPPORTED", "{path}");
    }
    assert_eq!((hub.counters().total(), other.counters().total()), (0, 0));
}

/// HTTP/2 has no `Host` but `:authority`.
#[tokio::test]
async fn the_authority_of_http2_names_a_registry_as_host_does() {
    let Ways { hub, other, mirror, .. } = ways().await;
    let image = images::busybox(&other, "org/app", "1", images::Format::OciSingle);
    let client = Http2::connect(mirror.address()).await.asking_for("Other.Mirror.Example:5000");
    let reply = client.open("GET", "/v2/org/app/manifests/1", &[]).await.rest().await;
    assert_eq!((reply.status, reply.digest()), (200, image.manifest));
    assert_eq!(hub.counters().total(), 0);
}
