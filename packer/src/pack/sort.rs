//! Sorting more records than fit into memory: sorted runs in unnamed files, then one merge over all of them.
//!
//! Several threads fill a [`Sorter`] each and their runs are merged together, so the order of the result does not depend on which
//! thread saw what. A record is a `u32` length and so many bytes. The files have no names: what a killed process leaves is nothing.

use std::cmp::Ordering;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};

use granary_core::{Error, Kind, Result};

/// Bytes read ahead of each run while runs are merged.
const RUN_BUFFER_BYTES: usize = 64 << 10;
/// Runs that are merged at once; with more, runs are first merged to fewer. So many descriptors, and so much of `RUN_BUFFER_BYTES`.
const FAN_IN_MAX: usize = 128;
/// Longest record, in bytes.
const RECORD_BYTES_MAX: usize = 64 << 20;

/// How two records, without their lengths, are ordered.
pub type Compare = fn(&[u8], &[u8]) -> Ordering;

/// Takes records in any order.
#[derive(Debug)]
pub struct Sorter {
    dir: PathBuf,
    compare: Compare,
    memory_bytes_max: usize,
    bytes: Vec<u8>,
    /// Where each record in `bytes` begins.
    starts: Vec<usize>,
    runs: Vec<File>,
    records: u64,
}

impl Sorter {
    /// `memory_bytes_max`: what it holds before it writes a run to `dir`.
    pub fn new(dir: &Path, compare: Compare, memory_bytes_max: usize) -> Sorter {
        Sorter {
            dir: dir.to_owned(),
            compare,
            memory_bytes_max,
            bytes: Vec::new(),
            starts: Vec::new(),
            runs: Vec::new(),
            records: 0,
        }
    }

    /// Appends the record that `write` makes, its length included.
    ///
    /// Errors: what the disk of the work directory says.
    pub fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        self.starts.push(self.bytes.len());
        write(&mut self.bytes);
        self.records += 1;
        let held = self.bytes.len() + self.starts.len() * size_of::<usize>();
        if held >= self.memory_bytes_max { self.spill() } else { Ok(()) }
    }

    /// Runs written so far.
    pub fn spills(&self) -> usize {
        self.runs.len()
    }

    fn sort(&mut self) {
        let (bytes, compare) = (&self.bytes, self.compare);
        self.starts.sort_unstable_by(|&a, &b| compare(record_at(bytes, a), record_at(bytes, b)));
    }

    fn spill(&mut self) -> Result<()> {
        if self.starts.is_empty() {
            return Ok(());
        }
        self.sort();
        let mut out = Out::new(&self.dir)?;
        for &start in &self.starts {
            out.write(record_at(&self.bytes, start))?;
        }
        self.runs.push(out.finish()?);
        self.bytes.clear();
        self.starts.clear();
        Ok(())
    }
}

/// All records of several sorters in order.
///
/// Errors: what the disk says.
pub fn merge(sorters: Vec<Sorter>) -> Result<Sorted> {
    let mut runs = Vec::new();
    let mut memory = Vec::new();
    let (mut records, mut spills, mut compare, mut dir) = (0, 0, None, PathBuf::new());
    for mut sorter in sorters {
        records += sorter.records;
        spills += sorter.spills();
        compare = Some(sorter.compare);
        dir.clone_from(&sorter.dir);
        if !sorter.runs.is_empty() {
            sorter.spill()?;
        }
        runs.append(&mut sorter.runs);
        sorter.sort();
        memory.push(Run::Memory { bytes: sorter.bytes, starts: sorter.starts, next: 0 });
    }
    let compare = compare.unwrap_or(<[u8]>::cmp);
    while runs.len() > FAN_IN_MAX {
        let rest = runs.split_off(FAN_IN_MAX);
        let mut heads = Sorted::over(runs.into_iter().map(Run::file).collect::<Result<_>>()?, compare)?;
        let mut out = Out::new(&dir)?;
        while let Some(record) = heads.next_record()? {
            out.write(record)?;
        }
        runs = rest;
        runs.push(out.finish()?);
    }
    let mut all = runs.into_iter().map(Run::file).collect::<Result<Vec<_>>>()?;
    all.append(&mut memory);
    Ok(Sorted { records, spills, ..Sorted::over(all, compare)? })
}

