//! Names of repositories and tags, by the grammars of the distribution spec ("Pulling manifests").
//!
//! A name that parsed holds no `..`, no empty component and nothing but `[a-z0-9._/-]`, so it may become a path.
//! Neither type knows registries, mirrors or defaults such as `library/`.

use std::{fmt, str::FromStr, sync::Arc};

use crate::excerpt::excerpt;

/// The longest name of a repository, in bytes; the spec's advice, since clients count host and name together.
pub const NAME_BYTES_MAX: usize = 255;

/// The longest tag, in bytes.
pub const TAG_BYTES_MAX: usize = 128;

/// The name of a repository, such as `library/alpine`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepositoryName(Arc<str>);

/// A tag, such as `3.20`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(Arc<str>);

impl RepositoryName {
    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether the name is `prefix` or lies below it, part by part: `acme/app` does below `acme`, `acmes` not.
    pub fn is_within(&self, prefix: &Self) -> bool {
        self.0.strip_prefix(prefix.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Returns `<prefix>/<name>`, where `prefix` may be the host of a registry, such as `ghcr.io` or
    /// `localhost:5000`.
    ///
    /// A colon becomes `_`, so that the result is a name by the grammar and a path on any filesystem:
    /// `localhost:5000` gives `localhost_5000/<name>`, and so would a host of that name, which DNS does not allow.
    pub fn joined(&self, prefix: &str) -> Result<Self, NameError> {
        format!("{}/{}", prefix.replace(':', "_"), self.0).parse()
    }
}

impl FromStr for RepositoryName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.len() > NAME_BYTES_MAX {
            return Err(NameError::TooLong { shown: excerpt(text), bytes: text.len() });
        }
        if text.split('/').all(|component| is_component(component.as_bytes())) {
            Ok(Self(text.into()))
        } else {
            Err(NameError::Grammar { shown: excerpt(text) })
        }
    }
}

/// Tells whether `bytes` match `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`.
fn is_component(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    loop {
        let word = rest.iter().take_while(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9')).count();
        if word == 0 {
            return false;
        }
        rest = &rest[word..];
        let Some(&separator) = rest.first() else {
            return true;
        };
        let run = rest.iter().take_while(|&&byte| byte == separator).count();
        let allowed = match separator {
            b'.' => run == 1,
            b'_' => run <= 2,
            b'-' => true,
            _ => false,
        };
        if !allowed {
            return false;
        }
        rest = &rest[run..];
    }
}

impl Tag {
    /// Returns the tag as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = TagError;

    fn from_str(text: &str) -> Result<Self, TagError> {
        if text.len() > TAG_BYTES_MAX {
            return Err(TagError::TooLong { shown: excerpt(text), bytes: text.len() });
        }
        let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        let Some((first, rest)) = text.as_bytes().split_first() else {
            return Err(TagError::Empty);
        };
        if is_word(first) && rest.iter().all(|byte| is_word(byte) || matches!(byte, b'.' | b'-')) {
            Ok(Self(text.into()))
        } else {
            Err(TagError::Grammar { shown: excerpt(text) })
        }
    }
}

impl TryFrom<&str> for RepositoryName {
    type Error = NameError;

    fn try_from(text: &str) -> Result<Self, NameError> {
        text.parse()
    }
}

impl TryFrom<&str> for Tag {
    type Error = TagError;

    fn try_from(text: &str) -> Result<Self, TagError> {
        text.parse()
    }
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Text that is not the name of a repository.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It is longer than [`NAME_BYTES_MAX`].
    #[error("repository name \"{shown}\" has {bytes} bytes: expected at most {NAME_BYTES_MAX}")]
    TooLong {
        /// The beginning of the text.
        shown: String,
        /// Its length in bytes.
        bytes: usize,
    },
    /// It does not follow the grammar.
    #[error(
        "repository name \"{shown}\" is not valid: expected components of a-z and 0-9, separated inside by \
         \".\", \"_\", \"__\" or \"-\", and joined by \"/\""
    )]
    Grammar {
        /// The beginning of the text.
        shown: String,
    },
}

