//! Docker's first schema, signed: its digest is of what was signed, without the signatures around it.

use super::{Algorithm, Digest, Make, Pusher, json};

pub(super) const KINDS: &[(&str, Make)] = &[("schema1", schema1)];

fn schema1(push: &mut Pusher<'_>) -> Digest {
    let layer = push.gzip_layer("of schema 1");
    let payload = serde_json::to_string_pretty(&json!({
        "schemaVersion": 1, "name": "library/old", "tag": "schema1", "architecture": "amd64",
        "fsLayers": [{ "blobSum": layer["digest"] }],
        "history": [{ "v1Compatibility": "{\"id\":\"e45a5af57b00862e5ef5782a9925979a02ba2b12dff832fd0991335f4a11e5c5\"}" }],
    }))
    .expect("a document of text is written");
    let digest = Digest::of(Algorithm::Sha256, payload.as_bytes());
    let cut = payload.strip_suffix("\n}").expect("it is printed with indentation");
    // {"formatLength":<length>,"formatTail":"Cn0"}: what to cut off, and what stood there ("\n}").
    let protected =
        base64url(format!("{{\"formatLength\":{},\"formatTail\":\"Cn0\"}}", cut.len()).as_bytes());
    let signed = format!(
        "{cut},\n  \"signatures\": [\n    {{ \"header\": {{ \"alg\": \"ES256\" }}, \"signature\": \"AA\", \"protected\": \"{protected}\" }}\n  ]\n}}"
    );
    push.manifest_as(digest, oci::DOCKER_SCHEMA1_SIGNED, signed.into());
    digest
}

/// Returns bytes in the alphabet for URLs, without padding (RFC 4648, 5).
fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let word =
            group.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for digit in 0..=group.len() {
            text.push(char::from(ALPHABET[(word >> (18 - 6 * digit)) as usize & 63]));
        }
    }
    text
}
