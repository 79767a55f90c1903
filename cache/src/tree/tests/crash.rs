//! Crashes: of the process, and of the machine.

use std::fs;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering::SeqCst;

use granary_core::Kind;
use granary_core::limits::Limits;
use granary_meta::Metadata;
use granary_meta::types::Durability;

use super::super::committer::tick;
use super::world::{World, limits, pattern};

fn segments(w: &World) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(w.stage_dir().join("log")).unwrap().map(|e| e.unwrap().path());
    let mut found: Vec<_> = entries.filter(|p| p.extension().is_some_and(|e| e == "log")).collect();
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_loses_nothing_that_was_written() {
    let mut w = World::new().await;
    let file = w.create("f", false).await;
    w.tree_ref().flush().await.unwrap(); // the entry is durable; what follows is in the log only
    file.write(0, &pattern(1, 3000), false).await.unwrap();
    file.zero(100, 50, true).await.unwrap();
    file.write(2500, &pattern(2, 3000), false).await.unwrap();
    let expected = file.read(0, 10_000).await.unwrap();
    w.kill().await;
    assert_eq!(w.content("f").await, expected);
    w.kill().await;
    assert_eq!(w.content("f").await, expected, "and again");
    w.tree_ref().sync().await.unwrap();
    assert_eq!(w.content("f").await, expected);
    w.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fsync_promised_survives_a_power_loss() {
    let mut w = World::new().await;
    let file = w.create("f", false).await;
    file.write(0, &pattern(1, 3000), false).await.unwrap();
    file.fsync().await.unwrap();
    file.write(1000, &pattern(2, 500), false).await.unwrap();
    w.close(file).await; // overwrites what was promised: commits only what is on disk
    w.cut_power(usize::MAX, 0.0).await;
    let mut newer = pattern(1, 3000);
    newer[1000..1500].copy_from_slice(&pattern(2, 500));
    let now = w.content("f").await;
    assert!(now == pattern(1, 3000) || now == newer);
    w.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_the_metadata_names_and_the_log_lost_cut_the_file() {
    let mut w = World::new().await;
    let file = w.create("f", false).await;
    file.write(0, &pattern(1, 1000), false).await.unwrap();
    file.fsync().await.unwrap();
    file.write(1000, &pattern(2, 1000), false).await.unwrap();
    w.close(file).await;
    w.meta().sync().await.unwrap(); // the metadata reached the disk before the log
    w.cut_power(usize::MAX, 0.5).await;
    let attr =
        w.meta().lookup(granary_core::Ino::ROOT, granary_core::EntryName::new(b"f").unwrap()).await.unwrap();
    let file = w.tree_ref().file(&attr, None).await.unwrap();
    assert_eq!(file.read(0, 5000).await.unwrap(), pattern(1, 1000), "a prefix, never zeros");
    assert_eq!(w.attr("f").await.unwrap().size, 1000);
    assert_eq!(file.fsync().await.unwrap_err().kind(), Kind::Io, "the loss is told once");
    file.fsync().await.unwrap();
    w.close(file).await;
    w.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_in_a_files_records_ends_its_recovery_there_and_no_others() {
    let mut w = World::new().await;
    let (a, b) = (w.create("a", false).await, w.create("b", false).await);
    w.tree_ref().flush().await.unwrap();
    a.write(0, &pattern(1, 1000), false).await.unwrap();
    let first = fs::metadata(&segments(&w)[0]).unwrap().len();
    a.write(1000, &pattern(2, 1000), false).await.unwrap();
    b.write(0, &pattern(3, 1000), false).await.unwrap();
    a.write(2000, &pattern(4, 1000), false).await.unwrap();
    let segment = fs::OpenOptions::new().read(true).write(true).open(&segments(&w)[0]).unwrap();
    segment.write_all_at(b"damaged", first + 500).unwrap();
    w.kill().await;
    assert_eq!(w.content("a").await, pattern(1, 1000));
    assert_eq!(w.content("b").await, pattern(3, 1000));
    w.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_tail_is_cut_and_writing_goes_on() {
    let mut w = World::new().await;
    let file = w.create("f", false).await;
    w.tree_ref().flush().await.unwrap();
    file.write(0, &pattern(1, 1000), false).await.unwrap();
    file.write(1000, &pattern(2, 1000), false).await.unwrap();
    let path = segments(&w)[0].clone();
    let len = fs::metadata(&path).unwrap().len();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(len - 1).unwrap();
    w.kill().await;
    assert_eq!(w.content("f").await, pattern(1, 1000));
    let file = w.open("f").await;
    file.write(1000, &pattern(3, 1000), false).await.unwrap();
    w.close(file).await;
    w.kill().await;
    assert_eq!(w.content("f").await, [pattern(1, 1000), pattern(3, 1000)].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_files_stage_file_is_its_content_after_a_crash() {
    let mut w = World::new().await;
    let file = w.create("f", true).await;
    w.tree_ref().flush().await.unwrap();
    let backing = file.begin_passthrough(true).unwrap().unwrap();
    backing.file.write_all_at(&pattern(1, 50_000), 0).unwrap();
    drop((file, backing));
    w.kill().await;
    assert_eq!(w.content("f").await, pattern(1, 50_000));
    assert!(w.tree_ref().status().dirty_bytes >= 50_000);
    while w.tree_ref().status().dirty_files > 0 {
        w.tree_ref().sync().await.unwrap(); // the killed process's descriptor may be there for a moment
        tokio::task::yield_now().await;
    }
    fs::remove_dir_all(w.stage_dir()).unwrap();
    w.restart_with_empty_cache().await;
    assert_eq!(w.content("f").await, pattern(1, 50_000));
    w.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_gone_leave_nothing_in_the_stage() {
    let mut w = World::new().await;
    w.tree_ref().flush().await.unwrap();
    w.write_new("small", &pattern(1, 100)).await;
    w.write_new("large", &pattern(1, 50_000)).await;
    // Their creation never reached the engine.
    let survivor = w.engine.crash(0);
    w.engine = std::sync::Arc::new(survivor);
    let up = w.up.take().unwrap();
    up.tree.stop().await;
    drop(up);
    w.start().await;
    if w.attr("large").await.is_none() {
        assert_eq!(fs::read_dir(w.stage_dir().join("files")).unwrap().count(), 0);
    }
    w.tree_ref().sync().await.unwrap();
    assert!(segments(&w).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fails_to_keep_bytes_fails_fsync() {
    let mut w = World::new().await;
    let (small, large) = (w.create("s", false).await, w.create("l", true).await);
    small.write(0, b"x", false).await.unwrap();
    large.write(0, b"x", false).await.unwrap();
    w.disk.sync_fails.store(true, SeqCst);
    assert_eq!(large.fsync().await.unwrap_err().kind(), Kind::Io);
    small.fsync().await.unwrap(); // the metadata's disk works, and keeps it
    assert_eq!(tick(&w.tree_ref().shared).await.unwrap_err().kind(), Kind::Io);
    assert_eq!(small.fsync().await.unwrap_err().kind(), Kind::Io);
    assert!(small.write(1, b"y", false).await.is_err());
    let told = w.tree_ref().status().disk_error.unwrap();
    assert!(told.contains("failed to keep") && told.contains("stage/log"), "{told}");
    w.disk.sync_fails.store(false, SeqCst);
    assert_eq!(
        large.fsync().await.unwrap_err().kind(),
        Kind::Io,
        "what was lost is not found again by asking twice"
    );
    // The log is known by its checksums, and was written again.
    small.fsync().await.unwrap();
    assert_eq!(w.tree_ref().status().disk_error, None);
    small.write(1, b"z", false).await.unwrap();
    w.cut_power(0, 0.0).await;
    assert_eq!(w.content("s").await, b"x");
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_keeps_what_is_dirty_for_the_next_start() {
    let mut w = World::new().await;
    let file = w.create("f", false).await;
    file.write(0, &pattern(1, 1000), false).await.unwrap();
    w.write_new("g", &pattern(2, 50_000)).await;
    w.stop().await;
    assert_eq!(w.memory_store.count(), 0);
    w.start().await;
    assert_eq!(w.content("f").await, pattern(1, 1000));
    assert_eq!(w.content("g").await, pattern(2, 50_000));
    w.tree_ref().sync().await.unwrap();
    w.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_recovery_found_is_durable_when_it_ends() {
    let mut w = World::new().await;
    let file = w.create("f", false).await;
    w.tree_ref().flush().await.unwrap();
    file.write(0, &pattern(1, 1000), false).await.unwrap();
    w.kill().await; // the log was not synced by the process that wrote it
    w.cut_power(0, 0.0).await;
    assert_eq!(w.content("f").await, pattern(1, 1000));
}

/// Zeros in the place of a record, as a page that was not written back leaves them.
fn lose(w: &World, from: u64, to: u64) {
    let segment = fs::OpenOptions::new().write(true).open(&segments(w)[0]).unwrap();
    segment.write_all_at(&vec![0; (to - from) as usize], from).unwrap();
}

fn log_len(w: &World) -> u64 {
    fs::metadata(&segments(w)[0]).unwrap().len()
}

/// A page of the log is lost, with later ones behind it that are not: nothing was promised of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_hole_in_what_was_not_durable_is_no_damage() {
    let mut w = World::new().await;
    let (a, b) = (w.create("a", false).await, w.create("b", false).await);
    a.write(0, &pattern(1, 1000), false).await.unwrap();
    w.tree_ref().flush().await.unwrap();
    let from = log_len(&w);
    a.write(1000, &pattern(2, 1000), false).await.unwrap();
    let to = log_len(&w);
    b.write(0, &pattern(3, 1000), false).await.unwrap();
    a.write(2000, &pattern(4, 1000), false).await.unwrap();
    lose(&w, from, to);
    // The second time more is durable than the hole is old.
    for round in 0..2 {
        w.kill().await;
        assert_eq!(w.content("a").await, pattern(1, 1000));
        assert_eq!(w.content("b").await, pattern(3, 1000), "round {round}");
        let file = w.create(&format!("c{round}"), false).await;
        for _ in 0..2 {
            file.write(0, &pattern(5, 1000), false).await.unwrap();
            w.tree_ref().flush().await.unwrap();
        }
    }
    w.tree_ref().sync().await.unwrap();
    assert!(segments(&w).is_empty(), "nothing is kept for a person");
    w.restart_from_the_store().await;
    assert_eq!(w.content("a").await, pattern(1, 1000));
    assert_eq!(w.content("b").await, pattern(3, 1000));
    w.check().await;
}

/// The metadata was durable before the log was, and names bytes in the hole.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_ends_before_a_hole_that_the_metadata_names() {
    let mut w = World::new().await;
    let (a, b) = (w.create("a", false).await, w.create("b", false).await);
    a.write(0, &pattern(1, 1000), false).await.unwrap();
    w.tree_ref().flush().await.unwrap();
    let from = log_len(&w);
    a.write(1000, &pattern(2, 1000), false).await.unwrap();
    let to = log_len(&w);
    b.write(0, &pattern(3, 1000), false).await.unwrap();
    w.close(a).await;
    w.close(b).await;
    w.meta().sync().await.unwrap();
    lose(&w, from, to);
    for _ in 0..2 {
        w.kill().await;
        assert_eq!(w.content("a").await, pattern(1, 1000), "no zeros");
        assert_eq!(w.content("b").await, pattern(3, 1000));
    }
    w.tree_ref().sync().await.unwrap();
    assert!(segments(&w).is_empty());
    w.check().await;
}

/// What a later record says was durable cannot have gone with the power.
#[tokio::test(flavor = "multi_thread")]
async fn a_hole_in_what_was_durable_is_damage() {
    let mut w = World::new().await;
    let (a, b) = (w.create("a", false).await, w.create("b", false).await);
    w.tree_ref().flush().await.unwrap();
    b.write(0, &pattern(1, 1000), false).await.unwrap();
    let from = log_len(&w);
    a.write(0, &pattern(2, 1000), false).await.unwrap();
    let to = log_len(&w);
    w.tree_ref().flush().await.unwrap();
    b.write(1000, &pattern(3, 1000), false).await.unwrap();
    lose(&w, from, to);
    w.kill().await;
    assert_eq!(w.content("b").await, [pattern(1, 1000), pattern(3, 1000)].concat());
    let file = w.open("a").await;
    assert_eq!(file.read(0, 1000).await.unwrap_err().kind(), Kind::Corrupt, "never zeros");
    w.close(file).await;
    assert_eq!(w.tree_ref().sync().await.unwrap_err().kind(), Kind::Corrupt);
    assert_eq!(segments(&w).len(), 1, "it is kept for a person");
}

/// Of a long record, whatever part of it is read, and of what a later write left of one; before and after a restart.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_record_is_never_read_in_parts() {
    let limits = Limits { small_file_bytes_max: 1 << 20, log_segment_bytes_max: 32 << 20, ..limits() };
    let mut w = World::with(limits, 0, Durability::Local).await;
    for (name, seed) in [("good", 1), ("whole", 2), ("cut", 3)] {
        let file = w.create(name, false).await;
        file.write(0, &pattern(seed, 600_000), false).await.unwrap();
        if name != "whole" {
            file.write(100_000, b"in the middle", false).await.unwrap();
        }
        w.close(file).await;
    }
    w.tree_ref().flush().await.unwrap();
    let path = segments(&w)[0].clone();
    let mut bytes = fs::read(&path).unwrap();
    for seed in [2, 3] {
        let begins = pattern(seed, 64);
        let at = bytes.windows(64).position(|b| b == begins).unwrap();
        bytes[at + 500_000] ^= 1;
    }
    fs::write(&path, &bytes).unwrap();
    let mut plain = pattern(1, 600_000);
    plain[100_000..100_013].copy_from_slice(b"in the middle");
    for _ in 0..2 {
        assert!(w.content("good").await == plain);
        for name in ["whole", "cut"] {
            let file = w.open(name).await;
            for at in [0, 200_000, 499_990] {
                let e = file.read(at, 100).await.unwrap_err();
                assert_eq!(e.kind(), Kind::Corrupt, "{name} at {at}: {e}");
                assert!(e.to_string().contains("damaged on this node's disk"), "{e}");
            }
            w.close(file).await;
        }
        w.kill().await;
    }
}

/// The last record before a crash has no later one that says it was durable; the file beside the log does.
#[tokio::test(flavor = "multi_thread")]
async fn damage_at_the_end_of_what_was_durable_is_no_torn_tail() {
    let mut w = World::new().await;
    let file = w.create("f", false).await;
    file.write(0, &pattern(1, 1000), false).await.unwrap();
    file.write(1000, &pattern(2, 1000), false).await.unwrap();
    file.fsync().await.unwrap();
    w.close(file).await;
    tick(&w.tree_ref().shared).await.unwrap(); // nobody else has the bytes from here on
    let end = log_len(&w);
    lose(&w, end - 500, end);
    for _ in 0..2 {
        w.kill().await;
        let file = w.open("f").await;
        assert_eq!(file.size(), 2000, "it is not cut");
        assert_eq!(file.read(1500, 100).await.unwrap_err().kind(), Kind::Corrupt);
        assert_eq!(file.read(0, 1000).await.unwrap(), pattern(1, 1000));
        w.close(file).await;
    }
    assert_eq!(w.tree_ref().sync().await.unwrap_err().kind(), Kind::Corrupt);
    assert_eq!(segments(&w).len(), 1, "it is kept for a person");
}
