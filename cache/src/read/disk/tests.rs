mod shares;

use super::*;
use bytes::Bytes;
use granary_core::limits::{FRAME_BYTES, FreeMin};
use granary_core::{NamespaceId, TestClock};
use std::time::Duration;

const MIB: u64 = 1 << 20;
const NS: NamespaceId = NamespaceId(7);

fn limits(bytes_max: u64) -> DiskLimits {
    DiskLimits { bytes_max, free_min: FreeMin { bytes: 0, percent: 0 }, open_files_max: 16 }
}

fn disk(dir: &Path, bytes_max: u64) -> Disk {
    open(dir, &[], bytes_max, Arc::default()).unwrap()
}

fn open(dir: &Path, more: &[CacheFolder], bytes_max: u64, clock: Arc<TestClock>) -> Result<Disk> {
    Disk::open(dir, more, limits(bytes_max), Arc::default(), Arc::default(), clock)
}

fn key(id: u128) -> ChunkKey {
    ChunkKey { object: ObjectId(id), index: 0 }
}

fn insert(disk: &Disk, id: u128, bytes: &[u8]) -> bool {
    let crcs: Vec<u32> = bytes.chunks(FRAME_BYTES as usize).map(granary_core::crc32c).collect();
    disk.insert(NS, key(id), &[bytes], &crcs, false)
}

#[test]
fn what_is_pinned_stays_while_others_pass() {
    let dir = tempfile::tempdir().unwrap();
    let disk = disk(dir.path(), 8 << 20);
    insert(&disk, 1, &[1; 1 << 20]);
    disk.pin(ObjectId(1), 0..1).unwrap();
    disk.pin(ObjectId(2), 0..1).unwrap();
    insert(&disk, 2, &[2; 1000]);
    assert_eq!(disk.pinned_bytes(), (1 << 20) + 4096 + FRAME_BYTES);
    for id in 10..40 {
        assert!(insert(&disk, id, &[3; 1 << 20]));
    }
    assert!(disk.contains(key(1)) && disk.contains(key(2)), "pinned before it came, and after");
    disk.unpin(ObjectId(1), 0..1);
    for id in 40..80 {
        assert!(insert(&disk, id, &[3; 1 << 20]));
    }
    assert!(!disk.contains(key(1)) && disk.contains(key(2)));
    disk.remove(ObjectId(2));
    assert_eq!(disk.pinned_bytes(), 0, "the object is gone, and its pins with it");
}

#[test]
fn pins_may_not_take_all_of_the_cache_and_leave_for_what_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let disk = disk(dir.path(), 8 << 20);
    let e = disk.pin(ObjectId(1), 0..4).unwrap_err();
    assert_eq!(e.kind(), granary_core::Kind::NoSpace);
    assert!(e.to_string().contains("cache_bytes_max"), "{e}");
    disk.pin(ObjectId(1), 0..3).unwrap();
    insert(&disk, 1, &[1; 1 << 20]);
    insert(&disk, 9, &[1; 1 << 20]);
    disk.shrink(u64::MAX / 2);
    assert_eq!(disk.entries(), 0, "nothing else was left");
    insert(&disk, 1, &[1; 1 << 20]);
    assert_eq!(disk.own_pinned_bytes(), (1 << 20) + 4096, "fetched again it is kept again");
}

/// Three folders of 20, 40 and 60 MiB.
struct Three {
    dirs: Vec<tempfile::TempDir>,
    clock: Arc<TestClock>,
}

impl Three {
    fn new() -> Three {
        Three { dirs: (0..3).map(|_| tempfile::tempdir().unwrap()).collect(), clock: Arc::default() }
    }

    fn path(&self, n: usize) -> PathBuf {
        self.dirs[n].path().join("cache")
    }

    fn open(&self, more: &[usize]) -> Disk {
        let more: Vec<CacheFolder> = more
            .iter()
            .map(|&n| CacheFolder { path: self.path(n), bytes_max: (n as u64 + 1) * 20 * MIB })
            .collect();
        open(&self.path(0), &more, 20 * MIB, self.clock.clone()).unwrap()
    }

    fn away(&self, n: usize) {
        std::fs::rename(self.path(n), self.dirs[n].path().join("away")).unwrap();
    }

    fn back(&self, n: usize) {
        std::fs::rename(self.dirs[n].path().join("away"), self.path(n)).unwrap();
    }
}

fn content(id: u128) -> Bytes {
    vec![id as u8; 50_000].into()
}

/// Which of the objects are there; all that are must be right.
fn there(disk: &Disk, ids: std::ops::Range<u128>) -> Vec<u128> {
    ids.filter(|&id| match disk.read_frames(NS, key(id), 0..1) {
        Some(bytes) => {
            assert_eq!(bytes, content(id));
            true
        }
        None => false,
    })
    .collect()
}

