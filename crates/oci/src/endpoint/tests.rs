//! Tables of paths and queries, good and bad.

use proptest::prelude::*;

use super::*;
use crate::{Algorithm, N_MAX, NAME_BYTES_MAX, QUERY_BYTES_MAX};

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn get(path: &str) -> Result<Endpoint, EndpointError> {
    Target::parse("GET", path, None).map(|target| target.endpoint)
}

fn get_with(path: &str, query: &str) -> Result<Target, EndpointError> {
    Target::parse("GET", path, Some(query))
}

fn name(text: &str) -> RepositoryName {
    text.parse().expect("a valid name")
}

fn digest() -> Digest {
    Digest::of(Algorithm::Sha256, b"")
}

fn manifest(repository: &str, reference: &str) -> Endpoint {
    Endpoint::Manifest { name: name(repository), reference: reference.parse().expect("a valid reference") }
}

fn blob(repository: &str) -> Endpoint {
    Endpoint::Blob { name: name(repository), digest: digest() }
}

fn tags(repository: &str) -> Endpoint {
    Endpoint::Tags { name: name(repository), page: Page::default() }
}

#[test]
fn every_endpoint_is_found() {
    let referrers = Endpoint::Referrers { name: name("a"), digest: digest(), artifact_type: None };
    for (path, wanted) in [
        ("/", Endpoint::Root),
        ("/v2", Endpoint::Version),
        ("/v2/", Endpoint::Version),
        ("/v2/_catalog", Endpoint::Catalog),
        ("/v2/library/alpine/manifests/3.20", manifest("library/alpine", "3.20")),
        (&format!("/v2/library/alpine/manifests/{DIGEST}"), manifest("library/alpine", DIGEST)),
        (&format!("/v2/library/alpine/blobs/{DIGEST}"), blob("library/alpine")),
        ("/v2/library/alpine/tags/list", tags("library/alpine")),
        (&format!("/v2/a/referrers/{DIGEST}"), referrers),
        ("/v2/localhost/a/manifests/latest", manifest("localhost/a", "latest")),
    ] {
        assert_eq!(get(path), Ok(wanted.clone()), "{path}");
        assert_eq!(Target::parse("HEAD", path, None), Ok(Target { endpoint: wanted, ns: None }), "{path}");
    }
}

#[test]
fn a_repository_named_like_a_route_is_routed_right() {
    for (path, wanted) in [
        ("/v2/a/blobs/b/manifests/latest", manifest("a/blobs/b", "latest")),
        ("/v2/a/manifests/b/manifests/latest", manifest("a/manifests/b", "latest")),
        ("/v2/manifests/manifests/manifests", manifest("manifests", "manifests")),
        ("/v2/tags/list/tags/list", tags("tags/list")),
        ("/v2/a/tags/manifests/list", manifest("a/tags", "list")),
        (&format!("/v2/a/manifests/blobs/{DIGEST}"), blob("a/manifests")),
        ("/v2/v2/manifests/v2", manifest("v2", "v2")),
    ] {
        assert_eq!(get(path), Ok(wanted), "{path}");
    }
}

#[test]
fn a_colon_may_be_escaped_and_nothing_else() {
    for escape in ["%3A", "%3a"] {
        assert_eq!(get(&format!("/v2/a/blobs/{}", DIGEST.replace(':', escape))), Ok(blob("a")));
        let path = format!("/v2/a/manifests/{}", DIGEST.replace(':', escape));
        assert_eq!(get(&path), Ok(manifest("a", DIGEST)));
    }
    for path in [
        "/v2/a%2fb/manifests/latest",
        "/v2/a%2Fb/manifests/latest",
        "/v2/a/%2e%2e/manifests/latest",
        "/v2/a/manifests/%2e%2e",
        "/v2/a/manifests/latest%00",
        "/v2/a/manifests/l%61test",
        "/v2/a/manifests/sha256%253Aabc",
        "/v2/localhost%3A5000/manifests/latest",
        "/v2/a/manifests/%",
        "/v2/a/manifests/%3",
        "/v2%3A/",
        "/%76%32/",
    ] {
        assert!(matches!(get(path), Err(EndpointError::Path { .. })), "{path}: {:?}", get(path));
    }
}

