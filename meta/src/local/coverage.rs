//! How far what was written is synced. A sync covers what was in the engine when it began, and nothing that was written meanwhile.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts batches that are in the engine, and those of them that a sync covered.
#[derive(Debug, Default)]
pub(super) struct Coverage {
    written: AtomicU64,
    synced: AtomicU64,
}

/// What a sync that begins now will cover.
#[derive(Debug)]
pub(super) struct Begun(u64);

impl Coverage {
    /// A batch is in the engine; to be told before anybody hears of it. Whether it is the only one that no sync has covered.
    pub fn wrote(&self) -> bool {
        let count = self.written.fetch_add(1, Ordering::SeqCst) + 1;
        count <= self.synced.load(Ordering::SeqCst) + 1
    }

    /// Whether a batch waits for a sync.
    pub fn is_behind(&self) -> bool {
        self.synced.load(Ordering::SeqCst) < self.written.load(Ordering::SeqCst)
    }

    pub fn begin(&self) -> Begun {
        Begun(self.written.load(Ordering::SeqCst))
    }

    /// The sync succeeded.
    pub fn end(&self, begun: Begun) {
        self.synced.fetch_max(begun.0, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_during_a_sync_waits_for_the_next() {
        let coverage = Coverage::default();
        assert!(!coverage.is_behind());
        assert!(coverage.wrote() && !coverage.wrote() && coverage.is_behind());
        let begun = coverage.begin();
        assert!(!coverage.wrote());
        coverage.end(begun);
        assert!(coverage.is_behind());
        coverage.end(coverage.begin());
        assert!(!coverage.is_behind() && coverage.wrote());
    }
}
