//! From the name as a client used it to the repository and who may be asked for it.
//!
//! One mirror, many registries, and four ways to say which: nothing, for the default one; `?ns=ghcr.io`, as containerd
//! says it; the registry as the first part of the path, `/v2/ghcr.io/org/app/...`, as podman and BuildKit say it; or
//! both. All of them lead to the same repository, and so to the same fill and the same stored copy.
//!
//! A name that no upstream answers for goes nowhere: no connection is ever opened to a host that a client named.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use oci::{RepositoryName, Target};

use crate::source::{Freshness, Origin, Source};

/// Registries made on demand, such as the regions of `pkg.dev`.
const ON_DEMAND_MAX: usize = 64;
/// A host's name at most (RFC 1035), and a port.
const NS_BYTES_MAX: usize = 253 + 6;

/// A registry that is mirrored.
pub struct Mirrored {
    /// Its name, such as `docker.io`.
    pub registry: Arc<str>,
    /// Other names for it.
    pub aliases: Vec<String>,
    /// Whether a name of one component is one of Docker's official images, `library/<name>`.
    pub library: bool,
    /// Who is asked.
    pub source: Arc<dyn Source>,
}

/// Makes a registry of a kind that is known by its ending, such as `.pkg.dev`; `None` where it is not.
pub type OnDemand = Box<dyn Fn(&str) -> Option<Mirrored> + Send + Sync>;

/// Knows the registries.
pub struct Route {
    default: Arc<Mirrored>,
    by_name: HashMap<String, Arc<Mirrored>>,
    on_demand: OnDemand,
    made: Mutex<HashMap<String, Arc<Mirrored>>>,
    freshness: Freshness,
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
    /// Returns the route to `default`, for clients that name no registry, and to `others`.
    pub fn new(default: Mirrored, others: Vec<Mirrored>, on_demand: OnDemand, freshness: Freshness) -> Self {
        let default = Arc::new(default);
        let mut by_name = HashMap::new();
        for mirrored in others.into_iter().map(Arc::new).chain([Arc::clone(&default)]) {
            for name in mirrored.aliases.iter().map(String::as_str).chain([&*mirrored.registry]) {
                by_name.insert(name.to_owned(), Arc::clone(&mirrored));
            }
        }
        Self { default, by_name, on_demand, made: Mutex::default(), freshness }
    }

    /// Returns the repository that the request is about, in full.
    pub fn origin(&self, target: &Target, name: &RepositoryName) -> Result<Origin, RouteError> {
        let prefixed = name.as_str().split_once('/').filter(|(first, _)| first.contains('.'));
        let by_path = prefixed.and_then(|(first, rest)| Some((self.find(first)?, rest.parse().ok()?)));
        let (mirrored, name) = match (&target.ns, by_path) {
            (None, None) => (Arc::clone(&self.default), name.clone()),
            (None, Some(by_path)) => by_path,
            (Some(ns), by_path) => {
                let mirrored = self.find(ns).ok_or_else(|| not_mirrored(ns))?;
                // BuildKit puts the mirror's own path, which may be the registry's name, before the repository's.
                match by_path.filter(|(found, _)| Arc::ptr_eq(found, &mirrored)) {
                    Some(by_path) => by_path,
                    None => (mirrored, name.clone()),
                }
            }
        };
        self.origin_at(&mirrored, &name)
    }

