//! A registry asked over its own protocol, such as Docker Hub.
//!
//! It promises what [`Source`] does: requests of its own making, credentials that go home only, answers or failures
//! within [`ANSWER_MAX`], and restraint towards a registry that is down or has said "not so much". It keeps tokens and
//! what was learned of the registry's health in memory, never a byte of content, and knows neither the cache nor the
//! disk.
//!
//! From the top: this file, `blob` and `list` have the requests as the cache knows them; `ask` takes one by the lane that
//! `lanes` chooses, when `pace` gives it its turn, by the next one or again as `retry` says, unless `breaker` or a quota
//! hold it back; `request` makes it, with a pass from `token`, through `redirect`s; `gate` decides where an account may go
//! and how far data may lead; `mirrors` stands around it all where the registry has some.

mod account;
mod ask;
mod blob;
mod breaker;
mod docker_config;
mod echo;
mod exit;
mod failure;
mod gate;
mod helper;
mod lanes;
mod list;
mod mirrors;
mod pace;
mod quota;
mod realm;
mod redirect;
mod request;
mod retry;
mod send;
#[cfg(test)]
mod tests;
mod token;
mod token_service;
mod watched;

use std::{
    borrow::Cow,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, StatusCode, Uri,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
};
use oci::{
    ACCEPT_MANIFESTS, Algorithm, Descriptor, Digest, MANIFEST_BYTES_MAX, Manifest, MediaType, Page,
    Reference, RepositoryName, Tag,
};
use tokio::time::Instant;

pub use self::mirrors::source;
use self::{
    account::{Account, NoProgram},
    exit::Exit,
    failure::{Failure, of_status},
    gate::{Home, Site},
    lanes::{Entry, Lanes},
    pace::Pace,
    request::{Ask, Reply, What},
    send::error_body,
    token::{State, Tokens, Unproved, locked},
};
use crate::{
    clock::Clock,
    config,
    egress::{Bandwidth, TlsError, WayOut, collect},
    metrics::Metrics,
    source::{
        Answer, BlobStream, LaneReport, Purpose, Resolved, Source, SourceError, SourceErrorKind, TagPage,
        Thrift, Told,
    },
};

/// Within what time every request answers or fails. Clients give up after 30 s (containerd's ResponseHeaderTimeout).
pub const ANSWER_MAX: Duration = Duration::from_secs(20);
const DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// One registry.
pub struct Upstream {
    registry: Arc<str>,
    /// Where it is, without a slash at the end.
    url: String,
    prefix: Option<RepositoryName>,
    pace: Pace,
    home: Arc<Home>,
    /// The names of the accounts, in the order of the holders of `lanes`.
    accounts: Vec<Arc<str>>,
    /// One for each holder.
    tokens: Vec<Arc<Tokens>>,
    exits: Vec<Arc<Exit>>,
    lanes: Mutex<Lanes>,
    metrics: Arc<Metrics>,
    clock: Clock,
    answer_timeout: Duration,
    stall_timeout: Duration,
    streams_max: usize,
    /// What content keeps to, besides what its way out does.
    bandwidth: Option<Arc<Bandwidth>>,
}

/// What cannot be used of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// The registry's URL.
    #[error("upstream.url: {0:?} is not an http(s) URL without a user")]
    Url(String),
    /// A token service's host or URL.
    #[error("upstream.realms: {0:?} is neither a host nor an http(s) URL without a user")]
    Realm(String),
    /// A file for TLS.
    #[error("upstream.{0}")]
    Tls(#[from] TlsError),
    /// A program that gives the account.
    #[error(
        "upstream.{key}: found {program:?}, expected the path of a program, or the name of one in PATH, with or without \
         docker-credential- before it"
    )]
    CredentialHelper {
        /// The key that names it.
        key: String,
        /// What it names.
        program: String,
    },
}

