//! The node's disk is filled by others, fails, and is taken away, on real file systems: an errno that says so, the status says
//! why, nothing acknowledged is lost, and it goes on by itself where that can be.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use granary_tests::{Node, SmallDisk, StoreKind, drop_page_cache, until};

/// Nothing leaves for the store by itself; a tenth of the disk is left to others.
fn node_on(disk: &SmallDisk, more: &[(&str, &str)]) -> Node {
    let cache = disk.path_of("cache");
    let mut settings = vec![
        ("GRANARY_CACHE", cache.as_str()),
        ("GRANARY_CACHE_FREE_BYTES_MIN", "0"),
        ("GRANARY_CACHE_FREE_PERCENT_MIN", "10"),
        ("GRANARY_SMALL_PERIOD_MS", "3600000"),
        ("GRANARY_LARGE_PERIOD_MS", "3600000"),
    ];
    settings.extend(more);
    Node::with_settings(StoreKind::Folder, &settings)
}

fn content(n: u64, len: usize) -> Vec<u8> {
    (0..len).map(|i| (n * 31 + i as u64 * 7 + i as u64 / 251) as u8).collect()
}

/// Written and acknowledged by fsync.
fn put(dir: &Path, n: u64, len: usize) -> std::io::Result<()> {
    let mut file = File::create(dir.join(format!("f{n}")))?;
    file.write_all(&content(n, len))?;
    file.sync_all()
}

fn check(dir: &Path, acknowledged: &[(u64, usize)], when: &str) {
    for &(n, len) in acknowledged {
        let found = fs::read(dir.join(format!("f{n}"))).unwrap_or_else(|e| panic!("{when}: f{n}: {e}"));
        assert!(found == content(n, len), "{when}: f{n} differs");
    }
}

fn errno(e: &std::io::Error) -> i32 {
    e.raw_os_error().expect("an errno")
}

/// After a crash, everything that was acknowledged is there.
fn crash_and_check(node: &mut Node, acknowledged: &[(u64, usize)]) {
    node.kill();
    node.start();
    let dir = node.mount("user/alice", "");
    check(&dir, acknowledged, "after the crash");
    node.umount(&dir);
    node.stop();
}

#[test]
fn writers_wait_for_the_store_while_the_disk_is_short_and_leave_room_to_others() {
    let disk = SmallDisk::new(160);
    let mut node = node_on(&disk, &[]);
    let dir = node.mount("user/alice", "");
    let mut acknowledged = Vec::new();
    // Three times what the disk has, without a pause.
    for n in 0..240 {
        let len = if n % 8 == 7 { 9 << 20 } else { 1 << 20 };
        fs::write(dir.join(format!("f{n}")), content(n, len)).expect("a write waits, and does not fail");
        acknowledged.push((n, len));
        if n == 100 {
            // 196 MiB were written.
            assert!(!node.stored_objects().is_empty(), "what is dirty leaves although its period is an hour");
        }
        // A tenth is 15 MiB; what was admitted by the last look, and the metadata of ext4, may be missing of it.
        assert!(disk.free_bytes() > 4 << 20, "{} MiB free after f{n}", disk.free_bytes() >> 20);
    }
    drop_page_cache();
    check(&dir, &acknowledged, "through a full disk");
    crash_and_check(&mut node, &acknowledged);
}

#[test]
fn a_disk_that_others_fill_is_told_and_goes_on_when_they_leave() {
    let disk = SmallDisk::new(160);
    let mut node = node_on(&disk, &[]);
    let dir = node.mount("user/alice", "");
    let mut acknowledged = Vec::new();
    for n in 0..20 {
        put(&dir, n, if n == 7 { 3 << 20 } else { 20_000 }).expect("there is room");
        acknowledged.push((n, if n == 7 { 3 << 20 } else { 20_000 }));
        if n == 9 {
            node.sync(&dir);
        }
    }
    disk.fill(0);
    // What was dirty has gone to the store; then there is nothing left to wait for.
    let e = put(&dir, 100, 200_000).expect_err("there is no room");
    assert_eq!(errno(&e), libc::ENOSPC, "{e}");
    let e = fs::write(dir.join("big.bin"), vec![1; 5 << 20]).expect_err("there is no room");
    assert_eq!(errno(&e), libc::ENOSPC, "{e}");
    let status = node.ok(&["status"]);
    assert!(status.contains("DISK: the disk of") && status.contains(&disk.path_of("cache")), "{status}");
    assert!(node.log().contains("free some space"), "{}", node.log());
    drop_page_cache();
    check(&dir, &acknowledged, "on the full disk");
    disk.empty();
    until("it goes on by itself", || put(&dir, 101, 200_000).is_ok());
    acknowledged.push((101, 200_000));
    until("the status is clean", || !node.ok(&["status"]).contains("DISK"));
    crash_and_check(&mut node, &acknowledged);
}

