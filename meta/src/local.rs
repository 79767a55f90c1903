//! A volume's metadata in this process: namespaces over an engine, operations applied in memory, one thread that writes
//! them to the engine in groups.
//!
//! ```text
//!  Metadata call -> state machine -> pending changes -> reply          (some microseconds, no I/O when warm)
//!                                         |
//!                                     committer: one batch of all namespaces each commit_interval_ms,
//!                                                an fsync each sync_interval_ms, or at once when sync() waits
//! ```
//!
//! An operation is visible when acknowledged and durable at the next group commit; `sync` waits for that. Batches are
//! written in order and hold whole operations, so that after a crash the state is one that was, and holds at least all
//! that a returned `sync` covered.
//!
//! When the engine fails, the volume refuses all further changes with that error (what is on disk is unknown, so going
//! on could lose acknowledged operations silently) and every `sync` fails; reads go on. What was acknowledged and not written
//! stays in memory. Every second, and whenever somebody waits for a sync, the committer has the engine look whether its disk
//! works again ([`Engine::revive`]); then it writes what it kept, durably, and changes are accepted again.
//!
//! Locks, in the order in which they are taken; none is held across `.await`:
//!
//! | lock | guards | held during |
//! |---|---|---|
//! | `Volume::admin` | making and removing namespaces, one at a time | engine reads and one synced write |
//! | `Shared::round` | the committer's work, against removal of a namespace | one round of the committer |
//! | `Spaces` | the table of loaded namespaces | loading one (engine reads) |
//! | a namespace's `State` | pending changes, cache, open counts | one operation; engine reads when not cached |
//! | `Bell` | what the committer is asked to do | a few instructions |
//!
//! The committer takes `Spaces`, then each `State` (to swap its pending changes out), one after another, never during
//! engine writes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use granary_core::limits::Limits;
use granary_core::{Clock, Error, Kind, NamespaceId, NamespaceName, Result};

use crate::engine::{Engine, Write};
use crate::machine::check::Problem;
use crate::machine::{self, EngineView, Operation, read};
use crate::record::volume as records;
use crate::types::{NamespaceChange, NamespaceInfo, NewNamespace, VolumeInfo};

mod bell;
mod cache;
mod committer;
mod coverage;
mod maintenance;
mod namespace;
mod overlay;
mod redo;
mod served;
mod through;
mod trash;

use bell::Bell;
pub(crate) use bell::Waiter;
use coverage::Coverage;
pub use maintenance::Inventory;
pub use namespace::LocalNamespace;
pub(crate) use served::{Keep, Verdict};
use through::Through;

/// Bounds of the metadata in memory, for each namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// Records kept decoded: inodes, entries (also that a name is missing), objects.
    pub cached_records_max: usize,
    /// Memory of changes that wait for the committer, roughly; at it callers wait.
    pub pending_bytes_max: usize,
}

impl Default for Tuning {
    fn default() -> Tuning {
        Tuning { cached_records_max: 100_000, pending_bytes_max: 32 << 20 }
    }
}

/// What namespaces and the committer share.
#[derive(Debug)]
struct Shared {
    engine: Arc<dyn Engine>,
    clock: Arc<dyn Clock>,
    tuning: Tuning,
    bell: Bell,
    /// Who waits until what was changed is in the engine.
    through: Through,
    /// Whether batches were written that no sync has covered.
    coverage: Coverage,
    /// Sessions wait for writes: a sync must not hold them up.
    served: AtomicBool,
    /// Inodes without a name may be open in sessions that will come back: none is freed for being found so.
    keep_orphans: AtomicBool,
    /// Held by who writes batches, and by who must know that nobody does.
    round: Mutex<()>,
}

/// The loaded namespaces. One that nobody uses and that has nothing pending is dropped by the committer.
type Spaces = Arc<LoadedSpaces>;
type LoadedSpaces = Mutex<HashMap<NamespaceId, Arc<LocalNamespace>>>;

