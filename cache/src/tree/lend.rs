//! A range of a file for another process of this machine, as open files where that can be: so a loader reads a shard from the node's
//! cache without a byte copied to it, and what several processes read is fetched once.
//!
//! **A descriptor that is lent has no byte in it that is not the file's.** A chunk of the cache is a mebibyte of an object, and an object may
//! have other files beside this one, which the asker may not read, or what was overwritten since. So a chunk's file is lent only when one
//! extent of the file takes all of the chunk. A clean copy is lent as it is: it has this file alone. Everything else is copied: the ends of a
//! file in a pack, holes, what is staged and not in the store yet.
//!
//! A chunk never changes. A clean copy becomes a stage file again when somebody writes the file, and who has it open sees what is written, as
//! who has the file open in a mount does. Both stay readable when they have left the cache.

use std::fs;
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use granary_core::limits::CHUNK_BYTES;
use granary_core::{Error, Ino, Kind, ObjectId, Result};
use granary_meta::{Attr, Extent, Place};

use super::{Shared, Tree};
use crate::extent_map::Piece;
use crate::file::explain::Known;
use crate::read::sums::chunk_range;
use crate::read::{LentChunk, NextUse, Reader};
use crate::stage::Shape;

/// A stretch of what was asked for.
#[derive(Debug)]
pub enum Lent {
    /// `len` bytes at `offset` of a file that is open for reading.
    File {
        file: fs::File,
        offset: u64,
        len: u64,
    },
    Bytes(Bytes),
}

/// What one answer has at most; both at least 1.
#[derive(Clone, Copy, Debug)]
pub struct LendLimits {
    pub parts_max: usize,
    /// Of what cannot be lent.
    pub copy_bytes_max: u64,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct LendWish<'a> {
    /// Of the file.
    pub range: Range<u64>,
    /// What was lent before was damaged: chunks are verified first now, and a clean copy is dropped.
    pub check: bool,
    /// When who asks comes to it again, if that is known.
    pub next: Option<NextUse<'a>>,
}

/// How a stretch of a file is had.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Way {
    /// `within` these chunks of an object, of which the file has at least the bytes `own`.
    Chunks {
        object: ObjectId,
        within: Range<u64>,
        own: Range<u64>,
    },
    Copy {
        len: u64,
    },
}

