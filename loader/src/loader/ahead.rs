//! What is asked for together: a policy without I/O.
//!
//! The samples of a stretch of batches are asked for, and with each those that lie beside it and come later: the rest of its
//! *part*, a piece of its lane's run. Parts begin and end where neighbours that are mixed do ([`Order::part`]), so that every byte is asked for
//! once. Without them a stretch that ends within mixed neighbours would ask for nearly all of these, and the next stretch again. And since
//! lanes are at different places of their runs, each asks for a part when another does not: requests are few, long, and
//! spread over time.
//!
//! Not asked for ahead is what another rank or worker is given, what the tail leaves out, what comes in another epoch of the line, and what comes
//! after the *horizon*: where one lane ends and another begins within a part, its other end comes an epoch later.
//!
//! [`Order::part`]: crate::order::epoch::Order::part

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::line::{Line, Part};
use crate::order::shape::Spot;

/// A sample to be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    pub spot: Spot,
    /// The place of its batch.
    pub batch: u64,
    /// Its own place in the endless line.
    at: u64,
}

/// How a sample of a batch is had.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Given<T> {
    /// Of a data set the nth of its wishes.
    Asked(usize, usize),
    /// It was asked for with another, before.
    Kept(T),
}

/// A stretch that begins.
#[derive(Debug)]
pub(crate) struct Step<T> {
    pub batches: Vec<(Part, Vec<Given<T>>)>,
    /// Of each data set: first those of the stretch, in the batches' order, then those that come later.
    pub wishes: Vec<Vec<Wish>>,
    /// Of each data set, how many wishes are the stretch's.
    pub own: Vec<usize>,
    /// Places in the endless line of all wishes.
    pub asked: HashSet<u64>,
}

/// `T`: what there is of a sample that was asked for before its batch began.
#[derive(Debug)]
pub(crate) struct Ahead<T> {
    /// Of each data set; 0: nothing of it is asked for ahead.
    part_bytes: Vec<u64>,
    /// In batches behind those that begin.
    horizon: u64,
    /// By places in the endless line.
    kept: HashMap<u64, T>,
}

impl<T> Ahead<T> {
    /// `part_bytes`: of each data set, about how much is asked for at once; 0: the stretch alone. `horizon`: batches behind those that begin of
    /// which samples may be asked for.
    pub fn new(part_bytes: Vec<u64>, horizon: u64) -> Ahead<T> {
        Ahead { part_bytes, horizon, kept: HashMap::new() }
    }

    /// The batches at these places begin, all of one epoch.
    pub fn begin(&mut self, line: &Line, places: Range<u64>) -> Step<T> {
        let stream = line.stream();
        let mut wishes: Vec<Vec<Wish>> = vec![Vec::new(); stream.sources()];
        let mut asked = HashSet::new();
        let mut batches = Vec::with_capacity((places.end - places.start) as usize);
        for batch in places.clone() {
            let part = line.part(batch);
            let mut given = Vec::with_capacity((part.positions.end - part.positions.start) as usize);
            for (position, pick) in part.positions.clone().zip(line.picks(&part)) {
                let (source, at) = (pick.source as usize, stream.place(part.epoch, position));
                given.push(match self.kept.remove(&at) {
                    Some(kept) => Given::Kept(kept),
                    None => {
                        wishes[source].push(Wish { spot: pick.spot, batch, at });
                        asked.insert(at);
                        Given::Asked(source, wishes[source].len() - 1)
                    }
                });
            }
            batches.push((part, given));
        }
        let own = wishes.iter().map(Vec::len).collect();
        for (source, wishes) in wishes.iter_mut().enumerate() {
            if self.part_bytes[source] > 0 {
                self.later(line, source, places.end, wishes, &mut asked);
            }
        }
        Step { batches, wishes, own, asked }
    }

    /// Adds what lies in the parts of these and comes at `from` or later, in this epoch.
    fn later(&self, line: &Line, source: usize, from: u64, wishes: &mut Vec<Wish>, asked: &mut HashSet<u64>) {
        let stream = line.stream();
        let mut seen = HashSet::new();
        for nth in 0..wishes.len() {
            let Wish { spot, at, batch } = wishes[nth];
            let Some(part) = stream.order(source).part(spot, self.part_bytes[source]) else { return };
            let pass = stream.pass(source, at);
            if !seen.insert((pass, spot.shard, part.start)) {
                continue;
            }
            let epoch = line.of_place(batch).0;
            for (at, spot) in stream.places(source, pass, spot.shard, part) {
                let Some(batch) = line.place_of(at) else { continue };
                let later = (from..from + self.horizon).contains(&batch) && line.of_place(batch).0 == epoch;
                if later && !self.kept.contains_key(&at) && asked.insert(at) {
                    wishes.push(Wish { spot, batch, at });
                }
            }
        }
    }

    /// Whether the sample at a place of the endless line was asked for before its batch began.
    pub fn has(&self, at: u64) -> bool {
        self.kept.contains_key(&at)
    }

    /// A sample that comes later was asked for.
    pub fn keep(&mut self, wish: &Wish, of: T) {
        self.kept.insert(wish.at, of);
    }

