//! The one line that each request writes.
//!
//! It goes by no macro and takes no allocation, since it stands on the way of every pull. It promises never to show a
//! query, and so no signature; the rest of what it shows is the caller's to choose.

use std::{net::SocketAddr, time::Duration};

use super::{
    combined,
    line::{Form, Line},
    sink::Sink,
};

/// How much is shown of a text that a client chose, in bytes.
const FOREIGN_BYTES_MAX: usize = 256;

/// What there is to say of one request. What is `None` is left out.
#[derive(Clone, Copy, Debug)]
pub struct AccessLine<'a> {
    /// The method, as sent.
    pub method: &'a str,
    /// The path, where it could not be read as repository and reference; a query behind it is cut off.
    pub path: Option<&'a str>,
    /// The repository by its full name.
    pub repository: Option<&'a str>,
    /// The tag or digest that was asked for.
    pub reference: Option<&'a str>,
    /// The digest of what was sent.
    pub digest: Option<&'a str>,
    /// The HTTP status.
    pub status: u16,
    /// The bytes of the body that were sent.
    pub bytes: u64,
    /// How it was answered, in an outcome's word.
    pub outcome: Option<&'a str>,
    /// The registry that was asked, if one was.
    pub upstream: Option<&'a str>,
    /// The lane that it answered by: an account and a way out, by their names in the configuration.
    pub lane: Option<&'a str>,
    /// Why it failed, for people; no secret and no signed URL.
    pub error: Option<&'a str>,
    /// The time from the request to the last byte.
    pub duration: Duration,
    /// Who asked; `None` where the request came by a unix socket.
    pub client: Option<SocketAddr>,
    /// The kind of listener that it came by: `tcp`, which is not shown, `tls` or `unix`.
    pub listener: &'a str,
    /// The user whose password was right, where not everybody may pull.
    pub user: Option<&'a str>,
    /// The client's program, as it says.
    pub user_agent: Option<&'a [u8]>,
    /// What names this request to the client and in other lines.
    pub request_id: Option<&'a str>,
    /// The request as sent, for the line in Apache's format; `None` where it was none.
    pub requested: Option<Requested<'a>>,
}

/// What a request says of itself.
#[derive(Clone, Copy, Debug)]
pub struct Requested<'a> {
    /// The path without its query.
    pub path: &'a str,
    /// The version, such as `HTTP/1.1`.
    pub version: &'static str,
    /// The page that it comes from, as it says.
    pub referer: Option<&'a [u8]>,
}

/// Writes the line of each request; clones share the log.
#[derive(Clone)]
pub struct AccessLog {
    pub(super) to: Option<(Sink, Form)>,
    /// Where lines in Apache's format go.
    pub(super) combined: Option<Sink>,
}

impl AccessLog {
    /// Returns a log that writes nothing.
    pub fn off() -> Self {
        Self { to: None, combined: None }
    }

    /// Returns whether lines are written: where not, they need not be put together.
    pub fn is_on(&self) -> bool {
        self.to.is_some() || self.combined.is_some()
    }

    /// Returns whether lines in Apache's format are written, which need [`AccessLine::requested`].
    pub fn is_combined(&self) -> bool {
        self.combined.is_some()
    }

    /// Writes the line. Never waits.
    pub fn write(&self, line: &AccessLine<'_>) {
        if let Some((sink, form)) = &self.to {
            sink.line(|out| write(out, form, line));
        }
        if let Some(sink) = &self.combined {
            sink.line(|out| combined::write(out, line));
        }
    }
}

fn write(out: &mut Vec<u8>, form: &Form, access: &AccessLine<'_>) {
    let mut line = Line::begin(out, form, "info", "response completed");
    line.foreign("method", access.method.as_bytes(), FOREIGN_BYTES_MAX);
    if let Some(path) = access.path {
        let path = path.split(['?', '#']).next().unwrap_or_default();
        line.foreign("path", path.as_bytes(), FOREIGN_BYTES_MAX);
    }
    for (key, value) in
        [("repository", access.repository), ("reference", access.reference), ("digest", access.digest)]
    {
        if let Some(value) = value {
            line.text(key, value);
        }
    }
    line.number("status", access.status.into());
    line.number("bytes", access.bytes);
    for (key, value) in [("outcome", access.outcome), ("upstream", access.upstream), ("lane", access.lane)] {
        if let Some(value) = value {
            line.text(key, value);
        }
    }
    if let Some(error) = access.error {
        line.foreign("error", error.as_bytes(), FOREIGN_BYTES_MAX);
    }
    line.seconds("duration", access.duration);
    match access.client {
        Some(address) => line.address("client", address),
        None => line.text("client", "unix"),
    }
    if access.listener != "tcp" {
        line.text("listener", access.listener);
    }
    if let Some(user) = access.user {
        line.foreign("user", user.as_bytes(), FOREIGN_BYTES_MAX);
    }
    if let Some(user_agent) = access.user_agent {
        line.foreign("user_agent", user_agent, FOREIGN_BYTES_MAX);
    }
    if let Some(request_id) = access.request_id {
        line.foreign("request_id", request_id.as_bytes(), FOREIGN_BYTES_MAX);
    }
    line.end();
}

