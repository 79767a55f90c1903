//! The order of one epoch of one data set, forward and back.

use std::ops::Range;
use std::sync::Arc;

use super::permutation::{Permutation, key};
use super::runs::Runs;
use super::shape::{Shape, Spot};
use super::shuffle::{Method, Shuffle};

/// What a key is for: keys of different purposes differ.
const RUNS: u64 = 1;
const WITHIN: u64 = 2;
const SAMPLES: u64 = 3;

/// Runs become no shorter than this for want of data: about what moves in the time of a first byte.
pub const RUN_BYTES_MIN: u64 = 1 << 20;
/// Runs of a lane, at least: with one each, the same samples would come at the same time in every epoch.
const LANE_RUNS_MIN: u64 = 2;

/// Bytes of a run in a data set of so many: shorter than is asked for where lanes would have none.
fn run_bytes(bytes: u64, lanes: u64, wanted: u64) -> u64 {
    wanted.min((bytes / (LANE_RUNS_MIN * lanes)).max(RUN_BYTES_MIN))
}

/// The order of all epochs of one data set: what does not change from epoch to epoch.
#[derive(Clone, Debug)]
pub struct Order {
    shape: Arc<Shape>,
    /// None where no run stays together.
    runs: Option<Arc<Runs>>,
    shuffle: Shuffle,
    method: Method,
    /// Of a window's runs, about.
    run_bytes: u64,
    seed: u64,
    /// Samples of this data set in a global batch.
    batch: u64,
    lanes: u64,
}

impl Order {
    /// `batch`: samples of this data set in a global batch, 1 or more.
    pub fn new(shape: Arc<Shape>, shuffle: Shuffle, seed: u64, batch: u64) -> Order {
        let lanes = shuffle.lanes_of(batch);
        let (mut method, mut runs) = (shuffle.method, None);
        let run_bytes = run_bytes(shape.bytes(), lanes, shuffle.run_bytes);
        match method {
            Method::Shards => runs = Some(Arc::new(Runs::of_shards(&shape))),
            Method::Window => {
                let cut = Runs::of_bytes(&shape, run_bytes);
                // Lanes without a run each hold nothing apart: the whole is not much more than what is open at once.
                if cut.count() < LANE_RUNS_MIN * lanes {
                    method = Method::Full
                } else {
                    runs = Some(Arc::new(cut))
                }
            }
            Method::None | Method::Full => {}
        }
        Order { shape, runs, shuffle, method, run_bytes, seed, batch: batch.max(1), lanes }
    }

    pub fn shape(&self) -> &Arc<Shape> {
        &self.shape
    }

    /// How it is shuffled indeed: a data set that is small for a window is shuffled as a whole.
    pub fn method(&self) -> Method {
        self.method
    }

    /// Runs read side by side by all ranks together.
    pub fn lanes(&self) -> u64 {
        if self.method == Method::Window { self.lanes } else { 1 }
    }

    /// Runs that stay together; each sample is one where none do.
    pub fn runs(&self) -> u64 {
        self.runs.as_ref().map_or(self.shape.samples(), |runs| runs.count())
    }

    /// Whether the order is another one with another size of global batches.
    pub fn depends_on_batch(&self) -> bool {
        self.method == Method::Window
    }

    /// Neighbours of a shard that are mixed: no more than an eighth of a run, so that they are got together.
    fn mix(&self, shard: u32) -> u32 {
        let samples = u64::from(self.shape.shard_samples(shard));
        let of_bytes = self.run_bytes / 8 * samples / self.shape.shard_bytes(shard).max(1);
        self.shuffle.mix_samples.min(of_bytes.clamp(1, 1 << 20) as u32)
    }

    /// Bytes of a run, about; 0 where no run stays together.
    pub fn run_bytes(&self) -> u64 {
        if self.method == Method::Window { self.run_bytes } else { 0 }
    }

    /// Bytes of neighbours that are mixed, in a shard of middling samples.
    pub fn mix_bytes(&self) -> u64 {
        let sample = self.shape.bytes() / self.shape.samples().max(1);
        let of_run = (self.run_bytes / 8 / sample.max(1)).clamp(1, 1 << 20);
        sample * of_run.min(u64::from(self.shuffle.mix_samples))
    }

    /// The samples of a shard that a sample is best asked for with: a part of its run, of about so many bytes, that begins and ends where
    /// neighbours that are mixed do. Runs have as many parts of like length as it takes. `None` where no run stays together.
    pub fn part(&self, spot: Spot, part_bytes: u64) -> Option<Range<u32>> {
        let runs = self.runs.as_ref().filter(|_| self.method == Method::Window)?;
        let run = runs.get(&self.shape, runs.holding(&self.shape, spot));
        let mix = self.mix(spot.shard);
        let blocks = u64::from(run.samples.div_ceil(mix));
        let run_bytes = u128::from(self.shape.shard_bytes(spot.shard)) * u128::from(run.samples)
            / u128::from(self.shape.shard_samples(spot.shard).max(1));
        let parts = (run_bytes as u64).div_ceil(part_bytes.max(1)).clamp(1, blocks);
        let part = u64::from((spot.sample - run.first) / mix) * parts / blocks;
        let cut = |part: u64| {
            let samples = (part * blocks).div_ceil(parts) * u64::from(mix);
            run.first + samples.min(u64::from(run.samples)) as u32
        };
        Some(cut(part)..cut(part + 1))
    }

