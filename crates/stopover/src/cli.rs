//! The command line: `serve`, `check`, `quota`, `garbage-collect`, `client` and `dev-certificate`.
//!
//! It promises that a wrong configuration starts nothing and is explained whole, and that the log is written out before
//! the process ends. Exit codes: 0 is right, 1 is a wrong configuration, a server that failed or that cannot be asked, 2 a
//! wrong command line.

use std::{
    ffi::{OsStr, OsString},
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
    thread::available_parallelism,
    time::Duration,
};

use clap::{Args, Parser, Subcommand};

use crate::{
    client,
    collect::{self, Keep, Run},
    config::{self, Config, Loaded, RunAs},
    listen, log,
    metrics::Metrics,
    quota::{self, Place},
    tls,
};

/// Threads for file work that would block a worker.
const BLOCKING_THREADS_MAX: usize = 24;
/// Half of the usual stack, for up to a thousand workers and 64 blocking threads: no future here is deep.
const STACK_BYTES: usize = 1 << 20;
/// How long tasks that the server left behind may take to end.
const LEFTOVERS: Duration = Duration::from_secs(1);

/// Names that registry:2 is started under, or its image's script.
const REGISTRYS_NAMES: [&str; 3] = ["registry", "docker-registry", "entrypoint.sh"];

