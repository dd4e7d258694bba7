//! How things stand, for the operator and for whoever saves.

use std::time::{Duration, Instant};

use oci::RepositoryName;

use super::{Choice, Lane, Lanes, Standing};
use crate::{
    clock::in_words,
    config::Share,
    source::{LaneReport, LaneState, Thrift},
};

/// How many closed lanes a message names.
const LANES_SHOWN_MAX: usize = 8;

impl Lanes {
    /// Returns whether what is left for a repository, over all lanes that are for it, is worth saving.
    pub(in crate::upstream) fn thrift(&self, repository: &RepositoryName, now: Instant) -> Thrift {
        let entitled = self.entitled(repository);
        let (mut limits, mut rests, mut are_closed) = (0_u64, 0_u64, true);
        for (at, lane) in self.lanes.iter().enumerate() {
            let is_first_of_quota = self.sharers(at).first() == Some(&at);
            if !entitled.contains(&lane.holder)
                || !is_first_of_quota
                || self.left_out(lane.holder, now).is_some()
            {
                continue;
            }
            if lane.counted.closed(now).is_some() {
                limits = limits.saturating_add(self.quota_of(at, now).map_or(0, |(limit, _)| limit));
                continue;
            }
            are_closed = false;
            let Some((limit, rest)) = self.quota_of(at, now) else { return Thrift::Plenty };
            (limits, rests) = (limits.saturating_add(limit), rests.saturating_add(rest));
        }
        let reserve = match self.reserve {
            Share::Count(count) => count,
            Share::Percent(percent) => limits.saturating_mul(u64::from(percent)) / 100,
        };
        let is_low = are_closed || (reserve > 0 && rests <= reserve);
        if is_low && !entitled.is_empty() { Thrift::Low } else { Thrift::Plenty }
    }

    /// Returns a row for each lane.
    pub(in crate::upstream) fn reports(&mut self, now: Instant) -> Vec<LaneReport> {
        self.move_on(now);
        (0..self.lanes.len()).map(|at| self.report(at, now)).collect()
    }

    /// Returns the row of a chosen lane.
    pub(in crate::upstream) fn report_of(&self, choice: &Choice, now: Instant) -> LaneReport {
        self.report(choice.lane, now)
    }

    /// Returns which of the lanes for a repository are closed and for how long, for people: `ann is spent for 5h 12m`.
    pub(in crate::upstream) fn closed_for(
        &self,
        repository: &RepositoryName,
        now: Instant,
    ) -> Option<String> {
        let entitled = self.entitled(repository);
        let of_repository = |at: &usize| entitled.contains(&self.lanes[*at].holder);
        let closed = (0..self.lanes.len()).filter(of_repository).filter_map(|at| {
            let LaneReport { account, egress, state, resets_in, .. } = self.report(at, now);
            let via = egress.filter(|_| !self.is_single()).map(|egress| format!(" via {egress}"));
            let how = match state {
                LaneState::Open => return None,
                LaneState::Spent => "is spent",
                LaneState::Resting => "has to rest",
                LaneState::LoggedOut => "does not get in",
            };
            let wait = resets_in.map(|wait| format!(" for {}", in_words(wait)));
            Some(format!("{account}{} {how}{}", via.unwrap_or_default(), wait.unwrap_or_default()))
        });
        let mut closed: Vec<String> = closed.collect();
        if closed.len() > LANES_SHOWN_MAX {
            let more = closed.split_off(LANES_SHOWN_MAX - 1).len();
            closed.push(format!("and so on with {more} more"));
        }
        (!closed.is_empty()).then(|| closed.join(", "))
    }

    fn report(&self, at: usize, now: Instant) -> LaneReport {
        let lane = &self.lanes[at];
        let holder = &self.holders[lane.holder];
        let (limit, remaining, window) = match (lane.standing, self.quota_of(at, now)) {
            (Standing::Counted { .. }, Some((limit, rest))) => {
                (Some(limit), Some(rest), Some(lane.sent.window()))
            }
            _ => (None, None, None),
        };
        let (state, resets_in, reason) = self.state_of(at, now);
        let used = lane.sent.count();
        LaneReport {
            account: holder.name.as_ref().to_owned(),
            egress: lane.way.map(|way| self.ways[way].name.as_ref().to_owned()),
            limit,
            remaining,
            window,
            used,
            resets_in,
            state,
            reason,
            counted_for: lane.source.clone(),
        }
    }

    fn state_of(&self, at: usize, now: Instant) -> (LaneState, Option<Duration>, Option<String>) {
        let lane = &self.lanes[at];
        let holder = &self.holders[lane.holder];
        if holder.login.is_closed() {
            return (LaneState::LoggedOut, holder.login.closed(now), holder.reason.clone());
        }
        let own = |way: &usize| lane.way.is_none_or(|own| own == *way);
        let rests = (0..self.ways.len()).filter(own).map(|way| self.ways[way].everything.closed(now));
        if let Some(wait) = rests.collect::<Option<Vec<_>>>().and_then(|waits| waits.into_iter().min()) {
            let reason = "the registry said that too many requests come from this address".to_owned();
            return (LaneState::Resting, Some(wait), Some(reason));
        }
        if let Some(wait) = lane.counted.closed(now) {
            let reason = "the registry said that the quota is spent".to_owned();
            return (LaneState::Spent, Some(wait), Some(reason));
        }
        let leaves = lane.sent.first_leaves(now);
        match self.quota_of(at, now) {
            Some((_, 0)) => (LaneState::Spent, leaves, Some("nothing is left of the quota".to_owned())),
            Some((limit, rest)) if rest < limit => (LaneState::Open, leaves, None),
            _ => (LaneState::Open, None, None),
        }
    }
}

impl Lane {
    /// Returns when the registry last spoke of its quota.
    pub(super) fn heard(&self) -> Option<Instant> {
        match self.standing {
            Standing::Counted { heard, .. } => Some(heard),
            Standing::Unheard | Standing::Unlimited => None,
        }
    }
}