#[test]
fn a_path_that_could_be_read_in_two_ways_is_refused() {
    let long = format!("/v2/{}/manifests/latest", "a/".repeat(1100));
    for path in [
        "",
        "*",
        "v2/",
        "http://hub/v2/",
        "//",
        "//v2/",
        "/v2//",
        "/v2//a/manifests/latest",
        "/v2/a//manifests/latest",
        "/v2/../v2/",
        "/v2/a/../b/manifests/latest",
        "/v2/./a/manifests/latest",
        "/v2/a/manifests/..",
        "/v2/a/manifests/.",
        "/..",
        "/v2/a/blobs/sha256:../../../etc/passwd",
        "/v2/a\\b/manifests/latest",
        "/v2/a/manifests/la test",
        "/v2/a/manifests/latest\0",
        "/v2/a/manifests/latest\r\nX: y",
        "/v2/a/manifests/latest\u{7f}",
        "/v2/\u{e9}/manifests/latest",
        &long,
    ] {
        let error = get(path).expect_err(path);
        assert!(matches!(error, EndpointError::Path { .. }), "{path:?}: {error:?}");
        assert_eq!(error.code(), ErrorCode::NameInvalid);
    }
}

#[test]
fn malformed_names_tags_and_digests_are_told_apart() {
    let long_name = format!("/v2/{}/manifests/latest", "a".repeat(NAME_BYTES_MAX + 1));
    let long_tag = format!("/v2/a/manifests/{}", "a".repeat(129));
    for (path, code) in [
        ("/v2/Library/alpine/manifests/latest", ErrorCode::NameInvalid),
        ("/v2/a..b/manifests/latest", ErrorCode::NameInvalid),
        ("/v2/localhost:5000/a/tags/list", ErrorCode::NameInvalid),
        ("/v2/UPPER/blobs/sha256:bad", ErrorCode::NameInvalid),
        (&long_name, ErrorCode::NameInvalid),
        ("/v2/a/manifests/", ErrorCode::TagInvalid),
        ("/v2/a/manifests/.INVALID_MANIFEST_NAME", ErrorCode::TagInvalid),
        (&long_tag, ErrorCode::TagInvalid),
        ("/v2/a/manifests/sha256:baddigeststring", ErrorCode::DigestInvalid),
        ("/v2/a/manifests/a:b", ErrorCode::DigestInvalid),
        ("/v2/a/blobs/latest", ErrorCode::DigestInvalid),
        ("/v2/a/blobs/", ErrorCode::DigestInvalid),
        ("/v2/a/referrers/md5:00", ErrorCode::DigestInvalid),
    ] {
        let error = get(path).expect_err(path);
        assert_eq!(error.code(), code, "{path}");
        assert!(error.to_string().len() < 300, "{error}");
    }
}

#[test]
fn other_paths_are_not_found() {
    for path in [
        "/favicon.ico",
        "/v1/",
        "/v2x",
        "/v2/a",
        "/v2/a/",
        "/v2/_catalog/",
        "/v2/manifests/latest",
        "/v2/a/tags/",
        "/v2/a/tags/list/",
        "/v2/a/tags/other",
        "/v2/a/manifests/latest/extra",
        "/v2/a/blobs/uploads/",
        "/v2/a/blobs/uploads/1",
        "/prefix/v2/a/manifests/latest",
    ] {
        assert_eq!(get(path), Err(EndpointError::NotFound), "{path}");
    }
    assert_eq!(EndpointError::NotFound.code(), ErrorCode::Unsupported);
}

#[test]
fn methods_other_than_get_and_head_are_refused_before_all_else() {
    for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "get", "", "G\r\nET"] {
        let error = Target::parse(method, "/v2/../x", None).expect_err(method);
        assert!(matches!(error, EndpointError::Method { .. }), "{method}");
        assert_eq!(error.code(), ErrorCode::Unsupported);
        assert!(!error.to_string().contains(char::is_control));
    }
}

