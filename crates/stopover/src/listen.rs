//! Sockets to listen on: TCP ports, unix sockets, and those that systemd passes.
//!
//! It promises that a port that was open a moment ago can be opened again at once; that a unix socket is never open to
//! more than its mode says, never takes the place of a file or of a socket that somebody listens on, and is removed at
//! the end if it is still its own; and that a socket that was passed stays open for the process that comes next. It
//! knows nothing of what is said over a connection.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
};

use crate::config::Address;

mod passed;

pub use passed::{Passed, passed};

/// Connections that wait in the system's queue.
const QUEUE: i32 = 4_096;
/// A unix socket's mode until it has its own.
const PRIVATE: u32 = 0o600;

/// A socket that is listened on; it is closed when dropped.
pub struct Listener {
    socket: Socket,
    address: Address,
    /// The file of a unix socket of ours.
    _file: Option<SocketFile>,
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Listens at an address; a unix socket's file gets the bits of `mode`.
    pub fn bind(address: &Address, mode: u32) -> io::Result<Self> {
        match address {
            Address::Tcp(address) => {
                let socket = match bind_tcp(*address) {
                    // A machine without IPv6 has no [::]; what is meant is every address that it has.
                    Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED && has_no_ipv6(&error) => {
                        bind_tcp((Ipv4Addr::UNSPECIFIED, address.port()).into())
                    }
                    socket => socket,
                }?;
                let address = Address::Tcp(socket.local_addr()?);
                Ok(Self { socket: Socket::Tcp(socket), address, _file: None })
            }
            Address::Unix(path) => {
                let (socket, file) = bind_unix(path, mode)?;
                Ok(Self { socket: Socket::Unix(socket), address: address.clone(), _file: Some(file) })
            }
        }
    }

    /// Returns the next connection, and whose it is; nobody's where it came by a unix socket.
    pub async fn accept(&self) -> io::Result<(Stream, Option<SocketAddr>)> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, client) = listener.accept().await?;
                Ok((Stream::Tcp(stream), Some(client)))
            }
            Socket::Unix(listener) => Ok((Stream::Unix(listener.accept().await?.0), None)),
        }
    }

    /// Returns where it listens: a free port that was asked for has its number.
    pub fn address(&self) -> &Address {
        &self.address
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::STREAM,
        Some(socket2::Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(QUEUE)?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}

fn has_no_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

fn bind_unix(path: &Path, mode: u32) -> io::Result<(UnixListener, SocketFile)> {
    remove_stale(path)?;
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
    // The file is made with the socket's own mode (unix(7)), so that nobody connects before it has the right one.
    rustix::fs::fchmod(&socket, rustix::fs::Mode::from_raw_mode(PRIVATE))?;
    socket.bind(&socket2::SockAddr::unix(path)?)?;
    let file = SocketFile::of(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    socket.listen(QUEUE)?;
    socket.set_nonblocking(true)?;
    let listener: std::os::unix::net::UnixListener = std::os::fd::OwnedFd::from(socket).into();
    Ok((UnixListener::from_std(listener)?, file))
}

/// Removes a socket that a process left which ended without.
fn remove_stale(path: &Path) -> io::Result<()> {
    let Ok(there) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !there.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket"));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "somebody listens there")),
        Err(error) => Err(error),
    }
}

/// The file of a unix socket; it is removed when dropped, unless another stands in its place.
struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        let file = std::fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), device: file.dev(), inode: file.ino() })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = |file: std::fs::Metadata| (file.dev(), file.ino()) == (self.device, self.inode);
        if std::fs::symlink_metadata(&self.path).is_ok_and(is_ours) {
            // What cannot be removed is stale, and the next one replaces it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A connection.
pub enum Stream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a unix socket.
    Unix(UnixStream),
}

impl Stream {
    /// Has small parts sent at once.
    pub fn set_nodelay(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_nodelay(true),
            Self::Unix(_) => Ok(()),
        }
    }

    /// Does what writes to the socket once it can be written to, and again if it could not after all.
    pub fn poll_write_by(
        &self,
        context: &mut Context<'_>,
        mut write: impl FnMut(BorrowedFd<'_>) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let result = match self {
                Self::Tcp(stream) => {
                    ready!(stream.poll_write_ready(context))?;
                    stream.try_io(Interest::WRITABLE, || write(stream.as_fd()))
                }
                Self::Unix(stream) => {
                    ready!(stream.poll_write_ready(context))?;
                    stream.try_io(Interest::WRITABLE, || write(stream.as_fd()))
                }
            };
            match result {
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                result => return Poll::Ready(result),
            }
        }
    }

    /// Returns the first byte that comes and leaves it to be read; `None` where the other side closes before.
    pub async fn peek(&self) -> io::Result<Option<u8>> {
        let mut byte = [0];
        let peek = |fd: BorrowedFd<'_>, byte: &mut [u8; 1]| {
            Ok(rustix::net::recv(fd, &mut byte[..], rustix::net::RecvFlags::PEEK)?.1)
        };
        let len = match self {
            Self::Tcp(stream) => {
                stream.async_io(Interest::READABLE, || peek(stream.as_fd(), &mut byte)).await?
            }
            Self::Unix(stream) => {
                stream.async_io(Interest::READABLE, || peek(stream.as_fd(), &mut byte)).await?
            }
        };
        Ok((len > 0).then_some(byte[0]))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_unix_socket_takes_only_the_place_of_a_stale_one_and_is_removed_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.sock");
        let address = Address::Unix(path.clone());
        let first = Listener::bind(&address, 0o640).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        let error = Listener::bind(&address, 0o640).map(drop).unwrap_err();
        assert_eq!(error.to_string(), "somebody listens there");
        drop(first);
        assert!(!path.exists());

        // Closed without being removed, as after a crash.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let second = Listener::bind(&address, 0o600).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "another's").unwrap();
        drop(second);
        assert!(path.exists(), "what is not ours stays");
        let error = Listener::bind(&address, 0o640).map(drop).unwrap_err();
        assert_eq!(error.to_string(), "there is a file that is no socket");
    }
}
