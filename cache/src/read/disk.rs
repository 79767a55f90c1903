//! The cache's files: `DIR/<2 hex>/<object id>.<chunk, 8 hex>` ([`chunk_file`]) and `DIR/<2 hex>/<object id>.footer`
//! ([`FrameSums`]), where the two digits are the last of the object id.
//!
//! A file is written under a temporary name and renamed, and never changed. Nothing is flushed: what a power loss leaves
//! is found out by its checksums when it is read, and dropped. At open only names and sizes are looked at; what is not of ours
//! in those directories, and what a crash left half written, is deleted.
//!
//! An unlink may race with a rename of the same chunk (both outside the lock): then an entry has no file. That is found
//! at the next read, as any bad copy is, and costs one more fetch. A file without entry cannot come of it, because every
//! rename is followed by its entry.

mod chunk_file;
mod pins;

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, IoSlice, Write};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use granary_core::limits::{CHUNK_BYTES, FRAME_BYTES, FreeMin};
use granary_core::{Error, ObjectId, Result};

use super::lru::Lru;
use super::policy::{S3Fifo, SMALL_SHARE};
use super::stats::{ReadStats, add};
use super::sums::FrameSums;
use chunk_file::{BadCopy, ChunkFile};
use pins::Pins;

/// What an entry counts at least against the budget, so that the number of entries (about 200 bytes of memory each) is
/// bounded by it too.
const ENTRY_BYTES_MIN: u64 = FRAME_BYTES;

/// A chunk of an object, or its table of checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct ChunkKey {
    pub object: ObjectId,
    pub index: u32,
}

impl ChunkKey {
    /// Stands for the object's table of checksums.
    const SUMS: u32 = u32::MAX;

    fn sums(object: ObjectId) -> ChunkKey {
        ChunkKey { object, index: ChunkKey::SUMS }
    }

    fn file_name(self) -> String {
        match self.index {
            ChunkKey::SUMS => format!("{}.footer", self.object),
            index => format!("{}.{index:08x}", self.object),
        }
    }

    fn parse(name: &str) -> Option<ChunkKey> {
        let (id, index) = name.split_once('.')?;
        let object = id.parse().ok()?;
        let index = match index {
            "footer" => ChunkKey::SUMS,
            _ if index.len() == 8 => u32::from_str_radix(index, 16).ok().filter(|i| *i != ChunkKey::SUMS)?,
            _ => return None,
        };
        let key = ChunkKey { object, index };
        (key.file_name() == name).then_some(key)
    }
}

#[derive(Debug)]
struct State {
    policy: S3Fifo<ChunkKey>,
    open: Lru<ChunkKey, Arc<ChunkFile>>,
    /// Chunks on disk that were fetched ahead and not read since, with their bytes; all are in `policy`.
    unread: HashMap<ChunkKey, u64>,
    /// What people asked to keep, on disk or not.
    pins: Pins,
    /// Room made for files that are being written.
    reserved: u64,
}

/// Settings of [`Disk`].
#[derive(Clone, Copy, Debug)]
pub(super) struct DiskLimits {
    pub bytes_max: u64,
    /// Left free on the disk for others.
    pub free_min: FreeMin,
    pub open_files_max: usize,
}

#[derive(Debug)]
pub(super) struct Disk {
    dir: PathBuf,
    limits: DiskLimits,
    /// Guards what is where; held for look-ups and decisions, never across I/O. One lock: it is held for less than a
    /// microsecond per read, and every read of a 4 KiB file costs its reader ten.
    state: Mutex<State>,
    /// Bytes of the budget that lie elsewhere on this disk: whole files' clean copies.
    beside: Arc<AtomicU64>,
    temporary: AtomicU64,
    warned: AtomicBool,
    /// The last file could not be kept.
    failing: AtomicBool,
    stats: Arc<ReadStats>,
}

