//! The way out: the only place that opens connections to other machines.
//!
//! One [`Egress`] is one way out: its local address or its proxies, its trusted certificates, its pool of kept-alive
//! connections, its bandwidth. It sends a request and returns the head of the answer, within a deadline; it follows no
//! redirect, stores no cookie, adds no credential but the proxy's own, and connects only to addresses that the [`Reach`]
//! of the request allows. It must not know what a registry is.

mod address;
mod bandwidth;
mod body;
mod connect;
mod line;
mod names;
mod proxy;
mod tls;
mod turns;

use std::{
    error::Error as StdError,
    io,
    net::{IpAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::Stream;
use http::{Request, Response, StatusCode, Uri, header::PROXY_AUTHORIZATION};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpInfo},
    rt::{TokioExecutor, TokioTimer},
};
use prometheus_client::metrics::counter::Counter;
use tokio::time::{Instant, timeout_at};

pub use self::{
    address::is_public,
    bandwidth::{Bandwidth, Shaped},
    body::{Steady, collect},
    proxy::Proxies,
    tls::{Tls, TlsError, TlsFiles},
};
use self::{
    connect::{ConnectError, Connector, Limits},
    names::Names,
    proxy::Chosen,
};

/// How much of an answer one connection reads at once, and how long an answer's head may be, in bytes. Measured on
/// loopback, for 200 answers at once: 17 MB of memory, against 31 MB with 64 KiB; 1.5 GB/s over one connection, which is
/// three times what can be hashed.
const READ_BUFFER_BYTES: usize = 32 << 10;
/// How long an unused connection is kept.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// How many unused connections are kept for one host.
const IDLE_PER_HOST_MAX: usize = 16;

/// What makes one way out.
#[derive(Clone, Debug)]
pub struct EgressOptions {
    /// What the operator calls it.
    pub name: Arc<str>,
    /// The address of this machine that every connection is made from; `None` leaves it to the system.
    pub from: Option<IpAddr>,
    /// How long one address may take to accept a connection; TLS gets as long again.
    pub connect_timeout: Duration,
    /// Which proxies to go through.
    pub proxies: Proxies,
    /// How encrypted connections are made.
    pub tls: Tls,
    /// Whose word names the hosts.
    pub hosts: Hosts,
    /// What content that comes this way keeps to, by whichever ways out it is shared.
    pub bandwidth: Option<Arc<Bandwidth>>,
    /// Counts the bytes that come, with heads and TLS.
    pub received: Counter,
}

/// Whose word names the hosts that a way out leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hosts {
    /// The operator's, and data's that comes from them: a request's [`Reach`] tells the two apart.
    Known,
    /// A client's: nobody here has ever heard of them. Every request is held to [`Reach::Public`], whatever it says of
    /// itself, names are resolved here even where a proxy stands between, and the proxy is asked for the address that
    /// was found, so that it cannot be led inside by a name.
    Strange,
}

impl Default for EgressOptions {
    fn default() -> Self {
        Self {
            name: "default".into(),
            from: None,
            connect_timeout: Duration::from_secs(3),
            proxies: Proxies::FromEnvironment,
            tls: Tls::default(),
            hosts: Hosts::Known,
            bandwidth: None,
            received: Counter::default(),
        }
    }
}

/// Which addresses a request may connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reach {
    /// The place that this way out is for: any address, and our own certificate is shown where one is wanted.
    Home,
    /// Any: the operator named the host.
    Named,
    /// Only public ones: the host's name came from data, such as a redirect. Refuses loopback, private, link-local
    /// and other special addresses, whatever name stands for them.
    Public,
}

/// A way out by its name, as an upstream is given it.
#[derive(Clone)]
pub struct WayOut {
    /// Its name in the configuration, for logs, metrics and the operator.
    pub name: Arc<str>,
    /// The way itself; several upstreams may share it.
    pub egress: Arc<Egress>,
}

/// One way out.
pub struct Egress {
    home: Client<Connector, Full<Bytes>>,
    named: Client<Connector, Full<Bytes>>,
    public: Client<Connector, Full<Bytes>>,
    proxies: Arc<Chosen>,
    bandwidth: Option<Arc<Bandwidth>>,
    load: AtomicUsize,
}

impl Egress {
    /// Returns a way out.
    pub fn new(options: &EgressOptions) -> Arc<Self> {
        let proxies = Arc::new(options.proxies.choose());
        let names = Arc::new(Names::default());
        let client = |reach| {
            let limits = Limits {
                egress: Arc::clone(&options.name),
                from: options.from,
                reach,
                hosts: options.hosts,
                connect_timeout: options.connect_timeout,
                received: options.received.clone(),
            };
            let connector = Connector::new(limits, &proxies, &options.tls, &names);
            Client::builder(TokioExecutor::new())
                .timer(TokioTimer::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE_MAX)
                .pool_max_idle_per_host(IDLE_PER_HOST_MAX)
                .http1_max_buf_size(READ_BUFFER_BYTES)
                .build(connector)
        };
        // What a client named has no home of its own that would be trusted further.
        let held_to = |reach| if options.hosts == Hosts::Strange { Reach::Public } else { reach };
        let client = |reach| client(held_to(reach));
        let (home, named, public) = (client(Reach::Home), client(Reach::Named), client(Reach::Public));
        let bandwidth = options.bandwidth.clone();
        Arc::new(Self { home, named, public, proxies, bandwidth, load: AtomicUsize::new(0) })
    }

