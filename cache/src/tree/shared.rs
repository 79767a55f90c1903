//! What the files, the committer and the drain of one namespace share.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use granary_core::limits::Limits;
use granary_core::policy::WritePolicy;
use granary_core::waits::{self, Cause};
use granary_core::{ByteBudget, Clock, Error, Failpoint, Ino, Kind, NamespaceId, NodeId, ObjectId, Result};
use granary_meta::{Metadata, ObjectInfo};
use granary_store::Store;

use super::clean::CleanFiles;
use super::dirty::{self, Admit, Dirty};
use super::gather::Gathering;
use super::objects::Objects;
use super::served::Served;
use super::stuck::Thing;
use super::table::Table;
use super::{PathHint, TreeParts};
use crate::drain::Drain;
use crate::file::File;
use crate::peer::Peers;
use crate::prefetch::announced::follow::Orders;
use crate::prefetch::pinned::PinnedSets;
use crate::read::ReadCache;
use crate::room::Level;
use crate::stage::disk::Disk;
use crate::stage::redo::Handed;
use crate::stage::{Log, Shape, StageFiles};
use crate::util::{blocking, lock};

/// A writer that waits at the dirty limit looks again after this long, whatever it was told.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Refused changes that are remembered.
const FENCED_MAX: usize = 1000;

/// A file with a stage file that is not clean.
#[derive(Clone, Debug)]
pub(crate) struct Large {
    pub file: Arc<File>,
    /// When its stage file was begun, or soiled.
    pub since: Duration,
    pub last_write: Duration,
}

pub(crate) struct Shared {
    pub ns: NamespaceId,
    pub node: NodeId,
    pub limits: Limits,
    pub meta: Arc<dyn Metadata>,
    pub store: Arc<dyn Store>,
    pub reads: Arc<ReadCache>,
    pub clock: Arc<dyn Clock>,
    pub memory: ByteBudget,
    pub runtime: tokio::runtime::Handle,
    pub disk: Arc<dyn Disk>,
    pub log: Arc<Log>,
    pub handed: Handed,
    pub files: StageFiles,
    pub table: Table,
    pub clean: CleanFiles,
    pub gathering: Gathering,
    pub objects: Objects,
    pub dirty: Dirty,
    pub drain: Drain,
    pub served: Served,
    pub orders: Orders,
    pub pinned: PinnedSets,
    /// A verified record of the log that is read part by part, of at most 4 MiB: its segment, offset and bytes. Records never
    /// change, nor is a segment's number used twice.
    pub last_record: Mutex<Option<(u64, u64, Bytes)>>,
    /// Other nodes change the namespace too.
    pub many: bool,
    /// Reads what other nodes have staged.
    pub peers: OnceLock<Arc<dyn Peers>>,
    /// Guards why the disk refused the last write, until it takes one, for the status.
    disk_error: Mutex<Option<String>>,
    /// Guards the list of changes that were refused, for the status.
    fenced: Mutex<Vec<String>>,
    /// Guards the generator; asked once an object.
    random: Mutex<Box<dyn FnMut() -> u128 + Send>>,
    /// Files with held state since the committer came by.
    held: Mutex<Vec<Arc<File>>>,
    /// Files whose stage file waits for the drain; they stay loaded.
    large: Mutex<HashMap<Ino, Large>>,
    /// Stage files of deleted inodes, for as long as a power loss may bring their names back.
    buried: Mutex<Buried>,
    /// Bytes held back from the metadata, which its headroom does not know of.
    growth: AtomicI64,
    versions: AtomicU64,
    flushes: AtomicU64,
}

/// In the order in which they were given.
#[derive(Debug, Default)]
struct Buried {
    next: u64,
    stages: VecDeque<(u64, Ino, Shape)>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("ns", &self.ns).finish_non_exhaustive()
    }
}

impl Shared {
    pub fn new(parts: TreeParts, disk: Arc<dyn Disk>, log: Arc<Log>, files: StageFiles) -> Arc<Shared> {
        let drain = Drain::new(parts.limits.memory_bytes_max);
        let many = parts.meta.is_shared();
        let clean = CleanFiles::new(parts.reads.clean_counter());
        Arc::new(Shared {
            ns: parts.meta.namespace(),
            node: parts.node,
            limits: parts.limits,
            meta: parts.meta,
            store: parts.store,
            reads: parts.reads,
            clock: parts.clock,
            memory: parts.memory,
            runtime: parts.runtime,
            disk,
            log,
            handed: Handed::default(),
            files,
            table: Table::new(),
            clean,
            gathering: Gathering::default(),
            objects: Objects::default(),
            dirty: Dirty::default(),
            drain,
            served: Served::default(),
            orders: Orders::default(),
            pinned: PinnedSets::default(),
            last_record: Mutex::default(),
            many,
            peers: OnceLock::new(),
            disk_error: Mutex::default(),
            fenced: Mutex::default(),
            random: Mutex::new(parts.random),
            held: Mutex::default(),
            large: Mutex::default(),
            buried: Mutex::default(),
            growth: AtomicI64::new(0),
            versions: AtomicU64::new(0),
            flushes: AtomicU64::new(0),
        })
    }

