use std::sync::Arc;

use granary_core::Kind;
use proptest::prelude::*;

use super::*;

fn dump(engine: &dyn Engine) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut all = Vec::new();
    engine
        .scan(b"", b"", &mut |k, v| {
            all.push((k.to_vec(), v.to_vec()));
            Ok(true)
        })
        .unwrap();
    all
}

fn writes() -> impl Strategy<Value = Vec<Write>> {
    let key = proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(254), Just(255)], 1..4);
    let write = prop_oneof![
        4 => (key.clone(), any::<[u8; 2]>()).prop_map(|(k, v)| Write::Put(k, v.to_vec())),
        2 => key.clone().prop_map(Write::Delete),
        1 => (prop_oneof![Just(0u8), Just(1)], key).prop_map(|(first, mut k)| {
            k.insert(0, first);
            Write::DeletePrefix(k)
        }),
    ];
    proptest::collection::vec(write, 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn rocks_and_memory_agree(batches in proptest::collection::vec(writes(), 1..8), prefix in writes()) {
        let dir = tempfile::tempdir().unwrap();
        let rocks = RocksEngine::open(dir.path()).unwrap();
        let memory = MemoryEngine::new();
        for batch in &batches {
            rocks.write(batch.clone(), false).unwrap();
            memory.write(batch.clone(), true).unwrap();
        }
        prop_assert_eq!(dump(&*rocks), dump(&*memory));
        for write in prefix {
            let (Write::Put(p, _) | Write::Delete(p) | Write::DeletePrefix(p)) = write;
            let mut seen = [Vec::new(), Vec::new()];
            for (engine, seen) in [&rocks, &memory].into_iter().zip(&mut seen) {
                engine.scan(&p[..1], &p, &mut |k, _| { seen.push(k.to_vec()); Ok(seen.len() < 3) }).unwrap();
                prop_assert_eq!(engine.get(&p).unwrap().is_some(), seen.first() == Some(&p));
            }
            prop_assert_eq!(&seen[0], &seen[1]);
        }
        rocks.close().unwrap();
        let again = RocksEngine::open(dir.path()).unwrap();
        prop_assert_eq!(dump(&*again), dump(&*memory));
    }

    #[test]
    fn a_crash_leaves_a_prefix_with_all_that_was_synced(
        batches in proptest::collection::vec((writes(), any::<bool>()), 1..10), keep in 0usize..10,
    ) {
        let engine = MemoryEngine::default();
        let mut states = vec![dump(&engine)];
        let mut synced = 0;
        for (i, (batch, sync)) in batches.iter().enumerate() {
            engine.write(batch.clone(), *sync).unwrap();
            states.push(dump(&engine));
            if *sync { synced = i + 1; }
        }
        let survivor = engine.crash(keep);
        prop_assert_eq!(engine.get(b"k").unwrap_err().kind(), Kind::Unavailable);
        let at = (synced + keep).min(batches.len());
        prop_assert_eq!(&dump(&survivor), &states[at]);
    }
}

#[test]
fn a_second_process_is_told_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let first = RocksEngine::open(dir.path()).unwrap();
    let e = RocksEngine::open(dir.path()).unwrap_err();
    assert_eq!(e.kind(), Kind::Busy);
    assert!(e.to_string().contains("is in use by another process"), "{e}");
    first.close().unwrap();
    first.close().unwrap();
    assert_eq!(first.get(b"k").unwrap_err().kind(), Kind::Unavailable);
    RocksEngine::open(dir.path()).unwrap();
}

#[test]
fn faults_come_after_the_given_number_of_calls() {
    let engine = FaultyEngine::new(Arc::new(MemoryEngine::default()));
    engine.fail_writes_after(1);
    engine.write(vec![Write::Put(b"a".to_vec(), vec![])], false).unwrap();
    assert_eq!(engine.sync().unwrap_err().kind(), Kind::Io);
    assert!(engine.get(b"a").unwrap().is_some());
    engine.fail_reads_after(0);
    assert_eq!(engine.get(b"a").unwrap_err().kind(), Kind::Io);
    assert_eq!((engine.writes(), engine.syncs()), (1, 0));
}

#[test]
fn the_end_of_a_prefix() {
    assert_eq!(prefix_end(&[1, 255, 255]), Some(vec![2]));
    assert_eq!(prefix_end(&[1, 2]), Some(vec![1, 3]));
    assert_eq!(prefix_end(&[255]), None);
}

/// What is written while somebody looks is not seen by them.
#[test]
fn a_snapshot_is_one_moment() {
    let dir = tempfile::tempdir().unwrap();
    for engine in [RocksEngine::open(dir.path()).unwrap(), MemoryEngine::new()] {
        let put = |key: &[u8], value: &[u8]| Write::Put(key.to_vec(), value.to_vec());
        engine.write(vec![put(b"a", b"1"), put(b"b", b"1"), put(b"c", b"1")], false).unwrap();
        let mut looks = 0;
        engine
            .snapshot(&mut |snapshot| {
                engine.write(vec![put(b"a", b"2"), Write::Delete(b"b".to_vec()), put(b"d", b"2")], true)?;
                let mut seen = Vec::new();
                snapshot.scan(b"", b"b", &mut |key, value| {
                    seen.push((key.to_vec(), value.to_vec()));
                    Ok(seen.len() < 5)
                })?;
                assert_eq!(seen, [(b"b".to_vec(), b"1".to_vec()), (b"c".to_vec(), b"1".to_vec())]);
                assert_eq!(snapshot.get(b"a")?, Some(b"1".to_vec()));
                assert_eq!(snapshot.get(b"d")?, None);
                looks += 1;
                Ok(())
            })
            .unwrap();
        assert_eq!((looks, dump(&*engine).len()), (1, 3));
        engine.close().unwrap();
        assert_eq!(engine.snapshot(&mut |_| Ok(())).unwrap_err().kind(), Kind::Unavailable);
    }
}

#[test]
fn an_engine_that_was_opened_again_has_all_that_was_written() {
    let dir = tempfile::tempdir().unwrap();
    for engine in [RocksEngine::open(dir.path()).unwrap(), MemoryEngine::new()] {
        let put = |key: &[u8], value: &[u8]| Write::Put(key.to_vec(), value.to_vec());
        engine.write(vec![put(b"a", b"1")], true).unwrap();
        engine.write(vec![put(b"a", b"2"), put(b"b", b"2")], false).unwrap();
        for _ in 0..2 {
            engine.revive().unwrap();
            assert_eq!(engine.get(b"a").unwrap(), Some(b"2".to_vec()));
        }
        engine.write(vec![put(b"c", b"3")], true).unwrap();
        assert_eq!(dump(&*engine).len(), 3);
        engine.close().unwrap();
        assert_eq!(engine.revive().unwrap_err().kind(), Kind::Unavailable);
    }
}

/// As when the disk loses what it never synced, and goes on.
#[test]
fn an_engine_that_lost_something_says_so_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let engine = RocksEngine::open(dir.path()).unwrap();
    let put = |key: &[u8]| Write::Put(key.to_vec(), vec![]);
    engine.write(vec![put(b"a")], true).unwrap();
    engine.revive().unwrap();
    engine.write(vec![put(b"b")], false).unwrap();
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "log") {
            std::fs::File::options().write(true).open(path).unwrap().set_len(0).unwrap();
        }
    }
    for _ in 0..2 {
        let e = engine.revive().unwrap_err();
        assert!(e.kind() == Kind::Corrupt && e.to_string().contains("restart granary"), "{e}");
    }
    assert!(engine.get(b"a").unwrap().is_some() && engine.get(b"b").unwrap().is_none());
}
