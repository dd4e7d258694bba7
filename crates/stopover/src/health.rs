//! Whether the operator has taken this mirror out of service by hand, as with registry:2's `/debug/health/down`.
//!
//! Nothing else sets it: a disk that fails costs caching and a registry that is down costs freshness, and neither is a
//! reason to answer nobody.

use std::sync::atomic::{AtomicBool, Ordering};

/// The switch.
#[derive(Debug, Default)]
pub struct Health {
    down: AtomicBool,
}

impl Health {
    /// Returns whether nobody is to be answered.
    pub fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    /// Takes the mirror out of service, or back into it.
    pub fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::Relaxed);
    }
}
