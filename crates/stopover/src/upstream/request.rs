//! One request to a registry, with everything that belongs to it: a pass, redirects, another try.
//!
//! Requests are made from nothing, so that nothing of a client's can be in them. A pass goes to the registry's own
//! site only; it is dropped for good at the first redirect to another scheme, host or port.

use std::{borrow::Cow, time::Duration};

use http::{HeaderValue, Method, Response, StatusCode, Uri, header::LOCATION};
use hyper::body::Incoming;
use oci::{Endpoint, RepositoryName, Target};
use tokio::time::{Instant, sleep};

use super::{
    Upstream,
    account::Proof,
    failure::{Failure, of_status},
    gate::{self, Site},
    pace::NoTurn,
    quota::{Cost, is_for_abuse},
    realm::{challenge_of, pull_scope},
    redirect::{self, HOPS_MAX, is_redirect},
    retry,
    send::{asked_wait, error_body, is_failure, is_plain, spend},
    token::locked,
};
use crate::{
    egress::came_from_inside,
    source::{SourceError, SourceErrorKind},
};

/// How often a request is tried again.
const RETRIES_MAX: u32 = 2;
/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    ManifestHead,
    ManifestGet,
    BlobHead,
    BlobGet,
    Tags,
    Referrers,
}

impl What {
    /// Returns the word for metrics.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::ManifestHead => "manifest_head",
            Self::ManifestGet => "manifest_get",
            Self::BlobHead => "blob_head",
            Self::BlobGet => "blob_get",
            Self::Tags => "tags",
            Self::Referrers => "referrers",
        }
    }

    pub(super) fn method(self) -> Method {
        match self {
            Self::ManifestHead | Self::BlobHead => Method::HEAD,
            Self::ManifestGet | Self::BlobGet | Self::Tags | Self::Referrers => Method::GET,
        }
    }

    fn cost(self) -> Cost {
        match self {
            Self::ManifestGet => Cost::Counted,
            Self::ManifestHead => Cost::Free,
            Self::BlobHead | Self::BlobGet | Self::Tags | Self::Referrers => Cost::Other,
        }
    }
}

/// A request to make.
pub(super) struct Ask<'a> {
    pub(super) what: What,
    pub(super) repository: &'a RepositoryName,
    /// The path below the repository's name, with its query, such as `manifests/3.20`.
    pub(super) path: String,
    pub(super) accept: &'static str,
    pub(super) range: Option<HeaderValue>,
}

impl Ask<'_> {
    /// Returns the request for people. The path is made of checked parts; a query is left out.
    pub(super) fn name(&self) -> String {
        let path = self.path.split('?').next().unwrap_or_default();
        format!("{} {path} of {}", self.what.method(), self.repository)
    }
}

/// An answer: to be looked at further, or of a status that is no failure of the way.
pub(super) struct Reply {
    pub(super) response: Response<Incoming>,
    /// Whether it is storage's: the registry redirected to it, maybe on its own site.
    pub(super) redirected: bool,
    /// Whether it came from another site than the registry's.
    elsewhere: bool,
}

/// A response of the registry itself, and what was sent for it.
struct Sent {
    response: Response<Incoming>,
    uri: Uri,
    pass: Option<HeaderValue>,
}

impl Upstream {
    /// Asks, and asks again where that may help.
    pub(super) async fn ask(&self, ask: &Ask<'_>, deadline: Instant) -> Result<Reply, SourceError> {
        let mut retries = 0;
        loop {
            self.refuse_if_closed(ask)?;
            let turn = self.pace.turn(ask.what.cost(), deadline).await;
            let turn = turn.map_err(|no_turn| self.without_turn(ask, no_turn))?;
            self.admit(ask)?;
            let failure = match self.attempt(ask, deadline).await {
                Ok(reply) => return Ok(reply),
                Err(failure) => failure,
            };
            drop(turn);
            retries += 1;
            let asked = failure.error.retry_after;
            let left = deadline.saturating_duration_since(Instant::now());
            let wait = retry::wait_before(retries, asked, left, retry::chance())
                .filter(|_| failure.may_pass && retries <= RETRIES_MAX && !self.fuse.is_open());
            let Some(wait) = wait else {
                if failure.is_illness {
                    self.fuse.failed();
                }
                return Err(failure.error);
            };
            tracing::debug!(error = %failure.error, wait_ms = wait.as_millis(), "asking the registry again");
            sleep(wait).await;
        }
    }

    /// Refuses where the registry has said that it will not answer.
    fn admit(&self, ask: &Ask<'_>) -> Result<(), SourceError> {
        let admitted = locked(&self.gates).admit(ask.what.cost(), self.clock.now());
        admitted.map_err(|wait| self.waits(ask, "since the registry said 429", wait))
    }

