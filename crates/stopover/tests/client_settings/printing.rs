//! What is printed, and that printing changes nothing.

use crate::machine::{CERTIFICATE, Machine};

#[test]
fn printing_changes_nothing() {
    let machine = Machine::new();
    for client in ["docker", "containerd", "podman", "crio", "buildkit", "k3s", "kaniko", "docker-desktop"] {
        let out = machine.client_in(client, &[("HOME", "/home/ann")]).right();
        assert!(out.contains("mirror.example:5000") && out.contains("=== to know ==="), "{client}: {out}");
    }
    assert_eq!(machine.everything().into_keys().collect::<Vec<_>>(), ["/"]);
}

#[test]
fn what_is_there_is_shown_with_what_would_change() {
    let machine = Machine::new();
    machine.put("/etc/docker/daemon.json", "{\n  \"debug\": true\n}\n");
    let out = machine.client("docker").right();
    assert!(out.contains("=== /etc/docker/daemon.json is there; --write would change ===\n"), "{out}");
    assert!(out.contains("-  \"debug\": true\n+  \"debug\": true,\n+  \"registry-mirrors\": ["), "{out}");
    machine.put("/etc/docker/daemon.json", "{\n  \"debug\": true,\n}\n");
    let out = machine.client("docker").right();
    assert!(out.contains("/etc/docker/daemon.json:3:1: not JSON: trailing comma"), "{out}");
    assert_eq!(machine.text("/etc/docker/daemon.json"), "{\n  \"debug\": true,\n}\n");
}

#[test]
fn the_mirror_is_this_machine_where_none_is_named() {
    let machine = Machine::new();
    machine.put_on_desk("stopover.toml", "[http]\naddr = \"127.0.0.1:5555\"\n\n[upstreams.\"r.example\"]\n");
    let out = machine.run(&["podman"], &[]).right();
    assert!(out.contains("location = \"127.0.0.1:5555/r.example\""), "{out}");
    let out = machine.run(&["docker"], &[("STOPOVER_HTTP__ADDR", "[::]:5001")]).right();
    assert!(out.contains(":5001\"]"), "{out}");

    machine.put_on_desk("stopover.toml", "[http]\nadr = 1\n");
    let err = machine.run(&["docker"], &[]).wrong();
    assert!(err.contains("unknown key http.adr") && err.contains("--mirror names the mirror"), "{err}");
    machine.client("docker").right();
}

#[test]
fn a_registry_that_is_the_default_in_place_of_docker_hub_moves_that_into_the_path() {
    let machine = Machine::new();
    machine.put_on_desk("stopover.toml", "[upstream]\nregistry = \"ghcr.io\"\nurl = \"https://ghcr.io\"\n");
    let out = machine.client("docker").right();
    assert!(out.contains("\"registry-mirrors\": [\"http://mirror.example:5000/docker.io\"]"), "{out}");
}

#[test]
fn a_mirror_on_loopback_needs_no_leave_from_docker_to_speak_http() {
    let machine = Machine::new();
    let out = machine.client("docker --mirror http://127.0.0.1:5000").right();
    assert!(!out.contains("insecure-registries"), "{out}");
    let out = machine.client("podman --mirror http://127.0.0.1:5000").right();
    assert!(out.contains("insecure = true"), "podman has no such exception: {out}");
}

#[test]
fn registries_are_chosen_by_name() {
    let machine = Machine::new();
    let out = machine.client("podman --registry index.docker.io,GHCR.io --registry r.example:5001").right();
    let prefixes: Vec<&str> = out.lines().filter(|line| line.starts_with("prefix")).collect();
    assert_eq!(prefixes, ["prefix = \"docker.io\"", "prefix = \"ghcr.io\"", "prefix = \"r.example:5001\""]);
    let out = machine.client("containerd --registry *").right();
    assert!(out.contains("certs.d/_default/hosts.toml") && !out.contains("server ="), "{out}");
}

