//! A disk that damages, refuses, fills up and forgets: reads go on.

use super::*;

fn flip_in_file(path: &Path, at: u64) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at as usize] ^= 0x40;
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn damaged_files_are_dropped_and_fetched_again() {
    let mut b = Bench::new();
    let len = 2 * MIB + 100;
    let object = b.object(1, len).await;
    b.check(&object, 0..len).await;
    b.cache.idle().await;
    let files = b.files();
    assert_eq!(files.len(), 4);
    let mut places = vec![];
    for path in &files {
        let len = path.metadata().unwrap().len();
        places.extend([(path, 0), (path, len / 2), (path, len - 1), (path, len.saturating_sub(38))]);
    }
    for (path, at) in places {
        flip_in_file(path, at);
        b.reopen().await;
        let before = b.store.gets().len();
        b.check(&object, 0..len).await;
        b.check(&object, 0..len).await;
        b.cache.idle().await;
        let (stats, gets) = (b.cache.stats(), b.store.gets().len() - before);
        // A damaged table of checksums is noticed when it is needed next, and not read until then.
        let is_table = path.extension().is_some_and(|e| e == "footer");
        assert_eq!(
            (stats.local_corrupt, gets >= 1),
            (u64::from(!is_table), !is_table),
            "{} {at}",
            path.display()
        );
    }
}

#[tokio::test]
async fn a_damaged_table_of_checksums_is_fetched_again() {
    let mut b = Bench::new();
    let object = b.object(1, 5 * MIB).await;
    b.check(&object, MIB..MIB + 10).await;
    b.cache.idle().await;
    let table = b.files().into_iter().find(|p| p.extension().unwrap() == "footer").unwrap();
    flip_in_file(&table, 45);
    b.reopen().await;
    b.check(&object, 3 * MIB..3 * MIB + 10).await;
    assert_eq!(b.cache.stats().local_corrupt, 1);
    b.reopen().await;
    b.check(&object, 2 * MIB..2 * MIB + 10).await;
    assert_eq!(b.cache.stats().local_corrupt, 0);
}

#[tokio::test]
async fn cut_swapped_and_deleted_files_are_found_out() {
    let mut b = Bench::new();
    let object = b.object(1, 3 * MIB).await;
    b.check(&object, 0..3 * MIB).await;
    b.reopen().await;
    let files = b.files();
    std::fs::copy(&files[1], &files[0]).unwrap(); // another chunk's right bytes
    std::fs::File::options().write(true).open(&files[1]).unwrap().set_len(MIB / 2).unwrap();
    std::fs::remove_file(&files[2]).unwrap();
    b.check(&object, 0..3 * MIB).await;
    assert_eq!(b.cache.stats().local_corrupt, 2, "a missing file is no damage");
    b.cache.idle().await;
    b.store.set_dead(true);
    b.check(&object, 0..3 * MIB).await;
}

#[tokio::test]
async fn what_is_not_ours_and_half_written_files_are_deleted_at_open() {
    let mut b = Bench::new();
    let object = b.object(0x42, MIB).await;
    b.check(&object, 0..10).await;
    b.cache.idle().await;
    let (root, ours) = (b.dir.path().to_owned(), b.files());
    let id = object.id;
    let junk = [".new-17", "junk", &format!("{id}.1"), &format!("{id}.FFFFFFFF"), &format!("{id}.00000003")];
    for name in junk {
        std::fs::write(root.join("42").join(name), b"").unwrap();
    }
    std::fs::create_dir(root.join("41")).unwrap();
    std::fs::copy(&ours[0], root.join("41").join(ours[0].file_name().unwrap())).unwrap();
    std::fs::write(root.join("README"), b"somebody's").unwrap();
    b.reopen().await;
    assert_eq!(b.files(), ours);
    assert!(root.join("README").exists(), "only the directories of two digits are ours");
    b.store.set_dead(true);
    b.check(&object, 0..MIB).await;
}

#[tokio::test]
async fn eviction_keeps_the_disk_under_its_budget() {
    let limits = Limits {
        cache_bytes_max: 8 << 20,
        cache_free_bytes_min: 0,
        cache_free_percent_min: 0,
        ..Limits::default()
    };
    let mut b = Bench::with(limits, ByteBudget::new(64 << 20));
    for id in 1..7 {
        let object = b.object(id, 5 * MIB).await;
        b.check(&object, 0..5 * MIB).await;
        assert!(b.cache.usage().0 <= 8 << 20);
        b.cache.idle().await;
        assert!(b.bytes_on_disk() <= 8 << 20);
    }
    assert!(b.cache.stats().evicted_bytes >= 21 << 20);
    b.limits.cache_bytes_max = 3 << 20;
    b.reopen().await;
    assert!(b.cache.usage().0 <= 3 << 20, "a smaller budget holds at once");
    assert!(b.bytes_on_disk() <= 3 << 20);
}

