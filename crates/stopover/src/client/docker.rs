//! dockerd and Docker Desktop: daemon.json, and for other registries than Docker Hub the hosts.toml of Docker 29.
//!
//! Sources: moby daemon/pkg/registry/service_v2.go (mirrors are for docker.io alone), daemon/hosts.go (hosts.toml below
//! certs.d), daemon/config (SIGHUP reads the lists anew; a flag and a key for the same thing keep dockerd from starting).

use super::{
    hosts,
    machine::Machine,
    plan::{Ask, Change, Plan, with_lists},
    proxy,
};

/// Where dockerd looks for its settings.
pub(super) const HOME: &str = "/etc/docker";
const CERTS: &str = "/etc/docker/certs.d";
const MIRRORS: &str = "registry-mirrors";
const INSECURE: &str = "insecure-registries";
const HUB: &str = "docker.io";

/// Returns what dockerd needs.
pub(super) fn plan(machine: &Machine, ask: &Ask) -> Result<Plan, String> {
    let mut plan = Plan::default();
    let lists = lists(ask);
    if !lists.is_empty() {
        let mut change =
            Change::edited(machine, "/etc/docker/daemon.json", "", |text| with_lists(text, &lists))?;
        if change.is_change()
            && let Some(clash) = flag_in_the_way(machine, &lists)
        {
            change.after = Err(clash);
        }
        plan.files.push(change);
        plan.next.push(
            "systemctl reload docker    # dockerd reads both lists anew; no container stops".to_owned(),
        );
    }
    for registry in ask.registries.iter().filter(|registry| *registry != HUB) {
        plan.files.push(hosts::change(machine, ask, CERTS, Some(registry), None)?);
    }
    if ask.others {
        plan.files.push(hosts::change(machine, ask, CERTS, None, None)?);
    }
    if let Some(authority) = &ask.authority {
        let path = format!("{CERTS}/{}/ca.crt", ask.mirror.authority());
        plan.files.push(Change::certificate(machine, &path, authority)?);
        plan.notes.push("dockerd reads certificates at each pull: no restart for them.".to_owned());
    }
    plan.notes.extend(notes(ask));
    Ok(plan)
}

/// Returns what Docker Desktop needs; its dockerd lives in a virtual machine.
pub(super) fn desktop(machine: &Machine, ask: &Ask) -> Result<Plan, String> {
    if ask.others || ask.registries.iter().any(|registry| registry != HUB) {
        return Err(format!(
            "--registry: Docker Desktop mirrors docker.io alone; expected that, and for others their images by \
             path, {}/<image>",
            ask.mirror.location("<registry>")
        ));
    }
    let home = desktop_home(machine)?;
    let lists = lists(ask);
    let mut plan = Plan::default();
    plan.files
        .push(Change::edited(machine, &format!("{home}/daemon.json"), "", |text| with_lists(text, &lists))?);
    if let Some(authority) = &ask.authority {
        let path = format!("{home}/certs.d/{}/ca.crt", ask.mirror.authority());
        plan.files.push(Change::certificate(machine, &path, authority)?);
    }
    plan.next.push(
        "restart Docker Desktop: its menu, Restart    # or Settings, Docker Engine, Apply & restart"
            .to_owned(),
    );
    plan.notes.push(
        "The same text can be pasted at Settings, Docker Engine. On Windows the file is \
         %USERPROFILE%\\.docker\\daemon.json."
            .to_owned(),
    );
    if ask.mirror.is_loopback() {
        plan.notes.push(format!(
            "Warning: in Docker Desktop's virtual machine {} is that machine itself. A mirror on this computer is \
             host.docker.internal there: --mirror http://host.docker.internal:{}",
            ask.mirror.host(),
            ask.mirror.port()
        ));
    }
    plan.notes.extend(notes(ask));
    Ok(plan)
}

/// Returns the folder of Docker Desktop's settings.
pub(super) fn desktop_home(machine: &Machine) -> Result<String, String> {
    let home = machine.variable("HOME").or_else(|| machine.variable("USERPROFILE"));
    home.map(|home| format!("{}/.docker", home.trim_end_matches('/')))
        .ok_or_else(|| "HOME is not set; Docker Desktop's settings are below it".to_owned())
}

fn lists(ask: &Ask) -> Vec<(&'static str, String)> {
    let mut lists = Vec::new();
    if ask.registries.iter().any(|registry| registry == HUB) {
        lists.push((MIRRORS, ask.hub_url()));
    }
    if ask.is_insecure() {
        lists.push((INSECURE, ask.mirror.authority()));
    }
    lists
}

fn notes(ask: &Ask) -> Vec<String> {
    let mut notes = vec![format!(
        "registry-mirrors is for Docker Hub alone. An image of another registry comes by the mirror by its path: \
         docker pull {}/org/app. Docker 29 and later with the containerd image store, the default of new \
         installations, can mirror every registry: --registry ghcr.io,quay.io makes their hosts.toml.",
        ask.mirror.location("ghcr.io")
    )];
    if ask.is_insecure() {
        notes.push(
            "insecure-registries lets dockerd speak plain HTTP to the mirror where an image is named by its path. \
             A mirror over https needs no such line."
                .to_owned(),
        );
    }
    notes.push(
        "Where the mirror does not answer, or answers with an error, docker goes to Docker Hub itself. A docker login \
         for Docker Hub is shown to a mirror that asks for one; Stopover does not ask unless it is told to."
            .to_owned(),
    );
    notes
}

/// dockerd does not start where a list stands both on its command line and in daemon.json.
fn flag_in_the_way(machine: &Machine, lists: &[(&'static str, String)]) -> Option<String> {
    proxy::unit_files(machine, "docker").into_iter().find_map(|file| {
        let text = machine.read(&file).ok()??;
        let (at, line) = text.lines().enumerate().find(|(_, line)| {
            let line = line.trim_start();
            !line.starts_with('#') && lists.iter().any(|(key, _)| line.contains(&format!("--{}", singular(key))))
        })?;
        let flag = line.split_whitespace().find(|word| word.starts_with("--registry-mirror") || word.starts_with("--insecure-registr"));
        Some(format!(
            "{}:{}: dockerd is started with {}, and does not start if daemon.json sets that list too; move it to \
             daemon.json first",
            machine.shown(&file),
            at + 1,
            flag.unwrap_or("the same list as a flag")
        ))
    })
}

/// The flag for `registry-mirrors` is `--registry-mirror`, that for `insecure-registries` `--insecure-registry`.
fn singular(key: &str) -> &str {
    if key == MIRRORS { "registry-mirror" } else { "insecure-registry" }
}
