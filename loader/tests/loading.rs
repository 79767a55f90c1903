//! Batches: exactly once, the same for any number of ranks, resumed anywhere, whatever happens to samples.

#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;

use granary_core::Kind;
use granary_loader::{Loader, Method, Next, OnError, Options, Shuffle, Source, SourceOptions, State, Tail};
use granary_packer::place::Place;
use granary_store::{Fault, FaultStore, Operation};
use proptest::prelude::*;

use common::{fill, folder, here, loader, memory, numbers, over, rest, rest_here, says};

/// Small runs, so that small data sets are shuffled as large ones are.
fn shuffle(method: Method) -> Shuffle {
    Shuffle { method, run_bytes: 4096, lanes: 4, mix_samples: 3, bucket_batches: 0 }
}

fn options(batch_samples: u64) -> Options {
    Options { batch_samples, seed: 3, shuffle: shuffle(Method::Window), threads: 2, ..Options::default() }
}

const METHODS: [Method; 4] = [Method::None, Method::Shards, Method::Window, Method::Full];

#[test]
fn an_epoch_has_each_sample_once_and_the_next_another_order() {
    let dir = tempfile::tempdir().unwrap();
    let source = folder(dir.path(), &[40, 0, 61, 7], 500);
    for method in METHODS {
        let loader = loader(&source, Options { shuffle: shuffle(method), tail: Tail::Uneven, ..options(10) });
        let epochs: Vec<Vec<u64>> =
            (0..3).map(|_| rest(&loader).into_iter().flat_map(|(_, samples)| samples).collect()).collect();
        for epoch in &epochs {
            let mut sorted = epoch.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..108).collect::<Vec<u64>>(), "{method:?}");
        }
        assert_eq!(epochs.iter().all(|epoch| *epoch == epochs[0]), method == Method::None);
        assert_eq!(loader.epoch(), 3);
    }
}

