//! Reading objects through the node's disk cache of aligned chunks, each verified on its way in and out.
//!
//! ```text
//! read --> memory (frames read last) --> disk (chunks of 1 MiB) --> flight (being fetched) --> store
//! ```
//!
//! Objects are immutable and their ids are never used twice, so what is cached is never stale. The unit of fetching and
//! keeping is a *chunk*, 1 MiB of an object's payload; the unit of checking is a *frame*, 64 KiB, whose crc32c comes from
//! the object's footer when it is fetched, and lies beside the chunk on disk for every later read. A local copy that
//! does not match is dropped and fetched again; an object that does not match is an error.
//!
//! | module | noun |
//! |---|---|
//! | `policy` | what leaves when room is needed; decides only |
//! | `share` | a namespace's part of it |
//! | `readers` | those who say when they come again |
//! | `disk` | the files, their budget, open descriptors |
//! | `memory` | frames read last |
//! | `look` | what is here, without touching it |
//! | `sums` | an object's checksums |
//! | `fetch` | chunks on their way from the store |
//! | `stats` | counters |

mod ahead;
mod disk;
mod fetch;
mod look;
pub(crate) mod lru;
mod memory;
mod parts;
mod policy;
mod readers;
mod share;
mod stats;
pub(crate) mod sums;

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use granary_core::id::object_key;
use granary_core::limits::{CHUNK_BYTES, FRAME_BYTES, Limits};
use granary_core::{ByteBudget, Clock, Error, Kind, NamespaceId, ObjectId, Result};
use granary_meta::ObjectInfo;
use granary_store::Store;
use tokio::runtime::Handle;

use disk::{ChunkKey, Disk, DiskLimits};
use fetch::{Class, Fetcher};
use memory::MemoryFrames;
use parts::{Parts, chunks_within};
use sums::FrameSums;

use crate::prefetch::objects::Objects;
use crate::room::Room;

pub use disk::CacheFolder;
pub use fetch::LentChunk;
pub use look::Look;
pub use readers::{NextUse, Reader};
pub use share::CacheShare;
pub use stats::{ReadSnapshot, ReadStats};

/// Frames in memory at most; the kernel's page cache holds the rest.
const MEMORY_FRAMES_BYTES_MAX: u64 = 16 << 20;
/// A read of a chunk that just came is copied up to this size, so that a small reply does not keep 4 MiB alive.
const COPY_BYTES_MAX: usize = 2 * FRAME_BYTES as usize;
/// The part of the cache that may be fetched on a guess before one of its bytes is read, and what that is at least and at most.
const GUESS_SHARE: u64 = 64;
const GUESS_BYTES: Range<u64> = 64 << 20..1 << 30;
/// Objects at whose end reads go on in another one, until somebody looks which one that is.
const BEYOND_MAX: usize = 64;

/// How much what nobody waits for yet may wait itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Somebody said that they will read it soon.
    Announced,
    /// Some time.
    Background,
}

/// The node's cache of immutable objects' payloads, shared by all its mounts. Survives restarts.
#[derive(Debug)]
pub struct ReadCache {
    fetcher: Arc<Fetcher>,
    /// Guards what is known of how objects are read; held for one decision.
    ahead: Mutex<Objects>,
    /// Guards the list of objects behind whose end reads go on; and whether there are any.
    beyond: Mutex<Vec<(NamespaceId, ObjectId)>>,
    has_beyond: AtomicBool,
    /// Those who know their order.
    readers: readers::Readers,
    /// The disk's, which the stages of all namespaces share.
    room: Arc<Room>,
    /// Bytes of clean copies of whole files: a part of the cache's.
    clean_bytes: Arc<AtomicU64>,
    /// Who makes such a copy: one at a time.
    gathering: tokio::sync::Mutex<()>,
}

impl ReadCache {
    /// Opens `dir` (made if missing) and learns what is in it. Files of its own that are unknown or half written are
    /// deleted; damage is found when a file is read. Must be called within a Tokio runtime, where fetches will run.
    ///
    /// Of `memory`, a fetch holds its bytes until they are on disk; up to 16 MiB (an eighth of the budget if that is less)
    /// of frames read last are held beside it.
    ///
    /// Errors: the directory cannot be made or listed.
    pub fn open(
        dir: &Path,
        limits: &Limits,
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        memory: ByteBudget,
    ) -> Result<Arc<ReadCache>> {
        ReadCache::open_on(dir, &[], limits, store, clock, memory)
    }

