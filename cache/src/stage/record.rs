//! One record of the stage log: what was done to a file, and for a write the bytes.
//!
//! Integers are little-endian. Records follow one another without padding.
//!
//! | offset | size | what |
//! |---|---|---|
//! | 0 | 4 | magic `GSLr` |
//! | 4 | 1 | version: 3 |
//! | 5 | 1 | kind: 1 write, 2 truncate, 3 zero, 4 stage file begun, 5 range written to a sparse stage file (up to version 2), 6 ranges shared past the log, 7 gap, 8 range written to a sparse stage file, with its pages' checksums |
//! | 6 | 2 | header length `h` in bytes, its checksum included |
//! | 8 | 4 | namespace id |
//! | 12 | 8 | inode |
//! | 20 | 8 | file offset; truncate: the new size |
//! | 28 | 8 | length in bytes: of the payload (write), of the range (zero, range written), of what follows the header (gap), 0 (the others) |
//! | 36 | 8 | sequence, growing within the namespace's stage |
//! | 44 | 8 | sequence of the record before it of the same inode that this node knew of, 0: none. Replay stops at a gap |
//! | 52 | 8 | modification time, seconds |
//! | 60 | 4 | modification time, nanoseconds |
//! | 64 | 4 | crc32c of the payload, or of the pages' checksums |
//! | 68 | 8 | inode of the directory the file was in, 0: not known |
//! | 76 | 8 | sequence of the last record of this run of the node that was known to survive a power loss, 0: none yet. Not in version 1 |
//! | 84 | 2 | length of the name `n`, 0 to 255 |
//! | 86 | n | the name it had there |
//! | h-4 | 4 | crc32c of the segment number (8 bytes), the offset of the record in the segment (8 bytes) and the header so far |
//! | h | length | a write's payload; what a gap passes over, of which nothing is known |
//! | h | 4 each | kind 8: crc32c of each page of 4 KiB of the stage file that the range touches, as it was after the write, zeros behind the file's end |
//!
//! Because segment and offset are in the checksum, a copy of a log in a file's bytes is never taken for a record.
//!
//! A power loss may take any page of what was not synced, also one with later ones behind it. The newest record tells how far the
//! log was durable: records that are lost behind that were never promised, and recovery puts a *gap* in their place, so that
//! nobody takes them for damage later. Records that are lost before it were damaged.

use std::ops::Range;
use std::sync::Arc;

use granary_core::codec::{Put, Reader};
use granary_core::{Ino, NamespaceId, Result, Timestamp};

use super::pages;
use crate::tree::PathHint;

pub(crate) const MAGIC: [u8; 4] = *b"GSLr";
const VERSION: u8 = 3;
/// A header without the name and the checksum.
const FIXED: usize = 86;
const FIXED_V1: usize = 78;
/// The header of a gap, and of any record without a name.
pub(crate) const GAP_HEADER: usize = FIXED + 4;
/// Longest header: a name of 255 bytes.
pub(crate) const HEADER_MAX: usize = FIXED + 255 + 4;
/// Longest payload of one record. A larger write becomes several.
pub(crate) const PAYLOAD_MAX: usize = 4 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecordKind {
    Write,
    Truncate,
    Zero,
    StageFile,
    /// As version 2 wrote it: nothing tells later whether the bytes survived.
    StageRange,
    StagePages,
    Shared,
    /// Lost with a power loss, before it was durable.
    Gap,
}

impl RecordKind {
    fn code(self) -> u8 {
        match self {
            RecordKind::Write => 1,
            RecordKind::Truncate => 2,
            RecordKind::Zero => 3,
            RecordKind::StageFile => 4,
            RecordKind::StageRange => 5,
            RecordKind::Shared => 6,
            RecordKind::Gap => 7,
            RecordKind::StagePages => 8,
        }
    }

    fn from_code(code: u8) -> Option<RecordKind> {
        Some(match code {
            1 => RecordKind::Write,
            2 => RecordKind::Truncate,
            3 => RecordKind::Zero,
            4 => RecordKind::StageFile,
            5 => RecordKind::StageRange,
            6 => RecordKind::Shared,
            7 => RecordKind::Gap,
            8 => RecordKind::StagePages,
            _ => return None,
        })
    }
}

