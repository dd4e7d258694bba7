//! Hosts that a client names and nobody configured: refused, or held to public addresses, and never reached inside.
//!
//! The mirror runs with a `/etc/hosts` and a resolver of its own, by a mount that it alone sees: so names lead where a
//! hostile name server would have them lead, and every lookup and every connection is counted. Mounting needs root.

use std::{
    fs,
    net::{Ipv4Addr, UdpSocket},
    path::PathBuf,
};

use hubsim::{Hub, Options};
use tempfile::TempDir;

use crate::{
    rig::{honey::Honey, proxy::ForwardProxy, socks::SocksProxy},
    support::{Mirror, MirrorOptions, Reply, until},
};

/// Stands below for the address of the traps, which [`own_address`] makes for each run.
const TRAP: &str = "127.66.0.1";

/// Names as a hostile name server would have them.
const NAMES: &[(&str, &str)] = &[
    ("loopback.evil.dev", TRAP),
    ("zero.evil.dev", "0.0.0.0"),
    ("ten.evil.dev", "10.0.0.1"),
    ("private.evil.dev", "172.16.0.1"),
    ("home.evil.dev", "192.168.1.1"),
    ("metadata.evil.dev", "169.254.169.254"),
    ("alibaba.evil.dev", "100.100.100.200"),
    ("azure.evil.dev", "168.63.129.16"),
    ("multicast.evil.dev", "224.0.0.1"),
    ("broadcast.evil.dev", "255.255.255.255"),
    ("six.evil.dev", "::1"),
    ("mapped.evil.dev", "::ffff:127.66.0.1"),
    ("linklocal.evil.dev", "fe80::1"),
    ("unique.evil.dev", "fd00:ec2::254"),
    ("sixtofour.evil.dev", "2002:7f42:1::1"),
    ("nat64.evil.dev", "64:ff9b::7f42:1"),
    ("teredo.evil.dev", "2001::1"),
    ("xn--lclhst-8cd2g.dev", TRAP),
];

/// What no name of a registry is, to be refused by its looks: without a lookup, with `route.open` and without.
const ODD: &[&str] = &[
    "127.0.0.1",
    "127.66.0.1",
    "127.66.0.1:443",
    "127.1",
    "127.0.0.1.",
    "0.0.0.0",
    "0",
    "2130706433",
    "0x7f000001",
    "0x7f.0.0.1",
    "0177.0.0.1",
    "017700000001",
    "10.0.0.1",
    "192.168.1.1",
    "172.16.0.1",
    "169.254.169.254",
    "100.100.100.200",
    "8.8.8.8",
    "8.8.8.8:443",
    "%5B::1%5D",
    "%5B::1%5D:443",
    "%5B::ffff:127.66.0.1%5D",
    "%5Bfe80::1%2525eth0%5D",
    "::1",
    "localhost",
    "localhost:2375",
    "LOCALHOST",
    "localhost.",
    "a.localhost",
    "printer",
    "printer.local",
    "metadata.google.internal",
    "metadata.google.internal.",
    "router.lan",
    "nas.home",
    "a.home.arpa",
    "1.0.0.127.in-addr.arpa",
    "x.corp",
    "x.intranet",
    "x.test",
    "x.invalid",
    "x.example",
    "x.onion",
    "loopback.evil.dev:443",
    "loopback.evil.dev:22",
    "loopback.evil.dev:0",
    "loopback.evil.dev:",
    "loopback.evil.dev.",
    "loopback.evil.dev..",
    ".loopback.evil.dev",
    "loopback..evil.dev",
    "user@loopback.evil.dev",
    "user:pw@loopback.evil.dev",
    "loopback.evil.dev/x",
    "loopback.evil.dev%2Fx",
    "loopback.evil.dev%3Fx",
    "loopback.evil.dev%23x",
    "loopback.evil.dev%40ghcr.io",
    "ghcr.io%40loopback.evil.dev",
    "loopback.evil.dev%5Cx",
    "https://loopback.evil.dev",
    "//loopback.evil.dev",
    "http:loopback.evil.dev",
    "loopback_evil.dev",
    "_dmarc.evil.dev",
    "-a.evil.dev",
    "a-.evil.dev",
    "*.evil.dev",
    "evil%252Edev",
    "loopback%252eevil.dev",
    "%6C%6Fcalhost",
    "loopback.evil.dev,ghcr.io",
    "loopback.evil.dev;x",
    "$(id).evil.dev",
    "..",
    ".",
    "evil",
    "ghcr.io:443",
    "ghcr.io.",
    "docker.io:5000",
    "docker.io%2F..%2Fx",
    "a.evil.1",
    "a.evil.0x1",
];

