//! What a power loss may not take: one case for each order of writes and syncs that once was wrong.

use std::fs;
use std::sync::atomic::Ordering::SeqCst;

use granary_core::{EntryName, Ino, Kind};
use granary_meta::Metadata;
use granary_meta::types::RenameMode;

use super::super::committer::tick;
use super::world::{World, limits, pattern};
use crate::stage::disk::power::Loss;
use crate::stage::disk::write_all;

async fn rename(w: &World, from: &str, to: &str) {
    let name = |n: &str| n.as_bytes().to_vec();
    let (from, to) = (name(from), name(to));
    let replaced = w
        .meta()
        .rename(
            Ino::ROOT,
            EntryName::new(&from).unwrap(),
            Ino::ROOT,
            EntryName::new(&to).unwrap(),
            RenameMode::Replace,
        )
        .await
        .unwrap();
    if let Some(attr) = replaced.filter(|attr| attr.nlink == 0) {
        w.tree_ref().forget(attr.ino);
    }
}

/// The deletion is acknowledged and lost: the name is there again, and must have its bytes.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_files_stage_file_stays_until_the_deletion_is_durable() {
    for loss in [Loss::Tails(1.0), Loss::Tails(0.0)] {
        let mut w = World::new().await;
        let old = w.create("ckpt", true).await;
        old.write(0, &pattern(1, 50_000), false).await.unwrap();
        old.fsync().await.unwrap();
        let new = w.create("new", true).await;
        new.write(0, &pattern(2, 50_000), false).await.unwrap();
        new.fsync().await.unwrap();
        w.close(old).await;
        w.close(new).await;
        rename(&w, "new", "ckpt").await;
        w.lose_power(0, loss).await;
        w.start().await;
        let content = w.content("ckpt").await;
        assert!(content == pattern(1, 50_000) || content == pattern(2, 50_000), "{} bytes", content.len());
        w.check().await;
    }
}

/// A file of holes alone is as long as it was made, though its first bytes make it outgrow the log.
#[tokio::test(flavor = "multi_thread")]
async fn a_durable_length_stays_when_a_file_outgrows_the_log() {
    let mut w = World::new().await;
    let file = w.create("f", false).await;
    w.close(file).await;
    w.stop().await;
    w.start().await;
    let file = w.open("f").await;
    file.truncate(3000).await.unwrap();
    w.tree_ref().sync().await.unwrap();
    file.write(0, &pattern(1, 100), false).await.unwrap();
    file.write(limits().small_file_bytes_max, b"x", false).await.unwrap();
    drop(file);
    w.lose_power(0, Loss::Tails(0.0)).await;
    w.start().await;
    assert!(w.attr("f").await.unwrap().size >= 3000);
    w.check().await;
}

/// And once it is durable nothing of it stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_files_stage_file_goes_in_the_end() {
    let w = World::new().await;
    w.write_new("f", &pattern(1, 50_000)).await;
    w.tree_ref().flush().await.unwrap();
    w.unlink("f").await;
    w.tree_ref().flush().await.unwrap();
    assert_eq!(fs::read_dir(w.stage_dir().join("files")).unwrap().count(), 0);
}

/// Two who sync one file: the second relies on the sync that is under way, and must wait for it.
#[tokio::test(flavor = "multi_thread")]
async fn who_comes_during_a_sync_waits_for_it() {
    let w = World::new().await;
    let file = w.create("f", true).await;
    file.write(0, &pattern(1, 50_000), false).await.unwrap();
    w.tree_ref().flush().await.unwrap();
    file.write(0, &pattern(2, 50_000), false).await.unwrap();
    w.disk.shut_gate(true);
    let mut first = std::pin::pin!(file.sync_stage());
    assert!(futures::poll!(first.as_mut()).is_pending());
    let mut second = std::pin::pin!(file.sync_stage());
    let waits = futures::poll!(second.as_mut()).is_pending();
    w.disk.shut_gate(false);
    assert!(waits, "nothing is durable yet");
    let (first, second) = futures::join!(first, second);
    first.unwrap();
    second.unwrap();
}

