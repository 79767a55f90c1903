//! The `data` mode: no opens. A file is loaded when it is used and released when idle; one that lost its last name while
//! the kernel still knows it is kept (pinned) until the kernel forgets it, since a program may have it open.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use granary_cache::File;
use granary_core::error::fail;
use granary_core::{EntryName, Ino, Kind, Result};
use granary_meta::FileType;

use super::recent::Loaded;
use super::{Mode, Vfs};

const SHARDS: usize = 64;

/// How often the kernel was told of each inode, so that its last FORGET is known for what it is. Only in a writable `data`
/// mount, and where other nodes change the namespace; as large as the kernel's inode cache.
#[derive(Debug)]
pub struct References {
    /// Each guards its inodes' counts.
    counts: Vec<Mutex<HashMap<u64, u64>>>,
    /// Guards the inodes that have no name and are kept for the kernel's sake.
    pinned: Mutex<HashSet<u64>>,
    /// The kernel knows inodes from another process's time, which were never counted here.
    inherited: AtomicBool,
    /// Some of those: all that it may have something of where others change the namespace. Guards the list, for a copy or an
    /// addition.
    before: Mutex<Vec<Ino>>,
}

impl Default for References {
    fn default() -> References {
        References {
            counts: (0..SHARDS).map(|_| Mutex::default()).collect(),
            inherited: AtomicBool::new(false),
            before: Mutex::default(),
            pinned: Mutex::default(),
        }
    }
}

