//! A program that knows the account: Docker's protocol for credential helpers, `<program> get`.
//!
//! It promises that the program runs once for all who wait, without a shell, for a bounded time and with bounded
//! output; that what it gave is shown to nobody but the caller; and that its failure is a line in the log and never a
//! failed pull: what it gave last is used on, or nothing.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::Command,
    time::timeout,
};

use super::{account::Proof, token::locked};
use crate::{clock::Clock, flight::Flights};

/// How long the program may take.
const RUN_WITHIN: Duration = Duration::from_secs(8);
/// What is read of its output; an account is some thousand bytes long at most.
const OUTPUT_BYTES_MAX: usize = 64 << 10;
/// What is shown of its complaints, in characters.
const COMPLAINT_CHARS_MAX: usize = 256;
/// How long a failure is believed, so that a burst of pulls is one run.
const FAILED_FOR: Duration = Duration::from_secs(5);
/// What begins the names of Docker's helpers, which configurations leave out.
pub(super) const PREFIX: &str = "docker-credential-";

/// The program, and what it gave.
pub(super) struct Helper {
    program: PathBuf,
    /// What it is asked for.
    server: String,
    /// How long what it gave is used; `None` is until it is refused.
    lifetime: Option<Duration>,
    clock: Clock,
    state: Mutex<State>,
    flights: Arc<Flights<(), Option<Proof>>>,
}

#[derive(Default)]
struct State {
    given: Option<(Proof, Instant)>,
    failed: Option<Instant>,
}

#[derive(Deserialize)]
struct Given {
    #[serde(rename = "Username")]
    username: String,
    #[serde(rename = "Secret")]
    secret: String,
}

impl Helper {
    /// Returns the helper of that name or path; `None` where there is no such program.
    pub(super) fn new(
        name: &str,
        server: String,
        lifetime: Option<Duration>,
        clock: Clock,
    ) -> Option<Arc<Self>> {
        let program = find(name, &env::var_os("PATH").unwrap_or_default())?;
        let (state, flights) = (Mutex::default(), Flights::new());
        Some(Arc::new(Self { program, server, lifetime, clock, state, flights }))
    }

    /// Returns what proves the account; `None` where the program gives none.
    pub(super) async fn account(self: &Arc<Self>) -> Option<Proof> {
        let now = self.clock.now();
        {
            let state = locked(&self.state);
            let is_fresh = |at: &Instant| {
                self.lifetime.is_none_or(|lifetime| now.saturating_duration_since(*at) < lifetime)
            };
            let rests = state.failed.is_some_and(|at| now < at + FAILED_FOR);
            if let Some((proof, _)) = state.given.as_ref().filter(|(_, at)| rests || is_fresh(at)) {
                return Some(proof.clone());
            }
            if rests {
                return None;
            }
        }
        let helper = Arc::clone(self);
        let landed = self.flights.run((), || async move { helper.ask().await });
        landed.await?.value
    }

    /// Forgets an account that was refused; returns whether another may come in its stead.
    pub(super) fn refused(&self, proof: &Proof) -> bool {
        let mut state = locked(&self.state);
        let now = self.clock.now();
        let was_given = state.given.as_ref().filter(|(given, _)| given == proof).map(|(_, at)| *at);
        // What has just been given is not asked for again at once: the program has nothing better.
        let is_old = was_given.is_some_and(|at| now > at + FAILED_FOR);
        if is_old {
            state.given = None;
        }
        is_old
    }

    async fn ask(&self) -> Option<Proof> {
        let given = self.run().await;
        let now = self.clock.now();
        let mut state = locked(&self.state);
        match given {
            Ok(proof) => *state = State { given: Some((proof, now)), failed: None },
            Err(error) => {
                state.failed = Some(now);
                let goes_on =
                    if state.given.is_some() { "with the account that it gave last" } else { "anonymously" };
                tracing::error!(program = %self.program.display(), error, goes_on, "the credential helper gave no account");
            }
        }
        state.given.as_ref().map(|(proof, _)| proof.clone())
    }

