//! `granary warmup` on real mounts: what it brought is read while the store has nothing.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use granary_tests::{Node, Output, StoreKind, drop_page_cache, run, until};
use serde_json::Value;

const SMALL: usize = 120;
const LARGE_BYTES: usize = 20 << 20;

fn content(i: usize) -> Vec<u8> {
    let len = if i == SMALL { LARGE_BYTES } else { 20_000 + i * 500 };
    (0..len).map(|n| (n * 31 + n / 251 + i * 7) as u8).collect()
}

fn name(i: usize) -> String {
    format!("train/d{}/f{i}", i % 4)
}

fn write_all(dir: &Path) {
    for i in 0..=SMALL {
        let path = dir.join(name(i));
        fs::create_dir_all(path.parent().expect("a parent")).expect("mkdir");
        fs::write(path, content(i)).expect("write");
    }
}

fn read_all(dir: &Path) {
    for i in (0..=SMALL).map(|i| (i * 37 + 11) % (SMALL + 1)) {
        let found = fs::read(dir.join(name(i))).unwrap_or_else(|e| panic!("file {i}: {e}"));
        assert!(found == content(i), "file {i}");
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("utf-8")
}

/// What `granary warmup --json` says, and how it ended.
fn warmup(node: &Node, args: &[&str]) -> (Vec<Value>, Option<i32>) {
    let out = node.run(&[&["warmup", "--json"], args].concat());
    let parsed = serde_json::from_str(&out.stdout);
    (parsed.unwrap_or_else(|e| panic!("{e}: {out:?}\n{}", node.log())), out.code)
}

/// Objects of a folder store, out of reach until they are put back.
fn hide(store: &Path) -> impl FnOnce() + use<> {
    let (from, to) = (store.join("ns"), store.join("hidden"));
    fs::rename(&from, &to).expect("rename");
    move || fs::rename(to, from).expect("rename")
}

/// A node that has a tree in its store only, and where it is mounted.
fn cold() -> (Node, PathBuf) {
    let mut node = Node::with_settings(
        StoreKind::Folder,
        &[("GRANARY_LARGE_PERIOD_MS", "100"), ("GRANARY_SMALL_PERIOD_MS", "100")],
    );
    let dir = node.mount("dataset/asr", "");
    write_all(&dir);
    let dir = node.come_back_from_the_store(&dir, "dataset/asr", "");
    (node, dir)
}

#[test]
fn a_tree_is_brought_looked_at_read_without_the_store_and_dropped() {
    let (node, dir) = cold();
    let tree = dir.join("train");
    let (before, code) = warmup(&node, &["--check", text(&tree)]);
    assert_eq!((code, before[0]["files"].as_u64()), (Some(1), Some(SMALL as u64 + 1)), "{before:?}");
    assert_eq!((before[0]["bytes_here"].as_u64(), before[0]["bytes_fetched"].as_u64()), (Some(0), Some(0)));
    node.fails(&["warmup", "--check", text(&tree)], "`granary warmup` fetches it");

    let bytes: u64 = (0..=SMALL).map(|i| content(i).len() as u64).sum();
    let (brought, code) = warmup(&node, &[text(&tree)]);
    let brought = &brought[0];
    assert_eq!(code, Some(0), "{brought}");
    assert_eq!((brought["bytes"].as_u64(), brought["bytes_here"].as_u64()), (Some(bytes), Some(bytes)));
    assert_eq!(brought["bytes_fetched"].as_u64(), Some(bytes), "each byte once: {brought}");
    let (again, code) = warmup(&node, &[text(&tree)]);
    assert_eq!((code, again[0]["bytes_fetched"].as_u64()), (Some(0), Some(0)));

    let put_back = hide(&node.path("store"));
    drop_page_cache();
    read_all(&dir);
    assert_eq!(warmup(&node, &["--check", text(&tree)]).1, Some(0));
    put_back();

    assert_eq!(warmup(&node, &["--evict", text(&tree)]).1, Some(0));
    let (dropped, code) = warmup(&node, &["--check", text(&tree)]);
    assert_eq!((code, dropped[0]["bytes_here"].as_u64()), (Some(1), Some(0)), "{dropped:?}");
    drop_page_cache();
    read_all(&dir);
}

#[test]
fn a_warmup_that_a_crash_ended_goes_on_where_it_was() {
    let (mut node, dir) = cold();
    let list: String = (0..SMALL / 2).map(|i| name(i) + "\n").collect();
    let file = node.path("list");
    fs::write(&file, list + &name(SMALL) + "\nno/such\n").expect("write");
    let (first, code) = warmup(&node, &["--files-from", text(&file), text(&dir)]);
    assert_eq!((code, first[0]["failed"].as_u64()), (Some(1), Some(1)), "one is not there: {first:?}");
    node.kill();
    node.start();
    let dir = node.mount("dataset/asr", "");
    let (second, code) = warmup(&node, &[text(&dir)]);
    assert_eq!(code, Some(0), "{second:?}");
    let fetched = |all: &[Value]| all[0]["bytes_fetched"].as_u64().expect("a number");
    let bytes: u64 = (0..=SMALL).map(|i| content(i).len() as u64).sum();
    assert!(fetched(&first) >= LARGE_BYTES as u64);
    assert_eq!(fetched(&first) + fetched(&second), bytes, "nothing was fetched twice");
    let put_back = hide(&node.path("store"));
    read_all(&dir);
    put_back();
}

#[test]
fn in_the_background_it_is_told_by_status_and_another_namespace_in_the_same_command() {
    let (mut node, dir) = cold();
    let other = node.mount("user/root", "");
    fs::write(other.join("one"), content(3)).expect("write");
    node.sync(&other);
    node.ok(&["warmup", "--background", text(&dir), text(&other)]);
    until("both warmups end", || {
        let status = node.status();
        let warmups = status["warmups"].as_array().expect("a list");
        warmups.len() == 2 && warmups.iter().all(|w| w["ended"] == true)
    });
    assert!(node.ok(&["warmup", "--list"]).contains("100 %"), "{}", node.ok(&["warmup", "--list"]));
    node.fails(&["warmup", "--cancel", "99"], "there is no warmup 99");
    let (both, code) = warmup(&node, &["--check", text(&dir), text(&other)]);
    assert_eq!((code, both.len()), (Some(0), 2), "{both:?}");
    node.fails(&["warmup", "/tmp"], "nothing of this node is mounted");
    node.stop();
}

/// A user's own copy of the binary, to run as that user: the test's directory, and the binary's, are root's alone.
struct Daemon {
    binary: PathBuf,
    uid: u32,
}

impl Daemon {
    fn new(node: &Node, home: &Path) -> Daemon {
        let uid = fs::metadata(home).map(|m| std::os::unix::fs::MetadataExt::uid(&m)).expect("stat");
        let (root, binary) = (node.path(""), node.path("granary"));
        chmod(&root, 0o755);
        fs::copy(node.command(&[]).get_program(), &binary).expect("copy");
        Daemon { binary, uid }
    }

    fn warmup(&self, node: &Node, args: &[&str]) -> Output {
        let command = node.command(&[&["warmup", "--json"], args].concat());
        let mut theirs = std::process::Command::new(&self.binary);
        theirs.args(command.get_args()).uid(self.uid).gid(self.uid);
        theirs.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        run(&mut theirs)
    }
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).expect("chmod");
}

