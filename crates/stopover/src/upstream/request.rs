//! One request to a registry, with everything that belongs to it: a pass, redirects, another try.
//!
//! Requests are made from nothing, so that nothing of a client's can be in them. A pass goes to the registry's own
//! site only; it is dropped for good at the first redirect to another scheme, host or port.

use std::borrow::Cow;

use http::{HeaderValue, Method, Response, StatusCode, Uri, header::LOCATION};
use hyper::body::Incoming;
use oci::{Endpoint, RepositoryName, Target};
use tokio::time::Instant;

use super::{
    Upstream,
    account::Proof,
    ask::OnLane,
    failure::{Cause, Failure, of_status},
    gate::{self, Site},
    lanes::Need,
    quota::{Cost, is_for_abuse},
    realm::{challenge_of, pull_scope},
    redirect::{self, HOPS_MAX, is_redirect},
    send::{asked_wait, error_body, is_failure, is_plain, spend},
    token::locked,
};
use crate::{
    egress::{Load, came_from_inside},
    source::{LaneName, Purpose, SourceErrorKind},
};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    ManifestHead,
    ManifestGet(Purpose),
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
            Self::ManifestGet(_) => "manifest_get",
            Self::BlobHead => "blob_head",
            Self::BlobGet => "blob_get",
            Self::Tags => "tags",
            Self::Referrers => "referrers",
        }
    }

    pub(super) fn method(self) -> Method {
        match self {
            Self::ManifestHead | Self::BlobHead => Method::HEAD,
            Self::ManifestGet(_) | Self::BlobGet | Self::Tags | Self::Referrers => Method::GET,
        }
    }

    pub(super) fn cost(self) -> Cost {
        match self {
            Self::ManifestGet(_) => Cost::Counted,
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
    /// Returns what the choice of a lane depends on.
    pub(super) fn need(&self) -> Need<'_> {
        let purpose = match self.what {
            What::ManifestGet(purpose) => purpose,
            _ => Purpose::Missing,
        };
        Need { cost: self.what.cost(), repository: self.repository, purpose }
    }

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
    /// The lane that it came by, where there are several.
    pub(super) lane: Option<LaneName>,
    /// Says that it comes by its way out, until it has come.
    pub(super) load: Load,
}

/// A response of the registry itself, and what was sent for it.
struct Sent {
    response: Response<Incoming>,
    uri: Uri,
    pass: Option<HeaderValue>,
}

