//! How long something took.

use std::time::Duration;

use granary_core::clock::{Clock, SystemClock};

/// Runs from its making.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Duration);

impl Stopwatch {
    pub fn start() -> Self {
        Stopwatch(SystemClock.monotonic())
    }

    pub fn seconds(&self) -> f64 {
        (SystemClock.monotonic() - self.0).as_secs_f64()
    }
}

/// Seconds since 1970, for the report's head.
pub fn unix_seconds() -> u64 {
    SystemClock.now().unix_ms() / 1000
}
