//! Asking a running instance, over its operator's port.
//!
//! It promises an end, within seconds and a bounded answer, and an error that says what was asked and what to do.

use std::{net::Ipv4Addr, path::PathBuf, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};

use super::{Document, PATH};
use crate::config::Address;

/// How long connecting and answering may take together.
const WITHIN: Duration = Duration::from_secs(10);
/// The longest answer, in bytes: the registries that are remembered have room in it ten times over.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// Where an operator's port is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A host and a port.
    Tcp(String),
    /// A socket in the file system.
    Unix(PathBuf),
}

/// Why nothing was learned.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The text names no place.
    #[error(
        "--admin: found {0:?}, expected the operator's port as admin.addr has it: \"127.0.0.1:5001\", \":5001\" or \
         \"unix:/run/x.sock\""
    )]
    Place(String),
    /// The configuration turns the port off.
    #[error(
        "admin.addr is \"off\": an instance with this configuration answers no questions; set admin.addr, or name \
         another instance with --admin"
    )]
    Off,
    /// The configuration leaves the port's number to the system.
    #[error(
        "admin.addr has port 0: the log of the running instance says which one it took; name that with --admin"
    )]
    AnyPort,
    /// Nobody was reached.
    #[error(
        "{0} cannot be asked: {1}; does `stopover serve` run there, and is that its admin.addr? --admin names another \
         address"
    )]
    Unreachable(Place, String),
    /// Whoever answers is somebody else.
    #[error(
        "{0} is not the operator's port of a Stopover, or of an older one: {1}; --admin names another address"
    )]
    Stranger(Place, String),
}

impl Place {
    /// Reads what an operator writes: `admin.addr` as in the configuration, a host's name, or a URL with no path.
    pub fn parse(text: &str) -> Result<Self, AskError> {
        let wrong = || AskError::Place(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            return if path.is_absolute() { Ok(Self::Unix(path)) } else { Err(wrong()) };
        }
        let authority = text.strip_prefix("http://").map_or(text, |rest| rest.trim_end_matches('/'));
        let (host, port) = authority.rsplit_once(':').ok_or_else(wrong)?;
        let is_host = |char: char| char.is_ascii_alphanumeric() || "[]:.-_%".contains(char);
        let is_bare_v6 = host.contains(':') && !host.starts_with('[');
        if !matches!(port.parse(), Ok(1..=u16::MAX)) || is_bare_v6 || !host.chars().all(is_host) {
            return Err(wrong());
        }
        let host = if matches!(host, "" | "0.0.0.0" | "[::]") { "127.0.0.1" } else { host };
        Ok(Self::Tcp(format!("{host}:{port}")))
    }

    /// Returns where an instance with this `admin.addr` is asked from the same machine.
    pub fn of(addr: Option<&Address>) -> Result<Self, AskError> {
        match addr {
            None => Err(AskError::Off),
            Some(Address::Unix(path)) => Ok(Self::Unix(path.clone())),
            Some(Address::Tcp(address)) if address.port() == 0 => Err(AskError::AnyPort),
            Some(Address::Tcp(address)) if address.ip().is_unspecified() => {
                // [::] stands for IPv4 too, which a machine without IPv6 has alone.
                Ok(Self::Tcp(format!("{}:{}", Ipv4Addr::LOCALHOST, address.port())))
            }
            Some(Address::Tcp(address)) => Ok(Self::Tcp(address.to_string())),
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// What an instance answers: the text as sent, and what it says.
pub struct Answer {
    /// The text, JSON.
    pub text: String,
    /// The same, read.
    pub document: Document,
}

/// Asks the instance at `place`.
pub async fn ask(place: &Place) -> Result<Answer, AskError> {
    let unreachable = |why: &dyn std::fmt::Display| AskError::Unreachable(place.clone(), why.to_string());
    let asked = async {
        match place {
            Place::Tcp(address) => {
                let stream = TcpStream::connect(address).await.map_err(|error| unreachable(&error))?;
                ask_over(stream, place).await
            }
            Place::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(|error| unreachable(&error))?;
                ask_over(stream, place).await
            }
        }
    };
    let answer = tokio::time::timeout(WITHIN, asked).await;
    answer.unwrap_or_else(|_| Err(unreachable(&format_args!("no answer within {} s", WITHIN.as_secs()))))
}

async fn ask_over(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    place: &Place,
) -> Result<Answer, AskError> {
    let stranger = |why: &dyn std::fmt::Display| AskError::Stranger(place.clone(), why.to_string());
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| stranger(&error))?;
    let connection = tokio::spawn(connection);
    let host = match place {
        Place::Tcp(address) => address,
        Place::Unix(_) => "localhost",
    };
    let request = Request::get(PATH).header(header::HOST, host).header(header::CONNECTION, "close");
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| stranger(&error))?;
    let response = sender.send_request(request).await.map_err(|error| stranger(&error))?;
    if response.status() != StatusCode::OK {
        return Err(stranger(&format_args!("it answers {} to {PATH}", response.status())));
    }
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    connection.abort();
    let body = body.map_err(|error| match error.downcast_ref::<LengthLimitError>() {
        Some(_) => stranger(&format_args!("it answers with more than {} MiB", ANSWER_BYTES_MAX >> 20)),
        None => stranger(&format_args!("its answer broke off: {error}")),
    })?;
    let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
    let document = serde_json::from_str(&text);
    let document =
        document.map_err(|error| stranger(&format_args!("its answer is not understood: {error}")))?;
    Ok(Answer { text, document })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_written_as_admin_addr_is_or_as_a_url() {
        for (text, place) in [
            ("127.0.0.1:5001", Some("127.0.0.1:5001")),
            (":5001", Some("127.0.0.1:5001")),
            ("0.0.0.0:5001", Some("127.0.0.1:5001")),
            ("[::]:5001", Some("127.0.0.1:5001")),
            ("[::1]:5001", Some("[::1]:5001")),
            ("mirror.lan:5001", Some("mirror.lan:5001")),
            ("http://mirror.lan:5001/", Some("mirror.lan:5001")),
            ("unix:/run/stopover/admin.sock", Some("unix:/run/stopover/admin.sock")),
            ("unix:run/admin.sock", None),
            ("https://mirror.lan:5001", None),
            ("http://mirror.lan:5001/api/v1/quota", None),
            ("mirror.lan", None),
            ("5001", None),
            ("::1:5001", None),
            ("mirror.lan:0", None),
            ("mirror.lan:65536", None),
            ("mirror lan:5001", None),
            ("", None),
        ] {
            let found = Place::parse(text).ok().map(|place| place.to_string());
            assert_eq!(found.as_deref(), place, "{text}");
        }
    }

    #[test]
    fn an_instance_is_asked_from_its_own_machine() {
        let tcp = |text: &str| Some(Address::Tcp(text.parse().unwrap()));
        let said = |addr: Option<Address>| match Place::of(addr.as_ref()) {
            Ok(place) => place.to_string(),
            Err(error) => error.to_string(),
        };
        assert_eq!(said(tcp("127.0.0.1:5001")), "127.0.0.1:5001");
        assert_eq!(said(tcp("[::]:5001")), "127.0.0.1:5001");
        assert_eq!(said(Some(Address::Unix("/run/x.sock".into()))), "unix:/run/x.sock");
        assert!(said(tcp("127.0.0.1:0")).starts_with("admin.addr has port 0"));
        assert!(said(None).starts_with("admin.addr is \"off\""));
    }
}
