//! Configuration: written in a file and in the environment, checked once, then used as plain values.
//!
//! It promises that whatever it returns can be used without checking again, that every mistake is named with its place
//! and with what was expected, all of them at once, and that no secret stands in a message.

mod field;
mod keys;
mod lane;
mod mistake;
mod names;
mod pairs;
mod reference;
mod registry;
mod tables;
#[cfg(test)]
mod tests;
mod units;
mod used;
mod well_known;
mod whole;
mod written;

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

pub use lane::{Account, Credential, Egress, Mirror, MirrorWhen, Share, Way};
pub use mistake::{Mistake, Mistakes};
pub use reference::reference;
pub use used::{
    Access, Address, Admin, Cache, ClientAuth, Config, Format, Http, Level, Log, Route, Secret, Storage, Tls,
    TlsVersion, Upstream,
};
pub use well_known::{Pace, WELL_KNOWN, WellKnown};

use field::Value;
use mistake::Place;
use registry::REGISTRYS;
use whole::{check_upstream, is_this_machine};
use written::{FILE_VARIABLE, OURS, Other, Setting, Written, place_of};

/// Where our own file is looked for when nobody names one.
const USUAL_FILES: [&str; 2] = ["stopover.toml", "/etc/stopover/stopover.toml"];
/// Where the images of registry:2 and registry:3 have theirs.
const REGISTRYS_USUAL_FILES: [&str; 2] = ["/etc/docker/registry/config.yml", "/etc/distribution/config.yml"];
/// The most that is read of a file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A configuration that was read, and what to tell the operator about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// What is in force.
    pub config: Config,
    /// What was ignored or looks unwise: one sentence each, to be logged once there is a log.
    pub warnings: Vec<String>,
    /// The file that was read, if any was.
    pub file: Option<PathBuf>,
}

/// Whose name the program was started under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunAs {
    /// Its own.
    Stopover,
    /// `registry`: a `config.yml` in the usual place is meant for it.
    Registry,
}

/// Reads the file and the environment of this process. `file` is what the command line names; a file that is named must
/// be there, the usual ones need not.
pub fn load(file: Option<&Path>, run_as: RunAs) -> Result<Loaded, Mistakes> {
    let mut mistakes = Vec::new();
    let mut variables = Vec::new();
    for (name, value) in std::env::vars_os() {
        let Ok(name) = name.into_string() else { continue };
        if !name.starts_with(REGISTRYS) && !name.starts_with(OURS) {
            continue;
        }
        match value.into_string() {
            Ok(value) => variables.push((name, value)),
            Err(_) => mistakes.push(Mistake::new(Place::Variable(name), "expected UTF-8")),
        }
    }
    let (path, passed_over) = choose_file(file, run_as);
    let content = path.as_ref().and_then(|path| {
        let name = path.display().to_string();
        match read_file(path) {
            Ok(text) => Some((name, text)),
            Err(error) => {
                mistakes.push(Mistake::new(Place::File(name), format!("cannot be read: {error}")));
                None
            }
        }
    });
    let read = read(content.as_ref().map(|(name, text)| (name.as_str(), text.as_str())), variables);
    match read {
        Ok(mut loaded) if mistakes.is_empty() => {
            loaded.warnings.splice(0..0, passed_over);
            Ok(Loaded { file: path, ..loaded })
        }
        Ok(_) => Err(Mistakes(mistakes)),
        Err(Mistakes(more)) => {
            mistakes.extend(more);
            Err(Mistakes(mistakes))
        }
    }
}

