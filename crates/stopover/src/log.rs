//! The log: lines of text or JSON on standard error, from `tracing` and from each request, and where that is wanted a line
//! of each request in Apache's format on standard output.
//!
//! It promises that writing never waits for whoever reads the log, that a line is one line whatever stands in it, and
//! that what was logged is written when the [`LogHandle`] goes. It knows nothing of requests beyond [`AccessLine`].

mod access;
mod combined;
mod line;
mod sink;
mod time;

use std::{
    fmt,
    io::{self, IsTerminal},
    time::Duration,
};

use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
};
use tracing_subscriber::{
    Layer, Registry,
    layer::{Context, SubscriberExt},
};

pub use access::{AccessLine, AccessLog, Requested};

use crate::{
    config::{self, Format},
    metrics::Metrics,
};
use line::{Form, Line};
use sink::Sink;

/// How long leaving waits for the last lines where nobody reads the log.
const FLUSH_PATIENCE: Duration = Duration::from_secs(2);
/// How much is shown of one field, in bytes.
const FIELD_BYTES_MAX: usize = 4 << 10;
/// What begins the targets of our own lines; of others' only warnings are shown.
const OURS: &str = "stopover";

/// What a line looks like, decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Text,
    Json,
}

/// The log while it is open: writes what is left when dropped.
pub struct LogHandle {
    sink: Sink,
    access: AccessLog,
}

/// Opens the log on standard error and makes it the one of this process; where there is one already, `tracing` keeps
/// to that.
///
/// Fails where the thread that writes cannot be started.
pub fn init(config: &config::Log, metrics: &Metrics) -> io::Result<LogHandle> {
    let style = match config.format {
        Format::Text => Style::Text,
        Format::Json => Style::Json,
        Format::Auto if io::stderr().is_terminal() => Style::Text,
        Format::Auto => Style::Json,
    };
    let sink = Sink::start(io::stderr(), metrics.log_lines_dropped.clone())?;
    let level = match config.level {
        config::Level::Error => LevelFilter::ERROR,
        config::Level::Warn => LevelFilter::WARN,
        config::Level::Info => LevelFilter::INFO,
        config::Level::Debug => LevelFilter::DEBUG,
    };
    let form = Form::new(style, &config.fields);
    let events = Events { sink: sink.clone(), form: form.clone(), level };
    // An error says that there is a subscriber already, which happens in tests only.
    let _already = tracing::subscriber::set_global_default(Registry::default().with(events));
    let access_on = config.access && level >= LevelFilter::INFO;
    let combined = match config.combined {
        true => Some(Sink::start(io::stdout(), metrics.log_lines_dropped.clone())?),
        false => None,
    };
    let access = AccessLog { to: access_on.then(|| (sink.clone(), form)), combined };
    Ok(LogHandle { sink, access })
}

impl LogHandle {
    /// Returns what writes the line of each request.
    pub fn access(&self) -> AccessLog {
        self.access.clone()
    }
}

impl Drop for LogHandle {
    fn drop(&mut self) {
        self.sink.flush(FLUSH_PATIENCE);
        if let Some(combined) = &self.access.combined {
            combined.flush(FLUSH_PATIENCE);
        }
    }
}

/// Writes what `tracing` hands over.
struct Events {
    sink: Sink,
    form: Form,
    level: LevelFilter,
}

impl<S: Subscriber> Layer<S> for Events {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        let most =
            if metadata.target().starts_with(OURS) { self.level } else { self.level.min(LevelFilter::WARN) };
        metadata.is_event() && *metadata.level() <= most
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level)
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        self.sink.line(|out| write_event(out, &self.form, event));
    }
}

fn write_event(out: &mut Vec<u8>, form: &Form, event: &Event<'_>) {
    let mut message = Message(String::new());
    event.record(&mut message);
    let level = match *event.metadata().level() {
        tracing::Level::ERROR => "error",
        tracing::Level::WARN => "warn",
        tracing::Level::INFO => "info",
        _ => "debug",
    };
    let mut line = Line::begin(out, form, level, &message.0);
    if !event.metadata().target().starts_with(OURS) {
        line.text("target", event.metadata().target());
    }
    event.record(&mut Fields(&mut line));
    line.end();
}

