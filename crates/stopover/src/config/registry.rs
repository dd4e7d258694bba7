//! The configuration of registry:2 and registry:3: their `config.yml` and their `REGISTRY_` variables.
//!
//! Both are put into one tree, variables over the file, as there, and each value of the tree goes by one table: it sets a
//! key of ours, is of no consequence, is warned of, or refused. It promises that nothing is passed over in silence that
//! an operator would miss, and that what has to do with who may pull, or from where, is honoured or refused.

mod reference;
mod table;
mod tree;
mod yaml;

use super::{
    field::{Field, Value},
    keys::{self, Key},
    mistake::{Mistake, Place, allowed, distance, shown},
    written::{Setting, is_link_name},
};
pub(super) use reference::reference;
pub(super) use table::REGISTRYS;
use table::{Becomes, ROWS, Row};
use yaml::{Content, Node};

/// The variable that names the file.
pub(super) const FILE_VARIABLE: &str = "REGISTRY_CONFIGURATION_PATH";
/// The one version there is.
const VERSION: &str = "0.1";
/// What a registry does where its file says nothing else: it has no operator's port, and writes text and an access log.
const DEFAULTS: [(&str, &str, &str); 3] =
    [("admin", "addr", "off"), ("log", "format", "text"), ("log", "combined", "true")];

/// What was read: settings in the order in which they count, and what there is to say.
#[derive(Default)]
pub(super) struct Reading {
    pub(super) settings: Vec<Setting>,
    pub(super) mistakes: Vec<Mistake>,
    pub(super) warnings: Vec<String>,
    /// The kind of access control that is named, and where.
    pub(super) auth: Option<(String, Place)>,
}

/// Reads a `config.yml`, given as its name and content, if there is one, and registry's variables, sorted.
pub(super) fn read<'a>(
    file: Option<(&str, &str)>,
    variables: impl Iterator<Item = (&'a str, &'a str)>,
) -> Reading {
    let mut found = Reading::default();
    let mut root = Node::empty(Place::File("the environment".to_owned()));
    if let Some((name_of_file, text)) = file {
        match read_file(name_of_file, text) {
            Ok(tree) => root = tree,
            Err(mistake) => {
                found.mistakes.push(mistake);
                return found;
            }
        }
        for (section, name, value) in DEFAULTS {
            let key = keys::find(section, name).expect("the table has it");
            let (value, place) = (key.field.read(value), Place::File(name_of_file.to_owned()));
            found.settings.push(Setting { key, called: None, value, place });
        }
    }
    for (name, value) in variables {
        if name != FILE_VARIABLE && !is_service_link(name, value) {
            found.put(&mut root, name, value);
        }
    }
    found.walk("", &root, &root);
    found.check_whole(&root, file.map(|(name, _)| name));
    found
}

/// Returns the path of every row of the table.
#[cfg(test)]
pub(super) fn rows() -> impl Iterator<Item = &'static str> {
    ROWS.iter().map(|row| row.path)
}

/// Returns whether a file is YAML, as registry's is, and not TOML: by its name or, where that tells nothing, by what it
/// holds.
pub(super) fn is_registrys(name: &str, text: &str) -> bool {
    let ending = name.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase());
    match ending.as_deref() {
        Some("yml" | "yaml") => true,
        Some("toml") => false,
        _ => text.lines().any(|line| line.starts_with("version:")),
    }
}

/// Returns whether a `config.yml` says of itself that it is a pull-through cache's.
pub(super) fn is_proxy(text: &str) -> bool {
    let nowhere = |_, _| Place::File(String::new());
    yaml::parse(text, &nowhere).is_ok_and(|tree| tree.at("proxy.remoteurl").is_some())
}

fn read_file(name: &str, text: &str) -> Result<Node, Mistake> {
    let at = |line, column| Place::Line { file: name.to_owned(), line, column };
    let mut tree = yaml::parse(text, &at)?;
    let expected = "expected \"version: 0.1\", as registry:2 and registry:3 have it";
    match (tree.at("version"), &tree.content) {
        (_, Content::Scalar(_) | Content::List(_)) => {
            return Err(Mistake::new(tree.place, format!("found no section; {expected}")));
        }
        (Some(version), _) if version.text() == Some(VERSION) => {}
        (Some(version), _) => {
            let found = version.text().map_or("a section".to_owned(), |text| format!("{:?}", shown(text)));
            return Err(Mistake::new(version.place.clone(), format!("version: found {found}, {expected}")));
        }
        (None, _) => {
            return Err(Mistake::new(Place::File(name.to_owned()), format!("version: not set, {expected}")));
        }
    }
    tree::normalize(&mut tree);
    Ok(tree)
}