#[test]
fn batches_are_numbered_and_the_tail_is_as_asked() {
    let dir = tempfile::tempdir().unwrap();
    let source = folder(dir.path(), &[25], 100);
    let give = |tail, rank| {
        let loader = loader(&source, Options { tail, rank, ranks: 3, ..options(10) });
        let mut all = Vec::new();
        while let Some(batch) = loader.next_batch().unwrap() {
            all.push((batch.number, batch.samples.len(), batch.padding));
        }
        all
    };
    assert_eq!(give(Tail::Drop, 1), [(0, 3, 0), (1, 3, 0)]);
    assert_eq!(give(Tail::Pad, 0), [(0, 3, 0), (1, 3, 0), (2, 3, 0)]);
    assert_eq!(give(Tail::Pad, 2), [(0, 4, 0), (1, 4, 0), (2, 4, 4)]);
    assert_eq!(give(Tail::Uneven, 2), [(0, 4, 0), (1, 4, 0), (2, 2, 0)]);
    // What is repeated is the epoch's beginning.
    let one = loader(&source, options(10));
    let all = rest(&one);
    assert_eq!(all[2].1[5..], all[0].1[..5]);
    let e = Loader::new(vec![source], Options { tail: Tail::Drop, ..options(30) }).unwrap_err();
    assert!(e.to_string().contains("25 samples do not fill one global batch of 30"), "{e}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Runs that are stopped anywhere and go on with other ranks and workers give the batches that would have come.
    #[test]
    fn resumed_anywhere_by_any_number_of_ranks_it_is_the_same(
        sizes in proptest::collection::vec(0_u64..40, 1..6), batch in 6_u64..20, method in 0_usize..4, tail in 0_usize..3,
        bucket_batches in 0_u32..4,
        // Of each leg: ranks, workers, batches before the next.
        legs in proptest::collection::vec((1_u32..6, 1_u32..4, 0_u64..9), 1..4),
    ) {
        prop_assume!(sizes.iter().sum::<u64>() >= batch);
        let dir = tempfile::tempdir().unwrap();
        drop(folder(dir.path(), &sizes, 300));
        let with_lengths = SourceOptions { lengths: Some("cls".to_owned()), ..SourceOptions::default() };
        let source = Source::open(dir.path().to_str().unwrap(), with_lengths).unwrap();
        let tail = [Tail::Pad, Tail::Drop, Tail::Uneven][tail];
        let shuffle = Shuffle { bucket_batches, ..shuffle(METHODS[method]) };
        let options = Options { shuffle, tail, threads: 1, ..options(batch) };
        let expected = rest(&loader(&source, options.clone()));
        let mut state: Option<State> = None;
        let mut given = Vec::new();
        for (at, &(ranks, workers, batches)) in legs.iter().enumerate() {
            let last = at + 1 == legs.len();
            let mut parts: std::collections::BTreeMap<u64, Vec<Vec<u64>>> = Default::default();
            let mut states = BTreeSet::new();
            let from = state.as_ref().map_or(0, |state| state.batch);
            for rank in 0..ranks {
                for worker in 0..workers {
                    let options = Options { rank, ranks, worker, workers, ..options.clone() };
                    let loader = loader(&source, options);
                    if let Some(state) = &state {
                        loader.load_state(&State::from_json(&state.to_json()).unwrap()).unwrap();
                    }
                    // This worker's of the leg's batches.
                    while last || loader.state().batch < (from + batches).min(expected.len() as u64) {
                        let Some(batch) = loader.next_batch().unwrap() else { break };
                        parts.entry(batch.number).or_default().push(numbers(&batch));
                    }
                    // Who has no part of an uneven last batch was told the epoch's end instead.
                    let now = loader.state();
                    states.insert(if now.epoch > 0 { expected.len() as u64 } else { now.batch });
                }
            }
            given.extend(parts.into_iter().map(|(number, parts)| (number, parts.concat())));
            let count = expected.len() as u64;
            let batch = (from + batches).min(count);
            let now = loader(&source, options.clone()).state();
            if workers == 1 && !last {
                prop_assert_eq!(states, [batch].into(), "the state is the same on every rank");
            }
            state = Some(State { batch, ..now });
        }
        prop_assert_eq!(given, expected);
    }
}

#[test]
fn a_state_of_other_data_is_refused() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = loader(&folder(one.path(), &[30], 100), options(10));
    let second = loader(&folder(two.path(), &[29], 100), options(10));
    first.next_batch().unwrap().unwrap();
    let e = second.load_state(&first.state()).unwrap_err();
    assert!(e.kind() == Kind::Invalid && e.to_string().contains("it is of other data"), "{e}");
    // The refused loader is where it was.
    assert_eq!(rest(&second).len(), 3);
}

#[test]
fn epochs_may_be_chosen_and_the_line_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let source = folder(dir.path(), &[30], 100);
    let straight = loader(&source, options(10));
    let epochs: Vec<_> = (0..3).map(|_| rest(&straight)).collect();
    let chosen = loader(&source, options(10));
    chosen.next_batch().unwrap();
    chosen.set_epoch(2);
    assert_eq!(rest(&chosen), epochs[2]);
    chosen.set_epoch(1);
    assert_eq!(rest(&chosen), epochs[1]);
    // It stands before epoch 2 already.
    chosen.set_epoch(2);
    assert_eq!(rest(&chosen), epochs[2]);
    let stats = chosen.progress_stats();
    assert_eq!((stats.batches, stats.samples), (10, 100));
    assert!(chosen.metrics().contains("granary_loader_samples_total 100\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_gives_what_a_folder_gives_with_few_requests() {
    let dir = tempfile::tempdir().unwrap();
    let sizes = [200, 200, 200];
    let expected = {
        let path = dir.path().to_owned();
        let run = move || rest(&loader(&folder(&path, &sizes, 500), options(20)));
        tokio::task::spawn_blocking(run).await.unwrap()
    };
    let store = memory();
    fill(&Place::of_store(store.clone()), &sizes, 500).await;
    let source = over(store, SourceOptions::default()).await;
    let bucket = here(vec![source], options(20));
    assert_eq!(rest_here(&bucket).await, expected);
    let stats = bucket.progress_stats();
    // This epoch and what was begun of the next two, with 600 samples each.
    assert!(stats.requests < 30, "{stats:?}");
}

#[test]
fn several_data_sets_come_in_exact_proportions() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let sources = vec![folder(one.path(), &[50], 100), folder(two.path(), &[20, 20], 100)];
    let options = Options { weights: vec![0.75, 0.25], epoch_samples: Some(80), ..options(8) };
    let mixed = Loader::new(sources, options).unwrap();
    let mut own = vec![0; 2];
    while let Some(batch) = mixed.next_batch().unwrap() {
        let of = |source| batch.samples.iter().filter(|sample| sample.source() == source).count();
        assert_eq!((of(0), of(1)), (6, 2));
        own[0] += of(0);
        own[1] += of(1);
    }
    assert_eq!(own, [60, 20]);
}

