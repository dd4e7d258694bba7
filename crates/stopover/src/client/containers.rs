//! podman, skopeo, buildah and CRI-O: registries.conf and the folder beside it.
//!
//! Source: container-libs image/pkg/sysregistriesv2. A `[[registry]]` of a later file takes the place of an earlier one
//! of the same prefix, whole. So where a registry has an entry already, the mirror goes into that one; only for the
//! others an entry is made, in a file of our own.

use ::toml::de::{DeArray, DeTable, DeValue};

use super::{
    machine::Machine,
    plan::{Ask, Change, Plan},
    toml::{self, end_of_part, headers, line_of, start_of_line, with_block},
};

/// Where all of them look for their settings.
pub(super) const HOME: &str = "/etc/containers";
const MAIN: &str = "/etc/containers/registries.conf";
const FOLDER: &str = "/etc/containers/registries.conf.d";
/// The file of our own.
const OURS: &str = "/etc/containers/registries.conf.d/50-stopover.conf";
const HEAD: &str = "\
# The mirror is asked first; where it does not have the image's manifest, the registry itself.
";

/// Who reads the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reader {
    /// podman, skopeo and buildah, at each pull.
    Podman,
    /// CRI-O, when it starts and at SIGHUP.
    Crio,
}

/// Returns what they need.
pub(super) fn plan(machine: &Machine, ask: &Ask, reader: Reader) -> Result<Plan, String> {
    if ask.others {
        return Err(
            "--registry: registries.conf has no entry for all other registries; expected names".to_owned()
        );
    }
    let mut plan = Plan::default();
    let (mut edits, notes) = whose(machine, &ask.registries)?;
    plan.notes.extend(notes);
    if !edits.iter().any(|(path, _)| path == OURS) && machine.exists(OURS) {
        edits.retain(|(_, registries)| !registries.is_empty());
    }
    for (path, registries) in edits {
        let head = if path == OURS { HEAD } else { "" };
        plan.files.push(Change::edited(machine, &path, head, |text| {
            registries.iter().try_fold(text.to_owned(), |text, registry| {
                with_mirror(&text, registry, &ask.mirror.location(registry), ask.mirror.is_plain())
            })
        })?);
    }
    if let Some(authority) = &ask.authority {
        let path = format!("{HOME}/certs.d/{}/ca.crt", ask.mirror.authority());
        plan.files.push(Change::certificate(machine, &path, authority)?);
    }
    match reader {
        Reader::Podman => {
            plan.notes.push(
                "The files are read at each pull, by podman, skopeo and buildah alike: nothing to restart."
                    .to_owned(),
            );
            plan.notes.push(
                "A user's own ~/.config/containers/registries.conf takes the place of the system's; then copy the \
                 entries there."
                    .to_owned(),
            );
        }
        Reader::Crio => plan.next.push(
            "systemctl reload crio    # CRI-O reads registries.conf anew; no container stops".to_owned(),
        ),
    }
    plan.notes.push(
        "The choice between mirror and registry is made once for an image, when its manifest is fetched: a mirror that \
         fails after that fails the pull."
            .to_owned(),
    );
    Ok(plan)
}

type Edits = Vec<(String, Vec<String>)>;

