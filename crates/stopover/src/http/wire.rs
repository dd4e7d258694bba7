//! What bytes go over: a socket as it is, or TLS over one. Here a connection begins with its handshake.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::socket::Socket;

/// What goes to whoever speaks HTTP where TLS is spoken: the words of Go's server, which people search for.
const NOT_TLS: &[u8] =
    b"HTTP/1.0 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\nconnection: close\r\n\r\n\
    Client sent an HTTP request to an HTTPS server.\n";
/// How long the client may take to read that, and how much is read of what it still sends.
const FAREWELL: Duration = Duration::from_secs(1);
const FAREWELL_BYTES_MAX: u64 = 64 << 10;

/// What bytes go over.
pub(super) enum Wire {
    /// A socket as it is; parts of files can be sent over it.
    Plain(Socket),
    /// TLS over one.
    Tls(Box<TlsStream<Socket>>),
}

/// How a handshake went.
pub(super) enum Shaken {
    /// Both sides speak TLS.
    Tls(Box<TlsStream<Socket>>),
    /// The client speaks HTTP without it.
    Http(Socket),
    /// The client closed without a word, as probes do.
    Nothing,
}

/// Shakes hands with a client, and fails where it speaks neither TLS nor HTTP, or not as it is wanted.
pub(super) async fn shake(socket: Socket, config: Arc<ServerConfig>) -> io::Result<Shaken> {
    match socket.peek().await? {
        None => Ok(Shaken::Nothing),
        // A method. TLS begins with a record's type, 22.
        Some(b'A'..=b'Z') => Ok(Shaken::Http(socket)),
        Some(_) => Ok(Shaken::Tls(Box::new(TlsAcceptor::from(config).accept(socket).await?))),
    }
}

/// Tells a client that speaks HTTP that TLS is spoken here.
pub(super) async fn say_not_tls(mut socket: Socket) {
    let told = async {
        socket.write_all(NOT_TLS).await?;
        socket.shutdown().await?;
        // What is left unread when a socket is closed takes the answer away from the client.
        tokio::io::copy(&mut (&mut socket).take(FAREWELL_BYTES_MAX), &mut tokio::io::sink()).await
    };
    // A client that is gone is not told.
    let _ = timeout(FAREWELL, told).await;
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write_vectored(context, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
