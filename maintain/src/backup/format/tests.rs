use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn header() -> Header {
    Header { created_unix_ms: 77, uuid: "ab".repeat(16), store_url: "s3://b/p".into() }
}

type Records = Vec<(Vec<u8>, Vec<u8>)>;

fn encode(records: &Records) -> (Vec<u8>, Totals) {
    let mut encoder = Encoder::new(&header());
    records.iter().for_each(|(k, v)| encoder.push(k, v).unwrap());
    let totals = encoder.finish();
    (encoder.out, totals)
}

/// All records, when the whole stream is good.
fn decode(bytes: &[u8], piece: usize) -> Result<(Records, Header, Totals)> {
    let (mut decoder, mut records) = (Decoder::default(), Vec::new());
    for part in bytes.chunks(piece.max(1)) {
        decoder.push(part, &mut |k, v| {
            records.push((k.to_vec(), v.to_vec()));
            Ok(())
        })?;
    }
    let (header, totals) = decoder.finish()?;
    Ok((records, header, totals))
}

fn records() -> impl Strategy<Value = Records> {
    proptest::collection::btree_map(vec(any::<u8>(), 1..9), vec(any::<u8>(), 0..40), 0..20)
        .prop_map(|map| map.into_iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_is_saved_comes_back_and_what_is_damaged_is_refused(
        records in records(), piece in 1usize..200, at: prop::sample::Index, bit in 0u32..8,
    ) {
        let (bytes, totals) = encode(&records);
        prop_assert_eq!(decode(&bytes, piece)?, (records, header(), totals));
        for cut in 0..bytes.len() {
            prop_assert_eq!(decode(&bytes[..cut], piece).unwrap_err().kind(), Kind::Corrupt);
        }
        let longer = [&bytes[..], &[0]].concat();
        prop_assert_eq!(decode(&longer, piece).unwrap_err().kind(), Kind::Corrupt);
        let mut flipped = bytes;
        let at = at.index(flipped.len());
        flipped[at] ^= 1 << bit;
        let kind = decode(&flipped, piece).unwrap_err().kind();
        prop_assert!(kind == Kind::Corrupt || (kind == Kind::Unsupported && at == 8), "{:?} at {}", kind, at);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..300), piece in 1usize..50) {
        let _ = decode(&bytes, piece).is_ok();
        let (mut begun, _) = encode(&vec![]);
        begun.truncate(header().encode().len());
        begun.extend(bytes);
        let _ = decode(&begun, piece).is_ok();
    }
}

#[test]
fn many_records_are_several_blocks_and_the_digest_tells_their_bytes() {
    let records: Records = (0..20_000u32).map(|n| (n.to_be_bytes().to_vec(), vec![7; 40])).collect();
    let (bytes, totals) = encode(&records);
    assert!(totals.blocks >= 3 && totals.records == 20_000 && totals.bytes == 20_000 * 44, "{totals:?}");
    assert_eq!(decode(&bytes, 70_000).unwrap().0, records);
    let mut other = records.clone();
    other[5].1[3] = 8;
    assert_ne!(encode(&other).1.digest, totals.digest);
    assert_eq!(encode(&records).1, totals);
}

#[test]
fn a_newer_version_and_another_file_are_told_apart() {
    let (mut bytes, _) = encode(&vec![]);
    bytes[8] = 2;
    let e = decode(&bytes, 9).unwrap_err();
    assert!(e.kind() == Kind::Unsupported && e.to_string().contains("newer granary"), "{e}");
    assert!(decode(b"#!/bin/sh and more text", 9).unwrap_err().to_string().contains("no backup"));
}
