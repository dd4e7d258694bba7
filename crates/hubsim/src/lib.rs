//! hubsim, a stand-in Docker Hub for tests: tokens, quota, a CDN with signed URLs, faults by name, and counters.
//!
//! It answers as Docker Hub does (the facts are in the project's study of registries), at the speed of the loopback or
//! of a line of some rate, and counts what it is asked, so that a test can say "exactly one". It shares no parser with
//! the product that it tests, only digests.
//!
//! ```no_run
//! # async fn example() {
//! use hubsim::{Fault, Hub, Options, Times, images};
//!
//! let hub = Hub::start(Options::default()).await;
//! let image = images::busybox(&hub, "library/busybox", "latest", images::Format::OciIndex);
//! hub.fault(Fault::CutAfter(1000), Times::Once);
//! // ... pull through the product ...
//! assert_eq!(hub.counters().of(&image.layers[0]).cdn_gets, 2);
//! # }
//! ```

mod answer;
mod blob;
mod body;
mod cdn;
mod content;
mod control;
mod counters;
mod fault;
mod fault_names;
mod hub;
mod image_spec;
pub mod images;
pub mod kinds;
mod layers;
mod options;
mod pace;
mod quota;
mod registry;
mod route;
mod serve;
mod state;
mod stock;
pub mod text;
mod token;
mod wire;

pub use blob::Blob;
pub use counters::{Counters, DigestCounters, REQUESTS_KEPT_MAX, Seen};
pub use fault::{Fault, Kind, Target, Times};
pub use hub::Hub;
pub use options::{Auth, ChallengeOptions, Options, Redirect, TokenNames, TokenOptions};
