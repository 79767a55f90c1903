//! Everything an object says of itself. Its byte table is in [`format`](super).

use bytes::Bytes;
use granary_core::codec::{Put, Reader};
use granary_core::limits::{FRAME_BYTES, OBJECT_BYTES_MAX, OBJECT_PAYLOAD_MAX};
use granary_core::{Error, Kind, NamespaceId, ObjectId, ObjectKind, Result};

use super::block::BlockInfo;
use super::codec::Codec;
use super::frames::{self, Compressed, FrameSums, Frames};
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
    /// Reads footer and trailer: `bytes` are all bytes of the object after its `stored_len` bytes of payload, as they are stored.
    /// All of it is verified but the payload itself. Memory stays within a few times the input's size whatever the input says.
    ///
    /// Errors: `Corrupt` says what is damaged; `Unsupported` when a newer program wrote it.
    pub fn parse(bytes: &[u8], stored_len: u64) -> Result<Footer> {
        let trailer = Trailer::parse_end(bytes)?;
        if bytes.len() as u64 != trailer.footer_and_trailer_len() || stored_len != trailer.payload_len {
            return Err(Error::new(
                Kind::Corrupt,
                format!(
                    "object footer is damaged: the trailer tells of {} + {} bytes of payload and footer, {stored_len} + {} \
                     were given",
                    trailer.payload_len,
                    trailer.footer_and_trailer_len(),
                    bytes.len()
                ),
            ));
        }
        let bytes = &bytes[..bytes.len() - TRAILER_BYTES];
        let mut r = Reader::new(bytes, "object footer");
        if granary_core::crc32c(bytes) != trailer.footer_crc {
            return Err(r.corrupt("its checksum does not match"));
        }
        let (id, ns) = (ObjectId(r.u128()?), NamespaceId(r.u32()?));
        let codec = Codec::of_tag(r.u8()?).ok_or_else(|| r.corrupt("its codec is unknown"))?;
        if r.take(3)? != [0; 3] {
            return Err(r.corrupt("its reserved bytes are not 0"));
        }
        if u64::from(r.u32()?) != FRAME_BYTES {
            return Err(r.corrupt("its frame length is not 65,536"));
        }
        let count = r.u32()?;
        if u64::from(count) > frames::count(OBJECT_PAYLOAD_MAX) {
            return Err(r.corrupt("it has more frames than an object may have"));
        }
        let crcs = (0..count).map(|_| r.u32()).collect::<Result<Vec<u32>>>()?;
        let (payload_len, compressed) = match codec {
            Codec::None => (stored_len, None),
            codec => {
                let payload_len = r.u64()?;
                (
                    payload_len,
                    Some(Compressed { codec, lens: decode_lens(&mut r, count, payload_len, stored_len)? }),
                )
            }
        };
        if u64::from(count) != frames::count(payload_len) {
            return Err(r.corrupt("its number of frames does not fit its payload"));
        }
        let content = match trailer.kind {
            ObjectKind::Block => Content::Block(BlockInfo::decode(&mut r, payload_len)?),
            ObjectKind::Pack => Content::Pack(pack::decode_entries(&mut r, payload_len)?),
        };
        r.finish()?;
        Ok(Footer { id, ns, content, frames: Frames::new(id, payload_len, crcs).with(compressed) })
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

    /// Bytes of the payload as it is stored, before the footer.
    pub fn stored_len(&self) -> u64 {
        self.frames.stored_len()
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

/// The stored length of each frame: none is 0, or longer than the frame, and together they are what is stored.
fn decode_lens(r: &mut Reader<'_>, count: u32, payload_len: u64, stored_len: u64) -> Result<Box<[u32]>> {
    if payload_len == 0 || payload_len > OBJECT_PAYLOAD_MAX || u64::from(count) != frames::count(payload_len)
    {
        return Err(r.corrupt("its number of frames does not fit its payload"));
    }
    let lens = (0..count).map(|_| r.u32()).collect::<Result<Box<[u32]>>>()?;
    let fits = lens.iter().enumerate().all(|(frame, &len)| {
        let whole = (payload_len - frame as u64 * FRAME_BYTES).min(FRAME_BYTES);
        len > 0 && u64::from(len) <= whole
    });
    if !fits || lens.iter().map(|&len| u64::from(len)).sum::<u64>() != stored_len {
        return Err(r.corrupt("the stored lengths of its frames are impossible"));
    }
    Ok(lens)
}

/// Bytes of footer and trailer before entries are counted, at most: compressed or not.
pub(super) fn fixed_len(payload_len: u64) -> u64 {
    40 + 8 * frames::count(payload_len) + TRAILER_BYTES as u64
}

/// Ends an object: `put_content` appends what is particular to its kind. It is compressed only if that makes it shorter than its
/// payload, so that the two lengths tell whether it is.
pub(super) fn seal(
    (ns, id, kind): (NamespaceId, ObjectId, ObjectKind),
    payload: Vec<Bytes>,
    sums: FrameSums,
    codec: Codec,
    put_content: impl Fn(&mut Vec<u8>),
) -> Result<Sealed> {
    let payload_len = sums.len();
    if payload_len == 0 {
        return Err(Error::new(Kind::Bug, format!("object {id} would be empty")));
    }
    let crcs = sums.finish();
    if codec != Codec::None {
        let (stored, lens) = frames::compress(codec, &payload);
        let stored_len = lens.iter().map(|&len| u64::from(len)).sum();
        let mut footer = begin((ns, id), codec, &crcs);
        footer.put_u64(payload_len);
        lens.iter().for_each(|&len| footer.put_u32(len));
        put_content(&mut footer);
        let total_len = end(id, kind, stored_len, &mut footer)?;
        if total_len < payload_len {
            let info = SealedInfo { ns, id, kind, payload_len, total_len };
            return Ok(Sealed { payload, stored: Some(stored), footer: footer.into(), info });
        }
    }
    let mut footer = begin((ns, id), Codec::None, &crcs);
    put_content(&mut footer);
    let total_len = end(id, kind, payload_len, &mut footer)?;
    let info = SealedInfo { ns, id, kind, payload_len, total_len };
    Ok(Sealed { payload, stored: None, footer: footer.into(), info })
}

/// A footer up to its frames' checksums.
pub(super) fn begin((ns, id): (NamespaceId, ObjectId), codec: Codec, crcs: &[u32]) -> Vec<u8> {
    let mut footer = Vec::with_capacity(64 + 8 * crcs.len());
    footer.put_u128(id.0);
    footer.put_u32(ns.0);
    footer.put_u8(codec.tag());
    footer.extend_from_slice(&[0; 3]);
    footer.put_u32(FRAME_BYTES as u32);
    footer.put_u32(crcs.len() as u32);
    crcs.iter().for_each(|&crc| footer.put_u32(crc));
    footer
}

/// Appends the trailer; how long the whole object is.
pub(super) fn end(id: ObjectId, kind: ObjectKind, stored_len: u64, footer: &mut Vec<u8>) -> Result<u64> {
    let footer_crc = granary_core::crc32c(footer);
    let trailer = Trailer { kind, footer_len: footer.len() as u32, payload_len: stored_len, footer_crc };
    let total_len = trailer.total_len();
    if trailer.footer_and_trailer_len() > FOOTER_BYTES_MAX || total_len > OBJECT_BYTES_MAX {
        return Err(Error::new(
            Kind::Bug,
            format!("object {id} would have {total_len} bytes, more than allowed"),
        ));
    }
    footer.extend_from_slice(&trailer.encode());
    Ok(total_len)
}
