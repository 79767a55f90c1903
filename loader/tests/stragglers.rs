//! How much of the time a training computes while one in a hundred requests stalls: simulated, in virtual time.
//!
//! Shapes and times of DLIO's workloads (<https://github.com/mlcommons/storage>, `unet3d_a100` and `resnet50_a100`), which ask for 90 % of the time spent
//! computing. Bytes and bandwidth of unet3d are a sixteenth of what they are there, and requests too, so that as many are made and each takes as long.

#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use granary_core::Clock;
use granary_loader::Options;
use granary_loader::order::permutation::key;

use common::zeros::{self, Link, VirtualClock, ZeroStore, put_index};

/// To the first byte.
const LATENCY: Duration = Duration::from_millis(30);
/// One in so many requests takes this much longer.
const STALLED_ONE_IN: u64 = 100;
const STALL: Duration = Duration::from_secs(2);

/// Each request takes as long as it does alone, and some stall.
#[derive(Debug)]
struct Stalling {
    bytes_per_s: u64,
    seed: u64,
    requests: Mutex<u64>,
}

#[async_trait]
impl Link for Stalling {
    async fn bring(&self, bytes: u64, shard: bool) {
        let mut time = LATENCY;
        if shard {
            let number = {
                let mut requests = self.requests.lock().unwrap();
                *requests += 1;
                *requests
            };
            time += Duration::from_secs_f64(bytes as f64 / self.bytes_per_s as f64);
            if key(&[self.seed, number]).is_multiple_of(STALLED_ONE_IN) {
                time += STALL;
            }
        }
        tokio::time::sleep(time).await;
    }
}

struct Workload {
    shards: u32,
    samples: u32,
    sample_bytes: u64,
    batch: u64,
    compute: Duration,
    bytes_per_s: u64,
    request_bytes_max: u64,
    memory_bytes_max: u64,
    batches: u64,
}

/// The part of the time that is computed, from the second batch on, with so many of a hundred requests hedged.
async fn utilisation(work: &Workload, hedge_percent_max: u64, seed: u64) -> f64 {
    let clock = Arc::new(VirtualClock::new());
    let link = Stalling { bytes_per_s: work.bytes_per_s, seed, requests: Mutex::new(0) };
    let store = Arc::new(ZeroStore::new(link, work.request_bytes_max as usize));
    let mut shards = Vec::new();
    for number in 0..work.shards {
        shards.push(put_index(&*store, number, &vec![work.sample_bytes; work.samples as usize]).await);
    }
    let source = zeros::source(store, shards, hedge_percent_max, &clock).await;
    let options = Options {
        batch_samples: work.batch,
        seed,
        request_bytes_max: work.request_bytes_max,
        memory_bytes_max: work.memory_bytes_max,
        ..Options::default()
    };
    let handle = tokio::runtime::Handle::current();
    let loader =
        granary_loader::Loader::new_with(vec![source], options, clock.clone(), Some(handle)).unwrap();
    let mut start = None;
    let mut computed = Duration::ZERO;
    let mut batches = 0;
    while batches < work.batches {
        let Some(batch) = loader.next().await.unwrap() else { continue };
        drop(batch);
        batches += 1;
        // The first batch is waited for by everybody.
        start.get_or_insert_with(|| clock.monotonic());
        tokio::time::sleep(work.compute).await;
        computed += work.compute;
    }
    let elapsed = clock.monotonic() - start.unwrap();
    computed.as_secs_f64() / elapsed.as_secs_f64()
}

fn unet3d() -> Workload {
    Workload {
        shards: 24,
        samples: 7,
        sample_bytes: 146_600_628 / 16,
        batch: 7,
        compute: Duration::from_millis(636),
        bytes_per_s: 100_000_000 / 16,
        request_bytes_max: 512 << 10,
        // Four batches.
        memory_bytes_max: 4 * 7 * 146_600_628 / 16,
        batches: 48,
    }
}

fn resnet50() -> Workload {
    Workload {
        shards: 8,
        samples: 1251,
        sample_bytes: 114_660,
        batch: 400,
        compute: Duration::from_millis(435),
        bytes_per_s: 100_000_000,
        request_bytes_max: 8 << 20,
        memory_bytes_max: 256 << 20,
        batches: 48,
    }
}

async fn check(name: &str, work: Workload) {
    let mut with = Vec::new();
    for seed in 1..=3 {
        let (hedged, alone) = (utilisation(&work, 5, seed).await, utilisation(&work, 0, seed).await);
        println!("{name}, seed {seed}: {:.1} % with hedging, {:.1} % without", hedged * 100.0, alone * 100.0);
        with.push(hedged);
    }
    assert!(with.iter().all(|part| *part >= 0.9), "{with:?}");
}

#[tokio::test(start_paused = true)]
async fn unet3d_computes_nine_tenths_of_the_time() {
    check("unet3d", unet3d()).await;
}

#[tokio::test(start_paused = true)]
async fn resnet50_computes_nine_tenths_of_the_time() {
    check("resnet50", resnet50()).await;
}
