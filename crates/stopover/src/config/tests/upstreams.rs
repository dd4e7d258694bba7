//! Further registries: what their tables give, and what is wrong with them.

use std::path::Path;

use super::{super::read, WELL_KNOWN, from_file, mistakes};

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
        (
            "[upstreams.\"a.example\"]\nclient_key = \"k.pem\"",
            "upstream.client_key is set and upstream.client_certificate is not",
        ),
        ("[upstreams.\"a.example\"]\nrepository_prefix = \"/x\"", "upstream.repository_prefix"),
        ("[upstreams.\"a.example\"]\nrequests_max = -1", "upstream.requests_max"),
    ];
    for (text, expected) in table {
        let found = mistakes(from_file(text));
        assert!(found.len() == 1 && found[0].contains(expected), "{text:?}: {found:?}");
        assert!(found[0].starts_with("stopover.toml:"), "{text:?}: {found:?}");
    }
}

#[test]
fn a_registry_brings_its_place_and_its_pace_and_what_is_set_wins() {
    let one = |text: &str| from_file(text).expect("the table is right").config.upstreams.remove(0);
    let account = "username = \"AWS\"\npassword = \"x\"";
    let amazon = one("[upstreams.\"public.ecr.aws\"]");
    assert_eq!((&*amazon.url, amazon.pace.pulls_per_second), ("https://public.ecr.aws", 1));
    let amazon = one(&format!("[upstreams.\"public.ecr.aws\"]\n{account}"));
    assert_eq!(amazon.pace.pulls_per_second, 10, "an account may pull more");
    let amazon = one(&format!("[upstreams.\"public.ecr.aws\"]\n{account}\npulls_per_second = 3"));
    assert_eq!(amazon.pace.pulls_per_second, 3);
    let quay = one("[upstreams.\"quay.io\"]\nrequests_max = 99");
    assert_eq!((quay.pace.requests_max, quay.pace.requests_per_second), (99, 10));
    let google = one("[upstreams.\"europe-west1-docker.pkg.dev\"]");
    assert_eq!(google.url, "https://europe-west1-docker.pkg.dev");
    let other = one("[upstreams.\"registry.example\"]");
    assert_eq!((other.pace.requests_max, other.pace.requests_per_second), (256, 0));
}

/// `REGISTRY_PROXY_REMOTEURL=https://ghcr.io` is all that registry:2 is told.
#[test]
fn the_url_of_a_well_known_registry_gives_its_name_and_its_name_gives_the_url() {
    let table = [
        ("", "docker.io", "https://registry-1.docker.io"),
        ("url = \"https://registry-1.docker.io/\"", "docker.io", "https://registry-1.docker.io"),
        ("url = \"https://ghcr.io\"", "ghcr.io", "https://ghcr.io"),
        ("url = \"https://index.docker.io\"", "docker.io", "https://index.docker.io"),
        ("url = \"https://us-docker.pkg.dev\"", "us-docker.pkg.dev", "https://us-docker.pkg.dev"),
        ("registry = \"ghcr.io\"", "ghcr.io", "https://ghcr.io"),
        ("registry = \"a.example\"", "a.example", "https://a.example"),
        ("url = \"https://a.example/hub\"", "docker.io", "https://a.example/hub"),
        ("registry = \"quay.io\"\nurl = \"https://ghcr.io\"", "quay.io", "https://ghcr.io"),
        ("url = \"http://127.0.0.1:7000\"", "docker.io", "http://127.0.0.1:7000"),
    ];
    for (text, registry, url) in table {
        let upstream = from_file(&format!("[upstream]\n{text}")).expect("it is right").config.upstream;
        assert_eq!((&*upstream.registry, &*upstream.url), (registry, url), "{text}");
    }
}

/// registry:2 leaves the names of clients alone; here a registry without a name is Docker Hub's stand-in.
#[test]
fn a_registry_of_which_only_the_url_is_known_is_warned_of() {
    for (text, warned) in [
        ("url = \"https://hub.example\"", true),
        ("url = \"https://hub.example\"\nregistry = \"docker.io\"", false),
        ("url = \"https://hub.example\"\nregistry = \"hub.example\"", false),
        ("url = \"http://127.0.0.1:7000\"", false),
        ("url = \"https://registry-1.docker.io\"", false),
        ("url = \"https://ghcr.io\"", false),
    ] {
        let warnings = from_file(&format!("[upstream]\n{text}")).expect("it is right").warnings;
        let found = warnings.iter().any(|warning| warning.contains("set upstream.registry"));
        assert_eq!(found, warned, "{text}: {warnings:?}");
    }
}

