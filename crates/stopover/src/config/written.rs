//! The configuration as written: settings with their places, from our own file and variables.
//!
//! It promises that each setting names a key that exists and that later ones win over earlier ones. It does not know
//! whether a value is right.

use std::ops::Range;

use toml::{Spanned, de::DeTable, de::DeValue};

use super::{
    field::Value,
    keys::{self, Key, SECTIONS},
    mistake::{Mistake, Place},
    names,
    registry::Reading,
    tables::{self, EgressTable, Entry, Tables},
    used::Config,
};

/// What begins the name of each of our variables.
pub(super) const OURS: &str = "STOPOVER_";
/// The table of tables for further registries.
pub(super) const OTHERS: &str = "upstreams";
/// The table of tables for ways out.
pub(super) const EGRESSES: &str = "egresses";
/// What begins a variable for a way out.
const EGRESS_VARIABLES: &str = "STOPOVER_EGRESSES__";
/// What begins a variable for the default registry.
const UPSTREAM_VARIABLES: &str = "STOPOVER_UPSTREAM__";
/// The variable that names the file.
pub(super) const FILE_VARIABLE: &str = "STOPOVER_CONFIG";

/// One key set to one value.
pub(super) struct Setting<C: 'static = Config> {
    pub(super) key: &'static Key<C>,
    /// What the key is called where it was written, if that is not its own name.
    pub(super) called: Option<&'static str>,
    pub(super) value: Value,
    pub(super) place: Place,
}

/// A further registry, and what was written of it.
pub(super) struct Other {
    pub(super) registry: String,
    pub(super) place: Place,
    pub(super) settings: Vec<Setting>,
    pub(super) tables: Tables,
}

/// All that was written, in the order in which it counts: later settings win.
#[derive(Default)]
pub(super) struct Written {
    pub(super) settings: Vec<Setting>,
    pub(super) tables: Tables,
    pub(super) egresses: Vec<Entry<EgressTable>>,
    pub(super) others: Vec<Other>,
    pub(super) mistakes: Vec<Mistake>,
    pub(super) warnings: Vec<String>,
    /// What `REGISTRY_AUTH` says.
    pub(super) auth: Option<(String, Place)>,
}

impl Written {
    /// Adds what stands in `text`, the content of the file `name`.
    pub(super) fn read_file(&mut self, name: &str, text: &str) {
        let at = |span: Range<usize>| Place::within(name, text, span.start);
        let (document, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            // The error's own text repeats the line, and with it maybe a password; its message does not.
            self.mistakes.extend(errors.iter().map(|error| {
                Mistake::new(
                    at(error.span().unwrap_or(0..0)),
                    format!("not TOML: {}", one_line(error.message())),
                )
            }));
            return;
        }
        let mut found = Vec::new();
        for (section, content) in document.get_ref() {
            match (&**section.get_ref(), content.get_ref()) {
                (OTHERS, _) => self.read_others(content, &at),
                (EGRESSES, _) => self.egresses = tables::read(content, &at, &mut self.mistakes),
                ("upstream", DeValue::Table(keys)) => {
                    for (name, content) in keys {
                        self.tables.read(name.get_ref(), content, &at, &mut self.mistakes);
                    }
                    found.extend(read_section(section, content));
                }
                _ => found.extend(read_section(section, content)),
            }
        }
        found.sort_by_key(|(span, _)| span.start);
        for (span, found) in found {
            match found {
                Found::Setting(key, value) => {
                    self.settings.push(Setting { key, called: None, value, place: at(span) })
                }
                Found::Mistake(mistake) => self.mistakes.push(mistake(at(span))),
            }
        }
    }

    /// Adds the tables `[upstreams."<registry>"]`, each with the keys of `[upstream]` but its name.
    fn read_others(&mut self, content: &Spanned<DeValue<'_>>, at: &impl Fn(Range<usize>) -> Place) {
        let DeValue::Table(registries) = content.get_ref() else {
            let what = "upstreams: expected a table for each registry, [upstreams.\"ghcr.io\"]";
            self.mistakes.push(Mistake::new(at(content.span()), what));
            return;
        };
        for (name, content) in registries {
            let registry = name.get_ref().to_string();
            let DeValue::Table(table) = content.get_ref() else {
                let what = format!("upstreams.{registry}: expected a table, [upstreams.\"{registry}\"]");
                self.mistakes.push(Mistake::new(at(content.span()), what));
                continue;
            };
            let mut other =
                Other { registry, place: at(name.span()), settings: Vec::new(), tables: Tables::default() };
            for (key_name, value) in table {
                if other.tables.read(key_name.get_ref(), value, at, &mut self.mistakes) {
                    continue;
                }
                match key_of_other(key_name.get_ref()) {
                    Some(key) => other.settings.push(Setting {
                        key,
                        called: None,
                        value: read_value(value.get_ref()),
                        place: at(value.span()),
                    }),
                    None => self.mistakes.push(Mistake::unknown_key(
                        at(key_name.span()),
                        "upstream",
                        key_name.get_ref(),
                    )),
                }
            }
            self.others.push(other);
        }
    }

    /// Adds what was read of registry:2's configuration.
    pub(super) fn add(&mut self, found: Reading) {
        self.settings.extend(found.settings);
        self.mistakes.extend(found.mistakes);
        self.warnings.extend(found.warnings);
        self.auth = found.auth;
    }

