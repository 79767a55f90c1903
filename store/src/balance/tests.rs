use std::collections::BTreeSet;

use granary_core::TestClock;
use proptest::prelude::*;
use rand::RngExt;

use super::*;
use crate::MemoryStore;
use crate::fault::{Fault, FaultStore};

fn get() -> (Operation, SizeClass) {
    (Operation::Get, SizeClass::of(1))
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

struct World {
    memory: Arc<MemoryStore>,
    faults: Vec<Arc<FaultStore>>,
    clock: Arc<TestClock>,
    store: BalanceStore,
}

fn world(endpoints: usize) -> World {
    let clock = Arc::new(TestClock::default());
    let memory = Arc::new(MemoryStore::new(clock.clone()));
    let faults: Vec<_> = (0..endpoints).map(|_| Arc::new(FaultStore::new(memory.clone(), 1))).collect();
    let named = faults.iter().enumerate().map(|(i, f)| (format!("http://{i}"), f.clone() as Arc<dyn Store>));
    let store = BalanceStore::new(named.collect(), clock.clone(), 7, BalanceMetrics::default());
    World { memory, faults, clock, store }
}

impl World {
    fn calls(&self) -> Vec<usize> {
        self.faults.iter().map(|f| Operation::ALL.iter().map(|o| f.calls(*o)).sum()).collect()
    }
}

#[tokio::test]
async fn reads_and_writes_go_to_all() {
    let w = world(3);
    for i in 0..60 {
        let key = format!("k{i}");
        w.store.put(&key, vec![Bytes::from_static(b"bytes")]).await.unwrap();
        assert_eq!(w.store.get(&key, 1..5).await.unwrap(), "ytes");
        assert_eq!(w.store.head(&key).await.unwrap().size, 5);
    }
    assert_eq!(w.store.list("", None, 100).await.unwrap().len(), 60);
    w.store.delete(w.memory.keys()).await.unwrap();
    assert_eq!(w.memory.count(), 0);
    assert!(w.calls().iter().all(|calls| *calls > 30), "{:?}", w.calls());
    assert_eq!(w.store.describe(), format!("{}, http://1, http://2", w.memory.describe()));
}

#[tokio::test]
async fn an_endpoint_that_fails_is_left_out_for_a_growing_time() {
    let w = world(2);
    w.store.put("k", vec![Bytes::from_static(b"bytes")]).await.unwrap();
    w.faults[0].script(Operation::Get, Fault::Before(Kind::Unavailable), usize::MAX);
    let mut failures = Vec::new();
    for at in 0..6_000 {
        // A request each 10 ms for a minute.
        if w.store.get("k", 0..5).await.is_err() {
            failures.push(at * 10);
        }
        w.clock.advance(ms(10));
    }
    let gaps: Vec<_> = failures.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(gaps, [250, 500, 1_000, 2_000, 4_000, 8_000, 16_000], "{failures:?}");
    assert!(!w.store.state().policy.is_well(0) && w.store.state().policy.is_well(1));
    // It works again, and gets its share after one request that shows it.
    w.faults[0].heal();
    w.clock.advance(Duration::from_secs(30));
    let before = w.calls();
    for _ in 0..100 {
        w.store.get("k", 0..5).await.unwrap();
    }
    assert!(w.calls()[0] - before[0] > 20, "{:?} after {before:?}", w.calls());
}

#[tokio::test]
async fn one_request_tries_and_its_loss_is_no_answer() {
    let w = world(2);
    w.store.put("k", vec![Bytes::from_static(b"bytes")]).await.unwrap();
    w.faults[0].script(Operation::Get, Fault::Before(Kind::Unavailable), 1);
    while w.store.get("k", 0..5).await.is_ok() {}
    w.clock.advance(ms(250));
    w.faults[0].script(Operation::Get, Fault::Hang, 1);
    {
        let mut trial = std::pin::pin!(w.store.get("k", 0..5));
        assert!(futures::poll!(trial.as_mut()).is_pending());
        let before = w.calls();
        for _ in 0..20 {
            w.store.get("k", 0..5).await.unwrap();
        }
        assert_eq!(w.calls()[0], before[0], "while one tries, no other does");
    }
    // Nobody waited for the end: the next request tries.
    let before = w.calls();
    w.store.get("k", 0..5).await.unwrap();
    assert_eq!(w.calls()[0], before[0] + 1);
    assert!(w.store.state().policy.is_well(0));
}

#[tokio::test]
async fn all_that_are_out_are_still_asked_and_refusals_of_the_store_are_answers() {
    let w = world(2);
    for f in &w.faults {
        f.script(Operation::Get, Fault::Before(Kind::Unavailable), 5);
    }
    for _ in 0..10 {
        assert_eq!(w.store.get("absent", 0..5).await.unwrap_err().kind(), Kind::Unavailable);
    }
    for _ in 0..20 {
        assert_eq!(w.store.get("absent", 0..5).await.unwrap_err().kind(), Kind::NotFound);
    }
    assert!((0..2).any(|i| w.store.state().policy.is_well(i)));
}

/// Endpoints whose requests take so long; readers that ask again at once. Returns the requests each served.
fn simulate(times: &[u64], readers: usize, seed: u64) -> Vec<usize> {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut policy = Policy::new(times.len());
    let mut served = vec![0; times.len()];
    // By end: (end, number, picked, begun).
    let mut under_way = BTreeSet::new();
    let mut send = |policy: &mut Policy, under_way: &mut BTreeSet<_>, number: usize, now: u64| {
        let picked = policy.pick(ms(now), None, &mut random);
        let took = times[picked] * random.random_range(80u64..120) / 100;
        under_way.insert((now + took, number, picked, now));
    };
    (0..readers).for_each(|number| send(&mut policy, &mut under_way, number, 0));
    for number in readers..20_000 {
        let (now, _, picked, begun) = under_way.pop_first().unwrap();
        served[picked] += 1;
        assert_eq!(policy.ended(ms(now), picked, get(), ms(now - begun), End::Answered), None);
        send(&mut policy, &mut under_way, number, now);
    }
    served
}

#[test]
fn a_slow_endpoint_gets_less_and_equal_ones_the_same() {
    let equal = simulate(&[100, 100, 100], 32, 1);
    assert!(equal.iter().all(|served| (6_000..7_400).contains(served)), "{equal:?}");
    let slow = simulate(&[100, 100, 1_000], 32, 1);
    assert!(slow[2] < 1_000 && slow[0].abs_diff(slow[1]) < 2_000, "{slow:?}");
}

proptest! {
    /// Whatever happens, an endpoint is picked, counts come out even, and what is to be avoided is, if another is well.
    #[test]
    fn any_history_is_borne(
        steps in prop::collection::vec((0u64..2_000, 0usize..4, 0u8..3, any::<bool>()), 1..300),
        endpoints in 1usize..4,
        seed: u64,
    ) {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut policy = Policy::new(endpoints);
        let (mut now, mut under_way) = (Duration::ZERO, Vec::new());
        for (passed, avoid, end, stays) in steps {
            now += ms(passed);
            let avoid = Some(avoid);
            let other_is_well = (0..endpoints).any(|i| Some(i) != avoid && policy.is_well(i));
            let picked = policy.pick(now, avoid, &mut random);
            prop_assert!(picked < endpoints && !(other_is_well && Some(picked) == avoid));
            under_way.push((now, picked, [End::Answered, End::Failed, End::Dropped][usize::from(end)]));
            if !stays {
                for (begun, picked, end) in under_way.drain(..) {
                    policy.ended(now, picked, get(), now - begun, end);
                }
            }
        }
        for (begun, picked, end) in under_way {
            policy.ended(now, picked, get(), now - begun, end);
        }
        prop_assert_eq!(policy.in_flight(), 0);
    }
}
