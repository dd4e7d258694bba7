//! What TLS trusts and what it shows: the system's certificates, those of a file, a certificate of our own.
//!
//! A file is read once, at the start, and what is wrong with it is an error that names its key. Our own certificate is
//! shown to the place called home and nowhere else, so that no redirect learns who we are.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

/// How encrypted connections are made.
#[derive(Clone, Debug)]
pub struct Tls {
    /// To the place called home.
    pub(super) home: Arc<ClientConfig>,
    /// To every other.
    pub(super) elsewhere: Arc<ClientConfig>,
}

/// The files of one way out, in PEM form.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TlsFiles {
    /// Certificates to trust besides the system's.
    pub ca: Option<PathBuf>,
    /// Our certificate, and the chain above it.
    pub client_certificate: Option<PathBuf>,
    /// Its key.
    pub client_key: Option<PathBuf>,
}

/// A file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {}: {cause}", path.display())]
pub struct TlsError {
    /// The key that names the file.
    key: &'static str,
    /// The file.
    path: PathBuf,
    /// What is wrong with it.
    cause: String,
}

impl Tls {
    /// Reads the system's certificates, or takes Mozilla's where there are none, and then the files.
    pub fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let mut roots = system_roots();
        if let Some(path) = &files.ca {
            for certificate in certificates("ca", path)? {
                roots.add(certificate).map_err(|error| wrong("ca", path, error))?;
            }
        }
        let roots = Arc::new(roots);
        let builder = || {
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .expect("the provider supports the protocol versions it comes with")
                .with_root_certificates(Arc::clone(&roots))
        };
        let elsewhere = Arc::new(builder().with_no_client_auth());
        let (Some(certificate), Some(key)) = (&files.client_certificate, &files.client_key) else {
            return Ok(Self { home: Arc::clone(&elsewhere), elsewhere });
        };
        let chain = certificates("client_certificate", certificate)?;
        let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong("client_key", key, error))?;
        let home = builder().with_client_auth_cert(chain, secret);
        let home = home.map_err(|error| {
            wrong("client_key", key, format!("does not go with {}: {error}", certificate.display()))
        })?;
        Ok(Self { home: Arc::new(home), elsewhere })
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self::read(&TlsFiles::default()).expect("no file is read, so none is wrong")
    }
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = read.map_err(|error| wrong(key, path, error))?;
    if found.is_empty() {
        return Err(wrong(key, path, "expected certificates in PEM form, found none"));
    }
    Ok(found)
}

fn wrong(key: &'static str, path: &Path, cause: impl ToString) -> TlsError {
    TlsError { key, path: path.to_owned(), cause: cause.to_string() }
}

fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(native.certs);
    if roots.is_empty() {
        tracing::warn!("the system has no certificates; using those that came with the program");
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_used_is_named_with_its_key() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let path = folder.path().join("file.pem");
        let read = |files: TlsFiles| Tls::read(&files).expect_err("the file is wrong").to_string();
        let as_ca = || TlsFiles { ca: Some(path.clone()), ..TlsFiles::default() };
        let name = path.display().to_string();

        assert!(read(as_ca()).starts_with(&format!("ca: {name}: ")), "it is not there");
        std::fs::write(&path, "").expect("the folder can be written to");
        assert_eq!(read(as_ca()), format!("ca: {name}: expected certificates in PEM form, found none"));
        let junk = "-----BEGIN CERTIFICATE-----\nanVuaw==\n-----END CERTIFICATE-----\n";
        std::fs::write(&path, junk).expect("the folder can be written to");
        assert!(read(as_ca()).starts_with(&format!("ca: {name}: ")), "it is no certificate");
        let ours = TlsFiles {
            client_certificate: Some(path.clone()),
            client_key: Some(path.clone()),
            ..TlsFiles::default()
        };
        assert!(read(ours).starts_with(&format!("client_key: {name}: ")), "there is no key in it");
    }
}
