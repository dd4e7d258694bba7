//! The part of the reference that says what becomes of registry:2's configuration, made from the table.

use std::fmt::Write;

use super::table::{Becomes, ROWS, Row};
use crate::config::keys;

const HEAD: &str = "
## What becomes of registry:2's and registry:3's configuration

Their `config.yml` is read as it is, and so is their environment, variables over the file. `stopover check config.yml` says
what is in force. A key in this table sets what stands beside it; is ignored, since nothing is lost; is ignored with a
warning, where somebody may miss it; or is refused, and nothing is started, where the mirror would be another one than is
meant. Values are read as there: a bare number is a duration in nanoseconds, lists and maps may be written in a variable
as YAML, `REGISTRY_HTTP_TLS_CLIENTCAS_0` is the first of a list. An unknown key or variable is ignored, as there, with a
warning.

A `config.yml` also sets, where it says nothing else, what a registry does by itself: `admin.addr = \"off\"`,
`log.format = \"text\"` and `log.combined = true`. Without `proxy.remoteurl` it is refused: a mirror takes no pushes.

| key in `config.yml` | variable | what becomes of it |
|---|---|---|
";

/// Returns the section as Markdown.
pub(in crate::config) fn reference() -> String {
    let mut text = HEAD.to_owned();
    for row in ROWS {
        writeln!(text, "| `{}` | `{}` | {} |", row.path, row.variable(), outcome(row))
            .expect("writing to a string cannot fail");
    }
    text
}

fn outcome(row: &Row) -> String {
    let key_of = |variable: &str| {
        let key = keys::all().find(|key| key.registry == Some(variable));
        key.expect("a test says so").path()
    };
    let sets = |note: &str| format!("`{}`{note}", key_of(&row.variable()));
    match row.becomes() {
        Becomes::Key => sets(note(row.path)),
        Becomes::Formatter => sets("; `logstash` means `json`"),
        Becomes::Access => sets(", of which it is the opposite"),
        Becomes::Http2 => sets(", of which it is the opposite"),
        Becomes::Address => sets("; a path where `http.net` is `unix`"),
        Becomes::Network => "says how `http.addr` is meant: `tcp` or `unix`".to_owned(),
        Becomes::Level => "`log.level`, where that is not set".to_owned(),
        Becomes::LetsEncrypt => "refused, unless `http.tls.certificate` is set, as there".to_owned(),
        Becomes::Ignored(why) => format!("ignored: {why}"),
        Becomes::Warned(why) => format!("warning: {why}"),
        Becomes::Refused(instead) => format!("refused: {instead}"),
    }
}

fn note(path: &str) -> &'static str {
    match path {
        "proxy.remoteurl" => "; `upstream.registry` follows it where a well-known registry is there",
        "proxy.ttl" => "; counts from the last use; 0, less and not set mean never",
        _ => "",
    }
}
