//! Reading and checking the files of a certificate. Nothing that clients would refuse, or the server could not use, gets
//! past here, and what is wrong is said with the key of the configuration and the file that it is wrong with.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    server::WebPkiClientVerifier,
    sign::{CertifiedKey, SingleCertAndKey},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use super::facts::Facts;
use crate::config::{ClientAuth, Tls, TlsVersion};

/// The most that is read of a file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What is wrong with the files of a certificate.
#[derive(Debug, thiserror::Error)]
#[error("tls.{key}: {}: {what}", path.display())]
pub struct TlsError {
    /// The key that names the file.
    key: &'static str,
    path: PathBuf,
    what: String,
}

/// What was read, ready to be used.
pub(super) struct Ready {
    pub(super) config: Arc<ServerConfig>,
    /// What is not wrong and looks unwise.
    pub(super) warnings: Vec<String>,
    pub(super) not_after: SystemTime,
    pub(super) names: Vec<String>,
    /// The files' bytes, by which one sees whether anything changed.
    pub(super) content: Vec<Vec<u8>>,
}

/// What tells that a file was written or exchanged, also behind a symbolic link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Returns the files that the configuration names.
pub(super) fn paths(tls: &Tls) -> impl Iterator<Item = &Path> {
    let pair = tls.certificate.iter().chain(&tls.key);
    pair.chain(&tls.client_ca).map(PathBuf::as_path)
}

/// Returns the stamp of each file; `None` for one that is not there.
pub(super) fn stamps(tls: &Tls) -> Vec<Option<Stamp>> {
    let stamp = |path: &Path| {
        let file = std::fs::metadata(path).ok()?;
        Some(Stamp {
            device: file.dev(),
            inode: file.ino(),
            size: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        })
    };
    paths(tls).map(stamp).collect()
}

/// One file while it is read.
struct Source<'a> {
    key: &'static str,
    path: &'a Path,
    bytes: Vec<u8>,
}

impl<'a> Source<'a> {
    fn read(key: &'static str, path: &'a Path) -> Result<Self, TlsError> {
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
        let read = read.and_then(|len| match len as u64 > FILE_BYTES_MAX {
            true => Err(io::Error::new(io::ErrorKind::FileTooLarge, "longer than 1 MiB")),
            false => Ok(()),
        });
        let source = Self { key, path, bytes };
        match read {
            Ok(()) => Ok(source),
            Err(error) => Err(source.wrong(format!("cannot be read: {error}"))),
        }
    }

    fn wrong(&self, what: impl Into<String>) -> TlsError {
        TlsError { key: self.key, path: self.path.to_owned(), what: what.into() }
    }

    fn holds(&self, words: &str) -> bool {
        self.bytes.windows(words.len()).any(|window| window == words.as_bytes())
    }

    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let found = CertificateDer::pem_slice_iter(&self.bytes).collect::<Result<Vec<_>, _>>();
        match found {
            Ok(found) if !found.is_empty() => Ok(found),
            Ok(_) if self.holds("PRIVATE KEY-----") => {
                Err(self.wrong("holds a private key; expected a certificate"))
            }
            Ok(_) => Err(self.wrong("holds no certificate; expected PEM, -----BEGIN CERTIFICATE-----")),
            Err(error) => Err(self.wrong(format!("is not right as PEM: {error}"))),
        }
    }

    fn private_key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        // PKCS#8 says it in its label, the older form in a header.
        if self.holds("BEGIN ENCRYPTED PRIVATE KEY") || self.holds("Proc-Type: 4,ENCRYPTED") {
            let what = "is encrypted, and nobody can be asked for its passphrase; write it without one: openssl pkey -in ... -out ...";
            return Err(self.wrong(what));
        }
        PrivateKeyDer::from_pem_slice(&self.bytes).map_err(|error| match error {
            rustls_pki_types::pem::Error::NoItemsFound if self.holds("BEGIN CERTIFICATE") => {
                self.wrong("holds a certificate; expected its private key")
            }
            rustls_pki_types::pem::Error::NoItemsFound => {
                self.wrong("holds no private key; expected PEM, PKCS#8, PKCS#1 or SEC1")
            }
            error => self.wrong(format!("is not right as PEM: {error}")),
        })
    }
}

