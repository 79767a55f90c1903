//! Large files: stage files, passthrough, blocks, clean copies.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use granary_core::limits::{Limits, OBJECT_PAYLOAD_MAX};
use granary_core::{Kind, ObjectKind};
use granary_meta::types::Durability;
use granary_meta::{Metadata, Place};
use granary_store::{Fault, Operation};

use super::world::{World, limits, pattern};
use crate::File;

/// The descriptor the kernel makes for itself when a program opens the file: a second one on the stage file.
fn kernel_opens(file: &File) -> fs::File {
    let backing = file.begin_passthrough(true).unwrap().unwrap();
    let path = format!("/proc/self/fd/{}", backing.file.as_raw_fd());
    fs::OpenOptions::new().read(true).write(true).open(path).unwrap()
}

fn folder(w: &World, name: &str) -> Vec<String> {
    let entries = fs::read_dir(w.stage_dir().join(name)).unwrap();
    entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

async fn places(w: &World, name: &str) -> Vec<(u64, u64, Place)> {
    let ino = w.attr(name).await.unwrap().ino;
    w.meta().extents(ino).await.unwrap().1.iter().map(|e| (e.offset, e.len, e.place)).collect()
}

/// Uploads everything, until stage files are clean too: a lease may fail for a moment.
async fn settle(w: &World) {
    loop {
        w.tree_ref().sync().await.unwrap();
        if w.tree_ref().status().dirty_files == 0 {
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_outgrows_the_log_moves_to_a_stage_file() {
    let mut w = World::new().await;
    let file = w.create("f", false).await;
    let all = pattern(1, 50_000);
    for (i, part) in all.chunks(3000).enumerate() {
        file.write(i as u64 * 3000, part, false).await.unwrap();
    }
    assert_eq!(folder(&w, "files").len(), 1);
    assert_eq!(file.read(0, 60_000).await.unwrap(), all);
    file.zero(10_000, 20_000, true).await.unwrap();
    file.truncate(45_000).await.unwrap();
    let mut plain = all[..45_000].to_vec();
    plain[10_000..30_000].fill(0);
    w.close(file).await;
    assert_eq!(w.content("f").await, plain);
    settle(&w).await;
    assert_eq!((folder(&w, "files").len(), folder(&w, "clean").len()), (0, 1));
    assert_eq!(w.content("f").await, plain);
    w.check().await;
    w.restart_with_empty_cache().await;
    assert_eq!(w.store.calls(Operation::Get), 0, "the clean copy is read");
    assert_eq!(w.content("f").await, plain);
    fs::remove_dir_all(w.stage_dir()).unwrap();
    w.restart_with_empty_cache().await;
    assert_eq!(w.content("f").await, plain, "and without it the store");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_kernel_writes_is_seen_committed_and_stored() {
    let w = World::new().await;
    let file = w.create("f", true).await;
    let kernel = kernel_opens(&file);
    kernel.write_all_at(&pattern(1, 100_000), 0).unwrap();
    kernel.write_all_at(&pattern(2, 10_000), 1 << 20).unwrap();
    let attr = w.attr("f").await.unwrap();
    assert_eq!(attr.size, (1 << 20) + 10_000);
    assert_eq!(file.size(), attr.size);
    assert_eq!(file.read(0, 100_000).await.unwrap(), pattern(1, 100_000));
    assert_eq!((file.seek(200_000, true), file.seek(0, false)), (Some(1 << 20), Some(102_400)));
    drop(kernel);
    file.end_passthrough(true);
    w.close(file).await;
    let committed = w.meta().getattr(attr.ino).await.unwrap();
    assert_eq!((committed.size, committed.mtime), (attr.size, attr.mtime));
    settle(&w).await;
    let places = places(&w, "f").await;
    assert!(places.iter().all(|p| matches!(p.2, Place::Object { .. })), "{places:?}");
    assert!(places.iter().map(|p| p.1).sum::<u64>() < 200_000, "holes are not uploaded");
    let file = w.open("f").await;
    assert_eq!(file.read(1 << 20, 20_000).await.unwrap(), pattern(2, 10_000));
    assert!(file.begin_passthrough(false).unwrap().is_some(), "a clean copy may be read by the kernel");
    file.end_passthrough(false);
    w.close(file).await;
    w.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_are_fifteen_mebibytes() {
    let w = World::with(Limits { small_file_bytes_max: 1 << 20, ..limits() }, 0, Durability::Local).await;
    let file = w.create("f", true).await;
    let kernel = kernel_opens(&file);
    let all = pattern(3, 40 << 20);
    kernel.write_all_at(&all, 0).unwrap();
    drop(kernel);
    file.end_passthrough(true);
    w.close(file).await;
    settle(&w).await;
    let places = places(&w, "f").await;
    let lens: Vec<u64> = places.iter().map(|p| p.1).collect();
    assert_eq!(lens, [OBJECT_PAYLOAD_MAX, OBJECT_PAYLOAD_MAX, 10 << 20]);
    assert!(places.iter().all(|p| matches!(p.2, Place::Object { kind: ObjectKind::Block, .. })));
    assert_eq!(w.memory_store.count(), 3);
    w.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mapping_that_outlives_its_file_is_waited_for() {
    let w = World::new().await;
    let file = w.create("f", true).await;
    let kernel = kernel_opens(&file);
    kernel.write_all_at(&pattern(1, 8192), 0).unwrap();
    kernel.set_len(12_288).unwrap();
    // SAFETY: a shared mapping of three pages of a file of three pages, written within its bounds, unmapped below.
    let map = unsafe {
        libc::mmap(std::ptr::null_mut(), 12_288, libc::PROT_WRITE, libc::MAP_SHARED, kernel.as_raw_fd(), 0)
    };
    assert_ne!(map, libc::MAP_FAILED);
    drop(kernel);
    file.end_passthrough(true);
    w.close(file).await;
    w.tree_ref().sync().await.unwrap();
    assert_eq!(folder(&w, "clean").len(), 0, "it may still be written, so it is not clean");
    // SAFETY: as above; the last page was a hole until now.
    unsafe { std::ptr::write_bytes(map.cast::<u8>().add(8192), 7, 4096) };
    // SAFETY: as made above.
    unsafe { libc::munmap(map, 12_288) };
    settle(&w).await;
    let plain = [pattern(1, 8192), vec![7; 4096]].concat();
    assert_eq!(w.content("f").await, plain);
    drop_clean_copies(&w);
    assert_eq!(w.content("f").await, plain, "the store has what was written through the mapping");
    w.check().await;
}

/// As eviction does.
fn drop_clean_copies(w: &World) {
    let shared = &w.tree_ref().shared;
    while let Some(ino) = shared.clean.oldest() {
        assert!(shared.table.find(ino).is_none_or(|f| f.drop_clean()));
        shared.clean.drop_copy(&shared.files, ino);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_whose_bytes_are_in_the_store_is_changed_in_a_sparse_stage_file() {
    let mut w = World::new().await;
    w.write_new("f", &pattern(1, 100_000)).await;
    settle(&w).await;
    drop_clean_copies(&w);
    w.restart_with_empty_cache().await;
    let mut plain = pattern(1, 100_000);
    let file = w.open("f").await;
    assert!(
        file.begin_passthrough(true).unwrap().is_none(),
        "the kernel cannot have it: not all bytes are here"
    );
    for (offset, len) in [(5, 100), (50_000, 20_000), (99_990, 500)] {
        let bytes = pattern(offset, len);
        file.write(offset, &bytes, false).await.unwrap();
        plain.resize(plain.len().max(offset as usize + len), 0);
        plain[offset as usize..offset as usize + len].copy_from_slice(&bytes);
    }
    file.zero(60_000, 1000, true).await.unwrap();
    plain[60_000..61_000].fill(0);
    assert_eq!(file.read(0, 200_000).await.unwrap(), plain);
    assert_eq!(folder(&w, "sparse").len(), 1);
    file.fsync().await.unwrap();
    w.close(file).await;
    w.kill().await;
    assert_eq!(w.content("f").await, plain);
    settle(&w).await;
    assert_eq!(folder(&w, "sparse").len(), 0);
    assert_eq!(w.content("f").await, plain);
    w.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_written_while_it_is_uploaded_is_moved_where_it_was_not_touched() {
    let w = Arc::new(World::new().await);
    w.write_new("f", &pattern(1, 100_000)).await;
    w.store.script(Operation::Put, Fault::Delay, 1);
    let sync = tokio::spawn({
        let w = w.clone();
        async move { w.tree_ref().sync().await }
    });
    w.store.until_held(1).await;
    let file = w.open("f").await;
    file.write(40_000, &pattern(2, 1000), false).await.unwrap();
    w.close(file).await;
    w.store.release();
    sync.await.unwrap().unwrap();
    let mut plain = pattern(1, 100_000);
    plain[40_000..41_000].copy_from_slice(&pattern(2, 1000));
    assert_eq!(w.content("f").await, plain);
    let staged: Vec<_> =
        places(&w, "f").await.into_iter().filter(|p| matches!(p.2, Place::StageFile { .. })).collect();
    assert_eq!(staged.iter().map(|p| (p.0, p.1)).collect::<Vec<_>>(), [(40_000, 1000)]);
    settle(&w).await;
    drop_clean_copies(&w);
    assert_eq!(w.content("f").await, plain);
    w.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sync_takes_a_file_that_the_kernel_writes_as_it_is_and_again_later() {
    let w = World::new().await;
    let file = w.create("f", true).await;
    let kernel = kernel_opens(&file);
    kernel.write_all_at(&pattern(1, 50_000), 0).unwrap();
    w.tree_ref().sync().await.unwrap();
    assert!(places(&w, "f").await.iter().all(|p| matches!(p.2, Place::Object { .. })));
    kernel.write_all_at(&pattern(2, 50_000), 0).unwrap();
    drop(kernel);
    file.end_passthrough(true);
    w.close(file).await;
    settle(&w).await;
    drop_clean_copies(&w);
    assert_eq!(w.content("f").await, pattern(2, 50_000));
    w.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_copy_opened_for_writing_and_not_written_is_not_uploaded_again() {
    let mut w = World::new().await;
    w.write_new("f", &pattern(1, 50_000)).await;
    settle(&w).await;
    // Long after the stage file was changed, by the test's clock.
    w.clock.advance(Duration::from_secs(100 * 365 * 86_400));
    let objects = w.memory_store.count();
    let file = w.open("f").await;
    let version = file.version();
    let kernel = kernel_opens(&file);
    assert_eq!(folder(&w, "files").len(), 1, "while it may be written it is not clean");
    drop(kernel);
    file.end_passthrough(true);
    w.close(file).await;
    settle(&w).await;
    assert_eq!((w.memory_store.count(), folder(&w, "clean").len()), (objects, 1));
    let file = w.open("f").await;
    assert_eq!(file.version(), version);
    // And when it is written, it is.
    let kernel = kernel_opens(&file);
    kernel.write_all_at(b"new", 7).unwrap();
    drop(kernel);
    file.end_passthrough(true);
    w.close(file).await;
    settle(&w).await;
    let mut plain = pattern(1, 50_000);
    plain[7..10].copy_from_slice(b"new");
    fs::remove_dir_all(w.stage_dir()).unwrap();
    w.restart_with_empty_cache().await;
    assert_eq!(w.content("f").await, plain);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kernel_writes_only_where_the_quota_cannot_be_exceeded() {
    let w = World::with(limits(), 100_000, Durability::Local).await;
    let file = w.create("f", true).await;
    assert!(file.begin_passthrough(true).unwrap().is_none());
    file.write(0, &pattern(1, 90_000), false).await.unwrap();
    assert_eq!(file.write(90_000, &[1; 10_001], false).await.unwrap_err().kind(), Kind::QuotaExceeded);
    w.close(file).await;
    w.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clean_copies_give_way_oldest_first_and_open_ones_stay() {
    let limits =
        Limits { cache_bytes_max: 200_000, cache_free_bytes_min: 0, cache_free_percent_min: 0, ..limits() };
    let w = World::with(limits, 0, Durability::Local).await;
    let store = async |i: u64| {
        w.write_new(&format!("f{i}"), &pattern(i, 60_000)).await;
        settle(&w).await;
    };
    // There is room for one copy; the drain may come to look for it at any time.
    store(0).await;
    store(1).await;
    let open = w.open("f1").await;
    open.begin_passthrough(false).unwrap().unwrap();
    store(2).await;
    store(3).await;
    while folder(&w, "clean").len() > 1 {
        w.tree_ref().shared.drain.wake();
        tokio::task::yield_now().await;
    }
    assert!(folder(&w, "clean")[0].starts_with(&open.ino().to_string()), "the one in use is spared");
    open.end_passthrough(false);
    w.close(open).await;
    for i in 0..4u64 {
        assert_eq!(w.content(&format!("f{i}")).await, pattern(i, 60_000));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_large_file_leaves_nothing() {
    let w = World::new().await;
    w.write_new("f", &pattern(1, 50_000)).await;
    w.unlink("f").await;
    w.tree_ref().flush().await.unwrap(); // until then a power loss could bring the name back
    assert_eq!(folder(&w, "files").len(), 0);
    w.write_new("g", &pattern(1, 50_000)).await;
    settle(&w).await;
    w.unlink("g").await;
    assert_eq!(folder(&w, "clean").len(), 0);
    assert_eq!(w.tree_ref().status().dirty_bytes, 0);
    assert_eq!(w.memory_store.count(), 1, "f was never uploaded");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_under_a_stage_file_leaves_one_truth() {
    let mut w = World::new().await;
    let file = w.create("f", false).await;
    file.write(0, &pattern(1, 20_000), false).await.unwrap();
    file.write(30_000, &pattern(2, 10_000), false).await.unwrap();
    w.disk.limited.store(true, SeqCst);
    // Into a hole, over bytes, and past the end: some of each reaches the disk.
    for offset in [20_000, 5000, 38_000] {
        w.disk.room.store(3000, SeqCst);
        assert_eq!(
            file.write(offset, &pattern(offset, 9000), false).await.unwrap_err().kind(),
            Kind::NoSpace
        );
    }
    w.disk.limited.store(false, SeqCst);
    assert_eq!(file.size(), 40_000);
    let here = file.read(0, 50_000).await.unwrap();
    assert_eq!(here[..5000], pattern(1, 20_000)[..5000]);
    w.close(file).await;
    settle(&w).await;
    assert_eq!(w.content("f").await, here);
    w.restart_from_the_store().await;
    assert_eq!(w.content("f").await, here, "the store has what was read here");
    w.check().await;
}

/// The kernel, which reads clean copies by itself, verifies nothing: so a later run does, before it lets anybody read them.
#[tokio::test(flavor = "multi_thread")]
async fn a_clean_copy_that_the_disk_changed_is_dropped_and_the_store_read() {
    let mut w = World::new().await;
    for (name, seed) in [("good", 1), ("flipped", 2), ("short", 3), ("unsummed", 4)] {
        w.write_new(name, &pattern(seed, 3 << 20)).await;
    }
    settle(&w).await;
    let path = async |name: &str| {
        let attr = w.attr(name).await.unwrap();
        format!("{}.{:016x}", attr.ino, attr.version)
    };
    let (flipped, short, unsummed) = (path("flipped").await, path("short").await, path("unsummed").await);
    assert_eq!(folder(&w, "clean").len(), 4);
    w.stop().await;
    let clean = |name: &str| w.stage_dir().join("clean").join(name);
    let file = fs::OpenOptions::new().read(true).write(true).open(clean(&flipped)).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 2_500_000).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], 2_500_000).unwrap();
    fs::OpenOptions::new().write(true).open(clean(&short)).unwrap().set_len(1 << 20).unwrap();
    fs::remove_file(w.stage_dir().join("sums").join(&unsummed)).unwrap();
    w.start().await;
    assert_eq!((folder(&w, "clean").len(), folder(&w, "sums").len()), (1, 1));
    for (name, seed) in [("good", 1), ("flipped", 2), ("short", 3), ("unsummed", 4)] {
        assert!(w.content(name).await == pattern(seed, 3 << 20), "{name}");
    }
    let file = w.open("good").await;
    assert!(file.begin_passthrough(false).unwrap().is_some());
    file.end_passthrough(false);
    w.close(file).await;
    w.check().await;
}
