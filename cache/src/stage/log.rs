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
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use granary_core::limits::{Limits, OBJECT_PAYLOAD_MAX};
use granary_core::{Clock, Error, Failpoint, Kind, NamespaceId, NodeId, Result};

use super::disk::{Disk, in_place, make_dirs, read_up_to, write_all};
use super::record::{self, Head};
use crate::util::lock;

use bound::{BOOT, DURABLE, RECOVERED, SEQUENCE};
use group::GroupSync;

/// Sequence numbers that a start reserves: more than a process appends in its life.
const SEQUENCE_STEP: u64 = 1 << 40;
/// Bits of a sequence that tell nodes apart.
const NODE_BITS: u32 = 16;
/// A segment is rolled at this size at the latest, so that the drain may read one whole. Its payload is bounded by
/// [`OBJECT_PAYLOAD_MAX`]: one segment is one pack at most.
const SEGMENT_BYTES_MAX: u64 = 32 << 20;
/// Sealed segments whose descriptors are kept for reading.
const SEALED_OPEN_MAX: usize = 64;

/// Where a record went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Appended {
    pub seq: u64,
    pub segment: u64,
    /// Of the body in the segment file.
    pub offset: u64,
    /// The first record of its segment: the drain's clock starts.
    pub first: bool,
}

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

/// The end of the log: from byte `synced` to `end` of the active segment nothing is durable. Segment 0: there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tail {
    pub segment: u64,
    pub synced: u64,
    pub end: u64,
}

#[derive(Debug)]
struct Segment {
    info: SegmentInfo,
    /// Complete: nothing is appended to it any more. Said in the same place that lists it, so that the segment being
    /// written is never taken for one to upload and delete.
    sealed: bool,
    /// What a power loss took out of the middle, in order.
    gaps: Vec<Range<u64>>,
    /// Records up to here were verified by [`Log::verify`], and are good but for those.
    verified: u64,
    damaged: Vec<Range<u64>>,
    /// Open for reading; the bound is kept by `Segments::open`.
    file: Option<Arc<File>>,
}

#[derive(Debug, Default)]
struct Segments {
    /// All that exist, the active one too (its numbers are the log's).
    by_id: BTreeMap<u64, Segment>,
    /// Sealed ones with a descriptor, oldest opened first.
    open: VecDeque<u64>,
}

#[derive(Debug)]
struct Active {
    file: Arc<File>,
    info: SegmentInfo,
    inodes: HashSet<u64>,
}

/// A segment with bytes that may be in the page cache alone.
#[derive(Clone, Debug)]
struct Unsynced {
    id: u64,
    file: Arc<File>,
    len: u64,
}

#[derive(Debug)]
struct Writer {
    active: Option<Active>,
    next_seq: u64,
    /// Of the last record that was appended, 0: none was.
    last_seq: u64,
    /// What `log/sequence` says.
    bound: u64,
    header: Vec<u8>,
    /// Sealed, and not synced since.
    unsynced: Vec<Unsynced>,
    /// Segment and length that the last sync of an active one covered.
    synced: (u64, u64),
    new_entries: bool,
    /// The disk failed to keep something: nothing more is accepted, and nothing is called durable, until it was written again.
    broken: Option<Error>,
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

fn segment_path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:016x}.log"))
}

