//! All files of one namespace on this node: the table of files in use, the stage, the drain.

mod clean;
mod committer;
pub(crate) mod dirty;
mod gather;
pub mod lend;
mod objects;
pub(crate) mod scrub;
pub(crate) mod served;
mod shared;
mod staged;
pub(crate) mod stuck;
mod table;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::{nodes as nodes_for_tests, world::pattern as pattern_for_tests};

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use granary_core::limits::Limits;
use granary_core::policy::WritePolicy;
use granary_core::waits::{self, Cause};
use granary_core::{ByteBudget, Clock, Error, Ino, Kind, NodeId, Result};
use granary_meta::lease::{LeaseKind, Lost};
use granary_meta::{Attr, Metadata};
use granary_store::Store;
use tokio::task::JoinHandle;

use crate::drain;
use crate::file::explain::{Below, Explanation};
use crate::file::{File, PageCache};
use crate::peer::Peers;
use crate::prefetch::announced::follow;
use crate::read::ReadCache;
use crate::recover::{self, RecoveryStep, RecoveryWatch};
use crate::stage::disk::{Disk, SystemDisk};
use crate::stage::{Log, StageFiles};
use crate::util::lock;

pub use served::{ServedFrom, Tier};
pub(crate) use shared::Shared;
pub use staged::STAGED_BYTES_MAX;

/// What a tree is made of.
pub struct TreeParts {
    /// This namespace's stage directory (made if missing): `CACHE/stage/<namespace>`.
    pub stage_dir: PathBuf,
    pub node: NodeId,
    pub limits: Limits,
    pub meta: Arc<dyn Metadata>,
    pub store: Arc<dyn Store>,
    pub reads: Arc<ReadCache>,
    pub clock: Arc<dyn Clock>,
    /// Random bits for object ids.
    pub random: Box<dyn FnMut() -> u128 + Send>,
    /// Memory for packs being built and uploads in flight, shared by the node.
    pub memory: ByteBudget,
    /// Where background tasks (drain, committer) run.
    pub runtime: tokio::runtime::Handle,
}

/// Where a file was when it was created: orders packs and helps to rebuild names from them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathHint {
    pub dir: Ino,
    pub name: Vec<u8>,
}

/// For `granary status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeStatus {
    pub dirty_bytes: u64,
    pub dirty_files: u64,
    pub oldest_dirty_ms: u64,
    pub uploaded_bytes: u64,
    pub uploaded_objects: u64,
    /// Payload bytes of objects that were rewritten because they were mostly dead or small, and bytes written for them.
    pub compacted_bytes: u64,
    pub compaction_written_bytes: u64,
    /// Bytes a second that reach the store; `None` while nothing drains.
    pub drain_bytes_per_s: Option<u64>,
    /// How long what is dirty takes at that rate, while something is being uploaded.
    pub left_ms: Option<u64>,
    /// The last failure of the drain, if it has not succeeded since.
    pub error: Option<String>,
    /// Why the node's disk does not take what is written, if it does not.
    pub disk_error: Option<String>,
    /// What of the stage the node's disk does not give back, if anything: it cannot go to the store, and no writer waits for it.
    pub damage: Option<String>,
    /// When it is tried again; 0: now.
    pub retry_in_ms: Option<u64>,
    /// What counts for the namespace here, at this moment.
    pub policy: WritePolicy,
}

pub struct Tree {
    shared: Arc<Shared>,
    recovered: RecoveryStep,
    /// Until the tree is stopped.
    tasks: Mutex<Option<Tasks>>,
    /// Files that programs have open since before this process, until they are counted.
    kept: Mutex<Vec<(Arc<File>, Option<bool>)>>,
}

struct Tasks {
    /// Ends when it is told, after its uploads have.
    drain: JoinHandle<()>,
    /// The committer, compaction, the one that deletes dead objects, those that verify and make clean copies, and the one that fetches
    /// what was announced: may be aborted anywhere.
    others: [JoinHandle<()>; 6],
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tree").field("ns", &self.shared.ns).finish_non_exhaustive()
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        self.begin_stop();
        // Files and tree point at each other.
        self.shared.end();
    }
}

