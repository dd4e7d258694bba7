//! A request by one lane after another: which comes next is decided by `lanes`, and what a failure says of the lane that
//! it went by is told to it.

use std::time::Duration;

use http::StatusCode;
use oci::RepositoryName;
use tokio::time::{Instant, sleep};

use super::{
    Upstream,
    exit::Exit,
    failure::{Cause, Failure},
    lanes::{Choice, Closed, Login, Need, Tried},
    pace::NoTurn,
    quota::Cost,
    request::{Ask, Reply},
    retry,
    token::{Tokens, locked},
};
use crate::{
    egress::Load,
    metrics::Lane,
    source::{LaneName, LaneReport, LaneState, SourceError, SourceErrorKind},
};

/// How often a request is tried again.
const RETRIES_MAX: u32 = 2;
/// How often it goes on by another lane.
const MOVES_MAX: u32 = 32;

/// How often it looks what another found that is finding out whether there is more, and after what time each.
const PROBE_LOOKS_MAX: u32 = 40;
const PROBE_LOOK_EVERY: Duration = Duration::from_millis(50);

/// A request's turn on a lane, until it is dropped.
pub(super) struct OnLane<'a> {
    upstream: &'a Upstream,
    pub(super) choice: Choice,
    cost: Cost,
    _load: Load,
}

impl OnLane<'_> {
    pub(super) fn tokens(&self) -> &std::sync::Arc<Tokens> {
        &self.upstream.tokens[self.choice.holder]
    }

    pub(super) fn exit(&self) -> &std::sync::Arc<Exit> {
        &self.upstream.exits[self.choice.way]
    }

    /// Returns what the lane is called, where there are others.
    pub(super) fn name(&self) -> Option<LaneName> {
        locked(&self.upstream.lanes).name(&self.choice)
    }
}

impl Drop for OnLane<'_> {
    fn drop(&mut self) {
        locked(&self.upstream.lanes).ended(&self.choice, self.cost);
    }
}

/// What one request has been through.
#[derive(Default)]
struct Course {
    tried: Tried,
    retries: u32,
    moves: u32,
    /// Who found nothing, and what they said: believed where nobody finds more.
    not_found: Option<(usize, SourceError)>,
    /// What failed last.
    last: Option<SourceError>,
}

impl Upstream {
    /// Asks, by another lane where that may help, and again where that may.
    pub(super) async fn ask(&self, ask: &Ask<'_>, deadline: Instant) -> Result<Reply, SourceError> {
        let need = ask.need();
        let mut course = Course::default();
        let logged_out = locked(&self.lanes).logged_out(need.repository);
        for holder in logged_out {
            if self.tokens[holder].is_proved_anew(need.repository).await {
                locked(&self.lanes).proved_anew(holder);
            }
        }
        loop {
            if let Err(closed) = self.choose_in_time(&need, &course.tried).await {
                return Err(course.last.unwrap_or_else(|| self.closed(ask, closed)));
            }
            let turn = self.pace.turn(need.cost, deadline).await;
            let turn = turn.map_err(|no_turn| self.without_turn(ask, no_turn))?;
            let on = match self.take(&need, &course.tried) {
                Ok(on) => on,
                Err(closed) => return Err(course.last.unwrap_or_else(|| self.closed(ask, closed))),
            };
            let failure = match self.attempt(ask, &on, deadline).await {
                Ok(reply) => match self.look_at(ask, reply, &on, &mut course, deadline).await {
                    Ok(reply) => return reply,
                    Err(failure) => failure,
                },
                Err(failure) => failure,
            };
            drop(turn);
            let wait = match self.next(&need, &failure, &on, &mut course, deadline) {
                Some(wait) => wait,
                None => return Err(self.given_up(&need, failure, &on, course)),
            };
            drop(on);
            tracing::debug!(error = %failure.error, wait_ms = wait.as_millis(), "asking the registry again");
            course.last = Some(failure.error);
            if !wait.is_zero() {
                sleep(wait).await;
            }
        }
    }

