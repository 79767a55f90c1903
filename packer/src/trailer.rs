//! What a shard says of itself: 512 bytes behind the two blocks of zeros that end a tar, where readers of tar no longer look.
//! With it a tar that lost its index and its data set still tells what it is. All integers are little-endian.
//!
//! | offset | size | what |
//! |---|---|---|
//! | 0 | 8 | magic `granaryS` |
//! | 8 | 1 | version: 1 |
//! | 9 | 1 | bytes of the shard's name |
//! | 10 | 2 | 0 |
//! | 12 | 4 | the shard's number in its data set when it was made |
//! | 16 | 16 | the data set's id |
//! | 32 | 4 | number of files |
//! | 36 | 4 | number of samples |
//! | 40 | 8 | bytes of all files together |
//! | 48 | 8 | bytes of the tar before this trailer |
//! | 56 | 8 | bytes of the index |
//! | 64 | 4 | the index's checksum (its header's, see [`index`](crate::index)) |
//! | 68 | 4 | 0 |
//! | 72 | 255 | the shard's name, filled up with zeros |
//! | 327 | 181 | 0 |
//! | 508 | 4 | crc32c of the first 508 bytes |

use granary_core::codec::{Put, Reader};
use granary_core::{Error, Kind, Result};

/// Size of a trailer in bytes, in every version.
pub const TRAILER_BYTES: usize = 512;
/// Bytes of a shard's name.
pub const NAME_BYTES_MAX: usize = 255;
const VERSION: u8 = 1;
const MAGIC: [u8; 8] = *b"granaryS";
const CRC_AT: usize = TRAILER_BYTES - 4;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trailer {
    pub data_set: [u8; 16],
    /// What the shard is called below the data set, at most 255 bytes.
    pub name: String,
    pub number: u32,
    pub files: u32,
    pub samples: u32,
    pub payload_bytes: u64,
    /// Bytes before the trailer.
    pub tar_bytes: u64,
    pub index_bytes: u64,
    pub index_crc32c: u32,
}

impl Trailer {
    /// Errors: `Invalid` when the name is empty or too long.
    pub fn encode(&self) -> Result<[u8; TRAILER_BYTES]> {
        let name = self.name.as_bytes();
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(Error::new(
                Kind::Invalid,
                format!("a shard cannot be called {:?}: a name has 1 to 255 bytes", self.name),
            ));
        }
        let mut out = Vec::with_capacity(TRAILER_BYTES);
        out.extend_from_slice(&MAGIC);
        out.put_u8(VERSION);
        out.put_u8(name.len() as u8);
        out.put_u16(0);
        out.put_u32(self.number);
        out.extend_from_slice(&self.data_set);
        out.put_u32(self.files);
        out.put_u32(self.samples);
        out.put_u64(self.payload_bytes);
        out.put_u64(self.tar_bytes);
        out.put_u64(self.index_bytes);
        out.put_u32(self.index_crc32c);
        out.put_u32(0);
        out.extend_from_slice(name);
        out.resize(CRC_AT, 0);
        out.put_u32(granary_core::crc32c(&out));
        let mut array = [0; TRAILER_BYTES];
        array.copy_from_slice(&out);
        Ok(array)
    }

    /// Reads the trailer at the end of `bytes`: a whole shard of `shard_bytes`, or any tail of it. `None` when there is none,
    /// as behind every tar of another program.
    ///
    /// Errors: `Corrupt`; `Unsupported` for a newer version.
    pub fn parse_end(bytes: &[u8], shard_bytes: u64) -> Result<Option<Trailer>> {
        let Some(bytes) = bytes.len().checked_sub(TRAILER_BYTES).map(|at| &bytes[at..]) else {
            return Ok(None);
        };
        let mut r = Reader::new(bytes, "shard's trailer");
        if r.take(MAGIC.len())? != MAGIC {
            return Ok(None);
        }
        if Reader::new(&bytes[CRC_AT..], "shard's trailer").u32()? != granary_core::crc32c(&bytes[..CRC_AT]) {
            return Err(r.corrupt("its checksum does not match"));
        }
        r.version(VERSION)?;
        let name_len = usize::from(r.u8()?);
        r.u16()?;
        let number = r.u32()?;
        let mut data_set = [0; 16];
        data_set.copy_from_slice(r.take(16)?);
        let (files, samples, payload_bytes) = (r.u32()?, r.u32()?, r.u64()?);
        let (tar_bytes, index_bytes, index_crc32c) = (r.u64()?, r.u64()?, r.u32()?);
        r.u32()?;
        let name = std::str::from_utf8(r.take(name_len)?).map_err(|_| r.corrupt("its name is not UTF-8"))?;
        if name.is_empty() || tar_bytes.checked_add(TRAILER_BYTES as u64) != Some(shard_bytes) {
            return Err(r.corrupt("it is not of a shard of this length"));
        }
        Ok(Some(Trailer {
            data_set,
            name: name.to_owned(),
            number,
            files,
            samples,
            payload_bytes,
            tar_bytes,
            index_bytes,
            index_crc32c,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(
            data_set: [u8; 16], name in "[a-z/é]{1,100}", number: u32, files: u32, payload_bytes: u64,
            tar_bytes in 0..u64::MAX / 2, index_crc32c: u32, at in 8..TRAILER_BYTES, bit in 0..8u8,
        ) {
            let trailer = Trailer {
                data_set, name, number, files, samples: files / 2, payload_bytes, tar_bytes, index_bytes: 64, index_crc32c,
            };
            let mut bytes = [&[7; 100][..], &trailer.encode().unwrap()].concat();
            let shard_bytes = tar_bytes + 512;
            prop_assert_eq!(Trailer::parse_end(&bytes, shard_bytes).unwrap(), Some(trailer));
            prop_assert_eq!(Trailer::parse_end(&bytes, shard_bytes + 1).unwrap_err().kind(), Kind::Corrupt);
            bytes[100 + at] ^= 1 << bit;
            prop_assert_eq!(Trailer::parse_end(&bytes, shard_bytes).unwrap_err().kind(), Kind::Corrupt);
            prop_assert_eq!(Trailer::parse_end(&bytes[..99], 99).unwrap(), None);
        }
    }

    #[test]
    fn names_have_a_limit() {
        let trailer = Trailer {
            data_set: [0; 16],
            name: "x".repeat(256),
            number: 0,
            files: 0,
            samples: 0,
            payload_bytes: 0,
            tar_bytes: 0,
            index_bytes: 64,
            index_crc32c: 0,
        };
        assert_eq!(trailer.encode().unwrap_err().kind(), Kind::Invalid);
    }
}
