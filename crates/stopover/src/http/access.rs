//! What is said of a request when it is over: its line in the log, and its counts.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use http::{HeaderValue, Method, Request, StatusCode, Uri, Version, header};
use oci::{Digest, Reference, RepositoryName};

use super::connection::{Client, Shared};
use crate::{
    cache::{Outcome, Served},
    log::{AccessLine, AccessLog, Requested},
    metrics::{ContentType, Metrics, RequestLabels},
    source::LaneName,
};

/// Where lines and counts go.
pub(super) struct Accounts {
    pub(super) log: AccessLog,
    pub(super) metrics: Arc<Metrics>,
}

/// A request as sent.
struct Head {
    uri: Uri,
    version: Version,
    referer: Option<HeaderValue>,
}

impl Head {
    fn as_requested(&self) -> Requested<'_> {
        let version = match self.version {
            Version::HTTP_2 => "HTTP/2.0",
            Version::HTTP_10 => "HTTP/1.0",
            _ => "HTTP/1.1",
        };
        let referer = self.referer.as_ref().map(HeaderValue::as_bytes);
        Requested { path: self.uri.path(), version, referer }
    }
}

/// A request's line, filled in as it is answered and written when it is dropped.
pub(super) struct Line {
    accounts: Arc<Accounts>,
    begun: Instant,
    client: Client,
    method: Method,
    pub(super) request_id: u64,
    user_agent: Option<HeaderValue>,
    /// The user whose password was right, where not everybody may pull.
    pub(super) user: Option<Arc<str>>,
    /// The path, where it could not be parsed.
    pub(super) path: Option<String>,
    pub(super) endpoint: &'static str,
    pub(super) repository: Option<RepositoryName>,
    pub(super) reference: Option<Reference>,
    pub(super) digest: Option<Digest>,
    pub(super) registry: Option<Arc<str>>,
    outcome: Option<Outcome>,
    /// The lane that the registry answered by.
    lane: Option<LaneName>,
    pub(super) status: StatusCode,
    pub(super) error: Option<String>,
    /// The request as sent, where somebody wants to read that.
    head: Option<Head>,
    sent_bytes: u64,
    /// Whether all of the body was handed over; if not, the client left and may have got less.
    whole: bool,
    /// The connection, where it has this request alone, and what had been written to it before the body.
    connection: Option<(Arc<Shared>, u64)>,
}

impl Line {
    pub(super) fn begin(accounts: &Arc<Accounts>, client: Client, method: Method, request_id: u64) -> Self {
        Self {
            accounts: Arc::clone(accounts),
            begun: Instant::now(),
            client,
            method,
            request_id,
            user_agent: None,
            user: None,
            path: None,
            endpoint: "other",
            repository: None,
            reference: None,
            digest: None,
            registry: None,
            outcome: None,
            lane: None,
            status: StatusCode::OK,
            error: None,
            head: None,
            sent_bytes: 0,
            whole: true,
            connection: None,
        }
    }

    /// Notes what the request says of itself.
    pub(super) fn asked<B>(&mut self, request: &Request<B>) {
        self.user_agent = request.headers().get(header::USER_AGENT).cloned();
        if self.accounts.log.is_combined() {
            let referer = request.headers().get(header::REFERER).cloned();
            self.head = Some(Head { uri: request.uri().clone(), version: request.version(), referer });
        }
    }

    /// Notes how the cache answered.
    pub(super) fn served<T>(&mut self, served: &Served<T>) {
        self.outcome = Some(served.outcome);
        self.lane.clone_from(&served.lane);
    }

    /// Counts bytes of the body, and notes whether they are the last.
    pub(super) fn sent(&mut self, bytes: u64, last: bool) {
        self.sent_bytes += bytes;
        self.whole = last;
    }

    /// Notes the connection that the answer goes out on, if no other does at the same time.
    pub(super) fn goes_out_on(&mut self, connection: &Arc<Shared>) {
        self.connection = Some((Arc::clone(connection), connection.written.load(Ordering::Relaxed)));
    }

    /// What is handed over is counted ahead of what is sent; where the client left in between, what was written tells.
    fn settle_sent_bytes(&mut self) {
        if let Some((connection, before)) = &self.connection
            && !self.whole
        {
            let written = connection.written.load(Ordering::Relaxed).saturating_sub(*before);
            self.sent_bytes = self.sent_bytes.min(written);
        }
    }

    /// Notes that the body was cut.
    pub(super) fn cut(&mut self, why: &str) {
        self.error = Some(format!("cut: {why}"));
    }

    fn count(&self, seconds: f64) {
        let result = match self.outcome {
            _ if self.error.is_some() => "error",
            Some(outcome) => outcome.as_str(),
            None => "none",
        };
        let method = match self.method {
            Method::GET => "get",
            Method::HEAD => "head",
            _ => "other",
        };
        let labels = RequestLabels { endpoint: self.endpoint, result, code: self.status.as_u16(), method };
        self.accounts.metrics.request(&labels, seconds);
        let content = match self.endpoint {
            "manifest" => ContentType::Manifest,
            "blob" => ContentType::Blob,
            _ => return,
        };
        if let Some(outcome) = self.outcome {
            self.accounts.metrics.served(content, outcome.from_cache(), self.sent_bytes);
        }
    }

    fn log(&self, duration: Duration) {
        let reference = self.reference.as_ref().map(Reference::to_string);
        let digest = self.digest.map(|digest| digest.to_string());
        let request_id = self.outcome.is_none().then(|| request_id_text(self.request_id));
        let asked = self.outcome.is_none_or(|outcome| outcome != Outcome::Hit);
        self.accounts.log.write(&AccessLine {
            method: self.method.as_str(),
            path: self.path.as_deref(),
            repository: self.repository.as_ref().map(RepositoryName::as_str),
            reference: reference.as_deref(),
            digest: digest.as_deref(),
            status: self.status.as_u16(),
            bytes: self.sent_bytes,
            outcome: self.outcome.map(Outcome::as_str),
            upstream: self.registry.as_deref().filter(|_| asked),
            lane: self.lane.as_deref().filter(|_| asked),
            error: self.error.as_deref(),
            duration,
            client: self.client.address,
            listener: self.client.listener,
            user: self.user.as_deref(),
            user_agent: self.user_agent.as_ref().map(HeaderValue::as_bytes),
            request_id: request_id.as_deref(),
            requested: self.head.as_ref().map(Head::as_requested),
        });
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let duration = self.begun.elapsed();
        self.settle_sent_bytes();
        self.count(duration.as_secs_f64());
        if self.accounts.log.is_on() {
            self.log(duration);
        }
    }
}

/// Returns a request's name as clients and lines have it.
pub(super) fn request_id_text(id: u64) -> String {
    format!("{id:016x}")
}
