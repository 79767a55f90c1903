//! Building an index: files in the order of the shard, with 4 bytes of memory for each while their paths are sorted.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

use granary_core::codec::Put;
use granary_core::{Error, Kind, Result};

use super::body::BLOCK_BYTES;
use super::frames::{Frame, Summed};
use super::header::{HEADER_BYTES, Header, too_large};
use super::record::{FILE_BYTES, FileRecord, OtherRecord};
use super::spool::{Spool, Spooled};
use crate::key::Grouping;
use crate::limits::{NAMES_BYTES_MAX, OWNERS_MAX, PATH_BYTES_MAX, SHARD_BYTES_MAX, SHARD_FILES_MAX};

/// A file as its shard has it.
#[derive(Clone, Copy, Debug)]
pub struct NewFile<'a> {
    pub path: &'a [u8],
    /// Where its payload begins in the tar: a multiple of 512.
    pub offset: u64,
    pub length: u64,
    pub crc32c: u32,
    /// Of it the twelve bits of permissions are kept.
    pub mode: u32,
    pub mtime: i64,
    pub uid: u32,
    pub gid: u32,
}

/// A directory, link or the like; its fields are those of [`Other`](super::Other).
#[derive(Clone, Copy, Debug)]
pub struct NewOther<'a> {
    pub path: &'a [u8],
    pub target: &'a [u8],
    pub kind: u8,
    pub mode: u32,
    pub mtime: i64,
    pub uid: u32,
    pub gid: u32,
}

/// Takes what is in a shard, in the shard's order.
#[derive(Debug)]
pub struct Builder {
    grouping: Grouping,
    files: Spool,
    samples: Spool,
    names: Spool,
    others: Spool,
    other_names: Spool,
    frames: Spool,
    frame: Frame,
    owners: HashMap<(u32, u32), u16>,
    owner_list: Vec<u8>,
    file_count: u32,
    sample_count: u32,
    other_count: u32,
    payload_bytes: u64,
    end: u64,
    key: Vec<u8>,
}

impl Builder {
    /// What does not fit into memory goes to unnamed files in `work_dir`.
    pub fn new(grouping: Grouping, work_dir: &Path) -> Builder {
        let spool = || Spool::new(work_dir);
        Builder {
            grouping,
            files: spool(),
            samples: spool(),
            names: spool(),
            others: spool(),
            other_names: spool(),
            frames: spool(),
            frame: Frame::default(),
            owners: HashMap::new(),
            owner_list: Vec::new(),
            file_count: 0,
            sample_count: 0,
            other_count: 0,
            payload_bytes: 0,
            end: 0,
            key: Vec::new(),
        }
    }

    pub fn file_count(&self) -> u32 {
        self.file_count
    }

    pub fn sample_count(&self) -> u32 {
        self.sample_count
    }

    /// Files with the key of the file before them are of its sample. Returns the file's number.
    ///
    /// Errors: `FileTooLarge` when the shard has more than an index can hold; `Invalid` for a path that cannot be; `Bug` when
    /// files overlap or are out of order; what the disk says.
    pub fn push(&mut self, file: &NewFile<'_>) -> Result<u32> {
        check_path(file.path)?;
        let end = file.offset.checked_add(file.length).filter(|&end| end <= SHARD_BYTES_MAX);
        let Some(end) = end else { return Err(too_large("many bytes")) };
        if !file.offset.is_multiple_of(512) || file.offset < self.end {
            return Err(Error::new(
                Kind::Bug,
                format!("{:?} begins at byte {}, where it cannot", lossy(file.path), file.offset),
            ));
        }
        if self.file_count == SHARD_FILES_MAX || self.names.len() + file.path.len() as u64 > NAMES_BYTES_MAX {
            return Err(too_large("many files"));
        }
        let owner = self.owner(file.uid, file.gid)?;
        let key = self.grouping.split(file.path).0;
        let number = self.file_count;
        if number == 0 || self.key != key {
            self.key.clear();
            self.key.extend_from_slice(key);
            self.samples.append(|out| out.put_u32(number))?;
            self.sample_count += 1;
        }
        let record = FileRecord {
            blocks: (file.offset / 512) as u32,
            crc: file.crc32c,
            length: file.length,
            sample: self.sample_count - 1,
            name_start: self.names.len() as u32,
            mtime: file.mtime,
            mode: (file.mode & 0o7777) as u16,
            owner,
        };
        self.files.append(|out| record.encode(out))?;
        self.names.append(|out| out.extend_from_slice(file.path))?;
        self.file_count += 1;
        self.payload_bytes += file.length;
        self.end = end;
        Ok(number)
    }

