//! A client that speaks TLS to the pull port, and the certificates that both need.

use std::{io, path::Path, process::Command, sync::Arc};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, client::conn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use oci::{Algorithm, Digest};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::support::{MirrorOptions, soon};

/// Has the program make a certificate for `mirror.lan` in a folder.
pub(crate) fn certificate_in(folder: &Path) {
    let made = Command::new(env!("CARGO_BIN_EXE_stopover"))
        .args(["dev-certificate", "--host", "mirror.lan", "--out"])
        .arg(folder)
        .output()
        .expect("the binary can be started");
    assert!(made.status.success(), "{made:?}");
}

/// Returns options by which a mirror shows the certificate in a folder.
pub(crate) fn options(folder: &Path) -> MirrorOptions {
    MirrorOptions::default()
        .env("STOPOVER_TLS__CERTIFICATE", folder.join("tls.crt").display())
        .env("STOPOVER_TLS__KEY", folder.join("tls.key").display())
}

/// Who calls, and what it can do.
#[derive(Clone)]
pub(crate) struct Caller {
    roots: Arc<RootCertStore>,
    versions: Vec<&'static SupportedProtocolVersion>,
    alpn: Vec<Vec<u8>>,
    certificate: Option<(Vec<CertificateDer<'static>>, Arc<PrivateKeyDer<'static>>)>,
}

impl Caller {
    /// Trusts the authority that [`certificate_in`] made in a folder; speaks every version of TLS and HTTP.
    pub(crate) fn trusting(folder: &Path) -> Self {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_file(folder.join("ca.crt")).expect("it was just written");
        roots.add(authority).expect("it is an authority");
        let alpn = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Self { roots: Arc::new(roots), versions: rustls::ALL_VERSIONS.to_vec(), alpn, certificate: None }
    }

    /// Offers these protocols alone.
    pub(crate) fn speaking(mut self, alpn: &[&[u8]]) -> Self {
        self.alpn = alpn.iter().map(|name| name.to_vec()).collect();
        self
    }

    /// Speaks this version of TLS alone.
    pub(crate) fn with_version(mut self, version: &'static SupportedProtocolVersion) -> Self {
        self.versions = vec![version];
        self
    }

    /// Shows the `client.pem` of a folder.
    pub(crate) fn showing(mut self, folder: &Path) -> Self {
        let certificate = CertificateDer::from_pem_file(folder.join("client.pem"));
        let key = PrivateKeyDer::from_pem_file(folder.join("client.key")).expect("it was just written");
        self.certificate = Some((vec![certificate.expect("it was just written")], Arc::new(key)));
        self
    }

    /// Connects as to `mirror.lan`.
    pub(crate) async fn connect(&self, address: &str) -> io::Result<TlsStream<TcpStream>> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&self.versions)
            .expect("the provider has them")
            .with_root_certificates(Arc::clone(&self.roots));
        let mut config = match &self.certificate {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                builder.with_client_auth_cert(chain.clone(), key.clone_key()).expect("they belong together")
            }
        };
        config.alpn_protocols.clone_from(&self.alpn);
        let tcp = TcpStream::connect(address).await?;
        let name = ServerName::try_from("mirror.lan").expect("it is a name");
        soon("the handshake ends", TlsConnector::from(Arc::new(config)).connect(name, tcp)).await
    }

    /// Returns the status of `/v2/`, or why there is none.
    pub(crate) async fn ping(&self, address: &str) -> Result<u16, String> {
        let stream = self.connect(address).await.map_err(|error| error.to_string())?;
        let answer = begin(stream, "/v2/").await.map_err(|error| format!("{error:?}"))?;
        Ok(answer.status().as_u16())
    }
}

/// Begins a GET and returns the answer with its body still to come.
pub(crate) async fn begin(
    stream: TlsStream<TcpStream>,
    path: &str,
) -> hyper::Result<http::Response<Incoming>> {
    let uri = format!("https://mirror.lan{path}");
    let empty = Empty::<Bytes>::new();
    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    if is_h2 {
        let (mut sender, connection) =
            conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = Request::get(uri).body(empty).expect("the request is right");
        soon("an answer begins", sender.send_request(request)).await
    } else {
        let (mut sender, connection) = conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = Request::get(path).header("host", "mirror.lan").body(empty);
        soon("an answer begins", sender.send_request(request.expect("the request is right"))).await
    }
}

/// Reads the rest of a good answer; returns its digest.
pub(crate) async fn rest(response: http::Response<Incoming>) -> Digest {
    assert_eq!(response.status(), 200);
    let body = soon("the body ends", response.into_body().collect()).await;
    Digest::of(Algorithm::Sha256, &body.expect("the body comes whole").to_bytes())
}
