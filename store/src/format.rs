//! What an object is, byte by byte.
//!
//! ```text
//! object  = payload | footer | trailer            at most 16 MiB, the payload at most 15 MiB
//! payload = the bytes of one file's range (block), or of many files one after another (pack)
//! ```
//!
//! All integers are little-endian. The payload comes first, so that an offset in the payload is an offset in the object and
//! a range read needs nothing else. Payload and object length are in the metadata, so footer and trailer are one range read;
//! without metadata the trailer, of fixed size at the end, leads to the footer.
//!
//! # Trailer, version 1: the last 32 bytes
//!
//! | offset | size | what |
//! |---|---|---|
//! | 0 | 8 | magic `granaryO` |
//! | 8 | 1 | version of trailer and footer: 1 |
//! | 9 | 1 | kind: 1 block, 2 pack |
//! | 10 | 2 | 0 |
//! | 12 | 4 | footer length in bytes, without the trailer |
//! | 16 | 8 | payload length in bytes |
//! | 24 | 4 | crc32c of the footer |
//! | 28 | 4 | crc32c of the trailer's first 28 bytes |
//!
//! Later versions keep the trailer's size and the places of magic, version and its checksum.
//!
//! # Footer, version 1: between payload and trailer
//!
//! | offset | size | what |
//! |---|---|---|
//! | 0 | 16 | object id |
//! | 16 | 4 | namespace id |
//! | 20 | 1 | codec: 0 none, 1 lz4, 2 zstd |
//! | 21 | 3 | 0 |
//! | 24 | 4 | frame length in bytes: 65,536 |
//! | 28 | 4 | number of frames `n`: payload length / frame length, rounded up |
//! | 32 | 4 n | crc32c of each frame of the payload; the last may be short |
//! | | | *codec 1 and 2 only:* `u64` length of the payload before compression, `u32` stored length of each frame, 1 to the frame's own |
//! | | | *block:* `u64` inode, `u64` offset in the file, `u64` content version |
//! | | | *pack:* `u32` number of entries, then each of them |
//!
//! With codecs 1 and 2 each frame of the payload is compressed alone and stored after the one before it, so that a range read
//! stays a range read; a frame that would not become smaller is stored as it is, which its stored length tells. The trailer's payload
//! length is then of the stored bytes; frames, checksums and all payload offsets (in entries, in extents, in the metadata's lengths) are
//! of the payload before compression. An object is compressed only if it is shorter as a whole than its payload, so that the two lengths
//! which the metadata has tell whether it is.
//!
//! # Entry of a pack's directory
//!
//! | offset | size | what |
//! |---|---|---|
//! | 0 | 8 | inode |
//! | 8 | 8 | inode of the directory it was in when the pack was made, 0 when in none |
//! | 16 | 8 | offset in the file |
//! | 24 | 4 | offset in the payload |
//! | 28 | 4 | length in bytes, at least 1 |
//! | 32 | 4 | crc32c of its bytes |
//! | 36 | 1 | length of the name, 0 to 255 |
//! | 37 | | the name it had in that directory: a hint for rebuilding, not what it is called now |
//!
//! Entries are in the order of their payload offsets and do not overlap.

mod block;
mod codec;
mod footer;
mod frames;
mod pack;
mod part;
mod trailer;

#[cfg(test)]
mod tests;

use bytes::Bytes;
use granary_core::id::object_key;
use granary_core::limits::{OBJECT_BYTES_MAX, OBJECT_PAYLOAD_MAX};
use granary_core::{Error, Kind, NamespaceId, ObjectId, ObjectKind, Result};

pub use block::{BlockBuilder, BlockInfo};
pub use codec::Codec;
pub use footer::{Content, Footer};
pub use frames::{Compressed, Frames};
pub use pack::{NewEntry, PackBuilder, PackEntry};
pub use part::{footer_of_part, part_footer_len};
pub use trailer::{TRAILER_BYTES, Trailer};

/// The newest format version this program reads, and the one it writes.
pub const VERSION: u8 = 1;
/// Longest footer and trailer together, in bytes.
pub const FOOTER_BYTES_MAX: u64 = OBJECT_BYTES_MAX - OBJECT_PAYLOAD_MAX;

/// What metadata keeps of a sealed object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealedInfo {
    pub ns: NamespaceId,
    pub id: ObjectId,
    pub kind: ObjectKind,
    /// Bytes of the payload, before compression.
    pub payload_len: u64,
    /// Bytes of the whole object as it is stored; less than those of the payload if and only if it is compressed.
    pub total_len: u64,
}

/// An object ready to be put.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// The payload's bytes, one part after another, as they were handed in.
    pub payload: Vec<Bytes>,
    /// The same compressed.
    stored: Option<Vec<Bytes>>,
    /// Footer and trailer.
    pub footer: Bytes,
    pub info: SealedInfo,
}

impl Sealed {
    /// Its key below the volume's prefix.
    pub fn key(&self) -> String {
        object_key(self.info.ns, self.info.kind, self.info.id)
    }

    /// The whole object's bytes, for [`Store::put`](crate::Store::put). Copies no byte.
    pub fn parts(&self) -> Vec<Bytes> {
        let payload = self.stored.as_ref().unwrap_or(&self.payload);
        let mut parts = Vec::with_capacity(payload.len() + 1);
        parts.extend(payload.iter().cloned());
        parts.push(self.footer.clone());
        parts
    }
}

/// A whole object, verified.
#[derive(Clone, Debug)]
pub struct Object {
    pub payload: Bytes,
    pub footer: Footer,
}

/// Verifies a whole object: trailer, footer, every frame, and the checksum of every entry of a pack.
///
/// Errors: `Corrupt` names what is damaged; `Unsupported` when a newer program wrote it.
pub fn decode_object(bytes: &Bytes) -> Result<Object> {
    let trailer = Trailer::parse_end(bytes)?;
    if bytes.len() as u64 != trailer.total_len() {
        return Err(Error::new(
            Kind::Corrupt,
            format!(
                "object is damaged: its trailer tells of {} bytes, {} are there",
                trailer.total_len(),
                bytes.len()
            ),
        ));
    }
    let footer_at = trailer.payload_len;
    let (stored, rest) = (bytes.slice(..footer_at as usize), bytes.slice(footer_at as usize..));
    let footer = Footer::parse(&rest, footer_at)?;
    let payload = match footer.frames.compressed() {
        None => stored,
        Some(compressed) => compressed
            .unpack(&(0..footer.payload_len()), &stored)
            .map_err(|e| e.context(format_args!("object {} is damaged", footer.id)))?,
    };
    footer.verify_frames(0, &payload)?;
    if let Content::Pack(entries) = &footer.content {
        for entry in entries {
            entry.verify(footer.id, &payload)?;
        }
    }
    Ok(Object { payload, footer })
}
