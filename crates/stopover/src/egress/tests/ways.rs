//! Each kind of way out: from an address, through a proxy of HTTP or SOCKS; where each is dead, wrong or led astray.

use std::net::Ipv6Addr;

use super::*;

fn from(address: &str, hosts: Hosts) -> Arc<Egress> {
    let from = Some(address.parse().expect("an address"));
    let name = "office".into();
    Egress::new(&EgressOptions { name, from, proxies: Proxies::Direct, hosts, ..EgressOptions::default() })
}

fn through(url: String, hosts: Hosts) -> Arc<Egress> {
    let proxies = Proxies::Through(url);
    Egress::new(&EgressOptions { name: "office".into(), proxies, hosts, ..EgressOptions::default() })
}

async fn failed(egress: &Egress, url: &str, reach: Reach) -> EgressError {
    get(egress, url, reach).await.expect_err("there is no way")
}

/// What a SOCKS proxy was told: the user and password, and the place asked for with its type of address.
type Told = (Vec<u8>, u8, Vec<u8>);

/// A SOCKS proxy that wants a user and a password, takes any, and answers the request with `reply`; then it is a server
/// of HTTP itself.
async fn socks(reply: u8) -> (SocketAddr, JoinHandle<Told>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it has one");
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a client comes");
        let mut bytes = async |count: usize| {
            let mut bytes = vec![0; count];
            stream.read_exact(&mut bytes).await.expect("the client goes on");
            bytes
        };
        assert_eq!(bytes(3).await, [5, 1, 2], "it offers a user and a password");
        stream.write_all(&[5, 2]).await.expect("the client listens");
        let mut bytes = async |count: usize| {
            let mut bytes = vec![0; count];
            stream.read_exact(&mut bytes).await.expect("the client goes on");
            bytes
        };
        let user = bytes(2).await[1].into();
        let user = bytes(user).await;
        let password = bytes(1).await[0].into();
        let account = [user, b":".to_vec(), bytes(password).await].concat();
        stream.write_all(&[1, 0]).await.expect("the client listens");
        let mut head = [0; 4];
        stream.read_exact(&mut head).await.expect("the client goes on");
        let length = match head[3] {
            1 => 4,
            4 => 16,
            _ => stream.read_u8().await.expect("the client goes on").into(),
        };
        let mut place = vec![0; length + 2];
        stream.read_exact(&mut place).await.expect("the client goes on");
        stream.write_all(&[5, reply, 0, 1, 0, 0, 0, 0, 0, 0]).await.expect("the client listens");
        if reply == 0 {
            read_head(&mut stream).await;
            stream.write_all(OK.as_bytes()).await.expect("the client listens");
        }
        (account, head[3], place)
    });
    (address, serving)
}

#[tokio::test]
async fn connections_come_from_the_address_of_the_way_out() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it has one");
    let serving = tokio::spawn(async move {
        let (mut stream, peer) = listener.accept().await.expect("a client comes");
        read_head(&mut stream).await;
        stream.write_all(OK.as_bytes()).await.expect("the client listens");
        peer
    });
    let received = Counter::default();
    let egress = Egress::new(&EgressOptions {
        from: Some([127, 0, 0, 2].into()),
        proxies: Proxies::Direct,
        received: received.clone(),
        ..EgressOptions::default()
    });
    assert_eq!(get(&egress, &format!("http://{address}/"), Reach::Named).await.expect("it answers"), "ok");
    assert_eq!(serving.await.expect("no panic").ip().to_string(), "127.0.0.2");
    assert_eq!(received.get(), OK.len() as u64, "bytes are counted with the head");
}

