//! Tables that the operator names: `[egresses.NAME]`, `[upstream.accounts.NAME]`, `[upstream.mirrors.NAME]`, from the file
//! and from variables.
//!
//! It promises that each has a name that a log line and a metric can have, that no two of a kind share one, and that what
//! is made of one is whole. Values go by the same kinds as those of every other key.

mod account;
mod egress;
mod mirror;

use std::ops::Range;

use toml::{Spanned, de::DeValue};

pub(super) use account::AccountTable;
pub(super) use egress::{EgressTable, all as all_egresses, resolve as resolve_egresses};
pub(super) use mirror::MirrorTable;

use super::{
    keys::Key,
    mistake::{Mistake, Place, nearest, shown},
    names::in_variable,
    reference::{ROWS_HEAD, row},
    used::{Config, Upstream},
    written::{Setting, read_value},
};

/// What a name is for people.
const NAME: &str = "a name of letters, digits and -_.@, at most 64 of them";
const NAME_BYTES_MAX: usize = 64;
/// How many tables of a kind there may be.
const TABLES_MAX: usize = 64;
/// The tables of tables that a registry has.
pub(super) const KINDS: [&str; 2] = ["accounts", "mirrors"];
/// The name of the system's own way out.
const DEFAULT: &str = "default";
/// Names that mean something in logs and metrics already.
const RESERVED: [&str; 2] = ["anonymous", DEFAULT];

/// A kind of table, with its values as written.
pub(super) trait Table: Default + 'static {
    /// The table that they stand in.
    const SECTION: &'static str;
    /// What one is called in an example.
    const EXAMPLE: &'static str;
    /// What they are for: whole sentences.
    const DOC: &'static str;

    /// Returns every key of one.
    fn keys() -> &'static [Key<Self>];
}

/// A table, as written.
pub(super) struct Entry<T: 'static> {
    name: String,
    place: Place,
    settings: Vec<Setting<T>>,
}

/// The tables of a registry.
#[derive(Default)]
pub(super) struct Tables {
    accounts: Vec<Entry<AccountTable>>,
    mirrors: Vec<Entry<MirrorTable>>,
}

impl Tables {
    /// Reads the value of a key of `[upstream]` if tables stand there; returns whether they do.
    pub(super) fn read(
        &mut self,
        key: &str,
        content: &Spanned<DeValue<'_>>,
        at: &impl Fn(Range<usize>) -> Place,
        mistakes: &mut Vec<Mistake>,
    ) -> bool {
        match key {
            "accounts" => self.accounts = read(content, at, mistakes),
            "mirrors" => self.mirrors = read(content, at, mistakes),
            _ => return false,
        }
        true
    }

    /// Reads a variable if the rest of its name, such as `ACCOUNTS__ANN__PASSWORD`, is for a table; returns whether it is.
    pub(super) fn read_variable(
        &mut self,
        rest: &str,
        variable: &str,
        text: &str,
        mistakes: &mut Vec<Mistake>,
    ) -> bool {
        let read = match rest.split_once("__") {
            Some(("ACCOUNTS", rest)) => read_variable(&mut self.accounts, rest, variable, text),
            Some(("MIRRORS", rest)) => read_variable(&mut self.mirrors, rest, variable, text),
            _ => return false,
        };
        mistakes.extend(read.err());
        true
    }

    /// Sets what the tables say of a registry whose URL is set.
    pub(super) fn set(&self, upstream: &mut Upstream, mistakes: &mut Vec<Mistake>) {
        upstream.accounts = account::all(&self.accounts, upstream.username.as_deref(), mistakes);
        upstream.mirrors = mirror::all(&self.mirrors, &upstream.url, mistakes);
    }
}

impl<T: Table> Entry<T> {
    /// Returns the values, unless one is wrong.
    fn value(&self, mistakes: &mut Vec<Mistake>) -> Option<T> {
        let mut value = T::default();
        let before = mistakes.len();
        for Setting { key, value: written, .. } in &self.settings {
            if let Err(found) = key.field.set(&mut value, written) {
                mistakes.push(
                    self.mistake(key.name, &format!("found {found}, expected {}", key.field.expected())),
                );
            }
        }
        (mistakes.len() == before).then_some(value)
    }

