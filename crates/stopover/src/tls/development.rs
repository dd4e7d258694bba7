//! A certificate authority of one's own, and a certificate from it: for a mirror that no public authority knows.
//!
//! It promises that an authority that is there is kept, since clients trust it; that private keys are readable to their
//! owner alone; that the authority can sign for the names it was made for and for no others, so that whoever steals its
//! key gains little; and that each file is replaced in one step, so that a server that watches it reads a whole one.

use std::{
    fs,
    io::{self, Write},
    net::IpAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, NameConstraints, PKCS_ECDSA_P256_SHA256,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};

use super::facts::Facts;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const AUTHORITY_HOLDS: Duration = Duration::from_secs(3_652 * DAY.as_secs());
/// Apple's systems refuse more than 398 days (https://support.apple.com/en-us/102028), and they count both ends.
const CERTIFICATE_HOLDS: Duration = Duration::from_secs(397 * DAY.as_secs());
/// Clocks differ.
const BEFORE_NOW: Duration = Duration::from_secs(60 * 60);
/// Names that lead to this machine, which every certificate is for besides.
const OWN_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
const HOSTS_MAX: usize = 64;
/// RFC 5280, appendix A: ub-common-name-length.
const COMMON_NAME_CHARS_MAX: usize = 64;
const PRIVATE: u32 = 0o600;
const PUBLIC: u32 = 0o644;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum DevelopmentError {
    /// A file or folder cannot be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A host is none.
    #[error(
        "--host {0:?}: expected a host name or an address, such as mirror.lan or 10.0.0.5, without a port"
    )]
    Host(String),
    /// The authority that is there cannot be used.
    #[error("{}: {what}", path.display())]
    Authority {
        /// Its certificate or its key.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        what: String,
    },
    /// The certificate could not be made.
    #[error("the certificate could not be made: {0}")]
    Make(#[from] rcgen::Error),
}

/// What was made.
#[derive(Clone, Debug)]
pub struct Made {
    /// The authority's certificate, which clients have to trust.
    pub authority: PathBuf,
    /// Whether the authority was made now; else it was there.
    pub authority_is_new: bool,
    /// Until when the authority holds.
    pub authority_not_after: SystemTime,
    /// The mirror's certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Until when the certificate holds.
    pub not_after: SystemTime,
    /// The names and addresses that it is for, as they were given.
    pub hosts: Vec<String>,
}

/// Makes a certificate for these hosts in a folder, and an authority that signs it, where there is none yet. No hosts
/// are those of the certificate that is there, else this machine's name.
pub fn make(folder: &Path, hosts: &[String]) -> Result<Made, DevelopmentError> {
    fs::create_dir_all(folder).map_err(|error| DevelopmentError::File { path: folder.to_owned(), error })?;
    let folder = fs::canonicalize(folder)
        .map_err(|error| DevelopmentError::File { path: folder.to_owned(), error })?;
    let files = Files::in_folder(&folder);
    let hosts = if hosts.is_empty() { hosts_so_far(&files.certificate) } else { hosts.to_vec() };
    let hosts = hosts.iter().map(|host| checked(host)).collect::<Result<Vec<_>, _>>()?;
    let names: Vec<String> = all_names(&hosts);

    let authority_is_new = !files.authority.exists() && !files.authority_key.exists();
    let (issuer, authority_not_after) =
        if authority_is_new { make_authority(&files, &names)? } else { read_authority(&files, &names)? };
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new(names)?;
    let name = hosts.first().map_or("localhost", String::as_str);
    params
        .distinguished_name
        .push(DnType::CommonName, name.chars().take(COMMON_NAME_CHARS_MAX).collect::<String>());
    let not_after = holds_for(&mut params, CERTIFICATE_HOLDS).min(authority_not_after);
    params.not_after = not_after.into();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, &issuer)?;
    // The key first: a server that sees it with the certificate before keeps what it has until the other is there.
    write(&files.key, &key.serialize_pem(), PRIVATE)?;
    write(&files.certificate, &certificate.pem(), PUBLIC)?;
    Ok(Made {
        authority: files.authority,
        authority_is_new,
        authority_not_after,
        certificate: files.certificate,
        key: files.key,
        not_after,
        hosts,
    })
}

