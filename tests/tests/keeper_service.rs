//! Mounts through a metadata service outlive the node process too, with their open files, locks and leases, while other nodes use
//! the same files.
//!
//! How long programs waited is printed, and never judged.
#![allow(clippy::disallowed_methods)] // clocks, for what is printed
#![allow(clippy::unwrap_used)] // that a call succeeds is what is tested

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::Instant;

use granary_tests::{Kept, Locker, Node, Rounds, Service, Steady, pattern, seed, until};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const ON: [(&str, &str); 2] = [("GRANARY_KEEPER", "on"), ("GRANARY_SMALL_FILE_BYTES_MAX", "65536")];

/// A service, with a namespace that two nodes share.
fn service(lease_time_ms: u64) -> Service {
    let service = Service::with(&[("GRANARY_LEASE_TIME_MS", &lease_time_ms.to_string())]);
    let admin = service.token("root", &[], "admin");
    let made = service.as_bearer(&admin, &["ns", "create", "group/team", "--owner", "0", "--group", "0"]);
    assert_eq!(made.code, Some(0), "{made:?}");
    service
}

fn node(service: &Service, user: &str, settings: &[(&str, &str)]) -> Node {
    service.node_with(&service.token(user, &["team"], "read-write"), settings)
}

fn open(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

fn text(file: &mut File) -> String {
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn open_files_go_on_after_a_kill_and_other_nodes_see_what_is_written() {
    let service = service(20_000);
    let mut kept = Kept::of(node(&service, "a", &ON));
    let other = node(&service, "b", &[]);
    let (here, there) = (kept.node.mount("group/team", ""), other.mount("group/team", ""));
    assert!(kept.node.ok(&["status"]).contains("kept"));
    let mut large = open(&here.join("large"));
    large.write_all(&pattern(1, 3 << 20)).unwrap();
    let small = open(&here.join("small"));
    let appended = OpenOptions::new().append(true).create(true).open(here.join("log")).unwrap();
    let mut gone = open(&here.join("gone"));
    gone.write_all(b"without a name").unwrap();
    fs::remove_file(here.join("gone")).unwrap();
    // Its last name goes at the other node, of which this one hears by a recall.
    let mut taken = open(&here.join("taken"));
    taken.write_all(b"taken away").unwrap();
    fs::write(there.join("other"), "zero").unwrap();
    let mut read = File::open(here.join("other")).unwrap();
    assert_eq!(text(&mut read), "zero");
    let mut expected = pattern(1, 3 << 20);
    for round in 0..3_u64 {
        kept.again();
        let at = round as usize * 1_000_000;
        large.write_all_at(&pattern(10 + round, 100_000), at as u64).unwrap();
        expected[at..at + 100_000].copy_from_slice(&pattern(10 + round, 100_000));
        small.write_all_at(format!("round {round}").as_bytes(), 0).unwrap();
        (&appended).write_all(b"more\n").unwrap();
        assert_eq!(text(&mut gone), "without a name");
        assert_eq!(gone.metadata().unwrap().nlink(), 0);
        fs::write(here.join(format!("new-{round}")), pattern(30 + round, 70_000)).unwrap();
        // Held back here, read there.
        assert_eq!(fs::read_to_string(there.join("small")).unwrap(), format!("round {round}"));
        assert!(fs::read(there.join("large")).unwrap() == expected);
        assert!(fs::read(there.join(format!("new-{round}"))).unwrap() == pattern(30 + round, 70_000));
        // Changed there, seen here, by an open file and by name.
        fs::write(there.join("other"), format!("other {round}")).unwrap();
        assert_eq!(text(&mut read), format!("other {round}"));
        assert_eq!(fs::read_to_string(here.join("other")).unwrap(), format!("other {round}"));
        if round == 0 {
            fs::remove_file(there.join("taken")).unwrap();
        }
        assert_eq!(text(&mut taken), "taken away");
    }
    assert!(!here.join("taken").exists());
    drop((large, appended, gone, taken, read, small));
    assert_eq!(fs::read_to_string(there.join("log")).unwrap(), "more\nmore\nmore\n");
    assert!(fs::read(here.join("large")).unwrap() == expected);
    other.umount(&there);
    kept.end(&here);
}

#[test]
fn what_another_node_does_while_no_process_is_there_is_seen_afterwards() {
    let service = service(20_000);
    let mut first = node(&service, "a", &[ON[0], ("INVOCATION_ID", "test")]);
    let other = node(&service, "b", &[]);
    let (here, there) = (first.mount("group/team", ""), other.mount("group/team", ""));
    fs::write(here.join("f"), "before").unwrap();
    fs::write(here.join("dirty"), "held back").unwrap();
    let mut reader = Locker::with(&here.join("f"));
    reader.is("read f", "before");
    let (mut a, mut b) = (Locker::with(&here.join("locked")), Locker::with(&there.join("locked")));
    a.is("flock f ex", "ok");
    a.is("posix f ex 0 10", "ok");
    a.is("ofd f sh 100 10", "ok");
    b.is("flock f ex nb", "EAGAIN");
    first.kill();
    // Both wait for what the process that died had.
    let write = std::thread::spawn({
        let there = there.clone();
        move || fs::write(there.join("f"), "after")
    });
    let read = std::thread::spawn(move || fs::read_to_string(there.join("dirty")));
    b.waits("flock f ex");
    let begun = Instant::now();
    first.start();
    write.join().unwrap().unwrap();
    assert_eq!(read.join().unwrap().unwrap(), "held back");
    reader.is("read f", "after");
    assert!(fs::read_to_string(here.join("f")).unwrap() == "after");
    eprintln!("from the start of the next process to the other's write: {:?}", begun.elapsed());
    // The locks are still the first one's.
    assert!(!b.has_answered());
    a.is("getlk f ex 0 10", "free");
    a.is("flock f un", "ok");
    assert_eq!(b.answer(), "ok");
    assert!(b.ask("getlk f ex 0 10").starts_with("ex 0 10 "));
    b.is("ofd f ex 100 10 nb", "EAGAIN");
    // They end with what they were taken through.
    a.is("close f", "ok");
    b.is("posix f ex 0 200", "ok");
    b.is("ofd f ex 300 10 nb", "ok");
    drop((a, b, reader));
    first.umount(&here);
    first.stop();
}

#[test]
fn a_program_that_waits_for_a_lock_goes_on_waiting() {
    let service = service(20_000);
    let mut kept = Kept::of(node(&service, "a", &ON));
    let other = node(&service, "b", &[]);
    let (here, there) = (kept.node.mount("group/team", ""), other.mount("group/team", ""));
    let (mut a, mut b) = (Locker::with(&there.join("f")), Locker::with(&here.join("f")));
    a.is("flock f ex", "ok");
    b.waits("flock f ex");
    kept.again();
    assert!(!b.has_answered());
    a.is("flock f un", "ok");
    assert_eq!(b.answer(), "ok");
    a.is("flock f ex nb", "EAGAIN");
    // Ended by its process's end.
    b.kill();
    a.is("flock f ex", "ok");
    drop((a, b));
    kept.end(&here);
}

/// Works in a directory of its own, and appends to a file that all have. How many rounds it did.
fn worker(dir: &Path, who: &str, seed: u64, rounds: &Rounds) -> u64 {
    let mut steady = Steady::new(dir, who, seed, 10);
    let shared = OpenOptions::new().append(true).create(true).open(dir.join("shared")).unwrap();
    rounds.work(|| {
        let n = steady.rounds();
        steady.round();
        (&shared).write_all(format!("{who} {n}\n").as_bytes()).unwrap();
    });
    steady.check();
    steady.rounds()
}

/// Of each worker every line is there once, in order.
fn check_shared(path: &Path, workers: &[(String, u64)]) {
    let all = fs::read_to_string(path).unwrap();
    for (who, rounds) in workers {
        let expected: Vec<String> = (0..*rounds).map(|n| format!("{who} {n}")).collect();
        let found: Vec<&str> = all.lines().filter(|line| line.starts_with(&format!("{who} "))).collect();
        assert_eq!(found, expected, "{who}");
    }
    assert_eq!(all.lines().count() as u64, workers.iter().map(|(_, rounds)| rounds).sum::<u64>());
}

/// Half of the processes are killed as soon as they serve: while they read what the kernel sends again.
#[test]
fn programs_on_two_nodes_see_no_error_through_many_kills() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let service = service(20_000);
    let mut kept = Kept::of(node(&service, "a", &ON));
    let other = node(&service, "b", &[]);
    let (here, there) = (kept.node.mount("group/team", ""), other.mount("group/team", ""));
    let rounds = Rounds::default();
    let mut pauses = Vec::new();
    std::thread::scope(|scope| {
        let over = rounds.until_dropped();
        let workers: Vec<_> = [("a0", &here), ("a1", &here), ("b0", &there)]
            .into_iter()
            .enumerate()
            .map(|(i, (who, dir))| {
                let rounds = &rounds;
                let work = move || worker(dir, who, seed ^ (i as u64) << 32, rounds);
                (who.to_owned(), scope.spawn(work))
            })
            .collect();
        for round in 0..16 {
            // Every other one soon after the one before.
            rounds.pass(rng.random_range(if round % 2 == 0 { 0..2 } else { 1..12 }));
            let begun = Instant::now();
            kept.again();
            fs::metadata(here.join(format!("absent-{round}"))).unwrap_err();
            pauses.push(begun.elapsed());
        }
        drop(over);
        let done: Vec<_> = workers.into_iter().map(|(who, w)| (who, w.join().unwrap())).collect();
        check_shared(&there.join("shared"), &done);
        check_shared(&here.join("shared"), &done);
        eprintln!("rounds: {done:?}, longest: {:?}", rounds.take_longest());
    });
    pauses.sort();
    eprintln!("pause after a kill: {:?} {:?} {:?}", pauses[0], pauses[8], pauses[15]);
    other.umount(&there);
    kept.end(&here);
}

#[test]
fn a_node_is_replaced_under_programs_that_hold_locks_and_write() {
    let service = service(20_000);
    let mut kept = Kept::of(node(&service, "a", &ON));
    let dir = kept.node.mount("group/team", "");
    let rounds = Rounds::default();
    let mut locker = Locker::with(&dir.join("locked"));
    locker.is("flock f ex", "ok");
    let other = node(&service, "b", &[]);
    let there = other.mount("group/team", "");
    let mut second = Locker::with(&there.join("locked"));
    std::thread::scope(|scope| {
        let over = rounds.until_dropped();
        let thread = scope.spawn(|| worker(&dir, "a0", 7, &rounds));
        let mut pauses = Vec::new();
        for _ in 0..4 {
            rounds.pass(3);
            rounds.take_longest();
            kept.node.replace();
            // The one that it interrupted, and one that it did not.
            rounds.pass(2);
            pauses.push(rounds.take_longest());
            second.is("flock f ex nb", "EAGAIN");
        }
        drop(over);
        thread.join().unwrap();
        eprintln!("longest round of a program at a replacement: {pauses:?}");
    });
    locker.is("flock f un", "ok");
    second.is("flock f ex nb", "ok");
    drop((locker, second));
    other.umount(&there);
    kept.end(&dir);
}

#[test]
fn a_mount_of_another_bearer_goes_on_by_their_own_session() {
    let service = service(20_000);
    let admin = service.token("root", &[], "admin");
    let made = service.as_bearer(&admin, &["ns", "create", "user/bob", "--owner", "0", "--group", "0"]);
    assert_eq!(made.code, Some(0), "{made:?}");
    let mut kept = Kept::of(node(&service, "a", &ON));
    let (token, dir) = (kept.node.path("bob.token"), kept.node.path("bob"));
    fs::write(&token, service.token("bob", &[], "read-write")).unwrap();
    fs::create_dir(&dir).unwrap();
    let (token_file, path) = (token.to_str().unwrap(), dir.to_str().unwrap());
    kept.node.ok(&["mount", "user/bob", path, "--token-file", token_file]);
    let shared = kept.node.mount("group/team", "");
    let (mut mine, mut gone) = (open(&dir.join("mine")), open(&dir.join("gone")));
    gone.write_all(b"without a name").unwrap();
    fs::remove_file(dir.join("gone")).unwrap();
    // Nobody has it on a disk.
    fs::remove_file(&token).unwrap();
    let sessions = || {
        let all = service.as_bearer(&admin, &["meta", "sessions"]).stdout;
        all.lines().filter(|line| line.contains("bob")).map(str::to_owned).collect::<Vec<_>>().len()
    };
    let before = sessions();
    for round in 0..2 {
        kept.again();
        mine.write_all(format!("{round}").as_bytes()).unwrap();
        assert_eq!(text(&mut gone), "without a name");
        fs::write(shared.join("other"), "of the node's own").unwrap();
    }
    assert_eq!(text(&mut mine), "01");
    assert_eq!(sessions(), before, "the same session, and no other");
    drop((mine, gone));
    kept.node.umount(&dir);
    kept.end(&shared);
}

#[test]
fn a_session_that_ended_meanwhile_is_told_and_nothing_is_lost() {
    let service = service(1_000);
    let mut first = node(&service, "a", &[ON[0], ("INVOCATION_ID", "test")]);
    let other = node(&service, "b", &[]);
    let (here, there) = (first.mount("group/team", ""), other.mount("group/team", ""));
    fs::write(here.join("dirty"), "of the one that was away").unwrap();
    let (mut a, mut b) = (Locker::with(&here.join("locked")), Locker::with(&there.join("locked")));
    a.is("flock f ex", "ok");
    a.is("append f mine", "4");
    first.kill();
    // The other one gets the lock when the lease time is over, and with it the file.
    b.is("flock f ex", "ok");
    b.is("append f its", "3");
    first.start();
    // Said to the program, in the log and in the status. The handle is of the session that ended; a new one is not.
    let refused = a.ask("append f more");
    assert!(refused.starts_with('E'), "{refused}");
    until("the status tells", || first.status()["service"]["fenced"].is_object());
    assert!(first.log().contains("ended session"), "{}", first.log());
    b.is("flock f un", "ok");
    a.is("close f", "ok");
    let mut a = Locker::with(&here.join("locked"));
    a.is("flock f ex nb", "ok");
    for dir in [&here, &there] {
        assert_eq!(fs::read_to_string(dir.join("dirty")).unwrap(), "of the one that was away");
    }
    let locked = fs::read_to_string(here.join("locked")).unwrap();
    assert!(locked.ends_with("its"), "{locked}");
    drop((a, b));
    // And the mount goes on: another kill finds the new session.
    let mut reader = Locker::with(&here.join("dirty"));
    first.kill();
    first.start();
    reader.is("append f !", "1");
    drop(reader);
    first.umount(&here);
    first.stop();
}

#[test]
fn what_was_done_and_not_answered_is_not_done_twice_nor_for_another_node() {
    let service = service(20_000);
    let mut first = node(&service, "a", &[ON[0], ("INVOCATION_ID", "test")]);
    let other = node(&service, "b", &[]);
    let (here, there) = (first.mount("group/team", ""), other.mount("group/team", ""));
    // No process is there when this is asked, so that it was not done; the other node makes the name first.
    fs::create_dir(here.join("d")).unwrap();
    first.kill();
    let asked = std::thread::spawn({
        let dir = here.join("d/lock");
        move || fs::create_dir(dir)
    });
    until("the call waits in the kernel", || {
        let all = fs::read_dir("/proc/self/task").unwrap();
        let mut calls = all.filter_map(|task| fs::read_to_string(task.ok()?.path().join("syscall")).ok());
        calls.any(|call| call.starts_with(&format!("{} ", libc::SYS_mkdir)))
    });
    let made = std::thread::spawn({
        let dir = there.join("d/lock");
        move || fs::create_dir(dir)
    });
    first.start();
    let (asked, made) = (asked.join().unwrap(), made.join().unwrap());
    assert!(asked.is_ok() != made.is_ok(), "exactly one made it: {asked:?} {made:?}");
    first.umount(&here);
    first.stop();
}
