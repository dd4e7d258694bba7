//! The registry's own answers: ping, manifests, blobs, tags, referrers.

use http::{HeaderMap, Method, header};
use serde_json::{Value, json};

use crate::{
    answer::{self, Answer},
    blob::Blob,
    cdn,
    fault::{Asked, Fault},
    options::Redirect,
    quota::{self, Source},
    route::Route,
    state::Exchange,
    text, token,
};

/// The most tags that one page holds, asked for or not.
const TAGS_MAX: usize = 1000;
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Answers a request that was admitted.
pub(crate) fn answer(
    exchange: &Exchange,
    asked: &Asked<'_>,
    headers: &HeaderMap,
    route: Route<'_>,
    query: &str,
    source: &Source,
) -> Answer {
    if !matches!(*asked.method, Method::GET | Method::HEAD) {
        return unsupported(exchange);
    }
    if let Some(elsewhere) = hand_off(exchange, route) {
        return answer::redirect(exchange, 307, &elsewhere);
    }
    let known =
        route.repository().is_none_or(|repository| exchange.state.content().has_repository(repository));
    match route {
        _ if !known => not_found(exchange, "NAME_UNKNOWN", "repository name not known to registry"),
        Route::Ping => answer::json(exchange, 200, &json!({})),
        Route::Manifest { repository, reference } => {
            manifest(exchange, asked, headers, repository, reference, source)
        }
        Route::Blob { repository, digest } => blob(exchange, asked, headers, repository, digest),
        Route::Tags { repository } => tags(exchange, repository, query),
        Route::Referrers { repository, digest } => referrers(exchange, asked, repository, digest, query),
        _ => not_found(exchange, "NOT_FOUND", "page not found"),
    }
}

/// Returns where a request is to go instead.
fn hand_off(exchange: &Exchange, route: Route<'_>) -> Option<String> {
    let to = exchange.state.options().hand_off.clone()?;
    Some(match route {
        Route::Manifest { repository, reference } => format!("{to}/{repository}/manifests/{reference}"),
        Route::Blob { repository, digest } => format!("{to}/{repository}/blobs/{digest}"),
        Route::Tags { repository } => format!("{to}/{repository}/tags/list"),
        Route::Referrers { repository, digest } => format!("{to}/{repository}/referrers/{digest}"),
        _ => return None,
    })
}

fn manifest(
    exchange: &Exchange,
    asked: &Asked<'_>,
    headers: &HeaderMap,
    repository: &str,
    reference: &str,
    source: &Source,
) -> Answer {
    let options = exchange.state.options();
    let strike = |fault: Fault| exchange.state.faults.strike(asked, |one| *one == fault).is_some();
    let is_head = *asked.method == Method::HEAD;
    if is_head && strike(Fault::HeadRefused) {
        return unsupported(exchange);
    }
    if is_head && strike(Fault::HeadUnauthorized) {
        return token::challenge(exchange, Some(repository), None);
    }
    let standing = exchange.state.quota().count(source, options.quota, is_head);
    let mut answer = if standing.is_some_and(|standing| standing.refused) {
        let own = exchange.state.quota().retry_after(source);
        quota::spent(exchange, source.account.is_some(), own.or(options.retry_after))
    } else {
        stored_manifest(exchange, asked, headers, repository, reference)
    };
    if let Some(standing) = standing {
        standing.tell(source, &mut answer);
    }
    answer
}

fn stored_manifest(
    exchange: &Exchange,
    asked: &Asked<'_>,
    headers: &HeaderMap,
    repository: &str,
    reference: &str,
) -> Answer {
    if reference.contains(':') && !looks_like_digest(reference) {
        return answer::error(exchange, 400, "DIGEST_INVALID", "provided digest is no digest", Value::Null);
    }
    let Some(manifest) = exchange.state.content().manifest(repository, reference) else {
        return not_found(exchange, "MANIFEST_UNKNOWN", "manifest unknown");
    };
    if exchange.state.options().strict_accept && !accepts(headers, &manifest.media_type) {
        // As ghcr.io words it.
        let message = format!("{} found, but Accept header does not support it", manifest.media_type);
        return not_found(exchange, "MANIFEST_UNKNOWN", &message);
    }
    let etag = format!("\"{}\"", manifest.digest);
    if answer::text(headers, header::IF_NONE_MATCH).is_some_and(|known| known.contains(&etag)) {
        let mut answer = answer::whole(exchange, 304, &manifest.media_type, "");
        answer::put(&mut answer, "etag", &etag);
        return answer;
    }
    let strike = |wanted: fn(&Fault) -> bool| exchange.state.faults.strike(asked, wanted);
    let is_get = *asked.method == Method::GET;
    let mut body = manifest.body.clone();
    if is_get && strike(|fault| *fault == Fault::ManifestNotItsDigest).is_some() {
        body = altered(&body).into();
    }
    if is_get && let Some(Fault::HugeManifest(size)) = strike(|fault| matches!(fault, Fault::HugeManifest(_)))
    {
        body = huge(size).into();
    }
    // Hub's manifests know no ranges.
    let no_ranges = HeaderMap::new();
    let mut answer = answer::content(exchange, asked, &no_ranges, &manifest.media_type, body);
    answer.headers_mut().remove(header::ACCEPT_RANGES);
    answer::put(&mut answer, "etag", &etag);
    if is_get || strike(|fault| *fault == Fault::HeadNoDigest).is_none() {
        answer::put(&mut answer, "docker-content-digest", &manifest.digest);
    }
    answer
}