#[test]
fn users_warm_what_they_may_read() {
    let node = Node::new(StoreKind::Folder);
    let dir = node.mount("user/daemon", "");
    let daemon = Daemon::new(&node, &dir);
    fs::write(dir.join("secret"), "x").expect("write"); // root's
    chmod(&dir.join("secret"), 0o600);
    fs::write(dir.join("plain"), "y").expect("write");
    let foreign = node.mount("dataset/asr", "");
    let out = daemon.warmup(&node, &["--check", text(&dir)]);
    let found: Value = serde_json::from_str(&out.stdout).unwrap_or_else(|e| panic!("{e}: {out:?}"));
    assert_eq!(
        (out.code, found[0]["files"].as_u64(), found[0]["denied"].as_u64()),
        (Some(1), Some(1), Some(1))
    );
    let out = daemon.warmup(&node, &["--check", text(&foreign)]);
    assert!(out.code == Some(1) && out.stderr.contains("nothing of this node is mounted"), "{out:?}");
}

/// Gives a file an access control list: owner, a user, the group, the mask, others; permissions as `chmod` has them.
fn set_acl(path: &Path, uid: u32, [owner, user, group, mask, others]: [u16; 5]) {
    let nobody = u32::MAX;
    let entries = [
        (1, owner, nobody),
        (2, user, uid),
        (4, group, nobody),
        (0x10, mask, nobody),
        (0x20, others, nobody),
    ];
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (tag, perm, id) in entries {
        list.extend(u16::to_le_bytes(tag));
        list.extend(u16::to_le_bytes(perm));
        list.extend(u32::to_le_bytes(id));
    }
    rustix::fs::setxattr(path, "system.posix_acl_access", &list, rustix::fs::XattrFlags::empty())
        .expect("setxattr");
}

