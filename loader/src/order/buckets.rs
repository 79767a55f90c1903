//! Batches of samples of like length: the order, changed within bounds.
//!
//! So many batches in a row are a *pool*. Within a pool, and within each *group* of neighbouring slots of the global batch, samples are sorted by
//! length and cut into as many chunks as the pool has batches; each batch takes one chunk of each group. Which chunk is drawn by a key, the
//! same for all groups: so a batch has short samples in all of its slots, or long ones, and the next batch others. Within a chunk samples are mixed.
//!
//! So a sample comes at most a pool's batches away from where it would, in a slot of its group: each comes exactly once, what a rank reads is
//! still its own lanes, and batches do not depend on ranks. Any position is computed from its pool alone. What is left for a last batch that is
//! not full comes last, as it stands.
//!
//! Lengths are kept in two bytes a sample: 11 bits of the number, so that those of a bucket differ by less than 1/1024 more than they should.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::permutation::{Permutation, key};

/// What a key is for.
const BATCHES: u64 = 16;
const SLOTS: u64 = 17;
/// Slots of a group. As many as share a lane in a large batch, so that a rank of at least so many slots has groups of its own.
const GROUP_SLOTS: u64 = 8;
/// Batches of a pool, at most.
pub const BATCHES_MAX: u32 = 4096;
/// Samples whose places are kept: 8 bytes each.
const KEPT_MAX: usize = 1 << 20;

/// A length in two bytes, in the order of lengths.
pub fn length_code(length: u64) -> u16 {
    let bits = u64::from(64 - length.leading_zeros());
    if bits <= 11 {
        return length as u16;
    }
    // The first bit is always set: ten follow it. Lengths below 2^73 would fit; a file's are below 2^64.
    let exponent = (bits - 11).min(62);
    (((exponent + 1) << 10) + ((length >> exponent) & 0x3ff)) as u16
}

/// What it has of one epoch, pool and group.
#[derive(Debug)]
struct Sorted {
    /// Members, by row of the pool and slot of the group, in the order of lengths; and where each is there.
    order: Vec<u32>,
    place: Vec<u32>,
}

#[derive(Debug)]
pub struct Buckets {
    seed: u64,
    batch: u64,
    /// Batches of an epoch that are full.
    rows: u64,
    pool_rows: u64,
    /// Guards what was sorted lately, by epoch, pool and group; held to look one up. Sorting is done outside, perhaps twice.
    sorted: Mutex<BTreeMap<(u64, u64, u64), Arc<Sorted>>>,
}

/// A position, taken apart.
struct Slot {
    pool: u64,
    /// Rows of this pool.
    rows: u64,
    row: u64,
    group: u64,
    /// The group's first slot, and how many it has.
    first: u64,
    slots: u64,
    slot: u64,
}

impl Buckets {
    /// Of epochs of so many samples, in global batches of `batch`, with so many batches in a pool.
    pub fn new(seed: u64, epoch_samples: u64, batch: u64, pool_batches: u32) -> Buckets {
        Buckets {
            seed,
            batch,
            rows: epoch_samples / batch,
            pool_rows: u64::from(pool_batches.max(1)),
            sorted: Mutex::default(),
        }
    }

    fn slot(&self, position: u64) -> Option<Slot> {
        let (row, slot) = (position / self.batch, position % self.batch);
        if row >= self.rows {
            return None;
        }
        let pool = row / self.pool_rows;
        let groups = (self.batch / GROUP_SLOTS).max(1);
        let cut = |group: u64| (group * self.batch).div_ceil(groups);
        let group = slot * groups / self.batch;
        Some(Slot {
            pool,
            rows: self.pool_rows.min(self.rows - pool * self.pool_rows),
            row: row - pool * self.pool_rows,
            group,
            first: cut(group),
            slots: cut(group + 1) - cut(group),
            slot: slot - cut(group),
        })
    }

    fn position(&self, of: &Slot, row: u64, slot: u64) -> u64 {
        (of.pool * self.pool_rows + row) * self.batch + of.first + slot
    }

    fn batches(&self, epoch: u64, of: &Slot) -> Permutation {
        Permutation::new(of.rows, key(&[BATCHES, self.seed, epoch, of.pool]))
    }

    fn slots(&self, epoch: u64, of: &Slot, chunk: u64) -> Permutation {
        Permutation::new(of.slots, key(&[SLOTS, self.seed, epoch, of.pool, of.group, chunk]))
    }

    /// The position in the order without buckets of what comes at a position with them. `length`: of the sample at a position without them.
    pub fn plain(&self, epoch: u64, position: u64, length: &mut dyn FnMut(u64) -> u16) -> u64 {
        let Some(of) = self.slot(position) else { return position };
        let chunk = self.batches(epoch, &of).place(of.row);
        let nth = chunk * of.slots + self.slots(epoch, &of, chunk).place(of.slot);
        let member = u64::from(self.sorted(epoch, &of, length).order[nth as usize]);
        self.position(&of, member / of.slots, member % of.slots)
    }

