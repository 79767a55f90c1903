//! One folder of the cache's files: `DIR/<2 hex>/<object id>.<chunk, 8 hex>` ([`chunk_file`](super::chunk_file)) and `DIR/<2 hex>/<object id>.footer`
//! ([`FrameSums`]), where the two digits are the last of the object id.
//!
//! A file is written under a temporary name and renamed, and never changed. Nothing is flushed: what a power loss leaves
//! is found out by its checksums when it is read, and dropped. At open only names and sizes are looked at; what is not of ours
//! in those directories, and what a crash left half written, is deleted.
//!
//! An unlink may race with a rename of the same chunk (both outside the lock): then an entry has no file. That is found
//! at the next read, as any bad copy is, and costs one more fetch. A file without entry cannot come of it, because every
//! rename is followed by its entry.
//!
//! | module | noun |
//! |---|---|
//! | `state` | what is where, and what is kept free; decides only |
//! | `room` | what has to leave so that something may come |
//! | `files` | how files are found, written and removed |
//! | `reads` | how they are read, verified |
//! | `life` | whether the disk works, and is still the one that it was |

mod files;
mod life;
mod reads;
mod room;
mod state;

use std::fs::{self, DirBuilder, File};
use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use granary_core::limits::{CHUNK_BYTES, FreeMin};
use granary_core::{Error, Kind, NamespaceId, ObjectId, Result};

use super::chunk_file::{self, BadCopy, ChunkFile};
use super::health::Health;
use super::key::mix;
use super::pins::Pins;
use super::unread::Unread;
use super::{ChunkKey, Common, RUN_CHUNKS, charge};
use crate::read::lru::Lru;
use crate::read::policy::{ReaderId, S3Fifo};
use crate::read::share::CacheShare;
use crate::read::sums::FrameSums;

use files::scan;
use life::identity;
use state::State;

/// Entries that are looked at under the lock when a reader is gone.
const FORGET_AT_ONCE: usize = 1024;

/// Settings of [`Folder`].
#[derive(Clone, Copy, Debug)]
pub(in crate::read) struct DiskLimits {
    pub bytes_max: u64,
    /// Left free on the disk for others.
    pub free_min: FreeMin,
    pub open_files_max: usize,
}

#[derive(Debug)]
pub(super) struct Folder {
    dir: PathBuf,
    limits: DiskLimits,
    common: Common,
    /// Guards what is where; held for look-ups and decisions, never across I/O. One lock: it is held for less than a
    /// microsecond per read, and every read of a 4 KiB file costs its reader ten.
    state: Mutex<State>,
    /// Bytes of the budget that lie elsewhere on this disk: whole files' clean copies.
    beside: Arc<AtomicU64>,
    temporary: AtomicU64,
    warned: AtomicBool,
    /// The last file could not be kept.
    failing: AtomicBool,
    /// The disk works.
    alive: AtomicBool,
    /// Guards what is known of that, for a moment; the state's lock is never taken under it.
    health: Mutex<Health>,
    /// Guards which directory it was when it was opened (device and inode); `None`: never yet.
    opened: Mutex<Option<(u64, u64)>>,
    /// Keeps other nodes away from a folder that is not in the node's own directory.
    mark: Mutex<Option<File>>,
    is_locked: bool,
    /// An error counts against the disk, until something works.
    stricken: AtomicBool,
    /// Of its path, the same in every run.
    name: u64,
}

impl Folder {
    /// Not usable before it is opened. `shut_off`: other nodes are kept away.
    pub fn of(
        dir: &Path,
        limits: DiskLimits,
        beside: Arc<AtomicU64>,
        common: Common,
        shut_off: bool,
    ) -> Folder {
        Folder {
            dir: dir.to_owned(),
            limits,
            common,
            state: Mutex::new(State {
                policy: S3Fifo::new(),
                open: Lru::new(limits.open_files_max),
                unread: Unread::default(),
                reserved: 0,
            }),
            beside,
            temporary: AtomicU64::new(0),
            warned: AtomicBool::new(false),
            failing: AtomicBool::new(false),
            alive: AtomicBool::new(false),
            health: Mutex::default(),
            opened: Mutex::default(),
            mark: Mutex::default(),
            is_locked: shut_off,
            stricken: AtomicBool::new(false),
            name: fnv1a(dir.as_os_str().as_encoded_bytes()),
        }
    }

