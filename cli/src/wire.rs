//! What goes over the node's socket: HTTP/1.1 with JSON bodies, version `/v1`.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `GET /v1/status` | | [`Status`] |
//! | `POST /v1/mount` | [`MountRequest`] | [`MountReply`] |
//! | `POST /v1/unmount` | [`UnmountRequest`] | [`UnmountReply`] |
//! | `POST /v1/token` | [`TokenRequest`] | [`TokenReply`] |
//! | `POST /v1/sync` | [`SyncRequest`] | lines of [`SyncLine`], each a JSON object and a newline; the last is `Done` or `Failed` |
//! | `POST /v1/warmup` | [`WarmRequest`] | lines of [`WarmLine`]; the last is `Done` or `Failed` |
//! | `GET /v1/warmups` | | list of [`WarmStatus`] |
//! | `POST /v1/warmups/cancel` | [`WarmCancelRequest`] | [`WarmStatus`] |
//! | `POST /v1/drain` | [`DrainRequest`] | the same lines; the last is `Drained` or `Failed` |
//! | `GET /v1/namespaces` | | list of [`NamespaceInfo`](granary_meta::NamespaceInfo) |
//! | `POST /v1/namespaces/list` | [`ListRequest`] | the same, as the bearer of a token sees them |
//! | `POST /v1/namespaces/create` | [`CreateRequest`] | `NamespaceInfo` |
//! | `POST /v1/namespaces/set` | [`ChangeRequest`] | `NamespaceInfo` |
//! | `POST /v1/namespaces/remove` | [`RemoveRequest`] | `{}` |
//! | `POST /v1/fsck` | [`FsckRequest`] | lines of [`WorkLine`], the last is `Done` with a [`FsckReport`](granary_maintain::fsck::FsckReport), or `Failed` |
//! | `POST /v1/gc` | [`GcRequest`] | the same, with a [`GcReport`](granary_maintain::garbage::GcReport) |
//! | `GET /v1/meta/backup` | | the metadata, in the format of `granary meta backup`; whole only if it has its end |
//! | `POST /v1/stop` | | [`StopReply`] |
//! | `/v1/stats`, `/v1/trace`, `/v1/explain` | | see [`observe`] |
//! | `GET /metrics` | | Prometheus' text format |
//!
//! Anything that fails answers with a status of 400 or more and a [`Failure`](crate::exit::Failure). Fields that are not
//! known are refused, so that a newer client's wish is never half done.

pub mod observe;
mod warmup;

use granary_core::policy::WritePolicy;
use granary_maintain::fsck::FsckOptions;
use granary_maintain::garbage::GcOptions;
use granary_maintain::progress::Step;
use granary_meta::{Durability, NamespaceChange, PackedSource, Usage};
use serde::{Deserialize, Serialize};

use crate::exit::Failure;
use crate::token_file::Secret;

