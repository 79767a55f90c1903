//! What comes into the cache and goes out of it without a fetch.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use granary_core::limits::CHUNK_BYTES;
use granary_core::{NamespaceId, ObjectId};

use super::Fetcher;
use crate::read::disk::ChunkKey;
use crate::read::sums::{FrameSums, chunk_range};

impl Fetcher {
    /// Takes an object's chunks that are known to be right: those of `payload`, in parts.
    pub fn insert(&self, ns: NamespaceId, payload: &[Bytes], sums: FrameSums) {
        self.disk.insert_sums(ns, &sums);
        let mut parts = payload.iter().map(|part| &part[..]);
        let mut rest: &[u8] = &[];
        for index in 0..sums.payload_len.div_ceil(CHUNK_BYTES) as u32 {
            let range = chunk_range(index, sums.payload_len);
            let mut want = (range.end - range.start) as usize;
            let mut slices = Vec::new();
            while want > 0 {
                if rest.is_empty() {
                    let Some(part) = parts.next() else { return };
                    rest = part;
                }
                let (now, later) = rest.split_at(rest.len().min(want));
                slices.push(now);
                want -= now.len();
                rest = later;
            }
            let key = ChunkKey { object: sums.object, index };
            self.disk.insert(ns, key, &slices, sums.of_chunk(index), false);
        }
        self.sums().insert(sums.object, Arc::new(sums));
    }

    /// Drops these chunks of an object.
    pub fn evict(&self, object: ObjectId, chunks: Range<u32>) {
        let keys: Vec<ChunkKey> = chunks.map(|index| ChunkKey { object, index }).collect();
        self.frames.remove(object);
        self.disk.forget(&keys);
    }

    /// Drops everything of an object, what is on its way too.
    pub fn remove(&self, object: ObjectId) {
        for (key, flight) in self.flights().iter() {
            if key.object == object {
                flight.removed.store(true, Ordering::SeqCst);
            }
        }
        self.forget(object);
    }

    pub(super) fn forget(&self, object: ObjectId) {
        self.sums().remove(&object);
        self.frames.remove(object);
        self.disk.remove(object);
    }
}
