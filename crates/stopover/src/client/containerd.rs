//! containerd: a hosts.toml for each registry, and the line of config.toml that makes Kubernetes' side read them.
//!
//! Sources: containerd core/remotes/docker/config/hosts.go, internal/cri/config (`config_path` and `mirrors` exclude each
//! other), docs/hosts.md (no restart for hosts.toml).

use ::toml::{Table, Value};

use super::{
    hosts,
    machine::Machine,
    plan::{Ask, Change, Plan},
    toml::{self, Place, Section, Want},
};

/// Where containerd looks for its settings.
pub(super) const HOME: &str = "/etc/containerd";
const CONFIG: &str = "/etc/containerd/config.toml";
const CERTS: &str = "/etc/containerd/certs.d";

/// Returns what containerd needs.
pub(super) fn plan(machine: &Machine, ask: &Ask) -> Result<Plan, String> {
    let mut plan = Plan::default();
    let cri = cri(machine)?;
    let certs = match &cri {
        Cri::Reads(folder) => folder.as_str(),
        Cri::Off | Cri::MustBeTold(_) => CERTS,
    };
    let ca = ask.authority.as_ref().map(|authority| {
        let path = format!("{certs}/{}/ca.crt", ask.mirror.authority());
        Change::certificate(machine, &path, authority).map(|change| (path, change))
    });
    let ca = ca.transpose()?;
    let ca_path = ca.as_ref().map(|(path, _)| path.as_str());
    for registry in &ask.registries {
        plan.files.push(hosts::change(machine, ask, certs, Some(registry), ca_path)?);
    }
    if ask.others {
        plan.files.push(hosts::change(machine, ask, certs, None, ca_path)?);
    }
    plan.files.extend(ca.map(|(_, change)| change));
    plan.notes.push(
        "hosts.toml is read at each pull: no restart. Where it is not TOML, containerd goes to the registry itself \
         and says so in its log only."
            .to_owned(),
    );
    match &cri {
        Cri::MustBeTold(change) => {
            plan.files.push((**change).clone());
            plan.next.push(
                "systemctl restart containerd    # for config.toml, which is read at the start; containers run on"
                    .to_owned(),
            );
        }
        Cri::Reads(_) => plan.notes.push(format!("{CONFIG} names {certs} already: nothing to restart.")),
        Cri::Off => plan.notes.push(format!(
            "{CONFIG} has the CRI plugin disabled, so it needs no config_path; nerdctl reads {CERTS} by itself."
        )),
    }
    plan.notes.push(format!(
        "nerdctl reads {CERTS} by itself. ctr does not: ctr images pull --hosts-dir {certs} docker.io/library/alpine:latest"
    ));
    if ask.others {
        plan.notes.push(
            "_default/hosts.toml is for all other registries, such as the regions of pkg.dev. Those that the mirror \
             does not know it refuses without a connection, and containerd asks them itself."
                .to_owned(),
        );
    }
    Ok(plan)
}

/// What config.toml says of where Kubernetes' side of containerd finds hosts.toml.
enum Cri {
    /// This folder is read.
    Reads(String),
    /// It must be written.
    MustBeTold(Box<Change>),
    /// There is no such side.
    Off,
}

fn cri(machine: &Machine) -> Result<Cri, String> {
    let text = machine.read(CONFIG)?.unwrap_or_default();
    let at = |what: String| format!("{}:{what}", machine.shown(CONFIG));
    let values = toml::values(&text).map_err(at)?;
    let disabled = values.get("disabled_plugins").and_then(Value::as_array);
    let is_cri = |name: &Value| matches!(name.as_str(), Some("cri" | "io.containerd.grpc.v1.cri"));
    if disabled.is_some_and(|names| names.iter().any(is_cri)) {
        return Ok(Cri::Off);
    }
    let version = version(&values, &text).map_err(at)?;
    // Version 3 came with containerd 2.0; the older name goes on working there in a file of version 2.
    let plugin = if version >= 3 { "io.containerd.cri.v1.images" } else { "io.containerd.grpc.v1.cri" };
    let registry = ["plugins", plugin, "registry"];
    let table = registry.iter().try_fold(&values, |table, part| table.get(*part)?.as_table());
    let told = table.and_then(|table| table.get("config_path"));
    match told {
        Some(Value::String(folders)) if !folders.is_empty() => {
            let first = folders.split(':').next().unwrap_or(CERTS);
            return Ok(Cri::Reads(first.trim_end_matches('/').to_owned()));
        }
        Some(Value::String(_)) | None => {}
        Some(other) => {
            let line = line_with(&text, "config_path");
            return Err(at(format!("{line}: config_path: found {other}, expected a folder, \"{CERTS}\"")));
        }
    }
    let clash = table.and_then(in_the_way);
    let section = Section {
        path: registry.map(str::to_owned).to_vec(),
        comment: "Where hosts.toml is looked for; read when containerd starts.".to_owned(),
        place: Place::Last,
        keys: vec![("config_path", Want::Is(toml::quoted(CERTS)))],
    };
    let mut change = Change::edited(machine, CONFIG, "version = 2\n", |text| {
        let says_nothing = toml::values(text)?.is_empty();
        let text = if says_nothing { format!("version = 2\n{text}") } else { text.to_owned() };
        toml::with_section(&text, &section)
    })?;
    if let Some(key) = clash {
        let line = line_with(&text, &format!("registry.{key}"));
        change.after = Err(at(format!(
            "{line}: registry.{key} is set, with which containerd does not take config_path; move what it says to \
             {CERTS}/<registry>/hosts.toml and remove it"
        )));
    }
    Ok(Cri::MustBeTold(Box::new(change)))
}

/// Returns the version of the file; one that says nothing at all may become any.
fn version(values: &Table, text: &str) -> Result<i64, String> {
    match values.get("version") {
        Some(Value::Integer(version)) if *version >= 2 => Ok(*version),
        None if values.is_empty() => Ok(2),
        found => {
            let line = line_with(text, "version");
            let found =
                found.map_or("no version, which is version 1".to_owned(), |found| format!("version {found}"));
            Err(format!("{line}: found {found}, expected 2 or 3; `containerd config migrate` rewrites it"))
        }
    }
}

/// Returns the key that excludes `config_path`, if it says anything.
fn in_the_way(registry: &Table) -> Option<&'static str> {
    let table = |key| registry.get(key).and_then(Value::as_table);
    let has_tls = |config: (&String, &Value)| config.1.get("tls").is_some();
    if table("mirrors").is_some_and(|mirrors| !mirrors.is_empty()) {
        return Some("mirrors");
    }
    table("configs").is_some_and(|configs| configs.iter().any(has_tls)).then_some("configs")
}

fn line_with(text: &str, what: &str) -> usize {
    text.lines().position(|line| line.contains(what)).map_or(1, |at| at + 1)
}
