//! A SOCKS5 proxy (RFC 1928, with users and passwords by RFC 1929): CONNECT alone, to
//! addresses and names of this machine.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use super::proxy::here;

const VERSION: u8 = 5;
const BY_PASSWORD: u8 = 2;
const NO_METHOD: u8 = 0xff;
const CONNECT: u8 = 1;
const REFUSED: u8 = 5;

/// A running proxy that lets in one user. It closes when dropped.
pub(crate) struct SocksProxy {
    port: u16,
    account: String,
    asked: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl SocksProxy {
    /// Starts a proxy on 127.0.0.1 for `account`, a `user:password`. Names that end in `.test` are this machine.
    pub(crate) async fn start(account: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let port = listener.local_addr().expect("a listener has an address").port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (seen, wanted) = (Arc::clone(&asked), account.to_owned());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, wanted.clone(), Arc::clone(&seen)));
            }
        });
        Self { port, account: account.to_owned(), asked, task }
    }

    /// Returns the proxy's URL by a scheme, `socks5` or `socks5h`, with the account.
    pub(crate) fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}@127.0.0.1:{}", self.account, self.port)
    }

    /// Returns the places asked for by those who were let in, as `host:port`.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for SocksProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut client: TcpStream, account: String, asked: Arc<Mutex<Vec<String>>>) -> Option<()> {
    if client.read_u8().await.ok()? != VERSION {
        return None;
    }
    let methods = short(&mut client).await?;
    if !methods.contains(&BY_PASSWORD) {
        return client.write_all(&[VERSION, NO_METHOD]).await.ok();
    }
    client.write_all(&[VERSION, BY_PASSWORD]).await.ok()?;
    let _version = client.read_u8().await.ok()?;
    let told = [short(&mut client).await?, short(&mut client).await?].join(&b':');
    let is_right = told == account.as_bytes();
    client.write_all(&[1, u8::from(!is_right)]).await.ok()?;
    if !is_right {
        return None;
    }

    let mut head = [0; 4];
    client.read_exact(&mut head).await.ok()?;
    let host = match head[3] {
        1 => Ipv4Addr::from(client.read_u32().await.ok()?).to_string(),
        4 => format!("[{}]", Ipv6Addr::from(client.read_u128().await.ok()?)),
        _ => String::from_utf8(short(&mut client).await?).ok()?,
    };
    let place = format!("{host}:{}", client.read_u16().await.ok()?);
    asked.lock().unwrap_or_else(PoisonError::into_inner).push(place.clone());
    let server = match head[1] {
        CONNECT if is_here(&here(&place)) => TcpStream::connect(here(&place)).await.ok(),
        _ => None,
    };
    let reply = if server.is_some() { 0 } else { REFUSED };
    client.write_all(&[VERSION, reply, 0, 1, 0, 0, 0, 0, 0, 0]).await.ok()?;
    copy_bidirectional(&mut client, &mut server?).await.ok()?;
    Some(())
}

/// Reads bytes with their number before them.
async fn short(client: &mut TcpStream) -> Option<Vec<u8>> {
    let mut bytes = vec![0; client.read_u8().await.ok()?.into()];
    client.read_exact(&mut bytes).await.ok()?;
    Some(bytes)
}

fn is_here(place: &str) -> bool {
    place.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_loopback())
}
