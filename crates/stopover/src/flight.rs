//! One question asked once: whoever asks while it is being answered waits for the same answer.
//!
//! The answering is a task of its own, so that the first asker leaving takes nothing from the others.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};

type Running<V> = Shared<BoxFuture<'static, Option<V>>>;

/// The questions being answered now.
pub(crate) struct Flights<K, V> {
    running: Mutex<HashMap<K, Running<V>>>,
}

/// An answer, and whether somebody else had asked first.
pub(crate) struct Landed<V> {
    pub(crate) value: V,
    pub(crate) joined: bool,
}

impl<K, V> Default for Flights<K, V> {
    fn default() -> Self {
        Self { running: Mutex::default() }
    }
}

impl<K, V> Flights<K, V>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Returns the answer to `key`: that of a question under way, or of `ask`, which then runs to its end whoever
    /// leaves. `None` where the answering task panicked.
    pub(crate) async fn run<F>(self: &Arc<Self>, key: K, ask: impl FnOnce() -> F) -> Option<Landed<V>>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let (flight, joined) = {
            let mut running = self.lock();
            match running.get(&key) {
                Some(flight) => (flight.clone(), true),
                None => {
                    let flight = self.start(&key, ask());
                    running.insert(key, flight.clone());
                    (flight, false)
                }
            }
        };
        Some(Landed { value: flight.await?, joined })
    }

    fn start(self: &Arc<Self>, key: &K, ask: impl Future<Output = V> + Send + 'static) -> Running<V> {
        let landing = Landing { flights: Arc::clone(self), key: key.clone() };
        let task = tokio::spawn(async move {
            let _landing = landing;
            ask.await
        });
        async move { task.await.ok() }.boxed().shared()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, Running<V>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes the question off the list when its answer is there, or will never be.
struct Landing<K: Eq + Hash, V> {
    flights: Arc<Flights<K, V>>,
    key: K,
}

impl<K: Eq + Hash, V> Drop for Landing<K, V> {
    fn drop(&mut self) {
        self.flights.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_hundred_who_ask_together_ask_once() {
        let flights = Flights::new();
        let asked = Arc::new(AtomicUsize::new(0));
        let (open, gate) = tokio::sync::watch::channel(false);
        let askers: Vec<_> = (0..100)
            .map(|_| {
                let (flights, asked, mut gate) = (Arc::clone(&flights), Arc::clone(&asked), gate.clone());
                tokio::spawn(async move {
                    let answer = flights.run("key", || async move {
                        gate.wait_for(|open| *open).await.expect("the gate outlives the test");
                        asked.fetch_add(1, Ordering::SeqCst)
                    });
                    answer.await.expect("the answer does not panic").joined
                })
            })
            .collect();
        tokio::task::yield_now().await;
        open.send(true).expect("somebody waits");
        let mut joined = 0;
        for asker in askers {
            joined += usize::from(asker.await.expect("an asker does not panic"));
        }
        assert_eq!((asked.load(Ordering::SeqCst), joined), (1, 99));
    }

    #[tokio::test]
    async fn the_first_asker_leaving_takes_nothing_from_the_others() {
        let flights: Arc<Flights<&str, u32>> = Flights::new();
        let (open, mut gate) = tokio::sync::watch::channel(false);
        let first = {
            let flights = Arc::clone(&flights);
            tokio::spawn(async move {
                let answer = flights.run("key", || async move {
                    gate.wait_for(|open| *open).await.expect("the gate outlives the test");
                    7
                });
                answer.await.map(|landed| landed.value)
            })
        };
        tokio::task::yield_now().await;
        first.abort();
        let second = flights.run("key", || async { 8 });
        open.send(true).expect("the answer waits");
        assert_eq!(second.await.map(|landed| landed.value), Some(7));
    }

    #[tokio::test]
    async fn a_panic_ends_the_question_and_the_next_one_is_asked_anew() {
        let flights: Arc<Flights<&str, u32>> = Flights::new();
        let broken = flights.run("key", || async { panic!("as the test wants") });
        assert!(broken.await.is_none());
        assert_eq!(flights.run("key", || async { 8 }).await.map(|landed| landed.value), Some(8));
    }
}
