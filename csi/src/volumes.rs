//! What the services ask of the node process, and of its volume's metadata through it.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use granary_core::{NamespaceName, Result};

use crate::pod::Pod;

/// A namespace that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewVolume {
    pub namespace: NamespaceName,
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
    /// Quota; 0: none.
    pub bytes_max: u64,
    /// `fsync` waits for the store.
    pub durable_in_store: bool,
    pub trash_ms: Option<u64>,
}

/// A namespace that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Space {
    pub namespace: NamespaceName,
    /// Quota; 0: none.
    pub bytes_max: u64,
}

/// A mount that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountWanted {
    pub namespace: NamespaceName,
    /// Only this tree of it, relative to its top directory.
    pub tree: Option<String>,
    /// An existing directory.
    pub dir: PathBuf,
    pub read_only: bool,
    /// As after `mount -o`, `ro` apart.
    pub options: String,
}

/// A mount that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounted {
    pub namespace: NamespaceName,
    pub tree: Option<String>,
    pub read_only: bool,
    /// As they were asked for, `ro` apart; `None` when that is not known any more.
    pub options: Option<String>,
    /// What is wrong with it: with the drain to the store, or the node's disk.
    pub trouble: Option<String>,
}

/// How much of a namespace this node's cache holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub namespace: NamespaceName,
    pub cached_bytes: u64,
    /// Of all of it.
    pub bytes: u64,
}

/// How far the bringing of a volume to this node is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Warmth {
    pub bytes_here: u64,
    /// As far as they are counted.
    pub bytes_total: u64,
    pub counted: bool,
    pub ended: bool,
    /// Why it ended before all was here.
    pub failure: Option<String>,
}

#[async_trait]
pub trait Volumes: Send + Sync + 'static {
    /// Whether the node process answers.
    async fn ready(&self) -> Result<()>;
    /// `Exists` when the name is taken.
    async fn create(&self, new: NewVolume) -> Result<Space>;
    /// In the order of their names.
    async fn list(&self) -> Result<Vec<Space>>;
    /// `NotFound` when there is none.
    async fn find(&self, namespace: &NamespaceName) -> Result<Space>;
    async fn set_quota(&self, namespace: &NamespaceName, bytes_max: u64) -> Result<Space>;
    /// Its files are gone. `Busy` while it is mounted, `NotFound` when there is none.
    async fn remove(&self, namespace: &NamespaceName) -> Result<()>;
    /// For this pod, or for the host. `Exists` when it is mounted there already, `NotFound` when there is no such namespace: it is not made.
    async fn mount(&self, wanted: MountWanted, pod: Option<&Pod>) -> Result<()>;
    /// What is mounted so is still for this pod: it may go on with it for a while.
    async fn renew(&self, wanted: &MountWanted, pod: Option<&Pod>) -> Result<()>;
    /// Detaches it also while it is in use, and within a bound: also when the node process does not answer. `NotFound` when nothing of
    /// ours is there.
    async fn unmount(&self, dir: &Path) -> Result<()>;
    /// What of this node is mounted at `dir`, if anything is: by the node process' word.
    async fn mounted(&self, dir: &Path) -> Result<Option<Mounted>>;
    /// Whether a mount of ours is at `dir`, alive or dead: by the kernel's word.
    async fn shows(&self, dir: &Path) -> Result<bool>;
    /// Where mounts of ours are, alive or dead: by the kernel's word.
    async fn shown(&self) -> Result<Vec<PathBuf>>;
    /// Begins to bring what is mounted at `dir`, or these paths below it, to this node, unless that is under way already. Its number.
    async fn warm(&self, dir: &Path, paths: &[String]) -> Result<u64>;
    /// How far that is. `NotFound` when it is not known any more.
    async fn warmth(&self, id: u64) -> Result<Warmth>;
    /// Of the namespaces that are mounted here.
    async fn held(&self) -> Result<Vec<Held>>;
}
