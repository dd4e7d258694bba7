//! A forward proxy, as stands at the border of many networks: takes plain requests as whole URLs and tunnels by CONNECT.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// The longest head of a request that is read, in bytes.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// A running proxy. It closes when dropped.
pub(crate) struct ForwardProxy {
    port: u16,
    heads: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl ForwardProxy {
    /// Starts a proxy on 127.0.0.1. Names that end in `.test` are this machine.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let port = listener.local_addr().expect("a listener has an address").port();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&heads);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(forward(stream, Arc::clone(&seen)));
            }
        });
        Self { port, heads, task }
    }

    /// Returns the proxy's URL.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Returns the port on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Returns the heads of the requests so far.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for ForwardProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Forwards one request, and everything after it to the same place: enough for a client that asks one host only, or
/// whose connections are closed after each answer, which is asked for here.
async fn forward(mut client: TcpStream, heads: Arc<Mutex<Vec<String>>>) -> Option<()> {
    let head = read_head(&mut client).await?;
    heads.lock().unwrap_or_else(PoisonError::into_inner).push(head.clone());
    let (request_line, rest) = head.split_once("\r\n")?;
    let mut words = request_line.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    if method == "CONNECT" {
        let mut server = TcpStream::connect(here(target)).await.ok()?;
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.ok()?;
        copy_bidirectional(&mut client, &mut server).await.ok()?;
        return Some(());
    }
    let (authority, path) = target.strip_prefix("http://")?.split_once('/')?;
    let mut server = TcpStream::connect(here(authority)).await.ok()?;
    // What is for the proxy itself stays with it (RFC 9110, section 11.7.2).
    let is_own = |line: &&str| line.to_lowercase().starts_with("proxy-authorization:");
    let rest: String = rest.split_inclusive("\r\n").filter(|line| !is_own(line)).collect();
    let onward = format!("{method} /{path} HTTP/1.1\r\nconnection: close\r\n{rest}");
    server.write_all(onward.as_bytes()).await.ok()?;
    copy_bidirectional(&mut client, &mut server).await.ok()?;
    Some(())
}

/// Returns where a `host:port` is: `.test` is this machine.
pub(super) fn here(authority: &str) -> String {
    match authority.split_once(".test:") {
        Some((_, port)) => format!("127.0.0.1:{port}"),
        None => authority.to_owned(),
    }
}

async fn read_head(client: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < HEAD_BYTES_MAX {
        head.push(client.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}
