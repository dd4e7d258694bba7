//! Holds the code to the plan of the house: who imports whom, how long a file is, how it begins, what it must not hold.
//!
//! The table below is the plan. ARCHITECTURE.md shows the same one to people, and a test keeps the two alike. The check
//! reads tokens, not meanings: it sees `crate::x` and `super::x` wherever they stand, but no name that came by a
//! re-export.

#[path = "tidy/imports.rs"]
mod imports;
#[path = "tidy/source.rs"]
mod source;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use imports::{EVERYTHING, Plan, forbidden_imports};
use source::{Token, outside_tests, tokens};

/// Each module of the product, and what it may import besides itself. `oci` is the crate.
const PLAN: &Plan = &[
    ("clock", &[]),
    ("flight", &[]),
    ("health", &[]),
    ("metrics", &[]),
    ("config", &["oci"]),
    ("source", &["oci"]),
    ("log", &["config", "metrics"]),
    ("listen", &["config"]),
    ("egress", &["config", "flight", "metrics"]),
    ("store", &["egress", "metrics", "oci"]),
    ("index", &["clock", "oci"]),
    ("upstream", &["clock", "config", "egress", "flight", "index", "metrics", "oci", "source"]),
    ("route", &["oci", "source"]),
    ("access", &["clock", "config", "flight", "metrics", "oci"]),
    ("cache", &["clock", "flight", "index", "metrics", "oci", "source", "store"]),
    ("collect", &["clock", "index", "oci", "store"]),
    ("http", &["access", "cache", "health", "listen", "log", "metrics", "oci", "route", "source", "tls"]),
    ("quota", &["clock", "config", "source"]),
    ("admin", &["config", "health", "listen", "metrics", "quota"]),
    ("tls", &["config", "metrics"]),
    ("server", &[EVERYTHING]),
    ("client", &["config", "tls"]),
    ("cli", &["client", "collect", "config", "listen", "log", "metrics", "quota", "server", "tls"]),
];

/// Lines of a file at most; well before that it holds two things.
const LINES_MAX: usize = 500;
/// The one file with `unsafe`.
const UNSAFE_FILE: &str = "crates/stopover/src/http/ghost.rs";
/// What code must not hold outside of tests: the tokens, and what to do instead.
const BANNED: &[(&[&str], &str)] = &[
    (&["todo", "!"], "finish it, or file an issue"),
    (&["unimplemented", "!"], "finish it, or file an issue"),
    (&["dbg", "!"], "log it, or take it out"),
    (&[".", "unwrap", "(", ")"], "use expect(\"why this cannot fail\"), or return the error"),
];

/// A source file of the workspace.
struct File {
    /// Its path from the top of the repository, with slashes.
    name: String,
    text: String,
}

impl File {
    fn is_test(&self) -> bool {
        self.name.contains("/tests/") || self.name.ends_with("/tests.rs")
    }