    /// Sends a request and returns the head of the answer with the body still on its way. Fails at `deadline`.
    pub async fn send(
        &self,
        mut request: Request<Full<Bytes>>,
        reach: Reach,
        deadline: Instant,
    ) -> Result<Response<Incoming>, EgressError> {
        let uri = request.uri().clone();
        let forwarding = self.proxies.before(&uri).filter(|_| uri.scheme_str() == Some("http"));
        if let Some(value) = forwarding.as_ref().and_then(|proxy| proxy.basic_auth()) {
            request.headers_mut().insert(PROXY_AUTHORIZATION, value.clone());
        }
        let client = match reach {
            Reach::Home => &self.home,
            Reach::Named => &self.named,
            Reach::Public => &self.public,
        };
        match timeout_at(deadline, client.request(request)).await {
            Ok(Ok(response)) => match forwarding {
                Some(proxy) if response.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                    Err(ConnectError::refused_by_proxy(proxy.uri()).into())
                }
                _ => Ok(response),
            },
            Ok(Err(error)) => Err(EgressError::of_request(&error, &uri)),
            Err(_) => {
                let message = format!("no answer from {} in time", host_of(&uri));
                Err(EgressError { kind: EgressErrorKind::Timeout, message })
            }
        }
    }

    /// Returns how many streams of content are under way, or about to be.
    pub fn load(&self) -> usize {
        self.load.load(Ordering::Relaxed)
    }

    /// Counts one more stream as under way until the returned value is dropped: for who chooses between ways out, from
    /// the choice on.
    pub fn engage(self: &Arc<Self>) -> Load {
        self.load.fetch_add(1, Ordering::Relaxed);
        Load(Arc::clone(self))
    }
}

/// A stream of content that is under way on a way out, or about to be, until this is dropped.
pub struct Load(Arc<Egress>);

impl Load {
    /// Returns the body of the stream, so that it keeps to its way's bandwidth, and to `other` where there is one. All
    /// bodies of the same `content` have one share of it together.
    pub fn shape<S, E>(self, content: &str, other: Option<&Arc<Bandwidth>>, body: S) -> Shaped<S>
    where
        S: Stream<Item = Result<Bytes, E>> + Unpin,
    {
        let own = self.0.bandwidth.clone();
        Shaped::new(body, content, other.into_iter().chain(&own), Some(self))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.load.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Returns whether this machine has an address now, by which it could send; it may get one later.
pub fn has_address(address: IpAddr) -> io::Result<()> {
    UdpSocket::bind((address, 0)).map(drop)
}

/// Returns whether the answer came straight from a machine whose address is not public; false where a proxy stands
/// between, since then its address says nothing.
pub fn came_from_inside<B>(response: &Response<B>) -> bool {
    response.extensions().get::<HttpInfo>().is_some_and(|info| !is_public(info.remote_addr().ip()))
}

/// A request that got no answer, or an answer whose body broke off.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct EgressError {
    /// What went wrong, as a closed set to decide by.
    pub kind: EgressErrorKind,
    /// What went wrong, for people. Holds no URL beyond the host.
    pub message: String,
}

/// What went wrong on the way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EgressErrorKind {
    /// The host has no address that the request may connect to.
    Forbidden,
    /// No connection: DNS, refused, unreachable, a proxy's refusal. Nothing was sent.
    Connect,
    /// No connection in time. Nothing was sent.
    ConnectTimeout,
    /// The certificate or the handshake is not right. Nothing was sent.
    Tls,
    /// The certificate was signed by nobody who is trusted. Nothing was sent.
    Untrusted,
    /// No answer, or no more of it, in time.
    Timeout,
    /// The connection ended before the answer did.
    Broken,
    /// What came is not HTTP as it should be, or too large.
    Malformed,
}

impl EgressError {
    fn of_request(error: &(dyn StdError + 'static), uri: &Uri) -> Self {
        let host = host_of(uri);
        if let Some(cause) = find::<ConnectError>(error) {
            return cause.clone().into();
        }
        if let Some(cause) = find::<rustls::Error>(error) {
            // The other is that of an authority which was made anew under its old name.
            use rustls::CertificateError::{BadSignature, UnknownIssuer};
            let kind = match cause {
                rustls::Error::InvalidCertificate(UnknownIssuer | BadSignature) => EgressErrorKind::Untrusted,
                _ => EgressErrorKind::Tls,
            };
            return Self { kind, message: format!("TLS with {host}: {cause}") };
        }
        let kind = match find::<hyper::Error>(error) {
            Some(cause) if cause.is_parse() || cause.is_user() => EgressErrorKind::Malformed,
            Some(_) => EgressErrorKind::Broken,
            None => EgressErrorKind::Connect,
        };
        Self { kind, message: format!("{host}: {}", innermost(error)) }
    }

    fn of_body(error: &hyper::Error) -> Self {
        let kind = if error.is_parse() { EgressErrorKind::Malformed } else { EgressErrorKind::Broken };
        Self { kind, message: format!("the answer broke off: {}", innermost(error)) }
    }
}

fn host_of(uri: &Uri) -> &str {
    uri.host().unwrap_or("a URL without a host")
}

/// Returns the first error of a type in a chain of sources. An `io::Error` hides what it wraps from `source`.
fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    let mut at = Some(error);
    while let Some(error) = at {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        at = match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    None
}

/// Returns the words of the last error of a chain: the others only say that something went wrong.
fn innermost(error: &(dyn StdError + 'static)) -> String {
    let mut at = error;
    while let Some(source) = at.source() {
        at = source;
    }
    at.to_string()
}

#[cfg(test)]
mod tests;
