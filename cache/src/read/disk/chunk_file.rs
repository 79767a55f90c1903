//! One chunk of an object's payload as a file.
//!
//! The chunk's bytes come first, so that they are written from where they are and read at their own offsets; a trailer says
//! what they are. With n bytes of payload (1 to 1 MiB) in f = n / 64 KiB frames, rounded up, little-endian:
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | n | payload |
//! | n | 4 f | crc32c of each frame, as the object's footer has them |
//! | n + 4 f | 16 | object id |
//! | +16 | 4 | index of the chunk in the object |
//! | +20 | 4 | n |
//! | +24 | 1 | version, 1 |
//! | +25 | 3 | zero |
//! | +28 | 4 | magic `GRCK` |
//! | +32 | 4 | crc32c of everything from offset n on |

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use bytes::Bytes;
use granary_core::codec::{Put, Reader};
use granary_core::limits::{CHUNK_BYTES, FRAME_BYTES};
use granary_core::{ObjectId, Result};

use super::ChunkKey;
use crate::read::sums::{CHUNK_FRAMES, verify};

const MAGIC: u32 = u32::from_le_bytes(*b"GRCK");
const VERSION: u8 = 1;
const WHAT: &str = "a chunk of the read cache";
/// The trailer without the frames' checksums.
const FIXED_BYTES: usize = 36;
pub(super) const TRAILER_BYTES_MAX: usize = FIXED_BYTES + 4 * CHUNK_FRAMES;

/// The trailer of a chunk of `len` bytes.
pub(super) fn trailer(key: ChunkKey, len: u32, crcs: &[u32]) -> Vec<u8> {
    debug_assert_eq!(crcs.len() as u64, u64::from(len).div_ceil(FRAME_BYTES));
    let mut out = Vec::with_capacity(TRAILER_BYTES_MAX);
    for &crc in crcs {
        out.put_u32(crc);
    }
    out.put_u128(key.object.0);
    out.put_u32(key.index);
    out.put_u32(len);
    out.put_u8(VERSION);
    out.extend_from_slice(&[0; 3]);
    out.put_u32(MAGIC);
    let crc = granary_core::crc32c(&out);
    out.put_u32(crc);
    out
}

/// Reads a trailer from the last bytes of a file of `file_len` bytes; gives the payload's length and checksums.
fn parse_trailer(key: ChunkKey, tail: &[u8], file_len: u64) -> Result<(u32, Vec<u32>)> {
    let damaged = |why| Reader::new(tail, WHAT).corrupt(why);
    let Some(fixed_at) = tail.len().checked_sub(FIXED_BYTES) else { return Err(damaged("it is too short")) };
    let mut r = Reader::new(&tail[fixed_at..], WHAT);
    let (object, index, len) = (ObjectId(r.u128()?), r.u32()?, r.u32()?);
    r.version(VERSION)?;
    r.take(3)?;
    let (magic, crc) = (r.u32()?, r.u32()?);
    r.finish()?;
    let frames = u64::from(len).div_ceil(FRAME_BYTES) as usize;
    if magic != MAGIC || len == 0 || u64::from(len) > CHUNK_BYTES {
        return Err(damaged("magic or length are wrong"));
    }
    let Some(from) = fixed_at.checked_sub(4 * frames) else { return Err(damaged("it is too short")) };
    if u64::from(len) + (tail.len() - from) as u64 != file_len {
        return Err(damaged("its length is wrong"));
    }
    if granary_core::crc32c(&tail[from..tail.len() - 4]) != crc {
        return Err(damaged("its trailer's checksum differs"));
    }
    if (object, index) != (key.object, key.index) {
        return Err(damaged("it is another chunk than its name says"));
    }
    let mut r = Reader::new(&tail[from..fixed_at], WHAT);
    Ok((len, (0..frames).map(|_| r.u32()).collect::<Result<_>>()?))
}

/// An open chunk file whose trailer was verified; its payload is verified each time it is read.
#[derive(Debug)]
pub(in crate::read) struct ChunkFile {
    file: File,
    pub len: u32,
    crcs: Vec<u32>,
}

