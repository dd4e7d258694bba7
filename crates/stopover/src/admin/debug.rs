//! What registry:2 has on its debug port, under its paths and in its words.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode, Uri, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};

use super::{Admin, metrics_text};
use crate::metrics::ContentType;

const JSON: &str = "application/json; charset=utf-8";

const PROFILES: &str =
    "profiles of Go's runtime are not to be had from a program without it; try perf or /metrics\n";

/// The check that fails, in registry:2's words.
pub(super) async fn health(State(admin): State<Arc<Admin>>) -> Response {
    if admin.health.is_down() {
        answer(StatusCode::SERVICE_UNAVAILABLE, &json!({ "manual_http_status": "manual check" }))
    } else {
        answer(StatusCode::OK, &json!({}))
    }
}

pub(super) async fn down(State(admin): State<Arc<Admin>>) {
    admin.health.set_down(true);
    tracing::warn!("taken out of service by /debug/health/down: every pull is answered 503");
}

pub(super) async fn up(State(admin): State<Arc<Admin>>) {
    admin.health.set_down(false);
    tracing::info!("taken back into service by /debug/health/up");
}

/// The counters as expvar has them.
pub(super) async fn vars(State(admin): State<Arc<Admin>>) -> Response {
    let mut proxy = Map::new();
    for (name, content) in [("blobs", ContentType::Blob), ("manifests", ContentType::Manifest)] {
        let [requests, hits, misses, pulled, pushed] = admin.metrics.proxy_counts(content);
        let counts = json!({
            "Requests": requests, "Hits": hits, "Misses": misses, "BytesPulled": pulled, "BytesPushed": pushed
        });
        proxy.insert(name.to_owned(), counts);
    }
    let cmdline: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    let vars = json!({ "cmdline": cmdline, "memstats": {}, "registry": { "proxy": proxy } });
    answer(StatusCode::OK, &vars)
}

fn answer(status: StatusCode, body: &Value) -> Response {
    (status, [(CONTENT_TYPE, JSON)], body.to_string()).into_response()
}

/// Answers what has no path of its own here.
pub(super) async fn others(State(admin): State<Arc<Admin>>, uri: Uri, headers: HeaderMap) -> Response {
    match uri.path() {
        path if path == admin.metrics_path => metrics_text(State(admin), headers).await.into_response(),
        path if path.starts_with("/debug/pprof") => (StatusCode::NOT_FOUND, PROFILES).into_response(),
        _ => (StatusCode::NOT_FOUND, "not found; / lists what is here\n").into_response(),
    }
}
