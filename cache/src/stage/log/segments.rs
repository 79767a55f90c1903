//! The segments that exist: the table of them, and their bytes on disk.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use granary_core::{Error, Kind, Result};

use super::Log;
use crate::stage::disk::{read_up_to, write_all};
use crate::stage::record::{self, Head};
use crate::util::lock;

/// Sealed segments whose descriptors are kept for reading.
const SEALED_OPEN_MAX: usize = 64;

/// What the drain wants to know of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentInfo {
    pub id: u64,
    /// Bytes of good records.
    pub len: u64,
    pub payload: u64,
    /// Inodes it has records of.
    pub files: u64,
    /// When its first record was appended, by the monotonic clock.
    pub first_at: Duration,
}

#[derive(Debug)]
pub(super) struct Segment {
    pub info: SegmentInfo,
    /// Complete: nothing is appended to it any more. Said in the same place that lists it, so that the segment being
    /// written is never taken for one to upload and delete.
    pub sealed: bool,
    /// What a power loss took out of the middle, in order.
    pub gaps: Vec<Range<u64>>,
    /// Inodes it has records of, once it is complete.
    pub inodes: HashSet<u64>,
    /// Records up to here were verified by [`Log::verify`], and are good but for those.
    pub verified: u64,
    pub damaged: Vec<Range<u64>>,
    /// Open for reading; the bound is kept by `Segments::open`.
    pub file: Option<Arc<File>>,
}

#[derive(Debug, Default)]
pub(super) struct Segments {
    /// All that exist, the active one too (its numbers are the log's).
    pub by_id: BTreeMap<u64, Segment>,
    /// Sealed ones with a descriptor, oldest opened first.
    pub open: VecDeque<u64>,
}

impl Segment {
    /// One that records are appended to, or of which nothing but its length is known yet.
    pub fn new(info: SegmentInfo, file: Option<Arc<File>>) -> Segment {
        let (gaps, damaged) = (Vec::new(), Vec::new());
        Segment { info, sealed: false, gaps, inodes: HashSet::new(), verified: 0, damaged, file }
    }

    pub fn has(&self, bytes: &Range<u64>) -> bool {
        let lost = |gap: &Range<u64>| gap.start < bytes.end && bytes.start < gap.end;
        bytes.end <= self.info.len && !self.gaps.iter().any(lost)
    }
}

impl Segments {
    pub fn close_surplus(&mut self) {
        while self.open.len() > SEALED_OPEN_MAX {
            let Some(id) = self.open.pop_front() else { return };
            if let Some(segment) = self.by_id.get_mut(&id) {
                segment.file = None;
            }
        }
    }
}

pub(super) fn segment_path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:016x}.log"))
}

pub(super) fn open_rw(path: &Path) -> io::Result<File> {
    fs::OpenOptions::new().read(true).write(true).open(path)
}

pub(super) fn list_segments(dir: &Path) -> io::Result<Vec<u64>> {
    let mut ids = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let id = name.to_str().and_then(|n| n.strip_suffix(".log")).filter(|n| n.len() == 16);
        ids.extend(id.and_then(|n| u64::from_str_radix(n, 16).ok()));
    }
    ids.sort_unstable();
    Ok(ids)
}

impl Log {
    /// Segments that are complete, oldest first.
    pub fn sealed(&self) -> Vec<SegmentInfo> {
        lock(&self.segments).by_id.values().filter(|s| s.sealed).map(|s| s.info).collect()
    }

    pub(super) fn file(&self, id: u64) -> Result<Option<Arc<File>>> {
        let mut segments = lock(&self.segments);
        let Some(segment) = segments.by_id.get_mut(&id) else { return Ok(None) };
        if let Some(file) = &segment.file {
            return Ok(Some(file.clone()));
        }
        let path = segment_path(&self.dir, id);
        let file = open_rw(&path).map_err(|e| Error::io(format!("cannot open {}", path.display()), e))?;
        let file = Arc::new(file);
        segment.file = Some(file.clone());
        segments.open.push_back(id);
        segments.close_surplus();
        Ok(Some(file))
    }

    /// `len` bytes at `offset` of a segment; `None` when the segment is gone (its bytes are in the store now). `Corrupt`
    /// when the segment has fewer.
    pub fn read(&self, segment: u64, offset: u64, len: usize) -> Result<Option<Vec<u8>>> {
        let Some(file) = self.file(segment)? else { return Ok(None) };
        let path = || segment_path(&self.dir, segment);
        let bytes = read_up_to(&file, offset, len)
            .map_err(|e| Error::io(format!("cannot read {}", path().display()), e))?;
        if bytes.len() < len {
            return Err(Error::new(
                Kind::Corrupt,
                format!(
                    "{} ends before byte {}; a power loss or a damaged disk cut it",
                    path().display(),
                    offset + len as u64
                ),
            ));
        }
        Ok(Some(bytes))
    }

