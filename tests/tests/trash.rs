//! The trash, through real mounts: what goes there, comes back with `mv`, and goes for good.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

use granary_core::{Clock, SystemClock};
use granary_tests::{Cluster, Node, StoreKind, read_tree, run_ok, until};

/// Nothing leaves for the store by itself, and what is dead in it goes at once.
const SETTINGS: [(&str, &str); 3] = [
    ("GRANARY_SMALL_PERIOD_MS", "3600000"),
    ("GRANARY_LARGE_PERIOD_MS", "3600000"),
    ("GRANARY_DEAD_OBJECT_GRACE_MS", "1000"),
];

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("a listing");
    let mut all: Vec<String> =
        entries.map(|e| e.expect("an entry").file_name().into_string().expect("utf-8")).collect();
    all.sort();
    all
}

/// The hour that it is, by which the trash keeps things apart.
fn hour() -> i64 {
    SystemClock.now().secs / 3600
}

/// Does this within one hour: again from the beginning, on a node of its own, where it met the turn of one.
fn within_an_hour(test: impl Fn()) {
    loop {
        let began = hour();
        let ended = catch_unwind(AssertUnwindSafe(&test));
        if hour() == began {
            return ended.unwrap_or_else(|e| resume_unwind(e));
        }
    }
}

/// The directory of an hour in which something lies at `path`.
fn hour_with(mount: &Path, path: &str) -> Option<PathBuf> {
    let trash = mount.join(".trash");
    names(&trash).into_iter().map(|hour| trash.join(hour)).find(|hour| hour.join(path).exists())
}

fn usage(node: &Node, namespace: &str) -> (u64, u64) {
    let shown: serde_json::Value =
        serde_json::from_str(&node.ok(&["ns", "show", namespace, "--json"])).expect("JSON");
    let of = |name: &str| shown["usage"][name].as_u64().expect("a number");
    (of("bytes"), of("trash_bytes"))
}

#[test]
fn a_removed_tree_comes_back_with_mv() {
    within_an_hour(removed_and_brought_back);
}

fn removed_and_brought_back() {
    let mut node = Node::with_settings(StoreKind::Folder, &SETTINGS);
    let dir = node.mount("user/alice", "");
    let data = dir.join("project/data");
    fs::create_dir_all(data.join("deep")).expect("mkdir");
    fs::set_permissions(&data, fs::Permissions::from_mode(0o750)).expect("chmod");
    for i in 0..20_u8 {
        fs::write(data.join(format!("deep/{i}")), vec![i; 1000 + usize::from(i)]).expect("write");
    }
    fs::write(data.join("large"), (0..3 << 20).map(|i: u32| (i % 251) as u8).collect::<Vec<_>>())
        .expect("write");
    node.sync(&dir);
    // What came later is not in the store, and comes back all the same.
    let mut tail = fs::OpenOptions::new().append(true).open(data.join("deep/3")).expect("open");
    tail.write_all(b"not uploaded yet").expect("write");
    drop(tail);
    fs::write(dir.join("temporary"), "never in the store").expect("write");
    let before = read_tree(&data);
    let total = (0..20).map(|i| 1000 + i).sum::<u64>() + (3 << 20) + 16 + 18;
    until("all is committed", || usage(&node, "user/alice") == (total, 0));

    run_ok("rm -rf $1 $2", &[&data, &dir.join("temporary")]);
    assert_eq!(names(&dir), ["project"]);
    assert!(names(&dir.join("project")).is_empty());
    until("all are closed and in the trash", || usage(&node, "user/alice") == (0, total - 18));
    let hour = hour_with(&dir, "project/data/large").expect("it is in the trash");
    assert_eq!(names(&hour), ["project"]);
    assert_eq!(fs::metadata(hour.join("project/data")).expect("stat").mode() & 0o777, 0o750);
    assert!(read_tree(&hour.join("project/data")) == before, "it is not what it was");
    node.ok(&["fsck", "user/alice", "--data"]);

    // Another machine would see the same, from the store alone but for what is staged.
    let dir = node.come_back_from_the_store(&dir, "user/alice", "");
    let denied = |e: std::io::Error| assert_eq!(e.raw_os_error(), Some(libc::EPERM), "{e}");
    denied(fs::write(hour.join("new"), "x").expect_err("nothing is made in the trash"));
    denied(fs::create_dir(dir.join(".trash/new")).expect_err("nothing is made in the trash"));
    denied(fs::rename(dir.join("project"), hour.join("p")).expect_err("nothing is moved to the trash"));
    run_ok("mv $1/project/data $2/project/", &[&hour, &dir]);
    assert!(read_tree(&dir.join("project/data")) == before, "it is not what it was");
    assert_eq!(usage(&node, "user/alice"), (total - 18, 0));
    node.ok(&["fsck", "user/alice"]);
    // As usable as any other.
    fs::write(dir.join("project/data/new"), "x").expect("write");
    fs::remove_file(dir.join("project/data/deep/7")).expect("unlink");
    until("it goes there with its last close", || hour_with(&dir, "project/data/deep/7").is_some());
    node.umount(&dir);
    node.stop();
}

