//! One TCP connection as the server holds it: who is there, how fast, and whether to cut it.
//!
//! hyper drops what it has buffered when a body fails. To close after an exact number of body bytes, the body instead
//! marks the connection and waits; the IO below closes it once all before has gone out.

use std::{
    io,
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::pace::{Bucket, Rate};

/// What the requests of one connection share.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) peer: IpAddr,
    pub(crate) bucket: Bucket,
    cut: AtomicBool,
}

impl Connection {
    pub(crate) fn new(peer: IpAddr, rate: Rate) -> Self {
        Self { peer, bucket: Bucket::new(rate), cut: AtomicBool::new(false) }
    }

    /// Closes the connection once what was written so far has gone out.
    pub(crate) fn cut(&self) {
        self.cut.store(true, Ordering::Relaxed);
    }
}

/// The IO that hyper reads from and writes to.
pub(crate) struct Wire {
    io: TokioIo<TcpStream>,
    connection: Arc<Connection>,
}

impl Wire {
    pub(crate) fn new(stream: TcpStream, connection: Arc<Connection>) -> Self {
        Self { io: TokioIo::new(stream), connection }
    }
}

impl Read for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_read(cx, buf)
    }
}

impl Write for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut this.io).poll_flush(cx))?;
        // hyper flushes here only when its own buffer is empty: every byte before the cut is out.
        if this.connection.cut.load(Ordering::Relaxed) {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "cut by a fault")));
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, bufs)
    }
}
