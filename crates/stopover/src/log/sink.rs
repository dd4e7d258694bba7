//! Where lines go: a bounded buffer that never makes its writers wait, and one thread that empties it.
//!
//! It promises that writing a line takes no longer than copying it, whatever stands behind the log; that lines over the
//! bound are dropped and counted, whole; and that what is in the buffer is written before [`Sink::flush`] returns, if
//! that can be had in time. It does not know what stands in a line.

use std::{
    cell::RefCell,
    io::{ErrorKind, Write},
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use prometheus_client::metrics::counter::Counter;

/// What may wait to be written; as much again may be on its way.
const BYTES_MAX: usize = 1 << 20;
/// How long the thread lets lines gather after the first, so that it is woken for hundreds and not for each.
const GATHER: Duration = Duration::from_millis(5);
/// The bytes that end the gathering early.
const GATHER_BYTES: usize = BYTES_MAX / 4;
/// How long to wait before trying again where whoever reads the log is not ready and will not block.
const NOT_READY: Duration = Duration::from_millis(5);
/// How much a thread keeps between two lines, in bytes.
const SCRATCH_BYTES_MAX: usize = 16 << 10;

thread_local! {
    /// Each thread writes its line here first, so that the lock is held for a copy only.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The way to the log; clones share it.
#[derive(Clone)]
pub(super) struct Sink(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Something is there to be written, or it is urgent now.
    wake: Condvar,
    /// All is written.
    idle: Condvar,
    dropped: Counter,
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    writing: bool,
    urgent: bool,
}

impl Sink {
    /// Starts the thread that writes to `out`, for the rest of the process. Lines over the bound count in `dropped`.
    pub(super) fn start(out: impl Write + Send + 'static, dropped: Counter) -> std::io::Result<Self> {
        let shared =
            Arc::new(Shared { state: Mutex::default(), wake: Condvar::new(), idle: Condvar::new(), dropped });
        let theirs = Arc::clone(&shared);
        thread::Builder::new().name("log".to_owned()).spawn(move || theirs.write_for_ever(out))?;
        Ok(Self(shared))
    }

    /// Adds the line that `write` writes, its newline included; drops it where the buffer is full.
    pub(super) fn line(&self, write: impl FnOnce(&mut Vec<u8>)) {
        SCRATCH.with(|scratch| match scratch.try_borrow_mut() {
            Ok(mut scratch) => {
                scratch.clear();
                write(&mut scratch);
                self.add(&scratch);
                scratch.shrink_to(SCRATCH_BYTES_MAX);
            }
            // A line that is written while another is being made, by a `Display` that logs.
            Err(_) => {
                let mut line = Vec::new();
                write(&mut line);
                self.add(&line);
            }
        });
    }

    /// Waits until all lines are written, at most `patience`. Returns whether they are.
    pub(super) fn flush(&self, patience: Duration) -> bool {
        let mut state = self.0.lock();
        state.urgent = true;
        self.0.wake.notify_one();
        let busy = |state: &mut State| state.writing || !state.waiting.is_empty();
        let waited = self.0.idle.wait_timeout_while(state, patience, busy);
        let (mut state, result) = waited.unwrap_or_else(PoisonError::into_inner);
        state.urgent = false;
        !result.timed_out()
    }

    fn add(&self, line: &[u8]) {
        let mut state = self.0.lock();
        let before = state.waiting.len();
        if before + line.len() > BYTES_MAX {
            drop(state);
            self.0.dropped.inc();
            return;
        }
        state.waiting.extend_from_slice(line);
        let gathered = before < GATHER_BYTES && state.waiting.len() >= GATHER_BYTES;
        drop(state);
        if before == 0 || gathered {
            self.0.wake.notify_one();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_for_ever(&self, mut out: impl Write) {
        let mut lines = Vec::new();
        loop {
            let mut state = self.lock();
            state.writing = false;
            while state.waiting.is_empty() {
                self.idle.notify_all();
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            let few = |state: &mut State| !state.urgent && state.waiting.len() < GATHER_BYTES;
            let waited = self.wake.wait_timeout_while(state, GATHER, few);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
            mem::swap(&mut state.waiting, &mut lines);
            state.writing = true;
            drop(state);
            write_all(&mut out, &lines);
            lines.clear();
        }
    }
}

/// Writes all of `lines`, or gives up where nobody will ever read them: there is nowhere left to say so.
fn write_all(out: &mut impl Write, mut lines: &[u8]) {
    while !lines.is_empty() {
        match out.write(lines) {
            Ok(0) => return,
            Ok(written) => lines = &lines[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(NOT_READY),
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::mpsc::{Receiver, Sender, channel},
    };

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// Hands over what is written, and waits before each write where told to.
    struct Out {
        written: Sender<Vec<u8>>,
        gate: Option<Receiver<()>>,
    }

    impl Write for Out {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if let Some(gate) = &self.gate {
                gate.recv().map_err(io::Error::other)?;
            }
            self.written.send(bytes.to_owned()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_of_all_threads_arrive_whole_and_in_their_order() {
        let (written, arrived) = channel();
        let sink = Sink::start(Out { written, gate: None }, Counter::default()).unwrap();
        thread::scope(|scope| {
            for name in 0..4u8 {
                let sink = &sink;
                scope.spawn(move || {
                    for number in 0..1_000 {
                        sink.line(|out| writeln!(out, "{name} {number}").unwrap());
                    }
                });
            }
        });
        assert!(sink.flush(LONG));
        let text = String::from_utf8(arrived.try_iter().flatten().collect()).unwrap();
        for name in 0..4u8 {
            let theirs: Vec<&str> =
                text.lines().filter_map(|line| line.strip_prefix(&format!("{name} "))).collect();
            assert_eq!(theirs, (0..1_000).map(|number: u32| number.to_string()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_reader_that_stands_still_costs_lines_not_time() {
        let (written, arrived) = channel();
        let (open, gate) = channel();
        let dropped = Counter::default();
        let sink = Sink::start(Out { written, gate: Some(gate) }, dropped.clone()).unwrap();
        let line = [b'x'; 1 << 10];
        let lines = 4 * BYTES_MAX / line.len();
        for _ in 0..lines {
            sink.line(|out| out.extend_from_slice(&line));
        }
        assert!(!sink.flush(Duration::ZERO));
        // The buffer is full and, at most, one more is on its way.
        let kept = usize::try_from(lines as u64 - dropped.get()).unwrap() * line.len();
        assert!((BYTES_MAX..=2 * BYTES_MAX).contains(&kept), "{kept}");

        drop((0..8).map(|_| open.send(())).collect::<Vec<_>>());
        assert!(sink.flush(LONG));
        assert_eq!(arrived.try_iter().map(|bytes| bytes.len()).sum::<usize>(), kept);
        sink.line(|out| out.extend_from_slice(b"on again\n"));
        assert!(sink.flush(LONG));
        assert_eq!(arrived.try_iter().last().unwrap(), b"on again\n");
    }

    #[test]
    fn a_log_that_nobody_reads_any_more_is_written_to_all_the_same() {
        let (written, arrived) = channel();
        drop(arrived);
        let sink = Sink::start(Out { written, gate: None }, Counter::default()).unwrap();
        for _ in 0..3 {
            sink.line(|out| out.push(b'\n'));
            assert!(sink.flush(LONG));
        }
    }
}