    /// Errors: as [`Builder::push`].
    pub fn push_other(&mut self, other: &NewOther<'_>) -> Result<()> {
        check_path(other.path)?;
        let bytes = (other.path.len() + other.target.len()) as u64;
        if other.target.len() > PATH_BYTES_MAX {
            return Err(Error::new(
                Kind::NameTooLong,
                format!("the target of the link {:?} is longer than 4,096 bytes", lossy(other.path)),
            ));
        }
        if self.other_count == SHARD_FILES_MAX || self.other_names.len() + bytes > NAMES_BYTES_MAX {
            return Err(too_large("many entries"));
        }
        let record = OtherRecord {
            name_start: self.other_names.len() as u32,
            name_len: other.path.len() as u16,
            target_len: other.target.len() as u16,
            mtime: other.mtime,
            mode: (other.mode & 0o7777) as u16,
            owner: self.owner(other.uid, other.gid)?,
            kind: other.kind,
            files_before: self.file_count,
        };
        self.others.append(|out| record.encode(out))?;
        self.other_names.append(|out| {
            out.extend_from_slice(other.path);
            out.extend_from_slice(other.target);
        })?;
        self.other_count += 1;
        Ok(())
    }

    /// The shard's next bytes, for the checksums of its frames: all from its first on, but its trailer. Without any of them the
    /// index has no frames.
    ///
    /// Errors: what the disk says.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        let Builder { frame, frames, .. } = self;
        frame.add(bytes, &mut |crc| frames.append(|out| out.put_u32(crc)))
    }

    /// The same of bytes that were summed elsewhere.
    ///
    /// Errors: what the disk says.
    pub fn summed(&mut self, sums: &[Summed]) -> Result<()> {
        let Builder { frame, frames, .. } = self;
        sums.iter()
            .try_for_each(|&sum| frame.add_summed(sum, &mut |crc| frames.append(|out| out.put_u32(crc))))
    }

    fn owner(&mut self, uid: u32, gid: u32) -> Result<u16> {
        let next = self.owners.len();
        match self.owners.entry((uid, gid)) {
            std::collections::hash_map::Entry::Occupied(known) => Ok(*known.get()),
            std::collections::hash_map::Entry::Vacant(_) if next == OWNERS_MAX => {
                Err(too_large("many owners"))
            }
            std::collections::hash_map::Entry::Vacant(new) => {
                self.owner_list.put_u32(uid);
                self.owner_list.put_u32(gid);
                Ok(*new.insert(next as u16))
            }
        }
    }

    /// Sorts the paths. `shard_bytes` is the length of the whole tar, trailer and all.
    ///
    /// Errors: `Exists` when two files have one path; what the disk says.
    pub fn seal(mut self, shard_bytes: u64) -> Result<Sealed> {
        let framed = self.frame.total;
        let unframed_bytes = match framed {
            0 => 0,
            _ => shard_bytes.checked_sub(framed).and_then(|n| u16::try_from(n).ok()).ok_or_else(|| {
                Error::new(Kind::Bug, format!("{framed} bytes of a shard of {shard_bytes} were summed"))
            })?,
        };
        if let Some(crc) = self.frame.end() {
            self.frames.append(|out| out.put_u32(crc))?;
        }
        let (files, names) = (self.files.finish()?, self.names.finish()?);
        let name_start = |file: u32| {
            let at = file as usize * FILE_BYTES + 20;
            let mut bytes = [0; 4];
            bytes.copy_from_slice(&files[at..at + 4]);
            u32::from_le_bytes(bytes) as usize
        };
        let path = |file: u32| {
            let end = if file + 1 < self.file_count { name_start(file + 1) } else { names.len() };
            &names[name_start(file)..end]
        };
        let mut order: Vec<u32> = (0..self.file_count).collect();
        order.sort_unstable_by(|&a, &b| path(a).cmp(path(b)).then(a.cmp(&b)));
        if let Some(twice) = order.windows(2).find(|pair| path(pair[0]) == path(pair[1])) {
            return Err(Error::new(
                Kind::Exists,
                format!(
                    "{:?} is twice in the shard, as file {} and as file {}",
                    lossy(path(twice[0])),
                    twice[0],
                    twice[1]
                ),
            ));
        }
        // In place, so that sorting needs no second list.
        order.iter_mut().for_each(|file| *file = file.to_le());
        let mut header = Header {
            grouping: self.grouping,
            files: self.file_count,
            samples: self.sample_count,
            others: self.other_count,
            owners: self.owners.len() as u32,
            names_bytes: names.len() as u32,
            other_names_bytes: self.other_names.len() as u32,
            frames: (self.frames.len() / 4) as u32,
            unframed_bytes,
            shard_bytes,
            payload_bytes: self.payload_bytes,
            sums_crc: 0,
            crc: 0,
        };
        let samples = self.samples.finish()?;
        let parts = Parts {
            files,
            samples,
            order,
            owners: self.owner_list,
            others: self.others.finish()?,
            names,
            other_names: self.other_names.finish()?,
            frames: self.frames.finish()?,
        };
        let mut sums = Sums::default();
        parts.each(&mut |bytes| {
            sums.add(bytes);
            Ok(())
        })?;
        let sums = sums.finish();
        header.sums_crc = granary_core::crc32c(&sums);
        let head = header.encode();
        Ok(Sealed { header, head, parts, sums })
    }
}

