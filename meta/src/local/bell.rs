//! How others ask the committer for work. It sleeps without a timer while there is nothing to write.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use granary_core::{Error, Kind, Result};

use super::lock;

/// How often an engine that failed is tried again.
const MEND_INTERVAL: Duration = Duration::from_secs(1);

/// Told once, when the operations before it are durable or never will be.
pub(crate) type Waiter = Box<dyn FnOnce(Result<()>) + Send>;

#[derive(Debug, Default)]
pub(super) struct Bell {
    /// Something is pending; set without the lock by operations, so that only the first after a commit takes it.
    dirty: AtomicBool,
    asked: Mutex<Asked>,
    rung: Condvar,
}

#[derive(Default)]
struct Asked {
    waiters: Vec<Waiter>,
    urgent: bool,
    stop: bool,
    /// The engine failed: nothing more is written until it works again.
    failure: Option<Error>,
}

impl std::fmt::Debug for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asked").field("waiters", &self.waiters.len()).field("stop", &self.stop).finish()
    }
}

/// Why the committer woke.
pub(super) struct Call {
    /// Whom to tell after a sync.
    pub waiters: Vec<Waiter>,
    /// An interval is over.
    pub tick: bool,
    pub stop: bool,
}

pub(super) fn stopped() -> Error {
    Error::new(Kind::Unavailable, "the metadata is closed; open the volume again")
}

impl Bell {
    /// Something was changed. Cheap.
    pub fn dirty(&self) {
        if !self.dirty.load(Ordering::Relaxed) && !self.dirty.swap(true, Ordering::SeqCst) {
            let _asked = lock(&self.asked);
            self.rung.notify_one();
        }
    }

    /// Something was written that a sync should follow in time.
    pub fn nudge(&self) {
        self.dirty.store(true, Ordering::SeqCst);
        let _asked = lock(&self.asked);
        self.rung.notify_one();
    }

    /// Pending changes take much memory, or somebody waits for them: write them now.
    pub fn urgent(&self) {
        let mut asked = lock(&self.asked);
        if !asked.urgent {
            asked.urgent = true;
            self.rung.notify_one();
        }
    }

    /// The waiter is called after the next sync, or when an engine that failed still does; refused, and not called, when it
    /// was closed.
    pub fn ask_sync(&self, waiter: Waiter) -> Result<()> {
        let mut asked = lock(&self.asked);
        if asked.stop {
            return Err(stopped());
        }
        asked.waiters.push(waiter);
        self.rung.notify_one();
        Ok(())
    }

    /// Asks for the last sync; the waiter is told its result. Nothing is asked after it.
    pub fn stop(&self, waiter: Waiter) {
        let mut asked = lock(&self.asked);
        asked.stop = true;
        asked.waiters.push(waiter);
        self.rung.notify_one();
    }

    pub fn refuse_when_stopped(&self) -> Result<()> {
        if lock(&self.asked).stop { Err(stopped()) } else { Ok(()) }
    }

    /// The committer is called again soon, to look whether it still fails.
    pub fn fail(&self, e: &Error) {
        lock(&self.asked).failure = Some(e.duplicate());
        self.rung.notify_one();
    }

    /// What failed works again.
    pub fn mended(&self) {
        lock(&self.asked).failure = None;
    }

    pub fn failure(&self) -> Option<Error> {
        lock(&self.asked).failure.as_ref().map(Error::duplicate)
    }

    /// From here on, changes ring again: called by the committer before it takes what is pending.
    pub fn take_dirty(&self) -> bool {
        self.dirty.swap(false, Ordering::SeqCst)
    }

    /// Waits for a reason to work: somebody waits for a sync, memory, the end, or, while something is pending or
    /// `unsynced`, the end of `interval`; after a failure that of [`MEND_INTERVAL`]; with `watch`, the end of that.
    pub fn wait(&self, interval: Duration, unsynced: bool, watch: Option<Duration>) -> Call {
        let mut asked = lock(&self.asked);
        let mut tick = false;
        loop {
            if tick || asked.stop || asked.urgent || !asked.waiters.is_empty() {
                asked.urgent = false;
                return Call { waiters: std::mem::take(&mut asked.waiters), tick, stop: asked.stop };
            }
            let failed = asked.failure.is_some();
            if failed || unsynced || self.dirty.load(Ordering::SeqCst) {
                let interval = if failed { MEND_INTERVAL } else { interval };
                let (guard, timeout) =
                    self.rung.wait_timeout(asked, interval).unwrap_or_else(PoisonError::into_inner);
                (asked, tick) = (guard, timeout.timed_out());
            } else if let Some(watch) = watch {
                let (guard, timeout) =
                    self.rung.wait_timeout(asked, watch).unwrap_or_else(PoisonError::into_inner);
                asked = guard;
                if timeout.timed_out() {
                    let waiters = std::mem::take(&mut asked.waiters);
                    return Call { waiters, tick: false, stop: asked.stop };
                }
            } else {
                asked = self.rung.wait(asked).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}
