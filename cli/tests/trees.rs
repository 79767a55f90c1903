//! One tree of a namespace, mounted by itself: for a volume that is not to show the rest. Needs root and /dev/fuse.
#![allow(clippy::unwrap_used)] // test code, though not inside a #[test] function

mod common;

use std::fs;

use common::{Mountpoint, World};
use granary_core::Kind;
use serde_json::json;

#[test]
fn a_tree_is_mounted_and_nothing_beside_it() {
    let world = World::for_mounts();
    let _node = world.node();
    let (whole, tree, again) =
        (Mountpoint::new(&world, "whole"), Mountpoint::new(&world, "tree"), Mountpoint::new(&world, "again"));
    let mount = |tree: Option<&str>, dir: &Mountpoint, options: &str| {
        let body = json!({"namespace": "group/asr", "tree": tree, "dir": dir.text(), "options": options});
        world.post("/v1/mount", body).map(drop)
    };
    mount(None, &whole, "").unwrap();
    fs::create_dir_all(whole.0.join("corpora/2026")).unwrap();
    fs::write(whole.0.join("corpora/2026/a.wav"), "sound").unwrap();
    fs::write(whole.0.join("secret"), "x").unwrap();
    std::os::unix::fs::symlink("..", whole.0.join("corpora/out")).unwrap();
    std::os::unix::fs::symlink("/etc", whole.0.join("etc")).unwrap();

    mount(Some("corpora/2026"), &tree, "").unwrap();
    assert_eq!(fs::read(tree.0.join("a.wav")).unwrap(), b"sound");
    assert!(!tree.0.join("../secret").exists() && !tree.0.join("secret").exists());
    fs::write(tree.0.join("b.wav"), "more").unwrap();
    assert_eq!(fs::read(whole.0.join("corpora/2026/b.wav")).unwrap(), b"more");

    // What leads elsewhere, is a file, or is not there.
    for (bad, kind) in [
        ("etc", Kind::Invalid),
        ("corpora/out", Kind::Invalid),
        ("..", Kind::Invalid),
        ("corpora/2026/a.wav", Kind::NotDirectory),
        ("corpora/2027", Kind::NotFound),
    ] {
        let refused = mount(Some(bad), &again, "").unwrap_err();
        assert!(refused.is(kind), "{bad}: {refused:?}");
    }

    // The whole is gone; the tree goes on, a second one comes beside it, and a whole one again.
    let unmount = |dir: &Mountpoint| world.post("/v1/unmount", json!({"dir": dir.text()})).map(drop);
    unmount(&whole).unwrap();
    assert_eq!(fs::read(tree.0.join("b.wav")).unwrap(), b"more");
    mount(Some("corpora"), &again, "ro").unwrap();
    assert_eq!(fs::read(again.0.join("2026/b.wav")).unwrap(), b"more");
    let refused = fs::write(again.0.join("c"), "x").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    mount(None, &whole, "").unwrap();
    assert_eq!(fs::read(whole.0.join("secret")).unwrap(), b"x");
    let status: serde_json::Value =
        serde_json::from_str(&world.run(&["status", "--json"]).unwrap_ok()).unwrap();
    let told: Vec<_> =
        status["mounts"].as_array().unwrap().iter().map(|m| m["dir"].as_str().unwrap()).collect();
    assert_eq!(told.len(), 3, "the node's own mountpoint is nobody's: {told:?}");

    // With the last that somebody asked for, the node's own goes as well.
    for dir in [&tree, &whole, &again] {
        unmount(dir).unwrap();
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(world.path("").to_str().unwrap()), "{mounts}");
    mount(Some("corpora/2026"), &tree, "").unwrap();
    assert_eq!(fs::read(tree.0.join("a.wav")).unwrap(), b"sound");
    unmount(&tree).unwrap();
}
