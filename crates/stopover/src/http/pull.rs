//! A pull: access, route, cache, then the answer. Every way that one can go stands in docs/request-handling.md.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use oci::{Descriptor, Digest, Endpoint, EndpointError, ErrorCode, Page, Reference, RepositoryName, Target};

use super::{
    access::{Accounts, Line},
    blob,
    body::Body,
    conditional::already_has,
    connection::{Client, Shared},
    error::{About, Refusal, refusal},
    respond,
};
use crate::{
    access::Access,
    cache::{Cache, Served},
    health::Health,
    route::{Arrival, Route},
    source::{Origin, TagPage},
};

/// Within what time every answer begins: containerd gives up after 30 s (its ResponseHeaderTimeout).
const HEAD_WITHIN: Duration = Duration::from_secs(28);

/// Answers pulls.
pub(super) struct Pulls {
    health: Arc<Health>,
    access: Access,
    route: Arc<Route>,
    pub(super) cache: Cache,
    accounts: Arc<Accounts>,
    requests: AtomicU64,
}

/// From whom a request came, and over what.
#[derive(Clone)]
pub(super) struct Caller {
    pub(super) client: Client,
    pub(super) connection: Arc<Shared>,
    /// Whether files may be sent as such.
    pub(super) sendfile: bool,
}

/// A request as the handlers see it.
pub(super) struct Pull<'a> {
    pub(super) method: &'a Method,
    pub(super) headers: &'a HeaderMap,
    pub(super) version: Version,
    /// The path as the client sent it.
    path: &'a str,
    /// What `Host` and path say of the registry.
    arrival: Arrival,
    pub(super) target: Target,
    pub(super) caller: &'a Caller,
}

impl Pull<'_> {
    pub(super) fn is_head(&self) -> bool {
        self.method == Method::HEAD
    }
}

type Answer = Result<Response<Body>, Refusal>;

impl Pulls {
    /// Returns what answers pulls from this cache.
    pub(super) fn new(
        health: Arc<Health>,
        access: Access,
        route: Arc<Route>,
        cache: Cache,
        accounts: Arc<Accounts>,
    ) -> Self {
        // Ids go on from the time of the start, so that two runs do not give the same.
        let since_1970 = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
        let first = (since_1970.as_nanos() as u64) & !0xffff;
        Self { health, access, route, cache, accounts, requests: AtomicU64::new(first) }
    }

    /// Answers a request, and has its line written when the answer's last byte is sent or given up.
    pub(super) async fn answer<B: http_body::Body>(
        &self,
        request: &Request<B>,
        caller: &Caller,
    ) -> Response<Body> {
        let id = self.requests.fetch_add(1, Ordering::Relaxed);
        let mut line = Box::new(Line::begin(&self.accounts, caller.client, request.method().clone(), id));
        line.asked(request);
        let mut heeded = None;
        let answer = match self.parsed(request, caller) {
            _ if self.health.is_down() => Err(Refusal::down()),
            Ok(pull) => {
                heeded = pull.target.ns.as_deref().filter(|ns| self.route.heeds(ns)).map(respond::value);
                let answer = tokio::time::timeout(HEAD_WITHIN, self.admit_and_serve(&pull, &mut line));
                answer.await.unwrap_or_else(|_| Err(Refusal::late()))
            }
            // Whoever may not pull is told that first, whatever else is wrong.
            Err(refusal) => match self.admit(request.headers(), &mut line).await {
                Ok(()) => Err(refusal),
                Err(denied) => Err(Refusal { close: refusal.close, ..denied }),
            },
        };
        let mut response = answer.unwrap_or_else(|refusal| {
            if line.repository.is_none() {
                line.path = Some(request.uri().path().to_owned());
            }
            line.error = Some(refusal.message.clone());
            respond::error(&refusal, id, request.method() == Method::HEAD)
        });
        if let Some(ns) = heeded {
            response.headers_mut().insert(respond::NAMESPACE, ns);
        }
        line.status = response.status();
        if request.version() < Version::HTTP_2 {
            line.goes_out_on(&caller.connection);
        }
        response.body_mut().log_at_end(line);
        response
    }