#[test]
fn an_open_file_and_a_replaced_one() {
    within_an_hour(|| open_and_replaced(""));
}

/// Where the kernel tells of no opens, what it knows counts as open.
#[test]
fn an_open_file_and_a_replaced_one_in_mode_data() {
    within_an_hour(|| open_and_replaced("mode=data"));
}

fn open_and_replaced(options: &str) {
    let node = Node::with_settings(StoreKind::Folder, &SETTINGS);
    let dir = node.mount("user/alice", options);
    for name in ["open", "old", "new"] {
        fs::write(dir.join(name), format!("content of {name}")).expect("write");
    }
    node.sync(&dir);
    let open = fs::File::open(dir.join("open")).expect("open");
    fs::remove_file(dir.join("open")).expect("unlink");
    assert_eq!(open.metadata().expect("stat").nlink(), 0);
    assert!(hour_with(&dir, "open").is_none());
    drop(open);
    until("it comes with its last close", || hour_with(&dir, "open").is_some());
    fs::rename(dir.join("new"), dir.join("old")).expect("rename");
    until("the old one is there", || hour_with(&dir, "old").is_some());
    let hour = hour_with(&dir, "old").expect("it is there");
    assert_eq!(fs::read_to_string(hour.join("old")).expect("read"), "content of old");
    assert_eq!(fs::metadata(hour.join("old")).expect("stat").nlink(), 1);
    // Removed there, it is gone; the kernel has not kept what it knew.
    fs::remove_file(hour.join("old")).expect("unlink");
    assert!(!hour.join("old").exists());
    fs::remove_file(dir.join("old")).expect("unlink");
    until("the next one has the name", || hour.join("old").exists());
    assert_eq!(fs::read_to_string(hour.join("old")).expect("read"), "content of new");
}

#[test]
fn what_is_old_is_purged_and_its_objects_are_deleted() {
    let node = Node::with_settings(StoreKind::Folder, &SETTINGS);
    let dir = node.mount("user/alice", "");
    let remove_one = |name: &str| {
        fs::write(dir.join(name), vec![7; 10_000]).expect("write");
        node.sync(&dir);
        fs::remove_file(dir.join(name)).expect("unlink");
        until("it is in the trash", || usage(&node, "user/alice").1 == 10_000);
        assert!(!node.stored_objects().is_empty());
    };
    remove_one("a");
    node.ok(&["ns", "set", "user/alice", "--trash", "0"]);
    until("it is purged at once", || usage(&node, "user/alice") == (0, 0));
    until("its hour goes too", || names(&dir.join(".trash")).is_empty());
    until("its object is deleted", || node.stored_objects().is_empty());
    fs::write(dir.join("b"), "x").expect("write");
    node.sync(&dir);
    fs::remove_file(dir.join("b")).expect("unlink");
    until("without a trash it is gone", || node.stored_objects().is_empty());
    assert!(names(&dir.join(".trash")).is_empty());
    node.ok(&["ns", "set", "user/alice", "--trash", "1d"]);
    remove_one("c");
    node.ok(&["ns", "set", "user/alice", "--trash", "1s"]);
    until("it is purged after a second", || node.stored_objects().is_empty());
    until("its hour goes too", || names(&dir.join(".trash")).is_empty());
    node.ok(&["fsck"]);
    node.fails(&["ns", "set", "user/alice", "--trash", "5ms"], "give 0 for no trash");
    let shown = node.ok(&["ns", "show", "user/alice"]);
    assert!(shown.lines().any(|line| line.split_whitespace().eq(["trash", "1", "s"])), "{shown}");
}

#[test]
fn two_nodes_share_one_trash() {
    within_an_hour(removed_by_two_nodes);
}

fn removed_by_two_nodes() {
    let cluster = Cluster::new(2);
    let mounts = cluster.mount("");
    fs::create_dir(mounts[0].join("d")).expect("mkdir");
    for name in ["f", "g"] {
        fs::write(mounts[0].join("d").join(name), format!("content of {name}")).expect("write");
    }
    cluster.nodes[0].sync(&mounts[0]);
    assert!(names(&mounts[0].join(".trash")).is_empty());
    fs::remove_file(mounts[1].join("d/f")).expect("unlink");
    until("the other sees it in the trash", || hour_with(&mounts[0], "d/f").is_some());
    fs::remove_file(mounts[0].join("d/g")).expect("unlink");
    for mount in &mounts {
        until("both see both", || hour_with(mount, "d/g").is_some());
        let hour = hour_with(mount, "d/f").expect("it is there");
        assert_eq!(fs::read_to_string(hour.join("d/f")).expect("read"), "content of f");
    }
    let hour = hour_with(&mounts[1], "d/f").expect("it is there");
    fs::remove_dir(mounts[1].join("d")).expect("rmdir");
    run_ok("mv $1/d $2/", &[&hour, &mounts[1]]);
    assert_eq!(names(&mounts[0].join("d")), ["f", "g"]);
    assert!(hour_with(&mounts[0], "d").is_none());
    fs::write(mounts[0].join("d/h"), "more").expect("write");
    assert_eq!(fs::read_to_string(mounts[1].join("d/h")).expect("read"), "more");
}