impl Upstream {
    /// Returns the registry that the options describe, reached by `ways`, of which there is at least one. Its content keeps
    /// to `bandwidth`, besides what its ways keep to. Sends nothing.
    pub fn new(
        options: &config::Upstream,
        ways: Vec<WayOut>,
        bandwidth: Option<Arc<Bandwidth>>,
        metrics: Arc<Metrics>,
        clock: Clock,
    ) -> Result<Arc<Self>, OptionsError> {
        let registry: Arc<str> = options.registry.as_str().into();
        let url = options.url.trim_end_matches('/').to_owned();
        let site = url.parse::<Uri>().ok().filter(|url| url.query().is_none()).and_then(|url| Site::of(&url));
        let site = site.ok_or_else(|| OptionsError::Url(options.url.clone()))?;
        let realms = options.known_realms().iter().copied().chain(options.realms.iter().map(String::as_str));
        let home = Arc::new(Home::new(site, realms).map_err(OptionsError::Realm)?);
        let accounts = Account::all_of(options, &clock)
            .map_err(|NoProgram { key, program }| OptionsError::CredentialHelper { key, program })?;
        let entries = entries(&accounts, options);
        // Whoever has configured no more than an account goes by it alone, as ever.
        let is_more = ways.len() > 1 || !options.accounts.is_empty();
        let names: Vec<Arc<str>> = ways.iter().map(|way| Arc::clone(&way.name)).collect();
        let with_anonymous = accounts.is_empty() || (options.anonymous && is_more);
        let unproved = if is_more { Unproved::LeftOut } else { Unproved::AsNobody };
        let tokens = |account| {
            Arc::new(Tokens {
                registry: Arc::clone(&registry),
                home: Arc::clone(&home),
                account,
                unproved,
                metrics: Arc::clone(&metrics),
                clock: clock.clone(),
                answer_timeout: options.answer_timeout,
                state: State::default(),
            })
        };
        let nobody = with_anonymous.then_some(None);
        let upstream = Self {
            url,
            prefix: options.repository_prefix.clone(),
            pace: Pace::new(options.pace, clock.clone()),
            accounts: entries.iter().map(|entry| Arc::clone(&entry.name)).collect(),
            tokens: accounts.into_iter().map(Some).chain(nobody).map(tokens).collect(),
            exits: ways.iter().map(|way| Exit::new(way, &clock)).collect(),
            lanes: Mutex::new(Lanes::new(entries, with_anonymous, &names, options.quota_reserve)),
            registry: Arc::clone(&registry),
            home: Arc::clone(&home),
            metrics: Arc::clone(&metrics),
            clock: clock.clone(),
            answer_timeout: options.answer_timeout,
            stall_timeout: options.stall_timeout,
            streams_max: options.streams_max,
            bandwidth,
        };
        Ok(Arc::new(upstream))
    }

