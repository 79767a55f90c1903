//! `granary fsck`, `gc`, `meta backup` and `meta restore` without a mount: with a node, without one, and what is refused.

#![allow(clippy::unwrap_used)] // test code, though not inside a #[test] function
mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use common::{World, as_daemon, exists, open_to_daemon};
use granary_core::id::object_key;
use granary_core::{NamespaceId, ObjectId, ObjectKind};
use granary_tests::until;

/// An object that nobody named, in the first namespace.
fn leftover(world: &World, n: u128) -> std::path::PathBuf {
    let path = world.path("store").join(object_key(NamespaceId(1), ObjectKind::Pack, ObjectId(n)));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, b"left by a crash").unwrap();
    path
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn through_the_node_and_without_one_the_same_is_found() {
    let world = World::with_volume();
    world.run(&["ns", "create", "user/alice"]).unwrap_ok();
    let path = leftover(&world, 7);
    let check = || {
        let text = world.run(&["fsck"]).unwrap_ok();
        assert!(text.contains("user/alice") && text.contains("everything is there and agrees"), "{text}");
        assert!(text.contains("1 objects in the store") && text.contains("granary gc"), "{text}");
        let report = json(&world.run(&["fsck", "user/alice", "--data", "--json"]).unwrap_ok());
        assert_eq!(report["namespaces"][0]["unnamed_objects"], 1);
        let text = world.run(&["gc"]).unwrap_ok();
        assert!(text.contains("may be on its way (kept)") && text.contains("there is no garbage"), "{text}");
        let text = world.run(&["gc", "--grace", "0s"]).unwrap_ok();
        assert!(text.contains("1 objects of 15 B are garbage; --delete deletes them"), "{text}");
        world.run(&["fsck", "user/none"]).refused(1, &["no namespace user/none"]);
        assert!(exists(&path));
    };
    check();
    let node = world.node();
    check();
    let text = world.run(&["gc", "--delete", "--grace", "0s"]).unwrap_ok();
    assert!(text.contains("1 objects of 15 B were deleted") && !exists(&path), "{text}");
    assert_eq!(node.stop().code, 0);
    let path = leftover(&world, 8);
    let report = json(&world.run(&["gc", "--delete", "--grace", "0s", "--json"]).unwrap_ok());
    assert_eq!(
        (&report["heaps"][0]["why"], &report["heaps"][0]["deleted_objects"]),
        (&"unnamed".into(), &1.into())
    );
    assert_eq!(report["objects"][0]["bytes"], 15);
    assert!(!exists(&path));
}

#[test]
fn what_is_not_allowed_or_makes_no_sense_is_refused() {
    let world = World::with_volume();
    world.run(&["gc", "--grace", "soon"]).refused(2, &["--grace", "soon"]);
    world.run(&["gc", "--grace", "4000d"]).refused(2, &["ten years"]);
    world.run(&["fsck", "--data", "--quick"]).refused(2, &["--quick"]);
    world.run(&["fsck", "alice"]).refused(2, &["alice"]);
    let service = ["--meta", "http://127.0.0.1:1"];
    for command in [&["fsck"][..], &["gc"], &["meta", "backup", "/dev/null/x"]] {
        let ran = world.run(&[command, &service].concat());
        assert!(
            ran.code == 1 && (ran.err.contains("stop it for the time") || ran.err.contains("/dev/null")),
            "{}",
            ran.err
        );
    }
    let node = world.node();
    open_to_daemon(&world);
    for command in [&["fsck"][..], &["gc"], &["meta", "backup", "/tmp/granary-nobody"]] {
        as_daemon(&world, command).refused(1, &["only root may", "sudo"]);
    }
    assert!(!exists("/tmp/granary-nobody".as_ref()) && !exists("/tmp/granary-nobody.partial".as_ref()));
    drop(node);
}

/// The node at the socket is of another volume than --meta names.
#[test]
fn another_volumes_node_is_not_asked() {
    let (world, other) = (World::with_volume(), World::with_volume());
    other.run(&["ns", "create", "user/other"]).unwrap_ok();
    let node = world.node();
    let meta = other.meta();
    let text = world.run(&["fsck", "--meta", meta.to_str().unwrap()]).unwrap_ok();
    assert!(text.contains("user/other"), "{text}");
    assert_eq!(node.stop().code, 0);
}

