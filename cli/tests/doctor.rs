//! `granary doctor`: it tries what a node needs, and leaves nothing behind. Needs root and /dev/fuse, since it mounts.
#![allow(clippy::unwrap_used)] // test code, though not inside a #[test] function

mod common;

use common::World;
use serde_json::Value;

fn findings(out: &str) -> Vec<Value> {
    serde_json::from_str(out).unwrap()
}

fn state<'a>(findings: &'a [Value], what: &str) -> &'a str {
    let found = findings.iter().find(|finding| finding["what"] == what);
    found.unwrap_or_else(|| panic!("nothing of {what} in {findings:?}"))["state"].as_str().unwrap()
}

#[test]
fn a_machine_that_can_serve_a_volume() {
    let world = World::with_volume();
    let found = findings(&world.run(&["doctor", "--json"]).unwrap_ok());
    for what in ["mount", "cache", "cache room", "cache disk", "metadata", "store", "clock"] {
        assert_ne!(state(&found, what), "bad", "{what} in {found:?}");
    }
    assert_eq!(state(&found, "mount"), "good", "{found:?}");
    // Nothing is left in the store, in the cache, or mounted.
    let names = |dir: &str| -> Vec<String> {
        let entries = std::fs::read_dir(world.path(dir)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    assert!(!names("store").iter().any(|name| name.contains("probe")), "{:?}", names("store"));
    assert_eq!(names("cache"), [""; 0]);
    assert!(!std::fs::read_to_string("/proc/self/mounts").unwrap().contains("granary-doctor"));
}

#[test]
fn what_keeps_a_node_from_working_is_told() {
    let world = World::with_volume();
    std::fs::remove_dir_all(world.path("store")).unwrap();
    let ran = world.run(&["doctor", "--json"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    let found = findings(&ran.out);
    assert_eq!((state(&found, "store"), state(&found, "metadata")), ("bad", "good"), "{found:?}");

    let empty = World::empty();
    let ran = empty.run(&["doctor"]);
    assert!(ran.code == 0 && ran.out.contains("granary init"), "{ran:?}");
    let shm = tempfile::tempdir_in("/dev/shm").unwrap();
    let tmpfs = empty.run(&["doctor", "--cache", shm.path().join("cache").to_str().unwrap()]);
    assert!(tmpfs.code == 1 && tmpfs.out.contains("tmpfs"), "{tmpfs:?}");
}
