//! Packed data sets on real mounts: the tree that was packed is there, and stays as it is.

mod making;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use granary_tests::{Node, Service, StoreKind, Tree, drop_page_cache, fill, read_tree, run, run_ok, seed};
use making::DataSet;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const NAME: &str = "dataset/images";
const EROFS: i32 = 30;
const EIO: i32 = 5;

/// A tree with small and large files, links, empty directories, and names that share beginnings.
fn original(node: &Node, seed: u64) -> PathBuf {
    let root = node.path("original");
    fs::create_dir(&root).expect("mkdir");
    fill(&root, seed, 600, 20_000);
    run_ok(
        "cd $1; mkdir -p empty/below a; touch a/b a-b a.b 'a b' 'né' .hidden; ln -s nowhere broken
         head -c 40000000 /dev/urandom >large.bin; chmod 4711 a.b; chown 1234:56 a-b; chmod 700 empty
         touch -d '2001-02-03 04:05:06' a large.bin",
        &[&root],
    );
    root
}

fn url(node: &Node, store: StoreKind) -> String {
    match store {
        StoreKind::Folder => node.path("packed").display().to_string(),
        StoreKind::S3 => format!("{}-packed", node.store_url()),
    }
}

/// What `stat` shows and a tar keeps.
fn attributes(root: &Path, tree: &Tree) -> BTreeMap<PathBuf, (u32, u32, u64, i64)> {
    let of = |path: &PathBuf| {
        let meta = root.join(path).symlink_metadata().expect("lstat");
        let size = if meta.is_dir() { 0 } else { meta.size() };
        (path.clone(), (meta.uid(), meta.gid(), size, meta.mtime()))
    };
    tree.keys().map(of).collect()
}

fn errno<T>(result: io::Result<T>) -> Option<i32> {
    result.err().and_then(|e| e.raw_os_error())
}

fn create(node: &Node, name: &str, url: &str, more: &[&str]) {
    node.ok(&[&["ns", "create", name, "--packed", url], more].concat());
}

fn is_the_tree_that_was_packed(store: StoreKind) {
    let seed = seed();
    let mut node = Node::new(store);
    let root = original(&node, seed);
    let mut data = DataSet::new(&url(&node, store));
    data.append(&root, 100);
    create(&node, NAME, &data.url, &[]);
    let shown = node.ok(&["ns", "show", NAME]);
    assert!(shown.contains("the newest version at each mount"), "{shown}");

    let dir = node.mount(NAME, "");
    let before = read_tree(&root);
    let found = read_tree(&dir);
    assert!(found == before, "the tree differs");
    assert_eq!(attributes(&dir, &found), attributes(&root, &before));
    run_ok("diff -r --no-dereference $1 $2; test $(find $1 | wc -l) = $(find $2 | wc -l)", &[&root, &dir]);
    for absent in ["nothing", "a/c", "a.", "d0/nothing", "a-b/x"] {
        assert!(dir.join(absent).symlink_metadata().is_err(), "{absent}");
    }
    random_reads(&root.join("large.bin"), &dir.join("large.bin"), seed);

    let status = node.status();
    let mount = &status["mounts"][0];
    assert_eq!((mount["mode"].as_str(), mount["read_only"].as_bool()), (Some("data"), Some(true)), "{mount}");
    assert_eq!(mount["packed"]["version"].as_u64(), Some(1), "{mount}");
    assert!(node.ok(&["status"]).contains("version 1\n"));
    let bytes: u64 =
        before.values().filter(|(mode, _)| mode & 0o170_000 == 0o100_000).map(|(_, c)| c.len() as u64).sum();
    let space = rustix::fs::statvfs(&dir).expect("statvfs");
    assert!(
        (space.f_blocks * space.f_frsize).abs_diff(bytes) <= space.f_frsize && space.f_bfree == 0,
        "{} blocks of {}, {} free",
        space.f_blocks,
        space.f_frsize,
        space.f_bfree
    );
    node.ok(&["explain", dir.join("large.bin").to_str().expect("utf-8")]);

    // On a new machine, and a second time from its cache alone.
    node.umount(&dir);
    node.stop();
    node.empty_cache();
    node.start();
    let dir = node.mount(NAME, "");
    assert!(read_tree(&dir) == before, "the tree differs on a new machine");
    if store == StoreKind::Folder {
        drop_page_cache();
        fs::rename(node.path("packed/shards"), node.path("hidden")).expect("rename");
        assert!(read_tree(&dir) == before, "not all of it was kept");
    }
    node.umount(&dir);
    node.stop();
}

