//! Who we are at a registry.
//!
//! It promises that what proves an account leaves only as a [`Proof`], which shows itself to nobody who prints it, and
//! that what cannot be had now is a line in the log and never a failed pull. It must not know where a proof is sent:
//! that is for [`gate`](super::gate) alone to say.

use std::{fmt, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::HeaderValue;
use oci::RepositoryName;

use super::{docker_config::DockerConfig, helper::Helper, watched::Watched};
use crate::{
    clock::Clock,
    config::{self, Secret},
};

/// What metrics call the account of whoever has none.
pub(super) const ANONYMOUS: &str = "anonymous";
/// What they call one that a program gives, where nobody named it.
const HELPED: &str = "credential_helper";
/// By what name `docker login` files the account for Docker Hub, whatever host is asked, and what others call it.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";
const DOCKER_HUBS: [&str; 3] = ["index.docker.io", "docker.io", "registry-1.docker.io"];
/// The user by which helpers and files say that the secret is an identity token.
const TOKEN_USER: &str = "<token>";

/// What proves an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// A name and password as a value of `Authorization`: for token services, and registries without one.
    Basic(HeaderValue),
    /// What a token service takes in a form in the place of a password; it is no use anywhere else.
    IdentityToken(Secret),
}

impl Proof {
    /// Returns what a user and its secret prove the account by. Fails with what is wrong, without a part of it.
    pub(super) fn of_pair(user: &str, secret: &str) -> Result<Self, &'static str> {
        match user {
            _ if user.is_empty() || secret.is_empty() => Err("an empty user or password"),
            TOKEN_USER => Ok(Self::IdentityToken(Secret::new(secret))),
            _ if user.contains(':') => Err("a user with a colon in its name"),
            _ => Ok(Self::Basic(basic(user, secret))),
        }
    }
}

/// By what names helpers and files know the registry.
#[derive(Clone, Debug)]
pub(super) struct Server {
    /// The one that `docker login` uses.
    pub(super) key: String,
    /// Hosts, with a port where there is one.
    pub(super) hosts: Vec<String>,
}

impl Server {
    fn of(options: &config::Upstream) -> Self {
        let rest = options.url.rsplit("//").next().unwrap_or_default();
        let host = rest.split('/').next().unwrap_or_default().to_owned();
        if options.registry == "docker.io" {
            return Self { key: DOCKER_HUB.to_owned(), hosts: DOCKER_HUBS.map(str::to_owned).to_vec() };
        }
        Self { key: host.clone(), hosts: vec![host, options.registry.clone()] }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)
    }
}

/// An account at one registry.
#[derive(Clone)]
pub(super) struct Account {
    /// Its name for logs, metrics and the operator.
    pub(super) name: Arc<str>,
    /// What the names of the repositories begin with that it is for; none: all.
    pub(super) repositories: Vec<RepositoryName>,
    kind: Kind,
}

/// Where the proof comes from.
#[derive(Clone)]
enum Kind {
    Fixed(Proof),
    Helper(Arc<Helper>),
    PasswordFile(Arc<Watched<Proof>>),
    DockerConfig(Arc<DockerConfig>),
}

/// A program that is to give an account, and is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NoProgram {
    /// The key that names it.
    pub(super) key: String,
    /// What it names.
    pub(super) program: String,
}

impl Account {
    /// Returns the accounts that are configured, in their order: that of `username` or `credential_helper` before
    /// those of the tables.
    pub(super) fn all_of(options: &config::Upstream, clock: &Clock) -> Result<Vec<Self>, NoProgram> {
        let mut accounts = Vec::new();
        let first = match (&options.username, &options.password, &options.credential_helper) {
            (Some(username), Some(password), _) => {
                let credential =
                    config::Credential::Password { username: username.clone(), password: password.clone() };
                Some((username.as_str(), credential))
            }
            (_, _, Some(program)) => {
                let lifetime = options.credential_lifetime;
                Some((HELPED, config::Credential::Helper { program: program.clone(), lifetime }))
            }
            _ => None,
        };
        if let Some((name, credential)) = first {
            let kind = Kind::of(name, &credential, options, clock);
            let kind = kind.map_err(|program| NoProgram { key: "credential_helper".to_owned(), program })?;
            accounts.push(Self { name: name.into(), repositories: Vec::new(), kind });
        }
        for account in &options.accounts {
            let kind = Kind::of(&account.name, &account.credential, options, clock);
            let key = || format!("accounts.{}.credential_helper", account.name);
            let kind = kind.map_err(|program| NoProgram { key: key(), program })?;
            let repositories = account.repositories.clone();
            accounts.push(Self { name: account.name.as_str().into(), repositories, kind });
        }
        Ok(accounts)
    }

