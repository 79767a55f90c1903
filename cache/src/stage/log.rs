//! The stage log: an append-only sequence of records in segment files. Appending is one `pwritev`; durability is a group
//! `fdatasync`; a segment is deleted when the drain has given all of it to the store.
//!
//! A segment's number is the sequence number of its first record. `log/sequence` holds a bound: at each start numbering goes on
//! above it, so that neither a sequence nor a segment number is ever used twice, even when all segments are gone.
//!
//! Where several nodes write one namespace, sequences are a Lamport clock: whoever loads a file goes on above its last
//! sequence, and the lowest 16 bits of a sequence tell the nodes apart. So an inode's last sequence says who changed it last,
//! and a record that was not applied is recognized as overtaken.

mod bound;
mod group;
mod segments;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use granary_core::limits::Limits;
use granary_core::{Clock, Error, Failpoint, NamespaceId, NodeId, Result};

use super::disk::{Disk, in_place, make_dirs, read_up_to, write_all};
use super::record;
use crate::util::lock;

use bound::{BOOT, DURABLE, RECOVERED, SEQUENCE};
use group::GroupSync;
use segments::{Segment, Segments, list_segments, open_rw, segment_path};
use writer::{Unsynced, Writer};

pub(crate) use segments::SegmentInfo;
pub(crate) use writer::Appended;

/// Sequence numbers that a start reserves: more than a process appends in its life.
const SEQUENCE_STEP: u64 = 1 << 40;

/// Bits of a sequence that tell nodes apart.
const NODE_BITS: u32 = 16;

/// A segment is rolled at this size at the latest, so that the drain may read one whole. Its payload is bounded by
/// [`OBJECT_PAYLOAD_MAX`]: one segment is one pack at most.
const SEGMENT_BYTES_MAX: u64 = 32 << 20;

/// The end of the log: from byte `synced` to `end` of the active segment nothing is durable. Segment 0: there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tail {
    pub segment: u64,
    pub synced: u64,
    pub end: u64,
}

#[derive(Debug)]
pub(crate) struct Log {
    dir: PathBuf,
    dir_file: File,
    ns: NamespaceId,
    segment_bytes_max: u64,
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    /// Serializes appends: records lie in the order of their sequence. Held over one local write.
    writer: Mutex<Writer>,
    /// The table of segments and their descriptors; held for look-ups only.
    segments: Mutex<Segments>,
    group: GroupSync,
    /// The last record of this run that survives a power loss, and the file that says so to the next one.
    durable: AtomicU64,
    durable_file: File,
    /// What that file said of earlier runs.
    was_durable: u64,
    /// The start of the machine that it is used in, and whether earlier runs were in another one.
    boot: u64,
    was_restarted: bool,
    /// Segments below this were replayed by an earlier start, those below `begin` are by this one.
    recovered: u64,
    begin: u64,
    payload_bytes: AtomicU64,
    files: AtomicU64,
    /// The lowest bits of this node's sequences, where others write too.
    mark: Option<u16>,
}

impl Log {
    /// Opens `dir`, made if missing. Segments that exist are not looked into: [`Log::existing`] lists them, and recovery
    /// tells what is in them by [`Log::adopt`]. New records go to new segments.
    pub fn open(
        dir: &Path,
        ns: NamespaceId,
        limits: &Limits,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
    ) -> Result<(Log, Vec<u64>)> {
        let doing = |what: &str| format!("cannot {what} the stage log {}", dir.display());
        make_dirs(dir).map_err(|e| Error::io(doing("make"), e))?;
        let dir_file = File::open(dir).map_err(|e| Error::io(doing("open"), e))?;
        let existing = list_segments(dir).map_err(|e| Error::io(doing("list"), e))?;
        let recovered = bound::read(dir, RECOVERED)?;
        let bound = bound::read(dir, SEQUENCE)?.max(recovered);
        let next_seq = bound.max(existing.last().map_or(0, |&id| id + SEQUENCE_STEP)) + 1;
        bound::write(&*disk, dir, &dir_file, SEQUENCE, next_seq + SEQUENCE_STEP)
            .map_err(|e| Error::io(doing("number"), e))?;
        Failpoint::RecoverAfterNumbering.reach();
        let was_durable = bound::read_durable(dir);
        let durable_file = open_rw(&dir.join(DURABLE)).or_else(|_| disk.create(&dir.join(DURABLE), true));
        let durable_file = durable_file.map_err(|e| Error::io(doing("open"), e))?;
        let boot = disk.boot().map_err(|e| Error::io("cannot tell when this machine was started", e))?;
        let was_restarted = bound::read(dir, BOOT)? != boot;
        let log = Log {
            dir: dir.to_owned(),
            dir_file,
            ns,
            segment_bytes_max: limits.log_segment_bytes_max.min(SEGMENT_BYTES_MAX),
            disk,
            clock,
            writer: Mutex::new(Writer {
                active: None,
                next_seq,
                last_seq: 0,
                bound: next_seq + SEQUENCE_STEP,
                header: Vec::with_capacity(record::HEADER_MAX),
                unsynced: Vec::new(),
                synced: (0, 0),
                new_entries: false,
                broken: None,
            }),
            segments: Mutex::default(),
            group: GroupSync::default(),
            durable: AtomicU64::new(0),
            durable_file,
            was_durable,
            boot,
            was_restarted,
            recovered,
            begin: next_seq,
            payload_bytes: AtomicU64::new(0),
            files: AtomicU64::new(0),
            mark: None,
        };
        Ok((log, existing))
    }

