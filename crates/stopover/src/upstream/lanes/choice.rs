//! The choice itself.

use std::{
    cmp::Reverse,
    sync::Arc,
    time::{Duration, Instant},
};

use oci::RepositoryName;

use super::{Cost, Lanes};
use crate::source::{Purpose, Thrift};

/// How often a tag may be checked while all is spent.
const HEAD_EVERY: Duration = Duration::from_millis(100);
/// Which part of what the best lane has left another may have less and still be stayed with: what it served before needs
/// no new token.
const STAY: i64 = 32;

/// What is to be asked.
#[derive(Clone, Copy, Debug)]
pub(in crate::upstream) struct Need<'a> {
    pub(in crate::upstream) cost: Cost,
    /// By its name at the registry.
    pub(in crate::upstream) repository: &'a RepositoryName,
    pub(in crate::upstream) purpose: Purpose,
}

/// What has been tried for one request.
#[derive(Clone, Debug, Default)]
pub(in crate::upstream) struct Tried {
    /// Those that were refused.
    pub(in crate::upstream) holders: Vec<usize>,
    /// Those that led nowhere.
    pub(in crate::upstream) ways: Vec<usize>,
}

impl Tried {
    /// Returns the same with one holder more.
    pub(in crate::upstream) fn with_holder(&self, holder: usize) -> Self {
        let mut tried = self.clone();
        tried.holders.push(holder);
        tried
    }
}

/// How a way out is at this moment.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::upstream) struct WayNow {
    /// How many answers come by it, or are about to.
    pub(in crate::upstream) load: usize,
    /// How long nothing is sent by it, since nothing comes back.
    pub(in crate::upstream) down: Option<Duration>,
}

/// A lane, and the way to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::upstream) struct Choice {
    pub(super) lane: usize,
    /// Whose token is needed.
    pub(in crate::upstream) holder: usize,
    pub(in crate::upstream) way: usize,
    /// When it was made.
    pub(super) at: Instant,
}

/// Why there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::upstream) enum Closed {
    /// No account is for the repository, and without one nothing is asked.
    Nobody,
    /// The account that is for it does not get in.
    LoggedOut(Arc<str>, Duration),
    /// What is left is kept for what is not cached.
    Reserved,
    /// Nothing comes back by any way out.
    Down(Duration),
    /// The registry wants it no sooner.
    Waits(Duration),
    /// Another request is finding out whether there is more.
    Probed(Duration),
    /// There is nothing that was not tried.
    Tried,
}

impl Lanes {
    /// Chooses, and takes what is chosen: what was closed and may be tried again is tried by this request alone.
    pub(in crate::upstream) fn take(
        &mut self,
        need: &Need<'_>,
        tried: &Tried,
        ways: &[WayNow],
        now: Instant,
    ) -> Result<Choice, Closed> {
        self.move_on(now);
        let choice = self.choose(need, tried, ways, now)?;
        let is_one_of_many = self.holders.len() > 1;
        let (lane, way) = (&mut self.lanes[choice.lane], &mut self.ways[choice.way]);
        way.everything.admit(now).map_err(Closed::Waits)?;
        match need.cost {
            Cost::Counted => lane.counted.admit(now).map_err(Closed::Waits)?,
            Cost::Free | Cost::Other => way.uncounted.admit(now).map_err(Closed::Waits)?,
        }
        if is_one_of_many {
            let holder = &mut self.holders[choice.holder];
            let name = Arc::clone(&holder.name);
            holder.login.admit(now).map_err(|wait| Closed::LoggedOut(name, wait))?;
        }
        match need.cost {
            Cost::Counted => lane.gets += 1,
            Cost::Free => {
                lane.heads += 1;
                if lane.counted.is_closed() {
                    self.next_head = Some(now + HEAD_EVERY);
                }
            }
            Cost::Other => {}
        }
        self.turns += 1;
        way.turn = self.turns;
        Ok(choice)
    }

    /// Chooses. Lets nothing through.
    pub(in crate::upstream) fn choose(
        &self,
        need: &Need<'_>,
        tried: &Tried,
        ways: &[WayNow],
        now: Instant,
    ) -> Result<Choice, Closed> {
        let holders = self.usable(need, tried, now)?;
        if need.cost == Cost::Counted
            && need.purpose == Purpose::Refresh
            && self.thrift(need.repository, now) == Thrift::Low
        {
            return Err(Closed::Reserved);
        }
        let open = self.open_ways(need.cost, tried, ways, now)?;
        let least = |among: &mut dyn Iterator<Item = usize>| {
            among.min_by_key(|way| (ways[*way].load, self.ways[*way].turn))
        };
        let choices = self.lanes.iter().enumerate().filter(|(_, lane)| holders.contains(&lane.holder));
        let choices: Vec<Choice> = choices
            .filter_map(|(at, lane)| {
                let fits = |way: &usize| lane.way.is_none_or(|own| own == *way);
                let way = least(&mut open.iter().copied().filter(fits))?;
                Some(Choice { lane: at, holder: lane.holder, way, at: now })
            })
            .collect();
        let chosen = match need.cost {
            Cost::Counted => self.for_get(&choices, need.repository, now),
            Cost::Free => self.for_head(&choices, need.repository, now),
            Cost::Other => Ok(self.for_other(&choices, need.repository, now).and_then(|holder| {
                let own = choices.iter().filter(|choice| choice.holder == holder);
                let way = least(&mut own.clone().map(|choice| choice.way))?;
                own.clone().find(|choice| choice.way == way).copied()
            })),
        };
        chosen?.ok_or(Closed::Tried)
    }

