//! The committer: what is held for long goes to the metadata, and what was acknowledged becomes durable, without anybody
//! asking.

use std::sync::Arc;
use std::time::Duration;

use granary_core::Result;

use super::Shared;

/// Held state of files that stay open is committed after this long at the latest.
const COMMIT_MS_MAX: u64 = 1000;

/// Runs until it is aborted.
pub(super) async fn run(shared: Arc<Shared>) {
    let period = Duration::from_millis(shared.limits.sync_interval_ms.min(COMMIT_MS_MAX));
    let mut told = false;
    loop {
        tokio::time::sleep(period).await;
        match tick(&shared).await {
            Ok(()) => told = false,
            Err(e) if told => tracing::debug!(error = %e, "still cannot commit"),
            Err(e) => {
                told = true;
                tracing::error!(ns = %shared.ns, error = %e, "held changes cannot be committed; they are kept and tried again");
            }
        }
    }
}

/// Content first, then the metadata that names it.
pub(super) async fn tick(shared: &Shared) -> Result<()> {
    for large in shared.all_large() {
        large.file.absorb_open()?;
    }
    shared.commit_all().await?;
    shared.sync_log().await?;
    if shared.many && !shared.has_buried() {
        // The metadata service does that for all nodes, as often.
        return Ok(());
    }
    shared.sync_meta().await
}
