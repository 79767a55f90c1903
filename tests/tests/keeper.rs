//! Mounts and open files outlive the node process, with `keeper = on`.
//!
//! How long programs waited is printed, and never judged.
#![allow(clippy::disallowed_methods)] // clocks, for what is printed
#![allow(clippy::unwrap_used)] // that a call succeeds is what is tested

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::Instant;

use granary_tests::{Kept, Locker, Node, Rounds, Staying, Steady, StoreKind, pattern, seed, until};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

fn supervised(who: &[(&str, &str)]) -> Node {
    let settings: Vec<_> = [("GRANARY_KEEPER", "on"), ("GRANARY_SMALL_FILE_BYTES_MAX", "65536")]
        .iter()
        .chain(who)
        .copied()
        .collect();
    let node = Node::with_settings(StoreKind::Folder, &settings);
    node.ok(&["ns", "create", "user/alice"]);
    node
}

fn kept() -> Kept {
    Kept::of(supervised(&[]))
}

/// A file that the kernel writes by itself: its name promises size once one like it was large.
fn large(dir: &Path, name: &str) -> File {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(dir.join(name));
    file.expect("a file")
}

#[test]
fn open_files_of_every_kind_go_on_after_a_kill() {
    let mut kept = kept();
    let node = &kept.node;
    let dir = node.mount("user/alice", "mode=work");
    assert!(node.ok(&["status"]).contains("kept"));
    fs::write(dir.join("first.ckpt"), pattern(1, 3 << 20)).unwrap();
    // Opened when it is large: by passthrough.
    let mut passed = OpenOptions::new().read(true).write(true).open(dir.join("first.ckpt")).unwrap();
    let mut small = large(&dir, "small");
    small.write_all(&pattern(2, 5000)).unwrap();
    let appended = OpenOptions::new().append(true).create(true).open(dir.join("log")).unwrap();
    (&appended).write_all(b"one\n").unwrap();
    let mut gone = large(&dir, "gone");
    gone.write_all(b"without a name").unwrap();
    fs::remove_file(dir.join("gone")).unwrap();
    let listed = fs::read_dir(&dir).unwrap();
    for round in 0..3_u64 {
        kept.again();
        passed.write_all_at(&pattern(10 + round, 100_000), round * 1_000_000).unwrap();
        small.write_all_at(&pattern(20 + round, 100), round * 200).unwrap();
        (&appended).write_all(b"more\n").unwrap();
        gone.rewind().unwrap();
        let mut text = String::new();
        gone.read_to_string(&mut text).unwrap();
        assert_eq!(text, "without a name");
        assert_eq!(gone.metadata().unwrap().nlink(), 0);
        fs::write(dir.join(format!("new-{round}")), pattern(30 + round, 70_000)).unwrap();
    }
    assert!(listed.count() >= 3);
    let mut expected = pattern(1, 3 << 20);
    for round in 0..3_u64 {
        let at = round as usize * 1_000_000;
        expected[at..at + 100_000].copy_from_slice(&pattern(10 + round, 100_000));
    }
    passed.rewind().unwrap();
    let mut bytes = Vec::new();
    passed.read_to_end(&mut bytes).unwrap();
    assert!(bytes == expected, "the open file");
    drop((passed, small, appended, gone));
    assert!(fs::read(dir.join("first.ckpt")).unwrap() == expected, "the same, opened anew");
    assert_eq!(fs::read_to_string(dir.join("log")).unwrap(), "one\nmore\nmore\nmore\n");
    // All of it goes to the store, and comes back from there.
    kept.node.sync(&dir);
    kept.node.umount(&dir);
    kept.stop(); // the keeper has its log there
    fs::remove_dir_all(kept.node.path("cache")).unwrap();
    kept.node.mount("user/alice", "");
    assert!(fs::read(dir.join("first.ckpt")).unwrap() == expected, "from the store");
    for round in 0..3_u64 {
        assert!(fs::read(dir.join(format!("new-{round}"))).unwrap() == pattern(30 + round, 70_000));
    }
    kept.end(&dir);
}

/// Works in a directory of its own, and in place in a large file, and every call must succeed, whatever happens to the node; then all
/// is there. How many rounds it did.
fn worker(dir: &Path, thread: u64, seed: u64, rounds: &Rounds) -> u64 {
    let mut steady = Steady::new(dir, &format!("t{thread}"), seed ^ thread << 32, 20);
    let file = large(steady.dir(), "in-place.ckpt");
    let mut in_place = vec![0; 2 << 20];
    file.write_all_at(&in_place, 0).unwrap();
    rounds.work(|| {
        steady.round();
        let at = steady.rng().random_range(0..in_place.len() - 5000);
        let part = pattern(steady.rounds(), steady.rng().random_range(1..5000));
        file.write_all_at(&part, at as u64).unwrap();
        in_place[at..at + part.len()].copy_from_slice(&part);
    });
    let mut found = vec![0; in_place.len()];
    file.read_exact_at(&mut found, 0).unwrap();
    assert!(found == in_place, "what was written in place by thread {thread}");
    steady.check();
    steady.rounds()
}

