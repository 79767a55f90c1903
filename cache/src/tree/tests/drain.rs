//! The drain: what reaches the store, when, and what happens when it does not.

use std::sync::Arc;
use std::time::Duration;

use granary_core::Kind;
use granary_core::limits::Limits;
use granary_meta::types::Durability;
use granary_meta::{Metadata, Place};
use granary_store::format::{Content, decode_object};
use granary_store::{Fault, Operation};

use super::world::{World, limits, pattern};

async fn places(w: &World, name: &str) -> Vec<Place> {
    let ino = w.attr(name).await.unwrap().ino;
    w.meta().extents(ino).await.unwrap().1.iter().map(|e| e.place).collect()
}

fn log_files(w: &World) -> usize {
    let entries = std::fs::read_dir(w.stage_dir().join("log")).unwrap();
    entries.filter(|e| e.as_ref().unwrap().path().extension().is_some_and(|e| e == "log")).count()
}

/// However many segments of the log have something of it, and also when it outgrew the log.
#[tokio::test(flavor = "multi_thread")]
async fn a_dirty_file_is_told_once() {
    let w = World::new().await;
    w.store.chance(Operation::Put, Fault::Before(Kind::Unavailable), 1);
    let log = w.create("log", false).await;
    for n in 0..3 {
        log.write(n * 100, &pattern(n, 100), false).await.unwrap();
        w.tree_ref().shared.log.seal().unwrap();
    }
    let large = w.create("large", false).await;
    for (n, part) in pattern(9, 50_000).chunks(3000).enumerate() {
        large.write(n as u64 * 3000, part, false).await.unwrap();
    }
    let shared = &w.tree_ref().shared;
    assert!(shared.dirty.sums(shared.log.dirty()).files > 2, "the limits' sum has them more than once");
    assert_eq!(w.tree_ref().status().dirty_files, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_files_become_few_objects_in_order_of_names() {
    let mut w =
        World::with(Limits { log_segment_bytes_max: 32 << 20, ..limits() }, 0, Durability::Local).await;
    for i in (0..500u64).rev() {
        w.write_new(&format!("f{i:03}"), &pattern(i, 100 + i as usize)).await;
    }
    assert_eq!(w.tree_ref().status().dirty_files, 500);
    w.tree_ref().sync().await.unwrap();
    assert_eq!(w.memory_store.count(), 1);
    let status = w.tree_ref().status();
    assert_eq!((status.dirty_bytes, status.dirty_files, status.uploaded_objects), (0, 0, 1));
    assert_eq!(log_files(&w), 0, "the log is empty");
    let pack = decode_object(&w.memory_store.object(&w.memory_store.keys()[0]).unwrap()).unwrap();
    let Content::Pack(entries) = pack.footer.content else { panic!("not a pack") };
    let names: Vec<_> = entries.iter().map(|e| String::from_utf8(e.name.to_vec()).unwrap()).collect();
    assert_eq!(names, (0..500).map(|i| format!("f{i:03}")).collect::<Vec<_>>());
    w.restart_with_empty_cache().await;
    for i in 0..500u64 {
        assert_eq!(w.content(&format!("f{i:03}")).await, pattern(i, 100 + i as usize));
    }
    w.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_period_begins_an_upload_without_anybody_asking() {
    let w = World::new().await;
    w.write_new("f", b"content").await;
    assert_eq!(w.memory_store.count(), 0);
    w.clock.advance(Duration::from_millis(w.limits.small_period_ms));
    while w.tree_ref().status().uploaded_objects == 0 {
        tokio::task::yield_now().await;
    }
    while w.tree_ref().status().dirty_bytes > 0 {
        tokio::task::yield_now().await;
    }
    assert!(matches!(places(&w, "f").await[..], [Place::Object { .. }]));
}

#[tokio::test(flavor = "multi_thread")]
async fn rewritten_bytes_are_uploaded_once_and_deleted_ones_never() {
    let w = World::new().await;
    for i in 0..20 {
        let file = if i == 0 { w.create("f", false).await } else { w.open("f").await };
        file.write(0, &pattern(i, 5000), false).await.unwrap();
        w.close(file).await;
    }
    w.write_new("gone", &pattern(99, 5000)).await;
    w.unlink("gone").await;
    w.tree_ref().sync().await.unwrap();
    assert_eq!(w.memory_store.count(), 1);
    let pack = decode_object(&w.memory_store.object(&w.memory_store.keys()[0]).unwrap()).unwrap();
    assert_eq!(pack.payload, pattern(19, 5000));
    assert_eq!(w.content("f").await, pattern(19, 5000));
    w.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_deleted_means_no_object() {
    let w = World::new().await;
    w.write_new("gone", b"x").await;
    w.unlink("gone").await;
    w.tree_ref().sync().await.unwrap();
    assert_eq!((w.memory_store.count(), log_files(&w)), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_keeps_everything_and_recovers() {
    let mut w = World::new().await;
    for i in 0..10u64 {
        w.write_new(&format!("f{i}"), &pattern(i, 3000)).await;
    }
    w.store.chance(Operation::Put, Fault::Before(Kind::Unavailable), 1);
    let e = w.tree_ref().sync().await.unwrap_err();
    assert_eq!(e.kind(), Kind::Unavailable);
    let status = w.tree_ref().status();
    assert!(status.error.as_deref().is_some_and(|e| e.contains("cannot upload small files")), "{status:?}");
    assert_eq!((status.dirty_bytes, status.uploaded_objects), (30_000, 0));
    for i in 0..10u64 {
        assert_eq!(w.content(&format!("f{i}")).await, pattern(i, 3000));
    }
    w.store.heal();
    w.tree_ref().sync().await.unwrap();
    assert_eq!(w.tree_ref().status().error, None);
    assert_eq!(w.tree_ref().status().dirty_bytes, 0);
    w.restart_with_empty_cache().await;
    for i in 0..10u64 {
        assert_eq!(w.content(&format!("f{i}")).await, pattern(i, 3000));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_was_lost_costs_an_object_but_no_byte() {
    let w = World::new().await;
    w.write_new("f", b"content").await;
    w.store.script(Operation::Put, Fault::After(Kind::Unavailable), 1);
    assert!(w.tree_ref().sync().await.is_err());
    w.tree_ref().sync().await.unwrap();
    assert_eq!(w.memory_store.count(), 2);
    assert_eq!(w.content("f").await, b"content");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_written_while_it_is_uploaded_keeps_the_newer_bytes() {
    let w = Arc::new(World::new().await);
    w.write_new("f", &pattern(1, 4000)).await;
    w.store.script(Operation::Put, Fault::Delay, 1);
    let sync = tokio::spawn({
        let w = w.clone();
        async move { w.tree_ref().sync().await }
    });
    w.store.until_held(1).await;
    let file = w.open("f").await;
    file.write(1000, &pattern(2, 1000), false).await.unwrap();
    w.close(file).await;
    w.store.release();
    sync.await.unwrap().unwrap();
    let mut plain = pattern(1, 4000);
    plain[1000..2000].copy_from_slice(&pattern(2, 1000));
    assert_eq!(w.content("f").await, plain);
    w.tree_ref().sync().await.unwrap();
    assert_eq!(w.content("f").await, plain);
    assert!(places(&w, "f").await.iter().all(|p| matches!(p, Place::Object { .. })));
    w.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_follows_bytes_that_move_to_the_store() {
    let w = Arc::new(World::new().await);
    for i in 0..30u64 {
        w.write_new(&format!("f{i}"), &pattern(i, 2000)).await;
    }
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let readers: Vec<_> = (0..3u64)
        .map(|r| {
            let (w, stop) = (w.clone(), stop.clone());
            tokio::spawn(async move {
                let mut reads = 0u64;
                while !stop.load(std::sync::atomic::Ordering::SeqCst) || reads < 50 {
                    let i = (reads * 7 + r) % 30;
                    assert_eq!(w.content(&format!("f{i}")).await, pattern(i, 2000));
                    reads += 1;
                    tokio::task::yield_now().await; // nothing above waits, and the drain needs its turn
                }
            })
        })
        .collect();
    w.tree_ref().sync().await.unwrap();
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    for r in readers {
        r.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_wait_at_the_dirty_limit_until_the_drain_frees_some() {
    let limits = Limits { dirty_bytes_max: 40_000, ..limits() };
    let w = Arc::new(World::with(limits, 0, Durability::Local).await);
    w.store.chance(Operation::Put, Fault::Delay, 1);
    let writer = tokio::spawn({
        let w = w.clone();
        async move {
            for i in 0..20u64 {
                w.write_new(&format!("f{i}"), &pattern(i, 5000)).await;
            }
        }
    });
    w.store.until_held(1).await;
    // With no upload finished the writer can have got no further than the limit.
    while w.tree_ref().status().dirty_bytes < 35_000 {
        tokio::task::yield_now().await;
    }
    for _ in 0..200 {
        tokio::task::yield_now().await;
        assert!(w.tree_ref().status().dirty_bytes <= 40_000);
    }
    assert!(!writer.is_finished());
    w.store.heal();
    w.store.release();
    writer.await.unwrap();
    w.tree_ref().sync().await.unwrap();
    for i in 0..20u64 {
        assert_eq!(w.content(&format!("f{i}")).await, pattern(i, 5000));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fsync_waits_for_the_store_where_the_namespace_says_so() {
    let w = World::with(limits(), 0, Durability::Object).await;
    for (name, len) in [("small", 1000), ("large", 20_000)] {
        let file = w.create(name, false).await;
        file.write(0, &pattern(1, len), false).await.unwrap();
        file.fsync().await.unwrap();
        assert!(places(&w, name).await.iter().all(|p| matches!(p, Place::Object { .. })), "{name}");
        w.store.chance(Operation::Put, Fault::Before(Kind::Unavailable), 1);
        file.write(0, b"x", false).await.unwrap();
        assert_eq!(file.fsync().await.unwrap_err().kind(), Kind::Unavailable);
        w.store.heal();
        file.fsync().await.unwrap();
        w.close(file).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_objects_are_deleted_after_their_grace() {
    let w = World::new().await;
    w.write_new("f", b"one").await;
    w.tree_ref().sync().await.unwrap();
    w.unlink("f").await;
    let shared = &w.tree_ref().shared;
    let found = |deleted, left| crate::drain::dead::Found { deleted, left };
    assert_eq!(crate::drain::dead::delete_dead(shared).await.unwrap(), found(0, 1), "too early");
    assert_eq!(w.memory_store.count(), 1);
    w.clock.advance(Duration::from_secs(61));
    w.store.script(Operation::Delete, Fault::Before(Kind::Unavailable), 1);
    assert_eq!(crate::drain::dead::delete_dead(shared).await.unwrap_err().kind(), Kind::Unavailable);
    assert_eq!(crate::drain::dead::delete_dead(shared).await.unwrap(), found(1, 0));
    assert_eq!(crate::drain::dead::delete_dead(shared).await.unwrap(), found(0, 0));
    assert_eq!(w.memory_store.count(), 0);
    assert!(w.meta().dead_objects(10).await.unwrap().is_empty());
    w.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_segment_is_told_and_kept_and_the_rest_is_stored() {
    let w = World::new().await;
    for i in 0..3u64 {
        w.write_new(&format!("f{i}"), &pattern(i, 3000)).await;
    }
    let log = w.stage_dir().join("log");
    let segment = std::fs::read_dir(&log)
        .unwrap()
        .map(|e| e.unwrap().path())
        .find(|p| p.extension().is_some_and(|e| e == "log"));
    let segment = segment.unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&segment, &bytes).unwrap();
    let e = w.tree_ref().sync().await.unwrap_err();
    assert_eq!(e.kind(), Kind::Corrupt);
    assert!(segment.exists());
    assert_eq!(w.content("f0").await, pattern(0, 3000));
    assert_eq!(w.content("f2").await, pattern(2, 3000));
    let file = w.open("f1").await;
    assert_eq!(file.read(0, 3000).await.unwrap_err().kind(), Kind::Corrupt, "never wrong bytes");
    w.close(file).await;
    assert!(matches!(places(&w, "f2").await[..], [Place::Object { .. }]));
}
