//! One GET however many ask, and nobody gets stuck.

use super::*;
use futures::future::join_all;

#[tokio::test]
async fn many_readers_cause_one_get_per_chunk() {
    let b = Bench::new();
    let object = b.object(1, 6 * MIB).await;
    b.store.close_gate();
    let (cache, store) = (&b.cache, &b.store);
    let readers = join_all((0..40u64).map(|i| async move {
        let range = (i % 6) * MIB + i * 1000..(i % 6) * MIB + i * 1000 + 500;
        (range.clone(), cache.read(NS, &object, range).await.unwrap())
    }));
    let (found, ()) = tokio::join!(in_time(readers), async {
        store.came(3).await;
        store.open_gate();
    });
    let whole = payload(1, 6 * MIB);
    for (range, bytes) in found {
        assert!(bytes == whole[range.start as usize..range.end as usize]);
    }
    b.check(&object, 0..6 * MIB).await;
    b.cache.idle().await;
    assert_eq!(b.store.gets_of_chunks(&object), (0..6).map(|chunk| (chunk, 1)).collect());
    let footers = b.store.gets().iter().filter(|(_, range)| range.end == object.total_len).count();
    assert!((1..=2).contains(&footers), "the footer came alone and with the last chunk at most: {footers}");
}

#[tokio::test]
async fn adjacent_missing_chunks_are_one_get_of_at_most_4_mib() {
    let b = Bench::new();
    let object = b.object(1, 10 * MIB).await;
    b.check(&object, 0..10 * MIB).await;
    // The last one brings the footer, unless that came before.
    let mut ranges: Vec<_> = b.store.gets().into_iter().map(|(_, r)| r.start..r.end.min(10 * MIB)).collect();
    ranges.retain(|r| !r.is_empty());
    ranges.sort_by_key(|r| r.start);
    assert_eq!(ranges, [0..4 * MIB, 4 * MIB..8 * MIB, 8 * MIB..10 * MIB]);
}

#[tokio::test]
async fn a_reader_that_goes_away_leaves_its_fetch_to_others() {
    let b = Bench::new();
    let object = b.object(1, MIB).await;
    b.store.close_gate();
    {
        let mut first = Box::pin(b.cache.read(NS, &object, 0..10));
        tokio::select! {
            _ = &mut first => panic!("the gate is closed"),
            () = b.store.came(1) => {}
        }
    }
    let second = b.cache.read(NS, &object, 10..20);
    b.store.open_gate();
    assert!(in_time(second).await.unwrap() == payload(1, MIB)[10..20]);
    assert_eq!(b.store.gets().len(), 1);
}

#[tokio::test]
async fn all_who_wait_are_told_of_a_failure_and_the_next_asks_again() {
    let b = Bench::new();
    let object = b.object(1, 3 * MIB).await;
    b.store.close_gate();
    b.store.set_dead(true);
    let readers = join_all((0..10).map(|i| b.cache.read(NS, &object, i..i + 10)));
    let (results, ()) = tokio::join!(in_time(readers), async {
        b.store.came(1).await;
        b.store.open_gate();
    });
    assert!(results.iter().all(|r| r.as_ref().unwrap_err().kind() == Kind::Unavailable));
    b.cache.idle().await;
    assert_eq!(b.store.gets_of_chunks(&object)[&0], 1);
    b.store.set_dead(false);
    b.check(&object, 0..10).await;
}

#[tokio::test]
async fn an_object_removed_while_it_is_fetched_does_not_stay() {
    let b = Bench::new();
    let object = b.object(1, MIB).await;
    b.store.close_gate();
    let (bytes, ()) = tokio::join!(in_time(b.cache.read(NS, &object, 0..MIB)), async {
        b.store.came(1).await;
        b.cache.remove(object.id);
        b.store.open_gate();
    });
    assert!(bytes.unwrap() == payload(1, MIB), "who began to read before gets its bytes");
    b.cache.idle().await;
    assert!(b.files().is_empty());
}

#[tokio::test]
async fn fetches_at_once_are_bounded() {
    let limits =
        Limits { fetches_max: 3, cache_free_bytes_min: 0, cache_free_percent_min: 0, ..Limits::default() };
    let b = Bench::with(limits, ByteBudget::new(64 << 20));
    let mut objects = Vec::new();
    for id in 1..10 {
        objects.push(b.object(id, 1000).await);
    }
    b.store.close_gate();
    let readers = join_all(objects.iter().map(|object| b.cache.read(NS, object, 1..2)));
    let watch = async {
        b.store.came(3).await;
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        let at_once = b.store.gets().len();
        b.store.open_gate();
        at_once
    };
    let (results, at_once) = tokio::join!(in_time(readers), watch);
    assert!(results.iter().all(Result::is_ok));
    assert_eq!(at_once, 3);
}

/// Little of everything: one or two slots, memory for less than one chunk, a disk for three.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn with_hardly_any_memory_and_slots_all_get_on() {
    for fetches_max in [1, 2] {
        let limits = Limits {
            fetches_max,
            cache_bytes_max: 3 << 20,
            cache_free_bytes_min: 0,
            cache_free_percent_min: 0,
            ..Limits::default()
        };
        let b = Arc::new(Bench::with(limits, ByteBudget::new(256 << 10)));
        let mut objects = Vec::new();
        for id in 1..5 {
            objects.push(b.object(id, 3 * MIB + 5).await);
        }
        let tasks = (0..64u64).map(|i| {
            let (b, object) = (b.clone(), objects[i as usize % objects.len()]);
            tokio::spawn(async move {
                let from = (i * 7919 * 1000) % (2 * MIB);
                b.check(&object, from..from + MIB + 5).await;
                b.cache.prefetch(NS, &object, 0..object.payload_len);
            })
        });
        for result in in_time(join_all(tasks)).await {
            result.unwrap();
        }
        b.cache.idle().await;
        assert_eq!(b.memory.used(), 0);
        assert!(b.cache.usage().0 <= 3 << 20);
    }
}
