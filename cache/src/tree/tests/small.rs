//! Small files in use: reading, writing, holding back, quota, errors.

use std::sync::atomic::Ordering::SeqCst;

use granary_core::{Kind, Timestamp};
use granary_meta::Metadata;
use granary_meta::types::Durability;

use super::world::{World, limits, pattern};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_is_read_before_and_after_close() {
    let w = World::new().await;
    let file = w.create("f", false).await;
    file.write(0, b"hello", false).await.unwrap();
    assert_eq!(file.write(0, b" world", true).await.unwrap(), 5, "append tells where it wrote");
    assert_eq!(&file.read_ready(0, 100).unwrap().unwrap()[..], b"hello world");
    assert_eq!(&file.read(3, 4).await.unwrap()[..], b"lo w");
    assert!(file.read(11, 4).await.unwrap().is_empty());
    w.close(file).await;
    assert_eq!(w.content("f").await, b"hello world");
}

#[tokio::test(flavor = "multi_thread")]
async fn held_state_covers_what_the_metadata_says() {
    let w = World::new().await;
    let file = w.create("f", false).await;
    let before = w.attr("f").await.unwrap();
    file.write(4096, &[1; 100], false).await.unwrap();
    let held = w.attr("f").await.unwrap();
    assert_eq!((held.size, held.stored), (4196, 100));
    assert_ne!(held.version, before.version);
    assert_eq!(held.version, file.version());
    let stale = w.meta().getattr(file.ino()).await.unwrap();
    assert_eq!(stale.size, 0, "nothing was committed");
    w.close(file.clone()).await;
    let mut old = stale;
    w.tree_ref().overlay(&mut old);
    assert_eq!(old.size, 4196, "attributes asked for before the commit do not come back after it");
    let now = w.attr("f").await.unwrap();
    assert_eq!((now.size, now.stored, now.version), (4196, 100, file.version()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_mtime_is_what_is_committed() {
    let w = World::new().await;
    let file = w.create("f", false).await;
    file.write(0, b"x", false).await.unwrap();
    let mtime = Timestamp { secs: 77, nanos: 7 };
    file.set_mtime(mtime);
    assert_eq!(w.attr("f").await.unwrap().mtime, mtime);
    w.close(file).await;
    assert_eq!(w.attr("f").await.unwrap().mtime, mtime);
}

#[tokio::test(flavor = "multi_thread")]
async fn truncation_zeroing_and_seeking() {
    let w = World::new().await;
    let file = w.create("f", false).await;
    file.write(0, &[1; 6000], false).await.unwrap();
    file.zero(1000, 2000, true).await.unwrap();
    assert_eq!(file.truncate(5000).await.unwrap().size, 5000);
    assert_eq!((file.seek(0, true), file.seek(0, false)), (Some(0), Some(1000)));
    assert_eq!((file.seek(1500, true), file.seek(3000, false)), (Some(3000), Some(5000)));
    assert_eq!((file.seek(5000, true), file.seek(5000, false)), (None, None));
    file.allocate(0, 7000, false).await.unwrap();
    assert_eq!(file.size(), 7000);
    file.allocate(0, 8000, true).await.unwrap();
    assert_eq!(file.size(), 7000);
    let mut plain = vec![1; 5000];
    plain.resize(7000, 0);
    plain[1000..3000].fill(0);
    assert_eq!(file.read(0, 8000).await.unwrap(), plain);
    w.close(file).await;
    assert_eq!(w.content("f").await, plain);
    let attr = w.meta().getattr(w.attr("f").await.unwrap().ino).await.unwrap();
    assert_eq!((attr.size, attr.stored), (7000, 3000));
    w.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_have_their_errors() {
    let w = World::with(limits(), 10_000, Durability::Local).await;
    let file = w.create("f", false).await;
    let e = file.write(u64::MAX - 5, b"0123456789", false).await.unwrap_err();
    assert_eq!(e.kind(), Kind::FileTooLarge);
    assert_eq!(file.truncate(1 << 50).await.unwrap_err().kind(), Kind::FileTooLarge);
    file.write(0, &[1; 6000], false).await.unwrap();
    let e = file.write(6000, &[1; 4001], false).await.unwrap_err();
    assert_eq!(e.kind(), Kind::QuotaExceeded);
    assert!(e.to_string().contains("10000"), "{e}");
    assert_eq!(file.allocate(6000, 4001, false).await.unwrap_err().kind(), Kind::QuotaExceeded);
    for _ in 0..10 {
        file.write(0, &[2; 6000], false).await.unwrap(); // rewriting needs no room
    }
    let other = w.create("g", false).await;
    assert_eq!(
        other.write(0, &[1; 4001], false).await.unwrap_err().kind(),
        Kind::QuotaExceeded,
        "held bytes count"
    );
    other.write(0, &[1; 4000], false).await.unwrap();
    w.close(file).await;
    w.close(other).await;
    assert_eq!(w.meta().headroom(), 0);
    let file = w.open("f").await;
    file.truncate(0).await.unwrap();
    file.write(0, &[3; 6000], false).await.unwrap();
    w.close(file).await;
    w.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_stage_disk_is_told_and_nothing_acknowledged_is_lost() {
    let mut w = World::new().await;
    w.write_new("before", b"kept").await;
    let file = w.create("f", false).await;
    file.write(0, &pattern(1, 3000), false).await.unwrap();
    w.disk.limited.store(true, SeqCst);
    for room in [0, 10, 100, 2000] {
        w.disk.room.store(room, SeqCst);
        let e = file.write(1000, &pattern(2, 3000), false).await.unwrap_err();
        assert_eq!((e.kind(), e.errno()), (Kind::NoSpace, 28));
        w.disk.room.store(room, SeqCst);
        let e = file.write(0, &pattern(3, 9000), false).await.unwrap_err();
        assert_eq!(e.kind(), Kind::NoSpace, "also when it becomes large");
    }
    w.disk.limited.store(false, SeqCst);
    assert_eq!(file.read(0, 10_000).await.unwrap(), pattern(1, 3000));
    file.write(3000, b"more", false).await.unwrap();
    w.close(file).await;
    w.kill().await;
    let all = [pattern(1, 3000), b"more".to_vec()].concat();
    if w.attr("f").await.is_some() {
        assert_eq!(w.content("f").await, all);
    }
    w.tree_ref().sync().await.unwrap();
    if w.attr("before").await.is_some() {
        assert_eq!(w.content("before").await, b"kept");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_file_is_stale_and_its_growth_is_given_back() {
    let w = World::with(limits(), 10_000, Durability::Local).await;
    let file = w.create("f", false).await;
    file.write(0, &[1; 9000], false).await.unwrap();
    w.unlink("f").await;
    assert_eq!(file.write(0, b"x", false).await.unwrap_err().kind(), Kind::Stale);
    assert_eq!(file.read(0, 1).await.unwrap_err().kind(), Kind::Stale);
    w.close(file).await;
    w.write_new("g", &[1; 10_000]).await;
    w.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_writes_become_few_extents() {
    let w = World::new().await;
    let file = w.create("f", false).await;
    let mut plain = Vec::new();
    for i in 0..600u64 {
        let line = pattern(i, 7);
        file.write(0, &line, true).await.unwrap();
        plain.extend(line);
    }
    w.close(file).await;
    assert_eq!(w.content("f").await, plain);
    let attr = w.attr("f").await.unwrap();
    let extents = w.meta().extents(attr.ino).await.unwrap().1;
    assert!(extents.len() <= 200, "{} extents", extents.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_namespaces_keep_apart() {
    let mut w = World::new().await;
    let (volume, reads) = (w.up().volume.clone(), w.up().reads.clone());
    let other = volume.namespace(&"user/b".parse().unwrap()).unwrap();
    let dir = w.dir.path().join("stage-b");
    let tree = w.tree(&dir, other.clone(), reads).await;
    w.write_new("f", b"of a").await;
    let new = granary_meta::NewInode {
        kind: granary_meta::FileType::File,
        mode: 0o644,
        umask: 0,
        uid: 1,
        gid: 1,
        rdev: 0,
        target: Vec::new(),
    };
    let name = granary_core::EntryName::new(b"f").unwrap();
    let attr = other.create(granary_core::Ino::ROOT, name, new, false).await.unwrap();
    let hint = crate::PathHint { dir: granary_core::Ino::ROOT, name: b"f".to_vec() };
    let file = tree.created(&attr, hint, false).unwrap();
    file.write(0, b"of b", false).await.unwrap();
    tree.close(file).await.unwrap();
    tree.sync().await.unwrap();
    w.tree_ref().sync().await.unwrap();
    assert_eq!(w.content("f").await, b"of a");
    let file = tree.file(&attr, None).await.unwrap();
    assert_eq!(&file.read(0, 10).await.unwrap()[..], b"of b");
    tree.close(file).await.unwrap();
    let keys = w.memory_store.keys();
    let prefixes: std::collections::BTreeSet<&str> = keys.iter().map(|k| &k[..11]).collect();
    assert_eq!(prefixes.len(), 2, "{keys:?}");
    tree.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stays_open_is_committed_without_anybody_asking() {
    let w = World::new().await;
    let (file, kernel) = (w.create("f", false).await, w.create("g", true).await);
    file.write(0, &pattern(1, 1000), false).await.unwrap();
    let backing = kernel.begin_passthrough(true).unwrap().unwrap();
    std::os::unix::fs::FileExt::write_all_at(&*backing.file, &pattern(2, 2000), 0).unwrap();
    for (file, size) in [(&file, 1000), (&kernel, 2000)] {
        while w.meta().getattr(file.ino()).await.unwrap().size < size {
            tokio::task::yield_now().await;
        }
    }
    kernel.end_passthrough(true);
    w.close(file).await;
    w.close(kernel).await;
    w.check().await;
}
