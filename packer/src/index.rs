//! The index of a shard: where each file's bytes are, which files are one sample, and what the tar says of them.
//!
//! It lies beside its tar, `NAME.gidx` beside `NAME.tar`, and is used as it is, mapped into memory: opening reads 64 bytes and the
//! sums, whatever the number of files. All integers are little-endian.
//!
//! ```text
//! index = header | files | samples | sorted | owners | others | names | other names | frames | sums
//! ```
//!
//! # Header, version 1: 64 bytes
//!
//! | offset | size | what |
//! |---|---|---|
//! | 0 | 8 | magic `granaryX` |
//! | 8 | 1 | version: 1 |
//! | 9 | 1 | grouping: 0 files of one stem are a sample (WebDataset), 1 files of one directory |
//! | 10 | 2 | bytes of the shard behind its frames: those of its trailer, which has the checksum of this index |
//! | 12 | 4 | number of files `f` |
//! | 16 | 4 | number of samples `s`, at most `f` |
//! | 20 | 4 | number of others `o` |
//! | 24 | 4 | number of owners `w`, at most 65,535 |
//! | 28 | 4 | bytes of names |
//! | 32 | 4 | bytes of other names |
//! | 36 | 4 | number of frames `n`: of all bytes before those, or 0: there are none |
//! | 40 | 8 | bytes of the shard, trailer and all |
//! | 48 | 8 | bytes of all files together |
//! | 56 | 4 | crc32c of the sums |
//! | 60 | 4 | crc32c of the header's first 60 bytes: *the index's checksum*, which manifest and trailer have |
//!
//! The lengths of all sections follow from the header, and with them the length of the index.
//!
//! # Sections
//!
//! | section | bytes | what |
//! |---|---|---|
//! | files | 36 f | the regular files in the order of their payloads |
//! | samples | 4 s | each sample's first file; its last is the one before the next sample's first |
//! | sorted | 4 f | the files' numbers in the order of their paths' bytes |
//! | owners | 8 w | user, group: `u32` each |
//! | others | 28 o | directories, links and the like: they are in no sample |
//! | names | | the files' paths one after another, in the order of files |
//! | other names | | the others' paths, each followed by its target |
//! | frames | 4 n | crc32c of each 64 KiB of the shard, headers and all; the last may be short. A mount verifies by them what it reads |
//! | sums | | crc32c of each 64 KiB of the sections before it; the last may be short |
//!
//! A file:
//!
//! | offset | size | what |
//! |---|---|---|
//! | 0 | 4 | where its payload begins in the tar, in blocks of 512 bytes |
//! | 4 | 4 | crc32c of its payload |
//! | 8 | 8 | bytes of its payload |
//! | 16 | 4 | its sample |
//! | 20 | 4 | where its path begins in names; it ends where the next file's begins |
//! | 24 | 8 | time of modification, seconds since 1970, signed |
//! | 32 | 2 | mode: the twelve bits of permissions |
//! | 34 | 2 | owner |
//!
//! One of the others:
//!
//! | offset | size | what |
//! |---|---|---|
//! | 0 | 4 | where its path begins in other names |
//! | 4 | 2 | bytes of its path |
//! | 6 | 2 | bytes of its target, which follows: of links |
//! | 8 | 8 | time of modification |
//! | 16 | 2 | mode |
//! | 18 | 2 | owner |
//! | 20 | 1 | kind: the tar's type flag, `1` hard link, `2` symbolic link, `3` `4` devices, `5` directory, `6` pipe |
//! | 21 | 3 | 0 |
//! | 24 | 4 | how many files of the shard come before it |
//!
//! # What is checked when
//!
//! The header's checksum covers that of the sums, which cover all else. Header and sums are checked when an index is opened, each
//! 64 KiB when it is first touched, all of it by [`Index::verify`]. What is mapped is given back when it becomes too much ([`Resident`]), so
//! that memory is taken by what was used last, however large an index is and however many are open. Whatever the bytes say, an access gives an error and nothing
//! worse. Only a file that is cut short while it is mapped would end the process (SIGBUS): indexes are replaced by renaming, never
//! written over.

