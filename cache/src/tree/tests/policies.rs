//! Write policies of namespaces: changed while files are written, one namespace beside another, and what fsyncs share.

use std::sync::Arc;
use std::time::Duration;

use granary_core::{EntryName, Ino, Kind};
use granary_meta::types::Durability;
use granary_meta::{FileType, Metadata, NamespaceChange, NewInode, Place, PolicyChange};
use granary_store::{Fault, Operation};

use super::world::{World, limits, pattern};
use crate::{File, PathHint, Tree};

/// What `granary ns set` does.
fn set(w: &World, change: NamespaceChange) {
    w.up().volume.set_namespace(&w.name, change).unwrap();
    w.tree_ref().settings_changed();
}

fn set_policy(w: &World, policy: PolicyChange) {
    set(w, NamespaceChange { policy, ..NamespaceChange::default() });
}

async fn until(mut what: impl FnMut() -> bool) {
    while !what() {
        tokio::task::yield_now().await;
    }
}

/// Lets everything that can go on do so.
async fn settle() {
    for _ in 0..500 {
        tokio::task::yield_now().await;
    }
}

async fn places(w: &World, ino: Ino) -> Vec<Place> {
    w.meta().extents(ino).await.unwrap().1.iter().map(|e| e.place).collect()
}

async fn make(meta: &dyn Metadata, tree: &Tree, dir: Ino, name: &str, content: &[u8]) -> Arc<File> {
    let kind = FileType::File;
    let new = NewInode { kind, mode: 0o644, umask: 0, uid: 1, gid: 1, rdev: 0, target: Vec::new() };
    let attr = meta.create(dir, EntryName::new(name.as_bytes()).unwrap(), new, false).await.unwrap();
    let file = tree.created(&attr, PathHint { dir, name: name.into() }, false).unwrap();
    file.write(0, content, false).await.unwrap();
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shorter_period_counts_for_what_is_staged_already() {
    let w = World::new().await;
    w.write_new("f", b"content").await;
    w.clock.advance(Duration::from_millis(100));
    settle().await;
    assert_eq!(w.memory_store.count(), 0, "the node's period is 2 s");
    set_policy(&w, PolicyChange { small_period_ms: Some(100), ..PolicyChange::default() });
    until(|| w.tree_ref().status().dirty_files == 0).await;
    assert_eq!(w.memory_store.count(), 1);
    assert_eq!(w.tree_ref().status().policy.small_period_ms, 100);
    set_policy(&w, PolicyChange { small_period_ms: Some(0), ..PolicyChange::default() });
    assert_eq!(w.tree_ref().status().policy.small_period_ms, w.limits.small_period_ms);
}

#[tokio::test(flavor = "multi_thread")]
async fn from_the_change_on_fsync_waits_for_the_store_or_does_not() {
    let w = World::new().await;
    let file = w.create("f", false).await;
    file.write(0, b"one", false).await.unwrap();
    file.fsync().await.unwrap();
    assert_eq!(w.memory_store.count(), 0);
    let durability = |d| NamespaceChange { durability: Some(d), ..NamespaceChange::default() };
    set(&w, durability(Durability::Object));
    file.fsync().await.unwrap();
    assert!(
        matches!(places(&w, file.ino()).await[..], [Place::Object { .. }]),
        "what was written before is there too"
    );
    set(&w, durability(Durability::Local));
    file.write(0, b"two", false).await.unwrap();
    file.fsync().await.unwrap();
    assert_eq!(w.memory_store.count(), 1);
    w.close(file).await;
    w.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_smaller_small_size_counts_for_files_written_from_then_on() {
    let w = World::new().await;
    let before = make(w.meta(), w.tree_ref(), Ino::ROOT, "before", &pattern(1, 6000)).await;
    set_policy(&w, PolicyChange { small_file_bytes_max: Some(4096), ..PolicyChange::default() });
    let after = make(w.meta(), w.tree_ref(), Ino::ROOT, "after", &pattern(2, 6000)).await;
    let inos = [before.ino(), after.ino()];
    w.close(before).await;
    w.close(after).await;
    assert!(matches!(places(&w, inos[0]).await[..], [Place::Log { .. }]));
    assert!(matches!(places(&w, inos[1]).await[..], [Place::StageFile { .. }]));
    w.tree_ref().sync().await.unwrap();
    assert_eq!(w.content("before").await, pattern(1, 6000));
    assert_eq!(w.content("after").await, pattern(2, 6000));
    w.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_at_once_follow_the_policy() {
    let w = Arc::new(World::new().await);
    for i in 0..4u64 {
        w.write_new(&format!("f{i}"), &pattern(i, 20_000)).await;
    }
    set_policy(&w, PolicyChange { uploads_max: Some(1), ..PolicyChange::default() });
    w.store.chance(Operation::Put, Fault::Delay, 1);
    let sync = tokio::spawn({
        let w = w.clone();
        async move { w.tree_ref().sync().await }
    });
    w.store.until_held(1).await;
    settle().await;
    assert_eq!(w.store.calls(Operation::Put), 1);
    set_policy(&w, PolicyChange { uploads_max: Some(3), ..PolicyChange::default() });
    // The sync asked for one at a time when it began; the drain's own uploads are more now.
    w.clock.advance(Duration::from_secs(31));
    w.tree_ref().settings_changed();
    w.store.until_held(3).await;
    settle().await;
    assert_eq!(w.store.calls(Operation::Put), 3);
    w.store.heal();
    w.store.release();
    sync.await.unwrap().unwrap();
    w.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_and_fsyncs_keep_to_the_bandwidth() {
    let w = Arc::new(World::with(limits(), 0, Durability::Object).await);
    set_policy(&w, PolicyChange { upload_bytes_per_s_max: Some(1 << 10), ..PolicyChange::default() });
    // The first begins at once, and is paid for afterwards.
    let first = w.create("first", false).await;
    first.write(0, &pattern(1, 20_000), false).await.unwrap();
    first.fsync().await.unwrap();
    assert_eq!(w.memory_store.count(), 1);
    let second = w.create("second", false).await;
    second.write(0, &pattern(2, 100), false).await.unwrap();
    let fsync = tokio::spawn({
        let second = second.clone();
        async move { second.fsync().await }
    });
    w.clock.advance(Duration::from_secs(10));
    settle().await;
    assert!(!fsync.is_finished() && w.memory_store.count() == 1);
    w.clock.advance(Duration::from_secs(11));
    fsync.await.unwrap().unwrap();
    assert_eq!(w.memory_store.count(), 2);
    // Without a limit nobody waits for what is owed.
    let third = w.create("third", false).await;
    third.write(0, &pattern(3, 20_000), false).await.unwrap();
    set_policy(&w, PolicyChange { upload_bytes_per_s_max: Some(0), ..PolicyChange::default() });
    third.fsync().await.unwrap();
    for file in [first, second, third] {
        w.close(file).await;
    }
    w.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_at_its_limit_waits_and_another_goes_on() {
    let mut w = World::new().await;
    let meta_b = w.up().volume.namespace(&"user/b".parse().unwrap()).unwrap();
    let (dir, reads) = (w.dir.path().join("stage-b"), w.up().reads.clone());
    let tree_b = w.tree(&dir, meta_b.clone(), reads).await;
    set_policy(&w, PolicyChange { dirty_files_max: Some(100), ..PolicyChange::default() });
    w.store.chance(Operation::Put, Fault::Before(Kind::Unavailable), 1);
    let w = Arc::new(w);
    let writer = tokio::spawn({
        let w = w.clone();
        async move {
            for i in 0..120u64 {
                w.write_new(&format!("f{i}"), &pattern(i, 100)).await;
            }
        }
    });
    until(|| w.tree_ref().status().dirty_files >= 100).await;
    for i in 0..300u64 {
        let file = make(&*meta_b, &tree_b, Ino::ROOT, &format!("g{i}"), &pattern(i, 100)).await;
        tree_b.close(file).await.unwrap();
    }
    assert!(!writer.is_finished() && w.tree_ref().status().dirty_files <= 101);
    assert_eq!(tree_b.status().dirty_files, 300);
    // Who waits can be interrupted.
    let waiting = tokio::spawn({
        let w = w.clone();
        async move { w.write_new("interrupted", b"x").await }
    });
    settle().await;
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    // A larger limit lets the writer go on although nothing drained.
    set_policy(&w, PolicyChange { dirty_files_max: Some(1000), ..PolicyChange::default() });
    writer.await.unwrap();
    w.store.heal();
    w.tree_ref().sync().await.unwrap();
    tree_b.sync().await.unwrap();
    tree_b.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_fsyncs_share_few_puts() {
    let w = Arc::new(World::with(limits(), 0, Durability::Object).await);
    w.store.script(Operation::Put, Fault::Delay, 1);
    let fsync = |i: u64| {
        let w = w.clone();
        tokio::spawn(async move {
            let file = w.create(&format!("f{i}"), false).await;
            file.write(0, &pattern(i, 300), false).await.unwrap();
            file.fsync().await.unwrap();
            let ino = file.ino();
            w.close(file).await;
            assert!(matches!(places(&w, ino).await[..], [Place::Object { .. }]));
        })
    };
    let mut all = vec![fsync(0)];
    w.store.until_held(1).await;
    all.extend((1..100).map(fsync));
    until(|| w.tree_ref().status().dirty_files == 100).await;
    assert_eq!(w.store.calls(Operation::Put), 1, "they wait for the one that is under way");
    w.store.release();
    for one in all {
        one.await.unwrap();
    }
    let puts = w.store.calls(Operation::Put);
    // One more for each that had written, and not asked yet, when the first went on.
    assert!(puts <= 25, "{puts} PUTs for 100 fsyncs");
    println!("{puts} PUTs for 100 fsyncs");
    w.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_synced_without_the_rest() {
    let w = World::new().await;
    let large = make(w.meta(), w.tree_ref(), Ino::ROOT, "large", &pattern(1, 20_000)).await;
    // Enough for a second segment of the log; the file is in the first.
    let small = make(w.meta(), w.tree_ref(), Ino::ROOT, "small", &pattern(2, 5000)).await;
    for i in 0..20u64 {
        w.write_new(&format!("f{i}"), &pattern(i, 5000)).await;
    }
    let inos = [small.ino(), large.ino()];
    w.close(small).await;
    w.close(large).await;
    w.tree_ref().sync_file(inos[0]).await.unwrap();
    assert!(matches!(places(&w, inos[0]).await[..], [Place::Object { .. }]));
    assert!(matches!(places(&w, inos[1]).await[..], [Place::StageFile { .. }]));
    let last = w.attr("f19").await.unwrap().ino;
    assert!(
        matches!(places(&w, last).await[..], [Place::Log { .. }]),
        "nor is the segment being written sealed"
    );
    w.tree_ref().sync_file(inos[1]).await.unwrap();
    assert!(matches!(places(&w, inos[1]).await[..], [Place::Object { .. }]));
    w.tree_ref().sync_file(inos[1]).await.unwrap();
    w.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_tree_its_own_large_files_are_synced() {
    let w = World::new().await;
    let new = |kind| NewInode { kind, mode: 0o755, umask: 0, uid: 1, gid: 1, rdev: 0, target: Vec::new() };
    let name = |s: &'static str| EntryName::new(s.as_bytes()).unwrap();
    let top = w.meta().create(Ino::ROOT, name("top"), new(FileType::Directory), false).await.unwrap().ino;
    let sub = w.meta().create(top, name("sub"), new(FileType::Directory), false).await.unwrap().ino;
    let inside = make(w.meta(), w.tree_ref(), sub, "inside", &pattern(1, 20_000)).await;
    let linked = make(w.meta(), w.tree_ref(), Ino::ROOT, "linked", &pattern(2, 20_000)).await;
    w.meta().link(linked.ino(), top, name("link")).await.unwrap();
    let outside = make(w.meta(), w.tree_ref(), Ino::ROOT, "outside", &pattern(3, 20_000)).await;
    let inos = [inside.ino(), linked.ino(), outside.ino()];
    for file in [inside, linked, outside] {
        w.close(file).await;
    }
    w.tree_ref().sync_below(top).await.unwrap();
    assert!(matches!(places(&w, inos[0]).await[..], [Place::Object { .. }]));
    assert!(matches!(places(&w, inos[1]).await[..], [Place::Object { .. }]));
    assert!(matches!(places(&w, inos[2]).await[..], [Place::StageFile { .. }]));
    w.tree_ref().sync_below(Ino::ROOT).await.unwrap();
    assert!(matches!(places(&w, inos[2]).await[..], [Place::Object { .. }]));
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_store_returns_the_drain_catches_up_by_itself() {
    // Also from what only a person can mend: wrong keys or clock, a bucket that is gone, a full store.
    for kind in [Kind::Unavailable, Kind::Denied, Kind::NotFound, Kind::NoSpace] {
        returns(kind).await;
    }
}

async fn returns(kind: Kind) {
    let w = World::new().await;
    w.write_new("f", &pattern(1, 3000)).await;
    w.store.chance(Operation::Put, Fault::Before(kind), 1);
    for _ in 0..8 {
        w.clock.advance(Duration::from_secs(31)); // the longest wait is 30 s
        w.tree_ref().settings_changed();
        until(|| w.tree_ref().status().retry_in_ms.is_some_and(|ms| ms > 0)).await;
    }
    let status = w.tree_ref().status();
    assert!(status.retry_in_ms.is_some_and(|ms| (15_000..=30_000).contains(&ms)), "{status:?}");
    assert!(status.error.is_some_and(|e| e.contains("cannot upload small files")));
    assert_eq!((status.drain_bytes_per_s, status.left_ms), (None, None), "nothing drains");
    w.store.heal();
    w.clock.advance(Duration::from_secs(30));
    until(|| w.tree_ref().status().dirty_files == 0).await;
    until(|| w.tree_ref().status().error.is_none()).await;
    assert_eq!(w.tree_ref().status().retry_in_ms, None);
}