/// The embedded metadata's database lies there too, and takes no more for a while.
#[test]
fn metadata_on_the_full_disk_goes_on_without_a_restart() {
    let disk = SmallDisk::new(200);
    let meta = disk.path_of("meta");
    let mut node = node_on(&disk, &[("GRANARY_META", &meta)]);
    let dir = node.mount("user/alice", "");
    let mut acknowledged: Vec<(u64, usize)> = (0..10).map(|n| (n, 10_000)).collect();
    acknowledged.iter().for_each(|&(n, len)| put(&dir, n, len).expect("there is room"));
    disk.fill(0);
    // The database's log was given its space before: it takes some until it has to begin a table.
    let value = content(5, 60_000);
    let mut named = Vec::new();
    let mut failed = None;
    for n in 0..4000 {
        let path = dir.join(format!("f{}", n % 10));
        let set = rustix::fs::setxattr(&path, format!("user.x{n}"), &value, rustix::fs::XattrFlags::empty());
        let synced = set.map_err(std::io::Error::from).and_then(|()| File::open(&path)?.sync_all());
        match synced {
            Ok(()) => named.push((path, format!("user.x{n}"))),
            Err(e) => {
                failed = Some(e);
                break;
            }
        }
    }
    let e = failed.expect("the disk is full");
    assert_eq!(errno(&e), libc::ENOSPC, "{e}");
    until("the status tells why", || node.ok(&["status"]).contains("NO CHANGES are taken"));
    assert!(node.ok(&["status"]).contains(&meta), "{}", node.ok(&["status"]));
    drop_page_cache();
    check(&dir, &acknowledged, "while the metadata cannot be written");
    disk.empty();
    until("it goes on by itself", || put(&dir, 200, 10_000).is_ok());
    acknowledged.push((200, 10_000));
    until("the status is clean", || !node.ok(&["status"]).contains("NO CHANGES"));
    node.kill();
    node.start();
    let dir = node.mount("user/alice", "");
    check(&dir, &acknowledged, "after the crash");
    for (path, name) in named {
        let mut found = vec![0; 65_536];
        let len = rustix::fs::getxattr(&path, &*name, &mut found).expect("it was acknowledged");
        assert!(found[..len] == value, "{name} of {}", path.display());
    }
    node.umount(&dir);
    node.stop();
}

#[test]
fn a_disk_that_fails_is_told_and_what_is_stored_is_read_on() {
    let disk = SmallDisk::new(160);
    let mut node = node_on(&disk, &[]);
    let dir = node.mount("user/alice", "");
    let stored: Vec<(u64, usize)> = (0..10).map(|n| (n, 50_000)).collect();
    stored.iter().for_each(|&(n, len)| put(&dir, n, len).expect("it works"));
    node.sync(&dir);
    put(&dir, 50, 30_000).expect("it works");
    disk.abort();
    let e = put(&dir, 60, 30_000).expect_err("the disk takes nothing");
    assert_eq!(errno(&e), libc::EROFS, "{e}");
    until("the status tells why", || node.ok(&["status"]).contains("WRITES FAIL"));
    let status = node.ok(&["status"]);
    assert!(status.contains("Read-only file system") && status.contains(&disk.path_of("cache")), "{status}");
    drop_page_cache();
    check(&dir, &stored, "on the failed disk");
    node.kill();
    disk.repair();
    node.start();
    let dir = node.mount("user/alice", "");
    check(&dir, &stored, "after the repair");
    check(&dir, &[(50, 30_000)], "after the repair");
    put(&dir, 61, 30_000).expect("it works again");
    node.umount(&dir);
    node.stop();
}

#[test]
fn a_cache_directory_that_is_moved_away_is_told_and_may_come_back() {
    let mut node = Node::with_settings(StoreKind::Folder, &[("GRANARY_SMALL_PERIOD_MS", "3600000")]);
    let dir = node.mount("user/alice", "");
    let mut acknowledged = Vec::new();
    for n in 0..10 {
        put(&dir, n, 50_000).expect("it is there");
        acknowledged.push((n, 50_000));
        if n == 5 {
            node.sync(&dir);
        }
    }
    let (cache, away) = (node.path("cache"), node.path("away"));
    fs::rename(&cache, &away).expect("rename");
    let e = put(&dir, 20, 50_000).expect_err("nobody would find it again");
    assert_eq!(errno(&e), libc::EIO, "{e}");
    let status = node.ok(&["status"]);
    assert!(status.contains("removed or replaced"), "{status}");
    assert!(status.contains(cache.to_str().expect("utf-8")), "{status}");
    drop_page_cache();
    check(&dir, &acknowledged, "while it is away");
    fs::rename(&away, &cache).expect("rename");
    until("it goes on by itself", || put(&dir, 21, 50_000).is_ok());
    acknowledged.push((21, 50_000));
    until("the status is clean", || !node.ok(&["status"]).contains("removed or replaced"));
    crash_and_check(&mut node, &acknowledged);
}

/// Removed for good: what is in the store is read on, and nothing is called kept.
#[test]
fn a_cache_directory_that_is_removed_never_makes_fsync_lie() {
    let mut node = Node::with_settings(StoreKind::Folder, &[("GRANARY_SMALL_PERIOD_MS", "3600000")]);
    let dir = node.mount("user/alice", "");
    let stored: Vec<(u64, usize)> = (0..10).map(|n| (n, 50_000)).collect();
    stored.iter().for_each(|&(n, len)| put(&dir, n, len).expect("it is there"));
    node.sync(&dir);
    fs::remove_dir_all(node.path("cache")).expect("remove");
    for n in 20..23 {
        assert_eq!(errno(&put(&dir, n, 50_000).expect_err("it would not be kept")), libc::EIO);
    }
    assert!(node.ok(&["status"]).contains("removed or replaced"), "{}", node.ok(&["status"]));
    drop_page_cache();
    check(&dir, &stored, "without a cache");
    node.kill();
    node.start();
    let dir = node.mount("user/alice", "");
    check(&dir, &stored, "after a restart with a new cache");
    put(&dir, 30, 50_000).expect("it works again");
    node.umount(&dir);
    node.stop();
}