/// Returns a manifest with one byte changed that leaves it JSON: a digit of the last digest in it.
fn altered(body: &Blob) -> Blob {
    let mut bytes: Vec<u8> = body.pieces().flatten().collect();
    if let Some(at) = bytes.iter().rposition(u8::is_ascii_digit) {
        bytes[at] = if bytes[at] == b'1' { b'2' } else { b'1' };
    }
    Blob::from(bytes)
}

/// Returns a manifest that is one annotation of this size.
fn huge(size: u64) -> Blob {
    let head = format!(
        "{{\"schemaVersion\":2,\"mediaType\":\"{OCI_INDEX}\",\"manifests\":[],\"annotations\":{{\"x\":\""
    );
    let tail = "\"}}";
    let padding = size.saturating_sub((head.len() + tail.len()) as u64);
    Blob::from(head).then_repeated(vec![b'x'; 64 << 10].into(), padding).then(tail)
}

fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut types =
        values.flat_map(|value| value.split(',')).map(|one| one.split(';').next().unwrap_or("").trim());
    types.any(|one| one == media_type)
}

fn blob(
    exchange: &Exchange,
    asked: &Asked<'_>,
    headers: &HeaderMap,
    repository: &str,
    digest: &str,
) -> Answer {
    if !looks_like_digest(digest) {
        return answer::error(exchange, 400, "DIGEST_INVALID", "provided digest is no digest", Value::Null);
    }
    let Some(blob) = exchange.state.content().blob(repository, digest) else {
        return not_found(exchange, "BLOB_UNKNOWN", "blob unknown to registry");
    };
    let options = exchange.state.options();
    let mut answer = match options.redirect {
        Redirect::None => answer::content(exchange, asked, headers, "application/octet-stream", blob),
        _ if *asked.method == Method::HEAD => {
            let no_ranges = HeaderMap::new();
            answer::content(exchange, asked, &no_ranges, "application/octet-stream", blob)
        }
        how => {
            let url = cdn::signed_url(exchange, how, digest);
            let mut answer = answer::redirect(exchange, options.redirect_status, &url);
            // As quay.io's: they are of the blob, and wrong of a URL that ends.
            answer::put(&mut answer, "cache-control", "max-age=31536000");
            answer::put(&mut answer, "accept-ranges", "bytes");
            answer
        }
    };
    answer::put(&mut answer, "docker-content-digest", digest);
    answer
}

fn tags(exchange: &Exchange, repository: &str, query: &str) -> Answer {
    let pairs = text::pairs(query);
    let wanted = match text::value(&pairs, "n").map(str::parse::<usize>) {
        Some(Ok(n)) => n.min(TAGS_MAX),
        Some(Err(_)) => {
            let message = "invalid number of results requested";
            return answer::error(exchange, 400, "PAGINATION_NUMBER_INVALID", message, Value::Null);
        }
        None => TAGS_MAX,
    };
    let mut tags = exchange.state.content().tags(repository);
    if let Some(last) = text::value(&pairs, "last") {
        tags.retain(|tag| tag.as_str() > last);
    }
    let more = tags.len() > wanted;
    tags.truncate(wanted);
    let mut answer = answer::json(exchange, 200, &json!({ "name": repository, "tags": tags }));
    if let (true, Some(last)) = (more, tags.last()) {
        let link = format!("</v2/{repository}/tags/list?last={last}&n={wanted}>; rel=\"next\"");
        answer::put(&mut answer, "link", &link);
    }
    answer
}

fn referrers(exchange: &Exchange, asked: &Asked<'_>, repository: &str, digest: &str, query: &str) -> Answer {
    if exchange.state.faults.strike(asked, |fault| *fault == Fault::NoReferrers).is_some() {
        return answer::whole(exchange, 404, "text/plain; charset=utf-8", "404 page not found\n");
    }
    if !looks_like_digest(digest) {
        return answer::error(exchange, 400, "DIGEST_INVALID", "provided digest is no digest", Value::Null);
    }
    let mut manifests = exchange.state.content().referrers(repository, digest);
    let pairs = text::pairs(query);
    let filter = text::value(&pairs, "artifactType").filter(|_| exchange.state.options().filter_referrers);
    if let Some(wanted) = filter {
        manifests.retain(|descriptor| descriptor["artifactType"] == wanted);
    }
    // By a parameter of the registry's own, since the specification names none.
    let page: usize = text::value(&pairs, "page").and_then(|page| page.parse().ok()).unwrap_or(0);
    let size = exchange.state.options().referrers_page.unwrap_or(usize::MAX);
    let mut rest = manifests.split_off(manifests.len().min(page.saturating_mul(size)));
    let more = rest.len() > size;
    rest.truncate(size);
    let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": rest });
    let mut answer = answer::whole(exchange, 200, OCI_INDEX, index.to_string());
    if more {
        let link = format!("</v2/{repository}/referrers/{digest}?page={}>; rel=\"next\"", page + 1);
        answer::put(&mut answer, "link", &link);
    }
    if filter.is_some() {
        answer::put(&mut answer, "oci-filters-applied", "artifactType");
    }
    answer
}

fn not_found(exchange: &Exchange, code: &str, message: &str) -> Answer {
    answer::error(exchange, 404, code, message, Value::Null)
}

fn unsupported(exchange: &Exchange) -> Answer {
    answer::error(exchange, 405, "UNSUPPORTED", "The operation is unsupported.", Value::Null)
}

fn looks_like_digest(text: &str) -> bool {
    let length = match text.split_once(':') {
        Some(("sha256", hex)) => hex.len() == 64,
        Some(("sha512", hex)) => hex.len() == 128,
        _ => false,
    };
    length && text.bytes().skip(7).all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
