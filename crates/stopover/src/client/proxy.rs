//! Proxies that stand between a client and the mirror: where one is set, and whether the mirror is exempt from it.
//!
//! It reads what a client's daemon is started with: systemd's unit files and what they add to, the files of variables
//! that those name, daemon.json. It promises to repeat no proxy's URL, which may hold a password.

use std::{collections::BTreeMap, net::IpAddr};

use super::{machine::Machine, mirror::Mirror};

/// Where systemd looks for units; later ones count more.
const UNIT_FOLDERS: [&str; 4] =
    ["/lib/systemd/system", "/usr/lib/systemd/system", "/run/systemd/system", "/etc/systemd/system"];

/// A variable, and the file that sets it.
#[derive(Clone, Debug)]
struct Setting {
    value: String,
    place: String,
}

type Settings = BTreeMap<String, Setting>;

/// Returns a warning for each place where a proxy is set that the client would ask for the mirror.
pub(super) fn warnings(
    machine: &Machine,
    units: &[&str],
    daemon_json: Option<&str>,
    mirror: &Mirror,
) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut check = |settings: &Settings, add: &dyn Fn(&Setting) -> String| {
        let Some(proxy) = effective(settings, if mirror.is_plain() { "http_proxy" } else { "https_proxy" })
        else {
            return;
        };
        let exempt = effective(settings, "no_proxy");
        if mirror.is_loopback() || exempt.is_some_and(|exempt| covers(&exempt.value, mirror)) {
            return;
        }
        let place = exempt.unwrap_or(proxy);
        warnings.push(format!(
            "Warning: {} sets a proxy, and the mirror is not exempt from it: {}",
            proxy.place,
            add(place)
        ));
    };
    for unit in units {
        let settings = unit_settings(machine, unit);
        check(&settings, &|place| {
            format!(
                "add {} to NO_PROXY in {}, then systemctl daemon-reload and restart {unit}",
                mirror.host(),
                place.place
            )
        });
    }
    if let Some(path) = daemon_json {
        let settings = daemon_settings(machine, path);
        check(&settings, &|place| format!("add {} to \"no-proxy\" in {}", mirror.host(), place.place));
    }
    let here = ["http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"];
    let place = "this environment";
    let here = here.into_iter().filter_map(|name| {
        let setting = Setting { value: machine.variable(name)?.to_owned(), place: place.to_owned() };
        Some((name.to_owned(), setting))
    });
    check(&here.collect(), &|_| {
        format!("add {} to NO_PROXY wherever the client takes its environment from", mirror.host())
    });
    warnings
}

/// Returns the files that make up a unit, in the order in which they count.
pub(super) fn unit_files(machine: &Machine, unit: &str) -> Vec<String> {
    let mut files = Vec::new();
    for folder in UNIT_FOLDERS {
        files.extend([format!("{folder}/{unit}.service")].into_iter().filter(|path| machine.exists(path)));
    }
    for folder in UNIT_FOLDERS {
        let folder = format!("{folder}/{unit}.service.d");
        let names = machine.names(&folder).into_iter().filter(|name| name.ends_with(".conf"));
        files.extend(names.map(|name| format!("{folder}/{name}")));
    }
    files
}

/// Go's programs take either spelling, the upper one first.
fn effective<'a>(settings: &'a Settings, name: &str) -> Option<&'a Setting> {
    let found = |name: &str| settings.get(name).filter(|setting| !setting.value.is_empty());
    found(&name.to_uppercase()).or_else(|| found(name))
}

fn unit_settings(machine: &Machine, unit: &str) -> Settings {
    let mut settings = Settings::new();
    for file in unit_files(machine, unit) {
        let Ok(Some(text)) = machine.read(&file) else { continue };
        for line in text.lines() {
            if let Some(assignments) = line.trim().strip_prefix("Environment=") {
                for word in words(assignments) {
                    add(&mut settings, &word, &machine.shown(&file));
                }
            } else if let Some(named) = line.trim().strip_prefix("EnvironmentFile=") {
                let named = named.trim_start_matches('-');
                let Ok(Some(text)) = machine.read(named) else { continue };
                for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
                    let line = line.trim().trim_start_matches("export ");
                    for word in words(line) {
                        add(&mut settings, &word, &machine.shown(named));
                    }
                }
            }
        }
    }
    settings
}

fn daemon_settings(machine: &Machine, path: &str) -> Settings {
    let text = machine.read(path).ok().flatten().unwrap_or_default();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let mut settings = Settings::new();
    for (key, name) in
        [("http-proxy", "HTTP_PROXY"), ("https-proxy", "HTTPS_PROXY"), ("no-proxy", "NO_PROXY")]
    {
        if let Some(value) = value["proxies"][key].as_str() {
            settings.insert(name.to_owned(), Setting { value: value.to_owned(), place: machine.shown(path) });
        }
    }
    settings
}

fn add(settings: &mut Settings, assignment: &str, place: &str) {
    if let Some((name, value)) = assignment.split_once('=') {
        let value = value.trim_matches(['"', '\'']).to_owned();
        settings.insert(name.to_owned(), Setting { value, place: place.to_owned() });
    }
}

