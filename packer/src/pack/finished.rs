//! What a pack that was stopped has finished: shards whose index is whole, says exactly what the plan says, and is the one that the
//! tar's trailer names. Anything else is made again.

use granary_core::{Kind, Result};

use super::making::Common;
use super::plan::{self, Plan};
use crate::index::Index;
use crate::limits::INDEX_BYTES_MAX;
use crate::manifest::{Runs, Shard, index_path};
use crate::tar::padded;
use crate::trailer::{TRAILER_BYTES, Trailer};

/// The shard, if it is finished.
///
/// Errors: what the disk or the store says. What is damaged is not finished.
pub fn find(common: &Common<'_>, plan: &Plan, number: u32, name: &str) -> Result<Option<Shard>> {
    match look(common, plan, number, name) {
        Err(e) if matches!(e.kind(), Kind::NotFound | Kind::Corrupt | Kind::Unsupported | Kind::Invalid) => {
            Ok(None)
        }
        other => other,
    }
}

fn look(common: &Common<'_>, plan: &Plan, number: u32, name: &str) -> Result<Option<Shard>> {
    let Common { place, runtime, .. } = common;
    let planned = &plan.shards[number as usize];
    if runtime.block_on(place.head(name))?.size != planned.bytes {
        return Ok(None);
    }
    let tail_at = planned.bytes - TRAILER_BYTES as u64;
    let tail = runtime.block_on(place.get(name, tail_at..planned.bytes))?;
    let Some(trailer) = Trailer::parse_end(&tail, planned.bytes)? else { return Ok(None) };
    let index_name = index_path(name);
    let index = match place.local_path(&index_name) {
        Some(path) => Index::open(&path)?,
        None => Index::from_bytes(runtime.block_on(place.read_whole(&index_name, INDEX_BYTES_MAX))?)?,
    };
    index.verify()?;
    let is_its_own = (trailer.data_set, trailer.name.as_str(), trailer.number)
        == (common.data_set, name, number)
        && (trailer.index_crc32c, trailer.index_bytes) == (index.crc32c(), index.bytes())
        && index.shard_bytes() == planned.bytes
        && index.grouping() == common.grouping
        && index.framed_bytes().is_some();
    if !is_its_own || !says_the_same(plan, number, &index)? {
        return Ok(None);
    }
    Ok(Some(Shard {
        path: name.to_owned(),
        bytes: planned.bytes,
        files: index.file_count(),
        samples: index.sample_count(),
        index_bytes: index.bytes(),
        index_crc32c: index.crc32c(),
        dead_samples: Runs::default(),
        dead_files: Runs::default(),
    }))
}

/// Whether the index has just the planned entries, in their order and places.
fn says_the_same(plan: &Plan, number: u32, index: &Index) -> Result<bool> {
    let mut entries = plan.entries_of(&plan.shards[number as usize]);
    let (mut files, mut others, mut at) = (0, 0, 0);
    let mut scratch = Vec::new();
    while let Some(entry) = entries.next_entry()? {
        at += plan::tar_bytes(&entry, &mut scratch)?;
        let wanted = (u32::from(entry.mode), entry.mtime, entry.uid, entry.gid);
        if !entry.is_file() {
            if others == index.other_count() {
                return Ok(false);
            }
            let other = index.other(others)?;
            let got = (other.mode, other.mtime, other.uid, other.gid);
            if (other.path, other.target, other.kind, got)
                != (&entry.path[..], entry.target(), entry.kind(), wanted)
            {
                return Ok(false);
            }
            others += 1;
            continue;
        }
        if files == index.file_count() {
            return Ok(false);
        }
        let file = index.file(files)?;
        let got = (file.mode, file.mtime, file.uid, file.gid);
        let place = (file.offset, file.length);
        if (file.path, place, got) != (&entry.path[..], (at - padded(entry.length), entry.length), wanted) {
            return Ok(false);
        }
        files += 1;
    }
    Ok((files, others) == (index.file_count(), index.other_count()))
}
