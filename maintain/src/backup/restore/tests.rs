use granary_core::TestClock;
use granary_core::limits::Limits;
use granary_meta::engine::RocksEngine;
use granary_meta::record::Answered;
use granary_meta::{Metadata, Volume};

use super::*;
use crate::backup::dump;
use crate::rig::{Rig, records as all_records};

fn saved(rig: &Rig) -> Vec<u8> {
    let mut bytes = Vec::new();
    let now = granary_core::Clock::now(&*rig.clock);
    dump(&rig.volume, now, 100, &rig.progress(), &mut |piece| {
        bytes.extend(piece);
        Ok(())
    })
    .unwrap();
    bytes
}

fn restored(bytes: &[u8], folder: &Path, piece: usize) -> Result<(Header, Totals)> {
    let mut restore = Restore::begin(folder)?;
    for part in bytes.chunks(piece) {
        restore.push(part)?;
    }
    restore.finish()
}

#[test]
fn a_volume_comes_back_with_everything_and_gives_no_number_twice() {
    let rig = Rig::new();
    let (files, _) = rig.filled();
    let tiny = rig.copied(Ino::ROOT, "tiny", b"a few bytes");
    let bytes = saved(&rig);
    rig.staged(Ino::ROOT, "later", b"not in the backup");
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("meta");
    let (header, totals) = restored(&bytes, &folder, 333).unwrap();
    assert_eq!(
        (header.uuid.as_str(), header.created_unix_ms),
        (rig.volume.info().uuid.as_str(), 1_000_000_000)
    );

    let engine = RocksEngine::open(&folder).unwrap();
    assert_eq!(all_records(&*engine).len() as u64, totals.records);
    let volume = Volume::open(engine, std::sync::Arc::new(TestClock::default()), &Limits::default()).unwrap();
    assert_eq!(volume.info(), rig.volume.info());
    let space = volume.namespace(&"user/a".parse().unwrap()).unwrap();
    assert_eq!(space.check().unwrap(), []);
    // The object has them.
    assert_eq!(futures::executor::block_on(space.inline(tiny)).unwrap(), None);
    assert!(!bytes.windows(11).any(|part| part == b"a few bytes"));
    let before = futures::executor::block_on(rig.space.extents(files[1])).unwrap();
    let after = futures::executor::block_on(space.extents(files[1])).unwrap();
    assert_eq!(after.1, before.1);
    assert_eq!(after.0.version, before.0.version + SKIPPED);
    assert_eq!(granary_meta::Attr { version: before.0.version, ..after.0 }, before.0);
    let name = granary_core::EntryName::new(b"later").unwrap();
    let e = futures::executor::block_on(space.lookup(Ino::ROOT, name)).unwrap_err();
    assert_eq!(e.kind(), Kind::NotFound);
    let new = granary_meta::NewInode {
        kind: granary_meta::FileType::File,
        mode: 0o644,
        umask: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        target: vec![],
    };
    let made = futures::executor::block_on(space.create(Ino::ROOT, name, new, false)).unwrap();
    assert!(made.ino.0 > SKIPPED);
    let ns = volume.create_namespace(crate::rig::named("user/b")).unwrap().id;
    assert!(ns.0 > NAMESPACES_SKIPPED);
    drop(space);
    volume.shutdown().unwrap();
}

#[test]
fn a_damaged_backup_leaves_nothing_behind() {
    let rig = Rig::new();
    rig.filled();
    let bytes = saved(&rig);
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("meta");
    for at in (0..bytes.len()).step_by(97) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x10;
        assert!(restored(&flipped, &folder, 5000).is_err(), "flipped at {at}");
        if at % 10 == 0 {
            assert!(restored(&bytes[..at], &folder, 5000).is_err(), "cut at {at}");
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
    restored(&bytes, &folder, 5000).unwrap();
}

#[test]
fn an_existing_folder_is_refused_and_an_empty_one_taken() {
    let rig = Rig::new();
    let bytes = saved(&rig);
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("meta");
    std::fs::create_dir(&folder).unwrap();
    restored(&bytes, &folder, 5000).unwrap();
    let e = Restore::begin(&folder).unwrap_err();
    assert!(e.kind() == Kind::Exists && e.to_string().contains("is not empty"), "{e}");
}

#[test]
fn sessions_and_copies_are_not_brought_back_and_revoked_tokens_are() {
    let put = |key: Vec<u8>, value: Vec<u8>| revived(&key, &value).unwrap();
    assert_eq!(put(session::session_key(granary_core::SessionId(1)), vec![1]), None);
    assert_eq!(put(session::answered_key(granary_core::SessionId(1), 2), vec![1]), None);
    let reply = granary_meta::record::ReplyRecord { id: 1, answer: Answered::Done, touched: vec![] };
    let (key, value) = (Key::Reply(granary_core::SessionId(1), 1), Value::Reply(reply.into()));
    assert_eq!(put(key.encode(NamespaceId(1)), value.encode()), None);
    let copy = granary_meta::Inline { version: 1, crc: 2, bytes: [3].into() };
    assert_eq!(put(Key::Inline(Ino(5)).encode(NamespaceId(1)), Value::Inline(copy.into()).encode()), None);
    let redo = Key::Redo(granary_core::NodeId(1), 2, 3).encode(NamespaceId(1));
    assert!(dump::is_copy(&redo));
    assert_eq!(put(redo, Value::Redo([4].into()).encode()), None);
    assert_eq!(put(session::revoked_key("t"), session::encode_revoked(9)), Some(session::encode_revoked(9)));
    assert_eq!(put(session::INCARNATION_KEY.to_vec(), vec![1, 2]), Some(vec![1, 2]));
}

/// A stream that is whole but holds no volume.
#[test]
fn a_backup_of_nothing_is_refused() {
    let header = Header { created_unix_ms: 1, uuid: "ab".repeat(16), store_url: String::new() };
    let mut encoder = super::super::format::Encoder::new(&header);
    encoder.finish();
    let dir = tempfile::tempdir().unwrap();
    let e = restored(&encoder.out, &dir.path().join("meta"), 10).unwrap_err();
    assert!(e.kind() == Kind::Corrupt && e.to_string().contains("no volume"), "{e}");
}
