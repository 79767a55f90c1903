//! What the services ask of the node process, and of its volume's metadata through it.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use granary_core::{NamespaceName, Result};

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
    /// As after `mount -o`.
    pub options: String,
}

/// A mount that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounted {
    pub namespace: NamespaceName,
    pub read_only: bool,
    /// What is wrong with it: with the drain to the store, or the node's disk.
    pub trouble: Option<String>,
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
    /// `Exists` when it is mounted there already.
    async fn mount(&self, wanted: MountWanted) -> Result<()>;
    /// Detaches it also while it is in use.
    async fn unmount(&self, dir: &Path) -> Result<()>;
    /// What of this node is mounted at `dir`, if anything is.
    async fn mounted(&self, dir: &Path) -> Result<Option<Mounted>>;
}