const EXAMPLES: &str = "\
Examples:
  stopover serve
      A mirror of Docker Hub on port 5000, its content in /var/lib/registry.
      Docker uses it with this in /etc/docker/daemon.json:
      { \"registry-mirrors\": [\"http://<this machine>:5000\"] }

  REGISTRY_PROXY_REMOTEURL=https://registry-1.docker.io \\
  REGISTRY_PROXY_USERNAME=ann REGISTRY_PROXY_PASSWORD=<token> stopover serve
      The same with an account, set as for registry:2.

  STOPOVER_CACHE__TAG_TTL=5m STOPOVER_HTTP__ADDR=127.0.0.1:5000 stopover serve
      Any key of the configuration, set in the environment.

  stopover serve /etc/docker/registry/config.yml
      In the place of registry:2 or registry:3, with their configuration.

  stopover check /etc/stopover/stopover.toml
      Says what is wrong with a configuration, or what is in force.

  stopover quota
      What is left of the registries' pull limits; --json for programs.

  stopover client containerd --mirror http://mirror.example:5000
      What a client needs for this mirror; --write puts it there, --undo takes it back.

Configuration, later over earlier:
  the defaults
  a file: `serve FILE`, else STOPOVER_CONFIG, else REGISTRY_CONFIGURATION_PATH, else ./stopover.toml, else
    /etc/stopover/stopover.toml, else a cache's /etc/docker/registry/config.yml or /etc/distribution/config.yml
  registry:2's REGISTRY_* variables
  STOPOVER_<SECTION>__<KEY>

`stopover check --reference` prints every key with its default.";

/// A pull-through cache for Docker Hub and every other OCI registry.
///
/// Fetches each image once and hands it out from then on, also while the registry is down.
#[derive(Debug, Parser)]
#[command(name = "stopover", version, after_long_help = EXAMPLES, after_help = "`stopover --help` shows examples.")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve pulls until SIGTERM; as it comes, a mirror of Docker Hub on port 5000
    #[command(after_long_help = EXAMPLES)]
    Serve {
        #[command(flatten)]
        file: FileArgument,
    },
    /// Remove content that no manifest names; only while nobody serves from the folder
    #[command(name = "garbage-collect")]
    GarbageCollect {
        /// Say what would be removed, and change nothing
        #[arg(short, long)]
        dry_run: bool,
        /// Remove manifests, too, that no tag names and no tagged one needs
        #[arg(short = 'm', long)]
        delete_untagged: bool,
        /// Say nothing but what goes wrong
        #[arg(short, long)]
        quiet: bool,
        #[command(flatten)]
        file: FileArgument,
    },
    /// Read the configuration, say what is wrong with it or what is in force, and start nothing
    Check {
        #[command(flatten)]
        file: FileArgument,
        /// Print the reference of all keys, docs/configuration.md, instead
        #[arg(long, conflicts_with_all = ["config", "file"])]
        reference: bool,
    },
    /// Show what is left of each registry's pull limit, by account and way out
    ///
    /// A running instance is asked, at its operator's port. REST is how many manifest GETs are left of LIMIT, USED how many
    /// this instance made in that window; what nobody knows yet is `-`. A lane is open, spent, resting (the registry wants
    /// the way out left alone for a while) or logged out. docs/quota.md says what the lanes are and what helps.
    Quota {
        #[command(flatten)]
        file: FileArgument,
        /// Where to ask, instead of the configuration's `admin.addr`: HOST:PORT or unix:/PATH
        #[arg(long, value_name = "ADDR")]
        admin: Option<String>,
        /// Print what the instance answers, a document of JSON, instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Make a certificate for the pull port, signed by an authority of your own that is made with it
    ///
    /// The authority, ca.crt and ca.key, is kept where it is there, since clients trust it; the certificate, tls.crt and
    /// tls.key, is made anew each time. A server that uses it takes the new one within a second or two.
    DevCertificate {
        /// A name or an address that clients reach the mirror by; several times for several [default: those of the
        /// certificate that is there, else this machine's name]
        #[arg(long = "host", value_name = "HOST")]
        hosts: Vec<String>,
        /// The folder to write to
        #[arg(long, value_name = "FOLDER", default_value = "stopover-tls")]
        out: PathBuf,
    },
    /// Print what docker, containerd, podman and others need for this mirror; write it, or take it back
    Client(client::Arguments),
}

#[derive(Args, Debug)]
struct FileArgument {
    /// The configuration file, TOML or a registry's config.yml, instead of the one in the usual places
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// The same by name
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    config: Option<PathBuf>,
}

impl FileArgument {
    fn path(&self) -> Option<&Path> {
        self.config.as_deref().or(self.file.as_deref())
    }
}

/// Returns the arguments as [`Arguments`] takes them, and the name that the program was started under.
///
/// registry:2's image has a script in front of it, which this stands for: a `config.yml` alone is served, and `registry`
/// may be said again.
fn understood(given: impl IntoIterator<Item = OsString>) -> (Vec<OsString>, RunAs) {
    let is_named = |argument: &OsString, names: &[&str]| {
        let name = Path::new(argument).file_name().and_then(OsStr::to_str);
        name.is_some_and(|name| names.contains(&name))
    };
    let mut given: Vec<OsString> = given.into_iter().collect();
    let mut run_as = RunAs::Stopover;
    if given.first().is_some_and(|program| is_named(program, &REGISTRYS_NAMES)) {
        run_as = RunAs::Registry;
    }
    if given.get(1).is_some_and(|word| is_named(word, &REGISTRYS_NAMES)) {
        run_as = RunAs::Registry;
        given.remove(1);
    }
    let first = given.get(1).map(|first| first.to_string_lossy().into_owned()).unwrap_or_default();
    if first.ends_with(".yml") || first.ends_with(".yaml") {
        given.insert(1, "serve".into());
    } else if first == "-v" {
        given[1] = "--version".into();
    }
    (given, run_as)
}

/// Does what the command line says and returns the exit code.
pub fn run() -> ExitCode {
    let (arguments, run_as) = understood(std::env::args_os());
    if run_as == RunAs::Registry && arguments.get(1).is_some_and(|word| word == "--version") {
        print(concat!("registry stopover ", env!("CARGO_PKG_VERSION"), "\n"));
        return ExitCode::SUCCESS;
    }
    let done = match Arguments::parse_from(arguments).command {
        Command::Serve { file } => serve(file.path(), run_as),
        Command::GarbageCollect { dry_run, delete_untagged, quiet, file } => {
            let keep = if delete_untagged { Keep::TaggedManifests } else { Keep::EveryManifest };
            collect(load(file.path(), run_as), keep, if dry_run { Run::Dry } else { Run::Wet }, quiet)
        }
        Command::Check { reference: true, .. } => {
            print(&config::reference());
            Ok(ExitCode::SUCCESS)
        }
        Command::Quota { file, admin, json } => {
            quota(admin.as_deref(), || load(file.path(), run_as)).map(|answer| {
                print(&if json { answer.text } else { quota::table(&answer.document) });
                ExitCode::SUCCESS
            })
        }
        Command::Client(arguments) => {
            let config = load(arguments.config(), run_as).map(|loaded| loaded.config);
            client::run(&arguments, config, &print).map(|()| ExitCode::SUCCESS)
        }
        Command::Check { file, .. } => check(file.path(), run_as).map(|text| {
            print(&text);
            ExitCode::SUCCESS
        }),
        Command::DevCertificate { hosts, out } => dev_certificate(&out, &hosts).map(|text| {
            print(&text);
            ExitCode::SUCCESS
        }),
    };
    done.unwrap_or_else(|message| {
        eprintln!("{message}");
        ExitCode::FAILURE
    })
}

/// Writes to standard output; whoever closed it does not want to read it.
fn print(text: &str) {
    let mut out = std::io::stdout();
    let _closed = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Collects garbage, and says so line by line.
fn collect(loaded: Result<Loaded, String>, keep: Keep, run: Run, quiet: bool) -> Result<ExitCode, String> {
    let Loaded { config, .. } = loaded?;
    let mut say = |line: &str| {
        if !quiet {
            print(&format!("{line}\n"));
        }
    };
    let collected = collect::collect(&config.storage.root, keep, run, &mut say);
    collected.map(|()| ExitCode::SUCCESS).map_err(|error| format!("stopover: {error}"))
}

/// Returns what is in force, or what is wrong.
fn check(file: Option<&Path>, run_as: RunAs) -> Result<String, String> {
    let Loaded { config, warnings, file } = load(file, run_as)?;
    let missing = crate::server::check(&config).map_err(|error| format!("stopover: {error}"))?;
    let read = file.map_or("no file".to_owned(), |file| file.display().to_string());
    let warnings: String =
        warnings.iter().chain(&missing).map(|warning| format!("warning: {warning}\n")).collect();
    Ok(format!("ok: read {read} and the environment\n{warnings}\n{}", config.effective()))
}

/// Returns what a running instance says is left of the pull limits. The configuration is read only where nobody says
/// where that instance is.
fn quota(
    admin: Option<&str>,
    load: impl FnOnce() -> Result<Loaded, String>,
) -> Result<quota::Answer, String> {
    let place = match admin {
        Some(admin) => Place::parse(admin),
        None => Place::of(load()?.config.admin.addr.as_ref()),
    };
    let failed = |error: &dyn std::fmt::Display| format!("stopover: {error}");
    let place = place.map_err(|error| failed(&error))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| failed(&error))?;
    let answer = runtime.block_on(quota::ask(&place));
    // A name that is being looked up is left to itself.
    runtime.shutdown_background();
    answer.map_err(|error| failed(&error))
}

/// Makes a certificate and returns how to use it.
fn dev_certificate(folder: &Path, hosts: &[String]) -> Result<String, String> {
    let made = tls::make_for_development(folder, hosts).map_err(|error| format!("stopover: {error}"))?;
    let until = |time| {
        let date = httpdate::fmt_http_date(time);
        // `Sun, 06 Nov 1994 08:49:37 GMT`: the day will do.
        date.get(5..16).unwrap_or_default().to_owned()
    };
    let host = made.hosts.first().map_or("localhost", String::as_str);
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    Ok(format!(
        "{verb} {authority}, the authority, valid until {authority_until}; its key is beside it: keep that to yourself\n\
         made {certificate} for {hosts}, valid until {until}\n\n\
         In stopover.toml:\n\n\
         [tls]\n\
         certificate = {certificate:?}\n\
         key = {key:?}\n\n\
         On each client, with a copy of ca.crt:\n\n\
         stopover client docker --mirror https://{host}:5000 --ca ca.crt\n",
        verb = if made.authority_is_new { "made" } else { "kept" },
        authority = made.authority.display(),
        authority_until = until(made.authority_not_after),
        certificate = made.certificate.display().to_string(),
        hosts = if made.hosts.is_empty() { "localhost".to_owned() } else { made.hosts.join(", ") },
        until = until(made.not_after),
        key = made.key.display().to_string(),
    ))
}

fn load(file: Option<&Path>, run_as: RunAs) -> Result<Loaded, String> {
    config::load(file, run_as).map_err(|mistakes| {
        let count = mistakes.0.len();
        format!(
            "{mistakes}\nstopover: {count} mistake{} in the configuration",
            if count == 1 { "" } else { "s" }
        )
    })
}

/// Serves until the end. Fails where it could not begin; what fails later stands in the log.
fn serve(file: Option<&Path>, run_as: RunAs) -> Result<ExitCode, String> {
    // Before there are threads, since it changes the environment.
    let passed = listen::passed().map_err(|error| format!("stopover: {error}"))?;
    let Loaded { config, warnings, file } = load(file, run_as)?;
    let metrics = Metrics::new();
    let log = log::init(&config.log, &metrics).map_err(|error| format!("stopover: no log: {error}"))?;
    let file = file.map_or("none".to_owned(), |file| file.display().to_string());
    tracing::info!(version = env!("CARGO_PKG_VERSION"), file, "starting");
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    let runtime = runtime(&config).map_err(|error| format!("stopover: no threads: {error}"))?;
    let served = runtime.block_on(crate::server::serve(config, passed, metrics, log.access()));
    runtime.shutdown_timeout(LEFTOVERS);
    // The log is written out as it goes, here.
    match served {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            tracing::error!("{error}");
            Ok(ExitCode::FAILURE)
        }
    }
}

