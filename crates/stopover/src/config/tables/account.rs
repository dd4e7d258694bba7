//! `[upstream.accounts.NAME]`: an account, and how it is proved.

use std::{path::PathBuf, time::Duration};

use oci::RepositoryName;

use super::{
    super::{
        field::{Field, LaneField},
        keys::{Key, table_key},
        lane::{Account, Credential},
        mistake::Mistake,
        used::Secret,
    },
    Entry, RESERVED, Table, check_names,
};

const SECTION: &str = "upstream.accounts";
/// What the account of `upstream.credential_helper` is called.
const HELPED: &str = "credential_helper";
const EXPECTED: &str = "expected one of username with password, username with password_file, identity_token, docker_config, \
                        credential_helper";

/// An account, as written.
#[derive(Clone, Default)]
pub(in super::super) struct AccountTable {
    username: Option<String>,
    password: Option<Secret>,
    password_file: Option<PathBuf>,
    identity_token: Option<Secret>,
    docker_config: Option<PathBuf>,
    credential_helper: Option<String>,
    credential_lifetime: Option<Duration>,
    repositories: Vec<RepositoryName>,
}

static KEYS: &[Key<AccountTable>] = &[
    table_key(SECTION, "username", Field::Text(|t| &mut t.username), "The account's name at the registry."),
    table_key(
        SECTION,
        "password",
        Field::Secret(|t| &mut t.password),
        "Its password or, better, a read-only access token.",
    ),
    table_key(
        SECTION,
        "password_file",
        Field::File(|t| &mut t.password_file),
        "In its place: a file with the password, such as a secret that is mounted. Read again when it changes.",
    ),
    table_key(
        SECTION,
        "identity_token",
        Field::Secret(|t| &mut t.identity_token),
        "An identity token, as `docker login` stores it for some registries.",
    ),
    table_key(
        SECTION,
        "docker_config",
        Field::File(|t| &mut t.docker_config),
        "docker's `config.json`, such as `/root/.docker/config.json`: the account is what `docker login` put there for the \
         registry, itself or through a credential helper. Read again when it changes.",
    ),
    table_key(
        SECTION,
        "credential_helper",
        Field::Text(|t| &mut t.credential_helper),
        "A program that gives the account, as for `upstream.credential_helper`.",
    ),
    table_key(
        SECTION,
        "credential_lifetime",
        Field::DurationIfSet(|t| &mut t.credential_lifetime),
        "How long what the helper gave is used. Not set: until the registry refuses it. 0: the helper is run for each login.",
    ),
    table_key(
        SECTION,
        "repositories",
        Field::Lane(LaneField::Repositories(|t| &mut t.repositories)),
        "What it is for: names of repositories, or what they begin with, part by part; `acme` is for `acme/app` and not for \
         `acmes/app`. Not set: all. Where several accounts are for a repository, those with the longest such name are used, and \
         no others.",
    ),
];

impl Table for AccountTable {
    const SECTION: &'static str = SECTION;
    const EXAMPLE: &'static str = "ann";
    const DOC: &'static str = "A table for each further account at the registry, besides that of `username` and `password`. \
         NAME is what logs, metrics and `stopover quota` call it. An account is proved in one way: a password, a file with \
         one, an identity token, docker's `config.json` or a credential helper. docs/quota.md says what accounts are for, and \
         that they must be your own.";

    fn keys() -> &'static [Key<Self>] {
        KEYS
    }
}

/// Returns the accounts that tables say, besides the one called `first`.
pub(super) fn all(
    entries: &[Entry<AccountTable>],
    first: Option<&str>,
    mistakes: &mut Vec<Mistake>,
) -> Vec<Account> {
    let taken: Vec<&str> = RESERVED.into_iter().chain([HELPED]).chain(first).collect();
    check_names(entries, &taken, mistakes);
    let mut accounts = Vec::new();
    for entry in entries {
        let Some(table) = entry.value(mistakes) else { continue };
        for (at, name) in table.repositories.iter().enumerate() {
            if table.repositories[..at].contains(name) {
                mistakes
                    .push(entry.mistake("repositories", &format!("{:?} stands here twice", name.as_str())));
            }
        }
        let repositories = table.repositories.clone();
        match credential(table) {
            Ok(credential) => accounts.push(Account { name: entry.name.clone(), credential, repositories }),
            Err((key, what)) => mistakes.push(entry.mistake(key, &what)),
        }
    }
    accounts
}

/// Returns how an account is proved, or which key is wrong and why.
fn credential(table: AccountTable) -> Result<Credential, (&'static str, String)> {
    let kinds = [
        ("password", table.password.is_some()),
        ("password_file", table.password_file.is_some()),
        ("identity_token", table.identity_token.is_some()),
        ("docker_config", table.docker_config.is_some()),
        ("credential_helper", table.credential_helper.is_some()),
    ];
    let set: Vec<&str> = kinds.into_iter().filter(|(_, is_set)| *is_set).map(|(kind, _)| kind).collect();
    if let [first, second, ..] = set[..] {
        return Err((second, format!("found beside {first}, expected one of them")));
    }
    if table.credential_lifetime.is_some() && table.credential_helper.is_none() {
        return Err(("credential_lifetime", "expected credential_helper to be set too".to_owned()));
    }
    let is_named = matches!(set[..], ["password" | "password_file"]);
    match (table.username.is_some(), set[..].first()) {
        (true, None) => {
            return Err(("username", "expected password or password_file to be set too".to_owned()));
        }
        (true, Some(kind)) if !is_named => {
            return Err((
                "username",
                format!("found beside {kind}, which says who it is; expected one of them"),
            ));
        }
        (false, Some(kind)) if is_named => return Err((kind, "expected username to be set too".to_owned())),
        _ => {}
    }
    let username = table.username.unwrap_or_default();
    if let Some(password) = table.password {
        Ok(Credential::Password { username, password })
    } else if let Some(file) = table.password_file {
        Ok(Credential::PasswordFile { username, file })
    } else if let Some(token) = table.identity_token {
        Ok(Credential::IdentityToken(token))
    } else if let Some(file) = table.docker_config {
        Ok(Credential::DockerConfig(file))
    } else if let Some(program) = table.credential_helper {
        Ok(Credential::Helper { program, lifetime: table.credential_lifetime })
    } else {
        Err(("", EXPECTED.to_owned()))
    }
}

impl From<&Account> for AccountTable {
    fn from(account: &Account) -> Self {
        let mut table = Self { repositories: account.repositories.clone(), ..Self::default() };
        match account.credential.clone() {
            Credential::Password { username, password } => {
                (table.username, table.password) = (Some(username), Some(password));
            }
            Credential::PasswordFile { username, file } => {
                (table.username, table.password_file) = (Some(username), Some(file));
            }
            Credential::IdentityToken(token) => table.identity_token = Some(token),
            Credential::DockerConfig(file) => table.docker_config = Some(file),
            Credential::Helper { program, lifetime } => {
                (table.credential_helper, table.credential_lifetime) = (Some(program), lifetime);
            }
        }
        table
    }
}
