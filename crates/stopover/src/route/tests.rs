//! Every way to name a registry, and every name that goes nowhere.

use std::{sync::Mutex, time::Duration};

use bytes::Bytes;
use oci::{Descriptor, Digest, Endpoint, Manifest, Page, Reference, Tag, Target};

use super::*;
use crate::source::{Answer, BlobStream, Purpose, Resolved, SourceError, SourceErrorKind, TagPage, Told};

/// A source that is never asked.
struct Silent;

fn silent<T: Send + 'static>() -> Answer<'static, T> {
    let error = SourceError::new(Arc::from("test"), SourceErrorKind::Unsupported, "nobody asks");
    Box::pin(std::future::ready(Err(error)))
}

impl Source for Silent {
    fn registry(&self) -> &str {
        "test"
    }
    fn resolve<'a>(&'a self, _: &'a RepositoryName, _: &'a Tag) -> Answer<'a, Told<Resolved>> {
        silent()
    }
    fn manifest<'a>(
        &'a self,
        _: &'a RepositoryName,
        _: &'a Reference,
        _: Purpose,
    ) -> Answer<'a, Told<Manifest>> {
        silent()
    }
    fn has_manifest<'a>(&'a self, _: &'a RepositoryName, _: &'a Digest) -> Answer<'a, Told<Descriptor>> {
        silent()
    }
    fn blob_size<'a>(&'a self, _: &'a RepositoryName, _: &'a Digest) -> Answer<'a, Told<Option<u64>>> {
        silent()
    }
    fn blob<'a>(
        &'a self,
        _: &'a RepositoryName,
        _: &'a Digest,
        _: u64,
        _: Option<u64>,
    ) -> Answer<'a, BlobStream> {
        silent()
    }
    fn tags<'a>(&'a self, _: &'a RepositoryName, _: &'a Page) -> Answer<'a, TagPage> {
        silent()
    }
    fn referrers<'a>(&'a self, _: &'a RepositoryName, _: &'a Digest) -> Answer<'a, Bytes> {
        silent()
    }
}

fn mirrored(registry: &str, aliases: &[&str]) -> Mirrored {
    Mirrored {
        registry: Arc::from(registry),
        aliases: aliases.iter().map(|&alias| alias.to_owned()).collect(),
        hosts: Vec::new(),
        library: registry == "docker.io",
        source: Arc::new(Silent),
    }
}

fn with_hosts(hosts: &[&str], mirrored: Mirrored) -> Mirrored {
    Mirrored { hosts: hosts.iter().map(|&host| host.to_owned()).collect(), ..mirrored }
}

const FRESHNESS: Freshness = Freshness {
    tag_ttl: Duration::ZERO,
    stale_if_error: Duration::ZERO,
    stale_if_denied: Duration::ZERO,
    check_deadline: Duration::ZERO,
    absent_ttl: Duration::ZERO,
};

fn registries() -> Registries {
    let hub = mirrored("docker.io", &["index.docker.io", "registry-1.docker.io", "hub"]);
    let github = with_hosts(&["ghcr.mirror.example"], mirrored("ghcr.io", &["gh", "old.ghcr.example"]));
    let is_google = |name: &str| name.ends_with("-docker.pkg.dev");
    Registries {
        default: with_hosts(&["hub.mirror.example"], hub),
        others: vec![github, mirrored("lab.example:5000", &["lab"]), mirrored("registry", &[])],
        on_demand: vec![OnDemand::new(is_google, |name| Some(mirrored(name, &[])), 3)],
        prefix: Some("mirrors/oci".to_owned()),
    }
}

fn route() -> Route {
    Route::new(registries(), FRESHNESS)
}

fn open_route() -> Route {
    let mut registries = registries();
    registries.on_demand.push(OnDemand::new(is_public_host, |name| Some(mirrored(name, &[])), 3));
    Route::new(registries, FRESHNESS)
}

/// Returns registry, repository and name in the tree of what a request is about.
fn asked_at(
    route: &Route,
    host: Option<&str>,
    path: &str,
    query: Option<&str>,
) -> Result<[String; 3], String> {
    let (arrival, path) = route.arrive(host, path);
    let target = Target::parse("GET", &path, query).map_err(|error| error.to_string())?;
    let Endpoint::Manifest { name, .. } = &target.endpoint else {
        return Err(format!("{:?}", target.endpoint));
    };
    let origin = route.origin(&arrival, target.ns.as_deref(), name).map_err(|error| error.to_string())?;
    Ok([origin.registry.to_string(), origin.repository.to_string(), origin.tree_name.to_string()])
}

fn asked(route: &Route, path: &str, query: Option<&str>) -> Result<[String; 3], String> {
    asked_at(route, None, path, query)
}

