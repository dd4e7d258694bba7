//! The binary run to its end: what it says and how it ends.

use std::{
    path::Path,
    process::{Command, Output, Stdio},
};

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
