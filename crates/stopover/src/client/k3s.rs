//! k3s and rke2: registries.yaml, from which each makes containerd's hosts.toml when it starts.
//!
//! Source: k3s pkg/agent/containerd/config.go: an endpoint with a path other than `/v2` is the root of the API.

use super::{
    machine::Machine,
    plan::{Ask, Change, Plan},
    yaml::{self, Leaf},
};

const K3S: &str = "/etc/rancher/k3s";
const RKE2: &str = "/etc/rancher/rke2";

/// Returns the folder of whichever of the two is there; k3s' where none is.
pub(super) fn home(machine: &Machine) -> &'static str {
    if machine.exists(RKE2) && !machine.exists(K3S) { RKE2 } else { K3S }
}

/// Returns what k3s needs, or rke2.
pub(super) fn plan(machine: &Machine, ask: &Ask) -> Result<Plan, String> {
    let mut plan = Plan::default();
    let home = home(machine);
    let endpoint = ask.mirror.api();
    let certificate = format!("{home}/stopover-ca.crt");
    let authority = ask.mirror.authority();
    let head = "# The mirror is asked first, the registry itself last.\n";
    plan.files.push(Change::edited(machine, &format!("{home}/registries.yaml"), head, |text| {
        let others = ask.others.then_some("*");
        let names = ask.registries.iter().map(String::as_str).chain(others);
        let mut text = text.to_owned();
        for name in names {
            text = yaml::with(&text, &["mirrors", name, "endpoint"], Leaf::First(&endpoint))?;
        }
        match ask.authority {
            Some(_) => {
                yaml::with(&text, &["configs", &authority, "tls", "ca_file"], Leaf::Value(&certificate))
            }
            None => Ok(text),
        }
    })?);
    if let Some(authority) = &ask.authority {
        plan.files.push(Change::certificate(machine, &certificate, authority)?);
    }
    plan.next.push(if home == K3S {
        "systemctl restart k3s    # on an agent: k3s-agent; registries.yaml is read at the start; pods run on"
            .to_owned()
    } else {
        "systemctl restart rke2-server    # on an agent: rke2-agent; registries.yaml is read at the start"
            .to_owned()
    });
    plan.notes.push(format!(
        "Each node has a registries.yaml of its own, servers and agents alike. rke2 has the same file in {RKE2}."
    ));
    if ask.others {
        plan.notes.push(
            "\"*\" is for all other registries, such as the regions of pkg.dev. Those that the mirror does not know it \
             refuses without a connection, and the node asks them itself."
                .to_owned(),
        );
    }
    Ok(plan)
}
