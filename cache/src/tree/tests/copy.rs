//! Copies: shared where the bytes are in the store, made of bytes where they are not.

use granary_core::Kind;
use granary_meta::types::Durability;
use granary_meta::{Metadata, Place};
use granary_store::Operation;

use super::world::{World, limits, pattern};
use crate::File;

async fn copy(w: &World, from: &File, from_offset: u64, to: &File, to_offset: u64, len: u64) -> u64 {
    let mut done = 0;
    while done < len {
        let left = len - done;
        let tree = w.tree_ref();
        match tree.copy_range(from, from_offset + done, to, to_offset + done, left).await.unwrap() {
            0 => break,
            n => done += n,
        }
    }
    done
}

async fn all_in_objects(w: &World, name: &str) -> bool {
    let ino = w.attr(name).await.unwrap().ino;
    w.meta().extents(ino).await.unwrap().1.iter().all(|e| matches!(e.place, Place::Object { .. }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_file_is_copied_without_any_bytes_moving() {
    let mut w = World::new().await;
    let bytes = pattern(1, 3 << 20);
    w.write_new("f", &bytes).await;
    w.tree_ref().sync().await.unwrap();
    w.restart_with_empty_cache().await;
    std::fs::remove_dir_all(w.stage_dir()).unwrap();
    w.restart_with_empty_cache().await;
    let before = [Operation::Get, Operation::Put].map(|op| w.store.calls(op));
    let (f, g) = (w.open("f").await, w.create("g", false).await);
    assert_eq!(w.tree_ref().copy_range(&f, 0, &g, 0, u64::MAX >> 1).await.unwrap(), 3 << 20);
    assert_eq!(g.size(), 3 << 20);
    let dirty = w.tree_ref().status().dirty_bytes;
    assert_eq!(dirty, 0);
    w.close(f).await;
    w.close(g).await;
    w.tree_ref().sync().await.unwrap();
    assert_eq!([Operation::Get, Operation::Put].map(|op| w.store.calls(op)), before);
    assert!(all_in_objects(&w, "g").await);
    w.unlink("f").await;
    assert_eq!(w.content("g").await, bytes);
    w.check().await;
    w.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_staged_is_copied_as_bytes_and_holes_stay_holes() {
    let w = World::new().await;
    let f = w.create("f", false).await;
    f.write(0, &pattern(1, 100_000), false).await.unwrap();
    f.truncate(400_000).await.unwrap();
    f.write(300_000, &pattern(2, 5000), false).await.unwrap();
    let g = w.create("g", false).await;
    g.write(0, &pattern(3, 50_000), false).await.unwrap();
    assert_eq!(copy(&w, &f, 10, &g, 7, 1 << 30).await, 399_990);
    let mut plain = pattern(1, 100_000);
    plain.resize(400_000, 0);
    plain[300_000..305_000].copy_from_slice(&pattern(2, 5000));
    let expected = [&pattern(3, 50_000)[..7], &plain[10..]].concat();
    assert_eq!(g.read(0, 1 << 30).await.unwrap(), expected);
    assert!(w.attr("g").await.unwrap().stored < 150_000, "the hole is one");
    assert_eq!(g.seek(200_000, false), Some(200_000));
    w.close(f).await;
    w.close(g).await;
    assert_eq!(w.content("g").await, expected);
    w.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_copy_of_the_target_is_not_its_content_any_more() {
    let mut w = World::new().await;
    for (name, seed) in [("f", 1), ("g", 2)] {
        w.write_new(name, &pattern(seed, 100_000)).await;
    }
    loop {
        w.tree_ref().sync().await.unwrap();
        if w.tree_ref().status().dirty_files == 0 {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(std::fs::read_dir(w.stage_dir().join("clean")).unwrap().count(), 2);
    let (f, g) = (w.open("f").await, w.open("g").await);
    assert_eq!(w.tree_ref().copy_range(&f, 0, &g, 50_000, 20_000).await.unwrap(), 20_000);
    let mut expected = pattern(2, 100_000);
    expected[50_000..70_000].copy_from_slice(&pattern(1, 100_000)[..20_000]);
    assert_eq!(g.read(0, 1 << 20).await.unwrap(), expected);
    assert_eq!(std::fs::read_dir(w.stage_dir().join("clean")).unwrap().count(), 1);
    // Written on top, past the log's record of the copy.
    g.write(60_000, &pattern(9, 3000), false).await.unwrap();
    expected[60_000..63_000].copy_from_slice(&pattern(9, 3000));
    g.fsync().await.unwrap();
    w.close(f).await;
    w.close(g).await;
    w.cut_power(0, 0.0).await;
    assert_eq!(w.content("g").await, expected);
    w.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_follows_a_copy_that_was_lost_is_not_replayed_without_it() {
    let mut w = World::new().await;
    w.write_new("f", &pattern(1, 5000)).await;
    w.write_new("g", &pattern(2, 5000)).await;
    w.tree_ref().sync().await.unwrap();
    let (f, g) = (w.open("f").await, w.open("g").await);
    assert_eq!(w.tree_ref().copy_range(&f, 0, &g, 0, 4000).await.unwrap(), 4000);
    g.write(4500, b"after", false).await.unwrap();
    // The log reaches the disk, the metadata does not.
    w.cut_power(0, 1.0).await;
    assert_eq!(w.content("g").await, pattern(2, 5000));
    // The file goes on living, and its log with it.
    drop((f, g));
    let g = w.open("g").await;
    g.write(10, b"again", false).await.unwrap();
    g.fsync().await.unwrap();
    w.close(g).await;
    w.cut_power(0, 0.0).await;
    let mut expected = pattern(2, 5000);
    expected[10..15].copy_from_slice(b"again");
    assert_eq!(w.content("g").await, expected);
    w.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_refused_does_not_stop_the_log() {
    let mut w = World::with(limits(), 20_000, Durability::Local).await;
    w.write_new("f", &pattern(1, 8000)).await;
    w.write_new("g", &pattern(2, 8000)).await;
    w.tree_ref().sync().await.unwrap();
    let (f, g) = (w.open("f").await, w.open("g").await);
    let e = w.tree_ref().copy_range(&f, 0, &g, 8000, 8000).await.unwrap_err();
    assert_eq!(e.kind(), Kind::QuotaExceeded);
    assert_eq!(w.tree_ref().copy_range(&f, 8000, &g, 0, 10).await.unwrap(), 0, "the end of the file");
    let e = w.tree_ref().copy_range(&f, 0, &f, 100, 101).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Invalid);
    g.write(0, b"more", false).await.unwrap();
    g.fsync().await.unwrap();
    w.close(f).await;
    w.close(g).await;
    w.cut_power(0, 0.0).await;
    let mut expected = pattern(2, 8000);
    expected[..4].copy_from_slice(b"more");
    assert_eq!(w.content("g").await, expected);
    w.check().await;
}