impl Disk {
    /// Makes the directory if missing and learns what is in it.
    pub fn open(
        dir: &Path,
        limits: DiskLimits,
        beside: Arc<AtomicU64>,
        stats: Arc<ReadStats>,
    ) -> Result<Disk> {
        let doing = || {
            format!("cannot use the cache directory {}; make it writable or choose another", dir.display())
        };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| Error::io(doing(), e))?;
        let mut found = Vec::new();
        for entry in fs::read_dir(dir).map_err(|e| Error::io(doing(), e))? {
            let entry = entry.map_err(|e| Error::io(doing(), e))?;
            let name = entry.file_name();
            let two_hex = name.to_str().is_some_and(|n| n.len() == 2 && u8::from_str_radix(n, 16).is_ok());
            if two_hex && entry.file_type().is_ok_and(|t| t.is_dir()) {
                scan(&entry.path(), &mut found).map_err(|e| Error::io(doing(), e))?;
            }
        }
        // The policy does not outlive a restart: the youngest files count as used last.
        found.sort_unstable_by_key(|(_, _, modified)| *modified);
        let mut policy = S3Fifo::new();
        for (key, len, _) in found {
            policy.restore(key, charge(len));
        }
        let open = Lru::new(limits.open_files_max);
        let state = Mutex::new(State {
            policy,
            open,
            unread: HashMap::new(),
            pins: Pins::new(limits.bytes_max),
            reserved: 0,
        });
        let (dir, temporary) = (dir.to_owned(), AtomicU64::new(0));
        let (warned, failing) = (AtomicBool::new(false), AtomicBool::new(false));
        let disk = Disk { dir, limits, state, beside, temporary, warned, failing, stats };
        disk.reserve(0, None); // the settings may have become smaller
        Ok(disk)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that may lie here.
    fn budget(&self) -> u64 {
        self.limits.bytes_max.saturating_sub(self.beside.load(Ordering::Relaxed))
    }

    fn path(&self, key: ChunkKey) -> PathBuf {
        self.dir.join(format!("{:02x}", key.object.0 & 0xff)).join(key.file_name())
    }

    /// Bytes used, as the budget counts them.
    pub fn bytes(&self) -> u64 {
        self.state().policy.bytes()
    }

    /// Chunks and tables on disk.
    pub fn entries(&self) -> usize {
        self.state().policy.len()
    }

    pub fn contains(&self, key: ChunkKey) -> bool {
        self.state().policy.contains(&key)
    }

    /// Tells the policy of a read that was answered from memory. Never waits: under contention it is not told.
    pub fn touch_soon(&self, key: ChunkKey, frame: u32) {
        if let Ok(mut state) = self.state.try_lock() {
            state.touch(key, frame, &self.stats);
        }
    }

    /// Bytes of a chunk, verified, for who copies them elsewhere: that is no use of the chunk.
    pub fn copy_of(&self, key: ChunkKey, range: &Range<u64>) -> Option<Bytes> {
        let open = {
            let mut state = self.state();
            if !state.policy.contains(&key) {
                return None;
            }
            state.open.get(&key).cloned()
        };
        let first = (range.start / FRAME_BYTES) as u32;
        let end = range.end.div_ceil(FRAME_BYTES) as u32;
        let read = || match open {
            Some(chunk) => chunk.read_frames(first..end),
            None => ChunkFile::open(File::open(self.path(key))?, key)?.read_frames(first..end),
        };
        let bytes = read().map_err(|e| self.drop_bad_copy(key, &e)).ok()?;
        let from = (range.start % FRAME_BYTES) as usize;
        let to = from + (range.end - range.start) as usize;
        (to <= bytes.len()).then(|| bytes.slice(from..to))
    }

    /// Drops an object's chunks that nobody pinned: they are elsewhere on this node.
    pub fn drop_unpinned(&self, object: ObjectId) {
        let range = ChunkKey { object, index: 0 }..=ChunkKey { object, index: u32::MAX - 1 };
        let keys = {
            let state = self.state();
            let mut keys = state.policy.keys_in(range);
            keys.retain(|key| !state.pins.contains(key));
            keys
        };
        self.forget(&keys);
    }

    /// These frames of a chunk, verified; `None` when the chunk is not here, or was damaged and is no more.
    pub fn read_frames(&self, key: ChunkKey, frames: Range<u32>) -> Option<Bytes> {
        let open = {
            let mut state = self.state();
            if !state.touch(key, frames.start, &self.stats) {
                return None;
            }
            state.open.get(&key).cloned()
        };
        let read = || {
            let chunk = match open {
                Some(chunk) => chunk,
                None => self.open_chunk(key)?,
            };
            chunk.read_frames(frames)
        };
        read().map_err(|e| self.drop_bad_copy(key, &e)).ok()
    }

