//! The ways out to the registries: one for all that need nothing of their own, one more for each set of certificates or
//! patience that a registry's configuration asks for.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::{
    config,
    egress::{Egress, EgressOptions, Hosts, Tls, TlsError, TlsFiles, WayOut},
};

/// The ways out that were made so far.
pub(super) struct WaysOut {
    hosts: Hosts,
    made: Mutex<HashMap<(Duration, TlsFiles), Arc<Egress>>>,
}

impl WaysOut {
    /// Returns none yet; `hosts` says whose word names the registries.
    pub(super) fn new(hosts: Hosts) -> Self {
        Self { hosts, made: Mutex::default() }
    }

    /// Returns the ways out to a registry; reads the files that its configuration names.
    pub(super) fn to(&self, upstream: &config::Upstream) -> Result<Vec<WayOut>, TlsError> {
        let egress = self.made(upstream)?;
        let way = |egress: Arc<Egress>, name: &str| WayOut { name: Arc::from(name), egress };
        Ok(upstream.egresses.iter().map(|named| way(Arc::clone(&egress), &named.name)).collect())
    }

    fn made(&self, upstream: &config::Upstream) -> Result<Arc<Egress>, TlsError> {
        let files = TlsFiles {
            ca: upstream.ca.clone(),
            client_certificate: upstream.client_certificate.clone(),
            client_key: upstream.client_key.clone(),
        };
        let key = (upstream.connect_timeout, files);
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(egress) = made.get(&key) {
            return Ok(Arc::clone(egress));
        }
        let tls = Tls::read(&key.1)?;
        let options =
            EgressOptions { connect_timeout: key.0, tls, hosts: self.hosts, ..EgressOptions::default() };
        let egress = Egress::new(&options);
        made.insert(key, Arc::clone(&egress));
        Ok(egress)
    }
}