    /// Returns when every record that has bytes of `range` was verified, once in this run of the node. `None` when the segment is
    /// gone; `Corrupt` when one of them is no good record.
    pub fn verify(&self, segment: u64, range: Range<u64>) -> Result<Option<()>> {
        let active = lock(&self.writer).active.as_ref().map(|a| a.info).filter(|info| info.id == segment);
        let (from, end) = match lock(&self.segments).by_id.get(&segment) {
            Some(s) => (s.verified, active.map_or(s.info.len, |info| info.len)),
            None => return Ok(None),
        };
        if range.end > from {
            let Some(bytes) = self.read(segment, from, (end - from) as usize)? else { return Ok(None) };
            let scanned = record::scan_from(&bytes, self.ns, segment, from);
            if let Some(s) = lock(&self.segments).by_id.get_mut(&segment).filter(|s| s.verified == from) {
                s.verified = end;
                let bad =
                    scanned.damage.iter().map(|d| d.range.start as u64 + from..d.range.end as u64 + from);
                s.damaged.extend(bad);
            }
        }
        let is_bad = |s: &Segment| s.damaged.iter().any(|d| d.start < range.end && range.start < d.end);
        match lock(&self.segments).by_id.get(&segment).map(is_bad) {
            None => Ok(None),
            Some(false) => Ok(Some(())),
            Some(true) => Err(Error::new(
                Kind::Corrupt,
                format!(
                    "bytes {}..{} of {} are in no good record: they were damaged on this node's disk",
                    range.start,
                    range.end,
                    segment_path(&self.dir, segment).display()
                ),
            )),
        }
    }

    /// Whether the segment is there and has these bytes.
    pub fn has(&self, segment: u64, bytes: Range<u64>) -> bool {
        {
            let w = lock(&self.writer);
            if let Some(a) = &w.active
                && a.info.id == segment
            {
                return bytes.end <= a.info.len;
            }
        }
        lock(&self.segments).by_id.get(&segment).is_some_and(|s| s.has(&bytes))
    }

    /// Bytes of a segment, as far as they are known.
    pub fn len(&self, id: u64) -> u64 {
        lock(&self.segments).by_id.get(&id).map_or(0, |s| s.info.len)
    }

    /// The bytes of a segment as they are on disk.
    pub fn read_all(&self, id: u64) -> Result<Vec<u8>> {
        let path = segment_path(&self.dir, id);
        fs::read(&path).map_err(|e| Error::io(format!("cannot read {}", path.display()), e))
    }

    /// Keeps the first `len` bytes of a segment of an earlier run, with gaps in the place of lost records (each with the
    /// sequence before it), and makes them durable: that run may have been killed before it did.
    pub fn keep(&self, id: u64, len: u64, gaps: &[(u64, Range<usize>)]) -> Result<()> {
        let path = segment_path(&self.dir, id);
        let keep = || {
            let file = open_rw(&path)?;
            if file.metadata()?.len() > len {
                self.disk.set_len(&file, len)?;
            }
            for (after, gap) in gaps {
                let mut header = Vec::with_capacity(record::GAP_HEADER);
                let at = gap.start as u64;
                record::encode(&Head::gap(*after, gap.len()), self.ns, id, at, &mut header);
                write_all(&*self.disk, &file, &header, &[], at)?;
            }
            self.disk.sync_data(&file)
        };
        keep()
            .map_err(|e| Error::io(format!("cannot take over the stage log's segment {}", path.display()), e))
    }

    /// Deletes a sealed segment; nothing refers to it any more.
    pub fn delete(&self, id: u64) -> Result<()> {
        if lock(&self.writer).active.as_ref().is_some_and(|a| a.info.id == id) {
            return Err(Error::new(
                Kind::Bug,
                format!("segment {id:016x} of the stage log is still being written"),
            ));
        }
        let removed = {
            let mut segments = lock(&self.segments);
            segments.open.retain(|&o| o != id);
            segments.by_id.remove(&id)
        };
        if let Some(segment) = removed {
            self.payload_bytes.fetch_sub(segment.info.payload, Ordering::Relaxed);
            self.files.fetch_sub(segment.info.files, Ordering::Relaxed);
        }
        let path = segment_path(&self.dir, id);
        match self.disk.remove(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(Error::io(format!("cannot delete {}", path.display()), e))
            }
            _ => Ok(()),
        }
    }
}
