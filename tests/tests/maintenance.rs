//! Checking, cleaning and saving a volume that is in use, over a real mount.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use granary_tests::{Node, StoreKind, fill, read_tree, run, run_ok, seed, until};

fn checked(node: &Node, args: &[&str]) -> serde_json::Value {
    let all: Vec<&str> = [&["fsck", "--json"], args].concat();
    let report: serde_json::Value = serde_json::from_str(&node.ok(&all)).expect("fsck's report is JSON");
    assert_eq!(report["findings"]["problems"], 0, "{report:#}");
    report
}

/// Objects in the store of which gc says this.
fn garbage(node: &Node, args: &[&str], why: &str) -> u64 {
    let all: Vec<&str> = [&["gc", "--json"], args].concat();
    let report: serde_json::Value = serde_json::from_str(&node.ok(&all)).expect("gc's report is JSON");
    let heaps = report["heaps"].as_array().expect("heaps");
    heaps.iter().filter(|h| h["why"] == why).map(|h| h["objects"].as_u64().expect("a number")).sum()
}

fn comes_back_whole(node: &mut Node, before: &granary_tests::Tree) {
    node.stop();
    node.empty_cache();
    node.start();
    let dir = node.mount("user/alice", "");
    assert!(*before == read_tree(&dir), "the tree differs");
    checked(node, &["--data"]);
    node.umount(&dir);
}

/// Files are made, rewritten and deleted while checks run, and garbage is collected without any grace: what a node has
/// stored and not yet named is condemned again and again, and stored again.
fn work_goes_on_during_checks_and_collections(store: StoreKind) {
    let seed = seed();
    let mut node =
        Node::with_settings(store, &[("GRANARY_SMALL_PERIOD_MS", "20"), ("GRANARY_LARGE_PERIOD_MS", "20")]);
    let dir = node.mount("user/alice", "");
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for round in 0..6 {
                fill(&dir.join(format!("r{round}")), seed + round, 150, 20_000);
                run_ok(
                    "head -c 3000000 /dev/urandom >$1/big$2",
                    &[dir.to_str().expect("utf-8"), &round.to_string()],
                );
                if round >= 2 {
                    fs::remove_dir_all(dir.join(format!("r{}", round - 2))).expect("rm -r");
                }
            }
        });
        let mut rounds = 0;
        while !writer.is_finished() || rounds < 3 {
            checked(&node, &["--data"]);
            node.ok(&["gc", "--delete", "--grace", "0s"]);
            rounds += 1;
        }
    });
    println!("{} uploads were refused and done again", node.log().matches("taken for garbage").count());
    fill(&dir.join("last"), seed, 100, 20_000);
    node.sync(&dir);
    let before = read_tree(&dir);
    let report = checked(&node, &["--data"]);
    assert_eq!(report["namespaces"][0]["staged_bytes"], 0);
    node.umount(&dir);
    assert_eq!(garbage(&node, &["--delete", "--grace", "0s"], "strange"), 0);
    assert_eq!(checked(&node, &[])["namespaces"][0]["unnamed_objects"], 0);
    comes_back_whole(&mut node, &before);
}

#[test]
fn work_goes_on_during_checks_and_collections_over_a_folder() {
    work_goes_on_during_checks_and_collections(StoreKind::Folder);
}

#[test]
fn work_goes_on_during_checks_and_collections_over_ceph() {
    work_goes_on_during_checks_and_collections(StoreKind::S3);
}

/// kill -9 when two of a file's blocks are stored: that they have its bytes is in memory only.
#[test]
fn what_a_crash_leaves_in_the_store_is_collected() {
    let mut node = Node::with_settings(
        StoreKind::Folder,
        &[
            ("GRANARY_COMMIT_INTERVAL_MS", "60000"),
            ("GRANARY_SYNC_INTERVAL_MS", "600000"),
            ("GRANARY_LARGE_PERIOD_MS", "86400000"),
        ],
    );
    node.stop();
    node.start_with(&[("GRANARY_FAILPOINTS", "drain_after_put=abort@2")]);
    let dir = node.mount("user/alice", "");
    run_ok("head -c 150000000 /dev/urandom >$1/big; sync $1/big", &[&dir]);
    assert_ne!(node.run(&["sync", dir.to_str().expect("utf-8")]).code, Some(0));
    assert_eq!(node.wait().signal(), Some(libc::SIGKILL), "{}", node.log());
    let left = node.stored_objects().len() as u64;
    assert!(left >= 2, "{left} objects");
    run(std::process::Command::new("umount").arg("-l").arg(&dir));

    node.start();
    let dir = node.mount("user/alice", "");
    let before = read_tree(&dir);
    node.sync(&dir);
    let report = checked(&node, &["--data"]);
    let unnamed = report["namespaces"][0]["unnamed_objects"].as_u64().expect("a number");
    assert!((1..=left).contains(&unnamed), "{unnamed} of {left}");
    assert_eq!(garbage(&node, &[], "young"), unnamed, "within the grace nothing is garbage");
    assert_eq!(garbage(&node, &["--grace", "0s"], "unnamed"), unnamed);
    assert_eq!(garbage(&node, &["--grace", "0s", "--delete"], "unnamed"), unnamed);
    assert_eq!(checked(&node, &["--data"])["namespaces"][0]["unnamed_objects"], 0);
    node.umount(&dir);
    comes_back_whole(&mut node, &before);
}

