//! Whole objects: what is accepted verifies, and says of itself what it is.
#![no_main]

use bytes::Bytes;
use granary_store::format::{TRAILER_BYTES, Trailer, decode_object};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    check(Bytes::copy_from_slice(data));

    // The same with matching checksums of trailer and footer, where the lengths allow it.
    let Some(end) = data.len().checked_sub(TRAILER_BYTES) else { return };
    let mut object = data.to_vec();
    let len = u32::from_le_bytes([data[end + 12], data[end + 13], data[end + 14], data[end + 15]]) as usize;
    let footer = end.saturating_sub(len.min(end));
    let crc = crc32c::crc32c(&object[footer..end]);
    object[end..end + 10].copy_from_slice(&[b"granaryO".as_slice(), &[1, 1 + (data[end] & 1)]].concat());
    object[end + 24..end + 28].copy_from_slice(&crc.to_le_bytes());
    let crc = crc32c::crc32c(&object[end..end + 28]);
    object[end + 28..].copy_from_slice(&crc.to_le_bytes());
    check(object.into());
});

fn check(object: Bytes) {
    let Ok(decoded) = decode_object(&object) else { return };
    let trailer = Trailer::parse_end(&object).expect("what was decoded has a trailer");
    assert_eq!(trailer.total_len(), object.len() as u64);
    assert_eq!(decoded.payload.len() as u64, decoded.footer.payload_len());
    assert_eq!(decoded.footer.kind(), trailer.kind);
}
