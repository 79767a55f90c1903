//! Everything an object says of itself. Its byte table is in [`format`](super).

use bytes::Bytes;
use granary_core::codec::{Put, Reader};
use granary_core::limits::{FRAME_BYTES, OBJECT_BYTES_MAX};
use granary_core::{Error, Kind, NamespaceId, ObjectId, ObjectKind, Result};

use super::block::BlockInfo;
use super::frames::{self, FrameSums, Frames};
use super::pack::{self, PackEntry};
use super::trailer::{TRAILER_BYTES, Trailer};
use super::{FOOTER_BYTES_MAX, Sealed, SealedInfo};

/// What the payload is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    Block(BlockInfo),
    /// In the order of their payload offsets, without overlap.
    Pack(Vec<PackEntry>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footer {
    pub id: ObjectId,
    pub ns: NamespaceId,
    pub content: Content,
    pub frames: Frames,
}

impl Footer {
    /// Reads footer and trailer: `bytes` are all bytes of the object after its `payload_len` bytes of payload. All of it is
    /// verified but the payload itself. Memory stays within a few times the input's size whatever the input says.
    ///
    /// Errors: `Corrupt` says what is damaged; `Unsupported` when a newer program wrote it.
    pub fn parse(bytes: &[u8], payload_len: u64) -> Result<Footer> {
        let trailer = Trailer::parse_end(bytes)?;
        if bytes.len() as u64 != trailer.footer_and_trailer_len() || payload_len != trailer.payload_len {
            return Err(Error::new(
                Kind::Corrupt,
                format!(
                    "object footer is damaged: the trailer tells of {} + {} bytes of payload and footer, {payload_len} + {} \
                     were given",
                    trailer.payload_len,
                    trailer.footer_and_trailer_len(),
                    bytes.len()
                ),
            ));
        }
        let bytes = &bytes[..bytes.len() - TRAILER_BYTES];
        let mut r = Reader::new(bytes, "object footer");
        if crc32c::crc32c(bytes) != trailer.footer_crc {
            return Err(r.corrupt("its checksum does not match"));
        }
        let (id, ns) = (ObjectId(r.u128()?), NamespaceId(r.u32()?));
        check_codec(id, &mut r)?;
        if r.take(3)? != [0; 3] {
            return Err(r.corrupt("its reserved bytes are not 0"));
        }
        if u64::from(r.u32()?) != FRAME_BYTES {
            return Err(r.corrupt("its frame length is not 65,536"));
        }
        let count = r.u32()?;
        if u64::from(count) != frames::count(payload_len) {
            return Err(r.corrupt("its number of frames does not fit its payload"));
        }
        // At most 240 frames, because the trailer's payload length is bounded.
        let mut crcs = Vec::with_capacity(count as usize);
        for _ in 0..count {
            crcs.push(r.u32()?);
        }
        let content = match trailer.kind {
            ObjectKind::Block => Content::Block(BlockInfo::decode(&mut r, payload_len)?),
            ObjectKind::Pack => Content::Pack(pack::decode_entries(&mut r, payload_len)?),
        };
        r.finish()?;
        Ok(Footer { id, ns, content, frames: Frames::new(id, payload_len, crcs) })
    }

    pub fn kind(&self) -> ObjectKind {
        match self.content {
            Content::Block(_) => ObjectKind::Block,
            Content::Pack(_) => ObjectKind::Pack,
        }
    }

    pub fn payload_len(&self) -> u64 {
        self.frames.payload_len()
    }

    /// See [`Frames::verify`].
    pub fn verify_frames(&self, payload_offset: u64, bytes: &[u8]) -> Result<()> {
        self.frames.verify(payload_offset, bytes)
    }

    /// The object is the one that was asked for: a store that gives another object's bytes is found out.
    ///
    /// Errors: `Corrupt` names both.
    pub fn check_identity(&self, ns: NamespaceId, kind: ObjectKind, id: ObjectId) -> Result<()> {
        if (self.ns, self.kind(), self.id) == (ns, kind, id) {
            return Ok(());
        }
        Err(Error::new(
            Kind::Corrupt,
            format!(
                "where the store should have {kind:?} {id} of namespace {ns}, there is {:?} {} of namespace {}",
                self.kind(),
                self.id,
                self.ns
            ),
        ))
    }
}

fn check_codec(id: ObjectId, r: &mut Reader<'_>) -> Result<()> {
    let name = match r.u8()? {
        0 => return Ok(()),
        1 => "lz4",
        2 => "zstd",
        _ => return Err(r.corrupt("its codec is unknown")),
    };
    Err(Error::new(
        Kind::Unsupported,
        format!("object {id} is compressed with {name}, which this program cannot read; use a newer granary"),
    ))
}

/// Bytes of footer and trailer before entries are counted.
pub(super) fn fixed_len(payload_len: u64) -> u64 {
    32 + 4 * frames::count(payload_len) + TRAILER_BYTES as u64
}

/// Ends an object: `put_content` appends what is particular to its kind.
pub(super) fn seal(
    (ns, id, kind): (NamespaceId, ObjectId, ObjectKind),
    payload: Vec<Bytes>,
    sums: FrameSums,
    put_content: impl FnOnce(&mut Vec<u8>),
) -> Result<Sealed> {
    let payload_len = sums.len();
    if payload_len == 0 {
        return Err(Error::new(Kind::Bug, format!("object {id} would be empty")));
    }
    let crcs = sums.finish();
    let mut footer = Vec::with_capacity(fixed_len(payload_len) as usize + 64);
    footer.put_u128(id.0);
    footer.put_u32(ns.0);
    footer.put_u8(0);
    footer.extend_from_slice(&[0; 3]);
    footer.put_u32(FRAME_BYTES as u32);
    footer.put_u32(crcs.len() as u32);
    for crc in &crcs {
        footer.put_u32(*crc);
    }
    put_content(&mut footer);
    let trailer =
        Trailer { kind, footer_len: footer.len() as u32, payload_len, footer_crc: crc32c::crc32c(&footer) };
    let total_len = trailer.total_len();
    if trailer.footer_and_trailer_len() > FOOTER_BYTES_MAX || total_len > OBJECT_BYTES_MAX {
        return Err(Error::new(
            Kind::Bug,
            format!("object {id} would have {total_len} bytes, more than allowed"),
        ));
    }
    footer.extend_from_slice(&trailer.encode());
    Ok(Sealed { payload, footer: footer.into(), info: SealedInfo { ns, id, kind, payload_len, total_len } })
}
