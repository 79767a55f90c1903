//! Identities. All are plain numbers, printed as fixed-width hexadecimal where they name files or objects.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Kind};

/// One independent tree. 0 is never used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NamespaceId(pub u32);

/// An inode number within its namespace, never used twice. The root is 1, as FUSE wants it. Directories that were made for the
/// trash have numbers from [`Ino::TRASH`] on, wherever they were moved since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ino(pub u64);

impl Ino {
    pub const ROOT: Ino = Ino(1);
    /// The directory of what was removed. Below it, more inodes than a namespace ever has; above it, numbers that a program
    /// can still keep in a float.
    pub const TRASH: Ino = Ino(1 << 48);

    /// Whether it was made for the trash: no directory of another number ever lies in it.
    pub const fn is_of_trash(self) -> bool {
        self.0 >= Ino::TRASH.0
    }
}

/// A node: one cache directory. Random, made once, kept in the cache directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u64);

/// One mount host known to the metadata service, from its first greeting to its end. Random, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// A file anywhere in the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileKey {
    pub ns: NamespaceId,
    pub ino: Ino,
}

/// What an object holds: one file's range, or many files' bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ObjectKind {
    Block,
    Pack,
}

/// An immutable object's identity: 48 bits of milliseconds since 1970, then 80 random bits. Never used twice, so an
/// object is never overwritten, and listing order is time order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId(pub u128);

impl ObjectId {
    pub fn new(unix_ms: u64, random: u128) -> ObjectId {
        ObjectId((u128::from(unix_ms) << 80) | (random & ((1 << 80) - 1)))
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for ObjectId {
    type Err = Error;

    fn from_str(s: &str) -> Result<ObjectId, Error> {
        if s.len() != 32 || !s.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(Error::new(Kind::Invalid, format!("{s:?} is no object id (32 hexadecimal digits)")));
        }
        u128::from_str_radix(s, 16)
            .map(ObjectId)
            .map_err(|e| Error::new(Kind::Invalid, "object id").with_source(e))
    }
}

impl fmt::Display for NamespaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl fmt::Display for Ino {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Key of an object below the volume's prefix: `ns/<namespace>/<b|p>/<last 2 digits>/<id>`. One namespace is one prefix,
/// so that it can be checked, rebuilt and deleted alone; the random digits spread a bucket's index.
pub fn object_key(ns: NamespaceId, kind: ObjectKind, id: ObjectId) -> String {
    let letter = match kind {
        ObjectKind::Block => 'b',
        ObjectKind::Pack => 'p',
    };
    format!("ns/{ns}/{letter}/{:02x}/{id}", id.0 & 0xff)
}

/// What [`object_key`] made a key of; `None` for any other text.
pub fn parse_object_key(key: &str) -> Option<(NamespaceId, ObjectKind, ObjectId)> {
    let mut parts = key.split('/').skip(1);
    let (ns, letter, _, id) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let kind = match letter {
        "b" => ObjectKind::Block,
        "p" => ObjectKind::Pack,
        _ => return None,
    };
    let ns = NamespaceId(u32::from_str_radix(ns, 16).ok()?);
    let id: ObjectId = id.parse().ok()?;
    (object_key(ns, kind, id) == key).then_some((ns, kind, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_ids_sort_by_time_and_round_trip() {
        let (a, b) = (ObjectId::new(1, u128::MAX), ObjectId::new(2, 0));
        assert!(a < b && a.to_string() < b.to_string());
        assert_eq!(a.to_string().parse::<ObjectId>().unwrap(), a);
        assert!("xyz".parse::<ObjectId>().is_err());
        assert_eq!(
            object_key(NamespaceId(7), ObjectKind::Pack, ObjectId::new(1, 0xab)),
            "ns/00000007/p/ab/000000000001000000000000000000ab"
        );
        let key = object_key(NamespaceId(7), ObjectKind::Block, b);
        assert_eq!(parse_object_key(&key), Some((NamespaceId(7), ObjectKind::Block, b)));
        for other in [
            "granary-volume",
            "ns/7/p/ab/1",
            &key.replace("/b/", "/c/"),
            &key.to_uppercase(),
            &format!("{key}/x"),
        ] {
            assert_eq!(parse_object_key(other), None, "{other}");
        }
    }
}
