//! Bringing an index from a bucket. A small one stays in memory; a large one, or any when there is a folder for them, goes piece by piece to a file
//! ([`Keeping`]), and is mapped: the kernel has it in memory as far as it is used, and as long as there is room.

use std::path::Path;
use std::sync::Arc;

use granary_core::{Error, Kind, Result};

use super::indexes::checked;
use super::keeping::Keeping;
use crate::index::{Index, Resident};
use crate::limits::{INDEX_BYTES_MAX, INDEX_MEMORY_BYTES_MAX};
use crate::manifest::Shard;
use crate::place::Place;

const PIECE_BYTES: u64 = 8 << 20;

/// The index of a shard, verified; in `folder`, or in an unnamed file where temporary files are. In memory when it is small and there is no folder,
/// and when this machine's disk does not take it.
///
/// Errors: `Corrupt`; what the store says.
pub async fn index(
    place: &Place,
    shard: &Shard,
    folder: Option<&Path>,
    within: &Arc<Resident>,
) -> Result<Index> {
    let name = shard.index_path();
    if shard.index_bytes > INDEX_BYTES_MAX {
        return Err(Error::new(Kind::Corrupt, format!("{place}/{name} is impossibly large")));
    }
    let mut keeping = match folder {
        None if shard.index_bytes <= INDEX_MEMORY_BYTES_MAX => Keeping::in_memory(),
        None => Keeping::unnamed(&std::env::temp_dir()),
        Some(folder) => Keeping::in_folder(folder),
    };
    // From the beginning again where the disk lost what it took.
    while keeping.len() < shard.index_bytes {
        let from = keeping.len();
        let piece = place.get(&name, from..shard.index_bytes.min(from + PIECE_BYTES)).await?;
        keeping.add(&piece);
    }
    let index = keeping.index(within);
    let index = index
        .and_then(|index| checked(index, shard))
        .and_then(|index| index.verify().map(|()| index))
        .map_err(|e| e.context(format_args!("{place}/{name}")))?;
    keeping.keep(shard);
    Ok(index)
}
