//! When a broken transfer is taken up again, and after what wait. Pure but for chance.

use std::time::Duration;

use crate::source::{SourceError, SourceErrorKind};

/// Failures in a row, without a byte between them, after which a transfer is given up.
const FAILURES_MAX: u32 = 5;
const WAIT_FIRST: Duration = Duration::from_millis(100);
/// A source that wants to be left alone for longer than this has failed the transfer.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Counts the failures of one transfer.
#[derive(Default)]
pub(super) struct Retry {
    failures: u32,
}

impl Retry {
    /// Notes that bytes came.
    pub(super) fn progressed(&mut self) {
        self.failures = 0;
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
            | SourceErrorKind::BadAnswer => false,
        };
        self.failures += 1;
        if hopeless || self.failures >= FAILURES_MAX {
            return None;
        }
        let wait = error.retry_after.unwrap_or(WAIT_FIRST * 2u32.pow(self.failures - 1));
        (wait <= WAIT_MAX).then_some(wait)
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
        let waits: Vec<_> = (0..5).map(|_| retry.after(&broken).map(|wait| wait.as_millis())).collect();
        assert_eq!(waits, [Some(100), Some(200), Some(400), Some(800), None]);
        retry.progressed();
        assert_eq!(retry.after(&broken), Some(WAIT_FIRST));
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
