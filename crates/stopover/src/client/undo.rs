//! What was written, so that it can be taken back: one record in the folder of each client's settings.
//!
//! It promises that a file nobody has edited since gets back the bytes it had, that out of one that was edited only what
//! was put in is taken, and that a file which was made is removed with what was made for it.

use serde::{Deserialize, Serialize};

use super::{
    diff, json,
    machine::{Machine, PRIVATE},
    toml,
};

/// The record's name.
const NAME: &str = "stopover-undo.json";
const NOTE: &str = "what `stopover client --write` changed here, for `stopover client --undo`";

/// All that was written for a client.
#[derive(Debug, Default, Deserialize, PartialEq, Serialize)]
pub(super) struct Record {
    note: String,
    /// Folders that were made, each after the one that holds it.
    folders: Vec<String>,
    files: Vec<Written>,
}

/// One file that was written, as it was and as it became.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct Written {
    path: String,
    before: Option<String>,
    after: String,
}

/// A file, as it is and as it becomes by taking back.
pub(super) struct Restored {
    pub(super) path: String,
    pub(super) now: Option<String>,
    pub(super) then: Option<String>,
}

impl Record {
    /// Returns the record in the folder `home`; an empty one where there is none.
    pub(super) fn read(machine: &Machine, home: &str) -> Result<Self, String> {
        let path = path(home);
        let Some(text) = machine.read(&path)? else { return Ok(Self::default()) };
        serde_json::from_str(&text).map_err(|error| format!("{}: {error}", machine.shown(&path)))
    }

    /// Writes the record, or removes it where it holds nothing.
    pub(super) fn write(&self, machine: &Machine, home: &str) -> Result<Vec<String>, String> {
        let path = path(home);
        if self.files.is_empty() {
            machine.remove(&path)?;
            return Ok(Vec::new());
        }
        let mut text = serde_json::to_string_pretty(self).expect("texts and lists are JSON");
        text.push('\n');
        machine.write(&path, &text, PRIVATE)
    }

    /// Notes that a file is about to be written.
    pub(super) fn add_file(&mut self, path: &str, before: Option<&str>, after: &str) {
        NOTE.clone_into(&mut self.note);
        self.files.push(Written {
            path: path.to_owned(),
            before: before.map(str::to_owned),
            after: after.to_owned(),
        });
    }

    /// Notes folders that were made.
    pub(super) fn add_folders(&mut self, folders: Vec<String>) {
        self.folders.extend(folders);
    }

    /// Returns whether there is nothing to take back.
    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Returns what each file becomes, and says of which files something cannot be taken back. What can is no longer in
    /// the record.
    pub(super) fn take_back(&mut self, machine: &Machine) -> Result<(Vec<Restored>, Vec<String>), String> {
        let mut restored: Vec<Restored> = Vec::new();
        let mut failures = Vec::new();
        let mut kept = Vec::new();
        let mut stuck: Vec<String> = Vec::new();
        for written in std::mem::take(&mut self.files).into_iter().rev() {
            if stuck.contains(&written.path) {
                kept.push(written);
                continue;
            }
            let at = restored.iter().position(|file| file.path == written.path);
            let at = match at {
                Some(at) => at,
                None => {
                    let now = machine.read(&written.path)?;
                    restored.push(Restored { path: written.path.clone(), then: now.clone(), now });
                    restored.len() - 1
                }
            };
            match back(&written, restored[at].then.as_deref()) {
                Ok(then) => restored[at].then = then,
                Err(what) => {
                    failures.push(format!("{}: {what}", machine.shown(&written.path)));
                    stuck.push(written.path.clone());
                    kept.push(written);
                }
            }
        }
        kept.reverse();
        self.files = kept;
        Ok((restored, failures))
    }

    /// Removes the folders that were made, where nothing is left in them.
    pub(super) fn remove_folders(&mut self, machine: &Machine) {
        for folder in self.folders.iter().rev() {
            machine.remove_folder(folder);
        }
        self.folders.retain(|folder| machine.exists(folder));
    }
}

/// Returns the record's path.
pub(super) fn path(home: &str) -> String {
    format!("{home}/{NAME}")
}

fn back(written: &Written, now: Option<&str>) -> Result<Option<String>, String> {
    let Some(now) = now else { return Ok(None) };
    if now == written.after {
        return Ok(written.before.clone());
    }
    let before = written.before.as_deref();
    if written.path.ends_with(".json") {
        return json::without(before, &written.after, now);
    }
    let then = diff::taken_back(before.unwrap_or_default(), &written.after, now).map_err(|lost| {
        let lost = lost.trim_end().replace('\n', "\n    ");
        format!("was edited where it had been changed; take this out by hand:\n    {lost}")
    })?;
    let was_toml = written.path.ends_with(".toml") || written.path.ends_with(".conf");
    if was_toml && toml::values(now).is_ok() {
        toml::values(&then).map_err(|what| format!("would not be TOML any more, at line {what}"))?;
    }
    let nothing_left = before.is_none() && then.trim().is_empty();
    Ok((!nothing_left).then_some(then))
}
