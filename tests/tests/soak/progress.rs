//! How many operations were done, for those who wait for it without doing anything else.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Longer than any operation takes, whatever happens.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a trouble lasts at most: everybody may have to wait for its end.
const TROUBLE: Duration = Duration::from_secs(3);

#[derive(Debug, Default)]
struct State {
    done: u64,
    over: bool,
}

#[derive(Debug, Default)]
pub struct Progress {
    /// For the workers, who share it.
    pub count: AtomicU64,
    state: Mutex<State>,
    changed: Condvar,
}

impl Progress {
    pub fn reached(&self, operation: u64) {
        let mut state = self.state.lock().expect("progress");
        state.done = state.done.max(operation);
        self.changed.notify_all();
    }

    /// When it is dropped, also by a panic, nobody works any more.
    pub fn until_dropped(&self) -> impl Drop {
        End(self)
    }

    /// Returns when so many are done in all, or no more will be: `false`.
    pub fn wait_for(&self, operation: u64) -> bool {
        let (over, done, late) = self.wait(operation, PATIENCE);
        assert!(!late, "the work hangs after {done} operations, {operation} are awaited");
        !over
    }

    /// The same in the middle of a trouble, and not longer than it may last.
    pub fn bear_until(&self, operation: u64) {
        self.wait(operation, TROUBLE);
    }

    /// Whether nobody works any more, how many operations were done, and whether it took too long.
    fn wait(&self, operation: u64, patience: Duration) -> (bool, u64, bool) {
        let state = self.state.lock().expect("progress");
        let going_on = |s: &mut State| s.done < operation && !s.over;
        let waited = self.changed.wait_timeout_while(state, patience, going_on);
        let (state, late) = waited.expect("progress");
        (state.over, state.done, late.timed_out())
    }

    pub fn total(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

struct End<'a>(&'a Progress);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).over = true;
        self.0.changed.notify_all();
    }
}
