//! An open data set: one version of it, and the indexes of its shards, got when they are first asked for.
//!
//! A folder's indexes are mapped. A bucket's are fetched whole and checked against the manifest; large ones go to unnamed files, and all of
//! them, with a folder for them, to where other processes of the machine find them too.

mod fetch;
mod indexes;
mod keeping;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use granary_core::{Error, Kind, Result};

use crate::index::Index;
use crate::limits::INDEX_RESIDENT_BYTES_MAX;
use crate::manifest::{self, Manifest, Shard};
use crate::place::Place;
use indexes::Indexes;
pub use indexes::index_file_name;

/// How indexes of a bucket are kept.
#[derive(Clone, Debug)]
pub struct Options {
    /// A folder where fetched indexes are kept, named by what they are; it may be shared, and emptied at any time.
    pub index_folder: Option<PathBuf>,
    /// Bytes of indexes that are kept open; the one that was not used for longest leaves.
    pub index_bytes_max: u64,
    /// Bytes of those that are mapped and resident at once.
    pub index_resident_bytes_max: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            index_folder: None,
            index_bytes_max: 1 << 30,
            index_resident_bytes_max: INDEX_RESIDENT_BYTES_MAX,
        }
    }
}

/// One version of a data set. Clones share it.
#[derive(Clone, Debug)]
pub struct DataSet {
    place: Place,
    manifest: Arc<Manifest>,
    indexes: Arc<Indexes>,
}

impl DataSet {
    /// Opens a version, or the latest.
    ///
    /// Errors: `NotFound` when there is no such version, or no data set; `Corrupt`; what the store says.
    pub async fn open(place: Place, version: Option<u64>) -> Result<DataSet> {
        DataSet::open_with(place, version, Options::default()).await
    }

    /// The same, with other options.
    pub async fn open_with(place: Place, version: Option<u64>, options: Options) -> Result<DataSet> {
        let manifest = match version {
            Some(version) => manifest::read(&place, version).await?,
            None => manifest::latest(&place).await?.ok_or_else(|| {
                Error::new(
                    Kind::NotFound,
                    format!(
                        "{place} holds no data set; make one with `granary pack`, or of tars that are there with \
                         `granary index`"
                    ),
                )
            })?,
        };
        Ok(DataSet::of_manifest(place, manifest, options))
    }

    /// Of a manifest that one has.
    pub fn of_manifest(place: Place, manifest: Manifest, options: Options) -> DataSet {
        DataSet { place, manifest: Arc::new(manifest), indexes: Arc::new(Indexes::new(options)) }
    }

    pub fn place(&self) -> &Place {
        &self.place
    }

    pub fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }

    /// Errors: `Invalid` when there is no such shard.
    pub fn shard(&self, shard: u32) -> Result<&Shard> {
        self.manifest.shards().get(shard as usize).ok_or_else(|| {
            Error::new(
                Kind::Invalid,
                format!("{} has no shard {shard}: it has {}", self.place, self.manifest.shards().len()),
            )
        })
    }

    /// The index of a shard.
    ///
    /// Errors: `NotFound`; `Corrupt` when it is damaged, or not the one the manifest names; what the store says.
    pub async fn index(&self, shard: u32) -> Result<Index> {
        let of = self.shard(shard)?;
        self.indexes.get(&self.place, shard, of).await
    }

    /// The same without waiting for anything but the disk; `None` in a bucket, when the index is not on this machine.
    ///
    /// Errors: as [`DataSet::index`].
    pub fn index_now(&self, shard: u32) -> Result<Option<Index>> {
        let of = self.shard(shard)?;
        self.indexes.get_now(&self.place, shard, of)
    }

    /// Numbers of the files of a sample that were not deleted: at least one when the sample lives.
    ///
    /// Errors: as [`Index::sample`].
    pub fn live_files(&self, shard: u32, index: &Index, sample: u32) -> Result<Vec<u32>> {
        let dead = &self.shard(shard)?.dead_files;
        Ok(index.sample(sample)?.filter(|&file| !dead.contains(file)).collect())
    }

    /// Shard and number of the file with this path. With the same path in several shards, in the last.
    ///
    /// Errors: as [`DataSet::index`].
    pub async fn find(&self, path: &[u8]) -> Result<Option<(u32, u32)>> {
        for (number, shard) in self.manifest.shards().iter().enumerate().rev() {
            let number = number as u32;
            let file = self.index(number).await?.find(path)?;
            if let Some(file) = file.filter(|&file| !shard.dead_files.contains(file)) {
                return Ok(Some((number, file)));
            }
        }
        Ok(None)
    }
}
