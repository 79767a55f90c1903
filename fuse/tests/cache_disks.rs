//! A disk of the read cache that becomes read-only, and one that is unmounted, while the node reads. Needs root.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use granary_cache::{CacheFolder, ReadCache};
use granary_core::limits::Limits;
use granary_core::{ByteBudget, Ino, NamespaceId, ObjectId, ObjectKind, TestClock};
use granary_meta::ObjectInfo;
use granary_store::Store;
use granary_store::format::{BlockBuilder, BlockInfo};
use granary_store::memory::MemoryStore;
use rustix::mount::{MountFlags, UnmountFlags};

const NS: NamespaceId = NamespaceId(7);
const LEN: usize = 200_000;

/// A file system in memory. Gone when dropped.
struct Disk(tempfile::TempDir);

impl Disk {
    fn new() -> Disk {
        assert!(rustix::process::geteuid().is_root(), "these tests mount for real: run them as root");
        let disk = Disk(tempfile::tempdir().unwrap());
        disk.mount(MountFlags::empty());
        disk
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn mount(&self, flags: MountFlags) {
        rustix::mount::mount("none", self.path(), "tmpfs", flags, None).unwrap();
    }

    fn remount(&self, flags: MountFlags) {
        rustix::mount::mount_remount(self.path(), flags, "").unwrap();
    }

    fn unmount(&self) {
        rustix::mount::unmount(self.path(), UnmountFlags::DETACH).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.path(), UnmountFlags::DETACH); // it may be gone already
    }
}

struct World {
    _own: tempfile::TempDir,
    disk: Disk,
    clock: Arc<TestClock>,
    store: Arc<MemoryStore>,
    cache: Arc<ReadCache>,
}

impl World {
    fn new() -> World {
        let (own, disk) = (tempfile::tempdir().unwrap(), Disk::new());
        let clock = Arc::new(TestClock::default());
        let store = Arc::new(MemoryStore::new(clock.clone()));
        let limits = Limits { cache_free_bytes_min: 0, cache_free_percent_min: 0, ..Limits::default() };
        let more = [CacheFolder { path: disk.path().join("cache"), bytes_max: limits.cache_bytes_max }];
        let memory = ByteBudget::new(64 << 20);
        let cache =
            ReadCache::open_on(own.path(), &more, &limits, store.clone(), clock.clone(), memory).unwrap();
        World { _own: own, disk, clock, store, cache }
    }

    async fn object(&self, id: u128) -> ObjectInfo {
        let mut block =
            BlockBuilder::new(NS, ObjectId(id), BlockInfo { ino: Ino(5), file_offset: 0, version: 1 });
        block.push(vec![id as u8; LEN].into()).unwrap();
        let sealed = block.seal().unwrap();
        self.store.put(&sealed.key(), sealed.parts()).await.unwrap();
        ObjectInfo {
            id: ObjectId(id),
            kind: ObjectKind::Block,
            payload_len: sealed.info.payload_len,
            total_len: sealed.info.total_len,
        }
    }

    /// Reads objects, old and new; every byte must be right.
    async fn read(&self, ids: std::ops::Range<u128>) {
        for id in ids {
            let object = self.object(id).await;
            let bytes = self.cache.read(NS, &object, 0..LEN as u64).await.unwrap();
            assert!(bytes == vec![id as u8; LEN]);
            self.cache.idle().await;
        }
    }
}

#[tokio::test]
async fn a_disk_that_becomes_read_only_is_left_alone_until_it_works() {
    let w = World::new();
    w.read(0..20).await;
    assert_eq!(w.cache.disk_trouble(), None);
    w.disk.remount(MountFlags::RDONLY);
    w.read(0..60).await;
    let trouble = w.cache.disk_trouble().unwrap();
    assert!(trouble.contains(w.disk.path().to_str().unwrap()), "{trouble}");
    let gets = w.cache.stats().gets;
    w.read(40..60).await;
    assert_eq!(w.cache.stats().gets, gets, "the other disk has them");
    w.disk.remount(MountFlags::empty());
    w.clock.advance(Duration::from_secs(61));
    w.read(60..100).await;
    assert_eq!(w.cache.disk_trouble(), None);
    w.read(0..100).await;
}

#[tokio::test]
async fn a_disk_that_is_unmounted_is_not_written_in_its_place() {
    let w = World::new();
    w.read(0..20).await;
    w.disk.unmount();
    w.read(0..60).await;
    assert!(w.cache.disk_trouble().is_some());
    w.clock.advance(Duration::from_secs(61));
    w.read(0..80).await;
    assert_eq!(std::fs::read_dir(w.disk.path()).unwrap().count(), 0, "nothing lies below the mount point");
    w.disk.mount(MountFlags::empty());
    std::fs::create_dir(w.disk.path().join("cache")).unwrap();
    w.clock.advance(Duration::from_secs(61));
    w.read(0..100).await;
    assert!(
        w.cache.disk_trouble().is_some(),
        "another, empty one is not known: a person may mean it for something else"
    );
}
