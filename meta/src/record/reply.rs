//! The answer to a call that changed something, remembered until the session says that it arrived: asked again, also
//! after a restart of the service, the call gets this answer and is not done again. Written in one batch with the change.
//!
//! | bytes | field |
//! |---|---|
//! | 1 | version, 1 |
//! | 8 | the call's number u64 |
//! | 1 | kind of answer: 1 done, 2 attributes, 3 renamed, 4 parts, 5 copied |
//! | | kind 2: attributes, below |
//! | | kind 3: 1 byte, 1 if attributes follow (who lost its name), 0 if not |
//! | | kind 4: count u32; for each move a count u32, then that many pairs of offset u64, length u64 |
//! | | kind 5: length u64, attributes |
//! | 1 | count of inodes that the call changed besides |
//! | 8 each | their numbers u64 |
//!
//! Attributes:
//!
//! | bytes | field |
//! |---|---|
//! | 8 | inode u64 |
//! | 1, 2 | file type as in [`super::inode`]; mode u16 |
//! | 4 each | uid, gid, nlink, rdev u32 |
//! | 8, 8 | size, stored u64 |
//! | 12 each | atime, mtime, ctime, btime: seconds i64, nanoseconds u32 |
//! | 8, 8 | version, staged_seq u64 |

use granary_core::codec::{Put, Reader};
use granary_core::{Ino, Result};

use super::inode;
use crate::types::{Attr, Copied};

const VERSION: u8 = 1;
/// Inodes that one call changes besides the one it answers: two directories and two children at most.
pub const TOUCHED_MAX: usize = 8;

/// What a call was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answered {
    Done,
    Attr(Attr),
    Renamed(Option<Attr>),
    Parts(Vec<Vec<(u64, u64)>>),
    Copied(Copied),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyRecord {
    /// The call's number in its session.
    pub id: u64,
    pub answer: Answered,
    pub touched: Vec<Ino>,
}

impl ReplyRecord {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(VERSION);
        out.put_u64(self.id);
        match &self.answer {
            Answered::Done => out.put_u8(1),
            Answered::Attr(attr) => {
                out.put_u8(2);
                encode_attr(attr, out);
            }
            Answered::Renamed(lost) => {
                out.put_u8(3);
                out.put_u8(u8::from(lost.is_some()));
                if let Some(attr) = lost {
                    encode_attr(attr, out);
                }
            }
            Answered::Parts(parts) => {
                out.put_u8(4);
                out.put_u32(parts.len() as u32);
                for of_move in parts {
                    out.put_u32(of_move.len() as u32);
                    for &(offset, len) in of_move {
                        out.put_u64(offset);
                        out.put_u64(len);
                    }
                }
            }
            Answered::Copied(copied) => {
                out.put_u8(5);
                out.put_u64(copied.len);
                encode_attr(&copied.attr, out);
            }
        }
        debug_assert!(self.touched.len() <= TOUCHED_MAX);
        out.put_u8(self.touched.len() as u8);
        for ino in &self.touched {
            out.put_u64(ino.0);
        }
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<ReplyRecord> {
        let mut r = Reader::new(bytes, "a remembered answer");
        r.version(VERSION)?;
        let id = r.u64()?;
        let answer = match r.u8()? {
            1 => Answered::Done,
            2 => Answered::Attr(decode_attr(&mut r)?),
            3 => match r.u8()? {
                0 => Answered::Renamed(None),
                1 => Answered::Renamed(Some(decode_attr(&mut r)?)),
                _ => return Err(r.corrupt("what it says of a rename is unknown")),
            },
            4 => Answered::Parts(decode_parts(&mut r)?),
            5 => Answered::Copied(Copied { len: r.u64()?, attr: decode_attr(&mut r)? }),
            _ => return Err(r.corrupt("its kind is unknown")),
        };
        let count = usize::from(r.u8()?);
        if count > TOUCHED_MAX {
            return Err(r.corrupt("it has too many inodes"));
        }
        let touched = (0..count).map(|_| r.u64().map(Ino)).collect::<Result<_>>()?;
        r.finish()?;
        Ok(ReplyRecord { id, answer, touched })
    }
}

fn decode_parts(r: &mut Reader<'_>) -> Result<Vec<Vec<(u64, u64)>>> {
    let mut parts = Vec::new();
    for _ in 0..r.u32()? {
        let count = r.u32()? as usize;
        if count > r.remaining() / 16 {
            return Err(r.corrupt("it ends too early"));
        }
        let of_move = (0..count).map(|_| Ok((r.u64()?, r.u64()?))).collect::<Result<_>>()?;
        parts.push(of_move);
    }
    Ok(parts)
}

fn encode_attr(a: &Attr, out: &mut Vec<u8>) {
    out.put_u64(a.ino.0);
    inode::encode_attr(a, out);
}

fn decode_attr(r: &mut Reader<'_>) -> Result<Attr> {
    let ino = Ino(r.u64()?);
    inode::decode_attr(ino, r)
}
