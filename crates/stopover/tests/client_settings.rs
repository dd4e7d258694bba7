//! `stopover client` as a user finds it: the real binary, and a folder that stands for a machine's disk.

#![allow(clippy::unwrap_used, reason = "a test that fails may say so in any way")]

#[path = "client_settings/documents.rs"]
mod documents;
#[path = "client_settings/machine.rs"]
mod machine;
#[path = "client_settings/merging.rs"]
mod merging;
#[path = "client_settings/printing.rs"]
mod printing;
#[path = "client_settings/undoing.rs"]
mod undoing;
