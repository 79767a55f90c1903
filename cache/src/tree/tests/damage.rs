//! The disk does not give back what is staged: that is told, and costs nobody but the files that it hit.

use std::path::PathBuf;
use std::sync::atomic::Ordering::SeqCst;

use granary_core::limits::Limits;
use granary_core::{Ino, Kind, Result};
use granary_meta::types::Durability;
use granary_meta::{NamespaceChange, PolicyChange};

use super::world::{World, limits, pattern};
use crate::room::Space;
use crate::util::lock;

/// The disk keeps the first `len` bytes of a stage file.
fn cut(w: &World, folder: &str, ino: Ino, len: u64) {
    let path = w.stage_dir().join(folder).join(format!("{ino}"));
    std::fs::File::options().write(true).open(path).unwrap().set_len(len).unwrap();
}

/// The log's segments, oldest first.
fn segments(w: &World) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(w.stage_dir().join("log")).unwrap();
    let mut found: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).collect();
    found.retain(|p| p.extension().is_some_and(|e| e == "log"));
    found.sort();
    found
}

/// Small files in one segment, one in the middle of which is damaged after it was durable, and the drain knows.
async fn damaged(limits: Limits, files: u64) -> World {
    let w = World::with(limits, 0, Durability::Local).await;
    // The real disk may be near its limit: then all would leave for the store at once.
    *lock(&w.up().reads.room().pretend) = Some(Space { free: 1 << 40, total: 1 << 40 });
    for i in 0..files {
        w.write_new(&format!("f{i}"), &pattern(i, 500)).await;
    }
    w.tree_ref().flush().await.unwrap(); // in the log alone
    let segment = &segments(&w)[0];
    let mut bytes = std::fs::read(segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(segment, &bytes).unwrap();
    assert_eq!(w.tree_ref().sync().await.unwrap_err().kind(), Kind::Corrupt);
    w
}

async fn fsync(w: &World, name: &str) {
    let file = w.open(name).await;
    file.fsync().await.unwrap();
    w.close(file).await;
}

fn is_told(w: &World) -> bool {
    let name = segments(w)[0].file_stem().unwrap().to_str().unwrap().to_owned();
    w.tree_ref().status().damage.is_some_and(|told| told.contains(&name) && told.contains("another copy"))
}

async fn write(w: &World, name: &str, seed: u64) -> Result<u64> {
    let file = w.create(name, false).await;
    let written = file.write(0, &pattern(seed, 3000), false).await;
    w.close(file).await;
    written
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_a_damaged_segment_on_a_full_disk() {
    let w = damaged(Limits { cache_free_percent_min: 10, ..limits() }, 3).await;
    *lock(&w.up().reads.room().pretend) = Some(Space { free: 0, total: 1 << 40 });
    w.up().reads.room().exhausted();
    let e = write(&w, "g", 9).await.unwrap_err();
    let name = segments(&w)[0].file_stem().unwrap().to_str().unwrap().to_owned();
    assert!(e.kind() == Kind::NoSpace && e.to_string().contains(&name), "{e}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_segment_takes_nothing_from_the_dirty_limits() {
    let w = damaged(limits(), 100).await;
    let policy = PolicyChange { dirty_files_max: Some(100), ..PolicyChange::default() };
    w.up().volume.set_namespace(&w.name, NamespaceChange { policy, ..NamespaceChange::default() }).unwrap();
    assert_eq!(w.tree_ref().status().dirty_files, 100, "it is not in the store");
    write(&w, "g", 9).await.unwrap();
    assert_eq!(w.content("g").await, pattern(9, 3000));
    assert!(is_told(&w));
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_told_after_later_uploads_and_after_a_restart() {
    let mut w = damaged(limits(), 3).await;
    assert!(is_told(&w));
    w.write_new("g", &pattern(9, 3000)).await;
    assert_eq!(w.tree_ref().sync().await.unwrap_err().kind(), Kind::Corrupt);
    let status = w.tree_ref().status();
    assert!(is_told(&w) && status.error.is_none(), "uploads work: {:?}", status.error);
    w.kill().await;
    assert_eq!(w.tree_ref().sync().await.unwrap_err().kind(), Kind::Corrupt);
    assert!(is_told(&w));
    let segment = segments(&w).remove(0);
    assert_eq!(w.tree_ref().status().dirty_files, 2, "what could be read was stored: {}", segment.display());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_that_the_disk_refuses_to_read_keeps_no_other_from_the_store() {
    let mut w = World::new().await;
    w.write_new("f", &pattern(1, 3000)).await;
    fsync(&w, "f").await;
    w.kill().await; // no descriptor of it is open any more
    let segment = segments(&w).remove(0);
    let kept = segment.with_extension("kept");
    std::fs::rename(&segment, &kept).unwrap();
    // Its first pages are of no process: EIO.
    std::os::unix::fs::symlink("/proc/self/mem", &segment).unwrap();
    w.write_new("g", &pattern(2, 3000)).await;
    let e = w.tree_ref().sync().await.unwrap_err();
    assert_eq!(e.kind(), Kind::Corrupt, "{e}");
    assert!(is_told(&w));
    assert_eq!((segments(&w).len(), w.memory_store.count()), (1, 1), "the other one is in the store");
    // The disk gives it after all.
    std::fs::rename(&kept, &segment).unwrap();
    w.kill().await;
    w.tree_ref().sync().await.unwrap();
    assert_eq!((w.tree_ref().status().damage, w.tree_ref().status().dirty_bytes), (None, 0));
    assert_eq!(w.content("f").await, pattern(1, 3000));
    w.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_file_that_lost_bytes_is_told_and_makes_no_other_file_wait() {
    let w = World::new().await;
    let file = w.create("large.ckpt", true).await;
    file.write(0, &pattern(1, 50_000), false).await.unwrap();
    w.disk.sync_fails.store(true, SeqCst);
    file.fsync().await.unwrap_err();
    w.disk.sync_fails.store(false, SeqCst);
    w.close(file).await;
    w.tree_ref().sync().await.unwrap_err();
    let status = w.tree_ref().status();
    assert!(status.damage.is_some_and(|told| told.contains("lost bytes of inode")), "it is told");
    assert_eq!((status.error, status.retry_in_ms), (None, None), "uploads work");
    assert_eq!(w.tree_ref().shared.dirty.sums((0, 0)).drainable(), 0);
    w.unlink("large.ckpt").await;
    assert_eq!(w.tree_ref().status().damage, None, "gone with its file");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_file_that_was_cut_is_neither_read_as_a_shorter_one_nor_stored_as_zeros() {
    let w = World::new().await;
    let file = w.create("large.ckpt", true).await;
    file.write(0, &pattern(1, 50_000), false).await.unwrap();
    file.fsync().await.unwrap();
    cut(&w, "files", file.ino(), 20_000);
    assert_eq!(file.read_ready(10_000, 30_000).unwrap().unwrap_err().kind(), Kind::Corrupt);
    let e = file.read(10_000, 30_000).await.unwrap_err();
    assert!(e.kind() == Kind::Corrupt && e.to_string().contains("ends at byte 20000"), "{e}");
    assert_eq!(file.read(10_000, 10_000).await.unwrap(), pattern(1, 50_000)[10_000..20_000], "what is there");
    w.close(file).await;
    assert_eq!(w.tree_ref().sync().await.unwrap_err().kind(), Kind::Corrupt);
    assert_eq!(w.memory_store.count(), 0, "no zeros in the place of what was lost");
    assert!(w.tree_ref().status().damage.is_some_and(|told| told.contains("another copy")), "it is told");
    // Who makes it shorter than what is left has a whole file again.
    let file = w.open("large.ckpt").await;
    file.truncate(15_000).await.unwrap();
    w.close(file).await;
    w.tree_ref().sync().await.unwrap();
    assert_eq!(w.content("large.ckpt").await, pattern(1, 50_000)[..15_000]);
    assert_eq!(w.tree_ref().status().damage, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_sparse_stage_file_is_an_error_where_it_was_written_and_nowhere_else() {
    let mut w = World::new().await;
    let file = w.create("large.ckpt", true).await;
    file.write(0, &pattern(1, 50_000), false).await.unwrap();
    w.close(file).await;
    w.tree_ref().sync().await.unwrap();
    w.restart_from_the_store().await;
    let objects = w.memory_store.count();
    let file = w.open("large.ckpt").await;
    file.write(30_000, &pattern(2, 5_000), false).await.unwrap();
    cut(&w, "sparse", file.ino(), 32_000);
    assert_eq!(file.read(30_000, 5_000).await.unwrap_err().kind(), Kind::Corrupt);
    assert_eq!(file.read(0, 50_000).await.unwrap_err().kind(), Kind::Corrupt);
    assert_eq!(file.read(0, 30_000).await.unwrap(), pattern(1, 50_000)[..30_000]);
    w.close(file).await;
    assert_eq!(w.tree_ref().sync().await.unwrap_err().kind(), Kind::Corrupt);
    assert_eq!(w.memory_store.count(), objects);
}
