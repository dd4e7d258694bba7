//! The passes that a registry lets us in with: one token per (registry, repository, account), shared by all.
//!
//! How a registry wants to be asked is learned from its first challenge and remembered, so that a token for the next
//! repository needs no 401. A token is asked for once however many wait for it, is kept until shortly before it ends,
//! and serves to its very end where its service fails. The account goes only where [`gate`](super::gate) lets it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use http::{HeaderValue, Uri};
use oci::{Challenge, RepositoryName, Scheme};
use tokio::time::timeout_at;

use super::{
    account::{Account, Proof},
    exit::Exit,
    failure::{Cause, Failure},
    gate::{self, Home, Site},
    realm::{Want, pull_scope},
};
use crate::{clock::Clock, egress::Reach, flight::Flights, metrics::Metrics, source::SourceErrorKind};

/// How many tokens, and how many odd scopes, are kept.
const KNOWN_MAX: usize = 10_000;
/// How long a refusal is believed: long enough that a burst of pulls is one login, short enough not to be noticed.
const REFUSED_FOR: Duration = Duration::from_secs(5);

/// What lets a request in.
pub(super) struct Pass {
    pub(super) header: HeaderValue,
    /// The token it holds; `None` where it is the account itself.
    want: Option<Want>,
}

impl Pass {
    /// Returns whether there may be another in its stead.
    pub(super) fn is_token(&self) -> bool {
        self.want.is_some()
    }
}

/// What is done where an account cannot be proved now: its file is missing, its program fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unproved {
    /// The registry is asked without, as ever where there is but one way to ask it.
    AsNobody,
    /// The account is left out, and others asked as.
    LeftOut,
}

/// How the registry wants to be asked.
#[derive(Clone)]
enum Way {
    Basic,
    Bearer { realm: String, service: Option<String>, reach: Reach },
}

#[derive(Clone)]
struct Token {
    header: HeaderValue,
    refresh_at: Instant,
    ends_at: Instant,
}

enum Known {
    Token(Token),
    Refused(Failure, Instant),
}

/// All passes of one registry.
pub(super) struct Tokens {
    pub(super) registry: Arc<str>,
    pub(super) home: Arc<Home>,
    pub(super) account: Option<Account>,
    pub(super) unproved: Unproved,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Clock,
    pub(super) answer_timeout: Duration,
    pub(super) state: State,
}

/// What was learned.
#[derive(Default)]
pub(super) struct State {
    way: Mutex<Option<Way>>,
    /// Scopes that a registry asked for in place of the usual ones.
    odd_scopes: Mutex<HashMap<RepositoryName, String>>,
    known: Mutex<HashMap<Want, Known>>,
    /// What last proved the account in vain; nothing where nothing could.
    failed: Mutex<Option<Option<Proof>>>,
    flights: Arc<Flights<Want, Result<Token, Failure>>>,
}

impl Tokens {
    /// Returns the pass that a request to `repository` will want, as far as that can be known before it is sent.
    pub(super) async fn ready(
        self: &Arc<Self>,
        exit: &Arc<Exit>,
        repository: &RepositoryName,
        deadline: tokio::time::Instant,
    ) -> Result<Option<Pass>, Failure> {
        if let Some(account) = &self.account
            && let Some(header) = account.registry_token(repository).await
        {
            return Ok(Some(Pass { header, want: None }));
        }
        let way = locked(&self.state.way).clone();
        let (realm, service, reach) = match way {
            None => return Ok(None),
            Some(Way::Basic) => return self.basic(repository).await,
            Some(Way::Bearer { realm, service, reach }) => (realm, service, reach),
        };
        let odd_scope = locked(&self.state.odd_scopes).get(repository).cloned();
        let scope = odd_scope.unwrap_or_else(|| pull_scope(repository));
        let want = Want { realm, service, scope, with_account: self.account.is_some(), reach };
        self.pass(exit, want, deadline).await.map(Some)
    }

