//! The kinds of values: for each, where it stands in [`Config`], how it is checked and how it is shown.
//!
//! A secret is checked and set like any other value and never shown, neither as found nor as set.

mod lane;

use std::{path::PathBuf, time::Duration};

use http::{HeaderName, HeaderValue};
use oci::RepositoryName;

pub(super) use lane::LaneField;

use super::{
    pairs, units,
    used::{Address, ClientAuth, Config, Format, Level, Secret, TlsVersion},
};

/// What shows where a secret is.
const MASK: &str = "***";
/// How much of a wrong value a message repeats, in characters.
const FOUND_CHARS_MAX: usize = 80;
/// How many addresses or hosts a list may have.
const LIST_LEN_MAX: usize = 64;

/// The place of a value in the configuration, or in a table of it.
type Of<C, T> = fn(&mut C) -> &mut T;

/// A kind of value, with its place and its limits.
pub(super) enum Field<C: 'static = Config> {
    /// A duration from `min` to `max`.
    Duration { of: Of<C, Duration>, min: Duration, max: Duration },
    /// A duration, where 0 is "never".
    DurationOrNever(Of<C, Option<Duration>>),
    /// A duration, where 0 means something, and so does not setting it.
    DurationIfSet(Of<C, Option<Duration>>),
    /// A number of bytes, at most `max`.
    Size { of: Of<C, u64>, max: u64 },
    /// A number from `min` to `max`.
    Count { of: Of<C, usize>, min: usize, max: usize },
    /// Yes or no.
    Flag(Of<C, bool>),
    /// A folder.
    Path(Of<C, PathBuf>),
    /// A file.
    File(Of<C, Option<PathBuf>>),
    /// Files.
    Files(Of<C, Vec<PathBuf>>),
    /// The bits of a file's mode, in octal.
    Mode(Of<C, u32>),
    /// A path that a URL may have.
    UrlPath(Of<C, String>),
    /// At least one address to listen on.
    Listen(Of<C, Vec<Address>>),
    /// Addresses to listen on, or none.
    ListenIfSet(Of<C, Vec<Address>>),
    /// An address to listen on, or `off`.
    ListenOrOff(Of<C, Option<Address>>),
    /// A version of TLS.
    TlsVersion(Of<C, TlsVersion>),
    /// Whether a client must show a certificate.
    ClientAuth(Of<C, ClientAuth>),
    /// How much is logged.
    Level(Of<C, Level>),
    /// How it is logged.
    Format(Of<C, Format>),
    /// A host with an optional port.
    Host(Of<C, String>),
    /// Hosts with optional ports.
    Hosts(Of<C, Vec<String>>),
    /// Hosts without ports.
    HostNames(Of<C, Vec<String>>),
    /// Names that are one part of a path.
    Names(Of<C, Vec<String>>),
    /// The beginning of a path; the empty one is "not set".
    Prefix(Of<C, Option<String>>),
    /// A registry's URL.
    Url(Of<C, String>),
    /// The name of a repository, or the beginning of one; the empty one is "not set".
    Repository(Of<C, Option<RepositoryName>>),
    /// A text; the empty one is "not set".
    Text(Of<C, Option<String>>),
    /// A text that is never shown; the empty one is "not set".
    Secret(Of<C, Option<Secret>>),
    /// Names with a text each.
    Pairs(Of<C, Vec<(String, String)>>),
    /// Headers of answers.
    Headers(Of<C, Vec<(HeaderName, HeaderValue)>>),
    /// What lanes to a registry are made of.
    Lane(LaneField<C>),
}

/// A value as written.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// A string.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// `true` or `false`.
    Flag(bool),
    /// An array.
    List(Vec<Value>),
    /// A table; TOML's is by name.
    Table(Vec<(String, Value)>),
    /// Something that no key takes, by its name.
    Other(&'static str),
}

impl Value {
    /// Returns the list that stands in one text, with commas.
    fn split(text: &str) -> Self {
        Self::List(text.split(',').map(|part| Self::Text(part.trim().to_owned())).collect())
    }

    /// Returns the value as a message names it.
    fn found(&self) -> String {
        match self {
            Self::Text(text) if text.chars().nth(FOUND_CHARS_MAX).is_some() => {
                format!("{:?}...", text.chars().take(FOUND_CHARS_MAX).collect::<String>())
            }
            Self::Text(text) => format!("{text:?}"),
            Self::Integer(number) => number.to_string(),
            Self::Flag(flag) => flag.to_string(),
            Self::List(_) => "a list".to_owned(),
            Self::Table(_) => "a table".to_owned(),
            Self::Other(name) => (*name).to_owned(),
        }
    }