/// Returns the one file that is read, and a warning for each other that somebody may have meant.
fn choose_file(named: Option<&Path>, run_as: RunAs) -> (Option<PathBuf>, Vec<String>) {
    let by_variable = |name: &str| {
        std::env::var_os(name).filter(|value: &OsString| !value.is_empty()).map(|value| (value.into(), true))
    };
    let usual = USUAL_FILES.iter().filter(|path| Path::new(path).exists());
    // Under our own name, a registry's file is not ours because it is there: that registry may still run.
    let is_meant = |path: &&&str| match run_as {
        RunAs::Registry => Path::new(path).exists(),
        RunAs::Stopover => read_file(Path::new(path)).is_ok_and(|text| registry::is_proxy(&text)),
    };
    let registrys = REGISTRYS_USUAL_FILES.iter().filter(is_meant);
    let mut all = (named.map(|path| (path.to_owned(), true)).into_iter())
        .chain(by_variable(FILE_VARIABLE))
        .chain(by_variable(registry::FILE_VARIABLE))
        .chain(usual.chain(registrys).map(|path| (PathBuf::from(path), false)));
    let Some((path, was_named)) = all.next() else { return (None, Vec::new()) };
    let others = all.filter(|(other, other_named)| *other != path && (*other_named || !was_named));
    let warn = |(other, _): (PathBuf, bool)| {
        format!("{}: not read, since {} is; expected one file", other.display(), path.display())
    };
    let warnings = others.map(warn).collect();
    (Some(path), warnings)
}

fn read_file(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if read as u64 > FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "longer than 1 MiB"));
    }
    Ok(text)
}

/// Reads a file, given as its name and content, and variables; touches neither disk nor environment.
pub fn read(
    file: Option<(&str, &str)>,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded, Mistakes> {
    let mut variables: Vec<_> = variables.into_iter().collect();
    variables.sort();
    let of = |prefix: &'static str| {
        let each = variables.iter().filter(move |(name, _)| name.starts_with(prefix));
        each.map(|(name, text)| (name.as_str(), text.as_str()))
    };
    let mut written = Written::default();
    let (registrys, ours): (Vec<_>, Vec<_>) =
        file.into_iter().partition(|(name, text)| registry::is_registrys(name, text));
    for (name, text) in ours {
        written.read_file(name, text);
    }
    written.add(registry::read(registrys.first().copied(), of(REGISTRYS)));
    written.read_environment(of(OURS));
    let mut config = Config { upstream: named_by(&written.settings), ..Config::default() };
    for setting in &written.settings {
        if let Err(found) = setting.key.field.set(&mut config, &setting.value) {
            written.mistakes.push(Mistake::value(setting, &found));
        }
    }
    config.egresses = tables::all_egresses(&written.egresses, &mut written.mistakes);
    std::mem::take(&mut written.tables).set(&mut config.upstream, &mut written.mistakes);
    if written.mistakes.is_empty() {
        let settings = std::mem::take(&mut written.settings);
        let others = std::mem::take(&mut written.others);
        check_upstream(&mut config.upstream, &settings, &config.egresses, &mut written);
        warn_of_library(&config.upstream, &settings, &mut written);
        check_access(&config, &mut written);
        check_tls(&config, &settings, &mut written);
        for other in &others {
            add_upstream(&mut config, other, &mut written);
        }
        names::check(&config, &settings, &others, &mut written);
    }
    if !written.mistakes.is_empty() {
        written.mistakes.sort_by_key(Mistake::order);
        return Err(Mistakes(written.mistakes));
    }
    Ok(Loaded { config, warnings: written.warnings, file: None })
}

/// Adds a further registry. Its keys are those of `[upstream]`; what is not set of it is as the table of well-known
/// registries or, beyond that, its name has it.
fn add_upstream(config: &mut Config, other: &Other, written: &mut Written) {
    let name = keys::find("upstream", "registry").expect("every upstream has a name");
    let mut scratch =
        Config { upstream: Upstream::named(&other.registry.to_ascii_lowercase()), ..Config::default() };
    let value = Value::Text(other.registry.clone());
    let registry = Setting { key: name, called: None, value, place: other.place.clone() };
    if let Err(found) = name.field.set(&mut scratch, &registry.value) {
        written.mistakes.push(Mistake::value(&registry, &found));
    }
    for setting in &other.settings {
        if let Err(found) = setting.key.field.set(&mut scratch, &setting.value) {
            written.mistakes.push(Mistake::value(setting, &found));
        }
    }
    other.tables.set(&mut scratch.upstream, &mut written.mistakes);
    let mut known = std::iter::once(&config.upstream).chain(&config.upstreams);
    if known.any(|known| known.registry == scratch.upstream.registry) {
        let mut what =
            format!("upstreams.{}: expected each registry once, and [upstream] is one", other.registry);
        if let (Place::Variable(_), Some(setting)) = (&other.place, other.settings.first()) {
            what += &format!(": set {}", setting.key.variable());
        }
        written.mistakes.push(Mistake::new(other.place.clone(), what));
    }
    check_upstream(&mut scratch.upstream, &other.settings, &config.egresses, written);
    config.upstreams.push(scratch.upstream);
}

