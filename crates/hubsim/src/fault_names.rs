//! The names of faults, as scripts and tables of tests write them.

use std::{fmt, str::FromStr};

use crate::fault::Fault;

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name();
        match self {
            Self::CutAfter(n) | Self::StallAfter(n) | Self::FlipByte(n) | Self::HugeManifest(n) => {
                write!(f, "{name}:{n}")
            }
            Self::WrongLength(by) => write!(f, "{name}:{by}"),
            Self::Status(code, None) => write!(f, "{name}:{code}"),
            Self::Status(code, Some(seconds)) => write!(f, "{name}:{code}:{seconds}"),
            Self::TooManyRequests(Some(seconds)) => write!(f, "{name}:{seconds}"),
            Self::RedirectTo(url) => write!(f, "{name}:{url}"),
            _ => f.write_str(name),
        }
    }
}

impl Fault {
    /// Returns the name without its argument.
    pub fn name(&self) -> &'static str {
        match self {
            Self::CutAfter(_) => "cut-after",
            Self::StallAfter(_) => "stall-after",
            Self::FlipByte(_) => "flip-byte",
            Self::WrongLength(_) => "wrong-length",
            Self::NoContentLength => "no-content-length",
            Self::NoRange => "no-range",
            Self::BadContentRange => "bad-content-range",
            Self::ContentEncodingGzip => "content-encoding-gzip",
            Self::Hang => "hang",
            Self::Close => "close",
            Self::Status(..) => "status",
            Self::TooManyRequests(_) => "too-many-requests",
            Self::Abuse429 => "abuse-429",
            Self::Html200 => "html-200",
            Self::RedirectTo(_) => "redirect-to",
            Self::RedirectLoop => "redirect-loop",
            Self::TokenDown => "token-down",
            Self::TokenGarbage => "token-garbage",
            Self::HeadRefused => "head-refused",
            Self::HeadUnauthorized => "head-unauthorized",
            Self::HeadNoDigest => "head-no-digest",
            Self::ManifestNotItsDigest => "manifest-not-its-digest",
            Self::HugeManifest(_) => "huge-manifest",
            Self::NoReferrers => "no-referrers",
            Self::NoWwwAuthenticate => "no-www-authenticate",
            Self::Cdn403 => "cdn-403",
        }
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, argument) = match text.split_once(':') {
            Some((name, argument)) => (name, Some(argument)),
            None => (text, None),
        };
        let needed = || argument.ok_or_else(|| format!("the fault {name} needs an argument, as {name}:1000"));
        Ok(match name {
            "cut-after" => Self::CutAfter(number(needed()?)?),
            "stall-after" => Self::StallAfter(number(needed()?)?),
            "flip-byte" => Self::FlipByte(number(needed()?)?),
            "huge-manifest" => Self::HugeManifest(number(needed()?)?),
            "wrong-length" => Self::WrongLength(number(needed()?)?),
            "redirect-to" => Self::RedirectTo(needed()?.to_owned()),
            "status" => match needed()?.split_once(':') {
                Some((code, seconds)) => Self::Status(number(code)?, Some(number(seconds)?)),
                None => Self::Status(number(needed()?)?, None),
            },
            "too-many-requests" => Self::TooManyRequests(argument.map(number).transpose()?),
            _ => Self::plain(text).ok_or_else(|| format!("no such fault: {text:?}"))?,
        })
    }
}

impl Fault {
    fn plain(name: &str) -> Option<Self> {
        Some(match name {
            "no-content-length" => Self::NoContentLength,
            "no-range" => Self::NoRange,
            "bad-content-range" => Self::BadContentRange,
            "content-encoding-gzip" => Self::ContentEncodingGzip,
            "hang" => Self::Hang,
            "close" => Self::Close,
            "abuse-429" => Self::Abuse429,
            "html-200" => Self::Html200,
            "redirect-loop" => Self::RedirectLoop,
            "token-down" => Self::TokenDown,
            "token-garbage" => Self::TokenGarbage,
            "head-refused" => Self::HeadRefused,
            "head-unauthorized" => Self::HeadUnauthorized,
            "head-no-digest" => Self::HeadNoDigest,
            "manifest-not-its-digest" => Self::ManifestNotItsDigest,
            "no-referrers" => Self::NoReferrers,
            "no-www-authenticate" => Self::NoWwwAuthenticate,
            "cdn-403" => Self::Cdn403,
            _ => return None,
        })
    }
}

fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("not a number that fits here: {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_as_it_is_written() {
        for name in [
            "cut-after:1000",
            "stall-after:0",
            "flip-byte:7",
            "wrong-length:-5",
            "no-content-length",
            "no-range",
            "bad-content-range",
            "content-encoding-gzip",
            "hang",
            "close",
            "status:503",
            "status:503:30",
            "too-many-requests",
            "too-many-requests:60",
            "abuse-429",
            "html-200",
            "redirect-to:http://127.0.0.1:1/x",
            "redirect-loop",
            "token-down",
            "token-garbage",
            "head-refused",
            "head-unauthorized",
            "head-no-digest",
            "manifest-not-its-digest",
            "huge-manifest:5000000",
            "no-referrers",
            "no-www-authenticate",
            "cdn-403",
        ] {
            let fault: Fault = name.parse().expect(name);
            assert_eq!(fault.to_string(), name);
        }
        for wrong in ["", "cut-after", "cut-after:x", "status:99999", "nonsense", "hang:3"] {
            assert!(wrong.parse::<Fault>().is_err(), "{wrong}");
        }
    }
}
