//! The header, and where the sections are by it. Its byte table is in [`index`](super).

use std::ops::Range;

use granary_core::codec::{Put, Reader};
use granary_core::limits::FRAME_BYTES;
use granary_core::{Error, Kind, Result};

use super::body::BLOCK_BYTES;
use super::record::{FILE_BYTES, OTHER_BYTES};
use super::{VERSION, corrupt};
use crate::key::Grouping;
use crate::limits::{INDEX_BYTES_MAX, OWNERS_MAX, SHARD_BYTES_MAX, SHARD_FILES_MAX};

pub const HEADER_BYTES: usize = 64;
const MAGIC: [u8; 8] = *b"granaryX";

/// What the first 64 bytes say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub grouping: Grouping,
    pub files: u32,
    pub samples: u32,
    pub others: u32,
    pub owners: u32,
    pub names_bytes: u32,
    pub other_names_bytes: u32,
    /// 0: the index has none.
    pub frames: u32,
    /// Behind the frames.
    pub unframed_bytes: u16,
    pub shard_bytes: u64,
    pub payload_bytes: u64,
    pub sums_crc: u32,
    /// Of the header itself; [`Header::encode`] sets it.
    pub crc: u32,
}

impl Header {
    pub fn encode(&mut self) -> [u8; HEADER_BYTES] {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.extend_from_slice(&MAGIC);
        out.put_u8(VERSION);
        out.put_u8(self.grouping.code());
        out.put_u16(self.unframed_bytes);
        for n in [self.files, self.samples, self.others, self.owners] {
            out.put_u32(n);
        }
        out.put_u32(self.names_bytes);
        out.put_u32(self.other_names_bytes);
        out.put_u32(self.frames);
        out.put_u64(self.shard_bytes);
        out.put_u64(self.payload_bytes);
        out.put_u32(self.sums_crc);
        self.crc = granary_core::crc32c(&out);
        out.put_u32(self.crc);
        let mut array = [0; HEADER_BYTES];
        array.copy_from_slice(&out);
        array
    }

    /// Reads the header of a whole index.
    ///
    /// Errors: `Corrupt`, also when the index is not as long as its header says; `Unsupported` for a newer version.
    pub fn decode(index: &[u8]) -> Result<Header> {
        let Some(bytes) = index.get(..HEADER_BYTES) else {
            return Err(corrupt(format!("of its first 64 bytes {} are there", index.len())));
        };
        let mut r = Reader::new(bytes, "index");
        if r.take(MAGIC.len())? != MAGIC {
            return Err(corrupt("it does not begin with `granaryX`, so it is no index"));
        }
        let crc = granary_core::crc32c(&bytes[..HEADER_BYTES - 4]);
        if Reader::new(&bytes[HEADER_BYTES - 4..], "index").u32()? != crc {
            return Err(corrupt("the checksum of its header does not match"));
        }
        r.version(VERSION)?;
        let grouping = Grouping::from_code(r.u8()?).ok_or_else(|| corrupt("its grouping is unknown"))?;
        let unframed_bytes = r.u16()?;
        let [files, samples, others, owners] = [r.u32()?, r.u32()?, r.u32()?, r.u32()?];
        let [names_bytes, other_names_bytes] = [r.u32()?, r.u32()?];
        let frames = r.u32()?;
        let [shard_bytes, payload_bytes] = [r.u64()?, r.u64()?];
        let header = Header {
            grouping,
            files,
            samples,
            others,
            owners,
            names_bytes,
            other_names_bytes,
            frames,
            unframed_bytes,
            shard_bytes,
            payload_bytes,
            sums_crc: r.u32()?,
            crc,
        };
        let framed = shard_bytes.saturating_sub(u64::from(unframed_bytes)).div_ceil(FRAME_BYTES);
        if frames > 0 && u64::from(frames) != framed
            || frames == 0 && unframed_bytes > 0
            || samples > files
            || (samples == 0) != (files == 0)
            || files > SHARD_FILES_MAX
            || others > SHARD_FILES_MAX
            || owners as usize > OWNERS_MAX
            || shard_bytes > SHARD_BYTES_MAX
            || payload_bytes > shard_bytes
        {
            return Err(corrupt("its header has impossible numbers"));
        }
        let length = header.layout().sums().end;
        if length > INDEX_BYTES_MAX || length != index.len() as u64 {
            return Err(corrupt(format!("it has {} bytes where its header tells of {length}", index.len())));
        }
        Ok(header)
    }

    pub(super) fn layout(&self) -> Layout<'_> {
        Layout(self)
    }
}

/// Where each section is in the index. No sum overflows: each count has 32 bits, each record at most 36 bytes.
#[derive(Clone, Copy)]
pub(super) struct Layout<'a>(&'a Header);

impl Layout<'_> {
    fn after(start: u64, bytes: u64) -> Range<u64> {
        start..start + bytes
    }
    pub fn files(self) -> Range<u64> {
        Self::after(HEADER_BYTES as u64, u64::from(self.0.files) * FILE_BYTES as u64)
    }
    pub fn samples(self) -> Range<u64> {
        Self::after(self.files().end, u64::from(self.0.samples) * 4)
    }
    pub fn sorted(self) -> Range<u64> {
        Self::after(self.samples().end, u64::from(self.0.files) * 4)
    }
    pub fn owners(self) -> Range<u64> {
        Self::after(self.sorted().end, u64::from(self.0.owners) * 8)
    }
    pub fn others(self) -> Range<u64> {
        Self::after(self.owners().end, u64::from(self.0.others) * OTHER_BYTES as u64)
    }
    pub fn names(self) -> Range<u64> {
        Self::after(self.others().end, u64::from(self.0.names_bytes))
    }
    pub fn other_names(self) -> Range<u64> {
        Self::after(self.names().end, u64::from(self.0.other_names_bytes))
    }
    pub fn frames(self) -> Range<u64> {
        Self::after(self.other_names().end, u64::from(self.0.frames) * 4)
    }
    /// All that the sums cover.
    pub fn body(self) -> Range<u64> {
        HEADER_BYTES as u64..self.frames().end
    }
    pub fn sums(self) -> Range<u64> {
        let body = self.body();
        Self::after(body.end, (body.end - body.start).div_ceil(BLOCK_BYTES) * 4)
    }
}

/// The error when an index could not be sealed within the format.
pub(super) fn too_large(what: &str) -> Error {
    Error::new(Kind::FileTooLarge, format!("the shard has too {what} for one index; make shards smaller"))
}
