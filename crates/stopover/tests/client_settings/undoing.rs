//! What `--undo` gives back.

use crate::machine::{CERTIFICATE, Machine};

/// Files as a user may have them, for each client.
const THEIRS: &[(&str, &str, &str)] = &[
    ("docker", "/etc/docker/daemon.json", "{ \"debug\":true,\"registry-mirrors\":[] }"),
    ("containerd", "/etc/containerd/config.toml", "version = 3\n# mine\n[grpc]\n  address = \"x\""),
    ("containerd", "/etc/containerd/certs.d/docker.io/hosts.toml", "[host.\"https://x\"]\r\n"),
    ("podman", "/etc/containers/registries.conf", "[[registry]]\nlocation = \"docker.io\"\n"),
    ("crio", "/etc/containers/registries.conf", "short-name-mode = \"disabled\"\n"),
    (
        "buildkit",
        "/etc/buildkit/buildkitd.toml",
        "[registry.\"ghcr.io\"]\n  mirrors = [\n    'x', # mine\n  ]\n",
    ),
    ("k3s", "/etc/rancher/k3s/registries.yaml", "mirrors:\n  ghcr.io:\n    endpoint: [x]\n"),
    ("docker-desktop", "/home/ann/.docker/daemon.json", "{\"builder\": {\"gc\": {\"enabled\": true}}}"),
];

const HOME: &[(&str, &str)] = &[("HOME", "/home/ann")];

/// Everything but the backups, which stay.
fn without_backups(machine: &Machine) -> Vec<(String, String)> {
    machine.everything().into_iter().filter(|(name, _)| !name.contains(".stopover-")).collect()
}

#[test]
fn every_byte_is_as_it_was() {
    for (client, path, text) in THEIRS {
        let machine = Machine::new();
        machine.put(path, text);
        machine.put_on_desk("ca.crt", CERTIFICATE);
        let before = without_backups(&machine);
        machine.client_in(&format!("{client} --write"), HOME).right();
        assert_ne!(without_backups(&machine), before, "{client}");
        let second = format!("{client} --write --mirror https://second.example --ca ca.crt");
        machine.client_in(&second, HOME).right();
        let out = machine.client_in(&format!("{client} --undo"), HOME).right();
        let file = if *client == "crio" { "" } else { path };
        assert!(out.contains(&format!("--- {file}")), "{client}: {out}");
        assert_eq!(without_backups(&machine), before, "{client}");
        let again = machine.client_in(&format!("{client} --undo"), HOME).right();
        assert!(again.starts_with("nothing to take back: there is no /"), "{again}");
    }
}

#[test]
fn what_was_made_is_removed_and_its_folders_with_it() {
    for client in ["docker", "containerd", "podman", "crio", "buildkit", "k3s", "docker-desktop"] {
        let machine = Machine::new();
        machine.put_on_desk("ca.crt", CERTIFICATE);
        let line = format!("{client} --write --mirror https://m.example --ca ca.crt");
        machine.client_in(&line, HOME).right();
        assert!(machine.everything().len() > 2, "{client}");
        machine.client_in(&format!("{client} --undo"), HOME).right();
        assert_eq!(machine.everything().into_keys().collect::<Vec<_>>(), ["/"], "{client}");
    }
}

#[test]
fn out_of_a_file_that_was_edited_since_only_ours_is_taken() {
    let machine = Machine::new();
    let daemon = "/etc/docker/daemon.json";
    machine.put(daemon, "{\"debug\": true}");
    machine.client("docker --write").right();
    machine.put(
        daemon,
        "{\n  \"registry-mirrors\": [\n    \"https://new\",\n    \"http://mirror.example:5000\"\n  ],\n  \
         \"insecure-registries\": [\n    \"mirror.example:5000\"\n  ],\n  \"debug\": false\n}\n",
    );
    machine.client("docker --undo").right();
    assert_eq!(
        machine.text(daemon),
        "{\n  \"registry-mirrors\": [\n    \"https://new\"\n  ],\n  \"debug\": false\n}\n"
    );

    let conf = "/etc/containers/registries.conf.d/50-stopover.conf";
    machine.client("podman --write").right();
    let ours = machine.text(conf);
    machine.put(conf, &format!("{ours}\n# mine\n[[registry]]\nlocation = \"r.example\"\n"));
    machine.client("podman --undo").right();
    assert_eq!(machine.text(conf), "\n# mine\n[[registry]]\nlocation = \"r.example\"\n");

    let buildkitd = "/etc/buildkit/buildkitd.toml";
    machine.put(buildkitd, "[registry.\"docker.io\"]\n  mirrors = [\"x\"]\n");
    machine.client("buildkit --registry docker.io --write").right();
    machine.put(buildkitd, &machine.text(buildkitd).replace("\"x\"]", "\"x\", \"y\"] # both"));
    machine.client("buildkit --undo").right();
    assert_eq!(machine.text(buildkitd), "[registry.\"docker.io\"]\n  mirrors = [\"x\", \"y\"] # both\n");

    let yaml = "/etc/rancher/k3s/registries.yaml";
    machine.put(yaml, "mirrors:\n  ghcr.io:\n    endpoint:\n      - x\n");
    machine.client("k3s --registry docker.io,ghcr.io --write").right();
    machine.put(yaml, &format!("{}configs: {{}}\n", machine.text(yaml)));
    machine.client("k3s --undo").right();
    assert_eq!(machine.text(yaml), "mirrors:\n  ghcr.io:\n    endpoint:\n      - x\nconfigs: {}\n");
}

#[test]
fn what_was_edited_itself_is_left_and_named() {
    let machine = Machine::new();
    let hosts = "/etc/containerd/certs.d/docker.io/hosts.toml";
    machine.client("containerd --registry docker.io,ghcr.io --write").right();
    let edited = machine.text(hosts).replace("[\"pull\", \"resolve\"]", "[\"pull\"]");
    machine.put(hosts, &edited);
    let err = machine.client("containerd --undo").wrong();
    assert!(err.contains(hosts) && err.contains("capabilities = [\"pull\", \"resolve\"]"), "{err}");
    assert_eq!(machine.text(hosts), edited);
    assert!(!machine.place("/etc/containerd/certs.d/ghcr.io").exists(), "the rest was taken back");
    std::fs::remove_file(machine.place(hosts)).unwrap();
    machine.client("containerd --undo").right();
    assert!(!machine.place("/etc/containerd/stopover-undo.json").exists());
}
