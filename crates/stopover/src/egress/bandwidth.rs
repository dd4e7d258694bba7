//! A limit to the bytes a second that content comes at, shared by streams, and the streams that keep to it.
//!
//! A stream takes a chunk, waits until that may pass each of its limits, and hands it on; meanwhile it reads nothing, so
//! that the sender is slowed down by TCP and nothing but the chunk is held here. No task is needed: whoever is next has
//! the alarm, and whoever passes or leaves wakes the next.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use futures_util::Stream;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    Load,
    turns::{Served, Ticket, Turns},
};

/// A limit in bytes a second.
#[derive(Debug)]
pub struct Bandwidth {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    turns: Turns,
    /// Those who wait, by their wish.
    waiting: HashMap<Ticket, Waker>,
}

impl Bandwidth {
    /// Returns a limit of so many bytes a second, which nobody uses yet.
    pub fn new(bytes_per_second: u64) -> Arc<Self> {
        let turns = Turns::new(bytes_per_second, Instant::now());
        Arc::new(Self { state: Mutex::new(State { turns, waiting: HashMap::new() }) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Lets through what may pass, and returns whom to wake for it once the lock is released: those who passed, and who
    /// is next, to set its alarm; but not `mine`, who is awake.
    fn serve(&mut self, mine: Option<Ticket>) -> (Vec<Waker>, Option<(Ticket, Instant)>) {
        let Served { passed, next } = self.turns.serve(Instant::now());
        let mut wakers = Vec::new();
        for ticket in passed {
            wakers.extend(self.waiting.remove(&ticket).filter(|_| mine != Some(ticket)));
        }
        let other = next.map(|(ticket, _)| ticket).filter(|ticket| mine != Some(*ticket));
        wakers.extend(other.and_then(|ticket| self.waiting.get(&ticket)).cloned());
        (wakers, next)
    }
}

/// A stream's place at a limit.
struct Place {
    bandwidth: Arc<Bandwidth>,
    content: Arc<str>,
    piece_bytes: usize,
    ticket: Option<Ticket>,
    alarm: Pin<Box<Sleep>>,
}

impl Place {
    fn new(bandwidth: &Arc<Bandwidth>, content: &Arc<str>) -> Self {
        let mut state = bandwidth.state();
        state.turns.join(content);
        let piece_bytes = state.turns.piece_bytes();
        drop(state);
        Self {
            bandwidth: Arc::clone(bandwidth),
            content: Arc::clone(content),
            piece_bytes,
            ticket: None,
            alarm: Box::pin(sleep_until(Instant::now())),
        }
    }

    /// Waits until `bytes` may pass; the same number each time until they may.
    fn poll_pass(&mut self, bytes: usize, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let mut state = self.bandwidth.state();
            let mine = match self.ticket {
                // Somebody else's serving let it through.
                Some(ticket) if !state.waiting.contains_key(&ticket) => {
                    self.ticket = None;
                    return Poll::Ready(());
                }
                Some(ticket) => ticket,
                None => state.turns.ask(&self.content, bytes),
            };
            self.ticket = Some(mine);
            state.waiting.insert(mine, cx.waker().clone());
            let (wakers, next) = state.serve(Some(mine));
            let has_passed = !state.waiting.contains_key(&mine);
            drop(state);
            wakers.into_iter().for_each(Waker::wake);
            if has_passed {
                self.ticket = None;
                return Poll::Ready(());
            }
            let Some((_, at)) = next.filter(|(ticket, _)| *ticket == mine) else { return Poll::Pending };
            self.alarm.as_mut().reset(at);
            ready!(self.alarm.as_mut().poll(cx));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.bandwidth.state();
        if let Some(ticket) = self.ticket {
            state.turns.withdraw(&self.content, ticket);
            state.waiting.remove(&ticket);
        }
        state.turns.leave(&self.content);
        let (wakers, _) = state.serve(None);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// A body that keeps to limits, and counts as load of its way out for as long as it lives.
pub struct Shaped<S> {
    body: S,
    /// What came and has not passed yet.
    left: Bytes,
    places: Vec<Place>,
    /// How many limits the next piece has passed.
    passed: usize,
    _load: Option<Load>,
}

impl<S> Shaped<S> {
    /// Returns a body of `content` that keeps to limits; all bodies of the same content have one share together.
    pub(super) fn new<'a>(
        body: S,
        content: &str,
        limits: impl IntoIterator<Item = &'a Arc<Bandwidth>>,
        load: Option<Load>,
    ) -> Self {
        let content = Arc::from(content);
        let places = limits.into_iter().map(|limit| Place::new(limit, &content)).collect();
        Self { body, left: Bytes::new(), places, passed: 0, _load: load }
    }
}

impl<S, E> Stream for Shaped<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
{
    type Item = Result<Bytes, E>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        while this.left.is_empty() {
            match ready!(Pin::new(&mut this.body).poll_next(cx)) {
                Some(Ok(bytes)) => this.left = bytes,
                end => return Poll::Ready(end),
            }
        }
        let piece = this.places.iter().map(|place| place.piece_bytes).min();
        let piece = piece.unwrap_or(usize::MAX).min(this.left.len());
        while let Some(place) = this.places.get_mut(this.passed) {
            ready!(place.poll_pass(piece, cx));
            this.passed += 1;
        }
        this.passed = 0;
        Poll::Ready(Some(Ok(this.left.split_to(piece))))
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, time::Duration};

    use futures_util::{FutureExt, StreamExt, stream};

    use super::*;

    type Chunks = stream::BoxStream<'static, Result<Bytes, Infallible>>;

    /// Returns a body of `count` chunks of 32 KiB that are there at once.
    fn chunks(count: usize) -> Chunks {
        stream::iter(vec![Ok(Bytes::from_static(&[7; 32 << 10])); count]).boxed()
    }

    fn shaped(content: &str, count: usize, limits: &[&Arc<Bandwidth>]) -> Shaped<Chunks> {
        Shaped::new(chunks(count), content, limits.iter().copied(), None)
    }

    async fn len(body: Shaped<Chunks>) -> usize {
        body.map(|chunk| chunk.map_or(0, |bytes| bytes.len()))
            .fold(0, |sum, len| async move { sum + len })
            .await
    }

    #[tokio::test]
    async fn a_body_passes_whole_and_no_faster_than_its_slowest_limit() {
        let (slow, fast) = (Bandwidth::new(2_000_000), Bandwidth::new(1_000_000_000));
        for limits in [vec![&slow, &fast], vec![&fast, &slow], vec![&slow]] {
            let begun = Instant::now();
            assert_eq!(len(shaped("a", 16, &limits)).await, 16 << 15);
            // 512 KiB, of which a burst of 200 kB goes at once.
            assert!(begun.elapsed() >= Duration::from_millis(150), "{:?}", begun.elapsed());
        }
        assert!(slow.state().turns.is_unused() && fast.state().turns.is_unused());
    }

    #[tokio::test]
    async fn without_a_limit_chunks_pass_as_they_come() {
        let mut body = shaped("a", 2, &[]);
        assert_eq!(body.next().await.map(|chunk| chunk.map(|bytes| bytes.len())), Some(Ok(32 << 10)));
    }

    /// So that the wait is no silence of the sender, and no more than the chunk is held.
    #[tokio::test]
    async fn the_sender_is_not_asked_for_more_while_a_chunk_waits() {
        let limit = Bandwidth::new(1);
        let asked = Arc::new(Mutex::new(0));
        let counted = Arc::clone(&asked);
        let body = chunks(100).inspect(move |_| *counted.lock().expect("no panic") += 1);
        let mut body = Shaped::new(body, "a", [&limit], None);
        let mut passed = 0;
        while let Some(Some(Ok(piece))) = body.next().now_or_never() {
            passed += piece.len();
        }
        assert_eq!(passed, 64 << 10, "the burst");
        assert!((0..100).all(|_| body.next().now_or_never().is_none()));
        assert_eq!(*asked.lock().expect("no panic"), 3);
    }

    #[tokio::test]
    async fn all_end_who_wait_for_the_same_limit_while_others_leave() {
        let limit = Bandwidth::new(50_000_000);
        let staying: Vec<_> =
            (0..20).map(|at| tokio::spawn(len(shaped(&format!("{}", at % 7), 16, &[&limit])))).collect();
        for pieces in 0..20 {
            let leaving = shaped(&format!("leaving {pieces}"), 1000, &[&limit]).take(pieces);
            tokio::spawn(leaving.for_each(|_| async {}));
        }
        for task in staying {
            assert_eq!(task.await.expect("no panic"), 16 << 15);
        }
    }

    #[tokio::test]
    async fn a_body_that_is_dropped_in_its_turn_wakes_the_next() {
        let limit = Bandwidth::new(4_000_000);
        assert_eq!(len(shaped("before", 12, &[&limit])).await, 12 << 15, "which uses up the burst");
        let mut first = shaped("first", 1, &[&limit]);
        assert!(first.next().now_or_never().is_none(), "it waits, and has the alarm");
        let second = tokio::spawn(len(shaped("second", 1, &[&limit])));
        tokio::task::yield_now().await;
        drop(first);
        assert_eq!(second.await.expect("no panic"), 32 << 10);
    }
}
