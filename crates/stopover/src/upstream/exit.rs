//! A way out, as one registry is asked by it: what is known of the registry's health that way.

use std::sync::{Arc, Mutex};

use super::{
    breaker::{Fuse, Throttle},
    lanes::WayNow,
};
use crate::{
    clock::Clock,
    egress::{Egress, WayOut},
};

/// One way out.
pub(super) struct Exit {
    pub(super) egress: Arc<Egress>,
    pub(super) fuse: Fuse,
    /// What is known of the token service.
    pub(super) token_fuse: Fuse,
    pub(super) token_throttle: Mutex<Throttle>,
}

impl Exit {
    pub(super) fn new(way: &WayOut, clock: &Clock) -> Arc<Self> {
        Arc::new(Self {
            egress: Arc::clone(&way.egress),
            fuse: Fuse::new(clock.clone()),
            token_fuse: Fuse::new(clock.clone()),
            token_throttle: Mutex::default(),
        })
    }

    /// Returns how it is at this moment.
    pub(super) fn now(&self) -> WayNow {
        WayNow { load: self.egress.load(), down: self.fuse.closed() }
    }
}
