//! What systemd is told of us (sd_notify(3)): that we serve, read our files again, or end. Nobody is told where nobody asked.

use std::{
    ffi::OsString,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
};

/// The variable that says where to tell.
const SOCKET: &str = "NOTIFY_SOCKET";

/// Who started us, if it wants to know.
pub(super) struct Supervisor {
    address: Option<SocketAddr>,
}

impl Supervisor {
    /// Returns the one that the environment names.
    pub(super) fn from_environment() -> Self {
        let address = std::env::var_os(SOCKET).as_ref().and_then(address);
        Self { address }
    }

    pub(super) fn ready(&self) {
        self.tell("READY=1\n");
    }

    pub(super) fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={micros}\n"));
    }

    pub(super) fn stopping(&self) {
        self.tell("STOPPING=1\n");
    }

    fn tell(&self, what: &str) {
        let Some(address) = &self.address else { return };
        let told = UnixDatagram::unbound().and_then(|socket| {
            socket.set_nonblocking(true)?;
            socket.send_to_addr(what.as_bytes(), address)
        });
        if let Err(error) = told {
            tracing::warn!(%error, "the service manager could not be told");
        }
    }
}

/// A path, or a name in the abstract namespace with `@` before it.
fn address(variable: &OsString) -> Option<SocketAddr> {
    match variable.as_bytes().split_first()? {
        (b'@', name) => SocketAddr::from_abstract_name(name).ok(),
        (b'/', _) => SocketAddr::from_pathname(variable).ok(),
        _ => None,
    }
}