struct Files {
    authority: PathBuf,
    authority_key: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl Files {
    fn in_folder(folder: &Path) -> Self {
        Self {
            authority: folder.join("ca.crt"),
            authority_key: folder.join("ca.key"),
            certificate: folder.join("tls.crt"),
            key: folder.join("tls.key"),
        }
    }
}

fn hosts_so_far(certificate: &Path) -> Vec<String> {
    let facts = CertificateDer::from_pem_file(certificate).ok().and_then(|der| Facts::read(&der));
    let names = facts.map(|facts| facts.names).unwrap_or_default();
    let hosts: Vec<String> = names.into_iter().filter(|name| !OWN_NAMES.contains(&name.as_str())).collect();
    if !hosts.is_empty() {
        return hosts;
    }
    let own = rustix::system::uname();
    own.nodename().to_str().ok().filter(|name| *name != "localhost").map(str::to_owned).into_iter().collect()
}

/// Returns a host in the form in which certificates have it.
fn checked(host: &str) -> Result<String, DevelopmentError> {
    let wrong = || DevelopmentError::Host(host.to_owned());
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok(address.to_string());
    }
    let lower = host.trim_end_matches('.').to_ascii_lowercase();
    // A last part of digits alone would be read as an address.
    let is_name = rustls_pki_types::DnsName::try_from(lower.as_str()).is_ok()
        && !lower.rsplit('.').next().is_some_and(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
    if is_name { Ok(lower) } else { Err(wrong()) }
}

fn all_names(hosts: &[String]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for name in hosts.iter().map(String::as_str).chain(OWN_NAMES).take(HOSTS_MAX) {
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names
}

/// Has a certificate hold from a little before now, and returns until when.
fn holds_for(params: &mut CertificateParams, time: Duration) -> SystemTime {
    let now = SystemTime::now();
    params.not_before = (now - BEFORE_NOW).into();
    // A second is cut off, so that what is noted is not later than what is written.
    let since_1970 = (now + time).duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let not_after = SystemTime::UNIX_EPOCH + Duration::from_secs(since_1970.as_secs());
    params.not_after = not_after.into();
    not_after
}

fn make_authority(
    files: &Files,
    names: &[String],
) -> Result<(Issuer<'static, KeyPair>, SystemTime), DevelopmentError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Stopover development CA");
    let name = format!("Stopover development CA for {}", names.first().map_or("localhost", String::as_str));
    params
        .distinguished_name
        .push(DnType::CommonName, name.chars().take(COMMON_NAME_CHARS_MAX).collect::<String>());
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.name_constraints =
        Some(NameConstraints { permitted_subtrees: subtrees(names), excluded_subtrees: Vec::new() });
    let not_after = holds_for(&mut params, AUTHORITY_HOLDS);
    let certificate = params.self_signed(&key)?;
    write(&files.authority_key, &key.serialize_pem(), PRIVATE)?;
    write(&files.authority, &certificate.pem(), PUBLIC)?;
    Ok((Issuer::new(params, key), not_after))
}

/// There is always a name and an address of each family among them, the own ones, so that no kind is left open.
fn subtrees(names: &[String]) -> Vec<GeneralSubtree> {
    let subtree = |name: &String| match name.parse::<IpAddr>() {
        Ok(address) => {
            let bits = if address.is_ipv4() { 32 } else { 128 };
            GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(address, bits))
        }
        Err(_) => GeneralSubtree::DnsName(name.clone()),
    };
    names.iter().map(subtree).collect()
}

fn read_authority(
    files: &Files,
    names: &[String],
) -> Result<(Issuer<'static, KeyPair>, SystemTime), DevelopmentError> {
    let wrong = |path: &Path, what: &str| DevelopmentError::Authority {
        path: path.to_owned(),
        what: format!(
            "{what}; to begin anew, remove {} and {}, and have clients trust the new ca.crt",
            files.authority.display(),
            files.authority_key.display()
        ),
    };
    let pem = read(&files.authority)?;
    let key_pem = read(&files.authority_key)?;
    let der = CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|_| wrong(&files.authority, "is not a certificate in PEM"))?;
    let facts = Facts::read(&der).ok_or_else(|| wrong(&files.authority, "is not a certificate"))?;
    let key = KeyPair::from_pem(&key_pem)
        .map_err(|_| wrong(&files.authority_key, "is not a private key in PEM"))?;
    if !facts.is_authority {
        return Err(wrong(&files.authority, "is not an authority's certificate"));
    }
    if !Facts::has_key(&der, key.public_key_raw()) {
        return Err(wrong(&files.authority_key, "is not the key of ca.crt"));
    }
    if facts.not_after < SystemTime::now() + DAY {
        return Err(wrong(&files.authority, "is no longer valid"));
    }
    let is_permitted = |name: &&String| facts.permitted.is_empty() || facts.permits(name);
    if let Some(other) = names.iter().find(|name| !is_permitted(name)) {
        let what = format!("may sign for {} and not for {other}", facts.permitted.join(", "));
        return Err(wrong(&files.authority, &what));
    }
    Ok((Issuer::from_ca_cert_der(&der, key)?, facts.not_after))
}

