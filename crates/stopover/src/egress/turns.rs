//! Who may take how many bytes next, where there is a limit to bytes a second.
//!
//! Pure; told the time. All streams of one content have one share together, however many they are, and all shares that
//! want bytes get the same number of them. In any time t no more passes than `rate * t` and a burst. Who comes anew is
//! next; who wants nothing for a while is made up for a few pieces, so that a lone stream which has to write what it got
//! keeps up with many, and for no more.
//!
//! The order is that of start-time fair queueing (Goyal, Vin, Cheng, 1996): each share has a mark, in bytes, where its
//! next piece begins; the lowest mark is next.

use std::{
    cmp::Reverse,
    collections::{HashMap, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

/// How much may pass at once after a pause: what passes in this time.
const BURST: Duration = Duration::from_millis(100);
/// And no less than so many bytes.
const BURST_BYTES_MIN: u64 = 64 << 10;
/// How long a piece is at the most: what passes in this time.
const PIECE: Duration = Duration::from_millis(10);
/// The bounds of that, in bytes: a piece costs a lock and maybe a timer, and is what others wait for.
const PIECE_BYTES: [u64; 2] = [4 << 10, 32 << 10];
/// How many pieces a share may be behind the others and still get them.
const CREDIT_PIECES: u64 = 4;

/// One wish for bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ticket(u64);

/// The shares of one limit.
#[derive(Debug)]
pub(super) struct Turns {
    /// In bytes a second.
    rate: u64,
    /// When all that has passed would be over a line of this rate.
    busy_until: Instant,
    /// The highest mark of a piece that has passed.
    mark: u64,
    shares: HashMap<String, Share>,
    tickets: u64,
    joined: u64,
}

#[derive(Debug)]
struct Share {
    streams: usize,
    /// How many had joined before: the highest came last.
    number: u64,
    /// Where its next piece begins, unless the others are far beyond that already.
    mark: u64,
    waiting: VecDeque<(Ticket, u64)>,
}

/// What may pass now, and what comes after.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Served {
    /// In order.
    pub(super) passed: Vec<Ticket>,
    /// Who is next, and when, if nobody comes before.
    pub(super) next: Option<(Ticket, Instant)>,
}

impl Turns {
    /// Returns a limit of `rate` bytes a second, at least one.
    pub(super) fn new(rate: u64, now: Instant) -> Self {
        Self { rate: rate.max(1), busy_until: now, mark: 0, shares: HashMap::new(), tickets: 0, joined: 0 }
    }

    /// Returns the most bytes that one wish is for.
    pub(super) fn piece_bytes(&self) -> usize {
        let [min, max] = PIECE_BYTES;
        self.bytes_in(PIECE).clamp(min, max) as usize
    }

    /// Says that one more stream of `content` will want bytes.
    pub(super) fn join(&mut self, content: &str) {
        self.joined += 1;
        let begun = || Share { number: self.joined, mark: self.mark, streams: 0, waiting: VecDeque::new() };
        self.shares.entry(content.to_owned()).or_insert_with(begun).streams += 1;
    }

    /// Says that a stream of `content` wants no more; its wishes were withdrawn.
    pub(super) fn leave(&mut self, content: &str) {
        let Some(share) = self.shares.get_mut(content) else { return };
        share.streams = share.streams.saturating_sub(1);
        if share.streams == 0 {
            self.shares.remove(content);
        }
    }

    /// Notes the wish of a stream that has joined, for at most a piece.
    pub(super) fn ask(&mut self, content: &str, bytes: usize) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        if let Some(share) = self.shares.get_mut(content) {
            share.waiting.push_back((ticket, bytes as u64));
        }
        ticket
    }

    /// Takes a wish back, if it waits still.
    pub(super) fn withdraw(&mut self, content: &str, ticket: Ticket) {
        if let Some(share) = self.shares.get_mut(content) {
            share.waiting.retain(|(waiting, _)| *waiting != ticket);
        }
    }

    /// Lets through what may pass now.
    pub(super) fn serve(&mut self, now: Instant) -> Served {
        let mut served = Served::default();
        let (rate, burst_bytes) = (self.rate, self.bytes_in(BURST).max(BURST_BYTES_MIN));
        let burst = time_of(burst_bytes, rate);
        let credit = self.piece_bytes() as u64 * CREDIT_PIECES;
        loop {
            let least = self.mark.saturating_sub(credit);
            let waiting = self.shares.values_mut().filter(|share| !share.waiting.is_empty());
            let next = waiting.min_by_key(|share| (share.mark.max(least), Reverse(share.number)));
            let Some(share) = next else { break };
            let (ticket, bytes) = share.waiting[0];
            let busy_until = self.busy_until.max(now) + time_of(bytes, rate);
            if busy_until > now + burst {
                served.next = Some((ticket, busy_until - burst));
                break;
            }
            self.busy_until = busy_until;
            let mark = share.mark.max(least);
            self.mark = self.mark.max(mark);
            share.mark = mark + bytes;
            share.waiting.pop_front();
            served.passed.push(ticket);
        }
        served
    }

    /// Returns whether no stream is left.
    #[cfg(test)]
    pub(super) fn is_unused(&self) -> bool {
        self.shares.is_empty()
    }

    fn bytes_in(&self, time: Duration) -> u64 {
        (u128::from(self.rate) * time.as_millis() / 1000).try_into().unwrap_or(u64::MAX)
    }
}

