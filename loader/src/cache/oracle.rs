//! When a chunk is wanted next: computed from the order.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use super::evict::Wanted;
use super::{CHUNK_BYTES, shard_folder};
use crate::order::shape::Spot;
use crate::order::stream::Stream;
use crate::source::Source;

/// Samples of a chunk that are looked at: of runs that a chunk has parts of, the first, the last and some between.
const PROBES: u64 = 4;

#[derive(Debug)]
pub(crate) struct Oracle {
    stream: Stream,
    /// Source and shard, and the shard's bytes, by its folder in the cache.
    shards: HashMap<String, (usize, u32, u64)>,
    /// What was begun: epoch and position.
    now: (AtomicU64, AtomicU64),
}

impl Oracle {
    pub fn new(stream: Stream, sources: &[Source]) -> Oracle {
        let mut shards = HashMap::new();
        for (source, of) in sources.iter().enumerate() {
            let id = of.manifest().data_set();
            for (number, shard) in (0..).zip(of.manifest().shards()) {
                shards.insert(shard_folder(&id, shard), (source, number, shard.bytes));
            }
        }
        Oracle { stream, shards, now: Default::default() }
    }

    /// Batches up to a position were begun.
    pub fn begun(&self, epoch: u64, position: u64) {
        self.now.0.store(epoch, Ordering::Relaxed);
        self.now.1.store(position, Ordering::Relaxed);
    }

    /// `age_s`: of one that is not of this loader's data sets.
    pub fn wanted(&self, folder: &str, chunk: u64, age_s: u64) -> Wanted {
        let Some(&(source, shard, bytes)) = self.shards.get(folder) else { return Wanted::Never { age_s } };
        let start = chunk.saturating_mul(CHUNK_BYTES);
        self.next(source, shard, bytes, start..bytes.min(start + CHUNK_BYTES))
    }

    fn next(&self, source: usize, shard: u32, bytes: u64, range: Range<u64>) -> Wanted {
        let samples = u64::from(self.stream.order(source).shape().shard_samples(shard));
        if samples == 0 || range.is_empty() {
            return Wanted::Never { age_s: u64::MAX };
        }
        let (epoch, position) = (self.now.0.load(Ordering::Relaxed), self.now.1.load(Ordering::Relaxed));
        // Samples lie evenly in their shard, nearly: this decides what is kept, not what is read.
        let sample = |at: u64| (u128::from(at) * u128::from(samples) / u128::from(bytes)) as u64;
        let (first, last) = (sample(range.start), sample(range.end - 1));
        let probes = (0..PROBES).map(|n| first + (last - first) * n / (PROBES - 1));
        let next = probes.map(|sample| {
            self.stream.next_use(source, Spot { shard, sample: sample as u32 }, epoch, position)
        });
        next.min().map_or(Wanted::Never { age_s: u64::MAX }, Wanted::At)
    }
}
