//! How to pack.

use std::path::PathBuf;

use granary_core::{Error, Kind, Result};

use crate::key::Grouping;

/// Bounds of a shard's size, in bytes.
pub const SHARD_BYTES_MIN: u64 = 64 << 10;
pub const SHARD_BYTES_MAX: u64 = 1 << 40;
/// Least memory a pack works with, in bytes.
pub const MEMORY_BYTES_MIN: u64 = 64 << 20;
/// What is done with a data set that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// There must be none, but the very same.
    New,
    /// Files that it does not have are added; those it has must be the same.
    Append,
    /// The same, and files that it has with other content are replaced.
    Replace,
}

/// How to pack. Plain values.
#[derive(Clone, Debug)]
pub struct Options {
    /// A shard ends before it has more bytes.
    pub shard_bytes: u64,
    /// What makes files a sample; `None`: as the data set has it, else by stem.
    pub grouping: Option<Grouping>,
    /// Shuffles samples.
    pub seed: Option<u64>,
    pub threads: usize,
    pub memory_bytes: u64,
    /// Where lists of files go that memory does not hold.
    pub work_dir: PathBuf,
    pub mode: Mode,
    /// Read back every byte before the version is made.
    pub verify: bool,
    /// Delete what was packed from the source, after reading it back.
    pub delete_source: bool,
}

impl Options {
    /// Errors: `Invalid` names what cannot be.
    pub fn check(&self) -> Result<()> {
        let invalid = |why: String| Err(Error::new(Kind::Invalid, why));
        if !(SHARD_BYTES_MIN..=SHARD_BYTES_MAX).contains(&self.shard_bytes) {
            return invalid(format!(
                "shards of {} bytes cannot be: choose 64 KiB to 1 TiB",
                self.shard_bytes
            ));
        }
        if !(1..=1024).contains(&self.threads) {
            return invalid(format!("{} threads cannot be: choose 1 to 1,024", self.threads));
        }
        if self.memory_bytes < MEMORY_BYTES_MIN {
            return invalid("a pack needs 64 MiB of memory at least".to_owned());
        }
        Ok(())
    }
}
