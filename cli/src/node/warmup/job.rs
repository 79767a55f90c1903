//! One warmup: what it goes through, and how far it is.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use granary_cache::Tree;
use granary_cache::prefetch::pinned::PinnedChunks;
use granary_cache::prefetch::warm::Counts;
use granary_core::{Clock, Error, Ino, Kind, Result};
use granary_fuse::vfs::rights::Rights;
use granary_meta::Metadata;
use tokio_util::sync::CancellationToken;

use super::walk::{Target, Walk};
use crate::exit::Failure;
use crate::wire::{WarmStatus, WarmWork};

/// Files that go to the cache together: neighbours share packs.
const BATCH_FILES: usize = 256;
/// Bytes after which a batch is full.
const BATCH_BYTES: u64 = 64 << 20;
/// Batches under way at once.
const BATCHES_AT_ONCE: usize = 3;
/// Files counted before the sum is told.
const COUNT_STEP: u64 = 1000;

/// What a job works on.
#[derive(Clone)]
pub struct Ground {
    pub tree: Arc<Tree>,
    pub meta: Arc<dyn Metadata>,
    pub rights: Rights,
    pub targets: Vec<Target>,
    /// What is pinned by it, when that is its work.
    pub pinned: Arc<PinnedChunks>,
    pub clock: Arc<dyn Clock>,
}

/// A warmup and how far it is.
#[derive(Debug)]
pub struct Job {
    pub uid: u32,
    pub cancel: CancellationToken,
    began: Duration,
    /// Guards the numbers, for a moment.
    status: Mutex<WarmStatus>,
}

impl Job {
    pub fn new(
        id: u64,
        uid: u32,
        cancel: CancellationToken,
        namespace: String,
        path: PathBuf,
        work: WarmWork,
        now: Duration,
    ) -> Job {
        let path = path.display().to_string();
        let status = WarmStatus { id, namespace, path, work, ..WarmStatus::default() };
        Job { uid, cancel, began: now, status: Mutex::new(status) }
    }

    fn lock(&self) -> MutexGuard<'_, WarmStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn status(&self) -> WarmStatus {
        self.lock().clone()
    }

    pub fn has_ended(&self) -> bool {
        self.lock().ended
    }

    /// Runs it to its end, or until it is cancelled.
    pub async fn run(&self, ground: Ground) -> WarmStatus {
        let outcome = tokio::select! {
            outcome = self.work(&ground) => outcome.map_err(Failure::from),
            () = self.cancel.cancelled() => Err(Failure::of_kind(
                Kind::Interrupted,
                "it was cancelled; what came is kept, and the same command goes on from there",
            )),
        };
        let mut status = self.lock();
        status.ended = true;
        status.running_ms = ground.clock.monotonic().saturating_sub(self.began).as_millis() as u64;
        status.failure = outcome.err();
        status.clone()
    }

    async fn work(&self, ground: &Ground) -> Result<()> {
        let counting = self.count_all(ground);
        let working = self.go_through(ground);
        futures::future::try_join(counting, working).await.map(drop)
    }

    /// Walks ahead of the work, and says how much there is.
    async fn count_all(&self, ground: &Ground) -> Result<()> {
        let mut walk = ground.walk();
        let (mut files, mut bytes) = (0, 0);
        while let Some(attr) = walk.next().await? {
            (files, bytes) = (files + 1, bytes + attr.stored);
            if files % COUNT_STEP == 0 {
                self.counted(files, bytes, false);
                tokio::task::yield_now().await; // in process the walk never waits
            }
        }
        self.counted(files, bytes, true);
        Ok(())
    }

    fn counted(&self, files: u64, bytes: u64, all: bool) {
        let mut status = self.lock();
        (status.files_total, status.bytes_total, status.counted) = (files, bytes, all);
    }

    fn note_denied(&self, walk: &Walk, now: Duration) {
        let mut status = self.lock();
        status.denied = walk.denied;
        status.running_ms = now.saturating_sub(self.began).as_millis() as u64;
    }

    async fn go_through(&self, ground: &Ground) -> Result<()> {
        let mut walk = ground.walk();
        let work = self.lock().work;
        let mut under_way = FuturesUnordered::new();
        let mut at_end = false;
        loop {
            while !at_end && under_way.len() < BATCHES_AT_ONCE {
                let batch = next_batch(&mut walk).await?;
                at_end = batch.is_empty();
                if !at_end {
                    under_way.push(self.do_batch(ground, work, batch));
                }
            }
            match under_way.next().await {
                Some(done) => done?,
                None => break,
            }
            self.note_denied(&walk, ground.clock.monotonic());
        }
        self.note_denied(&walk, ground.clock.monotonic());
        let mut status = self.lock();
        if walk.missing > 0 {
            status.failed += walk.missing;
            status
                .first_failure
                .get_or_insert_with(|| format!("{} names on the list are not there", walk.missing));
        }
        Ok(())
    }

    /// One damaged object does not end it; a store that does not answer, or a full disk, does.
    async fn do_batch(&self, ground: &Ground, work: WarmWork, batch: Vec<Ino>) -> Result<()> {
        match ground.act(work, &batch).await {
            Ok(counts) => self.add(&counts),
            Err(e) if is_final(&e) => return Err(e),
            Err(_) => {
                for ino in batch {
                    match ground.act(work, &[ino]).await {
                        Ok(counts) => self.add(&counts),
                        Err(e) if is_final(&e) => return Err(e),
                        Err(e) => self.note_failure(&e),
                    }
                }
            }
        }
        tokio::task::yield_now().await;
        Ok(())
    }

    fn note_failure(&self, e: &Error) {
        let mut status = self.lock();
        status.failed += 1;
        status.first_failure.get_or_insert_with(|| e.to_string());
    }

    fn add(&self, counts: &Counts) {
        let mut status = self.lock();
        status.files += counts.files;
        status.bytes += counts.bytes;
        status.files_here += counts.files_here;
        status.bytes_here += counts.bytes_here;
        status.bytes_elsewhere += counts.bytes_elsewhere;
        status.bytes_fetched += counts.bytes_fetched;
    }
}

impl Ground {
    fn walk(&self) -> Walk {
        Walk::new(self.meta.clone(), self.rights.clone(), self.targets.iter().cloned())
    }

    async fn act(&self, work: WarmWork, files: &[Ino]) -> Result<Counts> {
        match work {
            WarmWork::Fetch => self.tree.warm(files).await,
            WarmWork::Pin => self.tree.pin(files, &self.pinned).await,
            WarmWork::Check | WarmWork::Unpin => self.tree.residence(files).await,
            WarmWork::Evict => self.tree.evict(files).await,
        }
    }
}

fn is_final(e: &Error) -> bool {
    matches!(e.kind(), Kind::Unavailable | Kind::Denied | Kind::NoSpace | Kind::Io)
}

async fn next_batch(walk: &mut Walk) -> Result<Vec<Ino>> {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    while batch.len() < BATCH_FILES && bytes < BATCH_BYTES {
        let Some(attr) = walk.next().await? else { break };
        bytes += attr.stored;
        batch.push(attr.ino);
    }
    Ok(batch)
}