    /// From now on sequences are those of a node among others.
    pub fn mark_sequences(&mut self, node: NodeId) {
        let mark = granary_core::crc32c(&node.0.to_le_bytes()) as u16;
        self.mark = Some(mark);
        let mut w = lock(&self.writer);
        w.next_seq = above(w.next_seq, Some(mark));
    }

    /// Whether a record of that sequence can be of this log. Of other nodes' sequences one in 65,536 is taken for its own.
    pub fn is_own(&self, seq: u64) -> bool {
        self.mark.is_none_or(|mark| seq as u16 == mark)
    }

    /// Bytes of writes in the log, and inodes per segment summed up.
    pub fn dirty(&self) -> (u64, u64) {
        (self.payload_bytes.load(Ordering::Relaxed), self.files.load(Ordering::Relaxed))
    }

    /// A segment of an earlier run is there, with as many bytes as its file has; what is in them is told by
    /// [`Log::adopt`].
    pub fn announce(&self, id: u64) -> Result<()> {
        let path = segment_path(&self.dir, id);
        let len = fs::metadata(&path)
            .map_err(|e| Error::io(format!("cannot examine {}", path.display()), e))?
            .len();
        let info = SegmentInfo { id, len, payload: 0, files: 0, first_at: self.clock.monotonic() };
        lock(&self.segments).by_id.insert(id, Segment::new(info, None));
        Ok(())
    }

    /// Takes a segment of an earlier run, `len` bytes of which are good, but for the gaps.
    pub fn adopt(&self, id: u64, len: u64, payload: u64, inodes: HashSet<u64>, gaps: Vec<Range<u64>>) {
        let files = inodes.len() as u64;
        let info = SegmentInfo { id, len, payload, files, first_at: self.clock.monotonic() };
        self.payload_bytes.fetch_add(payload, Ordering::Relaxed);
        self.files.fetch_add(files, Ordering::Relaxed);
        let segment = Segment { sealed: true, gaps, inodes, ..Segment::new(info, None) };
        lock(&self.segments).by_id.insert(id, segment);
    }

    /// Inodes that it has records of, each once.
    pub fn inodes(&self) -> HashSet<u64> {
        let writer = lock(&self.writer);
        let mut all = writer.active.as_ref().map(|active| active.inodes.clone()).unwrap_or_default();
        for segment in lock(&self.segments).by_id.values() {
            all.extend(&segment.inodes);
        }
        all
    }

    /// Up to where the log of earlier runs was durable, as far as it is known beside the log; 0: not known.
    pub fn was_durable(&self) -> u64 {
        self.was_durable
    }

    /// Records up to this one of this run survive a power loss. Blocks.
    fn now_durable(&self, seq: u64) {
        if self.durable.fetch_max(seq, Ordering::SeqCst) < seq {
            // Only a recovery asks for it, and would promise less.
            let _ = write_all(&*self.disk, &self.durable_file, &[], &bound::encode(seq), 0);
        }
    }

    /// Whether an earlier start has brought all of the segment into the metadata that could be.
    pub fn is_recovered(&self, segment: u64) -> bool {
        segment < self.recovered
    }

    /// Whether the machine was started anew since the last recovery: what was not synced may be gone.
    pub fn was_restarted(&self) -> bool {
        self.was_restarted
    }

    /// Everything that was here at the start is in the metadata, durably. Blocks.
    pub fn mark_recovered(&self) -> Result<()> {
        let mark = |name, value| bound::write(&*self.disk, &self.dir, &self.dir_file, name, value);
        mark(RECOVERED, self.begin).and_then(|()| mark(BOOT, self.boot)).map_err(|e| {
            Error::io(format!("cannot mark the stage log {} as recovered", self.dir.display()), e)
        })
    }

    /// What of the active segment is not synced. `None` when more than that is not, or the disk fails.
    pub fn unsynced(&self) -> Option<Tail> {
        in_place(&self.dir, &self.dir_file).ok()?;
        let w = lock(&self.writer);
        if w.broken.is_some() || !w.unsynced.is_empty() {
            return None;
        }
        let Some(active) = &w.active else { return Some(Tail { segment: 0, synced: 0, end: 0 }) };
        let (segment, end) = (active.info.id, active.info.len);
        Some(Tail { segment, synced: if w.synced.0 == segment { w.synced.1 } else { 0 }, end })
    }

    /// Writes bytes of an earlier run to where they were, in a segment that is made if it is gone, durably. Blocks.
    pub fn restore(&self, segment: u64, offset: u64, bytes: &[u8]) -> Result<()> {
        let path = segment_path(&self.dir, segment);
        let write = || {
            let file = match open_rw(&path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => self.disk.create(&path, true)?,
                opened => opened?,
            };
            write_all(&*self.disk, &file, &[], bytes, offset)?;
            self.disk.sync_data(&file)?;
            self.disk.sync_dir(&self.dir_file)
        };
        write().map_err(|e| {
            Error::io(
                format!(
                    "cannot write what was acknowledged back to {}; free some space there",
                    path.display()
                ),
                e,
            )
        })
    }

    /// Makes sure that no record to come has a sequence up to `seq`.
    pub fn stay_above(&self, seq: u64) {
        let mut w = lock(&self.writer);
        if w.next_seq <= seq {
            w.next_seq = above(seq, self.mark);
        }
    }
}

/// The next sequence of a node after `seq`.
fn above(seq: u64, mark: Option<u16>) -> u64 {
    match mark {
        None => seq + 1,
        Some(mark) => (((seq >> NODE_BITS) + 1) << NODE_BITS) | u64::from(mark),
    }
}
