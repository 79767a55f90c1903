use std::sync::atomic::{AtomicU64, Ordering};

use granary_core::{Kind, TestClock};
use proptest::prelude::*;

use super::*;
use crate::fault::{Fault, FaultStore};
use crate::{MemoryStore, Operation};

/// Moves the clock instead of waiting.
#[derive(Debug, Default)]
struct TestSleep {
    clock: Arc<TestClock>,
    times: AtomicU64,
}

#[async_trait]
impl Sleep for TestSleep {
    async fn sleep(&self, time: Duration) {
        self.times.fetch_add(1, Ordering::SeqCst);
        self.clock.advance(time);
    }
}

struct World {
    memory: Arc<MemoryStore>,
    faults: Arc<FaultStore>,
    sleep: Arc<TestSleep>,
    clock: Arc<TestClock>,
    metrics: RetryMetrics,
    store: RetryStore,
}

fn world(options: RetryOptions) -> World {
    let clock = Arc::new(TestClock::default());
    let memory = Arc::new(MemoryStore::new(clock.clone()));
    let faults = Arc::new(FaultStore::new(memory.clone(), 1));
    let sleep = Arc::new(TestSleep { clock: clock.clone(), times: AtomicU64::new(0) });
    let metrics = RetryMetrics::default();
    let store = RetryStore::new(faults.clone(), options, clock.clone(), sleep.clone(), 7, metrics.clone());
    World { memory, faults, sleep, clock, metrics, store }
}

fn data() -> Vec<Bytes> {
    vec![Bytes::from_static(b"one "), Bytes::from_static(b"two")]
}

#[tokio::test]
async fn a_request_that_fails_for_a_while_succeeds() {
    let w = world(RetryOptions::new(30_000));
    w.faults.script(Operation::Put, Fault::Before(Kind::Unavailable), 3);
    w.store.put("k", data()).await.unwrap();
    assert_eq!(w.memory.object("k").unwrap(), "one two");
    assert_eq!((w.store.retries(), w.metrics.given_up.get()), (3, 0));
    for (operation, fault) in [
        (Operation::Get, Fault::Before(Kind::Busy)),
        (Operation::Head, Fault::SlowDown),
        (Operation::List, Fault::After(Kind::Unavailable)),
        (Operation::Delete, Fault::After(Kind::Unavailable)),
    ] {
        w.faults.script(operation, fault, 2);
    }
    assert_eq!(w.store.get("k", 4..7).await.unwrap(), "two");
    assert_eq!(w.store.head("k").await.unwrap().size, 7);
    assert_eq!(w.store.list("", None, 5).await.unwrap().len(), 1);
    w.store.delete(vec!["k".into()]).await.unwrap();
    assert_eq!(w.memory.count(), 0);
    assert_eq!(w.faults.calls(Operation::Delete), 3);
}

#[tokio::test]
async fn a_lost_answer_is_repaired_by_the_same_put() {
    let w = world(RetryOptions::new(30_000));
    w.faults.script(Operation::Put, Fault::After(Kind::Unavailable), 1);
    w.store.put("k", data()).await.unwrap();
    assert_eq!((w.faults.calls(Operation::Put), w.memory.count()), (2, 1));
}

#[tokio::test]
async fn what_will_not_mend_itself_is_not_tried_again() {
    for kind in [Kind::NotFound, Kind::Denied, Kind::Corrupt, Kind::NoSpace, Kind::ReadOnly, Kind::Invalid] {
        let w = world(RetryOptions::new(30_000));
        w.faults.script(Operation::Put, Fault::Before(kind), 1);
        assert_eq!(w.store.put("k", data()).await.unwrap_err().kind(), kind);
        assert_eq!((w.faults.calls(Operation::Put), w.sleep.times.load(Ordering::SeqCst)), (1, 0));
    }
}

#[tokio::test]
async fn it_gives_up_when_the_time_is_over_and_says_how_often_it_tried() {
    let w = world(RetryOptions::new(30_000));
    w.faults.script(Operation::Get, Fault::Before(Kind::Unavailable), usize::MAX);
    let e = w.store.get("k", 0..1).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Unavailable);
    let tries = w.faults.calls(Operation::Get);
    assert!(e.to_string().starts_with(&format!("after {tries} attempts in ")), "{e}");
    assert!((8..60).contains(&tries), "{tries}");
    let took = w.clock.monotonic();
    assert!(took > Duration::from_secs(20) && took < Duration::from_secs(30), "{took:?}");
    assert_eq!(w.metrics.given_up.get(), 1);
}

#[tokio::test]
async fn a_dead_store_gets_no_storm() {
    let options = RetryOptions {
        first_delay_ms: 1,
        delay_ms_max: 1,
        burst: 10,
        per_second: 5.0,
        ..RetryOptions::new(10_000)
    };
    let w = world(options);
    w.faults.script(Operation::Get, Fault::Before(Kind::Unavailable), usize::MAX);
    for _ in 0..3 {
        w.store.get("k", 0..1).await.unwrap_err();
    }
    // 10 at once, then 5 for each of 30 seconds, whatever the delays would allow (30,000).
    let retries = w.metrics.retries.get();
    assert!((100..=10 + 5 * 31).contains(&retries), "{retries}");
}

#[test]
fn a_person_hears_once_of_failure_and_once_of_recovery() {
    let (mut health, s) = (Health::default(), Duration::from_secs);
    assert_eq!(health.failed(s(1), 1), None, "one broken connection is no news");
    assert_eq!(health.succeeded(s(1)), None);
    assert_eq!(health.failed(s(2), 1), None);
    assert_eq!(health.failed(s(3), 2), Some(Say::Failing));
    assert_eq!(health.failed(s(4), 3), None);
    assert_eq!(health.failed(s(4), 2), None);
    assert_eq!(health.succeeded(s(9)), Some(Say::Recovered { after: s(6), failures: 4 }));
    assert_eq!(health.succeeded(s(9)), None);
    assert_eq!(health.failed(s(12), 5), None, "up and down by the second");
    assert_eq!(health.failed(s(19), 6), Some(Say::Failing), "down for good");
}

proptest! {
    /// However requests come, no more retries are let through than burst + rate x time, and each waits less than its time.
    #[test]
    fn the_budget_holds(steps in prop::collection::vec((0u64..2_000, 0u64..500), 1..400)) {
        let mut budget = Budget::new(5, 4.0);
        let (mut now, mut sent) = (Duration::ZERO, Vec::new());
        for (passed, delay) in steps {
            now += Duration::from_millis(passed);
            let max = Duration::from_secs(3);
            if let Some(wait) = budget.reserve(now, Duration::from_millis(delay), max) {
                prop_assert!(wait < max && wait >= Duration::from_millis(delay));
                sent.push((now + wait).as_secs_f64());
            }
        }
        sent.sort_by(f64::total_cmp);
        for (i, from) in sent.iter().enumerate() {
            for (j, to) in sent.iter().enumerate().skip(i) {
                // A retry may use its token up to its own delay late (0.5 s).
                prop_assert!((j - i + 1) as f64 <= 5.0 + 4.0 * (to - from + 0.5) + 1.001);
            }
        }
    }

    #[test]
    fn delays_stay_below_their_doubling_bound(seed: u64) {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut backoff = Backoff::new(&RetryOptions::new(1));
        for i in 0..20 {
            prop_assert!(backoff.next(&mut random) <= Duration::from_millis((50u64 << i).min(5_000)));
        }
    }
}
