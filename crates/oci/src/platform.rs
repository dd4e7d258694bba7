//! Platforms: what machine the image of an index is for.
//!
//! Read leniently, apart from [`Manifest::contents`]: a platform that cannot be read is none, and costs the index
//! nothing.

use std::{borrow::Cow, fmt, sync::Arc};

use serde::Deserialize;

use crate::{DESCRIPTORS_MAX, Digest, Manifest};

/// The longest of the three parts of a platform, in bytes; the longest known has eight.
const PART_BYTES_MAX: usize = 32;

/// A platform as os, architecture and variant, such as `linux/arm/v7`, in containerd's normal form, so that different
/// spellings of one are equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Platform(Arc<str>);

impl Platform {
    /// Returns the platform, unless a part of it is none.
    fn new(os: &str, architecture: &str, variant: &str) -> Option<Self> {
        let is_part =
            |part: &str| part.len() <= PART_BYTES_MAX && part.bytes().all(|byte| byte.is_ascii_graphic());
        if os.is_empty() || architecture.is_empty() || ![os, architecture, variant].into_iter().all(is_part) {
            return None;
        }
        let [os, architecture, variant] = [os, architecture, variant].map(str::to_ascii_lowercase);
        // https://github.com/containerd/platforms/blob/main/database.go, normalizeArch
        let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
            ("aarch64" | "arm64", "8" | "v8" | "") => ("arm64", ""),
            ("x86_64" | "x86-64" | "amd64", "v1" | "") => ("amd64", ""),
            ("arm", "" | "7") => ("arm", "v7"),
            ("arm", "6") => ("arm", "v6"),
            ("arm", "5") => ("arm", "v5"),
            other => other,
        };
        let slash = if variant.is_empty() { "" } else { "/" };
        Some(Self(format!("{os}/{architecture}{slash}{variant}").into()))
    }

    /// Returns whether this says that there is none: BuildKit marks attestations by `unknown/unknown`.
    pub fn is_unknown(&self) -> bool {
        &*self.0 == "unknown/unknown"
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Manifest {
    /// Returns the manifests of an index that say what platform they are for.
    pub fn platforms(&self) -> Vec<(Digest, Platform)> {
        let Ok(index) = serde_json::from_slice::<Index<'_>>(&self.bytes) else { return Vec::new() };
        let entries = index.manifests.into_iter().take(DESCRIPTORS_MAX);
        entries.filter_map(|entry| Some((entry.digest.parse().ok()?, entry.platform?.0?))).collect()
    }
}

#[derive(Deserialize)]
struct Index<'a> {
    #[serde(borrow)]
    manifests: Vec<Entry<'a>>,
}

#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    digest: Cow<'a, str>,
    platform: Option<Read>,
}

/// A platform if it can be read.
#[derive(Deserialize)]
#[serde(from = "serde_json::Value")]
struct Read(Option<Platform>);

impl From<serde_json::Value> for Read {
    fn from(value: serde_json::Value) -> Self {
        let part = |name| value.get(name).and_then(serde_json::Value::as_str).unwrap_or_default();
        Self(Platform::new(part("os"), part("architecture"), part("variant")))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{Algorithm, OCI_INDEX};

    fn platforms_of(index: &serde_json::Value) -> Vec<String> {
        let bytes = index.to_string().into();
        let manifest = Manifest::from_answer(Some(OCI_INDEX), bytes, Algorithm::Sha256);
        let platforms = manifest.expect("it is an index").platforms();
        platforms.iter().map(|(_, platform)| platform.to_string()).collect()
    }

    #[test]
    fn spellings_of_one_platform_are_one() {
        let table = [
            (("linux", "amd64", ""), "linux/amd64"),
            (("Linux", "x86_64", ""), "linux/amd64"),
            (("linux", "arm64", "v8"), "linux/arm64"),
            (("linux", "aarch64", ""), "linux/arm64"),
            (("linux", "arm", ""), "linux/arm/v7"),
            (("linux", "arm", "6"), "linux/arm/v6"),
            (("linux", "arm", "v6"), "linux/arm/v6"),
            (("linux", "amd64", "v3"), "linux/amd64/v3"),
            (("windows", "amd64", ""), "windows/amd64"),
        ];
        for ((os, architecture, variant), normal) in table {
            let platform = Platform::new(os, architecture, variant).expect("it is one");
            assert_eq!(platform.to_string(), normal);
            assert!(!platform.is_unknown());
        }
        assert!(Platform::new("unknown", "unknown", "").is_some_and(|platform| platform.is_unknown()));
    }

    #[test]
    fn what_is_no_platform_costs_the_others_nothing() {
        let digest = Digest::of(Algorithm::Sha256, b"x");
        let of = |platform| json!({ "digest": digest, "size": 1, "platform": platform });
        let index = json!({ "schemaVersion": 2, "manifests": [
            of(json!("linux/amd64")),
            of(json!({ "os": 7, "architecture": "amd64" })),
            of(json!({ "os": "linux", "architecture": "a".repeat(100) })),
            of(json!({ "os": "linux", "architecture": "a b" })),
            of(json!({ "os": "linux" })),
            of(json!(null)),
            { "digest": digest, "size": 1 },
            of(json!({ "os": "linux", "architecture": "s390x", "os.features": ["x"] })),
        ] });
        assert_eq!(platforms_of(&index), ["linux/s390x"]);
    }
}