    /// Decides on an answer: it is the one, or a refusal that another holder may be spared.
    async fn look_at(
        &self,
        ask: &Ask<'_>,
        reply: Reply,
        on: &OnLane<'_>,
        course: &mut Course,
        deadline: Instant,
    ) -> Result<Result<Reply, SourceError>, Failure> {
        let (holder, status) = (on.choice.holder, reply.response.status());
        if locked(&self.lanes).got_in(holder) {
            tracing::info!(registry = %self.registry, lane = on.name().as_deref(), "the account gets in again");
        }
        self.publish(Some(&on.choice));
        let need = ask.need();
        let is_refused = status == StatusCode::FORBIDDEN && !reply.redirected;
        if status == StatusCode::NOT_FOUND || is_refused {
            let tried = course.tried.with_holder(holder);
            let goes_on = {
                let (lanes, now) = (locked(&self.lanes), self.clock.now());
                if is_refused {
                    lanes.usable(&need, &tried, now).is_ok()
                } else {
                    lanes.may_see_more(holder, &need, &tried, now)
                }
            };
            if goes_on {
                let error = self.error_of(ask, reply, deadline).await;
                if !is_refused {
                    course.not_found = Some((holder, error.clone()));
                }
                return Err(Failure { cause: Cause::Holder, ..Failure::said(error) });
            }
        }
        match course.not_found.take() {
            Some((blind, _)) if status.is_success() => {
                locked(&self.lanes).does_not_see(blind, ask.repository, self.clock.now());
                Ok(Ok(reply))
            }
            Some((_, error)) if is_refused => Ok(Err(error)),
            _ => Ok(Ok(reply)),
        }
    }

    /// Tells the lanes what a failure means and returns after what wait the request goes on; at once by another lane.
    fn next(
        &self,
        need: &Need<'_>,
        failure: &Failure,
        on: &OnLane<'_>,
        course: &mut Course,
        deadline: Instant,
    ) -> Option<Duration> {
        let holder = on.choice.holder;
        match failure.cause {
            Cause::Holder | Cause::Login | Cause::Unproved => {
                self.holder_failed(need, failure, on, course);
                course.tried.holders.push(holder);
            }
            Cause::Way => course.tried.ways.push(on.choice.way),
            Cause::TooMany | Cause::Request => {}
        }
        self.publish(None);
        course.moves += 1;
        let left = deadline.saturating_duration_since(Instant::now());
        let may_move = failure.cause != Cause::Request && course.moves <= MOVES_MAX && !left.is_zero();
        if may_move && self.choose(need, &course.tried).is_ok() {
            return Some(Duration::ZERO);
        }
        course.tried.ways.clear();
        course.retries += 1;
        let is_down = self.exits.iter().all(|exit| exit.fuse.is_open());
        let wait = retry::wait_before(course.retries, failure.error.retry_after, left, retry::chance());
        wait.filter(|_| failure.may_pass && course.retries <= RETRIES_MAX && !is_down)
    }

    fn holder_failed(&self, need: &Need<'_>, failure: &Failure, on: &OnLane<'_>, course: &Course) {
        let (holder, now) = (on.choice.holder, self.clock.now());
        let found_nothing = course.not_found.as_ref().is_some_and(|(blind, _)| *blind == holder);
        let mut lanes = locked(&self.lanes);
        let why = &failure.error.message;
        let login = match failure.cause {
            Cause::Login => Some(lanes.login_failed(holder, why, now)),
            Cause::Unproved => Some(lanes.unproved(holder, why, now)),
            Cause::Holder | Cause::Way | Cause::TooMany | Cause::Request => None,
        };
        if !found_nothing && login.is_none_or(|login| login == Login::NotForThis) {
            lanes.does_not_see(holder, need.repository, now);
        }
        drop(lanes);
        let Some(login) = login.filter(|login| *login != Login::NotForThis) else { return };
        let account = &self.accounts[holder];
        self.metrics.lane_failed(&self.registry, account, "login");
        if login == Login::Out {
            let registry = &self.registry;
            tracing::error!(%registry, %account, error = %failure.error, "the account does not get in");
        }
    }

