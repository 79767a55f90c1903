//! Chunks that people asked to keep. A pin says nothing of whether the chunk is on disk: one that comes later is kept from then on.
//!
//! Pins are counted, since two pinned trees may have files in one pack. They are in memory only: who pins keeps the list, and
//! pins again after a restart.

use std::collections::BTreeMap;
use std::ops::Range;

use granary_core::limits::CHUNK_BYTES;
use granary_core::{Error, Kind, ObjectId, Result};

use super::{ChunkKey, charge, chunk_file};

/// Pinned chunks may take one part in so many of the cache: the rest is for what is read meanwhile.
const SHARE: u64 = 2;

#[derive(Clone, Copy, Debug)]
struct Pin {
    /// How often it was pinned.
    count: u32,
    /// What it takes of the cache; until it is on disk, what a whole chunk takes.
    size: u64,
}

#[derive(Debug)]
pub(super) struct Pins {
    pins: BTreeMap<ChunkKey, Pin>,
    bytes: u64,
    cache_bytes_max: u64,
}

fn keys(object: ObjectId, chunks: Range<u32>) -> impl Iterator<Item = ChunkKey> {
    chunks.filter(|index| *index != ChunkKey::SUMS).map(move |index| ChunkKey { object, index })
}

impl Pins {
    /// Of a cache of so many bytes.
    pub fn new(cache_bytes_max: u64) -> Pins {
        Pins { pins: BTreeMap::new(), bytes: 0, cache_bytes_max }
    }

    /// Bytes that are, or will be, kept for pins.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn keys(&self) -> impl Iterator<Item = &ChunkKey> {
        self.pins.keys()
    }

    pub fn contains(&self, key: &ChunkKey) -> bool {
        self.pins.contains_key(key)
    }

    /// Pins all of them, or none.
    ///
    /// Errors: `NoSpace` when pins would take more than their share of the cache.
    pub fn add(&mut self, object: ObjectId, chunks: Range<u32>) -> Result<()> {
        let whole = charge(CHUNK_BYTES + chunk_file::TRAILER_BYTES_MAX as u64);
        let most = self.cache_bytes_max / SHARE;
        // Not one by one: a range from somewhere else may be of any length.
        let known = self.pins.range(Self::range(object, &chunks)).count() as u64;
        let new = (chunks.len() as u64).saturating_sub(known).saturating_mul(whole);
        if self.bytes.saturating_add(new) > most {
            return Err(Error::new(
                Kind::NoSpace,
                format!(
                    "pinned data may take half of the node's cache, {most} bytes, of which {} are taken, and {new} more are asked \
                     for; unpin something, or raise cache_bytes_max",
                    self.bytes
                ),
            ));
        }
        for key in keys(object, chunks) {
            let bytes = &mut self.bytes;
            let pin = self.pins.entry(key).or_insert_with(|| {
                *bytes += whole;
                Pin { count: 0, size: whole }
            });
            pin.count = pin.count.saturating_add(1);
        }
        Ok(())
    }

    /// Takes one pin off each. Those that have none are left alone.
    pub fn remove(&mut self, object: ObjectId, chunks: Range<u32>) {
        let known: Vec<ChunkKey> =
            self.pins.range(Self::range(object, &chunks)).map(|(key, _)| *key).collect();
        for key in known {
            let Some(pin) = self.pins.get_mut(&key) else { continue };
            pin.count -= 1;
            if pin.count == 0 {
                self.bytes -= pin.size;
                self.pins.remove(&key);
            }
        }
    }

    /// The object is gone, with all pins.
    pub fn forget(&mut self, object: ObjectId) {
        let known: Vec<ChunkKey> =
            self.pins.range(Self::range(object, &(0..u32::MAX))).map(|(key, _)| *key).collect();
        for key in known {
            self.bytes -= self.pins.remove(&key).map_or(0, |pin| pin.size);
        }
    }

    /// The chunk is on disk, where it takes `size`. Whether it is pinned.
    pub fn came(&mut self, key: &ChunkKey, size: u64) -> bool {
        let Some(pin) = self.pins.get_mut(key) else { return false };
        self.bytes = self.bytes - pin.size + size;
        pin.size = size;
        true
    }

    fn range(object: ObjectId, chunks: &Range<u32>) -> Range<ChunkKey> {
        let end = chunks.end.max(chunks.start);
        ChunkKey { object, index: chunks.start }..ChunkKey { object, index: end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: u64 = CHUNK_BYTES + 4096;

    #[test]
    fn they_are_counted_and_bounded() {
        let mut pins = Pins::new(10 * WHOLE);
        let key = |index| ChunkKey { object: ObjectId(1), index };
        pins.add(ObjectId(1), 0..3).unwrap();
        pins.add(ObjectId(1), 2..4).unwrap();
        assert_eq!(pins.bytes(), 4 * WHOLE);
        assert!(pins.came(&key(3), 8192) && !pins.came(&key(4), 8192));
        assert_eq!(pins.bytes(), 3 * WHOLE + 8192);
        let e = pins.add(ObjectId(2), 0..2).unwrap_err();
        assert_eq!(e.kind(), Kind::NoSpace);
        assert!(!pins.contains(&ChunkKey { object: ObjectId(2), index: 0 }), "all or none");
        assert!(pins.add(ObjectId(2), 5..u32::MAX).is_err());
        pins.remove(ObjectId(1), 0..u32::MAX);
        assert_eq!(pins.bytes(), WHOLE, "one was pinned twice");
        assert!(pins.contains(&key(2)) && !pins.contains(&key(1)));
        pins.remove(ObjectId(1), 0..u32::MAX);
        pins.remove(ObjectId(1), 0..u32::MAX);
        assert_eq!(pins.bytes(), 0);
        pins.add(ObjectId(3), 0..5).unwrap();
        pins.forget(ObjectId(3));
        assert_eq!(pins.bytes(), 0);
        pins.add(ObjectId(4), 0..5).unwrap();
    }
}
