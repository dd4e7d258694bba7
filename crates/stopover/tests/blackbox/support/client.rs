//! HTTP clients: one request on one connection, the body read whole, in part or not at all; and HTTP/2.

use bytes::Bytes;
use http::{HeaderMap, Request, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, client::conn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use oci::{Algorithm, Digest};
use serde_json::Value;
use tokio::net::TcpStream;

use super::soon;

/// An answer read to its end, good or bad.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    /// Whether the body ended as its head said.
    pub(crate) is_whole: bool,
}

impl Reply {
    /// Returns a header's value; nothing where it is absent.
    pub(crate) fn header(&self, name: &str) -> &str {
        text_of(&self.headers, name)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("the body is text")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("the body is not JSON: {:?}", self.text()))
    }

    /// Returns the code of the first error, checking that the body has the shape of the specification.
    pub(crate) fn error_code(&self) -> String {
        assert_eq!(self.header("content-type"), "application/json", "{self:?}");
        let json = self.json();
        let code = json["errors"][0]["code"].as_str();
        code.unwrap_or_else(|| panic!("there is no error's code: {json}")).to_owned()
    }

    /// Returns the sha256 digest of the body.
    pub(crate) fn digest(&self) -> Digest {
        Digest::of(Algorithm::Sha256, &self.body)
    }

    /// Returns the length that the head says.
    pub(crate) fn content_length(&self) -> u64 {
        self.header("content-length").parse().expect("there is a Content-Length")
    }
}

/// An answer whose body is read at will; dropping it ends the connection.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    body: Incoming,
    /// Bytes received and not yet read.
    ahead: Bytes,
}

impl Answer {
    /// Returns a header's value; nothing where it is absent.
    pub(crate) fn header(&self, name: &str) -> &str {
        text_of(&self.headers, name)
    }

    /// Reads `len` bytes; fewer, and what broke, where the body ends before.
    pub(crate) async fn read(&mut self, len: usize) -> Result<Vec<u8>, Vec<u8>> {
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            if self.ahead.is_empty() {
                match soon("more of the body comes", self.body.frame()).await {
                    Some(Ok(frame)) => self.ahead = frame.into_data().unwrap_or_default(),
                    Some(Err(_)) | None => return Err(bytes),
                }
            }
            bytes.extend_from_slice(&self.ahead.split_to(self.ahead.len().min(len - bytes.len())));
        }
        Ok(bytes)
    }

    /// Reads what is left, and returns it with the head.
    pub(crate) async fn rest(mut self) -> Reply {
        let mut reply =
            Reply { status: self.status, headers: self.headers, body: self.ahead.to_vec(), is_whole: true };
        while let Some(frame) = soon("the body ends", self.body.frame()).await {
            match frame {
                Ok(frame) => reply.body.extend_from_slice(frame.data_ref().map_or(&[], |data| &data[..])),
                Err(_) => {
                    reply.is_whole = false;
                    break;
                }
            }
        }
        reply
    }
}

/// Sends a request and reads the head of the answer.
pub(crate) async fn open(method: &str, url: &str, headers: &[(&str, &str)]) -> Answer {
    try_open(method, url, headers)
        .await
        .unwrap_or_else(|error| panic!("{method} {url} had no answer: {error}"))
}

/// The same; fails where there is no answer.
async fn try_open(method: &str, url: &str, headers: &[(&str, &str)]) -> Result<Answer, String> {
    let uri: Uri = url.parse().expect("the URL is one");
    let authority = uri.authority().expect("the URL is absolute").to_string();
    let stream = TcpStream::connect(&authority).await.map_err(|error| error.to_string())?;
    let shaken = conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::builder().method(method).uri(path).header(header::HOST, &authority);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Empty::<Bytes>::new()).expect("the request is one");
    let response = soon("an answer begins", sender.send_request(request)).await;
    Ok(answer(response.map_err(|error| error.to_string())?))
}

/// Sends a request and reads the whole answer; fails where there is none.
pub(crate) async fn send(method: &str, url: &str, headers: &[(&str, &str)]) -> Result<Reply, String> {
    Ok(try_open(method, url, headers).await?.rest().await)
}

/// Sends a GET and reads the whole answer.
pub(crate) async fn get(url: &str, headers: &[(&str, &str)]) -> Reply {
    open("GET", url, headers).await.rest().await
}

/// Sends a HEAD.
pub(crate) async fn head(url: &str, headers: &[(&str, &str)]) -> Reply {
    open("HEAD", url, headers).await.rest().await
}

/// A connection that speaks HTTP/2 from its first byte; clones share it.
#[derive(Clone)]
pub(crate) struct Http2 {
    sender: conn::http2::SendRequest<Empty<Bytes>>,
    authority: String,
}

impl Http2 {
    /// Connects to a host and port.
    pub(crate) async fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).await.expect("somebody listens");
        let shaken = conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (sender, connection) = shaken.expect("the other side speaks HTTP/2");
        tokio::spawn(connection);
        Self { sender, authority: address.to_owned() }
    }

    /// Asks for another authority on the same connection.
    pub(crate) fn asking_for(mut self, authority: &str) -> Self {
        authority.clone_into(&mut self.authority);
        self
    }

    /// Sends a request and reads the head of the answer.
    pub(crate) async fn open(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut sender = self.sender.clone();
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.authority));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Empty::new()).expect("the request is one");
        let response = soon("an answer begins", async {
            sender.ready().await?;
            sender.send_request(request).await
        });
        answer(response.await.expect("there is an answer"))
    }
}

fn answer(response: http::Response<Incoming>) -> Answer {
    let (parts, body) = response.into_parts();
    Answer { status: parts.status.as_u16(), headers: parts.headers, body, ahead: Bytes::new() }
}

fn text_of<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).map_or("", |value| value.to_str().expect("headers of the mirror are text"))
}
