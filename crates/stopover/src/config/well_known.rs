//! The registries that need no configuration: their names, other names for them, and where they are.
//!
//! They are reached without an account, over TLS.

use super::{Config, Upstream};

/// A registry that everybody knows.
#[derive(Clone, Copy, Debug)]
pub struct WellKnown {
    /// Its name, as in `ghcr.io/org/app`.
    pub registry: &'static str,
    /// Where it is reached, if that is another host.
    pub host: &'static str,
    /// Other names that clients send for it.
    pub aliases: &'static [&'static str],
}

/// All of them.
pub static WELL_KNOWN: [WellKnown; 10] = [
    // regclient sends the host in place of the name.
    aliased("docker.io", "registry-1.docker.io", &["index.docker.io", "registry-1.docker.io"]),
    at_its_name("ghcr.io"),
    at_its_name("quay.io"),
    at_its_name("gcr.io"),
    at_its_name("registry.k8s.io"),
    at_its_name("mcr.microsoft.com"),
    at_its_name("public.ecr.aws"),
    at_its_name("nvcr.io"),
    at_its_name("lscr.io"),
    at_its_name("registry.gitlab.com"),
];

/// What the names of registries end in that come in many regions: Google's.
const REGIONAL_ENDINGS: [&str; 2] = ["-docker.pkg.dev", ".gcr.io"];

const fn at_its_name(registry: &'static str) -> WellKnown {
    WellKnown { registry, host: registry, aliases: &[] }
}

const fn aliased(registry: &'static str, host: &'static str, aliases: &'static [&'static str]) -> WellKnown {
    WellKnown { registry, host, aliases }
}

impl WellKnown {
    /// Returns the well-known registry of this name.
    pub fn find(registry: &str) -> Option<&'static Self> {
        WELL_KNOWN.iter().find(|known| known.registry == registry)
    }

    /// Returns whether this is one of a regional registry's names, such as `europe-west1-docker.pkg.dev`.
    pub fn is_regional(registry: &str) -> bool {
        let is_label = |label: &str| {
            !label.is_empty()
                && !label.starts_with('-')
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        };
        REGIONAL_ENDINGS.iter().any(|ending| registry.strip_suffix(ending).is_some_and(is_label))
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
                    others.push(Upstream::named(known.registry));
                }
            }
        }
        others
    }
}

impl Upstream {
    /// Returns the registry of this name as it is where nothing is set of it: at its well-known place, or at its name.
    pub fn named(registry: &str) -> Self {
        let host = WellKnown::find(registry).map_or(registry, |known| known.host);
        Self { registry: registry.to_owned(), url: format!("https://{host}"), ..Self::default() }
    }

    /// Returns other names that clients send for the registry.
    pub fn aliases(&self) -> Vec<String> {
        let aliases = WellKnown::find(&self.registry).map_or(&[][..], |known| known.aliases);
        aliases.iter().map(|&alias| alias.to_owned()).collect()
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
}
