//! How metadata lies in the engine: keys, values, one file per record family.
//!
//! Every key of a namespace begins with its id, big-endian, so that one namespace is one contiguous range; namespace 0
//! holds the volume's own records ([`volume`]). After the id comes one byte that names the family:
//!
//! | tag | family | rest of the key (big-endian) | value |
//! |---|---|---|---|
//! | `A` | extended attribute | inode u64, name | [`xattr`] |
//! | `B` | bytes of a tiny file, a copy | inode u64 | [`inline`] |
//! | `C` | counters | | [`space`] |
//! | `D` | dead object, oldest first | seconds i64 (sign bit flipped), nanoseconds u32, object id u128 | [`object`] |
//! | `E` | entry of a directory, by name | directory u64, name | [`entry`] |
//! | `I` | inode | inode u64 | [`inode`] |
//! | `J` | bytes of a node's stage log that its disk may lose | node u64, segment u64, offset u64 | [`xattr`] |
//! | `K` | condemned object | object id u128 | [`object`] |
//! | `L` | entry of a directory, by cookie | directory u64, cookie u64 | [`entry`] |
//! | `N` | the namespace's settings | | [`space`] |
//! | `O` | object | object id u128 | [`object`] |
//! | `R` | remembered answer of a session | session u64, slot u32 | [`reply`] |
//! | `T` | symlink target | inode u64 | [`xattr`] |
//! | `X` | extent that does not fit in the inode | inode u64, end offset u64 | [`extent`] |
//! | `Z` | orphan: without name, not yet freed | inode u64 | [`space`] |
//!
//! Values begin with a version byte and are little-endian. They carry no checksum: the engine checks its blocks and its
//! log. Decoding still checks every field's range, so that a record written wrong is `Corrupt`, never nonsense.
//!
//! An extent's key holds its *end*, so that the first extent that reaches into a range is found by one forward scan.

use std::sync::Arc;

use granary_core::codec::Put;
use granary_core::{Error, Ino, Kind, NamespaceId, NodeId, ObjectId, Result, SessionId, Timestamp};

pub mod entry;
pub mod extent;
pub mod inline;
pub mod inode;
pub mod object;
pub mod reply;
pub mod session;
pub mod space;
pub mod volume;
pub mod xattr;

pub use entry::{Entry, Listing};
pub use inode::{EXTENTS_INLINE_MAX, Inode};
pub use object::ObjectRecord;
pub use reply::{Answered, ReplyRecord};
pub use space::{Counters, NamespaceRecord, Orphan};

use crate::types::{Extent, Inline};

/// The key of one record within a namespace. Its order is the order of the encoded keys.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    Xattr(Ino, Box<[u8]>),
    Inline(Ino),
    Counters,
    Dead(Timestamp, ObjectId),
    Entry(Ino, Box<[u8]>),
    Inode(Ino),
    /// Node, segment of its stage log, offset there.
    Redo(NodeId, u64, u64),
    Condemned(ObjectId),
    Listing(Ino, u64),
    Namespace,
    Object(ObjectId),
    /// Session, and the number of the place that it uses again for later answers.
    Reply(SessionId, u32),
    Target(Ino),
    /// Inode, end offset.
    Extent(Ino, u64),
    Orphan(Ino),
}

/// A record's family, by its tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Family {
    Xattr = b'A',
    Inline = b'B',
    Counters = b'C',
    Dead = b'D',
    Entry = b'E',
    Inode = b'I',
    Redo = b'J',
    Condemned = b'K',
    Listing = b'L',
    Namespace = b'N',
    Object = b'O',
    Reply = b'R',
    Target = b'T',
    Extent = b'X',
    Orphan = b'Z',
}

/// What a scan covers: a family, or one inode's records of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    All(Family),
    Of(Family, Ino),
}

/// A record, decoded. Large ones are shared, so that a clone is cheap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Xattr(Arc<[u8]>),
    Inline(Arc<Inline>),
    Counters(Counters),
    Dead,
    Entry(Entry),
    Inode(Arc<Inode>),
    Redo(Arc<[u8]>),
    /// Since when.
    Condemned(Timestamp),
    Listing(Listing),
    Namespace(Arc<NamespaceRecord>),
    Object(ObjectRecord),
    Reply(Arc<ReplyRecord>),
    Target(Arc<[u8]>),
    Extent(Extent),
    Orphan(Orphan),
}