    fn origin_at(&self, mirrored: &Arc<Mirrored>, name: &RepositoryName) -> Result<Origin, RouteError> {
        let repository = mirrored.in_full(name);
        let is_default = Arc::ptr_eq(mirrored, &self.default);
        let tree_name = if is_default {
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

    /// Returns the registry of this name, which is compared whole and opens no connection.
    fn find(&self, asked: &str) -> Option<Arc<Mirrored>> {
        if asked.len() > NS_BYTES_MAX {
            return None;
        }
        let asked = asked.to_ascii_lowercase();
        if let Some(mirrored) = self.by_name.get(&asked) {
            return Some(Arc::clone(mirrored));
        }
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mirrored) = made.get(&asked) {
            return Some(Arc::clone(mirrored));
        }
        let mirrored = Arc::new((self.on_demand)(&asked).filter(|_| made.len() < ON_DEMAND_MAX)?);
        made.insert(asked, Arc::clone(&mirrored));
        Some(mirrored)
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

fn not_mirrored(asked: &str) -> RouteError {
    RouteError::NotMirrored { asked: asked.chars().take(100).collect() }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use oci::{Descriptor, Digest, Endpoint, Manifest, Page, Reference, Tag};

    use super::*;
    use crate::source::{Answer, BlobStream, Resolved, SourceError, SourceErrorKind, TagPage};

    /// A source that is never asked.
    struct Silent;

    fn silent<T: Send + 'static>() -> Answer<'static, T> {
        let error = SourceError::new(Arc::from("test"), SourceErrorKind::Unsupported, "nobody asks");
        Box::pin(std::future::ready(Err(error)))
    }

    impl Source for Silent {
        fn registry(&self) -> &str {
            "test"
        }
        fn resolve<'a>(&'a self, _: &'a RepositoryName, _: &'a Tag) -> Answer<'a, Resolved> {
            silent()
        }
        fn manifest<'a>(&'a self, _: &'a RepositoryName, _: &'a Reference) -> Answer<'a, Manifest> {
            silent()
        }
        fn has_manifest<'a>(&'a self, _: &'a RepositoryName, _: &'a Digest) -> Answer<'a, Descriptor> {
            silent()
        }
        fn blob_size<'a>(&'a self, _: &'a RepositoryName, _: &'a Digest) -> Answer<'a, Option<u64>> {
            silent()
        }
        fn blob<'a>(
            &'a self,
            _: &'a RepositoryName,
            _: &'a Digest,
            _: u64,
            _: Option<u64>,
        ) -> Answer<'a, BlobStream> {
            silent()
        }
        fn tags<'a>(&'a self, _: &'a RepositoryName, _: &'a Page) -> Answer<'a, TagPage> {
            silent()
        }
        fn referrers<'a>(&'a self, _: &'a RepositoryName, _: &'a Digest) -> Answer<'a, Bytes> {
            silent()
        }
    }

    fn mirrored(registry: &str, aliases: &[&str]) -> Mirrored {
        Mirrored {
            registry: Arc::from(registry),
            aliases: aliases.iter().map(|&alias| alias.to_owned()).collect(),
            library: registry == "docker.io",
            source: Arc::new(Silent),
        }
    }

    fn route() -> Route {
        let freshness = Freshness {
            tag_ttl: Duration::ZERO,
            stale_if_error: Duration::ZERO,
            stale_if_denied: Duration::ZERO,
            check_deadline: Duration::ZERO,
            absent_ttl: Duration::ZERO,
        };
        let hub = mirrored("docker.io", &["index.docker.io", "registry-1.docker.io"]);
        let on_demand = |name: &str| name.ends_with("-docker.pkg.dev").then(|| mirrored(name, &[]));
        Route::new(hub, vec![mirrored("ghcr.io", &[])], Box::new(on_demand), freshness)
    }

    /// Returns registry, repository and name in the tree of what a request is about.
    fn asked(route: &Route, path: &str, query: Option<&str>) -> Result<[String; 3], RouteError> {
        let target = Target::parse("GET", path, query).expect("the table holds valid requests");
        let Endpoint::Manifest { name, .. } = &target.endpoint else {
            panic!("the table asks for manifests")
        };
        let origin = route.origin(&target, name)?;
        Ok([origin.registry.to_string(), origin.repository.to_string(), origin.tree_name.to_string()])
    }

    #[test]
    fn every_way_to_name_a_registry_leads_to_the_same_repository() {
        let route = route();
        let hub = ["docker.io", "library/nginx", "library/nginx"];
        let github = ["ghcr.io", "org/app", "ghcr.io/org/app"];
        let google = ["us-docker.pkg.dev", "p/r/app", "us-docker.pkg.dev/p/r/app"];
        let table = [
            ("nginx", None, hub),
            ("library/nginx", None, hub),
            ("library/nginx", Some("ns=docker.io"), hub),
            ("library/nginx", Some("ns=registry-1.docker.io"), hub),
            ("library/nginx", Some("ns=index.docker.io"), hub),
            ("library/nginx", Some("ns=DOCKER.IO"), hub),
            ("docker.io/library/nginx", None, hub),
            ("docker.io/nginx", None, hub),
            ("docker.io/library/nginx", Some("ns=docker.io"), hub),
            ("org/app", Some("ns=ghcr.io"), github),
            ("ghcr.io/org/app", None, github),
            ("ghcr.io/org/app", Some("ns=ghcr.io"), github),
            ("p/r/app", Some("ns=us-docker.pkg.dev"), google),
            ("us-docker.pkg.dev/p/r/app", None, google),
        ];
        for (name, query, expected) in table {
            let path = format!("/v2/{name}/manifests/latest");
            assert_eq!(asked(&route, &path, query), Ok(expected.map(str::to_owned)), "{path}?{query:?}");
        }
    }

    #[test]
    fn a_name_that_no_registry_answers_for_goes_nowhere() {
        let route = route();
        for ns in [
            "quay.io",
            "127.0.0.1",
            "169.254.169.254",
            "localhost",
            "localhost:2375",
            "ghcr.io.evil.example",
            "evil-ghcr.io",
            "user@ghcr.io",
            "ghcr.io:443",
            "ghcr.io/x",
            "ghcr.io.",
            ".ghcr.io",
            "*",
            "-docker.pkg",
            "x.y",
            "[::1]",
            "0x7f000001",
            "2130706433",
            "http://ghcr.io",
        ] {
            let found = asked(&route, "/v2/org/app/manifests/latest", Some(&format!("ns={ns}")));
            assert!(matches!(found, Err(RouteError::NotMirrored { .. })), "{ns}: {found:?}");
        }
    }

    #[test]
    fn a_path_that_begins_with_an_unknown_host_is_a_repository_of_the_default_registry() {
        let found = asked(&route(), "/v2/evil.example/org/app/manifests/latest", None);
        assert_eq!(found.map(|[registry, ..]| registry), Ok("docker.io".to_owned()));
    }

    #[test]
    fn registries_made_on_demand_are_bounded() {
        let route = route();
        let ask = |number: usize| {
            let ns = format!("ns=r{number}-docker.pkg.dev");
            asked(&route, "/v2/a/b/manifests/latest", Some(&ns)).is_ok()
        };
        assert!((0..ON_DEMAND_MAX).all(ask));
        assert!(!ask(ON_DEMAND_MAX));
        assert!(ask(0), "those that are there stay");
    }
}
