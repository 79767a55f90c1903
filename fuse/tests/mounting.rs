//! Mounting, unmounting, and everything that can be in the way.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod rig;

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use granary_core::Kind;
use granary_fuse::mount::table;
use granary_fuse::{MountOptions, Stop, bind, unmount};
use granary_tests::start;
use rig::{Rig, errno, until, work};

fn mounts_at(path: &Path) -> usize {
    table::read().unwrap().iter().filter(|mount| mount.path == path).count()
}

#[test]
fn a_mount_is_called_what_it_is_and_is_safe_by_default() {
    let rig = work();
    let mount = table::at(&rig.root()).unwrap().unwrap();
    assert_eq!((mount.fs_type.as_str(), mount.source.as_str()), ("fuse.granary", "user/alice"));
    let line = fs::read_to_string("/proc/self/mounts").unwrap();
    let line = line.lines().find(|line| line.contains(&*rig.root().to_string_lossy())).unwrap().to_owned();
    for option in ["nosuid", "nodev", "noatime", "default_permissions", "allow_other"] {
        assert!(line.contains(option), "{line}");
    }
    let (major, minor) = rig.mounted().device();
    let ahead = fs::read_to_string(format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb")).unwrap();
    assert_eq!(ahead.trim(), "2048");
}

#[test]
fn stopping_unmounts_and_gives_everything_back() {
    let rig = work();
    let root = rig.root();
    fs::write(rig.at("x"), b"x").unwrap();
    rig.stop(Stop::Clean).unwrap();
    assert_eq!(mounts_at(&root), 0);
    assert!(rig.mounted().has_ended());
    assert_eq!(rig.mounted().vfs().files_in_use(), 0);
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0, "the mountpoint itself is empty");
    rig.stop(Stop::Clean).unwrap();
}

#[test]
fn a_busy_mount_says_who_keeps_it() {
    let rig = work();
    let root = rig.root();
    fs::write(rig.at("held"), b"x").unwrap();
    let mut sleeper = Command::new("cat");
    sleeper.current_dir(&root).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut sleeper = start(sleeper);
    let e = unmount(&root, false).unwrap_err();
    assert_eq!(e.kind(), Kind::Busy);
    let text = e.to_string();
    assert!(text.contains(&format!("pid {}, working directory", sleeper.child.id())), "{text}");
    assert!(text.starts_with(&format!("cannot unmount {}", root.display())), "{text}");
    drop(sleeper.input.take());
    sleeper.child.wait().unwrap();

    let open = File::open(rig.at("held")).unwrap();
    let e = rig.stop(Stop::Clean).unwrap_err();
    assert!(e.to_string().contains(&format!("pid {}, open file", std::process::id())), "{e}");
    assert_eq!(fs::read(rig.at("held")).unwrap(), b"x", "it goes on");
    drop(open);
    rig.stop(Stop::Clean).unwrap();
}

#[test]
fn a_lazy_unmount_ends_when_the_last_file_is_closed() {
    let rig = work();
    let root = rig.root();
    fs::write(rig.at("held"), b"bytes").unwrap();
    let mut open = File::open(rig.at("held")).unwrap();
    unmount(&root, true).unwrap();
    assert_eq!(mounts_at(&root), 0);
    assert!(!rig.mounted().has_ended());
    let mut text = String::new();
    open.read_to_string(&mut text).unwrap();
    assert_eq!(text, "bytes");
    drop(open);
    rig.runtime.block_on(rig.mounted().wait()).unwrap();
    assert!(rig.mounted().has_ended());
    assert_eq!(rig.mounted().vfs().files_in_use(), 0);
}

#[test]
fn an_abort_ends_it_whoever_uses_it() {
    let rig = work();
    fs::write(rig.at("held"), vec![1; 100]).unwrap();
    let mut open = File::open(rig.at("held")).unwrap();
    rig.stop(Stop::Abort).unwrap();
    assert!(rig.mounted().has_ended());
    let code = errno(open.read(&mut [0; 10]));
    assert!([libc::ENOTCONN, libc::ECONNABORTED, libc::EIO].contains(&code), "{code}");
    assert_eq!(rig.mounted().vfs().files_in_use(), 0, "what was open is given back");
}

