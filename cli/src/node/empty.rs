//! `granary node drain`: the node takes no new mounts, gives all that only it has to the store, and unmounts.
//!
//! 1. New mounts are refused, until the node is stopped and started again.
//! 2. Every namespace with a stage directory is opened that is not open yet.
//! 3. What is dirty is stored while programs go on, so that the next steps are short.
//! 4. Everything is unmounted. A mount that is in use stays, as with `granary umount`, and is told with who uses it.
//! 5. What was written meanwhile is stored.
//!
//! Each can be done again; what stays in spite of it is told with the reason. Who gives a time (`--wait`) has the answer when it
//! is over, a moment for the unmounting aside.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use granary_cache::TreeStatus;
use granary_core::Kind;

use super::Node;
use super::sync::{Lines, follow};
use super::table::Served;
use crate::exit::Failure;
use crate::wire::{DrainReport, LeftBehind, SyncLine};

/// Namespaces that are stored at once.
const SPACES_AT_ONCE: usize = 8;

/// `None`: nobody listens any more.
pub(super) async fn run(node: Arc<Node>, wait: Option<Duration>, lines: Lines) -> Option<SyncLine> {
    let until = wait.map(|wait| node.clock.monotonic() + wait);
    let left_over = || until.map(|until| until.saturating_sub(node.clock.monotonic()));
    let mut left = match node.mounts.begin_emptying().await {
        Ok(unopened) => unopened
            .into_iter()
            .map(|(what, why)| LeftBehind { what, dirty_bytes: 0, dirty_files: 0, why })
            .collect::<Vec<_>>(),
        Err(failure) => return Some(SyncLine::Failed(failure)),
    };
    let table = node.mounts.table();
    store(&table.all(), left_over(), &lines).await?;
    for dir in table.all().iter().flat_map(Served::dirs) {
        if let Err(why) = node.mounts.unmount(dir.clone(), false).await {
            let what = dir.display().to_string();
            left.push(LeftBehind { what, dirty_bytes: 0, dirty_files: 0, why });
        }
    }
    let all = table.all();
    let failed = store(&all, left_over(), &lines).await?;
    for (served, failed) in all.iter().zip(failed) {
        let status = served.tree.status();
        let why = failed.or_else(|| status.damage.or(status.error).map(Failure::failed)).or_else(|| {
            (status.dirty_files > 0)
                .then(|| Failure::failed("programs write to it; end them, and drain again"))
        });
        left.extend(why.map(|why| LeftBehind {
            what: served.name.to_string(),
            dirty_bytes: status.dirty_bytes,
            dirty_files: status.dirty_files,
            why,
        }));
    }
    let clean = left.is_empty();
    tracing::info!(clean, left = left.len(), "the node was drained");
    Some(SyncLine::Drained(DrainReport { clean, left }))
}

/// Stores all that is dirty of these, within `wait`; what failed, in their order.
async fn store(all: &[Served], wait: Option<Duration>, lines: &Lines) -> Option<Vec<Option<Failure>>> {
    let trees: Vec<_> = all.iter().map(|served| served.tree.clone()).collect();
    let over = wait.unwrap_or(Duration::MAX);
    let work = futures::stream::iter(trees.clone())
        .map(|tree| async move {
            match tokio::time::timeout(over, tree.sync()).await {
                Ok(stored) => stored.err().map(Failure::from),
                Err(_) => late(&tree.status()),
            }
        })
        .buffered(SPACES_AT_ONCE)
        .collect();
    follow(&trees, work, lines).await
}

/// What was not stored in time.
fn late(status: &TreeStatus) -> Option<Failure> {
    (status.dirty_files > 0).then(|| {
        let why = status.error.as_ref().map_or(String::new(), |e| format!(" ({e})"));
        Failure::of_kind(
            Kind::Unavailable,
            format!(
                "the store does not have it, and the time that it was given (--wait) is over{why}; it is kept on this node's disk"
            ),
        )
    })
}
