//! What makes the lanes to a registry: accounts, ways out, other places that have its content. As used: checked, plain.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use super::Secret;

/// An account at a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its name for logs, metrics and the operator.
    pub name: String,
    /// How it is proved.
    pub credential: Credential,
    /// What the names of the repositories begin with that it is for, part by part: `acme` is for `acme/app` and not for
    /// `acmes/app`. None: for all. Where several accounts are for a repository, those with the longest prefix are used.
    pub repositories: Vec<oci::RepositoryName>,
}

/// How an account is proved. Files and programs are read when they are needed, and again when they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// A name and a password, or an access token in its place.
    Password {
        /// The name.
        username: String,
        /// The password.
        password: Secret,
    },
    /// The same, with the password in a file of its own.
    PasswordFile {
        /// The name.
        username: String,
        /// The file; a line break at its end does not count.
        file: PathBuf,
    },
    /// An identity token, as `docker login` stores it: the token service takes it in the place of a password.
    IdentityToken(Secret),
    /// docker's `config.json`: what `docker login` put there for the registry, itself or through a helper.
    DockerConfig(PathBuf),
    /// A program that speaks Docker's protocol for credential helpers.
    Helper {
        /// Its path or name.
        program: String,
        /// How long what it gave is used: zero is once, `None` until it is refused.
        lifetime: Option<Duration>,
    },
}

/// A way out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Egress {
    /// Its name for logs, metrics and the operator.
    pub name: String,
    /// Where it leads through.
    pub way: Way,
    /// Bytes a second that content may come at through it, all transfers together; `None` is no limit.
    pub bandwidth: Option<u64>,
}

/// Where a way out leads through.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// The system's own route, and the proxies that the environment names.
    System,
    /// This address of the machine, without a proxy.
    From(IpAddr),
    /// A proxy: `http`, `https`, `socks5` (names are resolved here or there alike) with maybe a user and password.
    Proxy(Secret),
}

impl Default for Egress {
    fn default() -> Self {
        Self { name: "default".to_owned(), way: Way::System, bandwidth: None }
    }
}

/// Another place that has a registry's content. It is asked by digest alone, without an account, and what it sends is
/// believed only if it is what the digest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Its name for logs, metrics and the operator.
    pub name: String,
    /// Where it is reached, as an upstream's `url`.
    pub url: String,
    /// What stands before each repository's name there, as an upstream's `repository_prefix`: `docker` at public.ecr.aws.
    pub repository_prefix: Option<oci::RepositoryName>,
    /// What the names of the repositories begin with that it is asked for; none: all.
    pub repositories: Vec<oci::RepositoryName>,
    /// When it is asked.
    pub when: MirrorWhen,
}

impl Mirror {
    /// Returns the host that it is reached at, with its port if it has one.
    pub fn host(&self) -> &str {
        let place = self.url.split_once("://").map_or(self.url.as_str(), |(_, place)| place);
        place.split('/').next().unwrap_or_default()
    }
}

/// When a mirror is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MirrorWhen {
    /// Where the registry's quota is low, or it fails.
    #[default]
    Low,
    /// Before the registry.
    First,
}

impl MirrorWhen {
    /// Returns the word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::First => "first",
        }
    }
}

/// A part of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// So much.
    Count(u64),
    /// So many hundredths.
    Percent(u8),
}
