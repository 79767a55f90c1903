//! The node process without a mount: how it starts, what it refuses, who may ask what, and how it ends.

mod common;

use std::os::unix::fs::PermissionsExt;

use common::{World, as_daemon, exists, open_to_daemon};
use granary::client::block_on;
use granary::wire::Status;
use granary_meta::engine::{RocksEngine, Write};
use granary_tests::Port;
use serde_json::json;

#[test]
fn without_a_volume_it_says_how_to_make_one() {
    let world = World::empty();
    world.try_node(&[]).err().unwrap().refused(1, &["no volume", "granary init --meta"]);
    assert!(!exists(&world.meta()));
    world.run(&["ns", "list"]).refused(1, &["no volume", "granary init"]);
    world.run(&["status"]).refused(1, &["no node is running at", "granary node"]);
}

#[test]
fn it_starts_answers_and_stops() {
    let world = World::with_volume();
    let node = world.node();
    let status: Status = block_on(world.client().get("/v1/status")).unwrap();
    assert_eq!(status.pid, node.pid());
    assert_eq!(status.meta, world.meta().to_str().unwrap());
    assert!(status.mounts.is_empty() && status.memory_bytes > 0 && status.node.len() == 16);
    assert!(world.run(&["status"]).unwrap_ok().contains(&status.volume));
    let json: serde_json::Value =
        serde_json::from_str(&world.run(&["status", "--json"]).unwrap_ok()).unwrap();
    assert_eq!(json["node"], status.node);
    let metrics = block_on(world.client().text("/metrics")).unwrap();
    assert!(
        metrics.contains("# TYPE granary_memory_resident_bytes gauge") && metrics.ends_with("# EOF\n"),
        "{metrics}"
    );
    assert_eq!(std::fs::metadata(world.path("node.sock")).unwrap().permissions().mode() & 0o777, 0o666);

    let ran = node.stop();
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.err.contains("stopped"), "{}", ran.err);
    assert!(!exists(&world.path("node.sock")));

    let again = world.node();
    let after: Status = block_on(world.client().get("/v1/status")).unwrap();
    assert_eq!(after.node, status.node, "a cache directory is one node for ever");
    world.run(&["node", "stop"]).unwrap_ok();
    assert_eq!(again.ended().code, 0);
    world.run(&["node", "stop"]).refused(1, &["no node is running"]);
}

#[test]
fn metrics_have_a_loopback_port() {
    let world = World::with_volume();
    let port = Port::new();
    let number = port.number().to_string();
    let node = world.try_node(&["--metrics-port", &number]).unwrap_or_else(|ran| panic!("{ran:?}"));
    let mut stream = std::net::TcpStream::connect(port.address()).unwrap();
    use std::io::{Read, Write};
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 200") && text.contains("granary_store_requests"), "{text}");
    drop(node);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    world.try_node(&["--metrics-port", &port]).err().unwrap().refused(1, &[&port, "metrics_port"]);
}

#[test]
fn one_cache_directory_has_one_node() {
    let world = World::with_volume();
    let node = world.node();
    let second = world.path("second.sock");
    let ran = world.try_node(&["--socket", second.to_str().unwrap()]).err().unwrap();
    ran.refused(1, &["in use by another granary node", &format!("pid {}", node.pid()), "--cache"]);
    assert!(!exists(&second));
}

#[test]
fn one_metadata_folder_has_one_process() {
    let world = World::with_volume();
    let _node = world.node();
    let (cache, socket) = (world.path("cache2"), world.path("second.sock"));
    let ran = world
        .try_node(&["--cache", cache.to_str().unwrap(), "--socket", socket.to_str().unwrap()])
        .err()
        .unwrap();
    ran.refused(1, &["in use by another process", world.meta().to_str().unwrap()]);
    // One socket: told before anything else is looked at.
    let ran = world.try_node(&["--cache", cache.to_str().unwrap()]).err().unwrap();
    ran.refused(1, &["another granary node listens at", "--socket"]);
    // Offline commands do not open what a node that listens elsewhere has.
    world
        .run(&["ns", "list", "--socket", socket.to_str().unwrap()])
        .refused(1, &["in use by another process"]);
}

