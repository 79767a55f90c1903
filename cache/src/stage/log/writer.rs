//! The end that is written: records appended to the active segment, which is sealed when it is full.

use std::collections::HashSet;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use granary_core::limits::OBJECT_PAYLOAD_MAX;
use granary_core::{Error, Failpoint, Result};

use super::bound::{self, SEQUENCE};
use super::segments::{Segment, SegmentInfo, segment_path};
use super::{Log, SEQUENCE_STEP, above};
use crate::stage::disk::write_all;
use crate::stage::record::{self, Head};
use crate::util::lock;

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

#[derive(Debug)]
pub(super) struct Active {
    pub file: Arc<File>,
    pub info: SegmentInfo,
    pub inodes: HashSet<u64>,
}

/// A segment with bytes that may be in the page cache alone.
#[derive(Clone, Debug)]
pub(super) struct Unsynced {
    pub id: u64,
    pub file: Arc<File>,
    pub len: u64,
}

#[derive(Debug)]
pub(super) struct Writer {
    pub active: Option<Active>,
    pub next_seq: u64,
    /// Of the last record that was appended, 0: none was.
    pub last_seq: u64,
    /// What `log/sequence` says.
    pub bound: u64,
    pub header: Vec<u8>,
    /// Sealed, and not synced since.
    pub unsynced: Vec<Unsynced>,
    /// Segment and length that the last sync of an active one covered.
    pub synced: (u64, u64),
    pub new_entries: bool,
    /// The disk failed to keep something: nothing more is accepted, and nothing is called durable, until it was written again.
    pub broken: Option<Error>,
}

impl Log {
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
        lock(&self.segments).by_id.insert(id, Segment::new(info, Some(file.clone())));
        Ok(Active { file, info, inodes: HashSet::new() })
    }

    pub(super) fn seal_locked(&self, w: &mut Writer) -> Option<u64> {
        let active = w.active.take()?;
        let mut segments = lock(&self.segments);
        let id = active.info.id;
        if let Some(s) = segments.by_id.get_mut(&id) {
            s.info = active.info;
            s.inodes = active.inodes;
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

    /// Why nothing is accepted, while the disk fails to keep what is written.
    pub fn broken(&self) -> Option<Error> {
        lock(&self.writer).broken.as_ref().map(Error::duplicate)
    }
}
