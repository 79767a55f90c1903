//! The policy against simulated stores, in virtual time, and the places themselves.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;

use granary_core::{Error, Kind, TestClock, Timestamp};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

use super::*;
use crate::fault::{Fault, FaultStore};
use crate::{MemoryStore, Operation};

/// The runtime's clock, which is paused.
#[derive(Debug)]
struct VirtualClock(Instant);

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        Timestamp::default()
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

/// What a simulated store is like.
#[derive(Clone, Copy, Debug)]
struct Nature {
    /// Median time of a request that does not queue; larger requests take longer by this for each MiB.
    median_ms: f64,
    ms_per_mebibyte: f64,
    /// Of the latency's logarithm; 0: all are alike.
    sigma: f64,
    /// One in so many takes two seconds; 0: none.
    stall_one_in: u32,
    /// Requests worked on at once; more queue.
    capacity: usize,
    /// More in it are refused.
    refuses_above: usize,
}

const FAST: Nature = Nature {
    median_ms: 30.0,
    ms_per_mebibyte: 0.0,
    sigma: 0.0,
    stall_one_in: 0,
    capacity: 10_000,
    refuses_above: usize::MAX,
};

#[derive(Debug)]
struct Simulated {
    nature: Mutex<Nature>,
    servers: Semaphore,
    inside: AtomicUsize,
    storm: AtomicBool,
    random: Mutex<SmallRng>,
    answered: AtomicU64,
    refused: AtomicU64,
}

