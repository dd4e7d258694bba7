//! The token service, and what the registry makes of its tokens.
//!
//! As Hub's: a token is granted for the part of the scope that the caller may read, possibly for nothing, and the
//! registry then says so.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use http::{HeaderMap, Method, header};
use oci::{Algorithm, Digest};
use serde_json::{Value, json};

use crate::{
    answer::{self, Answer},
    fault::{Asked, Fault},
    options::{Auth, TokenNames},
    quota::Source,
    route::{REFUSING_TOKEN_PATH, Role},
    state::Exchange,
    text,
};

/// Tokens kept before those that have ended are forgotten.
const TOKENS_KEPT: usize = 10_000;

/// The tokens granted.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    grants: HashMap<String, Grant>,
    granted: u64,
}

#[derive(Clone, Debug)]
struct Grant {
    account: Option<String>,
    repositories: Vec<String>,
    until: Instant,
}

impl Tokens {
    fn grant(&mut self, grant: Grant, padding_bytes: usize) -> String {
        if self.grants.len() >= TOKENS_KEPT {
            self.grants.retain(|_, grant| grant.until > Instant::now());
        }
        self.granted += 1;
        // Looks like a JSON web token, and is as long as one; it is only a key.
        let padding = "A".repeat(padding_bytes);
        let token = format!("eyJhbGciOiJSUzI1NiJ9.{padding}.hubsim-{}", self.granted);
        self.grants.insert(token.clone(), grant);
        token
    }

    /// Ends all tokens granted so far.
    pub(crate) fn expire(&mut self) {
        self.grants.clear();
    }
}

/// Answers a request for a token; `form` is the body of a POST.
pub(crate) fn answer(
    exchange: &Exchange,
    asked: &Asked<'_>,
    headers: &HeaderMap,
    query: &str,
    form: Option<&str>,
) -> Answer {
    let strike = |fault: Fault| exchange.state.faults.strike(asked, |one| *one == fault).is_some();
    if strike(Fault::TokenDown) {
        return answer::json(exchange, 503, &json!({ "details": "the token service is down" }));
    }
    if strike(Fault::TokenGarbage) {
        return answer::whole(exchange, 200, "application/json", "{\"token\": ");
    }
    if !matches!(*asked.method, Method::GET | Method::POST) {
        return answer::error(exchange, 405, "UNSUPPORTED", "only GET and POST", Value::Null);
    }
    let options = exchange.state.options();
    let pairs = text::pairs(form.unwrap_or(query));
    let account = match login(exchange, headers, form.is_some(), &pairs) {
        Ok(account) => account,
        Err(refusal) => return refusal,
    };
    let asked_for: Vec<&str> =
        pairs.iter().filter(|(name, _)| name == "scope").map(|(_, v)| v.as_str()).collect();
    let scopes = asked_for.iter().flat_map(|scope| scope.split(' ')).filter_map(repository_of_scope);
    let (granted, denied): (Vec<String>, Vec<String>) =
        scopes.map(str::to_owned).partition(|repository| may_read(exchange, repository, account.as_deref()));
    if let (Some(status), false) = (options.token.refuses_with, denied.is_empty()) {
        let code = if status == 403 { "DENIED" } else { "UNAUTHORIZED" };
        return answer::error(
            exchange,
            status,
            code,
            "requested access to the resource is denied",
            Value::Null,
        );
    }
    let grant = Grant { account, repositories: granted, until: Instant::now() + options.token.lifetime };
    let token = exchange.state.tokens().grant(grant, options.token.padding_bytes);
    let mut document = json!({});
    if options.token.names != TokenNames::AccessToken {
        document["token"] = json!(token);
    }
    if options.token.names != TokenNames::Token {
        document["access_token"] = json!(token);
    }
    if !options.token.omit_expires_in {
        document["expires_in"] = json!(options.token.lifetime.as_secs());
    }
    if let Some(shift) = options.token.issued_at_shift {
        document["issued_at"] = json!(text::rfc3339(text::now_seconds().saturating_add_signed(shift)));
    }
    answer::json(exchange, 200, &document)
}

/// Returns the answer of the realm that a switched challenge names.
pub(crate) fn refuse(exchange: &Exchange) -> Answer {
    answer::error(exchange, 401, "UNAUTHORIZED", "authentication required", Value::Null)
}

