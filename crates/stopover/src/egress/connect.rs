//! Connections: resolve, filter the addresses, race those left, then TLS.
//!
//! The address that was checked is the one connected to; there is no second lookup between (DNS rebinding). All
//! addresses of a host are tried, each with a short head start over the next, so that a dead one costs little.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use http::Uri;
use hyper_rustls::{DefaultServerNameResolver, HttpsConnector, MaybeHttpsStream};
use hyper_util::rt::TokioIo;
use prometheus_client::metrics::counter::Counter;
use rustls::ClientConfig;
use tokio::{
    net::{TcpSocket, TcpStream},
    time::{sleep, timeout},
};
use tower_service::Service;

use super::{
    EgressError, EgressErrorKind, Hosts, Reach,
    address::is_public,
    line::Line,
    names::Names,
    proxy::{Chosen, Route, Wire},
    tls::Tls,
};

pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How long one address is tried before the next is tried beside it; RFC 8305 names 250 ms.
const HEAD_START: Duration = Duration::from_millis(250);
/// How many addresses of one host are tried.
const ADDRESSES_MAX: usize = 6;

/// Why there is no connection.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("{host} was named by a client or by a registry's answer, and has no public address")]
    Forbidden { host: String },
    #[error("{host} was named by a client, so it is asked by https and on port 443 alone")]
    NotHttps { host: String },
    #[error("cannot resolve {host}: {cause}")]
    Dns { host: String, cause: String },
    #[error("cannot connect to {host}: {cause}")]
    Tcp { host: String, cause: String },
    #[error("no connection to {host} in time")]
    Timeout { host: String },
    #[error("the proxy {proxy} gives no way: {cause}")]
    Proxy { proxy: String, cause: String },
    #[error("the egress {egress} has a proxy whose URL is not understood")]
    NoProxy { egress: Arc<str> },
    #[error("the egress {egress} cannot send from {from}, which this machine does not have now: {cause}")]
    From { egress: Arc<str>, from: IpAddr, cause: String },
    #[error("the egress {egress} sends from {from}, and {host} has no {family} address", family = family_of(*from))]
    Family { egress: Arc<str>, from: IpAddr, host: String },
}

impl ConnectError {
    /// Says that a proxy does not know us.
    pub(super) fn refused_by_proxy(proxy: &Uri) -> Self {
        let cause = "it wants a user and password, or others (407)".to_owned();
        Self::Proxy { proxy: place_of(proxy), cause }
    }

    fn kind(&self) -> EgressErrorKind {
        match self {
            Self::Forbidden { .. } | Self::NotHttps { .. } => EgressErrorKind::Forbidden,
            Self::Dns { .. } | Self::Tcp { .. } | Self::Proxy { .. } => EgressErrorKind::Connect,
            Self::NoProxy { .. } | Self::From { .. } | Self::Family { .. } => EgressErrorKind::Connect,
            Self::Timeout { .. } => EgressErrorKind::ConnectTimeout,
        }
    }
}

impl From<ConnectError> for EgressError {
    fn from(error: ConnectError) -> Self {
        Self { kind: error.kind(), message: error.to_string() }
    }
}

/// Where connections come from, how far they may lead, and how long they may take.
#[derive(Clone)]
pub(super) struct Limits {
    /// What the operator calls the way out.
    pub(super) egress: Arc<str>,
    pub(super) from: Option<IpAddr>,
    pub(super) reach: Reach,
    pub(super) hosts: Hosts,
    pub(super) connect_timeout: Duration,
    /// Counts what comes.
    pub(super) received: Counter,
}

/// Connects, through proxies and TLS where needed, within a limit.
#[derive(Clone)]
pub(super) struct Connector {
    https: HttpsConnector<Route>,
    proxies: Arc<Chosen>,
    limit: Duration,
}