    /// Makes the directory if missing and learns what is in it.
    ///
    /// Errors: it cannot be made, listed or written; `Busy`: another node uses it.
    pub fn open(&self) -> Result<()> {
        let doing = || {
            let dir = self.dir.display();
            format!("cannot use the cache directory {dir}; make it writable or choose another")
        };
        let make = || DirBuilder::new().recursive(true).mode(0o700).create(&self.dir);
        make().and_then(|()| self.put_mark()).map_err(|e| match e.kind() {
            io::ErrorKind::WouldBlock => Error::new(
                Kind::Busy,
                format!("the cache directory {} is used by another node; choose another", self.dir.display()),
            ),
            _ => Error::io(doing(), e),
        })?;
        self.learn().map_err(|e| Error::io(doing(), e))
    }

    /// Reads the directory, and begins to use it.
    fn learn(&self) -> io::Result<()> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let two_hex = name.to_str().is_some_and(|n| n.len() == 2 && u8::from_str_radix(n, 16).is_ok());
            if two_hex && entry.file_type().is_ok_and(|t| t.is_dir()) {
                scan(&entry.path(), &mut found)?;
            }
        }
        *self.opened.lock().unwrap_or_else(PoisonError::into_inner) = Some(identity(&self.dir)?);
        // The policy does not outlive a restart: the youngest files count as used last.
        found.sort_unstable_by_key(|(_, _, modified)| *modified);
        {
            let mut guard = self.state();
            let state = &mut *guard;
            state.policy = state.policy.emptied();
            let mut pins = self.pins();
            for (key, len, _) in found {
                state.policy.restore(key, charge(len));
                let pinned = pins.came(&key, charge(len));
                state.policy.set_pinned(&key, pinned);
            }
            self.health().live();
            self.alive.store(true, Ordering::SeqCst);
        }
        self.reserve(0, None, None); // the settings may have become smaller
        Ok(())
    }

    pub fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Relaxed)
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pins(&self) -> MutexGuard<'_, Pins> {
        self.common.pins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops what has its place in another folder, since folders or their sizes changed.
    pub fn drop_misplaced(&self, is_here: impl Fn(ChunkKey) -> bool) {
        let first = ChunkKey { object: ObjectId(0), index: 0 };
        let last = ChunkKey { object: ObjectId(u128::MAX), index: u32::MAX };
        let mut keys = self.state().policy.keys_in(first..=last);
        keys.retain(|key| !is_here(*key));
        self.forget(&keys);
    }

    /// Of a key's place, how much it is for this folder: the greatest score has it.
    pub fn score(&self, place: u64) -> f64 {
        let unit = (mix(place ^ self.name) >> 11) as f64 / (1_u64 << 53) as f64;
        -(self.limits.bytes_max as f64) / unit.max(f64::MIN_POSITIVE).ln()
    }

    /// Bytes that may lie here, whole files' copies included.
    pub fn bytes_max(&self) -> u64 {
        self.limits.bytes_max
    }

    /// Bytes of pinned chunks that are here.
    pub fn pinned_bytes(&self) -> u64 {
        self.state().policy.pinned_bytes()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, key: ChunkKey) -> PathBuf {
        self.dir.join(format!("{:02x}", key.object.0 & 0xff)).join(key.file_name())
    }

    /// Bytes used, as the budget counts them.
    pub fn bytes(&self) -> u64 {
        self.state().policy.bytes()
    }

    /// What a namespace may have here from now on.
    pub fn set_share(&self, ns: NamespaceId, share: CacheShare) {
        self.state().policy.set_share(ns, share);
    }

    /// All minimums that were set.
    pub fn minimums(&self) -> u64 {
        self.state().policy.minimums()
    }

    /// Bytes that a namespace may have here.
    pub fn bytes_max_of(&self, ns: NamespaceId) -> u64 {
        self.state().policy.bytes_max_of(ns)
    }

    /// Bytes that are known to be the namespace's.
    pub fn bytes_of(&self, ns: NamespaceId) -> u64 {
        self.state().policy.bytes_of(ns)
    }

    /// Chunks and tables on disk.
    pub fn entries(&self) -> usize {
        self.state().policy.len()
    }

    pub fn contains(&self, key: ChunkKey) -> bool {
        self.state().policy.contains(&key)
    }

    /// Tells the policy of a read that was answered from memory. Never waits: under contention it is not told.
    pub fn touch_soon(&self, ns: NamespaceId, key: ChunkKey, frame: u32) {
        if let Ok(mut state) = self.state.try_lock() {
            state.touch(ns, key, frame, &self.common.stats);
            state.policy.unwant(&key);
        }
    }

    /// A reader reads a chunk, which may have to come first, and comes to it again.
    pub fn want(&self, key: ChunkKey, reader: ReaderId, at: u64, now: u64) {
        self.state().policy.want(&key, reader, at, now);
    }

    /// A reader is gone. Some entries at a time, so that nobody waits for it.
    pub fn forget_reader(&self, reader: ReaderId) {
        let mut after = None;
        loop {
            after = self.state().policy.forget_reader(reader, after, FORGET_AT_ONCE);
            if after.is_none() {
                return;
            }
        }
    }

    /// Drops an object's chunks that nobody pinned: they are elsewhere on this node.
    pub fn drop_unpinned(&self, object: ObjectId) {
        let range = ChunkKey { object, index: 0 }..=ChunkKey { object, index: u32::MAX - 1 };
        let keys = {
            let state = self.state();
            let mut keys = state.policy.keys_in(range);
            let pins = self.pins();
            keys.retain(|key| !pins.contains(key));
            keys
        };
        self.forget(&keys);
    }

    /// The chunk's bytes are written from where they are. False when they could not be kept. `ahead`: nobody asked yet.
    pub fn insert(&self, ns: NamespaceId, key: ChunkKey, parts: &[&[u8]], crcs: &[u32], ahead: bool) -> bool {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        debug_assert!(len > 0 && len as u64 <= CHUNK_BYTES);
        let trailer = chunk_file::trailer(key, len as u32, crcs);
        let slices: Vec<IoSlice<'_>> =
            parts.iter().copied().chain([&trailer[..]]).map(IoSlice::new).collect();
        self.put(ns, key, slices, (len + trailer.len()) as u64, ahead.then_some(len as u64))
    }

    pub fn insert_sums(&self, ns: NamespaceId, sums: &FrameSums) {
        let bytes = sums.encode();
        self.put(ns, ChunkKey::sums(sums.object), vec![IoSlice::new(&bytes)], bytes.len() as u64, None);
    }

    pub fn remove_sums(&self, object: ObjectId) {
        self.forget(&[ChunkKey::sums(object)]);
    }

    /// Somebody asked for this chunk to be here: it does not leave as the first that was never read does.
    pub fn settle(&self, key: ChunkKey) {
        let mut state = self.state();
        if let Some(size) = state.policy.size(&key) {
            state.policy.settle(&key);
            let pinned = self.pins().came(&key, size);
            state.policy.set_pinned(&key, pinned);
        }
    }

    /// Looks which of these chunks are pinned now.
    pub fn tell_pins(&self, object: ObjectId, chunks: Range<u32>) {
        let Some(last) = chunks.end.checked_sub(1).filter(|last| *last >= chunks.start) else { return };
        let range = ChunkKey { object, index: chunks.start }..=ChunkKey { object, index: last };
        let mut state = self.state();
        let mut pins = self.pins();
        for key in state.policy.keys_in(range) {
            if let Some(size) = state.policy.size(&key) {
                let pinned = pins.came(&key, size);
                state.policy.set_pinned(&key, pinned);
            }
        }
    }

    pub fn has_some(&self, object: ObjectId) -> bool {
        let range = ChunkKey { object, index: 0 }..=ChunkKey { object, index: u32::MAX };
        !self.state().policy.keys_in(range).is_empty()
    }

    /// Everything of an object.
    pub fn remove(&self, object: ObjectId) {
        let range = ChunkKey { object, index: 0 }..=ChunkKey { object, index: u32::MAX };
        let keys = self.state().policy.keys_in(range);
        self.forget(&keys);
    }

    /// Removes entries and their files.
    pub fn forget(&self, keys: &[ChunkKey]) {
        let mut closed = Vec::new();
        {
            let mut state = self.state();
            for key in keys {
                state.policy.remove(key);
                state.unread.remove(key);
                closed.extend(state.open.remove(key));
            }
        }
        drop(closed);
        self.unlink(keys);
    }
}

/// The FNV-1a hash (Fowler, Noll, Vo).
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests;