#[tokio::test]
async fn what_is_read_again_and_again_outlives_a_scan() {
    let limits = Limits {
        cache_bytes_max: 10 << 20,
        cache_free_bytes_min: 0,
        cache_free_percent_min: 0,
        ..Limits::default()
    };
    let b = Bench::with(limits, ByteBudget::new(64 << 20));
    let (hot, scan) = (b.object(1, 2 * MIB).await, b.object(2, 15 * MIB).await);
    for frame in [0, 1, 0, 1, 0] {
        b.check(&hot, frame * FRAME_BYTES..frame * FRAME_BYTES + 200_000).await;
        b.check(&hot, MIB + frame * FRAME_BYTES..MIB + frame * FRAME_BYTES + 200_000).await;
        b.cache.idle().await;
    }
    for chunk in 0..15 {
        b.check(&scan, chunk * MIB..(chunk + 1) * MIB).await;
        b.cache.idle().await;
    }
    b.store.set_dead(true);
    b.check(&hot, 0..2 * MIB).await;
}

#[tokio::test]
async fn without_free_space_reads_go_on_uncached() {
    let limits = Limits { cache_free_bytes_min: 1 << 50, ..Limits::default() };
    let b = Bench::with(limits, ByteBudget::new(64 << 20));
    let object = b.object(1, 2 * MIB).await;
    b.check(&object, 0..2 * MIB).await;
    b.cache.idle().await;
    assert!(b.files().is_empty());
    assert_eq!(b.cache.stats().uncached, 2);
    let before = b.store.gets().len();
    b.check(&object, 4096..8192).await;
    assert_eq!(b.store.gets().len(), before, "the chunk read last stays in memory for its neighbours");
    b.cache.prefetch(NS, &b.object(2, MIB).await, 0..MIB);
    b.cache.idle().await;
    assert_eq!(b.store.gets().len(), before, "nothing is fetched ahead that could not be kept");
}

#[tokio::test]
async fn a_disk_that_refuses_to_write_fails_no_read_and_recovers() {
    let b = Bench::new();
    let object = b.object(0x77, 2 * MIB).await;
    // In the place of the directory there is a file: every write fails with ENOTDIR.
    std::fs::write(b.dir.path().join("77"), b"").unwrap();
    b.check(&object, 0..2 * MIB).await;
    b.cache.idle().await;
    assert_eq!(b.cache.usage(), (0, 0));
    std::fs::remove_file(b.dir.path().join("77")).unwrap();
    b.cache.fetcher.frames.remove(object.id);
    b.check(&object, 0..2 * MIB).await;
    b.cache.idle().await;
    assert_eq!(b.files().len(), 3);
}

#[tokio::test]
async fn a_directory_emptied_by_somebody_is_filled_again() {
    let b = Bench::new();
    let object = b.object(0x77, 2 * MIB).await;
    b.check(&object, 0..2 * MIB).await;
    b.cache.idle().await;
    std::fs::remove_dir_all(b.dir.path().join("77")).unwrap();
    b.check(&object, 0..2 * MIB).await;
    b.cache.idle().await;
    assert_eq!(b.files().len(), 2, "both chunks are back");
    assert_eq!(b.cache.stats().local_corrupt, 0);
}

#[tokio::test]
async fn open_descriptors_are_bounded() {
    let limits = Limits {
        open_files_max: 16,
        cache_free_bytes_min: 0,
        cache_free_percent_min: 0,
        ..Limits::default()
    };
    let b = Bench::with(limits, ByteBudget::new(64 << 20));
    let mut objects = Vec::new();
    for id in 1..40 {
        let object = b.object(id, 1000).await;
        b.check(&object, 0..1000).await;
        objects.push(object);
    }
    b.cache.idle().await;
    for object in &objects {
        assert!(b.cache.read_ready(NS, object, 0..1000).is_some());
    }
    let open =
        std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|e| std::fs::read_link(e.ok()?.path()).ok());
    let files = open.filter(|target| target.starts_with(b.dir.path()) && target.as_path() != b.dir.path());
    assert_eq!(files.count(), 8);
}

#[tokio::test]
async fn a_directory_that_cannot_be_made_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let (limits, clock) = (Limits::default(), Arc::new(TestClock::default()));
    let e =
        ReadCache::open(file.path(), &limits, TestStore::new(), clock, ByteBudget::new(1 << 20)).unwrap_err();
    assert!(e.to_string().contains(file.path().to_str().unwrap()), "{e}");
}

#[test]
fn outside_a_runtime_it_is_refused() {
    let (dir, limits, clock) =
        (tempfile::tempdir().unwrap(), Limits::default(), Arc::new(TestClock::default()));
    let e =
        ReadCache::open(dir.path(), &limits, TestStore::new(), clock, ByteBudget::new(1 << 20)).unwrap_err();
    assert_eq!(e.kind(), Kind::Bug);
}