/// A volume's metadata, open in this process.
#[derive(Debug)]
pub struct Volume {
    info: VolumeInfo,
    shared: Arc<Shared>,
    spaces: Spaces,
    admin: Mutex<()>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A waiter for the committer, and how to block until it was told.
fn blocking_waiter() -> (bell::Waiter, impl FnOnce() -> Result<()>) {
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    let waiter = Box::new(move |result| {
        // Who asked may have gone; then nobody wants to know.
        let _ = tell.send(result);
    });
    (waiter, move || {
        told.recv().map_err(|_| Error::new(Kind::Bug, "the committer ended without an answer"))?
    })
}

impl Volume {
    /// Makes a volume in an empty engine. `Exists` when one is there, `Invalid` for a uuid that is none.
    pub fn init(engine: &dyn Engine, info: &VolumeInfo) -> Result<()> {
        if !records::is_uuid(&info.uuid) {
            return Err(Error::new(
                Kind::Invalid,
                format!("volume uuid {:?} is not 32 hexadecimal digits", info.uuid),
            ));
        }
        if info.store_url.len() > 4096 {
            return Err(Error::new(Kind::Invalid, "the store URL has more than 4096 bytes"));
        }
        if let Some(bytes) = engine.get(records::VOLUME_KEY)? {
            let there = records::decode_volume(&bytes)?;
            return Err(Error::new(
                Kind::Exists,
                format!(
                    "a volume is there already (store {}, uuid {}); mount that, or choose an empty metadata directory",
                    there.store_url, there.uuid
                ),
            ));
        }
        let mut empty = true;
        engine.scan(b"", b"", &mut |_, _| {
            empty = false;
            Ok(false)
        })?;
        if !empty {
            return Err(Error::new(
                Kind::Exists,
                "the metadata directory holds other data; choose an empty one",
            ));
        }
        let first = NamespaceId(1);
        let batch = vec![
            Write::Put(records::VOLUME_KEY.to_vec(), records::encode_volume(info)),
            Write::Put(records::NEXT_ID_KEY.to_vec(), records::encode_id(first)),
        ];
        engine.write(batch, true)
    }

    /// Opens the volume in `engine`, starts its committer, and frees what a crash left unlinked but open.
    /// `NotFound` without a volume, `Unsupported` when a newer granary wrote it.
    /// A volume that is to be served is opened by [`Volume::open_served`].
    pub fn open(engine: Arc<dyn Engine>, clock: Arc<dyn Clock>, limits: &Limits) -> Result<Arc<Volume>> {
        Volume::open_tuned(engine, clock, limits, Tuning::default())
    }

    pub fn open_tuned(
        engine: Arc<dyn Engine>,
        clock: Arc<dyn Clock>,
        limits: &Limits,
        tuning: Tuning,
    ) -> Result<Arc<Volume>> {
        let volume = Volume::load(engine, clock, limits, tuning, false)?;
        for (_, id) in volume.names()? {
            let view = &mut EngineView { engine: &*volume.shared.engine, ns: id };
            if !read::orphans(view, granary_core::Ino(0), 1)?.is_empty() {
                volume.namespace_by_id(id)?.free_orphans()?;
            }
        }
        Ok(volume)
    }

    /// The same for a process that goes on with the open files of one that ended: inodes without a name stay, and may be opened,
    /// until [`Volume::free_orphans`].
    pub fn open_keeping(
        engine: Arc<dyn Engine>,
        clock: Arc<dyn Clock>,
        limits: &Limits,
    ) -> Result<Arc<Volume>> {
        let volume = Volume::load(engine, clock, limits, Tuning::default(), false)?;
        volume.shared.keep_orphans.store(true, Ordering::SeqCst);
        Ok(volume)
    }

    /// Opens the volume for [`crate::service::Service`]: what is unlinked but open stays until the service has heard of
    /// the sessions that had it open. `Busy` while it keeps something for a node's stage log.
    pub fn open_served(
        engine: Arc<dyn Engine>,
        clock: Arc<dyn Clock>,
        limits: &Limits,
        tuning: Tuning,
    ) -> Result<Arc<Volume>> {
        let volume = Volume::load(engine, clock, limits, tuning, true)?;
        volume.refuse_redo()?;
        Ok(volume)
    }

