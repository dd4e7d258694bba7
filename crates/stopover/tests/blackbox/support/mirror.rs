//! A mirror: the real binary with an environment and a folder of its own, killed when dropped.

use std::{
    io::{BufRead, BufReader, Read},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
};

use hubsim::Hub;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::{Answer, Reply, client, soon, until};

const PREFETCH: &str = "STOPOVER_CACHE__PREFETCH";

/// What differs from the mirror that most tests use.
#[derive(Clone, Default)]
pub(crate) struct MirrorOptions {
    env: Vec<(String, String)>,
    upstream: Option<String>,
    root: Option<PathBuf>,
    /// The `/etc/hosts` and `/etc/resolv.conf` that it sees.
    names: Option<[PathBuf; 2]>,
    passed: Vec<(String, Arc<OwnedFd>)>,
}

impl MirrorOptions {
    /// Sets a variable of the environment, such as `STOPOVER_CACHE__TAG_TTL` to `1s`; a later value replaces an earlier.
    pub(crate) fn env(mut self, name: &str, value: impl ToString) -> Self {
        self.env.retain(|(known, _)| known != name);
        self.env.push((name.to_owned(), value.to_string()));
        self
    }

    /// Returns the variables that are set.
    pub(crate) fn variables(&self) -> Vec<(&str, &str)> {
        self.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }

    /// Pulls with an account.
    pub(crate) fn account(self, user: &str, password: &str) -> Self {
        self.env("REGISTRY_PROXY_USERNAME", user).env("REGISTRY_PROXY_PASSWORD", password)
    }

    /// Has tags asked about each time.
    pub(crate) fn tags_never_fresh(self) -> Self {
        self.env("STOPOVER_CACHE__TAG_TTL", "0")
    }

    /// Has it fetch blobs before they are asked for, as it does where nobody says otherwise.
    pub(crate) fn prefetching(self) -> Self {
        self.env(PREFETCH, 4)
    }

    /// Mirrors this URL, not the Hub's.
    pub(crate) fn upstream(mut self, url: &str) -> Self {
        self.upstream = Some(url.to_owned());
        self
    }

    /// Lets it alone see these files as `/etc/hosts` and `/etc/resolv.conf`. Needs root, as mounting does.
    pub(crate) fn seeing_names(mut self, hosts: &Path, resolver: &Path) -> Self {
        self.names = Some([hosts.to_owned(), resolver.to_owned()]);
        self
    }

    /// Passes it a socket as systemd does, by a name; two at most.
    pub(crate) fn passing(mut self, name: &str, socket: impl Into<OwnedFd>) -> Self {
        self.passed.push((name.to_owned(), Arc::new(socket.into())));
        self
    }

    /// Returns what becomes one of its standard streams, whose places the passed sockets take until the shell moves them.
    fn stream(&self, at: usize) -> Stdio {
        let passed = self.passed.get(at);
        passed.map_or_else(Stdio::null, |(_, socket)| {
            socket.try_clone().expect("there are free file descriptors").into()
        })
    }

    /// Keeps content in this folder, which stays.
    pub(crate) fn root(mut self, root: &Path) -> Self {
        self.root = Some(root.to_owned());
        self
    }
}

/// A running mirror.
pub(crate) struct Mirror {
    child: Child,
    address: String,
    admin: String,
    log: Arc<Log>,
    root: PathBuf,
    folder: Arc<TempDir>,
    upstream: String,
    options: MirrorOptions,
}

impl Mirror {
    /// Starts a mirror of the Hub on an empty folder.
    pub(crate) async fn start(hub: &Hub) -> Self {
        Self::start_with(hub, MirrorOptions::default()).await
    }

    /// Starts a mirror of the Hub.
    pub(crate) async fn start_with(hub: &Hub, options: MirrorOptions) -> Self {
        let folder = Arc::new(tempfile::tempdir().expect("a temporary folder can be made"));
        let upstream = options.upstream.clone().unwrap_or_else(|| hub.registry_url());
        Self::spawn(folder, upstream, options).await
    }

    /// Kills it with SIGKILL and starts it anew, on other ports, with the same folder and options.
    pub(crate) async fn restart(self) -> Self {
        self.restart_with(|options| options).await
    }