#[test]
fn programs_see_no_error_through_many_kills() {
    const KILLS: u64 = 12;
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let mut kept = kept();
    let node = &kept.node;
    let dir = node.mount("user/alice", "mode=work");
    let rounds = Rounds::default();
    let mut pauses = Vec::new();
    std::thread::scope(|scope| {
        let over = rounds.until_dropped();
        let threads: Vec<_> = (0..3)
            .map(|t| (t, &dir, &rounds))
            .map(|(t, dir, rounds)| scope.spawn(move || worker(dir, t, seed, rounds)))
            .collect();
        for _ in 0..KILLS {
            // In the midst of the work: some rounds of any of them later.
            rounds.pass(rng.random_range(1..12));
            let begun = Instant::now();
            kept.again();
            fs::metadata(dir.join(format!("absent-{}", pauses.len()))).unwrap_err();
            pauses.push(begun.elapsed());
        }
        drop(over);
        let done: u64 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert!(done >= KILLS, "only {done} rounds");
    });
    pauses.sort();
    eprintln!(
        "pause after a kill: {:?} {:?} {:?}",
        pauses[0],
        pauses[pauses.len() / 2],
        pauses[pauses.len() - 1]
    );
    kept.end(&dir);
}

#[test]
fn what_was_done_and_not_answered_is_not_done_twice() {
    // Somebody else is to start it: this test.
    let mut node = supervised(&[("INVOCATION_ID", "test")]);
    let dir = node.mount("user/alice", "mode=work");
    // Killed when the change is in the engine, before its answer.
    type Step = fn(&Path) -> std::io::Result<()>;
    let steps: [(&str, Step, Step); 6] = [
        ("create", |_| Ok(()), |dir| File::create_new(dir.join("new"))?.write_all(b"x")),
        ("mkdir", |_| Ok(()), |dir| fs::create_dir(dir.join("dir"))),
        ("symlink", |_| Ok(()), |dir| std::os::unix::fs::symlink("to", dir.join("symlink"))),
        ("link", |dir| fs::write(dir.join("a"), "a"), |dir| fs::hard_link(dir.join("a"), dir.join("link"))),
        ("rename", |dir| fs::write(dir.join("b"), "b"), |dir| fs::rename(dir.join("b"), dir.join("renamed"))),
        ("unlink", |dir| fs::write(dir.join("c"), "c"), |dir| fs::remove_file(dir.join("c"))),
    ];
    for (what, before, step) in steps {
        before(&dir).unwrap();
        node.ok(&["sync", dir.to_str().unwrap()]);
        node.kill();
        node.start_with(&[("GRANARY_FAILPOINTS", "engine_after_batch=abort")]);
        let asked = std::thread::spawn({
            let dir = dir.clone();
            move || step(&dir)
        });
        node.wait();
        node.start();
        asked.join().unwrap().unwrap_or_else(|e| panic!("{what}: {e}"));
    }
    assert_eq!(fs::read(dir.join("new")).unwrap(), b"x");
    assert_eq!(fs::read(dir.join("renamed")).unwrap(), b"b");
    assert!(!dir.join("c").exists() && !dir.join("b").exists() && dir.join("dir").is_dir());
    node.umount(&dir);
    node.stop();
}

#[test]
fn a_node_is_replaced_under_a_program_that_reads_and_writes() {
    let mut kept = kept();
    let dir = kept.node.mount("user/alice", "mode=work");
    let rounds = Rounds::default();
    std::thread::scope(|scope| {
        let over = rounds.until_dropped();
        let thread = scope.spawn(|| worker(&dir, 0, 7, &rounds));
        let mut pauses = Vec::new();
        for _ in 0..5 {
            rounds.pass(3);
            rounds.take_longest();
            kept.node.replace();
            // The one that it interrupted, and one that it did not.
            rounds.pass(2);
            pauses.push(rounds.take_longest());
        }
        drop(over);
        thread.join().unwrap();
        pauses.sort();
        eprintln!("longest round of a program at a replacement: {pauses:?}");
    });
    kept.end(&dir);
}

