//! Slow requests, told to whoever watches a mount: a bounded ring, of which a watcher that is too slow misses the oldest and
//! is told how many. While nobody watches, a request costs one look at an atomic; while somebody does, those that are not
//! slow cost a few hundred nanoseconds. No request ever waits for a watcher.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use granary_core::waits::{Waited, Waits};
use granary_core::{Clock, Error, Ino, Kind, Result, Timestamp};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::metrics::Op;
use crate::proto::{Operation, Request};

/// Slow requests that wait for a watcher.
const RING: usize = 1024;
/// Watchers of one mount at once.
const WATCHERS_MAX: usize = 16;
/// What `slow_ns` is while nobody watches.
const NOBODY: u64 = u64::MAX;

/// Who asks, and about which name in the directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    pub pid: u32,
    pub uid: u32,
    pub name: Option<Box<[u8]>>,
}

/// A request that was slow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slow {
    /// When it was answered.
    pub at: Timestamp,
    pub took: Duration,
    pub op: Op,
    /// The directory, where the request names an entry of it.
    pub ino: Ino,
    pub caller: Caller,
    /// What it waited for, the longest first; nothing: it was answered where it was read, by the node's disk or processor.
    pub waits: Vec<Waited>,
    /// What the program got, when that was an error.
    pub errno: Option<i32>,
}

/// What a watcher sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    Slow(Arc<Slow>),
    /// So many were not kept until the watcher came for them.
    Missed(u64),
}

/// One mount's slow requests.
#[derive(Debug)]
pub struct Trace {
    /// What takes this long somebody wants to see.
    slow_ns: AtomicU64,
    /// What each watcher wants to see. Guards the figure above too; held for a change of watchers.
    wanted: Mutex<Vec<u64>>,
    /// Made for the first watcher.
    ring: OnceLock<broadcast::Sender<Arc<Slow>>>,
}

impl Default for Trace {
    fn default() -> Trace {
        Trace { slow_ns: AtomicU64::new(NOBODY), wanted: Mutex::default(), ring: OnceLock::new() }
    }
}

thread_local! {
    /// Of the request that this thread serves, while somebody watches.
    static CALLER: RefCell<Option<Caller>> = const { RefCell::new(None) };
}

/// What is kept of a request while it is served, when somebody watches.
#[derive(Debug)]
pub(super) struct Traced {
    caller: Caller,
    pub(super) waits: Arc<Waits>,
}

impl Trace {
    pub(super) fn is_watched(&self) -> bool {
        self.slow_ns.load(Ordering::Relaxed) != NOBODY
    }

    /// Remembers who asks, for [`Trace::begin`] on this thread.
    pub(super) fn announce(&self, request: &Request<'_>) {
        if self.is_watched() {
            let name = named(&request.operation).map(Box::from);
            let caller = Caller { pid: request.header.pid, uid: request.header.uid, name };
            CALLER.set(Some(caller));
        }
    }

    pub(super) fn begin(&self, clock: &Arc<dyn Clock>) -> Option<Box<Traced>> {
        if !self.is_watched() {
            return None;
        }
        let caller = CALLER.take().unwrap_or_default();
        Some(Box::new(Traced { caller, waits: Waits::new(clock.clone()) }))
    }

    pub(super) fn end(
        &self,
        traced: &Traced,
        op: Op,
        ino: Ino,
        took: Duration,
        errno: Option<i32>,
        clock: &dyn Clock,
    ) {
        if (took.as_nanos() as u64) < self.slow_ns.load(Ordering::Relaxed) {
            return;
        }
        let Some(ring) = self.ring.get() else { return };
        let (at, caller, waits) = (clock.now(), traced.caller.clone(), traced.waits.list());
        // The last watcher may have gone.
        let _ = ring.send(Arc::new(Slow { at, took, op, ino, caller, waits, errno }));
    }

    fn wanted(&self) -> MutexGuard<'_, Vec<u64>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, wanted: &[u64]) {
        self.slow_ns.store(wanted.iter().copied().min().unwrap_or(NOBODY), Ordering::Relaxed);
    }

    /// Watches requests that take at least `slow`, from now on. `Busy` when too many watch.
    pub fn watch(self: &Arc<Trace>, slow: Duration) -> Result<Watcher> {
        let slow_ns = u64::try_from(slow.as_nanos()).unwrap_or(u64::MAX).min(NOBODY - 1);
        let mut wanted = self.wanted();
        if wanted.len() >= WATCHERS_MAX {
            return Err(Error::new(
                Kind::Busy,
                format!("{WATCHERS_MAX} watch this mount already; end one of them"),
            ));
        }
        let seen = self.ring.get_or_init(|| broadcast::Sender::new(RING)).subscribe();
        wanted.push(slow_ns);
        self.set(&wanted);
        drop(wanted);
        Ok(Watcher { trace: self.clone(), slow_ns, seen })
    }
}

