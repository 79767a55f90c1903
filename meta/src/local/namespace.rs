//! One namespace in this process: [`Metadata`] by applying operations in memory.

mod metadata;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

use granary_core::{EntryName, Error, Ino, Kind, NamespaceId, Result};

use super::cache::Spent;
use super::overlay::{Layers, Overlay};
use super::{LoadedSpaces, Shared, Spaces, lock};
use crate::changes::Changes;
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
