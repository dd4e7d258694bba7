//! A response body: slices of a blob, at the line's pace, with what a fault does to them.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};

use crate::{blob::Blob, pace::Bucket, wire::Connection};

/// A response body.
pub(crate) struct Body(Option<Box<Sending>>);

/// What a body sends, and how it ends.
pub(crate) struct Sending {
    pub(crate) blob: Arc<Blob>,
    /// The offset in the blob of the next byte to send.
    pub(crate) at: u64,
    /// The offset in the blob at which `ending` happens.
    pub(crate) stop: u64,
    pub(crate) ending: Ending,
    /// The `Content-Length` sent; `None` sends chunks.
    pub(crate) declared: Option<u64>,
    /// The offset in the blob of a byte to send wrong.
    pub(crate) flip: Option<u64>,
    /// Where to count the bytes sent.
    pub(crate) meter: Option<Arc<AtomicU64>>,
    pub(crate) connection: Arc<Connection>,
    pub(crate) line: Arc<Bucket>,
    pub(crate) waiting: Option<Waiting>,
}

/// What happens when a body has come to its stop.
pub(crate) enum Ending {
    /// The body is whole.
    Whole,
    /// The connection closes.
    Cut,
    /// Nothing happens until the future ends; then the body goes on to this offset.
    Stall(Pin<Box<dyn Future<Output = ()> + Send>>, u64),
}

/// A wait, and the bytes to send after it.
pub(crate) struct Waiting {
    until: Pin<Box<dyn Future<Output = ()> + Send>>,
    then: Bytes,
}

impl Body {
    pub(crate) fn empty() -> Self {
        Self(None)
    }

    pub(crate) fn sending(sending: Sending) -> Self {
        Self(Some(Box::new(sending)))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match &mut self.get_mut().0 {
            None => Poll::Ready(None),
            Some(sending) => sending.poll_slice(cx).map(|slice| slice.map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match self.0.as_ref().map(|sending| sending.declared) {
            None => SizeHint::with_exact(0),
            Some(Some(declared)) => SizeHint::with_exact(declared),
            Some(None) => SizeHint::default(),
        }
    }
}

impl Sending {
    fn poll_slice(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            if let Some(waiting) = &mut self.waiting {
                ready!(waiting.until.as_mut().poll(cx));
                let bytes = std::mem::take(&mut waiting.then);
                self.waiting = None;
                if !bytes.is_empty() {
                    return Poll::Ready(Some(self.sent(bytes)));
                }
            }
            if self.at >= self.stop {
                match std::mem::replace(&mut self.ending, Ending::Whole) {
                    Ending::Whole => return Poll::Ready(None),
                    Ending::Cut => {
                        self.ending = Ending::Cut;
                        self.connection.cut();
                        return Poll::Pending;
                    }
                    Ending::Stall(until, stop) => {
                        self.stop = stop;
                        self.waiting = Some(Waiting { until, then: Bytes::new() });
                        continue;
                    }
                }
            }
            let bytes = self.next_slice();
            let own = self.connection.bucket.reserve(bytes.len());
            let shared = self.line.reserve(bytes.len());
            match own.max(shared) {
                None => return Poll::Ready(Some(self.sent(bytes))),
                Some(arrival) => {
                    let until = Box::pin(tokio::time::sleep_until(arrival));
                    self.waiting = Some(Waiting { until, then: bytes });
                }
            }
        }
    }

    fn next_slice(&mut self) -> Bytes {
        let smooth = self.connection.bucket.slice_bytes().min(self.line.slice_bytes());
        let most = (self.stop - self.at).min(smooth as u64);
        let bytes = self.blob.slice(self.at, most as usize);
        let start = self.at;
        self.at += bytes.len() as u64;
        match self.flip {
            Some(flip) if (start..self.at).contains(&flip) => {
                let mut wrong = BytesMut::from(&bytes[..]);
                wrong[(flip - start) as usize] ^= 1;
                wrong.freeze()
            }
            _ => bytes,
        }
    }

    fn sent(&self, bytes: Bytes) -> Bytes {
        if let Some(meter) = &self.meter {
            meter.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        bytes
    }
}
