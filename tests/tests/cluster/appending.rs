//! O_APPEND from several nodes at once: records stay whole and none is lost, under a lock and without.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::fd::AsFd;

use granary_tests::Cluster;
use rustix::fs::{FlockOperation, flock};

const RECORDS: usize = 60;

fn appended(locked: bool, options: &str) {
    let cluster = Cluster::new(3);
    let mounts = cluster.mount(options);
    fs::write(mounts[0].join("log"), "").expect("create");
    std::thread::scope(|scope| {
        for (node, mount) in mounts.iter().enumerate() {
            for thread in 0..2 {
                scope.spawn(move || {
                    let mut file = OpenOptions::new().append(true).open(mount.join("log")).expect("open");
                    for n in 0..RECORDS {
                        if locked {
                            flock(file.as_fd(), FlockOperation::LockExclusive).expect("lock");
                        }
                        let text = format!("{node}.{thread}:{n:04}:{}\n", "x".repeat(n * 7 % 300));
                        file.write_all(text.as_bytes()).expect("append");
                        if locked {
                            flock(file.as_fd(), FlockOperation::Unlock).expect("unlock");
                        }
                    }
                });
            }
        }
    });
    for mount in &mounts {
        let text = fs::read_to_string(mount.join("log")).expect("read");
        assert_eq!(text.lines().count(), mounts.len() * 2 * RECORDS, "records");
        for node in 0..mounts.len() {
            for thread in 0..2 {
                let mine: Vec<_> =
                    text.lines().filter(|l| l.starts_with(&format!("{node}.{thread}:"))).collect();
                for (n, line) in mine.iter().enumerate() {
                    let whole = format!("{node}.{thread}:{n:04}:{}", "x".repeat(n * 7 % 300));
                    assert_eq!(**line, whole, "each one's records are whole and in order");
                }
                assert_eq!(mine.len(), RECORDS);
            }
        }
    }
}

#[test]
fn under_a_lock() {
    appended(true, "");
    appended(true, "rw,mode=data");
}

#[test]
fn without_a_lock() {
    appended(false, "");
}
