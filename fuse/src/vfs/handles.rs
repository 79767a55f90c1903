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

/// The table. A handle's number is its slot, `index * 16 + shard`, and one, so never 0; above that (`<< 32`) comes the slot's
/// generation, so that no number is used twice: a RELEASE that the kernel sends again finds nothing.
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
    slots: Vec<Slot>,
    free: Vec<u32>,
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    handle: Option<Handle>,
}

impl Slab {
    fn get(&self, at: &At) -> Option<&Handle> {
        let slot = self.slots.get(at.index).filter(|slot| slot.generation == at.generation)?;
        slot.handle.as_ref()
    }

    fn get_mut(&mut self, at: &At) -> Option<&mut Handle> {
        let slot = self.slots.get_mut(at.index).filter(|slot| slot.generation == at.generation)?;
        slot.handle.as_mut()
    }
}

/// Where a number's handle is.
struct At {
    shard: usize,
    index: usize,
    generation: u32,
}

fn number(shard: usize, index: usize, generation: u32) -> u64 {
    (index * SHARDS + shard + 1) as u64 | u64::from(generation) << 32
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

    fn locate(fh: u64) -> Option<At> {
        let slot = (fh as u32).checked_sub(1)? as usize;
        Some(At { shard: slot % SHARDS, index: slot / SHARDS, generation: (fh >> 32) as u32 })
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
        let at = Self::locate(fh)?;
        self.shard(at.shard).get(&at).cloned()
    }

    /// Whether a program runs from this file. Looks at all handles.
    pub fn is_executed(&self, ino: Ino) -> bool {
        (0..SHARDS).any(|shard| {
            let shard = self.shard(shard);
            let mut handles = shard.slots.iter().filter_map(|slot| slot.handle.as_ref());
            handles.any(|handle| handle.ino == ino && handle.execute)
        })
    }

    /// The file alone: what reads need.
    pub fn file(&self, fh: u64) -> Option<Arc<File>> {
        let at = Self::locate(fh)?;
        Some(self.shard(at.shard).get(&at)?.file.clone())
    }

    /// Changes how a handle goes (after a refusal); returns what it was.
    pub fn set_way(&self, fh: u64, way: Way) -> Option<Handle> {
        let at = Self::locate(fh)?;
        let mut slab = self.shard(at.shard);
        let handle = slab.get_mut(&at)?;
        let before = handle.clone();
        handle.way = way;
        Some(before)
    }

    pub fn remove(&self, fh: u64) -> Option<Handle> {
        let at = Self::locate(fh)?;
        let mut slab = self.shard(at.shard);
        slab.get(&at)?;
        let handle = slab.slots[at.index].handle.take()?;
        slab.free.push(at.index as u32);
        self.open.fetch_sub(1, Ordering::Relaxed);
        Some(handle)
    }

    /// Numbers of all open handles.
    pub fn all(&self) -> Vec<u64> {
        let mut out = Vec::new();
        for shard in 0..SHARDS {
            let slab = self.shard(shard);
            let taken = slab.slots.iter().enumerate().filter(|(_, slot)| slot.handle.is_some());
            out.extend(taken.map(|(index, slot)| number(shard, index, slot.generation)));
        }
        out
    }

    /// Takes over the slots of a process that ended, in order, from the first on: each with its last generation, and the handle
    /// that the kernel still has.
    pub fn inherit(&self, slot: u64, generation: u32, handle: Option<Handle>) {
        let (shard, index) = (slot as usize % SHARDS, slot as usize / SHARDS);
        let mut slab = self.shard(shard);
        debug_assert_eq!(slab.slots.len(), index);
        if handle.is_some() {
            self.open.fetch_add(1, Ordering::Relaxed);
        } else {
            slab.free.push(index as u32);
        }
        slab.slots.push(Slot { generation, handle });
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
            Some(index) => index as usize,
            None => {
                slab.slots.push(Slot::default());
                slab.slots.len() - 1
            }
        };
        let slot = &mut slab.slots[index];
        debug_assert!(slot.handle.is_none());
        slot.generation = slot.generation.wrapping_add(1);
        slot.handle = Some(handle);
        number(shard, index, slot.generation)
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
