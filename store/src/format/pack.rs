//! A pack: many files' bytes and the directory that says whose they are. Its byte table is in [`format`](super).

use bytes::Bytes;
use granary_core::codec::{Put, Reader};
use granary_core::limits::{FILE_BYTES_MAX, OBJECT_BYTES_MAX, OBJECT_PAYLOAD_MAX};
use granary_core::name::ENTRY_NAME_MAX;
use granary_core::{Error, Ino, Kind, NamespaceId, ObjectId, ObjectKind, Result};

use super::codec::Codec;
use super::footer;
use super::frames::FrameSums;
use super::{FOOTER_BYTES_MAX, Sealed};

/// Bytes of an entry without its name.
const ENTRY_BYTES: usize = 37;

/// One range of one file in a pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackEntry {
    pub ino: Ino,
    /// The directory it was in when the pack was made; `Ino(0)` when in none.
    pub parent: Ino,
    pub file_offset: u64,
    pub payload_offset: u32,
    pub len: u32,
    pub crc: u32,
    /// Its name in that directory then: a hint, empty when it had none.
    pub name: Box<[u8]>,
}

impl PackEntry {
    pub fn payload_end(&self) -> u64 {
        u64::from(self.payload_offset) + u64::from(self.len)
    }

    /// Its bytes in the whole `payload` match its checksum.
    ///
    /// Errors: `Corrupt` names object and entry.
    pub fn verify(&self, id: ObjectId, payload: &[u8]) -> Result<()> {
        let range = self.payload_offset as usize..self.payload_end() as usize;
        if payload.get(range).is_some_and(|bytes| granary_core::crc32c(bytes) == self.crc) {
            return Ok(());
        }
        Err(Error::new(
            Kind::Corrupt,
            format!(
                "pack {id} is damaged: the bytes of inode {} ({:?}) at file offset {} do not match their checksum",
                self.ino,
                String::from_utf8_lossy(&self.name),
                self.file_offset
            ),
        ))
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64(self.ino.0);
        out.put_u64(self.parent.0);
        out.put_u64(self.file_offset);
        out.put_u32(self.payload_offset);
        out.put_u32(self.len);
        out.put_u32(self.crc);
        out.put_u8(self.name.len() as u8);
        out.extend_from_slice(&self.name);
    }

    fn decode(r: &mut Reader<'_>) -> Result<PackEntry> {
        Ok(PackEntry {
            ino: Ino(r.u64()?),
            parent: Ino(r.u64()?),
            file_offset: r.u64()?,
            payload_offset: r.u32()?,
            len: r.u32()?,
            crc: r.u32()?,
            name: {
                let len = r.u8()?;
                r.take(usize::from(len))?.into()
            },
        })
    }
}

/// Reads a pack's directory and checks that every entry lies within payload and file, in order, without overlap.
pub(super) fn decode_entries(r: &mut Reader<'_>, payload_len: u64) -> Result<Vec<PackEntry>> {
    let count = r.u32()? as usize;
    if count == 0 || count > r.remaining() / ENTRY_BYTES {
        return Err(r.corrupt("its number of entries is impossible"));
    }
    let mut entries = Vec::with_capacity(count);
    let mut end = 0;
    for _ in 0..count {
        let entry = PackEntry::decode(r)?;
        if entry.ino.0 == 0 || entry.len == 0 {
            return Err(r.corrupt("an entry has no inode or no bytes"));
        }
        if u64::from(entry.payload_offset) < end || entry.payload_end() > payload_len {
            return Err(r.corrupt("an entry is outside the payload or overlaps another"));
        }
        if !fits_file(entry.file_offset, u64::from(entry.len)) {
            return Err(r.corrupt("an entry's offset in the file is impossible"));
        }
        end = entry.payload_end();
        entries.push(entry);
    }
    Ok(entries)
}

fn fits_file(offset: u64, len: u64) -> bool {
    offset.checked_add(len).is_some_and(|end| end <= FILE_BYTES_MAX)
}

/// What [`PackBuilder::push`] is told of a range; where it goes in the payload is the builder's business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEntry {
    pub ino: Ino,
    /// `Ino(0)` when it is in no directory any more.
    pub parent: Ino,
    pub file_offset: u64,
    /// crc32c of its bytes, from where they were kept until now.
    pub crc: u32,
    /// 0 to 255 bytes.
    pub name: Vec<u8>,
}