    fn open_chunk(&self, key: ChunkKey) -> Result<Arc<ChunkFile>, BadCopy> {
        let chunk = Arc::new(ChunkFile::open(File::open(self.path(key))?, key)?);
        let mut state = self.state();
        // Not when it was removed meanwhile: its descriptor would keep the space.
        let old = if state.policy.contains(&key) { state.open.insert(key, chunk.clone()) } else { None };
        drop(state);
        drop(old);
        Ok(chunk)
    }

    fn drop_bad_copy(&self, key: ChunkKey, why: &BadCopy) {
        let path = self.path(key);
        match why {
            BadCopy::Damaged(why) => {
                tracing::warn!(file = %path.display(), why, "dropped a damaged copy from the read cache");
                add(&self.stats.local_corrupt, 1);
            }
            // Somebody emptied the directory, or the race told of above: nothing to report.
            BadCopy::Disk(e) if e.kind() == io::ErrorKind::NotFound => {}
            BadCopy::Disk(e) => self.warn_once("read", &path, e),
        }
        self.forget(&[key]);
    }

    /// The chunk's bytes are written from where they are. False when they could not be kept. `ahead`: nobody asked yet.
    pub fn insert(&self, key: ChunkKey, parts: &[&[u8]], crcs: &[u32], ahead: bool) -> bool {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        debug_assert!(len > 0 && len as u64 <= CHUNK_BYTES);
        let trailer = chunk_file::trailer(key, len as u32, crcs);
        let slices: Vec<IoSlice<'_>> =
            parts.iter().copied().chain([&trailer[..]]).map(IoSlice::new).collect();
        let kept = self.put(key, slices, (len + trailer.len()) as u64, ahead.then_some(len as u64));
        if !kept {
            add(&self.stats.uncached, 1);
        }
        kept
    }

    pub fn contains_sums(&self, object: ObjectId) -> bool {
        self.contains(ChunkKey::sums(object))
    }

    pub fn insert_sums(&self, sums: &FrameSums) {
        let bytes = sums.encode();
        self.put(ChunkKey::sums(sums.object), vec![IoSlice::new(&bytes)], bytes.len() as u64, None);
    }

    pub fn read_sums(&self, object: ObjectId) -> Option<FrameSums> {
        let key = ChunkKey::sums(object);
        if !self.state().touch(key, 0, &self.stats) {
            return None;
        }
        let read = || {
            let sums =
                FrameSums::decode(&fs::read(self.path(key))?).map_err(|e| BadCopy::Damaged(e.to_string()))?;
            if sums.object == object {
                Ok(sums)
            } else {
                Err(BadCopy::Damaged("it is another object's".into()))
            }
        };
        read().map_err(|e| self.drop_bad_copy(key, &e)).ok()
    }

    pub fn remove_sums(&self, object: ObjectId) {
        self.forget(&[ChunkKey::sums(object)]);
    }

    /// Keeps these chunks, those that come later too. `NoSpace`: pins may not take so much; none of them is pinned.
    pub fn pin(&self, object: ObjectId, chunks: Range<u32>) -> Result<()> {
        let mut state = self.state();
        state.pins.add(object, chunks.clone())?;
        state.tell_pins(object, chunks);
        Ok(())
    }

    /// Takes back one [`pin`](Self::pin) of each.
    pub fn unpin(&self, object: ObjectId, chunks: Range<u32>) {
        let mut state = self.state();
        state.pins.remove(object, chunks.clone());
        state.tell_pins(object, chunks);
    }

    /// Somebody asked for this chunk to be here: it does not leave as the first that was never read does.
    pub fn settle(&self, key: ChunkKey) {
        let mut state = self.state();
        let State { policy, pins, .. } = &mut *state;
        if let Some(size) = policy.size(&key) {
            policy.restore(key, size);
            policy.set_pinned(&key, pins.came(&key, size));
        }
    }

    /// Bytes that pins take of the budget, whether they are on disk or not.
    pub fn pinned_bytes(&self) -> u64 {
        self.state().pins.bytes()
    }