    fn load(
        engine: Arc<dyn Engine>,
        clock: Arc<dyn Clock>,
        limits: &Limits,
        tuning: Tuning,
        served: bool,
    ) -> Result<Arc<Volume>> {
        let bytes = engine.get(records::VOLUME_KEY)?.ok_or(Error::new(
            Kind::NotFound,
            "there is no volume in this metadata directory; make one with granary init",
        ))?;
        let info = records::decode_volume(&bytes)?;
        let shared = Arc::new(Shared {
            engine,
            clock,
            tuning,
            bell: Bell::default(),
            through: Through::default(),
            coverage: Coverage::default(),
            served: AtomicBool::new(served),
            keep_orphans: AtomicBool::new(served),
            round: Mutex::new(()),
        });
        let spaces = Spaces::default();
        let thread = committer::spawn(shared.clone(), spaces.clone(), limits)?;
        Ok(Arc::new(Volume { info, shared, spaces, admin: Mutex::new(()), thread: Mutex::new(Some(thread)) }))
    }

    /// Why changes are refused, while the engine fails.
    pub fn failure(&self) -> Option<Error> {
        self.shared.bell.failure()
    }

    pub fn info(&self) -> &VolumeInfo {
        &self.info
    }

    /// `Invalid` when the store's marker names another volume: the two were mixed up.
    pub fn check_uuid(&self, store_uuid: &str) -> Result<()> {
        if self.info.uuid.eq_ignore_ascii_case(store_uuid) {
            return Ok(());
        }
        Err(Error::new(
            Kind::Invalid,
            format!(
                "the store at {} belongs to volume {store_uuid}, this metadata to volume {}; give the metadata \
                 directory and the store of the same volume",
                self.info.store_url, self.info.uuid
            ),
        ))
    }

    /// Names and ids of all namespaces, in order of names.
    pub(crate) fn names(&self) -> Result<Vec<(NamespaceName, NamespaceId)>> {
        let mut all = Vec::new();
        self.shared.engine.scan(records::NAME_PREFIX, records::NAME_PREFIX, &mut |key, value| {
            all.push((records::decode_name_key(key)?, records::decode_id(value)?));
            Ok(true)
        })?;
        Ok(all)
    }

    fn find(&self, name: &NamespaceName) -> Result<NamespaceId> {
        match self.shared.engine.get(&records::name_key(name))? {
            Some(bytes) => records::decode_id(&bytes),
            None => Err(Error::new(
                Kind::NotFound,
                format!(
                    "there is no namespace {name}; granary ns list shows them, granary ns create makes one"
                ),
            )),
        }
    }

    /// Makes a namespace, durably. `Exists` when the name is taken.
    pub fn create_namespace(&self, new: NewNamespace) -> Result<NamespaceInfo> {
        self.create_namespace_noting(new, |_| None)
    }

    /// The same; what `note` makes of the new id is written in the same batch.
    pub(crate) fn create_namespace_noting(
        &self,
        new: NewNamespace,
        note: impl FnOnce(NamespaceId) -> Option<Write>,
    ) -> Result<NamespaceInfo> {
        let _admin = lock(&self.admin);
        self.shared.bell.refuse_when_stopped()?;
        let engine = &*self.shared.engine;
        if engine.get(&records::name_key(&new.name))?.is_some() {
            return Err(Error::new(Kind::Exists, format!("namespace {} is there already", new.name)));
        }
        let next = engine.get(records::NEXT_ID_KEY)?;
        let next = next
            .ok_or(Error::new(Kind::Corrupt, "the volume has no next namespace id; restore the metadata"))?;
        let id = records::decode_id(&next)?;
        let after =
            id.0.checked_add(1).ok_or(Error::new(Kind::NoSpace, "the volume's namespace ids are used up"))?;
        let name = new.name.clone();
        let view = &mut EngineView { engine, ns: id };
        let (changes, _) = machine::apply(view, Operation::Init { new }, self.shared.clock.now())?;
        let mut batch = vec![
            Write::Put(records::NEXT_ID_KEY.to_vec(), records::encode_id(NamespaceId(after))),
            Write::Put(records::name_key(&name), records::encode_id(id)),
        ];
        changes.encode(id, &mut batch);
        batch.extend(note(id));
        engine.write(batch, true)?;
        self.namespace_by_id(id)?.info()
    }

    /// All namespaces, in order of names.
    pub fn namespaces(&self) -> Result<Vec<NamespaceInfo>> {
        self.names()?.into_iter().map(|(_, id)| self.namespace_by_id(id)?.info()).collect()
    }

