//! A listener that nobody should trust: answers whatever it is asked, and keeps every byte that it hears.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

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
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json";
        Self::answering(format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len())).await
    }

    /// Sets a trap that wants to know who is there; `challenge` is its `WWW-Authenticate`.
    pub(crate) async fn challenging(challenge: impl Fn(u16) -> String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let port = listener.local_addr().expect("a listener has an address").port();
        let head = "HTTP/1.1 401 Unauthorized\r\nwww-authenticate:";
        Self::at(listener, format!("{head} {}\r\ncontent-length: 0\r\n\r\n", challenge(port)))
    }

    /// Sets a trap at an address of this machine, which answers nothing that makes sense.
    pub(crate) async fn on(address: &str) -> Self {
        let listener = TcpListener::bind(address).await.expect("nothing else listens there, and we may");
        Self::at(listener, "nothing".to_owned())
    }

    async fn answering(answer: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        Self::at(listener, answer)
    }

    fn at(listener: TcpListener, answer: String) -> Self {
        let port = listener.local_addr().expect("a listener has an address").port();
        let heard = Arc::new(Heard::default());
        let (answer, hears): (Arc<str>, _) = (answer.into(), Arc::clone(&heard));
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

async fn listen(mut stream: TcpStream, answer: Arc<str>, heard: Arc<Heard>) {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        heard.lock().extend_from_slice(&buffer[..read]);
        request.extend_from_slice(&buffer[..read]);
        if request.ends_with(b"\r\n\r\n") {
            request.clear();
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}