impl Connector {
    pub(super) fn new(limits: Limits, proxies: &Arc<Chosen>, tls: &Tls, names: &Arc<Names>) -> Self {
        let (hosts, limit) = (limits.hosts, limits.connect_timeout * 2);
        let to_target = if limits.reach == Reach::Home { &tls.home } else { &tls.elsewhere };
        let dial = |reach| Dial { names: Arc::clone(names), limits: Limits { reach, ..limits.clone() } };
        let route = Route {
            proxies: Arc::clone(proxies),
            hosts,
            direct: dial(limits.reach),
            dial_proxy: dial(Reach::Named),
            to_proxy: over_tls(dial(Reach::Named), &tls.elsewhere),
        };
        Self { https: over_tls(route, to_target), proxies: Arc::clone(proxies), limit }
    }
}

fn over_tls<C>(connector: C, tls: &Arc<ClientConfig>) -> HttpsConnector<C> {
    HttpsConnector::new(connector, Arc::clone(tls), false, Arc::new(DefaultServerNameResolver::default()))
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<Wire>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        let host = target.host().unwrap_or_default().to_owned();
        let late = match self.proxies.before(&target) {
            Some(proxy) => {
                ConnectError::Proxy { proxy: place_of(proxy.uri()), cause: format!("none to {host} in time") }
            }
            None => ConnectError::Timeout { host },
        };
        let connecting = timeout(self.limit, self.https.call(target));
        Box::pin(async move { connecting.await.map_err(|_| late)? })
    }
}

/// Opens plain connections to the addresses that its reach allows.
#[derive(Clone)]
pub(super) struct Dial {
    names: Arc<Names>,
    limits: Limits,
}

impl Service<Uri> for Dial {
    type Response = TokioIo<Line>;
    type Error = ConnectError;
    type Future = BoxFuture<'static, Result<Self::Response, ConnectError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        let dial = self.clone();
        Box::pin(async move {
            let stream = dial.connect(&target).await?;
            Ok(TokioIo::new(Line::new(stream, dial.limits.received)))
        })
    }
}

impl Dial {
    /// Returns what the operator calls the way out.
    pub(super) fn egress(&self) -> &Arc<str> {
        &self.limits.egress
    }

    /// Refuses a target that is plainly not public; for when somebody else will resolve its name.
    pub(super) fn may_name(&self, target: &Uri) -> Result<(), ConnectError> {
        let host = target.host().unwrap_or_default();
        let bare =
            host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.').to_ascii_lowercase();
        let inside = match bare.parse::<IpAddr>() {
            Ok(address) => !is_public(address),
            // A last label of digits is an address in one of its odd spellings, such as 127.1 or 0x7f000001.
            Err(_) => {
                let last = bare.rsplit('.').next().unwrap_or_default();
                let odd_address = last.starts_with(|first: char| first.is_ascii_digit());
                odd_address || ["localhost", "local", "internal"].contains(&last) || !bare.contains('.')
            }
        };
        if self.limits.reach == Reach::Public && inside {
            return Err(ConnectError::Forbidden { host: host.to_owned() });
        }
        Ok(())
    }

    /// Returns `target` with an address that may be connected to in the place of its host's name.
    pub(super) async fn resolved(&self, target: &Uri) -> Result<Uri, ConnectError> {
        let host = target.host().unwrap_or_default();
        let found = self.addresses(host).await?;
        // Whatever the proxy stands on, it reaches IPv4.
        let address = found.iter().find(|address| address.is_ipv4()).unwrap_or(&found[0]);
        let authority = SocketAddr::new(*address, port_of(target)).to_string();
        let mut parts = target.clone().into_parts();
        parts.authority = authority.parse().ok();
        Uri::from_parts(parts).map_err(|_| ConnectError::Forbidden { host: host.to_owned() })
    }

    async fn connect(&self, target: &Uri) -> Result<TcpStream, ConnectError> {
        let host = target.host().unwrap_or_default();
        let addresses = self.addresses(host).await?;
        self.race(host, port_of(target), &addresses).await
    }

