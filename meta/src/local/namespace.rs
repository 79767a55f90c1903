//! One namespace in this process: [`Metadata`] by applying operations in memory.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

use async_trait::async_trait;
use granary_core::{EntryName, Error, Ino, Kind, NamespaceId, NodeId, ObjectId, Result};

use super::cache::Spent;
use super::overlay::{Layers, Overlay};
use super::{LoadedSpaces, Shared, Spaces, lock};
use crate::api::Metadata;
use crate::changes::Changes;
use crate::lease::{LeaseKind, Scope};
use crate::machine::check::{self, Problem};
use crate::machine::trash::expiry::Hint;
use crate::machine::{self, Operation, Records, Reply, View, read};
use crate::settings::SharedSettings;
use crate::types::*;

/// Extents freed in one operation; a file with more is freed in several, by the committer.
const EXTENTS_FREED_AT_ONCE: usize = 1024;
/// Orphans remembered at once while they are looked for.
pub(super) const ORPHANS_AT_ONCE: usize = 1024;
/// Committed records that go into the cache under one hold of the lock.
const CACHED_AT_ONCE: usize = 256;

/// See the parent module.
#[derive(Debug)]
pub struct LocalNamespace {
    pub(super) id: NamespaceId,
    pub(super) shared: Arc<Shared>,
    /// This one among them.
    spaces: Weak<LoadedSpaces>,
    /// All that operations read and change. A plain mutex: an operation takes a few microseconds.
    pub(super) state: Mutex<State>,
    /// Pending changes were taken by the committer, or never will be.
    room: Condvar,
    pub(super) usage: SharedUsage,
    write_settings: SharedSettings,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) overlay: Overlay,
    /// How often each inode is open in this process.
    pub(super) opens: HashMap<Ino, u32>,
    /// Inodes without name or user, to be freed further.
    pub(super) to_free: Vec<Ino>,
    /// Why changes are refused.
    pub(super) refused: Option<Error>,
    /// Something of the trash was purged when it was last looked at: more may be due.
    pub(super) purging: bool,
    pub(super) purged: Hint,
}

/// The usage after the last operation, readable without the lock.
#[derive(Debug, Default)]
pub(super) struct SharedUsage {
    bytes: AtomicU64,
    inodes: AtomicU64,
    pub(super) bytes_max: AtomicU64,
    inodes_max: AtomicU64,
    pub(super) trash_bytes: AtomicU64,
    pub(super) trash_inodes: AtomicU64,
    capabilities: AtomicU64,
}

impl SharedUsage {
    fn store(&self, usage: Usage) {
        self.bytes.store(usage.bytes, Ordering::Relaxed);
        self.inodes.store(usage.inodes, Ordering::Relaxed);
        self.bytes_max.store(usage.bytes_max, Ordering::Relaxed);
        self.inodes_max.store(usage.inodes_max, Ordering::Relaxed);
        self.trash_bytes.store(usage.trash_bytes, Ordering::Relaxed);
        self.trash_inodes.store(usage.trash_inodes, Ordering::Relaxed);
    }

    fn load(&self) -> Usage {
        Usage {
            bytes: self.bytes.load(Ordering::Relaxed),
            inodes: self.inodes.load(Ordering::Relaxed),
            bytes_max: self.bytes_max.load(Ordering::Relaxed),
            inodes_max: self.inodes_max.load(Ordering::Relaxed),
            trash_bytes: self.trash_bytes.load(Ordering::Relaxed),
            trash_inodes: self.trash_inodes.load(Ordering::Relaxed),
        }
    }
}

impl LocalNamespace {
    /// `NotFound` when there is no namespace of this id.
    pub(super) fn load(shared: Arc<Shared>, spaces: &Spaces, id: NamespaceId) -> Result<LocalNamespace> {
        let mut overlay = Overlay::new(shared.tuning.cached_records_max);
        let mut layers = Layers { overlay: &mut overlay, engine: &*shared.engine, ns: id };
        if layers.get(&crate::record::Key::Namespace)?.is_none() {
            return Err(Error::new(Kind::NotFound, format!("there is no namespace with id {id}")));
        }
        let keep = shared.keep_orphans.load(Ordering::SeqCst);
        let to_free = if keep { Vec::new() } else { read::orphans(&mut layers, Ino(0), ORPHANS_AT_ONCE)? };
        let (usage, settings) = (read::usage(&mut layers)?, layers.settings()?);
        let capabilities = layers.counters()?.capabilities;
        let refused = shared.bell.failure();
        let space = LocalNamespace {
            id,
            state: Mutex::new(State {
                overlay,
                opens: HashMap::new(),
                to_free,
                refused,
                purging: false,
                purged: Hint::default(),
            }),
            room: Condvar::new(),
            usage: SharedUsage::default(),
            write_settings: SharedSettings::default(),
            shared,
            spaces: Arc::downgrade(spaces),
        };
        space.usage.store(usage);
        space.write_settings.store(&settings.write_settings());
        space.usage.capabilities.store(capabilities, Ordering::Relaxed);
        Ok(space)
    }

