//! Where an account goes, and where it does not.

use super::*;
use crate::config::WellKnown;

fn home(registry: &str, url: &str, realms: &[&str]) -> Home {
    let site = Site::of(&url.parse().expect("a URL")).expect("a site");
    let known = WellKnown::of(registry).map_or(&[][..], |known| known.realms);
    Home::new(site, known.iter().chain(realms).copied()).expect("realms")
}

fn allowed(home: &Home, target: &str) -> bool {
    target.parse().is_ok_and(|url| may_send(home, &url))
}

#[test]
fn an_account_goes_home() {
    let hub = home("docker.io", "https://registry-1.docker.io", &["https://sso.example.com/token"]);
    for target in [
        "https://registry-1.docker.io/v2/",
        "https://registry-1.docker.io:443/v2/library/alpine/manifests/3.20",
        "https://REGISTRY-1.docker.io/v2/",
        "https://auth.docker.io/token",
        "https://auth.docker.io:443/token?x=y",
        "https://AUTH.Docker.IO/anything",
        "https://sso.example.com/token?service=x",
    ] {
        assert!(allowed(&hub, target), "{target}");
    }
    let local =
        home("docker.io", "http://127.0.0.1:7000", &["127.0.0.1:7001", "http://127.0.0.1:7002/token"]);
    for target in [
        "http://127.0.0.1:7000/token",
        "http://127.0.0.1:7001/token",
        "https://127.0.0.1:7001/token",
        "http://127.0.0.1:7002/token",
        "https://auth.docker.io/token",
    ] {
        assert!(allowed(&local, target), "{target}");
    }
    let private = home("registry.example", "https://registry.example:5000", &["sso.example"]);
    assert!(allowed(&private, "https://sso.example/token"));
    assert!(!allowed(&private, "http://sso.example/token"));
    assert!(!allowed(&private, "https://auth.docker.io/token"));
}

#[test]
fn an_account_goes_nowhere_else() {
    let hub = home("docker.io", "https://registry-1.docker.io", &["https://sso.example.com/token"]);
    for target in [
        // Unencrypted.
        "http://registry-1.docker.io/v2/",
        "http://registry-1.docker.io:443/v2/",
        "http://auth.docker.io/token",
        "http://auth.docker.io:443/token",
        "ftp://auth.docker.io/token",
        "ws://auth.docker.io/token",
        "file:///etc/passwd",
        // Another port.
        "https://registry-1.docker.io:8443/v2/",
        "https://auth.docker.io:444/token",
        "https://auth.docker.io:80/token",
        "https://auth.docker.io:0/token",
        "https://auth.docker.io:65979/token",
        "https://auth.docker.io:4430/token",
        "https://auth.docker.io:+443/token",
        // A user, or what looks like one.
        "https://user@auth.docker.io/token",
        "https://user:password@auth.docker.io/token",
        "https://auth.docker.io@evil.example/token",
        "https://auth.docker.io:443@evil.example/token",
        "https://auth.docker.io%40evil.example/token",
        "https://auth.docker.io@auth.docker.io/token",
        "https://@auth.docker.io/token",
        // Suffixes, prefixes, siblings.
        "https://auth.docker.io.evil.example/token",
        "https://evilauth.docker.io/token",
        "https://evil-auth.docker.io/token",
        "https://auth.docker.io-evil.example/token",
        "https://docker.io/token",
        "https://sub.auth.docker.io/token",
        "https://hub.docker.io/token",
        "https://production.cloudflare.docker.com/x",
        "https://auth.docker.com/token",
        "https://auth-docker.io/token",
        "https://auth.docker.io./token",
        "https://.auth.docker.io/token",
        "https://auth..docker.io/token",
    ] {
        assert!(!allowed(&hub, target), "{target}");
    }
}

#[test]
fn an_account_goes_nowhere_that_is_only_spelled_like_home() {
    let hub = home("docker.io", "https://registry-1.docker.io", &["https://sso.example.com/token"]);
    for target in [
        // Spellings that other parsers read otherwise.
        "https://auth.docker.io\\@evil.example/token",
        "https://evil.example\\auth.docker.io/token",
        "https://evil.example/https://auth.docker.io/token",
        "https://evil.example?auth.docker.io/token",
        "https://evil.example#auth.docker.io/token",
        "https:auth.docker.io/token",
        "https:/auth.docker.io/token",
        "//auth.docker.io/token",
        "/token",
        "auth.docker.io/token",
        "https://auth.docker.io%2eevil.example/token",
        "https://auth.docker.io\t/token",
        " https://auth.docker.io/token",
        "https://auth.docker.io:443:443/token",
        "https://auth.docker.io:443@/token",
        "https://[auth.docker.io]/token",
        "https://auth.docker.io;evil.example/token",
        "https://auth.docker.io,evil.example/token",
        "https://auth.docker.io%00.evil.example/token",
        "https://auth.docker.io%2fevil.example/token",
        "https:\\\\auth.docker.io\\token",
        "https:///auth.docker.io/token",
        "blob:https://auth.docker.io/token",
        "https+unix://auth.docker.io/token",
        // Letters that look alike, and their ASCII forms.
        "https://auth.d\u{43e}cker.io/token",
        "https://auth.docker.\u{131}o/token",
        "https://auth.xn--dcker-jua.io/token",
        "https://auth\u{3002}docker.io/token",
        // Addresses.
        "https://127.0.0.1/token",
        "https://[::1]/token",
        "https://[::ffff:127.0.0.1]/token",
        "https://2130706433/token",
        "https://0x7f.1/token",
        "https://169.254.169.254/token",
        // The path of a realm that was listed with one.
        "https://sso.example.com/",
        "https://sso.example.com/token/",
        "https://sso.example.com/Token",
        "https://sso.example.com/token/../evil",
        // The realm of another registry.
        "https://authn.nvidia.com/token",
        "https://gitlab.com/jwt/auth",
    ] {
        assert!(!allowed(&hub, target), "{target}");
    }
}

