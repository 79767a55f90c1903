//! The namespace as programs use it: each call is a read of the view, or one operation of the machine.

use std::sync::atomic::Ordering;

use async_trait::async_trait;
use granary_core::{EntryName, Error, Ino, Kind, NamespaceId, NodeId, ObjectId, Result};

use super::{LocalNamespace, ORPHANS_AT_ONCE, boxed, unexpected};
use crate::api::Metadata;
use crate::lease::{LeaseKind, Scope};
use crate::local::{bell, lock};
use crate::machine::{self, Operation, Records, Reply, read};
use crate::types::*;

#[async_trait]
impl Metadata for LocalNamespace {
    fn namespace(&self) -> NamespaceId {
        self.id
    }

    async fn lookup(&self, dir: Ino, name: EntryName<'_>) -> Result<Attr> {
        self.read(|view| read::lookup(view, dir, name))
    }

    async fn getattr(&self, ino: Ino) -> Result<Attr> {
        self.read(|view| Ok(view.inode(ino)?.attr.clone()))
    }

    async fn readdir(&self, dir: Ino, cookie: u64, max: usize, with_attr: bool) -> Result<Vec<DirEntry>> {
        self.read(|view| read::readdir(view, dir, cookie, max, with_attr))
    }

    async fn parent(&self, dir: Ino) -> Result<Ino> {
        self.read(|view| read::parent(view, dir))
    }

    async fn readlink(&self, ino: Ino) -> Result<Vec<u8>> {
        self.read(|view| read::readlink(view, ino))
    }

    async fn getxattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>> {
        self.read(|view| read::getxattr(view, ino, name))
    }

    async fn listxattr(&self, ino: Ino) -> Result<Vec<Vec<u8>>> {
        self.read(|view| read::listxattr(view, ino))
    }

    async fn setxattr(
        &self,
        ino: Ino,
        name: &[u8],
        value: &[u8],
        create_only: bool,
        replace_only: bool,
    ) -> Result<()> {
        let (name, value) = (name.into(), value.into());
        self.change(Operation::SetXattr { ino, name, value, create_only, replace_only }).map(|_| ())
    }

    async fn removexattr(&self, ino: Ino, name: &[u8]) -> Result<()> {
        self.change(Operation::RemoveXattr { ino, name: name.into() }).map(|_| ())
    }

    async fn create(&self, dir: Ino, name: EntryName<'_>, new: NewInode, open: bool) -> Result<Attr> {
        self.make(Operation::Create { dir, name: boxed(name), new }, open)
    }

    async fn tmpfile(&self, dir: Ino, new: NewInode) -> Result<Attr> {
        self.make(Operation::Tmpfile { dir, new }, true)
    }

    async fn copy_range(&self, copy: CopyRange) -> Result<Copied> {
        match self.change(Operation::CopyRange(copy))? {
            Reply::Copied(copied) => Ok(copied),
            other => Err(unexpected(&other)),
        }
    }

    fn has_capabilities(&self) -> bool {
        self.usage.capabilities.load(Ordering::Relaxed) > 0
    }

    async fn link(&self, ino: Ino, dir: Ino, name: EntryName<'_>) -> Result<Attr> {
        self.changed_attr(Operation::Link { ino, dir, name: boxed(name) })
    }

    async fn unlink(&self, dir: Ino, name: EntryName<'_>) -> Result<Attr> {
        let lost = self.change_names(Operation::Unlink { dir, name: boxed(name), open: false })?;
        lost.ok_or_else(|| unexpected(&Reply::Done))
    }

    async fn rmdir(&self, dir: Ino, name: EntryName<'_>) -> Result<()> {
        self.change_names(Operation::Rmdir { dir, name: boxed(name) }).map(|_| ())
    }

    async fn rename(
        &self,
        dir: Ino,
        name: EntryName<'_>,
        to_dir: Ino,
        to_name: EntryName<'_>,
        mode: RenameMode,
    ) -> Result<Option<Attr>> {
        let (name, to_name) = (boxed(name), boxed(to_name));
        self.change_names(Operation::Rename { dir, name, to_dir, to_name, mode, open: false })
    }

    async fn setattr(&self, ino: Ino, set: SetAttr) -> Result<Attr> {
        self.changed_attr(Operation::SetAttr { ino, set })
    }

    async fn open(&self, ino: Ino) -> Result<Attr> {
        let mut state = lock(&self.state);
        let attr = self.layers(&mut state).inode(ino)?.attr.clone();
        let keeps = self.shared.keep_orphans.load(Ordering::SeqCst);
        if attr.nlink == 0 && !keeps && !state.opens.contains_key(&ino) {
            return Err(Error::new(Kind::Stale, "the file or directory does not exist any more"));
        }
        *state.opens.entry(ino).or_default() += 1;
        Ok(attr)
    }

