//! From the name as a client used it to the repository and who may be asked for it.
//!
//! One mirror, many registries, and many ways to say which. What a request says is taken in this order: `?ns=ghcr.io`,
//! which is the registry in the image's own name; the path before `/v2/`, which somebody wrote into a client's
//! configuration; the mirror's own name that was asked, its `Host`; the first part of the repository's name; and where
//! nothing is said, the default registry. All of them lead to the same repository, and so to the same fill and the same
//! stored copy. docs/request-handling.md has the table.
//!
//! A name that no upstream answers for goes nowhere: it is looked up among those that are configured or well known, by
//! the whole of its text. Only `route.open` lets a client name others, and only such as [`is_public_host`] lets through.

mod on_demand;
mod open;
#[cfg(test)]
mod tests;

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use oci::RepositoryName;

pub use self::{on_demand::OnDemand, open::is_public_host};
use crate::source::{Freshness, LaneReport, Origin, Source};

/// A host's name at most (RFC 1035), and a port.
const NAMED_BYTES_MAX: usize = 253 + 6;

/// A registry that is mirrored.
pub struct Mirrored {
    /// Its name, such as `docker.io`.
    pub registry: Arc<str>,
    /// Other names for it.
    pub aliases: Vec<String>,
    /// Names of the mirror by which it is this registry alone.
    pub hosts: Vec<String>,
    /// Whether a name of one component is one of Docker's official images, `library/<name>`.
    pub library: bool,
    /// Who is asked.
    pub source: Arc<dyn Source>,
}

/// All that can be asked for.
pub struct Registries {
    /// The registry of clients that name none.
    pub default: Mirrored,
    /// Further ones. No two registries share a name, an alias or a host.
    pub others: Vec<Mirrored>,
    /// Those that are made when they are first named.
    pub on_demand: Vec<OnDemand>,
    /// A path that the mirror may be asked below, without slashes at its ends, such as `mirrors/oci`.
    pub prefix: Option<String>,
}

/// Knows the registries.
pub struct Route {
    default: Arc<Mirrored>,
    by_name: HashMap<String, Arc<Mirrored>>,
    by_host: HashMap<String, Arc<Mirrored>>,
    /// The first parts of names in the tree that are registries'.
    folders: HashSet<String>,
    on_demand: Vec<OnDemand>,
    prefix: Option<String>,
    freshness: Freshness,
}

/// How a request came in: what its `Host` and the path before the API's own say of the registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arrival {
    before: Before,
    /// A host of the mirror that stands for one registry.
    host: Option<String>,
}

/// What stands in a path before `/v2/`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Before {
    /// Nothing.
    #[default]
    Nothing,
    /// `http.prefix`, which says nothing of the registry.
    Ours,
    /// A registry's name.
    Registry(String),
}

/// Why a name goes nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// The client asks on behalf of a registry that is not mirrored.
    #[error(
        "{asked:?} is not mirrored here; a table [upstreams.\"<registry>\"] in the configuration adds a registry"
    )]
    NotMirrored {
        /// What the client's `ns` says.
        asked: String,
    },
    /// The name has no room for its registry before it.
    #[error(
        "the name is too long: with its registry it must have at most {} characters",
        oci::NAME_BYTES_MAX
    )]
    TooLong,
}

impl Route {
    /// Returns the route to these registries.
    pub fn new(registries: Registries, freshness: Freshness) -> Self {
        let Registries { default, others, on_demand, prefix } = registries;
        let default = Arc::new(default);
        let (mut by_name, mut by_host) = (HashMap::new(), HashMap::new());
        for mirrored in others.into_iter().map(Arc::new).chain([Arc::clone(&default)]) {
            for name in mirrored.aliases.iter().map(String::as_str).chain([&*mirrored.registry]) {
                by_name.insert(name.to_owned(), Arc::clone(&mirrored));
            }
            for host in &mirrored.hosts {
                by_host.insert(host.clone(), Arc::clone(&mirrored));
            }
        }
        let folders = by_name.values().map(|mirrored| mirrored.registry.replace(':', "_")).collect();
        Self { default, by_name, by_host, folders, on_demand, prefix, freshness }
    }