    /// Returns a mistake at a key, or at the table as a whole where `key` is empty or not set.
    fn mistake(&self, key: &str, what: &str) -> Mistake {
        let setting = self.settings.iter().rfind(|setting| setting.key.name == key);
        let place = setting.map_or(&self.place, |setting| &setting.place);
        let dot = if key.is_empty() { "" } else { "." };
        Mistake::new(place.clone(), format!("{}.{}{dot}{key}: {what}", T::SECTION, shown(&self.name)))
    }
}

/// Returns whether a table may have this name.
pub(super) fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte);
    (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(plain)
}

/// Checks the names of all tables of a kind, of which those in `taken` mean something else.
fn check_names<T: Table>(entries: &[Entry<T>], taken: &[&str], mistakes: &mut Vec<Mistake>) {
    for (at, entry) in entries.iter().enumerate() {
        let is_same = |other: &Entry<T>| other.name.eq_ignore_ascii_case(&entry.name);
        let what = if !is_name(&entry.name) {
            format!("expected {NAME}")
        } else if taken.iter().any(|taken| taken.eq_ignore_ascii_case(&entry.name)) {
            "this name means something else already; expected another".to_owned()
        } else if let Some(other) = entries[..at].iter().find(|other| is_same(other)) {
            format!("there is {} already; expected names that differ by more than their case", other.name)
        } else {
            continue;
        };
        mistakes.push(entry.mistake("", &what));
    }
    if let Some(entry) = entries.get(TABLES_MAX) {
        mistakes.push(entry.mistake("", &format!("expected at most {TABLES_MAX} of them")));
    }
}

/// Returns the tables in a table, in the order in which they are written.
pub(super) fn read<T: Table>(
    content: &Spanned<DeValue<'_>>,
    at: &impl Fn(Range<usize>) -> Place,
    mistakes: &mut Vec<Mistake>,
) -> Vec<Entry<T>> {
    let section = T::SECTION;
    let DeValue::Table(tables) = content.get_ref() else {
        let what = format!("{section}: expected a table for each, such as [{section}.{}]", T::EXAMPLE);
        mistakes.push(Mistake::new(at(content.span()), what));
        return Vec::new();
    };
    let mut entries = Vec::new();
    for (name, content) in tables {
        let span = name.span();
        let DeValue::Table(table) = content.get_ref() else {
            let name = shown(name.get_ref());
            let is_key = T::keys().iter().any(|key| key.name == name);
            let meant = if is_key { T::EXAMPLE } else { &name };
            let what = format!("{section}.{name}: expected a table, [{section}.{meant}]");
            mistakes.push(Mistake::new(at(span), what));
            continue;
        };
        let before = mistakes.len();
        let mut entry =
            Entry { name: name.get_ref().to_string(), place: at(name.span()), settings: Vec::new() };
        for (key_name, value) in table {
            match T::keys().iter().find(|key| key.name == key_name.get_ref()) {
                Some(key) => entry.settings.push(Setting {
                    key,
                    called: None,
                    value: read_value(value.get_ref()),
                    place: at(value.span()),
                }),
                None => mistakes.push(unknown_key::<T>(at(key_name.span()), &entry.name, key_name.get_ref())),
            }
        }
        // What lacks the key that was meant is not wrong a second time.
        if mistakes.len() == before {
            entries.push((name.span().start, entry));
        }
    }
    entries.sort_by_key(|(start, _)| *start);
    entries.into_iter().map(|(_, entry)| entry).collect()
}

