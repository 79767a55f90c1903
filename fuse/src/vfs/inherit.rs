//! Going on where another process ended: handles that the kernel has, and requests that it sends again. See
//! [`crate::keeper`].

use std::any::Any;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use granary_core::error::fail;
use granary_core::{EntryName, Ino, Kind, Result};
use granary_meta::{Attr, FileType, RenameMode};

use super::handles::Handle;
use super::iomode::Way;
use super::nodes::{Grant, Registration};
use super::{Access, Cx, Io, Mode, Opened, Vfs, locks};
use crate::keeper::table::{HandleTable, Record};

/// What a request would have made, if it had not been made before.
#[derive(Clone, Copy, Debug)]
pub enum Made<'a> {
    /// With these permissions.
    Inode(FileType, u32),
    Symlink(&'a Path),
    Link(Ino),
}

impl Vfs {
    /// Open handles are remembered in this table from now on.
    pub(crate) fn remember_handles_in(&self, table: Arc<HandleTable>) {
        let _once = self.kept.set(table);
    }

    /// Whether another process can go on with the mount.
    pub fn is_kept(&self) -> bool {
        self.kept.get().is_some()
    }

    /// To be called before the kernel is told of a handle. `request`: the number of the one that opened it.
    pub(crate) fn remember_handle(&self, fh: u64, request: u64, backing: i32) {
        let Some(table) = self.kept.get() else { return };
        if let Some(Handle { ino, way, write, execute, .. }) = self.handles.get(fh) {
            table.put(&Record { fh, ino, unique: request, way, write, execute, backing });
        }
    }

    pub(super) fn forget_handle(&self, fh: u64) {
        if let Some(table) = self.kept.get() {
            table.clear(fh);
        }
    }

    /// Before anything is opened: what the kernel has is covered by the session's leases, or, if that was `lost`, by nothing.
    ///
    /// Errors: `Fenced` for a `data` mount in that case. Its kernel reads the pages of open files without asking, for ever, and
    /// which files those are nobody here was told.
    pub(crate) fn inherit_session(&self, lost: bool) -> Result<()> {
        if !lost || !self.many {
            self.references.inherit(self.meta.leased());
            return Ok(());
        }
        if self.mode() == Mode::Data {
            return fail(
                Kind::Fenced,
                "the metadata service ended the session that it was mounted with, and other nodes may have changed what its \
                 programs have open",
            );
        }
        self.handles.end_session();
        Ok(())
    }

    /// The locks that programs have, so that they end with their handles; at once where there is no handle any more. A lock that
    /// was taken through one of several handles of its inode, and that the kernel does not name when that ends (those of open
    /// file descriptions), ends with the last of them.
    pub(crate) async fn inherit_locks(&self) {
        if !self.serves_locks() {
            return;
        }
        let mut handles: HashMap<Ino, Vec<u64>> = HashMap::new();
        for fh in self.handles.all() {
            if let Some(handle) = self.handles.get(fh) {
                handles.entry(handle.ino).or_default().push(fh);
            }
        }
        for (ino, owner, lock) in self.meta.locks() {
            let fh = match handles.get(&ino).map(Vec::as_slice) {
                None => None,
                Some([fh]) => Some(*fh),
                Some(_) => Some(locks::ANY_HANDLE),
            };
            self.inherit_lock(ino, fh, owner, lock.flock).await;
        }
    }

    /// Opens again what the kernel has handles of; how many.
    pub(crate) async fn inherit_handles<T: Any + Send + Sync>(
        &self,
        table: Arc<HandleTable>,
        backing: &(dyn Fn(i32) -> Arc<T> + Sync),
    ) -> Result<usize> {
        self.inherit_references().await?;
        let mut open = 0;
        for slot in 0..table.used() {
            let (generation, record) = table.get(slot);
            let handle = match record {
                Some(record) => self.inherit_handle(&record, backing).await,
                None => None,
            };
            if record.is_some() && handle.is_none() {
                table.clear(u64::from(generation) << 32 | (slot + 1));
            }
            open += usize::from(handle.is_some());
            self.handles.inherit(slot, generation, handle);
        }
        self.remember_handles_in(table);
        Ok(open)
    }

    async fn inherit_handle<T: Any + Send + Sync>(
        &self,
        record: &Record,
        backing: &(dyn Fn(i32) -> Arc<T> + Sync),
    ) -> Option<Handle> {
        let Record { ino, way, write, execute, .. } = *record;
        self.nodes.enter(ino);
        self.references.inherit([ino]);
        match self.open_again(record, backing).await {
            Ok(file) => {
                let session = 0; // the one of the other process
                Some(Handle { ino, file, way, write, execute, created: None, session })
            }
            Err(e) => {
                tracing::error!(
                    namespace = self.options.name, %ino,
                    "a file that a program has open cannot be opened again ({e}); it gets errors"
                );
                self.leave(ino).await;
                None
            }
        }
    }

