//! Sockets that systemd, or another that starts us, has opened and passes on (sd_listen_fds(3)).

use std::{io, os::fd::AsFd};

use tokio::net::{TcpListener, UnixListener};

use super::{Listener, Socket};
use crate::config::Address;

/// The names of the sockets, with `:` between them, in their order.
const NAMES: &str = "LISTEN_FDNAMES";

/// A socket that was passed.
pub struct Passed {
    /// Its name: `FileDescriptorName=` of its unit, else the unit's own; empty where there is none.
    pub name: String,
    socket: Std,
}

enum Std {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

/// Returns the sockets that were passed to this process. To be called once, before there are threads, since it takes
/// the variables that say so out of the environment.
pub fn passed() -> Result<Vec<Passed>, String> {
    let names = std::env::var(NAMES).unwrap_or_default();
    let mut names = names.split(':').map(str::to_owned);
    let mut all = listenfd::ListenFd::from_env();
    let mut passed = Vec::new();
    for at in 0..all.len() {
        let name = names.next().unwrap_or_default();
        let wrong = |error: io::Error| format!("the socket {at} that was passed, {name:?}: {error}");
        let tcp = all.take_tcp_listener(at).ok().flatten().map(Std::Tcp);
        let socket = match tcp {
            Some(socket) => socket,
            None => all.take_unix_listener(at).ok().flatten().map(Std::Unix).ok_or_else(|| {
                wrong(io::Error::other("expected a stream socket, ListenStream= in the socket's unit"))
            })?,
        };
        let fd = match &socket {
            Std::Tcp(socket) => socket.as_fd(),
            Std::Unix(socket) => socket.as_fd(),
        };
        if !rustix::net::sockopt::socket_acceptconn(fd).unwrap_or(false) {
            let what = "it is a connection; expected a socket that listens, Accept=no in the socket's unit";
            return Err(wrong(io::Error::other(what)));
        }
        passed.push(Passed { name, socket });
    }
    Ok(passed)
}

impl Passed {
    /// Begins to listen on it.
    pub fn open(self) -> io::Result<Listener> {
        match self.socket {
            Std::Tcp(socket) => {
                socket.set_nonblocking(true)?;
                let address = Address::Tcp(socket.local_addr()?);
                Ok(Listener { socket: Socket::Tcp(TcpListener::from_std(socket)?), address, _file: None })
            }
            Std::Unix(socket) => {
                socket.set_nonblocking(true)?;
                let path = socket.local_addr()?.as_pathname().map(Into::into).unwrap_or_default();
                let address = Address::Unix(path);
                Ok(Listener { socket: Socket::Unix(UnixListener::from_std(socket)?), address, _file: None })
            }
        }
    }

    /// Returns whether it is a TCP port.
    pub fn is_tcp(&self) -> bool {
        matches!(self.socket, Std::Tcp(_))
    }
}