    async fn run(&self) -> Result<Proof, String> {
        let mut child = Command::new(&self.program)
            .arg("get")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("it cannot be started: {error}"))?;
        let mut group = Group(child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)));
        let (mut input, output, errors) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let talk = async {
            let write = async {
                if let Some(input) = &mut input {
                    // A program that does not want to hear it closes its end.
                    let _closed = input.write_all(self.server.as_bytes()).await;
                }
                drop(input.take());
            };
            let (_, output, errors) = tokio::join!(write, read(output), read(errors));
            (child.wait().await, output, errors)
        };
        let too_late = |_| format!("it did not end within {} s", RUN_WITHIN.as_secs());
        let (status, output, errors) = timeout(RUN_WITHIN, talk).await.map_err(too_late)?;
        group.0 = None;
        let status = status.map_err(|error| error.to_string())?;
        if !status.success() {
            // Helpers complain on standard output; what looks like an account is not shown.
            let complaint =
                [output, errors].into_iter().flatten().find(|text| !text.is_empty() && !text.contains(&b'{'));
            return Err(format!("{status}{}", shown(complaint.as_deref().unwrap_or_default())));
        }
        account(&output.ok_or("it said more than 64 KiB")?)
    }
}

/// A running program and what it started, which all ends where it is given up: by itself it might go on for ever, and
/// the next run would start another. To be dropped before the program is, since its number may then be another's.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        // Fails where nobody is left.
        let _ended = self.0.map(|group| kill_process_group(group, Signal::KILL));
    }
}

/// Reads to the end; `None` where that is more than an account can be.
async fn read(from: Option<impl AsyncRead + Unpin>) -> Option<Vec<u8>> {
    let mut from = from?;
    let mut kept = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match from.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(len) if kept.len() <= OUTPUT_BYTES_MAX => kept.extend_from_slice(&buffer[..len]),
            // Who writes on without end is killed when the time is up.
            Ok(_) => {}
        }
    }
    (kept.len() <= OUTPUT_BYTES_MAX).then_some(kept)
}

/// Returns the account that the program gave. No part of it stands in the error.
fn account(output: &[u8]) -> Result<Proof, String> {
    let given: Given = serde_json::from_slice(output)
        .map_err(|_| "it said something else than a JSON object with Username and Secret".to_owned())?;
    Proof::of_pair(&given.username, &given.secret).map_err(|what| format!("it gave {what}"))
}

/// Returns a complaint as the end of a message, on one line.
fn shown(complaint: &[u8]) -> String {
    let text = String::from_utf8_lossy(complaint);
    let line: String =
        text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(COMPLAINT_CHARS_MAX).collect();
    if line.is_empty() { line } else { format!(": {line}") }
}

