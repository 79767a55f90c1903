//! What a data set has already, in the order of a plan, so that one pass over both tells what is new.

use std::path::Path;

use granary_core::Result;
use tokio::runtime::Handle;

use super::entry::{self, Content, Entry, Order};
use super::sort::{Sorted, Sorter, merge};
use crate::dataset::DataSet;

/// The living files and all links and directories of a version. A file's content is the range `{shard, number in the shard}`.
///
/// Errors: what the data set or the work directory's disk says.
pub fn sorted(
    data: &DataSet,
    order: Order,
    work_dir: &Path,
    memory_bytes: usize,
    runtime: &Handle,
) -> Result<Sorted> {
    let mut sorter = Sorter::new(work_dir, entry::compare_all, memory_bytes);
    for (number, shard) in (0u32..).zip(data.manifest().shards()) {
        let index = runtime.block_on(data.index(number))?;
        for file in 0..index.file_count() {
            if shard.dead_files.contains(file) {
                continue;
            }
            let of = index.file(file)?;
            let known = Entry {
                path: of.path.to_vec(),
                length: of.length,
                mtime: of.mtime,
                mtime_nanos: 0,
                mode: of.mode as u16,
                uid: of.uid,
                gid: of.gid,
                content: Content::Range { container: number, offset: u64::from(file) },
            };
            sorter.push(|out| order.encode(&known, out))?;
        }
        for other in 0..index.other_count() {
            let of = index.other(other)?;
            let content = match of.kind {
                b'2' => Content::Link(of.target.to_vec()),
                b'5' => Content::Directory,
                _ => continue,
            };
            let known = Entry {
                path: of.path.to_vec(),
                length: 0,
                mtime: of.mtime,
                mtime_nanos: 0,
                mode: of.mode as u16,
                uid: of.uid,
                gid: of.gid,
                content,
            };
            sorter.push(|out| order.encode(&known, out))?;
        }
    }
    merge(vec![sorter])
}
