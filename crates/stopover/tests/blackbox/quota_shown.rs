//! What is left of the pull limits, as an operator sees it: `stopover quota`, the document behind it, the metrics.

use std::{fs, path::Path};

use bytes::Bytes;
use futures_util::future::join_all;
use http::Response;
use http_body_util::Full;
use hubsim::{Hub, Options, images};
use serde_json::Value;

use crate::{
    rig::{
        assert_error, assert_retry_after, eventually,
        program::{Ended, Serving, run},
    },
    support::{Canned, Mirror, MirrorOptions, blob_path, get, manifest_path},
};

const REPOSITORY: &str = "library/alpine";

async fn quota(arguments: &[&str], env: &[(&str, &str)]) -> Ended {
    let folder = tempfile::tempdir().unwrap();
    let arguments: Vec<&str> = ["quota"].iter().chain(arguments).copied().collect();
    run(folder.path(), &arguments, env).await
}

/// Asserts that it says, on one line, what was asked and what to do, and nothing else.
fn assert_refused(what: &str, ended: &Ended, wanted: &[&str]) {
    assert_eq!((ended.code, ended.out.as_str()), (Some(1), ""), "{what}: {}", ended.err);
    assert_eq!(ended.err.lines().count(), 1, "{what}: {}", ended.err);
    for part in wanted.iter().chain(&["stopover: ", "--admin"]) {
        assert!(ended.err.contains(part), "{what}: {part}: {}", ended.err);
    }
}

#[tokio::test]
async fn an_instance_that_cannot_be_asked_is_named_with_what_to_do() {
    let closed =
        tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    fn admin(addr: &str) -> [(&str, &str); 1] {
        [("STOPOVER_ADMIN__ADDR", addr)]
    }
    let ended = quota(&[], &admin(&closed)).await;
    assert_refused("a port that nobody listens on", &ended, &[&closed, "refused", "`stopover serve`"]);
    let ended = quota(&["--admin", "unix:/nowhere/admin.sock"], &[]).await;
    assert_refused("a socket that is not there", &ended, &["unix:/nowhere/admin.sock", "No such file"]);
    let ended = quota(&[], &admin("off")).await;
    assert_refused("no operator's port", &ended, &["admin.addr is \"off\""]);
    let ended = quota(&[], &admin("127.0.0.1:0")).await;
    assert_refused("any port", &ended, &["admin.addr has port 0"]);
    let ended = quota(&["--admin", "mirror"], &admin("off")).await;
    assert_refused("nonsense", &ended, &["found \"mirror\", expected", "\":5001\""]);

    let ended = quota(&["--admin", &closed], &[("STOPOVER_CACHE__TAG_TTL", "soon")]).await;
    assert_refused("an address, and so no configuration", &ended, &[&closed]);
    let ended = quota(&[], &[("STOPOVER_CACHE__TAG_TTL", "soon")]).await;
    assert!(ended.code == Some(1) && ended.err.contains("1 mistake in the configuration"), "{}", ended.err);
}

#[tokio::test]
async fn whoever_else_answers_is_told_from_an_instance() {
    let huge = format!("{{\"lanes\":[{}]}}", " ".repeat(5 << 20));
    for (what, status, body, wanted) in [
        ("a web server", 404, "<html>".to_owned(), "it answers 404 Not Found to /api/v1/quota"),
        ("a page for everything", 200, "<html>\x1b[31m".to_owned(), "its answer is not understood"),
        (
            "another document",
            200,
            "{\"lanes\":[{\"registry\":1}]}".to_owned(),
            "its answer is not understood",
        ),
        ("an answer without end", 200, huge, "more than 4 MiB"),
    ] {
        let other = Canned::start(move |_| {
            let mut response = Response::new(Full::new(Bytes::from(body.clone())));
            *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
            response
        });
        let url = other.await;
        let place = url.url().strip_prefix("http://").unwrap().to_owned();
        let ended = quota(&["--admin", &place], &[]).await;
        assert_refused(what, &ended, &[&place, "is not the operator's port of a Stopover", wanted]);
        assert!(!ended.err.contains('\x1b'), "{}", ended.err);
    }
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = silent.local_addr().unwrap().to_string();
    let garbage = tokio::spawn(async move {
        let (mut stream, _) = silent.accept().await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"SSH-2.0-OpenSSH_9.2\r\n").await.unwrap();
    });
    let ended = quota(&["--admin", &place], &[]).await;
    garbage.await.unwrap();
    assert_refused("no HTTP", &ended, &[&place, "is not the operator's port of a Stopover"]);
}

