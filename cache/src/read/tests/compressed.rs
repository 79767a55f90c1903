//! Objects whose frames are compressed are read like others.

use bytes::BytesMut;
use granary_store::format::{Codec, NewEntry, PackBuilder};

use super::*;

const FRAME: u64 = 64 << 10;

/// Half noise, half zeros, frame by frame: so some frames become small, and others are stored as they are.
fn mixed(len: u64) -> Bytes {
    let noise = payload(77, len);
    (0..len as usize).map(|i| if (i / FRAME as usize).is_multiple_of(2) { noise[i] } else { 0 }).collect()
}

/// In the store: a pack of one large file and `small` tiny ones.
async fn object(b: &Bench, len: u64, small: usize, codec: Codec) -> (ObjectInfo, Bytes) {
    let mut pack = PackBuilder::new(NS, ObjectId(9));
    let mut all = BytesMut::new();
    let mut push = |ino: u64, data: Bytes| {
        let crc = granary_core::crc32c(&data);
        let entry = NewEntry { ino: Ino(ino), parent: Ino(1), file_offset: 0, crc, name: vec![b'n'; 200] };
        all.extend_from_slice(&data);
        pack.push(entry, vec![data]).unwrap();
    };
    push(2, mixed(len));
    (0..small).for_each(|i| push(3 + i as u64, Bytes::from_static(b"tiny")));
    let sealed = pack.seal_with(codec).unwrap();
    b.store.put(&sealed.key(), sealed.parts()).await.unwrap();
    let i = sealed.info;
    assert!(i.total_len < i.payload_len, "it is not compressed");
    (ObjectInfo { id: i.id, kind: i.kind, payload_len: i.payload_len, total_len: i.total_len }, all.freeze())
}

async fn check(b: &Bench, object: &ObjectInfo, all: &Bytes, range: Range<u64>) {
    let bytes = b.cache.read(NS, object, range.clone()).await.unwrap();
    assert!(bytes == all[range.start as usize..range.end as usize], "{range:?}");
}

#[tokio::test]
async fn cold_in_ranges_then_warm_then_after_a_restart_without_the_store() {
    for codec in [Codec::Lz4, Codec::Zstd] {
        let mut b = Bench::new();
        let (object, all) = object(&b, 5 * MIB + 12_345, 0, codec).await;
        let len = object.payload_len;
        for range in [len - 1..len, 3 * MIB - 1..3 * MIB + 1, 0..1, 0..len] {
            check(&b, &object, &all, range).await;
        }
        b.cache.idle().await;
        let fetched = b.cache.stats().fetched_bytes;
        assert!(fetched < len * 6 / 10 + (64 << 10), "{fetched} bytes were fetched for {len}");
        b.store.set_dead(true);
        let before = b.store.gets().len();
        b.reopen().await;
        check(&b, &object, &all, 0..len).await;
        assert_eq!(b.store.gets().len(), before);
    }
}

#[tokio::test]
async fn the_table_of_its_frames_is_kept_for_chunks_that_are_not() {
    let mut b = Bench::new();
    let (object, all) = object(&b, 12 * MIB, 0, Codec::Lz4).await;
    check(&b, &object, &all, 11 * MIB..11 * MIB + 1).await;
    b.reopen().await;
    let before = b.store.gets().len();
    check(&b, &object, &all, 5 * MIB..5 * MIB + 1).await;
    assert_eq!(b.store.gets().len(), before + 1, "no footer again");
}

#[tokio::test]
async fn a_footer_longer_than_what_is_asked_for_first() {
    let b = Bench::new();
    let (object, all) = object(&b, 2 * MIB, 1000, Codec::Zstd).await;
    check(&b, &object, &all, 0..object.payload_len).await;
    assert_eq!(
        b.store.gets()[..2].iter().map(|(_, range)| range.end).collect::<Vec<_>>(),
        [object.total_len; 2]
    );
}

#[tokio::test]
async fn a_damaged_frame_is_an_error_and_its_neighbours_are_not() {
    for codec in [Codec::Lz4, Codec::Zstd] {
        let b = Bench::new();
        let (object, all) = object(&b, 4 * MIB, 0, codec).await;
        // The first frame of the second MiB is noise, stored as it is; the one after it is compressed: the middle of its few bytes.
        let bytes = b.store.inner.object(&key_of(&object)).unwrap();
        let footer = granary_store::format::decode_object(&bytes).unwrap().footer;
        let table = footer.frames.compressed().unwrap();
        for (frame, chunk) in [(16u64, 1u64), (33, 2)] {
            let at = table.stored_range(&(frame * FRAME..(frame + 1) * FRAME));
            for byte in at.start + (at.end - at.start) / 2..at.end {
                b.store.flip(&object, byte);
            }
            let e = b.error(&object, chunk * MIB..(chunk + 1) * MIB).await;
            assert_eq!(e.kind(), Kind::Corrupt, "{e}");
            assert!(e.to_string().contains(&key_of(&object)), "{e}");
        }
        for chunk in [0, 3] {
            check(&b, &object, &all, chunk * MIB..(chunk + 1) * MIB).await;
        }
    }
}

#[tokio::test]
async fn what_was_uploaded_compressed_is_read_without_the_store() {
    let b = Bench::new();
    b.store.set_dead(true);
    let all = mixed(2 * MIB);
    let mut block = BlockBuilder::new(NS, ObjectId(9), BlockInfo { ino: Ino(5), file_offset: 0, version: 1 });
    block.push(all.clone()).unwrap();
    let sealed = block.seal_with(Codec::Zstd).unwrap();
    let i = sealed.info;
    let object = ObjectInfo { id: i.id, kind: i.kind, payload_len: i.payload_len, total_len: i.total_len };
    b.cache.insert(NS, &object, &sealed.payload, &sealed.footer);
    check(&b, &object, &all, 0..object.payload_len).await;
    assert!(b.store.gets().is_empty());
}