    /// Returns the repository as the registry names it.
    fn placed<'a>(&self, repository: &'a RepositoryName) -> Result<Cow<'a, RepositoryName>, SourceError> {
        let Some(prefix) = &self.prefix else { return Ok(Cow::Borrowed(repository)) };
        let placed = repository.joined(prefix.as_str()).map(Cow::Owned);
        placed.map_err(|_| {
            let message = format!("{repository} has no room for {prefix} before it, so it cannot be there");
            SourceError::new(Arc::clone(&self.registry), SourceErrorKind::NotFound, message)
        })
    }

    /// Asks for what a tag or digest names by HEAD, and by GET where HEAD will not tell.
    async fn look_up(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Told<Resolved>, SourceError> {
        let deadline = Instant::now() + ANSWER_MAX;
        let ask = manifest_ask(What::ManifestHead, repository, reference);
        match self.ask(&ask, deadline).await {
            Ok(reply) if reply.response.status() == StatusCode::OK => {
                if let Some(descriptor) = described(reply.response.headers(), reference) {
                    return Ok(Told { content: Resolved::Descriptor(descriptor), lane: reply.lane });
                }
            }
            Ok(reply) => {
                let error = self.error_of(&ask, reply, deadline).await;
                if error.kind != SourceErrorKind::Unsupported {
                    return Err(error);
                }
            }
            // Registries have refused HEADs while GETs went on (Docker Hub, 2024-09-27).
            Err(error) if error.kind == SourceErrorKind::Unauthorized => {}
            Err(error) => return Err(error),
        }
        let fetched = self.fetch_manifest(repository, reference, Purpose::Missing, deadline).await?;
        Ok(fetched.map(Resolved::Manifest))
    }

    async fn fetch_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        purpose: Purpose,
        deadline: Instant,
    ) -> Result<Told<Manifest>, SourceError> {
        let ask = manifest_ask(What::ManifestGet(purpose), repository, reference);
        let Told { content: (headers, bytes), lane } =
            self.read(&ask, MANIFEST_BYTES_MAX as usize, deadline).await?;
        let bad = |why: String| self.bad_answer(&ask, &why);
        let expected = match (reference, headers.get(DOCKER_CONTENT_DIGEST)) {
            (Reference::Digest(digest), _) => Some(*digest),
            (Reference::Tag(_), None) => None,
            (Reference::Tag(_), Some(header)) => {
                let digest = header.to_str().ok().and_then(|text| text.parse().ok());
                Some(digest.ok_or_else(|| bad("names as its digest what is none".to_owned()))?)
            }
        };
        let algorithm = expected.as_ref().map_or(Algorithm::Sha256, Digest::algorithm);
        let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let manifest = Manifest::from_answer(content_type, bytes, algorithm);
        let manifest = manifest.map_err(|error| bad(format!("is no manifest: {error}")))?;
        match expected.filter(|expected| *expected != manifest.descriptor.digest) {
            Some(expected) => {
                self.metrics.upstream_verification_failures.inc();
                let error = bad(format!("hashes to {}, not to {expected}", manifest.descriptor.digest));
                Err(SourceError { kind: SourceErrorKind::WrongContent, ..error })
            }
            None => Ok(Told { content: manifest, lane }),
        }
    }

    /// Asks for something that is sent with a 200 and fits into memory.
    async fn read(
        &self,
        ask: &Ask<'_>,
        bytes_max: usize,
        deadline: Instant,
    ) -> Result<Told<(HeaderMap, Bytes)>, SourceError> {
        let reply = self.ask(ask, deadline).await?;
        if reply.response.status() != StatusCode::OK {
            return Err(self.error_of(ask, reply, deadline).await);
        }
        let (head, body) = reply.response.into_parts();
        match collect(body, bytes_max, deadline).await {
            Ok(bytes) => Ok(Told { content: (head.headers, bytes), lane: reply.lane }),
            Err(error) => Err(Failure::of_way(&self.registry, error).error),
        }
    }

    async fn error_of(&self, ask: &Ask<'_>, reply: Reply, deadline: Instant) -> SourceError {
        let status = reply.response.status();
        let body = error_body(reply.response, deadline).await;
        of_status(&self.registry, &ask.name(), status, &body)
    }

    fn bad_answer(&self, ask: &Ask<'_>, why: &str) -> SourceError {
        let message = format!("the answer to {} {why}", ask.name());
        SourceError::new(Arc::clone(&self.registry), SourceErrorKind::BadAnswer, message)
    }
}

impl Source for Upstream {
    fn registry(&self) -> &str {
        &self.registry
    }

    fn streams_max(&self) -> usize {
        self.streams_max
    }

    fn lanes(&self) -> Vec<LaneReport> {
        self.publish(None)
    }

    fn thrift(&self, repository: &RepositoryName) -> Thrift {
        let placed = self.placed(repository);
        placed.map_or(Thrift::Plenty, |placed| locked(&self.lanes).thrift(&placed, self.clock.now()))
    }