#[tokio::test]
async fn a_way_out_of_ipv6_works_and_is_for_ipv6_alone() {
    let listener = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await;
    let listener = listener.expect("the tests need ::1: sysctl net.ipv6.conf.lo.disable_ipv6=0");
    let port = listener.local_addr().expect("it has one").port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a client comes");
        read_head(&mut stream).await;
        stream.write_all(OK.as_bytes()).await.expect("the client listens");
    });
    let egress = from("::1", Hosts::Known);
    let answer = get(&egress, &format!("http://[::1]:{port}/"), Reach::Named).await;
    assert_eq!(answer.expect("brackets are understood"), "ok");
    let error = failed(&egress, &format!("http://127.0.0.1:{port}/"), Reach::Named).await;
    assert_eq!(error.kind, EgressErrorKind::Connect);
    assert_eq!(error.message, "the egress office sends from ::1, and 127.0.0.1 has no IPv6 address");
}

#[tokio::test]
async fn a_host_without_an_address_of_the_family_is_told_with_the_way_outs_name() {
    let error = failed(&from("127.0.0.2", Hosts::Known), "http://[2001:db8::1]/", Reach::Named).await;
    assert_eq!(error.kind, EgressErrorKind::Connect);
    assert_eq!(
        error.message,
        "the egress office sends from 127.0.0.2, and [2001:db8::1] has no IPv4 address"
    );
}

#[tokio::test]
async fn an_address_that_this_machine_does_not_have_is_told_at_use() {
    let error = failed(&from("192.0.2.7", Hosts::Known), "http://127.0.0.1:1/", Reach::Named).await;
    assert_eq!(error.kind, EgressErrorKind::Connect);
    let wanted = "the egress office cannot send from 192.0.2.7, which this machine does not have now: ";
    assert!(error.message.starts_with(wanted), "{error}");
    assert!(has_address([192, 0, 2, 7].into()).is_err());
    assert!(has_address([127, 0, 0, 2].into()).is_ok());
}

#[tokio::test]
async fn a_given_proxy_is_used_for_every_host() {
    let (address, serving) = server(OK).await;
    let egress = through(format!("http://{address}"), Hosts::Known);
    assert_eq!(get(&egress, "http://127.0.0.1:1/x", Reach::Named).await.expect("the proxy answers"), "ok");
    drop(egress);
    assert!(serving.await.expect("no panic").starts_with("GET http://127.0.0.1:1/x HTTP/1.1\r\n"));
}

#[tokio::test]
async fn socks_gets_the_name_the_usual_port_and_the_password() {
    for scheme in ["socks5", "socks5h"] {
        let (address, serving) = socks(0).await;
        let egress = through(format!("{scheme}://ann:hunter%202@{address}"), Hosts::Known);
        assert_eq!(get(&egress, "http://registry.example/", Reach::Named).await.expect("an answer"), "ok");
        let (account, kind, place) = serving.await.expect("no panic");
        assert_eq!(account, b"ann:hunter 2");
        assert_eq!((kind, place), (3, [&b"registry.example"[..], &80_u16.to_be_bytes()].concat()));
    }
}

#[tokio::test]
async fn socks_gets_the_address_of_a_host_that_a_client_named() {
    for (url, kind, address) in [
        ("https://8.8.8.8/v2/", 1, vec![8, 8, 8, 8]),
        ("https://[2606:4700::1111]/v2/", 4, "2606:4700::1111".parse::<Ipv6Addr>().unwrap().octets().into()),
    ] {
        let (proxy, serving) = socks(2).await;
        let error =
            failed(&through(format!("socks5h://a:b@{proxy}"), Hosts::Strange), url, Reach::Named).await;
        assert_eq!(error.kind, EgressErrorKind::Connect, "{error}");
        let (_, told, place) = serving.await.expect("no panic");
        assert_eq!((told, place), (kind, [address, 443_u16.to_be_bytes().into()].concat()));
    }
}

