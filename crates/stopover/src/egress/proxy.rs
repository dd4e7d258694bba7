//! Which proxy stands before a host, and the way through it.
//!
//! The environment's rules are curl's: `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`. A plain request goes to
//! the proxy as a whole URL, an encrypted one through a tunnel, so that the proxy sees no credential of a registry.
//! A proxy that the operator gave to a way out is used for every host, whatever the environment says.
//! A proxy resolves names itself, by SOCKS too: behind one, only hosts written as addresses can be held to a [`Reach`](super::Reach).
//! So what a client named is resolved here first, and the proxy gets the address ([`Hosts::Strange`]).

use std::{
    future::{Ready, ready},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::BoxFuture;
use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::{
    client::{
        legacy::connect::{
            Connected, Connection,
            proxy::{SocksV5, Tunnel},
        },
        proxy::matcher::{Intercept, Matcher},
    },
    rt::TokioIo,
};
use tower_service::Service;

use super::{
    Hosts,
    connect::{BoxError, ConnectError, Dial, place_of, port_of, require_usual_https},
    line::Line,
};

/// Which proxies a way out goes through.
#[derive(Clone)]
pub enum Proxies {
    /// Those the environment names.
    FromEnvironment,
    /// None.
    Direct,
    /// The one at this URL, which may hold a user and a password, for every host and whatever the environment says.
    Through(String),
}

/// The proxies of a way out, ready to be asked for.
pub(super) enum Chosen {
    /// By rules.
    Some(Matcher),
    /// Always this one.
    Always(Intercept),
    /// One that is not understood, so that there is no way out: never a direct one.
    Unusable,
}

/// Tells which kind it is, not the proxy's password.
impl std::fmt::Debug for Proxies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::FromEnvironment => "FromEnvironment",
            Self::Direct => "Direct",
            Self::Through(_) => "Through",
        })
    }
}

impl Proxies {
    pub(super) fn choose(&self) -> Chosen {
        match self {
            Self::FromEnvironment if !no_proxy_at_all() => Chosen::Some(Matcher::from_env()),
            Self::FromEnvironment | Self::Direct => Chosen::Some(Matcher::builder().build()),
            Self::Through(url) => {
                let always = Matcher::builder().all(url.as_str()).build();
                let proxy = always.intercept(&Uri::from_static("https://registry.example/"));
                proxy.map_or(Chosen::Unusable, Chosen::Always)
            }
        }
    }
}

impl Chosen {
    /// Returns the proxy that stands before a target.
    pub(super) fn before(&self, target: &Uri) -> Option<Intercept> {
        match self {
            Self::Some(rules) => rules.intercept(target),
            Self::Always(proxy) => Some(proxy.clone()),
            Self::Unusable => None,
        }
    }
}

/// Returns whether the environment says `NO_PROXY=*`: for curl no proxy at all, for the matcher none for names alone.
fn no_proxy_at_all() -> bool {
    ["NO_PROXY", "no_proxy"].iter().any(|name| std::env::var(name).is_ok_and(|value| value.trim() == "*"))
}

/// Connects to a host, or to the proxy that stands before it.
#[derive(Clone)]
pub(super) struct Route {
    pub(super) proxies: Arc<Chosen>,
    pub(super) hosts: Hosts,
    pub(super) direct: Dial,
    pub(super) dial_proxy: Dial,
    pub(super) to_proxy: HttpsConnector<Dial>,
}

impl Service<Uri> for Route {
    type Response = Wire;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Wire, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        let mut route = self.clone();
        Box::pin(async move {
            if route.hosts == Hosts::Strange {
                require_usual_https(&target)?;
            }
            if matches!(*route.proxies, Chosen::Unusable) {
                return Err(ConnectError::NoProxy { egress: Arc::clone(route.direct.egress()) }.into());
            }
            let Some(proxy) = route.proxies.before(&target) else {
                let io = MaybeHttpsStream::Http(route.direct.call(target).await?);
                return Ok(Wire { io, kind: WireKind::Direct });
            };
            route.direct.may_name(&target)?;
            let target = match route.hosts {
                Hosts::Known => target,
                Hosts::Strange => route.direct.resolved(&target).await?,
            };
            let at = place_of(proxy.uri());
            let through = route.through(proxy, target).await;
            through
                .map_err(|cause| ConnectError::Proxy { proxy: at, cause: super::innermost(&*cause) }.into())
        })
    }
}

impl Route {
    async fn through(&mut self, proxy: Intercept, target: Uri) -> Result<Wire, BoxError> {
        let at = proxy.uri().clone();
        match (at.scheme_str().unwrap_or_default(), target.scheme_str()) {
            ("http" | "https", Some("http")) => {
                let io = self.to_proxy.call(at).await?;
                Ok(Wire { io, kind: WireKind::Forwarding })
            }
            ("http" | "https", _) => {
                let mut tunnel = Tunnel::new(at, self.to_proxy.clone());
                if let Some(value) = proxy.basic_auth() {
                    tunnel = tunnel.with_auth(value.clone());
                }
                Ok(Wire { io: tunnel.call(target).await?, kind: WireKind::Tunnel })
            }
            ("socks5" | "socks5h", _) => {
                let dialed = Dialed(Some(self.dial_proxy.call(at.clone()).await?));
                let mut socks = SocksV5::new(at, dialed);
                if let Some((user, password)) = proxy.raw_auth() {
                    socks = socks.with_auth(user.to_owned(), password.to_owned());
                }
                let io = socks.call(with_port(target)?).await.map_err(|error| error.to_string())?;
                let io = MaybeHttpsStream::Http(io);
                Ok(Wire { io, kind: WireKind::Tunnel })
            }
            (other, _) => Err(format!("proxies of the kind {other} are not supported").into()),
        }
    }
}

/// A connection that there is: the library's own words for one that there is not say nothing of the cause.
struct Dialed(Option<TokioIo<Line>>);

impl Service<Uri> for Dialed {
    type Response = TokioIo<Line>;
    type Error = &'static str;
    type Future = Ready<Result<Self::Response, &'static str>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), &'static str>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        ready(self.0.take().ok_or("the connection was used before"))
    }
}

/// Returns the target with its port written out: the library takes 443 for a plain one that has none.
fn with_port(target: Uri) -> Result<Uri, http::Error> {
    let authority = format!("{}:{}", target.host().unwrap_or_default(), port_of(&target));
    let scheme = target.scheme_str().unwrap_or("https").to_owned();
    Uri::builder().scheme(scheme.as_str()).authority(authority).path_and_query("/").build()
}

/// A connection, direct or through a proxy.
pub(super) struct Wire {
    io: MaybeHttpsStream<TokioIo<Line>>,
    kind: WireKind,
}

#[derive(Clone, Copy)]
enum WireKind {
    Direct,
    Forwarding,
    Tunnel,
}

impl Connection for Wire {
    fn connected(&self) -> Connected {
        match self.kind {
            WireKind::Direct => self.io.connected(),
            WireKind::Forwarding => Connected::new().proxy(true),
            WireKind::Tunnel => Connected::new(),
        }
    }
}

impl Read for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl Write for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