#[tokio::test]
async fn it_is_asked_where_the_configuration_says_also_over_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let (socket, root) = (folder.path().join("admin.sock"), folder.path().join("registry"));
    let admin = format!("unix:{}", socket.display());
    let env = [
        ("STOPOVER_ADMIN__ADDR", admin.as_str()),
        ("STOPOVER_HTTP__ADDR", "127.0.0.1:0"),
        ("STOPOVER_STORAGE__ROOT", root.to_str().unwrap()),
    ];
    let serving = Serving::start(folder.path(), &env);
    serving.until_said("listening").await;
    for arguments in [&["--json"][..], &["--json", "--admin", &admin]] {
        let ended = run(folder.path(), &[&["quota"], arguments].concat(), &env).await;
        assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{}", ended.err);
        let document: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
        assert!(document["lanes"].is_array(), "{document}");
    }
    let table = run(folder.path(), &["quota"], &env).await;
    assert!(table.code == Some(0) && table.out.starts_with("REGISTRY "), "{}", table.out);
}

/// Returns a Hub with 3 GETs for an address and 6 for each of two accounts, and a mirror that has both.
async fn hub_and_mirror_with_accounts() -> (Hub, Mirror) {
    let hub = Hub::start(Options { quota: Some(3), ..Options::default() }).await;
    let mut options = MirrorOptions::default();
    for account in ["ann", "bob"] {
        hub.add_account(account, "pw");
        hub.set_account_quota(account, Some(6));
        let key = |name: &str| format!("STOPOVER_UPSTREAM__ACCOUNTS__{}__{name}", account.to_uppercase());
        options = options.env(&key("USERNAME"), account).env(&key("PASSWORD"), "pw");
    }
    let mirror = Mirror::start_with(&hub, options).await;
    (hub, mirror)
}

/// Returns the document without what time changes.
fn still(text: &str) -> Value {
    let mut document: Value = serde_json::from_str(text).unwrap();
    for lane in document["lanes"].as_array_mut().unwrap() {
        lane.as_object_mut().unwrap().remove("resets_in_seconds");
    }
    document
}

#[tokio::test]
async fn the_table_the_document_and_the_metrics_say_the_same() {
    let (hub, mirror) = hub_and_mirror_with_accounts().await;
    for n in 0..14 {
        let repository = format!("library/r{n}");
        images::busybox(&hub, &repository, "1", images::Format::OciSingle);
        assert_eq!(mirror.get(&manifest_path(&repository, "1")).await.status, 200);
    }
    let place = mirror.admin_url();
    let api = get(&format!("{place}/api/v1/quota"), &[]).await;
    assert_eq!((api.status, api.header("content-type")), (200, "application/json"));
    let printed = quota(&["--json", "--admin", &place], &[]).await;
    assert_eq!(still(&printed.out), still(&api.text()), "{}", printed.err);

    let document = api.json();
    let lanes = document["lanes"].as_array().unwrap();
    let accounts: Vec<_> = lanes.iter().map(|lane| lane["account"].as_str().unwrap()).collect();
    assert_eq!(accounts, ["ann", "bob", "anonymous"], "{document:#}");
    let used: u64 = lanes.iter().map(|lane| lane["used"].as_u64().unwrap()).sum();
    assert_eq!(used, 14, "{document:#}");
    let table = quota(&["--admin", &place], &[]).await;
    for (lane, row) in lanes.iter().zip(table.out.lines().skip(1)) {
        let account = lane["account"].as_str().unwrap();
        let egress = lane["egress"].as_str().unwrap_or_default();
        let cells: Vec<&str> = row.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
        assert_eq!(
            cells[..3],
            ["docker.io", account, if egress.is_empty() { "any" } else { egress }],
            "{row}"
        );
        let [limit, rest] = ["limit", "remaining"].map(|name| lane[name].as_u64().expect("it was asked"));
        assert_eq!(
            cells[3..6],
            [format!("{limit} in 6h"), rest.to_string(), lane["used"].to_string()],
            "{row}"
        );
        assert!(cells[7].starts_with(lane["state"].as_str().unwrap()), "{row}");
        let (account, egress) = (format!("account=\"{account}\""), format!("egress=\"{egress}\""));
        let labels = ["registry=\"docker.io\"", &account, &egress];
        assert_eq!(mirror.metric("stopover_quota_limit", &labels).await, limit as f64, "{row}");
        assert_eq!(mirror.metric("stopover_quota_remaining", &labels).await, rest as f64, "{row}");
        let state = format!("state=\"{}\"", lane["state"].as_str().unwrap());
        let labels = [labels[0], labels[1], labels[2], &state];
        assert_eq!(mirror.metric("stopover_lane_state", &labels).await, 1.0, "{row}");
    }
}

