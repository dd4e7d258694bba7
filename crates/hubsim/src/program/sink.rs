//! `hubsim sink`: how fast a server gives bodies away.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use clap::Args;
use http::Uri;
use serde_json::json;

use super::{
    client::{self, Connection},
    spread::spread,
};

/// The arguments of `hubsim sink`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The URL to ask for; several are taken in turn. All must be of one host.
    #[arg(long, required = true)]
    url: Vec<Uri>,
    /// Connections that ask at the same time, each on its own.
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// Requests in all.
    #[arg(long, default_value_t = 1)]
    requests: u64,
    /// A header to send, as `Name: value`.
    #[arg(long)]
    header: Vec<String>,
}

#[derive(Default)]
struct Tally {
    bytes: u64,
    errors: Vec<String>,
    first_bytes: Vec<Duration>,
    wholes: Vec<Duration>,
}

/// Runs `hubsim sink`.
pub(crate) async fn run(arguments: Arguments) -> Result<(), String> {
    let shared = Arc::new(arguments);
    let next = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    let tasks: Vec<_> =
        (0..shared.connections).map(|_| tokio::spawn(drain(shared.clone(), next.clone()))).collect();
    let mut all = Tally::default();
    for task in tasks {
        let one = task.await.map_err(|error| error.to_string())?;
        all.bytes += one.bytes;
        all.errors.extend(one.errors);
        all.first_bytes.extend(one.first_bytes);
        all.wholes.extend(one.wholes);
    }
    let seconds = start.elapsed().as_secs_f64();
    let served = all.wholes.len();
    println!(
        "{}",
        json!({
            "url": shared.url[0].to_string(),
            "connections": shared.connections,
            "requests": served,
            "errors": all.errors.len(),
            "first_error": all.errors.first(),
            "bytes": all.bytes,
            "seconds": seconds,
            "gb_per_second": all.bytes as f64 / seconds / 1e9,
            "requests_per_second": served as f64 / seconds,
            "first_byte_seconds": spread(all.first_bytes),
            "request_seconds": spread(all.wholes),
        })
    );
    if all.errors.is_empty() { Ok(()) } else { Err(format!("{} requests failed", all.errors.len())) }
}

async fn drain(arguments: Arc<Arguments>, next: Arc<AtomicU64>) -> Tally {
    let mut tally = Tally::default();
    let mut connection = None;
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= arguments.requests {
            return tally;
        }
        let url = &arguments.url[(number % arguments.url.len() as u64) as usize];
        match request(&mut connection, url, &arguments.header, &mut tally).await {
            Ok(()) => {}
            Err(error) => {
                tally.errors.push(error.to_string());
                connection = None;
            }
        }
    }
}

async fn request(
    open: &mut Option<Connection>,
    url: &Uri,
    headers: &[String],
    tally: &mut Tally,
) -> io::Result<()> {
    let connection = match open {
        Some(connection) => connection,
        None => open.insert(Connection::open(url).await?),
    };
    let headers: Vec<(&str, &str)> = headers
        .iter()
        .filter_map(|header| header.split_once(':'))
        .map(|(name, value)| (name, value.trim()))
        .collect();
    let asked = Instant::now();
    let head = connection.get(client::path(url), &headers).await?;
    let got = connection.body(&head, asked, |_| {}).await?;
    if !(200..300).contains(&head.status) {
        return Err(io::Error::other(format!("status {}", head.status)));
    }
    tally.bytes += got.bytes;
    tally.first_bytes.push(got.first_byte);
    tally.wholes.push(got.whole);
    Ok(())
}
