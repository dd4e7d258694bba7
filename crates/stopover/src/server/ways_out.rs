//! The ways out to the registries: one for each of the configuration, and one more of it for each set of certificates or
//! patience that a registry's configuration asks for. However many are made of one, they keep to its bandwidth together.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::{
    config::{self, Config, Way},
    egress::{
        Bandwidth, Egress, EgressOptions, Hosts, Proxies, Tls, TlsError, TlsFiles, WayOut, has_address,
    },
    metrics::Metrics,
};

/// The bandwidths of the ways out, which hold for all that is made of each.
pub(super) type Bandwidths = Mutex<HashMap<config::Egress, Option<Arc<Bandwidth>>>>;

/// The ways out that were made so far.
pub(super) struct WaysOut {
    hosts: Hosts,
    bandwidths: Arc<Bandwidths>,
    metrics: Arc<Metrics>,
    made: Mutex<HashMap<(Duration, TlsFiles, config::Egress), Arc<Egress>>>,
}

impl WaysOut {
    /// Returns none yet; `hosts` says whose word names the registries.
    pub(super) fn new(hosts: Hosts, bandwidths: &Arc<Bandwidths>, metrics: &Arc<Metrics>) -> Self {
        let (bandwidths, metrics) = (Arc::clone(bandwidths), Arc::clone(metrics));
        Self { hosts, bandwidths, metrics, made: Mutex::default() }
    }

    /// Returns the ways out to a registry; reads the files that its configuration names.
    pub(super) fn to(&self, upstream: &config::Upstream) -> Result<Vec<WayOut>, TlsError> {
        let files = TlsFiles {
            ca: upstream.ca.clone(),
            client_certificate: upstream.client_certificate.clone(),
            client_key: upstream.client_key.clone(),
        };
        let ways = upstream.egresses.iter().map(|named| {
            let egress = self.made(upstream.connect_timeout, &files, named)?;
            Ok(WayOut { name: named.name.as_str().into(), egress })
        });
        ways.collect()
    }

    fn made(
        &self,
        connect_timeout: Duration,
        files: &TlsFiles,
        named: &config::Egress,
    ) -> Result<Arc<Egress>, TlsError> {
        let key = (connect_timeout, files.clone(), named.clone());
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(egress) = made.get(&key) {
            return Ok(Arc::clone(egress));
        }
        let (from, proxies) = match &named.way {
            Way::System => (None, Proxies::FromEnvironment),
            Way::From(address) => (Some(*address), Proxies::Direct),
            Way::Proxy(url) => (None, Proxies::Through(url.expose().to_owned())),
        };
        let egress = Egress::new(&EgressOptions {
            name: named.name.as_str().into(),
            from,
            connect_timeout,
            proxies,
            tls: Tls::read(files)?,
            hosts: self.hosts,
            bandwidth: self.bandwidth(named),
            received: self.metrics.egress_received(&named.name),
        });
        made.insert(key, Arc::clone(&egress));
        Ok(egress)
    }

    /// Returns what a way out keeps to.
    fn bandwidth(&self, named: &config::Egress) -> Option<Arc<Bandwidth>> {
        let mut bandwidths = self.bandwidths.lock().unwrap_or_else(PoisonError::into_inner);
        bandwidths.entry(named.clone()).or_insert_with(|| named.bandwidth.map(Bandwidth::new)).clone()
    }
}

/// Returns what may be wrong with the ways out to the registries: addresses that this machine does not have. They may come
/// later, with DHCP or a tunnel.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    let others = config.others();
    let egresses: BTreeMap<_, _> = others
        .iter()
        .chain([&config.upstream])
        .flat_map(|upstream| &upstream.egresses)
        .map(|egress| (egress.name.as_str(), &egress.way))
        .collect();
    let missing = egresses.into_iter().filter_map(|(name, way)| {
        let Way::From(address) = way else { return None };
        let cause = has_address(*address).err()?;
        Some(format!(
            "the egress {name} sends from {address}, which this machine does not have now ({cause}): until it has, \
             nothing goes that way"
        ))
    });
    missing.collect()
}