impl Key {
    pub fn family(&self) -> Family {
        match self {
            Key::Xattr(..) => Family::Xattr,
            Key::Inline(_) => Family::Inline,
            Key::Counters => Family::Counters,
            Key::Dead(..) => Family::Dead,
            Key::Entry(..) => Family::Entry,
            Key::Inode(_) => Family::Inode,
            Key::Redo(..) => Family::Redo,
            Key::Condemned(_) => Family::Condemned,
            Key::Listing(..) => Family::Listing,
            Key::Namespace => Family::Namespace,
            Key::Object(_) => Family::Object,
            Key::Reply(..) => Family::Reply,
            Key::Target(_) => Family::Target,
            Key::Extent(..) => Family::Extent,
            Key::Orphan(_) => Family::Orphan,
        }
    }

    /// Whether records of this family are found by scanning, so that pending changes of it are kept in order.
    pub fn is_scanned(&self) -> bool {
        matches!(
            self.family(),
            Family::Xattr | Family::Dead | Family::Redo | Family::Listing | Family::Extent | Family::Orphan
        )
    }

    pub fn encode(&self, ns: NamespaceId) -> Vec<u8> {
        let mut out = Vec::with_capacity(48);
        out.extend_from_slice(&ns.0.to_be_bytes());
        out.push(self.family() as u8);
        match self {
            Key::Xattr(ino, name) | Key::Entry(ino, name) => {
                out.extend_from_slice(&ino.0.to_be_bytes());
                out.extend_from_slice(name);
            }
            Key::Counters | Key::Namespace => {}
            Key::Dead(since, id) => {
                out.extend_from_slice(&((since.secs as u64) ^ (1 << 63)).to_be_bytes());
                out.extend_from_slice(&since.nanos.to_be_bytes());
                out.extend_from_slice(&id.0.to_be_bytes());
            }
            Key::Inline(ino) | Key::Inode(ino) | Key::Target(ino) | Key::Orphan(ino) => {
                out.extend_from_slice(&ino.0.to_be_bytes())
            }
            Key::Redo(node, segment, offset) => {
                for number in [node.0, *segment, *offset] {
                    out.extend_from_slice(&number.to_be_bytes());
                }
            }
            Key::Listing(ino, n) | Key::Extent(ino, n) => {
                out.extend_from_slice(&ino.0.to_be_bytes());
                out.extend_from_slice(&n.to_be_bytes());
            }
            Key::Object(id) | Key::Condemned(id) => out.extend_from_slice(&id.0.to_be_bytes()),
            Key::Reply(session, slot) => {
                out.extend_from_slice(&session.0.to_be_bytes());
                out.extend_from_slice(&slot.to_be_bytes());
            }
        }
        out
    }

