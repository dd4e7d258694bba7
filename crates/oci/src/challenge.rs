//! What a registry answers a request with that it wants credentials for: `WWW-Authenticate` (RFC 9110, section
//! 11.6.1).
//!
//! Only reading: whether a realm may be asked, and with which credentials, is decided elsewhere.

/// The most challenges that are read from one header.
pub const CHALLENGES_MAX: usize = 8;

/// The longest header that is read, in bytes.
const HEADER_BYTES_MAX: usize = 16 << 10;

/// One way to authenticate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// The scheme.
    pub scheme: Scheme,
    /// For Bearer the URL of the token service, unchecked.
    pub realm: Option<String>,
    /// The name by which the token service knows the registry.
    pub service: Option<String>,
    /// What the token must allow, such as `repository:library/alpine:pull`.
    pub scope: Option<String>,
    /// Why the credentials sent did not do, such as `insufficient_scope`.
    pub error: Option<String>,
}

/// How to authenticate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// With a token from the realm.
    Bearer,
    /// With name and password.
    Basic,
    /// Some other way; the name as sent.
    Other(String),
}

/// Returns the challenges in one `WWW-Authenticate` header, in its order. What cannot be read is left out.
pub fn parse_challenges(header: &str) -> Vec<Challenge> {
    if header.len() > HEADER_BYTES_MAX {
        return Vec::new();
    }
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut cursor = Cursor(header);
    loop {
        let at_start = cursor.skip_separators() || challenges.is_empty();
        let word = cursor.take_while(is_token);
        let followed_by_equals = cursor.0.trim_start_matches([' ', '\t']).starts_with('=');
        if cursor.0.is_empty() && word.is_empty() {
            return challenges;
        }
        match challenges.last_mut() {
            Some(challenge) if followed_by_equals && !word.is_empty() => {
                if let Some(value) = cursor.take_value() {
                    challenge.set(word, value);
                }
            }
            _ if !word.is_empty() && at_start && !followed_by_equals => {
                if challenges.len() == CHALLENGES_MAX {
                    return challenges;
                }
                challenges.push(Challenge::new(word));
            }
            // A token68, as in `Negotiate YII/oA==`, or rubbish.
            _ => _ = cursor.take_while(|byte| byte != b','),
        }
    }
}

impl Challenge {
    fn new(scheme: &str) -> Self {
        let scheme = if scheme.eq_ignore_ascii_case("bearer") {
            Scheme::Bearer
        } else if scheme.eq_ignore_ascii_case("basic") {
            Scheme::Basic
        } else {
            Scheme::Other(scheme.to_owned())
        };
        Self { scheme, realm: None, service: None, scope: None, error: None }
    }

    /// Takes a parameter in, unless it is unknown or was there before.
    fn set(&mut self, name: &str, value: String) {
        let slots = [
            ("realm", &mut self.realm),
            ("service", &mut self.service),
            ("scope", &mut self.scope),
            ("error", &mut self.error),
        ];
        for (known, slot) in slots {
            if name.eq_ignore_ascii_case(known) {
                slot.get_or_insert(value);
                return;
            }
        }
    }
}

/// What is left of the header to read.
struct Cursor<'a>(&'a str);

impl<'a> Cursor<'a> {
    /// Skips spaces and commas, and tells whether there was a comma.
    fn skip_separators(&mut self) -> bool {
        self.take_while(|byte| matches!(byte, b' ' | b'\t' | b',')).contains(',')
    }

    /// Takes bytes while `wanted` holds, which must not split a character: it holds for ASCII only, or for all but
    /// some ASCII.
    fn take_while(&mut self, wanted: impl Fn(u8) -> bool) -> &'a str {
        let end = self.0.bytes().position(|byte| !wanted(byte)).unwrap_or(self.0.len());
        let (taken, rest) = self.0.split_at(end);
        self.0 = rest;
        taken
    }

    /// Takes `=` and the value after it; `None` where a quote is never closed.
    fn take_value(&mut self) -> Option<String> {
        self.take_while(|byte| matches!(byte, b' ' | b'\t'));
        self.0 = self.0.strip_prefix('=').unwrap_or(self.0);
        self.take_while(|byte| matches!(byte, b' ' | b'\t'));
        match self.0.strip_prefix('"') {
            Some(rest) => {
                self.0 = rest;
                self.take_quoted()
            }
            None => Some(self.take_while(|byte| !matches!(byte, b' ' | b'\t' | b',')).to_owned()),
        }
    }

    /// Takes the rest of a quoted string, of which a backslash escapes any character.
    fn take_quoted(&mut self) -> Option<String> {
        let mut value = String::new();
        let mut chars = self.0.chars();
        while let Some(char) = chars.next() {
            match char {
                '"' => {
                    self.0 = chars.as_str();
                    return Some(value);
                }
                '\\' => value.extend(chars.next()),
                _ => value.push(char),
            }
        }
        self.0 = "";
        None
    }
}

