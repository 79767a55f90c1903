//! A data set back into a tree of files.
//!
//! A file is written beside, with its mode and time, and renamed when its bytes are all there and match their checksum; so what has
//! its name is whole, and a file that is there with the length and the time of the shard's is kept. That makes what was stopped go
//! on where it was. What was there under the same name with another length or time is replaced. Before success is told, all of it is
//! on the disk.
//!
//! Nothing is written outside of the destination, whatever the shard says: paths that are absolute or hold `..` are refused; every
//! directory is opened without following links; links are made after all files, and those that lead out of the destination, devices
//! and pipes are left out, and told.

mod path;
#[cfg(test)]
mod tests;
mod tree;
mod twice;
mod worker;

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use granary_core::{Error, Kind, Result};
use serde::Serialize;
use tokio::runtime::Handle;

use crate::counts::{Counts, Told};
use crate::dataset::DataSet;
use tree::Tree;
use worker::{Cursor, Worker};

/// How a data set is unpacked.
#[derive(Clone, Debug)]
pub struct Options {
    /// Each shard into a folder of its own, named as it is.
    pub by_shard: bool,
    /// Set user and group, and the set-user-id bits: wants root.
    pub owners: bool,
    /// What is damaged is left out and told, instead of ending the work.
    pub skip_errors: bool,
    pub threads: usize,
}

/// What was done.
#[derive(Debug, Serialize)]
pub struct Report {
    pub version: u64,
    /// Files that are there now, those that were there before among them.
    pub files: u64,
    pub kept: u64,
    pub bytes: u64,
    pub directories: u64,
    pub links: u64,
    /// Requests that were sent again, because an attempt had failed.
    pub retries: u64,
    /// How much was left out, and the first thousand messages.
    pub left_out: u64,
    pub messages: Vec<String>,
}

/// What all threads share.
struct Work<'a> {
    data: &'a DataSet,
    tree: Tree,
    options: &'a Options,
    runtime: &'a Handle,
    counts: &'a Counts,
    told: Told,
    kept: AtomicU64,
    files: AtomicU64,
    bytes: AtomicU64,
    stop: AtomicBool,
}

/// Unpacks all living files. Waits: not for a thread of the runtime.
///
/// Errors: `Exists` when a path is in two shards; `Corrupt` names shard, offset and path; `Invalid` for a path that leads out of the
/// destination; what disk and store say.
pub fn unpack(
    data: &DataSet,
    to: &Path,
    options: &Options,
    runtime: &Handle,
    counts: &Counts,
) -> Result<Report> {
    let retries = data.place().retries();
    if !options.by_shard {
        twice::refuse(data, runtime)?;
    }
    counts.expect(data.manifest().file_count(), 0);
    let work = Work {
        data,
        tree: Tree::create(to)?,
        options,
        runtime,
        counts,
        told: Told::default(),
        kept: AtomicU64::new(0),
        files: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    };
    // Guards where the next files are; held to take some.
    let cursor = Mutex::new(Cursor::default());
    std::thread::scope(|scope| {
        let run = || {
            let result = Worker::new(&work, &cursor).run();
            if result.is_err() {
                work.stop.store(true, Ordering::Relaxed);
            }
            result
        };
        let workers: Vec<_> = (0..options.threads.max(1)).map(|_| scope.spawn(run)).collect();
        let join = |w: std::thread::ScopedJoinHandle<'_, Result<()>>| {
            w.join().unwrap_or_else(|_| Err(Error::new(Kind::Bug, "a thread that unpacked ended early")))
        };
        // All are waited for; the first error is told.
        let results: Vec<_> = workers.into_iter().map(join).collect();
        results.into_iter().collect::<Result<()>>()
    })?;
    let (directories, links) = work.others()?;
    work.tree.finish()?;
    let (left_out, messages) = work.told.into_parts();
    Ok(Report {
        version: data.manifest().version(),
        files: work.files.into_inner(),
        kept: work.kept.into_inner(),
        bytes: work.bytes.into_inner(),
        directories,
        links,
        retries: data.place().retries() - retries,
        left_out,
        messages,
    })
}

