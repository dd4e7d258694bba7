//! Who we are at a registry.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use http::HeaderValue;

use super::helper::Helper;
use crate::{clock::Clock, config};

/// What metrics call the account of whoever has none.
const ANONYMOUS: &str = "anonymous";
/// What they call one that a program gives.
const HELPED: &str = "credential_helper";
/// By what name `docker login` files the account for Docker Hub, whatever host is asked.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// An account at one registry. The password leaves only as a header, and only through the gate.
#[derive(Clone)]
pub(super) enum Account {
    /// A name and its password.
    Fixed { username: String, password: config::Secret },
    /// A program that gives them.
    Helper(Arc<Helper>),
}

impl Account {
    /// Returns the account that is configured, if one is. Fails with the helper that is no program.
    pub(super) fn of(options: &config::Upstream, clock: &Clock) -> Result<Option<Self>, String> {
        if let Some(name) = &options.credential_helper {
            let host = options.url.rsplit("//").next().unwrap_or_default();
            let server = if options.registry == "docker.io" { DOCKER_HUB } else { host };
            let helper = Helper::new(name, server.to_owned(), options.credential_lifetime, clock.clone());
            return helper.map(|helper| Some(Self::Helper(helper))).ok_or_else(|| name.clone());
        }
        Ok(match (&options.username, &options.password) {
            (Some(username), Some(password)) => {
                Some(Self::Fixed { username: username.clone(), password: password.clone() })
            }
            _ => None,
        })
    }

    /// Returns the account's name for metrics.
    pub(super) fn label(account: Option<&Self>) -> &str {
        match account {
            Some(Self::Fixed { username, .. }) => username,
            Some(Self::Helper(_)) => HELPED,
            None => ANONYMOUS,
        }
    }

    /// Returns the value of `Authorization`; `None` where the helper gives no account.
    pub(super) async fn header(&self) -> Option<HeaderValue> {
        match self {
            Self::Fixed { username, password } => Some(basic(username, password.expose())),
            Self::Helper(helper) => helper.account().await,
        }
    }

    /// Hears that this account was refused; returns whether another may come in its stead.
    pub(super) fn refused(&self, header: &HeaderValue) -> bool {
        match self {
            Self::Fixed { .. } => false,
            Self::Helper(helper) => helper.refused(header),
        }
    }
}

/// Returns the value of `Authorization` for the Basic scheme (RFC 7617).
pub(super) fn basic(username: &str, password: &str) -> HeaderValue {
    let pair = STANDARD.encode(format!("{username}:{password}"));
    let mut value = HeaderValue::from_str(&format!("Basic {pair}")).expect("base64 is plain ASCII");
    value.set_sensitive(true);
    value
}
