//! The checksums of one object's frames: all the cache needs of its footer.
//!
//! File `<object id>.footer`, little-endian:
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 4 | magic `GRSM` |
//! | 4 | 1 | version, 2; 1 knew no codecs and had a zero for it |
//! | 5 | 1 | codec of the object's frames: 0 none, 1 lz4, 2 zstd |
//! | 6 | 2 | zero |
//! | 8 | 16 | object id |
//! | 24 | 8 | bytes of the payload |
//! | 32 | 4 | number of frames, n |
//! | 36 | 4 n | crc32c of each frame of 64 KiB (the last may be short) |
//! | 36 + 4 n | 4 n | *codec 1 and 2 only:* bytes of each frame as it is stored |
//! | at the end | 4 | crc32c of everything before |

use std::ops::Range;

use granary_core::codec::Put;
use granary_core::limits::{CHUNK_BYTES, FRAME_BYTES};
use granary_core::{Error, Kind, NamespaceId, ObjectId, Result};
use granary_meta::ObjectInfo;
use granary_store::format::{Codec, Compressed, Footer};

use crate::sealed::Sealed;

pub(crate) const FILE: Sealed =
    Sealed { magic: u32::from_le_bytes(*b"GRSM"), version: 2, what: "a checksum table of the read cache" };
/// Frames of one whole chunk.
pub(crate) const CHUNK_FRAMES: usize = (CHUNK_BYTES / FRAME_BYTES) as usize;

/// One crc32c for each 64 KiB of an object's payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FrameSums {
    pub object: ObjectId,
    pub payload_len: u64,
    pub crcs: Vec<u32>,
    /// Where the frames are in the store when they are compressed.
    pub compressed: Option<Compressed>,
}

impl FrameSums {
    /// Refuses a table that does not have one checksum for each frame.
    pub fn new(object: ObjectId, payload_len: u64, crcs: Vec<u32>) -> Result<FrameSums> {
        if crcs.len() as u64 != payload_len.div_ceil(FRAME_BYTES) {
            return Err(Error::new(
                Kind::Corrupt,
                format!("its footer has {} frame checksums for {payload_len} bytes", crcs.len()),
            ));
        }
        Ok(FrameSums { object, payload_len, crcs, compressed: None })
    }

    /// Takes them out of an object's footer, after checking that it is this object's.
    pub fn of_footer(ns: NamespaceId, object: &ObjectInfo, footer: &[u8]) -> Result<FrameSums> {
        let footer = Footer::parse(footer, object.total_len.saturating_sub(footer.len() as u64))?;
        footer.check_identity(ns, object.kind, object.id)?;
        if footer.payload_len() != object.payload_len {
            return Err(Error::new(
                Kind::Corrupt,
                format!(
                    "its footer tells of {} bytes of payload, the metadata of {}",
                    footer.payload_len(),
                    object.payload_len
                ),
            ));
        }
        let sums = FrameSums::new(object.id, object.payload_len, footer.frames.checksums().to_vec())?;
        Ok(FrameSums { compressed: footer.frames.compressed().cloned(), ..sums })
    }

    pub fn encode(&self) -> Vec<u8> {
        let lens = self.compressed.iter().flat_map(|c| &c.lens);
        FILE.encode(31 + 8 * self.crcs.len(), |out| {
            out.put_u8(self.compressed.as_ref().map_or(Codec::None, |c| c.codec).tag());
            out.extend_from_slice(&[0; 2]);
            out.put_u128(self.object.0);
            out.put_u64(self.payload_len);
            out.put_u32(self.crcs.len() as u32);
            self.crcs.iter().chain(lens).for_each(|&n| out.put_u32(n));
        })
    }

    pub fn decode(bytes: &[u8]) -> Result<FrameSums> {
        let mut r = FILE.open(bytes)?;
        let codec = Codec::of_tag(r.u8()?).ok_or_else(|| r.corrupt("its codec is unknown"))?;
        r.take(2)?;
        let (object, payload_len) = (ObjectId(r.u128()?), r.u64()?);
        let n = r.u32()?;
        let tables = if codec == Codec::None { 1 } else { 2 };
        if r.remaining() as u64 != 4 * u64::from(n) * tables {
            return Err(r.corrupt("its length and its number of frames differ"));
        }
        let crcs = (0..n).map(|_| r.u32()).collect::<Result<_>>()?;
        let compressed = match codec {
            Codec::None => None,
            codec => Some(Compressed { codec, lens: (0..n).map(|_| r.u32()).collect::<Result<_>>()? }),
        };
        r.finish()?;
        Ok(FrameSums { compressed, ..FrameSums::new(object, payload_len, crcs)? })
    }

    /// The checksums of a chunk's frames.
    pub fn of_chunk(&self, index: u32) -> &[u32] {
        let from = (index as usize * CHUNK_FRAMES).min(self.crcs.len());
        &self.crcs[from..(from + CHUNK_FRAMES).min(self.crcs.len())]
    }
}

/// Compares bytes that begin at a frame's start with the frames' checksums; `Err` is the first frame that differs.
pub(crate) fn verify(bytes: &[u8], crcs: &[u32]) -> Result<(), usize> {
    if bytes.len().div_ceil(FRAME_BYTES as usize) != crcs.len() {
        return Err(0);
    }
    match bytes
        .chunks(FRAME_BYTES as usize)
        .zip(crcs)
        .position(|(frame, &crc)| granary_core::crc32c(frame) != crc)
    {
        Some(frame) => Err(frame),
        None => Ok(()),
    }
}

/// The bytes of a chunk within its object's payload.
pub(crate) fn chunk_range(index: u32, payload_len: u64) -> Range<u64> {
    let from = (u64::from(index) * CHUNK_BYTES).min(payload_len);
    from..(from + CHUNK_BYTES).min(payload_len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_comes_back_and_damage_is_seen(object: u128, payload_len in 0u64..16 << 20, seed: u32, codec in 0u8..3, at: prop::sample::Index, bit in 0u8..8) {
            let frames = payload_len.div_ceil(FRAME_BYTES) as u32;
            let crcs = (0..frames).map(|i| i.wrapping_mul(2654435761) ^ seed).collect();
            let mut sums = FrameSums::new(ObjectId(object), payload_len, crcs).unwrap();
            let codec = Codec::of_tag(codec).unwrap();
            sums.compressed = (codec != Codec::None)
                .then(|| Compressed { codec, lens: (0..frames).map(|i| i ^ seed).collect() });
            let mut bytes = sums.encode();
            prop_assert_eq!(FrameSums::decode(&bytes).unwrap(), sums);
            prop_assert!(FrameSums::decode(&bytes[..at.index(bytes.len())]).is_err());
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(FrameSums::decode(&bytes).is_err());
        }
    }

    #[test]
    fn a_table_of_the_wrong_length_is_refused() {
        assert!(FrameSums::new(ObjectId(1), FRAME_BYTES + 1, vec![0]).is_err());
        assert!(FrameSums::new(ObjectId(1), FRAME_BYTES + 1, vec![0; 2]).is_ok());
    }

    #[test]
    fn a_chunk_has_its_own_checksums() {
        let len = CHUNK_BYTES + FRAME_BYTES + 1;
        let sums = FrameSums::new(ObjectId(1), len, (0..18).collect()).unwrap();
        assert_eq!(sums.of_chunk(0), (0..16).collect::<Vec<_>>());
        assert_eq!(sums.of_chunk(1), [16, 17]);
        assert_eq!(sums.of_chunk(2), [0u32; 0]);
        assert_eq!(chunk_range(1, len), CHUNK_BYTES..len);
    }
}
