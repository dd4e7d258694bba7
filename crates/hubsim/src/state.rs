//! What all connections of one Hub share.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::watch;

use crate::{
    content::Content,
    counters::Recorder,
    fault::Faults,
    options::Options,
    pace::{Bucket, Rate},
    quota::Quota,
    route::Role,
    serve::Port,
    token::Tokens,
    wire::Connection,
};

/// What all connections of one Hub share.
pub(crate) struct State {
    options: RwLock<Arc<Options>>,
    content: RwLock<Content>,
    pub(crate) faults: Faults,
    pub(crate) recorder: Recorder,
    tokens: Mutex<Tokens>,
    quota: Mutex<Quota>,
    /// Part of the secret that signs URLs: they are all refused once it changes.
    pub(crate) url_epoch: AtomicU64,
    pub(crate) rate: Rate,
    line_rate: Rate,
    pub(crate) line: Arc<Bucket>,
    release: watch::Sender<()>,
    pub(crate) addresses: OnceLock<Addresses>,
    pub(crate) ports: Mutex<Vec<Port>>,
}

/// Where the Hub listens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    pub(crate) registry: SocketAddr,
    pub(crate) cdn: SocketAddr,
    /// The registry's own, unless it stands apart.
    pub(crate) token: SocketAddr,
}

/// One request's surroundings.
#[derive(Clone)]
pub(crate) struct Exchange {
    pub(crate) state: Arc<State>,
    pub(crate) connection: Arc<Connection>,
    /// The `Host` header.
    pub(crate) host: String,
}

impl State {
    pub(crate) fn new(options: Options) -> Self {
        let line_rate = Rate::default();
        let state = Self {
            options: RwLock::new(Arc::new(options)),
            content: RwLock::default(),
            faults: Faults::default(),
            recorder: Recorder::default(),
            tokens: Mutex::default(),
            quota: Mutex::default(),
            url_epoch: AtomicU64::new(0),
            rate: Rate::default(),
            line: Arc::new(Bucket::new(line_rate.clone())),
            line_rate,
            release: watch::Sender::new(()),
            addresses: OnceLock::new(),
            ports: Mutex::default(),
        };
        state.configure(|_| {});
        state
    }

    pub(crate) fn options(&self) -> Arc<Options> {
        self.options.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes the options; rates change for connections that are open, too.
    pub(crate) fn configure(&self, change: impl FnOnce(&mut Options)) {
        let mut options = self.options.write().unwrap_or_else(PoisonError::into_inner);
        change(Arc::make_mut(&mut options));
        self.rate.set(options.rate);
        self.line_rate.set(options.line_rate);
    }

    pub(crate) fn content(&self) -> RwLockReadGuard<'_, Content> {
        self.content.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn content_mut(&self) -> RwLockWriteGuard<'_, Content> {
        self.content.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn tokens(&self) -> MutexGuard<'_, Tokens> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn quota(&self) -> MutexGuard<'_, Quota> {
        self.quota.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn ports(&self) -> MutexGuard<'_, Vec<Port>> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes every URL signed so far a wrong one.
    pub(crate) fn expire_urls(&self) {
        self.url_epoch.fetch_add(1, Ordering::Relaxed);
    }

    /// Lets all that hangs or stalls now go on.
    pub(crate) fn release(&self) {
        self.release.send_replace(());
    }

    /// Returns what changes at each release from now on.
    pub(crate) fn releases(&self) -> watch::Receiver<()> {
        self.release.subscribe()
    }

    pub(crate) fn addresses(&self) -> Addresses {
        *self.addresses.get().expect("a Hub serves only once its ports are bound")
    }
}

impl Exchange {
    /// Returns the URL of a part of the Hub as this client can reach it, without a slash at its end.
    pub(crate) fn url(&self, role: Role) -> String {
        let addresses = self.state.addresses();
        let address = match role {
            Role::Registry => addresses.registry,
            Role::Cdn => addresses.cdn,
            Role::Token => addresses.token,
        };
        if !address.ip().is_unspecified() {
            return format!("http://{address}");
        }
        let name = self.host.rsplit_once(':').map_or(self.host.as_str(), |(name, _)| name);
        format!("http://{name}:{}", address.port())
    }
}
