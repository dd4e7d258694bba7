//! The listeners, and the way of a request: seen, admitted, counted, delayed, struck by faults, answered.

use std::{io, net::SocketAddr, sync::Arc};

use http::{HeaderMap, Method, Request, header, request::Parts};
use http_body_util::{BodyExt, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    task::{JoinHandle, JoinSet},
};

use crate::{
    answer::{self, Answer},
    cdn::{self, Verdict},
    control,
    counters::{DigestCounters, Seen},
    fault::{Asked, Fault, Kind},
    quota, registry,
    route::{Role, Route},
    state::{Exchange, State},
    token,
    wire::{Connection, Wire},
};

/// The longest form that the token service reads.
const FORM_BYTES_MAX: usize = 64 << 10;
const BACKLOG: u32 = 4096;

/// One port of the Hub.
pub(crate) struct Port {
    pub(crate) role: Role,
    pub(crate) address: SocketAddr,
    pub(crate) life: Life,
}

/// Whether a port listens.
pub(crate) enum Life {
    Up(JoinHandle<()>),
    /// Connections are refused; the socket keeps the port from being taken by another process.
    Down(TcpSocket),
}

/// Returns a socket that is bound and does not listen yet. A `shared` address may be bound by several such sockets of
/// this user, so that a port can be kept while nobody listens on it.
pub(crate) fn bind(address: SocketAddr, shared: bool) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(shared)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Starts to listen; ends, with all its connections, when the task is aborted.
pub(crate) fn listen(socket: TcpSocket, role: Role, state: &Arc<State>) -> io::Result<JoinHandle<()>> {
    let listener = socket.listen(BACKLOG)?;
    Ok(tokio::spawn(accept(listener, role, state.clone())))
}