#[test]
fn only_our_own_mount_is_unmounted() {
    let rig = work();
    let root = rig.root();
    rustix::mount::mount("none", &root, "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
    let e = rig.stop(Stop::Clean).unwrap_err();
    assert_eq!(e.kind(), Kind::Busy);
    assert!(e.to_string().contains("(tmpfs) is mounted over it"), "{e}");
    let e = unmount(&root, true).unwrap_err();
    assert!(e.to_string().contains("not a namespace; use umount"), "{e}");
    assert_eq!(mounts_at(&root), 2);
    rustix::mount::unmount(&root, rustix::mount::UnmountFlags::empty()).unwrap();
    rig.stop(Stop::Clean).unwrap();
    assert_eq!(mounts_at(&root), 0);
    let e = unmount(&root, false).unwrap_err();
    assert!(e.to_string().contains("no namespace is mounted there"), "{e}");
}

#[test]
fn a_second_mountpoint_shows_the_same_files() {
    let rig = work();
    let (second, third) = (rig.outside("second"), rig.outside("third"));
    fs::create_dir(&second).unwrap();
    fs::create_dir(&third).unwrap();
    let second = bind(&rig.root(), &second, &MountOptions::default()).unwrap();
    let third = bind(&second, &third, &MountOptions::parse("ro,mode=work").unwrap()).unwrap();
    fs::write(second.join("x"), b"bytes").unwrap();
    assert_eq!(fs::read(rig.at("x")).unwrap(), b"bytes");
    assert_eq!(fs::read(third.join("x")).unwrap(), b"bytes");
    assert_eq!(errno(fs::write(third.join("y"), b"")), libc::EROFS);
    assert_eq!(rig.mounted().mountpoints().unwrap().len(), 3);
    let again = bind(&rig.root(), &second, &MountOptions::default()).unwrap_err();
    assert_eq!(again.kind(), Kind::Exists);

    // The first may go before the others.
    unmount(&rig.root(), false).unwrap();
    assert!(!rig.mounted().has_ended());
    assert_eq!(fs::read(second.join("x")).unwrap(), b"bytes");
    unmount(&third, false).unwrap();
    rig.stop(Stop::Clean).unwrap();
    assert_eq!((mounts_at(&second), mounts_at(&third)), (0, 0));
    let e = bind(&second, &third, &MountOptions::default()).unwrap_err();
    assert!(e.to_string().contains("no mounted namespace"), "{e}");
}

#[test]
fn a_mount_whose_process_is_gone_is_cleaned_up() {
    let rig = work();
    let dead = rig.outside("dead");
    fs::create_dir(&dead).unwrap();
    // A FUSE mount whose descriptor is closed is what a killed process leaves.
    let device = File::options().read(true).write(true).open("/dev/fuse").unwrap();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&device);
    let data = std::ffi::CString::new(format!("fd={fd},rootmode=40000,user_id=0,group_id=0")).unwrap();
    let none = rustix::mount::MountFlags::empty();
    rustix::mount::mount("user/alice", &dead, "fuse.granary", none, data.as_c_str()).unwrap();
    drop(device);
    assert_eq!(errno(fs::metadata(&dead)), libc::ENOTCONN);
    let bound = bind(&rig.root(), &dead, &MountOptions::default()).unwrap();
    fs::write(bound.join("x"), b"x").unwrap();
    assert_eq!(fs::read(rig.at("x")).unwrap(), b"x");
    assert_eq!(mounts_at(&bound), 1);
}

#[test]
fn a_rig_that_is_dropped_leaves_nothing() {
    let (root, device) = {
        let rig: Rig = work();
        fs::write(rig.at("x"), b"x").unwrap();
        (rig.root(), rig.mounted().device())
    };
    assert_eq!(mounts_at(&root), 0);
    until("its file system is gone", || {
        table::of_device(device.0, device.1).unwrap().iter().all(|m| !m.is_ours())
    });
}
