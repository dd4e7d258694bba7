//! The Hub as tests hold it: start it, fill it, break it, count.

use std::{
    io,
    sync::{Arc, Weak},
    time::Duration,
};

use oci::{Algorithm, Digest, Hasher};

use crate::{
    blob::Blob,
    counters::Counters,
    fault::{Fault, Target, Times},
    options::Options,
    route::Role,
    serve::{self, Life, Port},
    state::{Addresses, State},
};

/// How long [`Hub::until`] waits before it says that what was waited for does not come.
const UNTIL_MAX: Duration = Duration::from_secs(20);
const UNTIL_EVERY: Duration = Duration::from_millis(1);

/// A running stand-in of Docker Hub. It ends, with all its connections, when it is dropped.
pub struct Hub {
    state: Arc<State>,
    /// Whether the drop of this value ends the Hub.
    owner: bool,
}

impl Hub {
    /// Starts a Hub in the current tokio runtime.
    ///
    /// # Panics
    ///
    /// Where a port cannot be bound.
    pub async fn start(options: Options) -> Self {
        Self::try_start(options).await.expect("the ports of the stand-in Hub can be bound")
    }

    /// Starts a Hub in the current tokio runtime; fails where a port cannot be bound.
    pub async fn try_start(options: Options) -> io::Result<Self> {
        let mut bound =
            vec![(Role::Registry, serve::bind(options.addr)?), (Role::Cdn, serve::bind(options.cdn_addr)?)];
        if options.token_port_apart {
            bound.push((Role::Token, serve::bind((options.addr.ip(), 0).into())?));
        }
        let registry = bound[0].1.local_addr()?;
        let token = bound.get(2).map_or(Ok(registry), |(_, socket)| socket.local_addr())?;
        let addresses = Addresses { registry, cdn: bound[1].1.local_addr()?, token };
        let state = Arc::new(State::new(options));
        state.addresses.get_or_init(|| addresses);
        let hub = Self { state, owner: true };
        for (role, socket) in bound {
            let address = socket.local_addr()?;
            let life = Life::Up(serve::listen(socket, role, &hub.state)?);
            hub.state.ports().push(Port { role, address, life });
        }
        Ok(hub)
    }

    /// Returns a Hub that does not end when it is dropped.
    pub(crate) fn borrowed(state: &Arc<State>) -> Self {
        Self { state: state.clone(), owner: false }
    }

    pub(crate) fn state(&self) -> Weak<State> {
        Arc::downgrade(&self.state)
    }

    /// Returns the registry's URL, such as `http://127.0.0.1:7000`.
    pub fn registry_url(&self) -> String {
        format!("http://{}", self.state.addresses().registry)
    }

    /// Returns the CDN's URL.
    pub fn cdn_url(&self) -> String {
        format!("http://{}", self.state.addresses().cdn)
    }

    /// Returns the URL of the token endpoint, the realm.
    pub fn token_url(&self) -> String {
        format!("http://{}/token", self.state.addresses().token)
    }

    /// Returns the registry's host and port.
    pub fn authority(&self) -> String {
        self.state.addresses().registry.to_string()
    }

    /// Ends all connections and refuses new ones, on all ports.
    pub async fn stop_listening(&self) {
        let ports = std::mem::take(&mut *self.state.ports());
        for mut port in ports {
            if let Life::Up(task) = port.life {
                task.abort();
                // The port is free once the task is gone; an aborted task's error is what was asked for.
                let _ = task.await;
                let socket = serve::bind(port.address).expect("a port that was just left can be bound again");
                port.life = Life::Down(socket);
            }
            self.state.ports().push(port);
        }
    }

    /// Listens again, on the same ports.
    pub async fn resume_listening(&self) {
        let ports = std::mem::take(&mut *self.state.ports());
        for mut port in ports {
            if let Life::Down(socket) = port.life {
                let task = serve::listen(socket, port.role, &self.state);
                port.life = Life::Up(task.expect("a bound socket can listen"));
            }
            self.state.ports().push(port);
        }
    }

    /// Changes the options; addresses stay as they are.
    pub fn configure(&self, change: impl FnOnce(&mut Options)) {
        self.state.configure(change);
    }

    /// Takes a blob; returns its digest. No repository has it before [`Hub::link_blob`] or a manifest that names it.
    pub fn push_blob(&self, blob: impl Into<Blob>) -> Digest {
        self.push_blob_by(Algorithm::Sha256, blob)
    }

    /// Takes a blob under the digest of an algorithm.
    pub fn push_blob_by(&self, algorithm: Algorithm, blob: impl Into<Blob>) -> Digest {
        let blob = blob.into();
        let mut hasher = Hasher::new(algorithm);
        for piece in blob.pieces() {
            hasher.update(&piece);
        }
        let digest = hasher.finish();
        self.push_blob_as(&digest, blob);
        digest
    }

    /// Takes a blob under a digest that is not checked: a lie, or one that is known already.
    pub fn push_blob_as(&self, digest: &Digest, blob: impl Into<Blob>) {
        self.state.content_mut().push_blob(digest, blob.into());
    }

    /// Makes a blob one of a repository's.
    pub fn link_blob(&self, repository: &str, digest: &Digest) {
        self.state.content_mut().link_blob(repository, digest);
    }