#[test]
fn each_client_gets_the_certificate_where_it_looks_for_it() {
    let machine = Machine::new();
    machine.put_on_desk("ca.crt", CERTIFICATE);
    for (client, wanted) in [
        ("docker", "=== /etc/docker/certs.d/m.example:5443/ca.crt ===\n(a copy of ca.crt)"),
        ("containerd", "  ca = \"/etc/containerd/certs.d/m.example:5443/ca.crt\""),
        ("podman", "=== /etc/containers/certs.d/m.example:5443/ca.crt ==="),
        ("crio", "=== /etc/containers/certs.d/m.example:5443/ca.crt ==="),
        ("buildkit", "[registry.\"m.example:5443\"]\n  ca = [\"/etc/buildkit/stopover-ca.crt\"]"),
        ("k3s", "  \"m.example:5443\":\n    tls:\n      ca_file: \"/etc/rancher/k3s/stopover-ca.crt\""),
        ("kaniko", "--registry-certificate=m.example:5443=/kaniko/stopover-ca.crt"),
        ("docker-desktop", "=== /home/ann/.docker/certs.d/m.example:5443/ca.crt ==="),
    ] {
        let line = format!("{client} --mirror https://m.example:5443 --ca ca.crt");
        let out = machine.client_in(&line, &[("HOME", "/home/ann")]).right();
        assert!(out.contains(wanted), "{client}: {out}");
        assert!(!out.contains("insecure = true") && !out.contains("http = true"), "{client}: {out}");
    }
}

#[test]
fn the_development_authority_of_the_mirrors_own_machine_is_made_once() {
    let machine = Machine::new();
    let err = machine.client("docker --mirror https://m.example --ca").wrong();
    assert!(err.contains("stopover dev-certificate --host m.example"), "{err}");
    assert!(!machine.is_on_desk("stopover-tls"));
    machine.run(&["docker", "--ca", "--write"], &[("STOPOVER_HTTP__ADDR", "127.0.0.1:5443")]).right();
    let first = machine.text("/etc/docker/certs.d/127.0.0.1:5443/ca.crt");
    assert!(first.contains("BEGIN CERTIFICATE") && machine.is_on_desk("stopover-tls/tls.key"), "{first}");
    machine.run(&["podman", "--ca", "--write"], &[("STOPOVER_HTTP__ADDR", "127.0.0.1:5443")]).right();
    assert_eq!(machine.text("/etc/containers/certs.d/127.0.0.1:5443/ca.crt"), first);
}

#[test]
fn the_authority_of_the_mirrors_certificate_stands_beside_it() {
    let machine = Machine::new();
    let configured = |folder: &str| {
        let file = |name: &str| format!("{folder}/{name}");
        [
            ("STOPOVER_TLS__ADDR", "127.0.0.1:5443".to_owned()),
            ("STOPOVER_TLS__CERTIFICATE", file("tls.crt")),
            ("STOPOVER_TLS__KEY", file("tls.key")),
        ]
    };
    let run = |words: &[&str], folder: &str| {
        let variables = configured(folder);
        let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        machine.run(words, &variables)
    };
    let err = run(&["docker", "--ca"], "elsewhere").wrong();
    assert!(err.contains("there is no elsewhere/ca.crt beside the mirror's certificate"), "{err}");
    assert!(!machine.is_on_desk("stopover-tls"), "no other authority is made");
    machine.run(&["docker", "--ca"], &[("STOPOVER_HTTP__ADDR", "127.0.0.1:5443")]).right();
    run(&["docker", "--ca", "--write"], "stopover-tls").right();
    let installed = machine.text("/etc/docker/certs.d/127.0.0.1:5443/ca.crt");
    assert!(installed.contains("BEGIN CERTIFICATE"), "{installed}");
}