/// Returns which file holds, or is to hold, the entry of each registry, and what to know of that.
fn whose(machine: &Machine, registries: &[String]) -> Result<(Edits, Vec<String>), String> {
    let drop_ins = machine.names(FOLDER).into_iter().filter(|name| name.ends_with(".conf"));
    let files = [MAIN.to_owned()].into_iter().chain(drop_ins.map(|name| format!("{FOLDER}/{name}")));
    let mut entries = Vec::new();
    for path in files {
        let Some(text) = machine.read(&path)? else { continue };
        let found = entries_of(&text).map_err(|what| format!("{}:{what}", machine.shown(&path)))?;
        entries.extend(found.into_iter().map(|entry| (path.clone(), entry)));
    }
    let mut edits: Edits = Vec::new();
    let mut notes = Vec::new();
    for registry in registries {
        let below = format!("{registry}/");
        for (path, entry) in entries.iter().filter(|(_, entry)| entry.prefix.starts_with(&below)) {
            notes.push(format!(
                "{path} has an entry for {} of its own, which this one does not touch.",
                entry.prefix
            ));
        }
        let holder = entries.iter().rev().find(|(_, entry)| entry.prefix == *registry);
        if holder.is_some_and(|(_, entry)| entry.is_blocked) {
            notes.push(format!(
                "{registry} is blocked in {}, and stays so.",
                holder.map_or("", |(path, _)| path)
            ));
            continue;
        }
        let path = holder.map_or(OURS, |(path, _)| path);
        match edits.iter_mut().find(|(file, _)| file == path) {
            Some((_, registries)) => registries.push(registry.clone()),
            None => edits.push((path.to_owned(), vec![registry.clone()])),
        }
    }
    Ok((edits, notes))
}

struct Entry {
    prefix: String,
    is_blocked: bool,
}

fn entries_of(text: &str) -> Result<Vec<Entry>, String> {
    let document = toml::parse(text)?;
    if let Some((key, _)) = document.get_ref().iter().find(|(key, _)| *key.get_ref() == "registries") {
        let line = line_of(text, key.span().start);
        return Err(format!(
            "{line}: [registries.*] is version 1 of this file, which has no mirrors; expected [[registry]]"
        ));
    }
    let Some(list) = registries_of(document.get_ref(), text)? else { return Ok(Vec::new()) };
    let mut entries = Vec::new();
    for item in list.iter() {
        if let DeValue::Table(table) = item.get_ref() {
            let is_blocked =
                table.get("blocked").is_some_and(|value| matches!(value.get_ref(), DeValue::Boolean(true)));
            entries.push(Entry { prefix: prefix_of(table).unwrap_or_default().to_owned(), is_blocked });
        }
    }
    Ok(entries)
}

fn registries_of<'a, 'd>(document: &'a DeTable<'d>, text: &str) -> Result<Option<&'a DeArray<'d>>, String> {
    let Some(value) = document.get("registry") else { return Ok(None) };
    match value.get_ref() {
        DeValue::Array(list) => Ok(Some(list)),
        _ => {
            let line = line_of(text, value.span().start);
            Err(format!("{line}: registry: expected [[registry]], one for each registry"))
        }
    }
}

fn prefix_of<'a>(table: &'a DeTable<'_>) -> Option<&'a str> {
    let text = |key: &str| match table.get(key)?.get_ref() {
        DeValue::String(text) if !text.is_empty() => Some(&**text),
        _ => None,
    };
    text("prefix").or_else(|| text("location"))
}

