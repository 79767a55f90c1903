//! Deletes objects that no file refers to any more.

use std::sync::Arc;
use std::time::Duration;

use granary_core::id::object_key;
use granary_core::{Failpoint, Kind, Result};

use crate::tree::Shared;

/// Objects deleted with one request.
const BATCH: usize = 1000;
/// How often is looked when there was something dead, and at least: the metadata may be asked by many nodes.
const PERIOD: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(120));

/// Runs until it is aborted; not at all where nothing may be changed.
pub(crate) async fn run(shared: Arc<Shared>) {
    // More often than objects can die of age is of no use, and not much rarer.
    let shortest = PERIOD.0.min(Duration::from_millis(shared.limits.dead_object_grace_ms));
    let (mut told, mut wait) = (false, shortest);
    loop {
        tokio::time::sleep(wait).await;
        let looked = delete_dead(&shared).await;
        let nothing = looked.as_ref().is_ok_and(|found| *found == Found::default());
        wait = if nothing { (wait * 2).min(PERIOD.1) } else { shortest };
        match looked {
            Ok(_) => told = false,
            Err(e) if e.kind() == Kind::ReadOnly => return, // others delete them
            Err(e) if told => tracing::debug!(error = %e, "dead objects still cannot be deleted"),
            Err(e) => {
                told = true;
                tracing::warn!(ns = %shared.ns, error = %e, "dead objects cannot be deleted from the store; tried again later");
            }
        }
    }
}

/// Dead objects that were found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub deleted: usize,
    /// Too early for.
    pub left: usize,
}

/// Deletes objects that have been dead for long enough.
pub(crate) async fn delete_dead(shared: &Shared) -> Result<Found> {
    let mut deleted = 0;
    loop {
        let now = shared.clock.now().unix_ms();
        let mut dead = shared.meta.dead_objects(BATCH).await?;
        let found = dead.len();
        dead.retain(|d| d.since.unix_ms() + shared.limits.dead_object_grace_ms <= now);
        if dead.is_empty() {
            return Ok(Found { deleted, left: found });
        }
        // That nobody refers to them must survive a power loss before they go.
        shared.meta.sync().await?;
        let keys = dead.iter().map(|d| object_key(shared.ns, d.object.kind, d.object.id)).collect();
        Failpoint::DeadBeforeDelete.reach();
        shared.store.delete(keys).await?;
        Failpoint::DeadAfterDelete.reach();
        for d in &dead {
            shared.reads.remove(d.object.id);
            shared.objects.forget(d.object.id);
        }
        deleted += dead.len();
        shared.meta.forget_objects(dead.iter().map(|d| d.object.id).collect()).await?;
    }
}
