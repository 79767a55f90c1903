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

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, IoSlice, Write};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use granary_core::limits::{CHUNK_BYTES, FRAME_BYTES, FreeMin};
use granary_core::{Error, Kind, NamespaceId, ObjectId, Result};

use super::chunk_file::{self, BadCopy, ChunkFile};
use super::health::Health;
use super::key::mix;
use super::pins::Pins;
use super::unread::Unread;
use super::{ChunkKey, Common, RUN_CHUNKS};
use crate::read::lru::Lru;
use crate::read::policy::{S3Fifo, SMALL_SHARE};
use crate::read::share::CacheShare;
use crate::read::stats::{ReadStats, add};
use crate::read::sums::FrameSums;

/// What an entry counts at least against the budget, so that the number of entries (about 200 bytes of memory each) is
/// bounded by it too.
const ENTRY_BYTES_MIN: u64 = FRAME_BYTES;

#[derive(Debug)]
struct State {
    policy: S3Fifo<ChunkKey>,
    open: Lru<ChunkKey, Arc<ChunkFile>>,
    /// All are in `policy`.
    unread: Unread,
    /// Room made for files that are being written.
    reserved: u64,
}

/// By this file a folder is known again when its disk comes back: where one is to be mounted there is a directory too.
const MARK: &str = "granary-cache";

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

    /// Makes the file by which the folder is known, and locks it.
    fn put_mark(&self) -> io::Result<()> {
        let path = self.dir.join(MARK);
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        if self.is_locked {
            // Not for writing: that would keep the disk from being made read-only.
            let mark = File::open(path)?;
            rustix::fs::flock(&mark, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
            *self.mark.lock().unwrap_or_else(PoisonError::into_inner) = Some(mark);
        }
        Ok(())
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

    /// The disk does not work: what is on it is forgotten, until it does.
    pub fn die(&self, why: &str) {
        if !self.health().die(why, self.common.clock.monotonic()) {
            return;
        }
        self.alive.store(false, Ordering::SeqCst);
        let gone = {
            let mut state = self.state();
            let open = std::mem::replace(&mut state.open, Lru::new(self.limits.open_files_max));
            state.unread.clear();
            let emptied = state.policy.emptied();
            (open, std::mem::replace(&mut state.policy, emptied))
        };
        drop(gone); // closes files
        self.mark.lock().unwrap_or_else(PoisonError::into_inner).take();
        tracing::warn!(
            "the read cache at {} does not work: {why}; reads go on without it, more slowly, and it is tried again every minute. \
             Repair or replace that disk (told once)",
            self.dir.display()
        );
    }

    /// What is wrong, for a person.
    pub fn trouble(&self) -> Option<String> {
        let health = self.health();
        let why = health.why_dead()?;
        Some(format!(
            "the read cache at {} does not work: {why}; reads go on without it; repair or replace that disk",
            self.dir.display()
        ))
    }

    /// Something on the disk failed.
    fn failed(&self, e: &io::Error) {
        self.stricken.store(true, Ordering::Relaxed);
        let is_end = self.health().failed(e);
        if is_end {
            self.die(&e.to_string());
        }
    }

    fn works(&self) {
        if self.stricken.load(Ordering::Relaxed) && self.stricken.swap(false, Ordering::Relaxed) {
            self.health().works();
        }
    }

    /// Whether it is dead, and this caller is to try it again.
    pub fn is_due(&self) -> bool {
        !self.is_alive() && self.health().try_again(self.common.clock.monotonic())
    }

    /// Tries a dead disk.
    pub fn revive(&self) {
        let was_opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        let revived = match was_opened {
            // Made anew it would lie on the disk that the other was mounted on.
            true if !self.dir.join(MARK).exists() => return,
            true => self.probe().and_then(|()| self.put_mark()).and_then(|()| self.learn()).is_ok(),
            false => self.open().is_ok(),
        };
        if revived {
            tracing::info!("the read cache at {} works again", self.dir.display());
        }
    }

    fn probe(&self) -> io::Result<()> {
        let path = self.dir.join(format!("{MARK}.probe"));
        let mut file = create(&path)?;
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
        fs::remove_file(path)
    }

    /// An error when the folder is not where it was: what is written there now is on another disk.
    fn check_place(&self) -> io::Result<()> {
        let opened = *self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        match identity(&self.dir) {
            Ok(now) if Some(now) == opened => Ok(()),
            Ok(_) => Err(io::Error::other("another directory is in its place")),
            Err(e) => Err(e),
        }
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
            let pins = self.pins();
            keys.retain(|key| !pins.contains(key));
            keys
        };
        self.forget(&keys);
    }

    /// These frames of a chunk, verified; `None` when the chunk is not here, or was damaged and is no more.
    pub fn read_frames(&self, ns: NamespaceId, key: ChunkKey, frames: Range<u32>) -> Option<Bytes> {
        let open = {
            let mut state = self.state();
            if !state.touch(ns, key, frames.start, &self.common.stats) {
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
        let bytes = read().map_err(|e| self.drop_bad_copy(key, &e)).ok()?;
        self.works();
        Some(bytes)
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
                add(&self.common.stats.local_corrupt, 1);
            }
            // Somebody emptied the directory, or the race told of above: nothing to report.
            BadCopy::Disk(e) if e.kind() == io::ErrorKind::NotFound => {}
            BadCopy::Disk(e) => {
                self.failed(e);
                self.warn_once("read", &path, e);
            }
        }
        self.forget(&[key]);
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

    pub fn read_sums(&self, ns: NamespaceId, object: ObjectId) -> Option<FrameSums> {
        let key = ChunkKey::sums(object);
        if !self.state().touch(ns, key, 0, &self.common.stats) {
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

    fn unlink(&self, keys: &[ChunkKey]) {
        for &key in keys {
            let path = self.path(key);
            match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    self.failed(&e);
                    self.warn_once("delete from", &path, &e);
                }
                _ => {}
            }
        }
    }

    /// Writes a file and makes its entry. False when there is no room or the disk does not take it. `ahead`: nobody asked for
    /// these bytes of it yet.
    fn put(
        &self,
        ns: NamespaceId,
        key: ChunkKey,
        slices: Vec<IoSlice<'_>>,
        len: u64,
        ahead: Option<u64>,
    ) -> bool {
        let size = charge(len);
        let kept = match self.reserve(size, Some(ns), None) {
            Place::Made => self.write(ns, key, slices, size, ahead),
            Place::HeldByShares => return false,
            Place::None => {
                self.warn_once("keep anything in", &self.path(key), &io::ErrorKind::StorageFull.into());
                false
            }
        };
        self.failing.store(!kept, Ordering::Relaxed);
        kept
    }

    /// Writes a file for which there is room: `size` of it, which it takes or gives back.
    fn write(
        &self,
        ns: NamespaceId,
        key: ChunkKey,
        mut slices: Vec<IoSlice<'_>>,
        size: u64,
        ahead: Option<u64>,
    ) -> bool {
        let path = self.path(key);
        let temporary =
            path.with_file_name(format!(".new-{}", self.temporary.fetch_add(1, Ordering::Relaxed)));
        let mut write = || -> io::Result<()> {
            write_all(&mut create(&temporary)?, &mut slices)?;
            fs::rename(&temporary, &path)
        };
        let written = write();
        let mut state = self.state();
        state.reserved -= size;
        state.policy.release(ns, size);
        if let Err(e) = written {
            drop(state);
            self.failed(&e);
            self.warn_once("write to", &path, &e);
            // Its error would say no more than the first one.
            let _ = fs::remove_file(&temporary);
            return false;
        }
        if !self.is_alive() {
            return false;
        }
        state.policy.insert(key, size, ns);
        let pinned = self.pins().came(&key, size);
        state.policy.set_pinned(&key, pinned);
        if let Some(bytes) = ahead {
            state.unread.insert(key, bytes, ns);
        }
        let old = state.open.remove(&key);
        drop(state);
        drop(old);
        self.works();
        true
    }

    /// Whether so much may be fetched ahead, and kept, without pushing out what was fetched ahead before: when the cache is full,
    /// half of the policy's small queue may wait for its readers; the same of a namespace that has all of its maximum.
    pub fn has_room_ahead(&self, ns: NamespaceId, bytes: u64) -> bool {
        let state = self.state();
        let (room, most) = state.policy.room_of(ns);
        let held = state.policy.held_against(ns).saturating_add(state.reserved + bytes);
        if bytes > most || held > self.budget() {
            return false;
        }
        if bytes > room {
            let ahead_max = (most / (2 * SMALL_SHARE)).max(2 * u64::from(RUN_CHUNKS) * CHUNK_BYTES);
            if state.unread.bytes_of(ns) + bytes > ahead_max {
                return false;
            }
        }
        let full = state.policy.bytes() + state.reserved + bytes > self.budget();
        let unread = state.unread.len() as u64 * CHUNK_BYTES;
        if self.failing.load(Ordering::Relaxed) {
            return false; // it would be fetched for nothing
        }
        !full || unread + bytes <= self.limits.bytes_max / (2 * SMALL_SHARE)
    }

    /// Others need the disk: makes `bytes` free beside what is always left free, if the cache takes so much. Where the rest is
    /// not enough, what minimums and pins hold leaves too: what is written has nowhere else to go, and they are in the store.
    pub fn shrink(&self, bytes: u64) {
        self.reserve(0, None, Some(bytes));
    }

    /// Makes room for `bytes` of a namespace and keeps it for the caller, who gives it back under the lock; `beside`: others need
    /// so many more than are left free always, and what minimums and pins hold leaves for them where nothing else is left.
    fn reserve(&self, bytes: u64, ns: Option<NamespaceId>, beside: Option<u64>) -> Place {
        if let Err(e) = self.check_place() {
            if self.is_alive() {
                self.die(&e.to_string());
            }
            return Place::None;
        }
        let (free, min) = rustix::fs::statvfs(&self.dir).map_or((u64::MAX, 0), |s| {
            let total = s.f_blocks.saturating_mul(s.f_frsize);
            let min = self.limits.free_min.near(total).saturating_add(beside.unwrap_or(0));
            (s.f_bavail.saturating_mul(s.f_frsize), min)
        });
        let mut state = self.state();
        let room = state.policy.bytes().saturating_add(free).saturating_sub(min);
        let budget = self.budget().min(room);
        let mut gone = Vec::new();
        let place = state.place_for(bytes, ns, budget, &mut gone);
        let keep = budget.saturating_sub(state.reserved);
        gone.extend(state.policy.evict_to(keep, budget));
        if beside.is_some() && state.policy.bytes() > keep {
            gone.extend(state.policy.evict_all_to(keep, budget));
        }
        if beside.is_some() && state.policy.bytes() > keep {
            state.policy.unpin_all();
            gone.extend(state.policy.evict_all_to(keep, budget));
            let pinned = self.pins();
            pinned.keys().for_each(|key| state.policy.set_pinned(key, true));
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
        add(&self.common.stats.prefetch_wasted, wasted);
        add(&self.common.stats.prefetch_wasted_bytes, wasted_bytes);
        add(&self.common.stats.evicted_bytes, gone.iter().map(|(_, size)| size).sum());
        self.unlink(&gone.iter().map(|(key, _)| *key).collect::<Vec<_>>());
        place
    }

    fn warn_once(&self, doing: &str, path: &Path, e: &io::Error) {
        if self.is_alive() && !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "cannot {doing} the read cache at {}: {e}; reads go on without it, more slowly. free space on that disk, \
                 repair it, or lower cache_free_percent_min and cache_free_bytes_min (told once)",
                path.display()
            );
        }
    }
}

