//! The language of token services: what a challenge asks for, the request for a token, and the answer. Pure.
//!
//! <https://distribution.github.io/distribution/spec/auth/token/>: GET, since some services know no POST; but POST with an
//! identity token, which only OAuth 2 has a place for (<https://distribution.github.io/distribution/spec/auth/oauth/>).

use std::{fmt::Write, time::Duration};

use http::{HeaderMap, HeaderValue, Uri, header::WWW_AUTHENTICATE};
use oci::{Challenge, RepositoryName, Scheme, parse_challenges};
use serde::Deserialize;

use super::account::bearer;
use crate::{config::Secret, egress::Reach};

/// Bounds of how long a token is used, whatever its service says. The specification has 60 s for the least.
const LIFETIME_MIN: Duration = Duration::from_secs(60);
const LIFETIME_MAX: Duration = Duration::from_secs(3600);
/// The largest answer that is read, in bytes; tokens of Hub have up to 4 KB.
pub(super) const TOKEN_BYTES_MAX: usize = 64 << 10;

/// What we call ourselves to OAuth 2.
const CLIENT: &str = "stopover";

/// A token to ask for; the same for all who want the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Want {
    /// The service's URL as the challenge had it.
    pub(super) realm: String,
    pub(super) service: Option<String>,
    pub(super) scope: String,
    /// Whether the account goes with it; else it is for anybody.
    pub(super) with_account: bool,
    /// How far the request may reach.
    pub(super) reach: Reach,
}

impl Want {
    /// Returns the URL to ask.
    pub(super) fn url(&self) -> Option<Uri> {
        let realm = self.realm_alone();
        let separator = if realm.contains('?') { '&' } else { '?' };
        let asked = pairs(&[("service", self.service.as_deref()), ("scope", Some(&self.scope))]);
        format!("{realm}{separator}{asked}").parse().ok()
    }

    /// Returns the URL to send [`Want::form`] to.
    pub(super) fn form_url(&self) -> Option<Uri> {
        self.realm_alone().parse().ok()
    }

    /// Returns the form that asks for the token with an identity token.
    pub(super) fn form(&self, identity_token: &Secret) -> String {
        pairs(&[
            ("grant_type", Some("refresh_token")),
            ("service", self.service.as_deref()),
            ("client_id", Some(CLIENT)),
            ("scope", Some(&self.scope)),
            ("refresh_token", Some(identity_token.expose())),
        ])
    }

    fn realm_alone(&self) -> &str {
        self.realm.split('#').next().unwrap_or_default()
    }
}

/// Returns the repository that a scope for pulling is for.
pub(super) fn repository_of(scope: &str) -> Option<RepositoryName> {
    scope.strip_prefix("repository:")?.rsplit_once(':')?.0.parse().ok()
}

/// Returns the scope in which a repository may be pulled from.
pub(super) fn pull_scope(repository: &RepositoryName) -> String {
    format!("repository:{repository}:pull")
}

/// Returns a query or a form. Leaves what a query may hold as it is, so that the URL reads as in the documentation of
/// Hub.
fn pairs(pairs: &[(&str, Option<&str>)]) -> String {
    let mut text = String::new();
    for (name, value) in pairs {
        let Some(value) = value else { continue };
        let separator = if text.is_empty() { "" } else { "&" };
        text += &format!("{separator}{name}={}", escaped(value));
    }
    text
}

/// Returns a value as it stands in a query or a form.
pub(super) fn escaped(value: &str) -> String {
    let mut text = String::new();
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:/,".contains(&byte) {
            text.push(char::from(byte));
        } else {
            write!(text, "%{byte:02X}").expect("writing to a string cannot fail");
        }
    }
    text
}

/// Returns the challenge to answer: the first Bearer with a realm, else the first Basic.
pub(super) fn challenge_of(headers: &HeaderMap) -> Option<Challenge> {
    let values = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    let challenges: Vec<Challenge> = values.flat_map(parse_challenges).collect();
    let bearer = |challenge: &&Challenge| challenge.scheme == Scheme::Bearer && challenge.realm.is_some();
    let basic = |challenge: &&Challenge| challenge.scheme == Scheme::Basic;
    challenges.iter().find(bearer).or_else(|| challenges.iter().find(basic)).cloned()
}

/// What a token service sends. `issued_at` is not read: our clock and its clock may differ, and what counts is when
/// the token came.
#[derive(Deserialize)]
struct Sent {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<serde_json::Value>,
}

/// Reads a token service's answer: the value of `Authorization`, and how long it holds from now on.
pub(super) fn read_token(body: &[u8]) -> Option<(HeaderValue, Duration)> {
    let sent: Sent = serde_json::from_slice(body).ok()?;
    let token = [sent.token, sent.access_token].into_iter().flatten().find(|token| !token.is_empty())?;
    Some((bearer(&token)?, lifetime(sent.expires_in.as_ref())))
}