const NGINX: [&str; 3] = ["docker.io", "library/nginx", "library/nginx"];
const APP: [&str; 3] = ["docker.io", "org/app", "org/app"];
const GITHUB: [&str; 3] = ["ghcr.io", "org/app", "ghcr.io/org/app"];
const GOOGLE: [&str; 3] = ["us-docker.pkg.dev", "p/r/app", "us-docker.pkg.dev/p/r/app"];
const LAB: [&str; 3] = ["lab.example:5000", "org/app", "lab.example_5000/org/app"];

/// What stands before `/manifests/latest`, the query, and where it leads.
const WAYS: &[(&str, Option<&str>, [&str; 3])] = &[
    // Nothing is said.
    ("/v2/nginx", None, NGINX),
    ("/v2/library/nginx", None, NGINX),
    ("/v2/org/app", None, APP),
    ("/v2/hub", None, ["docker.io", "library/hub", "library/hub"]),
    // By ns, under all of a registry's names.
    ("/v2/library/nginx", Some("ns=docker.io"), NGINX),
    ("/v2/nginx", Some("ns=docker.io"), NGINX),
    ("/v2/library/nginx", Some("ns=registry-1.docker.io"), NGINX),
    ("/v2/library/nginx", Some("ns=index.docker.io"), NGINX),
    ("/v2/library/nginx", Some("ns=DOCKER.IO"), NGINX),
    ("/v2/org/app", Some("ns=ghcr.io"), GITHUB),
    ("/v2/org/app", Some("ns=old.ghcr.example"), GITHUB),
    ("/v2/org/app", Some("ns=ghcr.mirror.example"), GITHUB),
    ("/v2/org/app", Some("ns=ghcr.mirror.example:5000"), GITHUB),
    ("/v2/org/app", Some("ns=lab.example:5000"), LAB),
    ("/v2/p/r/app", Some("ns=us-docker.pkg.dev"), GOOGLE),
    // By the first part of the name, as podman has it; by an alias, as images behind Harbor are named.
    ("/v2/docker.io/library/nginx", None, NGINX),
    ("/v2/docker.io/nginx", None, NGINX),
    ("/v2/hub/library/nginx", None, NGINX),
    ("/v2/hub/nginx", None, NGINX),
    ("/v2/hub/org/app", None, APP),
    ("/v2/ghcr.io/org/app", None, GITHUB),
    ("/v2/gh/org/app", None, GITHUB),
    ("/v2/lab/org/app", None, LAB),
    ("/v2/registry/org/app", None, ["registry", "org/app", "registry/org/app"]),
    ("/v2/us-docker.pkg.dev/p/r/app", None, GOOGLE),
    // The same with ns: BuildKit, and k3s with a rewrite.
    ("/v2/docker.io/library/nginx", Some("ns=docker.io"), NGINX),
    ("/v2/hub/library/nginx", Some("ns=docker.io"), NGINX),
    ("/v2/ghcr.io/org/app", Some("ns=ghcr.io"), GITHUB),
    ("/v2/gh/org/app", Some("ns=ghcr.io"), GITHUB),
    ("/v2/us-docker.pkg.dev/p/r/app", Some("ns=us-docker.pkg.dev"), GOOGLE),
    // The path of a mirror's URL before /v2/, as docker and containerd have it.
    ("/docker.io/v2/library/nginx", None, NGINX),
    ("/docker.io/v2/nginx", None, NGINX),
    ("/hub/v2/library/nginx", None, NGINX),
    ("/ghcr.io/v2/org/app", None, GITHUB),
    ("/ghcr.io/v2/org/app", Some("ns=ghcr.io"), GITHUB),
    ("/gh/v2/org/app", Some("ns=ghcr.io"), GITHUB),
    ("/us-docker.pkg.dev/v2/p/r/app", None, GOOGLE),
    // The same with override_path: in the place of /v2/.
    ("/docker.io/library/nginx", None, NGINX),
    ("/hub/nginx", Some("ns=docker.io"), NGINX),
    ("/ghcr.io/org/app", None, GITHUB),
    ("/gh/org/app", Some("ns=ghcr.io"), GITHUB),
    ("/us-docker.pkg.dev/p/r/app", None, GOOGLE),
    ("/v2/gh/org/app", Some("ns=ghcr.io"), GITHUB),
    // http.prefix says nothing, so what follows it is read as if it were not there.
    ("/mirrors/oci/v2/nginx", None, NGINX),
    ("/mirrors/oci/v2/org/app", Some("ns=ghcr.io"), GITHUB),
    ("/mirrors/oci/v2/ghcr.io/org/app", None, GITHUB),
    ("/mirrors/oci/nginx", None, NGINX),
    ("/mirrors/oci/org/app", Some("ns=ghcr.io"), GITHUB),
    ("/mirrors/oci/ghcr.io/org/app", None, GITHUB),
    ("/mirrors/oci/ghcr.io/v2/org/app", None, GITHUB),
    ("/v2/mirrors/oci/nginx", None, NGINX),
    ("/v2/mirrors/oci/library/nginx", Some("ns=docker.io"), NGINX),
    ("/v2/mirrors/oci/ghcr.io/org/app", None, GITHUB),
    ("/v2/mirrors/oci/ghcr.io/org/app", Some("ns=ghcr.io"), GITHUB),
    ("/mirrors/oci/v2/mirrors/oci/app", None, ["docker.io", "mirrors/oci/app", "mirrors/oci/app"]),
    // What says two things: ns is the registry of the image's own name, so it decides.
    ("/ghcr.io/v2/org/app", Some("ns=docker.io"), APP),
    ("/v2/gh/app", Some("ns=docker.io"), ["docker.io", "gh/app", "gh/app"]),
    // A repository that begins like a registry is not that registry's, and does not stand where its do.
    (
        "/v2/ghcr.io/org/app",
        Some("ns=docker.io"),
        ["docker.io", "ghcr.io/org/app", "docker.io/ghcr.io/org/app"],
    ),
    ("/docker.io/v2/docker.io/app", None, ["docker.io", "docker.io/app", "docker.io/docker.io/app"]),
    (
        "/hub/v2/lab.example_5000/app",
        None,
        ["docker.io", "lab.example_5000/app", "docker.io/lab.example_5000/app"],
    ),
    (
        "/hub/v2/x-docker.pkg.dev/app",
        None,
        ["docker.io", "x-docker.pkg.dev/app", "docker.io/x-docker.pkg.dev/app"],
    ),
    ("/hub/v2/hub/app", None, ["docker.io", "hub/app", "hub/app"]),
    // Nobody of this name is known, so it is a name.
    ("/v2/evil.example/org/app", None, ["docker.io", "evil.example/org/app", "evil.example/org/app"]),
    ("/v2/org/v2/app", None, ["docker.io", "org/v2/app", "org/v2/app"]),
    ("/gh/org/v2/app", None, ["ghcr.io", "org/v2/app", "ghcr.io/org/v2/app"]),
];