#[test]
fn access_control_lists_give_and_take() {
    let node = Node::new(StoreKind::Folder);
    let dir = node.mount("user/daemon", "");
    let daemon = Daemon::new(&node, &dir);
    let at = |name: &str| dir.join(name);
    for name in ["given", "taken", "masked", "plain"] {
        fs::write(at(name), name).expect("write");
        chmod(&at(name), 0o600);
    }
    for name in ["closed", "open"] {
        fs::create_dir(at(name)).expect("mkdir");
        fs::write(at(name).join("file"), name).expect("write");
    }
    chmod(&at("plain"), 0o644);
    set_acl(&at("given"), daemon.uid, [6, 4, 0, 4, 0]);
    set_acl(&at("taken"), daemon.uid, [6, 0, 4, 4, 4]);
    set_acl(&at("masked"), daemon.uid, [6, 4, 0, 2, 0]);
    set_acl(&at("closed"), daemon.uid, [7, 0, 5, 5, 5]);
    set_acl(&at("open"), daemon.uid, [7, 5, 0, 5, 0]);
    node.sync(&dir);
    // What the kernel says, first: its word is what counts.
    let may_read = |name: &str| {
        let mut cat = std::process::Command::new("cat");
        run(cat.arg(at(name)).uid(daemon.uid).gid(daemon.uid)).code == Some(0)
    };
    let all = ["given", "taken", "masked", "plain", "closed/file", "open/file"];
    let readable: Vec<_> = all.into_iter().filter(|name| may_read(name)).collect();
    assert_eq!(readable, ["given", "plain", "open/file"]);
    let files = |args: &[&str]| {
        let out = daemon.warmup(&node, args);
        let found: Value = serde_json::from_str(&out.stdout).unwrap_or_else(|e| panic!("{e}: {out:?}"));
        let number = |key: &str| found[0][key].as_u64().expect("a number");
        (number("files"), number("denied"), number("failed"))
    };
    assert_eq!(files(&["--check", text(&dir)]), (3, 3, 0), "two files and a directory are not theirs");
    let list = node.path("list");
    fs::write(&list, all.join("\n")).expect("write");
    chmod(&list, 0o644);
    assert_eq!(
        files(&["--files-from", text(&list), text(&dir)]),
        (3, 2, 1),
        "what is in `closed` is not there"
    );
}

#[test]
fn a_pinned_tree_is_on_a_list_that_outlives_the_node() {
    let (mut node, dir) = cold();
    let tree = dir.join("train");
    assert_eq!(warmup(&node, &["--pin", text(&tree)]).1, Some(0));
    let pinned = |node: &Node| node.status()["pinned"].as_array().expect("a list").clone();
    let bytes = pinned(&node)[0]["bytes"].as_u64().expect("a number");
    assert!(bytes >= LARGE_BYTES as u64, "{:?}", pinned(&node));
    node.umount(&dir);
    node.stop();
    node.start();
    node.mount("dataset/asr", "");
    until("its chunks are pinned again", || pinned(&node)[0]["bytes"].as_u64() == Some(bytes));
    node.ok(&["warmup", "--unpin", text(&tree)]);
    assert!(pinned(&node).is_empty());
    node.fails(&["warmup", "--unpin", text(&tree)], "is not pinned by itself");
}
