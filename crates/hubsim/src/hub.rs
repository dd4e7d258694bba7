//! The Hub as tests hold it: start it, fill it, break it, count.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Weak},
    time::Duration,
};

use crate::{
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
    pub(crate) state: Arc<State>,
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
        // A port that was chosen by hand is not shared: two Hubs on it would be a mistake.
        let bind = |address: SocketAddr| serve::bind(address, address.port() == 0);
        let mut bound = vec![(Role::Registry, bind(options.addr)?), (Role::Cdn, bind(options.cdn_addr)?)];
        if options.token_port_apart {
            bound.push((Role::Token, bind((options.addr.ip(), 0).into())?));
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
                // Bound before the other socket is gone, or somebody who asks for any port may be given this one.
                let kept = serve::bind(port.address, true);
                task.abort();
                // The port is free once the task is gone; an aborted task's error is what was asked for.
                let _ = task.await;
                let socket = kept.or_else(|_| serve::bind(port.address, false));
                port.life = Life::Down(socket.expect("a port that was just left can be bound again"));
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
