//! Waiting until what was changed is in the engine: group commit without a timer.
//!
//! Who comes first writes for all that came until it took what is pending (the leader); who comes meanwhile is served by
//! its next round. So a lone caller writes at once on its own thread, and many callers share batches. After some rounds
//! a leader that still finds others waiting leaves them to the committer, so that nobody serves others for long.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use granary_core::Result;

use super::bell::Waiter;
use super::committer::write_pending;
use super::{Shared, Spaces, Volume, lock};

/// Rounds that a leader makes for others.
const ROUNDS_MAX: usize = 8;

/// Who waits for the next batch. The lock is held for a few instructions.
#[derive(Default)]
pub(super) struct Through {
    asked: Mutex<Asked>,
    used: AtomicBool,
}

#[derive(Default)]
struct Asked {
    waiters: Vec<Waiter>,
    led: bool,
}

impl std::fmt::Debug for Through {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Through").field("waiters", &lock(&self.asked).waiters.len()).finish()
    }
}

impl Through {
    /// Whether the caller is to lead.
    fn ask(&self, waiter: Waiter) -> bool {
        self.used.store(true, Ordering::Relaxed);
        let mut asked = lock(&self.asked);
        asked.waiters.push(waiter);
        !std::mem::replace(&mut asked.led, true)
    }

    /// Whether somebody ever waited.
    pub(super) fn is_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    /// All who wait now; before pending changes are taken, so that the batch holds what they changed.
    pub(super) fn take(&self) -> Vec<Waiter> {
        std::mem::take(&mut lock(&self.asked).waiters)
    }

    /// Whether the leader may go: nobody waits, or `tired`. Then the next who asks leads.
    fn leave(&self, tired: bool) -> bool {
        let mut asked = lock(&self.asked);
        if tired || asked.waiters.is_empty() {
            asked.led = false;
        }
        !asked.led
    }
}

impl Volume {
    /// Calls `waiter` when every change applied before is in the engine (it survives the end of this process, and a
    /// power loss after the next sync); with the error when it cannot be written. Called here, before or after the return,
    /// or by another thread. Writes, but never waits for a sync.
    pub(crate) fn write_through(&self, waiter: Waiter) {
        self.shared.write_through(&self.spaces, waiter);
    }
}

impl Shared {
    /// See [`Volume::write_through`].
    pub(super) fn write_through(&self, spaces: &Spaces, waiter: Waiter) {
        if !self.through.ask(waiter) {
            return;
        }
        for round in 1.. {
            let held = lock(&self.round);
            let _told_to_the_waiters: Result<bool> = write_pending(self, spaces, false);
            drop(held);
            let tired = round >= ROUNDS_MAX;
            if self.through.leave(tired) {
                if tired {
                    self.bell.urgent();
                }
                return;
            }
        }
    }
}