    pub fn has_some(&self, object: ObjectId) -> bool {
        let range = ChunkKey { object, index: 0 }..=ChunkKey { object, index: u32::MAX };
        !self.state().policy.keys_in(range).is_empty()
    }

    /// Everything of an object.
    pub fn remove(&self, object: ObjectId) {
        let range = ChunkKey { object, index: 0 }..=ChunkKey { object, index: u32::MAX };
        let keys = {
            let mut state = self.state();
            state.pins.forget(object);
            state.policy.keys_in(range)
        };
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

    fn unlink(&self, keys: &[ChunkKey]) {
        for &key in keys {
            let path = self.path(key);
            match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => self.warn_once("delete from", &path, &e),
                _ => {}
            }
        }
    }

    /// Writes a file and makes its entry. False when there is no room or the disk does not take it. `ahead`: nobody asked for
    /// these bytes of it yet.
    fn put(&self, key: ChunkKey, slices: Vec<IoSlice<'_>>, len: u64, ahead: Option<u64>) -> bool {
        let kept = self.try_put(key, slices, len, ahead);
        self.failing.store(!kept, Ordering::Relaxed);
        kept
    }

    fn try_put(&self, key: ChunkKey, mut slices: Vec<IoSlice<'_>>, len: u64, ahead: Option<u64>) -> bool {
        let (size, path) = (charge(len), self.path(key));
        if !self.reserve(size, None) {
            self.warn_once("keep anything in", &path, &io::ErrorKind::StorageFull.into());
            return false;
        }
        let temporary =
            path.with_file_name(format!(".new-{}", self.temporary.fetch_add(1, Ordering::Relaxed)));
        let mut write = || -> io::Result<()> {
            write_all(&mut create(&temporary)?, &mut slices)?;
            fs::rename(&temporary, &path)
        };
        let written = write();
        let mut state = self.state();
        state.reserved -= size;
        if let Err(e) = written {
            drop(state);
            self.warn_once("write to", &path, &e);
            // Its error would say no more than the first one.
            let _ = fs::remove_file(&temporary);
            return false;
        }
        state.policy.insert(key, size);
        let pinned = state.pins.came(&key, size);
        state.policy.set_pinned(&key, pinned);
        if let Some(bytes) = ahead {
            state.unread.insert(key, bytes);
        }
        let old = state.open.remove(&key);
        drop(state);
        drop(old);
        true
    }

    /// Whether so much may be fetched ahead without pushing out what was fetched ahead before: when the cache is full, half
    /// of the policy's small queue may wait for its readers.
    pub fn has_room_ahead(&self, bytes: u64) -> bool {
        let state = self.state();
        let full = state.policy.bytes() + state.reserved + bytes > self.budget();
        let unread = state.unread.len() as u64 * CHUNK_BYTES;
        if self.failing.load(Ordering::Relaxed) {
            return false; // it would be fetched for nothing
        }
        !full || unread + bytes <= self.limits.bytes_max / (2 * SMALL_SHARE)
    }

    /// Others need the disk: makes `bytes` free beside what is always left free, if the cache takes so much. Where the rest is
    /// not enough, pinned chunks leave too: what is written has nowhere else to go, and they are in the store.
    pub fn shrink(&self, bytes: u64) {
        self.reserve(0, Some(bytes));
    }

