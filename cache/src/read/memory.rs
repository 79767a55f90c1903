//! The few frames read last, verified, in memory: the neighbours of a small file are read next, and share its frame.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use granary_core::ObjectId;
use granary_core::limits::FRAME_BYTES;

use super::lru::Lru;

/// Shards, so that readers on many processors rarely meet.
const SHARDS: usize = 8;

/// Frames of 64 KiB by object and number in the object. Each shard's lock guards its table for a lookup's time.
#[derive(Debug)]
pub(crate) struct MemoryFrames {
    shards: Vec<Mutex<Lru<(ObjectId, u32), Bytes>>>,
}

impl MemoryFrames {
    pub fn new(bytes_max: u64) -> MemoryFrames {
        let each = (bytes_max / FRAME_BYTES) as usize / SHARDS;
        MemoryFrames { shards: (0..SHARDS).map(|_| Mutex::new(Lru::new(each))).collect() }
    }

    fn shard(&self, object: ObjectId, frame: u32) -> MutexGuard<'_, Lru<(ObjectId, u32), Bytes>> {
        // The id's low bits are random; neighbouring frames go to different shards.
        let at = (object.0 as usize).wrapping_add(frame as usize) % SHARDS;
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn get(&self, object: ObjectId, frame: u32) -> Option<Bytes> {
        self.shard(object, frame).get(&(object, frame)).cloned()
    }

    /// `bytes` must be a buffer of its own, not a slice that keeps a larger one alive.
    pub fn insert(&self, object: ObjectId, frame: u32, bytes: Bytes) {
        let old = self.shard(object, frame).insert((object, frame), bytes);
        drop(old);
    }

    pub fn remove(&self, object: ObjectId) {
        for shard in &self.shards {
            shard.lock().unwrap_or_else(PoisonError::into_inner).retain(|(id, _)| *id != object);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_and_forgets_an_object() {
        let frames = MemoryFrames::new(16 * FRAME_BYTES);
        for frame in 0..100 {
            frames.insert(ObjectId(1), frame, Bytes::from_static(b"x"));
            frames.insert(ObjectId(2), frame, Bytes::from_static(b"y"));
        }
        assert_eq!(frames.shards.iter().map(|s| s.lock().unwrap().len()).sum::<usize>(), 16);
        assert_eq!(frames.get(ObjectId(2), 99).unwrap(), "y");
        frames.remove(ObjectId(2));
        assert!(frames.get(ObjectId(2), 99).is_none());
        assert!(frames.get(ObjectId(1), 99).is_some());
    }
}