fn fenced() -> Error {
    Error::new(
        Kind::Fenced,
        "the metadata service ended this node's session, because it had not heard of it for the lease time; others may have \
         changed the file since",
    )
}

impl Tree {
    /// Opens the stage, brings it and the metadata together after a crash (see ARCHITECTURE.md, recovery), starts the
    /// committer and the drain.
    ///
    /// Errors: `Io`, `NoSpace` when the stage's disk does not work; those of the metadata.
    pub async fn open(parts: TreeParts) -> Result<Arc<Tree>> {
        Tree::open_watched(parts, &RecoveryWatch::default()).await
    }

    /// The same; `watch` is told how far the bringing together is.
    pub async fn open_watched(parts: TreeParts, watch: &RecoveryWatch) -> Result<Arc<Tree>> {
        Tree::open_kept(parts, watch, &[]).await
    }

    /// The same, where programs have these files open since before this process; with each, whether the kernel may write
    /// (`Some(true)`) or read its stage file by itself. They count as open until [`Tree::count_kept`].
    pub async fn open_kept(
        parts: TreeParts,
        watch: &RecoveryWatch,
        open: &[(Ino, Option<bool>)],
    ) -> Result<Arc<Tree>> {
        Tree::open_with(parts, Arc::new(SystemDisk), watch, open).await
    }

    /// Those who have the files of [`Tree::open_kept`] have opened them by themselves.
    pub async fn count_kept(&self) {
        let held = std::mem::take(&mut *lock(&self.kept));
        for (file, passes) in held {
            if let Some(write) = passes {
                file.end_passthrough(write);
            }
            if let Err(e) = self.close(file).await {
                tracing::warn!(error = %e, "close"); // it stays with the file, for fsync
            }
        }
    }

    #[cfg(test)]
    pub(crate) async fn open_on(parts: TreeParts, disk: Arc<dyn Disk>) -> Result<Arc<Tree>> {
        Tree::open_with(parts, disk, &RecoveryWatch::default(), &[]).await
    }

    async fn open_with(
        parts: TreeParts,
        disk: Arc<dyn Disk>,
        watch: &RecoveryWatch,
        open: &[(Ino, Option<bool>)],
    ) -> Result<Arc<Tree>> {
        let files = StageFiles::open(&parts.stage_dir, disk.clone())?;
        let (mut log, segments) = Log::open(
            &parts.stage_dir.join("log"),
            parts.meta.namespace(),
            &parts.limits,
            disk.clone(),
            parts.clock.clone(),
        )?;
        if parts.meta.is_shared() {
            log.mark_sequences(parts.node);
        }
        let shared = Shared::new(parts, disk, Arc::new(log), files);
        shared.reads.room().join(&shared);
        let recovering = async {
            let recovered = recover::recover(&shared, segments, watch).await?;
            let kept = if open.is_empty() { Vec::new() } else { recover::hold(&shared, open).await? };
            Ok((recovered, kept))
        };
        let (recovered, kept) = match recovering.await {
            Ok(recovered) => recovered,
            Err(e) => {
                shared.end();
                return Err(e);
            }
        };
        let runtime = &shared.runtime;
        let drain = runtime.spawn(drain::run(shared.clone()));
        let others = [
            runtime.spawn(committer::run(shared.clone())),
            runtime.spawn(drain::compact::run(shared.clone())),
            runtime.spawn(drain::dead::run(shared.clone())),
            runtime.spawn(scrub::run(shared.clone())),
            runtime.spawn(gather::run(shared.clone())),
            runtime.spawn(follow::run(shared.clone())),
        ];
        let tasks = Mutex::new(Some(Tasks { drain, others }));
        Ok(Arc::new(Tree { shared, recovered, tasks, kept: Mutex::new(kept) }))
    }

    /// The file's state, loaded from metadata if nobody has it; counts one user. Every `open` or `create` is matched by
    /// one `close`.
    pub async fn file(&self, attr: &Attr, hint: Option<PathHint>) -> Result<Arc<File>> {
        self.note_read(attr.ino);
        self.shared.open(attr, hint).await
    }