#[test]
fn what_the_command_packed_and_what_was_adopted_mount_as_the_same_tree() {
    let seed = seed();
    let node = Node::new(StoreKind::Folder);
    let root = original(&node, seed);
    let before = read_tree(&root);
    let (packed, adopted) = (node.path("packed"), node.path("adopted"));
    let text = |path: &Path| path.to_str().expect("utf-8").to_owned();

    node.ok(&["pack", &text(&root), &text(&packed), "--shard-size", "1MiB"]);
    create(&node, NAME, &text(&packed), &[]);
    let dir = node.mount(NAME, "");
    let found = read_tree(&dir);
    assert!(found == before, "the tree differs");
    assert_eq!(attributes(&dir, &found), attributes(&root, &before));
    random_reads(&root.join("large.bin"), &dir.join("large.bin"), seed);

    // As GNU tar makes it of a directory: every name begins with ./
    run_ok("mkdir $2; tar -cf $2/images.tar --sort=name -C $1 .", &[&root, &adopted]);
    node.ok(&["index", &text(&adopted)]);
    create(&node, "dataset/adopted", &text(&adopted), &[]);
    let dir = node.mount("dataset/adopted", "");
    let found = read_tree(&dir);
    assert!(found == before, "the adopted tree differs");
    assert_eq!(attributes(&dir, &found), attributes(&root, &before));
    run_ok("cmp $1/.shards/images.tar $2/images.tar", &[&dir, &adopted]);
}

fn random_reads(original: &Path, shown: &Path, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let (a, b) = (fs::File::open(original).expect("open"), fs::File::open(shown).expect("open"));
    for _ in 0..200 {
        let (at, len) = (rng.random_range(0..40_000_000), rng.random_range(1..300_000));
        let (mut want, mut got) = (vec![0; len], vec![0; len]);
        let n = a.read_at(&mut want, at).expect("read");
        let mut done = 0;
        while done < n {
            let more = b.read_at(&mut got[done..n], at + done as u64).expect("read");
            assert!(more > 0, "{at} + {done}");
            done += more;
        }
        assert!(want == got, "{at}..+{len}");
    }
}

#[test]
fn a_mounted_data_set_is_the_tree_that_was_packed_over_a_folder() {
    is_the_tree_that_was_packed(StoreKind::Folder);
}

#[test]
fn a_mounted_data_set_is_the_tree_that_was_packed_over_ceph() {
    is_the_tree_that_was_packed(StoreKind::S3);
}

/// A node with a small data set mounted.
fn small() -> (Node, DataSet, PathBuf) {
    let node = Node::new(StoreKind::Folder);
    let root = node.path("original");
    run_ok(
        "mkdir -p $1/a; cd $1; for i in $(seq 40); do head -c 30000 /dev/urandom >a/$i.bin; done; echo one >b",
        &[&root],
    );
    let mut data = DataSet::new(&url(&node, StoreKind::Folder));
    data.append(&root, 10);
    create(&node, NAME, &data.url, &[]);
    let dir = node.mount(NAME, "");
    (node, data, dir)
}

#[test]
fn nothing_can_be_changed() {
    let (node, _data, dir) = small();
    let b = dir.join("b");
    assert_eq!(errno(fs::write(dir.join("new"), b"x")), Some(EROFS));
    assert_eq!(errno(fs::OpenOptions::new().write(true).open(&b)), Some(EROFS));
    assert_eq!(errno(fs::create_dir(dir.join("new"))), Some(EROFS));
    assert_eq!(errno(fs::remove_file(&b)), Some(EROFS));
    assert_eq!(errno(fs::rename(&b, dir.join("c"))), Some(EROFS));
    assert_eq!(errno(fs::hard_link(&b, dir.join("c"))), Some(EROFS));
    assert_eq!(errno(std::os::unix::fs::symlink("b", dir.join("c"))), Some(EROFS));
    assert_eq!(errno(fs::set_permissions(&b, fs::Permissions::from_mode(0o600))), Some(EROFS));
    assert_eq!(fs::read_to_string(&b).expect("read"), "one\n");
    // Asked to be writable, it is not.
    let other = node.path("rw");
    fs::create_dir(&other).expect("mkdir");
    node.mount_at(NAME, &other, "rw");
    assert_eq!(errno(fs::write(other.join("new"), b"x")), Some(EROFS));
    node.fails(&["ns", "create", "dataset/none", "--packed", "/nonexistent"], "is not there");
    node.fails(
        &["ns", "create", "dataset/none", "--packed", node.path("original").to_str().expect("utf-8")],
        "holds no data set",
    );
    node.fails(
        &[
            "ns",
            "create",
            "dataset/none",
            "--packed",
            node.path("packed").to_str().expect("utf-8"),
            "--version",
            "7",
        ],
        "no version 7",
    );
}