#[test]
fn a_token_is_kept_within_a_place_and_nowhere_else() {
    let from = "https://registry-1.docker.io/v2/library/alpine/blobs/sha256:aa";
    for (to, is_kept) in [
        ("https://registry-1.docker.io/storage/x", true),
        ("https://registry-1.docker.io:443/storage/x", true),
        ("https://REGISTRY-1.docker.io/storage/x", true),
        ("https://registry-1.docker.io:444/storage/x", false),
        ("http://registry-1.docker.io/storage/x", false),
        ("http://registry-1.docker.io:443/storage/x", false),
        ("https://user@registry-1.docker.io/storage/x", false),
        ("https://registry-1.docker.io.evil.example/storage/x", false),
        ("https://auth.docker.io/token", false),
        ("https://production.cloudflare.docker.com/x", false),
    ] {
        let (from, to) = (from.parse().expect("a URL"), to.parse().expect("a URL"));
        assert_eq!(may_keep(&from, &to), is_kept, "{to}");
    }
    let odd = "https://user@registry-1.docker.io/x".parse().expect("a URL");
    assert!(!may_keep(&odd, &odd), "what is no place is not the same one");
}

#[test]
fn a_registry_without_encryption_opens_no_other_unencrypted_place() {
    let local = home("docker.io", "http://127.0.0.1:7000", &[]);
    for target in [
        "http://127.0.0.1:7001/token",
        "http://127.0.0.1/token",
        "http://127.1:7000/token",
        "http://localhost:7000/token",
        "http://[::ffff:127.0.0.1]:7000/token",
        "https://127.0.0.1:7000/token",
        "http://auth.docker.io/token",
    ] {
        assert!(!allowed(&local, target), "{target}");
    }
}

#[test]
fn an_unencrypted_realm_of_an_encrypted_registry_gets_nothing_even_where_listed() {
    let hub = home("docker.io", "https://registry-1.docker.io", &["http://sso.example.com"]);
    assert!(!allowed(&hub, "http://sso.example.com/token"));
}

#[test]
fn a_realm_that_is_no_url_is_named() {
    let site = Site::of(&"https://registry.example".parse().expect("a URL")).expect("a site");
    for text in ["", "a b", "user@sso.example.com", "ftp://sso.example.com", "sso.example.com:99999"] {
        let error = Home::new(site.clone(), [text].into_iter()).map(drop);
        assert_eq!(error, Err(text.to_owned()));
    }
}

#[test]
fn data_leads_to_public_places_only_unless_the_registry_is_inside() {
    let reach = |home: &Home, target: &str, inside| reach(home, &target.parse().expect("a URL"), inside);
    let hub = home("docker.io", "https://registry-1.docker.io", &["sso.example.com"]);
    for (target, inside, expected) in [
        ("https://cdn.example/x", false, Some(Reach::Public)),
        ("https://127.0.0.1/x", false, Some(Reach::Public)),
        ("http://cdn.example/x", false, None),
        ("https://user@cdn.example/x", false, None),
        ("ftp://cdn.example/x", false, None),
        ("https://registry-1.docker.io/x", false, Some(Reach::Home)),
        ("https://registry-1.docker.io:444/x", false, Some(Reach::Public)),
        ("https://auth.docker.io/token", false, Some(Reach::Named)),
        ("https://sso.example.com/x", false, Some(Reach::Named)),
        ("https://cdn.example/x", true, Some(Reach::Named)),
    ] {
        assert_eq!(reach(&hub, target, inside), expected, "{target}");
    }
    for url in ["http://127.0.0.1:7000", "http://registry.example", "https://10.0.0.1", "https://[::1]:5000"]
    {
        assert_eq!(
            reach(&home("r", url, &[]), "http://127.0.0.1:7001/x", false),
            Some(Reach::Named),
            "{url}"
        );
    }
    for url in ["https://1.1.1.1", "https://registry.example"] {
        assert_eq!(reach(&home("r", url, &[]), "https://10.0.0.1/x", false), Some(Reach::Public), "{url}");
    }
}

#[test]
fn an_account_of_a_well_known_registry_goes_to_its_own_token_service_alone() {
    for (registry, realm, other) in [
        ("docker.io", "https://auth.docker.io/token", "https://ghcr.io/token"),
        ("nvcr.io", "https://authn.nvidia.com/token", "https://auth.docker.io/token"),
        ("lscr.io", "https://ghcr.io/token", "https://ghcr.io/v2/"),
        ("registry.gitlab.com", "https://gitlab.com/jwt/auth", "https://gitlab.com/group/page"),
    ] {
        let home = home(registry, &format!("https://{registry}"), &[]);
        assert!(allowed(&home, realm), "{registry}: {realm}");
        assert!(!allowed(&home, other), "{registry}: {other}");
        assert!(!allowed(&home, &realm.replace("https:", "http:")), "{registry}: unencrypted");
    }
    for registry in ["ghcr.io", "quay.io", "registry.k8s.io", "us.gcr.io", "registry.example"] {
        let home = home(registry, &format!("https://{registry}"), &[]);
        assert!(allowed(&home, &format!("https://{registry}/token")), "{registry}");
        assert!(!allowed(&home, "https://auth.docker.io/token"), "{registry}");
    }
}
