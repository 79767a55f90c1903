//! How long a reader waits while all that may be is fetched ahead, in virtual time: with what gives way, and without.

use granary_core::Clock;
use granary_store::{GetPlaces, LimitMetrics, LimitStore};
use tokio::time::Instant;

use super::epochs::{FIRST_BYTE, FarStore, PACK, VirtualClock};
use super::*;

const PACKS: u128 = 16;
/// Reads at most; those count that began while something was fetched ahead.
const READS: u128 = 40;
const BETWEEN: Duration = Duration::from_millis(5);

/// Does not tell how many requests it takes at once.
#[derive(Debug)]
struct Reticent(Arc<dyn Store>);

#[async_trait]
impl Store for Reticent {
    async fn get(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        self.0.get(key, range).await
    }
    async fn put(&self, key: &str, parts: Vec<Bytes>) -> Result<()> {
        self.0.put(key, parts).await
    }
    async fn head(&self, key: &str) -> Result<ObjectMeta> {
        self.0.head(key).await
    }
    async fn delete(&self, keys: Vec<String>) -> Result<()> {
        self.0.delete(keys).await
    }
    async fn list(&self, prefix: &str, after: Option<&str>, max: usize) -> Result<Vec<ObjectMeta>> {
        self.0.list(prefix, after, max).await
    }
    fn describe(&self) -> String {
        self.0.describe()
    }
}

/// What was seen while everything ahead was fetched.
#[derive(Debug)]
struct Seen {
    reads: usize,
    /// The time of a read, in the mean, once half of them were made.
    wait: Duration,
    /// What was fetched ahead, over what the store could have given.
    ahead: f64,
}

/// Reads one object after the other, while 16 packs wait to be fetched.
async fn reads_among_fetches(
    bytes_per_s: u64,
    stack: impl FnOnce(Arc<FarStore>, Arc<dyn Clock>) -> Arc<dyn Store>,
    gives_way: bool,
) -> Seen {
    let dir = tempfile::tempdir().unwrap();
    let (far, clock) = (Arc::new(FarStore::new(bytes_per_s)), Arc::new(VirtualClock(Instant::now())));
    let (mut packs, mut small) = (Vec::new(), Vec::new());
    for id in 1..=PACKS + READS {
        let (sealed, info) = sealed_pack(id, payload(1, if id <= PACKS { PACK } else { MIB }));
        far.inner.put(&sealed.key(), sealed.parts()).await.unwrap();
        if id <= PACKS { packs.push(info) } else { small.push(info) }
    }
    let limits = Limits { cache_free_bytes_min: 0, cache_free_percent_min: 0, ..Limits::default() };
    let memory = ByteBudget::new(limits.memory_bytes_max);
    let cache = ReadCache::open(dir.path(), &limits, stack(far, clock.clone()), clock, memory).unwrap();
    if !gives_way {
        cache.fetcher.gives_way_to_nobody();
    }
    let (began, done) = (Instant::now(), AtomicBool::new(false));
    let ahead = async {
        let all = packs.iter().map(|pack| cache.bring(NS, pack, 0..PACK, Patience::Announced));
        futures::future::try_join_all(all).await.unwrap();
        done.store(true, Ordering::SeqCst);
        began.elapsed()
    };
    let reads = async {
        tokio::time::sleep(Duration::from_millis(100)).await; // until all that may be is under way
        let mut waits: Vec<Duration> = Vec::new();
        for object in &small {
            tokio::time::sleep(BETWEEN).await;
            if done.load(Ordering::SeqCst) {
                break;
            }
            let asked = Instant::now();
            cache.read(NS, object, 0..1000).await.unwrap();
            waits.push(asked.elapsed());
        }
        let late = &waits[waits.len() / 2..];
        (waits.len(), late.iter().sum::<Duration>() / late.len() as u32)
    };
    let (took, (reads, wait)) = tokio::join!(ahead, reads);
    cache.idle().await;
    let ideal = FIRST_BYTE.as_secs_f64() + (PACKS as u64 * PACK) as f64 / bytes_per_s as f64;
    Seen { reads, wait, ahead: ideal / took.as_secs_f64() }
}

#[tokio::test(start_paused = true)]
async fn a_reader_does_not_wait_behind_what_fills_the_link() {
    let alone = |store: Arc<FarStore>, _: Arc<dyn Clock>| store as Arc<dyn Store>;
    let before = reads_among_fetches(125_000_000, alone, false).await;
    let after = reads_among_fetches(125_000_000, alone, true).await;
    println!("125 MB/s, 38 ms alone: before {before:?}, after {after:?}");
    assert!(before.reads >= 5 && before.wait > Duration::from_millis(150), "{before:?}");
    assert!(after.wait < before.wait * 3 / 5, "{after:?}, {before:?}");
    assert!(after.ahead > 0.6, "what is fetched ahead goes on: {after:?}");
}

#[tokio::test(start_paused = true)]
async fn a_reader_does_not_wait_for_a_place_at_the_store() {
    let limited = |store: Arc<FarStore>, clock: Arc<dyn Clock>| -> Arc<dyn Store> {
        let metrics = LimitMetrics::default();
        let places = GetPlaces::new(4, clock.clone(), &metrics);
        Arc::new(LimitStore::new(store, places, 16, clock, metrics))
    };
    let reticent = |store: Arc<FarStore>, clock: Arc<dyn Clock>| -> Arc<dyn Store> {
        Arc::new(Reticent(limited(store, clock)))
    };
    let before = reads_among_fetches(1_000_000_000, reticent, false).await;
    let after = reads_among_fetches(1_000_000_000, limited, false).await;
    println!("4 places, 31 ms alone: before {before:?}, after {after:?}");
    assert!(before.reads >= 5 && after.reads >= 5, "{before:?}, {after:?}");
    assert!(before.wait > Duration::from_millis(45), "{before:?}");
    assert!(after.wait < Duration::from_millis(36), "{after:?}");
}