mod body;
mod builder;
mod frames;
mod header;
mod put;
mod record;
mod resident;
mod spool;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use granary_core::{Error, Kind, Result};

pub use builder::{Builder, NewFile, NewOther, Sealed};
pub use frames::{Summed, Summing, sums_at};
pub use header::Header;
pub use put::put;
pub use record::{File, Other};
pub use resident::Resident;

use crate::key::Grouping;
use crate::limits::INDEX_RESIDENT_BYTES_MAX;
use body::Body;
use record::{FILE_BYTES, FileRecord, OTHER_BYTES, OtherRecord};

/// The newest format this program reads, and the one it writes.
pub const VERSION: u8 = 1;

/// An open index. Clones share it.
#[derive(Clone, Debug)]
pub struct Index {
    header: Header,
    body: Arc<Body>,
}

impl Index {
    /// Maps a file; of it [`INDEX_RESIDENT_BYTES_MAX`] are resident at most.
    ///
    /// Errors: `NotFound`; `Corrupt` when it is no index, is cut or damaged; `Unsupported` when a newer program wrote it.
    pub fn open(path: &Path) -> Result<Index> {
        Index::open_within(path, &Resident::new(INDEX_RESIDENT_BYTES_MAX))
    }

    /// The same within a bound that others share.
    ///
    /// Errors: as [`Index::open`].
    pub fn open_within(path: &Path, within: &Arc<Resident>) -> Result<Index> {
        let name = path.display().to_string();
        Index::new(Body::map(path, within)?).map_err(|e| e.context(name))
    }

    /// The same of an open file, whose name errors do not have.
    ///
    /// Errors: as [`Index::open`].
    pub fn of_file(file: &std::fs::File, within: &Arc<Resident>) -> Result<Index> {
        Index::new(Body::map_file(file, within)?)
    }

    /// The same of bytes in memory.
    pub fn from_bytes(bytes: Bytes) -> Result<Index> {
        Index::new(Body::owned(bytes))
    }

    fn new(mut body: Body) -> Result<Index> {
        body.touch(&(0..body.all().len().min(header::HEADER_BYTES) as u64));
        let header = Header::decode(body.all())?;
        body.set_sums(header.layout().body(), header.layout().sums(), header.sums_crc)?;
        Ok(Index { header, body: Arc::new(body) })
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    pub fn file_count(&self) -> u32 {
        self.header.files
    }

    pub fn sample_count(&self) -> u32 {
        self.header.samples
    }

    pub fn other_count(&self) -> u32 {
        self.header.others
    }

    pub fn grouping(&self) -> Grouping {
        self.header.grouping
    }

    /// Bytes of the tar that this is the index of.
    pub fn shard_bytes(&self) -> u64 {
        self.header.shard_bytes
    }

    /// Bytes of the index itself.
    pub fn bytes(&self) -> u64 {
        self.body.all().len() as u64
    }

    /// The header's checksum, which covers all of the index: two indexes with the same are the same.
    pub fn crc32c(&self) -> u32 {
        self.header.crc
    }

    /// Errors: `Invalid` when there is no such file; `Corrupt`.
    pub fn file(&self, file: u32) -> Result<File<'_>> {
        let record = self.record(file)?;
        let path = self.path_of(file, &record)?;
        let (uid, gid) = self.owner(record.owner)?;
        if record.sample >= self.header.samples || record.end() > self.header.shard_bytes {
            return Err(corrupt(format!("its file {file} lies outside of its shard or of every sample")));
        }
        Ok(File {
            path,
            offset: record.offset(),
            length: record.length,
            crc32c: record.crc,
            sample: record.sample,
            mode: u32::from(record.mode),
            mtime: record.mtime,
            uid,
            gid,
        })
    }

