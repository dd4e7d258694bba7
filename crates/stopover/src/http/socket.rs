//! The socket beneath a connection: it gives up a client that takes nothing for too long, whatever is spoken over it.

use std::{
    io::{self, IoSlice},
    os::fd::BorrowedFd,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use crate::listen::Stream;

/// A socket.
pub(super) struct Socket {
    stream: Stream,
    stall_timeout: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Socket {
    pub(super) fn new(stream: Stream, stall_timeout: Duration) -> Self {
        Self { stream, stall_timeout, stalled: None }
    }

    /// Returns the first byte that comes and leaves it to be read.
    pub(super) async fn peek(&self) -> io::Result<Option<u8>> {
        self.stream.peek().await
    }

    /// Writes by what is given, once the socket can be written to.
    pub(super) fn poll_write_by(
        &mut self,
        context: &mut Context<'_>,
        write: impl FnMut(BorrowedFd<'_>) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        let result = self.stream.poll_write_by(context, write);
        self.watch(context, result)
    }

    /// Notes progress, or cuts a client that has made none for too long.
    fn watch<T>(&mut self, context: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.stalled = None;
            return result;
        }
        let timeout = self.stall_timeout;
        ready!(self.stalled.get_or_insert_with(|| Box::pin(sleep(timeout))).as_mut().poll(context));
        let message = format!("the client took nothing for {timeout:?}");
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, message)))
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let socket = self.get_mut();
        let result = Pin::new(&mut socket.stream).poll_write(context, bytes);
        socket.watch(context, result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let socket = self.get_mut();
        let result = Pin::new(&mut socket.stream).poll_write_vectored(context, slices);
        socket.watch(context, result)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
