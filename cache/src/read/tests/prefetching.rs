//! Fetching ahead: it helps, it is counted, and it never stands in the way.

use super::*;

#[tokio::test]
async fn reading_a_pack_forward_fetches_ahead_and_each_chunk_once() {
    let b = Bench::new();
    let len = 12 * MIB;
    let object = b.pack(1, len).await;
    for start in (0..len).step_by(128 << 10) {
        b.check(&object, start..start + (128 << 10)).await;
        b.cache.idle().await;
    }
    assert_eq!(b.store.gets_of_chunks(&object), (0..12).map(|chunk| (chunk, 1)).collect());
    let stats = b.cache.stats();
    assert_eq!((stats.misses, stats.prefetch_useful, stats.prefetch_wasted), (1, 11, 0));
    assert_eq!((stats.prefetched_bytes, stats.prefetch_used_bytes), (11 * MIB, 11 * MIB));
    assert_eq!(b.cache.take_beyond(NS), [object.id]);
    assert!(b.cache.take_beyond(NS).is_empty());
}

#[tokio::test]
async fn a_pack_that_is_read_here_and_there_is_fetched_whole() {
    let b = Bench::new();
    let object = b.pack(1, 12 * MIB).await;
    for at in [9, 2, 6] {
        b.check(&object, at * MIB..at * MIB + 1000).await;
    }
    b.cache.idle().await;
    b.store.set_dead(true);
    b.check(&object, 0..12 * MIB).await;
    assert_eq!(b.store.gets_of_chunks(&object), (0..12).map(|chunk| (chunk, 1)).collect());
    b.store.set_dead(false);
    // Dropped and begun anew: what it was in the first pass is known.
    b.cache.evict(object.id, &(0..12 * MIB));
    assert_eq!(b.cache.cached_bytes(object.id, &(0..12 * MIB)), 0);
    b.check(&object, 5 * MIB..5 * MIB + 1000).await;
    b.cache.idle().await;
    assert_eq!(b.cache.cached_bytes(object.id, &(10..12 * MIB)), 12 * MIB - 10);
}

#[tokio::test]
async fn what_was_fetched_ahead_and_left_unread_is_counted() {
    let limits = Limits {
        cache_bytes_max: 6 << 20,
        cache_free_bytes_min: 0,
        cache_free_percent_min: 0,
        ..Limits::default()
    };
    let b = Bench::with(limits, ByteBudget::new(64 << 20));
    let (a, z) = (b.object(1, 2 * MIB).await, b.object(2, 12 * MIB).await);
    b.cache.prefetch(NS, &a, 0..2 * MIB);
    b.cache.idle().await;
    assert!(b.cache.read_ready(NS, &a, 0..10).is_some());
    for at in [2u64, 10, 4, 11, 6, 0, 8] {
        b.check(&z, at * MIB..at * MIB + 10).await;
        b.cache.idle().await;
    }
    let stats = b.cache.stats();
    assert_eq!(stats.prefetch_useful, 1);
    assert!(stats.prefetch_wasted >= 1, "{stats:?}");
}

fn few_slots(fetches_max: u32) -> Bench {
    let limits =
        Limits { fetches_max, cache_free_bytes_min: 0, cache_free_percent_min: 0, ..Limits::default() };
    Bench::with(limits, ByteBudget::new(256 << 20))
}

#[tokio::test]
async fn demand_overtakes_all_that_is_fetched_ahead() {
    let b = few_slots(4);
    let mut objects = Vec::new();
    for id in 1..8 {
        objects.push(b.object(id, MIB).await);
    }
    b.store.close_gate();
    for object in &objects[..5] {
        assert_eq!(b.cache.fetcher.prefetch(NS, object, 0..1), 1);
    }
    in_time(b.store.came(3)).await;
    let settled = || async {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    };
    settled().await;
    assert_eq!(b.store.gets().len(), 3, "three quarters of the slots");
    let reads = async {
        let (one, two) =
            tokio::join!(b.cache.read(NS, &objects[5], 0..10), b.cache.read(NS, &objects[6], 0..10));
        assert!(one.unwrap() == payload(6, MIB)[..10] && two.unwrap() == payload(7, MIB)[..10]);
    };
    let ((), ()) = tokio::join!(in_time(reads), async {
        b.store.came(1).await; // the free slot
        settled().await;
        assert_eq!(b.store.gets().len(), 4);
        b.store.gate.add_permits(1); // one fetched ahead ends: the next slot is the second reader's
        b.store.came(1).await;
        b.store.open_gate();
    });
    b.cache.idle().await;
    let order: Vec<String> = b.store.gets().into_iter().map(|(key, _)| key).collect();
    let expected = [0, 1, 2, 5, 6, 3, 4].map(|i: usize| key_of(&objects[i]));
    assert_eq!(order, expected);
    assert_eq!(b.cache.stats().prefetch_refused, 0);
}

