//! Whole passes over a tree of small files, against a store with latency and limited bandwidth, in virtual time: what is measured
//! is how well requests overlap, not this machine.

use std::sync::atomic::AtomicU64;

use granary_core::{Clock, Timestamp};
use tokio::time::Instant;

use super::*;

const FILE: u64 = 100 << 10;
pub(super) const PACK: u64 = 15 * MIB;
pub(super) const FIRST_BYTE: Duration = Duration::from_millis(30);

/// Tokio's clock, which a test stops.
#[derive(Debug)]
pub(super) struct VirtualClock(pub Instant);

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        Timestamp { secs: 1_000_000 + self.0.elapsed().as_secs() as i64, nanos: 0 }
    }
    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

/// A first byte after 30 ms, then all requests share one link.
#[derive(Debug)]
pub(super) struct FarStore {
    pub inner: MemoryStore,
    bytes_per_s: u64,
    link_free: Mutex<Instant>,
    gets: AtomicU64,
    bytes: AtomicU64,
}

impl FarStore {
    pub fn new(bytes_per_s: u64) -> FarStore {
        FarStore {
            inner: MemoryStore::default(),
            bytes_per_s,
            link_free: Mutex::new(Instant::now()),
            gets: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }
}

#[async_trait]
impl Store for FarStore {
    async fn get(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        self.gets.fetch_add(1, Ordering::SeqCst);
        self.bytes.fetch_add(range.end - range.start, Ordering::SeqCst);
        tokio::time::sleep(FIRST_BYTE).await;
        let transfer = Duration::from_secs_f64((range.end - range.start) as f64 / self.bytes_per_s as f64);
        let end = {
            let mut free = self.link_free.lock().unwrap();
            *free = (*free).max(Instant::now()) + transfer;
            *free
        };
        tokio::time::sleep_until(end).await;
        self.inner.get(key, range).await
    }
    async fn put(&self, key: &str, parts: Vec<Bytes>) -> Result<()> {
        self.inner.put(key, parts).await
    }
    async fn head(&self, key: &str) -> Result<ObjectMeta> {
        self.inner.head(key).await
    }
    async fn delete(&self, keys: Vec<String>) -> Result<()> {
        self.inner.delete(keys).await
    }
    async fn list(&self, prefix: &str, after: Option<&str>, max: usize) -> Result<Vec<ObjectMeta>> {
        self.inner.list(prefix, after, max).await
    }
    fn describe(&self) -> String {
        "a far store".into()
    }
}

struct World {
    _dir: tempfile::TempDir,
    store: Arc<FarStore>,
    cache: Arc<ReadCache>,
    packs: Vec<ObjectInfo>,
}

impl World {
    async fn new(packs: u128, bytes_per_s: u64) -> World {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(FarStore::new(bytes_per_s));
        let limits = Limits { cache_free_bytes_min: 0, cache_free_percent_min: 0, ..Limits::default() };
        let clock = Arc::new(VirtualClock(Instant::now()));
        let memory = ByteBudget::new(limits.memory_bytes_max);
        let cache = ReadCache::open(dir.path(), &limits, store.clone(), clock, memory).unwrap();
        let mut infos = Vec::new();
        for id in 1..=packs {
            let (sealed, info) = sealed_pack(id, payload(1, PACK));
            store.put(&sealed.key(), sealed.parts()).await.unwrap();
            infos.push(info);
        }
        World { _dir: dir, store, cache, packs: infos }
    }

    /// Every file once, in an order of the seed.
    fn shuffled(&self, seed: u64) -> Vec<(ObjectInfo, Range<u64>)> {
        let mut x = seed;
        let mut files: Vec<_> = self
            .packs
            .iter()
            .flat_map(|pack| (0..PACK / FILE).map(|i| (*pack, i * FILE..(i + 1) * FILE)))
            .collect();
        for i in (1..files.len()).rev() {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            files.swap(i, (x >> 33) as usize % (i + 1));
        }
        files
    }

    /// Reads these files with so many threads, as a program would: the time it took.
    async fn read(&self, files: &[(ObjectInfo, Range<u64>)], threads: usize) -> Duration {
        let (began, next) = (Instant::now(), AtomicU64::new(0));
        let whole = payload(1, PACK);
        let reader = || async {
            while let Some((object, range)) = files.get(next.fetch_add(1, Ordering::SeqCst) as usize) {
                let bytes = match self.cache.read_ready(NS, object, range.clone()) {
                    Some(bytes) => bytes,
                    None => self.cache.read(NS, object, range.clone()).await.unwrap(),
                };
                assert!(bytes == whole[range.start as usize..range.end as usize]);
            }
        };
        futures::future::join_all((0..threads).map(|_| reader())).await;
        began.elapsed()
    }

    fn ideal(&self) -> Duration {
        let bytes = self.packs.iter().map(|p| p.total_len).sum::<u64>();
        FIRST_BYTE + Duration::from_secs_f64(bytes as f64 / self.store.bytes_per_s as f64)
    }

    fn drop_all(&self) {
        self.packs.iter().for_each(|pack| self.cache.evict(pack.id, &(0..PACK)));
    }

    /// Bytes that came from the store, over those of all packs.
    fn traffic(&self) -> f64 {
        let bytes = self.packs.iter().map(|p| p.total_len).sum::<u64>();
        self.store.bytes.load(Ordering::SeqCst) as f64 / bytes as f64
    }
}

#[tokio::test(start_paused = true)]
async fn a_shuffled_epoch_of_small_files_comes_near_the_stores_bandwidth() {
    // Of 10,000 files and 1 GB/s a quarter: the same number of round trips in the same time.
    let world = World::new(17, 250_000_000).await;
    for (seed, least) in [(1, 0.75), (2, 0.85)] {
        let took = world.read(&world.shuffled(seed), 8).await;
        world.cache.idle().await;
        let ratio = world.ideal().as_secs_f64() / took.as_secs_f64();
        println!(
            "epoch {seed}: {:.3} s, ideal {:.3} s, ratio {ratio:.3}; {} GETs, traffic {:.3}; {:?}",
            took.as_secs_f64(),
            world.ideal().as_secs_f64(),
            world.store.gets.load(Ordering::SeqCst),
            world.traffic(),
            world.cache.stats()
        );
        assert!(world.traffic() < 1.01 * f64::from(seed as u32), "{}", world.traffic());
        assert!(ratio > least, "{ratio}");
        world.drop_all();
    }
}

#[tokio::test(start_paused = true)]
async fn reading_in_order_with_one_thread_hides_the_latency() {
    let world = World::new(4, 250_000_000).await;
    let mut files = world.shuffled(1);
    files.sort_by_key(|(object, range)| (object.id, range.start));
    let took = world.read(&files, 1).await;
    let ratio = world.ideal().as_secs_f64() / took.as_secs_f64();
    println!("in order: {:.3} s, ratio {ratio:.3}; {:?}", took.as_secs_f64(), world.cache.stats());
    // Without metadata nobody tells which pack is next: 30 ms for each, and once the window to open.
    assert!(ratio > 0.6, "{ratio}");
}

#[tokio::test(start_paused = true)]
async fn ten_readers_of_one_data_set_cost_the_traffic_of_one() {
    let world = World::new(3, 250_000_000).await;
    let orders: Vec<_> = (1..=10).map(|seed| world.shuffled(seed)).collect();
    futures::future::join_all(orders.iter().map(|order| world.read(order, 2))).await;
    world.cache.idle().await;
    assert!(world.traffic() < 1.01, "{}", world.traffic());
}