/// Checks that whoever says that there is a password, or that there is none, gets just that.
fn check_access(config: &Config, written: &mut Written) {
    let Some((kind, place)) = written.auth.take() else { return };
    let what = match (kind.as_str(), &config.access.htpasswd) {
        ("htpasswd", None) => {
            "auth.htpasswd: path is not set; expected the file with the users, as REGISTRY_AUTH_HTPASSWD_PATH for instance"
        }
        ("none", Some(_)) => "auth.none: stands against access.htpasswd, which is set; expected one of them",
        _ => return,
    };
    written.mistakes.push(Mistake::new(place, what));
}

/// Checks that TLS is whole: what is said of it without a certificate would leave the port open.
fn check_tls(config: &Config, settings: &[Setting], written: &mut Written) {
    let tls = &config.tls;
    let mut missing = |set: &str, name: &str| {
        if let Some(place) = place_of(settings, "tls", set) {
            let what = format!("tls.{set} is set and tls.{name} is not; expected both");
            written.mistakes.push(Mistake::new(place, what));
        }
    };
    match (&tls.certificate, &tls.key) {
        (Some(_), None) => missing("certificate", "key"),
        (None, Some(_)) => missing("key", "certificate"),
        (Some(_), Some(_)) => {}
        (None, None) => {
            for (name, is_set) in [
                ("client_ca", !tls.client_ca.is_empty()),
                ("minimum", tls.minimum != TlsVersion::default()),
                ("addr", !tls.addr.is_empty()),
            ] {
                if is_set {
                    missing(name, "certificate");
                }
            }
        }
    }
    if tls.client_ca.is_empty() && tls.client_auth != ClientAuth::default() {
        missing("client_auth", "client_ca");
    }
}

/// Returns the default registry as it is where nothing else is set of it: the one that is named or, where only its URL
/// is, the well-known one that is reached there, so that `https://ghcr.io` is ghcr.io and not Docker Hub at another place.
fn named_by(settings: &[Setting]) -> Upstream {
    let text = |name: &str| {
        let last = settings.iter().rfind(|one| one.key.section == "upstream" && one.key.name == name);
        last.and_then(|setting| setting.value.text())
    };
    let at = |url: String| WellKnown::name_at(url.split_once("://")?.1).map(str::to_owned);
    let named = text("registry").and_then(units::host);
    let named = named.or_else(|| text("url").and_then(units::url).and_then(at));
    named.map_or_else(Upstream::default, |registry| Upstream::named(&registry))
}

/// Says that a registry of which only the URL is known is taken for Docker Hub at another place. registry:2 leaves the names
/// of clients alone.
fn warn_of_library(upstream: &Upstream, settings: &[Setting], written: &mut Written) {
    let is_named = place_of(settings, "upstream", "registry").is_some();
    let is_near = upstream.url.split_once("://").is_none_or(|(_, rest)| is_this_machine(rest));
    if let Some(place) = place_of(settings, "upstream", "url")
        && !is_named
        && !is_near
        && upstream.registry == "docker.io"
        && upstream.url != Upstream::default().url
    {
        written.warnings.push(format!(
            "{place}: {} is taken for Docker Hub at another place, where names without a slash mean library/<name>; if it is \
             another registry, set upstream.registry to its name",
            upstream.url
        ));
    }
}