impl Upstream {
    pub(super) async fn attempt(
        &self,
        ask: &Ask<'_>,
        on: &OnLane<'_>,
        deadline: Instant,
    ) -> Result<Reply, Failure> {
        let mut may_ask_afresh = ask.what.method() == Method::GET;
        loop {
            let sent = self.admitted(ask, on, deadline).await?;
            let reply = self.follow(ask, on, sent, deadline).await?;
            let is_refused =
                matches!(reply.response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
            if reply.redirected && is_refused && may_ask_afresh {
                // A signed URL that has run out, or was signed wrong: the registry signs another.
                may_ask_afresh = false;
                spend(reply.response, deadline).await;
                continue;
            }
            return self.judge(ask, on, reply, deadline).await;
        }
    }

    /// Gets past the registry's 401s: with the pass it will want, without any to hear its challenge, with the answer
    /// to that, and no further.
    ///
    /// A 401 to a pass is not believed to tell the way: nvcr.io's then names another realm, which refuses everybody
    /// (nvidia-container-toolkit#1945).
    async fn admitted(&self, ask: &Ask<'_>, on: &OnLane<'_>, deadline: Instant) -> Result<Sent, Failure> {
        let uri = self.uri_of(ask)?;
        let (tokens, exit) = (on.tokens(), on.exit());
        let mut pass = tokens.ready(exit, ask.repository, deadline).await?;
        let mut answered = false;
        loop {
            let response = self.send_home(ask, on, &uri, pass.as_ref(), deadline).await?;
            if response.status() != StatusCode::UNAUTHORIZED {
                let pass = pass.map(|pass| pass.header);
                return Ok(Sent { response, uri, pass });
            }
            let used = pass.take();
            if let Some(used) = used.as_ref().filter(|used| used.is_token() && !answered) {
                tokens.forget(used);
                spend(response, deadline).await;
                continue;
            }
            let challenge = challenge_of(response.headers());
            if used.as_ref().is_some_and(|used| !used.is_token())
                && !answered
                && tokens.has_changed(challenge.as_ref())
            {
                spend(response, deadline).await;
                continue;
            }
            if let Some(account) = used.as_ref().filter(|used| !used.is_token() && !answered)
                && tokens.account_refused(&Proof::Basic(account.header.clone()))
            {
                spend(response, deadline).await;
                answered = true;
                pass = tokens.ready(exit, ask.repository, deadline).await?;
                continue;
            }
            let from_inside = came_from_inside(&response);
            let Some(challenge) = challenge.filter(|_| used.is_none() && !answered) else {
                let failure = self.refusal(ask, response, deadline).await;
                let Some(account) = used.filter(|used| !used.is_token()) else { return Err(failure) };
                // Noted as refused; another was asked for before, where there may be one.
                _ = tokens.account_refused(&Proof::Basic(account.header));
                return Err(Failure { cause: Cause::Login, ..failure });
            };
            spend(response, deadline).await;
            answered = true;
            pass = Some(tokens.answer(exit, challenge, ask.repository, from_inside, deadline).await?);
        }
    }

    async fn refusal(&self, ask: &Ask<'_>, response: Response<Incoming>, deadline: Instant) -> Failure {
        let status = response.status();
        let body = error_body(response, deadline).await;
        Failure::said(of_status(&self.registry, &ask.name(), status, &body))
    }

    /// Follows redirects, by hand.
    async fn follow(
        &self,
        ask: &Ask<'_>,
        on: &OnLane<'_>,
        sent: Sent,
        deadline: Instant,
    ) -> Result<Reply, Failure> {
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
            if !gate::may_keep(&uri, &next) {
                pass = None;
            }
            elsewhere |= site.as_ref() != Some(&self.home.site);
            let too_far = || refuse(SourceErrorKind::Refused, "redirects to where data may not lead".into());
            let reach = gate::reach(&self.home, &next, from_inside).ok_or_else(too_far)?;
            let way = |error| Failure::of_storage(&self.registry, error);
            response = self.send(ask, on, &next, pass.as_ref(), reach, deadline).await.map_err(way)?;

            let is_challenge = elsewhere && pass.is_none() && response.status() == StatusCode::UNAUTHORIZED;
            if is_challenge && let Some(challenge) = challenge_of(response.headers()) {
                let scope = scope_at(&next, ask.repository);
                // The token may be an old one that the place does not know any more: then a new one is tried.
                for _ in 0..2 {
                    let (challenge, scope) = (challenge.clone(), scope.clone());
                    let tokens = on.tokens();
                    let answer = tokens.answer_as_anybody(on.exit(), challenge, scope, from_inside, deadline);
                    let Some(answer) = answer.await? else { break };
                    response = self
                        .send(ask, on, &next, Some(&answer.header), reach, deadline)
                        .await
                        .map_err(way)?;
                    if response.status() != StatusCode::UNAUTHORIZED {
                        pass = Some(answer.header);
                        break;
                    }
                    tokens.forget(&answer);
                }
            }
            uri = next;
        }
        let load = on.exit().egress.engage();
        Ok(Reply { response, redirected: hops > 0, elsewhere, lane: on.name(), load })
    }

    /// Tells answers that fail the request from those that the caller has to look at.
    async fn judge(
        &self,
        ask: &Ask<'_>,
        on: &OnLane<'_>,
        reply: Reply,
        deadline: Instant,
    ) -> Result<Reply, Failure> {
        let status = reply.response.status();
        if status == StatusCode::TOO_MANY_REQUESTS {
            return Err(self.too_many(ask, on, reply, deadline).await);
        }
        if is_failure(status) {
            let is_illness = !reply.elsewhere;
            let asked = asked_wait(reply.response.status(), reply.response.headers());
            let failure = self.refusal(ask, reply.response, deadline).await;
            return Err(Failure { may_pass: true, is_illness, ..failure }.after(asked));
        }
        if status.is_success() || status == StatusCode::NOT_FOUND {
            let found = status.is_success();
            locked(&self.lanes).answered(&on.choice, &ask.need(), found, self.clock.now());
        }
        if !is_plain(reply.response.headers()) {
            let message = format!("the answer to {} is encoded, although none was asked to be", ask.name());
            return Err(Failure::lasting(&self.registry, SourceErrorKind::BadAnswer, message));
        }
        Ok(reply)
    }

    /// Notes a 429, which is never asked again: other requests are held back as well.
    async fn too_many(&self, ask: &Ask<'_>, on: &OnLane<'_>, reply: Reply, deadline: Instant) -> Failure {
        let asked = asked_wait(reply.response.status(), reply.response.headers());
        let body = error_body(reply.response, deadline).await;
        let error = of_status(&self.registry, &ask.name(), StatusCode::TOO_MANY_REQUESTS, &body);
        let failure = Failure::said(error);
        if reply.elsewhere {
            return Failure { cause: Cause::Request, ..failure.after(asked) };
        }
        // An answer to HEAD has no body that could tell the two kinds apart.
        let for_abuse = ask.what.method() != Method::HEAD && is_for_abuse(&body);
        let (cost, now) = (ask.what.cost(), self.clock.now());
        let wait = locked(&self.lanes).refused(&on.choice, cost, for_abuse, asked, now);
        let lane = on.name();
        tracing::warn!(
            error = %failure.error,
            for_abuse,
            wait_s = wait.as_secs(),
            lane = lane.as_deref(),
            "the registry wants fewer requests"
        );
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
