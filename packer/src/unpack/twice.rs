//! Whether two shards have a file of one path: all sorted orders are gone through side by side.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use granary_core::{Error, Kind, Result};
use tokio::runtime::Handle;

use crate::dataset::DataSet;
use crate::index::Index;

/// Each index is a mapping, and Linux allows a process 65,530.
const SHARDS_MAX: usize = 30_000;

/// Errors: `Exists` names path and shards; `Invalid` when there are too many shards to know.
pub fn refuse(data: &DataSet, runtime: &Handle) -> Result<()> {
    let shards = data.manifest().shards();
    if shards.len() < 2 {
        return Ok(());
    }
    if shards.len() > SHARDS_MAX {
        return Err(Error::new(
            Kind::Invalid,
            format!("{} shards are too many for one tree; unpack with --by-shard", shards.len()),
        ));
    }
    let indexes: Vec<Index> =
        (0..shards.len() as u32).map(|n| runtime.block_on(data.index(n))).collect::<Result<_>>()?;
    // The next living path of a shard at or behind a place in its sorted order.
    let next = |shard: usize, mut place: u32| -> Result<Option<(&[u8], u32)>> {
        while place < indexes[shard].file_count() {
            let file = indexes[shard].sorted(place)?;
            if !shards[shard].dead_files.contains(file) {
                return Ok(Some((indexes[shard].file(file)?.path, place)));
            }
            place += 1;
        }
        Ok(None)
    };
    let mut heap = BinaryHeap::new();
    for shard in 0..indexes.len() {
        if let Some((path, place)) = next(shard, 0)? {
            heap.push(Reverse((path, shard, place)));
        }
    }
    let mut before: Option<(&[u8], usize)> = None;
    while let Some(Reverse((path, shard, place))) = heap.pop() {
        if let Some((_, first)) = before.filter(|&(before, _)| before == path) {
            return Err(Error::new(
                Kind::Exists,
                format!(
                    "{:?} is in {} and in {}, and can be in one tree once; unpack with --by-shard",
                    String::from_utf8_lossy(path),
                    shards[first].path,
                    shards[shard].path
                ),
            ));
        }
        before = Some((path, shard));
        if let Some((path, place)) = next(shard, place + 1)? {
            heap.push(Reverse((path, shard, place)));
        }
    }
    Ok(())
}
