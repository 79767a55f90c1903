//! The line of samples that training sees: data sets, mixed and shuffled, epoch after epoch.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use granary_core::{Error, Kind, Result};

use super::buckets::Buckets;
use super::epoch::{Epoch, Order};
use super::mix::Mix;
use super::permutation::key;
use super::shape::{Shape, Spot};
use super::shuffle::Shuffle;

/// One sample of the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pick {
    /// Which of the data sets.
    pub source: u32,
    pub spot: Spot,
}

/// What the line is made of.
#[derive(Clone, Debug)]
pub struct StreamOptions {
    pub shuffle: Shuffle,
    pub seed: u64,
    /// Samples of a global batch.
    pub batch: u64,
    /// One for each data set; empty: by their numbers of samples.
    pub weights: Vec<f64>,
    /// Samples of an epoch; none: as many as the data sets have together.
    pub epoch_samples: Option<u64>,
}

/// Any position of any epoch, in microseconds. Cheap to clone.
///
/// The line has no end: epoch `e` is its positions from `e * epoch_samples`. Each data set goes through all its samples before it begins
/// again, in another order; with one data set and no `epoch_samples` its epochs are the line's.
#[derive(Clone, Debug)]
pub struct Stream {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    orders: Vec<Order>,
    mix: Mix,
    epoch_samples: u64,
    digest: u64,
    buckets: Option<Buckets>,
    /// Guards the epochs in use, two for each data set, latest last; held to look one up, or to make one (8 bytes a run).
    epochs: Mutex<Vec<Vec<Arc<Epoch>>>>,
}

/// Epochs of a data set in use at once: where one ends and the next begins, and one more for who looks further ahead.
const EPOCHS_KEPT: usize = 3;

impl Stream {
    /// Errors: `Invalid` for settings that cannot be, and for a data set without samples.
    pub fn new(shapes: Vec<Arc<Shape>>, options: &StreamOptions) -> Result<Stream> {
        options.shuffle.check()?;
        if options.batch == 0 || options.batch > 1 << 32 {
            return Err(Error::new(
                Kind::Invalid,
                format!("a global batch of {} samples cannot be; give 1 to 2^32", options.batch),
            ));
        }
        if let Some(empty) = shapes.iter().position(|shape| shape.samples() == 0) {
            return Err(Error::new(
                Kind::Invalid,
                format!(
                    "data set {} of {} has no sample to give; look at its filter",
                    empty + 1,
                    shapes.len()
                ),
            ));
        }
        let mix = match (shapes.len(), options.weights.len()) {
            (1, 0 | 1) => Mix::one(),
            (_, 0) => Mix::new(&shapes.iter().map(|shape| shape.samples() as f64).collect::<Vec<_>>())?,
            (sets, weights) if sets == weights => Mix::new(&options.weights)?,
            (sets, weights) => {
                return Err(Error::new(
                    Kind::Invalid,
                    format!("there are {weights} weights for {sets} data sets; give each one, or none"),
                ));
            }
        };
        let all = shapes.iter().map(|shape| shape.samples()).sum();
        let epoch_samples = options.epoch_samples.unwrap_or(all);
        if epoch_samples == 0 || epoch_samples >= 1 << 40 {
            return Err(Error::new(
                Kind::Invalid,
                format!("an epoch of {epoch_samples} samples cannot be; give 1 to 2^40"),
            ));
        }
        let words = shapes.iter().map(|shape| shape.digest()).chain(mix.words()).chain([epoch_samples]);
        let mut words: Vec<u64> = words.collect();
        let buckets = if options.shuffle.bucket_batches > 0 {
            for (source, shape) in shapes.iter().enumerate() {
                words.push(shape.lengths_digest().ok_or_else(|| no_lengths(source, shapes.len()))?);
            }
            let seed = key(&[options.seed]);
            Some(Buckets::new(seed, epoch_samples, options.batch, options.shuffle.bucket_batches))
        } else {
            None
        };
        let digest = key(&words);
        let orders: Vec<Order> = shapes
            .into_iter()
            .enumerate()
            .map(|(source, shape)| {
                let seed = key(&[options.seed, source as u64]);
                Order::new(shape, options.shuffle, seed, mix.share(source, options.batch))
            })
            .collect();
        let epochs = Mutex::new(vec![Vec::new(); orders.len()]);
        Ok(Stream { inner: Arc::new(Inner { orders, mix, epoch_samples, digest, buckets, epochs }) })
    }

    pub fn epoch_samples(&self) -> u64 {
        self.inner.epoch_samples
    }

    /// Of data sets, weights and length: another one is another line.
    pub fn digest(&self) -> u64 {
        self.inner.digest
    }

    pub fn order(&self, source: usize) -> &Order {
        &self.inner.orders[source]
    }

    pub fn sources(&self) -> usize {
        self.inner.orders.len()
    }