/// For clients that Debian does not have: what is printed is read as they read it.
#[test]
fn what_is_printed_is_what_the_client_reads() {
    let machine = Machine::new();
    let read = |client: &str| -> toml::Table {
        let out = machine.client(&format!("{client} --registry docker.io,ghcr.io")).right();
        let (_, text) = out.split_once(" ===\n").unwrap();
        text.split_once("===").unwrap().0.parse().unwrap()
    };
    let buildkit = &read("buildkit")["registry"];
    assert_eq!(buildkit["ghcr.io"]["mirrors"][0].as_str(), Some("mirror.example:5000/ghcr.io"));
    assert_eq!(buildkit["mirror.example:5000"]["http"].as_bool(), Some(true));
    let crio = &read("crio")["registry"][1];
    assert_eq!(crio["prefix"].as_str(), Some("ghcr.io"));
    assert_eq!(crio["mirror"][0]["location"].as_str(), Some("mirror.example:5000/ghcr.io"));
    assert_eq!(crio["mirror"][0]["insecure"].as_bool(), Some(true));

    // An endpoint with a path is the root of the API to k3s.
    let out = machine.client("k3s --mirror https://m.example/prefix --registry docker.io").right();
    assert!(out.contains("    endpoint:\n      - \"https://m.example/prefix/v2\"\n"), "{out}");
}

/// kaniko #3313.
#[test]
fn kaniko_gets_no_map_to_a_path_that_begins_with_a_dotted_name() {
    let machine = Machine::new();
    let maps = |arguments: &str| -> Vec<String> {
        let out = machine.client(&format!("kaniko --registry docker.io,ghcr.io {arguments}")).right();
        out.lines().filter(|line| line.starts_with("--registry-map")).map(str::to_owned).collect()
    };
    assert_eq!(maps("--mirror https://m.example"), ["--registry-map=index.docker.io=m.example"]);
    assert_eq!(
        maps("--mirror https://m.example/p"),
        [
            "--registry-map=index.docker.io=m.example/p/docker.io",
            "--registry-map=ghcr.io=m.example/p/ghcr.io"
        ]
    );
    let err = machine.client("kaniko --registry ghcr.io").wrong();
    assert!(err.contains("--registry-map=ghcr.io=mirror.example:5000/ghcr."), "{err}");
}

#[test]
fn bad_arguments_are_explained() {
    let machine = Machine::new();
    machine.put_on_desk("key.pem", "-----BEGIN PRIVATE KEY-----\n");
    machine.put_on_desk("text.pem", "hello\n");
    for (arguments, wanted) in [
        ("docker --mirror mirror.example:5000", "expected a URL such as http://mirror.example:5000"),
        ("docker --registry docker", "found \"docker\", expected a registry's name such as ghcr.io"),
        ("podman --registry *", "registries.conf has no entry for all other registries"),
        ("docker-desktop --registry ghcr.io", "Docker Desktop mirrors docker.io alone"),
        ("docker --ca text.pem", "a certificate is for a mirror over https"),
        ("docker --mirror https://m --ca none.pem", "none.pem: cannot be read"),
        ("docker --mirror https://m --ca text.pem", "expected a certificate in PEM"),
        ("docker --mirror https://m --ca key.pem", "holds a private key"),
        ("kaniko --write", "kaniko has no file to write"),
    ] {
        let err = machine.client_in(arguments, &[("HOME", "/home/ann")]);
        assert!(err.err.contains(wanted) && err.code == Some(1), "{arguments}: {err:?}");
    }
    let unknown = machine.client("dockerd");
    assert_eq!(unknown.code, Some(2));
    assert!(unknown.err.contains("docker, containerd, podman, crio, buildkit, k3s, kaniko, docker-desktop"));
    assert_eq!(machine.everything().len(), 1, "nothing was written");
}

#[test]
fn a_proxy_that_is_in_the_way_is_named_with_the_file_to_edit() {
    let machine = Machine::new();
    let drop_in = "/etc/systemd/system/containerd.service.d/proxy.conf";
    machine.put(drop_in, "[Service]\nEnvironment=HTTP_PROXY=http://p:3128 NO_PROXY=localhost\n");
    let out = machine.client("containerd").right().replace("\n  ", " ");
    assert!(out.contains(&format!("add mirror.example to NO_PROXY in {drop_in}")), "{out}");
    machine.put(drop_in, "[Service]\nEnvironment=HTTP_PROXY=http://p:3128 NO_PROXY=mirror.example\n");
    assert!(!machine.client("containerd").right().contains("Warning"));
}
