//! How much of the node's disk is not yet in the store, and what that means for writers: near the limit they are slowed to
//! the drain's rate, at it they wait.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use granary_core::policy::WritePolicy;
use tokio::sync::Notify;

use super::stuck::Stuck;

/// From this part of a limit on (in percent) writers are slowed and the drain does not wait for its periods.
const SLOW_PERCENT: u64 = 75;
/// One write is delayed by at most this.
const DELAY_MAX: Duration = Duration::from_secs(1);
/// The drain's rate before anything was measured, and the least that is assumed, in bytes per second.
const RATE_MIN: u64 = 1 << 20;

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
    /// Of both, what it can never take, because the disk does not give it back. It takes nothing from the limits: damage costs
    /// the files that it hit, and must neither stop the others for ever nor make their limits smaller. What it takes of the
    /// disk counts there.
    pub stuck_bytes: u64,
    pub stuck_files: u64,
}

impl Sums {
    /// What the limits are for.
    fn limited(&self) -> (u64, u64) {
        (self.bytes.saturating_sub(self.stuck_bytes), self.files.saturating_sub(self.stuck_files))
    }

    /// Bytes that are going to leave by themselves.
    pub fn drainable(&self) -> u64 {
        self.limited().0.saturating_sub(self.open_bytes)
    }
}

/// Decides for a write of `len` bytes, while `others` are being slowed too and the drain moves `rate` bytes a second.
pub(crate) fn decide(sums: Sums, limits: &WritePolicy, rate: u64, others: u64, len: u64) -> Admit {
    let (waits, (bytes, files)) = (sums.drainable(), sums.limited());
    if waits.saturating_add(len) > limits.dirty_bytes_max && waits > 0 || files >= limits.dirty_files_max {
        return Admit::Wait;
    }
    let percent = |n: u64, max: u64| u128::from(n) * 100 / u128::from(max.max(1));
    let fill = percent(bytes, limits.dirty_bytes_max).max(percent(files, limits.dirty_files_max)) as u64;
    if fill < SLOW_PERCENT {
        return Admit::Go;
    }
    // At the threshold a write is not delayed at all, at the limit all writers together get the drain's rate.
    let share = rate.max(RATE_MIN) as f64 / (others + 1) as f64;
    let full = Duration::from_secs_f64(len as f64 / share);
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
    /// Writers that are being slowed at this moment: they share the drain's rate.
    slowed: AtomicU64,
    /// What can never leave.
    pub stuck: Stuck,
    /// Told whenever something left the stage, or turned out to be stuck there.
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
        let (stuck_bytes, stuck_files) = self.stuck.sums();
        Sums {
            bytes: log.0 + self.staged.load(Ordering::Relaxed),
            files: log.1 + self.large_files.load(Ordering::Relaxed),
            open_bytes: self.open_staged.load(Ordering::Relaxed),
            stuck_bytes,
            stuck_files,
        }
    }

    /// One more writer is slowed, until the answer is dropped.
    pub fn slow(&self) -> Slowed<'_> {
        self.slowed.fetch_add(1, Ordering::Relaxed);
        Slowed(self)
    }

    pub fn slowed(&self) -> u64 {
        self.slowed.load(Ordering::Relaxed)
    }

    /// Whether the drain should not wait for its periods.
    pub fn is_pressing(&self, log: (u64, u64), limits: &WritePolicy) -> bool {
        let (bytes, files) = self.sums(log).limited();
        bytes / SLOW_PERCENT >= limits.dirty_bytes_max / 100
            || files / SLOW_PERCENT >= limits.dirty_files_max / 100
    }
}

/// A writer that is being slowed.
#[derive(Debug)]
pub(crate) struct Slowed<'a>(&'a Dirty);

