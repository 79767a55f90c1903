//! Locks where the namespace is shared, and what else is served only there.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod rig;
#[path = "rig/shared.rs"]
mod shared;

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::process::ExitStatusExt;
use std::os::unix::thread::JoinHandleExt;
use std::sync::Arc;

use granary_core::Ino;
use granary_fuse::Op;
use granary_fuse::vfs::{Access, WriteFlags};
use granary_meta::lease::LockKind;
use granary_tests::start;
use rig::{Rig, Setup, errno, until};
use rustix::fs::FlockOperation;
use shared::Shared;

fn shared() -> (Rig, Arc<Shared>) {
    let mut meta = None;
    let rig = Rig::over(&Setup::default(), |inner| {
        let shared = Shared::new(inner);
        meta = Some(shared.clone());
        shared
    });
    (rig, meta.unwrap())
}

fn open(rig: &Rig, name: &str) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(rig.at(name)).unwrap()
}

/// fcntl with a lock on `start..start + len` (0: to the end).
fn fcntl(file: &File, command: i32, kind: i32, start: i64, len: i64) -> std::io::Result<libc::flock> {
    let mut lock = libc::flock {
        l_type: kind as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: start,
        l_len: len,
        l_pid: 0,
    };
    // SAFETY: the descriptor is open, and the kernel reads and writes one `flock`.
    match unsafe { libc::fcntl(file.as_raw_fd(), command, &raw mut lock) } {
        -1 => Err(std::io::Error::last_os_error()),
        _ => Ok(lock),
    }
}

extern "C" fn nothing(_: i32) {}

#[test]
fn a_wait_for_a_lock_is_interrupted() {
    // SAFETY: the handler does nothing; without SA_RESTART the call that waits returns.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(i32) as usize;
        assert_eq!(libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()), 0);
    }
    let (rig, meta) = shared();
    let holder = open(&rig, "x");
    rustix::fs::flock(&holder, FlockOperation::LockExclusive).unwrap();
    for round in 0..50 {
        let file = open(&rig, "x");
        let waiter = std::thread::spawn(move || rustix::fs::flock(&file, FlockOperation::LockExclusive));
        if round % 2 == 0 {
            // Else it is interrupted wherever it has got to.
            until("it waits", || meta.waiting() == 1);
        }
        until("it returns", || {
            // SAFETY: the thread was not joined.
            unsafe { libc::pthread_kill(waiter.as_pthread_t(), libc::SIGUSR1) };
            waiter.is_finished()
        });
        assert_eq!(waiter.join().unwrap(), Err(rustix::io::Errno::INTR));
        assert_eq!((meta.waiting(), meta.locks().len()), (0, 1), "nothing is left of it");
    }
    rustix::fs::flock(&holder, FlockOperation::Unlock).unwrap();
    rustix::fs::flock(open(&rig, "x"), FlockOperation::NonBlockingLockExclusive).unwrap();
}

#[test]
fn a_program_that_waits_for_a_lock_can_be_killed() {
    let (rig, meta) = shared();
    let holder = open(&rig, "x");
    fcntl(&holder, libc::F_OFD_SETLK, libc::F_WRLCK, 0, 0).unwrap();
    let script = "import fcntl,sys; fcntl.lockf(open(sys.argv[1], 'r+'), fcntl.LOCK_EX)";
    let mut python = std::process::Command::new("python3");
    python.args(["-c", script]).arg(rig.at("x"));
    let mut child = start(python).child;
    until("it waits", || meta.waiting() == 1);
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
    until("its wait is over", || meta.waiting() == 0);
}

#[test]
fn a_wait_ends_when_the_lock_is_free() {
    let (rig, meta) = shared();
    let (holder, waiter) = (open(&rig, "x"), open(&rig, "x"));
    rustix::fs::flock(&holder, FlockOperation::LockShared).unwrap();
    rustix::fs::flock(&waiter, FlockOperation::NonBlockingLockShared).unwrap();
    let waits = std::thread::spawn(move || rustix::fs::flock(&waiter, FlockOperation::LockExclusive));
    until("it waits", || meta.waiting() == 1);
    drop(holder); // RELEASE unlocks
    waits.join().unwrap().unwrap();
}

/// Over a ring each that waits keeps an entry of its processor's queue, of which there are fewer at the start.
#[test]
fn an_unlock_passes_those_of_its_processor_that_wait() {
    const WAITERS: usize = 60;
    let on_one_processor = || {
        let mut set = rustix::thread::CpuSet::new();
        set.set(0);
        rustix::thread::sched_setaffinity(None, &set).unwrap();
    };
    let (rig, meta) = shared();
    let holder = open(&rig, "x");
    rustix::fs::flock(&holder, FlockOperation::LockExclusive).unwrap();
    let waiters: Vec<_> = (0..WAITERS)
        .map(|_| {
            let file = open(&rig, "x");
            std::thread::spawn(move || {
                on_one_processor();
                rustix::fs::flock(&file, FlockOperation::LockExclusive)
            })
        })
        .collect();
    until("all wait", || meta.waiting() == WAITERS);
    std::thread::spawn(move || {
        on_one_processor();
        rustix::fs::flock(&holder, FlockOperation::Unlock)
    })
    .join()
    .unwrap()
    .unwrap();
    // Each closes its file when it has the lock, for the next.
    for waiter in waiters {
        waiter.join().unwrap().unwrap();
    }
}

