//! Stopover, a pull-through cache for Docker Hub and every other OCI registry.
//!
//! Calls go down only, bytes go up only:
//!
//! ```text
//!  client -> http -> access, route -> cache -> store | index | source (a trait) <- upstream -> egress -> registry
//!  operator -> admin, cli -> server, config
//!  beneath all: oci (a crate), metrics, clock
//! ```
//!
//! ARCHITECTURE.md says each module's invariant; `tests/tidy.rs` holds the code to who may import whom.

pub mod access;
pub mod admin;
pub mod cache;
pub mod cli;
pub mod client;
pub mod clock;
pub mod collect;
pub mod config;
pub mod egress;
mod flight;
pub mod health;
pub mod http;
pub mod index;
pub mod listen;
pub mod log;
pub mod metrics;
pub mod quota;
pub mod route;
pub mod server;
pub mod source;
pub mod store;
pub mod tls;
pub mod upstream;
