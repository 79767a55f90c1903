//! The drain: takes what is staged to the store and moves the metadata's extents there. [`policy`] decides when and what,
//! [`pack`] uploads segments of the log, [`large`] stage files, [`compact`] rewrites objects that are mostly dead, [`dead`] deletes
//! those nobody refers to any more.
//!
//! Nothing leaves the stage before the metadata that names its object is durable. A failed upload changes nothing: it is
//! tried again, ever more rarely. How soon, how many at once and how fast is the namespace's write policy, which is asked
//! for at each step, since it may change.

pub(crate) mod compact;
pub(crate) mod dead;
mod evict;
mod failure;
mod failures;
mod inline;
mod large;
mod pace;
mod pack;
mod policy;
mod rate;
mod slots;
mod sync;
mod upload;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use granary_core::{ByteBudget, Ino};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::room::Level;
use crate::tree::stuck::Thing;
use crate::tree::{Shared, TreeStatus};
use crate::util::lock;
use compact::Compaction;
pub(crate) use evict::{evict, evict_for_copy};
use failure::Failure;
use failures::{Failures, Say};
use pace::Pace;
use policy::{Ended, LargeFile, Policy, Step, View};
use rate::Rate;
use slots::Slots;
use upload::Uploaded;

/// Uploads of one namespace take one part in this many of the node's memory for data in flight, at most.
const MEMORY_SHARE: u64 = 2;
/// Dirty files are counted one by one up to this many; of more the sum is told.
const EXACT_FILES_MAX: u64 = 100_000;
/// The drain looks around at least this often, whatever it was told.
const LOOK_AROUND: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Drain {
    /// Guards the decisions; asked and told between steps. Taken before any other lock.
    policy: Mutex<Policy>,
    /// PUTs at once.
    slots: Slots,
    /// Of the node's memory for data in flight, what this namespace's uploads may hold: however many run, readers and other
    /// namespaces have the rest.
    memory: ByteBudget,
    /// Guards the order in which uploads begin; held for an addition.
    pace: Mutex<Pace>,
    /// Guards what is measured; held for an addition.
    rate: Mutex<Rate>,
    wake: Notify,
    /// Ends the drain.
    pub stop: CancellationToken,
    /// Told after every unit, however it ended.
    progress: Notify,
    /// Guards what failed; held for a look.
    failures: Mutex<Failures>,
    uploaded_bytes: AtomicU64,
    uploaded_objects: AtomicU64,
    pub compaction: Compaction,
}

impl Drain {
    pub fn new(memory_bytes_max: u64) -> Drain {
        Drain {
            policy: Mutex::new(Policy::new()),
            memory: ByteBudget::new(memory_bytes_max / MEMORY_SHARE),
            slots: Slots::default(),
            pace: Mutex::default(),
            rate: Mutex::default(),
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

    /// The policy may have changed: what waits looks again.
    pub fn look_again(&self) {
        self.slots.look_again();
        self.wake();
    }

    /// A unit ended that took these segments of the log.
    fn finished(&self, shared: &Shared, what: &str, segments: &[u64], result: Result<(), Failure>) {
        let say = lock(&self.failures).note(what, segments, result);
        match say {
            Some(Say::Recovered) => tracing::info!(ns = %shared.ns, "uploads work again"),
            Some(Say::Failing(e)) => {
                tracing::warn!(ns = %shared.ns, error = %e, "what could not be uploaded stays on this node's disk and is tried again");
            }
            None => {}
        }
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
                keep_room(&shared);
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

/// Copies of what is in the store go when they take too much of the disk.
fn keep_room(shared: &Shared) {
    shared.look_at_disk();
    evict(shared, 0);
    if shared.reads.room().look(0) > Level::Ample {
        shared.reads.shrink(0);
    }
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
    let write_policy = shared.policy();
    let view = View {
        now: shared.clock.monotonic(),
        active: shared.log.active(),
        sealed: &sealed,
        large: &large,
        pressing: shared.dirty.is_pressing(shared.log.dirty(), &write_policy)
            || shared.reads.room().ask(0) > Level::Ample,
        policy: &write_policy,
    };
    policy.next(&view)
}

async fn run_pack(shared: &Arc<Shared>, segments: Vec<u64>) {
    let result = pack::upload(shared, &segments).await;
    note_damage(shared, &segments, &result);
    lock(&shared.drain.policy).pack_done(
        &segments,
        Ended::of(&result),
        shared.clock.monotonic(),
        shared.spread(),
    );
    shared.drain.finished(shared, "small files", &segments, result);
}

/// Of the segments those that are still there were damaged, when the disk is why the upload failed.
fn note_damage(shared: &Shared, segments: &[u64], result: &Result<(), Failure>) {
    let damage = result.as_ref().err().and_then(Failure::disk);
    let left = shared.log.sealed();
    for &id in segments {
        match (left.iter().find(|s| s.id == id), damage) {
            (Some(s), Some(e)) => shared.note_stuck(Thing::Segment(id), s.payload, s.files, e),
            (Some(_), None) => {}
            (None, _) => shared.dirty.stuck.release(Thing::Segment(id)),
        }
    }
}

async fn run_file(shared: &Arc<Shared>, ino: Ino) {
    let result = large::upload(shared, ino, false).await;
    let ended = match &result {
        Ok(false) => Ended::NotNow,
        result => Ended::of(result),
    };
    lock(&shared.drain.policy).file_done(ino, ended, shared.clock.monotonic(), shared.spread());
    shared.drain.finished(shared, &format!("inode {ino}"), &[], result.map(drop));
}

impl Shared {
    /// Files with something that is not in the store. The limits go by a sum, which has a file once for each segment of the log, and
    /// once more when it outgrew that; a person is told how many there are.
    fn dirty_files(&self, sum: u64) -> u64 {
        if sum > EXACT_FILES_MAX {
            return sum;
        }
        let mut all = self.log.inodes();
        all.extend(self.all_large().iter().map(|large| large.file.ino().0));
        all.len() as u64
    }

    pub(crate) fn status(&self) -> TreeStatus {
        let sums = self.dirty.sums(self.log.dirty());
        let now = self.clock.monotonic();
        let log = self.log.sealed().into_iter().chain(self.log.active()).map(|s| s.first_at);
        let oldest = log.chain(self.all_large().into_iter().map(|l| l.since)).min();
        let (compacted_bytes, compaction_written_bytes) = self.drain.compaction.sums();
        let (rate, running) = {
            let rate = lock(&self.drain.rate);
            (rate.bytes_per_s(now).filter(|_| sums.files > 0), rate.is_running())
        };
        let failure = lock(&self.drain.failures).last().map(ToString::to_string);
        let retry = lock(&self.drain.policy).retry_in(now);
        TreeStatus {
            dirty_bytes: sums.bytes,
            dirty_files: self.dirty_files(sums.files),
            oldest_dirty_ms: oldest.map_or(0, |at| now.saturating_sub(at).as_millis() as u64),
            drain_bytes_per_s: rate,
            left_ms: rate.filter(|&r| r > 0 && running).map(|rate| sums.bytes.saturating_mul(1000) / rate),
            uploaded_bytes: self.drain.uploaded_bytes.load(Ordering::Relaxed),
            uploaded_objects: self.drain.uploaded_objects.load(Ordering::Relaxed),
            compacted_bytes,
            compaction_written_bytes,
            retry_in_ms: failure.as_ref().map(|_| retry.as_millis() as u64),
            error: self.fenced().or(failure),
            disk_error: self.disk_error(),
            damage: self.dirty.stuck.told(),
            policy: self.policy(),
        }
    }
}