#[test]
fn both_kinds_are_told_apart_and_end_with_their_owner() {
    let (rig, meta) = shared();
    let one = open(&rig, "x");
    let two = open(&rig, "x");
    rustix::fs::flock(&one, FlockOperation::LockExclusive).unwrap();
    let taken = rustix::fs::flock(&two, FlockOperation::NonBlockingLockShared);
    assert_eq!(taken, Err(rustix::io::Errno::WOULDBLOCK));
    // The other kind knows nothing of it.
    fcntl(&two, libc::F_OFD_SETLK, libc::F_WRLCK, 10, 5).unwrap();
    assert_eq!(errno(fcntl(&one, libc::F_OFD_SETLK, libc::F_RDLCK, 14, 1)), libc::EAGAIN);
    fcntl(&one, libc::F_OFD_SETLK, libc::F_RDLCK, 15, 0).unwrap();
    let found = fcntl(&one, libc::F_OFD_GETLK, libc::F_RDLCK, 0, 0).unwrap();
    assert_eq!((i32::from(found.l_type), found.l_start, found.l_len), (libc::F_WRLCK, 10, 5));
    let found = fcntl(&one, libc::F_OFD_GETLK, libc::F_RDLCK, 20, 0).unwrap();
    assert_eq!(i32::from(found.l_type), libc::F_UNLCK);
    let to_the_end =
        meta.locks().iter().any(|l| l.kind == LockKind::Shared && (l.start, l.end) == (15, u64::MAX));
    assert!(to_the_end, "{:?}", meta.locks());
    assert_eq!(meta.locks().len(), 3);

    drop(one);
    until("its flock and its range end with the description", || meta.locks().len() == 1);
    drop(two);
    until("nothing is left", || meta.locks().is_empty());
}

#[test]
fn a_process_loses_its_locks_by_closing_any_descriptor() {
    let (rig, meta) = shared();
    let one = open(&rig, "x");
    fcntl(&one, libc::F_SETLK, libc::F_WRLCK, 0, 0).unwrap();
    assert_eq!(meta.locks().len(), 1);
    assert_eq!(meta.locks()[0].pid, std::process::id());
    drop(File::open(rig.at("x")).unwrap());
    assert!(meta.locks().is_empty(), "close waits for it: {:?}", meta.locks());
}

#[test]
fn a_write_tells_that_it_appends() {
    let (rig, _meta) = shared();
    fs::write(rig.at("log"), b"12345").unwrap();
    let mut appends = OpenOptions::new().append(true).open(rig.at("log")).unwrap();
    let ino = Ino(appends.metadata().unwrap().ino());
    // Somebody else appends, which this kernel does not hear of.
    let vfs = rig.mounted().vfs();
    let access = Access { read: true, write: true, ..Access::default() };
    let fh = rig.runtime.block_on(vfs.open(ino, access)).unwrap().unwrap().fh;
    let other = WriteFlags::default();
    rig.runtime.block_on(vfs.write(ino, fh, 5, b"678", other)).unwrap();
    appends.write_all(b"9").unwrap();
    let read = rig.runtime.block_on(vfs.read(ino, fh, 0, 100)).unwrap();
    assert_eq!(&read[..], b"123456789");
    rig.runtime.block_on(vfs.release(fh, None));
}

fn unnamed(rig: &Rig) -> File {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_TMPFILE).mode(0o640);
    options.open(rig.root()).unwrap()
}

fn inodes(rig: &Rig) -> u64 {
    let space = rig.mounted().vfs().statfs();
    space.inodes - space.inodes_free
}

#[test]
fn an_unnamed_file_is_written_and_gone_at_its_close() {
    let (rig, _meta) = shared();
    let before = inodes(&rig);
    let mut file = unnamed(&rig);
    file.write_all(b"unnamed").unwrap();
    let found = file.metadata().unwrap();
    assert_eq!((found.len(), found.nlink(), found.mode() & 0o7777), (7, 0, 0o640));
    assert_eq!((fs::read_dir(rig.root()).unwrap().count(), inodes(&rig)), (0, before + 1));
    drop(file);
    until("its inode is free", || inodes(&rig) == before);
}

#[test]
fn an_unnamed_file_gets_a_name_and_keeps_its_bytes() {
    let (rig, meta) = shared();
    meta.keep_unnamed();
    for (name, flag) in [("followed", libc::AT_SYMLINK_FOLLOW), ("empty", libc::AT_EMPTY_PATH)] {
        let mut file = unnamed(&rig);
        file.write_all(name.as_bytes()).unwrap();
        let from = match flag {
            libc::AT_EMPTY_PATH => CString::default(),
            _ => CString::new(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap(),
        };
        let to = CString::new(rig.at(name).into_os_string().into_encoded_bytes()).unwrap();
        // SAFETY: both paths end with a zero, and the descriptor is open.
        let failed =
            unsafe { libc::linkat(file.as_raw_fd(), from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), flag) };
        assert_eq!(failed, 0, "{name}: {}", std::io::Error::last_os_error());
        let closed = rig.metrics.count(Op::Release);
        drop(file);
        until("it is closed", || rig.metrics.count(Op::Release) > closed);
        assert_eq!(fs::read(rig.at(name)).unwrap(), name.as_bytes());
    }
}
