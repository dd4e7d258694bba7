//! `stopover client`: what each client of the mirror needs in its settings; printed, written, taken back.
//!
//! It promises that printing changes nothing, that writing shows the difference first, merges into what is there and
//! keeps that beside it, and that nothing is written unless all can be. What is decided, and by which client's rules,
//! stands in the modules below; only `machine` touches the disk. It knows nothing of the server.

mod buildkit;
mod containerd;
mod containers;
mod diff;
mod docker;
mod hosts;
mod json;
mod k3s;
mod kaniko;
mod machine;
mod mirror;
mod plan;
mod proxy;
mod render;
mod toml;
mod undo;
mod yaml;

use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use clap::{Args, ValueEnum};

use crate::{
    config::{Address, Config, WellKnown},
    tls,
};
use containers::Reader;
use machine::{Machine, PUBLIC};
use mirror::{Mirror, Scheme, is_registry};
use plan::{Ask, Authority, Change, Plan};
use undo::Record;

const EXAMPLES: &str = "\
Examples:
  stopover client docker --mirror http://mirror.example:5000
      Prints daemon.json for this mirror, and what to run next.

  sudo stopover client containerd --mirror http://mirror.example:5000 --write
      Shows the difference, then merges it into the files that are there; each is kept beside its place first.

  sudo stopover client containerd --undo
      Takes it back: nothing else is touched, also where a file was edited since.

  stopover client podman --mirror https://mirror.example --ca ca.crt --registry docker.io,ghcr.io
      Two registries only, by a mirror whose certificate is vouched for by ca.crt.

  stopover client buildkit --mirror http://mirror.example:5000 --root ./image --write
      Into an image's files, or a machine's disk that is mounted there.";

/// Where `stopover dev-certificate` writes to where nobody says otherwise.
const DEVELOPMENT_CA: &str = "stopover-tls";

/// What `stopover client` is told.
#[derive(Args, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct Arguments {
    /// The client
    #[arg(value_enum, value_name = "CLIENT")]
    client: Client,
    /// The mirror's URL, as clients reach it [default: this machine, as its own configuration has it]
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    /// A registry that goes by the mirror; may be given several times, `*` is all others [default: all that the client can]
    #[arg(long = "registry", value_name = "NAME", value_delimiter = ',')]
    registries: Vec<String>,
    /// The certificate, in PEM, that vouches for the mirror's own; without FILE, ca.crt beside the certificate in the mirror's configuration, else that of `stopover dev-certificate` in ./stopover-tls, made if the mirror is this machine
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    ca: Option<Option<PathBuf>>,
    /// The folder that stands for /, such as an image's
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Merge it into the client's files, after showing the difference
    #[arg(long, conflicts_with = "undo")]
    write: bool,
    /// Take back what --write has put in
    #[arg(long, conflicts_with_all = ["mirror", "registries", "ca"])]
    undo: bool,
    /// The mirror's configuration file, from which URL and registries are taken
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Whose settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Client {
    /// dockerd, on Linux
    Docker,
    /// containerd: Kubernetes, nerdctl, ctr
    Containerd,
    /// podman, skopeo and buildah
    Podman,
    /// CRI-O
    Crio,
    /// buildkitd, and docker buildx
    Buildkit,
    /// k3s and rke2
    K3s,
    /// kaniko's executor
    Kaniko,
    /// Docker Desktop
    DockerDesktop,
}

impl Arguments {
    /// Returns the configuration file that was named.
    pub fn config(&self) -> Option<&Path> {
        self.config.as_deref()
    }
}