fn read(path: &Path) -> Result<String, DevelopmentError> {
    fs::read_to_string(path).map_err(|error| DevelopmentError::File { path: path.to_owned(), error })
}

/// Puts a file in place in one step.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), DevelopmentError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let written = (|| {
        // One that a broken run left may have another mode.
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)
    })();
    written.map_err(|error| DevelopmentError::File { path: path.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn hosts(list: &[&str]) -> Vec<String> {
        list.iter().map(|&host| host.to_owned()).collect()
    }

    fn facts(path: &Path) -> Facts {
        Facts::read(&CertificateDer::from_pem_file(path).unwrap()).unwrap()
    }

    #[test]
    fn an_authority_is_made_once_and_signs_for_its_hosts_again() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("tls");
        let first = make(&out, &hosts(&["Mirror.LAN", "10.0.0.5"])).unwrap();
        assert!(first.authority_is_new);
        let authority = fs::read(&first.authority).unwrap();
        let certificate = fs::read(&first.certificate).unwrap();
        assert_eq!(first.hosts, ["mirror.lan", "10.0.0.5"]);
        let known = facts(&first.certificate);
        assert_eq!(known.names, ["mirror.lan", "10.0.0.5", "localhost", "127.0.0.1", "::1"]);
        assert_eq!(known.issuer, facts(&first.authority).subject);
        assert_eq!(known.not_after, first.not_after);
        let holds = known.not_after.duration_since(known.not_before).unwrap();
        assert!(holds <= 398 * DAY, "{holds:?}");
        for private in ["ca.key", "tls.key"] {
            let mode = fs::metadata(out.join(private)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, PRIVATE, "{private}");
        }

        let again = make(&out, &[]).unwrap();
        assert!(!again.authority_is_new);
        assert_eq!(again.hosts, first.hosts, "no hosts are those so far");
        assert_eq!(fs::read(&again.authority).unwrap(), authority);
        assert_ne!(fs::read(&again.certificate).unwrap(), certificate);
        make(&out, &hosts(&["cache.mirror.lan"])).expect("what is below a permitted name is permitted");
    }

    #[test]
    fn an_authority_does_not_sign_for_other_hosts() {
        let folder = tempfile::tempdir().unwrap();
        make(folder.path(), &hosts(&["mirror.lan"])).unwrap();
        for other in ["registry-1.docker.io", "lan", "xmirror.lan", "10.0.0.6"] {
            let error = make(folder.path(), &hosts(&[other])).unwrap_err().to_string();
            let want = format!("may sign for mirror.lan, localhost, 127.0.0.1, ::1 and not for {other}; ");
            assert!(error.contains(&want), "{error}");
        }
    }

    #[test]
    fn what_is_no_host_or_no_authority_is_said() {
        let folder = tempfile::tempdir().unwrap();
        for wrong in ["mirror.lan:5000", "http://mirror.lan", "10.0.0.256", "*", "a b", ""] {
            let error = make(folder.path(), &hosts(&[wrong])).unwrap_err().to_string();
            assert!(error.starts_with(&format!("--host {wrong:?}: expected a host name")), "{error}");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);

        make(folder.path(), &[]).unwrap();
        let other = tempfile::tempdir().unwrap();
        make(other.path(), &[]).unwrap();
        fs::copy(other.path().join("ca.key"), folder.path().join("ca.key")).unwrap();
        let error = make(folder.path(), &[]).unwrap_err().to_string();
        assert!(error.contains("ca.key: is not the key of ca.crt; to begin anew, remove "), "{error}");
        fs::remove_file(folder.path().join("ca.key")).unwrap();
        let error = make(folder.path(), &[]).unwrap_err().to_string();
        assert!(error.contains("ca.key: No such file"), "{error}");
    }
}