    /// The same with other options.
    pub(crate) async fn restart_with(mut self, change: impl FnOnce(MirrorOptions) -> MirrorOptions) -> Self {
        self.kill9();
        let options = change(self.options.clone());
        Self::spawn(Arc::clone(&self.folder), self.upstream.clone(), options).await
    }

    async fn spawn(folder: Arc<TempDir>, upstream: String, options: MirrorOptions) -> Self {
        let root = options.root.clone().unwrap_or_else(|| folder.path().join("registry"));
        let mut command = command(&options, &upstream, &root);
        let child = command.current_dir(folder.path()).stderr(Stdio::piped()).spawn();
        let mut child = child.expect("the binary can be started");
        let log = Log::read(child.stderr.take().expect("its standard error is a pipe"));
        let mut mirror = Self {
            child,
            address: String::new(),
            admin: String::new(),
            log,
            root,
            folder,
            upstream,
            options,
        };
        mirror.address = mirror.logged_address("listening").await;
        mirror.admin = mirror.logged_address("the operator's port listens").await;
        mirror
    }

    async fn logged_address(&mut self, message: &str) -> String {
        until("the mirror listens", || {
            let line = self.log.lines().into_iter().find(|line| line["msg"] == message);
            let ended = line.is_none().then(|| self.child.try_wait().expect("it is our child")).flatten();
            assert!(ended.is_none(), "the mirror ended at its start: {ended:?}");
            line.map(|line| line["address"].as_str().expect("an address is logged").to_owned())
        })
        .await
    }

    /// Returns its URL, such as `http://127.0.0.1:41234`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns its host and port.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Returns the URL of the operator's port.
    pub(crate) fn admin_url(&self) -> String {
        format!("http://{}", self.admin)
    }

    /// Returns the folder of its content.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Returns where content of this digest stands, or would.
    pub(crate) fn blob_file(&self, digest: &oci::Digest) -> PathBuf {
        let (algorithm, hex) = (digest.algorithm().to_string(), digest.hex());
        self.root.join("docker/registry/v2/blobs").join(algorithm).join(&hex[..2]).join(hex).join("data")
    }

    /// Returns the files below a folder of the root, such as `docker/registry/v2/blobs`.
    pub(crate) fn files_below(&self, folder: &str) -> Vec<PathBuf> {
        let (mut folders, mut files) = (vec![self.root.join(folder)], Vec::new());
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
                if is_folder { &mut folders } else { &mut files }.push(entry.path());
            }
        }
        files
    }

    /// Returns its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks for a path and reads all of the answer.
    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.get_with(path, &[]).await
    }

    /// The same with headers.
    pub(crate) async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Reply {
        client::get(&format!("{}{path}", self.url()), headers).await
    }

    /// Asks for the head of a path.
    pub(crate) async fn head(&self, path: &str) -> Reply {
        client::head(&format!("{}{path}", self.url()), &[]).await
    }

    /// Asks for a path and reads the head of the answer alone.
    pub(crate) async fn open(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        client::open("GET", &format!("{}{path}", self.url()), headers).await
    }

    /// Returns the text of its metrics.
    pub(crate) async fn metrics(&self) -> String {
        client::get(&format!("{}/metrics", self.admin_url()), &[]).await.text()
    }

    /// Returns the sum of a metric's samples whose line holds all of `labels`, such as `outcome="hit"`.
    pub(crate) async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let text = self.metrics().await;
        let samples = text.lines().filter(|line| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|label| line.contains(label))
        });
        samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Waits until a metric's sum is as `reached` wants it.
    pub(crate) async fn until_metric(&self, name: &str, reached: impl Fn(f64) -> bool) {
        soon(&format!("{name} is as wanted"), async {
            while !reached(self.metric(name, &[]).await) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// Returns the log so far; what is no JSON is a string.
    pub(crate) fn log_lines(&self) -> Vec<Value> {
        self.log.lines()
    }

    /// Waits for a line of the log.
    pub(crate) async fn until_line(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        until(what, || self.log.lines().into_iter().find(&wanted)).await
    }

    /// Waits until content of this digest is in the store and some repository has it, which comes last.
    pub(crate) async fn until_stored(&self, digest: &oci::Digest) {
        let file = self.blob_file(digest);
        let link = Path::new(digest.hex().as_str()).join("link");
        until("the content is stored", || {
            let links = || self.files_below("docker/registry/v2/repositories");
            (file.exists() && links().iter().any(|file| file.ends_with(&link))).then_some(())
        })
        .await;
    }

    /// Ends it at once.
    pub(crate) fn kill9(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        self.child.wait().expect("it is our child");
    }

    /// Asks it to end.
    pub(crate) fn sigterm(&self) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).expect("it runs");
    }

    /// Waits until it has ended.
    pub(crate) async fn wait_exit(&mut self) -> ExitStatus {
        let child = &mut self.child;
        until("the mirror ends", || child.try_wait().expect("it is our child")).await
    }

    /// Returns whether it still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_none()
    }

    /// Returns its anonymous resident memory, in bytes.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("Linux says it");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("it is a number") << 10
    }

    /// Returns how many files and sockets it has open.
    pub(crate) fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("it runs").count()
    }
}