/// A record without its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub kind: RecordKind,
    pub ino: Ino,
    /// File offset; the new size of a truncation.
    pub offset: u64,
    pub len: u64,
    /// Given by the log when it is appended.
    pub seq: u64,
    pub prev_seq: u64,
    pub mtime: Timestamp,
    /// crc32c of the body.
    pub crc: u32,
    /// Sequence of the last record that was durable when the log appended this one. `None`: version 1 does not say.
    pub durable: Option<u64>,
    pub hint: Option<Arc<PathHint>>,
}

impl Head {
    pub fn encoded_len(&self) -> usize {
        FIXED + self.hint.as_ref().map_or(0, |h| h.name.len().min(255)) + 4
    }

    /// Bytes of the file in it.
    pub fn payload_len(&self) -> u64 {
        if self.kind == RecordKind::Write { self.len } else { 0 }
    }

    /// Bytes between the header and the next record.
    pub fn body_len(&self) -> u64 {
        match self.kind {
            RecordKind::Write | RecordKind::Gap => self.len,
            RecordKind::StagePages => 4 * pages::touched(self.offset, self.len).count() as u64,
            _ => 0,
        }
    }

    /// In the place of records that are lost, `len` bytes of them, after the one with sequence `seq`.
    pub fn gap(seq: u64, len: usize) -> Head {
        Head {
            kind: RecordKind::Gap,
            ino: Ino(0),
            offset: 0,
            len: len.saturating_sub(GAP_HEADER) as u64,
            seq,
            prev_seq: 0,
            mtime: Timestamp::default(),
            crc: 0,
            durable: Some(0),
            hint: None,
        }
    }
}

fn position_crc(segment: u64, at: u64) -> u32 {
    granary_core::crc32c_append(granary_core::crc32c(&segment.to_le_bytes()), &at.to_le_bytes())
}

/// Appends the header of a record that will lie at byte `at` of `segment`.
pub(crate) fn encode(head: &Head, ns: NamespaceId, segment: u64, at: u64, out: &mut Vec<u8>) {
    let start = out.len();
    let (dir, name) = head.hint.as_ref().map_or((0, &[][..]), |h| (h.dir.0, &h.name[..]));
    let name = &name[..name.len().min(255)];
    out.extend_from_slice(&MAGIC);
    out.put_u8(VERSION);
    out.put_u8(head.kind.code());
    out.put_u16((FIXED + name.len() + 4) as u16);
    out.put_u32(ns.0);
    out.put_u64(head.ino.0);
    out.put_u64(head.offset);
    out.put_u64(head.len);
    out.put_u64(head.seq);
    out.put_u64(head.prev_seq);
    out.put_i64(head.mtime.secs);
    out.put_u32(head.mtime.nanos);
    out.put_u32(head.crc);
    out.put_u64(dir);
    out.put_u64(head.durable.unwrap_or(0));
    out.put_bytes16(name);
    let crc = granary_core::crc32c_append(position_crc(segment, at), &out[start..]);
    out.put_u32(crc);
}

/// Reads the header at byte `at` of `segment` from the front of `bytes`; returns its length too.
pub(crate) fn decode(bytes: &[u8], ns: NamespaceId, segment: u64, at: u64) -> Result<(Head, usize)> {
    let mut r = Reader::new(bytes, "a record of the stage log");
    if r.take(4)? != MAGIC {
        return Err(r.corrupt("it does not begin with the magic"));
    }
    let version = r.version(VERSION)?;
    let fixed = if version == 1 { FIXED_V1 } else { FIXED };
    let kind = r.u8()?;
    let len = usize::from(r.u16()?);
    if !(fixed + 4..=fixed + 255 + 4).contains(&len) || len > bytes.len() {
        return Err(r.corrupt("its header's length is wrong"));
    }
    let (body, mut tail) =
        (&bytes[..len - 4], Reader::new(&bytes[len - 4..len], "a record of the stage log"));
    if tail.u32()? != granary_core::crc32c_append(position_crc(segment, at), body) {
        return Err(r.corrupt("its header's checksum does not match"));
    }
    let Some(kind) = RecordKind::from_code(kind) else { return Err(r.corrupt("its kind is not known")) };
    if r.u32()? != ns.0 {
        return Err(r.corrupt("it is of another namespace"));
    }
    let (ino, offset, length, seq, prev_seq) = (Ino(r.u64()?), r.u64()?, r.u64()?, r.u64()?, r.u64()?);
    let mtime = Timestamp { secs: r.i64()?, nanos: r.u32()? };
    let (crc, dir) = (r.u32()?, r.u64()?);
    let durable = if version == 1 { None } else { Some(r.u64()?) };
    let name = r.bytes16()?;
    if offset.checked_add(length).is_none() || (kind == RecordKind::Write && length > PAYLOAD_MAX as u64) {
        return Err(r.corrupt("its length is impossible"));
    }
    let hint =
        (dir != 0 || !name.is_empty()).then(|| Arc::new(PathHint { dir: Ino(dir), name: name.to_vec() }));
    Ok((Head { kind, ino, offset, len: length, seq, prev_seq, mtime, crc, durable, hint }, len))
}

