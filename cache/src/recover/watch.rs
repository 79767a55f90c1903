//! How far recovery is: told by it, looked at by whoever shows it.

use std::sync::Mutex;
use std::time::Duration;

use crate::util::lock;

/// What recovery has found and done, of all namespaces that were opened under one watch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecoveryStep {
    /// Of the stage logs: read, and all that is known so far.
    pub bytes: u64,
    pub bytes_total: u64,
    /// Records found in what was not recovered before, and those that the metadata did not have.
    pub records: u64,
    pub replayed: u64,
    /// Stage files whose content the metadata did not have.
    pub files: u64,
    /// Bytes of the logs that are damaged.
    pub lost: u64,
    /// How long the rest takes at the rate so far.
    pub left: Duration,
}

#[derive(Debug, Default)]
struct State {
    step: RecoveryStep,
    begun: Option<Duration>,
    /// Namespaces that are being recovered.
    running: u32,
}

#[derive(Debug, Default)]
pub struct RecoveryWatch {
    /// Guards the sums, for a few additions.
    state: Mutex<State>,
}

impl RecoveryWatch {
    /// Where it is; `None` while nothing is being recovered.
    pub fn now(&self) -> Option<RecoveryStep> {
        let state = lock(&self.state);
        (state.running > 0).then_some(state.step)
    }

    /// What came of it so far.
    pub fn sums(&self) -> RecoveryStep {
        lock(&self.state).step
    }

    /// The recovery of one namespace begins, until the answer is dropped.
    pub(super) fn begin(&self, bytes: u64, now: Duration) -> Running<'_> {
        let mut state = lock(&self.state);
        state.begun.get_or_insert(now);
        state.running += 1;
        state.step.bytes_total += bytes;
        Running(self)
    }

    pub(super) fn add(&self, more: RecoveryStep, now: Duration) {
        let mut state = lock(&self.state);
        let begun = state.begun.unwrap_or(now);
        let step = &mut state.step;
        step.bytes += more.bytes;
        step.records += more.records;
        step.replayed += more.replayed;
        step.files += more.files;
        step.lost += more.lost;
        let rest = step.bytes_total.saturating_sub(step.bytes) as f64 / step.bytes.max(1) as f64;
        step.left = now.saturating_sub(begun).mul_f64(rest);
    }
}

/// A namespace that is being recovered.
pub(super) struct Running<'a>(&'a RecoveryWatch);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).running -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_follows_the_rate_over_all_namespaces() {
        let (watch, at) = (RecoveryWatch::default(), Duration::from_secs);
        assert_eq!(watch.now(), None);
        let first = watch.begin(100, at(10));
        watch.add(RecoveryStep { bytes: 25, records: 3, ..RecoveryStep::default() }, at(15));
        assert_eq!(watch.now().unwrap().left, at(15));
        let second = watch.begin(100, at(15));
        watch.add(RecoveryStep { bytes: 75, replayed: 2, ..RecoveryStep::default() }, at(30));
        let now = watch.now().unwrap();
        assert_eq!(
            (now.bytes, now.bytes_total, now.records, now.replayed, now.left),
            (100, 200, 3, 2, at(20))
        );
        drop(first);
        assert!(watch.now().is_some());
        drop(second);
        assert_eq!((watch.now(), watch.sums().bytes), (None, 100));
    }
}
