//! The connection that hyper reads from and writes to.
//!
//! It sends parts of files where it is given ghost bytes, and gives the refusals that hyper makes by itself (a request it
//! cannot parse) the shape that the specification wants of errors.

use std::{
    fmt,
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, StatusCode};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use oci::ErrorCode;
use rustix::net::SendFlags;

use super::{
    access::{Accounts, Line},
    ghost::{Ghosts, Part, is_ghost},
    wire::Wire,
};

/// The most that one call to sendfile is asked for. After each call the connection lets others have its worker: a fast
/// client does not keep it for itself, and turns this short were faster than filling one socket after another.
const SENDFILE_BYTES_MAX: usize = 256 << 10;
/// Plain slices sent before a file's part, in one packet with it.
const SLICES_MAX: usize = 16;

/// The header that every answer of ours carries.
pub(super) const VERSION_HEADER: &str = "docker-distribution-api-version";

/// What a connection and the requests on it share.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) ghosts: Ghosts,
    /// Bytes written so far.
    pub(super) written: AtomicU64,
    /// Whether a request has come.
    pub(super) asked: AtomicBool,
}

impl Shared {
    /// Ends if no request has come within that time. hyper's own deadline begins when it knows which HTTP is spoken, so
    /// it does not hold whoever says nothing, nor whoever greets in HTTP/2 and asks nothing.
    pub(super) async fn nothing_asked(&self, within: Duration) {
        tokio::time::sleep(within).await;
        if self.asked.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    }
}

/// From whom a connection comes, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Client {
    /// `None` where it came by a unix socket.
    pub(super) address: Option<SocketAddr>,
    /// The kind of listener: `tcp`, `tls` or `unix`.
    pub(super) listener: &'static str,
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => SocketAddr::new(address.ip().to_canonical(), address.port()).fmt(f),
            None => f.write_str("unix"),
        }
    }
}

/// A connection.
pub(super) struct Connection {
    wire: TokioIo<Wire>,
    shared: Arc<Shared>,
    refusal: Option<Bytes>,
    refused: Refused,
    /// Whether a part of a file was sent and the others have not had their turn since.
    had_turn: bool,
}

/// Who is told of requests that hyper refuses.
pub(super) struct Refused {
    pub(super) accounts: Arc<Accounts>,
    pub(super) client: Client,
}

impl Refused {
    /// Has a line written of a request of which nothing is known but that it is none.
    pub(super) fn tell(&self, status: StatusCode, why: &str) {
        let method = Method::from_bytes(b"-").unwrap_or_default();
        let mut line = Line::begin(&self.accounts, self.client, method, 0);
        line.status = status;
        line.error = Some(why.to_owned());
    }
}

impl Connection {
    pub(super) fn new(wire: Wire, shared: Arc<Shared>, refused: Refused) -> Self {
        Self { wire: TokioIo::new(wire), shared, refusal: None, refused, had_turn: false }
    }

    fn write_some(&mut self, context: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let Some(first) = slices.iter().find(|slice| !slice.is_empty()) else { return Poll::Ready(Ok(0)) };
        if let Some(part) = self.shared.ghosts.part(first) {
            return self.send_file(context, &part?);
        }
        if self.refusal.is_some() || (slices.len() == 1 && is_refusal(first)) {
            return self.refuse(context, first);
        }
        match slices.iter().position(|slice| is_ghost(slice)) {
            Some(ghost) => self.send_head(context, &slices[..ghost.min(SLICES_MAX)]),
            None => Pin::new(&mut self.wire).poll_write_vectored(context, slices),
        }
    }

    fn send_file(&mut self, context: &mut Context<'_>, part: &Part) -> Poll<io::Result<usize>> {
        let Wire::Plain(socket) = self.wire.inner_mut() else { return Poll::Ready(Err(not_over_tls())) };
        let sent = socket.poll_write_by(context, |fd| {
            let mut offset = part.offset;
            Ok(rustix::fs::sendfile(fd, &part.file, Some(&mut offset), part.len.min(SENDFILE_BYTES_MAX))?)
        });
        match ready!(sent)? {
            0 => Poll::Ready(Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the file got shorter while it was sent",
            ))),
            sent => {
                self.had_turn = true;
                Poll::Ready(Ok(sent))
            }
        }
    }

    fn send_head(&mut self, context: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let Wire::Plain(socket) = self.wire.inner_mut() else { return Poll::Ready(Err(not_over_tls())) };
        socket.poll_write_by(context, |fd| {
            let mut none = rustix::net::SendAncillaryBuffer::default();
            Ok(rustix::net::sendmsg(fd, slices, &mut none, SendFlags::MORE | SendFlags::NOSIGNAL)?)
        })
    }

    /// Writes our refusal in place of hyper's.
    fn refuse(&mut self, context: &mut Context<'_>, original: &[u8]) -> Poll<io::Result<usize>> {
        let refusal = self.refusal.get_or_insert_with(|| {
            let status = StatusCode::from_bytes(original.get(9..12).unwrap_or_default());
            self.refused.tell(status.unwrap_or(StatusCode::BAD_REQUEST), "the request is not valid HTTP");
            refusal_for(original)
        });
        while !refusal.is_empty() {
            let written = ready!(Pin::new(&mut self.wire).poll_write(context, refusal))?;
            let _ = refusal.split_to(written);
        }
        self.refusal = None;
        Poll::Ready(Ok(original.len()))
    }
}

impl Read for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().wire).poll_read(context, buffer)
    }
}

impl Write for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, slice: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(slice)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let connection = self.get_mut();
        if std::mem::take(&mut connection.had_turn) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let written = ready!(connection.write_some(context, slices))?;
        connection.shared.written.fetch_add(written as u64, Ordering::Relaxed);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().wire).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().wire).poll_shutdown(context)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.ghosts.clear();
    }
}

/// Ghost bytes are given to no request that came over TLS.
fn not_over_tls() -> io::Error {
    io::Error::other("a part of a file cannot be sent as such over TLS")
}

/// Returns whether these bytes are hyper's own refusal of a request that it could not parse: an error's head without
/// the header that all of ours have.
fn is_refusal(bytes: &[u8]) -> bool {
    const HEAD_BYTES_MAX: usize = 256;
    bytes.len() <= HEAD_BYTES_MAX
        && bytes.starts_with(b"HTTP/1.")
        && matches!(bytes.get(8..10), Some(b" 4"))
        && bytes.ends_with(b"\r\n\r\n")
        && !bytes.windows(VERSION_HEADER.len()).any(|window| window == VERSION_HEADER.as_bytes())
}

fn refusal_for(original: &[u8]) -> Bytes {
    let status_line = original.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let status_line = String::from_utf8_lossy(status_line);
    let reason = status_line.get(9..).unwrap_or("400 Bad Request");
    let message =
        format!("the request is not valid HTTP: {}", reason.get(4..).unwrap_or_default().to_lowercase());
    let body = oci::error_body(ErrorCode::Unsupported, &message, None);
    Bytes::from(format!(
        "HTTP/1.1 {reason}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         {VERSION_HEADER}: registry/2.0\r\nconnection: close\r\n\r\n{body}",
        body.len(),
    ))
}
