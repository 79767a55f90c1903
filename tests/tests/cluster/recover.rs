//! The disk of a machine that is gone is put into another one: `granary recover` stores what only that disk has.

use std::fs::{self, File};
use std::path::Path;

use granary_tests::{Cluster, Node, StoreKind, fill, read_tree, seed};

/// Nothing leaves for the store by itself.
const NEVER: [(&str, &str); 2] =
    [("GRANARY_SMALL_PERIOD_MS", "3600000"), ("GRANARY_LARGE_PERIOD_MS", "3600000")];

/// Files of all sizes, acknowledged by fsync.
fn work(dir: &Path) {
    fill(dir, seed(), 200, 20_000);
    for (name, len) in [("large.bin", 20 << 20), ("outgrown", 3 << 20)] {
        fs::write(dir.join(name), vec![7; len]).expect("write");
    }
    File::open(dir).and_then(|dir| dir.sync_all()).expect("fsync");
    for entry in fs::read_dir(dir).expect("readdir") {
        File::open(entry.expect("entry").path()).and_then(|file| file.sync_all()).expect("fsync");
    }
}

fn recover(node: &Node, stage: &Path, more: &[&str]) -> granary_tests::Output {
    let mut args = vec!["recover", "--stage", stage.to_str().expect("utf-8")];
    args.extend(more);
    node.run(&args)
}

#[test]
fn a_stage_disk_is_recovered_on_another_machine() {
    let mut cluster = Cluster::with_settings(2, &NEVER);
    let mounts = cluster.mount("");
    work(&mounts[0]);
    let written = read_tree(&mounts[0]);
    fs::write(mounts[1].join("here"), "mine").expect("write");

    // Directories that are not what was meant.
    let (here, lost) = (&cluster.nodes[1], &cluster.nodes[0]);
    let refused = |dir: &Path, part: &str| {
        let out = recover(here, dir, &[]);
        assert!(out.code.is_some_and(|code| code == 1 || code == 2), "{out:?}");
        assert!(out.stderr.contains(part), "{out:?} does not say {part:?}");
    };
    refused(&here.path(""), "no node.json");
    refused(&here.path("none"), "no node.json");
    refused(&lost.path("cache"), "in use by another granary node");
    let mut other = Node::new(StoreKind::Folder);
    other.stop();
    refused(&other.path("cache"), "belongs to another volume");

    cluster.nodes[0].kill();
    let here = &cluster.nodes[1];
    let disk = here.path("old-disk");
    fs::rename(cluster.nodes[0].path("cache"), &disk).expect("rename");
    let out = recover(here, &disk, &["--json"]);
    assert_eq!(out.code, Some(0), "{out:?}\n{}", cluster.service.log());
    let report: serde_json::Value = serde_json::from_str(&out.stdout).expect("JSON");
    assert_eq!(report["clean"], true, "{report}");
    assert_eq!(report["namespaces"][0]["namespace"], "group/team", "{report}");
    assert!(report["namespaces"][0]["stored_bytes"].as_u64().expect("a number") > 23 << 20, "{report}");

    let mut there = read_tree(&mounts[1]);
    assert!(there.remove(Path::new("here")).is_some(), "what the other node wrote is there too");
    assert!(there == written, "the other node reads other bytes");
    let again = recover(here, &disk, &[]);
    assert!(again.code == Some(0) && again.stdout.contains("nothing is left in"), "{again:?}");
    // By now everything is in the store alone.
    fs::remove_dir_all(&disk).expect("remove");
    granary_tests::drop_page_cache();
    let mut there = read_tree(&mounts[1]);
    there.remove(Path::new("here"));
    assert!(there == written, "the other node reads other bytes without the disk");
}

#[test]
fn a_stage_disk_is_recovered_into_metadata_in_a_folder() {
    let mut node = Node::with_settings(StoreKind::Folder, &NEVER);
    let dir = node.mount("user/alice", "");
    work(&dir);
    let written = read_tree(&dir);
    let out = recover(&node, &node.path("cache"), &[]);
    assert!(out.code == Some(1) && out.stderr.contains("in use"), "{out:?}");
    node.kill();
    let disk = node.path("old-disk");
    fs::rename(node.path("cache"), &disk).expect("rename");
    let out = recover(&node, &disk.join("stage"), &[]);
    assert_eq!(out.code, Some(0), "{out:?}");
    assert!(out.stdout.contains("user/alice") && out.stdout.contains("not needed any more"), "{out:?}");
    let again = recover(&node, &disk, &[]);
    assert!(again.code == Some(0) && again.stdout.contains("nothing is left in"), "{again:?}");
    fs::remove_dir_all(&disk).expect("remove");
    node.start();
    let dir = node.mount("user/alice", "");
    assert!(read_tree(&dir) == written, "it reads other bytes");
    node.umount(&dir);
    node.stop();
}