    pub fn namespace_info(&self, name: &NamespaceName) -> Result<NamespaceInfo> {
        self.namespace(name)?.info()
    }

    /// Changes settings, durably. A limit below what is used is allowed: it stops growth.
    pub fn set_namespace(&self, name: &NamespaceName, change: NamespaceChange) -> Result<NamespaceInfo> {
        let space = self.namespace(name)?;
        space.configure(change)?;
        self.flush()?;
        space.info()
    }

    /// Removes a namespace, durably. `NotEmpty` when it has entries and `force` is not given; `Busy` while it is in use.
    /// Its objects stay in the store under its prefix, which no later namespace shares; `granary gc` deletes them.
    pub fn remove_namespace(&self, name: &NamespaceName, force: bool) -> Result<()> {
        self.remove_namespace_noting(name, force, None)
    }

    /// The same; `note` is written in the same batch.
    pub(crate) fn remove_namespace_noting(
        &self,
        name: &NamespaceName,
        force: bool,
        note: Option<Write>,
    ) -> Result<()> {
        let _admin = lock(&self.admin);
        let id = self.find(name)?;
        let root = self.namespace_by_id(id)?.root_entries()?;
        if root > 0 && !force {
            return Err(Error::new(
                Kind::NotEmpty,
                format!("namespace {name} has {root} entries in its root; delete them, or force the removal"),
            ));
        }
        // Between two rounds the committer holds no namespace: who else does is a user. What is pending is dropped with
        // the namespace's last owner, the table, and never written.
        let _round = lock(&self.shared.round);
        let mut spaces = lock(&self.spaces);
        if spaces.get(&id).is_some_and(|space| Arc::strong_count(space) > 1) {
            return Err(Error::new(Kind::Busy, format!("namespace {name} is in use; unmount it first")));
        }
        let mut batch =
            vec![Write::Delete(records::name_key(name)), Write::DeletePrefix(id.0.to_be_bytes().to_vec())];
        batch.extend(note);
        self.shared.engine.write(batch, true)?;
        spaces.remove(&id);
        Ok(())
    }

    /// The namespace of this name; the same object for all who ask while somebody uses it.
    pub fn namespace(&self, name: &NamespaceName) -> Result<Arc<LocalNamespace>> {
        self.namespace_by_id(self.find(name)?)
    }

    pub fn namespace_by_id(&self, id: NamespaceId) -> Result<Arc<LocalNamespace>> {
        let mut spaces = lock(&self.spaces);
        // Under the lock: the committer takes it after the stop, to refuse changes to all that were loaded before.
        self.shared.bell.refuse_when_stopped()?;
        if let Some(space) = spaces.get(&id) {
            return Ok(space.clone());
        }
        let space = Arc::new(LocalNamespace::load(self.shared.clone(), &self.spaces, id)?);
        spaces.insert(id, space.clone());
        Ok(space)
    }

    /// Looks for contradictions in a namespace's records; nothing found is an empty list. The namespace waits meanwhile.
    pub fn check(&self, name: &NamespaceName) -> Result<Vec<Problem>> {
        self.namespace(name)?.check()
    }

    /// Blocks until every operation acknowledged before the call is durable.
    pub fn flush(&self) -> Result<()> {
        let (waiter, answer) = blocking_waiter();
        self.shared.bell.ask_sync(waiter)?;
        answer()
    }

    /// Makes all durable, ends the committer and closes the engine. Namespaces that are still held refuse changes from
    /// then on. A second call does nothing.
    pub fn shutdown(&self) -> Result<()> {
        let Some(thread) = lock(&self.thread).take() else { return Ok(()) };
        let (waiter, answer) = blocking_waiter();
        self.shared.bell.stop(waiter);
        let flushed = answer();
        let joined = thread.join().map_err(|_| Error::new(Kind::Bug, "the metadata committer panicked"));
        lock(&self.spaces).clear();
        flushed.and(joined).and(self.shared.engine.close())
    }
}

impl Drop for Volume {
    /// As [`Volume::shutdown`]; a failure, which nobody can be told any more, is logged.
    fn drop(&mut self) {
        if let Err(e) = self.shutdown() {
            tracing::error!("cannot close the metadata: {e}");
        }
    }
}

#[cfg(test)]
mod tests;
