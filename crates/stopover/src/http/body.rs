//! The body of a response: bytes in memory, or a blob read piece by piece.

use std::{
    os::unix::fs::FileExt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body::{Frame, SizeHint};

use super::{access::Line, connection::Shared, ghost};
use crate::cache::{BlobReader, Segment};

/// What is handed to hyper at a time where the file itself is sent.
const GHOST_BYTES_MAX: u64 = 8 << 20;
/// What is read at a time where the file has to be read.
const READ_BYTES_MAX: u64 = 256 << 10;
/// A file's part up to this long is read, since that costs less than sendfile.
const SMALL_BYTES_MAX: u64 = 32 << 10;

/// Why a body ends before its length: the connection is then cut, so that the client sees a broken transfer.
pub(super) type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A response's body.
pub(super) struct Body {
    content: Content,
    left: u64,
    line: Option<Box<Line>>,
}

enum Content {
    Memory(Option<Bytes>),
    Pieces { idle: Option<Box<Pieces>>, next: Option<BoxFuture<'static, (Box<Pieces>, Next)>> },
}

type Next = Result<Option<Bytes>, BodyError>;

impl Body {
    /// Returns a body of these bytes.
    pub(super) fn memory(bytes: Bytes) -> Self {
        let left = bytes.len() as u64;
        Self { content: Content::Memory(Some(bytes)), left, line: None }
    }

    /// Returns a body of these pieces, `len` bytes in all.
    pub(super) fn pieces(pieces: Pieces, len: u64) -> Self {
        Self { content: Content::Pieces { idle: Some(Box::new(pieces)), next: None }, left: len, line: None }
    }

    /// Has the line written when the body ends or is given up.
    pub(super) fn log_at_end(&mut self, line: Box<Line>) {
        self.line = Some(line);
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let body = self.get_mut();
        let next = match &mut body.content {
            Content::Memory(bytes) => Ok(bytes.take().filter(|bytes| !bytes.is_empty())),
            Content::Pieces { idle, next } => {
                if let Some(mut pieces) = idle.take() {
                    *next = Some(Box::pin(async move {
                        let next = pieces.next().await;
                        (pieces, next)
                    }));
                }
                let Some(pending) = next else { return Poll::Ready(None) };
                let (pieces, bytes) = ready!(pending.as_mut().poll(context));
                *next = None;
                *idle = Some(pieces);
                bytes
            }
        };
        match next {
            Ok(Some(bytes)) => {
                body.left = body.left.saturating_sub(bytes.len() as u64);
                if let Some(line) = &mut body.line {
                    line.sent(bytes.len() as u64, body.left == 0);
                }
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Ok(None) => Poll::Ready(None),
            Err(error) => {
                if let Some(line) = &mut body.line {
                    line.cut(&error.to_string());
                }
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// Parts of a blob one after another, and what stands between them in a multipart body.
pub(super) struct Pieces {
    parts: std::vec::IntoIter<Piece>,
    reader: Option<BlobReader>,
    /// What is left of the segment being sent.
    segment: Option<(Arc<std::fs::File>, u64, u64)>,
    /// Where ghost bytes can be made, if they can.
    shared: Option<Arc<Shared>>,
}

/// A piece of a body.
pub(super) enum Piece {
    /// Bytes as they are.
    Bytes(Bytes),
    /// A part of a blob.
    Blob(BlobReader),
}

impl Pieces {
    /// Returns the pieces; files are sent as such where `shared` is a connection that knows how.
    pub(super) fn new(parts: Vec<Piece>, shared: Option<Arc<Shared>>) -> Self {
        Self { parts: parts.into_iter(), reader: None, segment: None, shared }
    }

    async fn next(&mut self) -> Next {
        loop {
            if let Some((file, offset, len)) = self.segment.take() {
                return self.take_from_file(file, offset, len).await.map(Some);
            }
            if let Some(reader) = &mut self.reader {
                match reader.next().await? {
                    Some(Segment::Bytes(bytes)) => return Ok(Some(bytes)),
                    Some(Segment::File { file, offset, len }) => self.segment = Some((file, offset, len)),
                    None => self.reader = None,
                }
                continue;
            }
            match self.parts.next() {
                Some(Piece::Bytes(bytes)) => return Ok(Some(bytes)),
                Some(Piece::Blob(reader)) => self.reader = Some(reader),
                None => return Ok(None),
            }
        }
    }

    /// Returns the first bytes of the segment, or what stands for them.
    async fn take_from_file(
        &mut self,
        file: Arc<std::fs::File>,
        offset: u64,
        len: u64,
    ) -> Result<Bytes, BodyError> {
        let ghosts = self.shared.as_ref().filter(|_| len > SMALL_BYTES_MAX).map(|shared| &shared.ghosts);
        let window = len.min(if ghosts.is_some() { GHOST_BYTES_MAX } else { READ_BYTES_MAX });
        if window < len {
            self.segment = Some((Arc::clone(&file), offset + window, len - window));
        }
        let in_memory = ghost::is_in_memory(&file, offset, window);
        if let Some(ghosts) = ghosts {
            if !in_memory {
                read_in(Arc::clone(&file), offset, window).await?;
            }
            if let Some(bytes) = ghosts.stand_for(&file, offset, window as usize) {
                return Ok(bytes);
            }
        }
        let read = move || {
            let mut bytes = vec![0; window as usize];
            file.read_exact_at(&mut bytes, offset).map(|()| Bytes::from(bytes))
        };
        // What is in memory is read in less time than another thread needs to wake up.
        if in_memory { Ok(read()?) } else { Ok(tokio::task::spawn_blocking(read).await??) }
    }
}

/// Reads a part of a file so that the kernel has it in memory: sendfile would block its worker on the disk.
async fn read_in(file: Arc<std::fs::File>, offset: u64, len: u64) -> Result<(), BodyError> {
    const STEP_BYTES: u64 = 64 << 10;
    tokio::task::spawn_blocking(move || {
        let mut buffer = vec![0; STEP_BYTES as usize];
        let (mut at, end) = (offset, offset + len);
        while at < end {
            let step = (end - at).min(STEP_BYTES) as usize;
            file.read_exact_at(&mut buffer[..step], at)?;
            at += step as u64;
        }
        Ok::<_, std::io::Error>(())
    })
    .await??;
    Ok(())
}