    /// Returns what a request's `Host` and path say of the registry, and the path as the API has it, from `/v2/` on.
    ///
    /// Clients put the path of a mirror's URL before `/v2/` (docker, containerd) or in the place of it (containerd's
    /// `override_path`). A path that begins with nothing that is known here is returned as it came.
    pub fn arrive<'a>(&self, host: Option<&str>, path: &'a str) -> (Arrival, Cow<'a, str>) {
        let host = host
            .filter(|_| !self.by_host.is_empty())
            .map(without_port)
            .filter(|host| self.by_host.contains_key(host));
        let mut arrival = Arrival { before: Before::Nothing, host };
        let mut rest = path;
        if is_api(rest) {
            return (arrival, Cow::Borrowed(path));
        }
        if let Some(after) = self.prefix.as_deref().and_then(|prefix| after_segments(rest, prefix)) {
            arrival.before = Before::Ours;
            rest = after;
        }
        if let Some((first, after)) = first_segment(rest).filter(|_| !is_api(rest))
            && self.answers_before(first, after)
        {
            arrival.before = Before::Registry(first.to_owned());
            rest = after;
        }
        let rest = match (&arrival.before, rest) {
            (Before::Nothing, _) => Cow::Borrowed(path),
            (_, "" | "/") => Cow::Borrowed("/v2/"),
            (_, rest) if is_api(rest) => Cow::Borrowed(rest),
            (_, rest) => Cow::Owned(format!("/v2{rest}")),
        };
        (arrival, rest)
    }

    /// Returns whether `first`, at the beginning of a path, names a registry. What is made on demand is known by its
    /// looks alone, as is many a file that browsers and scanners ask for, so there must be more behind it.
    fn answers_before(&self, first: &str, after: &str) -> bool {
        self.by_name.contains_key(first)
            || !matches!(after, "" | "/") && self.on_demand.iter().any(|kind| kind.answers(first))
    }

    /// Returns the repository that the request is about, in full.
    pub fn origin(
        &self,
        arrival: &Arrival,
        ns: Option<&str>,
        name: &RepositoryName,
    ) -> Result<Origin, RouteError> {
        let name = self.without_prefix(arrival, name);
        let (mirrored, name) = match (ns, &arrival.before, &arrival.host) {
            (Some(ns), before, _) => {
                let mirrored = self.find_ns(ns).ok_or_else(|| not_mirrored(ns))?;
                // BuildKit puts the path of the mirror's URL, which may name the registry, before the repository's name.
                let own = || split(&name).filter(|(first, _)| self.is_name_of(first, &mirrored));
                let inner = if *before == Before::Nothing { own() } else { None };
                let name = inner.map_or_else(|| name.clone(), |(_, rest)| rest);
                (mirrored, name)
            }
            (None, Before::Registry(registry), _) => {
                (self.find(registry).ok_or_else(|| not_mirrored(registry))?, name)
            }
            (None, _, Some(host)) => {
                let mirrored = self.by_host.get(host).ok_or_else(|| not_mirrored(host))?;
                (Arc::clone(mirrored), name)
            }
            (None, _, None) => split(&name)
                .and_then(|(first, rest)| Some((self.find(first)?, rest)))
                .unwrap_or_else(|| (Arc::clone(&self.default), name)),
        };
        self.origin_at(&mirrored, &name)
    }

    /// Returns how things stand with each lane to each registry: the default one, then the others by name, those among
    /// them that were made on demand.
    pub fn lanes(&self) -> Vec<(Arc<str>, Vec<LaneReport>)> {
        let made = self.on_demand.iter().flat_map(OnDemand::made);
        let mut others: BTreeMap<Arc<str>, Arc<Mirrored>> = self
            .by_name
            .values()
            .cloned()
            .chain(made)
            .map(|mirrored| (Arc::clone(&mirrored.registry), mirrored))
            .collect();
        others.remove(&self.default.registry);
        let all = [&self.default].into_iter().chain(others.values());
        all.map(|mirrored| (Arc::clone(&mirrored.registry), mirrored.source.lanes())).collect()
    }

    /// Returns whether `ns` says which registry is meant, so that the answer is to repeat it.
    pub fn heeds(&self, ns: &str) -> bool {
        let name = ns.to_ascii_lowercase();
        ns.len() <= NAMED_BYTES_MAX
            && (self.by_name.contains_key(&name)
                || self.by_host.contains_key(&without_port(&name))
                || self.on_demand.iter().any(|kind| kind.answers(&name)))
    }

    /// Takes `http.prefix` off a name, where BuildKit and podman put it, unless it stood before `/v2/` already.
    fn without_prefix(&self, arrival: &Arrival, name: &RepositoryName) -> RepositoryName {
        let prefix = self.prefix.as_deref().filter(|_| arrival.before == Before::Nothing);
        let rest = prefix.and_then(|prefix| name.as_str().strip_prefix(prefix)?.strip_prefix('/'));
        rest.and_then(|rest| rest.parse().ok()).unwrap_or_else(|| name.clone())
    }

    fn origin_at(&self, mirrored: &Arc<Mirrored>, name: &RepositoryName) -> Result<Origin, RouteError> {
        let repository = mirrored.in_full(name);
        let tree_name = if Arc::ptr_eq(mirrored, &self.default) && !self.begins_like_another(&repository) {
            repository.clone()
        } else {
            repository.joined(&mirrored.registry).map_err(|_| RouteError::TooLong)?
        };
        Ok(Origin {
            registry: Arc::clone(&mirrored.registry),
            tree_name,
            repository,
            source: Arc::clone(&mirrored.source),
            freshness: self.freshness,
        })
    }

    /// Returns whether a repository of the default registry would stand where another registry's do: `ghcr.io/org/app` at
    /// Docker Hub is not `org/app` at ghcr.io, and must not be taken for it.
    fn begins_like_another(&self, repository: &RepositoryName) -> bool {
        let first = repository.as_str().split_once('/').map(|(first, _)| first);
        first.is_some_and(|first| {
            self.folders.contains(first) || self.on_demand.iter().any(|kind| kind.answers(first))
        })
    }

    /// Returns the registry that `ns` means. containerd sends the host of the image's name, which may be one of ours.
    fn find_ns(&self, ns: &str) -> Option<Arc<Mirrored>> {
        self.find(ns).or_else(|| self.by_host.get(&without_port(ns)).cloned())
    }

    /// Returns the registry of this name, which is compared whole and opens no connection.
    fn find(&self, asked: &str) -> Option<Arc<Mirrored>> {
        if asked.len() > NAMED_BYTES_MAX {
            return None;
        }
        let asked = asked.to_ascii_lowercase();
        let known = self.by_name.get(&asked).cloned();
        known.or_else(|| self.on_demand.iter().find_map(|kind| kind.find(&asked)))
    }

    fn is_name_of(&self, name: &str, mirrored: &Mirrored) -> bool {
        let registry = self.by_name.get(name).map_or(name, |found| &*found.registry);
        registry == &*mirrored.registry
    }
}