async fn accept(listener: TcpListener, role: Role, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // A connection that is gone before it is accepted is no failure of the listener.
                let Ok((stream, peer)) = accepted else { continue };
                state.recorder.count(|counters| &mut counters.connections);
                connections.spawn(converse(stream, peer, role, state.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn converse(stream: TcpStream, peer: SocketAddr, role: Role, state: Arc<State>) {
    // Without it small answers wait for the client's acknowledgement; a socket that refuses is slow, not wrong.
    let _ = stream.set_nodelay(true);
    let connection = Arc::new(Connection::new(peer.ip(), state.rate.clone()));
    let wire = Wire::new(stream, connection.clone());
    let service = service_fn(move |request| respond(state.clone(), connection.clone(), role, request));
    // Errors here are clients that left and connections that a fault cut.
    let _ = http1::Builder::new().header_read_timeout(None).serve_connection(wire, service).await;
}

async fn respond(
    state: Arc<State>,
    connection: Arc<Connection>,
    role: Role,
    request: Request<Incoming>,
) -> io::Result<Answer> {
    let (parts, body) = request.into_parts();
    let host = answer::text(&parts.headers, header::HOST).unwrap_or("").to_owned();
    let exchange = Exchange { state, connection, host };
    let path = parts.uri.path();
    let route = Route::parse(role, path);
    if let Route::Control(command) = route {
        return Ok(control::answer(&exchange, &parts.method, command, parts.uri.query().unwrap_or("")));
    }
    let number = exchange.state.recorder.saw(seen(&parts, role, route, &exchange));
    let form = match (route, &parts.method) {
        (Route::Token, &Method::POST) => Some(read_form(body).await),
        _ => None,
    };
    let registry = exchange.state.clone();
    let _waits = (role == Role::Registry).then(|| registry.recorder.waits());
    let mut answer = decide(&exchange, &parts, role, route, form.as_deref()).await?;
    if role == Role::Registry {
        answer::put(&mut answer, "docker-distribution-api-version", "registry/2.0");
    }
    exchange.state.recorder.answered(number, answer.status().as_u16());
    Ok(answer)
}

/// Returns the answer, or an error that closes the connection.
async fn decide(
    exchange: &Exchange,
    parts: &Parts,
    role: Role,
    route: Route<'_>,
    form: Option<&str>,
) -> io::Result<Answer> {
    let (headers, path) = (&parts.headers, parts.uri.path());
    let query = parts.uri.query().unwrap_or("");
    let admission = match route.kind() {
        Kind::Token | Kind::Cdn => None,
        _ => Some(token::admit(exchange, headers, route.repository())),
    };
    let verdict = match route {
        Route::Data { .. } | Route::Nested { .. } => cdn::judge(exchange, role, headers, path, query),
        _ => Verdict::Served,
    };
    let digest = digest(exchange, route);
    let challenged = matches!(admission, Some(Err(_)));
    let asked = Asked {
        kind: if challenged { Kind::Challenge } else { route.kind() },
        method: &parts.method,
        reference: route.reference(),
        digest: digest.as_deref(),
        peer: exchange.connection.peer,
    };
    // From before the count on, so that who sees the request counted can release it.
    let mut releases = exchange.state.releases();
    count(exchange, &asked, route, verdict, headers);
    let latency = exchange.state.options().latency;
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    while let Some(fault) = exchange.state.faults.strike(&asked, Fault::is_answer) {
        match fault {
            // An error means that the Hub has gone; the connection goes with it.
            Fault::Hang => drop(releases.changed().await),
            Fault::Close => {
                return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "closed by a fault"));
            }
            fault => return Ok(answer_of(exchange, &fault)),
        }
    }
    Ok(match (admission, route) {
        (Some(Err(mut refusal)), _) => {
            if exchange.state.faults.strike(&asked, |fault| *fault == Fault::NoWwwAuthenticate).is_some() {
                refusal.headers_mut().remove(header::WWW_AUTHENTICATE);
            }
            refusal
        }
        (Some(Ok(source)), route) => registry::answer(exchange, &asked, headers, route, query, &source),
        (None, Route::Token) => token::answer(exchange, &asked, headers, query, form),
        (None, Route::RefusingToken) => token::refuse(exchange),
        (None, Route::Loop) => answer::redirect(exchange, 307, &cdn::loop_url(exchange)),
        (None, route) => cdn::answer(exchange, &asked, headers, route, verdict),
    })
}

/// Returns the answer that a fault puts in the place of any other.
fn answer_of(exchange: &Exchange, fault: &Fault) -> Answer {
    match fault {
        Fault::Status(code, retry_after) => {
            let status = if (200..1000).contains(code) { *code } else { 500 };
            let mut answer =
                answer::error(exchange, status, "UNKNOWN", "a fault of the stand-in", Default::default());
            if let Some(seconds) = retry_after {
                answer::put(&mut answer, "retry-after", &seconds.to_string());
            }
            answer
        }
        Fault::TooManyRequests(retry_after) => quota::spent(exchange, false, *retry_after),
        Fault::Abuse429 => quota::abuse(exchange),
        Fault::RedirectTo(url) => answer::redirect(exchange, 307, url),
        Fault::RedirectLoop => answer::redirect(exchange, 307, &cdn::loop_url(exchange)),
        _ => {
            let page =
                "<!doctype html><title>Welcome to the airport</title><p>Please log in to the network.\n";
            answer::whole(exchange, 200, "text/html; charset=utf-8", page)
        }
    }
}

fn digest(exchange: &Exchange, route: Route<'_>) -> Option<String> {
    match route {
        Route::Manifest { repository, reference } => {
            exchange.state.content().manifest(repository, reference).map(|manifest| manifest.digest.clone())
        }
        _ => route.reference().map(str::to_owned),
    }
}

fn count(exchange: &Exchange, asked: &Asked<'_>, route: Route<'_>, verdict: Verdict, headers: &HeaderMap) {
    let recorder = &exchange.state.recorder;
    let is_head = *asked.method == Method::HEAD;
    recorder.count(|counters| match (asked.kind, verdict) {
        (Kind::Challenge, _) => &mut counters.challenged,
        (Kind::Ping, _) => &mut counters.ping,
        (Kind::Token, _) => &mut counters.token,
        (Kind::Manifests, _) if is_head => &mut counters.manifest_head,
        (Kind::Manifests, _) => &mut counters.manifest_get,
        (Kind::Blobs, _) if is_head => &mut counters.blob_head,
        (Kind::Blobs, _) => &mut counters.blob_get,
        (Kind::Tags, _) => &mut counters.tags,
        (Kind::Referrers, _) => &mut counters.referrers,
        (Kind::Cdn, Verdict::HasAuthorization) => &mut counters.refused_cdn_auth,
        (Kind::Cdn, Verdict::BadSignature) => &mut counters.refused_cdn_signature,
        (Kind::Cdn, Verdict::Served) if matches!(route, Route::Data { .. }) => &mut counters.cdn_get,
        _ => &mut counters.other,
    });
    let is_basic =
        answer::text(headers, header::AUTHORIZATION).is_some_and(|value| value.starts_with("Basic "));
    if asked.kind == Kind::Token && is_basic {
        recorder.count(|counters| &mut counters.token_basic);
    }
    let Some(digest) = asked.digest else { return };
    let which: fn(&mut DigestCounters) -> &mut u64 = match (asked.kind, is_head, verdict) {
        (Kind::Manifests, true, _) => |of| &mut of.manifest_heads,
        (Kind::Manifests, false, _) => |of| &mut of.manifest_gets,
        (Kind::Blobs, true, _) => |of| &mut of.blob_heads,
        (Kind::Blobs, false, _) => |of| &mut of.blob_gets,
        (Kind::Cdn, _, Verdict::Served) if matches!(route, Route::Data { .. }) => |of| &mut of.cdn_gets,
        _ => return,
    };
    recorder.count_digest(digest, which);
}

fn seen(parts: &Parts, role: Role, route: Route<'_>, exchange: &Exchange) -> Seen {
    let text = |name| answer::text(&parts.headers, name).map(str::to_owned);
    let accept: Vec<&str> =
        parts.headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let authorization = parts.headers.get(header::AUTHORIZATION);
    Seen {
        peer: exchange.connection.peer,
        port: if route.kind() == Kind::Token { Role::Token } else { role }.name(),
        method: parts.method.to_string(),
        path: parts.uri.path_and_query().map_or_else(String::new, ToString::to_string),
        host: exchange.host.clone(),
        authorization: authorization.map(|value| {
            let scheme = value.as_bytes().split(|byte| *byte == b' ').next().unwrap_or_default();
            String::from_utf8_lossy(scheme).into_owned()
        }),
        range: text(header::RANGE),
        user_agent: text(header::USER_AGENT),
        accept: (!accept.is_empty()).then(|| accept.join(", ")),
        accept_encoding: text(header::ACCEPT_ENCODING),
        cookie: text(header::COOKIE),
        status: 0,
    }
}

async fn read_form(body: Incoming) -> String {
    match Limited::new(body, FORM_BYTES_MAX).collect().await {
        Ok(collected) => String::from_utf8_lossy(&collected.to_bytes()).into_owned(),
        // A form that is cut or too long is an empty one: it asks for nothing.
        Err(_) => String::new(),
    }
}
