//! Two and three mounts of one namespace: what one did, the others see; and nobody waits for ever.
#![allow(clippy::unwrap_used)]

mod many;

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};

use granary_fuse::Mode;
use many::Cluster;

/// Rounds of each kind and mode: few here, `GRANARY_ROUNDS=1500` for more than 10,000 in all.
fn rounds() -> u64 {
    std::env::var("GRANARY_ROUNDS").map_or(60, |n| n.parse().unwrap())
}

/// A namespace that several nodes write is served in mode `work` (`cli/src/node/mounts.rs`): in mode `data` a write holds its
/// pages while it waits for the lease, and two of them can wait for each other.
const MODES: [Mode; 1] = [Mode::Work];

#[test]
fn what_was_written_is_read_elsewhere() {
    for mode in MODES {
        let c = Cluster::new(2, mode);
        for round in 0..rounds() {
            let (a, b) = (&c.nodes[round as usize % 2], &c.nodes[(round as usize + 1) % 2]);
            let content = format!("{mode:?} round {round} {}", "x".repeat(round as usize * 37 % 5000));
            fs::write(a.at("f"), &content).unwrap();
            assert_eq!(fs::read_to_string(b.at("f")).unwrap(), content, "{mode:?} {round}");
            assert_eq!(fs::metadata(b.at("f")).unwrap().len(), content.len() as u64);
        }
    }
}

#[test]
fn overwriting_in_place_is_seen_through_open_handles() {
    for mode in MODES {
        let c = Cluster::new(2, mode);
        fs::write(c.nodes[0].at("f"), vec![0_u8; 20_000]).unwrap();
        let readers: Vec<File> = c.nodes.iter().map(|n| File::open(n.at("f")).unwrap()).collect();
        let writers: Vec<File> =
            c.nodes.iter().map(|n| OpenOptions::new().write(true).open(n.at("f")).unwrap()).collect();
        let mut expected = vec![0_u8; 20_000];
        for round in 0..rounds() {
            let (w, r) = (round as usize % 2, (round as usize + 1) % 2);
            let at = (round * 7919 % 19_000) as usize;
            expected[at..at + 500].fill((round as u8).wrapping_add(1));
            writers[w].write_all_at(&expected[at..at + 500], at as u64).unwrap();
            for r in [r, w] {
                let mut seen = vec![0; 20_000];
                readers[r].read_exact_at(&mut seen, 0).unwrap();
                assert!(seen == expected, "{mode:?} round {round}: node {r} read what was before {w} wrote");
            }
        }
    }
}

#[test]
fn names_and_attributes_are_seen_at_once() {
    for mode in MODES {
        let c = Cluster::new(2, mode);
        fs::create_dir(c.nodes[0].at("d")).unwrap();
        for round in 0..rounds() {
            let (a, b) = (&c.nodes[round as usize % 2], &c.nodes[(round as usize + 1) % 2]);
            let list = |n: &many::Node| {
                let mut names: Vec<String> = fs::read_dir(n.at("d"))
                    .unwrap()
                    .map(|e| e.unwrap().file_name().into_string().unwrap())
                    .collect();
                names.sort();
                names
            };
            let name = format!("d/{round}");
            assert!(!b.at(&name).exists());
            fs::write(a.at(&name), b"1").unwrap();
            assert!(b.at(&name).exists(), "{mode:?} {round}: created");
            assert!(list(b).contains(&round.to_string()));

            let bits = 0o600 + (round as u32 & 0o77);
            fs::set_permissions(a.at(&name), fs::Permissions::from_mode(bits)).unwrap();
            assert_eq!(fs::metadata(b.at(&name)).unwrap().mode() & 0o7777, bits, "{mode:?} {round}: chmod");

            OpenOptions::new().write(true).open(a.at(&name)).unwrap().set_len(round + 2).unwrap();
            assert_eq!(fs::metadata(b.at(&name)).unwrap().len(), round + 2, "{mode:?} {round}: truncate");

            fs::write(a.at("d/new"), format!("new {round}")).unwrap();
            fs::rename(a.at("d/new"), a.at(&name)).unwrap();
            assert_eq!(
                fs::read_to_string(b.at(&name)).unwrap(),
                format!("new {round}"),
                "{mode:?} rename over"
            );
            assert!(!b.at("d/new").exists(), "{mode:?} {round}: renamed away");

            fs::remove_file(a.at(&name)).unwrap();
            assert!(!b.at(&name).exists(), "{mode:?} {round}: removed");
            assert_eq!(list(b), Vec::<String>::new());
        }
    }
}

