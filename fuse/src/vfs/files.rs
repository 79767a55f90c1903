//! Open files and their bytes.

use std::sync::Arc;

use bytes::Bytes;
use granary_cache::{File, PathHint};
use granary_core::error::fail;
use granary_core::{EntryName, Error, Ino, Kind, Result};
use granary_meta::lease::{LeaseKind, LockOwner, Scope};
use granary_meta::{Attr, Durability, FileType};

use super::handles::{Handle, Reservation};
use super::iomode::Way;
use super::names::new_inode;
use super::nodes::{Grant, Wish};
use super::predict::Circumstances;
use super::{Cx, Io, Mode, Opened, Vfs};

/// `fallocate` modes, as Linux numbers them.
const KEEP_SIZE: i32 = libc::FALLOC_FL_KEEP_SIZE;
const PUNCH_HOLE: i32 = libc::FALLOC_FL_PUNCH_HOLE;
const ZERO_RANGE: i32 = libc::FALLOC_FL_ZERO_RANGE;

/// What an open call asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    pub read: bool,
    pub write: bool,
    /// The content is dropped by the open itself.
    pub truncate: bool,
    /// A program is run from it.
    pub execute: bool,
    /// Who truncates has no right to keep setuid and setgid.
    pub kill_suid: bool,
}

/// The kernel's own open flag (`__FMODE_EXEC` in its `include/linux/fs.h`), which comes with OPEN.
const EXECUTE: i32 = 0x20;

impl Access {
    /// From the flags of open(2).
    pub fn from_flags(flags: i32) -> Access {
        let way = flags & libc::O_ACCMODE;
        Access {
            read: way != libc::O_WRONLY,
            write: way != libc::O_RDONLY,
            truncate: flags & libc::O_TRUNC != 0,
            execute: flags & EXECUTE != 0,
            kill_suid: false,
        }
    }
}

/// How a write came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteFlags {
    /// The descriptor has O_APPEND: the offset is where the kernel took the end of the file to be.
    pub append: bool,
    /// Out of the page cache, some time after the program wrote.
    pub cache: bool,
    /// The writer may not keep set-user-id and set-group-id bits.
    pub kill_suid: bool,
    /// The request's number, and whether another process may have begun it already.
    pub request: u64,
    pub again: bool,
}

fn no_handle(fh: u64) -> Error {
    Error::new(Kind::Bug, format!("the kernel used handle {fh}, which is not open"))
}

impl Vfs {
    /// Makes and opens a file.
    pub async fn create(
        &self,
        cx: &Cx,
        dir: Ino,
        name: &[u8],
        mode: u32,
        access: Access,
    ) -> Result<(Attr, Opened)> {
        self.writable()?;
        let entry = EntryName::new(name)?;
        let (what, large) = self.foresee(dir, cx.pid, name);
        let hint = PathHint { dir, name: name.to_vec() };
        let new = new_inode(cx, FileType::File, mode);
        if self.mode() == Mode::Data {
            let attr = self.meta.create(dir, entry, new, false).await?;
            let file = match self.tree.created(&attr, hint, large) {
                Ok(file) => file,
                Err(e) => {
                    self.undo_create(dir, entry, attr.ino, false).await;
                    return Err(e);
                }
            };
            self.looked_up(attr.ino);
            self.keep_loaded(attr.ino, file, self.clock.monotonic()).await;
            return Ok((attr, Opened { fh: 0, io: Io::Direct, flush: false }));
        }

        let room = self.handles.reserve()?;
        let large = large && self.passes_through();
        let attr = self.meta.create(dir, entry, new, true).await?;
        let ino = attr.ino;
        self.nodes.enter(ino);
        match self.open_created(room, &attr, hint, large, access, Some(what)) {
            Ok(opened) => {
                self.looked_up_shared(ino);
                Ok((attr, opened))
            }
            Err((file, e)) => {
                if let Some(file) = file {
                    self.close_file(file).await;
                }
                self.nodes.leave(ino);
                self.undo_create(dir, entry, ino, true).await;
                Err(e)
            }
        }
    }

