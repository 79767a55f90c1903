//! Bringing an index from a bucket. A small one stays in memory; a large one, or any when there is a folder for them, goes piece by piece to a file,
//! and is mapped: the kernel has it in memory as far as it is used, and as long as there is room.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use granary_core::{Error, Kind, Result};

use super::indexes::{checked, index_file_name};
use crate::index::Index;
use crate::limits::{INDEX_BYTES_MAX, INDEX_MEMORY_BYTES_MAX};
use crate::manifest::Shard;
use crate::place::Place;

const PIECE_BYTES: u64 = 8 << 20;

/// Why an index did not come.
#[derive(Debug)]
pub enum Failed {
    /// This machine's disk did not take it.
    Disk(Error),
    Other(Error),
}

impl From<Error> for Failed {
    fn from(e: Error) -> Failed {
        Failed::Other(e)
    }
}

/// The index of a shard, verified; in `folder`, or in an unnamed file where temporary files are, or in memory.
pub async fn index(place: &Place, shard: &Shard, folder: Option<&Path>) -> Result<Index, Failed> {
    check_bytes(place, shard)?;
    match folder {
        None if shard.index_bytes <= INDEX_MEMORY_BYTES_MAX => Ok(into_memory(place, shard).await?),
        None => {
            let dir = std::env::temp_dir();
            let mut file = tempfile::tempfile_in(&dir).map_err(|e| cannot(&dir, e))?;
            copy(place, shard, &mut file, &dir).await?;
            Ok(verified(place, shard, Index::of_file(&file))?)
        }
        Some(folder) => {
            std::fs::create_dir_all(folder).map_err(|e| cannot(folder, e))?;
            let file = tempfile::Builder::new().prefix("new-").tempfile_in(folder);
            let mut file = file.map_err(|e| cannot(folder, e))?;
            copy(place, shard, file.as_file_mut(), folder).await?;
            let index = verified(place, shard, Index::of_file(file.as_file()))?;
            file.persist(folder.join(index_file_name(shard))).map_err(|e| cannot(folder, e.error))?;
            Ok(index)
        }
    }
}

/// The same, in memory whatever its length.
pub async fn into_memory(place: &Place, shard: &Shard) -> Result<Index> {
    check_bytes(place, shard)?;
    let bytes = place.get(&shard.index_path(), 0..shard.index_bytes).await?;
    verified(place, shard, Index::from_bytes(bytes))
}

fn check_bytes(place: &Place, shard: &Shard) -> Result<()> {
    if shard.index_bytes <= INDEX_BYTES_MAX {
        return Ok(());
    }
    Err(Error::new(Kind::Corrupt, format!("{place}/{} is impossibly large", shard.index_path())))
}

fn verified(place: &Place, shard: &Shard, index: Result<Index>) -> Result<Index> {
    index
        .and_then(|index| checked(index, shard))
        .and_then(|index| index.verify().map(|()| index))
        .map_err(|e| e.context(format_args!("{place}/{}", shard.index_path())))
}

async fn copy(place: &Place, shard: &Shard, to: &mut File, folder: &Path) -> Result<(), Failed> {
    let name = shard.index_path();
    let mut at = 0;
    while at < shard.index_bytes {
        let end = shard.index_bytes.min(at + PIECE_BYTES);
        let piece = place.get(&name, at..end).await?;
        to.write_all(&piece).map_err(|e| cannot(folder, e))?;
        at = end;
    }
    Ok(())
}

fn cannot(folder: &Path, e: std::io::Error) -> Failed {
    Failed::Disk(Error::io(format!("cannot keep an index in {}", folder.display()), e))
}
