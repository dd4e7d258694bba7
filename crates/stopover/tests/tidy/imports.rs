//! Who imports whom, read out of tokens and held against the plan. Pure.

use std::collections::BTreeSet;

use super::source::Token;

/// Each module, and what it may import.
pub(crate) type Plan = [(&'static str, &'static [&'static str])];

/// In place of a list of modules: no limit.
pub(crate) const EVERYTHING: &str = "everything";

/// Returns what a file imports although the plan does not let it. `module` is the way from the crate's root to the file.
pub(crate) fn forbidden_imports(plan: &Plan, module: &[&str], tokens: &[Token<'_>]) -> Vec<String> {
    let importer = module[0];
    let Some((_, may)) = plan.iter().find(|(name, _)| *name == importer) else {
        return vec![format!("`{importer}` has no row in the plan")];
    };
    let allowed = |name: &str| name == importer || may.contains(&name) || may.contains(&EVERYTHING);
    imports(module.len(), tokens)
        .into_iter()
        .filter(|imported| !allowed(imported.text))
        .map(|imported| format!("line {}: `{importer}` may not import `{}`", imported.line, imported.text))
        .collect()
}

/// Returns the names directly below the crate's root that a file uses, and `oci` where it uses that crate. `depth` is
/// how many modules the file lies below the root.
fn imports<'a>(depth: usize, tokens: &[Token<'a>]) -> Vec<Token<'a>> {
    let word = |at: usize| tokens.get(at).map_or("", |token| token.text);
    let mut found = Vec::new();
    // Whether each open brace is that of a module within the file, where `super` is one step shorter.
    let mut braces = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let mut next = at + 1;
        let goes_on = word(next) == "::" && (at == 0 || word(at - 1) != "::");
        match word(at) {
            "{" => braces.push(at >= 2 && word(at - 2) == "mod"),
            "}" => _ = braces.pop(),
            "oci" if goes_on => found.push(tokens[at]),
            "crate" if goes_on => found.extend(heads(&tokens[at + 2..])),
            "super" if goes_on => {
                let mut steps = 1;
                while word(next + 1) == "super" && word(next + 2) == "::" {
                    (steps, next) = (steps + 1, next + 2);
                }
                let modules = depth + braces.iter().filter(|&&is_module| is_module).count();
                if steps >= modules {
                    found.extend(heads(&tokens[next + 1..]));
                }
            }
            _ => {}
        }
        at = next;
    }
    found
}

/// Returns the first names of a path: one, or those of the group that it begins with.
fn heads<'a>(path: &[Token<'a>]) -> Vec<Token<'a>> {
    let Some(first) = path.first() else { return Vec::new() };
    if first.text != "{" {
        return vec![*first];
    }
    let mut heads = Vec::new();
    let (mut depth, mut starts) = (0, false);
    for token in path {
        match token.text {
            "{" => (depth, starts) = (depth + 1, depth == 0),
            "}" if depth == 1 => break,
            "}" => depth -= 1,
            "," => starts = depth == 1,
            _ if starts => {
                heads.push(*token);
                starts = false;
            }
            _ => {}
        }
    }
    heads
}

/// Returns the rows of the plan in a document: lines of a table with four cells, of which the first names the module
/// and the last what it may import.
pub(crate) fn plan_shown_in(document: &str) -> Vec<(String, BTreeSet<String>)> {
    let rows = document.lines().filter_map(|line| {
        let cells: Vec<&str> = line.strip_prefix("| `")?.trim_end().strip_suffix('|')?.split(" | ").collect();
        let [module, _, _, may] = cells.as_slice() else { return None };
        let may = may.trim();
        let names = match may {
            "everything" => BTreeSet::from([EVERYTHING.to_owned()]),
            "nothing" => BTreeSet::new(),
            _ => may.split('`').skip(1).step_by(2).map(str::to_owned).collect(),
        };
        Some((module.trim_end_matches('`').to_owned(), names))
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::{super::source::tokens, *};

    const PLAN: &Plan =
        &[("cache", &["oci", "store"]), ("store", &["oci"]), ("clock", &[]), ("server", &[EVERYTHING])];

    #[test]
    fn a_planted_import_is_found_however_it_is_written() {
        for (module, code, found) in [
            (&["store"][..], "use crate::cache;", "cache"),
            (&["store"], "use crate::cache::Cache;", "cache"),
            (&["store"], "use crate::{cache::{Cache, Error}, store::Spool};", "cache"),
            (&["store"], "use crate::{\n    store::{self, Spool},\n    cache,\n};", "cache"),
            (&["store"], "fn f() -> crate::cache::Cache {}", "cache"),
            (&["store"], "use super::cache::Cache;", "cache"),
            (&["store"], "use super::{Stamp, cache::Cache};", "Stamp cache"),
            (&["store", "fs"], "use super::super::cache;", "cache"),
            (&["store", "fs"], "use super::cache;", ""),
            (&["store"], "mod tests { use super::super::cache; use super::*; }", "cache"),
            (&["store", "fs"], "mod tests { use super::super::cache; }", ""),
            (&["store"], "pub(crate) use crate::cache as c;", "cache"),
            (&["clock"], "use oci::Digest; fn f(d: oci::Digest) {}", "oci oci"),
            (&["store"], "use oci::Digest;", ""),
            (&["cache"], "use crate::{cache::Fill, store::Spool};", ""),
            (&["store"], "// use crate::cache;\nlet x = \"crate::cache\";", ""),
            (&["store"], "a::oci::b(); x::crate_::c();", ""),
            (&["server"], "use crate::{cache, upstream, anything};", ""),
        ] {
            let wrong = forbidden_imports(PLAN, module, &tokens(code));
            let names: Vec<&str> =
                wrong.iter().map(|what| what.rsplit('`').nth(1).expect("it names what it found")).collect();
            assert_eq!(names.join(" "), found, "{module:?}: {code}");
        }
        let wrong = forbidden_imports(PLAN, &["store"], &tokens("\nuse crate::cache;"));
        assert_eq!(wrong, ["line 2: `store` may not import `cache`"]);
    }

    #[test]
    fn a_module_without_a_row_is_found() {
        let wrong = forbidden_imports(PLAN, &["peer"], &tokens(""));
        assert_eq!(wrong, ["`peer` has no row in the plan"]);
    }

    #[test]
    fn a_plan_is_read_out_of_a_document() {
        let document = "| module | for | holds | may import |\n|---|---|---|---|\n\
                        | `store` | bytes by `Digest` | x | `oci`, `metrics` |\n\
                        | `clock` | the time | y | nothing |\n| `server` | all | z | everything |\n\
                        | `two` | cells |\n";
        let names = |list: &[&str]| list.iter().map(|&name| name.to_owned()).collect::<BTreeSet<_>>();
        let expected = [
            ("store".to_owned(), names(&["metrics", "oci"])),
            ("clock".to_owned(), names(&[])),
            ("server".to_owned(), names(&["everything"])),
        ];
        assert_eq!(plan_shown_in(document), expected);
    }
}
