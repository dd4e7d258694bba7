//! Which lane a request goes by, and what each answer teaches of the lanes: told the time, without any IO.
//!
//! A lane is what a registry counts GETs of manifests for: an account, by whatever way out it goes, or whoever comes
//! through one way out without an account. A holder is who a token is for: an account, or nobody, whose lanes are as many
//! as there are ways out.
//!
//! It promises that a request is given to a holder that is entitled to its repository and to no other, and that what was
//! refused is not tried again before its time. It must not know how a request is made.

mod choice;
mod holders;
mod sent;
#[cfg(test)]
mod tests;
mod view;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use oci::RepositoryName;

pub(super) use self::choice::{Choice, Closed, Need, Tried, WayNow};
use self::{
    holders::{Holder, Memory},
    sent::Sent,
};
use super::{
    breaker::Throttle,
    quota::{Cost, Quota},
};
use crate::{config::Share, source::LaneName};

/// Docker Hub's window, where the registry names none.
const WINDOW: Duration = Duration::from_secs(6 * 3_600);
/// What a lane that has not been heard of is taken to have: what Docker Hub gives.
const ACCOUNT_QUOTA: u64 = 200;
const ANONYMOUS_QUOTA: u64 = 100;
/// After so many refusals in a row, a registry's word that something is left is not taken for it.
const BELIEVED_REFUSALS_MAX: u32 = 1;
/// After so many refusals in a row, an account that once got in does so no more.
const REFUSED_LOGINS_MAX: u32 = 3;

/// An account by what matters here.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: Arc<str>,
    /// What the names of its repositories begin with, as the registry has them; none: all.
    pub(super) repositories: Vec<RepositoryName>,
}

/// All lanes to one registry.
#[derive(Debug)]
pub(super) struct Lanes {
    holders: Vec<Holder>,
    ways: Vec<Way>,
    lanes: Vec<Lane>,
    reserve: Share,
    memory: Memory,
    next_head: Option<Instant>,
    /// How many turns were given, to take ways in turn.
    turns: u64,
}

/// What the registry said of one way out.
#[derive(Debug)]
struct Way {
    name: Arc<str>,
    everything: Throttle,
    uncounted: Throttle,
    /// The number of the last turn that was given to it.
    turn: u64,
}

#[derive(Debug)]
struct Lane {
    holder: usize,
    /// The one way that it goes by; `None` is any.
    way: Option<usize>,
    standing: Standing,
    counted: Throttle,
    /// When its quota was last found spent.
    refused_at: Option<Instant>,
    sent: Sent,
    /// How many of ours have left the window since the registry was last heard.
    freed: u64,
    gets: u64,
    heads: u64,
    /// Who the registry says it counts for.
    source: Option<String>,
    /// What it is called, by each way.
    names: Vec<LaneName>,
}

/// What is known of a lane's quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Unheard,
    /// The registry counts nothing.
    Unlimited,
    Counted {
        limit: u64,
        remaining: u64,
        heard: Instant,
    },
}

/// What a failed login means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Login {
    /// The account is good, and not for this repository.
    NotForThis,
    /// The account does not get in, which is news.
    Out,
    /// It still does not.
    StillOut,
}

impl Lanes {
    /// Returns the lanes of these accounts by these ways, and those of nobody where `anonymous` says so or there is no
    /// account.
    pub(super) fn new(accounts: Vec<Entry>, anonymous: bool, ways: &[Arc<str>], reserve: Share) -> Self {
        let mut holders: Vec<Holder> = accounts.into_iter().map(Holder::account).collect();
        if anonymous || holders.is_empty() {
            holders.push(Holder::nobody());
        }
        let lanes = holders.iter().enumerate().flat_map(|(at, holder)| {
            let own = if holder.is_account { vec![None] } else { (0..ways.len()).map(Some).collect() };
            own.into_iter().map(move |way| Lane::new(at, holder, way, ways))
        });
        let lanes = lanes.collect();
        let way = |name: &Arc<str>| Way {
            name: Arc::clone(name),
            everything: Throttle::default(),
            uncounted: Throttle::default(),
            turn: 0,
        };
        let ways = ways.iter().map(way).collect();
        Self { holders, ways, lanes, reserve, memory: Memory::default(), next_head: None, turns: 0 }
    }

