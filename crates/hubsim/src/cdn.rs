//! The CDN: signed, expiring URLs, and no credentials, as the storage behind Hub wants it.

use std::sync::atomic::Ordering;

use http::{HeaderMap, header};

use crate::{
    answer::{self, Answer},
    fault::{Asked, Fault},
    options::Redirect,
    route::{DATA_PATH, LOOP_PATH, NESTED_PATH, RELATIVE_PATH, Role, Route},
    state::Exchange,
    text, token,
};

/// What the CDN makes of a request before it serves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Served,
    /// The request carries an `Authorization`.
    HasAuthorization,
    /// The signature is wrong, or too old.
    BadSignature,
}

/// Returns the `Location` that leads to a blob's bytes.
pub(crate) fn signed_url(exchange: &Exchange, how: Redirect, digest: &str) -> String {
    match how {
        Redirect::Relative => sign(exchange, &format!("{RELATIVE_PATH}{digest}")),
        Redirect::Nested => exchange.url(Role::Cdn) + &sign(exchange, &format!("{NESTED_PATH}{digest}")),
        Redirect::Absolute | Redirect::None => {
            exchange.url(Role::Cdn) + &sign(exchange, &format!("{DATA_PATH}{digest}"))
        }
    }
}

/// Returns the URL that redirects to itself.
pub(crate) fn loop_url(exchange: &Exchange) -> String {
    exchange.url(Role::Cdn) + LOOP_PATH
}

fn sign(exchange: &Exchange, path: &str) -> String {
    let expires = token::after(exchange.state.options().url_lifetime);
    let signature = token::signature(exchange.state.url_epoch.load(Ordering::Relaxed), path, expires);
    format!("{path}?Expires={expires}&Signature={signature}&Key-Pair-Id=HUBSIM")
}

/// Judges a request for a signed path.
pub(crate) fn judge(
    exchange: &Exchange,
    role: Role,
    headers: &HeaderMap,
    path: &str,
    query: &str,
) -> Verdict {
    // The registry's own signed paths bear what the client sends to the registry.
    if role == Role::Cdn && headers.contains_key(header::AUTHORIZATION) {
        return Verdict::HasAuthorization;
    }
    let pairs = text::pairs(query);
    let expires = text::value(&pairs, "Expires").and_then(|value| value.parse().ok()).unwrap_or(0);
    let right = token::signature(exchange.state.url_epoch.load(Ordering::Relaxed), path, expires);
    let good = text::value(&pairs, "Signature") == Some(&right) && expires > text::now_seconds();
    if good { Verdict::Served } else { Verdict::BadSignature }
}

/// Answers a request for a signed path.
pub(crate) fn answer(
    exchange: &Exchange,
    asked: &Asked<'_>,
    headers: &HeaderMap,
    route: Route<'_>,
    verdict: Verdict,
) -> Answer {
    if verdict == Verdict::HasAuthorization {
        // As S3 and R2 word it.
        let body = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>InvalidArgument</Code><Message>Only one \
                    auth mechanism allowed</Message></Error>";
        return answer::whole(exchange, 400, "application/xml", body);
    }
    let struck = exchange.state.faults.strike(asked, |fault| *fault == Fault::Cdn403).is_some();
    if struck || verdict == Verdict::BadSignature {
        let body = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>AccessDenied</Code><Message>Access \
                    denied</Message></Error>";
        return answer::whole(exchange, 403, "application/xml", body);
    }
    match route {
        Route::Nested { digest } => {
            answer::redirect(exchange, 302, &signed_url(exchange, Redirect::Absolute, digest))
        }
        Route::Data { digest } => match exchange.state.content().stored_blob(digest) {
            Some(blob) => {
                let mut answer = answer::content(exchange, asked, headers, "application/octet-stream", blob);
                answer::put(&mut answer, "etag", &format!("\"{}\"", &digest[digest.len() - 32..]));
                answer::put(&mut answer, "set-cookie", "__cf_bm=hubsim; path=/; HttpOnly");
                answer
            }
            None => answer::whole(exchange, 404, "application/xml", "<Error><Code>NoSuchKey</Code></Error>"),
        },
        _ => answer::whole(exchange, 404, "text/plain", "not found\n"),
    }
}