/// The pages of docs/registries, each with its configurations.
#[test]
fn every_configuration_in_the_pages_on_registries_is_right() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/registries");
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).expect("the pages are there") {
        let path = entry.expect("a folder can be read to its end").path();
        let page = std::fs::read_to_string(&path).expect("a page is text");
        for block in page.split("```toml\n").skip(1) {
            let text = block.split("```").next().expect("a block has an end");
            let loaded = from_file(text).unwrap_or_else(|mistakes| panic!("{}: {mistakes}", path.display()));
            assert_eq!(loaded.warnings, Vec::<String>::new(), "{}", path.display());
            count += 1;
        }
    }
    assert!(count > 15, "{count} blocks were found");
    for known in &WELL_KNOWN {
        assert!(folder.join(format!("{}.md", known.registry)).exists(), "{} has a page", known.registry);
    }
}

#[test]
fn names_that_lead_to_two_registries_are_mistakes() {
    let table = [
        ("[upstream]\naliases = [\"ghcr.io\"]", "upstream.aliases: \"ghcr.io\" is a name of ghcr.io already"),
        ("[upstream]\naliases = [\"us.gcr.io\"]", "\"us.gcr.io\" is a name of a well-known registry already"),
        (
            "[upstreams.\"a.example\"]\naliases = [\"docker.io\"]",
            "\"docker.io\" is a name of docker.io already",
        ),
        ("[upstreams.\"a.example\"]\naliases = [\"index.docker.io\"]", "is a name of docker.io already"),
        (
            "[upstream]\naliases = [\"x\"]\n[upstreams.\"a.example\"]\naliases = [\"x\"]",
            "\"x\" is a name of docker.io already",
        ),
        ("[upstreams.\"x\"]\n[upstreams.\"a.example\"]\naliases = [\"x\"]", "\"x\" is a name of x already"),
        ("[upstream]\nhosts = [\"quay.io\"]", "upstream.hosts: \"quay.io\" is a name of quay.io already"),
        (
            "[upstream]\nhosts = [\"m.example\"]\n[upstreams.\"a.example\"]\nhosts = [\"M.example\"]",
            "\"m.example\" is a name of docker.io already",
        ),
        (
            "[upstream]\naliases = [\"m\"]\n[upstreams.\"a.example\"]\nhosts = [\"m\"]",
            "upstream.hosts: \"m\" is a name",
        ),
        (
            "[upstream]\naliases = [\"x\"]\n[http]\nprefix = \"/x/\"",
            "http.prefix: its first part is a name of docker.io",
        ),
        ("[http]\nprefix = \"/ghcr.io/v/\"", "http.prefix: its first part is a name of ghcr.io"),
        ("[http]\nprefix = \"/v2/\"", "http.prefix: found \"/v2/\""),
        ("[http]\nprefix = \"/library/\"", "http.prefix: found"),
        ("[http]\nprefix = \"//a\"", "http.prefix: found"),
        ("[http]\nprefix = \"/a/../b\"", "http.prefix: found"),
        (
            "[upstream]\naliases = [\"v2\"]",
            "upstream.aliases: found a list, expected a list of names in lower case",
        ),
        ("[upstream]\naliases = [\"library\"]", "upstream.aliases: found"),
        ("[upstream]\naliases = [\"a/b\"]", "upstream.aliases: found"),
        ("[upstream]\naliases = [\"Hub\"]", "upstream.aliases: found"),
        ("[upstream]\naliases = [\"\"]", "upstream.aliases: found"),
        ("[upstream]\nhosts = [\"m.example:5000\"]", "upstream.hosts: found"),
        ("[upstreams.\"library\"]", "upstream.registry: \"library\" is a part of paths already"),
    ];
    for (text, expected) in table {
        let found = mistakes(from_file(text));
        assert!(found.len() == 1 && found[0].contains(expected), "{text:?}: {found:?}");
        assert!(found[0].starts_with("stopover.toml:"), "{text:?}: {found:?}");
    }
    for right in [
        "[upstream]\naliases = [\"hub\"]\nhosts = [\"docker.io\", \"m.example\"]",
        "[upstreams.\"a.example:5000\"]\naliases = [\"a.example\", \"lab\"]",
        "[route]\nwell_known = false\n[upstream]\naliases = [\"ghcr.io\", \"us.gcr.io\"]",
        "[http]\nprefix = \"/\"",
    ] {
        assert!(from_file(right).is_ok(), "{right}");
    }
}

