//! Digests: what content is called by, and the hashing that gives it its name.
//!
//! A [`Digest`] holds the bytes of a sha256 or sha512 and nothing else, so it can neither be malformed nor lead out
//! of a folder. Only the canonical spelling is read: lower-case hex of the exact length.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest as _, Sha256, Sha512};

use crate::excerpt::excerpt;

/// The longest hex form of a digest, in bytes.
const HEX_BYTES_MAX: usize = 128;

/// A hash function that digests are made with (image-spec, descriptor.md, "Registered algorithms").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256, which nearly everything uses.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// Returns the name as it stands before the colon of a digest.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// Returns how many hex digits a digest of this algorithm has.
    fn hex_digits(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The name of content by its hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Digest {
    /// A SHA-256.
    Sha256([u8; 32]),
    /// A SHA-512.
    Sha512([u8; 64]),
}

impl Digest {
    /// Returns the digest of `content`.
    pub fn of(algorithm: Algorithm, content: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(content);
        hasher.finish()
    }

    /// Returns the digest with these raw bytes, or `None` where their number does not suit the algorithm.
    pub fn from_bytes(algorithm: Algorithm, bytes: &[u8]) -> Option<Self> {
        match algorithm {
            Algorithm::Sha256 => bytes.try_into().ok().map(Self::Sha256),
            Algorithm::Sha512 => bytes.try_into().ok().map(Self::Sha512),
        }
    }

    /// Returns the algorithm.
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Self::Sha256(_) => Algorithm::Sha256,
            Self::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// Returns the raw bytes: 32 or 64.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Sha256(bytes) => bytes,
            Self::Sha512(bytes) => bytes,
        }
    }

    /// Returns the part after the colon: 64 or 128 lower-case hex digits.
    pub fn hex(&self) -> String {
        self.write_hex(&mut [0; HEX_BYTES_MAX]).to_owned()
    }

    fn write_hex<'a>(&self, buffer: &'a mut [u8; HEX_BYTES_MAX]) -> &'a str {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let bytes = self.bytes();
        for (pair, byte) in buffer.chunks_exact_mut(2).zip(bytes) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        std::str::from_utf8(&buffer[..bytes.len() * 2]).expect("hex digits are ASCII")
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.algorithm().as_str())?;
        f.write_str(":")?;
        f.write_str(self.write_hex(&mut [0; HEX_BYTES_MAX]))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let Some((name, hex)) = text.split_once(':') else {
            return Err(DigestError::NoAlgorithm { shown: excerpt(text) });
        };
        match name {
            "sha256" => decode(Algorithm::Sha256, text, hex).map(Self::Sha256),
            "sha512" => decode(Algorithm::Sha512, text, hex).map(Self::Sha512),
            _ => Err(DigestError::UnknownAlgorithm { shown: excerpt(text) }),
        }
    }
}

impl TryFrom<&str> for Digest {
    type Error = DigestError;

    fn try_from(text: &str) -> Result<Self, DigestError> {
        text.parse()
    }
}

fn decode<const N: usize>(algorithm: Algorithm, text: &str, hex: &str) -> Result<[u8; N], DigestError> {
    let digits = algorithm.hex_digits();
    if hex.len() != digits {
        return Err(DigestError::Length { shown: excerpt(text), algorithm, digits, found: hex.len() });
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        let (Some(high), Some(low)) = (nibble(pair[0]), nibble(pair[1])) else {
            return Err(DigestError::NotHex { shown: excerpt(text), algorithm, digits });
        };
        *byte = high << 4 | low;
    }
    Ok(bytes)
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl de::Visitor<'_> for Text {
            type Value = Digest;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a digest such as sha256:<64 hex digits>")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Digest, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_str(Text)
    }
}

/// Text that is not a digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// There is no colon.
    #[error(
        "digest \"{shown}\" names no algorithm: expected sha256:<64 hex digits> or sha512:<128 hex digits>"
    )]
    NoAlgorithm {
        /// The beginning of the text.
        shown: String,
    },
    /// What stands before the colon is not an algorithm known here.
    #[error("digest \"{shown}\" has an unknown algorithm: expected sha256 or sha512, in lower case")]
    UnknownAlgorithm {
        /// The beginning of the text.
        shown: String,
    },
    /// The part after the colon is too short or too long.
    #[error(
        "digest \"{shown}\" has {found} bytes after the colon: expected {algorithm}:<{digits} lower-case hex digits>"
    )]
    Length {
        /// The beginning of the text.
        shown: String,
        /// The algorithm named.
        algorithm: Algorithm,
        /// How many digits it wants.
        digits: usize,
        /// How many bytes there were.
        found: usize,
    },
    /// The part after the colon holds something other than `0-9a-f`.
    #[error(
        "digest \"{shown}\" holds characters other than 0-9 and a-f: expected {algorithm}:<{digits} lower-case hex digits>"
    )]
    NotHex {
        /// The beginning of the text.
        shown: String,
        /// The algorithm named.
        algorithm: Algorithm,
        /// How many digits it wants.
        digits: usize,
    },
}

/// A hash in the making. A clone goes on from the same state.
#[derive(Clone)]
pub struct Hasher(State);