/// Whether there is room for a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Made,
    /// The disk has none, or pins have it.
    None,
    /// Its namespace has its maximum and nothing of its own can go now, or the rest is others' minimums.
    HeldByShares,
}

impl State {
    /// Takes room for `bytes` out of the budget, if there will be any once all that is not held has left. At a namespace's maximum,
    /// or when all that could leave for it is held, its own oldest leave; they are added to `gone`.
    fn place_for(
        &mut self,
        bytes: u64,
        ns: Option<NamespaceId>,
        budget: u64,
        gone: &mut Vec<(ChunkKey, u64)>,
    ) -> Place {
        let wanted = self.reserved.saturating_add(bytes);
        if wanted.saturating_add(self.policy.pinned_bytes()) > budget {
            return Place::None;
        }
        if let Some(ns) = ns {
            gone.extend(self.policy.evict_for(ns, bytes));
            if bytes > self.policy.room_of(ns).0 {
                return Place::HeldByShares;
            }
            let short = wanted.saturating_add(self.policy.held_bytes()).saturating_sub(budget);
            if short > 0 {
                gone.extend(self.policy.evict_held_of(ns, short));
            }
            if wanted.saturating_add(self.policy.held_bytes()) > budget {
                return Place::HeldByShares;
            }
            self.policy.reserve(ns, bytes);
        }
        self.reserved = wanted;
        Place::Made
    }

    fn touch(&mut self, ns: NamespaceId, key: ChunkKey, frame: u32, stats: &ReadStats) -> bool {
        if !self.unread.is_empty()
            && let Some(bytes) = self.unread.remove(&key)
        {
            add(&stats.prefetch_useful, 1);
            add(&stats.prefetch_used_bytes, bytes);
        }
        self.policy.touch(&key, frame, ns)
    }
}

/// The FNV-1a hash (Fowler, Noll, Vo).
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}

/// Device and inode of a directory.
fn identity(dir: &Path) -> io::Result<(u64, u64)> {
    let stat = fs::metadata(dir)?;
    Ok((stat.dev(), stat.ino()))
}

/// What a file counts against the budget.
pub(super) fn charge(len: u64) -> u64 {
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