impl References {
    fn add(&self, ino: Ino) {
        let mut counts = self.counts[ino.0 as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(ino.0).or_insert(0) += 1;
    }

    /// `true`: the kernel does not know the inode any more.
    fn take(&self, ino: Ino, n: u64) -> bool {
        let mut counts = self.counts[ino.0 as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner);
        let Some(count) = counts.get_mut(&ino.0) else { return true };
        *count = count.saturating_sub(n);
        if *count > 0 {
            return false;
        }
        counts.remove(&ino.0);
        true
    }

    fn knows(&self, ino: Ino) -> bool {
        self.inherited.load(Ordering::Relaxed)
            || self.counts[ino.0 as usize % SHARDS]
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .contains_key(&ino.0)
    }

    fn count(&self, ino: Ino) -> u64 {
        let counts = self.counts[ino.0 as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner);
        counts.get(&ino.0).copied().unwrap_or(0)
    }

    /// Inodes that the kernel has from another process's time.
    pub(super) fn inherit(&self, inos: impl IntoIterator<Item = Ino>) {
        self.before.lock().unwrap_or_else(PoisonError::into_inner).extend(inos);
    }

    /// Every inode that the kernel has.
    pub(super) fn all(&self) -> Vec<Ino> {
        let before = self.before.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let of = |counts: &Mutex<HashMap<u64, u64>>| {
            let counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
            counts.keys().map(|&ino| Ino(ino)).collect::<Vec<_>>()
        };
        let counted = self.counts.iter().flat_map(of);
        let mut all: Vec<Ino> = std::iter::once(Ino::ROOT).chain(before).chain(counted).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    fn pin(&self, ino: Ino) {
        self.pinned.lock().unwrap_or_else(PoisonError::into_inner).insert(ino.0);
    }

    fn unpin(&self, ino: Ino) -> bool {
        self.pinned.lock().unwrap_or_else(PoisonError::into_inner).remove(&ino.0)
    }

    fn all_pinned(&self) -> Vec<Ino> {
        self.pinned.lock().unwrap_or_else(PoisonError::into_inner).drain().map(Ino).collect()
    }
}

impl Vfs {
    fn counts_references(&self) -> bool {
        self.many || self.mode() == Mode::Data && !self.options.read_only
    }

    /// Whether the kernel had the inode before the answer that is being given, which was counted.
    pub(super) fn knew(&self, ino: Ino) -> bool {
        ino == Ino::ROOT || self.references.count(ino) > 1
    }

    /// The kernel was told of an inode (an answer with an entry).
    pub fn looked_up(&self, ino: Ino) {
        if self.counts_references() {
            self.references.add(ino);
        }
    }

    /// The same where only shared namespaces count.
    pub(super) fn looked_up_shared(&self, ino: Ino) {
        if self.many {
            self.references.add(ino);
        }
    }

    /// What the kernel knows is not counted; and what has no name any more may be open by a program, until the kernel forgets it.
    pub(super) async fn inherit_references(&self) -> Result<()> {
        self.references.inherited.store(true, Ordering::Relaxed);
        if self.counts_references() {
            for ino in self.meta.unnamed().await? {
                self.meta.open(ino).await?;
                self.references.pin(ino);
            }
        }
        Ok(())
    }

    /// Whether [`Vfs::forget`] has anything to do.
    pub fn hears_forgets(&self) -> bool {
        self.counts_references()
    }

    /// The kernel forgot `lookups` of its references to `ino`.
    pub async fn forget(&self, ino: Ino, lookups: u64) {
        if self.counts_references() && self.references.take(ino, lookups) && self.references.unpin(ino) {
            self.drop_unnamed(ino).await;
        }
    }

    /// The file of `ino`, loaded if it was not.
    pub(super) async fn loaded(&self, ino: Ino) -> Result<Arc<Loaded>> {
        let now = self.clock.monotonic();
        if let Some(loaded) = self.recent.get(ino, now) {
            return Ok(loaded);
        }
        let attr = self.meta.getattr(ino).await?;
        if attr.kind != FileType::File {
            let kind = if attr.kind == FileType::Directory { Kind::IsDirectory } else { Kind::Invalid };
            return fail(kind, "only a regular file has content");
        }
        let file = self.tree.file(&attr, None).await?;
        Ok(self.keep_loaded(ino, file, now).await)
    }

    pub(super) async fn keep_loaded(&self, ino: Ino, file: Arc<File>, now: Duration) -> Arc<Loaded> {
        let (loaded, going) = self.recent.insert(ino, file, now);
        for file in going {
            self.close_file(file).await;
        }
        loaded
    }

    /// Releases files that nobody used for a while; to be called about once a second in a `data` mount.
    pub async fn release_idle(&self) {
        let idle = Duration::from_millis(self.options.recent_idle_ms);
        if let Some(since) = self.clock.monotonic().checked_sub(idle) {
            for file in self.recent.idle(since) {
                self.close_file(file).await;
            }
        }
    }

    pub(super) async fn release_recent(&self) {
        for file in self.recent.drain() {
            self.close_file(file).await;
        }
        for ino in self.references.all_pinned() {
            self.drop_unnamed(ino).await;
        }
    }

    /// Before a name of a file is removed: counts an open, so that the inode survives. `None`: nothing to keep.
    pub(super) async fn pin(&self, dir: Ino, name: EntryName<'_>) -> Result<Option<Ino>> {
        let attr = match self.meta.lookup(dir, name).await {
            Ok(attr) => attr,
            Err(e) if e.kind() == Kind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        if attr.kind != FileType::File {
            return Ok(None);
        }
        self.meta.open(attr.ino).await?;
        Ok(Some(attr.ino))
    }

    /// The pinned inode lost its last name: it stays until the kernel forgets it.
    pub(super) async fn keep_pinned(&self, ino: Ino) {
        if self.references.knows(ino) {
            self.references.pin(ino);
        } else {
            self.drop_unnamed(ino).await;
        }
    }

    /// An inode got a name: if it was kept for the kernel's sake, it now keeps itself.
    pub(super) fn keep_named(&self, ino: Ino) {
        if self.counts_references() && self.references.unpin(ino) {
            self.meta.close(ino);
        }
    }

    async fn drop_unnamed(&self, ino: Ino) {
        let file = self.recent.remove(ino);
        if let Some(file) = file {
            self.close_file(file).await;
        }
        self.meta.close(ino);
        self.forget_gone(ino).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_forget_counts() {
        let r = References::default();
        let ino = Ino(3);
        r.add(ino);
        r.add(ino);
        r.pin(ino);
        assert!(!r.take(ino, 1));
        assert!(r.knows(ino));
        assert!(r.take(ino, 1));
        assert!(!r.knows(ino));
        assert!(r.unpin(ino));
        assert!(!r.unpin(ino));
    }
}
