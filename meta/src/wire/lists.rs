//! Long lists, as records within one `bytes` field: a hostile message cannot make more of them than it has bytes.
//! All numbers are little-endian.
//!
//! Extent: as in [`crate::record::extent`], without its version byte (29 to 45 bytes). List of extents: one after the other.
//!
//! Staged extent: 8 bytes inode, then the extent.
//!
//! Move:
//!
//! | bytes | field |
//! |---|---|
//! | 8 | inode u64 |
//! | 8 | offset in the object's payload u64 |
//! | 29-45 | the staged extent |
//!
//! Copy of a file's bytes to keep:
//!
//! | bytes | field |
//! |---|---|
//! | 8 | inode u64 |
//! | 8 | where its bytes are in the object's payload u64 |
//! | 4 | crc32c of the bytes u32 |
//! | 2 + n | length u16, from 1 to 2048; the bytes |
//!
//! Lock that is held:
//!
//! | bytes | field |
//! |---|---|
//! | 8, 8 | inode; owner u64 |
//! | 1 | bit 0: flock, bit 1: exclusive |
//! | 8, 8 | first byte; last byte u64, not less |
//! | 4 | pid u32 |
//!
//! Object id: 16 bytes u128.

use granary_core::codec::{Put, Reader};
use granary_core::{Ino, ObjectId, Result};

use super::{bounds, malformed};
use crate::lease::{Lock, LockKind, LockOwner};
use crate::record::extent;
use crate::types::{Extent, Move, NewInline};

/// Reads records until the end.
fn each<T>(
    bytes: &[u8],
    what: &'static str,
    mut one: impl FnMut(&mut Reader<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    let mut r = Reader::new(bytes, what);
    let mut all = Vec::new();
    while r.remaining() > 0 {
        all.push(one(&mut r).map_err(|e| malformed(&e.to_string()))?);
    }
    Ok(all)
}

pub fn encode_extents(extents: &[Extent]) -> Vec<u8> {
    let mut out = Vec::with_capacity(extents.len() * 45);
    extents.iter().for_each(|e| extent::encode(e, &mut out));
    out
}

pub fn decode_extents(bytes: &[u8]) -> Result<Vec<Extent>> {
    each(bytes, "a list of extents", extent::decode)
}

pub fn encode_staged(staged: &[(Ino, Extent)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(staged.len() * 53);
    for (ino, e) in staged {
        out.put_u64(ino.0);
        extent::encode(e, &mut out);
    }
    out
}

pub fn decode_staged(bytes: &[u8]) -> Result<Vec<(Ino, Extent)>> {
    each(bytes, "a list of staged extents", |r| Ok((Ino(r.u64()?), extent::decode(r)?)))
}

pub fn encode_moves(moves: &[Move]) -> Vec<u8> {
    let mut out = Vec::with_capacity(moves.len() * 61);
    for m in moves {
        out.put_u64(m.ino.0);
        out.put_u64(m.to_offset);
        extent::encode(&m.from, &mut out);
    }
    out
}

pub fn decode_moves(bytes: &[u8]) -> Result<Vec<Move>> {
    each(bytes, "a list of moves", |r| {
        let (ino, to_offset) = (Ino(r.u64()?), r.u64()?);
        let from = extent::decode(r)?;
        if to_offset.checked_add(from.len).is_none() {
            return Err(r.corrupt("a move ends beyond every object"));
        }
        Ok(Move { ino, from, to_offset })
    })
}

pub fn encode_inline(copies: &[NewInline]) -> Vec<u8> {
    let mut out = Vec::with_capacity(copies.iter().map(|copy| 22 + copy.bytes.len()).sum());
    for copy in copies {
        out.put_u64(copy.ino.0);
        out.put_u64(copy.at);
        out.put_u32(copy.crc);
        out.put_bytes16(&copy.bytes);
    }
    out
}

pub fn decode_inline(bytes: &[u8]) -> Result<Vec<NewInline>> {
    each(bytes, "a list of copies", |r| {
        let (ino, at, crc) = (Ino(r.u64()?), r.u64()?, r.u32()?);
        Ok(NewInline { ino, at, crc, bytes: bounds::inline(r.bytes16()?)? })
    })
}

pub fn encode_locks(locks: &[(Ino, LockOwner, Lock)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(locks.len() * 37);
    for (ino, owner, lock) in locks {
        out.put_u64(ino.0);
        out.put_u64(owner.0);
        out.put_u8(u8::from(lock.flock) | u8::from(lock.kind == LockKind::Exclusive) << 1);
        out.put_u64(lock.start);
        out.put_u64(lock.end);
        out.put_u32(lock.pid);
    }
    out
}

pub fn decode_locks(bytes: &[u8]) -> Result<Vec<(Ino, LockOwner, Lock)>> {
    each(bytes, "a list of locks", |r| {
        let (ino, owner, bits) = (Ino(r.u64()?), LockOwner(r.u64()?), r.u8()?);
        let (start, end, pid) = (r.u64()?, r.u64()?, r.u32()?);
        if bits > 3 || start > end {
            return Err(r.corrupt("a lock is impossible"));
        }
        let kind = if bits & 2 != 0 { LockKind::Exclusive } else { LockKind::Shared };
        Ok((ino, owner, Lock { flock: bits & 1 != 0, kind, start, end, pid }))
    })
}

pub fn encode_ids(ids: &[ObjectId]) -> Vec<u8> {
    ids.iter().flat_map(|id| id.0.to_le_bytes()).collect()
}

pub fn decode_ids(bytes: &[u8]) -> Result<Vec<ObjectId>> {
    each(bytes, "a list of object ids", |r| Ok(ObjectId(r.u128()?)))
}

pub fn decode_id(bytes: &[u8]) -> Result<ObjectId> {
    match bytes.try_into() {
        Ok(array) => Ok(ObjectId(u128::from_le_bytes(array))),
        Err(_) => Err(malformed("an object id has not 16 bytes")),
    }
}
