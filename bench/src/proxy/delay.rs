//! Which request waits how long.

use std::time::Duration;

use anyhow::{Result, ensure};

/// What is added before the first byte of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Delays {
    /// To each.
    pub first_byte: Duration,
    /// To some, more than that.
    pub stall: Duration,
    /// How many of a hundred these are, 0 to 100.
    pub stall_percent: f64,
}

impl Delays {
    pub fn new(first_byte_ms: u64, stall_percent: f64, stall_ms: u64) -> Result<Self> {
        ensure!((0.0..=100.0).contains(&stall_percent), "a percentage is from 0 to 100, not {stall_percent}");
        let [first_byte, stall] = [first_byte_ms, stall_ms].map(Duration::from_millis);
        Ok(Delays { first_byte, stall, stall_percent })
    }
}

/// Delays by a request's number; the same seed gives the same ones.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    delays: Delays,
    seed: u64,
}

impl Schedule {
    pub fn new(delays: Delays, seed: u64) -> Self {
        Schedule { delays, seed }
    }

    pub fn stalls(&self, number: u64) -> bool {
        // The top 53 bits: a fraction from 0 to below 1 that f64 has exactly.
        let fraction = (mix(self.seed ^ mix(number)) >> 11) as f64 / (1u64 << 53) as f64;
        fraction * 100.0 < self.delays.stall_percent
    }

    pub fn of(&self, number: u64) -> Duration {
        let stall = if self.stalls(number) { self.delays.stall } else { Duration::ZERO };
        self.delays.first_byte + stall
    }
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014), with its increment.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stalled(percent: f64, seed: u64) -> Vec<u64> {
        let schedule = Schedule::new(Delays::new(30, percent, 2000).unwrap(), seed);
        (0..100_000).filter(|&n| schedule.stalls(n)).collect()
    }

    #[test]
    fn the_share_is_what_was_asked_for_and_the_seed_decides_which() {
        let one = stalled(1.0, 7);
        // Of 100,000 at 1 %: a standard deviation is 31.
        assert!((850..1150).contains(&one.len()), "{}", one.len());
        assert_eq!(one, stalled(1.0, 7));
        assert_ne!(one, stalled(1.0, 8));
        assert_eq!(stalled(0.0, 7).len(), 0);
        assert_eq!(stalled(100.0, 7).len(), 100_000);
        assert!(Delays::new(0, 101.0, 0).is_err());
        assert!(Delays::new(0, f64::NAN, 0).is_err());
    }

    #[test]
    fn a_stall_is_added_to_what_each_request_waits() {
        let ms = Duration::from_millis;
        let schedule = |percent| Schedule::new(Delays::new(30, percent, 2000).unwrap(), 1);
        assert_eq!(schedule(0.0).of(5), ms(30));
        assert_eq!(schedule(100.0).of(5), ms(2030));
    }
}
