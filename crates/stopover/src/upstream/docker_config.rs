//! docker's `config.json`: what `docker login` (or `podman login`, whose `auth.json` has the same shape) put there.
//!
//! By docker's rules: a registry's own program before the one for all, and that before what stands in the file; a key is
//! a host, with a port where there is one, or a URL of it. Podman's keys may have a namespace after the host: the
//! longest that a repository begins with is for it. It promises that nothing is run but the program that the file names,
//! and that no error repeats what the file holds.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::HeaderValue;
use oci::RepositoryName;
use serde::Deserialize;

use super::{
    account::{Proof, Server},
    helper::{self, Helper},
    token::locked,
    watched::{Trouble, Watched},
};
use crate::{clock::Clock, config::Secret};

/// How long what a program gave is used. Docker asks it each time; this is long enough for a burst of pulls, and short
/// enough for tokens that a program renews.
const HELPED_FOR: Duration = Duration::from_secs(300);

/// The file, and the programs that it named so far.
pub(super) struct DockerConfig {
    path: PathBuf,
    account: Arc<str>,
    server: Server,
    file: Arc<Watched<Logins>>,
    helpers: Mutex<HashMap<String, Arc<Helper>>>,
    trouble: Trouble,
    clock: Clock,
}

impl DockerConfig {
    /// Returns the file of that path, as far as it is about `server`.
    pub(super) fn new(path: &Path, account: Arc<str>, server: Server, clock: &Clock) -> Arc<Self> {
        let file = Watched::new(path, Arc::clone(&account), Box::new(Logins::parse));
        let (helpers, trouble) = (Mutex::default(), Trouble::default());
        let (path, clock) = (path.to_owned(), clock.clone());
        Arc::new(Self { path, account, server, file, helpers, trouble, clock })
    }

    /// Returns what proves the account for a repository.
    pub(super) async fn proof(&self, repository: Option<&RepositoryName>) -> Option<Proof> {
        let logins = self.file.read().await?;
        let found = match logins.of(&self.server, repository) {
            Login::Program(name) => match self.helper(name) {
                Ok(helper) => {
                    self.trouble.tell(&self.path, &self.account, None);
                    return helper.account().await;
                }
                Err(error) => Err(error),
            },
            Login::Entry(entry) => entry.proof(),
            Login::None => Err(format!("has no login for {}", self.server)),
        };
        self.trouble.tell(&self.path, &self.account, found.as_ref().err().cloned());
        found.ok().flatten()
    }

    /// Returns the token that the file has for the registry itself, ready to be sent, if that is what it has.
    pub(super) async fn registry_token(&self, repository: &RepositoryName) -> Option<HeaderValue> {
        let logins = self.file.read().await?;
        match logins.of(&self.server, Some(repository)) {
            Login::Entry(entry) => entry.registry_token(),
            Login::Program(_) | Login::None => None,
        }
    }

    /// Hears that this proof was refused; returns whether another may come in its stead.
    pub(super) fn refused(&self, proof: &Proof) -> bool {
        let helpers: Vec<_> = locked(&self.helpers).values().cloned().collect();
        helpers.iter().any(|helper| helper.refused(proof))
    }

    fn helper(&self, name: &str) -> Result<Arc<Helper>, String> {
        let mut helpers = locked(&self.helpers);
        if let Some(helper) = helpers.get(name) {
            return Ok(Arc::clone(helper));
        }
        // The prefix belongs to the name: a file must not be able to name any program.
        let program = format!("{}{name}", helper::PREFIX);
        let helper = Some(name).filter(|name| !name.contains('/'));
        let helper = helper.and_then(|_| {
            Helper::new(&program, self.server.key.clone(), Some(HELPED_FOR), self.clock.clone())
        });
        let helper = helper.ok_or_else(|| {
            format!("names {program:?}, expected a program of that name in one of the folders of PATH")
        })?;
        // The file names one for this registry, and another only after it was changed.
        helpers.clear();
        helpers.insert(name.to_owned(), Arc::clone(&helper));
        Ok(helper)
    }
}

/// What the file holds.
#[derive(Deserialize)]
struct Logins {
    #[serde(default)]
    auths: Option<BTreeMap<String, Entry>>,
    #[serde(default, rename = "credHelpers")]
    helpers: Option<BTreeMap<String, String>>,
    #[serde(default, rename = "credsStore")]
    helper_of_all: Option<String>,
}