    /// Takes a manifest and tags it; the repository also gets what it names and the Hub has. A `subject` makes it a
    /// referrer. Returns its digest.
    pub fn push_manifest(
        &self,
        repository: &str,
        media_type: &str,
        bytes: impl AsRef<[u8]>,
        tags: &[&str],
    ) -> Digest {
        self.push_manifest_by(Algorithm::Sha256, repository, media_type, bytes, tags)
    }

    /// Takes a manifest under the digest of an algorithm.
    pub fn push_manifest_by(
        &self,
        algorithm: Algorithm,
        repository: &str,
        media_type: &str,
        bytes: impl AsRef<[u8]>,
        tags: &[&str],
    ) -> Digest {
        self.state.content_mut().push_manifest(repository, algorithm, media_type, bytes.as_ref(), tags)
    }

    /// Moves a tag, or makes it.
    pub fn tag(&self, repository: &str, tag: &str, digest: &Digest) {
        self.state.content_mut().tag(repository, tag, digest);
    }

    /// Removes a tag; what it named stays, by digest.
    pub fn untag(&self, repository: &str, tag: &str) {
        self.state.content_mut().untag(repository, tag);
    }

    /// Returns the digest that a tag names.
    pub fn tagged(&self, repository: &str, tag: &str) -> Option<Digest> {
        let manifest = self.state.content().manifest(repository, tag)?;
        manifest.digest.parse().ok()
    }

    /// Removes a repository.
    pub fn remove_repository(&self, repository: &str) {
        self.state.content_mut().remove_repository(repository);
    }

    /// Removes a manifest from a repository, and the tags that name it.
    pub fn remove_manifest(&self, repository: &str, digest: &Digest) {
        self.state.content_mut().remove_manifest(repository, digest);
    }

    /// Removes a blob from the whole Hub.
    pub fn remove_blob(&self, digest: &Digest) {
        self.state.content_mut().remove_blob(digest);
    }

    /// Makes an account, or changes its password.
    pub fn add_account(&self, user: &str, password: &str) {
        self.state.content_mut().add_account(user, password);
    }

    /// Makes a repository private: every account may read it, and nobody else.
    pub fn make_private(&self, repository: &str) {
        self.state.content_mut().make_private(repository);
    }

    /// Makes a repository private to an account, and to others for which this was called.
    pub fn make_private_to(&self, repository: &str, user: &str) {
        self.state.content_mut().make_private_to(repository, user);
    }

    /// Makes a repository readable by everyone.
    pub fn make_public(&self, repository: &str) {
        self.state.content_mut().make_public(repository);
    }

    /// Sets how many manifest GETs each account, and each address without one, has.
    pub fn set_quota(&self, limit: impl Into<Option<u32>>) {
        let limit = limit.into();
        self.configure(|options| options.quota = limit);
    }

    /// Sets an account's own quota; `None` is unlimited, as for who pays.
    pub fn set_account_quota(&self, user: &str, limit: Option<u32>) {
        self.state.quota().set_limit(user, limit);
    }

    /// Begins a new window: nobody has used anything.
    pub fn reset_quota(&self) {
        self.state.quota().reset();
    }

    /// Returns the GETs counted for an account, or for an address such as `127.0.0.1`.
    pub fn quota_used(&self, account_or_address: &str) -> u32 {
        self.state.quota().used(account_or_address)
    }

    /// Ends all tokens granted so far.
    pub fn expire_tokens(&self) {
        self.state.tokens().expire();
    }

    /// Ends all signed URLs given out so far.
    pub fn expire_urls(&self) {
        self.state.expire_urls();
    }

    /// Lets a fault strike where it usually does.
    pub fn fault(&self, fault: Fault, times: Times) {
        self.fault_on(fault, times, Target::default());
    }

    /// Lets a fault strike some requests.
    pub fn fault_on(&self, fault: Fault, times: Times, target: Target) {
        self.state.faults.install(fault, times, target);
    }

    /// Removes all faults; what hangs or stalls goes on hanging until [`Hub::release`].
    pub fn clear_faults(&self) {
        self.state.faults.clear();
    }

    /// Lets everything that hangs or stalls at this moment go on.
    pub fn release(&self) {
        self.state.release();
    }

    /// Returns what was counted since the start or the last reset.
    pub fn counters(&self) -> Counters {
        self.state.recorder.snapshot(true)
    }

    /// Forgets what was counted.
    pub fn reset_counters(&self) {
        self.state.recorder.reset();
    }

    /// Waits until the counters are as `reached` wants them, and returns them.
    ///
    /// # Panics
    ///
    /// After 20 seconds, with the counters as they are then.
    pub async fn until(&self, reached: impl Fn(&Counters) -> bool) -> Counters {
        let waited = tokio::time::timeout(UNTIL_MAX, async {
            loop {
                let counters = self.counters();
                if reached(&counters) {
                    return counters;
                }
                tokio::time::sleep(UNTIL_EVERY).await;
            }
        });
        match waited.await {
            Ok(counters) => counters,
            Err(_) => panic!("the Hub never saw what was waited for: {:#?}", self.counters()),
        }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        if !self.owner {
            return;
        }
        for port in self.state.ports().drain(..) {
            if let Life::Up(task) = port.life {
                task.abort();
            }
        }
    }
}
