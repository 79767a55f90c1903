//! What an epoch asks of a store that has nothing on this machine, and how long it takes beside the link's own time: simulated, in virtual time.
//!
//! Data, link and batch are those of `bench/loader --cold`: 27,600 files of 23 KB on average, 30 ms to the first byte, 650 MB/s for all requests
//! together, a batch of 256.

#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use granary_core::Clock;
use granary_loader::order::permutation::key;
use granary_loader::{Loader, Options, Tail};

use common::zeros::{self, Link, VirtualClock, ZeroStore, put_index};

/// To the first byte.
const LATENCY: Duration = Duration::from_millis(30);
const BYTES_PER_S: u64 = 650_000_000;
/// Of 64 MB each.
const SHARDS: u32 = 10;
const SAMPLES: u32 = 2760;
const SAMPLE_BYTES: f64 = 23_000.0;

/// What was asked of the link.
#[derive(Clone, Debug, Default)]
struct Seen {
    requests: u64,
    bytes: u64,
    in_flight: u64,
    /// Requests before so much was under way as the link holds.
    until_full: Option<u64>,
    /// When what was asked so far has come.
    free_at: Duration,
}

/// One link for all requests, which gives their bytes one after the other.
#[derive(Debug)]
struct OneLink {
    clock: Arc<VirtualClock>,
    seen: Mutex<Seen>,
}

#[async_trait]
impl Link for OneLink {
    async fn bring(&self, bytes: u64, shard: bool) {
        let done = {
            let mut seen = self.seen.lock().unwrap();
            let first_byte = self.clock.monotonic() + LATENCY;
            let takes = Duration::from_secs_f64(bytes as f64 / BYTES_PER_S as f64);
            seen.free_at = seen.free_at.max(first_byte) + takes;
            if shard {
                seen.requests += 1;
                seen.bytes += bytes;
                seen.in_flight += bytes;
                if seen.in_flight as f64 >= BYTES_PER_S as f64 * LATENCY.as_secs_f64() {
                    seen.until_full = seen.until_full.or(Some(seen.requests));
                }
            }
            seen.free_at
        };
        tokio::time::sleep(done - self.clock.monotonic()).await;
        if shard {
            self.seen.lock().unwrap().in_flight -= bytes;
        }
    }
}

/// Sizes as files have them: many small ones, few large ones (exponential), the same each time.
fn lengths(shard: u32) -> Vec<u64> {
    let one = |sample: u32| {
        let part = (key(&[u64::from(shard), u64::from(sample)]) >> 11) as f64 / (1_u64 << 53) as f64;
        (-(1.0 - part).ln() * SAMPLE_BYTES) as u64 + 1
    };
    (0..SAMPLES).map(one).collect()
}

struct Epoch {
    seen: Seen,
    /// Bytes that were asked for and not given, at most.
    held: u64,
    took: Duration,
    wanted: u64,
}

/// One epoch from nothing by a consumer that takes no time.
async fn epoch(options: Options, shard_count: u32) -> Epoch {
    epoch_of(options, shard_count, lengths).await
}

async fn epoch_of(options: Options, shard_count: u32, lengths: fn(u32) -> Vec<u64>) -> Epoch {
    let clock = Arc::new(VirtualClock::new());
    let link = OneLink { clock: clock.clone(), seen: Mutex::default() };
    let store = Arc::new(ZeroStore::new(link, 16 << 20));
    let (mut shards, mut wanted) = (Vec::new(), 0);
    for number in 0..shard_count {
        let lengths = lengths(number);
        wanted += lengths.iter().sum::<u64>();
        shards.push(put_index(&*store, number, &lengths).await);
    }
    // A hedge asks for bytes again, which is counted elsewhere.
    let source = zeros::source(store.clone(), shards, 0, &clock).await;
    let handle = tokio::runtime::Handle::current();
    let start = clock.monotonic();
    let loader = Loader::new_with(vec![source], options, clock.clone(), Some(handle)).unwrap();
    let (mut samples, mut given, mut held) = (0, 0, 0);
    while let Some(batch) = loader.next().await.unwrap() {
        held = held.max(store.link.seen.lock().unwrap().bytes.saturating_sub(given));
        samples += batch.samples.len() as u32;
        for sample in &batch.samples {
            given += sample.payload_bytes().unwrap();
        }
    }
    let took = clock.monotonic() - start;
    assert_eq!(samples, shard_count * SAMPLES);
    let seen = store.link.seen.lock().unwrap().clone();
    Epoch { seen, held, took, wanted }
}

