//! `granary sync`: waiting for the store, with lines of progress for who waits.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use granary_cache::Tree;
use granary_core::{Ino, Kind, NamespaceName};
use granary_meta::Metadata;
use tokio::sync::mpsc;

use super::Node;
use crate::exit::{Failure, Outcome};
use crate::wire::{InodeOf, SyncLine};

/// How often progress is told.
pub(super) const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);
/// Namespaces that are stored at once, when all are.
const SPACES_AT_ONCE: usize = 8;

/// What is to be in the store.
pub(super) struct Wanted {
    pub name: NamespaceName,
    pub tree: Arc<Tree>,
    /// Of the namespace only this file, or what is below this directory.
    pub inode: Option<InodeOf>,
}

pub(super) type Lines = mpsc::Sender<SyncLine>;

/// An answer of lines, the last of which `work` gives; `None`: nobody listens any more. It ends when the caller goes away,
/// or the node stops.
pub(super) fn lines<F: Future<Output = Option<SyncLine>> + Send>(
    node: &Node,
    work: impl FnOnce(Lines) -> F + Send + 'static,
) -> Response {
    let (lines, answer) = mpsc::channel(4);
    let stop = node.stop.begin.clone();
    tokio::spawn(async move {
        let last = tokio::select! {
            last = work(lines.clone()) => last,
            () = stop.cancelled() => Some(SyncLine::Failed(Failure::of_kind(
                Kind::Unavailable,
                "the node was told to stop; what is not in the store is kept on its disk, and stored after the next start",
            ))),
        };
        if let Some(last) = last {
            let _ = lines.send(last).await; // the caller may be gone
        }
    });
    as_lines(answer)
}

/// An answer of JSON lines, as they come.
pub(super) fn as_lines<L: serde::Serialize + Send + 'static>(lines: mpsc::Receiver<L>) -> Response {
    let body = futures::stream::unfold(lines, |mut lines| async move {
        let line = lines.recv().await?;
        let mut bytes = serde_json::to_vec(&line).unwrap_or_default();
        bytes.push(b'\n');
        Some((Ok::<_, Infallible>(Bytes::from(bytes)), lines))
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(body)).into_response()
}

/// Does `work` while telling how much of these trees is not in the store; `None` when nobody listens any more.
pub(super) async fn follow<T>(
    trees: &[Arc<Tree>],
    work: impl Future<Output = T>,
    lines: &Lines,
) -> Option<T> {
    tokio::pin!(work);
    let mut tick = tokio::time::interval(PROGRESS_INTERVAL);
    loop {
        tokio::select! {
            outcome = &mut work => return Some(outcome),
            _ = tick.tick() => lines.send(progress(trees)).await.ok()?,
        }
    }
}

fn progress(trees: &[Arc<Tree>]) -> SyncLine {
    let (mut bytes, mut files, mut uploaded, mut first_error) = (0, 0, 0, None);
    for status in trees.iter().map(|tree| tree.status()) {
        bytes += status.dirty_bytes;
        files += status.dirty_files;
        uploaded += status.uploaded_bytes;
        first_error = first_error.or(status.error);
    }
    SyncLine::Progress {
        dirty_bytes: bytes,
        dirty_files: files,
        uploaded_bytes: uploaded,
        error: first_error,
    }
}

/// Stores all that is wanted, some namespaces at once, each however the others end.
pub(super) async fn store(wanted: Vec<Wanted>, lines: Lines) -> Option<SyncLine> {
    let trees: Vec<_> = wanted.iter().map(|w| w.tree.clone()).collect();
    let many = wanted.len() > 1;
    let work = futures::stream::iter(wanted)
        .map(|w| async move {
            let stored = match w.inode {
                None => w.tree.sync().await,
                Some(InodeOf { ino, directory: true }) => w.tree.sync_below(Ino(ino)).await,
                Some(InodeOf { ino, directory: false }) => w.tree.sync_file(Ino(ino)).await,
            };
            stored.map_err(|e| if many { Failure::from(e).context(&w.name) } else { e.into() })
        })
        .buffer_unordered(SPACES_AT_ONCE)
        .collect::<Vec<Outcome<()>>>();
    let failed: Vec<Failure> =
        follow(&trees, work, &lines).await?.into_iter().filter_map(Result::err).collect();
    let texts: Vec<&str> = failed.iter().map(|failure| failure.message.as_str()).collect();
    Some(match failed.first() {
        None => SyncLine::Done,
        Some(first) => SyncLine::Failed(Failure { message: texts.join("\n"), ..first.clone() }),
    })
}

/// Refuses an inode that the namespace does not have: the path is of something that was mounted over it.
pub(super) async fn check_inode(meta: &dyn Metadata, inode: InodeOf, path: &str) -> Outcome<()> {
    meta.getattr(Ino(inode.ino)).await.map(drop).map_err(|e| {
        if [Kind::Stale, Kind::NotFound].contains(&e.kind()) {
            let text =
                format!("{path} is not a file of the namespace that is mounted there; give another path");
            return Failure::of_kind(Kind::NotFound, text);
        }
        e.into()
    })
}
