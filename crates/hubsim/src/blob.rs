//! Bytes that are served: either in memory, or a block repeated, so that a blob of gigabytes costs a megabyte.

use bytes::Bytes;

/// The bytes of a blob, a manifest or any other body, in order.
#[derive(Clone, Debug, Default)]
pub struct Blob {
    parts: Vec<Part>,
    size: u64,
}

#[derive(Clone, Debug)]
struct Part {
    block: Bytes,
    /// Bytes in this part: the block's length, or more, where the block is repeated.
    size: u64,
}

impl Blob {
    /// Appends `bytes`.
    #[must_use]
    pub fn then(self, bytes: impl Into<Bytes>) -> Self {
        let block = bytes.into();
        let size = block.len() as u64;
        self.then_repeated(block, size)
    }

    /// Appends `size` bytes that are `block` over and over.
    #[must_use]
    pub fn then_repeated(mut self, block: Bytes, size: u64) -> Self {
        assert!(!block.is_empty() || size == 0, "an empty block cannot fill {size} bytes");
        self.size += size;
        self.parts.push(Part { block, size });
        self
    }

    /// Returns the size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns at most `most` of the bytes that begin at `offset`, without copying; empty only at the end.
    pub fn slice(&self, offset: u64, most: usize) -> Bytes {
        let mut start = offset;
        for part in &self.parts {
            if start >= part.size {
                start -= part.size;
                continue;
            }
            let block_length = part.block.len() as u64;
            let in_block = start % block_length;
            let length = (most as u64).min(part.size - start).min(block_length - in_block);
            return part.block.slice(in_block as usize..(in_block + length) as usize);
        }
        Bytes::new()
    }

    /// Returns the bytes piece by piece.
    pub fn pieces(&self) -> impl Iterator<Item = Bytes> + '_ {
        let mut offset = 0;
        std::iter::from_fn(move || {
            let piece = self.slice(offset, usize::MAX);
            offset += piece.len() as u64;
            (!piece.is_empty()).then_some(piece)
        })
    }
}

impl<T: Into<Bytes>> From<T> for Blob {
    fn from(bytes: T) -> Self {
        Self::default().then(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_of_a_repeated_block_are_the_bytes_at_that_offset() {
        let blob = Blob::default().then("head").then_repeated(Bytes::from_static(b"abc"), 8).then("tail");
        let whole: Vec<u8> = blob.pieces().flatten().collect();
        assert_eq!(whole, b"headabcabcabtail");
        assert_eq!(blob.size(), whole.len() as u64);
        for offset in 0..whole.len() {
            let slice = blob.slice(offset as u64, 2);
            assert!(!slice.is_empty());
            assert_eq!(slice, &whole[offset..offset + slice.len()]);
        }
        assert!(blob.slice(blob.size(), 2).is_empty());
    }
}
