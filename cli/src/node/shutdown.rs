//! How a node stops, in this order, so that nothing acknowledged is lost:
//!
//! 1. No new requests; the socket goes. Requests in progress have two seconds; those that wait for a packed data set end.
//! 2. Every mount is unmounted. One that is busy is told, with who keeps it busy; after `stop_wait_ms` it is detached:
//!    it is gone from the directory, and programs that still use it get errors once this process has ended.
//! 3. What only this node's disk has is given to the store, for up to `stop_drain_ms`; a second signal ends that. What is left is told,
//!    and where it lies.
//! 4. Every tree: no new uploads, held state committed, stage durable. What is not in the store waits on the disk.
//! 5. The metadata: written and synced.
//!
//! The lock on the cache directory goes with the process, last.
//!
//! A node that leaves its mounts to the next process (`granary node --replace`, SIGUSR2) does none of it: what was acknowledged is
//! on the disk at any moment, requests that it has not answered are sent again, and programs wait for as long as the next one
//! starts. So it just ends.

use std::time::Duration;

use futures::StreamExt;
use granary_core::Kind;
use tokio_util::sync::CancellationToken;

use super::Node;
use super::server::Servers;
use super::table::Served;
use crate::exit::{Failure, Outcome};
use crate::units::show_bytes;

/// Namespaces that are stored at once.
const SPACES_AT_ONCE: usize = 8;

/// Every step is done, whatever an earlier one said; the first failure is told.
pub async fn run(node: &Node, servers: Servers) -> Outcome<()> {
    node.mounts.end_openings();
    servers.end().await;
    let trees = node.mounts.close(&node.stop.hurry).await;
    let metadata = node.source.shutdown().await;
    match (&trees, &metadata) {
        (Ok(()), Ok(())) => tracing::info!("stopped"),
        _ => tracing::error!("stopped, not cleanly; the next start brings stage and metadata together"),
    }
    trees.and(metadata)
}

/// Stores what is dirty, within `wait`; tells what is not in the store afterwards. That is kept, and no failure.
pub(super) async fn store_rest(all: &[Served], wait: Duration, hurry: &CancellationToken) {
    let dirty: Vec<_> = all.iter().filter(|served| served.tree.status().dirty_files > 0).collect();
    if !wait.is_zero() && !dirty.is_empty() {
        tracing::info!(
            namespaces = dirty.len(),
            "storing what only this node has, for up to {} s",
            wait.as_secs_f32()
        );
        let storing =
            futures::stream::iter(&dirty).for_each_concurrent(SPACES_AT_ONCE, |served| async move {
                if let Err(e) = served.tree.sync().await {
                    tracing::warn!(namespace = %served.name, "not all of it could be stored: {e}");
                }
            });
        tokio::select! {
            _ = tokio::time::timeout(wait, storing) => {}
            () = hurry.cancelled() => {}
        }
    }
    for served in dirty {
        let status = served.tree.status();
        if status.dirty_files > 0 {
            tracing::warn!(
                namespace = %served.name,
                "{} in {} files are not in the store; they are kept on this node's disk, and stored after its next start",
                show_bytes(status.dirty_bytes),
                status.dirty_files
            );
        }
    }
}

/// Whether all mounts can go on without this process: `Busy` with no keeper, or one that is away, or a mount that is not kept.
pub fn may_leave(node: &Node) -> Outcome<()> {
    let unkept = node.mounts.table().unkept();
    if unkept.is_empty() && node.keeping.as_ref().is_some_and(|keeping| keeping.is_there()) {
        return Ok(());
    }
    let which = if unkept.is_empty() { "there is no keeper now".to_owned() } else { unkept.join(", ") };
    Err(Failure::of_kind(
        Kind::Busy,
        format!(
            "the node cannot be replaced while mounts are not kept ({which}); unmount those, or stop the node with \
             `granary node stop`, and give it keeper = on"
        ),
    ))
}

/// Whether the next process finds the sessions of the mounts at their metadata service: `Unavailable` while that is away, or has only come
/// back. What a session has open it was told by this process, and after its own restart it is told again; by no other.
pub fn is_steady(node: &Node) -> Outcome<()> {
    let served = node.mounts.table().all();
    let mut links =
        served.iter().filter(|served| served.session().is_some()).filter_map(|served| served.link.as_ref());
    if links.all(|link| link.is_steady()) {
        return Ok(());
    }
    Err(Failure::of_kind(
        Kind::Unavailable,
        "the node cannot be replaced while the metadata service is away: files that programs have open would be lost; try again when it is back",
    ))
}

/// Ends this process, if its mounts can go on without it. Returns when they cannot, to be stopped cleanly: ending at once would
/// take from them what a stop hands over.
pub async fn leave(node: &Node) {
    if let Err(why) = may_leave(node) {
        tracing::warn!("stopping, and unmounting: {why}");
        // A signal that comes now is a second one.
        node.stop.begin.cancel();
        return;
    }
    // Who asked for this starts the next one. The keeper would be in its way.
    if let Some(keeping) = node.keeping.clone() {
        let told = super::blocking(move || {
            keeping.bye();
            Ok(())
        });
        if let Err(failure) = told.await {
            tracing::warn!("{failure}");
        }
    }
    tracing::info!("leaving the mounts to the next node");
    std::process::exit(0);
}