/// Splits at spaces outside of quotes, and takes the quotes off.
fn words(line: &str) -> Vec<String> {
    let (mut found, mut word, mut quote) = (Vec::new(), String::new(), None);
    for c in line.chars() {
        match (c, quote) {
            ('"' | '\'', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            (c, None) if c.is_whitespace() => {
                found.extend(Some(std::mem::take(&mut word)).filter(|word| !word.is_empty()))
            }
            (c, _) => word.push(c),
        }
    }
    found.extend(Some(word).filter(|word| !word.is_empty()));
    found
}

/// Returns whether a `NO_PROXY` names the mirror, as golang.org/x/net/http/httpproxy reads it.
fn covers(exempt: &str, mirror: &Mirror) -> bool {
    let host = mirror.host().to_lowercase();
    let address: Option<IpAddr> = host.parse().ok();
    exempt.split(',').map(|entry| entry.trim().to_lowercase()).any(|entry| {
        if entry == "*" {
            return true;
        }
        if let (Some(address), Some((network, bits))) = (address, entry.split_once('/')) {
            return network.parse().is_ok_and(|network| is_within(address, network, bits));
        }
        let (name, port) = match entry.rsplit_once(':') {
            Some((name, port)) if !name.contains(':') || name.ends_with(']') => (name, port.parse().ok()),
            _ => (entry.as_str(), None),
        };
        if port.is_some_and(|port: u16| port != mirror.port()) {
            return false;
        }
        let name = name.trim_matches(['[', ']']);
        let suffix = name.trim_start_matches('*').trim_start_matches('.');
        let is_below = host.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.'));
        !suffix.is_empty() && (is_below || (host == suffix && !name.starts_with(['.', '*'])))
    })
}

fn is_within(address: IpAddr, network: IpAddr, bits: &str) -> bool {
    let Ok(bits) = bits.parse::<u32>() else { return false };
    match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) if bits <= 32 => {
            let shift = |address: std::net::Ipv4Addr| u64::from(address.to_bits()) >> (32 - bits);
            shift(address) == shift(network)
        }
        (IpAddr::V6(address), IpAddr::V6(network)) if bits <= 128 => {
            let shift = |address: std::net::Ipv6Addr| address.to_bits().checked_shr(128 - bits);
            shift(address) == shift(network)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_proxy_is_read_as_go_reads_it() {
        for (exempt, mirror, covered) in [
            ("mirror.example", "http://mirror.example:5000", true),
            ("x, Mirror.Example:5000", "http://mirror.example:5000", true),
            ("mirror.example:5001", "http://mirror.example:5000", false),
            ("example", "http://mirror.example:5000", true),
            (".example", "http://mirror.example:5000", true),
            ("*.example", "http://mirror.example", true),
            (".mirror.example", "http://mirror.example", false),
            ("ror.example", "http://mirror.example", false),
            ("*", "http://mirror.example", true),
            ("10.0.0.0/8", "http://10.1.2.3:5000", true),
            ("10.0.0.0/16", "http://10.1.2.3:5000", false),
            ("0.0.0.0/0", "http://10.1.2.3", true),
            ("10.1.2.3", "http://10.1.2.3:5000", true),
            ("fd00::/8", "http://[fd00::1]:5000", true),
            ("", "http://mirror.example", false),
        ] {
            let mirror = Mirror::parse(mirror).expect(mirror);
            assert_eq!(covers(exempt, &mirror), covered, "{exempt} {mirror:?}");
        }
    }

    #[test]
    fn a_proxy_is_found_wherever_it_is_set_and_its_url_is_not_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("lib/systemd/system/docker.service", "[Service]\nEnvironmentFile=-/etc/default/docker\n");
        write("etc/default/docker", "# a\nexport HTTP_PROXY=\"http://u:secret@p:3128\"\n");
        write(
            "etc/systemd/system/docker.service.d/proxy.conf",
            "[Service]\nEnvironment=\"NO_PROXY=a, b\" X=1\n",
        );
        write("etc/docker/daemon.json", "{\"proxies\": {\"http-proxy\": \"http://u:secret@p\"}}");
        let environment = [("http_proxy".to_owned(), "http://u:secret@p".to_owned())];
        let machine = Machine::new(folder.path(), environment);
        let mirror = Mirror::parse("http://mirror.example:5000").unwrap();
        let found = warnings(&machine, &["docker"], Some("/etc/docker/daemon.json"), &mirror);
        let root = folder.path().display();
        assert_eq!(
            found,
            [
                format!(
                    "Warning: {root}/etc/default/docker sets a proxy, and the mirror is not exempt from it: add \
                     mirror.example to NO_PROXY in {root}/etc/systemd/system/docker.service.d/proxy.conf, then systemctl \
                     daemon-reload and restart docker"
                ),
                format!(
                    "Warning: {root}/etc/docker/daemon.json sets a proxy, and the mirror is not exempt from it: add \
                     mirror.example to \"no-proxy\" in {root}/etc/docker/daemon.json"
                ),
                "Warning: this environment sets a proxy, and the mirror is not exempt from it: add mirror.example to \
                 NO_PROXY wherever the client takes its environment from"
                    .to_owned(),
            ]
        );
        let encrypted = Mirror::parse("https://mirror.example").unwrap();
        assert!(warnings(&machine, &["docker"], None, &encrypted).is_empty(), "no proxy for https is set");
        let near = Mirror::parse("http://localhost:5000").unwrap();
        assert!(warnings(&machine, &["docker"], None, &near).is_empty());
    }
}
