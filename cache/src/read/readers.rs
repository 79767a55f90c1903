//! Readers that know their order, and tell when they come to a chunk again: so what is wanted last leaves first
//! ([`policy::wanted`](super::policy)).
//!
//! Their clock is the bytes that all of them read. One that comes back after so many bytes of its own does after as many of each of the others:
//! they train side by side. What a reader says is forgotten when it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use granary_core::ObjectId;

use super::ReadCache;
use super::disk::ChunkKey;

/// All of a node's. Relaxed: numbers that are a little old decide as well.
#[derive(Debug, Default)]
pub(super) struct Readers {
    next_id: AtomicU64,
    /// That there are, and have said something.
    count: AtomicU64,
    read_bytes: AtomicU64,
}

/// One of them.
#[derive(Debug)]
pub struct Reader {
    cache: Arc<ReadCache>,
    id: u64,
    /// 1 once it has said something.
    counted: AtomicU64,
}

/// When the parts of a file that a reader reads now are wanted by it again: for pieces of a mebibyte, from `first`, after how many mebibytes that
/// it reads meanwhile. `u32::MAX`: not in its next epoch, either.
#[derive(Clone, Copy, Debug)]
pub struct NextUse<'a> {
    pub reader: &'a Reader,
    pub first: u64,
    pub after_mib: &'a [u32],
}

const MIB: u64 = 1 << 20;

impl ReadCache {
    /// A reader that will say when it reads chunks again.
    pub fn reader(self: &Arc<Self>) -> Reader {
        let id = self.readers.next_id.fetch_add(1, Ordering::Relaxed);
        Reader { cache: self.clone(), id, counted: AtomicU64::new(0) }
    }
}

impl NextUse<'_> {
    /// The soonest of what is known of these bytes of the file, in bytes.
    fn after(&self, range: std::ops::Range<u64>) -> Option<u64> {
        let pieces = range.start / MIB..range.end.div_ceil(MIB);
        let known = (self.first..).zip(self.after_mib).filter(|(piece, _)| pieces.contains(piece));
        let soonest = known.map(|(_, after)| *after).min()?;
        Some(if soonest == u32::MAX { u64::MAX } else { u64::from(soonest) * MIB })
    }

    /// The reader is about to have so many bytes of a chunk of an object, which is `range` of the file.
    pub(crate) fn tell(&self, object: ObjectId, index: u32, range: std::ops::Range<u64>, bytes: u64) {
        let Some(after) = self.after(range) else { return };
        let readers = &self.reader.cache.readers;
        if self.reader.counted.swap(1, Ordering::Relaxed) == 0 {
            readers.count.fetch_add(1, Ordering::Relaxed);
        }
        let count = readers.count.load(Ordering::Relaxed).max(1);
        let now = readers.read_bytes.fetch_add(bytes, Ordering::Relaxed);
        let at = now.saturating_add(after.saturating_mul(count));
        self.reader.cache.fetcher.disk.want(ChunkKey { object, index }, self.reader.id, at, now);
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if *self.counted.get_mut() > 0 {
            self.cache.readers.count.fetch_sub(1, Ordering::Relaxed);
            self.cache.fetcher.disk.forget_reader(self.id);
        }
    }
}