    /// A file's path alone, for searches.
    ///
    /// Errors: as [`Index::file`].
    pub fn path(&self, file: u32) -> Result<&[u8]> {
        self.path_of(file, &self.record(file)?)
    }

    fn path_of(&self, file: u32, record: &FileRecord) -> Result<&[u8]> {
        let names = self.header.layout().names();
        let end = if file + 1 < self.header.files {
            self.record(file + 1)?.name_start.into()
        } else {
            names.end - names.start
        };
        self.part(&names, u64::from(record.name_start)..end)
    }

    /// The files of a sample: at least one.
    ///
    /// Errors: `Invalid` when there is no such sample; `Corrupt`.
    pub fn sample(&self, sample: u32) -> Result<Range<u32>> {
        if sample >= self.header.samples {
            return Err(out_of_range("sample", sample, self.header.samples));
        }
        let samples = self.header.layout().samples();
        let first = self.number(&samples, sample)?;
        let end = match sample + 1 < self.header.samples {
            true => self.number(&samples, sample + 1)?,
            false => self.header.files,
        };
        if first >= end || end > self.header.files || (sample == 0 && first != 0) {
            return Err(corrupt(format!("its sample {sample} has files {first}..{end}")));
        }
        Ok(first..end)
    }

    /// Where in the tar the payloads of a sample are: from its first's first byte to its last's last.
    ///
    /// Errors: as [`Index::sample`].
    pub fn sample_span(&self, sample: u32) -> Result<Range<u64>> {
        let files = self.sample(sample)?;
        let (first, last) = (self.record(files.start)?, self.record(files.end - 1)?);
        if first.offset() > last.end() || last.end() > self.header.shard_bytes {
            return Err(corrupt(format!("its sample {sample} lies outside of its shard")));
        }
        Ok(first.offset()..last.end())
    }

    /// What a sample is called.
    ///
    /// Errors: as [`Index::sample`].
    pub fn sample_key(&self, sample: u32) -> Result<&[u8]> {
        let files = self.sample(sample)?;
        Ok(self.grouping().split(self.file(files.start)?.path).0)
    }

    /// The file with this path.
    ///
    /// Errors: `Corrupt`.
    pub fn find(&self, path: &[u8]) -> Result<Option<u32>> {
        let at = self.lower_bound(path)?;
        if at == self.header.files {
            return Ok(None);
        }
        let file = self.sorted(at)?;
        Ok((self.file(file)?.path == path).then_some(file))
    }

    /// How many paths are less than this, byte by byte: where in the sorted order it is, or would be.
    ///
    /// Errors: `Corrupt`.
    pub fn lower_bound(&self, path: &[u8]) -> Result<u32> {
        let (mut low, mut high) = (0, self.header.files);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.path(self.sorted(middle)?)? < path {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        Ok(low)
    }

    /// The file at a place of the sorted order.
    ///
    /// Errors: `Invalid` when there is no such place; `Corrupt`.
    pub fn sorted(&self, place: u32) -> Result<u32> {
        if place >= self.header.files {
            return Err(out_of_range("place in the sorted order", place, self.header.files));
        }
        self.number(&self.header.layout().sorted(), place)
    }

    /// How many bytes of the shard have checksums of their frames: all before its trailer. `None`: the index has none.
    pub fn framed_bytes(&self) -> Option<u64> {
        let framed = self.header.shard_bytes - u64::from(self.header.unframed_bytes);
        (self.header.frames > 0).then_some(framed)
    }

    /// The crc32c of a frame: 64 KiB of the shard, or what is left at the end.
    ///
    /// Errors: `Invalid` when there is no such frame; `Corrupt`.
    pub fn frame(&self, frame: u32) -> Result<u32> {
        if frame >= self.header.frames {
            return Err(out_of_range("frame", frame, self.header.frames));
        }
        self.number(&self.header.layout().frames(), frame)
    }

    /// A directory, link or the like.
    ///
    /// Errors: `Invalid` when there is no such; `Corrupt`.
    pub fn other(&self, other: u32) -> Result<Other<'_>> {
        if other >= self.header.others {
            return Err(out_of_range("entry that is no file", other, self.header.others));
        }
        let layout = self.header.layout();
        let at = u64::from(other) * OTHER_BYTES as u64;
        let record = OtherRecord::decode(self.part(&layout.others(), at..at + OTHER_BYTES as u64)?)?;
        let start = u64::from(record.name_start);
        let end = start + u64::from(record.name_len) + u64::from(record.target_len);
        let both = self.part(&layout.other_names(), start..end)?;
        let (path, target) = both.split_at(usize::from(record.name_len));
        let (uid, gid) = self.owner(record.owner)?;
        Ok(Other {
            path,
            target,
            kind: record.kind,
            mode: u32::from(record.mode),
            mtime: record.mtime,
            uid,
            gid,
            files_before: record.files_before,
        })
    }