/// As two pods of one machine do while the node is upgraded.
#[test]
fn nodes_that_stay_take_turns() {
    let mut node = supervised(&[("INVOCATION_ID", "test")]);
    let dir = node.mount("user/alice", "mode=work");
    let mut log = OpenOptions::new().append(true).create(true).open(dir.join("log")).unwrap();
    let mut older = Staying::take_the_place(&node);
    assert!(node.wait().success(), "it was replaced");
    log.write_all(b"older\n").unwrap();
    let newer = Staying::take_the_place(&node);
    assert!(older.is_there());
    log.write_all(b"newer\n").unwrap();
    // The newer one cannot do its work: the older one goes on.
    kill(newer.serves(&node).unwrap());
    assert_eq!(newer.wait().code(), Some(1));
    log.write_all(b"older again\n").unwrap();
    until("the older one serves", || older.serves(&node).is_some());
    // Told to leave by an administrator, it comes back by itself.
    let before = older.serves(&node).unwrap();
    node.ok(&["node", "leave"]);
    log.write_all(b"and again\n").unwrap();
    until("it serves again", || older.serves(&node).is_some_and(|pid| pid != before));
    // The other one is there, so this one can go.
    let newest = Staying::take_the_place(&node);
    assert!(older.is_there() && older.terminate().success());
    log.write_all(b"newest\n").unwrap();
    assert!(newest.serves(&node).is_some());
    node.ok(&["status", "--here"]); // of this mount namespace
    drop(log);
    assert!(newest.terminate().success());
    // It left the mount.
    node.start();
    assert_eq!(
        fs::read_to_string(dir.join("log")).unwrap(),
        "older\nnewer\nolder again\nand again\nnewest\n"
    );
    node.umount(&dir);
    node.stop();
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn data_mounts_and_their_files_go_on() {
    let mut kept = kept();
    let node = &kept.node;
    let dir = node.mount("user/alice", "mode=data");
    fs::write(dir.join("a"), pattern(1, 500_000)).unwrap();
    let mut file = File::open(dir.join("a")).unwrap();
    let mut half = vec![0; 250_000];
    file.read_exact(&mut half).unwrap();
    let gone = large(&dir, "gone");
    gone.write_all_at(b"without a name", 0).unwrap();
    fs::remove_file(dir.join("gone")).unwrap();
    for _ in 0..2 {
        kept.again();
        let mut text = [0; 14];
        gone.read_exact_at(&mut text, 0).unwrap();
        assert_eq!(&text, b"without a name");
        gone.write_all_at(b"without", 0).unwrap();
    }
    let mut rest = Vec::new();
    file.read_to_end(&mut rest).unwrap();
    assert!(half.iter().chain(&rest).eq(&pattern(1, 500_000)));
    drop((file, gone));
    kept.end(&dir);
}

#[test]
fn a_keeper_that_is_killed_is_replaced_and_has_everything_again() {
    let mut kept = kept();
    let node = &kept.node;
    let dir = node.mount("user/alice", "mode=work");
    let file = large(&dir, "open");
    file.write_all_at(b"content", 0).unwrap();
    let before = kept.processes("keeper");
    assert_eq!(before.len(), 1, "{before:?}");
    kept.kill_keeper();
    until("there is another keeper", || {
        let now = kept.processes("keeper");
        !now.is_empty() && now != before && kept.node.status()["mounts"][0]["kept"] == true
    });
    kept.again();
    let mut found = [0; 7];
    file.read_exact_at(&mut found, 0).unwrap();
    assert_eq!(&found, b"content");
    drop(file);
    kept.end(&dir);
}

#[test]
fn a_node_with_a_mount_that_is_not_kept_does_not_leave_it() {
    let mut node = supervised(&[("INVOCATION_ID", "test"), ("GRANARY_TRANSPORT", "uring")]);
    let dir = node.mount("user/alice", "");
    assert_eq!(node.status()["mounts"][0]["kept"], false);
    fs::write(dir.join("a"), "before").unwrap();
    node.fails(&["node", "leave"], "are not kept");
    fs::write(dir.join("b"), "after").unwrap();
    // Told by a signal, it stops as a node without a keeper does.
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(node.pid() as i32).unwrap(),
        rustix::process::Signal::USR2,
    )
    .unwrap();
    node.stop_ended();
    assert!(node.log().contains("stopping, and unmounting"));
    node.start();
    node.mount("user/alice", "");
    assert_eq!(fs::read_to_string(dir.join("a")).unwrap(), "before");
    assert_eq!(fs::read_to_string(dir.join("b")).unwrap(), "after");
    node.umount(&dir);
    node.stop();
}

#[test]
fn a_mount_without_a_node_process_can_be_unmounted() {
    let mut node = supervised(&[("INVOCATION_ID", "test")]);
    let dir = node.mount("user/alice", "mode=work");
    fs::write(dir.join("a"), "staged").unwrap();
    let mut user = Locker::with(&dir.join("a"));
    node.kill();
    let text = dir.to_str().unwrap();
    node.fails(&["umount", text], "it is used by");
    node.fails(&["umount", "--drain", text], "");
    // The program waits for the node, which it does not keep from being unmounted.
    assert_eq!(node.ok(&["umount", "--lazy", text]), "");
    assert!(fs::read_dir(&dir).unwrap().next().is_none(), "it is the empty directory again");
    node.start();
    user.is("read f", "staged");
    drop(user);
    until("the mount has ended", || node.run(&["mount", "user/alice", text]).code == Some(0));
    assert_eq!(fs::read_to_string(dir.join("a")).unwrap(), "staged");
    node.kill();
    node.ok(&["umount", text]);
    assert!(!dir.join("a").exists());
    node.start();
    node.mount("user/alice", "mode=work");
    assert_eq!(fs::read_to_string(dir.join("a")).unwrap(), "staged");
    node.umount(&dir);
    node.stop();
}