    pub(super) fn open_created(
        &self,
        room: Reservation<'_>,
        attr: &Attr,
        hint: PathHint,
        large: bool,
        access: Access,
        created: Option<Circumstances>,
    ) -> Result<Opened, (Option<Arc<File>>, Error)> {
        let file = self.tree.created(attr, hint, large).map_err(|e| (None, e))?;
        // Past the page cache, a small file costs one WRITE and no question for its capabilities.
        let direct = !access.read || self.direct_map.load(std::sync::atomic::Ordering::Relaxed);
        let wish = Wish { passthrough: large, write: access.write, direct };
        let (way, grant) = match self.nodes.settle(attr.ino, &file, wish) {
            Ok(settled) => settled,
            Err(e) => return Err((Some(file), e)),
        };
        self.pages.created(attr.ino, file.version());
        let flush = matches!(way, Way::Passthrough { write: true }) || self.serves_locks();
        let session = room.session;
        let (ino, write, execute) = (attr.ino, access.write, access.execute);
        let handle = Handle { ino, file, way, write, execute, created, session };
        let io = io(way, grant, || true);
        Ok(Opened { fh: room.insert(handle), io, flush })
    }

    /// What was created could not be opened: it is as if it never was.
    async fn undo_create(&self, dir: Ino, name: EntryName<'_>, ino: Ino, opened: bool) {
        let _gone = self.meta.unlink(dir, name).await;
        if opened {
            self.meta.close(ino);
        }
        self.tree.forget(ino);
    }

    /// Opens a file. `None` in a `data` mount: the kernel need not tell of opens at all.
    pub async fn open(&self, ino: Ino, access: Access) -> Result<Option<Opened>> {
        if access.write || access.truncate {
            self.writable()?;
        }
        if self.mode() == Mode::Data {
            return Ok(None);
        }
        let room = self.handles.reserve()?;
        self.nodes.enter(ino);
        let attr = match self.meta.open(ino).await {
            Ok(attr) => attr,
            Err(e) => {
                self.leave(ino).await;
                return Err(e);
            }
        };
        match self.open_counted(room, &attr, access).await {
            Ok(opened) => Ok(Some(opened)),
            Err(e) => {
                self.meta.close(ino);
                self.leave(ino).await;
                Err(e)
            }
        }
    }

    async fn open_counted(&self, room: Reservation<'_>, attr: &Attr, access: Access) -> Result<Opened> {
        let ino = attr.ino;
        if attr.kind != FileType::File {
            let kind = if attr.kind == FileType::Directory { Kind::IsDirectory } else { Kind::Invalid };
            return fail(kind, "only a regular file can be opened");
        }
        // Who opens it for writing is refused by the kernel itself.
        if access.truncate && !access.write && self.handles.is_executed(ino) {
            return fail(Kind::Executed, "a program runs from this file");
        }
        let file = self.tree.file(attr, None).await?;
        let size_before = file.size();
        let accessed = access.read && self.accessed(&self.current(attr.clone())).await;
        let settled = async {
            if access.truncate {
                self.drop_privileges(ino, access.kill_suid).await?;
            }
            if access.truncate {
                file.truncate(0).await?;
                self.pages.changed_by_kernel(ino, file.version());
            }
            // A file that is written anew will likely become what it was.
            let passthrough = self.passes_through() && size_before > self.tree.small_file_bytes_max();
            let direct = !access.read || self.many && access.write && self.maps_direct();
            let wish = Wish { passthrough, write: access.write, direct };
            self.nodes.settle(ino, &file, wish)
        };
        let (way, grant) = match settled.await {
            Ok(settled) => settled,
            Err(e) => {
                self.close_file(file).await;
                return Err(e);
            }
        };
        if way == (Way::Passthrough { write: true }) {
            self.pages.forget(ino);
        }
        let io = io(way, grant, || self.keeps_pages(ino, &file) && !accessed);
        let session = room.session;
        let (write, execute) = (access.write, access.execute);
        let handle = Handle { ino, file, way, write, execute, created: None, session };
        Ok(Opened { fh: room.insert(handle), io, flush: access.write || self.serves_locks() })
    }

    /// The kernel did not take the stage file of a handle that was granted passthrough: how it goes instead. `for_good`:
    /// it will not take another one either.
    pub fn passthrough_refused(&self, fh: u64, for_good: bool) -> Result<Opened> {
        if for_good {
            self.passthrough.store(false, std::sync::atomic::Ordering::Relaxed);
        }
        let Some(handle) = self.handles.set_way(fh, Way::Cached) else { return Err(no_handle(fh)) };
        let Way::Passthrough { write } = handle.way else {
            return Err(Error::new(Kind::Bug, format!("handle {fh} was not granted passthrough")));
        };
        self.nodes.refused(handle.ino)?;
        handle.file.end_passthrough(write);
        self.pages.forget(handle.ino);
        Ok(Opened { fh, io: Io::Cached { keep: false }, flush: handle.write || self.serves_locks() })
    }