/// Sample `bad` of a data set of 30 has a flipped byte.
fn damaged(bad: u64) -> (tempfile::TempDir, Source) {
    let dir = tempfile::tempdir().unwrap();
    let source = folder(dir.path(), &[30], 1000);
    let path = dir.path().join("shards/000000.tar");
    let mut bytes = std::fs::read(&path).unwrap();
    let wanted = common::payload(bad, 1000);
    let at = bytes.windows(1000).position(|window| window == wanted).unwrap();
    bytes[at + 500] ^= 0x10;
    std::fs::write(&path, bytes).unwrap();
    (dir, source)
}

#[test]
fn a_bad_sample_is_raised_skipped_or_substituted() {
    let (_dir, source) = damaged(17);
    let give = |on_error| {
        let loader = loader(&source, Options { on_error, shuffle: shuffle(Method::None), ..options(10) });
        (loader.next_batch().unwrap().unwrap(), loader.next_batch(), loader)
    };
    let (_, second, loader) = give(OnError::Raise);
    let e = second.unwrap_err();
    assert!(e.kind() == Kind::Corrupt && e.to_string().contains("000017.bin"), "{e}");
    // It stays there, and a repaired file would be read.
    assert_eq!((loader.state().batch, loader.next_batch().unwrap_err().kind()), (1, Kind::Corrupt));
    let (_, second, loader) = give(OnError::Skip);
    let batch = second.unwrap().unwrap();
    assert_eq!(numbers(&batch), [10, 11, 12, 13, 14, 15, 16, 18, 19]);
    assert_eq!((batch.skipped, batch.substituted, loader.progress_stats().skipped), (1, 0, 1));
    let (_, second, loader) = give(OnError::Substitute);
    let batch = second.unwrap().unwrap();
    assert_eq!(numbers(&batch), [10, 11, 12, 13, 14, 15, 16, 18, 18, 19]);
    let stats = loader.progress_stats();
    assert_eq!((batch.substituted, stats.substituted, stats.messages.len()), (1, 1, 1));
    assert!(stats.messages[0].contains("000017.bin"), "{stats:?}");
    assert_eq!(rest(&loader).len(), 1);
}

#[tokio::test]
async fn an_outage_is_raised_and_skips_no_sample() {
    let store = Arc::new(FaultStore::new(memory(), 1));
    fill(&Place::of_store(store.clone()), &[20], 1000).await;
    let source = over(store.clone(), SourceOptions::default()).await;
    let loader = here(vec![source], Options { on_error: OnError::Skip, ..options(10) });
    store.chance(Operation::Get, Fault::Before(Kind::Unavailable), 1);
    assert_eq!(loader.next().await.unwrap_err().kind(), Kind::Unavailable);
    store.heal();
    assert_eq!(rest_here(&loader).await.iter().map(|(_, samples)| samples.len()).sum::<usize>(), 20);
}

#[test]
fn a_batch_of_bad_samples_only_is_left_out() {
    let (_dir, source) = damaged(17);
    let options = Options { on_error: OnError::Substitute, shuffle: shuffle(Method::None), ..options(1) };
    let batches = rest(&loader(&source, options));
    assert_eq!(batches.len(), 29);
    assert!(batches.iter().all(|(number, samples)| *number != 17 && samples == &[*number]));
}

