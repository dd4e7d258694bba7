//! One request to a token service.

use std::time::Duration;

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Uri,
    header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, USER_AGENT},
};
use http_body_util::Full;
use tokio::time::Instant;

use super::{
    account::Proof,
    echo::without_echo,
    exit::Exit,
    failure::{Cause, Failure, of_status},
    gate::{self, Site},
    realm::{TOKEN_BYTES_MAX, Want, read_token, repository_of},
    send::{AGENT, asked_wait, is_plain},
    token::{Tokens, locked},
};
use crate::{egress::collect, source::SourceErrorKind};

/// The word of token requests in metrics.
const WORD: &str = "token";

impl Tokens {
    /// Asks the token service, once.
    pub(super) async fn ask(&self, exit: &Exit, want: &Want) -> Result<(HeaderValue, Duration), Failure> {
        let proof = self.proof_for(want).await?;
        let mut answer = self.exchange(exit, want, proof.as_ref()).await;
        let refused = |failure: &Failure| {
            matches!(failure.error.kind, SourceErrorKind::Unauthorized | SourceErrorKind::Denied)
        };
        if answer.as_ref().is_err_and(refused) && proof.is_some_and(|proof| self.account_refused(&proof)) {
            let proof = self.proof_for(want).await?;
            answer = self.exchange(exit, want, proof.as_ref()).await;
        }
        let word = answer.as_ref().map_or_else(|failure| failure.error.kind.as_str(), |_| "ok");
        self.metrics.upstream(&self.registry, WORD, word);
        answer
    }

    /// Returns what proves the account, where the request wants it and the gate lets it go there.
    async fn proof_for(&self, want: &Want) -> Result<Option<Proof>, Failure> {
        let may_go = |url: Option<Uri>| url.is_some_and(|url| gate::may_send(&self.home, &url));
        if !want.with_account || !may_go(want.url()) || !may_go(want.form_url()) {
            return Ok(None);
        }
        self.proof(repository_of(&want.scope).as_ref()).await
    }

    async fn exchange(
        &self,
        exit: &Exit,
        want: &Want,
        proof: Option<&Proof>,
    ) -> Result<(HeaderValue, Duration), Failure> {
        let no_url = || self.lasting(SourceErrorKind::BadAnswer, "the URL of the token service is none");
        let request = request(want, proof).ok_or_else(no_url)?;
        let what = format!("the request for a token at {}", Site::of(request.uri()).ok_or_else(no_url)?);
        let held = |kind, wait| {
            let failure = self.lasting(kind, format!("{what} waits, since the last failed"));
            Failure { cause: Cause::Way, ..failure.after(Some(wait)) }
        };
        let admitted = locked(&exit.token_throttle).admit(self.clock.now());
        admitted.map_err(|wait| held(SourceErrorKind::TooManyRequests, wait))?;
        let trial = exit.token_fuse.admit().map_err(|wait| held(SourceErrorKind::Unavailable, wait))?;

        let deadline = Instant::now() + self.answer_timeout;
        let response = match exit.egress.send(request, want.reach, deadline).await {
            Ok(response) => response,
            Err(error) => {
                trial.failed();
                return Err(Failure::of_way(&self.registry, error));
            }
        };
        if response.status().is_server_error() {
            _ = trial.failed()
        } else {
            trial.succeeded()
        }
        let (head, body) = response.into_parts();
        let body = collect(body, TOKEN_BYTES_MAX, deadline).await;
        let body = body.map_err(|error| Failure::of_way(&self.registry, error))?;
        if head.status.as_u16() == 200 {
            locked(&exit.token_throttle).succeeded();
            let token = is_plain(&head.headers).then(|| read_token(&body)).flatten();
            let none =
                || self.lasting(SourceErrorKind::BadAnswer, format!("the answer to {what} holds no token"));
            return token.ok_or_else(none);
        }
        let asked = asked_wait(head.status, &head.headers);
        let shown = match proof {
            Some(Proof::Basic(header)) => header.to_str().ok(),
            Some(Proof::IdentityToken(token)) => Some(token.expose()),
            None => None,
        };
        let body = without_echo(body, shown);
        let error = of_status(&self.registry, &what, head.status, &body);
        Err(match error.kind {
            SourceErrorKind::TooManyRequests => {
                let wait = locked(&exit.token_throttle).refused(self.clock.now(), asked);
                Failure { cause: Cause::Way, ..Failure::said(error).after(Some(wait)) }
            }
            SourceErrorKind::Unavailable => Failure { may_pass: true, ..Failure::said(error) }.after(asked),
            SourceErrorKind::Unauthorized if proof.is_some() => {
                Failure { cause: Cause::Login, ..Failure::said(error) }
            }
            SourceErrorKind::Unauthorized | SourceErrorKind::Denied => Failure::said(error),
            // A token service knows no repositories: its 404 says nothing of the one that we ask for.
            _ => self.lasting(SourceErrorKind::BadAnswer, error.message),
        })
    }
}

/// Returns the request for a token: a GET, or a form where an identity token goes with it. `None` where there is no URL.
fn request(want: &Want, proof: Option<&Proof>) -> Option<Request<Full<Bytes>>> {
    let mut request = Request::new(Full::default());
    *request.uri_mut() = want.url()?;
    let headers = request.headers_mut();
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    match proof {
        None => {}
        Some(Proof::Basic(header)) => _ = headers.insert(AUTHORIZATION, header.clone()),
        Some(Proof::IdentityToken(token)) => {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
            *request.method_mut() = Method::POST;
            *request.uri_mut() = want.form_url()?;
            *request.body_mut() = Full::from(want.form(token));
        }
    }
    Some(request)
}
