//! Which sockets are listened on, and what is spoken over each: by the configuration, or as systemd passed them.

use std::io;

use super::ServeError;
use crate::{
    config::{Address, Config},
    listen::{Listener, Passed},
};

/// The name by which a passed socket is one of the operator's.
const ADMIN: &str = "admin";
/// The names by which TLS is spoken over a passed socket, and by which it never is.
const ENCRYPTED: [&str; 2] = ["tls", "https"];
const PLAIN: &str = "http";

/// What is listened on.
pub(super) struct Listening {
    pub(super) pulls: Vec<Port>,
    pub(super) admin: Option<Listener>,
}

/// A socket for pulls.
pub(super) struct Port {
    pub(super) listener: Listener,
    /// Whether TLS is spoken over it.
    pub(super) is_tls: bool,
}

impl Port {
    /// Returns the kind of listener, as metrics and lines have it.
    pub(super) fn kind(&self) -> &'static str {
        match self.listener.address() {
            _ if self.is_tls => "tls",
            Address::Tcp(_) => "tcp",
            Address::Unix(_) => "unix",
        }
    }
}

/// Opens all of them. Sockets for pulls that were passed stand in the place of `http.addr` and `tls.addr`, one for the
/// operator in that of `admin.addr`.
pub(super) fn open(config: &Config, passed: Vec<Passed>) -> Result<Listening, ServeError> {
    let mut listening = Listening { pulls: Vec::new(), admin: None };
    for passed in passed {
        let name = passed.name.clone();
        let failed = |error| ServeError::Passed { name: name.clone(), error };
        if name == ADMIN {
            listening.admin = Some(passed.open().map_err(failed)?);
            continue;
        }
        let is_tls = speaks_tls(config, &name, passed.is_tcp());
        if is_tls && config.tls.certificate.is_none() {
            let what = "it is to speak TLS; expected tls.certificate and tls.key to be set";
            return Err(failed(io::Error::other(what)));
        }
        listening.pulls.push(Port { listener: passed.open().map_err(failed)?, is_tls });
    }
    let mode = config.http.socket_mode;
    if listening.pulls.is_empty() {
        for address in &config.http.addr {
            let is_tls = speaks_tls(config, "", matches!(address, Address::Tcp(_)));
            let listener = bind("http.addr", address, mode)?;
            listening.pulls.push(Port { listener, is_tls });
        }
        for address in &config.tls.addr {
            listening.pulls.push(Port { listener: bind("tls.addr", address, mode)?, is_tls: true });
        }
    }
    if listening.admin.is_none()
        && let Some(address) = &config.admin.addr
    {
        listening.admin = Some(bind("admin.addr", address, mode)?);
    }
    Ok(listening)
}

/// Returns whether TLS is spoken over a socket that `http.addr` or a passed socket's name does not say it of: as at
/// registry:2, over each TCP port once there is a certificate, unless `tls.addr` says where.
fn speaks_tls(config: &Config, name: &str, is_tcp: bool) -> bool {
    ENCRYPTED.contains(&name)
        || (name != PLAIN && is_tcp && config.tls.certificate.is_some() && config.tls.addr.is_empty())
}

fn bind(key: &'static str, address: &Address, mode: u32) -> Result<Listener, ServeError> {
    Listener::bind(address, mode).map_err(|error| ServeError::Listen { key, address: address.clone(), error })
}
