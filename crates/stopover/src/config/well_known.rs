//! The registries that need no configuration: one table of what is known of each, beyond what they all have in common.
//!
//! They are reached over TLS, without an account unless one is configured. What a table of `[upstreams]` says wins over
//! what stands here. docs/registries has a page on each, with the sources of these numbers.

use super::{Config, Upstream};

/// A registry that everybody knows.
#[derive(Clone, Copy, Debug)]
pub struct WellKnown {
    /// Its name, as in `ghcr.io/org/app`; of a regional one, what its name ends in.
    pub registry: &'static str,
    /// Where it is reached, if not at its name.
    pub host: Option<&'static str>,
    /// Other names that clients send for it.
    pub aliases: &'static [&'static str],
    /// Whether names without a slash mean `library/<name>`.
    pub library: bool,
    /// Token services beyond its own host that may be given its account, as URLs; a path, where there is one, is the
    /// only one allowed.
    pub realms: &'static [&'static str],
    /// How much it may be asked as anybody.
    pub pace: Pace,
    /// How much it may be asked with an account.
    pub pace_with_account: Pace,
}

/// How much a registry may be asked, so that it has no reason to refuse. Zero is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Requests under way at once.
    pub requests_max: usize,
    /// Requests of any kind a second.
    pub requests_per_second: usize,
    /// GETs of manifests a second.
    pub pulls_per_second: usize,
}

/// Of a registry of which nothing is known: only so much that a stampede of clients is not one at the registry.
const USUAL: Pace = Pace { requests_max: 256, requests_per_second: 0, pulls_per_second: 0 };

/// All whose name is one.
pub static WELL_KNOWN: [WellKnown; 10] = [
    WellKnown {
        host: Some("registry-1.docker.io"),
        // regclient sends the host in place of the name.
        aliases: &["index.docker.io", "registry-1.docker.io"],
        library: true,
        realms: &["https://auth.docker.io"],
        ..plain("docker.io")
    },
    plain("ghcr.io"),
    WellKnown {
        // "A few requests per second" from an address, "with some bursting", then 429.
        pace: Pace { requests_max: 16, requests_per_second: 10, ..USUAL },
        pace_with_account: Pace { requests_max: 16, requests_per_second: 10, ..USUAL },
        ..plain("quay.io")
    },
    plain("gcr.io"),
    plain("registry.k8s.io"),
    plain("mcr.microsoft.com"),
    WellKnown {
        // AWS: one pull a second without an account, ten with one.
        pace: Pace { pulls_per_second: 1, ..USUAL },
        pace_with_account: Pace { pulls_per_second: 10, ..USUAL },
        ..plain("public.ecr.aws")
    },
    // Its challenge to a token that it does not like names this realm, which takes accounts alone.
    WellKnown { realms: &["https://authn.nvidia.com"], ..plain("nvcr.io") },
    // A front of ghcr.io, whose token service its challenge names.
    WellKnown { realms: &["https://ghcr.io/token"], ..plain("lscr.io") },
    WellKnown { realms: &["https://gitlab.com/jwt/auth"], ..plain("registry.gitlab.com") },
];

/// Those that come in many regions, Google's, each reached at its name: `europe-west1-docker.pkg.dev`, `us.gcr.io`.
static REGIONAL: [WellKnown; 2] = [plain("-docker.pkg.dev"), plain(".gcr.io")];

const fn plain(registry: &'static str) -> WellKnown {
    WellKnown {
        registry,
        host: None,
        aliases: &[],
        library: false,
        realms: &[],
        pace: USUAL,
        pace_with_account: USUAL,
    }
}

