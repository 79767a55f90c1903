//! Which batches were given: numbers of one rank's and worker's own batches in the epoch.

use std::collections::BTreeSet;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    pub epoch: u64,
    /// The first that was not given.
    pub next: u64,
    /// Those behind it that were.
    pub given: BTreeSet<u64>,
}

impl Progress {
    pub fn new(epoch: u64, next: u64) -> Progress {
        Progress { epoch, next, given: BTreeSet::new() }
    }

    /// `given`: of those before `next` nothing is kept.
    pub fn with(epoch: u64, next: u64, given: BTreeSet<u64>) -> Progress {
        let mut progress =
            Progress { epoch, next, given: given.into_iter().filter(|&at| at >= next).collect() };
        progress.settle();
        progress
    }

    /// Whether all of an epoch of so many were given.
    pub fn is_over(&self, end: u64) -> bool {
        self.next >= end
    }

    pub fn next_epoch(&mut self) {
        *self = Progress::new(self.epoch + 1, 0);
    }

    /// Those that may be given now, the best first: at most `overtake` of them pass the first.
    pub fn wanted(&self, end: u64, overtake: u32) -> Vec<u64> {
        let last = (self.next + u64::from(overtake)).min(end.saturating_sub(1));
        (self.next..=last).filter(|at| !self.given.contains(at)).collect()
    }

    /// One is given; false when it was before, or is of another epoch.
    pub fn give(&mut self, epoch: u64, at: u64) -> bool {
        if epoch != self.epoch || at < self.next || !self.given.insert(at) {
            return false;
        }
        self.settle();
        true
    }

    fn settle(&mut self) {
        while self.given.remove(&self.next) {
            self.next += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_straggler_is_passed_by_so_many_and_then_waited_for() {
        let mut progress = Progress::new(3, 10);
        assert_eq!(progress.wanted(100, 2), [10, 11, 12]);
        assert!(progress.give(3, 11) && progress.give(3, 12));
        assert_eq!(progress.wanted(100, 2), [10]);
        assert!(!progress.give(3, 11) && !progress.give(2, 13));
        assert!(progress.give(3, 10));
        assert_eq!(progress, Progress::new(3, 13));
        assert_eq!(progress.wanted(14, 2), [13]);
        assert!(progress.give(3, 13) && progress.is_over(14));
        progress.next_epoch();
        assert_eq!(progress, Progress::new(4, 0));
    }

    #[test]
    fn what_was_given_before_is_settled() {
        assert_eq!(
            Progress::with(0, 5, [3, 5, 6, 8].into()),
            Progress { epoch: 0, next: 7, given: [8].into() }
        );
    }
}
