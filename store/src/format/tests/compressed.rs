//! Objects whose frames are compressed.

use super::*;

const FRAME: usize = FRAME_BYTES as usize;

/// Text that a codec makes much smaller, different from place to place.
fn text(len: usize) -> Bytes {
    (0..)
        .flat_map(|i: u32| format!("line {i} of a log, like the one before it\n").into_bytes())
        .take(len)
        .collect()
}

/// Bytes that no codec makes smaller.
fn noise(len: usize) -> Bytes {
    let mut x = 1u64;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        (x >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}

fn sealed(parts: &[Bytes], codec: Codec) -> Sealed {
    let mut b = PackBuilder::new(NamespaceId(3), id());
    for (i, part) in parts.iter().enumerate() {
        b.push(new_entry(i as u64 + 2, part, b"name"), vec![part.clone()]).unwrap();
    }
    b.seal_with(codec).unwrap()
}

fn compressing() -> impl Iterator<Item = Codec> {
    Codec::ALL.into_iter().filter(|codec| *codec != Codec::None)
}

#[test]
fn what_can_be_made_smaller_is_and_comes_back() {
    for codec in compressing() {
        // Frames within parts, frames over several parts, a short one at the end, and one that does not become smaller.
        let parts = [text(10), text(3 * FRAME), noise(2 * FRAME), text(7), text(100_000)];
        let sealed = sealed(&parts, codec);
        let object = whole(&sealed);
        assert_eq!(object.len() as u64, sealed.info.total_len);
        assert!(sealed.info.total_len < sealed.info.payload_len, "{codec}");
        let decoded = decode_object(&object).unwrap();
        assert_eq!(decoded.payload, parts.concat(), "{codec}");
        let compressed = decoded.footer.frames.compressed().unwrap();
        assert_eq!(compressed.codec, codec);
        let len = sealed.info.payload_len;
        assert_eq!(compressed.lens.len() as u64, len.div_ceil(FRAME_BYTES));
        assert!(compressed.lens.contains(&(FRAME as u32)), "a frame of noise is stored as it is");
        // Any run of whole frames alone.
        let frames = compressed.lens.len() as u64;
        for (from, to) in [(0, 1), (1, 3), (2, frames), (frames - 1, frames)] {
            let range = from * FRAME_BYTES..(to * FRAME_BYTES).min(len);
            let at = compressed.stored_range(&range);
            let bytes = compressed.unpack(&range, &object[at.start as usize..at.end as usize]).unwrap();
            assert_eq!(bytes, decoded.payload[range.start as usize..range.end as usize]);
            decoded.footer.verify_frames(range.start, &bytes).unwrap();
        }
    }
}

#[test]
fn what_would_not_become_smaller_is_stored_as_it_is() {
    for codec in compressing() {
        for parts in [[noise(3 * FRAME)], [Bytes::from_static(b"tiny")]] {
            assert_eq!(whole(&sealed(&parts, codec)), whole(&sealed(&parts, Codec::None)), "{codec}");
        }
    }
}

#[test]
fn an_object_with_the_longest_directory_still_fits() {
    for codec in compressing() {
        let mut b = PackBuilder::new(NamespaceId(1), id());
        let (data, name) = (text(4000), [b'n'; 255]);
        while b.fits(data.len() as u64, name.len()) {
            b.push(new_entry(b.len() + 1, &data, &name), vec![data.clone()]).unwrap();
        }
        let sealed = b.seal_with(codec).unwrap();
        assert!(sealed.info.total_len < sealed.info.payload_len);
        decode_object(&whole(&sealed)).unwrap();
    }
}

#[test]
fn tables_that_cannot_be_are_refused_even_with_matching_checksums() {
    let sealed = sealed(&[text(2 * FRAME + 5)], Codec::Zstd);
    let object = whole(&sealed).to_vec();
    let stored_len = Trailer::parse_end(&object).unwrap().payload_len as usize;
    let table = stored_len + 32 + 3 * 4;
    for (at, with) in [
        (table, 0u64.to_le_bytes().to_vec()),
        (table, u64::MAX.to_le_bytes().to_vec()),
        (table, (FRAME_BYTES).to_le_bytes().to_vec()),
        (table + 8, 0u32.to_le_bytes().to_vec()),
        (table + 8, (FRAME_BYTES as u32 + 1).to_le_bytes().to_vec()),
        (table + 16, 6u32.to_le_bytes().to_vec()),
    ] {
        let mut damaged = object.clone();
        damaged[at..at + with.len()].copy_from_slice(&with);
        reseal(&mut damaged, stored_len);
        assert_eq!(decode_object(&damaged.into()).unwrap_err().kind(), Kind::Corrupt, "{with:?} at {at}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Some bits of a compressed frame say nothing: then what comes out is right all the same.
    #[test]
    fn a_changed_byte_is_detected_or_says_nothing(lz4: bool, len in 1000usize..200_000, at: prop::sample::Index, with in 1u8..) {
        let payload = text(len);
        let sealed = sealed(std::slice::from_ref(&payload), if lz4 { Codec::Lz4 } else { Codec::Zstd });
        let mut object = whole(&sealed).to_vec();
        let at = at.index(object.len());
        object[at] ^= with;
        if let Ok(decoded) = decode_object(&object.into()) {
            prop_assert_eq!(decoded.payload, payload);
        }
    }

    #[test]
    fn a_compressed_object_that_is_cut_is_refused(lz4: bool, len in 1000usize..200_000, cut: prop::sample::Index) {
        let sealed = sealed(&[text(len)], if lz4 { Codec::Lz4 } else { Codec::Zstd });
        let object = whole(&sealed);
        let cut = cut.index(object.len());
        prop_assert_eq!(decode_object(&object.slice(..cut)).unwrap_err().kind(), Kind::Corrupt);
    }
}