/// Returns `text` with the mirror at `location` the first of `registry`'s.
fn with_mirror(text: &str, registry: &str, location: &str, is_plain: bool) -> Result<String, String> {
    let document = toml::parse(text)?;
    let insecure = if is_plain { "insecure = true\n" } else { "" };
    let mirror = format!("[[registry.mirror]]\nlocation = {}\n{insecure}", toml::quoted(location));
    let list = registries_of(document.get_ref(), text)?;
    let ours = |item: &&::toml::Spanned<DeValue<'_>>| matches!(item.get_ref(), DeValue::Table(table) if prefix_of(table) == Some(registry));
    let Some(item) = list.and_then(|list| list.iter().rev().find(ours)) else {
        let name = toml::quoted(registry);
        let open = if text.is_empty() || text.ends_with("\n\n") { "" } else { "\n" };
        let block = format!("{open}[[registry]]\nprefix = {name}\nlocation = {name}\n\n{mirror}");
        return Ok(with_block(text, text.len(), &block));
    };
    let start = item.span().start;
    if !text[start..].starts_with("[[") {
        let line = line_of(text, start);
        return Err(format!(
            "{line}: registry: a list in brackets cannot be edited here; write it as [[registry]]"
        ));
    }
    let DeValue::Table(table) = item.get_ref() else { return Ok(text.to_owned()) };
    let mirrors = match table.get("mirror").map(|value| (value.span(), value.get_ref())) {
        None => None,
        Some((_, DeValue::Array(list))) if list.iter().all(|item| text[item.span()].starts_with("[[")) => {
            Some(list)
        }
        Some((span, _)) => {
            let line = line_of(text, span.start);
            return Err(format!(
                "{line}: registry.mirror: expected [[registry.mirror]], one for each mirror"
            ));
        }
    };
    let is_it = |item: &::toml::Spanned<DeValue<'_>>| {
        matches!(item.get_ref(), DeValue::Table(table) if table.get("location").is_some_and(
            |value| matches!(value.get_ref(), DeValue::String(found) if **found == *location)))
    };
    match mirrors.and_then(|list| list.iter().next().map(|first| (list, first))) {
        Some((list, _)) if list.iter().any(is_it) => Ok(text.to_owned()),
        Some((_, first)) => {
            let at = start_of_line(text, first.span().start);
            Ok(with_block(text, at, &format!("{mirror}\n")))
        }
        None => {
            let at = end_of_part(text, &headers(&document, text), start);
            Ok(with_block(text, at, &format!("\n{mirror}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(text: &str) -> String {
        let after = with_mirror(text, "docker.io", "m:5000/docker.io", true).expect(text);
        assert_eq!(with_mirror(&after, "docker.io", "m:5000/docker.io", true).as_deref(), Ok(after.as_str()));
        after
    }

    const MIRROR: &str = "[[registry.mirror]]\nlocation = \"m:5000/docker.io\"\ninsecure = true\n";

    #[test]
    fn the_mirror_goes_before_those_that_are_there() {
        let before = "[[registry]]\nlocation = \"docker.io\" # hub\n\n# theirs\n[[registry.mirror]]\nlocation = \"x\"\n";
        let after = before.replace("[[registry.mirror]]", &format!("{MIRROR}\n[[registry.mirror]]"));
        assert_eq!(with(before), after);
    }

    #[test]
    fn the_mirror_goes_into_the_entry_that_is_there() {
        let before = "[[registry]]\nprefix = \"docker.io\"\nlocation = \"hub.example\"\n\n# other\n[[registry]]\nlocation = \"ghcr.io\"\n";
        let after = before.replace("\n\n# other", &format!("\n\n{MIRROR}\n# other"));
        assert_eq!(with(before), after);
    }

    #[test]
    fn an_entry_is_made_where_there_is_none() {
        let entry = format!("[[registry]]\nprefix = \"docker.io\"\nlocation = \"docker.io\"\n\n{MIRROR}");
        assert_eq!(with(""), entry);
        assert_eq!(
            with("short-name-mode = \"enforcing\""),
            format!("short-name-mode = \"enforcing\"\n\n{entry}")
        );
    }

    #[test]
    fn what_cannot_be_merged_is_refused_with_its_line() {
        for (text, error) in [
            ("registry = [{ location = \"docker.io\" }]\n", "1: registry: a list in brackets"),
            ("[registry]\nlocation = \"docker.io\"\n", "1: registry: expected [[registry]]"),
            (
                "[[registry]]\nlocation = \"docker.io\"\nmirror = [{location = \"x\"}]\n",
                "3: registry.mirror: expected",
            ),
        ] {
            let found = with_mirror(text, "docker.io", "m", true).expect_err(text);
            assert!(found.starts_with(error), "{text}: {found}");
        }
        let version_1 = entries_of("\n[registries.search]\nregistries = [\"docker.io\"]\n").err();
        assert!(version_1.is_some_and(|error| error.starts_with("2: [registries.*] is version 1")));
    }
}