    /// Returns what proves the account for a repository, named as the registry names it; `None` where it cannot be had
    /// now, which the log says. Asking again costs little, and what was mended since is seen: where the proof is another
    /// than one that was refused, it is worth a try.
    pub(super) async fn proof(&self, repository: Option<&RepositoryName>) -> Option<Proof> {
        match &self.kind {
            Kind::Fixed(proof) => Some(proof.clone()),
            Kind::Helper(helper) => helper.account().await,
            Kind::PasswordFile(file) => file.read().await.map(|proof| Proof::clone(&proof)),
            Kind::DockerConfig(file) => file.proof(repository).await,
        }
    }

    /// Returns what the registry itself is to be shown at once, without any login: the rare `registrytoken` of docker's
    /// `config.json`.
    pub(super) async fn registry_token(&self, repository: &RepositoryName) -> Option<HeaderValue> {
        match &self.kind {
            Kind::DockerConfig(file) => file.registry_token(repository).await,
            Kind::Fixed(_) | Kind::Helper(_) | Kind::PasswordFile(_) => None,
        }
    }

    /// Hears that this proof was refused; returns whether another may come in its stead.
    pub(super) fn refused(&self, proof: &Proof) -> bool {
        match &self.kind {
            Kind::Fixed(_) | Kind::PasswordFile(_) => false,
            Kind::Helper(helper) => helper.refused(proof),
            Kind::DockerConfig(file) => file.refused(proof),
        }
    }
}

impl Kind {
    /// Fails with the program that is none.
    fn of(
        name: &str,
        credential: &config::Credential,
        options: &config::Upstream,
        clock: &Clock,
    ) -> Result<Self, String> {
        use config::Credential as Configured;
        Ok(match credential {
            Configured::Password { username, password } => {
                Self::Fixed(Proof::Basic(basic(username, password.expose())))
            }
            Configured::IdentityToken(token) => Self::Fixed(Proof::IdentityToken(token.clone())),
            Configured::Helper { program, lifetime } => {
                let helper = Helper::new(program, Server::of(options).key, *lifetime, clock.clone());
                Self::Helper(helper.ok_or_else(|| program.clone())?)
            }
            Configured::PasswordFile { username, file } => {
                let username = username.clone();
                let parse = move |bytes: &[u8]| Ok(Proof::Basic(basic(&username, password_in(bytes)?)));
                Self::PasswordFile(Watched::new(file, name.into(), Box::new(parse)))
            }
            Configured::DockerConfig(file) => {
                Self::DockerConfig(DockerConfig::new(file, name.into(), Server::of(options), clock))
            }
        })
    }
}

/// Returns the value of `Authorization` for the Basic scheme (RFC 7617).
pub(super) fn basic(username: &str, password: &str) -> HeaderValue {
    let pair = STANDARD.encode(format!("{username}:{password}"));
    let mut value = HeaderValue::from_str(&format!("Basic {pair}")).expect("base64 is plain ASCII");
    value.set_sensitive(true);
    value
}

/// Returns the value of `Authorization` for the Bearer scheme (RFC 6750); `None` for what fits into no header.
pub(super) fn bearer(token: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Returns the password that a file of its own holds; a line break at its end is not part of it.
fn password_in(bytes: &[u8]) -> Result<&str, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "is no text in UTF-8")?;
    let line = text.strip_suffix('\n').unwrap_or(text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    match line {
        "" => Err("is empty, expected a password".to_owned()),
        _ if line.contains(['\n', '\r']) => {
            Err("has more than one line, expected a password alone".to_owned())
        }
        _ => Ok(line),
    }
}
