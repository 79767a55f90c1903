use std::sync::atomic::{AtomicBool, Ordering};

use granary_core::{Kind, TestClock};
use proptest::prelude::*;

use super::*;
use crate::fault::{Fault, FaultStore};
use crate::limit::LimitMetrics;
use crate::{MemoryStore, Operation};

/// Moves the clock and returns at once where requests are to be late; otherwise never.
#[derive(Debug)]
struct TestSleep {
    clock: Arc<TestClock>,
    late: AtomicBool,
}

#[async_trait]
impl Sleep for TestSleep {
    async fn sleep(&self, time: Duration) {
        if !self.late.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        self.clock.advance(time);
    }
}

struct World {
    faults: Arc<FaultStore>,
    clock: Arc<TestClock>,
    sleep: Arc<TestSleep>,
    places: GetPlaces,
    metrics: HedgeMetrics,
    store: HedgeStore,
}

async fn world(options: HedgeOptions, places_max: u32) -> World {
    let clock = Arc::new(TestClock::default());
    let memory = Arc::new(MemoryStore::new(clock.clone()));
    let faults = Arc::new(FaultStore::new(memory, 1));
    let sleep = Arc::new(TestSleep { clock: clock.clone(), late: AtomicBool::new(false) });
    let places = GetPlaces::new(places_max, clock.clone(), &LimitMetrics::default());
    let metrics = HedgeMetrics::default();
    let store = HedgeStore::new(
        faults.clone(),
        options,
        places.clone(),
        clock.clone(),
        sleep.clone(),
        metrics.clone(),
    );
    store.put("k", vec![Bytes::from_static(b"bytes")]).await.unwrap();
    World { faults, clock, sleep, places, metrics, store }
}

impl World {
    /// So many requests are answered at once, and then requests are late after 10 ms.
    async fn warm(self, requests: usize) -> World {
        for _ in 0..requests {
            self.get().await.unwrap();
        }
        self.sleep.late.store(true, Ordering::SeqCst);
        self
    }

    async fn get(&self) -> Result<Bytes> {
        self.store.get("k", 0..5).await
    }

    fn counts(&self) -> (u64, u64) {
        (self.metrics.sent.get(), self.metrics.won.get())
    }

    fn refused(&self, reason: Refusal) -> u64 {
        self.metrics.refused.get_or_create(&ByReason { reason }).get()
    }
}

const HANG: Fault = Fault::Hang;

#[tokio::test]
async fn the_second_answer_wins_when_the_first_does_not_come() {
    let w = world(HedgeOptions::new(5), 8).await.warm(64).await;
    w.faults.script(Operation::Get, HANG, 1);
    assert_eq!(w.get().await.unwrap(), "bytes");
    assert_eq!((w.counts(), w.faults.calls(Operation::Get)), ((1, 1), 66));
    // The hanging one was dropped, and no place is lost.
    w.faults.until_held(0).await;
    let places: Vec<_> = std::iter::from_fn(|| w.places.0.try_take()).collect();
    assert_eq!(places.len(), 8);
    // An answer that is there is not asked for again.
    assert_eq!(w.get().await.unwrap(), "bytes");
    assert_eq!(w.counts(), (1, 1));
}

#[tokio::test]
async fn nothing_is_late_before_enough_is_known_of_its_size() {
    let w = world(HedgeOptions::new(5), 8).await.warm(63).await;
    w.faults.script(Operation::Get, HANG, 1);
    let mut get = std::pin::pin!(w.get());
    assert!(futures::poll!(get.as_mut()).is_pending());
    assert_eq!(w.counts(), (0, 0));
}

#[tokio::test]
async fn one_that_fails_waits_for_the_other() {
    let w = world(HedgeOptions::new(5), 8).await.warm(64).await;
    let broken = Fault::Before(Kind::Unavailable);
    // The first is late and comes; the second fails.
    w.faults.script(Operation::Get, Fault::Delay, 1);
    w.faults.script(Operation::Get, broken, 1);
    let mut get = std::pin::pin!(w.get());
    assert!(futures::poll!(get.as_mut()).is_pending());
    assert_eq!(w.counts(), (1, 0));
    w.faults.release();
    assert_eq!(get.await.unwrap(), "bytes");
    // Both fail: the second while the first hangs, then the first.
    w.faults.script(Operation::Get, Fault::Delay, 2);
    let mut get = std::pin::pin!(w.store.get("absent", 0..5));
    assert!(futures::poll!(get.as_mut()).is_pending());
    w.faults.release();
    assert_eq!(get.await.unwrap_err().kind(), Kind::NotFound);
    assert_eq!(w.counts(), (2, 0));
}

#[tokio::test]
async fn no_more_than_the_budget_is_sent_twice() {
    let w = world(HedgeOptions { burst: 3, ..HedgeOptions::new(5) }, 8).await.warm(64).await;
    for _ in 0..200 {
        // Everything is late, and both answers come together. A task that never waits gets no turn of the runtime's channels.
        tokio::task::yield_now().await;
        w.faults.script(Operation::Get, Fault::Delay, 2);
        let mut get = std::pin::pin!(w.get());
        assert!(futures::poll!(get.as_mut()).is_pending());
        w.faults.release();
        get.await.unwrap();
        w.faults.heal();
    }
    let (sent, _) = w.counts();
    assert!((10..=3 + 200 / 20).contains(&sent), "{sent}");
    assert_eq!(w.refused(Refusal::Budget), 200 - sent);
}

