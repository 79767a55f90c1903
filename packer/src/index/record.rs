//! One file, and one of the others. Their byte tables are in [`index`](super).

use granary_core::Result;
use granary_core::codec::{Put, Reader};

pub const FILE_BYTES: usize = 36;
pub const OTHER_BYTES: usize = 28;

/// A regular file of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File<'a> {
    /// As the tar has it; most often UTF-8.
    pub path: &'a [u8],
    /// Where its payload begins in the tar, and its length, in bytes.
    pub offset: u64,
    pub length: u64,
    pub crc32c: u32,
    pub sample: u32,
    /// Permissions: twelve bits.
    pub mode: u32,
    /// Seconds since 1970.
    pub mtime: i64,
    pub uid: u32,
    pub gid: u32,
}

/// A directory, a link, a device or a pipe of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Other<'a> {
    pub path: &'a [u8],
    /// Of links, else empty.
    pub target: &'a [u8],
    /// The tar's type flag: `1` hard link, `2` symbolic link, `3` `4` devices, `5` directory, `6` pipe.
    pub kind: u8,
    pub mode: u32,
    pub mtime: i64,
    pub uid: u32,
    pub gid: u32,
    /// How many files of the shard come before it.
    pub files_before: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileRecord {
    pub blocks: u32,
    pub crc: u32,
    pub length: u64,
    pub sample: u32,
    pub name_start: u32,
    pub mtime: i64,
    pub mode: u16,
    pub owner: u16,
}

impl FileRecord {
    pub fn offset(&self) -> u64 {
        u64::from(self.blocks) * 512
    }

    /// Behind its payload; what cannot be is past every shard's end.
    pub fn end(&self) -> u64 {
        self.offset().saturating_add(self.length)
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32(self.blocks);
        out.put_u32(self.crc);
        out.put_u64(self.length);
        out.put_u32(self.sample);
        out.put_u32(self.name_start);
        out.put_i64(self.mtime);
        out.put_u16(self.mode);
        out.put_u16(self.owner);
    }

    pub fn decode(bytes: &[u8]) -> Result<FileRecord> {
        let mut r = Reader::new(bytes, "index");
        Ok(FileRecord {
            blocks: r.u32()?,
            crc: r.u32()?,
            length: r.u64()?,
            sample: r.u32()?,
            name_start: r.u32()?,
            mtime: r.i64()?,
            mode: r.u16()?,
            owner: r.u16()?,
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OtherRecord {
    pub name_start: u32,
    pub name_len: u16,
    pub target_len: u16,
    pub mtime: i64,
    pub mode: u16,
    pub owner: u16,
    pub kind: u8,
    pub files_before: u32,
}

impl OtherRecord {
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32(self.name_start);
        out.put_u16(self.name_len);
        out.put_u16(self.target_len);
        out.put_i64(self.mtime);
        out.put_u16(self.mode);
        out.put_u16(self.owner);
        out.put_u8(self.kind);
        out.extend_from_slice(&[0; 3]);
        out.put_u32(self.files_before);
    }

    pub fn decode(bytes: &[u8]) -> Result<OtherRecord> {
        let mut r = Reader::new(bytes, "index");
        let (name_start, name_len, target_len) = (r.u32()?, r.u16()?, r.u16()?);
        let (mtime, mode, owner, kind) = (r.i64()?, r.u16()?, r.u16()?, r.u8()?);
        r.take(3)?;
        Ok(OtherRecord { name_start, name_len, target_len, mtime, mode, owner, kind, files_before: r.u32()? })
    }
}
