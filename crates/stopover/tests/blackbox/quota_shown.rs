//! What is left of the pull limits, as an operator sees it: `stopover quota`, the document behind it, the metrics.

use bytes::Bytes;
use http::Response;
use http_body_util::Full;

use crate::{
    rig::program::{Ended, Serving, run},
    support::Canned,
};

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
