//! Content to pull.

use hubsim::Hub;
use oci::Digest;

/// Returns `len` bytes that do not repeat, the same for the same seed.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        // Marsaglia's xorshift64*: https://www.jstatsoft.org/article/view/v008i14
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Gives the Hub's repository a blob of these bytes.
pub(crate) fn push_blob(hub: &Hub, repository: &str, bytes: &[u8]) -> Digest {
    let digest = hub.push_blob(bytes.to_vec());
    hub.link_blob(repository, &digest);
    digest
}

/// Returns the path of a manifest by tag or digest.
pub(crate) fn manifest_path(repository: &str, reference: impl std::fmt::Display) -> String {
    format!("/v2/{repository}/manifests/{reference}")
}

/// Returns the path of a blob.
pub(crate) fn blob_path(repository: &str, digest: impl std::fmt::Display) -> String {
    format!("/v2/{repository}/blobs/{digest}")
}