/// A record found by [`scan`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub head: Head,
    /// Where its body is in the segment: its payload; of a gap, what it passes over.
    pub body: Range<usize>,
    /// crc32c of each page that it left in a stage file.
    pub pages: Vec<u32>,
}

/// A stretch of a segment that is no good record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    pub range: Range<usize>,
    /// Of the last good record before it in the segment; the segment's own number when there is none.
    pub after: u64,
    pub why: String,
}

/// What a segment holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scanned {
    pub records: Vec<Found>,
    /// In order. When the last one reaches the end of the segment it is a torn tail.
    pub damage: Vec<Damage>,
}

impl Scanned {
    /// The records of files: all but gaps.
    pub fn files(&self) -> impl Iterator<Item = &Found> {
        self.records.iter().filter(|r| r.head.kind != RecordKind::Gap)
    }

    /// Bytes up to the end of the last good record.
    pub fn good_len(&self) -> usize {
        self.records.last().map_or(0, |r| r.body.end)
    }
}

/// All records of a segment, payloads verified. Damage is passed over: the scan goes on at the next good header.
pub(crate) fn scan(bytes: &[u8], ns: NamespaceId, segment: u64) -> Scanned {
    scan_from(bytes, ns, segment, 0)
}

/// The same of a part of the segment that begins at byte `base`, where a record does. What is found is told by its place in
/// `bytes`.
pub(crate) fn scan_from(bytes: &[u8], ns: NamespaceId, segment: u64, base: u64) -> Scanned {
    let mut out = Scanned::default();
    let mut at = 0;
    while at < bytes.len() {
        let after = out.records.last().map_or(segment, |r| r.head.seq);
        let why = match decode(&bytes[at..], ns, segment, base + at as u64) {
            Ok((head, header)) => {
                let body = at + header..at + header + head.body_len() as usize;
                match bytes.get(body.clone()) {
                    Some(b) if head.kind == RecordKind::Gap || granary_core::crc32c(b) == head.crc => {
                        at = body.end;
                        let pages =
                            if head.kind == RecordKind::StagePages { pages::decode(b) } else { Vec::new() };
                        out.records.push(Found { head, body, pages });
                        continue;
                    }
                    Some(_) => {
                        let why = format!("the bytes of inode {} do not match their checksum", head.ino);
                        out.damage.push(Damage { range: at..body.end, after, why });
                        at = body.end;
                        continue;
                    }
                    None => format!("the bytes of inode {} end too early", head.ino),
                }
            }
            Err(e) => e.to_string(),
        };
        let next = resync(bytes, ns, segment, base, at + 1);
        out.damage.push(Damage { range: at..next, after, why });
        at = next;
    }
    out
}

