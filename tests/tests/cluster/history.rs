//! Several nodes at once. Each operation's start and end are noted on one logical clock, and what was seen must fit some
//! order of them: a read sees the last write that ended before it began, or one that was under way.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use granary_tests::{Cluster, seed};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// An operation on one register.
#[derive(Clone, Copy, Debug)]
struct Seen {
    node: usize,
    start: u64,
    end: u64,
    version: u64,
}

#[derive(Default)]
struct History {
    clock: AtomicU64,
    writes: Mutex<Vec<Seen>>,
    reads: Mutex<Vec<Seen>>,
}

impl History {
    fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    /// One writer, versions ascending. No read is stale, nor ahead, nor older than what an earlier one saw on the same node. Of
    /// another node it may be: while a change is under way, the kernel of the node that makes it shows the old state longest.
    fn check(&self, what: &str) {
        // In order of their versions, so of their starts and ends too.
        let writes = self.writes.lock().expect("writes");
        let mut reads = self.reads.lock().expect("reads").clone();
        reads.sort_by_key(|r| r.end);
        for read in &reads {
            let least = writes.partition_point(|w| w.end < read.start) as u64;
            let most = writes.partition_point(|w| w.start < read.end) as u64;
            assert!(read.version >= least, "{what}: {read:?} is stale: {least} was there before it began");
            assert!(read.version <= most, "{what}: {read:?} is ahead of all that was written");
        }
        let nodes = reads.iter().map(|r| r.node + 1).max().unwrap_or(0);
        for node in 0..nodes {
            let mine: Vec<Seen> = reads.iter().filter(|r| r.node == node).copied().collect();
            // The newest that any of them had seen at the end of each.
            let newest: Vec<Seen> = mine
                .iter()
                .scan(None, |newest: &mut Option<Seen>, r| {
                    *newest = newest.filter(|n| n.version >= r.version).or(Some(*r));
                    *newest
                })
                .collect();
            for read in &mine {
                let before = mine.partition_point(|r| r.end < read.start);
                if let Some(seen) = before.checked_sub(1).map(|at| newest[at]) {
                    assert!(read.version >= seen.version, "{what}: {read:?} goes back behind {seen:?}");
                }
            }
        }
        println!("{what}: {} writes, {} reads", writes.len(), reads.len());
    }
}

/// Every byte follows from the version, so that a mixture shows.
fn content(version: u64) -> Vec<u8> {
    let len = 8 + (version as usize * 37) % 6_000;
    let mut bytes: Vec<u8> = (0..len).map(|i| (version as usize * 31 + i) as u8).collect();
    bytes[..8].copy_from_slice(&version.to_le_bytes());
    bytes
}

fn version_of(bytes: &[u8], what: &str) -> u64 {
    assert!(bytes.len() >= 8, "{what}: {} bytes", bytes.len());
    let version = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes"));
    assert!(bytes == content(version), "{what}: not whole: version {version}, {} bytes", bytes.len());
    version
}

const VERSIONS: u64 = 250;

/// One node writes versions by `write`; all others and itself read by `read` until it is done.
fn register(
    mounts: &[PathBuf],
    what: &str,
    write: impl Fn(&Path, u64) + Sync,
    read: impl Fn(&Path) -> u64 + Sync,
) {
    let (history, done) = (History::default(), AtomicBool::new(false));
    write(&mounts[0], 0);
    std::thread::scope(|scope| {
        for (node, mount) in mounts.iter().enumerate() {
            let (history, done, read) = (&history, &done, &read);
            scope.spawn(move || {
                while !done.load(Ordering::SeqCst) {
                    let start = history.now();
                    let version = read(mount);
                    let seen = Seen { node, start, end: history.now(), version };
                    history.reads.lock().expect("reads").push(seen);
                }
            });
        }
        for version in 1..=VERSIONS {
            let start = history.now();
            write(&mounts[0], version);
            let seen = Seen { node: 0, start, end: history.now(), version };
            history.writes.lock().expect("writes").push(seen);
        }
        done.store(true, Ordering::SeqCst);
    });
    history.check(what);
}

/// New versions come by rename over the old: readers see one or the other, whole, and the name is never away.
#[test]
fn a_file_replaced_by_rename_is_always_there_whole_and_new() {
    for options in ["", "rw,mode=data"] {
        let cluster = Cluster::new(3);
        let mounts = cluster.mount(options);
        let write = |root: &Path, version| {
            fs::write(root.join("tmp"), content(version)).expect("write");
            fs::rename(root.join("tmp"), root.join("current")).expect("rename");
        };
        register(&mounts, "by rename", write, |root| {
            let mut bytes = Vec::new();
            let mut file = File::open(root.join("current")).expect("it is always there");
            file.read_to_end(&mut bytes).expect("what is open can be read");
            version_of(&bytes, "by rename")
        });
    }
}

/// What stat and listings show.
#[test]
fn attributes_and_listings_are_never_stale() {
    let cluster = Cluster::new(3);
    let mounts = cluster.mount("");
    let write = |root: &Path, version| {
        OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(root.join("sized"))
            .and_then(|f| f.set_len(version))
            .expect("truncate");
    };
    register(&mounts, "by size", write, |root| fs::metadata(root.join("sized")).expect("stat").len());
    // A step makes the next name before it takes the last one away: a listing always shows one.
    let write = |root: &Path, version: u64| {
        fs::write(root.join(format!("n{version}")), "").expect("create");
        if version > 0 {
            fs::remove_file(root.join(format!("n{}", version - 1))).expect("unlink");
        }
    };
    register(&mounts, "by listing", write, |root| {
        let names = fs::read_dir(root).expect("readdir").map(|e| e.expect("entry").file_name());
        let found = names.filter_map(|n| n.to_str()?.strip_prefix('n')?.parse().ok()).max();
        found.expect("a name is always there")
    });
}

