//! Bytes in, bytes out: for requests that no client would send.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use super::PATIENCE;

/// Sends bytes to an address and returns all that comes back until the other side closes. Only what closes the
/// connection can be asked this way: say `Connection: close` where the request is a good one.
pub(crate) async fn exchange(address: &str, request: impl Into<Vec<u8>>) -> Vec<u8> {
    let (address, request) = (address.to_owned(), request.into());
    let exchanged = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        // Who refuses a request may close before it has read all of it, and what it says is read all the same.
        let _refused = stream.write_all(&request);
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        if answer.is_empty() { read.map(|_| answer) } else { Ok(answer) }
    });
    exchanged.await.expect("the exchange does not panic").expect("the connection is made and ends")
}
