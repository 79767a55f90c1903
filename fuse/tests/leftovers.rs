//! What a mount leaves behind in its process: nothing. In a file of its own, since tests of one file share a process.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod rig;

use std::collections::BTreeMap;
use std::fs;

use granary_fuse::Stop;
use rig::{Rig, until, work};

/// The process's descriptors, by what they are of.
fn descriptors() -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir("/proc/self/fd").unwrap() {
        // The one that reads the directory is gone by now.
        if let Ok(target) = fs::read_link(entry.unwrap().path()) {
            *all.entry(target.to_string_lossy().into_owned()).or_default() += 1;
        }
    }
    all
}

/// Names of its threads that serve a mount; those of the cache are there as long as the tree.
fn threads() -> Vec<String> {
    const OURS: [&str; 3] = ["granary-mount", "granary-fuse", "granary-ring"];
    let names = fs::read_dir("/proc/self/task").unwrap().filter_map(|entry| {
        // It may have ended meanwhile.
        fs::read_to_string(entry.unwrap().path().join("comm")).ok()
    });
    names.filter(|name| OURS.iter().any(|ours| name.starts_with(ours))).collect()
}

fn use_it(rig: &Rig) {
    for i in 0..20 {
        fs::write(rig.at(&format!("f{i}")), vec![i; 3 << 18]).unwrap();
        assert_eq!(fs::read(rig.at(&format!("f{i}"))).unwrap().len(), 3 << 18);
    }
}

#[test]
fn after_the_unmount_no_thread_and_no_descriptor_is_left() {
    // What is made once in a process is made.
    let rig = work();
    use_it(&rig);
    rig.stop(Stop::Clean).unwrap();
    drop(rig);
    let before = descriptors();
    for how in [Stop::Clean, Stop::Lazy, Stop::Abort] {
        let rig = work();
        use_it(&rig);
        assert!(!threads().is_empty());
        rig.stop(how).unwrap();
        rig.runtime.block_on(rig.mounted().wait()).unwrap();
        // A thread that was joined is seen for a moment.
        until("its threads are gone", || threads().is_empty());
        drop(rig);
        assert_eq!(descriptors(), before, "{how:?}");
    }
}