    pub fn depends_on_batch(&self) -> bool {
        self.inner.buckets.is_some() || self.inner.orders.iter().any(Order::depends_on_batch)
    }

    /// The samples at positions of an epoch, in order. Those at [`epoch_samples`](Stream::epoch_samples) and beyond are the epoch's from
    /// its beginning again.
    pub fn picks(&self, epoch: u64, positions: Range<u64>) -> Vec<Pick> {
        let len = self.epoch_samples();
        let mut held: Vec<Option<Arc<Epoch>>> = vec![None; self.sources()];
        let plain = |position| self.plain(epoch * len + position % len);
        positions.map(|position| self.pick(&mut held, plain(position))).collect()
    }

    /// The place without buckets of what comes at a place.
    fn plain(&self, place: u64) -> u64 {
        self.moved(place, Buckets::plain)
    }

    fn moved(&self, place: u64, to: fn(&Buckets, u64, u64, &mut dyn FnMut(u64) -> u16) -> u64) -> u64 {
        let Some(buckets) = &self.inner.buckets else { return place };
        let epoch = place / self.epoch_samples();
        let mut held: Vec<Option<Arc<Epoch>>> = vec![None; self.sources()];
        let mut length = |position| {
            let pick = self.pick(&mut held, epoch * self.epoch_samples() + position);
            self.inner.orders[pick.source as usize].shape().length(pick.spot).unwrap_or(0)
        };
        epoch * self.epoch_samples() + to(buckets, epoch, place % self.epoch_samples(), &mut length)
    }

    /// The place in the endless line of a position of an epoch.
    pub fn place(&self, epoch: u64, position: u64) -> u64 {
        epoch * self.epoch_samples() + position % self.epoch_samples()
    }

    /// How often a data set was gone through before the sample of it at a place in the endless line.
    pub fn pass(&self, source: usize, place: u64) -> u64 {
        self.inner.mix.at(self.plain(place)).1 / self.inner.orders[source].shape().samples()
    }

    /// Samples of a shard, each with its place in the endless line in this pass through the data set.
    pub fn places(
        &self,
        source: usize,
        pass: u64,
        shard: u32,
        samples: Range<u32>,
    ) -> impl Iterator<Item = (u64, Spot)> {
        let before = pass * self.inner.orders[source].shape().samples();
        let epoch = self.epoch(source, pass);
        samples.map(move |sample| {
            let spot = Spot { shard, sample };
            let plain = self.inner.mix.place(source, before + epoch.position(spot));
            (self.moved(plain, Buckets::bucketed), spot)
        })
    }

    fn pick(&self, held: &mut [Option<Arc<Epoch>>], place: u64) -> Pick {
        let (source, nth) = self.inner.mix.at(place);
        let samples = self.inner.orders[source].shape().samples();
        let number = nth / samples;
        let held = &mut held[source];
        let epoch = match held {
            Some(epoch) if epoch.number() == number => epoch,
            _ => held.insert(self.epoch(source, number)),
        };
        Pick { source: source as u32, spot: epoch.at(nth % samples) }
    }

    /// One epoch of one data set.
    pub fn epoch(&self, source: usize, number: u64) -> Arc<Epoch> {
        let mut epochs = self.inner.epochs.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = &mut epochs[source];
        if let Some(epoch) = kept.iter().find(|epoch| epoch.number() == number) {
            return epoch.clone();
        }
        let epoch = Arc::new(self.inner.orders[source].epoch(number));
        if kept.len() == EPOCHS_KEPT {
            kept.remove(0);
        }
        kept.push(epoch.clone());
        epoch
    }

    /// How many samples of a data set the line has before a position of an epoch: its own epochs follow from that.
    pub fn given(&self, source: usize, epoch: u64, position: u64) -> u64 {
        let place = epoch * self.epoch_samples() + position;
        // The next of this data set at or after the place; the pattern has each of them.
        let found = (place..).map(|place| self.inner.mix.at(place)).find(|(at, _)| *at == source);
        found.map_or(0, |(_, nth)| nth)
    }

    /// The place in the endless line (nearly, with buckets) where a sample comes next, at or after a position of an epoch.
    pub fn next_use(&self, source: usize, spot: Spot, epoch: u64, position: u64) -> u64 {
        let given = self.given(source, epoch, position);
        let samples = self.inner.orders[source].shape().samples();
        let (number, at) = (given / samples, given % samples);
        let place = self.epoch(source, number).position(spot);
        let nth = match place >= at {
            true => number * samples + place,
            false => (number + 1) * samples + self.epoch(source, number + 1).position(spot),
        };
        self.inner.mix.place(source, nth)
    }
}

fn no_lengths(source: usize, of: usize) -> Error {
    Error::new(
        Kind::Invalid,
        format!(
            "samples are to be bucketed by length, and those of data set {} of {of} are not known; open it with lengths = the extension of \
             the file whose length counts",
            source + 1
        ),
    )
}