#[cfg(test)]
mod tests {
    use super::{super::Style, *};

    const PULL: AccessLine<'static> = AccessLine {
        method: "GET",
        path: None,
        repository: Some("library/alpine"),
        reference: Some("3.20"),
        digest: Some("sha256:ab"),
        status: 200,
        bytes: 1_853,
        outcome: Some("hit"),
        upstream: None,
        lane: None,
        error: None,
        duration: Duration::from_micros(12_345),
        client: Some(SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 40_000)),
        listener: "tcp",
        user: None,
        user_agent: Some(b"docker/28.0 go/1.24 \"x\""),
        request_id: Some("7f-1"),
        requested: None,
    };

    /// Returns the line without its time, which is checked for its shape.
    fn written(style: Style, line: &AccessLine<'_>) -> String {
        let mut out = Vec::new();
        write(&mut out, &Form::new(style, &[]), line);
        let text = String::from_utf8(out).unwrap();
        let (time, rest) = match style {
            Style::Json => text.strip_prefix("{\"time\":\"").unwrap().split_once("\",").unwrap(),
            Style::Text => text.strip_prefix("time=").unwrap().split_once(' ').unwrap(),
        };
        assert_eq!((time.len(), &time[10..11], &time[19..20], &time[23..]), (24, "T", ".", "Z"), "{time}");
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        rest.to_owned()
    }

    #[test]
    fn a_hit_is_one_line_of_text() {
        let want = "level=info msg=\"response completed\" method=GET repository=library/alpine reference=3.20 \
                    digest=sha256:ab status=200 bytes=1853 outcome=hit duration=0.012 client=127.0.0.1:40000 \
                    user_agent=\"docker/28.0 go/1.24 \\\"x\\\"\" request_id=7f-1\n";
        assert_eq!(written(Style::Text, &PULL), want);
    }

    #[test]
    fn a_fill_is_one_object_of_json() {
        let (outcome, upstream) = (Some("filled"), Some("docker.io"));
        let fill = AccessLine { outcome, upstream, lane: Some("ann via office"), ..PULL };
        let want = "\"level\":\"info\",\"msg\":\"response completed\",\"method\":\"GET\",\"repository\":\"library/alpine\",\
                    \"reference\":\"3.20\",\"digest\":\"sha256:ab\",\"status\":200,\"bytes\":1853,\"outcome\":\"filled\",\
                    \"upstream\":\"docker.io\",\"lane\":\"ann via office\",\"duration\":0.012,\"client\":\"127.0.0.1:40000\",\
                    \"user_agent\":\"docker/28.0 go/1.24 \\\"x\\\"\",\"request_id\":\"7f-1\"}\n";
        assert_eq!(written(Style::Json, &fill), want);
        assert!(serde_json::from_str::<serde_json::Value>(&format!("{{{want}")).is_ok());
    }

    #[test]
    fn the_kind_of_listener_is_shown_where_it_is_not_plain_tcp() {
        let written = |line: AccessLine<'_>| written(Style::Text, &line);
        let tls = written(AccessLine { listener: "tls", ..PULL });
        assert!(tls.contains(" client=127.0.0.1:40000 listener=tls "), "{tls}");
        let unix = written(AccessLine { client: None, listener: "unix", ..PULL });
        assert!(unix.contains(" client=unix listener=unix "), "{unix}");
    }

    #[test]
    fn a_path_shows_neither_its_query_nor_more_than_its_beginning() {
        let long = format!("/v2/{}?token=hunter2", "x".repeat(1_000));
        let line = AccessLine {
            path: Some(&long),
            repository: None,
            reference: None,
            digest: None,
            outcome: None,
            status: 404,
            error: Some("no such\npath"),
            user_agent: Some(&[b'a'; 1_000]),
            request_id: None,
            ..PULL
        };
        let text = written(Style::Text, &line);
        let want = format!(
            "level=info msg=\"response completed\" method=GET path=/v2/{} status=404 bytes=1853 \
             error=\"no such\\npath\" duration=0.012 client=127.0.0.1:40000 user_agent={}\n",
            "x".repeat(FOREIGN_BYTES_MAX - 4),
            "a".repeat(FOREIGN_BYTES_MAX)
        );
        assert_eq!(text, want);
        let short = AccessLine { path: Some("/v2/a b?sig=hunter2"), ..line };
        assert!(!written(Style::Json, &short).contains("hunter2"));
    }
}
