//! A permutation of `0..n` that a key decides, computed for one number at a time, forward and back.
//!
//! A Feistel network (Luby and Rackoff, "How to construct pseudorandom permutations from pseudorandom functions", 1988) over the
//! fewest bits that hold `n`, its halves of like width; what falls outside of `0..n` goes through again ("cycle walking": Black and
//! Rogaway, "Ciphers with arbitrary finite domains", 2002), less than once on average. Up to [`SMALL_MAX`] numbers are shuffled
//! as Fisher and Yates do, since few bits make few Feistel networks. The round function is the finaliser of SplitMix64 (Steele,
//! Lea and Flood, "Fast splittable pseudorandom number generators", 2014). For shuffling, not for secrets.

const ROUNDS: u32 = 8;
/// Largest set that is shuffled as a whole.
pub const SMALL_MAX: u64 = 32;
/// The golden ratio's fraction, SplitMix64's step.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64's finaliser: every bit of `x` moves every bit of the result.
pub fn mixed(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// One key of several words; their order counts.
pub fn key(words: &[u64]) -> u64 {
    words.iter().fold(0, |key, &word| mixed(key.wrapping_add(STEP) ^ mixed(word.wrapping_add(STEP))))
}

/// See the module. Cheap to make and to copy.
#[derive(Clone, Copy, Debug)]
pub struct Permutation {
    n: u64,
    key: u64,
    /// Width of the lower part, in bits; the upper part has as many or one fewer.
    low_bits: u32,
    high_bits: u32,
}

impl Permutation {
    /// Of `0..n`, `n` below 2^63.
    pub fn new(n: u64, key: u64) -> Permutation {
        debug_assert!(n < 1 << 63);
        let bits = 64 - n.saturating_sub(1).leading_zeros();
        Permutation { n, key, low_bits: bits.div_ceil(2), high_bits: bits / 2 }
    }

    /// The number at place `at`, which must be below `n`.
    pub fn get(&self, at: u64) -> u64 {
        debug_assert!(at < self.n);
        if self.n <= SMALL_MAX {
            return u64::from(self.small()[at as usize]);
        }
        let mut x = self.forward(at);
        while x >= self.n {
            x = self.forward(x);
        }
        x
    }

    /// The place of `number`, which must be below `n`: `get(place(x)) == x`.
    pub fn place(&self, number: u64) -> u64 {
        debug_assert!(number < self.n);
        if self.n <= SMALL_MAX {
            let all = self.small();
            return all.iter().position(|&x| u64::from(x) == number).unwrap_or(0) as u64;
        }
        let mut x = self.back(number);
        while x >= self.n {
            x = self.back(x);
        }
        x
    }

    fn small(&self) -> [u8; SMALL_MAX as usize] {
        let mut all: [u8; SMALL_MAX as usize] = std::array::from_fn(|i| i as u8);
        let mut state = self.key;
        for i in (1..self.n as usize).rev() {
            state = state.wrapping_add(STEP);
            // The upper half times the bound: the bias is below 2^-26.
            let j = ((mixed(state) >> 32) * (i as u64 + 1)) >> 32;
            all.swap(i, j as usize);
        }
        all
    }

    fn round(&self, round: u32, half: u64) -> u64 {
        mixed(half ^ self.key.wrapping_add(STEP.wrapping_mul(u64::from(round) + 1)))
    }

    fn halves(&self, x: u64) -> (u64, u64) {
        (x >> self.low_bits, x & ((1 << self.low_bits) - 1))
    }

    fn forward(&self, x: u64) -> u64 {
        let (mut high, mut low) = self.halves(x);
        for round in (0..ROUNDS).step_by(2) {
            high ^= self.round(round, low) & ((1 << self.high_bits) - 1);
            low ^= self.round(round + 1, high) & ((1 << self.low_bits) - 1);
        }
        high << self.low_bits | low
    }

    fn back(&self, x: u64) -> u64 {
        let (mut high, mut low) = self.halves(x);
        for round in (0..ROUNDS).step_by(2).rev() {
            low ^= self.round(round + 1, high) & ((1 << self.low_bits) - 1);
            high ^= self.round(round, low) & ((1 << self.high_bits) - 1);
        }
        high << self.low_bits | low
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_up_to_ten_thousand_is_a_bijection() {
        // All sizes up to 600, then every 37th: each number is hit once, and comes back.
        let sizes = (1..=600).chain((600..=10_000).step_by(37)).chain([4096, 4097, 8192, 10_000]);
        for n in sizes {
            let permutation = Permutation::new(n, key(&[n, 7]));
            let mut seen = vec![false; n as usize];
            for at in 0..n {
                let x = permutation.get(at);
                assert!(!std::mem::replace(&mut seen[x as usize], true), "{n}: {x} comes twice");
                assert_eq!(permutation.place(x), at, "{n}");
            }
        }
    }

    #[test]
    fn large_sets_come_back() {
        for n in [100_000_000, (1 << 40) + 1, (1 << 62) - 3] {
            let permutation = Permutation::new(n, 3);
            for at in (0..n).step_by((n / 1000) as usize) {
                assert_eq!(permutation.place(permutation.get(at)), at);
            }
        }
    }

    /// Chi-square over all orders of four, and over where each number of 40 lands, of so many keys; the bounds are the 99.99 % points.
    #[test]
    fn no_order_and_no_place_is_preferred() {
        let mut orders = std::collections::BTreeMap::<[u64; 4], f64>::new();
        let keys = 24_000;
        for k in 0..keys {
            let permutation = Permutation::new(4, key(&[k]));
            *orders.entry(std::array::from_fn(|i| permutation.get(i as u64))).or_default() += 1.0;
        }
        let expected = keys as f64 / 24.0;
        let chi: f64 = orders.values().map(|n| (n - expected).powi(2) / expected).sum();
        assert!(orders.len() == 24 && chi < 56.0, "{} orders, {chi}", orders.len());

        let (n, keys) = (40, 8_000);
        let mut hits = vec![0.0; n * n];
        for k in 0..keys {
            let permutation = Permutation::new(n as u64, key(&[k, 1]));
            for at in 0..n {
                hits[at * n + permutation.get(at as u64) as usize] += 1.0;
            }
        }
        let expected = keys as f64 / n as f64;
        let chi: f64 = hits.iter().map(|x| (x - expected).powi(2) / expected).sum();
        // 39 * 39 degrees of freedom: mean 1521, deviation 55.
        assert!(chi < 1521.0 + 4.0 * 55.2, "{chi}");
    }
}