/// What is no query at all.
const BROKEN: &[&str] = &[
    "b%C3%BCcher.evil.dev",
    "loopback%E3%80%82evil.dev",
    "%E2%92%88.evil.dev",
    "evil.dev%00",
    "evil.dev%0d%0aHost:x",
    "%20evil.dev",
    "evil.dev%20",
    "evil.dev%zz",
    "evil.dev&ns=ghcr.io",
];

/// A mirror that sees names as above, with all that it could reach.
struct Net<'a> {
    hub: Hub,
    mirror: Mirror,
    traps: &'a Traps,
    _folder: TempDir,
}

/// What must not be reached: a registry and a resolver, both at their usual ports, so at an address of their own.
struct Traps {
    address: Ipv4Addr,
    trap: Honey,
    resolver: UdpSocket,
}

impl Traps {
    async fn set() -> Self {
        let address = own_address(std::process::id());
        let resolver = UdpSocket::bind((address, 53)).expect("nothing else listens there");
        resolver.set_nonblocking(true).unwrap();
        Self { address, trap: Honey::on(&format!("{address}:443")).await, resolver }
    }

    /// Returns `text` with the address of these traps where it has that of the tables.
    fn lead(&self, text: &str) -> String {
        text.replace(TRAP, &self.address.to_string())
    }
}

/// Returns an address of this machine, 127.64.0.0 or above, that no other run of the tests has: two may run at once.
fn own_address(process: u32) -> Ipv4Addr {
    // A process id has 22 bits at most.
    let [_, high, middle, low] = process.to_be_bytes();
    Ipv4Addr::new(127, 64 | (high & 63), middle, low)
}

async fn net(traps: &Traps, change: impl FnOnce(MirrorOptions) -> MirrorOptions) -> Net<'_> {
    let folder = TempDir::new().unwrap();
    let hosts: String =
        NAMES.iter().map(|(name, address)| format!("{} {name}\n", traps.lead(address))).collect();
    let write = |name: &str, text: &str| -> PathBuf {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let hosts = write("hosts", &format!("{hosts}127.0.0.1 localhost\n8.8.4.4 public.evil.dev\n"));
    let resolver_file =
        write("resolv", &format!("nameserver {}\noptions timeout:1 attempts:1\n", traps.address));
    let hub = Hub::start(Options::default()).await;
    let options = MirrorOptions::default().seeing_names(&hosts, &resolver_file);
    let mirror = Mirror::start_with(&hub, change(options)).await;
    Net { hub, mirror, traps, _folder: folder }
}

impl Net<'_> {
    fn lookups(&self) -> usize {
        let mut buffer = [0; 512];
        std::iter::from_fn(|| self.traps.resolver.recv(&mut buffer).ok()).count()
    }

    fn assert_silent(&self, when: &str) {
        assert_eq!(self.traps.trap.connections(), 0, "{when}: somebody connected");
        assert_eq!(self.lookups(), 0, "{when}: a name was looked up");
        assert_eq!(self.hub.counters().total(), 0, "{when}: the default registry was asked");
    }

    async fn by_ns(&self, ns: &str) -> Reply {
        self.mirror.get(&format!("/v2/org/app/manifests/latest?ns={ns}")).await
    }
}

