//! How far the opening of a version is: looked at by whoever waits, and ended when nobody does. The first opening on a node fetches
//! every index and puts all paths in order, which takes a minute or so for a hundred million files; later ones find both there.
//!
//! Whatever ends it, kill -9 too, does no harm: an index that is fetched stays and is not fetched again, and an order has its name
//! only when it is whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use granary_core::{Error, Kind, Result};

/// Entries between two lines of the log.
const LOG_ENTRIES: u64 = 8 << 20;
/// Entries between two looks at whether somebody still waits.
const LOOK_ENTRIES: u64 = 4096;

/// Relaxed: each number is looked at by itself.
#[derive(Debug, Default)]
pub struct Opening {
    indexes: AtomicU64,
    indexes_total: AtomicU64,
    entries: AtomicU64,
    entries_total: AtomicU64,
    given_up: AtomicBool,
}

/// Done and to do. A total of 0 is not known yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HowFar {
    /// Indexes that are here.
    pub indexes: u64,
    pub indexes_total: u64,
    /// Files and directories in order; dead ones count as done.
    pub entries: u64,
    pub entries_total: u64,
}

impl Opening {
    pub fn how_far(&self) -> HowFar {
        HowFar {
            indexes: self.indexes.load(Ordering::Relaxed),
            indexes_total: self.indexes_total.load(Ordering::Relaxed),
            entries: self.entries.load(Ordering::Relaxed),
            entries_total: self.entries_total.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn expect_indexes(&self, total: u64) {
        self.indexes_total.store(total, Ordering::Relaxed);
    }

    pub(crate) fn indexed(&self) {
        self.indexes.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn expect_entries(&self, total: u64) {
        self.entries_total.store(total, Ordering::Relaxed);
    }

    /// One more entry is in order.
    ///
    /// Errors: `Interrupted` when nobody waits any more.
    pub(crate) fn ordered(&self) -> Result<()> {
        let done = self.entries.fetch_add(1, Ordering::Relaxed) + 1;
        if done.is_multiple_of(LOOK_ENTRIES) && self.given_up.load(Ordering::Relaxed) {
            return Err(Error::new(Kind::Interrupted, "nobody waits for this packed data set any more"));
        }
        if done.is_multiple_of(LOG_ENTRIES) {
            let total = self.entries_total.load(Ordering::Relaxed);
            tracing::info!("putting a packed data set in order: {done} of {total} files");
        }
        Ok(())
    }

    /// Gives up when the guard is dropped, unless it was [`Guard::keep`]ed.
    pub(crate) fn guard(self: &Arc<Self>) -> Guard {
        Guard(Some(self.clone()))
    }
}

/// Held while somebody waits.
pub(crate) struct Guard(Option<Arc<Opening>>);

impl Guard {
    pub(crate) fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(opening) = &self.0 {
            opening.given_up.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_ends_soon_after_nobody_waits() {
        let opening = Arc::new(Opening::default());
        opening.guard().keep();
        (0..3 * LOOK_ENTRIES).for_each(|_| opening.ordered().unwrap());
        drop(opening.guard());
        let mut more = 0;
        let e = loop {
            more += 1;
            if let Err(e) = opening.ordered() {
                break e;
            }
        };
        assert_eq!((e.kind(), more), (Kind::Interrupted, LOOK_ENTRIES));
        assert_eq!(opening.how_far().entries, 4 * LOOK_ENTRIES);
    }
}
