//! What to do about a tag, decided apart from doing it.

use crate::{
    clock::Wall,
    index::TagRecord,
    source::{Freshness, SourceErrorKind, Thrift},
};

/// How many times as long a tag is fresh while a quota is saved.
const THRIFTY_TTLS: u32 = 10;

/// What to do for a request of a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Serve what the record names; nobody is asked.
    Serve,
    /// Ask the registry, but not for long: what the record names can be served instead.
    Check,
    /// Ask the registry: nothing is known.
    Ask,
}

/// Decides what to do with what is known of a tag. `thrift` is asked only where it matters.
pub(super) fn decide(
    record: Option<&TagRecord>,
    now: Wall,
    freshness: &Freshness,
    thrift: impl FnOnce() -> Thrift,
) -> Action {
    let Some(record) = record else { return Action::Ask };
    // A time in the future comes from a clock that was set back: the record's age is unknown, so it is checked.
    let is_within = |ttl| record.checked <= now && now.since(record.checked) < ttl;
    let ttl = freshness.tag_ttl;
    let fresh = is_within(ttl) || (is_within(ttl.saturating_mul(THRIFTY_TTLS)) && thrift() == Thrift::Low);
    if fresh { Action::Serve } else { Action::Check }
}

/// Decides whether what the record names is served although the registry answered a check with this error.
pub(super) fn serve_stale(
    record: &TagRecord,
    now: Wall,
    freshness: &Freshness,
    error: SourceErrorKind,
) -> bool {
    let (bound, is_refusal) = match error {
        SourceErrorKind::NotFound => return false,
        SourceErrorKind::Unauthorized | SourceErrorKind::Denied => (freshness.stale_if_denied, true),
        SourceErrorKind::TooManyRequests
        | SourceErrorKind::Unsupported
        | SourceErrorKind::Unavailable
        | SourceErrorKind::Timeout
        | SourceErrorKind::BadAnswer
        | SourceErrorKind::WrongContent
        | SourceErrorKind::Refused => (freshness.stale_if_error, false),
    };
    // Where only the tree remembers the tag nobody knows when it was checked: an adopted volume, or a lost index. It
    // is served, as registry:2 does, since the bound protects from old answers and not from unknown ones. A refusal is
    // another matter: without a good check that is known there is no grace to count from it (P8).
    (record.checked == Wall(0) && !is_refusal) || now.since(record.checked) <= bound
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use oci::{Algorithm, Digest};

    use super::*;

    const FRESHNESS: Freshness = Freshness {
        tag_ttl: Duration::from_secs(60),
        stale_if_error: Duration::from_secs(7 * 86_400),
        stale_if_denied: Duration::from_secs(3_600),
        check_deadline: Duration::from_secs(3),
        absent_ttl: Duration::from_secs(10),
    };

    fn checked(at: u64) -> TagRecord {
        TagRecord { digest: Digest::of(Algorithm::Sha256, b"x"), descriptor: None, checked: Wall(at) }
    }

    #[test]
    fn a_tag_is_served_while_fresh_and_checked_after() {
        let now = Wall(1_000_000);
        let table = [
            (None, Action::Ask, Action::Ask),
            (Some(checked(1_000_000)), Action::Serve, Action::Serve),
            (Some(checked(999_941)), Action::Serve, Action::Serve),
            (Some(checked(999_940)), Action::Check, Action::Serve),
            (Some(checked(999_401)), Action::Check, Action::Serve),
            (Some(checked(999_400)), Action::Check, Action::Check),
            (Some(checked(0)), Action::Check, Action::Check),
            (Some(checked(1_000_001)), Action::Check, Action::Check),
        ];
        for (record, action, thrifty) in table {
            let record = record.as_ref();
            assert_eq!(decide(record, now, &FRESHNESS, || Thrift::Plenty), action, "{record:?}");
            assert_eq!(decide(record, now, &FRESHNESS, || Thrift::Low), thrifty, "{record:?}");
        }
    }

    #[test]
    fn a_tag_ttl_of_zero_checks_each_time() {
        let always = Freshness { tag_ttl: Duration::ZERO, ..FRESHNESS };
        for thrift in [Thrift::Plenty, Thrift::Low] {
            let action = decide(Some(&checked(1_000)), Wall(1_000), &always, || thrift);
            assert_eq!(action, Action::Check);
        }
    }

    #[test]
    fn stale_is_served_within_its_bound_and_never_for_what_is_gone() {
        let now = Wall(1_000_000);
        let table = [
            (checked(now.0 - 7 * 86_400), SourceErrorKind::Timeout, true),
            (checked(now.0 - 7 * 86_400 - 1), SourceErrorKind::Timeout, false),
            (checked(now.0 - 100), SourceErrorKind::TooManyRequests, true),
            (checked(now.0 - 100), SourceErrorKind::NotFound, false),
            (checked(now.0 - 3_600), SourceErrorKind::Denied, true),
            (checked(now.0 - 3_601), SourceErrorKind::Denied, false),
            (checked(now.0 - 3_601), SourceErrorKind::Unauthorized, false),
            (checked(0), SourceErrorKind::Unavailable, true),
            (checked(0), SourceErrorKind::Denied, false),
            (checked(now.0 + 50), SourceErrorKind::Unavailable, true),
        ];
        for (record, error, served) in table {
            assert_eq!(serve_stale(&record, now, &FRESHNESS, error), served, "{record:?} {error:?}");
        }
    }
}
