//! POSIX access control lists, in the form in which Linux passes them as extended attributes (`linux/posix_acl_xattr.h`).
//!
//! Integers are little-endian.
//!
//! | bytes | field |
//! |---|---|
//! | 4 | version, 2, u32 |
//! | 8 each | entries |
//!
//! An entry:
//!
//! | bytes | field |
//! |---|---|
//! | 2 | tag u16: 0x01 owner, 0x02 user, 0x04 owning group, 0x08 group, 0x10 mask, 0x20 others |
//! | 2 | permissions u16, at most 7 |
//! | 4 | uid or gid u32 of a user or group, else 0xffffffff |
//!
//! Entries are in the order of their tags. There is one of owner, owning group and others each; a mask where a user or group
//! is named. What the rules mean is told by acl(5), what mode and list have to do with each other by IEEE 1003.1e draft 17, 23.1.

#[cfg(test)]
mod tests;

use granary_core::codec::{Put, Reader};
use granary_core::limits::XATTR_BYTES_MAX;
use granary_core::{Error, Kind, Result};

/// The attribute that holds who may use a file.
pub const ACCESS: &[u8] = b"system.posix_acl_access";
/// The attribute of a directory that holds what is made in it begins with.
pub const DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: u32 = 2;
const HEADER: usize = 4;
const ENTRY: usize = 8;
/// More do not fit into an extended attribute.
pub const ENTRIES_MAX: usize = (XATTR_BYTES_MAX - HEADER) / ENTRY;
const NO_ID: u32 = u32::MAX;

/// Whom an entry is about. In the order of the entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    Owner,
    User(u32),
    OwningGroup,
    Group(u32),
    Mask,
    Others,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub who: Who,
    /// Read 4, write 2, execute 1.
    pub perm: u8,
}

/// A valid list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl {
    entries: Vec<Entry>,
}

fn invalid<T>(why: &'static str) -> Result<T> {
    Err(Error::new(Kind::Invalid, why))
}

impl Who {
    fn code(self) -> (u16, u32) {
        match self {
            Who::Owner => (0x01, NO_ID),
            Who::User(id) => (0x02, id),
            Who::OwningGroup => (0x04, NO_ID),
            Who::Group(id) => (0x08, id),
            Who::Mask => (0x10, NO_ID),
            Who::Others => (0x20, NO_ID),
        }
    }

    fn from_code(tag: u16, id: u32) -> Option<Who> {
        Some(match tag {
            0x01 => Who::Owner,
            0x02 => Who::User(id),
            0x04 => Who::OwningGroup,
            0x08 => Who::Group(id),
            0x10 => Who::Mask,
            0x20 => Who::Others,
            _ => return None,
        })
    }
}

impl Acl {
    /// From an attribute's value. `None`: it has no entries, which means that there is to be no list.
    ///
    /// Errors: `Unsupported` for another version, `Invalid` for what is no list.
    pub fn parse(bytes: &[u8]) -> Result<Option<Acl>> {
        let mut r = Reader::new(bytes, "an access control list");
        let Ok(version) = r.u32() else { return invalid("an access control list begins with its version") };
        if version != VERSION {
            return Err(Error::new(Kind::Unsupported, "access control lists are of version 2"));
        }
        let count = r.remaining() / ENTRY;
        if !r.remaining().is_multiple_of(ENTRY) || count > ENTRIES_MAX {
            return invalid(
                "an access control list's entries have 8 bytes each, and all of it at most 64 KiB",
            );
        }
        let mut entries = Vec::with_capacity(count);
        for _ in 0..count {
            let (tag, perm, id) = (r.u16()?, r.u16()?, r.u32()?);
            match (Who::from_code(tag, id), perm) {
                (Some(who), 0..=7) => entries.push(Entry { who, perm: perm as u8 }),
                _ => return invalid("an entry of an access control list has an unknown tag or permission"),
            }
        }
        if entries.is_empty() {
            return Ok(None);
        }
        Acl::new(entries).map(Some)
    }

    /// `Invalid` when the entries are not in order, or not what a list must have.
    pub fn new(entries: Vec<Entry>) -> Result<Acl> {
        let tag = |e: &Entry| e.who.code().0;
        let ordered = entries.is_sorted_by(|a, b| match tag(a) {
            0x02 | 0x08 => tag(a) <= tag(b),
            _ => tag(a) < tag(b),
        });
        if !ordered {
            return invalid("an access control list's entries are out of order");
        }
        if entries.iter().any(|e| matches!(e.who, Who::User(NO_ID) | Who::Group(NO_ID))) {
            return invalid("an access control list names nobody's id");
        }
        let acl = Acl { entries };
        let has = |who| acl.find(who).is_some();
        if !has(Who::Owner) || !has(Who::OwningGroup) || !has(Who::Others) {
            return invalid("an access control list has entries for owner, owning group and others");
        }
        if acl.names_somebody() && !has(Who::Mask) {
            return invalid("an access control list that names a user or group has a mask");
        }
        Ok(acl)
    }

    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER + self.entries.len() * ENTRY);
        out.put_u32(VERSION);
        for entry in &self.entries {
            let (tag, id) = entry.who.code();
            out.put_u16(tag);
            out.put_u16(u16::from(entry.perm));
            out.put_u32(id);
        }
        out
    }

    fn find(&self, who: Who) -> Option<usize> {
        self.entries.iter().position(|e| e.who == who)
    }

    fn names_somebody(&self) -> bool {
        self.entries.iter().any(|e| matches!(e.who, Who::User(_) | Who::Group(_)))
    }

    fn perm(&self, who: Who) -> u32 {
        self.find(who).map_or(0, |i| u32::from(self.entries[i].perm))
    }

    /// Whom the mode's group class is about: the mask, if there is one.
    fn group_class(&self) -> Who {
        if self.find(Who::Mask).is_some() { Who::Mask } else { Who::OwningGroup }
    }

    /// The permission bits that stand for this list, 0o777.
    pub fn mode(&self) -> u32 {
        self.perm(Who::Owner) << 6 | self.perm(self.group_class()) << 3 | self.perm(Who::Others)
    }

    /// Whether the mode says all of it.
    pub fn is_mode(&self) -> bool {
        self.entries.len() == 3
    }

    /// The list after a chmod.
    pub fn set_mode(&mut self, mode: u32) {
        for (who, shift) in [(Who::Owner, 6), (self.group_class(), 3), (Who::Others, 0)] {
            if let Some(i) = self.find(who) {
                self.entries[i].perm = (mode >> shift & 7) as u8;
            }
        }
    }

    /// The list of what is made with `mode` (0o777) in a directory that has this default list: it allows what both do.
    pub fn inherited(&self, mode: u32) -> Acl {
        let mut acl = self.clone();
        acl.set_mode(self.mode() & mode);
        acl
    }
}