/// Gathers one pack. Pure: no I/O, no copy of the bytes.
#[derive(Debug)]
pub struct PackBuilder {
    ns: NamespaceId,
    id: ObjectId,
    payload: Vec<Bytes>,
    sums: FrameSums,
    /// The directory, encoded.
    entries: Vec<u8>,
    count: u32,
}

impl PackBuilder {
    pub fn new(ns: NamespaceId, id: ObjectId) -> PackBuilder {
        PackBuilder { ns, id, payload: Vec::new(), sums: FrameSums::default(), entries: Vec::new(), count: 0 }
    }

    pub fn id(&self) -> ObjectId {
        self.id
    }

    /// Payload bytes so far.
    pub fn len(&self) -> u64 {
        self.sums.len()
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Entries so far.
    pub fn entries(&self) -> u32 {
        self.count
    }

    /// Whether a range of `len` bytes with a name of `name_len` bytes still fits payload and directory.
    pub fn fits(&self, len: u64, name_len: usize) -> bool {
        let Some(payload_len) = self.len().checked_add(len) else { return false };
        if payload_len > OBJECT_PAYLOAD_MAX {
            return false;
        }
        let rest = footer::fixed_len(payload_len) + 4 + (self.entries.len() + ENTRY_BYTES + name_len) as u64;
        rest <= FOOTER_BYTES_MAX && payload_len + rest <= OBJECT_BYTES_MAX
    }

    /// Appends a range's bytes, which come in `parts`, and its directory entry. Returns where in the payload it begins.
    ///
    /// Errors: `Corrupt` when the bytes do not match `entry.crc` (they were damaged where they were kept; nothing is
    /// appended); `Bug` when it does not fit (ask [`PackBuilder::fits`] first), is empty, or is nobody's.
    pub fn push(&mut self, entry: NewEntry, parts: Vec<Bytes>) -> Result<u64> {
        let len: u64 = parts.iter().map(|p| p.len() as u64).sum();
        if entry.ino.0 == 0
            || len == 0
            || entry.name.len() > ENTRY_NAME_MAX
            || !fits_file(entry.file_offset, len)
        {
            return Err(Error::new(
                Kind::Bug,
                format!("pack {}: {len} bytes of inode {} cannot be an entry", self.id, entry.ino),
            ));
        }
        if !self.fits(len, entry.name.len()) {
            return Err(Error::new(Kind::Bug, format!("pack {}: {len} more bytes do not fit", self.id)));
        }
        let crc = parts.iter().fold(0, |crc, part| granary_core::crc32c_append(crc, part));
        if crc != entry.crc {
            return Err(Error::new(
                Kind::Corrupt,
                format!(
                    "{len} bytes of inode {} ({:?}) at file offset {} do not match their checksum; they were damaged on this \
                     node before they were uploaded",
                    entry.ino,
                    String::from_utf8_lossy(&entry.name),
                    entry.file_offset
                ),
            ));
        }
        let payload_offset = self.len();
        for part in parts {
            self.sums.add(&part);
            self.payload.push(part);
        }
        PackEntry {
            ino: entry.ino,
            parent: entry.parent,
            file_offset: entry.file_offset,
            // `fits` bounds the payload to 15 MiB.
            payload_offset: payload_offset as u32,
            len: len as u32,
            crc,
            name: entry.name.into(),
        }
        .encode(&mut self.entries);
        self.count += 1;
        Ok(payload_offset)
    }

    /// Errors: `Bug` when it is empty.
    pub fn seal(self) -> Result<Sealed> {
        self.seal_with(Codec::None)
    }

    /// The same compressed, where that makes it smaller. Takes processor time: not for a thread that must not wait.
    pub fn seal_with(self, codec: Codec) -> Result<Sealed> {
        let (entries, count) = (self.entries, self.count);
        footer::seal((self.ns, self.id, ObjectKind::Pack), self.payload, self.sums, codec, |out| {
            out.put_u32(count);
            out.extend_from_slice(&entries);
        })
    }
}