impl Reading {
    /// Puts the value of a variable into the tree, in the place of what is there.
    fn put(&mut self, root: &mut Node, variable: &str, text: &str) {
        let place = Place::Variable(variable.to_owned());
        let Some(path) = table::path_of(variable) else {
            self.unknown_variable(variable);
            return;
        };
        let here = place.clone();
        let value = match yaml::parse(text, &move |_, _| here.clone()) {
            Ok(value) => value,
            // There it is the end. A password is hardly ever YAML by design.
            Err(_) if is_text(&path) => Node { place, content: Content::Scalar(text.to_owned()) },
            Err(mistake) => {
                self.mistakes.push(mistake);
                return;
            }
        };
        if let Err(mistake) = tree::put(root, &path, value) {
            self.mistakes.push(mistake);
        }
    }

    fn unknown_variable(&mut self, variable: &str) {
        let near = ROWS.iter().map(Row::variable).min_by_key(|known| distance(known, variable));
        let hint = match near.filter(|known| distance(known, variable) <= allowed(variable) / 2) {
            Some(known) => format!("; did you mean {known}?"),
            None => ", as registry:2 does".to_owned(),
        };
        self.warnings.push(format!("{}: unknown, ignored{hint}", shown(variable)));
    }

    /// Goes through a section and settles each key of it.
    fn walk(&mut self, path: &str, node: &Node, root: &Node) {
        let entries = match &node.content {
            Content::Map(entries) => entries,
            Content::Null => return,
            _ => {
                let what = format!("{path}: found {}, expected a section", found_kind(node));
                self.mistakes.push(Mistake::new(node.place.clone(), what));
                return;
            }
        };
        for (at, entry) in entries.iter().enumerate() {
            let name = &entry.name;
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            if entries[at + 1..].iter().any(|later| later.name == *name) {
                let what = format!("{}: {} stands here twice; the later counts", entry.place, shown(&path));
                self.warnings.push(what);
                continue;
            }
            match table::find(&path) {
                Some(row) => self.settle(row, &entry.node, root),
                None if table::is_section(&path) && !name.contains('.') => {
                    self.walk(&path, &entry.node, root)
                }
                None => self.unknown_key(&path, &entry.place),
            }
        }
    }

    fn unknown_key(&mut self, path: &str, place: &Place) {
        if let Some(kind) = path.strip_prefix("storage.").or(path.strip_prefix("auth."))
            && !kind.contains('.')
        {
            let expected = if path.starts_with("auth.") { "htpasswd" } else { "filesystem" };
            let what = format!("{}: unknown; expected {expected}", shown(path));
            self.mistakes.push(Mistake::new(place.clone(), what));
            return;
        }
        let near = ROWS.iter().map(|row| row.path).min_by_key(|known| distance(known, path));
        let hint = match near.filter(|known| distance(known, path) <= allowed(path)) {
            Some(known) => format!("; did you mean {known}?"),
            None => ", as registry:2 does".to_owned(),
        };
        self.warnings.push(format!("{place}: {}: unknown, ignored{hint}", shown(path)));
    }

    /// Does with a value what its row says.
    fn settle(&mut self, row: &'static Row, node: &Node, root: &Node) {
        match row.becomes() {
            Becomes::Key => self.set(row, node, &row.variable(), plain),
            Becomes::Formatter => self.set(row, node, &row.variable(), formatter),
            Becomes::Access | Becomes::Http2 => self.set(row, node, &row.variable(), opposite),
            Becomes::Level if root.at("log.level").is_none() => {
                self.set(row, node, "REGISTRY_LOG_LEVEL", plain)
            }
            Becomes::Level => {}
            Becomes::Address => {
                let is_path = root.at("http.net").and_then(Node::text) == Some("unix");
                self.set(row, node, &row.variable(), if is_path { socket } else { plain });
            }
            Becomes::Network => self.check_network(row, node),
            Becomes::LetsEncrypt if root.at("http.tls.certificate").is_some() || node.asks_nothing() => {}
            Becomes::LetsEncrypt => {
                self.refuse(row, node, "no certificate is fetched; set http.tls.certificate")
            }
            Becomes::Ignored(_) => {}
            Becomes::Warned(_) if node.asks_nothing() => {}
            Becomes::Warned(why) => {
                self.warnings.push(format!("{}: ignored: {why}", called(row, &node.place)))
            }
            Becomes::Refused(instead) => self.refuse(row, node, instead),
        }
    }

    fn refuse(&mut self, row: &Row, node: &Node, instead: &str) {
        let path = row.path;
        // A driver is chosen by its name alone; all else may be empty, as templates leave it.
        let by_name = path.starts_with("storage.") || path.starts_with("auth.");
        if by_name || !node.asks_nothing() {
            self.mistakes.push(Mistake::new(node.place.clone(), format!("{path}: not supported; {instead}")));
        }
    }

