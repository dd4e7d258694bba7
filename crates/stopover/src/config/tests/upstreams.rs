//! Further registries: what their tables give, and what is wrong with them.

use super::{from_file, mistakes};

#[test]
fn a_table_for_each_further_registry() {
    let loaded = from_file(
        "[upstreams.\"ghcr.io\"]\nusername = \"ann\"\npassword = \"hush\"\n\
         [upstreams.\"registry.example.com:5000\"]\nurl = \"http://registry.example.com:5000\"\nanswer_timeout = \"4s\"",
    );
    let config = loaded.expect("both tables are right").config;
    let [github, example] = &config.upstreams[..] else { panic!("two tables are two registries") };
    assert_eq!((&*github.registry, &*github.url), ("ghcr.io", "https://ghcr.io"));
    assert_eq!(github.username.as_deref(), Some("ann"));
    assert_eq!(example.answer_timeout, super::seconds(4));
    assert_eq!(example.url, "http://registry.example.com:5000");
    assert!(!config.effective().contains("hush"), "a secret is not shown");
    assert!(config.effective().contains("[upstreams.\"ghcr.io\"]"));
}

#[test]
fn well_known_registries_are_there_unless_they_are_not_wanted() {
    let names = |text: &str| -> Vec<String> {
        let config = from_file(text).expect("the file is right").config;
        config.others().into_iter().map(|upstream| upstream.registry).collect()
    };
    assert!(names("").contains(&"quay.io".to_owned()));
    assert!(!names("").contains(&"docker.io".to_owned()), "it is the default one already");
    assert!(
        names("[upstream]\nregistry = \"quay.io\"\nurl = \"https://quay.io\"")
            .contains(&"docker.io".to_owned())
    );
    assert_eq!(names("[route]\nwell_known = false\n[upstreams.\"a.example\"]"), ["a.example"]);
    let once = names("[upstreams.\"ghcr.io\"]");
    assert_eq!(once.iter().filter(|name| *name == "ghcr.io").count(), 1);
}

#[test]
fn what_is_wrong_with_a_table_is_said_with_its_place() {
    let table = [
        ("upstreams = 1", "upstreams: expected a table for each registry, [upstreams.\"ghcr.io\"]"),
        ("[upstreams]\nghcr = 1", "upstreams.ghcr: expected a table, [upstreams.\"ghcr\"]"),
        (
            "[upstreams.\"docker.io\"]",
            "upstreams.docker.io: expected each registry once, and [upstream] is one",
        ),
        ("[upstreams.\"a.example\"]\nregistry = \"b\"", "registry"),
        ("[upstreams.\"a.example\"]\nusernme = \"b\"", "usernme"),
        (
            "[upstreams.\"a.example\"]\nusername = \"b\"",
            "upstream.username is set and upstream.password is not",
        ),
        ("[upstreams.\"https://a.example/x\"]", "upstream.registry"),
    ];
    for (text, expected) in table {
        let found = mistakes(from_file(text));
        assert!(found.len() == 1 && found[0].contains(expected), "{text:?}: {found:?}");
        assert!(found[0].starts_with("stopover.toml:"), "{text:?}: {found:?}");
    }
}