/// Every file with content is there again, in some directory, under its name and with its bytes.
fn from_the_store_alone(node: &Node, before: &granary_tests::Tree) {
    let (meta, cache, socket) = (node.path("rebuilt"), node.path("cache2"), node.path("node2.sock"));
    let places = [("meta", &meta), ("cache", &cache), ("socket", &socket)];
    let flags: Vec<String> =
        places.iter().flat_map(|(name, path)| [format!("--{name}"), path.display().to_string()]).collect();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let url = node.store_url().to_owned();
    println!("{}", node.ok(&["rebuild", "--store", &url, "--meta", meta.to_str().expect("utf-8")]));
    let dir = node.path("mnt-rebuilt");
    fs::create_dir(&dir).expect("mkdir");
    let name = "dataset/rebuilt-00000001";
    node.ok(&[&["mount", name, dir.to_str().expect("utf-8")], &flags[..]].concat());
    let after = read_tree(&dir);
    let key = |path: &Path, bytes: &[u8]| (path.file_name().expect("a name").to_owned(), bytes.to_vec());
    let found: std::collections::BTreeSet<_> =
        after.iter().map(|(path, (_, bytes))| key(path, bytes)).collect();
    for (path, (mode, bytes)) in before {
        if mode & 0o170000 == 0o100000 && !bytes.is_empty() && bytes.len() <= 1 << 20 {
            assert!(found.contains(&key(path, bytes)), "{} is not there again", path.display());
        }
    }
    let big =
        before.iter().find(|(path, _)| path.ends_with("big")).map(|(_, (_, bytes))| bytes).expect("big");
    assert!(after.values().any(|(_, bytes)| bytes == big), "the large file is not there again");
    node.ok(&[&["node", "stop"], &flags[..]].concat());
    node.ok(&["fsck", "--data", "--meta", meta.to_str().expect("utf-8")]);
}

#[test]
fn a_backup_of_a_volume_in_use_is_restored_and_read() {
    let seed = seed();
    let mut node = Node::with_settings(StoreKind::Folder, &[("GRANARY_SMALL_PERIOD_MS", "20")]);
    let dir = node.mount("user/alice", "");
    fill(&dir.join("kept"), seed, 400, 20_000);
    run_ok("head -c 5000000 /dev/urandom >$1/kept/big", &[&dir]);
    node.sync(&dir);
    let before = read_tree(&dir.join("kept"));
    let (file, writing) = (node.path("saved"), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for i in 0..1000 {
                fs::write(dir.join(format!("more{i}")), [i as u8; 3000]).expect("write");
                writing.store(true, Ordering::SeqCst);
            }
        });
        until("somebody writes", || writing.load(Ordering::SeqCst));
        node.ok(&["meta", "backup", file.to_str().expect("utf-8")]);
    });
    // One that is changed after the backup: its old bytes are what comes back.
    node.sync(&dir);
    node.umount(&dir);
    node.stop();
    from_the_store_alone(&node, &before);
    let new = node.path("meta2");
    node.ok(&["meta", "restore", file.to_str().expect("utf-8"), "--meta", new.to_str().expect("utf-8")]);
    node.empty_cache();
    node.set("GRANARY_META", new.to_str().expect("utf-8"));
    node.start();
    let dir = node.mount("user/alice", "");
    assert!(before == read_tree(&dir.join("kept")), "the tree differs");
    checked(&node, &["--data"]);
    // What was on the node's disk only is an error, never other bytes. Empty: its content came after the backup.
    let mut errors = 0;
    for i in 0..1000 {
        match fs::read(dir.join(format!("more{i}"))) {
            Ok(bytes) => assert!(bytes.is_empty() || bytes == [i as u8; 3000], "more{i} has other bytes"),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => {
                assert_eq!(e.raw_os_error(), Some(5), "more{i}: {e}");
                errors += 1;
            }
        }
    }
    println!("{errors} files read as EIO");
    // It is a volume like any other: written, stored, read again.
    fs::write(dir.join("after"), b"the restore").expect("write");
    node.sync(&dir);
    checked(&node, &["--data"]);

    // A file whose object is deleted reads as an error, and the check names it.
    let mut objects = node.stored_objects();
    objects.sort();
    objects.iter().for_each(|object| fs::remove_file(Path::new(object)).expect("remove"));
    let out = node.run(&["fsck"]);
    assert_eq!(out.code, Some(1), "{}", out.stderr);
    assert!(out.stdout.contains("not in the store") && out.stdout.contains("/after"), "{}", out.stdout);
    node.umount(&dir);
}