    /// The same for a file that was created this moment: nothing is loaded. `large` gives it a stage file at once, so
    /// that its creator may write through passthrough.
    pub fn created(&self, attr: &Attr, hint: PathHint, large: bool) -> Result<Arc<File>> {
        let file = self.shared.table.acquire(attr.ino, || File::new(attr.ino, self.shared.clone()));
        file.begin_new(attr, hint, large);
        Ok(file)
    }

    /// Returns when a write of `len` bytes would not wait for the store or the disk: near the limits it is slowed, no more. Nothing is
    /// reserved. May be given up at any time, which a write may not.
    ///
    /// Errors: `NoSpace` when waiting would not help.
    pub async fn wait_for_room(&self, len: u64) -> Result<()> {
        waits::on(|| Cause::Room, self.shared.wait_for_room(len)).await
    }

    /// Gives one use back. The last one commits held state. Errors were or will be told by fsync.
    pub async fn close(&self, file: Arc<File>) -> Result<()> {
        if !self.shared.table.release(&file) {
            return Ok(());
        }
        let result = file.commit().await;
        if let Err(e) = &result {
            file.set_error(e); // it stays held, and the committer tries again
        }
        file.rest();
        if file.is_to_gather() {
            self.shared.gathering.add(file.ino());
        }
        if !file.has_users() {
            self.shared.table.retire(&file);
        }
        result
    }

    /// Gives a large file that is wholly in the object cache (it was read through, or warmed up) a local file of its own, so that
    /// the kernel reads it itself from its next open on. By itself that happens after a file was opened by somebody who may read
    /// so, and closed. `false`: it is not such a file, its chunks are not all here, or the disk has no room for it.
    ///
    /// Errors: those of the metadata, and of the node's disk.
    pub async fn gather(&self, attr: &Attr) -> Result<bool> {
        let file = self.shared.open(attr, None).await?;
        let gathered = file.gather().await;
        self.close(file).await?;
        gathered
    }

    /// Returns when no file that was read through waits for its local file.
    pub async fn gathered(&self) {
        self.shared.gathering.idle().await;
    }

    /// While an inode has held state (written and not committed, or open for passthrough writing), its size, stored,
    /// mtime, ctime and version are the stage's: writes them over `attr`. Cheap when nothing is held.
    pub fn overlay(&self, attr: &mut Attr) {
        if let Some(file) = self.shared.table.find(attr.ino) {
            file.overlay(attr);
        }
    }

    /// Commits the held state of this inode, if any, to the metadata: before attributes are changed there.
    pub async fn commit(&self, ino: Ino) -> Result<()> {
        match self.shared.table.find(ino) {
            Some(file) => {
                file.absorb_open()?;
                file.commit().await
            }
            None => Ok(()),
        }
    }

    /// copy_file_range(2): copies up to `len` bytes, at least one unless `from` ends at `from_offset`; how many. What is in the
    /// store is shared by both files, without a byte being read. Ranges of one file must not overlap (`Invalid`).
    pub async fn copy_range(
        &self,
        from: &File,
        from_offset: u64,
        to: &File,
        to_offset: u64,
        len: u64,
    ) -> Result<u64> {
        to.copy_from(from, from_offset, to_offset, len).await
    }

    /// Whether anything of the inode may be here.
    pub fn knows(&self, ino: Ino) -> bool {
        self.shared.table.find(ino).is_some() || self.shared.clean.version(ino).is_some()
    }

    /// The inode has no name and no open any more: its staged bytes are dropped, never uploaded.
    pub fn forget(&self, ino: Ino) {
        match self.shared.table.remove(ino) {
            Some(file) => file.bury(),
            None => self.shared.clean.drop_copy(&self.shared.files, ino),
        }
    }

    /// Returns when everything written and done before the call survives a power loss of the node (`fsync` of the mount).
    pub async fn flush(&self) -> Result<()> {
        self.shared.flush().await
    }

