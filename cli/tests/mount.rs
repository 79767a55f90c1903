//! Mounting through the commands: what they say, who may do it, and how a node with busy mounts ends. What the file system
//! does is tested in the `tests` package.

mod common;

use std::io::Write;
use std::os::unix::fs::{MetadataExt, chown};

use common::{Mountpoint, World, as_daemon, daemon, open_to_daemon};

#[test]
fn the_first_mount_starts_a_node_and_everything_comes_back_after_it_is_killed() {
    let world = World::for_mounts();
    let (one, two) = (Mountpoint::new(&world, "one"), Mountpoint::new(&world, "two"));
    let out = world.run(&["mount", "user/daemon", one.text()]).unwrap_ok();
    assert!(out.contains("user/daemon, a new namespace, is mounted at"), "{out}");
    let top = std::fs::metadata(&one.0).unwrap();
    assert_eq!((top.uid(), top.mode() & 0o7777), (daemon().uid, 0o700));
    world.run(&["mount", "user/daemon", one.text()]).refused(1, &["mounted there already"]);
    let bound = world.run(&["mount", "user/daemon", two.text(), "-o", "ro,mode=work"]).unwrap_ok();
    assert!(bound.contains("bound to its other mount"), "{bound}");
    world
        .run(&["mount", "user/daemon", two.text(), "-o", "mode=data"])
        .refused(2, &["mode work", "mode data"]);

    std::fs::write(one.0.join("a"), "kept").unwrap();
    std::fs::File::open(one.0.join("a")).unwrap().sync_all().unwrap();
    assert_eq!(std::fs::read(two.0.join("a")).unwrap(), b"kept");
    let refused = std::fs::write(two.0.join("b"), "x").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    let status: serde_json::Value =
        serde_json::from_str(&world.run(&["status", "--json"]).unwrap_ok()).unwrap();
    assert_eq!(
        (&status["mounts"][0]["read_only"], &status["mounts"][1]["read_only"]),
        (&false.into(), &true.into())
    );

    let pid = status["pid"].as_u64().unwrap();
    let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
    let process = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    rustix::event::poll(&mut [rustix::event::PollFd::new(&process, rustix::event::PollFlags::IN)], None)
        .unwrap();
    world.run(&["mount", "user/daemon", one.text()]).unwrap_ok();
    assert_eq!(std::fs::read(one.0.join("a")).unwrap(), b"kept");
    world.run(&["sync", one.text()]).unwrap_ok();
    world.run(&["umount", "--drain", one.text()]).unwrap_ok();
    assert!(!one.0.join("a").exists());
    world.run(&["umount", one.text()]).refused(1, &["granary status"]);
    world.run(&["node", "stop"]).unwrap_ok();
}

#[test]
fn a_node_that_runs_keeps_its_own_limits_and_says_so() {
    let world = World::for_mounts();
    let _node = world.node();
    let dir = Mountpoint::new(&world, "dir");
    let default = ["mount", "user/root", dir.text(), "--dirty-bytes-max", "16GiB"];
    let ran = world.run(&default);
    assert!(ran.code == 0 && ran.err.is_empty(), "{ran:?}");
    world.run(&["umount", dir.text()]).unwrap_ok();
    let ran = world.run(&["mount", "user/root", dir.text(), "-o", "dirty_bytes_max=1GiB,uploads_max=9"]);
    assert!(ran.code == 0 && ran.err.contains("other values of dirty_bytes_max, uploads_max"), "{ran:?}");
    let elsewhere = world.path("elsewhere");
    let other = ["mount", "user/root", dir.text(), "--cache", elsewhere.to_str().unwrap()];
    world.run(&other).refused(2, &["its cache in", "--socket"]);
}

/// Whether this kernel can be made to offer FUSE over io_uring.
fn has_rings() -> bool {
    std::path::Path::new("/sys/module/fuse/parameters/enable_uring").exists()
}

#[test]
fn each_mount_of_a_running_node_has_the_transport_that_it_asked_for() {
    let world = World::for_mounts();
    let _node = world.node();
    let [plain, one, two] = ["plain", "one", "two"].map(|name| Mountpoint::new(&world, name));
    world.run(&["mount", "user/root", plain.text()]).unwrap_ok();
    let ran = world.run(&["mount", "user/daemon", one.text(), "-o", "mode=data,transport=uring"]);
    // What the node does by itself is said nowhere: it is no setting that it ignores.
    assert!(!ran.err.contains("other values"), "{}", ran.err);
    let transports = || {
        let status: serde_json::Value =
            serde_json::from_str(&world.run(&["status", "--json"]).unwrap_ok()).unwrap();
        let mounts = status["mounts"].as_array().unwrap();
        mounts.iter().map(|mount| mount["transport"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    if !has_rings() {
        ran.refused(1, &["io_uring"]);
        assert_eq!(transports(), ["dev"]);
        return;
    }
    ran.unwrap_ok();
    let mut seen = transports();
    seen.sort();
    assert_eq!(seen, ["dev", "uring"]);
    // A second mountpoint is the same mount: it cannot come another way.
    world
        .run(&["mount", "user/daemon", two.text(), "-o", "transport=dev"])
        .refused(2, &["over uring", "leave transport out"]);
    world.run(&["mount", "user/daemon", two.text(), "-o", "transport=auto"]).unwrap_ok();
    world.run(&["mount", "user/daemon", two.text(), "-o", "transport=rail"]).refused(2, &["auto, dev"]);
    std::fs::write(one.0.join("a"), "over rings").unwrap();
    assert_eq!(std::fs::read(two.0.join("a")).unwrap(), b"over rings");
}

#[test]
fn users_mount_their_own_and_unmount_what_they_mounted() {
    let world = World::for_mounts();
    open_to_daemon(&world);
    let _node = world.node();
    let (own, roots) = (Mountpoint::new(&world, "own"), Mountpoint::new(&world, "roots"));
    chown(&own.0, Some(daemon().uid), Some(daemon().gid)).unwrap();
    as_daemon(&world, &["mount", "user/daemon", own.text()]).unwrap_ok();
    world.run(&["mount", "group/daemon", roots.text()]).unwrap_ok();
    as_daemon(&world, &["sync", own.text()]).unwrap_ok();
    as_daemon(&world, &["umount", roots.text()]).refused(1, &["mounted by somebody else"]);
    as_daemon(&world, &["umount", own.text()]).unwrap_ok();
    world.run(&["umount", roots.text()]).unwrap_ok();
}

#[test]
fn who_keeps_a_mount_busy_is_named_and_stopping_does_not_wait_for_ever() {
    let world = World::for_mounts();
    let node = world.try_node(&["--stop-wait-ms", "1"]).unwrap_or_else(|ran| panic!("{ran:?}"));
    let dir = Mountpoint::new(&world, "dir");
    world.run(&["mount", "user/root", dir.text()]).unwrap_ok();
    let mut open = std::fs::File::create(dir.0.join("open")).unwrap();
    let me = format!("pid {}", std::process::id());
    world.run(&["umount", dir.text()]).refused(1, &["is used by", &me]);
    let ran = world.run(&["node", "stop"]);
    assert!(ran.code == 0 && ran.err.contains(&me), "{ran:?}");
    let ended = node.ended();
    assert!(ended.code == 0 && ended.err.contains("although it is in use"), "{}", ended.err);
    assert!(open.write_all(b"late").is_err(), "a write after the node's end was acknowledged");
    assert!(!dir.0.join("open").exists());
}
