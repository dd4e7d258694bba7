//! The binary with an environment of its own, and no more: run to its end, or serving.

use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex, PoisonError},
};

use crate::support::until;

/// How the program ended, and what it said.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs the binary with nothing but this environment, in a folder, until it ends by itself.
pub(crate) async fn run(folder: &Path, arguments: &[&str], env: &[(&str, &str)]) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stopover"));
    command.args(arguments).env_clear().envs(env.iter().copied()).current_dir(folder).stdin(Stdio::null());
    let run = tokio::task::spawn_blocking(move || command.output());
    let Output { status, stdout, stderr } =
        run.await.expect("running does not panic").expect("the binary can be started");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("the program says text");
    Ended { code: status.code(), out: text(stdout), err: text(stderr) }
}

/// The binary serving, with nothing but this environment; killed when dropped.
pub(crate) struct Serving {
    child: Child,
    said: Arc<Mutex<String>>,
    out: Arc<Mutex<String>>,
}

impl Serving {
    /// Starts it in a folder.
    pub(crate) fn start(folder: &Path, env: &[(&str, &str)]) -> Self {
        Self::start_as(Path::new(env!("CARGO_BIN_EXE_stopover")), &["serve"], folder, env)
    }

    /// Starts it under another name, which links to it, with other arguments.
    pub(crate) fn start_as(program: &Path, arguments: &[&str], folder: &Path, env: &[(&str, &str)]) -> Self {
        let mut child = Command::new(program)
            .args(arguments)
            .env_clear()
            .envs(env.iter().copied())
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary can be started");
        let said = kept(child.stderr.take().expect("its standard error is a pipe"));
        let out = kept(child.stdout.take().expect("its standard output is a pipe"));
        Self { child, said, out }
    }

    /// Waits until it has written a line that holds `wanted` to its standard output, and returns that line.
    pub(crate) async fn until_out(&self, wanted: &str) -> String {
        let text = || self.out.lock().unwrap_or_else(PoisonError::into_inner).clone();
        until(wanted, || text().lines().find(|line| line.contains(wanted)).map(str::to_owned)).await
    }

    /// Returns what it has written to its standard error.
    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until it has written a line that holds `wanted`, and returns that line.
    pub(crate) async fn until_said(&self, wanted: &str) -> String {
        until(wanted, || self.said().lines().find(|line| line.contains(wanted)).map(str::to_owned)).await
    }
}

/// Returns what a pipe brings, as it comes.
fn kept(pipe: impl Read + Send + 'static) -> Arc<Mutex<String>> {
    let text = Arc::new(Mutex::new(String::new()));
    let kept = Arc::clone(&text);
    // It ends with the pipe, and so with the process.
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.push_str(&line);
            kept.push('\n');
        }
    });
    text
}

impl Drop for Serving {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.child.kill();
        self.child.wait().expect("it is our child");
    }
}
