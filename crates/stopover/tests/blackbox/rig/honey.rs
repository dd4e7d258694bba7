//! A listener that nobody should trust: answers whatever it is asked, and keeps every byte that it hears.
//!
//! It speaks just enough HTTP to know where a request ends.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// Says what to answer to a request, given whole.
type Answer = Arc<dyn Fn(&str) -> String + Send + Sync>;

/// A trap for credentials. It closes when dropped.
pub(crate) struct Honey {
    port: u16,
    heard: Arc<Heard>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Heard {
    connections: AtomicUsize,
    bytes: Mutex<Vec<u8>>,
}

impl Honey {
    /// Sets a trap that answers every request with a token to nothing.
    pub(crate) async fn start() -> Self {
        let body = "{\"token\":\"honey\",\"expires_in\":300}";
        let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: application/json";
        let answer = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        Self::telling(move |_| answer.clone()).await
    }

    /// Sets a trap that wants to know who is there; `challenge` is its `WWW-Authenticate`.
    pub(crate) async fn challenging(challenge: impl Fn(u16) -> String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let port = listener.local_addr().expect("a listener has an address").port();
        let head = "HTTP/1.1 401 Unauthorized\r\nconnection: close\r\nwww-authenticate:";
        let answer = format!("{head} {}\r\ncontent-length: 0\r\n\r\n", challenge(port));
        Self::at(listener, Arc::new(move |_| answer.clone()))
    }

    /// Sets a trap at an address of this machine, which answers nothing that makes sense.
    pub(crate) async fn on(address: &str) -> Self {
        let listener = TcpListener::bind(address).await.expect("nothing else listens there, and we may");
        Self::at(listener, Arc::new(|_| "nothing".to_owned()))
    }

    /// Sets a trap that answers each request, of which it is given the head and the body, by `answer`.
    pub(crate) async fn telling(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        Self::at(listener, Arc::new(answer))
    }

    fn at(listener: TcpListener, answer: Answer) -> Self {
        let port = listener.local_addr().expect("a listener has an address").port();
        let heard = Arc::new(Heard::default());
        let hears = Arc::clone(&heard);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                hears.connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(listen(stream, Arc::clone(&answer), Arc::clone(&hears)));
            }
        });
        Self { port, heard, task }
    }

    /// Returns the port on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Returns how many connections there were.
    pub(crate) fn connections(&self) -> usize {
        self.heard.connections.load(Ordering::SeqCst)
    }

    /// Returns everything that was said, in lower case.
    pub(crate) fn heard(&self) -> String {
        String::from_utf8_lossy(&self.heard.lock()).to_lowercase()
    }
}

impl Drop for Honey {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Heard {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns whether a request has come to its end.
fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let len = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    body.len() >= len.unwrap_or(0)
}

async fn listen(mut stream: TcpStream, answer: Answer, heard: Arc<Heard>) {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        heard.lock().extend_from_slice(&buffer[..read]);
        request.extend_from_slice(&buffer[..read]);
        if is_whole(&request) {
            let said = answer(&String::from_utf8_lossy(&request));
            request.clear();
            if stream.write_all(said.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}
