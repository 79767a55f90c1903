//! [`Metadata`] over a session: from what is kept where leases allow, else by a call.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use granary_core::error::fail;
use granary_core::{EntryName, Error, Ino, Kind, NamespaceId, NodeId, ObjectId, Result};
use tokio::sync::oneshot;

use super::calls::Waiter;
use super::namespace::{RemoteNamespace, unexpected};
use crate::api::Metadata;
use crate::call::{Answer, Call};
use crate::lease::{Holder, LeaseKind, Lock, LockOwner, LockRequest, PeerInfo, Scope};
use crate::machine::trash;
use crate::types::*;

fn boxed(name: EntryName<'_>) -> Box<[u8]> {
    name.as_bytes().into()
}

/// Entries of a listing that are asked for at once, at least: most directories come with one call.
const PAGE_MIN: usize = 256;
/// And at most: an answer is one frame.
const PAGE_MAX: usize = 4096;

#[async_trait]
impl Metadata for RemoteNamespace {
    fn namespace(&self) -> NamespaceId {
        self.id()
    }

    async fn lookup(&self, dir: Ino, name: EntryName<'_>) -> Result<Attr> {
        // A listing that has all names of the root does not have this one.
        if trash::is_name(dir, name.as_bytes()) {
            return self.call_attr(Call::Lookup { dir, name: boxed(name) }).await;
        }
        let known = self.cached(|cache| cache.lookup(dir, name.as_bytes()).map(|found| found.cloned()));
        match known {
            Some(Some(attr)) => Ok(attr),
            Some(None) => fail(Kind::NotFound, "no such entry"),
            None => self.call_attr(Call::Lookup { dir, name: boxed(name) }).await,
        }
    }

    async fn getattr(&self, ino: Ino) -> Result<Attr> {
        match self.cached(|cache| cache.attr(ino).cloned()) {
            Some(attr) => Ok(attr),
            None => self.call_attr(Call::GetAttr { ino }).await,
        }
    }

