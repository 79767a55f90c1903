//! A namespace that says other nodes use it too, and keeps locks as the service would: a plain list.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use granary_core::error::fail;
use granary_core::{EntryName, Ino, Kind, NamespaceId, ObjectId, Result};
use granary_meta::lease::{Lock, LockKind, LockOwner, LockRequest};
use granary_meta::*;
use tokio::sync::Notify;

pub struct Shared {
    inner: Arc<dyn Metadata>,
    locks: Mutex<Vec<(Ino, LockOwner, Lock)>>,
    changed: Notify,
    waiting: AtomicUsize,
    unnamed: AtomicUsize,
    /// Files without a name that have one behind the scenes, so that they can be given another.
    kept: Mutex<Option<HashMap<Ino, (Ino, String)>>>,
}

impl Shared {
    pub fn new(inner: Arc<dyn Metadata>) -> Arc<Shared> {
        Arc::new(Shared {
            inner,
            locks: Mutex::default(),
            changed: Notify::new(),
            waiting: AtomicUsize::new(0),
            unnamed: AtomicUsize::new(0),
            kept: Mutex::default(),
        })
    }

    /// From now on files without a name can be linked, and are not freed by themselves.
    pub fn keep_unnamed(&self) {
        *self.kept.lock().unwrap() = Some(HashMap::new());
    }

    /// Lock calls that wait now.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    pub fn locks(&self) -> Vec<Lock> {
        self.locks.lock().unwrap().iter().map(|(_, _, lock)| *lock).collect()
    }

    fn in_the_way(&self, ino: Ino, owner: LockOwner, lock: &Lock) -> Option<Lock> {
        let locks = self.locks.lock().unwrap();
        let conflicts = |(of, by, held): &&(Ino, LockOwner, Lock)| {
            *of == ino
                && *by != owner
                && held.flock == lock.flock
                && held.start <= lock.end
                && lock.start <= held.end
                && (held.kind == LockKind::Exclusive || lock.kind == LockKind::Exclusive)
        };
        locks.iter().find(conflicts).map(|(_, _, held)| *held)
    }

    /// Whole locks only: enough for who locks and unlocks the same ranges.
    fn replace(&self, ino: Ino, request: &LockRequest) {
        let mut locks = self.locks.lock().unwrap();
        let wanted = request.lock;
        locks.retain(|(of, by, held)| {
            let same = *of == ino && *by == request.owner && held.flock == wanted.flock;
            !(same && wanted.start <= held.start && held.end <= wanted.end)
        });
        if !request.unlock {
            locks.push((ino, request.owner, wanted));
        }
        drop(locks);
        self.changed.notify_waiters();
    }
}

/// Counts a wait for as long as it lasts.
struct Waits<'a>(&'a AtomicUsize);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Metadata for Shared {
    fn is_shared(&self) -> bool {
        true
    }

    async fn test_lock(&self, ino: Ino, owner: LockOwner, lock: Lock) -> Result<Option<Lock>> {
        Ok(self.in_the_way(ino, owner, &lock))
    }

    async fn lock(&self, ino: Ino, request: LockRequest) -> Result<()> {
        let mut waits = None;
        loop {
            let changed = self.changed.notified();
            if request.unlock || self.in_the_way(ino, request.owner, &request.lock).is_none() {
                self.replace(ino, &request);
                return Ok(());
            }
            if !request.wait {
                return fail(Kind::WouldBlock, "somebody else has the lock");
            }
            waits.get_or_insert_with(|| {
                self.waiting.fetch_add(1, Ordering::SeqCst);
                Waits(&self.waiting)
            });
            changed.await;
        }
    }

    /// As a file that was unlinked while it is open.
    async fn tmpfile(&self, dir: Ino, new: NewInode) -> Result<Attr> {
        let name = format!(".unnamed-{}", self.unnamed.fetch_add(1, Ordering::SeqCst));
        let entry = EntryName::new(name.as_bytes())?;
        let attr = self.inner.create(dir, entry, new, true).await?;
        if let Some(kept) = &mut *self.kept.lock().unwrap() {
            kept.insert(attr.ino, (dir, name));
            return Ok(Attr { nlink: 0, ..attr });
        }
        self.inner.unlink(dir, entry).await?;
        self.inner.getattr(attr.ino).await
    }

    async fn copy_range(&self, copy: CopyRange) -> Result<Copied> {
        self.inner.copy_range(copy).await
    }

