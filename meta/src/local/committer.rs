//! The one thread that writes: all namespaces' pending changes as one batch, again and again.
//!
//! An interval is counted in ticks of `commit_interval_ms` while there is something to write or to sync; without, the
//! thread sleeps until it is called. Everybody who asks for a sync while one is under way is served by the next, together.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use granary_core::limits::Limits;
use granary_core::{Error, Failpoint, Result};

use super::bell::{Call, stopped};
use super::{LocalNamespace, Shared, Spaces, lock};
use crate::changes::Changes;

/// Inodes freed in one round for each namespace, so that the committer is never away for long.
const FREED_A_ROUND: usize = 64;
/// How often the trash is looked at while nothing else is to be done.
const TRASH_INTERVAL: Duration = Duration::from_secs(1);

pub(super) fn spawn(shared: Arc<Shared>, spaces: Spaces, limits: &Limits) -> Result<JoinHandle<()>> {
    let interval = Duration::from_millis(limits.commit_interval_ms.max(1));
    let ticks_a_sync = limits.sync_interval_ms.div_ceil(limits.commit_interval_ms.max(1)).max(1);
    let committer = Committer { shared, spaces, interval, ticks_a_sync, ticks: 0 };
    std::thread::Builder::new()
        .name("granary-meta".to_owned())
        .spawn(move || committer.run())
        .map_err(|e| Error::io("cannot start the metadata committer; raise the limit of threads", e))
}

fn purge(space: &LocalNamespace) {
    match space.purge_due(&mut |_| true) {
        Ok(true) => space.shared.bell.dirty(),
        Ok(false) => {}
        Err(e) => tracing::warn!("cannot purge the trash of namespace {}: {e}", space.id()),
    }
}

struct Committer {
    shared: Arc<Shared>,
    spaces: Spaces,
    interval: Duration,
    ticks_a_sync: u64,
    /// Since the last sync, while unsynced.
    ticks: u64,
}

/// Writes what is pending as one batch, and tells who waited for that; whether there was anything. The caller holds the
/// round, so that batches are written in the order in which they were taken.
pub(super) fn write_pending(shared: &Shared, spaces: &Spaces, sync: bool) -> Result<bool> {
    let waiters = shared.through.take();
    let result = write_taken(shared, spaces, sync);
    if let Err(e) = &result {
        fail(shared, spaces, e);
    }
    for waiter in waiters {
        waiter(result.as_ref().map(|_| ()).map_err(Error::duplicate));
    }
    result
}

fn write_taken(shared: &Shared, spaces: &Spaces, sync: bool) -> Result<bool> {
    shared.bell.take_dirty();
    if let Some(e) = shared.bell.failure() {
        return Err(e);
    }
    let mut taken: Vec<(Arc<LocalNamespace>, Arc<Changes>)> = Vec::new();
    let all: Vec<_> = lock(spaces).values().cloned().collect();
    for space in all {
        if let Some(changes) = space.take_pending() {
            taken.push((space, changes));
        }
    }
    if taken.is_empty() {
        return Ok(false);
    }
    let mut batch = Vec::with_capacity(taken.iter().map(|(_, changes)| changes.len()).sum());
    for (space, changes) in &taken {
        changes.encode(space.id(), &mut batch);
    }
    Failpoint::EngineBeforeBatch.reach();
    shared.engine.write(batch, sync)?;
    // Not before it is there: a sync that runs beside the write does not cover it.
    if shared.coverage.wrote() && !sync {
        // The committer counts the time to the next sync.
        shared.bell.nudge();
    }
    if sync {
        shared.coverage.end(shared.coverage.begin());
    }
    Failpoint::EngineAfterBatch.reach();
    if sync {
        Failpoint::EngineAfterSync.reach();
    }
    for (space, changes) in taken {
        space.committed(&changes);
    }
    Ok(true)
}

/// Makes what was written before the call durable, while others may write.
pub(super) fn sync_written(shared: &Shared, spaces: &Spaces) -> Result<()> {
    if let Some(e) = shared.bell.failure() {
        return Err(e);
    }
    let begun = shared.coverage.begin();
    if shared.coverage.is_behind() {
        if let Err(e) = shared.engine.sync() {
            fail(shared, spaces, &e);
            return Err(e);
        }
        shared.coverage.end(begun);
    }
    Failpoint::EngineAfterSync.reach();
    Ok(())
}

/// Until it is mended nothing is written and all changes are refused.
fn fail(shared: &Shared, spaces: &Spaces, e: &Error) {
    if shared.bell.failure().is_none() {
        tracing::error!(
            "metadata cannot be written; changes are refused until it can be, which is tried every second: {e}"
        );
        let e = e.duplicate();
        shared.bell.fail(&e);
        refuse(spaces, &e);
    }
}

