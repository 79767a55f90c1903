//! What is wrong with the world while somebody works in it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Something that works, fails for a while, and works again, any number of times.
#[derive(Debug, Default)]
pub struct Outage {
    /// Odd while it lasts.
    changes: AtomicU64,
    expected: AtomicBool,
}

impl Outage {
    pub fn begin(&self) {
        self.set(true);
    }

    pub fn end(&self) {
        self.set(false);
    }

    fn set(&self, out: bool) {
        let now = self.changes.load(Ordering::SeqCst);
        if (now % 2 == 1) != out {
            self.changes.store(now + 1, Ordering::SeqCst);
        }
    }

    /// It may come at any moment.
    pub fn expect(&self) {
        self.expected.store(true, Ordering::SeqCst);
    }

    pub fn may_fail(&self) -> bool {
        self.expected.load(Ordering::SeqCst)
    }

    /// For [`Outage::was_on_since`].
    pub fn moment(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }

    pub fn was_on_since(&self, moment: u64) -> bool {
        let now = self.moment();
        now % 2 == 1 || now != moment
    }
}

/// Told by who brings it about, before it begins and after it ended; asked by who must bear it. One thread tells.
#[derive(Debug, Default)]
pub struct Weather {
    /// The store cannot be reached: what is only there cannot be read (EIO).
    pub store: Outage,
    /// The node's disk is full (ENOSPC).
    pub disk: Outage,
}