/// The kernel has looked, and found nothing, when another node makes the file: whoever opens it has it, unless it was to be new.
#[test]
fn whoever_makes_a_file_first_the_others_open_it() {
    for mode in MODES {
        let c = Cluster::new(2, mode);
        for round in 0..4 * rounds() {
            let new = round % 4 == 3;
            let together = std::sync::Barrier::new(c.nodes.len());
            let open = |node: &many::Node| {
                let mut options = OpenOptions::new();
                options.append(true).create(!new).create_new(new);
                together.wait();
                options.open(node.at(&format!("f{round}")))
            };
            let opened: Vec<_> = std::thread::scope(|s| {
                let all: Vec<_> = c.nodes.iter().map(|node| s.spawn(|| open(node))).collect();
                all.into_iter().map(|one| one.join().unwrap()).collect()
            });
            let of =
                |opened: &std::io::Result<File>| opened.as_ref().map(|f| f.metadata().unwrap().ino()).ok();
            match (new, of(&opened[0]), of(&opened[1])) {
                (false, Some(a), Some(b)) => assert_eq!(a, b, "{mode:?} {round}"),
                (true, Some(_), None) | (true, None, Some(_)) => {}
                _ => panic!("{mode:?} {round}: {opened:?}"),
            }
            for e in opened.into_iter().filter_map(Result::err) {
                assert_eq!(e.kind(), std::io::ErrorKind::AlreadyExists, "{mode:?} {round}");
            }
        }
    }
}

#[test]
fn appends_of_two_nodes_do_not_overwrite_each_other() {
    for mode in MODES {
        let c = Cluster::new(2, mode);
        fs::write(c.nodes[0].at("log"), b"").unwrap();
        let n = rounds();
        std::thread::scope(|s| {
            for (id, node) in c.nodes.iter().enumerate() {
                s.spawn(move || {
                    let mut f = OpenOptions::new().append(true).open(node.at("log")).unwrap();
                    for i in 0..n {
                        f.write_all(format!("node {id} line {i}\n").as_bytes()).unwrap();
                    }
                });
            }
        });
        for node in &c.nodes {
            let text = fs::read_to_string(node.at("log")).unwrap();
            for id in 0..2 {
                let lines: Vec<&str> =
                    text.lines().filter(|l| l.starts_with(&format!("node {id} "))).collect();
                let expected: Vec<String> = (0..n).map(|i| format!("node {id} line {i}")).collect();
                assert_eq!(lines, expected, "{mode:?}");
            }
            assert_eq!(text.lines().count() as u64, 2 * n, "{mode:?}");
        }
    }
}

#[test]
fn nodes_that_hammer_one_directory_and_one_file_do_not_stop() {
    for mode in MODES {
        for nodes in [2, 3] {
            let c = Cluster::new(nodes, mode);
            fs::write(c.nodes[0].at("f"), vec![7_u8; 50_000]).unwrap();
            fs::create_dir(c.nodes[0].at("d")).unwrap();
            let n = rounds();
            std::thread::scope(|s| {
                for (id, node) in c.nodes.iter().enumerate() {
                    s.spawn(move || {
                        let f = OpenOptions::new().read(true).write(true).open(node.at("f")).unwrap();
                        let mut bytes = vec![0; 50_000];
                        for i in 0..n {
                            f.write_all_at(&[id as u8; 3000], (i * 4999 + id as u64 * 100) % 47_000).unwrap();
                            f.read_exact_at(&mut bytes, 0).unwrap();
                        }
                    });
                    s.spawn(move || {
                        for i in 0..n {
                            let name = format!("d/{}", (i + id as u64) % 5);
                            let _taken = fs::write(node.at(&name), b"x");
                            let _gone = fs::rename(node.at(&name), node.at(&format!("d/{}", i % 3)));
                            let _gone = fs::remove_file(node.at(&name));
                            fs::read_dir(node.at("d")).unwrap().for_each(drop);
                        }
                    });
                    s.spawn(move || {
                        let mut bytes = Vec::new();
                        for _ in 0..n {
                            bytes.clear();
                            File::open(node.at("f")).unwrap().read_to_end(&mut bytes).unwrap();
                            assert_eq!(bytes.len(), 50_000);
                        }
                    });
                }
            });
            let first = fs::read(c.nodes[0].at("f")).unwrap();
            assert!(c.nodes.iter().all(|node| fs::read(node.at("f")).unwrap() == first));
        }
    }
}