    fn resolve<'a>(&'a self, repository: &'a RepositoryName, tag: &'a Tag) -> Answer<'a, Told<Resolved>> {
        Box::pin(async move {
            self.look_up(self.placed(repository)?.as_ref(), &Reference::Tag(tag.clone())).await
        })
    }

    fn manifest<'a>(
        &'a self,
        repository: &'a RepositoryName,
        reference: &'a Reference,
        purpose: Purpose,
    ) -> Answer<'a, Told<Manifest>> {
        Box::pin(async move {
            let (placed, deadline) = (self.placed(repository)?, Instant::now() + ANSWER_MAX);
            self.fetch_manifest(placed.as_ref(), reference, purpose, deadline).await
        })
    }

    fn has_manifest<'a>(
        &'a self,
        repository: &'a RepositoryName,
        digest: &'a Digest,
    ) -> Answer<'a, Told<Descriptor>> {
        Box::pin(async move {
            let found = self.look_up(self.placed(repository)?.as_ref(), &Reference::Digest(*digest)).await?;
            Ok(found.map(|found| match found {
                Resolved::Descriptor(descriptor) => descriptor,
                Resolved::Manifest(manifest) => manifest.descriptor,
            }))
        })
    }

    fn blob_size<'a>(
        &'a self,
        repository: &'a RepositoryName,
        digest: &'a Digest,
    ) -> Answer<'a, Told<Option<u64>>> {
        Box::pin(async move { self.measure_blob(self.placed(repository)?.as_ref(), digest).await })
    }

    fn blob<'a>(
        &'a self,
        repository: &'a RepositoryName,
        digest: &'a Digest,
        start: u64,
        end: Option<u64>,
    ) -> Answer<'a, BlobStream> {
        Box::pin(async move {
            let deadline = Instant::now() + ANSWER_MAX;
            self.open_blob(self.placed(repository)?.as_ref(), digest, start, end, deadline).await
        })
    }

    fn tags<'a>(&'a self, repository: &'a RepositoryName, page: &'a Page) -> Answer<'a, TagPage> {
        Box::pin(async move { self.list_tags(self.placed(repository)?.as_ref(), page).await })
    }

    fn referrers<'a>(&'a self, repository: &'a RepositoryName, digest: &'a Digest) -> Answer<'a, Bytes> {
        Box::pin(async move { self.list_referrers(self.placed(repository)?.as_ref(), digest).await })
    }
}

/// Returns what the lanes need to know of the accounts. Their repositories are named as clients name them, and requests as
/// the registry does.
fn entries(accounts: &[Account], options: &config::Upstream) -> Vec<Entry> {
    let placed = |name: &RepositoryName| match &options.repository_prefix {
        // What has no room for the prefix is never asked for.
        Some(prefix) => name.joined(prefix.as_str()).ok(),
        None => Some(name.clone()),
    };
    let entry = |account: &Account| Entry {
        name: Arc::clone(&account.name),
        repositories: account.repositories.iter().filter_map(placed).collect(),
    };
    accounts.iter().map(entry).collect()
}

fn manifest_ask<'a>(what: What, repository: &'a RepositoryName, reference: &Reference) -> Ask<'a> {
    Ask { what, repository, path: format!("manifests/{reference}"), accept: ACCEPT_MANIFESTS, range: None }
}

/// Returns what the answer to a HEAD describes, if it says enough, and what was asked for.
fn described(headers: &HeaderMap, reference: &Reference) -> Option<Descriptor> {
    let said = headers.get(DOCKER_CONTENT_DIGEST).and_then(|value| value.to_str().ok()?.parse().ok());
    let digest: Digest = match reference {
        Reference::Tag(_) => said?,
        Reference::Digest(asked) => said.is_none_or(|said| said == *asked).then_some(*asked)?,
    };
    let media_type: MediaType = headers.get(CONTENT_TYPE)?.to_str().ok()?.parse().ok()?;
    if media_type.is_vague() {
        return None;
    }
    Some(Descriptor { media_type, digest, size: number(headers, CONTENT_LENGTH)? })
}

fn number(headers: &HeaderMap, name: HeaderName) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}