    fn close(&self, ino: Ino) {
        let mut state = lock(&self.state);
        let Some(count) = state.opens.get_mut(&ino) else {
            tracing::warn!("inode {ino} of namespace {} was closed more often than opened", self.id);
            return;
        };
        *count -= 1;
        if *count > 0 {
            return;
        }
        state.opens.remove(&ino);
        match self.layers(&mut state).find_inode(ino) {
            Ok(Some(inode)) if inode.attr.nlink == 0 => {
                self.free(&mut state, ino);
                drop(state);
                self.shared.bell.dirty();
            }
            Ok(_) => {}
            Err(e) => tracing::warn!("inode {ino} of namespace {} cannot be read at its close: {e}", self.id),
        }
    }

    async fn extents(&self, ino: Ino) -> Result<(Attr, Vec<Extent>)> {
        self.read(|view| read::extents(view, ino))
    }

    async fn commit(&self, commit: Commit) -> Result<Attr> {
        self.changed_attr(Operation::Commit(commit))
    }

    async fn relocate(&self, object: ObjectInfo, moves: Vec<Move>) -> Result<Vec<Vec<(u64, u64)>>> {
        match self.change(Operation::Relocate { object, moves })? {
            Reply::Moved(parts) => Ok(parts),
            other => Err(unexpected(&other)),
        }
    }

    async fn inline(&self, ino: Ino) -> Result<Option<Inline>> {
        self.read(|view| read::inline(view, ino))
    }

    async fn keep_inline(&self, object: ObjectInfo, copies: Vec<NewInline>) -> Result<()> {
        self.change(Operation::KeepInline { object: object.id, copies }).map(|_| ())
    }

    async fn live(&self, staged: &[(Ino, Extent)]) -> Result<Vec<Vec<(u64, u64)>>> {
        self.read(|view| machine::live(view, staged))
    }

    async fn object(&self, id: ObjectId) -> Result<ObjectInfo> {
        self.read(|view| read::object(view, id))
    }

    async fn dead_objects(&self, max: usize) -> Result<Vec<DeadObject>> {
        self.read(|view| read::dead_objects(view, max))
    }

    async fn live_objects(&self, after: ObjectId, max: usize) -> Result<Vec<LiveObject>> {
        self.read(|view| read::live_objects(view, after, max))
    }

    async fn forget_objects(&self, ids: Vec<ObjectId>) -> Result<()> {
        self.change(Operation::ForgetObjects { ids }).map(|_| ())
    }

    async fn sync(&self) -> Result<()> {
        let (tell, told) = tokio::sync::oneshot::channel();
        self.shared.bell.ask_sync(Box::new(move |result| {
            // Who asked may have given up waiting.
            let _ = tell.send(result);
        }))?;
        told.await.map_err(|_| Error::new(Kind::Unavailable, "the metadata was closed during a sync"))?
    }

    async fn written(&self) -> Result<()> {
        if !self.has_unwritten() {
            return Ok(());
        }
        self.shared.bell.refuse_when_stopped()?;
        let (tell, told) = tokio::sync::oneshot::channel();
        let Some(spaces) = self.spaces.upgrade() else { return Err(bell::stopped()) };
        self.shared.write_through(
            &spaces,
            Box::new(move |result| {
                // Who asked may have given up waiting.
                let _ = tell.send(result);
            }),
        );
        told.await.map_err(|_| Error::new(Kind::Unavailable, "the metadata was closed during a write"))?
    }

    async fn unnamed(&self) -> Result<Vec<Ino>> {
        let (mut all, mut after) = (Vec::new(), Ino(0));
        loop {
            let found = self.read(|view| read::orphans(view, after, ORPHANS_AT_ONCE))?;
            let Some(last) = found.last() else { return Ok(all) };
            after = *last;
            all.extend(found);
        }
    }

    async fn keep_redo(&self, node: NodeId, keep: Vec<Redo>, drop: &[(u64, u64)]) -> Result<bool> {
        self.keep(node, keep, drop)
    }

    async fn redo(&self, node: NodeId) -> Result<Vec<Redo>> {
        self.kept(node)
    }

    fn usage(&self) -> Usage {
        self.usage.load()
    }

    fn headroom(&self) -> u64 {
        match self.usage.bytes_max.load(Ordering::Relaxed) {
            0 => u64::MAX,
            max => max.saturating_sub(self.usage.bytes.load(Ordering::Relaxed)),
        }
    }

    fn write_settings(&self) -> WriteSettings {
        self.write_settings.load()
    }

    /// Every lease but of the trash's directories: files come there with their last close, and go by time.
    fn holds(&self, scope: Scope, _kind: LeaseKind) -> bool {
        let (Scope::Inode(ino) | Scope::Directory(ino)) = scope;
        !self.is_in_trash(ino)
    }
}