/// The field that `tracing` keeps an event's message in.
const MESSAGE: &str = "message";

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == MESSAGE {
            self.0 = format!("{value:?}");
        }
    }
}

struct Fields<'a, 'b>(&'a mut Line<'b>);

impl Visit for Fields<'_, '_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() != MESSAGE {
            self.0.foreign(field.name(), format!("{value:?}").as_bytes(), FIELD_BYTES_MAX);
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() != MESSAGE {
            self.0.foreign(field.name(), value.as_bytes(), FIELD_BYTES_MAX);
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.0.foreign(field.name(), value.to_string().as_bytes(), FIELD_BYTES_MAX);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.number(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.word(field.name(), &value.to_string());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.word(field.name(), if value { "true" } else { "false" });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Returns the lines that `log` writes, each without its time.
    fn lines(style: Style, level: LevelFilter, log: impl FnOnce()) -> Vec<String> {
        let memory = Memory::default();
        let sink = Sink::start(memory.clone(), Counter::default()).unwrap();
        let events = Events { sink: sink.clone(), form: Form::new(style, &[]), level };
        tracing::subscriber::with_default(Registry::default().with(events), log);
        assert!(sink.flush(Duration::from_secs(60)));
        let text = String::from_utf8(memory.0.lock().unwrap().clone()).unwrap();
        let separator = if style == Style::Json { ',' } else { ' ' };
        text.lines().map(|line| line.split_once(separator).unwrap().1.to_owned()).collect()
    }

    fn log_each_level() {
        tracing::error!(target: "stopover::x", "one");
        tracing::warn!(target: "stopover::x", "two");
        tracing::info!(target: "stopover::x", "three");
        tracing::debug!(target: "stopover::x", "four");
        tracing::trace!(target: "stopover::x", "five");
        tracing::warn!(target: "hyper::x", "six");
        tracing::info!(target: "hyper::x", "seven");
    }

    #[test]
    fn a_level_shows_itself_and_what_is_more_important() {
        let table = [
            (LevelFilter::ERROR, "one"),
            (LevelFilter::WARN, "one two six"),
            (LevelFilter::INFO, "one two three six"),
            (LevelFilter::DEBUG, "one two three four six"),
        ];
        for (level, want) in table {
            let lines = lines(Style::Text, level, log_each_level);
            let words: Vec<&str> = lines
                .iter()
                .map(|line| line.split("msg=").nth(1).unwrap().split(' ').next().unwrap())
                .collect();
            assert_eq!(words.join(" "), want, "{level}");
        }
    }

    #[test]
    fn facts_are_fields_in_text_and_in_json() {
        let log = || {
            let error = io::Error::other("disk\nfull");
            let (count, below, yes, name) = (7u64, -7i64, true, "a b");
            tracing::warn!(target: "stopover", count, below, yes, name, error = %error, "it \"failed\" {}", 1);
            tracing::error!(target: "rustls", error = &error as &dyn std::error::Error, "it failed");
        };
        let text = [
            "level=warn msg=\"it \\\"failed\\\" 1\" count=7 below=-7 yes=true name=\"a b\" error=\"disk\\nfull\"",
            "level=error msg=\"it failed\" target=rustls error=\"disk\\nfull\"",
        ];
        assert_eq!(lines(Style::Text, LevelFilter::INFO, log), text);
        let json = [
            "\"level\":\"warn\",\"msg\":\"it \\\"failed\\\" 1\",\"count\":7,\"below\":-7,\"yes\":true,\"name\":\"a b\",\"error\":\"disk\\nfull\"}",
            "\"level\":\"error\",\"msg\":\"it failed\",\"target\":\"rustls\",\"error\":\"disk\\nfull\"}",
        ];
        assert_eq!(lines(Style::Json, LevelFilter::INFO, log), json);
    }
}
