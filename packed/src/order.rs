//! The tree order of one version of a data set: every entry in the order of its path's bytes, as a file on the node's disk that
//! is mapped. With it all entries below one directory are side by side, so that names are found by binary search and listings go
//! on from any place, while nothing of the tree is in memory.
//!
//! An entry's path is what [`names::clean`](crate::names::clean) makes of the tar's; a directory's has a slash at its end, so
//! that it comes before all that is below it, and behind `a-b` and `a.b`. Deleted files are not in it, nor directories of which all
//! files were deleted (`directories`).
//!
//! # The file, version 1. All integers are little-endian
//!
//! | offset | size | what |
//! |---|---|---|
//! | 0 | 8 | magic `granaryT` |
//! | 8 | 1 | version: 1 |
//! | 9 | 7 | 0 |
//! | 16 | 16 | the data set's id |
//! | 32 | 8 | the data set's version |
//! | 40 | 8 | the manifest's digest |
//! | 48 | 8 | number of entries `n` |
//! | 56 | 4 | crc32c of the sums |
//! | 60 | 4 | crc32c of the first 60 bytes |
//! | 64 | 8 n | entries: shard `u32`; number in it `u32`, the highest bit set for what is no regular file |
//! | 64 + 8 n | | sums: crc32c of each 64 KiB of entries; the last may be short |
//!
//! Header and sums are checked when it is opened, each 64 KiB of entries when it is first touched. It can be made anew at any
//! time, and is, when anything about it is wrong.

mod directories;
mod file;
mod merge;
#[cfg(test)]
mod tests;

pub use file::Order;
pub use merge::{Shard, Skipped, make};

/// An order of files of the first shard, as they are given.
#[cfg(test)]
pub fn write_for_tests(path: &std::path::Path, of: Identity, files: impl Iterator<Item = u32>) {
    let mut out = file::Writer::new(path, of).unwrap();
    for file in files {
        out.push(Entry { shard: 0, of: Of::File(file) }).unwrap();
    }
    out.finish().unwrap();
}

/// Set in an entry's number when it is a directory, link or the like.
const OTHER: u32 = 1 << 31;

/// One entry of the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub shard: u32,
    pub of: Of,
}

/// Which entry of a shard's index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    File(u32),
    /// A directory, link or pipe.
    Other(u32),
}

impl Entry {
    fn encode(self) -> [u8; 8] {
        let number = match self.of {
            Of::File(n) => n,
            Of::Other(n) => n | OTHER,
        };
        let mut out = [0; 8];
        out[..4].copy_from_slice(&self.shard.to_le_bytes());
        out[4..].copy_from_slice(&number.to_le_bytes());
        out
    }

    fn decode(bytes: [u8; 8]) -> Entry {
        let [a, b, c, d, e, f, g, h] = bytes;
        let number = u32::from_le_bytes([e, f, g, h]);
        let of = if number & OTHER == 0 { Of::File(number) } else { Of::Other(number & !OTHER) };
        Entry { shard: u32::from_le_bytes([a, b, c, d]), of }
    }
}

/// Which version of which data set an order is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub data_set: [u8; 16],
    pub version: u64,
    pub digest: u64,
}