    /// Reads back what [`Key::encode`] wrote; `Corrupt` for anything else.
    pub fn decode(ns: NamespaceId, bytes: &[u8]) -> Result<Key> {
        let corrupt = || {
            Error::new(Kind::Corrupt, format!("a metadata key of namespace {ns} is damaged: {bytes:02x?}"))
        };
        let rest = bytes.strip_prefix(&ns.0.to_be_bytes()).ok_or_else(corrupt)?;
        let (&tag, rest) = rest.split_first().ok_or_else(corrupt)?;
        let ino = || -> Result<(Ino, &[u8])> {
            let (head, tail) = rest.split_first_chunk::<8>().ok_or_else(corrupt)?;
            Ok((Ino(u64::from_be_bytes(*head)), tail))
        };
        let only_ino =
            || ino().and_then(|(ino, tail)| if tail.is_empty() { Ok(ino) } else { Err(corrupt()) });
        let with_name = || {
            ino().and_then(
                |(ino, name)| if name.is_empty() { Err(corrupt()) } else { Ok((ino, Box::from(name))) },
            )
        };
        let with_number = || -> Result<(Ino, u64)> {
            let (ino, tail) = ino()?;
            Ok((ino, u64::from_be_bytes(tail.try_into().map_err(|_| corrupt())?)))
        };
        let only_id = || Ok(ObjectId(u128::from_be_bytes(rest.try_into().map_err(|_| corrupt())?)));
        let only_tag = |key| if rest.is_empty() { Ok(key) } else { Err(corrupt()) };
        match tag {
            b'A' => with_name().map(|(ino, name)| Key::Xattr(ino, name)),
            b'B' => only_ino().map(Key::Inline),
            b'C' => only_tag(Key::Counters),
            b'D' => {
                let bytes: &[u8; 28] = rest.try_into().map_err(|_| corrupt())?;
                let (secs, rest) = bytes.split_first_chunk::<8>().ok_or_else(corrupt)?;
                let (nanos, id) = rest.split_first_chunk::<4>().ok_or_else(corrupt)?;
                let secs = (u64::from_be_bytes(*secs) ^ (1 << 63)) as i64;
                let nanos = u32::from_be_bytes(*nanos);
                let id = u128::from_be_bytes(id.try_into().map_err(|_| corrupt())?);
                Ok(Key::Dead(Timestamp { secs, nanos }, ObjectId(id)))
            }
            b'E' => with_name().map(|(ino, name)| Key::Entry(ino, name)),
            b'I' => only_ino().map(Key::Inode),
            b'J' => {
                let numbers: &[u8; 24] = rest.try_into().map_err(|_| corrupt())?;
                let (numbers, _) = numbers.as_chunks::<8>();
                let [node, segment, offset] = [0, 1, 2].map(|i| u64::from_be_bytes(numbers[i]));
                Ok(Key::Redo(NodeId(node), segment, offset))
            }
            b'K' => only_id().map(Key::Condemned),
            b'L' => with_number().map(|(ino, n)| Key::Listing(ino, n)),
            b'N' => only_tag(Key::Namespace),
            b'O' => only_id().map(Key::Object),
            b'R' => {
                let (session, slot) = rest.split_first_chunk::<8>().ok_or_else(corrupt)?;
                let slot = u32::from_be_bytes(slot.try_into().map_err(|_| corrupt())?);
                Ok(Key::Reply(SessionId(u64::from_be_bytes(*session)), slot))
            }
            b'T' => only_ino().map(Key::Target),
            b'X' => with_number().map(|(ino, n)| Key::Extent(ino, n)),
            b'Z' => only_ino().map(Key::Orphan),
            _ => Err(corrupt()),
        }
    }
}

impl Span {
    pub fn contains(&self, key: &Key) -> bool {
        match *self {
            Span::All(family) => key.family() == family,
            Span::Of(family, ino) => {
                key.family() == family
                    && match key {
                        Key::Xattr(i, _)
                        | Key::Inline(i)
                        | Key::Entry(i, _)
                        | Key::Inode(i)
                        | Key::Listing(i, _)
                        | Key::Target(i)
                        | Key::Extent(i, _)
                        | Key::Orphan(i) => *i == ino,
                        Key::Counters
                        | Key::Condemned(_)
                        | Key::Dead(..)
                        | Key::Redo(..)
                        | Key::Namespace
                        | Key::Object(_)
                        | Key::Reply(..) => false,
                    }
            }
        }
    }

    /// A key that is not above any key of the span.
    pub fn first(&self) -> Key {
        let (family, ino) = match *self {
            Span::All(family) => (family, Ino(0)),
            Span::Of(family, ino) => (family, ino),
        };
        match family {
            Family::Xattr => Key::Xattr(ino, Box::default()),
            Family::Inline => Key::Inline(ino),
            Family::Counters => Key::Counters,
            Family::Dead => Key::Dead(Timestamp { secs: i64::MIN, nanos: 0 }, ObjectId(0)),
            Family::Entry => Key::Entry(ino, Box::default()),
            Family::Inode => Key::Inode(ino),
            Family::Redo => Key::Redo(NodeId(0), 0, 0),
            Family::Condemned => Key::Condemned(ObjectId(0)),
            Family::Listing => Key::Listing(ino, 0),
            Family::Namespace => Key::Namespace,
            Family::Object => Key::Object(ObjectId(0)),
            Family::Reply => Key::Reply(SessionId(0), 0),
            Family::Target => Key::Target(ino),
            Family::Extent => Key::Extent(ino, 0),
            Family::Orphan => Key::Orphan(ino),
        }
    }

