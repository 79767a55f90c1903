//! The requests of [`crate::wire`], each checked against who asks.

mod lend;
mod maintenance;
mod observe;
mod warmup;

pub use maintenance::names;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::rejection::JsonRejection;
use axum::extract::{ConnectInfo, DefaultBodyLimit, FromRequest, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use granary_cache::{CacheShare, Tree};
use granary_core::{Kind, NamespaceName};
use granary_meta::NamespaceInfo;

use super::mounts::MountOrder;
use super::peer::{Peer, missing};
use super::sync::{self, PROGRESS_INTERVAL, Wanted, as_lines};
use super::table::Space;
use super::{Node, blocking, empty, metrics, shutdown};
use crate::exit::{Failure, Outcome};
use crate::token_file::Secret;
use crate::wire::*;
use crate::{namespaces, packed, removal};

/// A request's body is at most this long.
const BODY_BYTES_MAX: usize = 64 << 10;

pub fn router(node: Arc<Node>) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/stats", get(observe::stats))
        .route("/v1/trace", post(observe::trace))
        .route("/v1/explain", post(observe::explain))
        .route("/v1/mount", post(mount))
        .route("/v1/unmount", post(unmount))
        .route("/v1/sync", post(sync))
        .route("/v1/warmup", post(warmup::warm).layer(DefaultBodyLimit::max(warmup::BODY_BYTES_MAX)))
        .route("/v1/warmups", get(warmup::list))
        .route("/v1/warmups/cancel", post(warmup::cancel))
        .route(granary_loader::node::wire::PATH, get(lend::lend))
        .route("/v1/drain", post(drain))
        .route("/v1/token", post(hand))
        .route("/v1/namespaces", get(list))
        .route("/v1/namespaces/list", post(list_as))
        .route("/v1/namespaces/create", post(create))
        .route("/v1/namespaces/set", post(set))
        .route("/v1/namespaces/remove", post(remove))
        .route("/v1/fsck", post(maintenance::fsck))
        .route("/v1/gc", post(maintenance::gc))
        .route("/v1/meta/backup", get(maintenance::backup))
        .route("/v1/stop", post(stop))
        .route("/v1/leave", post(leave))
        .route("/metrics", get(own_metrics))
        .fallback(unknown)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(node)
}

/// For the loopback port, where nobody is known: counters and sizes only.
pub fn metrics_router(node: Arc<Node>) -> Router {
    Router::new().route("/metrics", get(all_metrics)).fallback(unknown).with_state(node)
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = match self.exit {
            2 => StatusCode::BAD_REQUEST,
            3 => StatusCode::SERVICE_UNAVAILABLE,
            _ if self.is(Kind::NotFound) => StatusCode::NOT_FOUND,
            _ if self.is(Kind::Permission) => StatusCode::FORBIDDEN,
            _ if self.is(Kind::Busy) || self.is(Kind::Exists) || self.is(Kind::NotEmpty) => {
                StatusCode::CONFLICT
            }
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(self)).into_response()
    }
}

/// A JSON body, refused in our words.
struct Ask<T>(T);

impl<S: Send + Sync, T: serde::de::DeserializeOwned> FromRequest<S> for Ask<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Ask<T>, Failure> {
        match Json::<T>::from_request(request, state).await {
            Ok(Json(body)) => Ok(Ask(body)),
            Err(e) => Err(refused(&e)),
        }
    }
}

fn refused(e: &JsonRejection) -> Failure {
    Failure::usage(format!("the request cannot be understood: {}", e.body_text()))
}

/// The answer to who replaces the node goes out in this time.
const LEAVE_DELAY: std::time::Duration = std::time::Duration::from_millis(20);

type Who = ConnectInfo<Peer>;
type On = State<Arc<Node>>;

async fn unknown(request: Request) -> Failure {
    Failure::of_kind(
        Kind::NotFound,
        format!(
            "this node (version {}) knows no request {} {}; it may be older than the command: `granary node stop` lets the \
             next mount start a newer one",
            env!("CARGO_PKG_VERSION"),
            request.method(),
            request.uri().path()
        ),
    )
}

async fn status(State(node): On, ConnectInfo(peer): Who) -> Outcome<Json<Status>> {
    // Names are looked up in the system's user database, which may be slow.
    blocking(move || Ok(Json(status_for(&node, &peer)))).await
}