#[test]
fn a_cache_directory_belongs_to_one_volume_and_one_format() {
    let (one, two) = (World::with_volume(), World::with_volume());
    one.node().stop();
    let cache = one.path("cache");
    two.try_node(&["--cache", cache.to_str().unwrap()])
        .err()
        .unwrap()
        .refused(2, &["belongs to another volume", "--cache"]);
    std::fs::write(cache.join("node.json"), r#"{"format": 99}"#).unwrap();
    one.try_node(&[]).err().unwrap().refused(1, &["format version 99", "newer granary"]);
    std::fs::write(cache.join("node.json"), "{").unwrap();
    one.try_node(&[]).err().unwrap().refused(1, &["node.json is damaged"]);
}

#[test]
fn metadata_and_store_belong_together() {
    let (one, two) = (World::with_volume(), World::with_volume());
    std::fs::copy(two.path("store/granary-volume"), one.path("store/granary-volume")).unwrap();
    one.try_node(&[]).err().unwrap().refused(2, &["holds volume", "the metadata is of volume"]);
    two.try_node(&["--store", "s3://other/place"])
        .err()
        .unwrap()
        .refused(2, &["not in s3://other/place", "--meta"]);
}

#[test]
fn metadata_of_a_newer_format_is_refused() {
    let world = World::with_volume();
    let engine = RocksEngine::open(world.meta()).unwrap();
    let key = b"\0\0\0\0V".to_vec();
    let mut record = engine.get(&key).unwrap().unwrap();
    record[1] = 99; // the format, after the record's version
    engine.write(vec![Write::Put(key, record)], true).unwrap();
    engine.close().unwrap();
    world.try_node(&[]).err().unwrap().refused(1, &["format 99", "newer granary"]);
    world.run(&["ns", "list"]).refused(1, &["format 99"]);
}

#[test]
fn a_full_cache_disk_is_told_with_numbers() {
    let world = World::with_volume();
    let ran = world.try_node(&["--cache-free-bytes-min", "1PiB"]).err().unwrap();
    ran.refused(1, &["free of", "1.0 PiB", "cache_free_bytes_min"]);
}

#[test]
fn namespaces_with_and_without_a_node() {
    let world = World::with_volume();
    let offline = world.run(&["ns", "create", "user/daemon", "--bytes-max", "1GiB"]).unwrap_ok();
    assert!(
        offline.contains("user/daemon") && offline.contains("0700") && offline.contains("1.0 GiB"),
        "{offline}"
    );
    world.run(&["ns", "create", "user/daemon"]).refused(1, &["user/daemon is there already"]);
    let node = world.node();
    world.run(&["ns", "create", "group/daemon", "--durability", "object"]).unwrap_ok();
    world
        .run(&["ns", "set", "user/daemon", "--bytes-max", "2GiB", "--mode", "0750", "--owner", "12"])
        .unwrap_ok();
    let list: serde_json::Value =
        serde_json::from_str(&world.run(&["ns", "list", "--json"]).unwrap_ok()).unwrap();
    assert_eq!(list.as_array().unwrap().len(), 2);
    assert_eq!((&list[0]["name"], &list[0]["mode"]), (&json!("group/daemon"), &json!(0o2770)));
    assert_eq!((&list[1]["uid"], &list[1]["usage"]["bytes_max"]), (&json!(12), &json!(2u64 << 30)));
    world.run(&["ns", "remove", "group/daemon"]).unwrap_ok();
    world.run(&["ns", "remove", "group/daemon"]).refused(1, &["no namespace group/daemon"]);
    world.run(&["ns", "set", "user/daemon"]).refused(2, &["nothing to change"]);
    node.stop();
    let list = world.run(&["ns", "list"]).unwrap_ok();
    assert!(
        list.contains("user/daemon") && list.contains("0750") && !list.contains("group/daemon"),
        "{list}"
    );
    world.run(&["ns", "remove", "user/daemon"]).unwrap_ok();
    assert_eq!(world.run(&["ns", "list"]).unwrap_ok().lines().count(), 1);
}

#[test]
fn requests_that_cannot_be_are_refused() {
    let world = World::with_volume();
    let _node = world.node();
    let long = format!("user/{}", "a".repeat(60));
    for bad in ["", "/user/a", "user/..", "user/../b", "user/a\0b", "user/a\nb", "alice", &long] {
        for (path, body) in [
            ("/v1/mount", json!({"namespace": bad, "dir": "/mnt"})),
            ("/v1/namespaces/create", json!({"namespace": bad})),
            ("/v1/namespaces/remove", json!({"namespace": bad})),
            ("/v1/sync", json!({"namespace": bad})),
        ] {
            let failure = world.refusal(path, body);
            assert!(
                failure.exit == 2 && failure.message.contains("write KIND/NAME"),
                "{path} {bad:?}: {failure}"
            );
        }
    }
    for (path, body, part) in [
        ("/v1/mount", json!({"namespace": "user/a", "dir": "mnt"}), "absolute path"),
        ("/v1/mount", json!({"namespace": "user/a", "dir": "/mnt", "options": "mode=fast"}), "mode"),
        (
            "/v1/mount",
            json!({"namespace": "user/a", "dir": "/mnt", "meta": "/elsewhere"}),
            "not in /elsewhere",
        ),
        ("/v1/mount", json!({"namespace": "user/a", "dir": "/mnt", "colour": 1}), "colour"),
        ("/v1/mount", json!([]), "cannot be understood"),
        ("/v1/sync", json!({}), "one of `dir`, `namespace` and `all`"),
        ("/v1/sync", json!({"dir": "/mnt", "all": true}), "one of `dir`, `namespace` and `all`"),
        (
            "/v1/namespaces/set",
            json!({"namespace": "user/a", "change": {"policy": {"uploads_max": 1000}}}),
            "uploads_max = 1000",
        ),
        ("/v1/namespaces/create", json!({"namespace": "user/a", "mode": 65536}), "permissions"),
    ] {
        let failure = world.refusal(path, body.clone());
        assert!(failure.exit == 2 && failure.message.contains(part), "{path} {body}: {failure}");
    }
    let failure = world.refusal("/v1/nothing", json!({}));
    assert!(failure.message.contains("knows no request POST /v1/nothing"), "{failure}");
    let failure = world.refusal("/v1/sync", json!({"namespace": "x".repeat(100_000)}));
    assert!(failure.message.contains("cannot be understood"), "{failure}");
    let failure = world.refusal("/v1/unmount", json!({"dir": "/proc"}));
    assert!(failure.message.contains("granary status"), "{failure}");
    assert!(world.run(&["ns", "list"]).unwrap_ok().lines().count() == 1, "refused requests leave nothing");
}

#[test]
fn others_see_and_reach_only_what_is_theirs() {
    let world = World::with_volume();
    open_to_daemon(&world);
    let _node = world.node();
    for name in ["user/daemon", "user/root", "group/daemon", "group/root", "dataset/x"] {
        world.run(&["ns", "create", name]).unwrap_ok();
    }
    let list: serde_json::Value =
        serde_json::from_str(&as_daemon(&world, &["ns", "list", "--json"]).unwrap_ok()).unwrap();
    let names: Vec<_> = list.as_array().unwrap().iter().map(|info| info["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["group/daemon", "user/daemon"]);
    as_daemon(&world, &["status"]).unwrap_ok();
    for args in
        [["ns", "create", "user/evil"].as_slice(), &["ns", "remove", "user/daemon"], &["node", "stop"]]
    {
        as_daemon(&world, args).refused(1, &["only root may"]);
    }
    // What is there and not granted, and what is not there, answer with the same words.
    let there = as_daemon(&world, &["mount", "user/root", "/usr"]);
    let not_there = as_daemon(&world, &["mount", "user/nobody-at-all", "/usr"]);
    there.refused(1, &["there is no namespace user/root"]);
    assert_eq!(there.err.replace("user/root", "NAME"), not_there.err.replace("user/nobody-at-all", "NAME"));
    // Their own they may mount, but not over somebody else's directory.
    as_daemon(&world, &["mount", "user/daemon", "/usr"]).refused(1, &["may not mount at /usr"]);
    assert_eq!(world.run(&["ns", "list"]).unwrap_ok().lines().count(), 6, "nothing was made on the way");
}

#[test]
fn a_mount_tells_why_its_node_did_not_start() {
    let world = World::empty();
    let dir = world.path("mnt");
    std::fs::create_dir(&dir).unwrap();
    let ran = world.run(&["mount", "user/root", dir.to_str().unwrap()]);
    ran.refused(1, &["no volume", "granary init"]);
    let log = std::fs::read_to_string(world.path("cache/node.log")).unwrap();
    assert!(log.contains("no volume"), "{log}");
}