    /// The last descriptor of an open file is closed. `flock_owner`: who ends what it has by flock.
    pub async fn release(&self, fh: u64, flock_owner: Option<LockOwner>) {
        let Some(handle) = self.handles.remove(fh) else { return };
        let Handle { ino, file, way, write, created, .. } = handle;
        // While it is in the table another process would hear of its end again, and end them.
        if self.serves_locks() {
            self.end_handle_locks(ino, fh, flock_owner).await;
        }
        // Now: another handle of the inode may go another way from here on.
        self.forget_handle(fh);
        if let Way::Passthrough { write } = way {
            file.end_passthrough(write);
        }
        if let Err(e) = self.nodes.release(ino, way) {
            tracing::error!(namespace = self.options.name, "release of handle {fh}: {e}");
        }
        if let Some(what) = created {
            self.learn(&what, file.size());
        }
        let after = (write && !matches!(way, Way::Passthrough { .. })).then(|| file.clone());
        self.close_file(file).await;
        if let Some(file) = after {
            match self.many && way == Way::Direct {
                false => self.pages.changed_by_kernel(ino, file.version()),
                true => self.pages.forget(ino),
            }
        }
        self.meta.close(ino);
        self.leave(ino).await;
    }

    pub(super) async fn leave(&self, ino: Ino) {
        if self.nodes.leave(ino) {
            self.forget_gone(ino).await;
        }
    }

    /// Gives one use of a file back. A failure to commit stays with the file for fsync to tell; here it is logged.
    pub(super) async fn close_file(&self, file: Arc<File>) {
        let ino = file.ino();
        if let Err(e) = self.tree.close(file).await
            && let Some(level) = e.kind().log_level()
        {
            match level {
                tracing::Level::ERROR => tracing::error!(namespace = self.options.name, %ino, "close: {e}"),
                _ => tracing::warn!(namespace = self.options.name, %ino, "close: {e}"),
            }
        }
    }

    /// What can be read without waiting: the answer for cached content.
    pub fn read_ready(&self, ino: Ino, fh: u64, offset: u64, len: u32) -> Option<Result<Bytes>> {
        match self.mode() {
            Mode::Work => self.handles.file(fh)?.read_ready(offset, len),
            Mode::Data => self.recent.get(ino, self.clock.monotonic())?.0.read_ready(offset, len),
        }
    }

    /// Bytes at `offset`, short only at the end of file.
    pub async fn read(&self, ino: Ino, fh: u64, offset: u64, len: u32) -> Result<Bytes> {
        match self.mode() {
            Mode::Work => {
                let handle = self.handles.get(fh).ok_or_else(|| no_handle(fh))?;
                match handle.way {
                    Way::Direct => handle.file.read(offset, len).await,
                    _ => self.read_pages(&handle.file, offset, len).await,
                }
            }
            Mode::Data => {
                let loaded = self.loaded(ino).await?;
                if let Some(ready) = loaded.0.read_ready(offset, len) {
                    return ready;
                }
                self.read_pages(&loaded.0, offset, len).await
            }
        }
    }

    /// Returns when a write of so many bytes would not wait for the store, which may be away. May be given up at any time.
    pub async fn wait_for_room(&self, len: u64) -> Result<()> {
        self.tree.wait_for_room(len).await
    }

    /// Writes all of `data` at `offset`. Doing it twice is the same as doing it once, so a call that is dropped while it
    /// waits may be made again.
    pub async fn write(&self, ino: Ino, fh: u64, offset: u64, data: &[u8], flags: WriteFlags) -> Result<u32> {
        self.writable()?;
        if !flags.cache {
            self.drop_privileges(ino, flags.kill_suid).await?;
        }
        // On one node the offset is the kernel's, and right.
        if self.many {
            return self.write_shared(fh, offset, data, flags).await;
        }
        match self.mode() {
            Mode::Work => {
                let file = self.handles.file(fh).ok_or_else(|| no_handle(fh))?;
                file.write(offset, data, false).await?;
            }
            Mode::Data => {
                let loaded = self.loaded(ino).await?;
                loaded.0.write(offset, data, false).await?;
            }
        }
        Ok(data.len() as u32)
    }

    /// For the page cache.
    async fn read_pages(&self, file: &File, offset: u64, len: u32) -> Result<Bytes> {
        let (bytes, kept) = file.read_to_keep(offset, len).await?;
        if !kept {
            // It waits for this answer, which has the pages locked.
            self.drop_pages_later(file.ino(), offset, u64::from(len));
        }
        Ok(bytes)
    }

