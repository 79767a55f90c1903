//! `granary warmup`: fetching trees into the node's cache, looking at them, dropping them.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use axum::Json;
use axum::extract::{ConnectInfo, State};
use axum::response::{IntoResponse, Response};
use granary_core::Kind;
use granary_fuse::vfs::rights::Rights;
use tokio::sync::mpsc;

use super::{Ask, On, PROGRESS_INTERVAL, Who, as_lines, space_at};
use crate::exit::{Failure, Outcome};
use crate::node::blocking;
use crate::node::peer::missing;
use crate::node::warmup::job::{Ground, Job};
use crate::node::warmup::pins::PinnedTree;
use crate::node::warmup::walk::{self, Target};
use crate::wire::{WarmCancelRequest, WarmLine, WarmRequest, WarmStatus, WarmWork};

/// A request's body, with a list of files, is at most this long.
pub const BODY_BYTES_MAX: usize = 8 << 20;

pub async fn list(State(node): On, ConnectInfo(peer): Who) -> Outcome<Json<Vec<WarmStatus>>> {
    Ok(Json(node.warmups.list(&peer)))
}

pub async fn cancel(
    State(node): On,
    ConnectInfo(peer): Who,
    Ask(request): Ask<WarmCancelRequest>,
) -> Outcome<Json<WarmStatus>> {
    node.warmups.cancel(request.id, &peer).map(Json)
}

/// A listed file's path within the namespace.
fn within(dir: &Path, path: &Path, file: &str) -> Outcome<PathBuf> {
    let whole = path.join(file);
    let plain = whole
        .components()
        .all(|c| matches!(c, Component::Normal(_) | Component::RootDir | Component::CurDir));
    match whole.strip_prefix(dir) {
        Ok(inside) if plain => Ok(inside.to_owned()),
        _ => Err(Failure::usage(format!(
            "{file} on the list is not below {}, the mount of {}; give one list for each mount, without `..`",
            dir.display(),
            path.display()
        ))),
    }
}

pub async fn warm(
    State(node): On,
    ConnectInfo(peer): Who,
    Ask(request): Ask<WarmRequest>,
) -> Outcome<Response> {
    let (name, tree, dir) = space_at(&node, &peer, &request.path).await?;
    let meta = node.mounts.table().meta(&name).ok_or_else(|| missing(&name))?;
    let lists = node.mounts.table().keeps_acls(&name);
    let rights = Rights { uid: peer.uid, gids: peer.gids.clone(), all: peer.administrator, lists };
    let path = PathBuf::from(&request.path);
    // Where a tree of the namespace is mounted, paths are below that.
    let (table, point) = (node.mounts.table(), dir.clone());
    let shown = blocking(move || Ok(table.tree_at(&point))).await?.unwrap_or_default();
    let shown = shown.strip_prefix("/").unwrap_or(&shown);
    let within = |file: &str| Ok::<_, Failure>(shown.join(within(&dir, &path, file)?));
    let inside = within("")?;
    let top = walk::resolve(&*meta, &rights, &inside).await.map_err(|e| match e.kind() {
        Kind::NotFound => Failure::of_kind(
            Kind::NotFound,
            format!("{} is not a file of {name}, or you may not read it; give another path", path.display()),
        ),
        _ => e.into(),
    })?;
    let ino = top.ino.0;
    let targets = match &request.files {
        None => vec![Target::Known(top)],
        Some(files) => {
            let paths = files.iter().map(|file| within(file).map(Target::Path));
            paths.collect::<Outcome<_>>()?
        }
    };
    let clock = node.clock.clone();
    let pinned = match request.work {
        WarmWork::Pin | WarmWork::Unpin => {
            peer.check_administrator("say what stays in the node's cache")?;
            if request.files.is_some() {
                return Err(Failure::usage(
                    "a list of files cannot be pinned; give the files or directories",
                ));
            }
            let tree = PinnedTree { namespace: name.to_string(), ino, path: request.path.clone() };
            match request.work {
                WarmWork::Pin => node.pins.add(tree)?,
                _ => node.pins.remove(&tree)?,
            }
        }
        _ => Arc::default(),
    };
    let make =
        |id, cancel| Job::new(id, peer.uid, cancel, name.to_string(), path, request.work, clock.monotonic());
    let job = node.warmups.admit(make, &peer)?;
    let ground = Ground { tree, meta, rights, targets, pinned, clock: clock.clone() };
    if request.work == WarmWork::Unpin {
        ground.tree.unpin(&ground.pinned);
    }
    let (lines, answer) = mpsc::channel(4);
    if request.background {
        let begun = WarmLine::Done(job.status());
        tokio::spawn(async move {
            let status = job.run(ground).await;
            if let Some(failure) = &status.failure {
                tracing::warn!(
                    namespace = status.namespace,
                    path = status.path,
                    "a warmup ended early: {failure}"
                );
            }
        });
        tokio::spawn(async move { lines.send(begun).await });
        return Ok(as_lines(answer).into_response());
    }
    tokio::spawn(async move {
        let work = job.run(ground);
        tokio::pin!(work);
        let mut tick = tokio::time::interval(PROGRESS_INTERVAL);
        let last = loop {
            tokio::select! {
                status = &mut work => break status,
                _ = tick.tick() => {
                    // Nobody listens any more: it ends, and says so to those who list it.
                    if lines.send(WarmLine::Progress(job.status())).await.is_err() {
                        job.cancel.cancel();
                    }
                }
            }
        };
        let line = match last.failure.clone() {
            None => WarmLine::Done(last),
            Some(failure) => WarmLine::Failed(failure),
        };
        let _ = lines.send(line).await; // the caller may be gone
    });
    Ok(as_lines(answer).into_response())
}