/// Where the next good header begins, or the end.
fn resync(bytes: &[u8], ns: NamespaceId, segment: u64, base: u64, from: usize) -> usize {
    let mut at = from;
    while let Some(found) = bytes.get(at..).and_then(|rest| rest.windows(4).position(|w| w == MAGIC)) {
        at += found;
        if decode(&bytes[at..], ns, segment, base + at as u64).is_ok() {
            return at;
        }
        at += 1;
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NS: NamespaceId = NamespaceId(3);

    /// Records whose every byte is known; and gaps, of whose bodies nothing is.
    fn heads_and_gaps() -> impl Strategy<Value = (Head, Vec<u8>)> {
        let gap = proptest::collection::vec(any::<u8>(), 0..200)
            .prop_map(|body| (Head::gap(body.len() as u64, GAP_HEADER + body.len()), body));
        prop_oneof![7 => heads(), 1 => gap]
    }

    fn heads() -> impl Strategy<Value = (Head, Vec<u8>)> {
        let kind = prop_oneof![
            3 => Just(RecordKind::Write),
            1 => Just(RecordKind::Truncate),
            1 => Just(RecordKind::Zero),
            1 => Just(RecordKind::StageFile),
            1 => Just(RecordKind::StageRange),
            1 => Just(RecordKind::StagePages),
            1 => Just(RecordKind::Shared)
        ];
        let payload = proptest::collection::vec(any::<u8>(), 0..200);
        let hint = proptest::option::of((1u64.., proptest::collection::vec(any::<u8>(), 0..=255)));
        (
            kind,
            any::<[u64; 4]>(),
            0u64..1 << 50,
            0u64..1 << 50,
            any::<i64>(),
            0u32..1_000_000_000,
            payload,
            hint,
        )
            .prop_map(
                |(kind, [ino, seq, prev_seq, durable], offset, len, secs, nanos, payload, hint)| {
                    let (payload, len) = match kind {
                        RecordKind::Write => (payload.clone(), payload.len() as u64),
                        RecordKind::StagePages => {
                            let len = len % (100 * pages::PAGE);
                            let sums = pages::touched(offset, len).map(|page| page as u32 ^ 0x1234);
                            (pages::encode(&sums.collect::<Vec<_>>()), len)
                        }
                        _ => (Vec::new(), len),
                    };
                    let head = Head {
                        kind,
                        ino: Ino(ino),
                        offset,
                        len,
                        seq,
                        prev_seq,
                        mtime: Timestamp { secs, nanos },
                        crc: granary_core::crc32c(&payload),
                        durable: Some(durable),
                        hint: hint.map(|(dir, name)| Arc::new(PathHint { dir: Ino(dir), name })),
                    };
                    (head, payload)
                },
            )
    }

    fn segment(records: &[(Head, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (head, payload) in records {
            let at = bytes.len() as u64;
            encode(head, NS, 7, at, &mut bytes);
            assert_eq!(bytes.len() as u64 - at, head.encoded_len() as u64);
            bytes.extend_from_slice(payload);
        }
        bytes
    }

    fn found(records: &[Found], bytes: &[u8]) -> Vec<(Head, Vec<u8>)> {
        records.iter().map(|f| (f.head.clone(), bytes[f.body.clone()].to_vec())).collect()
    }

    proptest! {
        #[test]
        fn what_is_written_is_found(records in proptest::collection::vec(heads_and_gaps(), 0..12)) {
            let bytes = segment(&records);
            let scanned = scan(&bytes, NS, 7);
            prop_assert_eq!(found(&scanned.records, &bytes), records);
            prop_assert!(scanned.damage.is_empty());
        }

        #[test]
        fn a_torn_tail_ends_the_scan(records in proptest::collection::vec(heads(), 1..8), cut: prop::sample::Index, zeros in 0usize..40) {
            let mut bytes = segment(&records);
            let cut = cut.index(bytes.len());
            bytes.truncate(cut);
            bytes.resize(cut + zeros, 0);
            let scanned = scan(&bytes, NS, 7);
            let good = found(&scanned.records, &bytes);
            prop_assert!(good.len() <= records.len());
            prop_assert_eq!(&good[..], &records[..good.len()], "what is found is a prefix");
            prop_assert!(scanned.damage.iter().all(|d| d.range.start >= scanned.good_len()));
            prop_assert_eq!(scanned.damage.is_empty(), scanned.good_len() == bytes.len());
        }

        #[test]
        fn a_damaged_byte_loses_its_record_only(records in proptest::collection::vec(heads(), 1..8), at: prop::sample::Index, flip in 1u8..) {
            let mut bytes = segment(&records);
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            let scanned = scan(&bytes, NS, 7);
            let good = found(&scanned.records, &bytes);
            let mut ends = Vec::new();
            let mut end = 0;
            for (head, payload) in &records {
                end += head.encoded_len() + payload.len();
                ends.push(end);
            }
            let hit = ends.iter().position(|&e| at < e).unwrap();
            let mut left = records.clone();
            left.remove(hit);
            prop_assert_eq!(good, left);
            prop_assert!(!scanned.damage.is_empty());
            prop_assert!(scanned.damage.iter().any(|d| d.range.contains(&at)));
        }
    }

    #[test]
    fn a_log_inside_a_files_bytes_is_no_record() {
        let write = |payload: &[u8]| Head {
            kind: RecordKind::Write,
            ino: Ino(1),
            offset: 0,
            len: payload.len() as u64,
            seq: 1,
            prev_seq: 0,
            mtime: Timestamp::default(),
            crc: granary_core::crc32c(payload),
            durable: Some(0),
            hint: None,
        };
        let inner = segment(&[(write(b"inner"), b"inner".to_vec())]);
        let mut bytes = segment(&[(write(&inner), inner.clone())]);
        bytes[5] ^= 1; // the outer header is damaged, the inner one is intact, but elsewhere than it says
        assert!(scan(&bytes, NS, 7).records.is_empty());
        assert!(scan(&inner, NS, 8).records.is_empty(), "another segment's bytes");
        assert!(scan(&inner, NamespaceId(4), 7).records.is_empty(), "another namespace's bytes");
        assert_eq!(scan(&inner, NS, 7).records.len(), 1);
    }

    /// The record as version 1 had it: without the sequence that was durable.
    fn version_1(head: &Head, payload: &[u8]) -> Vec<u8> {
        let mut new = Vec::new();
        encode(head, NS, 7, 0, &mut new);
        let len = (new.len() - 8) as u16;
        let mut old = [&new[..76], &new[84..new.len() - 4]].concat();
        old[4] = 1;
        old[6..8].copy_from_slice(&len.to_le_bytes());
        let crc = granary_core::crc32c_append(position_crc(7, 0), &old);
        [&old, &crc.to_le_bytes()[..], payload].concat()
    }

    #[test]
    fn what_version_1_wrote_is_read() {
        let payload = b"bytes".to_vec();
        let head = Head {
            kind: RecordKind::Write,
            ino: Ino(9),
            offset: 3,
            len: 5,
            seq: 8,
            prev_seq: 7,
            mtime: Timestamp { secs: 1, nanos: 2 },
            crc: granary_core::crc32c(&payload),
            durable: None,
            hint: Some(Arc::new(PathHint { dir: Ino(1), name: b"name".to_vec() })),
        };
        let bytes = version_1(&head, &payload);
        let scanned = scan(&bytes, NS, 7);
        assert_eq!(found(&scanned.records, &bytes), [(head, payload)]);
        assert!(scanned.damage.is_empty());
    }

    #[test]
    fn a_range_as_version_2_wrote_it_has_no_checksums() {
        let head = Head { kind: RecordKind::StageRange, len: 10_000, ..Head::gap(8, GAP_HEADER) };
        let mut bytes = Vec::new();
        encode(&head, NS, 7, 0, &mut bytes);
        bytes[4] = 2;
        let end = bytes.len() - 4;
        let crc = granary_core::crc32c_append(position_crc(7, 0), &bytes[..end]);
        bytes[end..].copy_from_slice(&crc.to_le_bytes());
        let scanned = scan(&bytes, NS, 7);
        assert_eq!(scanned.records, [Found { head, body: end + 4..end + 4, pages: Vec::new() }]);
        assert!(scanned.damage.is_empty());
    }

    #[test]
    fn a_gap_takes_the_place_of_lost_records() {
        let mut bytes = segment(&[(Head::gap(3, GAP_HEADER + 10), vec![0xee; 10])]);
        bytes[GAP_HEADER + 4] = 1;
        let scanned = scan(&bytes, NS, 7);
        assert_eq!((scanned.records.len(), scanned.damage.len()), (1, 0));
        assert_eq!(scanned.records[0].body, GAP_HEADER..GAP_HEADER + 10);
        let least = Head::gap(3, GAP_HEADER);
        assert_eq!((least.len, least.encoded_len()), (0, GAP_HEADER), "it fits in the place of any record");
    }
}