/// Looks whether an engine that failed works again, and then writes what it did not take. The caller holds the round.
fn mend(shared: &Shared, spaces: &Spaces) -> Result<()> {
    let Some(before) = shared.bell.failure() else { return Ok(()) };
    let mended = shared.engine.revive().and_then(|()| write_kept(shared, spaces));
    if let Err(e) = &mended {
        if e.to_string() != before.to_string() {
            tracing::warn!("metadata still cannot be written: {e}");
        }
        return Err(e.duplicate());
    }
    shared.coverage.end(shared.coverage.begin());
    tracing::info!("metadata can be written again, and nothing of it was lost");
    // Under the lock: who loads a namespace meanwhile sees the failure, or is accepted here.
    let spaces = lock(spaces);
    shared.bell.mended();
    spaces.values().for_each(|space| space.accept());
    Ok(())
}

/// Writes again, durably, what was taken when the engine failed: as much of it as may be there already.
fn write_kept(shared: &Shared, spaces: &Spaces) -> Result<()> {
    let mut batch = Vec::new();
    let mut kept = Vec::new();
    let all: Vec<_> = lock(spaces).values().cloned().collect();
    for space in all {
        if let Some(changes) = space.unwritten() {
            changes.encode(space.id(), &mut batch);
            kept.push((space, changes));
        }
    }
    if !batch.is_empty() {
        shared.engine.write(batch, true)?;
    }
    for (space, changes) in kept {
        space.committed(&changes);
    }
    Ok(())
}

fn refuse(spaces: &Spaces, e: &Error) {
    // Under the lock: whoever loads a namespace later sees the failure or the stop.
    for space in lock(spaces).values() {
        space.refuse(e);
    }
}

impl Committer {
    fn run(mut self) {
        loop {
            let unsynced = self.shared.coverage.is_behind();
            let watch = self.watches_trash().then_some(TRASH_INTERVAL);
            let Call { waiters, tick, stop } = self.shared.bell.wait(self.interval, unsynced, watch);
            let shared = self.shared.clone();
            let round = lock(&shared.round);
            // An error is told by the commit.
            let _ = mend(&shared, &self.spaces);
            if stop {
                // First, so that nothing is acknowledged that the last commit does not hold.
                refuse(&self.spaces, &stopped());
            }
            self.ticks += u64::from(tick);
            let sync = stop || !waiters.is_empty() || self.ticks >= self.ticks_a_sync;
            // Who waits for a write is not to wait for a sync: then that comes by itself, with the round given up.
            let waited_for = shared.served.load(Ordering::SeqCst) || shared.through.is_used();
            let apart = sync && waited_for;
            let mut result = self.commit(sync && !apart);
            let mut round = Some(round);
            if apart && result.is_ok() {
                round = None;
                result = self.sync();
            }
            for waiter in waiters {
                waiter(result.as_ref().map(|_| ()).map_err(Error::duplicate));
            }
            if stop {
                return;
            }
            let _round = round.unwrap_or_else(|| lock(&shared.round));
            self.tidy();
        }
    }

    /// Writes what is pending; with `sync` all that was ever written is durable at return.
    fn commit(&mut self, sync: bool) -> Result<()> {
        let wrote = write_pending(&self.shared, &self.spaces, sync)?;
        if sync && wrote {
            self.ticks = 0;
        } else if sync {
            self.sync()?;
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        self.ticks = 0;
        sync_written(&self.shared, &self.spaces)
    }

    /// Whether something is in a trash that is purged here: of a served volume, the service does it.
    fn watches_trash(&self) -> bool {
        !self.shared.served.load(Ordering::SeqCst)
            && lock(&self.spaces).values().any(|space| space.has_trash())
    }

    /// Frees what waits to be freed, purges what is due, and drops namespaces that nobody uses.
    fn tidy(&mut self) {
        let spaces: Vec<_> = lock(&self.spaces).values().cloned().collect();
        let failed = self.shared.bell.failure().is_some();
        for space in &spaces {
            if !failed && let Err(e) = space.free_some(FREED_A_ROUND, false) {
                tracing::warn!("cannot free removed files of namespace {}: {e}", space.id());
            }
            if !failed && !self.shared.served.load(Ordering::SeqCst) {
                purge(space);
            }
            drop(space.take_spent());
        }
        drop(spaces);
        let unused = |space: &Arc<LocalNamespace>| Arc::strong_count(space) == 1 && space.is_idle();
        let mut dropped: HashMap<_, _> = HashMap::new();
        let mut spaces = lock(&self.spaces);
        spaces.retain(|id, space| !unused(space) || dropped.insert(*id, space.clone()).is_some());
        drop(spaces);
        drop(dropped);
    }
}