#[tokio::test]
async fn the_line_of_a_request_says_by_which_lane_the_registry_answered() {
    let (hub, mirror) = hub_and_mirror_with_accounts().await;
    let image = images::busybox(&hub, REPOSITORY, "3.20", images::Format::OciSingle);
    let path = manifest_path(REPOSITORY, "3.20");
    assert_eq!(mirror.head(&path).await.status, 200);
    let pulls = join_all((0..16).map(|_| mirror.get(&path))).await;
    assert!(pulls.iter().all(|reply| reply.status == 200));
    for _ in 0..2 {
        assert_eq!(mirror.get(&blob_path(REPOSITORY, image.layers[0])).await.status, 200);
        mirror.until_stored(&image.layers[0]).await;
    }
    assert_eq!(mirror.get("/v2/").await.status, 200);
    let lines = eventually("every request has its line", async || {
        let is_one = |line: &Value| line["msg"] == "response completed";
        let lines: Vec<Value> = mirror.log_lines().into_iter().filter(is_one).collect();
        (lines.len() == 20).then_some(lines)
    });
    let lines = lines.await;
    let by =
        |outcome: &str| -> Vec<&Value> { lines.iter().filter(|line| line["outcome"] == outcome).collect() };
    for line in by("hit") {
        assert!(line["lane"].is_null() && line["upstream"].is_null(), "{line}");
    }
    let filled = by("filled");
    assert_eq!(filled.len(), 2, "a manifest and a blob: {lines:#?}");
    for line in filled.iter().chain(&by("passed")) {
        let lane = line["lane"].as_str().unwrap_or_else(|| panic!("no lane: {line}"));
        assert!(["ann via default", "bob via default", "anonymous via default"].contains(&lane), "{line}");
    }
    for line in by("joined") {
        assert_eq!(line["lane"], filled[0]["lane"], "{line}");
    }
    assert!(lines.iter().all(|line| line["outcome"].is_string() || line["lane"].is_null()));
}

/// Every example in docs/quota.md is taken as it stands.
#[tokio::test]
async fn the_examples_of_the_page_are_right() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/quota.md");
    let page = fs::read_to_string(page).unwrap();
    let mut examples = 0;
    for example in page.split("\n```toml\n").skip(1) {
        let example = example.split("\n```").next().unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("stopover.toml"), example).unwrap();
        for helper in example.lines().filter_map(|line| line.strip_prefix("credential_helper = \"")) {
            let program = format!("docker-credential-{}", helper.split('"').next().unwrap());
            std::os::unix::fs::symlink("/bin/true", folder.path().join(program)).unwrap();
        }
        let path = folder.path().to_str().unwrap();
        let ended = run(folder.path(), &["check"], &[("PATH", path)]).await;
        assert_eq!(ended.code, Some(0), "{example}\n{}", ended.err);
        examples += 1;
    }
    assert!(examples >= 5, "{examples}");
}

#[tokio::test]
async fn whoever_asks_when_all_is_spent_is_told_of_each_lane_and_when_the_first_is_back() {
    let (hub, mirror) = hub_and_mirror_with_accounts().await;
    images::busybox(&hub, REPOSITORY, "3.20", images::Format::OciSingle);
    hub.set_quota(Some(0));
    for (who, seconds) in [("ann", 18_700), ("bob", 2), ("127.0.0.1", 70)] {
        hub.set_account_quota(who, Some(0));
        hub.set_retry_after(who, seconds);
    }
    let path = manifest_path(REPOSITORY, "3.20");
    for what in ["the one that finds it out", "the next"] {
        let reply = mirror.get(&path).await;
        assert_error(what, &reply, 429, "TOOMANYREQUESTS");
        assert_retry_after(what, &reply, 2);
        let said = reply.text();
        for lane in ["ann is spent for 5h 12m", "bob is spent for ", "anonymous via default is spent for "] {
            assert!(said.contains(lane), "{what}: {lane}: {said}");
        }
    }
    let table = quota(&["--admin", &mirror.admin_url()], &[]).await;
    let hint = "docker.io: nothing can be pulled now but what is cached; the first lane is back in ";
    assert!(table.code == Some(0) && table.out.contains(hint), "{}", table.out);
    hub.set_account_quota("bob", Some(1));
    eventually("the first lane is back by itself", async || {
        (mirror.get(&path).await.status == 200).then_some(())
    })
    .await;
}
