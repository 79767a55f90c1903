//! One file system on several mounts of one machine, each with a node process and a cache of its own.

mod granary;
mod juicefs;

use std::path::PathBuf;

use anyhow::Result;

pub use granary::GranaryNodes;
pub use juicefs::JuicefsNodes;

/// Everything of it ends when dropped.
pub trait Nodes {
    fn name(&self) -> &'static str;
    /// Where each node's programs see it.
    fn roots(&self) -> &[PathBuf];
    /// Returns when nothing of it works in the background any more.
    fn settle(&self) -> Result<()>;
}
