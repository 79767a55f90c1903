//! An fsync that syncs the metadata alone, which then has what the log has not synced.

use std::fs;
use std::sync::atomic::Ordering::SeqCst;

use granary_meta::Metadata;
use granary_meta::types::Redo;

use super::super::committer::tick;
use super::world::{NODE, World, limits, pattern};
use crate::stage::disk::power::Loss;

async fn kept(w: &World) -> Vec<Redo> {
    w.meta().redo(NODE).await.unwrap()
}

/// All of the log since its last sync is lost with the power, the file it is in too.
#[tokio::test(flavor = "multi_thread")]
async fn an_fsync_of_a_small_file_is_one_sync_and_survives() {
    let mut w = World::new().await;
    let (f, g) = (w.create("f", false).await, w.create("g", false).await);
    let syncs = w.disk.syncs.load(SeqCst);
    f.write(0, &pattern(1, 4096), false).await.unwrap();
    f.fsync().await.unwrap();
    g.write(0, &pattern(2, 100), false).await.unwrap();
    f.write(4096, &pattern(3, 1000), false).await.unwrap();
    f.fsync().await.unwrap();
    assert_eq!(w.disk.syncs.load(SeqCst), syncs, "the log was not synced");
    assert_eq!(kept(&w).await.len(), 2);
    drop((f, g));
    w.cut_power(0, 0.0).await;
    assert!(w.content("f").await == [pattern(1, 4096), pattern(3, 1000)].concat());
    assert!(kept(&w).await.is_empty(), "it is in the log now, durably");
    w.cut_power(0, 0.0).await;
    assert!(w.content("f").await == [pattern(1, 4096), pattern(3, 1000)].concat());
    w.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_replaces_durable_bytes_is_one_sync_too() {
    let mut w = World::new().await;
    w.write_new("f", &pattern(1, 3000)).await;
    w.tree_ref().flush().await.unwrap();
    let f = w.open("f").await;
    f.write(500, &pattern(2, 100), false).await.unwrap();
    let syncs = w.disk.syncs.load(SeqCst);
    f.fsync().await.unwrap();
    assert_eq!(w.disk.syncs.load(SeqCst), syncs);
    drop(f);
    w.cut_power(0, 0.0).await;
    let mut expected = pattern(1, 3000);
    expected[500..600].copy_from_slice(&pattern(2, 100));
    assert!(w.content("f").await == expected);
}

/// The log's own sync lets the metadata forget it.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_log_has_synced_is_dropped() {
    let mut w = World::new().await;
    let f = w.create("f", false).await;
    f.write(0, b"one", false).await.unwrap();
    f.fsync().await.unwrap();
    tick(&w.tree_ref().shared).await.unwrap();
    assert!(kept(&w).await.is_empty());
    f.write(3, b"two", false).await.unwrap();
    f.fsync().await.unwrap();
    assert_eq!(kept(&w).await.len(), 1, "what is new alone");
    drop(f);
    w.cut_power(0, 0.0).await;
    assert_eq!(w.content("f").await, b"onetwo");
    w.stop().await;
    w.start().await;
    assert!(kept(&w).await.is_empty(), "nor does a clean end leave any");
}

#[tokio::test(flavor = "multi_thread")]
async fn much_is_synced_where_it_is() {
    let mut w = World::new().await;
    let big = limits().small_file_bytes_max as usize;
    for i in 0..12 {
        w.write_new(&format!("f{i}"), &pattern(i, big)).await;
    }
    let syncs = w.disk.syncs.load(SeqCst);
    w.open("f11").await.fsync().await.unwrap();
    assert!(w.disk.syncs.load(SeqCst) > syncs);
    assert!(kept(&w).await.is_empty());
    w.cut_power(0, 0.0).await;
    assert!(w.content("f11").await == pattern(11, big));
}

/// A segment whose directory entry was never durable is made again from what the metadata has; one that was deleted, because
/// all of it is in the store, is not made of a part of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_outlives_its_segment_does_no_harm() {
    for part in [0, 2] {
        let mut w = World::new().await;
        let f = w.create("f", false).await;
        for i in 0..3u64 {
            f.write(i * 100, &pattern(i, 100), false).await.unwrap();
            f.fsync().await.unwrap();
        }
        w.close(f).await;
        let old = kept(&w).await;
        assert_eq!(old.len(), 3);
        w.tree_ref().sync().await.unwrap();
        let objects = w.memory_store.count();
        // As if the power had failed before it was durable that it is dropped.
        w.meta().keep_redo(NODE, old[part..].to_vec(), &[]).await.unwrap();
        w.meta().sync().await.unwrap();
        w.lose_power(0, Loss::Tails(0.0)).await;
        w.start().await;
        w.tree_ref().sync().await.unwrap();
        assert!(w.content("f").await == [pattern(0, 100), pattern(1, 100), pattern(2, 100)].concat());
        assert_eq!(w.memory_store.count(), objects, "nothing is stored twice");
        let logs = fs::read_dir(w.stage_dir().join("log")).unwrap().map(|e| e.unwrap().path());
        assert_eq!(logs.filter(|p| p.extension().is_some_and(|e| e == "log")).count(), 0);
        w.check().await;
    }
}
