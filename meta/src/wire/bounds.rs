//! How large what comes over the wire may be.

use std::sync::Arc;

use granary_core::Result;
use granary_core::limits::{INLINE_BYTES_MAX, SYMLINK_BYTES_MAX, XATTR_BYTES_MAX};
use granary_core::name::ENTRY_NAME_MAX;

use super::malformed;

/// Bytes of one frame of a client. The largest call is a commit or a relocation of some ten thousand extents.
pub const CLIENT_FRAME_BYTES_MAX: usize = 16 << 20;
/// Bytes of one frame of the service. The largest answer: the extents of a file of 16 TiB.
pub const SERVER_FRAME_BYTES_MAX: usize = 64 << 20;
/// Items of one frame.
pub const FRAME_ITEMS_MAX: usize = 16_384;
/// Bytes of items a sender puts into one frame: it stops when a frame has this many.
pub const FRAME_BYTES_SOFT: usize = 256 << 10;
/// Entries of one listing, leases in one `Forget`, inodes in one `Close`.
pub const LIST_MAX: usize = 65_536;
/// A host's name, an address, a user's name, a token's id.
pub const TEXT_BYTES_MAX: usize = 1024;
/// A message of an error, a ticket, a store's URL.
pub const LONG_TEXT_BYTES_MAX: usize = 16 << 10;

fn at_most(len: usize, max: usize, what: &str) -> Result<()> {
    if len > max {
        return Err(malformed(&format!("{what} has {len} bytes or elements, {max} are allowed")));
    }
    Ok(())
}

pub(super) fn entry_name(name: Vec<u8>) -> Result<Box<[u8]>> {
    granary_core::EntryName::new(&name).map_err(|_| malformed("an entry's name is impossible"))?;
    Ok(name.into_boxed_slice())
}

pub(super) fn xattr_name(name: Vec<u8>) -> Result<Box<[u8]>> {
    at_most(name.len(), ENTRY_NAME_MAX, "an attribute's name")?;
    if name.is_empty() || name.contains(&0) {
        return Err(malformed("an attribute's name is impossible"));
    }
    Ok(name.into_boxed_slice())
}

pub(super) fn xattr_value(value: Vec<u8>) -> Result<Box<[u8]>> {
    at_most(value.len(), XATTR_BYTES_MAX, "an attribute's value")?;
    Ok(value.into_boxed_slice())
}

/// A copy of a tiny file's bytes.
pub(super) fn inline(bytes: &[u8]) -> Result<Arc<[u8]>> {
    at_most(bytes.len(), INLINE_BYTES_MAX as usize, "a copy of a file's bytes")?;
    if bytes.is_empty() {
        return Err(malformed("a copy of a file's bytes is empty"));
    }
    Ok(bytes.into())
}

pub(super) fn target(target: Vec<u8>) -> Result<Vec<u8>> {
    at_most(target.len(), SYMLINK_BYTES_MAX, "a symlink's target")?;
    Ok(target)
}

pub(super) fn text(text: String, what: &str) -> Result<String> {
    at_most(text.len(), TEXT_BYTES_MAX, what)?;
    Ok(text)
}

pub(super) fn long_text(text: String, what: &str) -> Result<String> {
    at_most(text.len(), LONG_TEXT_BYTES_MAX, what)?;
    Ok(text)
}

pub(super) fn list<T>(list: Vec<T>, what: &str) -> Result<Vec<T>> {
    at_most(list.len(), LIST_MAX, what)?;
    Ok(list)
}

/// `(offset, len)` by turns; neither empty nor beyond what 64 bits hold.
pub(super) fn ranges(flat: &[u64], what: &str) -> Result<Vec<(u64, u64)>> {
    let (pairs, rest) = flat.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(malformed(&format!("{what}: a length is missing")));
    }
    pairs.iter().map(|&[offset, len]| range(offset, len, what)).collect()
}

pub(super) fn range(offset: u64, len: u64, what: &str) -> Result<(u64, u64)> {
    if len == 0 || offset.checked_add(len).is_none() {
        return Err(malformed(&format!("{what}: a range is impossible")));
    }
    Ok((offset, len))
}

pub(super) fn flat(ranges: &[(u64, u64)]) -> Vec<u64> {
    ranges.iter().flat_map(|&(offset, len)| [offset, len]).collect()
}