    /// Returns the ways that a request may go.
    fn open_ways(
        &self,
        cost: Cost,
        tried: &Tried,
        ways: &[WayNow],
        now: Instant,
    ) -> Result<Vec<usize>, Closed> {
        let (mut open, mut rest, mut down) = (Vec::new(), None::<Duration>, None::<Duration>);
        let sooner = |known: Option<Duration>, wait| Some(known.map_or(wait, |known| known.min(wait)));
        for (at, way) in self.ways.iter().enumerate().filter(|(at, _)| !tried.ways.contains(at)) {
            let of_kind = (cost != Cost::Counted).then(|| way.uncounted.closed(now)).flatten();
            match (ways[at].down, way.everything.closed(now).or(of_kind)) {
                (None, None) => open.push(at),
                (Some(wait), _) => down = sooner(down, wait),
                (None, Some(wait)) => rest = sooner(rest, wait),
            }
        }
        match (open.is_empty(), rest, down) {
            (false, ..) => Ok(open),
            (true, Some(wait), _) => Err(Closed::Waits(wait)),
            (true, None, Some(wait)) => Err(Closed::Down(wait)),
            (true, None, None) => Err(Closed::Tried),
        }
    }

    /// Takes what has most left.
    fn for_get(
        &self,
        choices: &[Choice],
        repository: &RepositoryName,
        now: Instant,
    ) -> Result<Option<Choice>, Closed> {
        let closed = |choice: &Choice| self.lanes[choice.lane].counted.closed(now);
        let open: Vec<Choice> = choices.iter().copied().filter(|choice| closed(choice).is_none()).collect();
        if let (true, Some(wait)) = (open.is_empty(), choices.iter().filter_map(closed).min()) {
            let is_probed = choices.iter().any(|choice| self.lanes[choice.lane].counted.is_probed());
            return Err(if is_probed { Closed::Probed(wait) } else { Closed::Waits(wait) });
        }
        Ok(self.most_left(&open, repository, false, now))
    }

    /// Takes what a GET would; where all is spent, what was not heard of for the longest time, and seldom.
    fn for_head(
        &self,
        choices: &[Choice],
        repository: &RepositoryName,
        now: Instant,
    ) -> Result<Option<Choice>, Closed> {
        let is_open = |choice: &Choice| !self.lanes[choice.lane].counted.is_closed();
        let open: Vec<Choice> = choices.iter().copied().filter(is_open).collect();
        if !open.is_empty() {
            return Ok(self.most_left(&open, repository, true, now));
        }
        match self.next_head.filter(|next| now < *next) {
            // What a GET would be told: who asks by HEAD means to GET.
            Some(next) => {
                let waits = choices.iter().filter_map(|choice| self.lanes[choice.lane].counted.closed(now));
                Err(Closed::Waits(waits.min().unwrap_or(next - now)))
            }
            None => Ok(choices.iter().copied().min_by_key(|choice| self.lanes[choice.lane].heard())),
        }
    }

    /// Takes who served the repository before, whose token is at hand; what is spent serves blobs as well.
    fn for_other(&self, choices: &[Choice], repository: &RepositoryName, now: Instant) -> Option<usize> {
        let last = self.memory.last(repository);
        let last = last.filter(|last| choices.iter().any(|choice| choice.holder == *last));
        last.or_else(|| self.most_left(choices, repository, false, now).map(|choice| choice.holder))
    }

    fn most_left(
        &self,
        choices: &[Choice],
        repository: &RepositoryName,
        with_heads: bool,
        now: Instant,
    ) -> Option<Choice> {
        let left = |choice: &Choice| self.rest(choice.lane, with_heads, now);
        let most = |among: &mut dyn Iterator<Item = Choice>| {
            among.max_by_key(|choice| {
                (left(choice), self.holders[choice.holder].is_account, Reverse(choice.lane))
            })
        };
        let best = most(&mut choices.iter().copied())?;
        let last = self.memory.last(repository);
        let same = most(&mut choices.iter().copied().filter(|choice| Some(choice.holder) == last));
        let enough = left(&best) - left(&best) / STAY;
        Some(same.filter(|same| left(same) >= enough).unwrap_or(best))
    }
}
