//! The user and the password that a request brings (RFC 7617). Pure.

use base64::{
    Engine,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use http::HeaderValue;

/// The longest pair that is looked at, as written in the header, in bytes.
const PAIR_BYTES_MAX: usize = 2_048;
/// Some clients leave the padding out.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A user and a password, as somebody says.
pub(super) struct Credentials {
    pub(super) user: String,
    pub(super) password: Vec<u8>,
}

impl Credentials {
    /// Returns what an `Authorization` header holds; `None` where it is of another scheme or not right.
    pub(super) fn read(header: &HeaderValue) -> Option<Self> {
        let (scheme, pair) = header.to_str().ok()?.trim().split_once(' ')?;
        let pair = pair.trim();
        if !scheme.eq_ignore_ascii_case("basic") || pair.len() > PAIR_BYTES_MAX {
            return None;
        }
        let pair = LENIENT.decode(pair).ok()?;
        let colon = pair.iter().position(|&byte| byte == b':')?;
        let user = String::from_utf8(pair[..colon].to_vec()).ok()?;
        Some(Self { user, password: pair[colon + 1..].to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    fn read(text: &str) -> Option<(String, Vec<u8>)> {
        let found = Credentials::read(&HeaderValue::from_str(text).unwrap())?;
        Some((found.user, found.password))
    }

    #[test]
    fn a_user_and_a_password_are_read_and_nothing_else_is() {
        let pair = |user: &str, password: &str| Some((user.to_owned(), password.as_bytes().to_vec()));
        let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
        for (header, found) in [
            (basic("ann:hunter2"), pair("ann", "hunter2")),
            (basic("ann:a:b :c"), pair("ann", "a:b :c")),
            (basic("ann:"), pair("ann", "")),
            (basic(":x"), pair("", "x")),
            (basic("jörg:pässword"), pair("jörg", "pässword")),
            ("bAsIc  YW5uOng=".to_owned(), pair("ann", "x")),
            ("Basic YW5uOng".to_owned(), pair("ann", "x")),
            (basic("ann"), None),
            ("Basic".to_owned(), None),
            ("Basic ***".to_owned(), None),
            ("Bearer YW5uOng=".to_owned(), None),
            ("YW5uOng=".to_owned(), None),
            (basic(&format!("ann:{}", "x".repeat(PAIR_BYTES_MAX))), None),
        ] {
            assert_eq!(read(&header), found, "{header}");
        }
    }
}