#[tokio::test]
async fn a_chunk_that_waits_to_be_fetched_ahead_is_raised_by_its_reader() {
    let b = few_slots(2);
    let mut objects = Vec::new();
    for id in 1..7 {
        objects.push(b.object(id, MIB).await);
    }
    b.store.close_gate();
    for object in &objects {
        b.cache.prefetch(NS, object, 0..MIB);
    }
    b.store.came(1).await;
    let (bytes, ()) = tokio::join!(in_time(b.cache.read(NS, &objects[4], 0..10)), async {
        b.store.came(1).await;
        b.store.open_gate();
    });
    assert!(bytes.unwrap() == payload(5, MIB)[..10]);
    b.cache.idle().await;
    let order: Vec<String> = b.store.gets().into_iter().map(|(key, _)| key).collect();
    assert_eq!(order[..2], [0, 4].map(|i: usize| key_of(&objects[i])));
    assert_eq!((order.len(), b.cache.stats().prefetch_useful), (6, 1), "nothing was fetched twice");
    let stats = b.cache.stats();
    assert_eq!((stats.prefetched_bytes, stats.prefetch_used_bytes), (6 * MIB, MIB));
}

#[tokio::test]
async fn another_namespaces_read_does_not_wait_for_a_flood() {
    let b = few_slots(1);
    let object = b.object(1, 12 * MIB).await;
    let other = NamespaceId(8);
    let info = BlockInfo { ino: Ino(5), file_offset: 0, version: 1 };
    let mut block = BlockBuilder::new(other, ObjectId(99), info);
    block.push(payload(99, 1000)).unwrap();
    let sealed = block.seal().unwrap();
    b.store.put(&sealed.key(), sealed.parts()).await.unwrap();
    let (payload_len, total_len) = (sealed.info.payload_len, sealed.info.total_len);
    let single = ObjectInfo { id: ObjectId(99), kind: ObjectKind::Block, payload_len, total_len };
    b.store.close_gate();
    // Chunks apart from each other, so that each is a fetch of its own.
    let flood = (0..6u64).map(|i| b.cache.read(NS, &object, 2 * i * MIB..2 * i * MIB + 5));
    let (flood, single, ()) =
        tokio::join!(futures::future::join_all(flood), in_time(b.cache.read(other, &single, 0..10)), async {
            b.store.came(1).await;
            b.store.open_gate();
        });
    assert!(flood.into_iter().all(|read| read.is_ok()) && single.unwrap() == payload(99, 1000)[..10]);
    let order: Vec<String> = b.store.gets().into_iter().map(|(key, _)| key).collect();
    let key = object_key(other, ObjectKind::Block, ObjectId(99));
    let at = order.iter().position(|k| *k == key).unwrap();
    // The first fetch of the flood asks for footer and chunk; the second was next in line before the other came.
    assert!(at <= 3, "{at} of {order:?}");
}

#[tokio::test]
async fn warming_fetches_what_is_missing_in_the_background_and_each_chunk_once() {
    let b = few_slots(4);
    let object = b.object(1, 10 * MIB + 7).await;
    b.check(&object, 5 * MIB..5 * MIB + 10).await;
    let chunks = 0..11;
    let (one, two) = tokio::join!(
        b.cache.fetcher.bring(NS, &object, chunks.clone(), Class::Background),
        b.cache.fetcher.bring(NS, &object, chunks, Class::Background)
    );
    assert_eq!(one.unwrap() + two.unwrap(), 9 * MIB + 7);
    assert_eq!(b.store.gets_of_chunks(&object), (0..11).map(|chunk| (chunk, 1)).collect());
    b.store.set_dead(true);
    b.check(&object, 0..10 * MIB + 7).await;
    assert_eq!(
        b.cache.fetcher.bring(NS, &object, 0..11, Class::Background).await.unwrap(),
        0,
        "all is there"
    );
    let gone = b.object(2, MIB).await;
    assert_eq!(
        b.cache.fetcher.bring(NS, &gone, 0..1, Class::Background).await.unwrap_err().kind(),
        Kind::Unavailable
    );
}

#[tokio::test]
async fn prefetch_gives_up_when_memory_is_short() {
    let b = Bench::new();
    let object = b.object(1, 2 * MIB).await;
    let held = b.memory.acquire(31 << 20).await;
    b.cache.prefetch(NS, &object, 0..2 * MIB);
    b.cache.idle().await;
    assert_eq!((b.store.gets().len(), b.cache.stats().prefetch_refused), (0, 1));
    drop(held);
    b.cache.prefetch(NS, &object, 0..u64::MAX);
    b.cache.idle().await;
    b.store.set_dead(true);
    b.check(&object, 0..2 * MIB).await;
}

#[tokio::test]
async fn demand_joins_a_prefetch_on_its_way_and_its_error_is_told() {
    let b = Bench::new();
    let object = b.object(1, MIB).await;
    b.store.close_gate();
    b.cache.prefetch(NS, &object, 0..MIB);
    b.store.came(1).await;
    let (bytes, ()) = tokio::join!(in_time(b.cache.read(NS, &object, 0..10)), async { b.store.open_gate() });
    assert!(bytes.unwrap() == payload(1, MIB)[..10]);
    assert_eq!((b.store.gets().len(), b.cache.stats().prefetch_useful), (1, 1));
    let bad = b.object(2, MIB).await;
    b.store.flip(&bad, 5);
    b.cache.prefetch(NS, &bad, 0..MIB);
    assert_eq!(b.error(&bad, 0..10).await.kind(), Kind::Corrupt);
}