#[test]
fn a_backup_comes_back_as_it_was() {
    let world = World::with_volume();
    world.run(&["ns", "create", "user/alice", "--bytes-max", "1TiB"]).unwrap_ok();
    let file = world.path("saved");
    let name = file.to_str().unwrap();
    assert!(world.run(&["meta", "backup", name]).unwrap_ok().starts_with("saved "));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let cold = fs::read(&file).unwrap();
    let node = world.node();
    world.run(&["ns", "create", "user/bob"]).unwrap_ok();
    world.run(&["meta", "backup", name]).unwrap_ok();
    let live = fs::read(&file).unwrap();
    assert!(live.len() > cold.len());
    world.run(&["meta", "restore", name]).refused(1, &["is not empty", "new folder"]);
    assert_eq!(node.stop().code, 0);

    let restore = |file: &std::path::Path, to: &str| {
        let to = world.path(to);
        world.run(&["meta", "restore", file.to_str().unwrap(), "--meta", to.to_str().unwrap()])
    };
    let text = restore(&file, "meta2").unwrap_ok();
    assert!(text.contains("granary fsck --meta") && text.contains("what was changed since"), "{text}");
    let list = |meta: &str| {
        json(&world.run(&["ns", "list", "--json", "--meta", world.path(meta).to_str().unwrap()]).unwrap_ok())
    };
    assert_eq!(list("meta2"), list("meta"));
    assert_eq!(list("meta2").as_array().unwrap().len(), 2);
    world.run(&["fsck", "--meta", world.path("meta2").to_str().unwrap()]).unwrap_ok();
    fs::write(world.path("cold"), cold).unwrap();
    restore(&world.path("cold"), "meta3").unwrap_ok();
    assert_eq!(list("meta3").as_array().unwrap().len(), 1);

    for (what, bytes) in [
        ("cut", live[..live.len() - 9].to_vec()),
        ("flipped", {
            let mut bytes = live.clone();
            bytes[live.len() / 2] ^= 4;
            bytes
        }),
    ] {
        let damaged = world.path(what);
        fs::write(&damaged, bytes).unwrap();
        restore(&damaged, "meta4").refused(1, &[damaged.to_str().unwrap(), "damaged", "use another"]);
        assert!(!exists(&world.path("meta4")) && !exists(&world.path("meta4.restoring")));
    }
    restore(&world.path("nowhere"), "meta4").refused(1, &["nowhere", "No such file"]);
    world.run(&["meta", "restore"]).refused(2, &["--from-store"]);
}

#[test]
fn metadata_is_made_anew_from_the_store() {
    let world = World::with_volume();
    let to = world.path("meta2");
    let rebuild = ["rebuild", "--store", &world.store_url(), "--meta", to.to_str().unwrap()];
    world.run(&["rebuild", "--meta", to.to_str().unwrap()]).refused(2, &["--store"]);
    let nothing = format!("file://{}", world.dir.path().display());
    world
        .run(&["rebuild", "--store", &nothing, "--meta", to.to_str().unwrap()])
        .refused(1, &["no granary volume"]);
    // No object of granary's: told, and left out.
    let path = leftover(&world, 7);
    let ran = world.run(&rebuild);
    ran.refused(1, &["1 object could not be read"]);
    assert!(
        ran.out.contains("dataset/rebuilt-00000001")
            && ran.out.contains("magic") | ran.out.contains("damaged"),
        "{ran:?}"
    );
    fs::remove_file(path).unwrap();
    world.run(&rebuild).refused(1, &["is not empty"]);
    let list = world.run(&["ns", "list", "--meta", to.to_str().unwrap()]).unwrap_ok();
    assert!(list.contains("dataset/rebuilt-00000001"), "{list}");
}

#[test]
fn the_node_saves_the_metadata_in_the_store_by_itself() {
    let world = World::with_volume();
    world.run(&["ns", "create", "user/alice"]).unwrap_ok();
    let node = world.try_node(&["--meta-backup-interval-ms", "50ms", "--meta-backups-max", "2"]).unwrap();
    let saved = || -> Vec<String> {
        let folders = fs::read_dir(world.path("store/meta-backup")).into_iter().flatten().flatten();
        let complete = folders.filter(|f| f.path().join("complete").exists());
        complete.map(|f| f.file_name().into_string().unwrap()).collect()
    };
    until("the first is there", || !saved().is_empty());
    let first = saved();
    for name in ["user/bob", "user/carol", "user/dave"] {
        let before = saved();
        world.run(&["ns", "create", name]).unwrap_ok();
        until("another is there", || saved().iter().any(|s| !before.contains(s)));
    }
    until("two are kept, and not the first", || saved().len() == 2 && !saved().contains(&first[0]));
    // One that began before the last namespace was made may have come after it.
    let (url, mut tries) = (world.store_url(), 0);
    until("what was made last is saved", || {
        tries += 1;
        let to = world.path(&format!("try-{tries}"));
        let to = to.to_str().unwrap();
        // It may go while it is read.
        world.run(&["meta", "restore", "--from-store", &url, "--meta", to]).code == 0
            && world.run(&["ns", "list", "--meta", to]).unwrap_ok().contains("user/dave")
    });
    assert_eq!(node.stop().code, 0);

    let to = world.path("meta2");
    let restore = ["meta", "restore", "--from-store", &url, "--meta", to.to_str().unwrap()];
    world
        .run(&[&restore[..], &["--at", "1990-01-01"]].concat())
        .refused(1, &["no such backup", "the newest of"]);
    world.run(&[&restore[..], &["--at", "soon"]].concat()).refused(2, &["--at", "2026-01-31T12:00"]);
    assert!(world.run(&restore).unwrap_ok().contains("restored"));
    let list = world.run(&["ns", "list", "--meta", to.to_str().unwrap()]).unwrap_ok();
    assert!(list.contains("user/dave"), "{list}");
    world.run(&["fsck", "--meta", to.to_str().unwrap()]).unwrap_ok();
}
