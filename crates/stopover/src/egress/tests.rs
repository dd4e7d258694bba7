//! The way out against small servers of its own.

use std::net::SocketAddr;

use futures_util::StreamExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use super::*;

mod ways;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Listens, answers the first request on each connection with `answer`, and returns what it was sent.
async fn server(answer: &'static str) -> (SocketAddr, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it has one");
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a client comes");
        let head = read_head(&mut stream).await;
        stream.write_all(answer.as_bytes()).await.expect("the client listens");
        _ = stream.read(&mut [0; 1]).await;
        head
    });
    (address, serving)
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a whole head comes"));
    }
    String::from_utf8(head).expect("heads are ASCII")
}

fn request(url: &str) -> Request<Full<Bytes>> {
    Request::get(url).body(Full::default()).expect("a URL")
}

fn egress(proxies: Proxies) -> Arc<Egress> {
    Egress::new(&EgressOptions { proxies, ..EgressOptions::default() })
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

async fn get(egress: &Egress, url: &str, reach: Reach) -> Result<Bytes, EgressError> {
    let response = egress.send(request(url), reach, soon()).await?;
    collect(response.into_body(), 1 << 20, soon()).await
}

fn kind_of<T>(answer: Result<T, EgressError>) -> Option<EgressErrorKind> {
    answer.err().map(|error| error.kind)
}

#[tokio::test]
async fn a_host_that_data_named_is_not_reached_inside() {
    let (address, serving) = server(OK).await;
    let egress = egress(Proxies::Direct);
    let port = address.port();
    for host in [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "127.1",
        "0x7f000001",
        "2130706433",
        "0.0.0.0",
    ] {
        let answer = get(&egress, &format!("http://{host}:{port}/"), Reach::Public).await;
        let error = answer.expect_err(host);
        // A resolver may not know the odd spellings at all, which is as good.
        assert!(
            matches!(error.kind, EgressErrorKind::Forbidden | EgressErrorKind::Connect),
            "{host}: {error}"
        );
    }
    assert!(!serving.is_finished(), "nobody connected");
    let answer = get(&egress, &format!("http://{address}/"), Reach::Named).await;
    assert_eq!(answer.expect("the operator named it"), "ok");
}

#[tokio::test]
async fn an_answer_from_inside_is_known_as_such() {
    let (address, _serving) = server(OK).await;
    let response =
        egress(Proxies::Direct).send(request(&format!("http://{address}/")), Reach::Named, soon()).await;
    assert!(came_from_inside(&response.expect("it answers")));
}

#[tokio::test]
async fn a_plain_request_goes_to_the_proxy_whole_and_with_the_proxys_password() {
    let (address, serving) = server(OK).await;
    let url = format!("http://ann:hunter2@{address}");
    let egress = egress(Proxies::Through(url));
    let answer = egress.send(request("http://registry.example/v2/?n=1"), Reach::Named, soon()).await;
    let answer = answer.expect("the proxy answers");
    assert!(!came_from_inside(&answer), "the proxy's address says nothing of the registry");
    drop((answer, egress));
    let head = serving.await.expect("no panic").to_ascii_lowercase();
    assert!(head.starts_with("get http://registry.example/v2/?n=1 http/1.1\r\n"), "{head}");
    assert!(head.contains("\r\nhost: registry.example\r\n"), "{head}");
    assert!(head.contains("\r\nproxy-authorization: basic yw5uomh1bnrlcji=\r\n"), "{head}");
}

#[tokio::test]
async fn an_encrypted_request_goes_through_a_tunnel() {
    let (address, serving) = server("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").await;
    let egress = egress(Proxies::Through(format!("http://{address}")));
    let error =
        get(&egress, "https://registry.example/v2/", Reach::Named).await.expect_err("it wants a password");
    assert_eq!(error.kind, EgressErrorKind::Connect);
    assert!(error.message.contains("127.0.0.1") && error.message.contains("authorization"), "{error}");
    let head = serving.await.expect("no panic");
    assert!(head.starts_with("CONNECT registry.example:443 HTTP/1.1\r\n"), "{head}");
}

#[tokio::test]
async fn a_proxy_is_not_asked_for_a_place_inside_that_data_named() {
    let proxies = Proxies::Through("http://127.0.0.1:1".to_owned());
    let egress = egress(proxies);
    for host in ["10.0.0.1", "[fe80::1]", "localhost", "metadata.google.internal", "127.1", "printer"] {
        let answer = get(&egress, &format!("http://{host}/"), Reach::Public).await;
        assert_eq!(kind_of(answer), Some(EgressErrorKind::Forbidden), "{host}");
    }
    assert_eq!(
        kind_of(get(&egress, "http://cdn.example/", Reach::Public).await),
        Some(EgressErrorKind::Connect)
    );
}

#[tokio::test]
async fn a_server_that_speaks_no_tls_is_not_asked_without() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it has one");
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a client comes");
        _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        _ = stream.read(&mut [0; 512]).await;
    });
    let answer = get(&egress(Proxies::Direct), &format!("https://{address}/"), Reach::Named).await;
    let error = answer.expect_err("that is no TLS");
    assert_eq!(error.kind, EgressErrorKind::Tls, "{error}");
}

