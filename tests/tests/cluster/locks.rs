//! flock, fcntl and OFD locks between programs of different nodes, whose owners are killed: the process, and the node. Mode
//! `data` has locks among the programs of one node only: the kernel does not tell when its files are closed.

use std::path::PathBuf;

use granary_tests::{Cluster, Locker, until};

fn two_nodes() -> (Cluster, Vec<PathBuf>) {
    let cluster = Cluster::new(2);
    let mounts = cluster.mount("");
    std::fs::write(mounts[0].join("locked"), "0123456789").expect("write");
    let paths = mounts.iter().map(|m| m.join("locked")).collect();
    (cluster, paths)
}

#[test]
fn the_three_kinds_conflict_between_nodes_and_end_with_their_process() {
    let (_cluster, paths) = two_nodes();
    for (take, share, free) in [
        ("flock f ex", "flock f sh nb", "flock f un"),
        ("posix f ex 0 10", "posix f sh 9 1 nb", "posix f un 0 0"),
        ("ofd f ex 0 10", "ofd f sh 9 1 nb", "ofd f un 0 0"),
    ] {
        let (mut a, mut b) = (Locker::with(&paths[0]), Locker::with(&paths[1]));
        a.is(take, "ok");
        b.is(share, "EAGAIN");
        a.is(free, "ok");
        b.is(share, "ok");
        b.is(free, "ok");
        // Interrupted while it waits, then served when the owner is killed.
        a.is(take, "ok");
        b.waits(take);
        b.interrupt();
        assert_eq!(b.answer(), "EINTR", "{take}");
        b.waits(take);
        a.kill();
        assert_eq!(b.answer(), "ok", "{take}");
        // A waiter that is killed leaves nothing behind.
        let (mut c, mut d) = (Locker::with(&paths[0]), Locker::with(&paths[0]));
        c.waits(take);
        c.kill();
        b.is(free, "ok");
        d.is(take, "ok");
    }
}

#[test]
fn fcntl_locks_are_ranges_across_nodes() {
    let (_cluster, paths) = two_nodes();
    let (mut a, mut b) = (Locker::with(&paths[0]), Locker::with(&paths[1]));
    a.is("posix f ex 0 100", "ok");
    b.is("posix f ex 100 0 nb", "ok");
    a.is("posix f ex 100 1 nb", "EAGAIN");
    a.is("posix f un 40 20", "ok");
    b.is("posix f ex 40 20 nb", "ok");
    let answer = b.ask("getlk f ex 0 1");
    assert!(answer.starts_with("ex 0 40 "), "{answer}");
    // Two nodes that wait for each other: the service sees it, and refuses whichever of them it hears last.
    b.waits("posix f ex 0 1");
    a.tell("posix f ex 40 1");
    until("one of the two is refused", || a.has_answered() || b.has_answered());
    let (refused, waiting) = if a.has_answered() { (&mut a, &mut b) } else { (&mut b, &mut a) };
    assert_eq!(refused.answer(), "EDEADLK");
    waiting.interrupt();
    assert_eq!(waiting.answer(), "EINTR");
    a.is(&format!("open g {}", paths[0].display()), "ok");
    a.is("close g", "ok");
    b.is("posix f ex 0 0 nb", "ok");
}

#[test]
fn a_killed_nodes_locks_end_with_its_lease() {
    let (mut cluster, paths) = two_nodes();
    let (mut a, mut b) = (Locker::with(&paths[0]), Locker::with(&paths[1]));
    a.is("flock f ex", "ok");
    a.is("posix f ex 0 0", "ok");
    b.is("flock f ex nb", "EAGAIN");
    cluster.nodes[0].kill();
    // Not at once: nobody knows yet that it will not come back. Then both, without anybody's doing.
    b.is("flock f ex", "ok");
    b.is("posix f ex 0 0", "ok");
    a.kill();
    cluster.nodes[0].start();
    cluster.nodes[0].mount("group/team", "");
    let mut c = Locker::with(&paths[0]);
    c.is("flock f ex nb", "EAGAIN");
    b.kill();
    c.is("flock f ex", "ok");
}

#[test]
fn locks_live_through_a_restart_of_the_service() {
    let (mut cluster, paths) = two_nodes();
    let (mut a, mut b) = (Locker::with(&paths[0]), Locker::with(&paths[1]));
    a.is("flock f ex", "ok");
    a.is("posix f ex 5 5", "ok");
    b.waits("flock f ex");
    cluster.service.kill();
    cluster.service.start();
    let mut c = Locker::with(&paths[1]);
    c.is("flock f sh nb", "EAGAIN");
    c.is("posix f ex 5 1 nb", "EAGAIN");
    c.is("posix f ex 0 5 nb", "ok");
    a.is("flock f un", "ok");
    assert_eq!(b.answer(), "ok");
}
