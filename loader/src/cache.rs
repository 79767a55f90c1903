//! A disk cache for what comes from a bucket: a folder on the node, shared by all loaders of the node, kept from epoch to epoch and job to job.
//!
//! | module | what it is |
//! |---|---|
//! | `chunk` | the format of one file |
//! | `disk` | the folder: reading, keeping, listing, locks |
//! | `evict` | what leaves: a policy without I/O |
//! | `oracle` | when a chunk is wanted next |
//! | `cached` | ranges, from the folder or else from the store |
//!
//! Shards are kept in aligned chunks of [`CHUNK_BYTES`]:
//!
//! ```text
//! folder/<data set, 32 digits>-<index checksum, 8 digits>-<bytes of the shard>/00000012.chunk      (hexadecimal; the chunk's number)
//! folder/<the same>/lock                                                                        locked while chunks are fetched
//! folder/evict.lock                                                                             locked while chunks are removed
//! ```
//!
//! A file has its name only when it is whole. Its checksum is verified when it is read; a damaged one is removed and fetched again. Who fetches
//! a chunk locks the byte of its number in the shard's `lock`, so that processes of a node fetch each chunk once.
//!
//! What leaves first is what the order wants last (L. A. Belady, "A study of replacement algorithms for a virtual-storage computer", 1966): the
//! order is known, so the next use of a chunk is computed, not guessed. What is wanted later than all that is kept is not kept at all. So of a
//! data set twice as large as the cache half is found each epoch, where an LRU finds nothing. Chunks of data sets that this loader does not
//! read leave first, the oldest before others.
//!
//! Any file may be removed at any time. The bound holds within a sixteenth for each process.

mod cached;
mod chunk;
mod disk;
mod evict;
mod oracle;

use std::path::PathBuf;

use granary_packer::manifest::{Manifest, Shard};
use serde::{Deserialize, Serialize};

use granary_core::{Error, Kind, Result};

pub(crate) use cached::{Cache, Cached};
pub(crate) use disk::Disk;
pub(crate) use oracle::Oracle;

/// The unit that is kept; a shard's last may be shorter.
pub const CHUNK_BYTES: u64 = 1 << 20;

/// Plain values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheOptions {
    /// Made if it is missing. Loaders of the node that have the same share it.
    pub folder: PathBuf,
    pub bytes_max: u64,
}

impl CacheOptions {
    /// Errors: `Invalid` names the bound.
    pub fn check(&self) -> Result<()> {
        if self.bytes_max >= 64 * CHUNK_BYTES {
            return Ok(());
        }
        Err(Error::new(
            Kind::Invalid,
            format!("a cache of {} bytes is too small; give {} or more", self.bytes_max, 64 * CHUNK_BYTES),
        ))
    }
}

/// The folder of a shard's chunks: another shard, or the same packed anew, has another.
pub(crate) fn shard_folder(data_set: &[u8; 16], shard: &Shard) -> String {
    let id: String = data_set.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{id}-{:08x}-{:x}", shard.index_crc32c, shard.bytes)
}

/// Bytes of a data set's shards that a cache has; each file's length is believed.
///
/// Errors: what the disk says; a folder that is not there holds nothing.
pub fn held_bytes(options: &CacheOptions, manifest: &Manifest) -> Result<u64> {
    if !options.folder.exists() {
        return Ok(0);
    }
    let disk = Disk::open(&options.folder)?;
    let mut held = 0;
    for shard in manifest.shards() {
        held += disk.shard_bytes(&shard_folder(&manifest.data_set(), shard))?;
    }
    Ok(held)
}