#[test]
fn tars_and_indexes_are_there_for_who_knows_the_name() {
    let (node, data, dir) = small();
    let listed: Vec<_> =
        fs::read_dir(&dir).expect("list").map(|e| e.expect("an entry").file_name()).collect();
    assert_eq!(listed.len(), 2, "{listed:?}");
    let shards = dir.join(".shards");
    let names = fs::read_dir(&shards).expect("list").count();
    assert_eq!(names, 10, "five shards");
    for number in 0..5 {
        for suffix in ["tar", "gidx"] {
            let name = format!("{number:06}.{suffix}");
            let found = fs::read(shards.join(&name)).expect("read");
            assert!(found == data.get(&format!("shards/{name}")), "{name}");
        }
    }
    let out = run(std::process::Command::new("tar").arg("tf").arg(shards.join("000000.tar")));
    assert!(
        out.code == Some(0) && out.stdout.starts_with("a\na/1.bin\na/10.bin\n")
            || out.stdout.starts_with("a/\n"),
        "{out:?}"
    );
    assert_eq!(errno(fs::write(shards.join("new"), b"x")), Some(EROFS));
    drop(node);
}

#[test]
fn a_later_version_is_seen_at_the_next_mount() {
    let (mut node, mut data, dir) = small();
    create(&node, "dataset/first", &data.url, &["--version", "1"]);
    let more = node.path("more");
    run_ok("mkdir $1; echo two >$1/b; echo three >$1/c; mkdir $1/a; echo four >$1/a/41.bin", &[&more]);
    data.append(&more, 10);
    data.delete(&["a/7.bin"]);
    assert_eq!(fs::read_to_string(dir.join("b")).expect("read"), "one\n");
    assert!(!dir.join("c").exists() && dir.join("a/7.bin").exists(), "a mount stays as it is");
    let eight = fs::read(dir.join("a/8.bin")).expect("read");
    node.umount(&dir);

    let dir = node.mount(NAME, "");
    let look = |dir: &Path| {
        assert_eq!(fs::read_to_string(dir.join("b")).expect("read"), "two\n");
        assert_eq!(fs::read_to_string(dir.join("c")).expect("read"), "three\n");
        assert_eq!(fs::read_to_string(dir.join("a/41.bin")).expect("read"), "four\n");
        assert_eq!(fs::read_dir(dir.join("a")).expect("list").count(), 40);
        assert!(!dir.join("a/7.bin").exists());
        assert_eq!(fs::read(dir.join("a/8.bin")).expect("read"), eight);
    };
    look(&dir);
    assert_eq!(node.status()["mounts"][0]["packed"]["version"].as_u64(), Some(3));
    let first = node.mount("dataset/first", "");
    assert_eq!(fs::read_to_string(first.join("b")).expect("read"), "one\n");
    assert!(first.join("a/7.bin").exists() && !first.join("c").exists());
    let orders = |node: &Node| {
        let mut found = Vec::new();
        for space in fs::read_dir(node.path("cache/packed")).expect("list") {
            let space = space.expect("an entry").path();
            found.extend(fs::read_dir(space).expect("list").map(|e| e.expect("an entry").file_name()));
        }
        found.into_iter().filter(|name| name.to_string_lossy().ends_with(".order")).count()
    };
    assert_eq!(orders(&node), 2, "one for each namespace");

    // A restarted node makes nothing anew.
    node.umount(&dir);
    node.umount(&first);
    node.stop();
    node.start();
    look(&node.mount(NAME, ""));
    node.umount(&dir);
    node.ok(&["ns", "remove", NAME]);
    assert_eq!(orders(&node), 1);
}

