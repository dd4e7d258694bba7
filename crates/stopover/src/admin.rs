//! The operator's port: metrics, health, and a list of what is here.
//!
//! It promises to answer whatever the state of the registry, the disk and the pull port: alive means that this process
//! answers; ready means that it takes pulls, which it does with the registry down. It knows nothing of how they go.

use std::{
    fmt::{Debug, Write},
    io,
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::{
        HeaderMap, StatusCode,
        header::{ACCEPT, CONTENT_TYPE},
    },
    response::IntoResponse,
    routing::{get, post},
};

use crate::{
    config::Address,
    health::Health,
    listen::{Listener, Stream},
    metrics::Metrics,
    quota::{self, Document},
};

mod api;
mod debug;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";
/// How long requests may go on after the shutdown.
const DRAIN: Duration = Duration::from_secs(1);
/// How long accepting waits after the system refused.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

const INDEX: &str = "\
Stopover, the operator's port

/metrics            for Prometheus
/livez              200 while the process answers
/readyz             200 while it takes pulls, also with the registry down; 503 while it starts, stops or is down by hand

/api/v1/quota       what is left of each registry's pull limit, as JSON; `stopover quota` shows it as a table

/debug/health       {} while it answers pulls; POST to /debug/health/down or /up to have it answer 503, or not
/debug/vars         registry:2's counters
";

/// What the answers are made of.
pub struct Admin {
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Where the metrics are besides `/metrics`.
    pub metrics_path: String,
    /// Whether the operator has taken the mirror out of service.
    pub health: Arc<Health>,
    /// Says whether pulls are taken now.
    pub ready: Box<dyn Fn() -> bool + Send + Sync>,
    /// Says what is left of each registry's pull limit; the metrics are then up to date with that.
    pub quota: Box<dyn Fn() -> Document + Send + Sync>,
}

