//! How long requests take, lately: a histogram with buckets that grow by a fixed factor, which old values leave.
//!
//! Buckets of a fixed ratio bound the relative error of a quantile, as in DDSketch (Masson, Rim, Lee, VLDB 2019): with 2^(1/4) a
//! quantile is at most 19 % too large. When `FULL` values are in, all counts are halved, so that a value's weight
//! halves about every `FULL / 2` values after it.

use std::time::Duration;

const FIRST: Duration = Duration::from_micros(100);
/// Four for each doubling: up to 100 s.
const BUCKETS: usize = 81;
const FULL: u32 = 1024;

#[derive(Debug)]
pub(super) struct Times {
    counts: [u32; BUCKETS],
    total: u32,
}

impl Default for Times {
    fn default() -> Times {
        Times { counts: [0; BUCKETS], total: 0 }
    }
}

impl Times {
    pub fn add(&mut self, time: Duration) {
        if self.total >= FULL {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.total = self.counts.iter().sum();
        }
        self.counts[bucket(time)] += 1;
        self.total += 1;
    }

    /// Values in it, those halved away not counted.
    pub fn count(&self) -> u32 {
        self.total
    }

    /// A time that at least `percent` of 100 values do not exceed; the upper bound of their bucket.
    pub fn percentile(&self, percent: u32) -> Duration {
        let want = (u64::from(self.total) * u64::from(percent)).div_ceil(100);
        let mut seen = 0;
        let found = self.counts.iter().position(|&count| {
            seen += u64::from(count);
            seen >= want
        });
        upper_bound(found.unwrap_or(BUCKETS - 1))
    }
}

fn bucket(time: Duration) -> usize {
    let ratio = time.as_secs_f64() / FIRST.as_secs_f64();
    if ratio <= 1.0 { 0 } else { ((ratio.log2() * 4.0).ceil() as usize).min(BUCKETS - 1) }
}

fn upper_bound(bucket: usize) -> Duration {
    FIRST.mul_f64((bucket as f64 / 4.0).exp2())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_percentile_is_never_below_the_true_one_and_at_most_a_fifth_above(
            mut micros in prop::collection::vec(100u64..50_000_000, 1..1000),
            percent in 1u32..=100,
        ) {
            let mut times = Times::default();
            micros.iter().for_each(|&us| times.add(Duration::from_micros(us)));
            micros.sort_unstable();
            let rank = (micros.len() * percent as usize).div_ceil(100);
            let truth = Duration::from_micros(micros[rank - 1]).as_secs_f64();
            let told = times.percentile(percent).as_secs_f64();
            prop_assert!(told >= truth * 0.999_999 && told <= truth * 1.2, "{told} for {truth}");
        }
    }

    #[test]
    fn old_times_are_forgotten() {
        let mut times = Times::default();
        (0..5_000).for_each(|_| times.add(Duration::from_secs(2)));
        (0..5_000).for_each(|_| times.add(Duration::from_millis(10)));
        assert!(times.percentile(95) < Duration::from_millis(13), "{:?}", times.percentile(95));
        assert!(times.count() <= FULL);
        (0..200).for_each(|_| times.add(Duration::from_secs(1_000)));
        assert!(times.percentile(95) > Duration::from_secs(90), "{:?}", times.percentile(95));
    }
}
