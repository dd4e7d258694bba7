//! The users of one state of the file, and what is remembered of passwords that were right or wrong for it.
//!
//! What is remembered goes with the file's state: when that is replaced, so is all of this. Nothing is remembered but
//! a keyed hash of what a client sent.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::available_parallelism,
    time::{Duration, Instant},
};

use oci::Digest;
use quick_cache::sync::Cache;
use tokio::{sync::Semaphore, time::timeout};

use super::{
    basic::Credentials,
    file::{Entries, Stamp},
};
use crate::{clock::Clock, flight::Flights, metrics::Metrics};

/// Passwords that wait to be verified, or are being so; further ones are asked to come back.
const WAITING_MAX: usize = 64;
/// How long one waits for its turn.
const TURN_WITHIN: Duration = Duration::from_secs(5);
/// Right and wrong passwords that are remembered, each.
const REMEMBERED_MAX: usize = 10_000;
/// How long a right one is remembered after its last use.
const RIGHT_FOR: Duration = Duration::from_secs(600);
/// How long a wrong one is: a client that keeps on trying it costs next to nothing.
const WRONG_FOR: Duration = Duration::from_secs(30);
/// The cost of the hash for users that there are not, where the file has no user.
const COST_USUAL: u32 = 10;

/// Whether a password is right.
#[derive(Clone, Debug)]
pub(super) enum Verdict {
    /// It is, for this user.
    Right(Arc<str>),
    /// It is not, or there is no such user.
    Wrong,
    /// It was not verified, since too many wait.
    Busy,
}

/// Where passwords are verified, a few at a time.
pub(super) struct Desk {
    /// Places to wait in.
    places: Arc<Semaphore>,
    /// Turns; each takes a core for 50 ms and more, and half of the cores are left to those who pull.
    turns: Semaphore,
    pub(super) clock: Clock,
    metrics: Arc<Metrics>,
}

impl Desk {
    pub(super) fn new(clock: Clock, metrics: Arc<Metrics>) -> Self {
        let cores = available_parallelism().map_or(1, usize::from);
        let (places, turns) = (Arc::new(Semaphore::new(WAITING_MAX)), Semaphore::new((cores / 2).max(1)));
        Self { places, turns, clock, metrics }
    }
}

#[derive(Clone)]
struct Right {
    user: Arc<str>,
    /// Seconds from when the users were read to the last use.
    used: Arc<AtomicU64>,
}

pub(super) struct Users {
    entries: Entries,
    /// What a password for a user that there is not is held against, so that it takes as long.
    nobody: String,
    read_at: Instant,
    right: Cache<Digest, Right>,
    wrong: Cache<Digest, Instant>,
    flights: Arc<Flights<Digest, Verdict>>,
}

impl Users {
    pub(super) fn new(entries: Entries) -> Self {
        let cost = if entries.hashes.is_empty() { COST_USUAL } else { entries.cost_max };
        Self {
            entries,
            nobody: format!("$2b${cost:02}${}", ".".repeat(53)),
            read_at: Instant::now(),
            right: Cache::new(REMEMBERED_MAX),
            wrong: Cache::new(REMEMBERED_MAX),
            flights: Flights::new(),
        }
    }

    pub(super) fn count(&self) -> usize {
        self.entries.hashes.len()
    }

    pub(super) fn stamp(&self) -> Stamp {
        self.entries.stamp
    }

    /// Returns what is remembered of these credentials.
    pub(super) fn recall(&self, key: &Digest, now: Instant) -> Option<Verdict> {
        if let Some(right) = self.right.get(key) {
            let seconds = now.saturating_duration_since(self.read_at).as_secs();
            let used = right.used.load(Ordering::Relaxed);
            if seconds.saturating_sub(used) < RIGHT_FOR.as_secs() {
                right.used.store(seconds, Ordering::Relaxed);
                return Some(Verdict::Right(right.user));
            }
        }
        let is_wrong =
            self.wrong.get(key).is_some_and(|since| now.saturating_duration_since(since) < WRONG_FOR);
        is_wrong.then_some(Verdict::Wrong)
    }

    /// Verifies credentials, once for all who bring the same ones now.
    pub(super) async fn verify(
        self: Arc<Self>,
        key: Digest,
        credentials: Credentials,
        desk: &Arc<Desk>,
    ) -> Verdict {
        let flights = Arc::clone(&self.flights);
        let landed = flights.run(key, || {
            let place = Arc::clone(&desk.places).try_acquire_owned();
            let desk = Arc::clone(desk);
            async move {
                let Ok(_place) = place else { return Verdict::Busy };
                let Ok(Ok(_turn)) = timeout(TURN_WITHIN, desk.turns.acquire()).await else {
                    return Verdict::Busy;
                };
                desk.metrics.access_verifications.inc();
                let users = Arc::clone(&self);
                let verified = tokio::task::spawn_blocking(move || users.compare(&credentials)).await;
                let verdict = verified.unwrap_or(Verdict::Wrong);
                self.remember(key, &verdict, desk.clock.now());
                verdict
            }
        });
        landed.await.map_or(Verdict::Wrong, |landed| landed.value)
    }

    /// Takes 50 ms of a core and more.
    fn compare(&self, Credentials { user, password }: &Credentials) -> Verdict {
        let hash = self.entries.hashes.get(user);
        let is_right = bcrypt::verify(password, hash.unwrap_or(&self.nobody)).unwrap_or(false);
        if is_right && hash.is_some() { Verdict::Right(user.as_str().into()) } else { Verdict::Wrong }
    }

    fn remember(&self, key: Digest, verdict: &Verdict, now: Instant) {
        match verdict {
            Verdict::Right(user) => {
                let used = AtomicU64::new(now.saturating_duration_since(self.read_at).as_secs());
                self.right.insert(key, Right { user: Arc::clone(user), used: Arc::new(used) });
            }
            Verdict::Wrong => self.wrong.insert(key, now),
            Verdict::Busy => {}
        }
    }
}
