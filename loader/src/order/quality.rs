//! How well an order is shuffled, in three numbers, from so many positions of one epoch.

use std::collections::HashMap;

use serde::Serialize;

use super::epoch::Epoch;
use super::shape::Spot;

/// Positions looked at for each number: a tau of a full shuffle is within 0.02 of zero then.
const LOOKED_AT: u64 = 16_384;

/// Of one epoch of one data set.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Quality {
    /// Kendall's tau between a sample's number in the data set and its position: 1 in order, 0 shuffled, -1 backwards.
    pub tau: f64,
    /// Pairs in a global batch that are of one shard, relative to a full shuffle's: 1 is as good.
    pub same_shard: f64,
    /// How far apart neighbours of a shard come, relative to a full shuffle's (a third of the epoch): 1 is as good, 0 side by side.
    pub distance: f64,
}

/// `batch`: samples of a global batch.
pub fn quality(epoch: &Epoch, samples: u64, batch: u64) -> Quality {
    Quality {
        tau: tau(epoch, samples),
        same_shard: same_shard(epoch, samples, batch),
        distance: distance(epoch, samples),
    }
}

fn tau(epoch: &Epoch, samples: u64) -> f64 {
    let step = samples.div_ceil(LOOKED_AT).max(1);
    let mut spots: Vec<Spot> =
        (0..samples).step_by(step as usize).map(|position| epoch.at(position)).collect();
    let n = spots.len() as f64;
    if spots.len() < 2 {
        return 0.0;
    }
    let pairs = n * (n - 1.0) / 2.0;
    1.0 - 2.0 * inversions(&mut spots) as f64 / pairs
}

/// Pairs in falling order; sorts. (Merge sort counts them as it goes.)
fn inversions<T: Ord + Copy>(all: &mut [T]) -> u64 {
    if all.len() < 2 {
        return 0;
    }
    let (left, right) = all.split_at_mut(all.len() / 2);
    let mut count = inversions(left) + inversions(right);
    let mut merged = Vec::with_capacity(left.len() + right.len());
    let (mut i, mut j) = (0, 0);
    while i < left.len() && j < right.len() {
        if right[j] < left[i] {
            count += (left.len() - i) as u64;
            merged.push(right[j]);
            j += 1;
        } else {
            merged.push(left[i]);
            i += 1;
        }
    }
    merged.extend_from_slice(&left[i..]);
    merged.extend_from_slice(&right[j..]);
    all.copy_from_slice(&merged);
    count
}

fn pairs(n: u64) -> f64 {
    n as f64 * (n as f64 - 1.0) / 2.0
}

fn same_shard(epoch: &Epoch, samples: u64, batch: u64) -> f64 {
    let batch = batch.min(samples);
    let batches = samples / batch;
    if batch < 2 {
        return 1.0;
    }
    let step = (batches * batch).div_ceil(4 * LOOKED_AT).max(1);
    let (mut same, mut all) = (0.0, 0.0);
    let mut shards: HashMap<u32, u64> = HashMap::new();
    for number in (0..batches).step_by(step as usize) {
        let mut in_batch: HashMap<u32, u64> = HashMap::new();
        for position in number * batch..(number + 1) * batch {
            *in_batch.entry(epoch.at(position).shard).or_default() += 1;
        }
        same += in_batch.values().map(|&n| pairs(n)).sum::<f64>();
        all += pairs(batch);
        for (shard, n) in in_batch {
            *shards.entry(shard).or_default() += n;
        }
    }
    // What a full shuffle of the samples seen gives.
    let seen: u64 = shards.values().sum();
    let expected = shards.values().map(|&n| pairs(n)).sum::<f64>() / pairs(seen).max(1.0);
    if expected == 0.0 { 1.0 } else { same / all / expected }
}

fn distance(epoch: &Epoch, samples: u64) -> f64 {
    let step = samples.div_ceil(LOOKED_AT).max(1);
    let (mut sum, mut count) = (0.0, 0.0);
    for position in (0..samples).step_by(step as usize) {
        let spot = epoch.at(position);
        if spot.sample == 0 {
            continue;
        }
        let before = epoch.position(Spot { sample: spot.sample - 1, ..spot });
        sum += before.abs_diff(position) as f64;
        count += 1.0;
    }
    if count == 0.0 { 1.0 } else { sum / count / (samples as f64 / 3.0) }
}
