//! A log-linear histogram of durations: the way of HdrHistogram. Each power of two is cut into eight equal parts, so that
//! whatever is read off a bucket is right to an eighth. Counting is one atomic addition; memory is fixed.
//!
//! Buckets are counted in units of 125 ns: the first eight are one unit wide, then each eight are twice as wide as those
//! before, and every eighth border is a power of two of a microsecond. The last one has the rest, from 126 s on.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Parts of a power of two.
const PARTS: usize = 8;
const PARTS_LOG2: u32 = 3;
const UNIT_NS: u64 = 125;
/// Durations from here on are in the last bucket: 2^30 units.
const OCTAVES: usize = 28;
pub const BUCKETS: usize = OCTAVES * PARTS;

/// Which bucket counts this duration.
pub fn bucket_of(took: Duration) -> usize {
    let units = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX) / UNIT_NS;
    if units < PARTS as u64 {
        return units as usize;
    }
    let exponent = u64::BITS - 1 - units.leading_zeros();
    let octave = (exponent - PARTS_LOG2 + 1) as usize;
    let part = (units >> (exponent - PARTS_LOG2)) as usize % PARTS;
    (octave * PARTS + part).min(BUCKETS - 1)
}

/// The shortest duration that a bucket counts. That of `BUCKETS` is where the last one would end.
pub fn lower_bound(bucket: usize) -> Duration {
    let (octave, part) = (bucket / PARTS, (bucket % PARTS) as u64);
    let units = match octave {
        0 => part,
        _ => (PARTS as u64 + part) << (octave - 1),
    };
    Duration::from_nanos(units * UNIT_NS)
}

/// The middle of a bucket.
pub fn middle(bucket: usize) -> Duration {
    (lower_bound(bucket) + lower_bound(bucket + 1)) / 2
}

/// Counts, each of one bucket. Only added to.
#[derive(Debug)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { buckets: std::array::from_fn(|_| AtomicU64::new(0)) }
    }
}

impl Histogram {
    pub fn count(&self, took: Duration) {
        self.buckets[bucket_of(took)].fetch_add(1, Ordering::Relaxed);
    }

    pub fn snapshot(&self) -> Counts {
        let counts = self.buckets.iter().map(|n| n.load(Ordering::Relaxed)).enumerate();
        Counts(counts.filter(|&(_, n)| n > 0).map(|(bucket, n)| (bucket as u16, n)).collect())
    }
}

/// What a histogram counted: buckets that are not empty, in order, with their counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(pub Vec<(u16, u64)>);

impl Counts {
    pub fn total(&self) -> u64 {
        self.0.iter().map(|(_, n)| n).sum()
    }

    /// All durations together, as if each were in the middle of its bucket.
    pub fn sum(&self) -> Duration {
        self.0.iter().map(|&(bucket, n)| middle(bucket as usize).mul_f64(n as f64)).sum()
    }

    /// What was counted since `earlier`.
    pub fn since(&self, earlier: &Counts) -> Counts {
        let before = |bucket| {
            earlier.0.binary_search_by_key(&bucket, |&(bucket, _)| bucket).map_or(0, |at| earlier.0[at].1)
        };
        let now = self.0.iter().map(|&(bucket, n)| (bucket, n.saturating_sub(before(bucket))));
        Counts(now.filter(|&(_, n)| n > 0).collect())
    }

    /// Both together.
    pub fn and(&self, other: &Counts) -> Counts {
        let mut all = self.0.clone();
        for &(bucket, n) in &other.0 {
            match all.binary_search_by_key(&bucket, |&(bucket, _)| bucket) {
                Ok(at) => all[at].1 += n,
                Err(at) => all.insert(at, (bucket, n)),
            }
        }
        Counts(all)
    }

    /// The duration that this part (0.5 is the median) of all did not exceed, right to an eighth; `None` of nothing. Within
    /// a bucket all are taken to be as far apart as they can.
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        let total = self.total();
        let rank = (part.clamp(0.0, 1.0) * total as f64).ceil().max(1.0);
        let mut below = 0.0;
        for &(bucket, n) in &self.0 {
            let within = (rank - below) / n as f64;
            if within <= 1.0 {
                let (from, to) = (lower_bound(bucket as usize), lower_bound(bucket as usize + 1));
                return Some(from + (to - from).mul_f64(within));
            }
            below += n as f64;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_eighth_border_is_a_power_of_two_of_a_microsecond() {
        for octave in 1..OCTAVES {
            assert_eq!(lower_bound(octave * PARTS), Duration::from_micros(1 << (octave - 1)));
        }
        assert_eq!(bucket_of(Duration::ZERO), 0);
        assert_eq!(bucket_of(Duration::from_secs(100_000)), BUCKETS - 1);
        assert_eq!(bucket_of(Duration::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_of_a_known_spread() {
        let h = Histogram::default();
        (1..=1000).for_each(|i| h.count(Duration::from_micros(i)));
        let counts = h.snapshot();
        assert_eq!(counts.total(), 1000);
        for (part, micros) in [(0.5, 500.0), (0.95, 950.0), (0.99, 990.0), (0.999, 999.0), (1.0, 1000.0)] {
            let found = counts.quantile(part).unwrap().as_secs_f64() * 1e6;
            assert!((found / micros - 1.0).abs() < 0.07, "{part}: {found} instead of {micros}");
        }
        let sum = counts.sum().as_secs_f64();
        assert!((sum / 0.5005 - 1.0).abs() < 0.01, "{sum}");
        assert_eq!(Counts::default().quantile(0.5), None);
    }

    #[test]
    fn differences_are_what_came_between() {
        let h = Histogram::default();
        h.count(Duration::from_millis(1));
        let before = h.snapshot();
        h.count(Duration::from_millis(1));
        h.count(Duration::from_secs(2));
        let between = h.snapshot().since(&before);
        assert_eq!(between.total(), 2);
        assert_eq!(between.and(&before), h.snapshot());
        assert!(between.quantile(1.0).unwrap() >= Duration::from_secs(2));
    }

    proptest! {
        #[test]
        fn a_duration_is_within_its_bucket_and_that_is_narrow(ns in 0u64..130_000_000_000) {
            let took = Duration::from_nanos(ns);
            let bucket = bucket_of(took);
            let (from, to) = (lower_bound(bucket), lower_bound(bucket + 1));
            prop_assert!(from <= took && took < to, "{took:?} in {from:?}..{to:?}");
            prop_assert!(to - from <= (from / 8).max(Duration::from_nanos(125)));
        }
    }
}