    async fn admit_and_serve(&self, pull: &Pull<'_>, line: &mut Line) -> Answer {
        // `/` is what probes ask for that know no password, as at registry:2.
        if pull.target.endpoint != Endpoint::Root {
            self.admit(pull.headers, line).await?;
        }
        self.route_and_serve(pull, line).await
    }

    async fn admit(&self, headers: &HeaderMap, line: &mut Line) -> Result<(), Refusal> {
        let admitted = self.access.admit(headers.get(header::AUTHORIZATION)).await;
        line.user = admitted.map_err(|denied| Refusal::denied(&denied, self.access.challenge()))?;
        Ok(())
    }

    async fn route_and_serve(&self, pull: &Pull<'_>, line: &mut Line) -> Answer {
        match &pull.target.endpoint {
            Endpoint::Root | Endpoint::Version => {
                line.endpoint = "version";
                Ok(respond::bytes(respond::JSON, Bytes::from_static(b"{}"), pull.is_head()))
            }
            Endpoint::Catalog => {
                let message = "the catalogue of a registry is not mirrored";
                Err(Refusal::new(StatusCode::NOT_FOUND, ErrorCode::Unsupported, message))
            }
            Endpoint::Manifest { name, reference } => {
                let origin = self.origin(pull, name, "manifest", line)?;
                line.reference = Some(reference.clone());
                self.manifest(pull, &origin, reference, line).await
            }
            Endpoint::Blob { name, digest } => {
                let origin = self.origin(pull, name, "blob", line)?;
                line.reference = Some(Reference::Digest(*digest));
                blob::serve(&self.cache, pull, &origin, digest, line).await
            }
            Endpoint::Tags { name, page } => {
                let origin = self.origin(pull, name, "tags", line)?;
                self.tags(pull, &origin, name, page, line).await
            }
            Endpoint::Referrers { name, digest, artifact_type } => {
                let origin = self.origin(pull, name, "referrers", line)?;
                line.reference = Some(Reference::Digest(*digest));
                self.referrers(pull, &origin, digest, artifact_type.as_deref(), line).await
            }
        }
    }

