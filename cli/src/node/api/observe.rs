//! The node at work, for those who watch: counters, slow requests, where bytes are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{ConnectInfo, State};
use axum::response::Response;
use granary_cache::Tree;
use granary_cache::file::explain::{Below, Explanation, Passes, Spot};
use granary_core::{Ino, Kind, NamespaceKind, NamespaceName};
use granary_fuse::Op;
use granary_fuse::adapter::trace::{Seen, Slow, Watcher};
use granary_meta::Attr;
use tokio::sync::mpsc;

use super::{Ask, On, Who, space_at};
use crate::exit::{Failure, Outcome};
use crate::node::peer::{Peer, missing};
use crate::node::sync::{as_lines, check_inode};
use crate::node::table::Space;
use crate::node::{Node, blocking, metrics};
use crate::wire::observe::*;

/// Files below a directory that are looked at.
const FILES_MAX: u64 = 100_000;
/// Descriptors of a process that are searched for a file's path.
const DESCRIPTORS_MAX: usize = 1024;

pub async fn stats(State(node): On, ConnectInfo(peer): Who) -> Outcome<Json<Stats>> {
    blocking(move || Ok(Json(stats_for(&node, &peer)?))).await
}

fn stats_for(node: &Node, peer: &Peer) -> Outcome<Stats> {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &node.registry)
        .map_err(|e| Failure::failed(format!("cannot write the metrics: {e}")))?;
    let now = node.clock.monotonic();
    let spaces = node.mounts.table().spaces();
    Ok(Stats {
        at_ms: now.saturating_sub(node.started).as_millis() as u64,
        memory_bytes: metrics::resident_bytes(),
        cache_bytes: node.reads.usage().0,
        cache_bytes_max: node.settings.limits.cache_bytes_max,
        reads: node.reads.stats().named().into_iter().map(|(name, n)| (name.to_owned(), n)).collect(),
        store: sums(&text, "granary_store_"),
        mounts: spaces
            .iter()
            .filter(|space| peer.may(&space.name))
            .map(|space| mount_stats(space, now))
            .collect(),
    })
}

/// Plain samples of families with this prefix, all labels together; histograms are left out.
fn sums(text: &str, prefix: &str) -> BTreeMap<String, f64> {
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let Some((name, value)) = line.strip_prefix(prefix).and_then(|rest| rest.rsplit_once(' ')) else {
            continue;
        };
        let name = name.split('{').next().unwrap_or(name);
        if let Ok(value) = value.parse::<f64>()
            && !name.ends_with("_bucket")
        {
            *found.entry(name.to_owned()).or_default() += value;
        }
    }
    found
}

fn mount_stats(space: &Space, now: Duration) -> MountStats {
    let ops = space.metrics.snapshot(now).into_iter().map(|s| OpStats {
        op: s.op.name().to_owned(),
        count: s.count,
        failed: s.failed,
        in_flight: s.in_flight,
        waited: s.waited,
        waited_ns: u64::try_from(s.waited_for.as_nanos()).unwrap_or(u64::MAX),
        took: s.took.0,
    });
    let tiers = space.served.iter().map(|s| TierStats {
        tier: s.tier.name().to_owned(),
        reads: s.reads,
        bytes: s.bytes,
    });
    MountStats {
        namespace: space.name.to_string(),
        mode: space.mode.to_owned(),
        dirs: space.dirs.iter().map(|told| told.dir.display().to_string()).collect(),
        written_bytes: space.metrics.written_bytes(),
        tiers: tiers.collect(),
        ops: ops.collect(),
        dirty_bytes: space.status.dirty_bytes,
        dirty_files: space.status.dirty_files,
        drain_bytes_per_s: space.status.drain_bytes_per_s,
        left_ms: space.status.left_ms,
        uploaded_bytes: space.status.uploaded_bytes,
        error: space.status.error.clone(),
    }
}

