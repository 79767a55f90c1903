mod shares;

use super::*;
use crate::read::disk::ENTRY_BYTES_MIN;
use granary_core::TestClock;
use granary_core::limits::FRAME_BYTES;

fn disk(dir: &Path, bytes_max: u64) -> Folder {
    let limits = DiskLimits { bytes_max, free_min: FreeMin { bytes: 0, percent: 0 }, open_files_max: 4 };
    let pins = Arc::new(Mutex::new(Pins::new(bytes_max)));
    let common = Common { stats: Arc::default(), clock: Arc::new(TestClock::default()), pins };
    let folder = Folder::of(dir, limits, Arc::default(), common, false);
    folder.open().unwrap();
    folder
}

fn insert(disk: &Folder, id: u128, bytes: &[u8]) -> bool {
    let crcs: Vec<u32> = bytes.chunks(FRAME_BYTES as usize).map(granary_core::crc32c).collect();
    let (a, b) = bytes.split_at(bytes.len() / 3);
    disk.insert(NamespaceId(7), ChunkKey { object: ObjectId(id), index: 0 }, &[b"", a, b"", b], &crcs, false)
}

#[test]
fn a_chunk_larger_than_the_budget_evicts_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let disk = disk(dir.path(), 128 << 10);
    assert!(insert(&disk, 1, &[1; 5000]));
    assert!(!insert(&disk, 2, &[2; 1 << 20]));
    assert_eq!(disk.entries(), 1);
    let key = ChunkKey { object: ObjectId(1), index: 0 };
    assert_eq!(&disk.read_frames(NamespaceId(7), key, 0..1).unwrap()[..], &[1; 5000]);
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
