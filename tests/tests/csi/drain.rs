//! A node process that is told to end, as when its machine is drained.

use std::fs;
use std::path::Path;

use granary_tests::{Node, StoreKind};

/// Objects of namespaces in a store that is a folder.
fn objects(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| if entry.path().is_dir() { objects(&entry.path()) } else { 1 }).sum()
}

fn written_and_stopped(settings: &[(&str, &str)]) -> (Node, usize) {
    let settings = [&[("GRANARY_SMALL_PERIOD_MS", "3600000")], settings].concat();
    let mut node = Node::with_settings(StoreKind::Folder, &settings);
    let dir = node.mount("group/asr", "");
    fs::write(dir.join("file"), vec![7; 100_000]).expect("written");
    node.stop();
    let stored = objects(&node.path("store/ns"));
    (node, stored)
}

#[test]
fn what_only_the_node_has_goes_to_the_store_or_is_told() {
    let (mut kept, stored) = written_and_stopped(&[]);
    assert_eq!(stored, 0, "nobody asked it to wait");
    let told = kept.log();
    assert!(
        told.contains("group/asr") && told.contains("in 1 files are not in the store; they are kept"),
        "{told}"
    );
    kept.start();
    let dir = kept.mount("group/asr", "");
    assert_eq!(fs::read(dir.join("file")).expect("nothing is lost"), vec![7; 100_000]);

    let (given, stored) = written_and_stopped(&[("GRANARY_STOP_DRAIN_MS", "60000")]);
    assert!(stored > 0, "{}", given.log());
    assert!(!given.log().contains("are not in the store"), "{}", given.log());
}