pub async fn trace(
    State(node): On,
    ConnectInfo(peer): Who,
    Ask(request): Ask<TraceRequest>,
) -> Outcome<Response> {
    let (name, tree, _) = space_at(&node, &peer, &request.dir).await?;
    let unknown = request.ops.iter().find(|op| Op::ALL.iter().all(|known| known.name() != op.as_str()));
    if let Some(unknown) = unknown {
        let known: Vec<_> = Op::ALL.iter().map(|op| op.name()).collect();
        return Err(Failure::usage(format!(
            "there is no operation {unknown:?}; they are {}",
            known.join(", ")
        )));
    }
    let table = node.mounts.table();
    let wanted = name.clone();
    let space = blocking(move || Ok(table.spaces().into_iter().find(|space| space.name == wanted))).await?;
    let space = space.ok_or_else(|| missing(&name))?;
    let mut watcher = space.metrics.trace().watch(Duration::from_millis(request.min_ms))?;
    let dirs: Vec<PathBuf> = space.dirs.into_iter().map(|told| told.dir).collect();
    let (lines, answer) = mpsc::channel(64);
    let stop = node.stop.begin.clone();
    tokio::spawn(async move {
        let watching = TraceLine::Watching { namespace: name.to_string() };
        let view = View { tree, dirs, ops: request.ops, only_uid: only_own(&peer, &name) };
        let work = async {
            if lines.send(watching).await.is_ok() {
                follow(&mut watcher, view, &lines).await;
            }
        };
        tokio::select! {
            () = work => {}
            () = lines.closed() => {}
            () = stop.cancelled() => {
                let failure = Failure::of_kind(Kind::Unavailable, "the node was told to stop");
                let _ = lines.send(TraceLine::Failed(failure)).await; // the caller may be gone
            }
        }
    });
    Ok(as_lines(answer))
}

/// Whose operations alone the peer may see: in a namespace that others use too, his own.
fn only_own(peer: &Peer, name: &NamespaceName) -> Option<u32> {
    (!peer.administrator && name.kind() != NamespaceKind::User).then_some(peer.uid)
}

/// What one watcher is shown.
struct View {
    tree: Arc<Tree>,
    dirs: Vec<PathBuf>,
    ops: Vec<String>,
    only_uid: Option<u32>,
}

/// Tells what is seen, until nobody listens any more.
async fn follow(watcher: &mut Watcher, view: View, lines: &mpsc::Sender<TraceLine>) {
    let view = Arc::new(view);
    loop {
        let line = match watcher.next().await {
            Seen::Missed(n) => TraceLine::Missed(n),
            Seen::Slow(slow) if !view.shows(&slow) => continue,
            Seen::Slow(slow) => {
                let view = view.clone();
                // Looks into /proc.
                match blocking(move || Ok(view.describe(&slow))).await {
                    Ok(line) => TraceLine::Slow(line),
                    Err(failure) => TraceLine::Failed(failure),
                }
            }
        };
        if lines.send(line).await.is_err() {
            return;
        }
    }
}

impl View {
    fn shows(&self, slow: &Slow) -> bool {
        (self.ops.is_empty() || self.ops.iter().any(|op| op == slow.op.name()))
            && self.only_uid.is_none_or(|uid| uid == slow.caller.uid)
    }

    fn describe(&self, slow: &Slow) -> SlowLine {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let name = slow.caller.name.as_deref().map(text);
        let opened = || self.tree.hint(slow.ino).map(|hint| text(&hint.name));
        let pid = process_of(slow.caller.pid);
        let path = if name.is_none() { open_path(pid, slow.ino, &self.dirs) } else { None };
        let micros = |took: Duration| u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let command = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok();
        SlowLine {
            at_unix_ms: slow.at.unix_ms(),
            took_us: micros(slow.took),
            op: slow.op.name().to_owned(),
            inode: slow.ino.0,
            path,
            name: name.or_else(opened),
            pid,
            uid: slow.caller.uid,
            command: command.map(|name| name.trim_end().to_owned()),
            waits: slow
                .waits
                .iter()
                .map(|waited| WaitLine {
                    on: waited.cause.name().to_owned(),
                    what: waited.cause.to_string(),
                    took_us: micros(waited.took),
                })
                .collect(),
            errno: slow.errno,
        }
    }
}

/// The process of a thread: the kernel names threads. One that has ended is told as it is.
fn process_of(thread: u32) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
    let process = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
    process.and_then(|number| number.trim().parse().ok()).unwrap_or(thread)
}

/// Where a process has this inode of the mount open. Only what the kernel says of descriptors is looked at: nothing of the
/// mount is asked, which might be slow for the same reason.
fn open_path(pid: u32, ino: Ino, dirs: &[PathBuf]) -> Option<String> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fdinfo")).ok()?;
    let wanted = format!("ino:\t{}", ino.0);
    for entry in entries.flatten().take(DESCRIPTORS_MAX) {
        let info = std::fs::read_to_string(entry.path()).unwrap_or_default();
        if !info.lines().any(|line| line == wanted) {
            continue;
        }
        let number = entry.file_name();
        let Ok(path) = std::fs::read_link(Path::new(&format!("/proc/{pid}/fd")).join(number)) else {
            continue;
        };
        if dirs.iter().any(|dir| path.starts_with(dir)) {
            return Some(path.to_string_lossy().into_owned());
        }
    }
    None
}