#[test]
fn the_registry_meant_is_passed_on() {
    for (query, wanted) in [
        ("ns=docker.io", Some("docker.io")),
        ("x=y&ns=myreg.io%3A5000&ns2=b", Some("myreg.io:5000")),
        ("ns=myreg.io:5000", Some("myreg.io:5000")),
        ("ns=", None),
        ("ns", None),
        ("", None),
    ] {
        let target = get_with("/v2/a/manifests/latest", query).expect(query);
        assert_eq!(target.ns.as_deref(), wanted, "{query}");
    }
}

#[test]
fn queries_that_say_two_things_are_refused() {
    let long = "x".repeat(QUERY_BYTES_MAX + 1);
    for query in
        ["ns=a&ns=b", "ns=a&ns=a", "n=1&n=2", "last=a&last=", "ns=a%00", "ns=%", "n%73=a&ns=b", &long]
    {
        let error = get_with("/v2/a/tags/list", query).expect_err(query);
        assert!(matches!(error, EndpointError::Query { .. }), "{query}: {error:?}");
    }
}

#[test]
fn pages_of_tags_are_read_and_bounded() {
    for (query, n, last) in [
        ("", None, None),
        ("n=0", Some(0), None),
        ("n=10&last=3.20", Some(10), Some("3.20")),
        ("last=a%2Bb&ns=docker.io", None, Some("a+b")),
        ("n=1000000000000", Some(N_MAX), None),
    ] {
        let target = get_with("/v2/a/tags/list", query).expect(query);
        let page = Page { n, last: last.map(str::to_owned) };
        assert_eq!(target.endpoint, Endpoint::Tags { name: name("a"), page }, "{query}");
    }
    for query in ["n=-1", "n=", "n=ten", "n=1.5", "n=%2B1"] {
        let error = get_with("/v2/a/tags/list", query).expect_err(query);
        assert_eq!(error.code(), ErrorCode::PaginationNumberInvalid, "{query}");
        assert!(get_with("/v2/a/manifests/latest", query).is_ok(), "n means nothing here: {query}");
    }
}

#[test]
fn referrers_may_be_filtered() {
    let path = format!("/v2/a/referrers/{DIGEST}");
    let target = get_with(&path, "artifactType=application%2Fspdx%2Bjson&ns=x").expect("valid");
    let artifact_type = Some("application/spdx+json".to_owned());
    assert_eq!(target.endpoint, Endpoint::Referrers { name: name("a"), digest: digest(), artifact_type });
}

proptest! {
    #[test]
    fn any_request_is_read_without_panic(
        method in "GET|HEAD|\\PC*",
        path in prop_oneof!["\\PC*", "(/|v2|a|manifests|blobs|tags|list|referrers|\\.|%|3A|:|sha256){0,20}"],
        query in proptest::option::of("\\PC*"),
    ) {
        let _ = Target::parse(&method, &path, query.as_deref());
    }

    #[test]
    fn a_path_that_parses_leads_nowhere_else(
        path in "/v2/([a-z./]|%2e|%2f|%3A){1,12}/(manifests|blobs|tags)/([a-z.:/]|%2e|%3A|list){1,6}",
    ) {
        if let Ok(endpoint) = get(&path) {
            prop_assert!(path.split('/').all(|segment| segment != "." && segment != ".."));
            prop_assert!(!path.contains("//") && !path.contains("%2"));
            let Endpoint::Manifest { name, reference } = &endpoint else {
                return Ok(());
            };
            prop_assert!(!name.as_str().contains("..") && !name.as_str().contains("//"));
            prop_assert!(!reference.to_string().starts_with('.') && !reference.to_string().contains(['/', '%']));
        }
    }

    #[test]
    fn every_valid_request_is_found(
        repository in "[a-z0-9]{1,6}(/(manifests|blobs|tags|list|referrers|[a-z0-9]{1,6})){0,4}",
        tag in "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,20}",
        content: Vec<u8>,
    ) {
        prop_assert_eq!(get(&format!("/v2/{repository}/manifests/{tag}")), Ok(manifest(&repository, &tag)));
        let digest = Digest::of(Algorithm::Sha512, &content);
        let blob = Endpoint::Blob { name: name(&repository), digest };
        prop_assert_eq!(get(&format!("/v2/{repository}/blobs/{digest}")), Ok(blob));
    }
}