    /// The file with one user more, loaded.
    pub async fn open(
        self: &Arc<Self>,
        attr: &granary_meta::Attr,
        hint: Option<PathHint>,
    ) -> Result<Arc<File>> {
        let file = self.table.acquire(attr.ino, || File::new(attr.ino, self.clone()));
        if let Some(hint) = hint {
            file.remember(hint);
        }
        match file.load(attr).await {
            Ok(()) => Ok(file),
            Err(e) => {
                self.table.release(&file);
                self.table.remove_unloaded(attr.ino);
                Err(e)
            }
        }
    }

    /// Files and tree point at each other: lets go of all files.
    pub fn end(&self) {
        self.table.clear();
        lock(&self.held).clear();
        lock(&self.large).clear();
    }

    /// The disk refused a write; told once until it works again.
    pub fn note_disk_error(&self, e: &Error) {
        if !matches!(e.kind(), Kind::Io | Kind::NoSpace | Kind::ReadOnly) || self.log.broken().is_some() {
            return; // what broke the log is told by it
        }
        let mut known = lock(&self.disk_error);
        if known.is_none() {
            tracing::error!(ns = %self.ns, error = %e, "the node's disk does not take what is written");
        }
        *known = Some(e.to_string());
    }

    /// After the disk refused a write: whether it takes one again.
    pub fn look_at_disk(&self) {
        let refused = lock(&self.disk_error).is_some();
        if refused && self.files.probe().is_ok() {
            *lock(&self.disk_error) = None;
            tracing::info!(ns = %self.ns, "the node's disk works again");
        }
    }

    /// Why the disk does not take what is written, if it does not.
    pub fn disk_error(&self) -> Option<String> {
        self.log.broken().map(|e| e.to_string()).or_else(|| lock(&self.disk_error).clone())
    }

    /// Changes of a file were refused for good.
    pub fn note_fenced(&self, message: String) {
        let mut fenced = lock(&self.fenced);
        if fenced.len() < FENCED_MAX {
            fenced.push(message);
        }
    }

    /// The same, found at start: another node changed the file after this one, whose last changes had not been committed.
    pub fn note_overtaken(&self, ino: Ino, kept: &str) {
        let message = format!(
            "inode {ino} was changed by another node before this node's last changes of it were committed; they were not applied, \
             and lie in {kept}"
        );
        tracing::error!(ns = %self.ns, "{message}");
        self.note_fenced(message);
    }

    pub fn kept_aside(&self) -> Vec<String> {
        lock(&self.fenced).clone()
    }

    /// What a person has to look at, if anything.
    pub fn fenced(&self) -> Option<String> {
        let fenced = lock(&self.fenced);
        let first = fenced.first()?;
        Some(match fenced.len() {
            1 => first.clone(),
            n => format!("{first} (and {} more)", n - 1),
        })
    }