#[tokio::test]
async fn none_is_sent_while_the_store_asks_to_slow_down_or_no_place_is_free() {
    let w = world(HedgeOptions::new(5), 2).await.warm(64).await;
    w.faults.script(Operation::Put, Fault::SlowDown, 1);
    w.store.put("x", vec![Bytes::from_static(b"x")]).await.unwrap_err();
    for (seconds, reason) in [(0, Refusal::SlowDown), (9, Refusal::SlowDown)] {
        w.clock.advance(Duration::from_secs(seconds));
        let before = w.refused(reason);
        w.faults.script(Operation::Get, HANG, 1);
        let mut get = std::pin::pin!(w.get());
        assert!(futures::poll!(get.as_mut()).is_pending());
        assert_eq!((w.refused(reason), w.counts()), (before + 1, (0, 0)));
    }
    w.clock.advance(Duration::from_secs(2));
    let taken = (w.places.0.try_take().unwrap(), w.places.0.try_take().unwrap());
    w.faults.script(Operation::Get, HANG, 1);
    {
        let mut get = std::pin::pin!(w.get());
        assert!(futures::poll!(get.as_mut()).is_pending());
        assert_eq!((w.refused(Refusal::Full), w.counts()), (1, (0, 0)));
    }
    drop(taken);
    w.faults.script(Operation::Get, HANG, 1);
    assert_eq!(w.get().await.unwrap(), "bytes");
    assert_eq!(w.counts(), (1, 1));
}

#[tokio::test]
async fn what_takes_three_times_as_long_is_a_straggler() {
    let w = world(HedgeOptions::new(0), 8).await.warm(64).await;
    for (ms, stragglers) in [(19, 0), (21, 1)] {
        w.faults.script(Operation::Get, Fault::Delay, 1);
        let mut get = std::pin::pin!(w.get());
        assert!(futures::poll!(get.as_mut()).is_pending()); // late: 10 ms
        w.clock.advance(Duration::from_millis(ms));
        w.faults.release();
        get.await.unwrap();
        assert_eq!(w.metrics.stragglers.get(), stragglers);
    }
    assert_eq!(w.counts(), (0, 0), "zero percent is none at all");
}

/// Two endpoints, of which the first asked hangs: the second request goes to the other one.
#[tokio::test]
async fn the_second_goes_to_another_endpoint() {
    let clock = Arc::new(TestClock::default());
    let memory = Arc::new(MemoryStore::new(clock.clone()));
    memory.put("k", vec![Bytes::from_static(b"bytes")]).await.unwrap();
    for seed in 0..20 {
        let faults: Vec<_> = (0..2).map(|_| Arc::new(FaultStore::new(memory.clone(), 1))).collect();
        let endpoints =
            faults.iter().enumerate().map(|(i, f)| (format!("http://{i}"), f.clone() as Arc<dyn Store>));
        let balance = crate::BalanceStore::new(endpoints.collect(), clock.clone(), seed, Default::default());
        let sleep = Arc::new(TestSleep { clock: clock.clone(), late: AtomicBool::new(false) });
        let places = GetPlaces::new(8, clock.clone(), &LimitMetrics::default());
        let metrics = HedgeMetrics::default();
        let options = HedgeOptions::new(5);
        let store = HedgeStore::new(
            Arc::new(balance),
            options,
            places,
            clock.clone(),
            sleep.clone(),
            metrics.clone(),
        );
        for _ in 0..64 {
            store.get("k", 0..5).await.unwrap();
        }
        sleep.late.store(true, Ordering::SeqCst);
        tokio::task::yield_now().await;
        let before: Vec<_> = faults.iter().map(|f| f.calls(Operation::Get)).collect();
        // Whichever is asked first hangs, and would again.
        faults.iter().for_each(|f| f.script(Operation::Get, Fault::Delay, 1));
        let mut get = std::pin::pin!(store.get("k", 0..5));
        assert!(futures::poll!(get.as_mut()).is_pending());
        for (f, before) in faults.iter().zip(before) {
            assert_eq!(f.calls(Operation::Get), before + 1, "each was asked once");
        }
        faults[1].release();
        assert_eq!(get.await.unwrap(), "bytes");
    }
}

proptest! {
    /// However requests come: seconds are at most the burst and the part of the firsts.
    #[test]
    fn the_budget_holds(late in prop::collection::vec(any::<bool>(), 1..2000), percent in 0u64..50, burst in 1u32..20) {
        let mut policy = Policy::new(HedgeOptions { burst, ..HedgeOptions::new(percent) });
        let (mut firsts, mut seconds) = (0u64, 0u64);
        for late in late {
            policy.sent(SizeClass::of(1));
            firsts += 1;
            if late && policy.late(Duration::from_secs(1), || Some(())).is_ok() {
                seconds += 1;
            }
            let most = if percent == 0 { 0 } else { u64::from(burst) + firsts * percent / 100 + 1 };
            prop_assert!(seconds <= most, "{} of {}", seconds, firsts);
        }
    }
}
