//! What `--write` makes of files that are there.

use std::os::unix::fs::{PermissionsExt, symlink};

use crate::machine::{CERTIFICATE, Machine};

/// Writes, checks that a second time changes nothing, and returns what was printed.
#[track_caller]
fn write(machine: &Machine, arguments: &str) -> String {
    let out = machine.client(&format!("{arguments} --write")).right();
    let before = machine.everything();
    let again = machine.client(&format!("{arguments} --write")).right();
    assert!(again.starts_with("nothing to change: "), "{again}");
    assert_eq!(machine.everything(), before);
    out
}

/// Returns the names of the backups of a file.
fn backups(machine: &Machine, path: &str) -> Vec<String> {
    let begin = format!("{}.stopover-", path.trim_start_matches('/'));
    machine.everything().into_keys().filter(|name| name.starts_with(&begin)).collect()
}

#[test]
fn daemon_json_keeps_its_order_layout_and_mode_and_a_backup_stands_beside_it() {
    let machine = Machine::new();
    let before = "{\n\t\"zeta\": {\"b\": 1, \"a\": [1,2]},\n\t\"registry-mirrors\": [\"https://x.example\"],\n\t\"alpha\": 1.50\n}";
    machine.put("/etc/docker/daemon.json", before);
    std::fs::set_permissions(machine.place("/etc/docker/daemon.json"), PermissionsExt::from_mode(0o600))
        .unwrap();
    let out = write(&machine, "docker");
    assert_eq!(
        machine.text("/etc/docker/daemon.json"),
        "{\n\t\"zeta\": {\"b\": 1, \"a\": [1,2]},\n\t\"registry-mirrors\": [\"http://mirror.example:5000\", \
         \"https://x.example\"],\n\t\"alpha\": 1.50,\n\t\"insecure-registries\": [\"mirror.example:5000\"]\n}"
    );
    assert_eq!(machine.mode("/etc/docker/daemon.json"), 0o600);
    let kept = backups(&machine, "/etc/docker/daemon.json");
    assert_eq!(kept.len(), 1);
    assert_eq!(machine.text(&kept[0]), before);
    assert_eq!(machine.mode(&kept[0]), 0o600);
    let difference = out.find("--- /etc/docker/daemon.json").expect("a difference");
    let done = out.find("wrote /etc/docker/daemon.json, as it was: ").expect("what was done");
    assert!(difference < done, "the difference comes first: {out}");
    assert!(out.contains("systemctl reload docker"), "{out}");
}

#[test]
fn a_second_mirror_is_merged_too_and_the_first_backup_stays() {
    let machine = Machine::new();
    machine.put("/etc/docker/daemon.json", "{}\n");
    write(&machine, "docker");
    write(&machine, "docker --mirror https://second.example");
    assert!(
        machine
            .text("/etc/docker/daemon.json")
            .contains("[\"https://second.example\", \"http://mirror.example:5000\"]")
    );
    assert_eq!(backups(&machine, "/etc/docker/daemon.json").len(), 2);
}

#[test]
fn a_link_stays_a_link() {
    let machine = Machine::new();
    machine.put("/srv/daemon.json", "{}");
    std::fs::create_dir_all(machine.place("/etc/docker")).unwrap();
    symlink("/srv/daemon.json", machine.place("/etc/docker/daemon.json")).unwrap();
    write(&machine, "docker");
    assert!(machine.place("/etc/docker/daemon.json").is_symlink());
    assert!(machine.text("/srv/daemon.json").contains("registry-mirrors"));
    assert_eq!(backups(&machine, "/srv/daemon.json").len(), 1);
}

