//! Registries that are made when they are first named: the regions of a well-known one, or any public host.
//!
//! Only so many are kept. Whoever was not named for the longest time makes room, so that a flood of names, which costs
//! nothing to send, locks nobody out; what is on its way from one that had to go goes on.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use super::Mirrored;

type Answers = Box<dyn Fn(&str) -> bool + Send + Sync>;
type Make = Box<dyn Fn(&str) -> Option<Mirrored> + Send + Sync>;

/// A kind of registry that is known by how its name looks.
pub struct OnDemand {
    answers: Answers,
    make: Make,
    kept_max: usize,
    made: Mutex<Made>,
}

#[derive(Default)]
struct Made {
    by_name: HashMap<String, Kept>,
    /// Counts namings.
    now: u64,
}

struct Kept {
    mirrored: Arc<Mirrored>,
    named_at: u64,
}

impl OnDemand {
    /// Returns a kind of registry: which names, in lower case, are of this kind, how one is made, and how many are kept.
    pub fn new(
        answers: impl Fn(&str) -> bool + Send + Sync + 'static,
        make: impl Fn(&str) -> Option<Mirrored> + Send + Sync + 'static,
        kept_max: usize,
    ) -> Self {
        Self { answers: Box::new(answers), make: Box::new(make), kept_max, made: Mutex::default() }
    }

    /// Returns whether a name is of this kind. Makes nothing.
    pub(super) fn answers(&self, name: &str) -> bool {
        (self.answers)(name)
    }

    /// Returns the registries that were made and are kept.
    pub(super) fn made(&self) -> Vec<Arc<Mirrored>> {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.by_name.values().map(|kept| Arc::clone(&kept.mirrored)).collect()
    }

    /// Returns the registry of this name, made if need be.
    pub(super) fn find(&self, name: &str) -> Option<Arc<Mirrored>> {
        if !self.answers(name) {
            return None;
        }
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.now += 1;
        let now = made.now;
        if let Some(kept) = made.by_name.get_mut(name) {
            kept.named_at = now;
            return Some(Arc::clone(&kept.mirrored));
        }
        let mirrored = Arc::new((self.make)(name)?);
        if made.by_name.len() >= self.kept_max {
            made.forget_oldest();
        }
        made.by_name.insert(name.to_owned(), Kept { mirrored: Arc::clone(&mirrored), named_at: now });
        Some(mirrored)
    }
}

impl Made {
    fn forget_oldest(&mut self) {
        let oldest = self.by_name.iter().min_by_key(|(_, kept)| kept.named_at);
        if let Some(name) = oldest.map(|(name, _)| name.clone()) {
            self.by_name.remove(&name);
        }
    }
}