#[test]
fn every_way_to_name_a_registry_leads_to_the_same_repository() {
    let route = route();
    for (path, query, expected) in WAYS {
        let path = format!("{path}/manifests/latest");
        assert_eq!(asked(&route, &path, *query), Ok(expected.map(str::to_owned)), "{path}?{query:?}");
    }
}

#[test]
fn a_host_of_the_mirrors_own_is_one_registry() {
    let route = route();
    for (host, path, query, expected) in [
        ("ghcr.mirror.example", "/v2/org/app", None, GITHUB),
        ("ghcr.mirror.example:5000", "/v2/org/app", None, GITHUB),
        ("GHCR.Mirror.Example:443", "/v2/org/app", None, GITHUB),
        ("ghcr.mirror.example", "/v2/org/app", Some("ns=ghcr.io"), GITHUB),
        // What is said more closely counts more.
        ("ghcr.mirror.example", "/v2/org/app", Some("ns=docker.io"), APP),
        ("ghcr.mirror.example", "/hub/v2/nginx", None, NGINX),
        // All of the path is the repository's name: no alias hides anything.
        ("ghcr.mirror.example", "/v2/hub/app", None, ["ghcr.io", "hub/app", "ghcr.io/hub/app"]),
        ("hub.mirror.example", "/v2/gh/app", None, ["docker.io", "gh/app", "gh/app"]),
        ("hub.mirror.example", "/v2/nginx", None, NGINX),
        ("ghcr.mirror.example", "/mirrors/oci/v2/org/app", None, GITHUB),
        ("ghcr.mirror.example", "/v2/mirrors/oci/org/app", None, GITHUB),
        // Not one of ours, whatever it is.
        ("mirror.example", "/v2/nginx", None, NGINX),
        ("ghcr.io", "/v2/nginx", None, NGINX),
        ("evil.ghcr.mirror.example", "/v2/nginx", None, NGINX),
        ("ghcr.mirror.example.", "/v2/nginx", None, NGINX),
        ("user@ghcr.mirror.example", "/v2/nginx", None, NGINX),
        ("", "/v2/nginx", None, NGINX),
        (":", "/v2/nginx", None, NGINX),
    ] {
        let path = format!("{path}/manifests/latest");
        let found = asked_at(&route, Some(host), &path, query);
        assert_eq!(found, Ok(expected.map(str::to_owned)), "{host} {path}?{query:?}");
    }
}

