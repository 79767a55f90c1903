//! The files in use, and those used a while ago whose extents need not be asked for again.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use granary_core::Ino;

use crate::file::File;
use crate::util::lock;

/// Shards, so that threads rarely meet at one lock.
const SHARDS: usize = 64;
/// Files without users that are remembered. About 1 KiB each.
const IDLE_MAX: usize = 16_384;

#[derive(Debug)]
pub(crate) struct Table {
    /// Each guards its files' user counts too; held for look-ups only.
    shards: Vec<Mutex<HashMap<Ino, Arc<File>>>>,
    /// Files whose last user went away, longest ago first.
    idle: Mutex<VecDeque<Ino>>,
}

impl Table {
    pub fn new() -> Table {
        Table { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), idle: Mutex::default() }
    }

    fn shard(&self, ino: Ino) -> &Mutex<HashMap<Ino, Arc<File>>> {
        &self.shards[ino.0 as usize % SHARDS]
    }

    pub fn find(&self, ino: Ino) -> Option<Arc<File>> {
        lock(self.shard(ino)).get(&ino).cloned()
    }

    /// The file with one user more; made by `make` when it is not there.
    pub fn acquire(&self, ino: Ino, make: impl FnOnce() -> Arc<File>) -> Arc<File> {
        let mut shard = lock(self.shard(ino));
        let file = shard.entry(ino).or_insert_with(make);
        file.users.fetch_add(1, Ordering::Relaxed);
        file.clone()
    }

    /// One user less; whether it was the last.
    pub fn release(&self, file: &File) -> bool {
        let _shard = lock(self.shard(file.ino()));
        let before = file.users.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before > 0, "closed more often than opened");
        before == 1
    }

    pub fn remove(&self, ino: Ino) -> Option<Arc<File>> {
        lock(self.shard(ino)).remove(&ino)
    }

    /// Takes this very file out, if nobody else took its place.
    pub fn remove_exactly(&self, file: &File) {
        let mut shard = lock(self.shard(file.ino()));
        if shard.get(&file.ino()).is_some_and(|known| std::ptr::eq(&**known, file)) {
            shard.remove(&file.ino());
        }
    }

    /// Forgets a file that could not be loaded, unless somebody else tries.
    pub fn remove_unloaded(&self, ino: Ino) {
        let mut shard = lock(self.shard(ino));
        if shard.get(&ino).is_some_and(|f| !f.has_users() && !f.is_loaded() && f.is_forgettable()) {
            shard.remove(&ino);
        }
    }

    /// The file has no user and nothing to do: it may be forgotten when others need the room.
    pub fn retire(&self, file: &File) {
        if file.queued.swap(true, Ordering::Relaxed) {
            return;
        }
        lock(&self.idle).push_back(file.ino());
        loop {
            let ino = {
                let mut idle = lock(&self.idle);
                if idle.len() <= IDLE_MAX {
                    return;
                }
                idle.pop_front()
            };
            let Some(ino) = ino else { return };
            let mut shard = lock(self.shard(ino));
            if let Some(file) = shard.get(&ino) {
                file.queued.store(false, Ordering::Relaxed);
                if !file.has_users() && file.is_forgettable() {
                    shard.remove(&ino);
                }
            }
        }
    }

    pub fn all(&self) -> Vec<Arc<File>> {
        self.shards.iter().flat_map(|s| lock(s).values().cloned().collect::<Vec<_>>()).collect()
    }

    pub fn clear(&self) {
        self.shards.iter().for_each(|s| lock(s).clear());
    }
}