    /// The same where others write too: past the page cache, or out of it (a mapping; before Linux 6.6, which cannot map what
    /// goes past it, any write through a handle that reads too).
    async fn write_shared(&self, fh: u64, offset: u64, data: &[u8], flags: WriteFlags) -> Result<u32> {
        let Handle { ino, file, way, .. } = self.handles.to_change(fh)?.ok_or_else(|| no_handle(fh))?;
        let pages = flags.cache || way != Way::Direct;
        // An append has no place of its own, unless it was begun before.
        let place = match flags.append && !flags.cache {
            false => Some(offset),
            true if flags.again => self.appended_before(flags.request, &file, data).await?,
            true => None,
        };
        let at = match place {
            None => file.write_at_end(data, pages, &|at| self.intend_append(flags.request, ino, at)).await?,
            Some(at) if pages => file.write_pages(at, data, false).await?,
            Some(at) => file.write(at, data, false).await?,
        };
        if pages {
            if at != offset {
                // The kernel has it where it took the end to be. It drops that as soon as it has this answer.
                self.drop_attributes(ino);
                self.drop_pages_later(ino, 0, 0);
            }
        } else {
            self.drop_written(ino, at, data.len() as u64).await;
        }
        Ok(data.len() as u32)
    }

    fn maps_direct(&self) -> bool {
        self.direct_map.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Whether the pages that the kernel has are right for a cached open.
    fn keeps_pages(&self, ino: Ino, file: &File) -> bool {
        let same = self.pages.keep(ino, file.version());
        same && (!self.many || self.meta.holds(Scope::Inode(ino), LeaseKind::Read))
    }

    /// close(2) of one descriptor by `owner`, a process: tells an error of an earlier write.
    pub async fn flush(&self, fh: u64, owner: LockOwner) -> Result<()> {
        let Handle { file, write, .. } = self.handles.get(fh).ok_or_else(|| no_handle(fh))?;
        if self.many && write {
            self.tree.commit(file.ino()).await?; // what cannot be handed over is told now
        }
        if self.serves_locks() {
            self.end_process_locks(file.ino(), owner).await;
        }
        file.take_error()
    }

    /// All that was written in this mount before is durable, as far as fsync of each file would make it.
    pub async fn syncfs(&self) -> Result<()> {
        match self.meta.durability() {
            Durability::Local => self.tree.flush().await,
            Durability::Object => self.tree.sync().await,
        }
    }

    pub async fn fsync(&self, ino: Ino, fh: u64) -> Result<()> {
        match self.mode() {
            Mode::Work => {
                let mut handle = self.handles.get(fh).ok_or_else(|| no_handle(fh))?;
                if handle.write {
                    handle = self.handles.to_change(fh)?.ok_or_else(|| no_handle(fh))?;
                }
                handle.file.fsync().await
            }
            Mode::Data => self.loaded(ino).await?.0.fsync().await,
        }
    }

    /// `mode`: the flags of fallocate(2).
    pub async fn fallocate(&self, ino: Ino, fh: u64, offset: u64, len: u64, mode: i32) -> Result<()> {
        self.writable()?;
        self.handles.to_change(fh)?;
        let keep_size = mode & KEEP_SIZE != 0;
        let zero = match mode & !KEEP_SIZE {
            0 => false,
            PUNCH_HOLE if keep_size => true,
            ZERO_RANGE => true,
            _ => return fail(Kind::Unsupported, "fallocate can reserve, punch holes and zero ranges"),
        };
        self.with_file(ino, async |file| {
            if zero {
                file.zero(offset, len, keep_size).await?;
            } else {
                file.allocate(offset, len, keep_size).await?;
            }
            self.pages.changed_by_kernel(ino, file.version());
            Ok(())
        })
        .await
    }

    /// SEEK_DATA (`data`) or SEEK_HOLE from `offset`. `None`: there is none (ENXIO).
    pub async fn lseek(&self, ino: Ino, offset: u64, data: bool) -> Result<Option<u64>> {
        self.with_file(ino, async |file| Ok(file.seek(offset, data))).await
    }
}

fn io(way: Way, grant: Option<Grant>, keep: impl FnOnce() -> bool) -> Io {
    match (way, grant) {
        (Way::Passthrough { .. }, Some(grant)) => Io::Passthrough(grant),
        (Way::Direct, _) => Io::Direct,
        _ => Io::Cached { keep: keep() },
    }
}