    /// The same with more folders, each on a disk of its own: chunks are spread over all by their sizes. One whose disk does not
    /// work, now or later, is left out until it does; [`disk_trouble`](Self::disk_trouble) says so. `cache_bytes_max` is of
    /// `dir`, the free space that is left to others of each disk.
    ///
    /// Errors: `dir` cannot be made or listed; `Busy`: another node uses one of the others.
    pub fn open_on(
        dir: &Path,
        more: &[CacheFolder],
        limits: &Limits,
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        memory: ByteBudget,
    ) -> Result<Arc<ReadCache>> {
        let runtime = Handle::try_current().map_err(|e| {
            Error::new(Kind::Bug, "the read cache was opened outside a runtime").with_source(e)
        })?;
        let (stats, clean_bytes) = (Arc::new(ReadStats::default()), Arc::new(AtomicU64::new(0)));
        let disk_limits = DiskLimits {
            bytes_max: limits.cache_bytes_max,
            free_min: limits.cache_free_min(),
            open_files_max: limits.open_files_max as usize / 2, // the stage has the other half
        };
        let disk = Disk::open(dir, more, disk_limits, clean_bytes.clone(), stats.clone(), clock.clone())?;
        let room = Arc::new(Room::open(dir, limits.cache_free_min())?);
        let frames = MemoryFrames::new(MEMORY_FRAMES_BYTES_MAX.min(memory.max() / 8));
        let fetcher = Fetcher::new(store, disk, frames, stats, clock, memory, limits.fetches_max, runtime);
        let guess = (limits.cache_bytes_max / GUESS_SHARE).clamp(GUESS_BYTES.start, GUESS_BYTES.end);
        Ok(Arc::new(ReadCache {
            fetcher: Arc::new(fetcher),
            ahead: Mutex::new(Objects::new(guess)),
            beyond: Mutex::default(),
            has_beyond: AtomicBool::new(false),
            readers: readers::Readers::default(),
            room,
            clean_bytes,
            gathering: tokio::sync::Mutex::new(()),
        }))
    }

    /// The payload bytes of `range`, from memory or disk only: `None` when a part is not cached (or the range is not
    /// within the payload: [`read`](Self::read) says so). Does not wait for the store.
    pub fn read_ready(&self, ns: NamespaceId, object: &ObjectInfo, range: Range<u64>) -> Option<Bytes> {
        if range.start > range.end || range.end > object.payload_len {
            return None;
        }
        let mut parts = Parts::of(object.id, &range);
        // A look before reading: what is found would be read twice when another part is missing.
        if parts.len() > 1 && !parts.keys().all(|key| self.fetcher.disk.contains(key)) {
            return None;
        }
        for at in 0..parts.len() {
            let (key, within) = parts.at(at);
            parts.found[at] = Some(self.fetcher.local(ns, key, &within)?);
        }
        // One read in a crowd is not missed.
        if let Ok(ahead) = self.ahead.try_lock() {
            self.tell(ahead, ns, object, &range, false);
        }
        Some(parts.join())
    }

    /// The payload bytes of `range`: what is not cached is fetched (whole chunks, each once however many ask), verified
    /// against the object's footer, cached. May be dropped at any time; the fetch goes on. The caller must not hold a
    /// part of the memory budget, for which a fetch may have to wait.
    ///
    /// Errors: `Corrupt` names the object; `NotFound`, `Unavailable`, `Denied` as the store says; `Bug` when the range is not
    /// within the payload.
    pub async fn read(&self, ns: NamespaceId, object: &ObjectInfo, range: Range<u64>) -> Result<Bytes> {
        if range.start > range.end || range.end > object.payload_len {
            return Err(Error::new(
                Kind::Bug,
                format!(
                    "bytes {range:?} of object {} were asked for, which has {}",
                    object_key(ns, object.kind, object.id),
                    object.payload_len
                ),
            ));
        }
        let mut parts = Parts::of(object.id, &range);
        let mut missing = Vec::new();
        for at in 0..parts.len() {
            let (key, within) = parts.at(at);
            parts.found[at] = self.fetcher.local(ns, key, &within);
            if parts.found[at].is_none() {
                missing.push((at, key.index));
            }
        }
        let chunks: Vec<u32> = missing.iter().map(|(_, index)| *index).collect();
        let (flights, started) = self.fetcher.demand(ns, object, &chunks, false);
        self.tell(self.ahead(), ns, object, &range, started);
        for ((at, index), flight) in missing.into_iter().zip(flights) {
            let (key, within) = parts.at(at);
            let flight = match flight {
                Some(flight) => flight,
                // It came to disk between the two looks.
                None => match self.fetcher.local(ns, key, &within) {
                    found @ Some(_) => {
                        parts.found[at] = found;
                        continue;
                    }
                    None => {
                        match self.fetcher.demand(ns, object, &[index], true).0.into_iter().flatten().next() {
                            Some(flight) => flight,
                            None => {
                                return Err(Error::new(
                                    Kind::Bug,
                                    "a fetch that was asked for did not start",
                                ));
                            }
                        }
                    }
                },
            };
            let chunk = flight.bytes().await?;
            let (from, to) = (within.start as usize, within.end as usize);
            parts.found[at] = Some(match to - from {
                small if small <= COPY_BYTES_MAX => Bytes::copy_from_slice(&chunk[from..to]),
                _ => chunk.slice(from..to),
            });
        }
        Ok(parts.join())
    }

