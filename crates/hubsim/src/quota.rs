//! Hub's pull limit: manifest GETs are counted by account, or by address where there is none; HEADs are free.

use std::{collections::HashMap, net::IpAddr};

use oci::{Algorithm, Digest};
use serde_json::{Value, json};

use crate::{
    answer::{self, Answer},
    state::Exchange,
};

/// Hub's window of six hours, in seconds. The stand-in's never slides; `Hub::reset_quota` begins a new one.
const WINDOW_SECONDS: u32 = 21_600;

/// Who a request counts for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) account: Option<String>,
    pub(crate) address: IpAddr,
}

/// What each source has used.
#[derive(Debug, Default)]
pub(crate) struct Quota {
    used: HashMap<String, u32>,
    /// Limits other than the general one, by account; `None` is no limit.
    limits: HashMap<String, Option<u32>>,
    /// The `Retry-After` of those that have one of their own, in seconds, by account or address.
    retry_after: HashMap<String, u64>,
}

/// What a source may still do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    limit: u32,
    remaining: u32,
    /// Whether this request is one too many.
    pub(crate) refused: bool,
}

impl Source {
    /// Returns the source as the header `docker-ratelimit-source` names it.
    fn name(&self) -> String {
        match &self.account {
            Some(account) => account_id(account),
            None => self.address.to_string(),
        }
    }
}

/// Returns an identifier that looks like Hub's for an account.
fn account_id(account: &str) -> String {
    let hex = Digest::of(Algorithm::Sha256, account.as_bytes()).hex();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..32])
}

impl Quota {
    pub(crate) fn set_limit(&mut self, account: &str, limit: Option<u32>) {
        self.limits.insert(account.to_owned(), limit);
    }

    pub(crate) fn reset(&mut self) {
        self.used.clear();
    }

    pub(crate) fn reset_one(&mut self, account_or_address: &str) {
        self.used.remove(&account_id(account_or_address));
        self.used.remove(account_or_address);
    }

    pub(crate) fn set_retry_after(&mut self, account_or_address: &str, seconds: u64) {
        self.retry_after.insert(account_or_address.to_owned(), seconds);
    }

    /// Returns what is said to a source that has used up its quota, in seconds.
    pub(crate) fn retry_after(&self, source: &Source) -> Option<u64> {
        let name = source.account.clone().unwrap_or_else(|| source.name());
        self.retry_after.get(&name).copied()
    }

    /// Returns how many GETs have counted for an account, or for an address.
    pub(crate) fn used(&self, account_or_address: &str) -> u32 {
        let by_account = self.used.get(&account_id(account_or_address));
        by_account.or_else(|| self.used.get(account_or_address)).copied().unwrap_or(0)
    }

    /// Counts a request, unless it is free or refused; `None` is a source without limit.
    pub(crate) fn count(&mut self, source: &Source, general: Option<u32>, free: bool) -> Option<Standing> {
        let own = source.account.as_ref().and_then(|account| self.limits.get(account));
        let used = self.used.entry(source.name()).or_default();
        let limit = own.copied().unwrap_or(general);
        let refused = !free && limit.is_some_and(|limit| *used >= limit);
        if !free && !refused {
            *used += 1;
        }
        limit.map(|limit| Standing { limit, remaining: limit.saturating_sub(*used), refused })
    }
}

impl Standing {
    /// Adds Hub's quota headers.
    pub(crate) fn tell(&self, source: &Source, answer: &mut Answer) {
        answer::put(answer, "ratelimit-limit", &format!("{};w={WINDOW_SECONDS}", self.limit));
        answer::put(answer, "ratelimit-remaining", &format!("{};w={WINDOW_SECONDS}", self.remaining));
        answer::put(answer, "docker-ratelimit-source", &source.name());
    }
}

/// Returns Hub's answer to a spent quota.
pub(crate) fn spent(exchange: &Exchange, authenticated: bool, retry_after: Option<u64>) -> Answer {
    let whose = if authenticated { "" } else { "unauthenticated " };
    let message =
        format!("You have reached your {whose}pull rate limit. https://www.docker.com/increase-rate-limit");
    let mut answer = answer::error(exchange, 429, "TOOMANYREQUESTS", &message, Value::Null);
    if let Some(seconds) = retry_after {
        answer::put(&mut answer, "retry-after", &seconds.to_string());
    }
    answer
}

/// Returns the answer of Hub's abuse limit, which is no JSON and knows no account.
pub(crate) fn abuse(exchange: &Exchange) -> Answer {
    answer::whole(exchange, 429, "text/plain; charset=utf-8", "Too Many Requests (HAP429).\n")
}

/// Returns the standing as the control API shows it.
pub(crate) fn overview(quota: &Quota) -> Value {
    json!(quota.used)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gets_count_for_the_account_or_the_address_and_heads_are_free() {
        let mut quota = Quota::default();
        let address: IpAddr = [127, 0, 0, 1].into();
        let anonymous = Source { account: None, address };
        let known = Source { account: Some("ann".to_owned()), address };
        quota.set_limit("ann", Some(2));
        let remaining = |standing: Option<Standing>| standing.map(|s| (s.remaining, s.refused));
        assert_eq!(remaining(quota.count(&anonymous, Some(1), true)), Some((1, false)));
        assert_eq!(remaining(quota.count(&anonymous, Some(1), false)), Some((0, false)));
        assert_eq!(remaining(quota.count(&anonymous, Some(1), false)), Some((0, true)));
        assert_eq!(remaining(quota.count(&anonymous, Some(1), true)), Some((0, false)));
        assert_eq!(remaining(quota.count(&known, Some(1), false)), Some((1, false)));
        assert_eq!((quota.used("ann"), quota.used("127.0.0.1")), (1, 1));
        quota.set_limit("ann", None);
        assert_eq!(quota.count(&known, Some(1), false), None);
        quota.reset();
        assert_eq!(quota.used("127.0.0.1"), 0);
    }
}
