//! Deleting from a data set: the next version counts files among the dead, and no shard is written.

use std::collections::BTreeSet;

use granary_core::{Error, Kind, Result};
use tokio::runtime::Handle;

use crate::dataset::{self, DataSet};
use crate::index::Index;
use crate::manifest::{self, Shard};
use crate::pack::dead::bury;
use crate::place::Place;

/// What was deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    /// The version without it.
    pub version: u64,
    pub files: u64,
    pub samples: u64,
    /// Of the deleted files.
    pub bytes: u64,
}

/// Deletes files, whole samples by their keys, and folders with all below them. The versions that are there stay as they are.
///
/// Errors: `NotFound` names a path that the latest version does not have, and nothing was deleted; `Exists` when somebody else made a
/// version meanwhile; what the place says. Blocks: not for a thread of the runtime.
pub fn delete(place: &Place, paths: &[Vec<u8>], runtime: &Handle) -> Result<Deleted> {
    let Some(latest) = runtime.block_on(manifest::latest(place))? else {
        return Err(Error::new(Kind::NotFound, format!("{place} holds no data set")));
    };
    let data = DataSet::of_manifest(place.clone(), latest.clone(), dataset::Options::default());
    let mut shards = latest.shards().to_vec();
    let mut found = vec![false; paths.len()];
    let mut deleted = Deleted { version: latest.version(), ..Deleted::default() };
    for (number, shard) in shards.iter_mut().enumerate() {
        let index = runtime.block_on(data.index(number as u32))?;
        let mut files = BTreeSet::new();
        for (path, found) in paths.iter().zip(&mut found) {
            let of = matching(&index, shard, path)?;
            *found |= !of.is_empty();
            files.extend(of);
        }
        for &file in &files {
            deleted.bytes += index.file(file)?.length;
        }
        deleted.files += files.len() as u64;
        let before = shard.dead_samples.count();
        bury(shard, &index, files.into_iter().collect())?;
        deleted.samples += u64::from(shard.dead_samples.count() - before);
    }
    if let Some((path, _)) = paths.iter().zip(&found).find(|(_, found)| !**found) {
        return Err(Error::new(
            Kind::NotFound,
            format!(
                "{:?} is no file, sample or folder of {place}, version {}; nothing was deleted",
                String::from_utf8_lossy(path),
                latest.version()
            ),
        ));
    }
    if deleted.files > 0 {
        let next = latest.next("delete", shards)?;
        runtime.block_on(manifest::write(place, &next))?;
        deleted.version = next.version();
    }
    Ok(deleted)
}

/// Living files of a shard that a path names: the file, those of the sample with this key, those below this folder.
fn matching(index: &Index, shard: &Shard, path: &[u8]) -> Result<Vec<u32>> {
    let path = path.strip_suffix(b"/").unwrap_or(path);
    let mut files = Vec::new();
    // All of them begin with the path, and are neighbours in the sorted order.
    for place in index.lower_bound(path)?..index.file_count() {
        let number = index.sorted(place)?;
        let file = index.file(number)?;
        let Some(rest) = file.path.strip_prefix(path) else { break };
        let named = matches!(rest.first(), None | Some(b'/')) || index.grouping().split(file.path).0 == path;
        if named && !shard.dead_files.contains(number) {
            files.push(number);
        }
    }
    Ok(files)
}
