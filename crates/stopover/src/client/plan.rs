//! What one client needs: files with what is to stand in them, what to run next, and what to know.
//!
//! A plan is made by looking alone. It promises that a file that is there keeps all that it says: what cannot be merged
//! into it is an error of that file, and nothing is written.

use super::{json, machine::Machine, mirror::Mirror};

/// What is wanted, whatever the client.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) mirror: Mirror,
    /// The registries that go by the mirror.
    pub(super) registries: Vec<String>,
    /// Whether every other registry goes by it too, where a client can say that.
    pub(super) others: bool,
    /// The registry that the mirror takes a name for that names none.
    pub(super) default_registry: String,
    pub(super) authority: Option<Authority>,
}

/// The certificate that vouches for the mirror's own.
#[derive(Clone, Debug)]
pub(super) struct Authority {
    /// The file that was named, as it was named.
    pub(super) file: String,
    /// Its content: certificates, in PEM.
    pub(super) pem: String,
}

/// What a client needs.
#[derive(Clone, Debug, Default)]
pub(super) struct Plan {
    pub(super) files: Vec<Change>,
    /// Arguments for the client's own command line, where it has no file.
    pub(super) flags: Vec<String>,
    /// What to run, and what that does.
    pub(super) next: Vec<String>,
    /// What to know: one sentence or two each.
    pub(super) notes: Vec<String>,
}

/// A file as it is and as it is to be.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) path: String,
    /// What stands in it where there was no such file.
    pub(super) fresh: String,
    pub(super) before: Option<String>,
    /// What is to stand in it, or why that cannot be.
    pub(super) after: Result<String, String>,
}

impl Change {
    /// Returns the file `path` with `edit` made in it. One that is new begins with `head`.
    pub(super) fn edited(
        machine: &Machine,
        path: &str,
        head: &str,
        edit: impl Fn(&str) -> Result<String, String>,
    ) -> Result<Self, String> {
        let before = machine.read(path)?;
        let start = before.as_deref().filter(|text| !text.trim().is_empty()).unwrap_or(head);
        let after = edit(start).map_err(|what| format!("{}:{what}", machine.shown(path)));
        let fresh = edit(head).map_err(|what| format!("{path}:{what}"))?;
        Ok(Self { path: path.to_owned(), fresh, before, after })
    }

    /// Returns the file `path` with the certificate in it and nothing else.
    pub(super) fn certificate(machine: &Machine, path: &str, authority: &Authority) -> Result<Self, String> {
        let before = machine.read(path)?;
        let after = Ok(authority.pem.clone());
        let fresh = format!("(a copy of {})\n", authority.file);
        Ok(Self { path: path.to_owned(), fresh, before, after })
    }

    /// Returns whether writing it would change anything.
    pub(super) fn is_change(&self) -> bool {
        self.after.as_deref().ok() != self.before.as_deref()
    }
}

impl Ask {
    /// Returns the mirrors that are asked for Docker Hub alone: its URL, with the registry in its path where the mirror
    /// would else take a plain name for another's.
    pub(super) fn hub_url(&self) -> String {
        if self.default_registry == "docker.io" {
            self.mirror.url()
        } else {
            format!("{}/docker.io", self.mirror.url())
        }
    }

    /// Returns whether a client on Linux refuses the line to the mirror unless told that it may be open.
    pub(super) fn is_insecure(&self) -> bool {
        self.mirror.is_plain() && !self.mirror.is_loopback()
    }
}

/// Returns `text` with `item` first in each of the lists of a daemon.json.
pub(super) fn with_lists(text: &str, lists: &[(&str, String)]) -> Result<String, String> {
    lists.iter().try_fold(text.to_owned(), |text, (key, item)| json::with_first(&text, key, item))
}