#[test]
fn what_is_damaged_or_missing_is_an_error_that_names_the_shard() {
    let (node, data, dir) = small();
    let mut tar = data.get("shards/000001.tar").to_vec();
    let middle = tar.len() / 2;
    tar[middle] ^= 1;
    data.put("shards/000001.tar", tar.into());
    data.remove("shards/000002.tar");
    let (mut good, mut bad) = (0, 0);
    for entry in fs::read_dir(dir.join("a")).expect("list") {
        match fs::read(entry.expect("an entry").path()) {
            Ok(_) => good += 1,
            Err(e) => {
                assert_eq!(e.raw_os_error(), Some(EIO));
                bad += 1;
            }
        }
    }
    assert!(good >= 10 && bad >= 10, "{good} and {bad}");
    let log = node.log();
    assert!(log.contains("shard shards/000001.tar") && log.contains("is damaged"), "{log}");
    assert!(log.contains("shard shards/000002.tar") && log.contains("is missing"), "{log}");
}

#[test]
fn what_cannot_be_opened_is_refused_with_the_reason() {
    let (mut node, data, dir) = small();
    node.umount(&dir);
    let newer = String::from_utf8(data.get("manifests/0000000001.jsonl").to_vec()).expect("text");
    let newer = newer.replace("\"format\":1", "\"format\":9").replace("\"version\":1", "\"version\":2");
    let lines = &newer[..newer.trim_end().rfind('\n').expect("lines") + 1];
    let newer = format!("{lines}{{\"crc32c\":\"{:08x}\"}}\n", granary_core::crc32c(lines.as_bytes()));
    data.put("manifests/0000000002.jsonl", newer.into());
    let target = dir.to_str().expect("utf-8");
    node.fails(&["mount", NAME, target], "newer");
    data.remove("manifests/0000000002.jsonl");
    fs::rename(node.path("packed"), node.path("away")).expect("rename");
    node.fails(&["mount", NAME, target], "is not there");
    fs::rename(node.path("away"), node.path("packed")).expect("rename");
    node.mount_at(NAME, &dir, "");
    // Another shard's index: found at the first mount after a start.
    node.umount(&dir);
    node.stop();
    let index = data.get("shards/000003.gidx");
    data.put("shards/000003.gidx", data.get("shards/000002.gidx"));
    node.start();
    node.fails(&["mount", NAME, target], "it is not the index of shards/000003.tar");
    data.put("shards/000003.gidx", index);
    node.mount_at(NAME, &dir, "");
}

#[test]
fn nodes_of_one_metadata_service_show_the_same_data_set() {
    let seed = seed();
    let mut service = Service::new();
    let token = service.token("root", &[], "admin");
    let (a, b) = (service.node(&token), service.node(&token));
    let root = original(&a, seed);
    let mut data = DataSet::new(service.path("packed").to_str().expect("utf-8"));
    data.append(&root, 100);
    create(&a, NAME, &data.url, &[]);
    let before = read_tree(&root);
    let (left, right) = (a.mount(NAME, ""), b.mount(NAME, ""));
    for dir in [&left, &right] {
        let found = read_tree(dir);
        assert!(found == before, "{}", dir.display());
        assert_eq!(attributes(dir, &found), attributes(&root, &before));
    }
    random_reads(&root.join("large.bin"), &right.join("large.bin"), seed);
    assert_eq!(errno(fs::write(right.join("new"), b"x")), Some(EROFS));

    // A new version: a mount stays as it is, on each node by itself, until it is made anew.
    let more = a.path("more");
    run_ok("mkdir $1; echo two >$1/added", &[&more]);
    data.append(&more, 10);
    b.umount(&right);
    let right = b.mount(NAME, "");
    assert_eq!(fs::read_to_string(right.join("added")).expect("read"), "two\n");
    assert!(!left.join("added").exists());
    let version = |node: &Node| node.status()["mounts"][0]["packed"]["version"].as_u64();
    assert_eq!((version(&a), version(&b)), (Some(1), Some(2)));

    // What is read needs no service: it is in the shards, and on the node.
    service.kill();
    drop_page_cache();
    assert!(read_tree(&left) == before, "without the service");
    service.start();
    a.umount(&left);
    let left = a.mount(NAME, "");
    assert_eq!(fs::read_to_string(left.join("added")).expect("read"), "two\n");
    a.umount(&left);
    b.umount(&right);

    // Removed on one node, it is gone on both; the data set stays.
    a.ok(&["ns", "remove", NAME]);
    assert!(!b.ok(&["ns", "list"]).contains(NAME));
    assert!(!data.get("shards/000000.tar").is_empty());
}
