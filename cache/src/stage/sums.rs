//! Checksums of a clean copy, by which a later run of the node knows it for what it was.
//!
//! File `sums/<inode>.<content version>` of the stage, little-endian. It need not survive a power loss: a copy without it is
//! dropped, and its file read from the store.
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 4 | magic `GSCS` |
//! | 4 | 1 | version, 1 |
//! | 5 | 3 | zero |
//! | 8 | 8 | inode |
//! | 16 | 8 | content version |
//! | 24 | 8 | size of the file in bytes |
//! | 32 | 4 n | crc32c of each block of 1 MiB (the last may be short) |
//! | at the end | 4 | crc32c of everything before |

use std::fs::File;
use std::io;
use std::ops::Range;

use granary_core::Result;
use granary_core::codec::Put;

use super::disk::read_up_to;
use super::files::data_ranges;
use crate::sealed::Sealed;

pub(crate) const FILE: Sealed =
    Sealed { magic: u32::from_le_bytes(*b"GSCS"), version: 1, what: "the checksums of a clean stage file" };
pub(crate) const BLOCK_BYTES: u64 = 1 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sums {
    pub ino: u64,
    pub version: u64,
    pub size: u64,
    pub crcs: Vec<u32>,
}

/// Of blocks one after another, without reading what is a hole.
pub(crate) struct Blocks<'a> {
    file: &'a File,
    size: u64,
    data: Vec<Range<u64>>,
    zeros: u32,
}

impl Blocks<'_> {
    pub fn of(file: &File, size: u64) -> io::Result<Blocks<'_>> {
        let zeros = granary_core::crc32c(&vec![0; BLOCK_BYTES as usize]);
        Ok(Blocks { file, size, data: data_ranges(file, size)?, zeros })
    }

    pub fn count(&self) -> u64 {
        self.size.div_ceil(BLOCK_BYTES)
    }

    /// Of the block that begins at `n` blocks.
    pub fn crc(&self, n: u64) -> io::Result<u32> {
        let (start, end) = (n * BLOCK_BYTES, self.size.min((n + 1) * BLOCK_BYTES));
        let first = self.data.partition_point(|data| data.end <= start);
        let is_hole = self.data.get(first).is_none_or(|data| data.start >= end);
        if is_hole && end - start == BLOCK_BYTES {
            return Ok(self.zeros);
        }
        let mut bytes = read_up_to(self.file, start, (end - start) as usize)?;
        bytes.resize((end - start) as usize, 0);
        Ok(granary_core::crc32c(&bytes))
    }
}

impl Sums {
    /// Reads all of the file.
    pub fn compute(file: &File, ino: u64, version: u64, size: u64) -> io::Result<Sums> {
        let blocks = Blocks::of(file, size)?;
        let crcs = (0..blocks.count()).map(|n| blocks.crc(n)).collect::<io::Result<_>>()?;
        Ok(Sums { ino, version, size, crcs })
    }

    pub fn encode(&self) -> Vec<u8> {
        FILE.encode(27 + 4 * self.crcs.len(), |out| {
            out.extend_from_slice(&[0; 3]);
            out.put_u64(self.ino);
            out.put_u64(self.version);
            out.put_u64(self.size);
            self.crcs.iter().for_each(|&crc| out.put_u32(crc));
        })
    }

    pub fn decode(bytes: &[u8]) -> Result<Sums> {
        let mut r = FILE.open(bytes)?;
        r.take(3)?;
        let (ino, version, size) = (r.u64()?, r.u64()?, r.u64()?);
        let count = size.div_ceil(BLOCK_BYTES);
        if r.remaining() as u64 != count.saturating_mul(4) {
            return Err(r.corrupt("it does not have a checksum for each block"));
        }
        let crcs = (0..count).map(|_| r.u32()).collect::<Result<_>>()?;
        Ok(Sums { ino, version, size, crcs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::FileExt;

    proptest! {
        #[test]
        fn round_trip(ino: u64, version: u64, crcs in proptest::collection::vec(any::<u32>(), 0..9), less in 0..BLOCK_BYTES) {
            let size = (crcs.len() as u64 * BLOCK_BYTES).saturating_sub(less);
            let sums = Sums { ino, version, size, crcs };
            prop_assert_eq!(Sums::decode(&sums.encode()).unwrap(), sums);
        }

        #[test]
        fn a_flipped_or_missing_byte_is_noticed(crcs in proptest::collection::vec(any::<u32>(), 0..4), at: prop::sample::Index, flip in 1u8..) {
            let sums = Sums { ino: 1, version: 2, size: crcs.len() as u64 * BLOCK_BYTES, crcs };
            let mut bytes = sums.encode();
            let at = at.index(bytes.len());
            prop_assert!(Sums::decode(&bytes[..at]).is_err());
            bytes[at] ^= flip;
            prop_assert!(Sums::decode(&bytes).is_err());
        }
    }

    #[test]
    fn holes_count_as_zeros() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[7; 100], 5 * BLOCK_BYTES + 9).unwrap();
        file.set_len(7 * BLOCK_BYTES + 3).unwrap();
        let sums = Sums::compute(&file, 1, 2, 7 * BLOCK_BYTES + 3).unwrap();
        let whole = read_up_to(&file, 0, 8 << 20).unwrap();
        let plain: Vec<u32> = whole.chunks(BLOCK_BYTES as usize).map(granary_core::crc32c).collect();
        assert_eq!(sums.crcs, plain);
    }
}
