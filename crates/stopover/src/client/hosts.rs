//! hosts.toml, one for each registry, as containerd, nerdctl and Docker 29 read it.
//!
//! Source: containerd core/remotes/docker/config/hosts.go. The mirror is listed first; `server` is asked last.

use super::{
    machine::Machine,
    plan::{Ask, Change},
    toml::{self, Place, Section, Want},
};

/// Returns the hosts.toml of `registry` below the folder `certs`, or that of all registries without one of their own.
pub(super) fn change(
    machine: &Machine,
    ask: &Ask,
    certs: &str,
    registry: Option<&str>,
    ca: Option<&str>,
) -> Result<Change, String> {
    let folder = registry.map_or("_default".to_owned(), |registry| folder(machine, certs, registry));
    let head = match registry {
        Some(registry) => format!(
            "# Where images of {registry} come from.\n# Asked last:\nserver = {}\n\n",
            toml::quoted(&server(registry))
        ),
        None => {
            "# Where images of registries come from that have no folder of their own beside this one.\n\n"
                .to_owned()
        }
    };
    let mut keys = vec![("capabilities", Want::Is("[\"pull\", \"resolve\"]".to_owned()))];
    // dockerd finds the certificate by the mirror's name; containerd has to be told.
    keys.extend(ca.map(|ca| ("ca", Want::Is(toml::quoted(ca)))));
    let section = Section {
        path: vec!["host".to_owned(), ask.mirror.url()],
        comment: "Asked first. Where it does not answer, or answers with an error, the next is asked."
            .to_owned(),
        place: Place::BeforeSiblings,
        keys,
    };
    Change::edited(machine, &format!("{certs}/{folder}/hosts.toml"), &head, |text| {
        toml::with_section(text, &section)
    })
}

/// A registry with a port may have its folder under either of two names; the first that is there is read.
fn folder(machine: &Machine, certs: &str, registry: &str) -> String {
    let escaped = registry.split_once(':').map(|(host, port)| format!("{host}_{port}_"));
    escaped.filter(|name| machine.exists(&format!("{certs}/{name}"))).unwrap_or_else(|| registry.to_owned())
}

fn server(registry: &str) -> String {
    let host = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
    format!("https://{host}")
}