/// The whole of it in one test, since the addresses of the traps are there once.
#[tokio::test]
async fn no_name_that_a_client_makes_up_is_connected_to() {
    let traps = Traps::set().await;
    for open in ["false", "true"] {
        let net = net(&traps, |options| options.env("STOPOVER_ROUTE__OPEN", open)).await;
        odd_names_are_refused_by_their_looks(&net, open).await;
        names_that_lead_inside_are_not_followed(&net, open).await;
        nothing_of_them_is_kept(&net).await;
    }
    a_proxy_cannot_be_led_inside(&traps).await;
    no_way_out_leads_inside(&traps).await;
    the_traps_work(&traps).await;
}

async fn odd_names_are_refused_by_their_looks(net: &Net<'_>, open: &str) {
    assert!(ODD.len() >= 60);
    let odd: Vec<String> = ODD.iter().map(|name| net.traps.lead(name)).collect();
    for ns in &odd {
        let reply = net.by_ns(ns).await;
        let refused = (reply.status, reply.error_code());
        assert_eq!(refused, (404, "NAME_UNKNOWN".to_owned()), "open={open} ns={ns}: {}", reply.text());
        assert_eq!(reply.header("oci-namespace"), "");
        net.assert_silent(ns);
    }
    for ns in BROKEN {
        let reply = net.by_ns(ns).await;
        assert_eq!((reply.status, reply.error_code().as_str()), (400, "UNSUPPORTED"), "open={open} ns={ns}");
        net.assert_silent(ns);
    }
    // The same before the API's own path: there is no such path.
    for prefix in odd.iter().filter(|odd| !odd.contains('/') && !odd.starts_with("%5B") && *odd != "..") {
        for path in
            [format!("/{prefix}/v2/org/app/manifests/latest"), format!("/{prefix}/org/app/manifests/latest")]
        {
            let reply = net.mirror.get(&path).await;
            assert!(matches!(reply.status, 400 | 404), "open={open} {path}: {}", reply.status);
            net.assert_silent(&path);
        }
    }
    // A `Host` chooses among those of the mirror's own, and opens nothing; this path needs no registry.
    for host in
        ["loopback.evil.dev", "127.66.0.1:443", "metadata.google.internal", "user@loopback.evil.dev", ""]
    {
        let host = net.traps.lead(host);
        let request = format!("GET /v2/ HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        crate::support::exchange(net.mirror.address(), request).await;
        net.assert_silent(&host);
    }
    // As a repository's first part such a name is a name, at the default registry and nowhere else.
    for first in
        ["127.66.0.1", "169.254.169.254", "localhost", "metadata.google.internal", "0x7f000001", "x.test"]
    {
        let first = net.traps.lead(first);
        net.mirror.get(&format!("/v2/{first}/app/manifests/latest")).await;
        assert_eq!((net.traps.trap.connections(), net.lookups()), (0, 0), "open={open} {first}");
    }
    assert!(
        net.hub
            .counters()
            .requests
            .iter()
            .all(|seen| seen.path.contains("token") || seen.path.starts_with("/v2/"))
    );
    net.hub.reset_counters();
}

async fn names_that_lead_inside_are_not_followed(net: &Net<'_>, open: &str) {
    for (name, address) in NAMES {
        let paths = [
            format!("/v2/org/app/manifests/latest?ns={name}"),
            format!("/{name}/v2/org/app/manifests/latest"),
            format!("/{name}/org/app/manifests/latest"),
        ];
        for (at, path) in paths.iter().enumerate() {
            let reply = net.mirror.get(path).await;
            let wanted = match (open, at) {
                ("true", _) => (502, "UNAVAILABLE"),
                (_, 0) => (404, "NAME_UNKNOWN"),
                _ => (404, "UNSUPPORTED"),
            };
            let refused = reply.error_code();
            assert_eq!((reply.status, refused.as_str()), wanted, "{path} to {address}: {}", reply.text());
            assert_eq!(
                reply.text().contains("no public address"),
                open == "true",
                "{path}: {}",
                reply.text()
            );
            net.assert_silent(path);
        }
        if open == "true" {
            let reply = net.mirror.get(&format!("/v2/{name}/org/app/manifests/latest")).await;
            // Its breaker is open after three.
            assert!(matches!(reply.status, 502 | 503), "{name} to {address}");
            net.assert_silent(name);
        }
    }
}

/// No folder, no file and no label has a name of theirs.
async fn nothing_of_them_is_kept(net: &Net<'_>) {
    let files = net.mirror.files_below("");
    for file in &files {
        let bytes = fs::read(file).unwrap_or_default();
        let holds = bytes.windows(8).any(|window| window == b"evil.dev");
        assert!(!holds && !file.to_string_lossy().contains("evil"), "{}", file.display());
    }
    let metrics = net.mirror.metrics().await;
    assert!(!metrics.contains("evil"), "{metrics}");
}

/// What shows that the traps would have told: a configured registry is looked up and connected to.
async fn the_traps_work(traps: &Traps) {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("stopover.toml");
    fs::write(&file, "[upstreams.\"loopback.evil.dev\"]\n[upstreams.\"unknown.evil.dev\"]\n").unwrap();
    let net = net(traps, |options| options.env("STOPOVER_CONFIG", file.to_str().unwrap())).await;
    net.by_ns("loopback.evil.dev").await;
    assert!(net.traps.trap.connections() > 0);
    let asking = net.by_ns("unknown.evil.dev");
    tokio::select! {
        _ = asking => assert!(net.lookups() > 0),
        () = until("the name is looked up", || (net.lookups() > 0).then_some(())) => {}
    }
}

/// A proxy resolves by itself, so it is given the address that was looked at, or nothing.
async fn a_proxy_cannot_be_led_inside(traps: &Traps) {
    let proxy = ForwardProxy::start().await;
    let url = proxy.url();
    let net = net(traps, |options| options.env("STOPOVER_ROUTE__OPEN", "true").env("HTTPS_PROXY", url)).await;
    for (name, _) in NAMES {
        assert_eq!(net.by_ns(name).await.status, 502, "{name}");
    }
    assert_eq!(proxy.heads(), Vec::<String>::new());
    let asking = net.by_ns("public.evil.dev");
    let head = tokio::select! {
        reply = asking => panic!("the answer came first: {}", reply.text()),
        head = until("the proxy is asked", || proxy.heads().first().cloned()) => head,
    };
    assert!(head.starts_with("CONNECT 8.8.4.4:443 HTTP/1.1\r\n"), "{head}");
    assert!(!head.contains("evil"), "{head}");
}

/// The same for each kind of way out that a configuration may name, all at once; the last of them lets a public one out.
async fn no_way_out_leads_inside(traps: &Traps) {
    let (http, socks) = (ForwardProxy::start().await, SocksProxy::start("clerk:pw").await);
    let ways = ["127.0.0.2".to_owned(), "::1".to_owned(), http.url(), socks.url("socks5h")];
    for way in ways {
        let kind = if way.contains("://") { "PROXY" } else { "ADDRESS" };
        let key = format!("STOPOVER_EGRESSES__OFFICE__{kind}");
        let net = net(traps, |options| options.env("STOPOVER_ROUTE__OPEN", "true").env(&key, &way)).await;
        for (name, _) in NAMES {
            assert_eq!(net.by_ns(name).await.status, 502, "{name} by {way}");
            net.assert_silent(&format!("{name} by {way}"));
        }
        assert_eq!((http.heads(), socks.asked()), (vec![], vec![]), "by {way}");
        if way.starts_with("socks") {
            assert_eq!(net.by_ns("public.evil.dev").await.status, 503);
            assert_eq!(socks.asked().first().map(String::as_str), Some("8.8.4.4:443"));
        }
    }
}
