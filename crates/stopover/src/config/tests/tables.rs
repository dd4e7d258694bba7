//! Accounts, ways out and mirrors: what their tables give, what is wrong with them, and that no secret of theirs is shown.

use super::{
    Account, Config, Credential, Egress, Loaded, Mirror, MirrorWhen, Mistakes, Secret, Share, Upstream, Way,
    from_file, mistakes, read, seconds,
};

const WHOLE: &str = r#"
[egresses.office]
address = "192.0.2.7"

[egresses.Cell]
proxy = "socks5://ann:hunter2@proxy.example:1080"
bandwidth = "5MB"

[upstream]
username = "first"
password = "hunter2"
anonymous = false
egresses = ["office", "2001:db8::7", "http://ben:hunter2@[::1]:3128/", "default"]
quota_reserve = 20
bandwidth = "10MB"

[upstream.accounts.zoe]
username = "zoe"
password = "hunter2"

[upstream.accounts.ann]
username = "acmebot"
password_file = "/run/secrets/x"
repositories = ["acme", "acme/app"]

[upstream.accounts."ann@b.c"]
identity_token = "hunter2"

[upstream.accounts.docker]
docker_config = "/root/.docker/config.json"

[upstream.accounts.aws]
credential_helper = "ecr-login"
credential_lifetime = 0

[upstream.mirrors.gcr]
url = "https://mirror.gcr.io/"
when = "first"
repositories = ["library"]

[upstream.mirrors.aws]
url = "https://public.ecr.aws"
repository_prefix = "docker"

[upstreams."ghcr.io"]
egresses = "Cell"
[upstreams."ghcr.io".accounts.bot]
username = "bot"
password = "hunter2"
"#;

fn name(text: &str) -> oci::RepositoryName {
    text.parse().expect("it is the name of a repository")
}

fn password(username: &str) -> Credential {
    Credential::Password { username: username.to_owned(), password: Secret::new("hunter2") }
}

fn account(name: &str, credential: Credential) -> Account {
    Account { name: name.to_owned(), credential, repositories: Vec::new() }
}

fn names(egresses: &[Egress]) -> Vec<&str> {
    egresses.iter().map(|egress| &*egress.name).collect()
}

#[test]
fn tables_give_accounts_ways_out_and_mirrors() {
    let Loaded { config, warnings, .. } = from_file(WHOLE).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    assert_eq!(warnings, [""; 0]);
    let upstream = &config.upstream;
    assert_eq!(upstream.username.as_deref(), Some("first"), "the first account stays where it was");
    let scoped = Credential::PasswordFile { username: "acmebot".to_owned(), file: "/run/secrets/x".into() };
    let helper = Credential::Helper { program: "ecr-login".to_owned(), lifetime: Some(seconds(0)) };
    let want = [
        account("zoe", password("zoe")),
        Account { repositories: vec![name("acme"), name("acme/app")], ..account("ann", scoped) },
        account("ann@b.c", Credential::IdentityToken(Secret::new("hunter2"))),
        account("docker", Credential::DockerConfig("/root/.docker/config.json".into())),
        account("aws", helper),
    ];
    assert_eq!(upstream.accounts, want, "in the order written");
    let cell = Egress {
        name: "Cell".to_owned(),
        way: Way::Proxy(Secret::new("socks5://ann:hunter2@proxy.example:1080")),
        bandwidth: Some(5_000_000),
    };
    let from = |name: &str| Egress {
        name: name.to_owned(),
        way: Way::From(name.parse().expect("it is an address")),
        bandwidth: None,
    };
    let office = Egress { name: "office".to_owned(), ..from("192.0.2.7") };
    let proxy = Way::Proxy(Secret::new("http://ben:hunter2@[::1]:3128"));
    let proxy = Egress { name: "http://[::1]:3128".to_owned(), way: proxy, bandwidth: None };
    assert_eq!(config.egresses, [office.clone(), cell.clone()], "in the order written");
    assert_eq!(upstream.egresses, [office, from("2001:db8::7"), proxy, Egress::default()]);
    let gcr = Mirror {
        name: "gcr".to_owned(),
        url: "https://mirror.gcr.io".to_owned(),
        repository_prefix: None,
        repositories: vec![name("library")],
        when: MirrorWhen::First,
    };
    let aws = Mirror {
        name: "aws".to_owned(),
        url: "https://public.ecr.aws".to_owned(),
        repository_prefix: Some(name("docker")),
        repositories: Vec::new(),
        when: MirrorWhen::Low,
    };
    assert_eq!(upstream.mirrors, [gcr, aws]);
    assert_eq!((upstream.quota_reserve, upstream.bandwidth), (Share::Count(20), Some(10_000_000)));
    assert!(!upstream.anonymous);
    let [github] = &config.upstreams[..] else { panic!("one further registry is configured") };
    assert_eq!(
        (&github.accounts[..], &github.egresses[..]),
        (&[account("bot", password("bot"))][..], &[cell][..])
    );
    assert!(github.has_account() && github.anonymous);
}