fn login(
    exchange: &Exchange,
    headers: &HeaderMap,
    is_form: bool,
    pairs: &[(String, String)],
) -> Result<Option<String>, Answer> {
    let by_form = || {
        let user = text::value(pairs, "username")?.to_owned();
        Some((user, text::value(pairs, "password").unwrap_or("").to_owned()))
    };
    let wrong = || answer::json(exchange, 401, &json!({ "details": "incorrect username or password" }));
    if is_form && text::value(pairs, "grant_type") == Some("refresh_token") {
        let named = text::value(pairs, "client_id").is_some() && text::value(pairs, "service").is_some();
        let token = text::value(pairs, "refresh_token").filter(|_| named).unwrap_or_default();
        return exchange.state.content().user_of(token).map(Some).ok_or_else(wrong);
    }
    let by_header = answer::text(headers, header::AUTHORIZATION);
    let credentials = if is_form { by_form() } else { by_header.and_then(text::basic) };
    match credentials {
        Some((user, password)) if exchange.state.content().knows(&user, &password) => Ok(Some(user)),
        None if by_header.is_none() => Ok(None),
        _ => Err(wrong()),
    }
}

fn repository_of_scope(scope: &str) -> Option<&str> {
    let (repository, actions) = scope.strip_prefix("repository:")?.rsplit_once(':')?;
    actions.split(',').any(|action| action == "pull" || action == "*").then_some(repository)
}

fn may_read(exchange: &Exchange, repository: &str, account: Option<&str>) -> bool {
    let content = exchange.state.content();
    let unknown_is_open = exchange.state.options().unknown_is_404 && !content.has_repository(repository);
    unknown_is_open || content.may_read(repository, account)
}

/// Returns who asks the registry, if they may ask for `repository` (or, without one, for the ping).
pub(crate) fn admit(
    exchange: &Exchange,
    headers: &HeaderMap,
    repository: Option<&str>,
) -> Result<Source, Answer> {
    let source = |account| Source { account, address: exchange.connection.peer };
    let authorization = answer::text(headers, header::AUTHORIZATION);
    match exchange.state.options().auth {
        Auth::Open => Ok(source(None)),
        Auth::Basic => {
            let known = authorization.and_then(text::basic);
            let known = known.filter(|(user, password)| exchange.state.content().knows(user, password));
            let may = |user: &str| repository.is_none_or(|name| may_read(exchange, name, Some(user)));
            match known {
                Some((user, _)) if may(&user) => Ok(source(Some(user))),
                _ => Err(unauthorized(exchange, repository, "Basic realm=\"hubsim\"")),
            }
        }
        Auth::Bearer => {
            let Some(token) = authorization.and_then(|value| value.strip_prefix("Bearer ")) else {
                return Err(challenge(exchange, repository, None));
            };
            let grant = exchange.state.tokens().grants.get(token).cloned();
            match grant.filter(|grant| grant.until > Instant::now()) {
                None => Err(challenge(exchange, repository, Some("invalid_token"))),
                Some(grant)
                    if repository.is_none_or(|name| grant.repositories.iter().any(|own| own == name)) =>
                {
                    Ok(source(grant.account))
                }
                Some(_) => Err(challenge(exchange, repository, Some("insufficient_scope"))),
            }
        }
    }
}

/// Returns the 401 that tells how to get a token.
pub(crate) fn challenge(exchange: &Exchange, repository: Option<&str>, error: Option<&str>) -> Answer {
    let options = exchange.state.options();
    let switched = options.challenge.realm_switch && error.is_some();
    let realm = match &options.challenge.realm {
        _ if switched => exchange.url(Role::Token) + REFUSING_TOKEN_PATH,
        Some(realm) => realm.clone(),
        None => exchange.url(Role::Token) + "/token",
    };
    let service = if switched { "registry" } else { options.challenge.service.as_str() };
    let mut value = format!("Bearer realm=\"{realm}\"");
    if !options.challenge.omit_service {
        value += &format!(",service=\"{service}\"");
    }
    if let (Some(repository), false) = (repository, options.challenge.omit_scope) {
        value += &format!(",scope=\"repository:{repository}:pull\"");
    }
    if let Some(error) = error {
        value += &format!(",error=\"{error}\"");
    }
    unauthorized(exchange, repository, &value)
}

fn unauthorized(exchange: &Exchange, repository: Option<&str>, www_authenticate: &str) -> Answer {
    let detail = repository
        .map(|name| json!([{ "Type": "repository", "Class": "", "Name": name, "Action": "pull" }]))
        .unwrap_or(Value::Null);
    let mut answer = answer::error(exchange, 401, "UNAUTHORIZED", "authentication required", detail);
    answer::put(&mut answer, "www-authenticate", www_authenticate);
    answer
}

/// Returns the signature of a path until a moment, in seconds since 1970.
pub(crate) fn signature(epoch: u64, path: &str, expires: u64) -> String {
    let signed = format!("the storage's secret {epoch}\n{path}\n{expires}");
    Digest::of(Algorithm::Sha256, signed.as_bytes()).hex()
}

/// Returns a moment so far from now, in seconds since 1970.
pub(crate) fn after(lifetime: Duration) -> u64 {
    text::now_seconds() + lifetime.as_secs()
}