/// Runs what ends at its start, and returns what it says of that.
pub(crate) async fn refused(options: MirrorOptions) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let mut command = command(&options, "http://127.0.0.1:1", &folder.path().join("registry"));
    let run = tokio::task::spawn_blocking(move || command.stderr(Stdio::piped()).output());
    let ended = soon("the mirror ends", run).await.expect("running does not panic");
    let ended = ended.expect("the binary can be started");
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(1), "{said}");
    said
}

/// Returns the command that serves by these options.
fn command(options: &MirrorOptions, upstream: &str, root: &Path) -> Command {
    let mut command = program(options);
    command
        .arg("serve")
        .env_clear()
        .env("REGISTRY_PROXY_REMOTEURL", upstream)
        .env("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY", root)
        .env("STOPOVER_HTTP__ADDR", "127.0.0.1:0")
        .env("STOPOVER_ADMIN__ADDR", "127.0.0.1:0")
        .env("STOPOVER_HTTP__WORKERS", "2")
        // What a test counts is what its own requests brought.
        .env(PREFETCH, "0")
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .envs(options.env.iter().map(|(name, value)| (name, value)))
        .stdin(options.stream(0))
        .stdout(options.stream(1));
    command
}

/// Returns the command that runs the binary. What mounts for it becomes the binary itself, so that one process is killed.
fn program(options: &MirrorOptions) -> Command {
    const BINARY: &str = env!("CARGO_BIN_EXE_stopover");
    const PASSING: &str = r#"exec 3<&0 4<&1 </dev/null >/dev/null; export "LISTEN_FDS=$0" "LISTEN_FDNAMES=$1" LISTEN_PID=$$; shift; exec "$@""#;
    const MOUNTING: &str =
        r#"mount --bind "$1" /etc/hosts && mount --bind "$2" /etc/resolv.conf && shift 2 && exec "$@""#;
    if !options.passed.is_empty() {
        let names: Vec<&str> = options.passed.iter().map(|(name, _)| name.as_str()).collect();
        let mut command = Command::new("sh");
        command.args(["-c", PASSING, &names.len().to_string(), &names.join(":"), BINARY]);
        return command;
    }
    let Some([hosts, resolver]) = &options.names else { return Command::new(BINARY) };
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", MOUNTING, "sh"]).arg(hosts).arg(resolver).arg(BINARY);
    command
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.kill9();
        if std::thread::panicking() {
            for line in self.log.lines() {
                eprintln!("mirror: {line}");
            }
        }
    }
}

/// The log of a mirror, read as it is written.
#[derive(Default)]
struct Log {
    lines: Mutex<Vec<Value>>,
}

impl Log {
    fn read(from: impl Read + Send + 'static) -> Arc<Self> {
        let log = Arc::new(Self::default());
        let kept = Arc::clone(&log);
        // It ends with the pipe, and so with the mirror.
        std::thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                let line = serde_json::from_str(&line).unwrap_or(Value::String(line));
                kept.lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        log
    }

    fn lines(&self) -> Vec<Value> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
