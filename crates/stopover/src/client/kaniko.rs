//! kaniko: arguments of its executor, since it has no file.
//!
//! Source: kaniko pkg/image/remote/remote.go: `--registry-map` is looked up by the name that go-containerregistry has for
//! a registry, which is `index.docker.io` for Docker Hub; and the repository behind the mirror's host is parsed anew, so
//! that a first part with a dot is taken for a registry (kaniko #3313).

use super::plan::{Ask, Plan};

/// Where the certificate is expected in kaniko's container.
const CERTIFICATE: &str = "/kaniko/stopover-ca.crt";

/// Why a registry cannot be mapped, and what helps.
const NEEDS_A_NAME: &str = "kaniko takes a path that begins with a dotted name for another registry, and so cannot be sent \
                            to {mirror}/ghcr.io. Give the registry a name without a dot on the mirror, aliases = [\"ghcr\"] \
                            in [upstreams.\"ghcr.io\"], and pass --registry-map=ghcr.io={mirror}/ghcr.";

/// Returns what kaniko needs.
pub(super) fn plan(ask: &Ask) -> Result<Plan, String> {
    if ask.others {
        return Err("--registry: kaniko maps registries by name; expected names".to_owned());
    }
    let mut plan = Plan::default();
    let mut unmapped = Vec::new();
    for registry in &ask.registries {
        let name = if registry == "docker.io" { "index.docker.io" } else { registry };
        let map = |to: String| format!("--registry-map={name}={to}");
        if ask.mirror.has_path() {
            plan.flags.push(map(ask.mirror.location(registry)));
        } else if *registry == ask.default_registry {
            plan.flags.push(map(ask.mirror.authority()));
        } else {
            unmapped.push(registry.as_str());
        }
    }
    if plan.flags.is_empty() {
        return Err(format!("--registry: {}", NEEDS_A_NAME.replace("{mirror}", &ask.mirror.authority())));
    }
    if ask.mirror.is_plain() {
        plan.flags.push(format!("--insecure-registry={}", ask.mirror.authority()));
    }
    if let Some(authority) = &ask.authority {
        plan.flags.push(format!("--registry-certificate={}={CERTIFICATE}", ask.mirror.authority()));
        plan.next.push(format!("mount {} into kaniko's container as {CERTIFICATE}", authority.file));
    }
    if !unmapped.is_empty() {
        let why = NEEDS_A_NAME.replace("{mirror}", &ask.mirror.authority());
        plan.notes.push(format!("Not by the mirror: {}. {why}", unmapped.join(", ")));
    }
    plan.notes.push(
        "--registry-map is for every registry, from kaniko 1.20 on. An older one has --registry-mirror, for Docker Hub \
         alone."
            .to_owned(),
    );
    plan.notes.push(
        "Where the mirror does not have an image, kaniko goes to the registry itself, unless it is given \
         --skip-default-registry-fallback."
            .to_owned(),
    );
    Ok(plan)
}