    pub fn id(&self) -> NamespaceId {
        self.id
    }

    /// Reads in one state, under the lock.
    pub(crate) fn read<T>(&self, f: impl FnOnce(&mut dyn View) -> Result<T>) -> Result<T> {
        let mut state = lock(&self.state);
        f(&mut self.layers(&mut state))
    }

    pub(super) fn layers<'a>(&'a self, state: &'a mut State) -> Layers<'a> {
        Layers { overlay: &mut state.overlay, engine: &*self.shared.engine, ns: self.id }
    }

    /// The state, when there is room for a change: waits for the committer while too much is pending.
    pub(super) fn lock_with_room(&self) -> Result<MutexGuard<'_, State>> {
        let mut state = lock(&self.state);
        while state.refused.is_none()
            && state.overlay.accumulating.weight() >= self.shared.tuning.pending_bytes_max
        {
            self.shared.bell.urgent();
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(state)
    }

    pub(super) fn change(&self, operation: Operation) -> Result<Reply> {
        let mut state = self.lock_with_room()?;
        let reply = self.apply(&mut state, operation)?;
        drop(state);
        self.shared.bell.dirty();
        Ok(reply)
    }

    pub(super) fn apply(&self, state: &mut State, mut operation: Operation) -> Result<Reply> {
        if let Some(e) = &state.refused {
            return Err(e.duplicate());
        }
        self.tell_open(state, &mut operation)?;
        let now = self.shared.clock.now();
        let (changes, reply) = machine::apply(&mut self.layers(state), operation, now)?;
        self.absorb(state, changes);
        Ok(reply)
    }

    pub(super) fn absorb(&self, state: &mut State, changes: Changes) {
        use crate::record::{Key, Value};
        if let Some(Some(Value::Counters(counters))) = changes.get(&Key::Counters) {
            self.usage.bytes.store(counters.bytes, Ordering::Relaxed);
            self.usage.inodes.store(counters.inodes, Ordering::Relaxed);
            self.usage.capabilities.store(counters.capabilities, Ordering::Relaxed);
        }
        if let Some(Some(Value::Namespace(settings))) = changes.get(&Key::Namespace) {
            self.usage.bytes_max.store(settings.bytes_max, Ordering::Relaxed);
            self.usage.inodes_max.store(settings.inodes_max, Ordering::Relaxed);
            self.write_settings.store(&settings.write_settings());
        }
        if let Some(Some(Value::Inode(trash))) = changes.get(&Key::Inode(Ino::TRASH)) {
            self.usage.trash_bytes.store(trash.held.bytes, Ordering::Relaxed);
            self.usage.trash_inodes.store(trash.held.inodes, Ordering::Relaxed);
        }
        state.overlay.accumulating.absorb(changes);
    }

    /// An operation that may take an inode's last name; without users the inode is freed with it, in the same group.
    fn change_names(&self, operation: Operation) -> Result<Option<Attr>> {
        self.make_room(&operation, &mut |_| true)?;
        let mut state = self.lock_with_room()?;
        let lost = match self.apply(&mut state, operation)? {
            Reply::Attr(attr) => Some(attr),
            Reply::Renamed(attr) => attr,
            other => return Err(unexpected(&other)),
        };
        if let Some(attr) = &lost
            && attr.nlink == 0
            && !state.opens.contains_key(&attr.ino)
        {
            self.free(&mut state, attr.ino);
        }
        drop(state);
        self.shared.bell.dirty();
        Ok(lost)
    }

    /// Frees an inode that nobody can reach, or moves it to its place in the trash. What cannot be freed now is freed later, at the latest at the next load.
    pub(super) fn free(&self, state: &mut State, ino: Ino) {
        match self.apply(state, Operation::Free { ino, extents_max: EXTENTS_FREED_AT_ONCE }) {
            Ok(Reply::Freed(false)) => state.to_free.push(ino),
            Ok(_) => {}
            // Once changes are accepted again.
            Err(_) if state.refused.is_some() => state.to_free.push(ino),
            Err(e) => {
                tracing::warn!("inode {ino} of namespace {} is not freed until the next start: {e}", self.id)
            }
        }
    }

    /// Frees at most `max` of what waits to be freed; whether nothing is left.
    pub(super) fn free_some(&self, max: usize, wait: bool) -> Result<bool> {
        for _ in 0..max {
            let mut state = if wait { self.lock_with_room()? } else { lock(&self.state) };
            let Some(ino) = state.to_free.pop() else { return Ok(true) };
            let operation = Operation::Free { ino, extents_max: EXTENTS_FREED_AT_ONCE };
            if self.apply(&mut state, operation)? == Reply::Freed(false) {
                state.to_free.push(ino);
            }
            drop(state);
            self.shared.bell.dirty();
        }
        Ok(lock(&self.state).to_free.is_empty())
    }

