//! The whole way of a file: in through a mount, out to the store, and back on a machine with an empty cache.

use std::fs;

use granary_tests::{Node, StoreKind, fill, read_tree, run_ok, seed};

/// Nothing leaves for the store by itself.
const NEVER: [(&str, &str); 2] =
    [("GRANARY_SMALL_PERIOD_MS", "3600000"), ("GRANARY_LARGE_PERIOD_MS", "3600000")];

fn comes_back_with_an_empty_cache(store: StoreKind, options: &str) {
    let seed = seed();
    // What `sync` stores is counted, and nothing that left before it, the more the slower the machine is.
    let mut node = Node::with_settings(store, &NEVER);
    let dir = node.mount("user/alice", options);
    fill(&dir, seed, 1_500, 20_000);
    // A large file that the kernel writes itself, one that outgrows the small limit, and a sparse one.
    run_ok(
        "cd $1; head -c 40000000 /dev/urandom >model.ckpt
         for i in $(seq 30); do head -c 100000 /dev/urandom; done >grows.log
         truncate -s 50M sparse.img; printf hello | dd of=sparse.img bs=1 seek=33000000 conv=notrunc status=none",
        &[&dir],
    );
    let before = read_tree(&dir);
    assert!(before.len() > 1_500);
    let dir = node.come_back_from_the_store(&dir, "user/alice", options);
    let after = read_tree(&dir);
    assert!(before == after, "the tree differs");
    if store == StoreKind::Folder {
        let objects = node.stored_objects().len();
        // 15 MB of small files, 45 MB of large ones in blocks of 15 MiB.
        assert!(objects <= 20, "{objects} objects");
    }
    node.umount(&dir);
    node.stop();
}

#[test]
fn over_a_folder() {
    comes_back_with_an_empty_cache(StoreKind::Folder, "");
}

#[test]
fn over_a_folder_in_data_mode() {
    comes_back_with_an_empty_cache(StoreKind::Folder, "rw,mode=data");
}

#[test]
fn over_ceph() {
    comes_back_with_an_empty_cache(StoreKind::S3, "");
}

/// Unmounting and ending the node without `sync` keeps all on the node's disk.
#[test]
fn a_clean_stop_keeps_what_is_not_in_the_store_yet() {
    let seed = seed();
    let mut node = Node::with_settings(StoreKind::Folder, &NEVER);
    let dir = node.mount("user/alice", "");
    fill(&dir, seed, 300, 10_000);
    run_ok("head -c 20000000 /dev/urandom >$1/big.bin", &[&dir]);
    let before = read_tree(&dir);
    node.stop();
    assert!(node.stored_objects().is_empty(), "the periods are an hour");
    node.start();
    let dir = node.mount("user/alice", "");
    assert!(before == read_tree(&dir), "the tree differs");
    node.sync(&dir);
    assert!(!node.stored_objects().is_empty());
}

/// A file deleted before its period is over is never uploaded; a rewritten one once.
#[test]
fn what_is_deleted_soon_is_never_uploaded() {
    let node = Node::with_settings(StoreKind::Folder, &[("GRANARY_SMALL_PERIOD_MS", "3600000")]);
    let dir = node.mount("user/alice", "");
    for i in 0..200 {
        fs::write(dir.join(format!("{i}")), vec![7; 50_000]).expect("write");
    }
    for i in 0..199 {
        fs::remove_file(dir.join(format!("{i}"))).expect("unlink");
    }
    for _ in 0..20 {
        fs::write(dir.join("199"), vec![8; 50_000]).expect("write");
    }
    node.sync(&dir);
    let bytes: u64 = node.stored_objects().iter().map(|p| fs::metadata(p).expect("stat").len()).sum();
    assert!((50_000..100_000).contains(&bytes), "{bytes} bytes were stored for one live file of 50,000");
}
