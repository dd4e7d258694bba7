//! The product as a stranger finds it: the real binary, a stand-in Hub, and a count of what the Hub was asked.
//!
//! Statements are those of the project's list for a mirror; each test names the ones that it holds to.

#![allow(clippy::unwrap_used, reason = "a test that fails may say so in any way")]

mod absence;
mod access;
mod accounts;
mod adoption;
mod answers;
mod bandwidth;
mod blobs;
mod broken_transfers;
mod conformance;
mod conformance_discovery;
mod content_kinds;
mod crash;
mod credential_helper;
mod credentials;
mod damaged_disk;
mod debug_port;
mod discovery;
mod disk_full;
mod drop_in;
mod economy;
mod environment;
mod folder;
mod garbage_collect;
mod hostile;
mod lanes;
mod listeners;
mod logbook;
mod manifests;
mod mirrors;
mod patience;
mod ping;
mod prefetch;
mod private_registries;
mod promises;
mod quirks;
mod quota;
mod quota_shown;
mod ranges;
mod redirects;
mod registries;
mod rig;
mod shared_blobs;
mod shutdown;
mod strangers;
mod support;
mod tls;
mod tls_clients;
mod tokens;
mod way_out;
mod ways;
mod ways_out;
mod wire;
mod wrong_manifests;
