//! Edits to TOML in each of the ways in which people write it.

use super::*;

fn section(path: &[&str], place: Place, keys: Vec<(&'static str, Want)>) -> Section {
    let path = path.iter().map(|&part| part.to_owned()).collect();
    Section { path, comment: "why".to_owned(), place, keys }
}

fn holds(item: &str) -> Want {
    Want::Holds(item.to_owned())
}

fn is(literal: &str) -> Want {
    Want::Is(literal.to_owned())
}

fn mirrors() -> Section {
    section(&["registry", "docker.io"], Place::Last, vec![("mirrors", holds("m:5000"))])
}

fn with(text: &str, section: &Section) -> String {
    let after = with_section(text, section).expect(text);
    assert_eq!(with_section(&after, section).as_deref(), Ok(after.as_str()), "a second time");
    after
}

#[test]
fn a_list_gets_its_item_however_it_is_written() {
    let fresh = "# why\n[registry.\"docker.io\"]\n  mirrors = [\"m:5000\"]\n";
    for (before, after) in [
        ("", fresh.to_owned()),
        ("debug = true\n", format!("debug = true\n\n{fresh}")),
        ("debug = true", format!("debug = true\n\n{fresh}")),
        ("[registry.\"ghcr.io\"]\nhttp = true\n", format!("[registry.\"ghcr.io\"]\nhttp = true\n\n{fresh}")),
        (
            "[registry.\"docker.io\"] # hub\n  # ours\n  http = false\n[z]\n",
            "[registry.\"docker.io\"] # hub\n  mirrors = [\"m:5000\"]\n  # ours\n  http = false\n[z]\n"
                .to_owned(),
        ),
        (
            "[registry.'docker.io']\nmirrors = [ 'x', \"y\" ] # both\n",
            "[registry.'docker.io']\nmirrors = [ \"m:5000\", 'x', \"y\" ] # both\n".to_owned(),
        ),
        (
            "[registry.\"docker.io\"]\nmirrors = [\n  \"x\",\n]\n",
            "[registry.\"docker.io\"]\nmirrors = [\n  \"m:5000\",\n  \"x\",\n]\n".to_owned(),
        ),
        (
            "[registry.\"docker.io\"]\nmirrors = [] # none\n",
            "[registry.\"docker.io\"]\nmirrors = [\"m:5000\"] # none\n".to_owned(),
        ),
        (
            "registry.\"docker.io\".mirrors = [\"x\"]\n",
            "registry.\"docker.io\".mirrors = [\"m:5000\", \"x\"]\n".to_owned(),
        ),
        (
            "registry = { \"docker.io\" = { http = true } }\n",
            "registry = { \"docker.io\" = { http = true, mirrors = [\"m:5000\"] } }\n".to_owned(),
        ),
        ("[registry.\"docker.io\"]", "[registry.\"docker.io\"]\n  mirrors = [\"m:5000\"]\n".to_owned()),
    ] {
        assert_eq!(with(before, &mirrors()), after);
    }
}

#[test]
fn a_value_is_set_and_its_comment_stays() {
    let wanted = section(&["plugins", "io.x", "registry"], Place::Last, vec![("config_path", is("\"/a\""))]);
    let before = "[plugins]\n  [plugins.\"io.x\".registry]\n    config_path = \"\" # none\n    [plugins.\"io.x\".registry.auths]\n";
    assert_eq!(with(before, &wanted), before.replace("\"\" # none", "\"/a\" # none"));
    let before = "[plugins.\"io.x\".registry.auths]\nx = 1\n";
    assert_eq!(
        with(before, &wanted),
        "[plugins.\"io.x\".registry.auths]\nx = 1\n\n[plugins.\"io.x\".registry]\n  config_path = \"/a\"\n"
    );
}

#[test]
fn a_table_that_must_be_first_goes_before_its_siblings_and_their_comments() {
    let wanted = section(
        &["host", "http://m:5000"],
        Place::BeforeSiblings,
        vec![("capabilities", is("[\"pull\", \"resolve\"]"))],
    );
    let before = "server = \"https://x\"\n\n# theirs\n[host.\"https://y\"]\n  ca = \"z\"\n";
    let after = "server = \"https://x\"\n\n# why\n[host.\"http://m:5000\"]\n  capabilities = [\"pull\", \"resolve\"]\n\n\
                 # theirs\n[host.\"https://y\"]\n  ca = \"z\"\n";
    assert_eq!(with(before, &wanted), after);
}

#[test]
fn what_cannot_be_merged_is_refused_with_its_line() {
    for (text, error) in [
        ("\n[registry\n", "2: not TOML"),
        ("a = 1\nregistry = 5\n", "2: registry: found something else, expected a table"),
        ("registry.\"docker.io\" = \"x\"\n", "1: registry.docker.io: found something else, expected a table"),
        (
            "[registry.\"docker.io\"]\nmirrors = \"x\"\n",
            "2: mirrors: found \"x\", expected a list of strings",
        ),
        ("\nregistry = { \"ghcr.io\" = {} }\n", "2: [registry.docker.io] cannot be added"),
        ("registry.\"docker.io\".http = true\n", "1: [registry.docker.io] cannot be added"),
    ] {
        let found = with_section(text, &mirrors()).expect_err(text);
        assert!(found.starts_with(error), "{text:?}\nfound: {found}\nexpected: {error}");
    }
}

#[test]
fn a_header_within_a_string_is_none() {
    let text = "a = \"\"\"\n[not.this]\n\"\"\"\n[[b]]\nx = 1\n# about c\n\n[c.d]\n";
    let document = parse(text).expect("TOML");
    let headers = headers(&document, text);
    assert_eq!(headers.iter().map(|&at| line_of(text, at)).collect::<Vec<_>>(), [4, 8]);
    assert_eq!(
        &text[..end_of_part(text, &headers, headers[0])],
        "a = \"\"\"\n[not.this]\n\"\"\"\n[[b]]\nx = 1\n"
    );
}