impl Drop for Slowed<'_> {
    fn drop(&mut self) {
        self.0.slowed.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::super::stuck::Thing;
    use super::*;
    use granary_core::limits::Limits;
    use granary_core::policy::NamespacePolicy;
    use proptest::prelude::*;

    fn limits() -> WritePolicy {
        let own = NamespacePolicy {
            dirty_bytes_max: Some(1000 << 20),
            dirty_files_max: Some(1000),
            ..NamespacePolicy::default()
        };
        WritePolicy::resolve(&Limits::default(), &own)
    }

    fn ask(bytes_mib: u64, files: u64, open_mib: u64, rate: u64, len: u64) -> Admit {
        let sums = Sums { bytes: bytes_mib << 20, files, open_bytes: open_mib << 20, ..Sums::default() };
        decide(sums, &limits(), rate, 0, len)
    }

    fn ms(n: u64) -> Admit {
        Admit::Delay(Duration::from_millis(n))
    }

    #[test]
    fn writers_are_slowed_near_the_limit_and_wait_at_it() {
        let rate = 10 << 20;
        assert_eq!(ask(749, 0, 0, rate, 1 << 20), Admit::Go);
        assert_eq!(ask(0, 749, 0, rate, 1 << 20), Admit::Go);
        assert_eq!(ask(800, 0, 0, rate, 1 << 20), ms(20));
        assert_eq!(ask(900, 0, 0, rate, 1 << 20), ms(60));
        assert_eq!(ask(0, 900, 0, rate, 1 << 20), ms(60));
        assert_eq!(ask(999, 0, 0, 0, 1 << 20), ms(960), "no rate known yet");
        assert_eq!(ask(1000, 0, 0, rate, 1), Admit::Wait);
        assert_eq!(ask(0, 1000, 0, rate, 1), Admit::Wait);
    }

    #[test]
    fn writers_share_the_rate() {
        let sums = Sums { bytes: 900 << 20, ..Sums::default() };
        assert_eq!(decide(sums, &limits(), 10 << 20, 4, 1 << 20), ms(300));
        let dirty = Dirty::default();
        let two = (dirty.slow(), dirty.slow());
        assert_eq!(dirty.slowed(), 2);
        drop(two);
        assert_eq!(dirty.slowed(), 0);
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
    fn what_is_stuck_takes_nothing_from_the_limits() {
        let sums = |bytes: u64, files| Sums {
            bytes: bytes << 20,
            files,
            stuck_bytes: 5000 << 20,
            stuck_files: 3000,
            ..Sums::default()
        };
        let ask = |bytes, files| decide(sums(bytes, files), &limits(), 10 << 20, 0, 1 << 20);
        assert_eq!(ask(5749, 3749), Admit::Go);
        assert_eq!((ask(5900, 3000), ask(5000, 3900)), (ms(60), ms(60)));
        assert_eq!((ask(6000, 3000), ask(5000, 4000)), (Admit::Wait, Admit::Wait));
        assert_eq!((sums(5001, 3001).drainable(), sums(5000, 3000).drainable()), (1 << 20, 0));
        let dirty = Dirty::default();
        assert!(dirty.is_pressing((800 << 20, 1), &limits()));
        dirty.stuck.keep(Thing::Segment(1), 800 << 20, 1, "damaged".into());
        assert!(!dirty.is_pressing((800 << 20, 1), &limits()));
    }

    #[test]
    fn what_is_counted_is_taken_back() {
        let dirty = Dirty::default();
        dirty.count(0, 7, 0, 3);
        dirty.count(7, 2, 3, 0);
        assert_eq!(dirty.sums((10, 1)), Sums { bytes: 12, files: 1, ..Sums::default() });
    }

    proptest! {
        /// The fuller it is the longer a write waits, never longer than the bound, and beyond a limit it does not go.
        #[test]
        fn fuller_is_slower(a in 0u64..1100, b in 0u64..1100, rate in 0u64..1 << 30, others in 0u64..100, len in 1u64..1 << 20) {
            let order = |n: u64| match decide(Sums { bytes: n << 20, ..Sums::default() }, &limits(), rate, others, len) {
                Admit::Go => Duration::ZERO,
                Admit::Delay(delay) => {
                    assert!(delay <= DELAY_MAX && (750..1000).contains(&n));
                    delay
                }
                Admit::Wait => Duration::MAX,
            };
            let (less, more) = (a.min(b), a.max(b));
            prop_assert!(order(less) <= order(more));
            prop_assert_eq!(order(more) == Duration::MAX, more >= 1000 || (more << 20) + len > 1000 << 20);
        }
    }
}