    /// Returns what kind of value it is, for where the value must not be shown.
    fn found_kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a text (not shown)",
            Self::Integer(_) => "a number (not shown)",
            Self::Flag(_) => "a boolean (not shown)",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Other(name) => name,
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Returns every element of a list, or the one value, through `read`.
    fn each<T>(&self, read: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
        match self {
            Self::List(list) if list.len() <= LIST_LEN_MAX => {
                list.iter().map(|value| value.text().and_then(&read)).collect()
            }
            Self::Text(text) => Some(vec![read(text)?]),
            _ => None,
        }
    }
}

impl<C: 'static> Field<C> {
    /// Checks `value` and sets it in `config`; otherwise returns what was found, as a message names it.
    pub(super) fn set(&self, config: &mut C, value: &Value) -> Result<(), String> {
        self.try_set(config, value).ok_or_else(|| self.found(value))
    }

    fn try_set(&self, config: &mut C, value: &Value) -> Option<()> {
        match self {
            Self::Duration { of, min, max } => {
                *of(config) = duration(value).filter(|found| (min..=max).contains(&found))?;
            }
            Self::DurationOrNever(of) => {
                *of(config) = Some(duration(value)?).filter(|found| !found.is_zero())
            }
            Self::DurationIfSet(of) => *of(config) = Some(duration(value)?),
            Self::Size { of, max } => *of(config) = size(value).filter(|found| found <= max)?,
            Self::Count { of, min, max } => {
                let Value::Integer(number) = value else {
                    return None;
                };
                *of(config) = usize::try_from(*number).ok().filter(|found| (min..=max).contains(&found))?;
            }
            Self::Flag(of) => {
                let Value::Flag(flag) = value else { return None };
                *of(config) = *flag;
            }
            Self::Path(of) => *of(config) = value.text().filter(|text| path_right(text))?.into(),
            Self::File(of) => *of(config) = Some(value.text().filter(|text| path_right(text))?.into()),
            Self::Files(of) => *of(config) = value.each(|text| path_right(text).then(|| text.into()))?,
            Self::Mode(of) => *of(config) = mode(value.text()?)?,
            Self::UrlPath(of) => *of(config) = value.text().filter(|text| url_path_right(text))?.to_owned(),
            Self::Listen(of) => *of(config) = value.each(units::listen).filter(|list| !list.is_empty())?,
            Self::ListenIfSet(of) => *of(config) = value.each(units::listen)?,
            Self::TlsVersion(of) => *of(config) = tls_version(value.text()?)?,
            Self::ClientAuth(of) => *of(config) = client_auth(value.text()?)?,
            Self::ListenOrOff(of) => {
                let text = value.text()?;
                *of(config) = if text == "off" { None } else { Some(units::listen(text)?) };
            }
            Self::Level(of) => *of(config) = level(value.text()?)?,
            Self::Format(of) => *of(config) = format(value.text()?)?,
            Self::Host(of) => *of(config) = units::host(value.text()?)?,
            Self::Hosts(of) => *of(config) = value.each(units::host)?,
            Self::HostNames(of) => *of(config) = value.each(units::host_name)?,
            Self::Names(of) => *of(config) = value.each(units::path_part)?,
            Self::Prefix(of) => *of(config) = units::path_prefix(value.text()?)?,
            Self::Url(of) => *of(config) = units::url(value.text()?)?,
            Self::Repository(of) => {
                *of(config) = match text(value)? {
                    None => None,
                    Some(name) => Some(name.parse().ok()?),
                };
            }
            Self::Text(of) => *of(config) = text(value)?,
            Self::Secret(of) => *of(config) = text(value)?.map(Secret::new),
            Self::Pairs(of) => *of(config) = pairs::read(value)?,
            Self::Headers(of) => *of(config) = pairs::headers(value)?,
            Self::Lane(field) => field.set(config, value)?,
        }
        Some(())
    }

    /// Returns what was found, without what may be a secret.
    fn found(&self, value: &Value) -> String {
        match (self, value) {
            (Self::Secret(_), _) => value.found_kind().to_owned(),
            (Self::Lane(field), _) => field.found(value),
            // People write accounts and signatures into URLs.
            (Self::Url(_) | Self::Host(_), Value::Text(text)) if text.contains(['@', '?', '#']) => {
                "one with a user name, a password or a query in it (not shown)".to_owned()
            }
            (Self::Hosts(_) | Self::HostNames(_), _)
                if value.each(|text| (!text.contains(['@', '?', '#'])).then_some(())).is_none() =>
            {
                value.found_kind().to_owned()
            }
            _ => value.found(),
        }
    }

    /// Returns what the field takes, as a message and the reference name it.
    pub(super) fn expected(&self) -> String {
        match self {
            Self::Duration { min, max, .. } => {
                let (from, to) = (units::show_duration(*min), units::show_duration(*max));
                let range =
                    if min.is_zero() { format!("up to {to}") } else { format!("from {from} to {to}") };
                let examples = match max.as_secs() {
                    ..=3_600 => "\"500ms\" or \"3s\"",
                    3_601..=86_400 => "\"30s\" or \"1h30m\"",
                    _ => "\"60s\", \"1h30m\" or \"7d\"",
                };
                format!("a duration {range}, such as {examples}")
            }
            Self::DurationOrNever(_) => "a duration such as \"12h\" or \"7d\", or \"0\" for never".to_owned(),
            Self::DurationIfSet(_) => "a duration such as \"12h\" or \"7d\", or \"0\"".to_owned(),
            Self::Size { max, .. } => {
                format!("a size up to {}, such as \"64MiB\" or \"1GiB\"", units::show_size(*max))
            }
            Self::Count { min, max, .. } => format!("a whole number from {min} to {max}"),
            Self::Flag(_) => "true or false".to_owned(),
            Self::Path(_) => "the path of a folder".to_owned(),
            Self::Files(_) => "the path of a file, or a list of them".to_owned(),
            Self::Mode(_) => "an octal mode in quotes, such as \"0660\"".to_owned(),
            Self::TlsVersion(_) => "tls1.2 or tls1.3".to_owned(),
            Self::ClientAuth(_) => "required or optional".to_owned(),
            Self::UrlPath(_) => "a path such as \"/metrics\", of letters, digits and -._/".to_owned(),
            Self::Listen(_) | Self::ListenIfSet(_) => {
                "an address such as \"127.0.0.1:5000\", \"[::1]:5000\", \":5000\" or \"unix:/run/x.sock\", or a list of them"
                    .to_owned()
            }
            Self::ListenOrOff(_) => "an address such as \"127.0.0.1:5001\", or \"off\"".to_owned(),
            Self::Level(_) => "\"error\", \"warn\", \"info\" or \"debug\"".to_owned(),
            Self::Format(_) => "\"auto\", \"text\" or \"json\"".to_owned(),
            Self::Host(_) => "a host such as \"docker.io\" or \"registry.example:5000\"".to_owned(),
            Self::Hosts(_) => "a list of hosts such as [\"auth.example\", \"auth.example:8443\"]".to_owned(),
            Self::Url(_) => "a scheme, a host and maybe a port and a path without \"/v2\", such as \
                             \"https://registry-1.docker.io\""
                .to_owned(),
            Self::File(_) => "the path of a file".to_owned(),
            Self::Repository(_) => "a name as repositories have, such as \"proxy/docker\"".to_owned(),
            Self::HostNames(_) => "a list of hosts without ports, such as [\"ghcr.mirror.example\"]".to_owned(),
            Self::Names(_) => {
                "a list of names in lower case without slashes, such as [\"hub\"], and neither \"v2\" nor \"library\"".to_owned()
            }
            Self::Prefix(_) => "a path in lower case, such as \"/mirrors/oci/\", with neither \"v2\" in it nor \"library\" first".to_owned(),
            Self::Text(_) | Self::Secret(_) => "a text without control characters".to_owned(),
            Self::Pairs(_) => pairs::EXPECTED.to_owned(),
            Self::Headers(_) => pairs::HEADERS_EXPECTED.to_owned(),
            Self::Lane(field) => field.expected(),
        }
    }

    /// Returns the value in `config` as it would stand in the file; `None` where it is not set.
    pub(super) fn show(&self, config: &mut C) -> Option<String> {
        Some(match self {
            Self::Duration { of, .. } => quoted(&units::show_duration(*of(config))),
            Self::DurationOrNever(of) => quoted(&units::show_duration(of(config).unwrap_or_default())),
            Self::DurationIfSet(of) => quoted(&units::show_duration((*of(config))?)),
            Self::Size { of, .. } => quoted(&units::show_size(*of(config))),
            Self::Count { of, .. } => of(config).to_string(),
            Self::Flag(of) => of(config).to_string(),
            Self::Path(of) => quoted(&of(config).to_string_lossy()),
            Self::UrlPath(of) => quoted(of(config)),
            Self::Files(of) if of(config).is_empty() => return None,
            Self::Files(of) => list(of(config).iter().map(|path| quoted(&path.to_string_lossy())).collect()),
            Self::Mode(of) => quoted(&format!("{:04o}", of(config))),
            Self::TlsVersion(of) => quoted(of(config).as_str()),
            Self::ClientAuth(of) => quoted(of(config).as_str()),
            Self::ListenIfSet(of) if of(config).is_empty() => return None,
            Self::Listen(of) | Self::ListenIfSet(of) => match of(config).as_slice() {
                [one] => quoted(&one.to_string()),
                all => list(all.iter().map(|addr| quoted(&addr.to_string())).collect()),
            },
            Self::ListenOrOff(of) => {
                quoted(&of(config).as_ref().map_or("off".to_owned(), Address::to_string))
            }
            Self::Level(of) => quoted(of(config).as_str()),
            Self::Format(of) => quoted(of(config).as_str()),
            Self::Host(of) | Self::Url(of) => quoted(of(config)),
            Self::Hosts(of) | Self::HostNames(of) | Self::Names(of) => {
                list(of(config).iter().map(|host| quoted(host)).collect())
            }
            Self::Prefix(of) => quoted(&format!("/{}/", of(config).as_deref()?)),
            Self::File(of) => quoted(&of(config).as_deref()?.to_string_lossy()),
            Self::Repository(of) => quoted(of(config).as_ref()?.as_str()),
            Self::Text(of) => quoted(of(config).as_deref()?),
            Self::Secret(of) => of(config).as_ref().map(|_| quoted(MASK))?,
            Self::Pairs(of) => pairs::show(of(config).iter().map(|(name, text)| (&**name, &**text))),
            Self::Headers(of) => pairs::show_headers(of(config)),
            Self::Lane(field) => return field.show(config),
        })
    }

    /// Returns the value that `text` from the environment, where all is text, stands for.
    pub(super) fn read(&self, text: &str) -> Value {
        let written = || Value::Text(text.to_owned());
        match self {
            Self::Count { .. } => text.parse().map_or_else(|_| written(), Value::Integer),
            Self::Flag(_) => text.parse().map_or_else(|_| written(), Value::Flag),
            Self::Hosts(_) | Self::HostNames(_) | Self::Names(_) | Self::Files(_) | Self::ListenIfSet(_)
                if text.is_empty() =>
            {
                Value::List(Vec::new())
            }
            Self::Listen(_)
            | Self::ListenIfSet(_)
            | Self::Files(_)
            | Self::Hosts(_)
            | Self::HostNames(_)
            | Self::Names(_)
                if text.contains(',') =>
            {
                Value::split(text)
            }
            Self::Pairs(_) | Self::Headers(_) => pairs::split(text),
            Self::Lane(field) => field.read(text),
            _ => written(),
        }
    }
}