impl Lent {
    pub fn len(&self) -> u64 {
        match self {
            Lent::File { len, .. } => *len,
            Lent::Bytes(bytes) => bytes.len() as u64,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The ways of a range that is within the file, in order.
fn ways(known: &Known, range: &Range<u64>) -> Vec<Way> {
    let len = range.end - range.start;
    if known.shape.is_some_and(|shape| shape != Shape::Sparse) {
        return vec![Way::Copy { len }];
    }
    let way = |piece| match piece {
        Piece::Hole { len, .. } => Way::Copy { len },
        Piece::Data { part, whole } => match (part.place, whole.place) {
            (Place::Object { id, offset, .. }, Place::Object { offset: start, .. }) => {
                let span = |at: u64, extent: &Extent| at..at + extent.len;
                Way::Chunks { object: id, within: span(offset, &part), own: span(start, &whole) }
            }
            _ => Way::Copy { len: part.len },
        },
    };
    known.map.resolve(range.start, len).into_iter().map(way).collect()
}

/// The chunks that have these bytes of an object and are wholly among the file's own; the bytes before them and behind.
fn whole_chunks(within: &Range<u64>, own: &Range<u64>, payload_len: u64) -> (u64, Range<u32>, u64) {
    let is_own = |index: u32| {
        let chunk = chunk_range(index, payload_len);
        own.start <= chunk.start && chunk.end <= own.end
    };
    let mut chunks = (within.start / CHUNK_BYTES) as u32..within.end.div_ceil(CHUNK_BYTES) as u32;
    // Only the first and the last can be in part others'.
    if !chunks.is_empty() && !is_own(chunks.start) {
        chunks.start += 1;
    }
    if !chunks.is_empty() && !is_own(chunks.end - 1) {
        chunks.end -= 1;
    }
    if chunks.is_empty() {
        return (within.end - within.start, chunks, 0);
    }
    let start = chunk_range(chunks.start, payload_len).start.max(within.start);
    let end = chunk_range(chunks.end - 1, payload_len).end.min(within.end);
    (start - within.start, chunks, within.end - end)
}

/// What is lent, and what is still to be copied, in order.
#[derive(Debug)]
enum Part {
    Ready(Lent),
    Copy(u64),
}

impl Shared {
    /// The clean copy of this version, open for reading, if it is there and has the length that is known.
    fn lend_copy(&self, ino: Ino, version: u64, size: u64) -> Option<fs::File> {
        let file = fs::File::open(self.files.path(ino, Shape::Clean(version))).ok()?;
        // A writer who took it up meanwhile may have cut it.
        (file.metadata().ok()?.len() == size).then(|| self.clean.used(ino))?;
        Some(file)
    }

    /// `at`: where in the file the first of these bytes is.
    async fn lend_chunks(
        &self,
        object: ObjectId,
        within: &Range<u64>,
        own: &Range<u64>,
        (at, wish): (u64, &LendWish<'_>),
        parts: &mut Vec<Part>,
    ) -> Result<()> {
        let info = self.object(object).await?;
        let (before, chunks, behind) = whole_chunks(within, own, info.payload_len);
        if before > 0 {
            parts.push(Part::Copy(before));
        }
        let of = |index| chunk_range(index, info.payload_len);
        let part = |of: &Range<u64>| of.start.max(within.start) - of.start..of.end.min(within.end) - of.start;
        // Before they are here: others come meanwhile, and room is made for them.
        if let Some(next) = &wish.next {
            for index in chunks.clone() {
                let (of, part) = (of(index), part(&of(index)));
                let start = (at + of.start).saturating_sub(within.start);
                next.tell(object, index, start..start + (of.end - of.start), part.end - part.start);
            }
        }
        let lent = self.reads.lend(self.ns, &info, chunks.clone(), wish.check).await?;
        for (index, chunk) in chunks.zip(lent) {
            let Range { start: from, end: to } = part(&of(index));
            parts.push(Part::Ready(match chunk {
                LentChunk::File(file) => Lent::File { file, offset: from, len: to - from },
                LentChunk::Bytes(bytes) => Lent::Bytes(bytes.slice(from as usize..to as usize)),
            }));
        }
        if behind > 0 {
            parts.push(Part::Copy(behind));
        }
        Ok(())
    }
}

/// Stretches to be copied that are side by side become one; no more than `parts_max`, the first.
fn merged(parts: Vec<Part>, parts_max: usize) -> Vec<Part> {
    let mut merged: Vec<Part> = Vec::with_capacity(parts.len());
    for part in parts {
        match (merged.last_mut(), part) {
            (Some(Part::Copy(last)), Part::Copy(len)) => *last += len,
            (_, part) => merged.push(part),
        }
    }
    merged.truncate(parts_max);
    merged
}

impl Tree {
    /// One that asks for what is lent, and says when it comes again.
    pub fn reader(&self) -> Reader {
        self.shared().reads.reader()
    }

    /// The first of these bytes of a regular file, in order, or all: in no more parts, and no more of them copied, than `limits` says; at
    /// least one byte. What is not on this node is fetched, as for a reader. That the asker may read the file is the caller's to know.
    /// Opens files.
    ///
    /// Errors: `Invalid` when the file ends before the range does; those of a read.
    pub async fn lend(&self, attr: &Attr, wish: LendWish<'_>, limits: LendLimits) -> Result<Vec<Lent>> {
        let (shared, range, check) = (self.shared(), wish.range.clone(), wish.check);
        let mut known = shared.known(attr.ino).await?;
        if check && matches!(known.shape, Some(Shape::Clean(_))) {
            // Unless somebody has it open, the store is read.
            shared.drop_clean_copy(attr.ino);
            known = shared.known(attr.ino).await?;
        }
        if range.start >= range.end || range.end > known.size {
            return Err(Error::new(
                Kind::Invalid,
                format!("bytes {range:?} were asked for of a file that has {}", known.size),
            ));
        }
        if let Some(Shape::Clean(version)) = known.shape
            && !(check || known.held)
            && let Some(file) = shared.lend_copy(attr.ino, version, known.size)
        {
            return Ok(vec![Lent::File { file, offset: range.start, len: range.end - range.start }]);
        }
        let (mut parts, mut behind) = (Vec::new(), range.start);
        for way in ways(&known, &range) {
            let at = behind;
            let (object, within, own) = match way {
                Way::Chunks { object, within, own } => (object, within, own),
                Way::Copy { len } => {
                    behind += len;
                    parts.push(Part::Copy(len));
                    continue;
                }
            };
            let (before, len) = (parts.len(), within.end - within.start);
            behind += len;
            match shared.lend_chunks(object, &within, &own, (at, &wish), &mut parts).await {
                // The bytes moved to another object meanwhile: who reads the file follows them.
                Err(e) if e.kind() == Kind::NotFound => {
                    parts.truncate(before);
                    parts.push(Part::Copy(len));
                }
                lent => lent?,
            }
        }
        let (mut lent, mut at, mut copied) = (Vec::new(), range.start, 0);
        for part in merged(parts, limits.parts_max) {
            let (part, wanted) = match part {
                Part::Ready(part) => {
                    let len = part.len();
                    (part, len)
                }
                Part::Copy(len) => {
                    let now = len.min(limits.copy_bytes_max - copied);
                    if now == 0 {
                        break;
                    }
                    copied += now;
                    (Lent::Bytes(self.copy_out(attr, at..at + now).await?), len)
                }
            };
            let len = part.len();
            at += len;
            lent.push(part);
            if len < wanted {
                break;
            }
        }
        Ok(lent)
    }

    /// Exactly these bytes, as a reader has them.
    async fn copy_out(&self, attr: &Attr, range: Range<u64>) -> Result<Bytes> {
        let file = self.file(attr, None).await?;
        let mut all = BytesMut::new();
        let mut failed = None;
        while (all.len() as u64) < range.end - range.start && failed.is_none() {
            let at = range.start + all.len() as u64;
            let len = (range.end - at).min(4 * CHUNK_BYTES) as u32;
            match file.read(at, len).await {
                Ok(bytes) if bytes.is_empty() => {
                    failed = Some(Error::new(Kind::Stale, "the file became shorter while it was read"));
                }
                Ok(bytes) => all.extend_from_slice(&bytes),
                Err(e) => failed = Some(e),
            }
        }
        self.close(file).await?;
        match failed {
            None => Ok(all.freeze()),
            Some(e) => Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = CHUNK_BYTES;

    #[test]
    fn only_chunks_that_are_the_files_alone_are_lent() {
        let len = 15 * MIB;
        // All of an object: each chunk that is touched.
        assert_eq!(whole_chunks(&(0..len), &(0..len), len), (0, 0..15, 0));
        assert_eq!(whole_chunks(&(5..3 * MIB + 1), &(0..len), len), (0, 0..4, 0));
        // A short last chunk is whole, too.
        assert_eq!(whole_chunks(&(MIB..MIB + 9), &(0..MIB + 9), MIB + 9), (0, 1..2, 0));
        // The file begins and ends within chunks, which others are in as well.
        assert_eq!(whole_chunks(&(7..2 * MIB + 9), &(7..2 * MIB + 9), len), (MIB - 7, 1..2, 9));
        assert_eq!(whole_chunks(&(8..10), &(7..2 * MIB), len), (2, 1..1, 0));
        // One byte less than a chunk.
        assert_eq!(whole_chunks(&(1..MIB), &(1..len), len).1.len(), 0);
        assert_eq!(whole_chunks(&(3..2 * MIB - 5), &(0..2 * MIB - 1), len), (0, 0..1, MIB - 5));
    }

    #[test]
    fn copies_side_by_side_are_one_and_parts_are_bounded() {
        let part = |len| Part::Ready(Lent::Bytes(vec![0; len].into()));
        let lens = |parts: Vec<Part>| -> Vec<(bool, u64)> {
            let one = |part: &Part| match part {
                Part::Ready(lent) => (true, lent.len()),
                Part::Copy(len) => (false, *len),
            };
            parts.iter().map(one).collect()
        };
        let parts = || vec![Part::Copy(1), Part::Copy(2), part(4), part(8), Part::Copy(16), part(32)];
        assert_eq!(lens(merged(parts(), 9)), [(false, 3), (true, 4), (true, 8), (false, 16), (true, 32)]);
        assert_eq!(lens(merged(parts(), 2)), [(false, 3), (true, 4)]);
    }
}