#[test]
fn what_is_in_force_shows_the_tables_and_sets_the_same_but_for_secrets() {
    let config = from_file(WHOLE).expect("the file is right").config;
    let shown = config.effective();
    for there in [
        "egresses = [\"office\", \"2001:db8::7\", \"http://***@[::1]:3128\", \"default\"]",
        "[upstream.accounts.\"ann@b.c\"]\nidentity_token = \"***\"\n",
        "[upstream.accounts.zoe]\nusername = \"zoe\"\npassword = \"***\"\n",
        "[upstream.mirrors.aws]\nurl = \"https://public.ecr.aws\"\nrepository_prefix = \"docker\"\nwhen = \"low\"\n",
        "[egresses.Cell]\nproxy = \"socks5://***@proxy.example:1080\"\nbandwidth = \"5MB\"\n",
        "[upstreams.\"ghcr.io\".accounts.bot]\nusername = \"bot\"\n",
    ] {
        assert!(shown.contains(there), "{there}\n{shown}");
    }
    assert!(!format!("{shown}{config:?}").contains("hunter2"), "a secret is shown:\n{shown}\n{config:?}");
    let again = from_file(&shown).unwrap_or_else(|mistakes| panic!("{mistakes}\n{shown}")).config;
    assert_eq!(again.effective(), shown);
    assert_eq!(again.upstream.mirrors, config.upstream.mirrors);
    assert_eq!(names(&again.upstream.egresses), names(&config.upstream.egresses));
}

#[test]
fn ways_out_that_have_a_table_are_every_registrys_unless_it_says_otherwise() {
    let config = |text: &str| from_file(text).expect("the file is right").config;
    let all = |config: &Config| -> Vec<Upstream> {
        let regional = Upstream::named("us.gcr.io").reached_by(&config.egresses);
        config.others().into_iter().chain([config.upstream.clone(), regional]).collect()
    };
    for upstream in all(&config("")) {
        assert_eq!(upstream.egresses, [Egress::default()], "{}", upstream.registry);
    }
    let tables = "[egresses.b]\naddress = \"192.0.2.7\"\n[egresses.a]\naddress = \"192.0.2.8\"\n";
    for upstream in all(&config(tables)) {
        assert_eq!(names(&upstream.egresses), ["b", "a"], "{}", upstream.registry);
    }
    let some = config(&format!(
        "{tables}[upstream]\negresses = [\"a\"]\n[upstreams.\"ghcr.io\"]\negresses = [\"default\"]"
    ));
    assert_eq!(names(&some.upstream.egresses), ["a"]);
    assert_eq!(some.upstreams[0].egresses, [Egress::default()]);
    let capped = config(
        "[egresses.default]\nbandwidth = \"1MB\"\n[upstream]\negresses = [\"default\", \"192.0.2.7\"]",
    );
    let system = Egress { bandwidth: Some(1_000_000), ..Egress::default() };
    assert_eq!(capped.upstream.egresses[0], system);
    assert_eq!(Upstream::named("us.gcr.io").reached_by(&capped.egresses).egresses, [system]);
}

