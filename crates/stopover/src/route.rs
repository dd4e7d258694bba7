//! From the name as a client used it to the repository and who may be asked for it.
//!
//! A name that no upstream answers for goes nowhere: no connection is ever opened to a host that a client named.

use std::sync::Arc;

use oci::{RepositoryName, Target};

use crate::source::{Freshness, Origin, Source};

/// The names under which clients know Docker Hub; regclient sends the last.
const DOCKER_HUB_NAMES: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];

/// Knows the upstreams.
pub struct Route {
    registry: Arc<str>,
    library: bool,
    source: Arc<dyn Source>,
    freshness: Freshness,
}

/// Why a name goes nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// The client asks on behalf of a registry that this mirror does not mirror.
    #[error("this is a mirror of {mirrored}, not of {asked:?}")]
    OtherRegistry {
        /// The registry mirrored.
        mirrored: Arc<str>,
        /// What the client's `ns` says.
        asked: String,
    },
}

impl Route {
    /// Returns the route to one upstream. With `library`, a name of one component is one of Docker's official images.
    pub fn new(registry: Arc<str>, library: bool, source: Arc<dyn Source>, freshness: Freshness) -> Self {
        Self { registry, library, source, freshness }
    }

    /// Returns the repository that the request is about, in full.
    pub fn origin(&self, target: &Target, name: &RepositoryName) -> Result<Origin, RouteError> {
        if let Some(asked) = &target.ns
            && !self.answers_for(asked)
        {
            let asked = asked.chars().take(100).collect();
            return Err(RouteError::OtherRegistry { mirrored: Arc::clone(&self.registry), asked });
        }
        let repository = self.in_full(name);
        Ok(Origin {
            registry: Arc::clone(&self.registry),
            tree_name: repository.clone(),
            repository,
            source: Arc::clone(&self.source),
            freshness: self.freshness,
        })
    }

    fn answers_for(&self, asked: &str) -> bool {
        asked == &*self.registry || (&*self.registry == "docker.io" && DOCKER_HUB_NAMES.contains(&asked))
    }

    fn in_full(&self, name: &RepositoryName) -> RepositoryName {
        if !self.library || name.as_str().contains('/') {
            return name.clone();
        }
        // A name near the limit has no room for the prefix; such a repository cannot exist on Docker Hub.
        format!("library/{name}").parse().unwrap_or_else(|_| name.clone())
    }
}