    /// Answers the registry's own challenge and remembers the way. `from_inside` tells that it came from an address
    /// that is not public.
    pub(super) async fn answer(
        self: &Arc<Self>,
        exit: &Arc<Exit>,
        challenge: Challenge,
        repository: &RepositoryName,
        from_inside: bool,
        deadline: tokio::time::Instant,
    ) -> Result<Pass, Failure> {
        let Some(realm) = challenge.realm.filter(|_| challenge.scheme == Scheme::Bearer) else {
            *locked(&self.state.way) = Some(Way::Basic);
            let none = || {
                let failure = self.lasting(SourceErrorKind::Unauthorized, "the registry wants an account");
                Failure { cause: Cause::Holder, ..failure }
            };
            return self.basic(repository).await?.ok_or_else(none);
        };
        let usual_scope = pull_scope(repository);
        let scope = challenge.scope.filter(|scope| !scope.is_empty());
        let scope = scope.unwrap_or_else(|| usual_scope.clone());
        let with_account = self.account.is_some();
        let (_, reach) = self.reach_of(&realm, with_account, from_inside)?;
        if scope != usual_scope {
            let mut scopes = locked(&self.state.odd_scopes);
            if scopes.len() >= KNOWN_MAX {
                scopes.clear();
            }
            scopes.insert(repository.clone(), scope.clone());
        }
        let service = challenge.service;
        *locked(&self.state.way) =
            Some(Way::Bearer { realm: realm.clone(), service: service.clone(), reach });
        self.pass(exit, Want { realm, service, scope, with_account, reach }, deadline).await
    }

    /// Answers the challenge of a place that the registry redirected to, as anybody; `usual_scope` is what the token is
    /// for where the challenge does not say.
    pub(super) async fn answer_as_anybody(
        self: &Arc<Self>,
        exit: &Arc<Exit>,
        challenge: Challenge,
        usual_scope: String,
        from_inside: bool,
        deadline: tokio::time::Instant,
    ) -> Result<Option<Pass>, Failure> {
        let Some(realm) = challenge.realm.filter(|_| challenge.scheme == Scheme::Bearer) else {
            return Ok(None);
        };
        let (_, reach) = self.reach_of(&realm, false, from_inside)?;
        let scope = challenge.scope.filter(|scope| !scope.is_empty()).unwrap_or(usual_scope);
        let want = Want { realm, service: challenge.service, scope, with_account: false, reach };
        self.pass(exit, want, deadline).await.map(Some)
    }

    /// Forgets a token that did not let us in.
    pub(super) fn forget(&self, pass: &Pass) {
        let Some(want) = &pass.want else { return };
        let mut known = locked(&self.state.known);
        if matches!(known.get(want), Some(Known::Token(token)) if token.header == pass.header) {
            known.remove(want);
        }
    }

    /// Hears that the account itself was refused; returns whether another may come in its stead.
    pub(super) fn account_refused(&self, proof: &Proof) -> bool {
        *locked(&self.state.failed) = Some(Some(proof.clone()));
        self.account.as_ref().is_some_and(|account| account.refused(proof))
    }

    /// Returns whether the account is proved otherwise by now than when it was last refused, such as by a file that was
    /// mended; forgets then that it was.
    pub(super) async fn is_proved_anew(&self, repository: &RepositoryName) -> bool {
        let failed = locked(&self.state.failed).clone();
        let (Some(failed), Some(account)) = (failed, &self.account) else { return false };
        let proof = account.proof(Some(repository)).await;
        if proof.is_none() || proof == failed {
            return false;
        }
        *locked(&self.state.failed) = None;
        locked(&self.state.known).retain(|_, known| matches!(known, Known::Token(_)));
        true
    }

    /// Hears the challenge of a registry that refused the account itself; returns whether it is one that wanted Basic
    /// before and wants something else now, so that it is worth asking how.
    pub(super) fn has_changed(&self, challenge: Option<&Challenge>) -> bool {
        let mut way = locked(&self.state.way);
        let has_changed = matches!(*way, Some(Way::Basic))
            && challenge.is_some_and(|challenge| challenge.scheme == Scheme::Bearer);
        if has_changed {
            *way = None;
        }
        has_changed
    }

    /// Returns what proves the account; `None` where there is none, or nobody is asked for one.
    pub(super) async fn proof(&self, repository: Option<&RepositoryName>) -> Result<Option<Proof>, Failure> {
        let Some(account) = &self.account else { return Ok(None) };
        let proof = account.proof(repository).await;
        match self.unproved {
            Unproved::LeftOut if proof.is_none() => {
                *locked(&self.state.failed) = Some(None);
                let message = format!("the account {} cannot be proved now; the log says why", account.name);
                let failure = self.lasting(SourceErrorKind::Unauthorized, message);
                Err(Failure { cause: Cause::Unproved, ..failure })
            }
            Unproved::LeftOut | Unproved::AsNobody => Ok(proof),
        }
    }

