//! What a request asks for, from its path.

use crate::fault::Kind;

/// Which of the Hub's listeners a request came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Registry,
    Cdn,
    Token,
}

impl Role {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Registry => "registry",
            Self::Cdn => "cdn",
            Self::Token => "token",
        }
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    Ping,
    Manifest {
        repository: &'a str,
        reference: &'a str,
    },
    Blob {
        repository: &'a str,
        digest: &'a str,
    },
    Tags {
        repository: &'a str,
    },
    Referrers {
        repository: &'a str,
        digest: &'a str,
    },
    Token,
    /// The realm that a switched challenge names; it refuses everyone.
    RefusingToken,
    /// A signed path: the bytes of a blob.
    Data {
        digest: &'a str,
    },
    /// A signed path that redirects to the bytes.
    Nested {
        digest: &'a str,
    },
    /// A path that redirects to itself.
    Loop,
    /// The control API; the rest of the path.
    Control(&'a str),
    Other,
}

/// Paths of the CDN, before the digest's hexadecimal form.
pub(crate) const DATA_PATH: &str = "/registry-v2/docker/registry/v2/blobs/";
pub(crate) const NESTED_PATH: &str = "/edge/";
/// The registry's own signed paths.
pub(crate) const RELATIVE_PATH: &str = "/artifacts-downloads/";
pub(crate) const LOOP_PATH: &str = "/loop";
pub(crate) const REFUSING_TOKEN_PATH: &str = "/authn/token";

impl<'a> Route<'a> {
    pub(crate) fn parse(role: Role, path: &'a str) -> Self {
        match role {
            Role::Registry => Self::registry(path),
            Role::Cdn => Self::cdn(path),
            Role::Token => Self::token(path),
        }
    }

    fn registry(path: &'a str) -> Self {
        if path == "/v2/" || path == "/v2" {
            return Self::Ping;
        }
        if let Some(rest) = path.strip_prefix("/_hubsim/") {
            return Self::Control(rest);
        }
        if let Some(digest) = path.strip_prefix(RELATIVE_PATH) {
            return Self::Data { digest };
        }
        let Some(rest) = path.strip_prefix("/v2/") else {
            return Self::token(path);
        };
        if let Some(repository) = rest.strip_suffix("/tags/list") {
            return Self::Tags { repository };
        }
        let last =
            |middle: &str| rest.rsplit_once(middle).filter(|(_, end)| !end.is_empty() && !end.contains('/'));
        if let Some((repository, reference)) = last("/manifests/") {
            return Self::Manifest { repository, reference };
        }
        if let Some((repository, digest)) = last("/blobs/") {
            return Self::Blob { repository, digest };
        }
        match last("/referrers/") {
            Some((repository, digest)) => Self::Referrers { repository, digest },
            None => Self::Other,
        }
    }

    fn cdn(path: &'a str) -> Self {
        if path == LOOP_PATH {
            return Self::Loop;
        }
        if let Some(digest) = path.strip_prefix(NESTED_PATH) {
            return Self::Nested { digest };
        }
        path.strip_prefix(DATA_PATH).map_or(Self::Other, |digest| Self::Data { digest })
    }

    fn token(path: &'a str) -> Self {
        match path {
            "/token" => Self::Token,
            REFUSING_TOKEN_PATH => Self::RefusingToken,
            _ => Self::Other,
        }
    }

    /// Returns the kind under which faults know the request.
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Ping => Kind::Ping,
            Self::Manifest { .. } => Kind::Manifests,
            Self::Blob { .. } => Kind::Blobs,
            Self::Tags { .. } => Kind::Tags,
            Self::Referrers { .. } => Kind::Referrers,
            Self::Token | Self::RefusingToken => Kind::Token,
            Self::Data { .. } | Self::Nested { .. } | Self::Loop => Kind::Cdn,
            Self::Control(_) | Self::Other => Kind::Other,
        }
    }

    /// Returns the repository asked of the registry.
    pub(crate) fn repository(&self) -> Option<&'a str> {
        match self {
            Self::Manifest { repository, .. }
            | Self::Blob { repository, .. }
            | Self::Tags { repository }
            | Self::Referrers { repository, .. } => Some(repository),
            _ => None,
        }
    }

    /// Returns the digest or tag asked for.
    pub(crate) fn reference(&self) -> Option<&'a str> {
        match self {
            Self::Manifest { reference, .. } => Some(reference),
            Self::Blob { digest, .. } | Self::Referrers { digest, .. } => Some(digest),
            Self::Data { digest } | Self::Nested { digest } => Some(digest),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_hold_the_words_of_the_api() {
        for (path, route) in [
            ("/v2/", Route::Ping),
            (
                "/v2/a/manifests/b/manifests/c",
                Route::Manifest { repository: "a/manifests/b", reference: "c" },
            ),
            ("/v2/a/blobs/b/blobs/sha256:1", Route::Blob { repository: "a/blobs/b", digest: "sha256:1" }),
            ("/v2/a/tags/list", Route::Tags { repository: "a" }),
            ("/v2/a/referrers/sha256:1", Route::Referrers { repository: "a", digest: "sha256:1" }),
            ("/v2/a/blobs/", Route::Other),
            ("/v2/_catalog", Route::Other),
            ("/token", Route::Token),
        ] {
            assert_eq!(Route::parse(Role::Registry, path), route, "{path}");
        }
        let data = format!("{DATA_PATH}sha256:1");
        assert_eq!(Route::parse(Role::Cdn, &data), Route::Data { digest: "sha256:1" });
        assert_eq!(Route::parse(Role::Cdn, "/v2/"), Route::Other);
    }
}