    /// Makes room for `bytes` and keeps it for the caller, who gives it back under the lock; `beside`: others need so many more
    /// than are left free always, and pinned chunks leave for them where nothing else is left. False when there is no room.
    fn reserve(&self, bytes: u64, beside: Option<u64>) -> bool {
        let (free, min) = rustix::fs::statvfs(&self.dir).map_or((u64::MAX, 0), |s| {
            let total = s.f_blocks.saturating_mul(s.f_frsize);
            let min = self.limits.free_min.near(total).saturating_add(beside.unwrap_or(0));
            (s.f_bavail.saturating_mul(s.f_frsize), min)
        });
        let mut state = self.state();
        let room = state.policy.bytes().saturating_add(free).saturating_sub(min);
        let budget = self.budget().min(room);
        let pinned = state.policy.pinned_bytes();
        let fits = state.reserved.saturating_add(bytes).saturating_add(pinned) <= budget;
        if fits {
            state.reserved += bytes;
        }
        let keep = budget.saturating_sub(state.reserved);
        let mut gone = state.policy.evict_to(keep, budget);
        if beside.is_some() && state.policy.bytes() > keep {
            state.policy.unpin_all();
            gone.extend(state.policy.evict_to(keep, budget));
            state.pin_again();
        }
        let mut closed = Vec::new();
        let (mut wasted, mut wasted_bytes) = (0, 0);
        for (key, _) in &gone {
            closed.extend(state.open.remove(key));
            if let Some(bytes) = state.unread.remove(key) {
                wasted += 1;
                wasted_bytes += bytes;
                state.policy.forget_ghost(key);
            }
        }
        drop(state);
        drop(closed);
        add(&self.stats.prefetch_wasted, wasted);
        add(&self.stats.prefetch_wasted_bytes, wasted_bytes);
        add(&self.stats.evicted_bytes, gone.iter().map(|(_, size)| size).sum());
        self.unlink(&gone.iter().map(|(key, _)| *key).collect::<Vec<_>>());
        fits
    }

    fn warn_once(&self, doing: &str, path: &Path, e: &io::Error) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "cannot {doing} the read cache at {}: {e}; reads go on without it, more slowly. free space on that disk, \
                 repair it, or lower cache_free_percent_min and cache_free_bytes_min (told once)",
                path.display()
            );
        }
    }
}

impl State {
    /// Tells the policy which of these chunks are pinned now.
    fn tell_pins(&mut self, object: ObjectId, chunks: Range<u32>) {
        let State { policy, pins, .. } = self;
        let Some(last) = chunks.end.checked_sub(1).filter(|last| *last >= chunks.start) else { return };
        let range = ChunkKey { object, index: chunks.start }..=ChunkKey { object, index: last };
        for key in policy.keys_in(range) {
            if let Some(size) = policy.size(&key) {
                let pinned = pins.came(&key, size);
                policy.set_pinned(&key, pinned);
            }
        }
    }

    /// Makes the policy know what is pinned.
    fn pin_again(&mut self) {
        let State { policy, pins, .. } = self;
        pins.keys().for_each(|key| policy.set_pinned(key, true));
    }

    fn touch(&mut self, key: ChunkKey, frame: u32, stats: &ReadStats) -> bool {
        if !self.unread.is_empty()
            && let Some(bytes) = self.unread.remove(&key)
        {
            add(&stats.prefetch_useful, 1);
            add(&stats.prefetch_used_bytes, bytes);
        }
        self.policy.touch(&key, frame)
    }
}

/// What a file counts against the budget.
fn charge(len: u64) -> u64 {
    len.next_multiple_of(4096).max(ENTRY_BYTES_MIN)
}

/// Finds the cache's files in one of its directories and deletes every other file.
fn scan(dir: &Path, found: &mut Vec<(ChunkKey, u64, (i64, i64))>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = match entry.metadata() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        if !metadata.is_file() {
            continue;
        }
        let key = entry.file_name().to_str().and_then(ChunkKey::parse);
        let in_place = |key: &ChunkKey| dir.ends_with(format!("{:02x}", key.object.0 & 0xff));
        match key.filter(in_place) {
            Some(key) if metadata.len() > 0 && metadata.len() <= 2 * CHUNK_BYTES => {
                found.push((key, metadata.len(), (metadata.mtime(), metadata.mtime_nsec())));
            }
            _ => fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}

/// A new file only its owner may read, in a directory that is made when it is missing. The cache's own directory is not: who
/// moved that away wants it back in its place.
fn create(path: &Path) -> io::Result<File> {
    let open = || OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    match (open(), path.parent()) {
        (Err(e), Some(dir)) if e.kind() == io::ErrorKind::NotFound => {
            match DirBuilder::new().mode(0o700).create(dir) {
                // Another thread was faster.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                made => made?,
            }
            open()
        }
        (result, _) => result,
    }
}

fn write_all(file: &mut File, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    IoSlice::advance_slices(&mut slices, 0); // skips empty ones at the front
    while !slices.is_empty() {
        match file.write_vectored(slices) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => IoSlice::advance_slices(&mut slices, n),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
