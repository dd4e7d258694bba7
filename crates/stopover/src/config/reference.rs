//! The reference of the configuration, `docs/configuration.md`, made from the table of keys.

use std::fmt::Write;

use super::{
    keys::{KEYS, Key, SECTIONS},
    used::Config,
};

const HEAD: &str = "\
# Configuration

<!-- Made from crates/stopover/src/config/keys.rs by `cargo run -- check --reference > docs/configuration.md`. -->

`stopover serve` needs no configuration: as it comes, it is a mirror of Docker Hub on port 5000. What is set counts in this
order, later over earlier:

1. the defaults below;
2. one file: the one that `--config FILE` names, else `STOPOVER_CONFIG`, else `./stopover.toml` if it is there, else
   `/etc/stopover/stopover.toml` if it is there;
3. the variables of registry:2 and registry:3, below;
4. `STOPOVER_<SECTION>__<KEY>` for every key, such as `STOPOVER_CACHE__TAG_TTL=30s`; lists are written with commas.

The file is TOML:

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

Clients name it by `?ns=ghcr.io`, as containerd does by itself, or by path: `<this mirror>/ghcr.io/org/app`.
";

const REGISTRY_HEAD: &str = "
## Variables of registry:2 and registry:3

They work as they do there, so a container keeps its environment. Any other `REGISTRY_` name is ignored with a warning.

| variable | key | differs |
|---|---|---|
";

const TAIL: &str = "\
| `REGISTRY_STORAGE` | | only `filesystem` |
| `REGISTRY_AUTH` | | `htpasswd`, with `REGISTRY_AUTH_HTPASSWD_PATH`, or `none`; another kind is a mistake |
| `REGISTRY_HTTP_DEBUG_PROMETHEUS_ENABLED` | | the metrics are there in any case |

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
        for key in KEYS.iter().filter(|key| key.section == section) {
            let default =
                key.field.show(&defaults).map_or("not set".to_owned(), |value| format!("`{value}`"));
            let (name, variable, takes) = (key.name, key.variable(), key.field.expected());
            writeln!(text, "| `{name}`<br>`{variable}` | {default} | {takes} | {} |", key.doc)
                .expect("writing to a string cannot fail");
        }
    }
    text += OTHERS;
    text += REGISTRY_HEAD;
    for key in KEYS {
        let Some(variable) = key.registry else { continue };
        writeln!(text, "| `{variable}` | `{}` | {} |", key.path(), difference(key))
            .expect("writing to a string cannot fail");
    }
    text + TAIL
}

fn difference(key: &Key) -> &'static str {
    match key.registry {
        Some("REGISTRY_PROXY_TTL") => "a bare number counts nanoseconds; 0 and not set mean never",
        Some("REGISTRY_PROXY_EXEC_LIFETIME") => "a bare number counts nanoseconds",
        Some("REGISTRY_LOG_FORMATTER") => "`logstash` means `json`",
        Some("REGISTRY_PROXY_REMOTEURL") => "a path is refused",
        _ => "",
    }
}

impl Config {
    /// Returns what is in force, as the file that would set it. Secrets are masked.
    pub fn effective(&self) -> String {
        let mut text = String::new();
        for (at, (section, _)) in SECTIONS.iter().enumerate() {
            text += &format!("{}[{section}]\n", if at == 0 { "" } else { "\n" });
            for key in KEYS.iter().filter(|key| key.section == *section) {
                match key.field.show(self) {
                    Some(value) => text += &format!("{} = {value}\n", key.name),
                    None => text += &format!("# {} is not set\n", key.name),
                }
            }
        }
        for upstream in &self.upstreams {
            text += &format!("\n[upstreams.{:?}]\n", upstream.registry);
            let alone = Config { upstream: upstream.clone(), ..Config::default() };
            for key in KEYS.iter().filter(|key| key.section == "upstream" && key.name != "registry") {
                if let Some(value) = key.field.show(&alone) {
                    text += &format!("{} = {value}\n", key.name);
                }
            }
        }
        text
    }
}