fn runtime(config: &Config) -> std::io::Result<tokio::runtime::Runtime> {
    let workers = match config.http.workers {
        0 => available_parallelism().map_or(1, usize::from),
        workers => workers,
    };
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_stack_size(STACK_BYTES)
        .thread_name("stopover")
        .enable_all()
        .build()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Arguments::try_parse_from(line.split(' ')).map(|arguments| arguments.command)
    }

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn serve_and_check_take_a_file() {
        let is = |config: Option<PathBuf>, want: Option<&str>| config.as_deref() == want.map(Path::new);
        assert!(
            matches!(parse("stopover serve"), Ok(Command::Serve { file }) if is(file.config.clone(), None))
        );
        let named = parse("stopover serve --config a.toml");
        assert!(matches!(named, Ok(Command::Serve { file }) if is(file.config.clone(), Some("a.toml"))));
        let named = parse("stopover check --config a.toml");
        assert!(
            matches!(named, Ok(Command::Check { file, reference: false }) if is(file.config.clone(), Some("a.toml")))
        );
        assert!(matches!(parse("stopover check --reference"), Ok(Command::Check { reference: true, .. })));
        for wrong in
            ["stopover", "stopover run", "stopover serve a.toml --config b.toml", "stopover check --config"]
        {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_registrys_words_are_understood() {
        for (given, want, run_as) in [
            ("stopover serve", "stopover serve", RunAs::Stopover),
            ("/bin/registry serve /c.yml", "/bin/registry serve /c.yml", RunAs::Registry),
            (
                "registry /etc/docker/registry/config.yml",
                "registry serve /etc/docker/registry/config.yml",
                RunAs::Registry,
            ),
            ("/entrypoint.sh /c.yaml", "/entrypoint.sh serve /c.yaml", RunAs::Registry),
            ("registry registry serve c.yml", "registry serve c.yml", RunAs::Registry),
            ("stopover registry serve c.yml", "stopover serve c.yml", RunAs::Registry),
            ("stopover c.yml", "stopover serve c.yml", RunAs::Stopover),
            ("registry -v", "registry --version", RunAs::Registry),
            ("registry", "registry", RunAs::Registry),
        ] {
            let (words, found) = understood(given.split(' ').map(OsString::from));
            let words: Vec<String> = words.iter().map(|word| word.to_str().unwrap().to_owned()).collect();
            assert_eq!((words.join(" ").as_str(), found), (want, run_as), "{given}");
        }
    }

    #[test]
    fn the_help_shows_how_to_begin() {
        let help = Arguments::command().render_long_help().to_string();
        for part in ["stopover serve", "registry-mirrors", "REGISTRY_PROXY_REMOTEURL", "stopover check"] {
            assert!(help.contains(part), "{part}\n{help}");
        }
    }

    #[test]
    fn check_says_what_is_in_force_or_all_that_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stopover.toml");
        std::fs::write(&path, "[cache]\ntag_ttl = \"5m\"\n").unwrap();
        let text = check(Some(&path), RunAs::Stopover).unwrap();
        assert!(text.starts_with(&format!("ok: read {} and the environment", path.display())), "{text}");
        assert!(text.contains("[cache]\ntag_ttl = \"5m\"\n"), "{text}");

        std::fs::write(&path, "[cache]\ntag_tll = \"5m\"\nabsent_ttl = 1\n").unwrap();
        let text = check(Some(&path), RunAs::Stopover).unwrap_err();
        let name = path.display();
        let want = format!(
            "{name}:2:1: unknown key cache.tag_tll; did you mean cache.tag_ttl?\n\
             {name}:3:14: cache.absent_ttl: found 1, expected a duration up to 1d, such as \"30s\" or \"1h30m\"\n\
             stopover: 2 mistakes in the configuration"
        );
        assert_eq!(text, want);
    }
}