    /// Returns whether there is but one way to ask.
    pub(super) fn is_single(&self) -> bool {
        self.lanes.len() == 1
    }

    /// Returns what a choice is called; nothing where there is no other.
    pub(super) fn name(&self, choice: &Choice) -> Option<LaneName> {
        (!self.is_single()).then(|| Arc::clone(&self.lanes[choice.lane].names[choice.way]))
    }

    /// Notes that a request that was given a turn is over, however it went.
    pub(super) fn ended(&mut self, choice: &Choice, cost: Cost) {
        let lane = &mut self.lanes[choice.lane];
        match cost {
            Cost::Counted => lane.gets = lane.gets.saturating_sub(1),
            Cost::Free => lane.heads = lane.heads.saturating_sub(1),
            Cost::Other => {}
        }
    }

    /// Notes what an answer says of the quota. What is left opens lanes again that were spent, unless the answer was
    /// asked for before they were.
    pub(super) fn heard(&mut self, choice: &Choice, quota: Quota, now: Instant) {
        let lane = &mut self.lanes[choice.lane];
        if quota.source.is_some() {
            lane.source.clone_from(&quota.source);
        }
        lane.sent.set_window(quota.window.unwrap_or(WINDOW));
        for at in self.sharers(choice.lane) {
            let lane = &mut self.lanes[at];
            // Answers overtake one another: of those that were under way together, the one with less is the later.
            let remaining = match lane.standing {
                Standing::Counted { limit, remaining, heard }
                    if limit == quota.limit && choice.at < heard =>
                {
                    remaining.min(quota.remaining)
                }
                _ => quota.remaining,
            };
            lane.standing = Standing::Counted { limit: quota.limit, remaining, heard: now };
            lane.freed = 0;
            let is_news = lane.refused_at.is_none_or(|refused| refused <= choice.at);
            if quota.remaining > 0 && is_news && lane.counted.refusals() <= BELIEVED_REFUSALS_MAX {
                lane.counted.reopen();
            }
        }
    }

    /// Notes that an answer to a manifest says nothing of a quota. That some images are not counted does not mean that
    /// none is.
    pub(super) fn heard_of_no_quota(&mut self, choice: &Choice) {
        let lane = &mut self.lanes[choice.lane];
        if lane.standing == Standing::Unheard {
            lane.standing = Standing::Unlimited;
        }
    }

    /// Notes an answer that was no refusal; `found` says whether there was what was asked for.
    pub(super) fn answered(&mut self, choice: &Choice, need: &Need<'_>, found: bool, now: Instant) {
        let way = &mut self.ways[choice.way];
        way.everything.succeeded();
        let lane = &mut self.lanes[choice.lane];
        match need.cost {
            Cost::Counted => {
                if found {
                    lane.sent.note(now);
                }
                if lane.refused_at.is_none_or(|refused| refused <= choice.at) {
                    lane.counted.succeeded();
                }
            }
            Cost::Free | Cost::Other => way.uncounted.succeeded(),
        }
        if found && self.holders.len() > 1 {
            self.memory.served(need.repository, choice.holder);
        }
    }

    /// Notes a 429; returns how long what it closes is closed.
    pub(super) fn refused(
        &mut self,
        choice: &Choice,
        cost: Cost,
        for_abuse: bool,
        asked: Option<Duration>,
        now: Instant,
    ) -> Duration {
        let way = &mut self.ways[choice.way];
        if for_abuse {
            return way.everything.refused(now, asked);
        }
        if cost != Cost::Counted {
            return way.uncounted.refused(now, asked);
        }
        let mut wait = Duration::ZERO;
        for at in self.sharers(choice.lane) {
            let lane = &mut self.lanes[at];
            if let Standing::Counted { remaining, heard, .. } = &mut lane.standing {
                (*remaining, *heard) = (0, now);
                lane.freed = 0;
            }
            // Of many that were under way when the quota ended, the first says it all.
            if lane.refused_at.is_some_and(|refused| refused > choice.at) {
                wait = wait.max(lane.counted.closed(now).unwrap_or_default());
                continue;
            }
            lane.refused_at = Some(now);
            let own = lane.sent.first_leaves(now).filter(|_| asked.is_none());
            wait = wait.max(lane.counted.refused_at_most(now, asked, own));
        }
        wait
    }