/// One login.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    /// `user:password` in base64; wins over the two below.
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

/// Where the login for a repository is.
enum Login<'a> {
    Program(&'a str),
    Entry(&'a Entry),
    None,
}

impl Logins {
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        // What the parser says may repeat a value.
        serde_json::from_slice(bytes).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            format!("is not as docker writes its config.json: line {line}, column {column}")
        })
    }

    fn of(&self, server: &Server, repository: Option<&RepositoryName>) -> Login<'_> {
        let auths = self.auths.iter().flatten();
        let of_namespace = |key: &str| {
            let name =
                server.hosts.iter().find_map(|host| key.strip_prefix(host.as_str())?.strip_prefix('/'))?;
            let is_of = |rest: &str| rest.is_empty() || rest.starts_with('/');
            repository?.as_str().strip_prefix(name).is_some_and(is_of).then_some(name.len())
        };
        let filled = auths.clone().filter(|(_, entry)| !entry.is_empty());
        let namespaced = filled.clone().filter_map(|(key, entry)| Some((of_namespace(key)?, entry)));
        if let Some((_, entry)) = namespaced.max_by_key(|(len, _)| *len) {
            return Login::Entry(entry);
        }
        let keys = || std::iter::once(&server.key).chain(&server.hosts);
        let helpers = self.helpers.as_ref();
        let helper = helpers.and_then(|helpers| keys().find_map(|key| helpers.get(key)));
        // An empty name stands for none: then the file is asked, whoever else is asked for all.
        if let Some(name) = helper.or(self.helper_of_all.as_ref()).filter(|name| !name.is_empty()) {
            return Login::Program(name);
        }
        let exact = keys().find_map(|key| filled.clone().find(|(known, _)| *known == key));
        let as_url = || {
            filled
                .clone()
                .find(|(key, _)| host_of(key).is_some_and(|host| server.hosts.iter().any(|own| own == host)))
        };
        exact.or_else(as_url).map_or(Login::None, |(_, entry)| Login::Entry(entry))
    }
}

/// Returns the host of a key that is a URL, or ends as those of the registry's API do.
fn host_of(key: &str) -> Option<&str> {
    let bare = ["https://", "http://"].iter().find_map(|scheme| key.strip_prefix(scheme));
    let (host, path) = bare.unwrap_or(key).split_once('/').unwrap_or((bare.unwrap_or(key), ""));
    let is_api = matches!(path.trim_end_matches('/'), "" | "v1" | "v2");
    (bare.is_some() || is_api).then_some(host)
}

impl Entry {
    /// Returns whether nothing is in it, as where docker keeps the login with a program.
    fn is_empty(&self) -> bool {
        let all = [&self.auth, &self.username, &self.password, &self.identitytoken, &self.registrytoken];
        all.into_iter().all(|text| set(text).is_none())
    }

    /// Returns what proves the account at its token service; `None` where that is not the way of this entry.
    fn proof(&self) -> Result<Option<Proof>, String> {
        if set(&self.registrytoken).is_some() {
            let header = self.registry_token().map(|_| None);
            return header.ok_or_else(|| "has a `registrytoken` that fits into no header".to_owned());
        }
        if let Some(token) = set(&self.identitytoken) {
            return Ok(Some(Proof::IdentityToken(Secret::new(token))));
        }
        let proof = match set(&self.auth) {
            Some(auth) => {
                let decoded =
                    STANDARD.decode(auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
                let pair = decoded.as_deref().and_then(|pair| pair.split_once(':'));
                let (user, password) = pair.ok_or("has an `auth` that is no user:password in base64")?;
                Proof::of_pair(user, password.trim_matches('\0'))
            }
            None => {
                let (user, password) = (set(&self.username), set(&self.password));
                Proof::of_pair(user.unwrap_or_default(), password.unwrap_or_default())
            }
        };
        proof.map(Some).map_err(|what| format!("has {what}"))
    }

    fn registry_token(&self) -> Option<HeaderValue> {
        super::account::bearer(set(&self.registrytoken)?)
    }
}

fn set(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests;