fn record_at(bytes: &[u8], start: usize) -> &[u8] {
    let mut len = [0; 4];
    len.copy_from_slice(&bytes[start..start + 4]);
    &bytes[start + 4..start + 4 + u32::from_le_bytes(len) as usize]
}

fn cannot(dir: &Path, e: std::io::Error) -> Error {
    let mend = "make room there, or name another folder (--work)";
    Error::io(format!("cannot keep a list of files in {}; {mend}", dir.display()), e)
}

/// A run, or any file of records, being written.
#[derive(Debug)]
pub struct Out {
    dir: PathBuf,
    file: BufWriter<File>,
    len: u64,
}

impl Out {
    pub fn new(dir: &Path) -> Result<Out> {
        let file = tempfile::tempfile_in(dir).map_err(|e| cannot(dir, e))?;
        Ok(Out { dir: dir.to_owned(), file: BufWriter::with_capacity(1 << 20, file), len: 0 })
    }

    /// Where the next record goes.
    pub fn position(&self) -> u64 {
        self.len
    }

    /// Appends a record, given without its length.
    pub fn write(&mut self, record: &[u8]) -> Result<()> {
        let len = (record.len() as u32).to_le_bytes();
        let written = self.file.write_all(&len).and_then(|()| self.file.write_all(record));
        self.len += record.len() as u64 + 4;
        written.map_err(|e| cannot(&self.dir, e))
    }

    /// The whole file, at its beginning.
    pub fn finish(self) -> Result<File> {
        let Out { dir, file, .. } = self;
        let mut file = file.into_inner().map_err(|e| cannot(&dir, e.into_error()))?;
        file.rewind().map_err(|e| cannot(&dir, e))?;
        Ok(file)
    }
}

/// Reads records one after another.
#[derive(Debug)]
pub struct In<R> {
    file: R,
    record: Vec<u8>,
}

impl<R: Read> In<R> {
    pub fn new(file: R) -> In<R> {
        In { file, record: Vec::new() }
    }

    /// The next record, without its length; `None` at the end.
    pub fn next_record(&mut self) -> Result<Option<&[u8]>> {
        let lost = |e| Error::io("cannot read a list of files back", e);
        let mut len = [0; 4];
        match self.file.read_exact(&mut len) {
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other.map_err(lost)?,
        }
        let len = u32::from_le_bytes(len) as usize;
        if len > RECORD_BYTES_MAX {
            return Err(Error::new(Kind::Corrupt, "a list of files is damaged on its disk"));
        }
        self.record.resize(len, 0);
        self.file.read_exact(&mut self.record).map_err(lost)?;
        Ok(Some(&self.record))
    }
}

#[derive(Debug)]
enum Run {
    Memory { bytes: Vec<u8>, starts: Vec<usize>, next: usize },
    File { records: In<BufReader<File>>, has: bool },
}

impl Run {
    fn file(mut file: File) -> Result<Run> {
        file.rewind().map_err(|e| Error::io("cannot read a list of files back", e))?;
        Ok(Run::File { records: In::new(BufReader::with_capacity(RUN_BUFFER_BYTES, file)), has: false })
    }

    /// Goes to the next record, at first to the first.
    fn advance(&mut self) -> Result<()> {
        match self {
            Run::Memory { next, .. } => *next += 1,
            Run::File { records, has } => *has = records.next_record()?.is_some(),
        }
        Ok(())
    }

    fn head(&self) -> Option<&[u8]> {
        match self {
            Run::Memory { bytes, starts, next } => Some(record_at(bytes, *starts.get(next.checked_sub(1)?)?)),
            Run::File { records, has } => has.then_some(&records.record),
        }
    }
}

/// Records in order, one after another.
#[derive(Debug)]
pub struct Sorted {
    runs: Vec<Run>,
    compare: Compare,
    /// A binary heap of runs' numbers, the one with the least head first; runs that ended have left.
    heap: Vec<usize>,
    /// Whether the first run's head was handed out and must be left behind.
    used: bool,
    records: u64,
    spills: usize,
}

