//! Answers that repeat what they were asked with: a proxy's page, a service that helps to debug.
//!
//! Errors show what a registry says of them. It promises that what proved the account is no part of that, whoever reads it.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::HeaderValue;

use super::realm::escaped;

/// What went out as `Authorization`, kept with the answer to it.
#[derive(Clone)]
pub(super) struct Shown(pub(super) HeaderValue);

/// Returns the body, or nothing where it repeats what was shown: the value of `Authorization`, or an identity token.
pub(super) fn without_echo(body: Bytes, shown: Option<&str>) -> Bytes {
    // JSON may have a backslash before a slash or a quote.
    let text = String::from_utf8_lossy(&body).replace('\\', "");
    let is_echo = |secret: &String| !secret.is_empty() && text.contains(&secret.replace('\\', ""));
    if shown.is_some_and(|shown| parts(shown).iter().any(is_echo)) { Bytes::new() } else { body }
}

/// Returns every part of it that is secret.
fn parts(shown: &str) -> Vec<String> {
    let (scheme, value) = shown.split_once(' ').unwrap_or(("", shown));
    let mut parts = vec![value.trim_end_matches('=').to_owned(), escaped(value)];
    if scheme == "Basic" {
        let pair = STANDARD.decode(value).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        parts.extend(pair.and_then(|pair| Some(pair.split_once(':')?.1.to_owned())));
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_repeats_a_secret_is_not_repeated() {
        let basic = format!("Basic {}", STANDARD.encode("ann:pa/ss\"word"));
        let encoded = STANDARD.encode("ann:pa/ss\"word");
        for (shown, body, is_kept) in [
            (None, "Bearer t0ken", true),
            (Some("Bearer t0ken"), "you sent t0ken", false),
            (Some("Bearer t0ken"), "you sent a token", true),
            (Some("identity-t0ken"), "refresh_token=identity-t0ken", false),
            (Some("identity/t0ken="), "refresh_token=identity/t0ken%3D", false),
            (Some(basic.as_str()), "no such user: ann", true),
            (Some(basic.as_str()), r#"{"errors":[{"message":"wrong password pa\/ss\"word"}]}"#, false),
            (Some(basic.as_str()), r#"{"errors":[{"message":"wrong password pa/ss\"word"}]}"#, false),
            (Some(basic.as_str()), &format!("authorization: basic {encoded}"), false),
            (Some("Basic "), "anything", true),
        ] {
            let body = Bytes::copy_from_slice(body.as_bytes());
            let left = without_echo(body.clone(), shown);
            assert_eq!(left == body, is_kept, "{shown:?}: {body:?}");
            assert!(is_kept || left.is_empty(), "{shown:?}: {left:?}");
        }
    }
}
