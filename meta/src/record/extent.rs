//! Where a range of a file's bytes is.
//!
//! In an inode (without the version byte, the inode's counts) and as a record of its own when the inode has more than
//! [`super::EXTENTS_INLINE_MAX`]. As a record:
//!
//! | bytes | field |
//! |---|---|
//! | 1 | version, 1 |
//! | 8 | offset in the file u64 |
//! | 8 | length u64, not 0; offset + length is the key's end |
//! | 4 | crc32c of the bytes u32, or 0 |
//! | 1 | place: 1 block, 2 pack, 3 log, 4 stage file |
//! | 24 | block, pack: object id u128, offset in the payload u64 |
//! | 24 | log: node u64, segment u64, offset u64 |
//! | 8 | stage file: node u64 |

use granary_core::codec::{Put, Reader};
use granary_core::{NodeId, ObjectId, ObjectKind, Result};

use crate::types::{Extent, Place};

const VERSION: u8 = 1;

pub(crate) fn encode(extent: &Extent, out: &mut Vec<u8>) {
    out.put_u64(extent.offset);
    out.put_u64(extent.len);
    out.put_u32(extent.crc);
    match extent.place {
        Place::Object { kind, id, offset } => {
            out.put_u8(match kind {
                ObjectKind::Block => 1,
                ObjectKind::Pack => 2,
            });
            out.put_u128(id.0);
            out.put_u64(offset);
        }
        Place::Log { node, segment, offset } => {
            out.put_u8(3);
            out.put_u64(node.0);
            out.put_u64(segment);
            out.put_u64(offset);
        }
        Place::StageFile { node } => {
            out.put_u8(4);
            out.put_u64(node.0);
        }
    }
}

pub(crate) fn decode(r: &mut Reader<'_>) -> Result<Extent> {
    let (offset, len, crc) = (r.u64()?, r.u64()?, r.u32()?);
    if len == 0 || offset.checked_add(len).is_none() {
        return Err(r.corrupt("an extent's range is impossible"));
    }
    let place = match r.u8()? {
        tag @ 1..=2 => Place::Object {
            kind: if tag == 1 { ObjectKind::Block } else { ObjectKind::Pack },
            id: ObjectId(r.u128()?),
            offset: r.u64()?,
        },
        3 => Place::Log { node: NodeId(r.u64()?), segment: r.u64()?, offset: r.u64()? },
        4 => Place::StageFile { node: NodeId(r.u64()?) },
        _ => return Err(r.corrupt("an extent's place is unknown")),
    };
    Ok(Extent { offset, len, place, crc })
}

pub(super) fn encode_record(extent: &Extent, out: &mut Vec<u8>) {
    out.put_u8(VERSION);
    encode(extent, out);
}

pub(super) fn decode_record(end: u64, bytes: &[u8]) -> Result<Extent> {
    let mut r = Reader::new(bytes, "an extent");
    r.version(VERSION)?;
    let extent = decode(&mut r)?;
    if extent.end() != end {
        return Err(r.corrupt("its end is not the one in its key"));
    }
    r.finish()?;
    Ok(extent)
}
