//! A machine's disk in a folder, and the binary run on it.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

/// The mirror of all tests.
pub(crate) const MIRROR: &str = "http://mirror.example:5000";

/// What looks enough like a certificate.
pub(crate) const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";

/// How the program ended, and what it said.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ended {
    /// Returns what it printed; it must have succeeded.
    #[track_caller]
    pub(crate) fn right(self) -> String {
        assert_eq!(self.code, Some(0), "{}{}", self.out, self.err);
        self.out
    }

    /// Returns what it complained of; it must have failed.
    #[track_caller]
    pub(crate) fn wrong(self) -> String {
        assert_eq!(self.code, Some(1), "{}{}", self.out, self.err);
        self.err
    }
}

/// A disk.
pub(crate) struct Machine {
    disk: tempfile::TempDir,
    /// Where the program is started: a folder that is no part of the disk.
    desk: tempfile::TempDir,
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self { disk: tempfile::tempdir().unwrap(), desk: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn place(&self, path: &str) -> PathBuf {
        self.disk.path().join(path.trim_start_matches('/'))
    }

    pub(crate) fn put(&self, path: &str, text: &str) {
        let place = self.place(path);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(place, text).unwrap();
    }

    #[track_caller]
    pub(crate) fn text(&self, path: &str) -> String {
        fs::read_to_string(self.place(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Puts a file where the program is started.
    pub(crate) fn put_on_desk(&self, name: &str, text: &str) {
        fs::write(self.desk.path().join(name), text).unwrap();
    }

    /// Returns whether a file is where the program is started.
    pub(crate) fn is_on_desk(&self, name: &str) -> bool {
        self.desk.path().join(name).exists()
    }

    pub(crate) fn mode(&self, path: &str) -> u32 {
        fs::metadata(self.place(path)).unwrap().permissions().mode() & 0o7777
    }

    /// Returns every file with its content, and every empty folder.
    pub(crate) fn everything(&self) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        let mut rest = vec![self.disk.path().to_owned()];
        while let Some(path) = rest.pop() {
            let name = path.strip_prefix(self.disk.path()).unwrap().display().to_string();
            if path.is_symlink() {
                found.insert(name, format!("-> {}", fs::read_link(path).unwrap().display()));
            } else if path.is_dir() {
                let children: Vec<PathBuf> =
                    fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).collect();
                if children.is_empty() {
                    found.insert(format!("{name}/"), String::new());
                }
                rest.extend(children);
            } else {
                found.insert(name, fs::read_to_string(path).unwrap());
            }
        }
        found
    }

    /// Runs `stopover client`, with `--mirror` unless the arguments say otherwise.
    pub(crate) fn client(&self, arguments: &str) -> Ended {
        self.client_in(arguments, &[])
    }

    pub(crate) fn client_in(&self, arguments: &str, env: &[(&str, &str)]) -> Ended {
        let mut all: Vec<&str> = arguments.split(' ').collect();
        if !arguments.contains("--mirror") && !arguments.contains("--undo") {
            all.extend(["--mirror", MIRROR]);
        }
        self.run(&all, env)
    }

    /// Runs `stopover client` with these arguments and no others but the disk.
    pub(crate) fn run(&self, arguments: &[&str], env: &[(&str, &str)]) -> Ended {
        let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_stopover"))
            .arg("client")
            .args(arguments)
            .arg("--root")
            .arg(self.disk.path())
            .env_clear()
            .envs(env.iter().copied())
            .current_dir(self.desk.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let root = self.disk.path().display().to_string();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().replace(&root, "");
        Ended { code: status.code(), out: text(stdout), err: text(stderr) }
    }
}
