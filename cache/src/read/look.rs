//! What of an object is in the cache, and what a read of the rest would ask of the store: a look, which changes nothing.

use std::ops::Range;

use granary_core::limits::CHUNK_BYTES;
use granary_meta::ObjectInfo;

use super::ReadCache;
use super::disk::ChunkKey;
use super::fetch::RUN_CHUNKS_MAX;
use super::sums::chunk_range;

/// An answer of [`ReadCache::look_up`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Chunks of 1 MiB that are on the node's disk and have some of the bytes, by number.
    pub chunks: Vec<u32>,
    /// Of the bytes, those in them.
    pub cached_bytes: u64,
    /// GETs for the rest, with one for the object's checksums when nothing of it is here; and the payload they bring:
    /// whole chunks.
    pub requests: u64,
    pub fetch_bytes: u64,
}

impl ReadCache {
    /// Where payload bytes `range` of an object are. Asks nobody.
    pub fn look_up(&self, object: &ObjectInfo, range: Range<u64>) -> Look {
        let mut look = Look::default();
        let end = range.end.min(object.payload_len);
        let mut run = 0;
        for index in (range.start / CHUNK_BYTES) as u32..end.div_ceil(CHUNK_BYTES) as u32 {
            let chunk = chunk_range(index, object.payload_len);
            if self.fetcher.disk.contains(ChunkKey { object: object.id, index }) {
                look.cached_bytes += chunk.end.min(end) - chunk.start.max(range.start);
                look.chunks.push(index);
                run = 0;
                continue;
            }
            if run == 0 || run == RUN_CHUNKS_MAX {
                look.requests += 1;
                run = 0;
            }
            run += 1;
            look.fetch_bytes += chunk.end - chunk.start;
        }
        if look.requests > 0 && !self.has_some(object.id) {
            look.requests += 1;
        }
        look
    }
}
