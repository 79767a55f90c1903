//! How an entry stands in a tar.

use std::borrow::Cow;

use granary_core::Result;

use crate::pack::entry::Entry;
use crate::tar::{self, padded};

/// How much of a tar an entry takes: its header, and what comes before and after.
pub fn tar_bytes(entry: &Entry, scratch: &mut Vec<u8>) -> Result<u64> {
    if entry.path.len() < 100 && entry.target().len() <= 100 {
        return Ok(tar::BLOCK_BYTES as u64 + padded(entry.length));
    }
    scratch.clear();
    encode_header(entry, scratch)?;
    Ok(scratch.len() as u64 + padded(entry.length))
}

/// Appends the entry's header as the tar has it. A directory's path ends with a slash there, as every tar's does.
///
/// Errors: as [`tar::encode`].
pub fn encode_header(entry: &Entry, out: &mut Vec<u8>) -> Result<()> {
    let path = match entry.is_directory() {
        true => Cow::Owned([&entry.path[..], b"/"].concat()),
        false => Cow::Borrowed(&entry.path[..]),
    };
    tar::encode(
        &tar::Entry {
            path: &path,
            target: entry.target(),
            kind: entry.kind(),
            size: entry.length,
            mode: u32::from(entry.mode),
            mtime: entry.mtime,
            uid: entry.uid,
            gid: entry.gid,
        },
        out,
    )
}
