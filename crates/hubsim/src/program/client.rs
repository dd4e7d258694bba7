//! HTTP/1.1 over a bare socket: as little work for each byte as a client can do.
//!
//! It reads bodies of a known length and nothing else, since that is all that registries send.

use std::{
    io,
    time::{Duration, Instant},
};

use http::Uri;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Bytes read at once. Fits a second-level cache better than it fits the socket's buffer.
const BUFFER_BYTES: usize = 1 << 20;
const HEAD_BYTES_MAX: usize = 64 << 10;

/// An open connection.
pub(crate) struct Connection {
    stream: TcpStream,
    authority: String,
    buffer: Vec<u8>,
    /// What of the buffer was read and not used yet.
    unread: std::ops::Range<usize>,
}

/// The head of a response.
pub(crate) struct Head {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
}

/// A body that was read.
pub(crate) struct Got {
    pub(crate) bytes: u64,
    /// From the request to the first byte of the body.
    pub(crate) first_byte: Duration,
    /// From the request to the last byte of the body.
    pub(crate) whole: Duration,
}

impl Connection {
    /// Connects to the host of a URL.
    pub(crate) async fn open(url: &Uri) -> io::Result<Self> {
        let authority = url.authority().ok_or_else(|| wrong("the URL names no host"))?.to_string();
        let address = if url.port().is_some() { authority.clone() } else { format!("{authority}:80") };
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, authority, buffer: vec![0; BUFFER_BYTES], unread: 0..0 })
    }

    /// Sends a GET and reads the head of the answer; the body must be read next.
    pub(crate) async fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> io::Result<Head> {
        let mut request =
            format!("GET {path} HTTP/1.1\r\nHost: {}\r\nUser-Agent: hubsim\r\n", self.authority);
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        request += "\r\n";
        self.stream.write_all(request.as_bytes()).await?;
        let mut end = 0;
        self.unread = 0..0;
        loop {
            let count = self.stream.read(&mut self.buffer[end..]).await?;
            if count == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed before a head"));
            }
            end += count;
            let head = &self.buffer[..end.min(HEAD_BYTES_MAX)];
            if let Some(length) = head.windows(4).position(|four| four == b"\r\n\r\n") {
                self.unread = length + 4..end;
                return Head::parse(&self.buffer[..length]);
            }
            if end >= HEAD_BYTES_MAX {
                return Err(wrong("the head is too long"));
            }
        }
    }

    /// Reads the body of the answer and hands it on piece by piece.
    pub(crate) async fn body(
        &mut self,
        head: &Head,
        asked: Instant,
        mut take: impl FnMut(&[u8]),
    ) -> io::Result<Got> {
        let length = match head.header("content-length").map(str::parse::<u64>) {
            Some(Ok(length)) => length,
            _ if head.status == 304 => 0,
            _ => return Err(wrong("the body has no length")),
        };
        let mut got = Got { bytes: 0, first_byte: asked.elapsed(), whole: Duration::ZERO };
        if !self.unread.is_empty() {
            let length = (length as usize).min(self.unread.len());
            take(&self.buffer[self.unread.start..self.unread.start + length]);
            got.bytes = length as u64;
        }
        while got.bytes < length {
            let most = (length - got.bytes).min(BUFFER_BYTES as u64) as usize;
            let count = self.stream.read(&mut self.buffer[..most]).await?;
            if count == 0 {
                let message = format!("closed after {} of {length} bytes", got.bytes);
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
            }
            if got.bytes == 0 {
                got.first_byte = asked.elapsed();
            }
            take(&self.buffer[..count]);
            got.bytes += count as u64;
        }
        got.whole = asked.elapsed();
        Ok(got)
    }
}

impl Head {
    fn parse(bytes: &[u8]) -> io::Result<Self> {
        let text = std::str::from_utf8(bytes).map_err(|_| wrong("the head is no text"))?;
        let mut lines = text.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
        let headers = lines.filter_map(|line| line.split_once(':'));
        Ok(Self {
            status: status.ok_or_else(|| wrong("the answer has no status"))?,
            headers: headers.map(|(name, value)| (name.to_lowercase(), value.trim().to_owned())).collect(),
        })
    }

    /// Returns a header; its name is given in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }
}

/// Returns the path and query of a URL.
pub(crate) fn path(url: &Uri) -> &str {
    url.path_and_query().map_or("/", |path| path.as_str())
}

pub(crate) fn wrong(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}