pub use warmup::{PinStatus, WarmCancelRequest, WarmLine, WarmRequest, WarmStatus, WarmWork};

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MountRequest {
    pub namespace: String,
    /// Only this tree of it, relative to its top directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree: Option<String>,
    /// Absolute and without symbolic links.
    pub dir: String,
    /// As after `-o`.
    #[serde(default)]
    pub options: String,
    /// The volume that is meant, when the caller named one: another volume's node refuses.
    #[serde(default)]
    pub meta: Option<String>,
    /// The same for the cache directory.
    #[serde(default)]
    pub cache: Option<String>,
    /// Who asks, for the metadata service: a token. Without one the node shows its own.
    #[serde(default)]
    pub token: Option<Secret>,
    /// Limits the caller asked for: a node that runs has its own, and says which of these differ.
    #[serde(default)]
    pub limits: serde_json::Map<String, serde_json::Value>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountReply {
    pub namespace: String,
    pub dir: String,
    pub mode: String,
    /// The namespace was mounted elsewhere; this is a bind mount of it.
    pub bound: bool,
    /// The namespace did not exist and was made.
    pub created: bool,
    /// Limits that were asked for, and are not the node's.
    pub ignored: Vec<String>,
}

/// A token that the node is to go on with, where it has something of the namespace.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    pub token: Secret,
    /// `None`: the one that the token is for.
    #[serde(default)]
    pub namespace: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenReply {
    pub namespace: String,
    /// How long the node can go on.
    pub left_ms: u64,
    /// What is not in the store yet.
    pub dirty_bytes: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListRequest {
    /// Who asks, for the metadata service.
    #[serde(default)]
    pub token: Option<Secret>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnmountRequest {
    pub dir: String,
    /// Detach although it is in use: it vanishes now and ends with its last user.
    #[serde(default)]
    pub lazy: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnmountReply {
    pub namespace: String,
    /// What is not in the store yet; the node goes on storing it.
    pub dirty_bytes: u64,
}

/// One of `dir`, `namespace` and `all`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyncRequest {
    /// A mounted directory, or something below one.
    #[serde(default)]
    pub dir: Option<String>,
    /// With `dir`: only this file, or what is below this directory, which is there.
    #[serde(default)]
    pub inode: Option<InodeOf>,
    #[serde(default)]
    pub namespace: Option<String>,
    /// Every namespace on the node that the caller may use.
    #[serde(default)]
    pub all: bool,
}

/// What a path is, by the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InodeOf {
    pub ino: u64,
    pub directory: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyncLine {
    Progress {
        dirty_bytes: u64,
        dirty_files: u64,
        /// Bytes uploaded since the namespace was opened.
        uploaded_bytes: u64,
        /// The drain's last failure; it goes on trying.
        error: Option<String>,
    },
    Done,
    /// What `granary node drain` came to.
    Drained(DrainReport),
    Failed(Failure),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrainRequest {
    /// How long the store is waited for; `None`: as long as it takes.
    #[serde(default)]
    pub wait_ms: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainReport {
    /// Nothing is on the node that is not in the store, and nothing is mounted.
    pub clean: bool,
    pub left: Vec<LeftBehind>,
}

/// What could not be stored, or unmounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftBehind {
    /// A namespace, a mount point, or a stage directory.
    pub what: String,
    pub dirty_bytes: u64,
    pub dirty_files: u64,
    pub why: Failure,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateRequest {
    pub namespace: String,
    /// What is left out is chosen by the name: see `granary mount`.
    #[serde(default)]
    pub uid: Option<u32>,
    #[serde(default)]
    pub gid: Option<u32>,
    #[serde(default)]
    pub mode: Option<u32>,
    #[serde(default)]
    pub bytes_max: u64,
    #[serde(default)]
    pub inodes_max: u64,
    #[serde(default)]
    pub durability: Durability,
    /// A day when it is left out; 0: no trash.
    #[serde(default)]
    pub trash_ms: Option<u64>,
    /// A packed data set to show. Left out, so that an older node refuses only what it cannot do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packed: Option<PackedSource>,
    /// Who asks, for the metadata service; `None`: the node does. So with the two that follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangeRequest {
    pub namespace: String,
    pub change: NamespaceChange,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveRequest {
    pub namespace: String,
    /// Also when it is not empty.
    #[serde(default)]
    pub force: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
}

/// No namespaces: all.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FsckRequest {
    #[serde(default)]
    pub namespaces: Vec<String>,
    #[serde(default)]
    pub options: FsckOptions,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GcRequest {
    #[serde(default)]
    pub namespaces: Vec<String>,
    pub options: GcOptions,
}

/// What is told of a long work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkLine<T> {
    Progress(Step),
    Done(T),
    Failed(Failure),
}

/// How far the bringing back of what is staged is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryLine {
    /// Of the stage logs, read and in all.
    pub bytes: u64,
    pub bytes_total: u64,
    /// Records found, and those that the metadata did not have.
    pub records: u64,
    pub replayed: u64,
    /// Stage files that were taken over.
    pub files: u64,
    pub left_ms: u64,
}

impl From<granary_cache::RecoveryStep> for RecoveryLine {
    fn from(step: granary_cache::RecoveryStep) -> RecoveryLine {
        RecoveryLine {
            bytes: step.bytes,
            bytes_total: step.bytes_total,
            records: step.records,
            replayed: step.replayed,
            files: step.files,
            left_ms: step.left.as_millis() as u64,
        }
    }
}

/// What `granary recover` came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoverReport {
    /// The node whose bytes they were: 16 hexadecimal digits.
    pub node: String,
    /// Nothing is left that is not in the store, and nothing has to be looked at.
    pub clean: bool,
    pub namespaces: Vec<RecoveredSpace>,
}

/// One namespace with a stage in the directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveredSpace {
    pub namespace: String,
    /// Changes that the metadata did not have, and stage files that were taken over.
    pub replayed: u64,
    pub stage_files: u64,
    /// Bytes and objects that went to the store.
    pub stored_bytes: u64,
    pub stored_objects: u64,
    /// Bytes of the log that are damaged: they are lost, or in a segment that is kept.
    pub damaged_bytes: u64,
    /// What other nodes changed since, and where this node's version of it was put.
    pub kept_aside: Vec<String>,
    /// What is not in the store yet, and why.
    pub dirty_bytes: u64,
    pub left: Option<Failure>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StopReply {
    /// The process to wait for.
    pub pid: u32,
    /// Mounts that are in use, and by whom.
    pub busy: Vec<String>,
    /// How long the node waits for them.
    pub wait_ms: u64,
}

/// How far a packed data set is that is being opened. A total of 0 is not known yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpeningStatus {
    pub namespace: String,
    /// Where its shards are.
    pub url: String,
    /// Indexes that are on this node.
    pub indexes: u64,
    pub indexes_total: u64,
    /// Files and directories that are in order.
    pub entries: u64,
    pub entries_total: u64,
}

/// A node, its volume, and what the caller may see of its mounts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub pid: u32,
    /// 16 hexadecimal digits.
    pub node: String,
    pub uptime_ms: u64,
    pub volume: String,
    pub store: String,
    pub meta: String,
    pub cache: String,
    /// Resident memory of the node process.
    pub memory_bytes: u64,
    /// Of it, what data in flight may take.
    #[serde(default)]
    pub memory_in_flight_bytes_max: u64,
    pub cache_disk_free_bytes: u64,
    pub read_cache_bytes: u64,
    pub read_cache_bytes_max: u64,
    /// What is wrong with the cache's disk.
    #[serde(default)]
    pub cache_error: Option<String>,
    /// Why the metadata in this process takes no changes.
    #[serde(default)]
    pub meta_error: Option<String>,
    /// It takes no new mounts: `granary node drain` was asked for.
    #[serde(default)]
    pub emptying: bool,
    /// Warmups of the caller (an administrator: of everybody) that are under way, or were lately.
    #[serde(default)]
    pub warmups: Vec<WarmStatus>,
    /// Trees that stay on the node.
    #[serde(default)]
    pub pinned: Vec<PinStatus>,
    /// The node's own connection to the metadata service; `None`: it has the metadata itself.
    #[serde(default)]
    pub service: Option<LinkStatus>,
    /// Packed data sets that are being opened for a mount.
    #[serde(default)]
    pub opening: Vec<OpeningStatus>,
    pub mounts: Vec<MountStatus>,
    /// Namespaces that are not mounted, but have bytes on this node that are not in the store.
    pub draining: Vec<SpaceStatus>,
    /// Bytes on this node of namespaces that it could not open.
    #[serde(default)]
    pub unopened: Vec<UnopenedStatus>,
}

/// What is staged of a namespace that the node could not open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnopenedStatus {
    pub dir: String,
    /// Of the directory's files; less than they hold where they are sparse.
    pub bytes: u64,
    pub why: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountStatus {
    pub dir: String,
    /// Only this tree of the namespace is shown.
    #[serde(default)]
    pub tree: Option<String>,
    /// As they were asked for; `None`: not known any more.
    #[serde(default)]
    pub options: Option<String>,
    pub mode: String,
    /// How requests come: `dev` or `uring`.
    #[serde(default)]
    pub transport: String,
    /// It outlives the node process (setting `keeper`).
    #[serde(default)]
    pub kept: bool,
    pub read_only: bool,
    #[serde(flatten)]
    pub space: SpaceStatus,
}

/// One namespace on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpaceStatus {
    pub namespace: String,
    /// What is known to be its own in the read cache, without clean copies of whole files.
    #[serde(default)]
    pub cached_bytes: u64,
    /// What it has of the read cache at least and at most (`cache_shares`), if that is said.
    #[serde(default)]
    pub cache_bytes_min: Option<u64>,
    #[serde(default)]
    pub cache_bytes_max: Option<u64>,
    pub dirty_bytes: u64,
    pub dirty_files: u64,
    /// Age of the oldest byte that is not in the store.
    pub oldest_dirty_ms: u64,
    pub uploaded_bytes: u64,
    pub uploaded_objects: u64,
    /// Bytes a second that reach the store, over the last uploads; `None` while nothing drains.
    pub drain_bytes_per_s: Option<u64>,
    /// How long what is dirty takes at that rate, while something is being uploaded.
    pub left_ms: Option<u64>,
    pub usage: Usage,
    /// The last failure of the drain, if it has not succeeded since.
    pub error: Option<String>,
    /// When that is tried again.
    pub retry_in_ms: Option<u64>,
    /// Why the node's disk does not take what is written.
    #[serde(default)]
    pub disk_error: Option<String>,
    /// What is staged and the node's disk does not give back: it cannot go to the store.
    #[serde(default)]
    pub damage: Option<String>,
    pub durability: Durability,
    /// What counts for the namespace on this node: its own settings, else the node's.
    pub policy: WritePolicy,
    /// The connection to the metadata service that it works through; `None`: the node has the metadata itself.
    #[serde(default)]
    pub service: Option<LinkStatus>,
    /// The packed data set that it shows, in the version that is open.
    #[serde(default)]
    pub packed: Option<PackedSource>,
}

/// One connection of a node to the metadata service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkStatus {
    pub url: String,
    pub connected: bool,
    /// How long it has been connected, or not.
    pub since_ms: u64,
    /// Why the last connection ended, or the last attempt failed.
    pub last_error: Option<String>,
    /// 16 hexadecimal digits; `None` before the first greeting.
    pub session: Option<String>,
    /// Whom its token names, and what that lets them do.
    pub user: String,
    pub rights: String,
    /// How long its token lasts.
    #[serde(default)]
    pub token_left_ms: Option<u64>,
    /// It has tokens for one namespace alone, which somebody renews.
    #[serde(default)]
    pub token: Option<NamespaceToken>,
    pub leases: u64,
    /// Programs' calls that wait for an answer.
    pub waiting_calls: u64,
    /// The last time that the service ended the session, and how long ago.
    pub fenced: Option<FencedStatus>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceToken {
    /// How long the latest lasts that lets it write; 0: it has none.
    pub left_write_ms: u64,
    /// The service accepts none of them: each has ended or was revoked.
    pub refused: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FencedStatus {
    pub why: String,
    pub ago_ms: u64,
}
