//! YAML, as a tree with places: what registry:2's `config.yml` and the values of its variables are written in.
//!
//! It promises that the tree is small, whatever the text is, that its aliases are resolved and its merge keys merged.
//! Only the first document counts, as it does there. It does not know what the names mean.

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, StrInput};

use crate::config::mistake::{Mistake, Place};

/// Nodes in a tree at most, aliases written out: a configuration has a hundred.
const NODES_MAX: usize = 10_000;
/// How deep a node may lie.
const DEPTH_MAX: usize = 32;
/// The name of an entry whose value is merged into the mapping that it stands in.
const MERGE: &str = "<<";

/// A value, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) content: Content,
}

/// What a value is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// Nothing, or `null`.
    Null,
    /// A text, a number, a flag: which of them, the one who reads it knows.
    Scalar(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the order written; of a name that stands there twice, the later counts.
    Map(Vec<Entry>),
}

/// A named value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) place: Place,
    pub(super) node: Node,
}

impl Node {
    /// Returns a mapping without entries.
    pub(super) fn empty(place: Place) -> Self {
        Self { place, content: Content::Map(Vec::new()) }
    }

    /// Returns the value of that name, where this is a mapping that has it.
    pub(super) fn entry(&self, name: &str) -> Option<&Node> {
        let Content::Map(entries) = &self.content else { return None };
        entries.iter().rfind(|entry| entry.name == name).map(|entry| &entry.node)
    }

    /// Returns the value at a path such as `http.tls.key`, unless it is not there or nothing.
    pub(super) fn at(&self, path: &str) -> Option<&Node> {
        let node = path.split('.').try_fold(self, |node, name| node.entry(name))?;
        (node.content != Content::Null).then_some(node)
    }

    /// Returns the text of a scalar.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Scalar(text) => Some(text),
            _ => None,
        }
    }

    /// Returns whether nothing is asked for by it: nothing at all, a flag that is off, or what says itself disabled.
    pub(super) fn asks_nothing(&self) -> bool {
        match &self.content {
            Content::Null => true,
            Content::Scalar(text) => text.is_empty() || flag(text) == Some(false),
            Content::List(list) => list.iter().all(Node::asks_nothing),
            Content::Map(entries) => {
                let disabled = self.entry("disabled").and_then(Node::text).and_then(flag);
                disabled == Some(true) || entries.iter().all(|entry| entry.node.asks_nothing())
            }
        }
    }

    fn count(&self) -> usize {
        1 + match &self.content {
            Content::Null | Content::Scalar(_) => 0,
            Content::List(list) => list.iter().map(Node::count).sum(),
            Content::Map(entries) => entries.iter().map(|entry| entry.node.count()).sum(),
        }
    }
}

/// Returns what `text` means where a flag is wanted, in the words of YAML 1.1, which registry:2 reads.
pub(super) fn flag(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" | "y" | "Y" => Some(true),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" | "n" | "N" => Some(false),
        _ => None,
    }
}

/// Reads the first document of `text`. `at` makes a place of a line and a column, both counted from 1.
pub(super) fn parse(text: &str, at: &dyn Fn(usize, usize) -> Place) -> Result<Node, Mistake> {
    let mut reader = Reader { parser: Parser::new_from_str(text), anchors: HashMap::new(), nodes: 0, at };
    loop {
        match reader.next()? {
            (Event::StreamStart | Event::DocumentStart(_) | Event::Nothing, _) => {}
            (Event::StreamEnd | Event::DocumentEnd, span) => {
                return Ok(Node { place: reader.place(span.start), content: Content::Null });
            }
            (event, span) => return reader.node(event, span, 0),
        }
    }
}

struct Reader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    at: &'a dyn Fn(usize, usize) -> Place,
}

