//! The node's disk and the store change bits that were written: what is read is right, or is an error that says where to look, and
//! never other bytes.
//!
//! In turn: objects in the store, the read cache, copies of uploaded files, and the log of what is not uploaded; of a node that is
//! stopped meanwhile, and of one that runs on.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use granary_tests::{Node, StoreKind, drop_page_cache, seed};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

const SMALL: usize = 20;
const LARGE: usize = 3;
const LARGE_BYTES: usize = 3 << 20;

struct Rig {
    node: Node,
    rng: StdRng,
    files: Vec<(String, Vec<u8>)>,
}

/// What reading everything came to.
#[derive(Debug, Default)]
struct Outcome {
    right: usize,
    failed: Vec<String>,
}

impl Rig {
    /// Nothing leaves for the store unless it is asked for.
    fn new() -> Rig {
        let settings = [
            ("GRANARY_SMALL_FILE_BYTES_MAX", "1048576"),
            ("GRANARY_SMALL_PERIOD_MS", "3600000"),
            ("GRANARY_LARGE_PERIOD_MS", "3600000"),
            ("GRANARY_COMPACTION_PERIOD_MS", "3600000"),
        ];
        let node = Node::with_settings(StoreKind::Folder, &settings);
        let mut rig = Rig { node, rng: StdRng::seed_from_u64(seed()), files: Vec::new() };
        let mnt = rig.mount();
        for i in 0..SMALL + LARGE {
            let large = i >= SMALL;
            let len = if large { LARGE_BYTES } else { rig.rng.random_range(1000..300_000) };
            let mut bytes = vec![0; len];
            rig.rng.fill_bytes(&mut bytes);
            let name = format!("f{i}{}", if large { ".bin" } else { "" });
            fs::write(mnt.join(&name), &bytes).expect("write");
            if i % 3 == 0 {
                // What is left of a record, or of a block.
                let (at, part) = (len / 3, b"written in the middle");
                let file = fs::OpenOptions::new().write(true).open(mnt.join(&name)).expect("open");
                file.write_all_at(part, at as u64).expect("pwrite");
                bytes[at..at + part.len()].copy_from_slice(part);
            }
            rig.files.push((name, bytes));
        }
        fs::File::open(&mnt).and_then(|dir| dir.sync_all()).expect("fsync");
        rig
    }

    fn mount(&self) -> PathBuf {
        self.node.mount("user/alice", "")
    }

    fn restart(&mut self, between: impl FnOnce(&mut Rig)) {
        self.node.stop();
        between(self);
        self.node.start();
        self.mount();
    }

    fn store(&self) {
        self.node.sync(&self.node.path("mnt-user-alice"));
    }

    /// Files below `dir` of the node's own, or of the store.
    fn files_below(&self, dir: &str, suffix: &str) -> Vec<PathBuf> {
        let (mut found, mut todo) = (Vec::new(), vec![self.node.path(dir)]);
        while let Some(dir) = todo.pop() {
            for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    todo.push(path);
                } else if path.to_string_lossy().ends_with(suffix) {
                    found.push(path);
                }
            }
        }
        found
    }

    /// Flips bits in each of them that has any.
    fn rot(&mut self, paths: &[PathBuf]) {
        assert!(!paths.is_empty(), "there is nothing to be damaged");
        for path in paths {
            let file = fs::OpenOptions::new().read(true).write(true).open(path).expect("open");
            let len = file.metadata().expect("stat").len();
            if len == 0 {
                continue; // the mark of a cache's folder
            }
            for _ in 0..self.rng.random_range(1..6) {
                let (at, mut byte) = (self.rng.random_range(0..len), [0]);
                file.read_exact_at(&mut byte, at).expect("pread");
                file.write_all_at(&[byte[0] ^ (1 << self.rng.random_range(0..8))], at).expect("pwrite");
            }
        }
        drop_page_cache();
    }

    /// Reads everything, whole and in parts: the right bytes, or an error.
    fn read(&mut self) -> Outcome {
        let mnt = self.node.path("mnt-user-alice");
        let mut outcome = Outcome::default();
        for (name, content) in &self.files {
            let path = mnt.join(name);
            let whole = fs::read(&path);
            match &whole {
                Ok(found) => {
                    assert!(found == content, "{name}: other bytes than those that were written");
                    outcome.right += 1;
                }
                Err(e) => {
                    assert_eq!(e.raw_os_error(), Some(libc::EIO), "{name}: {e}");
                    outcome.failed.push(name.clone());
                }
            }
            for _ in 0..8 {
                let (at, mut part) = (self.rng.random_range(0..content.len()), [0; 600]);
                let read = fs::File::open(&path).and_then(|file| file.read_at(&mut part, at as u64));
                if let Ok(n) = read {
                    assert!(part[..n] == content[at..at + n], "{name} at {at}: other bytes");
                }
            }
        }
        outcome
    }

    fn assert_told(&self, outcome: &Outcome, words: &[&str]) {
        let log = self.node.log();
        assert!(outcome.failed.is_empty() == words.is_empty(), "{outcome:?}");
        for word in words {
            assert!(log.contains(word), "nothing tells of {word:?}:\n{log}");
        }
    }
}

/// Objects have no other copy: what is damaged is named, also by fsck.
#[test]
fn in_the_store() {
    let mut rig = Rig::new();
    rig.store();
    let objects = rig.files_below("store/ns", "");
    rig.restart(|rig| {
        rig.node.empty_cache();
        let half: Vec<_> = objects.iter().step_by(2).cloned().collect();
        rig.rot(&half);
    });
    let outcome = rig.read();
    let damaged = objects[0].file_name().expect("a name").to_string_lossy().into_owned();
    rig.assert_told(&outcome, &["checksum"]);
    let report = rig.node.run(&["fsck", "--data"]);
    assert_eq!(report.code, Some(1), "{report:?}");
    assert!(report.stdout.contains(&damaged), "{report:?}");
}

/// The read cache is fetched again.
#[test]
fn in_the_read_cache() {
    for running in [false, true] {
        let mut rig = Rig::new();
        rig.store();
        rig.restart(|rig| rig.node.empty_cache());
        rig.read();
        let rot = |rig: &mut Rig| {
            let cached = rig.files_below("cache/read", "");
            rig.rot(&cached);
        };
        if running {
            rot(&mut rig)
        } else {
            rig.restart(rot)
        }
        let outcome = rig.read();
        rig.assert_told(&outcome, &[]);
    }
}

/// Copies of uploaded files are verified before they are read again: the store has the bytes.
#[test]
fn in_copies_of_uploaded_files() {
    let mut rig = Rig::new();
    rig.store();
    rig.restart(|rig| {
        let copies = rig.files_below("cache/stage/00000001/clean", "");
        assert_eq!(copies.len(), LARGE);
        rig.rot(&copies);
    });
    let outcome = rig.read();
    rig.assert_told(&outcome, &[]);
    assert_eq!(outcome.right, SMALL + LARGE);
}

/// The log has what is nowhere else: files in it are right, or an error that names them, and the others are as they were.
#[test]
fn in_the_log() {
    for running in [false, true] {
        let mut rig = Rig::new();
        let rot = |rig: &mut Rig| {
            let segments = rig.files_below("cache/stage/00000001/log", ".log");
            rig.rot(&segments);
        };
        if running {
            rot(&mut rig)
        } else {
            rig.restart(rot)
        }
        let outcome = rig.read();
        assert!(outcome.right >= LARGE, "{outcome:?}");
        if !outcome.failed.is_empty() {
            rig.assert_told(&outcome, &["damaged on this node's disk"]);
        }
    }
}
