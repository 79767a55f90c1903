//! What the fuzz targets may reach of the private formats. Not for other callers.

use granary_core::NamespaceId;

use crate::stage::record;

/// Scans bytes as a stage log segment: how many of them are good records, and how many records those are.
pub fn scan_segment(bytes: &[u8], ns: NamespaceId, segment: u64) -> (usize, usize) {
    let scanned = record::scan(bytes, ns, segment);
    (scanned.good_len(), scanned.records.len())
}

/// `bytes` with the checksum of a record's header put right, so that a fuzzer gets past it. `None`: too short for a header.
pub fn sign_header(bytes: &[u8], segment: u64) -> Option<Vec<u8>> {
    let len = usize::from(u16::from_le_bytes([*bytes.get(6)?, *bytes.get(7)?]));
    let signed = len.checked_sub(4)?;
    let mut out = bytes.to_vec();
    let header = bytes.get(..signed)?;
    let crc =
        crc32c::crc32c_append(crc32c::crc32c(&[segment.to_le_bytes(), 0_u64.to_le_bytes()].concat()), header);
    out.get_mut(signed..len)?.copy_from_slice(&crc.to_le_bytes());
    Some(out)
}
