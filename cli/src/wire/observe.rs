//! What is said of the node at work.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `GET /v1/stats` | | [`Stats`]: counters, of which differences make rates |
//! | `POST /v1/trace` | [`TraceRequest`] | lines of [`TraceLine`], until the caller goes away |
//! | `POST /v1/explain` | [`ExplainRequest`] | [`Explained`] |

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::InodeOf;
use crate::exit::Failure;

/// Counters of one moment. Those of mounts are only of those that the caller may see.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// When, since the node started.
    pub at_ms: u64,
    pub memory_bytes: u64,
    pub cache_bytes: u64,
    pub cache_bytes_max: u64,
    /// The read cache's counters by name, as in the metrics without `granary_read_cache_`.
    pub reads: BTreeMap<String, u64>,
    /// The store's, without `granary_store_`: of all operations together.
    pub store: BTreeMap<String, f64>,
    pub mounts: Vec<MountStats>,
}

/// One namespace that is open on the node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MountStats {
    pub namespace: String,
    pub mode: String,
    pub dirs: Vec<String>,
    pub written_bytes: u64,
    pub tiers: Vec<TierStats>,
    pub ops: Vec<OpStats>,
    pub dirty_bytes: u64,
    pub dirty_files: u64,
    pub drain_bytes_per_s: Option<u64>,
    pub left_ms: Option<u64>,
    pub uploaded_bytes: u64,
    pub error: Option<String>,
}

/// What was read from one place.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TierStats {
    pub tier: String,
    pub reads: u64,
    pub bytes: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OpStats {
    pub op: String,
    pub count: u64,
    pub failed: u64,
    pub in_flight: u64,
    /// Requests that were not ready in memory, and how long programs waited for them.
    pub waited: u64,
    pub waited_ns: u64,
    /// Buckets that are not empty, of `granary_fuse::adapter::histogram`, with their counts.
    pub took: Vec<(u16, u64)>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceRequest {
    /// A mounted directory, or something below one.
    pub dir: String,
    pub min_ms: u64,
    /// Operations by name; none: all.
    #[serde(default)]
    pub ops: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TraceLine {
    /// From now on slow requests are seen.
    Watching {
        namespace: String,
    },
    Slow(SlowLine),
    /// So many were lost, since the reader was too slow.
    Missed(u64),
    Failed(Failure),
}

/// A request that took long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlowLine {
    /// When it was answered.
    pub at_unix_ms: u64,
    pub took_us: u64,
    pub op: String,
    /// The file, or the directory that `name` is in.
    pub inode: u64,
    /// Where the process has it open, else not known.
    pub path: Option<String>,
    /// The entry of the directory that was asked for; of an open file the name that it was opened by.
    pub name: Option<String>,
    pub pid: u32,
    pub uid: u32,
    /// The process's name, while it lives.
    pub command: Option<String>,
    /// The longest first; none: it waited for nothing but the node's disk and processor.
    pub waits: Vec<WaitLine>,
    pub errno: Option<i32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitLine {
    /// In a word: store, metadata, lease, disk, peer, room, upload.
    pub on: String,
    pub what: String,
    pub took_us: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainRequest {
    /// Below a mounted directory.
    pub path: String,
    pub inode: InodeOf,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Explained {
    File(FileExplained),
    Directory(BelowExplained),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileExplained {
    pub namespace: String,
    pub inode: u64,
    pub size: u64,
    pub version: u64,
    pub open: bool,
    /// Bytes by place: hole, stage_log, stage_file, clean_copy, cache, peer, store.
    pub places: BTreeMap<String, u64>,
    pub stretches: Vec<StretchLine>,
    /// There are more stretches than these.
    pub more: bool,
    /// The metadata has a copy of all of it.
    pub inline: bool,
    /// What reading all of it would ask of the store.
    pub requests: u64,
    pub fetch_bytes: u64,
    pub passthrough: bool,
    pub passthrough_why_not: Option<String>,
    /// In a namespace that several nodes use: `write`, `read` or `none`.
    pub lease: Option<String>,
    /// What is not in the store yet.
    pub waits: Option<LeavesLine>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StretchLine {
    pub offset: u64,
    pub len: u64,
    #[serde(flatten)]
    pub place: PlaceLine,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "place", rename_all = "snake_case")]
pub enum PlaceLine {
    Hole,
    StageLog {
        segment: String,
        at: u64,
    },
    StageFile,
    CleanCopy,
    Peer {
        node: String,
    },
    /// In an object, and of it `cached_bytes` in the node's cache: in these chunks of 1 MiB.
    Object {
        key: String,
        at: u64,
        cached_bytes: u64,
        chunks: Vec<u32>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeavesLine {
    pub since_ms: u64,
    /// When it leaves for the store; none: when it is closed.
    pub left_ms: Option<u64>,
    /// The setting that says so.
    pub by: String,
    pub failing: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BelowExplained {
    pub namespace: String,
    pub files: u64,
    pub directories: u64,
    pub bytes: u64,
    pub places: BTreeMap<String, u64>,
    pub inline_files: u64,
    pub requests: u64,
    pub fetch_bytes: u64,
    /// Left out, since the caller may not read them.
    pub unreadable: u64,
    /// There are more files than were looked at.
    pub more: bool,
}
