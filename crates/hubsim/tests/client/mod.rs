//! A client for tests: one request on one connection, the answer as it came, whole or broken.

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Uri, header};
use http_body_util::{BodyExt, Empty};
use hubsim::Hub;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// What came back.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    /// Whether the body ended as its head said.
    pub(crate) is_whole: bool,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("headers of the Hub are text"))
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }
}

/// Sends one request; an error is a connection that gave no head.
pub(crate) async fn send(method: Method, url: &str, headers: &[(&str, &str)]) -> Result<Reply, String> {
    let uri: Uri = url.parse().expect("the URL is one");
    let authority = uri.authority().expect("the URL is absolute").to_string();
    let stream = TcpStream::connect(&authority).await.map_err(|error| error.to_string())?;
    let shaken = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::builder().method(method).uri(path).header(header::HOST, &authority);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Empty::<Bytes>::new()).expect("the request is one");
    let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let (parts, mut incoming) = response.into_parts();
    let mut reply =
        Reply { status: parts.status.as_u16(), headers: parts.headers, body: Vec::new(), is_whole: true };
    while let Some(frame) = incoming.frame().await {
        match frame {
            Ok(frame) => reply.body.extend_from_slice(frame.data_ref().map_or(&[], |data| &data[..])),
            Err(_) => {
                reply.is_whole = false;
                break;
            }
        }
    }
    Ok(reply)
}

pub(crate) async fn get(url: &str, headers: &[(&str, &str)]) -> Reply {
    send(Method::GET, url, headers).await.expect("the Hub answers")
}

pub(crate) async fn head(url: &str, headers: &[(&str, &str)]) -> Reply {
    send(Method::HEAD, url, headers).await.expect("the Hub answers")
}

/// Returns the value of an `Authorization` header with a token for a repository.
pub(crate) async fn bearer(hub: &Hub, repository: &str, headers: &[(&str, &str)]) -> String {
    let url = format!("{}?service=registry.docker.io&scope=repository:{repository}:pull", hub.token_url());
    let reply = get(&url, headers).await;
    assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
    format!("Bearer {}", reply.json()["token"].as_str().expect("there is a token"))
}

/// Gets a blob the way a client does: by the registry's redirect, with a range or without.
pub(crate) async fn get_blob(
    hub: &Hub,
    repository: &str,
    digest: &oci::Digest,
    range: Option<&str>,
) -> Reply {
    let bearer = bearer(hub, repository, &[]).await;
    let url = format!("{}/v2/{repository}/blobs/{digest}", hub.registry_url());
    let reply = get(&url, &[("authorization", &bearer)]).await;
    if reply.status != 307 {
        return reply;
    }
    let headers: Vec<_> = range.map(|range| ("range", range)).into_iter().collect();
    send(Method::GET, reply.header("location"), &headers).await.expect("the CDN answers")
}
