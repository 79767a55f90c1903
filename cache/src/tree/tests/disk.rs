//! The node's disk becomes full, of our own and of others' files.

use std::sync::atomic::Ordering::SeqCst;

use granary_core::Kind;
use granary_core::limits::Limits;
use granary_meta::types::Durability;

use super::world::{World, limits, pattern};
use crate::room::Space;
use crate::util::lock;

/// Its disk has room, whatever the machine's has.
async fn world() -> World {
    let w = World::with(Limits { cache_free_percent_min: 10, ..limits() }, 0, Durability::Local).await;
    free(&w, 1 << 39);
    w
}

/// What the disk says of itself.
fn free(w: &World, free: u64) {
    *lock(&w.up().reads.room().pretend) = Some(Space { free, total: 1 << 40 });
    w.up().reads.room().exhausted();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_finds_the_disk_full_waits_for_the_drain() {
    let w = world().await;
    w.write_new("f", &pattern(1, 3000)).await;
    let file = w.create("g", false).await;
    free(&w, 0);
    let writing = {
        let file = file.clone();
        tokio::spawn(async move { file.write(0, &pattern(2, 3000), false).await })
    };
    // The test's clock stands still: only the full disk makes it go.
    while w.memory_store.count() == 0 {
        tokio::task::yield_now().await;
    }
    assert!(w.up().reads.disk_trouble().is_some_and(|t| t.contains("writers wait")));
    free(&w, 1 << 39);
    writing.await.unwrap().unwrap();
    w.close(file).await;
    assert_eq!(w.content("g").await, pattern(2, 3000));
    assert_eq!(w.up().reads.disk_trouble(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_could_wait_for_ever_is_told_that_the_disk_is_full() {
    let w = world().await;
    w.write_new("f", &pattern(1, 50_000)).await;
    w.tree_ref().sync().await.unwrap();
    assert_eq!(w.tree_ref().shared.clean.len(), 1, "a copy stays");
    let file = w.create("g", false).await;
    free(&w, 0);
    let e = file.write(0, &pattern(2, 3000), false).await.unwrap_err();
    assert_eq!(e.kind(), Kind::NoSpace);
    assert!(e.to_string().contains("cache_free_percent_min"), "{e}");
    assert_eq!(w.tree_ref().shared.clean.len(), 0, "copies of what is in the store went first");
    assert!(file.begin_passthrough(true).unwrap().is_none(), "the kernel would not wait");
    free(&w, 1 << 39);
    file.write(0, &pattern(2, 3000), false).await.unwrap();
    assert_eq!(w.content("f").await, pattern(1, 50_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_finds_no_byte_left_is_told_where_and_leaves_nothing_behind() {
    let mut w = world().await;
    let file = w.create("f", false).await;
    file.write(0, &pattern(1, 1000), false).await.unwrap();
    w.disk.limited.store(true, SeqCst);
    let e = file.write(1000, &pattern(2, 1000), false).await.unwrap_err();
    let stage = w.stage_dir().display().to_string();
    assert!(e.kind() == Kind::NoSpace && e.to_string().contains(&stage), "{e}");
    assert!(w.tree_ref().status().disk_error.is_some_and(|told| told.contains(&stage)));
    w.disk.limited.store(false, SeqCst);
    w.tree_ref().shared.look_at_disk();
    assert_eq!(w.tree_ref().status().disk_error, None);
    file.write(1000, &pattern(2, 1000), false).await.unwrap();
    file.fsync().await.unwrap();
    w.kill().await;
    assert_eq!(w.content("f").await, [pattern(1, 1000), pattern(2, 1000)].concat());
    w.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_grew_before_the_disk_was_full_has_one_size() {
    let mut w = World::new().await;
    let file = w.create("f", false).await;
    file.write(0, &pattern(1, 1000), false).await.unwrap();
    w.tree_ref().flush().await.unwrap();
    // Room for the record of the new size, and none for that of the zeros.
    w.disk.room.store(100, SeqCst);
    w.disk.limited.store(true, SeqCst);
    assert_eq!(file.zero(2000, 1000, false).await.unwrap_err().kind(), Kind::NoSpace);
    w.disk.limited.store(false, SeqCst);
    let size = file.size();
    assert_eq!(w.attr("f").await.unwrap().size, size);
    w.close(file).await;
    assert_eq!(w.attr("f").await.unwrap().size, size);
    w.kill().await;
    assert_eq!(w.content("f").await[..1000], pattern(1, 1000));
    assert_eq!(w.attr("f").await.unwrap().size, size);
    w.check().await;
}
