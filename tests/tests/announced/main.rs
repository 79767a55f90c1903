//! Programs that announce what they will read, from Python as a data loader would, on real mounts.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use granary_tests::{Node, StoreKind, drop_page_cache, run, until};
use serde_json::Value;

const ANNOUNCE: &str = include_str!("announce.py");
const FILES: usize = 80;
const FILE_BYTES: usize = 3 << 19;
/// An eighth of the cache is fetched ahead: 21 files and a third.
const CACHE_BYTES: &str = "268435456";

fn content(i: usize) -> Vec<u8> {
    (0..FILE_BYTES).map(|n| (n * 31 + n / 251 + i * 7) as u8).collect()
}

fn name(i: usize) -> String {
    format!("train/d{}/f{i}", i % 4)
}

/// The order of an epoch.
fn shuffled() -> Vec<usize> {
    (0..FILES).map(|i| (i * 37 + 11) % FILES).collect()
}

/// Runs Python with `announce` at hand; what it printed.
fn python(script: &str, uid: Option<u32>, args: &[&str]) -> String {
    let mut command = Command::new("python3");
    command.arg("-c").arg(format!("import sys\n{ANNOUNCE}\n{script}")).args(args);
    if let Some(uid) = uid {
        command.uid(uid).gid(uid);
    }
    let out = run(&mut command);
    assert_eq!(out.code, Some(0), "{out:?}");
    out.stdout.trim().to_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("utf-8")
}

/// Which of these files are on the node.
fn here(node: &Node, dir: &Path, files: &[usize]) -> Vec<bool> {
    let paths: Vec<PathBuf> = files.iter().map(|i| dir.join(name(*i))).collect();
    let args = ["warmup", "--json", "--check"].into_iter().chain(paths.iter().map(|path| text(path)));
    let out = node.run(&args.collect::<Vec<_>>());
    let found: Value = serde_json::from_str(&out.stdout).unwrap_or_else(|e| panic!("{e}: {out:?}"));
    found.as_array().expect("a list").iter().map(|file| file["files_here"] == 1).collect()
}

/// A node that has a tree in its store only, mounted read-only.
fn cold() -> (Node, PathBuf) {
    let mut node = Node::with_settings(
        StoreKind::Folder,
        &[
            ("GRANARY_LARGE_PERIOD_MS", "100"),
            ("GRANARY_CACHE_BYTES_MAX", CACHE_BYTES),
            ("GRANARY_CACHE_FREE_PERCENT_MIN", "0"),
        ],
    );
    let dir = node.mount("dataset/asr", "");
    for i in 0..FILES {
        let path = dir.join(name(i));
        fs::create_dir_all(path.parent().expect("a parent")).expect("mkdir");
        fs::write(path, content(i)).expect("write");
    }
    let dir = node.come_back_from_the_store(&dir, "dataset/asr", "ro");
    if let Ok(transport) = std::env::var("GRANARY_TRANSPORT") {
        assert_eq!(node.status()["mounts"][0]["transport"], *transport);
    }
    (node, dir)
}

fn read(dir: &Path, i: usize) {
    assert!(
        fs::read(dir.join(name(i))).unwrap_or_else(|e| panic!("file {i}: {e}")) == content(i),
        "file {i}"
    );
}

#[test]
fn files_are_fetched_in_the_order_announced_and_ahead_of_the_reader() {
    let (node, dir) = cold();
    let order = shuffled();
    assert_eq!(here(&node, &dir, &order), [false; FILES]);
    let list = order.iter().map(|i| name(*i)).collect::<Vec<_>>().join("\n");
    let announce = "print(announce(sys.argv[1], sys.argv[2].split('\\n')))";
    assert_eq!(python(announce, None, &[text(&dir), &list]), FILES.to_string());

    // Several are under way at once, and so not each is here before the next one.
    let first = |count: usize| here(&node, &dir, &order)[..count].iter().all(|here| *here);
    until("an eighth of the cache is fetched", || first(20));
    let now = here(&node, &dir, &order);
    assert!(!now[24..].contains(&true), "no more than the window, and what was under way: {now:?}");

    order[..10].iter().for_each(|i| read(&dir, *i));
    until("the next follow", || first(30));
    // What comes next is read while the store has nothing.
    let (from, to) = (node.path("store").join("ns"), node.path("store").join("hidden"));
    fs::rename(&from, &to).expect("rename");
    drop_page_cache();
    order[10..25].iter().for_each(|i| read(&dir, *i));
    fs::rename(to, from).expect("rename");
    order[25..].iter().for_each(|i| read(&dir, *i));
}

