//! Who may be asked as: which accounts are for a repository, which get in, and which have seen it.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use oci::RepositoryName;

use super::{super::account::ANONYMOUS, Closed, Entry, Lanes, Need, Throttle, Tried};

/// How long it is believed that a holder does not see a repository.
const UNSEEN_FOR: Duration = Duration::from_secs(5 * 60);
/// How many repositories are remembered.
const KNOWN_MAX: usize = 10_000;

/// An account, or nobody.
#[derive(Debug)]
pub(super) struct Holder {
    pub(super) name: Arc<str>,
    pub(super) is_account: bool,
    repositories: Vec<RepositoryName>,
    /// Closed while the account does not get in.
    pub(super) login: Throttle,
    /// Why it does not.
    pub(super) reason: Option<String>,
    pub(super) has_got_in: bool,
    /// Refusals in a row.
    pub(super) refusals: u32,
}

impl Holder {
    pub(super) fn account(entry: Entry) -> Self {
        Self { is_account: true, repositories: entry.repositories, ..Self::named(entry.name) }
    }

    pub(super) fn nobody() -> Self {
        Self::named(ANONYMOUS.into())
    }

    fn named(name: Arc<str>) -> Self {
        Self {
            name,
            is_account: false,
            repositories: Vec::new(),
            login: Throttle::default(),
            reason: None,
            has_got_in: false,
            refusals: 0,
        }
    }

    /// Returns how many bytes the longest prefix has by which the holder is for a repository; `None` is that it is not,
    /// zero that it is for all.
    fn claim(&self, repository: &RepositoryName) -> Option<usize> {
        if self.repositories.is_empty() {
            return Some(0);
        }
        let claims = self.repositories.iter().filter(|prefix| repository.is_within(prefix));
        claims.map(|prefix| prefix.as_str().len()).max()
    }
}

/// Who served what, and who did not; bounded.
#[derive(Debug, Default)]
pub(super) struct Memory {
    served: HashMap<RepositoryName, usize>,
    unseen: HashMap<(usize, RepositoryName), Instant>,
}

impl Memory {
    /// Notes who served a repository, and so sees it.
    pub(super) fn served(&mut self, repository: &RepositoryName, holder: usize) {
        if !self.unseen.is_empty() {
            self.unseen.remove(&(holder, repository.clone()));
        }
        if self.last(repository) == Some(holder) {
            return;
        }
        if self.served.len() >= KNOWN_MAX {
            self.served.clear();
        }
        self.served.insert(repository.clone(), holder);
    }

    /// Returns who served it last.
    pub(super) fn last(&self, repository: &RepositoryName) -> Option<usize> {
        self.served.get(repository).copied()
    }

    pub(super) fn does_not_see(&mut self, holder: usize, repository: &RepositoryName, now: Instant) {
        if self.unseen.len() >= KNOWN_MAX {
            self.unseen.retain(|_, until| now < *until);
        }
        if self.unseen.len() >= KNOWN_MAX {
            self.unseen.clear();
        }
        self.unseen.insert((holder, repository.clone()), now + UNSEEN_FOR);
    }

    fn forget(&mut self, holder: usize) {
        self.unseen.retain(|(who, _), _| *who != holder);
    }

    fn is_unseen(&self, holder: usize, repository: &RepositoryName, now: Instant) -> bool {
        !self.unseen.is_empty()
            && self.unseen.get(&(holder, repository.clone())).is_some_and(|until| now < *until)
    }
}

impl Lanes {
    /// Returns the holders that are for a repository: the accounts with the longest prefix of its name, or all that are
    /// for any.
    pub(super) fn entitled(&self, repository: &RepositoryName) -> Vec<usize> {
        let claims: Vec<Option<usize>> = self.holders.iter().map(|holder| holder.claim(repository)).collect();
        let longest = claims.iter().flatten().max();
        (0..claims.len()).filter(|at| claims[*at].as_ref() == longest && longest.is_some()).collect()
    }

    /// Returns the holders that a request may go by: entitled, not left out, not tried, and not known to be blind to the
    /// repository. Where all are, one of them may find out.
    pub(in crate::upstream) fn usable(
        &self,
        need: &Need<'_>,
        tried: &Tried,
        now: Instant,
    ) -> Result<Vec<usize>, Closed> {
        let entitled = self.entitled(need.repository);
        if entitled.is_empty() {
            return Err(Closed::Nobody);
        }
        let get_in = |at: &usize| self.left_out(*at, now).is_none();
        let in_: Vec<usize> = entitled.iter().copied().filter(get_in).collect();
        if in_.is_empty() {
            let wait = entitled.iter().filter_map(|at| self.left_out(*at, now)).min();
            let name = Arc::clone(&self.holders[entitled[0]].name);
            return Err(Closed::LoggedOut(name, wait.unwrap_or_default()));
        }
        let sees = |at: &usize| !self.memory.is_unseen(*at, need.repository, now);
        let mut seeing: Vec<usize> = in_.iter().copied().filter(sees).collect();
        if seeing.is_empty() && tried.holders.is_empty() {
            seeing = in_;
        }
        seeing.retain(|at| !tried.holders.contains(at));
        if seeing.is_empty() { Err(Closed::Tried) } else { Ok(seeing) }
    }

    /// Returns whether an account that may see more than nobody does is left to ask.
    pub(in crate::upstream) fn may_see_more(
        &self,
        holder: usize,
        need: &Need<'_>,
        tried: &Tried,
        now: Instant,
    ) -> bool {
        let is_account = |at: &usize| self.holders[*at].is_account;
        !is_account(&holder) && self.usable(need, tried, now).is_ok_and(|left| left.iter().any(is_account))
    }

    /// Returns the accounts that are for a repository and do not get in.
    pub(in crate::upstream) fn logged_out(&self, repository: &RepositoryName) -> Vec<usize> {
        if !self.holders.iter().any(|holder| holder.login.is_closed()) {
            return Vec::new();
        }
        let mut out = self.entitled(repository);
        out.retain(|at| self.holders[*at].login.is_closed());
        out
    }

    /// Notes that an account is proved otherwise by now, so that it may be tried at once.
    pub(in crate::upstream) fn proved_anew(&mut self, holder: usize) {
        self.memory.forget(holder);
        let holder = &mut self.holders[holder];
        holder.login.succeeded();
        (holder.refusals, holder.reason) = (0, None);
    }

    /// Returns how long an account that does not get in is not tried. One that there is nothing beside is never left
    /// out: the registry's refusals are all that there is to tell.
    pub(super) fn left_out(&self, holder: usize, now: Instant) -> Option<Duration> {
        self.holders[holder].login.closed(now).filter(|_| self.holders.len() > 1)
    }
}
