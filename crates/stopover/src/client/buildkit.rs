//! BuildKit, by itself and under `docker buildx`: buildkitd.toml.
//!
//! Source: buildkit util/resolver/resolver.go: a mirror is `host[:port][/path]`, the path goes behind `/v2/`, the scheme
//! is https unless the mirror's own table says `http = true`.

use super::{
    machine::Machine,
    plan::{Ask, Change, Plan},
    toml::{self, Place, Section, Want},
};

/// Where buildkitd looks for its settings.
pub(super) const HOME: &str = "/etc/buildkit";
const CONFIG: &str = "/etc/buildkit/buildkitd.toml";
const CERTIFICATE: &str = "/etc/buildkit/stopover-ca.crt";

/// Returns what buildkitd needs.
pub(super) fn plan(machine: &Machine, ask: &Ask) -> Result<Plan, String> {
    if ask.others {
        return Err(
            "--registry: buildkitd.toml has no table for all other registries; expected names".to_owned()
        );
    }
    let mut plan = Plan::default();
    let sections = sections(ask);
    let head =
        "# BuildKit asks a mirror first, and the registry itself where that does not have the image.\n";
    plan.files.push(Change::edited(machine, CONFIG, head, |text| {
        sections.iter().try_fold(text.to_owned(), |text, section| toml::with_section(&text, section))
    })?);
    if let Some(authority) = &ask.authority {
        plan.files.push(Change::certificate(machine, CERTIFICATE, authority)?);
    }
    plan.next.push(
        "systemctl restart buildkit    # or, under docker buildx: docker buildx create --use --config \
         /etc/buildkit/buildkitd.toml"
            .to_owned(),
    );
    plan.notes.push(
        "The builder that is part of dockerd (docker build without buildx create) does not read this file; it takes \
         the mirror from daemon.json: stopover client docker."
            .to_owned(),
    );
    if ask.mirror.is_loopback() {
        plan.notes.push(format!(
            "Warning: a builder in a container, as docker buildx create makes it, has a loopback of its own: {} does \
             not lead to this machine from there.",
            ask.mirror.host()
        ));
    }
    Ok(plan)
}

fn sections(ask: &Ask) -> Vec<Section> {
    let section = |name: &str, comment: &str, keys| Section {
        path: vec!["registry".to_owned(), name.to_owned()],
        comment: comment.to_owned(),
        place: Place::Last,
        keys,
    };
    let mirrored = |registry: &String| {
        section(registry, "", vec![("mirrors", Want::Holds(ask.mirror.location(registry)))])
    };
    let mut sections: Vec<Section> = ask.registries.iter().map(mirrored).collect();
    let name = ask.mirror.authority();
    if ask.mirror.is_plain() {
        let http = vec![("http", Want::Is("true".to_owned()))];
        sections.push(section(&name, "The mirror itself speaks plain HTTP.", http));
    }
    if ask.authority.is_some() {
        let ca = vec![("ca", Want::Holds(CERTIFICATE.to_owned()))];
        sections.push(section(&name, "The mirror's certificate is vouched for by this authority.", ca));
    }
    sections
}
