//! A read's range, cut at the chunks' borders.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use granary_core::ObjectId;
use granary_core::limits::CHUNK_BYTES;

use super::disk::ChunkKey;

/// The chunks that have these bytes.
pub(super) fn chunks_within(range: &Range<u64>) -> Range<u32> {
    if range.start >= range.end {
        return 0..0;
    }
    (range.start / CHUNK_BYTES) as u32..range.end.div_ceil(CHUNK_BYTES) as u32
}

/// A read's range, cut at the chunks' borders, and what was found of each part.
pub(super) struct Parts {
    pub object: ObjectId,
    pub range: Range<u64>,
    pub found: Vec<Option<Bytes>>,
}

impl Parts {
    pub fn of(object: ObjectId, range: &Range<u64>) -> Parts {
        let chunks = match range.is_empty() {
            true => 0,
            false => range.end.div_ceil(CHUNK_BYTES) - range.start / CHUNK_BYTES,
        };
        Parts { object, range: range.clone(), found: vec![None; chunks as usize] }
    }

    pub fn len(&self) -> usize {
        self.found.len()
    }

    pub fn keys(&self) -> impl Iterator<Item = ChunkKey> + '_ {
        (0..self.len()).map(|at| self.at(at).0)
    }

    /// The chunk of a part, and the part's range within the chunk.
    pub fn at(&self, at: usize) -> (ChunkKey, Range<u64>) {
        let index = self.range.start / CHUNK_BYTES + at as u64;
        let begin = index * CHUNK_BYTES;
        let within = self.range.start.max(begin) - begin..self.range.end.min(begin + CHUNK_BYTES) - begin;
        (ChunkKey { object: self.object, index: index as u32 }, within)
    }

    pub fn join(mut self) -> Bytes {
        if let [Some(only)] = &mut self.found[..] {
            return std::mem::take(only);
        }
        let mut out = BytesMut::with_capacity((self.range.end - self.range.start) as usize);
        for part in self.found.iter().flatten() {
            out.extend_from_slice(part);
        }
        debug_assert_eq!(out.len() as u64, self.range.end - self.range.start);
        out.freeze()
    }
}