pub async fn explain(
    State(node): On,
    ConnectInfo(peer): Who,
    Ask(request): Ask<ExplainRequest>,
) -> Outcome<Json<Explained>> {
    let (name, tree, _) = space_at(&node, &peer, &request.path).await?;
    let table = node.mounts.table();
    let meta = table.meta(&name).ok_or_else(|| missing(&name))?;
    check_inode(&*meta, request.inode, &request.path).await?;
    let ino = Ino(request.inode.ino);
    let attr = meta.getattr(ino).await?;
    if !may_read(&peer, &attr) {
        return Err(Failure::of_kind(
            Kind::Access,
            format!("{} is not yours to read; ask its owner, or use sudo", request.path),
        ));
    }
    let namespace = name.to_string();
    if request.inode.directory {
        let below = tree.explain_below(ino, FILES_MAX, &|attr| may_read(&peer, attr)).await?;
        return Ok(Json(Explained::Directory(below_explained(namespace, below))));
    }
    let mode = {
        let name = name.clone();
        blocking(move || {
            let space = table.spaces().into_iter().find(|space| space.name == name);
            Ok(space.map_or("", |space| space.mode))
        })
        .await?
    };
    let mut file = file_explained(namespace, ino, tree.explain(ino).await?);
    if mode == "data" && file.passthrough {
        file.passthrough = false;
        file.passthrough_why_not =
            Some("the mount is in mode data, in which the kernel opens without asking".to_owned());
    }
    Ok(Json(Explained::File(file)))
}

/// Whether the mode bits let the peer read it.
fn may_read(peer: &Peer, attr: &Attr) -> bool {
    let bit = match attr {
        attr if attr.uid == peer.uid => 0o400,
        attr if peer.gids.contains(&attr.gid) => 0o040,
        _ => 0o004,
    };
    peer.administrator || attr.mode & bit != 0
}

fn owned(places: BTreeMap<&'static str, u64>) -> BTreeMap<String, u64> {
    places.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect()
}

fn below_explained(namespace: String, below: Below) -> BelowExplained {
    BelowExplained {
        namespace,
        files: below.files,
        directories: below.directories,
        bytes: below.bytes,
        places: owned(below.places),
        inline_files: below.inline_files,
        requests: below.cost.requests,
        fetch_bytes: below.cost.bytes,
        unreadable: below.unreadable,
        more: below.more,
    }
}

fn file_explained(namespace: String, ino: Ino, file: Explanation) -> FileExplained {
    let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    FileExplained {
        namespace,
        inode: ino.0,
        size: file.size,
        version: file.version,
        open: file.open,
        places: owned(file.places),
        stretches: file
            .stretches
            .into_iter()
            .map(|s| StretchLine { offset: s.offset, len: s.len, place: place_line(s.spot) })
            .collect(),
        more: file.more,
        inline: file.inline,
        requests: file.cost.requests,
        fetch_bytes: file.cost.bytes,
        passthrough: file.passthrough == Passes::Yes,
        passthrough_why_not: match file.passthrough {
            Passes::Yes => None,
            Passes::No(why) => Some(why.to_owned()),
        },
        lease: file.lease.map(str::to_owned),
        waits: file.waits.map(|waits| LeavesLine {
            since_ms: millis(waits.since),
            left_ms: waits.left.map(millis),
            by: waits.by.to_owned(),
            failing: waits.failing,
        }),
    }
}

fn place_line(spot: Spot) -> PlaceLine {
    match spot {
        Spot::Hole => PlaceLine::Hole,
        Spot::StageLog { segment, offset } => {
            PlaceLine::StageLog { segment: format!("{segment:016x}"), at: offset }
        }
        Spot::StageFile { clean: false } => PlaceLine::StageFile,
        Spot::StageFile { clean: true } => PlaceLine::CleanCopy,
        Spot::Peer { node } => PlaceLine::Peer { node },
        Spot::Object { key, offset, cached, chunks } => {
            PlaceLine::Object { key, at: offset, cached_bytes: cached, chunks }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_all_labels() {
        let text = "# TYPE granary_store_in_flight gauge\n\
                    granary_store_in_flight{operation=\"get\"} 3\n\
                    granary_store_in_flight{operation=\"put\"} 2\n\
                    granary_store_request_seconds_bucket{le=\"1\"} 9\n\
                    granary_dirty_bytes{namespace=\"user/a b\"} 7\n";
        assert_eq!(sums(text, "granary_store_"), BTreeMap::from([("in_flight".to_owned(), 5.0)]));
    }

    #[test]
    fn an_open_file_is_found_by_its_inode() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let file = std::fs::File::create(&path).unwrap();
        let (pid, ino) = (std::process::id(), Ino(file.metadata().unwrap().ino()));
        let found = open_path(pid, ino, &[dir.path().to_owned()]);
        assert_eq!(found.as_deref(), path.to_str());
        assert_eq!(open_path(pid, ino, &[PathBuf::from("/elsewhere")]), None);
    }
}