#[test]
fn nothing_is_written_where_one_file_cannot_be_merged() {
    let bad_daemon = "{\n  \"registry-mirrors\": \"https://x\"\n}";
    for (path, text, arguments, wanted) in [
        (
            "/etc/docker/daemon.json",
            bad_daemon,
            "docker --registry docker.io,ghcr.io",
            "/etc/docker/daemon.json:2: \"registry-mirrors\": found \"https://x\", expected a list of strings",
        ),
        (
            "/etc/docker/daemon.json",
            "{} trailing",
            "docker",
            "/etc/docker/daemon.json:1:4: not JSON: trailing",
        ),
        (
            "/etc/containerd/certs.d/quay.io/hosts.toml",
            "server = \"x\"\n[host\n",
            "containerd",
            "/etc/containerd/certs.d/quay.io/hosts.toml:2: not TOML",
        ),
        (
            "/etc/containerd/config.toml",
            "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"docker.io\"]\nendpoint = [\"x\"]\n",
            "containerd",
            "/etc/containerd/config.toml:2: registry.mirrors is set, with which containerd does not take config_path",
        ),
        (
            "/etc/containerd/config.toml",
            "root = \"/x\"\n",
            "containerd",
            "found no version, which is version 1, expected 2 or 3",
        ),
        (
            "/etc/buildkit/buildkitd.toml",
            "registry = 1\n",
            "buildkit",
            "buildkitd.toml:1: registry: found something",
        ),
        (
            "/etc/containers/registries.conf",
            "[registries.search]\nregistries = []\n",
            "podman",
            "/etc/containers/registries.conf:1: [registries.*] is version 1",
        ),
        ("/etc/rancher/k3s/registries.yaml", "mirrors: {}\n", "k3s", "registries.yaml:1: mirrors: found {}"),
    ] {
        let machine = Machine::new();
        machine.put(path, text);
        let before = machine.everything();
        let err = machine.client(&format!("{arguments} --write")).wrong();
        assert!(err.contains(wanted), "{arguments}: {err}");
        assert_eq!(machine.everything(), before, "{arguments}");
    }
}

#[test]
fn a_flag_that_would_keep_dockerd_from_starting_is_found() {
    let machine = Machine::new();
    let unit = "[Service]\nExecStart=/usr/bin/dockerd -H fd:// --registry-mirror=https://x\n";
    machine.put("/etc/systemd/system/docker.service.d/mirror.conf", unit);
    let err = machine.client("docker --write").wrong();
    assert!(
        err.contains("docker.service.d/mirror.conf:2: dockerd is started with --registry-mirror=https://x"),
        "{err}"
    );
    assert!(!machine.place("/etc/docker/daemon.json").exists());
}

#[test]
fn hosts_toml_gets_the_mirror_before_those_that_are_there() {
    let machine = Machine::new();
    let path = "/etc/containerd/certs.d/docker.io/hosts.toml";
    machine.put(path, "# ours\nserver = \"https://registry-1.docker.io\"\n\n[host.\"https://x.example\"]\n  skip_verify = true # why\n");
    write(&machine, "containerd --registry docker.io");
    let text = machine.text(path);
    let (mirror, theirs) = (text.find("mirror.example").unwrap(), text.find("x.example").unwrap());
    assert!(
        mirror < theirs && text.starts_with("# ours\nserver") && text.contains("skip_verify = true # why"),
        "{text}"
    );
}

#[test]
fn config_toml_of_each_version_is_told_where_to_look() {
    for (before, after) in [
        (
            "version = 3\n",
            "[plugins.\"io.containerd.cri.v1.images\".registry]\n  config_path = \"/etc/containerd/certs.d\"\n",
        ),
        (
            "version = 2\n",
            "[plugins.\"io.containerd.grpc.v1.cri\".registry]\n  config_path = \"/etc/containerd/certs.d\"\n",
        ),
        (
            "version = 3\n[plugins.'io.containerd.cri.v1.images'.registry]\n  config_path = ''\n",
            "registry]\n  config_path = \"/etc/containerd/certs.d\"\n",
        ),
    ] {
        let machine = Machine::new();
        machine.put("/etc/containerd/config.toml", before);
        let out = write(&machine, "containerd");
        let text = machine.text("/etc/containerd/config.toml");
        assert!(text.contains(after) && text.starts_with(&before[..11]), "{text}");
        assert!(out.contains("systemctl restart containerd"), "{out}");
        assert_eq!(text.matches("config_path").count(), 1, "{text}");
    }
}

#[test]
fn the_folder_that_config_toml_names_is_the_one_that_is_filled() {
    let machine = Machine::new();
    let config = "version = 3\n[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = '/srv/certs:/etc/docker/certs.d'\n";
    machine.put("/etc/containerd/config.toml", config);
    let out = write(&machine, "containerd --registry docker.io");
    assert!(machine.text("/srv/certs/docker.io/hosts.toml").contains("mirror.example"));
    assert_eq!(machine.text("/etc/containerd/config.toml"), config);
    assert!(!out.contains("restart containerd"), "{out}");

    let machine = Machine::new();
    machine.put("/etc/containerd/config.toml", "disabled_plugins = [\"cri\"]\n");
    let out = write(&machine, "containerd --registry docker.io");
    assert_eq!(machine.text("/etc/containerd/config.toml"), "disabled_plugins = [\"cri\"]\n");
    assert!(out.contains("CRI plugin disabled"), "{out}");
}