/// Returns a text as it stands in the file.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// Returns values as a list of them stands in the file.
fn list(values: Vec<String>) -> String {
    format!("[{}]", values.join(", "))
}

fn duration(value: &Value) -> Option<Duration> {
    match value {
        Value::Integer(0) => Some(Duration::ZERO),
        value => units::duration(value.text()?),
    }
}

fn size(value: &Value) -> Option<u64> {
    match value {
        Value::Integer(bytes) => u64::try_from(*bytes).ok(),
        Value::Text(text) => text.parse().ok().or_else(|| units::size(text)),
        _ => None,
    }
}

fn path_right(text: &str) -> bool {
    !text.is_empty() && !text.contains('\0')
}

fn mode(text: &str) -> Option<u32> {
    let digits = text.len() <= 4 && text.bytes().all(|byte| byte.is_ascii_digit());
    u32::from_str_radix(text, 8).ok().filter(|mode| digits && *mode <= 0o777)
}

fn tls_version(text: &str) -> Option<TlsVersion> {
    [TlsVersion::Tls12, TlsVersion::Tls13].into_iter().find(|version| text == version.as_str())
}

/// Takes registry:2's words as well; its two others ask for a certificate and do not verify it.
fn client_auth(text: &str) -> Option<ClientAuth> {
    match text {
        "required" | "require-and-verify-client-cert" => Some(ClientAuth::Required),
        "optional" | "verify-client-cert-if-given" => Some(ClientAuth::Optional),
        _ => None,
    }
}

fn url_path_right(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    text.strip_prefix('/').is_some_and(|path| {
        path.split('/').all(|part| !matches!(part, "" | "." | "..") && part.bytes().all(plain))
    })
}

/// Returns a text; the empty one is `Some(None)`, "not set".
fn text(value: &Value) -> Option<Option<String>> {
    let text = value.text().filter(|text| !text.contains(char::is_control))?;
    Some((!text.is_empty()).then(|| text.to_owned()))
}

fn level(text: &str) -> Option<Level> {
    [Level::Error, Level::Warn, Level::Info, Level::Debug]
        .into_iter()
        .find(|level| text.eq_ignore_ascii_case(level.as_str()))
}

fn format(text: &str) -> Option<Format> {
    [Format::Auto, Format::Text, Format::Json]
        .into_iter()
        .find(|format| text.eq_ignore_ascii_case(format.as_str()))
}