#[tokio::test]
async fn a_proxy_that_gives_no_way_is_named_without_its_password() {
    let (refusing, _serving) = socks(5).await;
    let (silent, (forbids, _task)) =
        (TcpListener::bind("127.0.0.1:0").await.unwrap(), server("HTTP/1.1 407 No\r\n\r\n").await);
    let silent = silent.local_addr().expect("it has one");
    let urls = [
        ("http://ann:hunter2@127.0.0.1:1".to_owned(), "http://registry.example/"),
        ("http://ann:hunter2@127.0.0.1:1".to_owned(), "https://registry.example/"),
        ("https://ann:hunter2@127.0.0.1:1".to_owned(), "https://registry.example/"),
        (format!("https://ann:hunter2@{silent}"), "https://registry.example/"),
        ("socks5://ann:hunter2@127.0.0.1:1".to_owned(), "https://registry.example/"),
        (format!("socks5h://ann:hunter2@{silent}"), "http://registry.example/"),
        (format!("socks5://ann:hunter2@{refusing}"), "http://registry.example/"),
        (format!("http://ann:hunter2@{forbids}"), "http://registry.example/"),
    ];
    for (url, target) in urls {
        let place = url.rsplit('@').next().expect("a host").to_owned();
        let egress = Egress::new(&EgressOptions {
            proxies: Proxies::Through(url),
            connect_timeout: Duration::from_millis(100),
            ..EgressOptions::default()
        });
        let error = failed(&egress, target, Reach::Named).await;
        assert_eq!(error.kind, EgressErrorKind::Connect, "{error}");
        assert!(error.message.starts_with(&format!("the proxy {place} gives no way: ")), "{error}");
        assert!(!error.message.contains("hunter2") && !error.message.contains("ann:"), "{error}");
    }
}

#[tokio::test]
async fn a_proxy_that_is_not_understood_is_never_gone_around() {
    let (address, serving) = server(OK).await;
    for url in ["ftp://ann:hunter2@127.0.0.1:1", "", "http://"] {
        let egress = through(url.to_owned(), Hosts::Known);
        for scheme in ["http", "https"] {
            let error = failed(&egress, &format!("{scheme}://{address}/"), Reach::Named).await;
            assert_eq!(error.message, "the egress office has a proxy whose URL is not understood");
        }
    }
    assert!(!serving.is_finished(), "nobody connected");
}

/// Whatever the way out, and whatever the request says of itself.
#[tokio::test]
async fn what_a_client_named_is_not_reached_inside_by_any_kind_of_way_out() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it has one");
    let ways = [
        from("127.0.0.1", Hosts::Strange),
        from("127.0.0.2", Hosts::Strange),
        from("::1", Hosts::Strange),
        through(format!("http://{address}"), Hosts::Strange),
        through(format!("https://{address}"), Hosts::Strange),
        through(format!("socks5://{address}"), Hosts::Strange),
        through(format!("socks5h://a:b@{address}"), Hosts::Strange),
    ];
    for host in [
        "127.0.0.1",
        "127.0.0.2",
        "localhost",
        "10.0.0.1",
        "169.254.169.254",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[fd00::1]",
        "[fe80::1]",
    ] {
        for (at, egress) in ways.iter().enumerate() {
            for (url, reach) in [
                (format!("https://{host}/"), Reach::Home),
                (format!("https://{host}/"), Reach::Named),
                (format!("https://{host}/"), Reach::Public),
                (format!("https://{host}:{}/", address.port()), Reach::Named),
                (format!("http://{host}:443/"), Reach::Named),
            ] {
                let error = failed(egress, &url, reach).await;
                assert_eq!(error.kind, EgressErrorKind::Forbidden, "{url} by way {at}: {error}");
            }
        }
    }
    let listener = listener.into_std().expect("it is not in use");
    assert!(listener.accept().is_err(), "nobody connected");
}

#[tokio::test]
async fn streams_under_way_are_the_load_of_their_way_out() {
    let egress = egress(Proxies::Direct);
    let chosen = egress.engage();
    let body = futures_util::stream::iter([Ok::<_, EgressError>(Bytes::from_static(b"x"))]);
    let shaped = egress.engage().shape("a", None, body);
    assert_eq!(egress.load(), 2);
    drop(shaped);
    drop(chosen);
    assert_eq!(egress.load(), 0);
}
