//! A wrapper over an engine for tests: fails after N calls, counts syncs, and can hold a sync back.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use granary_core::{Error, Kind, Result};

use super::{Engine, Look, Visit, Write};

/// Passes everything on, until told otherwise.
#[derive(Debug)]
pub struct FaultyEngine {
    inner: Arc<dyn Engine>,
    /// Writes and syncs that still succeed; negative: all fail. `i64::MAX`: no fault.
    left: AtomicI64,
    reads_left: AtomicI64,
    syncs: AtomicU64,
    writes: AtomicU64,
    /// What is done in the middle of the next write; guarded to be taken once.
    midway: Mutex<Midway>,
    /// Guards whether syncs are held back, and how many wait.
    gate: Mutex<Gate>,
    moved: Condvar,
}

#[derive(Default)]
struct Midway(Option<Box<dyn FnOnce() + Send>>);

impl std::fmt::Debug for Midway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Midway").field(&self.0.is_some()).finish()
    }
}

#[derive(Debug, Default)]
struct Gate {
    shut: bool,
    waiting: u64,
}

impl FaultyEngine {
    pub fn new(inner: Arc<dyn Engine>) -> Arc<FaultyEngine> {
        Arc::new(FaultyEngine {
            inner,
            left: AtomicI64::new(i64::MAX),
            reads_left: AtomicI64::new(i64::MAX),
            syncs: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            midway: Mutex::default(),
            gate: Mutex::default(),
            moved: Condvar::new(),
        })
    }

    /// The next `calls` writes and syncs succeed, all later ones fail.
    pub fn fail_writes_after(&self, calls: u32) {
        self.left.store(i64::from(calls), Ordering::SeqCst);
    }

    /// The next `calls` reads succeed, all later ones fail.
    pub fn fail_reads_after(&self, calls: u32) {
        self.reads_left.store(i64::from(calls), Ordering::SeqCst);
    }

    /// Syncs, and writes with sync, that reached the engine below.
    pub fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::SeqCst)
    }

    /// Batches that reached the engine below.
    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::SeqCst)
    }

    /// Does `what` when the next batch is on its way, and not there yet.
    pub fn midway(&self, what: impl FnOnce() + Send + 'static) {
        self.midway.lock().unwrap_or_else(PoisonError::into_inner).0 = Some(Box::new(what));
    }

    /// While shut, whoever writes or syncs waits.
    pub fn shut_gate(&self, shut: bool) {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner).shut = shut;
        self.moved.notify_all();
    }

    /// Returns when a write or sync waits at the shut gate.
    pub fn wait_until_held(&self) {
        let gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.moved.wait_while(gate, |g| g.waiting == 0).unwrap_or_else(PoisonError::into_inner));
    }

    fn pass(&self) -> Result<()> {
        let mut gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        gate.waiting += 1;
        self.moved.notify_all();
        gate = self.moved.wait_while(gate, |g| g.shut).unwrap_or_else(PoisonError::into_inner);
        gate.waiting -= 1;
        drop(gate);
        Self::spend(&self.left)
    }

    fn spend(left: &AtomicI64) -> Result<()> {
        if left.load(Ordering::SeqCst) != i64::MAX && left.fetch_sub(1, Ordering::SeqCst) <= 0 {
            return Err(Error::new(Kind::Io, "the engine fails, as the test wants it"));
        }
        Ok(())
    }
}

impl Engine for FaultyEngine {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Self::spend(&self.reads_left)?;
        self.inner.get(key)
    }

    fn scan(&self, prefix: &[u8], from: &[u8], visit: &mut Visit<'_>) -> Result<()> {
        Self::spend(&self.reads_left)?;
        self.inner.scan(prefix, from, visit)
    }

    fn snapshot(&self, look: &mut Look<'_>) -> Result<()> {
        Self::spend(&self.reads_left)?;
        self.inner.snapshot(look)
    }

    fn write(&self, batch: Vec<Write>, sync: bool) -> Result<()> {
        self.pass()?;
        let midway = self.midway.lock().unwrap_or_else(PoisonError::into_inner).0.take();
        if let Some(what) = midway {
            what();
        }
        self.writes.fetch_add(1, Ordering::SeqCst);
        self.syncs.fetch_add(u64::from(sync), Ordering::SeqCst);
        self.inner.write(batch, sync)
    }

    fn sync(&self) -> Result<()> {
        self.pass()?;
        self.syncs.fetch_add(1, Ordering::SeqCst);
        self.inner.sync()
    }

    /// Fails as a write does, but is not counted as one.
    fn revive(&self) -> Result<()> {
        self.pass()?;
        self.inner.revive()
    }

    fn close(&self) -> Result<()> {
        self.inner.close()
    }
}
