//! Large files that come from the store get a local file of their own.

use std::fs;

use granary_core::limits::Limits;
use granary_meta::Metadata;
use granary_meta::types::Durability;
use granary_store::{Fault, Operation};

use super::world::{World, limits, pattern};

const LEN: usize = (3 << 20) + 4321;

fn clean_files(w: &World) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(w.stage_dir().join("clean"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

async fn settle(w: &World) {
    while w.tree_ref().status().dirty_files > 0 {
        w.tree_ref().sync().await.unwrap();
    }
}

/// A node that has never seen these files, of which the store has all.
async fn cold(limits: Limits, names: &[&str]) -> World {
    let mut w = World::with(limits, 0, Durability::Local).await;
    for (seed, name) in names.iter().enumerate() {
        w.write_new(name, &pattern(seed as u64, LEN)).await;
    }
    settle(&w).await;
    w.restart_from_the_store().await;
    w
}

/// As a program in a mount that would let the kernel read the file; whether it could.
async fn use_file(w: &World, name: &str, ranges: &[(u64, usize)]) -> bool {
    let file = w.open(name).await;
    let passed = file.begin_passthrough(false).unwrap().is_some();
    for &(offset, len) in ranges {
        let there = LEN.saturating_sub(offset as usize).min(len);
        assert_eq!(file.read(offset, len as u32).await.unwrap().len(), there);
    }
    w.up().reads.idle().await;
    if passed {
        file.end_passthrough(false);
    }
    w.close(file).await;
    w.tree_ref().gathered().await;
    passed
}

const ALL: &[(u64, usize)] = &[(0, LEN)];

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_read_through_is_the_kernels_from_the_next_open_on() {
    let mut w = cold(limits(), &["f"]).await;
    assert!(!use_file(&w, "f", &[(0, LEN / 2)]).await);
    assert!(clean_files(&w).is_empty(), "half of it is no file");
    assert!(!use_file(&w, "f", ALL).await);
    assert_eq!(clean_files(&w).len(), 1);
    assert_eq!(
        w.up().reads.usage().0,
        (64 << 10),
        "its chunks are not there twice, the table of checksums is"
    );
    assert_eq!(w.up().reads.clean_bytes(), LEN as u64);
    let gets = w.store.calls(Operation::Get);
    assert!(use_file(&w, "f", ALL).await);
    assert_eq!(w.content("f").await, pattern(0, LEN));
    assert_eq!(w.store.calls(Operation::Get), gets);
    w.check().await;
    w.restart_with_empty_cache().await;
    assert!(use_file(&w, "f", ALL).await, "it outlives a restart");
    w.kill().await;
    assert_eq!(w.content("f").await, pattern(0, LEN));
    // The content changes: the copy with it, once it is in the store again.
    let file = w.open("f").await;
    file.write(1 << 20, b"changed", false).await.unwrap();
    w.close(file).await;
    settle(&w).await;
    let mut plain = pattern(0, LEN);
    plain[1 << 20..(1 << 20) + 7].copy_from_slice(b"changed");
    assert_eq!(w.content("f").await, plain);
    w.restart_from_the_store().await;
    assert_eq!(w.content("f").await, plain);
    w.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warm_file_is_gathered_when_asked_for_and_holes_stay_holes() {
    let mut w = World::new().await;
    let file = w.create("f", false).await;
    file.write(0, &pattern(1, 100_000), false).await.unwrap();
    file.write(5 << 20, &pattern(2, 100_000), false).await.unwrap();
    file.truncate(7 << 20).await.unwrap();
    w.close(file).await;
    settle(&w).await;
    w.restart_from_the_store().await;
    let attr = w.attr("f").await.unwrap();
    assert!(!w.tree_ref().gather(&attr).await.unwrap(), "nothing of it is here");
    let plain = w.content("f").await;
    w.up().reads.idle().await;
    assert!(clean_files(&w).is_empty(), "nobody wished that the kernel reads it");
    assert!(w.tree_ref().gather(&attr).await.unwrap());
    assert!(w.tree_ref().gather(&attr).await.unwrap(), "it is there already");
    assert!(use_file(&w, "f", &[]).await);
    assert_eq!(w.content("f").await, plain);
    let path = w.stage_dir().join("clean").join(&clean_files(&w)[0]);
    let blocks = std::os::unix::fs::MetadataExt::blocks(&fs::metadata(path).unwrap());
    assert!(blocks * 512 < 1 << 20, "{blocks} blocks");
    w.restart_with_empty_cache().await;
    assert_eq!(clean_files(&w).len(), 1, "its checksums are right");
}

#[tokio::test(flavor = "multi_thread")]
async fn small_files_stay_in_their_packs() {
    let mut w = World::new().await;
    w.write_new("small", &pattern(1, 8000)).await;
    settle(&w).await;
    w.restart_from_the_store().await;
    assert!(!use_file(&w, "small", &[(0, 8000)]).await);
    assert!(!w.tree_ref().gather(&w.attr("small").await.unwrap()).await.unwrap());
    assert!(clean_files(&w).is_empty());
}

/// Copies count in the cache's limit; what is read once does not push out others, what is read again does.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_once_pushes_out_no_copy_and_what_is_read_again_does() {
    let limits = Limits { cache_bytes_max: 14 << 20, ..limits() };
    let w = cold(limits, &["a", "b", "c"]).await;
    for name in ["a", "b"] {
        assert!(!use_file(&w, name, ALL).await);
    }
    assert_eq!(w.up().reads.clean_bytes(), 2 * LEN as u64);
    assert!(use_file(&w, "a", ALL).await, "so that b is the one used longest ago");
    assert!(!use_file(&w, "c", ALL).await);
    assert_eq!(clean_files(&w).len(), 2);
    assert!(w.up().reads.usage().0 > 3 << 20, "it stays in the object cache");
    assert!(!use_file(&w, "c", ALL).await);
    let (cached, _) = w.up().reads.usage();
    assert!(cached + w.up().reads.clean_bytes() <= 14 << 20);
    assert!(use_file(&w, "c", ALL).await && use_file(&w, "a", ALL).await && !use_file(&w, "b", ALL).await);
    for (seed, name) in ["a", "b", "c"].iter().enumerate() {
        assert_eq!(w.content(name).await, pattern(seed as u64, LEN));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_leaves_no_half_copy_and_the_file_readable() {
    let w = cold(limits(), &["f"]).await;
    w.disk.room.store(1 << 20, std::sync::atomic::Ordering::SeqCst);
    w.disk.limited.store(true, std::sync::atomic::Ordering::SeqCst);
    assert!(!use_file(&w, "f", ALL).await);
    assert!(clean_files(&w).is_empty());
    for folder in ["tmp", "sums"] {
        assert_eq!(fs::read_dir(w.stage_dir().join(folder)).unwrap().count(), 0, "{folder}");
    }
    assert_eq!(w.content("f").await, pattern(0, LEN));
    w.disk.limited.store(false, std::sync::atomic::Ordering::SeqCst);
    assert!(!use_file(&w, "f", ALL).await);
    assert!(use_file(&w, "f", ALL).await);
}

/// A chunk that was damaged on the disk is not copied: it is fetched again first.
#[tokio::test(flavor = "multi_thread")]
async fn damage_in_the_object_cache_does_not_reach_the_copy() {
    let w = cold(limits(), &["f"]).await;
    assert_eq!(w.content("f").await, pattern(0, LEN));
    w.up().reads.idle().await;
    let chunks: Vec<_> =
        walk(w.dir.path()).into_iter().filter(|p| p.to_str().unwrap().ends_with(".00000002")).collect();
    assert_eq!(chunks.len(), 1);
    let mut bytes = fs::read(&chunks[0]).unwrap();
    bytes[777_777] ^= 1;
    fs::write(&chunks[0], bytes).unwrap();
    let attr = w.attr("f").await.unwrap();
    assert!(!w.tree_ref().gather(&attr).await.unwrap());
    assert_eq!(w.content("f").await, pattern(0, LEN));
    w.up().reads.idle().await;
    assert!(w.tree_ref().gather(&attr).await.unwrap());
    assert_eq!(w.content("f").await, pattern(0, LEN));
}

fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(walk(&path)) } else { found.push(path) }
    }
    found
}

/// A commit that comes while the copy is made wins.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_meanwhile_gets_no_copy_of_what_it_was() {
    let w = cold(limits(), &["f"]).await;
    assert_eq!(w.content("f").await, pattern(0, LEN));
    w.up().reads.idle().await;
    let file = w.open("f").await;
    file.write(7, b"new", false).await.unwrap();
    assert!(!w.tree_ref().gather(&w.meta().getattr(file.ino()).await.unwrap()).await.unwrap());
    w.store.script(Operation::Put, Fault::Delay, 1);
    w.close(file).await;
    let attr = w.attr("f").await.unwrap();
    assert!(!w.tree_ref().gather(&attr).await.unwrap(), "it has a stage file of what changed");
    w.store.release();
    let mut plain = pattern(0, LEN);
    plain[7..10].copy_from_slice(b"new");
    assert_eq!(w.content("f").await, plain);
    w.check().await;
}