#[test]
fn chunks_are_spread_by_size_and_found_after_a_restart() {
    let three = Three::new();
    let disk = three.open(&[1, 2]);
    for id in 0..1200 {
        assert!(insert(&disk, id, &content(id)));
    }
    let counts: Vec<usize> = disk.folders.iter().map(Folder::entries).collect();
    assert_eq!(counts.iter().sum::<usize>(), 1200);
    for (n, count) in counts.iter().enumerate() {
        let fair = 200 * (n + 1);
        // Folders have names by chance: this is four and a half standard deviations of 1,200 draws.
        assert!(count.abs_diff(fair) < 80, "{counts:?}");
    }
    assert_eq!(disk.bytes_max(), 120 * MIB);
    drop(disk);
    let disk = three.open(&[1, 2]);
    assert_eq!(there(&disk, 0..1200).len(), 1200);
    drop(disk);
    // Without one, the others' stay in place; when it is used again it has its own.
    let disk = three.open(&[1]);
    assert_eq!(there(&disk, 0..1200).len(), counts[0] + counts[1]);
    drop(disk);
    assert_eq!(there(&three.open(&[2, 1]), 0..1200).len(), 1200);
}

#[test]
fn a_disk_that_is_taken_away_costs_its_own_chunks_until_it_is_back() {
    let three = Three::new();
    let disk = three.open(&[1, 2]);
    for id in 0..60 {
        assert!(insert(&disk, id, &content(id)));
    }
    let on_last = disk.folders[2].entries();
    assert!(on_last > 0 && disk.trouble().is_none());
    three.away(2);
    for id in 100..160 {
        insert(&disk, id, &content(id));
    }
    let trouble = disk.trouble().unwrap();
    assert!(trouble.contains(three.path(2).to_str().unwrap()), "{trouble}");
    assert_eq!(there(&disk, 0..60).len(), 60 - on_last);
    assert!(there(&disk, 100..160).len() >= 59, "all but the one by which it was found out");
    assert!(!three.path(2).exists(), "nothing is made in its place");
    // Something else in its place is not it.
    std::fs::create_dir(three.path(2)).unwrap();
    three.clock.advance(Duration::from_secs(61));
    insert(&disk, 200, &content(200));
    assert!(disk.trouble().is_some());
    assert_eq!(std::fs::read_dir(three.path(2)).unwrap().count(), 0);
    std::fs::remove_dir(three.path(2)).unwrap();
    three.back(2);
    insert(&disk, 201, &content(201));
    assert!(disk.trouble().is_some(), "not yet");
    three.clock.advance(Duration::from_secs(61));
    insert(&disk, 202, &content(202));
    assert_eq!(disk.trouble(), None);
    assert_eq!(there(&disk, 0..60).len(), 60, "what was on it is there again");
    disk.remove(ObjectId(1));
    assert!(!disk.contains(key(1)));
}

#[test]
fn a_disk_that_is_not_there_at_start_is_used_once_it_is() {
    let three = Three::new();
    std::fs::write(three.path(1), b"in the place of a directory").unwrap();
    let disk = three.open(&[1]);
    assert!(disk.trouble().is_some());
    for id in 0..20 {
        assert!(insert(&disk, id, &content(id)), "the other takes all");
    }
    assert_eq!(there(&disk, 0..20).len(), 20);
    std::fs::remove_file(three.path(1)).unwrap();
    three.clock.advance(Duration::from_secs(61));
    for id in 20..60 {
        assert!(insert(&disk, id, &content(id)));
    }
    assert_eq!(disk.trouble(), None);
    assert!(disk.folders[1].entries() > 0);
    assert_eq!(there(&disk, 20..60).len(), 40);
}

#[test]
fn a_folder_of_another_node_is_refused() {
    let (a, b) = (Three::new(), Three::new());
    let _first = a.open(&[1]);
    let more = [CacheFolder { path: a.path(1), bytes_max: 20 * MIB }];
    let e = open(&b.path(0), &more, 20 * MIB, Arc::default()).unwrap_err();
    assert_eq!(e.kind(), granary_core::Kind::Busy);
    assert!(e.to_string().contains(a.path(1).to_str().unwrap()), "{e}");
}

#[test]
fn pins_hold_on_every_disk() {
    let three = Three::new();
    let disk = three.open(&[1, 2]);
    for id in 0..12 {
        disk.pin(ObjectId(id), 0..1).unwrap();
        insert(&disk, id, &content(id));
    }
    assert_eq!(disk.pinned_bytes(), 12 * FRAME_BYTES);
    for id in 100..400 {
        insert(&disk, id, &vec![1; 1 << 20]);
    }
    assert_eq!(there(&disk, 0..12).len(), 12);
    assert!(disk.folders.iter().all(|f| f.bytes() <= f.bytes_max()));
}