    /// The batch at this place is not wanted any more.
    pub fn skip(&mut self, line: &Line, place: u64) {
        let part = line.part(place);
        for position in part.positions {
            self.kept.remove(&line.stream().place(part.epoch, position));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::options::Options;
    use crate::order::batches::Tail;
    use crate::order::shape::Shape;
    use crate::order::shuffle::{Method, Shuffle};
    use crate::order::stream::{Stream, StreamOptions};

    fn line(shards: &[(u32, u64)], options: &Options, sets: usize) -> Line {
        let shape = Shape::new(shards.iter().copied(), b"").unwrap();
        let lengths = (0..shape.samples()).map(|number| (number * 7919 % 1000) as u16).collect();
        let shape = Arc::new(shape.with_lengths(lengths).unwrap());
        let of_stream = StreamOptions {
            shuffle: options.shuffle,
            seed: options.seed,
            batch: options.batch_samples,
            weights: Vec::new(),
            epoch_samples: options.epoch_samples,
        };
        Line::new(Stream::new(vec![shape; sets], &of_stream).unwrap(), options).unwrap()
    }

    proptest! {
        /// Whatever is asked for ahead is what a later batch of this rank and worker has, in time; each sample of an epoch is asked for once.
        #[test]
        fn each_is_asked_for_once_and_comes_as_the_order_says(
            shards in proptest::collection::vec((1_u32..80, 1_u64..2_000_000), 1..8),
            batch in 4_u64..30, ranks in 1_u32..4, workers in 1_u32..3, stretch in 1_u64..5, sets in 1_usize..3,
            part_bytes in 1_u64..400_000, lanes in 1_u32..8, mix_samples in 1_u32..9, tail in 0_usize..3,
            virtual_epoch in any::<bool>(), horizon in 0_u64..40, bucket_batches in 0_u32..5,
        ) {
            let samples: u64 = shards.iter().map(|(n, _)| u64::from(*n)).sum::<u64>() * sets as u64;
            prop_assume!(samples >= batch * u64::from(workers));
            let shuffle = Shuffle { run_bytes: 1 << 20, lanes, mix_samples, bucket_batches, ..Method::Window.into() };
            let options = Options {
                batch_samples: batch, shuffle, rank: ranks - 1, ranks, worker: workers - 1, workers,
                tail: [Tail::Pad, Tail::Drop, Tail::Uneven][tail],
                epoch_samples: virtual_epoch.then_some(samples / 3 + batch * u64::from(workers)),
                ..Options::default()
            };
            let line = line(&shards, &options, sets);
            let mut ahead: Ahead<(usize, Spot)> = Ahead::new(vec![part_bytes; sets], horizon);
            let mut place = 0;
            while place < 2 * line.epoch_end() {
                let count = stretch.min(line.left(place));
                let step = ahead.begin(&line, place..place + count);
                for (nth, (part, given)) in step.batches.iter().enumerate() {
                    prop_assert_eq!(part, &line.part(place + nth as u64));
                    for (pick, given) in line.picks(part).iter().zip(given) {
                        let had = match *given {
                            Given::Kept(kept) => kept,
                            Given::Asked(source, wish) => (source, step.wishes[source][wish].spot),
                        };
                        prop_assert_eq!(had, (pick.source as usize, pick.spot));
                    }
                }
                for (source, wishes) in step.wishes.iter().enumerate() {
                    let (own, later) = wishes.split_at(step.own[source]);
                    prop_assert!(own.iter().all(|wish| (place..place + count).contains(&wish.batch)));
                    for wish in later {
                        prop_assert!(wish.batch >= place + count);
                        ahead.keep(wish, (source, wish.spot));
                    }
                }
                place += count;
                if line.of_place(place).1 == 0 {
                    prop_assert!(ahead.kept.is_empty(), "an epoch leaves nothing behind");
                }
            }
        }
    }

    #[test]
    fn a_lane_asks_for_a_part_of_its_run_at_once_and_for_no_byte_twice() {
        // 61 runs of 1 MiB in 8 lanes, 100 samples each, mixed ten by ten.
        let shuffle = Shuffle { run_bytes: 1 << 20, lanes: 8, mix_samples: 10, ..Method::Window.into() };
        let options = Options { batch_samples: 16, shuffle, tail: Tail::Uneven, ..Options::default() };
        let shards: Vec<(u32, u64)> = [[(800, 8 << 20); 7].to_vec(), vec![(500, 5 << 20)]].concat();
        let line = line(&shards, &options, 1);
        let mut ahead = Ahead::new(vec![512 << 10], 100);
        let mut wishes = Vec::new();
        let mut begun = 0;
        for place in 0..line.epoch_end() {
            let step = ahead.begin(&line, place..place + 1);
            begun += u64::from(!step.wishes[0].is_empty());
            for wish in &step.wishes[0][step.own[0]..] {
                ahead.keep(wish, ());
            }
            wishes.extend(step.wishes[0].iter().map(|wish| wish.spot));
        }
        assert_eq!(wishes.len(), 6100);
        let unique: HashSet<Spot> = wishes.into_iter().collect();
        assert_eq!(unique.len(), 6100);
        // 122 parts of 50 samples, and 8 more where lanes begin within one: they are begun one by one, nearly.
        assert!((60..=130).contains(&begun), "{begun}");
        // A batch that was given before is not kept for.
        let step = ahead.begin(&line, 382..383);
        step.wishes[0][step.own[0]..].iter().for_each(|wish| ahead.keep(wish, ()));
        assert!(!ahead.kept.is_empty());
        (383..764).for_each(|place| ahead.skip(&line, place));
        assert!(ahead.kept.is_empty());
    }
}