/// The same for who gave up waiting: its sync goes on, and may fail.
#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_nobody_waits_for_any_more_still_counts() {
    let w = World::new().await;
    let file = w.create("f", true).await;
    file.write(0, &pattern(1, 50_000), false).await.unwrap();
    w.disk.shut_gate(true);
    {
        let mut given_up = std::pin::pin!(file.sync_stage());
        assert!(futures::poll!(given_up.as_mut()).is_pending());
    }
    w.disk.sync_fails.store(true, SeqCst);
    let mut second = std::pin::pin!(file.sync_stage());
    let waits = futures::poll!(second.as_mut()).is_pending();
    w.disk.shut_gate(false);
    assert!(waits);
    assert_eq!(second.await.unwrap_err().kind(), Kind::Io);
}

/// Two who sync the folders of stage files, for different files.
#[tokio::test(flavor = "multi_thread")]
async fn who_comes_during_a_sync_of_the_folders_waits_for_it() {
    let w = World::new().await;
    let (a, b) = (w.create("a", true).await, w.create("b", true).await);
    a.write(0, b"a", false).await.unwrap();
    b.write(0, b"b", false).await.unwrap();
    let (shared, disk) = (&w.tree_ref().shared, &w.disk);
    disk.shut_gate(true);
    let sync = || {
        shared.files.sync_folders().unwrap();
        assert!(disk.has_durable_names(), "it returned too early");
    };
    std::thread::scope(|scope| {
        let first = scope.spawn(sync);
        disk.wait_until_held();
        let (begin, begun) = std::sync::mpsc::channel();
        let second = scope.spawn(move || {
            begin.send(()).unwrap();
            sync();
        });
        begun.recv().unwrap();
        disk.shut_gate(false);
        first.join().unwrap();
        second.join().unwrap();
    });
}

/// `granary sync` took everything to the store while the kernel had the file for writing; the stage file, which is the
/// content after a crash, must not be worth less than what was stored.
#[tokio::test(flavor = "multi_thread")]
async fn what_sync_stored_of_an_open_file_is_on_disk_as_well() {
    let mut w = World::new().await;
    let file = w.create("f", true).await;
    let backing = file.begin_passthrough(true).unwrap().unwrap();
    write_all(&*w.disk, &backing.file, &[], &pattern(1, 50_000), 0).unwrap();
    w.tree_ref().sync().await.unwrap();
    drop((file, backing));
    w.cut_power(usize::MAX, 0.0).await;
    assert_eq!(w.content("f").await, pattern(1, 50_000));
}

/// The number of a file whose creation was lost is given again: what the log has of the first is not the second's.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_file_never_gets_the_bytes_of_one_that_a_crash_took() {
    let mut w = World::new().await;
    w.meta().sync().await.unwrap();
    let lost = w.create("lost", false).await;
    let ino = lost.ino();
    lost.write(0, &pattern(1, 3000), false).await.unwrap();
    w.cut_power(0, 1.0).await;
    assert!(w.attr("lost").await.is_none());
    let new = w.create("new", false).await;
    assert_eq!(new.ino(), ino);
    w.meta().sync().await.unwrap();
    w.kill().await;
    assert_eq!(w.content("new").await, b"");
    w.check().await;
}

/// A disk that failed to keep the stage file, which is the content after a crash, is told, although the store has the bytes.
#[tokio::test(flavor = "multi_thread")]
async fn sync_tells_of_a_stage_file_that_the_disk_did_not_keep() {
    let w = World::new().await;
    let file = w.create("f", true).await;
    file.write(0, &pattern(1, 50_000), false).await.unwrap();
    w.close(file).await;
    w.disk.sync_fails.store(true, SeqCst);
    assert_eq!(w.tree_ref().sync().await.unwrap_err().kind(), Kind::Io);
    assert_eq!(w.memory_store.count(), 1, "it was stored all the same");
}

/// What was durable for long because the committer came by must not go when the file outgrows the log.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_outgrows_the_log_keeps_what_was_durable_in_it() {
    let mut w = World::new().await;
    let file = w.create("f", false).await;
    file.write(0, &pattern(1, 6000), false).await.unwrap();
    tick(&w.tree_ref().shared).await.unwrap();
    file.write(6000, &pattern(2, 6000), false).await.unwrap();
    w.cut_power(usize::MAX, 0.0).await;
    let content = w.content("f").await;
    assert!(content.len() >= 6000 && content[..6000] == pattern(1, 6000), "{} bytes", content.len());
}

