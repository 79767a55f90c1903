//! CRC-32C (Castagnoli; "CRC-32/ISCSI" in the catalogue of parametrised CRC algorithms, RFC 3720 appendix B.4), the checksum of all of
//! Granary's formats: over what is stored, kept, packed, sent and loaded.
//!
//! Each byte on its way to a GPU is checked, so it is computed with the widest carry-less multiplication that the processor has, by a crate
//! made for that. Only joining two checksums is ours: the crate's takes 50 µs for 20 KB, which is a file's.

use crc_fast::{CrcAlgorithm, Digest, crc32_iscsi};

/// The polynomial, reflected: the coefficient of x^31 is the lowest bit, and that of x^0 the highest.
const POLYNOMIAL: u32 = 0x82f6_3b78;
/// x^(2^n) modulo the polynomial. A length in bytes has 64 bits, and three more in bits.
const POWERS: [u32; 67] = {
    let mut powers = [1 << 30; 67]; // x
    let mut n = 1;
    while n < powers.len() {
        powers[n] = multiplied(powers[n - 1], powers[n - 1]);
        n += 1;
    }
    powers
};

/// Modulo the polynomial.
const fn multiplied(a: u32, mut b: u32) -> u32 {
    let (mut product, mut n) = (0, 0);
    while n < u32::BITS {
        product ^= b & (a << n >> 31).wrapping_neg();
        b = (b >> 1) ^ (POLYNOMIAL & (b & 1).wrapping_neg());
        n += 1;
    }
    product
}

/// Of all of `bytes`; of none it is 0.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc32_iscsi(bytes)
}

/// Of some bytes whose checksum is `crc`, and `bytes` after them.
pub fn crc32c_append(crc: u32, bytes: &[u8]) -> u32 {
    // The state is kept as the checksum is told, inverted.
    let mut digest = Digest::new_with_init_state(CrcAlgorithm::Crc32Iscsi, u64::from(!crc));
    digest.update(bytes);
    digest.finalize() as u32
}

/// Of some bytes whose checksum is `first`, and `second_bytes` bytes after them whose checksum is `second`: the first is multiplied by x
/// to the number of bits that follow (M. Adler, zlib's `crc32_combine`).
pub fn crc32c_combine(first: u32, second: u32, second_bytes: usize) -> u32 {
    let (mut shifted, mut bytes, mut power) = (first, second_bytes, 3);
    while bytes > 0 {
        if bytes & 1 == 1 {
            shifted = multiplied(POWERS[power], shifted);
        }
        (bytes, power) = (bytes >> 1, power + 1);
    }
    shifted ^ second
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bit by bit, as the polynomial division is defined: reflected, 0x1edc6f41.
    fn divided(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0, |crc: u32, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (POLYNOMIAL & (crc & 1).wrapping_neg()))
        })
    }

    /// RFC 3720, appendix B.4, and the catalogue's check value.
    #[test]
    fn known_checksums() {
        let rising: Vec<u8> = (0..32).collect();
        let falling: Vec<u8> = (0..32).rev().collect();
        for (bytes, crc) in [
            (&b""[..], 0),
            (b"123456789", 0xe306_9283),
            (&[0; 32], 0x8a91_36aa),
            (&[0xff; 32], 0x62a8_ab43),
            (&rising, 0x46dd_794e),
            (&falling, 0x113f_db5c),
        ] {
            assert_eq!(crc32c(bytes), crc, "{bytes:02x?}");
            assert_eq!(divided(bytes), crc, "{bytes:02x?}");
        }
    }

    /// The implementation takes other ways for other lengths and alignments.
    #[test]
    fn every_length_and_alignment() {
        let bytes: Vec<u8> = (0..3000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for len in 0..1100 {
            let from = len % 67;
            let part = &bytes[from..from + len];
            assert_eq!(crc32c(part), divided(part), "{len} bytes from {from}");
        }
    }

    /// Lengths that nobody computes a checksum of here: by the library's own way of joining.
    #[test]
    fn long_parts_are_joined_too() {
        for bytes in [1 << 20, (5 << 30) + 7, u64::MAX >> 3, u64::MAX >> 1] {
            let expected =
                crc_fast::checksum_combine(CrcAlgorithm::Crc32Iscsi, 0x1234_5678, 0x9abc_def0, bytes);
            let joined = crc32c_combine(0x1234_5678, 0x9abc_def0, bytes as usize);
            assert_eq!(u64::from(joined), expected, "{bytes}");
        }
    }

    proptest! {
        #[test]
        fn parts_give_the_whole(bytes in prop::collection::vec(any::<u8>(), 0..70_000), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4)) {
            let whole = divided(&bytes);
            prop_assert_eq!(crc32c(&bytes), whole);
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let (mut appended, mut combined) = (0, 0);
            for cut in cuts.windows(2) {
                let part = &bytes[cut[0]..cut[1]];
                appended = crc32c_append(appended, part);
                combined = crc32c_combine(combined, crc32c(part), part.len());
            }
            prop_assert_eq!((appended, combined), (whole, whole));
        }
    }
}
