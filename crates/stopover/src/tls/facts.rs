//! What a certificate says of itself: until when it holds, for which names. Reads what the operator gave, trusts nothing.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, SystemTime},
};

use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

/// What a certificate says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// From when on it holds.
    pub(super) not_before: SystemTime,
    /// Until when it holds.
    pub(super) not_after: SystemTime,
    /// The names and addresses that it is for.
    pub(super) names: Vec<String>,
    /// Whose it is, and whose signature it carries.
    pub(super) subject: String,
    pub(super) issuer: String,
    /// Whether it may sign others.
    pub(super) is_authority: bool,
    /// The names that it may sign others for; none where it is not limited.
    pub(super) permitted: Vec<String>,
}

impl Facts {
    /// Reads a certificate; `None` where it is none.
    pub(super) fn read(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let alternatives = certificate.subject_alternative_name().ok().flatten();
        let names = alternatives
            .map(|names| names.value.general_names.iter().filter_map(name).collect())
            .unwrap_or_default();
        let constraints = certificate.name_constraints().ok().flatten();
        let permitted = constraints
            .and_then(|constraints| constraints.value.permitted_subtrees.as_ref())
            .map(|trees| trees.iter().filter_map(|tree| name(&tree.base)).collect())
            .unwrap_or_default();
        Some(Self {
            not_before: since_1970(certificate.validity.not_before.timestamp()),
            not_after: since_1970(certificate.validity.not_after.timestamp()),
            names,
            subject: certificate.subject.to_string(),
            issuer: certificate.issuer.to_string(),
            is_authority: certificate.is_ca(),
            permitted,
        })
    }

    /// Returns whether this is the public key of a certificate.
    pub(super) fn has_key(der: &[u8], public_key: &[u8]) -> bool {
        X509Certificate::from_der(der)
            .is_ok_and(|(_, certificate)| certificate.public_key().subject_public_key.data == public_key)
    }

    /// Returns whether the permitted names are this one, or one that it stands below.
    pub(super) fn permits(&self, name: &str) -> bool {
        let is_address = name.parse::<IpAddr>().is_ok();
        self.permitted.iter().any(|permitted| {
            permitted == name
                || (!is_address && name.strip_suffix(permitted).is_some_and(|rest| rest.ends_with('.')))
        })
    }
}

/// Returns a name as people write it; a subtree's address comes with a mask behind it, which is not shown.
fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) if matches!(bytes.len(), 4 | 8) => {
            let octets: [u8; 4] = bytes[..4].try_into().ok()?;
            Some(Ipv4Addr::from(octets).to_string())
        }
        GeneralName::IPAddress(bytes) => {
            let octets: [u8; 16] = bytes.get(..16)?.try_into().ok()?;
            Some(Ipv6Addr::from(octets).to_string())
        }
        _ => None,
    }
}

fn since_1970(seconds: i64) -> SystemTime {
    let away = Duration::from_secs(seconds.unsigned_abs());
    let time = if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(away)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(away)
    };
    time.unwrap_or(SystemTime::UNIX_EPOCH)
}
