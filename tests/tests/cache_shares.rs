//! What a namespace has of the read cache for itself, on real mounts: others read much, and its minimum stays.

use std::fs;
use std::path::{Path, PathBuf};

use granary_tests::{Node, StoreKind, drop_page_cache, until};
use serde_json::Value;

const MIB: u64 = 1 << 20;
const FILE_BYTES: usize = 3 << 19;
/// Files of each namespace: two that fit the cache together, and one that is twice as large.
const SPACES: [(&str, usize); 3] = [("dataset/kept", 14), ("dataset/plain", 8), ("dataset/scanned", 80)];
/// Files of the scan that are read twice, one group after the other: so each has a claim to the place of what is idle.
const GROUP: usize = 10;

fn content(i: usize) -> Vec<u8> {
    (0..FILE_BYTES).map(|n| (n * 31 + n / 251 + i * 7) as u8).collect()
}

fn read(dir: &Path, files: std::ops::Range<usize>) {
    for i in files {
        assert!(fs::read(dir.join(i.to_string())).expect("read") == content(i), "file {i}");
    }
}

/// What `granary status --json` says of each namespace.
fn of(node: &Node, namespace: &str) -> Value {
    let status = node.status();
    let mounts = status["mounts"].as_array().expect("a list");
    mounts.iter().find(|mount| mount["namespace"] == namespace).expect("it is mounted").clone()
}

fn cached_bytes(node: &Node, namespace: &str) -> u64 {
    of(node, namespace)["cached_bytes"].as_u64().expect("a number")
}

fn files_here(node: &Node, dir: &Path) -> u64 {
    let out = node.run(&["warmup", "--json", "--check", dir.to_str().expect("utf-8")]);
    let found: Value = serde_json::from_str(&out.stdout).unwrap_or_else(|e| panic!("{e}: {out:?}"));
    found[0]["files_here"].as_u64().expect("a number")
}

#[test]
fn a_minimum_survives_what_another_namespace_reads() {
    let mut node = Node::with_settings(
        StoreKind::Folder,
        &[
            ("GRANARY_LARGE_PERIOD_MS", "100"),
            ("GRANARY_CACHE_BYTES_MAX", "67108864"),
            ("GRANARY_CACHE_FREE_PERCENT_MIN", "0"),
            ("GRANARY_CACHE_SHARES", "dataset/kept=28MiB.., dataset/scanned=..1GiB"),
        ],
    );
    for (name, files) in SPACES {
        let dir = node.mount(name, "");
        (0..files).for_each(|i| fs::write(dir.join(i.to_string()), content(i)).expect("write"));
        node.sync(&dir);
        node.umount(&dir);
    }
    node.stop();
    node.empty_cache();
    node.start();
    let dirs: Vec<PathBuf> = SPACES.iter().map(|(name, _)| node.mount(name, "ro")).collect();
    let [(kept, kept_files), (plain, plain_files), (scanned, scanned_files)] = SPACES;

    read(&dirs[0], 0..kept_files);
    read(&dirs[1], 0..plain_files);
    // Who reads does not wait for the disk.
    until("what was read is kept", || {
        cached_bytes(&node, kept) >= (kept_files * FILE_BYTES) as u64
            && cached_bytes(&node, plain) >= (plain_files * FILE_BYTES) as u64
            && files_here(&node, &dirs[0]) == kept_files as u64
            && files_here(&node, &dirs[1]) == plain_files as u64
    });
    let before = cached_bytes(&node, kept);
    assert!(before < 28 * MIB, "{before}");
    assert_eq!((cached_bytes(&node, scanned), files_here(&node, &dirs[1])), (0, plain_files as u64));
    assert_eq!(of(&node, kept)["cache_bytes_min"].as_u64(), Some(28 * MIB));
    assert_eq!(of(&node, scanned)["cache_bytes_max"].as_u64(), Some(1024 * MIB));
    assert!(of(&node, plain)["cache_bytes_min"].is_null());

    for first in (0..scanned_files).step_by(GROUP) {
        read(&dirs[2], first..first + GROUP);
        drop_page_cache();
        read(&dirs[2], first..first + GROUP);
    }
    assert_eq!((cached_bytes(&node, kept), files_here(&node, &dirs[0])), (before, kept_files as u64));
    assert!(files_here(&node, &dirs[1]) < plain_files as u64, "what has no minimum made room");
    let all: u64 = SPACES.iter().map(|(name, _)| cached_bytes(&node, name)).sum();
    assert!(all <= 64 * MIB && cached_bytes(&node, scanned) > 0, "{all}");
    drop_page_cache();
    dirs.iter().zip(SPACES).for_each(|(dir, (_, files))| read(dir, 0..files));
}