    /// The same before the request waits for its turn, and where the registry does not answer at all, without taking
    /// it for the one that finds out.
    fn refuse_if_closed(&self, ask: &Ask<'_>) -> Result<(), SourceError> {
        if let Some(wait) = self.fuse.closed() {
            return Err(self.does_not_answer(ask, wait).error);
        }
        let closed = locked(&self.gates).closed(ask.what.cost(), self.clock.now());
        closed.map_or(Ok(()), |wait| Err(self.waits(ask, "since the registry said 429", wait)))
    }

    fn waits(&self, ask: &Ask<'_>, why: &str, wait: Duration) -> SourceError {
        let message = format!("{} waits, {why}", ask.name());
        let failure = Failure::lasting(&self.registry, SourceErrorKind::TooManyRequests, message);
        failure.after(Some(wait)).error
    }

    fn without_turn(&self, ask: &Ask<'_>, no_turn: NoTurn) -> SourceError {
        match no_turn {
            NoTurn::TooMany(wait) => {
                let why = "since the registry is not asked more than `requests_per_second` and `pulls_per_second` say";
                self.waits(ask, why, wait)
            }
            NoTurn::Late => {
                let message =
                    format!("{} got no turn in time: `requests_max` others wait before it", ask.name());
                Failure::lasting(&self.registry, SourceErrorKind::Timeout, message).error
            }
        }
    }

    async fn attempt(&self, ask: &Ask<'_>, deadline: Instant) -> Result<Reply, Failure> {
        let mut may_ask_afresh = ask.what.method() == Method::GET;
        loop {
            let sent = self.admitted(ask, deadline).await?;
            let reply = self.follow(ask, sent, deadline).await?;
            let is_refused =
                matches!(reply.response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
            if reply.redirected && is_refused && may_ask_afresh {
                // A signed URL that has run out, or was signed wrong: the registry signs another.
                may_ask_afresh = false;
                spend(reply.response, deadline).await;
                continue;
            }
            return self.judge(ask, reply, deadline).await;
        }
    }

    /// Gets past the registry's 401s: with the pass it will want, without any to hear its challenge, with the answer
    /// to that, and no further.
    ///
    /// A 401 to a pass is not believed to tell the way: nvcr.io's then names another realm, which refuses everybody
    /// (nvidia-container-toolkit#1945).
    async fn admitted(&self, ask: &Ask<'_>, deadline: Instant) -> Result<Sent, Failure> {
        let uri = self.uri_of(ask)?;
        let mut pass = self.tokens.ready(ask.repository, deadline).await?;
        let mut answered = false;
        loop {
            let response = self.send_home(ask, &uri, pass.as_ref(), deadline).await?;
            if response.status() != StatusCode::UNAUTHORIZED {
                let pass = pass.map(|pass| pass.header);
                return Ok(Sent { response, uri, pass });
            }
            let used = pass.take();
            if let Some(used) = used.as_ref().filter(|used| used.is_token() && !answered) {
                self.tokens.forget(used);
                spend(response, deadline).await;
                continue;
            }
            if let Some(account) = used.as_ref().filter(|used| !used.is_token() && !answered)
                && self.tokens.account_refused(&Proof::Basic(account.header.clone()))
            {
                spend(response, deadline).await;
                answered = true;
                pass = self.tokens.ready(ask.repository, deadline).await?;
                continue;
            }
            let from_inside = came_from_inside(&response);
            let challenge = challenge_of(response.headers());
            let Some(challenge) = challenge.filter(|_| used.is_none() && !answered) else {
                return Err(self.refusal(ask, response, deadline).await);
            };
            spend(response, deadline).await;
            answered = true;
            pass = Some(self.tokens.answer(challenge, ask.repository, from_inside, deadline).await?);
        }
    }

    async fn refusal(&self, ask: &Ask<'_>, response: Response<Incoming>, deadline: Instant) -> Failure {
        let status = response.status();
        let body = error_body(response, deadline).await;
        Failure::said(of_status(&self.registry, &ask.name(), status, &body))
    }

    /// Follows redirects, by hand.
    async fn follow(&self, ask: &Ask<'_>, sent: Sent, deadline: Instant) -> Result<Reply, Failure> {
        let from_inside = came_from_inside(&sent.response);
        let Sent { mut response, mut uri, mut pass } = sent;
        let mut elsewhere = false;
        let mut hops = 0;
        while is_redirect(response.status()) {
            let refuse = |kind, why: Cow<'_, str>| {
                Failure::lasting(&self.registry, kind, format!("the answer to {} {why}", ask.name()))
            };
            hops += 1;
            if hops > HOPS_MAX {
                let why = format!("redirects more than {HOPS_MAX} times");
                return Err(refuse(SourceErrorKind::BadAnswer, why.into()));
            }
            let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            let next = redirect::target(&uri, location);
            let next = next.map_err(|error| refuse(SourceErrorKind::BadAnswer, error.to_string().into()))?;
            let is_list = matches!(ask.what, What::Tags | What::Referrers);
            let next = redirect::with_query(next, uri.query().filter(|_| is_list));
            spend(response, deadline).await;

            let site = Site::of(&next);
            if site != Site::of(&uri) {
                pass = None;
            }
            elsewhere |= site.as_ref() != Some(&self.home.site);
            let too_far = || refuse(SourceErrorKind::Refused, "redirects to where data may not lead".into());
            let reach = gate::reach(&self.home, &next, from_inside).ok_or_else(too_far)?;
            let way = |error| Failure::of_storage(&self.registry, error);
            response = self.send(ask, &next, pass.as_ref(), reach, deadline).await.map_err(way)?;

            let is_challenge = elsewhere && pass.is_none() && response.status() == StatusCode::UNAUTHORIZED;
            if is_challenge && let Some(challenge) = challenge_of(response.headers()) {
                let scope = scope_at(&next, ask.repository);
                // The token may be an old one that the place does not know any more: then a new one is tried.
                for _ in 0..2 {
                    let (challenge, scope) = (challenge.clone(), scope.clone());
                    let answer = self.tokens.answer_as_anybody(challenge, scope, from_inside, deadline);
                    let Some(answer) = answer.await? else { break };
                    response =
                        self.send(ask, &next, Some(&answer.header), reach, deadline).await.map_err(way)?;
                    if response.status() != StatusCode::UNAUTHORIZED {
                        pass = Some(answer.header);
                        break;
                    }
                    self.tokens.forget(&answer);
                }
            }
            uri = next;
        }
        Ok(Reply { response, redirected: hops > 0, elsewhere })
    }

