//! TLS on the pull port: both versions of HTTP, certificates that change, and what is no TLS.

use std::{path::Path, process::Command};

use hubsim::{Hub, Options};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::{
    rig::https::{Caller, begin, certificate_in, options, rest},
    support::{Mirror, MirrorOptions, blob_path, exchange, noise, push_blob, soon, until},
};

/// Connects as `mirror.lan`, trusting the folder's authority.
async fn connect(mirror: &Mirror, folder: &Path, alpn: &'static [u8]) -> TlsStream<TcpStream> {
    Caller::trusting(folder).speaking(&[alpn]).connect(mirror.address()).await.unwrap()
}

#[tokio::test]
async fn blobs_are_the_same_over_tls_by_both_versions_of_http() {
    let folder = tempfile::tempdir().unwrap();
    certificate_in(folder.path());
    let hub = Hub::start(Options::default()).await;
    let mirror = Mirror::start_with(&hub, options(folder.path())).await;
    let digest = push_blob(&hub, "library/app", &noise(1, 5 << 20));
    let path = blob_path("library/app", digest);
    for alpn in [&b"http/1.1"[..], b"h2", b"http/1.1", b"h2"] {
        let stream = connect(&mirror, folder.path(), alpn).await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(alpn));
        assert_eq!(rest(begin(stream, &path).await.unwrap()).await, digest);
    }
    let all = (0..8).map(async |at: usize| {
        let alpn: &'static [u8] = if at.is_multiple_of(2) { b"h2" } else { b"http/1.1" };
        rest(begin(connect(&mirror, folder.path(), alpn).await, &path).await.unwrap()).await
    });
    assert!(futures_util::future::join_all(all).await.iter().all(|found| *found == digest));
    mirror
        .until_line("the listener is shown", |line| line["listener"] == "tls" && line["status"] == 200)
        .await;
    let until_when = mirror.metric("stopover_tls_certificate_not_after_seconds", &[]).await;
    assert!(until_when > 1e9, "{until_when}");
}

#[tokio::test]
async fn a_certificate_is_exchanged_under_a_download_and_a_broken_one_is_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    certificate_in(folder.path());
    let hub = Hub::start(Options::default()).await;
    let mirror = Mirror::start_with(&hub, options(folder.path())).await;
    let digest = push_blob(&hub, "library/app", &noise(2, 8 << 20));
    let path = blob_path("library/app", digest);
    let leaf = |stream: &TlsStream<TcpStream>| stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();

    let stream = connect(&mirror, folder.path(), b"http/1.1").await;
    let before = leaf(&stream);
    let under_way = begin(stream, &path).await.unwrap();
    certificate_in(folder.path());
    soon("the new certificate is shown", async {
        while leaf(&connect(&mirror, folder.path(), b"http/1.1").await) == before {}
    })
    .await;
    assert_eq!(rest(under_way).await, digest);

    let after = leaf(&connect(&mirror, folder.path(), b"h2").await);
    std::fs::write(
        folder.path().join("tls.key"),
        "-----BEGIN PRIVATE KEY-----\nMAo=\n-----END PRIVATE KEY-----\n",
    )
    .unwrap();
    let pid = rustix::process::Pid::from_raw(mirror.pid().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    let line = mirror.until_line("it is refused", |line| line["level"] == "error").await;
    let said = line["msg"].as_str().unwrap();
    assert!(said.starts_with("tls.key: ") && said.contains("stays in force"), "{said}");
    assert_eq!(leaf(&connect(&mirror, folder.path(), b"h2").await), after);
}

#[tokio::test]
async fn what_is_no_tls_is_told_so_or_dropped() {
    let folder = tempfile::tempdir().unwrap();
    certificate_in(folder.path());
    let hub = Hub::start(Options::default()).await;
    let mirror =
        Mirror::start_with(&hub, options(folder.path()).env("STOPOVER_HTTP__HEADER_TIMEOUT", "1s")).await;
    let answer = exchange(mirror.address(), "GET /v2/ HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.0 400 Bad Request\r\n"), "{answer}");
    assert!(answer.ends_with("Client sent an HTTP request to an HTTPS server.\n"), "{answer}");
    let garbage = exchange(mirror.address(), vec![0x80; 64]).await;
    assert!(!garbage.starts_with(b"HTTP"), "{garbage:?}");
    // It ends by itself when the handshake took too long.
    assert_eq!(exchange(mirror.address(), vec![22, 3, 1]).await, b"");
    assert_eq!(Caller::trusting(folder.path()).ping(mirror.address()).await, Ok(200));
}

#[tokio::test]
async fn wrong_files_start_nothing_and_are_named() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    certificate_in(one.path());
    certificate_in(other.path());
    let at = |folder: &tempfile::TempDir, name: &str| folder.path().join(name).display().to_string();
    let table = [
        (at(&one, "tls.crt"), at(&other, "tls.key"), "tls.key: ", "is not the key of the certificate in"),
        (at(&one, "missing"), at(&one, "tls.key"), "tls.certificate: ", "cannot be read: No such file"),
        (
            at(&one, "tls.key"),
            at(&one, "tls.key"),
            "tls.certificate: ",
            "holds a private key; expected a certificate",
        ),
        (
            at(&one, "tls.crt"),
            at(&one, "tls.crt"),
            "tls.key: ",
            "holds a certificate; expected its private key",
        ),
    ];
    for (certificate, key, begins, holds) in table {
        for word in ["serve", "check"] {
            let ran = Command::new(env!("CARGO_BIN_EXE_stopover"))
                .arg(word)
                .env_clear()
                .env("STOPOVER_HTTP__ADDR", "127.0.0.1:0")
                .env("STOPOVER_ADMIN__ADDR", "off")
                .env("STOPOVER_STORAGE__ROOT", one.path().join("root"))
                .env("STOPOVER_TLS__CERTIFICATE", &certificate)
                .env("STOPOVER_TLS__KEY", &key)
                .current_dir(one.path())
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&ran.stderr).into_owned();
            assert_eq!(ran.status.code(), Some(1), "{said}");
            assert!(said.contains(begins) && said.contains(holds), "{word}: {said}");
        }
    }
}

#[tokio::test]
async fn pulls_come_by_a_unix_socket_which_goes_away_at_the_end() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.sock");
    let hub = Hub::start(Options::default()).await;
    let both = format!("127.0.0.1:0,unix:{}", path.display());
    let mut mirror =
        Mirror::start_with(&hub, MirrorOptions::default().env("STOPOVER_HTTP__ADDR", both)).await;
    let bytes = noise(3, 3 << 20);
    let digest = push_blob(&hub, "library/app", &bytes);
    let blob = blob_path("library/app", digest);
    for _ in 0..2 {
        let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
        let request = format!("GET {blob} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        soon("the answer ends", stream.read_to_end(&mut answer)).await.unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n") && answer.ends_with(&bytes));
        mirror.until_stored(&digest).await;
    }
    mirror.until_line("it is shown", |line| line["client"] == "unix" && line["listener"] == "unix").await;
    mirror.sigterm();
    mirror.wait_exit().await;
    until("the socket is removed", || (!path.exists()).then_some(())).await;
}