/// Tells whether a byte may stand in a token (RFC 9110, section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Shows challenges as `Scheme realm=.. service=..;`, which a table can hold.
    fn shown(header: &str) -> String {
        let mut shown = String::new();
        for challenge in parse_challenges(header) {
            shown.push_str(&format!("{:?}", challenge.scheme));
            let parts = [
                ("realm", challenge.realm),
                ("service", challenge.service),
                ("scope", challenge.scope),
                ("error", challenge.error),
            ];
            for (name, value) in parts {
                value.into_iter().for_each(|value| shown.push_str(&format!(" {name}={value}")));
            }
            shown.push(';');
        }
        shown
    }

    #[test]
    fn challenges_are_read_as_registries_send_them() {
        let table = [
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/ubuntu:pull""#,
                "Bearer realm=https://auth.docker.io/token service=registry.docker.io scope=repository:library/ubuntu:pull;",
            ),
            (
                r#"Bearer realm="https://nvcr.io/proxy_auth", scope="a:b:pull,push", error="insufficient_scope""#,
                "Bearer realm=https://nvcr.io/proxy_auth scope=a:b:pull,push error=insufficient_scope;",
            ),
            (r#"Basic realm="Registry""#, "Basic realm=Registry;"),
            (r#"BASIC Realm = Registry"#, "Basic realm=Registry;"),
            (r#"bearer realm=https://x/token?a=b"#, "Bearer realm=https://x/token?a=b;"),
            (r#"Basic realm="a", Bearer realm="b",service=c"#, "Basic realm=a;Bearer realm=b service=c;"),
            (
                r#"Negotiate, NTLM TlRM==, Basic realm="x""#,
                r#"Other("Negotiate");Other("NTLM");Basic realm=x;"#,
            ),
            (r#"Negotiate YII/oA+b==,Basic realm="x""#, r#"Other("Negotiate");Basic realm=x;"#),
            (r#"Bearer realm="a\"b\\c",x-unknown="1, 2",realm="second""#, r#"Bearer realm=a"b\c;"#),
            (r#",, Bearer  ,realm="x" ,"#, "Bearer realm=x;"),
            ("Bearer", "Bearer;"),
            (r#"Bearer realm="" "#, "Bearer realm=;"),
            (r#"Bearer service="s",realm="never closed"#, "Bearer service=s;"),
            (r#"realm="x""#, ""),
            ("", ""),
            ("\u{e9} = \u{e9}", ""),
        ];
        for (header, wanted) in table {
            assert_eq!(shown(header), wanted, "{header}");
        }
    }

    #[test]
    fn a_flood_of_challenges_is_cut() {
        assert_eq!(parse_challenges(&"Basic,".repeat(1000)).len(), CHALLENGES_MAX);
        assert_eq!(parse_challenges(&"Basic,".repeat(10_000)), []);
    }

    proptest! {
        #[test]
        fn any_header_is_read_without_panic(header in "\\PC*", like in r#"([Bb]earer|realm|[=", \\é\t])*"#) {
            prop_assert!(parse_challenges(&header).len() <= CHALLENGES_MAX);
            prop_assert!(parse_challenges(&like).len() <= CHALLENGES_MAX);
        }

        #[test]
        fn what_is_quoted_is_read_back(realm in "\\PC{0,40}", scope in "\\PC{0,40}") {
            let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
            let header = format!("Bearer realm=\"{}\", scope=\"{}\"", quoted(&realm), quoted(&scope));
            let challenges = parse_challenges(&header);
            prop_assert_eq!(challenges.len(), 1);
            prop_assert_eq!(challenges[0].realm.as_deref(), Some(realm.as_str()));
            prop_assert_eq!(challenges[0].scope.as_deref(), Some(scope.as_str()));
        }
    }
}