impl Epoch {
    fn told(&self, name: &str) -> (f64, f64) {
        // What is under way now is of the next epoch, which begins in the moment in which this one is made.
        let amplified = (self.seen.bytes - self.seen.in_flight) as f64 / self.wanted as f64;
        let link = LATENCY.as_secs_f64() + self.wanted as f64 / BYTES_PER_S as f64;
        let rate = link / self.took.as_secs_f64();
        println!(
            "{name}: {} requests, {amplified:.3} of the bytes wanted, {:.0} ms, {rate:.2} of the link; full after {:?} requests",
            self.seen.requests,
            self.took.as_secs_f64() * 1e3,
            self.seen.until_full
        );
        (amplified, rate)
    }
}

fn options(seed: u64) -> Options {
    Options { batch_samples: 256, tail: Tail::Uneven, seed, ..Options::default() }
}

#[tokio::test(start_paused = true)]
async fn a_cold_epoch_keeps_the_link_busy_with_few_requests() {
    for seed in 1..=3 {
        let epoch = epoch(options(seed), SHARDS).await;
        let (amplified, rate) = epoch.told(&format!("seed {seed}"));
        // Tars' headers are 3 %. Each of 64 lanes ends within neighbours that are mixed, of 620 KB, which are asked for with the next lane again, or most of them.
        assert!(amplified <= 1.03 + 64.0 * 620e3 / 634e6, "{amplified}");
        assert!(rate >= 0.85, "{rate}");
        // What lies between samples, and is asked for again, is never given.
        let beside = (amplified - 1.0) * epoch.wanted as f64;
        assert!(epoch.held as f64 <= Options::default().memory_bytes_max as f64 + beside, "{}", epoch.held);
        // 140 runs of 4.8 MB, lanes that begin and end within one, and what the next epoch begins with.
        assert!(epoch.seen.requests <= 280, "{:?}", epoch.seen);
        assert!(epoch.seen.until_full.is_some_and(|requests| requests <= 64), "{:?}", epoch.seen);
    }
}

#[tokio::test(start_paused = true)]
async fn each_byte_of_a_larger_data_set_is_asked_for_once() {
    let (amplified, _) = epoch(options(1), 6 * SHARDS).await.told("six times as large");
    // Of which 3 % are tars' headers.
    assert!(amplified <= 1.05, "{amplified}");
}

/// Of each shard most are small, and some in a row are a hundred times as large: parts of runs are not what they should be on average.
fn uneven(shard: u32) -> Vec<u64> {
    (0..SAMPLES).map(|sample| if (sample + shard * 97) % SAMPLES < 300 { 200_000 } else { 2_000 }).collect()
}

#[tokio::test(start_paused = true)]
async fn an_epoch_comes_to_its_end_with_little_memory_and_uneven_samples() {
    for memory_mib in [16, 64, 96] {
        let options = Options { memory_bytes_max: memory_mib << 20, ..options(1) };
        let epoch = epoch_of(options, SHARDS, uneven).await;
        let (amplified, _) = epoch.told(&format!("{memory_mib} MiB"));
        // What is never given, and the next batch, which is not kept waiting for memory: of large samples at most.
        let beside = (amplified - 1.0) * epoch.wanted as f64 + 256.0 * 200_000.0;
        assert!(epoch.held as f64 <= (memory_mib << 20) as f64 + beside, "{memory_mib} MiB: {}", epoch.held);
    }
}
