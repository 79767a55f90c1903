//! Objects in the store that metadata knows, and the list of those without a live byte.
//!
//! Object:
//!
//! | bytes | field |
//! |---|---|
//! | 1 | version, 1 |
//! | 1 | kind: 1 block, 2 pack |
//! | 8, 8 | payload length; total length, less if it is compressed, u64 |
//! | 8 | live bytes: how many bytes of files are in it u64 |
//! | 1 | 1: dead, and the next field follows; 0: not |
//! | 12 | dead since: seconds i64, nanoseconds u32; live bytes are 0 |
//!
//! Dead object (the key says all): 1 byte, version, 1. Both records go when the store has confirmed the deletion. A dead
//! object never lives again, because its deletion may be on the way.
//!
//! Condemned object: one that was found in the store and not known here, long after it was stored. It may be deleted, so
//! nothing may ever name it; the record stays as long as the namespace.
//!
//! | bytes | field |
//! |---|---|
//! | 1 | version, 1 |
//! | 12 | condemned since: seconds i64, nanoseconds u32 |

use granary_core::codec::{Put, Reader};
use granary_core::{ObjectId, ObjectKind, Result, Timestamp};

use super::inode::{decode_time, encode_time};
use crate::types::ObjectInfo;

const VERSION: u8 = 1;
pub(super) const DEAD_VERSION: u8 = 1;
const CONDEMNED_VERSION: u8 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectRecord {
    pub info: ObjectInfo,
    /// Bytes of files whose extents name this object.
    pub live: u64,
    /// When the last live byte went; a dead object is never referred to again.
    pub dead_since: Option<Timestamp>,
}

impl ObjectRecord {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(VERSION);
        out.put_u8(match self.info.kind {
            ObjectKind::Block => 1,
            ObjectKind::Pack => 2,
        });
        out.put_u64(self.info.payload_len);
        out.put_u64(self.info.total_len);
        out.put_u64(self.live);
        out.put_u8(u8::from(self.dead_since.is_some()));
        if let Some(since) = self.dead_since {
            encode_time(since, out);
        }
    }

    pub(super) fn decode(id: ObjectId, bytes: &[u8]) -> Result<ObjectRecord> {
        let mut r = Reader::new(bytes, "an object's record");
        r.version(VERSION)?;
        let kind = match r.u8()? {
            1 => ObjectKind::Block,
            2 => ObjectKind::Pack,
            _ => return Err(r.corrupt("its kind is unknown")),
        };
        let (payload_len, total_len, live) = (r.u64()?, r.u64()?, r.u64()?);
        let dead_since = match r.u8()? {
            0 => None,
            1 => Some(decode_time(&mut r)?),
            _ => return Err(r.corrupt("its state is unknown")),
        };
        if live > 0 && dead_since.is_some() {
            return Err(r.corrupt("it is dead and has live bytes"));
        }
        r.finish()?;
        Ok(ObjectRecord { info: ObjectInfo { id, kind, payload_len, total_len }, live, dead_since })
    }
}

pub(super) fn decode_dead(bytes: &[u8]) -> Result<()> {
    let mut r = Reader::new(bytes, "a dead object's record");
    r.version(DEAD_VERSION)?;
    r.finish()
}

pub(super) fn encode_condemned(since: Timestamp, out: &mut Vec<u8>) {
    out.put_u8(CONDEMNED_VERSION);
    encode_time(since, out);
}

pub(super) fn decode_condemned(bytes: &[u8]) -> Result<Timestamp> {
    let mut r = Reader::new(bytes, "a condemned object's record");
    r.version(CONDEMNED_VERSION)?;
    let since = decode_time(&mut r)?;
    r.finish()?;
    Ok(since)
}
