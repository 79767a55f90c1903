//! What the pages of a sparse stage file look like after each write, told by their checksums.
//!
//! A power loss takes any page that was not synced, and the log's record of a write may survive it without the bytes. A page
//! that only was written in part before may then have zeros, or older bytes, where the record says that something was written.
//! So each record has the checksums of the pages it left, and a page tells by its own which write it has seen last.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;

use super::disk::read_up_to;
use super::record::{Found, RecordKind};

/// What a power loss takes or leaves as a whole, in bytes.
pub(crate) const PAGE: u64 = 4096;

/// The numbers of the pages that have bytes of a range.
pub(crate) fn touched(offset: u64, len: u64) -> Range<u64> {
    offset / PAGE..offset.saturating_add(len).div_ceil(PAGE).max(offset / PAGE)
}

/// Checksums of the pages that `data`, just written at `offset`, has left in the file. Reads those that it fills in part.
pub(crate) fn sums(file: &File, offset: u64, data: &[u8]) -> io::Result<Vec<u32>> {
    let end = offset + data.len() as u64;
    let sum = |page: u64| {
        let (from, to) = (page * PAGE, (page + 1) * PAGE);
        if offset <= from && to <= end {
            return Ok(granary_core::crc32c(&data[(from - offset) as usize..(to - offset) as usize]));
        }
        sum_of(file, page)
    };
    touched(offset, data.len() as u64).map(sum).collect()
}

fn sum_of(file: &File, page: u64) -> io::Result<u32> {
    let mut bytes = read_up_to(file, page * PAGE, PAGE as usize)?;
    bytes.resize(PAGE as usize, 0);
    Ok(granary_core::crc32c(&bytes))
}

pub(crate) fn encode(sums: &[u32]) -> Vec<u8> {
    sums.iter().flat_map(|sum| sum.to_le_bytes()).collect()
}

pub(crate) fn decode(bytes: &[u8]) -> Vec<u32> {
    bytes.as_chunks().0.iter().map(|sum| u32::from_le_bytes(*sum)).collect()
}

/// After a power loss: the sequence of the first of these records of one file, oldest first, whose bytes are not all in its
/// stage file. A page that has seen a later write is not missed: as on any local disk, what is overwritten in place may be
/// there before what was written earlier elsewhere. A page that no record knows has seen none of them.
pub(crate) fn first_missing(file: &File, records: &[&Found]) -> io::Result<Option<u64>> {
    let mut versions: BTreeMap<u64, Vec<(u64, u32)>> = BTreeMap::new();
    for r in records.iter().filter(|r| r.head.kind == RecordKind::StagePages) {
        for (page, &sum) in touched(r.head.offset, r.head.len).zip(&r.pages) {
            versions.entry(page).or_default().push((r.head.seq, sum));
        }
    }
    let mut missing: Option<u64> = None;
    for (page, versions) in versions {
        let now = sum_of(file, page)?;
        let seen = versions.iter().rposition(|&(_, sum)| sum == now).map_or(0, |last| last + 1);
        if let Some(&(seq, _)) = versions.get(seen) {
            missing = Some(missing.map_or(seq, |first| first.min(seq)));
        }
    }
    Ok(missing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::Head;
    use granary_core::{Ino, Timestamp};
    use std::os::unix::fs::FileExt;

    /// A file, and the records of what was written to it.
    struct Written {
        file: File,
        records: Vec<Found>,
    }

    impl Written {
        fn new() -> Written {
            Written { file: tempfile::tempfile().unwrap(), records: Vec::new() }
        }

        fn write(&mut self, offset: u64, data: &[u8]) {
            self.file.write_all_at(data, offset).unwrap();
            let pages = sums(&self.file, offset, data).unwrap();
            assert_eq!(decode(&encode(&pages)), pages);
            let head = Head {
                kind: RecordKind::StagePages,
                ino: Ino(1),
                offset,
                len: data.len() as u64,
                seq: self.records.len() as u64 + 1,
                prev_seq: self.records.len() as u64,
                mtime: Timestamp::default(),
                crc: 0,
                durable: Some(0),
                hint: None,
            };
            self.records.push(Found { head, body: 0..0, pages });
        }

        fn page(&self, page: u64) -> Vec<u8> {
            let mut bytes = read_up_to(&self.file, page * PAGE, PAGE as usize).unwrap();
            bytes.resize(PAGE as usize, 0);
            bytes
        }

        fn first_missing(&self) -> Option<u64> {
            first_missing(&self.file, &self.records.iter().collect::<Vec<_>>()).unwrap()
        }
    }

    #[test]
    fn a_range_touches_the_pages_it_has_bytes_of() {
        assert_eq!(touched(0, 0), 0..0);
        assert_eq!(touched(5000, 0), 1..2);
        assert_eq!(touched(4095, 2), 0..2);
        assert_eq!(touched(4096, 4096), 1..2);
    }

    #[test]
    fn what_is_there_is_not_missed_however_it_overlaps() {
        let mut w = Written::new();
        w.write(100, &[1; 10_000]);
        w.write(5000, &[2; 1]);
        w.write(0, &[3; 4096]);
        w.write(20_000, &[4; 10]);
        assert_eq!(w.first_missing(), None);
        w.file.set_len(20_005).unwrap();
        assert_eq!(w.first_missing(), Some(4));
    }

    #[test]
    fn a_page_that_saw_an_earlier_write_misses_the_next() {
        let mut w = Written::new();
        w.write(0, &[1; 100]);
        let old = w.page(0);
        w.write(4096, &[2; 4096]);
        w.write(200, &[3; 100]);
        w.write(300, &[4; 100]);
        w.file.write_all_at(&old, 0).unwrap();
        assert_eq!(w.first_missing(), Some(3));
        w.file.write_all_at(&[0; 8192], 0).unwrap();
        assert_eq!(w.first_missing(), Some(1));
    }

    #[test]
    fn a_page_that_is_ahead_of_others_is_not_missed() {
        let mut w = Written::new();
        w.write(0, &[1; 10]);
        w.write(4096, &[2; 10]);
        w.write(0, &[3; 10]);
        w.file.write_all_at(&[0; 10], 4096).unwrap();
        assert_eq!(w.first_missing(), Some(2), "the third is there, but not what was before it");
    }
}
