//! Lines of several kinds, simulated in steps of ten milliseconds, and fills on them that do as they are told.

use super::*;

const STEP: Duration = Duration::from_millis(10);
const MB: u64 = 1_000_000;

/// What a line is like.
#[derive(Clone, Copy)]
struct Way {
    /// What one connection brings at most, and all together, in bytes a second.
    each: f64,
    all: f64,
    /// How long a request takes until its first byte.
    opening: Duration,
    /// By what part the speed goes up and down.
    noise: f64,
    streams_max: usize,
}

const SLOW_CONNECTIONS: Way =
    Way { each: 4e6, all: f64::INFINITY, opening: Duration::from_millis(160), noise: 0.0, streams_max: 8 };
const ONE_LINE: Way = Way { each: f64::INFINITY, all: 12e6, ..SLOW_CONNECTIONS };

struct SimulatedStream {
    fill: usize,
    left: f64,
    opens_at: Instant,
    flows: bool,
    is_leaving: bool,
}

#[derive(Clone, Copy)]
struct SimulatedFill {
    free: u64,
    left: f64,
}

struct Simulation {
    way: Way,
    line: Line,
    now: Instant,
    fills: Vec<SimulatedFill>,
    streams: Vec<SimulatedStream>,
    requests: usize,
    streams_most: usize,
    chance: u64,
}

impl Simulation {
    fn new(way: Way) -> Self {
        Self {
            way,
            line: Line::new(way.streams_max),
            now: Instant::now(),
            fills: Vec::new(),
            streams: Vec::new(),
            requests: 0,
            streams_most: 0,
            chance: 1,
        }
    }

    /// Fetches these blobs at once, and returns how many seconds that took.
    fn fetch(&mut self, blobs: &[u64]) -> f64 {
        let start = self.now;
        (self.fills, self.requests, self.streams_most) = (Vec::new(), 0, 0);
        for &size in blobs {
            self.line.begin_fill(self.now);
            if size >= SHARED_BLOB_BYTES_MIN {
                self.line.begin_large();
            }
            self.fills.push(SimulatedFill { free: size, left: size as f64 });
            let piece = if size < SHARED_BLOB_BYTES_MIN { None } else { self.line.stretch(self.now, size) };
            self.ask(self.fills.len() - 1, piece);
        }
        while self.fills.iter().any(|fill| fill.left > 0.5) {
            self.step();
            assert!(self.now - start < Duration::from_secs(10_000), "it comes to no end");
        }
        for &size in blobs {
            if size >= SHARED_BLOB_BYTES_MIN {
                self.line.end_large();
            }
            self.line.end_fill();
        }
        assert!(self.streams.is_empty() && self.line.taken == 0 && self.line.flowing == 0);
        (self.now - start).as_secs_f64()
    }

    fn ask(&mut self, fill: usize, piece: Option<u64>) {
        let free = &mut self.fills[fill].free;
        let len = piece.unwrap_or(*free).min(*free);
        *free -= len;
        self.line.take();
        self.requests += 1;
        let opens_at = self.now + self.way.opening;
        self.streams.push(SimulatedStream {
            fill,
            left: len as f64,
            opens_at,
            flows: false,
            is_leaving: false,
        });
    }

