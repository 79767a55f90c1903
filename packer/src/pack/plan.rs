//! What goes into which shard. Decided from names, sizes and options alone, before any file is opened, and so the same however many
//! threads pack, and after a kill.
//!
//! Entries come in their order and are written to one unnamed file, the plan; of each shard only a few numbers stay in memory. A shard
//! ends before the sample with which its tar would have more than the wanted bytes. A sample never spans two shards; one that is
//! larger than a shard is wanted has one of its own. Directories go into the shard of the sample that follows them, so that none has
//! nothing else as long as there are files.

mod entries;
mod filling;
mod header;
mod known;
mod planner;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use granary_core::{Error, Kind, Result};

use super::entry;
use super::sort::Sorted;
use crate::limits::SHARD_FILES_MAX;
use crate::tar;
use crate::trailer::TRAILER_BYTES;
use known::{There, Verdict, verdict};
use planner::Planner;

pub use entries::Entries;
pub use header::{encode_header, tar_bytes};

/// Bytes of the plan read at once.
const BUFFER_BYTES: usize = 256 << 10;
/// Bytes behind a shard's last payload.
pub const TAIL_BYTES: u64 = tar::END.len() as u64 + TRAILER_BYTES as u64;
/// An importer's own bytes and links count here too, so that no shard's index comes near its bounds.
const ENTRIES_MAX: u32 = SHARD_FILES_MAX / 2;

/// What is done with a file that the data set has already, when nothing says that it is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// It is an error.
    Refuse,
    /// The one that was there is deleted, the new one packed.
    Replace,
}

/// One shard of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardPlan {
    /// Where in the plan its entries begin.
    pub at: u64,
    pub entries: u32,
    /// Bytes of its tar, with end and trailer.
    pub bytes: u64,
    /// Bytes of its files.
    pub payload_bytes: u64,
}

/// What a pack will do.
#[derive(Debug)]
pub struct Plan {
    file: Arc<File>,
    pub shards: Vec<ShardPlan>,
    pub entries: u64,
    pub links: u64,
    pub directories: u64,
    pub payload_bytes: u64,
    /// Of all that decides what the shards hold.
    pub fingerprint: [u8; 16],
    /// Files that the data set has as they are: not packed again.
    pub unchanged: u64,
    /// Directories of the same kind.
    pub unchanged_directories: u64,
    /// Where the entries of both begin, behind those of the shards: of each, what the data set has and what the source has.
    unchanged_at: u64,
    /// Shard and file of what is replaced.
    pub replaced: Vec<(u32, u32)>,
}

/// How a plan is made.
#[derive(Clone, Copy, Debug)]
pub struct PlanOptions {
    pub shard_bytes: u64,
    pub known: Known,
}

impl Plan {
    /// `known`: what the data set has, in the same order; of each entry the content is the range `{shard, file}`.
    ///
    /// Errors: `Exists` names a path that comes twice, or that the data set has with other content and is not to be replaced;
    /// `FileTooLarge` for a sample that no shard can hold; what the work directory's disk says.
    pub fn make(dir: &Path, mut sorted: Sorted, known: Option<Sorted>, options: PlanOptions) -> Result<Plan> {
        let mut planner = Planner::new(dir, options.shard_bytes)?;
        let mut known = There::new(known);
        let mut last: Vec<u8> = Vec::new();
        while let Some(record) = sorted.next_record()? {
            let (key, entry) = entry::decode(record)?;
            if entry.path == last && !last.is_empty() {
                // Several tars may have one directory. They come behind what else has their path, the newest first.
                if entry.is_directory() {
                    continue;
                }
                return Err(Error::new(
                    Kind::Exists,
                    format!(
                        "{:?} comes twice in the source; rename one of the two",
                        String::from_utf8_lossy(&entry.path)
                    ),
                ));
            }
            last.clone_from(&entry.path);
            if let Some(there) = known.find(record)? {
                let (_, old) = entry::decode(there)?;
                match verdict(&entry, &old, options.known)? {
                    Verdict::New => {}
                    Verdict::Hidden => continue,
                    Verdict::Unchanged => {
                        planner.keep(there, record, old.is_directory())?;
                        continue;
                    }
                    Verdict::Replaces(shard, file) => planner.plan.replaced.push((shard, file)),
                }
            }
            planner.add(record, key, &entry)?;
        }
        planner.finish()
    }

    fn empty(dir: &Path) -> Result<Plan> {
        Ok(Plan {
            file: Arc::new(tempfile::tempfile_in(dir).map_err(|e| Error::io("cannot write the plan", e))?),
            shards: Vec::new(),
            entries: 0,
            links: 0,
            directories: 0,
            payload_bytes: 0,
            fingerprint: [0; 16],
            unchanged: 0,
            unchanged_directories: 0,
            unchanged_at: 0,
            replaced: Vec::new(),
        })
    }

    /// The entries of a shard, in its order.
    pub fn entries_of(&self, shard: &ShardPlan) -> Entries {
        self.entries_at(shard.at, u64::from(shard.entries))
    }

    /// The entries of unchanged files and directories, two of each: as the data set has it, its content the range `{shard, file}`,
    /// and as the source has it.
    pub fn unchanged_entries(&self) -> Entries {
        self.entries_at(self.unchanged_at, 2 * (self.unchanged + self.unchanged_directories))
    }

    fn entries_at(&self, at: u64, left: u64) -> Entries {
        Entries::new(self.file.clone(), at, left)
    }
}
