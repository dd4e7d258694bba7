//! One exchange: a request made from nothing, and what its answer's head says.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode, Uri,
    header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, RANGE, RETRY_AFTER, USER_AGENT},
};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::time::Instant;

use super::{
    Upstream,
    ask::OnLane,
    echo::{Shown, without_echo},
    failure::{Cause, Failure},
    quota::{Cost, Quota},
    request::Ask,
    retry,
    token::{Pass, locked},
};
use crate::{
    egress::{EgressError, Reach, collect},
    source::SourceErrorKind,
};

/// What we call ourselves.
pub(super) const AGENT: &str = concat!("stopover/", env!("CARGO_PKG_VERSION"));
/// The most that is read of an answer that is not what was asked for, in bytes.
const ERROR_BYTES_MAX: usize = 64 << 10;
/// How long the rest of an answer that nobody needs may take, so that its connection can be used again.
const REST_MAX: Duration = Duration::from_millis(500);

impl Upstream {
    /// Sends one request to the registry itself, and notes how it went.
    pub(super) async fn send_home(
        &self,
        ask: &Ask<'_>,
        on: &OnLane<'_>,
        uri: &Uri,
        pass: Option<&Pass>,
        deadline: Instant,
    ) -> Result<Response<Incoming>, Failure> {
        let trial = on.exit().fuse.admit().map_err(|wait| self.does_not_answer(ask, wait))?;
        let pass = pass.map(|pass| &pass.header);
        let word = ask.what.word();
        match self.send(ask, on, uri, pass, Reach::Home, deadline).await {
            Ok(response) => {
                let is_failure = is_failure(response.status());
                if is_failure {
                    trial.undecided()
                } else {
                    trial.succeeded()
                }
                self.metrics.upstream(&self.registry, word, word_of(response.status()));
                self.note_quota(ask, on, &response);
                Ok(response)
            }
            Err(error) => {
                let failure = Failure::of_way(&self.registry, error);
                if trial.failed() {
                    tracing::warn!(error = %failure.error, "the registry does not answer; asking once a second");
                }
                self.metrics.upstream(&self.registry, word, failure.error.kind.as_str());
                Err(failure)
            }
        }
    }

    fn note_quota(&self, ask: &Ask<'_>, on: &OnLane<'_>, response: &Response<Incoming>) {
        if ask.what.cost() == Cost::Other {
            return;
        }
        let mut lanes = locked(&self.lanes);
        match Quota::of(response.headers()) {
            Some(quota) => lanes.heard(&on.choice, quota, self.clock.now()),
            None if response.status().is_success() => lanes.heard_of_no_quota(&on.choice),
            None => {}
        }
    }

    /// Says that nothing is sent before `wait` is over, since the breaker is open.
    pub(super) fn does_not_answer(&self, ask: &Ask<'_>, wait: Duration) -> Failure {
        let message = format!("{} waits, since the registry does not answer", ask.name());
        let failure =
            Failure::lasting(&self.registry, SourceErrorKind::Unavailable, message).after(Some(wait));
        Failure { cause: Cause::Way, ..failure }
    }

    pub(super) async fn send(
        &self,
        ask: &Ask<'_>,
        on: &OnLane<'_>,
        uri: &Uri,
        pass: Option<&HeaderValue>,
        reach: Reach,
        deadline: Instant,
    ) -> Result<Response<Incoming>, EgressError> {
        let mut request = Request::new(Full::<Bytes>::default());
        *request.method_mut() = ask.what.method();
        *request.uri_mut() = uri.clone();
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        headers.insert(ACCEPT, HeaderValue::from_static(ask.accept));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(range) = &ask.range {
            headers.insert(RANGE, range.clone());
        }
        if let Some(pass) = pass {
            headers.insert(AUTHORIZATION, pass.clone());
        }
        let deadline = deadline.min(Instant::now() + self.answer_timeout);
        let mut response = on.exit().egress.send(request, reach, deadline).await?;
        if let Some(pass) = pass {
            response.extensions_mut().insert(Shown(pass.clone()));
        }
        Ok(response)
    }
}

/// Returns whether a status says that the registry is not well, which may pass.
pub(super) fn is_failure(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 503 | 504)
}

/// Returns whether a body is sent as it is.
pub(super) fn is_plain(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_ENCODING).iter().all(|value| value.is_empty() || value == "identity")
}

/// Returns how long an answer asks us to wait.
pub(super) fn asked_wait(status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
    let header = headers.get(RETRY_AFTER)?.to_str().ok()?;
    let is_quota = status == StatusCode::TOO_MANY_REQUESTS;
    let longest = if is_quota { retry::RETRY_AFTER_QUOTA_MAX } else { retry::RETRY_AFTER_MAX };
    retry::retry_after(header, SystemTime::now(), longest)
}

/// Returns the word for metrics of an answer.
fn word_of(status: StatusCode) -> &'static str {
    match status.as_u16() {
        200..=399 => "ok",
        401 => SourceErrorKind::Unauthorized.as_str(),
        403 => SourceErrorKind::Denied.as_str(),
        404 => SourceErrorKind::NotFound.as_str(),
        405 => SourceErrorKind::Unsupported.as_str(),
        429 => SourceErrorKind::TooManyRequests.as_str(),
        500..=599 => SourceErrorKind::Unavailable.as_str(),
        _ => SourceErrorKind::BadAnswer.as_str(),
    }
}

/// Reads what is left of an answer, if that is little, so that its connection can be used again.
pub(super) async fn spend(response: Response<Incoming>, deadline: Instant) {
    let soon = deadline.min(Instant::now() + REST_MAX);
    _ = collect(response.into_body(), ERROR_BYTES_MAX, soon).await;
}

/// Reads the body of an answer that is not what was asked for; nothing where it repeats what it was asked with.
pub(super) async fn error_body(response: Response<Incoming>, deadline: Instant) -> Bytes {
    let (head, body) = response.into_parts();
    let body = collect(body, ERROR_BYTES_MAX, deadline).await.unwrap_or_default();
    let shown = head.extensions.get::<Shown>().and_then(|shown| shown.0.to_str().ok());
    without_echo(body, shown)
}
