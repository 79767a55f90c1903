//! How much of the node's disk is not yet in the store, and what that means for writers: near the limit they are slowed to
//! the drain's rate, at it they wait.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use granary_core::limits::Limits;
use tokio::sync::Notify;

use crate::util::lock;

/// From this part of a limit on (in percent) writers are slowed and the drain does not wait for its periods.
const SLOW_PERCENT: u64 = 80;
/// One write is delayed by at most this.
const DELAY_MAX: Duration = Duration::from_secs(1);
/// The drain's rate before anything was measured, and the least that is assumed, in bytes per second.
const RATE_MIN: u64 = 1 << 20;
/// The drain's rate is measured over windows of this length.
const WINDOW: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admit {
    Go,
    Delay(Duration),
    Wait,
}

/// What is dirty, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    pub bytes: u64,
    pub files: u64,
    /// Of `bytes`, what the drain cannot take now: files that the kernel writes itself. Nobody waits for those.
    pub open_bytes: u64,
}

/// Decides for a write of `len` bytes.
pub(crate) fn decide(sums: Sums, limits: &Limits, rate: u64, len: u64) -> Admit {
    let waits = sums.bytes - sums.open_bytes.min(sums.bytes);
    if waits.saturating_add(len) > limits.dirty_bytes_max && waits > 0 || sums.files >= limits.dirty_files_max
    {
        return Admit::Wait;
    }
    let percent = |n: u64, max: u64| u128::from(n) * 100 / u128::from(max.max(1));
    let fill =
        percent(sums.bytes, limits.dirty_bytes_max).max(percent(sums.files, limits.dirty_files_max)) as u64;
    if fill < SLOW_PERCENT {
        return Admit::Go;
    }
    // At the threshold a write is not delayed at all, at the limit it takes as long as the drain takes for its bytes.
    let full = Duration::from_secs_f64(len as f64 / rate.max(RATE_MIN) as f64);
    let part = (fill.min(100) - SLOW_PERCENT) as f64 / (100 - SLOW_PERCENT) as f64;
    Admit::Delay(full.mul_f64(part).min(DELAY_MAX))
}

#[derive(Debug, Default)]
pub(crate) struct Dirty {
    /// Bytes in stage files.
    staged: AtomicU64,
    open_staged: AtomicU64,
    /// Files with a stage file that is not clean.
    large_files: AtomicU64,
    rate: AtomicU64,
    /// Guards the current window: its start and the bytes drained in it.
    window: Mutex<(Duration, u64)>,
    /// Told whenever something left the stage.
    pub freed: Notify,
}

impl Dirty {
    pub fn count(&self, staged_before: u64, staged: u64, open_before: u64, open: u64) {
        // Two's complement makes one addition of a gain or a loss.
        self.staged.fetch_add(staged.wrapping_sub(staged_before), Ordering::Relaxed);
        self.open_staged.fetch_add(open.wrapping_sub(open_before), Ordering::Relaxed);
        if staged < staged_before || open > open_before {
            self.freed.notify_waiters();
        }
    }

    pub fn count_large(&self, files: u64) {
        self.large_files.store(files, Ordering::Relaxed);
    }

    /// Everything, with the log's `(bytes, files)`.
    pub fn sums(&self, log: (u64, u64)) -> Sums {
        Sums {
            bytes: log.0 + self.staged.load(Ordering::Relaxed),
            files: log.1 + self.large_files.load(Ordering::Relaxed),
            open_bytes: self.open_staged.load(Ordering::Relaxed),
        }
    }

    pub fn rate(&self) -> u64 {
        self.rate.load(Ordering::Relaxed)
    }

    /// The drain moved `bytes` to the store.
    pub fn drained(&self, bytes: u64, now: Duration) {
        let mut window = lock(&self.window);
        window.1 += bytes;
        let elapsed = now.saturating_sub(window.0);
        if elapsed >= WINDOW {
            self.rate.store((window.1 as f64 / elapsed.as_secs_f64()) as u64, Ordering::Relaxed);
            *window = (now, 0);
        }
    }

    /// Whether the drain should not wait for its periods.
    pub fn is_pressing(&self, log: (u64, u64), limits: &Limits) -> bool {
        let sums = self.sums(log);
        sums.bytes / SLOW_PERCENT >= limits.dirty_bytes_max / 100
            || sums.files / SLOW_PERCENT >= limits.dirty_files_max / 100
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits { dirty_bytes_max: 1000 << 20, dirty_files_max: 1000, ..Limits::default() }
    }

    fn ask(bytes_mib: u64, files: u64, open_mib: u64, rate: u64, len: u64) -> Admit {
        decide(Sums { bytes: bytes_mib << 20, files, open_bytes: open_mib << 20 }, &limits(), rate, len)
    }

    #[test]
    fn writers_are_slowed_near_the_limit_and_wait_at_it() {
        let rate = 10 << 20;
        assert_eq!(ask(799, 0, 0, rate, 1 << 20), Admit::Go);
        assert_eq!(ask(0, 799, 0, rate, 1 << 20), Admit::Go);
        assert_eq!(ask(900, 0, 0, rate, 1 << 20), Admit::Delay(Duration::from_millis(50)));
        assert_eq!(ask(0, 900, 0, rate, 1 << 20), Admit::Delay(Duration::from_millis(50)));
        assert_eq!(ask(999, 0, 0, 0, 1 << 20), Admit::Delay(Duration::from_millis(950)), "no rate known yet");
        assert_eq!(ask(1000, 0, 0, rate, 1), Admit::Wait);
        assert_eq!(ask(0, 1000, 0, rate, 1), Admit::Wait);
    }

    #[test]
    fn nobody_waits_for_bytes_the_drain_cannot_take() {
        assert!(matches!(ask(2000, 1, 2000, 1, 1 << 20), Admit::Delay(_)));
        assert_eq!(ask(2000, 1, 999, 1, 1 << 20), Admit::Wait);
        assert_eq!(
            ask(0, 0, 0, 1, 2000 << 20),
            Admit::Go,
            "a write larger than the limit goes when it is alone"
        );
    }

    #[test]
    fn the_rate_is_measured_over_a_second() {
        let dirty = Dirty::default();
        dirty.drained(5 << 20, Duration::from_millis(500));
        assert_eq!(dirty.rate(), 0);
        dirty.drained(5 << 20, Duration::from_millis(1000));
        assert_eq!(dirty.rate(), 10 << 20);
        dirty.count(0, 7, 0, 3);
        dirty.count(7, 2, 3, 0);
        assert_eq!(dirty.sums((10, 1)), Sums { bytes: 12, files: 1, open_bytes: 0 });
    }
}
