//! When a broken transfer is taken up again, and after what wait. Pure but for chance.

use std::time::Duration;

use crate::source::{SourceError, SourceErrorKind};

/// Failures in a row after which a transfer is given up that has brought nothing yet: somebody waits for a head.
const FAILURES_AT_START_MAX: u32 = 4;
/// Failures in a row, without a byte between them, after which a transfer is given up that was under way: clients
/// have a part already and bear a pause better than a cut. With the waits below that is a quarter of a minute.
const FAILURES_UNDER_WAY_MAX: u32 = 9;
const WAIT_FIRST: Duration = Duration::from_millis(100);
const WAIT_LAST: Duration = Duration::from_secs(4);
/// A source that wants to be left alone for longer than this has failed the transfer: one that brought nothing yet,
/// since whoever waits for a head is better told at once, and one under way.
const WAIT_AT_START_MAX: Duration = Duration::from_secs(2);
const WAIT_UNDER_WAY_MAX: Duration = Duration::from_secs(10);

/// Counts the failures of one transfer.
#[derive(Default)]
pub(super) struct Retry {
    failures: u32,
    under_way: bool,
}

impl Retry {
    /// Notes that bytes came.
    pub(super) fn progressed(&mut self) {
        self.failures = 0;
        self.under_way = true;
    }

    /// Returns how long to wait before the next attempt; `None` to give up.
    pub(super) fn after(&mut self, error: &SourceError) -> Option<Duration> {
        let hopeless = match error.kind {
            SourceErrorKind::NotFound
            | SourceErrorKind::Unauthorized
            | SourceErrorKind::Denied
            | SourceErrorKind::Unsupported
            | SourceErrorKind::Refused => true,
            SourceErrorKind::TooManyRequests
            | SourceErrorKind::Unavailable
            | SourceErrorKind::Timeout
            | SourceErrorKind::BadAnswer
            | SourceErrorKind::WrongContent => false,
        };
        self.failures += 1;
        let (failures_max, wait_max) = if self.under_way {
            (FAILURES_UNDER_WAY_MAX, WAIT_UNDER_WAY_MAX)
        } else {
            (FAILURES_AT_START_MAX, WAIT_AT_START_MAX)
        };
        if hopeless || self.failures >= failures_max {
            return None;
        }
        let grown = (WAIT_FIRST * 2u32.pow(self.failures - 1)).min(WAIT_LAST);
        let wait = error.retry_after.unwrap_or(grown);
        (wait <= wait_max).then_some(wait)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn error(kind: SourceErrorKind, retry_after: Option<u64>) -> SourceError {
        let retry_after = retry_after.map(Duration::from_secs);
        SourceError { retry_after, ..SourceError::new(Arc::from("docker.io"), kind, "") }
    }

    #[test]
    fn a_transfer_that_comes_no_further_is_given_up_and_one_that_does_is_not() {
        let broken = error(SourceErrorKind::Unavailable, None);
        let mut retry = Retry::default();
        let mut waits = |count: usize| -> Vec<_> {
            (0..count).map(|_| retry.after(&broken).map(|wait| wait.as_millis())).collect()
        };
        assert_eq!(waits(4), [Some(100), Some(200), Some(400), None]);
        retry.progressed();
        let mut waits = |count: usize| -> Vec<_> {
            (0..count).map(|_| retry.after(&broken).map(|wait| wait.as_millis())).collect()
        };
        let under_way = [100, 200, 400, 800, 1600, 3200, 4000, 4000].map(Some);
        assert_eq!(waits(8), under_way);
        assert_eq!(waits(1), [None]);
    }

    #[test]
    fn what_no_retry_cures_is_not_retried() {
        for kind in [SourceErrorKind::NotFound, SourceErrorKind::Denied, SourceErrorKind::Refused] {
            assert_eq!(Retry::default().after(&error(kind, None)), None, "{kind:?}");
        }
        assert_eq!(Retry::default().after(&error(SourceErrorKind::TooManyRequests, Some(3600))), None);
        let soon = error(SourceErrorKind::TooManyRequests, Some(2));
        assert_eq!(Retry::default().after(&soon), Some(Duration::from_secs(2)));
    }
}