    /// 8 bytes a run, and a walk over all runs; the rest is computed when asked.
    pub fn epoch(&self, epoch: u64) -> Epoch {
        let samples = Permutation::new(self.shape.samples(), key(&[SAMPLES, self.seed, epoch]));
        let Some(runs) = &self.runs else {
            return Epoch { order: self.clone(), epoch, samples, starts: Vec::new() };
        };
        let permutation = Permutation::new(runs.count(), key(&[RUNS, self.seed, epoch]));
        let mut start = 0;
        let mut starts = Vec::with_capacity(runs.count() as usize + 1);
        starts.push(0);
        for at in 0..runs.count() {
            start += u64::from(runs.get(&self.shape, permutation.get(at)).samples);
            starts.push(start);
        }
        debug_assert_eq!(start, self.shape.samples());
        Epoch { order: self.clone(), epoch, samples: permutation, starts }
    }
}

/// One epoch: positions `0..samples` and spots, each from the other in O(log runs).
#[derive(Clone, Debug)]
pub struct Epoch {
    order: Order,
    epoch: u64,
    /// Of samples, or where runs stay together, of runs.
    samples: Permutation,
    /// Positions in the line of permuted runs where each begins, and its end.
    starts: Vec<u64>,
}

impl Epoch {
    pub fn number(&self) -> u64 {
        self.epoch
    }

    /// The sample at a position below [`Shape::samples`].
    pub fn at(&self, position: u64) -> Spot {
        let Some(runs) = &self.order.runs else {
            let full = self.order.method == Method::Full;
            let number = if full { self.samples.get(position) } else { position };
            return self.order.shape.locate(number);
        };
        let in_line = if self.order.method == Method::Window { self.line_of(position) } else { position };
        let at = self.starts.partition_point(|&start| start <= in_line) - 1;
        let number = self.samples.get(at as u64);
        let run = runs.get(&self.order.shape, number);
        let offset = (in_line - self.starts[at]) as u32;
        Spot {
            shard: run.shard,
            sample: run.first + self.within(number, run.shard, run.samples, offset, Permutation::get),
        }
    }

    /// The position of a sample.
    pub fn position(&self, spot: Spot) -> u64 {
        let shape = &self.order.shape;
        let Some(runs) = &self.order.runs else {
            let number = shape.number(spot);
            return if self.order.method == Method::Full { self.samples.place(number) } else { number };
        };
        let number = runs.holding(shape, spot);
        let run = runs.get(shape, number);
        let offset = self.within(number, run.shard, run.samples, spot.sample - run.first, Permutation::place);
        let in_line = self.starts[self.samples.place(number) as usize] + u64::from(offset);
        if self.order.method == Method::Window { self.position_of(in_line) } else { in_line }
    }

    /// A run's samples are mixed block by block.
    fn within(
        &self,
        run: u64,
        shard: u32,
        samples: u32,
        offset: u32,
        map: fn(&Permutation, u64) -> u64,
    ) -> u32 {
        if self.order.method != Method::Window {
            return offset;
        }
        let mix = self.order.mix(shard);
        if mix == 1 {
            return offset;
        }
        let first = offset - offset % mix;
        let block = Permutation::new(
            u64::from(mix.min(samples - first)),
            key(&[WITHIN, self.order.seed, self.epoch, run, u64::from(first)]),
        );
        first + map(&block, u64::from(offset - first)) as u32
    }

    /// First slot of a lane in each global batch, and how many it has.
    fn slots(&self, lane: u64) -> (u64, u64) {
        let Order { batch, lanes, .. } = self.order;
        let first = (lane * batch).div_ceil(lanes);
        (first, ((lane + 1) * batch).div_ceil(lanes) - first)
    }

    /// The line of all permuted runs is cut into lanes of like length; in each global batch a lane has the same slots, and goes on
    /// where it was. So neighbours in a batch are far apart in the line, and one slot's samples in batch after batch are neighbours.
    /// What is too little for a batch comes last, as it stands.
    fn line_of(&self, position: u64) -> u64 {
        let Order { batch, lanes, .. } = self.order;
        let rows = self.order.shape.samples() / batch;
        if position >= rows * batch {
            return position;
        }
        let (row, slot) = (position / batch, position % batch);
        let (first, slots) = self.slots(slot * lanes / batch);
        rows * first + row * slots + (slot - first)
    }

    fn position_of(&self, in_line: u64) -> u64 {
        let Order { batch, lanes, .. } = self.order;
        let rows = self.order.shape.samples() / batch;
        if in_line >= rows * batch {
            return in_line;
        }
        let (first, slots) = self.slots(in_line / rows * lanes / batch);
        let in_lane = in_line - rows * first;
        in_lane / slots * batch + first + in_lane % slots
    }
}