    /// Returns the addresses of a host that may be connected to; at least one.
    async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, ConnectError> {
        let found = self.names.lookup(host).await;
        let found = found.map_err(|cause| ConnectError::Dns { host: host.to_owned(), cause })?;
        let allowed =
            found.iter().copied().filter(|address| self.limits.reach != Reach::Public || is_public(*address));
        let mut addresses = alternate(allowed);
        if addresses.is_empty() {
            return Err(ConnectError::Forbidden { host: host.to_owned() });
        }
        if let Some(from) = self.limits.from {
            addresses.retain(|address| address.is_ipv4() == from.is_ipv4());
            if addresses.is_empty() {
                let (egress, host) = (Arc::clone(&self.limits.egress), host.to_owned());
                return Err(ConnectError::Family { egress, from, host });
            }
        }
        Ok(addresses)
    }

    async fn open(&self, host: &str, address: SocketAddr) -> Result<TcpStream, ConnectError> {
        let refused =
            |error: io::Error| ConnectError::Tcp { host: host.to_owned(), cause: error.to_string() };
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
        let socket = socket.map_err(refused)?;
        if let Some(from) = self.limits.from {
            socket.bind(SocketAddr::new(from, 0)).map_err(|error| {
                let egress = Arc::clone(&self.limits.egress);
                ConnectError::From { egress, from, cause: error.to_string() }
            })?;
        }
        let stream = socket.connect(address).await.map_err(refused)?;
        stream.set_nodelay(true).map_err(refused)?;
        Ok(stream)
    }

    async fn race(&self, host: &str, port: u16, addresses: &[IpAddr]) -> Result<TcpStream, ConnectError> {
        let mut waiting = addresses.iter().map(|address| SocketAddr::new(*address, port));
        let mut racing = FuturesUnordered::new();
        let mut last_error = ConnectError::Timeout { host: host.to_owned() };
        let mut next = waiting.next();
        loop {
            if let Some(address) = next.take() {
                racing.push(timeout(self.limits.connect_timeout, self.open(host, address)));
            }
            tokio::select! {
                ended = racing.next() => match ended {
                    Some(Ok(Ok(stream))) => return Ok(stream),
                    Some(Ok(Err(error))) => {
                        last_error = error;
                        next = waiting.next();
                    }
                    Some(Err(_)) => next = waiting.next(),
                    None => return Err(last_error),
                },
                () = sleep(HEAD_START), if waiting.len() > 0 => next = waiting.next(),
            }
        }
    }
}

/// Refuses what is not asked by https on its usual port.
pub(super) fn require_usual_https(target: &Uri) -> Result<(), ConnectError> {
    if target.scheme_str() == Some("https") && port_of(target) == 443 {
        return Ok(());
    }
    Err(ConnectError::NotHttps { host: target.host().unwrap_or_default().to_owned() })
}

pub(super) fn port_of(target: &Uri) -> u16 {
    target.port_u16().unwrap_or(match target.scheme_str() {
        Some("https") => 443,
        Some("socks5" | "socks5h") => 1080,
        _ => 80,
    })
}

/// Returns the host and port of a proxy, without its user and password.
pub(super) fn place_of(proxy: &Uri) -> String {
    format!("{}:{}", proxy.host().unwrap_or_default(), port_of(proxy))
}

fn family_of(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// Returns the addresses with the two families taking turns, the resolver's first choice first.
fn alternate(addresses: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for address in addresses {
        let of_first_family = first.first().is_none_or(|other: &IpAddr| other.is_ipv4() == address.is_ipv4());
        if of_first_family { first.push(address) } else { second.push(address) }
    }
    let mut second = second.into_iter();
    let mut turns = Vec::new();
    for address in first {
        turns.push(address);
        turns.extend(second.next());
    }
    turns.extend(second);
    turns.truncate(ADDRESSES_MAX);
    turns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_families_take_turns() {
        let parse =
            |texts: &[&str]| texts.iter().map(|text| text.parse().expect("one")).collect::<Vec<IpAddr>>();
        let found = parse(&["2606::1", "2606::2", "1.1.1.1", "1.1.1.2", "1.1.1.3"]);
        let turns = parse(&["2606::1", "1.1.1.1", "2606::2", "1.1.1.2", "1.1.1.3"]);
        assert_eq!(alternate(found.into_iter()), turns);
    }
}