    /// Notes that a holder was refused, or found nothing where another found it.
    pub(super) fn does_not_see(&mut self, holder: usize, repository: &RepositoryName, now: Instant) {
        if self.holders.len() > 1 {
            self.memory.does_not_see(holder, repository, now);
        }
    }

    /// Notes that an account's login was refused, and says what that means.
    pub(super) fn login_failed(&mut self, holder: usize, why: &str, now: Instant) -> Login {
        let holder = &mut self.holders[holder];
        holder.refusals += 1;
        if holder.has_got_in && holder.refusals < REFUSED_LOGINS_MAX {
            return Login::NotForThis;
        }
        let was_out = holder.login.is_closed();
        holder.has_got_in = false;
        holder.reason = Some(why.to_owned());
        holder.login.refused(now, None);
        if was_out { Login::StillOut } else { Login::Out }
    }

    /// Notes that there is nothing to prove an account by, which leaves it out at once, and says what that means.
    pub(super) fn unproved(&mut self, holder: usize, why: &str, now: Instant) -> Login {
        self.holders[holder].has_got_in = false;
        self.login_failed(holder, why, now)
    }

    /// Notes that an account got in; returns whether it did not before.
    pub(super) fn got_in(&mut self, holder: usize) -> bool {
        let holder = &mut self.holders[holder];
        let was_out = holder.login.is_closed();
        holder.has_got_in = holder.is_account;
        holder.refusals = 0;
        holder.reason = None;
        holder.login.succeeded();
        was_out
    }

    /// Returns the lanes that share a quota with this one, itself among them.
    fn sharers(&self, lane: usize) -> Vec<usize> {
        let source = self.lanes[lane].source.as_ref();
        let shares =
            |at: &usize| *at == lane || (source.is_some() && self.lanes[*at].source.as_ref() == source);
        (0..self.lanes.len()).filter(shares).collect()
    }

    /// Moves the windows on.
    fn move_on(&mut self, now: Instant) {
        for lane in &mut self.lanes {
            lane.freed += lane.sent.forget_old(now);
        }
    }

    /// Returns how many GETs a lane still has, less those under way, and HEADs as well where `with_heads`: a GET follows
    /// most of them. Below zero where more are under way than are left.
    fn rest(&self, lane: usize, with_heads: bool, now: Instant) -> i64 {
        let Some((_, rest)) = self.quota_of(lane, now) else { return i64::MAX };
        let under_way = |at: usize| {
            let lane = &self.lanes[at];
            lane.gets + if with_heads { lane.heads } else { 0 }
        };
        let under_way: u64 = self.sharers(lane).into_iter().map(under_way).sum();
        i64::try_from(rest).unwrap_or(i64::MAX).saturating_sub_unsigned(under_way)
    }

    /// Returns a lane's limit and what is left of it, as far as is known; `None` where nothing is counted.
    fn quota_of(&self, lane: usize, now: Instant) -> Option<(u64, u64)> {
        let lane = &self.lanes[lane];
        match lane.standing {
            Standing::Unlimited => None,
            Standing::Unheard if self.holders[lane.holder].is_account => Some((ACCOUNT_QUOTA, ACCOUNT_QUOTA)),
            Standing::Unheard => Some((ANONYMOUS_QUOTA, ANONYMOUS_QUOTA)),
            Standing::Counted { limit, heard, .. } if now >= heard + lane.sent.window() => {
                Some((limit, limit))
            }
            Standing::Counted { limit, remaining, .. } => Some((limit, limit.min(remaining + lane.freed))),
        }
    }
}

impl Lane {
    fn new(holder: usize, of: &Holder, way: Option<usize>, ways: &[Arc<str>]) -> Self {
        Self {
            holder,
            way,
            standing: Standing::Unheard,
            counted: Throttle::default(),
            refused_at: None,
            sent: Sent::new(WINDOW),
            freed: 0,
            gets: 0,
            heads: 0,
            source: None,
            names: ways.iter().map(|way| LaneName::from(format!("{} via {way}", of.name))).collect(),
        }
    }
}