    /// Returns the account as the registry itself takes it, which no identity token is for.
    async fn basic(&self, repository: &RepositoryName) -> Result<Option<Pass>, Failure> {
        Ok(match self.proof(Some(repository)).await? {
            Some(Proof::Basic(header)) => Some(Pass { header, want: None }),
            Some(Proof::IdentityToken(_)) | None => None,
        })
    }

    /// Decides whether a realm may be asked, and how far that may reach.
    fn reach_of(&self, realm: &str, with_account: bool, from_inside: bool) -> Result<(Uri, Reach), Failure> {
        let url = realm.parse::<Uri>().ok().filter(|url| Site::of(url).is_some());
        let not_a_url =
            || self.lasting(SourceErrorKind::BadAnswer, "the registry names no URL as its token service");
        let url = url.ok_or_else(not_a_url)?;
        let site = Site::of(&url).ok_or_else(not_a_url)?;
        if with_account && !gate::may_send(&self.home, &url) {
            let message = format!(
                "the registry wants the account sent to {site}, which is not one of its known token services; \
                 if it is right, name its host in `upstream.realms`"
            );
            return Err(self.lasting(SourceErrorKind::Refused, message));
        }
        let too_far =
            || self.lasting(SourceErrorKind::Refused, format!("the token service {site} is not encrypted"));
        let reach = gate::reach(&self.home, &url, from_inside).ok_or_else(too_far)?;
        Ok((url, reach))
    }

    async fn pass(
        self: &Arc<Self>,
        exit: &Arc<Exit>,
        want: Want,
        deadline: tokio::time::Instant,
    ) -> Result<Pass, Failure> {
        let token = match self.recall(&want) {
            Some(known) => known?,
            None => {
                let (tokens, exit, wanted) = (Arc::clone(self), Arc::clone(exit), want.clone());
                let renew = || async move { tokens.renew(&exit, &wanted).await };
                let flight = self.state.flights.run(want.clone(), renew);
                let too_late = |_| self.lasting(SourceErrorKind::Timeout, "no token came in time");
                let landed = timeout_at(deadline, flight).await.map_err(too_late)?;
                let broken = || self.lasting(SourceErrorKind::Unavailable, "asking for a token broke");
                landed.ok_or_else(broken)?.value?
            }
        };
        Ok(Pass { header: token.header, want: Some(want) })
    }

    fn recall(&self, want: &Want) -> Option<Result<Token, Failure>> {
        let now = self.clock.now();
        match locked(&self.state.known).get(want)? {
            Known::Token(token) => (now < token.refresh_at).then(|| Ok(token.clone())),
            Known::Refused(failure, until) => (now < *until).then(|| Err(failure.clone())),
        }
    }

    async fn renew(&self, exit: &Exit, want: &Want) -> Result<Token, Failure> {
        if let Some(known) = self.recall(want) {
            return known;
        }
        let asked_at = self.clock.now();
        let failure = match self.ask(exit, want).await {
            Ok((header, lifetime)) => {
                let token =
                    Token { header, refresh_at: asked_at + lifetime * 17 / 20, ends_at: asked_at + lifetime };
                self.remember(want, Known::Token(token.clone()));
                return Ok(token);
            }
            Err(failure) => failure,
        };
        if matches!(failure.error.kind, SourceErrorKind::Unauthorized | SourceErrorKind::Denied) {
            self.remember(want, Known::Refused(failure.clone(), self.clock.now() + REFUSED_FOR));
        } else if let Some(Known::Token(old)) = locked(&self.state.known).get(want)
            && self.clock.now() < old.ends_at
        {
            return Ok(old.clone());
        }
        Err(failure)
    }

    fn remember(&self, want: &Want, what: Known) {
        let now = self.clock.now();
        let mut known = locked(&self.state.known);
        if known.len() >= KNOWN_MAX {
            known.retain(|_, known| matches!(known, Known::Token(token) if now < token.ends_at));
        }
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(want.clone(), what);
    }

    pub(super) fn lasting(&self, kind: SourceErrorKind, message: impl Into<String>) -> Failure {
        Failure::lasting(&self.registry, kind, message)
    }
}

/// Locks for a moment; never across an await.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
