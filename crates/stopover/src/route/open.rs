//! Which hosts a client may name that nobody has configured, where `route.open` is set: by their spelling alone.
//!
//! Pure. What passes is a name of the public DNS as plain as can be, with one spelling: lower case, no port, no dot at
//! its end, no address in any notation. Whether it leads inside is not known here: `egress` looks at its addresses.

/// The longest name (RFC 1035), in bytes.
const NAME_BYTES_MAX: usize = 253;
/// The longest label, in bytes.
const LABEL_BYTES_MAX: usize = 63;

/// Last labels that are no part of the public DNS (RFC 6761, 6762, 7686, 8375, 9476, ICANN's `internal`), and some that
/// inner networks are fond of.
const NOT_PUBLIC: &[&str] = &[
    "alt",
    "arpa",
    "corp",
    "example",
    "home",
    "internal",
    "intranet",
    "invalid",
    "lan",
    "local",
    "localdomain",
    "localhost",
    "onion",
    "private",
    "test",
];

/// Returns whether this may be the name of a registry on the internet.
///
/// International names are let in as `xn--` labels, which are plain ASCII and mean one thing.
pub fn is_public_host(name: &str) -> bool {
    let Some((_, last)) = name.rsplit_once('.') else { return false };
    name.len() <= NAME_BYTES_MAX
        && name.split('.').all(is_label)
        // No address: every notation of IPv4, such as 127.1 or 0x7f.0.0.1, ends in a label that begins with a digit.
        && last.starts_with(|first: char| first.is_ascii_lowercase())
        && last.len() > 1
        && !NOT_PUBLIC.contains(&last)
}

fn is_label(label: &str) -> bool {
    (1..=LABEL_BYTES_MAX).contains(&label.len())
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_public_dns_are_let_in() {
        let long = format!("{0}.{0}.{0}.{1}.io", "a".repeat(63), "b".repeat(58));
        assert_eq!(long.len(), NAME_BYTES_MAX);
        for name in
            ["quay.io", "a.b", "registry.example.com", "xn--bcher-kva.de", "x.xn--p1ai", "1.2.3.io", &long]
        {
            assert_eq!(is_public_host(name), name != "a.b", "{name}");
        }
    }

    #[test]
    fn what_is_odd_or_inside_is_not() {
        let label = format!("{}.io", "a".repeat(64));
        let long = format!("{0}.{0}.{0}.{1}.io", "a".repeat(63), "b".repeat(59));
        for name in [
            "",
            ".",
            "..",
            "io",
            "quay.io.",
            ".quay.io",
            "quay..io",
            "QUAY.io",
            "quay.IO",
            "quay_x.io",
            "-a.io",
            "a-.io",
            "a.-io",
            "a.io-",
            "localhost",
            "a.localhost",
            "printer.local",
            "metadata.google.internal",
            "a.home.arpa",
            "a.lan",
            "a.test",
            "a.example",
            "a.onion",
            "quay.io:443",
            "quay.io:22",
            "user@quay.io",
            "quay.io/x",
            "quay.io?x",
            "quay.io#x",
            "quay.io\\x",
            "http://quay.io",
            "[::1]",
            "::1",
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0177.0.0.1",
            "0x7f.0.0.1",
            "1.2.3.4.",
            "a.1",
            "a.0x1",
            "qu%61y.io",
            "quay.io%00",
            "b\u{fc}cher.de",
            "\u{2488}.io",
            "quay\u{3002}io",
            "quay.io ",
            " quay.io",
            "*.io",
            "a,b.io",
            &label,
            &long,
        ] {
            assert!(!is_public_host(name), "{name:?}");
        }
    }
}
