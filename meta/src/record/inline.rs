//! A copy of a tiny file's bytes, kept beside its inode so that reading it asks nothing of the store.
//!
//! | bytes | field |
//! |---|---|
//! | 1 | version, 1 |
//! | 8 | the inode's `version` whose content this is u64 |
//! | 4 | crc32c of the bytes u32 |
//! | 2 + n | length u16, from 1 to [`INLINE_BYTES_MAX`]; the bytes |
//!
//! The object in the store stays the truth: what is damaged here, or of another version, counts as not being there.

use granary_core::Result;
use granary_core::codec::{Put, Reader};
use granary_core::limits::INLINE_BYTES_MAX;

use crate::types::Inline;

const VERSION: u8 = 1;

pub(super) fn encode(copy: &Inline, out: &mut Vec<u8>) {
    out.reserve(15 + copy.bytes.len());
    out.put_u8(VERSION);
    out.put_u64(copy.version);
    out.put_u32(copy.crc);
    out.put_bytes16(&copy.bytes);
}

pub(super) fn decode(bytes: &[u8]) -> Result<Inline> {
    let mut r = Reader::new(bytes, "a copy of a file's bytes");
    r.version(VERSION)?;
    let (version, crc, bytes) = (r.u64()?, r.u32()?, r.bytes16()?);
    if bytes.is_empty() || bytes.len() as u64 > INLINE_BYTES_MAX {
        return Err(r.corrupt("its length is impossible"));
    }
    r.finish()?;
    Ok(Inline { version, crc, bytes: bytes.into() })
}