/// Reads a variable, given also as what stands behind the kind of table in its name: it sets a key of the table of that
/// name, or makes one.
pub(super) fn read_variable<T: Table>(
    entries: &mut Vec<Entry<T>>,
    rest: &str,
    variable: &str,
    text: &str,
) -> Result<(), Mistake> {
    let place = Place::Variable(variable.to_owned());
    let Some((spelt, key_name)) = rest.rsplit_once("__").filter(|(spelt, _)| !spelt.is_empty()) else {
        let before = variable.strip_suffix(rest).unwrap_or(variable);
        let (name, key) = (T::EXAMPLE.to_uppercase(), T::keys()[0].name.to_uppercase());
        return Err(Mistake::new(
            place,
            format!("expected {before}<NAME>__<KEY>, such as {before}{name}__{key}"),
        ));
    };
    let key_name = key_name.to_ascii_lowercase();
    let meant: Vec<usize> =
        (0..entries.len()).filter(|&at| in_variable(&entries[at].name) == spelt).collect();
    let name = spelt.to_ascii_lowercase();
    let Some(key) = T::keys().iter().find(|key| key.name == key_name) else {
        return Err(unknown_key::<T>(place, &name, &key_name));
    };
    let setting = Setting { key, called: None, value: key.field.read(text), place: place.clone() };
    match meant[..] {
        [] => entries.push(Entry { name, place, settings: vec![setting] }),
        [at] => entries[at].settings.push(setting),
        _ => {
            let names: Vec<&str> = meant.iter().map(|&at| &*entries[at].name).collect();
            return Err(Mistake::new(
                place,
                format!("{} are spelt so; set the key in the file", names.join(" and ")),
            ));
        }
    }
    Ok(())
}

fn unknown_key<T: Table>(place: Place, table: &str, name: &str) -> Mistake {
    let section = T::SECTION;
    let names = T::keys().iter().map(|key| key.name);
    let hint = match nearest(name, names.clone()) {
        Some(near) => format!("did you mean {near}?"),
        None => format!("it has {}", names.collect::<Vec<_>>().join(", ")),
    };
    Mistake::new(place, format!("unknown key {section}.{}.{}; {hint}", shown(table), shown(name)))
}

/// Returns a table as it would stand in the file, `header` before its name.
fn show<T: Table>(header: &str, name: &str, value: &mut T) -> String {
    let is_bare = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    let name = if is_bare { name.to_owned() } else { format!("{name:?}") };
    let set = T::keys().iter().filter_map(|key| Some(format!("{} = {}\n", key.name, key.field.show(value)?)));
    format!("\n[{header}.{name}]\n{}", set.collect::<String>())
}

/// Returns the tables of a registry as they would stand in the file, `header` being that of its own.
pub(super) fn show_upstream(upstream: &Upstream, header: &str) -> String {
    let accounts = upstream
        .accounts
        .iter()
        .map(|account| show(&format!("{header}.accounts"), &account.name, &mut AccountTable::from(account)));
    let mirrors = upstream
        .mirrors
        .iter()
        .map(|mirror| show(&format!("{header}.mirrors"), &mirror.name, &mut MirrorTable::from(mirror)));
    accounts.chain(mirrors).collect()
}

/// Returns the ways out that have tables as they would stand in the file.
pub(super) fn show_egresses(config: &Config) -> String {
    let each = config.egresses.iter();
    each.map(|egress| show(EgressTable::SECTION, &egress.name, &mut EgressTable::from(egress))).collect()
}

/// Returns the reference of all kinds of tables.
pub(super) fn reference() -> String {
    section::<AccountTable>() + &section::<MirrorTable>() + &section::<EgressTable>()
}

fn section<T: Table>() -> String {
    let (section, mut defaults) = (T::SECTION, T::default());
    let rows = T::keys().iter().zip(variables_of::<T>());
    let rows: String = rows
        .map(|(key, variable)| {
            let default = key.field.show(&mut defaults).filter(|shown| shown != "\"\"");
            row(key, &variable, default)
        })
        .collect();
    format!("\n## [{section}.NAME]\n\n{}\n\n{ROWS_HEAD}{rows}", T::DOC)
}

/// Returns a variable for each key of a table, with the name of an example.
pub(super) fn variables() -> impl Iterator<Item = String> {
    variables_of::<AccountTable>().chain(variables_of::<MirrorTable>()).chain(variables_of::<EgressTable>())
}

fn variables_of<T: Table>() -> impl Iterator<Item = String> {
    let table = format!("STOPOVER_{}__{}", T::SECTION.replace('.', "__"), T::EXAMPLE);
    T::keys().iter().map(move |key| format!("{table}__{}", key.name).to_uppercase())
}