impl Work<'_> {
    /// Where in the destination a path of a shard goes.
    fn place(&self, shard: u32, path: &[u8]) -> Result<Vec<u8>> {
        path::check(path)?;
        if !self.options.by_shard {
            return Ok(path.to_vec());
        }
        let of = &self.data.shard(shard)?.path;
        let folder = of.strip_suffix(".tar").unwrap_or(of);
        Ok([folder.as_bytes(), b"/", path].concat())
    }

    /// What is wrong with one entry ends the work, or is told.
    fn allow<T>(&self, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(e)
                if self.options.skip_errors
                    && matches!(e.kind(), Kind::Corrupt | Kind::Invalid | Kind::NotDirectory) =>
            {
                self.told.tell(format!("{e}; it is left out"));
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    /// Whether a directory has files, and all of them were deleted: then it was too.
    fn is_deleted(&self, shard: u32, path: &[u8]) -> Result<bool> {
        let below = [path, b"/"].concat();
        let all = self.data.manifest().shards();
        let shards = match self.options.by_shard {
            true => shard..shard + 1,
            false => 0..all.len() as u32,
        };
        // Most have nothing dead: they are asked only when something below it is.
        let (some_dead, none_dead): (Vec<u32>, Vec<u32>) =
            shards.partition(|&n| !all[n as usize].dead_files.is_empty());
        let mut found = false;
        for n in some_dead {
            let (index, dead) = (self.runtime.block_on(self.data.index(n))?, &all[n as usize].dead_files);
            for place in index.lower_bound(&below)?..index.file_count() {
                let file = index.sorted(place)?;
                if !index.path(file)?.starts_with(&below) {
                    break;
                }
                if !dead.contains(file) {
                    return Ok(false);
                }
                found = true;
            }
        }
        if !found {
            return Ok(false);
        }
        for n in none_dead {
            let index = self.runtime.block_on(self.data.index(n))?;
            let place = index.lower_bound(&below)?;
            if place < index.file_count() && index.path(index.sorted(place)?)?.starts_with(&below) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Directories and links, when all files are there. Attributes of directories come last, the deepest first: a directory may
    /// be one that nobody writes to.
    fn others(&self) -> Result<(u64, u64)> {
        let (mut directories, mut links) = (0, 0);
        let shards = self.data.manifest().shards().len() as u32;
        for shard in 0..shards {
            let index = self.runtime.block_on(self.data.index(shard))?;
            for other in 0..index.other_count() {
                let other = index.other(other)?;
                let Some(path) = self.allow(self.place(shard, other.path))? else { continue };
                if other.kind == b'5' && self.is_deleted(shard, other.path)? {
                    continue;
                }
                let made = match other.kind {
                    b'5' => self.tree.directory(&path).map(|()| directories += 1),
                    b'2' if path::stays_inside(&path, other.target) => {
                        self.tree.symlink(&path, other.target).map(|()| links += 1)
                    }
                    b'1' => self
                        .place(shard, other.target)
                        .and_then(|target| self.tree.hard_link(&path, &target))
                        .map(|()| links += 1),
                    kind => {
                        let what =
                            if kind == b'2' { "a link that leads out of it" } else { "a device or a pipe" };
                        self.told
                            .tell(format!("{:?} is left out: it is {what}", String::from_utf8_lossy(&path)));
                        Ok(())
                    }
                };
                self.allow(made)?;
            }
        }
        for shard in 0..shards {
            let index = self.runtime.block_on(self.data.index(shard))?;
            let all = (0..index.other_count()).map(|n| index.other(n)).collect::<Result<Vec<_>>>()?;
            let mut all: Vec<_> = all.into_iter().filter(|other| other.kind == b'5').collect();
            all.sort_by(|a, b| b.path.cmp(a.path));
            for other in all {
                let Some(path) = self.allow(self.place(shard, other.path))? else { continue };
                if self.is_deleted(shard, other.path)? {
                    continue;
                }
                let attributes = tree::Attributes {
                    mode: other.mode,
                    mtime: other.mtime,
                    owner: self.options.owners.then_some((other.uid, other.gid)),
                };
                self.allow(self.tree.set_directory(&path, &attributes))?;
            }
        }
        Ok((directories, links))
    }
}
