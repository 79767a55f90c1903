use super::*;
use crate::MemoryStore;

fn world() -> (Arc<MemoryStore>, Arc<FaultStore>) {
    let memory = Arc::new(MemoryStore::default());
    (memory.clone(), Arc::new(FaultStore::new(memory, 5)))
}

fn x() -> Vec<Bytes> {
    vec![Bytes::from_static(b"abc")]
}

#[tokio::test]
async fn a_script_is_followed_in_order_and_only_for_its_operation() {
    let (memory, store) = world();
    store.script(Operation::Put, Fault::Before(Kind::NoSpace), 2);
    store.script(Operation::Put, Fault::After(Kind::Unavailable), 1);
    for (kind, there) in [(Kind::NoSpace, 0), (Kind::NoSpace, 0), (Kind::Unavailable, 1)] {
        assert_eq!(store.put("k", x()).await.unwrap_err().kind(), kind);
        assert_eq!(memory.count(), there);
    }
    store.put("k", x()).await.unwrap();
    store.head("k").await.unwrap();
    assert_eq!((store.calls(Operation::Put), store.calls(Operation::Head), store.faults()), (4, 1, 3));
}

#[tokio::test]
async fn bodies_are_shortened_and_damaged_both_ways() {
    let (memory, store) = world();
    store.script(Operation::Put, Fault::Short, 1);
    store.put("short", x()).await.unwrap();
    assert_eq!(memory.object("short").unwrap(), "ab");
    store.script(Operation::Put, Fault::Flip, 1);
    store.put("flip", x()).await.unwrap();
    assert_eq!(memory.object("flip").unwrap(), "a\"c");
    store.put("k", x()).await.unwrap();
    store.script(Operation::Get, Fault::Short, 1);
    store.script(Operation::Get, Fault::Flip, 1);
    assert_eq!(store.get("k", 0..3).await.unwrap(), "ab");
    assert_eq!(store.get("k", 0..3).await.unwrap(), "a\"c");
    assert_eq!(store.get("k", 0..3).await.unwrap(), "abc");
}

#[tokio::test]
async fn delayed_requests_wait_for_release_and_hanging_ones_for_nothing() {
    let (memory, store) = world();
    store.script(Operation::Put, Fault::Delay, 1);
    store.script(Operation::Put, Fault::Hang, 1);
    let put = |key: &'static str| {
        let store = store.clone();
        tokio::spawn(async move { store.put(key, x()).await })
    };
    let delayed = put("delayed");
    store.until_held(1).await;
    let hanging = put("hanging");
    store.until_held(2).await;
    assert_eq!(memory.count(), 0);
    store.release();
    delayed.await.unwrap().unwrap();
    assert_eq!(memory.keys(), ["delayed"]);
    hanging.abort();
    assert!(hanging.await.unwrap_err().is_cancelled());
    assert_eq!(*store.held.borrow(), 0);
}

#[tokio::test]
async fn the_same_seed_meets_the_same_faults() {
    let run = async |seed| {
        let store = FaultStore::new(Arc::new(MemoryStore::default()), seed);
        store.chance(Operation::Put, Fault::SlowDown, 3);
        store.chance(Operation::Put, Fault::After(Kind::Busy), 5);
        let mut met = Vec::new();
        for i in 0..200 {
            met.push(store.put(&format!("k{i}"), x()).await.err().map(|e| e.kind()));
        }
        met
    };
    let first = run(1).await;
    assert_eq!(first, run(1).await);
    assert_ne!(first, run(2).await);
    let failed = first.iter().flatten().count();
    assert!((60..130).contains(&failed), "{failed}");
    let (_, store) = world();
    store.chance(Operation::Put, Fault::SlowDown, 1);
    store.heal();
    store.put("k", x()).await.unwrap();
}