#[derive(Clone)]
enum State {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    /// Returns a hasher that has seen nothing.
    pub fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self(State::Sha256(Sha256::new())),
            Algorithm::Sha512 => Self(State::Sha512(Sha512::new())),
        }
    }

    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha256(hasher) => hasher.update(bytes),
            State::Sha512(hasher) => hasher.update(bytes),
        }
    }

    /// Returns the digest of all that was taken in.
    pub fn finish(self) -> Digest {
        match self.0 {
            State::Sha256(hasher) => Digest::Sha256(hasher.finalize().into()),
            State::Sha512(hasher) => Digest::Sha512(hasher.finalize().into()),
        }
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let algorithm = match self.0 {
            State::Sha256(_) => Algorithm::Sha256,
            State::Sha512(_) => Algorithm::Sha512,
        };
        f.debug_tuple("Hasher").field(&algorithm).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EMPTY_SHA256: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const EMPTY_SHA512: &str = "sha512:cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce\
        47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e";

    #[test]
    fn the_hash_of_nothing_is_known() {
        assert_eq!(Digest::of(Algorithm::Sha256, b"").to_string(), EMPTY_SHA256);
        assert_eq!(Digest::of(Algorithm::Sha512, b"").to_string(), EMPTY_SHA512);
        assert_eq!(format!("{:?}", Digest::of(Algorithm::Sha256, b"")), EMPTY_SHA256);
    }

    #[test]
    fn only_the_canonical_spelling_is_a_digest() {
        let hex = &EMPTY_SHA256[7..];
        for text in [
            String::new(),
            "sha256".to_owned(),
            "sha256:".to_owned(),
            ":".to_owned(),
            hex.to_owned(),
            format!(":{hex}"),
            format!("SHA256:{hex}"),
            format!("sha256:{}", hex.to_uppercase()),
            format!("sha256:{}", &hex[1..]),
            format!("sha256:{hex}0"),
            format!("sha256: {}", &hex[1..]),
            format!("sha256:+{}", &hex[1..]),
            format!("sha256:g{}", &hex[1..]),
            format!("sha256:{}\n", &hex[1..]),
            format!("sha256:{}\u{e9}", &hex[2..]),
            format!("sha256:../../{}", &hex[6..]),
            format!("sha512:{hex}"),
            format!("sha1:{}", &hex[..40]),
            format!("sha256:sha256:{hex}"),
            format!("a/sha256:{hex}"),
            " ".to_owned() + EMPTY_SHA256,
        ] {
            assert!(text.parse::<Digest>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn errors_say_what_was_wrong_and_what_is_right() {
        for (text, wanted) in [
            (
                "latest",
                "digest \"latest\" names no algorithm: expected sha256:<64 hex digits> or sha512:<128 hex digits>",
            ),
            (
                "md5:00",
                "digest \"md5:00\" has an unknown algorithm: expected sha256 or sha512, in lower case",
            ),
            (
                "sha256:bad\n",
                "digest \"sha256:bad\\n\" has 4 bytes after the colon: expected sha256:<64 lower-case hex digits>",
            ),
        ] {
            assert_eq!(text.parse::<Digest>().expect_err("invalid").to_string(), wanted);
        }
        let long = "sha256:".to_owned() + &"\u{1}".repeat(100_000);
        assert!(long.parse::<Digest>().expect_err("invalid").to_string().len() < 250);
    }

    #[test]
    fn a_clone_of_a_hasher_goes_its_own_way() {
        let mut hasher = Hasher::new(Algorithm::Sha512);
        hasher.update(b"ab");
        let before = hasher.clone();
        hasher.update(b"c");
        assert_eq!(hasher.finish(), Digest::of(Algorithm::Sha512, b"abc"));
        assert_eq!(before.finish(), Digest::of(Algorithm::Sha512, b"ab"));
    }

    #[test]
    fn json_holds_a_digest_as_text() {
        let digest = Digest::of(Algorithm::Sha256, b"");
        let json = serde_json::to_string(&digest).expect("serialises");
        assert_eq!(json, format!("\"{EMPTY_SHA256}\""));
        assert_eq!(serde_json::from_str::<Digest>(&json).expect("reads"), digest);
        assert!(serde_json::from_str::<Digest>("\"sha256:bad\"").is_err());
        assert!(serde_json::from_str::<Digest>("7").is_err());
    }

    proptest! {
        #[test]
        fn digests_survive_being_written(content: Vec<u8>) {
            for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
                let digest = Digest::of(algorithm, &content);
                prop_assert_eq!(digest.to_string().parse(), Ok(digest));
                prop_assert_eq!(format!("{algorithm}:{}", digest.hex()), digest.to_string());
                prop_assert_eq!(Digest::from_bytes(algorithm, digest.bytes()), Some(digest));
                prop_assert_eq!(Digest::from_bytes(algorithm, &digest.bytes()[1..]), None);
            }
        }

        #[test]
        fn any_text_is_a_canonical_digest_or_none(text in prop_oneof!["\\PC*", "sha256:[0-9a-fA-F]{63,65}"]) {
            if let Ok(digest) = text.parse::<Digest>() {
                prop_assert_eq!(digest.to_string(), text);
            }
        }
    }
}
