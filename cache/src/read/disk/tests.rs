use super::*;
use proptest::prelude::*;

proptest! {
    #[test]
    fn names_come_back(object: u128, index: u32) {
        let key = ChunkKey { object: ObjectId(object), index };
        prop_assert_eq!(ChunkKey::parse(&key.file_name()), Some(key));
    }

    #[test]
    fn no_other_name_is_taken_for_one_of_ours(name in "[0-9a-fF]{30,33}\\.(footer|[0-9a-fF]{7,9})") {
        if let Some(key) = ChunkKey::parse(&name) {
            prop_assert_eq!(key.file_name(), name);
        }
    }
}

fn disk(dir: &Path, bytes_max: u64) -> Disk {
    let limits = DiskLimits { bytes_max, free_min: FreeMin { bytes: 0, percent: 0 }, open_files_max: 4 };
    Disk::open(dir, limits, Arc::default(), Arc::default()).unwrap()
}

fn insert(disk: &Disk, id: u128, bytes: &[u8]) -> bool {
    let crcs: Vec<u32> = bytes.chunks(FRAME_BYTES as usize).map(crc32c::crc32c).collect();
    let (a, b) = bytes.split_at(bytes.len() / 3);
    disk.insert(ChunkKey { object: ObjectId(id), index: 0 }, &[b"", a, b"", b], &crcs, false)
}

#[test]
fn a_chunk_larger_than_the_budget_evicts_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let disk = disk(dir.path(), 128 << 10);
    assert!(insert(&disk, 1, &[1; 5000]));
    assert!(!insert(&disk, 2, &[2; 1 << 20]));
    assert_eq!(disk.entries(), 1);
    assert_eq!(disk.stats.snapshot().uncached, 1);
    let key = ChunkKey { object: ObjectId(1), index: 0 };
    assert_eq!(&disk.read_frames(key, 0..1).unwrap()[..], &[1; 5000]);
}

#[test]
fn tiny_entries_count_a_frame_each_so_that_their_number_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let disk = disk(dir.path(), 10 * ENTRY_BYTES_MIN);
    for id in 0..50 {
        assert!(insert(&disk, id, b"x"));
    }
    assert_eq!(disk.entries(), 10);
}

#[test]
fn writers_at_once_stay_within_the_budget() {
    let dir = tempfile::tempdir().unwrap();
    let disk = disk(dir.path(), 3 << 20);
    std::thread::scope(|scope| {
        for thread in 0..4u128 {
            let disk = &disk;
            scope.spawn(move || {
                for i in 0..20 {
                    insert(disk, thread * 100 + i, &vec![i as u8; 900_000]);
                    assert!(disk.bytes() <= 3 << 20);
                }
            });
        }
    });
    let state = disk.state();
    assert_eq!(state.reserved, 0);
    assert!(state.policy.len() >= 2);
}

#[test]
fn files_are_their_owners_only() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let disk = disk(&dir.path().join("cache"), 3 << 20);
    insert(&disk, 1, b"secret");
    let path = disk.path(ChunkKey { object: ObjectId(1), index: 0 });
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(path.parent().unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(dir.path().join("cache").metadata().unwrap().permissions().mode() & 0o777, 0o700);
}

fn key(id: u128) -> ChunkKey {
    ChunkKey { object: ObjectId(id), index: 0 }
}

#[test]
fn what_is_pinned_stays_while_others_pass() {
    let dir = tempfile::tempdir().unwrap();
    let disk = disk(dir.path(), 8 << 20);
    insert(&disk, 1, &[1; 1 << 20]);
    disk.pin(ObjectId(1), 0..1).unwrap();
    disk.pin(ObjectId(2), 0..1).unwrap();
    insert(&disk, 2, &[2; 1000]);
    assert_eq!(disk.pinned_bytes(), (1 << 20) + 4096 + ENTRY_BYTES_MIN);
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
    assert_eq!(disk.state().policy.pinned_bytes(), (1 << 20) + 4096, "fetched again it is kept again");
}
