//! The cache's disks: one folder on each. A chunk has its place on one of them, by the hash of its object and of the run of chunks
//! it is fetched with (rendezvous hashing, weighted by the folders' sizes: Thaler, Ravishankar: "Using name-based mappings to
//! increase hit rates", 1998; the weights: Schindelhauer, Schomaker: "Weighted distributed hash tables", 2005). So folders that
//! come or go move no other's chunks.
//!
//! A disk may die at any time. Then what was on it is fetched anew when it is read, its part goes to the others, and it is tried
//! again now and then; no read fails of it. What lies on it when it comes back is as good as before: objects never change.

mod chunk_file;
mod folder;
mod health;
mod key;
mod pins;
mod unread;

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use granary_core::limits::FRAME_BYTES;
use granary_core::{Clock, Kind, NamespaceId, ObjectId, Result};

use super::policy::ReaderId;
use super::share::CacheShare;
use super::stats::{ReadStats, add};
use super::sums::FrameSums;
use folder::Folder;
use pins::Pins;

pub(super) use folder::DiskLimits;
pub(super) use key::ChunkKey;

/// Chunks side by side that lie on one disk: as many as are fetched by one GET.
const RUN_CHUNKS: u32 = 4;
/// What an entry counts at least against the budget, so that the number of entries (about 200 bytes of memory each) is
/// bounded by it too.
const ENTRY_BYTES_MIN: u64 = FRAME_BYTES;

/// A folder beside the node's own one, perhaps on another disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheFolder {
    /// Made if missing.
    pub path: PathBuf,
    /// Disk space of the cache there.
    pub bytes_max: u64,
}

/// What all folders share.
#[derive(Clone, Debug)]
struct Common {
    stats: Arc<ReadStats>,
    clock: Arc<dyn Clock>,
    /// Guards what people asked to keep; taken after a folder's lock.
    pins: Arc<Mutex<Pins>>,
}

/// What a file counts against the budget.
fn charge(len: u64) -> u64 {
    len.next_multiple_of(4096).max(ENTRY_BYTES_MIN)
}

#[derive(Debug)]
pub(super) struct Disk {
    /// The first is the node's own, beside the stage.
    folders: Vec<Folder>,
    common: Common,
}

impl Disk {
    /// Makes directories that are missing and learns what is in them. `beside`: bytes that lie elsewhere on the first one's disk
    /// and count for it. A folder of `more` whose disk does not work is left out until it does.
    ///
    /// Errors: the first directory cannot be made or listed; another node uses one of the others.
    pub fn open(
        dir: &Path,
        more: &[CacheFolder],
        limits: DiskLimits,
        beside: Arc<AtomicU64>,
        stats: Arc<ReadStats>,
        clock: Arc<dyn Clock>,
    ) -> Result<Disk> {
        let bytes_max =
            more.iter().fold(limits.bytes_max, |sum, folder| sum.saturating_add(folder.bytes_max));
        let common = Common { stats, clock, pins: Arc::new(Mutex::new(Pins::new(bytes_max))) };
        let each = DiskLimits { open_files_max: limits.open_files_max / (1 + more.len()), ..limits };
        let mut folders = vec![Folder::of(dir, each, beside, common.clone(), false)];
        for folder in more {
            let limits = DiskLimits { bytes_max: folder.bytes_max, ..each };
            folders.push(Folder::of(&folder.path, limits, Arc::default(), common.clone(), true));
        }
        let disk = Disk { folders, common };
        disk.folders[0].open()?;
        for folder in &disk.folders[1..] {
            match folder.open() {
                Err(e) if e.kind() == Kind::Busy => return Err(e),
                Err(e) => folder.die(&e.to_string()),
                Ok(()) => {}
            }
        }
        disk.folders.iter().for_each(|folder| disk.drop_misplaced(folder));
        Ok(disk)
    }