    /// Reads all of it: every checksum, and that its parts fit each other. Meanwhile all of it may be resident.
    ///
    /// Errors: `Corrupt`.
    pub fn verify(&self) -> Result<()> {
        self.body.sweep(|| self.verify_all())
    }

    fn verify_all(&self) -> Result<()> {
        self.body.check(&self.header.layout().body())?;
        let (mut end, mut bytes) = (0, 0u64);
        for sample in 0..self.header.samples {
            for file in self.sample(sample)? {
                let f = self.file(file)?;
                if f.sample != sample || f.offset < end || f.path.is_empty() {
                    return Err(corrupt(format!(
                        "its file {file} is in two samples, overlaps, or has no name"
                    )));
                }
                end = f.offset + f.length;
                bytes = bytes.saturating_add(f.length);
            }
        }
        if self.header.samples == 0 && self.header.files > 0 || bytes != self.header.payload_bytes {
            return Err(corrupt("its counts are not those of its files"));
        }
        let mut before: Option<&[u8]> = None;
        for place in 0..self.header.files {
            let path = self.file(self.sorted(place)?)?.path;
            if before.is_some_and(|before| before >= path) {
                return Err(corrupt(format!("its paths are out of order at place {place}")));
            }
            before = Some(path);
        }
        for other in 0..self.header.others {
            self.other(other)?;
        }
        Ok(())
    }

    fn record(&self, file: u32) -> Result<FileRecord> {
        if file >= self.header.files {
            return Err(out_of_range("file", file, self.header.files));
        }
        let at = u64::from(file) * FILE_BYTES as u64;
        FileRecord::decode(self.part(&self.header.layout().files(), at..at + FILE_BYTES as u64)?)
    }

    fn owner(&self, owner: u16) -> Result<(u32, u32)> {
        let owners = self.header.layout().owners();
        Ok((self.number(&owners, u32::from(owner) * 2)?, self.number(&owners, u32::from(owner) * 2 + 1)?))
    }

    fn number(&self, section: &Range<u64>, n: u32) -> Result<u32> {
        let at = u64::from(n) * 4;
        let mut bytes = [0; 4];
        bytes.copy_from_slice(self.part(section, at..at + 4)?);
        Ok(u32::from_le_bytes(bytes))
    }

    fn part(&self, section: &Range<u64>, part: Range<u64>) -> Result<&[u8]> {
        if part.start > part.end || part.end > section.end - section.start {
            return Err(corrupt("a number in it points outside of its section"));
        }
        self.body.get(section.start + part.start..section.start + part.end)
    }
}

fn corrupt(why: impl std::fmt::Display) -> Error {
    Error::new(Kind::Corrupt, format!("index is damaged: {why}; make it anew with `granary index`"))
}

fn out_of_range(what: &str, n: u32, count: u32) -> Error {
    Error::new(Kind::Invalid, format!("there is no {what} {n}: the shard has {count}"))
}
