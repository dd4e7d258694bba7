//! What the operator sees: one line a request, exact counts, and health.

use hubsim::{Hub, Options, images};
use serde_json::Value;

use crate::support::{Mirror, MirrorOptions, blob_path, exchange, get, head, manifest_path, send, until};

const REPOSITORY: &str = "library/alpine";

async fn lines_of_requests(mirror: &Mirror, count: usize) -> Vec<Value> {
    until("each request has its line", || {
        let lines: Vec<Value> =
            mirror.log_lines().into_iter().filter(|line| line["msg"] == "response completed").collect();
        (lines.len() >= count).then_some(lines)
    })
    .await
}

/// Statement of the issue, 8: method, repository, reference, digest, status, bytes, outcome, upstream, duration,
/// client, user agent.
#[tokio::test]
async fn each_request_is_one_line_with_all_that_is_to_be_said() {
    let hub = Hub::start(Options::default()).await;
    let image = images::busybox(&hub, REPOSITORY, "3.20", images::Format::OciSingle);
    let mirror = Mirror::start(&hub).await;
    let agent = [("user-agent", "docker/28.0 \"quoted\" \\ (linux)")];
    let manifest =
        mirror.get_with(&format!("{}?ns=docker.io", manifest_path("alpine", "3.20")), &agent).await;
    mirror.get_with(&manifest_path(REPOSITORY, "3.20"), &agent).await;
    mirror.get_with(&blob_path(REPOSITORY, image.config), &agent).await;
    mirror.get_with("/v2/../etc?secret=query", &agent).await;
    mirror.get_with("/v2/", &agent).await;
    let lines = lines_of_requests(&mirror, 5).await;
    assert_eq!(lines.len(), 5, "one line each: {lines:#?}");
    for line in &lines {
        assert_eq!((&line["level"], &line["method"]), (&"info".into(), &"GET".into()), "{line}");
        assert_eq!(line["user_agent"], "docker/28.0 \"quoted\" \\ (linux)", "{line}");
        assert!(line["client"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
        assert!(
            line["duration"].is_number() && line["status"].is_number() && line["bytes"].is_number(),
            "{line}"
        );
        assert!(line["time"].as_str().unwrap().ends_with('Z'), "{line}");
        assert!(!line.to_string().contains("query"), "no query is logged: {line}");
    }
    let digest = image.manifest.to_string();
    for (line, outcome, upstream) in
        [(&lines[0], "filled", Value::from("docker.io")), (&lines[1], "hit", Value::Null)]
    {
        assert_eq!((&line["repository"], &line["reference"]), (&REPOSITORY.into(), &"3.20".into()), "{line}");
        assert_eq!((&line["digest"], &line["status"]), (&digest.as_str().into(), &200.into()), "{line}");
        assert_eq!(line["bytes"], manifest.body.len(), "{line}");
        assert_eq!((&line["outcome"], &line["upstream"]), (&outcome.into(), &upstream), "{line}");
    }
    assert_eq!(
        (&lines[2]["digest"], &lines[2]["outcome"]),
        (&image.config.to_string().into(), &"filled".into())
    );
    assert_eq!((&lines[3]["status"], &lines[3]["path"]), (&400.into(), &"/v2/../etc".into()), "{}", lines[3]);
    assert!(lines[3]["error"].is_string() && lines[3]["request_id"].is_string(), "{}", lines[3]);
}

/// An error is found in the log by the name that the client was given.
#[tokio::test]
async fn an_error_names_the_request_as_its_line_does() {
    let hub = Hub::start(Options::default()).await;
    let mirror = Mirror::start(&hub).await;
    let reply = mirror.get(&manifest_path(REPOSITORY, "none")).await;
    let lines = lines_of_requests(&mirror, 1).await;
    let id = lines[0]["request_id"].as_str().unwrap();
    assert_eq!(reply.header("x-request-id"), id);
    assert!(reply.text().contains(id), "{}", reply.text());
}

/// What a client says of itself does not make lines of its own.
#[tokio::test]
async fn a_line_stays_one_line_whatever_a_client_sends() {
    let hub = Hub::start(Options::default()).await;
    let mirror = Mirror::start(&hub).await;
    let forged = "GET /v2/x HTTP/1.1\r\nHost: x\r\nUser-Agent: a\t\x1b[31m\"},{\"level\":\"error\r\nConnection: close\r\n\r\n";
    exchange(mirror.address(), forged).await;
    let path = "GET /v2/%0a%0d{\"level\":\"error\"} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    exchange(mirror.address(), path).await;
    mirror.get("/v2/").await;
    lines_of_requests(&mirror, 1).await;
    for line in mirror.log_lines() {
        assert!(line.is_object(), "each line is one object: {line}");
        assert_ne!(line["level"], "error", "{line}");
    }
}

/// The log can be had without the lines of requests.
#[tokio::test]
async fn the_lines_of_requests_can_be_turned_off() {
    let hub = Hub::start(Options::default()).await;
    let mut mirror =
        Mirror::start_with(&hub, MirrorOptions::default().env("STOPOVER_LOG__ACCESS", "false")).await;
    assert_eq!(mirror.get("/v2/").await.status, 200);
    mirror.sigterm();
    mirror.wait_exit().await;
    mirror
        .until_line("the last line", |line| line["msg"].as_str().is_some_and(|msg| msg.starts_with("ended")))
        .await;
    assert!(mirror.log_lines().iter().all(|line| line["msg"] != "response completed"));
}

/// Registry 3's five counters, for a sequence of pulls that is known.
#[tokio::test]
async fn the_counters_of_registry3_are_exact() {
    let hub = Hub::start(Options::default()).await;
    let image = images::busybox(&hub, REPOSITORY, "3.20", images::Format::OciSingle);
    let mirror = Mirror::start(&hub).await;
    for name in ["requests", "hits", "misses", "pulled_bytes", "pushed_bytes"] {
        for r#type in ["blob", "manifest"] {
            let sample = format!("registry_proxy_{name}_total{{type=\"{type}\"}} 0");
            assert!(mirror.metrics().await.lines().any(|line| line == sample), "{sample}: from the start");
        }
    }
    let (mut manifest_bytes, mut config_bytes) = (0, 0);
    for _ in 0..4 {
        manifest_bytes = mirror.get(&manifest_path(REPOSITORY, "3.20")).await.body.len();
    }
    for _ in 0..3 {
        config_bytes = mirror.get(&blob_path(REPOSITORY, image.config)).await.body.len();
        mirror.until_stored(&image.config).await;
    }
    mirror.get(&manifest_path(REPOSITORY, "none")).await;
    mirror.get("/v2/").await;
    lines_of_requests(&mirror, 9).await;
    let table = [
        ("requests", "manifest", 4),
        ("hits", "manifest", 3),
        ("misses", "manifest", 1),
        ("pulled_bytes", "manifest", manifest_bytes),
        ("pushed_bytes", "manifest", 4 * manifest_bytes),
        ("requests", "blob", 3),
        ("hits", "blob", 2),
        ("misses", "blob", 1),
        ("pulled_bytes", "blob", config_bytes),
        ("pushed_bytes", "blob", 3 * config_bytes),
    ];
    for (name, r#type, expected) in table {
        let labels = [&*format!("type=\"{type}\"")];
        let found = mirror.metric(&format!("registry_proxy_{name}_total"), &labels).await;
        assert_eq!(found, expected as f64, "{name} of {type}");
    }
    let requests = [("filled", 2.0), ("hit", 5.0), ("error", 1.0), ("none", 1.0)];
    for (result, count) in requests {
        let labels = [&*format!("result=\"{result}\"")];
        assert_eq!(mirror.metric("stopover_requests_total", &labels).await, count, "{result}");
    }
    assert_eq!(mirror.metric("stopover_request_seconds_count", &[]).await, 9.0);
    assert_eq!(mirror.metric("stopover_upstream_requests_total", &["request=\"manifest_get\""]).await, 1.0);
    assert_eq!(mirror.metric("stopover_upstream_requests_total", &["request=\"token\""]).await, 1.0);
}

/// No label grows with what clients ask for.
#[tokio::test]
async fn the_number_of_series_does_not_grow_with_what_is_asked_for() {
    let hub = Hub::start(Options::default()).await;
    let mirror = Mirror::start(&hub).await;
    let series = async || mirror.metrics().await.lines().filter(|line| !line.starts_with('#')).count();
    mirror.get(&manifest_path("library/r", "t")).await;
    lines_of_requests(&mirror, 1).await;
    let before = series().await;
    for n in 0..20 {
        mirror.get(&manifest_path(&format!("library/r{n}"), format!("t{n}"))).await;
    }
    lines_of_requests(&mirror, 21).await;
    assert_eq!(series().await, before);
}

/// Alive is a process that answers; ready is one that takes pulls, which it does with the registry down.
#[tokio::test]
async fn health_does_not_hang_on_the_registry() {
    let hub = Hub::start(Options::default()).await;
    hub.stop_listening().await;
    let mirror = Mirror::start(&hub).await;
    for (path, body) in [("/livez", "ok\n"), ("/readyz", "ready\n")] {
        let url = format!("{}{path}", mirror.admin_url());
        let reply = get(&url, &[]).await;
        assert_eq!((reply.status, reply.text().as_str()), (200, body));
        assert_eq!(head(&url, &[]).await.status, 200);
    }
    let reply = get(&format!("{}/v2/", mirror.admin_url()), &[]).await;
    assert_eq!(reply.status, 404, "the operator's port serves no pulls");
    for path in ["/metrics", "/livez", "/readyz"] {
        let reply = send("GET", &format!("{}{path}", mirror.url()), &[]).await.unwrap();
        assert_eq!(reply.status, 404, "{path}: statement 89, nothing of the operator's is on the pull port");
    }
}
