//! One file in use on this node: where each of its bytes is, and what of it is held back from the metadata.
//!
//! A small file's bytes are in the stage log, then in packs. A large one has a *stage file*: whole (every byte of the file is
//! in it, so the kernel may read and write it itself), or sparse (only what was written since it was opened; the rest is in
//! objects). A whole stage file that was uploaded stays as a clean copy until its space is needed.
//!
//! After a power loss a small file is as it was at some moment since its last fsync: its records are replayed in order, up to
//! the first that is missing. A stage file is overwritten in place, so what was written to a large file since its last fsync
//! may be there in part, as on any local file system. After the crash of the process alone nothing is missing of either.
//!
//! The state's lock is held over local writes (a `pwrite` of a few microseconds), so that the order of records in the log is
//! the order in which the file changed. Commits, and moves of extents into objects, take turns by `State::busy`.

mod ahead;
mod change;
mod commit;
mod copy;
mod cut;
pub mod explain;
mod fence;
mod gather;
mod lease;
mod load;
mod passthrough;
mod read;
mod recall;
mod stage;
mod staged;
mod state;
mod write;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use bytes::Bytes;
use granary_core::{Ino, Result, Timestamp};
use granary_meta::Attr;
use tokio::sync::Notify;

use crate::stage::files;
use crate::tree::Shared;
use crate::util::lock;

pub use copy::PIECE_BYTES as COPIED_AT_ONCE;
pub use recall::{NoPages, PageCache};
pub(crate) use state::{Stage, State};

/// A local file with the whole content at the same offsets, that the kernel may read and write itself.
#[derive(Clone, Debug)]
pub struct Backing {
    pub file: Arc<std::fs::File>,
}

pub struct File {
    ino: Ino,
    shared: Arc<Shared>,
    me: Weak<File>,
    /// Opens of the tree's user; changed under the table's lock.
    pub(crate) users: AtomicU32,
    state: Mutex<State>,
    /// On the table's list of files that may be forgotten.
    pub(crate) queued: AtomicBool,
    /// Told when `State::busy` ends, and when an upload of the file ends.
    turn_over: Notify,
    /// Told when a recall ends, and when a write begins to wait for a lease.
    lease_news: Notify,
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File").field("ino", &self.ino).field("users", &self.users).finish_non_exhaustive()
    }
}