    /// [`plain`](Buckets::plain) backwards.
    pub fn bucketed(&self, epoch: u64, position: u64, length: &mut dyn FnMut(u64) -> u16) -> u64 {
        let Some(of) = self.slot(position) else { return position };
        let member = of.row * of.slots + of.slot;
        let nth = u64::from(self.sorted(epoch, &of, length).place[member as usize]);
        let (chunk, within) = (nth / of.slots, nth % of.slots);
        let slot = self.slots(epoch, &of, chunk).get(within);
        self.position(&of, self.batches(epoch, &of).get(chunk), slot)
    }

    fn sorted(&self, epoch: u64, of: &Slot, length: &mut dyn FnMut(u64) -> u16) -> Arc<Sorted> {
        let name = (epoch, of.pool, of.group);
        if let Some(known) = self.sorted.lock().unwrap_or_else(PoisonError::into_inner).get(&name) {
            return known.clone();
        }
        let count = of.rows * of.slots;
        let mut members: Vec<(u16, u32)> = (0..count)
            .map(|member| (length(self.position(of, member / of.slots, member % of.slots)), member as u32))
            .collect();
        members.sort_unstable();
        let order: Vec<u32> = members.into_iter().map(|(_, member)| member).collect();
        let mut place = vec![0; order.len()];
        for (nth, &member) in (0..).zip(&order) {
            place[member as usize] = nth;
        }
        let made = Arc::new(Sorted { order, place });
        let mut sorted = self.sorted.lock().unwrap_or_else(PoisonError::into_inner);
        while sorted.len() as u64 * count > KEPT_MAX as u64 {
            sorted.pop_first();
        }
        sorted.insert(name, made.clone());
        made
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn codes_are_in_the_order_of_lengths(a: u64, b: u64, small in 0_u64..5000) {
            let (low, high) = (a.min(b), a.max(b));
            prop_assert!(length_code(low) <= length_code(high));
            prop_assert!(length_code(small) <= length_code(small + 1));
            // A 1024th is told apart.
            prop_assert!(length_code(low >> 1) < length_code((low >> 1) + (low >> 10) + 1));
        }

        /// Each position has another, which leads back to it, within its pool and its group's slots.
        #[test]
        fn each_comes_once_within_its_pool(
            samples in 1_u64..3000, batch in 1_u64..90, pool in 1_u32..20, seed: u64, epoch in 0_u64..9,
        ) {
            let buckets = Buckets::new(seed, samples, batch, pool);
            let mut length = |position: u64| length_code(key(&[seed, position]) % 100_000);
            let mut seen = vec![false; samples as usize];
            for position in 0..samples {
                let plain = buckets.plain(epoch, position, &mut length);
                prop_assert!(!std::mem::replace(&mut seen[plain as usize], true));
                prop_assert_eq!(buckets.bucketed(epoch, plain, &mut length), position);
                let pool_of = |position: u64| position / batch / u64::from(pool);
                prop_assert_eq!(pool_of(plain), pool_of(position));
                prop_assert!((plain % batch).abs_diff(position % batch) < 2 * GROUP_SLOTS);
            }
        }
    }

    /// What is padded, relative to what is there, when each batch is as long as its longest.
    #[test]
    fn batches_are_of_like_length_and_short_ones_come_among_long_ones() {
        let (batch, rows) = (256, 256);
        let samples = batch * rows;
        // Exponential, as durations of speech are, about.
        let bytes = |position: u64| {
            let part = (key(&[position]) >> 11) as f64 / (1_u64 << 53) as f64;
            (-(1.0 - part).ln() * 160_000.0) as u64 + 1000
        };
        let padded = |of: &dyn Fn(u64) -> u64| {
            let (mut all, mut longest, mut of_batches) = (0, 0, Vec::new());
            for row in 0..rows {
                let lengths: Vec<u64> = (0..batch).map(|slot| bytes(of(row * batch + slot))).collect();
                all += lengths.iter().sum::<u64>();
                longest += lengths.iter().max().unwrap() * batch;
                of_batches.push(lengths.iter().sum::<u64>());
            }
            (longest as f64 / all as f64 - 1.0, of_batches)
        };
        let plain = padded(&|position| position).0;
        let buckets = Buckets::new(7, samples, batch, 64);
        let (bucketed, sums) = padded(&|position| buckets.plain(0, position, &mut |p| length_code(bytes(p))));
        println!("padding: {plain:.2} of the data without buckets, {bucketed:.2} with them");
        assert!(plain > 4.0 && bucketed < 0.35, "{plain} {bucketed}");
        // Not in order: of neighbours about half fall.
        let falls = sums.windows(2).filter(|pair| pair[1] < pair[0]).count();
        assert!((rows as usize / 3..rows as usize * 2 / 3).contains(&falls), "{falls}");
    }
}