    /// Where a chunk goes, of the folders that are wanted.
    fn best(&self, key: ChunkKey, wanted: impl Fn(&Folder) -> bool) -> Option<&Folder> {
        let place = key.place(RUN_CHUNKS);
        let scored = self.folders.iter().filter(|folder| wanted(folder)).map(|f| (f.score(place), f));
        scored.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, folder)| folder)
    }

    /// Where a chunk is, if it is anywhere, and where it goes; `None`: no disk works.
    fn folder(&self, key: ChunkKey) -> Option<&Folder> {
        match &self.folders[..] {
            [only] => Some(only).filter(|folder| folder.is_alive()),
            _ => self.best(key, Folder::is_alive),
        }
    }

    /// Drops what this folder would not have if all worked.
    fn drop_misplaced(&self, folder: &Folder) {
        if self.folders.len() > 1 {
            folder.drop_misplaced(|key| {
                self.best(key, |_| true).is_some_and(|best| std::ptr::eq(best, folder))
            });
        }
    }

    /// Bytes used, as the budgets count them.
    pub fn bytes(&self) -> u64 {
        self.folders.iter().map(Folder::bytes).sum()
    }

    /// Bytes that may be used.
    pub fn bytes_max(&self) -> u64 {
        self.folders.iter().map(Folder::bytes_max).sum()
    }

    /// What a namespace may have from now on: each disk has its part, by its size. False when all minimums are more than there is.
    pub fn set_share(&self, ns: NamespaceId, share: CacheShare) -> bool {
        let bytes_max = self.bytes_max();
        for folder in &self.folders {
            folder.set_share(ns, share.part(folder.bytes_max(), bytes_max));
        }
        self.folders.iter().map(Folder::minimums).fold(0, u64::saturating_add) <= bytes_max
    }

    /// Bytes that a namespace may have.
    pub fn bytes_max_of(&self, ns: NamespaceId) -> u64 {
        self.folders.iter().map(|folder| folder.bytes_max_of(ns)).fold(0, u64::saturating_add)
    }

    /// Bytes that are known to be the namespace's.
    pub fn bytes_of(&self, ns: NamespaceId) -> u64 {
        self.folders.iter().map(|folder| folder.bytes_of(ns)).sum()
    }

    /// Chunks and tables on disk.
    pub fn entries(&self) -> usize {
        self.folders.iter().map(Folder::entries).sum()
    }

    /// What is wrong with the disks now, for a person.
    pub fn trouble(&self) -> Option<String> {
        let troubles: Vec<String> = self.folders.iter().filter_map(Folder::trouble).collect();
        (!troubles.is_empty()).then(|| troubles.join("; "))
    }

    pub fn contains(&self, key: ChunkKey) -> bool {
        self.folder(key).is_some_and(|folder| folder.contains(key))
    }

    /// Tells the policy of a read that was answered from memory. Never waits: under contention it is not told.
    pub fn touch_soon(&self, ns: NamespaceId, key: ChunkKey, frame: u32) {
        if let Some(folder) = self.folder(key) {
            folder.touch_soon(ns, key, frame);
        }
    }

    /// These frames of a chunk, verified; `None` when the chunk is not here, or was damaged and is no more.
    pub fn read_frames(&self, ns: NamespaceId, key: ChunkKey, frames: Range<u32>) -> Option<Bytes> {
        self.folder(key)?.read_frames(ns, key, frames)
    }

    /// Bytes of a chunk, verified, for who copies them elsewhere: that is no use of the chunk.
    pub fn copy_of(&self, key: ChunkKey, range: &Range<u64>) -> Option<Bytes> {
        self.folder(key)?.copy_of(key, range)
    }

    /// A descriptor of the chunk's file for another process; `None` when the chunk is not here.
    pub fn lend(&self, ns: NamespaceId, key: ChunkKey) -> Option<File> {
        self.folder(key)?.lend(ns, key)
    }

    /// A reader reads a chunk, which may have to come first, and comes to it again at `at`, by a clock of which it is `now`.
    pub fn want(&self, key: ChunkKey, reader: ReaderId, at: u64, now: u64) {
        if let Some(folder) = self.folder(key) {
            folder.want(key, reader, at, now);
        }
    }

    /// A reader is gone.
    pub fn forget_reader(&self, reader: ReaderId) {
        self.folders.iter().for_each(|folder| folder.forget_reader(reader));
    }

    /// The chunk's bytes are written from where they are. False when they could not be kept. `ahead`: nobody asked yet.
    pub fn insert(&self, ns: NamespaceId, key: ChunkKey, parts: &[&[u8]], crcs: &[u32], ahead: bool) -> bool {
        self.revive();
        let kept = self.folder(key).is_some_and(|folder| folder.insert(ns, key, parts, crcs, ahead));
        if !kept {
            add(&self.common.stats.uncached, 1);
        }
        kept
    }

    pub fn contains_sums(&self, object: ObjectId) -> bool {
        self.contains(ChunkKey::sums(object))
    }

    pub fn insert_sums(&self, ns: NamespaceId, sums: &FrameSums) {
        if let Some(folder) = self.folder(ChunkKey::sums(sums.object)) {
            folder.insert_sums(ns, sums);
        }
    }

    pub fn read_sums(&self, ns: NamespaceId, object: ObjectId) -> Option<FrameSums> {
        self.folder(ChunkKey::sums(object))?.read_sums(ns, object)
    }

    pub fn remove_sums(&self, object: ObjectId) {
        self.folders.iter().for_each(|folder| folder.remove_sums(object));
    }

    pub fn has_some(&self, object: ObjectId) -> bool {
        self.folders.iter().any(|folder| folder.has_some(object))
    }

    /// Everything of an object.
    pub fn remove(&self, object: ObjectId) {
        self.pins().forget(object);
        self.folders.iter().for_each(|folder| folder.remove(object));
    }

    /// Removes entries and their files.
    pub fn forget(&self, keys: &[ChunkKey]) {
        for key in keys {
            if let Some(folder) = self.folder(*key) {
                folder.forget(std::slice::from_ref(key));
            }
        }
    }

    /// Drops an object's chunks that nobody pinned: they are elsewhere on this node.
    pub fn drop_unpinned(&self, object: ObjectId) {
        self.folders.iter().for_each(|folder| folder.drop_unpinned(object));
    }

    fn pins(&self) -> std::sync::MutexGuard<'_, Pins> {
        self.common.pins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps these chunks, those that come later too. `NoSpace`: pins may not take so much; none of them is pinned.
    pub fn pin(&self, object: ObjectId, chunks: Range<u32>) -> Result<()> {
        self.pins().add(object, chunks.clone())?;
        self.folders.iter().for_each(|folder| folder.tell_pins(object, chunks.clone()));
        Ok(())
    }

    /// Takes back one [`pin`](Self::pin) of each.
    pub fn unpin(&self, object: ObjectId, chunks: Range<u32>) {
        self.pins().remove(object, chunks.clone());
        self.folders.iter().for_each(|folder| folder.tell_pins(object, chunks.clone()));
    }

    /// Somebody asked for this chunk to be here: it does not leave as the first that was never read does.
    pub fn settle(&self, key: ChunkKey) {
        if let Some(folder) = self.folder(key) {
            folder.settle(key);
        }
    }

    /// Bytes that pins take of the budget, whether they are on disk or not.
    pub fn pinned_bytes(&self) -> u64 {
        self.pins().bytes()
    }

    /// Bytes of pinned chunks in the node's own folder.
    pub fn own_pinned_bytes(&self) -> u64 {
        self.folders[0].pinned_bytes()
    }

    /// Whether so much may be fetched ahead for a namespace without pushing out what was fetched ahead before.
    pub fn has_room_ahead(&self, ns: NamespaceId, bytes: u64) -> bool {
        self.folders.iter().any(|folder| folder.is_alive() && folder.has_room_ahead(ns, bytes))
    }

    /// Others need the first folder's disk: makes `bytes` free beside what is always left free, if the cache takes so much. Where the
    /// rest is not enough, what minimums and pins hold leaves too: what is written has nowhere else to go, and they are in the store.
    pub fn shrink(&self, bytes: u64) {
        self.folders[0].shrink(bytes);
    }

    /// Tries disks that died a while ago again.
    fn revive(&self) {
        for folder in &self.folders {
            if folder.is_due() {
                folder.revive();
                self.drop_misplaced(folder);
            }
        }
    }
}

#[cfg(test)]
mod tests;
