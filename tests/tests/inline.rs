//! Tiny files whose bytes the metadata keeps too: read through real mounts while the objects that have them are out of reach.

use std::fs;
use std::path::{Path, PathBuf};

use granary_tests::{Node, Service, StoreKind};

const FILES: usize = 100;

/// Between 1 and 2048 bytes that tell the file and the round.
fn content(i: usize, round: usize) -> Vec<u8> {
    (0..1 + (i * 211 + round * 57) % 2048).map(|n| (n * 31 + i * 7 + round) as u8).collect()
}

fn name(i: usize) -> String {
    format!("d{}/f{i}", i % 3)
}

fn write_all(dir: &Path, round: usize) {
    for i in 0..FILES {
        fs::create_dir_all(dir.join(format!("d{}", i % 3))).expect("mkdir");
        fs::write(dir.join(name(i)), content(i, round)).expect("write");
    }
}

/// In no order that anybody could foresee.
fn read_all(dir: &Path, round: usize) {
    for i in (0..FILES).map(|i| (i * 37 + 11) % FILES) {
        let found = fs::read(dir.join(name(i))).unwrap_or_else(|e| panic!("file {i}: {e}"));
        assert!(found == content(i, round), "file {i} in round {round}");
    }
}

/// All objects of a folder store, out of reach until they are put back.
struct Hidden {
    from: PathBuf,
    to: PathBuf,
}

fn hide(store: &Path) -> Hidden {
    let hidden = Hidden { from: store.join("ns"), to: store.join("hidden") };
    fs::rename(&hidden.from, &hidden.to).expect("rename");
    hidden
}

impl Hidden {
    fn put_back(self) {
        // What was stored meanwhile would be in the way.
        fs::rename(&self.to, &self.from).expect("rename");
    }
}

#[test]
fn tiny_files_are_read_while_the_store_has_nothing() {
    let mut node = Node::with_settings(StoreKind::Folder, &[("GRANARY_SMALL_PERIOD_MS", "1h")]);
    let dir = node.mount("user/alice", "");
    node.ok(&["ns", "set", "user/alice", "--inline", "2KiB"]);
    for round in 0..2 {
        write_all(&dir, round);
        fs::write(dir.join("larger"), vec![round as u8; 2049]).expect("write");
        node.sync(&dir);
        node.umount(&dir);
        node.stop();
        node.empty_cache();
        let hidden = hide(&node.path("store"));
        node.start();
        node.mount("user/alice", "");
        read_all(&dir, round);
        fs::read(dir.join("larger")).expect_err("a longer one is in the store alone");
        hidden.put_back();
        assert_eq!(fs::read(dir.join("larger")).expect("read"), vec![round as u8; 2049]);
    }
    let check: serde_json::Value =
        serde_json::from_str(&node.ok(&["fsck", "--data", "--json"])).expect("JSON");
    assert_eq!(check["findings"]["problems"], 0, "{check}");
    node.fails(&["ns", "set", "user/alice", "--inline", "4KiB"], "give a value from 1 to 2048");
    node.ok(&["ns", "set", "user/alice", "--inline", "0"]);
    assert!(!node.ok(&["ns", "list"]).contains("inline"));
    // What was kept stays, what is written from now on is in the store alone.
    fs::write(dir.join("later"), "a few bytes").expect("write");
    node.sync(&dir);
    node.umount(&dir);
    node.stop();
    node.empty_cache();
    let hidden = hide(&node.path("store"));
    node.start();
    node.mount("user/alice", "");
    read_all(&dir, 1);
    fs::read(dir.join("later")).expect_err("there is no copy of it");
    hidden.put_back();
    assert_eq!(fs::read_to_string(dir.join("later")).expect("read"), "a few bytes");
    node.umount(&dir);
    node.stop();
}

#[test]
fn another_node_reads_tiny_files_from_the_service_and_sees_each_change() {
    let service = Service::new();
    let token = service.token("root", &[], "admin");
    let wait = [("GRANARY_SMALL_PERIOD_MS", "1h")];
    let (a, b) = (service.node_with(&token, &wait), service.node_with(&token, &wait));
    let (left, right) = (a.mount("group/asr", ""), b.mount("group/asr", ""));
    let set = service.as_bearer(&token, &["ns", "set", "group/asr", "--inline", "2KiB"]);
    assert_eq!(set.code, Some(0), "{set:?}");
    let list = service.as_bearer(&token, &["ns", "list"]);
    assert!(list.stdout.contains("inline 2.0 KiB"), "{list:?}");
    for round in 0..2 {
        write_all(&left, round);
        if round > 0 {
            // Before it is stored, from the node that has it.
            read_all(&right, round);
            write_all(&left, round + 1);
        }
        a.sync(&left);
        let hidden = hide(&service.path("store"));
        read_all(&right, if round > 0 { round + 1 } else { round });
        hidden.put_back();
    }
}