    fn step(&mut self) {
        self.now += STEP;
        for stream in self.streams.iter_mut().filter(|stream| !stream.flows && stream.opens_at <= self.now) {
            stream.flows = true;
            self.line.opened(self.now, self.way.opening);
        }
        let flowing = self.streams.iter().filter(|stream| stream.flows).count();
        self.streams_most = self.streams_most.max(flowing);
        self.chance =
            self.chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let noise = 1.0 + self.way.noise * ((self.chance >> 40) as f64 / f64::from(1u32 << 23) - 1.0);
        let each = self.way.each.min(self.way.all / flowing.max(1) as f64) * noise * STEP.as_secs_f64();
        for at in 0..self.streams.len() {
            let stream = &mut self.streams[at];
            if !stream.flows || stream.left <= 0.0 {
                continue;
            }
            let came = each.min(stream.left);
            stream.left -= came;
            let (fill, left) = (stream.fill, stream.left);
            self.fills[fill].left -= came;
            self.line.received(self.now, came as u64);
            if !stream.is_leaving && self.line.is_near_end(self.now, left as u64) {
                stream.is_leaving = true;
                let goes_on = self.line.wants_all();
                self.line.leave();
                let others =
                    self.streams.iter().filter(|other| other.fill == fill && !other.is_leaving).count();
                let free = self.fills[fill].free;
                if free > 0 && others == 0 {
                    self.ask(fill, self.line.stretch(self.now, free));
                } else if free > 0 && goes_on {
                    self.ask(fill, Some(self.line.piece(self.now, free)));
                }
            }
        }
        let ended = |stream: &SimulatedStream| stream.flows && stream.left <= 0.5;
        for stream in self.streams.extract_if(.., |stream| ended(stream)) {
            self.line.closed(self.now);
            if !stream.is_leaving {
                self.line.leave();
            }
        }
        while let Some(fill) = self.fills.iter().position(|fill| fill.free > 0)
            && self.line.wants_more()
            && self.streams.iter().any(|stream| stream.flows)
        {
            self.ask(fill, Some(self.line.piece(self.now, self.fills[fill].free)));
        }
        for fill in 0..self.fills.len() {
            if self.fills[fill].free > 0 && !self.streams.iter().any(|stream| stream.fill == fill) {
                self.ask(fill, self.line.stretch(self.now, self.fills[fill].free));
            }
        }
    }
}

/// Returns the seconds that these blobs take by one stream each.
fn alone(way: Way, blobs: &[u64]) -> f64 {
    Simulation::new(Way { streams_max: 1, ..way }).fetch(blobs)
}

const LAYERS: [u64; 3] = [45 * MB, 45 * MB, 3 * MB];

#[test]
fn slow_connections_are_made_up_for_by_their_number() {
    let mut simulation = Simulation::new(SLOW_CONNECTIONS);
    let (first, then) = (simulation.fetch(&LAYERS), simulation.fetch(&LAYERS));
    let alone = alone(SLOW_CONNECTIONS, &LAYERS);
    assert!(first < alone / 2.0, "{first} against {alone}");
    assert!(then < alone / 3.0, "what was learned is used: {then} against {alone}");
    assert_eq!(simulation.line.proven, 8);
    assert!(simulation.requests <= 40, "{}", simulation.requests);
}

#[test]
fn one_line_for_all_is_left_to_as_many_streams_as_there_must_be() {
    for blobs in [&LAYERS[..], &[45 * MB], &[1000 * MB]] {
        let mut simulation = Simulation::new(ONE_LINE);
        let alone = alone(ONE_LINE, blobs);
        let first = (simulation.fetch(blobs), simulation.requests);
        let then = (simulation.fetch(blobs), simulation.requests);
        assert!(first.0 < alone * 1.03 && then.0 < alone * 1.03, "{first:?} {then:?} against {alone}");
        let requests = blobs.len() + blobs.iter().sum::<u64>() as usize / (40 << 20) + 12;
        assert!(first.1 <= requests && then.1 <= requests, "{first:?} {then:?} of {requests}");
    }
}

#[test]
fn two_short_blobs_are_enough_to_find_out_that_more_streams_bring_nothing() {
    let way = Way { all: 40e6, opening: Duration::from_millis(3), noise: 0.05, streams_max: 16, ..ONE_LINE };
    let mut simulation = Simulation::new(way);
    simulation.fetch(&[40 * MB]);
    simulation.fetch(&[40 * MB]);
    assert!(simulation.line.trial.is_none() && simulation.line.barrier.is_some());
    simulation.fetch(&[40 * MB]);
    assert_eq!(simulation.requests, 1);
}

