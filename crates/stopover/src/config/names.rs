//! The names of registries beside one another: that each leads to one, and which one a variable's name means.

use std::collections::HashMap;

use super::{
    mistake::{Mistake, Place, nearest},
    used::{Config, Upstream},
    well_known::{WELL_KNOWN, WellKnown},
    written::{Other, Setting, Written, place_of},
};

/// What begins a variable that sets a key of a further registry.
pub(super) const VARIABLES: &str = "STOPOVER_UPSTREAMS__";
/// First parts of a path that mean something else.
const TAKEN: [&str; 2] = ["v2", "library"];

/// A registry that is configured, what is set of it, and where its table is, if it has one of its own.
type Configured<'a> = (&'a Upstream, &'a [Setting], Option<&'a Place>);

/// Checks that no two registries answer to one name, by whatever way, and that none hides a path of the API.
pub(super) fn check(config: &Config, settings: &[Setting], others: &[Other], written: &mut Written) {
    let further = config.upstreams.iter().zip(others);
    let further = further.map(|(upstream, other)| (upstream, &other.settings[..], Some(&other.place)));
    let configured: Vec<Configured<'_>> =
        std::iter::once((&config.upstream, settings, None)).chain(further).collect();
    let mut owners: HashMap<String, String> = HashMap::new();
    for upstream in config.others().iter().chain([&config.upstream]) {
        for name in upstream.well_known_aliases().into_iter().chain([upstream.registry.clone()]) {
            owners.insert(name, upstream.registry.clone());
        }
    }
    check_registries(&configured, written);
    let is_regional = |name: &str| config.route.well_known && WellKnown::is_regional(name);
    for key in ["aliases", "hosts"] {
        for (upstream, settings, _) in &configured {
            for name in if key == "aliases" { &upstream.aliases } else { &upstream.hosts } {
                let owner = owners.entry(name.clone()).or_insert_with(|| {
                    if is_regional(name) {
                        "a well-known registry".to_owned()
                    } else {
                        upstream.registry.clone()
                    }
                });
                if *owner != upstream.registry {
                    let what = format!(
                        "upstream.{key}: {name:?} is a name of {owner} already; expected one that is free"
                    );
                    let place = place_of(settings, "upstream", key);
                    written.mistakes.extend(place.map(|place| Mistake::new(place, what)));
                }
            }
        }
    }
    let first = config.http.prefix.as_deref().and_then(|prefix| prefix.split('/').next());
    if let Some(owner) = first.and_then(|first| owners.get(first)) {
        let what =
            format!("http.prefix: its first part is a name of {owner} already; expected one that is free");
        let place = place_of(settings, "http", "prefix");
        written.mistakes.extend(place.map(|place| Mistake::new(place, what)));
    }
}

/// Checks that no registry is called what the first part of a path means otherwise.
fn check_registries(configured: &[Configured<'_>], written: &mut Written) {
    for (upstream, settings, place) in configured {
        if TAKEN.contains(&upstream.registry.as_str()) {
            let what = format!(
                "upstream.registry: {:?} is a part of paths already; expected a host",
                upstream.registry
            );
            let place = place.cloned().or_else(|| place_of(settings, "upstream", "registry"));
            written.mistakes.extend(place.map(|place| Mistake::new(place, what)));
        }
    }
}

/// What stands between a registry and a table of it in a variable's name.
const TABLES: [&str; 2] = ["__ACCOUNTS__", "__MIRRORS__"];

/// Returns the registry that a variable's name means, and the rest of that name: `ghcr.io` and `USERNAME` for
/// `STOPOVER_UPSTREAMS__GHCR_IO__USERNAME`.
pub(super) fn of_variable<'a>(variable: &'a str, others: &[Other]) -> Result<(String, &'a str), Mistake> {
    let wrong = |what: String| Mistake::new(Place::Variable(variable.to_owned()), what);
    let parts = variable.strip_prefix(VARIABLES).and_then(|rest| {
        let table = TABLES.iter().filter_map(|table| rest.find(table)).min();
        let at = table.or_else(|| rest.rfind("__"))?;
        Some((&rest[..at], &rest[at + 2..]))
    });
    let Some((shown, key)) = parts else {
        return Err(wrong(format!(
            "expected {VARIABLES}<REGISTRY>__<KEY>, such as {VARIABLES}GHCR_IO__USERNAME"
        )));
    };
    let mut known: Vec<&str> = others.iter().map(|other| &*other.registry).collect();
    known.extend(WELL_KNOWN.iter().map(|known| known.registry));
    known.sort_unstable();
    known.dedup();
    let meant: Vec<&str> = known.iter().copied().filter(|registry| in_variable(registry) == shown).collect();
    match meant[..] {
        [registry] => Ok((registry.to_owned(), key)),
        [] => {
            let spelt: Vec<String> = known.iter().map(|registry| in_variable(registry)).collect();
            let near = nearest(shown, spelt.iter().map(String::as_str));
            let near =
                near.map(|near| format!("did you mean {VARIABLES}{near}__{key}? ")).unwrap_or_default();
            Err(wrong(format!(
                "no registry of that name is well known or has a table; {near}A table [upstreams.\"<registry>\"] in the \
                 file, which may be empty, adds one"
            )))
        }
        _ => Err(wrong(format!("{} are spelt so; set the key in the file", meant.join(" and ")))),
    }
}

/// Returns the name of a registry or a table as it stands in variables.
pub(super) fn in_variable(name: &str) -> String {
    let spelt = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    name.chars().map(spelt).collect()
}
