//! Deletes objects that no file refers to any more.

use std::sync::Arc;
use std::time::Duration;

use granary_core::id::object_key;
use granary_core::{Kind, Result};

use crate::tree::Shared;

/// How long an object stays after its last byte died: a read that looked up its place before may still be under way, and a
/// straggling request takes at most half of this.
const GRACE: Duration = Duration::from_secs(60);
/// Objects deleted with one request.
const BATCH: usize = 1000;
/// How often is looked when there was something dead, and at least: the metadata may be asked by many nodes.
const PERIOD: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(120));

/// Runs until it is aborted; not at all where nothing may be changed.
pub(crate) async fn run(shared: Arc<Shared>) {
    let (mut told, mut wait) = (false, PERIOD.0);
    loop {
        tokio::time::sleep(wait).await;
        let looked = delete_dead(&shared).await;
        let nothing = looked.as_ref().is_ok_and(|found| *found == Found::default());
        wait = if nothing { (wait * 2).min(PERIOD.1) } else { PERIOD.0 };
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
        dead.retain(|d| d.since.unix_ms() + GRACE.as_millis() as u64 <= now);
        if dead.is_empty() {
            return Ok(Found { deleted, left: found });
        }
        // That nobody refers to them must survive a power loss before they go.
        shared.meta.sync().await?;
        let keys = dead.iter().map(|d| object_key(shared.ns, d.object.kind, d.object.id)).collect();
        shared.store.delete(keys).await?;
        for d in &dead {
            shared.reads.remove(d.object.id);
            shared.objects.forget(d.object.id);
        }
        deleted += dead.len();
        shared.meta.forget_objects(dead.iter().map(|d| d.object.id).collect()).await?;
    }
}
