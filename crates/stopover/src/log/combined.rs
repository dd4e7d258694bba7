//! The line of a request in Apache's combined format, as registry:2 writes it to standard output.
//!
//! It promises what [`Line`](super::line::Line) does: one line, no control characters, no query.

use std::io::Write;

use super::{
    access::AccessLine,
    line::{cut, write_escaped},
    time,
};

/// How much is shown of a text that a client chose, in bytes.
const FOREIGN_BYTES_MAX: usize = 512;

/// Writes the line. What is not known is `-`.
pub(super) fn write(out: &mut Vec<u8>, access: &AccessLine<'_>) {
    match access.client {
        Some(client) => write!(out, "{} - ", client.ip().to_canonical()),
        // Who comes by a unix socket has no address.
        None => write!(out, "- - "),
    }
    .expect("writing to memory cannot fail");
    foreign(out, access.user.unwrap_or("-").as_bytes());
    out.extend_from_slice(b" [");
    time::write_day_and_time(out);
    out.extend_from_slice(b"] \"");
    match &access.requested {
        Some(requested) => {
            foreign(out, access.method.as_bytes());
            out.push(b' ');
            foreign(out, requested.path.split('?').next().unwrap_or_default().as_bytes());
            write!(out, " {}", requested.version).expect("writing to memory cannot fail");
        }
        None => out.push(b'-'),
    }
    write!(out, "\" {} {}", access.status, access.bytes).expect("writing to memory cannot fail");
    let referer = access.requested.and_then(|requested| requested.referer);
    let referer = referer.and_then(|page| page.split(|byte| b"?#".contains(byte)).next());
    for text in [referer, access.user_agent] {
        out.extend_from_slice(b" \"");
        foreign(out, text.unwrap_or_default());
        out.push(b'"');
    }
    out.push(b'\n');
}

fn foreign(out: &mut Vec<u8>, text: &[u8]) {
    match std::str::from_utf8(text) {
        Ok(text) => write_escaped(out, cut(text, FOREIGN_BYTES_MAX)),
        Err(_) => write_escaped(out, cut(&String::from_utf8_lossy(text), FOREIGN_BYTES_MAX)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{super::Requested, *};

    #[test]
    fn a_request_is_a_line_as_apache_writes_it() {
        let line = AccessLine {
            method: "GET",
            path: None,
            repository: Some("library/alpine"),
            reference: Some("3.20"),
            digest: None,
            status: 200,
            bytes: 1_853,
            outcome: Some("hit"),
            upstream: None,
            lane: None,
            error: None,
            duration: Duration::ZERO,
            client: Some("[::ffff:10.0.0.7]:40000".parse().unwrap()),
            listener: "tcp",
            user: None,
            user_agent: Some(b"docker/28.0 \"x\"\n"),
            request_id: None,
            requested: Some(Requested {
                path: "/v2/library/alpine/manifests/3.20?ns=docker.io",
                version: "HTTP/1.1",
                referer: Some(b"https://a.example/b?token=hunter2"),
            }),
        };
        let written = |line: &AccessLine<'_>| {
            let mut out = Vec::new();
            write(&mut out, line);
            let text = String::from_utf8(out).unwrap();
            let (before, rest) = text.split_once('[').unwrap();
            let (time, after) = rest.split_once(']').unwrap();
            assert_eq!(
                (time.len(), &time[2..3], &time[11..12], &time[20..]),
                (26, "/", ":", " +0000"),
                "{time}"
            );
            format!("{before}{after}")
        };
        assert_eq!(
            written(&line),
            "10.0.0.7 - -  \"GET /v2/library/alpine/manifests/3.20 HTTP/1.1\" 200 1853 \"https://a.example/b\" \"docker/28.0 \\\"x\\\"\\n\"\n"
        );
        let ann = AccessLine { user: Some("ann"), ..line };
        assert!(written(&ann).starts_with("10.0.0.7 - ann  \"GET "));
        let none = AccessLine { requested: None, user_agent: Some(b"\xff"), status: 400, bytes: 0, ..line };
        assert_eq!(written(&none), "10.0.0.7 - -  \"-\" 400 0 \"\" \"\u{fffd}\"\n");
    }
}
