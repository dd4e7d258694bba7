//! The operator's port as registry:2's debug port.

use hubsim::{Hub, Options, images};

use crate::{
    rig::assert_error,
    support::{Mirror, MirrorOptions, blob_path, get, manifest_path, send},
};

const REPOSITORY: &str = "library/busybox";

async fn mirror() -> (Hub, images::Image, Mirror) {
    let hub = Hub::start(Options::default()).await;
    let image = images::busybox(&hub, REPOSITORY, "1", images::Format::OciIndex);
    let options = MirrorOptions::default()
        .env("REGISTRY_HTTP_DEBUG_PROMETHEUS_ENABLED", "true")
        .env("REGISTRY_HTTP_DEBUG_PROMETHEUS_PATH", "/prometheus");
    let mirror = Mirror::start_with(&hub, options).await;
    (hub, image, mirror)
}

#[tokio::test]
async fn the_debug_port_takes_the_mirror_out_of_service_and_back() {
    let (_hub, image, mirror) = mirror().await;
    let health = format!("{}/debug/health", mirror.admin_url());
    let path = manifest_path(REPOSITORY, "1");
    let reply = get(&health, &[]).await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "{}"));
    assert_eq!(mirror.get(&path).await.digest(), image.manifest);

    assert_eq!(send("POST", &format!("{health}/down"), &[]).await.unwrap().status, 200);
    let reply = get(&health, &[]).await;
    assert_eq!((reply.status, reply.text().as_str()), (503, r#"{"manual_http_status":"manual check"}"#));
    for path in ["/", "/v2/", &path] {
        let reply = mirror.get(path).await;
        assert_error(path, &reply, 503, "UNAVAILABLE");
        assert!(reply.text().contains("health check failed: please see /debug/health"), "{}", reply.text());
    }
    assert_eq!(get(&format!("{}/readyz", mirror.admin_url()), &[]).await.status, 503);
    assert_eq!(get(&format!("{}/livez", mirror.admin_url()), &[]).await.status, 200);

    assert_eq!(get(&format!("{health}/up"), &[]).await.status, 405, "only POST turns the switch");
    assert_eq!(send("POST", &format!("{health}/up"), &[]).await.unwrap().status, 200);
    assert_eq!(mirror.get(&path).await.digest(), image.manifest);
}

#[tokio::test]
async fn counters_are_had_as_variables_and_as_metrics_under_registrys_names() {
    let (_hub, image, mirror) = mirror().await;
    let layer = image.layers[0];
    let metrics = mirror.metrics().await;
    for name in ["requests", "hits", "misses", "pulled_bytes", "pushed_bytes"] {
        for kind in ["blob", "manifest"] {
            let line = format!("registry_proxy_{name}_total{{type=\"{kind}\"}} 0\n");
            assert!(metrics.contains(&line), "{line} is not there before the first pull: {metrics}");
        }
    }
    for _ in 0..2 {
        assert_eq!(mirror.get(&manifest_path(REPOSITORY, "1")).await.status, 200);
        assert_eq!(mirror.get(&blob_path(REPOSITORY, layer)).await.digest(), layer);
        mirror.until_stored(&layer).await;
    }
    let labels = ["handler=\"blob\"", "code=\"200\"", "method=\"get\""];
    mirror.until_metric("registry_http_request_duration_seconds_count", |count| count >= 4.0).await;
    assert_eq!(mirror.metric("registry_http_requests_total", &labels).await, 2.0);

    let vars = get(&format!("{}/debug/vars", mirror.admin_url()), &[]).await.json();
    let blobs = &vars["registry"]["proxy"]["blobs"];
    let counts: Vec<_> = ["Requests", "Hits", "Misses"].map(|name| blobs[name].as_u64().unwrap()).into();
    assert_eq!(counts, [2, 1, 1], "{vars}");
    assert!(blobs["BytesPushed"].as_u64() >= blobs["BytesPulled"].as_u64(), "{vars}");
    assert_eq!(vars["registry"]["proxy"]["manifests"]["Requests"], 2, "{vars}");
    assert!(vars["cmdline"][1] == "serve" && vars["memstats"].is_object(), "{vars}");

    let text = get(&format!("{}/prometheus", mirror.admin_url()), &[]).await.text();
    assert!(text.contains("registry_proxy_hits_total{type=\"blob\"} 1\n"), "{text}");
    let profile = get(&format!("{}/debug/pprof/heap", mirror.admin_url()), &[]).await;
    assert!(profile.status == 404 && profile.text().contains("Go's runtime"), "{}", profile.text());
}