impl File {
    pub(crate) fn new(ino: Ino, shared: Arc<Shared>) -> Arc<File> {
        let node = shared.node;
        Arc::new_cyclic(|me| File {
            ino,
            shared,
            me: me.clone(),
            users: AtomicU32::new(0),
            state: Mutex::new(State::of(node)),
            queued: AtomicBool::new(false),
            turn_over: Notify::new(),
            lease_news: Notify::new(),
        })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub fn ino(&self) -> Ino {
        self.ino
    }

    /// Size as it is now, held state included (fstat of the stage file while it is open for passthrough writing).
    pub fn size(&self) -> u64 {
        self.current_size(&mut self.state())
    }

    /// Content version: kernel pages kept from the same version are valid. While something is held its highest bit is set.
    pub fn version(&self) -> u64 {
        let s = self.state();
        if s.is_held() || s.writers > 0 { s.held_version } else { s.committed.version }
    }

    /// What can be had without waiting for the store, else `None`. Short only at the end of file; holes are zeros.
    pub fn read_ready(&self, offset: u64, len: u32) -> Option<Result<Bytes>> {
        self.read_local(offset, u64::from(len))
    }

    /// Bytes of `offset..offset+len`, short only at the end of file.
    ///
    /// Errors: `Unavailable` when the store, or the node that has the bytes, does not answer, `Corrupt` when the bytes are
    /// damaged wherever they are.
    pub async fn read(&self, offset: u64, len: u32) -> Result<Bytes> {
        self.read_anywhere(offset, u64::from(len), false).await.map(|(bytes, _)| bytes)
    }

    /// The same for a caller that keeps what it is given, as the kernel does in its page cache: returned under a lease, or
    /// during a recall that will have it dropped again. `false`: there was no lease to be had for a while, since others
    /// change the file all the time; it is good for one use, and to be dropped after it.
    pub async fn read_to_keep(&self, offset: u64, len: u32) -> Result<(Bytes, bool)> {
        self.read_anywhere(offset, u64::from(len), true).await
    }

    /// Appends to the stage log, or writes to the stage file when the file is, or becomes, large. Waits at the dirty
    /// limit. `QuotaExceeded`, `NoSpace`, `FileTooLarge`. With `append` the offset is the end of file; the offset that
    /// was written to is returned.
    pub async fn write(&self, offset: u64, data: &[u8], append: bool) -> Result<u64> {
        self.write_with(offset, data, append.then_some(&|_| {}), false).await
    }

    /// The same for bytes whose pages the kernel keeps locked until the answer: dropping the file's pages waits for it.
    pub async fn write_pages(&self, offset: u64, data: &[u8], append: bool) -> Result<u64> {
        self.write_with(offset, data, append.then_some(&|_| {}), true).await
    }

    /// Appends, telling first where that will be; `pages` as of [`File::write_pages`].
    pub async fn write_at_end(&self, data: &[u8], pages: bool, tell: &(dyn Fn(u64) + Sync)) -> Result<u64> {
        self.write_with(0, data, Some(tell), pages).await
    }

    /// Commits held state, logs and applies the new size. Returns the inode's new attributes.
    pub async fn truncate(&self, size: u64) -> Result<Attr> {
        let mut turn = None;
        while !self.truncate_now(size, turn)? {
            turn = self.take_lease(None).await?;
        }
        self.commit().await?;
        let mut attr = self.shared.meta.getattr(self.ino).await?;
        self.overlay(&mut attr);
        Ok(attr)
    }

    /// `fallocate`: extends the size unless `keep_size` (no bytes are reserved beyond checking quota).
    pub async fn allocate(&self, offset: u64, len: u64, keep_size: bool) -> Result<()> {
        let mut turn = None;
        while !self.allocate_now(offset, len, keep_size, turn)? {
            turn = self.take_lease(None).await?;
        }
        Ok(())
    }

    /// `fallocate` PUNCH_HOLE and ZERO_RANGE: the range reads as zeros.
    pub async fn zero(&self, offset: u64, len: u64, keep_size: bool) -> Result<()> {
        let mut turn = None;
        while !self.zero_now(offset, len, keep_size, turn)? {
            turn = self.take_lease(None).await?;
        }
        Ok(())
    }

    /// `lseek` SEEK_DATA / SEEK_HOLE; `None`: ENXIO.
    pub fn seek(&self, offset: u64, data: bool) -> Option<u64> {
        let mut s = self.state();
        let size = self.current_size(&mut s);
        if offset >= size {
            return None;
        }
        if s.stage.as_ref().is_some_and(Stage::is_complete)
            && let Ok(file) = self.stage_file(&mut s)
        {
            use rustix::fs::SeekFrom::{Data, Hole};
            let found = rustix::fs::seek(&*file, if data { Data(offset) } else { Hole(offset) });
            return match found {
                Ok(at) if at < size || !data => Some(at.min(size)),
                _ => None,
            };
        }
        if data {
            s.map.next_data(offset).filter(|&at| at < size)
        } else {
            Some(s.map.next_hole(offset).min(size))
        }
    }

    /// Sets the held mtime (utimens on a file that is being written); the caller also changes it in the metadata.
    pub fn set_mtime(&self, mtime: Timestamp) {
        let mut s = self.state();
        s.mtime = mtime;
        let dirty = s.stage.as_ref().is_some_and(|stage| stage.shape == crate::stage::Shape::Whole);
        if dirty && let Ok(file) = self.stage_file(&mut s) {
            // Recovery takes it from there; a failure costs no more than that.
            if let Err(e) = files::set_mtime(&file, mtime) {
                tracing::debug!(ino = %self.ino, error = %e, "the stage file's mtime could not be set");
            } else if let Some(stage) = &mut s.stage {
                stage.begin_mtime = mtime;
            }
        }
    }

    /// Data and metadata of this file are durable as the namespace's durability says. Tells a write error that was not
    /// told yet.
    pub async fn fsync(&self) -> Result<()> {
        self.take_error()?;
        self.make_durable().await?;
        if self.shared.meta.durability() == granary_meta::types::Durability::Object {
            self.shared.store_file(self.ino).await?;
        }
        Ok(())
    }

    /// A write error that happened after the write was acknowledged and was not told yet (for FLUSH).
    pub fn take_error(&self) -> Result<()> {
        let mut s = self.state();
        if let Some(e) = &s.lease.fenced {
            return Err(e.duplicate());
        }
        s.error.take().map_or(Ok(()), Err)
    }

    /// The stage file, when all of the content is in it (or the file is empty and large was foreseen) so that the kernel
    /// may use it. With `write` the file counts as open for passthrough writing until the matching `end_passthrough`;
    /// `None` when passthrough could exceed the quota.
    pub fn begin_passthrough(&self, write: bool) -> Result<Option<Backing>> {
        self.passthrough_begin(write)
    }

    /// The same for a stage file that the kernel has since another process gave it: it may have written anything meanwhile, and
    /// nobody asks it to wait.
    pub fn resume_passthrough(&self, write: bool) -> Result<Backing> {
        self.passthrough_resume(write)
    }

    pub fn end_passthrough(&self, write: bool) {
        self.passthrough_end(write);
    }

    /// While something is held, size, times, stored bytes and version are ours; and what the metadata said before our last
    /// commit is older than what we know.
    pub(crate) fn overlay(&self, attr: &mut Attr) {
        let mut s = self.state();
        if s.dead || !s.loaded || s.lease.fenced.is_some() {
            return;
        }
        if s.writers > 0 {
            self.overlay_open(&mut s, attr);
        } else if s.is_held() {
            (attr.size, attr.stored, attr.mtime) = (s.size, s.map.covered(), s.mtime);
            attr.ctime = attr.ctime.max(s.ctime);
            attr.version = s.held_version;
        } else if attr.version < s.committed.version {
            let c = s.committed;
            (attr.size, attr.stored, attr.mtime, attr.version) = (c.size, c.stored, c.mtime, c.version);
            attr.ctime = attr.ctime.max(c.ctime);
        }
    }

    pub(crate) fn has_users(&self) -> bool {
        self.users.load(Ordering::Relaxed) > 0
    }

    pub(crate) fn is_loaded(&self) -> bool {
        self.state().loaded
    }

    /// Whether nothing is lost when the table forgets it.
    pub(crate) fn is_forgettable(&self) -> bool {
        let s = self.state();
        !s.is_held() && !s.busy && s.writers == 0 && s.readers == 0 && !s.counted.large
    }

    /// Puts it on the committer's list again.
    pub(crate) fn relist(&self) {
        let mut s = self.state();
        if !s.listed
            && let Some(me) = self.me.upgrade()
        {
            s.listed = true;
            self.shared.list_held(me);
        }
    }

    pub(crate) fn remember(&self, hint: crate::tree::PathHint) {
        self.state().hint = Some(Arc::new(hint));
    }

    /// A write error for the next fsync or close; the first one stays.
    pub(crate) fn set_error(&self, e: &granary_core::Error) {
        let mut s = self.state();
        if s.error.is_none() {
            s.error = Some(e.duplicate());
        }
    }
}
