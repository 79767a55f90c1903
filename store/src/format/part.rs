//! A footer for bytes that lie in the store as a part of something else, a shard of a packed data set: made of what is known of
//! them, so that whoever reads objects reads and verifies these as any pack. It is written nowhere.

use bytes::Bytes;
use granary_core::codec::Put;
use granary_core::limits::{FRAME_BYTES, OBJECT_PAYLOAD_MAX};
use granary_core::{Error, Ino, Kind, NamespaceId, ObjectId, ObjectKind, Result};

use super::codec::Codec;
use super::footer;
use super::frames;
use super::pack::PackEntry;
use super::trailer::TRAILER_BYTES;

/// Bytes of a footer and trailer of [`footer_of_part`].
pub fn part_footer_len(payload_len: u64) -> u64 {
    32 + 4 * frames::count(payload_len) + 4 + 37 + TRAILER_BYTES as u64
}

/// Footer and trailer of a pack of `payload_len` bytes, 1 to 15 MiB, of whose frames of 64 KiB these are the checksums. Its one
/// entry is all of it.
///
/// Errors: `Bug` when there is not one checksum for each frame, or the length cannot be.
pub fn footer_of_part(ns: NamespaceId, id: ObjectId, payload_len: u64, crcs: &[u32]) -> Result<Bytes> {
    if payload_len == 0 || payload_len > OBJECT_PAYLOAD_MAX || crcs.len() as u64 != frames::count(payload_len)
    {
        return Err(Error::new(
            Kind::Bug,
            format!("part {id} cannot have {payload_len} bytes in {} frames", crcs.len()),
        ));
    }
    let of_frame = |frame: usize| (payload_len - frame as u64 * FRAME_BYTES).min(FRAME_BYTES) as usize;
    let crc = crcs
        .iter()
        .enumerate()
        .fold(0, |crc, (frame, &next)| granary_core::crc32c_combine(crc, next, of_frame(frame)));
    let all = PackEntry {
        ino: Ino::ROOT,
        parent: Ino(0),
        file_offset: 0,
        payload_offset: 0,
        len: payload_len as u32,
        crc,
        name: Box::default(),
    };
    let mut out = footer::begin((ns, id), Codec::None, crcs);
    out.put_u32(1);
    all.encode(&mut out);
    footer::end(id, ObjectKind::Pack, payload_len, &mut out)?;
    Ok(out.into())
}