#[tokio::test]
async fn what_is_not_http_is_told_apart_from_a_broken_connection() {
    for (answer, kind) in [
        ("SSH-2.0-OpenSSH_9.2\r\n", EgressErrorKind::Malformed),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", EgressErrorKind::Malformed),
        ("HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok", EgressErrorKind::Malformed),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", EgressErrorKind::Timeout),
    ] {
        let (address, _serving) = server(answer).await;
        let sent =
            egress(Proxies::Direct).send(request(&format!("http://{address}/")), Reach::Named, soon()).await;
        let got = match sent {
            Err(error) => error.kind,
            Ok(_) => EgressErrorKind::Timeout,
        };
        assert_eq!(got, kind, "{answer}");
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it has one");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            read_head(&mut stream).await;
        }
    });
    let answer = get(&egress(Proxies::Direct), &format!("http://{address}/"), Reach::Named).await;
    assert_eq!(kind_of(answer), Some(EgressErrorKind::Broken));
}

#[tokio::test]
async fn a_head_that_is_a_bomb_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it has one");
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a client comes");
        read_head(&mut stream).await;
        let bomb = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
        _ = stream.write_all(bomb.as_bytes()).await;
    });
    let answer = get(&egress(Proxies::Direct), &format!("http://{address}/"), Reach::Named).await;
    assert_eq!(kind_of(answer), Some(EgressErrorKind::Malformed));
}

#[tokio::test]
async fn a_body_is_read_up_to_a_limit() {
    let (address, _serving) =
        server("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n").await;
    let egress = egress(Proxies::Direct);
    let response =
        egress.send(request(&format!("http://{address}/")), Reach::Named, soon()).await.expect("a head");
    assert_eq!(kind_of(collect(response.into_body(), 4, soon()).await), Some(EgressErrorKind::Malformed));
    let (address, _serving) = server("HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n").await;
    let response =
        egress.send(request(&format!("http://{address}/")), Reach::Named, soon()).await.expect("a head");
    assert_eq!(
        kind_of(collect(response.into_body(), 1 << 20, soon()).await),
        Some(EgressErrorKind::Malformed)
    );
}

#[tokio::test]
async fn a_body_that_falls_silent_ends_with_a_timeout() {
    let (address, _serving) = server("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel").await;
    let egress = egress(Proxies::Direct);
    let response =
        egress.send(request(&format!("http://{address}/")), Reach::Named, soon()).await.expect("a head");
    let mut body = Steady::new(response.into_body(), Duration::from_millis(20));
    assert_eq!(body.next().await.expect("a chunk").expect("good"), "hel");
    assert_eq!(kind_of(body.next().await.expect("an error")), Some(EgressErrorKind::Timeout));
}

#[tokio::test]
async fn connections_are_used_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it has one");
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a client comes");
        for _ in 0..3 {
            read_head(&mut stream).await;
            stream.write_all(OK.as_bytes()).await.expect("the client listens");
        }
    });
    let egress = egress(Proxies::Direct);
    for _ in 0..3 {
        get(&egress, &format!("http://{address}/"), Reach::Named).await.expect("it answers");
    }
    serving.await.expect("one connection was enough");
}

fn egress_for_strangers(proxies: Proxies) -> Arc<Egress> {
    Egress::new(&EgressOptions { proxies, hosts: Hosts::Strange, ..EgressOptions::default() })
}

/// Whatever the request says of itself.
#[tokio::test]
async fn a_host_that_a_client_named_is_not_reached_inside_nor_on_another_port_nor_in_the_open() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it has one");
    let (direct, proxied) = (
        egress_for_strangers(Proxies::Direct),
        egress_for_strangers(Proxies::Through(format!("http://{address}"))),
    );
    for url in [
        "https://127.0.0.1/".to_owned(),
        "https://localhost/".to_owned(),
        "https://[::1]/".to_owned(),
        "https://[::ffff:10.0.0.1]/".to_owned(),
        format!("https://{address}/"),
        format!("http://{address}/"),
        "https://8.8.8.8:22/".to_owned(),
        "http://8.8.8.8/".to_owned(),
        "http://8.8.8.8:443/".to_owned(),
    ] {
        for (egress, reach) in [(&direct, Reach::Named), (&direct, Reach::Public), (&proxied, Reach::Named)] {
            let answer = get(egress, &url, reach).await;
            assert_eq!(kind_of(answer), Some(EgressErrorKind::Forbidden), "{url}");
        }
    }
    let listener = listener.into_std().expect("it is not in use");
    assert!(listener.accept().is_err(), "nobody connected");
}

/// It would resolve the name by itself, and to what it likes.
#[tokio::test]
async fn a_proxy_is_asked_for_the_address_of_a_host_that_a_client_named() {
    let (address, serving) = server("HTTP/1.1 403 Forbidden\r\n\r\n").await;
    let egress = egress_for_strangers(Proxies::Through(format!("http://{address}")));
    assert!(get(&egress, "https://8.8.8.8/v2/", Reach::Named).await.is_err(), "the proxy gives no way");
    let head = serving.await.expect("no panic");
    assert!(head.starts_with("CONNECT 8.8.8.8:443 HTTP/1.1\r\n"), "{head}");
    let unknown = get(&egress, "https://name.invalid/v2/", Reach::Named).await.expect_err("nobody knows it");
    assert!(unknown.message.contains("cannot resolve name.invalid"), "{unknown}");
}
