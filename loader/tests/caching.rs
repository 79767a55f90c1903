//! The disk cache: found again in the next epoch and by other loaders, bounded, and never believed.

#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use std::sync::Arc;

use granary_loader::{CacheOptions, Method, Options, Shuffle, Source, SourceOptions, cache};
use granary_packer::place::Place;
use granary_store::{Fault, FaultStore, Operation};

use common::{fill, here, memory, numbers_here, over};

/// 16 shards of 8 MiB: 128 MiB.
async fn data_set() -> (Source, Arc<FaultStore>) {
    let store = Arc::new(FaultStore::new(memory(), 1));
    fill(&Place::of_store(store.clone()), &[128; 16], 64_000).await;
    (over(store.clone(), SourceOptions::default()).await, store)
}

fn options(folder: &std::path::Path, bytes_max: u64, ranks: u32) -> Options {
    Options {
        batch_samples: 64,
        ranks,
        seed: 5,
        shuffle: Shuffle { run_bytes: 2 << 20, lanes: 8, ..Method::Window.into() },
        memory_bytes_max: 32 << 20,
        cache: Some(CacheOptions { folder: folder.to_owned(), bytes_max }),
        ..Options::default()
    }
}

fn files(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let shards = std::fs::read_dir(folder).unwrap().flatten().filter(|entry| entry.path().is_dir());
    let files = shards.flat_map(|shard| std::fs::read_dir(shard.path()).unwrap().flatten());
    files.map(|file| file.path()).filter(|path| path.extension().is_some_and(|e| e == "chunk")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_that_fits_is_fetched_once() {
    let dir = tempfile::tempdir().unwrap();
    let (source, store) = data_set().await;
    let bytes: u64 = source.manifest().bytes();
    let loader = here(vec![source.clone()], options(dir.path(), 1 << 30, 1));
    let first = numbers_here(&loader).await;
    let after = store.calls(Operation::Get);
    assert_eq!(loader.progress_stats().cache_miss_bytes, bytes);
    let second = numbers_here(&loader).await;
    assert_eq!(store.calls(Operation::Get), after);
    assert_eq!((first.len(), second.len()), (32, 32));
    assert_eq!(
        cache::held_bytes(&options(dir.path(), 1 << 30, 1).cache.unwrap(), source.manifest()).unwrap(),
        bytes
    );

    // Another job of the node finds it, and a damaged file is fetched again: by that job, not by this one, which reads ahead.
    drop(loader);
    let mut damaged = files(dir.path());
    damaged.sort();
    let mut content = std::fs::read(&damaged[7]).unwrap();
    content[5000] ^= 1;
    std::fs::write(&damaged[7], content).unwrap();
    std::fs::write(&damaged[9], b"short").unwrap();
    let other = here(vec![source], options(dir.path(), 1 << 30, 1));
    assert_eq!(numbers_here(&other).await, first);
    assert_eq!(store.calls(Operation::Get), after + 2);
    assert_eq!(other.progress_stats().cache_miss_bytes, 2 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn ranks_of_a_node_fetch_each_chunk_once() {
    let dir = tempfile::tempdir().unwrap();
    let (source, _) = data_set().await;
    let rank = |rank| {
        let (source, options) = (source.clone(), Options { rank, ..options(dir.path(), 1 << 30, 4) });
        async move {
            let loader = here(vec![source], options);
            let given: usize = numbers_here(&loader).await.iter().map(|(_, samples)| samples.len()).sum();
            (given, loader)
        }
    };
    let all = futures::future::join_all((0..4).map(rank)).await;
    // When all are through: what one begins of the next epoch, others may still want in this.
    let given: usize = all.iter().map(|(given, _)| given).sum();
    let missed: u64 = all.iter().map(|(_, loader)| loader.progress_stats().cache_miss_bytes).sum();
    assert_eq!((given, missed), (2048, source.manifest().bytes()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_smaller_cache_keeps_what_comes_soonest_within_its_bound() {
    let dir = tempfile::tempdir().unwrap();
    let (source, _) = data_set().await;
    let loader = here(vec![source.clone()], options(dir.path(), 64 << 20, 1));
    let data = source.manifest().bytes();
    let mut spared = Vec::new();
    for _ in 0..4 {
        let before = loader.progress_stats().cache_miss_bytes;
        assert_eq!(numbers_here(&loader).await.len(), 32);
        let fetched = loader.progress_stats().cache_miss_bytes - before;
        spared.push(1.0 - fetched as f64 / data as f64);
        let kept: u64 = files(dir.path()).iter().map(|file| file.metadata().unwrap().len()).sum();
        assert!(kept <= 64 << 20, "{kept}");
    }
    println!("of the data, not fetched in each epoch: {spared:.2?}");
    // Who always keeps the same part of the data finds that part in each epoch, whatever its order; room is made down to fifteen sixteenths. Of the
    // rest a chunk is fetched for each run that has a part of it: a shard's four runs share three of its nine chunks. The policy knows the order,
    // so it is to do no worse. An LRU is spared 15 %.
    let same_part = (60 << 20) as f64 / data as f64;
    let floor = 1.0 - (1.0 - same_part) * (12.0 / 9.0);
    assert!(spared[1..].iter().all(|part| *part >= floor), "{spared:?}, {floor:.2}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_came_wrong_do_not_stay_in_the_cache() {
    let dir = tempfile::tempdir().unwrap();
    let (source, store) = data_set().await;
    let loader = here(vec![source.clone()], options(dir.path(), 1 << 30, 1));
    // An index or a chunk, as it comes.
    store.script(Operation::Get, Fault::None, 40);
    store.script(Operation::Get, Fault::Flip, 1);
    let first = numbers_here(&loader).await;
    let calls = store.calls(Operation::Get);
    let again = here(vec![source], options(dir.path(), 1 << 30, 1));
    assert_eq!(numbers_here(&again).await, first);
    assert_eq!(store.calls(Operation::Get), calls);
}