/// Does what the arguments say. `config` is the mirror's configuration, or what is wrong with it, which matters only where
/// something is taken from it; `print` writes to standard output.
pub fn run(
    arguments: &Arguments,
    config: Result<Config, String>,
    print: &dyn Fn(&str),
) -> Result<(), String> {
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    if !arguments.root.is_dir() {
        return Err(format!("--root: {} is no folder", arguments.root.display()));
    }
    let machine = Machine::new(&arguments.root, environment);
    if arguments.undo {
        return take_back(&machine, arguments.client, print);
    }
    let ask = arguments.ask(config)?;
    let mut plan = arguments.client.plan(&machine, &ask)?;
    let (units, daemon_json) = arguments.client.started_by(&machine);
    let is_ours = |authority: &Authority| Path::new(&authority.file).starts_with(DEVELOPMENT_CA);
    if arguments.ca == Some(None) && ask.authority.as_ref().is_some_and(is_ours) {
        plan.notes.push(format!(
            "The certificates are those of stopover dev-certificate, in {DEVELOPMENT_CA}: the mirror needs tls.crt and \
             tls.key as [tls] certificate and key in its configuration, a client ca.crt alone."
        ));
    }
    plan.notes.extend(proxy::warnings(&machine, units, daemon_json.as_deref(), &ask.mirror));
    if arguments.write {
        write(&machine, arguments.client, &plan, print)
    } else {
        print(&render::printed(&machine, &plan, &arguments.client.name()));
        Ok(())
    }
}

impl Arguments {
    fn ask(&self, config: Result<Config, String>) -> Result<Ask, String> {
        let mirror = match (&self.mirror, &config) {
            (Some(url), _) => Mirror::parse(url)?,
            (None, Ok(config)) => mirror_of(config, self.ca.is_some())?,
            (None, Err(mistakes)) => {
                return Err(format!(
                    "{mistakes}\nstopover: --mirror names the mirror without this configuration"
                ));
            }
        };
        if self.config.is_some() {
            config.as_ref().map_err(Clone::clone)?;
        }
        let config = config.unwrap_or_default();
        let (registries, others) = self.chosen(&config)?;
        if self.ca.is_some() && mirror.is_plain() {
            return Err(format!(
                "--ca: a certificate is for a mirror over https; found {}, expected https://{}",
                mirror.url(),
                mirror.authority()
            ));
        }
        let authority = self.authority(&mirror, config.tls.certificate.as_deref())?;
        Ok(Ask { mirror, registries, others, default_registry: config.upstream.registry, authority })
    }

    /// Returns the registries that go by the mirror, and whether all others do too.
    fn chosen(&self, config: &Config) -> Result<(Vec<String>, bool), String> {
        let others = config.others().into_iter().map(|upstream| upstream.registry);
        let all = || [config.upstream.registry.clone()].into_iter().chain(others).collect();
        if self.registries.is_empty() {
            return Ok(match self.client {
                Client::Docker | Client::DockerDesktop => (vec!["docker.io".to_owned()], false),
                Client::Containerd | Client::K3s => (all(), true),
                Client::Podman | Client::Crio | Client::Buildkit | Client::Kaniko => (all(), false),
            });
        }
        let mut chosen = Vec::new();
        for name in self.registries.iter().filter(|name| *name != "*") {
            let name = name.to_lowercase();
            if !is_registry(&name) {
                return Err(format!(
                    "--registry: found {name:?}, expected a registry's name such as ghcr.io, or *"
                ));
            }
            let is_alias = |known: &&&str| **known == name;
            let known = crate::config::WELL_KNOWN
                .iter()
                .find(|known| known.aliases.iter().any(|alias| is_alias(&alias)));
            let name = known.map_or(name, |known: &WellKnown| known.registry.to_owned());
            if !chosen.contains(&name) {
                chosen.push(name);
            }
        }
        Ok((chosen, self.registries.iter().any(|name| name == "*")))
    }

    /// Returns the certificate to install. Where no file is named and the mirror is this machine, it is that beside the
    /// mirror's certificate or, where it has none yet, that of the development CA, which is made.
    fn authority(&self, mirror: &Mirror, certificate: Option<&Path>) -> Result<Option<Authority>, String> {
        let Some(file) = &self.ca else { return Ok(None) };
        let file = match (file, certificate.filter(|_| self.mirror.is_none())) {
            (Some(file), _) => file.clone(),
            (None, Some(certificate)) => {
                let file = certificate.with_file_name("ca.crt");
                if !file.exists() {
                    return Err(format!(
                        "--ca: there is no {} beside the mirror's certificate, tls.certificate; expected the file of its \
                         authority, --ca FILE",
                        file.display()
                    ));
                }
                file
            }
            (None, None) => self.development_authority(mirror)?,
        };
        let name = file.display();
        let pem =
            fs::read_to_string(&file).map_err(|error| format!("--ca: {name}: cannot be read: {error}"))?;
        if pem.contains("PRIVATE KEY") {
            return Err(format!(
                "--ca: {name} holds a private key, which no client may have; expected certificates alone"
            ));
        }
        if !pem.contains("-----BEGIN CERTIFICATE-----") {
            return Err(format!("--ca: {name}: expected a certificate in PEM, -----BEGIN CERTIFICATE-----"));
        }
        Ok(Some(Authority { file: name.to_string(), pem }))
    }