impl Mirrored {
    fn in_full(&self, name: &RepositoryName) -> RepositoryName {
        if !self.library || name.as_str().contains('/') {
            return name.clone();
        }
        // A name near the limit has no room for the prefix; such a repository cannot exist on Docker Hub.
        format!("library/{name}").parse().unwrap_or_else(|_| name.clone())
    }
}

/// Returns the first part of a name and the rest of it.
fn split(name: &RepositoryName) -> Option<(&str, RepositoryName)> {
    let (first, rest) = name.as_str().split_once('/')?;
    Some((first, rest.parse().ok()?))
}

/// Returns whether a path is the API's own, which the distribution specification has begin with `/v2`.
fn is_api(path: &str) -> bool {
    path == "/v2" || path.starts_with("/v2/")
}

/// Returns what follows `segments` at the beginning of a path: nothing, or a path.
fn after_segments<'a>(path: &'a str, segments: &str) -> Option<&'a str> {
    let after = path.strip_prefix('/')?.strip_prefix(segments)?;
    (after.is_empty() || after.starts_with('/')).then_some(after)
}

fn first_segment(path: &str) -> Option<(&str, &str)> {
    let path = path.strip_prefix('/')?;
    Some(path.split_at(path.find('/').unwrap_or(path.len())))
}

/// Returns a host in lower case and without its port.
fn without_port(authority: &str) -> String {
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let host =
        authority.rsplit_once(':').filter(|(_, port)| is_port(port)).map_or(authority, |(host, _)| host);
    host.to_ascii_lowercase()
}

fn not_mirrored(asked: &str) -> RouteError {
    RouteError::NotMirrored { asked: asked.chars().take(100).collect() }
}
