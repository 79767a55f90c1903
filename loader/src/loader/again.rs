//! When bytes that are asked for are wanted again, for the node that keeps them: computed from the order.
//!
//! Counted is every sample of the order that was not asked for yet, whichever rank or worker has it: those of one machine read through one node. On
//! many machines what another one has next is kept for nothing, as anything else would be.

use std::collections::HashSet;
use std::ops::Range;

use granary_core::Result;
use granary_packer::index::Index;

use super::ahead::Ahead;
use super::line::Line;
use crate::node::{NEVER, PIECE_BYTES, pieces};
use crate::order::shape::Spot;

/// Samples of a piece that are looked at. All of them, if they are not small: what is at the piece's ends is asked for at other times.
const PROBES_MAX: u32 = 16;

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
    /// Of each piece that a range of a shard touches, after how many mebibytes that this loader reads meanwhile it is wanted again. `spots`: of
    /// the samples of a piece.
    pub fn next(
        &self,
        source: usize,
        range: &Range<u64>,
        spots: impl Fn(Range<u64>) -> Vec<Spot>,
    ) -> Vec<u32> {
        let stream = self.line.stream();
        let sum = |of: fn(&crate::order::shape::Shape) -> u64| -> u64 {
            (0..stream.sources()).map(|source| of(stream.order(source).shape())).sum()
        };
        let sample_bytes = sum(|shape| shape.bytes()) / sum(|shape| shape.samples()).max(1);
        let piece = |piece: u64| {
            let start = piece * PIECE_BYTES;
            let next =
                spots(start..start + PIECE_BYTES).into_iter().map(|spot| self.sample(source, spot)).min();
            let Some(next) = next else { return NEVER };
            let own =
                u128::from(next - self.now) * u128::from(sample_bytes) / u128::from(self.loaders.max(1));
            u32::try_from(own / u128::from(PIECE_BYTES)).unwrap_or(NEVER).min(NEVER - 1)
        };
        pieces(range).map(piece).collect()
    }

    /// The first place in the endless line where a sample comes that was not asked for yet.
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