#[test]
fn it_is_said_on_any_file_or_directory_in_parts_and_taken_back() {
    let (node, dir) = cold();
    // On a file, names are the mount's; on a directory, its own; the second call goes on where the first one ended.
    let script = "
top = sys.argv[1]
print(announce(top + '/train/d1/f1', ['train/d2/f2'], order=7))
print(announce(top + '/train/d3', ['../d0/f0', '/train/d3/f3', 'f7', 'nothing', '.', '../../..//train/d1/f5'], order=7, anew=False))
";
    assert_eq!(python(script, None, &[text(&dir)]), "1\n4");
    until("they are fetched", || here(&node, &dir, &[2, 0, 3, 7, 5]) == [true; 5]);
    assert_eq!(here(&node, &dir, &[1, 4, 6]), [false; 3]);

    let script = "
import errno
top = os.open(sys.argv[1], os.O_RDONLY)
def call(number, message):
    try: return fcntl.ioctl(top, number, bytearray(message))
    except OSError as e: return errno.errorcode[e.errno]
good = struct.pack('<BBHIQ', 1, 0, 1, 0, 7) + b'train/d0/f0\\0'
say = lambda message: call(0x40006701 + (len(message) << 16), message)
print(say(good), say(b'\\2' + good[1:]), say(good[:-1]), say(b''), say(struct.pack('<BBHIQ', 1, 2, 0, 0, 7)))
print(call(0x40006702 + (len(good) << 16), good), call(0x80006701 + (len(good) << 16), good))
many = [say(struct.pack('<BBHIQ', 1, 0, 0, 0, number)) for number in range(100, 117)]
print(many[:16] == [0] * 16, many[16], say(good[:8] + struct.pack('<Q', 100) + good[16:]))
";
    let said = python(script, None, &[text(&dir)]);
    assert_eq!(said, "1 EINVAL EINVAL EINVAL 0\nENOTTY ENOTTY\nTrue ENOSPC 1");
}

#[test]
fn only_what_the_caller_may_read_is_taken() {
    let node = Node::new(StoreKind::Folder);
    let dir = node.mount("user/daemon", "");
    let uid = fs::metadata(&dir).map(|m| std::os::unix::fs::MetadataExt::uid(&m)).expect("stat");
    fs::set_permissions(node.path(""), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("chmod");
    let make = |path: &str, mode: u32| {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("mkdir");
        fs::write(&path, "x").expect("write");
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode)).expect("chmod");
    };
    make("secret", 0o600); // root's
    make("plain", 0o644);
    make("closed/file", 0o644);
    make("grouped", 0o640);
    fs::set_permissions(dir.join("closed"), std::os::unix::fs::PermissionsExt::from_mode(0o700))
        .expect("chmod");
    std::os::unix::fs::chown(dir.join("grouped"), None, Some(12_345)).expect("chown");
    for (link, to) in
        [("to_plain", "plain"), ("to_secret", "secret"), ("round", "round"), ("away", "/etc/passwd")]
    {
        std::os::unix::fs::symlink(to, dir.join(link)).expect("symlink");
    }
    let script = "
names = ['secret', 'plain', 'closed/file', 'to_plain', 'to_secret', 'round', 'away', '/closed/../plain', 'grouped']
print([announce(sys.argv[1], [name]) for name in names])
";
    assert_eq!(python(script, Some(uid), &[text(&dir)]), "[0, 1, 0, 1, 0, 0, 0, 0, 0]");
    assert_eq!(python(script, None, &[text(&dir)]), "[1, 1, 1, 1, 1, 0, 0, 1, 1]", "root may");
    // A group that is not the first one counts too.
    let with_group = format!("os.setgroups([12345])\nos.setgid({uid})\nos.setuid({uid})\n{script}");
    assert_eq!(python(&with_group, None, &[text(&dir)]), "[0, 1, 0, 1, 0, 0, 0, 0, 1]");
}