#[test]
fn podmans_mirror_goes_into_the_entry_that_counts() {
    let machine = Machine::new();
    machine.put("/etc/containers/registries.conf", "unqualified-search-registries = [\"docker.io\"]\n");
    machine.put(
        "/etc/containers/registries.conf.d/000-shortnames.conf",
        "[aliases]\n\"alpine\" = \"docker.io/library/alpine\"\n",
    );
    let theirs = "[[registry]]\nlocation = \"quay.io\"\ninsecure = false # never\n";
    machine.put("/etc/containers/registries.conf.d/99-theirs.conf", theirs);
    machine.put(
        "/etc/containers/registries.conf.d/10-blocked.conf",
        "[[registry]]\nprefix = \"gcr.io\"\nblocked = true\n",
    );
    let out = write(&machine, "podman --registry docker.io,quay.io,gcr.io");
    let quay = machine.text("/etc/containers/registries.conf.d/99-theirs.conf");
    assert!(
        quay.starts_with(theirs)
            && quay.contains("location = \"mirror.example:5000/quay.io\"\ninsecure = true"),
        "{quay}"
    );
    let ours = machine.text("/etc/containers/registries.conf.d/50-stopover.conf");
    assert!(
        ours.contains("prefix = \"docker.io\"") && !ours.contains("quay.io") && !ours.contains("gcr.io"),
        "{ours}"
    );
    assert!(out.contains("gcr.io is blocked in /etc/containers/registries.conf.d/10-blocked.conf"), "{out}");
}

#[test]
fn buildkitd_toml_and_registries_yaml_keep_their_comments() {
    let machine = Machine::new();
    machine.put(
        "/etc/buildkit/buildkitd.toml",
        "debug = true # yes\n[registry.\"docker.io\"]\n  mirrors = [\"x.example\"] # old\n",
    );
    write(&machine, "buildkit --registry docker.io,ghcr.io");
    let text = machine.text("/etc/buildkit/buildkitd.toml");
    assert!(text.contains("mirrors = [\"mirror.example:5000/docker.io\", \"x.example\"] # old"), "{text}");
    assert!(text.contains("debug = true # yes") && text.contains("http = true"), "{text}");

    machine.put(
        "/etc/rancher/rke2/registries.yaml",
        "# a\nmirrors:\n  docker.io:\n    endpoint:\n      - https://x # b\n",
    );
    write(&machine, "k3s --registry docker.io");
    let text = machine.text("/etc/rancher/rke2/registries.yaml");
    assert_eq!(
        text,
        "# a\nmirrors:\n  docker.io:\n    endpoint:\n      - \"http://mirror.example:5000\"\n      - https://x # b\n"
    );
}

#[test]
fn a_certificate_is_put_where_the_client_looks_and_a_newer_one_takes_its_place() {
    let machine = Machine::new();
    let line = "docker --mirror https://m.example --ca ca.crt";
    machine.put_on_desk("ca.crt", CERTIFICATE);
    write(&machine, line);
    let path = "/etc/docker/certs.d/m.example/ca.crt";
    assert_eq!(machine.text(path), CERTIFICATE);
    assert_eq!(machine.mode(path), 0o644);
    machine.put_on_desk("ca.crt", &CERTIFICATE.replace("MAA=", "MQA="));
    write(&machine, line);
    assert!(machine.text(path).contains("MQA="));
    assert_eq!(backups(&machine, path).len(), 1);
}

#[test]
fn where_a_folder_is_in_the_way_nothing_is_half_written() {
    let machine = Machine::new();
    std::fs::create_dir_all(machine.place("/etc/docker/daemon.json")).unwrap();
    let err = machine.client("docker --write").wrong();
    assert!(err.contains("/etc/docker/daemon.json: cannot be read: "), "{err}");
    machine.put("/etc/containers", "a file\n");
    let err = machine.client("podman --write").wrong();
    assert!(err.contains("cannot be written"), "{err}");
    assert_eq!(machine.text("/etc/containers"), "a file\n");
}
