//! `hubsim pull`: many clients that want one thing at the same moment, as a fleet that rolls out an image.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Args;
use http::Uri;
use oci::{Algorithm, Digest, Hasher};
use serde_json::{Value, json};
use tokio::sync::Barrier;

use super::{
    client::{self, Connection, Got, Head},
    spread::spread,
};

/// Redirects followed and tokens fetched for one request.
const DETOURS_MAX: usize = 5;
const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
                      application/vnd.docker.distribution.manifest.list.v2+json, \
                      application/vnd.oci.image.manifest.v1+json, \
                      application/vnd.docker.distribution.manifest.v2+json, */*";

/// The arguments of `hubsim pull`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The mirror or registry.
    #[arg(long)]
    mirror: String,
    /// Clients that start together.
    #[arg(long, default_value_t = 1)]
    clients: usize,
    /// The path to get, such as /v2/library/busybox/blobs/sha256:...; the clients take several in turn.
    #[arg(long, required = true)]
    path: Vec<String>,
    /// Does not hash what comes.
    #[arg(long)]
    no_hash: bool,
    /// Prints each client's own seconds, too.
    #[arg(long)]
    each: bool,
}

struct Pulled {
    got: Got,
    /// Whether the bytes hash to the digest of the path or of the answer; `None` where neither was there to compare.
    is_right: Option<bool>,
}

/// Runs `hubsim pull`.
pub(crate) async fn run(arguments: Arguments) -> Result<(), String> {
    let arguments = Arc::new(arguments);
    let barrier = Arc::new(Barrier::new(arguments.clients));
    let tasks: Vec<_> = (0..arguments.clients)
        .map(|number| {
            let (arguments, barrier) = (arguments.clone(), barrier.clone());
            tokio::spawn(async move {
                let path = &arguments.path[number % arguments.path.len()];
                barrier.wait().await;
                pull(&arguments.mirror, path, !arguments.no_hash).await
            })
        })
        .collect();
    let (mut pulled, mut errors) = (Vec::new(), Vec::new());
    for task in tasks {
        match task.await.map_err(|error| error.to_string())? {
            Ok(one) => pulled.push(one),
            Err(error) => errors.push(error),
        }
    }
    let wholes: Vec<Duration> = pulled.iter().map(|one| one.got.whole).collect();
    let each: Vec<f64> = wholes.iter().map(Duration::as_secs_f64).collect();
    let wrong = pulled.iter().filter(|one| one.is_right == Some(false)).count();
    println!(
        "{}",
        json!({
            "mirror": arguments.mirror,
            "clients": arguments.clients,
            "errors": errors.len(),
            "first_error": errors.first(),
            "bytes": pulled.iter().map(|one| one.got.bytes).sum::<u64>(),
            "sha256_ok": pulled.iter().filter(|one| one.is_right == Some(true)).count(),
            "sha256_wrong": wrong,
            "seconds": spread(wholes),
            "first_byte_seconds": spread(pulled.iter().map(|one| one.got.first_byte).collect()),
            "each": if arguments.each { json!(each) } else { Value::Null },
        })
    );
    if errors.is_empty() && wrong == 0 {
        Ok(())
    } else {
        Err(format!("{} of the clients failed", errors.len() + wrong))
    }
}

async fn pull(mirror: &str, path: &str, is_hashed: bool) -> Result<Pulled, String> {
    let asked = Instant::now();
    let mut url: Uri =
        format!("{mirror}{path}").parse().map_err(|error| format!("{mirror}{path}: {error}"))?;
    let mut authorization: Option<String> = None;
    let mut digest: Option<Digest> = path.rsplit_once('/').and_then(|(_, end)| end.parse().ok());
    for _ in 0..DETOURS_MAX {
        let mut connection = Connection::open(&url).await.map_err(|error| format!("{url}: {error}"))?;
        let mut headers = vec![("Accept", ACCEPT)];
        headers.extend(authorization.as_deref().map(|value| ("Authorization", value)));
        let head = connection.get(client::path(&url), &headers).await.map_err(|error| error.to_string())?;
        digest = digest.or_else(|| head.header("docker-content-digest").and_then(|text| text.parse().ok()));
        match head.status {
            200 | 206 => {
                let mut hasher =
                    is_hashed.then(|| Hasher::new(digest.map_or(Algorithm::Sha256, |d| d.algorithm())));
                let take = |bytes: &[u8]| {
                    if let Some(hasher) = &mut hasher {
                        hasher.update(bytes);
                    }
                };
                let got = connection.body(&head, asked, take).await.map_err(|error| error.to_string())?;
                let is_right = hasher.zip(digest).map(|(hasher, digest)| hasher.finish() == digest);
                return Ok(Pulled { got, is_right });
            }
            401 if authorization.is_none() => authorization = Some(bearer(&head).await?),
            301 | 302 | 307 | 308 => {
                url = redirected(&url, &head)?;
                authorization = None;
            }
            status => return Err(format!("{url}: status {status}")),
        }
    }
    Err(format!("{url}: too many redirects"))
}

/// Returns the `Authorization` that a challenge asks for, of an anonymous token.
async fn bearer(head: &Head) -> Result<String, String> {
    let challenge = head.header("www-authenticate").unwrap_or("");
    let parameter = |name: &str| {
        let (_, rest) = challenge.split_once(&format!("{name}=\""))?;
        rest.split_once('"').map(|(value, _)| value)
    };
    let realm = parameter("realm").ok_or_else(|| format!("no realm in the challenge: {challenge:?}"))?;
    let (service, scope) = (parameter("service").unwrap_or(""), parameter("scope").unwrap_or(""));
    let url = format!("{realm}?service={service}&scope={scope}");
    let url: Uri = url.parse().map_err(|error| format!("{url}: {error}"))?;
    let mut connection = Connection::open(&url).await.map_err(|error| format!("{url}: {error}"))?;
    let mut answer = Vec::new();
    let head = connection.get(client::path(&url), &[]).await.map_err(|error| error.to_string())?;
    let take = |bytes: &[u8]| answer.extend_from_slice(bytes);
    connection.body(&head, Instant::now(), take).await.map_err(|error| error.to_string())?;
    let document: Value = serde_json::from_slice(&answer).map_err(|error| format!("{url}: {error}"))?;
    let token = document["token"].as_str().or_else(|| document["access_token"].as_str());
    token.map(|token| format!("Bearer {token}")).ok_or_else(|| format!("{url}: no token in the answer"))
}

fn redirected(from: &Uri, head: &Head) -> Result<Uri, String> {
    let location = head.header("location").unwrap_or("");
    let absolute = match (location.starts_with('/'), from.authority()) {
        (true, Some(authority)) => format!("http://{authority}{location}"),
        _ => location.to_owned(),
    };
    absolute.parse().map_err(|error| format!("a redirect to {absolute:?}: {error}"))
}
