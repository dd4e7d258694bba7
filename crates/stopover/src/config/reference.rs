//! The reference of the configuration, `docs/configuration.md`, made from the table of keys.

use std::fmt::Write;

use super::{
    keys::{self, SECTIONS},
    registry,
    used::{Config, Upstream},
};

const HEAD: &str = "\
# Configuration

<!-- Made from crates/stopover/src/config/keys.rs by `cargo run -- check --reference > docs/configuration.md`. -->

`stopover serve` needs no configuration: as it comes, it is a mirror of Docker Hub on port 5000. What is set counts in this
order, later over earlier:

1. the defaults below;
2. one file, the first of these: the one that the command line names; `STOPOVER_CONFIG`; `REGISTRY_CONFIGURATION_PATH`;
   `./stopover.toml`; `/etc/stopover/stopover.toml`; `/etc/docker/registry/config.yml`; `/etc/distribution/config.yml`. The
   last two are a registry's, which may be running beside: they are passed over unless they set `proxy.remoteurl`, or the
   program is started under the name `registry`, as in the image;
3. the variables of registry:2 and registry:3, below;
4. `STOPOVER_<SECTION>__<KEY>` for every key, such as `STOPOVER_CACHE__TAG_TTL=30s`; lists are written with commas.

The file is TOML, or a registry's `config.yml` (below), by its name's ending or else by its content:

```toml
[storage]
root = \"/srv/registry\"

[cache]
tag_ttl = \"5m\"
```

`stopover check` reads all of it, names every mistake with its place and says what is in force. An unknown key is a mistake.
Durations are written as Go writes them, with days besides: `250ms`, `60s`, `1h30m`, `7d`; a bare `0` needs no unit. Sizes are
written `64KiB`, `64MiB`, `64GiB`.
";

const OTHERS: &str = "
## [upstreams.\"registry\"]

A table for each further registry, named as images name it. Its keys are those of `[upstream]` but `registry`; `url` is
`https://` and the name, where it is not set. Such a table also gives a well-known registry an account.

```toml
[upstreams.\"ghcr.io\"]
username = \"ann\"
password = \"<token>\"

[upstreams.\"registry.example.com:5000\"]
url = \"http://registry.example.com:5000\"
```

In the environment it is `STOPOVER_UPSTREAMS__GHCR_IO__USERNAME`: the name in upper case, with `_` for whatever is neither a
letter nor a digit. That works for well-known registries and for those that have a table, which may be empty.

Clients name it by `?ns=ghcr.io`, as containerd does by itself, or by path: `<this mirror>/ghcr.io/org/app`. What
docs/request-handling.md says of further ways needs `aliases` or `hosts`. No two registries may share a name, an alias or a host.
";

const TAIL: &str = "
`HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` hold for the line to the registry.
";

/// Returns the reference as Markdown.
pub fn reference() -> String {
    let defaults = Config::default();
    let mut text = HEAD.to_owned();
    for (section, doc) in SECTIONS {
        text += &format!(
            "\n## [{section}]\n\n{doc}\n\n| key and variable | default | takes | what it is for |\n|---|---|---|---|\n"
        );
        for key in keys::all().filter(|key| key.section == section) {
            let default =
                key.field.show(&defaults).map_or("not set".to_owned(), |value| format!("`{value}`"));
            let (name, variable, takes) = (key.name, key.variable(), key.field.expected());
            writeln!(text, "| `{name}`<br>`{variable}` | {default} | {takes} | {} |", key.doc)
                .expect("writing to a string cannot fail");
        }
    }
    text += OTHERS;
    text += &registry::reference();
    text + TAIL
}

impl Config {
    /// Returns what is in force, as the file that would set it. Secrets are masked.
    pub fn effective(&self) -> String {
        let mut text = String::new();
        for (at, (section, _)) in SECTIONS.iter().enumerate() {
            text += &format!("{}[{section}]\n", if at == 0 { "" } else { "\n" });
            for key in keys::all().filter(|key| key.section == *section) {
                match key.field.show(self) {
                    Some(value) => text += &format!("{} = {value}\n", key.name),
                    None => text += &format!("# {} is not set\n", key.name),
                }
            }
        }
        for upstream in &self.upstreams {
            text += &format!("\n[upstreams.{:?}]\n", upstream.registry);
            let alone = Config { upstream: upstream.clone(), ..Config::default() };
            for key in keys::all().filter(|key| key.section == "upstream" && key.name != "registry") {
                if let Some(value) = key.field.show(&alone) {
                    text += &format!("{} = {value}\n", key.name);
                }
            }
        }
        let configured = |other: &&Upstream| self.upstreams.iter().any(|one| one.registry == other.registry);
        let others = self.others();
        let others: Vec<&str> =
            others.iter().filter(|other| !configured(other)).map(|other| &*other.registry).collect();
        if !others.is_empty() {
            text += &format!("\n# mirrored besides, as they come: {} and their regions\n", others.join(", "));
        }
        text
    }
}
