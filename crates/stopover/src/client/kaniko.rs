//! kaniko: arguments of its executor, since it has no file.
//!
//! Source: kaniko pkg/image/remote/remote.go: `--registry-map` is looked up by the name that go-containerregistry has for
//! a registry, which is `index.docker.io` for Docker Hub.

use super::plan::{Ask, Plan};

/// Where the certificate is expected in kaniko's container.
const CERTIFICATE: &str = "/kaniko/stopover-ca.crt";

/// Returns what kaniko needs.
pub(super) fn plan(ask: &Ask) -> Result<Plan, String> {
    if ask.others {
        return Err("--registry: kaniko maps registries by name; expected names".to_owned());
    }
    let mut plan = Plan::default();
    for registry in &ask.registries {
        let name = if registry == "docker.io" { "index.docker.io" } else { registry };
        plan.flags.push(format!("--registry-map={name}={}", ask.mirror.location(registry)));
    }
    if ask.mirror.is_plain() {
        plan.flags.push(format!("--insecure-registry={}", ask.mirror.authority()));
    }
    if let Some(authority) = &ask.authority {
        plan.flags.push(format!("--registry-certificate={}={CERTIFICATE}", ask.mirror.authority()));
        plan.next.push(format!("mount {} into kaniko's container as {CERTIFICATE}", authority.file));
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
