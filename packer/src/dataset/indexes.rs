//! The indexes that are open, within a bound.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use granary_core::{Error, Kind, Result};
use tokio::sync::OnceCell;

use super::{Options, fetch};
use crate::index::{Index, Resident};
use crate::manifest::Shard;
use crate::place::Place;

/// Each is a mapping, and Linux allows a process 65,530.
const OPEN_MAX: usize = 16 << 10;

#[derive(Debug)]
pub struct Indexes {
    options: Options,
    resident: Arc<Resident>,
    /// Guards the table only: an index is got outside of it.
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    of: HashMap<u32, (Arc<OnceCell<Index>>, u64, u64)>,
    bytes: u64,
    /// Counts uses: the smallest is the oldest.
    uses: u64,
}

impl Indexes {
    pub fn new(options: Options) -> Indexes {
        let resident = Resident::new(options.index_resident_bytes_max);
        Indexes { options, resident, open: Mutex::default() }
    }

    /// One fetch, however many ask.
    pub async fn get(&self, place: &Place, number: u32, shard: &Shard) -> Result<Index> {
        let cell = self.cell(number, shard);
        let index = cell
            .get_or_try_init(|| async {
                if let Some(index) = self.on_disk(place, shard)? {
                    return Ok(index);
                }
                let folder = self.options.index_folder.as_deref();
                fetch::index(place, shard, folder, &self.resident).await
            })
            .await?;
        Ok(index.clone())
    }

    pub fn get_now(&self, place: &Place, number: u32, shard: &Shard) -> Result<Option<Index>> {
        let cell = self.cell(number, shard);
        if let Some(index) = cell.get() {
            return Ok(Some(index.clone()));
        }
        let index = self.on_disk(place, shard)?;
        if let Some(index) = &index {
            // Somebody else may have set it meanwhile, to the same.
            let _ = cell.set(index.clone());
        }
        Ok(index)
    }

    fn on_disk(&self, place: &Place, shard: &Shard) -> Result<Option<Index>> {
        if place.folder().is_some() {
            let path = place.local_path(&shard.index_path()).ok_or_else(|| {
                Error::new(Kind::Corrupt, format!("{place}: a shard cannot be called {:?}", shard.path))
            })?;
            let name = path.display().to_string();
            let index = Index::open_within(&path, &self.resident)?;
            return checked(index, shard).map(Some).map_err(|e| e.context(name));
        }
        let Some(folder) = &self.options.index_folder else { return Ok(None) };
        // A damaged one, or none, is fetched again.
        let path = folder.join(index_file_name(shard));
        Ok(Index::open_within(&path, &self.resident).and_then(|index| checked(index, shard)).ok())
    }

    fn cell(&self, number: u32, shard: &Shard) -> Arc<OnceCell<Index>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.uses += 1;
        let now = open.uses;
        if let Some((cell, used, _)) = open.of.get_mut(&number) {
            *used = now;
            return cell.clone();
        }
        while !open.of.is_empty()
            && (open.of.len() >= OPEN_MAX || open.bytes + shard.index_bytes > self.options.index_bytes_max)
        {
            let Some(oldest) = open.of.iter().min_by_key(|(_, (_, used, _))| *used).map(|(&n, _)| n) else {
                break;
            };
            if let Some((_, _, bytes)) = open.of.remove(&oldest) {
                open.bytes -= bytes;
            }
        }
        let cell = Arc::new(OnceCell::new());
        open.bytes += shard.index_bytes;
        open.of.insert(number, (cell.clone(), now, shard.index_bytes));
        cell
    }
}

/// The index is the one that the manifest names.
pub(super) fn checked(index: Index, shard: &Shard) -> Result<Index> {
    if index.crc32c() == shard.index_crc32c
        && index.bytes() == shard.index_bytes
        && index.shard_bytes() == shard.bytes
        && (index.file_count(), index.sample_count()) == (shard.files, shard.samples)
    {
        return Ok(index);
    }
    Err(Error::new(
        Kind::Corrupt,
        format!(
            "it is not the index of {} in this version of the data set; `granary verify` tells more, and \
             `granary index` makes it anew",
            shard.path
        ),
    ))
}

/// What an index is called in a folder of indexes.
pub fn index_file_name(shard: &Shard) -> String {
    format!("{:08x}-{}-{}.gidx", shard.index_crc32c, shard.index_bytes, shard.bytes)
}