    /// Returns the certificate of the development CA, which is made where the mirror is this machine.
    fn development_authority(&self, mirror: &Mirror) -> Result<PathBuf, String> {
        let file = Path::new(DEVELOPMENT_CA).join("ca.crt");
        if file.exists() {
            return Ok(file);
        }
        if self.mirror.is_some() {
            return Err(format!(
                "--ca: there is no {}; make it where the mirror is, stopover dev-certificate --host {}, and name a copy of its \
                 ca.crt",
                file.display(),
                mirror.host()
            ));
        }
        let host = [mirror.host().to_owned()];
        tls::make_for_development(Path::new(DEVELOPMENT_CA), &host)
            .map_err(|error| format!("--ca: {error}"))?;
        Ok(file)
    }
}

/// Returns the mirror that this machine is, by its configuration.
fn mirror_of(config: &Config, is_encrypted: bool) -> Result<Mirror, String> {
    let is_encrypted = is_encrypted || config.tls.certificate.is_some();
    let ports = |addresses: &[Address]| {
        addresses.iter().find_map(|address| match address {
            Address::Tcp(address) => Some(*address),
            Address::Unix(_) => None,
        })
    };
    let encrypted = ports(&config.tls.addr).filter(|_| is_encrypted);
    let addr = encrypted.or_else(|| ports(&config.http.addr)).ok_or("--mirror: expected the mirror's URL")?;
    let host = if addr.ip().is_unspecified() {
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        if name.is_empty() { "localhost".to_owned() } else { name }
    } else {
        addr.ip().to_string()
    };
    let scheme = if is_encrypted { Scheme::Https } else { Scheme::Http };
    let guess = Mirror::of_this_machine(scheme, &host, addr.port());
    Mirror::parse(&guess.url())
}

impl Client {
    fn name(self) -> String {
        self.to_possible_value().expect("every client has a word").get_name().to_owned()
    }

    fn plan(self, machine: &Machine, ask: &Ask) -> Result<Plan, String> {
        match self {
            Self::Docker => docker::plan(machine, ask),
            Self::Containerd => containerd::plan(machine, ask),
            Self::Podman => containers::plan(machine, ask, Reader::Podman),
            Self::Crio => containers::plan(machine, ask, Reader::Crio),
            Self::Buildkit => buildkit::plan(machine, ask),
            Self::K3s => k3s::plan(machine, ask),
            Self::Kaniko => kaniko::plan(ask),
            Self::DockerDesktop => docker::desktop(machine, ask),
        }
    }

    /// Returns the folder of the client's settings.
    fn home(self, machine: &Machine) -> Result<String, String> {
        Ok(match self {
            Self::Docker => docker::HOME.to_owned(),
            Self::Containerd => containerd::HOME.to_owned(),
            Self::Podman | Self::Crio => containers::HOME.to_owned(),
            Self::Buildkit => buildkit::HOME.to_owned(),
            Self::K3s => k3s::home(machine).to_owned(),
            Self::Kaniko => {
                return Err("kaniko has no file to write; pass it the arguments that are printed".to_owned());
            }
            Self::DockerDesktop => docker::desktop_home(machine)?,
        })
    }

