//! When bytes that are asked for are wanted again, for the node that keeps them: computed from the order.
//!
//! Counted is every sample of the order that was not asked for yet, whichever rank or worker has it: those of one machine read through one node. On
//! many machines what another one has next is kept for nothing, as anything else would be.

use std::collections::HashSet;
use std::ops::Range;

use super::ahead::Ahead;
use super::line::Line;
use crate::node::{NEVER, PIECE_BYTES, pieces};
use crate::order::shape::Spot;

/// Samples of a piece that are looked at. All of them, if they are not small: what is at the piece's ends is asked for at other times.
const PROBES_MAX: u64 = 16;

/// Where the loader is: what is asked for with the stretch that begins.
pub(crate) struct Again<'a, T> {
    pub line: &'a Line,
    pub ahead: &'a Ahead<T>,
    /// Places in the endless line of what the stretch asks for.
    pub asked: &'a HashSet<u64>,
    /// The stretch's first position, as a place in the endless line.
    pub now: u64,
    /// The place of the first batch behind the stretch.
    pub end: u64,
    /// Of all ranks and workers of an order.
    pub loaders: u64,
}

impl<T> Again<'_, T> {
    /// Of each piece that a range of a shard touches, after how many mebibytes that this loader reads meanwhile it is wanted again. `bytes`: of
    /// the shard.
    pub fn next(&self, source: usize, shard: u32, bytes: u64, range: &Range<u64>) -> Vec<u32> {
        let stream = self.line.stream();
        let sum = |of: fn(&crate::order::shape::Shape) -> u64| -> u64 {
            (0..stream.sources()).map(|source| of(stream.order(source).shape())).sum()
        };
        let sample_bytes = sum(|shape| shape.bytes()) / sum(|shape| shape.samples()).max(1);
        let piece = |piece: u64| {
            let start = piece * PIECE_BYTES;
            let next = self.piece(source, shard, bytes, start..bytes.min(start + PIECE_BYTES));
            let Some(next) = next else { return NEVER };
            let own =
                u128::from(next - self.now) * u128::from(sample_bytes) / u128::from(self.loaders.max(1));
            u32::try_from(own / u128::from(PIECE_BYTES)).unwrap_or(NEVER).min(NEVER - 1)
        };
        pieces(range).map(piece).collect()
    }

    /// The first place in the endless line of a sample that is at least in part in this range, and was not asked for yet.
    fn piece(&self, source: usize, shard: u32, bytes: u64, range: Range<u64>) -> Option<u64> {
        let stream = self.line.stream();
        let samples = u64::from(stream.order(source).shape().shard_samples(shard));
        if samples == 0 || range.is_empty() {
            return None;
        }
        // Samples lie evenly in their shard, nearly: this decides what is kept, not what is read.
        let sample = |at: u64| (u128::from(at) * u128::from(samples) / u128::from(bytes)) as u64;
        let (first, last) = (sample(range.start), sample(range.end - 1));
        let probes = (last - first + 1).min(PROBES_MAX);
        let probe = |n: u64| first + (last - first) * n / (probes - 1).max(1);
        (0..probes).map(|n| self.sample(source, Spot { shard, sample: probe(n) as u32 })).min()
    }

    fn sample(&self, source: usize, spot: Spot) -> u64 {
        let stream = self.line.stream();
        let next = stream.next_use(source, spot, 0, self.now);
        if self.is_asked(next) { stream.next_use(source, spot, 0, next + 1) } else { next }
    }

    fn is_asked(&self, at: u64) -> bool {
        self.asked.contains(&at)
            || self.ahead.has(at)
            || self.line.place_of(at).is_some_and(|batch| batch < self.end)
    }
}