#[test]
fn an_account_in_a_table_is_an_account() {
    let with = |rest: &str| format!("{rest}.accounts.ann]\nusername = \"ann\"\npassword = \"x\"\n");
    let amazon =
        from_file(&with("[upstreams.\"public.ecr.aws\"")).expect("it is right").config.upstreams.remove(0);
    assert_eq!(amazon.pace.pulls_per_second, 10, "an account may pull more");
    let warnings = |url: &str| {
        let file = format!("[upstream]\nregistry = \"a.example\"\nurl = \"{url}\"\n{}", with("[upstream"));
        from_file(&file).expect("it is right").warnings
    };
    assert!(
        warnings("http://a.example")[0]
            .ends_with("the account's password goes to http://a.example unencrypted")
    );
    assert_eq!(warnings("http://127.0.0.1:5000"), [""; 0]);
    assert_eq!(warnings("https://a.example"), [""; 0]);
}

#[test]
fn accounts_for_some_repositories_alone_are_warned_of_where_nothing_else_may_be_pulled() {
    let warnings = |upstream: &str, rest: &str| {
        let account =
            "[upstream.accounts.ann]\nusername = \"ann\"\npassword = \"x\"\nrepositories = [\"acme\"]\n";
        from_file(&format!("[upstream]\n{upstream}\n{account}{rest}")).expect("it is right").warnings
    };
    let want = "stopover.toml:2:13: no account is for all of docker.io, and it is not asked without one: what no account's \
                repositories name cannot be pulled";
    assert_eq!(warnings("anonymous = false", ""), [want]);
    assert_eq!(warnings("", ""), [""; 0]);
    assert_eq!(warnings("anonymous = false\nusername = \"x\"\npassword = \"x\"", ""), [""; 0]);
    let other = "[upstream.accounts.ben]\nusername = \"ben\"\npassword = \"x\"";
    assert_eq!(warnings("anonymous = false", other), [""; 0]);
}

#[test]
fn every_configuration_in_the_reference_and_in_the_page_on_quotas_is_right() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/quota.md");
    let text = super::reference() + &std::fs::read_to_string(page).expect("the page is there");
    for block in text.split("```toml\n").skip(1) {
        let text = block.split("```").next().expect("a block has an end");
        let loaded = from_file(text).unwrap_or_else(|mistakes| panic!("{mistakes}\n{text}"));
        assert!(!text.contains("[upstream.accounts.") || loaded.config.upstream.has_account(), "{text}");
    }
}