    /// Returns when everything written before the call is in the store and the metadata says so, durably.
    ///
    /// Errors: the drain's, when an upload that this waits for failed; what is not uploaded stays in the stage.
    pub async fn sync(&self) -> Result<()> {
        self.shared.store_all().await
    }

    /// The same for one file.
    pub async fn sync_file(&self, ino: Ino) -> Result<()> {
        self.shared.store_file(ino).await
    }

    /// The same for all files below a directory.
    pub async fn sync_below(&self, dir: Ino) -> Result<()> {
        if dir == Ino::ROOT { self.shared.store_all().await } else { self.shared.store_below(dir).await }
    }

    /// Files up to this size are small, at this moment.
    pub fn small_file_bytes_max(&self) -> u64 {
        self.shared.policy().small_file_bytes_max
    }

    /// The namespace's settings may have changed: who waits for something that they decide looks again at once. (Everybody
    /// does by himself within a second.)
    pub fn settings_changed(&self) {
        self.shared.dirty.freed.notify_waiters();
        self.shared.drain.look_again();
    }

    /// What its opening brought back.
    pub fn recovered(&self) -> RecoveryStep {
        self.recovered
    }

    /// Where each byte of a file is, and why. Asks the metadata at most, and changes nothing.
    pub async fn explain(&self, ino: Ino) -> Result<Explanation> {
        self.shared.explain(ino).await
    }

    /// Sums over at most `files_max` files below a directory, of what `may` says that the asker may read.
    pub async fn explain_below(
        &self,
        dir: Ino,
        files_max: u64,
        may: &(dyn Fn(&Attr) -> bool + Send + Sync),
    ) -> Result<Below> {
        self.shared.explain_below(dir, files_max, may).await
    }

    /// The name that a file in use was opened by.
    pub fn hint(&self, ino: Ino) -> Option<PathHint> {
        self.shared.table.find(ino)?.state().hint.as_deref().cloned()
    }

    /// Where what was read came from.
    pub fn served(&self) -> Vec<ServedFrom> {
        self.shared.served.snapshot()
    }

    /// Changes that others' had overtaken, and where they were put, for a person.
    pub fn kept_aside(&self) -> Vec<String> {
        self.shared.kept_aside()
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub fn status(&self) -> TreeStatus {
        self.shared.status()
    }

    /// Who reads what other nodes have staged. The first one stays.
    pub fn set_peers(&self, peers: Arc<dyn Peers>) {
        let _first_stays = self.shared.peers.set(peers);
    }

    /// The service wants the lease of an inode back (see [`granary_meta::lease::Holder`]).
    pub async fn recall(&self, ino: Ino, wanted: LeaseKind, pages: &dyn PageCache) {
        match self.shared.table.find(ino) {
            Some(file) => file.recall(wanted, pages).await,
            None if wanted == LeaseKind::Write => pages.drop_pages(ino, 0..u64::MAX).await,
            None => {}
        }
    }

    /// All leases are gone at once. With [`Lost::Fenced`] what was held back is refused for ever, and kept aside.
    pub async fn lost(&self, why: Lost) {
        for file in self.shared.table.all() {
            if why == Lost::Fenced {
                file.fence(&fenced()).await;
            }
            file.lose_lease();
        }
    }

    /// Stops background work in order: no new uploads, held state committed, stage durable. Dirty bytes stay in the
    /// stage for the next start.
    pub async fn shutdown(&self) -> Result<()> {
        self.stop().await;
        let result = self.shared.flush().await;
        self.shared.end();
        result
    }

    fn begin_stop(&self) -> Option<Tasks> {
        self.shared.drain.stop.cancel();
        let tasks = lock(&self.tasks).take();
        if let Some(tasks) = &tasks {
            tasks.others.iter().for_each(JoinHandle::abort);
        }
        tasks
    }

    /// Returns when nothing of the tree runs any more.
    async fn stop(&self) {
        if let Some(tasks) = self.begin_stop() {
            let _ = tasks.drain.await; // it has nothing to tell; the others were aborted
            futures::future::join_all(tasks.others).await;
        }
    }
}