    pub fn next_version(&self) -> u64 {
        self.versions.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub fn new_object(&self) -> ObjectId {
        ObjectId::new(self.clock.now().unix_ms(), (lock(&self.random))())
    }

    /// A number from 0 to 1, at random.
    pub fn spread(&self) -> f64 {
        (lock(&self.random))() as f64 / u128::MAX as f64
    }

    /// Counts how often everything was promised to survive.
    pub fn flushes(&self) -> u64 {
        self.flushes.load(Ordering::SeqCst)
    }

    pub fn count_flush(&self) {
        self.flushes.fetch_add(1, Ordering::SeqCst);
    }

    pub fn count_growth(&self, by: i64) {
        self.growth.fetch_add(by, Ordering::SeqCst);
    }

    /// Counts `by` bytes that are about to be written, unless they exceed the quota.
    pub fn grow(&self, by: i64) -> Result<()> {
        let held = self.growth.fetch_add(by, Ordering::SeqCst) + by;
        let headroom = self.meta.headroom();
        if by > 0 && headroom != u64::MAX && held > headroom as i64 {
            self.growth.fetch_sub(by, Ordering::SeqCst);
            return Err(self.full());
        }
        Ok(())
    }

    /// Whether `bytes` more would fit the quota now.
    pub fn check_room(&self, bytes: u64) -> Result<()> {
        let headroom = self.meta.headroom();
        if headroom != u64::MAX && self.growth.load(Ordering::SeqCst) + bytes as i64 > headroom as i64 {
            return Err(self.full());
        }
        Ok(())
    }

    fn full(&self) -> Error {
        let usage = self.meta.usage();
        Error::new(
            Kind::QuotaExceeded,
            format!(
                "the namespace is full ({} of {} bytes); ask for more, or delete",
                usage.bytes, usage.bytes_max
            ),
        )
    }

    /// Whether even filling the stage's disk would not exceed the quota.
    pub fn room_for_unbounded_writes(&self) -> bool {
        let headroom = self.meta.headroom();
        let held = self.growth.load(Ordering::SeqCst).max(0) as u64;
        headroom == u64::MAX || headroom.saturating_sub(held) >= self.files.free_bytes()
    }

    /// How the namespace's writes reach the store, at this moment.
    pub fn policy(&self) -> WritePolicy {
        WritePolicy::resolve(&self.limits, &self.meta.write_settings().policy)
    }

    /// What the dirty limits of this moment say to a write of `len` bytes.
    fn decide(&self, len: u64) -> Admit {
        let sums = self.dirty.sums(self.log.dirty());
        let policy = self.policy();
        match dirty::decide(sums, &policy, 0, 0, len) {
            // Only near the limit the rate matters.
            Admit::Delay(_) => dirty::decide(sums, &policy, self.drain_rate(), self.dirty.slowed(), len),
            decided => decided,
        }
    }

    /// Waits as the dirty limits and the disk demand before `len` bytes are written. Others than this namespace's make it
    /// wait only where the disk is full of what they wrote. `NoSpace` when waiting would not help.
    pub async fn admit(&self, len: u64) -> Result<()> {
        self.admit_dirty(len).await;
        self.admit_to_disk(len).await.map(drop)
    }

    /// Waits until the disk has room for `len` bytes; whether there was something to wait for, or to drop.
    pub async fn admit_to_disk(&self, len: u64) -> Result<bool> {
        let room = self.reads.room().clone();
        let mut full_before = false;
        let mut waited = false;
        loop {
            match room.ask(len) {
                Level::Ample => return Ok(waited),
                Level::Near => {
                    room.hurry();
                    return Ok(waited);
                }
                Level::Short => {}
            }
            waited = true;
            let mut freed = std::pin::pin!(self.dirty.freed.notified());
            freed.as_mut().enable();
            let making = room.clone();
            if blocking(&self.runtime, move || Ok(making.make_room(len))).await? < Level::Short {
                return Ok(waited);
            }
            // Asked twice: what leaves is not counted any more a moment before its space is free.
            if !room.is_drainable() && std::mem::replace(&mut full_before, true) {
                return Err(room.full());
            }
            room.hurry();
            let _ = tokio::time::timeout(LOOK_AGAIN, freed).await;
        }
    }

    /// Returns when neither the dirty limits nor the disk would keep a write of `len` bytes waiting without an end. It is still to be
    /// admitted. May be given up at any time. `NoSpace` when waiting would not help.
    pub async fn wait_for_room(&self, len: u64) -> Result<()> {
        self.wait_at_limit(len).await;
        self.admit_to_disk(len).await.map(drop)
    }

    /// Whether a write of `len` bytes would wait for the store now.
    pub fn would_wait(&self, len: u64) -> bool {
        self.decide(len) == Admit::Wait || self.reads.room().ask(len) == Level::Short
    }

    async fn wait_at_limit(&self, len: u64) {
        while self.decide(len) == Admit::Wait {
            let mut freed = std::pin::pin!(self.dirty.freed.notified());
            freed.as_mut().enable();
            self.drain.wake();
            if self.decide(len) == Admit::Wait {
                let _ = tokio::time::timeout(LOOK_AGAIN, freed).await;
            }
        }
    }

    async fn admit_dirty(&self, len: u64) {
        loop {
            self.wait_at_limit(len).await;
            let freed = self.dirty.freed.notified();
            match self.decide(len) {
                Admit::Go => return,
                Admit::Delay(delay) => {
                    let _slowed = self.dirty.slow();
                    self.drain.wake();
                    let _ = tokio::time::timeout(delay, freed).await;
                    return;
                }
                Admit::Wait => {}
            }
        }
    }

    /// The drain cannot take a part of the stage, with so many dirty bytes and files; told once.
    pub fn note_stuck(&self, thing: Thing, bytes: u64, files: u64, e: &Error) {
        if self.dirty.stuck.keep(thing, bytes, files, e.to_string()) {
            tracing::error!(ns = %self.ns, error = %e, "{thing} cannot go to the store");
        }
        self.dirty.freed.notify_waiters();
    }

    pub fn list_held(&self, file: Arc<File>) {
        lock(&self.held).push(file);
    }

    pub fn take_held(&self) -> Vec<Arc<File>> {
        std::mem::take(&mut lock(&self.held))
    }

    /// Keeps the list of files whose stage file waits for the drain.
    pub fn note_large(&self, file: &Arc<File>, large: bool, written: bool) {
        let now = self.clock.monotonic();
        let mut all = lock(&self.large);
        if !large {
            all.remove(&file.ino());
            self.dirty.stuck.release(Thing::File(file.ino()));
        } else if let Some(known) = all.get_mut(&file.ino()) {
            if written {
                known.last_write = now;
            }
        } else {
            all.insert(file.ino(), Large { file: file.clone(), since: now, last_write: now });
            self.drain.wake();
        }
        self.dirty.count_large(all.len() as u64);
    }

    pub fn large(&self, ino: Ino) -> Option<Large> {
        lock(&self.large).get(&ino).cloned()
    }

    pub fn all_large(&self) -> Vec<Large> {
        lock(&self.large).values().cloned().collect()
    }

    /// The inode is gone from the metadata in memory. What of it is in the stage alone goes when it is durably gone.
    pub fn bury(&self, ino: Ino, shape: Shape) {
        if matches!(shape, Shape::Clean(_)) {
            return self.remove_stage(ino, shape);
        }
        let mut buried = lock(&self.buried);
        let number = buried.next;
        buried.next += 1;
        buried.stages.push_back((number, ino, shape));
    }

    pub fn has_buried(&self) -> bool {
        !lock(&self.buried).stages.is_empty()
    }

    /// Makes the metadata durable, then removes the stage files of inodes that were gone before.
    pub async fn sync_meta(&self) -> Result<()> {
        let end = lock(&self.buried).next;
        waits::on(|| Cause::MetadataSync, self.meta.sync()).await?;
        let next = || lock(&self.buried).stages.pop_front_if(|(number, ..)| *number < end);
        while let Some((_, ino, shape)) = next() {
            Failpoint::BuriedBeforeRemove.reach();
            self.remove_stage(ino, shape);
            Failpoint::BuriedAfterRemove.reach();
        }
        Ok(())
    }

    /// Whether the next sync of the metadata makes the log durable up to here.
    pub async fn hand_over(&self) -> Result<bool> {
        if self.many {
            return Ok(false);
        }
        self.handed.hand_over(&self.log, &*self.meta, self.node).await
    }

    /// Syncs the log, whose bytes the metadata need not have then.
    pub async fn sync_log(&self) -> Result<()> {
        waits::on(|| Cause::Disk("sync of the stage log"), self.log.sync(&self.runtime)).await?;
        self.handed.drop_synced(&self.log, &*self.meta, self.node).await
    }

    fn remove_stage(&self, ino: Ino, shape: Shape) {
        if let Err(e) = self.files.remove(ino, shape) {
            tracing::warn!(error = %e, "a deleted file's stage file stays until the next start");
        }
    }

    pub async fn object(&self, id: ObjectId) -> Result<ObjectInfo> {
        if let Some(info) = self.objects.known(id) {
            return Ok(info);
        }
        let info = self.meta.object(id).await?;
        self.objects.learn(info);
        Ok(info)
    }

    /// Commits everything that is held, also what the kernel wrote itself. The first error is returned, all are tried; what
    /// could not be committed stays held.
    pub async fn commit_all(&self) -> Result<()> {
        let mut result = Ok(());
        for file in self.take_held() {
            file.state().listed = false;
            if let Err(e) = file.absorb_open() {
                file.set_error(&e);
            }
            let committed = file.commit().await;
            if committed.is_err() {
                file.relist();
            } else if !file.has_users() {
                self.table.retire(&file);
            }
            result = result.and(committed);
        }
        result
    }

    /// Everything done before the call survives a power loss of this node.
    pub async fn flush(&self) -> Result<()> {
        self.count_flush();
        for large in self.all_large() {
            large.file.absorb_open()?;
        }
        self.commit_all().await?;
        for large in self.all_large() {
            large.file.sync_stage().await?;
            large.file.rest();
        }
        self.sync_log().await?;
        self.sync_meta().await
    }
}