    /// Adds what our own variables say.
    pub(super) fn read_environment<'a>(&mut self, variables: impl Iterator<Item = (&'a str, &'a str)>) {
        for (name, text) in variables {
            self.read_ours(name, text);
        }
    }

    fn read_ours(&mut self, name: &str, text: &str) {
        if name == FILE_VARIABLE {
            return;
        }
        if is_link_name(name) {
            self.warnings.push(format!("{name}: ignored, since it looks like Kubernetes' own for a service"));
            return;
        }
        if name.starts_with(names::VARIABLES) {
            self.read_others_variable(name, text);
            return;
        }
        if let Some(rest) = name.strip_prefix(EGRESS_VARIABLES) {
            let read = tables::read_variable(&mut self.egresses, rest, name, text);
            self.mistakes.extend(read.err());
            return;
        }
        if let Some(rest) = name.strip_prefix(UPSTREAM_VARIABLES)
            && self.tables.read_variable(rest, name, text, &mut self.mistakes)
        {
            return;
        }
        let Some(key) = keys::all().find(|key| key.variable() == name) else {
            self.mistakes.push(Mistake::unknown_variable(name));
            return;
        };
        let place = Place::Variable(name.to_owned());
        self.settings.push(Setting { key, called: None, value: key.field.read(text), place });
    }

    /// A variable for a key of a further registry: one that has a table in the file, or a well-known one.
    fn read_others_variable(&mut self, name: &str, text: &str) {
        let place = Place::Variable(name.to_owned());
        let (registry, rest) = match names::of_variable(name, &self.others) {
            Ok(meant) => meant,
            Err(mistake) => return self.mistakes.push(mistake),
        };
        let at = self.others.iter().position(|other| other.registry == registry).unwrap_or_else(|| {
            let (settings, tables) = (Vec::new(), Tables::default());
            self.others.push(Other { registry, place: place.clone(), settings, tables });
            self.others.len() - 1
        });
        let other = &mut self.others[at];
        if other.tables.read_variable(rest, name, text, &mut self.mistakes) {
            return;
        }
        let key_name = rest.to_ascii_lowercase();
        match key_of_other(&key_name) {
            Some(key) => {
                other.settings.push(Setting { key, called: None, value: key.field.read(text), place })
            }
            None => self.mistakes.push(Mistake::unknown_key(place, "upstream", &key_name)),
        }
    }
}

/// Returns the key of this name that a further registry has.
fn key_of_other(name: &str) -> Option<&'static Key> {
    keys::find("upstream", name).filter(|key| key.name != "registry")
}

/// Returns where the setting of this key that counts was written.
pub(super) fn place_of(settings: &[Setting], section: &str, name: &str) -> Option<Place> {
    let last = settings.iter().rfind(|setting| setting.key.section == section && setting.key.name == name);
    last.map(|setting| setting.place.clone())
}

/// Something found in a file, at a place still to be named.
enum Found {
    Setting(&'static Key, Value),
    Mistake(Box<dyn FnOnce(Place) -> Mistake>),
}

impl Found {
    fn mistake(make: impl FnOnce(Place) -> Mistake + 'static) -> Self {
        Self::Mistake(Box::new(make))
    }
}

type Name<'a> = Spanned<std::borrow::Cow<'a, str>>;

fn read_section(name: &Name<'_>, content: &Spanned<DeValue<'_>>) -> Vec<(Range<usize>, Found)> {
    let section = name.get_ref().to_string();
    let known = SECTIONS.iter().any(|(known, _)| *known == section);
    let table = match content.get_ref() {
        DeValue::Table(table) if known => table,
        DeValue::Table(_) => {
            return vec![(
                name.span(),
                Found::mistake(move |place| Mistake::unknown_section(place, &section)),
            )];
        }
        _ if known => {
            let what = format!("{section}: expected a section, [{section}]");
            return vec![(name.span(), Found::mistake(move |place| Mistake::new(place, what)))];
        }
        _ => {
            return vec![(
                name.span(),
                Found::mistake(move |place| Mistake::unknown_key(place, "", &section)),
            )];
        }
    };
    let is_table = |name: &str| section == "upstream" && tables::KINDS.contains(&name);
    let plain = table.iter().filter(|(name, _)| !is_table(name.get_ref()));
    let each = plain.map(|(name, value)| match keys::find(&section, name.get_ref()) {
        Some(key) => (value.span(), Found::Setting(key, read_value(value.get_ref()))),
        None => {
            let (section, key) = (section.clone(), name.get_ref().to_string());
            (name.span(), Found::mistake(move |place| Mistake::unknown_key(place, &section, &key)))
        }
    });
    each.collect()
}

/// Returns a value of TOML's.
pub(super) fn read_value(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or(Value::Other("a number that is too large"), Value::Integer),
        DeValue::Boolean(flag) => Value::Flag(*flag),
        DeValue::Array(list) => Value::List(list.iter().map(|value| read_value(value.get_ref())).collect()),
        DeValue::Float(_) => Value::Other("a number with a fraction"),
        DeValue::Datetime(_) => Value::Other("a date"),
        DeValue::Table(table) => {
            let each =
                table.iter().map(|(name, value)| (name.get_ref().to_string(), read_value(value.get_ref())));
            Value::Table(each.collect())
        }
    }
}

fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Returns whether Kubernetes sets a variable of this name for a service called `stopover` or `stopover-...`:
/// `STOPOVER_SERVICE_HOST`, `STOPOVER_PORT`, `STOPOVER_PORT_5000_TCP_ADDR` and so on.
pub(super) fn is_link_name(name: &str) -> bool {
    let numbered =
        || name.split_once("_PORT_").is_some_and(|(_, rest)| rest.starts_with(|c: char| c.is_ascii_digit()));
    !name.contains("__")
        && (name.ends_with("_SERVICE_HOST")
            || name.ends_with("_SERVICE_PORT")
            || name.contains("_SERVICE_PORT_")
            || name.ends_with("_PORT")
            || numbered())
}