impl Sorted {
    fn over(mut runs: Vec<Run>, compare: Compare) -> Result<Sorted> {
        for run in &mut runs {
            run.advance()?;
        }
        let heap = (0..runs.len()).filter(|&n| runs[n].head().is_some()).collect();
        let mut sorted = Sorted { runs, compare, heap, used: false, records: 0, spills: 0 };
        for at in (0..sorted.heap.len() / 2).rev() {
            sorted.sift(at);
        }
        Ok(sorted)
    }

    /// How many there are in all.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// How many runs went to the disk because memory was full.
    pub fn spills(&self) -> usize {
        self.spills
    }

    /// The next record, without its length; `None` at the end.
    ///
    /// Errors: what the disk says.
    pub fn next_record(&mut self) -> Result<Option<&[u8]>> {
        if std::mem::replace(&mut self.used, true) {
            let Some(&first) = self.heap.first() else { return Ok(None) };
            self.runs[first].advance()?;
            if self.runs[first].head().is_none() {
                self.heap.swap_remove(0);
            }
            self.sift(0);
        }
        Ok(self.heap.first().and_then(|&first| self.runs[first].head()))
    }

    /// Whether run `a` comes before run `b`; of equal records, the one of the earlier run.
    fn before(&self, a: usize, b: usize) -> bool {
        match (self.runs[a].head(), self.runs[b].head()) {
            (Some(x), Some(y)) => (self.compare)(x, y).then(a.cmp(&b)) == Ordering::Less,
            (x, _) => x.is_some(),
        }
    }

    fn sift(&mut self, mut at: usize) {
        loop {
            let mut least = at;
            for child in [2 * at + 1, 2 * at + 2] {
                if child < self.heap.len() && self.before(self.heap[child], self.heap[least]) {
                    least = child;
                }
            }
            if least == at {
                return;
            }
            self.heap.swap(at, least);
            at = least;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn put(out: &mut Vec<u8>, record: &[u8]) {
        out.extend_from_slice(&(record.len() as u32).to_le_bytes());
        out.extend_from_slice(record);
    }

    fn sort(shares: &[Vec<Vec<u8>>], memory_bytes_max: usize) -> (Vec<Vec<u8>>, usize) {
        let dir = tempfile::tempdir().unwrap();
        let sorters = shares.iter().map(|share| {
            let mut sorter = Sorter::new(dir.path(), <[u8]>::cmp, memory_bytes_max);
            for record in share {
                sorter.push(|out| put(out, record)).unwrap();
            }
            sorter
        });
        let mut sorted = merge(sorters.collect()).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "runs have no names");
        let mut all = Vec::new();
        while let Some(record) = sorted.next_record().unwrap() {
            all.push(record.to_vec());
        }
        assert_eq!(sorted.next_record().unwrap(), None);
        assert_eq!(all.len() as u64, sorted.records());
        (all, sorted.spills())
    }

    proptest! {
        #[test]
        fn as_a_sort_in_memory_whatever_spills(
            shares in proptest::collection::vec(
                proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..9), 0..200), 0..4),
            memory in prop_oneof![Just(1usize), 20usize..4_000],
        ) {
            let mut plain: Vec<Vec<u8>> = shares.iter().flatten().cloned().collect();
            plain.sort();
            prop_assert_eq!(sort(&shares, memory).0, plain);
        }
    }

    #[test]
    fn memory_is_bounded_by_spilling_and_many_runs_are_merged_in_rounds() {
        let records: Vec<Vec<u8>> =
            (0..5_000u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes().to_vec()).collect();
        let mut plain = records.clone();
        plain.sort();
        let (got, spills) = sort(std::slice::from_ref(&records), 16 * 10);
        assert_eq!(got, plain);
        assert_eq!(spills, 500, "each of ten records of 16 bytes");
        assert_eq!(sort(&[records], 1 << 20).1, 0);
    }
}
