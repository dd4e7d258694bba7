//! Puts the parts together, runs them, and takes them down in order.
//!
//! It starts with the registry down; it ends on SIGTERM or SIGINT: no new connections, every answer under way to its
//! end, within `http.drain_timeout`; a second signal ends it at once, which loses nothing but transfers. On SIGHUP it
//! reads again what may change while it serves.

mod ways_out;

use std::{
    collections::HashSet,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::{BoxFuture, select_all};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

use self::ways_out::{Bandwidths, WaysOut};
use crate::{
    access::{Access, FileError},
    admin::{self, Admin},
    cache::Cache,
    clock::Clock,
    config::{self, Address, Config, WellKnown},
    egress::Hosts,
    health::Health,
    http::{self, Limits},
    index::Index,
    listen::Passed,
    log::AccessLog,
    metrics::Metrics,
    quota,
    route::{Mirrored, OnDemand, Registries, Route, is_public_host},
    source::Freshness,
    store::{FsStore, OpenError},
    tls::{Certificates, TlsError},
    upstream::{self, OptionsError},
};

mod listening;
mod supervisor;

use listening::{Listening, Port};
use supervisor::Supervisor;

/// Files kept for what is not a client's connection: blobs, upstream, the index.
const FILES_RESERVED: u64 = 512;
/// Regions of well-known registries that are remembered, with what was learned of each.
const REGIONS_KEPT_MAX: usize = 64;
/// Registries that nobody configured and that are remembered.
const STRANGERS_KEPT_MAX: usize = 256;
/// How long tasks without a client may take to end.
const TASKS_WAIT: Duration = Duration::from_secs(2);
/// How long fills that are cut may take to keep their parts.
const PARTS_WAIT: Duration = Duration::from_secs(1);

/// Why serving did not start, or broke.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The folder for content cannot be used.
    #[error("storage.root: {0}")]
    Storage(#[from] OpenError),
    /// The index cannot be made.
    #[error("storage.root: the index cannot be opened: {0}")]
    Index(io::Error),
    /// An address cannot be listened on.
    #[error("{key}: cannot listen on {address}: {error}")]
    Listen {
        /// The key that says the address.
        key: &'static str,
        /// The address.
        address: Address,
        /// What the system said.
        error: io::Error,
    },
    /// The file with the users cannot be used.
    #[error("access.htpasswd: {0}")]
    Access(#[from] FileError),
    /// A registry's settings make no sense together, or a file that they name cannot be used.
    #[error("{registry}: {error}")]
    Upstream {
        /// The registry.
        registry: String,
        /// What is wrong.
        error: OptionsError,
    },
    /// A socket that was passed cannot be listened on.
    #[error("the socket that was passed as {name:?}: {error}")]
    Passed {
        /// Its name.
        name: String,
        /// Why.
        error: io::Error,
    },
    /// A certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Signals cannot be received.
    #[error("signals cannot be received: {0}")]
    Signals(io::Error),
}

/// Serves until a signal says to end, on the sockets that the configuration names or that were passed.
pub async fn serve(
    config: Config,
    passed: Vec<Passed>,
    metrics: Arc<Metrics>,
    log: AccessLog,
) -> Result<(), ServeError> {
    let mut signals = Signals::new().map_err(ServeError::Signals)?;
    let supervisor = Supervisor::from_environment();
    let certificates = Certificates::read(&config.tls, config.http.http2, &metrics)?.map(Arc::new);
    let Listening { pulls, admin } = listening::open(&config, passed)?;

    let clock = Clock::default();
    let store = Arc::new(FsStore::open(&config.storage.root)?);
    let index = Index::open(&config.storage.root, clock.clone()).map_err(ServeError::Index)?;
    let cache = Cache::new(
        store,
        Arc::new(index),
        Arc::clone(&metrics),
        clock.clone(),
        config.cache.memory_bytes,
        config.cache.prefetch,
    );
    let route = Arc::new(route_to_upstreams(&config, &metrics, &clock)?);
    let access = Access::new(&config.access, clock.clone(), Arc::clone(&metrics))?;
    let mut watching = vec![tokio::spawn(access.watch())];
    let health = Arc::new(Health::default());
    let server = http::Server::new(
        Arc::clone(&health),
        access,
        Arc::clone(&route),
        cache.clone(),
        log,
        Arc::clone(&metrics),
        limits(&config),
    );

    let ready = Arc::new(AtomicBool::new(true));
    let (stop, stopped) = watch::channel(false);
    if let Some(listener) = admin {
        tracing::info!(address = %listener.address(), "the operator's port listens");
        let ready = Arc::clone(&ready);
        let admin = Admin {
            metrics: Arc::clone(&metrics),
            metrics_path: config.admin.metrics_path.clone(),
            health,
            ready: Box::new(move || ready.load(Ordering::Relaxed)),
            quota: Box::new(what_is_left(&config, route)),
        };
        tokio::spawn(admin::serve(listener, admin, told(stopped)));
    }
    let housekeeping = keep_house(&cache, &config);
    watching.extend(certificates.clone().map(|certificates| tokio::spawn(certificates.watch())));
    announce(&config, &pulls);
    supervisor.ready();

    let reload = async || {
        supervisor.reloading();
        if let Some(certificates) = &certificates {
            certificates.reload().await;
        }
        tracing::info!("what may change was read again, as SIGHUP asks");
        supervisor.ready();
    };
    tokio::select! {
        () = accept_all(&server, &pulls, certificates.as_deref()) => {}
        name = signals.next(reload) => tracing::info!(signal = name, "ending: transfers under way are finished"),
    }
    supervisor.stopping();
    ready.store(false, Ordering::Relaxed);
    drop(pulls);
    drain(server, &cache, config.http.drain_timeout, &mut signals).await;
    housekeeping.abort();
    watching.iter().for_each(tokio::task::JoinHandle::abort);
    // Nobody listens where the operator's port is off.
    let _ = stop.send(true);
    Ok(())
}

/// Says what is wrong with what the configuration names, its files; starts nothing. Returns what may be wrong, of what
/// may come later.
pub fn check(config: &Config) -> Result<Vec<String>, ServeError> {
    let metrics = Metrics::new();
    Certificates::read(&config.tls, config.http.http2, &metrics)?;
    route_to_upstreams(config, &metrics, &Clock::default())?;
    Ok(ways_out::warnings(config))
}

/// Returns the way to every registry that is configured or well known and, where that is wished, to any public one.
fn route_to_upstreams(config: &Config, metrics: &Arc<Metrics>, clock: &Clock) -> Result<Route, ServeError> {
    let bandwidths = Arc::<Bandwidths>::default();
    let maker = |hosts| {
        let ways_out = WaysOut::new(hosts, &bandwidths, metrics);
        let (metrics, clock) = (Arc::clone(metrics), clock.clone());
        move |upstream: &config::Upstream| -> Result<Mirrored, ServeError> {
            let source = upstream::source(upstream, |upstream| ways_out.to(upstream), &metrics, &clock);
            let registry = upstream.registry.clone();
            Ok(Mirrored {
                registry: Arc::from(upstream.registry.as_str()),
                aliases: upstream.other_names(),
                hosts: upstream.hosts.clone(),
                library: upstream.library(),
                source: source.map_err(|error| ServeError::Upstream { registry, error })?,
            })
        }
    };
    let mirrored = maker(Hosts::Known);
    let others = config.others();
    metrics.name_registries(others.iter().chain([&config.upstream]).flat_map(|upstream| {
        let mirrors = upstream.mirrors.iter().map(|mirror| mirror.host().to_owned());
        mirrors.chain([upstream.registry.clone()])
    }));
    let default = mirrored(&config.upstream)?;
    let others = others.iter().map(&mirrored).collect::<Result<Vec<_>, _>>()?;
    let mut on_demand = Vec::new();
    let plain =
        |egresses: Vec<config::Egress>| move |name: &str| config::Upstream::named(name).reached_by(&egresses);
    if config.route.well_known {
        let plain = plain(config.egresses.clone());
        let make = move |name: &str| mirrored(&plain(name)).ok();
        on_demand.push(OnDemand::new(WellKnown::is_regional, make, REGIONS_KEPT_MAX));
    }
    if config.route.open {
        let (strange, plain) = (maker(Hosts::Strange), plain(config.egresses.clone()));
        let make = move |name: &str| strange(&plain(name)).ok();
        on_demand.push(OnDemand::new(is_public_host, make, STRANGERS_KEPT_MAX));
    }
    let registries = Registries { default, others, on_demand, prefix: config.http.prefix.clone() };
    Ok(Route::new(registries, freshness(config)))
}

/// Returns what tells how much is left of the pull limits: of the registries that are configured, and of those that were
/// asked.
fn what_is_left(config: &Config, route: Arc<Route>) -> impl Fn() -> quota::Document + use<> {
    let configured = config.upstreams.iter().chain([&config.upstream]);
    let configured: HashSet<String> = configured.map(|upstream| upstream.registry.clone()).collect();
    move || quota::Document::of(route.lanes(), |registry| configured.contains(registry))
}

fn freshness(config: &Config) -> Freshness {
    Freshness {
        tag_ttl: config.cache.tag_ttl,
        stale_if_error: config.cache.stale_if_error,
        stale_if_denied: config.cache.stale_if_denied,
        check_deadline: config.cache.check_deadline,
        absent_ttl: config.cache.absent_ttl,
    }
}

fn keep_house(cache: &Cache, config: &Config) -> tokio::task::JoinHandle<()> {
    let (cache, ttl) = (cache.clone(), config.storage.ttl);
    tokio::spawn(async move {
        cache.rebuild_index().await;
        if let Some(ttl) = ttl {
            cache.expire(ttl).await;
        }
    })
}

fn limits(config: &Config) -> Limits {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    let room = files.saturating_sub(FILES_RESERVED).max(files / 2);
    let connections_max = config.http.connections_max.min(usize::try_from(room).unwrap_or(usize::MAX));
    if connections_max < config.http.connections_max {
        tracing::warn!(
            connections_max,
            files,
            "fewer connections than http.connections_max: the limit of open files is low"
        );
    }
    Limits {
        connections_max,
        header_timeout: config.http.header_timeout,
        stall_timeout: config.http.stall_timeout,
        sendfile: config.http.sendfile,
        http2: config.http.http2,
        headers: config.http.headers.as_slice().into(),
    }
}

fn announce(config: &Config, pulls: &[Port]) {
    for warning in ways_out::warnings(config) {
        tracing::warn!("{warning}");
    }
    for port in pulls {
        tracing::info!(
            address = %port.listener.address(),
            listener = port.kind(),
            registry = config.upstream.registry,
            upstream = config.upstream.url,
            root = %config.storage.root.display(),
            "listening"
        );
    }
}

async fn accept_all(server: &http::Server, ports: &[Port], certificates: Option<&Certificates>) {
    let mut accepting: Vec<BoxFuture<'_, ()>> = Vec::with_capacity(ports.len());
    for port in ports {
        let certificates = certificates.filter(|_| port.is_tls);
        accepting.push(Box::pin(server.accept(&port.listener, certificates)));
    }
    select_all(accepting).await;
}

/// Lets every answer under way end, until the time is up or a second signal comes.
async fn drain(server: http::Server, cache: &Cache, within: Duration, signals: &mut Signals) {
    let drained = async {
        server.finish().await;
        cache.tasks().close();
        // What nobody waits for may be left: a fill keeps its part, and the index is no truth.
        let _ = tokio::time::timeout(TASKS_WAIT, cache.tasks().wait()).await;
    };
    tokio::select! {
        () = drained => tracing::info!("ended: every transfer was finished"),
        () = tokio::time::sleep(within) => tracing::warn!(?within, "ended: transfers were cut, http.drain_timeout is over"),
        name = signals.next(async || {}) => tracing::warn!(signal = name, "ended: a second signal came, transfers were cut"),
    }
    cache.stop_fills();
    cache.tasks().close();
    let _ = tokio::time::timeout(PARTS_WAIT, cache.tasks().wait()).await;
}

async fn told(mut stopped: watch::Receiver<bool>) {
    // An error says that the sender is gone, which means the same.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Returns the next signal that says to end; at each SIGHUP before it, reloads.
    async fn next(&mut self, reload: impl AsyncFn()) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.hangup.recv() => reload().await,
            }
        }
    }
}