fn open_rw(path: &Path) -> io::Result<File> {
    fs::OpenOptions::new().read(true).write(true).open(path)
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
        let mark = crc32c::crc32c(&node.0.to_le_bytes()) as u16;
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
        lock(&self.segments).by_id.insert(
            id,
            Segment { info, sealed: false, gaps: Vec::new(), verified: 0, damaged: Vec::new(), file: None },
        );
        Ok(())
    }

    /// Takes a segment of an earlier run, `len` bytes of which are good, but for the gaps.
    pub fn adopt(&self, id: u64, len: u64, payload: u64, files: u64, gaps: Vec<Range<u64>>) {
        let info = SegmentInfo { id, len, payload, files, first_at: self.clock.monotonic() };
        self.payload_bytes.fetch_add(payload, Ordering::Relaxed);
        self.files.fetch_add(files, Ordering::Relaxed);
        lock(&self.segments)
            .by_id
            .insert(id, Segment { info, sealed: true, gaps, verified: 0, damaged: Vec::new(), file: None });
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

    /// Appends a record: gives it its sequence, and returns where its body is. When it fails nothing is left behind that
    /// a later record could suffer from. `NoSpace`, `Io`.
    pub fn append(&self, head: &mut Head, body: &[u8]) -> Result<Appended> {
        debug_assert_eq!(head.body_len(), body.len() as u64);
        let mut guard = lock(&self.writer);
        let w = &mut *guard;
        if let Some(e) = &w.broken {
            return Err(e.duplicate());
        }
        let (more, payload) = (head.encoded_len() as u64 + body.len() as u64, head.payload_len());
        if let Some(a) = &w.active
            && a.info.len > 0
            && (a.info.len + more > self.segment_bytes_max || a.info.payload + payload > OBJECT_PAYLOAD_MAX)
        {
            self.seal_locked(w);
        }
        if w.active.is_none() {
            w.active = Some(self.begin_segment(w)?);
        }
        head.seq = w.next_seq;
        head.durable = Some(self.durable.load(Ordering::SeqCst));
        let Some(active) = w.active.as_mut() else { unreachable!("made above") };
        let at = active.info.len;
        w.header.clear();
        record::encode(head, self.ns, active.info.id, at, &mut w.header);
        Failpoint::LogBeforeAppend.reach();
        if let Err(e) = write_all(&*self.disk, &active.file, &w.header, body, at) {
            let e = Error::io(
                format!(
                    "cannot append to the stage log in {}; free some space there, or repair the disk",
                    self.dir.display()
                ),
                e,
            );
            if self.disk.set_len(&active.file, at).is_err() {
                // Its garbage is never followed by a record: the next one begins another segment.
                self.seal_locked(w);
            }
            return Err(e);
        }
        Failpoint::LogAfterAppend.reach();
        w.last_seq = head.seq;
        w.next_seq = above(w.next_seq, self.mark);
        let first = at == 0;
        active.info.len += more;
        active.info.payload += payload;
        if active.inodes.insert(head.ino.0) {
            active.info.files += 1;
            self.files.fetch_add(1, Ordering::Relaxed);
        }
        self.payload_bytes.fetch_add(payload, Ordering::Relaxed);
        Ok(Appended { seq: head.seq, segment: active.info.id, offset: at + w.header.len() as u64, first })
    }

    fn begin_segment(&self, w: &mut Writer) -> Result<Active> {
        let id = w.next_seq;
        if id + SEQUENCE_STEP / 2 > w.bound {
            let bound = id + SEQUENCE_STEP;
            bound::write(&*self.disk, &self.dir, &self.dir_file, SEQUENCE, bound)
                .map_err(|e| Error::io(format!("cannot number the stage log {}", self.dir.display()), e))?;
            w.bound = bound;
        }
        let path = segment_path(&self.dir, id);
        let file = self
            .disk
            .create(&path, true)
            .map_err(|e| Error::io(format!("cannot make the stage log's segment {}", path.display()), e))?;
        Failpoint::LogAfterNewSegment.reach();
        w.next_seq = above(id, self.mark); // so that a segment that stays empty does not give its number to the next one
        w.new_entries = true;
        let file = Arc::new(file);
        let info = SegmentInfo { id, len: 0, payload: 0, files: 0, first_at: self.clock.monotonic() };
        lock(&self.segments).by_id.insert(
            id,
            Segment {
                info,
                sealed: false,
                gaps: Vec::new(),
                verified: 0,
                damaged: Vec::new(),
                file: Some(file.clone()),
            },
        );
        Ok(Active { file, info, inodes: HashSet::new() })
    }

    fn seal_locked(&self, w: &mut Writer) -> Option<u64> {
        let active = w.active.take()?;
        let mut segments = lock(&self.segments);
        let id = active.info.id;
        if let Some(s) = segments.by_id.get_mut(&id) {
            s.info = active.info;
            s.sealed = true;
        }
        segments.open.push_back(id);
        segments.close_surplus();
        w.unsynced.push(Unsynced { id, file: active.file, len: active.info.len });
        Failpoint::LogAfterSeal.reach();
        Some(id)
    }

    /// Ends the active segment if it has records, so that the drain may take it.
    pub fn seal(&self) -> Option<u64> {
        let mut w = lock(&self.writer);
        if w.active.as_ref().is_none_or(|a| a.info.len == 0) {
            return None;
        }
        self.seal_locked(&mut w)
    }

    /// The segment that is being written, if it has records.
    pub fn active(&self) -> Option<SegmentInfo> {
        lock(&self.writer).active.as_ref().map(|a| a.info).filter(|i| i.len > 0)
    }

    /// Segments that are complete, oldest first.
    pub fn sealed(&self) -> Vec<SegmentInfo> {
        lock(&self.segments).by_id.values().filter(|s| s.sealed).map(|s| s.info).collect()
    }

    fn file(&self, id: u64) -> Result<Option<Arc<File>>> {
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

    /// Why nothing is accepted, while the disk fails to keep what is written.
    pub fn broken(&self) -> Option<Error> {
        lock(&self.writer).broken.as_ref().map(Error::duplicate)
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

/// The next sequence of a node after `seq`.
fn above(seq: u64, mark: Option<u16>) -> u64 {
    match mark {
        None => seq + 1,
        Some(mark) => (((seq >> NODE_BITS) + 1) << NODE_BITS) | u64::from(mark),
    }
}

impl Segment {
    fn has(&self, bytes: &Range<u64>) -> bool {
        let lost = |gap: &Range<u64>| gap.start < bytes.end && bytes.start < gap.end;
        bytes.end <= self.info.len && !self.gaps.iter().any(lost)
    }
}

impl Segments {
    fn close_surplus(&mut self) {
        while self.open.len() > SEALED_OPEN_MAX {
            let Some(id) = self.open.pop_front() else { return };
            if let Some(segment) = self.by_id.get_mut(&id) {
                segment.file = None;
            }
        }
    }
}

fn list_segments(dir: &Path) -> io::Result<Vec<u64>> {
    let mut ids = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let id = name.to_str().and_then(|n| n.strip_suffix(".log")).filter(|n| n.len() == 16);
        ids.extend(id.and_then(|n| u64::from_str_radix(n, 16).ok()));
    }
    ids.sort_unstable();
    Ok(ids)
}
