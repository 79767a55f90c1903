//! A large file whose bytes come from the store is read by the kernel itself once it was read through.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod rig;

use std::fs::{self, File};
use std::io::Read;

use granary_core::limits::Limits;
use granary_fuse::Op;
use rig::{Rig, Setup, pattern, until};

/// Opens, reads all, closes, with nothing of it in the page cache; how many READs it took.
fn read_cold(rig: &Rig, name: &str, bytes: &[u8]) -> u64 {
    let ((), made) = rig.requests(|| {
        let mut file = File::open(rig.at(name)).unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        let mut read = Vec::new();
        file.read_to_end(&mut read).unwrap();
        assert!(read == bytes);
    });
    made.iter().find(|(op, _)| *op == Op::Read).map_or(0, |(_, n)| *n)
}

#[test]
fn a_large_file_that_was_read_through_is_read_without_the_daemon() {
    let stage = tempfile::tempdir().unwrap();
    let limits = Limits {
        cache_bytes_max: 9 << 20,
        cache_free_bytes_min: 0,
        cache_free_percent_min: 0,
        ..Limits::default()
    };
    let rig = Rig::new(&Setup { stage_dir: Some(stage.path().into()), limits, ..Setup::default() });
    let copies = || {
        fs::read_dir(stage.path().join("clean")).unwrap().map(|e| e.unwrap().file_name()).collect::<Vec<_>>()
    };
    let (model, other) = (pattern(3 << 20, 1), pattern(3 << 20, 2));
    for (name, bytes) in [("model.pt", &model), ("other.pt", &other)] {
        fs::write(rig.at(name), bytes).unwrap();
        until("all is in the store", || {
            rig.runtime.block_on(rig.tree.sync()).unwrap();
            rig.tree.status().dirty_files == 0
        });
    }
    until("the older copy left: both take more than half of the cache", || copies().len() == 1);
    let others = copies();
    assert!(read_cold(&rig, "model.pt", &model) > 0, "its bytes come through the daemon");
    // What is read once pushes out no other file's copy; what is read again does, after it was closed.
    until("it has a local file of its own", || {
        read_cold(&rig, "model.pt", &model);
        rig.runtime.block_on(rig.tree.gathered());
        copies().len() == 1 && copies() != others
    });
    // Not while a handle is open whose reads come through the daemon: the kernel tells of its end after close(2) returned.
    until("it is read without the daemon", || read_cold(&rig, "model.pt", &model) == 0);
}