impl WellKnown {
    /// Returns the well-known registry of this name.
    pub fn find(registry: &str) -> Option<&'static Self> {
        WELL_KNOWN.iter().find(|known| known.registry == registry)
    }

    /// Returns whether this is one of a regional registry's names, such as `europe-west1-docker.pkg.dev`.
    pub fn is_regional(registry: &str) -> bool {
        Self::find_regional(registry).is_some()
    }

    /// Returns what is known of the registry of this name, regional ones included.
    pub fn of(registry: &str) -> Option<&'static Self> {
        Self::find(registry).or_else(|| Self::find_regional(registry))
    }

    /// Returns the name of the well-known registry that is reached at this host.
    pub fn name_at(host: &str) -> Option<&str> {
        let is_there =
            |known: &&Self| known.host.unwrap_or(known.registry) == host || known.aliases.contains(&host);
        let named = WELL_KNOWN.iter().find(is_there).map(|known| known.registry);
        named.or_else(|| Self::is_regional(host).then_some(host))
    }

    fn find_regional(registry: &str) -> Option<&'static Self> {
        let is_label = |label: &str| {
            !label.is_empty()
                && !label.starts_with('-')
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        };
        REGIONAL.iter().find(|known| registry.strip_suffix(known.registry).is_some_and(is_label))
    }
}

impl Config {
    /// Returns the registries besides the default one: those that are configured, and the well-known ones that are not.
    pub fn others(&self) -> Vec<Upstream> {
        let mut others = self.upstreams.clone();
        if self.route.well_known {
            for known in &WELL_KNOWN {
                let is_configured = |upstream: &Upstream| upstream.registry == known.registry;
                if !is_configured(&self.upstream) && !others.iter().any(is_configured) {
                    others.push(Upstream::named(known.registry).reached_by(&self.egresses));
                }
            }
        }
        others
    }
}

impl Upstream {
    /// Returns the registry of this name as it is where nothing is set of it: at its well-known place, or at its name.
    pub fn named(registry: &str) -> Self {
        let known = WellKnown::of(registry);
        let host = known.and_then(|known| known.host).unwrap_or(registry);
        Self {
            registry: registry.to_owned(),
            url: format!("https://{host}"),
            pace: known.map_or(USUAL, |known| known.pace),
            ..Self::default()
        }
    }

    /// Returns how much the registry may be asked with an account, where nothing is set of that.
    pub(super) fn pace_with_account(&self) -> Pace {
        WellKnown::of(&self.registry).map_or(USUAL, |known| known.pace_with_account)
    }

    /// Returns the names that clients send for the registry without being told to.
    pub fn well_known_aliases(&self) -> Vec<String> {
        let aliases = WellKnown::of(&self.registry).map_or(&[][..], |known| known.aliases);
        aliases.iter().map(|&alias| alias.to_owned()).collect()
    }

    /// Returns whether names without a slash mean `library/<name>`, as they do on Docker Hub and on nothing else.
    pub fn library(&self) -> bool {
        WellKnown::of(&self.registry).is_some_and(|known| known.library)
    }

    /// Returns the token services beyond the registry's own host that are known to be its own.
    pub fn known_realms(&self) -> &'static [&'static str] {
        WellKnown::of(&self.registry).map_or(&[], |known| known.realms)
    }
}

impl Default for Pace {
    fn default() -> Self {
        USUAL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_regional_registry_is_one_label_before_a_known_ending() {
        for (name, regional) in [
            ("europe-west1-docker.pkg.dev", true),
            ("us.gcr.io", true),
            ("-docker.pkg.dev", false),
            ("a.b-docker.pkg.dev", false),
            ("docker.pkg.dev", false),
            (".gcr.io", false),
            ("x.y.gcr.io", false),
            ("us.gcr.io.evil.example", false),
            ("us.gcr.io:443", false),
            ("user@us.gcr.io", false),
            ("US.gcr.io", false),
        ] {
            assert_eq!(WellKnown::is_regional(name), regional, "{name}");
        }
    }

    #[test]
    fn each_registry_is_in_the_table_once_under_all_its_names() {
        let mut names: Vec<&str> = WELL_KNOWN
            .iter()
            .flat_map(|known| known.aliases.iter().copied().chain([known.registry]))
            .collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count, "{names:?}");
        for known in &WELL_KNOWN {
            assert!(!WellKnown::is_regional(known.registry), "{}", known.registry);
            assert!(known.realms.iter().all(|realm| realm.starts_with("https://")), "{}", known.registry);
        }
    }

    #[test]
    fn only_docker_hub_has_a_library() {
        for known in WELL_KNOWN.iter().chain(&REGIONAL) {
            assert_eq!(known.library, known.registry == "docker.io", "{}", known.registry);
        }
    }
}
