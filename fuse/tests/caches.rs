//! What the kernel keeps, and how it is told; and what it leaves to the file system.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod rig;

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::time::{Duration, UNIX_EPOCH};

use granary_core::{Ino, Kind};
use granary_fuse::Op;
use rig::{Rig, data, pattern, work};

fn asked(made: &[(Op, u64)], op: Op) -> u64 {
    made.iter().find(|(made, _)| *made == op).map_or(0, |(_, n)| *n)
}

#[test]
fn attributes_are_asked_for_again_when_told() {
    for rig in [work(), data()] {
        fs::write(rig.at("x"), b"x").unwrap();
        let notifier = rig.mounted().notifier().unwrap();
        let stat = || fs::metadata(rig.at("x")).unwrap();
        let ino = Ino(stat().ino());
        stat();
        assert_eq!(rig.requests(stat).1, []);
        notifier.invalidate_attributes(ino).unwrap();
        let (_, made) = rig.requests(stat);
        assert_eq!(asked(&made, Op::Getattr) + asked(&made, Op::Statx), 1, "{made:?}");
        assert_eq!(rig.requests(stat).1, []);
        notifier.invalidate_attributes(Ino(u64::MAX - 7)).unwrap(); // which the kernel does not have
    }
}

#[test]
fn pages_are_read_again_when_told() {
    let rig = data();
    let bytes = pattern(300_000, 1);
    fs::write(rig.at("x"), &bytes).unwrap();
    let notifier = rig.mounted().notifier().unwrap();
    let read = || assert!(fs::read(rig.at("x")).unwrap() == bytes);
    read();
    assert_eq!(asked(&rig.requests(read).1, Op::Read), 0);
    let ino = Ino(fs::metadata(rig.at("x")).unwrap().ino());
    notifier.invalidate_attributes(ino).unwrap();
    assert_eq!(asked(&rig.requests(read).1, Op::Read), 0, "pages stay");
    notifier.invalidate_pages(ino, 8192, 4096).unwrap();
    assert!(asked(&rig.requests(read).1, Op::Read) > 0);
    assert_eq!(asked(&rig.requests(read).1, Op::Read), 0);
    notifier.invalidate_pages(ino, 0, 0).unwrap();
    assert!(asked(&rig.requests(read).1, Op::Read) > 0);
}

#[test]
fn names_are_looked_up_again_when_told() {
    let rig = work();
    fs::create_dir(rig.at("d")).unwrap();
    fs::write(rig.at("d/x"), b"x").unwrap();
    let notifier = rig.mounted().notifier().unwrap();
    let look = || {
        fs::metadata(rig.at("d/x")).unwrap();
        fs::metadata(rig.at("d/absent")).unwrap_err();
    };
    look();
    look();
    assert_eq!(rig.requests(look).1, []);
    if notifier.supported() {
        notifier.invalidate_entries().unwrap();
        assert_eq!(asked(&rig.requests(look).1, Op::Lookup), 3, "d, x and absent");
        assert_eq!(rig.requests(look).1, []);
    } else {
        assert_eq!(notifier.invalidate_entries().unwrap_err().kind(), Kind::Unsupported);
    }
}

#[test]
fn after_the_end_of_a_mount_there_is_nothing_to_tell() {
    let rig = work();
    let notifier = rig.mounted().notifier().unwrap();
    rig.stop(granary_fuse::Stop::Clean).unwrap();
    notifier.invalidate_attributes(Ino(1)).unwrap();
    notifier.invalidate_pages(Ino(1), 0, 0).unwrap();
}

#[test]
fn the_time_of_birth_is_told() {
    for rig in [work(), data()] {
        fs::write(rig.at("x"), b"x").unwrap();
        let stat = || fs::metadata(rig.at("x")).unwrap();
        let (found, made) = rig.requests(stat);
        assert_eq!(asked(&made, Op::Statx), 1, "{made:?}");
        let attr = rig.runtime.block_on(rig.mounted().vfs().getattr(Ino(found.ino()))).unwrap();
        let born = UNIX_EPOCH + Duration::new(attr.btime.secs as u64, attr.btime.nanos);
        assert_eq!(found.created().unwrap(), born);
        File::options().write(true).open(rig.at("x")).unwrap().set_modified(UNIX_EPOCH).unwrap();
        assert_eq!(stat().created().unwrap(), born);
        assert_eq!(stat().modified().unwrap(), UNIX_EPOCH);
        let dir = fs::metadata(rig.root()).unwrap();
        assert!(dir.created().unwrap() <= born);
        assert_eq!(rig.requests(stat).1, [], "it is kept as well");
    }
}

/// Runs `work` in a thread of its own that has this user and no capability.
fn as_user<T: Send>(uid: u32, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: by the system call itself it is this thread's user alone that changes.
            let failed = unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) };
            assert_eq!(failed, 0);
            work()
        });
        thread.join().unwrap()
    })
}

#[test]
fn a_users_write_clears_set_id_bits_and_roots_does_not() {
    let mode_of = |rig: &Rig| fs::metadata(rig.at("x")).unwrap().mode() & 0o7777;
    for rig in [work(), data()] {
        let created = OpenOptions::new().write(true).create_new(true).open(rig.at("x")).unwrap();
        let write_only = || OpenOptions::new().write(true).open(rig.at("x")).unwrap();
        let read_write = || OpenOptions::new().read(true).write(true).open(rig.at("x")).unwrap();
        for (i, file) in [created, write_only(), read_write()].iter().enumerate() {
            for (before, after) in [(0o6755, 0o755), (0o4644, 0o644), (0o2745, 0o2745), (0o755, 0o755)] {
                file.set_permissions(fs::Permissions::from_mode(before)).unwrap();
                file.write_all_at(b"root", 0).unwrap();
                assert_eq!(mode_of(&rig), before, "handle {i}");
                as_user(1000, || file.write_all_at(b"user", 0).unwrap());
                assert_eq!(mode_of(&rig), after, "handle {i}, {before:o}");
            }
        }
        let mut read = String::new();
        File::open(rig.at("x")).unwrap().read_to_string(&mut read).unwrap();
        assert_eq!(read, "user");
    }
}

#[test]
fn a_users_truncation_and_chown_clear_set_id_bits() {
    let rig = work();
    let mut file = File::create(rig.at("x")).unwrap();
    file.write_all(b"12345").unwrap();
    file.set_permissions(fs::Permissions::from_mode(0o6755)).unwrap();
    as_user(1000, || file.set_len(2).unwrap());
    assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o755);
    file.set_permissions(fs::Permissions::from_mode(0o6755)).unwrap();
    std::os::unix::fs::fchown(&file, Some(1000), Some(1000)).unwrap();
    assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o755);
}