    /// Returns the modules from the crate's root down to this file, where it is one of the product's.
    fn module(&self) -> Option<Vec<&str>> {
        let path = self.name.strip_prefix("crates/stopover/src/")?.strip_suffix(".rs")?;
        (!matches!(path, "lib" | "main")).then(|| path.split('/').collect())
    }
}

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(name: &str) -> String {
    fs::read_to_string(top().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Returns every source file of every crate.
fn files() -> Vec<File> {
    let mut files = Vec::new();
    let mut names = vec!["crates".to_owned()];
    while let Some(name) = names.pop() {
        let path = top().join(&name);
        if path.is_dir() {
            let entries = fs::read_dir(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
            for entry in entries {
                let child = entry.expect("a folder can be read to its end").file_name();
                names.push(format!("{name}/{}", child.to_str().expect("our names are ASCII")));
            }
        } else if name.ends_with(".rs") {
            files.push(File { text: read(&name), name });
        }
    }
    assert!(files.len() > 50, "only {} source files were found", files.len());
    files
}

/// Fails with all that `each` finds wrong with a file, one line each.
fn check_files(each: impl Fn(&File) -> Vec<String>) {
    let wrong: Vec<String> = files()
        .iter()
        .flat_map(|file| each(file).into_iter().map(|what| format!("{}: {what}", file.name)))
        .collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn no_module_imports_what_the_plan_does_not_let_it() {
    check_files(|file| match file.module() {
        Some(module) => forbidden_imports(PLAN, &module, &tokens(&file.text)),
        None => Vec::new(),
    });
}

#[test]
fn the_plan_has_every_module_and_no_other() {
    let present: BTreeSet<String> =
        files().iter().filter_map(|file| Some((*file.module()?.first()?).to_owned())).collect();
    let planned: BTreeSet<String> = PLAN.iter().map(|(module, _)| (*module).to_owned()).collect();
    assert_eq!(present, planned, "left: the modules there are; right: those with a row in PLAN");
}

#[test]
fn architecture_md_shows_the_plan_as_it_is() {
    let shown = imports::plan_shown_in(&read("ARCHITECTURE.md"));
    let planned: Vec<(String, BTreeSet<String>)> = PLAN
        .iter()
        .map(|(module, may)| ((*module).to_owned(), may.iter().map(|&name| name.to_owned()).collect()))
        .collect();
    for row in &planned {
        assert!(shown.contains(row), "ARCHITECTURE.md lacks this row, or has it otherwise: {row:?}");
    }
    assert_eq!(shown.len(), planned.len(), "ARCHITECTURE.md has a row too many: {shown:?}");
}

#[test]
fn files_are_short_and_begin_with_what_they_are_for() {
    check_files(|file| {
        let lines = file.text.lines().count();
        let mut wrong = Vec::new();
        if lines > LINES_MAX {
            wrong.push(format!("{lines} lines; at most {LINES_MAX}: which two things does it hold?"));
        }
        if !file.text.starts_with("//! ") {
            wrong.push("does not begin with `//! `, what it is for".to_owned());
        }
        wrong
    });
}

#[test]
fn unsafe_stands_in_one_file() {
    check_files(|file| {
        if file.name == UNSAFE_FILE {
            return Vec::new();
        }
        let found = tokens(&file.text).into_iter().filter(|token| token.text == "unsafe");
        found.map(|token| format!("line {}: `unsafe` outside of {UNSAFE_FILE}", token.line)).collect()
    });
}

#[test]
fn no_code_is_left_unfinished_or_gives_up() {
    check_files(|file| if file.is_test() { Vec::new() } else { banned(&outside_tests(&tokens(&file.text))) });
}

fn banned(tokens: &[Token<'_>]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        for (words, instead) in BANNED {
            let here = tokens[at..].iter().map(|token| token.text).take(words.len());
            if here.eq(words.iter().copied()) {
                wrong.push(format!("line {}: `{}`; {instead}", token.line, words.concat()));
            }
        }
    }
    wrong
}

#[test]
fn the_documents_name_every_key_and_none_that_is_not() {
    let reference = stopover::config::reference();
    let variables = |text: &str| -> BTreeSet<String> {
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        words.filter(|word| word.starts_with("STOPOVER_") && word.contains("__")).map(str::to_owned).collect()
    };
    let keys = variables(&reference);
    assert!(keys.len() > 20, "the reference has lost its keys: {keys:?}");
    assert_eq!(variables(&read("docs/configuration.md")), keys, "docs/configuration.md is not current");

    // `section.key`, as prose names it.
    let variable = |key: &str| format!("STOPOVER_{}", key.replacen('.', "__", 1).to_uppercase());
    let sections: BTreeSet<String> = keys
        .iter()
        .filter_map(|key| key.strip_prefix("STOPOVER_")?.split_once("__"))
        .map(|(section, _)| section.to_lowercase())
        .collect();
    for name in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "docs/request-handling.md"] {
        let text = read(name);
        let unknown: Vec<String> = variables(&text).difference(&keys).cloned().collect();
        assert!(unknown.is_empty(), "{name} names {unknown:?}, which are no keys");
        for word in text.split('`').skip(1).step_by(2) {
            let is_key = |(section, key): (&str, &str)| {
                sections.contains(section)
                    && key.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase())
            };
            let names_a_file = word.ends_with(".rs") || word.ends_with(".md");
            if !names_a_file && word.split_once('.').is_some_and(is_key) {
                assert!(keys.contains(&variable(word)), "{name} names `{word}`, which is no key");
            }
        }
    }
}

#[test]
fn a_planted_fault_is_found() {
    // Put together, so that who searches the sources for leftovers finds none.
    let code = concat!(
        "\n#[cfg(test)]\nmod tests { fn f() { x.unwrap(); } }\n",
        "fn g() { y.unwrap(); dbg",
        "!(z); }\n"
    );
    let wrong = banned(&outside_tests(&tokens(code)));
    assert_eq!(wrong.len(), 2, "{wrong:?}");
    assert!(
        wrong[0].starts_with("line 4: `.unwrap()`") && wrong[1].starts_with(concat!("line 4: `dbg", "!`")),
        "{wrong:?}"
    );
}
