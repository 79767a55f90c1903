//! A directory's entries, twice: by name for lookup, by cookie for listing.
//!
//! Each new entry gets its directory's next cookie, which only grows. So a listing is a forward scan in the order of
//! creation, pages without sorting, and continues strictly after any cookie, whatever came and went meanwhile. A rename
//! onto an existing name takes over that name's cookie: a listing sees the name exactly once.
//!
//! By name:
//!
//! | bytes | field |
//! |---|---|
//! | 1 | version, 1 |
//! | 1 | file type as in [`super::inode`] |
//! | 8 | inode u64, not 0 |
//! | 8 | cookie u64, at least 3 |
//!
//! By cookie:
//!
//! | bytes | field |
//! |---|---|
//! | 1 | version, 1 |
//! | 1 | file type |
//! | 8 | inode u64, not 0 |
//! | 1 | length of the name u8, not 0 |
//! | n | name |

use granary_core::codec::{Put, Reader};
use granary_core::{Ino, Result};

use super::inode::{COOKIE_MIN, decode_type, encode_type};
use crate::types::FileType;

const VERSION: u8 = 1;

/// An entry, found by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub ino: Ino,
    pub kind: FileType,
    pub cookie: u64,
}

/// An entry, found by its cookie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    pub ino: Ino,
    pub kind: FileType,
    pub name: Box<[u8]>,
}

impl Entry {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(VERSION);
        out.put_u8(encode_type(self.kind));
        out.put_u64(self.ino.0);
        out.put_u64(self.cookie);
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Entry> {
        let mut r = Reader::new(bytes, "a directory entry");
        r.version(VERSION)?;
        let entry = Entry { kind: decode_type(&mut r)?, ino: Ino(r.u64()?), cookie: r.u64()? };
        if entry.ino.0 == 0 || entry.cookie < COOKIE_MIN {
            return Err(r.corrupt("its inode or cookie is impossible"));
        }
        r.finish()?;
        Ok(entry)
    }
}

impl Listing {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(VERSION);
        out.put_u8(encode_type(self.kind));
        out.put_u64(self.ino.0);
        out.put_u8(self.name.len() as u8);
        out.extend_from_slice(&self.name);
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Listing> {
        let mut r = Reader::new(bytes, "a listing entry");
        r.version(VERSION)?;
        let (kind, ino, n) = (decode_type(&mut r)?, Ino(r.u64()?), usize::from(r.u8()?));
        if ino.0 == 0 || n == 0 {
            return Err(r.corrupt("its inode or name is impossible"));
        }
        let name = Box::from(r.take(n)?);
        r.finish()?;
        Ok(Listing { ino, kind, name })
    }
}