impl ChunkFile {
    pub fn open(file: File, key: ChunkKey) -> Result<ChunkFile, BadCopy> {
        let file_len = file.metadata()?.len();
        let tail_len = file_len.min(TRAILER_BYTES_MAX as u64);
        let mut tail = vec![0; tail_len as usize];
        file.read_exact_at(&mut tail, file_len - tail_len)?;
        let (len, crcs) = parse_trailer(key, &tail, file_len).map_err(|e| BadCopy::Damaged(e.to_string()))?;
        Ok(ChunkFile { file, len, crcs })
    }

    /// The file, for somebody else to read: the payload is its first `len` bytes.
    pub fn into_file(self) -> File {
        self.file
    }

    /// The bytes of these frames, verified.
    pub fn read_frames(&self, frames: Range<u32>) -> Result<Bytes, BadCopy> {
        let from = u64::from(frames.start) * FRAME_BYTES;
        let to = (u64::from(frames.end) * FRAME_BYTES).min(u64::from(self.len));
        let crcs = self.crcs.get(frames.start as usize..frames.end as usize);
        let Some(crcs) = crcs.filter(|_| from <= to) else {
            return Err(BadCopy::Damaged(format!("it has {} frames", self.crcs.len())));
        };
        let bytes = read_at(&self.file, from, (to - from) as usize)?;
        verify(&bytes, crcs).map_err(|i| {
            BadCopy::Damaged(format!("frame {} has another checksum", frames.start as usize + i))
        })?;
        Ok(bytes.into())
    }
}

/// Why a local copy cannot be used.
#[derive(Debug)]
pub(in crate::read) enum BadCopy {
    Damaged(String),
    Disk(io::Error),
}

impl From<io::Error> for BadCopy {
    fn from(e: io::Error) -> BadCopy {
        match e.kind() {
            io::ErrorKind::UnexpectedEof => BadCopy::Damaged("it is cut off".into()),
            _ => BadCopy::Disk(e),
        }
    }
}

/// `pread` of exactly `len` bytes into memory that was not cleared before: clearing costs as much as reading.
fn read_at(file: &File, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(len);
    while out.len() < len {
        let at = offset + out.len() as u64;
        // The vector may have got more capacity than asked for; what is read too much is cut off below.
        match rustix::io::pread(file, rustix::buffer::spare_capacity(&mut out), at) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    out.truncate(len);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    fn file_of(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn encoded(key: ChunkKey, payload: &[u8]) -> Vec<u8> {
        let crcs: Vec<u32> = payload.chunks(FRAME_BYTES as usize).map(granary_core::crc32c).collect();
        [payload, &trailer(key, payload.len() as u32, &crcs)].concat()
    }

    fn read_all(file: File, key: ChunkKey) -> Result<Bytes, BadCopy> {
        let chunk = ChunkFile::open(file, key)?;
        chunk.read_frames(0..chunk.len.div_ceil(FRAME_BYTES as u32))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn it_comes_back_and_damage_is_seen(
            (object, index) in (any::<u128>(), any::<u32>()),
            len in prop_oneof![1usize..300, 65_000usize..66_000, 131_072usize..131_073, 1_048_000usize..=1_048_576],
            at: prop::sample::Index,
            bit in 0u8..8,
        ) {
            let key = ChunkKey { object: ObjectId(object), index };
            let payload: Vec<u8> = (0..len).map(|i| (i * 31 + i / 251) as u8).collect();
            let mut bytes = encoded(key, &payload);
            prop_assert_eq!(&read_all(file_of(&bytes), key).unwrap()[..], &payload[..]);
            prop_assert!(read_all(file_of(&bytes[..at.index(bytes.len())]), key).is_err());
            let other = ChunkKey { index: index ^ 1, ..key };
            prop_assert!(read_all(file_of(&bytes), other).is_err());
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(read_all(file_of(&bytes), key).is_err());
        }
    }

    #[test]
    fn frames_beyond_the_chunk_are_an_error() {
        let key = ChunkKey { object: ObjectId(1), index: 0 };
        let chunk = ChunkFile::open(file_of(&encoded(key, &[7; 100])), key).unwrap();
        assert_eq!(&chunk.read_frames(0..1).unwrap()[..], &[7; 100]);
        assert!(chunk.read_frames(0..2).is_err());
        assert!(chunk.read_frames(1..2).is_err());
    }
}