    async fn open_again<T: Any + Send + Sync>(
        &self,
        record: &Record,
        backing: &(dyn Fn(i32) -> Arc<T> + Sync),
    ) -> Result<Arc<granary_cache::File>> {
        let ino = record.ino;
        let attr = self.meta.open(ino).await?;
        let opened = async {
            let file = self.tree.file(&attr, None).await?;
            let granted = match record.way {
                Way::Passthrough { write } => Some(file.resume_passthrough(write)?),
                _ => None,
            };
            let grant = || {
                let granted = granted?;
                let registration = Arc::new(Registration::done(backing(record.backing)));
                Some(Grant { backing: granted, registration })
            };
            self.nodes.inherit(ino, &file, record.way, grant)?;
            Ok(file)
        };
        match opened.await {
            Ok(file) => {
                if attr.nlink == 0 {
                    self.nodes.unlinked(ino);
                }
                Ok(file)
            }
            Err(e) => {
                self.meta.close(ino);
                Err(e)
            }
        }
    }

    /// The handle that this request opened before, if it did: the kernel was never told of it.
    pub async fn take_back(&self, request: u64) {
        let Some(table) = self.kept.get() else { return };
        let unanswered = |fh: &u64| {
            let slot = (fh & u64::from(u32::MAX)) - 1;
            table.get(slot).1.is_some_and(|record| record.unique == request && record.fh == *fh)
        };
        if let Some(fh) = self.handles.all().into_iter().find(unanswered) {
            self.release(fh, None).await;
        }
    }

    /// Returns when what was changed before is known to the next process.
    pub async fn settle_changes(&self) -> Result<()> {
        match self.is_kept() {
            true => self.meta.written().await,
            false => Ok(()),
        }
    }

    /// What is there already, when that is what was to be made: `Exists` if it is something else.
    pub async fn made_before(&self, cx: &Cx, dir: Ino, name: &[u8], made: Made<'_>) -> Result<Attr> {
        let attr = self.meta.lookup(dir, EntryName::new(name)?).await?;
        let same = match made {
            Made::Link(ino) => attr.ino == ino,
            Made::Symlink(target) => {
                let is = std::os::unix::ffi::OsStrExt::as_bytes(target.as_os_str());
                attr.kind == FileType::Symlink && self.meta.readlink(attr.ino).await? == is
            }
            Made::Inode(kind, mode) => {
                // Where a default list replaced the umask the permissions are fewer than asked for.
                attr.kind == kind && attr.uid == cx.uid && attr.mode & 0o777 & !mode == 0
            }
        };
        if !same || !self.meta.was_changed_before(attr.ino) {
            return fail(Kind::Exists, "something else has this name");
        }
        self.looked_up(attr.ino);
        Ok(self.current(attr))
    }

    /// The same for a file, which is opened.
    pub async fn created_before(
        &self,
        cx: &Cx,
        dir: Ino,
        name: &[u8],
        mode: u32,
        access: Access,
    ) -> Result<(Attr, Opened)> {
        let attr = self.made_before(cx, dir, name, Made::Inode(FileType::File, mode)).await?;
        let opened = self.open(attr.ino, Access { truncate: false, ..access }).await?;
        // A `data` mount has no handles.
        Ok((attr, opened.unwrap_or(Opened { fh: 0, io: Io::Direct, flush: false })))
    }

    /// Whether a renaming is done already.
    pub async fn renamed_before(
        &self,
        request: u64,
        from: (Ino, &[u8]),
        to: (Ino, &[u8]),
        mode: RenameMode,
    ) -> Result<bool> {
        let (source, target) = (self.ino_at(from).await?, self.ino_at(to).await?);
        if mode != RenameMode::Exchange {
            return Ok(source.is_none() && target.is_some_and(|ino| self.meta.was_changed_before(ino)));
        }
        let intended = self.kept.get().and_then(|table| table.intended(request));
        Ok(intended.is_some_and(|(first, second)| source == Some(second) && target == Some(first)))
    }

    /// To be called before two names are exchanged.
    pub async fn intend_exchange(
        &self,
        request: u64,
        first: (Ino, &[u8]),
        second: (Ino, &[u8]),
    ) -> Result<()> {
        let Some(table) = self.kept.get() else { return Ok(()) };
        if let (Some(a), Some(b)) = (self.ino_at(first).await?, self.ino_at(second).await?) {
            table.intend(request, a, b);
        }
        Ok(())
    }

    /// To be called before bytes are appended at `at`.
    pub(super) fn intend_append(&self, request: u64, ino: Ino, at: u64) {
        if let Some(table) = self.kept.get() {
            table.intend(request, ino, Ino(at));
        }
    }

    /// Where another process began this append, if what is there now is its beginning: no other node can have written there
    /// before, because the lease was this node's. If there is nothing yet, it has no place.
    pub(super) async fn appended_before(
        &self,
        request: u64,
        file: &granary_cache::File,
        data: &[u8],
    ) -> Result<Option<u64>> {
        let intended = self.kept.get().and_then(|table| table.intended(request));
        let Some((_, Ino(at))) = intended.filter(|(ino, _)| *ino == file.ino()) else { return Ok(None) };
        let there = file.read(at, data.len() as u32).await?;
        Ok((!there.is_empty() && data.starts_with(&there)).then_some(at))
    }

    async fn ino_at(&self, (dir, name): (Ino, &[u8])) -> Result<Option<Ino>> {
        match self.meta.lookup(dir, EntryName::new(name)?).await {
            Ok(attr) => Ok(Some(attr.ino)),
            Err(e) if e.kind() == Kind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }
}
