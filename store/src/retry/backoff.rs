//! The delay before each next attempt of one request.

use std::time::Duration;

use rand::{Rng, RngExt};

use super::RetryOptions;

#[derive(Debug)]
pub(super) struct Backoff {
    bound_ms: u64,
    max_ms: u64,
}

impl Backoff {
    pub fn new(options: &RetryOptions) -> Backoff {
        Backoff { bound_ms: options.first_delay_ms.min(options.delay_ms_max), max_ms: options.delay_ms_max }
    }

    /// Anything from nothing to the bound, which then doubles.
    pub fn next(&mut self, random: &mut impl Rng) -> Duration {
        let bound_us = self.bound_ms.saturating_mul(1000);
        self.bound_ms = self.bound_ms.saturating_mul(2).min(self.max_ms);
        Duration::from_micros(random.random_range(0..=bound_us))
    }
}