    /// What all encoded keys of the span begin with.
    pub fn prefix(&self, ns: NamespaceId) -> Vec<u8> {
        let mut out = Vec::with_capacity(16);
        out.extend_from_slice(&ns.0.to_be_bytes());
        match *self {
            Span::All(family) => out.push(family as u8),
            Span::Of(family, ino) => {
                out.push(family as u8);
                out.extend_from_slice(&ino.0.to_be_bytes());
            }
        }
        out
    }
}

impl Value {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(96);
        match self {
            Value::Xattr(v) | Value::Target(v) | Value::Redo(v) => xattr::encode(v, &mut out),
            Value::Inline(v) => inline::encode(v, &mut out),
            Value::Counters(v) => v.encode(&mut out),
            Value::Dead => out.put_u8(object::DEAD_VERSION),
            Value::Entry(v) => v.encode(&mut out),
            Value::Inode(v) => v.encode(&mut out),
            Value::Condemned(since) => object::encode_condemned(*since, &mut out),
            Value::Listing(v) => v.encode(&mut out),
            Value::Namespace(v) => v.encode(&mut out),
            Value::Object(v) => v.encode(&mut out),
            Value::Reply(v) => v.encode(&mut out),
            Value::Extent(v) => extent::encode_record(v, &mut out),
            Value::Orphan(v) => v.encode(&mut out),
        }
        out
    }

    /// Reads the value of a record with this key; what contradicts the key is `Corrupt` too.
    pub fn decode(key: &Key, bytes: &[u8]) -> Result<Value> {
        match key {
            Key::Xattr(..) => xattr::decode(bytes).map(|v| Value::Xattr(v.into())),
            Key::Inline(_) => inline::decode(bytes).map(|v| Value::Inline(v.into())),
            Key::Counters => Counters::decode(bytes).map(Value::Counters),
            Key::Dead(..) => object::decode_dead(bytes).map(|()| Value::Dead),
            Key::Entry(..) => Entry::decode(bytes).map(Value::Entry),
            Key::Inode(ino) => Inode::decode(*ino, bytes).map(|v| Value::Inode(Arc::new(v))),
            Key::Redo(..) => xattr::decode(bytes).map(|v| Value::Redo(v.into())),
            Key::Condemned(_) => object::decode_condemned(bytes).map(Value::Condemned),
            Key::Listing(..) => Listing::decode(bytes).map(Value::Listing),
            Key::Namespace => NamespaceRecord::decode(bytes).map(|v| Value::Namespace(Arc::new(v))),
            Key::Object(id) => ObjectRecord::decode(*id, bytes).map(Value::Object),
            Key::Reply(..) => ReplyRecord::decode(bytes).map(|v| Value::Reply(Arc::new(v))),
            Key::Target(_) => xattr::decode(bytes).map(|v| Value::Target(v.into())),
            Key::Extent(_, end) => extent::decode_record(*end, bytes).map(Value::Extent),
            Key::Orphan(_) => Orphan::decode(bytes).map(Value::Orphan),
        }
        .map_err(|e| e.context(format_args!("record {key:?}")))
    }

    /// Bytes on the heap, roughly: what bounds pending changes.
    pub fn weight(&self) -> usize {
        match self {
            Value::Xattr(v) | Value::Target(v) => v.len(),
            Value::Inline(v) => size_of::<Inline>() + v.bytes.len(),
            Value::Reply(v) => size_of::<ReplyRecord>() + v.touched.len() * 8,
            Value::Inode(v) => size_of::<Inode>() + v.extents.len() * size_of::<Extent>(),
            Value::Listing(v) => v.name.len(),
            Value::Redo(v) => v.len(),
            _ => 0,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