    /// Tells answers that fail the request from those that the caller has to look at.
    async fn judge(&self, ask: &Ask<'_>, reply: Reply, deadline: Instant) -> Result<Reply, Failure> {
        let status = reply.response.status();
        if status == StatusCode::TOO_MANY_REQUESTS {
            return Err(self.too_many(ask, reply, deadline).await);
        }
        if is_failure(status) {
            let is_illness = !reply.elsewhere;
            let asked = asked_wait(reply.response.status(), reply.response.headers());
            let failure = self.refusal(ask, reply.response, deadline).await;
            return Err(Failure { may_pass: true, is_illness, ..failure }.after(asked));
        }
        if status.is_success() || status == StatusCode::NOT_FOUND {
            locked(&self.gates).succeeded(ask.what.cost());
        }
        if !is_plain(reply.response.headers()) {
            let message = format!("the answer to {} is encoded, although none was asked to be", ask.name());
            return Err(Failure::lasting(&self.registry, SourceErrorKind::BadAnswer, message));
        }
        Ok(reply)
    }

    /// Notes a 429, which is never asked again: other requests are held back as well.
    async fn too_many(&self, ask: &Ask<'_>, reply: Reply, deadline: Instant) -> Failure {
        let asked = asked_wait(reply.response.status(), reply.response.headers());
        let body = error_body(reply.response, deadline).await;
        let error = of_status(&self.registry, &ask.name(), StatusCode::TOO_MANY_REQUESTS, &body);
        let failure = Failure::said(error);
        if reply.elsewhere {
            return failure.after(asked);
        }
        // An answer to HEAD has no body that could tell the two kinds apart.
        let for_abuse = ask.what.method() != Method::HEAD && is_for_abuse(&body);
        let wait = locked(&self.gates).refused(ask.what.cost(), for_abuse, self.clock.now(), asked);
        tracing::warn!(error = %failure.error, for_abuse, wait_s = wait.as_secs(), "the registry wants fewer requests");
        failure.after(Some(wait))
    }

    fn uri_of(&self, ask: &Ask<'_>) -> Result<Uri, Failure> {
        let text = format!("{}/v2/{}/{}", self.url, ask.repository, ask.path);
        text.parse().map_err(|_| {
            let message = format!("{} makes no URL", ask.name());
            Failure::lasting(&self.registry, SourceErrorKind::BadAnswer, message)
        })
    }
}

/// Returns the scope to ask for at a place that the registry redirected to: the repository may have another name there.
fn scope_at(url: &Uri, repository: &RepositoryName) -> String {
    let there = Target::parse("GET", url.path(), None).map(|target| target.endpoint);
    match there {
        Ok(
            Endpoint::Manifest { name, .. }
            | Endpoint::Blob { name, .. }
            | Endpoint::Tags { name, .. }
            | Endpoint::Referrers { name, .. },
        ) => pull_scope(&name),
        _ => pull_scope(repository),
    }
}
