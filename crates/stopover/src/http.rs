//! The pull port: connections, requests, answers. Only this module knows status codes.
//!
//! It reads no request's body and answers GET and HEAD alone, which rules out whole classes of smuggling; it sends
//! files by sendfile where the connection is plain HTTP/1; it ends connections on request without breaking a transfer.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use ::http::{HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};

use crate::{
    access::Access,
    cache::Cache,
    health::Health,
    log::AccessLog,
    metrics::{Metrics, Under},
    route::Route,
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

use access::Accounts;
use connection::{Connection, Refused, Shared};
use pull::{Caller, Pulls};

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
    /// How long a client may take to send a request's head, or be idle between requests.
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
}

impl Server {
    /// Returns a server of pulls from this cache, to whom `access` lets in.
    pub fn new(
        health: Arc<Health>,
        access: Access,
        route: Route,
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
        }
    }

    /// Accepts and serves connections until the future is dropped.
    pub async fn accept(&self, listener: &TcpListener) {
        loop {
            match listener.accept().await {
                Ok((tcp, address)) => {
                    let Ok(slot) = Arc::clone(&self.slots).acquire_owned().await else { return };
                    self.serve(tcp, address, slot);
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
        self.graceful.shutdown().await;
    }

    fn serve(&self, tcp: TcpStream, address: SocketAddr, slot: OwnedSemaphorePermit) {
        if let Err(error) = tcp.set_nodelay(true) {
            tracing::debug!(%error, "a connection was gone before it was served");
            return;
        }
        let shared = Arc::new(Shared::default());
        let caller = Caller { address, connection: Arc::clone(&shared), sendfile: self.limits.sendfile };
        let pulls = Arc::clone(&self.pulls);
        let headers = Arc::clone(&self.limits.headers);
        let service = service_fn(move |request| {
            let (pulls, caller, headers) = (Arc::clone(&pulls), caller.clone(), Arc::clone(&headers));
            async move {
                let mut response = pulls.answer(&request, &caller).await;
                respond::add(response.headers_mut(), &headers);
                Ok::<_, std::convert::Infallible>(response)
            }
        });
        let refused = Refused { accounts: Arc::clone(&self.accounts), address };
        let connection = Connection::new(tcp, shared, refused, self.limits.stall_timeout);
        let served = self.builder().serve_connection(connection, service).into_owned();
        let served = self.graceful.watch(served);
        let open = Under::way(&self.metrics.connections);
        tokio::spawn(async move {
            if let Err(error) = served.await {
                tracing::debug!(%error, client = %address, "a connection broke");
            }
            drop((slot, open));
        });
    }

    fn builder(&self) -> auto::Builder<TokioExecutor> {
        let mut builder = auto::Builder::new(TokioExecutor::new());
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
        if self.limits.http2 { builder } else { builder.http1_only() }
    }
}

/// Returns a listening socket; one that was open a moment ago can be opened again at once.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    const QUEUE: i32 = 4_096;
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::STREAM,
        Some(socket2::Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(QUEUE)?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}
