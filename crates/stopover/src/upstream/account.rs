//! Who we are at a registry.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::HeaderValue;

use crate::config;

/// What metrics call the account of whoever has none.
const ANONYMOUS: &str = "anonymous";

/// A name and its password at one registry. The password leaves only as a header, and only through the gate.
#[derive(Clone)]
pub(super) struct Account {
    username: String,
    password: config::Secret,
}

impl Account {
    /// Returns the account that is configured, if one is.
    pub(super) fn of(options: &config::Upstream) -> Option<Self> {
        Some(Self { username: options.username.clone()?, password: options.password.clone()? })
    }

    /// Returns the account's name for metrics.
    pub(super) fn label(account: Option<&Self>) -> &str {
        account.map_or(ANONYMOUS, |account| &account.username)
    }

    /// Returns the value of `Authorization` for the Basic scheme (RFC 7617).
    pub(super) fn basic(&self) -> HeaderValue {
        let pair = STANDARD.encode(format!("{}:{}", self.username, self.password.expose()));
        let mut value = HeaderValue::from_str(&format!("Basic {pair}")).expect("base64 is plain ASCII");
        value.set_sensitive(true);
        value
    }
}