/// Reads the files and checks them.
pub(super) fn read(tls: &Tls, certificate: &Path, key: &Path, http2: bool) -> Result<Ready, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let certificates = Source::read("certificate", certificate)?;
    let key = Source::read("key", key)?;
    let chain = certificates.certificates()?;
    let (facts, warnings) = check_chain(&certificates, &chain)?;
    let certified = certify(&certificates, &key, chain, &provider)?;

    let versions = match tls.minimum {
        TlsVersion::Tls12 => rustls::ALL_VERSIONS,
        TlsVersion::Tls13 => &[&rustls::version::TLS13],
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .expect("the provider has suites for both versions");
    let mut content = vec![certificates.bytes.clone(), key.bytes];
    let builder = if tls.client_ca.is_empty() {
        builder.with_no_client_auth()
    } else {
        let authorities = authorities(&tls.client_ca, &mut content)?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider);
        let verifier = match tls.client_auth {
            ClientAuth::Required => verifier,
            ClientAuth::Optional => verifier.allow_unauthenticated(),
        };
        builder.with_client_cert_verifier(verifier.build().expect("there is an authority"))
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    if http2 {
        config.alpn_protocols.insert(0, b"h2".to_vec());
    }
    // Tickets spare a client that comes back a handshake. Each configuration has its own keys for them, so that one who
    // was let in by authorities that are gone is not let in by a ticket.
    if let Ok(ticketer) = aws_lc_rs::Ticketer::new() {
        config.ticketer = ticketer;
    }
    Ok(Ready { config: Arc::new(config), warnings, not_after: facts.not_after, names: facts.names, content })
}

/// Checks the server's own certificate, and that those behind it follow one another.
fn check_chain(source: &Source<'_>, chain: &[CertificateDer<'_>]) -> Result<(Facts, Vec<String>), TlsError> {
    let mut all = Vec::with_capacity(chain.len());
    for (at, der) in chain.iter().enumerate() {
        let facts =
            Facts::read(der).ok_or_else(|| source.wrong(format!("certificate {} in it is none", at + 1)))?;
        all.push(facts);
    }
    let mut warnings = Vec::new();
    let mut warn = |what: &str| {
        warnings.push(format!("tls.{}: {}: {what}", source.key, source.path.display()));
    };
    if all.windows(2).any(|pair| pair[0].issuer != pair[1].subject) {
        warn(
            "the certificates do not follow one another, each signed by the next; some clients will refuse them",
        );
    }
    let first = all.swap_remove(0);
    if first.names.is_empty() {
        warn("names no host (subjectAltName), so clients will refuse it");
    }
    if first.not_before > SystemTime::now() {
        warn("is not valid yet by this machine's clock");
    }
    if first.not_after < SystemTime::now() {
        return Err(source.wrong(format!("expired on {}", httpdate::fmt_http_date(first.not_after))));
    }
    Ok((first, warnings))
}

/// Puts certificate and key together, which must be of one pair.
fn certify(
    certificates: &Source<'_>,
    key: &Source<'_>,
    chain: Vec<CertificateDer<'static>>,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let signer = provider.key_provider.load_private_key(key.private_key()?);
    let signer = signer.map_err(|error| key.wrong(format!("cannot be used: {error}")))?;
    let fits = |chain: Vec<CertificateDer<'static>>| {
        let certified = CertifiedKey::new(chain, Arc::clone(&signer));
        // A key that does not tell its public half is believed.
        let kept = !matches!(
            certified.keys_match(),
            Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch))
        );
        kept.then_some(certified)
    };
    if let Some(at) = (1..chain.len()).find(|&at| fits(vec![chain[at].clone()]).is_some()) {
        let what = format!(
            "the server's certificate is number {} in it; expected it first, then those between it and its authority's",
            at + 1
        );
        return Err(certificates.wrong(what));
    }
    fits(chain).ok_or_else(|| {
        key.wrong(format!("is not the key of the certificate in {}", certificates.path.display()))
    })
}

fn authorities(files: &[PathBuf], content: &mut Vec<Vec<u8>>) -> Result<RootCertStore, TlsError> {
    let mut authorities = RootCertStore::empty();
    for path in files {
        let source = Source::read("client_ca", path)?;
        for der in source.certificates()? {
            let added = authorities.add(der);
            added.map_err(|error| {
                source.wrong(format!("holds what is no authority's certificate: {error}"))
            })?;
        }
        content.push(source.bytes);
    }
    Ok(authorities)
}
