//! The commands of the program.

mod client;
pub(crate) mod pull;
pub(crate) mod serve;
pub(crate) mod sink;
mod spread;
