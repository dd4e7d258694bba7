//! A front that speaks TLS before something that does not, with an authority of its own, as companies have them.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tempfile::TempDir;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

/// Whether the front wants to see a certificate of the client.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clients {
    Any,
    WithCertificate,
}

/// A running front. It closes when dropped.
pub(crate) struct TlsFront {
    port: u16,
    folder: TempDir,
    task: JoinHandle<()>,
}

impl TlsFront {
    /// Starts a front for `localhost` before what listens at `behind`.
    pub(crate) async fn before(behind: &str, clients: Clients) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        make_certificates(folder.path());
        let acceptor = TlsAcceptor::from(Arc::new(server_config(folder.path(), clients)));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let port = listener.local_addr().expect("a listener has an address").port();
        let behind: SocketAddr = behind.parse().expect("it is an address");
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    // Whoever does not like our certificate, or has none of its own, is gone.
                    let mut client = acceptor.accept(client).await.ok()?;
                    let mut server = TcpStream::connect(behind).await.ok()?;
                    copy_bidirectional(&mut client, &mut server).await.ok()
                });
            }
        });
        Self { port, folder, task }
    }

    /// Returns its URL.
    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    /// Returns its URL by its address, for which its certificate does not hold.
    pub(crate) fn url_by_address(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// Returns one of its files: `ca.pem`, `client.pem`, `client.key`.
    pub(crate) fn file(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().expect("our paths are text").to_owned()
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Makes an authority and what it signs: a certificate for the front, and one for clients.
pub(crate) fn make_certificates(folder: &Path) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key can be made");
    let authority = params.self_signed(&key).expect("an authority signs itself");
    write(folder.join("ca.pem"), &authority.pem());
    let issuer = Issuer::new(params, key);
    for (name, host, purpose) in [
        ("server", "localhost", ExtendedKeyUsagePurpose::ServerAuth),
        ("client", "mirror.example", ExtendedKeyUsagePurpose::ClientAuth),
    ] {
        let mut params = CertificateParams::new([host.to_owned()]).expect("the name is right");
        params.extended_key_usages = vec![purpose];
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = params.signed_by(&key, &issuer).expect("the authority can sign");
        write(folder.join(format!("{name}.pem")), &certificate.pem());
        write(folder.join(format!("{name}.key")), &key.serialize_pem());
    }
}

fn write(path: PathBuf, text: &str) {
    std::fs::write(path, text).expect("the folder can be written to");
}

fn server_config(folder: &Path, clients: Clients) -> ServerConfig {
    let certificate =
        |name: &str| CertificateDer::from_pem_file(folder.join(name)).expect("it was just written");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("the provider has them");
    let builder = match clients {
        Clients::Any => builder.with_no_client_auth(),
        Clients::WithCertificate => {
            let mut roots = RootCertStore::empty();
            roots.add(certificate("ca.pem")).expect("it is an authority");
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.expect("there is a root"))
        }
    };
    let key = PrivateKeyDer::from_pem_file(folder.join("server.key")).expect("it was just written");
    builder.with_single_cert(vec![certificate("server.pem")], key).expect("they belong together")
}