impl Simulated {
    fn new(nature: Nature) -> Simulated {
        Simulated {
            nature: Mutex::new(nature),
            servers: Semaphore::new(nature.capacity),
            inside: AtomicUsize::new(0),
            storm: AtomicBool::new(false),
            random: Mutex::new(SmallRng::seed_from_u64(3)),
            answered: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    fn time(&self, bytes: u64) -> Duration {
        let nature = *self.nature.lock().unwrap();
        let mut random = self.random.lock().unwrap();
        if nature.stall_one_in > 0 && random.random_range(0..nature.stall_one_in) == 0 {
            return Duration::from_secs(2);
        }
        // The sum of twelve uniform numbers is nearly normal.
        let normal = (0..12).map(|_| random.random::<f64>()).sum::<f64>() - 6.0;
        let ms = nature.median_ms + nature.ms_per_mebibyte * bytes as f64 / f64::from(1 << 20);
        Duration::from_secs_f64(ms / 1e3 * (normal * nature.sigma).exp())
    }
}

#[async_trait]
impl Store for Simulated {
    async fn get(&self, _: &str, range: Range<u64>) -> Result<Bytes> {
        let inside = self.inside.fetch_add(1, Ordering::SeqCst);
        let refuses_above = self.nature.lock().unwrap().refuses_above;
        let refused = self.storm.load(Ordering::SeqCst) || inside >= refuses_above;
        if refused {
            tokio::time::sleep(Duration::from_millis(2)).await;
        } else {
            let _server = self.servers.acquire().await.unwrap();
            tokio::time::sleep(self.time(range.end)).await;
        }
        self.inside.fetch_sub(1, Ordering::SeqCst);
        if refused {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return Err(Error::new(Kind::Unavailable, "503 SlowDown").with_slow_down());
        }
        self.answered.fetch_add(1, Ordering::SeqCst);
        Ok(Bytes::new())
    }

    async fn put(&self, _: &str, _: Vec<Bytes>) -> Result<()> {
        unreachable!("not simulated")
    }

    async fn head(&self, _: &str) -> Result<ObjectMeta> {
        unreachable!("not simulated")
    }

    async fn delete(&self, _: Vec<String>) -> Result<()> {
        unreachable!("not simulated")
    }

    async fn list(&self, _: &str, _: Option<&str>, _: usize) -> Result<Vec<ObjectMeta>> {
        unreachable!("not simulated")
    }

    fn describe(&self) -> String {
        "simulated".to_owned()
    }
}

const MAX: u32 = 128;

/// A simulated store, and more readers than there may be places, who ask again at once, or 50 ms after they were refused.
struct World {
    simulated: Arc<Simulated>,
    gets: GetPlaces,
    readers: tokio::task::JoinSet<()>,
}

impl World {
    fn new(nature: Nature, sizes: &'static [u64]) -> World {
        let simulated = Arc::new(Simulated::new(nature));
        let clock = Arc::new(VirtualClock(Instant::now()));
        let metrics = LimitMetrics::default();
        let gets = GetPlaces::new(MAX, clock.clone(), &metrics);
        let store = Arc::new(LimitStore::new(simulated.clone(), gets.clone(), 1, clock, metrics));
        let mut readers = tokio::task::JoinSet::new();
        for i in 0..MAX as usize * 2 {
            let store = store.clone();
            readers.spawn(async move {
                for bytes in sizes.iter().cycle().skip(i) {
                    if store.get("k", 0..*bytes).await.is_err() {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                }
            });
        }
        World { simulated, gets, readers }
    }

    fn limit(&self) -> usize {
        self.gets.0.state().policy.limit()
    }

    /// Answers a second, and refusals a second, of so many seconds.
    async fn run(&self, seconds: u64) -> (f64, f64) {
        let counts = || {
            let of = |count: &AtomicU64| count.load(Ordering::SeqCst) as f64;
            (of(&self.simulated.answered), of(&self.simulated.refused))
        };
        let before = counts();
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let after = counts();
        ((after.0 - before.0) / seconds as f64, (after.1 - before.1) / seconds as f64)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.readers.abort_all();
    }
}

const MEBIBYTE: &[u64] = &[1 << 20];

#[tokio::test(start_paused = true)]
async fn a_store_that_queues_is_used_to_the_full_and_not_much_beyond() {
    for capacity in [4, 20, 60] {
        let world = World::new(Nature { capacity, sigma: 0.3, ..FAST }, MEBIBYTE);
        // The mean of the lognormal distribution.
        let best = capacity as f64 / 0.030 / (0.3f64 * 0.3 / 2.0).exp();
        let mut limits = Vec::new();
        for second in 0..120 {
            let (rate, _) = world.run(1).await;
            assert!(second < 2 || rate > best * 0.9, "{capacity}: {rate} of {best} in second {second}");
            limits.push(world.limit());
        }
        let beyond = limits.iter().skip(5).filter(|&&limit| limit > (capacity * 3).max(32)).count();
        assert!(beyond < 6, "{capacity}: {limits:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_refuses_is_used_to_the_full_and_seldom_refuses() {
    for capacity in [10, 40] {
        let world = World::new(Nature { capacity, refuses_above: capacity, ..FAST }, MEBIBYTE);
        world.run(5).await;
        let (rate, refused) = world.run(60).await;
        let best = capacity as f64 / 0.030;
        assert!(rate > best * 0.9, "{capacity}: {rate} of {best}");
        assert!(refused < best * 0.02, "{capacity}: {refused} of {best}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_merely_slow_is_given_all_places() {
    for (sigma, stall_one_in) in [(0.0, 0), (0.5, 100)] {
        let world = World::new(Nature { sigma, stall_one_in, ..FAST }, MEBIBYTE);
        world.run(1).await;
        assert_eq!(world.limit(), MAX as usize, "within a second");
        let mean = 0.030 * (sigma * sigma / 2.0).exp() + if stall_one_in > 0 { 0.020 } else { 0.0 };
        let (rate, _) = world.run(100).await;
        let best = f64::from(MAX) / mean;
        assert!(rate > best * 0.95, "{rate} of {best}");
    }
}

#[tokio::test(start_paused = true)]
async fn large_and_small_requests_are_not_compared_with_each_other() {
    let mixed = &[4096, 4 << 20, 4096, 4096, 1 << 20, 16 << 20, 4096, 4096, 4096, 4096, 4096][..];
    let world = World::new(Nature { median_ms: 5.0, ms_per_mebibyte: 10.0, sigma: 0.2, ..FAST }, mixed);
    world.run(5).await;
    assert_eq!(world.limit(), MAX as usize);
    let mut full = 0;
    for _ in 0..60 {
        world.run(1).await;
        full += usize::from(world.limit() == MAX as usize);
    }
    assert!(full > 54, "{full} of 60");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_became_slower_by_itself_keeps_its_places() {
    let world = World::new(Nature { sigma: 0.3, ..FAST }, MEBIBYTE);
    world.run(5).await;
    assert_eq!(world.limit(), MAX as usize);
    *world.simulated.nature.lock().unwrap() = Nature { sigma: 0.3, median_ms: 150.0, ..FAST };
    world.run(3).await;
    let (rate, _) = world.run(30).await;
    let best = f64::from(MAX) / (0.150 * (0.3f64 * 0.3 / 2.0).exp());
    assert!(rate > best * 0.95, "{rate} of {best}");
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_refusals_takes_the_places_and_they_come_back_after_it() {
    let world = World::new(FAST, MEBIBYTE);
    world.run(2).await;
    assert_eq!(world.limit(), MAX as usize);
    world.simulated.storm.store(true, Ordering::SeqCst);
    world.run(2).await;
    assert_eq!(world.limit(), 2, "never below");
    world.simulated.storm.store(false, Ordering::SeqCst);
    world.run(3).await;
    assert!(world.limit() > MAX as usize * 8 / 10, "{}", world.limit());
    world.run(30).await;
    assert_eq!(world.limit(), MAX as usize);
}

fn metered(gets: u32, puts: u32) -> (Arc<FaultStore>, Arc<LimitStore>, LimitMetrics) {
    let clock = Arc::new(TestClock::default());
    let faults = Arc::new(FaultStore::new(Arc::new(MemoryStore::default()), 1));
    let metrics = LimitMetrics::default();
    let places = GetPlaces::new(gets, clock.clone(), &metrics);
    let store = LimitStore::new(faults.clone(), places, puts, clock, metrics.clone());
    (faults, Arc::new(store), metrics)
}

fn waiting(metrics: &LimitMetrics) -> i64 {
    metrics.waiting.get_or_create(&ByOperation { operation: Operation::Get }).get()
}

#[tokio::test]
async fn no_more_than_allowed_are_in_flight_and_dropped_requests_give_their_place_back() {
    let (faults, store, metrics) = metered(2, 1);
    faults.script(Operation::Get, Fault::Hang, 2);
    store.put("k", vec![Bytes::from_static(b"x")]).await.unwrap();
    let get = || {
        let store = store.clone();
        Box::pin(async move { store.get("k", 0..1).await })
    };
    let (mut first, mut second, mut third) = (get(), get(), get());
    poll_fn(|cx| {
        for get in [&mut first, &mut second, &mut third] {
            assert!(get.as_mut().poll(cx).is_pending());
        }
        Poll::Ready(())
    })
    .await;
    assert_eq!((faults.calls(Operation::Get), waiting(&metrics)), (2, 1));
    assert!(store.gets.try_take().is_none());
    // Puts have places of their own.
    store.put("k2", vec![Bytes::from_static(b"x")]).await.unwrap();
    drop(first);
    assert_eq!(third.await.unwrap(), "x");
    assert_eq!(waiting(&metrics), 0);
    drop(second);
    let all = [store.gets.try_take(), store.gets.try_take()];
    assert!(all.iter().all(Option::is_some) && store.gets.try_take().is_none());
}

#[tokio::test]
async fn places_that_are_taken_away_are_gone_when_they_are_given_back() {
    let (_, store, _) = metered(16, 1);
    let slow_down: Result<()> = Err(Error::new(Kind::Unavailable, "503").with_slow_down());
    let all_free = || std::iter::from_fn(|| store.gets.try_take()).collect::<Vec<_>>();
    for left in [8, 4] {
        // A round, in which everybody is refused: half of the places are left.
        while store.gets.state().policy.limit() > left {
            let places = all_free();
            assert!(places.len() > left);
            places.into_iter().for_each(|place| place.ended(1, &slow_down));
        }
        let places = all_free();
        assert_eq!((places.len(), store.gets.state().places), (left, left));
    }
}