    fn check_network(&mut self, row: &Row, node: &Node) {
        if !matches!(node.text(), None | Some("" | "tcp" | "unix")) {
            let what = format!("{}: expected tcp or unix", row.path);
            self.mistakes.push(Mistake::new(node.place.clone(), what));
        }
    }

    /// Sets the key of ours that answers to `variable`.
    fn set(&mut self, row: &'static Row, node: &Node, variable: &str, value: fn(&Key, &Node) -> Value) {
        if node.content == Content::Null {
            return;
        }
        let key = keys::all().find(|key| key.registry == Some(variable)).expect("a test says so");
        let value = value(key, node);
        self.settings.push(Setting { key, called: Some(row.path), value, place: node.place.clone() });
    }

    /// Checks what no key can tell alone.
    fn check_whole(&mut self, root: &Node, file: Option<&str>) {
        if let Some(file) = file
            && root.at("proxy.remoteurl").is_none()
        {
            let what = "proxy.remoteurl: not set; Stopover is a pull-through cache and takes no pushes, so expected the \
                        registry to mirror, such as https://registry-1.docker.io";
            self.mistakes.push(Mistake::new(Place::File(file.to_owned()), what));
        }
        if let Some(Content::Map(kinds)) = root.at("auth").map(|auth| &auth.content) {
            if let [first, second, ..] = kinds.as_slice() {
                let what = format!(
                    "auth: expected one kind, found {} and {}",
                    shown(&first.name),
                    shown(&second.name)
                );
                self.mistakes.push(Mistake::new(second.place.clone(), what));
            }
            self.auth = kinds.first().map(|kind| (kind.name.clone(), kind.place.clone()));
        }
    }
}

/// Returns how a message begins: with the variable, or with the place and the key.
fn called(row: &Row, place: &Place) -> String {
    match place {
        Place::Variable(_) => place.to_string(),
        _ => format!("{place}: {}", row.path),
    }
}

/// Returns whether the value of that path is a text, which may be anything.
fn is_text(path: &[String]) -> bool {
    let variable = format!("{REGISTRYS}{}", path.join("_").to_uppercase());
    let key = keys::all().find(|key| key.registry == Some(&*variable));
    key.is_some_and(|key| matches!(key.field, Field::Text(_) | Field::Secret(_)))
}

fn found_kind(node: &Node) -> &'static str {
    match node.content {
        Content::Null => "nothing",
        Content::Scalar(_) => "a value",
        Content::List(_) => "a list",
        Content::Map(_) => "a section",
    }
}

/// Returns a value as the key takes it.
fn plain(key: &Key, node: &Node) -> Value {
    match &node.content {
        Content::Null => Value::Text(String::new()),
        Content::Scalar(text) => scalar(key, text),
        Content::List(list) => Value::List(list.iter().map(|node| plain(key, node)).collect()),
        Content::Map(entries) => {
            Value::Table(entries.iter().map(|entry| (entry.name.clone(), plain(key, &entry.node))).collect())
        }
    }
}

fn scalar(key: &Key, text: &str) -> Value {
    match key.field {
        Field::Duration { .. } => Value::Text(go_duration(text)),
        // There less than zero is the same as zero.
        Field::DurationOrNever(_) | Field::DurationIfSet(_)
            if text.starts_with('-') && super::units::duration(&go_duration(&text[1..])).is_some() =>
        {
            Value::Text("0".to_owned())
        }
        Field::DurationOrNever(_) | Field::DurationIfSet(_) => Value::Text(go_duration(text)),
        Field::Flag(_) => yaml::flag(text).map_or(Value::Text(text.to_owned()), Value::Flag),
        Field::Count { .. } => key.field.read(text),
        _ => Value::Text(text.to_owned()),
    }
}

/// Returns a duration in our words: in Go's YAML a bare number counts nanoseconds.
fn go_duration(text: &str) -> String {
    match text.parse::<u64>() {
        Ok(0) => "0".to_owned(),
        Ok(nanos) => format!("{nanos}ns"),
        Err(_) => text.to_owned(),
    }
}

fn formatter(key: &Key, node: &Node) -> Value {
    if node.text() == Some("logstash") { Value::Text("json".to_owned()) } else { plain(key, node) }
}

fn opposite(key: &Key, node: &Node) -> Value {
    match plain(key, node) {
        Value::Flag(flag) => Value::Flag(!flag),
        other => other,
    }
}

/// Returns whether Kubernetes sets this variable for a service called `registry` or `registry-...`.
fn is_service_link(name: &str, value: &str) -> bool {
    let is_address = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    is_link_name(name) && (is_address || name.contains("_SERVICE_") || !name.ends_with("_PORT"))
}

fn socket(_: &Key, node: &Node) -> Value {
    Value::Text(format!("unix:{}", node.text().unwrap_or_default()))
}
