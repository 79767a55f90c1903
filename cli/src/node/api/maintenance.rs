//! Long works on the volume, for administrators: checks, garbage, backups.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use granary_core::{Error, Kind, NamespaceName};
use granary_maintain::backup::dump;
use granary_maintain::progress::Progress;
use granary_maintain::{fsck, garbage};
use granary_meta::Volume;
use serde::Serialize;
use tokio::sync::mpsc;

use super::{Ask, Node, On, PROGRESS_INTERVAL, Who, as_lines};
use crate::exit::{Failure, Outcome};
use crate::maintenance::elsewhere;
use crate::node::source::Source;
use crate::wire::{FsckRequest, GcRequest, WorkLine};

/// Pieces in which a backup goes over the socket.
const PIECE_BYTES: usize = 1 << 20;

/// The volume, when its metadata is in this process.
fn local(node: &Node) -> Outcome<Arc<Volume>> {
    match &node.source {
        Source::Local(volume) => Ok(volume.clone()),
        Source::Service(_) => Err(elsewhere(&node.settings.meta)),
    }
}

pub fn names(given: &[String]) -> Outcome<Vec<NamespaceName>> {
    given.iter().map(|name| Ok(name.parse()?)).collect()
}

pub async fn fsck(
    State(node): On,
    ConnectInfo(peer): Who,
    Ask(request): Ask<FsckRequest>,
) -> Outcome<Response> {
    peer.check_administrator("check the volume")?;
    let (volume, names, store) = (local(&node)?, names(&request.namespaces)?, node.store.clone());
    Ok(followed(&node, async move |progress| {
        fsck::run(&volume, &*store, &names, request.options, &progress).await
    }))
}

pub async fn gc(State(node): On, ConnectInfo(peer): Who, Ask(request): Ask<GcRequest>) -> Outcome<Response> {
    peer.check_administrator("look for garbage in the store")?;
    garbage::check_options(&request.options)?;
    let (volume, names, store) = (local(&node)?, names(&request.namespaces)?, node.store.clone());
    let clock = node.clock.clone();
    Ok(followed(&node, async move |progress| {
        garbage::run(&volume, &*store, &*clock, &names, request.options, &progress).await
    }))
}

/// Lines of progress, then the result. The work ends when nobody listens any more, or the node stops.
fn followed<T, W>(node: &Arc<Node>, work: impl FnOnce(Arc<Progress>) -> W) -> Response
where
    T: Serialize + Send + 'static,
    W: Future<Output = granary_core::Result<T>> + Send + 'static,
{
    let (lines, answer) = mpsc::channel(4);
    let stop = node.stop.begin.clone();
    let progress = Arc::new(Progress::default());
    let work = work(progress.clone());
    tokio::spawn(async move {
        tokio::pin!(work);
        let mut tick = tokio::time::interval(PROGRESS_INTERVAL);
        let last = loop {
            tokio::select! {
                outcome = &mut work => break outcome.map_or_else(|e| WorkLine::Failed(e.into()), WorkLine::Done),
                () = stop.cancelled() => break WorkLine::Failed(Failure::of_kind(
                    Kind::Unavailable,
                    "the node was told to stop; start it again, or do it on the metadata folder",
                )),
                _ = tick.tick() => {
                    if lines.send(WorkLine::Progress(progress.now())).await.is_err() {
                        return;
                    }
                }
            }
        };
        let _ = lines.send(last).await; // the caller may be gone
    });
    as_lines(answer)
}

/// The stream's end says whether it is whole: a failure on the way ends the answer early.
pub async fn backup(State(node): On, ConnectInfo(peer): Who) -> Outcome<Response> {
    peer.check_administrator("save the metadata")?;
    let volume = local(&node)?;
    let (pieces, answer) = mpsc::channel::<Bytes>(2);
    let now = node.clock.now();
    tokio::task::spawn_blocking(move || {
        let saved = dump(&volume, now, PIECE_BYTES, &Progress::default(), &mut |piece| {
            let gone = |_| Error::new(Kind::Interrupted, "who asked for it is gone");
            pieces.blocking_send(piece.into()).map_err(gone)
        });
        if let Err(e) = saved {
            tracing::warn!("a backup of the metadata was not finished: {e}");
        }
    });
    let stop = node.stop.begin.clone();
    let body = futures::stream::unfold((answer, stop), |(mut answer, stop)| async move {
        // A slow reader must not keep the metadata open when the node stops.
        let piece = tokio::select! {
            piece = answer.recv() => piece?,
            () = stop.cancelled() => return None,
        };
        Some((Ok::<_, std::convert::Infallible>(piece), (answer, stop)))
    });
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], Body::from_stream(body)).into_response())
}
