//! What no key of a registry can tell alone: that what belongs together is set together, and what looks unwise.

use super::{
    Egress,
    mistake::Mistake,
    tables,
    used::Upstream,
    written::{Setting, Written, place_of},
};

/// Checks that accounts and certificates are whole and that no password travels in the open. Sets what depends on there
/// being an account.
///
/// `egresses` are the ways out that have tables; those of the registry become some of them.
pub(super) fn check_upstream(
    upstream: &mut Upstream,
    settings: &[Setting],
    egresses: &[Egress],
    written: &mut Written,
) {
    let place = place_of(settings, "upstream", "egresses");
    tables::resolve_egresses(upstream, egresses, place, &mut written.mistakes);
    check_pairs(upstream, settings, written);
    check_helper(upstream, settings, written);
    check_anonymous(upstream, settings, written);
    if upstream.has_account() {
        set_pace(upstream, settings);
    }
    let far = |rest: &str| !is_this_machine(rest);
    if upstream.has_account()
        && upstream.url.strip_prefix("http://").is_some_and(far)
        && let Some(place) = place_of(settings, "upstream", "url")
    {
        written
            .warnings
            .push(format!("{place}: the account's password goes to {} unencrypted", upstream.url));
    }
}

/// Checks that of two keys that need each other both are set or neither.
fn check_pairs(upstream: &Upstream, settings: &[Setting], written: &mut Written) {
    let pairs = [
        (("username", upstream.username.is_some()), ("password", upstream.password.is_some())),
        (
            ("client_certificate", upstream.client_certificate.is_some()),
            ("client_key", upstream.client_key.is_some()),
        ),
    ];
    for (one, other) in pairs {
        let (set, missing) = match (one.1, other.1) {
            (true, false) => (one.0, other.0),
            (false, true) => (other.0, one.0),
            _ => continue,
        };
        if let Some(place) = place_of(settings, "upstream", set) {
            let what =
                format!("upstream.{set} is set and upstream.{missing} is not; expected both or neither");
            written.mistakes.push(Mistake::new(place, what));
        }
    }
}

fn check_helper(upstream: &Upstream, settings: &[Setting], written: &mut Written) {
    let at = |name| place_of(settings, "upstream", name);
    if upstream.credential_helper.is_some()
        && (upstream.username.is_some() || upstream.password.is_some())
        && let Some(place) = at("credential_helper")
    {
        let what = "upstream.credential_helper: found beside upstream.username, expected one of them: an account or a program that gives it";
        written.mistakes.push(Mistake::new(place, what));
    }
    if upstream.credential_helper.is_none()
        && let Some(place) = at("credential_lifetime")
    {
        let what = "upstream.credential_lifetime: expected upstream.credential_helper to be set too";
        written.mistakes.push(Mistake::new(place, what));
    }
}

/// Checks that who is not to be asked as nobody can be asked as somebody.
fn check_anonymous(upstream: &Upstream, settings: &[Setting], written: &mut Written) {
    let Some(place) = place_of(settings, "upstream", "anonymous").filter(|_| !upstream.anonymous) else {
        return;
    };
    let is_for_all = upstream.username.is_some() || upstream.credential_helper.is_some();
    if !upstream.has_account() {
        let what = "upstream.anonymous: found false and no account, expected an account, such as upstream.username and \
                    upstream.password";
        written.mistakes.push(Mistake::new(place, what));
    } else if !is_for_all && upstream.accounts.iter().all(|account| !account.repositories.is_empty()) {
        written.warnings.push(format!(
            "{place}: no account is for all of {}, and it is not asked without one: what no account's repositories name cannot \
             be pulled",
            upstream.registry
        ));
    }
}

/// Sets how much a registry may be asked, where that is not set, to what it allows who has an account.
fn set_pace(upstream: &mut Upstream, settings: &[Setting]) {
    let set = |name: &str| place_of(settings, "upstream", name).is_some();
    let with_account = upstream.pace_with_account();
    let pace = &mut upstream.pace;
    for (name, value, usual) in [
        ("requests_max", &mut pace.requests_max, with_account.requests_max),
        ("requests_per_second", &mut pace.requests_per_second, with_account.requests_per_second),
        ("pulls_per_second", &mut pace.pulls_per_second, with_account.pulls_per_second),
    ] {
        if !set(name) {
            *value = usual;
        }
    }
}

/// Returns whether a host is this machine by its name.
pub(super) fn is_this_machine(authority: &str) -> bool {
    ["127.0.0.1", "localhost", "[::1]"].iter().any(|near| authority.starts_with(near))
}
