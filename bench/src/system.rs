//! What is measured: file systems that can be made fresh, brought to rest and made to forget.

mod ext4;
mod granary;
mod juicefs;
pub mod nodes;
mod programs;
mod rclone;
mod s3fs;

use std::path::{Path, PathBuf};

use anyhow::Result;

pub use ext4::Ext4;
pub use granary::{Granary, Mode};
pub use juicefs::Juicefs;
pub use programs::{Peer, Programs};
pub use rclone::Rclone;
pub use s3fs::S3fs;

use crate::process::Memory;

pub const EXT4: &str = "ext4";
pub const GRANARY: &str = "granary";
pub const JUICEFS: &str = "juicefs";
pub const S3FS: &str = "s3fs";
pub const RCLONE: &str = "rclone";

/// One mounted file system of one round; everything of it ends when dropped.
pub trait System {
    fn name(&self) -> &'static str;
    /// Where programs see it.
    fn root(&self) -> &Path;
    /// Returns when nothing of it works in the background any more.
    fn settle(&self) -> Result<()>;
    /// Drops what the node holds of files' bytes, where a store holds them too, and mounts it again; from now on the store is
    /// reached at `endpoint`, or as the run reaches it. The kernel's caches are dropped by the caller.
    fn forget(&mut self, endpoint: Option<&str>) -> Result<()>;
    /// Of the processes that serve it, if any do.
    fn memory(&self) -> Result<Option<Memory>>;
    /// User and system time of the processes that serve it since they began, seconds, if any do.
    fn cpu_seconds(&self) -> Option<f64>;
    /// Whether it is a file system with metadata of its own. One that makes each file an object is left out of work that it
    /// would be at for hours.
    fn is_posix(&self) -> bool {
        true
    }
    /// Where it shows the data set that lies in the store as objects, if it does.
    fn stored(&self) -> Option<PathBuf> {
        None
    }
}
