//! What is measured: file systems that can be made fresh, brought to rest and made to forget.

mod ext4;
mod granary;
mod juicefs;
pub mod nodes;

use std::path::{Path, PathBuf};

use anyhow::Result;

pub use ext4::Ext4;
pub use granary::{Granary, Mode};
pub use juicefs::Juicefs;

use crate::process::Memory;

pub const EXT4: &str = "ext4";
pub const GRANARY: &str = "granary";
pub const JUICEFS: &str = "juicefs";

/// The binaries measured.
#[derive(Clone, Debug)]
pub struct Programs {
    pub granary: PathBuf,
    pub juicefs: Option<PathBuf>,
}

/// One mounted file system of one round; everything of it ends when dropped.
pub trait System {
    fn name(&self) -> &'static str;
    /// Where programs see it.
    fn root(&self) -> &Path;
    /// Returns when nothing of it works in the background any more.
    fn settle(&self) -> Result<()>;
    /// Drops what the node holds of files' bytes, where a store holds them too. The kernel's caches are dropped by the caller.
    fn forget(&mut self) -> Result<()>;
    /// Of the processes that serve it, if any do.
    fn memory(&self) -> Result<Option<Memory>>;
}