/// Bytes written in place through a file that stays open, one page.
#[test]
fn a_page_written_in_place_is_never_stale_nor_torn() {
    let cluster = Cluster::new(2);
    let mounts = cluster.mount("");
    let write = |root: &Path, version: u64| {
        let text = version.to_le_bytes().repeat(512);
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(root.join("page"))
            .expect("open");
        file.write_all(&text).expect("write");
    };
    register(&mounts, "in place", write, |root| {
        let mut bytes = Vec::new();
        File::open(root.join("page")).and_then(|mut f| f.read_to_end(&mut bytes)).expect("read");
        assert_eq!(bytes.len(), 4096);
        let version = &bytes[..8];
        assert!(bytes.chunks(8).all(|c| c == version), "a page is half new");
        u64::from_le_bytes(version.try_into().expect("8 bytes"))
    });
}

/// Of all who create, link, make or take a name at once, exactly one succeeds.
#[test]
fn exclusive_creation_and_renames_have_one_winner() {
    let cluster = Cluster::new(3);
    let mounts = cluster.mount("");
    type Attempt = fn(&Path, usize) -> std::io::Result<()>;
    let attempts: [(&str, ErrorKind, Attempt); 4] = [
        ("O_EXCL", ErrorKind::AlreadyExists, |dir, _| File::create_new(dir.join("won")).map(|_| ())),
        ("mkdir", ErrorKind::AlreadyExists, |dir, _| fs::create_dir(dir.join("won"))),
        ("link", ErrorKind::AlreadyExists, |dir, i| {
            fs::hard_link(dir.join(format!("mine{i}")), dir.join("won"))
        }),
        ("rename", ErrorKind::NotFound, |dir, i| fs::rename(dir.join("prize"), dir.join(format!("got{i}")))),
    ];
    for round in 0..40 {
        for (what, refusal, attempt) in &attempts {
            let dir = format!("{what}{round}");
            fs::create_dir(mounts[0].join(&dir)).expect("mkdir");
            fs::write(mounts[1].join(&dir).join("prize"), "").expect("write");
            for i in 0..mounts.len() {
                fs::write(mounts[2].join(&dir).join(format!("mine{i}")), "").expect("write");
            }
            let start = std::sync::Barrier::new(mounts.len());
            let results: Vec<_> = std::thread::scope(|scope| {
                let runs: Vec<_> = mounts
                    .iter()
                    .enumerate()
                    .map(|(i, mount)| {
                        let (dir, start) = (mount.join(&dir), &start);
                        scope.spawn(move || {
                            start.wait();
                            attempt(&dir, i)
                        })
                    })
                    .collect();
                runs.into_iter().map(|r| r.join().expect("an attempt")).collect()
            });
            assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 1, "{what}: {results:?}");
            for lost in results.iter().filter_map(|r| r.as_ref().err()) {
                assert_eq!(lost.kind(), *refusal, "{what}: {results:?}");
            }
        }
    }
}

/// All nodes hammer one directory and one file at full speed: nobody waits for ever, and counts are right at the end.
#[test]
fn nodes_at_full_speed_in_one_directory_do_not_block_each_other() {
    for (count, options) in [(2, ""), (3, ""), (2, "rw,mode=data")] {
        let cluster = Cluster::new(count);
        let mounts = cluster.mount(options);
        let seed = seed();
        fs::write(mounts[0].join("shared"), vec![0; 8192]).expect("write");
        let rounds: u32 =
            std::env::var("GRANARY_CLUSTER_STEPS").map_or(150, |n| n.parse().expect("a number of steps"));
        std::thread::scope(|scope| {
            for (node, mount) in mounts.iter().enumerate() {
                for thread in 0..2 {
                    let mut rng = StdRng::seed_from_u64(seed ^ (node * 2 + thread) as u64);
                    scope.spawn(move || hammer(mount, &format!("{node}-{thread}"), rounds, &mut rng));
                }
            }
        });
        for mount in &mounts {
            let names = fs::read_dir(mount).expect("readdir").count();
            assert_eq!(names, 1 + count * 2, "each thread leaves one name, beside the shared file");
            assert_eq!(fs::metadata(mount.join("shared")).expect("stat").len(), 8192);
        }
    }
}

fn hammer(root: &Path, me: &str, rounds: u32, rng: &mut StdRng) {
    use std::os::unix::fs::FileExt;
    let shared = OpenOptions::new().read(true).write(true).open(root.join("shared")).expect("open");
    for round in 0..rounds {
        let name = root.join(format!("{me}.{round}"));
        fs::write(&name, me).expect("create");
        let at = rng.random_range(0..8000);
        match rng.random_range(0..4) {
            0 => shared.write_all_at(me.as_bytes(), at).expect("write"),
            1 => shared.read_exact_at(&mut [0; 64], at).expect("read"),
            2 => {
                let listed = fs::read_dir(root).expect("readdir").flatten().any(|e| e.path() == name);
                assert!(listed, "{} was made before the listing began", name.display());
            }
            _ => assert_eq!(fs::read_to_string(&name).expect("read"), me),
        }
        fs::rename(&name, root.join(me)).expect("rename");
    }
}
