//! The pull port: connections, requests, answers. Only this module knows status codes.
//!
//! It reads no request's body and answers GET and HEAD alone, which rules out whole classes of smuggling; it sends
//! files by sendfile where the connection is HTTP/1 without TLS; it ends connections on request without breaking a
//! transfer.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use ::http::{HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::{
    access::Access,
    cache::Cache,
    health::Health,
    listen::{Listener, Stream},
    log::AccessLog,
    metrics::Metrics,
    route::Route,
    tls::Certificates,
};

mod access;
mod blob;
mod body;
mod conditional;
mod connection;
mod error;
mod ghost;
mod pull;
mod respond;
mod socket;
mod wire;

use access::Accounts;
use connection::{Client, Connection, Refused, Shared};
use pull::{Caller, Pulls};
use socket::Socket;
use wire::{Shaken, Wire};

/// Bytes of a request's head; clients send some hundred, a hostile one as much as it may.
const HEAD_BYTES_MAX: usize = 32 << 10;
/// Requests at a time on one HTTP/2 connection.
const STREAMS_MAX: u32 = 128;
/// How long accepting waits after the system refused, for want of file descriptors for instance.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How the pull port behaves.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at a time; more wait in the system's queue.
    pub connections_max: usize,
    /// How long a client may take to shake hands, to send a request's head, or be idle between requests.
    pub header_timeout: Duration,
    /// How long a client may take nothing of what is sent to it.
    pub stall_timeout: Duration,
    /// Whether files are sent by sendfile.
    pub sendfile: bool,
    /// Whether HTTP/2 is spoken.
    pub http2: bool,
    /// What every answer says besides.
    pub headers: Arc<[(HeaderName, HeaderValue)]>,
}

/// Serves pulls.
pub struct Server {
    pulls: Arc<Pulls>,
    accounts: Arc<Accounts>,
    limits: Limits,
    metrics: Arc<Metrics>,
    slots: Arc<Semaphore>,
    graceful: GracefulShutdown,
    /// Whether no connection is to begin any more.
    ending: watch::Sender<bool>,
}

impl Server {
    /// Returns a server of pulls from this cache, to whom `access` lets in.
    pub fn new(
        health: Arc<Health>,
        access: Access,
        route: Arc<Route>,
        cache: Cache,
        log: AccessLog,
        metrics: Arc<Metrics>,
        limits: Limits,
    ) -> Self {
        let accounts = Arc::new(Accounts { log, metrics: Arc::clone(&metrics) });
        Self {
            pulls: Arc::new(Pulls::new(health, access, route, cache, Arc::clone(&accounts))),
            accounts,
            slots: Arc::new(Semaphore::new(limits.connections_max)),
            limits,
            metrics,
            graceful: GracefulShutdown::new(),
            ending: watch::Sender::new(false),
        }
    }

    /// Accepts and serves connections until the future is dropped; with certificates, over TLS.
    pub async fn accept(&self, listener: &Listener, certificates: Option<&Certificates>) {
        loop {
            match listener.accept().await {
                Ok((stream, address)) => {
                    let Ok(slot) = Arc::clone(&self.slots).acquire_owned().await else { return };
                    self.serve(stream, address, certificates, slot);
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Has every connection end after the answer it is sending, and waits until all have.
    pub async fn finish(self) {
        self.ending.send_replace(true);
        self.graceful.shutdown().await;
    }

    fn serve(
        &self,
        stream: Stream,
        address: Option<SocketAddr>,
        certificates: Option<&Certificates>,
        slot: OwnedSemaphorePermit,
    ) {
        if let Err(error) = stream.set_nodelay() {
            tracing::debug!(%error, "a connection was gone before it was served");
            return;
        }
        let tls = certificates.map(Certificates::current);
        let listener = match (&tls, address) {
            (Some(_), _) => "tls",
            (None, Some(_)) => "tcp",
            (None, None) => "unix",
        };
        let client = Client { address, listener };
        let shared = Arc::new(Shared::default());
        let sendfile = self.limits.sendfile && tls.is_none();
        let caller = Caller { client, connection: Arc::clone(&shared), sendfile };
        let pulls = Arc::clone(&self.pulls);
        let headers = Arc::clone(&self.limits.headers);
        let of_service = Arc::clone(&shared);
        let service = service_fn(move |request| {
            of_service.asked.store(true, Ordering::Relaxed);
            let (pulls, caller, headers) = (Arc::clone(&pulls), caller.clone(), Arc::clone(&headers));
            async move {
                let mut response = pulls.answer(&request, &caller).await;
                respond::add(response.headers_mut(), &headers);
                Ok::<_, std::convert::Infallible>(response)
            }
        });
        let socket = Socket::new(stream, self.limits.stall_timeout);
        let greeting = Greeting {
            client,
            within: self.limits.header_timeout,
            accounts: Arc::clone(&self.accounts),
            ending: self.ending.subscribe(),
        };
        let refused = Refused { accounts: Arc::clone(&self.accounts), client };
        let (builder, watcher) = (self.builder(), self.graceful.watcher());
        let open = self.metrics.connection(listener);
        let within = self.limits.header_timeout;
        tokio::spawn(async move {
            let wire = match tls {
                None => Some(Wire::Plain(socket)),
                Some(config) => greeting.shake(socket, config).await,
            };
            if let Some(wire) = wire {
                let connection = Connection::new(wire, Arc::clone(&shared), refused);
                let served = watcher.watch(builder.serve_connection(connection, service).into_owned());
                tokio::select! {
                    served = served => if let Err(error) = served {
                        tracing::debug!(%error, %client, "a connection broke");
                    },
                    () = shared.nothing_asked(within) => tracing::debug!(%client, "a client asked for nothing in time"),
                }
            }
            drop((slot, open));
        });
    }

    fn builder(&self) -> auto::Builder<TokioExecutor> {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        if !self.limits.http2 {
            builder = builder.http1_only();
        }
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.header_timeout)
            .writev(true)
            .max_buf_size(HEAD_BYTES_MAX)
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(HEAD_BYTES_MAX as u32)
            .keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(20));
        builder
    }
}

/// What a connection over TLS begins with.
struct Greeting {
    client: Client,
    within: Duration,
    accounts: Arc<Accounts>,
    ending: watch::Receiver<bool>,
}

impl Greeting {
    /// Shakes hands; returns nothing where that is not to be, which is told to whom it concerns.
    async fn shake(mut self, socket: Socket, config: Arc<rustls::ServerConfig>) -> Option<Wire> {
        let client = self.client;
        let failed = |error: &dyn std::fmt::Display| {
            self.accounts.metrics.tls_handshake_failures.inc();
            tracing::info!(%client, %error, "no TLS came about with a client");
        };
        let shaken = tokio::select! {
            shaken = tokio::time::timeout(self.within, wire::shake(socket, config)) => shaken,
            _ = self.ending.wait_for(|ending| *ending) => return None,
        };
        match shaken {
            Ok(Ok(Shaken::Tls(stream))) => return Some(Wire::Tls(stream)),
            Ok(Ok(Shaken::Http(socket))) => {
                let refused = Refused { accounts: Arc::clone(&self.accounts), client };
                refused.tell(http::StatusCode::BAD_REQUEST, "an HTTP request where TLS is spoken");
                wire::say_not_tls(socket).await;
            }
            Ok(Ok(Shaken::Nothing)) => tracing::debug!(%client, "a connection ended without a word"),
            Ok(Err(error)) => failed(&error),
            Err(_) => failed(&"the handshake took too long"),
        }
        None
    }
}
