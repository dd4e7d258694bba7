//! Sockets that systemd passes: pulls by them, their names, what is refused, and what systemd is told.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    os::unix::net::{UnixDatagram, UnixListener, UnixStream},
};

use hubsim::{Hub, Options};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    rig::https::{Caller, certificate_in, options},
    support::{Mirror, MirrorOptions, PATIENCE, blob_path, exchange, get, noise, push_blob, refused},
};

fn tcp() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

const PING: &str = "GET /v2/ HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn no_connection_is_refused_while_the_mirror_on_a_passed_socket_is_restarted() {
    let hub = Hub::start(Options::default()).await;
    let (listener, address) = tcp();
    let mut mirror = Mirror::start_with(&hub, MirrorOptions::default().passing("", listener)).await;
    assert_eq!(mirror.address(), address);
    let bytes = noise(1, 2 << 20);
    let digest = push_blob(&hub, "library/app", &bytes);
    let path = blob_path("library/app", digest);
    for _ in 0..3 {
        let reply = mirror.get(&path).await;
        assert!(reply.status == 200 && reply.body == bytes);
        mirror.sigterm();
        assert!(mirror.wait_exit().await.success());
        // Nobody accepts now, and yet they connect and say what they want.
        let waiting: Vec<TcpStream> = (0..16)
            .map(|_| {
                let mut stream = TcpStream::connect(&address).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream.write_all(PING.as_bytes()).unwrap();
                stream
            })
            .collect();
        mirror = mirror.restart().await;
        for mut stream in waiting {
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        }
    }
}

#[tokio::test]
async fn names_say_what_is_spoken_over_a_passed_socket() {
    let folder = tempfile::tempdir().unwrap();
    certificate_in(folder.path());
    let hub = Hub::start(Options::default()).await;
    let ((first, encrypted), (second, operators)) = (tcp(), tcp());
    // `tls.addr` would leave a port without a name plain, and nothing else opens where sockets are passed.
    let with = options(folder.path()).env("STOPOVER_TLS__ADDR", "127.0.0.1:0");
    let mirror = Mirror::start_with(&hub, with.passing("tls", first).passing("admin", second)).await;
    assert_eq!(mirror.address(), encrypted);
    assert_eq!(mirror.admin_url(), format!("http://{operators}"));
    assert_eq!(Caller::trusting(folder.path()).ping(&encrypted).await, Ok(200));
    assert_eq!(get(&format!("http://{operators}/readyz"), &[]).await.status, 200);
    let listening = mirror.log_lines().iter().filter(|line| line["msg"] == "listening").count();
    assert_eq!(listening, 1);

    let ((plain, at), (by_default, default_at)) = (tcp(), tcp());
    let both = options(folder.path()).passing("http", plain).passing("stopover.socket", by_default);
    let _mirror = Mirror::start_with(&hub, both).await;
    assert!(exchange(&at, PING).await.starts_with(b"HTTP/1.1 200 OK\r\n"));
    assert_eq!(Caller::trusting(folder.path()).ping(&default_at).await, Ok(200));
}

#[tokio::test]
async fn pulls_come_by_a_passed_unix_socket_whose_file_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.sock");
    let hub = Hub::start(Options::default()).await;
    let listener = UnixListener::bind(&path).unwrap();
    let mut mirror = Mirror::start_with(&hub, MirrorOptions::default().passing("x", listener)).await;
    let bytes = noise(2, 1 << 20);
    let blob = blob_path("library/app", push_blob(&hub, "library/app", &bytes));
    let at = path.clone();
    let pull = move || {
        let mut stream = UnixStream::connect(&at).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = format!("GET {blob} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        answer
    };
    let answer = tokio::task::spawn_blocking(pull).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n") && answer.ends_with(&bytes));
    mirror.sigterm();
    assert!(mirror.wait_exit().await.success());
    assert!(path.exists(), "it belongs to who made it");
}

#[tokio::test]
async fn a_socket_of_the_wrong_kind_starts_nothing_and_is_named() {
    let (listener, address) = tcp();
    let connection = TcpStream::connect(address).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (datagram, _other) = UnixDatagram::pair().unwrap();
    let none = || MirrorOptions::default();
    let table = [
        (none().passing("one", accepted), "\"one\": it is a connection; expected a socket that listens"),
        (none().passing("two", udp), "\"two\": expected a stream socket, ListenStream= in"),
        (none().passing("three", datagram), "\"three\": expected a stream socket, ListenStream= in"),
        (none().passing("tls", listener), r#"as \"tls\": it is to speak TLS; expected tls.certificate"#),
    ];
    for (options, wanted) in table {
        let said = refused(options).await;
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
    drop(connection);
}

#[tokio::test]
async fn the_service_manager_is_told_when_the_mirror_is_ready_reloads_and_ends() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify.sock");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let told = || {
        let mut bytes = [0; 512];
        let len = socket.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..len]).into_owned()
    };
    let hub = Hub::start(Options::default()).await;
    let options = MirrorOptions::default().env("NOTIFY_SOCKET", path.display());
    let mut mirror = Mirror::start_with(&hub, options).await;
    assert_eq!(told(), "READY=1\n");
    kill_process(Pid::from_raw(mirror.pid().cast_signed()).unwrap(), Signal::HUP).unwrap();
    let reloading = told();
    let since = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
    assert!(since.trim_end().parse::<u64>().unwrap() > 0);
    assert_eq!(told(), "READY=1\n");
    mirror.sigterm();
    assert_eq!(told(), "STOPPING=1\n");
    assert!(mirror.wait_exit().await.success());
}