fn status_for(node: &Node, peer: &Peer) -> Status {
    let (mut mounts, mut draining) = (Vec::new(), Vec::new());
    for space in node.mounts.table().spaces().into_iter().filter(|space| peer.may(&space.name)) {
        let shown = show_space(node, &space);
        for dir in &space.dirs {
            mounts.push(MountStatus {
                dir: dir.dir.display().to_string(),
                tree: dir.tree.clone(),
                options: dir.asked.clone(),
                mode: space.mode.to_owned(),
                transport: space.transport.to_owned(),
                kept: space.kept && node.keeping.as_ref().is_some_and(|keeping| keeping.is_there()),
                read_only: dir.read_only,
                space: shown.clone(),
            });
        }
        if space.dirs.is_empty() && space.status.dirty_files > 0 {
            draining.push(shown);
        }
    }
    let info = &node.volume;
    let free = super::lock::disk_room(&node.settings.cache).map_or(0, |(free, _)| free);
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        node: node.id.to_string(),
        uptime_ms: node.clock.monotonic().saturating_sub(node.started).as_millis() as u64,
        volume: info.uuid.clone(),
        store: node.store.describe(),
        meta: node.settings.meta.to_string(),
        cache: node.settings.cache.display().to_string(),
        memory_bytes: metrics::resident_bytes(),
        memory_in_flight_bytes_max: node.settings.limits.memory_bytes_max,
        cache_disk_free_bytes: free,
        read_cache_bytes: node.reads.usage().0,
        read_cache_bytes_max: node.reads.bytes_max(),
        cache_error: node.reads.disk_trouble(),
        meta_error: node.source.failure(),
        emptying: node.mounts.is_emptying(),
        warmups: node.warmups.list(peer),
        pinned: node.pins.list(peer),
        service: node.source.link_status(),
        unopened: if peer.administrator { node.mounts.table().unopened() } else { Vec::new() },
        opening: node.mounts.table().openings.list(|name| peer.may(name)),
        mounts,
        draining,
    }
}

fn show_space(node: &Node, space: &Space) -> SpaceStatus {
    let CacheShare { bytes_min, bytes_max } = node.settings.cache_shares.of(&space.name);
    SpaceStatus {
        cached_bytes: node.reads.namespace_bytes(space.id),
        cache_bytes_min: (bytes_min > 0).then_some(bytes_min),
        cache_bytes_max: (bytes_max < u64::MAX).then_some(bytes_max),
        namespace: space.name.to_string(),
        dirty_bytes: space.status.dirty_bytes,
        dirty_files: space.status.dirty_files,
        oldest_dirty_ms: space.status.oldest_dirty_ms,
        uploaded_bytes: space.status.uploaded_bytes,
        uploaded_objects: space.status.uploaded_objects,
        drain_bytes_per_s: space.status.drain_bytes_per_s,
        left_ms: space.status.left_ms,
        usage: space.usage,
        error: space.status.error.clone(),
        retry_in_ms: space.status.retry_in_ms,
        disk_error: space.status.disk_error.clone(),
        damage: space.status.damage.clone(),
        durability: space.durability,
        policy: space.status.policy,
        service: space.service.clone(),
        packed: space.packed.clone(),
    }
}

/// Refuses a mount that was meant for another node.
fn check_meant(node: &Node, request: &MountRequest) -> Outcome<()> {
    for (what, asked, ours) in [
        ("its metadata", &request.meta, node.settings.meta.to_string()),
        ("its cache", &request.cache, node.settings.cache.display().to_string()),
    ] {
        if let Some(asked) = asked
            && *asked != ours
        {
            return Err(Failure::of_kind(
                Kind::Invalid,
                format!(
                    "the node at {} has {what} in {}, not in {asked}; stop it with `granary node stop`, or name another \
                     node with --socket, --cache and --meta",
                    node.settings.socket.display(),
                    ours
                ),
            ));
        }
    }
    Ok(())
}