/// Answers on `listener` until `shutdown` completes, and little longer.
///
/// Fails where the listener does.
pub async fn serve(
    listener: impl axum::serve::Listener<Addr: Debug>,
    admin: Admin,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let router = Router::new()
        .route("/", get(INDEX))
        .route("/livez", get("ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_text))
        .route(quota::PATH, get(api::quota))
        .route("/debug/health", get(debug::health))
        .route("/debug/health/down", post(debug::down))
        .route("/debug/health/up", post(debug::up))
        .route("/debug/vars", get(debug::vars))
        .fallback(debug::others)
        .with_state(Arc::new(admin));
    let (stopping, stopped) = tokio::sync::oneshot::channel();
    let shutdown = async move {
        shutdown.await;
        // Nobody listens any more only where the server ended by itself.
        let _ended = stopping.send(());
    };
    let server = axum::serve(listener, router).with_graceful_shutdown(shutdown);
    let drained = async {
        match stopped.await {
            Ok(()) => tokio::time::sleep(DRAIN).await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        ended = server => ended,
        () = drained => Ok(()),
    }
}

impl axum::serve::Listener for Listener {
    type Io = Stream;
    type Addr = Option<SocketAddr>;

    async fn accept(&mut self) -> (Stream, Option<SocketAddr>) {
        loop {
            match Listener::accept(self).await {
                Ok(accepted) => return accepted,
                Err(error) => {
                    tracing::warn!(%error, "the operator's port did not accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Option<SocketAddr>> {
        Ok(match self.address() {
            Address::Tcp(address) => Some(*address),
            Address::Unix(_) => None,
        })
    }
}

async fn readyz(State(admin): State<Arc<Admin>>) -> (StatusCode, &'static str) {
    if (admin.ready)() && !admin.health.is_down() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    }
}

async fn metrics_text(State(admin): State<Arc<Admin>>, headers: HeaderMap) -> impl IntoResponse {
    let accepts = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let open = accepts.into_iter().any(|value| value.contains("application/openmetrics-text"));
    // Lanes open by themselves as time goes by: whoever asks how they stand has that noted as metrics.
    let _noted = (admin.quota)();
    let text = admin.metrics.encode();
    if open { ([(CONTENT_TYPE, OPENMETRICS)], text) } else { ([(CONTENT_TYPE, PLAIN)], plain(&text)) }
}

/// Returns OpenMetrics in Prometheus' older text format: there a type belongs to the name as the samples have it, and
/// there is no type `info`.
fn plain(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len());
    let mut help = None;
    for line in openmetrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some((name, r#type)) =
            line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            let (suffix, r#type) = match r#type {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                other => ("", other),
            };
            if let Some((_, words)) = help.take() {
                writeln!(text, "# HELP {name}{suffix} {words}").expect("writing to a string cannot fail");
            }
            writeln!(text, "# TYPE {name}{suffix} {}", r#type).expect("writing to a string cannot fail");
        } else if !line.starts_with('#') {
            writeln!(text, "{line}").expect("writing to a string cannot fail");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write as _},
        net::TcpStream,
        sync::atomic::{AtomicBool, Ordering},
    };

    use super::*;

    /// Asks `addr` and returns the head and the body of the answer.
    fn ask(addr: SocketAddr, request: &str, headers: &str) -> (String, String) {
        let mut stream = TcpStream::connect(addr).unwrap();
        write!(stream, "{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    /// Runs `test` against a server, then stops it; the test tells whether it is ready.
    fn with_server(test: impl FnOnce(SocketAddr, &AtomicBool)) {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let is_ready = Arc::new(AtomicBool::new(true));
        let ready = Arc::clone(&is_ready);
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let addr = listener.local_addr().unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let admin = Admin {
            metrics: Metrics::new(),
            metrics_path: "/metrics".to_owned(),
            health: Arc::default(),
            ready: Box::new(move || ready.load(Ordering::SeqCst)),
            quota: Box::new(Document::default),
        };
        let server = runtime.spawn(serve(listener, admin, async move { drop(stopped.await) }));
        test(addr, &is_ready);
        stop.send(()).unwrap();
        runtime.block_on(server).unwrap().unwrap();
    }

    #[test]
    fn the_operators_port_answers_what_it_lists_and_nothing_else() {
        with_server(|addr, _| {
            let table = [
                ("GET /", "200 OK", INDEX),
                ("GET /livez", "200 OK", "ok\n"),
                ("HEAD /livez", "200 OK", ""),
                ("GET /readyz", "200 OK", "ready\n"),
                ("GET /api/v1/quota", "200 OK", "{\n  \"lanes\": []\n}\n"),
                ("GET /api/v2/quota", "404 Not Found", "not found; / lists what is here\n"),
                ("GET /v2/", "404 Not Found", "not found; / lists what is here\n"),
                ("GET /metrics/", "404 Not Found", "not found; / lists what is here\n"),
                ("POST /livez", "405 Method Not Allowed", ""),
            ];
            for (request, status, body) in table {
                let (head, found) = ask(addr, request, "");
                assert_eq!(head.lines().next().unwrap(), format!("HTTP/1.1 {status}"), "{request}");
                assert_eq!(found, body, "{request}");
            }
        });
    }

    #[test]
    fn it_is_ready_only_while_pulls_are_taken_and_alive_all_the_same() {
        with_server(|addr, is_ready| {
            is_ready.store(false, Ordering::SeqCst);
            assert!(ask(addr, "GET /readyz", "").0.starts_with("HTTP/1.1 503 "));
            assert!(ask(addr, "GET /livez", "").0.starts_with("HTTP/1.1 200 "));
            is_ready.store(true, Ordering::SeqCst);
            assert!(ask(addr, "GET /readyz", "").0.starts_with("HTTP/1.1 200 "));
        });
    }

    #[test]
    fn metrics_come_in_the_format_that_is_asked_for() {
        with_server(|addr, _| {
            let accept = "accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n";
            let (head, body) = ask(addr, "GET /metrics", accept);
            assert!(head.contains(&format!("content-type: {OPENMETRICS}")), "{head}");
            assert!(
                body.ends_with("# EOF\n") && body.contains("# TYPE registry_proxy_hits counter\n"),
                "{body}"
            );

            let (head, body) = ask(addr, "GET /metrics", "");
            assert!(head.contains(&format!("content-type: {PLAIN}")), "{head}");
            let hits = "# HELP registry_proxy_hits_total Requests for content that was in the cache.\n\
                        # TYPE registry_proxy_hits_total counter\n\
                        registry_proxy_hits_total{type=";
            assert!(body.contains(hits), "{body}");
            assert!(body.contains("registry_proxy_hits_total{type=\"blob\"} 0\n"), "{body}");
            assert!(
                body.contains("# TYPE stopover_build_info gauge\nstopover_build_info{version="),
                "{body}"
            );
            assert!(body.contains("# TYPE stopover_request_seconds histogram\n"), "{body}");
            assert!(!body.contains("# EOF"), "{body}");
        });
    }

    #[test]
    fn a_connection_that_says_nothing_does_not_hold_up_the_end() {
        let mut silent = None;
        with_server(|addr, _| {
            let mut stream = TcpStream::connect(addr).unwrap();
            stream.write_all(b"GET /livez HTTP/1.1\r\n").unwrap();
            silent = Some(stream);
            assert!(ask(addr, "GET /livez", "").0.starts_with("HTTP/1.1 200 "));
        });
    }
}
