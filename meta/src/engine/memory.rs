//! An engine in memory, for tests: remembers what was not synced, so that a power loss can be played.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use granary_core::Result;

use super::{Engine, Look, Snapshot, Visit, Write, closed, prefix_end};

/// A `BTreeMap` behind a mutex (guards the map, the list of unsynced changes and the counters; held for one call).
#[derive(Debug, Default)]
pub struct MemoryEngine {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    map: Map,
    /// Per batch that was not synced: what was there before, in order.
    unsynced: Vec<Vec<Old>>,
    closed: bool,
    writes: u64,
    syncs: u64,
}

/// A key and its former value.
type Old = (Vec<u8>, Option<Vec<u8>>);

impl MemoryEngine {
    /// An empty engine behind the trait. Tests that play crashes use `MemoryEngine::default()`.
    #[allow(clippy::new_ret_no_self)]
    pub fn new() -> Arc<dyn Engine> {
        Arc::new(MemoryEngine::default())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Batches written without sync since the last one.
    pub fn unsynced_batches(&self) -> usize {
        self.lock().unsynced.len()
    }

    /// What `sync` did so far, however it was called; a sync with nothing to do counts.
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// Batches written so far.
    pub fn writes(&self) -> u64 {
        self.lock().writes
    }

    /// A power loss: of the unsynced batches the first `keep` survive. This engine is closed; the survivor is returned.
    pub fn crash(&self, keep: usize) -> MemoryEngine {
        let mut inner = self.lock();
        inner.closed = true;
        let mut map = std::mem::take(&mut inner.map);
        let unsynced = std::mem::take(&mut inner.unsynced);
        for batch in unsynced.into_iter().skip(keep).rev() {
            for (key, old) in batch.into_iter().rev() {
                match old {
                    Some(value) => map.insert(key, value),
                    None => map.remove(&key),
                };
            }
        }
        MemoryEngine { inner: Mutex::new(Inner { map, ..Inner::default() }) }
    }
}

impl Inner {
    fn open(&self) -> Result<()> {
        if self.closed { Err(closed()) } else { Ok(()) }
    }
}

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

impl Snapshot for Map {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(Map::get(self, key).cloned())
    }

    fn scan(&self, prefix: &[u8], from: &[u8], visit: &mut Visit<'_>) -> Result<()> {
        let start = from.max(prefix);
        for (key, value) in self.range::<[u8], _>((Bound::Included(start), Bound::Unbounded)) {
            if !key.starts_with(prefix) || !visit(key, value)? {
                break;
            }
        }
        Ok(())
    }
}

impl Engine for MemoryEngine {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let inner = self.lock();
        inner.open()?;
        Ok(inner.map.get(key).cloned())
    }

    fn scan(&self, prefix: &[u8], from: &[u8], visit: &mut Visit<'_>) -> Result<()> {
        let inner = self.lock();
        inner.open()?;
        Snapshot::scan(&inner.map, prefix, from, visit)
    }

    fn snapshot(&self, look: &mut Look<'_>) -> Result<()> {
        let inner = self.lock();
        inner.open()?;
        let map = inner.map.clone();
        drop(inner);
        look(&map)
    }

    fn write(&self, batch: Vec<Write>, sync: bool) -> Result<()> {
        let mut inner = self.lock();
        inner.open()?;
        let mut old = Vec::with_capacity(batch.len());
        for write in batch {
            match write {
                Write::Put(key, value) => {
                    let before = inner.map.insert(key.clone(), value);
                    old.push((key, before));
                }
                Write::Delete(key) => {
                    let before = inner.map.remove(&key);
                    old.push((key, before));
                }
                Write::DeletePrefix(prefix) => {
                    let end = prefix_end(&prefix).map_or(Bound::Unbounded, Bound::Excluded);
                    let keys: Vec<_> =
                        inner.map.range((Bound::Included(prefix), end)).map(|(key, _)| key.clone()).collect();
                    for key in keys {
                        let before = inner.map.remove(&key);
                        old.push((key, before));
                    }
                }
            }
        }
        inner.writes += 1;
        inner.unsynced.push(old);
        if sync {
            inner.syncs += 1;
            inner.unsynced.clear();
        }
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        let mut inner = self.lock();
        inner.open()?;
        inner.syncs += 1;
        inner.unsynced.clear();
        Ok(())
    }

    fn revive(&self) -> Result<()> {
        self.sync()
    }

    fn close(&self) -> Result<()> {
        let mut inner = self.lock();
        inner.unsynced.clear();
        inner.closed = true;
        Ok(())
    }
}
