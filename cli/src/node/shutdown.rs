//! How a node stops, in this order, so that nothing acknowledged is lost:
//!
//! 1. No new requests; the socket goes. Requests in progress have two seconds.
//! 2. Every mount is unmounted. One that is busy is told, with who keeps it busy; after `stop_wait_ms` it is detached:
//!    it is gone from the directory, and programs that still use it get errors once this process has ended.
//! 3. Every tree: no new uploads, held state committed, stage durable. What is not in the store waits on the disk.
//! 4. The metadata: written and synced.
//!
//! The lock on the cache directory goes with the process, last.

use super::Node;
use super::server::Servers;
use crate::exit::Outcome;

/// Every step is done, whatever an earlier one said; the first failure is told.
pub async fn run(node: &Node, servers: Servers) -> Outcome<()> {
    servers.end().await;
    let trees = node.mounts.close(&node.stop.hurry).await;
    let metadata = node.source.shutdown().await;
    match (&trees, &metadata) {
        (Ok(()), Ok(())) => tracing::info!("stopped"),
        _ => tracing::error!("stopped, not cleanly; the next start brings stage and metadata together"),
    }
    trees.and(metadata)
}