#[test]
fn a_ping_is_answered_below_every_prefix_and_nothing_else_is_there() {
    let route = open_route();
    for path in [
        "/v2/",
        "/v2",
        "/ghcr.io/v2/",
        "/gh/v2",
        "/gh",
        "/gh/",
        "/mirrors/oci/v2/",
        "/mirrors/oci/",
        "/mirrors/oci",
        "/mirrors/oci/gh/v2/",
        "/quay.io/v2/",
        "/quay.io/v2",
    ] {
        assert_eq!(asked(&route, path, None), Err("Version".to_owned()), "{path}");
    }
    for path in [
        "/mirrors/v2/",
        "/mirrors",
        "/mirrors/ocix/v2/",
        "/other/v2/",
        "/GHCR.IO/v2/",
        "/favicon.ico",
        "/robots.txt",
        "/a.php/b",
        "/gh/metrics",
        "/10.0.0.1/v2/",
        "/localhost/v2/",
        "/ghcr.io:443/v2/",
        "/ghcr.io@x/v2/",
    ] {
        let found = asked(&route, path, None);
        assert!(found.as_ref().is_err_and(|error| error.contains("no such endpoint")), "{path}: {found:?}");
    }
    for path in [
        "/gh//v2/",
        "/gh/../v2/a/manifests/b",
        "/gh/./x/manifests/b",
        "//v2/",
        "/ghcr.io%2fv2/",
        "/gh/%2e%2e/x/manifests/b",
    ] {
        assert!(asked(&route, path, None).is_err_and(|error| error.starts_with("path")), "{path}");
    }
}

const NOWHERE: &[&str] = &[
    "quay.io",
    "127.0.0.1",
    "169.254.169.254",
    "localhost",
    "localhost:2375",
    "ghcr.io.evil.example",
    "evil-ghcr.io",
    "user@ghcr.io",
    "ghcr.io:443",
    "ghcr.io/x",
    "ghcr.io.",
    ".ghcr.io",
    "*",
    "-docker.pkg",
    "x.y",
    "[::1]",
    "0x7f000001",
    "2130706433",
    "http://ghcr.io",
];

#[test]
fn a_name_that_no_registry_answers_for_goes_nowhere() {
    for (route, lets_in) in [(route(), &[][..]), (open_route(), &["quay.io", "evil-ghcr.io"][..])] {
        for ns in NOWHERE {
            let found = asked(&route, "/v2/org/app/manifests/latest", Some(&format!("ns={ns}")));
            let is_refused = found.as_ref().is_err_and(|error| error.contains("is not mirrored here"));
            assert_eq!(is_refused, !lets_in.contains(ns), "{ns}: {found:?}");
            assert_eq!(route.heeds(ns), !is_refused, "{ns}");
        }
    }
}

#[test]
fn where_any_public_host_is_let_in_every_way_leads_to_it() {
    let route = open_route();
    let quay = ["quay.io", "org/app", "quay.io/org/app"].map(str::to_owned);
    for (path, query) in [
        ("/v2/org/app", Some("ns=quay.io")),
        ("/v2/quay.io/org/app", None),
        ("/v2/quay.io/org/app", Some("ns=quay.io")),
        ("/quay.io/v2/org/app", None),
        ("/quay.io/org/app", None),
        ("/mirrors/oci/quay.io/v2/org/app", None),
    ] {
        let path = format!("{path}/manifests/latest");
        assert_eq!(asked(&route, &path, query), Ok(quay.clone()), "{path}?{query:?}");
    }
}

/// A name costs nothing to send, so a flood of them must not lock out who comes after.
#[test]
fn registries_made_on_demand_are_bounded_and_the_oldest_makes_room() {
    let made = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&made);
    let make = move |name: &str| {
        log.lock().unwrap().push(name.to_owned());
        Some(mirrored(name, &[]))
    };
    let route = Route::new(
        Registries { on_demand: vec![OnDemand::new(is_public_host, make, 3)], ..registries() },
        FRESHNESS,
    );
    for name in ["a.io", "b.io", "c.io", "a.io", "d.io", "a.io", "b.io"] {
        let found = asked(&route, &format!("/v2/{name}x/y/manifests/latest"), Some(&format!("ns={name}")));
        assert!(found.is_ok(), "{name}: {found:?}");
    }
    assert_eq!(*made.lock().unwrap(), ["a.io", "b.io", "c.io", "d.io", "b.io"], "a was named after b");
}

#[test]
fn every_registry_is_listed_once_the_default_first_and_those_made_on_demand_among_them() {
    let route = route();
    let listed = || route.lanes().into_iter().map(|(registry, _)| registry.to_string()).collect::<Vec<_>>();
    assert_eq!(listed(), ["docker.io", "ghcr.io", "lab.example:5000", "registry"]);
    asked(&route, "/v2/org/app/manifests/latest", Some("ns=eu-docker.pkg.dev")).unwrap();
    assert_eq!(listed(), ["docker.io", "eu-docker.pkg.dev", "ghcr.io", "lab.example:5000", "registry"]);
}