fn lifetime(expires_in: Option<&serde_json::Value>) -> Duration {
    let seconds = match expires_in {
        Some(serde_json::Value::String(text)) => text.trim().parse().ok(),
        Some(value) => value.as_f64(),
        None => None,
    };
    let bounded = seconds.unwrap_or(0.0).clamp(LIFETIME_MIN.as_secs_f64(), LIFETIME_MAX.as_secs_f64());
    Duration::try_from_secs_f64(bounded).unwrap_or(LIFETIME_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn want(realm: &str, service: Option<&str>, scope: &str) -> Want {
        let service = service.map(str::to_owned);
        Want {
            realm: realm.to_owned(),
            service,
            scope: scope.to_owned(),
            with_account: false,
            reach: Reach::Public,
        }
    }

    #[test]
    fn the_url_of_a_token_is_as_in_the_documentation() {
        for (want, url) in [
            (
                want(
                    "https://auth.docker.io/token",
                    Some("registry.docker.io"),
                    "repository:library/ubuntu:pull",
                ),
                "https://auth.docker.io/token?service=registry.docker.io&scope=repository:library/ubuntu:pull",
            ),
            (
                want("https://nvcr.io/proxy_auth", None, "repository:nvidia/cuda:pull"),
                "https://nvcr.io/proxy_auth?scope=repository:nvidia/cuda:pull",
            ),
            (
                want("https://a.example/t?x=1#y", Some("a b&c=d#e\u{e9}"), "s"),
                "https://a.example/t?x=1&service=a%20b%26c%3Dd%23e%C3%A9&scope=s",
            ),
        ] {
            assert_eq!(want.url().map(|url| url.to_string()).as_deref(), Some(url));
        }
        assert_eq!(want("https://a example/", None, "s").url(), None);
    }

    #[test]
    fn an_identity_token_goes_in_a_form_and_not_in_a_url() {
        let want = want("https://a.example/t?x=1#y", Some("a b"), "repository:acme/app:pull");
        assert_eq!(want.form_url().map(|url| url.to_string()).as_deref(), Some("https://a.example/t?x=1"));
        assert_eq!(
            want.form(&Secret::new("r+f/s=h&\u{e9}")),
            "grant_type=refresh_token&service=a%20b&client_id=stopover&scope=repository:acme/app:pull\
             &refresh_token=r%2Bf/s%3Dh%26%C3%A9"
        );
    }

    #[test]
    fn a_scope_names_its_repository() {
        for (scope, repository) in [
            ("repository:acme/app:pull", Some("acme/app")),
            ("repository:acme/app:pull,push", Some("acme/app")),
            ("repository(plugin):acme/app:pull", None),
            ("registry:catalog:*", None),
            ("repository:acme/app", None),
            ("", None),
        ] {
            let found = repository_of(scope);
            assert_eq!(found.as_ref().map(RepositoryName::as_str), repository, "{scope}");
        }
    }

    #[test]
    fn a_token_is_read_from_either_field_and_lives_within_bounds() {
        for (body, token, seconds) in [
            (r#"{"token":"a"}"#, "a", 60),
            (r#"{"access_token":"b","expires_in":300}"#, "b", 300),
            (
                r#"{"token":"a","access_token":"b","expires_in":300,"issued_at":"1970-01-01T00:00:00Z"}"#,
                "a",
                300,
            ),
            (r#"{"token":"","access_token":"b","issued_at":"2999-01-01T00:00:00Z"}"#, "b", 60),
            (r#"{"token":null,"access_token":"b"}"#, "b", 60),
            (r#"{"token":"a","expires_in":0}"#, "a", 60),
            (r#"{"token":"a","expires_in":-1}"#, "a", 60),
            (r#"{"token":"a","expires_in":5}"#, "a", 60),
            (r#"{"token":"a","expires_in":1e18}"#, "a", 3600),
            (r#"{"token":"a","expires_in":18446744073709551615}"#, "a", 3600),
            (r#"{"token":"a","expires_in":"900"}"#, "a", 900),
            (r#"{"token":"a","expires_in":"NaN"}"#, "a", 60),
            (r#"{"token":"a","expires_in":null}"#, "a", 60),
            (r#"{"token":"a","expires_in":{},"issued_at":7}"#, "a", 60),
        ] {
            let (header, lifetime) = read_token(body.as_bytes()).expect(body);
            assert_eq!(header.to_str().ok(), Some(format!("Bearer {token}").as_str()), "{body}");
            assert_eq!(lifetime.as_secs(), seconds, "{body}");
        }
    }

    #[test]
    fn an_answer_without_a_token_is_none() {
        for body in ["", "{}", "<html>", r#"{"token":7}"#, r#"{"token":""}"#, "{\"token\":\"a\\nb\"}", "[]"] {
            assert!(read_token(body.as_bytes()).is_none(), "{body}");
        }
    }

    #[test]
    fn bearer_is_answered_before_basic() {
        let mut headers = HeaderMap::new();
        headers.append(
            WWW_AUTHENTICATE,
            HeaderValue::from_static("Basic realm=\"x\", Bearer service=\"no realm\""),
        );
        headers
            .append(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"https://a.example/token\""));
        let challenge = challenge_of(&headers).expect("one");
        assert_eq!(challenge.realm.as_deref(), Some("https://a.example/token"));
        headers.remove(WWW_AUTHENTICATE);
        assert_eq!(challenge_of(&headers), None);
    }
}
