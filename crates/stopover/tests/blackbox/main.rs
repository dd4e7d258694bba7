//! The product as a stranger finds it: the real binary, a stand-in Hub, and a count of what the Hub was asked.
//!
//! Statements are those of the project's list for a mirror; each test names the ones that it holds to.

#![allow(clippy::unwrap_used, reason = "a test that fails may say so in any way")]

mod blobs;
mod broken_transfers;
mod damaged_disk;
mod manifests;
mod ping;
mod ranges;
mod redirects;
mod support;
mod wrong_manifests;
