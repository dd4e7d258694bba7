//! Bodies on their way in, with the patience that an honest line deserves and no more.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};

use super::{EgressError, EgressErrorKind};

/// Over how much waiting the least speed is measured. Time in which nobody asks for bytes does not count.
const TRICKLE_WINDOW: Duration = Duration::from_secs(30);
/// What must have come after so much waiting, in bytes: 1 KiB a second.
const TRICKLE_BYTES_MIN: u64 = 30 << 10;

/// Reads a whole body into memory. Fails as malformed past `bytes_max`, and at `deadline`.
pub async fn collect(mut body: Incoming, bytes_max: usize, deadline: Instant) -> Result<Bytes, EgressError> {
    let too_large = || {
        let message = format!("the answer is larger than {bytes_max} bytes");
        EgressError { kind: EgressErrorKind::Malformed, message }
    };
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(too_large());
    }
    let mut whole = BytesMut::new();
    loop {
        let frame = match timeout_at(deadline, body.frame()).await {
            Ok(None) => return Ok(whole.freeze()),
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => return Err(EgressError::of_body(&error)),
            Err(_) => return Err(timed_out("the answer did not end in time".to_owned())),
        };
        let Some(data) = frame.data_ref() else { continue };
        if whole.len() + data.len() > bytes_max {
            return Err(too_large());
        }
        whole.extend_from_slice(data);
    }
}

/// A body as a stream that fails where the sender falls silent, or trickles as if to hold us.
pub struct Steady {
    body: Incoming,
    stall_timeout: Duration,
    silence: Pin<Box<Sleep>>,
    /// Since when a reader waits for bytes; `None` while none does.
    waiting_since: Option<Instant>,
    pace: Pace,
}

impl Steady {
    /// Wraps a body; `stall_timeout` is how long no byte may come while a reader waits.
    pub fn new(body: Incoming, stall_timeout: Duration) -> Self {
        let silence = Box::pin(sleep_until(Instant::now() + stall_timeout));
        Self { body, stall_timeout, silence, waiting_since: None, pace: Pace::default() }
    }
}

impl Stream for Steady {
    type Item = Result<Bytes, EgressError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(EgressError::of_body(&error)))),
                Poll::Ready(Some(Ok(frame))) => {
                    let Ok(data) = frame.into_data() else { continue };
                    let waited = self.waiting_since.take().map_or(Duration::ZERO, |since| since.elapsed());
                    if self.pace.is_trickle(waited, data.len()) {
                        let message = "the answer comes slower than 1 KiB a second".to_owned();
                        return Poll::Ready(Some(Err(timed_out(message))));
                    }
                    return Poll::Ready(Some(Ok(data)));
                }
                Poll::Pending => {}
            }
            if self.waiting_since.is_none() {
                let now = Instant::now();
                self.waiting_since = Some(now);
                let silent_at = now + self.stall_timeout;
                self.silence.as_mut().reset(silent_at);
            }
            return match self.silence.as_mut().poll(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(()) => {
                    let message = format!("no byte came for {} s", self.stall_timeout.as_secs_f64());
                    Poll::Ready(Some(Err(timed_out(message))))
                }
            };
        }
    }
}

fn timed_out(message: String) -> EgressError {
    EgressError { kind: EgressErrorKind::Timeout, message }
}

/// How much came in how much waiting.
#[derive(Debug, Default)]
struct Pace {
    waited: Duration,
    received_bytes: u64,
}

impl Pace {
    /// Counts what came after a wait; returns whether that is a trickle.
    fn is_trickle(&mut self, waited: Duration, bytes: usize) -> bool {
        self.waited += waited;
        self.received_bytes += bytes as u64;
        if self.waited < TRICKLE_WINDOW {
            return false;
        }
        let whole = std::mem::take(self);
        whole.received_bytes < TRICKLE_BYTES_MIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_trickle_is_told_from_a_slow_line() {
        let mut trickle = Pace::default();
        assert_eq!((1..).find(|_| trickle.is_trickle(SECOND, 1)), Some(30));
        let mut slow = Pace::default();
        assert!((0..3600).all(|_| !slow.is_trickle(SECOND, 2 << 10)));
        let mut slow_reader = Pace::default();
        assert!(
            (0..3600).all(|_| !slow_reader.is_trickle(Duration::ZERO, 1)),
            "that is not the sender's fault"
        );
    }
}