/// Samples of a shard that are at least in part in this range of it; of many, some that are spread over it.
///
/// Errors: as [`Index::sample_span`].
pub(crate) fn samples_in(index: &Index, range: &Range<u64>) -> Result<Vec<u32>> {
    // The first for which it is true; spans are in order.
    let first = |is: &dyn Fn(Range<u64>) -> bool| -> Result<u32> {
        let (mut low, mut high) = (0, index.sample_count());
        while low < high {
            let middle = low + (high - low) / 2;
            match is(index.sample_span(middle)?) {
                true => high = middle,
                false => low = middle + 1,
            }
        }
        Ok(low)
    };
    let begin = first(&|span| span.end > range.start)?;
    let end = first(&|span| span.start >= range.end)?.max(begin);
    let probes = (end - begin).min(PROBES_MAX);
    let steps = u64::from(probes.max(2) - 1);
    Ok((0..probes).map(|n| begin + (u64::from(n) * u64::from(end - begin - 1) / steps) as u32).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use granary_packer::index::{Builder, NewFile};
    use granary_packer::key::Grouping;

    use super::*;
    use crate::loader::ahead::Wish;
    use crate::options::Options;
    use crate::order::shape::Shape;
    use crate::order::shuffle::{Method, Shuffle};
    use crate::order::stream::{Stream, StreamOptions};

    const SHARDS: u32 = 5;
    const SAMPLES: u32 = 40;
    const SAMPLE_BYTES: u64 = 100 << 10;

    fn line(options: &Options) -> Line {
        let shape = Shape::new(vec![(SAMPLES, u64::from(SAMPLES) * SAMPLE_BYTES); SHARDS as usize], b"");
        let of_stream = StreamOptions {
            shuffle: options.shuffle,
            seed: options.seed,
            batch: options.batch_samples,
            weights: Vec::new(),
            epoch_samples: None,
        };
        Line::new(Stream::new(vec![Arc::new(shape.unwrap())], &of_stream).unwrap(), options).unwrap()
    }

    /// Every place of the line before `end` with a sample of these of a shard.
    fn places(line: &Line, shard: u32, samples: &Range<u32>, end: u64) -> Vec<u64> {
        let at = |place: u64| {
            let len = line.stream().epoch_samples();
            line.stream().picks(place / len, place % len..place % len + 1)[0].spot
        };
        (0..end).filter(|&place| at(place).shard == shard && samples.contains(&at(place).sample)).collect()
    }

    #[test]
    fn what_is_said_is_when_a_sample_that_was_not_asked_for_comes_first() {
        for (ranks, part_bytes) in [(1, 0), (1, 300 << 10), (2, 300 << 10)] {
            let shuffle = Shuffle { run_bytes: 1 << 20, lanes: 2, mix_samples: 4, ..Method::Window.into() };
            let options = Options { batch_samples: 8, shuffle, ranks, ..Options::default() };
            let line = line(&options);
            let epoch = line.stream().epoch_samples();
            let every: Vec<Vec<u64>> = (0..SHARDS * SAMPLES)
                .map(|n| places(&line, n / SAMPLES, &(n % SAMPLES..n % SAMPLES + 1), 3 * epoch))
                .collect();
            let mut ahead: Ahead<()> = Ahead::new(vec![part_bytes], 20);
            let (mut asked, mut near, mut far) = (HashSet::new(), 0, 0);
            for place in 0..2 * line.epoch_end() - 1 {
                let step = ahead.begin(&line, place..place + 1);
                asked.extend(step.asked.iter().copied());
                let part = line.part(place);
                let now = line.stream().place(part.epoch, part.positions.start);
                let again = Again {
                    line: &line,
                    ahead: &ahead,
                    asked: &step.asked,
                    now,
                    end: place + 1,
                    loaders: u64::from(ranks),
                };
                for Wish { spot, .. } in &step.wishes[0] {
                    // Ten samples and a part of another.
                    let start = u64::from(spot.sample / 10) * 10 * SAMPLE_BYTES;
                    let range = start..(start + 10 * SAMPLE_BYTES + 1).min(u64::from(SAMPLES) * SAMPLE_BYTES);
                    let samples = range.start / SAMPLE_BYTES..range.end.div_ceil(SAMPLE_BYTES);
                    let all = samples.flat_map(|n| &every[(u64::from(spot.shard * SAMPLES) + n) as usize]);
                    let first = all.filter(|at| **at >= now && !asked.contains(at)).min();
                    let spots = (range.start / SAMPLE_BYTES..range.end.div_ceil(SAMPLE_BYTES))
                        .map(|n| Spot { shard: spot.shard, sample: n as u32 });
                    let said = spots.clone().map(|spot| again.sample(0, spot)).min().unwrap();
                    assert_eq!(Some(&said), first, "place {place}");
                    let mib = again.next(0, &range, |_| spots.clone().collect());
                    let own = (said - now) * SAMPLE_BYTES / u64::from(ranks) / PIECE_BYTES;
                    assert_eq!(mib, vec![own as u32; (pieces(&range).end - pieces(&range).start) as usize]);
                    if said < (part.epoch + 1) * epoch { near += 1 } else { far += 1 }
                }
                for wish in &step.wishes[0][step.own[0]..] {
                    ahead.keep(wish, ());
                }
            }
            assert!(near > 0 && far > 0, "{near} {far}");
        }
    }

    #[test]
    fn samples_of_a_range_are_those_that_touch_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut builder = Builder::new(Grouping::Stem, dir.path());
        let mut starts = vec![];
        for n in 0..50_u64 {
            let offset = 512 + n * 1024 + n / 10 * 512 * 100;
            starts.push(offset);
            let (length, path) = (700, format!("{n:03}.bin"));
            let (path, crc32c, mode, mtime, uid, gid) = (path.as_bytes(), 0, 0o644, 0, 0, 0);
            builder.push(&NewFile { path, offset, length, crc32c, mode, mtime, uid, gid }).unwrap();
        }
        let sealed = builder.seal(1 << 20).unwrap();
        let index = Index::from_bytes(sealed.to_bytes().unwrap()).unwrap();
        for (from, to) in
            [(0, 1 << 20), (0, 512), (513, 514), (5000, 9000), (11_000, 40_000), (900_000, 1 << 20)]
        {
            let touches = |n: &u32| {
                let start = starts[*n as usize];
                start < to && start + 700 > from
            };
            let all: Vec<u32> = (0..50).filter(touches).collect();
            let found = samples_in(&index, &(from..to)).unwrap();
            if all.len() <= PROBES_MAX as usize {
                assert_eq!(found, all, "{from}..{to}");
            } else {
                assert_eq!((found.len(), found[0], found.last()), (16, all[0], all.last()), "{from}..{to}");
            }
        }
    }
}