/// Returns how long `bytes` take at `rate` bytes a second, rounded up.
fn time_of(bytes: u64, rate: u64) -> Duration {
    let nanoseconds = (u128::from(bytes) * 1_000_000_000).div_ceil(u128::from(rate));
    Duration::from_nanos(nanoseconds.try_into().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u64 = 1_000_000;

    /// Streams that want more a while after they have had something, under a clock that is turned.
    struct Rig {
        turns: Turns,
        begun: Instant,
        now: Instant,
        streams: Vec<Stream>,
        order: Vec<&'static str>,
    }

    struct Stream {
        content: &'static str,
        piece: usize,
        rest: Duration,
        asks_at: Instant,
        ticket: Option<Ticket>,
        had: u64,
    }

    impl Rig {
        fn new(streams: &[(&'static str, usize)]) -> Self {
            let now = Instant::now();
            let mut rig =
                Self { turns: Turns::new(RATE, now), begun: now, now, streams: vec![], order: vec![] };
            streams.iter().for_each(|(content, piece)| rig.add(content, *piece, Duration::ZERO));
            rig
        }

        fn add(&mut self, content: &'static str, piece: usize, rest: Duration) {
            self.turns.join(content);
            self.streams.push(Stream { content, piece, rest, asks_at: self.now, ticket: None, had: 0 });
        }

        /// Lets everybody ask and have, until `time` from the beginning.
        fn run_until(&mut self, time: Duration) {
            let end = self.begun + time;
            while self.now < end {
                let mut next = end;
                for stream in &mut self.streams {
                    if stream.ticket.is_none() && stream.asks_at <= self.now {
                        stream.ticket = Some(self.turns.ask(stream.content, stream.piece));
                    } else if stream.ticket.is_none() {
                        next = next.min(stream.asks_at);
                    }
                }
                let served = self.turns.serve(self.now);
                for passed in &served.passed {
                    let stream = self.streams.iter_mut().find(|stream| stream.ticket == Some(*passed));
                    let stream = stream.expect("somebody asked");
                    (stream.ticket, stream.asks_at) = (None, self.now + stream.rest);
                    stream.had += stream.piece as u64;
                    self.order.push(stream.content);
                }
                match served.next {
                    Some((_, at)) => self.now = next.min(at),
                    None if served.passed.is_empty() => self.now = next,
                    None => {}
                }
            }
        }

        fn had(&self, content: &str) -> u64 {
            self.streams.iter().filter(|stream| stream.content == content).map(|stream| stream.had).sum()
        }
    }

    fn spread(values: &[u64]) -> u64 {
        values.iter().max().expect("some") - values.iter().min().expect("some")
    }

    #[test]
    fn no_more_passes_than_the_rate_and_a_burst() {
        let mut rig = Rig::new(&[("a", 10_000), ("b", 4096), ("b", 10_000), ("c", 100)]);
        for second in 0..20 {
            rig.run_until(Duration::from_secs(second));
            let had: u64 = rig.streams.iter().map(|stream| stream.had).sum();
            assert!(had <= RATE * second + RATE / 10, "{had} after {second} s");
            assert!(had + 10_000 >= RATE * second, "{had} after {second} s: the line is used");
        }
    }

    #[test]
    fn a_burst_is_a_tenth_of_a_second_and_no_less_than_64_kib() {
        for (rate, burst) in [(10_000_000, 1_000_000), (1_000, 65_536)] {
            let now = Instant::now();
            let mut turns = Turns::new(rate, now);
            turns.join("a");
            (0..burst).step_by(4096).for_each(|_| _ = turns.ask("a", 4096));
            assert_eq!(turns.serve(now).passed.len(), burst / 4096, "at {rate}");
        }
    }

    #[test]
    fn a_pause_saves_no_more_than_a_burst() {
        let mut rig = Rig::new(&[("a", 10_000)]);
        rig.run_until(Duration::from_secs(1));
        let before = rig.had("a");
        rig.now += Duration::from_secs(3600);
        rig.begun = rig.now;
        rig.run_until(Duration::from_secs(1));
        assert!(rig.had("a") - before <= RATE + RATE / 10, "{}", rig.had("a") - before);
    }

    #[test]
    fn contents_share_evenly_however_many_streams_they_have_and_however_long_their_pieces_are() {
        let mut streams = vec![("one", 10_000), ("small", 500)];
        streams.extend([("eight", 10_000); 8]);
        let mut rig = Rig::new(&streams);
        let contents = ["one", "small", "eight"];
        rig.run_until(Duration::from_secs(1));
        let after_the_burst = contents.map(|content| rig.had(content));
        assert!(spread(&after_the_burst) <= 100_000, "{after_the_burst:?}");
        rig.run_until(Duration::from_secs(9));
        let each: Vec<_> =
            contents.iter().zip(after_the_burst).map(|(content, before)| rig.had(content) - before).collect();
        assert!(spread(&each) <= 20_000, "{each:?}");
        let of_eight = rig.streams.iter().filter(|stream| stream.content == "eight");
        let of_eight: Vec<_> = of_eight.map(|stream| stream.had).collect();
        assert!(spread(&of_eight) <= 10_000, "its streams take turns: {of_eight:?}");
    }

    #[test]
    fn a_lone_stream_that_writes_between_its_pieces_keeps_up_with_eight() {
        let mut rig = Rig::new(&[("eight", 10_000); 8]);
        rig.add("one", 10_000, Duration::from_millis(15));
        rig.run_until(Duration::from_secs(10));
        let each = [rig.had("one"), rig.had("eight")];
        assert!(spread(&each) <= 200_000, "{each:?}");
    }

    #[test]
    fn who_comes_anew_is_next() {
        let mut rig = Rig::new(&[("a", 10_000), ("b", 10_000), ("c", 10_000)]);
        rig.run_until(Duration::from_secs(2));
        rig.add("new", 10_000, Duration::ZERO);
        let before = rig.order.len();
        rig.run_until(Duration::from_secs(3));
        assert_eq!(rig.order[before], "new");
        let after = |content| rig.order[before..].iter().filter(|had| **had == content).count();
        assert!(after("new").abs_diff(after("a")) <= 2, "and has no more than the others from then on");
    }

    #[test]
    fn who_pauses_is_made_up_for_a_few_pieces() {
        let mut rig = Rig::new(&[("a", 10_000), ("b", 10_000)]);
        rig.run_until(Duration::from_secs(1));
        rig.streams[1].asks_at = rig.begun + Duration::from_secs(5);
        if let Some(ticket) = rig.streams[1].ticket.take() {
            rig.turns.withdraw("b", ticket);
        }
        rig.run_until(Duration::from_secs(5));
        let before = [rig.had("a"), rig.had("b")];
        rig.run_until(Duration::from_secs(7));
        let each = [rig.had("a") - before[0], rig.had("b") - before[1]];
        assert!(spread(&each) <= 60_000, "a few pieces: {each:?}");
    }

    #[test]
    fn what_is_withdrawn_holds_up_nobody() {
        let now = Instant::now();
        let mut turns = Turns::new(RATE, now);
        turns.join("a");
        turns.join("b");
        (0..10).for_each(|_| _ = turns.ask("a", 10_000));
        assert_eq!(turns.serve(now).passed.len(), 10, "the burst is used up");
        let (of_b, of_a) = (turns.ask("b", 10_000), turns.ask("a", 10_000));
        let at = now + Duration::from_millis(10);
        assert_eq!(turns.serve(now).next, Some((of_b, at)));
        turns.withdraw("b", of_b);
        turns.leave("b");
        assert_eq!(turns.serve(now).next, Some((of_a, at)));
        assert_eq!(turns.serve(at), Served { passed: vec![of_a], next: None });
        turns.leave("a");
        assert!(turns.is_unused());
    }
}
