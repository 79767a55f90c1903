//! What is kept for a node's log.

use super::*;

fn redo(segment: u64, offset: u64, bytes: &[u8]) -> Redo {
    Redo { segment, offset, bytes: bytes.into() }
}

fn kept(space: &LocalNamespace, node: u64) -> Vec<Redo> {
    block_on(space.redo(NodeId(node))).unwrap()
}

fn keep(space: &LocalNamespace, node: u64, all: &[Redo], drop: &[(u64, u64)]) -> bool {
    block_on(space.keep_redo(NodeId(node), all.to_vec(), drop)).unwrap()
}

#[test]
fn it_is_there_after_a_power_loss_from_the_next_sync_on_until_it_is_dropped() {
    let engine = Arc::new(MemoryEngine::default());
    let volume = volume_on(engine.clone(), Arc::default(), &quiet(), Tuning::default());
    let space = user_a(&volume);
    let (a, b, c) = (redo(7, 0, b"abc"), redo(7, 3, b""), redo(9, 1, &[5; 5000]));
    assert!(keep(&space, 1, &[c.clone(), a.clone()], &[]));
    assert!(keep(&space, 2, std::slice::from_ref(&b), &[]), "another node's");
    assert_eq!(kept(&space, 1), [a.clone(), c.clone()], "at once, in order");
    block_on(space.sync()).unwrap();
    assert!(keep(&space, 1, std::slice::from_ref(&b), &[(9, 1)]));
    assert_eq!(kept(&space, 1), [a.clone(), b.clone()]);
    let engine = Arc::new(engine.crash(0));
    let volume =
        Volume::open_tuned(engine, Arc::new(TestClock::default()), &quiet(), Tuning::default()).unwrap();
    let space = user_a(&volume);
    assert_eq!(kept(&space, 1), [a, c], "as at the sync");
    assert_eq!(kept(&space, 2), [b]);
    assert_eq!(kept(&space, 3), []);
    assert!(keep(&space, 1, &[], &[(7, 0), (9, 1)]));
    assert_eq!(kept(&space, 1), []);
    assert!(space.check().unwrap().is_empty());
}

/// A service cannot give it back to the node.
#[test]
fn a_volume_that_keeps_some_is_not_served() {
    let clock: Arc<TestClock> = Arc::default();
    let engine = Arc::new(MemoryEngine::default());
    let volume = volume_on(engine.clone(), clock.clone(), &quiet(), Tuning::default());
    keep(&user_a(&volume), 0xabc, &[redo(7, 0, b"abc")], &[]);
    block_on(user_a(&volume).sync()).unwrap();
    let engine = Arc::new(engine.crash(0));
    let e = Volume::open_served(engine.clone(), clock.clone(), &quiet(), Tuning::default()).unwrap_err();
    assert_eq!(e.kind(), Kind::Busy);
    assert!(e.to_string().contains("user/a") && e.to_string().contains("abc"), "{e}");
    let engine = Arc::new(engine.crash(0));
    let volume = Volume::open_tuned(engine.clone(), clock.clone(), &quiet(), Tuning::default()).unwrap();
    keep(&user_a(&volume), 0xabc, &[], &[(7, 0)]);
    block_on(user_a(&volume).sync()).unwrap();
    let engine = Arc::new(engine.crash(0));
    let served = Volume::open_served(engine, clock, &quiet(), Tuning::default()).unwrap();
    assert!(!keep(&user_a(&served), 0xabc, &[redo(7, 0, b"abc")], &[]), "nothing is kept there");
}