/// A file, and how the one mistake in it begins behind the file's name.
const WRONG: &[(&str, &str)] = &[
    (
        "upstream.accounts = 1",
        "1:21: upstream.accounts: expected a table for each, such as [upstream.accounts.ann]",
    ),
    (
        "[[egresses]]\naddress = \"192.0.2.7\"",
        "1:1: egresses: expected a table for each, such as [egresses.office]",
    ),
    (
        "[upstream.accounts]\nusername = \"ann\"",
        "2:1: upstream.accounts.username: expected a table, [upstream.accounts.ann]",
    ),
    ("[upstream.mirrors]\ngcr = 1", "2:1: upstream.mirrors.gcr: expected a table, [upstream.mirrors.gcr]"),
    (
        "[upstream.accounts.ann]\npasword = \"x\"",
        "2:1: unknown key upstream.accounts.ann.pasword; did you mean password?",
    ),
    (
        "[upstream.mirrors.gcr]\nurl = \"https://a\"\nusername = \"x\"",
        "3:1: unknown key upstream.mirrors.gcr.username; it has url, repository_prefix, when, repositories",
    ),
    ("[upstream.acounts.ann]", "1:11: unknown key upstream.acounts; did you mean [upstream.accounts]?"),
    ("[mirrors.gcr]", "1:2: unknown section [mirrors]; did you mean [upstream.mirrors]?"),
    ("[egress.office]", "1:2: unknown section [egress]; did you mean [egresses]?"),
    (
        "[upstream.accounts.ann]",
        "1:20: upstream.accounts.ann: expected one of username with password, username with password_file, identity_token, docker_config, credential_helper",
    ),
    (
        "[upstream.accounts.ann]\nusername = \"ann\"",
        "2:12: upstream.accounts.ann.username: expected password or password_file to be set too",
    ),
    (
        "[upstream.accounts.ann]\npassword = \"hunter2\"",
        "2:12: upstream.accounts.ann.password: expected username to be set too",
    ),
    (
        "[upstream.accounts.ann]\nusername = \"a\"\npassword = \"hunter2\"\npassword_file = \"/x\"",
        "4:17: upstream.accounts.ann.password_file: found beside password, expected one of them",
    ),
    (
        "[upstream.accounts.ann]\ndocker_config = \"/x\"\nidentity_token = \"hunter2\"",
        "2:17: upstream.accounts.ann.docker_config: found beside identity_token, expected one of them",
    ),
    (
        "[upstream.accounts.ann]\nusername = \"a\"\nidentity_token = \"hunter2\"",
        "2:12: upstream.accounts.ann.username: found beside identity_token, which says who it is; expected one of them",
    ),
    (
        "[upstream.accounts.ann]\nidentity_token = \"hunter2\"\ncredential_lifetime = \"1h\"",
        "3:23: upstream.accounts.ann.credential_lifetime: expected credential_helper to be set too",
    ),
    (
        "[upstream.accounts.ann]\nidentity_token = \"x\"\nrepositories = [\"acme\", \"acme/app\", \"acme\"]",
        "3:16: upstream.accounts.ann.repositories: \"acme\" stands here twice",
    ),
    (
        "[upstream.accounts.ann]\nidentity_token = \"x\"\nrepositories = [\"acme\", \"Acme/*\"]",
        "3:16: upstream.accounts.ann.repositories: found \"Acme/*\", expected a list of names that repositories have",
    ),
    (
        "[upstream.accounts.\"a b\"]\nidentity_token = \"x\"",
        "1:20: upstream.accounts.a b: expected a name of letters, digits and -_.@, at most 64 of them",
    ),
    (
        "[upstream.accounts.Default]\nidentity_token = \"x\"",
        "1:20: upstream.accounts.Default: this name means something else already",
    ),
    (
        "[upstream.accounts.anonymous]\nidentity_token = \"x\"",
        "1:20: upstream.accounts.anonymous: this name means",
    ),
    (
        "[upstream]\nusername = \"ann\"\npassword = \"x\"\n[upstream.accounts.ann]\nidentity_token = \"x\"",
        "4:20: upstream.accounts.ann: this name means something else already; expected another",
    ),
    (
        "[upstream.accounts.ann]\nidentity_token = \"x\"\n[upstream.accounts.Ann]\nidentity_token = \"x\"",
        "3:20: upstream.accounts.Ann: there is ann already",
    ),
    (
        "[upstream.accounts.ann]\nidentity_token = 1",
        "2:18: upstream.accounts.ann.identity_token: found a number (not shown)",
    ),
    ("[egresses.office]", "1:11: egresses.office: expected address or proxy to be set"),
    ("[egresses.office]\nbandwidth = \"1MB\"", "1:11: egresses.office: expected address or proxy to be set"),
    (
        "[egresses.office]\naddress = \"192.0.2.7\"\nproxy = \"http://a\"",
        "3:9: egresses.office.proxy: found beside address, expected one of them",
    ),
    (
        "[egresses.office]\naddress = \"proxy.example\"",
        "2:11: egresses.office.address: found \"proxy.example\", expected an IP address",
    ),
    ("[egresses.office]\naddress = \"0.0.0.0\"", "2:11: egresses.office.address: found \"0.0.0.0\""),
    (
        "[egresses.office]\nproxy = \"proxy:1080\"",
        "2:9: egresses.office.proxy: found \"proxy:1080\", expected a proxy's URL",
    ),
    (
        "[egresses.office]\nproxy = \"socks4://ann:hunter2@proxy\"",
        "2:9: egresses.office.proxy: found one with a user name, a password or a query in it (not shown)",
    ),
    (
        "[egresses.office]\naddress = \"192.0.2.7\"\nbandwidth = 5",
        "3:13: egresses.office.bandwidth: found 5, expected bytes",
    ),
    (
        "[egresses.anonymous]\naddress = \"192.0.2.7\"",
        "1:11: egresses.anonymous: this name means something else",
    ),
    ("[egresses.default]\naddress = \"192.0.2.7\"", "1:11: egresses.default: it is the system's own way"),
    (
        "[upstream]\negresses = [\"ofice\"]\n[egresses.office]\naddress = \"192.0.2.7\"",
        "2:12: upstream.egresses: there is no table [egresses.ofice]; did you mean office?",
    ),
    (
        "[upstream]\negresses = [\"proxy.example\"]",
        "2:12: upstream.egresses: there is no table [egresses.proxy.example]; expected one of default, an IP address or a proxy's URL",
    ),
    (
        "[upstream]\negresses = [\"192.0.2.7\", \"192.0.2.7\"]",
        "2:12: upstream.egresses: \"192.0.2.7\" stands here twice",
    ),
    (
        "[upstream]\negresses = [\"default\", \"a b\"]",
        "2:12: upstream.egresses: found \"a b\", expected a list of names of",
    ),
    ("[upstream]\negresses = []", "2:12: upstream.egresses: found a list, expected a list of names of"),
    (
        "[upstream]\negresses = [\"ftp://ann:hunter2@proxy\"]",
        "2:12: upstream.egresses: found one with a user name, a password or a query in it (not shown)",
    ),
    (
        "[upstreams.\"ghcr.io\"]\negresses = [\"x\"]",
        "2:12: upstream.egresses: there is no table [egresses.x]",
    ),
    ("[upstream.mirrors.gcr]\nwhen = \"low\"", "1:19: upstream.mirrors.gcr: expected url to be set"),
    (
        "[upstream.mirrors.gcr]\nurl = \"mirror.gcr.io\"",
        "2:7: upstream.mirrors.gcr.url: found \"mirror.gcr.io\", expected a scheme",
    ),
    (
        "[upstream.mirrors.gcr]\nurl = \"https://registry-1.docker.io\"",
        "2:7: upstream.mirrors.gcr.url: it is the registry itself; expected another place",
    ),
    (
        "[upstream.mirrors.gcr]\nurl = \"https://a\"\nwhen = \"last\"",
        "3:8: upstream.mirrors.gcr.when: found \"last\", expected \"low\" or \"first\"",
    ),
    (
        "[upstreams.\"ghcr.io\".accounts.ann]\nusername = \"ann\"",
        "2:12: upstream.accounts.ann.username: expected password or password_file to be set too",
    ),
    ("[upstreams.\"ghcr.io\"]\nanonymous = false", "2:13: upstream.anonymous: found false and no account"),
];

