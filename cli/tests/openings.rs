//! A packed data set whose first opening takes long: other mounts do not wait for it, and it is done once.

#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use std::fs;

use common::s3::S3;
use common::{Mountpoint, Ran, World};
use granary_tests::Started;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// A world over a bucket with a data set `s3://b/data`, and a namespace that shows it.
fn world(bucket: &S3) -> World {
    let world = World::for_mounts().with_bucket(bucket);
    let from = world.path("src");
    fs::create_dir(&from).unwrap();
    for n in 0..20 {
        fs::write(from.join(format!("{n:02}.txt")), format!("file {n}")).unwrap();
    }
    world.run(&["pack", from.to_str().unwrap(), "s3://b/data"]).unwrap_ok();
    world.run(&["ns", "create", "dataset/slow", "--packed", "s3://b/data"]).unwrap_ok();
    world
}

/// Whether it has ended, after a minute at most.
fn ends(command: &Started) -> bool {
    let process = pidfd_open(Pid::from_child(&command.child), PidfdFlags::empty()).unwrap();
    let patience = Timespec { tv_sec: 60, tv_nsec: 0 };
    poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&patience)).unwrap() > 0
}

fn outcome(command: Started) -> Ran {
    assert!(ends(&command), "a command does not end");
    command.finish().unwrap().into()
}

#[test]
fn other_mounts_do_not_wait_for_a_first_opening() {
    let bucket = S3::start();
    let world = world(&bucket);
    let [one, two, other] = ["one", "two", "other"].map(|name| Mountpoint::new(&world, name));
    let _node = world.node();
    let gate = bucket.hold(".gidx");
    let first = world.begin(&["mount", "dataset/slow", one.text()]);
    gate.wait_for(1);
    // Another namespace, and commands on it, while the store keeps the data set's index to itself.
    let mounted = world.begin(&["mount", "user/root", other.text()]);
    let in_time = ends(&mounted);
    if !in_time {
        gate.open(); // so that the node can end
    }
    assert!(in_time, "a mount waits for another namespace's opening");
    outcome(mounted).unwrap_ok();
    fs::write(other.0.join("a"), "b").unwrap();
    outcome(world.begin(&["sync", other.text()])).unwrap_ok();
    let status: serde_json::Value =
        serde_json::from_str(&world.run(&["status", "--json"]).unwrap_ok()).unwrap();
    assert_eq!(status["opening"][0]["namespace"], "dataset/slow");
    outcome(world.begin(&["umount", other.text()])).unwrap_ok();
    // A second mount of the same waits with the first, and nothing is fetched twice.
    let second = world.begin(&["mount", "dataset/slow", two.text()]);
    gate.open();
    let told = [outcome(first).unwrap_ok(), outcome(second).unwrap_ok()];
    assert_eq!(told.iter().filter(|text| text.contains("bound to its other mount")).count(), 1, "{told:?}");
    assert_eq!(gate.held(), 1, "the index was fetched once");
    for dir in [&one, &two] {
        assert_eq!(fs::read(dir.0.join("07.txt")).unwrap(), b"file 7");
    }
    let status: serde_json::Value =
        serde_json::from_str(&world.run(&["status", "--json"]).unwrap_ok()).unwrap();
    assert!(status["opening"].as_array().is_none_or(Vec::is_empty), "{status}");
}

#[test]
fn an_opening_goes_on_without_who_asked_for_it() {
    let bucket = S3::start();
    let world = world(&bucket);
    let dir = Mountpoint::new(&world, "dir");
    let _node = world.node();
    let gate = bucket.hold(".gidx");
    let mut first = world.begin(&["mount", "dataset/slow", dir.text()]);
    gate.wait_for(1);
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    gate.open();
    outcome(world.begin(&["mount", "dataset/slow", dir.text()])).unwrap_ok();
    assert_eq!(fs::read(dir.0.join("19.txt")).unwrap(), b"file 19");
    assert_eq!(gate.held(), 1, "what was fetched is there");
}

#[test]
fn a_node_stops_while_an_opening_waits_for_its_store() {
    let bucket = S3::start();
    let world = world(&bucket);
    let dir = Mountpoint::new(&world, "dir");
    let node = world.node();
    let gate = bucket.hold(".gidx");
    let mount = world.begin(&["mount", "dataset/slow", dir.text()]);
    gate.wait_for(1);
    let stop = world.begin(&["node", "stop"]);
    let in_time = ends(&stop);
    gate.open();
    assert!(in_time, "the node waits for a store that does not answer");
    outcome(stop).unwrap_ok();
    let ran = outcome(mount);
    ran.refused(3, &["the node is stopping"]);
    assert_eq!(node.ended().code, 0);
}

#[test]
fn a_newer_version_is_shown_by_the_next_mount() {
    let bucket = S3::start();
    let world = world(&bucket);
    let dir = Mountpoint::new(&world, "dir");
    let _node = world.node();
    world.run(&["mount", "dataset/slow", dir.text()]).unwrap_ok();
    assert!(dir.0.join("03.txt").exists() && !dir.0.join("new.txt").exists());
    world.run(&["umount", dir.text()]).unwrap_ok();
    // The same again, then another version.
    world.run(&["mount", "dataset/slow", dir.text()]).unwrap_ok();
    world.run(&["umount", dir.text()]).unwrap_ok();
    fs::write(world.path("src/new.txt"), "new").unwrap();
    let from = world.path("src");
    world.run(&["pack", "--append", from.to_str().unwrap(), "s3://b/data"]).unwrap_ok();
    world.run(&["mount", "dataset/slow", dir.text()]).unwrap_ok();
    assert_eq!(fs::read(dir.0.join("new.txt")).unwrap(), b"new");
    assert_eq!(fs::read(dir.0.join("03.txt")).unwrap(), b"file 3");
    world.run(&["umount", dir.text()]).unwrap_ok();
    world.run(&["ns", "remove", "dataset/slow", "--force"]).unwrap_ok();
    world.run(&["mount", "dataset/slow", dir.text()]).unwrap_ok(); // anew, and plain
    assert!(!dir.0.join("03.txt").exists());
}
