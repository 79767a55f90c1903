//! The format of a chunk's file, version 1. Integers are little-endian.
//!
//! | offset | size | what |
//! |---|---|---|
//! | 0 | 8 | magic `granaryC` |
//! | 8 | 1 | version: 1 |
//! | 9 | 3 | 0 |
//! | 12 | 4 | bytes of the payload |
//! | 16 | 4 | crc32c of the payload |
//! | 20 | 4 | crc32c of the first 20 bytes |
//! | 24 | | payload |

use bytes::Bytes;
use granary_core::codec::Put;

const MAGIC: &[u8; 8] = b"granaryC";
const VERSION: u8 = 1;
pub const HEADER_BYTES: usize = 24;

pub fn header(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_BYTES);
    out.extend_from_slice(MAGIC);
    out.put_u8(VERSION);
    out.extend_from_slice(&[0; 3]);
    out.put_u32(payload.len() as u32);
    out.put_u32(granary_core::crc32c(payload));
    out.put_u32(granary_core::crc32c(&out));
    out
}

/// The payload of a whole file; `None` when it is damaged, of another version or another length.
pub fn payload(file: Bytes, expected_bytes: u64) -> Option<Bytes> {
    if file.len() as u64 != HEADER_BYTES as u64 + expected_bytes {
        return None;
    }
    let payload = file.slice(HEADER_BYTES..);
    (file[..HEADER_BYTES] == header(&payload)).then_some(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_and_every_cut_is_seen() {
        let bytes: Vec<u8> = (0..100).collect();
        let file = [header(&bytes), bytes.clone()].concat();
        assert_eq!(payload(file.clone().into(), 100).unwrap(), bytes);
        assert!(payload(file.clone().into(), 99).is_none());
        for bit in 0..file.len() * 8 {
            let mut damaged = file.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(payload(damaged.into(), 100).is_none(), "bit {bit}");
        }
        for len in 0..file.len() {
            assert!(payload(file[..len].to_vec().into(), 100).is_none());
        }
    }
}
