//! Fetching ahead: it helps, it is counted, and it never stands in the way.

use super::*;

#[tokio::test]
async fn reading_forward_fetches_ahead_and_each_chunk_once() {
    let b = Bench::new();
    let len = 12 * MIB;
    let object = b.object(1, len).await;
    for start in (0..len).step_by(128 << 10) {
        b.check(&object, start..start + (128 << 10)).await;
        b.cache.idle().await;
    }
    assert_eq!(b.store.gets_of_chunks(&object), (0..12).map(|chunk| (chunk, 1)).collect());
    let stats = b.cache.stats();
    assert_eq!((stats.misses, stats.prefetch_useful, stats.prefetch_wasted), (1, 11, 0));
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

#[tokio::test]
async fn prefetch_leaves_half_of_the_slots_to_demand() {
    let limits =
        Limits { fetches_max: 4, cache_free_bytes_min: 0, cache_free_percent_min: 0, ..Limits::default() };
    let b = Bench::with(limits, ByteBudget::new(256 << 20));
    let mut objects = Vec::new();
    for id in 1..7 {
        objects.push(b.object(id, MIB).await);
    }
    b.store.close_gate();
    for object in &objects[..5] {
        b.cache.prefetch(NS, object, 0..MIB);
    }
    in_time(b.store.came(2)).await;
    assert_eq!((b.store.gets().len(), b.cache.stats().prefetch_refused), (2, 3));
    let (bytes, ()) = tokio::join!(in_time(b.cache.read(NS, &objects[5], 0..10)), async {
        b.store.came(1).await; // demand came to the store although prefetch wanted more
        b.store.open_gate();
    });
    assert!(bytes.unwrap() == payload(6, MIB)[..10]);
    b.cache.idle().await;
    assert_eq!(b.store.gets().len(), 3);
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
