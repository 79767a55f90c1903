//! Open handles: the number the kernel holds, and what it stands for. Sharded slabs, bounded.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use granary_cache::File;
use granary_core::error::fail;
use granary_core::{Ino, Kind, Result};

use super::iomode::Way;
use super::predict::Circumstances;

const SHARDS: usize = 16;

/// What one open file description of a program is to us.
#[derive(Clone, Debug)]
pub struct Handle {
    pub ino: Ino,
    /// One use of the file, given back at release.
    pub file: Arc<File>,
    pub way: Way,
    pub write: bool,
    /// A program runs from it until it is released.
    pub execute: bool,
    /// For a created file: what was guessed from, so that the outcome is learned.
    pub created: Option<Circumstances>,
    /// Which of the mount's sessions it was opened in: [`Reservation::session`].
    pub session: u64,
}

/// The table. A handle's number is `index * 16 + shard + 1`, so never 0.
#[derive(Debug)]
pub struct Handles {
    /// Each guards its slots, for a few instructions.
    shards: Vec<Mutex<Slab>>,
    /// Spreads new handles over the shards.
    next: AtomicUsize,
    open: AtomicUsize,
    handles_max: usize,
    /// Sessions with the metadata service that were ended by it: what was open in them ended with them.
    sessions: AtomicU64,
}

#[derive(Debug, Default)]
struct Slab {
    slots: Vec<Option<Handle>>,
    free: Vec<u32>,
}

impl Handles {
    pub fn new(handles_max: usize) -> Handles {
        Handles {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            next: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            handles_max,
            sessions: AtomicU64::new(0),
        }
    }

    /// What is open now must not be written any more.
    pub fn end_session(&self) {
        self.sessions.fetch_add(1, Ordering::SeqCst);
    }

    /// The handle, to change its file through; `None`: unknown. `Fenced` when its session was ended: others had its locks since.
    pub fn to_change(&self, fh: u64) -> Result<Option<Handle>> {
        match self.get(fh) {
            Some(handle) if handle.session != self.sessions.load(Ordering::SeqCst) => fail(
                Kind::Fenced,
                "the file was opened before the metadata service ended this node's session, and was others' meanwhile; \
                 open it again",
            ),
            found => Ok(found),
        }
    }

    fn shard(&self, shard: usize) -> MutexGuard<'_, Slab> {
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn locate(fh: u64) -> Option<(usize, usize)> {
        let n = usize::try_from(fh.checked_sub(1)?).ok()?;
        Some((n % SHARDS, n / SHARDS))
    }

    /// Room for one more handle; `Busy` when the table is full.
    pub fn reserve(&self) -> Result<Reservation<'_>> {
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.handles_max {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return fail(
                Kind::Busy,
                "too many files are open in this mount; close some, or raise handles_max",
            );
        }
        let session = self.sessions.load(Ordering::SeqCst);
        Ok(Reservation { handles: self, used: false, session })
    }

    pub fn get(&self, fh: u64) -> Option<Handle> {
        let (shard, index) = Self::locate(fh)?;
        self.shard(shard).slots.get(index)?.clone()
    }

    /// Whether a program runs from this file. Looks at all handles.
    pub fn is_executed(&self, ino: Ino) -> bool {
        (0..SHARDS).any(|shard| {
            let shard = self.shard(shard);
            shard.slots.iter().flatten().any(|handle| handle.ino == ino && handle.execute)
        })
    }

    /// The file alone: what reads need.
    pub fn file(&self, fh: u64) -> Option<Arc<File>> {
        let (shard, index) = Self::locate(fh)?;
        Some(self.shard(shard).slots.get(index)?.as_ref()?.file.clone())
    }

    /// Changes how a handle goes (after a refusal); returns what it was.
    pub fn set_way(&self, fh: u64, way: Way) -> Option<Handle> {
        let (shard, index) = Self::locate(fh)?;
        let mut slab = self.shard(shard);
        let handle = slab.slots.get_mut(index)?.as_mut()?;
        let before = handle.clone();
        handle.way = way;
        Some(before)
    }

    pub fn remove(&self, fh: u64) -> Option<Handle> {
        let (shard, index) = Self::locate(fh)?;
        let mut slab = self.shard(shard);
        let handle = slab.slots.get_mut(index)?.take()?;
        slab.free.push(index as u32);
        self.open.fetch_sub(1, Ordering::Relaxed);
        Some(handle)
    }

    /// Numbers of all open handles.
    pub fn all(&self) -> Vec<u64> {
        let mut out = Vec::new();
        for shard in 0..SHARDS {
            let slab = self.shard(shard);
            let taken = slab.slots.iter().enumerate().filter(|(_, handle)| handle.is_some());
            out.extend(taken.map(|(index, _)| (index * SHARDS + shard + 1) as u64));
        }
        out
    }

    pub fn len(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Room for one handle, so that an open fails before anything is done for it. Dropped unused, the room is free again.
#[derive(Debug)]
pub struct Reservation<'a> {
    handles: &'a Handles,
    used: bool,
    /// The session when the room was taken: before the service was asked for anything.
    pub session: u64,
}

impl Reservation<'_> {
    pub fn insert(mut self, handle: Handle) -> u64 {
        self.used = true;
        let shard = self.handles.next.fetch_add(1, Ordering::Relaxed) % SHARDS;
        let mut slab = self.handles.shard(shard);
        let index = match slab.free.pop() {
            Some(index) => {
                let index = index as usize;
                debug_assert!(slab.slots[index].is_none());
                slab.slots[index] = Some(handle);
                index
            }
            None => {
                slab.slots.push(Some(handle));
                slab.slots.len() - 1
            }
        };
        (index * SHARDS + shard + 1) as u64
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if !self.used {
            self.handles.open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_bounded_and_a_dropped_reservation_is_free_again() {
        let handles = Handles::new(2);
        let a = handles.reserve().unwrap();
        let _b = handles.reserve().unwrap();
        let e = handles.reserve().unwrap_err();
        assert_eq!(e.kind(), Kind::Busy);
        assert!(e.to_string().contains("handles_max"));
        drop(a);
        assert!(handles.reserve().is_ok());
        assert_eq!(handles.len(), 1);
    }

    #[test]
    fn unknown_numbers_are_nothing() {
        let handles = Handles::new(2);
        for fh in [0, 1, 17, u64::MAX] {
            assert!(handles.get(fh).is_none() && handles.file(fh).is_none() && handles.remove(fh).is_none());
        }
        assert!(handles.is_empty() && handles.all().is_empty());
    }
}
