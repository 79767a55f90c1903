//! How writes reach the store: policies changed under a mount, waiting for the store, and emptying a node.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use granary_tests::{Cluster, Node, StoreKind, fill, read_tree, seed, start, until};
use rustix::fs::{CWD, RenameFlags};

/// Nothing leaves for the store by itself.
const NEVER: [(&str, &str); 2] =
    [("GRANARY_SMALL_PERIOD_MS", "3600000"), ("GRANARY_LARGE_PERIOD_MS", "3600000")];

fn mounted(status: &serde_json::Value, namespace: &str) -> serde_json::Value {
    let all = status["mounts"].as_array().expect("mounts");
    all.iter().find(|mount| mount["namespace"] == namespace).expect("it is mounted").clone()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("utf-8")
}

fn write_durably(path: &Path, content: &[u8]) {
    let mut file = fs::File::create(path).expect("create");
    file.write_all(content).expect("write");
    file.sync_all().expect("fsync");
}

/// Log lines as a training job writes them, in small files and a large one: smaller in the store, the same for programs.
#[test]
fn objects_are_compressed_from_the_moment_it_is_asked_for() {
    let mut node = Node::with_settings(StoreKind::Folder, &NEVER);
    let dir = node.mount("user/alice", "");
    let lines = |count: usize| -> String {
        (0..count).map(|i| format!("step {i} loss {:.3} lr 0.0003\n", 1.0 / (i + 1) as f64)).collect()
    };
    let write = |name: &str| {
        for i in 0..50 {
            fs::write(dir.join(format!("{name}-{i}.log")), lines(100 + i)).expect("write");
        }
        fs::write(dir.join(format!("{name}.txt")), lines(100_000)).expect("write");
        node.sync(&dir);
    };
    let stored = || -> u64 {
        node.stored_objects().iter().map(|path| fs::metadata(path).expect("an object").len()).sum()
    };
    write("plain");
    let plain = stored();
    let mut before = plain;
    for codec in ["lz4", "zstd"] {
        node.ok(&["ns", "set", "user/alice", "--compression", codec]);
        write(codec);
        let compressed = stored() - before;
        println!("{codec}: {compressed} bytes stored, {plain} without");
        assert!(compressed < plain / 2, "{codec}: {compressed} bytes, {plain} without");
        before += compressed;
    }
    node.ok(&["ns", "set", "user/alice", "--compression", "default"]);
    let tree = read_tree(&dir);
    node.umount(&dir);
    node.stop();
    node.empty_cache();
    node.start();
    let dir = node.mount("user/alice", "");
    assert!(read_tree(&dir) == tree, "the tree differs");
    node.umount(&dir);
    node.stop();
}

#[test]
fn a_policy_changes_under_a_mount() {
    let node = Node::with_settings(StoreKind::Folder, &NEVER);
    let dir = node.mount("user/alice", "");
    fs::write(dir.join("f"), vec![1; 5000]).expect("write");
    until("the node knows of it", || mounted(&node.status(), "user/alice")["dirty_files"] == 1);
    assert!(node.stored_objects().is_empty(), "the period is an hour");
    node.ok(&["ns", "set", "user/alice", "--small-period", "100ms", "--uploads", "2"]);
    until("the file is in the store", || node.stored_objects().len() == 1);
    let shown: serde_json::Value =
        serde_json::from_str(&node.ok(&["ns", "show", "user/alice", "--json"])).expect("JSON");
    assert_eq!(
        (&shown["policy"]["small_period_ms"], &shown["policy"]["uploads_max"]),
        (&100.into(), &2.into())
    );
    assert!(shown["policy"]["dirty_bytes_max"].is_null(), "{shown}");
    let status = mounted(&node.status(), "user/alice");
    assert_eq!(
        (&status["policy"]["uploads_max"], &status["policy"]["dirty_files_max"]),
        (&2.into(), &1_000_000.into())
    );
    assert!(node.ok(&["ns", "list"]).contains("small-period 100 ms, uploads 2"));

    // What is small is decided for files from then on.
    node.ok(&[
        "ns",
        "set",
        "user/alice",
        "--small-size",
        "4KiB",
        "--large-period",
        "100ms",
        "--small-period",
        "default",
    ]);
    fs::write(dir.join("larger"), vec![2; 5000]).expect("write");
    fs::write(dir.join("small"), vec![3; 3000]).expect("write");
    until("the larger one is in the store, and the small one is not", || {
        node.stored_objects().len() == 2 && mounted(&node.status(), "user/alice")["dirty_bytes"] == 3000
    });

    // From the change on fsync waits for the store.
    node.ok(&["ns", "set", "user/alice", "--durability", "object"]);
    fs::File::open(dir.join("small")).and_then(|f| f.sync_all()).expect("fsync");
    assert_eq!(node.stored_objects().len(), 3);
    write_durably(&dir.join("next"), &[4; 100]);
    assert_eq!(node.stored_objects().len(), 4);
    node.ok(&["ns", "set", "user/alice", "--durability", "default"]);
    write_durably(&dir.join("last"), &[5; 100]);
    assert_eq!(node.stored_objects().len(), 4);

    node.fails(
        &["ns", "set", "user/alice", "--uploads", "1000"],
        "uploads_max = 1000 cannot work; give a value",
    );
    node.fails(&["ns", "set", "user/alice", "--small-period", "soon"], "for example 2s");
    node.fails(&["ns", "set", "user/alice"], "nothing to change");
}

