//! What is here: frames in memory, and chunks on disk.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use granary_core::NamespaceId;
use granary_core::limits::FRAME_BYTES;

use super::{Fetcher, frame_number};
use crate::read::disk::ChunkKey;
use crate::read::stats::add;

impl Fetcher {
    /// Bytes `range` of a chunk from memory or disk. Reads of one or two frames leave them in memory.
    pub fn local(&self, ns: NamespaceId, key: ChunkKey, range: &Range<u64>) -> Option<Bytes> {
        let first = (range.start / FRAME_BYTES) as u32;
        let end = range.end.div_ceil(FRAME_BYTES) as u32;
        let (from, len) = ((range.start % FRAME_BYTES) as usize, (range.end - range.start) as usize);
        let (bytes, from_memory) = match end - first {
            1 => self.frame(ns, key, first)?,
            // A small file across a boundary: its neighbours are in the same two frames.
            2 if len <= FRAME_BYTES as usize => {
                let (a, a_from_memory) = self.frame(ns, key, first)?;
                let (b, b_from_memory) = self.frame(ns, key, first + 1)?;
                let joined = [a.get(from..)?, b.get(..len.checked_sub(a.len() - from)?)?].concat();
                self.count_hit(a_from_memory && b_from_memory);
                return Some(joined.into());
            }
            _ => match self.disk.read_frames(ns, key, first..end) {
                Some(bytes) => (bytes, false),
                None => (self.frames_in_memory(key, first..end)?, true),
            },
        };
        if from + len > bytes.len() {
            return None; // the copy is of a shorter object than metadata tells of; the fetch will say so
        }
        self.count_hit(from_memory);
        Some(bytes.slice(from..from + len))
    }

    fn frame(&self, ns: NamespaceId, key: ChunkKey, frame: u32) -> Option<(Bytes, bool)> {
        let number = frame_number(key.index, frame);
        if let Some(bytes) = self.frames.get(key.object, number) {
            self.disk.touch_soon(ns, key, frame);
            return Some((bytes, true));
        }
        let bytes = self.disk.read_frames(ns, key, frame..frame + 1)?;
        self.frames.insert(key.object, number, bytes.clone());
        Some((bytes, false))
    }

    /// Where chunks that the disk did not take are.
    fn frames_in_memory(&self, key: ChunkKey, frames: Range<u32>) -> Option<Bytes> {
        let mut joined = BytesMut::new();
        for frame in frames {
            joined.extend_from_slice(&self.frames.get(key.object, frame_number(key.index, frame))?);
        }
        Some(joined.freeze())
    }

    fn count_hit(&self, from_memory: bool) {
        add(if from_memory { &self.stats.memory_hits } else { &self.stats.disk_hits }, 1);
    }
}
