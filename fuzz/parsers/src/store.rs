//! Objects of the store.

use bytes::Bytes;
use granary_core::ObjectKind;
use granary_core::limits::FRAME_BYTES;
use granary_store::format::{Content, Footer, TRAILER_BYTES, Trailer, decode_object};

/// Footers as somebody who means harm would make them: checksums match, the rest is anything.
pub fn store_footer(data: &[u8]) {
    // As it is: nearly always stopped by the trailer.
    let _ = Footer::parse(data, data.len() as u64);

    // Four bytes choose stored length and kind, the rest is the footer.
    let Some((head, footer)) = data.split_first_chunk::<4>() else { return };
    let choice = u32::from_le_bytes(*head);
    let stored_len = u64::from(choice >> 8);
    let kind = if choice & 1 == 0 { ObjectKind::Pack } else { ObjectKind::Block };
    let trailer = Trailer {
        kind,
        footer_len: footer.len() as u32,
        payload_len: stored_len,
        footer_crc: granary_core::crc32c(footer),
    };
    let bytes = [footer, &trailer.encode()].concat();
    let Ok(footer) = Footer::parse(&bytes, stored_len) else { return };

    assert_eq!((footer.kind(), footer.stored_len()), (kind, stored_len));
    let payload_len = footer.payload_len();
    if let Some(compressed) = footer.frames.compressed()
        && let Ok(payload) = compressed.unpack(&(0..payload_len), data)
    {
        assert_eq!(payload.len() as u64, payload_len);
    }
    assert_eq!(footer.frames.checksums().len() as u64, payload_len.div_ceil(FRAME_BYTES));
    if let Content::Pack(entries) = &footer.content {
        let mut end = 0;
        for entry in entries {
            assert!(u64::from(entry.payload_offset) >= end && entry.len > 0);
            end = entry.payload_end();
            let _ = entry.verify(footer.id, data);
        }
        assert!(end <= payload_len);
    }
    let _ = footer.verify_frames(0, data);
    let _ = footer.verify_frames(FRAME_BYTES, data);
}

/// Whole objects: what is accepted verifies, and says of itself what it is.
pub fn store_object(data: &[u8]) {
    decoded(Bytes::copy_from_slice(data));

    // The same with matching checksums of trailer and footer, where the lengths allow it.
    let Some(end) = data.len().checked_sub(TRAILER_BYTES) else { return };
    let mut object = data.to_vec();
    let len = u32::from_le_bytes([data[end + 12], data[end + 13], data[end + 14], data[end + 15]]) as usize;
    let footer = end.saturating_sub(len.min(end));
    let crc = granary_core::crc32c(&object[footer..end]);
    object[end..end + 10].copy_from_slice(&[b"granaryO".as_slice(), &[1, 1 + (data[end] & 1)]].concat());
    object[end + 24..end + 28].copy_from_slice(&crc.to_le_bytes());
    let crc = granary_core::crc32c(&object[end..end + 28]);
    object[end + 28..].copy_from_slice(&crc.to_le_bytes());
    decoded(object.into());
}

fn decoded(object: Bytes) {
    let Ok(decoded) = decode_object(&object) else { return };
    let trailer = Trailer::parse_end(&object).expect("what was decoded has a trailer");
    assert_eq!(trailer.total_len(), object.len() as u64);
    assert_eq!(decoded.payload.len() as u64, decoded.footer.payload_len());
    assert_eq!(decoded.footer.kind(), trailer.kind);
}