#[test]
fn a_policy_reaches_every_node() {
    let cluster = Cluster::with_settings(2, &NEVER);
    let mounts = cluster.mount("");
    for (i, mount) in mounts.iter().enumerate() {
        fs::write(mount.join(format!("f{i}")), vec![1; 5000]).expect("write");
    }
    let dirty = |node: &Node| mounted(&node.status(), "group/team")["dirty_files"].as_u64();
    until("both have something", || cluster.nodes.iter().all(|node| dirty(node) == Some(1)));
    let admin = cluster.service.token("root", &[], "admin");
    let set = cluster.service.as_bearer(&admin, &["ns", "set", "group/team", "--small-period", "100ms"]);
    assert_eq!(set.code, Some(0), "{set:?}");
    until("both have stored it", || cluster.nodes.iter().all(|node| dirty(node) == Some(0)));
}

#[test]
fn files_trees_and_everything_are_synced() {
    let node = Node::with_settings(StoreKind::Folder, &NEVER);
    let (dir, other) = (node.mount("user/alice", ""), node.mount("user/bob", ""));
    fs::write(dir.join("small"), vec![3; 3000]).expect("write");
    fs::create_dir_all(dir.join("tree/deep")).expect("mkdir");
    fs::write(dir.join("tree/deep/large"), vec![1; 3 << 20]).expect("write");
    fs::write(dir.join("large"), vec![2; 3 << 20]).expect("write");
    fs::write(other.join("small"), vec![4; 3000]).expect("write");
    let stored = || -> u64 {
        let objects = node.stored_objects();
        objects.iter().map(|path| fs::metadata(path).expect("stat").len()).sum()
    };
    node.ok(&["sync", text(&dir.join("small"))]);
    assert!((3000..10_000).contains(&stored()), "{}", stored());
    node.ok(&["sync", text(&dir.join("tree"))]);
    assert!((3 << 20..(3 << 20) + 20_000).contains(&stored()), "{}", stored());
    node.ok(&["sync", text(&dir.join("large"))]);
    assert!((6 << 20..(6 << 20) + 30_000).contains(&stored()), "{}", stored());
    let dirty = |namespace| mounted(&node.status(), namespace)["dirty_bytes"].as_u64().expect("a number");
    assert!(dirty("user/alice") == 0 && dirty("user/bob") == 3000);
    node.ok(&["sync", "--all"]);
    assert_eq!((dirty("user/bob"), node.stored_objects().len()), (0, 4));
    node.fails(&["sync", text(&dir.join("missing"))], "missing");
    node.fails(&["sync", "/var/tmp"], "nothing of this node is mounted");
    node.fails(&["sync"], "<PATH>");
}

#[test]
fn a_node_is_drained_and_nothing_stays() {
    let seed = seed();
    let mut node = Node::with_settings(StoreKind::Folder, &NEVER);
    let (dir, unmounted) = (node.mount("user/alice", ""), node.mount("user/bob", ""));
    for dir in [&dir, &unmounted] {
        fill(dir, seed, 200, 20_000);
        fs::write(dir.join("large"), vec![9; 4 << 20]).expect("write");
    }
    let before = [read_tree(&dir), read_tree(&unmounted)];
    node.umount(&unmounted);
    // A program uses one of the mounts: it is refused, and told; the rest is done.
    let mut program = Command::new("sleep");
    program.arg("1000").current_dir(&dir).stdout(Stdio::null());
    let mut program = start(program).child;
    node.fails(&["node", "drain"], &format!("used by sleep (pid {}", program.id()));
    assert!(
        mounted(&node.status(), "user/alice")["dirty_files"] == 0
            && node.status()["draining"] == serde_json::json!([])
    );
    assert_eq!(node.status()["emptying"], true);
    program.kill().expect("kill");
    program.wait().expect("wait");
    fs::write(dir.join("late"), b"late").expect("write");
    let report: serde_json::Value =
        serde_json::from_str(&node.ok(&["node", "drain", "--json"])).expect("JSON");
    assert_eq!(report, serde_json::json!({"clean": true, "left": []}));
    let status = node.status();
    assert!(
        status["mounts"] == serde_json::json!([]) && status["draining"] == serde_json::json!([]),
        "{status}"
    );
    node.fails(&["mount", "user/alice", text(&dir)], "takes no new mounts");
    node.ok(&["node", "drain"]);
    node.ok(&["node", "drain", "--stop"]);
    node.stop_ended();
    node.empty_cache();
    node.start();
    let (dir, other) = (node.mount("user/alice", ""), node.mount("user/bob", ""));
    assert_eq!(fs::read(dir.join("late")).expect("read"), b"late");
    fs::remove_file(dir.join("late")).expect("unlink");
    assert!([read_tree(&dir), read_tree(&other)] == before, "a tree differs");
}

