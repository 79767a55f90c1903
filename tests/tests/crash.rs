//! kill -9 of the node process at random moments: what fsync acknowledged is there, and no file holds what was never written.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use granary_tests::{Node, StoreKind, seed, until_within};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Content of file `n` at version `v`: its header says which, every byte follows from it.
fn content(n: u64, v: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len.max(16)];
    StdRng::seed_from_u64(n << 20 | v).fill(&mut bytes[..]);
    bytes[..8].copy_from_slice(&n.to_le_bytes());
    bytes[8..16].copy_from_slice(&v.to_le_bytes());
    bytes
}

struct Acknowledged {
    name: String,
    bytes: Vec<u8>,
}

/// Writes files with fsync until the mount dies; what was acknowledged is noted after fsync returned.
fn writer(
    dir: &Path,
    thread: u64,
    seed: u64,
    done: &AtomicBool,
    acks: &AtomicU64,
    log: &Mutex<Vec<Acknowledged>>,
) {
    let mut rng = StdRng::seed_from_u64(seed ^ thread);
    for n in 0.. {
        if done.load(Ordering::Relaxed) {
            return;
        }
        let large = n % 9 == 8;
        let len = if large { rng.random_range(1 << 20..6 << 20) } else { rng.random_range(16..60_000) };
        // The large ones get a name that promises size, so that the kernel writes them itself.
        let (tmp, name) = if large {
            (format!("t{thread}.{n}.tmp.bin"), format!("t{thread}.{n}.ckpt"))
        } else {
            (format!("t{thread}.{n}.tmp"), format!("t{thread}.{n}"))
        };
        let bytes = content(thread << 32 | n, 0, len);
        let mut step = || -> std::io::Result<()> {
            let mut file = File::create(dir.join(&tmp))?;
            for part in bytes.chunks(rng.random_range(4_000..2_000_000)) {
                file.write_all(part)?;
            }
            file.sync_all()?;
            fs::rename(dir.join(&tmp), dir.join(&name))?;
            File::open(dir)?.sync_all()
        };
        if step().is_err() {
            return;
        }
        log.lock().expect("log").push(Acknowledged { name, bytes });
        acks.fetch_add(1, Ordering::Relaxed);
    }
}

/// Sixty fsyncs of some megabytes each, on a disk that others keep busy.
const PATIENCE: Duration = Duration::from_secs(300);
const SLOTS: u64 = 64;

/// A write of one slot of the file that is overwritten in place.
struct Block {
    slot: u64,
    value: u8,
    acknowledged: bool,
}

/// Overwrites slots of one file in place, fsync after each.
fn overwriter(dir: &Path, seed: u64, done: &AtomicBool, blocks: &Mutex<Vec<Block>>) {
    let mut rng = StdRng::seed_from_u64(seed);
    let Ok(file) = OpenOptions::new().read(true).write(true).open(dir.join("in-place")) else { return };
    while !done.load(Ordering::Relaxed) {
        let (slot, value) = (rng.random_range(0..SLOTS), rng.random_range(0..=u8::MAX));
        blocks.lock().expect("blocks").push(Block { slot, value, acknowledged: false });
        if file.write_all_at(&[value; 4096], slot * 4096).is_err() || file.sync_data().is_err() {
            return;
        }
        blocks.lock().expect("blocks").last_mut().expect("pushed above").acknowledged = true;
    }
}

