use super::*;
use crate::stage::disk::SystemDisk;
use crate::stage::disk::power::{FailingDisk, Loss};
use crate::stage::record::{Head, RecordKind, scan};
use granary_core::limits::OBJECT_PAYLOAD_MAX;
use granary_core::{Ino, Kind, TestClock, Timestamp};
use std::sync::atomic::Ordering::SeqCst;

const NS: NamespaceId = NamespaceId(5);

fn open(dir: &Path, disk: Arc<dyn Disk>) -> (Arc<Log>, Vec<u64>) {
    let (log, existing) =
        Log::open(dir, NS, &Limits::default(), disk, Arc::new(TestClock::default())).unwrap();
    (Arc::new(log), existing)
}

fn write(log: &Log, ino: u64, payload: &[u8]) -> Result<Appended> {
    let mut head = Head {
        kind: RecordKind::Write,
        ino: Ino(ino),
        offset: 0,
        len: payload.len() as u64,
        seq: 0,
        prev_seq: 0,
        mtime: Timestamp::default(),
        crc: granary_core::crc32c(payload),
        durable: None,
        hint: None,
    };
    log.append(&mut head, payload)
}

#[test]
fn records_are_read_back_and_lie_in_order_of_sequence() {
    let dir = tempfile::tempdir().unwrap();
    let (log, existing) = open(dir.path(), Arc::new(SystemDisk));
    assert!(existing.is_empty());
    let places: Vec<_> =
        (0..100u64).map(|i| write(&log, i % 7, &vec![i as u8; i as usize]).unwrap()).collect();
    for (i, p) in places.iter().enumerate() {
        assert_eq!(log.read(p.segment, p.offset, i).unwrap().unwrap(), vec![i as u8; i]);
    }
    assert!(places.windows(2).all(|w| w[0].seq < w[1].seq));
    let info = log.active().unwrap();
    assert_eq!((info.files, info.payload), (7, 4950));
    assert_eq!(log.dirty(), (4950, 7));
    let bytes = log.read_all(info.id).unwrap();
    let scanned = scan(&bytes, NS, info.id);
    assert_eq!(scanned.records.len(), 100);
    assert!(scanned.damage.is_empty());
    assert!(log.has(info.id, 0..info.len) && !log.has(info.id, 0..info.len + 1));
    assert_eq!(log.seal(), Some(info.id));
    assert_eq!(log.seal(), None);
    assert_eq!(log.read(info.id, info.len, 1).unwrap_err().kind(), Kind::Corrupt);
    log.delete(info.id).unwrap();
    assert_eq!(log.read(info.id, 0, 1).unwrap(), None, "gone is told apart from damaged");
    assert_eq!(log.dirty(), (0, 0));
}

/// The drain deletes what is listed as sealed.
#[test]
fn what_is_being_written_is_not_listed_as_sealed_and_not_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path(), Arc::new(SystemDisk));
    for i in 0..3 {
        let at = write(&log, i, b"x").unwrap();
        assert!(log.sealed().is_empty());
        assert_eq!(log.delete(at.segment).unwrap_err().kind(), Kind::Bug);
        assert!(log.has(at.segment, at.offset..at.offset + 1));
        assert_eq!(log.seal(), Some(at.segment));
        assert_eq!(log.sealed().iter().map(|s| s.id).collect::<Vec<_>>(), [at.segment]);
        log.delete(at.segment).unwrap();
    }
}

#[test]
fn a_segment_holds_no_more_than_one_pack() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path(), Arc::new(SystemDisk));
    let mib = vec![1u8; 1 << 20];
    for _ in 0..31 {
        write(&log, 1, &mib).unwrap();
    }
    let sealed = log.sealed();
    assert_eq!(
        sealed.iter().map(|s| s.payload).collect::<Vec<_>>(),
        [OBJECT_PAYLOAD_MAX, OBJECT_PAYLOAD_MAX]
    );
    assert_eq!(log.active().unwrap().payload, 1 << 20);
}

#[test]
fn numbers_are_never_used_twice() {
    let dir = tempfile::tempdir().unwrap();
    let mut last = 0;
    for _ in 0..3 {
        let (log, existing) = open(dir.path(), Arc::new(SystemDisk));
        assert!(existing.is_empty());
        let a = write(&log, 1, b"x").unwrap();
        assert!(a.segment > last && a.seq > last);
        last = a.seq;
        let sealed = log.seal().unwrap();
        log.delete(sealed).unwrap();
    }
    let (log, _) = open(dir.path(), Arc::new(SystemDisk));
    log.stay_above(u64::MAX / 2);
    assert!(write(&log, 1, b"x").unwrap().seq > u64::MAX / 2);
}