#[test]
fn a_drain_that_is_given_a_time_tells_what_is_left() {
    let node = Node::with_settings(StoreKind::Folder, &NEVER);
    let dir = node.mount("user/alice", "");
    // Four blocks, a minute each.
    node.ok(&["ns", "set", "user/alice", "--upload-bandwidth", "256KiB/s"]);
    fs::write(dir.join("large"), vec![9; 60 << 20]).expect("write");
    node.fails(&["node", "drain", "--wait", "soon"], "--wait");
    node.fails(&["node", "drain", "--wait", "300ms"], "the time that it was given (--wait) is over");
    let status = node.status();
    assert!(
        status["mounts"] == serde_json::json!([]) && status["draining"][0]["dirty_files"] == 1,
        "{status}"
    );
    node.ok(&["ns", "set", "user/alice", "--upload-bandwidth", "default"]);
    node.ok(&["node", "drain", "--wait", "10min"]);
    assert_eq!(node.status()["draining"], serde_json::json!([]));
}

/// The folder store refuses every PUT while a file is where its directory was.
struct Broken {
    ns: PathBuf,
    away: PathBuf,
}

impl Broken {
    fn new(node: &Node) -> Broken {
        let store = node.path("store");
        let broken = Broken { ns: store.join("ns"), away: store.join("away") };
        fs::create_dir_all(&broken.ns).expect("mkdir");
        fs::write(&broken.away, b"").expect("write");
        broken.exchange();
        broken
    }

    /// At once: a PUT between the two would make the directory anew.
    fn exchange(&self) {
        rustix::fs::renameat_with(CWD, &self.ns, CWD, &self.away, RenameFlags::EXCHANGE).expect("rename");
    }
}

impl Drop for Broken {
    fn drop(&mut self) {
        self.exchange();
        fs::remove_file(&self.away).expect("remove");
    }
}

#[test]
fn a_namespace_at_its_limit_waits_alone_and_all_is_told_until_the_store_is_back() {
    let node = Node::with_settings(StoreKind::Folder, &[("GRANARY_SMALL_PERIOD_MS", "50")]);
    let (dir, other) = (node.mount("user/alice", ""), node.mount("user/bob", ""));
    node.ok(&["ns", "set", "user/alice", "--dirty-files", "100"]);
    let broken = Broken::new(&node);
    let content = vec![7; 1000];
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for i in 0..150 {
                fs::write(dir.join(format!("f{i}")), &content).expect("write");
            }
        });
        let dirty = |namespace| mounted(&node.status(), namespace)["dirty_files"].as_u64().expect("a number");
        until("the writer is at the limit", || dirty("user/alice") >= 100);
        for i in 0..300 {
            fs::write(other.join(format!("f{i}")), &content).expect("write");
        }
        assert!(!writer.is_finished());
        until("the other went on", || dirty("user/bob") == 300);
        until("the failure is told", || mounted(&node.status(), "user/alice")["error"].is_string());
        let status = mounted(&node.status(), "user/alice");
        assert!(status["retry_in_ms"].is_u64() && status["drain_bytes_per_s"].is_null(), "{status}");
        let shown = node.ok(&["status"]);
        assert!(
            shown.contains("of 100 files not in the store yet") && shown.contains("storing fails"),
            "{shown}"
        );
        node.fails(&["sync", "--all"], "user/bob: ");
        drop(broken);
        writer.join().expect("the writer");
    });
    until("the drain catches up by itself, and nothing fails any more", || {
        let status = node.status();
        ["user/alice", "user/bob"].iter().all(|ns| {
            let space = mounted(&status, ns);
            space["dirty_files"] == 0 && space["error"].is_null()
        })
    });
    let broken = Broken::new(&node);
    fs::write(dir.join("more"), &content).expect("write");
    node.fails(&["node", "drain"], "user/alice, 1000 B in 1 files: ");
    drop(broken);
    node.ok(&["node", "drain"]);
    assert_eq!(node.status()["mounts"], serde_json::json!([]));
}
