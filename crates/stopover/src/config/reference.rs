//! The reference of the configuration, `docs/configuration.md`, made from the table of keys.

use super::{
    keys::{self, Key, SECTIONS},
    registry, tables,
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

const TABLES: &str = "
Each NAME is yours to choose. Two ways out, one of them slow, two accounts, one of them for some repositories, and a mirror:

```toml
[egresses.office]
address = \"192.0.2.7\"

[egresses.cellular]
proxy = \"socks5://proxy.example.com:1080\"
bandwidth = \"5MB\"

[upstream.accounts.ann]
username = \"ann\"
password_file = \"/run/secrets/ann\"

[upstream.accounts.team]
username = \"acmebot\"
password = \"<token>\"
repositories = [\"acme\"]

[upstream.mirrors.gcr]
url = \"https://mirror.gcr.io\"
when = \"low\"
repositories = [\"library\"]
```

In the environment a name is in upper case, with `_` for whatever is neither a letter nor a digit: it means the table of that
name in the file or, where there is none, a new one whose name is in lower case.
";

const OTHERS: &str = "
## [upstreams.\"registry\"]

A table for each further registry, named as images name it. Its keys are those of `[upstream]` but `registry`; `url` is
`https://` and the name, where it is not set. Such a table also gives a well-known registry an account. Below it stand its
own `[upstreams.\"ghcr.io\".accounts.NAME]` and `[upstreams.\"ghcr.io\".mirrors.NAME]`.

```toml
[upstreams.\"ghcr.io\"]
username = \"ann\"
password = \"<token>\"

[upstreams.\"registry.example.com:5000\"]
url = \"http://registry.example.com:5000\"
```

In the environment it is `STOPOVER_UPSTREAMS__GHCR_IO__USERNAME`: the name in upper case, with `_` for whatever is neither a
letter nor a digit, and `STOPOVER_UPSTREAMS__GHCR_IO__ACCOUNTS__ANN__PASSWORD` for a table below it. That works for well-known registries and for those that have a table, which may be empty.

Clients name it by `?ns=ghcr.io`, as containerd does by itself, or by path: `<this mirror>/ghcr.io/org/app`. What
docs/request-handling.md says of further ways needs `aliases` or `hosts`. No two registries may share a name, an alias or a host.
";

const TAIL: &str = "
`HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` hold for the line to the registry.
";

/// The head of a table of keys.
pub(super) const ROWS_HEAD: &str =
    "| key and variable | default | takes | what it is for |\n|---|---|---|---|\n";

/// Returns the reference as Markdown.
pub fn reference() -> String {
    let mut defaults = Config::default();
    let mut text = HEAD.to_owned();
    for (section, doc) in SECTIONS {
        text += &format!("\n## [{section}]\n\n{doc}\n\n{ROWS_HEAD}");
        for key in keys::all().filter(|key| key.section == section) {
            text += &row(key, &key.variable(), key.field.show(&mut defaults));
        }
    }
    text += &tables::reference();
    text += TABLES;
    text += OTHERS;
    text += &registry::reference();
    text + TAIL
}

/// Returns the row of a key.
pub(super) fn row<C: 'static>(key: &Key<C>, variable: &str, default: Option<String>) -> String {
    let default = default.map_or("not set".to_owned(), |value| format!("`{value}`"));
    let (name, takes, doc) = (key.name, key.field.expected(), key.doc);
    format!("| `{name}`<br>`{variable}` | {default} | {takes} | {doc} |\n")
}

impl Config {
    /// Returns what is in force, as the file that would set it. Secrets are masked.
    pub fn effective(&self) -> String {
        let mut all = self.clone();
        let mut text = String::new();
        for (at, (section, _)) in SECTIONS.iter().enumerate() {
            text += &format!("{}[{section}]\n", if at == 0 { "" } else { "\n" });
            for key in keys::all().filter(|key| key.section == *section) {
                match key.field.show(&mut all) {
                    Some(value) => text += &format!("{} = {value}\n", key.name),
                    None => text += &format!("# {} is not set\n", key.name),
                }
            }
        }
        text += &tables::show_upstream(&self.upstream, "upstream");
        text += &tables::show_egresses(self);
        for upstream in &self.upstreams {
            let header = format!("upstreams.{:?}", upstream.registry);
            text += &format!("\n[{header}]\n");
            let mut alone = Config { upstream: upstream.clone(), ..Config::default() };
            for key in keys::all().filter(|key| key.section == "upstream" && key.name != "registry") {
                if let Some(value) = key.field.show(&mut alone) {
                    text += &format!("{} = {value}\n", key.name);
                }
            }
            text += &tables::show_upstream(upstream, &header);
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