/// A mapping of the whole file, for reading or for reading and writing.
struct Mapping {
    at: *mut u8,
    len: usize,
}

impl Mapping {
    fn new(file: &File, len: usize, write: bool) -> Mapping {
        use rustix::mm::{MapFlags, ProtFlags, mmap};
        let prot = if write { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        // SAFETY: a new mapping at an address of the kernel's choice.
        let at = unsafe { mmap(std::ptr::null_mut(), len, prot, MapFlags::SHARED, file, 0) }.unwrap();
        Mapping { at: at.cast(), len }
    }

    fn read(&self) -> Vec<u8> {
        // SAFETY: byte by byte, since another node may change it meanwhile.
        (0..self.len).map(|i| unsafe { self.at.add(i).read_volatile() }).collect()
    }

    fn write(&self, at: usize, byte: u8) {
        assert!(at < self.len);
        // SAFETY: within the mapping.
        unsafe { self.at.add(at).write_volatile(byte) }
    }

    fn sync(&self) {
        // SAFETY: of the mapping.
        unsafe { rustix::mm::msync(self.at.cast(), self.len, rustix::mm::MsyncFlags::SYNC) }.unwrap();
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: nobody uses it any more.
        unsafe { rustix::mm::munmap(self.at.cast(), self.len) }.unwrap();
    }
}

#[test]
fn mappings_show_what_other_nodes_wrote_and_show_them_what_was_stored() {
    const LEN: usize = 12_000;
    for mode in MODES {
        let c = Cluster::new(2, mode);
        fs::write(c.nodes[0].at("f"), vec![0_u8; LEN]).unwrap();
        let reader = File::open(c.nodes[1].at("f")).unwrap();
        let mapped = Mapping::new(&reader, LEN, false);
        let writer = OpenOptions::new().read(true).write(true).open(c.nodes[0].at("f")).unwrap();
        let stored = Mapping::new(&writer, LEN, true);
        let mut expected = vec![0_u8; LEN];
        for round in 0..rounds() {
            let at = (round * 4999) as usize % LEN;
            let byte = (round as u8).wrapping_add(1);
            expected[at] = byte;
            if round % 2 == 0 {
                writer.write_all_at(&[byte], at as u64).unwrap();
            } else {
                stored.write(at, byte);
                stored.sync();
            }
            assert!(mapped.read() == expected, "{mode:?} round {round}: the mapping shows what was before");
            assert!(fs::read(c.nodes[1].at("f")).unwrap() == expected, "{mode:?} round {round}");
            assert!(stored.read() == expected, "{mode:?} round {round}: the writer's own mapping");
        }
    }
}

#[test]
fn locked_appends_and_counters_are_exact() {
    let c = Cluster::new(2, Mode::Work);
    fs::write(c.nodes[0].at("n"), b"0").unwrap();
    let n = rounds();
    // What it is, guarded by a lock that surely works: tells a stale read from a lock that two have.
    let inside = std::sync::Mutex::new(0u64);
    std::thread::scope(|s| {
        for node in &c.nodes {
            let inside = &inside;
            s.spawn(move || {
                let file = OpenOptions::new().read(true).write(true).open(node.at("n")).unwrap();
                for _ in 0..n {
                    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
                    let mut held = inside.try_lock().expect("nobody else has the lock");
                    let now: u64 = fs::read_to_string(node.at("n")).unwrap().parse().unwrap();
                    assert_eq!(now, *held, "an old value was read");
                    file.write_all_at((now + 1).to_string().as_bytes(), 0).unwrap();
                    *held += 1;
                    drop(held);
                    rustix::fs::flock(&file, rustix::fs::FlockOperation::Unlock).unwrap();
                }
            });
        }
    });
    assert_eq!(fs::read_to_string(c.nodes[1].at("n")).unwrap(), (2 * n).to_string());
}
