//! Tar, as shards are written and as other programs' tars are read.
//!
//! Written is POSIX ustar: a header of 512 bytes, the payload padded to 512, at the end two blocks of zeros. The same members give
//! the same bytes. What ustar cannot say is said as GNU tar does: paths and targets of links that fit neither `name` nor
//! `prefix/name` come in a block of type `L` or `K` before the header, numbers that do not fit their octal digits (sizes from
//! 8 GiB) in base 256. Pax headers would say the same, but their text is UTF-8, which paths need not be, and readers built upon
//! libtar, DALI's among them, know GNU's blocks only; GNU tar, bsdtar, Python's tarfile (thus webdataset and Hugging Face datasets)
//! and Go's know both.
//!
//! Read are v7, ustar, GNU and pax. Refused are sparse files, volumes of several tapes and unknown types: an index could not say
//! where their bytes are.
//!
//! Header, 512 bytes; numbers are octal digits, text ends at the first zero:
//!
//! | offset | size | what | | offset | size | what |
//! |---|---|---|---|---|---|---|
//! | 0 | 100 | name | | 157 | 100 | target of a link |
//! | 100 | 8 | mode | | 257 | 6 | magic `ustar\0`; GNU `ustar ` |
//! | 108 | 8 | user | | 263 | 2 | version `00`; GNU ` \0` |
//! | 116 | 8 | group | | 265 | 32 | user's name, empty |
//! | 124 | 12 | size | | 297 | 32 | group's name, empty |
//! | 136 | 12 | time of modification | | 329 | 16 | device |
//! | 148 | 8 | checksum: sum of all bytes, these eight as spaces | | 345 | 155 | prefix |
//! | 156 | 1 | type | | 500 | 12 | 0 |
//!
//! Sources: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Header Block"; GNU tar manual, "Basic Tar Format" and
//! "GNU Extensions to the Archive Format".

mod encode;
mod number;
mod parse;
mod pax;
mod read;
#[cfg(test)]
mod tests;

pub use encode::{END, Entry, encode};
pub use parse::{Member, Parser, Step};
pub use read::Members;

/// Everything in a tar begins at a multiple of this.
pub const BLOCK_BYTES: usize = 512;

/// Bytes of a payload with its padding.
pub fn padded(bytes: u64) -> u64 {
    bytes.next_multiple_of(BLOCK_BYTES as u64)
}

/// The sum that a header has: of its bytes, the field of the sum itself as spaces.
fn checksum(block: &[u8; BLOCK_BYTES]) -> u32 {
    block.iter().enumerate().map(|(at, &b)| if (148..156).contains(&at) { 32 } else { u32::from(b) }).sum()
}