#[test]
fn each_mistake_in_a_table_is_named_with_its_place_and_what_was_expected() {
    for (text, want) in WRONG {
        let found = mistakes(from_file(text));
        assert!(
            found.len() == 1 && found[0].starts_with(&format!("stopover.toml:{want}")),
            "{text}\n{found:#?}"
        );
        assert!(!found[0].contains("hunter2"), "{text}\n{found:#?}");
    }
}

/// Reads a file and variables.
fn both(file: &str, variables: &[(&str, &str)]) -> Result<Loaded, Mistakes> {
    let variables = variables.iter().map(|(name, value)| (String::from(*name), String::from(*value)));
    read(Some(("stopover.toml", file)), variables)
}

#[test]
fn a_variable_sets_a_key_of_the_table_of_that_name_or_makes_one() {
    let file = "[egresses.\"Head-Office.1\"]\nbandwidth = \"1MB\"\n\
                [upstream.accounts.Ann]\nusername = \"ann\"\nrepositories = [\"acme\"]\n\
                [upstreams.\"lab.example:5000\".mirrors.a]\nurl = \"https://b.example\"\n";
    let variables = [
        ("STOPOVER_EGRESSES__HEAD_OFFICE_1__ADDRESS", "192.0.2.7"),
        ("STOPOVER_EGRESSES__CELL__PROXY", "socks5://proxy.example:1080"),
        ("STOPOVER_UPSTREAM__ACCOUNTS__ANN__PASSWORD", "hunter2"),
        ("STOPOVER_UPSTREAM__ACCOUNTS__ANN__REPOSITORIES", "acme, acme/app"),
        ("STOPOVER_UPSTREAM__ACCOUNTS__BEN_2__DOCKER_CONFIG", "/x.json"),
        ("STOPOVER_UPSTREAM__EGRESSES", "cell,Head-Office.1"),
        ("STOPOVER_UPSTREAM__MIRRORS__GCR__URL", "https://mirror.gcr.io"),
        ("STOPOVER_UPSTREAM__MIRRORS__GCR__WHEN", "first"),
        ("STOPOVER_UPSTREAM__QUOTA_RESERVE", "7"),
        ("STOPOVER_UPSTREAMS__GHCR_IO__ACCOUNTS__ANN__USERNAME", "ann"),
        ("STOPOVER_UPSTREAMS__GHCR_IO__ACCOUNTS__ANN__PASSWORD", "hunter2"),
        ("STOPOVER_UPSTREAMS__LAB_EXAMPLE_5000__MIRRORS__A__WHEN", "first"),
    ];
    let config = both(file, &variables).unwrap_or_else(|mistakes| panic!("{mistakes}")).config;
    assert_eq!(names(&config.egresses), ["Head-Office.1", "cell"]);
    assert_eq!(names(&config.upstream.egresses), ["cell", "Head-Office.1"]);
    let ann =
        Account { repositories: vec![name("acme"), name("acme/app")], ..account("Ann", password("ann")) };
    let ben = account("ben_2", Credential::DockerConfig("/x.json".into()));
    assert_eq!(config.upstream.accounts, [ann, ben]);
    assert_eq!(config.upstream.mirrors[0].when, MirrorWhen::First);
    assert_eq!(config.upstream.quota_reserve, Share::Count(7));
    let [lab, github] = &config.upstreams[..] else { panic!("two further registries are configured") };
    assert_eq!(github.accounts, [account("ann", password("ann"))]);
    assert_eq!(lab.mirrors[0].when, MirrorWhen::First);
    let unset = both("", &[("STOPOVER_UPSTREAM__EGRESSES", ""), ("STOPOVER_UPSTREAM__BANDWIDTH", "")]);
    assert_eq!(unset.expect("empty is not set").config, Config::default());
}