#[test]
fn a_full_disk_leaves_nothing_that_breaks_later_records() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(FailingDisk::default());
    let (log, _) = open(dir.path(), disk.clone());
    write(&log, 1, b"before").unwrap();
    disk.limited.store(true, SeqCst);
    for room in [0, 1, 50, 82, 90] {
        disk.room.store(room, SeqCst);
        let e = write(&log, 2, &[7; 1000]).unwrap_err();
        assert_eq!(e.kind(), Kind::NoSpace);
    }
    disk.limited.store(false, SeqCst);
    write(&log, 3, b"after").unwrap();
    let info = log.active().unwrap();
    let scanned = scan(&log.read_all(info.id).unwrap(), NS, info.id);
    assert_eq!(scanned.records.iter().map(|r| r.head.ino.0).collect::<Vec<_>>(), [1, 3]);
    assert!(scanned.damage.is_empty());
}

#[tokio::test]
async fn one_sync_serves_many_and_covers_sealed_segments() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(FailingDisk::default());
    let (log, _) = open(dir.path(), disk.clone());
    let runtime = tokio::runtime::Handle::current();
    let before = disk.syncs.load(SeqCst);
    write(&log, 1, b"a").unwrap();
    log.seal();
    write(&log, 1, b"b").unwrap();
    log.sync(&runtime).await.unwrap();
    assert_eq!(disk.syncs.load(SeqCst) - before, 2, "the sealed segment and the active one");
    log.sync(&runtime).await.unwrap();
    assert_eq!(disk.syncs.load(SeqCst) - before, 2, "nothing was appended since");
    write(&log, 1, b"c").unwrap();
    let all = futures::future::join_all((0..50).map(|_| log.sync(&runtime))).await;
    assert!(all.into_iter().all(|r| r.is_ok()));
    assert_eq!(disk.syncs.load(SeqCst) - before, 3);
}

/// A second sync that succeeds says nothing of what the first one lost: only what was written again is believed.
#[tokio::test]
async fn what_a_disk_failed_to_keep_is_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(FailingDisk::default());
    let (log, _) = open(dir.path(), disk.clone());
    let runtime = tokio::runtime::Handle::current();
    let (a, b) = (write(&log, 1, b"a").unwrap(), write(&log, 2, b"bb").unwrap());
    log.seal();
    let c = write(&log, 3, b"ccc").unwrap();
    disk.sync_fails.store(true, SeqCst);
    for _ in 0..2 {
        assert_eq!(log.sync(&runtime).await.unwrap_err().kind(), Kind::Io);
        assert_eq!(write(&log, 1, b"b").unwrap_err().kind(), Kind::Io);
    }
    disk.sync_fails.store(false, SeqCst);
    log.sync(&runtime).await.unwrap();
    assert!(log.broken().is_none());
    let d = write(&log, 4, b"dddd").unwrap();
    drop(log);
    disk.cut(Loss::Tails(0.0));
    let (log, existing) = open(dir.path(), disk);
    assert_eq!(existing, [a.segment, c.segment]);
    let there = |id| scan(&log.read_all(id).unwrap(), NS, id).records.into_iter().map(|r| r.head.seq);
    assert_eq!(there(a.segment).chain(there(c.segment)).collect::<Vec<_>>(), [a.seq, b.seq, c.seq]);
    assert!(d.seq > c.seq);
}

/// The page cache does not have it any more: then nobody has, and going on would call it kept.
#[tokio::test]
async fn what_is_gone_from_memory_too_is_never_called_kept() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(FailingDisk::default());
    let (log, _) = open(dir.path(), disk.clone());
    let runtime = tokio::runtime::Handle::current();
    let at = write(&log, 1, b"abc").unwrap();
    disk.sync_fails.store(true, SeqCst);
    assert_eq!(log.sync(&runtime).await.unwrap_err().kind(), Kind::Io);
    disk.sync_fails.store(false, SeqCst);
    let file = open_rw(&segment_path(dir.path(), at.segment)).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"x", at.offset).unwrap();
    for _ in 0..2 {
        let e = log.sync(&runtime).await.unwrap_err();
        assert!(e.kind() == Kind::Corrupt && e.to_string().contains("restart granary"), "{e}");
    }
    assert!(write(&log, 1, b"b").is_err());
}

#[tokio::test]
async fn a_directory_that_was_moved_away_is_noticed_and_may_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let (here, there) = (dir.path().join("log"), dir.path().join("there"));
    let (log, _) = open(&here, Arc::new(SystemDisk));
    let runtime = tokio::runtime::Handle::current();
    write(&log, 1, b"a").unwrap();
    log.sync(&runtime).await.unwrap();
    fs::rename(&here, &there).unwrap();
    write(&log, 1, b"b").unwrap(); // its file is open
    let e = log.sync(&runtime).await.unwrap_err();
    assert!(e.kind() == Kind::Io && e.to_string().contains("removed or replaced"), "{e}");
    assert!(write(&log, 1, b"c").is_err());
    fs::rename(&there, &here).unwrap();
    log.sync(&runtime).await.unwrap();
    write(&log, 1, b"d").unwrap();
    fs::remove_dir_all(&here).unwrap();
    assert!(log.sync(&runtime).await.is_err());
}
