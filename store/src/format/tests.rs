mod compressed;

use bytes::Bytes;
use granary_core::limits::{FRAME_BYTES, OBJECT_PAYLOAD_MAX};
use granary_core::{Ino, Kind, NamespaceId, ObjectId, ObjectKind};
use proptest::prelude::*;

use super::*;

fn id() -> ObjectId {
    ObjectId::new(1_700_000_000_000, 0xabcd)
}

/// `len` bytes that differ from place to place and by `salt`.
fn bytes(len: usize, salt: u64) -> Bytes {
    (0..len as u64)
        .map(|i| ((i.wrapping_add(salt)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
        .collect()
}

fn new_entry(ino: u64, data: &[u8], name: &[u8]) -> NewEntry {
    NewEntry {
        ino: Ino(ino),
        parent: Ino(1),
        file_offset: 7,
        crc: granary_core::crc32c(data),
        name: name.to_vec(),
    }
}

fn whole(sealed: &Sealed) -> Bytes {
    sealed.parts().concat().into()
}

fn block(len: usize) -> Sealed {
    let mut b =
        BlockBuilder::new(NamespaceId(3), id(), BlockInfo { ino: Ino(9), file_offset: 15 << 20, version: 4 });
    b.push(bytes(len, 1)).unwrap();
    b.seal().unwrap()
}

fn pack(files: &[(Bytes, Vec<u8>)]) -> Sealed {
    let mut b = PackBuilder::new(NamespaceId(3), id());
    for (i, (data, name)) in files.iter().enumerate() {
        let middle = data.len() / 2;
        b.push(new_entry(i as u64 + 2, data, name), vec![data.slice(..middle), data.slice(middle..)])
            .unwrap();
    }
    b.seal().unwrap()
}

fn small_pack() -> Sealed {
    pack(&[
        (bytes(10, 1), b"a".to_vec()),
        (bytes(70_000, 2), b"".to_vec()),
        (bytes(1, 3), b"\xff\xfe".to_vec()),
    ])
}

/// Gives a changed footer checksums that match, as somebody who means harm would.
fn reseal(object: &mut [u8], payload_len: usize) {
    let end = object.len() - TRAILER_BYTES;
    let crc = granary_core::crc32c(&object[payload_len..end]);
    object[end + 24..end + 28].copy_from_slice(&crc.to_le_bytes());
    let crc = granary_core::crc32c(&object[end..end + 28]);
    object[end + 28..].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn the_bytes_of_a_block_are_as_the_table_says() {
    let mut b = BlockBuilder::new(
        NamespaceId(0x0403_0201),
        ObjectId(0x1f1e_1d1c_1b1a_1918_1716_1514_1312_1110),
        BlockInfo { ino: Ino(5), file_offset: 6, version: 7 },
    );
    b.push(Bytes::from_static(b"hello")).unwrap();
    let sealed = b.seal().unwrap();
    let mut footer: Vec<u8> = (0x10..0x20).collect();
    footer.extend([1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0]);
    footer.extend(granary_core::crc32c(b"hello").to_le_bytes());
    footer.extend([5, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0]);
    let mut trailer = b"granaryO\x01\x01\0\0".to_vec();
    trailer.extend((footer.len() as u32).to_le_bytes());
    trailer.extend(5u64.to_le_bytes());
    trailer.extend(granary_core::crc32c(&footer).to_le_bytes());
    trailer.extend(granary_core::crc32c(&trailer).to_le_bytes());
    assert_eq!(sealed.footer, [footer, trailer].concat());
    assert_eq!((sealed.info.payload_len, sealed.info.total_len), (5, 5 + 60 + 32));
    assert_eq!(sealed.key(), "ns/04030201/b/10/1f1e1d1c1b1a19181716151413121110");
}

#[test]
fn a_full_block_fits_and_one_byte_more_does_not() {
    let max = OBJECT_PAYLOAD_MAX as usize;
    let mut b =
        BlockBuilder::new(NamespaceId(1), id(), BlockInfo { ino: Ino(2), file_offset: 0, version: 0 });
    b.push(Bytes::from(vec![7; max])).unwrap();
    assert_eq!(b.push(Bytes::from_static(b"x")).unwrap_err().kind(), Kind::Bug);
    let sealed = b.seal().unwrap();
    assert!(sealed.info.total_len <= OBJECT_BYTES_MAX);
    assert_eq!(decode_object(&whole(&sealed)).unwrap().footer.frames.checksums().len(), 240);
}

#[test]
fn a_pack_of_tiny_files_is_full_when_its_directory_is() {
    let mut b = PackBuilder::new(NamespaceId(1), id());
    let (data, name) = (bytes(1, 0), [b'n'; 255]);
    while b.fits(1, name.len()) {
        b.push(new_entry(b.len() + 1, &data, &name), vec![data.clone()]).unwrap();
    }
    assert!(b.entries() > 3000);
    assert_eq!(b.push(new_entry(1, &data, &name), vec![data.clone()]).unwrap_err().kind(), Kind::Bug);
    let (sealed, entries) = (b.entries(), b.seal().unwrap());
    assert!(entries.footer.len() as u64 <= FOOTER_BYTES_MAX);
    let Content::Pack(read) = decode_object(&whole(&entries)).unwrap().footer.content else {
        panic!("no pack")
    };
    assert_eq!(read.len() as u32, sealed);
}

#[test]
fn empty_and_nameless_objects_are_refused() {
    let info = BlockInfo { ino: Ino(2), file_offset: 0, version: 0 };
    assert_eq!(BlockBuilder::new(NamespaceId(1), id(), info).seal().unwrap_err().kind(), Kind::Bug);
    assert_eq!(PackBuilder::new(NamespaceId(1), id()).seal().unwrap_err().kind(), Kind::Bug);
    let mut b = PackBuilder::new(NamespaceId(1), id());
    assert_eq!(
        b.push(new_entry(0, b"x", b""), vec![Bytes::from_static(b"x")]).unwrap_err().kind(),
        Kind::Bug
    );
    assert_eq!(b.push(new_entry(2, b"", b""), vec![]).unwrap_err().kind(), Kind::Bug);
    assert_eq!(
        b.push(new_entry(2, b"x", &[b'x'; 256]), vec![Bytes::from_static(b"x")]).unwrap_err().kind(),
        Kind::Bug
    );
}

#[test]
fn bytes_damaged_before_the_upload_do_not_get_into_a_pack() {
    let mut b = PackBuilder::new(NamespaceId(1), id());
    let e = b.push(new_entry(2, b"good", b"name"), vec![Bytes::from_static(b"goof")]).unwrap_err();
    assert_eq!(e.kind(), Kind::Corrupt);
    assert!(e.to_string().contains("\"name\"") && e.to_string().contains("damaged on this node"), "{e}");
    assert_eq!((b.entries(), b.len()), (0, 0));
}

#[test]
fn a_bad_frame_is_named() {
    let sealed = block(3 * FRAME_BYTES as usize + 5);
    let object = whole(&sealed);
    let footer = Footer::parse(&sealed.footer, sealed.info.payload_len).unwrap();
    let mut second = object[FRAME_BYTES as usize..2 * FRAME_BYTES as usize].to_vec();
    footer.verify_frames(FRAME_BYTES, &second).unwrap();
    footer
        .verify_frames(3 * FRAME_BYTES, &object[3 * FRAME_BYTES as usize..sealed.info.payload_len as usize])
        .unwrap();
    second[9] ^= 1;
    let e = footer.verify_frames(FRAME_BYTES, &second).unwrap_err();
    assert_eq!(e.kind(), Kind::Corrupt);
    assert!(e.to_string().contains("frame 1 (payload bytes 65536..131072)"), "{e}");
    assert!(e.to_string().contains(&id().to_string()), "{e}");
    // Not whole frames, and past the end.
    assert_eq!(footer.verify_frames(1, &second).unwrap_err().kind(), Kind::Bug);
    assert_eq!(footer.verify_frames(0, &second[1..]).unwrap_err().kind(), Kind::Bug);
    assert_eq!(footer.verify_frames(3 * FRAME_BYTES, &[0; 6]).unwrap_err().kind(), Kind::Corrupt);
    assert_eq!(footer.verify_frames(u64::MAX, &[0; 6]).unwrap_err().kind(), Kind::Corrupt);
}

#[test]
fn another_objects_bytes_are_found_out() {
    let sealed = block(5);
    let footer = Footer::parse(&sealed.footer, 5).unwrap();
    footer.check_identity(NamespaceId(3), ObjectKind::Block, id()).unwrap();
    for (ns, kind, other) in [
        (NamespaceId(4), ObjectKind::Block, id()),
        (NamespaceId(3), ObjectKind::Pack, id()),
        (NamespaceId(3), ObjectKind::Block, ObjectId::new(1, 1)),
    ] {
        assert_eq!(footer.check_identity(ns, kind, other).unwrap_err().kind(), Kind::Corrupt);
    }
}

#[test]
fn newer_versions_and_unknown_codecs_are_refused() {
    let sealed = block(5);
    let mut newer = whole(&sealed).to_vec();
    let version = newer.len() - TRAILER_BYTES + 8;
    newer[version] = 2;
    reseal(&mut newer, 5);
    let e = decode_object(&newer.into()).unwrap_err();
    assert_eq!(e.kind(), Kind::Unsupported);
    assert!(e.to_string().contains("use a newer granary"), "{e}");
    for (codec, text) in [(1, "frames are impossible"), (2, "frames are impossible"), (3, "codec is unknown")]
    {
        let mut compressed = whole(&sealed).to_vec();
        compressed[5 + 20] = codec;
        reseal(&mut compressed, 5);
        let e = decode_object(&compressed.into()).unwrap_err();
        assert_eq!(e.kind(), Kind::Corrupt);
        assert!(e.to_string().contains(text), "{e}");
    }
}

#[test]
fn every_flipped_bit_and_every_truncation_of_a_pack_is_detected() {
    let object = pack(&[(bytes(100, 1), b"a".to_vec()), (bytes(5, 2), b"long name".to_vec())]);
    let object = whole(&object).to_vec();
    decode_object(&object.clone().into()).unwrap();
    for at in 0..object.len() {
        for bit in 0..8 {
            let mut damaged = object.clone();
            damaged[at] ^= 1 << bit;
            assert!(decode_object(&damaged.into()).is_err(), "bit {bit} of byte {at}");
        }
    }
    for len in 0..object.len() {
        assert_eq!(
            decode_object(&object[..len].to_vec().into()).unwrap_err().kind(),
            Kind::Corrupt,
            "cut at {len}"
        );
        assert!(decode_object(&object[object.len() - len..].to_vec().into()).is_err(), "front cut to {len}");
    }
}

#[test]
fn entries_outside_the_payload_are_refused_even_with_matching_checksums() {
    let sealed = small_pack();
    let payload_len = sealed.info.payload_len as usize;
    let first = payload_len + 32 + 2 * 4 + 4;
    let cases: [(usize, &[u8], &str); 6] = [
        (first, &[0; 8], "no inode"),
        (first + 16, &u64::MAX.to_le_bytes(), "offset in the file"),
        (first + 24, &1u32.to_le_bytes(), "overlaps"),
        (first + 24, &u32::MAX.to_le_bytes(), "outside the payload"),
        (first + 28, &0u32.to_le_bytes(), "no bytes"),
        (first - 4, &u32::MAX.to_le_bytes(), "number of entries"),
    ];
    for (at, with, why) in cases {
        let mut object = whole(&sealed).to_vec();
        object[at..at + with.len()].copy_from_slice(with);
        reseal(&mut object, payload_len);
        let e = Footer::parse(&object[payload_len..], payload_len as u64).unwrap_err();
        assert_eq!(e.kind(), Kind::Corrupt);
        assert!(e.to_string().contains(why), "{why}: {e}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn blocks_round_trip(cuts in prop::collection::vec(0usize..100_000, 1..6), ino in 1u64.., offset in 0u64..1 << 40, version: u64) {
        let info = BlockInfo { ino: Ino(ino), file_offset: offset, version };
        let mut b = BlockBuilder::new(NamespaceId(8), id(), info);
        for (i, len) in cuts.iter().enumerate() {
            b.push(bytes(*len, i as u64))?;
        }
        prop_assume!(!b.is_empty());
        let sealed = b.seal()?;
        let object = decode_object(&whole(&sealed))?;
        prop_assert_eq!(&object.payload, &Bytes::from(sealed.payload.concat()));
        prop_assert_eq!(object.footer.content, Content::Block(info));
        prop_assert_eq!((object.footer.id, object.footer.ns), (id(), NamespaceId(8)));
        prop_assert_eq!(sealed.info.total_len, whole(&sealed).len() as u64);
    }

    #[test]
    fn packs_round_trip(files in prop::collection::vec((1usize..9_000, prop::collection::vec(any::<u8>(), 0..=255)), 1..60)) {
        let files: Vec<_> = files.into_iter().enumerate().map(|(i, (len, name))| (bytes(len, i as u64), name)).collect();
        let sealed = pack(&files);
        let object = decode_object(&whole(&sealed))?;
        let Content::Pack(entries) = object.footer.content else { panic!("no pack") };
        prop_assert_eq!(entries.len(), files.len());
        let mut end = 0;
        for (entry, (data, name)) in entries.iter().zip(&files) {
            prop_assert_eq!(u64::from(entry.payload_offset), end);
            end = entry.payload_end();
            prop_assert_eq!(&object.payload[entry.payload_offset as usize..end as usize], &data[..]);
            prop_assert_eq!(&entry.name[..], &name[..]);
        }
        prop_assert_eq!(end, sealed.info.payload_len);
    }

    #[test]
    fn any_flipped_byte_is_detected(len in 1usize..200_000, at: prop::sample::Index, with in 1u8..) {
        let mut object = whole(&block(len)).to_vec();
        let at = at.index(object.len());
        object[at] ^= with;
        prop_assert!(decode_object(&object.into()).is_err());
    }

    #[test]
    fn any_truncation_is_detected(len in 1usize..200_000, cut: prop::sample::Index) {
        let object = whole(&block(len));
        let cut = cut.index(object.len());
        prop_assert_eq!(decode_object(&object.slice(..cut)).unwrap_err().kind(), Kind::Corrupt);
    }

    #[test]
    fn footers_with_matching_checksums_never_panic_and_stay_in_bounds(at: prop::sample::Index, with: [u8; 4], len in 1usize..=4) {
        let sealed = small_pack();
        let payload_len = sealed.info.payload_len as usize;
        let mut object = whole(&sealed).to_vec();
        let footer_len = object.len() - payload_len;
        let at = payload_len + at.index(footer_len - len);
        object[at..at + len].copy_from_slice(&with[..len]);
        reseal(&mut object, payload_len);
        if let Ok(footer) = Footer::parse(&object[payload_len..], payload_len as u64)
            && let Content::Pack(entries) = footer.content {
            for entry in entries {
                prop_assert!(entry.payload_end() <= payload_len as u64);
            }
        }
    }

    #[test]
    fn any_bytes_are_parsed_without_panic(junk in prop::collection::vec(any::<u8>(), 0..400), payload_len: u64) {
        prop_assert!(Footer::parse(&junk, payload_len).is_err());
        prop_assert!(decode_object(&junk.into()).is_err());
    }
}

#[test]
fn a_part_of_something_else_reads_as_a_pack() {
    for len in [1, FRAME_BYTES, FRAME_BYTES + 1, 3 * FRAME_BYTES - 7, OBJECT_PAYLOAD_MAX] {
        let payload = bytes(len as usize, 5);
        let crcs: Vec<u32> = payload.chunks(FRAME_BYTES as usize).map(granary_core::crc32c).collect();
        let footer = footer_of_part(NamespaceId(3), id(), len, &crcs).unwrap();
        assert_eq!(footer.len() as u64, part_footer_len(len));
        let object = decode_object(&[&payload[..], &footer].concat().into()).unwrap();
        assert_eq!(object.payload, payload);
        object.footer.check_identity(NamespaceId(3), ObjectKind::Pack, id()).unwrap();
        assert_eq!(footer_of_part(NamespaceId(3), id(), len, &crcs[1..]).unwrap_err().kind(), Kind::Bug);
    }
    assert_eq!(footer_of_part(NamespaceId(3), id(), 0, &[]).unwrap_err().kind(), Kind::Bug);
}