    /// Frees all orphans: before anybody uses the namespace.
    pub(super) fn free_orphans(&self) -> Result<()> {
        loop {
            while !self.free_some(ORPHANS_AT_ONCE, true)? {}
            let more = self.read(|view| read::orphans(view, Ino(0), ORPHANS_AT_ONCE))?;
            if more.is_empty() {
                return Ok(());
            }
            lock(&self.state).to_free = more;
        }
    }

    /// What is pending, for the committer to write; stays visible here until [`LocalNamespace::committed`].
    pub(super) fn take_pending(&self) -> Option<Arc<Changes>> {
        let taken = lock(&self.state).overlay.take();
        if taken.is_some() {
            self.room.notify_all();
        }
        taken
    }

    /// These changes are in the engine. They go into the cache a few at a time, so that operations need not wait long.
    pub(super) fn committed(&self, changes: &Changes) {
        let mut records = changes.points.iter().filter(|(key, _)| super::cache::Cache::holds(key)).peekable();
        while records.peek().is_some() {
            let mut state = lock(&self.state);
            for (key, value) in records.by_ref().take(CACHED_AT_ONCE) {
                state.overlay.cache.insert(key.clone(), value.clone());
            }
        }
        let written = lock(&self.state).overlay.committed();
        drop(written);
    }

    /// What was taken and could not be written.
    pub(super) fn unwritten(&self) -> Option<Arc<Changes>> {
        lock(&self.state).overlay.unwritten()
    }

    /// Changes are accepted again.
    pub(super) fn accept(&self) {
        lock(&self.state).refused = None;
    }

    /// From now on changes are refused; who waits for room is told.
    pub(super) fn refuse(&self, e: &Error) {
        lock(&self.state).refused.get_or_insert_with(|| e.duplicate());
        self.room.notify_all();
    }

    pub(super) fn take_spent(&self) -> Spent {
        lock(&self.state).overlay.cache.take_spent()
    }

    /// Nothing is pending, open, to be freed or purged.
    pub(super) fn is_idle(&self) -> bool {
        let state = lock(&self.state);
        !state.overlay.is_dirty() && state.opens.is_empty() && state.to_free.is_empty() && !state.purging
    }

    /// What waits for the committer.
    #[cfg(test)]
    pub(super) fn pending_weight(&self) -> usize {
        lock(&self.state).overlay.accumulating.weight()
    }

    pub fn info(&self) -> Result<NamespaceInfo> {
        self.read(|view| {
            let (settings, root, usage) = (view.settings()?, view.inode(Ino::ROOT)?, read::usage(view)?);
            Ok(NamespaceInfo {
                id: self.id,
                name: settings.name.clone(),
                uid: root.attr.uid,
                gid: root.attr.gid,
                mode: root.attr.mode,
                durability: settings.durability,
                policy: settings.policy,
                trash_ms: settings.trash_ms,
                packed: settings.packed.clone(),
                usage,
            })
        })
    }

    pub(super) fn configure(&self, change: NamespaceChange) -> Result<()> {
        self.change(Operation::Configure { change }).map(|_| ())
    }

    pub(super) fn root_entries(&self) -> Result<u64> {
        self.read(|view| Ok(view.directory(Ino::ROOT)?.entries))
    }

    /// Looks for contradictions; other calls wait meanwhile.
    pub fn check(&self) -> Result<Vec<Problem>> {
        self.read(|view| check::check(view))
    }

    /// An operation that makes an inode, and counts one open of it with `open`.
    fn make(&self, operation: Operation, open: bool) -> Result<Attr> {
        let mut state = self.lock_with_room()?;
        let attr = match self.apply(&mut state, operation)? {
            Reply::Attr(attr) => attr,
            other => return Err(unexpected(&other)),
        };
        if open {
            *state.opens.entry(attr.ino).or_default() += 1;
        }
        drop(state);
        self.shared.bell.dirty();
        Ok(attr)
    }

    fn changed_attr(&self, operation: Operation) -> Result<Attr> {
        match self.change(operation)? {
            Reply::Attr(attr) => Ok(attr),
            other => Err(unexpected(&other)),
        }
    }
}

pub(super) fn unexpected(reply: &Reply) -> Error {
    Error::new(Kind::Bug, format!("the state machine gave an answer of the wrong kind: {reply:?}"))
}

fn boxed(name: EntryName<'_>) -> Box<[u8]> {
    name.as_bytes().into()
}

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
        let Some(spaces) = self.spaces.upgrade() else { return Err(super::bell::stopped()) };
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
