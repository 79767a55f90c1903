//! The drain: takes what is staged to the store and moves the metadata's extents there. [`policy`] decides when and what,
//! [`pack`] uploads segments of the log, [`large`] stage files, [`compact`] rewrites objects that are mostly dead, [`dead`] deletes
//! those nobody refers to any more.
//!
//! Nothing leaves the stage before the metadata that names its object is durable. A failed upload changes nothing: it is
//! tried again, ever more rarely.

pub(crate) mod compact;
pub(crate) mod dead;
mod evict;
mod large;
mod pack;
mod policy;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::TryStreamExt;
use granary_core::limits::Limits;
use granary_core::{Error, Failpoint, Ino, Kind, Result};
use granary_meta::{Extent, Move, ObjectInfo, Place};
use granary_store::format::Sealed;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::extent_map::clip;
use crate::tree::{Shared, TreeStatus};
use crate::util::lock;
use compact::Compaction;
use policy::{LargeFile, Policy, Step, View};

/// The drain looks around at least this often, whatever it was told.
const LOOK_AROUND: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Drain {
    /// Guards the decisions; asked and told between steps. Taken before any other lock.
    policy: Mutex<Policy>,
    /// PUTs at once.
    uploads: Semaphore,
    wake: Notify,
    /// Ends the drain.
    pub stop: CancellationToken,
    /// Told after every unit, however it ended.
    progress: Notify,
    /// How many units failed, and the last failure, if nothing succeeded since.
    failures: Mutex<(u64, Option<Error>)>,
    uploaded_bytes: AtomicU64,
    uploaded_objects: AtomicU64,
    pub compaction: Compaction,
}

impl Drain {
    pub fn new(limits: &Limits) -> Drain {
        Drain {
            policy: Mutex::new(Policy::new(limits)),
            uploads: Semaphore::new(limits.uploads_max as usize),
            wake: Notify::new(),
            stop: CancellationToken::new(),
            progress: Notify::new(),
            failures: Mutex::default(),
            uploaded_bytes: AtomicU64::new(0),
            uploaded_objects: AtomicU64::new(0),
            compaction: Compaction::default(),
        }
    }

    /// There may be something to do.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    fn finished(&self, shared: &Shared, what: &str, result: Result<()>) {
        let mut failures = lock(&self.failures);
        match result {
            Ok(()) => {
                if failures.1.take().is_some() {
                    tracing::info!(ns = %shared.ns, "uploads work again");
                }
            }
            Err(e) => {
                failures.0 += 1;
                if failures.1.is_none() {
                    tracing::warn!(ns = %shared.ns, error = %e, "cannot upload {what}; they stay on this node's disk and is tried again");
                }
                failures.1 = Some(e.context(format_args!("cannot upload {what}")));
            }
        }
        drop(failures);
        shared.dirty.freed.notify_waiters();
        self.progress.notify_waiters();
        self.wake();
    }
}

/// Runs until [`Drain::stop`], and ends its uploads with it.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut units: JoinSet<()> = JoinSet::new();
    while !shared.drain.stop.is_cancelled() {
        while units.try_join_next().is_some() {}
        match next_step(&shared) {
            Step::Seal => {
                shared.log.seal();
            }
            Step::Pack(segments) => {
                let shared = shared.clone();
                units.spawn(async move { run_pack(&shared, segments).await });
            }
            Step::File(ino) => {
                let shared = shared.clone();
                units.spawn(async move { run_file(&shared, ino).await });
            }
            Step::Wait(until) => {
                evict::evict(&shared);
                let until = until.unwrap_or(LOOK_AROUND).clamp(Duration::from_millis(1), LOOK_AROUND);
                tokio::select! {
                    () = shared.drain.stop.cancelled() => {}
                    () = shared.drain.wake.notified() => {}
                    Some(_) = units.join_next() => {}
                    () = tokio::time::sleep(until) => {}
                }
            }
        }
    }
    // An upload that ends here leaves an object nobody names; nothing of the tree runs on after this.
    units.shutdown().await;
}

fn next_step(shared: &Shared) -> Step {
    // First the policy's lock: a segment that is deleted after the look at what is sealed is still in flight for it.
    let mut policy = lock(&shared.drain.policy);
    let sealed = shared.log.sealed();
    let large: Vec<LargeFile> = shared
        .all_large()
        .into_iter()
        .map(|l| LargeFile { ino: l.file.ino(), last_write: l.last_write, open: l.file.state().writers > 0 })
        .collect();
    let view = View {
        now: shared.clock.monotonic(),
        active: shared.log.active(),
        sealed: &sealed,
        large: &large,
        pressing: shared.dirty.is_pressing(shared.log.dirty(), &shared.limits),
    };
    policy.next(&view)
}

async fn run_pack(shared: &Arc<Shared>, segments: Vec<u64>) {
    let result = pack::upload(shared, &segments).await;
    {
        let mut policy = lock(&shared.drain.policy);
        let damaged = result.as_ref().is_err_and(|e| e.kind() == Kind::Corrupt);
        policy.pack_done(&segments, result.is_ok(), damaged, shared.clock.monotonic());
    }
    shared.drain.finished(shared, "small files", result);
}

async fn run_file(shared: &Arc<Shared>, ino: Ino) {
    let result = large::upload(shared, ino, false).await;
    {
        let mut policy = lock(&shared.drain.policy);
        policy.file_done(
            ino,
            result.as_ref().is_ok_and(|done| *done),
            result.is_err(),
            shared.clock.monotonic(),
        );
    }
    shared.drain.finished(shared, &format!("inode {ino}"), result.map(drop));
}