    /// Returns the request as the handlers see it, or why it is none of ours. Nothing behind this checks again.
    fn parsed<'a, B: http_body::Body>(
        &self,
        request: &'a Request<B>,
        caller: &'a Caller,
    ) -> Result<Pull<'a>, Refusal> {
        let uri = request.uri();
        if request.version() < Version::HTTP_2 && (uri.scheme().is_some() || uri.authority().is_some()) {
            let message =
                "the request's target names a host: this is a registry, not a proxy; send the path alone";
            return Err(Refusal::new(StatusCode::BAD_REQUEST, ErrorCode::Unsupported, message));
        }
        let (arrival, path) = self.route.arrive(host_of(request), uri.path());
        let target = Target::parse(request.method().as_str(), &path, uri.query());
        let has_body = |headers: &HeaderMap| {
            let is_zero = |length: &HeaderValue| length == "0";
            headers.contains_key(header::TRANSFER_ENCODING)
                || !headers.get_all(header::CONTENT_LENGTH).iter().all(is_zero)
        };
        if !matches!(target, Err(EndpointError::Method { .. }))
            && (has_body(request.headers()) || !request.body().is_end_stream())
        {
            return Err(Refusal::body());
        }
        let target = target?;
        Ok(Pull {
            method: request.method(),
            headers: request.headers(),
            version: request.version(),
            path: uri.path(),
            arrival,
            target,
            caller,
        })
    }

    fn origin(
        &self,
        pull: &Pull<'_>,
        name: &RepositoryName,
        endpoint: &'static str,
        line: &mut Line,
    ) -> Result<Origin, Refusal> {
        line.endpoint = endpoint;
        line.repository = Some(name.clone());
        let origin = self.route.origin(&pull.arrival, pull.target.ns.as_deref(), name)?;
        line.repository = Some(origin.tree_name.clone());
        line.registry = Some(Arc::clone(&origin.registry));
        Ok(origin)
    }

    async fn manifest(
        &self,
        pull: &Pull<'_>,
        origin: &Origin,
        reference: &Reference,
        line: &mut Line,
    ) -> Answer {
        let failed = |error| refusal(About::Manifest, &error);
        let served = if pull.is_head() {
            let served = self.cache.manifest_descriptor(origin, reference).await.map_err(failed)?;
            served.map(|descriptor| (descriptor, Bytes::new()))
        } else {
            let served = self.cache.manifest(origin, reference).await.map_err(failed)?;
            if !already_has(pull.headers, &served.content.descriptor.digest) {
                self.cache.handed_out(origin, &served);
            }
            served.map(|manifest| (manifest.descriptor, manifest.bytes))
        };
        line.served(&served);
        let Served { content: (descriptor, bytes), outcome, warning, .. } = served;
        line.digest = Some(descriptor.digest);
        let mut response = if already_has(pull.headers, &descriptor.digest) {
            respond::not_modified(&descriptor.digest)
        } else {
            described(&descriptor, bytes)
        };
        respond::explain(response.headers_mut(), outcome, warning.as_ref());
        Ok(response)
    }

    async fn tags(
        &self,
        pull: &Pull<'_>,
        origin: &Origin,
        asked_as: &RepositoryName,
        page: &Page,
        line: &mut Line,
    ) -> Answer {
        let served =
            self.cache.tags(origin, page).await.map_err(|error| refusal(About::Repository, &error))?;
        line.served(&served);
        let body = serde_json::json!({ "name": asked_as.as_str(), "tags": served.content.tags });
        let mut response = respond::bytes(respond::JSON, Bytes::from(body.to_string()), pull.is_head());
        if let Some(link) = next_link(pull, &served.content) {
            response.headers_mut().insert(header::LINK, respond::value(&link));
        }
        respond::explain(response.headers_mut(), served.outcome, served.warning.as_ref());
        Ok(response)
    }

    async fn referrers(
        &self,
        pull: &Pull<'_>,
        origin: &Origin,
        digest: &Digest,
        artifact_type: Option<&str>,
        line: &mut Line,
    ) -> Answer {
        let served = self.cache.referrers(origin, digest, artifact_type).await;
        let served = served.map_err(|error| refusal(About::Referrers, &error))?;
        line.served(&served);
        let mut response = respond::bytes(respond::OCI_INDEX, served.content.index, pull.is_head());
        if served.content.filtered {
            let applied = HeaderValue::from_static("artifactType");
            response.headers_mut().insert(respond::FILTERS_APPLIED, applied);
        }
        respond::explain(response.headers_mut(), served.outcome, served.warning.as_ref());
        Ok(response)
    }
}

/// Returns a manifest's answer; for a HEAD, `bytes` is empty and the length is still the manifest's.
fn described(descriptor: &Descriptor, bytes: Bytes) -> Response<Body> {
    let content_type = respond::value(descriptor.media_type.as_str());
    let mut response = respond::head(StatusCode::OK, content_type, descriptor.size, Body::memory(bytes));
    respond::name(response.headers_mut(), &descriptor.digest);
    response
}

/// Returns the host that the client asked: HTTP/2's `:authority`, or HTTP/1's one `Host`.
fn host_of<B>(request: &Request<B>) -> Option<&str> {
    if let Some(authority) = request.uri().authority() {
        return Some(authority.as_str());
    }
    let mut hosts = request.headers().get_all(header::HOST).iter();
    hosts.next().filter(|_| hosts.next().is_none())?.to_str().ok()
}

/// Returns where the next page of tags is on this mirror: at the path and by the `ns` that the client used, whichever of
/// the many ways to name a registry that is.
fn next_link(pull: &Pull<'_>, page: &TagPage) -> Option<String> {
    let mut query = page.next.as_ref()?.to_query();
    if let Some(ns) = &pull.target.ns {
        query = format!("{query}&ns={ns}");
    }
    Some(format!("<{}?{query}>; rel=\"next\"", pull.path))
}