    async fn readdir(&self, dir: Ino, cookie: u64, max: usize, with_attr: bool) -> Result<Vec<DirEntry>> {
        if max == 0 {
            return Ok(Vec::new());
        }
        if let Some(page) = self.cached(|cache| cache.list(dir, cookie, max, with_attr)) {
            return Ok(page);
        }
        let asked = max.clamp(PAGE_MIN, PAGE_MAX) as u32;
        match self.call(Call::ReadDir { dir, cookie, max: asked, with_attr }).await? {
            Answer::Entries(mut page) => {
                page.truncate(max);
                Ok(page)
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn parent(&self, dir: Ino) -> Result<Ino> {
        if dir == Ino::ROOT {
            return Ok(dir);
        }
        match self.call(Call::Parent { dir }).await? {
            Answer::Ino(ino) => Ok(ino),
            other => Err(unexpected(&other)),
        }
    }

    async fn readlink(&self, ino: Ino) -> Result<Vec<u8>> {
        if let Some(target) = self.cached(|cache| cache.inode(ino)?.target.clone()) {
            return Ok(target.to_vec());
        }
        self.call_bytes(Call::ReadLink { ino }).await
    }

    async fn getxattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>> {
        match self.cached(|cache| cache.inode(ino)?.xattr(name)) {
            Some(Some(value)) => Ok(value.to_vec()),
            Some(None) => fail(Kind::NoAttribute, "no such extended attribute"),
            None => self.call_bytes(Call::GetXattr { ino, name: name.into() }).await,
        }
    }

    async fn listxattr(&self, ino: Ino) -> Result<Vec<Vec<u8>>> {
        if let Some(names) = self.cached(|cache| cache.inode(ino)?.names().cloned()) {
            return Ok(names);
        }
        match self.call(Call::ListXattr { ino }).await? {
            Answer::Names(names) => Ok(names),
            other => Err(unexpected(&other)),
        }
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
        self.call_done(Call::SetXattr { ino, name, value, create_only, replace_only }).await
    }

    async fn removexattr(&self, ino: Ino, name: &[u8]) -> Result<()> {
        if let Some(None) = self.cached(|cache| cache.inode(ino)?.xattr(name)) {
            return fail(Kind::NoAttribute, "no such extended attribute");
        }
        self.call_done(Call::RemoveXattr { ino, name: name.into() }).await
    }

    async fn create(&self, dir: Ino, name: EntryName<'_>, new: NewInode, open: bool) -> Result<Attr> {
        self.call_attr(Call::Create { dir, name: boxed(name), new, open }).await
    }

    async fn link(&self, ino: Ino, dir: Ino, name: EntryName<'_>) -> Result<Attr> {
        self.call_attr(Call::Link { ino, dir, name: boxed(name) }).await
    }

    async fn unlink(&self, dir: Ino, name: EntryName<'_>) -> Result<Attr> {
        let _removal = self.removal(dir, name).await?;
        self.call_attr(Call::Unlink { dir, name: boxed(name) }).await
    }

    async fn rmdir(&self, dir: Ino, name: EntryName<'_>) -> Result<()> {
        self.call_attr(Call::Rmdir { dir, name: boxed(name) }).await.map(|_| ())
    }

    async fn rename(
        &self,
        dir: Ino,
        name: EntryName<'_>,
        to_dir: Ino,
        to_name: EntryName<'_>,
        mode: RenameMode,
    ) -> Result<Option<Attr>> {
        let _removal = match mode {
            RenameMode::Replace => Some(self.removal(to_dir, to_name).await?),
            RenameMode::NoReplace | RenameMode::Exchange => None,
        };
        let call = Call::Rename { dir, name: boxed(name), to_dir, to_name: boxed(to_name), mode };
        match self.call(call).await? {
            Answer::Renamed(replaced) => Ok(replaced),
            other => Err(unexpected(&other)),
        }
    }

    async fn setattr(&self, ino: Ino, set: SetAttr) -> Result<Attr> {
        if set.staged_seq.is_some() {
            self.refused(ino)?;
        }
        self.call_attr(Call::SetAttr { ino, set }).await
    }

    async fn open(&self, ino: Ino) -> Result<Attr> {
        loop {
            if self.core.is_alive() {
                let mut state = self.state();
                let state = &mut *state;
                // Without a name it may be open elsewhere, or be gone: the service knows.
                if let Some(attr) = state.cache.attr(ino).cloned()
                    && (attr.nlink > 0 || state.opens.is_open(ino))
                    && state.opens.open_here(ino)
                {
                    return Ok(attr);
                }
            }
            let asked = self.state().opens.ask(ino);
            match asked {
                Ok(()) => return self.call_attr(Call::Open { ino }).await,
                // Gone only with the client: then the next round fails.
                Err(closed) => drop(closed.await),
            }
        }
    }

    fn close(&self, ino: Ino) {
        self.close_one(ino);
    }

    async fn extents(&self, ino: Ino) -> Result<(Attr, Vec<Extent>)> {
        let known = self.cached(|cache| {
            let inode = cache.inode(ino)?;
            Some((inode.attr.clone()?, inode.extents.as_ref()?.to_vec()))
        });
        match known {
            Some(known) => Ok(known),
            None => self.extents_anew(ino).await,
        }
    }

    async fn extents_anew(&self, ino: Ino) -> Result<(Attr, Vec<Extent>)> {
        match self.call(Call::Extents { ino, with_inline: true }).await? {
            Answer::Extents(attr, extents, _) => Ok((attr, extents)),
            other => Err(unexpected(&other)),
        }
    }

    /// Came with the extents, if these are kept.
    async fn inline(&self, ino: Ino) -> Result<Option<Inline>> {
        let known = self.cached(|cache| {
            let inode = cache.inode(ino)?;
            (inode.attr.is_some() && inode.extents.is_some()).then(|| inode.inline())
        });
        match known {
            Some(known) => Ok(known),
            None => match self.call(Call::Extents { ino, with_inline: true }).await? {
                Answer::Extents(_, _, copy) => Ok(copy),
                other => Err(unexpected(&other)),
            },
        }
    }

    async fn keep_inline(&self, object: ObjectInfo, copies: Vec<NewInline>) -> Result<()> {
        // An older service answers otherwise, and keeps none.
        self.call(Call::KeepInline { object, copies }).await.map(|_| ())
    }

    async fn commit(&self, commit: Commit) -> Result<Attr> {
        self.refused(commit.ino)?;
        self.call_attr(Call::Commit(commit)).await
    }

    async fn relocate(&self, object: ObjectInfo, moves: Vec<Move>) -> Result<Vec<Vec<(u64, u64)>>> {
        self.call_parts(Call::Relocate { object, moves }).await
    }

    async fn live(&self, staged: &[(Ino, Extent)]) -> Result<Vec<Vec<(u64, u64)>>> {
        if staged.is_empty() {
            return Ok(Vec::new());
        }
        self.call_parts(Call::Live { staged: staged.to_vec() }).await
    }

    async fn object(&self, id: ObjectId) -> Result<ObjectInfo> {
        match self.call(Call::Object { id }).await? {
            Answer::Object(object) => Ok(object),
            other => Err(unexpected(&other)),
        }
    }

    async fn dead_objects(&self, max: usize) -> Result<Vec<DeadObject>> {
        match self.call(Call::DeadObjects { max: max.min(65_536) as u32 }).await? {
            Answer::DeadObjects(objects) => Ok(objects),
            other => Err(unexpected(&other)),
        }
    }

    async fn live_objects(&self, after: ObjectId, max: usize) -> Result<Vec<LiveObject>> {
        match self.call(Call::LiveObjects { after, max: max.min(65_536) as u32 }).await? {
            Answer::LiveObjects(objects) => Ok(objects),
            other => Err(unexpected(&other)),
        }
    }

    async fn forget_objects(&self, ids: Vec<ObjectId>) -> Result<()> {
        self.call_done(Call::ForgetObjects { ids }).await
    }

    async fn sync(&self) -> Result<()> {
        // What this node does not know of need not be made durable for it.
        let known = self.answers.known.load(Ordering::SeqCst);
        if self.answers.durable.load(Ordering::SeqCst) < known {
            self.call_done(Call::Sync).await?;
            self.answers.durable.fetch_max(known, Ordering::SeqCst);
        }
        Ok(())
    }

    fn usage(&self) -> Usage {
        self.usage_now()
    }

    fn headroom(&self) -> u64 {
        let usage = self.usage_now();
        match usage.bytes_max {
            0 => u64::MAX,
            max => max.saturating_sub(usage.bytes),
        }
    }

    fn write_settings(&self) -> WriteSettings {
        self.write_settings.load()
    }

    async fn tmpfile(&self, dir: Ino, new: NewInode) -> Result<Attr> {
        self.call_attr(Call::Tmpfile { dir, new }).await
    }

    async fn copy_range(&self, copy: CopyRange) -> Result<Copied> {
        match self.call(Call::CopyRange(copy)).await? {
            Answer::Copied(copied) => Ok(copied),
            other => Err(unexpected(&other)),
        }
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn holds(&self, scope: Scope, kind: LeaseKind) -> bool {
        self.core.is_alive() && self.state().cache.holds(scope, kind)
    }

    fn lease_left(&self) -> Duration {
        self.core.lease_left()
    }

    async fn lease(&self, ino: Ino) -> Result<Attr> {
        let told = {
            let alive = self.core.is_alive();
            let mut state = self.state();
            if alive
                && state.cache.holds(Scope::Inode(ino), LeaseKind::Write)
                && let Some(attr) = state.cache.attr(ino)
            {
                return Ok(attr.clone());
            }
            let (tell, told) = oneshot::channel();
            let waiters = state.leasing.entry(ino).or_default();
            waiters.push(tell);
            if waiters.len() == 1 {
                // Not one of the calls that wait for room: there is one of them for each inode at most.
                self.core.submit(self.this.upgrade(), self.id(), Call::Lease { ino }, Waiter::None, None);
            }
            told
        };
        told.await.map_err(|_| Error::new(Kind::Unavailable, "the metadata client was closed"))?
    }

    fn leased(&self) -> Vec<Ino> {
        let of = |scope| match scope {
            Scope::Inode(ino) => Some(ino),
            Scope::Directory(_) => None,
        };
        self.state().cache.scopes().into_iter().filter_map(of).collect()
    }

    fn locks(&self) -> Vec<(Ino, LockOwner, Lock)> {
        self.state().locks.all()
    }

    fn was_changed_before(&self, ino: Ino) -> bool {
        self.state().changed_before.contains(&ino)
    }

    fn set_holder(&self, holder: Arc<dyn Holder>) {
        self.state().holder = Some(holder);
    }

    async fn test_lock(&self, ino: Ino, owner: LockOwner, lock: Lock) -> Result<Option<Lock>> {
        match self.call(Call::TestLock { ino, owner, lock }).await? {
            Answer::Lock(lock) => Ok(lock),
            other => Err(unexpected(&other)),
        }
    }

    async fn lock(&self, ino: Ino, request: LockRequest) -> Result<()> {
        self.core.lock(self.this.upgrade(), self.id(), ino, request).await
    }

    async fn peer(&self, node: NodeId) -> Result<PeerInfo> {
        match self.call(Call::Peer { node }).await? {
            Answer::Peer(peer) => Ok(peer),
            other => Err(unexpected(&other)),
        }
    }
}

/// While it lives, an inode whose name is being removed is opened by asking only.
struct Removal<'a> {
    space: &'a RemoteNamespace,
    ino: Option<Ino>,
}

impl Drop for Removal<'_> {
    fn drop(&mut self) {
        self.space.state().opens.removed(self.ino);
    }
}

impl RemoteNamespace {
    /// Before a name of an inode is taken away by us: the service must know that it is open, or it would free it with its
    /// last name. (Others recall our lease first, and are told so.)
    async fn removal(&self, dir: Ino, name: EntryName<'_>) -> Result<Removal<'_>> {
        let mut known = self.cached(|cache| cache.directory(dir)?.entry(name.as_bytes())).map(|(ino, _)| ino);
        loop {
            {
                let mut state = self.state();
                // What is closed goes with its name.
                self.tell_closed(&mut state);
                if let Some(tell) = state.opens.remove(known) {
                    if let Some(ino) = known.filter(|_| tell) {
                        self.tell(Call::Open { ino });
                    }
                    return Ok(Removal { space: self, ino: known });
                }
            }
            // Another change of this name from here on recalls our lease of the inode that it had.
            known = match self.call_attr(Call::Lookup { dir, name: boxed(name) }).await {
                Ok(attr) => Some(attr.ino),
                Err(e) if e.kind() == Kind::NotFound => {
                    self.state().opens.remove_unknown();
                    return Ok(Removal { space: self, ino: None });
                }
                Err(e) => return Err(e),
            };
        }
    }

    async fn call_bytes(&self, call: Call) -> Result<Vec<u8>> {
        match self.call(call).await? {
            Answer::Bytes(bytes) => Ok(bytes),
            other => Err(unexpected(&other)),
        }
    }

    async fn call_parts(&self, call: Call) -> Result<Vec<Vec<(u64, u64)>>> {
        match self.call(call).await? {
            Answer::Parts(parts) => Ok(parts),
            other => Err(unexpected(&other)),
        }
    }
}
