//! Two namespaces in one folder, and on three disks.

use super::*;

const A: NamespaceId = NamespaceId(1);
const B: NamespaceId = NamespaceId(2);

fn keep(disk: &Disk, ns: NamespaceId, id: u128) -> bool {
    let bytes = content(id);
    disk.insert(ns, key(id), &[&bytes], &[granary_core::crc32c(&bytes)], false)
}

/// A chunk that is read again and again at once.
fn keep_used(disk: &Disk, ns: NamespaceId, id: u128) {
    let bytes = vec![id as u8; 100_000];
    let crcs: Vec<u32> = bytes.chunks(FRAME_BYTES as usize).map(granary_core::crc32c).collect();
    assert!(disk.insert(ns, key(id), &[&bytes], &crcs, false));
    for frame in [0, 1, 0, 1] {
        assert!(disk.read_frames(ns, key(id), frame..frame + 1).is_some());
    }
}

/// Those that are there, read as `ns`.
fn read(disk: &Disk, ns: NamespaceId, ids: std::ops::Range<u128>) -> usize {
    ids.filter(|&id| disk.read_frames(ns, key(id), 0..1).is_some_and(|bytes| bytes == content(id))).count()
}

fn share(bytes_min: u64, bytes_max: u64) -> CacheShare {
    CacheShare { bytes_min, bytes_max }
}

fn files(dir: &Path) -> usize {
    let below = |dir: PathBuf| std::fs::read_dir(dir).map_or(0, Iterator::count);
    std::fs::read_dir(dir).unwrap().map(|entry| below(entry.unwrap().path())).sum()
}

#[test]
fn a_minimum_stays_while_others_pass_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let disk = disk(dir.path(), 4 * MIB); // 64 files
        assert!(disk.set_share(A, share(20 * FRAME_BYTES, u64::MAX)));
        disk
    };
    let first = open();
    for id in 0..30 {
        assert!(keep(&first, A, id));
    }
    for id in 1000..1200 {
        keep_used(&first, B, id);
        assert!(first.bytes() <= 4 * MIB);
    }
    assert_eq!(first.bytes_of(A), 20 * FRAME_BYTES);
    assert!(first.bytes() > 7 * MIB / 2);
    let entries = first.entries();
    assert_eq!(files(dir.path()), entries);
    drop(first);
    let second = open();
    assert_eq!((second.bytes_of(A), second.entries()), (0, entries), "nobody's");
    assert_eq!(read(&second, A, 0..30), 20);
    assert_eq!(second.bytes_of(A), 20 * FRAME_BYTES);
    for id in 2000..2400 {
        keep_used(&second, B, id);
    }
    assert_eq!(read(&second, A, 0..30), 20);
    // What is written has nowhere else to go.
    second.shrink(u64::MAX / 2);
    assert_eq!((second.entries(), files(dir.path())), (0, 0));
    assert!(keep(&second, A, 1), "fetched again it is kept again");
}

#[test]
fn a_namespace_at_its_maximum_makes_room_among_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let disk = disk(dir.path(), 16 * MIB); // 256 files
    disk.set_share(B, share(0, 16 * FRAME_BYTES));
    for id in 0..100 {
        assert!(keep(&disk, A, id));
    }
    for id in 1000..1100 {
        assert!(keep(&disk, B, id));
        assert!(disk.bytes_of(B) <= 16 * FRAME_BYTES);
    }
    assert_eq!((read(&disk, A, 0..100), read(&disk, B, 1000..1100)), (100, 16));
    assert_eq!(files(dir.path()), 116);
    // All of it pinned: nothing can go, and its next chunk is not kept. Others do not notice.
    for id in 1000..1100 {
        if disk.contains(key(id)) {
            disk.pin(ObjectId(id), 0..1).unwrap();
        }
    }
    assert!(!keep(&disk, B, 2000) && !disk.contains(key(2000)));
    assert!(!disk.has_room_ahead(B, FRAME_BYTES), "it would be fetched for nothing");
    assert!(disk.has_room_ahead(A, FRAME_BYTES) && keep(&disk, A, 200));
    // Raised, it is kept.
    disk.set_share(B, CacheShare::default());
    assert!(keep(&disk, B, 2000));
}

#[test]
fn when_others_minimums_are_all_a_chunk_is_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let disk = disk(dir.path(), 4 * MIB);
    disk.set_share(A, share(4 * MIB, u64::MAX));
    for id in 0..64 {
        assert!(keep(&disk, A, id));
    }
    assert!(!keep(&disk, B, 1000));
    assert!(!disk.has_room_ahead(B, FRAME_BYTES));
    assert_eq!(read(&disk, A, 0..64), 64);
    assert!(keep(&disk, A, 64), "for one of its own, one of its own leaves");
    assert_eq!(disk.bytes_of(A), 4 * MIB);
    assert!(!disk.set_share(B, share(MIB, u64::MAX)), "more than there is");
    assert!(keep(&disk, B, 1000) == (disk.bytes_of(B) > 0));
}

#[test]
fn each_disk_has_its_part() {
    let three = Three::new();
    let disk = three.open(&[1, 2]); // 20, 40 and 60 MiB
    assert!(disk.set_share(A, share(30 * MIB, u64::MAX)));
    assert!(disk.set_share(B, share(0, 60 * MIB)));
    for id in 0..400 {
        assert!(keep(&disk, A, id)); // 25 MiB
    }
    for id in 1000..5000 {
        keep(&disk, B, id);
        assert!(disk.bytes_of(B) <= 60 * MIB);
    }
    assert!(disk.bytes_of(B) > 58 * MIB);
    assert_eq!(read(&disk, A, 0..400), 400, "the others have no maximum to make room for");
    // A disk that is taken away and comes back has its shares as before, and its chunks are known when they are read.
    three.away(2);
    // Half of them belong there, by chance: with forty, one in a trillion runs has none.
    for id in 6000..6040 {
        keep(&disk, B, id);
    }
    assert!(disk.trouble().is_some());
    three.back(2);
    three.clock.advance(Duration::from_secs(61));
    keep(&disk, B, 6040);
    assert_eq!(disk.trouble(), None);
    for id in 1000..5000 {
        read(&disk, B, id..id + 1);
    }
    for id in 7000..7100 {
        keep(&disk, B, id);
        assert!(disk.bytes_of(B) <= 60 * MIB + MIB);
    }
}
