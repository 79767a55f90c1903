//! One thread's part: it takes some neighbouring files, reads them with one request, and writes each.

use std::io::Write;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use granary_core::{Error, Kind, Result};

use super::Work;
use super::tree::{Attributes, Directory};
use crate::blocking::ShardBytes;
use crate::index::{File, Index};

/// What is taken at once: bytes of the tar, and files.
const TAKE_BYTES: u64 = 16 << 20;
const TAKE_FILES: u32 = 512;
/// Larger files are read in such parts.
const PART_BYTES: u64 = 8 << 20;

/// Where the next files are.
#[derive(Debug, Default)]
pub struct Cursor {
    shard: u32,
    file: u32,
    index: Option<Index>,
}

struct Taken {
    shard: u32,
    index: Index,
    files: Range<u32>,
}

pub struct Worker<'a> {
    work: &'a Work<'a>,
    cursor: &'a Mutex<Cursor>,
    shard: Option<(u32, ShardBytes)>,
    parent: Option<Directory>,
}

impl<'a> Worker<'a> {
    pub fn new(work: &'a Work<'a>, cursor: &'a Mutex<Cursor>) -> Worker<'a> {
        Worker { work, cursor, shard: None, parent: None }
    }

    pub fn run(mut self) -> Result<()> {
        while !self.work.stop.load(Ordering::Relaxed) {
            let Some(taken) = self.take()? else { return Ok(()) };
            self.unpack(&taken)?;
        }
        Ok(())
    }

    fn take(&self) -> Result<Option<Taken>> {
        let data = self.work.data;
        loop {
            // Without the lock: an index may have to be fetched. All threads that come meanwhile wait for one fetch.
            let wanted = {
                let cursor = self.cursor.lock().unwrap_or_else(PoisonError::into_inner);
                match &cursor.index {
                    Some(_) => None,
                    None => Some(cursor.shard),
                }
            };
            let index = match wanted {
                Some(shard) if shard as usize >= data.manifest().shards().len() => return Ok(None),
                Some(shard) => Some((shard, self.work.runtime.block_on(data.index(shard))?)),
                None => None,
            };
            let mut cursor = self.cursor.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((shard, index)) = index
                && cursor.shard == shard
                && cursor.index.is_none()
            {
                cursor.index = Some(index);
            }
            let Some(index) = cursor.index.clone() else { continue };
            if cursor.file >= index.file_count() {
                *cursor = Cursor { shard: cursor.shard + 1, ..Cursor::default() };
                continue;
            }
            let start = cursor.file;
            let begin = index.file(start)?.offset;
            let mut end = start + 1;
            while end < index.file_count() && end - start < TAKE_FILES {
                let file = index.file(end)?;
                if file.offset + file.length - begin > TAKE_BYTES {
                    break;
                }
                end += 1;
            }
            cursor.file = end;
            return Ok(Some(Taken { shard: cursor.shard, index, files: start..end }));
        }
    }

    fn unpack(&mut self, taken: &Taken) -> Result<()> {
        let work = self.work;
        let dead = &work.data.shard(taken.shard)?.dead_files;
        let mut wanted = Vec::new();
        for n in taken.files.clone().filter(|&n| !dead.contains(n)) {
            let file = taken.index.file(n)?;
            let path = work.allow(work.place(taken.shard, file.path))?;
            let Some(path) = path else { continue };
            let parent = work.tree.parent(&path, &mut self.parent);
            let Some(parent) = work.allow(parent)? else { continue };
            if work.tree.has(parent, &path, file.length, file.mtime) {
                work.kept.fetch_add(1, Ordering::Relaxed);
                work.files.fetch_add(1, Ordering::Relaxed);
                work.bytes.fetch_add(file.length, Ordering::Relaxed);
                work.counts.add(1, file.length);
                continue;
            }
            wanted.push((path, file));
        }
        let (Some((_, first)), Some((_, last))) = (wanted.first(), wanted.last()) else { return Ok(()) };
        let span = first.offset..last.offset + last.length;
        if self.shard.as_ref().is_none_or(|(number, _)| *number != taken.shard) {
            let path = &work.data.shard(taken.shard)?.path;
            self.shard = Some((taken.shard, ShardBytes::open(work.data.place(), path, work.runtime)?));
        }
        let Some((_, shard)) = &self.shard else { return Ok(()) };
        let whole = match span.end - span.start <= TAKE_BYTES {
            true => Some(shard.read(span.clone())?),
            false => None,
        };
        for (path, file) in &wanted {
            let ready = whole.as_ref().map(|bytes| {
                let at = (file.offset - span.start) as usize;
                bytes.slice(at..at + file.length as usize)
            });
            let written = write(work, shard, path, file, ready, &mut self.parent);
            if work.allow(written)?.is_some() {
                work.files.fetch_add(1, Ordering::Relaxed);
                work.bytes.fetch_add(file.length, Ordering::Relaxed);
            }
            work.counts.add(1, file.length);
        }
        Ok(())
    }
}

fn write(
    work: &Work<'_>,
    shard: &ShardBytes,
    path: &[u8],
    file: &File<'_>,
    ready: Option<Bytes>,
    last: &mut Option<Directory>,
) -> Result<()> {
    let mut writing = work.tree.begin(path)?;
    let written = (|| {
        let mut crc = 0;
        let mut at = 0;
        while at < file.length {
            let part = match &ready {
                Some(ready) => ready.clone(),
                None => {
                    let end = file.length.min(at + PART_BYTES);
                    shard.read(file.offset + at..file.offset + end)?
                }
            };
            crc = granary_core::crc32c_append(crc, &part);
            at += part.len() as u64;
            writing.file.write_all(&part).map_err(|e| {
                work.tree.cannot(path, rustix::io::Errno::from_io_error(&e).unwrap_or(rustix::io::Errno::IO))
            })?;
        }
        if crc == file.crc32c {
            return Ok(());
        }
        Err(Error::new(
            Kind::Corrupt,
            format!(
                "{} at byte {}: the bytes of {:?} do not match their checksum; get a whole copy of the shard, or leave \
                 the file out with --skip-errors",
                shard.describe(),
                file.offset,
                String::from_utf8_lossy(file.path)
            ),
        ))
    })();
    if let Err(e) = written {
        work.tree.abandon(writing);
        return Err(e);
    }
    let owner = work.options.owners.then_some((file.uid, file.gid));
    let parent = work.tree.parent(path, last)?;
    work.tree.keep(writing, parent, path, &Attributes { mode: file.mode, mtime: file.mtime, owner })
}