#[test]
fn a_variable_that_means_no_key_of_a_table_is_a_mistake_that_helps() {
    let two =
        "[upstream.accounts.a-b]\nidentity_token = \"x\"\n[upstream.accounts.a_b]\nidentity_token = \"x\"";
    for (file, variable, expected) in [
        (
            two,
            "STOPOVER_UPSTREAM__ACCOUNTS__A_B__USERNAME",
            "a-b and a_b are spelt so; set the key in the file",
        ),
        (
            "",
            "STOPOVER_UPSTREAM__ACCOUNTS__PASSWORD",
            "expected STOPOVER_UPSTREAM__ACCOUNTS__<NAME>__<KEY>, such as STOPOVER_UPSTREAM__ACCOUNTS__ANN__USERNAME",
        ),
        (
            "",
            "STOPOVER_EGRESSES__OFFICE",
            "expected STOPOVER_EGRESSES__<NAME>__<KEY>, such as STOPOVER_EGRESSES__OFFICE__ADDRESS",
        ),
        (
            "",
            "STOPOVER_UPSTREAM__ACCOUNTS__ANN__PASSWORT",
            "unknown key upstream.accounts.ann.passwort; did you mean password?",
        ),
        (
            "",
            "STOPOVER_UPSTREAMS__GHCR_OI__ACCOUNTS__ANN__PASSWORD",
            "did you mean STOPOVER_UPSTREAMS__GHCR_IO__ACCOUNTS__ANN__PASSWORD?",
        ),
        (
            "",
            "STOPOVER_UPSTREAM__ACCOUNT__ANN__PASSWORD",
            "did you mean STOPOVER_UPSTREAM__ACCOUNTS__ANN__PASSWORD?",
        ),
        (
            "",
            "STOPOVER_UPSTREAMS__GHCR_IO__MIRRORS__X",
            "expected STOPOVER_UPSTREAMS__GHCR_IO__MIRRORS__<NAME>__<KEY>",
        ),
        (
            "",
            "STOPOVER_EGRESSES__OFFICE__ADDRESS",
            "egresses.office.address: found \"hunter2\", expected an IP address",
        ),
        (
            "",
            "STOPOVER_UPSTREAM__ACCOUNTS__ANN__PASSWORD",
            "upstream.accounts.ann.password: expected username to be set too",
        ),
    ] {
        let found = mistakes(both(file, &[(variable, "hunter2")]));
        assert!(found.len() == 1 && found[0].contains(expected), "{variable}: {found:?}");
        assert!(found[0].starts_with(&format!("{variable}: ")), "{variable}: {found:?}");
    }
}
