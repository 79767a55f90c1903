//! Other ids at a pod's mount, and the same volume asked for otherwise.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use granary_tests::{Node, StoreKind, run_ok};
use tonic::Code;

use crate::driver::{Driver, Publish, target};

/// A command as somebody without any capability.
fn as_user(uid: u32, gid: u32, groups: &str, script: &str) -> String {
    let ids = [format!("--reuid={uid}"), format!("--regid={gid}"), groups.to_owned(), script.to_owned()];
    run_ok(r#"setpriv "$1" "$2" "$3" -- bash -euc "$4""#, &ids)
}

fn ids(path: &Path) -> (u32, u32) {
    let meta = fs::metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    (meta.uid(), meta.gid())
}

fn plain(volume: &str) -> Publish {
    Publish { volume: volume.to_owned(), ..Publish::default() }
}

#[test]
fn fs_group_shows_the_groups_files_as_the_pods() {
    let node = Node::new(StoreKind::Folder);
    node.ok(&["ns", "create", "group/asr", "--owner", "0", "--group", "300", "--mode", "2770"]);
    let all = node.mount("group/asr", "idmap");
    fs::write(all.join("old"), "old").expect("written");
    fs::set_permissions(all.join("old"), fs::Permissions::from_mode(0o660)).expect("modes");
    let driver = Driver::start(&node, &["--access", "none"]);
    let (one, two) = (target(&node, "one"), target(&node, "two"));
    driver.publish(&one, &Publish { fs_group: "2000", ..plain("group/asr") }).expect("published");
    driver.publish(&two, &Publish { fs_group: "3000", ..plain("group/asr") }).expect("for another, too");
    assert_eq!(
        (ids(&one.join("old")).1, ids(&two.join("old")).1, ids(&all.join("old")).1),
        (2000, 3000, 300)
    );
    // Neither owner nor, in the namespace's own terms, in the group.
    let made = as_user(
        1000,
        1000,
        "--groups=2000",
        &format!("cat {0}/old; umask 007; echo new > {0}/new; stat -c %u:%g {0}/new", one.display()),
    );
    assert_eq!(made, "old1000:2000\n");
    assert_eq!(ids(&all.join("new")), (1000, 300), "of the namespace's group for all others");
    as_user(1001, 0, "--groups=3000", &format!("grep -q new {0}/new; echo x > {0}/third", two.display()));
    assert_eq!(ids(&all.join("third")), (1001, 300));
    for dir in [&one, &two] {
        driver.unpublish(dir).expect("gone");
    }
    node.umount(&all);
}

#[test]
fn a_pod_acts_as_the_owner_and_as_nobody_else() {
    let node = Node::new(StoreKind::Folder);
    node.ok(&["ns", "create", "user/alice", "--owner", "5000", "--group", "5000", "--mode", "0700"]);
    let all = node.mount("user/alice", "idmap");
    fs::write(all.join("roots"), "secret").expect("written");
    fs::set_permissions(all.join("roots"), fs::Permissions::from_mode(0o600)).expect("modes");
    fs::create_dir(all.join("bob")).expect("a tree");
    std::os::unix::fs::chown(all.join("bob"), Some(6000), Some(6000)).expect("another's");
    fs::set_permissions(all.join("bob"), fs::Permissions::from_mode(0o700)).expect("modes");
    let driver = Driver::start(&node, &["--access", "none"]);
    let (dir, tree) = (target(&node, "pod"), target(&node, "tree"));
    driver.publish(&dir, &plain("user/alice").with("uid", "1000").with("gid", "1000")).expect("published");
    let shown = dir.display();
    let made =
        as_user(1000, 1000, "--clear-groups", &format!("echo x > {shown}/mine; stat -c %u:%g {shown}/mine"));
    assert_eq!((made.as_str(), ids(&all.join("mine"))), ("1000:1000\n", (5000, 5000)));
    let refused = format!("! cat {shown}/roots; ! ls {shown}/bob");
    as_user(1000, 1000, "--clear-groups", &refused);
    // Who is the owner elsewhere is nobody here, and makes nothing.
    as_user(5000, 5000, "--clear-groups", &format!("! ls {shown}; ! touch {shown}/other"));
    // A pod's author chooses the tree, and does not become whoever owns it.
    let below = plain("user/alice:bob").with("uid", "1000").with("gid", "1000");
    driver.publish(&tree, &below).expect("published");
    as_user(1000, 1000, "--clear-groups", &format!("! ls {}", tree.display()));
    for dir in [&dir, &tree] {
        driver.unpublish(dir).expect("gone");
    }
    node.umount(&all);
}

#[test]
fn another_mount_at_the_same_place_is_told_from_a_repetition() {
    let node = Node::new(StoreKind::Folder);
    node.ok(&["ns", "create", "group/asr", "--mode", "0777"]);
    let all = node.mount("group/asr", "idmap");
    for tree in ["a", "b"] {
        fs::create_dir(all.join(tree)).expect("a tree");
    }
    fs::write(all.join("a/file"), vec![7; 100_000]).expect("written");
    let driver = Driver::start(&node, &["--access", "none"]);
    let dir = target(&node, "pod");
    let asked = plain("group/asr:a");
    driver.publish(&dir, &asked).expect("published");
    driver.publish(&dir, &asked).expect("and again");
    for other in [
        plain("group/asr:b"),
        plain("group/asr"),
        plain("group/asr:a").with("gid", "7"),
        Publish { read_only: true, ..asked.clone() },
        Publish { fs_group: "2000", ..asked.clone() },
    ] {
        let refused = driver.publish(&dir, &other).expect_err("another");
        assert_eq!(refused.code(), Code::AlreadyExists, "{other:?}: {refused}");
    }
    driver.unpublish(&dir).expect("gone");
    // The pod starts when the tree is here.
    driver.publish(&dir, &plain("group/asr:a").with("warmup", "wait:file")).expect("published and brought");
    let status = node.status();
    let job = &status["warmups"][0];
    assert_eq!(
        (job["files"].as_u64(), job["files_here"].as_u64(), job["ended"].as_bool()),
        (Some(1), Some(1), Some(true))
    );
    driver.unpublish(&dir).expect("gone");
    let refused =
        driver.publish(&dir, &plain("group/asr:a").with("warmup", "wait:none")).expect_err("not there");
    assert_eq!(refused.code(), Code::Aborted, "{refused}");
    driver.unpublish(&dir).expect("gone");
    node.umount(&all);
}