async fn mount(
    State(node): On,
    ConnectInfo(peer): Who,
    Ask(request): Ask<MountRequest>,
) -> Outcome<Json<MountReply>> {
    let name: NamespaceName = request.namespace.parse()?;
    check_meant(&node, &request)?;
    let dir = PathBuf::from(&request.dir);
    if !dir.is_absolute() {
        return Err(Failure::usage(format!("cannot mount at {:?}: give an absolute path", request.dir)));
    }
    let options = granary_fuse::MountOptions::parse(&request.options)?;
    let (owner, wanted) = (peer.clone(), name.clone());
    let new = blocking(move || {
        owner.check(&wanted)?;
        namespaces::wanted(&namespaces::by_name(&wanted), owner.uid, owner.gid)
    })
    .await?;
    let created = node.source.find_or_create(request.token.as_ref(), new).await?;
    let order = MountOrder {
        name: name.clone(),
        tree: request.tree,
        dir,
        options,
        asked: request.options,
        token: request.token,
        owner: (!peer.administrator).then_some(peer.uid),
    };
    let done = node.mounts.mount(order).await?;
    Ok(Json(MountReply {
        namespace: name.to_string(),
        dir: request.dir,
        mode: done.mode.to_owned(),
        bound: done.bound,
        created,
        ignored: node.settings.differing(&request.limits),
    }))
}

async fn hand(
    State(node): On,
    ConnectInfo(peer): Who,
    Ask(request): Ask<TokenRequest>,
) -> Outcome<Json<TokenReply>> {
    let said = granary_meta::token::inspect(request.token.as_str())?;
    let name: NamespaceName = match (&request.namespace, said.only()) {
        (Some(name), _) => name.parse()?,
        (None, Some(only)) => only.clone(),
        (None, None) => {
            return Err(Failure::usage(
                "the token is not for one namespace alone: say which is meant (--namespace)",
            ));
        }
    };
    let asked = name.clone();
    blocking(move || peer.check(&asked)).await?;
    let handed = node.mounts.hand(name.clone(), request.token).await?;
    Ok(Json(TokenReply {
        namespace: name.to_string(),
        left_ms: handed.left_ms,
        dirty_bytes: handed.dirty_bytes,
    }))
}

/// The namespace mounted at, or above, this path, if the peer may know.
async fn space_at(node: &Arc<Node>, peer: &Peer, path: &str) -> Outcome<(NamespaceName, Arc<Tree>, PathBuf)> {
    let (table, peer) = (node.mounts.table(), peer.clone());
    let path = path.to_owned();
    blocking(move || {
        table.at(Path::new(&path)).filter(|(name, ..)| peer.may(name)).ok_or_else(|| {
            Failure::of_kind(
                Kind::NotFound,
                format!(
                    "nothing of this node is mounted at {path}; `granary status` shows what is mounted where"
                ),
            )
        })
    })
    .await
}

async fn unmount(
    State(node): On,
    ConnectInfo(peer): Who,
    Ask(request): Ask<UnmountRequest>,
) -> Outcome<Json<UnmountReply>> {
    let (name, tree, dir) = space_at(&node, &peer, &request.dir).await?;
    if dir != Path::new(&request.dir) {
        return Err(Failure::of_kind(
            Kind::Invalid,
            format!("{} is no mount point; {name} is mounted at {}", request.dir, dir.display()),
        ));
    }
    if !peer.administrator && node.mounts.table().mounted_by(&dir) != Some(peer.uid) {
        return Err(Failure::of_kind(
            Kind::Permission,
            format!("{} was mounted by somebody else; they or root may unmount it", dir.display()),
        ));
    }
    node.mounts.unmount(dir, request.lazy).await?;
    Ok(Json(UnmountReply { namespace: name.to_string(), dirty_bytes: tree.status().dirty_bytes }))
}

async fn sync(State(node): On, ConnectInfo(peer): Who, Ask(request): Ask<SyncRequest>) -> Outcome<Response> {
    let table = node.mounts.table();
    let wanted = match (&request.dir, &request.namespace, request.all) {
        (Some(dir), None, false) => {
            let (name, tree, _) = space_at(&node, &peer, dir).await?;
            if let Some(inode) = request.inode {
                let meta = table.meta(&name).ok_or_else(|| missing(&name))?;
                sync::check_inode(&*meta, inode, dir).await?;
            }
            vec![Wanted { name, tree, inode: request.inode }]
        }
        (None, Some(name), false) if request.inode.is_none() => {
            let name: NamespaceName = name.parse()?;
            let (asked, who) = (name.clone(), peer.clone());
            blocking(move || who.check(&asked)).await?;
            let tree = table.tree(&name).ok_or_else(|| missing(&name))?;
            vec![Wanted { name, tree, inode: None }]
        }
        (None, None, true) if request.inode.is_none() => {
            let mine =
                blocking(move || Ok(table.trees().into_iter().filter(|(name, _)| peer.may(name)).collect()));
            let mine: Vec<_> = mine.await?;
            mine.into_iter().map(|(name, tree)| Wanted { name, tree, inode: None }).collect()
        }
        _ => return Err(Failure::usage("give a sync one of `dir`, `namespace` and `all`")),
    };
    Ok(sync::lines(&node, move |lines| sync::store(wanted, lines)))
}