    fn namespace(&self) -> NamespaceId {
        self.inner.namespace()
    }
    async fn lookup(&self, dir: Ino, name: EntryName<'_>) -> Result<Attr> {
        self.inner.lookup(dir, name).await
    }
    async fn getattr(&self, ino: Ino) -> Result<Attr> {
        self.inner.getattr(ino).await
    }
    async fn readdir(&self, dir: Ino, cookie: u64, max: usize, with_attr: bool) -> Result<Vec<DirEntry>> {
        self.inner.readdir(dir, cookie, max, with_attr).await
    }
    async fn parent(&self, dir: Ino) -> Result<Ino> {
        self.inner.parent(dir).await
    }
    async fn readlink(&self, ino: Ino) -> Result<Vec<u8>> {
        self.inner.readlink(ino).await
    }
    async fn getxattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>> {
        self.inner.getxattr(ino, name).await
    }
    async fn listxattr(&self, ino: Ino) -> Result<Vec<Vec<u8>>> {
        self.inner.listxattr(ino).await
    }
    async fn setxattr(&self, ino: Ino, name: &[u8], value: &[u8], create: bool, replace: bool) -> Result<()> {
        self.inner.setxattr(ino, name, value, create, replace).await
    }
    async fn removexattr(&self, ino: Ino, name: &[u8]) -> Result<()> {
        self.inner.removexattr(ino, name).await
    }
    async fn create(&self, dir: Ino, name: EntryName<'_>, new: NewInode, open: bool) -> Result<Attr> {
        self.inner.create(dir, name, new, open).await
    }
    async fn link(&self, ino: Ino, dir: Ino, name: EntryName<'_>) -> Result<Attr> {
        let kept = self.kept.lock().unwrap().as_mut().and_then(|kept| kept.remove(&ino));
        let linked = self.inner.link(ino, dir, name).await?;
        match kept {
            Some((dir, name)) => self.inner.unlink(dir, EntryName::new(name.as_bytes())?).await,
            None => Ok(linked),
        }
    }
    async fn unlink(&self, dir: Ino, name: EntryName<'_>) -> Result<Attr> {
        self.inner.unlink(dir, name).await
    }
    async fn rmdir(&self, dir: Ino, name: EntryName<'_>) -> Result<()> {
        self.inner.rmdir(dir, name).await
    }
    async fn rename(
        &self,
        dir: Ino,
        name: EntryName<'_>,
        to_dir: Ino,
        to_name: EntryName<'_>,
        mode: RenameMode,
    ) -> Result<Option<Attr>> {
        self.inner.rename(dir, name, to_dir, to_name, mode).await
    }
    async fn setattr(&self, ino: Ino, set: SetAttr) -> Result<Attr> {
        self.inner.setattr(ino, set).await
    }
    async fn open(&self, ino: Ino) -> Result<Attr> {
        self.inner.open(ino).await
    }
    fn close(&self, ino: Ino) {
        self.inner.close(ino);
    }
    async fn extents(&self, ino: Ino) -> Result<(Attr, Vec<Extent>)> {
        self.inner.extents(ino).await
    }
    async fn commit(&self, commit: Commit) -> Result<Attr> {
        self.inner.commit(commit).await
    }
    async fn relocate(&self, object: ObjectInfo, moves: Vec<Move>) -> Result<Vec<Vec<(u64, u64)>>> {
        self.inner.relocate(object, moves).await
    }
    async fn inline(&self, ino: Ino) -> Result<Option<Inline>> {
        self.inner.inline(ino).await
    }
    async fn keep_inline(&self, object: ObjectInfo, copies: Vec<NewInline>) -> Result<()> {
        self.inner.keep_inline(object, copies).await
    }
    async fn live(&self, staged: &[(Ino, Extent)]) -> Result<Vec<Vec<(u64, u64)>>> {
        self.inner.live(staged).await
    }
    async fn object(&self, id: ObjectId) -> Result<ObjectInfo> {
        self.inner.object(id).await
    }
    async fn dead_objects(&self, max: usize) -> Result<Vec<DeadObject>> {
        self.inner.dead_objects(max).await
    }
    async fn live_objects(&self, after: ObjectId, max: usize) -> Result<Vec<LiveObject>> {
        self.inner.live_objects(after, max).await
    }
    async fn forget_objects(&self, ids: Vec<ObjectId>) -> Result<()> {
        self.inner.forget_objects(ids).await
    }
    async fn sync(&self) -> Result<()> {
        self.inner.sync().await
    }
    fn usage(&self) -> Usage {
        self.inner.usage()
    }
    fn headroom(&self) -> u64 {
        self.inner.headroom()
    }
    fn write_settings(&self) -> WriteSettings {
        self.inner.write_settings()
    }
}
