//! Puts a variable's value into the tree of a `config.yml`.

use super::yaml::{Content, Entry, Node};
use crate::config::mistake::{Mistake, Place};

/// Sections that may be written as one word, the name of the entry that is meant: `storage: filesystem`.
const BY_NAME: [&str; 2] = ["storage", "auth"];

/// Writes out what stands as one word for a section of its own.
pub(super) fn normalize(root: &mut Node) {
    let Content::Map(entries) = &mut root.content else { return };
    for entry in entries.iter_mut().filter(|entry| BY_NAME.contains(&&*entry.name)) {
        if let Content::Scalar(name) = &entry.node.content {
            let (name, place) = (name.clone(), entry.node.place.clone());
            let inner = Entry { name, place: place.clone(), node: Node::empty(place) };
            entry.node.content = Content::Map(vec![inner]);
        }
    }
}

/// Puts `value` where `path` leads to, in the place of what is there. A number leads into a list: to the element of that
/// index, or to one after the last.
pub(super) fn put(root: &mut Node, path: &[String], value: Node) -> Result<(), Mistake> {
    let place = value.place.clone();
    let mut node = &mut *root;
    for name in path {
        node = step(node, name, &place)?;
    }
    *node = value;
    normalize(root);
    Ok(())
}

fn step<'a>(node: &'a mut Node, name: &str, place: &Place) -> Result<&'a mut Node, Mistake> {
    let new = || Node { place: place.clone(), content: Content::Null };
    let index = name.parse::<usize>().ok();
    if !matches!((&node.content, index), (Content::Map(_), _) | (Content::List(_), Some(_))) {
        // What was nothing or one value becomes what the path says.
        let empty = if index.is_some() { Content::List(Vec::new()) } else { Content::Map(Vec::new()) };
        *node = Node { place: place.clone(), content: empty };
    }
    match (&mut node.content, index) {
        (Content::List(list), Some(index)) => {
            if index > list.len() {
                let what = format!(
                    "the list has {} elements, so expected an index up to {}",
                    list.len(),
                    list.len()
                );
                return Err(Mistake::new(place.clone(), what));
            }
            if index == list.len() {
                list.push(new());
            }
            Ok(&mut list[index])
        }
        (Content::Map(entries), _) => {
            // Names that are there already are found whatever their letters' size, as there.
            let there = entries.iter().rposition(|entry| entry.name.eq_ignore_ascii_case(name));
            let at = there.unwrap_or_else(|| {
                entries.push(Entry { name: name.to_owned(), place: place.clone(), node: new() });
                entries.len() - 1
            });
            entries[at].place = place.clone();
            Ok(&mut entries[at].node)
        }
        _ => Err(Mistake::new(place.clone(), format!("{name}: expected a section or a list"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::registry::yaml::{parse, shown};

    fn place(line: usize, column: usize) -> Place {
        Place::Line { file: "f".to_owned(), line, column }
    }

    #[test]
    fn a_value_takes_the_place_of_what_its_path_leads_to() {
        let table = [
            ("a: {b: 1, c: 2}", "a.b", "3", "a: {b: 3, c: 2}"),
            ("a: {b: 1}", "a", "{d: 4}", "a: {d: 4}"),
            ("{}", "a.b.c", "x", "a: {b: {c: x}}"),
            ("a: ~", "a.b", "x", "a: {b: x}"),
            ("a: [x]", "a.0", "y", "a: [y]"),
            ("a: [x]", "a.1", "y", "a: [x, y]"),
            ("{}", "a.0.b", "y", "a: [{b: y}]"),
            ("h: {X-Frame: [a]}", "h.x-frame", "[b]", "h: {X-Frame: [b]}"),
            (
                "storage: {filesystem: {rootdirectory: /a}}",
                "storage",
                "filesystem",
                "storage: {filesystem: {}}",
            ),
            (
                "storage: filesystem",
                "storage.filesystem.rootdirectory",
                "/b",
                "storage: {filesystem: {rootdirectory: /b}}",
            ),
        ];
        for (before, path, value, after) in table {
            let mut tree = parse(before, &place).unwrap();
            let path: Vec<String> = path.split('.').map(str::to_owned).collect();
            put(&mut tree, &path, parse(value, &place).unwrap()).unwrap();
            assert_eq!(shown(&tree), shown(&parse(after, &place).unwrap()), "{before} {after}");
        }
    }

    #[test]
    fn an_index_beyond_the_end_of_a_list_is_a_mistake() {
        let mut tree = parse("a: [x]", &place).unwrap();
        let path = ["a".to_owned(), "2".to_owned()];
        let mistake = put(&mut tree, &path, parse("y", &place).unwrap()).unwrap_err().to_string();
        assert_eq!(mistake, "f:1:1: the list has 1 elements, so expected an index up to 1");
    }
}
