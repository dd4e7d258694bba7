//! Sendfile under an unmodified hyper: bytes that are not there, and a connection that knows what they stand for.
//!
//! One range of addresses is reserved for the whole process, with no memory behind it. A response's body yields slices
//! of that range ("ghost bytes"), each standing for a part of a file; [`Connection`], which hyper writes to, knows a
//! slice by its address and sends that part of the file instead, with the head before it in one packet (MSG_MORE).
//! hyper sees nothing but slices, so lengths, back-pressure and keep-alive are its own.
//!
//! Nobody may read the slices: in debug builds the range is not readable, so that a mistake ends at once; in release
//! builds it reads as zeros, which the client's digest refuses. So only a plain HTTP/1 connection gets them, no layer
//! stands between body and connection, and a test sends a blob through and hashes it.
//!
//! This is the one file with `unsafe`.

#![allow(
    unsafe_code,
    reason = "reserving addresses, and asking the kernel what is in memory, have no safe form"
)]

use std::{
    collections::VecDeque,
    fs::File,
    io,
    os::fd::AsRawFd,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use rustix::mm::{MapFlags, ProtFlags};

/// The reserved range's length: far more than one connection has on its way at a time.
const RANGE_BYTES: usize = 8 << 30;

/// The address at which the reserved range begins; `None` where the system would not reserve it.
static RANGE: LazyLock<Option<usize>> = LazyLock::new(|| {
    let readable = if cfg!(debug_assertions) { ProtFlags::empty() } else { ProtFlags::READ };
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
    // SAFETY: a fresh anonymous mapping at an address of the kernel's choice aliases nothing. It is never unmapped.
    let mapped = unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), RANGE_BYTES, readable, flags) };
    mapped.ok().map(|address| address as usize)
});

/// What the ghost bytes of one connection stand for, in the order in which they will be written.
#[derive(Default)]
pub(super) struct Ghosts {
    pieces: Mutex<Pieces>,
}

#[derive(Default)]
struct Pieces {
    queue: VecDeque<Piece>,
    next: usize,
}

struct Piece {
    /// Where in the reserved range the piece begins.
    start: usize,
    len: usize,
    file: Arc<File>,
    offset: u64,
}

/// A part of a file to send.
pub(super) struct Part {
    pub(super) file: Arc<File>,
    pub(super) offset: u64,
    pub(super) len: usize,
}

impl Ghosts {
    /// Returns bytes that stand for `len` bytes from `offset` of the file, to be written to this connection alone and
    /// in the order made; `None` where that cannot be done, and the file must be read instead.
    pub(super) fn stand_for(&self, file: &Arc<File>, offset: u64, len: usize) -> Option<Bytes> {
        let range = (*RANGE)?;
        let mut pieces = self.lock();
        if pieces.next + len > RANGE_BYTES {
            pieces.next = 0;
        }
        let on_their_way: usize = pieces.queue.iter().map(|piece| piece.len).sum();
        if len == 0 || on_their_way + len > RANGE_BYTES / 2 {
            return None;
        }
        let start = pieces.next;
        pieces.next += len;
        pieces.queue.push_back(Piece { start, len, file: Arc::clone(file), offset });
        // SAFETY: the range is mapped for as long as the process lives and `start + len` lies within it. Nobody reads
        // through the slice but by mistake: in debug builds that faults, in release builds it finds zeros, since
        // nothing ever writes there.
        let ghost = unsafe { std::slice::from_raw_parts((range + start) as *const u8, len) };
        Some(Bytes::from_static(ghost))
    }

    /// Returns what a slice stands for; `None` where it is an ordinary one.
    pub(super) fn part(&self, slice: &[u8]) -> Option<io::Result<Part>> {
        let at = position_of(slice)?;
        let mut pieces = self.lock();
        while pieces.queue.front().is_some_and(|piece| at >= piece.start + piece.len || at < piece.start) {
            pieces.queue.pop_front();
        }
        let Some(piece) = pieces.queue.front() else {
            return Some(Err(io::Error::other("a slice of the reserved range stands for nothing")));
        };
        let into = at - piece.start;
        let len = slice.len().min(piece.len - into);
        Some(Ok(Part { file: Arc::clone(&piece.file), offset: piece.offset + into as u64, len }))
    }

    /// Forgets what will not be written any more.
    pub(super) fn clear(&self) {
        self.lock().queue.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Pieces> {
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns whether a slice lies in the reserved range.
pub(super) fn is_ghost(slice: &[u8]) -> bool {
    position_of(slice).is_some()
}

fn position_of(slice: &[u8]) -> Option<usize> {
    let range = (*RANGE)?;
    let at = (slice.as_ptr() as usize).checked_sub(range)?;
    (at < RANGE_BYTES && !slice.is_empty()).then_some(at)
}

/// Returns whether all of a part of a file is in memory, so that sending it does not wait for the disk. Where the
/// kernel does not tell (Linux before 6.5), says yes, as nginx without threads does.
pub(super) fn is_in_memory(file: &File, offset: u64, len: u64) -> bool {
    const CACHESTAT: libc::c_long = 451;
    #[repr(C)]
    struct Range {
        offset: u64,
        len: u64,
    }
    #[repr(C)]
    #[derive(Default)]
    struct Stat {
        cached: u64,
        dirty: u64,
        writeback: u64,
        evicted: u64,
        recently_evicted: u64,
    }
    let range = Range { offset, len };
    let mut stat = Stat::default();
    // SAFETY: the kernel reads `range` and writes `stat`, both of the layout that cachestat(2) wants and alive here.
    let result = unsafe { libc::syscall(CACHESTAT, file.as_raw_fd(), &raw const range, &raw mut stat, 0u32) };
    let page = rustix::param::page_size() as u64;
    let pages = (offset + len).div_ceil(page) - offset / page;
    result != 0 || stat.cached >= pages
}