#[tokio::test]
async fn a_straggler_is_passed_by_as_many_as_may() {
    let store = Arc::new(FaultStore::new(memory(), 1));
    fill(&Place::of_store(store.clone()), &[40], 9000).await;
    let source = over(store.clone(), SourceOptions::default()).await;
    let slow = |overtake| Options {
        overtake,
        shuffle: shuffle(Method::None),
        // Each batch is a request of its own, and the third does not come.
        request_bytes_max: 64 << 10,
        memory_bytes_max: 1 << 20,
        ..options(5)
    };
    let read = |at: u64| (0..5).map(|n| at * 5 + n).collect::<Vec<u64>>();
    let loader = here(vec![source.clone()], slow(2));
    // The first request is that of the index.
    store.script(Operation::Get, Fault::None, 3);
    store.script(Operation::Get, Fault::Delay, 1);
    let mut order = Vec::new();
    for _ in 0..4 {
        let batch = loader.next().await.unwrap().unwrap();
        assert_eq!(numbers(&batch), read(batch.number));
        order.push(batch.number);
    }
    let state = loader.state();
    let straggler = state.batch;
    assert_eq!(state.given, [straggler + 1, straggler + 2]);
    assert_eq!(loader.progress_stats().overtaken, 2);
    // A loader that goes on from here gives the straggler, and none twice.
    let other = here(vec![source], slow(2));
    other.load_state(&state).unwrap();
    let rest: Vec<u64> = rest_here(&other).await.into_iter().map(|(number, _)| number).collect();
    let mut all: Vec<u64> = order.iter().copied().chain(rest).collect();
    all.sort_unstable();
    assert_eq!(all, (0..8).collect::<Vec<_>>());
    // The first waits for it from here.
    store.release();
    assert_eq!(loader.next().await.unwrap().unwrap().number, straggler);
}

#[test]
fn a_caller_may_look_whether_a_batch_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let loader = loader(&folder(dir.path(), &[10], 100), options(10));
    let batch = loop {
        match loader.next_batch_within(std::time::Duration::from_millis(5)).unwrap() {
            Next::Batch(batch) => break batch,
            Next::NotYet => {}
            Next::End => panic!("there is a batch"),
        }
    };
    assert_eq!(batch.samples.len(), 10);
    assert!(matches!(loader.next_batch_within(std::time::Duration::ZERO).unwrap(), Next::End));
}

#[test]
fn many_callers_have_each_another_batch() {
    let dir = tempfile::tempdir().unwrap();
    let loader = loader(&folder(dir.path(), &[300], 100), options(3));
    let all: Vec<u64> = std::thread::scope(|scope| {
        let take = || {
            let mut all = Vec::new();
            while let Some(batch) = loader.next_batch().unwrap() {
                if batch.epoch > 0 {
                    break;
                }
                all.extend(batch.samples.iter().map(says));
            }
            all
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let once: BTreeSet<u64> = all.iter().copied().collect();
    assert_eq!((all.len(), once.len()), (300, 300));
}

/// Of what is fetched, no more is held than the budget says, however many samples go by.
#[tokio::test(flavor = "multi_thread")]
async fn memory_is_bounded_over_many_samples() {
    let store = memory();
    fill(&Place::of_store(store.clone()), &[400; 5], 4000).await;
    let source = over(store, SourceOptions::default()).await;
    let options = Options { memory_bytes_max: 1 << 20, ..options(50) };
    let loader = here(vec![source], options);
    for _ in 0..3 {
        while let Some(batch) = loader.next().await.unwrap() {
            let stats = loader.progress_stats();
            // A batch is 250 KiB with its headers: four fit.
            assert!(stats.ready_batches <= 4, "{stats:?}");
            drop(batch);
        }
    }
    assert_eq!(loader.progress_stats().samples, 6000);
}