#[derive(Debug)]
pub(super) struct Parts {
    pub(super) files: Spooled,
    samples: Spooled,
    /// Little-endian already.
    order: Vec<u32>,
    owners: Vec<u8>,
    others: Spooled,
    names: Spooled,
    other_names: Spooled,
    frames: Spooled,
}

impl Parts {
    fn each(&self, to: &mut dyn FnMut(&[u8]) -> std::io::Result<()>) -> Result<()> {
        let mut all = || {
            to(&self.files)?;
            to(&self.samples)?;
            let mut buffer = Vec::with_capacity(BLOCK_BYTES as usize);
            for part in self.order.chunks(BLOCK_BYTES as usize / 4) {
                buffer.clear();
                part.iter().for_each(|file| buffer.extend_from_slice(&file.to_ne_bytes()));
                to(&buffer)?;
            }
            to(&self.owners)?;
            to(&self.others)?;
            to(&self.names)?;
            to(&self.other_names)?;
            to(&self.frames)
        };
        all().map_err(|e| Error::io("cannot write an index", e))
    }
}

/// A whole index, not yet written.
#[derive(Debug)]
pub struct Sealed {
    header: Header,
    head: [u8; HEADER_BYTES],
    pub(super) parts: Parts,
    sums: Vec<u8>,
}

impl Sealed {
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The index's checksum, for manifest and trailer.
    pub fn crc32c(&self) -> u32 {
        self.header.crc
    }

    /// How long the index is.
    pub fn bytes(&self) -> u64 {
        self.header.layout().sums().end
    }

    /// Errors: what the sink says.
    pub fn write_to(&self, out: &mut dyn Write) -> Result<()> {
        let cannot = |e| Error::io("cannot write an index", e);
        out.write_all(&self.head).map_err(cannot)?;
        self.parts.each(&mut |bytes| out.write_all(bytes))?;
        out.write_all(&self.sums).map_err(cannot)
    }

    /// All of it in memory.
    pub fn to_bytes(&self) -> Result<bytes::Bytes> {
        let mut out = Vec::with_capacity(self.bytes() as usize);
        self.write_to(&mut out)?;
        Ok(out.into())
    }
}

/// The checksums of an index's own blocks.
#[derive(Default)]
struct Sums {
    out: Vec<u8>,
    frame: Frame,
}

impl Sums {
    fn add(&mut self, bytes: &[u8]) {
        let out = &mut self.out;
        let mut put = |crc| {
            out.put_u32(crc);
            Ok(())
        };
        let _never = self.frame.add(bytes, &mut put);
    }

    fn finish(mut self) -> Vec<u8> {
        if let Some(crc) = self.frame.end() {
            self.out.put_u32(crc);
        }
        self.out
    }
}

fn check_path(path: &[u8]) -> Result<()> {
    if path.is_empty() || path.contains(&0) {
        return Err(Error::new(Kind::Invalid, format!("{:?} cannot be a file's path", lossy(path))));
    }
    if path.len() > PATH_BYTES_MAX {
        return Err(Error::new(
            Kind::NameTooLong,
            format!("the path {:?}… has more than 4,096 bytes; shorten it", lossy(&path[..64])),
        ));
    }
    Ok(())
}

fn lossy(path: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(path)
}