/// Bytes added to the end of a sparse stage file are named by the metadata before they are on disk.
#[tokio::test(flavor = "multi_thread")]
async fn lost_bytes_of_a_sparse_stage_file_cut_the_file_and_are_not_zeros() {
    let mut w = World::new().await;
    w.write_new("f", &pattern(1, 50_000)).await;
    w.tree_ref().sync().await.unwrap();
    w.restart_from_the_store().await;
    let file = w.open("f").await;
    file.write(50_000, &pattern(2, 10_000), false).await.unwrap();
    file.write(60_000, &pattern(3, 10_000), false).await.unwrap();
    tick(&w.tree_ref().shared).await.unwrap(); // names the new bytes durably, and the log is durable
    for seed in 0..12 {
        w.lose_power(usize::MAX, Loss::Random(seed)).await;
        w.start().await;
        let all = [pattern(1, 50_000), pattern(2, 10_000), pattern(3, 10_000)].concat();
        let content = w.content("f").await;
        assert!(content.len() >= 50_000 && all.starts_with(&content), "seed {seed}: {} bytes", content.len());
    }
    w.check().await;
}

/// A second write into a page whose first change is durable: the log's record of it survives, the page does not. Where the
/// write was there are the store's bytes then, not zeros.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_page_of_a_sparse_stage_file_shows_the_older_bytes() {
    for (loss, lost) in [(Loss::Tails(0.0), true), (Loss::Tails(1.0), false)] {
        let mut w = World::new().await;
        w.write_new("f", &pattern(1, 50_000)).await;
        w.write_new("other", b"x").await;
        w.tree_ref().sync().await.unwrap();
        w.restart_from_the_store().await;
        let (file, other) = (w.open("f").await, w.open("other").await);
        let mut expected = pattern(1, 50_000);
        for at in [8192, 45_000] {
            file.write(at as u64, b"first", false).await.unwrap();
            expected[at..at + 5].copy_from_slice(b"first");
        }
        file.fsync().await.unwrap();
        file.write(9000, b"second", false).await.unwrap();
        file.write(40_000, b"third", false).await.unwrap();
        if !lost {
            expected[9000..9006].copy_from_slice(b"second");
            expected[40_000..40_005].copy_from_slice(b"third");
        }
        other.write(0, b"y", false).await.unwrap();
        w.tree_ref().shared.log.sync(&w.tree_ref().shared.runtime).await.unwrap();
        drop((file, other));
        w.lose_power(0, loss).await;
        w.start().await;
        assert!(w.content("f").await == expected, "{loss:?}");
        assert_eq!(w.content("other").await, b"y", "{loss:?}");
        w.check().await;
    }
}

/// A process that is killed between writing to a stage file and saying so leaves bytes that no record knows: nothing else is
/// given up for them.
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_in_the_middle_of_a_write_takes_nothing_that_was_written_before() {
    let mut w = World::new().await;
    w.write_new("f", &pattern(1, 50_000)).await;
    w.tree_ref().sync().await.unwrap();
    w.restart_from_the_store().await;
    let file = w.open("f").await;
    file.write(8192, b"first", false).await.unwrap();
    drop(file);
    let path = fs::read_dir(w.stage_dir().join("sparse")).unwrap().next().unwrap().unwrap().path();
    let stage = fs::OpenOptions::new().write(true).open(path).unwrap();
    write_all(&*w.disk, &stage, &[], b"torn", 8500).unwrap();
    w.kill().await;
    let mut expected = pattern(1, 50_000);
    expected[8192..8197].copy_from_slice(b"first");
    assert!(w.content("f").await == expected);
    w.check().await;
}

/// A write over bytes that no commit named yet: if it is lost alone, the file must not end where it began.
#[tokio::test(flavor = "multi_thread")]
async fn a_rewrite_within_one_commit_is_lost_whole_or_not_at_all() {
    let mut w = World::new().await;
    let file = w.create("f", false).await;
    w.write_new("other", b"x").await;
    file.write(0, &pattern(1, 3678), false).await.unwrap();
    let other = w.open("other").await;
    other.fsync().await.unwrap(); // and the log with it, as far as it is
    w.close(other).await;
    file.write(2845, &pattern(2, 3872), false).await.unwrap();
    w.close(file).await;
    w.up().volume.flush().unwrap(); // written, not durable
    w.lose_power(usize::MAX, Loss::Tails(0.0)).await;
    w.start().await;
    let both = [&pattern(1, 3678)[..2845], &pattern(2, 3872)].concat();
    let content = w.content("f").await;
    assert!(content == pattern(1, 3678) || content == both, "{} bytes", content.len());
    w.check().await;
}