    /// Returns the error of a request that nothing more is tried for.
    fn given_up(&self, need: &Need<'_>, failure: Failure, on: &OnLane<'_>, course: Course) -> SourceError {
        if failure.is_illness {
            on.exit().fuse.failed();
        }
        match failure.cause {
            Cause::Holder | Cause::Login | Cause::Unproved => {
                course.not_found.map_or(failure.error, |(_, error)| error)
            }
            // The first lane to reset says when there is more.
            Cause::TooMany => match self.choose(need, &course.tried) {
                Err(Closed::Waits(wait) | Closed::Probed(wait)) => {
                    let mut error = failure.after(Some(wait)).error;
                    if let Some(closed) = self.closed_lanes(need.repository) {
                        error.message = format!("{}; {closed}", error.message);
                    }
                    error
                }
                _ => failure.error,
            },
            Cause::Way | Cause::Request => failure.error,
        }
    }

    /// Chooses; where another request is finding out whether there is more, waits a moment for what it finds.
    async fn choose_in_time(&self, need: &Need<'_>, tried: &Tried) -> Result<Choice, Closed> {
        for _ in 0..PROBE_LOOKS_MAX {
            match self.choose(need, tried) {
                Err(Closed::Probed(_)) => sleep(PROBE_LOOK_EVERY).await,
                chosen => return chosen,
            }
        }
        self.choose(need, tried)
    }

    fn choose(&self, need: &Need<'_>, tried: &Tried) -> Result<Choice, Closed> {
        locked(&self.lanes).choose(need, tried, &self.ways_now(), self.clock.now())
    }

    fn take(&self, need: &Need<'_>, tried: &Tried) -> Result<OnLane<'_>, Closed> {
        let choice = locked(&self.lanes).take(need, tried, &self.ways_now(), self.clock.now())?;
        let load = self.exits[choice.way].egress.engage();
        Ok(OnLane { upstream: self, choice, cost: need.cost, _load: load })
    }

    fn ways_now(&self) -> Vec<super::lanes::WayNow> {
        self.exits.iter().map(|exit| exit.now()).collect()
    }

    /// Shows how a lane stands, or all of them, as metrics; returns that.
    pub(super) fn publish(&self, choice: Option<&Choice>) -> Vec<LaneReport> {
        let now = self.clock.now();
        let reports = {
            let mut lanes = locked(&self.lanes);
            match choice {
                Some(choice) => vec![lanes.report_of(choice, now)],
                None => lanes.reports(now),
            }
        };
        for report in &reports {
            let egress = report.egress.as_deref().unwrap_or_default();
            let lane = Lane { registry: &self.registry, account: &report.account, egress };
            self.metrics.lane_state(lane, &LaneState::ALL.map(LaneState::as_str), report.state.as_str());
            if let (Some(limit), Some(remaining)) = (report.limit, report.remaining) {
                self.metrics.quota(lane, limit, remaining);
            }
        }
        reports
    }

    /// Says why there is no lane for a request.
    fn closed(&self, ask: &Ask<'_>, closed: Closed) -> SourceError {
        use SourceErrorKind as Kind;
        let says =
            |kind, why: String| Failure::lasting(&self.registry, kind, format!("{} {why}", ask.name()));
        match closed {
            Closed::Down(wait) => return self.does_not_answer(ask, wait).error,
            Closed::Waits(wait) | Closed::Probed(wait) => {
                let closed = self.closed_lanes(ask.repository);
                let closed = closed.map(|closed| format!(": {closed}")).unwrap_or_default();
                return self.waits(ask, &format!("since the registry said 429{closed}"), wait);
            }
            Closed::Reserved => says(
                Kind::TooManyRequests,
                "is not made: the rest of the quota is kept for what is not cached".into(),
            ),
            Closed::LoggedOut(account, wait) => {
                says(Kind::Unauthorized, format!("waits, since the account {account} does not get in"))
                    .after(Some(wait))
            }
            Closed::Nobody => {
                says(Kind::Denied, "is not made: no account is for it, and `anonymous` is off".into())
            }
            Closed::Tried => says(Kind::Unavailable, "is not made: no lane is left".into()),
        }
        .error
    }

    /// Returns which of the lanes for a repository are closed and for how long, for people.
    fn closed_lanes(&self, repository: &RepositoryName) -> Option<String> {
        locked(&self.lanes).closed_for(repository, self.clock.now())
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
}
