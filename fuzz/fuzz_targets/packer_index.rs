//! Indexes as somebody who means harm would make them: checksums match, the rest is anything.
#![no_main]

use bytes::Bytes;
use granary_packer::index::{Header, Index};
use libfuzzer_sys::fuzz_target;

/// Bytes under one sum.
const BLOCK: usize = 64 << 10;

fuzz_target!(|data: &[u8]| {
    // As it is: nearly always stopped by the header's checksum.
    let _ = Index::from_bytes(Bytes::copy_from_slice(data)).map(|index| touch(&index));

    // The first 56 bytes are the header's, the rest is the sections; sums and checksums are made to match.
    let Some((head, body)) = data.split_at_checked(56) else { return };
    let sums: Vec<u8> = body.chunks(BLOCK).flat_map(|part| crc32c::crc32c(part).to_le_bytes()).collect();
    let mut index = head.to_vec();
    index[..8].copy_from_slice(b"granaryX");
    index.extend_from_slice(&crc32c::crc32c(&sums).to_le_bytes());
    index.extend_from_slice(&crc32c::crc32c(&index).to_le_bytes());
    index.extend_from_slice(body);
    index.extend_from_slice(&sums);
    if let Ok(header) = Header::decode(&index) {
        let mut again = header.clone();
        assert_eq!(again.encode()[..], index[..64]);
        assert_eq!(again, header);
    }
    let _ = Index::from_bytes(index.into()).map(|index| touch(&index));
});

fn touch(index: &Index) {
    let whole = index.verify().is_ok();
    for n in 0..index.file_count().min(64) {
        if let Ok(file) = index.file(n) {
            assert!(file.offset + file.length <= index.shard_bytes() && file.sample < index.sample_count());
            if whole {
                assert_eq!(index.find(file.path).unwrap(), Some(n));
            }
        } else {
            assert!(!whole);
        }
        let _ = index.sorted(n);
    }
    for n in 0..index.sample_count().min(64) {
        if let (Ok(files), Ok(span)) = (index.sample(n), index.sample_span(n)) {
            assert!(!files.is_empty() && files.end <= index.file_count() && span.end <= index.shard_bytes());
        }
        let _ = index.sample_key(n);
    }
    for n in 0..index.other_count().min(64) {
        let _ = index.other(n);
    }
    let _ = index.find(b"a/b.c");
}