/// Text that is not a tag.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TagError {
    /// There is nothing.
    #[error("tag is empty: expected 1 to {TAG_BYTES_MAX} characters")]
    Empty,
    /// It is longer than [`TAG_BYTES_MAX`].
    #[error("tag \"{shown}\" has {bytes} bytes: expected at most {TAG_BYTES_MAX}")]
    TooLong {
        /// The beginning of the text.
        shown: String,
        /// Its length in bytes.
        bytes: usize,
    },
    /// It does not follow the grammar.
    #[error(
        "tag \"{shown}\" is not valid: expected a letter, digit or \"_\", then letters, digits, \"_\", \".\" or \"-\""
    )]
    Grammar {
        /// The beginning of the text.
        shown: String,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_is_within_another_by_whole_parts() {
        let name = |text: &str| text.parse::<RepositoryName>().expect("a name");
        for (text, prefix, within) in [
            ("acme", "acme", true),
            ("acme/app", "acme", true),
            ("acme/app/base", "acme/app", true),
            ("acmes/app", "acme", false),
            ("acme", "acme/app", false),
            ("other/acme", "acme", false),
        ] {
            assert_eq!(name(text).is_within(&name(prefix)), within, "{text} {prefix}");
        }
    }

    #[test]
    fn names_follow_the_grammar() {
        for text in [
            "a",
            "0",
            "library/alpine",
            "a/b/c/d/e",
            "a.b",
            "a_b",
            "a__b",
            "a-b",
            "a---b",
            "a/blobs/b",
            "a1.b-2__c/d",
            "docker.io/library/nginx",
        ] {
            assert_eq!(text.parse::<RepositoryName>().map(|name| name.to_string()), Ok(text.to_owned()));
        }
        for text in [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            ".",
            "..",
            "a/../b",
            "a/./b",
            "A",
            "library/Alpine",
            "a..b",
            "a___b",
            "a._b",
            "a-_b",
            ".a",
            "a.",
            "-a",
            "a-",
            "_a",
            "a_",
            "a b",
            "a:b",
            "a@b",
            "a%2fb",
            "a\\b",
            "a\0",
            "a\n",
            "\u{e9}",
            "_catalog",
        ] {
            assert!(matches!(text.parse::<RepositoryName>(), Err(NameError::Grammar { .. })), "{text:?}");
        }
    }

    #[test]
    fn a_name_has_255_bytes_at_most() {
        assert!("a".repeat(255).parse::<RepositoryName>().is_ok());
        assert!(matches!(
            "a".repeat(256).parse::<RepositoryName>(),
            Err(NameError::TooLong { bytes: 256, .. })
        ));
    }

    #[test]
    fn tags_follow_the_grammar() {
        for text in ["latest", "3.20", "_", "A", "a..b", "sha256-0a.sig", "v1.0-rc_1", "0--"] {
            assert_eq!(text.parse::<Tag>().map(|tag| tag.to_string()), Ok(text.to_owned()));
        }
        for text in [".", "..", ".a", "-a", "a/b", "a:b", "a b", "a+b", "a%2e", "a\0", "\u{e9}"] {
            assert!(matches!(text.parse::<Tag>(), Err(TagError::Grammar { .. })), "{text:?}");
        }
        assert_eq!("".parse::<Tag>(), Err(TagError::Empty));
    }

    #[test]
    fn a_tag_has_128_bytes_at_most() {
        assert!("a".repeat(128).parse::<Tag>().is_ok());
        assert!(matches!("a".repeat(129).parse::<Tag>(), Err(TagError::TooLong { bytes: 129, .. })));
    }

    #[test]
    fn a_registry_can_be_put_before_a_name() {
        let name: RepositoryName = "library/alpine".parse().expect("valid");
        for (prefix, wanted) in [
            ("ghcr.io", Some("ghcr.io/library/alpine")),
            ("localhost:5000", Some("localhost_5000/library/alpine")),
            ("", None),
            ("..", None),
            ("[::1]:5000", None),
        ] {
            assert_eq!(name.joined(prefix).ok().as_ref().map(RepositoryName::as_str), wanted, "{prefix}");
        }
        let long: RepositoryName = "a".repeat(255).parse().expect("valid");
        assert!(matches!(long.joined("ghcr.io"), Err(NameError::TooLong { .. })));
    }

    #[test]
    fn errors_are_short_and_on_one_line() {
        let error = format!("{}\n\u{1b}[31m", "x".repeat(100)).repeat(2).parse::<RepositoryName>();
        let message = error.expect_err("invalid").to_string();
        assert!(message.len() < 300 && !message.contains(char::is_control), "{message}");
    }

    proptest! {
        #[test]
        fn any_text_is_a_safe_name_or_none(text in prop_oneof!["\\PC*", "[a-z0-9._/-]{0,20}"]) {
            if let Ok(name) = text.parse::<RepositoryName>() {
                prop_assert_eq!(name.as_str(), &text);
                prop_assert!(!text.contains("..") && !text.contains("//"));
                prop_assert!(text.split('/').all(|component| !component.is_empty()));
            }
            if let Ok(tag) = text.parse::<Tag>() {
                prop_assert_eq!(tag.as_str(), &text);
                prop_assert!(!text.starts_with('.') && !text.contains('/'));
            }
        }

        #[test]
        fn every_text_of_the_grammar_is_a_name(
            text in r"[a-z0-9]{1,5}((\.|_|__|-{1,3})[a-z0-9]{1,5}){0,3}(/[a-z0-9]{1,5}((\.|_|__|-{1,3})[a-z0-9]{1,5}){0,3}){0,3}",
            tag in "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}",
        ) {
            prop_assert!(text.parse::<RepositoryName>().is_ok());
            prop_assert!(tag.parse::<Tag>().is_ok());
        }
    }
}