    /// Returns what to run once its settings have been taken back.
    fn after_undo(self) -> &'static str {
        match self {
            // dockerd's reload leaves alone what daemon.json does not name (daemon/reload.go).
            Self::Docker => {
                "systemctl restart docker    # a reload keeps a list that daemon.json no longer names"
            }
            Self::Containerd => {
                "systemctl restart containerd    # only if config.toml is among the files above"
            }
            Self::Podman => "nothing: the files are read at each pull",
            Self::Crio => "systemctl reload crio",
            Self::Buildkit => "systemctl restart buildkit    # or make docker buildx's builder anew",
            Self::K3s => "systemctl restart k3s    # or k3s-agent, rke2-server, rke2-agent",
            Self::Kaniko => "nothing: kaniko has no file",
            Self::DockerDesktop => "restart Docker Desktop",
        }
    }

    /// Returns the units that start the client's daemon, and the daemon.json with its proxies.
    fn started_by(self, machine: &Machine) -> (&'static [&'static str], Option<String>) {
        match self {
            Self::Docker => (&["docker"], Some(format!("{}/daemon.json", docker::HOME))),
            Self::Containerd => (&["containerd"], None),
            Self::Crio => (&["crio"], None),
            Self::Buildkit => (&["buildkit", "buildkitd"], None),
            Self::K3s => (&["k3s", "k3s-agent", "rke2-server", "rke2-agent"], None),
            Self::Podman | Self::Kaniko => (&[], None),
            Self::DockerDesktop => {
                (&[], docker::desktop_home(machine).ok().map(|home| format!("{home}/daemon.json")))
            }
        }
    }
}

fn write(machine: &Machine, client: Client, plan: &Plan, print: &dyn Fn(&str)) -> Result<(), String> {
    let home = client.home(machine)?;
    let refusals: Vec<&str> =
        plan.files.iter().filter_map(|file| file.after.as_ref().err().map(String::as_str)).collect();
    if !refusals.is_empty() {
        return Err(format!("{}\nstopover: nothing was written", refusals.join("\n")));
    }
    let changes: Vec<&Change> = plan.files.iter().filter(|file| file.is_change()).collect();
    if changes.is_empty() {
        print(&format!("nothing to change: {} has it all\n", client.name()));
        return Ok(());
    }
    let mut record = Record::read(machine, &home)?;
    for change in &changes {
        let after = change.after.as_ref().expect("refusals were looked for");
        print(&diff::unified(&machine.shown(&change.path), change.before.as_deref(), Some(after)));
        record.add_file(&change.path, change.before.as_deref(), after);
    }
    // First of all, so that whatever is written can be taken back.
    let folders = record.write(machine, &home)?;
    record.add_folders(folders);
    let now = SystemTime::now();
    let mut done = String::from("\n");
    for change in &changes {
        let after = change.after.as_ref().expect("refusals were looked for");
        let backup = change.before.as_ref().map(|_| machine.back_up(&change.path, now)).transpose();
        let written = backup.and_then(|backup| {
            let folders = machine.write(&change.path, after, PUBLIC)?;
            record.add_folders(folders);
            let beside =
                backup.map_or(String::new(), |backup| format!(", as it was: {}", machine.shown(&backup)));
            done.push_str(&format!("wrote {}{beside}\n", machine.shown(&change.path)));
            Ok(())
        });
        if let Err(what) = written {
            record.write(machine, &home)?;
            return Err(format!(
                "{what}\nstopover: stopped there; `--undo` takes back what was written before"
            ));
        }
    }
    record.write(machine, &home)?;
    print(&done);
    print(&render::what_follows(plan));
    Ok(())
}

fn take_back(machine: &Machine, client: Client, print: &dyn Fn(&str)) -> Result<(), String> {
    let home = client.home(machine)?;
    let mut record = Record::read(machine, &home)?;
    if record.is_empty() {
        print(&format!("nothing to take back: there is no {}\n", machine.shown(&undo::path(&home))));
        return Ok(());
    }
    let (restored, failures) = record.take_back(machine)?;
    for file in restored.iter().filter(|file| file.now != file.then) {
        print(&diff::unified(&machine.shown(&file.path), file.now.as_deref(), file.then.as_deref()));
    }
    for file in restored.iter().filter(|file| file.now != file.then) {
        match &file.then {
            Some(text) => drop(machine.write(&file.path, text, PUBLIC)?),
            None => machine.remove(&file.path)?,
        }
    }
    // Its own file is in one of the folders, and its own list is shorter once they are gone.
    record.write(machine, &home)?;
    record.remove_folders(machine);
    if !record.is_empty() {
        record.write(machine, &home)?;
    }
    if failures.is_empty() {
        print(&format!("\ntaken back\n\n=== next ===\n{}\n", client.after_undo()));
        Ok(())
    } else {
        Err(failures.join("\n"))
    }
}