async fn drain(
    State(node): On,
    ConnectInfo(peer): Who,
    Json(request): Json<DrainRequest>,
) -> Outcome<Response> {
    peer.check_administrator("drain the node")?;
    tracing::info!(uid = peer.uid, wait_ms = request.wait_ms, "told to drain");
    let (own, wait) = (node.clone(), request.wait_ms.map(std::time::Duration::from_millis));
    Ok(sync::lines(&node, move |lines| empty::run(own, wait, lines)))
}

async fn list(State(node): On, ConnectInfo(peer): Who) -> Outcome<Json<Vec<NamespaceInfo>>> {
    listed(&node, peer, None).await
}

async fn list_as(
    State(node): On,
    ConnectInfo(peer): Who,
    Ask(request): Ask<ListRequest>,
) -> Outcome<Json<Vec<NamespaceInfo>>> {
    listed(&node, peer, request.token.as_ref()).await
}

async fn listed(node: &Node, peer: Peer, token: Option<&Secret>) -> Outcome<Json<Vec<NamespaceInfo>>> {
    let all = node.source.list(token).await?;
    // Names are looked up in the system's user database, which may be slow.
    blocking(move || Ok(Json(all.into_iter().filter(|info| peer.may(&info.name)).collect()))).await
}

async fn create(
    State(node): On,
    ConnectInfo(peer): Who,
    Ask(request): Ask<CreateRequest>,
) -> Outcome<Json<NamespaceInfo>> {
    peer.check_administrator("make namespaces")?;
    let token = request.token.clone();
    let new = blocking(move || namespaces::wanted(&request, peer.uid, peer.gid)).await?;
    packed::check(new.packed.as_ref(), &node.settings).await?;
    Ok(Json(node.source.create(token.as_ref(), new).await?))
}

async fn set(
    State(node): On,
    ConnectInfo(peer): Who,
    Ask(request): Ask<ChangeRequest>,
) -> Outcome<Json<NamespaceInfo>> {
    peer.check_administrator("change namespaces")?;
    let name: NamespaceName = request.namespace.parse()?;
    namespaces::check_change(&request.change)?;
    let info = node.source.set(request.token.as_ref(), &name, request.change).await?;
    if let Some(tree) = node.mounts.table().tree(&name) {
        tree.settings_changed();
    }
    Ok(Json(info))
}

async fn remove(
    State(node): On,
    ConnectInfo(peer): Who,
    Ask(request): Ask<RemoveRequest>,
) -> Outcome<Json<serde_json::Value>> {
    peer.check_administrator("remove namespaces")?;
    let name: NamespaceName = request.namespace.parse()?;
    let id = node.mounts.remove(name.clone(), request.force, request.token).await?;
    removal::remove_objects(&*node.store, id, &name).await?;
    Ok(Json(serde_json::json!({})))
}

async fn stop(State(node): On, ConnectInfo(peer): Who) -> Outcome<Json<StopReply>> {
    peer.check_administrator("stop the node")?;
    tracing::info!(uid = peer.uid, "told to stop");
    let table = node.mounts.table();
    let busy = blocking(move || Ok(table.busy())).await?;
    node.stop.begin.cancel();
    Ok(Json(StopReply { pid: std::process::id(), busy, wait_ms: node.settings.stop_wait_ms }))
}

/// Ends soon after the answer.
async fn leave(State(node): On, ConnectInfo(peer): Who) -> Outcome<Json<StopReply>> {
    peer.check_administrator("replace the node")?;
    shutdown::may_leave(&node)?;
    shutdown::is_steady(&node)?;
    let stop = node.stop.leave.clone();
    tokio::spawn(async move {
        tokio::time::sleep(LEAVE_DELAY).await;
        stop.cancel();
    });
    Ok(Json(StopReply { pid: std::process::id(), busy: Vec::new(), wait_ms: 0 }))
}

async fn own_metrics(State(node): On, ConnectInfo(peer): Who) -> Outcome<Response> {
    peer.check_administrator("read the metrics, which name all namespaces,")?;
    all_metrics(State(node)).await
}

async fn all_metrics(State(node): On) -> Outcome<Response> {
    blocking(move || {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &node.registry)
            .map_err(|e| Failure::failed(format!("cannot write the metrics: {e}")))?;
        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
    })
    .await
}