/// Somebody who watches, until dropped.
#[derive(Debug)]
pub struct Watcher {
    trace: Arc<Trace>,
    slow_ns: u64,
    seen: broadcast::Receiver<Arc<Slow>>,
}

impl Watcher {
    /// The next slow request, in the order of their ends. May be dropped at any time.
    pub async fn next(&mut self) -> Seen {
        loop {
            match self.seen.recv().await {
                // Others may want to see more.
                Ok(slow) if (slow.took.as_nanos() as u64) < self.slow_ns => {}
                Ok(slow) => return Seen::Slow(slow),
                Err(RecvError::Lagged(missed)) => return Seen::Missed(missed),
                Err(RecvError::Closed) => std::future::pending().await, // never: we hold the trace
            }
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let mut wanted = self.trace.wanted();
        if let Some(at) = wanted.iter().position(|&ns| ns == self.slow_ns) {
            wanted.swap_remove(at);
        }
        self.trace.set(&wanted);
    }
}

/// The name in a directory that a request is about.
fn named<'a>(operation: &Operation<'a>) -> Option<&'a [u8]> {
    match operation {
        Operation::Lookup { name }
        | Operation::Unlink { name }
        | Operation::Rmdir { name }
        | Operation::Mkdir { name, .. }
        | Operation::Mknod { name, .. }
        | Operation::Symlink { name, .. }
        | Operation::Rename { name, .. } => Some(name),
        Operation::Create(create) | Operation::Tmpfile(create) => Some(create.name),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use granary_core::TestClock;

    const MS: Duration = Duration::from_millis(1);

    fn end(trace: &Trace, ino: u64, took: Duration) -> bool {
        let clock: Arc<dyn Clock> = Arc::new(TestClock::default());
        let Some(traced) = trace.begin(&clock) else { return false };
        trace.end(&traced, Op::Read, Ino(ino), took, None, &*clock);
        true
    }

    async fn inode(watcher: &mut Watcher) -> Result<u64, u64> {
        match watcher.next().await {
            Seen::Slow(slow) => Ok(slow.ino.0),
            Seen::Missed(n) => Err(n),
        }
    }

    #[tokio::test]
    async fn each_watcher_sees_what_is_slow_for_him() {
        let trace = Arc::new(Trace::default());
        assert!(!end(&trace, 1, 100 * MS), "nobody watches");
        let mut patient = trace.watch(50 * MS).unwrap();
        assert!(end(&trace, 2, 20 * MS));
        let mut keen = trace.watch(10 * MS).unwrap();
        for (ino, ms) in [(3, 5), (4, 20), (5, 60)] {
            assert!(end(&trace, ino, ms * MS));
        }
        assert_eq!((inode(&mut keen).await, inode(&mut keen).await), (Ok(4), Ok(5)));
        assert_eq!(inode(&mut patient).await, Ok(5));
        drop(keen);
        assert!(end(&trace, 6, 20 * MS));
        assert!(end(&trace, 7, 70 * MS));
        assert_eq!(inode(&mut patient).await, Ok(7));
        drop(patient);
        assert!(!trace.is_watched());
    }

    #[tokio::test]
    async fn a_slow_watcher_is_told_what_he_missed() {
        let trace = Arc::new(Trace::default());
        let mut watcher = trace.watch(MS).unwrap();
        for ino in 0..RING as u64 + 7 {
            assert!(end(&trace, ino, MS));
        }
        assert_eq!((inode(&mut watcher).await, inode(&mut watcher).await), (Err(7), Ok(7)));
    }

    #[test]
    fn watchers_are_bounded() {
        let trace = Arc::new(Trace::default());
        let mut all: Vec<_> = (0..WATCHERS_MAX).map(|_| trace.watch(MS).unwrap()).collect();
        assert_eq!(trace.watch(MS).unwrap_err().kind(), Kind::Busy);
        all.pop();
        trace.watch(MS).unwrap();
    }
}