/// An object that was put, and the staged extents whose bytes are in it, each with its offset in the payload.
struct Uploaded {
    sealed: Sealed,
    moves: Vec<Move>,
}

impl Uploaded {
    fn info(&self) -> ObjectInfo {
        let i = self.sealed.info;
        ObjectInfo { id: i.id, kind: i.kind, payload_len: i.payload_len, total_len: i.total_len }
    }
}

impl Shared {
    async fn put(&self, sealed: &Sealed) -> Result<()> {
        Failpoint::DrainBeforePut.reach();
        self.store.put(&sealed.key(), sealed.parts()).await?;
        Failpoint::DrainAfterPut.reach();
        self.drain.uploaded_bytes.fetch_add(sealed.info.total_len, Ordering::Relaxed);
        self.drain.uploaded_objects.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Puts the object into the read cache, for readers of the files in it.
    fn keep_for_reading(&self, uploaded: &Uploaded) {
        self.reads.insert(self.ns, &uploaded.info(), &uploaded.sealed.payload, &uploaded.sealed.footer);
    }

    /// Staged bytes are in the store now.
    async fn relocate(&self, uploaded: &Uploaded) -> Result<()> {
        self.move_extents(uploaded).await?;
        self.dirty.drained(uploaded.sealed.info.payload_len, self.clock.monotonic());
        Ok(())
    }

    /// Tells the metadata where the bytes are now, then the files in use.
    async fn move_extents(&self, uploaded: &Uploaded) -> Result<()> {
        let info = uploaded.info();
        self.objects.learn(info);
        let effects = self.meta.relocate(info, uploaded.moves.clone()).await?;
        Failpoint::DrainAfterRelocate.reach();
        let mut by_ino: std::collections::BTreeMap<Ino, Vec<(Extent, Place)>> =
            std::collections::BTreeMap::new();
        for (m, parts) in uploaded.moves.iter().zip(effects) {
            for (offset, len) in parts {
                let part = clip(&m.from, offset, offset + len);
                let at = m.to_offset + (offset - m.from.offset);
                by_ino
                    .entry(m.ino)
                    .or_default()
                    .push((part, Place::Object { kind: info.kind, id: info.id, offset: at }));
            }
        }
        for (ino, parts) in by_ino {
            if let Some(file) = self.table.find(ino) {
                file.moved(&parts);
            }
        }
        Ok(())
    }

    /// Everything written before the call is in the store, and the metadata says so, durably.
    pub(crate) async fn store_all(self: &Arc<Self>) -> Result<()> {
        for large in self.all_large() {
            large.file.absorb_open()?;
        }
        self.commit_all().await?;
        let large: Vec<Ino> = self.all_large().into_iter().map(|l| l.file.ino()).collect();
        self.store_log().await?;
        futures::stream::iter(large.into_iter().map(Ok))
            .try_for_each_concurrent(self.limits.uploads_max as usize, |ino| self.store_large(ino))
            .await?;
        self.meta.sync().await
    }

    /// The same for one file.
    pub(crate) async fn store_file(self: &Arc<Self>, ino: Ino) -> Result<()> {
        if let Some(large) = self.large(ino) {
            large.file.absorb_open()?;
            large.file.commit().await?;
            self.store_large(ino).await?;
        }
        self.store_log().await?;
        self.meta.sync().await
    }

    /// All segments of the log, up to now, are given to the store.
    async fn store_log(&self) -> Result<()> {
        let failures = lock(&self.drain.failures).0;
        self.log.seal();
        let mine: Vec<u64> = self.log.sealed().into_iter().map(|s| s.id).collect();
        lock(&self.drain.policy).hurry();
        self.drain.wake();
        loop {
            let mut progress = std::pin::pin!(self.drain.progress.notified());
            progress.as_mut().enable();
            let left = self.log.sealed().into_iter().any(|s| mine.contains(&s.id));
            if !left {
                return Ok(());
            }
            {
                let now = lock(&self.drain.failures);
                if now.0 > failures
                    && let Some(e) = &now.1
                {
                    return Err(e.duplicate());
                }
            }
            progress.await;
        }
    }

    async fn store_large(self: &Arc<Self>, ino: Ino) -> Result<()> {
        large::upload(self, ino, true).await.map(drop)
    }

    pub(crate) fn status(&self) -> TreeStatus {
        let sums = self.dirty.sums(self.log.dirty());
        let now = self.clock.monotonic();
        let log = self.log.sealed().into_iter().chain(self.log.active()).map(|s| s.first_at);
        let oldest = log.chain(self.all_large().into_iter().map(|l| l.since)).min();
        let (compacted_bytes, compaction_written_bytes) = self.drain.compaction.sums();
        TreeStatus {
            dirty_bytes: sums.bytes,
            dirty_files: sums.files,
            oldest_dirty_ms: oldest.map_or(0, |at| now.saturating_sub(at).as_millis() as u64),
            uploaded_bytes: self.drain.uploaded_bytes.load(Ordering::Relaxed),
            uploaded_objects: self.drain.uploaded_objects.load(Ordering::Relaxed),
            compacted_bytes,
            compaction_written_bytes,
            error: self.fenced().or_else(|| lock(&self.drain.failures).1.as_ref().map(ToString::to_string)),
        }
    }
}