impl<'a> Reader<'a> {
    fn place(&self, marker: Marker) -> Place {
        (self.at)(marker.line(), marker.col() + 1)
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), Mistake> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            // The parser's words hold nothing of the text, and so no secret.
            Some(Err(error)) => {
                Err(Mistake::new(self.place(*error.marker()), format!("not YAML: {}", error.info())))
            }
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn count(&mut self, nodes: usize, span: Span) -> Result<(), Mistake> {
        self.nodes += nodes;
        if self.nodes > NODES_MAX {
            let what = format!("too much: expected at most {NODES_MAX} values, aliases written out");
            return Err(Mistake::new(self.place(span.start), what));
        }
        Ok(())
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, Mistake> {
        let place = self.place(span.start);
        if depth > DEPTH_MAX {
            return Err(Mistake::new(place, format!("too deep: expected at most {DEPTH_MAX} levels")));
        }
        self.count(1, span)?;
        let (content, anchor) = match event {
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor).cloned() else {
                    return Err(Mistake::new(
                        place,
                        "an alias of what it stands in; expected one of something before",
                    ));
                };
                self.count(node.count(), span)?;
                return Ok(Node { place, ..node });
            }
            Event::Scalar(text, style, anchor, _) => {
                let nothing =
                    style == ScalarStyle::Plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                (if nothing { Content::Null } else { Content::Scalar(text.into_owned()) }, anchor)
            }
            Event::SequenceStart(anchor, _) => (Content::List(self.list(depth)?), anchor),
            Event::MappingStart(anchor, _) => (Content::Map(self.map(depth)?), anchor),
            _ => return Err(Mistake::new(place, "not YAML: expected a value")),
        };
        let node = Node { place, content };
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Node>, Mistake> {
        let mut list = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(list),
                (event, span) => list.push(self.node(event, span, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Vec<Entry>, Mistake> {
        let (mut entries, mut merged) = (Vec::new(), Vec::new());
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                break;
            }
            let place = self.place(span.start);
            let name = match self.node(event, span, depth + 1)?.content {
                Content::Scalar(name) => name,
                Content::Null => String::new(),
                _ => return Err(Mistake::new(place, "expected a name, found a list or a mapping")),
            };
            let (event, span) = self.next()?;
            let node = self.node(event, span, depth + 1)?;
            if name == MERGE {
                merged.push(node);
            } else {
                entries.push(Entry { name, place, node });
            }
        }
        for node in merged {
            merge(&mut entries, node)?;
        }
        Ok(entries)
    }
}

/// Adds the entries of a mapping, or of each of a list of them, that are not there yet.
fn merge(entries: &mut Vec<Entry>, node: Node) -> Result<(), Mistake> {
    match node.content {
        Content::Map(more) => {
            for entry in more {
                if !entries.iter().any(|there| there.name == entry.name) {
                    entries.push(entry);
                }
            }
            Ok(())
        }
        Content::List(list) => list.into_iter().try_for_each(|node| merge(entries, node)),
        _ => Err(Mistake::new(node.place, "<<: expected a mapping to merge, or a list of them")),
    }
}

/// Returns the tree as one line, for comparing.
#[cfg(test)]
pub(super) fn shown(node: &Node) -> String {
    match &node.content {
        Content::Null => "~".to_owned(),
        Content::Scalar(text) => text.clone(),
        Content::List(list) => format!("[{}]", list.iter().map(shown).collect::<Vec<_>>().join(", ")),
        Content::Map(entries) => {
            let each = entries.iter().map(|entry| format!("{}: {}", entry.name, shown(&entry.node)));
            format!("{{{}}}", each.collect::<Vec<_>>().join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place(line: usize, column: usize) -> Place {
        Place::Line { file: "f".to_owned(), line, column }
    }

    #[test]
    fn a_text_becomes_a_tree() {
        let table = [
            ("", "~"),
            ("# nothing\n", "~"),
            ("a: 1\nb:\n  c: 'x: y'\n  d: \"\\n\"\n", "{a: 1, b: {c: x: y, d: \n}}"),
            ("a: [x, 'y', null]\nb: {c: }\n", "{a: [x, y, ~], b: {c: ~}}"),
            ("a:\n- 1\n- - 2\n", "{a: [1, [2]]}"),
            ("a: ''\nb: 'null'\n", "{a: , b: null}"),
            ("a: &x {b: 1, c: 2}\nd: *x\n", "{a: {b: 1, c: 2}, d: {b: 1, c: 2}}"),
            ("a: &x {b: 1, c: 2}\nd:\n  <<: *x\n  b: 3\n", "{a: {b: 1, c: 2}, d: {b: 3, c: 2}}"),
            ("a: 1\n---\nb: 2\n", "{a: 1}"),
            ("---\na: 1\n...\n", "{a: 1}"),
            ("[nosniff]", "[nosniff]"),
        ];
        for (text, want) in table {
            assert_eq!(shown(&parse(text, &place).unwrap()), want, "{text}");
        }
    }

    #[test]
    fn a_value_knows_where_it_stands() {
        let tree = parse("a: 1\nhttp:\n  addr: :5000\n", &place).unwrap();
        assert_eq!(tree.at("http.addr").unwrap().place, place(3, 9));
        let Content::Map(entries) = &tree.content else { panic!("{tree:?}") };
        assert_eq!(entries[1].place, place(2, 1));
        assert!(tree.at("http.tls").is_none());
    }

    #[test]
    fn what_is_no_yaml_or_too_much_of_it_is_a_mistake_with_its_place() {
        let laughs = "a: &a [x, x, x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a, *a]\n\
                      c: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b, *b]\nd: [*c, *c, *c, *c, *c, *c, *c, *c, *c, *c]\n";
        let deep = format!("{}x{}", "[".repeat(40), "]".repeat(40));
        let table = [
            ("a: b: c\n", "f:1:5: not YAML: "),
            ("a: {b\n", "f:2:1: not YAML: "),
            ("a: *x\n", "f:1:4: not YAML: while parsing node, found unknown anchor"),
            ("a: &x [*x]\n", "f:1:8: an alias of what it stands in"),
            ("a: &x {<<: 5}\n", "f:1:12: <<: expected a mapping to merge"),
            ("[a]: 1\n", "f:1:1: expected a name"),
            (laughs, "f:4:"),
            (&deep, "f:1:34: too deep: expected at most 32 levels"),
        ];
        for (text, want) in table {
            let mistake = parse(text, &place).expect_err(text).to_string();
            assert!(mistake.starts_with(want), "{text}: {mistake}");
        }
        assert!(parse(laughs, &place).unwrap_err().to_string().contains("too much"));
    }

    #[test]
    fn a_document_of_the_largest_size_ends_soon() {
        for text in ["[".repeat(1 << 20), "- ".repeat(1 << 19), "a: ".repeat(1 << 18), "{a: ".repeat(1 << 18)]
        {
            assert!(parse(&text, &place).is_err());
        }
    }

    #[test]
    fn what_asks_for_nothing_is_known() {
        for (text, nothing) in [
            ("~", true),
            ("false", true),
            ("off", true),
            ("''", true),
            ("[]", true),
            ("{a: {b: [{}]}}", true),
            ("[{disabled: true, type: mail}]", true),
            ("true", false),
            ("x", false),
            ("{a: {b: 0}}", false),
            ("[{disabled: false, type: mail}]", false),
        ] {
            assert_eq!(parse(text, &place).unwrap().asks_nothing(), nothing, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_gives_a_tree_or_a_mistake(text in "[-:a-c \n\t\\[\\]{}&*<>!|'\"#,?%@0~]{0,60}") {
            let _either = parse(&text, &place);
        }
    }
}
