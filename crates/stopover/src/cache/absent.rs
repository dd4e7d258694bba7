//! What a registry said, a moment ago, that it does not have; believed for seconds only, so that a storm of requests
//! for what is not there reaches the registry as a trickle.

use std::{sync::Arc, time::Instant};

use oci::{Digest, RepositoryName, Tag};
use quick_cache::sync::Cache as Memory;

use crate::{
    clock::Clock,
    source::{Origin, SourceError, SourceErrorKind},
};

/// Absences remembered.
const REMEMBERED_MAX: usize = 10_000;

/// What was asked for. A digest that is no manifest may well be a blob, and clients that know a digest alone ask for
/// both, so the two are told apart.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum Wanted {
    Tag(Tag),
    Manifest(Digest),
    Blob(Digest),
}

pub(super) struct Absent {
    known: Memory<(RepositoryName, Wanted), (Instant, Arc<SourceError>)>,
    clock: Clock,
}

impl Absent {
    pub(super) fn new(clock: Clock) -> Self {
        Self { known: Memory::new(REMEMBERED_MAX), clock }
    }

    /// Returns what the registry said of this, if that was a moment ago.
    pub(super) fn find(&self, origin: &Origin, what: &Wanted) -> Option<Arc<SourceError>> {
        let key = (origin.tree_name.clone(), what.clone());
        let (since, error) = self.known.get(&key)?;
        if self.clock.now().saturating_duration_since(since) < origin.freshness.absent_ttl {
            return Some(error);
        }
        self.known.remove(&key);
        None
    }

    /// Remembers the error if it says that there is no such thing.
    pub(super) fn note(&self, origin: &Origin, what: &Wanted, error: &Arc<SourceError>) {
        if error.kind == SourceErrorKind::NotFound {
            let key = (origin.tree_name.clone(), what.clone());
            self.known.insert(key, (self.clock.now(), Arc::clone(error)));
        }
    }
}