#[test]
fn what_fsync_acknowledged_survives_kill_9() {
    let rounds: u64 =
        std::env::var("GRANARY_KILL_ROUNDS").map_or(10, |r| r.parse().expect("a number of rounds"));
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    // Short periods: the drain, relocations and deletions of the stage are in the middle of it all.
    let settings = [
        ("GRANARY_SMALL_PERIOD_MS", "30"),
        ("GRANARY_LARGE_PERIOD_MS", "50"),
        ("GRANARY_LOG_SEGMENT_BYTES_MAX", "2097152"),
    ];
    let mut node = Node::with_settings(StoreKind::Folder, &settings);
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let blocks = Arc::new(Mutex::new(Vec::new()));
    for round in 0..rounds {
        let dir = node.mount("user/alice", "");
        if round == 0 {
            fs::write(dir.join("in-place"), vec![0; SLOTS as usize * 4096]).expect("write");
            File::open(dir.join("in-place")).and_then(|f| f.sync_all()).expect("fsync");
        }
        let done = Arc::new(AtomicBool::new(false));
        let acks = Arc::new(AtomicU64::new(0));
        std::thread::scope(|scope| {
            for thread in 0..3 {
                let (dir, done, acks, log) = (&dir, &done, &acks, &acknowledged);
                scope.spawn(move || writer(dir, round << 8 | thread, seed, done, acks, log));
            }
            let (dir, done_, blocks_) = (&dir, &done, &blocks);
            scope.spawn(move || overwriter(dir, seed ^ round, done_, blocks_));
            // A random moment, in units of work done rather than of time.
            let moment = rng.random_range(1..60);
            until_within("acknowledged fsyncs", PATIENCE, || acks.load(Ordering::Relaxed) >= moment);
            node.kill();
            done.store(true, Ordering::Relaxed);
        });
        node.start();
        let dir = node.mount("user/alice", "");
        check(&dir, &acknowledged.lock().expect("log"), round);
        check_blocks(&dir, &blocks.lock().expect("blocks"), round);
        // Everything is still there from the store alone.
        if round % 5 == 4 {
            let dir = node.come_back_from_the_store(&dir, "user/alice", "");
            check(&dir, &acknowledged.lock().expect("log"), round);
        }
        let dir = node.path("mnt-user-alice");
        node.umount(&dir);
    }
    println!("{} acknowledged files over {rounds} kills, none lost", acknowledged.lock().expect("log").len());
    node.stop();
}

fn check(dir: &Path, acknowledged: &[Acknowledged], round: u64) {
    for a in acknowledged {
        let found = fs::read(dir.join(&a.name)).unwrap_or_else(|e| panic!("round {round}: {}: {e}", a.name));
        assert!(
            found == a.bytes,
            "round {round}: {} ({} of {} bytes) differs",
            a.name,
            found.len(),
            a.bytes.len()
        );
    }
    // What was not acknowledged is a prefix of what was written, or nothing.
    for entry in fs::read_dir(dir).expect("readdir") {
        let entry = entry.expect("entry");
        let name = entry.file_name().into_string().expect("utf-8");
        let Some(rest) = name.strip_prefix('t') else { continue };
        let mut parts = rest.split('.');
        let (thread, n): (u64, u64) = (
            parts.next().expect("thread").parse().expect("number"),
            parts.next().expect("n").parse().expect("number"),
        );
        let mut found = Vec::new();
        File::open(entry.path())
            .and_then(|mut f| f.read_to_end(&mut found))
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        // The generator gives the same bytes for any length.
        let whole = content(thread << 32 | n, 0, found.len());
        assert!(
            found[..] == whole[..found.len()],
            "round {round}: {name} holds bytes that were never written there"
        );
        if name.contains(".tmp") {
            fs::remove_file(entry.path()).expect("unlink");
        }
    }
}

/// Each slot holds its last acknowledged value, or that of a write after it that was under way at a kill.
fn check_blocks(dir: &Path, blocks: &[Block], round: u64) {
    let found = fs::read(dir.join("in-place")).expect("read");
    assert_eq!(found.len() as u64, SLOTS * 4096);
    for slot in 0..SLOTS {
        let bytes = &found[slot as usize * 4096..][..4096];
        assert!(bytes.iter().all(|&b| b == bytes[0]), "round {round}: slot {slot} is torn");
        let mut allowed = vec![0];
        for block in blocks.iter().filter(|b| b.slot == slot) {
            if block.acknowledged {
                allowed.clear();
            }
            allowed.push(block.value);
        }
        assert!(
            allowed.contains(&bytes[0]),
            "round {round}: slot {slot} holds {}, not one of {allowed:?}",
            bytes[0]
        );
    }
}