    /// Takes an object that was just uploaded by this node: its payload (the parts in order) and its footer bytes (from
    /// the end of the payload to the end of the object), so that reading it needs no store. Never fails: a full disk
    /// means it is not cached. Writes to the cache's disk before it returns: call it where that is no harm.
    pub fn insert(&self, ns: NamespaceId, object: &ObjectInfo, payload: &[Bytes], footer: &Bytes) {
        let len: u64 = payload.iter().map(|part| part.len() as u64).sum();
        let sums = FrameSums::of_footer(ns, object, footer);
        match sums {
            Ok(sums) if len == object.payload_len => self.fetcher.insert(ns, payload, sums),
            Ok(_) => {
                tracing::error!(object = %object.id, len, object.payload_len, "not cached: its length is wrong")
            }
            Err(e) => tracing::error!(object = %object.id, "not cached: {e}"),
        }
    }

    /// Fetches in the background, after all that readers and prefetch want, what of `range` is not on disk; how many bytes. Returns
    /// when it is there.
    ///
    /// Errors: those of [`read`](Self::read); `NoSpace` when the cache does not keep it.
    pub async fn bring(
        &self,
        ns: NamespaceId,
        object: &ObjectInfo,
        range: Range<u64>,
        patience: Patience,
    ) -> Result<u64> {
        let range = range.start..range.end.min(object.payload_len);
        let class = match patience {
            Patience::Announced => Class::Announced,
            Patience::Background => Class::Background,
        };
        self.fetcher.bring(ns, object, chunks_within(&range), class).await
    }

    /// These chunks of an object, whole, for another process, in order: the cache's own files where it keeps them. What is not here is
    /// fetched, each chunk once however many ask. `check`: what is here is verified first; else who reads it verifies it.
    ///
    /// Errors: as [`read`](Self::read).
    pub(crate) async fn lend(
        &self,
        ns: NamespaceId,
        object: &ObjectInfo,
        chunks: Range<u32>,
        check: bool,
    ) -> Result<Vec<LentChunk>> {
        self.fetcher.lend(ns, object, chunks, check).await
    }

    /// How many of these bytes of an object's payload are on disk.
    pub fn cached_bytes(&self, object: ObjectId, range: &Range<u64>) -> u64 {
        let part = |index: u32| {
            let chunk = u64::from(index) * CHUNK_BYTES..(u64::from(index) + 1) * CHUNK_BYTES;
            range.end.min(chunk.end) - range.start.max(chunk.start)
        };
        let here = |index: &u32| self.fetcher.disk.contains(ChunkKey { object, index: *index });
        chunks_within(range).filter(here).map(part).sum()
    }

    /// Drops the chunks with these bytes from disk and memory. Deletes files.
    pub fn evict(&self, object: ObjectId, range: &Range<u64>) {
        self.fetcher.evict(object, chunks_within(range));
        self.ahead().forget(object);
    }

    /// Keeps these chunks of an object on this node: those that are cached, and those that are not from when they come. Nothing
    /// is fetched. They do not leave for others that are read; only when what is written has no room on the disk and
    /// nothing else is left to drop, they go too, and are kept again once they were fetched again. Pins are counted
    /// (two trees may share a pack), and not remembered over a restart.
    ///
    /// Errors: `NoSpace` when pins would take more than half of the cache; then none of these chunks is pinned.
    pub fn pin_chunks(&self, _ns: NamespaceId, object: ObjectId, chunks: Range<u32>) -> Result<()> {
        self.fetcher.disk.pin(object, chunks)
    }

    /// Takes back one pin of each of these chunks; those that are not pinned are left as they are.
    pub fn unpin_chunks(&self, _ns: NamespaceId, object: ObjectId, chunks: Range<u32>) {
        self.fetcher.disk.unpin(object, chunks);
    }