/// Reads a file and variables.
fn both(file: &str, variables: &[(&str, &str)]) -> Result<super::Loaded, super::Mistakes> {
    let variables = variables.iter().map(|(name, value)| (String::from(*name), String::from(*value)));
    read(Some(("stopover.toml", file)), variables)
}

#[test]
fn a_variable_sets_a_key_of_a_further_registry() {
    let file = "[upstreams.\"my-lab.example:5000\"]\nusername = \"ben\"\n";
    let variables = [
        ("STOPOVER_UPSTREAMS__GHCR_IO__USERNAME", "ann"),
        ("STOPOVER_UPSTREAMS__GHCR_IO__PASSWORD", "hush"),
        ("STOPOVER_UPSTREAMS__MY_LAB_EXAMPLE_5000__PASSWORD", "hush too"),
        ("STOPOVER_UPSTREAMS__MY_LAB_EXAMPLE_5000__ALIASES", "lab,laboratory"),
        ("STOPOVER_UPSTREAMS__REGISTRY_K8S_IO__STALL_TIMEOUT", "9s"),
    ];
    let config = both(file, &variables).expect("all of it is right").config;
    let of = |registry: &str| config.upstreams.iter().find(|upstream| upstream.registry == registry).unwrap();
    assert_eq!(of("ghcr.io").username.as_deref(), Some("ann"));
    assert_eq!(of("ghcr.io").url, "https://ghcr.io");
    assert_eq!(of("my-lab.example:5000").username.as_deref(), Some("ben"));
    assert!(
        of("my-lab.example:5000").password.as_ref().is_some_and(|password| password.expose() == "hush too")
    );
    assert_eq!(of("my-lab.example:5000").aliases, ["lab", "laboratory"]);
    assert_eq!(of("registry.k8s.io").stall_timeout, super::seconds(9));
    assert!(!config.effective().contains("hush"));
}

#[test]
fn a_variable_that_means_no_registry_is_a_mistake_that_helps() {
    let two = "[upstreams.\"a-b.example\"]\n[upstreams.\"a.b.example\"]";
    for (file, variable, expected) in [
        ("", "STOPOVER_UPSTREAMS__GHCR_OI__USERNAME", "did you mean STOPOVER_UPSTREAMS__GHCR_IO__USERNAME?"),
        ("", "STOPOVER_UPSTREAMS__REGISTRY_CORP__USERNAME", "A table [upstreams.\"<registry>\"] in the file"),
        ("", "STOPOVER_UPSTREAMS__GHCR_IO", "expected STOPOVER_UPSTREAMS__<REGISTRY>__<KEY>"),
        (
            "",
            "STOPOVER_UPSTREAMS__GHCR_IO__USERNME",
            "unknown key upstream.usernme; did you mean upstream.username?",
        ),
        ("", "STOPOVER_UPSTREAMS__GHCR_IO__REGISTRY", "unknown key upstream.registry"),
        (
            two,
            "STOPOVER_UPSTREAMS__A_B_EXAMPLE__REALMS",
            "a-b.example and a.b.example are spelt so; set the key in the file",
        ),
        ("", "STOPOVER_UPSTREAMS__DOCKER_IO__REALMS", "[upstream] is one: set STOPOVER_UPSTREAM__REALMS"),
    ] {
        let found = mistakes(both(file, &[(variable, "a.example")]));
        assert!(found.len() == 1 && found[0].contains(expected), "{variable}: {found:?}");
        assert!(found[0].starts_with(&format!("{variable}: ")), "{variable}: {found:?}");
    }
}
