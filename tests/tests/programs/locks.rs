//! flock, fcntl and OFD locks among programs of one node, with owners that are killed, and waits that are interrupted.

use std::path::PathBuf;

use granary_tests::Locker;

use crate::rig::{Mode, Rig};

/// Three processes with one file open, in each mode.
fn three(name: &str, test: impl Fn(Locker, Locker, Locker, PathBuf)) {
    let rig = Rig::get();
    for mode in [Mode::Work, Mode::Data] {
        let path = rig.directory(mode, name).join("locked");
        std::fs::write(&path, "0123456789").expect("write");
        test(Locker::with(&path), Locker::with(&path), Locker::with(&path), path);
    }
}

#[test]
fn flock_is_shared_or_exclusive_and_ends_with_its_owner() {
    three("flock", |mut a, mut b, mut c, path| {
        a.is("flock f sh", "ok");
        b.is("flock f sh nb", "ok");
        c.is("flock f ex nb", "EAGAIN");
        b.is("flock f un", "ok");
        a.is("flock f ex nb", "ok");
        b.is("flock f sh nb", "EAGAIN");
        // A dup is the same owner; the last close ends it.
        a.is("dup f g", "ok");
        a.is("close f", "ok");
        b.is("flock f sh nb", "EAGAIN");
        a.is("close g", "ok");
        b.is("flock f ex nb", "ok");
        // A waiter is interrupted; another gets the lock when its owner is killed.
        c.waits("flock f ex");
        c.interrupt();
        assert_eq!(c.answer(), "EINTR");
        c.waits("flock f ex");
        b.kill();
        assert_eq!(c.answer(), "ok");
        // An open file of the owner's own stands against it, too.
        c.is(&format!("open g {}", path.display()), "ok");
        c.is("flock g sh nb", "EAGAIN");
        // A killed waiter leaves nothing behind.
        let mut d = Locker::with(&path);
        d.waits("flock f ex");
        d.kill();
        c.is("flock f un", "ok");
        a.is(&format!("open f {}", path.display()), "ok");
        a.is("flock f ex nb", "ok");
    });
}

#[test]
fn fcntl_locks_are_ranges_of_a_process() {
    three("fcntl", |mut a, mut b, mut c, path| {
        a.is("posix f ex 0 100", "ok");
        b.is("posix f ex 100 0 nb", "ok");
        b.is("posix f sh 99 1 nb", "EAGAIN");
        let holder = format!("ex 0 100 {}", a.pid());
        b.is("getlk f ex 50 1", &holder);
        a.is("getlk f ex 50 1", "free");
        // A hole in the middle; downgraded at one end.
        a.is("posix f un 40 20", "ok");
        a.is("posix f sh 0 10", "ok");
        b.is("posix f ex 40 20 nb", "ok");
        b.is("posix f sh 0 10 nb", "ok");
        b.is("posix f ex 10 1 nb", "EAGAIN");
        c.is("getlk f ex 60 1000", &format!("ex 60 40 {}", a.pid()));
        // Any close of the file by the process ends them all.
        a.is(&format!("open g {}", path.display()), "ok");
        a.is("close g", "ok");
        c.is("posix f ex 10 30 nb", "ok");
        c.is("posix f ex 60 40 nb", "ok");
        // Two that wait for each other: the kernel sees it.
        a.is("posix f ex 10000 1 nb", "EAGAIN");
        b.is("posix f un 0 0", "ok");
        a.is("posix f ex 10000 1 nb", "ok");
        c.waits("posix f ex 10000 1");
        a.is("posix f ex 10 1", "EDEADLK");
        c.interrupt();
        assert_eq!(c.answer(), "EINTR");
        c.waits("posix f sh 10000 1");
        a.kill();
        assert_eq!(c.answer(), "ok");
        c.is("posix f sh 9223372036854775806 1 nb", "ok");
        c.is("posix f sh -1 1 nb", "EINVAL");
    });
}

#[test]
fn ofd_locks_belong_to_the_open_file() {
    three("ofd", |mut a, mut b, mut c, path| {
        a.is("ofd f ex 0 10", "ok");
        a.is(&format!("open g {}", path.display()), "ok");
        // Of one process, but another open file; closing it changes nothing.
        a.is("ofd g ex 5 1 nb", "EAGAIN");
        a.is("close g", "ok");
        b.is("ofd f sh 0 1 nb", "EAGAIN");
        // They and fcntl's know each other; the holder has no process.
        b.is("posix f ex 9 1 nb", "EAGAIN");
        b.is("getlk f ex 0 0", "ex 0 10 -1");
        a.is("dup f g", "ok");
        a.is("close f", "ok");
        b.is("ofd f sh 0 1 nb", "EAGAIN");
        b.waits("ofd f sh 0 1");
        c.waits("posix f sh 1 1");
        a.kill();
        assert_eq!(b.answer(), "ok");
        assert_eq!(c.answer(), "ok");
    });
}