    /// Bytes of the cache that pins take; a chunk that is not here yet counts as a whole one.
    pub fn pinned_bytes(&self) -> u64 {
        self.fetcher.disk.pinned_bytes()
    }

    /// Whether all of an object's range is on disk.
    pub fn has(&self, object: ObjectId, range: Range<u64>) -> bool {
        Parts::of(object, &range).keys().all(|key| self.fetcher.disk.contains(key))
    }

    /// A range of an object in pieces, from disk, verified, for who copies it elsewhere: it does not count as read. `None` when
    /// not all of it is there.
    pub(crate) fn copy_of(&self, object: ObjectId, range: Range<u64>) -> Option<Vec<Bytes>> {
        let parts = Parts::of(object, &range);
        (0..parts.len())
            .map(|at| {
                let (key, within) = parts.at(at);
                self.fetcher.disk.copy_of(key, &within)
            })
            .collect()
    }

    /// An object's chunks are elsewhere on this node from now on. Pinned ones stay.
    pub(crate) fn drop_chunks(&self, object: ObjectId) {
        self.fetcher.disk.drop_unpinned(object);
    }

    /// What a namespace may have of the cache from now on, instead of all that others leave. To be said before it is read: after a
    /// restart its chunks are known as its own when they are first read, and have no protection until then. Nothing leaves
    /// at once when it has more than its maximum now.
    pub fn set_share(&self, ns: NamespaceId, share: CacheShare) {
        if !self.fetcher.disk.set_share(ns, share) {
            tracing::warn!(
                "the minimums of the namespaces that are open are more than the read cache has ({} bytes): some of what is read will \
                 not be kept; lower them in cache_shares, or raise cache_bytes_max",
                self.bytes_max()
            );
        }
    }

    /// Bytes on disk that are known to be a namespace's, as the budget counts them, without clean copies of whole files.
    pub fn namespace_bytes(&self, ns: NamespaceId) -> u64 {
        self.fetcher.disk.bytes_of(ns)
    }

    /// Counts the bytes of clean copies of whole files, all namespaces', which are a part of the cache.
    pub(crate) fn clean_counter(&self) -> Arc<AtomicU64> {
        self.clean_bytes.clone()
    }

    /// Bytes of clean copies of whole files.
    pub fn clean_bytes(&self) -> u64 {
        self.clean_bytes.load(Ordering::Relaxed)
    }

    /// The right to copy a file's chunks to a file of its own.
    pub(crate) async fn gathering(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.gathering.lock().await
    }

    /// Whether any chunk of the object is cached.
    pub fn has_some(&self, object: ObjectId) -> bool {
        self.fetcher.disk.has_some(object)
    }

    /// Drops every chunk of an object that was deleted.
    pub fn remove(&self, object: ObjectId) {
        self.ahead().remove(object);
        self.fetcher.remove(object);
    }

    /// Counters, for metrics and `granary status`.
    pub fn stats(&self) -> ReadSnapshot {
        self.fetcher.stats.snapshot()
    }

    /// The room on the disk, for all that lies there.
    pub(crate) fn room(&self) -> &Arc<Room> {
        &self.room
    }

    /// What is wrong with the node's disks at this moment, for a person.
    pub fn disk_trouble(&self) -> Option<String> {
        let troubles: Vec<String> =
            self.room.trouble().into_iter().chain(self.fetcher.disk.trouble()).collect();
        (!troubles.is_empty()).then(|| troubles.join("; "))
    }

    /// Drops what is cached until `bytes` are free beside what is left to others, or nothing is cached. Deletes files.
    pub(crate) fn shrink(&self, bytes: u64) {
        self.fetcher.disk.shrink(bytes);
    }

    /// Bytes that may lie on the node's disks, in all folders.
    pub fn bytes_max(&self) -> u64 {
        self.fetcher.disk.bytes_max()
    }

    /// Bytes that a namespace may have of the cache, as its share says.
    pub(crate) fn bytes_max_of(&self, ns: NamespaceId) -> u64 {
        self.fetcher.disk.bytes_max_of(ns)
    }

    /// Bytes of pinned chunks beside the stage.
    pub(crate) fn own_pinned_bytes(&self) -> u64 {
        self.fetcher.disk.own_pinned_bytes()
    }

    /// Bytes on disk as the budget counts them, and the number of files.
    pub fn usage(&self) -> (u64, usize) {
        (self.fetcher.disk.bytes(), self.fetcher.disk.entries())
    }

    /// Returns when no fetch is under way and what was fetched is on disk: before the runtime ends.
    pub async fn idle(&self) {
        self.fetcher.idle().await;
    }
}

#[cfg(test)]
mod tests;
