//! The batches of one rank and one worker, as places 0, 1, 2, ... over all epochs.

use std::ops::Range;

use granary_core::{Error, Kind, Result};

use crate::options::Options;
use crate::order::batches::Batches;
use crate::order::stream::{Pick, Stream};

#[derive(Debug)]
pub(crate) struct Line {
    stream: Stream,
    batches: Batches,
    rank: u32,
    ranks: u32,
    worker: u64,
    workers: u64,
    /// Own batches of an epoch.
    end: u64,
}

impl Line {
    /// Errors: `Invalid` when an epoch has no batch.
    pub fn new(stream: Stream, options: &Options) -> Result<Line> {
        let batches =
            Batches { samples: stream.epoch_samples(), batch: options.batch_samples, tail: options.tail };
        let (worker, workers) = (u64::from(options.worker), u64::from(options.workers));
        let count = batches.count();
        if count == 0 {
            return Err(Error::new(
                Kind::Invalid,
                format!(
                    "{} samples do not fill one global batch of {}, and the tail is dropped; give tail = pad or uneven, or smaller \
                     batches",
                    batches.samples, batches.batch
                ),
            ));
        }
        let end = (count + workers - 1 - worker) / workers;
        Ok(Line { stream, batches, rank: options.rank, ranks: options.ranks, worker, workers, end })
    }

    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Own batches of an epoch; the others of `workers` may have one more.
    pub fn epoch_end(&self) -> u64 {
        self.end
    }

    /// Of all ranks and workers, in an epoch.
    pub fn global_batches(&self) -> u64 {
        self.batches.count()
    }

    /// The number in the epoch of an own batch.
    pub fn number(&self, at: u64) -> u64 {
        // Behind the last: the epoch's end, whoever of the workers asks.
        if at >= self.end { self.batches.count() } else { self.worker + at * self.workers }
    }

    /// The first own batch whose number is `number` or more.
    pub fn first_from(&self, number: u64) -> u64 {
        number.saturating_sub(self.worker).div_ceil(self.workers).min(self.end)
    }

    /// An own batch by its number; `None` for another worker's.
    pub fn own(&self, number: u64) -> Option<u64> {
        let own = number >= self.worker && (number - self.worker).is_multiple_of(self.workers);
        own.then(|| (number - self.worker) / self.workers).filter(|&at| at < self.end)
    }

    /// The place of an own batch of an epoch. A worker without any has one place an epoch, which is never asked for.
    pub fn place(&self, epoch: u64, at: u64) -> u64 {
        epoch * self.end.max(1) + at
    }

    /// Epoch and own batch of a place.
    pub fn of_place(&self, place: u64) -> (u64, u64) {
        (place / self.end.max(1), place % self.end.max(1))
    }

    /// The epoch and its batch's number, the positions of this rank's part of it, and how many of them are padding.
    pub fn part(&self, place: u64) -> Part {
        let (epoch, at) = self.of_place(place);
        let number = self.worker + at * self.workers;
        let positions = self.batches.part(number, self.rank, self.ranks);
        let padding = positions.end.saturating_sub(positions.start.max(self.batches.samples)) as u32;
        Part { epoch, number, positions, padding }
    }

    /// The own batch, by its place, that the sample at a place of the endless line is of; `None` for another rank's or worker's, and for one
    /// that the tail leaves out.
    pub fn place_of(&self, at: u64) -> Option<u64> {
        let (epoch, position) = (at / self.batches.samples, at % self.batches.samples);
        let number = position / self.batches.batch;
        let own = self.own(number)?;
        let mine = self.batches.part(number, self.rank, self.ranks).contains(&position);
        mine.then(|| self.place(epoch, own))
    }

    pub fn picks(&self, part: &Part) -> Vec<Pick> {
        self.stream.picks(part.epoch, part.positions.clone())
    }

    /// Samples of a part, at most.
    pub fn part_samples(&self) -> u64 {
        self.batches.batch.div_ceil(u64::from(self.ranks))
    }

    /// Places to the end of the epoch.
    pub fn left(&self, place: u64) -> u64 {
        self.end.max(1) - self.of_place(place).1
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub epoch: u64,
    pub number: u64,
    pub positions: Range<u64>,
    pub padding: u32,
}
