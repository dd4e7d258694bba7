//! Single flight: many who want the same thing at once share one piece of work.
//!
//! Whoever is there first starts it, everyone polls it, and it ends when the last of them has gone. So a caller that
//! is dropped breaks nobody, and nothing runs on for nobody. What was found out is not kept here: work that shall be
//! remembered stores its result before it ends and looks there first.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared, WeakShared},
};

type Work<V> = BoxFuture<'static, V>;

/// The work under way, by what it is for.
pub(crate) struct Flights<K, V: Clone>(Mutex<HashMap<K, WeakShared<Work<V>>>>);

impl<K, V: Clone> Default for Flights<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, V: Clone> Flights<K, V> {
    /// Returns the work under way for `key`, or starts it.
    pub(crate) fn join(&self, key: K, start: impl FnOnce() -> Work<V>) -> Shared<Work<V>> {
        let mut flying = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let under_way = flying.get(&key).and_then(WeakShared::upgrade);
        if let Some(flight) = under_way.filter(|flight| flight.peek().is_none()) {
            return flight;
        }
        flying.retain(|_, flight| flight.upgrade().is_some());
        let flight = start().shared();
        flying.insert(key, flight.downgrade().expect("work that was not polled yet has not ended"));
        flight
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn a_hundred_who_ask_at_once_share_one_piece_of_work() {
        let flights = Flights::<&str, u32>::default();
        let started = Arc::new(AtomicU32::new(0));
        let gate = Arc::new(Notify::new());
        let join = || {
            let (started, gate) = (Arc::clone(&started), Arc::clone(&gate));
            flights.join("key", move || {
                Box::pin(async move {
                    gate.notified().await;
                    started.fetch_add(1, Ordering::Relaxed)
                })
            })
        };
        let everyone: Vec<_> = (0..100).map(|_| tokio::spawn(join())).collect();
        gate.notify_one();
        for one in everyone {
            assert_eq!(one.await.expect("no panic"), 0);
        }
        assert_eq!(started.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_leader_that_gives_up_breaks_nobody() {
        let flights = Flights::<&str, u32>::default();
        let gate = Arc::new(Notify::new());
        let work = || {
            let gate = Arc::clone(&gate);
            Box::pin(async move {
                gate.notified().await;
                7_u32
            }) as Work<u32>
        };
        let mut leader = flights.join("key", work);
        assert_eq!((&mut leader).now_or_never(), None);
        let follower = flights.join("key", || unreachable!("the work is under way"));
        drop(leader);
        gate.notify_one();
        assert_eq!(follower.await, 7);
    }

    #[tokio::test]
    async fn work_that_everybody_left_is_started_anew() {
        let flights = Flights::<&str, u32>::default();
        let mut alone = flights.join("key", || Box::pin(std::future::pending()));
        assert_eq!((&mut alone).now_or_never(), None);
        drop(alone);
        assert_eq!(flights.join("key", || Box::pin(async { 1 })).await, 1);
        assert_eq!(flights.join("key", || Box::pin(async { 2 })).await, 2, "ended work is not kept");
    }
}