#[test]
fn pieces_are_short_while_it_is_tried_whether_more_streams_bring_more() {
    let mut line = Line::new(8);
    let mut now = Instant::now();
    line.begin_fill(now);
    line.begin_large();
    line.take();
    line.opened(now, Duration::from_millis(1));
    while line.trial.is_none() {
        now += STEP;
        line.received(now, 40 * MB / 100);
    }
    assert_eq!(
        line.piece(now, 400 * MB),
        PIECE_BYTES_MIN,
        "half of the blob would come in one burst at its end"
    );
    line.trial = None;
    assert_eq!(line.piece(now, 400 * MB), PIECE_BYTES_MAX);
}

#[test]
fn a_line_that_holds_some_connections_gets_about_so_many() {
    let way = Way { all: 16e6, ..SLOW_CONNECTIONS };
    let mut simulation = Simulation::new(way);
    simulation.fetch(&[400 * MB]);
    assert!((3..=5).contains(&simulation.line.proven), "{}", simulation.line.proven);
    let took = simulation.fetch(&[400 * MB]);
    assert!(took < 30.0, "{took} where 25 are possible");
}

#[test]
fn noise_does_not_hide_what_is_gained() {
    let way = Way { noise: 0.5, ..SLOW_CONNECTIONS };
    let mut simulation = Simulation::new(way);
    let (took, alone) = (simulation.fetch(&[200 * MB]), alone(way, &[200 * MB]));
    assert!(took < alone / 3.0, "{took} against {alone}");
}

#[test]
fn a_fast_line_is_asked_little() {
    let way = Way { each: 500e6, all: 500e6, opening: Duration::from_millis(1), ..SLOW_CONNECTIONS };
    let mut simulation = Simulation::new(way);
    for (size, requests_max) in [(45 * MB, 2), (3000 * MB, 3)] {
        let took = simulation.fetch(&[size]);
        assert!(took <= alone(way, &[size]) + 0.1, "{took}");
        assert!(
            simulation.requests <= requests_max && simulation.streams_most <= 2,
            "{}",
            simulation.requests
        );
    }
}

#[test]
fn many_fills_have_one_stream_each() {
    let mut simulation = Simulation::new(SLOW_CONNECTIONS);
    simulation.fetch(&[45 * MB]);
    simulation.fetch(&[45 * MB; 20]);
    // The first of them begin before there are many.
    assert!(simulation.requests <= 30, "{}", simulation.requests);
    assert!(simulation.line.stretch(simulation.now, 45 * MB).is_some(), "now there are none");
}

#[test]
fn a_registry_that_refuses_a_second_stream_or_ranges_is_asked_for_the_whole() {
    let now = Instant::now();
    let mut refusing = Line::new(8);
    refusing.begin_fill(now);
    refusing.begin_large();
    assert_eq!(refusing.stretch(now, 45 * MB), Some(PIECE_BYTES_MIN));
    refusing.refused(now);
    assert_eq!(refusing.stretch(now, 45 * MB), None);
    assert!(!refusing.wants_more() || refusing.taken == 0);
    let much_later = now + REFUSED_REST;
    assert_eq!(refusing.stretch(much_later, 45 * MB), Some(PIECE_BYTES_MIN));

    let mut ignoring = Line::new(8);
    ignoring.begin_fill(now);
    ignoring.ignores_ranges();
    assert_eq!(ignoring.stretch(now, 900 * MB), None);
    assert!(!ignoring.wants_more() && !ignoring.wants_all());
}

#[test]
fn where_the_operator_allows_one_stream_there_is_one() {
    let now = Instant::now();
    let mut line = Line::new(1);
    line.begin_fill(now);
    assert_eq!(line.stretch(now, 900 * MB), None);
    assert!(!line.wants_more());
}

#[test]
fn what_was_learned_is_forgotten_after_a_long_pause() {
    let mut simulation = Simulation::new(SLOW_CONNECTIONS);
    simulation.fetch(&[200 * MB]);
    assert!(simulation.line.proven > 4);
    simulation.now += LEARNED_TTL * 2;
    simulation.line.begin_fill(simulation.now);
    assert_eq!(simulation.line.proven, 1);
}