/// Returns the program of that path, or of that name or short name in `folders`, which is like PATH.
fn find(name: &str, folders: &std::ffi::OsStr) -> Option<PathBuf> {
    if name.contains('/') {
        return Some(PathBuf::from(name)).filter(|path| is_program(path));
    }
    let names = [name.to_owned(), format!("{PREFIX}{name}")];
    let paths = names.iter().flat_map(|name| env::split_paths(folders).map(move |folder| folder.join(name)));
    paths.into_iter().find(|path| path.is_absolute() && is_program(path))
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(folder: &Path, name: &str, text: &str) -> PathBuf {
        let path = folder.join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn a_program_is_found_by_path_name_and_short_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = script(folder.path(), "docker-credential-x", "");
        fs::write(folder.path().join("plain"), "").unwrap();
        let folders = folder.path().as_os_str();
        for name in ["docker-credential-x", "x", path.to_str().unwrap()] {
            assert_eq!(find(name, folders).as_deref(), Some(path.as_path()), "{name}");
        }
        for name in ["plain", "y", "x --flag", "./x", ""] {
            assert_eq!(find(name, folders), None, "{name}");
        }
    }

    #[tokio::test]
    async fn what_is_no_account_is_named_and_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let give = |user: &str, secret: &str| {
            format!(r#"echo '{{"ServerURL":"x","Username":"{user}","Secret":"{secret}"}}'"#)
        };
        for (n, (text, want)) in [
            (give("ann", ""), "it gave an empty user or password"),
            (give("hun:ter2", "hunter2"), "it gave a user with a colon"),
            ("echo hunter2".to_owned(), "it said something else"),
            ("echo credentials not found; exit 3".to_owned(), "exit status: 3: credentials not found"),
            ("echo no region >&2; exit 1".to_owned(), "exit status: 1: no region"),
            (format!("{}; exit 1", give("ann", "hunter2")), "exit status: 1"),
            ("head -c 100000 /dev/zero".to_owned(), "it said more than 64 KiB"),
        ]
        .into_iter()
        .enumerate()
        {
            let program = script(folder.path(), &format!("helper{n}"), &text);
            let helper =
                Helper::new(program.to_str().unwrap(), "x".to_owned(), None, Clock::default()).unwrap();
            let error = helper.run().await.unwrap_err();
            assert!(error.starts_with(want) && !error.contains("hunter2"), "{text}: {error}");
        }
    }

    #[tokio::test]
    async fn what_it_started_ends_with_it_where_it_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let started = folder.path().join("started");
        // A wrapper around a program that hangs.
        let text = format!("sleep 100 &\necho $! > {0}.new\nmv {0}.new {0}\nwait", started.display());
        let program = script(folder.path(), "helper", &text);
        let helper = Helper::new(program.to_str().unwrap(), "x".to_owned(), None, Clock::default()).unwrap();
        let run = tokio::spawn(async move { helper.run().await });
        let until = async |is_so: &dyn Fn() -> bool| {
            while !is_so() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(RUN_WITHIN, until(&|| started.exists())).await.unwrap();
        run.abort();
        let stat = format!("/proc/{}/stat", fs::read_to_string(&started).unwrap().trim());
        let ended = || fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "));
        timeout(RUN_WITHIN, until(&ended)).await.expect("it goes on");
    }

    #[tokio::test]
    async fn it_is_run_once_for_all_and_again_when_its_time_is_over_or_it_was_refused() {
        let folder = tempfile::tempdir().unwrap();
        let runs = folder.path().join("runs");
        let text = format!(
            "read server; echo \"$1 $server\" >> {0}; echo '{{\"Username\":\"ann\",\"Secret\":\"'$(wc -l < {0})'\"}}'",
            runs.display()
        );
        let program = script(folder.path(), "helper", &text);
        let count = || fs::read_to_string(&runs).unwrap_or_default().lines().count();
        let seconds = |seconds: u64| Duration::from_secs(seconds);
        for (lifetime, later, want) in [
            (None, 1000, 0),
            (Some(Duration::MAX), 1000, 0),
            (Some(seconds(60)), 59, 0),
            (Some(seconds(60)), 60, 1),
            (Some(seconds(0)), 0, 1),
        ] {
            let clock = Clock::default();
            let helper =
                Helper::new(program.to_str().unwrap(), "reg.example\n".to_owned(), lifetime, clock.clone())
                    .unwrap();
            let before = count();
            let first = futures_util::future::join_all((0..20).map(|_| helper.account())).await;
            assert!(first[0].is_some() && first.iter().all(|account| *account == first[0]));
            assert_eq!(count(), before + 1, "{lifetime:?}");
            clock.turn_on(seconds(later));
            assert!(helper.account().await.is_some());
            assert_eq!(count(), before + 1 + want, "{lifetime:?}");
        }
        let clock = Clock::default();
        let helper =
            Helper::new(program.to_str().unwrap(), "reg.example\n".to_owned(), None, clock.clone()).unwrap();
        let account = helper.account().await.unwrap();
        assert!(!helper.refused(&account), "it was given just now");
        clock.turn_on(seconds(10));
        assert!(helper.refused(&account));
        assert_ne!(helper.account().await.unwrap(), account);
        assert!(fs::read_to_string(&runs).unwrap().lines().all(|line| line == "get reg.example"));
        fs::remove_file(&program).unwrap();
        clock.turn_on(seconds(10_000));
        assert!(helper.account().await.is_some(), "what it gave last is used on");
    }
}
